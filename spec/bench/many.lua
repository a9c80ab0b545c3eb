-- Many plugins that share a library: how long a start takes, a change of one, a change of the library that all require; what clients see of it,
-- and memory for each. `build/tools/lua spec/bench/many.lua [N…]`
package.path = "spec/?.lua;" .. package.path
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local PLUGIN = [[
local plugin = ...
local shared = require "shared"
plugin:serve { "GET /p%d", handler = function() return 200, { version = %d, shared = shared.version } end }
]]
local PUSH = [[
local plugin = ...
plugin:serve { "POST /push", handler = function(req)
  plugin.store:put(req.body.data.deviceSn, req.body.data.testId)
  return 200, { code = 0, msg = "ok" }
end }
]]

local function ms(from) return (socket.gettime() - from) * 1000 end

local function measure(n)
  local files = { ["lib/shared.lua"] = "return { version = 0 }", ["vendors/push.lua"] = PUSH }
  for i = 1, n do files[("vendors/p%d.lua"):format(i)] = PLUGIN:format(i, 0) end
  local begun = socket.gettime()
  local host = bed.host { plugins = files, config = 'lanes = 2, probation = "0s"' }
  local written = socket.gettime()
  host:restart()
  local row = { plugins = n, start_ms = ms(written), first_ms = ms(begun) }
  row.memory_kb = tonumber(bed.read(("/proc/%d/status"):format(host.pid)):match "VmRSS:%s*(%d+)")
  local function ask(path)
    local _, answer = host:json("GET", path)
    return answer
  end
  local function switch(make, done)
    local load = bed.start { bed.tools .. "/pusher", "--url", host.url .. "/push", "--connections", "8", "--rate", "500", "--seconds", "4", "--json" }
    local took
    if make then
      bed.wait("load", function() return host:sql "select count(*) n from inbox"[1].n > 0 end)
      local from = socket.gettime()
      make()
      bed.wait("the switch", done, 120)
      took = ms(from)
    end
    load:wait(120)
    return took, assert(json.decode(load.output))
  end
  local _, rest = switch()
  row.rest = rest
  row.one_ms, row.one = switch(function() bed.replace(host.plugins .. "/vendors/p1.lua", PLUGIN:format(1, 1)) end,
    function() return ask "/p1".version == 1 end)
  row.all_ms, row.all = switch(function() bed.replace(host.plugins .. "/lib/shared.lua", "return { version = 1 }") end,
    function() return ask("/p" .. n).shared == 1 end)
  host:stop()
  return row
end

local function tell(r)
  print(("%6d plugins: start %.0f ms; one changed %.0f ms; the library of all %.0f ms; resident %d KiB; p99 of pushes %s µs, while one changes %s, while all do %s; failed %d")
    :format(r.plugins, r.start_ms, r.one_ms, r.all_ms, r.memory_kb, r.rest.latency_us.p99, r.one.latency_us.p99, r.all.latency_us.p99,
      r.one.failed + r.all.failed))
end

local list = #arg > 0 and arg or { 10, 250, 500, 1000 }
for _, n in ipairs(list) do tell(measure(tonumber(n))) end
bed.stop_all()
