-- A usage log of an Elexir device, as both faces of the vendor check it, keep it and give it back.
local crypto = require "neap.crypto"
local time = require "neap.time"

local log = {}

local LAST = 253402300799999 -- the end of the year 9999, UTC
local EVENT = 16 -- characters of log_data that each event takes, in every sample

-- The old server's logs have 1, 2, 3, 4 and 7; the samples, and a session that begins, have 0.
local REASONS = { [0] = "none", [1] = "normal", [2] = "button", [3] = "app", [4] = "contacts", [7] = "factory" }
local FLAGS = { 0, 1, 2, 3, 4, 7 }

local function id(about) return { "integer", lenient = true, min = 0, max = 2147483647, about = about } end
local function number(about) return { "number", lenient = true, min = 0, max = 1e9, about = about } end
local function moment(about) return { "string", max = 64, about = about } end

local user, model, device = id "자식 계정의 id", id "기기의 모델 id", id "기기의 id"
local flag = { "integer", lenient = true, values = FLAGS, about = "1 normal, 2 button, 3 app, 4 faulty contacts, 7 factory" }

--- The 11 fields of a log.
log.fields = {
  user_id = user, model_id = model, device_id = device, fversion = number "펌웨어 버전", logdate = moment "ISO 8601",
  mode = { "integer", lenient = true, values = { 0, 1 }, about = "기기 사용 모드" }, finish_flag = flag,
  last_intensity = number "volts", treatment_time = id "seconds", event_num = id "이벤트 번호",
  log_data = { "string", max = 65536, about = "hex, 16 characters an event" },
}

--- The 7 fields of a session that begins or ends.
log.temp_fields = {
  user_id = user, model_id = model, device_id = device, finish_flag = flag, start_date = moment "ISO 8601",
  unique_id = { "string", max = 64, pattern = "%C*", about = "기기의 unique_id" },
  last_date = moment "ISO 8601; empty where the session begins",
}

--- Those members of t that are fields.
function log.only(t, fields)
  local kept = {}
  for name in pairs(fields) do kept[name] = t[name] end
  return kept
end

--- Why a session ended.
function log.reason(finish_flag) return REASONS[finish_flag] end

--- ms of a time with an offset, or without one in the zone; nil, why.
function log.time(text, zone)
  local at, why = time.parse(text, zone)
  if at and (at < 0 or at > LAST) then return nil, "not a time that a device can have seen" end
  return at, why
end

--- What is odd about log_data, or nil. It is kept whatever it is.
function log.oddity(l)
  if l.log_data:find "%X" then return "log_data is not hexadecimal" end
  if #l.log_data ~= l.event_num * EVENT then
    return ("log_data has %d characters for %d events of %d"):format(#l.log_data, l.event_num, EVENT)
  end
end

--- What a log is known by: all of it, so that only the very same log again is a duplicate.
function log.key(l, at)
  local parts = { at, l.log_data }
  for _, name in ipairs { "user_id", "model_id", "device_id", "fversion", "mode", "finish_flag", "last_intensity", "treatment_time",
    "event_num" } do
    parts[#parts + 1] = ("%.17g"):format(l[name])
  end
  return crypto.sha256(table.concat(parts, "\0")):sub(1, 32)
end

--- Stores a log as two readings of the device; extra has all of it.
function log.emit(plugin, name, at, key, l)
  plugin:emit { device = name, metric = "treatment_time", value = l.treatment_time, unit = "s", at = at, key = key, extra = l }
  plugin:emit { device = name, metric = "last_intensity", value = l.last_intensity, unit = "V", at = at, key = key,
    extra = { user_id = l.user_id, mode = l.mode, finish_flag = l.finish_flag } }
end

return log
