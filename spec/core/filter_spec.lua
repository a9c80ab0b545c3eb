-- Filters that remember, in a test's world and in a running host: what fires, what does not, and that it is durable.
local bed = require "bed"

describe("filters", function()
  -- Runs `body` in a test's world that has the rule `ons`; send(name) is a handler that sends { on = name, … } to "desk".
  local function world(ons, body)
    local folder = bed.folder()
    bed.write(folder .. "/plugins/rules/r.lua", [[
      local plugin = ...
      local function send(name)
        return function(r) plugin:send("desk", { on = name, metric = r.metric, value = r.value, at = r.at }) end
      end
    ]] .. ons)
    bed.write(folder .. "/plugins/rules/r_spec.lua", [[
      local t = require "neap.test"
      local time = require "neap.time"
      it("works", function()
        t.at "2026-03-02T08:00:00Z" -- a Monday
        t.plugin("log", { name = "desk" })
        local p = t.plugin "r"
        local start, minute = t.now(), 0
        -- A reading a minute after the last one, or at a time; it comes when it is measured, unless that has gone by.
        local function give(value, more)
          minute = minute + 1
          local r = { device = "d", metric = "glucose", value = value, unit = "mmol/L", at = start + minute * 60000 }
          for k, v in pairs(more or {}) do r[k] = v end
          local at = type(r.at) == "string" and time.parse(r.at) or r.at
          if at > t.now() then t.at(at) end
          return p:reading(r)
        end
        local function values(list) for _, v in ipairs(list) do give(v) end end
        -- What was sent since the last look: "on value" each.
        local seen = 0
        local function sent()
          local list = {}
          for i, m in ipairs(t.sent "desk") do
            if i > seen then list[#list + 1] = m.data.on .. " " .. tostring(m.data.value) end
          end
          seen = #t.sent "desk"
          return table.concat(list, ", ")
        end
    ]] .. body .. "\nend)")
    bed.write(folder .. "/plugins/destinations/log.lua", "local plugin = ... plugin:deliver { handler = function() return true end }")
    local out, code = bed.run({ bed.neap, "test" }, { cwd = folder })
    assert.equal(0, code, out)
  end

  it("with a margin fires on crossing, and again only after coming back by it", function()
    world([[plugin:on({ metric = "glucose", below = 3.9, margin = 0.3 }, send "low")]], [[
      values { 5, 3.9, 3.8, 3.7, 4.19, 3.8 }
      assert.equal("low 3.8", sent())
      values { 4.2, 3.9, 3.89 }
      assert.equal("low 3.89", sent())
      give(3.5, { device = "other" })
      give(3.5, { metric = "ketone" })
      assert.equal("low 3.5", sent())
    ]])
  end)

  it("knows both sides of a range", function()
    world([[plugin:on({ metric = "glucose", outside = { 3.9, 10 }, margin = 1 }, send "out")]], [[
      values { 5, 3, 3, 4.5, 3, 12, 9.5, 12, 9, 12, 2, 4.9, 2 }
      assert.equal("out 3, out 12, out 12, out 2, out 2", sent())
    ]])
  end)

  it("remembers for each vendor's device, and a margin for each of its metrics", function()
    world([[plugin:on({ metric = { "glucose", "ketone" }, below = 3.9, margin = 0.3 }, send "low")
      plugin:on({ metric = "glucose", first = "ever" }, send "first")]], [[
      give(3) give(2, { metric = "ketone" }) give(1, { vendor = "another" }) give(3) give(2, { metric = "ketone" }) give(1, { vendor = "another" })
      assert.equal("low 3, first 3, low 2, low 1, first 1", sent())
    ]])
  end)

  it("leaves a late reading aside that was measured before the last change, and counts one after it", function()
    world([[plugin:on({ metric = "glucose", below = 3.9, margin = 0.3 }, send "low")]], [[
      local base = t.now()
      local function at(minutes, value) give(value, { at = base + minutes * 60000 }) end
      at(10, 3); at(20, 5)                    -- fired at 10, ready since 20
      at(15, 3.1)                             -- before it was ready: late
      assert.equal("low 3", sent())
      at(40, 5.5); at(30, 3.2)                -- since it was ready
      assert.equal("low 3.2", sent())
      at(25, 6); at(50, 3.3)                  -- 25 lies before 30: it does not make it ready
      assert.equal("", sent())
    ]])
  end)

  it("is not silenced by a reading whose device's clock is ahead", function()
    world([[
      plugin:on({ metric = "glucose", below = 3.9, margin = 0.3 }, send "low")
      plugin:on({ metric = "ketone", first = "2h" }, send "first")
      plugin:on({ metric = "ketone", first = "day", zone = "Europe/Berlin" }, send "day")
    ]], [[
      local ahead = "2099-01-01T00:00:00Z"
      local function of_the_future(metric, value) p:reading { device = "d", metric = metric, value = value, unit = "mmol/L", at = ahead } end
      give(3.2); of_the_future("glucose", 5)
      give(3.3)
      assert.equal("low 3.2, low 3.3", sent())
      of_the_future("ketone", 1)
      give(2, { metric = "ketone" })                     -- the one before has fired, when it came
      assert.equal("first 1, day 1", sent())
      t.advance "2h"
      give(3, { metric = "ketone", at = t.now() })
      assert.equal("first 3", sent())
      give(4, { metric = "ketone", at = "2026-03-02T23:00:00Z" }) -- midnight there
      assert.equal("first 4, day 4", sent())
      p:reading { device = "d", metric = "ketone", value = 5, at = "2099-01-02T00:00:00Z" } -- nor does it fire once more for being of another day
      assert.equal("", sent())
    ]])
  end)

  it("stays ready where the hours do not let it fire yet", function()
    world([[plugin:on({ metric = "glucose", below = 3.9, margin = 0.3, hours = { "22:00", "06:00" }, zone = "Europe/Berlin" }, send "night")]], [[
      give(3.2, { at = "2026-03-02T20:50:00Z" })        -- 21:50 there
      assert.equal("", sent())
      give(3.3, { at = "2026-03-02T21:00:00Z" })        -- 22:00
      assert.equal("night 3.3", sent())
      give(5, { at = "2026-03-03T10:00:00Z" })
      give(3.1, { at = "2026-03-03T05:00:00Z" })        -- late
      give(3.4, { at = "2026-03-04T04:59:59Z" })        -- 05:59:59
      assert.equal("night 3.4", sent())
      give(6, { at = "2026-03-04T05:00:00Z" })
      give(3, { at = "2026-03-04T05:00:01Z" })          -- 06:00:01
      assert.equal("", sent())
    ]])
  end)

  it("compares with the reading measured before it", function()
    world([[
      plugin:on({ metric = "door", changed = true, quality = "valid" }, send "door")
      plugin:on({ metric = "glucose", rate = { above = 0.1, per = "1m" } }, send "rising")
      plugin:on({ metric = "glucose", rate = { below = -6, per = "1h" } }, send "falling")
    ]], [[
      local function door(value, more) give(value, { metric = "door", quality = more }) end
      door(true); door(true); door(false); door(true, "invalid"); door(false); door(true)
      assert.equal("door true, door false, door true", sent())
      door(1); door(1.0); door(true); door("true"); door(9007199254740993); door(9007199254740992.0)
      assert.equal("door 1, door true, door true, door 9007199254740993, door 9.007199254741e+15", sent())
      values { 5, 5.1, 5.3, 5.2 }
      assert.equal("rising 5.3", sent())
      give(5.09)
      assert.equal("falling 5.09", sent())
      give(99, { unit = "mg/dL" })                       -- nothing in its unit to compare with
      assert.equal("", sent())
    ]])
  end)

  it("fires for the first of a device: ever, of a day in its zone, and after a time", function()
    world([[
      plugin:on({ first = "ever" }, send "ever")
      plugin:on({ metric = "glucose", first = "day", zone = "Europe/Berlin" }, send "day")
      plugin:on({ metric = "glucose", below = 3.9, first = "2h" }, send "low")
    ]], [[
      give(5, { at = "2026-03-02T08:00:00Z" })
      give(5.5, { at = "2026-03-02T22:59:59Z" })
      assert.equal("ever 5, day 5", sent())
      give(5.6, { at = "2026-03-02T23:00:00Z" })
      assert.equal("day 5.6", sent())
      give(6, { at = "2026-03-01T12:00:00Z" })           -- late: of a day that has gone by
      give(7, { device = "e", metric = "ketone", at = "2026-03-01T12:00:00Z" })
      assert.equal("ever 7", sent())
      give(3.1, { at = "2026-03-03T08:00:00Z" })
      give(3.2, { at = "2026-03-03T09:59:59.999Z" })
      give(3.3, { at = "2026-03-03T10:00:00Z" })
      assert.equal("low 3.1, low 3.3", sent())
    ]])
  end)

  it("knows hours and weekdays of its zone, also where clocks change", function()
    world([[
      plugin:on({ hours = { { "02:30", "03:00" }, { "12:00", "24:00" } }, zone = "Europe/Berlin", weekdays = { "sat", "sun" } }, send "in")
    ]], [[
      local function at(text) give(text, { at = text }) end
      at "2026-03-29T00:29:59Z" -- Sunday 01:29:59
      at "2026-03-29T00:59:59Z" -- 01:59:59; then it is 03:00
      at "2026-03-29T01:00:00Z"
      assert.equal("", sent())
      at "2026-10-25T00:30:00Z" -- Sunday 02:30 for the first time
      at "2026-10-25T01:30:00Z" -- and again
      at "2026-10-25T02:00:00Z"
      assert.equal("in 2026-10-25T00:30:00Z, in 2026-10-25T01:30:00Z", sent())
      at "2026-10-25T10:59:59Z"; at "2026-10-25T11:00:00Z"; at "2026-10-25T22:59:59Z"; at "2026-10-25T23:00:00Z" -- Monday 00:00
      assert.equal("in 2026-10-25T11:00:00Z, in 2026-10-25T22:59:59Z", sent())
      at "2026-10-23T22:00:00Z"; at "2026-10-24T10:00:00Z"
      assert.equal("in 2026-10-24T10:00:00Z", sent())
      at "1969-12-28T12:00:00Z" -- a Sunday
      assert.equal("in 1969-12-28T12:00:00Z", sent())
    ]])
  end)

  it("knows a device's place, owner and tags", function()
    world([[
      plugin:on({ place = "icu-*" }, send "place")
      plugin:on({ owner = { "p_1", "p_2" }, metric = "glucose" }, send "owner")
      plugin:on({ tag = "vip", below = 3.9, margin = 0.3 }, send "tag")
    ]], [[
      give(3)
      assert.equal("", sent())
      p:device { device = "d", place = "icu-4", owner = "p_2", tags = { "night", "vip" } }
      p:device { device = "d", vendor = "another", place = "hall" }
      values { 3.1, 3.2 }
      assert.equal("place 3.1, owner 3.1, tag 3.1, place 3.2, owner 3.2", sent())
      p:device { device = "d", place = "", tags = {} }
      give(4.2)                                          -- not of the filter's devices: it changes nothing
      p:device { device = "d", tags = { "vip" } }
      values { 3.3, 4.3, 3.4 }
      assert.equal("owner 4.2, owner 3.3, owner 4.3, owner 3.4, tag 3.4", sent())
      assert.same({ "vip" }, t.devices()[1].tags)
    ]])
  end)

  it("keeps two handlers of the same filter apart", function()
    world([[
      for _, name in ipairs { "a", "b" } do plugin:on({ metric = "glucose", below = 3.9, margin = 0.3 }, send(name)) end
    ]], [[
      values { 3, 3, 5, 3 }
      assert.equal("a 3, b 3, a 3, b 3", sent())
    ]])
  end)

  local VENDOR = [[
local plugin = ...
plugin:serve { "POST /x", handler = function(req)
  for i, value in ipairs(req.body.values) do
    plugin:emit { device = req.body.device, metric = "glucose", value = value, unit = "mmol/L", at = req.body.from + i * 60000 }
  end
  return 204
end }
]]
  local DESK = "local plugin = ... plugin:deliver { handler = function() return true end }"
  local function low(body) return ([[local plugin = ...
plugin:on({ metric = "glucose", below = 3.9, margin = 0.3 }, function(r) %s end)]]):format(body) end
  local SEND = [[plugin:send("desk", { value = r.value })]]

  local function push(host, from, values)
    local status = host:request("POST", "/x", { device = "d", from = from, values = values })
    assert.equal(204, status)
  end

  local function messages(host)
    local list = {}
    local rows = host:sql "select body from outbox union all select body from delivered order by 1"
    for i, row in ipairs(rows) do list[i] = row.body:match "[%d.]+" end
    return table.concat(list, " ")
  end
  local function ruled(host)
    bed.wait("all readings to be ruled", function()
      host:read()
      return host:sql("select count(*) n from cursors where seq = (select max(seq) from readings)")[1].n > 0
    end)
  end

  it("remember over a restart and in a new generation with the same filter", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = VENDOR, ["rules/r.lua"] = low(SEND), ["destinations/desk.lua"] = DESK } }
    push(host, 0, { 5, 3.1 })
    ruled(host)
    assert.equal("l 120000", host:sql("select value from kv where space = 'filter:r'")[1].value)
    host:stop()
    host:begin()
    push(host, 1e6, { 3.2, 3.3 })
    ruled(host)
    bed.replace(host.plugins .. "/rules/r.lua", low("local another = 1 " .. SEND))
    host:wait_for '"plugin":"r","generation":"2"'
    push(host, 2e6, { 3.4, 4.1 })
    ruled(host)
    assert.equal("3.1", messages(host))
    push(host, 3e6, { 4.2, 3.5, 3 })
    ruled(host)
    assert.equal("3.1 3.5", messages(host))
    host:stop()
  end)

  it("take what was noted while the machine's clock was ahead for long past", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = VENDOR, ["rules/r.lua"] = low(SEND), ["destinations/desk.lua"] = DESK } }
    push(host, 0, { 3.1, 5 })
    ruled(host)
    assert.equal("r 120000", host:sql("select value from kv where space = 'filter:r'")[1].value)
    local out, code = bed.run { "sqlite3", "-cmd", ".timeout 10000", host.store, "update kv set value = 'r 4070908800000' where space = 'filter:r'" }
    assert.equal(0, code, out)
    push(host, 1e6, { 3.2, 5, 3.3 })
    ruled(host)
    assert.equal("3.1 3.2 3.3", messages(host))
    host:stop()
  end)

  it("remember nothing any more that neither the rule nor the generation before it asks for", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = VENDOR, ["rules/r.lua"] = low(SEND), ["rules/s.lua"] = low(SEND),
      ["destinations/desk.lua"] = DESK } }
    local function kept(rule)
      local filters = {}
      for i, row in ipairs(host:sql(("select distinct substr(key, 1, instr(key, ' ') - 1) as f from kv where space = 'filter:%s' order by 1"):format(rule or "r"))) do
        filters[i] = row.f
      end
      return filters
    end
    local function change(limit, generation)
      bed.replace(host.plugins .. "/rules/r.lua", (low(SEND):gsub("3%.9", limit)))
      host:wait_for(('"plugin":"r","generation":"%d"'):format(generation))
    end
    for i = 1, 250 do assert.equal(204, (host:request("POST", "/x", { device = "e" .. i, from = 0, values = { 5, 3.1 } }))) end -- more than go at once
    push(host, 0, { 5, 3.1 })
    ruled(host)
    bed.wait("all to be remembered", function() return host:sql "select count(*) n from kv where space = 'filter:r'"[1].n == 251 end)
    local first = kept()
    assert.equal(1, #first)
    change("3.8", 2)
    push(host, 1e6, { 5, 3.1 })
    ruled(host)
    local two = kept()
    assert.equal(2, #two)
    local second = two[1] == first[1] and two[2] or two[1]
    change("3.7", 3)
    bed.wait("the first filter's to be removed", function() return #kept() == 1 end)
    assert.same({ second }, kept())
    assert.same(first, kept "s") -- another rule's with the same filter stays
    push(host, 2e6, { 5, 3.1 })
    ruled(host)
    assert.equal(2, #kept())
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("of a rule that failed: what had fired is run once it is mended, though the value has come back since", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = VENDOR, ["rules/r.lua"] = low "error 'broken'", ["destinations/desk.lua"] = DESK } }
    push(host, 0, { 5, 3.1, 3.2, 5, 3.3, 3.4, 6 })
    ruled(host)
    assert.equal(2, host:sql("select count(*) n from held")[1].n)
    bed.replace(host.plugins .. "/rules/r.lua", low(SEND))
    bed.wait("what was held to be run", function()
      host:read()
      return host:sql("select count(*) n from held")[1].n == 0
    end)
    assert.equal("3.1 3.3", messages(host))
    push(host, 1e6, { 3.6 })
    ruled(host)
    assert.equal("3.1 3.3 3.6", messages(host))
    host:stop()
  end)

  it("know a device's place and owner as soon as they are told, also by news alone", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = VENDOR .. [[
plugin:serve { "POST /device", handler = function(req)
  plugin:device(req.body.device)
  if req.body.value then plugin:emit { device = req.body.device.device, metric = "glucose", value = req.body.value } end
  return 204
end }]], ["rules/r.lua"] = [[local plugin = ...
plugin:on({ metric = "glucose", place = "icu-*", owner = { "p_1", "p_2" } }, function(r) plugin:send("desk", { value = r.value }) end)
]], ["destinations/desk.lua"] = DESK }, config = "lanes = 2" }
    local function device(d, value) assert.equal(204, (host:request("POST", "/device", { device = d, value = value }))) end
    push(host, 0, { 1 })
    device({ device = "d", place = "icu-1" })
    push(host, 1e6, { 2 })
    device({ device = "d", owner = "p_2" }, 3)       -- in one commit
    push(host, 2e6, { 4 })
    device({ device = "d", place = "hall" })
    push(host, 3e6, { 5 })
    device({ device = "d", place = "" })
    push(host, 4e6, { 6 })
    ruled(host)
    assert.equal("3 4", messages(host))
    host:stop()
  end)
end)
