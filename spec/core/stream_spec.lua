-- Streamed answers: as fast as the reader, in bounded memory, whole or visibly cut.
local bed = require "bed"
local socket = require "socket"

local streams = [[
local plugin = ...
local function lines(n, size)
  local i = 0
  return function()
    i = i + 1
    if i <= n then return ("%08d "):format(i) .. ("x"):rep(size - 10) .. "\n" end
  end
end
plugin:serve { "GET /lines/{n}", path = { n = { "integer" } }, handler = function(req) return 200, lines(req.params.n, 1000), { ["Content-Type"] = "text/plain" } end }
plugin:serve { "GET /endless", handler = function() return 200, lines(math.huge, 1000) end }
plugin:serve { "GET /pieces", handler = function() local t, i = { "a", "", "bc", "" }, 0 return 200, function() i = i + 1 return t[i] end end }
plugin:serve { "GET /big", handler = function() local i = 0 return 200, function() i = i + 1 if i <= 20 then return (tostring(i % 10)):rep(1 << 20) end end end }
plugin:serve { "GET /cut", handler = function() local f = lines(500, 1000) return 200, function() return f() or error "midway" end end }
plugin:serve { "GET /ping", handler = function() return 200, "pong" end }
]]

describe("a streamed answer", function()
  local host
  setup(function() host = bed.host { config = [[lanes = 1, timeouts = { write = "60s" }]], plugins = { ["vendors/streams.lua"] = streams } } end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function ask(path, version)
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:settimeout(60)
    s:send(("GET %s HTTP/%s\r\nHost: x\r\n\r\n"):format(path, version or "1.1"))
    return s
  end

  local function settled(before)
    bed.wait("all to be given back", function()
      local s = host:summary()
      return s.tasks == 0 and s.descriptors <= before.descriptors
    end)
  end

  it("is whole, in order, and the connection goes on", function()
    local s = ask "/lines/5000"
    local status, body, fields = bed.receive(s)
    assert.same({ 200, 5000 * 1000, "chunked", "text/plain" }, { status, #body, fields["transfer-encoding"], fields["content-type"] })
    local n = 0
    for number in body:gmatch "(%d+) x+\n" do
      n = n + 1
      assert.equal(n, tonumber(number))
    end
    assert.equal(5000, n)
    s:send "GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n"
    assert.equal("abc", (select(2, bed.receive(s))))
    s:send "GET /big HTTP/1.1\r\nHost: x\r\n\r\n"
    status, body = bed.receive(s)
    assert.same({ 200, 20 << 20 }, { status, #body })
    s:close()
  end)

  it("to HTTP/1.0 ends with its connection", function()
    local s = ask("/lines/10", "1.0")
    local status, body, fields = bed.receive(s)
    assert.same({ 200, 10000 }, { status, #body })
    assert.is_nil(fields["transfer-encoding"])
    s:close()
  end)

  it("waits for a slow reader, in bounded memory", function()
    local before, slow = host:summary(), {}
    for i = 1, 20 do
      slow[i] = ask "/endless"
      assert.equal(100, #assert(slow[i]:receive(100)))
    end
    for _ = 1, 50 do assert.equal("pong", (select(2, host:request("GET", "/ping")))) end -- the lane has filled what it could by now
    local s = host:summary()
    assert.is_true(s.tasks == 20, "tasks: " .. s.tasks)
    local shadow = bed.neap:find "tsan" and 5 or 1 -- what ThreadSanitizer keeps of each byte
    assert.is_true(s.resident - before.resident < shadow * 20 << 20, "grown by " .. s.resident - before.resident)
    for i = 1, 20 do -- and goes on where it was
      assert.equal(1 << 20, #assert(slow[i]:receive(1 << 20)))
      slow[i]:close()
    end
    settled(before)
  end)

  it("to a fast reader leaves the lane's others their turn", function()
    local before = host:summary()
    local curl = bed.start { "curl", "-s", "-o", "/dev/null", host.url .. "/endless" }
    bed.wait("the stream to run", function() return host:summary().tasks == 1 end)
    for _ = 1, 20 do assert.equal("pong", (select(2, host:request("GET", "/ping")))) end
    assert.equal(1, host:summary().tasks)
    curl:stop(9)
    settled(before)
  end)

  it("ends when its reader vanishes", function()
    local before = host:summary()
    for i = 1, 30 do
      local s = ask "/endless"
      assert(s:receive(i * 500))
      if i % 2 == 0 then s:setoption("linger", { on = true, timeout = 0 }) end
      s:close()
    end
    settled(before)
  end)

  it("that raises is cut, so that nobody takes it for whole", function()
    for _, version in ipairs { "1.1", "1.0" } do
      local before = host:summary()
      local s = ask("/cut", version)
      local body, _, part = s:receive "*a"
      local got = body or part
      assert.is_true(#got > 100000, #got .. " bytes came")
      assert.is_nil(got:find("\r\n0\r\n\r\n", 1, true))
      s:close()
      settled(before)
      local out, code = bed.run { "curl", "-s", "--http" .. version, "-o", "/dev/null", host.url .. "/cut" }
      assert.not_equal(0, code, out) -- to 1.0 its end alone would look like the end: it is reset
    end
    host:wait_text "streamed answer failed and was cut"
    host:wait_text "midway"
  end)
end)
