-- What a plugin failed on is kept, and run again once it is mended: an upgrade that goes wrong at three in the morning.
local bed = require "bed"
local json = require "neap.json"

local GOOD = [[
local plugin = ...
local time = require "neap.time"
plugin:refuse(function(p) return p.status, { why = p.message } end)
plugin:serve { "POST /v/{device}",
  auth = function(req) return req.headers.key == "k" and "ann" or nil, "who are you?" end,
  query = { unit = { "string", default = "m" } }, body = { id = { "string" }, value = { "number" } },
  handler = function(req)
    local n = (plugin.store:get "n" or 0) + 1
    plugin.store:put("n", n)
    plugin:emit { device = req.params.device, metric = "level", value = req.body.value, key = req.body.id, unit = req.query.unit,
      extra = { now = time.now() - req.received, of = req.remote } }
    if req.body.value < 0 then return nil, "negative", "range", "value" end
    return 204
  end }]]
local BAD = GOOD:gsub("local n = ", "local n = nil + ", 1)

describe("neap replay --failed", function()
  local host
  before_each(function() host = bed.host { plugins = { ["vendors/v.lua"] = GOOD }, config = "lanes = 2" } end)
  after_each(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function push(i, value)
    return (host:request("POST", "/v/d%20" .. i % 3 .. "?unit=cm", { id = "r" .. i, value = value or i }, { key = "k" }))
  end
  local function save(text) bed.replace(host.plugins .. "/vendors/v.lua", text) end
  local function generation(n) bed.wait("generation " .. n, function() return host:plugin("v").generation == n end) end
  local function count(what) return host:sql("select count(*) n from " .. what)[1].n end
  local function replay() return bed.run { bed.neap, "replay", "v", "--failed", "--store", host.store } end

  it("after an upgrade that fails on every push and is taken back by itself, nothing is missing and nothing doubled", function()
    for i = 1, 12 do assert.equal(204, push(i)) end
    save(BAD)
    generation(2)
    local statuses = {}
    for i = 13, 40 do statuses[i] = push(i) end
    bed.wait("it to be taken back", function() return host:plugin("v").generation == 1 end)
    local failed = count "inbox where outcome = 'failed'"
    local seen = 0
    for i = 13, 40 do seen = seen + (statuses[i] == 500 and 1 or 0) end
    assert.is_true(failed >= 10)
    assert.equal(failed, seen)
    assert.equal(40 - failed, count "readings")
    for i = 38, 40 do push(i) end -- the vendor pushes some of them again by itself
    local left = count "inbox where outcome = 'failed'"
    local out, code = replay()
    assert.equal(0, code, out)
    assert.equal(left .. " done, 0 refused, 0 failed again\n", out)
    assert.equal(40, count "readings")
    assert.equal(40, host:sql "select count(distinct key) n from readings"[1].n)
    assert.equal(0, count "inbox where outcome = 'failed'")
    local row = host:sql "select r.device, r.unit, r.extra, i.outcome, i.status, i.generation from readings r join inbox i on i.id = r.request where r.key = 'r13'"[1]
    assert.same({ "d 1", "cm", "done", 204, 1 }, { row.device, row.unit, row.outcome, row.status, row.generation })
    assert.same({ now = 0, of = "127.0.0.1" }, json.decode(row.extra))
    assert.same({ "0 done, 0 refused, 0 failed again\n", 0 }, { replay() })
    assert.equal(40, count "readings")
  end)

  it("goes oldest first, however many; what is refused or fails again is told, and stays or is refused", function()
    assert.same({ "exit", 0 }, { host:stop() })
    host = bed.host { plugins = { ["vendors/v.lua"] = GOOD }, config = 'lanes = 2, probation = "0s"' } -- however long 60 pushes take
    save(BAD)
    generation(2)
    for i = 1, 60 do assert.equal(500, push(i, i == 7 and -7 or i)) end
    save((GOOD:gsub("local n = ", "if req.body.id == 'r9' then error 'not that one' end local n = ", 1)))
    generation(3)
    local out, code = replay()
    assert.equal(1, code)
    assert.matches("58 done, 1 refused, 1 failed again", out, 1, true)
    assert.matches("request 7: refused: body value: negative", out, 1, true)
    assert.matches("request 9: failed: plugins/vendors/v.lua", out, 1, true)
    assert.equal(58, count "readings")
    local keys = {}
    for i, r in ipairs(host:sql "select key from readings order by seq") do keys[i] = r.key end
    assert.same({ "r1", "r6", "r8", "r10" }, { keys[1], keys[6], keys[7], keys[8] })
    assert.equal(58, host:sql "select value from kv where space = 'plugin:v' and key = 'n'"[1].value + 0)
    assert.equal(1, count "inbox where outcome = 'failed'")
    save(GOOD)
    generation(4)
    assert.same({ "1 done, 0 refused, 0 failed again\n", 0 }, { replay() })
  end)

  it("asked for twice at once, or cut by a kill, counts each once", function()
    save(BAD)
    generation(2)
    for i = 1, 200 do push(i) end
    save(GOOD)
    generation(3)
    local argv = { bed.neap, "replay", "v", "--failed", "--store", host.store, "--json" }
    local a, b = bed.start(argv), bed.start(argv)
    bed.wait("some to be done", function() return count "readings" > 5 end)
    host:stop(9)
    a:wait() b:wait()
    host:begin()
    a, b = bed.start(argv), bed.start(argv)
    a:wait() b:wait()
    assert.equal(200, count "readings")
    assert.equal(200, host:sql "select value from kv where space = 'plugin:v' and key = 'n'"[1].value + 0)
    assert.equal(0, count "inbox where outcome = 'failed'")
  end)

  it("is never of another connection, whichever has its path by now", function()
    save(BAD)
    generation(2)
    assert.equal(500, push(1))
    save((GOOD:gsub("POST /v/", "POST /moved/", 1)))
    generation(3)
    bed.replace(host.plugins .. "/vendors/w.lua", GOOD)
    bed.wait("w", function() return host:plugin("w") and host:plugin("w").generation == 1 end)
    local out, code = replay()
    assert.equal(1, code, out)
    assert.matches("request 1: failed: no route of the plugin in force takes it", out, 1, true)
    assert.equal(0, count "readings")
    assert.equal(1, count "inbox where outcome = 'failed'")
  end)

  it("of what is no connection is refused", function()
    local out, code = bed.run { bed.neap, "replay", "nobody", "--failed", "--store", host.store }
    assert.equal(1, code)
    assert.matches("no connection \"nobody\"", out, 1, true)
    out, code = bed.run { bed.neap, "replay", "v", "--store", host.store }
    assert.equal(2, code)
    assert.matches("expected --failed", out, 1, true)
  end)
end)
