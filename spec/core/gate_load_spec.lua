-- Under load a rule is changed so that it would send other messages: the report shows exactly which, approving puts it in force, rolling back restores
-- what was; nothing is lost, nothing is routed twice.
local bed = require "bed"
local json = require "neap.json"

-- One message of each reading, and one more of each seventh where `more` says so.
local function rule(more) return ([[
local plugin = ...
plugin:on({ metric = "glucose" }, function(r)
  local n = (plugin.store:get(r.device) or 0) + 1
  plugin.store:put(r.device, n)
  plugin:send("sink", { reading = r.id })
  %s
end)]]):format(more) end
local BEFORE = rule ""
local AFTER = rule 'if r.id % 7 == 0 then plugin:send("sink", { reading = r.id, seventh = true }) end'
local SINK = "local plugin = ...\nplugin:deliver { options = {}, batch = 500, handler = function() return true end }"

describe("a rule whose messages change, under load", function()
  local host, pusher, report, messages, before_approval, rolled_back_at

  local function one(query) return host:sql(query)[1].n end
  local function neap(...) return bed.run { bed.neap, ..., "count", "--store", host.store } end
  local function count() return host:plugin "count" end
  local SENT = "(select reading, body from outbox union all select reading, body from delivered)"
  local function sevenths() return one("select count(*) n from " .. SENT .. " where body like '%seventh%'") end

  setup(function()
    host = bed.host { plugins = { ["vendors/sinocare.lua"] = bed.read(bed.plugins .. "/vendors/sinocare.lua"), ["rules/count.lua"] = BEFORE,
      ["destinations/sink.lua"] = SINK }, config = [[lanes = 2, rules = { { "count", policy = "hold" } }]] }
    pusher = bed.start { bed.tools .. "/pusher", "--url", host.url .. "/sinocare/push", "--connections", "16", "--devices", "20", "--json",
      "--rate", "300", "--seconds", "300" }
    local function pushed(n) bed.wait(n .. " readings", function()
      pusher:read()
      return host:summary().readings >= n
    end, 60) end
    pushed(1200)
    bed.replace(host.plugins .. "/rules/count.lua", AFTER)
    local waiting = bed.wait("it to wait", function()
      local p = count()
      return p.waiting and p.gate.approval and p
    end)
    assert(waiting.generation == 1)
    messages = host:command("diff", "count", "--messages")
    pushed(host:summary().readings + 300)
    before_approval = sevenths()
    assert(select(2, neap "approve") == 0)
    pushed(host:summary().readings + 600)
    bed.wait("the new messages", function() return sevenths() > 0 end)
    assert(select(2, neap "rollback") == 0)
    rolled_back_at = host:summary().readings
    pushed(rolled_back_at + 300)
    pusher:stop(15)
    report = json.decode(pusher.output)
    bed.wait("everything to be ruled on and delivered", function()
      return one "select coalesce(sum(value), 0) n from kv where space = 'plugin:count'" >= one "select count(*) n from readings"
        and one "select count(*) n from outbox" == 0
    end, 60)
  end)
  teardown(function() host:stop() end)

  it("reports exactly the messages that would be new", function()
    local summary = messages[#messages].summary
    assert.same({ 1000, 1000, 0, 0, 0, 0 }, { summary.readings, summary.wanted, summary.gone, summary.different, summary.failing, summary.mended })
    local ids = {}
    for i = 1, #messages - 1 do
      local m = messages[i]
      assert.same({ "new", "sink", true }, { m.change, m.destination, m.after.seventh })
      assert.equal(m.reading, m.after.reading)
      ids[#ids + 1] = m.reading
    end
    table.sort(ids)
    assert.equal(summary.new, #ids)
    assert.is_true(#ids == 142 or #ids == 143, #ids .. " of 1000 readings in a row are sevenths")
    for i = 2, #ids do assert.equal(ids[i - 1] + 7, ids[i]) end
    for i = 2, #messages - 1 do assert.is_true(messages[i - 1].device <= messages[i].device, "by device") end
  end)

  it("changes nothing until it is approved, and no more once it is rolled back", function()
    assert.equal(0, before_approval)
    local last = one("select max(reading) n from " .. SENT .. " where body like '%seventh%'")
    assert.is_true(last <= rolled_back_at, ("the last is of %d, rolled back at %d"):format(last, rolled_back_at))
    assert.is_true(one "select max(seq) n from readings" > rolled_back_at + 200)
    assert.equal(1, count().generation)
  end)

  it("loses nothing, and routes nothing twice", function()
    assert.equal(0, (report or {}).failed)
    assert.same({}, host:sql "select key, value from kv where space = 'plugin:count' and cast(value as integer) <> (select count(*) from readings r where r.device = kv.key)")
    assert.same({}, host:sql("select r.seq from readings r left join " .. SENT .. " s on s.reading = r.seq and s.body not like '%seventh%' group by r.seq having count(s.reading) <> 1"))
    assert.same({}, host:sql("select reading from " .. SENT .. " where body like '%seventh%' group by reading having count(*) > 1"))
    assert.equal(0, one "select count(*) n from held")
  end)
end)
