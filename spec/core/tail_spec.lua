-- neap tail of matches, messages and attempts: live, chosen by name, and of no cost to the host, however slowly they are read.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = [[
local plugin = ...
local json = require "neap.json"
plugin:serve { "POST /v", body_max = "4MiB", handler = function(req)
  for _, r in ipairs(json.decode(req.raw)) do plugin:emit(r) end
  return 204
end }]]

local RULES = {
  ["rules/hot.lua"] = [[
    local plugin = ...
    plugin:on({ metric = "temp", above = 8 }, function(r) plugin:send("desk", { hot = r.value }) end)]],
  ["rules/watch.lua"] = [[
    local plugin = ...
    plugin:timer("late", function() end)
    plugin:on({ metric = "temp" }, function(r)
      plugin:arm("late", r.device, "1h")
      plugin.store:put("last", r.value)
    end)]],
  ["rules/idle.lua"] = [[
    local plugin = ...
    plugin:on({ metric = "temp", above = 8, margin = 1 }, function() end)]],
  ["rules/broken.lua"] = [[
    local plugin = ...
    plugin:on({ metric = "temp", above = 50 }, function() error "no such luck" end)]],
}

describe("neap tail", function()
  local host, desk
  before_each(function()
    desk = bed.receiver()
    local plugins = { ["vendors/v.lua"] = VENDOR, ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") }
    for name, text in pairs(RULES) do plugins[name] = text end
    host = bed.host { plugins = plugins, config = ([[lanes = 2, probation = "0s",
      destinations = { desk = { "webhook", url = %q, delivery = { backoff = "1s" } } }]]):format(desk.url) }
  end)
  after_each(function()
    assert.same({ "exit", 0 }, { host:stop() })
    desk:close()
  end)

  local function push(...) assert.equal(204, (host:request("POST", "/v", { ... }))) end
  local function temp(device, value) return { device = device, metric = "temp", value = value, key = device .. value } end
  local function tail(of, ...)
    local p = bed.start { bed.neap, "tail", of, "--store", host.store, "--json", ... }
    p:wait_for('{"tailing":"' .. of .. '"}')
    function p:lines(n)
      local list
      bed.wait(n .. " lines of " .. of, function()
        list = {}
        desk:poll()
        for line in self:read():gmatch "([^\n]+)\n" do list[#list + 1] = json.decode(line) end
        table.remove(list, 1)
        return #list >= n
      end)
      return list
    end
    return p
  end

  it("shows each match, and what the rule did", function()
    local all, one, other = tail "matches", tail("matches", "--rule", "wat*", "--device", "B"), tail("matches", "--device", "none")
    push(temp("A", 9), temp("B", 3), temp("A", 60), { device = "A", metric = "door", value = 1 })
    local by = {}
    for _, m in ipairs(all:lines(7)) do by[m.rule .. " " .. m.device .. " " .. m.value] = m end
    assert.equal(7, #all:lines(7))
    assert.equal(1, by["hot A 9"].sent)
    assert.equal(1, by["hot A 60"].sent)
    assert.same({ 1, 1 }, { by["watch B 3"].armed, by["watch B 3"].stored })
    local idle = by["idle A 9"]
    assert.same({ "temp", 1, "v" }, { idle.metric, idle.generation, idle.connection })
    assert.is_nil(idle.sent or idle.stored or idle.armed or idle.held)
    assert.matches("no such luck", by["broken A 60"].held)
    assert.equal(host:sql "select seq from readings where value = 9"[1].seq, by["hot A 9"].seq)
    assert.same({ "watch", 3 }, { one:lines(1)[1].rule, one:lines(1)[1].value })
    assert.equal(1, #one:lines(1))
    assert.equal(0, #other:lines(0))
    for _, p in ipairs { all, one, other } do p:stop() end
  end)

  it("shows messages, and each attempt with its answer", function()
    desk.answer = function() if #desk.requests == 1 then return 503, "come back" end return 200, "" end
    local messages, attempts = tail "messages", tail("attempts", "--destination", "desk", "--rule", "hot")
    push(temp("A", 9))
    local id = messages:lines(1)[1].id
    local row = host:sql "select id, reading from (select id, reading from outbox union all select id, reading from delivered)"[1]
    assert.same({ row.id, row.reading, "hot", "desk", "A" }, { id, messages:lines(1)[1].reading, messages:lines(1)[1].rule,
      messages:lines(1)[1].destination, messages:lines(1)[1].device })
    local a = attempts:lines(2)
    assert.same({ id, 1, 503, "again", "pending" }, { a[1].id, a[1].attempt, a[1].status, a[1].outcome, a[1].state })
    assert.same({ id, 2, 200, "delivered", "delivered" }, { a[2].id, a[2].attempt, a[2].status, a[2].outcome, a[2].state })
    messages:stop()
    attempts:stop()
  end)

  it("is told to people as rows", function()
    local function rows(of) return bed.start { bed.neap, "tail", of, "--store", host.store } end
    local matches, messages, attempts = rows "matches", rows "messages", rows "attempts"
    local n = 0
    bed.wait("each to show something", function() -- a row comes once they have begun
      n = n + 1
      push(temp("A", 8 + n / 100))
      desk:poll()
      return matches:read():find("sent 1", 1, true) and messages:read():find("msg_", 1, true) and attempts:read():find("delivered, 200", 1, true)
    end)
    assert.matches("AT +RULE +DEVICE +METRIC +VALUE +DID\n", matches.output)
    assert.matches("watch +A +temp +8.%d+ +armed 1, stored 1", matches.output)
    assert.matches("hot +A +desk +r%d+ +msg_%x+", messages.output)
    for _, p in ipairs { matches, messages, attempts } do p:stop() end
  end)

  it("by one who reads slowly keeps nobody: what is left out is counted, and all else arrives", function()
    local unix = require "socket.unix"
    local slow = assert(unix())
    assert(slow:connect(host.store .. ".sock"))
    slow:send '{"command":"tail","of":"matches"}\n'
    slow:settimeout(60)
    assert.equal('{"tailing":"matches"}', (slow:receive "*l"))
    local quick = tail("matches", "--rule", "hot", "--device", "last")
    local total = 0
    for i = 1, 12 do
      local many = {}
      for k = 1, 500 do many[k] = { device = ("device %d %d"):format(i, k), metric = "temp", value = 1, at = i * 1000 + k } end
      push(table.unpack(many))
      total = total + #many
    end
    push(temp("last", 9))
    assert.equal(9, quick:lines(1)[1].value) -- nothing waits for the slow one
    bed.wait("all to be ruled on", function()
      return host:sql "select min(seq) >= (select max(seq) from readings) - 1 done from cursors where seq = (select max(seq) from cursors)"[1].done == 1
    end)
    local seen, dropped = 0, 0
    repeat
      local line = slow:receive "*l"
      if not line then break end
      local item = json.decode(line)
      if item.dropped then dropped = dropped + item.dropped else seen = seen + 1 end
    until seen + dropped == total + 3
    assert.equal(total + 3, seen + dropped) -- watch on all, hot and idle on the last
    assert.is_true(dropped > 0)
    slow:close()
    quick:stop()
  end)

  it("refuses what such a tail is not chosen by, and ends with its client", function()
    local out, code = bed.run { bed.neap, "tail", "messages", "--metric", "temp", "--store", host.store }
    assert.equal(1, code)
    assert.matches("a tail of messages is not chosen by metric", out, 1, true)
    out, code = bed.run { bed.neap, "tail", "readings", "--rule", "hot", "--store", host.store }
    assert.equal(1, code)
    assert.matches('unknown field "rule"', out, 1, true)
    out, code = bed.run { bed.neap, "tail", "matches", "--above", "3", "--store", host.store }
    assert.equal(1, code, out)
  end)
end)
