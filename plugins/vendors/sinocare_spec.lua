-- sinocare: the cloud's pushes, by the vendor's document. All of it is tested in spec/plugins/; this is what counts most.
local t = require "neap.test"
local json = require "neap.json"

describe("sinocare", function()
  local ward

  -- The document's sample, with changes.
  local function push(changes, target)
    local data = { testId = "t-1", deviceSn = "SN-1", testResult = "5.6", serialNo = 1, testTime = "2021-11-02 12:33:33",
      customerName = "", patientId = "", status = "0", cgmDay = 8, increMinute = 3,
      low = json.null, high = json.null, cgmStatus = "2" }
    for k, v in pairs(changes or {}) do data[k] = v end
    return ward:request("POST", target or "/sinocare/push", { reservedCode = "01", data = data })
  end

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    ward = t.plugin("sinocare", { name = "ward-3" })
  end)

  it("takes a reading, and says so with code 0", function()
    local status, body = push()
    assert.equal(200, status)
    assert.same({ code = 0, msg = "" }, body)
    local r = t.emitted()[1]
    assert.equal("glucose", r.metric)
    assert.equal(5.6, r.value)
    assert.equal("mmol/L", r.unit)
    assert.equal("t-1", r.key)
    assert.equal(180, r.interval)
    assert.equal(1635827613000, r.at) -- 12:33:33 in Shanghai
    assert.equal("ward-3", r.connection)
    assert.equal("active", t.devices()[1].status)
  end)

  it("stores what is pushed again once", function()
    push()
    local _, body = push()
    assert.equal(0, body.code)
    assert.equal(1, #t.emitted())
  end)

  it("tells a gap in the serial numbers", function()
    push()
    push { testId = "t-2", serialNo = 5, testTime = "2021-11-02 12:45:33" }
    local e = t.events()[1]
    assert.equal("gap", e.type)
    assert.same({ metric = "glucose", from = 2, to = 4 }, e.data)
  end)

  it("names the field that is wrong, and stores nothing", function()
    local status, body = push { testResult = "high" }
    assert.equal(200, status)
    assert.equal(1006, body.code)
    assert.matches("data.testResult", body.msg)
    status, body = push { testTime = "tomorrow" }
    assert.equal(1006, body.code)
    assert.equal(200, status)
    status, body = push { testId = json.null }
    assert.equal(200, status)
    assert.not_equal(0, body.code)
    assert.same({}, t.emitted())
  end)

  it("keeps the patient encrypted, and the reference as the device's owner", function()
    push { patientId = "P-77", patientName = "Zhang San" }
    assert.matches("^p_%x+$", t.devices()[1].owner)
    for _, line in ipairs(t.logged()) do assert.no_match("Zhang San", json.encode(line)) end
  end)

  it("goes through a rule to the desk", function()
    t.plugin("low-glucose", { to = "desk" })
    t.plugin("webhook", { name = "desk", url = "https://desk.example/alerts" })
    t.http("POST https://desk.example/alerts", 204)
    push { testResult = "3.2" }
    assert.equal(3.2, t.asked()[1].json.value)
    assert.equal("delivered", t.sent("desk")[1].state)
  end)

  it("stands under its mount, in its zone and unit", function()
    ward = t.plugin("sinocare", { name = "berlin", mount = "/berlin", zone = "Europe/Berlin", unit = "mg/dL" })
    push({ testResult = "101" }, "/berlin/sinocare/push")
    local r = t.emitted()[1]
    assert.equal("mg/dL", r.unit)
    assert.equal(1635852813000, r.at)
  end)
end)
