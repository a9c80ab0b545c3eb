-- Invented accounts and devices for `neap sandbox elexir`: three weeks of sessions that look like somebody's, and nobody's.
local crypto = require "neap.crypto"
local time = require "neap.time"
local plausible = require "plausible"

local DAY, WEEKS, SEED = 86400000, 3, 20250414
local UNIQUE = { mine = "270038000C50524833343720", other = "270038000C50524833343721", free = "270038000C50524833343722",
  unregistered = "270038000C50524833343723" }

-- One evening's session on a day; nil where it was skipped.
local function session(user_id, device, day)
  local function chance(n) return plausible.chance(SEED, user_id, day, n) end
  if chance(1) < 0.15 then return nil end
  local odd = chance(2)
  local flag = odd < 0.78 and 1 or odd < 0.86 and 2 or odd < 0.94 and 3 or 4
  local seconds = flag == 1 and 1200 or 60 + math.floor(chance(3) * 1100)
  local events, data = 1 + seconds // 400, {}
  for event = 1, events do
    data[event] = ("%04x%04x%08x"):format(event - 1, math.floor(chance(10 + event) * 0xffff),
      math.floor(chance(30 + event) * 0xffffffff))
  end
  local at = day * DAY + 11 * 3600000 + math.floor(chance(4) * 5400) * 1000
  return {
    user_id = user_id, model_id = device.model_id, device_id = device.id, fversion = 22.0, logdate = time.format(at),
    mode = chance(5) < 0.8 and 1 or 0, finish_flag = flag, last_intensity = 60.0 + math.floor(chance(6) * 110),
    treatment_time = seconds, event_num = events, log_data = table.concat(data),
  }, at
end

-- serving: what elexir.lua has to write accounts, devices and logs with.
return function(plugin, serving)
  local users, devices = serving.users, serving.devices

  local function account(email, parent)
    local password = crypto.base64url(crypto.random(12))
    return assert(users.add(email, password, parent)), password
  end

  local function used(user_id, device, now)
    for day = now // DAY - WEEKS * 7, now // DAY - 1 do
      local l, at = session(user_id, device, day)
      if l then
        serving.store_log(device, l)
        local temp = { user_id = user_id, model_id = device.model_id, device_id = device.id, unique_id = device.unique_id,
          finish_flag = 0, start_date = l.logdate, last_date = "" }
        serving.store_temp(device, temp)
        temp.finish_flag, temp.last_date = l.finish_flag, time.format(at + l.treatment_time * 1000)
        serving.store_temp(device, temp)
      end
    end
  end

  local function make(args)
    local now = time.now()
    local function device(unique_id, serial_code, owner)
      local d = devices.add { unique_id = unique_id, serial_code = serial_code, at = now - 30 * DAY }
      if owner then devices.bind(d, owner.id, ("5c:f2:86:%02x:00:%02x"):format(d.id, owner.id)) end
      return d
    end
    local mina, password = account "mina@elexir.example"
    local jun = account("jun@elexir.example", mina.id)
    local other, other_password = account "gwen@elexir.example"
    local mine = device(UNIQUE.mine, "EX20-0001", mina)
    used(mina.id, mine, now)
    used(jun.id, mine, now)
    used(other.id, device(UNIQUE.other, "EX20-0002", other), now)
    device(UNIQUE.free, "EX20-0003")
    device(UNIQUE.unregistered)
    local tokens = users.issue(mina.id)
    return {
      credentials = {
        email = mina.email, password = password, access_token = tokens.access_token, refresh_token = tokens.refresh_token,
        user_id = mina.id, child_id = jun.id, unique_id = UNIQUE.mine, serial_code = "EX20-0001", device_id = mine.id,
        model_id = mine.model_id, free_unique_id = UNIQUE.free, free_serial_code = "EX20-0003",
        unregistered_unique_id = UNIQUE.unregistered, other_unique_id = UNIQUE.other, other_email = other.email,
        other_password = other_password,
      },
      example = ("curl -s -H 'Authorization: Bearer %s' %s/api/v1/legacy/device/my-devices"):format(tokens.access_token, args.url),
    }
  end

  plugin:command { "sandbox", about = "Makes the sandbox's accounts, devices and sessions.", args = { url = { "string" } },
    handler = make }
end
