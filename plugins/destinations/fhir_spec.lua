-- fhir: readings as Observations in a bundle; what the server says of each counts for that one. `neap test fhir` runs it.
local t = require "neap.test"
local json = require "neap.json"

local URL = "POST https://ehr.example/fhir"

local TERMS = "http://terminology.hl7.org/CodeSystem/"

describe("fhir", function()
  local rule

  local function begin(settings)
    t.at "2026-03-01T08:00:00Z"
    settings = settings or { subject = "Patient/{{reading.extra.patient}}" }
    settings.name, settings.url = "ehr", "https://ehr.example/fhir"
    rule = t.plugin("forward", { to = "ehr" })
    return function() t.plugin("fhir", settings) end
  end
  local function send(r)
    r.device, r.metric, r.at = r.device or "SN-1", r.metric or "glucose", r.at or t.now()
    r.unit, r.vendor = r.unit or "mmol/L", r.vendor or "sinocare"
    r.extra = r.extra or { patient = "17" }
    if r.value == nil then r.value = 5.6 end
    rule:reading(r)
  end
  -- Answers each entry with what `say` has for its Observation, or with 201.
  local function serve(say)
    t.http(URL, function(req)
      local entries = json.array {}
      for i, e in ipairs(req.json.entry) do entries[i] = { response = say and say(e.resource, i) or { status = "201 Created" } } end
      return 200, { resourceType = "Bundle", type = req.json.type .. "-response", entry = entries }
    end)
  end
  local function state(i) return t.sent("ehr")[i or 1].state end
  local function entry(i, k) return t.asked(URL)[i or 1].json.entry[k or 1] end

  it("posts a batch of Observations by the guide", function()
    serve()
    begin { subject = "Patient/{{reading.extra.patient}}", token = "t-0ken", device_system = "urn:oid:1.2.3" }()
    send { key = "k-1" }
    local req = t.asked(URL)[1]
    assert.equal("application/fhir+json", req.headers["content-type"])
    assert.equal("Bearer t-0ken", req.headers.authorization)
    assert.equal("batch", req.json.type)
    local e = entry()
    local id = e.fullUrl
    assert.matches("urn:uuid:", id)
    assert.same({ method = "POST", url = "Observation", ifNoneExist = "identifier=urn:ietf:rfc:3986|" .. id }, e.request)
    assert.same({
      resourceType = "Observation", status = "final",
      meta = { profile = { "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-moles-per-volume" } },
      identifier = { { system = "urn:ietf:rfc:3986", value = id } },
      category = { { coding = { { system = TERMS .. "observation-category", code = "laboratory" } } } },
      code = { coding = { { system = "http://loinc.org", code = "105272-9",
        display = "Glucose [Moles/volume] in Interstitial fluid" } } },
      subject = { reference = "Patient/17" }, effectiveDateTime = "2026-03-01T08:00:00Z",
      device = { identifier = { system = "urn:oid:1.2.3", value = "SN-1" }, display = "SN-1" },
      valueQuantity = { value = 5.6, unit = "mmol/l", system = "http://unitsofmeasure.org", code = "mmol/L" },
    }, e.resource)
    assert.equal("delivered", state())
  end)

  it("has mass and quality too, and the codes that its settings give other metrics", function()
    serve()
    begin { patients = { ["SN-1"] = "Patient/a", ["SN-2"] = "Patient/b" }, codes = {
      note = { code = "n-1", system = "urn:oid:1.2" },
      temp = { code = "8310-5", display = "Body temperature", category = "vital-signs" } } }()
    send { value = 101, unit = "mg/dL", quality = "warmup" }
    send { value = 2.2, quality = "invalid", at = t.now() + 1 }
    send { device = "SN-2", metric = "temp", unit = "Cel", value = 36.6 }
    send { device = "SN-2", metric = "note", value = "slept well", at = t.now() + 2 }
    assert.equal("99504-3", entry(1).resource.code.coding[1].code)
    assert.equal("preliminary", entry(1).resource.status)
    assert.same({ value = 101, unit = "mg/dl", system = "http://unitsofmeasure.org", code = "mg/dL" },
      entry(1).resource.valueQuantity)
    assert.is_nil(entry(2).resource.valueQuantity)
    assert.equal("error", entry(2).resource.dataAbsentReason.coding[1].code)
    assert.equal("Patient/b", entry(3).resource.subject.reference)
    assert.same({ value = 36.6, unit = "Cel", system = "http://unitsofmeasure.org", code = "Cel" }, entry(3).resource.valueQuantity)
    assert.is_nil(entry(3).resource.meta)
    assert.equal("slept well", entry(4).resource.valueString)
  end)

  it("knows an Observation by what makes a reading one: vendor, device, metric, and key or time", function()
    serve()
    begin { subject = "Patient/1", codes = { temp = { code = "8310-5" } } }()
    local at = t.now()
    for _, r in ipairs { {}, { key = tostring(at) }, { vendor = "dreisam" }, { device = "SN-2" }, { metric = "temp" },
      { at = at + 1 } } do send(r) end
    local seen, n = {}, 0
    for i = 1, 6 do
      local id = entry(i).fullUrl
      if not seen[id] then n = n + 1 end
      seen[id] = true
    end
    assert.equal(6, n)
    -- for ever: what another version of neap has written is not written again
    assert.equal("urn:uuid:83ec702a-3a39-8e56-a76a-bb88cd93b5f3", entry(1).fullUrl)
  end)

  it("has another code for glucose where its settings say one", function()
    serve()
    begin { subject = "Patient/1", codes = { glucose = { code = "15074-8" } } }()
    send {}
    assert.same({ "15074-8" }, { entry().resource.code.coding[1].code, entry().resource.meta })
  end)

  it("goes by the status of each entry", function()
    local start = begin { subject = "Patient/1" }
    local statuses = { "401", "409", "429", "500", "400", "404", "422" }
    serve(function(o) return { status = statuses[o.valueQuantity.value] } end)
    for i = 1, #statuses do send { value = i, at = t.now() + i } end
    start()
    local states = {}
    for i = 1, #statuses do states[i] = state(i) end
    assert.same({ "waiting", "waiting", "waiting", "waiting", "dead", "dead", "dead" }, states)
  end)

  it("believes no bundle that does not answer each entry", function()
    local start = begin { subject = "Patient/1" }
    t.http(URL, 200, { resourceType = "Bundle", type = "batch-response", entry = { { response = { status = "201" } } } })
    for i = 1, 2 do send { value = i, at = t.now() + i } end
    start()
    assert.same({ "waiting", "waiting" }, { state(1), state(2) })
  end)

  it("tries again only what failed, under the same identifier", function()
    local start = begin()
    local broken = true
    serve(function(o)
      if o.valueQuantity.value == 2 and broken then
        return { status = "503", outcome = { issue = { { code = "transient", diagnostics = "later" } } } }
      elseif o.valueQuantity.value == 3 then
        return { status = "422 Unprocessable",
          outcome = { issue = { { expression = { "Observation.subject" }, details = { text = "unknown" } } } } }
      end
    end)
    for i = 1, 4 do send { value = i, at = t.now() + i } end
    start()
    assert.same({ "delivered", "waiting", "dead", "delivered" }, { state(1), state(2), state(3), state(4) })
    assert.matches("422: Observation.subject: unknown", t.sent("ehr")[3].error)
    assert.matches("503: later", t.sent("ehr")[2].error)
    broken = false
    t.advance "1m"
    assert.equal("delivered", state(2))
    local last = t.asked(URL)[#t.asked(URL)]
    assert.equal(1, #last.json.entry)
    assert.equal(entry(1, 2).fullUrl, last.json.entry[1].fullUrl)
  end)

  it("finds the one for which a transaction is refused", function()
    local start = begin { subject = "Patient/1", bundle = "transaction" }
    t.http(URL, function(req)
      assert(req.json.type == "transaction")
      for _, e in ipairs(req.json.entry) do
        if e.resource.valueQuantity.value == 5 then return 400, { issue = { { diagnostics = "not five" } } } end
      end
      local entries = json.array {}
      for i in ipairs(req.json.entry) do entries[i] = { response = { status = "200 OK" } } end
      return 200, { resourceType = "Bundle", type = "transaction-response", entry = entries }
    end)
    for i = 1, 8 do send { value = i, at = t.now() + i } end
    start()
    for i = 1, 8 do assert.equal(i == 5 and "dead" or "delivered", state(i)) end
    assert.matches("400: not five", t.sent("ehr")[5].error)
  end)

  it("holds all where the answer is none that can be read, or the settings are wrong", function()
    begin()()
    t.http(URL, 200, "<html>")
    send {}
    assert.equal("waiting", state())
    assert.matches("not with a bundle of 1 answers", t.sent("ehr")[1].error)
    t.http(URL, 403, { issue = { { diagnostics = "no such client" } } })
    t.advance "1m"
    t.http(URL, 409)
    t.advance "5m"
    assert.equal("waiting", state())
    serve()
    t.advance "10m"
    assert.equal("delivered", state())
  end)

  it("makes a dead letter of what is no Observation, and says why", function()
    serve()
    begin { patients = { ["SN-1"] = "Patient/a" } }()
    send { device = "SN-9" }
    send { metric = "temp" }
    send { unit = "g/L", at = t.now() + 1 }
    send { value = "HI", at = t.now() + 2 }
    local low = t.plugin("low-glucose", { to = "ehr" })
    low:reading { device = "SN-1", metric = "glucose", value = 3.0, unit = "mmol/L", at = t.now() + 3 }
    local said = {}
    for _, m in ipairs(t.sent "ehr") do if m.state == "dead" then said[#said + 1] = m.error end end
    assert.same({ 'no patient: the device "SN-9" is not in the setting patients',
      'no code for the metric "temp": the setting codes gives it one',
      'glucose is known in mg/dL and mmol/L, not in "g/L"', "the value of glucose is not a number",
      "an alert is no Observation: this destination takes readings" }, said)
  end)

  it("says which settings are wrong", function()
    for why, settings in pairs { ["subject: say whose"] = {}, ["subject: {{a b}}"] = { subject = "{{a b}}" },
      ["codes.x: expected"] = { subject = "x", codes = { x = "1" } }, ["patients.d: expected"] = { patients = { d = 1 } },
      ["bundle"] = { subject = "x", bundle = "message" },
      ["both given"] = { subject = "x", token = "t", user = "u" } } do
      settings.url = "https://ehr.example/fhir"
      assert.has_error(function() t.plugin("fhir", settings) end, why)
    end
  end)
end)
