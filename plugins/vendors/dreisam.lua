-- Dreisam's CGM cloud, from either side of its Partner API ("Partner API Reference"). Without `url` this connection is that cloud,
-- and serves the five endpoints from neap's store. With `url` it is a partner of the cloud there, and pulls (lib/dreisam/pull.lua).
local plugin = ... ---@type neap.Plugin
local apps = require "dreisam.apps"
local crypto = require "neap.crypto"
local glucose = require "glucose"
local json = require "neap.json"
local sandbox = require "dreisam.sandbox"
local timeline = require "timeline"
local tokens = require "tokens"
local trend = require "trend"
local wearers = require "dreisam.wearers"

local config = plugin:config {
  url = { "string", optional = true, pattern = "https?://[^/]+.*",
    about = "the cloud to pull from, such as https://test-api.dreisamtech.com; without it this connection serves" },
  app_id = { "string", optional = true, min = 1, max = 128, pattern = "[%w_.-]+", about = "the app that signs" },
  app_secret = { "secret", optional = true, min = 1, about = "its secret" },
  partner_id = { "string", optional = true, min = 1, max = 128, about = "serving: what devices say; else the connection's name" },
  token_life = { "duration", default = "2h", min = "1s", max = "30d", about = "serving: how long an access token lasts" },
  users = { "array", optional = true, items = { "string", min = 1, max = 128, pattern = "%C+", person = true },
    about = "pulling: each user's partner_uid" },
  region = { "string", default = "CN", about = "pulling: the region that users are registered in" },
  since = { "string", optional = true, about = "pulling: where the history begins, such as 2024-01-31; 30 days ago where absent" },
  poll = { "duration", default = "3m", min = "1s", about = "pulling: how often each user's readings are asked for" },
  window = { "duration", default = "10d", min = "1h", max = "30d", about = "pulling: the longest time that is asked for at once" },
  overlap = { "duration", default = "12h", max = "15d", about = "pulling: what is asked for again, for what came late" },
  per_second = { "number", default = 5, min = 0.1, max = 1000, about = "pulling: calls a second at most" },
}
if config.app_secret and not config.app_id then error("app_id: app_secret needs it", 0) end

if config.url then return require "dreisam.pull"(plugin, config) end

local DAY = 86400000 -- ms
local MONTH = 30 * DAY -- the longest range of a user's records
local LAST = 253402300799999 -- the end of the year 9999, UTC
local DENIED, UNKNOWN, BAD = 1002, 1001, 1003 -- the third is not in the document, which has no code for bad parameters
local STATUS = { unbound = 0, bound = 1, warming = 2, active = 2, ended = 3 }
local TRENDS = glucose.arrows.dreisam.of

local store, data = plugin.store, plugin.data
local access = tokens.new(plugin, "access", math.ceil(config.token_life))
local partner = apps.new(plugin, config)
local worn = wearers.new(plugin)

-- Whatever the envelope can say is HTTP 200; what is wrong with HTTP itself, or with neap, keeps its status.
plugin:refuse(function(problem)
  local own = math.type(problem.kind) == "integer"
  local code = own and problem.kind or problem.status < 500 and BAD or problem.status
  return (own or problem.status == 400) and 200 or problem.status, { code = code, msg = problem.message, data = {} }
end)

local function ok(content) return 200, { code = 0, msg = "ok", data = content } end

-- Users. What a partner calls its user may be a patient's number: it is kept sealed, and a reference made of it stands for it.

local function user_of(open_id)
  local ref = store:get("open/" .. open_id)
  return ref and store:get("user/" .. ref)
end

-- The user of this partner_uid, made where there is none.
local function enrol(partner_uid, region, app_id)
  local ref = worn:reference(partner_uid)
  local user = store:get("user/" .. ref)
  if user and (not region or region == user.region) then return user end
  user = user or { ref = ref, partner_uid = partner_uid, open_id = "user_" .. crypto.hex(crypto.random(12)), app_id = app_id }
  user.region = region or "CN"
  store:put("user/" .. ref, user, nil, "sealed")
  store:put("open/" .. user.open_id, ref)
  return user
end

local function session(user)
  local token, seconds = access:issue(user.open_id)
  return { open_id = user.open_id, access_token = token, expire_in = seconds }
end

-- Devices. None is a refusal, whether there is no such device or it is somebody else's.

local function named(user, device_sn)
  local list = worn:by(user, device_sn)
  if #list == 0 then return nil, "permission denied: no device of this user's", DENIED, "device_sn" end
  return list
end

local function end_of_history(d, order)
  return data:readings { device = d.device, vendor = d.vendor, metric = "glucose", order = order, limit = 1 }[1]
end

-- The times that neap does not know are null. The first reading shows that a sensor was active by then.
local function device_info(user, d)
  local binding, known = worn:binding(d) or {}, d.extra or {}
  local first, last = end_of_history(d, "asc"), end_of_history(d, "desc")
  local status = binding.unbound and 0 or STATUS[d.status] or first and 2 or 1
  local activated = known.activated_at or first and first.at
  return {
    device_sn = d.device, status = status,
    bound_at = known.bound_at or binding.at or json.null, activated_at = activated or json.null,
    estimated_end_at = known.estimated_end_at or activated and known.life_days and activated + known.life_days * DAY or json.null,
    ended_at = known.ended_at or status == 3 and last and last.at or json.null,
    partner_id = config.partner_id or plugin.name, app_id = user.app_id, open_id = user.open_id,
  }
end

-- Records. Those that a sensor calls invalid or gave while warming up are left out: a record has no member that could say so.

local function record(user, d, r, mmol, trend_name)
  local kind = r.extra and r.extra.type
  return json.encode {
    app_id = user.app_id, device_sn = d.device, open_id = user.open_id,
    type = math.type(kind) == "integer" and kind or 1, value = mmol, trend = TRENDS[r.trend or trend_name],
    package_num = r.serial, measured_at = r.at, app_received_at = r.received,
  }
end

-- A streamed answer: in memory is a page of each device, however long the history.
local function answer_records(user, devices, from, to)
  local pull = timeline.open(data, devices, { metric = "glucose", from = from and from - trend.LOOKBACK, to = to })
  local trends, begun, ended, comma = {}, false, false, ""
  local function one()
    while true do
      local r, d = pull()
      if not r then return nil end
      local mmol = r.quality == "valid" and type(r.value) == "number" and glucose.to_mmol(r.value, r.unit)
      if mmol then
        trends[d.id] = trends[d.id] or trend.follow()
        local name = trends[d.id](r.at, mmol)
        if not from or r.at >= from then return record(user, d, r, mmol + 0.0, name) end
      end
    end
  end
  return 200, function()
    if ended then return nil end
    local parts = {}
    if not begun then
      begun = true
      parts[1] = ('{"code":0,"msg":"ok","data":{"open_id":%s,"records":['):format(json.encode(user.open_id))
    end
    while #parts < 500 do
      local text = one()
      if not text then
        ended = true
        parts[#parts + 1] = "]}}"
        break
      end
      parts[#parts + 1] = comma
      parts[#parts + 1] = text
      comma = ","
    end
    return table.concat(parts)
  end
end

local function check_range(from, to, longest)
  if not from or not to then return true end
  if to < from then return nil, "is before start_time", BAD, "end_time" end
  if longest and to - from > longest then return nil, "is more than 30 days after start_time", BAD, "end_time" end
  return true
end

-- Endpoints

local function bearer(req)
  local text = (req.headers.authorization or ""):match "^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$"
  local token = text and access:find(text)
  local user = token and user_of(token.subject)
  if not user then return nil, "token invalid", UNKNOWN end
  return user
end

local function identifier(about) return { "string", min = 1, max = 128, pattern = "%C+", about = about } end
local function moment(about, optional) return { "integer", min = 0, max = LAST, optional = optional or nil, about = about } end

plugin:serve {
  "POST /partner/v1/user/register", about = "Registers a partner's user.", auth = partner:signed "/partner/v1/user/register",
  body = {
    partner_uid = { "string", min = 1, max = 128, pattern = "%C+", person = true, about = "the partner's own id of the user" },
    region = { "string", optional = true, min = 1, max = 32, pattern = "[%w_-]+", about = "CN where absent" },
  },
  handler = function(req) return ok(session(enrol(req.body.partner_uid, req.body.region, req.caller.app_id))) end,
}

plugin:serve {
  "GET /partner/v1/user/token", about = "Another access token of a user's.", auth = partner:signed "/partner/v1/user/token",
  query = { open_id = identifier "the user" },
  handler = function(req)
    local user = user_of(req.query.open_id)
    if not user then return nil, "permission denied: no user of this partner's", DENIED, "open_id" end
    return ok(session(user))
  end,
}

plugin:serve {
  "GET /partner/v1/user/glucose", about = "A user's records of at most 30 days, of all devices, in order of time.", auth = bearer,
  query = { open_id = identifier "the user", start_time = moment "ms, included", end_time = moment "ms, included" },
  handler = function(req)
    local q = req.query
    if q.open_id ~= req.caller.open_id then return nil, "permission denied: not this token's user", DENIED, "open_id" end
    local fits, why, code, field = check_range(q.start_time, q.end_time, MONTH)
    if not fits then return nil, why, code, field end
    return answer_records(req.caller, worn:by(req.caller), q.start_time, q.end_time)
  end,
}

plugin:serve {
  "GET /partner/v1/device/info", about = "What is known of a device.", auth = bearer,
  query = { device_sn = identifier "its serial number" },
  handler = function(req)
    local list, why, code, field = named(req.caller, req.query.device_sn)
    if not list then return nil, why, code, field end
    return ok(device_info(req.caller, list[1]))
  end,
}

plugin:serve {
  "GET /partner/v1/device/glucose", about = "A device's records: all, or those from start_time to end_time.", auth = bearer,
  query = {
    device_sn = identifier "its serial number", start_time = moment("ms, included", true), end_time = moment("ms, included", true),
  },
  handler = function(req)
    local q = req.query
    local list, why, code, field = named(req.caller, q.device_sn)
    if not list then return nil, why, code, field end
    local fits
    fits, why, code, field = check_range(q.start_time, q.end_time)
    if not fits then return nil, why, code, field end
    return answer_records(req.caller, list, q.start_time, q.end_time)
  end,
}

plugin:serve {
  "* /partner/v1/{path...}", about = "What the document does not have.", keep = false,
  handler = function(req) return 404, { code = 404, msg = ("no such endpoint: %s %s"):format(req.method, req.path), data = {} } end,
}

-- Commands: keys.* are lib/dreisam/apps.lua's, bind and unbind lib/dreisam/wearers.lua's

plugin:command {
  "sandbox", about = "Makes invented users and sensors, and an app to call as.", args = { url = { "string" } },
  handler = function(args)
    return sandbox.make(plugin, args.url, {
      app = partner:issue(), session = session, enrol = function(uid, app_id) return enrol(uid, "CN", app_id) end,
    })
  end,
}
