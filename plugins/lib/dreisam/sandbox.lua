-- Users and sensors that do not exist, with weeks of readings, for a sandbox of Dreisam's cloud.
local plausible = require "plausible"
local time = require "neap.time"
local trend = require "trend"

local sandbox = {}

local DAY, STEP = 86400000, 5 * 60000
local LIFE = 14 -- days of a sensor

-- Whose sensor began how many days ago; those of 14 and more have ended.
local SENSORS = {
  { sn = "DRS2600001", user = 1, days = 20 }, { sn = "DRS2600002", user = 1, days = 5 }, { sn = "DRS2600003", user = 2, days = 9 },
  { sn = "DRS2600004", user = 3 }, -- bound, not activated yet
}

local function make_readings(plugin, sensor, from, to)
  local follow = trend.follow()
  for n = 1, (to - from) // STEP do
    local at = from + n * STEP
    local value = math.floor(plausible.patient(7, sensor.user, at) * 10 + 0.5) / 10
    plugin:emit {
      device = sensor.sn, metric = "glucose", value = value, unit = "mmol/L", at = at, serial = n, interval = STEP // 1000,
      trend = follow(at, value),
    }
  end
end

--- Makes them and returns what a client needs.
---@param plugin table the handle
---@param url string where this host listens
---@param face { app: table, enrol: function, session: function }
function sandbox.make(plugin, url, face)
  local now, users = time.now() // STEP * STEP, {}
  for n = 1, 3 do users[n] = face.enrol(("patient-%03d"):format(n), face.app.app_id) end
  for _, s in ipairs(SENSORS) do
    local user, from = users[s.user], now - (s.days or 0) * DAY
    local ends = from + LIFE * DAY
    local status = s.days and (ends <= now and "ended" or "active") or "bound"
    if s.days then make_readings(plugin, s, from, math.min(ends, now)) end
    plugin:device {
      device = s.sn, serial = s.sn, model = "CGM", owner = user.ref, status = status,
      extra = {
        bound_at = from - STEP, activated_at = s.days and from, estimated_end_at = s.days and ends,
        ended_at = status == "ended" and ends or nil,
      },
    }
  end
  local session, sn = face.session(users[1]), SENSORS[2].sn
  local example = "curl -H 'Authorization: Bearer %s' '%s/partner/v1/device/glucose?device_sn=%s'"
  return {
    credentials = {
      app_id = face.app.app_id, app_secret = face.app.app_secret, partner_uid = users[1].partner_uid, open_id = session.open_id,
      access_token = session.access_token, device_sn = sn,
    },
    example = example:format(session.access_token, url, sn),
  }
end

return sandbox
