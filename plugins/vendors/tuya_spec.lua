-- tuya: a client signs, gets a token, and is refused without either. All of it is tested in spec/plugins/.
local t = require "neap.test"
local sign = require "tuya.sign"

describe("tuya", function()
  local face, key

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    face = t.plugin("tuya", { name = "face" })
    key = assert(face:call "keys.issue")
  end)

  local function ask(method, target, token, changes)
    local call = { client = key.client_id, secret = key.secret, token = token, t = ("%d"):format(t.now()) }
    local headers = { client_id = key.client_id, t = call.t, access_token = token, sign_method = "HMAC-SHA256",
      sign = sign.new(call, sign.text(method, "", "", sign.url(target))) }
    for k, v in pairs(changes or {}) do headers[k] = v end
    local status, answer = face:request(method, target, nil, headers)
    assert.equal(200, status)
    return answer
  end

  it("gives a token to whom the signature names, and answers with it", function()
    local answer = ask("GET", "/v1.0/token?grant_type=1")
    assert.is_true(answer.success)
    assert.equal(t.now(), answer.t)
    assert.is_true(ask("GET", "/v1.0/devices?page_no=1&page_size=20", answer.result.access_token).success)
  end)

  it("refuses a wrong signature, an old moment and a strange client", function()
    assert.equal(1004, ask("GET", "/v1.0/token?grant_type=1", nil, { sign = ("0"):rep(64) }).code)
    assert.equal(1013, ask("GET", "/v1.0/token?grant_type=1", nil, { t = ("%d"):format(t.now() - 600000) }).code)
    assert.equal(1005, ask("GET", "/v1.0/token?grant_type=1", nil, { client_id = "nobody" }).code)
  end)

  it("lets a token last two hours", function()
    local token = ask("GET", "/v1.0/token?grant_type=1").result.access_token
    t.advance "1h59m"
    assert.is_true(ask("GET", "/v1.0/devices?page_no=1&page_size=20", token).success)
    t.advance "2m"
    assert.equal(1010, ask("GET", "/v1.0/devices?page_no=1&page_size=20", token).code)
  end)
end)
