-- webhook: messages are posted and signed, and tried again until somebody has taken them.
local t = require "neap.test"
local webhooks = require "neap.webhooks"

local URL = "POST https://desk.example/alerts"

describe("webhook", function()
  local rule

  -- A rule that sends each reading on, so that there is something to deliver.
  local function begin(settings)
    t.at "2026-03-01T08:00:00Z"
    settings = settings or {}
    settings.name, settings.url = "desk", "https://desk.example/alerts"
    t.plugin("webhook", settings)
    rule = t.plugin("forward", { to = "desk" })
  end
  local function send(value) rule:reading { device = "d-1", metric = "temp", value = value, at = t.now() + value } end
  local function state(i) return t.sent("desk")[i or 1].state end

  it("posts each message as JSON", function()
    begin()
    t.http(URL, 204)
    send(1)
    assert.equal("delivered", state())
    assert.same(t.sent("desk")[1].data, t.asked(URL)[1].json)
    assert.equal(t.sent("desk")[1].id, t.asked(URL)[1].headers["webhook-id"])
  end)

  it("says of what a replay has made which one it was, in a header and to templates", function()
    t.http(URL, 204)
    local d = t.plugin("webhook", { name = "desk", url = "https://desk.example/alerts",
      body = '{"text": "{{title}}", "replay": {{replayed?}}, "about": "{{about:iso}}"}' })
    d:message({ title = "Low", device = "SN-1" }, { replayed = 3, about = "2026-02-01T03:00:00Z" })
    d:message { title = "Low", device = "SN-1" }
    local past, live = t.asked(URL)[1], t.asked(URL)[2]
    assert.equal("3", past.headers["neap-replayed"])
    assert.same({ text = "Low", replay = 3, about = "2026-02-01T03:00:00Z" }, past.json)
    assert.is_nil(live.headers["neap-replayed"])
    assert.equal(require("neap.json").null, live.json.replay)
  end)

  it("signs what it posts, where it has a secret", function()
    begin { secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" }
    t.http(URL, function(req)
      assert(webhooks.verify("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", req.headers, req.body))
      return 204
    end)
    send(1)
    assert.equal("delivered", state())
  end)

  it("is told all that waited, each device's in order, soon after it was down for an hour", function()
    begin()
    t.fail(URL, "connect", 1000000)
    for n = 1, 5 do
      for d = 1, 40 do rule:reading { device = "d-" .. d, metric = "temp", value = n, at = t.now() + n } end
      t.advance "12m"
    end
    local down = #t.asked(URL)
    assert.is_true(down < 500, down .. " attempts for 200 messages within an hour") -- it was probed, not hammered
    for _, m in ipairs(t.sent "desk") do assert.equal("waiting", m.state) end
    local last, arrived = {}, 0
    t.fail(URL, "connect", 0)
    t.http(URL, function(req)
      local r = req.json.reading
      assert.equal((last[r.device] or 0) + 1, r.value)
      last[r.device], arrived = r.value, arrived + 1
      return 204
    end)
    t.advance "61s" -- the longest time between two probes
    assert.equal(200, arrived)
    for _, m in ipairs(t.sent "desk") do assert.equal("delivered", m.state) end
  end)

  it("tries again after what passes: 500, no answer, a cut connection", function()
    begin()
    t.http(URL, 204)
    t.fail(URL, "cut", 1)
    t.fail(URL, "timeout", 1)
    local first = true
    t.http(URL, function()
      if first then
        first = false
        return 500
      end
      return 503
    end)
    send(1)
    assert.equal("waiting", state())
    t.advance "1h"
    assert.equal("waiting", state())
    assert.is_true(t.sent("desk")[1].attempts > 5)
    t.http(URL, 204)
    t.advance "2h"
    assert.equal("delivered", state())
    local id = t.asked(URL)[1].headers["webhook-id"]
    for _, req in ipairs(t.asked(URL)) do assert.equal(id, req.headers["webhook-id"]) end -- the same over all tries
  end)

  it("waits as long as Retry-After says", function()
    begin()
    t.http(URL, 429, "", { ["Retry-After"] = 90 })
    send(1)
    t.http(URL, 204)
    t.advance "89s"
    assert.equal("waiting", state())
    t.advance "1m"
    assert.equal("delivered", state())
  end)

  it("keeps a device's order: the second waits for the first", function()
    begin()
    t.fail(URL, "connect", 1)
    t.http(URL, 204)
    t.fail(URL, "connect", 1)
    send(1)
    send(2)
    assert.equal("waiting", state(1))
    assert.equal("waiting", state(2))
    t.advance "1m"
    local got = {}
    for _, req in ipairs(t.asked(URL)) do got[#got + 1] = req.json.reading.value end
    assert.same({ 1, 1, 2 }, got)
    assert.equal("delivered", state(2))
  end)

  it("makes a dead letter of what is refused for good", function()
    begin()
    t.http(URL, 410, { error = "gone" })
    send(1)
    assert.equal("dead", state())
    assert.equal(410, t.sent("desk")[1].status)
  end)

  it("gives up after three days", function()
    begin()
    t.fail(URL, "resolve")
    send(1)
    t.advance "3d"
    t.advance "2h"
    assert.equal("dead", state())
  end)

  it("posts what its template makes of a message, and signs that", function()
    begin { secret = "any text",
      body = '{"text": "{{reading.metric}} of {{device}}", "value": {{reading.value}}, "trend": {{reading.trend?}}}',
      headers = { ["X-Device"] = "{{device}}" } }
    t.http(URL, function(req)
      assert(webhooks.verify("any text", req.headers, req.body))
      return 204
    end)
    send(1)
    assert.equal('{"text": "temp of d-1", "value": 1, "trend": null}', t.asked(URL)[1].body)
    assert.equal("d-1", t.asked(URL)[1].headers["x-device"])
  end)

  it("makes a dead letter of a message that has not what the template needs, and says which field", function()
    begin { body = '{"text": "{{title}}"}' }
    send(1)
    assert.equal("dead", state())
    assert.equal('body: the message has no field "title"', t.sent("desk")[1].error)
  end)

  it("names the setting that is wrong", function()
    for setting, case in pairs {
      body = { { body = '{"text": {{title}' }, 'body: "{{" is not followed by "}}"' },
      json = { { body = "text: {{title}}" }, "body: it is not JSON" },
      header = { { headers = { ["X-A"] = "{{a b}}" } }, "headers.X-A: " },
      name = { { headers = { ["X A"] = "x" } }, "headers.X A: no name of a header" },
      ours = { { headers = { ["Webhook-Id"] = "x" } }, "headers.Webhook-Id: neap says that one itself" },
      type = { { headers = { ["content-type"] = "x" } }, "headers.content-type: the setting type says it" },
      twice = { { headers = { ["X-A"] = "x", ["x-a"] = "y" } }, "it is said twice, as " },
      line = { { headers = { ["X-A"] = "x\r\nX-B: y" } }, "headers.X-A: there is a control character in it" },
      number = { { headers = { ["X-A"] = 7 } }, "headers.X-A: expected a text, got a number" },
      secret = { { secret = "whsec_" .. ("a"):rep(28) }, "secret: what follows whsec_ in the secret has to be 24 to 64" },
      key = { { key = "-----BEGIN PRIVATE KEY-----" }, "key: there is no cert to it" },
    } do
      case[1].url = "https://desk.example/"
      assert.has_error(function() t.plugin("webhook", case[1]) end, case[2], setting)
    end
  end)
end)
