-- Elexir's neuro-stimulation devices (API 가이드, Elexir Legacy, 기기, 2025-04-23). Without a url a connection serves the vendor's
-- endpoints to its apps; with one it connects to the vendor's cloud, or to another neap (plugins/lib/elexir/connect.lua).
local plugin = ... ---@type neap.Plugin
local json = require "neap.json"
local neaplog = require "neap.log"
local time = require "neap.time"
local log = require "elexir.log"
local logs = require "elexir.logs"

local config = plugin:config {
  zone = { "string", default = "UTC", about = "of times that carry none, and of what is answered" },
  url = { "string", optional = true, about = "the vendor's cloud, such as https://api.elexir.example: it is polled then" },
  email = { "string", optional = true, about = "the account at url" },
  password = { "secret", optional = true, about = "the account's" },
  since = { "string", optional = true, pattern = "%d%d%d%d%-[01]%d", about = "the first month to fetch: 2024-01; or this one" },
  late = { "integer", default = 2, min = 0, max = 24, about = "months before this one that are always fetched again" },
  poll = { "duration", default = "15m", min = 1, about = "between two looks at url" },
  timeout = { "duration", default = "30s", min = 1, max = 300, about = "for an answer of url's" },
}
assert(time.zone(config.zone))
if config.url then return require "elexir.connect"(plugin, config) end

local users = require "elexir.users"(plugin)
local devices = require "elexir.devices"(plugin, users)

-- Refusals: what the document has a sentence for comes from handlers, with its status as the kind.

local CONNECTION_FAILED = { 400, "Device Connection Failed" }
local FAILED = {
  ["my-devices"] = { 500, "Internal Server Error" }, ["check-device"] = CONNECTION_FAILED, ["set-my-device"] = CONNECTION_FAILED,
  ["un-connect"] = { 400, "Device unconnect failed" }, ["my-devlog"] = { 400, "Read Device Log Failed" },
}
-- The type as FastAPI, which the vendor runs, would name it.
local TYPES = { missing = "missing", type = "type_error", json = "json_invalid", encoding = "json_invalid" }

plugin:refuse(function(problem)
  local status, kind = problem.status, problem.kind
  if math.type(kind) == "integer" then
    return kind, { detail = problem.reason }, kind == 401 and { ["www-authenticate"] = "Bearer" } or nil
  end
  if status == 400 then
    local loc = { problem.where == "handler" and "body" or problem.where }
    for name in (problem.field or ""):gmatch "[^.]+" do loc[#loc + 1] = name end
    return 422, { detail = { { loc = loc, msg = problem.reason, type = TYPES[kind] or "value_error" } } }
  end
  if status < 500 then return status, { detail = problem.reason } end
  local own = FAILED[(problem.route or ""):match "/device/([%a-]+)"] or { 500, "Internal server error" }
  return own[1], { detail = own[2] }
end)

-- Times and logs.

local function naive(ms, separator)
  local text = time.format(ms, config.zone, "yyyy-MM-dd HH:mm:ss")
  if separator then text = text:gsub(" ", separator, 1) .. (ms % 1000 ~= 0 and (".%03d"):format(ms % 1000) or "") end
  return text
end

local function month_bounds(text)
  local year, month = text:match "^(%d%d%d%d)%-(%d%d)$"
  if not year then return nil end
  year, month = tonumber(year), tonumber(month)
  local from = time.from_parts({ year = year, month = month }, config.zone)
  local to = time.from_parts({ year = month == 12 and year + 1 or year, month = month % 12 + 1 }, config.zone)
  return from, to and to - 1
end

local function shown_log(reading)
  local shown = log.only(reading.extra, log.fields)
  shown.logdate, shown.id, shown.regdate = naive(reading.at, "T"), reading.id, naive(reading.received // 1000 * 1000, "T")
  return json.encode(shown)
end

-- Who may write about whom on which device: the account's own, for itself or a child.
local function writable(user, body)
  local device = devices.own(user, body.device_id)
  if not device then return nil, "Not Found Device", 404 end
  if not users.is_family(user, body.user_id) then return nil, "Not Found User", 403 end
  return device
end

local function store_log(device, body)
  local at, why = log.time(body.logdate, config.zone)
  if not at then return nil, why, "time", "logdate" end
  local l, odd = log.only(body, log.fields), log.oddity(body)
  if odd then neaplog.warn("elexir: " .. odd .. "; kept as it came", { device = device.unique_id, logdate = body.logdate }) end
  log.emit(plugin, device.unique_id, at, log.key(l, at), l)
  devices.used(l.user_id, device.unique_id)
  return l
end

local function store_temp(device, body)
  local first, why = log.time(body.start_date, config.zone)
  if not first then return nil, why, "time", "start_date" end
  local last = first
  if body.last_date ~= "" then
    last, why = log.time(body.last_date, config.zone)
    if not last then return nil, why, "time", "last_date" end
    if last < first then return nil, "before start_date", "range", "last_date" end
  elseif body.finish_flag ~= 0 then
    return nil, "a session that has ended has one", "missing", "last_date"
  end
  local t, begins = log.only(body, log.temp_fields), body.finish_flag == 0
  plugin:event {
    device = device.unique_id, type = begins and "session_start" or "session_end", at = begins and first or last,
    data = { user_id = t.user_id, model_id = t.model_id, finish_flag = t.finish_flag, start_date = t.start_date,
      last_date = t.last_date, reason = not begins and log.reason(t.finish_flag) or nil },
  }
  return t
end

-- The endpoints, in the document's order, under all of its prefixes.

local KNOWN = {} -- what the catch-all tells apart: { pattern of a path, method }

local function serve(part, method, path, t)
  KNOWN[#KNOWN + 1] = { "^" .. part .. "/" .. path:gsub("%-", "%%-"):gsub("{[%w_]+}", "[^/]+") .. "$", method }
  for _, product in ipairs { "legacy", "elexir", "addnox" } do
    local route = { ("%s /api/v1/%s/%s/%s"):format(method, product, part, path) }
    for name, value in pairs(t) do route[name] = value end
    plugin:serve(route)
  end
end

local function serve_device(method, path, t)
  t.auth = users.bearer
  serve("device", method, path, t)
end

for _, route in ipairs(users.routes) do
  local method, path = table.unpack(route, 1, 2)
  route[1], route[2] = nil, nil
  serve("auth", method, path, route)
end

local unique_id = { "string", max = 64, pattern = "%C*", about = "기기의 unique_id, in either case" }

serve_device("GET", "my-devices", { about = "유저 기기 가져오기", handler = function(req)
  local list = json.array()
  for d in devices.each(req.caller) do
    list[#list + 1] = { id = d.id, serialcode = d.serial_code, user_id = d.user_id, model_id = d.model_id,
      mac_id = d.mac_id or json.null, unique_id = d.unique_id, modelname = d.modelname,
      regdate = naive(d.regdate // 1000 * 1000, "T") }
  end
  return 200, list
end })

serve_device("GET", "check-device", { about = "기기 정보 확인하기", query = { unique_id = unique_id }, handler = function(req)
  local d = devices.find(req.query.unique_id)
  if not d then return nil, "Not Found Device", 404 end
  if not d.serial_code then return nil, "This device is not registered", 400 end
  if d.user_id and d.user_id ~= req.caller.id then return nil, "Already Connected Device", 409 end
  return 200, { serial_code = d.serial_code, user_id = d.user_id or json.null, mac_id = d.mac_id or json.null,
    model_id = d.model_id, unique_id = d.unique_id, id = d.id,
    regdate = time.format(d.regdate, "UTC", "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'") }
end })

serve_device("POST", "set-my-device", {
  about = "기기 등록하기",
  query = { unique_id = unique_id, serial_code = { "string", max = 64, about = "기기의 시리얼 코드" },
    mac_id = { "string", optional = true, max = 64, pattern = "%C*", about = "기기의 MAC 주소" } },
  handler = function(req)
    local d = devices.find(req.query.unique_id)
    if not d then return nil, "Not Found Device", 404 end
    if d.serial_code ~= req.query.serial_code then return nil, "Serial code is not valid", 404 end
    if d.user_id and d.user_id ~= req.caller.id then return nil, "Already Connected Device", 409 end
    devices.bind(d, req.caller.id, req.query.mac_id)
    return 200, { statuscode = 200, message = "device connected" }
  end,
})

serve_device("PATCH", "un-connect", { about = "기기 등록 해제하기", query = { unique_id = unique_id }, handler = function(req)
  local d = devices.find(req.query.unique_id)
  if not d or d.user_id ~= req.caller.id then return nil, "Not Found Device", 404 end
  devices.bind(d)
  return 200, { statusCode = 200, message = "device unconnected" }
end })

serve_device("POST", "devlog", { about = "기기 사용 기록 업로드", body = log.fields, handler = function(req)
  local device, why, kind = writable(req.caller, req.body)
  if not device then return nil, why, kind end
  local l, wrong, code, field = store_log(device, req.body)
  if not l then return nil, wrong, code, field end
  return 200, l
end })

serve_device("POST", "devlog/temp", { about = "기기 임시 사용 기록 업로드", body = log.temp_fields, handler = function(req)
  local device, why, kind = writable(req.caller, req.body)
  if not device then return nil, why, kind end
  if device.unique_id ~= req.body.unique_id:upper() then return nil, "Not Found Device", 404 end
  local t, wrong, code, field = store_temp(device, req.body)
  if not t then return nil, wrong, code, field end
  return 200, t
end })

serve_device("GET", "devlog/lasttime/{device_id}", {
  about = "기기 마지막 사용 날짜 읽어오기", path = { device_id = { "integer", about = "기기의 id" } },
  handler = function(req)
    local device = devices.own(req.caller, req.params.device_id)
    local last = device and logs.newest_first(plugin, users.family(req.caller), { [device.unique_id] = true })()
    if not last then return nil, "No Content", 404 end
    return 200, json.encode(naive(last.at)), { ["content-type"] = "application/json" }
  end,
})

serve_device("GET", "my-devlog/{year_month}", { about = "기기 사용 기록 조회하기(월 단위)", handler = function(req)
  local from, to = month_bounds(req.params.year_month)
  if not from then return nil, "Read Device Log Failed", 400 end
  local ids = users.family(req.caller)
  local used = devices.used_by(ids)
  local function begin() return logs.newest_first(plugin, ids, used, from, to) end
  return 200, logs.stream(begin, shown_log), { ["content-type"] = "application/json" }
end })

for _, product in ipairs { "legacy", "elexir", "addnox" } do
  for _, part in ipairs { "device", "auth" } do
    plugin:serve {
      ("* /api/v1/%s/%s/{path...}"):format(product, part), about = "What is served nowhere else.", keep = false,
      handler = function(req)
        local allowed = {}
        for _, known in ipairs(KNOWN) do
          if (part .. "/" .. req.params.path):find(known[1]) then allowed[#allowed + 1] = known[2] end
        end
        if #allowed == 0 then return 404, { detail = "Not Found" } end
        return 405, { detail = "Method Not Allowed" }, { allow = table.concat(allowed, ", ") }
      end,
    }
  end
end

plugin:command {
  "device.add", about = "A device from the factory; without serial_code it is known and cannot be registered yet.",
  args = { unique_id = { "string", min = 1, max = 64, pattern = "%C+" },
    serial_code = { "string", optional = true, min = 1, max = 64, pattern = "%C+" },
    model_id = { "integer", optional = true, lenient = true, min = 0, max = 2147483647 },
    modelname = { "string", optional = true, max = 64, pattern = "%C*" } },
  handler = function(args)
    args.at = time.now()
    return devices.add(args)
  end,
}

require "elexir.sandbox"(plugin, { users = users, devices = devices, store_log = store_log, store_temp = store_temp })
