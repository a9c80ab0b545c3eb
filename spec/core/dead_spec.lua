-- Dead letters as an operator has them: listed, shown, tried again, dropped; and how a destination fares.
local bed = require "bed"
local json = require "neap.json"

local source = [[
local plugin = ...
plugin:serve { "POST /m", keep = false, body = { device = { "string" }, n = { "integer" }, to = { "string" }, name = { "string", optional = true } },
  handler = function(req)
    plugin:emit { device = req.body.device, metric = req.body.to, value = req.body.n, at = 1600000000000 + req.body.n, extra = { name = req.body.name } }
    return 204
  end }
]]
local rule = [[
local plugin = ...
plugin:on({}, function(r) plugin:send(r.metric, { n = r.value, name = r.extra.name }) end)
]]
local desk = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { options = { url = { "string" } }, handler = function(messages, to)
  return http.post { url = to.url, headers = { ["x-id"] = messages[1].id }, body = messages[1].json }
end }
]]

describe("dead letters", function()
  local receiver, host
  before_each(function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/pass.lua"] = rule, ["destinations/desk.lua"] = desk },
      config = ([[destinations = { { "desk", url = %q, delivery = { redact = { "name" }, backoff = "1s" } },
        { "desk", name = "other", url = %q } }, lanes = 2]]):format(receiver.url, receiver.url) }
    receiver.answer = function() return 410, "gone" end
  end)
  after_each(function()
    host:stop()
    receiver:close()
  end)

  local function emit(n, to, device, name)
    assert.equal(204, (host:request("POST", "/m", { device = device or "d", n = n, to = to or "desk", name = name })))
  end
  local function count(what) return host:sql("SELECT count(*) AS n FROM " .. what)[1].n end
  local function until_dead(n)
    bed.wait(n .. " dead letters", function()
      receiver:poll()
      return count "dead" == n
    end)
  end
  local function dead(...)
    local list, code = host:command("dead", ...)
    return list, code, list[#list] and list[#list].summary
  end

  -- The next try of the one that waits, once it was tried, is put off by an hour, as of one that was tried for long.
  local function far_off()
    bed.wait("its try", function()
      receiver:poll()
      return count "outbox WHERE attempts > 0" == 1
    end)
    host:stop()
    bed.run { "sqlite3", host.store, "UPDATE outbox SET due = due + 3600000" }
    host:begin()
  end

  it("are listed, by id, destination and age", function()
    for n = 1, 3 do emit(n) end
    emit(4, "other")
    until_dead(4)
    local list, code, summary = dead "list"
    assert.equal(0, code)
    assert.same({ dead = 4 }, summary)
    assert.same({ "desk", "refused", 410, "answered 410: gone", 1, "dead" },
      { list[1].destination, list[1].reason, list[1].status, list[1].error, list[1].attempts, list[1].state })
    assert.same({ dead = 1 }, select(3, dead("list", "--destination", "other")))
    assert.same({ dead = 1 }, select(3, dead("list", list[2].id)))
    assert.same({ dead = 0 }, select(3, dead("list", "--older", "1h")))
    assert.same({ dead = 4 }, select(3, dead("list", "--newer", "1h")))
    local text = bed.run { bed.neap, "dead", "--store", host.store }
    assert.truthy(text:find("4 dead letters", 1, true), text)
    assert.truthy(text:find(list[4].id, 1, true), text)
  end)

  it("are dropped, on record, where they are older than what is kept of them", function()
    for n = 1, 3 do emit(n) end
    until_dead(3)
    host:stop()
    bed.write(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub("lanes = 2", 'lanes = 2, keep = { dead = "1s" }')))
    host:begin()
    bed.wait("them to be dropped", function() return count "dead" == 0 end)
    assert.same({ { n = 3, by = "keep.dead" } }, host:sql "SELECT count(*) AS n, by FROM dropped GROUP BY by")
    assert.same({ { n = 3 } }, host:sql "SELECT count(*) AS n FROM attempts")
    local c = host:sql "SELECT dead_bytes, delivered_bytes FROM counters"[1]
    assert.equal(0, c.dead_bytes)
    assert.is_true(c.delivered_bytes > 3 * 150)
    host:wait_text "dead letters that nobody has looked after are past what is kept, and were dropped"
  end)

  it("are shown with each attempt, and without what is not to be seen", function()
    receiver.answer = function(r) return #receiver.requests == 1 and 503 or 410, "no " .. r.json.name end
    emit(1, "desk", "d", "Waltheof")
    until_dead(1)
    local list, code, summary = dead("show", host:sql("SELECT id FROM dead")[1].id)
    assert.equal(0, code)
    assert.same({ attempts = 2 }, summary)
    assert.same({ n = 1, name = "***" }, json.decode(list[1].body))
    assert.same({ "again", 503, "no ***" }, { list[2].outcome, list[2].status, list[2].answer })
    assert.same({ "refused", 410, "answered 410: no ***" }, { list[3].outcome, list[3].status, list[3].error })
    local text = bed.run { bed.neap, "dead", "show", list[1].id, "--store", host.store }
    assert.truthy(text:find("2. %d+:%d+:%d+, %d+ ms, generation 1: refused, 410: answered 410: no %*%*%*"), text)
    assert.is_nil((text .. host:read()):find("Waltheof", 1, true))
    -- nobody can say what may be shown where the destination is not in force
    bed.write(host.folder .. "/neap.lua", bed.read(host.folder .. "/neap.lua"):gsub('{ "desk", url.-},\n', "", 1):gsub('"desk"', '"desk"', 1))
    host:wait_text "retired"
    list = dead("show", list[1].id)
    assert.equal("***", list[1].body)
  end)

  it("are tried again under their id, before what waits", function()
    emit(1)
    until_dead(1)
    receiver.answer = function() return 503 end
    emit(2)
    far_off()
    local ids = {}
    receiver.answer = function(r)
      ids[#ids + 1] = r.headers["x-id"]
      return 200
    end
    local first = host:sql("SELECT id FROM dead")[1].id
    local _, code, summary = dead("retry", first)
    assert.equal(0, code)
    assert.same({ retried = 1 }, summary)
    bed.wait("it to arrive", function()
      receiver:poll()
      return count "delivered" == 1
    end)
    assert.same({ { first }, 1 }, { ids, count "outbox" }) -- the other has its time
    assert.equal(2, count("attempts a JOIN delivered d ON d.seq = a.message WHERE d.id = '" .. first .. "'"))
    host:wait_text "dead letters are tried again"
  end)

  it("are dropped, which stays on record", function()
    for n = 1, 3 do emit(n) end
    emit(4, "other")
    until_dead(4)
    local _, code, summary = dead("drop", "--destination", "desk")
    assert.equal(0, code)
    assert.same({ dropped = 3 }, summary)
    assert.equal(1, count "dead")
    assert.equal(3, count "dropped WHERE by LIKE 'neap dead drop by %' AND reason = 'refused'")
    host:wait_text "dead letters were dropped"
    local list = dead("show", host:sql("SELECT id FROM dropped")[1].id)
    assert.equal("dropped", list[1].state)
    list = host:command "plugins"
    assert.equal(1, list[#list].summary.dead)
  end)

  it("are many, and dealt with a page at a time", function()
    for n = 1, 450 do emit(n, "desk", "d" .. n % 50) end
    until_dead(450)
    assert.same({ dead = 450 }, select(3, dead "list"))
    receiver.answer = function() return 200 end
    assert.same({ retried = 450 }, select(3, dead("retry", "--all")))
    bed.wait("all to arrive", function()
      receiver:poll()
      return count "delivered" == 450
    end)
  end)

  it("are not touched where nobody says which, or they are not there", function()
    local out, code = bed.run { bed.neap, "dead", "retry", "--store", host.store }
    assert.equal(2, code)
    assert.truthy(out:find("which ones?", 1, true), out)
    for _, action in ipairs { "show", "retry", "drop" } do
      local list, failed = dead(action, "msg_none")
      assert.equal(1, failed)
      assert.truthy(list[1].error:find("there is no", 1, true))
    end
    out, code = bed.run { bed.neap, "dead", "list", "--older", "old", "--store", host.store }
    assert.equal(2, code)
    assert.truthy(out:find("--older: expected an age", 1, true), out)
  end)

  it("a destination that keeps failing is shown, probed, and goes on at once", function()
    local bad = true
    receiver.answer = function() return bad and 500 or 200, "broken" end
    emit(1, "desk", "d1")
    far_off()
    for n = 2, 12 do emit(n, "desk", "d" .. n) end
    local line = bed.wait("its circuit to open, and all to wait", function()
      receiver:poll()
      local row = host:command("destinations")[1]
      return row.circuit == "open" and row.pending == 12 and row
    end)
    assert.is_true(line.failures >= 8 and line.oldest > 0)
    assert.equal("answered 500: broken", line.error)
    host:wait_for 'it is only probed until one delivery arrives"[^\n]*"failures":"8"'
    local text = bed.run { bed.neap, "destinations", "--store", host.store }
    assert.truthy(text:find("broken", 1, true), text)
    assert.truthy((bed.run { bed.neap, "plugins", "--store", host.store }):find("12 pending", 1, true))
    bad = false
    bed.wait("all to arrive", function()
      receiver:poll()
      return count "delivered" == 12
    end)
    host:wait_text "a destination takes messages again"
    line = host:command("destinations")[1]
    assert.same({ "closed", 0, 0 }, { line.circuit, line.pending, line.dead })
    assert.is_true(line.last_arrival > 0)
  end)

  it("what waits for a destination that is gone is seen, and delivered once there is one of its name again", function()
    receiver.answer = function() return 503 end
    emit(1, "other")
    receiver:wait(1)
    local before = bed.read(host.folder .. "/neap.lua")
    bed.replace(host.folder .. "/neap.lua", (before:gsub('name = "other"', 'name = "renamed"')))
    host:wait_for '"retired[^\n]*"waiting":"1"'
    local line
    for _, l in ipairs((host:command "destinations")) do line = l.instance == "other" and l or line end
    assert.same({ "gone", 1, 0 }, { line.state, line.pending, line.dead })
    assert.is_true(line.oldest > 0)
    local text = bed.run { bed.neap, "destinations", "--store", host.store }
    assert.truthy(text:find "other +%- +gone +%- +1 ", text)
    assert.equal(1, host:summary().pending)
    text = bed.run { bed.neap, "explain", host:sql("SELECT id FROM outbox")[1].id, "--store", host.store }
    assert.truthy(text:find("pending: nothing named other takes messages now", 1, true), text)
    receiver.answer = function() return 200 end
    bed.replace(host.folder .. "/neap.lua", before)
    bed.wait("it to arrive", function()
      receiver:poll()
      return count "delivered WHERE destination = 'other'" == 1
    end)
    assert.equal(3, #(host:command "destinations")) -- both, and the summary
  end)

  it("a destination that asks for a pause gets it, whatever its device", function()
    receiver.answer = function() return #receiver.requests == 1 and 429 or 200, "", { ["retry-after"] = "2" } end
    emit(1, "desk", "a")
    receiver:wait(1)
    host:wait_text "a destination asked for a pause"
    local before = require "socket".gettime()
    emit(2, "desk", "b")
    emit(3, "other", "c")
    bed.wait("the other destination's", function()
      receiver:poll()
      return count "delivered WHERE destination = 'other'" == 1
    end)
    bed.wait("all to arrive", function()
      receiver:poll()
      return count "delivered" == 3
    end)
    assert.is_true(require "socket".gettime() - before > 1.5) -- a lower bound
    assert.equal(4, #receiver.requests)
  end)
end)
