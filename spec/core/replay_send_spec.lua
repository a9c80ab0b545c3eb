-- neap replay --send: a rule over what came, and what is not on record as sent is sent.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = bed.EMITTER
local HOT = [[
local plugin = ...
plugin:on({ metric = "temp", above = %d }, function(r) plugin:send("desk", { hot = r.value }) end)]]

describe("neap replay --send", function()
  local host, receiver
  local function begin(rules, options)
    options = options or {}
    receiver = bed.receiver()
    local plugins = { ["vendors/v.lua"] = VENDOR, ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") }
    for name, text in pairs(rules) do plugins["rules/" .. name .. ".lua"] = text end
    host = bed.host { plugins = plugins, config = ([[lanes = 2, %s destinations = { desk = { "webhook", url = %q, delivery = { %s } } }]])
      :format(options.config or "", receiver.url, options.delivery or "") }
  end
  after_each(function()
    if host then assert.same({ "exit", 0 }, { host:stop() }) end
    if receiver then receiver:close() end
    host, receiver = nil, nil
  end)

  local function push(list) assert.equal(204, (host:request("POST", "/v", list))) end
  local function temps(from, to)
    local list = {}
    for i = from, to do list[#list + 1] = { device = "D" .. i % 3, metric = "temp", value = i, at = i * 1000 } end
    push(list)
  end
  local function in_force(rule, generation)
    bed.wait(rule .. " to be in force", function()
      local p = host:plugin(rule)
      return p and p.generation == generation and not p.error
    end)
  end
  local function arrived(n)
    receiver:wait(n, 90)
    return bed.wait("the outbox to be empty", function()
      receiver:poll()
      return host:sql "select count(*) n from outbox"[1].n == 0 and receiver.requests
    end)
  end
  -- Follows it to its end, while the receiver answers.
  local function replay(...)
    local p = bed.start { bed.neap, "replay", "--store", host.store, "--json", ... }
    bed.wait("the replay", function()
      receiver:poll()
      p:read()
      return p.ended
    end)
    local _, code = p:wait()
    local last, summary
    for line in p.output:gmatch "[^\n]+" do
      local row = json.decode(line)
      if row.summary then summary = row.summary else last = row end
    end
    return last, code, summary
  end
  local function counts(r)
    local t = {}
    for _, name in ipairs { "readings", "sent", "already", "expired", "held", "unsure", "failed" } do t[name] = r[name] end
    return t
  end

  -- What a dry run says would be otherwise than on record.
  local function dry(rule)
    local out, status = bed.run { bed.neap, "replay", "--config", host.folder, "--rule", rule, "--dry-run", "--json" }
    assert.equal(0, status, out)
    local report = json.decode(out)
    return { report.new, report.gone, report.different }
  end

  it("sends what is not on record, with the replay's number; once more it sends nothing, --again all", function()
    begin { hot = HOT:format(8) }
    temps(1, 10)
    arrived(2)
    bed.replace(host.plugins .. "/rules/hot.lua", HOT:format(6))
    in_force("hot", 2)
    local r, code = replay("--rule", "hot", "--send", "--rate", "1000/s")
    assert.equal(0, code)
    assert.same({ 1, "hot", 2, "done" }, { r.replay, r.rule, r.generation, r.state })
    assert.same({ readings = 10, sent = 2, already = 2 }, counts(r))
    local sent = arrived(4)
    local told = {}
    for i = 3, 4 do told[i - 2] = { sent[i].json.hot, sent[i].headers["neap-replayed"] } end
    table.sort(told, function(a, b) return a[1] < b[1] end)
    assert.same({ { 7, "1" }, { 8, "1" } }, told)
    assert.is_nil(sent[1].headers["neap-replayed"])
    local row = host:sql "select replayed, about, reading, generation from delivered where replayed > 0 order by seq"[1]
    assert.same({ 1, 2 }, { row.replayed, row.generation })
    assert.equal(host:sql("select received from readings where seq = " .. row.reading)[1].received, row.about)

    r = replay("--rule", "hot", "--send")
    assert.same({ readings = 10, already = 4 }, counts(r))
    assert.same({ 0, 0, 0 }, dry "hot")
    r = replay("--rule", "hot", "--send", "--again", "--device", "D1", "--rate", "1000/s")
    assert.same({ 3, { readings = 4, sent = 2 } }, { r.replay, counts(r) })
    arrived(6)
    assert.equal(6, #receiver.requests)
    assert.same({ 0, 0, 0 }, dry "hot")

    local id = host:sql "select id from delivered where replayed = 3"[1].id
    assert.matches("replayed by replay 3, about ", (bed.run { bed.neap, "explain", id, "--store", host.store }), 1, true)
    local letter = host:command("dead", "show", id)
    assert.equal(3, letter[1].replay)
    local list = host:command("replay", "list")
    assert.same({ 4, 3 }, { #list, list[4].summary.replays })
    assert.matches("replay +3\nrule +hot", (bed.run { bed.neap, "replay", "show", "3", "--store", host.store }))
  end)

  it("is told of timers by their moment, and leaves alone what the rule is yet to do itself", function()
    begin { quiet = [[
local plugin = ...
plugin:timer("quiet", function(key) plugin:send("desk", { device = key, quiet = true }) end)
plugin:on({ metric = "beat" }, function(r) plugin:arm("quiet", r.device, r.value .. "ms") end)]] }
    push { { device = "A", metric = "beat", value = 1 }, { device = "B", metric = "beat", value = 1 } }
    arrived(2)
    push { { device = "A", metric = "beat", value = 3600000 } }
    local r = replay("--rule", "quiet", "--send")
    assert.same({ readings = 3, already = 2 }, counts(r))
    -- the same for messages whose moment an older neap did not put on record
    host:stop()
    assert.equal(0, select(2, bed.run { "sqlite3", host.store, "update delivered set about = -created" }))
    host:begin()
    assert.same({ readings = 3, already = 2 }, counts((replay("--rule", "quiet", "--send"))))
    host:stop()
    assert.equal(0, select(2, bed.run { "sqlite3", host.store, "delete from delivered where device = 'B'" }))
    host:begin()
    r = replay("--rule", "quiet", "--send")
    assert.same({ readings = 3, sent = 1, already = 1 }, counts(r))
    assert.same({ readings = 3, already = 2 }, counts((replay("--rule", "quiet", "--send"))))
    assert.same({ 0, 0, 0 }, dry "quiet")
  end)

  it("does not send what has expired, what it cannot tell of, and counts what the rule fails on", function()
    begin({ short = [[
local plugin = ...
plugin:on({ metric = "temp" }, function(r)
  if r.value == 1 then error "one is too few" end
  if r.value == 2 then plugin:send("desk", { n = 2 }, { expires = 0.001 }) end
  if r.value == 3 then plugin:send("desk", { n = 3 }) end
end)]] }, { config = 'keep = { delivered = "1s" },' })
    temps(1, 3)
    bed.wait("what was delivered to be gone", function()
      receiver:poll()
      return #receiver.requests == 1 and host:sql "select (select count(*) from delivered) + (select count(*) from outbox) n"[1].n == 0
    end)
    assert.equal(0, select(2, bed.run { "sqlite3", "-cmd", ".timeout 10000", host.store, "delete from dead" }))
    local r, code = replay("--rule", "short", "--send")
    assert.equal(0, code)
    assert.same({ readings = 3, expired = 1, held = nil, unsure = 1, failed = 1 }, counts(r))
    assert.matches("one is too few", r.error, 1, true)
    assert.equal(1, r.failed_reading)
    r = replay("--rule", "short", "--send", "--again")
    assert.same({ readings = 3, sent = 1, expired = 1, failed = 1 }, counts(r))
  end)

  it("sends nothing twice that goes from the record while it waits for its rate, or went under other bounds", function()
    local few = [[
local plugin = ...
plugin:on({ metric = "temp", above = %d }, function(r) plugin:send("desk", { hot = r.value }) end)]]
    begin({ hot = few:format(8) }, { config = 'keep = { delivered = "2s" },' })
    temps(1, 9)
    arrived(1)
    bed.replace(host.plugins .. "/rules/hot.lua", few:format(0))
    in_force("hot", 2)
    replay("--rule", "hot", "--send", "--rate", "1/s")
    local function nines()
      local n = 0
      for _, q in ipairs(receiver.requests) do n = n + (q.json.hot == 9 and 1 or 0) end
      return n
    end
    arrived(1)
    assert.equal(1, nines())
    bed.wait("all of it to be past its age", function()
      return host:sql "select count(*) n from delivered where at > (strftime('%s', 'now') - 3) * 1000"[1].n == 0
    end)
    host:restart() -- what had to stay for a moment longer is looked at again at once
    bed.wait("what was delivered to be gone", function() return host:sql "select count(*) n from delivered"[1].n == 0 end)
    host:stop()
    local config = bed.read(host.folder .. "/neap.lua")
    bed.write(host.folder .. "/neap.lua", (config:gsub("keep = [^}]*},", "")))
    host:begin()
    assert.same({ readings = 9, unsure = 9 }, counts((replay("--rule", "hot", "--send", "--rate", "1000/s"))))
    assert.equal(1, nines())
  end)

  it("knows what a held timer sent and derived once its rule was mended", function()
    local rule = [[
local plugin = ...
plugin:derives "silent"
plugin:timer("late", function(key)
  %s
  plugin:send("desk", { late = key })
  plugin:emit { metric = "silent", value = true }
end)
plugin:on({ metric = "temp" }, function(r) plugin:arm("late", r.device, "1ms") end)]]
    begin { late = rule:format 'error "not yet"' }
    temps(1, 1)
    bed.wait("the timer to be held", function() return host:sql "select count(*) n from held"[1].n == 1 end)
    bed.replace(host.plugins .. "/rules/late.lua", rule:format "")
    arrived(1)
    local was = host:sql "select seq, at, key from readings where metric = 'silent'"
    assert.equal(1, #was)
    assert.same({ readings = 1, already = 1 }, counts((replay("--rule", "late", "--send", "--metric", "temp"))))
    assert.equal(1, #receiver.requests)
    assert.same(was, host:sql "select seq, at, key from readings where metric = 'silent'")
    assert.equal(host:sql "select received from readings where metric = 'temp'"[1].received + 1, was[1].at)
  end)

  it("goes on after kill -9, ten times: what is sent is what an uninterrupted one sends", function()
    local rule = [[
local plugin = ...
plugin:timer("late", function(key) plugin:send("desk", { late = key }) end)
plugin:on({ metric = "temp" }, function(r)
  local n = (plugin.store:get("n") or 0) + 1
  plugin.store:put("n", n)
  if n % 2 == 0 and not plugin:throttle(r.device .. n % 7, "1h") then plugin:send("desk", { n = n, value = r.value }) end
  if n % 3 == 0 then plugin:send("desk", { n = n, twice = true }) plugin:send("desk", { n = n, twice = true }) end
  if r.value %% 50 == 0 then error "as asked" end
  plugin:arm("late", r.device .. n % 40, "1ms")
end)]]
    rule = rule:gsub("%%%%", "%%")
    begin { idle = 'local plugin = ...\nplugin:on({ metric = "none" }, function() end)' }
    local list = {}
    for i = 1, 600 do list[i] = { device = "D" .. i % 5, metric = "temp", value = i, at = i * 1000 } end
    push(list)
    bed.write(host.plugins .. "/rules/many.lua", rule)
    in_force("many", 1)
    local function bodies(number)
      local all = {}
      for _, table_name in ipairs { "outbox", "delivered", "dead" } do
        for _, row in ipairs(host:sql(("select device, body, reading, about, destination from %s where replayed = %d"):format(table_name, number))) do
          local body = json.decode(row.body)
          all[#all + 1] = ("%s %s %d %d %s %s %s"):format(row.device, row.destination, row.reading, row.about, tostring(body.n), tostring(body.value or body.twice),
            tostring(body.late))
        end
      end
      table.sort(all)
      return all
    end
    local whole = replay("--rule", "many", "--send", "--again", "--rate", "100000/s")
    assert.equal("done", whole.state)
    assert.is_true(whole.sent > 400, json.encode(whole))
    local p = bed.start { bed.neap, "replay", "--store", host.store, "--json", "--rule", "many", "--send", "--again", "--rate", "150/s" }
    local function row() return json.decode((host:sql "select cast(value as text) v from kv where space = 'neap.replay' and key = '000000000002'"[1] or { v = "{}" }).v) end
    local kills, last = 0, -1
    for _ = 1, 10 do
      bed.wait("some more of it", function()
        receiver:poll()
        local now = row()
        local more = now.state == "done" or (now.sent or -1) > last
        last = now.sent or last
        return more
      end)
      if row().state == "done" then break end
      host:restart(9)
      kills = kills + 1
    end
    p:wait()
    assert.equal(10, kills)
    bed.wait("its end", function() receiver:poll() return row().state == "done" end)
    local again = row()
    for _, name in ipairs { "readings", "sent", "failed" } do assert.equal(whole[name], again[name], name) end
    assert.same(bodies(1), bodies(2))
    local ids = {}
    for _, m in ipairs(host:sql "select id from delivered union all select id from outbox") do
      assert.is_nil(ids[m.id])
      ids[m.id] = true
    end
  end)

  it("stops where it is told to and resumes; a change of the rule stops it; Ctrl-C does not", function()
    begin { hot = HOT:format(0) }
    temps(1, 40)
    arrived(40)
    local p = bed.start { bed.neap, "replay", "--store", host.store, "--rule", "hot", "--send", "--again", "--rate", "10/s" }
    local function row() return host:command("replay", "show", "1")[1] end
    bed.wait("some of it", function() receiver:poll() return row().sent end)
    p:stop(2)
    assert.equal(0, p.code)
    assert.matches("it goes on; neap replay list shows it", p.output, 1, true)
    assert.equal("running", row().state)
    local out, code = bed.run { bed.neap, "replay", "stop", "1", "--store", host.store }
    assert.equal(0, code, out)
    assert.matches("replay 1 of hot: .* sent.*; stopped: neap replay stop by", out)
    local sent = row().sent or 0
    assert.is_true(sent < 40)
    out, code = bed.run { bed.neap, "replay", "stop", "1", "--store", host.store }
    assert.same({ "neap: replay 1 has ended already\n", 1 }, { out, code })
    local resumed = bed.start { bed.neap, "replay", "resume", "1", "--store", host.store, "--json" }
    bed.wait("more of it", function() receiver:poll() return (row().sent or 0) > sent end)
    bed.replace(host.plugins .. "/rules/hot.lua", HOT:format(-1))
    bed.wait("its end", function() receiver:poll() resumed:read() return resumed.ended end)
    resumed:wait()
    assert.equal(1, resumed.code)
    assert.equal("stopped", row().state)
    assert.matches("hot is another since: generation 2 is in force, this was generation 1; start a replay anew", row().why, 1, true)
    out, code = bed.run { bed.neap, "replay", "resume", "1", "--store", host.store }
    assert.equal(1, code)
    assert.matches("hot is another since", out, 1, true)
  end)

  -- No file may grow, as on a full disk. What `stop` has answered holds, whatever happens then.
  it("is stopped for good once that is said, and says where it is not", function()
    local neap, folder = bed.neap, bed.folder()
    bed.neap = folder .. "/neap"
    bed.write(bed.neap, ("#!/bin/sh\ntrap '' XFSZ\nexec '%s' \"$@\"\n"):format(neap))
    bed.run { "chmod", "+x", bed.neap }
    begin { hot = HOT:format(0) }
    bed.neap = neap
    local function room(bytes) assert.equal(0, select(2, bed.run { "prlimit", "--pid", tostring(host.pid), "--fsize=" .. bytes .. ":unlimited" })) end
    local function sent() receiver:poll() return host:sql("select count(*) n from delivered where replayed > 0")[1].n end
    local function stop() return bed.run { neap, "replay", "stop", "1", "--store", host.store } end
    temps(1, 100)
    arrived(100)
    local p = bed.start { neap, "replay", "--store", host.store, "--rule", "hot", "--send", "--again", "--rate", "20/s" }
    bed.wait("some of it", function() return sent() > 0 end)
    p:stop(2) -- it goes on
    room "0"
    local out, code = stop()
    assert.equal(1, code, out)
    assert.matches("^neap: replay 1 is not stopped: store: ", out)
    local before = sent()
    room "unlimited"
    bed.wait("it to go on", function() return sent() > before end)
    out, code = stop()
    assert.equal(0, code, out)
    host:restart(9)
    assert.equal("stopped", host:command("replay", "show", "1")[1].state)
    bed.wait("the outbox to be empty", function() receiver:poll() return host:sql "select count(*) n from outbox"[1].n == 0 end)
    assert.equal(host:command("replay", "show", "1")[1].sent, sent())
    assert.is_true(sent() < 100)
  end)

  it("has live messages go first, and few of its own in the outbox", function()
    begin({ hot = HOT:format(0) }, { delivery = "concurrency = 1" })
    local hold = true
    receiver.answer = function(_, client)
      if not hold then return 200, "" end
      receiver.held = client
      return false
    end
    local list = {}
    for i = 1, 500 do list[i] = { device = "D" .. i % 4, metric = "old", value = i, at = i * 1000 } end
    push(list)
    bed.replace(host.plugins .. "/rules/hot.lua", [[
local plugin = ...
plugin:on({ metric = { "old", "temp" } }, function(r) plugin:send("desk", { value = r.value, metric = r.metric }) end)]])
    in_force("hot", 2)
    local p = bed.start { bed.neap, "replay", "--store", host.store, "--rule", "hot", "--send", "--rate", "10000/s" }
    bed.wait("the outbox to have as many as it may", function()
      receiver:poll()
      return receiver.held and host:sql "select count(*) n from outbox where replayed = 1"[1].n >= 150
    end)
    push { { device = "D1", metric = "temp", value = 1, at = 5000000 } }
    bed.wait("the live message", function() return host:sql "select count(*) n from outbox where replayed = 0"[1].n == 1 end)
    assert.is_true(host:sql "select count(*) n from outbox where replayed = 1"[1].n <= 256)
    hold = false
    receiver.held.socket:settimeout(5)
    receiver.held.socket:send "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    receiver.held.socket:settimeout(0)
    receiver:wait(2)
    assert.same({ "old", "temp" }, { receiver.requests[1].json.metric, receiver.requests[2].json.metric })
    arrived(501)
    local last = {}
    for _, q in ipairs(receiver.requests) do -- its own are in their order
      local device = q.json.value % 4
      if q.json.metric == "old" then
        assert.is_true((last[device] or 0) < q.json.value)
        last[device] = q.json.value
      end
    end
    p:wait()
  end)

  it("leaves the last of a destination's places to live messages", function()
    begin({ hot = HOT:format(100) }, { delivery = "concurrency = 2" })
    local held = {}
    receiver.answer = function(q, client)
      if not held or q.json.hot > 100 then return 200, "" end
      held[#held + 1] = client
      return false
    end
    local list = {}
    for i = 1, 20 do list[i] = { device = "D" .. i, metric = "temp", value = i, at = i * 1000 } end
    push(list)
    bed.replace(host.plugins .. "/rules/hot.lua", HOT:format(0))
    in_force("hot", 2)
    local p = bed.start { bed.neap, "replay", "--store", host.store, "--rule", "hot", "--send", "--rate", "10000/s" }
    bed.wait("replayed ones that wait", function()
      receiver:poll()
      return #held == 1 and host:sql "select count(*) n from outbox where replayed = 1"[1].n == 20
    end)
    push { { device = "D1", metric = "temp", value = 101, at = 5000000 } }
    receiver:wait(2)
    assert.same({ 1, 101 }, { #held, receiver.requests[2].json.hot })
    local first = held[1]
    held = nil
    first.socket:settimeout(5)
    first.socket:send "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    first.socket:settimeout(0)
    arrived(21)
    p:wait()
  end)

  it("takes an acknowledgement on record for that of its own message", function()
    begin { alert = [[
local plugin = ...
plugin:timer("later", function(key)
  if not plugin:acknowledged(plugin.store:get(key)) then plugin:send("desk", { escalated = key }) end
end)
plugin:on({ metric = "low" }, function(r)
  plugin.store:put(r.device, plugin:send("desk", { low = r.value }, { acknowledge = true }))
  plugin:arm("later", r.device, "2s")
end)]] }
    push { { device = "A", metric = "low", value = 1 }, { device = "B", metric = "low", value = 1 } }
    bed.wait("both", function() receiver:poll() return #receiver.requests == 2 end)
    local id = bed.wait("A's", function() return (host:sql "select id from delivered where device = 'A'"[1] or {}).id end)
    assert.equal(0, select(2, host:command("ack", id)))
    arrived(3)
    assert.equal("B", receiver.requests[3].json.escalated)
    assert.same({ readings = 2, already = 3 }, counts((replay("--rule", "alert", "--send"))))
  end)

  it("stores what the rule derives where it is missing, and no rule is run on that", function()
    begin { double = [[
local plugin = ...
plugin:derives "twice"
plugin:on({ metric = "temp", above = 5 }, function(r) plugin:emit { metric = "twice", value = r.value * 2 } end)]],
      all = 'local plugin = ...\nplugin:on({ metric = "twice" }, function(r) plugin:send("desk", { twice = r.value }) end)' }
    temps(1, 6)
    arrived(1)
    bed.replace(host.plugins .. "/rules/double.lua", [[
local plugin = ...
plugin:derives "twice"
plugin:on({ metric = "temp", above = 3 }, function(r) plugin:emit { metric = "twice", value = r.value * 2 } end)]])
    in_force("double", 2)
    assert.same({ readings = 7 }, counts((replay("--rule", "double", "--send"))))
    assert.same({ { value = 12, quiet = 0 }, { value = 8, quiet = 1 }, { value = 10, quiet = 1 } },
      host:sql "select value, quiet from readings where metric = 'twice' order by seq")
    local id = host:sql "select seq from readings where value = 8"[1].seq
    assert.matches("double", (bed.run { bed.neap, "explain", "r" .. id, "--store", host.store }), 1, true)
    temps(7, 7)
    arrived(2)
    assert.same({ 12, 14 }, { receiver.requests[1].json.twice, receiver.requests[2].json.twice })
  end)

  it("refuses what makes no sense, and says what is to be done", function()
    begin { hot = HOT:format(8), broken = "local plugin = ... = 1" }
    local function says(expected, code, ...)
      local out, got = bed.run { bed.neap, "replay", "--store", host.store, ... }
      assert.equal(code, got, out)
      assert.matches(expected, out, 1, true)
    end
    says("expected --rule NAME, or --all", 2, "--send")
    says("--dry-run sends nothing", 2, "--send", "--dry-run", "--rule", "hot")
    says("are for --send", 2, "--dry-run", "--rule", "hot", "--rate", "3/s")
    says('--rate: expected so many a second, minute or hour, such as "20/s" or "600/m", got "20/d"', 2, "--send", "--rule", "hot", "--rate", "20/d")
    says("which replay?", 2, "show")
    says("a replay is a number", 2, "stop", "x")
    says("there is no replay 7: neap replay list lists them", 1, "show", "7")
    says("there is no replay 7: neap replay list lists them", 1, "stop", "7")
    says('there is no rule "cold"', 1, "--send", "--rule", "cold")
    says("v is no rule", 1, "--send", "--rule", "v")
    says("broken is not in force: ", 1, "--send", "--rule", "broken")
    says("broken is held", 1, "--send", "--all")
    local out, code = bed.run { bed.neap, "replay", "--store", bed.folder() .. "/none.db", "--send", "--rule", "hot" }
    assert.equal(1, code)
    assert.matches("start one with neap run", out, 1, true)
  end)
end)
