-- A destination: readings and alerts become points of InfluxDB, in its line protocol: version 1 (database) or version 2 (org,
-- bucket, token). A point is known by measurement, tags and time, so that a retry writes it over itself.
local plugin = ... ---@type neap.Plugin
local http = require "neap.http"
local json = require "neap.json"
local message = require "message"

local config = plugin:config {
  url = { "string", pattern = "https?://.+", about = "of the server, such as http://127.0.0.1:8086" },
  database = { "string", optional = true, min = 1, about = "version 1: the database" },
  retention = { "string", optional = true, min = 1, about = "version 1: the retention policy, where not the default one" },
  user = { "string", optional = true, min = 1, about = "version 1: who writes" },
  password = { "secret", optional = true },
  org = { "string", optional = true, min = 1, about = "version 2: the organisation" },
  bucket = { "string", optional = true, min = 1, about = "version 2: the bucket" },
  token = { "secret", optional = true, about = "version 2: the API token" },
  alerts = { "string", default = "alerts", min = 1, about = "the measurement of alerts; a reading's is its metric" },
  tags = { "object", optional = true, about = "more tags, the same for each point" },
  timeout = { "duration", default = "10s" },
}

if (config.database ~= nil) == (config.bucket ~= nil) then
  error("database: say either database (version 1) or org, bucket and token (version 2)", 0)
end
if config.bucket and not (config.org and config.token) then error("bucket: version 2 needs org and token too", 0) end
if config.password and not config.user then error("password: there is no user to it", 0) end

-- Line protocol. A line break would begin another point, and a backslash at the end would take the next comma's meaning.
local function plain(s) return (s:gsub("[%c]", " "):gsub("\\+$", function(b) return ("/"):rep(#b) end)) end
local function measurement(s) return (plain(s):gsub("^#", "_#"):gsub("[, ]", "\\%0")) end
local function tag(s) return (plain(s):gsub("[,= ]", "\\%0")) end

local function field(v)
  if type(v) == "string" then return '"' .. v:gsub('[\\"]', "\\%0") .. '"' end
  return type(v) == "number" and json.encode(v + 0.0) or tostring(v)
end

local function add(list, name, value, write)
  if value ~= nil and value ~= json.null and value ~= "" then list[#list + 1] = name .. "=" .. write(value) end
end

local OF_READING, OF_ALERT = { "connection", "device", "quality", "unit", "vendor" }, { "device", "source", "title", "unit" }
local taken = { time = true }
for _, list in ipairs { OF_READING, OF_ALERT } do
  for _, name in ipairs(list) do taken[name] = true end
end

local own_tags = {}
for name, value in pairs(config.tags or {}) do
  if type(name) ~= "string" or name == "" then error(("tags.%s: no name of a tag"):format(tostring(name)), 0) end
  if taken[name] then error(("tags.%s: a point has one of that name already"):format(name), 0) end
  if type(value) ~= "string" or value == "" then error(("tags.%s: expected a text"):format(name), 0) end
  add(own_tags, tag(name), value, tag)
end
table.sort(own_tags)

local function line(name, tags, fields, at)
  for _, t in ipairs(own_tags) do tags[#tags + 1] = t end
  return ("%s,%s %s %d"):format(measurement(name), table.concat(tags, ","), table.concat(fields, ","), at)
end

local VALUE = { number = "value", string = "text", boolean = "state" } -- a field has one type for ever, so each type has its own

local function of_reading(r)
  local tags, fields = {}, {}
  for _, name in ipairs(OF_READING) do add(tags, name, r[name], tag) end
  add(fields, VALUE[type(r.value)], r.value, field)
  if #fields == 0 then fields[1] = 'text=""' end
  for _, name in ipairs { "key", "serial", "trend" } do add(fields, name, r[name], field) end
  return line(r.metric, tags, fields, r.at)
end

local function of_alert(a, m)
  local tags, fields = {}, {}
  a.source = m.source
  for _, name in ipairs(OF_ALERT) do add(tags, name, a[name], tag) end
  add(fields, "id", m.id, field)
  add(fields, "replayed", m.replayed, field)
  add(fields, VALUE[type(a.value)], VALUE[type(a.value)] and a.value or nil, field)
  add(fields, "limit", type(a.limit) == "number" and a.limit or nil, field)
  return line(config.alerts, tags, fields, a.at)
end

local function make(kind, what, m) return kind == "reading" and of_reading(what) or of_alert(what, m) end

local function write(lines)
  local v2 = config.bucket ~= nil
  return message.settle(http.post {
    url = config.url:gsub("/+$", "") .. (v2 and "/api/v2/write" or "/write"),
    query = v2 and { org = config.org, bucket = config.bucket, precision = "ms" }
      or { db = config.database, rp = config.retention, precision = "ms" },
    headers = { ["content-type"] = "text/plain; charset=utf-8", authorization = v2 and "Token " .. config.token or nil },
    basic = config.user and { config.user, config.password or "" } or nil,
    body = table.concat(lines, "\n"), gzip = true, timeout = config.timeout,
  })
end

plugin:deliver { batch = 500, handler = function(messages) return message.write(messages, make, write) end }
