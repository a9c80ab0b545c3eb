-- NAME: who is told, of what, and how often.
-- `neap test NAME` runs this.
local t = require "neap.test"

describe("NAME", function()
  local rule

  -- Each test has a world of its own, whose clock stands still until the test moves it.
  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    rule = t.plugin("NAME", { to = "desk", metric = "temp", limit = 8, again = "30m" })
  end)

  local function temp(value, more)
    local reading = { device = "d-1", metric = "temp", value = value, unit = "Cel" }
    for field, given in pairs(more or {}) do reading[field] = given end
    rule:reading(reading)
  end

  it("tells of a value above the limit, with all there is to know", function()
    temp(9.5)
    assert.same({ title = "Too high", device = "d-1", value = 9.5, unit = "Cel", at = t.now() }, t.sent("desk")[1].data)
  end)

  it("says nothing at the limit, of another metric, or of what is not valid", function()
    temp(8)
    temp(90, { metric = "humidity" })
    temp(90, { at = "2026-03-01T08:01:00Z", quality = "invalid" })
    assert.same({}, t.sent "desk")
  end)

  it("tells once in half an hour, of each device", function()
    temp(9)
    temp(9, { device = "d-2" })
    t.advance "29m"
    temp(10)
    assert.equal(2, #t.sent "desk")
    t.advance "1m"
    temp(11)
    assert.equal(11, t.sent("desk")[3].data.value)
  end)

  it("wants to know whom to tell", function()
    assert.has_error(function() t.plugin("NAME", { name = "nobody" }) end, "to")
  end)
end)
