-- time-in-range: what is told at midnight, and of what. `neap test time-in-range` runs it.
local t = require "neap.test"
local glucose = require "glucose"

describe("time-in-range", function()
  local rule
  local function begin(settings)
    local all = { to = "desk" }
    for k, v in pairs(settings or {}) do all[k] = v end
    rule = t.plugin("time-in-range", all)
  end

  -- A reading every five minutes, n times.
  local function wear(n, value, more)
    for _ = 1, n do
      local r = { device = "SN-1", metric = "glucose", value = value, unit = "mg/dL" }
      for k, v in pairs(more or {}) do r[k] = v end
      rule:reading(r)
      t.advance "5m"
    end
  end

  it("tells the shares of a day, which is twelve times two hours", function()
    t.at "2026-03-01T00:01:00Z"
    begin()
    for _, value in ipairs { 53, 54, 69, 70, 100, 100, 140, 180, 181, 250, 251, 100 } do wear(24, value) end
    assert.equal(1, #t.sent "desk") -- it is a minute past midnight
    local m = t.sent("desk")[1].data
    assert.same({ "Time in range", "SN-1", 1, 288, "mg/dL", t.now() },
      { m.title, m.device, m.days, m.count, m.unit, m.upto + 60000 })
    for name, share in pairs { very_low = 1, low = 2, in_range = 6, high = 2, very_high = 1 } do
      assert.near(share / 12, m[name], 0.001)
    end
    assert.near(1548 / 12, m.mean, 0.005)
    assert.near(1439 / 1440, m.data, 0.0005)
    assert.is_nil(m.gmi) -- a day is too little
    t.advance "3d"
    assert.equal(1, #t.sent "desk") -- and nothing of days without a reading
    wear(1, 100, { at = "2026-03-02T12:00:00Z" })
    t.advance "1d"
    assert.equal(1, #t.sent "desk") -- nor of one of which what comes is late
  end)

  it("says so where data is missing, and leaves out what is not valid", function()
    t.at "2026-03-01T00:01:00Z"
    begin()
    wear(100, 100)
    wear(20, 40, { quality = "warmup" })
    t.advance "14h"
    local m = t.sent("desk")[1].data
    assert.equal("Time in range: too little data", m.title)
    assert.near((99 * 5 + 15) / 1440, m.data, 0.0006) -- the last one stands for 15 minutes
    assert.same({ 1.0, 0.0, 100 }, { m.in_range, m.very_low, m.count })
  end)

  it("goes by the midnight of its zone, also where a day has 23 hours", function()
    t.at "2026-03-29T10:00:00Z" -- the clocks of Berlin have gone ahead that night
    begin { zone = "Europe/Berlin" }
    for at, value in pairs { ["2026-03-28T22:59:00Z"] = 5.5, ["2026-03-28T23:01:00Z"] = 6.5 } do -- the first is of the day before
      rule:reading { device = "SN-1", metric = "glucose", value = value, unit = "mmol/L", at = at }
    end
    assert.same("2026-03-29T22:00:00Z", require "neap.time".format(t.armed()[1].due))
    t.advance "12h"
    assert.same({ 1, 6.5 }, { t.sent("desk")[1].data.count, t.sent("desk")[1].data.mean })
  end)

  it("tells of each vendor's sensor, where they have sensors of one name", function()
    t.at "2026-03-01T00:01:00Z"
    begin()
    for i = 1, 288 do
      rule:reading { device = "7", metric = "glucose", value = 100, unit = "mg/dL", vendor = "dreisam" }
      if i <= 250 then rule:reading { device = "7", metric = "glucose", value = 300, unit = "mg/dL", vendor = "sinocare" } end
      t.advance "5m"
    end
    local told = {}
    for i, m in ipairs(t.sent "desk") do told[i] = { m.data.in_range, m.data.very_high, m.data.count } end
    assert.same({ { 1.0, 0.0, 288 }, { 0.0, 1.0, 250 } }, told)
  end)

  it("is of the whole day also where readings are of the very midnight", function()
    t.at "2026-03-01T00:00:00Z"
    begin()
    wear(288, 100)
    assert.equal(1.0, t.sent("desk")[1].data.data)
  end)

  it("says in the log where it does not know the unit", function()
    t.at "2026-03-01T00:01:00Z"
    begin()
    wear(1, 100, { unit = "mg%" })
    t.advance "1d"
    assert.same({}, t.sent "desk")
    assert.matches("neither mmol/L nor mg/dL", t.logged("info")[1].text)
  end)

  it("tells the GMI of two weeks", function()
    t.at "2026-03-01T00:01:00Z"
    begin { days = 14, gap = "1h" }
    for _ = 1, 14 * 24 do
      rule:reading { device = "SN-1", metric = "glucose", value = 154, unit = "mg/dL" }
      t.advance "1h"
    end
    local all = t.sent "desk"
    assert.equal(14, #all)
    assert.same({ "Time in range: too little data" }, { all[9].data.title, all[9].data.gmi })
    assert.same({ 6.99, 1.0, 336 }, { all[14].data.gmi, all[14].data.in_range, all[14].data.count })
    assert.near(3.31 + 0.02392 * 154, glucose.gmi(154, "mg/dL"), 1e-12)
  end)
end)
