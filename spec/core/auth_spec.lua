-- A route's auth: run before what is declared is checked, in the handler's transaction; and routes that take what no other takes.
local bed = require "bed"

local PLUGIN = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string", default = "http://127.0.0.1:1" } }
plugin:refuse(function(p)
  return p.status, { said = p.message, kind = p.kind, where = p.where, field = p.field, route = p.route }
end)
local function auth(req)
  if req.query.ask then assert(http.get { url = config.url .. "/who", expect = 200 }) end
  local used = plugin.store:get "used" or 0
  plugin.store:put("used", used + 1)
  local key = req.headers.key
  if not key then return nil, "who are you?", 1010, "key" end
  if key == "oops" then error "auth broke" end
  if key == "nothing" then return nil end
  if key == "raw" then return { raw = req.raw, target = req.target, n = type(req.query.n), id = req.params.id, body = type(req.body) } end
  return key
end
plugin:serve {
  "POST /v1/things/{id}", auth = auth,
  path = { id = { "integer" } }, query = { n = { "integer", optional = true }, ask = { "string", optional = true } },
  body = { device = { "string" } },
  handler = function(req)
    plugin:emit { device = req.body.device, metric = "level", value = req.params.id }
    if req.body.device == "no" then return nil, "not that one", "taken", "device" end
    return 200, { caller = req.caller, n = math.type(req.query.n) or "none", id = req.params.id }
  end,
}
plugin:serve { "GET /v1/used", handler = function() return 200, { used = plugin.store:get "used" or 0 } end }
plugin:serve { "* /v1/{path...}", handler = function(req) return nil, "no such path", 1108, req.params.path end }
]]

describe("auth", function()
  local host, far
  setup(function()
    far = bed.receiver()
    host = bed.host { plugins = { ["vendors/try.lua"] = PLUGIN }, config = ([[connections = { { "try", url = %q } }]]):format(far.url) }
  end)
  teardown(function()
    far:close()
    host:stop()
  end)
  local function used() return select(2, host:json("GET", "/v1/used")).used end
  local function readings() return host:sql "select count(*) n from readings"[1].n end

  it("says who calls, and the handler sees it; what both did commits together", function()
    local before = used()
    local status, answer = host:json("POST", "/v1/things/7?n=3", { device = "d" }, { key = "ann" })
    assert.equal(200, status)
    assert.same({ caller = "ann", n = "integer", id = 7 }, answer)
    assert.equal(before + 1, used())
    assert.equal(1, readings())
  end)

  it("sees the request as it came, before anything is checked", function()
    local _, answer = host:json("POST", "/v1/things/8?n=3&m=%2F", { device = "d" }, { key = "raw" })
    assert.same({ raw = '{"device":"d"}', target = "/v1/things/8?n=3&m=%2F", n = "string", id = "8", body = "nil" }, answer.caller)
  end)

  it("refuses before what is declared is checked; nothing that it did counts; the request is kept", function()
    local before, stored = used(), readings()
    local status, answer = host:json("POST", "/v1/things/x?n=y", "{", { ["content-type"] = "application/json" })
    assert.equal(400, status)
    assert.same({ said = "key: who are you?", kind = 1010, where = "auth", field = "key", route = "/v1/things/{id}" }, answer)
    assert.equal(before, used())
    assert.equal(stored, readings())
    local kept = host:sql "select outcome, error from inbox order by id desc limit 1"[1]
    assert.same({ outcome = "refused", error = "auth key: who are you?" }, kept)
  end)

  it("passed, the rest is checked; a refusal then undoes what auth did", function()
    local before = used()
    for _, c in ipairs { { "/v1/things/x", "path", "type", "id" }, { "/v1/things/1?n=y", "query", "type", "n" } } do
      local status, answer = host:json("POST", c[1], { device = "d" }, { key = "ann" })
      assert.equal(400, status)
      assert.same({ c[2], c[3], c[4] }, { answer.where, answer.kind, answer.field })
    end
    local _, answer = host:json("POST", "/v1/things/1", {}, { key = "ann" })
    assert.same({ "body", "missing", "device" }, { answer.where, answer.kind, answer.field })
    _, answer = host:json("POST", "/v1/things/1", { device = "no" }, { key = "ann" })
    assert.same({ "body", "taken", "device" }, { answer.where, answer.kind, answer.field })
    assert.equal(before, used())
  end)

  it("that raises, or says nothing, fails closed", function()
    local stored = readings()
    for key, why in pairs { oops = "auth broke", nothing = "auth has to return who calls" } do
      local status, answer = host:json("POST", "/v1/things/1", { device = "d" }, { key = key })
      assert.equal(500, status)
      assert.equal("failed", answer.kind)
      host:wait_text(why)
    end
    assert.equal(stored, readings())
  end)

  it("may wait for another's answer, and ends with its client", function()
    local socket = require "socket"
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:send "POST /v1/things/9?ask=1 HTTP/1.1\r\nhost: x\r\nkey: ann\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"device\":\"d\"}"
    far:wait(1)
    s:settimeout(30)
    local status, body = bed.receive(s, "POST")
    assert.equal(200, status, body)
    s:close()
    far.answer = function() end -- hangs up
    local waiting = assert(socket.connect("127.0.0.1", host.port))
    waiting:send "POST /v1/things/9?ask=1 HTTP/1.1\r\nhost: x\r\nkey: ann\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"device\":\"d\"}"
    waiting:close()
    far:wait(2)
    bed.wait("all tasks to end", function()
      far:poll()
      return host:summary().tasks == 0
    end)
  end)

  it("a path that nothing else takes is answered in the plugin's words, whatever the method", function()
    for _, c in ipairs { { "GET", "/v1/nowhere/at/all", "nowhere/at/all" }, { "DELETE", "/v1/used", "used" }, { "PATCH", "/v1", "" } } do
      local status, answer = host:json(c[1], c[2])
      assert.equal(400, status)
      assert.same({ 1108, c[3], "/v1/{path...}" }, { answer.kind, answer.field, answer.route })
    end
    assert.equal(404, (host:request("GET", "/v2/nowhere")))
  end)

  it("has to be a function", function()
    bed.write(host.plugins .. "/vendors/bad.lua", "local plugin = ...\nplugin:serve { 'GET /bad', auth = 'yes', handler = print }")
    host:wait_text "bad.lua:2: plugin:serve: auth has to be a function, got a string"
  end)
end)
