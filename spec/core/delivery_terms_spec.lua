-- The terms of a delivery: stated by the plugin, changed by neap.lua; batches, expiry, attempts, what is never shown.
local bed = require "bed"

local source = [[
local plugin = ...
plugin:serve { "POST /m", keep = false, body = { device = { "string" }, n = { "integer" }, name = { "string", optional = true } }, handler = function(req)
  plugin:emit { device = req.body.device, metric = "m", value = req.body.n, at = 1600000000000 + req.body.n, extra = { name = req.body.name } }
  return 204
end }
plugin:command { "burst", args = { n = { "integer" }, devices = { "integer" }, from = { "integer", default = 1 } }, handler = function(args)
  for i = args.from, args.from + args.n - 1 do
    plugin:emit { device = "d" .. i % args.devices, metric = "m", value = i, at = 1600000000000 + i }
  end
end }
]]
local rule = [[
local plugin = ...
local config = plugin:config { expires = { "string", optional = true } }
plugin:on({ metric = "m" }, function(r)
  plugin:send("desk", { device = r.device, n = r.value, who = { name = r.extra and r.extra.name or r.value > 9999 and "patient " .. r.value or nil } }, config.expires and { expires = config.expires })
end)
]]
local desk = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { several = true, options = { url = { "string" } }, handler = function(messages, to)
  local list = {}
  for i, m in ipairs(messages) do list[i] = { id = m.id, device = m.device, n = m.data.n, name = m.data.who.name, attempt = m.attempt } end
  local res, why, code = http.post { url = to.url, json = list }
  if not res then return nil, why, code end
  if res.status == 207 then return res.json end
  return res
end }
]]

describe("the terms of a delivery", function()
  local receiver, host

  local function begin(delivery, more)
    receiver = bed.receiver()
    local file = desk:gsub("options =", (more or "") .. " options =", 1)
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/pass.lua"] = rule, ["destinations/desk.lua"] = file },
      config = ("destinations = { { \"desk\", url = %q, delivery = %s } }, lanes = 2"):format(receiver.url, delivery or "{}") }
  end
  after_each(function()
    if host then host:stop() end
    if receiver then receiver:close() end
    host, receiver = nil, nil
  end)

  local function emit(device, n, name) assert.equal(204, (host:request("POST", "/m", { device = device, n = n, name = name }))) end
  local function count(name) return host:sql("SELECT count(*) AS n FROM " .. name)[1].n end
  local function done(what) -- the rule sends one message for each reading
    bed.wait(what or "all messages to have arrived", function()
      receiver:poll()
      return count "outbox" == 0 and count "delivered" + count "dead" >= count "readings"
    end)
  end

  it("are refused where they are wrong, with the place", function()
    for delivery, message in pairs {
      ["{ batch = 0 }"] = "destinations[1].delivery.batch: expected a whole number from 1 to 1000, got 0",
      ["{ bach = 10 }"] = "destinations[1].delivery.bach: unknown, did you mean \"batch\"?",
      ["{ rate = \"10\" }"] = "destinations[1].delivery.rate: expected so many a second, minute or hour, such as",
      ["{ batch_wait = \"soon\" }"] = "destinations[1].delivery.batch_wait: expected a duration of at most a day, such as \"2s\", got \"soon\"",
      ["{ batch_bytes = \"1 acre\" }"] = "destinations[1].delivery.batch_bytes: expected a size",
      ["{ backoff = \"10ms\" }"] = "destinations[1].delivery.backoff: expected a duration from 1s to 1d",
      ["{ redact = \"name\" }"] = "destinations[1].delivery.redact: expected a list of names",
      ["{ redact = { 7 } }"] = "destinations[1].delivery.redact: expected a list of names",
      ["{ concurrency = 65 }"] = "destinations[1].delivery.concurrency: expected a whole number from 1 to 64, got 65",
    } do
      local folder = bed.folder()
      bed.write(folder .. "/plugins/destinations/desk.lua", desk)
      bed.write(folder .. "/neap.lua", "return { destinations = { { \"desk\", url = \"x\", delivery = " .. delivery .. " } } }")
      local out, code = bed.run { bed.neap, "check", folder }
      assert.equal(1, code)
      assert.truthy(out:find(message, 1, true), out)
      bed.write(folder .. "/plugins/destinations/desk.lua", (desk:gsub("options =", delivery:match "{ (.*) }" .. ", options =", 1)))
      bed.write(folder .. "/neap.lua", "return { destinations = { { \"desk\", url = \"x\" } } }")
      out, code = bed.run { bed.neap, "check", folder }
      assert.equal(1, code)
      assert.truthy(out:find("desk.lua:3: plugin:deliver: ", 1, true), out)
    end
  end)

  it("give a handler that deals with one message no more, whatever the entry says", function()
    local folder = bed.folder()
    local function check(declares, delivery)
      bed.write(folder .. "/plugins/destinations/desk.lua", (desk:gsub("several = true,", declares, 1)))
      bed.write(folder .. "/neap.lua", "return { destinations = { { \"desk\", url = \"x\", delivery = " .. delivery .. " } } }")
      return bed.run { bed.neap, "check", folder }
    end
    for _, declares in ipairs { "", "batch = 1,", "several = false," } do
      local out, code = check(declares, "{ batch = 2 }")
      assert.equal(1, code, declares)
      assert.truthy(out:find("destinations[1].delivery.batch: desk takes one message at a time", 1, true), out)
      assert.equal(0, select(2, check(declares, "{ batch = 1, rate = '1/s' }")))
    end
    for _, declares in ipairs { "several = true,", "batch = 2,", "batch = 1, several = true," } do
      assert.equal(0, select(2, check(declares, "{ batch = 1000 }")), declares)
    end
    local out = check("several = 1,", "{}")
    assert.truthy(out:find("plugin:deliver: several: expected true or false, got a number", 1, true), out)
    for _, name in ipairs { "sinocare", "elexir", "tuya" } do
      bed.write(folder .. "/neap.lua", ([[return { plugins = %q, unlisted = false, connections = { { %q, delivery = { batch = 5 }, %s } } }]]):format(bed.plugins, name,
        name == "sinocare" and "push_to = 'http://127.0.0.1:1/'" or name == "elexir" and "url = 'http://127.0.0.1:1', email = 'ana@example.org', password = 'correct horse'" or ""))
      out = bed.run { bed.neap, "check", folder }
      assert.truthy(out:find("connections[1].delivery.batch: " .. name .. " takes one message at a time", 1, true), out)
    end
  end)

  it("let a batch hold messages of many devices, each device's in order", function()
    begin "{ batch = 50, batch_wait = '2s' }"
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=400", "devices=20")))
    done()
    local last, largest = {}, 0
    for _, r in ipairs(receiver.requests) do
      largest = math.max(largest, #r.json)
      assert.is_true(#r.json <= 50)
      for _, m in ipairs(r.json) do
        assert.is_true(m.n > (last[m.device] or 0))
        last[m.device] = m.n
      end
    end
    assert.equal(50, largest)
  end)

  it("bound a batch by its bytes, and let a message wait for others no longer than batch_wait", function()
    begin("{ batch_bytes = 200 }", "batch = 100, batch_wait = '100ms',")
    emit("a", 1)
    receiver:wait(1) -- alone: nothing filled the batch
    assert.equal(1, #receiver.requests[1].json)
    emit("a", 2, ("long"):rep(60)) -- more than the bound goes alone
    receiver:wait(2)
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=30", "devices=3")))
    done()
    for _, r in ipairs(receiver.requests) do assert.is_true(#r.json <= 6) end
  end)

  it("send a batch as soon as it is full, by number or by bytes", function()
    for _, full in ipairs { "batch = 2", "batch = 100, batch_bytes = 50" } do
      begin("{ batch_wait = '1h', " .. full .. " }")
      emit("a", 1)
      emit("a", 2)
      receiver:wait(1)
      host:stop()
      receiver:close()
    end
  end)

  it("try only those of a batch again that failed, in order for each device", function()
    begin "{ batch = 100, backoff = '1s' }"
    local first = true
    receiver.answer = function(r)
      if #r.json == 1 and first then
        first = false
        return 503 -- so that the others come together
      end
      local answers = {}
      for i, m in ipairs(r.json) do answers[i] = m.attempt > 1 or m.n % 3 ~= 0 or "not this one" end
      return 207, require "neap.json".encode(answers)
    end
    emit("d0", 10000)
    receiver:wait(1)
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=60", "devices=4")))
    done()
    assert.equal(61, count "delivered")
    local times = {}
    for _, r in ipairs(receiver.requests) do
      for _, m in ipairs(r.json) do times[m.n] = (times[m.n] or 0) + 1 end
    end
    for n = 1, 60 do assert.equal(n % 3 == 0 and 2 or 1, times[n], "message " .. n) end
  end)

  it("let one message that its receiver fails on hold up its own device alone", function()
    begin "{ batch = 100, batch_wait = '200ms', backoff = '1s' }"
    receiver.answer = function(r)
      for _, m in ipairs(r.json) do
        if m.n == 13 then return 500, "it crashes" end
      end
      return 200
    end
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=40", "devices=10")))
    bed.wait("the others to arrive", function()
      receiver:poll()
      return count "delivered" == 37
    end)
    assert.same({ { n = 13 }, { n = 23 }, { n = 33 } }, host:sql "SELECT json_extract(body, '$.n') AS n FROM outbox ORDER BY seq")
    local together = 0
    for _, r in ipairs(receiver:poll()) do
      for _, m in ipairs(#r.json > 1 and r.json or {}) do together = together + (m.n == 13 and 1 or 0) end
    end
    assert.equal(3, together)
  end)

  it("keep each attempt, with its answer", function()
    begin()
    receiver.answer = function(r) return r.json[1].attempt == 1 and 500 or 200, r.json[1].attempt == 1 and "broken" or "thanks" end
    emit("a", 1)
    done()
    local rows = host:sql "SELECT n, generation, status, batch, outcome, error, answer, at > 1600000000000 AND took >= 0 AS timed FROM attempts ORDER BY n"
    local null = require "neap.json".null
    assert.same({
      { n = 1, generation = 1, status = 500, batch = 1, outcome = "again", error = "answered 500: broken", answer = "broken", timed = 1 },
      { n = 2, generation = 1, status = 200, batch = 1, outcome = "delivered", error = null, answer = "thanks", timed = 1 },
    }, rows)
  end)

  it("make a dead letter of what has expired, and do not send it", function()
    begin "{ expires = '400ms', concurrency = 1 }" -- before a second try, which comes after half a second at the earliest
    receiver.answer = function() return 503 end
    local n, expired = 0
    repeat -- a slow machine may try none before it has expired
      n = n + 2
      emit("a", n - 1)
      emit("a", n)
      emit("b", n)
      done "all to have expired"
      expired = count "dead WHERE reason = 'expired'"
      assert.equal(n / 2 * 3, expired)
    until count "attempts" > 0
    assert.equal(count "attempts", count "dead WHERE attempts = 1 AND status = 503 AND error LIKE 'answered 503%'", "the last answer stays")
    assert.equal(expired, count "dead WHERE attempts < 2")
    assert.equal(count "attempts", #receiver.requests)
    host:wait_text "it is a dead letter now"
    receiver.answer = function() return 200 end
    bed.wait("one to arrive, for what has expired holds no place", function()
      n = n + 1
      emit("a", n)
      receiver:poll()
      return count "delivered" > 0
    end)
  end)

  it("expire also what was sent before they said so", function()
    begin()
    receiver.answer = function() return 503, "", { ["retry-after"] = "3600" } end
    emit("a", 1)
    bed.wait("its try", function() return receiver:poll() and count "outbox WHERE attempts = 1" == 1 end)
    bed.replace(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub("delivery = {}", "delivery = { expires = '1ms' }")))
    done "it to expire"
    assert.equal(1, count "dead WHERE reason = 'expired' AND attempts = 1")
  end)

  -- The rule sends the first message for an hour, all others for a moment.
  local function expire_but_first()
    bed.replace(host.plugins .. "/rules/pass.lua", (rule:gsub("config.expires and {.-}", "{ expires = r.value == 1 and '1h' or '200ms' }", 1)))
    host:wait_text '"plugin":"pass","generation":"2"'
  end

  it("expire messages of a destination that is not in force, wherever in their line they stand", function()
    begin(nil, "nothing = 7,") -- no option of a destination
    expire_but_first()
    emit("a", 1)
    emit("a", 2)
    bed.wait("the second to expire", function() return count "dead WHERE reason = 'expired' AND attempts = 0 AND body LIKE '%\"n\":2%'" == 1 end)
    assert.equal(0, #receiver:poll())
    bed.replace(host.plugins .. "/destinations/desk.lua", desk)
    done "the first to arrive"
    assert.same({ 1, 1 }, { #receiver:poll(), receiver.requests[1].json[1].n })
  end)

  it("send what stands behind a message that has expired, and expire what stands behind one that is under way", function()
    begin()
    expire_but_first()
    receiver.answer = function(r) return r.json[1].n == 1 and 200 or 503 end
    emit("b", 2)
    emit("b", 1)
    done "the first of them to expire, the other to arrive"
    local held
    receiver.answer = function(_, client)
      held = client.socket
      return false
    end
    emit("a", 1)
    bed.wait("its try", function() return receiver:poll() and held end)
    emit("a", 2)
    bed.wait("its time to be over", function() return count "outbox WHERE expires > 0 AND expires < (julianday('now') - 2440587.5) * 86400000 - 100" == 1 end)
    held:send "HTTP/1.1 503 X\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n"
    bed.wait("the second to expire", function() return count "dead WHERE reason = 'expired' AND device = 'a'" == 1 end)
    assert.equal(1, count "outbox WHERE attempts = 1") -- the first has to wait
  end)

  it("mask what is not to be shown, in the log and in what is kept of answers", function()
    begin "{ redact = { \"who.name\" } }"
    receiver.answer = function(r) return r.json[1].attempt == 1 and 500 or 200, "no bed for " .. r.json[1].name end
    emit("a", 1, "Waltheof")
    done()
    assert.equal("Waltheof", receiver.requests[1].json[1].name)
    host:wait_text "answered 500: no bed for ***"
    assert.is_nil(host.output:find("Waltheof", 1, true))
    assert.equal(2, count "attempts WHERE answer = 'no bed for ***'")
  end)

  it("mask it of all messages of a large batch, numbers too", function()
    begin "{ batch = 1000, batch_wait = '5s', redact = { \"who.name\", \"n\" } }"
    receiver.answer = function(r)
      local first, last = r.json[1], r.json[#r.json]
      return first.attempt == 1 and 500 or 200, ("no bed for %s, %d, %s, %d"):format(first.name, first.n, last.name, last.n)
    end
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=2000", "devices=20", "from=10000")))
    done()
    assert.is_true(#receiver.requests[1].json > 500, #receiver.requests[1].json)
    host:wait_text "answered 500: no bed for ***, ***, ***, ***"
    assert.is_nil(host.output:find("bed for patient", 1, true))
    assert.equal(0, count "attempts WHERE answer GLOB '*[0-9]*' OR error GLOB '*bed*[0-9]*'")
  end)

  it("leave a destination alone for as long as it asks, and for no time that it does not name", function()
    begin "{ backoff = '1s' }"
    for i, said in ipairs { "inf", "1e9", "0x7fff", "-1", "later", "nan", "" } do
      local tries = 0
      receiver.answer = function()
        tries = tries + 1
        return tries == 1 and 503 or 200, "", { ["Retry-After"] = said }
      end
      emit("a", i)
      done("what was put off by " .. said)
    end
    assert.is_nil(host:read():find("asked for a pause", 1, true))
  end)

  it("bound how many go a second, of all lanes together", function()
    begin "{ rate = '10/s' }"
    local socket = require "socket"
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=25", "devices=8")))
    local times = {}
    receiver.answer = function()
      times[#times + 1] = socket.gettime()
      return 200
    end
    done()
    assert.equal(25, #times)
    assert.is_true(times[25] - times[1] > 2.2, "24 turns of 100 ms") -- a lower bound: nothing makes it faster
  end)

  it("bound it over a new generation too", function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/pass.lua"] = rule, ["rules/second.lua"] = rule:gsub('"desk"', '"other"'),
      ["destinations/desk.lua"] = desk },
      config = ("lanes = 1, destinations = { { 'desk', url = '%s/desk', delivery = { rate = '2/h' } }, { 'desk', name = 'other', url = '%s/other' } }"):format(receiver.url, receiver.url) }
    local function arrived(where)
      local n = 0
      for _, r in ipairs(receiver:poll()) do n = n + (r.path == where and 1 or 0) end
      return n
    end
    for generation = 2, 4 do
      emit("a", generation)
      bed.wait("the other's", function() return arrived "/other" == generation - 1 end)
      bed.replace(host.plugins .. "/destinations/desk.lua", desk .. "-- " .. generation)
      host:wait_for('"plugin":"other","generation":"' .. generation .. '"')
    end
    emit("b", 9)
    bed.wait("the other's, on the same lane", function() return arrived "/other" == 4 end)
    assert.equal(1, arrived "/desk")
    bed.wait("the rest to wait for its turn", function() return count "outbox" == 3 and arrived "/desk" == 1 end)
  end)

  it("bound how many are under way, of all lanes together", function()
    begin "{ concurrency = 3 }"
    local held, most = {}, 0
    receiver.answer = function(_, client)
      held[#held + 1] = client.socket
      most = math.max(most, #held)
      return false
    end
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=40", "devices=40")))
    bed.wait("all to be delivered", function()
      receiver:poll()
      if #held == 3 or count "outbox" <= 3 then
        for _, s in ipairs(held) do s:send "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" end
        held = {}
      end
      return count "delivered" == 40
    end)
    assert.equal(3, most)
  end)
end)
