-- examples/crossing: one neap between four vendors, as its script plays it.
local bed = require "bed"
local json = require "neap.json"

describe("the crossing", function()
  it("what comes by one vendor's dialect is read by another's, and nothing is left behind", function()
    local out, code = bed.run({ "sh", "examples/crossing/run", "once" }, { "NEAP=" .. bed.neap })
    assert.equal(0, code, out)
    assert.same({ code = 0, msg = "" }, json.decode(out:match "Sinocare is answered  (%b{})"))
    assert.matches('"device_sn":"SN-7"', out, 1, true)
    local n, devices = out:match "(%d+) readings have come, and Neuron has them: it lists (%d+) devices"
    assert.is_true(tonumber(n) > 100 and tonumber(devices) > 5, out)
    assert.matches("Everything has crossed.", out, 1, true)
    local gone = out:match "Tuya at (%S+),"
    assert.not_equal(0, (select(2, bed.run { "curl", "-s", gone })))
  end)

  it("tells how it is called", function()
    local out, code = bed.run({ "sh", "examples/crossing/run", "twice" }, { "NEAP=" .. bed.neap })
    assert.same({ "usage: sh examples/crossing/run [once]\n", 2 }, { out, code })
  end)
end)
