-- Calls of a plugin never hold up its lane for good, and end with what they were given.
local bed = require "bed"
local socket = require "socket"

local function start(handlers)
  return bed.host { plugins = { ["vendors/x.lua"] = "local plugin = ...\n" .. handlers ..
    "\nplugin:serve { \"GET /ping\", handler = function() return 200, \"pong\" end }" }, config = "lanes = 1" }
end

local function connect(host, text)
  local s = assert(socket.connect("127.0.0.1", host.port))
  s:settimeout(30)
  s:send(text)
  return s
end

describe("task", function()
  it("serves others while a streamed answer goes on and on without a byte", function()
    local host = start [[plugin:serve { "GET /s", handler = function() return 200, function() return "" end end }]]
    local s = connect(host, "GET /s HTTP/1.1\r\nhost: x\r\n\r\n")
    assert.equal("HTTP/1.1 200 OK", s:receive "*l") -- it has begun
    assert.equal(200, (host:request("GET", "/ping")))
    s:close()
    bed.wait("the stream to end with its client", function() return host:summary().tasks == 0 end)
    host:stop()
  end)

  it("does not run a streamed answer's body for HEAD", function()
    local host = start [[plugin:serve { "GET /s", handler = function() return 200, function() return "more" end end }]]
    assert.equal(200, (host:request("HEAD", "/s")))
    assert.equal(200, (host:request("GET", "/ping")))
    host:stop()
  end)

  it("gives nothing of a later request to who kept an earlier one", function()
    local host = start [[
local kept
plugin:serve { "POST /keep", handler = function(req) kept = req return 204 end }
plugin:serve { "POST /look", handler = function() return 200, tostring(kept.raw) .. " " .. tostring(kept.headers) end }]]
    local other = connect(host, "")
    for _ = 1, 20 do
      host:request("POST", "/keep", "first")
      other:send "POST /look HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nsecond"
      local _, body = bed.receive(other, "POST")
      assert.equal("nil nil", body)
    end
    other:close()
    host:stop()
  end)

  it("ends a call whose coroutines make coroutines without end", function()
    local host = start [[
local function nest(depth)
  if depth > 0 then for _ = 1, 600 do coroutine.resume(coroutine.create(nest), depth - 1) end end
end
plugin:serve { "GET /s", handler = function() nest(6) end }]]
    assert.equal(500, (host:request("GET", "/s")))
    host:wait_text "its budget of"
    host:stop()
  end)
end)
