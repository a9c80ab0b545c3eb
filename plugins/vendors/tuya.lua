-- Tuya's device management API, served from neap's store and pulled from Tuya's cloud (涂鸦 IoT 开发平台: 设备管理, 17 endpoints and
-- token calls). The endpoints are listed in lib/tuya/api.lua; what they do here is in lib/tuya/desk.lua.
local plugin = ... ---@type neap.Plugin
local api = require "tuya.api"
local cloud_of = require "tuya.cloud"
local desk_of = require "tuya.desk"
local keys_of = require "tuya.keys"
local sandbox_of = require "tuya.sandbox"
local scale = require "tuya.scale"
local sync_of = require "tuya.sync"
local time = require "neap.time"

local config = plugin:config {
  legacy_sign = { "boolean", default = true, about = "whether the signature of projects from before 30 June 2021 is good" },
  scale = { "object", optional = true, about = "decimal scales that count before the table: { cur_voltage = 1 }" },
  schema = { "string", optional = true, about = "the app's identifier (应用标识): asked for, and the only one that is served" },
  url = { "string", default = "https://openapi.tuyacn.com", about = "the data centre's host" },
  client_id = { "string", optional = true, about = "of the project at Tuya; without it this connection only serves" },
  secret = { "secret", optional = true, about = "of the project at Tuya" },
  uid = { "string", optional = true, about = "pull this user's devices alone" },
  since = { "string", optional = true, about = "fetch logs from then on, such as 2026-01-31; 7 days back where absent" },
  poll = { "duration", default = "5m", min = 0.1, about = "how often devices and logs are asked for" },
  overlap = { "duration", default = "10m", max = 86400, about = "how far back logs are looked at again, for what comes late" },
  logs = { "string", default = "free", values = { "free", "paid", "none" }, about = "which query of logs the project has" },
  per_second = { "number", default = 10, min = 0, about = "calls to Tuya; 0: no bound" },
  per_month = { "integer", default = 26000, min = 0, about = "calls to Tuya, a trial project's where absent; 0: no bound" },
}
if (config.client_id == nil) ~= (config.secret == nil) then error("client_id and secret go together", 0) end
local since
if config.since then since = assert(time.parse(config.since, "UTC")) end
local settings = {
  scale = scale.check(config.scale or {}), schema = config.schema, uid = config.uid, since = since, logs = config.logs,
  overlap = math.floor(config.overlap * 1000), poll = config.poll, per_month = config.per_month,
}

local keys = keys_of(plugin, config.legacy_sign)
local desk = desk_of(plugin, settings)
local cloud = config.client_id and cloud_of(plugin, config)

-- How Tuya words an error. What neap's schema finds becomes Tuya's codes for parameters.
local CODES = { missing = 1100, type = 1104, range = 1101, length = 1101, values = 1109, pattern = 1109, unknown = 1109,
  json = 1109, encoding = 1109, failed = 500, store = 500 }
local WORDS = { [500] = "system error, please contact the admin", [1100] = "param is empty", [1101] = "params range invalid",
  [1104] = "type is incorrect", [1109] = "param is illegal, please check it" }

plugin:refuse(function(problem)
  local code, msg = math.tointeger(problem.kind), problem.message
  if not code then
    code = CODES[problem.kind] or 1109
    msg = code == 500 and WORDS[500] or ("%s: %s"):format(WORDS[code], msg)
  end
  return problem.status == 503 and 503 or 200, { success = false, code = code, msg = msg, t = time.now() }
end)

local function answer(result, why, code)
  if result == nil then return nil, why, code end
  return 200, { success = true, result = result, t = time.now() }
end

plugin:serve {
  "GET /v1.0/token", about = "获取令牌", auth = keys.client,
  handler = function(req) return answer(keys.token(req.caller, req.query.grant_type)) end,
}

plugin:serve {
  "GET /v1.0/token/{refresh_token}", about = "刷新令牌", auth = keys.client,
  handler = function(req) return answer(keys.refreshed(req.caller, req.params.refresh_token)) end,
}

-- Of devices that this connection has pulled, Tuya's cloud has the truth: it is asked, and asked to change it.
local REMOTE = { ["multiple-names"] = true, ["users"] = true, ["user.get"] = true }
local LOCAL = { ["rename"] = true, ["remove"] = true } -- what the store has to know at once as well
local UPSTREAM = { permission = 1106, unsupported = 2009 }

local function merged(...)
  local args = {}
  for _, t in ipairs { ... } do
    for k, v in pairs(t) do args[k] = v end
  end
  return args
end

-- At Tuya's cloud, and here what the store has to know. row: the device, where it is known here.
local function remotely(endpoint, client, args, row)
  local result, why, code = cloud.run(endpoint, row and merged(args, { device_id = row.device }) or args)
  if result == nil then return nil, why, code end
  if row and LOCAL[endpoint[1]] then return desk[endpoint[1]](client, args) end
  return result
end

local function pulled(client, args)
  local row = desk.row(client, args.device_id)
  return row and row.connection == plugin.name and row.vendor == "tuya" and row or nil
end

local function perform(endpoint, client, args)
  local row = cloud and (endpoint.writes or REMOTE[endpoint[1]]) and pulled(client, args)
  if not row then return desk[endpoint[1]](client, args) end
  local result, why, kind = remotely(endpoint, client, args, row)
  if result ~= nil then return result end
  plugin:log("Tuya's cloud did not do what a client asked for", { command = endpoint[1], why = why })
  return nil, UPSTREAM[kind] == 1106 and "permission deny" or WORDS[500], UPSTREAM[kind] or 500
end

local by_name = {}
for _, endpoint in ipairs(api) do
  by_name[endpoint[1]] = endpoint
  plugin:serve {
    endpoint[2], about = endpoint.about, auth = keys.caller, query = endpoint.query, body = endpoint.body,
    handler = function(req)
      local args = merged(endpoint.query and req.query or {}, endpoint.body and req.body or {}, req.params)
      return answer(perform(endpoint, req.caller, args))
    end,
  }
end

for _, version in ipairs { "v1.0", "v1.1", "v1.2", "v1.3", "v2.0" } do
  plugin:serve {
    ("* /%s/{path...}"):format(version), about = "what is none of these",
    handler = function() return nil, "uri path invalid", 1108 end,
  }
end

-- Commands: the document's endpoints, at Tuya where this connection has credentials, else here.
local function command(endpoint, args)
  if cloud then return remotely(endpoint, nil, args, pulled(nil, args)) end
  return desk[endpoint[1]](nil, args)
end

for _, endpoint in ipairs(api) do
  local args = merged(endpoint.query or {}, endpoint.body or {})
  for name in endpoint[2]:gmatch "{([%w_]+)}" do args[name] = { "string", min = 1, max = 256 } end
  plugin:command { endpoint[1], about = endpoint.about, args = args, handler = function(a) return command(endpoint, a) end }
end

plugin:command {
  "keys.issue", about = "A client that may call here: client_id and secret, which is shown this once.",
  args = { uid = { "string", optional = true, min = 1, max = 128, about = "it sees this user's devices alone" } },
  handler = function(args) return keys.issue(args.uid) end,
}
plugin:command { "keys.list", about = "The clients, without their secrets.", handler = function() return keys.list() end }
plugin:command {
  "keys.revoke", about = "Ends a client and its tokens.", args = { client_id = { "string", about = "as keys.list shows it" } },
  handler = function(args)
    if not keys.revoke(args.client_id) then return nil, "there is no such client: keys.list shows them", "missing", "client_id" end
    return { revoked = args.client_id }
  end,
}
local sandbox = sandbox_of(plugin, keys)
plugin:command {
  "sandbox", about = "Invented devices, and a client to read them.", handler = sandbox,
  args = { url = { "string", default = "http://127.0.0.1:8080", about = "where this is reached" } },
}

-- Messages that are commands are run; what can never be done is a dead letter.
plugin:deliver {
  batch = 1,
  handler = function(messages)
    local m = messages[1].data
    local endpoint = by_name[m.command]
    if not endpoint then return { status = 422, body = "tuya takes commands: { command = \"rename\", args = { … } }" } end
    local result, why, code = command(endpoint, type(m.args) == "table" and m.args or {})
    if result ~= nil then return true end
    if math.type(code) or cloud and cloud.is_refusal(code) then return { status = 422, body = why } end
    return nil, why
  end,
}

if cloud then
  local sync = sync_of(plugin, settings, cloud)
  plugin:every(config.poll, "devices", sync.devices)
  plugin:every(config.poll, "logs", sync.logs)
  plugin:every(config.poll, "details", sync.details)
end
