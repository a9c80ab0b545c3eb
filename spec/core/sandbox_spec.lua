-- What a plugin cannot reach, and what it is told when it tries.
local bed = require "bed"
local json = require "neap.json"

-- The probe runs what it is sent; the answer is what came of it. It is let do so for this spec alone.
local probe = [[
local plugin = ...
local http, json, crypto, time, log = require "neap.http", require "neap.json", require "neap.crypto", require "neap.time", require "neap.log"
local webhooks = require "neap.webhooks"
local config = plugin:config { url = { "string", optional = true }, urls = { "array", items = { "string" }, optional = true }, other = { "object", fields = { url = { "string", optional = true } }, optional = true } }
local env = setmetatable({ plugin = plugin, http = http, json = json, crypto = crypto, time = time, log = log, webhooks = webhooks, config = config, keep = {} }, { __index = _G })
local function show(v) return type(v) == "table" and (v.code or v.status or "table") or v end
plugin:serve { "POST /probe", keep = false, handler = function(req)
  env.req = req
  local fn = assert(load(req.raw, "=probe", "t", env))
  local r = table.pack(fn())
  local t = {}
  for i = 1, r.n do t[i] = tostring(show(r[i])) end
  return 200, { results = t }
end }
]]

local rule = [[
local plugin = ...
local http = require "neap.http"
plugin:on({ metric = "http" }, function() http.get { url = "http://127.0.0.1:1/" } end)
plugin:on({ metric = "emit" }, function(r) plugin:emit { device = "x", metric = "m", value = 1 } end)
plugin:on({ metric = "device" }, function(r) plugin:device { device = "x" } end)
plugin:on({ metric = "event" }, function(r) plugin:event { device = "x", type = "alarm" } end)
plugin:on({ metric = "serve" }, function(r) plugin:serve { "GET /late", handler = print } end)
plugin:on({ metric = "store" }, function(r) plugin:log("seen", { of = tostring(plugin.store:get "mine") }) plugin.store:put("mine", "rule") end)
plugin:timer("late", function() http.get { url = "http://127.0.0.1:1/" } end)
plugin:on({ metric = "arm" }, function(r) plugin:arm("late", r.device, 0) end)
]]

local poster = [[
local plugin = ...
plugin:serve { "POST /reading", body = { metric = { "string" } }, handler = function(req) plugin:emit { device = "d", metric = req.body.metric, value = 1 } return 204 end }
]]

local receiver_file = [[
local plugin = ...
plugin:deliver { handler = function(m)
  local verbs = {}
  for _, verb in ipairs { "emit", "send", "throttle", "history" } do verbs[#verbs + 1] = verb .. ": " .. tostring(select(2, pcall(plugin[verb], plugin, "a", {}))) end
  verbs[#verbs + 1] = "store: " .. tostring(select(2, pcall(plugin.store.get, plugin.store, "mine")))
  error(table.concat(verbs, "\n"))
end }
]]

describe("the sandbox", function()
  local host, allowed, other
  setup(function()
    allowed, other = bed.receiver(), bed.receiver()
    host = bed.host {
      config = ([[lanes = 1, connections = { { "probe", name = "a", url = "http://127.0.0.1:%d/base" }, { "probe", name = "b", mount = "/b", urls = { "http://127.0.0.1:%d" }, other = { url = "HTTP://LocalHost:%d/x" } }, { "poster" } },
        rules = { { "rule" }, { "sender", to = "end" } }, destinations = { ["end"] = { "taker" } }]]):format(allowed.port, allowed.port, allowed.port),
      plugins = {
        ["vendors/probe.lua"] = probe, ["vendors/poster.lua"] = poster, ["rules/rule.lua"] = rule, ["destinations/taker.lua"] = receiver_file,
        ["rules/sender.lua"] = [[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "deliver" }, function(r) plugin:send(config.to, { title = "x" }) end)]],
        ["lib/shared.lua"] = "return { n = 1 }", ["lib/deep/er.lua"] = "return { deep = true }",
        ["vendors/requires.lua"] = [[
local plugin = ...
local results = {}
for _, name in ipairs { "io", "os", "debug", "package", "../x", "..", "lib.shared", "/etc/passwd", "deep/er", "deep\0er", "neap", "neap.task", "cjson", "socket", "vendors.probe", "probe", "" } do
  results[name] = tostring(select(2, pcall(require, name)))
end
results.shared = tostring(require("shared") == require("shared")) .. require("shared").n
results["deep.er"] = tostring(require("deep.er").deep)
results.string = tostring(require("string") == string)
plugin:serve { "GET /requires", handler = function()
  results.late = tostring(select(2, pcall(require, "other")))
  results.known = tostring(require("shared").n)
  return 200, results
end }]],
      },
    }
  end)
  teardown(function()
    allowed:close()
    other:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  -- What the code gives in the probe; polls the receivers meanwhile.
  local function run(code, path)
    local socket = require "socket"
    local s = assert(socket.connect("127.0.0.1", host.port))
    local told = #host:read()
    s:send(("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"):format(path or "/probe", #code, code))
    s:settimeout(0)
    local text = ""
    bed.wait("the probe's answer to " .. code, function()
      allowed:poll()
      other:poll()
      local bytes, why, part = s:receive(65536)
      text = text .. (bytes or part or "")
      return why == "closed"
    end)
    s:close()
    local status, body = tonumber(text:match "^HTTP/1.1 (%d+)"), text:match "\r\n\r\n(.*)$"
    if status == 200 then return json.decode(body).results end
    return nil, status, bed.wait("the log to tell of it", function() return host:read():sub(told + 1):match '"error":"(.-[^\\])"' end)
  end

  for _, name in ipairs { "io", "os", "debug", "package", "dofile", "loadfile", "string.dump", "loadstring", "setfenv", "newproxy", "module" } do
    it("has no " .. name, function() assert.same({ "nil" }, run("return " .. name)) end)
  end

  it("has the rest of Lua", function()
    assert.same({ "3", "a,b", "6", "1", "abc", "table" }, run [[return #"abc", table.concat({ "a", "b" }, ","), math.max(1, 6), utf8.len "é", ("%s"):format "abc", type(coroutine)]])
  end)

  it("loads no binary chunk", function()
    local string_dump = string.dump(function() return 1 end, true)
    local quoted = ("%q"):format(string_dump):gsub("\n", "n"):gsub("\r", "\\r"):gsub("\0", "\\0")
    for _, code in ipairs { "return load(b)", "return load(b, 'x', 'b')", "return load(b, 'x', 'bt', {})", "local i = 0 return load(function() i = i + 1 return b:sub(i, i) end, 'x', 'b')",
      "return load(function() local c = b b = nil return c end)" } do
      local r = run("local b = " .. quoted .. " " .. code)
      assert.equal("nil", r[1])
      assert.matches("binary chunk", r[2])
    end
  end)

  it("loads text, in an environment too", function()
    assert.same({ "7", "9" }, run [[return load("return 7")(), load("return x", "n", "t", { x = 9 })()]])
    assert.same({ "nil", "true" }, run [[local f, why = load("return (") return f, why ~= nil]])
  end)

  it("has no finalizers", function()
    local r = run [[return pcall(setmetatable, {}, { __gc = function() end })]]
    assert.equal("false", r[1])
    assert.matches("__gc", r[2])
    assert.same({ "0" }, run [[local m, n = {}, 0 local t = setmetatable({}, m) m.__gc = function() keep.n = 1 end t = nil for i = 1, 2e5 do local _ = {} end return keep.n or 0]])
  end)

  it("keeps a protected metatable", function()
    assert.equal("false", run([[return pcall(setmetatable, setmetatable({}, { __metatable = 1 }), {})]])[1])
    assert.same({ "true", "nil" }, run [[return pcall(function() return getmetatable(setmetatable({}, nil)) end)]])
  end)

  it("requires neap's modules and plugins/lib alone", function()
    local status, r = host:json("GET", "/requires")
    assert.equal(200, status)
    for _, name in ipairs { "io", "os", "debug", "package", "../x", "..", "lib.shared", "/etc/passwd", "deep/er", "deep\0er", "neap", "neap.task", "cjson", "socket", "vendors.probe", "probe", "" } do
      assert.is_string(r[name], name)
      assert.is_nil(r[name]:find "^table" or r[name]:find "^function" or r[name]:find "^true", name .. " gave " .. r[name])
    end
    assert.matches("neap.crypto", r["neap.task"]) -- what there is instead
    assert.equal("true1", r.shared)
    assert.equal("true", r["deep.er"])
    assert.equal("true", r.string)
    assert.matches("at its top", r.late)
    assert.equal("1", r.known)
  end)

  it("does not give the host's coroutine away", function()
    assert.same({ "true", "false" }, run [[local co, main = coroutine.running() return main, coroutine.isyieldable()]])
    assert.equal("false", run([[return pcall(coroutine.resume, (coroutine.running()))]])[1] == "true" and run([[return coroutine.resume((coroutine.running()))]])[1] or "false")
    assert.same({ "1", "2", "dead", "false", "true", "nil" }, run [[
      local co = coroutine.wrap(function() coroutine.yield(1) return 2 end)
      local a, b = co(), co()
      local c = coroutine.create(function() error "x" end)
      local _, ok = pcall(coroutine.resume, c)
      local inner
      coroutine.wrap(function() inner = coroutine.isyieldable() end)()
      return a, b, coroutine.status(c), ok, inner, nil]])
    assert.same({ "false", "probe:1: x", "false" }, run [[local co = coroutine.create(function() error "x" end) local a, b = coroutine.resume(co) return a, b, (coroutine.close(co))]])
    assert.same({ "true", "closed", "dead" }, run [[local done
      local co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function() done = "closed" end }) coroutine.yield() end)
      coroutine.resume(co) return coroutine.close(co), done, coroutine.status(co)]])
    assert.same({ "false", "h:x" }, run [[return xpcall(function() error("x", 0) end, function(m) return "h:" .. m end)]])
    assert.same({ "true", "1", "2" }, run [[return xpcall(function(...) return ... end, print, 1, 2)]])
  end)

  it("a request that is kept beyond its call is empty, and never another's", function()
    local function send(body, headers)
      return (select(2, host:request("POST", "/probe", body, headers)))
    end
    send("keep.req = req return 1", { ["x-mine"] = "first" }) -- the probe itself has looked at raw
    for _ = 1, 20 do
      local r = json.decode(send("return keep.req.headers == nil, keep.req.raw, req.headers['x-mine']", { ["x-mine"] = "second" })).results
      assert.same({ "true", "keep.req = req return 1", "second" }, r)
    end
  end)

  describe("http", function()
    local function get(url, more, path) return run(("return http.get { url = %q, timeout = 5%s }"):format(url, more or ""), path) end

    it("reaches the host that its settings name, however deep and in whatever case", function()
      assert.same({ "200" }, get(("http://127.0.0.1:%d/any/where"):format(allowed.port)))
      assert.same({ "200" }, get(("http://127.0.0.1:%d/"):format(allowed.port), nil, "/b/probe"))
      assert.same({ "200" }, get(("http://localhost:%d/"):format(allowed.port), nil, "/b/probe"))
      assert.same({ "200" }, get(("hTTp://LOCALHOST:%d"):format(allowed.port), nil, "/b/probe"))
    end)

    it("reaches no other", function()
      local p, q = allowed.port, other.port
      local before = #other.requests
      for _, url in ipairs { ("http://127.0.0.1:%d/"):format(q), "http://127.0.0.1/", ("http://localhost:%d/"):format(p), ("http://127.0.0.1:%d@127.0.0.1:%d/"):format(p, q),
        ("http://127.0.0.1@127.0.0.1:%d/"):format(q), ("http://127.0.0.1:%d#@127.0.0.1:%d/"):format(q, p), ("http://127.0.0.1:%d\\@127.0.0.1:%d/"):format(p, q),
        ("http://127.0.0.1:%d?@127.0.0.1:%d/"):format(q, p), ("http://[::1]:%d/"):format(p), ("https://127.0.0.1:%d/"):format(q), "file:///etc/passwd", ("ftp://127.0.0.1:%d/"):format(p),
        ("gopher://127.0.0.1:%d/"):format(p), ("http://2130706433:%d/"):format(q), ("http://127.1:%d/"):format(q), ("//127.0.0.1:%d/"):format(q), ("http:127.0.0.1:%d"):format(q), ("http:/127.0.0.1:%d/"):format(q),
        ("http://127.0.0.1:%d\n/"):format(q), (" http://127.0.0.1:%d/"):format(q), "" } do
        local r, status, why = get(url)
        if r then assert.equal("nil", r[1], url .. " was answered") -- a malformed URL is the world's fault
        else
          assert.equal(500, status, url)
          assert.matches("may not reach", why or "", 1, true)
          assert.matches("let a setting hold the address", why, 1, true)
        end
      end
      assert.equal(before, #other.requests)
    end)

    it("is not led to another by a redirect", function()
      allowed.answer = function(r)
        if r.path == "/away" then return 302, "", { location = ("http://127.0.0.1:%d/stolen"):format(other.port) } end
        if r.path == "/here" then return 302, "", { location = "/landed" } end
        return 200, "ok"
      end
      local before = #other.requests
      local url = ("http://127.0.0.1:%d"):format(allowed.port)
      assert.same({ "302" }, get(url .. "/away")) -- off unless asked for
      local r = get(url .. "/away", ", redirects = 5")
      assert.equal("nil", r[1])
      assert.equal(before, #other.requests)
      assert.same({ "200" }, get(url .. "/here", ", redirects = 5"))
    end)

    it("waits for nobody in a coroutine of the plugin's own or under C", function()
      local url = ("http://127.0.0.1:%d"):format(allowed.port)
      for code, why in pairs {
        ["return pcall(coroutine.wrap(function() return http.get { url = %q } end))"] = "http: not inside a coroutine of your own: call it from the handler itself",
        ["return pcall(table.sort, { 1, 2, 3 }, function() return http.get { url = %q } end)"] = "http: not inside a function that C code calls",
        ["return pcall(string.gsub, 'x', 'x', function() return http.get { url = %q } end)"] = "http: not inside a function that C code calls" } do
        local r = run(code:format(url))
        assert.equal("false", r[1])
        assert.matches(why, r[2], 1, true)
      end
      assert.equal(0, host:summary().tasks)
    end)

    it("waits inside pcall and xpcall", function()
      local url = ("http://127.0.0.1:%d"):format(allowed.port)
      assert.same({ "true", "200" }, run(("return pcall(http.get, { url = %q })"):format(url)))
      assert.same({ "true", "200" }, run(("return xpcall(http.get, print, { url = %q })"):format(url)))
    end)
  end)

  describe("a verb in the wrong place says why, and what to do instead:", function()
    for metric, cure in pairs { http = "plugin:send to a destination", emit = "say plugin:derives \"m\" while the file is loaded", device = "comes from a vendor plugin", event = "events come from a vendor plugin",
      serve = "call it while the file is loaded" } do
      it(metric .. " in a rule", function()
        assert.equal(204, (host:request("POST", "/reading", { metric = metric })))
        local held = bed.wait("it to be held", function()
          return host:sql(("select h.error, h.generation from held h join readings r on r.seq = h.reading where r.metric = '%s'"):format(metric))[1]
        end)
        assert.matches(cure, held.error, 1, true)
        assert.matches("rules/rule.lua:%d+:", held.error)
      end)
    end

    it("http in a rule's timer", function()
      assert.equal(204, (host:request("POST", "/reading", { metric = "arm" })))
      local held = bed.wait("it to be held", function() return host:sql("select * from held where name = 'late'")[1] end)
      assert.matches("plugin:send to a destination", held.error, 1, true)
    end)

    for verb, cure in pairs { ["send('end', {})"] = "a rule sends", ["arm('x', 'y', 1)"] = "timers are a rule's", ["throttle('x', 1)"] = "it is for rules", ["on({}, print)"] = "while the file is loaded",
      ["every(1, 'x', print)"] = "while the file is loaded", ["timer('x', print)"] = "while the file is loaded", ["deliver({})"] = "while the file is loaded", ["config({})"] = "while the file is loaded",
      ["refuse(print)"] = "while the file is loaded", ["emitt({})"] = "did you mean \\\"emit\\\"" } do
      it(verb .. " in a vendor's handler", function()
        local r = run("return select(2, pcall(function() plugin:" .. verb .. " end))")
        assert.matches((cure:gsub("\\", "")), r[1], 1, true)
      end)
    end

    it("everything in a destination", function()
      assert.equal(204, (host:request("POST", "/reading", { metric = "deliver" })))
      local row = bed.wait("the failed delivery", function() return host:sql("select error from outbox where error is not null")[1] end)
      for _, verb in ipairs { "emit", "send", "throttle", "history", "store" } do assert.matches(verb .. ": [^\n]*does not belong in a delivery", row.error) end
    end)
  end)

  it("another instance's store is not to be seen", function()
    assert.same({ "nil" }, run [[local before = plugin.store:get "mine" plugin.store:put("mine", "a") return before]])
    assert.same({ "nil" }, run([[local before = plugin.store:get "mine" plugin.store:put("mine", "b") return before]], "/b/probe"))
    assert.same({ "a" }, run [[return plugin.store:get "mine"]])
    assert.same({ "nil", "nil" }, run [[return plugin.store:get "b:mine", plugin.store:get "plugin:b"]])
    assert.equal(204, (host:request("POST", "/reading", { metric = "store" })))
    bed.wait("the rule", function() return host:sql("select * from kv where space = 'plugin:rule' and key = 'mine'")[1] end)
    host:wait_text '"of":"nil"'
    assert.same({ "b" }, run([[return plugin.store:get "mine"]], "/b/probe"))
  end)

  it("instances share no globals", function()
    run [[rawset(_G, "leak", 1) string.leak = 1 return 1]]
    assert.same({ "1" }, run [[return leak]])
    assert.same({ "nil", "nil" }, run([[return leak, string.leak]], "/b/probe"))
  end)
end)
