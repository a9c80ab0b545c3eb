-- file: what the lines say. That they get to disk is tested in a running host.
local t = require "neap.test"
local json = require "neap.json"

describe("file", function()
  local function lines_of(what)
    local list = {}
    for _, asked in ipairs(t.asked(what)) do
      for l in asked.body:gmatch "([^\n]*)\n" do list[#list + 1] = l end
    end
    return list
  end

  it("writes a line of JSON for each message", function()
    t.http("APPEND file:///srv/ward/*", 200)
    local rule = t.plugin("forward", { to = "file" })
    rule:reading { device = 'w-1 "a"', metric = "temp", value = 21.5, unit = "Cel", at = 1772352000123 }
    t.plugin("file", { folder = "/srv/ward" })
    local got = json.decode(lines_of "APPEND file:///srv/ward/messages.ndjson"[1])
    assert.equal(t.sent("file")[1].id, got.id)
    assert.equal('w-1 "a"', got.device)
    assert.equal("forward", got.source)
    assert.equal(21.5, got.body.reading.value)
    assert.equal("delivered", t.sent("file")[1].state)
    t.plugin("file", { name = "raw", folder = "/srv/ward", file = "raw.ndjson" }):message { a = json.raw "[1,\r\n2]" }
    assert.same({ 1, 2 }, json.decode(lines_of "APPEND file:///srv/ward/raw.ndjson"[1]).body.a)
  end)

  it("says of what a replay has made which one it was, and what it is about", function()
    t.http("APPEND file:///srv/ward/messages.ndjson", 200)
    local d = t.plugin("file", { folder = "/srv/ward" })
    d:message({ title = "Low", device = "SN-1" }, { replayed = 3, about = 1772352000000 })
    d:message { title = "Low", device = "SN-1" }
    local lines = lines_of "APPEND file:///srv/ward/messages.ndjson"
    local past, live = json.decode(lines[1]), json.decode(lines[2])
    assert.same({ 3, 1772352000000 }, { past.replayed, past.about })
    assert.same({}, { live.replayed, live.about })
  end)

  it("writes CSV: quoted where needed, no line break, no formula", function()
    t.http("APPEND file:///srv/ward/temp.csv", 200)
    local d = t.plugin("file", { folder = "/srv/ward", file = "temp.csv", format = "csv" })
    local id = d:message { device = 'a,"b"\n', metric = "note", value = "=1+1", at = 1772352000123 }
    local alert = d:message { title = "Low, glucose", device = "SN-1", value = -3, at = 1772352000000 }
    local lines = lines_of "APPEND file:///srv/ward/temp.csv"
    assert.equal(id .. ",reading,2026-03-01T08:00:00.123Z,\"a,\"\"b\"\" \",note,'=1+1,,,,,,,,,test,", lines[1])
    assert.equal(alert .. ',alert,2026-03-01T08:00:00Z,SN-1,,-3,,,,,,,"Low, glucose",,test,', lines[2])
    d:message({ title = "Low", device = "SN-1", at = 1772352000000 }, { replayed = 3 })
    assert.matches(",test,3$", lines_of "APPEND file:///srv/ward/temp.csv"[3])
    for i, formula in ipairs { "+1", "-1", "@x" } do
      d:message { device = "d", metric = "note", value = formula, at = 1772352000000 + i }
      assert.truthy(lines_of "APPEND file:///srv/ward/temp.csv"[3 + i]:find(",note,'" .. formula .. ",", 1, true))
    end
    d:message { title = "Low", device = "SN-1", at = 1772352000000, value = { a = 1 } }
    assert.matches(',SN%-1,,"{""a"":1}",,', lines_of "APPEND file:///srv/ward/temp.csv"[7])
  end)

  it("makes a dead letter of what CSV has no columns for, and writes the rest", function()
    local d = t.plugin("file", { folder = "/srv/ward", format = "csv" })
    d:message { what = 1 }
    assert.equal("dead", t.sent("file")[1].state)
    assert.matches("neither a reading", t.sent("file")[1].error)
    assert.equal(0, #lines_of "APPEND file:///srv/ward/messages.csv")
  end)

  it("tries again what could not be written", function()
    t.http("APPEND file:///srv/ward/messages.ndjson", 507)
    local d = t.plugin("file", { folder = "/srv/ward" })
    d:message { device = "d", metric = "temp", value = 1, at = 1772352000123 }
    assert.equal("waiting", t.sent("file")[1].state)
    t.http("APPEND file:///srv/ward/messages.ndjson", 200)
    t.advance "1m"
    assert.equal("delivered", t.sent("file")[1].state)
  end)

  it("says which settings are wrong", function()
    assert.has_error(function() t.plugin("file", { folder = "here" }) end, "folder")
    assert.has_error(function() t.plugin("file", { folder = "/srv", file = "../x" }) end, "file")
    for _, rotate in ipairs { "week", "0MiB", "10", "10mib" } do
      assert.has_error(function() t.plugin("file", { folder = "/srv", rotate = rotate }) end, "rotate: expected")
    end
  end)
end)
