-- For the specs of plugins/vendors/tuya.lua: a client of Tuya's API that signs by itself, and a vendor that stores what it is told.
local bed = require "bed"
local crypto = require "neap.crypto"
local json = require "neap.json"
local time = require "neap.time"

local tuya = {}

-- Does to the store what a spec asks for: { devices = {}, readings = {}, events = {} }, each as the verbs take it.
local FEED = [[
local plugin = ...
plugin:serve { "POST /feed", body = { devices = { "array", optional = true }, readings = { "array", optional = true },
  events = { "array", optional = true } },
  handler = function(req)
    for _, d in ipairs(req.body.devices or {}) do plugin:device(d) end
    for _, r in ipairs(req.body.readings or {}) do plugin:emit(r) end
    for _, e in ipairs(req.body.events or {}) do plugin:event(e) end
    return 204
  end }
]]

--- The files of a host with the plugin, its libraries, and the vendors "feed" and "other", which store what they are told.
function tuya.plugins(more)
  local files = { ["vendors/feed.lua"] = FEED, ["vendors/other.lua"] = FEED, ["vendors/tuya.lua"] = bed.read(bed.plugins .. "/vendors/tuya.lua") }
  local list = assert(io.popen(("cd '%s' && find lib -name '*.lua'"):format(bed.plugins)))
  for name in list:lines() do files[name] = bed.read(bed.plugins .. "/" .. name) end
  list:close()
  for name, text in pairs(more or {}) do files[name] = text end
  return files
end

--- Has a connection of "feed" or "other" store this.
function tuya.feed(host, mount, what)
  local status, text = host:request("POST", mount .. "/feed", what)
  assert(status == 204, text)
end

--- neap call CONNECTION COMMAND: its result, decoded, or nil and what it printed.
function tuya.run(host, connection, command, args)
  local out, code = bed.run { bed.neap, "call", connection, command, "--store", host.store, "--json", "--args", json.encode(args or json.decode "{}") }
  if code ~= 0 then return nil, out end
  return assert(json.decode(out))
end

--- Everything in the store, as SQL; blobs are hexadecimal there. Tells whether a text is in it, plain or in a blob.
function tuya.stored(host, text)
  local out, code = bed.run { "sqlite3", "-readonly", "-cmd", ".timeout 10000", host.store, ".dump" }
  assert(code == 0, out)
  local hex = text:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  return (out:find(text, 1, true) or out:lower():find(hex, 1, true)) ~= nil
end

--- A client by the credentials of keys.issue. options: legacy = true signs as old projects do; mount = where the connection is mounted.
local Client = {}
Client.__index = Client

function tuya.client(host, key, options)
  return setmetatable({ host = host, id = key.client_id, secret = key.secret, uid = key.uid, legacy = options and options.legacy,
    mount = options and options.mount or "" }, Client)
end

-- The URL that is signed: the query sorted by key, nothing percent-encoded. By itself, not by the plugin's own library.
local function signed_url(target)
  local path, query = target:match "^(.-)%?(.*)$"
  local parts = {}
  for part in (query or ""):gmatch "[^&]+" do parts[#parts + 1] = part end
  table.sort(parts, function(a, b) return a:match "^[^=]*" < b:match "^[^=]*" end)
  local url = path and path .. "?" .. table.concat(parts, "&") or target
  return (url:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- The headers of a call. change = { t =, nonce =, token =, signed = the URL that is signed, body = the body that is signed, secret =, headers = more,
--- listed = "a:b" } puts something else in place of what is right.
function Client:headers(method, target, body, change)
  change = change or {}
  local t = change.t or ("%d"):format(time.now())
  local token = change.token or nil
  if change.token == nil then token = self.token end
  local headers = { client_id = self.id, t = t, sign_method = "HMAC-SHA256", access_token = token or nil, nonce = change.nonce,
    ["signature-headers"] = change.listed }
  local listed = ""
  for name in (change.listed or ""):gmatch "[^:]+" do listed = listed .. name .. ":" .. (change.headers[name] or "") .. "\n" end
  for k, v in pairs(change.headers or {}) do headers[k] = v end
  local text = self.id .. (token or "") .. t
  if not self.legacy then
    text = text .. (change.nonce or "") .. table.concat({ method, crypto.sha256(change.body or body or ""), listed, change.signed or signed_url(target) }, "\n")
  end
  headers.sign = crypto.hmac("sha256", change.secret or self.secret, text):upper()
  return headers
end

--- One call as it is: the HTTP status, and the answer. Every answer has to be one of the two envelopes.
function Client:raw(method, target, body, change)
  if type(body) == "table" then body = json.encode(body) end
  local headers = self:headers(method, target, body, change)
  if body then headers["content-type"] = headers["content-type"] or "application/json" end
  if change and change.without then headers[change.without] = nil end
  local status, text = self.host:request(method, self.mount .. target, body, headers)
  return status, tuya.envelope(text), text
end

function tuya.envelope(text)
  local answer = json.decode(text)
  assert(type(answer) == "table" and math.type(answer.t) == "integer" and answer.t > 1500000000000, text)
  if answer.success == true then
    assert(answer.result ~= nil and answer.code == nil and answer.msg == nil, text)
  else
    assert(answer.success == false and math.type(answer.code) == "integer" and type(answer.msg) == "string" and answer.result == nil, text)
  end
  return answer
end

--- Gets a token where there is none.
function Client:sign_in()
  if self.token then return self end
  local _, answer = self:raw("GET", "/v1.0/token?grant_type=1", nil, { token = false })
  assert(answer.success, answer.msg)
  self.token, self.refresh_token = answer.result.access_token, answer.result.refresh_token
  return self
end

--- A call with a token: the result, or nil, code, msg. HTTP has to say 200.
function Client:call(method, target, body, change)
  local status, answer, text = self:sign_in():raw(method, target, body, change)
  assert(status == 200, text)
  if answer.success then return answer.result, text end
  return nil, answer.code, answer.msg
end

function Client:get(target, change) return self:call("GET", target, nil, change) end

return tuya
