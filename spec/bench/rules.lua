-- The second part of `make bench`: what a reading costs where 0, 1, 10, 100 and 1,000 rules are in force, of which 3 match it. Usage:
-- rules.lua WORK, by spec/bench/run. The hosts stand side by side and take turns; what is told is the median of the rounds, of the CPU
-- that a host's process has used over what it was pushed, with one lane, in bodies of 1,000.
package.path = "./spec/?.lua;./spec/bench/?.lua;/usr/share/lua/5.4/?.lua;" .. package.path
package.cpath = "/usr/lib/x86_64-linux-gnu/lua/5.4/?.so;/usr/lib/aarch64-linux-gnu/lua/5.4/?.so;" .. package.cpath
local bed = require "bed"
local json = require "neap.json"

local BODIES, ROUNDS = tonumber(os.getenv "BENCH_BODIES") or 30, tonumber(os.getenv "BENCH_ROUNDS") or 3

-- A rule's file: one plugin:on, with the filter that its settings say, and a handler that does nothing.
local RULE = [[
local plugin = ...
local config = plugin:config { filter = { "any" } }
plugin:on(config.filter, function() end)
]]

-- n filters of which three match every reading of the 50 devices (one where there is one). The others are of the kinds that people write:
-- for another device, another metric, another place, and for a limit that is not passed. `by_pattern`: of a kind that no index can help with.
local function filters(n, by_pattern)
  local list = {}
  for i = 1, math.min(n, 3) do list[i] = { metric = "glucose", above = 0.5 + i / 10 } end
  for i = #list + 1, n do
    if by_pattern then list[i] = { device = ("another-%d-*"):format(i) }
    elseif i % 4 == 0 then list[i] = { metric = "glucose", device = "another-" .. i, below = 3.9 }
    elseif i % 4 == 1 then list[i] = { metric = "metric-" .. i }
    elseif i % 4 == 2 then list[i] = { metric = "glucose", place = "ward-" .. i }
    else list[i] = { metric = "glucose", above = 20 + i / 10 } end
  end
  return list
end

local function start(label, list)
  local rules = {}
  for i, filter in ipairs(list) do
    local fields = {}
    for k, v in pairs(filter) do fields[#fields + 1] = ("%s = %s"):format(k, type(v) == "string" and ("%q"):format(v) or v) end
    rules[i] = ("{ 'match', name = 'r%d', filter = { %s } }"):format(i, table.concat(fields, ", "))
  end
  local host = bed.host {
    plugins = { ["vendors/bench.lua"] = bed.read "spec/bench/plugins/vendors/bench.lua", ["rules/match.lua"] = RULE },
    config = ("lanes = 1,\nrules = { %s },"):format(table.concat(rules, ",\n")), args = { "--log-level", "warn" } }
  return { label = label, host = host, at = 1700000000000, results = {} }
end

local function push(s)
  local readings = {}
  for i = 1, 1000 do
    s.at = s.at + 1000
    readings[i] = { device = "device-" .. i % 50, metric = "glucose", value = 4 + i % 100 / 10, at = s.at }
  end
  assert(s.host:request("POST", "/bench/loose", json.encode { readings = readings }, { ["content-type"] = "application/json" }) == 204)
end

local function caught_up(s)
  bed.wait("all readings to have met the rules", function()
    s.host:read()
    return s.host:sql("select count(*) n from cursors where seq = (select max(seq) from readings)")[1].n > 0
  end, 120)
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local all = {}
for _, n in ipairs { 0, 1, 10, 100, 1000 } do all[#all + 1] = start(("%d"):format(n), filters(n)) end
all[#all + 1] = start("1000, patterns", filters(1000, true))
for round = 0, ROUNDS do -- the first warms up
  for _, s in ipairs(all) do
    local before = 1e6 * bed.cpu(s.host.pid)
    for _ = 1, BODIES do push(s) end
    caught_up(s)
    if round > 0 then s.results[round] = (1e6 * bed.cpu(s.host.pid) - before) / (BODIES * 1000) end
  end
end
print(("\n%-24s%22s%22s"):format("rules, 3 of which match", "CPU per reading, µs", "more than without, µs"))
local without = median(all[1].results)
for _, s in ipairs(all) do
  local value = median(s.results)
  print(("%-24s%22.2f%22.2f"):format(s.label, value, value - without))
  s.host:stop()
end
