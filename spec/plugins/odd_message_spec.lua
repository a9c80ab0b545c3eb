-- What no destination can write is a dead letter at once, with the reason: it neither raises, nor holds up what comes behind it, of its device or another's.
local bed = require "bed"
local json = require "neap.json"

local rule = [[
local plugin = ...
plugin:on({}, function(r)
  plugin:send(r.metric, require "neap.json".decode(r.extra.body))
end)
]]
local at = 1772352000000
-- Each is odd to the destinations that have to read or write what it says; the device is the reading's.
local ODD = { { reading = { device = "d", metric = "m", value = 1, at = math.maxinteger } }, { reading = { device = "d", metric = "m", value = 1, at = math.mininteger } },
  { reading = { device = "d", metric = "m", value = 1, at = at, extra = 7 } }, { reading = { device = "d", metric = "m", value = 1, at = at, interval = "5m" } },
  { reading = { device = "d", value = 1, at = at } }, { reading = { metric = "m", value = 1, at = at } }, { reading = 5 }, { reading = "x" }, { "a", "list" },
  { title = "t", at = math.maxinteger }, { title = "t", at = math.mininteger }, { title = "t", unit = 7 } }

describe("an odd message", function()
  local receiver, host
  before_each(function() receiver = bed.receiver() end)
  after_each(function()
    host:stop()
    receiver:close()
  end)

  local function begin(entries, connections)
    host = bed.host { plugins = bed.own_plugins { ["vendors/feed.lua"] = bed.UNKEPT_EMITTER, ["rules/pass.lua"] = rule },
      config = ("lanes = 2, destinations = { %s }, connections = { %s }"):format(entries:gsub("URL", receiver.url), (connections or ""):gsub("URL", receiver.url)) }
  end
  local n = 0
  local function send(to, body)
    n = n + 1
    local r = { device = "d", metric = to, value = n, at = at + n, extra = { body = json.encode(body) } }
    assert.equal(204, (host:request("POST", "/readings", json.encode { r })))
  end
  -- All of them, then one that has to arrive behind them.
  local function expect_dead(to, bodies, good)
    for _, body in ipairs(bodies) do send(to, body) end
    send(to, good)
    bed.wait("all sent to " .. to, function()
      receiver:poll()
      return host:sql(("select (select count(*) from delivered where destination = '%s') + (select count(*) from dead where destination = '%s') n"):format(to, to))[1].n == #bodies + 1
    end)
    local dead = host:sql(("select attempts, reason, error from dead where destination = '%s' order by seq"):format(to))
    assert.equal(#bodies, #dead)
    for _, d in ipairs(dead) do
      assert.same({ 1, "refused" }, { d.attempts, d.reason }, to .. ": " .. d.error)
      assert.is_nil(d.error:find("raised", 1, true), to .. ": " .. d.error)
    end
  end

  it("is a dead letter for fhir, nightscout, influx, a file, a mail and a template", function()
    local folder = bed.folder()
    begin(([[e = { "fhir", url = "URL/fhir", patients = { d = "Patient/1" } }, n = { "nightscout", url = "URL", secret = "twelve-letters" },
      i = { "influx", url = "URL", database = "d" }, c = { "file", folder = %q, format = "csv" },
      w = { "webhook", url = "URL", body = [=[{"at": "{{at:iso}}"}]=] }]]):format(folder))
    receiver.answer = function(r)
      if r.path == "/fhir" then
        local entries = {}
        for i in ipairs(r.json.entry) do entries[i] = { response = { status = "201" } } end
        return 200, json.encode { resourceType = "Bundle", entry = entries }, { ["content-type"] = "application/json" }
      end
      if r.path:find "^/api" then return 200, r.body, { ["content-type"] = "application/json" } end
      return 204
    end
    local good = { reading = { device = "d", metric = "glucose", unit = "mmol/L", value = 5, at = at } }
    for _, to in ipairs { "e", "n", "i", "c" } do expect_dead(to, ODD, good) end
    expect_dead("w", { { at = math.maxinteger }, { at = math.mininteger }, { at = 1.5 } }, { at = at })
    assert.is_nil(host:read():find("raised", 1, true))
  end)

  it("is a dead letter for connections that deliver", function()
    local pem = require "neap.crypto".rsa.generate().public
    begin("", ([[{ "sinocare", name = "s", receive = false, push_to = "URL/s" },
      { "neuron", name = "n", url = "URL/n", secret_id = "id", key = "k", public_key = %q, building = "HQ", pull = false },
      { "elexir", name = "e", url = "URL/e", email = "ana@example.org", password = "correct horse", poll = "1h" }]]):format(pem))
    receiver.answer = function(r)
      if r.path == "/s" then return 200, '{"code":0}', { ["content-type"] = "application/json" } end
      if r.path:find "^/n" then return 200, '{"code":200,"message":"success","isSuccess":true,"data":null}', { ["content-type"] = "application/json" } end
      return 503
    end
    expect_dead("s", ODD, { reading = { device = "d", metric = "glucose", unit = "mmol/L", value = 5, at = at } })
    expect_dead("n", ODD, { reading = { device = "d", metric = "m", value = 5, at = at } })
    expect_dead("e", ODD, { reading = { device = "d", metric = "last_intensity", value = 5, at = at } })
    assert.is_nil(host:read():find("the handler raised", 1, true))
  end)
end)
