-- neap test: specs that pass and fail, what is told of it, moved time, faults, plugins that do not end.
local bed = require "bed"
local json = require "neap.json"

describe("neap test", function()
  local folder
  before_each(function() folder = bed.folder() end)

  -- Writes files below the folder and runs neap test there.
  local function run(files, ...)
    for name, text in pairs(files) do bed.write(folder .. "/" .. name, text) end
    return bed.run({ bed.neap, "test", ... }, { cwd = folder })
  end

  local RULE = [[
    local plugin = ...
    local config = plugin:config { to = { "destination" }, limit = { "number", default = 8, max = 20 } }
    plugin:on({ metric = "temp", above = config.limit }, function(r)
      if plugin:throttle(r.device, "30m") then return end
      plugin:send(config.to, { value = r.value })
      plugin:arm("again", r.device, "1h")
    end)
    plugin:on({ metric = "bad" }, function() error "no good" end)
    plugin:on({ metric = "endless" }, function() while true do end end)
    plugin:on({ metric = "leak" }, function() local s = "x" while true do s = s .. s end end)
    plugin:timer("again", function(device) plugin:send(config.to, { still = device }) end)
  ]]
  local function spec(body)
    return 'local t = require "neap.test"\nit("is tested", function()\nlocal p = t.plugin("warm", { to = "desk" })\n' .. body .. "\nend)"
  end
  local function rule(body, ...) return run({ ["plugins/rules/warm.lua"] = RULE, ["plugins/rules/warm_spec.lua"] = spec(body) }, ...) end

  it("runs what stands beside the plugins, closes with the numbers, and exits with 0", function()
    local out, code = rule [[
      p:reading { device = "f", metric = "temp", value = 9 }
      assert.same({ value = 9 }, t.sent("desk")[1].data)
      assert.equal("waiting", t.sent("desk")[1].state)
    ]]
    assert.equal(0, code, out)
    assert.matches("ok +plugins/rules/warm_spec.lua %(1 in %d+ ms%)\n1 passed, 0 failed\n$", out)
  end)

  it("runs a plugin's migrations on what an earlier version of it has left", function()
    local text = [[
      local plugin = ...
      plugin:migrate(3, function(store) store:put("n", { n = store:get "n", text = store:get "text" }) end)
      plugin:on({ metric = "m" }, function() end)
    ]]
    local body = [[
      local t = require "neap.test"
      local function refused(why, ...)
        local ok, message = pcall(t.plugin, ...)
        assert.is_false(ok)
        assert.matches(why, message, 1, true)
      end
      it("takes over", function()
        t.kept("warm", 3, { n = 7, text = "seven" })
        t.plugin "warm"
        assert.same({ n = 7, text = "seven" }, t.stored("warm", "n"))
      end)
      it("has nothing to take over where it is new", function()
        assert.is_nil(t.plugin("warm"):stored "n")
      end)
      it("tells what does not fit", function()
        t.kept("warm", 2, {})
        refused("at version 2, and the first migration is from version 3", "warm")
        t.kept("other", 5, {})
        refused("at version 5", "warm", { name = "other" })
        t.plugin("warm", { name = "third" })
        assert.has_error(function() t.kept("third", 1, {}) end)
        assert.has_error(function() t.kept("fourth", 0, {}) end)
      end)
      it("fails where a migration does", function()
        t.kept("bad", 1, { a = 1 })
        refused("bad.lua:1: on purpose", "bad")
        assert.equal(1, t.stored("bad", "a"))
      end)
    ]]
    local bad = 'local plugin = ... plugin:migrate(1, function(store) store:put("a", 2) error "on purpose" end) plugin:on({ metric = "m" }, print)'
    local out, code = run { ["plugins/rules/warm.lua"] = text, ["plugins/rules/bad.lua"] = bad, ["plugins/rules/warm_spec.lua"] = body }
    assert.equal(0, code, out)
    assert.matches("4 passed, 0 failed\n$", out)
  end)

  it("shows file, line and a diff of what fails, and exits with 1", function()
    local out, code = rule [[
      p:reading { device = "f", metric = "temp", value = 9 }
      assert.same({ value = 10, list = { 1, 2, 3 }, text = "a text that is so long that it does not fit in one line" }, t.sent("desk")[1].data)
    ]]
    assert.equal(1, code)
    assert.truthy(out:find("FAILED  plugins/rules/warm_spec.lua:2: is tested", 1, true), out)
    assert.truthy(out:find("plugins/rules/warm_spec.lua:5:", 1, true), out)
    assert.matches("\n +%- +list = { 1, 2, 3 }", out)
    assert.matches("\n +%- +value = 10\n", out)
    assert.matches("\n +%+ { value = 9 }\n", out)
    assert.matches("\n0 passed, 1 failed\n$", out)
  end)

  it("tells each test in JSON", function()
    local out, code = rule("assert.equal(1, 2)", "--json")
    local first, last = out:match "^([^\n]*)\n([^\n]*)\n$"
    first = json.decode(first)
    assert.equal("plugins/rules/warm_spec.lua", first.file)
    assert.equal("is tested", first.name)
    assert.is_false(first.passed)
    assert.matches("expected 1", first.error)
    assert.same({ summary = { passed = 0, failed = 1 } }, json.decode(last))
    assert.equal(1, code)
  end)

  it("knows the assertions by the names that people use", function()
    local out = run { ["plugins/a_spec.lua"] = [[
      it("hold", function()
        assert(1) assert.equal(1, 1) assert.are.same({ { 1 } }, { { 1 } }) assert.truthy "x" assert.is.falsy(nil)
        assert.is_true(true) assert.is_false(false) assert.is_nil(nil) assert.is_not_nil(1) assert.are_not.equal(1, 2)
        assert.not_same({ 1 }, { 2 }) assert.matches("a+", "caat") assert.has_error(function() error "broken" end, "broken")
        assert.has_no.errors(function() end) assert.is_table {} assert.near(1, 1.001, 0.01) assert.is_string ""
      end)
      local failing = { function() assert(false) end, function() assert.equal(1, "1") end, function() assert.same({ 1 }, { 1, 2 }) end,
        function() assert.truthy(nil) end, function() assert.falsy(0) end, function() assert.is_true(1) end, function() assert.is_nil(false) end,
        function() assert.is_not_nil(nil) end, function() assert.not_equal(1, 1) end, function() assert.matches("b", "a") end,
        function() assert.has_error(function() end) end, function() assert.has_error(function() error "a" end, "b") end,
        function() assert.has_no.errors(function() error "a" end) end, function() assert.no_such(1) end, function() assert.near(1, 2) end }
      for i, fn in ipairs(failing) do
        it("fail " .. i, function() local ok, why = pcall(fn) if ok then error "it holds" end assert.is_string(why) end)
      end ]] }
    assert.matches("16 passed, 0 failed\n$", out)
  end)

  it("runs hooks around each test, outer ones first, and after_each also where the test failed", function()
    local out = run { ["plugins/a_spec.lua"] = [[
      local seen = {}
      local function note(s) return function() seen[#seen + 1] = s end end
      describe("outer", function()
        setup(note "s") before_each(note "b") after_each(note "a") teardown(note "t")
        describe("inner", function()
          before_each(note "B") after_each(note "A")
          it("fails", function() note "1"() error "x" end)
          it("passes", function() note "2"() end)
        end)
      end)
      it("in order", function() assert.equal("s b B 1 A a b B 2 A a t", table.concat(seen, " ")) end)
      describe("broken", function() setup(function() error "no setup" end) it("is not run", function() end) end) ]] }
    assert.matches("no setup", out)
    assert.matches("2 passed, 2 failed\n$", out)
  end)

  it("has each test begin anew", function()
    local out = run { ["plugins/rules/warm.lua"] = RULE, ["plugins/rules/warm_spec.lua"] = [[
      local t = require "neap.test"
      for i = 1, 3 do
        it("is fresh " .. i, function()
          assert.equal(1767225600000, t.now())
          local p = t.plugin("warm", { to = "desk" })
          p:reading { device = "f", metric = "temp", value = 9 }
          assert.equal(1, #t.sent "desk")
          t.advance "1h"
        end)
      end ]] }
    assert.matches("3 passed, 0 failed\n$", out)
  end)

  it("moves time: throttles and timers follow, and each fires at its moment", function()
    local out = rule [[
      t.at "2026-03-01T08:00:00Z"
      assert.equal(1772352000000, t.now())
      p:reading { device = "f", metric = "temp", value = 9 }
      t.advance "29m"
      p:reading { device = "f", metric = "temp", value = 10 }
      assert.equal(1, #t.sent())
      assert.equal(1772352000000 + 3600000, t.armed()[1].due)
      t.advance "31m"
      assert.same({ still = "f" }, t.sent()[2].data)
      assert.equal(1772352000000 + 3600000, t.sent()[2].created)
      t.advance "30d"
      assert.equal(2, #t.sent())
    ]]
    assert.matches("1 passed, 0 failed\n$", out)
  end)

  it("has all of a device's timers fire that are due at one moment, and knows who acknowledged", function()
    local out, code = run {
      ["plugins/rules/two.lua"] = [[
        local plugin = ...
        plugin:on({}, function(r)
          plugin.store:put("id", plugin:send("desk", { first = true }, { acknowledge = true }))
          for _, name in ipairs { "a", "b", "c" } do plugin:arm(name, r.device, "1m") end
        end)
        for _, name in ipairs { "a", "b", "c" } do
          plugin:timer(name, function()
            local by = plugin:acknowledged(plugin.store:get "id")
            plugin:send("desk", { timer = name, by = by and by.by, note = by and by.note })
          end)
        end
      ]],
      ["plugins/rules/two_spec.lua"] = [[
        local t = require "neap.test"
        it("fires", function()
          t.plugin("desk", {})
          local p = t.plugin("two", {})
          p:reading { device = "d", metric = "m", value = 1 }
          local id = t.sent()[1].id
          assert.is_true(t.sent()[1].acknowledge)
          assert.is_true(t.acknowledge(id, { by = "Agnes", note = "n" }))
          assert.is_false(t.acknowledge(id))
          assert.is_nil(t.acknowledge "msg_none")
          assert.has_error(function() t.acknowledge(id, { by = "" }) end, "by: whose")
          t.advance "1m"
          assert.same({ at = t.now() - 60000, by = "Agnes", note = "n" }, t.sent()[1].acknowledged)
          local names = {}
          for i, m in ipairs(t.sent()) do names[i] = (m.data.timer or "-") .. (m.data.by or "-") end
          assert.same({ "--", "aAgnes", "bAgnes", "cAgnes" }, names)
        end)
      ]],
      ["plugins/destinations/desk.lua"] = [[
        local plugin = ...
        plugin:deliver { options = {}, handler = function() return true end }
      ]],
    }
    assert.equal(0, code, out)
  end)

  it("fails a test in which a rule failed, unless it asks what is held", function()
    local out = rule 'p:reading { device = "f", metric = "bad", value = 1 }'
    assert.matches("warm failed, and held a reading: plugins/rules/warm.lua:8: no good", out)
    out = rule 'p:reading { device = "f", metric = "bad", value = 1 }\nassert.matches("no good", t.held()[1].error)'
    assert.matches("1 passed, 0 failed\n$", out)
  end)

  it("ends plugins by their budgets, and goes on", function()
    local out = rule [[
      p:reading { device = "f", metric = "endless", value = 1 }
      p:reading { device = "f", metric = "leak", value = 1 }
      assert.matches("budget of 10000000 instructions", t.held()[1].error)
      assert.matches("memory", t.held()[2].error)
      p:reading { device = "f", metric = "temp", value = 9 }
      assert.equal(1, #t.sent "desk")
    ]]
    assert.matches("1 passed, 0 failed\n$", out)
  end)

  it("says what is wrong with settings, as neap check does, and with words", function()
    local out = rule 't.plugin("warm", { name = "w", to = "desk", limit = 40 })'
    assert.truthy(out:find("plugins/rules/warm_spec.lua:4: t.plugin: rules[1]", 1, true), out)
    assert.matches("limit", out)
    out = rule 't.plugin("wram")'
    assert.matches("no plugin file wram.lua", out)
    out = rule 't.advance "soon"'
    assert.matches("warm_spec.lua:4: t.advance: expected a duration", out)
    local code
    out, code = run({}, "nobody")
    assert.equal(1, code)
    assert.matches("nobody: no such file, and no nobody_spec.lua below plugins", out)
  end)

  it("tells of a file that does not load", function()
    local out, code = run { ["plugins/a_spec.lua"] = "it(", ["plugins/b_spec.lua"] = "it('x', function() end)", ["plugins/c_spec.lua"] = "error 'here'" }
    assert.equal(1, code)
    assert.matches("FAILED  plugins/a_spec.lua", out)
    assert.matches("plugins/c_spec.lua:1: here", out)
    assert.matches("1 passed, 2 failed\n$", out)
  end)

  it("runs the specs of the plugins and files that are named alone", function()
    local files = { ["plugins/rules/warm.lua"] = RULE, ["plugins/rules/warm_spec.lua"] = spec "", ["plugins/spec/other_spec.lua"] = "it('o', function() end)",
      ["elsewhere_spec.lua"] = "it('e', function() end)" }
    assert.matches("2 passed, 0 failed\n$", (run(files)))
    assert.matches("ok +plugins/rules/warm_spec.lua[^\n]*\n1 passed, 0 failed\n$", (run(files, "warm")))
    assert.matches("ok +plugins/spec/other_spec.lua[^\n]*\n1 passed, 0 failed\n$", (run(files, "plugins/spec/other_spec.lua")))
    assert.matches("2 passed, 0 failed\n$", (run(files, "elsewhere_spec.lua", "plugins/rules/warm.lua")))
  end)

  it("takes plugins of any folder for what they register, and settings that an entry has", function()
    local out = run { ["plugins/odd.lua"] = RULE, ["plugins/x/end.lua"] = 'local plugin = ... plugin:deliver { options = { a = { "string" } }, handler = function() return true end }',
      ["plugins/x/vendor.lua"] = 'local plugin = ... plugin:serve { "GET /x", handler = function() return 200, { name = plugin.name } end }', ["plugins/a_spec.lua"] = [[
      local t = require "neap.test"
      it("loads all", function()
        local p = t.plugin("odd", { to = "desk", limits = { instructions = "x" and 5000000 } })
        assert.equal("rule", p.kind)
        assert.equal("destination", t.plugin("end", { name = "desk", a = "b" }).kind)
        local v = t.plugin("vendor", { name = "ward", mount = "/b" })
        assert.equal("vendor", v.kind)
        local status, body = v:request("GET", "/b/x")
        assert.same({ name = "ward" }, body)
        assert.equal(404, (v:request("GET", "/x")))
        p:reading { device = "f", metric = "temp", value = 9 }
        assert.equal("delivered", t.sent("desk")[1].state)
        assert.has_error(function() t.plugin("vendor", { name = "ward" }) end, "ward")
        assert.has_error(function() t.plugin("vendor", { name = "other", mount = "/b" }) end, "is served by ward already")
        assert.has_error(function() t.plugin("odd", { name = "to ward", to = "ward" }) end)
        assert.has_error(function() t.plugin("odd", { name = "to-ward", to = "ward" }) end, "ward")
        assert.equal(200, status)
      end) ]] }
    assert.matches("1 passed, 0 failed\n$", out)
  end)

  it("gives specs the sandbox of plugins, and plugins/lib", function()
    local out = run { ["plugins/lib/a/b.lua"] = "return { x = 1 }", ["plugins/spec/data.lua"] = "return { y = 2 }", ["plugins/spec/a_spec.lua"] = [[
      it("is closed", function()
        for _, name in ipairs { "io", "os", "debug", "package", "dofile", "loadfile" } do assert.is_nil(_G[name]) end
        assert.equal(1, require "a.b".x)
        assert.equal(2, require "data".y)
        assert.has_error(function() require "../data" end)
        assert.has_error(function() require "neap.http".get "https://x.example" end, "t.http")
      end) ]] }
    assert.matches("1 passed, 0 failed\n$", out)
  end)

  it("takes requests through routes, auth, schemas and refusals", function()
    local out = run { ["plugins/vendors/gauge.lua"] = [[
      local plugin = ...
      local config = plugin:config { secret = { "secret" } }
      plugin:refuse(function(p) return p.where == "auth" and 401 or p.status, { error = p.message } end)
      plugin:serve { "POST /levels", auth = function(req) if req.headers.key == config.secret then return "desk" end return nil, "no key" end,
        body = { gauge = { "string" }, m = { "number" } },
        handler = function(req)
          plugin:emit { device = req.body.gauge, metric = "level", value = req.body.m }
          plugin:device { device = req.body.gauge, name = "Pier" }
          plugin:event { device = req.body.gauge, type = "online" }
          plugin.store:put("last", { m = req.body.m })
          plugin:log("taken", { gauge = req.body.gauge })
          return 201, { caller = req.caller }, { ["X-Level"] = "high" }
        end }
      plugin:serve { "GET /levels", handler = function()
        local n = 0
        return 200, function() n = n + 1 return n < 4 and n .. ";" or nil end
      end }
      plugin:serve { "GET /broken", handler = function() error "oh" end }
      plugin:command { "reset", args = { gauge = { "string" } }, handler = function(a) if a.gauge == "x" then return nil, "no x", "gauge" end return { was = a.gauge } end }
    ]], ["plugins/vendors/gauge_spec.lua"] = [[
      local t = require "neap.test"
      it("answers", function()
        local p = t.plugin("gauge", { secret = "open sesame" })
        local status, body, headers = p:request("POST", "/levels", { gauge = "g", m = 2.5 }, { Key = "open sesame" })
        assert.equal(201, status)
        assert.same({ caller = "desk" }, body)
        assert.equal("high", headers["x-level"])
        local r = t.emitted()[1]
        assert.equal("level", r.metric) assert.equal(2.5, r.value) assert.equal(t.now(), r.at) assert.equal("gauge", r.vendor)
        p:request("POST", "/levels", { gauge = "g", m = 2.5 }, { Key = "open sesame" })
        assert.equal(1, #t.emitted())
        assert.equal("Pier", t.devices()[1].name)
        assert.equal("online", t.events()[1].type)
        assert.same({ m = 2.5 }, p:stored "last")
        assert.equal("g", t.logged("info")[1].gauge)
        status, body = p:request("POST", "/levels", { gauge = "g", m = 2.5 })
        assert.equal(401, status) assert.same({ error = "no key" }, body)
        status, body = p:request("POST", "/levels", { gauge = "g" }, { key = "open sesame" })
        assert.equal(400, status) assert.matches("m: ", body.error)
        status, body = p:request("POST", "/levels", "no json", { key = "open sesame", ["Content-Type"] = "application/json" })
        assert.equal(400, status)
        status, body = p:request("GET", "/levels")
        assert.equal(200, status) assert.equal("1;2;3;", body)
        assert.equal(404, (p:request("GET", "/nowhere")))
        assert.equal(500, (p:request("GET", "/broken")))
        assert.matches("oh", t.logged("error")[1].error)
        assert.same({ was = "g" }, p:call("reset", { gauge = "g" }))
        local result, why, kind = p:call("reset", { gauge = "x" })
        assert.is_nil(result) assert.equal("no x", why) assert.equal("gauge", kind)
      end) ]] }
    assert.matches("1 passed, 0 failed\n$", out)
  end)

  it("answers HTTP by scripts and faults; retries, tokens and budgets follow the clock", function()
    local out = run { ["plugins/vendors/buoys.lua"] = [[
      local plugin = ...
      local http = require "neap.http"
      local config = plugin:config { url = { "string", default = "https://api.buoys.example" } }
      local account = plugin:account { "main", refresh = function()
        local res, why = http.post { url = config.url .. "/token", json = { id = 1 }, timeout = 10 }
        if not res then return nil, why end
        return { access = res.json.access, lifetime = 3600 }
      end }
      local budget = plugin:budget { "polls", per_second = 1 }
      plugin:every("5m", "poll", function()
        for i = 1, 2 do
          assert(budget:take())
          local token = assert(account:token())
          local res = assert(http.get { url = config.url .. "/levels", query = { page = i }, bearer = token.access, expect = 200, timeout = 10 })
          plugin:emit { device = "b" .. i, metric = "level", value = res.json.m }
        end
      end)
    ]], ["plugins/destinations/hook.lua"] = [[
      local plugin = ...
      local http = require "neap.http"
      plugin:deliver { options = { url = { "string" } }, handler = function(m, to) return http.post { url = to.url, body = m[1].json, timeout = 5 } end }
    ]], ["plugins/rules/all.lua"] = [[
      local plugin = ...
      local config = plugin:config { to = { "destination" } }
      plugin:on({}, function(r) plugin:send(config.to, { value = r.value }) end)
    ]], ["plugins/all_spec.lua"] = [[
      local t = require "neap.test"
      it("polls", function()
        local p = t.plugin "buoys"
        local tokens = 0
        t.http("POST https://api.buoys.example/token", function(req)
          tokens = tokens + 1
          assert.same({ id = 1 }, req.json)
          return 200, { access = "token-" .. tokens }
        end)
        t.http("GET https://api.buoys.example/levels", function(req) return 200, { m = tonumber(req.query.page) } end)
        local before = t.now()
        assert.is_true(p:job "poll")
        assert.equal(2, #t.emitted())
        assert.equal(1000, t.now() - before)
        assert.equal("Bearer token-1", t.asked("GET https://api.buoys.example/levels")[2].headers.authorization)
        t.advance "2h"
        assert.is_true(tokens >= 2)
        assert.is_true(#t.asked "GET *" >= 48)
        t.fail("GET https://api.buoys.example/*", "timeout")
        local ok, why = p:job "poll"
        assert.is_nil(ok) assert.matches("no answer in time", why)
        assert.has_error(function() p:job "pall" end, "it has \"poll\"")
      end)
      it("goes through to a receiver", function()
        local rule = t.plugin("all", { to = "desk" })
        t.plugin("hook", { name = "desk", url = "https://desk.example/alerts" })
        t.fail("POST https://desk.example/alerts", "connect", 1)
        t.http("POST https://desk.example/alerts", function() return 429, "", { ["Retry-After"] = 60 } end)
        t.fail("POST https://desk.example/alerts", "cut", 1)
        rule:reading { device = "d", metric = "x", value = 1 }
        local m = t.sent("desk")[1]
        assert.equal("waiting", m.state) assert.equal(1, m.attempts) assert.matches("closed", m.error)
        t.advance "1s"
        assert.equal(2, #t.asked()) assert.equal(429, t.sent("desk")[1].status)
        t.advance "59s"
        assert.equal(2, #t.asked())
        t.http("POST https://desk.example/alerts", 204)
        t.advance "1m"
        assert.equal("delivered", t.sent("desk")[1].state)
        assert.same({ value = 1 }, t.asked()[3].json)
      end)
      it("fails for what nothing answers", function()
        local rule = t.plugin("all", { to = "desk" })
        t.plugin("hook", { name = "desk", url = "https://desk.example/alerts" })
        rule:reading { device = "d", metric = "x", value = 1 }
      end) ]] }
    assert.matches("a plugin asked POST https://desk.example/alerts, and no t.http or t.fail answers that", out)
    assert.matches("2 passed, 1 failed\n$", out)
  end)

  it("fails a test that gives input from inside of an answer", function()
    local out, code = run { ["plugins/vendors/cloud.lua"] = [[
      local plugin = ...
      local http = require "neap.http"
      plugin:config { url = { "string", default = "https://far.example/" } }
      plugin:command { "ask", handler = function() return assert(http.get("https://far.example/")).status end }
    ]], ["plugins/vendors/cloud_spec.lua"] = [[
      local t = require "neap.test"
      it("answers", function()
        t.http("GET https://far.example/", function() t.advance "1s" return 200 end)
        t.plugin("cloud"):call "ask"
      end)
      it("goes on", function() t.plugin("cloud") t.advance "1s" end) ]] }
    assert.equal(1, code)
    assert.truthy(out:find("an answer of t.http gave input or moved the clock", 1, true), out)
    assert.truthy(out:find("1 passed, 1 failed", 1, true), out)
  end)

  it("ends a test that does not end, and goes on with the next", function()
    local out, code = run({ ["plugins/a_spec.lua"] = [[
      it("is endless", function() pcall(function() while true do end end) while true do pcall(error) end end)
      it("is the next", function() assert.is_true(true) end) ]] }, "--timeout", "1")
    assert.equal(1, code)
    assert.matches("a_spec.lua:1: the test was ended: it ran for 1 s", out)
    assert.matches("1 passed, 1 failed\n$", out)
  end)

  it("runs again when a plugin or a spec is saved", function()
    bed.write(folder .. "/plugins/rules/warm.lua", RULE)
    bed.write(folder .. "/plugins/rules/warm_spec.lua", spec 'p:reading { device = "f", metric = "temp", value = 9 }\nassert.equal(1, #t.sent())')
    local p = bed.start({ bed.neap, "test", "--watch" }, { cwd = folder })
    p:wait_for "1 passed, 0 failed\n.*runs again"
    bed.replace(folder .. "/plugins/rules/warm.lua", (RULE:gsub("default = 8", "default = 18")))
    p:wait_for "0 passed, 1 failed\n"
    bed.write(folder .. "/plugins/rules/warm_spec.lua", spec 'assert.equal(0, #t.sent())')
    p:wait_for "0 passed, 1 failed\n.*1 passed, 0 failed\n"
    assert.equal("signal", (p:stop(15)))
  end)

  it("has chance follow from a seed", function()
    local out = run { ["plugins/vendors/dice.lua"] = [[
      local plugin = ...
      local crypto = require "neap.crypto"
      plugin:command { "roll", handler = function() return { crypto.uuid() } end }
    ]], ["plugins/dice_spec.lua"] = [[
      local t = require "neap.test"
      local seen = {}
      for i, seed in ipairs { 1, 2, 1 } do
        it("rolls " .. i, function()
          t.random(seed)
          seen[i] = t.plugin("dice"):call("roll")[1]
        end)
      end
      it("is the same for the same seed", function()
        assert.equal(seen[1], seen[3]) assert.not_equal(seen[1], seen[2])
      end)
      it("knows zones", function()
        t.zone "Asia/Shanghai"
        t.at "2026-03-01 08:00:00"
        assert.equal(1772323200000, t.now())
        assert.has_error(function() t.zone "Asia/Nowhere" end)
      end) ]] }
    assert.matches("5 passed, 0 failed\n$", out)
  end)
end)
