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

  it("tells of each vendor's device, also where they have one name", function()
    glucose(3.0, { vendor = "sinocare" })
    glucose(3.0, { vendor = "dreisam" })
    glucose(2.9, { vendor = "dreisam", at = t.now() + 1000 })
    assert.equal(2, #t.sent "desk")
  end)

  it("tells of a low value also right after one that was measured hours ago and came late", function()
    for i = 36, 0, -1 do glucose(3.8 - i / 100, { at = t.now() - i * 300000 }) end
    local told = {}
    for i, m in ipairs(t.sent "desk") do told[i] = (t.now() - m.data.at) // 60000 end
    assert.same({ 180, 10 }, told)
    t.advance "15m"
    glucose(3.7)
    assert.equal(3, #t.sent "desk")
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

  it("tells of the silence of each vendor's device, also where another of that name goes on", function()
    glucose(5.6, { vendor = "sinocare" })
    for i = 1, 5 do
      t.advance "5m"
      glucose(5.6, { vendor = "dreisam", key = tostring(i) })
    end
    assert.equal(1, #t.sent "desk")
    t.advance "20m"
    assert.equal(2, #t.sent "desk")
    t.advance "1h"
    assert.equal(2, #t.sent "desk")
  end)

  describe("where nobody acknowledges", function()
    before_each(function()
      rule = t.plugin("low-glucose", { name = "night", to = "nurses", escalate_to = "doctor", escalate_after = "10m" })
    end)

    it("tells somebody else after ten minutes, with all that was told, and again until it is acknowledged", function()
      local id = glucose(3.4)
      assert.is_true(t.sent("nurses")[1].acknowledge)
      t.advance "9m59s"
      assert.same({}, t.sent "doctor")
      t.advance "1s"
      assert.same({ title = "Not acknowledged: Low glucose", escalation = 1, device = "SN-1", value = 3.4, unit = "mmol/L",
        limit = 3.9, at = t.now() - 600000, reading = id }, t.sent("doctor")[1].data)
      t.advance "10m"
      assert.same({ 2, 2 }, { #t.sent "doctor", t.sent("doctor")[2].data.escalation })
      t.acknowledge(t.sent("doctor")[1].id, { by = "Agnes" })
      t.advance "1h"
      assert.equal(2, #t.sent "doctor")
    end)

    it("tells nobody else where it is acknowledged a second before", function()
      glucose(3.4)
      t.advance "9m59s"
      t.acknowledge(t.sent("nurses")[1].id)
      t.advance "1h"
      assert.same({}, t.sent "doctor")
      assert.same({}, t.armed())
    end)

    it("does not take the acknowledgement of one vendor's device for that of another of its name", function()
      glucose(3.4, { vendor = "sinocare" })
      glucose(3.3, { vendor = "dreisam", key = "other" })
      t.acknowledge(t.sent("nurses")[1].id)
      t.advance "10m"
      assert.same({ 1, 3.3, "SN-1" }, { #t.sent "doctor", t.sent("doctor")[1].data.value, t.sent("doctor")[1].data.device })
    end)

    it("gives up after three times, and begins anew with the next", function()
      glucose(3.4)
      t.advance "2h"
      assert.equal(3, #t.sent "doctor")
      glucose(3.2)
      t.advance "10m"
      assert.same({ 4, 1 }, { #t.sent "doctor", t.sent("doctor")[4].data.escalation })
    end)

    it("takes an acknowledgement for all that was sent until then, and not for what comes after it", function()
      glucose(3.4)
      t.advance "5m"
      t.acknowledge(t.sent("nurses")[1].id)
      t.advance "10m"
      glucose(3.0)
      t.advance "9m59s"
      assert.same({}, t.sent "doctor")
      t.advance "1s"
      assert.equal(3.0, t.sent("doctor")[1].data.value)
      t.advance "5m"
      glucose(2.8) -- belongs to the same: it is still open
      t.acknowledge(t.sent("nurses")[3].id)
      t.advance "2h"
      assert.equal(1, #t.sent "doctor")
    end)

    it("counts from the first of several alerts, and tells of the newest, each time under the same title", function()
      t.plugin("low-glucose", { name = "often", to = "ward", again = "1m", escalate_to = "chief" })
      glucose(3.4)
      t.advance "9m"
      glucose(2.8)
      t.advance "1m"
      assert.equal(2.8, t.sent("chief")[1].data.value)
      t.advance "20m"
      assert.equal(3, #t.sent "chief")
      for i, m in ipairs(t.sent "chief") do
        assert.same({ "Not acknowledged: Low glucose", i }, { m.data.title, m.data.escalation })
      end
    end)

    it("takes any of many for all, and begins anew with an alert after that", function()
      t.plugin("low-glucose", { name = "often", to = "ward", again = "1s", escalate_to = "chief" })
      for _ = 1, 22 do
        glucose(3.4)
        t.advance "10s"
      end
      t.acknowledge(t.sent("ward")[20].id)
      glucose(2.8) -- before the first one's ten minutes are over
      t.advance "9m59s"
      assert.same({}, t.sent "chief")
      t.advance "1s"
      assert.equal(2.8, t.sent("chief")[1].data.value)
    end)

    it("waits for silence on its own: whoever acknowledges a low reading has not seen that there are none", function()
      t.plugin("low-glucose", { name = "quiet", to = "ward", silence = "5m", escalate_to = "chief" })
      glucose(3.4)
      t.advance "5m"
      t.acknowledge(t.sent("ward")[1].id)
      t.advance "10m"
      assert.same({ 1, "Not acknowledged: No data" }, { #t.sent "chief", t.sent("chief")[1].data.title })
    end)

    it("waits for each device on its own", function()
      glucose(3.4)
      glucose(3.3, { device = "SN-2" })
      t.acknowledge(t.sent("nurses")[1].id)
      t.advance "10m"
      assert.same({ 1, "SN-2" }, { #t.sent "doctor", t.sent("doctor")[1].device })
    end)
  end)

  it("wants to know whom to tell", function()
    assert.has_error(function() t.plugin("low-glucose", { name = "nobody" }) end, "to")
    assert.has_error(function() t.plugin("low-glucose", { name = "high", to = "desk", limit = 39 }) end, "limit")
  end)
end)
