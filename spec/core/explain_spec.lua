-- neap explain: from a reading, a message or a request, the same story, with what is on record and what is computed told apart.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = bed.EMITTER .. "\n" .. [[
plugin:every("1h", "fetch", function() plugin:emit { device = "J", metric = "temp", value = 1, key = "job" } end)]]

local HOT = [[
local plugin = ...
plugin:on({ metric = "temp", above = 8 }, function(r) plugin:send("desk", { hot = r.value, patient = "Ann" }) end)]]

local RULES = {
  ["rules/hot.lua"] = HOT,
  ["rules/rising.lua"] = [[
    local plugin = ...
    plugin:on({ metric = "temp", above = 8, margin = 1 }, function(r) plugin.store:put("n", r.value) end)
    plugin:on({ metric = "door*" }, function() end)]],
  ["rules/broken.lua"] = [[
    local plugin = ...
    plugin:on({ metric = "temp", above = 20 }, function() error "no such luck" end)]],
  ["rules/silence.lua"] = [[
    local plugin = ...
    plugin:timer("quiet", function(key) plugin:send("desk", { device = key, quiet = true }) end)
    plugin:on({ metric = "beat" }, function(r) plugin:arm("quiet", r.device, "1s") end)]],
}

describe("neap explain", function()
  local host, desk
  setup(function()
    desk = bed.receiver()
    desk.answer = function()
      if #desk.requests == 1 then return 503, "come back" end
      return 200, "thanks"
    end
    local plugins = { ["vendors/v.lua"] = VENDOR, ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") }
    for name, text in pairs(RULES) do plugins[name] = text end
    host = bed.host { plugins = plugins, config = ([[lanes = 2, probation = "0s",
      destinations = { desk = { "webhook", url = %q, delivery = { backoff = "1s" } } }]]):format(desk.url) }
    assert.equal(204, (host:request("POST", "/v?token=t", { { device = "F", metric = "temp", value = 9.5 }, { device = "F", metric = "temp", value = 3,
      at = 1000 } })))
    desk:wait(2)
    bed.wait("the delivery on record", function() return host:sql "select count(*) n from delivered"[1].n == 1 end)
  end)
  teardown(function()
    assert.same({ "exit", 0 }, { host:stop() })
    desk:close()
  end)

  local function story(id, ...)
    local list, code = host:command("explain", id, ...)
    assert.equal(0, code, json.encode(list))
    return list[1]
  end
  local function tell(id, ...)
    local out, code = bed.run { bed.neap, "explain", id, "--store", host.store, ... }
    assert.equal(0, code, out)
    return out
  end
  local function refused(id)
    local out, code = bed.run { bed.neap, "explain", id, "--store", host.store }
    assert.equal(1, code, out)
    return out
  end
  local function rule(reading, name)
    for _, r in ipairs(reading.rules) do if r.rule == name then return r end end
  end
  local function seq(device, value) return host:sql(("select seq from readings where device = '%s' and value = %s"):format(device, value))[1].seq end
  local function settled(n)
    bed.wait("rules to have run, on record", function() return not story("r" .. n).readings[1].waiting end)
    return story("r" .. n).readings[1]
  end

  it("tells the same story from the reading, the message and the request", function()
    local hot, cold = seq("F", 9.5), seq("F", 3)
    settled(cold)
    local message = host:sql "select id, reading, generation from delivered"[1]
    assert.same({ hot, 1 }, { message.reading, message.generation })
    local from_reading, from_message, from_request = story("r" .. hot), story(message.id), story "q1"
    assert.same({ "reading", "message", "request" }, { from_reading.of, from_message.of, from_request.of })
    assert.same({ hot, cold }, { from_request.readings[1].seq, from_request.readings[2].seq })
    for _, s in ipairs { from_reading, from_message, from_request } do
      assert.same({ 1, "v", 1, "POST", "done", 204 }, { s.request.id, s.request.connection, s.request.generation, s.request.method, s.request.outcome,
        s.request.status })
      local r = rule(s.readings[1], "hot")
      assert.same({ "yes", 1, 1 }, { r.matches, r.generation, r["then"] })
      assert.same({ message.id, "desk", "delivered", 1 }, { r.messages[1].message, r.messages[1].to, r.messages[1].state, r.messages[1].generation })
      local a = r.messages[1].attempts
      assert.same({ 1, 503, "again", "come back" }, { a[1].attempt, a[1].status, a[1].outcome, a[1].answer })
      assert.same({ 2, 200, "delivered" }, { a[2].attempt, a[2].status, a[2].outcome })
      assert.is_true(r.messages[1].created >= s.readings[1].received and a[1].at >= r.messages[1].created and a[2].at >= a[1].at + a[1].took)
      assert.is_nil(r.messages[1].body)
    end
    assert.same(from_reading.readings, from_message.readings)
  end)

  it("says why a rule does not match, in the filter's words, and what cannot be known any more", function()
    local reading = settled(seq("F", 3))
    local hot = rule(reading, "hot")
    assert.same({ "no", 0, 0 }, { hot.matches, #hot.messages, #hot.held })
    assert.same({ { field = "metric", fits = "yes", why = '"temp" fits "temp"' }, { field = "above", fits = "no", why = "3 is not above 8" } },
      hot.filters[1].why)
    local rising = rule(settled(seq("F", 9.5)), "rising")
    assert.same({ "unknown", "unknown", "no" }, { rising.matches, rising.filters[1].matches, rising.filters[2].matches })
    local out = tell("r" .. seq("F", 9.5))
    assert.matches("hot: sent 1 message by generation 1, on record", out, 1, true)
    assert.matches("rising: may have matched; no message of it is on record", out, 1, true)
    assert.matches("margin: depends on what was remembered at that time", out, 1, true)
    assert.matches("attempt 1  %+%d+ ms  again, answered 503, took %d+ ms, by generation 1", out)
    assert.matches("attempt 2  %+%d+ ms  delivered, answered 200", out)
    assert.matches("message msg_%x+ to desk  %+%d+ ms", out)
    assert.matches("request q1  POST /v?token=", out, 1, true)
    assert.matches("broken: does not match\n.-above: 9.5 is not above 20 %(generation 1, in force now%)", out)
  end)

  it("shows what a rule has sent to --people alone, and logs that", function()
    local hot = seq("F", 9.5)
    assert.is_nil(tell("r" .. hot):find("Ann", 1, true))
    assert.is_nil(tell("r" .. hot):find("content-length", 1, true))
    host:read()
    assert.is_nil(host.output:find("details shown", 1, true))
    local out = tell("r" .. hot, "--people")
    assert.matches("Ann", out)
    assert.matches('"device":"F"', out, 1, true)
    host:wait_text '"event":"details shown","story":"r'
  end)

  it("tells of a rule that failed: held, then run by the next generation; and of generations that have changed since", function()
    host:request("POST", "/v", { { device = "F", metric = "temp", value = 30 } })
    local n = seq("F", 30)
    bed.wait("it to be held", function() return #rule(story("r" .. n).readings[1], "broken").held == 1 end)
    local held = rule(story("r" .. n).readings[1], "broken").held[1]
    assert.equal(1, held.generation)
    assert.matches("no such luck", held.error)
    assert.matches("broken: held, on record", tell("r" .. n), 1, true)
    bed.replace(host.plugins .. "/rules/broken.lua", [[
      local plugin = ...
      plugin:on({ metric = "temp", above = 40 }, function() end)]])
    bed.replace(host.plugins .. "/rules/hot.lua", HOT .. "\nplugin:on({ metric = 'none' }, function() end)")
    bed.wait("both in force", function() return host:plugin("hot").generation == 2 and host:plugin("broken").generation == 2 end)
    bed.wait("what was held to be gone", function() return host:sql "select count(*) n from held"[1].n == 0 end)
    local reading = story("r" .. n).readings[1]
    local broken, hot = rule(reading, "broken"), rule(reading, "hot")
    assert.same({ "no", 2, 1, 0 }, { broken.matches, broken.generation, broken["then"], #broken.held })
    assert.same({ 2, 1, 1 }, { hot.generation, hot["then"], hot.messages[1].generation })
    assert.matches("generation 2, in force now; then it was generation 1", tell("r" .. n), 1, true)
  end)

  it("tells of a timer's message, of a job's reading, of a rule that is gone, of a request that failed", function()
    host:request("POST", "/v", { { device = "H", metric = "beat", value = 1 } })
    bed.wait("the timer's message", function()
      desk:poll()
      return #host:sql "select id from delivered where reading = 0" == 1
    end)
    local id = host:sql "select id from delivered where reading = 0"[1].id
    local s = story(id)
    assert.same({ 0, "silence", id, 1 }, { #s.readings, s.message.rule, s.message.message, s.message.generation })
    assert.matches("a timer of silence", tell(id), 1, true)
    local job = seq("J", 1)
    assert.is_nil(story("r" .. job).request)
    assert.matches("no request: the reading was fetched by a job", tell("r" .. job), 1, true)
    os.remove(host.plugins .. "/rules/hot.lua")
    bed.wait("hot to be gone", function() return not host:plugin "hot" end)
    assert.matches("of rule hot, which is no longer configured: message msg_", tell("r" .. seq("F", 9.5)), 1, true)
    bed.replace(host.plugins .. "/rules/broken.lua", RULES["rules/broken.lua"])
    bed.wait("it to be in force", function() return host:plugin("broken").generation == 3 end)
    host:request("POST", "/v", { { device = "G", metric = "temp", value = 50 } })
    bed.wait("it to be held", function() return host:sql "select count(*) n from held"[1].n == 1 end)
    os.remove(host.plugins .. "/rules/broken.lua")
    bed.wait("broken to be gone", function() return not host:plugin "broken" end)
    assert.equal("broken", story("r" .. seq("G", 50)).readings[1].held[1].rule)
    assert.matches("for rule broken, which is no longer configured: held +", tell("r" .. seq("G", 50)), 1, true)
    local status = host:request("POST", "/v", { { device = "F", metric = "temp" } })
    assert.is_true(status >= 400, status)
    local failed = host:sql "select id from inbox where outcome != 'done' order by id desc limit 1"[1].id
    assert.matches("it gave no new readings", tell("q" .. failed), 1, true)
    local why = story("q" .. failed).request.error
    assert.matches("\n", why)
    assert.matches((why:gsub("\n", "; ")), tell("q" .. failed), 1, true)
  end)

  it("wants to know which, where a number is both; says what is gone", function()
    assert.matches("1 is a reading, r1, and a request, q1: say which", refused "1", 1, true)
    local most = host:sql "select max(seq) n from readings"[1].n
    assert.equal("r" .. most, "r" .. story(tostring(most)).readings[1].seq)
    assert.matches("there is no reading 4711", refused "r4711", 1, true)
    assert.matches("there is no request 4711", refused "q4711", 1, true)
    assert.matches("neither a reading nor a request 4711", refused "4711", 1, true)
    assert.matches("there is no message msg_none", refused "msg_none", 1, true)
    local hot, id = seq("F", 9.5), host:sql "select id from delivered where reading > 0"[1].id
    assert.same({ "exit", 0 }, { host:stop() })
    assert(os.execute(("sqlite3 %s 'delete from inbox where id = 1; delete from reading_rows where seq = 2'"):format(host.store)))
    host:begin()
    assert.equal(1, story("r" .. hot).request_gone)
    assert.matches("request q1 is gone", tell("r" .. hot), 1, true)
    assert.equal("r" .. hot, "r" .. story(id).readings[1].seq)
    assert.same({ "exit", 0 }, { host:stop() })
    assert(os.execute(("sqlite3 %s 'delete from reading_rows where seq = %d'"):format(host.store, hot)))
    host:begin()
    assert.equal(hot, story(id).reading_gone)
    assert.matches("reading r" .. hot .. " is gone", tell(id), 1, true)
  end)

  it("of many readings tells each, with the rules that did something; --json is one line", function()
    local many = {}
    for i = 1, 25 do many[i] = { device = "M", metric = "temp", value = i, at = i * 1000 } end
    assert.equal(204, (host:request("POST", "/v", many)))
    local id = host:sql "select max(id) n from inbox"[1].n
    local s = story("q" .. id)
    assert.same({ 20, 5 }, { #s.readings, s.more_readings })
    assert.is_true(s.readings[1].others >= 1)
    assert.matches("5 more readings", tell("q" .. id), 1, true)
    assert.matches("tells why", tell("q" .. id), 1, true)
  end)

  it("finds everything by an index, however much there is", function()
    for _, query in ipairs { "select * from outbox where reading = 5 and reading > 0", "select * from delivered where reading = 5 and reading > 0",
      "select * from dead where reading = 5 and reading > 0", "select * from dropped where reading = 5 and reading > 0", "select * from held where reading = 5",
      "select * from outbox where id = 'x'", "select * from reading_rows where seq >= (select reading from inbox where id = 5 and reading > 0) order by seq" } do
      local plan, code = bed.run { "sqlite3", "-readonly", host.store, "explain query plan " .. query }
      assert.equal(0, code, plan)
      assert.is_nil(plan:find "SCAN", query .. ": " .. plan)
    end
  end)
end)
