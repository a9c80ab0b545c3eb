-- Stopping: what is under way is answered, nothing new is let in, and it ends in time.
local bed = require "bed"
local process = require "process"
local socket = require "socket"

local slow = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { upstream = { "string" } }
plugin:serve { "POST /slow", handler = function(req)
  local res, why = http.get { url = config.upstream, timeout = 60 }
  plugin:emit { device = "d", metric = "m", value = 1, key = req.raw }
  return 200, res and "done " .. res.status or why
end }
plugin:serve { "POST /quick", handler = function(req) plugin:emit { device = "d", metric = "m", value = 1, key = req.raw } return 200, "quick" end }
plugin:serve { "GET /endless", handler = function() return 200, function() return ("x"):rep(1000) end end }
]]

describe("SIGTERM", function()
  local host, upstream
  local function start(config)
    upstream = bed.receiver()
    upstream.hold = true
    host = bed.host { config = ([[lanes = 2, %s connections = { { "slow", upstream = "http://127.0.0.1:%d/" } }]]):format(config or "", upstream.port), plugins = { ["vendors/slow.lua"] = slow } }
  end
  after_each(function()
    host:stop(9)
    upstream:close()
  end)

  local function connect()
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:settimeout(30)
    return s
  end

  local function send(path, body)
    local s = connect()
    s:send(("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"):format(path, #body, body))
    return s
  end

  -- n requests whose handlers wait; the upstream takes their calls in, and answers none before it is told to.
  local function waiting(n)
    local list = {}
    for i = 1, n do list[i] = send("/slow", "slow-" .. i) end
    bed.wait("the handlers to wait", function() return host:summary().tasks == n end)
    return list
  end

  local function refuses_new()
    local s = socket.connect("127.0.0.1", host.port)
    if s then s:close() end
    return not s
  end

  it("with nothing under way ends at once with exit code 0, closing idle connections", function()
    start()
    local idle = connect()
    idle:send "POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nk"
    assert.equal(200, (bed.receive(idle)))
    assert.same({ "exit", 0 }, { host:stop() })
    assert.is_nil((idle:receive(1)))
    idle:close()
    assert.matches("stopped", host.output)
  end)

  it("answers what is under way, and takes in nothing new", function()
    start [[drain = "60s",]]
    local list = waiting(10)
    local half = connect() -- a request of which half has come is under way too
    half:send "POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nha"
    bed.wait("its head to be read", function() return host:summary().descriptors end)
    process.kill(host.pid, 15)
    bed.wait("new connections to be refused", refuses_new)
    half:send "lf"
    local status, _, fields = bed.receive(half)
    assert.same({ 200, "close" }, { status, fields.connection })
    half:close()
    assert.is_nil((process.wait(host.pid))) -- it waits for the ten
    upstream.answer = function() return 201, "" end
    bed.wait("the calls", function() return #upstream:poll() == 10 end)
    for _, s in ipairs(list) do
      local body
      status, body, fields = bed.receive(s)
      assert.same({ 200, "done 201", "close" }, { status, body, fields.connection })
      s:close()
    end
    assert.same({ "exit", 0 }, { host:wait() })
    assert.equal(11, host:sql("select count(*) n from readings")[1].n) -- all that was answered is stored
  end)

  it("ends past its deadline all the same, and nothing unanswered is half done", function()
    start [[drain = "300ms",]]
    local list = waiting(5)
    local stream = connect()
    stream:send "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"
    assert(stream:receive(1000))
    process.kill(host.pid, 15)
    assert.same({ "exit", 0 }, { host:wait(20) })
    assert.matches("time to drain is up", host.output)
    for _, s in ipairs(list) do
      assert.is_nil((bed.receive(s)))
      s:close()
    end
    stream:close()
    assert.equal(0, host:sql("select count(*) n from readings")[1].n)
    assert.equal(0, host:sql("select count(*) n from inbox")[1].n)
  end)

  it("a second time ends at once", function()
    start [[drain = "600s",]]
    local list = waiting(3)
    process.kill(host.pid, 15)
    bed.wait("new connections to be refused", refuses_new)
    assert.is_nil((process.wait(host.pid)))
    process.kill(host.pid, 15)
    host:wait(20)
    for _, s in ipairs(list) do s:close() end
    assert.equal(0, host:sql("select count(*) n from readings")[1].n)
  end)

  it("under load loses nothing that was acknowledged", function()
    start()
    local acked, n, sockets = {}, 0, {}
    for i = 1, 8 do sockets[i] = connect() end
    local ended
    while not ended do
      for i, s in pairs(sockets) do
        n = n + 1
        s:send(("POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n%08d"):format(n))
        local status, _, fields = bed.receive(s)
        if status == 200 then acked[#acked + 1] = ("%08d"):format(n) end
        if not status or fields.connection == "close" then
          s:close()
          sockets[i] = nil
        end
      end
      if n > 400 and not host.asked then
        host.asked = true
        process.kill(host.pid, 15)
      end
      ended = not next(sockets)
    end
    assert.same({ "exit", 0 }, { host:wait() })
    local stored = {}
    for _, r in ipairs(host:sql "select key from readings") do stored[r.key] = true end
    for _, key in ipairs(acked) do assert.is_true(stored[key], key) end
    assert.is_true(#acked >= 400)
  end)
end)
