-- Sinocare's CGM cloud pushes readings of glucose sensors here (三诺推送CGM数据规范文档, 2024-02-21).
-- It pushes at least once and in any order, and again until it is answered code 0 within 5 s. With `push_to` this connection pushes
-- in the cloud's place what rules send it, to a third party (lib/sinocare/push.lua).
local plugin = ... ---@type neap.Plugin
local json = require "neap.json"
local push = require "sinocare.push"
local sandbox = require "sinocare.sandbox"
local time = require "neap.time"

local config = plugin:config {
  unit = { "string", default = "mmol/L", values = { "mmol/L", "mg/dL" }, about = "of testResult: none is documented" },
  zone = { "string", default = "Asia/Shanghai", about = "of testTime, which carries none" },
  receive = { "boolean", default = true, about = "false serves no path: a connection that only pushes" },
  push_to = { "string", optional = true, pattern = "https?://[^/]+.*", about = "the third party's address, for what rules send" },
  push_for = { "duration", default = "30d", min = "1m", about = "how long a reading is pushed again before it is given up" },
}
assert(time.zone(config.zone))

-- The document defines 0 alone. All else makes the cloud push again, so that a code only has to tell a person what was wrong.
local CODES = {
  missing = 1001, json = 1002, encoding = 1002, type = 1003, range = 1004, length = 1004, values = 1005, pattern = 1006,
  time = 1006, failed = 1500, store = 1503,
}
local STATUS = { ["0"] = "bound", ["1"] = "warming", ["2"] = "active", ["4"] = "ended" }
local LAST = 253402300799999 -- the end of the year 9999, UTC

local function given(value)
  if value ~= json.null then return value end
end

-- Nothing but spaces tells nothing, and is nobody's number.
local function told(value)
  value = given(value)
  return value and value:find "%S" and value or nil
end

-- Not valid is warm-up only where the sensor says that it is initialising.
local function quality(status, cgm)
  if status ~= "1" then return "valid" end
  return cgm == "1" and "warmup" or "invalid"
end

-- Who wears the sensor, as a reference: what the cloud tells of a person is kept encrypted, under the first number given.
local function keep_person(d)
  local details, key = {}, nil
  for _, name in ipairs { "patientId", "idCard", "visitId", "patientName", "inSerialId" } do
    details[name] = told(d[name])
  end
  if details.patientId then key = "patient:" .. details.patientId
  elseif details.idCard then key = "card:" .. details.idCard
  elseif details.visitId then key = "visit:" .. details.visitId end
  return key and plugin.people:keep(key, details)
end

local function read_time(text)
  local at, why = time.parse(text, config.zone, "yyyy-MM-dd HH:mm:ss")
  if at and (at < 0 or at > LAST) then return nil, "not a time that a sensor can measure at" end
  return at, why
end

-- Numbers come as strings and strings as numbers, where the meaning is plain. An identifier has no control characters.
local function text(t) t[1], t.lenient = "string", true return t end
local function integer(t) t[1], t.lenient, t.optional, t.null = "integer", true, true, true return t end
local function number(about) return { "number", lenient = true, optional = true, null = true, about = about } end
local function detail(about) return text { optional = true, null = true, person = true, max = 256, about = about } end

local fields = {
  testId = text { min = 1, max = 128, pattern = "%C+", about = "检测数据唯一id" },
  deviceSn = text { min = 1, max = 128, pattern = "%C+", about = "设备sn号" },
  testResult = text { max = 32, pattern = "%s*%d+%.?%d*%s*", about = "检测结果值" },
  testTime = { "string", max = 64, about = "yyyy-MM-dd HH:mm:ss" },
  serialNo = integer { min = 1, max = 9999999999, about = "from 1, one more each" },
  increMinute = integer { min = 0, max = 1440, about = "minutes between values" },
  cgmDay = integer { min = 0, max = 3650, about = "the sensor's life in days" },
  status = text { optional = true, null = true, default = "0", values = { "0", "1" }, about = "0 valid, 1 not" },
  cgmStatus = text { optional = true, null = true, values = { "0", "1", "2", "4" },
    about = "0 to be implanted, 1 initialising, 2 uploading, 4 finished" },
  low = number "低阈值", high = number "高阈值",
  customerName = text { optional = true, null = true, max = 256, pattern = "%C*", about = "医院名称" },
  idCard = detail "身份证号", visitId = detail "住院号", patientName = detail "患者信息", patientId = detail "患者主索引ID",
  inSerialId = detail "患者住院流水号",
}

-- Stores a test; nil, why and so on where its time is none.
local function take(d)
  local at, why = read_time(d.testTime)
  if not at then return nil, why, "time", "data.testTime" end
  local minutes, cgm, days = given(d.increMinute), given(d.cgmStatus), given(d.cgmDay)
  plugin:emit {
    device = d.deviceSn, metric = "glucose", value = tonumber(d.testResult), unit = config.unit, at = at, key = d.testId,
    serial = given(d.serialNo), interval = minutes and minutes * 60, quality = quality(given(d.status), cgm),
    extra = { low = given(d.low), high = given(d.high), cgmDay = days },
  }
  plugin:device {
    device = d.deviceSn, serial = d.deviceSn, at = at, status = cgm and STATUS[cgm], place = told(d.customerName),
    owner = keep_person(d), extra = days and { life_days = days },
  }
  return true
end

if config.receive then
  plugin:refuse(function(problem)
    return problem.status == 400 and 200 or problem.status, { code = CODES[problem.kind] or problem.status, msg = problem.message }
  end)

  plugin:serve {
    "POST /sinocare/push", about = "The cloud pushes one reading.",
    body = {
      reservedCode = text { values = { "01", "1" }, about = "接口命令: 01 is a reading; as a number it loses its 0" },
      data = { "object", fields = fields },
    },
    handler = function(req)
      local taken, why, kind, field = take(req.body.data)
      if not taken then return nil, why, kind, field end
      return 200, { code = 0, msg = "" }
    end,
  }
  sandbox(plugin, config, take)
end

push(plugin, config, fields)
