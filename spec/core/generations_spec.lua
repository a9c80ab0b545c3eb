-- Generations are kept, compared, and gone back to: by an operator, and by neap itself where a new one fails as the one before did not.
local bed = require "bed"

local function rule(text) return ([[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "level" }, function(r) %s end)]]):format(text) end
local SEND = [[plugin:send(config.to, { said = "%s", value = r.value })]]

local FEED = [[
local plugin = ...
plugin:serve { "POST /level", body = { value = { "number" } }, handler = function(req)
  plugin:emit { device = "d", metric = "level", value = req.body.value, key = tostring(req.body.value) }
  return 204
end }]]

describe("generations", function()
  local host, desk, count
  before_each(function()
    desk, count = bed.receiver(), 0
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["rules/say.lua"] = rule(SEND:format "one"), ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") },
      config = ([[lanes = 2, rules = { { "say", to = "desk" } }, destinations = { desk = { "webhook", url = %q } }]]):format(desk.url) }
  end)
  after_each(function()
    desk:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  local function save(text) bed.replace(host.plugins .. "/rules/say.lua", text) end
  local function generation(n) bed.wait("generation " .. n, function() return host:plugin("say").generation == n end) end
  local function say()
    count = count + 1
    assert.equal(204, (host:request("POST", "/level", { value = count })))
    return desk:wait(count)[count].json.said
  end
  local function rollback(...) return bed.run { bed.neap, "rollback", "--store", host.store, "say", ... } end

  it("are kept with what they were and why they came; what was not let in too", function()
    save(rule(SEND:format "two"))
    generation(2)
    save "local plugin = ...\nplugin:on("
    bed.wait("the refusal", function() return host:plugin("say").error end)
    save(rule(SEND:format "three"))
    generation(3)
    local list = host:command("history", "say")
    assert.equal(4, list[#list].summary.generations)
    assert.same({ 3, "good", "in force" }, { list[1].generation, list[1].verdict, list[1].state })
    assert.same({ "bad" }, { list[2].verdict, list[2].generation })
    assert.matches("say.lua:2", list[2].reason, 1, true)
    assert.same({ 2, "good", "its file or a library changed" }, { list[3].generation, list[3].verdict, list[3].cause })
    assert.same({ 1, "good" }, { list[4].generation, list[4].verdict })
    assert.is_nil(list[3].state)
    local shown = bed.run { bed.neap, "history", "say", "--store", host.store }
    assert.matches("3 +%S+ +in force", shown)
    local out, code = bed.run { bed.neap, "history", "nobody", "--store", host.store }
    assert.same({ 1, true }, { code, out:find('no generation of a plugin "nobody"', 1, true) ~= nil }, out)
  end)

  it("can be compared", function()
    save(rule(SEND:format "two"))
    generation(2)
    local out, code = bed.run { bed.neap, "diff", "say", "1", "2", "--store", host.store }
    assert.equal(1, code, out)
    assert.matches("-plugin:on({ metric = \"level\" }, function(r) plugin:send(config.to, { said = \"one\"", out, 1, true)
    assert.matches("+plugin:on({ metric = \"level\" }, function(r) plugin:send(config.to, { said = \"two\"", out, 1, true)
    assert.same({ "", 0 }, { bed.run { bed.neap, "diff", "say", "2", "--store", host.store } })
    out, code = bed.run { bed.neap, "diff", "say", "7", "--store", host.store }
    assert.equal(2, code)
    assert.matches("generation 7 is not kept", out, 1, true)
  end)

  it("can be gone back to; that holds over a restart, until the file changes; numbers are not given twice", function()
    assert.equal("one", say())
    save(rule(SEND:format "two"))
    generation(2)
    assert.equal("two", say())
    local out, code = rollback()
    assert.equal(0, code, out)
    assert.matches("say: generation 1 is in force", out, 1, true)
    assert.equal("one", say())
    assert.same({ "rolled back", 1 }, { host:plugin("say").state, host:plugin("say").generation })
    local list = host:command("history", "say")
    assert.same({ 1, "in force" }, { list[1].generation, list[1].state })
    assert.matches("^neap rollback by ", list[1].cause)
    assert.equal(0, (select(2, host:command "reload")))
    host:restart()
    assert.same({ "rolled back", 1 }, { host:plugin("say").state, host:plugin("say").generation })
    assert.equal("one", say())
    save(rule(SEND:format "three"))
    generation(3)
    assert.equal("three", say())
    assert.equal("in force", host:plugin("say").state)
    host:restart()
    assert.same({ "in force", 3 }, { host:plugin("say").state, host:plugin("say").generation })
    assert.equal(0, (select(2, rollback "2")))
    assert.equal("two", say())
    assert.equal(0, (select(2, rollback "3"))) -- and forth again
    assert.equal("three", say())
  end)

  it("that do not exist, or are in force, are refused, and nothing changes", function()
    for _, c in ipairs { { "9", "no good generation 9" }, { "1", "in force already" }, { "x", "a generation is a number" } } do
      local out, code = rollback(c[1])
      assert.not_equal(0, code)
      assert.matches(c[2], out, 1, true)
    end
    local out = rollback()
    assert.matches("no good generation before 1", out, 1, true)
    assert.matches('no plugin "nobody"', (bed.run { bed.neap, "rollback", "nobody", "--store", host.store }), 1, true)
    assert.equal("one", say())
  end)

  it("that differ in their settings alone are not gone back to, which would change nothing; neap.lua has those", function()
    local path = host.folder .. "/neap.lua"
    local text, original = rule(SEND:format "one"):gsub('to = { "destination" }', 'to = { "destination" }, more = { "string", default = "" }'), bed.read(path)
    save(text)
    generation(2)
    bed.replace(path, (original:gsub('"say", to = "desk"', '"say", to = "desk", more = "x"')))
    generation(3)
    local out, code = rollback "2"
    assert.equal(1, code)
    assert.matches("say: generations 2 and 3 have the same text and differ in their settings: change those in neap.lua", out, 1, true)
    assert.same({ "in force", 3 }, { host:plugin("say").state, host:plugin("say").generation })
    out, code = bed.run { bed.neap, "diff", "say", "2", "3", "--store", host.store }
    assert.equal(0, code)
    assert.matches("generations 2 and 3 have the same text; it may be that their settings differ", out, 1, true)
    bed.replace(path, original)
    generation(4)
    out, code = rollback() -- to the newest that has another text
    assert.same({ 0, "say: generation 1 is in force, until its file changes, with the settings that neap.lua has\n" }, { code, out })
  end)

  it("one that fails where the one before did not is taken back by itself; what it held is then ruled on", function()
    for _ = 1, 3 do say() end
    save(rule "error 'three in the morning'")
    generation(2)
    for i = 4, 15 do assert.equal(204, (host:request("POST", "/level", { value = i }))) end
    bed.wait("it to be taken back", function() return host:plugin("say").generation == 1 end)
    host:wait_text "taken back: it failed where the generation before did not"
    local list = host:command("history", "say")
    assert.matches("^taken back by itself: %d+ of its last %d+ calls failed", list[1].cause)
    assert.equal("rolled back", host:plugin("say").state)
    desk:wait(15)
    local seen = {}
    for _, r in ipairs(desk.requests) do
      assert.is_nil(seen[r.json.value])
      seen[r.json.value] = true
    end
    for i = 1, 15 do assert.is_true(seen[i], "value " .. i) end
    assert.equal(0, host:sql "select count(*) n from held"[1].n)
  end)

  it("one that cannot be taken back stays, which is said once, and holds up no other", function()
    local function vendor(path, body) return ('local plugin = ...\nplugin:serve { "POST %s", handler = function() %s end }'):format(path, body) end
    local function at(name, n) bed.wait(name, function() return (host:plugin(name) or {}).generation == n end) end
    local function save_as(name, text) bed.replace(host.plugins .. "/vendors/" .. name .. ".lua", text) end
    save_as("moves", vendor("/here", "return 204"))
    at("moves", 1)
    save_as("moves", vendor("/there", "error 'there'"))
    at("moves", 2)
    save_as("takes", vendor("/here", "return 204"))
    at("takes", 1)
    save_as("yields", vendor("/yields", "return 204"))
    at("yields", 1)
    save_as("yields", vendor("/yields", "error 'yields'"))
    at("yields", 2)
    for _ = 1, 12 do assert.equal(500, (host:request("POST", "/there"))) end
    host:wait_text "and cannot be taken back"
    for _ = 1, 12 do host:request("POST", "/yields") end
    at("yields", 1)
    local _, said = host:read():gsub("and cannot be taken back", "")
    assert.equal(1, said)
    assert.equal(2, host:plugin("moves").generation)
  end)

  it("one whose predecessor failed as much stays", function()
    save(rule "error 'always'")
    generation(2)
    for i = 1, 9 do assert.equal(204, (host:request("POST", "/level", { value = i }))) end -- too few to be judged
    save(rule "error 'always, still'")
    generation(3)
    for i = 10, 30 do assert.equal(204, (host:request("POST", "/level", { value = i }))) end
    bed.wait("all to be held", function() return host:sql "select count(*) n from held"[1].n == 30 end)
    assert.equal(3, host:plugin("say").generation)
    save(rule(SEND:format "mended"))
    desk:wait(30)

  end)
end)
