-- nginx's side of the comparison, for LuaJIT inside nginx: what plugins/vendors/sinocare.lua and plugins/rules/low-glucose.lua do
-- with a push, written as one would by hand for this server. Nothing is stored: a duplicate is not known as one, a kill loses all.
-- luacheck: std luajit
-- luacheck: globals ngx
local cjson = require "cjson.safe"
local find = ngx.re.find
local byte = string.byte
local null = cjson.null

local LIMIT, AGAIN = 3.9, 15 * 60
local push = {}

local function fail(code, why)
  ngx.print(cjson.encode { code = code, msg = why })
end

local function text(v, min, max)
  if type(v) == "number" then v = tostring(v) end
  return type(v) == "string" and #v >= min and #v <= max and v or nil
end

-- nil and null are absent; false is wrong
local function integer(v, min, max)
  if v == nil or v == null then return nil end
  v = tonumber(v)
  return v and v % 1 == 0 and v >= min and (not max or v <= max) and v
end

local function number(v)
  if v == nil or v == null then return nil end
  return tonumber(v) or false
end

local function one_of(v, set)
  if v == nil or v == null then return nil end
  return set[text(v, 1, 8) or ""] and v or false
end

local function detail(v)
  return v == nil or v == null or type(v) == "string" or type(v) == "number"
end

local STATUS, CGM_STATUS = { ["0"] = true, ["1"] = true }, { ["0"] = true, ["1"] = true, ["2"] = true, ["4"] = true }
local DETAILS = { "customerName", "idCard", "visitId", "patientName", "patientId", "inSerialId" }

-- "yyyy-MM-dd HH:mm:ss" of Shanghai, which has had no daylight saving since 1991 -> ms
local function time(s)
  if type(s) ~= "string" or #s ~= 19 or not find(s, [[^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$]], "jo") then return end
  local a, b, c, d, _, m1, m2, _, d1, d2, _, h1, h2, _, n1, n2, _, s1, s2 = byte(s, 1, 19)
  local y, m, day = a * 1000 + b * 100 + c * 10 + d - 53328, m1 * 10 + m2 - 528, d1 * 10 + d2 - 528
  if m < 1 or m > 12 or day < 1 or day > 31 then return end
  if m <= 2 then y, m = y - 1, m + 12 end
  local leaps = math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
  local days = 365 * y + leaps + math.floor((153 * m - 457) / 5) + day - 719469
  return (days * 86400 + (h1 * 10 + h2 - 528 - 8) * 3600 + (n1 * 10 + n2 - 528) * 60 + s1 * 10 + s2 - 528) * 1000
end

local function body()
  ngx.req.read_body()
  return cjson.decode(ngx.req.get_body_data() or "")
end

-- The reading, or nil, a code and why.
local function parse()
  local b = body()
  if type(b) ~= "table" then return nil, 1002, "no JSON" end
  if text(b.reservedCode, 1, 8) ~= "01" then return nil, 1005, "reservedCode" end
  local d = b.data
  if type(d) ~= "table" then return nil, 1001, "data" end
  local id, device, result = text(d.testId, 1, 128), text(d.deviceSn, 1, 128), text(d.testResult, 1, 32)
  if not id then return nil, 1001, "data.testId" end
  if not device then return nil, 1001, "data.deviceSn" end
  if not result or not find(result, [[^\s*\d+\.?\d*\s*$]], "jo") then return nil, 1006, "data.testResult" end
  local serial, minutes, day = integer(d.serialNo, 1), integer(d.increMinute, 0, 1440), integer(d.cgmDay, 0, 3650)
  if serial == false or minutes == false or day == false then return nil, 1003, "data.serialNo, increMinute or cgmDay" end
  local low, high = number(d.low), number(d.high)
  if low == false or high == false then return nil, 1003, "data.low or data.high" end
  local status, cgm = one_of(d.status, STATUS), one_of(d.cgmStatus, CGM_STATUS)
  if status == false or cgm == false then return nil, 1005, "data.status or data.cgmStatus" end
  for i = 1, #DETAILS do
    if not detail(d[DETAILS[i]]) then return nil, 1003, "data." .. DETAILS[i] end
  end
  local at = time(d.testTime)
  if not at then return nil, 1006, "data.testTime" end
  return { device = device, metric = "glucose", value = tonumber(result), unit = "mmol/L", at = at, key = id, serial = serial,
    interval = minutes and minutes * 60, quality = (status or "0") == "0" and "valid" or "warmup", low = low, high = high,
    day = day, cgm = cgm }
end

function push.push()
  local r, code, why = parse()
  if not r then return fail(code, why) end
  if r.value < LIMIT and r.quality == "valid" and ngx.shared.throttle:add(r.device, true, AGAIN) then
    push.last = cjson.encode { title = "Low glucose", device = r.device, value = r.value, unit = r.unit, limit = LIMIT, at = r.at }
  end
  ngx.print(cjson.encode { code = 0, msg = "" })
end

-- Parsed and counted, nothing more.
function push.batch()
  local b = body()
  if type(b) ~= "table" or type(b.readings) ~= "table" then ngx.exit(400) end
  ngx.exit(#b.readings > 0 and 204 or 400)
end

return push
