-- A client of Neuron's endpoints for specs, made of the guide alone but for neap's RSA (neuron_spec.lua has one of openssl and curl).
local bed = require "bed"
local crypto = require "neap.crypto"
local json = require "neap.json"

local client = {}

--- Runs `neap call` and returns its result; or nil, and what it printed.
function client.call(host, connection, command, args)
  local out, code = bed.run { bed.neap, "call", connection, command, "--store", host.store, "--json", "--args", json.encode(args or {}) }
  if code ~= 0 then return nil, out end
  return assert(json.decode(out), out)
end

--- A key of that connection: { secret_id, key, public_key, padding }.
function client.issue(host, connection, args) return assert(client.call(host, connection, "keys.issue", args)) end

--- Headers that carry a key: another ciphertext each time.
function client.headers(key, more)
  local headers = { ["X-Source-SecretId"] = key.secret_id,
    ["X-Source-SecretKey"] = crypto.base64(assert(crypto.rsa.encrypt(key.public_key, key.key, { padding = key.padding }))) }
  for k, v in pairs(more or {}) do headers[k] = v end
  return headers
end

local Client = {}
Client.__index = Client
client.Client = Client

--- A client of one connection: client.new(host, "neuron", "").
function client.new(host, connection, mount, args)
  local key = client.issue(host, connection, args)
  return setmetatable({ host = host, mount = mount or "", key = key, headers = client.headers(key) }, Client)
end

local function escape(text) return (text:gsub("[^%w%-_.~]", function(c) return ("%%%02X"):format(c:byte()) end)) end

--- One request with these headers (this client's where absent): the answer's body, checked to be an envelope, HTTP's status and headers.
function Client:ask(method, path, body, headers)
  if type(body) == "table" then body = json.encode(body) end
  local all = { ["content-type"] = body and "application/json" or nil }
  for k, v in pairs(headers or self.headers) do all[k] = v end
  local status, text, fields = self.host:request(method, self.mount .. path, body, all)
  local answer = json.decode(text)
  assert(type(answer) == "table" and math.type(answer.code) == "integer" and type(answer.message) == "string"
    and type(answer.isSuccess) == "boolean" and answer.isSuccess == (answer.code == 200) and answer.data ~= nil, text)
  return answer, status, fields
end

function Client:push(records, headers) return self:ask("POST", "/dataPlatform/openapi", json.is_array(records) and records or json.array(records), headers) end

function Client:page(query)
  local parts = {}
  for k, v in pairs(query) do parts[#parts + 1] = k .. "=" .. escape(tostring(v)) end
  return self:ask("GET", "/device/v1/mn/page?" .. table.concat(parts, "&"))
end

function Client:device(devEui) return self:ask("GET", "/device/v1/mn/" .. escape(devEui)) end
function Client:values(devEui) return self:ask("GET", "/device/v1/realtime/" .. escape(devEui) .. "/values") end

function Client:history(query, headers)
  local all = {}
  for k, v in pairs(headers or {}) do all[k] = v end
  for k, v in pairs(self.headers) do all[k] = v end
  return self:ask("POST", "/device/v1/realtime/history", query, all)
end

function Client:dataset(name, records, project)
  local all = { ["X-Param-ProjectId"] = project }
  for k, v in pairs(self.headers) do all[k] = v end
  return self:ask("POST", "/dataset/v1/" .. escape(name), type(records) == "table" and json.array(records) or records, all)
end

return client
