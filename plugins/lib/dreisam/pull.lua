-- The partner's side of Dreisam's Partner API: pulls the readings of its users and what is known of their sensors, and offers the
-- API's calls as commands.
local crypto = require "neap.crypto"
local http = require "neap.http"
local json = require "neap.json"
local signature = require "dreisam.signature"
local time = require "neap.time"
local windows = require "windows"

local EXPIRED, DENIED = 1001, 1002
local STATUS = { [0] = "unbound", "bound", "active", "ended" }
local TRENDS = require "glucose".arrows.dreisam.to
local LAST = 253402300799999 -- the end of the year 9999, UTC
local INFO_AGAIN, INFO_FAILED = 3600000, 300000 -- ms after which a device that has not ended is asked about again
local ANSWER_MAX = "32MiB"

local function cut(text) return tostring(text):sub(1, 200) end

-- The payload of an answer; or nil, why and a code: the vendor's own, or "quota", "denied", or what http says.
local function payload(res, why, code)
  if not res then return nil, why, code end
  local answer = res.json
  local said = type(answer) == "table" and math.type(answer.code) == "integer" and answer.code or nil
  if res.status == 429 then return nil, "the cloud asks for fewer calls (429)", "quota" end
  if said and said ~= 0 then return nil, ("the cloud answered %d: %s"):format(said, cut(answer.msg)), said end
  if res.status == 401 or res.status == 403 then return nil, ("the cloud answered with HTTP %d"):format(res.status), "denied" end
  if res.status ~= 200 then return nil, ("the cloud answered HTTP %d: %s"):format(res.status, cut(res.body)), "status" end
  if not said or type(answer.data) ~= "table" then return nil, "this is no answer of Dreisam's: " .. cut(res.body), "format" end
  return answer.data
end

-- A moment that a vendor gives in ms; nil where it gives none.
local function moment(value)
  local ms = math.type(value) and math.tointeger(value)
  return ms and ms > 0 and ms <= LAST and ms or nil
end

local function text_of(value) return type(value) == "string" and value:match "^%C+$" and #value <= 128 and value or nil end

---@param plugin table the handle
---@param config table its settings
return function(plugin, config)
  local base, users = config.url:gsub("/+$", ""), config.users or {}
  local since, unread = nil, nil
  if config.since then since, unread = time.parse(config.since, "UTC") end
  if unread then error("since: " .. unread, 0) end
  if config.window <= config.overlap then error("window: it has to be longer than overlap", 0) end
  local budget = plugin:budget { "calls", per_second = config.per_second }

  local function reference(partner_uid) return plugin.people:reference("patient:" .. partner_uid) end

  local function call(options)
    local room, why, code = budget:take()
    if not room then return nil, why, code end
    options.timeout, options.answer_max, options.url = 30, ANSWER_MAX, base .. options.path
    options.path = nil
    return payload(http.request(options))
  end

  -- Where this connection has no secret, neither does the cloud ask for one.
  local function sign(method, path, query, body)
    if not config.app_secret then return {} end
    local app = { id = config.app_id, nonce = crypto.hex(crypto.random(16)), timestamp = ("%d"):format(time.now()) }
    local whole = base:match "^https?://[^/]+(.*)$" .. path
    return {
      ["X-App-Id"] = app.id, ["X-Nonce"] = app.nonce, ["X-Timestamp"] = app.timestamp,
      ["X-Signature"] = signature.of(config.app_secret, method, whole, app, query, body),
    }
  end

  local function register(partner_uid, region)
    local path = "/partner/v1/user/register"
    local body = json.encode { partner_uid = partner_uid, region = region or config.region }
    local headers = sign("POST", path, {}, body)
    headers["Content-Type"] = "application/json"
    return call { method = "POST", path = path, headers = headers, body = body }
  end

  local function new_token(open_id)
    local path, query = "/partner/v1/user/token", { open_id = open_id }
    return call { method = "GET", path = path, headers = sign("GET", path, query, ""), query = query }
  end

  -- Tokens: one for each user, by the reference of its partner_uid; or by "open:" and an open_id, for a command that names one.

  local function uid_of(ref)
    for _, uid in ipairs(users) do
      if reference(uid) == ref then return uid end
    end
  end

  local function kept(session, why, code)
    if not session then
      if code == EXPIRED or code == DENIED then code = "denied" end
      return nil, why, (code == "denied" or code == "quota") and code or nil
    end
    local lifetime = math.type(session.expire_in) and math.tointeger(session.expire_in)
    if not text_of(session.open_id) or type(session.access_token) ~= "string" or not lifetime or lifetime < 1 then
      return nil, "the cloud answered without open_id, access_token or expire_in"
    end
    return { access = session.access_token, lifetime = lifetime, open_id = session.open_id }
  end

  local account = plugin:account {
    "user", early = "5m",
    refresh = function(key, old)
      local open_id = key:match "^open:(.+)$"
      if open_id then return kept(new_token(open_id)) end
      if old and old.open_id then
        local session, why, code = new_token(old.open_id)
        if session or code ~= DENIED then return kept(session, why, code) end -- denied: a cloud that has forgotten the user
      end
      local uid = uid_of(key)
      if not uid then return nil, "this user is no longer in the settings", "denied" end
      return kept(register(uid))
    end,
  }

  -- A call with a user's token, and once more with a fresh one where the cloud says that it is no good. by_user: with its open_id.
  local function ask(key, path, query, by_user)
    local data, why, code
    for _ = 1, 2 do
      local token
      token, why, code = account:token(key)
      if not token then return nil, why, code end
      if by_user then query.open_id = token.open_id end
      data, why, code = call { method = "GET", path = path, query = query, bearer = token.access }
      if code ~= EXPIRED then break end
      account:expired(token)
    end
    return data, why, code
  end

  -- What the cloud tells, as neap keeps it

  -- Emits the records that are whole and notes their devices. They have no id: a sensor and the moment tell one from another, so
  -- that what is asked for twice is stored once.
  local function take_records(data, devices)
    if type(data.records) ~= "table" then return nil, "the cloud answered without records" end
    local bad = 0
    for _, r in ipairs(data.records) do
      local sn = type(r) == "table" and text_of(r.device_sn)
      local at = sn and moment(r.measured_at)
      if at and type(r.value) == "number" then
        plugin:emit {
          device = sn, metric = "glucose", value = r.value + 0.0, unit = "mmol/L", at = at, trend = TRENDS[r.trend],
          serial = math.type(r.package_num) and math.tointeger(r.package_num), extra = r.type ~= 1 and { type = r.type } or nil,
        }
        devices[sn] = true
      else
        bad = bad + 1
      end
    end
    if bad > 0 then plugin:log("records that are none of Dreisam's were left out", { count = bad, of = #data.records }) end
    return #data.records - bad
  end

  local function take_info(d, ref)
    local sn = text_of(d.device_sn)
    if not sn then return nil, "the cloud answered without device_sn" end
    local times = { bound_at = moment(d.bound_at), activated_at = moment(d.activated_at), ended_at = moment(d.ended_at) }
    for name, kind in pairs { bound_at = "binding", activated_at = "activated", ended_at = "session_end" } do
      if times[name] then plugin:event { device = sn, type = kind, at = times[name], key = name } end
    end
    times.estimated_end_at = moment(d.estimated_end_at)
    plugin:device { device = sn, serial = sn, owner = ref, status = STATUS[d.status], extra = times }
    return d.status or -1
  end

  -- Asks about those of a user's devices that are new, and again each hour about those that have not ended.
  local function look_after(ref, devices)
    local prefix, now, list = "device/" .. ref .. "/", time.now(), {}
    for _, e in ipairs(plugin.store:list(prefix, { limit = 1000 })) do list[e.key:sub(#prefix + 1)] = e.value end
    for sn in pairs(devices) do list[sn] = list[sn] or { due = 0 } end
    for sn, known in pairs(list) do
      if known.due and known.due <= now then
        local info, why = ask(ref, "/partner/v1/device/info", { device_sn = sn })
        local status
        if info then status, why = take_info(info, ref) end
        if not status then plugin:log("what the cloud knows of a device was not to be had", { device = sn, why = why }) end
        plugin.store:put(prefix .. sn, { due = status ~= 3 and now + (status and INFO_AGAIN or INFO_FAILED) or nil })
      end
    end
  end

  -- One job for each user, so that one's trouble is not another's.
  for i, uid in ipairs(users) do
    plugin:every(config.poll, "user " .. i, function()
      local ref, now, devices = reference(uid), time.now(), {}
      local window = windows.next(plugin.store, "had/" .. ref, {
        since = since or now - 30 * 86400000, span = math.floor(config.window * 1000),
        overlap = math.floor(config.overlap * 1000), now = now,
      })
      local data, why = ask(ref, "/partner/v1/user/glucose", { start_time = window.from, end_time = window.to }, true)
      local n
      if data then n, why = take_records(data, devices) end
      if not n then error(why, 0) end
      look_after(ref, devices)
      windows.done(plugin.store, "had/" .. ref, window)
      if window.more then return "0s" end
    end)
  end

  -- Commands

  local whose = {
    partner_uid = { "string", optional = true, person = true, about = "one of the settings' users" },
    open_id = { "string", optional = true, min = 1, max = 128, pattern = "%C+" },
  }

  -- The account's key of the user that a command names.
  local function key_of(args)
    if args.open_id then return "open:" .. args.open_id end
    local uid = args.partner_uid or #users == 1 and users[1]
    if not uid then return nil, "whose? Give a partner_uid of the settings' users, or an open_id", "missing", "partner_uid" end
    local key = reference(uid)
    if not uid_of(key) then return nil, "is none of the settings' users", "values", "partner_uid" end
    return key
  end

  local function with_user(args)
    args.partner_uid, args.open_id = whose.partner_uid, whose.open_id
    return args
  end

  local device_sn, optional_time = { "string", min = 1, max = 128 }, { "integer", optional = true, about = "ms, included" }
  local keep = { "boolean", default = false, about = "store the readings as well" }

  -- A command that asks for records.
  local function records(args, path, query, by_user)
    local key, why, kind, field = key_of(args)
    if not key then return nil, why, kind, field end
    query.start_time, query.end_time = args.start_time, args.end_time
    local data
    data, why, kind = ask(key, path, query, by_user)
    if data and args.keep then
      local n
      n, why = take_records(data, {})
      if not n then return nil, why end
    end
    return data, why, kind
  end

  plugin:command {
    "register", about = "Registers a user.",
    args = { partner_uid = { "string", min = 1, max = 128, person = true }, region = { "string", optional = true } },
    handler = function(args) return register(args.partner_uid, args.region) end,
  }
  plugin:command {
    "token", about = "Another access token of a user's.", args = { open_id = { "string", min = 1, max = 128, pattern = "%C+" } },
    handler = function(args) return new_token(args.open_id) end,
  }
  plugin:command {
    "user.glucose", about = "A user's records of at most 30 days.",
    args = with_user { start_time = { "integer" }, end_time = { "integer" }, keep = keep },
    handler = function(args) return records(args, "/partner/v1/user/glucose", {}, true) end,
  }
  plugin:command {
    "device.info", about = "What the cloud knows of a device.", args = with_user { device_sn = device_sn },
    handler = function(args)
      local key, why, kind, field = key_of(args)
      if not key then return nil, why, kind, field end
      return ask(key, "/partner/v1/device/info", { device_sn = args.device_sn })
    end,
  }
  plugin:command {
    "device.glucose", about = "A device's records: all, or those from start_time to end_time.",
    args = with_user { device_sn = device_sn, start_time = optional_time, end_time = optional_time, keep = keep },
    handler = function(args) return records(args, "/partner/v1/device/glucose", { device_sn = args.device_sn }) end,
  }
end
