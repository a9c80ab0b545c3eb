-- low-glucose: who is told, of what, and how often. `neap test low-glucose` runs it.
local t = require "neap.test"

describe("low-glucose", function()
  local rule

  local function glucose(value, more)
    local r = { device = "SN-1", metric = "glucose", value = value, unit = "mmol/L" }
    for k, v in pairs(more or {}) do r[k] = v end
    return rule:reading(r)
  end

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    rule = t.plugin("low-glucose", { to = "desk", limit = 3.9, silence = "20m" })
  end)

  it("tells of a low reading, with all there is to know", function()
    local id = glucose(3.4)
    assert.same({
      title = "Low glucose", device = "SN-1", value = 3.4, unit = "mmol/L", limit = 3.9, at = t.now(), reading = id,
    }, t.sent("desk")[1].data)
  end)

  it("says nothing at the limit, nor of what is not valid", function()
    glucose(3.9)
    glucose(2.0, { at = "2026-03-01T08:01:00Z", quality = "warmup" })
    assert.same({}, t.sent "desk")
  end)

  it("knows mg/dL: 3.9 mmol/L are 70.26", function()
    glucose(70.3, { unit = "mg/dL" })
    assert.same({}, t.sent "desk")
    glucose(70.2, { unit = "mg/dL", at = "2026-03-01T08:05:00Z" })
    assert.equal(1, #t.sent("desk"))
  end)

  it("tells once in a quarter of an hour, of each device", function()
    glucose(3.0)
    glucose(3.1, { device = "SN-2" })
    t.advance "14m59s"
    glucose(2.8)
    assert.equal(2, #t.sent("desk"))
    t.advance "1s"
    glucose(2.7)
    assert.equal(2.7, t.sent("desk")[3].data.value)
  end)

  it("tells of silence, 20 minutes after the last reading", function()
    glucose(5.6)
    t.advance "19m"
    glucose(5.7)
    assert.same({ { plugin = "low-glucose", name = "silence", key = "SN-1", due = t.now() + 20 * 60000 } }, t.armed())
    t.advance "19m59s"
    assert.same({}, t.sent "desk")
    t.advance "1s"
    assert.same({ title = "No data", device = "SN-1" }, t.sent("desk")[1].data)
    t.advance "1h"
    assert.equal(1, #t.sent("desk"))
  end)

  it("wants to know whom to tell", function()
    assert.has_error(function() t.plugin("low-glucose", { name = "nobody" }) end, "to")
    assert.has_error(function() t.plugin("low-glucose", { name = "high", to = "desk", limit = 39 }) end, "limit")
  end)
end)
