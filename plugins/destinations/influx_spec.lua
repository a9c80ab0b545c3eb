-- influx: readings and alerts as points; what the server refuses is found and left out. `neap test influx` runs it.
local t = require "neap.test"

local V1 = "POST https://influx.example/write?*"
local V2 = "POST https://influx.example/api/v2/write?*"

describe("influx", function()
  local rule

  local function begin(settings)
    t.at "2026-03-01T08:00:00Z"
    settings = settings or { database = "ward" }
    settings.name, settings.url = "store", "https://influx.example/"
    rule = t.plugin("forward", { to = "store" })
    return function() t.plugin("influx", settings) end
  end
  local function send(r)
    r.device, r.metric, r.at = r.device or "d-1", r.metric or "temp", r.at or t.now()
    if r.value == nil then r.value = 1 end
    rule:reading(r)
  end
  local function lines(what)
    local list = {}
    for _, req in ipairs(t.asked(what or V1)) do list[#list + 1] = req.body end
    return list
  end

  it("writes points in milliseconds, with tags and fields escaped", function()
    local start = begin { database = "ward", user = "neap", password = "s3cret", retention = "year",
      tags = { ["a place"] = "3, B" } }
    t.http(V1, 204)
    send { device = 'a b,c=d"e\\', value = 21.5, unit = "Cel", vendor = "neuron", connection = "house", key = 'k"1\\', serial = 7,
      trend = "flat" }
    send { metric = "#a, b=c\nx", value = 'say "no"', at = t.now() + 1 }
    send { metric = "open", value = true, at = t.now() + 2 }
    send { metric = "empty", value = "", at = t.now() + 3 }
    start()
    local got = {}
    for l in table.concat(lines(), "\n"):gmatch "[^\n]+" do got[#got + 1] = l end
    local rest = [[,a\ place=3\,\ B]]
    table.sort(got)
    assert.same({
      [[_#a\,\ b=c\ x,connection=test,device=d-1,quality=valid,vendor=test]] .. rest .. [[ text="say \"no\"" 1772352000001]],
      [[empty,connection=test,device=d-1,quality=valid,vendor=test]] .. rest .. [[ text="" 1772352000003]],
      [[open,connection=test,device=d-1,quality=valid,vendor=test]] .. rest .. [[ state=true 1772352000002]],
      [[temp,connection=house,device=a\ b\,c\=d"e/,quality=valid,unit=Cel,vendor=neuron]] .. rest
        .. [[ value=21.5,key="k\"1\\",serial=7.0,trend="flat" 1772352000000]],
    }, got)
    local req = t.asked(V1)[1]
    assert.same({ db = "ward", rp = "year", precision = "ms" }, req.query)
    assert.equal("Basic bmVhcDpzM2NyZXQ=", req.headers.authorization)
    assert.equal("gzip", req.headers["content-encoding"])
  end)

  it("speaks version 2, with a token", function()
    local start = begin { org = "clinic", bucket = "ward", token = "t-0ken" }
    t.http(V2, 204)
    send { value = 5 }
    start()
    local req = t.asked(V2)[1]
    assert.same({ org = "clinic", bucket = "ward", precision = "ms" }, req.query)
    assert.equal("Token t-0ken", req.headers.authorization)
    assert.equal("delivered", t.sent("store")[1].state)
  end)

  it("writes an alert as a point of its own measurement", function()
    local low = t.plugin("low-glucose", { to = "store", limit = 3.9 })
    t.http(V1, 204)
    t.plugin("influx", { name = "store", url = "https://influx.example", database = "ward" })
    t.at "2026-03-01T08:00:00Z"
    low:reading { device = "SN-1", metric = "glucose", value = 3.4, unit = "mmol/L" }
    assert.equal([[alerts,device=SN-1,source=low-glucose,title=Low\ glucose,unit=mmol/L id="]] .. t.sent("store")[1].id
      .. [[",value=3.4,limit=3.9 1772352000000]], lines()[1])
  end)

  it("leaves out the one point that the server refuses, and writes the others", function()
    local start = begin()
    local written = {}
    t.http(V1, function(req)
      if req.body:find("value=13", 1, true) then return 400, '{"error":"partial write: field type conflict dropped=1"}' end
      for l in req.body:gmatch "value=(%d+)" do written[l] = true end
      return 204
    end)
    for i = 1, 40 do send { value = i, at = t.now() + i } end
    start()
    for i = 1, 40 do
      assert.equal(i == 13 and "dead" or "delivered", t.sent("store")[i].state)
      assert.equal(i ~= 13 or nil, written[tostring(i)])
    end
    assert.matches("field type conflict", t.sent("store")[13].error)
    assert.is_true(#t.asked(V1) < 16)
  end)

  it("asks no further where the server cannot answer any more", function()
    local start = begin()
    local n = 0
    t.http(V1, function()
      n = n + 1
      if n == 1 then return 400, "one of them" end
      return 503
    end)
    for i = 1, 8 do send { value = i, at = t.now() + i } end
    start()
    assert.equal(2, n)
    for i = 1, 8 do assert.equal("waiting", t.sent("store")[i].state) end
    t.http(V1, 204)
    t.advance "10m"
    for i = 1, 8 do assert.equal("delivered", t.sent("store")[i].state) end
  end)

  it("tries again what has wrong settings or no answer, and loses nothing", function()
    local start = begin()
    t.http(V1, 404, '{"error":"database not found: \\"ward\\""}')
    send {}
    start()
    assert.equal("waiting", t.sent("store")[1].state)
    assert.matches("settings have to be mended: .*not found", t.sent("store")[1].error)
    t.http(V1, 401)
    t.advance "1m"
    t.http(V1, 503)
    t.advance "5m"
    t.fail(V1, "timeout", 1)
    t.advance "10m"
    assert.equal("waiting", t.sent("store")[1].state)
    t.http(V1, 204)
    t.advance "10m"
    assert.equal("delivered", t.sent("store")[1].state)
  end)

  it("says which settings are wrong", function()
    for why, settings in pairs { ["say either database"] = {}, ["org and token"] = { bucket = "b" },
      ["no user to it"] = { database = "d", password = "p" }, ["tags.a: expected a text"] = { database = "d", tags = { a = 1 } },
      ["tags.time: a point has one of that name already"] = { database = "d", tags = { time = "x" } },
      ["tags.device: a point has one of that name already"] = { database = "d", tags = { device = "x" } },
      ["tags.title: a point has one of that name already"] = { database = "d", tags = { title = "x" } } } do
      settings.url = "https://influx.example"
      assert.has_error(function() t.plugin("influx", settings) end, why)
    end
  end)
end)
