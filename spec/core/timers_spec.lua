-- A rule's timers: armed, moved and disarmed by readings, fired once, over kills and restarts too.
local bed = require "bed"
local socket = require "socket"

local rule = [[
local plugin = ...
local time = require "neap.time"
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "arm" }, function(r) plugin:arm("silence", r.device, r.value) end)
plugin:on({ metric = "disarm" }, function(r) plugin:arm("silence", r.device, false) end)
plugin:on({ metric = "both" }, function(r) plugin:arm("silence", r.device, r.value) plugin:arm("other", r.device, r.value) end)
plugin:on({ metric = "wrong" }, function(r) plugin:arm("unknown", r.device, 1) end)
plugin:on({ metric = "chain" }, function(r) plugin:arm("chain", r.device, r.value) end)
plugin:on({ metric = "raise" }, function(r) plugin:arm("raise", r.device, 0) end)
plugin:timer("silence", function(device) plugin:send(config.to, { fired = "silence", device = device, due = time.now() }) end)
plugin:timer("other", function(device) plugin:send(config.to, { fired = "other", device = device, due = time.now() }) end)
plugin:timer("chain", function(device)
  local n = (plugin.store:get(device) or 0) + 1
  plugin.store:put(device, n)
  plugin:send(config.to, { fired = "chain", device = device, n = n, due = time.now() })
  if n < 5 then plugin:arm("chain", device, 0.02) end
end)
plugin:timer("raise", function(device) plugin.store:put("raised", 1) error "in the timer" end)
]]

local poster = [[
local plugin = ...
plugin:serve { "POST /reading", handler = function(req) plugin:emit(req.body) return 204 end }
]]

describe("a timer", function()
  local host, desk
  setup(function()
    desk = bed.receiver()
    host = bed.host { config = ([[lanes = 2, connections = { { "poster" } }, rules = { { "rule", to = "desk" } }, destinations = { desk = { "webhook", url = "http://127.0.0.1:%d/" } }]]):format(desk.port),
      plugins = { ["vendors/poster.lua"] = poster, ["rules/rule.lua"] = rule, ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") } }
  end)
  teardown(function()
    host:stop()
    desk:close()
  end)

  local n = 0
  -- Stores a reading of that device; when it was received.
  local function reading(device, metric, value)
    n = n + 1
    local key = "k" .. n
    assert.equal(204, (host:request("POST", "/reading", { device = device, metric = metric, value = value or 1, key = key })))
    return host:sql(("select received from readings where key = '%s'"):format(key))[1].received
  end

  local function armed(device) return host:sql(("select * from timers where key = '%s'"):format(device)) end

  -- What has reached the desk of this device, by message id: a message may come twice.
  local function told(device)
    local list, seen = {}, {}
    for _, r in ipairs(desk:poll()) do
      local id = r.headers["webhook-id"]
      if r.json.device == device and not seen[id] then
        seen[id] = true
        list[#list + 1] = r.json
      end
    end
    return list
  end

  local function wait_told(device, count) return bed.wait(count .. " messages of " .. device, function() local list = told(device) return #list >= count and list end) end

  -- Another device's timer, armed now for `seconds`, has fired: so has everything that was due before.
  local function let_pass(seconds)
    n = n + 1
    local device = "clock-" .. n
    reading(device, "arm", seconds)
    wait_told(device, 1)
  end

  it("fires once, at the time for which it was armed", function()
    local received = reading("once", "arm", 0.05)
    local list = wait_told("once", 1)
    assert.equal(received + 50, list[1].due)
    let_pass(0.3)
    assert.equal(1, #told "once")
    assert.same({}, armed "once")
  end)

  it("is moved when it is armed again", function()
    local first = reading("moved", "arm", 60)
    assert.equal(first + 60000, bed.wait("it to be armed", function() return armed("moved")[1] end).due)
    local second = reading("moved", "arm", 0.1)
    local list = wait_told("moved", 1)
    assert.equal(second + 100, list[1].due)
    local third = reading("moved", "arm", 0.02)
    reading("moved", "arm", 3600)
    bed.wait("the last to count", function() return #armed "moved" == 1 and armed("moved")[1].due > third + 1000000 or #told "moved" == 2 end)
  end)

  it("is disarmed by false", function()
    reading("disarmed", "arm", 1)
    reading("disarmed", "disarm")
    bed.wait("it to be disarmed", function() return #armed "disarmed" == 0 and host:sql("select count(*) n from cursors")[1].n > 0 end)
    let_pass(1.2)
    assert.equal(0, #told "disarmed")
    reading("never", "disarm") -- of one that was never armed: nothing
    let_pass(0.1)
    assert.equal(0, host:summary().held)
  end)

  it("is known by its name and key", function()
    reading("both", "both", 0.05)
    local fired = {}
    for _, m in ipairs(wait_told("both", 2)) do fired[m.fired] = true end
    assert.same({ silence = true, other = true }, fired)
  end)

  it("may arm itself again", function()
    reading("chain", "chain", 0.02)
    local list = wait_told("chain", 5)
    for i, m in ipairs(list) do assert.equal(i, m.n) end
    for i = 2, 5 do assert.equal(list[i - 1].due + 20, list[i].due) end
    assert.same({}, armed "chain")
  end)

  it("that is not declared is misuse", function()
    reading("wrong", "wrong")
    local held = bed.wait("it to be held", function() return host:sql("select h.error from held h join readings r on r.seq = h.reading where r.device = 'wrong'")[1] end)
    assert.matches('no plugin:timer("unknown"', held.error, 1, true)
  end)

  it("whose handler raises is held, with nothing of what it did", function()
    local received = reading("raise", "raise")
    local held = bed.wait("it to be held", function() return host:sql("select * from held where name = 'raise' and key = 'raise'")[1] end)
    assert.matches("rules/rule.lua:%d+: in the timer", held.error)
    assert.equal(received, held.at) -- when it was due, which is its "now" once it is run again
    assert.equal(0, host:sql("select count(*) n from kv where key = 'raised'")[1].n)
    assert.same({}, armed "raise")
  end)

  it("that its rule no longer knows stays armed, for a generation that does", function()
    local path = host.plugins .. "/rules/rule.lua"
    local due = reading("kept", "both", 600) + 1
    bed.wait("both to be armed", function() return #armed "kept" == 2 end)
    host:stop()
    assert.equal(0, select(2, bed.run { "sqlite3", host.store, ("update timers set due = %d where key = 'kept'"):format(due) }))
    bed.write(path, (rule:gsub('plugin:timer%("other".-\n', "")))
    host:begin()
    assert.equal("silence", wait_told("kept", 1)[1].fired)
    let_pass(0.3)
    assert.same({ 1, "other" }, { #told "kept", armed("kept")[1].name })
    bed.replace(path, rule)
    local last = wait_told("kept", 2)[2]
    assert.same({ "other", due }, { last.fired, last.due })
  end)

  it("survives kill -9, and fires once", function()
    local received = reading("killed", "arm", 2)
    bed.wait("it to be armed", function() return armed("killed")[1] end)
    host:restart(9)
    local list = wait_told("killed", 1)
    assert.equal(received + 2000, list[1].due)
    host:restart(9)
    let_pass(0.3)
    assert.equal(1, #told "killed")
  end)

  it("that was due while the host was down fires after the start", function()
    local received = reading("down", "arm", 0.8)
    bed.wait("it to be armed", function() return armed("down")[1] end)
    host:stop(9)
    assert.equal(0, #told "down")
    bed.wait("it to be due", function() return socket.gettime() * 1000 > received + 900 end)
    host:begin()
    assert.equal(received + 800, wait_told("down", 1)[1].due)
    host:restart()
    let_pass(0.3)
    assert.equal(1, #told "down")
  end)

  it("does not fire where a reading that came in time has moved it, over a kill too", function()
    for try = 1, 5 do
      local device = "intime-" .. try
      local first = reading(device, "arm", 0.6)
      bed.wait("it to be armed", function() return armed(device)[1] end)
      assert.equal(204, (host:request("POST", "/reading", { device = device, metric = "arm", value = 2, key = device })))
      host:stop(9) -- perhaps before the rule has seen it
      local second = host:sql(("select received from readings where key = '%s'"):format(device))[1].received
      bed.wait("the first to be due", function() return socket.gettime() * 1000 > first + 750 end)
      host:begin()
      local list = wait_told(device, 1)
      assert.equal(1, #list)
      if second < first + 600 then assert.equal(second + 2000, list[1].due) end
    end
  end)

  it("does not fire for a device whose readings keep coming", function()
    for _ = 1, 15 do
      reading("steady", "arm", 0.7)
      let_pass(0.05)
    end
    local last = armed("steady")[1]
    local list = wait_told("steady", 1)
    assert.equal(1, #list)
    if last then assert.equal(last.due, list[1].due) end
  end)
end)
