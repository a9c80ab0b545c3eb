-- The test bed: starts the real binary in a folder of its own, talks to it over real sockets, waits on conditions.
local crypto = require "neap.crypto"
local json = require "neap.json"
local process = require "process"
local socket = require "socket"

local bed = {}
local B = os.getenv "B" or "build"
local here = assert(io.popen "pwd":read "l")
bed.neap = here .. "/" .. B .. "/neap"
bed.tools = here .. "/" .. B .. "/tools"
bed.plugins = here .. "/plugins"
bed.root = here
local running = {} -- pid -> program
local folders = {}

local processors = tonumber(io.popen "nproc":read "l")
-- How much of a processor each program has just now, where as many want one as do.
local function share()
  local f = assert(io.open "/proc/loadavg")
  local wanted = tonumber(f:read("a"):match " (%d+)/")
  f:close()
  return math.min(1, processors / wanted)
end

--- Waits until fn gives something true, and returns it. No spec sleeps: a condition that does not come true within 30 s is an error. They are seconds of a
--- machine that does nothing else: where ten programs want each processor, ten times as long is waited.
function bed.wait(what, fn, seconds)
  local left, before = seconds or 30, socket.gettime()
  while true do
    local value = fn()
    if value then return value end
    if left < 0 then error("waited in vain for " .. what, 2) end
    process.sleep(0.005)
    local now = socket.gettime()
    left, before = left - (now - before) * share(), now
  end
end

--- A new empty folder, removed at the end.
function bed.folder()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute(("mkdir -p '%s'"):format(path)))
  folders[#folders + 1] = path
  return path
end

function bed.write(path, text)
  assert(os.execute(("mkdir -p \"$(dirname '%s')\""):format(path)))
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

--- Replaces a file as careful editors do: written beside it and renamed over it.
function bed.replace(path, text)
  bed.write(path .. ".tmp~", text)
  assert(os.rename(path .. ".tmp~", path))
end

function bed.read(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "a"
  f:close()
  return text
end

--- A program: { pid, output so far }. program:read() takes in what it printed; program:wait_for(pattern) waits until its output matches.
local Program = {}
Program.__index = Program

function Program:read(seconds)
  while not self.ended do
    local bytes = process.read(self.fd, seconds or 0)
    if bytes == nil then self.ended = true
    elseif bytes == "" then break
    else self.output = self.output .. bytes end
  end
  return self.output
end

function Program:wait_for(pattern, seconds)
  return bed.wait(("%q in the output of %s, which is:\n%s"):format(pattern, self.name, self.output:sub(-3000)), function()
    self:read()
    local found = self.output:match(pattern)
    if not found and self.ended then error(("%s ended without %q:\n%s"):format(self.name, pattern, self.output:sub(-3000)), 0) end
    return found
  end, seconds)
end

--- The same for a text as it stands. The log is written by a thread of its own, so that a line may come after the answer that it is about.
function Program:wait_text(text) return self:wait_for((text:gsub("%p", "%%%0"))) end

--- Sends a signal (15 is TERM, 9 is KILL) and waits for the end: "exit" or "signal", and its number.
function Program:stop(signal)
  if not running[self.pid] then return self.how, self.code end
  process.kill(self.pid, signal or 15)
  return self:wait()
end

--- Waits for its end; where it may print for long before that, only as long as it goes on printing.
function Program:wait(seconds, printing)
  if self.how then return self.how, self.code end
  repeat
    local said = #self.output
    bed.wait(self.name .. " to end", function()
      self:read()
      self.how, self.code = process.wait(self.pid)
      return self.how or printing and #self.output > said
    end, seconds or 60)
  until self.how
  self:read()
  process.close(self.fd)
  running[self.pid] = nil
  return self.how, self.code
end

function bed.start(argv, options)
  local pid, fd = process.start(argv, options)
  local p = setmetatable({ pid = pid, fd = fd, output = "", name = argv[1]:match "[^/]*$" }, Program)
  running[pid] = p
  return p
end

--- Runs a program to its end: its output, and its exit code.
function bed.run(argv, options)
  local p = bed.start(argv, options)
  local how, code = p:wait(60, true)
  return p.output, how == "exit" and code or how .. " " .. code
end

-- Writes a plugin's file below root, and the project's libraries that it requires and that are not given.
local function write_plugin(root, given, name, text)
  bed.write(root .. "/" .. name, text)
  for library in text:gmatch "require%s*%(?[\"']([%w_.-]+)[\"']" do
    local path = "lib/" .. library:gsub("%.", "/") .. ".lua"
    local f = not given[path] and io.open(bed.plugins .. "/" .. path, "rb")
    if f then
      given[path] = f:read "a"
      f:close()
      write_plugin(root, given, path, given[path])
    end
  end
end

--- A port of loopback that nobody listens on just now.
function bed.free_port()
  local s = assert(socket.bind("127.0.0.1", 0))
  local _, port = s:getsockname()
  s:close()
  return tonumber(port)
end

local ticks
--- Seconds of CPU that a process has used.
function bed.cpu(pid)
  ticks = ticks or tonumber(io.popen("getconf CLK_TCK"):read "l")
  local f = assert(io.open("/proc/" .. pid .. "/stat"))
  local field = {}
  for word in f:read("a"):match("%) (.*)"):gmatch "%S+" do field[#field + 1] = word end
  f:close()
  return (field[12] + field[13]) / ticks
end

--- Vendors' plugins that emit what is posted to them, a list of readings: at /v, and at /readings, where requests are not kept.
bed.EMITTER = [[
local plugin = ...
local json = require "neap.json"
plugin:serve { "POST /v", handler = function(req)
  for _, r in ipairs(json.decode(req.raw)) do plugin:emit(r) end
  return 204
end }]]
bed.UNKEPT_EMITTER = [[
local plugin = ...
plugin:serve { "POST /readings", keep = false, handler = function(req)
  for _, r in ipairs(require "neap.json".decode(req.raw)) do plugin:emit(r) end
  return 204
end }
]]

--- A destination that posts a batch as lines of id, device and the number n.
bed.POSTER = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { several = true, options = { url = { "string" } }, handler = function(messages, to)
  local lines = {}
  for i, m in ipairs(messages) do lines[i] = m.id .. " " .. m.device .. " " .. m.data.n .. "\n" end
  return http.post { url = to.url, body = table.concat(lines), timeout = 30 }
end }]]

--- A host. options: folder, config (text of neap.lua's inside; `plugins` and `listen` are filled in), plugins (name -> text of files below
--- plugins/; without it the project's own are used), args, env.
local Host = setmetatable({}, { __index = Program })
Host.__index = Host

function bed.host(options)
  options = options or {}
  local folder = options.folder or bed.folder()
  local plugins = bed.plugins
  if options.plugins then
    plugins = folder .. "/plugins"
    os.execute(("mkdir -p '%s'"):format(plugins))
    local given = {}
    for name, text in pairs(options.plugins) do given[name] = text end
    for name, text in pairs(options.plugins) do write_plugin(plugins, given, name, text) end
  end
  if not options.keep_config then
    bed.write(folder .. "/neap.lua", ("return { listen = \"127.0.0.1:0\", store = \"neap.db\", plugins = %q,\n%s\n}"):format(plugins, options.config or ""))
  end
  local h = setmetatable({ folder = folder, plugins = plugins, options = options, store = folder .. "/neap.db" }, Host)
  h:begin()
  return h
end

function Host:begin()
  local argv = { bed.neap, "run", self.folder .. "/neap.lua" }
  for _, a in ipairs(self.options.args or {}) do argv[#argv + 1] = a end
  if self.port then -- the same port again, so that clients find it
    argv[#argv + 1] = "--listen"
    argv[#argv + 1] = "127.0.0.1:" .. self.port
  end
  local p = bed.start(argv, self.options.env)
  self.pid, self.fd, self.output, self.name, self.ended, self.how, self.code = p.pid, p.fd, "", "neap", false, nil, nil
  running[p.pid] = self
  local port = self:wait_for "neap listening on https?://[^%s]*:(%d+)"
  local scheme = self.output:match "neap listening on (https?)"
  self.port = tonumber(port)
  self.url = scheme .. "://127.0.0.1:" .. port
end

--- Ends it as by SIGTERM (or kills it with 9) and starts it anew on the same folder and port.
function Host:restart(signal)
  self:stop(signal or 15)
  self:begin()
end

--- One request on a connection of its own: status, body, headers (lower-case names). body a table is sent as JSON.
function Host:request(method, path, body, headers)
  return bed.request(self.port, method, path, body, headers)
end

function bed.request(port, method, path, body, headers)
  local s = assert(socket.connect("127.0.0.1", port))
  s:settimeout(30)
  headers = headers or {}
  if type(body) == "table" then
    body = json.encode(body)
    headers["content-type"] = headers["content-type"] or "application/json"
  end
  local lines = { ("%s %s HTTP/1.1"):format(method, path), "host: localhost", "connection: close" }
  for k, v in pairs(headers) do lines[#lines + 1] = k .. ": " .. v end
  if body then lines[#lines + 1] = "content-length: " .. #body end
  assert(s:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")))
  local status, answer, fields = bed.receive(s, method)
  s:close()
  return status, answer, fields
end

--- Reads one answer from a socket: status, body, headers.
function bed.receive(s, method)
  local line, why = s:receive "*l"
  if not line then return nil, why end
  local status = tonumber(line:match "^HTTP/1%.1 (%d%d%d)")
  local fields = {}
  for l in function() return assert(s:receive "*l") end do
    if l == "" then break end
    local k, v = l:match "^([^:]+):%s*(.-)%s*$"
    fields[k:lower()] = v
  end
  if method == "HEAD" or status == 204 or status == 304 then return status, "", fields end
  local body
  if fields["transfer-encoding"] == "chunked" then
    local parts = {}
    while true do
      local size = tonumber(assert(s:receive "*l"), 16)
      if size == 0 then break end
      parts[#parts + 1] = assert(s:receive(size))
      s:receive(2)
    end
    s:receive "*l"
    body = table.concat(parts)
  elseif fields["content-length"] then
    local n = tonumber(fields["content-length"])
    body = n == 0 and "" or assert(s:receive(n))
  else
    body = s:receive "*a"
  end
  return status, body, fields
end

function Host:json(method, path, body, headers)
  local status, text, fields = self:request(method, path, body, headers)
  return status, text ~= "" and json.decode(text) or nil, fields
end

--- A command of the command line against this host: list of decoded JSON lines.
function Host:command(name, ...)
  local out, code = bed.run { bed.neap, name, "--store", self.store, "--json", ... }
  local list = {}
  for line in out:gmatch "[^\n]+" do list[#list + 1] = assert(json.decode(line)) end
  return list, code
end

--- The summary of `neap plugins`.
function Host:summary()
  local list = self:command "plugins"
  return assert(list[#list].summary)
end

--- A line of `neap plugins` for one instance, or nil.
function Host:plugin(instance)
  for _, p in ipairs((self:command "plugins")) do
    if p.instance == instance then return p end
  end
end

--- Rows of the store, by the sqlite3 program: a list of tables.
--- Waits until all has been delivered, or is dead, where rules send something for each reading.
function Host:all_told()
  bed.wait("a message for each reading, and none that waits", function()
    local left = self:sql [[select (select count(*) from outbox) as waiting, (select count(*) from readings where seq not in
      (select reading from delivered union select reading from dead union select reading from outbox)) as untold]] [1]
    return left.waiting == 0 and left.untold == 0
  end)
end

function Host:sql(query) return bed.sql(self.store, query) end

function bed.sql(store, query)
  local out, code = bed.run { "sqlite3", "-json", "-readonly", "-cmd", ".timeout 10000", store, query }
  assert(code == 0, out)
  return out:match "%S" and assert(json.decode(out)) or {}
end

-- Opens a sealed value as core/store/seal.c describes it, with the key file beside the store. nil where it does not.
function bed.unseal(store, sealed, kind, where, which)
  local key = assert(crypto.unhex((bed.read(store .. ".key"):gsub("%s", ""))))
  local own = crypto.hmac("sha256", crypto.hmac("sha256", key, "neap sealing 1", "raw"), sealed:sub(3, 18), "raw")
  return crypto.aes_gcm_decrypt(own, sealed:sub(19, 30), sealed:sub(31, -17), sealed:sub(-16), kind .. "\0" .. where .. "\0" .. which)
end

--- Rows of the inbox as they came: those with sealed headers and bodies are opened; then `route` is what stood in their place. rest: "where …" or "order by …".
function bed.inbox(store, rest)
  local rows = bed.sql(store, "select id, received, instance, generation, method, target, remote, status, outcome, error, hex(headers) as headers,"
    .. " hex(body) as body from inbox " .. (rest or "order by id"))
  for _, row in ipairs(rows) do
    row.headers, row.body = crypto.unhex(row.headers), crypto.unhex(row.body)
    row.sealed = row.headers:sub(1, 2) == "\0\1"
    if row.error == json.null then row.error = nil end
    if row.sealed then
      local place = row.received .. " " .. row.method .. " "
      row.headers = assert(bed.unseal(store, row.headers, "request", row.instance, place .. "headers"))
      row.body = assert(bed.unseal(store, row.body, "request", row.instance, place .. "body"))
      row.route, row.target, row.headers = row.target, row.headers:match "^([^\n]*)\n(.*)$"
    end
  end
  return rows
end
function Host:inbox(rest) return bed.inbox(self.store, rest) end

--- A receiver: a little HTTP server in this process, for webhooks. r:poll() takes in what has come; r.requests is a list of { method, path, headers,
--- body, json }; r.answer = function(request, client) return status, body, headers end. No status: it hangs up; a text: that is sent as it is,
--- and then it hangs up; false: it leaves the client waiting, and client.socket to the spec.
local Receiver = {}
Receiver.__index = Receiver

function bed.receiver(port)
  local s = assert(socket.bind("127.0.0.1", port or 0))
  s:settimeout(0)
  local _, number = s:getsockname()
  return setmetatable({ socket = s, port = tonumber(number), url = "http://127.0.0.1:" .. number, requests = {}, clients = {},
    answer = function() return 200, "" end }, Receiver)
end

local function take_request(text)
  local head, stop = text:match "^(.-)\r\n\r\n()"
  if not head then return end
  local length = tonumber(head:lower():match "\r\ncontent%-length:%s*(%d+)") or 0
  if #text < stop - 1 + length then return end
  local method, path = head:match "^(%S+) (%S+)"
  local headers = {}
  for k, v in head:gmatch "\r\n([^:\r\n]+):%s*([^\r\n]*)" do headers[k:lower()] = v end
  local body = text:sub(stop, stop - 1 + length)
  return { method = method, path = path, headers = headers, body = body, json = json.decode(body) }, text:sub(stop + length)
end

local function reply(client, status, body, headers)
  local lines = { ("HTTP/1.1 %d X"):format(status), "content-length: " .. #body }
  for k, v in pairs(headers or {}) do lines[#lines + 1] = k .. ": " .. v end
  client.socket:settimeout(5)
  client.socket:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. body)
  client.socket:settimeout(0)
end

function Receiver:poll()
  local client = self.socket:accept()
  while client do
    client:settimeout(0)
    self.clients[#self.clients + 1] = { socket = client, text = "" }
    client = self.socket:accept()
  end
  for i = #self.clients, 1, -1 do
    local c = self.clients[i]
    local bytes, why, part = c.socket:receive(65536)
    c.text = c.text .. (bytes or part or "")
    local request, rest = take_request(c.text)
    while request do
      c.text = rest
      self.requests[#self.requests + 1] = request
      local status, body, headers = self.answer(request, c)
      if type(status) == "string" then
        c.socket:settimeout(5)
        c.socket:send(status)
        why = "closed"
      elseif status then reply(c, status, body or "", headers)
      elseif status == nil then why = "closed" end
      request, rest = take_request(c.text)
    end
    if why == "closed" then
      c.socket:close()
      table.remove(self.clients, i)
    end
  end
  return self.requests
end

function Receiver:wait(n, seconds)
  return bed.wait(n .. " requests at the receiver", function() return #self:poll() >= n and self.requests end, seconds)
end

function Receiver:close()
  for _, c in ipairs(self.clients) do c.socket:close() end
  self.socket:close()
end

--- The project's own plugins, as bed.host's `plugins` takes them, with more of the spec's.
function bed.own_plugins(more)
  local files = {}
  for path in io.popen(("find '%s' -name '*.lua'"):format(bed.plugins)):lines() do files[path:sub(#bed.plugins + 2)] = bed.read(path) end
  for name, text in pairs(more or {}) do files[name] = text end
  return files
end

--- A Sinocare push with `changes` of its data; json.null stays.
function bed.push(changes)
  local data = { testId = "t-1", deviceSn = "SN-1", testResult = "5.6", serialNo = 1, testTime = "2021-11-02 12:33:33", idCard = "", visitId = "",
    patientName = "", customerName = "", patientId = "", inSerialId = "", status = "0", cgmDay = 8, increMinute = 3, low = json.null, high = json.null,
    cgmStatus = "2" }
  for k, v in pairs(changes or {}) do data[k] = v end
  return { reservedCode = "01", data = data }
end

--- Kills what is left and removes the folders; how many were left.
function bed.stop_all()
  local left = 0
  for pid, p in pairs(running) do
    left = left + 1
    process.kill(pid, 9)
    p:wait()
  end
  for _, f in ipairs(folders) do os.execute(("rm -rf '%s'"):format(f)) end
  folders = {}
  return left
end

return bed
