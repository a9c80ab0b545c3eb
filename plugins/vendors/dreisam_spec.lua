-- dreisam: a partner registers a user and reads what was measured. All of it is tested in spec/plugins/.
local t = require "neap.test"

describe("dreisam", function()
  local ward, face

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    ward = t.plugin("sinocare", { name = "ward-3" })
    face = t.plugin("dreisam", { shows = { "ward-3" } })
  end)

  local function register(uid)
    local _, answer = face:request("POST", "/partner/v1/user/register", { partner_uid = uid })
    assert.equal(0, answer.code)
    return { authorization = "Bearer " .. answer.data.access_token }, answer.data.open_id
  end

  it("gives a user one identity, however often it is registered", function()
    local _, first = register "u-1"
    local _, second = register "u-1"
    local _, other = register "u-2"
    assert.equal(first, second)
    assert.not_equal(first, other)
  end)

  it("shows a device of another vendor's connection", function()
    local headers, open_id = register "u-1"
    ward:request("POST", "/sinocare/push", { reservedCode = "01", data = { testId = "t-1", deviceSn = "SN-1", testResult = "5.6",
      testTime = "2026-03-01 15:55:00", status = "0", cgmStatus = "2", patientId = "u-1" } })
    local status, answer = face:request("GET", "/partner/v1/device/info?device_sn=SN-1", nil, headers)
    assert.equal(200, status)
    assert.equal("SN-1", answer.data.device_sn)
    assert.equal(open_id, answer.data.open_id) -- the patient of that number is this user
    assert.equal(2, answer.data.status)
  end)

  it("refuses a stranger in the common format, under HTTP 200", function()
    local status, answer = face:request("GET", "/partner/v1/user/glucose?open_id=x&start_time=1&end_time=2")
    assert.equal(200, status)
    assert.not_equal(0, answer.code)
    assert.same({}, answer.data)
  end)

  it("lets a token lapse", function()
    local headers, open_id = register "u-1"
    local path = ("/partner/v1/user/glucose?open_id=%s&start_time=%d&end_time=%d"):format(open_id, t.now() - 60000, t.now())
    local _, answer = face:request("GET", path, nil, headers)
    assert.equal(0, answer.code)
    t.advance "365d"
    _, answer = face:request("GET", path, nil, headers)
    assert.not_equal(0, answer.code)
  end)
end)
