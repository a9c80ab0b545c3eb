-- nightscout: glucose as entries, alerts as notes. `neap test nightscout` runs it.
local t = require "neap.test"
local json = require "neap.json"

local ENTRIES = "POST https://ns.example/api/v1/entries.json*"
local NOTES = "POST https://ns.example/api/v1/treatments.json*"

describe("nightscout", function()
  local rule
  local function begin(settings)
    t.at "2026-03-01T08:00:00Z"
    settings = settings or { secret = "a long enough secret" }
    settings.name, settings.url = "ns", "https://ns.example/"
    rule = t.plugin("forward", { to = "ns" })
    return function() t.plugin("nightscout", settings) end
  end
  local function send(r)
    r.device, r.metric, r.unit, r.at = r.device or "SN-1", r.metric or "glucose", r.unit or "mmol/L", r.at or t.now()
    if r.value == nil then r.value = 5.6 end
    rule:reading(r)
  end
  local function echo(req) return 200, json.decode(req.body) end
  local function state(i) return t.sent("ns")[i or 1].state end

  it("posts an entry in mg/dL, with its direction and the secret's SHA-1", function()
    t.http(ENTRIES, echo)
    begin()()
    send { trend = "falling_fast" }
    local req = t.asked(ENTRIES)[1]
    assert.equal("9da813802167533c96cf2f4235ef75df0bd915cc", req.headers["api-secret"])
    assert.same({ { type = "sgv", sgv = 101, date = t.now(), dateString = "2026-03-01T08:00:00Z", direction = "SingleDown",
      device = "SN-1" } }, req.json)
    assert.equal("delivered", state())
  end)

  it("takes a token, a name, and a meter's values", function()
    t.http(ENTRIES, echo)
    begin { token = "neap-0123456789abcdef", device = "neap", type = "mbg" }()
    send { value = 120, unit = "mg/dL" }
    local req = t.asked(ENTRIES)[1]
    assert.is_nil(req.headers["api-secret"])
    assert.equal("neap-0123456789abcdef", req.query.token)
    assert.same({ { type = "mbg", mbg = 120, date = t.now(), dateString = "2026-03-01T08:00:00Z", device = "neap" } }, req.json)
  end)

  it("posts an alert as a note", function()
    t.http(NOTES, echo)
    begin()()
    local low = t.plugin("low-glucose", { to = "ns" })
    t.http(ENTRIES, echo)
    low:reading { device = "SN-1", metric = "glucose", value = 3.1, unit = "mmol/L" }
    local created_at = t.asked(NOTES)[1].json[1].created_at
    assert.matches("^2026%-03%-01T08:00:00", created_at)
    assert.same({ { eventType = "Note", notes = "Low glucose: 3.1 mmol/L (SN-1)", created_at = created_at,
      enteredBy = "neap" } }, t.asked(NOTES)[1].json)
  end)

  it("gives alerts of one moment moments of their own, each the same when it comes again", function()
    local n = 0
    t.http(NOTES, function(req)
      n = n + 1
      return n == 1 and 503 or 200, req.json
    end)
    local ns = t.plugin("nightscout", { name = "ns", url = "https://ns.example/", secret = "a long enough secret" })
    for _, title in ipairs { "again", "Falling" } do ns:message { title = title, device = "SN-1", at = t.now() } end
    t.advance "1m"
    local first, both = t.asked(NOTES)[1].json, t.asked(NOTES)[2].json
    assert.same({ 1, 2 }, { #first, #both })
    assert.equal(first[1].created_at, both[1].created_at)
    assert.not_equal(both[1].created_at, both[2].created_at)
    for i = 1, 2 do ns:message { title = "Low", device = "SN-1", at = t.now() + i } end -- the same, but for its millisecond
    assert.not_equal(t.asked(NOTES)[3].json[1].created_at, t.asked(NOTES)[4].json[1].created_at)
  end)

  it("says of an alert that a replay sends it, at the time that it is about", function()
    t.http(NOTES, echo)
    local ns = t.plugin("nightscout", { name = "ns", url = "https://ns.example/", secret = "a long enough secret" })
    ns:message({ title = "Low glucose", device = "SN-1" }, { replayed = 3, about = "2026-02-01T03:00:00Z" })
    local note = t.asked(NOTES)[1].json[1]
    assert.equal("Low glucose (SN-1, replayed)", note.notes)
    assert.matches("^2026%-02%-01T03:00:00", note.created_at)
  end)

  it("makes a dead letter of what is no glucose to be shown, and says why", function()
    t.http(ENTRIES, echo)
    begin()()
    send { metric = "temp", value = 36 }
    send { quality = "warmup" }
    send { value = "HI", at = t.now() + 1 }
    send { unit = "g/L", at = t.now() + 2 }
    local said = {}
    for i, m in ipairs(t.sent "ns") do said[i] = m.state .. ": " .. m.error end
    assert.same({ 'dead: Nightscout\'s entries are of glucose, not of "temp"',
      'dead: the quality is "warmup", and Nightscout would show it as any other', "dead: no number in mg/dL or mmol/L: HI mmol/L",
      "dead: no number in mg/dL or mmol/L: 5.6 g/L" }, said)
    assert.same({}, t.asked(ENTRIES))
  end)

  it("holds what has wrong settings, and what was answered by somebody else", function()
    t.http(ENTRIES, 401, { status = 401, message = "Unauthorized" })
    begin()()
    send {}
    assert.matches("settings have to be mended", t.sent("ns")[1].error)
    t.http(ENTRIES, 307, "", { location = "https://ns.example/elsewhere" })
    t.advance "1m"
    t.http(ENTRIES, 200, "<html>log in")
    t.advance "5m"
    assert.equal("waiting", state())
    assert.matches("not with the 1 that were posted", t.sent("ns")[1].error)
    t.http(ENTRIES, echo)
    t.advance "10m"
    assert.equal("delivered", state())
  end)

  local function refuse_second(req) -- of two notes
    if req.body:find("3.2 mmol/L", 1, true) then return 422, "that one" end
    return echo(req)
  end
  for name, c in pairs { busy = { 503, "waiting waiting" },
    ["somebody else's"] = { function() return 200, "<html>" end, "waiting waiting" },
    ["too short"] = { function() return 200, json.array {} end, "waiting waiting" },
    ["that one is refused"] = { refuse_second, "dead delivered" } } do
    it("goes by each answer where entries and notes go together, of which that to the notes is " .. name, function()
      local start = begin()
      t.plugin("low-glucose", { to = "ns", again = "0s" })
      for i = 1, 2 do send { value = 3 + i / 10, at = t.now() + i } end
      t.http(ENTRIES, echo)
      t.http(NOTES, c[1])
      start()
      local entries, notes = {}, {}
      for _, m in ipairs(t.sent "ns") do table.insert(m.data.title and notes or entries, m.state) end
      table.sort(notes)
      assert.same({ "delivered delivered", c[2] }, { table.concat(entries, " "), table.concat(notes, " ") })
    end)
  end

  it("finds the one that is refused", function()
    local start = begin()
    t.http(ENTRIES, function(req)
      if req.body:find("1772352000007", 1, true) then return 422, "that one" end
      return echo(req)
    end)
    for i = 1, 10 do send { at = t.now() + i } end
    start()
    for i = 1, 10 do assert.equal(i == 7 and "dead" or "delivered", state(i)) end
  end)

  it("says which settings are wrong", function()
    assert.has_error(function() t.plugin("nightscout", { url = "https://ns.example" }) end, "either secret or token")
    assert.has_error(function() t.plugin("nightscout", { url = "https://ns.example", secret = "s", type = "x" }) end, "type")
  end)
end)
