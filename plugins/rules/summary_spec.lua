-- summary: each number against what it is by hand, and when it comes. `neap test summary` runs it.
local t = require "neap.test"

describe("summary", function()
  local rule
  local function begin(settings)
    local all = { metric = "glucose", over = "1h", as = "glucose_1h" }
    for k, v in pairs(settings or {}) do all[k] = v end
    rule = t.plugin("summary", all)
  end
  local function give(value, more)
    local r = { device = "SN-1", metric = "glucose", value = value, unit = "mmol/L" }
    for k, v in pairs(more or {}) do r[k] = v end
    return rule:reading(r)
  end
  local function give_all(values, apart)
    for i, value in ipairs(values) do
      if i > 1 then t.advance(apart or "5m") end
      give(value)
    end
  end
  local function newest()
    local all = t.emitted()
    return all[#all]
  end

  it("gives a mean for each reading, of the device, by the rule's name", function()
    begin { name = "hourly" }
    give_all { 5, 6, 10 }
    local all = t.emitted()
    assert.equal(3, #all)
    local r = all[3]
    assert.same({ "SN-1", "glucose_1h", 7.0, "mmol/L", "hourly", "hourly", "test", "valid" },
      { r.device, r.metric, r.value, r.unit, r.derived, r.connection, r.vendor, r.quality })
    assert.same({ t.now(), t.now(), { count = 3 } }, { r.at, r.received, r.extra })
  end)

  it("leaves out what is older, of other units and not valid", function()
    begin {}
    give(1)
    t.advance "1h"
    give(5)
    assert.equal(5.0, newest().value)
    give(100, { unit = "mg/dL", at = "2026-01-01T01:00:01Z" })
    assert.same({ 100.0, "mg/dL" }, { newest().value, newest().unit }) -- the newest's unit counts
    local n = #t.emitted()
    give(40, { quality = "warmup", at = "2026-01-01T01:00:02Z" })
    assert.equal(n, #t.emitted())
    give(7, { at = "2026-01-01T01:00:03Z" })
    assert.equal(6.0, newest().value)
  end)

  for of, expected in pairs { min = 2, max = 9, sum = 20, count = 4, mean = 5.0, stdev = 2.9439202887759 } do
    it("gives " .. of, function()
      begin { of = of }
      give_all { 4, 2, 5, 9 }
      assert.near(expected, newest().value, 1e-9)
      assert.equal(of ~= "count" and "mmol/L" or nil, newest().unit)
    end)
  end

  it("gives percentiles, slopes and what is in range, by readings and by time", function()
    begin { name = "p", as = "p", of = "percentile", percentile = 75 }
    begin { name = "s", as = "s", of = "slope", digits = 3 }
    begin { name = "share", as = "share", of = "in_range", low = 3.9, high = 10, digits = 1 }
    begin { name = "time", as = "time", of = "in_range", low = 3.9, high = 10, gap = "15m" }
    give_all { 3, 4, 5 }
    t.advance "10m"
    give(6)
    local by = {}
    for _, r in ipairs(t.emitted()) do by[r.metric] = { r.value, r.unit } end
    assert.same({ 5.25, "mmol/L" }, by.p) -- 3 4 5 6: three quarters of the way, between 5 and 6
    assert.same({ 0.149, "mmol/L/min" }, by.s) -- at 0, 5, 10 and 20 min: 32.5 / 218.75
    assert.same({ 75.0, "%" }, by.share)
    assert.same({ 75.0, "%" }, by.time) -- 15 of the 20 minutes
  end)

  it("needs enough readings, and comes at most so often", function()
    begin { least = 3, every = "10m" }
    give_all({ 5, 5, 5, 5, 5, 5 }, "5m")
    local at = {}
    for i, r in ipairs(t.emitted()) do at[i] = (r.at - t.now()) / 60000 end
    assert.same({ -15.0, -5.0 }, at)
    give(5, { device = "SN-2" })
    assert.equal(2, #t.emitted())
    give_all { 5, 5 } -- SN-1 may again
    for _ = 1, 3 do
      t.advance "1s"
      give(5, { vendor = "dreisam" }) -- who has a device of that name
    end
    assert.same({ 4, "dreisam" }, { #t.emitted(), newest().vendor })
  end)

  it("can be summed up again, and told of by other rules", function()
    begin { name = "hour" }
    t.plugin("summary", { name = "day", metric = "glucose_1h", over = "1d", as = "glucose_1d", of = "max" })
    t.plugin("low-glucose", { to = "desk" })
    t.plugin("forward", { to = "records", metric = "glucose_1d" })
    give_all { 5, 7 }
    assert.same({ "glucose_1d", 6.0 }, { newest().metric, newest().value })
    assert.equal("day", t.sent("records")[2].data.reading.connection)
    assert.equal(0, #t.sent "desk")
  end)

  it("does not sum up itself, nor what sums it up", function()
    assert.has_error(function() begin { as = "glucose" } end)
    begin {}
    local ok, why = pcall(t.plugin, "summary", { name = "back", metric = "glucose_1h", over = "1h", as = "glucose" })
    assert.is_false(ok)
    assert.matches("back %-> summary %-> back, by metrics", tostring(why))
  end)

  it("says what settings it lacks", function()
    local ok, why = pcall(begin, { of = "in_range", low = 3 })
    assert.is_false(ok)
    assert.matches("needs low and high", tostring(why))
    assert.is_false((pcall(begin, { of = "median" })))
    assert.is_false((pcall(begin, { name = "star", unit = "mmol*" }))) -- a window is of one unit
  end)
end)
