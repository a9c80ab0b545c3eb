-- plugin:window and plugin:debounce: what counts, what late readings do, and that it is the same when it is run again.
local bed = require "bed"
local json = require "neap.json"

local RULE = [[
local plugin = ...
local config = plugin:config { to = { "destination" } }
local function tell(w, of)
  plugin:send(config.to, { of = of, count = w.count, sum = w.sum, mean = w.mean, min = w.min, first = w.first, last = w.last, unit = w.unit,
    slope = w.slope, half = w:percentile(50), low = w:in_range(0, 4), low_time = w:in_range(0, 4, "10m"), covered = w:covered "10m" })
end
plugin:on({ metric = "level" }, function(r) tell(plugin:window { last = "1h", count = 5 }, r.key) end)
plugin:on({ metric = "any" }, function(r) tell(plugin:window { metric = "level", count = 3, quality = { "valid", "warmup" }, unit = "m" }, r.key) end)
plugin:on({ metric = "arm" }, function(r) plugin:arm("look", r.device, "30m") end)
plugin:timer("look", function(device) tell(plugin:window { device = device, metric = "level", last = "1h" }, "timer") end)
plugin:on({ metric = "knock" }, function(r) plugin:send(config.to, { of = r.key, again = plugin:debounce(r.device, "5m") }) end)
plugin:on({ metric = "sly" }, function(r)
  local n = 0
  local function text() n = n + 1 return ("x"):rep(100) .. n end
  tell(plugin:window(setmetatable({ count = 3, metric = "level" }, { __index = text })), n)
end)
plugin:on({ metric = "wrong" }, function(r) assert(load(r.extra.code, "=wrong", "t", { plugin = plugin }))() end)
]]

describe("windows", function()
  local function run(body)
    local folder = bed.folder()
    bed.write(folder .. "/plugins/rules/watch.lua", RULE)
    bed.write(folder .. "/plugins/rules/watch_spec.lua", [[
local t = require "neap.test"
local p
local function level(minute, value, more)
  local r = { device = "d", metric = "level", value = value, unit = "m", at = 1772352000000 + minute * 60000, key = minute .. "/" .. tostring(value) }
  for k, v in pairs(more or {}) do r[k] = v end
  p:reading(r)
end
local function last() local all = t.sent "desk" return all[#all] and all[#all].data end
describe("watch", function()
  before_each(function() t.at "2026-03-01T08:00:00Z" p = t.plugin("watch", { to = "desk" }) end)
]] .. body .. "\nend)")
    local out, code = bed.run({ bed.neap, "test" }, { cwd = folder })
    assert.equal(0, code, out)
    assert.matches("%d passed, 0 failed\n$", out)
  end

  it("are over time and number, with the reading that they are made for", function()
    run [[
    it("counts", function()
      level(0, 2)
      assert.same({ of = "0/2", count = 1, sum = 2, mean = 2.0, min = 2, first = 2, last = 2, unit = "m", half = 2.0, low = 1.0, covered = 0.0 }, last())
      level(10, 4) level(30, 6) level(60, 8)
      local w = last()
      assert.same({ 3, 18, 6.0, 4 }, { w.count, w.sum, w.mean, w.min }) -- the one an hour before is out
      assert.equal("integer", math.type(w.sum))
      assert.near(w.slope, (-70 / 3 * -2 + 80 / 3 * 2) / ((70 / 3) ^ 2 + (10 / 3) ^ 2 + (80 / 3) ^ 2), 1e-9)
      assert.equal(1 / 3, w.low)
      assert.equal(0.5, w.low_time) -- 10 of 20 minutes and 10 of 30; the newest stands for nothing yet
      assert.equal(1200.0, w.covered)
      for i = 61, 66 do level(i, 0.5) end
      assert.same({ 5, 2.5 }, { last().count, last().sum })
    end)]]
  end)

  it("leave out what is no number, not valid, or in another unit", function()
    run [[
    it("leaves out", function()
      level(0, 1) level(1, 100, { quality = "invalid" }) level(2, 3, { quality = "warmup" }) level(3, "off") level(4, 50, { unit = "cm" }) level(5, 5)
      assert.same({ 2, 6, "m" }, { last().count, last().sum, last().unit })
      level(5.5, 60, { quality = "warmup", unit = "cm" }) -- the newest unit is that of what counts
      assert.same({ 2, 6, "m" }, { last().count, last().sum, last().unit })
      level(6, 7, { metric = "any" })
      assert.same({ 3, 9 }, { last().count, last().sum }) -- 1, the warm-up's 3, 5
      p:reading { device = "other", metric = "any", value = 1, key = "none" }
      assert.same({ of = "none", count = 0, sum = 0, covered = 0.0, unit = "m" }, last())
    end)]]
  end)

  it("of a late reading are those of its own time, and others are not made again", function()
    run [[
    it("is late", function()
      level(0, 1) level(20, 3)
      local n = #t.sent "desk"
      level(10, 11) -- late
      assert.same({ "10/11", 2, 12 }, { last().of, last().count, last().sum })
      assert.equal(n + 1, #t.sent "desk")
      level(25, 5)
      assert.same({ 4, 20 }, { last().count, last().sum }) -- now it counts
    end)]]
  end)

  it("of a timer end when it was due", function()
    run [[
    it("is a timer's", function()
      level(0, 1) level(25, 3)
      p:reading { device = "d", metric = "arm", value = 1 }
      t.advance "2h"
      assert.same({ "timer", 2, 4, 900.0 }, { last().of, last().count, last().sum, last().covered }) -- 10 minutes, and 5 until it was due
    end)]]
  end)

  it("do not ask a metatable what they are to be of", function()
    run [[
    it("counts what its own fields say", function()
      level(0, 2)
      p:reading { device = "d", metric = "sly", value = 1 }
      assert.same({ 0, 1 }, { last().of, last().count })
    end)]]
  end)

  it("are refused where they make no sense, and tell why", function()
    run [[
    for code, why in pairs {
      ["plugin:window {}"] = "how far back", ["plugin:window { last = 'x' }"] = "has to be a duration", ["plugin:window { last = 0 }"] = "longer than nothing",
      ["plugin:window { count = 0 }"] = "1 or more", ["plugin:window { count = 1, devise = 1 }"] = 'unknown field "devise"',
      ["plugin:window { count = 1, quality = 'good' }"] = 'unknown "good"', ["plugin:window { count = 1, quality = {} }"] = "empty list",
      ["plugin:window { count = 1, metric = 7 }"] = "metric has to be a string", ["plugin:window { count = 1 }:percentile(101)"] = "from 0 to 100",
      ["plugin:window { count = 1 }:in_range(2, 1)"] = "lower bound", ["plugin:window { count = 1 }:in_range(1, 2, 0)"] = "some time",
      ["plugin:window { count = 1 }.mean = 2"] = "attempt to index",
    } do it(code, function()
      p:reading { device = "d", metric = "wrong", value = 1, extra = { code = code } }
      assert.truthy(t.held()[1].error:find(why, 1, true), t.held()[1].error)
    end) end]]
  end)

  it("debounce: passes after a pause, for each key, by the time of the readings", function()
    run [[
    it("waits for a pause", function()
      local function knock(device)
        p:reading { device = device or "d", metric = "knock", value = 1, key = tostring(t.now()) }
        return last().again
      end
      assert.is_false(knock())
      t.advance "4m59s" assert.is_true(knock())
      t.advance "4m59s" assert.is_true(knock()) -- the one before counts, though it did not pass
      assert.is_false(knock "e")
      t.advance "5m" assert.is_false(knock())
      t.advance "1s" assert.is_true(knock())
    end)]]
  end)
end)

describe("windows over what is stored", function()
  local host, desk
  local FEED = [[
local plugin = ...
plugin:serve { "POST /readings", handler = function(req) for _, r in ipairs(req.body) do plugin:emit(r) end return 204 end }]]
  setup(function()
    desk = bed.receiver()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["rules/watch.lua"] = RULE,
      ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") },
      config = ([[lanes = 3, rules = { { "watch", to = "desk", limits = { running = "60s" } } },
        destinations = { desk = { "webhook", url = %q } }]]):format(desk.url) }
  end)
  teardown(function()
    desk:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  -- Messages' bodies by what they are of.
  local function told(n)
    return bed.wait(n .. " messages", function()
      local by, count = {}, 0
      for _, r in ipairs(desk:poll()) do
        if by[r.json.of] == nil then count = count + 1 end
        by[r.json.of] = r.json
      end
      return count >= n and by
    end)
  end

  it("are the same in a shadow run over the past, after a kill, and where readings came late and mixed", function()
    local list, random = {}, 7
    for i = 1, 300 do
      random = (random * 1103515245 + 12345) % 2147483648
      list[i] = { device = "d" .. i % 5, metric = "level", value = random % 1000 / 10, unit = "m", at = 1772352000000 + (i - random % 20) * 60000, key = tostring(i) }
    end
    for i = 0, 4 do assert.equal(204, (host:request("POST", "/readings", { table.unpack(list, i * 50 + 1, i * 50 + 50) }))) end
    host:stop(9)
    host:begin()
    assert.equal(204, (host:request("POST", "/readings", { table.unpack(list, 251) })))
    local by = told(300)
    for i, r in ipairs(list) do -- the same by hand: what was given before, in order of time
      local past = {}
      for j = 1, i do if list[j].device == r.device and list[j].at <= r.at and list[j].at > r.at - 3600000 then past[#past + 1] = list[j] end end
      table.sort(past, function(a, b) return a.at > b.at or a.at == b.at and tonumber(a.key) > tonumber(b.key) end)
      local seen, least = {}, math.huge
      for j = math.min(5, #past), 1, -1 do seen[#seen + 1] = past[j].value least = math.min(least, past[j].value) end
      local m = by[r.key]
      assert.same({ #seen, least, seen[1], seen[#seen] }, { m.count, m.min, m.first, m.last }, r.key)
      local sum = 0
      for _, v in ipairs(seen) do sum = sum + v end
      assert.equal(sum, m.sum)
    end
    local folder = bed.folder()
    os.execute(("cp -r '%s' '%s/plugins'"):format(host.plugins, folder))
    bed.write(folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub("plugins = %b\"\"", 'plugins = "plugins"')))
    bed.write(folder .. "/plugins/rules/watch.lua", RULE .. "-- a remark")
    local out, code = bed.run { bed.neap, "check", folder, "--against", host.store, "--json" }
    assert.equal(0, code, out)
    local said
    for line in out:gmatch "[^\n]+" do
      local p = json.decode(line)
      for _, s in ipairs(p.instance == "watch" and p.stages or {}) do if s.stage == "shadow" then said = s.said end end
    end
    assert.equal("the same messages, over the last 300 readings", said)
  end)

  local function push(reading) assert.equal(204, (host:request("POST", "/readings", { reading }))) end

  it("of a timer that was held are of what was stored when it was due", function()
    local soon, now = RULE:gsub('"30m"', '"100ms"'), os.time() * 1000
    bed.replace(host.plugins .. "/rules/watch.lua", (soon:gsub('"look", function%(device%)', "%0 error 'not yet'")))
    bed.wait("the timer that fails", function() return host:plugin("watch").generation == 2 end)
    push { device = "late", metric = "level", value = 1, unit = "m", at = now - 2000, key = "in time" }
    push { device = "late", metric = "arm", value = 1 }
    bed.wait("it to be held", function() return host:sql "select count(*) n from held"[1].n == 1 end)
    push { device = "late", metric = "level", value = 10, unit = "m", at = now - 1000, key = "late" }
    bed.replace(host.plugins .. "/rules/watch.lua", soon)
    bed.wait("it to be run", function() return host:sql "select count(*) n from held"[1].n == 0 end)
    local by = bed.wait("its message", function() local all = told(1) return all.timer and all end)
    assert.same({ 1, 1 }, { by.timer.count, by.timer.sum })
  end)

  it("look at 100,000 readings, and at no more", function()
    local lines, file = {}, bed.folder() .. "/many"
    for i = 1, 100000 do lines[i] = ('{"device":"m","metric":"many","value":%d,"at":%d,"vendor":"feed"}'):format(i % 10, 1772352000000 + i) end
    bed.write(file, table.concat(lines, "\n"))
    local out, code = bed.run { bed.neap, "import", file, "--store", host.store }
    assert.same({ "100000 readings: 100000 new, 0 known\n", 0 }, { out, code })
    local function look(of)
      local code_of = 'plugin:send("desk", { of = "%s", count = plugin:window { metric = "many", count = 200000 }.count })'
      push { device = "m", metric = "wrong", value = 1, key = of, extra = { code = code_of:format(of) } }
    end
    look "many"
    assert.equal(100000, bed.wait("the number", function() return told(1).many end).count)
    push { device = "m", metric = "many", value = 1, at = 1772352000000 }
    look "too many"
    bed.wait("it to be held", function() return host:sql "select * from held where error like '%more than 100000 readings to look at%'"[1] end)
  end)
end)
