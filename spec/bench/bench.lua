-- `make bench`: neap beside nginx with Lua (which stores nothing) and Node-RED, in one run. Usage:
-- bench.lua WORK HOME, by spec/bench/run.
-- The servers take turns within each round, so that what else the machine does meets all of them; what is printed is the median of
-- the rounds.
package.path = "./spec/?.lua;./spec/bench/?.lua;/usr/share/lua/5.4/?.lua;" .. package.path
package.cpath = "/usr/lib/x86_64-linux-gnu/lua/5.4/?.so;/usr/lib/aarch64-linux-gnu/lua/5.4/?.so;" .. package.cpath
local bed = require "bed"
local json = require "neap.json"
local servers = require "servers"
local deliver = require "deliver"

local work, home = arg[1], arg[2]
local SECONDS = tonumber(os.getenv "BENCH_SECONDS") or 4
local ROUNDS = tonumber(os.getenv "BENCH_ROUNDS") or 3
local LOW_EVERY = 33 -- 3 % meet the rule, of each of the 50 devices
local BATCH = 1000
servers.work = work

local function median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  local n = #sorted
  if n == 0 then return end
  return n % 2 == 1 and sorted[n // 2 + 1] or (sorted[n // 2] + sorted[n // 2 + 1]) / 2
end

local function say(...) print(string.format(...)) io.stdout:flush() end

-- Runs the pusher at a server: its report, with cpu_us per request of the server. Serial numbers go on where the last run ended.
local function measure(s, options)
  local argv = { bed.tools .. "/pusher", "--url", s.url .. (options.path or "/sinocare/push"), "--json",
    "--low-every", tostring(LOW_EVERY), "--connections", tostring(options.connections),
    "--seconds", tostring(options.seconds or SECONDS), "--start-serial", tostring(s.serial or 1) }
  for _, name in ipairs { "rate", "batch" } do
    if options[name] then table.move({ "--" .. name, tostring(options[name]) }, 1, 2, #argv + 1, argv) end
  end
  local before = s:cpu()
  local p = bed.start(argv)
  servers.runs(p.pid, true)
  p:wait()
  servers.runs(p.pid, false)
  s.program:read()
  local r = assert(json.decode(p.output), p.output)
  r.cpu_us = (s:cpu() - before) / math.max(r.ok + r.refused, 1)
  s.serial = (s.serial or 1) + r.sent // 50 + 1
  s.ok, s.bad = (s.ok or 0) + r.ok, (s.bad or 0) + r.refused + r.failed
  if r.refused + r.failed > r.sent / 1000 then
    say("bench: %s did not take %d of %d requests; it says: %s", s.name, r.refused + r.failed, r.sent, s.program.output:sub(-500))
  end
  return r
end

-- results[what][name] is a list, one entry a round
local results = {}
local function note(what, s, value)
  results[what] = results[what] or {}
  results[what][s.name] = results[what][s.name] or {}
  table.insert(results[what][s.name], value)
end
local function got(what, name) return results[what] and results[what][name] and median(results[what][name]) end

-- The median of the quotients of the rounds, for a round's two measurements were made next to each other.
local function ratio(what, a, b)
  local list = {}
  for i, x in ipairs(results[what] and results[what][a] or {}) do
    local y = (results[what][b] or {})[i]
    if y then list[#list + 1] = x / y end
  end
  return median(list), list
end

local NAMES = { "neap", "nginx", "Node-RED" }

local function row(what, label, format)
  local cells = {}
  for i, name in ipairs(NAMES) do
    local v = got(what, name)
    cells[i] = ("%14s"):format(v and (format or "%.0f"):format(v) or "-")
  end
  say("%-44s%s", label, table.concat(cells))
end

local function push_rounds(all)
  for _ = 1, ROUNDS do
    for _, c in ipairs { 1, 64 } do
      for _, s in ipairs(all) do
        local r = measure(s, { connections = c })
        note("rate" .. c, s, r.requests_per_second)
        note("cpu" .. c, s, r.cpu_us)
        note("p50 " .. c, s, r.latency_us.p50)
        note("p99 " .. c, s, r.latency_us.p99)
        note("load cpu" .. c, s, r.own_cpu_us_per_request)
      end
    end
  end
end

local function latency_rounds(all)
  for _ = 1, ROUNDS do
    for _, s in ipairs(all) do
      if s.name ~= "nginx" then
        local r = measure(s, { connections = 64, rate = math.max(1, math.floor(got("rate64", s.name) / 2)) })
        for _, p in ipairs { "p50", "p99", "p999" } do note("half " .. p, s, r.latency_us[p]) end
        note("half rate", s, r.requests_per_second)
      end
    end
  end
end

local function batch_rounds(all)
  for _ = 1, ROUNDS do
    for _, s in ipairs(all) do
      for _, way in ipairs(s.name == "neap" and { "batch", "loose" } or { "batch" }) do
        local r = measure(s, { connections = 8, batch = BATCH, path = "/bench/" .. way })
        note(way, s, r.requests_per_second * BATCH)
        note(way .. " cpu", s, r.cpu_us / BATCH)
      end
    end
  end
end

local function idle_memory(all)
  for _, s in ipairs(all) do
    s.idle_cpu = s:cpu()
    local rss, pss = s:memory()
    note("idle rss", s, rss)
    note("idle pss", s, pss)
  end
end

local function memory_after(all, what)
  for _, s in ipairs(all) do
    local rss, pss = s:memory()
    note(what .. " rss", s, rss)
    note(what .. " pss", s, pss)
  end
end

-- Is what was acknowledged there? A benchmark of a server that loses is worth nothing.
local function check(s, acknowledged, found, where)
  say("%s: %d acknowledged, %d refused or unanswered, %d in %s%s", s.name, acknowledged, s.bad or 0, found, where,
    found >= acknowledged and "" or "  <- LOST")
end

-- µs for a write of 4 KiB that is on the disk
local function disk()
  local last = servers.ask(("LC_ALL=C dd if=/dev/zero of='%s/probe' bs=4k count=500 oflag=dsync 2>&1 | tail -n 1"):format(work))
  local seconds = tonumber(last:match "([%d.e-]+) s,")
  return seconds and ("%.0f"):format(seconds * 2000) or "?"
end

local function machine()
  local cpu = servers.ask "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1"
  say("machine: %s, %d cores, %s MiB of memory; Linux %s", cpu ~= "" and cpu or servers.ask "uname -m", servers.lanes,
    servers.ask "awk '/MemTotal/ {printf \"%d\", $2 / 1024}' /proc/meminfo", servers.ask "uname -r")
  say("disk: %s; a write of 4 KiB takes %s µs until it is on it",
    servers.ask(("df --output=fstype,source '%s' | tail -n 1"):format(work)), disk())
  say("%s, Node.js %s; %d lanes, %d workers; load average %s", servers.ask "nginx -V 2>&1 | sed -n 's/^nginx version: //p'",
    servers.ask "node --version", servers.lanes, servers.lanes, servers.ask "cut -d' ' -f1-3 /proc/loadavg")
end

local function verdict(label, value, good, goal)
  if not value then return say("%-44s%14s   (to reach: %s)", label, "-", goal) end
  say("%-44s%14.2f   (to reach: %s: %s)", label, value, goal, good and "yes" or "NO")
end

local function start_all()
  local all = {}
  for _, one in ipairs { { "neap", servers.neap }, { "nginx", servers.nginx }, { "node", servers.node_red } } do
    local folder = work .. "/" .. one[1]
    assert(os.execute(("mkdir -p '%s'"):format(folder)))
    local s, why = one[2](folder, home)
    if s then all[#all + 1] = s
    else say("bench: without %s: %s", one[1], why) end
  end
  return all
end

local function print_tables()
  say("\n%-44s%14s%14s%14s", "", "neap", "nginx + Lua", "Node-RED")
  say("%-44s%14s%14s%14s", "a push is then", "durable, once", "nowhere", "in a file")
  row("rate1", "pushes/s, 1 connection")
  row("cpu1", "CPU per push, µs", "%.1f")
  row("rate64", "pushes/s, 64 connections")
  row("cpu64", "CPU per push, µs", "%.1f")
  row("p50 64", "latency then, p50, µs")
  row("p99 64", "               p99, µs")
  row("load cpu64", "(the load generator's own CPU per push, µs)", "%.1f")
  row("batch", "readings/s, bodies of 1,000, schema")
  row("batch cpu", "CPU per reading, µs", "%.2f")
  row("loose", "readings/s, the same without a schema")
  row("loose cpu", "CPU per reading, µs", "%.2f")
  row("half rate", "at half of its own most: pushes/s")
  row("half p50", "latency p50, µs")
  row("half p99", "        p99, µs")
  row("half p999", "        p99.9, µs")
  row("idle rss", "memory, resident: idle, MiB", "%.1f")
  row("idle pss", "  shared pages divided", "%.1f")
  row("after rss", "  after the pushes, MiB", "%.1f")
  row("after batch rss", "  after the bodies of 1,000, MiB", "%.1f")
end

local function print_goals()
  say ""
  local cpu, list = ratio("cpu64", "neap", "nginx")
  verdict("CPU per push, 64 connections: neap / nginx", cpu, cpu and cpu <= 2, "at most 2")
  table.sort(list)
  if #list > 0 then say("%-44s%14s", "  in single rounds, least to most", ("%.2f-%.2f"):format(list[1], list[#list])) end
  local cpu1 = ratio("cpu1", "neap", "nginx")
  verdict("CPU per push, 1 connection: neap / nginx", cpu1, cpu1 and cpu1 <= 2, "at most 2")
  local times = ratio("rate64", "neap", "Node-RED")
  verdict("pushes/s, 64 connections: neap / Node-RED", times, times and times >= 5, "at least 5")
  local times1 = ratio("rate1", "neap", "Node-RED")
  verdict("pushes/s, 1 connection: neap / Node-RED", times1, times1 and times1 >= 5, "at least 5")
  verdict("resident memory of neap, idle, MiB", got("idle rss", "neap"), got("idle rss", "neap") < 20, "under 20")
end

local function main()
  machine()
  local all = start_all()
  idle_memory(all)
  for _, s in ipairs(all) do measure(s, { connections = 64, seconds = SECONDS / 2 }) end -- caches, JIT, files
  push_rounds(all)
  latency_rounds(all)
  memory_after(all, "after")
  local neap = all[1]
  local stored = neap.host:sql "select count(*) as n from readings"[1].n
  local ok = { neap = neap.ok }
  for _, s in ipairs(all) do
    if s.name == "Node-RED" then
      ok.node = s.ok
      s:stop()
    end
  end
  batch_rounds({ table.unpack(all, 1, all[2] and all[2].name == "nginx" and 2 or 1) })
  memory_after({ neap }, "after batch")
  print_tables()
  print_goals()
  say ""
  check({ name = "neap", bad = neap.bad }, ok.neap, stored, "its store")
  for _, s in ipairs(all) do
    if s.file then check(s, ok.node, tonumber(servers.ask(("wc -l < '%s'"):format(s.file))) or 0, "its file") end
    s:stop()
  end
  deliver(say, median, ROUNDS)
  say("load average at the end %s; medians of %d rounds of %g s each", servers.ask "cut -d' ' -f1-3 /proc/loadavg", ROUNDS, SECONDS)
end

local ok, why = xpcall(main, debug.traceback)
bed.stop_all()
if not ok then
  io.stderr:write("bench: ", tostring(why), "\n")
  os.exit(1)
end
