-- NAME: what becomes of its pushes and of its API's answers.
-- `neap test NAME` runs this.
local t = require "neap.test"
local crypto = require "neap.crypto"
local json = require "neap.json"

-- Nothing leaves this process: t.http and t.fail answer what is asked.
local API = "GET https://api.NAME.example/readings"
local SECRET = "s3cret-of-ours"

describe("NAME", function()
  local vendor

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    vendor = t.plugin("NAME", { secret = SECRET })
  end)

  local function reading(id, temp, at)
    return { id = id, device = "d-1", temp = temp, time = at or "2026-03-01T07:59:00Z" }
  end

  -- As their cloud does it, from the socket to the disk.
  local function push(readings, signature)
    local body = json.encode { readings = json.array(readings) }
    return vendor:request("POST", "/NAME/readings", body, {
      ["content-type"] = "application/json", ["x-signature"] = signature or crypto.hmac("sha256", SECRET, body),
    })
  end

  it("takes what is pushed", function()
    local status, body = push { reading("r-1", 21.5), reading("r-2", 22) }
    assert.equal(200, status)
    assert.same({ taken = 2 }, body)
    local r = t.emitted()[1]
    assert.equal("d-1", r.device)
    assert.equal("temp", r.metric)
    assert.equal(21.5, r.value)
    assert.equal("Cel", r.unit)
    assert.equal("r-1", r.key)
    assert.equal(t.now() - 60000, r.at)
  end)

  it("takes nothing with a wrong signature", function()
    assert.equal(401, (push({ reading("r-1", 21.5) }, "wrong")))
    assert.same({}, t.emitted())
  end)

  it("refuses what it does not know, whole", function()
    local status, body = push { reading("r-1", 21.5), reading("r-2", "warm") }
    assert.equal(400, status)
    assert.matches("temp", body.error)
    assert.same({}, t.emitted())
  end)

  it("fetches every five minutes what is new, and takes a reading once", function()
    push { reading("r-1", 21.5) }
    t.http(API, 200, { newest = 7, readings = { reading("r-1", 21.5), reading("r-2", 22) } })
    t.advance "10m"
    assert.equal(2, #t.emitted())
    local asked = t.asked(API)
    assert.equal("Bearer " .. SECRET, asked[1].headers.authorization)
    assert.equal("0", asked[1].query.since)
    assert.equal("7", asked[2].query.since)
  end)

  it("keeps nothing of an answer that it cannot read, and says why", function()
    t.http(API, 200, { newest = 7, readings = { reading("r-1", 21.5), reading("r-2", 22, "noon") } })
    local ok, why = vendor:job "catch up"
    assert.is_nil(ok)
    assert.matches("not a time", why)
    assert.same({}, t.emitted())
    assert.is_nil(vendor:stored "since")
  end)

  it("tries again after 429, 503, no answer and a cut connection", function()
    t.http(API, 200, { newest = 7, readings = { reading("r-1", 21.5) } })
    for _, status in ipairs { 429, 503 } do
      t.http(API, status)
      assert.is_nil(vendor:job "catch up")
    end
    t.http(API, 200, { newest = 7, readings = { reading("r-1", 21.5) } })
    t.fail(API, "cut", 1)
    t.fail(API, "timeout", 1)
    assert.is_nil(vendor:job "catch up")
    assert.is_nil(vendor:job "catch up")
    t.advance "1h"
    assert.equal(7, vendor:stored "since")
    assert.equal(1, #t.emitted())
  end)
end)
