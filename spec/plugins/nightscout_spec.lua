-- nightscout against Nightscout's own API from npm (`make sdk`): see nightscout_server.js.
local bed = require "bed"
local json = require "neap.json"
local crypto = require "neap.crypto"

local HOME = bed.root .. "/build/sdk"
local SECRET = "twelve letters and more"

local source = bed.UNKEPT_EMITTER

describe("nightscout and Nightscout", function()
  local server, port, host

  local function serve()
    server = bed.start { "node", HOME .. "/nightscout_server.js", SECRET, port and tostring(port) }
    port = tonumber(server:wait_for "port (%d+)")
  end
  local function begin(secret)
    host = bed.host { plugins = bed.own_plugins { ["vendors/source.lua"] = source }, config = ([[
      rules = { { "forward", to = "mine" }, { "low-glucose", to = "mine", again = "0s" } },
      destinations = { mine = { "nightscout", url = "http://127.0.0.1:%d", secret = %q } }]]):format(port, secret) }
  end

  setup(function()
    assert(os.execute(("test -f '%s/node_modules/nightscout/package.json'"):format(HOME)),
      "Nightscout is not below build/sdk: run `make sdk`, which installs it by npm")
    bed.write(HOME .. "/nightscout_server.js", bed.read(bed.root .. "/spec/plugins/nightscout_server.js"))
    serve()
  end)
  before_each(function() begin(SECRET) end)
  after_each(function() assert.same({ "exit", 0 }, { host:stop() }) end)
  teardown(function() server:stop() end)

  local function push(list)
    for _, r in ipairs(list) do r.device, r.metric, r.unit = r.device or "SN-1", r.metric or "glucose", r.unit or "mmol/L" end
    assert.equal(204, (host:request("POST", "/readings", json.encode(list))))
  end
  -- What Nightscout's API shows of entries or treatments.
  local function shown(path)
    local status, text = bed.request(port, "GET", path, nil, { ["api-secret"] = crypto.sha1(SECRET) })
    assert.equal(200, status, text)
    return json.decode(text)
  end
  local function entries() return shown "/api/v1/entries.json?count=1000&find[date][$gte]=0" end

  it("shows what was measured, newest first, and an alert as a note", function()
    push { { value = 5.6, at = 1772352000123, trend = "rising_slowly" }, { value = 54, unit = "mg/dL", at = 1772352300000 } }
    host:all_told()
    local list = entries()
    assert.equal(2, #list)
    assert.same({ 54, "NONE", "SN-1" }, { list[1].sgv, list[1].direction, list[1].device })
    assert.same({ 101, "FortyFiveUp", 1772352000123, "2026-03-01T08:00:00.123Z", "sgv" },
      { list[2].sgv, list[2].direction, list[2].date, list[2].dateString, list[2].type })
    local note = shown "/api/v1/treatments.json?find[created_at][$gte]=2026-01-01"[1]
    assert.equal("Note", note.eventType)
    assert.truthy(note.notes:find("Low glucose: 54", 1, true))
    assert.matches("^2026%-03%-01T08:05:00.%d%d%dZ$", note.created_at)
    assert.same({}, host:sql "select * from dead")
  end)

  it("shows each of several alerts of one moment", function()
    host:stop()
    host = bed.host { plugins = bed.own_plugins { ["vendors/source.lua"] = source }, config = ([[
      rules = { { "low-glucose", to = "mine", again = "0s" }, { "low-glucose", name = "second", to = "mine", again = "0s" } },
      destinations = { mine = { "nightscout", url = "http://127.0.0.1:%d", secret = %q } }]]):format(port, SECRET) }
    push { { value = 3.1, at = 1772353000000 } }
    bed.wait("both to be delivered", function() return host:sql "select count(*) n from delivered"[1].n == 2 end)
    assert.equal(2, #shown "/api/v1/treatments.json?find[created_at][$gte]=2026-03-01T08:16:40&find[created_at][$lte]=2026-03-01T08:16:41")
  end)

  it("has each entry once where a receipt was lost, and all where it was down", function()
    local before = #entries()
    local list = {}
    for i = 1, 50 do list[i] = { value = 6 + i / 100, at = 1772400000000 + i * 60000 } end
    push(list)
    host:all_told()
    host:stop()
    -- a host that knows of nothing sends them all again
    begin(SECRET)
    push(list)
    host:all_told()
    assert.equal(before + 50, #entries())
    server:stop(9)
    push { { value = 7, at = 1772500000000 } }
    bed.wait("a try", function() return #host:sql "select * from outbox where attempts > 0" > 0 end)
    serve() -- its memory is gone with it
    host:all_told()
    assert.equal(1, #entries())
  end)

  it("holds what Nightscout does not let in", function()
    host:stop()
    begin "not the secret that it has"
    push { { value = 8, at = 1772600000000 } }
    local row = bed.wait("a try", function() return host:sql("select * from outbox where attempts > 0")[1] end)
    assert.truthy(row.error:find("settings have to be mended", 1, true), row.error)
    assert.truthy(row.error:find("Unauthorized", 1, true), row.error)
  end)
end)
