-- Sinocare's CGM cloud pushes readings of glucose sensors here (三诺推送CGM数据规范文档, 2024-02-21).
-- It pushes at least once and in any order, and again until it is answered code 0 within 5 s.
local plugin = ...
local json = require "neap.json"
local time = require "neap.time"

local config = plugin:config {
  unit = { "string", default = "mmol/L", values = { "mmol/L", "mg/dL" }, about = "the unit of testResult, which the document leaves open" },
  zone = { "string", default = "Asia/Shanghai", about = "the zone of testTime, which carries none" },
}
assert(time.zone(config.zone))

-- The document defines 0 alone. Whatever else comes back makes the cloud push again, so a code only has to tell a person what was wrong.
local CODES = { missing = 1001, json = 1002, type = 1003, range = 1004, length = 1004, values = 1005, pattern = 1006, time = 1006,
  failed = 1500, store = 1503 }
local QUALITY = { ["0"] = "valid", ["1"] = "warmup" }
local STATUS = { ["0"] = "bound", ["1"] = "warming", ["2"] = "active", ["4"] = "ended" }

plugin:refuse(function(problem)
  return problem.status == 400 and 200 or problem.status, { code = CODES[problem.kind] or problem.status, msg = problem.message }
end)

local function given(value)
  if value ~= json.null then return value end
end

-- serialNo counts up by one: what was passed over is a gap, until and unless it still arrives.
local function note_serial(device, serial, at)
  local newest = plugin.store:get(device) or 0
  if serial <= newest then return end
  plugin.store:put(device, serial)
  if serial > newest + 1 then
    plugin:event { device = device, type = "gap", at = at, key = newest + 1 .. "-" .. serial - 1, data = { from = newest + 1, to = serial - 1 } }
  end
end

-- Numbers come as strings and strings as numbers, where the meaning is plain.
local function text(t) t[1], t.lenient = "string", true return t end
local function integer(t) t[1], t.lenient, t.optional, t.null = "integer", true, true, true return t end
local function detail(about) return text { optional = true, null = true, person = true, about = about } end

plugin:serve {
  "POST /sinocare/push", about = "The cloud pushes one reading.",
  body = {
    reservedCode = text { values = { "01" }, about = "接口命令: 01 is a reading" },
    data = { "object", fields = {
      testId = text { min = 1, max = 128, about = "检测数据唯一id" },
      deviceSn = text { min = 1, max = 128, about = "设备sn号" },
      testResult = text { pattern = "%s*%d+%.?%d*%s*", max = 32, about = "检测结果值" },
      testTime = { "string", about = "yyyy-MM-dd HH:mm:ss" },
      serialNo = integer { min = 1, about = "from 1, one more each" },
      increMinute = integer { min = 0, max = 1440, about = "minutes between values" },
      cgmDay = integer { min = 0, max = 3650, about = "the sensor's life in days" },
      status = text { optional = true, null = true, default = "0", values = { "0", "1" }, about = "0 valid, 1 not, or warm-up" },
      cgmStatus = text { optional = true, null = true, values = { "0", "1", "2", "4" }, about = "0 to be implanted, 1 initialising, 2 uploading, 4 finished" },
      low = { "number", lenient = true, optional = true, null = true, about = "低阈值" },
      high = { "number", lenient = true, optional = true, null = true, about = "高阈值" },
      customerName = text { optional = true, null = true, about = "医院名称" },
      idCard = detail "身份证号", visitId = detail "住院号", patientName = detail "患者信息", patientId = detail "患者主索引ID",
      inSerialId = detail "患者住院流水号",
    } },
  },
  handler = function(req)
    local d = req.body.data
    local at, why = time.parse(d.testTime, config.zone, "yyyy-MM-dd HH:mm:ss")
    if not at then return 200, { code = CODES.time, msg = "data.testTime: " .. why } end
    local serial, minutes, cgm = given(d.serialNo), given(d.increMinute), given(d.cgmStatus)
    plugin:emit {
      device = d.deviceSn, metric = "glucose", value = tonumber(d.testResult), unit = config.unit, at = at, key = d.testId, serial = serial,
      interval = minutes and minutes * 60, quality = QUALITY[given(d.status) or "0"],
      extra = { low = given(d.low), high = given(d.high), cgmDay = given(d.cgmDay) },
    }
    plugin:device {
      device = d.deviceSn, serial = d.deviceSn, at = at, status = cgm and STATUS[cgm], place = given(d.customerName),
    }
    if serial then note_serial(d.deviceSn, serial, at) end
    return 200, { code = 0, msg = "" }
  end,
}
