-- fhir against a FHIR server that others have written, and validators that read R4's StructureDefinitions: see fhir_server.js (`make sdk`).
local bed = require "bed"
local json = require "neap.json"

local HOME = bed.root .. "/build/sdk"

local source = bed.UNKEPT_EMITTER

describe("fhir and a FHIR server", function()
  local server, port, host

  local function ask(method, path, body)
    local status, text = bed.request(port, method, path, body, body and { ["content-type"] = "application/fhir+json" })
    return status, json.decode(text)
  end

  setup(function()
    assert(os.execute(("test -f '%s/node_modules/@medplum/fhir-router/package.json'"):format(HOME)),
      "the server is not below build/sdk: run `make sdk`, which installs it by npm")
    bed.write(HOME .. "/fhir_server.js", bed.read(bed.root .. "/spec/plugins/fhir_server.js"))
    server = bed.start { "node", HOME .. "/fhir_server.js" }
    port = tonumber(server:wait_for "port (%d+)")
    host = bed.host { plugins = bed.own_plugins { ["vendors/source.lua"] = source }, config = ([[
      rules = { { "forward", to = "ehr", device = "SN-*" }, { "forward", name = "all-or-nothing", to = "strict", device = "T-*" } },
      destinations = {
        ehr = { "fhir", url = "http://127.0.0.1:%d/fhir", subject = "Patient/{{reading.extra.patient}}",
          codes = { temp = { code = "8310-5", display = "Body temperature" }, note = { code = "48767-8", category = "survey" } } },
        strict = { "fhir", url = "http://127.0.0.1:%d/fhir", bundle = "transaction", patients = { ["T-1"] = "Patient/t" } },
      }]]):format(port, port) }
  end)
  teardown(function()
    assert.same({ "exit", 0 }, { host:stop() })
    server:stop()
  end)

  local function push(list)
    for i, r in ipairs(list) do
      r.device, r.metric = r.device or "SN-1", r.metric or "glucose"
      r.at, r.extra = r.at or 1772352000000 + i, r.extra or { patient = "17" }
    end
    assert.equal(204, (host:request("POST", "/readings", json.encode(list))))
  end
  local function dead() return host:sql "select body, error, status from dead order by seq" end
  -- What the server has, by its own search.
  local function stored(query)
    local status, bundle = ask("GET", "/fhir/Observation?_count=1000&" .. (query or ""))
    assert.equal(200, status)
    local list = {}
    for i, e in ipairs(bundle.entry or {}) do list[i] = e.resource end
    return list
  end
  -- No bundle that came had anything wrong with it.
  local function assert_valid()
    local n = 0
    for line in server:read():gmatch "{[^\n]*}\n" do
      local seen = json.decode(line)
      assert.is_nil(seen.raised)
      assert.same({}, seen.problems)
      assert.equal("application/fhir+json", seen.type)
      n = n + 1
    end
    assert.is_true(n > 0)
  end

  it("is checked by validators that find what is wrong", function()
    local function check(changes)
      local o = { resourceType = "Observation", meta = { profile = json.array { "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-mass-per-volume" } },
        status = "final", code = { coding = json.array { { system = "http://loinc.org", code = "99504-3" } } }, subject = { reference = "Patient/1" },
        effectiveDateTime = "2026-03-01T08:00:00Z", valueQuantity = { value = 101, unit = "mg/dl", system = "http://unitsofmeasure.org", code = "mg/dL" } }
      for k, v in pairs(changes) do o[k] = v ~= json.null and v or nil end
      local _, found = ask("POST", "/check", o)
      return found.problems
    end
    assert.same({}, check {})
    for name, changes in pairs { status = { status = "done" }, subject = { subject = json.null }, time = { effectiveDateTime = json.null },
      ["no time"] = { effectiveDateTime = "yesterday" },
      code = { code = { coding = json.array { { system = "http://loinc.org", code = "105272-9" } } } },
      unit = { valueQuantity = { value = 5.6, unit = "mmol/l", system = "http://unitsofmeasure.org", code = "mmol/L" } },
      text = { valueQuantity = json.null, valueString = "HI" }, nothing = { valueQuantity = json.null }, more = { trend = "flat" } } do
      assert.is_true(#check(changes) > 0, name)
    end
  end)

  it("has each reading there once, as the guide wants it, also after it was sent twice", function()
    push { { value = 5.6, unit = "mmol/L", key = "k-1", trend = "flat" }, { value = 101, unit = "mg/dL", quality = "warmup", device = "SN-2 ä\"" },
      { value = 2.2, unit = "mmol/L", quality = "invalid" }, { metric = "temp", value = 36.6, unit = "Cel" },
      { metric = "note", value = "slept well" }, { metric = "note", value = true } }
    host:all_told()
    assert.same({}, dead())
    assert.equal(6, #stored())
    local one = stored "code=http://loinc.org|105272-9"[1]
    assert.equal("Patient/17", one.subject.reference)
    assert_valid()
    -- the receipt was lost: the same messages again
    local again = host:sql "select seq, id from delivered"
    assert.equal(6, #again)
    local e = { fullUrl = one.identifier[1].value, resource = one, request = { method = "POST", url = "Observation",
      ifNoneExist = "identifier=urn:ietf:rfc:3986|" .. one.identifier[1].value } }
    one.id, one.meta.lastUpdated, one.meta.versionId = nil, nil, nil
    local _, answer = ask("POST", "/fhir", { resourceType = "Bundle", type = "batch", entry = json.array { e } })
    assert.equal("200", answer.entry[1].response.status:sub(1, 3))
    assert.equal(6, #stored())
  end)

  it("tries again only what the server could not store, and doubles nothing", function()
    local before = #stored()
    ask("POST", "/break", { value = 7.07 })
    local list = {}
    for i = 1, 20 do list[i] = { value = i == 7 and 7.07 or i, unit = "mmol/L", device = "SN-3" } end
    push(list)
    bed.wait("the one to have been tried", function() return #host:sql "select * from outbox where attempts > 0" == 1 end)
    ask("POST", "/break", { value = -1 })
    host:all_told()
    assert.equal(before + 20, #stored())
    assert.same({}, dead())
    assert_valid()
  end)

  it("takes a transaction too", function()
    local before = #stored()
    push { { device = "T-1", value = 4.1, unit = "mmol/L" }, { device = "T-1", value = 4.2, unit = "mmol/L" } }
    host:all_told()
    assert.equal(before + 2, #stored())
    assert_valid()
  end)

  it("makes a dead letter of what the server refuses for good, in its words, and of nothing else", function()
    local before = #stored()
    push { { value = 1.1, unit = "mmol/L", device = "SN-4" }, { value = 1.2, unit = "mmol/L", device = "SN-4", extra = { patient = 4, other = 1 } },
      { value = 1.3, unit = "g/L", device = "SN-4" }, { value = 1.4, unit = "mmol/L", device = "SN-4", extra = {} },
      { metric = "note", value = "", device = "SN-4" }, { metric = "note", value = "slept", device = "SN-4" } }
    host:all_told()
    assert.equal(before + 3, #stored())
    assert.equal(3, #dead())
    assert.equal(400, dead()[3].status)
    assert.truthy(dead()[3].error:find("answered 400: Observation", 1, true), dead()[3].error)
    assert.equal('glucose is known in mg/dL and mmol/L, not in "g/L"', dead()[1].error)
    assert.equal('no patient: subject: the message has no field "reading.extra.patient"', dead()[2].error)
  end)
end)
