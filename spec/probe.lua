-- A host with a plugin that runs what it is sent, for specs that try what a plugin can do. It is let do so for those specs alone.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local probe = {}

probe.source = [[
local plugin = ...
local config = plugin:config { url = { "string", optional = true }, key = { "secret", optional = true } }
local account = plugin:account { "main", refresh = function() return { access = "token-of-" .. plugin.name } end }
local budget = plugin:budget { "asks", per_second = 1000 }
local env = setmetatable({ plugin = plugin, config = config, account = account, budget = budget, keep = {} }, { __index = _G })
for _, name in ipairs { "crypto", "http", "json", "log", "time", "webhooks" } do env[name] = require("neap." .. name) end
plugin:serve { "POST /probe", keep = false, body_max = "8MiB", handler = function(req)
  env.req = req
  local r = table.pack(assert(load(req.raw, "=probe", "t", env))())
  local t = {}
  for i = 1, r.n do t[i] = tostring(r[i]):sub(1, 500) end
  return 200, { results = t }
end }
plugin:serve { "GET /here", handler = function() return 200, "here" end }
]]

--- A host with probes. entries: text of neap.lua's connections; without it one, named "probe". options as bed.host's.
function probe.host(entries, options)
  options = options or {}
  options.plugins = options.plugins or {}
  options.plugins["vendors/probe.lua"] = probe.source
  options.config = ("lanes = 1, quarantine = false, connections = { %s }, %s"):format(entries or '{ "probe" }', options.config or "")
  return bed.host(options)
end

--- Runs the code in a probe: its results as texts, or nil and the log's line of its failure. With `meanwhile` that is called while it runs.
function probe.run(host, code, path, meanwhile)
  local s = assert(socket.connect("127.0.0.1", host.port))
  local told = #host:read()
  s:send(("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"):format(path or "/probe", #code, code))
  s:settimeout(0)
  local text = ""
  bed.wait("the probe's answer to " .. code:sub(1, 300), function()
    if meanwhile then meanwhile() end
    local bytes, why, part = s:receive(65536)
    text = text .. (bytes or part or "")
    return why == "closed"
  end)
  s:close()
  if tonumber(text:match "^HTTP/1.1 (%d+)") == 200 then return json.decode(text:match "\r\n\r\n(.*)$").results end
  return nil, bed.wait("the log to tell of it", function() return host:read():sub(told + 1):match '"error":"(.-[^\\])"' end)
end

return probe
