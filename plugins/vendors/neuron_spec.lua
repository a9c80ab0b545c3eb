-- neuron: a key is issued, readings are pushed with it and read again. All of it is tested in spec/plugins/.
local t = require "neap.test"
local crypto = require "neap.crypto"

describe("neuron", function()
  local face, headers

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    face = t.plugin("neuron", { buildings = { "HQ" } })
    local key = assert(face:call "keys.issue")
    headers = {
      ["X-Source-SecretId"] = key.secret_id,
      ["X-Source-SecretKey"] = crypto.base64(assert(crypto.rsa.encrypt(key.public_key, key.key, { padding = key.padding }))),
    }
  end)

  local function push(changes)
    local record = { equipmentName = "AHU-1", functionType = "temp", buildingName = "HQ", value = 21.5, unit = "Cel",
      time = "2026-03-01 07:59:00" }
    for k, v in pairs(changes or {}) do record[k] = v end
    return face:request("POST", "/dataPlatform/openapi", { record }, headers)
  end

  it("stores what is pushed with a key", function()
    local status, answer = push()
    assert.equal(200, status)
    assert.is_true(answer.isSuccess)
    local r = t.emitted()[1]
    assert.equal("temp", r.metric)
    assert.equal(21.5, r.value)
    assert.equal(t.now() - 60000, r.at)
  end)

  it("refuses without one, under HTTP 200 and code 401", function()
    headers["X-Source-SecretId"] = "nobody"
    local status, answer = push()
    assert.equal(200, status)
    assert.equal(401, answer.code)
    assert.same({}, t.emitted())
  end)

  it("names the record and the field that are wrong", function()
    local _, answer = push { buildingName = 7 }
    assert.is_false(answer.isSuccess)
    assert.matches("buildingName", answer.message)
    assert.same({}, t.emitted())
  end)
end)
