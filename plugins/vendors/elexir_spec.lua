-- elexir: an account signs in, takes a device, and loses its token in time. All of it is tested in spec/plugins/.
local t = require "neap.test"

describe("elexir", function()
  local face
  local PASSWORD = "correct horse"

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    face = t.plugin "elexir"
    assert(face:call("keys.issue", { email = "ana@example.org", password = PASSWORD }))
  end)

  local function ask(method, path, token, body)
    return face:request(method, "/api/v1/legacy/" .. path, body, token and { authorization = "Bearer " .. token })
  end
  local function sign_in(password)
    return ask("POST", "auth/signin", nil, { email = "ana@example.org", password = password or PASSWORD })
  end

  it("signs in with the password alone", function()
    local status, tokens = sign_in()
    assert.equal(200, status)
    assert.equal(900, tokens.expires_in)
    assert.not_equal(200, (sign_in "wrong horse"))
    assert.equal(401, (ask("GET", "device/my-devices")))
  end)

  it("gives an account the device that it names", function()
    local device = assert(face:call("device.add", { unique_id = "27003800", serial_code = "SC-1" }))
    local _, tokens = sign_in()
    local status = ask("POST", "device/set-my-device?unique_id=27003800&serial_code=SC-1", tokens.access_token)
    assert.equal(200, status)
    local _, mine = ask("GET", "device/my-devices", tokens.access_token)
    assert.equal(device.unique_id, mine[1].unique_id)
  end)

  it("lets a token last a quarter of an hour", function()
    local _, tokens = sign_in()
    t.advance "14m59s"
    assert.equal(200, (ask("GET", "device/my-devices", tokens.access_token)))
    t.advance "2s"
    assert.equal(401, (ask("GET", "device/my-devices", tokens.access_token)))
  end)
end)
