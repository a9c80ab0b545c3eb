-- neap.webhooks against the vector that the Standard Webhooks libraries publish, and against forgeries.
local crypto = require "neap.crypto"
local webhooks = require "neap.webhooks"

local SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
local ID, SECONDS, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}'
local SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
local NOW = { now = SECONDS * 1000 }

local function headers(change)
  local h = { ["webhook-id"] = ID, ["webhook-timestamp"] = tostring(SECONDS), ["webhook-signature"] = SIGNATURE }
  for k, v in pairs(change or {}) do h[k] = v or nil end
  return h
end

local function refuses(code, ...)
  local ok, why, got = ...
  assert.is_nil(ok)
  assert.matches("^webhook: .", why)
  assert.equal(code, got)
end

local function misuse(text, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.truthy(tostring(err):find(text, 1, true), ("%q is not in %q"):format(text, tostring(err)))
  return err
end

describe("webhooks.sign", function()
  it("makes the published signature", function()
    assert.same({ ["webhook-id"] = ID, ["webhook-timestamp"] = tostring(SECONDS), ["webhook-signature"] = SIGNATURE,
      ["content-type"] = "application/json" },
      webhooks.sign(SECRET, { id = ID, json = BODY }, SECONDS * 1000 + 999))
  end)

  it("signs nothing without a secret", function()
    assert.same({ ["webhook-id"] = ID, ["webhook-timestamp"] = tostring(SECONDS), ["content-type"] = "application/json" },
      webhooks.sign(nil, { id = ID, json = BODY }, SECONDS * 1000))
  end)

  it("takes a secret without whsec_ as the key's bytes", function()
    local h = webhooks.sign("plain secret", { id = ID, json = BODY }, SECONDS * 1000)
    assert.equal("v1," .. crypto.hmac("sha256", "plain secret", ID .. "." .. SECONDS .. "." .. BODY, "base64"),
      h["webhook-signature"])
  end)

  it("uses the clock, and an integer for an id", function()
    local h = webhooks.sign(SECRET, { id = 17, json = "{}" })
    assert.equal("17", h["webhook-id"])
    assert.is_true(math.abs(tonumber(h["webhook-timestamp"]) - os.time()) <= 2)
    assert.is_true(webhooks.verify(SECRET, h, "{}"))
  end)

  it("raises on a bad secret, without quoting it", function()
    local function bad(text, secret)
      local function by_sign() webhooks.sign(secret, { id = ID, json = BODY }) end
      local function by_verify() webhooks.verify(secret, headers(), BODY, NOW) end
      for _, f in ipairs { by_sign, by_verify } do
        local err = misuse(text, f)
        if #secret > 6 then assert.is_nil(err:find(secret:sub(7), 1, true)) end
      end
    end
    bad("not base64", "whsec_hunter2hunter2hunter2hunter2!!!")
    bad("not base64", SECRET .. "=")
    bad("not base64", SECRET .. "\n")
    bad("not base64", SECRET:sub(1, -2))
    bad("24 to 64 bytes", "whsec_")
    bad("24 to 64 bytes", "whsec_" .. crypto.base64(("s"):rep(23)))
    bad("24 to 64 bytes", "whsec_" .. crypto.base64(("s"):rep(65)))
    bad("24 to 64 bytes", "whsec_" .. crypto.base64(("s"):rep(1000)))
    bad("empty", "")
    for _, n in ipairs { 24, 25, 26, 63, 64 } do
      local secret = "whsec_" .. crypto.base64(("s"):rep(n))
      local h = webhooks.sign(secret, { id = ID, json = BODY }, NOW.now)
      assert.equal("v1," .. crypto.hmac("sha256", ("s"):rep(n), ID .. "." .. SECONDS .. "." .. BODY, "base64"),
        h["webhook-signature"])
    end
  end)

  it("raises on a message that cannot be signed", function()
    misuse("message.id", webhooks.sign, SECRET, { json = BODY })
    misuse("message.id", webhooks.sign, SECRET, { id = 1.5, json = BODY })
    misuse("message.json", webhooks.sign, SECRET, { id = ID })
    misuse("table expected", webhooks.sign, SECRET)
    for _, id in ipairs { "", "a.b", "a b", "a\r\nx-evil: 1", "ü", ("i"):rep(257) } do
      misuse("visible ASCII", webhooks.sign, SECRET, { id = id, json = BODY })
    end
    misuse("string expected", webhooks.sign, {}, { id = ID, json = BODY })
  end)
end)

describe("webhooks.verify", function()
  it("takes the published delivery", function() assert.is_true(webhooks.verify(SECRET, headers(), BODY, NOW)) end)

  it("takes one good signature among others", function()
    local wrong = "v1," .. crypto.base64(("x"):rep(32))
    for _, list in ipairs { wrong .. " " .. SIGNATURE, SIGNATURE .. " " .. wrong, "v1a,abc v2," .. SIGNATURE:sub(4) .. " " ..
      SIGNATURE, " " .. SIGNATURE .. "  " } do
      assert.is_true(webhooks.verify(SECRET, headers { ["webhook-signature"] = list }, BODY, NOW))
    end
  end)

  it("refuses what is not signed so", function()
    local raw = SIGNATURE:sub(4)
    for _, list in ipairs { "", " ", "v1,", "v1", raw, "v2," .. raw, "v1a," .. raw, "V1," .. raw, SIGNATURE:sub(1, -2),
      SIGNATURE .. "=", SIGNATURE .. ",", "v1,v1," .. raw,
      SIGNATURE:lower(), (SIGNATURE:gsub("E=$", "F=")), "v1, " .. raw, (SIGNATURE:gsub("+", "-")) } do
      refuses("signature", webhooks.verify(SECRET, headers { ["webhook-signature"] = list }, BODY, NOW))
    end
    refuses("signature", webhooks.verify(SECRET, headers(), BODY .. " ", NOW))
    refuses("signature", webhooks.verify(SECRET, headers(), "", NOW))
    refuses("signature", webhooks.verify(SECRET, headers { ["webhook-id"] = "msg_other" }, BODY, NOW))
    refuses("signature", webhooks.verify(SECRET, headers { ["webhook-timestamp"] = tostring(SECONDS + 1) }, BODY, NOW))
    refuses("signature", webhooks.verify("another secret", headers(), BODY, NOW))
    refuses("signature", webhooks.verify(SECRET:sub(7), headers(), BODY, NOW))
  end)

  it("refuses a part of the body moved into id or timestamp", function()
    local h = webhooks.sign(SECRET, { id = "m", json = SECONDS .. ".5" }, NOW.now)
    assert.is_true(webhooks.verify(SECRET, h, SECONDS .. ".5", NOW))
    h["webhook-id"] = "m." .. SECONDS
    refuses("format", webhooks.verify(SECRET, h, "5", NOW))
  end)

  it("refuses the old and what comes from the future", function()
    local function at(seconds, tolerance)
      return webhooks.verify(SECRET, headers(), BODY, { now = (SECONDS + seconds) * 1000, tolerance = tolerance })
    end
    assert.is_true(at(300))
    assert.is_true(at(-300))
    refuses("time", at(301))
    refuses("time", at(-301))
    assert.is_true(at(10, 10))
    refuses("time", at(11, 10))
    refuses("time", at(1, 0))
    refuses("time", webhooks.verify(SECRET, headers(), BODY)) -- by the clock
    refuses("time", at(0, 0 / 0))
  end)

  it("refuses headers missing or malformed", function()
    for _, name in ipairs { "webhook-id", "webhook-timestamp", "webhook-signature" } do
      refuses("missing", webhooks.verify(SECRET, headers { [name] = false }, BODY, NOW))
      refuses("missing", webhooks.verify(SECRET, headers { [name] = { "a", "b" } }, BODY, NOW))
    end
    for _, s in ipairs { "", " ", "x", SECONDS .. "x", SECONDS .. ".0", "-" .. SECONDS, "+" .. SECONDS, " " .. SECONDS, "1e9",
      "0x60", ("9"):rep(13), SECONDS .. "\0" } do
      refuses("format", webhooks.verify(SECRET, headers { ["webhook-timestamp"] = s }, BODY, NOW))
    end
  end)

  it("raises on misuse", function()
    misuse("string expected", webhooks.verify, nil, headers(), BODY)
    misuse("table expected", webhooks.verify, SECRET, nil, BODY)
    misuse("string expected", webhooks.verify, SECRET, headers())
    misuse('unknown option "tolerence"', webhooks.verify, SECRET, headers(), BODY, { tolerence = 1 })
    misuse('"tolerance" has to be a number', webhooks.verify, SECRET, headers(), BODY, { tolerance = "5" })
  end)
end)
