-- acknowledge: who may, what is answered, and that the first one counts.
local t = require "neap.test"

describe("acknowledge", function()
  local desk, face, key

  local function post(id, body, token)
    return face:request("POST", "/acknowledgements/" .. id, body or {}, { Authorization = "Bearer " .. (token or key) })
  end

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    t.http("POST https://desk.example/", 200)
    desk = t.plugin("webhook", { name = "desk", url = "https://desk.example/" })
    face = t.plugin "acknowledge"
    key = assert(face:call("keys.issue", { name = "desk" })).key
  end)

  it("takes the id that the webhook was sent with", function()
    desk:message { title = "Low glucose" }
    local id = t.asked("POST https://desk.example/")[1].headers["webhook-id"]
    local status, answer = post(id, { by = "Agnes", note = "on my way" })
    assert.equal(200, status)
    assert.same({ id = id, first = true, acknowledged = { at = t.now(), by = "Agnes", note = "on my way" } }, answer)
    assert.same(answer.acknowledged, t.sent("desk")[1].acknowledged)
  end)

  it("says whose the first one was, and changes nothing", function()
    local id = desk:message { title = "Low glucose" }
    post(id)
    t.advance "1m"
    local status, answer = post(id, { by = "Berta" })
    assert.equal(200, status)
    assert.same({ id = id, first = false, acknowledged = { at = t.now() - 60000, by = "desk" } }, answer)
    local _, seen = face:request("GET", "/acknowledgements/" .. id, nil, { Authorization = "Bearer " .. key })
    assert.same(answer.acknowledged, seen.acknowledged)
  end)

  it("needs no body", function()
    local id = desk:message { title = "Low glucose" }
    local status = face:request("POST", "/acknowledgements/" .. id, "", { Authorization = "Bearer " .. key })
    assert.equal(200, status)
    assert.equal("desk", t.sent("desk")[1].acknowledged.by)
  end)

  it("knows the messages that there are", function()
    local status, answer = post "msg_none"
    assert.equal(404, status)
    assert.matches("there is no message", answer.error)
    local id = desk:message { title = "Low glucose" }
    assert.equal(404, (face:request("GET", "/acknowledgements/" .. id, nil, { Authorization = "Bearer " .. key })))
  end)

  it("lets nobody in without a key, or with one that was replaced or revoked", function()
    local id, other = desk:message { title = "Low glucose" }, face:call("keys.issue", { name = "pager" }).key
    assert.equal(401, (face:request("POST", "/acknowledgements/" .. id, {})))
    assert.equal(401, (face:request("GET", "/acknowledgements/" .. id)))
    for _, wrong in ipairs { "Bearer " .. key .. "x", key, "Bearer", "Basic " .. key } do
      assert.equal(401, (face:request("POST", "/acknowledgements/" .. id, {}, { Authorization = wrong })))
    end
    local new = face:call("keys.issue", { name = "desk" }).key
    assert.equal(401, (post(id)))
    assert.same({ "desk", "pager" }, { face:call("keys.list")[1].name, face:call("keys.list")[2].name })
    face:call("keys.revoke", { name = "pager" })
    assert.equal(401, (post(id, {}, other)))
    assert.is_nil(t.sent("desk")[1].acknowledged)
    assert.equal(200, (post(id, {}, new)))
    local _, why = face:call("keys.revoke", { name = "pager" })
    assert.matches("no such client", why)
  end)

  it("lists all clients that have a key", function()
    for i = 1, 101 do face:call("keys.issue", { name = "client " .. i }) end
    assert.equal(102, #face:call "keys.list")
  end)

  it("names the field that is wrong", function()
    local id = desk:message { title = "x" }
    for _, by in ipairs { "", ("x"):rep(51), "a\0b" } do
      local status, answer = post(id, { by = by })
      assert.same({ 400, "by" }, { status, answer.field })
    end
    local status, answer = post(id, { note = "a\0b" })
    assert.same({ 400, "note" }, { status, answer.field })
    assert.equal(200, (post(id, { by = ("\u{1F600}"):rep(50), note = ("\u{1F600}"):rep(500) })))
  end)
end)
