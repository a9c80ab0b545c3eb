-- Sinocare's dialect, pushed by neap: to a receiver that does what it likes, and to another neap.
local bed = require "bed"
local json = require "neap.json"

local SOURCE = [[
local plugin = ...
plugin:serve { "POST /make", body = { readings = { "array", optional = true }, devices = { "array", optional = true } }, handler = function(req)
  for _, r in ipairs(req.body.readings or {}) do plugin:emit(r) end
  for _, d in ipairs(req.body.devices or {}) do plugin:device(d) end
  return 204
end }
]]
local AT = 1635827613000 -- 2021-11-02 12:33:33 in China
local PEOPLE = { idCard = "990000193801010011", visitId = "ZY1", patientName = "赵六四零", patientId = "P-77", inSerialId = "70300001" }

describe("sinocare pushing on", function()
  local host, far, receiver
  local count = 0

  local function fresh(prefix)
    count = count + 1
    return prefix .. "-" .. count
  end

  local function start(settings, url, more)
    host = bed.host { plugins = bed.own_plugins { ["vendors/source.lua"] = SOURCE }, config = ([[lanes = 2,
      connections = { { "source", name = "made" }, { "sinocare", name = "ward-3" },
        { "sinocare", name = "campus", receive = false, push_to = %q, shows = { "made", "ward-3" }, %s } },
      rules = { { "forward", to = "campus", %s } },]]):format(url or receiver.url .. "/sinocare/push", settings or "", more or "") }
  end

  before_each(function()
    receiver = bed.receiver()
    receiver.answer = function() return 200, '{"code":0,"msg":""}' end
  end)
  after_each(function()
    for _, h in ipairs { host or false, far or false } do if h then h:stop(9) end end
    host, far = nil, nil
    receiver:close()
  end)

  local function make(reading, device)
    local r = { device = fresh "SN", metric = "glucose", value = 5.6, unit = "mmol/L", at = AT }
    for k, v in pairs(reading or {}) do r[k] = v ~= json.null and v or nil end
    if device then device.device = r.device end
    assert.equal(204, (host:request("POST", "/make", { readings = { r }, devices = json.array { device } })))
    return r
  end

  local function pushed(n) return receiver:wait(n)[n] end

  it("says what the document says, member by member and type by type", function()
    start()
    local r = make({ key = "k-1", serial = 7, interval = 180, extra = { low = 3.9, high = 10, cgmDay = 8 } }, { status = "active", place = "测试医院" })
    local request = pushed(1)
    assert.same({ "POST", "/sinocare/push", "application/json" }, { request.method, request.path, request.headers["content-type"] })
    assert.same({ reservedCode = "01", data = { testId = "k-1", deviceSn = r.device, testResult = "5.6", serialNo = 7, testTime = "2021-11-02 12:33:33",
      idCard = "", visitId = "", patientName = "", customerName = "测试医院", patientId = "", inSerialId = "", status = "0", cgmDay = 8, increMinute = 3,
      low = 3.9, high = 10, cgmStatus = "2" } }, request.json)
    make { extra = json.null }
    local data = pushed(2).json.data
    for _, name in ipairs { "serialNo", "increMinute", "cgmDay", "low", "high" } do assert.equal(json.null, data[name], name) end
    bed.wait("both to be delivered", function() return #host:sql "select 1 from outbox" == 0 end)
    assert.equal(2, #receiver:poll())
  end)

  it("has an id of each test that stays the same", function()
    start()
    local r = make()
    assert.equal(("%s-%d"):format(r.device, AT), pushed(1).json.data.testId)
    make { device = ("x"):rep(200) }
    assert.truthy(pushed(2).json.data.testId:match "^%x+$")
  end)

  it("tells the result in its unit, as a decimal in a string, and the time in its zone", function()
    start()
    local n = 0
    for _, case in ipairs { { 5.6, "mmol/L", "5.6" }, { 6, "mmol/L", "6" }, { 6.0, "mmol/L", "6" }, { 10.25, "mmol/L", "10.25" }, { 0.00001, "mmol/L", "0.00001" },
      { 101, "mg/dL", "5.61" }, { 180.1559, "mg/dL", "10" } } do
      make { value = case[1], unit = case[2] }
      n = n + 1
      assert.equal(case[3], pushed(n).json.data.testResult)
    end
    host:stop()
    start [[unit = "mg/dL", zone = "Europe/Berlin"]]
    for _, case in ipairs { { 101, "mg/dL", "101" }, { 100.5, "mg/dL", "100.5" }, { 5.6, "mmol/L", "101" } } do
      make { value = case[1], unit = case[2] }
      n = n + 1
      local data = pushed(n).json.data
      assert.same({ case[3], "2021-11-02 05:33:33" }, { data.testResult, data.testTime })
    end
  end)

  it("tells validity and the sensor's status", function()
    start()
    local n = 0
    for _, case in ipairs { { "valid", nil, "0", "2" }, { "warmup", nil, "1", "1" }, { "invalid", nil, "1", "2" }, { "valid", "bound", "0", "0" }, { "valid", "unbound", "0", "0" },
      { "valid", "warming", "0", "1" }, { "invalid", "ended", "1", "4" } } do
      make({ quality = case[1] }, case[2] and { status = case[2] } or nil)
      n = n + 1
      local data = pushed(n).json.data
      assert.same({ case[3], case[4] }, { data.status, data.cgmStatus })
    end
  end)

  it("tells who wears the sensor only with people = true", function()
    for i, settings in ipairs { "", "people = true" } do
      start(settings)
      local _, answer = host:json("POST", "/sinocare/push", bed.push { deviceSn = fresh "SN", testId = fresh "t", idCard = PEOPLE.idCard, visitId = PEOPLE.visitId,
        patientName = PEOPLE.patientName, patientId = PEOPLE.patientId, inSerialId = PEOPLE.inSerialId })
      assert.equal(0, answer.code)
      local data = pushed(i).json.data
      for name, value in pairs(PEOPLE) do assert.equal(i == 2 and value or "", data[name], name) end
      assert.is_nil(host:read():find(PEOPLE.patientName, 1, true))
      host:stop()
      assert.is_nil(host:read():find(PEOPLE.patientName, 1, true))
    end
  end)

  it("gives up at once on what cannot be said in it, and says why", function()
    start()
    for reading, why in pairs { [{ metric = "temp", unit = "Cel" }] = "only glucose", [{ value = "HI" }] = "testResult", [{ value = -1 }] = "testResult",
      [{ unit = "g" }] = "there is no mmol/L of a value in g" } do
      local r = make(reading)
      bed.wait("a dead letter of " .. why, function()
        return host:sql(("select 1 as one from dead where device = '%s' and error like '%%%s%%'"):format(r.device, why))[1]
      end)
    end
    assert.equal(0, #receiver:poll())
  end)

  for name, trouble in pairs {
    ["a code that is not 0"] = function() return 200, '{"code":1003,"msg":"no"}' end,
    ["no code"] = function() return 200, "{}" end,
    ["a code that is no number"] = function() return 200, '{"code":"0","msg":""}' end,
    ["what is no JSON"] = function() return 200, "ok" end,
    ["nothing"] = function() return 204, "" end,
    ["400"] = function() return 400, '{"code":0,"msg":""}' end,
    ["404"] = function() return 404, "" end,
    ["429"] = function() return 429, "", { ["retry-after"] = "0" } end,
    ["503"] = function() return 503, '{"code":0}' end,
    ["a redirection"] = function() return 302, "", { location = "/" } end,
    ["a closed connection"] = function() return nil end,
    ["half an answer"] = function() return "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"code\":0" end,
  } do
    it("pushes again after " .. name .. ", the same, until code 0", function()
      local good, n = receiver.answer, 0
      receiver.answer = function(...)
        n = n + 1
        return (n <= 2 and trouble or good)(...)
      end
      start()
      make { key = "again" }
      receiver:wait(3)
      for i = 2, 3 do assert.same(receiver.requests[1].json, receiver.requests[i].json) end
      bed.wait("it to be delivered", function()
        receiver:poll()
        return #host:sql "select 1 from outbox" == 0
      end)
      assert.same({}, host:sql "select * from dead")
      assert.equal(3, #receiver:poll())
    end)
  end

  it("takes no answer within 5 s for none", function()
    local good, n = receiver.answer, 0
    receiver.answer = function(...)
      n = n + 1
      if n == 1 then return false end
      return good(...)
    end
    start()
    make { key = "slow" }
    receiver:wait(2, 60)
    assert.equal("slow", receiver.requests[2].json.data.testId)
  end)

  it("keeps the order of a device, and lets one that is not taken hold up no other", function()
    local good, refused = receiver.answer, {}
    receiver.answer = function(request)
      local data = request.json.data
      if data.deviceSn == "bad" and #refused < 3 then
        refused[#refused + 1] = data.testId
        return 200, '{"code":7,"msg":"not now"}'
      end
      return good()
    end
    start()
    for i = 1, 5 do
      make { device = "bad", key = "b" .. i, at = AT + i * 1000 }
      make { device = "fine", key = "f" .. i, at = AT + i * 1000 }
    end
    receiver:wait(13)
    local bad, fine = {}, {}
    for _, r in ipairs(receiver.requests) do table.insert(r.json.data.deviceSn == "bad" and bad or fine, r.json.data.testId) end
    assert.same({ "f1", "f2", "f3", "f4", "f5" }, fine)
    assert.same({ "b1", "b1", "b1", "b1", "b2", "b3", "b4", "b5" }, bad)
  end)

  it("to another neap stores each test once, also where that one is killed on the way", function()
    far = bed.host { config = [[connections = { { "sinocare", name = "ward-9", zone = "Asia/Shanghai" } }]] }
    start("people = true", far.url .. "/sinocare/push")
    local function push(i)
      local _, answer = host:json("POST", "/sinocare/push", bed.push { deviceSn = "SN-A", testId = "t" .. i, serialNo = i, patientId = "P-1", customerName = "测试医院",
        testTime = ("2021-11-02 12:%02d:33"):format(i), testResult = ("%.1f"):format(5 + i / 10), status = i <= 3 and "1" or "0", cgmStatus = i <= 3 and "1" or "2" })
      assert.equal(0, answer.code)
    end
    for i = 1, 20 do push(i) end
    far:stop(9)
    for i = 21, 30 do push(i) end
    bed.wait("a try to have failed", function() return host:read():find("not delivered", 1, true) end)
    host:restart(9)
    far:begin()
    bed.wait("all to be there", function() return far:sql "select count(*) as n from readings"[1].n == 30 end, 60)
    bed.wait("all to be known as delivered", function() return #host:sql "select 1 from outbox" == 0 end, 60)
    local rows = "select device, metric, key, value, unit, at, serial, interval, quality from readings order by serial"
    assert.same(host:sql(rows), far:sql(rows))
    assert.equal(30, far:sql "select count(*) as n from readings"[1].n)
    local device = "select status, place, serial from devices where device = 'SN-A'"
    assert.same(host:sql(device), far:sql(device))
    assert.same({}, far:sql "select * from events")
  end)

  it("by a command pushes one test and gives the answer", function()
    far = bed.host { config = [[connections = { { "sinocare", name = "ward-9" } }]] }
    start("", far.url .. "/sinocare/push")
    local function push(args)
      local out, code = bed.run { bed.neap, "call", "--store", host.store, "campus", "push", "--args", json.encode(args) }
      return code == 0 and json.decode(out) or nil, out
    end
    assert.same({ code = 0, msg = "" }, push { testId = "c1", deviceSn = "SN-C", testResult = "5.6", testTime = "2021-11-02 12:33:33" })
    assert.equal(5.6, far:sql "select value from readings where key = 'c1'"[1].value)
    assert.equal(1006, push { testId = "c2", deviceSn = "SN-C", testResult = "5.6", testTime = "2021-02-31 12:33:33" }.code)
    local _, why = push { deviceSn = "SN-C" }
    assert.truthy(why:find("testId", 1, true), why)
    local out, code = bed.run { bed.neap, "call", "--store", host.store, "ward-3", "push", "testId=1", "deviceSn=2", "testResult=3", "testTime=4" }
    assert.not_equal(0, code)
    assert.truthy(out:find("push_to", 1, true), out)
  end)

  it("serves no path with receive = false", function()
    start("mount = '/campus'")
    assert.equal(404, (host:request("POST", "/campus/sinocare/push", bed.push())))
    assert.equal(200, (host:request("POST", "/sinocare/push", bed.push())))
  end)
end)

describe("the sandboxes", function()
  it("of sinocare and dreisam have data, and tell how to call them", function()
    for vendor, made in pairs { sinocare = 2000, dreisam = 5000 } do
      local run = bed.start { bed.neap, "sandbox", vendor, "--plugins", bed.plugins, "--listen", "127.0.0.1:0", "--json" }
      local told = assert(json.decode(run:wait_for "(%b{})\n"))
      assert.equal(vendor, told.vendor)
      assert.is_true(bed.sql(told.store, "select count(*) as n from readings")[1].n > made)
      local out, code = bed.run { "sh", "-c", (told.example:gsub("^curl", "curl -s")) }
      assert.same({ 0, 0 }, { code, json.decode(out).code }, out)
      run:stop(2)
    end
  end)
end)
