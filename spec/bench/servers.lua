-- The servers that are compared: each starts on a free loopback port and says what CPU and memory all its processes have used.
local bed = require "bed"
local json = require "neap.json"

local servers = {}
servers.nginx_modules = { "/usr/lib/nginx/modules", "/usr/share/nginx/modules" }

local function fill(text, values)
  return (text:gsub("@(%u+)@", function(name) return values[name] end))
end

local function exists(path)
  local f = io.open(path)
  if f then f:close() end
  return f ~= nil
end

-- Every program leads a process group. All of its processes: { pid = { utime + stime in ticks, RSS in KiB, PSS in KiB } }
local function processes(group)
  local list = {}
  local p = assert(io.popen "ls /proc")
  for pid in p:lines() do
    local f = pid:match "^%d+$" and io.open("/proc/" .. pid .. "/stat")
    local stat = f and f:read "a"
    if f then f:close() end
    -- after the name in brackets: state, ppid, pgrp, …, and as 12th and 13th utime and stime
    local rest = stat and stat:match ".*%) (.*)"
    if rest then
      local field = {}
      for word in rest:gmatch "%S+" do field[#field + 1] = word end
      if tonumber(field[3]) == group then list[tonumber(pid)] = { ticks = field[12] + field[13] } end
    end
  end
  p:close()
  return list
end

local function field_of(path, pattern)
  local f = io.open(path)
  local text = f and f:read "a" or ""
  if f then f:close() end
  return tonumber(text:match(pattern)) or 0
end

local Server = {}
Server.__index = Server

--- CPU so far in µs, of all processes.
function Server:cpu()
  local ticks = 0
  for _, p in pairs(processes(self.pid)) do ticks = ticks + p.ticks end
  return ticks * 1e6 / servers.ticks
end

--- Resident memory in MiB: what each process has, and with shared pages counted once.
function Server:memory()
  local rss, pss = 0, 0
  for pid in pairs(processes(self.pid)) do
    rss = rss + field_of("/proc/" .. pid .. "/status", "VmRSS:%s*(%d+)")
    pss = pss + field_of("/proc/" .. pid .. "/smaps_rollup", "Pss:%s*(%d+)")
  end
  return rss / 1024, pss / 1024
end

--- A program that runs already.
function servers.watch(pid) return setmetatable({ pid = pid }, Server) end

-- The groups that run are in a file, for spec/bench/run to end them where this program is stopped midway.
local groups = {}
function servers.runs(pid, does)
  groups[pid] = does or nil
  local lines = {}
  for group in pairs(groups) do lines[#lines + 1] = group .. "\n" end
  bed.write(servers.work .. "/pids", table.concat(lines))
end

function Server:stop()
  self.program:stop(15)
  servers.runs(self.pid, false)
end

local function server(name, program, port, more)
  local s = setmetatable({ name = name, program = program, pid = program.pid, port = port }, Server)
  s.url = "http://127.0.0.1:" .. port
  for k, v in pairs(more or {}) do s[k] = v end
  servers.runs(s.pid, true)
  return s
end

local function is_up(s)
  bed.wait(s.name .. " to answer; it says:\n" .. s.program.output, function()
    s.program:read()
    if s.program.ended then error(s.name .. " ended: " .. s.program.output, 0) end
    local ok, status = pcall(bed.request, s.port, "POST", "/sinocare/push", { reservedCode = "02" })
    return ok and status == 200
  end, 40)
  return s
end

--- neap, with the plugins that the comparison is about: durable, de-duplicated, ruled.
function servers.neap(folder)
  local plugins = { ["vendors/bench.lua"] = bed.read "spec/bench/plugins/vendors/bench.lua" }
  for _, name in ipairs { "vendors/sinocare", "rules/low-glucose", "destinations/log" } do
    plugins[name .. ".lua"] = bed.read("plugins/" .. name .. ".lua")
  end
  local host = bed.host { folder = folder, plugins = plugins, config = ([[
    lanes = %d,
    connections = { { "sinocare", name = "ward-3", unit = "mmol/L" } },
    rules = { { "low-glucose", to = "desk", limit = 3.9 } },
    destinations = { desk = { "log" } },]]):format(servers.lanes) }
  return is_up(server("neap", host, host.port, { host = host }))
end

--- nginx with its Lua module, or nil and why.
function servers.nginx(folder)
  local modules
  for _, path in ipairs(servers.nginx_modules) do
    if exists(path .. "/ngx_http_lua_module.so") then modules = path end
  end
  if not modules then return nil, "its Lua module is not installed" end
  local port = bed.free_port()
  bed.write(folder .. "/nginx.conf", fill(bed.read "spec/bench/nginx.conf", {
    MODULES = modules, LANES = servers.lanes, PORT = port, HERE = bed.root .. "/spec/bench",
    USER = servers.user == "root" and "user root;" or "",
  }))
  return is_up(server("nginx", bed.start { "nginx", "-p", folder .. "/", "-c", "nginx.conf", "-e", "stderr" }, port))
end

--- Node-RED, or nil and why.
function servers.node_red(folder, home)
  local script = home .. "/node_modules/node-red/red.js"
  if not exists(script) then return nil, "it is not installed" end
  local port = bed.free_port()
  local source = json.encode(bed.read "spec/bench/flow_function.js"):sub(2, -2)
  bed.write(folder .. "/flow.json", fill(bed.read "spec/bench/flow.json", { FUNCTION = source, FILE = folder .. "/pushes.log" }))
  local program = bed.start({ "node", script, "--settings", bed.root .. "/spec/bench/settings.js", folder .. "/flow.json" },
    { "BENCH_PORT=" .. port, "BENCH_FOLDER=" .. folder, "NODE_ENV=production" })
  return is_up(server("Node-RED", program, port, { file = folder .. "/pushes.log" }))
end

--- What a command prints, without the last line end.
function servers.ask(command)
  local p = assert(io.popen(command .. " 2>/dev/null"))
  local text = p:read "a"
  p:close()
  return (text:gsub("\n+$", ""))
end

servers.ticks = tonumber(servers.ask "getconf CLK_TCK") or 100
servers.user = servers.ask "id -un"
servers.lanes = tonumber(servers.ask "nproc") or 1

return servers
