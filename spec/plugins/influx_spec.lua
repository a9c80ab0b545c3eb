-- influx against Debian's InfluxDB 1.6 itself, asked by its own client what it has stored.
local bed = require "bed"
local json = require "neap.json"

-- Emits the readings that it is pushed.
local source = bed.UNKEPT_EMITTER
local odd = [[
local plugin = ...
plugin:on({ metric = "odd" }, function(r) plugin:send("store", { what = r.value }) end)
]]

local CONFIG = [[
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
dir = "%s/meta"
[data]
dir = "%s/data"
wal-dir = "%s/wal"
[http]
bind-address = "127.0.0.1:%d"
auth-enabled = true
[monitor]
store-enabled = false
]]

describe("influx and InfluxDB", function()
  local folder, server, port, host = bed.folder(), nil, nil, nil

  local function serve()
    bed.write(folder .. "/influxdb.conf", CONFIG:format(folder, folder, folder, port or 0))
    server = bed.start { "influxd", "-config", folder .. "/influxdb.conf" }
    port = tonumber(server:wait_for "Listening on HTTP\"[^\n]*addr=127%.0%.0%.1:(%d+)")
  end
  local function influx(query, ...)
    local out, code = bed.run { "influx", "-host", "127.0.0.1", "-port", tostring(port), "-username", "admin", "-password", "s3cret", "-database",
      "ward", "-precision", "ms", "-format", "json", "-execute", query, ... }
    assert.equal(0, code, out)
    return json.decode(out)
  end
  -- A measurement's points, each a table of its columns, oldest first.
  local function points(measurement)
    local series = influx(('SELECT * FROM "%s"'):format(measurement)).results[1].series
    local list = {}
    for _, row in ipairs(series and series[1].values or {}) do
      local point = {}
      for i, column in ipairs(series[1].columns) do point[column] = row[i] ~= json.null and row[i] or nil end
      list[#list + 1] = point
    end
    return list
  end

  setup(function()
    serve()
    bed.wait("the first user", function()
      local status = bed.request(port, "POST", "/query", "q=CREATE+USER+admin+WITH+PASSWORD+'s3cret'+WITH+ALL+PRIVILEGES",
        { ["content-type"] = "application/x-www-form-urlencoded" })
      return status == 200
    end)
    influx "CREATE DATABASE ward"
    influx "CREATE USER neap WITH PASSWORD 'writes'"
    influx "GRANT WRITE ON ward TO neap"
    host = bed.host { plugins = bed.own_plugins { ["vendors/source.lua"] = source, ["rules/odd.lua"] = odd }, config = ([[
      rules = { { "forward", to = "store", device = "w-*" }, { "low-glucose", to = "store", again = "0s" } },
      destinations = { store = { "influx", url = "http://127.0.0.1:%d", database = "ward", user = "neap", password = "writes",
        tags = { house = "St. Mary, east" } } }]]):format(port) }
  end)
  teardown(function()
    assert.same({ "exit", 0 }, { host:stop() })
    server:stop()
  end)

  local function push(list) assert.equal(204, (host:request("POST", "/readings", json.encode(list)))) end
  -- Each reading leads to a message, and none waits: an outbox is empty at first, too.
  local function settled()
    bed.wait("each reading's message to have gone out", function()
      return host:sql([[select count(*) as n from outbox]])[1].n == 0
        and host:sql([[select count(*) as n from readings where seq not in (select reading from delivered union select reading from dead)]])[1].n == 0
    end)
  end

  it("finds there what was measured: names, values and milliseconds", function()
    push { { device = 'w-1 "a",b=c\\', metric = "temp", value = 21.5, unit = "Cel", at = 1772352000123, key = 'k "1"\\', trend = "flat" },
      { device = "w-1", metric = "#room temp, inside=yes", value = 20, at = 1772352000124 },
      { device = "w-1", metric = "note", value = 'say "no"\\ or\nnot', at = 1772352000125 },
      { device = "w-1", metric = "open", value = true, at = 1772352000126 } }
    settled()
    assert.same({ { time = 1772352000123, connection = "source", device = 'w-1 "a",b=c/', house = "St. Mary, east", key = 'k "1"\\',
      quality = "valid", trend = "flat", unit = "Cel", value = 21.5, vendor = "source" } }, points "temp")
    assert.equal(20, points "_#room temp, inside=yes"[1].value)
    assert.equal('say "no"\\ or\nnot', points "note"[1].text)
    assert.equal(true, points "open"[1].state)
    assert.equal(0, #host:sql "select * from dead")
  end)

  it("has an alert as a point too", function()
    push { { device = "SN-1", metric = "glucose", value = 3.1, unit = "mmol/L", at = 1772352000000 } }
    settled()
    local alert = points "alerts"[1]
    assert.equal("Low glucose", alert.title)
    assert.equal(3.1, alert.value)
    assert.equal(1772352000000, alert.time)
  end)

  it("takes all but the one that the server refuses, which is a dead letter with the server's words", function()
    influx("INSERT clash,device=w-2 value=\"a text\" 1772352000000")
    local list = {}
    for i = 1, 200 do list[i] = { device = "w-2", metric = i == 77 and "clash" or "series", value = i, at = 1772352000000 + i } end
    push(list)
    settled()
    assert.equal(199, #points "series")
    local dead = host:sql "select body, error, status from dead"
    assert.equal(1, #dead)
    assert.equal(77, json.decode(dead[1].body).reading.value)
    assert.truthy(dead[1].error:find("field type conflict", 1, true), dead[1].error)
    assert.equal(400, dead[1].status)
  end)

  it("makes a dead letter of what is neither a reading nor an alert", function()
    push { { device = "w-3", metric = "odd", value = 1 } }
    bed.wait("the dead letter", function()
      return #host:sql "select * from dead where error like '%neither a reading%nor an alert%'" == 1
    end)
  end)

  it("doubles nothing where a server comes back that was down, and loses nothing", function()
    server:stop(9)
    local list = {}
    for i = 1, 20 do list[i] = { device = "w-4", metric = "later", value = i, at = 1772352000000 + i } end
    push(list)
    bed.wait("a try", function() return #host:sql "select * from outbox where attempts > 0" > 0 end)
    serve()
    settled()
    assert.equal(20, #points "later")
  end)
end)
