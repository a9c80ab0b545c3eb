-- Deliveries of the running host: a message arrives, in order, under one id, whatever is killed, broken or mended on the way.
local bed = require "bed"

local source = [[
local plugin = ...
plugin:serve { "POST /m", keep = false, body = { device = { "string" }, n = { "integer" } }, handler = function(req)
  plugin:emit { device = req.body.device, metric = "m", value = req.body.n, at = 1600000000000 + req.body.n }
  return 204
end }
]]
local rule = [[
local plugin = ...
plugin:on({ metric = "m" }, function(r) plugin:send("desk", { device = r.device, n = r.value }) end)
]]
local desk = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { options = { url = { "string" } }, handler = function(messages, to)
  local m = messages[1]
  return http.post { url = to.url, headers = { ["x-id"] = m.id }, body = m.json }
end }
]]

describe("the courier", function()
  local receiver, host

  before_each(function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/alarm.lua"] = rule, ["destinations/desk.lua"] = desk },
      config = ("destinations = { { \"desk\", url = %q } }"):format(receiver.url) }
  end)
  after_each(function()
    host:stop()
    receiver:close()
  end)

  local function emit(device, n) assert.equal(204, (host:request("POST", "/m", { device = device, n = n }))) end

  it("delivers each message once, in order for each device", function()
    for n = 1, 20 do
      emit("a", n)
      emit("b", n)
    end
    receiver:wait(40)
    bed.wait("all to be known as delivered", function() return host:sql("SELECT count(*) AS n FROM outbox")[1].n == 0 end)
    local last = { a = 0, b = 0 }
    for _, r in ipairs(receiver:poll()) do
      assert.equal(last[r.json.device] + 1, r.json.n)
      last[r.json.device] = r.json.n
    end
    assert.same({ a = 20, b = 20 }, last)
  end)

  it("tries again under the same id, and holds up no other device", function()
    local good = false -- until that has come, the other device's first message is turned away
    receiver.answer = function(r)
      good = good or r.json.device == "good"
      return good and 200 or 503, "later"
    end
    emit("bad", 1)
    receiver:wait(1)
    emit("bad", 2)
    emit("good", 1)
    bed.wait("the last message", function()
      local r = receiver:poll()
      return r[#r].json.n == 2
    end)
    local ids = {}
    for i, r in ipairs(receiver.requests) do
      if r.json.device == "bad" and r.json.n == 1 then ids[r.headers["x-id"]] = true
      elseif r.json.n == 2 then assert.equal(#receiver.requests, i) end
    end
    assert.truthy(next(ids))
    assert.is_nil(next(ids, (next(ids))), "one id over all tries")
  end)

  it("delivers after it was killed", function()
    receiver.answer = function() return 503, "", { ["retry-after"] = "2" } end -- which is still to come when it is there again
    emit("d", 1)
    bed.wait("the first try, on record", function()
      receiver:poll()
      return host:sql("SELECT count(*) AS n FROM outbox WHERE attempts = 1")[1].n == 1
    end)
    host:stop(9)
    receiver.answer = function() return 200 end
    host:begin()
    bed.wait("the second try", function()
      local r = receiver:poll()
      return r[#r].json.n == 1 and #r >= 2
    end)
    assert.equal(receiver.requests[1].headers["x-id"], receiver.requests[2].headers["x-id"])
    bed.wait("it to be known as delivered", function()
      receiver:poll()
      return host:sql("SELECT count(*) AS n FROM outbox")[1].n == 0
    end)
  end)

  it("holds what a broken destination cannot take, and delivers once it is mended", function()
    host:stop()
    bed.replace(host.plugins .. "/destinations/desk.lua", desk:gsub("return http", "error 'not yet' return http", 1))
    host:begin()
    emit("d", 1)
    host:wait_for "not yet"
    assert.equal(0, #receiver:poll())
    bed.replace(host.plugins .. "/destinations/desk.lua", desk)
    receiver:wait(1)
    assert.equal(1, receiver.requests[1].json.n)
  end)

  it("tries at once by new settings what was under way by the old ones, whatever is answered to that", function()
    local held
    receiver.answer = function(_, client)
      held = client.socket
      return false
    end
    emit("d", 1)
    bed.wait("a request by the old ones", function() return receiver:poll() and held end)
    bed.replace(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub('url = "[^"]*', "%0/new")))
    bed.wait("the new ones", function() return host:plugin("desk").generation == 2 end)
    receiver.answer = function() return 200 end
    held:send "HTTP/1.1 503 X\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n"
    assert.equal("/new", receiver:wait(2)[2].path)
  end)

  it("makes a dead letter of what is refused, with the reason", function()
    receiver.answer = function(r) return r.json.n == 1 and 410 or 200, "gone for good" end
    emit("d", 1)
    emit("d", 2)
    receiver:wait(2)
    bed.wait("the dead letter", function()
      receiver:poll()
      return host.output:find("answered 410: gone for good", 1, true) or host:read() and false
    end)
    assert.equal(2, receiver.requests[2].json.n)
  end)
end)
