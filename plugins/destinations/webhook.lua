-- A destination: POSTs each message, with the headers that Standard Webhooks describes (signed where there is a secret). The body
-- is the message as it is, in JSON, or what a template makes of it; the client shows a certificate where it has one.
local plugin = ... ---@type neap.Plugin
local http = require "neap.http"
local message = require "message"
local template = require "template"
local webhooks = require "neap.webhooks"

local config = plugin:config {
  url = { "string", pattern = "https?://.+", about = "where messages are posted" },
  secret = { "secret", optional = true, about = "signs them: whsec_ and base64, or any text" },
  timeout = { "duration", default = "10s", about = "how long an answer may take" },
  body = { "string", optional = true, min = 1, about = "a template, as {\"text\": \"{{title}}\"}; else the message itself" },
  type = { "string", default = "application/json", pattern = "[%w.+-]+/[%w.+-]+.*",
    about = "the body's media type; the template escapes accordingly" },
  headers = { "object", optional = true, about = "more headers, each a template" },
  gzip = { "boolean", default = false, about = "whether the body goes out gzipped" },
  cert = { "secret", optional = true, about = "mutual TLS: the client's certificate, PEM: file \"client.pem\"" },
  key = { "secret", optional = true, about = "its key, PEM, not encrypted; it may stand in cert" },
  ca = { "secret", optional = true, about = "PEM: the server's certificate has to come from these, and from nobody else" },
}

local OURS = { ["webhook-id"] = true, ["webhook-timestamp"] = true, ["webhook-signature"] = true, ["content-length"] = true,
  ["content-encoding"] = true, ["transfer-encoding"] = true, connection = true, expect = true, host = true,
  ["neap-replayed"] = true }

local function compile(setting, text, kind)
  if type(text) ~= "string" then error(("%s: expected a text, got a %s"):format(setting, type(text)), 0) end
  local fill, why = template.compile(text, kind)
  if not fill then error(("%s: %s"):format(setting, why), 0) end
  return fill
end

local fill_body = config.body and compile("body", config.body, config.type)
local fill_headers, said = {}, {}
for name, text in pairs(config.headers or {}) do
  local setting, lower = "headers." .. tostring(name), tostring(name):lower()
  if not lower:match "^[%w!#$%%&'*+.^_`|~-]+$" then error(setting .. ": no name of a header", 0) end
  if lower == "content-type" then error(setting .. ": the setting type says it", 0) end
  if OURS[lower] then error(setting .. ": neap says that one itself", 0) end
  if said[lower] then error(("%s: it is said twice, as %s too"):format(setting, said[lower]), 0) end
  if type(text) == "string" and text:find "%c" then error(setting .. ": there is a control character in it", 0) end
  said[lower] = name
  fill_headers[name] = compile(setting, text, "header")
end
if config.secret then
  local ok, why = pcall(webhooks.sign, config.secret, { id = "check", json = "" })
  if not ok then error("secret: " .. (why:match "%((.+)%)$" or why), 0) end
end
if config.key and not config.cert then error("key: there is no cert to it", 0) end

local function fill(setting, fn, m)
  local text, why = fn(m)
  if not text then return nil, ("%s: %s"):format(setting, why) end
  return text
end

plugin:deliver {
  handler = function(messages)
    local m = messages[1]
    local body, why = m.json
    if fill_body then
      body, why = fill("body", fill_body, m)
      if not body then return { dead = why } end
    end
    local headers = webhooks.sign(config.secret, { id = m.id, json = body })
    headers["content-type"] = config.type
    if m.replayed then headers["neap-replayed"] = tostring(m.replayed) end
    for name, fn in pairs(fill_headers) do
      headers[name], why = fill("headers." .. name, fn, m)
      if why then return { dead = why } end
    end
    local res, failed, code = http.post { url = config.url, headers = headers, body = body, timeout = config.timeout,
      gzip = config.gzip, cert = config.cert, key = config.key, ca = config.ca }
    if not res then return nil, failed, code end
    return { message.settle(res) }
  end,
}
