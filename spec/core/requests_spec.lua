-- Kept requests, whatever became of them, run again by the plugin in force: an upgrade that reads more out of what came, and what it would change, told before.
local bed = require "bed"
local json = require "neap.json"

local OLD = [[
local plugin = ...
plugin:refuse(function(p) return p.status, { why = p.message } end)
plugin:serve { "POST /v/{device}", body = { id = { "string" }, value = { "number" }, battery = { "number", optional = true } },
  handler = function(req)
    plugin.store:put("n", (plugin.store:get "n" or 0) + 1)
    plugin:emit { device = req.params.device, metric = "level", value = req.body.value, key = req.body.id, unit = "m" }
    return 204
  end }]]
-- Reads the battery too; r3 has other values, r4 gives nothing any more, r5 is refused, r6 fails, r7 has another time.
local NEW = [[
local plugin = ...
plugin:serve { "POST /v/{device}", body = { id = { "string" }, value = { "number" }, battery = { "number", optional = true } },
  handler = function(req)
    local b = req.body
    plugin.store:put("n", (plugin.store:get "n" or 0) + 1)
    if b.id == "r5" then return nil, "no more of those", "range", "id" end
    if b.id == "r6" then error "not that one" end
    if b.battery then plugin:emit { device = req.params.device, metric = "battery", value = b.battery } end
    if b.id == "r4" then return 204 end
    plugin:emit { device = req.params.device, metric = "level", value = b.id == "r3" and b.value + 0.5 or b.value, key = b.id,
      unit = b.id ~= "r3" and "m" or nil, at = b.id == "r7" and req.received - 5000 or nil }
    return 204
  end }]]
local RULE = [[
local plugin = ...
plugin:on({}, function(r) plugin:send("desk", { metric = r.metric, key = r.key }) end)]]

describe("neap replay CONNECTION --requests", function()
  local host
  before_each(function()
    host = bed.host { config = "lanes = 2", plugins = { ["vendors/v.lua"] = OLD, ["rules/tell.lua"] = RULE,
      ["destinations/desk.lua"] = "local plugin = ... plugin:deliver { handler = function() end }" } }
  end)
  after_each(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function push(i, more)
    local body = { id = "r" .. i, value = i }
    for k, v in pairs(more or {}) do body[k] = v end
    return (host:request("POST", "/v/d" .. i % 3, body))
  end
  local function upgrade(text)
    local before = host:plugin("v").generation
    bed.replace(host.plugins .. "/vendors/v.lua", text)
    bed.wait("the upgrade", function() return host:plugin("v").generation > before end)
  end
  local function count(what) return host:sql("select count(*) n from " .. what)[1].n end
  local function argv(...) return { bed.neap, "replay", "v", "--store", host.store, ... } end
  local function run(...) return bed.run(argv(...)) end
  local function lines(...)
    local out, code = run("--json", ...)
    local all = {}
    for line in out:gmatch "[^\n]+" do all[#all + 1] = json.decode(line) end
    return all, code
  end
  local function kept() return host:sql "select value from kv where space = 'plugin:v' and key = 'n'"[1].value + 0 end
  local function everything()
    return { host:sql "select * from readings order by seq", host:sql "select id, generation, status, outcome, error from inbox order by id",
      host:sql "select space, key, value from kv where space not like 'neap.%' order by 1, 2", host:sql "select count(*) n from events" }
  end

  it("tells what each would give now, compared with what is stored, and writes nothing", function()
    for i = 1, 8 do assert.equal(204, push(i, i < 3 and { battery = 50 + i } or nil)) end
    upgrade(NEW)
    local before = everything()
    local all, code = lines("--requests", "1..8", "--dry-run")
    assert.equal(1, code) -- one fails
    assert.equal(9, #all)
    local function got(i) return { all[i].was, all[i].outcome, all[i].readings } end
    local function counts(new, same, different, missing) return { new = new, same = same, different = different, missing = missing, too_old = 0 } end
    assert.same({ "done", "done", counts(1, 1, 0, 0) }, got(1))
    local received = host:sql "select received from inbox where id = 1"[1].received
    assert.same({ { what = "new", device = "d1", metric = "battery", at = received, value = 51 } }, all[1].changes)
    assert.same({ "done", "done", counts(0, 0, 1, 0) }, got(3))
    assert.same({ value = { stored = 3, now = 3.5 }, unit = { stored = "m", now = json.null } }, all[3].changes[1].fields)
    assert.equal(3, all[3].changes[1].seq)
    assert.same({ "done", "done", counts(0, 0, 0, 1) }, got(4))
    assert.same({ "missing", "d1", "level" }, { all[4].changes[1].what, all[4].changes[1].device, all[4].changes[1].metric })
    assert.same({ "done", "refused", counts(0, 0, 0, 1) }, got(5))
    assert.same({ "body id: no more of those", 400 }, { all[5].why, all[5].status })
    assert.same({ "done", "failed" }, got(6))
    assert.matches("not that one", all[6].why, 1, true)
    local sevens = all[7].changes[1].fields.at
    assert.same({ "different", 5000 }, { all[7].changes[1].what, sevens.stored - sevens.now })
    assert.same({ "done", "done", counts(0, 1, 0, 0) }, got(8))
    assert.same({ requests = 8, done = 6, refused = 1, failed = 1, gone = 0, dry = true, only_failed = false, last = 8, readings = counts(2, 3, 2, 2) },
      all[9].summary)
    local out = run("--requests", "..", "--dry-run")
    assert.matches("expected numbers of requests", out, 1, true)
    out = run("--requests", "1..", "--dry-run")
    assert.matches("request 1: new: d1 battery 51 at ", out, 1, true)
    assert.matches("request 3: different: d0 level 3.5 at [^\n]*: value 3 %-> 3.5, unit \"m\" %-> null\n", out)
    assert.matches("request 5: refused (it was done): body id: no more of those", out, 1, true)
    assert.matches("8 requests: 6 done, 1 refused, 1 failed; readings: 2 new, 3 same, 2 different, 2 missing; nothing was written\n", out, 1, true)
    assert.same(before, everything())
  end)

  it("stores what is new and nothing twice, without rules; what the request was before stays on record", function()
    for i = 1, 8 do push(i, i < 3 and { battery = 50 + i } or nil) end
    bed.wait("the rule", function() return count "outbox" + count "delivered" == 8 end)
    upgrade(NEW)
    local out, code = run("--requests", "1..8")
    assert.equal(1, code)
    assert.matches("8 requests: 6 done, 1 refused, 1 failed; readings: 2 new, 5 same\n", out, 1, true)
    assert.equal(10, count "readings")
    assert.same({ { 51, 1, "d1" }, { 52, 2, "d2" } }, (function(rows)
      for i, r in ipairs(rows) do rows[i] = { r.value, r.request, r.device } end
      return rows
    end)(host:sql "select value, request, device from readings where metric = 'battery' order by seq"))
    assert.equal(14, kept()) -- the six that are done count again; one that is refused or fails does nothing
    assert.same({ 2, "done", 2, "refused", 1, "done" }, (function(rows)
      return { rows[1].generation, rows[1].outcome, rows[2].generation, rows[2].outcome, rows[3].generation, rows[3].outcome }
    end)(host:sql "select generation, outcome from inbox where id in (1, 5, 6) order by id"))
    local story = host:command("explain", "q1")[1]
    assert.same({ 1, 1, "done", 204 }, { #story.request.before, story.request.before[1].generation, story.request.before[1].outcome,
      story.request.before[1].status })
    assert.same({ "level", "battery" }, { story.readings[1].metric, story.readings[2].metric })
    assert.is_true(story.readings[2].quiet)
    assert.matches("before that, until it was run again [^\n]*: done by generation 1", (bed.run { bed.neap, "explain", "q1", "--store", host.store }))
    assert.matches("before +done by generation 1, until it was run again ", (bed.run { bed.neap, "request", "1", "--store", host.store }))
    -- once more, with rules: there is nothing new any more, for them either
    assert.same({ new = 0, same = 7 }, lines("--requests", "1..8", "--rules")[9].summary.readings)
    assert.equal(10, count "readings")
    assert.equal(2, #host:command("explain", "q1")[1].request.before)
    assert.same({ "level", "battery" }, (function(rs) return { rs[1].metric, rs[2].metric, rs[3] } end)(host:command("explain", "q1")[1].readings))
    push(9)
    bed.wait("the rule to go on", function() return count "outbox" + count "delivered" == 9 end)
  end)

  it("runs rules where they are asked for, and on what had failed", function()
    upgrade((OLD:gsub("plugin:emit", "if req.body.id == 'r2' then error 'x' end if req.body.id == 'r1' then return 204 end plugin:emit", 1)))
    push(1) push(2) push(3)
    upgrade(OLD)
    assert.equal(2, lines("--requests", "1..3")[4].summary.readings.new)
    bed.wait("the rule", function() return count "outbox" + count "delivered" == 2 end) -- r2 and r3
    upgrade((OLD:gsub('"level"', '"height"', 1)))
    assert.equal(3, lines("--requests", "1..3", "--rules")[4].summary.readings.new)
    bed.wait("the rule", function() return count "outbox" + count "delivered" == 5 end)
  end)

  it("takes those of a range, after a number, of a time, or only failed ones of them", function()
    upgrade((OLD:gsub("plugin:emit", "if req.body.value == 4 then error 'x' end plugin:emit", 1)))
    for i = 1, 6 do push(i) end
    local function of(...)
      local ids = {}
      for i, line in ipairs((lines("--dry-run", ...))) do ids[i] = line.request end
      return ids
    end
    assert.same({ 2, 3 }, of("--requests", "2..3"))
    assert.same({ 5 }, of("--requests", "5"))
    assert.same({ 5, 6 }, of("--requests", "5.."))
    assert.same({ 1, 2 }, of("--requests", "..2"))
    assert.same({ 3 }, of("--requests", "1..3", "--after", "2"))
    assert.same({ 4 }, of("--requests", "1..5", "--failed"))
    assert.same({ 4 }, of "--failed")
    assert.same({}, of("--requests", "7.."))
    assert.same({ 1, 2, 3, 4, 5, 6 }, of("--since", "1h"))
    assert.same({}, of("--until", "1h"))
    local at = host:sql "select received from inbox where id = 4"[1].received
    local rows = host:sql("select count(*) n from inbox where received <= " .. at)
    local moment = os.date("!%Y-%m-%dT%H:%M:%S", at // 1000) .. (".%03dZ"):format(at % 1000)
    assert.equal(rows[1].n, #of("--until", moment))
    assert.equal(host:sql("select count(*) n from inbox where received >= " .. at)[1].n, #of("--since", moment))
  end)

  it("that is killed, or given up, says how far it has come, and goes on from there", function()
    for i = 1, 60 do push(i, { battery = i }) end
    upgrade(NEW:gsub('if b.id == "r5".-end\n', ""):gsub('if b.id == "r6".-end\n', ""))
    local p = bed.start(argv("--requests", "1..60", "--rate", "20/m"))
    bed.wait("the first ones", function() return count "readings where metric = 'battery'" >= 1 end)
    assert.equal(204, push(61)) -- others are served meanwhile
    p:stop(2)
    assert.same({ "exit", 130 }, { p.how, p.code })
    local after = p.output:match "it has come as far as request (%d+); the same with %-%-after %1 goes on from there"
    assert.is_truthy(after, p.output)
    p = bed.start(argv("--requests", "1..60", "--after", after, "--rate", "5/s", "--json"))
    bed.wait("some more", function() return count "readings where metric = 'battery'" >= 10 end)
    host:stop(9)
    p:wait()
    assert.matches("the host went away in the middle of its answer", p.output, 1, true)
    after = p.output:match "as far as request (%d+)" or after -- it may not have come to tell
    host:begin()
    local all, code = lines("--requests", "1..60", "--after", after)
    assert.equal(0, code)
    assert.equal(60 - after, all[#all].summary.requests)
    assert.equal(60, count "readings where metric = 'battery'")
    assert.equal(61, count "readings where metric = 'level'")
    assert.equal(60, host:sql "select count(distinct request) n from readings where metric = 'battery'"[1].n)
  end)

  it("calls nobody while it is only tried", function()
    local cloud = bed.receiver()
    upgrade([[
local plugin = ...
local config = plugin:config { url = { "string", default = "http://127.0.0.1:]] .. cloud.port .. [[" } }
local http = require "neap.http"
plugin:serve { "POST /v/{device}", handler = function(req)
  assert(http.post { url = config.url, json = { req.params.device } })
  return 204
end }]])
    push(1)
    assert.equal(1, #cloud:wait(1))
    local all = lines("--requests", "1", "--dry-run")
    assert.matches("not in a dry replay", all[1].why, 1, true)
    cloud:poll()
    assert.equal(1, #cloud.requests)
    cloud:close()
  end)

  it("of sealed requests does the same", function()
    upgrade((OLD:gsub('value = { "number" }', 'value = { "number" }, name = { "string", person = true }', 1)))
    push(1, { name = "Aurelia Tannhauser" })
    assert.equal(0, count "inbox where headers like '%ost%'")
    local all, code = lines("--requests", "1", "--dry-run")
    assert.equal(0, code)
    assert.same({ "done", 1 }, { all[1].outcome, all[1].readings.same })
    all = lines("--requests", "1")
    assert.same({ new = 0, same = 1 }, all[1].readings)
  end)

  it("is told what is wrong with its command line", function()
    local function wrong(text, ...)
      local out, code = run(...)
      assert.equal(2, code)
      assert.matches(text, out, 1, true)
    end
    for _, range in ipairs { "x", "3..x", "5..3", "0..2", "..", "1-2", "-1", "1..2..3", "99999999999999999999" } do wrong("numbers of requests", "--requests=" .. range) end
    wrong("--after: expected the number of a request", "--failed", "--after", "x")
    for _, rate in ipairs { "0", "x", "-1/s", "5/h", "nan", "1e9" } do wrong("--rate: expected so many a second or minute", "--failed", "--rate=" .. rate) end
    wrong("expected --failed, --requests FROM..TO, --since or --until")
    wrong("two things", "--failed", "--metric", "x")
    wrong("a time such as", "--since", "yesterday")
  end)
end)
