-- A handler that returns nil and why: the request is refused as one that does not fit its schema is.
local bed = require "bed"
local json = require "neap.json"

local PLUGIN = [[
local plugin = ...
plugin:refuse(function(p) return p.status, { said = p.message, kind = p.kind, field = p.field } end)
plugin:serve {
  "POST /try",
  body = { device = { "string" }, name = { "string", optional = true, person = true }, kind = { "string", optional = true } },
  handler = function(req)
    local b = req.body
    plugin:emit { device = b.device, metric = "level", value = 1 }
    plugin:device { device = b.device }
    plugin.store:put("last", b.device)
    return nil, "no room for " .. (b.name or b.device), b.kind, "device"
  end,
}
]]

describe("a handler that returns nil and why", function()
  local host
  setup(function() host = bed.host { plugins = { ["vendors/try.lua"] = PLUGIN } } end)
  teardown(function() host:stop() end)

  it("is answered by plugin:refuse; nothing that it did counts; the request is kept as refused", function()
    local status, answer = host:json("POST", "/try", { device = "d-1", kind = "time" })
    assert.equal(400, status)
    assert.same({ said = "device: no room for d-1", kind = "time", field = "device" }, answer)
    for _, table in ipairs { "readings", "devices", "kv where space <> 'host'" } do assert.same({}, host:sql("select * from " .. table)) end
    local kept = host:inbox() -- sealed, for a name is declared as a person's
    assert.equal(1, #kept)
    assert.equal("refused", kept[1].outcome)
    assert.equal(400, kept[1].status)
    assert.equal("d-1", json.decode(kept[1].body).device)
    assert.truthy(kept[1].error:find("device: no room for d-1", 1, true))
  end)

  it("has a kind of its own, or none", function()
    local _, answer = host:json("POST", "/try", { device = "d-1", kind = "whim" })
    assert.equal("whim", answer.kind)
    _, answer = host:json("POST", "/try", { device = "d-1" })
    assert.equal("refused", answer.kind)
  end)

  it("does not say a person's name", function()
    local _, answer = host:json("POST", "/try", { device = "d-1", name = "Ann Teak" })
    assert.equal("device: no room for ***", answer.said)
    assert.is_nil(host:sql "select error from inbox order by id desc limit 1"[1].error:find("Ann", 1, true))
  end)

  it("may say much: it is cut between characters", function()
    local _, answer = host:json("POST", "/try", { device = ("长"):rep(1000) })
    assert.truthy(utf8.len(answer.said))
    assert.is_true(#answer.said < 400)
  end)
end)
