-- plugin.store, throttle and history: what a handler reads and writes, alone and against others.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local probe = [[
local plugin = ...
local json, time = require "neap.json", require "neap.time"
local env = setmetatable({ plugin = plugin, json = json, time = time, store = plugin.store }, { __index = _G })
plugin:serve { "POST /probe", handler = function(req)
  local r = table.pack(assert(load(req.raw, "=probe", "t", env))())
  return 200, { results = table.move(r, 1, r.n, 1, {}) }
end }
plugin:serve { "POST /count/{key}", handler = function(req)
  local n = plugin.store:get(req.params.key) or 0
  plugin.store:put(req.params.key, n + 1)
  return 200, { n = n + 1 }
end }
]]

local rule = [[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "throttled" }, function(r)
  if plugin:throttle(r.device, "1h") then return end
  plugin:send(config.to, { passed = r.key })
end)
plugin:on({ metric = "short" }, function(r)
  if plugin:throttle(r.device, "1ms") then return end
  plugin:send(config.to, { passed = r.key })
end)
plugin:on({ metric = "undone" }, function(r)
  plugin:throttle(r.device, "1h")
  plugin.store:put("undone", true)
  plugin:send(config.to, { passed = "never" })
  error "after all that"
end)
plugin:on({ metric = "history" }, function(r)
  local keys = {}
  for i, h in ipairs(plugin:history(r.device, "history", { last = "1h" })) do keys[i] = h.key end
  local some = {}
  for i, h in ipairs(plugin:history(r.device, "history", { limit = 2 })) do some[i] = h.key end
  plugin:send(config.to, { of = r.key, keys = keys, some = some, other = #plugin:history("nobody", "history") })
end)
]]

local poster = [[
local plugin = ...
plugin:serve { "POST /readings", handler = function(req) for _, r in ipairs(req.body) do plugin:emit(r) end return 204 end }
]]

describe("the store's verbs", function()
  local host, desk
  setup(function()
    desk = bed.receiver()
    host = bed.host {
      config = ([[lanes = 2, connections = { { "probe", name = "a", shows = "poster" }, { "probe", name = "b", mount = "/b" }, { "poster" } }, rules = { { "rule", to = "desk" } },
        destinations = { desk = { "webhook", url = "http://127.0.0.1:%d/" } }]]):format(desk.port),
      plugins = { ["vendors/probe.lua"] = probe, ["vendors/poster.lua"] = poster, ["rules/rule.lua"] = rule, ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") },
    }
  end)
  teardown(function()
    desk:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  local function run(code, path)
    local status, answer = host:json("POST", path or "/probe", code)
    assert.equal(200, status, code .. ": " .. json.encode(answer or {}))
    return table.unpack(answer.results)
  end

  local function emit(list)
    assert.equal(204, (host:request("POST", "/readings", list)))
  end

  -- The messages at the desk for which `of` gives something, as a list of that.
  local function told(n, of)
    return bed.wait(n .. " messages", function()
      local list = {}
      for _, r in ipairs(desk:poll()) do list[#list + 1] = of(r.json) end
      return #list >= n and list
    end)
  end

  it("give back what was put, also after a restart", function()
    run [[
      store:put("integer", math.maxinteger) store:put("negative", math.mininteger) store:put("float", 0.1) store:put("whole", 3.0) store:put("text", "é\n\"") store:put("empty", "")
      store:put("true", true) store:put("false", false) store:put("null", json.null) store:put("array", json.array and json.decode "[]" or {}) store:put("object", json.decode "{}")
      store:put("nested", json.decode '{"a":[1,2.5,{"b":[]},null],"c":{}}') store:put("key with spaces / % é", 1)]]
    for _ = 1, 2 do
      assert.is_true(run [[
        local function same(k, v) local got = store:get(k) assert(got == v and math.type(got) == math.type(v), k) end
        same("integer", math.maxinteger) same("negative", math.mininteger) same("float", 0.1) same("whole", 3.0) same("text", "é\n\"") same("empty", "") same("true", true) same("false", false)
        same("null", json.null) same("key with spaces / % é", 1)
        assert(json.encode(store:get "array") == "[]") assert(json.encode(store:get "object") == "{}")
        local n = store:get "nested"
        assert(json.encode(n.a) == '[1,2.5,{"b":[]},null]' and json.encode(n.c) == "{}")
        return true]])
      host:restart()
    end
  end)

  it("give nil for what is not there, was deleted, or put as nil", function()
    assert.is_true(run [[assert(select("#", store:get "none") == 1 and store:get "none" == nil) return true]])
    run [[store:put("gone", 1) store:put("gone too", 1)]]
    run [[store:delete "gone" store:put("gone too", nil)]]
    assert.is_true(run [[return store:get "gone" == nil and store:get "gone too" == nil]])
    assert.equal(0, host:sql("select count(*) n from kv where key like 'gone%'")[1].n)
  end)

  it("show a handler its own writes before they are committed", function()
    assert.same({ 1, 2, true, 3 }, { run [[
      store:put("own", 1) local a = store:get "own" store:put("own", 2) local b = store:get "own" store:delete "own" local c = store:get "own" == nil store:put("own", 3)
      return a, b, c, store:get "own"]] })
    assert.equal(3, (run [[return store:get "own"]]))
  end)

  it("forget what has outlived its time", function()
    run [[store:put("brief", 1, 0.05) store:put("lasting", 1, "1h")]]
    bed.wait("it to expire", function() return run [[return store:get "brief" == nil]] end)
    assert.equal(1, (run [[return store:get "lasting"]]))
    run [[store:put("brief", 2) store:put("lasting", 2, "1h")]] -- again, without an end
    assert.equal(2, (run [[return store:get "brief"]]))
    bed.wait("expired rows to be removed", function() return host:sql("select count(*) n from kv where expires > 0 and expires < unixepoch() * 1000")[1].n == 0 end)
    assert.equal(2, (run [[return store:get "brief"]]))
  end)

  it("refuse misuse and do nothing then", function()
    for code, why in pairs { ["store:put('f', print)"] = "function", ["store:put('n', 0/0)"] = "store", ["store:put(('x'):rep(513), 1)"] = "512", ["store:put('a\\0b', 1)"] = "zero", ["store:put('x')"] = "value expected",
      ["store:put({}, 1)"] = "string", ["store:put('x', 1, 'soon')"] = "duration", ["store.get('x')"] = "", ["store:put('x', 1, -1)"] = "duration" } do
      local ok, message = run("return pcall(function() " .. code .. " end)")
      assert.is_false(ok, code)
      assert.matches(why, message, 1, true)
    end
    assert.is_true(run [[return store:get "f" == nil and store:get "x" == nil]])
  end)

  it("are each instance's own", function()
    run [[store:put("whose", "a")]]
    run([[assert(store:get "whose" == nil) store:put("whose", "b")]], "/b/probe")
    assert.equal("a", (run [[return store:get "whose"]]))
    assert.equal("b", (run([[return store:get "whose"]], "/b/probe")))
  end)

  it("count exactly under 32 connections on two lanes", function()
    local sockets, each = {}, 25
    for i = 1, 32 do
      sockets[i] = assert(socket.connect("127.0.0.1", host.port))
      sockets[i]:settimeout(60)
    end
    local seen = {}
    for _ = 1, each do
      for _, s in ipairs(sockets) do s:send "POST /count/all HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" end
      for _, s in ipairs(sockets) do
        local status, body = bed.receive(s)
        assert.equal(200, status, body)
        local n = json.decode(body).n
        assert.is_nil(seen[n], "counted twice: " .. n)
        seen[n] = true
      end
    end
    for _, s in ipairs(sockets) do s:close() end
    assert.equal(32 * each, (run [[return store:get "all"]]))
  end)

  it("do all or nothing", function()
    local status = host:request("POST", "/probe", [[
      store:put("half", 1) plugin:emit { device = "half", metric = "m", value = 1 } plugin:device { device = "half" } plugin:event { device = "half", type = "alarm" }
      error "after all that"]])
    assert.equal(500, status)
    assert.is_true(run [[return store:get "half" == nil]])
    for _, t in ipairs { "readings", "devices", "events" } do assert.equal(0, host:sql(("select count(*) n from %s where device = 'half'"):format(t))[1].n, t) end
    run [[store:put("half", 1) plugin:emit { device = "half", metric = "m", value = 1 } plugin:device { device = "half" } plugin:event { device = "half", type = "alarm" }]]
    for _, t in ipairs { "readings", "devices", "events" } do assert.equal(1, host:sql(("select count(*) n from %s where device = 'half'"):format(t))[1].n, t) end
  end)

  it("undo a rule that raises, its throttle too", function()
    emit { { device = "u", metric = "undone", value = 1, key = "u1" } }
    bed.wait("it to be held", function() return host:sql("select * from held")[1] end)
    assert.equal(0, host:sql("select count(*) n from kv where space like '%:rule' and (key = 'undone' or key = 'u')")[1].n)
    assert.equal(0, host:sql("select count(*) n from outbox where body like '%never%'")[1].n + host:sql("select count(*) n from delivered where body like '%never%'")[1].n)
  end)

  it("throttle lets the first pass for each key, within one request too", function()
    emit { { device = "t1", metric = "throttled", value = 1, key = "first" }, { device = "t1", metric = "throttled", value = 2, key = "second", at = 1000 }, { device = "t2", metric = "throttled", value = 1, key = "other" } }
    emit { { device = "t1", metric = "throttled", value = 3, key = "third", at = 2000 } }
    emit { { device = "t3", metric = "throttled", value = 3, key = "last" } }
    local list = told(3, function(m) return ({ first = 1, second = 1, third = 1, other = 1, last = 1 })[m.passed] and m.passed end)
    table.sort(list)
    assert.same({ "first", "last", "other" }, list)
    for i = 1, 3 do
      emit { { device = "s", metric = "short", value = 1, key = "short-" .. i, at = i } }
      told(i, function(m) return m.passed and m.passed:find "^short" and m.passed end) -- the time has passed since
    end
  end)

  it("history gives a rule what stood when its reading had just been stored, newest first", function()
    local hour = 3600 * 1000
    local base = 1700000000000
    emit { { device = "h", metric = "history", value = 1, key = "h1", at = base }, { device = "h", metric = "history", value = 2, key = "h2", at = base + hour // 2 },
      { device = "h", metric = "history", value = 3, key = "h3", at = base + hour + 1 } }
    emit { { device = "h", metric = "history", value = 4, key = "h4", at = base + 1 } } -- late
    local list = told(4, function(m) return m.of and m or nil end)
    local by = {}
    for _, m in ipairs(list) do by[m.of] = m end
    assert.same({ "h1" }, by.h1.keys)
    assert.same({ "h2", "h1" }, by.h2.keys)
    assert.same({ "h3", "h2" }, by.h3.keys) -- h1 is more than an hour before h3
    assert.same({ "h3", "h2" }, by.h3.some)
    assert.same({ "h4", "h1" }, by.h4.keys) -- what was measured up to its time
    assert.equal(0, by.h4.other)
  end)

  it("throttle goes by no moment that is still to come: the clock has been set back since", function()
    local function passed(key) return told(1, function(m) return m.passed == key and key or nil end) end
    local function noted(of)
      return tonumber(host:sql("select value from kv where space = 'throttle:rule' and key = 'back'")[1].value) + of
    end
    emit { { device = "back", metric = "throttled", value = 1, key = "back-1" } }
    passed "back-1"
    for i, ahead in ipairs { 28800000, 50000 } do -- as by a clock that was 8 h ahead; 50 s may be a clock that is put right bit by bit
      local out, code = bed.run { "sqlite3", "-cmd", ".timeout 10000", host.store,
        ("update kv set value = '%d', expires = expires + 86400000 where space = 'throttle:rule' and key = 'back'"):format(noted(ahead)) }
      assert.equal(0, code, out)
      emit { { device = "back", metric = "throttled", value = 1, key = "after-" .. i, at = i } }
      emit { { device = "back", metric = "history", value = 1, key = "last-" .. i } }
      told(1, function(m) return m.of == "last-" .. i or nil end)
    end
    passed "after-1"
    assert.same({}, told(0, function(m) return m.passed == "after-2" and 1 or nil end))
  end)

  it("history gives a vendor everything that it shows, by time or number", function()
    local base = 1700000000000
    emit { { device = "v", metric = "x", value = 1, at = base, extra = { a = 1 } }, { device = "v", metric = "x", value = 2.5, at = base + 1, unit = "mmol/L" }, { device = "v", metric = "x", value = "text", at = base + 2, quality = "warmup", trend = "flat" },
      { device = "v", metric = "y", value = true, at = base + 3, serial = 7, interval = 300 } }
    assert.same({ 3, "text", 2.5, 1, 1 }, { run [[local h = plugin:history("v", "x") return #h, h[1].value, h[2].value, h[3].value, h[3].extra.a]] })
    assert.same({ "warmup", "flat", "mmol/L", true, 7, 300, "poster" }, { run [[local h, y = plugin:history("v", "x"), plugin:history("v", "y")[1] return h[1].quality, h[1].trend, h[2].unit, y.value, y.serial, y.interval, y.vendor]] })
    assert.equal(1, (run(("return #plugin:history('v', 'x', { from = %d, to = %d })"):format(base + 1, base + 1))))
    assert.equal(2, (run "return #plugin:history('v', 'x', { limit = 2 })"))
    assert.is_false((run "return pcall(plugin.history, plugin, 'v', 'x', { limit = 0 })"))
  end)

  it("history is that of the moment also where the rule is run on it later: of what has come since, nothing", function()
    local function is(body) return rule .. [[
      local function keys(device, metric)
        local list = {}
        for i, h in ipairs(plugin:history(device, metric, { limit = 3 })) do list[i] = h.key end
        return list
      end
      plugin:on({ metric = "later", below = 3 }, function(r) ]] .. body("r.device, r.metric") .. [[ end)
      plugin:on({ metric = "watched", device = "l" }, function(r) plugin:arm("look", r.device, 0.01) end)
      plugin:timer("look", function(device) ]] .. body('device, "watched"') .. [[ end)]]
    end
    bed.replace(host.plugins .. "/rules/rule.lua", is(function() return "error 'not yet'" end))
    bed.wait("the rule", function() return host:plugin("rule").generation == 2 end)
    local base = 1700000000000
    emit { { device = "l", metric = "later", value = 1, key = "l1", at = base - 5000 }, { device = "l", metric = "watched", value = 1, key = "w1" } }
    emit { { device = "l", metric = "later", value = 2, key = "l2", at = base } }
    bed.wait("the three to be held", function()
      return host:sql("select count(*) n from held where reading = 0 or reading in (select seq from readings where device = 'l')")[1].n == 3
    end)
    local since = { { device = "l", metric = "watched", value = 2, key = "w2" } }
    for i = 1, 1100 do since[#since + 1] = { device = "l", metric = "later", value = 10, key = "s" .. i, at = base - 1 - i } end
    emit(since)
    bed.replace(host.plugins .. "/rules/rule.lua", is(function(of) return "plugin:send(config.to, { mended = true, keys = keys(" .. of .. ") })" end))
    local by = {}
    bed.wait("what was held", function()
      for _, r in ipairs(desk:poll()) do if r.json.mended then by[table.concat(r.json.keys, " ")] = true end end
      return by["l2 l1"] and by.l1 and by.w1
    end)
  end)
end)
