-- An invented building for people without an account: eight devices and three weeks of values, always the same but for their times.
local json = require "neap.json"
local plausible = require "plausible"
local time = require "neap.time"

local sandbox = {
  BUILDING = "Harbour House", DATASET = "energy_daily",
  FIELDS = { day = "datetime key", kwh = "number", area = "string", estimated = "boolean optional" },
}
local HOUR, DAYS = 3600000, 21

local function round(v, digits)
  local scaled = math.floor(v * 10 ^ digits + 0.5)
  return digits == 0 and scaled or scaled / 10 ^ digits
end

local function daily(low, high, digits)
  return function(seed, at) return round(plausible.daily(seed, at, low, high), digits) end
end

-- A meter only counts up.
local function meter(seed, at) return round(12000 + at % 31536000000 / HOUR * (1.8 + plausible.chance(seed, 3)), 1) end
local function state(seed, at) return plausible.daily(seed, at, 0, 1) > 0.45 and "running" or "idle" end
local function door(seed, at) return plausible.chance(seed, at // HOUR) > 0.92 and "open" or "closed" end

local temperature, humidity = { "temperature", "Cel", daily(20, 26, 1) }, { "humidity", "%", daily(38, 62, 0) }
local co2, battery = { "co2", "ppm", daily(420, 1150, 0) }, { "battery", "%", daily(91, 93, 0), every = 6 }
local DEVICES = {
  { "a81758fffe04c101", "Room 101 climate", "ERS-CO2", "1st floor, east", { temperature, humidity, co2, battery } },
  { "a81758fffe04c102", "Room 102 climate", "ERS-CO2", "1st floor, west", { temperature, humidity, co2, battery } },
  { "a81758fffe04c201", "Room 201 climate", "ERS", "2nd floor, east", { temperature, humidity, battery } },
  { "a81758fffe04c202", "Room 202 climate", "ERS", "2nd floor, west", { temperature, humidity, battery }, online = false },
  { "70b3d57ed0051111", "Main entrance door", "LDS02", "Ground floor", { { "door", nil, door }, battery } },
  { "70b3d57ed0052222", "Main meter", "SDM630", "Basement", { { "energy", "kWh", meter }, { "power", "kW", daily(4, 38, 2) } } },
  { nil, "AHU-1", "YORK-YMB", "Roof", { { "supply_temperature", "Cel", daily(14, 19, 1) }, { "state", nil, state },
    { "setpoint", "Cel", function() return 17.5 end, control = true, every = 6 } } },
  { nil, "Chiller-1", "YVAA", "Roof", { { "leaving_temperature", "Cel", daily(6, 9, 1) }, { "state", nil, state } } },
}

local function tell(plugin, s, d)
  local devEui, name, model, location = d[1], d[2], d[3], d[4]
  local device, points = devEui and s.id_of(devEui) or s.id_without(sandbox.BUILDING, name), json.array {}
  for i, p in ipairs(d[5]) do
    points[i] = { metric = p[1], unit = p[2], writable = p.control or false, id = not devEui and name .. "." .. p[1] or nil }
  end
  plugin:device { device = device, serial = devEui, name = name, model = model, place = sandbox.BUILDING,
    online = d.online ~= false, extra = { alias = (name:lower():gsub("%W", "-")), location = location,
    descriptions = "invented for the sandbox", points = points } }
  return device
end

--- Emits them, up to the present; returns a devEui to begin with.
function sandbox.fill(plugin, s)
  local now = time.now() // HOUR * HOUR
  for seed, d in ipairs(DEVICES) do
    local device = tell(plugin, s, d)
    for _, p in ipairs(d[5]) do
      for at = now - DAYS * 24 * HOUR, now, (p.every or 1) * HOUR do -- an hour's, or more hours apart
        plugin:emit { device = device, metric = p[1], value = p[3](seed, at), unit = p[2], at = at }
      end
    end
  end
  return DEVICES[1][1]
end

--- How to call it, for a shell.
function sandbox.example(url, key, device)
  return ([[
cat >neuron.pem <<'END'
%sEND
curl -s '%s/device/v1/realtime/%s/values' -H 'X-Source-SecretId: %s' \
  -H "X-Source-SecretKey: $(printf %%s '%s' | openssl pkeyutl -encrypt -pubin -inkey neuron.pem%s | base64 -w0)"]])
    :format(key.public_key, url, device, key.secret_id, key.key, key.padding == "oaep" and " -pkeyopt rsa_padding_mode:oaep" or "")
end

return sandbox
