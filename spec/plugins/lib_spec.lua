-- The libraries that vendor plugins share.
package.path = "plugins/lib/?.lua;" .. package.path
local glucose = require "glucose"
local pages = require "pages"
local plausible = require "plausible"
local timeline = require "timeline"
local trends = require "trend"
local windows = require "windows"

local function fake_store()
  local values = {}
  return { get = function(_, k) return values[k] end, put = function(_, k, v) values[k] = v end }
end

describe("windows", function()
  local DAY = 86400000

  it("go from the beginning to the present, without a hole, and then look back a little", function()
    local store, seen = fake_store(), {}
    local options = { since = 5 * DAY, span = 30 * DAY, overlap = 3600000, now = 100 * DAY }
    repeat
      local w = windows.next(store, "r", options)
      assert.is_true(w.to - w.from <= options.span)
      if #seen > 0 then assert.equal(seen[#seen].to - options.overlap, w.from) else assert.equal(options.since, w.from) end
      seen[#seen + 1] = w
      windows.done(store, "r", w)
    until not w.more
    assert.equal(options.now, seen[#seen].to)
    options.now = options.now + 60000
    local w = windows.next(store, "r", options)
    assert.same({ from = 100 * DAY - 3600000, to = options.now, more = false }, w)
  end)

  it("one that was not done comes again", function()
    local store = fake_store()
    local options = { since = 0, span = 10, now = 100 }
    assert.same({ from = 0, to = 10, more = true }, windows.next(store, "r", options))
    assert.same({ from = 0, to = 10, more = true }, windows.next(store, "r", options))
    windows.done(store, "r", windows.next(store, "r", options))
    assert.same({ from = 10, to = 20, more = true }, windows.next(store, "r", options))
  end)

  it("a history that begins in the future waits for it; a span that would not move is refused", function()
    assert.same({ from = 100, to = 100, more = false }, windows.next(fake_store(), "r", { since = 500, span = 10, now = 100 }))
    assert.has_error(function() windows.next(fake_store(), "r", { since = 0, span = 10, overlap = 10, now = 100 }) end)
  end)
end)

describe("pages", function()
  local function list_of(n)
    local asked = {}
    return asked, function(after, limit)
      asked[#asked + 1] = after or 0
      local items = {}
      for id = (after or 0) + 1, math.min(n, (after or 0) + limit) do items[#items + 1] = { id = id } end
      return items
    end
  end
  local function ids(items)
    local out = {}
    for i, item in ipairs(items) do out[i] = item.id end
    return out
  end

  it("are the list's parts, in any order of asking", function()
    for n = 0, 13 do
      for size = 1, 5 do
        local _, fetch = list_of(n)
        local p = pages.new()
        for _, page in ipairs { 3, 1, 2, 14, 4, 5, 1000000 } do
          local want = {}
          for id = (page - 1) * size + 1, math.min(n, page * size) do want[#want + 1] = id end
          assert.same(want, ids(p:fetch("k", page, size, fetch)), ("%d items, page %d of %d"):format(n, page, size))
        end
      end
    end
  end)

  it("the next page costs one look", function()
    local asked, fetch = list_of(1000)
    local p = pages.new()
    for page = 1, 50 do p:fetch("k", page, 10, fetch) end
    assert.equal(50, #asked)
    p:fetch("k", 20, 10, fetch)
    assert.equal(51, #asked)
    p:fetch("other", 2, 10, fetch)
    assert.equal(53, #asked)
  end)
end)

describe("plausible", function()
  it("gives the same again, within what a sensor can say, with the trend of what it gave", function()
    local seen = {}
    for step = 0, 5000 do
      local at = 1700000000000 + step * 180000
      local value, trend = plausible.glucose(7, at)
      assert.same({ value, trend }, { plausible.glucose(7, at) })
      assert.is_true(value >= 1.7 and value <= 27.8)
      local before = plausible.glucose(7, at - 900000)
      if trend:find "rising" then assert.is_true(value >= before) elseif trend:find "falling" then assert.is_true(value <= before) end
      seen[trend] = true
    end
    for _, trend in ipairs { "flat", "rising_slowly", "falling_slowly" } do assert.is_true(seen[trend], trend) end
    for hour = 0, 100 do
      local value = plausible.daily(3, hour * 3600000, 18, 24)
      assert.is_true(value >= 18 and value <= 24)
    end
    assert.equal(plausible.name(5), plausible.name(5))
  end)
end)

describe("glucose", function()
  it("sums up a window: enough is 0.7 of the span or more, the variation is per cent, and no more than all of it is covered", function()
    local function summary(covered, span)
      return glucose.summary({ unit = "mg/dL", count = 9, mean = 150, stdev = 30, in_range = function() return 1 end,
        covered = function() return covered end }, { span = span })
    end
    for covered, expected in pairs { [700] = { 0.7, true, 20.0 }, [699] = { 0.699, false, 20.0 }, [1200] = { 1, true, 20.0 } } do
      local s = summary(covered, 1000)
      assert.same(expected, { s.data, s.enough, s.cv })
    end
    local days = 14 * 86400
    assert.equal(glucose.gmi(150, "mg/dL"), summary(days * 0.7, days).gmi)
    assert.same({}, { summary(days * 0.6, days).gmi, summary(days, days - 1).gmi })
  end)

  it("is 18.01559 mg/dL a mmol/L", function()
    assert.equal(18.01559, glucose.to_mgdl(1, "mmol/L"))
    assert.equal(1.0, glucose.to_mmol(18.01559, "mg/dL"))
    assert.equal("float", math.type(glucose.to_mmol(6, "mmol/L")))
    assert.is_nil(glucose.to_mmol(6, "g/L"))
    assert.is_nil(glucose.to_mgdl(6, "Cel"))
  end)

  it("has arrows that lead there and back, and no trend of what is none", function()
    for vendor, arrows in pairs(glucose.arrows) do
      local n = 0
      for name, theirs in pairs(arrows.of) do
        assert.equal(name, arrows.to[theirs], vendor)
        n = n + 1
      end
      assert.equal(5, n)
    end
    assert.equal("falling_fast", glucose.arrows.nightscout.to.DoubleDown)
    assert.is_nil(glucose.arrows.nightscout.to["NOT COMPUTABLE"])
    assert.is_nil(glucose.arrows.dreisam.to[0])
  end)

  it("has the consensus's ranges, round in both units, with 70 and 180 in range", function()
    for unit, values in pairs { ["mg/dL"] = { 53, 54, 69, 70, 180, 181, 250, 251 }, ["mmol/L"] = { 2.9, 3.0, 3.8, 3.9, 10.0, 10.1, 13.9, 14.0 } } do
      local got = {}
      for i, v in ipairs(values) do got[i] = glucose.range(v, unit) end
      assert.same({ "very_low", "low", "low", "in_range", "in_range", "high", "high", "very_high" }, got)
    end
    assert.is_nil(glucose.range(5, "g/L"))
    assert.is_nil(glucose.gmi(5, "g/L"))
    assert.equal(3.31 + 0.02392 * 100, glucose.gmi(100, "mg/dL"))
  end)
end)

describe("trend", function()
  local MINUTE = 60000

  it("names a rate by 1 and 2 mg/dL a minute, either way", function()
    for mgdl, name in pairs { [0] = "flat", [0.99] = "flat", [1.01] = "slowly", [1.99] = "slowly", [2.01] = "fast", [9] = "fast" } do
      for sign, way in pairs { [1] = "rising_", [-1] = "falling_" } do
        assert.equal(name == "flat" and name or way .. name, trends.name(sign * mgdl / glucose.MGDL))
      end
    end
  end)

  it("of a reading is its change since the oldest of the past 15 minutes, if that is 5 minutes older", function()
    local of = trends.follow()
    local got = {}
    for i, r in ipairs { { 0, 5 }, { 4.9, 9 }, { 5, 5.5 }, { 15, 6 }, { 15.1, 6.8 }, { 40, 9 }, { 44, 12 }, { 45, 9 } } do
      got[i] = of(math.floor(r[1] * MINUTE), r[2]) or "none"
    end
    -- at 15.1 minutes the first is too old, and the one at 4.9 counts; at 40 there is none, at 45 the one at 40
    assert.same({ "none", "none", "rising_slowly", "rising_slowly", "falling_fast", "none", "none", "flat" }, got)
  end)
end)

describe("timeline", function()
  -- As plugin.data: a page of `limit`, and a cursor where there are more.
  local function fake(series)
    local asked = 0
    return { readings = function(_, q)
      asked = asked + 1
      local all, page = series[q.device], {}
      local from = tonumber(q.after or 0)
      for i = from + 1, math.min(#all, from + q.limit) do page[#page + 1] = { at = all[i] } end
      return page, from + q.limit < #all and tostring(from + q.limit) or nil
    end }, function() return asked end
  end

  it("gives all readings of all devices in order of time, a page of each at a time", function()
    local series = { a = {}, b = {}, c = {}, d = {} }
    for i = 1, 3000 do series.a[i], series.b[i] = i * 10, i * 10 + 5 end
    for i = 1, 10 do series.c[i] = i * 3000 end
    local data, asked = fake(series)
    local pull = timeline.open(data, { { device = "a" }, { device = "b" }, { device = "c" }, { device = "d" } }, { metric = "m" })
    local n, last, of = 0, 0, {}
    for reading, device in pull do
      assert.is_true(reading.at >= last)
      n, last = n + 1, reading.at
      of[device.device] = (of[device.device] or 0) + 1
    end
    assert.equal(6010, n)
    assert.same({ a = 3000, b = 3000, c = 10 }, of)
    assert.is_nil(pull())
    assert.is_true(asked() >= 12 and asked() <= 16)
  end)

  it("of no device is empty", function() assert.is_nil(timeline.open(fake {}, {}, { metric = "m" })()) end)
end)
