-- plugins/rules/forward.lua in a running host: which readings go on, and as what.
local bed = require "bed"
local json = require "neap.json"

local source = [[
local plugin = ...
plugin:serve { "POST /r", body = { reading = { "object" } }, handler = function(req) plugin:emit(req.body.reading) return 204 end }
]]
local campus = [[
local plugin = ...
plugin:serve { "POST /campus", body = { reading = { "object" } }, handler = function(req) plugin:emit(req.body.reading) return 204 end }
plugin:deliver { handler = function(messages)
  plugin.store:put("got:" .. messages[1].id, { device = messages[1].device, data = messages[1].data })
  return true
end }
]]

describe("forward", function()
  local host, receiver
  local folder

  local function begin(rules)
    receiver = bed.receiver()
    folder = bed.folder()
    os.execute(("mkdir -p '%s/plugins' && cp -r '%s/rules' '%s/destinations' '%s/lib' '%s/plugins/'"):format(folder, bed.plugins, bed.plugins, bed.plugins, folder))
    host = bed.host { folder = folder, plugins = { ["vendors/source.lua"] = source, ["vendors/campus.lua"] = campus },
      config = ([[connections = { { "source", name = "ward-3" }, { "source", name = "ward-4", mount = "/four" }, { "campus" } },
        rules = { %s }, destinations = { desk = { "webhook", url = %q }, paper = { "log" } }]]):format(rules, receiver.url) }
  end
  after_each(function()
    assert.same({ "exit", 0 }, { host:stop() })
    receiver:close()
  end)

  local function emit(reading, path)
    reading.at = reading.at or 1600000000000
    assert.equal(204, (host:request("POST", path or "/r", { reading = reading })))
  end
  local function got(n)
    bed.wait(n .. " at the campus", function() return #host:sql "SELECT 1 FROM kv WHERE key LIKE 'got:%'" == n end)
    local list = {}
    for _, row in ipairs(host:sql "SELECT CAST(value AS TEXT) AS v FROM kv WHERE key LIKE 'got:%'") do list[#list + 1] = json.decode(row.v) end
    table.sort(list, function(a, b) return a.data.reading.at < b.data.reading.at end)
    return list
  end

  it("sends a reading with all that is known of it to a connection", function()
    begin '{ "forward", to = "campus" }'
    emit { device = "SN-1", metric = "glucose", value = 5.5, unit = "mmol/L", key = "k-1", serial = 7, interval = 180, trend = "rising_fast",
      quality = "warmup", extra = { low = 3, list = { 1, 2 } } }
    emit { device = "SN-2", metric = "state", value = "on", at = 1600000000001 }
    local list = got(2)
    assert.same({ device = "SN-1", data = { reading = { device = "SN-1", metric = "glucose", value = 5.5, unit = "mmol/L", key = "k-1",
      serial = 7, interval = 180, trend = "rising_fast", quality = "warmup", extra = { low = 3, list = { 1, 2 } }, vendor = "source",
      connection = "ward-3", at = 1600000000000 } } }, list[1])
    assert.same({ device = "SN-2", metric = "state", value = "on", quality = "valid", vendor = "source", connection = "ward-3",
      at = 1600000000001 }, list[2].data.reading)
  end)

  it("sends only what its settings say", function()
    begin [[{ "forward", to = "campus", device = "SN-*", metric = "glucose", connection = "ward-*", vendor = "source",
      unit = "mmol/L", quality = "valid" }]]
    local function reading(at, changes)
      local r = { device = "SN-1", metric = "glucose", value = 5, unit = "mmol/L", at = 1600000000000 + at }
      for k, v in pairs(changes or {}) do r[k] = v end
      return r
    end
    emit(reading(1))
    emit(reading(2, { device = "XY-1" }))
    emit(reading(3, { metric = "temp" }))
    emit(reading(4, { unit = "mg/dL" }))
    emit(reading(5, { quality = "invalid" }))
    emit(reading(6), "/campus")
    emit(reading(7), "/four/r")
    emit(reading(8, { device = "SN-2" }))
    local ats = {}
    for i, m in ipairs(got(3)) do ats[i] = m.data.reading.at - 1600000000000 end
    assert.same({ 1, 7, 8 }, ats)
  end)

  it("sends nothing back to where it came from", function()
    begin '{ "forward", to = "campus" }, { "forward", name = "copy", to = "desk" }'
    emit({ device = "SN-1", metric = "m", value = 1 }, "/campus")
    receiver:wait(1) -- what both rules did is committed together
    emit { device = "SN-1", metric = "m", value = 2, at = 1600000000001 }
    assert.equal(2, got(1)[1].data.reading.value)
  end)

  it("sends to a webhook and into the log as well", function()
    begin '{ "forward", to = "desk" }, { "forward", name = "written", to = "paper" }'
    emit { device = "SN-1", metric = "m", value = 1, unit = "m" }
    local r = receiver:wait(1)[1]
    assert.same({ reading = { device = "SN-1", metric = "m", value = 1, unit = "m", at = 1600000000000, vendor = "source",
      connection = "ward-3", quality = "valid" } }, r.json)
    assert.truthy(r.headers["webhook-id"])
    host:wait_for '"event":"message"[^\n]*"device":"SN%-1"'
  end)

  it("says which settings are wrong", function()
    for rule, word in pairs { ["to = 'nobody'"] = "nobody", ["metric = 'm'"] = "to", ["to = 'desk', metrik = 'm'"] = "metrik",
      ["to = 'desk', device = ''"] = "device", ["to = 'x'"] = "x" } do
      local at = bed.folder()
      bed.write(at .. "/neap.lua", ("return { plugins = %q, rules = { { 'forward', %s } }, destinations = { desk = { 'log' } } }")
        :format(bed.plugins, rule))
      local out, code = bed.run { bed.neap, "check", at }
      assert.equal(1, code)
      assert.truthy(out:find(word, 1, true), out)
    end
    begin '{ "forward", to = "campus" }'
    assert.equal(0, select(2, bed.run { bed.neap, "check", host.folder }))
  end)
end)
