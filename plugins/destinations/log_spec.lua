-- log: messages become lines of neap's own log.
local t = require "neap.test"
local json = require "neap.json"

describe("log", function()
  it("writes a line for each message", function()
    local rule = t.plugin("low-glucose", { to = "log" })
    t.plugin "log"
    rule:reading { device = "SN-1", metric = "glucose", value = 3.1, unit = "mmol/L" }
    local line = t.logged("info")[1]
    assert.equal("message", line.text)
    assert.equal("SN-1", line.device)
    assert.equal("low-glucose", line.source)
    assert.equal(3.1, json.decode(line.body).value)
    assert.equal("delivered", t.sent("log")[1].state)
  end)

  it("leaves out what its terms say", function()
    local desk = t.plugin("log", { delivery = { redact = { "patient.name" } } })
    desk:message { patient = { name = "Waltheof", bed = 4 } }
    assert.same({ patient = { name = "***", bed = 4 } }, json.decode(t.logged("info")[1].body))
  end)

  it("takes what waits at once, in order", function()
    local rule = t.plugin("forward", { to = "log" })
    for i = 1, 5 do rule:reading { device = "d", metric = "temp", value = i, at = t.now() + i } end
    assert.equal("waiting", t.sent("log")[5].state)
    t.plugin "log"
    local got = {}
    for _, line in ipairs(t.logged "info") do got[#got + 1] = json.decode(line.body).reading.value end
    assert.same({ 1, 2, 3, 4, 5 }, got)
  end)
end)
