-- Sensors and patients that do not exist, with days of tests, for a sandbox of the receiver that Sinocare's cloud pushes to.
local json = require "neap.json"
local plausible = require "plausible"
local time = require "neap.time"

local MINUTE, SENSORS, DAYS, LIFE = 60000, 3, 2, 8
local STEP = 3 * MINUTE

-- The nth test of a sensor that was put on at `from`, as the cloud would push it.
local function test(sensor, from, n, config)
  local mmol = plausible.patient(11, sensor, from + n * STEP)
  local warm = n <= 20
  return {
    testId = ("%d%d%05d"):format(from // MINUTE, sensor, n), deviceSn = ("GS-SANDBOX-%d"):format(sensor), serialNo = n,
    testResult = config.unit == "mmol/L" and ("%.1f"):format(mmol) or ("%d"):format(mmol * 18 // 1),
    testTime = time.format(from + n * STEP, config.zone, "yyyy-MM-dd HH:mm:ss"), increMinute = STEP // MINUTE, cgmDay = LIFE,
    status = warm and "1" or "0", cgmStatus = warm and "1" or "2", customerName = "望湖虚构医院", low = json.null, high = json.null,
    patientName = plausible.name(sensor), patientId = ("P%04d"):format(sensor), idCard = "", visitId = "", inSerialId = "",
  }
end

---@param plugin table the handle
---@param config table its settings
---@param take fun(test: table): boolean?, string? stores one
return function(plugin, config, take)
  plugin:command {
    "sandbox", about = "Makes invented sensors with two days of tests, and tells where to push.", args = { url = { "string" } },
    handler = function(args)
      local now = time.now() // 1000 * 1000
      local from, last = now - DAYS * 86400000, DAYS * 86400000 // STEP
      for sensor = 1, SENSORS do
        for n = 1, last do assert(take(test(sensor, from, n, config))) end
      end
      local push_url = args.url .. "/sinocare/push"
      local body = json.encode { reservedCode = "01", data = test(1, from, last + 1, config) }
      return {
        credentials = { push_url = push_url, device_sn = "GS-SANDBOX-1", zone = config.zone, unit = config.unit },
        example = ("curl -H 'Content-Type: application/json' -d '%s' '%s'"):format(body, push_url),
      }
    end,
  }
end
