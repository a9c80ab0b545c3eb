-- The libraries that vendor plugins share.
package.path = "plugins/lib/?.lua;" .. package.path
local glucose = require "glucose"
local pages = require "pages"
local plausible = require "plausible"
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
  it("is 18.01559 mg/dL a mmol/L", function()
    assert.equal(18.01559, glucose.to_mgdl(1, "mmol/L"))
    assert.equal(1.0, glucose.to_mmol(18.01559, "mg/dL"))
    assert.equal("float", math.type(glucose.to_mmol(6, "mmol/L")))
    assert.is_nil(glucose.to_mmol(6, "g/L"))
    assert.is_nil(glucose.to_mgdl(6, "Cel"))
  end)
end)
