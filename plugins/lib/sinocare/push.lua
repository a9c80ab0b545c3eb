-- The cloud's side of Sinocare's push (三诺推送CGM数据规范文档, 2024-02-21): pushes readings to a third party in its dialect, again until
-- it answers code 0 within 5 s.
local crypto = require "neap.crypto"
local glucose = require "glucose"
local http = require "neap.http"
local json = require "neap.json"
local told = require "message"
local time = require "neap.time"

local ANSWER_WITHIN = 5 -- seconds
local CGM_STATUS = { unbound = "0", bound = "0", warming = "1", active = "2", ended = "4" }
local PEOPLE = { "idCard", "visitId", "patientName", "patientId", "inSerialId" }

-- A decimal number without an exponent, of at most so many decimals.
local function decimal(value, decimals)
  local text = ("%." .. decimals .. "f"):format(value)
  return decimals > 0 and (text:gsub("0+$", ""):gsub("%.$", "")) or text
end

local function result_of(r, unit)
  if r.unit == unit then return decimal(r.value, 6) end
  if unit == "mmol/L" then
    local mmol = glucose.to_mmol(r.value, r.unit)
    return mmol and decimal(mmol, 2)
  end
  local mgdl = glucose.to_mgdl(r.value, r.unit)
  return mgdl and decimal(mgdl, 0)
end

-- Why a reading cannot be told in this dialect, however often it is tried.
local function unfit(r)
  if r.metric ~= "glucose" then return "only glucose is pushed in this dialect, not " .. tostring(r.metric) end
  if type(r.value) ~= "number" or r.value < 0 then return "testResult has to be a number from 0 on" end
end

-- What tells one test from another: the vendor's own key; else the sensor and the moment, which is what tells readings apart then.
local function test_id(r)
  local id = r.key or ("%s-%d"):format(r.device, r.at)
  return #id <= 128 and id or crypto.sha256(id)
end

---@param r table a reading, as messages have it
---@param device? table what is known of its device
---@param people table details of who wears it; empty where they are not to be told
---@param config { unit: string, zone: string }
---@return table? body nil, why where it cannot be said
local function message(r, device, people, config)
  local why = unfit(r)
  local result = not why and result_of(r, config.unit)
  if not result then return nil, why or ("there is no %s of a value in %s"):format(config.unit, tostring(r.unit)) end
  local extra, minutes = r.extra or {}, r.interval and r.interval / 60
  local warm = r.quality == "warmup"
  local data = {
    testId = test_id(r), deviceSn = r.device, testResult = result,
    testTime = time.format(r.at, config.zone, "yyyy-MM-dd HH:mm:ss"),
    serialNo = r.serial or json.null, increMinute = minutes and math.tointeger(minutes) or json.null,
    cgmDay = extra.cgmDay or (device and device.extra or {}).life_days or json.null,
    low = extra.low or json.null, high = extra.high or json.null,
    status = (r.quality == nil or r.quality == "valid") and "0" or "1",
    cgmStatus = warm and "1" or device and CGM_STATUS[device.status] or "2",
    customerName = device and device.place or "",
  }
  for _, name in ipairs(PEOPLE) do data[name] = people[name] or "" end
  return { reservedCode = "01", data = data }
end

-- What the third party answered: its answer, or nil, why and, where it said so, the answer that tells when to come again.
local function post(url, body)
  local res, why, code = http.post { url = url, json = body, timeout = ANSWER_WITHIN }
  if not res then return nil, why, code end
  local answer = res.json
  if res.status >= 200 and res.status < 300 and type(answer) == "table" and type(answer.code) == "number" then return answer end
  local said = ("answered HTTP %d, which is no code 0: %s"):format(res.status, res.body:sub(1, 200))
  if res.status == 429 or res.status >= 500 then return nil, said, "status", res end
  return nil, said
end

---@param plugin table the handle
---@param config table its settings: push_to, unit, zone
---@param fields table the schema of a push's data
return function(plugin, config, fields)
  if config.push_to then
    plugin:deliver {
      about = "Pushes glucose readings to push_to in Sinocare's dialect, until they are answered code 0.",
      retry_for = config.push_for,
      handler = function(messages)
        local kind, r = told.read(messages[1])
        if kind ~= "reading" then
          return { status = 422, body = kind and "only readings are pushed in this dialect" or r }
        end
        local device = plugin.data:device(r.device, r.vendor)
        local people = device and device.owner and plugin.people:details(device.owner) -- nil without people = true
        local body, unsaid = message(r, device, people or {}, config)
        if not body then return { status = 422, body = unsaid } end
        local answer, why, code, res = post(config.push_to, body)
        if not answer then return nil, why, code, res end
        if answer.code == 0 then return true end
        return nil, ("answered code %s: %s"):format(tostring(answer.code), tostring(answer.msg):sub(1, 200))
      end,
    }
  end

  plugin:command {
    "push", about = "Pushes one test to push_to and gives the answer.", args = fields,
    handler = function(args)
      if not config.push_to then return nil, "this connection has no push_to", "missing", "push_to" end
      for _, name in ipairs(PEOPLE) do args[name] = args[name] or "" end
      return post(config.push_to, { reservedCode = "01", data = args })
    end,
  }
end
