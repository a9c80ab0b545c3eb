-- The gate: what a new generation has to pass before it is in force, and what an operator is told of it.
local bed = require "bed"
local json = require "neap.json"

local FEED = [[
local plugin = ...
plugin:serve { "POST /level", body = { device = { "string" }, value = { "number" } }, handler = function(req)
  plugin:emit { device = req.body.device, metric = "level", value = req.body.value, key = tostring(req.body.value) }
  return 204
end }]]

-- Says each value below a limit, with a word.
local function rule(limit, word) return ([[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "level", below = %s }, function(r)
  plugin:send(config.to, { said = "%s", value = r.value })
end)]]):format(limit, word or "low") end

local limited = rule("config.limit"):gsub("plugin:config {", "plugin:config { limit = { 'number', default = 5 },")

local function stages(gate)
  local by = {}
  for _, s in ipairs(gate.stages) do by[s.stage] = s end
  return by
end

describe("the gate", function()
  local host, desk
  local function start(options)
    options = options or {}
    desk = bed.receiver()
    local plugins = { ["vendors/feed.lua"] = FEED, ["rules/say.lua"] = rule(5), ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") }
    for name, text in pairs(options.plugins or {}) do plugins[name] = text end
    host = bed.host { plugins = plugins, config = ([[lanes = 2, %s rules = { { "say", to = "desk", %s } },
      destinations = { desk = { "webhook", url = %q } }]]):format(options.top or "", options.entry or "", desk.url) }
  end
  after_each(function()
    desk:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  local function save(text) bed.replace(host.plugins .. "/rules/say.lua", text) end
  local function push(...)
    for _, value in ipairs { ... } do assert.equal(204, (host:request("POST", "/level", { device = "d" .. value % 2, value = value }))) end
  end
  local function say() return host:plugin "say" end
  local function waits(n) return bed.wait("generation " .. n .. " to wait", function()
    local p = say()
    return p.gate and p.gate.approval and p.gate.generation == n and p
  end) end
  local function generation(n) return bed.wait("generation " .. n, function()
    local p = say()
    return p.generation == n and p
  end) end
  local function neap(command, ...) return bed.run { bed.neap, command, "say", "--store", host.store, ... } end

  describe("of a rule whose policy is hold", function()
    before_each(function() start { entry = 'policy = "hold"' } end)

    it("keeps what would send other messages until it is approved, and shows exactly which", function()
      push(1, 2, 3, 6, 7)
      desk:wait(3)
      save(rule(7, "low"):gsub("value = r.value", "value = r.value == 2 and 20 or r.value"))
      local p = waits(2)
      assert.equal(1, p.generation)
      assert.equal("waiting for approval: 1 new, 1 different, over the last 5 readings", p.waiting)
      assert.same({ "passed", "passed", "passed", "left out", "differs" }, { stages(p.gate).syntax.verdict, stages(p.gate).declarations.verdict,
        stages(p.gate).configuration.verdict, stages(p.gate).spec.verdict, stages(p.gate).shadow.verdict })
      host:wait_text "it waits to be approved"
      local list, code = host:command("diff", "say", "--messages")
      assert.equal(0, code)
      assert.same({ { "different", "d0", 2, 2, 20 }, { "new", "d0", 4, nil, 6 } }, {
        { list[1].change, list[1].device, list[1].reading, list[1].before.value, list[1].after.value },
        { list[2].change, list[2].device, list[2].reading, nil, list[2].after.value } })
      assert.same({ changes = 2, shown = 2, generation = 2, readings = 5, wanted = 5, new = 1, gone = 0, different = 1, failing = 0, mended = 0 }, list[3].summary)
      local shown = neap("diff", "--messages")
      assert.matches('d0 .*different .*desk .*{"said":"low","value":2}', shown)
      assert.matches('would be .*{"said":"low","value":20}', shown)
      assert.matches('new .*desk .*{"said":"low","value":6}', shown)
      assert.matches("waiting for approval: 1 new, 1 different", (bed.run { bed.neap, "plugins", "--store", host.store }), 1, true)
      push(4, 6.5) -- the old generation serves
      assert.equal(4, desk:wait(4)[4].json.value)
      local out
      out, code = neap "approve"
      assert.same({ 0, "say: generation 2 is in force\n" }, { code, out })
      push(5.5)
      assert.equal(5.5, desk:wait(5)[5].json.value)
      local history = host:command("history", "say")
      assert.same({ 2, "good", "in force" }, { history[1].generation, history[1].verdict, history[1].state })
      assert.matches("^neap approve by ", history[1].cause)
      assert.same({ 2, "waiting", "1 new, 1 different, over the last 5 readings" }, { history[2].generation, history[2].verdict, history[2].reason })
      assert.equal("differs", stages(history[2]).shadow.verdict)
      local lines = neap "history"
      assert.matches("2 +%S+ +in force +neap approve by %S+: 1 new, 1 different, over the last 5 readings", lines)
      assert.matches("2 +%S+ +waited +its messages would be others: 1 new, 1 different", lines)
      assert.equal("nothing waits to be approved", (neap "approve"):match "nothing waits to be approved")
      assert.equal(0, (select(2, neap "rollback")))
      push(6.25, 0.5)
      assert.equal(0.5, desk:wait(6)[6].json.value)
      assert.equal(6, #desk:poll())
    end)

    it("lets through what would send the same", function()
      push(1, 2)
      desk:wait(2)
      save(rule(5) .. "\n-- a remark")
      local p = generation(2)
      assert.equal("the same messages, over the last 2 readings", stages(p.gate).shadow.said)
      assert.is_nil(p.waiting)
    end)

    it("goes on waiting over a restart; a further change replaces what waits, and the file as it was ends it", function()
      push(1, 6)
      desk:wait(1)
      save(rule(7))
      waits(2)
      host:restart()
      local p = waits(2)
      assert.equal(1, p.generation)
      assert.equal("waiting for approval: 1 new, over the last 2 readings", p.waiting)
      push(6.5, 2)
      assert.equal(2, desk:wait(2)[2].json.value)
      save(rule(0.5))
      p = waits(3)
      assert.equal("waiting for approval: 2 gone, over the last 4 readings", p.waiting)
      save(rule(5))
      bed.wait("nothing to wait", function() return not say().waiting end)
      assert.equal(1, say().generation)
      assert.matches("nothing waits", (neap "approve"), 1, true)
      push(3, 8)
      assert.equal(3, desk:wait(3)[3].json.value)
    end)

    it("keeps a change of its settings too, over a restart, and is approved after it", function()
      push(1, 6)
      desk:wait(1)
      save(limited)
      generation(2) -- its default is what was
      local function configure(limit)
        local path = host.folder .. "/neap.lua"
        bed.replace(path, (bed.read(path):gsub('policy = "hold"[^}]*', 'policy = "hold", limit = ' .. limit)))
      end
      configure(7)
      local p = waits(3)
      assert.same({ 2, "waiting for approval: 1 new, over the last 2 readings" }, { p.generation, p.waiting })
      local checked = bed.run { bed.neap, "check", host.folder, "--against", host.store }
      assert.matches("say: shadow: 1 new, over the last 2 readings", checked, 1, true)
      host:restart()
      p = waits(3)
      assert.same({ 2, "waiting for approval: 1 new, over the last 2 readings" }, { p.generation, p.waiting })
      push(6.5, 2)
      assert.equal(2, desk:wait(2)[2].json.value)
      assert.same({ "say: generation 3 is in force\n", 0 }, { neap "approve" })
      assert.same({ "in force", 3 }, { say().state, say().generation })
      push(5.5)
      assert.equal(5.5, desk:wait(3)[3].json.value)
      host:restart()
      assert.same({ "in force", 3 }, { say().state, say().generation })
      assert.is_nil(say().waiting)
      configure(5)
      waits(4)
      configure(7)
      bed.wait("nothing to wait", function() return not say().waiting end)
      assert.equal(3, say().generation)
    end)

    it("puts in force what waits where the policy holds no more", function()
      push(1, 6)
      desk:wait(1)
      save(rule(7))
      waits(2)
      assert.matches("1 at the gate", (bed.run { bed.neap, "reload", "--store", host.store }), 1, true)
      bed.replace(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub('"hold"', '"inform"')))
      local p = generation(2)
      assert.is_nil(p.waiting)
      push(6.5)
      assert.equal(6.5, desk:wait(2)[2].json.value)
    end)

    it("goes back over what waits, which then waits no more", function()
      push(1)
      desk:wait(1)
      save(rule(5) .. "\n-- a remark")
      generation(2)
      save(rule(7) .. "\n-- another")
      push(6)
      bed.wait("something to wait, or to be in force", function() return say().generation == 3 or say().waiting end)
      save(rule(0.5))
      bed.wait("it to wait", function() return (say().waiting or ""):find("gone", 1, true) end)
      assert.equal(0, (select(2, neap "rollback")))
      assert.is_nil(say().waiting)
      assert.equal("rolled back", say().state)
      assert.matches("nothing waits", (neap "approve"), 1, true)
    end)

    it("is approved as it was seen, in the middle of a set that is still being written", function()
      push(1, 6)
      desk:wait(1)
      save(rule(7))
      waits(2)
      local feed = host.plugins .. "/vendors/feed.lua"
      bed.write(host.plugins .. "/.hold", "")
      bed.replace(feed, FEED .. "\n-- half of the set")
      save(rule(8))
      assert.equal(0, (select(2, neap "approve")))
      assert.same({ 2, 1 }, { say().generation, host:plugin("feed").generation })
      assert.equal(0, (select(2, neap "rollback")))
      assert.same({ 1, 1 }, { say().generation, host:plugin("feed").generation })
      os.remove(host.plugins .. "/.hold")
      waits(3)
      assert.equal(2, host:plugin("feed").generation)
    end)

    it("keeps what would fail where the one before did not", function()
      push(1, 6)
      desk:wait(1)
      save(rule(5):gsub("plugin:send", "if r.value < 2 then error 'no' end plugin:send"))
      local p = waits(2)
      assert.equal("waiting for approval: 1 gone, 1 failing, over the last 2 readings", p.waiting)
      local list = host:command("diff", "say", "--messages")
      assert.matches("say.lua:4: no", list[2].after or list[1].after, 1, true)
    end)
  end)

  it("informs where the policy does not hold: it is in force at once, and what differs is told", function()
    start()
    push(1, 6)
    desk:wait(1)
    save(rule(7))
    generation(2)
    local p = bed.wait("the shadow run", function()
      local p = say()
      return stages(p.gate).shadow.verdict == "differs" and p
    end)
    assert.equal("1 new, over the last 2 readings", stages(p.gate).shadow.said)
    host:wait_text "its messages are others"
    assert.equal(6, host:command("diff", "say", "--messages")[1].after.value)
    assert.equal("differs", stages(host:command("history", "say")[1]).shadow.verdict)
  end)

  describe("of a plugin whose spec is asked for", function()
    local function spec(value) return ([[
local t = require "neap.test"
describe("say", function()
  it("says what is low", function()
    local p = t.plugin("say", { to = "desk" })
    p:reading { device = "d", metric = "level", value = %s }
    assert.equal("low", t.sent("desk")[1].data.said)
  end)
  it("says nothing of what is not", function()
    local p = t.plugin("say", { to = "desk" })
    p:reading { device = "d", metric = "level", value = 1000 }
    assert.same({}, t.sent("desk"))
  end)
end)]]):format(value) end
    before_each(function() start { top = "check = { spec = true },", plugins = { ["rules/say_spec.lua"] = spec(3) } } end)

    it("runs it before anything is in force, also the first time", function()
      local p = generation(1)
      assert.equal("2 passed", stages(p.gate).spec.said)
      assert.equal("left out", stages(host:plugin("feed").gate).spec.verdict)
      assert.equal("it has none", stages(host:plugin("feed").gate).spec.said)
      push(1)
      desk:wait(1)
      save(rule(5, "deep"))
      p = bed.wait("it to be refused", function() return say().error and say() end)
      assert.equal(1, p.generation)
      assert.matches("rules/say.lua: its spec failed: say_spec.lua: 1 of 2 failed: say_spec.lua:3: say says what is low", p.error, 1, true)
      assert.same({ "failed", "not reached" }, { stages(p.gate).spec.verdict, stages(p.gate).shadow.verdict })
      push(2)
      assert.equal("low", desk:wait(2)[2].json.said)
      assert.matches("its spec failed", host:command("history", "say")[1].reason, 1, true)
      save(rule(6))
      p = generation(2)
      assert.equal("passed", stages(p.gate).spec.verdict)
    end)

    it("runs it again when the spec has been mended", function()
      generation(1)
      bed.replace(host.plugins .. "/rules/say_spec.lua", spec(5.5))
      save(rule(5) .. "\n-- a remark")
      bed.wait("it to be refused", function() return say().error end)
      bed.replace(host.plugins .. "/rules/say_spec.lua", spec(4.5))
      generation(2)
      assert.is_nil(say().error)
    end)

    it("lets nothing else in when it ends in the middle of a set that is still being written", function()
      generation(1)
      bed.write(host.plugins .. "/rules/say_spec.lua", [[it("takes its time", function() local n = 0; for i = 1, 2e7 do n = n + i end end)]])
      save(rule(7))
      bed.wait("its spec to run", function() return say().waiting end)
      bed.write(host.plugins .. "/.hold", "")
      bed.replace(host.plugins .. "/vendors/feed.lua", FEED .. "\n-- half of the set")
      bed.wait("its spec to have passed", function()
        local p = say()
        return stages(p.gate).spec.verdict == "passed"
      end)
      assert.same({ 1, 1 }, { say().generation, host:plugin("feed").generation })
      os.remove(host.plugins .. "/.hold")
      generation(2)
      assert.equal(2, host:plugin("feed").generation)
    end)

    it("ends one that does not end", function()
      generation(1)
      bed.replace(host.plugins .. "/rules/say_spec.lua", "while true do end")
      bed.write(host.folder .. "/neap.lua", bed.read(host.folder .. "/neap.lua"):gsub("spec = true", "spec = true, time = '0.3s'"))
      save(rule(5) .. "\n-- a remark")
      bed.wait("it to be refused", function() return (say().error or ""):find("it took longer than 0.3 s", 1, true) end)
      push(1)
      desk:wait(1)
      assert.equal(1, say().generation)
    end)
  end)
end)

-- A set is one decision.
describe("the gate of an atomic set", function()
  local host
  after_each(function() host:stop() end)

  it("holds all that changed together, and lets all of it in with the approval", function()
    local function vendor(value) return ('local plugin = ...\nplugin:serve { "GET /say", handler = function() return 200, { value = %d } end }'):format(value) end
    local desk = bed.receiver()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["vendors/answer.lua"] = vendor(1), ["rules/say.lua"] = rule(5),
      ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") },
      config = ([[lanes = 2, deploy = "atomic", rules = { { "say", to = "desk", policy = "hold" } }, destinations = { desk = { "webhook", url = %q } }]]):format(desk.url) }
    local function answer() return (select(2, host:json("GET", "/say"))).value end
    assert.equal(204, (host:request("POST", "/level", { device = "d", value = 6 })))
    bed.write(host.plugins .. "/.hold", "")
    bed.replace(host.plugins .. "/vendors/answer.lua", vendor(2))
    bed.replace(host.plugins .. "/rules/say.lua", rule(7))
    os.remove(host.plugins .. "/.hold")
    bed.wait("the rule to wait", function() return (host:plugin "say".waiting or ""):find("waiting for approval: 1 new", 1, true) end)
    bed.wait("the other to be held back", function() return (host:plugin "answer".error or ""):find("waiting for approval: 1 new", 1, true) end)
    assert.same({ 1, 1, 1 }, { answer(), host:plugin "say".generation, host:plugin "answer".generation })
    local out, code = bed.run { bed.neap, "approve", "say", "--store", host.store }
    assert.equal(0, code, out)
    assert.same({ 2, 2, 2 }, { answer(), host:plugin "say".generation, host:plugin "answer".generation })
    assert.is_nil(host:plugin "answer".error)
    desk:close()
  end)

  it("keeps an approval while another file holds the set back, until that is taken away", function()
    local desk = bed.receiver()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["vendors/other.lua"] = 'local plugin = ...\nplugin:serve { "GET /other", handler = function() return 204 end }',
      ["rules/say.lua"] = rule(5), ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") },
      config = ([[deploy = "atomic", rules = { { "say", to = "desk", policy = "hold" } }, destinations = { desk = { "webhook", url = %q } }]]):format(desk.url) }
    assert.equal(204, (host:request("POST", "/level", { device = "d", value = 6 })))
    bed.write(host.plugins .. "/.hold", "")
    bed.replace(host.plugins .. "/vendors/other.lua", "broken")
    bed.replace(host.plugins .. "/rules/say.lua", rule(7))
    os.remove(host.plugins .. "/.hold")
    bed.wait("the rule to wait", function() return (host:plugin "say".waiting or ""):find("waiting for approval: 1 new", 1, true) end)
    local out, code = bed.run { bed.neap, "approve", "say", "--store", host.store }
    assert.same({ 1, 1 }, { code, host:plugin "say".generation }, out)
    assert.matches("approved, and still held back", out, 1, true)
    os.remove(host.plugins .. "/vendors/other.lua")
    bed.wait("the approved generation", function() return host:plugin "say".generation == 2 end)
    assert.matches("^neap approve by ", host:command("history", "say")[1].cause)
    assert.is_nil(host:plugin "other")
    desk:close()
  end)
end)

-- A day of readings, at known times; and rules with all the memory that a rule can have.
describe("neap check --against a store", function()
  local HOUR = 3600000
  local BASE = os.time() // 60 * 60000 - 20 * HOUR
  local MINUTES = { 0, 10, 20, 30, 60, 70 } -- of the six readings
  local host, desk

  local function memory(throttle, silence) return ([[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "level" }, function(r)
  plugin:arm("silence", r.device, %q)
  if plugin:throttle(r.device, %q) then return end
  local fresh = not plugin.store:get "fresh"
  if fresh then plugin.store:put("fresh", true, "15m") end
  plugin.store:put("count", (plugin.store:get "count" or 0) + 1)
  plugin:send(config.to, { said = "level", value = r.value, known = #plugin:history(r.device, "level", { last = "20m" }), fresh = fresh,
    count = plugin.store:get "count" })
end)
plugin:timer("silence", function(device)
  plugin:send(config.to, { device = device, said = "silence", known = #plugin:history(device, "level") })
end)]]):format(silence, throttle) end

  setup(function()
    desk = bed.receiver()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["rules/memory.lua"] = memory("15m", "15m"),
      ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") },
      config = ([[lanes = 1, rules = { { "memory", to = "desk" } }, destinations = { desk = { "webhook", url = %q } }]]):format(desk.url) }
    for value = 1, #MINUTES do assert.equal(204, (host:request("POST", "/level", { device = "d", value = value }))) end
    host:stop()
    local cases = {}
    for i, minute in ipairs(MINUTES) do cases[i] = ("when %d then %d"):format(i, BASE + minute * 60000) end
    local change = ("case seq %s end"):format(table.concat(cases, " "))
    local out, code = bed.run { "sqlite3", host.store, ("update reading_rows set received = %s, at = %s"):format(change, change) }
    assert(code == 0, out)
    host:begin() -- and so in use
  end)
  teardown(function()
    desk:close()
    host:stop()
  end)

  local function check(text)
    local folder = bed.folder()
    os.execute(("cp -r '%s' '%s/plugins' && cp '%s/neap.lua' '%s'"):format(host.plugins, folder, host.folder, folder))
    bed.write(folder .. "/neap.lua", bed.read(folder .. "/neap.lua"):gsub("plugins = %b\"\"", 'plugins = "plugins"'))
    bed.write(folder .. "/plugins/rules/memory.lua", text)
    local out, code = bed.run { bed.neap, "check", folder, "--against", host.store, "--json" }
    assert.equal(0, code, out)
    for line in out:gmatch "[^\n]+" do
      local p = json.decode(line)
      if p.instance == "memory" then
        local seen = {}
        for _, m in ipairs(p.messages or {}) do
          local body = m.after or m.before
          seen[#seen + 1] = ("%s %s %d known %d%s"):format(m.change, body.said, (m.at - BASE) // 60000, body.known, body.fresh and " fresh" or "")
        end
        return seen, stages(p).shadow, folder, p
      end
    end
  end

  it("finds no difference where there is none, whatever stands in the store now", function()
    local before = bed.run { "sqlite3", "-readonly", host.store, "select count(*), max(version) from kv; select count(*) from timers; select count(*) from outbox" }
    local seen, shadow = check(memory("15m", "15m") .. "\n-- a remark")
    assert.same({}, seen)
    assert.equal("the same messages, over the last 6 readings", shadow.said)
    assert.equal(before, (bed.run { "sqlite3", "-readonly", host.store, "select count(*), max(version) from kv; select count(*) from timers; select count(*) from outbox" }))
  end)

  it("runs throttles, timers, history and what a rule stores as they would have been", function()
    assert.same({ "new level 10 known 2", "different level 20 known 3 fresh", "new level 30 known 3", "different level 60 known 1 fresh",
      "new level 70 known 2" }, (check(memory("5m", "15m"))))
    assert.same({ "gone silence 45 known 4", "new silence 55 known 4", "gone silence 85 known 6", "new silence 95 known 6" },
      (check(memory("15m", "25m"))))
  end)

  it("shows people what a machine is told, and names a store that is none", function()
    local _, _, folder, line = check(memory("15m", "25m"))
    assert.equal("desk", line.messages[1].destination)
    local out, code = bed.run { bed.neap, "check", folder, "--against", host.store }
    assert.equal(0, code)
    assert.matches("memory: shadow: 2 new, 2 gone, over the last 6 readings", out, 1, true)
    assert.matches('gone +desk +{"device":"d","known":4,"said":"silence"}', out)
    assert.matches("3 plugins, all good", out, 1, true)
    out, code = bed.run { bed.neap, "check", folder, "--against", folder .. "/nothing.db" }
    assert.equal(1, code)
    assert.matches("nothing.db", out, 1, true)
  end)
end)
