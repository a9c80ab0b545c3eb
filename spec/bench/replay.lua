-- A part of `make bench`: what a rule costs when it is run over a million readings of the past, dry and for real, beside the sqlite3 program, which
-- only reads them. By spec/bench/run; CPU is that of the whole process over the readings, the median of the rounds.
package.path = "./spec/?.lua;./spec/bench/?.lua;/usr/share/lua/5.4/?.lua;" .. package.path
package.cpath = "/usr/lib/x86_64-linux-gnu/lua/5.4/?.so;/usr/lib/aarch64-linux-gnu/lua/5.4/?.so;" .. package.cpath
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local MILLIONS, ROUNDS = tonumber(os.getenv "BENCH_MILLIONS") or 1, tonumber(os.getenv "BENCH_ROUNDS") or 3
local N = MILLIONS * 1000000

local RULES = {
  none = 'local plugin = ...\nplugin:on({ metric = "glucose", above = 100 }, function() end)',
  each = 'local plugin = ...\nplugin:on({ metric = "glucose" }, function() end)',
  keep = [[
local plugin = ...
plugin:on({ metric = "glucose" }, function(r) plugin.store:put(r.device, (plugin.store:get(r.device) or 0) + 1) end)]],
  high = [[
local plugin = ...
plugin:on({ metric = "glucose", above = 12.85 }, function(r)
  plugin:send("post", { device = r.device, n = r.at // 1000 % 1000000007, at = r.at })
end)]],
}
local POST = bed.POSTER

local function say(...) print(string.format(...)) io.stdout:flush() end
local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

-- Runs a program to its end: seconds, and those of its CPU.
local function timed(...)
  local began = socket.gettime()
  local out, code = bed.run { "bash", "-c", 'TIMEFORMAT="%U %S"; time "$@" >/dev/null', "bash", ... }
  local user, system = out:match "([%d.]+) ([%d.]+)%s*$"
  assert(code == 0 and user, out)
  return socket.gettime() - began, tonumber(user) + tonumber(system)
end

local folder = bed.folder()
local store = folder .. "/neap.db"
local filled, code = bed.run { bed.tools .. "/readings", store, tostring(MILLIONS) }
assert(code == 0, filled)
-- the rules of a host have been run on them long ago
assert(os.execute(([[sqlite3 %s "with recursive p(n) as (select 0 union all select n + 1 from p where n < 63)
  insert or replace into cursors select n, (select max(seq) from reading_rows) from p"]]):format(store)))
local receiver = bed.start { bed.tools .. "/receiver", "--messages", "1" }
receiver.port = tonumber(receiver:wait_for "receiver on (%d+)")
local plugins = { ["destinations/post.lua"] = POST }
for name, text in pairs(RULES) do plugins["rules/" .. name .. ".lua"] = text end
local host = bed.host { folder = folder, plugins = plugins, args = { "--log-level", "error" },
  config = ('lanes = 1, destinations = { { "post", url = "http://127.0.0.1:%d/steady", delivery = { batch = 100 } } }'):format(receiver.port) }

local function row(label, runs)
  local seconds, cpus = {}, {}
  for i = 1, ROUNDS do seconds[i], cpus[i] = runs() end
  say("%-52s%14.0f%14.2f", label, N / median(seconds), median(cpus) * 1e6 / N)
end
local function dry(rule)
  return function() return timed(bed.neap, "replay", "--config", host.folder, "--rule", rule, "--dry-run", "--json") end
end

local messages = 0
local function send()
  local before, began = bed.cpu(host.pid), socket.gettime()
  local p = bed.start { bed.neap, "replay", "--store", store, "--rule", "high", "--send", "--again", "--rate", "1000000/s", "--json" }
  p:wait(200)
  assert(p.code == 0, p.output)
  local last
  for line in p.output:gmatch "[^\n]+" do
    local j = json.decode(line)
    if j.state == "done" then last = j end
  end
  messages = last.sent
  bed.wait("all to have gone", function() return host:sql "select count(*) n from outbox"[1].n == 0 end, 120)
  return socket.gettime() - began, bed.cpu(host.pid) - before
end

say("\n%-52s%14s%14s", ("a rule over %d million readings of the past"):format(MILLIONS), "readings/s", "CPU each, µs")
row("sqlite3: select * from readings", function() return timed("sqlite3", "-readonly", store, "select * from readings") end)
row("dry: no reading fits the filter", dry "none")
row("dry: all fit, a handler that does nothing", dry "each")
row("dry: all fit, a handler that counts in its store", dry "keep")
row("sent: 1 in 90 is a message, delivered and all", send)
say("  (of each such run %d messages were made, in batches of 100 to a local receiver)", messages)
host:stop()
receiver:stop()
bed.stop_all()
