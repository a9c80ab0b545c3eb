-- Attempts to get out of the sandbox, or to take the host along: each is made in the real program, which has to refuse it and to go on.
local bed = require "bed"
local json = require "neap.json"
local probe = require "probe"
local process = require "process"

local function joined(results, why) return results and table.concat(results, " ") or why end

-- A name that leads to loopback and does not say so: each system has one, its own or the one for IPv6.
local function name_of_loopback()
  for line in bed.read "/etc/hosts":gmatch "[^\n]+" do
    local address, names = line:match "^%s*([%x.:]+)%s+([^#]*)"
    if address and (address:find "^127%." or address == "::1") then
      for name in names:gmatch "%S+" do if not name:find "localhost$" then return name end end
    end
  end
  return "ip6-localhost"
end

describe("out of the sandbox", function()
  local host, allowed, other
  setup(function()
    allowed, other = bed.receiver(), bed.receiver()
    local limits = [[limits = { memory = "32MiB", instructions = 20000000, running = "300ms", coroutines = 20000 }]]
    host = probe.host(([[{ "probe", name = "a", url = "http://127.0.0.1:%d/base", key = "a-secret-of-a-4711", %s },
      { "probe", name = "b", mount = "/b", key = "b-secret-of-b-0815", people = true, %s }, { "probe", name = "spoilt", mount = "/spoilt", %s },
      { "probe", name = "hasty", mount = "/hasty", url = "http://127.0.0.1:1", limits = { running = "50ms" } }, { "probe", name = "named", mount = "/named", url = "http://%s:%d", %s }, { "modes" }]]):format(allowed.port, limits, limits, limits, name_of_loopback(), other.port, limits), {
        env = { "http_proxy=http://127.0.0.1:" .. other.port, "HTTPS_PROXY=http://127.0.0.1:" .. other.port, "ALL_PROXY=http://127.0.0.1:" .. other.port },
        plugins = { ["vendors/modes.lua"] = [[
local plugin = ...
local late, registers = nil, coroutine.create(function() plugin:every("1h", "late", function() end) end)
local emits = function() plugin:emit { device = "of-modes", metric = "m", value = 1 } end
plugin:refuse(function() local ok, why = coroutine.resume(late) return 400, { said = tostring(why) } end)
plugin:serve { "GET /modes/make", handler = function() late = coroutine.create(function() while true do emits() coroutine.yield() end end) return 204 end }
plugin:serve { "GET /modes/again", handler = function() local ok, why = coroutine.resume(late) return 200, { ok = ok, said = tostring(why) } end }
plugin:serve { "GET /modes/stream", handler = function()
  local n = 0
  return 200, function() n = n + 1 if n == 1 then return tostring(select(2, coroutine.resume(late))) end end
end }
plugin:serve { "GET /modes/refused", query = { x = { "string" } }, handler = function() end }
plugin:serve { "GET /modes/registers", handler = function() return 200, { said = tostring(select(2, coroutine.resume(registers))) } end }
plugin:serve { "GET /modes/header", handler = function() return 200, "x", { ["x-a"] = "1\r\nx-b: 2" } end }
plugin:serve { "GET /modes/name", handler = function() return 200, "x", { ["x-a: 1\r\nx-b"] = "2" } end }
]] },
      })
  end)
  teardown(function()
    allowed:close()
    other:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  local function run(code, path)
    return probe.run(host, code, path, function()
      allowed:poll()
      other:poll()
    end)
  end
  local function said(code, path) return joined(run(code, path)) end
  local function goes_on(path) assert.equal("here", (select(2, host:request("GET", (path or "") .. "/here")))) end

  describe("bytecode:", function()
    local dumped = string.dump(function() return io end, true)
    local quoted = ("%q"):format(dumped):gsub("\n", "n"):gsub("\r", "\\r"):gsub("\0", "\\0")
    for _, call in ipairs { "load(b)", "load(b, 'x', 'b')", "load(b, 'x', 'bt')", "load(b, 'x', 'tb', {})", "load(b, nil, nil, nil)", "load(b:gsub('', ''))", "load((function() local n = 0 return function() n = n + 1 return b:sub(n, n) end end)())",
      "load((function() local c = { b:sub(1, 1), b:sub(2) } return function() return table.remove(c, 1) end end)())" } do
      it(call, function() assert.matches("^nil ", said(("local b = %s return %s"):format(quoted, call))) end)
    end
    it("has nothing that makes it", function() assert.equal("nil nil nil", said "return string.dump, ('').dump, require 'string' and getmetatable('').__index.dump") end)
  end)

  describe("environments:", function()
    it("a loaded text has what its maker has", function() assert.equal("nil nil nil", said "return load('return io, os, debug')()") end)
    it("nil is an environment", function() assert.matches("index a nil value", said "return pcall(load('return x', 'n', 't', nil))") end)
    it("_ENV is a variable", function()
      assert.equal("false 7", said "local ok = pcall(function() local _ENV <const> = 1 x = 1 end) local _ENV = { y = 7 } return ok, y")
      assert.matches("^false ", said "return pcall(load 'local _ENV <const> = 1 return x.y.z')")
    end)
    it("the host's functions have none", function() assert.equal("nil nil", said "return getfenv, setfenv") end)
    it("_G is only the plugin's own", function()
      assert.equal("1", said("setmetatable(_G, { __index = function(_, k) return k == 'x' and 1 or nil end }) return x", "/spoilt/probe"))
      assert.equal("nil", said "return x")
      goes_on "/spoilt"
    end)
  end)

  describe("the metatable of texts, changed,", function()
    it("does not touch the host's code", function()
      said([[for k in pairs(string) do string[k] = function() return "spoilt" end end getmetatable("").__index = function() return "spoilt" end
        getmetatable("").__name = "spoilt" getmetatable("").__len = function() return 0 end return 1]], "/spoilt/probe")
      local why = select(2, run("plugin:serve { 'nonsense' }", "/spoilt/probe"))
      assert.matches("plugin:serve registers: call it while the file is loaded", why, 1, true)
      why = select(2, run("plugin:emitt {}", "/spoilt/probe"))
      assert.matches('did you mean', why, 1, true)
      goes_on "/spoilt"
    end)
    it("does not touch another instance", function() assert.equal("ABC 3", said("return ('abc'):upper(), ('abc'):len()", "/b/probe")) end)
  end)

  describe("what raises, yields, loops or recurses in a metamethod and is handed to", function()
    local kinds = { raises = "error('metamethod', 0)", raises_itself = "error(t)", yields = "coroutine.yield(1)", loops = "while true do end", recurses = "return tostring(t) .. #t .. t.x" }
    local calls = {
      "plugin:emit(t)", "plugin:emit { device = t, metric = 'm', value = 1 }", "plugin:emit { device = 'd', metric = 'm', value = 1, extra = t }", "plugin:emit { device = 'd', metric = 'm', value = 1, at = t }", "plugin:device(t)",
      "plugin:device { device = 'd', extra = t }", "plugin:event(t)", "plugin:event { device = 'd', type = 'alarm', data = t }", "plugin.store:put('k', t)", "plugin.store:put('k', { t })", "plugin.store:put(t, 1)", "plugin.store:get(t)",
      "plugin.store:put('k', 1, t)", "plugin.store:list('', t)", "plugin.store:list(t)", "plugin.data:devices(t)", "plugin.data:devices { device = t }", "plugin.data:readings(t)", "plugin.data:events(t)", "plugin.data:latest(t)",
      "plugin.data:count('devices', t)", "plugin:history('d', 'm', t)", "plugin.people:keep('p', t)", "plugin.people:keep(t, {})", "plugin.people:details(t)", "json.encode(t)", "json.encode { t }", "json.try_encode(t)", "json.array(t)", "json.is_array(t)",
      "json.raw(t)", "json.decode(t)", "http.get(t)", "http.get { url = t }", "http.get { url = config.url, query = t }", "http.get { url = config.url, headers = t }", "http.get { url = config.url, headers = { a = t } }", "http.post { url = config.url, form = t }",
      "http.post { url = config.url, json = t }", "http.get { url = config.url, expect = t }", "http.get { url = config.url, timeout = t }", "http.get { url = config.url, basic = t }", "log.info('x', t)", "log.info(t)", "log.info('x', { a = t })", "print(t)",
      "plugin:log('x', t)", "crypto.rsa.sign('k', 't', t)", "crypto.rsa.encrypt('k', 't', t)", "crypto.jwt.sign(t, 'k', { algorithm = 'HS256' })", "crypto.jwt.sign({}, 'k', t)", "crypto.jwt.sign({}, 'k', { algorithm = 'HS256', header = t })",
      "crypto.jwt.verify('a.b.c', 'k', t)", "crypto.sha256(t)", "crypto.equal(t, t)", "webhooks.sign(nil, t)", "webhooks.verify('k', t, 'b')", "webhooks.verify('0123456789abcdef', { ['webhook-id'] = t }, 'b', t)", "time.from_parts(t)", "time.from_parts { year = t }",
      "time.parse(t)", "time.format(t)", "time.duration(t)", "account:token(t)", "account:expired(t)", "budget:take(t)", "tostring(t)", "table.concat(t)", "table.concat { t }", "table.unpack(t)", "table.insert(t, 1)", "table.remove(t)", "table.move(t, 1, 3, 2)",
      "table.sort(t)", "table.sort { t, t, t }", "table.pack(table.unpack(t, 1, 3))", "string.format('%s', t)", "string.rep('x', t)", "('x'):gsub('x', t)", "('x'):gsub('x', function() return t end)", "load(t)", "load('return 1', t)", "load(function() return t end)",
      "require(t)", "setmetatable({}, t)", "next(t)", "ipairs(t)(t, 0)", "pairs(t)", "error(t)", "assert(false, t)", "pcall(error, t)", "xpcall(error, function() return #t end, t)", "coroutine.wrap(function() error(t) end)()", "coroutine.close(coroutine.create(function() end), t)",
      "collectgarbage(t)", "rawlen(t)", "select('#', t)", "select(t)", "tonumber(t)", "utf8.char(t)", "math.max(t, t)",
    }
    local prelude = [[
      local t, f = {}
      f = function() %s end
      setmetatable(t, { __index = f, __newindex = f, __len = f, __pairs = f, __tostring = f, __call = f, __eq = f, __lt = f, __le = f, __concat = f, __close = f, __unm = f, __mode = "kv", __name = {} })
      local results = table.pack(pcall(function() return %s end))
      for i = 1, results.n do results[i] = type(results[i]) == "string" and results[i] or type(results[i]) end
      return table.unpack(results, 1, results.n)]]
    for _, call in ipairs(calls) do
      it(call, function()
        for kind, body in pairs(kinds) do
          local results, why = run(prelude:format(body, call), "/hasty/probe")
          assert.is_string(joined(results, why), kind)
          if not results then assert.truthy(why:find("budget", 1, true) or why:find("yield", 1, true), kind .. ": " .. why) end
        end
        goes_on "/hasty"
      end)
    end
    for _, answer in ipairs { "200, t", "t", "200, 'x', t", "200, 'x', { a = t }", "nil, t, t, t", "200, function() return t end", "t, t, t, t" } do
      it("the answer " .. answer, function()
        for _, body in pairs(kinds) do
          host:request("POST", "/hasty/probe", ([[
            local t, f = {}
            f = function() %s end
            setmetatable(t, { __index = f, __len = f, __pairs = f, __tostring = f, __call = f, __name = {} })
            return %s]]):format(body, answer))
        end
        goes_on "/hasty"
      end)
    end
  end)

  describe("coroutines:", function()
    it("one that outlives its call acts for the call that resumes it, and only as that may", function()
      assert.equal(204, (host:request("GET", "/modes/make")))
      local status, answer = host:json("GET", "/modes/again")
      assert.same({ 200, true }, { status, answer.ok })
      bed.wait("the reading", function() return host:sql("select count(*) n from readings where device = 'of-modes'")[1].n == 1 end)
      assert.matches("does not belong in a streamed answer", (select(2, host:request("GET", "/modes/stream"))))
      host:request("GET", "/modes/make")
      assert.matches("does not belong in a refusal", select(2, host:json("GET", "/modes/refused")).said)
      assert.equal(1, host:sql("select count(*) n from readings where device = 'of-modes'")[1].n)
    end)
    it("one that was made while the file was loaded registers nothing later", function()
      assert.matches("call it while the file is loaded", select(2, host:json("GET", "/modes/registers")).said)
    end)
    it("cannot yield across C", function()
      assert.matches("attempt to yield across a C%-call boundary", said "return select(2, coroutine.resume(coroutine.create(function() table.sort({ 3, 2, 1 }, coroutine.yield) end)))")
      assert.matches("attempt to yield across a C%-call boundary", said "return select(2, coroutine.resume(coroutine.create(function() ('x'):gsub('x', coroutine.yield) end)))")
      assert.matches("attempt to yield across a C%-call boundary", said "return select(2, coroutine.wrap(function() return load(coroutine.yield) end)())")
    end)
    it("cannot resume or close themselves, or those around them", function()
      assert.matches("cannot resume non%-suspended coroutine", said "local co co = coroutine.create(function() return select(2, coroutine.resume(co)) end) return select(2, coroutine.resume(co))")
      assert.matches("cannot close a running coroutine", said "local co co = coroutine.create(function() coroutine.close(co) end) return select(2, coroutine.resume(co))")
      assert.matches("cannot close a normal coroutine", said "local co co = coroutine.create(function() return coroutine.wrap(function() coroutine.close(co) end)() end) return select(2, coroutine.resume(co))")
      assert.matches("cannot close a running coroutine", said "return select(2, pcall(coroutine.close, (coroutine.running())))")
      assert.matches("cannot resume non%-suspended coroutine", said "return select(2, coroutine.resume((coroutine.running()), print))")
      assert.equal("running", said "return coroutine.status((coroutine.running()))")
      assert.equal("normal false", said "local main = coroutine.running() return coroutine.wrap(function() return coroutine.status(main), (pcall(coroutine.close, main)) end)()")
    end)
    it("closed within each other by the thousand", function()
      assert.equal("true", said [[local co = coroutine.create(function() end)
        for i = 1, 1000 do
          local inner = co
          co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function() coroutine.close(inner) end }) coroutine.yield() end)
          coroutine.resume(co)
        end
        return coroutine.close(co)]])
      goes_on()
    end)
    it("ended by an error within each other by thousands", function()
      assert.is_string(said [[local co = function() error "x" end
        for i = 1, 1000 do
          local inner = co
          co = coroutine.wrap(function() local x <close> = setmetatable({}, { __close = function() inner() end }) error "y" end)
        end
        return pcall(co)]])
      goes_on()
    end)
    it("resumed within each other by thousands", function()
      assert.matches("C stack overflow", said "local function f() local ok, why = coroutine.resume(coroutine.create(f)) if not ok then error(why, 0) end end return pcall(f)")
    end)
  end)

  describe("an error that is", function()
    for name, object in pairs { ["a number"] = "4711", ["nil"] = "nil", ["a function"] = "print", ["a coroutine"] = "coroutine.create(print)", ["json.null"] = "json.null", ["an account"] = "account", ["the handle"] = "plugin", ["the request"] = "req",
      ["a text of 10 MB"] = "('x'):rep(10 << 20)", ["a table that loops"] = "(function() local t = {} t.t = t return t end)()" } do
      it(name, function()
        for _, how in ipairs { "error(%s)", "error(%s, 0)", "error(%s, 100)", "coroutine.wrap(function() error(%s) end)()", "local x <close> = setmetatable({}, { __close = function() error(%s) end })", "return pcall(error, %s)", "return xpcall(error, function(e) error(e) end, %s)",
          "return assert(false, %s)", "return setmetatable({}, { __index = function() error(%s) end }).x" } do
          assert.is_string(said(how:format(object)))
        end
        goes_on()
      end)
    end
  end)

  describe("an object of another kind as self:", function()
    for _, call in ipairs { "account.token(budget)", "account.expired(budget, {})", "budget.take(account)", "account.token {}", "account.token()", "account.token(json.null)", "budget.take(json.null)", "budget.take(coroutine.create(print))", "account.token(setmetatable({}, { __index = account, __name = 'neap.account' }))",
      "budget.take(plugin)", "account.expired(account, {})", "account.expired(account, account)", "account.token(plugin.store)", "account.token(req)", "account.x.y", "rawset(account, 'token', 1)", "setmetatable(account, {})", "rawget(account, 'token')" } do
      it(call, function()
        assert.matches("^false ", said(("return pcall(function() return %s end)"):format(call)))
        goes_on()
      end)
    end
  end)

  describe("what is another's:", function()
    it("the store, whatever the plugin calls itself", function()
      said("plugin.store:put('mine', 'of b') return 1", "/b/probe")
      assert.equal("nil", said "return plugin.store:get 'mine'")
      assert.equal("nil nil nil 0", said "rawset(plugin, 'name', 'b') return plugin.store:get 'mine', plugin.store:get 'plugin:b\\nmine', plugin.store.get({ name = 'b' }, 'mine'), #plugin.store:list 'm'")
      said "rawset(plugin, 'name', 'a') return 1"
      assert.matches("zero byte", said "return pcall(plugin.store.get, plugin.store, '\\0mine')")
      assert.matches("zero byte", said "return pcall(plugin.store.put, plugin.store, 'x\\0plugin:b\\0mine', 1)")
      assert.equal("of b", said("return plugin.store:get 'mine'", "/b/probe"))
    end)
    it("settings and secrets", function()
      assert.equal("nil", said "return config.other")
      local log = host:read()
      assert.matches("%*%*%*", select(2, run "error('the key is ' .. config.key)"))
      said "print(config.key) log.warn('k', { k = config.key, t = { config.key } }) plugin:log(config.key) return 1"
      said("print(config.key) return 1", "/b/probe")
      host:wait_text '"event":"***"'
      assert.is_nil(host:read():sub(#log):find("secret-of", 1, true))
    end)
    it("people", function()
      local ref = said("return plugin.people:keep('p-1', { name = 'Ada' })", "/b/probe")
      assert.matches("^p_", ref)
      assert.equal("Ada", said(("return plugin.people:details(%q).name"):format(ref), "/b/probe"))
      assert.matches("may not read details", said(("return plugin.people:details(%q)"):format(ref)))
      assert.matches("another connection has kept", said(("return plugin.people:forget(%q)"):format(ref)))
      assert.matches("does not show \"b\"", said "return pcall(plugin.people.reference, plugin.people, 'p-1', 'b')")
      assert.is_true(said "return plugin.people:reference 'p-1'" ~= ref)
    end)
    it("devices, readings and events", function()
      said("plugin:device { device = 'of-b', name = 'B' } plugin:emit { device = 'of-b', metric = 'm', value = 1 } plugin:event { device = 'of-b', type = 'alarm' } return 1", "/b/probe")
      assert.equal("1 1 1", said("return #plugin.data:devices { device = 'of-b' }, #plugin.data:latest 'of-b', #plugin.data:events { device = 'of-b' }", "/b/probe"))
      assert.equal("0 0 0 nil 0", said "return #plugin.data:devices { device = 'of-b' }, #plugin.data:latest 'of-b', #plugin.data:events { device = 'of-b' }, plugin.data:device 'of-b', #plugin.data:readings { device = 'of-b' }")
      assert.equal("0", said "return #plugin.data:readings { device = 'of-b', connection = 'b' }" :match "^0$" or said "return #plugin.data:devices { connection = 'b' }")
      assert.matches("no device", said "return pcall(plugin.event, plugin, { device = 'of-b', vendor = 'poster', type = 'alarm' })")
      assert.matches("unknown field", said "return pcall(plugin.emit, plugin, { device = 'of-b', metric = 'm', value = 1, connection = 'b' })")
      assert.matches("unknown field", said "return pcall(plugin.emit, plugin, { device = 'of-b', metric = 'm', value = 1, vendor = 'other' })")
    end)
    it("accounts", function()
      assert.equal("token-of-b", said("return account:token().access", "/b/probe"))
      assert.equal("token-of-a", said "return account:token().access")
      assert.matches("no copy of it", said "local t = account:token() return pcall(account.expired, account, { access = t.access })")
    end)
  end)

  describe("hosts:", function()
    local function refused(url)
      local before = #other.requests
      local text = said(("local res, why, code = http.get { url = %s, timeout = 2 } return res and 'ANSWERED', why, code"):format(url))
      assert.is_nil(text:find("ANSWERED", 1, true), url .. " was answered")
      assert.truthy(text:find("may not reach", 1, true) or text:find("bad_url", 1, true) or text:find("zero byte", 1, true), url .. ": " .. text)
      assert.equal(before, #other.requests)
    end
    for _, address in ipairs { "127.0.0.1:OTHER", "127.0.0.1:OTHER/?@127.0.0.1:ALLOWED", "127.0.0.1:ALLOWED@127.0.0.1:OTHER", "127.0.0.1%3AALLOWED@127.0.0.1:OTHER", "[::ffff:127.0.0.1]:ALLOWED", "[::ffff:7f00:1]:OTHER", "[::1]:OTHER", "[::]:OTHER", "[fe80::1%25lo]:OTHER",
      "0.0.0.0:ALLOWED", "0:OTHER", "2130706433:OTHER", "0x7f000001:OTHER", "0177.0.0.1:OTHER", "127.1:OTHER", "017700000001:OTHER", "127.0.0.1.:OTHER", "127.0.0.1:0OTHER", "127.0.0.1:+OTHER", "localhost:OTHER", "LOCALHOST:ALLOWED", "localhost.:ALLOWED", "ip6-localhost:ALLOWED",
      "127.0.0.%31:OTHER", "１２７.0.0.1:OTHER", "127。0。0。1:OTHER", "169.254.169.254", "metadata.google.internal", "127.0.0.1:OTHER#@127.0.0.1:ALLOWED", "127.0.0.1:ALLOWED\\t.example:OTHER", "127.0.0.1:OTHER\\r\\nx: y", "127.0.0.1:ALLOWED\\0:OTHER" } do
      it(address, function() refused(('"http://%s/"'):format(address:gsub("OTHER", other.port):gsub("ALLOWED", allowed.port))) end)
    end
    for _, url in ipairs { "file:///etc/passwd", "file://127.0.0.1/etc/passwd", "gopher://127.0.0.1:ALLOWED/", "dict://127.0.0.1:ALLOWED/", "ftp://127.0.0.1:ALLOWED/", "ldap://127.0.0.1:ALLOWED/", "telnet://127.0.0.1:ALLOWED/", "smb://127.0.0.1:ALLOWED/", "tftp://127.0.0.1:ALLOWED/",
      "imap://127.0.0.1:ALLOWED/", "ws://127.0.0.1:ALLOWED/", "unix:///tmp/x", "http+unix://x", "/etc/passwd", "", " " } do
      it(url, function() refused(("%q"):format((url:gsub("ALLOWED", allowed.port)))) end)
    end
    it("a name that leads to loopback is not asked, though it is the one that the settings have", function()
      assert.matches("near", said("local _, why, code = http.get(config.url) return why, code", "/named/probe"))
      assert.equal(0, #other.requests)
    end)
    it("a redirect to another host, port or scheme", function()
      local to
      allowed.answer = function(r) if r.path == "/base" then return 302, "", { location = to } end return 200, "landed" end
      for _, place in ipairs { ("http://127.0.0.1:%d/"):format(other.port), ("//127.0.0.1:%d/"):format(other.port), ("http://localhost:%d/"):format(allowed.port), ("http://ip6-localhost:%d/"):format(other.port), ("https://127.0.0.1:%d/"):format(other.port),
        ("http://[::1]:%d/"):format(allowed.port), "file:///etc/passwd", ("gopher://127.0.0.1:%d/"):format(allowed.port), ("http://127.0.0.1:%d@127.0.0.1:%d/"):format(allowed.port, other.port), "http://169.254.169.254/latest/" } do
        to = place
        assert.matches("redirect$", said "local _, why, code = http.get { url = config.url, redirects = 5 } return why, code")
      end
      to = "/landed"
      assert.equal("landed", said "return http.get({ url = config.url, redirects = 5 }).body")
      assert.equal(0, #other.requests)
    end)
    it("proxies of the environment are not asked", function()
      allowed.answer = function() return 200, "straight" end
      assert.equal("straight", said "return http.get(config.url).body")
      assert.equal(0, #other.requests)
    end)
    it("headers that would make one request two", function()
      local before = #allowed.requests
      said "return http.post { url = config.url, body = 'GET /smuggled HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n', headers = { ['content-length'] = '0', ['Transfer-Encoding'] = 'chunked', connection = 'close', ['Expect'] = '100-continue' } }"
      assert.equal(before + 1, #allowed.requests)
      local r = allowed.requests[#allowed.requests]
      assert.equal(#"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", tonumber(r.headers["content-length"]))
      assert.is_nil(r.headers["transfer-encoding"])
      assert.matches("line break", said "return pcall(http.get, { url = config.url, headers = { a = 'b\\r\\nContent-Length: 0' } })")
      assert.matches("no name of a header", said "return pcall(http.get, { url = config.url, headers = { ['a\\r\\nb'] = 'c' } })")
      for _, method in ipairs { "CONNECT", "GET /x HTTP/1.1\\r\\n", "get", "", "GET\\0" } do
        assert.matches("method", said(("return pcall(http.request, { method = '%s', url = config.url })"):format(method)))
      end
    end)
  end)

  describe("files and the rest of the system:", function()
    for _, name in ipairs { "io", "os", "debug", "package", "package.loaded", "ffi", "jit", "../secret", "..", "../../etc/passwd", "/etc/passwd", "./probe", "vendors/probe", "lib.x", "neap.http\\0", "\\0", "string\\0x", "neap", "neap.", "neap.test", "cjson", "" } do
      it("require of " .. name, function() assert.matches("^false ", said(("return pcall(require, '%s')"):format(name))) end)
    end
    it("zones are none", function()
      for _, zone in ipairs { "../../../etc/passwd", "/etc/passwd", "Europe/../../../../etc/passwd", "Europe//Berlin", "Europe\\0/Berlin", ".", "", "posixrules/" } do
        assert.matches("^nil ", said(("return time.zone '%s'"):format(zone)))
      end
    end)
    it("the collector only counts", function()
      for _, option in ipairs { "collect", "stop", "restart", "step", "isrunning", "generational", "incremental", "setpause", "" } do
        assert.matches("^false ", said(("return pcall(collectgarbage, '%s')"):format(option)))
      end
      assert.equal("number", said "return type(collectgarbage 'count')")
    end)
    it("a line of the log is one line", function()
      local before = #host:read()
      said [[print('x\n{"level":"error","event":"forged"}') log.info('y\r\n{"event":"forged"}', { a = 'z\n{"event":"forged"}' }) log.info('\27[2J') plugin:log(('x'):rep(1 << 20)) return 1]]
      host:wait_text "xxxxxxxxxx"
      for line in host:read():sub(before + 1):gmatch "[^\n]+" do
        local l = json.decode(line)
        assert.is_true(type(l) == "table" and l.event ~= "forged", line:sub(1, 200))
        assert.is_nil(line:find("\27", 1, true))
      end
      assert.matches("name of a field", said "return pcall(log.info, 'x', { ['a\\n'] = 1 })")
    end)
    it("an answer's header is one header", function()
      for _, path in ipairs { "/modes/header", "/modes/name" } do
        local _, _, headers = host:request("GET", path)
        assert.is_nil(headers["x-b"])
      end
      goes_on()
    end)
  end)
end)

-- What a file does while it is loaded; the program looks at it and lives.
local files = {
  { "string.match gives tables", [[string.match = function() return {} end plugin:serve { "GET /x", handler = function() end }]] },
  { "every function of string is another", [[for k in pairs(string) do string[k] = function() return {} end end getmetatable("").__index = nil plugin:every("1m", "x", function() end)]] },
  { "error does nothing", [[error = function() end plugin:serve { 1, handler = 1 }]], "expected \"METHOD /path\" first" },
  { "error and pcall do nothing, and a job has no name", [[error, pcall, assert = function() end, function() end, function() end plugin:every("1m", {}, function() end)]], "expected a period, a name" },
  { "ipairs, pairs and type are others", [[ipairs, pairs, type, tostring = error, error, function() return "table" end, function() return {} end plugin:timer("t", function() end) plugin:timer("t", function() end)]], "two timers are named" },
  { "table's functions are others", [[for k in pairs(table) do table[k] = function() return nil end end plugin:every("1m", "x", function() end)]] },
  { "a number is raised when memory is used up", "keep = {} pcall(function() while true do keep = { keep } end end) error(1234567.5)", "x.lua" },
  { "a table is raised when memory is used up", "keep = {} pcall(function() while true do keep = { keep } end end) error({})", "x.lua" },
  { "memory is used up", "local t = {} while true do t[#t + 1] = {} end", "memory" },
  { "a table that raises as text is raised", "error(setmetatable({}, { __tostring = function() error 'x' end }))", "not a message" },
  { "a schema holds itself", "local s = { 'object', fields = {} } s.fields.a = s plugin:config { x = s }", "more than 16 deep" },
  { "a schema is an array of itself", "local s = { 'array' } s.items = s plugin:config { x = s }", "more than 16 deep" },
  { "a default is nested", "local d = {} for _ = 1, 200000 do d = { d } end plugin:config { x = { 'any', default = d } }", "nested too deeply" },
  { "a default holds itself", "local d = {} d.d = d plugin:config { x = { 'any', default = d } }", "nested too deeply" },
  { "a filter holds itself", "local d = {} d.d = d plugin:on({ metric = d }, print)", "x.lua" },
  { "a filter is nested", "local d = {} for _ = 1, 200000 do d = { d } end plugin:on({ metric = d }, print)", "x.lua" },
  { "options have metatables that loop", "plugin:serve(setmetatable({}, { __index = function() while true do end end }))", "budget" },
  { "pairs of the options never ends", "plugin:serve(setmetatable({ 'GET /x', handler = print }, { __pairs = function() return function() return 1, 1 end end }))", "budget" },
  { "it yields", "coroutine.yield()", "yield" },
  { "it has 2,000 routes", [[for i = 1, 2000 do plugin:serve { "GET /" .. i, handler = print } end]] },
  { "names are long", [[plugin:every("1m", ("x"):rep(1 << 20), print)]] },
  { "names have zero bytes", [[plugin:every("1m", "a\0b", print) plugin:every("1m", "a\0c", print)]] },
  { "it takes minutes to compile", nil, "budget" },
  { "it is nested a thousand deep", ("do "):rep(1000) .. ("end "):rep(1000), "x.lua" },
  { "it is no text", "\27Lua", "x.lua" },
  { "coroutines close each other", [[local co = coroutine.create(function() end) for _ = 1, 990 do local inner = co
    co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function() coroutine.close(inner) end }) coroutine.yield() end) coroutine.resume(co) end coroutine.close(co)]], "registers nothing" },
  { "the globals have a metatable that raises", [[setmetatable(_G, { __index = function() error "no" end, __newindex = error }) plugin:every("1m", "x", function() end)]] },
  { "the main coroutine is closed", [[coroutine.close((coroutine.running())) for _ = 1, 1e6 do local _ = {} end]], "cannot close a running coroutine" },
  { "the main coroutine is closed by another", [[local main = coroutine.running() coroutine.wrap(function() pcall(coroutine.close, main) for _ = 1, 1e6 do local _ = {} end end)() plugin:every("1m", "x", print)]] },
  { "the main coroutine is resumed", [[print(coroutine.resume((coroutine.running()), 1)) coroutine.wrap(function(main) print(coroutine.resume(main)) end)((coroutine.running())) for _ = 1, 1e6 do local _ = {} end plugin:every("1m", "x", print)]] },
  { "it requires itself in a circle", [[require "a"]], "plugins/lib/b.lua:1: library \"a\" requires itself" },
}

describe("a file that is loaded, in which", function()
  local folder = nil
  setup(function()
    folder = bed.folder()
    bed.write(folder .. "/neap.lua", 'return { store = "neap.db", plugins = "plugins", lanes = 2 }')
    bed.write(folder .. "/plugins/vendors/good.lua", 'local plugin = ... plugin:serve { "GET /good", handler = function() return 204 end }')
    bed.write(folder .. "/plugins/lib/a.lua", 'require "b"')
    bed.write(folder .. "/plugins/lib/b.lua", 'require "a"')
    local names, open = {}, {}
    for i = 1, 190 do names[i] = "a" .. i end
    for i = 1, 180 do open[i] = "local " .. table.concat(names, ",") .. " local function f() " end
    for _, f in ipairs(files) do f[2] = f[2] or table.concat(open) .. ("b=b "):rep(700000) .. ("end "):rep(180) end
  end)
  for _, f in ipairs(files) do
    it(f[1], function()
      bed.write(folder .. "/plugins/vendors/x.lua", f[2]:sub(1, 1) == "\27" and f[2] or "local plugin = ... " .. f[2])
      local out, code = bed.run { bed.neap, "check", folder .. "/neap.lua" }
      assert.equal("number", type(code), out:sub(1, 500)) -- it was no signal
      assert.is_nil(out:find("bug in neap", 1, true))
      assert.equal(f[3] and 1 or 0, code, out:sub(1, 500))
      if f[3] then assert.truthy(out:find(f[3], 1, true), out:sub(1, 500)) end
    end)
  end

  it("all of this happens, in one after the other: the others serve on", function()
    local host = bed.host { folder = folder, keep_config = true, args = { "--listen", "127.0.0.1:0" } }
    for _, f in ipairs { files[1], files[7], files[11], files[26] } do
      bed.replace(folder .. "/plugins/vendors/x.lua", "local plugin = ... " .. f[2])
      local told = #host:read()
      bed.wait("a verdict of " .. f[1], function() return host:read():sub(told + 1):find "vendors/x.lua" end)
      assert.equal(204, (host:request("GET", "/good")))
    end
    assert.is_true(process.kill(host.pid, 0))
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
