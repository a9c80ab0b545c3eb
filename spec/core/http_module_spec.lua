-- neap.http in the running host: what a call sends, what it returns, and what it refuses to do.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

-- Makes the call that its request describes, and tells what came of it.
local caller = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string" } }
local function tell(ok, res, why, code, answer)
  if not ok then return 200, { raised = res } end
  if not res then return 200, { why = why, code = code, status = answer and answer.status } end
  return 200, { status = res.status, headers = res.headers, body = res.body, url = res.url, json = res.json }
end
plugin:serve { "POST /call", keep = false, handler = function(req) return tell(pcall(http.request, req.body)) end }
plugin:serve { "POST /short", keep = false, handler = function() return tell(pcall(http.get, config.url .. "/short")) end }
plugin:serve { "POST /coroutine", keep = false,
  handler = function() return tell(pcall(coroutine.wrap(function() http.get(config.url) end))) end }
plugin:serve { "POST /sort", keep = false,
  handler = function() return tell(pcall(table.sort, { 2, 1 }, function() http.get(config.url) end)) end }
]]

describe("neap.http", function()
  local receiver, host

  setup(function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/caller.lua"] = caller },
      config = ("connections = { { \"caller\", url = %q } }"):format(receiver.url) }
  end)
  teardown(function()
    host:stop()
    receiver:close()
  end)
  before_each(function()
    receiver.requests = {}
    receiver.answer = function() return 200, "" end
  end)

  -- The receiver lives in this process: it is served while the host's answer is waited for.
  local function call(options, path)
    local s = assert(socket.connect("127.0.0.1", host.port))
    local body = json.encode(options or {})
    local head = "POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    s:send(head:format(path or "/call", #body) .. body)
    bed.wait("the host's answer", function()
      receiver:poll()
      return #socket.select({ s }, nil, 0) > 0
    end)
    local status, text = bed.receive(s)
    s:close()
    assert.equal(200, status, text)
    return assert(json.decode(text)), receiver.requests[1]
  end
  local function url(path) return receiver.url .. (path or "/a") end

  it("sends query, headers and JSON, sorted and encoded", function()
    local res, sent = call { method = "PUT", url = url "/a?x=1#top", query = { b = { 1, 2.5 }, a = "ä &", yes = true, whole = 3.0 },
      headers = { ["X-One"] = 1, ["X-Two"] = "two" }, json = { n = 9007199254740993 }, bearer = "t0ken" }
    assert.equal(200, res.status)
    assert.equal("PUT", sent.method)
    assert.equal("/a?x=1&a=%C3%A4%20%26&b=1&b=2.5&whole=3&yes=true", sent.path)
    assert.equal("1", sent.headers["x-one"])
    assert.equal("application/json", sent.headers["content-type"])
    assert.equal("Bearer t0ken", sent.headers.authorization)
    assert.equal(9007199254740993, sent.json.n)
  end)

  it("sends forms and basic credentials", function()
    local _, sent = call { method = "POST", url = url(), form = { a = "x y", b = "1+1" }, basic = { "u", "p:w" } }
    assert.equal("a=x+y&b=1%2B1", sent.body)
    assert.equal("application/x-www-form-urlencoded", sent.headers["content-type"])
    assert.equal("Basic dTpwOnc=", sent.headers.authorization)
  end)

  it("takes a URL alone", function()
    local res, sent = call({}, "/short")
    assert.equal(200, res.status)
    assert.equal("GET /short", sent.method .. " " .. sent.path)
  end)

  it("decodes JSON when it is asked for, and keeps the body as it came", function()
    receiver.answer = function() return 200, '{"n":1.0,"id":9007199254740993}', { ["X-A"] = "1", ["Set-Cookie"] = "c=1" } end
    local res = call { method = "GET", url = url() }
    assert.equal('{"n":1.0,"id":9007199254740993}', res.body)
    assert.equal(9007199254740993, res.json.id)
    assert.equal("1", res.headers["x-a"])
    assert.same({ "c=1" }, res.headers["set-cookie"])
    receiver.answer = function() return 200, "not JSON" end
    assert.is_nil(call { method = "GET", url = url() }.json)
  end)

  it("names an unexpected status without the query or credentials", function()
    receiver.answer = function() return 503, "over\nloaded" end
    local res = call { method = "GET", url = url("/a?token=abc"):gsub("//", "//user:secret@"), expect = { 200, 204 } }
    assert.equal(("GET %s: answered 503: over loaded"):format(url()), res.why)
    assert.equal("status", res.code)
    assert.equal(503, res.status)
    assert.equal(503, call({ method = "GET", url = url(), expect = 503 }).status)
  end)

  it("returns nil, why and a code where there was no answer", function()
    receiver.answer = function() return nil end
    assert.equal("cut", call({ method = "POST", url = url(), body = "x" }).code)
    receiver.answer = function() return 200, ("x"):rep(100) end
    assert.equal("too_large", call({ method = "GET", url = url(), answer_max = 50 }).code)
    assert.equal("bad_url", call({ method = "GET", url = "nonsense" }).code)
  end)

  it("gives up after its timeout", function()
    local s = assert(socket.bind("127.0.0.1", 0)) -- takes connections and says nothing
    local _, port = s:getsockname()
    local silent = bed.host { plugins = { ["vendors/caller.lua"] = caller },
      config = ("connections = { { \"caller\", url = \"http://127.0.0.1:%d\" } }"):format(port) }
    local status, res = silent:json("POST", "/call", { method = "GET", url = "http://127.0.0.1:" .. port, timeout = "100ms" })
    assert.equal(200, status)
    assert.equal("timeout", res.code)
    silent:stop()
    s:close()
  end)

  it("follows redirects where it is asked to, and never to hosts that it may not reach", function()
    receiver.answer = function(r)
      if r.path == "/away" then return 302, "", { Location = "http://127.0.0.1:1/x" } end
      if r.path == "/near" then return 302, "", { Location = "/a" } end
      return 200, "here"
    end
    assert.equal(302, call({ method = "GET", url = url "/near" }).status)
    assert.equal("here", call({ method = "GET", url = url "/near", redirects = 2 }).body)
    assert.equal("redirect", call({ method = "GET", url = url "/away", redirects = 2 }).code)
  end)

  it("raises on misuse", function()
    local function raised(options, words)
      options.method = options.method or "GET"
      local said = call(options).raised
      assert.is_string(said, json.encode(options))
      assert.truthy(said:find(words, 1, true), said)
    end
    raised({}, "url is missing")
    raised({ url = url(), timout = 3 }, "unknown option \"timout\", did you mean \"timeout\"?")
    raised({ url = "http://evil.example/x" }, "may not reach \"evil.example:80\"")
    raised({ url = url(), headers = { a = "x\r\ny: z" } }, "line break")
    raised({ url = url(), headers = { ["a b"] = "x" } }, "no name of a header")
    raised({ url = url(), body = "x", form = { a = 1 } }, "only one of body, json and form")
    raised({ url = url(), timeout = 0 }, "more than 0 seconds")
    raised({ url = url(), expect = "200" }, "expect has to be")
    raised({ url = url(), query = { a = { b = 1 } } }, "query.a")
    raised({ url = url(), method = "get" }, "capital letters")
    assert.equal(0, #receiver.requests)
  end)

  it("is refused where it could not wait", function()
    assert.truthy(call({}, "/coroutine").raised:find("coroutine of your own", 1, true))
    assert.truthy(call({}, "/sort").raised:find("C code", 1, true))
    assert.equal(0, #receiver.requests)
  end)

  it("is refused in a rule", function()
    local rule = [[
local plugin = ...
local http = require "neap.http"
plugin:on({ metric = "m" }, function() http.get "http://127.0.0.1:1/" end)
]]
    local source = [[
local plugin = ...
plugin:serve { "POST /m", keep = false, handler = function()
  plugin:emit { device = "d", metric = "m", value = 1, at = 1600000000000 }
  return 204
end }
]]
    local h = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/asks.lua"] = rule } }
    assert.equal(204, (h:request("POST", "/m", "{}")))
    h:wait_for "a rule decides and does not wait"
    h:stop()
  end)

  it("leaves nothing behind", function()
    bed.wait("no task to be left", function()
      return host:summary().tasks == 0
    end)
  end)
end)
