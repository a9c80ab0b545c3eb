-- A home and a ward that do not exist: three weeks of plugs, thermometers, a gateway with two sensors behind it, a scale, and a
-- speaker that keeps no logs.
local crypto = require "neap.crypto"
local plausible = require "plausible"
local scale = require "tuya.scale"
local time = require "neap.time"

local HOUR, DAY = 3600000, 86400000
local DAYS = 21

local function hex(n) return crypto.hex(crypto.random(n // 2)) end

-- What each device reports, by hours since the beginning; nil: nothing new.
local function plug(seed)
  return function(at, hour)
    local on = hour % 24 >= 6 and hour % 24 < 23
    local voltage = math.floor(plausible.daily(seed, at, 2170, 2260) + 0.5)
    local current = on and math.floor(plausible.daily(seed + 1, at, 120, 900) + 0.5) or 0
    return { switch_1 = (hour % 24 == 6 or hour % 24 == 23) and on or nil, cur_voltage = voltage, cur_current = current,
      cur_power = voltage * current // 1000, add_ele = on and voltage * current // 1000 // 10 or nil }
  end
end

local function thermometer(seed, low, high)
  return function(at, hour)
    return { va_temperature = math.floor(plausible.daily(seed, at, low, high) + 0.5),
      va_humidity = math.floor(plausible.daily(seed + 1, at, 38, 61) + 0.5),
      battery_percentage = hour % 24 == 0 and 100 - hour // 24 or nil }
  end
end

local function body_scale(seed)
  return function(at, hour)
    if hour % 24 ~= 7 then return {} end
    return { weight = 48900 + math.floor(plausible.chance(seed, at // DAY) * 900), body_r = 640 + hour // 24, left_hand_r = 0,
      right_hand_r = 0, battery_low = false }
  end
end

local function water(_, hour) return { watersensor_state = hour == 300 and "alarm" or hour % 24 == 0 and "normal" or nil } end
local function door(_, hour)
  return { doorcontact_state = hour % 12 == 9 and true or hour % 12 == 10 and false or nil }
end
local function speaker(_, hour)
  return hour == 0 and { smartspeaker_vol = 26, smartspeaker_mic = true, smartspeaker_play_mode = "random" } or {}
end
local function nothing() return {} end

local DEVICES = {
  { "Infusion pump socket", "cz", "Wi-Fi 智能计量插座", plug(1) },
  { "Lamp", "cz", "Wi-Fi 智能计量插座", plug(11) },
  { "Medicine fridge", "wsdcg", "温湿度传感器", thermometer(21, 28, 61) },
  { "Ward 3", "wsdcg", "温湿度传感器", thermometer(31, 196, 243) },
  { "Gateway", "wg2", "Zigbee 网关", nothing },
  { "Leak in the kitchen", "sj", "水浸报警", water, sub = true },
  { "Pharmacy door", "mcs", "门磁", door, sub = true },
  { "Scales", "qt", "Wifi scales_OEM", body_scale(41) },
  { "Speaker", "znyxss", "Wi-Fi 智能音箱 SS190", speaker, logs = false },
}

local function example(url, key)
  local text = ("GET\\n%s\\n\\n/v1.0/token?grant_type=1"):format(crypto.sha256 "")
  return ([[t=$(date +%%s)000; curl -s "%s/v1.0/token?grant_type=1" -H "client_id: %s" -H "t: $t" -H "sign_method: HMAC-SHA256" ]]
    .. [[-H "sign: $(printf '%%s%%s%s' %s "$t" | openssl dgst -sha256 -hmac %s | sed 's/.* //' | tr a-f A-F)"]])
    :format(url, key.client_id, text, key.client_id, key.secret)
end

---@param plugin table the plugin's handle
---@param keys table tuya.keys's
return function(plugin, keys)
  local function fill(id, d, since, now)
    local hour = 0
    for at = since, now, HOUR do
      for code, value in pairs(d[4](at, hour)) do
        local n, unit = scale.of(d[2], code)
        local neutral = scale.to_neutral(value, n)
        plugin:emit { device = id, metric = code, value = neutral, unit = math.type(neutral) and unit or nil, at = at }
      end
      hour = hour + 1
    end
    plugin:event { device = id, type = "activated", at = since, data = { event_from = "1" } }
    plugin:event { device = id, type = "online", at = since + 1000, data = { event_from = "1" } }
    plugin:event { device = id, type = "offline", at = since + 5 * DAY, data = { event_from = "1" } }
    plugin:event { device = id, type = "online", at = since + 5 * DAY + 90000, data = { event_from = "1" } }
  end

  --- Makes the data, and a key to it.
  return function(args)
    local now = time.now()
    local since = now - DAYS * DAY
    local key = keys.issue()
    local home, products, first, gateway = ("%d"):format(10700000 + now % 100000), {}, nil, nil
    for _, d in ipairs(DEVICES) do
      local id = "6c" .. hex(20)
      products[d[3]] = products[d[3]] or hex(16)
      first = first or id
      if d[2] == "wg2" then gateway = id end
      local extra = { category = d[2], product_name = d[3], sub = d.sub or false, uuid = hex(16), biz_type = 18, ip = "192.0.2.7",
        icon = ("smart/icon/%s.png"):format(d[2]), time_zone = "+08:00", active_time = since // 1000, create_time = since // 1000,
        update_time = now // 1000, gateway_id = d.sub and gateway or nil, logs = d.logs,
        mac = ("5c:cf:7f:%s:%s:%s"):format(hex(2), hex(2), hex(2)),
        secrets = plugin.people:keep("device/" .. id, { local_key = hex(16) }) }
      plugin:device { device = id, name = d[1], owner = key.uid, place = home, model = products[d[3]],
        serial = "SN" .. hex(10):upper(), online = true, status = "active", extra = extra }
      fill(id, d, since, now)
    end
    return { credentials = { client_id = key.client_id, secret = key.secret, device_id = first, uid = key.uid },
      example = example(args.url, key) }
  end
end
