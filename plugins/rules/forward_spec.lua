-- forward: readings go on as they are, but not back to where they came from.
local t = require "neap.test"

describe("forward", function()
  it("sends a reading with all that is known of it", function()
    local rule = t.plugin("forward", { to = "campus" })
    t.at "2026-03-01T08:00:00Z"
    rule:reading { device = "d-1", metric = "temp", value = 21.5, unit = "Cel", key = "k-1", serial = 7, interval = "5m",
      trend = "flat", quality = "warmup", extra = { floor = 2 }, vendor = "neuron", connection = "house" }
    assert.same({ reading = { device = "d-1", metric = "temp", value = 21.5, unit = "Cel", at = t.now(), vendor = "neuron",
      connection = "house", key = "k-1", serial = 7, interval = 300, trend = "flat", quality = "warmup",
      extra = { floor = 2 } } }, t.sent("campus")[1].data)
  end)

  it("takes what its settings say, and nothing else", function()
    local rule = t.plugin("forward", { to = "campus", metric = "glucose", device = "SN-*" })
    rule:reading { device = "SN-1", metric = "glucose", value = 5 }
    rule:reading { device = "SN-1", metric = "temp", value = 30 }
    rule:reading { device = "XX-1", metric = "glucose", value = 6 }
    assert.equal(1, #t.sent())
    assert.equal(5, t.sent()[1].data.reading.value)
  end)

  it("takes what rules derived, or leaves it out, where it is told to", function()
    t.plugin("summary", { metric = "glucose", over = "1h", as = "glucose_1h" })
    t.plugin("forward", { name = "raw", to = "pile-1", derived = false })
    t.plugin("forward", { name = "made", to = "pile-2", derived = true })
    local rule = t.plugin("forward", { name = "all", to = "pile-3" })
    rule:reading { device = "SN-1", metric = "glucose", value = 5 }
    local function metrics(of)
      local list = {}
      for i, m in ipairs(t.sent(of)) do list[i] = m.data.reading.metric end
      return list
    end
    assert.same({ { "glucose" }, { "glucose_1h" }, { "glucose", "glucose_1h" } },
      { metrics "pile-1", metrics "pile-2", metrics "pile-3" })
  end)

  it("takes those of a place or with a tag", function()
    local rule = t.plugin("forward", { to = "campus", place = "icu-*", tag = "vip" })
    rule:device { device = "d", place = "icu-4", tags = { "vip" } }
    rule:device { device = "e", place = "icu-4" }
    for _, device in ipairs { "d", "e", "f" } do rule:reading { device = device, metric = "temp", value = 1 } end
    assert.equal(1, #t.sent())
    assert.equal("d", t.sent()[1].data.reading.device)
  end)

  it("does not send a connection what came by it", function()
    local rule = t.plugin("forward", { to = "campus" })
    rule:reading { device = "d", metric = "temp", value = 1, connection = "campus" }
    assert.same({}, t.sent())
  end)

  it("drops no reading for being a second one, and sends a duplicate once", function()
    local rule = t.plugin("forward", { to = "campus" })
    assert.is_number(rule:reading { device = "d", metric = "temp", value = 1, key = "same" })
    assert.is_nil(rule:reading { device = "d", metric = "temp", value = 1, key = "same" })
    rule:reading { device = "d", metric = "temp", value = 1, key = "other" }
    assert.equal(2, #t.sent())
  end)
end)
