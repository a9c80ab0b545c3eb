-- A destination: glucose becomes entries of Nightscout (API v1), alerts become notes among its treatments. Nightscout knows an
-- entry by type and time, a note by its time, so that a retry makes no second one. It is one person's: send it that one's devices.
local plugin = ... ---@type neap.Plugin
local crypto = require "neap.crypto"
local glucose = require "glucose"
local http = require "neap.http"
local json = require "neap.json"
local message = require "message"
local time = require "neap.time"

local config = plugin:config {
  url = { "string", pattern = "https?://.+", about = "of the site, such as https://mine.example" },
  secret = { "secret", optional = true, about = "its API_SECRET: only its SHA-1 is sent, as api-secret" },
  token = { "secret", optional = true, about = "in its place: an access token with the role careportal" },
  type = { "string", default = "sgv", values = { "sgv", "mbg" }, about = "sgv: by a sensor; mbg: by a meter" },
  device = { "string", optional = true, min = 1, about = "what Nightscout shows as the device; else the device's own name" },
  timeout = { "duration", default = "20s" },
}
if (config.secret ~= nil) == (config.token ~= nil) then error("secret: say either secret or token", 0) end

local function of_reading(r)
  if r.metric ~= "glucose" then return nil, ("Nightscout's entries are of glucose, not of %q"):format(r.metric) end
  if r.quality and r.quality ~= "valid" then
    return nil, ("the quality is %q, and Nightscout would show it as any other"):format(r.quality)
  end
  local mgdl = type(r.value) == "number" and glucose.to_mgdl(r.value, r.unit)
  if not mgdl then return nil, ("no number in mg/dL or mmol/L: %s %s"):format(tostring(r.value), tostring(r.unit)) end
  local rounded = math.floor(mgdl + 0.5)
  local entry = { type = config.type, [config.type] = rounded, date = r.at, dateString = time.format(r.at),
    device = config.device or r.device }
  if config.type == "sgv" then entry.direction = glucose.arrows.nightscout.of[r.trend] or "NONE" end
  return { path = "entries", row = entry }
end

-- Nightscout keeps one note of a moment, so that another alert of the same one would take its place: what an alert says decides
-- which millisecond of its second it has.
local function moment_of(a, m, text)
  local hash = crypto.sha256(table.concat({ m.source, a.device, text, ("%d"):format(a.at) }, "\0"))
  return time.format(a.at // 1000 * 1000 + tonumber(hash:sub(1, 8), 16) % 1000)
end

local function of_alert(a, m)
  local text = a.title
  if type(a.value) == "number" then
    text = ("%s: %s%s"):format(text, json.encode(a.value), type(a.unit) == "string" and " " .. a.unit or "")
  end
  local notes = text .. " (" .. a.device .. (m.replayed and ", replayed)" or ")")
  return { path = "treatments",
    row = { eventType = "Note", notes = notes, created_at = moment_of(a, m, text), enteredBy = "neap" } }
end

local function make(kind, what, m)
  if kind == "reading" then return of_reading(what) end
  return of_alert(what, m)
end

local function post(path, rows)
  local res = message.settle(http.post {
    url = config.url:gsub("/+$", "") .. "/api/v1/" .. path .. ".json", json = json.array(rows), timeout = config.timeout,
    headers = { ["api-secret"] = config.secret and crypto.sha1(config.secret), accept = "application/json" },
    query = config.token and { token = config.token },
  })
  if type(res) ~= "table" or res.status < 200 or res.status >= 300 then return res end
  if type(res.json) ~= "table" or #res.json < #rows then -- a page of somebody who stands before it
    return ("answered %d, but not with the %d that were posted"):format(res.status, #rows)
  end
  return res
end

local function write(items)
  local said = {}
  for _, path in ipairs { "entries", "treatments" } do
    local rows = {}
    for _, item in ipairs(items) do
      if item.path == path then rows[#rows + 1] = item.row end
    end
    if #rows > 0 then said[path] = post(path, rows) end
  end
  local each = {}
  for i, item in ipairs(items) do each[i] = said[item.path] end
  for _, outcome in pairs(said) do
    if type(outcome) == "table" and outcome.status >= 400 then return outcome, each end -- refused: then it goes on by halves
  end
  return said.entries or said.treatments, each
end

plugin:deliver { batch = 200, handler = function(messages) return message.write(messages, make, write) end }
