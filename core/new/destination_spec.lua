-- NAME: messages are posted, and tried again until somebody has taken them.
-- `neap test NAME` runs this.
local t = require "neap.test"

-- Nothing leaves this process: t.http and t.fail answer what is asked.
local URL = "POST https://desk.example/alerts"

describe("NAME", function()
  local desk

  before_each(function()
    t.at "2026-03-01T08:00:00Z"
    desk = t.plugin("NAME", {
      name = "desk", url = "https://desk.example/alerts", token = "t0ken-of-ours",
    })
  end)

  local function state(i) return t.sent("desk")[i or 1].state end

  it("posts a message as JSON, with its id and our token", function()
    t.http(URL, 204)
    local id = desk:message { title = "Too high", device = "d-1", value = 9.5 }
    local req = t.asked(URL)[1]
    assert.same({ title = "Too high", device = "d-1", value = 9.5 }, req.json)
    assert.equal(id, req.headers["idempotency-key"])
    assert.equal("Bearer t0ken-of-ours", req.headers.authorization)
    assert.equal("delivered", state())
  end)

  it("tries again after no answer, a cut connection, 503 and 429, with the same id", function()
    local answers = { 503, 429, 204 }
    t.http(URL, function() return table.remove(answers, 1) end)
    t.fail(URL, "cut", 1)
    t.fail(URL, "timeout", 1)
    local id = desk:message { title = "Too high" }
    assert.equal("waiting", state())
    t.advance "1h"
    assert.equal("delivered", state())
    assert.equal(5, #t.asked(URL))
    for _, req in ipairs(t.asked(URL)) do assert.equal(id, req.headers["idempotency-key"]) end
  end)

  it("keeps a device's order", function()
    t.http(URL, 204)
    t.fail(URL, "connect", 1)
    desk:message { title = "first", device = "d-1" }
    desk:message { title = "second", device = "d-1" }
    t.advance "1h"
    local titles = {}
    for i, req in ipairs(t.asked(URL)) do titles[i] = req.json.title end
    assert.same({ "first", "first", "second" }, titles)
  end)

  it("makes a dead letter of what is refused for good", function()
    t.http(URL, 410)
    desk:message { title = "Too high" }
    assert.equal("dead", state())
  end)
end)
