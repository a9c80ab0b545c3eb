-- plugins/vendors/sinocare.lua against the vendor's document (三诺推送CGM数据规范文档, 2024-02-21), field by field.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local PEOPLE = { "idCard", "visitId", "patientName", "patientId", "inSerialId" }

-- The document's own sample, with the comma that it forgot.
local SAMPLE = [[{
  "data": {
    "testId": "23434335345", "deviceSn": "23xxdrt33", "testResult": "5.6", "serialNo": 1, "testTime": "2021-11-02 12:33:33",
    "idCard": "430424", "visitId": "1234321", "patientName": "张三", "customerName": "测试医院", "patientId": "12",
    "inSerialId": "12343211", "status": "1", "cgmDay": 8, "increMinute": 3, "low": null, "high": null, "cgmStatus": "2"
  },
  "reservedCode": "01"
}]]

describe("sinocare", function()
  local host
  local count = 0

  setup(function()
    host = bed.host { config = [[connections = {
      { "sinocare", name = "ward-3" },
      { "sinocare", name = "berlin", mount = "/berlin", zone = "Europe/Berlin", unit = "mg/dL" } }]] }
  end)
  teardown(function() host:stop() end)

  -- A name of its own for each case: what stands in the store then is this case's.
  local function fresh(prefix)
    count = count + 1
    return prefix .. "-" .. count
  end

  local function push(body, headers, path)
    headers = headers or {}
    headers["content-type"] = headers["content-type"] or "application/json"
    if type(body) == "table" then body = json.encode(body) end
    local status, text, fields = host:request("POST", path or "/sinocare/push", body, headers)
    local answer = json.decode(text)
    assert(type(answer) == "table" and math.type(answer.code) == "integer" and type(answer.msg) == "string", text)
    return status, answer, fields
  end

  -- Rows without what is NULL.
  local function sql(query)
    local rows = host:sql(query)
    for _, row in ipairs(rows) do
      for k, v in pairs(row) do
        if v == json.null then row[k] = nil end
      end
    end
    return rows
  end

  local function last_request()
    return host:inbox "order by id desc limit 1"[1]
  end

  local function readings() return sql "select count(*) as n from readings"[1].n end

  -- A push with these changes is stored; its row. Changes may be a function of the data, to take a field away.
  local function stored(changes, path)
    local body = bed.push { testId = fresh "t", deviceSn = fresh "SN" }
    if type(changes) == "function" then changes(body.data)
    else for k, v in pairs(changes or {}) do body.data[k] = v end end
    local status, answer = push(body, nil, path)
    assert.equal(200, status)
    assert.same({ code = 0, msg = "" }, answer)
    local rows = sql(("select * from readings where device = '%s' order by seq"):format(body.data.deviceSn))
    assert.equal(1, #rows)
    return rows[1], sql(("select * from devices where device = '%s'"):format(body.data.deviceSn))[1]
  end

  -- A push with these changes is refused: code is not 0, msg names the field, the raw request is kept, and nothing else.
  local function refused(field, changes, path)
    local before = readings()
    local body = bed.push { testId = fresh "t", deviceSn = fresh "SN" }
    if type(changes) == "function" then changes(body.data, body)
    else for k, v in pairs(changes) do body.data[k] = v end end
    local raw = json.encode(body)
    local status, answer = push(raw, nil, path)
    assert.equal(200, status)
    assert.are_not.equal(0, answer.code)
    assert.truthy(answer.msg:find(field, 1, true), answer.msg)
    local kept = last_request()
    assert.equal("refused", kept.outcome)
    assert.equal(raw, kept.body)
    assert.truthy(kept.error:find(field, 1, true), kept.error)
    assert.equal(before, readings())
    if type(body.data) == "table" and type(body.data.deviceSn) == "string" and not body.data.deviceSn:find "[%c']" then
      assert.same({}, sql(("select * from devices where device = '%s'"):format(body.data.deviceSn)))
    end
    return answer
  end

  local function without(field) return function(data) data[field] = nil end end
  local function long(n) return ("x"):rep(n) end

  describe("the answer", function()
    it("to the document's sample is code 0", function()
      local status, text, fields = host:request("POST", "/sinocare/push", SAMPLE, { ["content-type"] = "application/json" })
      assert.equal(200, status)
      assert.equal("application/json", fields["content-type"])
      local answer = json.decode(text)
      assert.same({ code = 0, msg = "" }, answer)
      assert.equal("integer", math.type(answer.code))
      local row = sql "select * from readings where key = '23434335345'"[1]
      assert.equal("sinocare", row.vendor)
      assert.equal("ward-3", row.connection)
      assert.equal("23xxdrt33", row.device)
      assert.equal("glucose", row.metric)
      assert.equal(5.6, row.value)
      assert.equal("mmol/L", row.unit)
      assert.equal(1635827613000, row.at)
      assert.equal(1, row.serial)
      assert.equal(180000, row.interval)
      assert.are_not.equal("valid", row.quality)
      assert.equal(8, json.decode(row.extra).cgmDay)
      local device = sql "select * from devices where device = '23xxdrt33'"[1]
      assert.equal("active", device.status)
      assert.equal("23xxdrt33", device.serial)
      assert.equal("测试医院", device.place)
      assert.equal("done", last_request().outcome)
      assert.equal(SAMPLE, last_request().body)
    end)

    it("is sent once the reading is stored", function()
      local key = fresh "t"
      push(bed.push { testId = key })
      assert.equal(1, #sql(("select * from readings where key = '%s'"):format(key)))
    end)

    it("comes to HEAD, GET and PUT as 405, and on other paths as 404, in neap's words", function()
      for _, method in ipairs { "GET", "PUT", "DELETE" } do
        local status, _, fields = host:request(method, "/sinocare/push")
        assert.equal(405, status)
        assert.truthy(fields.allow:find "POST")
      end
      local status, answer = host:json("POST", "/sinocare/pull", bed.push())
      assert.equal(404, status)
      assert.equal("string", type(answer.error))
      assert.equal(404, (host:json("POST", "/", bed.push())))
    end)
  end)

  describe("reservedCode", function()
    it("is 01, or 1 as a number", function()
      for _, code in ipairs { "01", 1, "1" } do
        local _, answer = push { reservedCode = code, data = bed.push { testId = fresh "t", deviceSn = fresh "SN" }.data }
        assert.equal(0, answer.code)
      end
    end)
    it("is refused as anything else", function()
      for _, code in ipairs { "02", "", "001", "1.0", 2, 0, 1.5, true, json.null, { "01" }, {} } do
        refused("reservedCode", function(_, body) body.reservedCode = code end)
      end
      refused("reservedCode", function(_, body) body.reservedCode = nil end)
    end)
    it("is told before what is wrong in data, which is another command's", function()
      for _, data in ipairs { { alarm = 1 }, json.decode "[]", "x", json.null } do
        local _, answer = push { reservedCode = "02", data = data }
        assert.equal(1005, answer.code)
        assert.matches("^reservedCode: ", answer.msg)
      end
      local _, answer = push { reservedCode = "02" }
      assert.matches("^reservedCode: ", answer.msg)
    end)
  end)

  describe("data", function()
    it("is an object", function()
      for _, data in ipairs { json.null, "x", 1, true, json.decode "[]", { 1 }, json.decode '["a"]' } do
        refused("data", function(_, body) body.data = data end)
      end
      refused("data", function(_, body) body.data = nil end)
      refused("data.deviceSn", function(_, body) body.data = json.decode "{}" end)
    end)
    it("may have members of which the document knows nothing", function() stored { battery = 77, more = { 1, 2 } } end)
  end)

  for _, name in ipairs { "testId", "deviceSn" } do
    local column = name == "testId" and "key" or "device"
    describe(name, function()
      it("is kept as it came", function()
        for _, value in ipairs { "a", long(127) .. count % 10, "编号一", "a b-c/d:e", "O.1%2", '"<&>' } do
          local row = stored { [name] = value }
          assert.equal(value, row[column])
        end
        assert.equal(128, #stored { [name] = fresh("n"):rep(128):sub(1, 128) }[column])
      end)
      it("may be a number", function()
        assert.equal("23434335345" .. (name == "testId" and "1" or "2"),
          stored { [name] = 23434335345 * 10 + (name == "testId" and 1 or 2) }[column])
      end)
      it("is refused as a number that JSON's readers round, for then two would be one", function()
        for _, digits in ipairs { "9223372036854775808", "12345678901234567890", "1e300" } do
          local before = readings()
          local text = json.encode(bed.push { testId = fresh "t", deviceSn = fresh "SN" })
          local _, answer = push((text:gsub(('"%s":"[^"]*"'):format(name), ('"%s":%s'):format(name, digits))))
          assert.are_not.equal(0, answer.code)
          assert.truthy(answer.msg:find("data." .. name, 1, true))
          assert.equal(before, readings())
        end
      end)
      it("is refused where it is absent, null, empty, of another type or past 128 characters", function()
        refused("data." .. name, without(name))
        for _, value in ipairs { json.null, "", true, json.decode "[]", {}, long(129) } do refused("data." .. name,
          { [name] = value }) end
      end)
      it("is refused with control characters in it", function()
        for _, value in ipairs { "a\0b", "a\nb", "\27[31m", "\127" } do refused("data." .. name, { [name] = value }) end
      end)
    end)
  end

  describe("testResult", function()
    it("is a decimal number in a string, or a number", function()
      for text, value in pairs { ["5.6"] = 5.6, ["5"] = 5, ["0"] = 0, ["0.1"] = 0.1, [" 5.6 "] = 5.6, ["05.60"] = 5.6,
        ["33.3"] = 33.3 } do
        assert.equal(value, stored { testResult = text }.value)
      end
      assert.equal(5.6, stored { testResult = 5.6 }.value)
      assert.equal(5, stored { testResult = 5 }.value)
    end)
    it("is refused as anything else", function()
      for _, value in ipairs { "abc", "", " ", "-1", "1e3", "NaN", "inf", "0x10", "5,6", "5.6 mmol/L", "5.6.7", ".5", "HI",
        "５.６", ("9"):rep(400),
        "5.6\0", json.null, true, -1, -0.5, 1e300, json.decode "[]", { 5.6 } } do
        refused("data.testResult", { testResult = value })
      end
      refused("data.testResult", without "testResult")
    end)
    it("is in the connection's unit", function()
      assert.equal("mmol/L", stored().unit)
      local row = stored({ testResult = "101" }, "/berlin/sinocare/push")
      assert.equal("mg/dL", row.unit)
      assert.equal(101, row.value)
      assert.equal("berlin", row.connection)
    end)
  end)

  describe("testTime", function()
    it("is local time in the connection's zone", function()
      assert.equal(1635827613000, stored { testTime = "2021-11-02 12:33:33" }.at) -- Asia/Shanghai
      assert.equal(1635852813000, stored({ testTime = "2021-11-02 12:33:33" }, "/berlin/sinocare/push").at) -- +01:00
      assert.equal(1625222013000, stored({ testTime = "2021-07-02 12:33:33" }, "/berlin/sinocare/push").at) -- +02:00
      assert.equal(1709136000000, stored { testTime = "2024-02-29 00:00:00" }.at)
      assert.equal(1640966399000, stored { testTime = "2021-12-31 23:59:59" }.at)
    end)
    it("is refused where that day or time does not exist", function()
      for _, value in ipairs { "2021-02-31 12:00:00", "2021-02-29 12:00:00", "2021-04-31 12:00:00", "2021-13-01 12:00:00",
        "2021-00-10 12:00:00",
        "2021-11-00 12:00:00", "2021-11-02 25:00:00", "2021-11-02 24:00:00", "2021-11-02 12:60:00", "2021-11-02 12:33:60" } do
        local answer = refused("data.testTime", { testTime = value })
        assert.truthy(answer.msg:find("not a time", 1, true), answer.msg)
      end
    end)
    it("is refused in another format", function()
      for _, value in ipairs { "2021-11-02T12:33:33", "2021-11-02", "2021/11/02 12:33:33", "2021-11-2 12:33:33",
        "02-11-2021 12:33:33", "20211102123333",
        "2021-11-02 12:33:33Z", "2021-11-02 12:33:33.000", " 2021-11-02 12:33:33", "2021-11-02 12:33:33 ",
          "2021-11-02  12:33:33", "", "now",
        "-021-11-02 12:33:33", "２021-11-02 12:33:33", "2021-11-02 12:33:33\0", long(65), 1635827613000, json.null, true, {},
          json.decode "[]" } do
        refused("data.testTime", { testTime = value })
      end
      refused("data.testTime", without "testTime")
    end)
    it("is refused before 1970 and past the year 9999, which no sensor has seen", function()
      for _, value in ipairs { "0000-01-01 00:00:00", "0001-01-01 00:00:00", "1969-12-31 23:59:59" } do refused("data.testTime",
        { testTime = value }) end
      assert.equal(0, stored { testTime = "1970-01-01 08:00:00" }.at)
      assert.equal(253402271999000, stored { testTime = "9999-12-31 23:59:59" }.at)
    end)
  end)

  describe("serialNo", function()
    it("is a number from 1 on, or its digits", function()
      for _, case in ipairs { { 1, 1 }, { 9999999999, 9999999999 }, { "7", 7 }, { 3.0, 3 } } do
        assert.equal(case[2], stored { serialNo = case[1] }.serial)
      end
    end)
    it("may be absent or null", function()
      assert.is_nil(stored { serialNo = json.null }.serial)
      assert.is_nil(stored(without "serialNo").serial)
    end)
    it("is refused below 1, with more than the 10 digits of the document, and as anything else", function()
      for _, value in ipairs { 0, -1, 10000000000, 1e300, 1.5, "1.5", "", "x", " 1", "0x1", true, {}, json.decode "[]" } do
        refused("data.serialNo", { serialNo = value })
      end
    end)
  end)

  describe("increMinute", function()
    it("is the interval", function()
      for _, case in ipairs { { 3, 180000 }, { "5", 300000 }, { 1, 60000 }, { 1440, 86400000 } } do
        assert.equal(case[2], stored { increMinute = case[1] }.interval)
      end
    end)
    it("may be absent, null or 0", function()
      for _, row in ipairs { stored { increMinute = json.null }, (stored(without "increMinute")), (stored { increMinute = 0 }) } do
        assert.equal(0, row.interval or 0)
      end
    end)
    it("is refused past a day, below 0 and as anything else", function()
      for _, value in ipairs { -1, 1441, 1e300, 2.5, "", "x", true, {} } do refused("data.increMinute", { increMinute = value }) end
    end)
  end)

  describe("cgmDay", function()
    it("is kept", function()
      for _, case in ipairs { { 8, 8 }, { "14", 14 }, { 0, 0 }, { 3650, 3650 } } do
        assert.equal(case[2], json.decode(stored { cgmDay = case[1] }.extra).cgmDay)
      end
    end)
    it("may be absent or null", function()
      stored { cgmDay = json.null }
      stored(without "cgmDay")
    end)
    it("is refused past ten years, below 0 and as anything else", function()
      for _, value in ipairs { -1, 3651, 1.5, "", "x", true, {} } do refused("data.cgmDay", { cgmDay = value }) end
    end)
  end)

  for _, name in ipairs { "low", "high" } do
    describe(name, function()
      it("is kept, and may be absent or null", function()
        for _, case in ipairs { { 3.9, 3.9 }, { 10, 10 }, { "13.9", 13.9 }, { 0, 0 }, { 9999999999, 9999999999 } } do
          assert.equal(case[2], json.decode(stored { [name] = case[1] }.extra)[name])
        end
        for _, row in ipairs { stored { [name] = json.null }, (stored(without(name))) } do
          assert.is_nil(row.extra and json.decode(row.extra)[name])
        end
      end)
      it("is refused as anything else", function()
        for _, value in ipairs { "", "x", "0x1", "NaN", true, {}, json.decode "[]" } do refused("data." .. name,
          { [name] = value }) end
      end)
    end)
  end

  describe("status", function()
    it("0 is valid, 1 is not, and is warm-up while the sensor initialises", function()
      assert.equal("valid", stored { status = "0" }.quality)
      assert.equal("valid", stored { status = 0 }.quality)
      assert.equal("warmup", stored { status = "1", cgmStatus = "1" }.quality)
      assert.equal("warmup", stored { status = 1, cgmStatus = 1 }.quality)
      assert.equal("invalid", stored { status = "1", cgmStatus = "2" }.quality)
      assert.equal("invalid", stored { status = "1", cgmStatus = "4" }.quality)
      assert.equal("invalid", stored { status = "1", cgmStatus = json.null }.quality)
    end)
    it("absent or null is valid", function()
      assert.equal("valid", stored(without "status").quality)
      assert.equal("valid", stored { status = json.null }.quality)
    end)
    it("is refused as anything else, the field named", function()
      for _, value in ipairs { "2", "", "00", "valid", -1, 2, 0.5, true, {}, json.decode "[]" } do refused("data.status",
        { status = value }) end
    end)
  end)

  describe("cgmStatus", function()
    it("is the device's status", function()
      for value, status in pairs { ["0"] = "bound", ["1"] = "warming", ["2"] = "active", ["4"] = "ended" } do
        local _, device = stored { cgmStatus = value }
        assert.equal(status, device.status)
        _, device = stored { cgmStatus = tonumber(value) }
        assert.equal(status, device.status)
      end
    end)
    it("absent or null leaves it unknown", function()
      local _, device = stored(without "cgmStatus")
      assert.is_nil(device.status)
      _, device = stored { cgmStatus = json.null }
      assert.is_nil(device.status)
    end)
    it("3 is undefined, and so is all else: refused, the field named", function()
      for _, value in ipairs { "3", 3, "5", "", "02", -1, true, {}, json.decode "[]" } do refused("data.cgmStatus",
        { cgmStatus = value }) end
    end)
    it("of an older reading does not replace a newer one's", function()
      local sn = fresh "SN"
      local function status() return sql(("select status from devices where device = '%s'"):format(sn))[1].status end
      push(bed.push { deviceSn = sn, testId = fresh "t", testTime = "2021-11-02 12:33:00", cgmStatus = "2" })
      assert.equal("active", status())
      push(bed.push { deviceSn = sn, testId = fresh "t", testTime = "2021-11-02 11:33:00", cgmStatus = "1" })
      assert.equal("active", status())
      push(bed.push { deviceSn = sn, testId = fresh "t", testTime = "2021-11-02 12:36:00", cgmStatus = "4" })
      assert.equal("ended", status())
    end)
  end)

  describe("customerName", function()
    it("is where the device is; it may be absent, null or a number", function()
      local _, device = stored { customerName = "测试医院" }
      assert.equal("测试医院", device.place)
      _, device = stored { customerName = 301 }
      assert.equal("301", device.place)
      stored { customerName = json.null }
      stored { customerName = ("院"):rep(256) }
      stored(without "customerName")
    end)
    it("leaves the place as it was where it tells nothing", function()
      local sn = fresh "SN"
      for _, value in ipairs { "测试医院", "", "  " } do
        local body = bed.push { testId = fresh "t", deviceSn = sn }
        body.data.customerName = value
        local _, answer = push(body)
        assert.equal(0, answer.code)
        assert.equal("测试医院", sql(("select place from devices where device = '%s'"):format(sn))[1].place)
      end
    end)
    it("is refused past 256 characters, with control characters, and as another type", function()
      for _, value in ipairs { ("院"):rep(257), "a\0b", "a\nb", true, {}, json.decode "[]" } do
        refused("data.customerName", { customerName = value })
      end
    end)
  end)

  for _, name in ipairs(PEOPLE) do
    it(name .. " may be absent, null, empty or a number, and is kept nowhere but in the raw request", function()
      stored(without(name))
      for _, value in ipairs { json.null, "", 430424, "赵六四零", ("x"):rep(256) } do stored { [name] = value } end
    end)
    it(name .. " is refused past 256 characters and as another type", function()
      for _, value in ipairs { ("x"):rep(257), true, {}, json.decode "[]" } do refused("data." .. name, { [name] = value }) end
    end)
  end

  describe("a duplicate", function()
    local function twice(changes)
      local sn, key = fresh "SN", fresh "t"
      local first = bed.push { deviceSn = sn, testId = key }
      push(first)
      local again = bed.push { deviceSn = sn, testId = key }
      for k, v in pairs(changes) do again.data[k] = v end
      local status, answer = push(again)
      assert.equal(200, status)
      assert.same({ code = 0, msg = "" }, answer)
      local rows = sql(("select * from readings where key = '%s'"):format(key))
      assert.equal(1, #rows)
      assert.equal(5.6, rows[1].value)
      assert.equal(1635827613000, rows[1].at)
    end
    it("is answered 0 and stored once", function() twice {} end)
    it("with another value or time is the same testId: the first stays", function()
      twice { testResult = "7.7" }
      twice { testTime = "2021-11-02 12:36:33" }
      twice { testResult = "7.7", testTime = "2020-01-01 00:00:00", serialNo = 9 }
    end)
    it("of a testId as a number is one too", function()
      local sn = fresh "SN"
      push(bed.push { deviceSn = sn, testId = "777000111" })
      push(bed.push { deviceSn = sn, testId = 777000111 })
      assert.equal(1, #sql(("select * from readings where device = '%s'"):format(sn)))
    end)
    it("is none on another device", function()
      local key = fresh "t"
      push(bed.push { deviceSn = fresh "SN", testId = key })
      push(bed.push { deviceSn = fresh "SN", testId = key, testResult = "7.7" })
      assert.equal(2, #sql(("select * from readings where key = '%s'"):format(key)))
    end)
    it("is none where another test has the same time", function()
      local sn = fresh "SN"
      push(bed.push { deviceSn = sn, testId = fresh "t" })
      push(bed.push { deviceSn = sn, testId = fresh "t" })
      assert.equal(2, #sql(("select * from readings where device = '%s'"):format(sn)))
    end)
  end)

  -- The store's keeper makes these from a reading's serial.
  describe("a hole in serialNo", function()
    local function gaps(pushes)
      local sn = fresh "SN"
      for _, p in ipairs(pushes) do
        local _, answer = push(bed.push { deviceSn = sn, testId = p.id or fresh "t", serialNo = p[1],
          testTime = "2021-11-02 12:" .. p[2] })
        assert.equal(0, answer.code)
      end
      local list = sql(("select type, key, at, data from events where device = '%s' order by id"):format(sn))
      for _, e in ipairs(list) do e.data = json.decode(e.data) end
      return list
    end
    it("is one gap event, at the reading that came after it", function()
      assert.same({ { type = "gap", key = "glucose:2-4", at = 1635827700000, data = { metric = "glucose", from = 2, to = 4 } } },
        gaps { { 1, "00:00" }, { 5, "35:00" } })
    end)
    it("of one is a gap too, and of each hole its own", function()
      local list = gaps { { 1, "00:00" }, { 3, "06:00" }, { 4, "09:00" }, { 6, "15:00" } }
      assert.equal(2, #list)
      assert.equal("glucose:2-2", list[1].key)
      assert.equal("glucose:5-5", list[2].key)
    end)
    it("is before a device's first reading where that is not number 1", function()
      local list = gaps { { 3, "06:00" } }
      assert.equal(1, #list)
      assert.same({ metric = "glucose", from = 1, to = 2 }, list[1].data)
    end)
    it("is none where all came in order", function() assert.same({}, gaps { { 1, "00:00" }, { 2, "03:00" }, { 3, "06:00" } }) end)
    it("is not made by a late arrival, older than what is there", function()
      local list = gaps { { 1, "00:00" }, { 4, "09:00" }, { 2, "03:00" }, { 3, "06:00" } }
      assert.equal(1, #list)
      assert.equal("glucose:2-3", list[1].key)
    end)
    it("is not made by a duplicate", function()
      local id = fresh "t"
      assert.same({}, gaps { { 1, "00:00", id = id }, { 9, "27:00", id = id } })
      id = fresh "t"
      assert.equal(1, #gaps { { 1, "00:00" }, { 5, "12:00", id = id }, { 5, "12:00", id = id } })
    end)
  end)

  describe("a body", function()
    local function bad(body, headers)
      local before = readings()
      local status, answer = push(body, headers)
      assert.are_not.equal(0, answer.code)
      assert.are_not.equal("", answer.msg)
      assert.equal(before, readings())
      return status, answer
    end
    local function kept_as_refused(body)
      local status = bad(body)
      assert.equal(200, status)
      local kept = last_request()
      assert.equal("refused", kept.outcome)
      assert.truthy(kept.error:find("body", 1, true), kept.error)
    end
    it("that is no JSON object is refused", function()
      for _, body in ipairs { "", " ", "x", "{", "null", "true", "1", '"x"', "[]", "[" .. SAMPLE .. "]", SAMPLE .. SAMPLE,
        SAMPLE:sub(1, -2), "{'a':1}",
        "{}{", '{"reservedCode":"01",}', "\0", "{\0}", '{"a":NaN}' } do
        kept_as_refused(body)
      end
    end)
    it("nested past every need is refused", function()
      kept_as_refused(("["):rep(100000))
      kept_as_refused(("["):rep(1000) .. ("]"):rep(1000))
      kept_as_refused('{"data":' .. ('{"a":'):rep(5000) .. "1" .. ("}"):rep(5001))
    end)
    it("that is not UTF-8, or begins with a byte order mark, is refused", function()
      local good = json.encode(bed.push { testId = fresh "t" })
      kept_as_refused("\xEF\xBB\xBF" .. good)
      kept_as_refused((good:gsub(".", "%0\0"))) -- UTF-16
      kept_as_refused("\xFF\xFE" .. good:gsub(".", "%0\0"))
      kept_as_refused((good:gsub('"customerName":""', '"customerName":"\xB2\xE2\xCA\xD4"'))) -- GBK
      kept_as_refused((good:gsub('"customerName":""', '"customerName":"\xED\xA0\x80"')))
    end)
    it("with a name twice counts the last", function()
      local sn = fresh "SN"
      local good = json.encode(bed.push { deviceSn = sn, testId = fresh "t" })
      local _, answer = push((good:gsub('"testResult":"5.6"', '"testResult":"4.4","testResult":"5.6"')))
      assert.equal(0, answer.code)
      assert.equal(5.6, sql(("select value from readings where device = '%s'"):format(sn))[1].value)
    end)
    it("may be gzip-encoded", function()
      local sn, path = fresh "SN", os.tmpname()
      bed.write(path, json.encode(bed.push { deviceSn = sn, testId = fresh "t" }))
      assert(os.execute("gzip -f " .. path))
      local packed = bed.read(path .. ".gz")
      os.remove(path .. ".gz")
      local status, answer = push(packed, { ["content-encoding"] = "gzip" })
      assert.equal(200, status)
      assert.equal(0, answer.code)
      assert.equal(1, #sql(("select * from readings where device = '%s'"):format(sn)))
      bad(packed:sub(1, -9), { ["content-encoding"] = "gzip" })
      bad("not gzip", { ["content-encoding"] = "gzip" })
      bad(packed, { ["content-encoding"] = "br" })
    end)
    it("may be chunked", function()
      local sn = fresh "SN"
      local body = json.encode(bed.push { deviceSn = sn, testId = fresh "t" })
      local s = assert(socket.connect("127.0.0.1", host.port))
      s:settimeout(30)
      s:send "POST /sinocare/push HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
      for i = 1, #body, 50 do
        local piece = body:sub(i, i + 49)
        s:send(("%x\r\n%s\r\n"):format(#piece, piece))
      end
      s:send "0\r\n\r\n"
      local status, answer = bed.receive(s)
      s:close()
      assert.equal(200, status)
      assert.same({ code = 0, msg = "" }, json.decode(answer))
      assert.equal(1, #sql(("select * from readings where device = '%s'"):format(sn)))
    end)
    it("may come under any content type, or none", function()
      for _, type in ipairs { "application/json;charset=UTF-8", "text/plain", "application/x-www-form-urlencoded" } do
        local _, answer = push(bed.push { testId = fresh "t" }, { ["content-type"] = type })
        assert.equal(0, answer.code)
      end
      local status, text = host:request("POST", "/sinocare/push", json.encode(bed.push { testId = fresh "t" }))
      assert.equal(200, status)
      assert.equal(0, json.decode(text).code)
    end)
    it("past the limit is refused with 413, in the vendor's words", function()
      local status = bad(json.encode(bed.push { patientName = ("x"):rep(5 << 20) }))
      assert.equal(413, status)
    end)
  end)

  it("a zone that does not exist is refused when the configuration is read", function()
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua",
      ("return { store = 'neap.db', plugins = %q, connections = { { 'sinocare', zone = 'Asia/Nowhere' } } }"):format(bed.plugins))
    local out, code = bed.run { bed.neap, "check", folder .. "/neap.lua" }
    assert.are_not.equal(0, code)
    assert.truthy(out:find("Asia/Nowhere", 1, true), out)
    bed.write(folder .. "/neap.lua",
      ("return { store = 'neap.db', plugins = %q, connections = { { 'sinocare', unit = 'mg' } } }"):format(bed.plugins))
    out, code = bed.run { bed.neap, "check", folder .. "/neap.lua" }
    assert.are_not.equal(0, code)
    assert.truthy(out:find("unit", 1, true), out)
  end)
end)

-- A host that holds nothing but what these pushes gave it, so that all of its output and store can be searched.
describe("sinocare, a person's details", function()
  local SECRETS = { idCard = "11010119491001888X", visitId = "ZY-77120345", patientName = "欧阳修远", patientId = "EMPI-55019283",
    inSerialId = "LS-90817263" }
  local host

  local function shown()
    local rows = {}
    for _, query in ipairs { "select * from readings", "select * from devices", "select * from events",
      "select error, target, remote from inbox", "select space, key, hex(value) from kv",
      "select * from held" } do
      rows[#rows + 1] = json.encode(host:sql(query))
    end
    for _, command in ipairs { { "tail", "--last", "1000" }, { "devices" }, { "plugins" } } do
      for _, form in ipairs { "--json", "" } do
        local argv = { bed.neap, command[1], "--store", host.store, form }
        for i = 2, #command do argv[#argv + 1] = command[i] end
        if form == "" then table.remove(argv, 5) end
        local p = bed.start(argv)
        if command[1] == "tail" then
          p:wait_for "SN%-last"
          p:stop()
        else p:wait() end
        rows[#rows + 1] = p.output
      end
    end
    host:read()
    return table.concat(rows, "\n") .. host.output
  end

  local function check_hidden(text)
    for name, value in pairs(SECRETS) do
      assert.is_nil(text:find(value, 1, true), name .. " is shown: " .. text:sub(math.max(1, (text:find(value, 1,
        true) or 1) - 300)):sub(1, 500))
      local packed = json.encode(value):sub(2, -2) -- escaped
      assert.is_nil(text:find(packed, 1, true), name .. " is shown")
    end
  end

  setup(function() host = bed.host { config = [[connections = { { "sinocare", name = "ward-3" } }]] } end)
  teardown(function() host:stop() end)

  it("appear nowhere, whatever is wrong with the push", function()
    local answers = {}
    local function push(body)
      local _, text = host:request("POST", "/sinocare/push", type(body) == "table" and json.encode(body) or body,
        { ["content-type"] = "application/json" })
      answers[#answers + 1] = text
      return json.decode(text)
    end
    local function sick(changes)
      local body = bed.push(SECRETS)
      for k, v in pairs(changes) do body.data[k] = v end
      return body
    end
    assert.equal(0, push(sick { deviceSn = "SN-good", testId = "t-good" }).code)
    for name, value in pairs(SECRETS) do -- each in another shape, and each where another field is read
      for _, shape in ipairs { { value }, { [value] = value }, { a = { b = value } }, value:rep(80), true } do
        assert.are_not.equal(0, push(sick { [name] = shape }).code)
      end
      for _, other in ipairs { "testResult", "testTime", "serialNo", "increMinute", "cgmDay", "low", "high", "status",
        "cgmStatus" } do
        assert.are_not.equal(0, push(sick { [other] = value }).code)
        assert.are_not.equal(0, push(sick { [other] = "2021-" .. value .. "!" }).code)
      end
      local text = json.encode(sick {})
      push((text:gsub('"reservedCode":"01"', '"reservedCode":' .. json.encode(value))))
      push(text:sub(1, -3))
      push((text:gsub(value, value .. "\n", 1)))
      push((text:gsub(value, value .. "\xff", 1)))
      push(text .. value)
    end
    assert.equal(0, push(bed.push { deviceSn = "SN-last", testId = "t-last" }).code)
    check_hidden(table.concat(answers, "\n"))
    check_hidden(shown())
    local files = bed.read(host.store) .. bed.read(host.store .. "-wal")
    assert.truthy(files:find("SN-last", 1, true)) -- it is there that everything else stands
    check_hidden(files)
  end)

  it("are shown to an operator who asks, and that is logged", function()
    local owner = host:sql "select owner from devices where device = 'SN-good'"[1].owner
    assert.matches("^p_%x+$", owner)
    local shown_owner
    for _, d in ipairs((host:command "devices")) do
      if d.device == "SN-good" then shown_owner = d.owner end
    end
    assert.equal(owner, shown_owner)
    local list = host:command("people", owner)
    assert.same(SECRETS, list[1].person.details)
    assert.equal("patient:" .. SECRETS.patientId, list[1].person.key)
    assert.equal("ward-3", list[1].person.connection)
    host:wait_text('"event":"details shown","reference":"' .. owner .. '"')
    local out = bed.run { bed.neap, "people", owner, "--store", host.store }
    for name, value in pairs(SECRETS) do assert.matches(name .. " +" .. value:gsub("%-", "%%-"), out) end

    local id = host:sql "select request from readings where device = 'SN-good'"[1].request
    out = bed.run { bed.neap, "request", tostring(id), "--store", host.store }
    assert.matches("route +/sinocare/push", out)
    assert.matches("outcome +done", out)
    check_hidden(out)
    assert.is_nil(host:read():find('"details shown","request"', 1, true))
    out = bed.run { bed.neap, "request", tostring(id), "--people", "--store", host.store }
    assert.matches("target +/sinocare/push", out)
    assert.matches("content%-type: application/json", out)
    assert.truthy(out:find(SECRETS.idCard, 1, true), out)
    host:wait_text('"event":"details shown","request":"' .. id .. '"')
    local came = host:command("request", tostring(id), "--people")[1]
    assert.same(SECRETS.patientName, json.decode(came.body).data.patientName)
    check_hidden(host:read())
  end)

  it("belong to the first number that is given, and to nobody where none is", function()
    local function owner(device, changes)
      local body = bed.push { deviceSn = device, testId = "t-" .. device, patientId = json.null, idCard = json.null, visitId = json.null }
      for k, v in pairs(changes) do body.data[k] = v end
      assert.equal(200, (host:request("POST", "/sinocare/push", body)))
      return host:sql(("select owner from devices where device = '%s'"):format(device))[1].owner
    end
    local all = { patientId = "17", idCard = "18", visitId = "19", patientName = "Ann" }
    local first = owner("SN-p1", all)
    assert.equal(first, owner("SN-p2", { patientId = 17 }))
    assert.same(all, host:command("people", first)[1].person.details)
    local card = owner("SN-p3", { idCard = "18", visitId = "19" })
    assert.equal("card:18", host:command("people", card)[1].person.key)
    local visit = owner("SN-p4", { visitId = "19" })
    assert.equal("visit:19", host:command("people", visit)[1].person.key)
    assert.equal(json.null, owner("SN-p5", { patientName = "Ann", inSerialId = "3" }))
    assert.equal(json.null, owner("SN-p5", { patientId = " ", idCard = "\t", visitId = "  " }))
    assert.matches("^p_%x+$", owner("SN-p6", { patientId = ("患"):rep(256) }))
    assert.matches("^p_%x+$", owner("SN-p7", { patientId = "a\0b" }))
  end)
end)

describe("sinocare, a handler that fails", function()
  local NAME = "司马长风"
  local host
  setup(function()
    local text = bed.read(bed.plugins .. "/vendors/sinocare.lua")
    local broken, n = text:gsub("\n  return true\n", "\n  error(\"cannot file \" .. d.patientName .. \" of \" .. d.deviceSn)\n")
    assert(n == 1)
    host = bed.host { plugins = bed.own_plugins { ["vendors/sinocare.lua"] = broken }, config = [[connections = { { "sinocare",
      name = "ward-3" } }]] }
  end)
  teardown(function() host:stop() end)

  it("answers 500 in the vendor's words, keeps the request as failed, and stores nothing that it did", function()
    local body = json.encode(bed.push { patientName = NAME })
    local status, text = host:request("POST", "/sinocare/push", body, { ["content-type"] = "application/json" })
    assert.equal(500, status)
    local answer = json.decode(text)
    assert.equal("integer", math.type(answer.code))
    assert.are_not.equal(0, answer.code)
    assert.equal("string", type(answer.msg))
    assert.is_nil(text:find(NAME, 1, true))
    local kept = host:inbox()
    assert.equal(1, #kept)
    assert.equal("failed", kept[1].outcome)
    assert.equal(500, kept[1].status)
    assert.equal(body, kept[1].body)
    assert.is_nil(kept[1].error:find(NAME, 1, true))
    assert.truthy(kept[1].error:find("SN-1", 1, true))
    for _, table in ipairs { "readings", "devices", "events", "kv where space <> 'host'" } do assert.same({}, host:sql("select * from " .. table)) end
  end)

  it("is in the log with plugin, generation and line, without the person", function()
    local line = host:wait_for "[^\n]*handler failed[^\n]*"
    assert.truthy(line:find('"plugin":"ward-3"', 1, true), line)
    assert.truthy(line:find('"generation":"?1', 1), line)
    assert.truthy(line:find("sinocare%.lua:%d+: cannot file %*%*%* of SN%-1"), line)
    assert.is_nil(host.output:find(NAME, 1, true))
  end)
end)
