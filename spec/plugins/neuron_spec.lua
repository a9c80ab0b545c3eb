-- plugins/vendors/neuron.lua, serving, against the platform's OpenAPI guide in the guide's order: every endpoint, every parameter, every code.
local bed = require "bed"
local client = require "neuron_client"
local crypto = require "neap.crypto"
local json = require "neap.json"
local socket = require "socket"
local time = require "neap.time"

local ZONE = "Asia/Hong_Kong"
local PLAIN = "yyyy-MM-dd HH:mm:ss"
local DAY = 86400000
local REFUSED = "X-Source-SecretId and X-Source-SecretKey are not those of a valid key"

local function long(n) return ("x"):rep(n) end
local function plain(ms) return time.format(ms, ZONE, PLAIN) end
local function second(ms) return ms // 1000 * 1000 end

describe("neuron", function()
  local host, c, rival, bare, seeing, conns
  local count = 0

  setup(function()
    host = bed.host { config = [[connections = {
      { "neuron", zone = "Asia/Hong_Kong", buildings = { "HQ", "Annex" },
        datasets = { energy = { day = "datetime key", kwh = "number", meters = "integer optional", area = "string", estimated = "boolean" } } },
      { "neuron", name = "rival", mount = "/rival", padding = "oaep", buildings = { "HQ" }, projects = { "p-1" },
        datasets = { energy = { kwh = "number" } } },
      { "neuron", name = "bare", mount = "/bare" },
      { "sinocare", name = "ward" },
      { "neuron", name = "seeing", mount = "/seeing", buildings = { "HQ" }, shows = { "ward", "neuron", "bare" } },
    }]] }
    c, rival = client.new(host, "neuron"), client.new(host, "rival", "/rival")
    bare, seeing = client.new(host, "bare", "/bare"), client.new(host, "seeing", "/seeing")
    conns = { neuron = c, rival = rival, bare = bare, seeing = seeing }
  end)
  teardown(function() host:stop() end)

  local function fresh(prefix)
    count = count + 1
    return prefix .. "-" .. count
  end

  local function sql(query)
    local rows = host:sql(query)
    for _, row in ipairs(rows) do
      for k, v in pairs(row) do
        if v == json.null then row[k] = nil end
      end
    end
    return rows
  end
  local function stored() return sql "select count(*) as n from readings"[1].n end

  local function record(changes)
    local r = { equipmentName = fresh "AHU", functionType = "temp", buildingName = "HQ", value = 21.5, unit = "Cel", time = "2026-11-20 08:00:00" }
    for k, v in pairs(changes or {}) do r[k] = v end
    return r
  end

  -- Pushed and stored: the reading's row, and the device's.
  local function pushed(changes)
    local r = type(changes) == "function" and record() or record(changes)
    if type(changes) == "function" then changes(r) end
    local answer, status = c:push { r }
    assert.equal(200, status)
    assert.same({ code = 200, message = "success", isSuccess = true, data = json.null }, answer)
    local rows = sql(("select * from readings where seq = (select max(seq) from readings)"))
    local device = sql(("select * from devices where device = '%s'"):format((rows[1].device:gsub("'", "''"))))
    return rows[1], device[1], r
  end

  -- Refused with that code and with HTTP's 200; the message names the field. That nothing is stored of it is looked at in the end.
  local function refused(code, field, ask)
    local answer, status = ask()
    assert.equal(200, status)
    assert.equal(code, answer.code, answer.message)
    assert.is_false(answer.isSuccess)
    assert.equal(json.null, answer.data)
    assert.truthy(answer.message:find(field, 1, true), answer.message)
    return answer
  end

  local function push_refused(field, changes, code)
    local r = type(changes) == "function" and record() or record(changes)
    if type(changes) == "function" then changes(r) end
    return refused(code or 400, field, function() return c:push { r } end)
  end
  local function without(field) return function(r) r[field] = nil end end

  -- A device with a devEui that has pushed these points, each with a value.
  local function device(points, changes, of)
    local devEui = fresh "eui"
    local name = fresh "Room"
    local records = {}
    for metric, value in pairs(points or { temp = 21.5 }) do
      local r = { equipmentName = name, functionType = metric, buildingName = "HQ", devEui = devEui, time = plain(socket.gettime() * 1000 // 1 - 60000) }
      r[type(value) == "string" and "reading" or "value"] = value
      for k, v in pairs(changes or {}) do r[k] = v end
      records[#records + 1] = r
    end
    assert.equal(200, (of or c):push(records).code)
    return devEui, name
  end

  describe("a key", function()
    it("is issued with id, key and public key", function()
      local key = client.issue(host, "neuron", { name = "dashboard" })
      assert.truthy(key.secret_id:find "^%w+$")
      assert.is_true(#key.key >= 24)
      assert.truthy(key.public_key:find "^%-%-%-%-%-BEGIN PUBLIC KEY%-%-%-%-%-\n")
      assert.equal("pkcs1", key.padding)
      assert.is_nil(key.private)
    end)

    it("opens every endpoint, with another ciphertext each time, or the same again", function()
      local one, other = client.headers(c.key), client.headers(c.key)
      assert.not_equal(one["X-Source-SecretKey"], other["X-Source-SecretKey"])
      for _, headers in ipairs { one, other, one, one } do
        assert.equal(200, c:ask("GET", "/device/v1/mn/page?current=1&size=1", nil, headers).code)
      end
    end)

    it("is checked first, and one answer is given to whatever is wrong with it", function()
      local good, theirs = client.headers(c.key), client.headers(rival.key)
      local box = crypto.unbase64(good["X-Source-SecretKey"])
      local function with(id, text) return { ["X-Source-SecretId"] = id, ["X-Source-SecretKey"] = text } end
      local function boxed(text, padding) return crypto.base64(crypto.rsa.encrypt(c.key.public_key, text, { padding = padding })) end
      local id, text = c.key.secret_id, good["X-Source-SecretKey"]
      local wrong = {
        {}, with(id), with(nil, text), with("", text), with(id, ""), with("nobody", text), with(id:upper() .. "0", text), with(id .. "'", text),
        with(long(5000), text), with(id, "x"), with(id, c.key.key), with(id, crypto.base64(c.key.key)), with(id, text:sub(1, -2)),
        with(id, text:sub(5)), with(id, long(256)), with(id, long(3000)), with(id, crypto.base64(box .. "x")), with(id, crypto.base64(box:sub(2))),
        with(id, crypto.base64(crypto.random(256))), with(id, crypto.base64(("\0"):rep(256))), with(id, crypto.base64(("\xff"):rep(256))),
        with(id, crypto.base64("\0" .. crypto.random(255))), with(id, boxed ""), with(id, boxed(c.key.key:sub(1, -2))), with(id, boxed(c.key.key .. "x")),
        with(id, boxed(c.key.key:reverse())), with(id, boxed(long(#c.key.key))), with(id, boxed(c.key.key, "oaep")),
        with(rival.key.secret_id, text), with(id, theirs["X-Source-SecretKey"]), theirs, with(id, boxed(rival.key.key)),
      }
      local asks = { { "POST", "/dataPlatform/openapi", "not JSON" }, { "GET", "/device/v1/mn/page" }, { "GET", "/device/v1/mn/x" },
        { "GET", "/device/v1/realtime/x/values" }, { "POST", "/device/v1/realtime/history", "[]" }, { "POST", "/dataset/v1/energy", "{" },
        { "DELETE", "/device/v1/nothing" } }
      for i, headers in ipairs(wrong) do
        local ask = asks[i % #asks + 1]
        local answer, status = c:ask(ask[1], ask[2], ask[3], headers)
        assert.equal(200, status)
        assert.same({ code = 401, message = REFUSED, isSuccess = false, data = json.null }, answer, i)
      end
      for _, ask in ipairs(asks) do assert.equal(401, c:ask(ask[1], ask[2], ask[3], {}).code) end
    end)

    it("is refused for an altered byte anywhere", function()
      local box = crypto.unbase64(client.headers(c.key)["X-Source-SecretKey"])
      for _ = 1, 20 do
        local at = math.random(256)
        local altered = box:sub(1, at - 1) .. string.char(box:byte(at) ~ 1 << math.random(0, 7)) .. box:sub(at + 1)
        local headers = { ["X-Source-SecretId"] = c.key.secret_id, ["X-Source-SecretKey"] = crypto.base64(altered) }
        assert.equal(401, c:page { current = 1, size = 1 }.code == 200 and c:ask("GET", "/device/v1/mn/page", nil, headers).code)
      end
    end)

    it("may be encrypted with OAEP where it was issued so, by the connection's setting or its own", function()
      assert.equal("oaep", rival.key.padding)
      assert.equal(200, rival:page { current = 1, size = 1 }.code)
      local plain_key = {}
      for k, v in pairs(rival.key) do plain_key[k] = v end
      plain_key.padding = "pkcs1"
      assert.equal(401, rival:ask("GET", "/device/v1/mn/page", nil, client.headers(plain_key)).code)
      local own = client.new(host, "neuron", "", { padding = "oaep" })
      assert.equal(200, own:page { current = 1, size = 1 }.code)
      assert.truthy(select(2, client.call(host, "neuron", "keys.issue", { padding = "none" })):find "padding")
    end)

    it("is listed without its secret, and refused once it is revoked", function()
      local other = client.new(host, "neuron", "", { name = "to be revoked" })
      assert.equal(200, other:page { current = 1, size = 1 }.code)
      local listed
      for _, k in ipairs(assert(client.call(host, "neuron", "keys.list"))) do
        if k.secret_id == other.key.secret_id then listed = k end
      end
      assert.equal("to be revoked", listed.name)
      assert.is_nil(listed.key or listed.private)
      assert.same({ secret_id = other.key.secret_id, revoked = true }, client.call(host, "neuron", "keys.revoke", { secret_id = other.key.secret_id }))
      local answer = other:page { current = 1, size = 1 } -- the ciphertext that was good a moment ago
      assert.equal(401, answer.code)
      assert.equal(REFUSED, answer.message)
      assert.equal(401, other:ask("GET", "/device/v1/mn/page", nil, client.headers(other.key)).code)
      assert.truthy(select(2, client.call(host, "neuron", "keys.revoke", { secret_id = other.key.secret_id })):find "no such key")
      for _, k in ipairs(assert(client.call(host, "neuron", "keys.list"))) do assert.not_equal(other.key.secret_id, k.secret_id) end
    end)

    it("stands nowhere in the store to be read, nor in the log", function()
      local key = client.issue(host, "neuron")
      for _, row in ipairs(host:sql "select cast(value as text) as value from kv") do
        assert.is_nil(row.value:find(key.key, 1, true))
        assert.is_nil(row.value:find("PRIVATE KEY", 1, true))
      end
      host:read()
      assert.is_nil(host.output:find(key.key, 1, true))
      assert.is_nil(host.output:find("PRIVATE KEY", 1, true))
    end)
  end)

  describe("POST /dataPlatform/openapi", function()
    it("takes a record: device, reading, unit and time", function()
      local row, dev, r = pushed { devEui = "a81758fffe04c101" }
      assert.equal("neuron", row.vendor)
      assert.equal("a81758fffe04c101", row.device)
      assert.equal("temp", row.metric)
      assert.equal(21.5, row.value)
      assert.equal("Cel", row.unit)
      assert.equal(1795132800000, row.at) -- 2026-11-20 08:00 in Hong Kong
      assert.equal(r.equipmentName, dev.name)
      assert.equal("HQ", dev.place)
      assert.equal("a81758fffe04c101", dev.serial)
      local kept = sql "select outcome, target from inbox order by id desc limit 1"[1]
      assert.same({ outcome = "done", target = "/dataPlatform/openapi" }, kept)
    end)

    it("knows a device without devEui by connection, building and name", function()
      local row, dev, r = pushed()
      assert.equal("neuron/HQ/" .. r.equipmentName, row.device)
      assert.is_nil(dev.serial)
      local name = fresh "same"
      assert.equal("neuron/Annex/" .. name, pushed { equipmentName = name, buildingName = "Annex" }.device)
      assert.equal("neuron/HQ/" .. name, pushed { equipmentName = name }.device)
      assert.equal("neuron/HQ/" .. name, pushed { equipmentName = name, devEui = "", time = "2026-11-20 09:00:00" }.device)
    end)

    it("takes 1 to 1000 records of many devices", function()
      local name, list = fresh "many", {}
      for i = 1, 1000 do list[i] = record { equipmentName = name .. "-" .. i % 10, functionType = "p" .. i // 10 % 50, time = plain(1795132800000 + i * 1000) } end
      local before = stored()
      assert.equal(200, c:push(list).code)
      assert.equal(before + 1000, stored())
      assert.equal(10, #sql(("select * from devices where name glob '%s-*'"):format(name)))
    end)

    it("stores what is pushed twice once", function()
      local r, before = record(), stored()
      assert.equal(200, c:push { r }.code)
      assert.equal(200, c:push { r }.code)
      assert.equal(200, c:push { r, r }.code)
      assert.equal(before + 1, stored())
    end)

    it("refuses 0 and 1001 records, and what is no array, whole", function()
      local list = {}
      for i = 1, 1001 do list[i] = record { time = plain(1795132800000 + i * 1000) } end
      refused(400, "1000", function() return c:push(list) end)
      refused(400, "body", function() return c:push {} end)
      for _, body in ipairs { "{}", json.encode(record()), "null", "true", "1", '"x"', "", "[", "[{]", json.encode { records = { record() } } } do
        refused(400, "body", function() return c:ask("POST", "/dataPlatform/openapi", body) end)
      end
      for _, item in ipairs { "1", "null", "true", '"x"', "[]", "[1]" } do
        refused(400, "[0]", function() return c:ask("POST", "/dataPlatform/openapi", "[" .. item .. "]") end)
      end
      assert.equal("refused", sql "select outcome from inbox order by id desc limit 1"[1].outcome)
    end)

    it("names the record that is wrong, and stores none of the others", function()
      local answer = refused(400, "[2].value", function()
        return c:push { record(), record(), record { value = "x" }, record { buildingName = "nowhere" } }
      end)
      assert.truthy(answer.message:find("record 3", 1, true), answer.message)
      answer = refused(400, "[1].buildingName", function() return c:push { record(), record { buildingName = "nowhere" }, record() } end)
      assert.truthy(answer.message:find("record 2", 1, true), answer.message)
      answer = refused(400, "[999].time", function()
        local list = {}
        for i = 1, 1000 do list[i] = record { time = i == 1000 and "yesterday" or nil } end
        return c:push(list)
      end)
      assert.truthy(answer.message:find("record 1000", 1, true), answer.message)
    end)

    for _, field in ipairs { "equipmentName", "functionType", "buildingName" } do
      it("needs " .. field .. ": text of 1 to 128 characters without control characters", function()
        push_refused("[0]." .. field, without(field))
        for _, value in ipairs { json.null, "", 1, true, { "x" }, json.array {}, long(129), "a\nb", "a\0b", "\27[1m" } do push_refused("[0]." .. field, { [field] = value }) end
        if field ~= "buildingName" then
          for _, value in ipairs { "x", long(128), "温度传感器", "O'Neill \"3\"", "a/b c%2F", "😀" } do pushed { [field] = value, devEui = fresh "eui" } end
        end
      end)
    end

    it("refuses a building that is not registered", function()
      for _, value in ipairs { "nowhere", "hq", "HQ ", " HQ", "Annex2", long(128) } do push_refused("[0].buildingName", { buildingName = value }) end
      assert.same({ building = "Dock", registered = true }, client.call(host, "neuron", "building", { name = "Dock" }))
      assert.equal("Dock", select(2, pushed { buildingName = "Dock" }).place)
      assert.truthy(select(2, client.call(host, "neuron", "building", { name = "Dock" })):find "already exists")
      assert.truthy(select(2, client.call(host, "neuron", "building", { name = "HQ" })):find "settings")
      assert.same({ "Annex", "Dock", "HQ" }, client.call(host, "neuron", "buildings"))
      client.call(host, "neuron", "building", { name = "Dock", remove = true })
      push_refused("[0].buildingName", { buildingName = "Dock" })
      assert.truthy(select(2, client.call(host, "neuron", "building", { name = "Dock", remove = true })):find "no such building")
      assert.truthy(select(2, client.call(host, "neuron", "building", { name = "" })):find "name")
    end)

    it("answers 429 where the tenant has registered no building yet", function()
      refused(429, "[0].buildingName", function() return bare:push { record() } end)
      assert(client.call(host, "bare", "building", { name = "HQ" }))
      assert.equal(200, bare:push { record() }.code)
      refused(400, "[0].buildingName", function() return bare:push { record { buildingName = "Annex" } } end)
      client.call(host, "bare", "building", { name = "HQ", remove = true })
      refused(429, "[0].buildingName", function() return bare:push { record() } end)
    end)

    it("needs a value, a number, or a reading, a string", function()
      push_refused("[0].value", without "value")
      push_refused("[0].value", { value = json.null })
      for _, value in ipairs { "21.5", "", true, { 1 }, {}, json.array {} } do push_refused("[0].value", { value = value }) end
      for _, text in ipairs { "1e999", "-1e999", "NaN", "Infinity", "01", "0x10", "1.", ".5" } do
        refused(400, "", function() return c:ask("POST", "/dataPlatform/openapi", "[" .. json.encode(record()):gsub('"value":21.5', '"value":' .. text) .. "]") end)
      end
      for _, reading in ipairs { 1, true, { "x" }, {}, long(1025), "a\0b" } do push_refused("[0].reading", { value = json.null, reading = reading }) end
      for _, value in ipairs { 0, -1, -40.25, 1e-300, 1e300, 9007199254740993, -9223372036854775807, 3.0 } do
        assert.equal(value, pushed { value = value }.value)
      end
      for _, reading in ipairs { "", "open", "运行", "a\nb", long(1024), "21.5", "null" } do
        assert.equal(reading, pushed(function(r) r.value, r.reading = nil, reading end).value)
      end
    end)

    it("keeps a reading beside a value", function()
      local row = pushed { reading = "warm" }
      assert.equal(21.5, row.value)
      assert.equal("warm", json.decode(row.extra).reading)
      assert.equal(21.5, pushed { reading = json.null }.value)
    end)

    it("reads times in the connection's zone, or RFC 3339", function()
      for text, at in pairs { ["2026-11-20 08:00:00"] = 1795132800000, ["2026-11-20 08:00:00.250"] = 1795132800250, ["2026-11-20T08:00:00"] = 1795132800000,
        ["2026-11-20T00:00:00Z"] = 1795132800000, ["2026-11-20T01:00:00.5+01:00"] = 1795132800500, ["1970-01-01 08:00:00"] = 0,
        ["2024-02-29 00:00:00"] = 1709136000000, ["9999-12-31T23:59:59Z"] = 253402300799000 } do
        assert.equal(at, pushed { time = text }.at, text)
      end
      for _, text in ipairs { "2026-02-31 08:00:00", "2025-02-29 08:00:00", "2026-13-01 08:00:00", "2026-11-20 24:00:00", "2026-11-20 08:60:00",
        "2026-11-20", "20261120", "2026/11/20 08:00:00", "08:00:00", "now", "1795132800000", "2026-11-20 08:00", " 2026-11-20 08:00:00",
        "2026-11-20 08:00:00 ", "2026-11-20 08:00:00Zx", "1969-12-31 23:59:59", "0001-01-01 00:00:00", long(65) } do
        push_refused("[0].time", { time = text })
      end
      for _, value in ipairs { 1795132800000, true, {}, json.array {} } do push_refused("[0].time", { time = value }) end
    end)

    it("takes the time of arrival where there is none, whole seconds, and each record for its own", function()
      local name = fresh "timeless"
      for _, value in ipairs { json.null, "" } do
        local before = second(socket.gettime() * 1000 // 1 | 0)
        local row = pushed { equipmentName = name, time = value }
        assert.is_true(row.at >= before and row.at <= socket.gettime() * 1000)
        assert.equal(0, row.at % 1000)
      end
      local r = record { equipmentName = name }
      r.time = nil
      c:push { r, r }
      c:push { r }
      assert.equal(5, #sql(("select * from readings where device = 'neuron/HQ/%s'"):format(name)))
    end)

    it("takes devEui of up to 64 characters, without a slash", function()
      for _, value in ipairs { 1, true, {}, long(65), "a/b", "a\nb", "a\0b" } do push_refused("[0].devEui", { devEui = value }) end
      for _, value in ipairs { long(64), "A81758FFFE04C101", "a:b.c", "设备" } do assert.equal(value, pushed { devEui = value }.device) end
      assert.truthy(pushed { devEui = json.null }.device:find "^neuron/HQ/")
    end)

    it("takes a unit of up to 64 characters, or none", function()
      for _, value in ipairs { 1, true, {}, long(65), "a\nb" } do push_refused("[0].unit", { unit = value }) end
      assert.equal(long(64), pushed { unit = long(64) }.unit)
      assert.equal("°C", pushed { unit = "°C" }.unit)
      for _, value in ipairs { json.null, "" } do assert.is_nil(pushed { unit = value }.unit) end
    end)

    it("passes over members that the guide does not name", function() pushed { site = 7, more = { 1 } } end)

    it("keeps what came last of a device's name and building", function()
      local devEui = fresh "eui"
      pushed { devEui = devEui, equipmentName = "old name" }
      local _, dev = pushed { devEui = devEui, equipmentName = "new name", buildingName = "Annex", time = "2026-11-20 09:00:00" }
      assert.equal("new name", dev.name)
      assert.equal("Annex", dev.place)
    end)
  end)

  describe("GET /device/v1/mn/{devEui}", function()
    it("shows the device in the guide's words, with points learnt from what was pushed", function()
      local devEui, name = device({ temp = 21.5, state = "on" }, { unit = "X" })
      assert.same({ code = 200, message = "success", isSuccess = true, data = {
        name = name, alias = json.null, equModel = json.null, devEUI = devEui, location = json.null, isOnline = true, descriptions = json.null,
        isIot = true, buildingName = "HQ", points = {
          { type = "state", unit = "X", bmsId = json.null, control = false }, { type = "temp", unit = "X", bmsId = json.null, control = false },
        } } }, (c:device(devEui)))
    end)

    it("shows what was told of it", function()
      local devEui, name = device { temp = 21.5 }
      assert.same({ device = devEui }, client.call(host, "neuron", "device.set", { devEui = devEui, alias = "lobby", equModel = "ERS", location = "1F",
        descriptions = "by the door", online = false, points = { { type = "setpoint", unit = "Cel", control = true }, { type = "temp", bmsId = "b-7" } } }))
      local data = c:device(devEui).data
      assert.same({ name, "lobby", "ERS", "1F", "by the door", false }, { data.name, data.alias, data.equModel, data.location, data.descriptions, data.isOnline })
      assert.same({ { type = "setpoint", unit = "Cel", bmsId = json.null, control = true }, { type = "temp", unit = json.null, bmsId = "b-7", control = false } }, data.points)
      client.call(host, "neuron", "device.set", { devEui = devEui, alias = "foyer" })
      data = c:device(devEui).data
      assert.same({ "foyer", "1F", 2 }, { data.alias, data.location, #data.points })
      assert.truthy(select(2, client.call(host, "neuron", "device.set", { alias = "x" })):find "devEui")
    end)

    it("answers 404 to a device that there is not, and to another tenant's alike", function()
      local theirs = device({ temp = 1 }, nil, rival)
      local unknown, status = c:device "nobody"
      assert.equal(200, status)
      assert.equal(404, unknown.code)
      assert.truthy(unknown.message:find("devEui", 1, true))
      assert.same(unknown, (c:device(theirs)))
      assert.same(unknown, (c:device("rival/" .. theirs)).code == 404 and unknown)
      assert.equal(200, rival:device(theirs).code)
      assert.equal(404, rival:device(device { temp = 1 }).code)
    end)

    it("refuses a devEui past 128 characters, or with control characters", function()
      assert.equal(404, c:device(long(128)).code)
      for _, value in ipairs { long(129), "a\nb", "\27[1m" } do refused(400, "devEui", function() return c:device(value) end) end
      assert.equal(404, c:ask("GET", "/device/v1/mn/").code)
    end)

    it("keeps two tenants' device of one devEui apart", function()
      local devEui = device({ temp = 1 }, { equipmentName = "ours" })
      local same_time = plain(1795132800000)
      assert.equal(200, rival:push { record { devEui = devEui, equipmentName = "theirs", functionType = "secret", value = 99, time = same_time } }.code)
      assert.equal(200, c:push { record { devEui = devEui, equipmentName = "ours", functionType = "secret", value = 1, time = same_time } }.code)
      local ours, theirs = c:device(devEui).data, rival:device(devEui).data
      assert.same({ "ours", 2 }, { ours.name, #ours.points })
      assert.same({ "theirs", 1, devEui }, { theirs.name, #theirs.points, theirs.devEUI })
      assert.equal(99, rival:values(devEui).data[1].value)
      for _, v in ipairs(c:values(devEui).data) do assert.equal(1, v.value) end
    end)
  end)

  describe("GET /device/v1/mn/page", function()
    it("comes before a device of that name", function() assert.is_table(c:ask("GET", "/device/v1/mn/page?current=1&size=1").data.records) end)

    it("gives total, size, current and records", function()
      local devEui, name = device()
      local data = c:page { current = 1, size = 10, name = name }.data
      assert.same({ total = 1, size = 10, current = 1, records = { c:device(devEui).data } }, data)
      assert.truthy(json.encode(c:page { current = 1, size = 1, name = "nothing-of-that-name" }.data):find('"records":[]', 1, true))
    end)

    it("pages through all, each once", function()
      local prefix, records = fresh "paged", {}
      for i = 1, 45 do records[i] = record { equipmentName = prefix .. "-" .. i } end
      c:push(records)
      for _, size in ipairs { 1, 7, 45, 46, 1000 } do
        local seen, n = {}, 0
        for current = 1, 45 // size + 2 do
          local data = c:page { current = current, size = size, name = prefix .. "-" }.data
          assert.same({ 45, size, current }, { data.total, data.size, data.current })
          assert.is_true(#data.records <= size)
          for _, d in ipairs(data.records) do
            assert.is_nil(seen[d.name])
            seen[d.name], n = true, n + 1
          end
        end
        assert.equal(45, n)
      end
      local far = c:page { current = 1000000000, size = 1000, name = prefix }.data
      assert.same({ 45, {} }, { far.total, far.records })
      assert.same(c:page { current = 3, size = 10, name = prefix }.data.records, c:page { current = 3, size = 10, name = prefix }.data.records)
    end)

    it("filters by a part of the name, and by devEui, buildingName and equModel exactly", function()
      local devEui, name = device({ temp = 1 }, { buildingName = "Annex" })
      client.call(host, "neuron", "device.set", { devEui = devEui, equModel = "M-" .. name })
      local function found(query)
        query.current, query.size = 1, 100
        local data = c:page(query).data
        local names = {}
        for i, d in ipairs(data.records) do names[i] = d.name end
        assert.equal(data.total, #names)
        return names
      end
      assert.same({ name }, found { devEui = devEui })
      assert.same({}, found { devEui = devEui:sub(1, -2) })
      assert.same({ name }, found { equModel = "M-" .. name })
      assert.same({}, found { equModel = "M-" .. name:sub(1, -2) })
      assert.same({ name }, found { name = name, buildingName = "Annex" })
      assert.same({}, found { name = name, buildingName = "HQ" })
      assert.same({}, found { name = name, buildingName = "Anne" })
      assert.same({ name }, found { name = name:sub(2), devEui = devEui })
      assert.same({ name }, found { name = name, devEui = "", buildingName = "", equModel = "" })
      assert.same({}, found { name = "%" .. name:sub(2) })
    end)

    it("refuses current and size that are absent, no integers, below 1 or past the bound; and long filters", function()
      local function bad(query, field) refused(400, field, function() return c:ask("GET", "/device/v1/mn/page?" .. query) end) end
      bad("size=1", "current")
      bad("current=1", "size")
      bad("", "current")
      for _, v in ipairs { "", "0", "-1", "1.5", "x", "1e3", "1000000001", "99999999999999999999", "null" } do
        bad("size=1&current=" .. v, "current")
      end
      for _, v in ipairs { "", "0", "-1", "2.5", "x", "1001", "99999999999999999999" } do bad("current=1&size=" .. v, "size") end
      for _, field in ipairs { "name", "devEui", "buildingName", "equModel" } do
        bad(("current=1&size=1&%s=%s"):format(field, long(129)), field)
        bad(("current=1&size=1&%s=a%%00b"):format(field), field)
        assert.equal(200, c:ask("GET", ("/device/v1/mn/page?current=1&size=1&%s=%s"):format(field, long(128))).code)
      end
    end)

    it("shows another tenant nothing of this one's", function()
      local name = select(2, device({ temp = 1 }))
      local devEui = c:page { current = 1, size = 1, name = name }.data.records[1].devEUI
      for _, query in ipairs { { name = name }, { devEui = devEui }, { name = name, buildingName = "HQ" }, { devEui = "neuron/" .. devEui } } do
        query.current, query.size = 1, 10
        assert.same({ total = 0, size = 10, current = 1, records = {} }, rival:page(query).data)
      end
      local own = select(2, device({ temp = 1 }, nil, rival))
      assert.equal(1, rival:page { current = 1, size = 10, name = own }.data.total)
    end)
  end)

  describe("GET /device/v1/realtime/{devEui}/values", function()
    it("gives the newest value of every point", function()
      local devEui, name = fresh "eui", fresh "Room"
      local function r(metric, at, changes)
        local one = record { devEui = devEui, equipmentName = name, functionType = metric, time = at }
        for k, v in pairs(changes) do one[k] = v end
        return one
      end
      c:push { r("temp", "2026-11-20 08:00:00", { value = 1 }), r("temp", "2026-11-20 10:00:00", { value = 3 }), r("temp", "2026-11-20 09:00:00", { value = 2 }),
        r("state", "2026-11-20 07:00:00", { value = json.null, reading = "open", unit = json.null }),
        r("both", "2026-11-20T08:00:00.250+08:00", { value = 5, reading = "five" }) }
      local data = c:values(devEui).data
      table.sort(data, function(a, b) return a.functionType < b.functionType end)
      local function point(at, metric, value, reading, unit)
        return { time = at, equipmentName = name, buildingName = "HQ", functionType = metric, devEUI = devEui, value = value, reading = reading, unit = unit }
      end
      assert.same({ point("2026-11-20T08:00:00.250+08:00", "both", 5, "five", "Cel"), point("2026-11-20 07:00:00", "state", json.null, "open", json.null),
        point("2026-11-20 10:00:00", "temp", 3, json.null, "Cel") }, data)
    end)

    it("is an empty array for a device that has sent nothing", function()
      local devEui = fresh "silent"
      client.call(host, "neuron", "device.set", { devEui = devEui, equipmentName = devEui, buildingName = "HQ", points = { { type = "temp" } } })
      local answer = c:values(devEui)
      assert.equal(200, answer.code)
      assert.equal("[]", json.encode(answer.data))
      assert.equal(1, #c:device(devEui).data.points)
    end)

    it("answers 404 to a device that there is not, and to another tenant's alike", function()
      local unknown = c:values "nobody"
      assert.equal(404, unknown.code)
      assert.same(unknown, (c:values(device({ temp = 1 }, nil, rival))))
      assert.equal(404, rival:values(device()).code)
      assert.equal(404, c:ask("GET", "/device/v1/realtime//values").code)
      for _, value in ipairs { long(129), "a\nb" } do refused(400, "devEui", function() return c:values(value) end) end
    end)
  end)

  describe("POST /device/v1/realtime/history", function()
    local name, devEui, now
    setup(function()
      name, devEui, now = fresh "Past", fresh "eui", second(socket.gettime() * 1000 // 1 | 0)
      local list = {}
      for hour = 0, 190 do
        list[#list + 1] = record { equipmentName = name, devEui = devEui, functionType = "temp", value = hour, time = plain(now - hour * 3600000) }
        list[#list + 1] = record { equipmentName = name, devEui = devEui, functionType = "state", value = json.null, reading = "s" .. hour, time = plain(now - hour * 3600000) }
      end
      list[#list + 1] = record { equipmentName = name, devEui = devEui, functionType = "both", value = 5, reading = "five", time = plain(now) }
      assert.equal(200, c:push(list).code)
    end)
    local function ask(changes, headers)
      local query = { equipmentName = name, field = "VALUE" }
      for k, v in pairs(changes or {}) do query[k] = v end
      return c:history(query, headers)
    end
    local function bad(field, changes) return refused(400, field, function() return ask(changes) end) end

    it("gives the past week's numbers, oldest first, or its texts", function()
      local data = ask { functionType = "temp" }.data
      assert.is_true(#data >= 168 and #data <= 169)
      assert.same({ time = plain(now), equipmentName = name, buildingName = "HQ", functionType = "temp", devEUI = devEui, value = 0, reading = json.null, unit = "Cel" }, data[#data])
      for i = 2, #data do assert.is_true(data[i - 1].time < data[i].time) end
      local texts = ask { functionType = "state", field = "READING" }.data
      assert.is_true(#texts >= 168 and #texts <= 169)
      assert.equal("s0", texts[#texts].reading)
      assert.equal("[]", json.encode(ask { functionType = "state" }.data))
      assert.equal("[]", json.encode(ask { functionType = "temp", field = "READING" }.data))
    end)

    it("ends now where endTime is absent", function()
      assert.equal(200, c:push({ record { equipmentName = name, devEui = devEui, functionType = "ahead", time = plain(now + DAY) } }).code)
      assert.same({}, ask { functionType = "ahead" }.data)
      assert.equal(1, #ask { functionType = "ahead", endTime = plain(now + DAY) }.data)
    end)

    it("gives all points where functionType is absent", function()
      local types = {}
      for _, v in ipairs(ask().data) do types[v.functionType] = (types[v.functionType] or 0) + 1 end
      assert.is_nil(types.state)
      assert.equal(1, types.both)
      assert.is_true(types.temp >= 168)
      assert.equal(1, #ask { field = "READING", functionType = "both" }.data)
      assert.equal(0, #ask { functionType = "nothing" }.data)
    end)

    it("takes startTime and endTime, both included, in either form", function()
      local function values(from, to)
        local list = {}
        for i, v in ipairs(ask { functionType = "temp", startTime = from, endTime = to }.data) do list[i] = v.value end
        return list
      end
      local h = 3600000
      assert.same({ 3, 2, 1 }, values(plain(now - 3 * h), plain(now - h)))
      assert.same({ 2 }, values(plain(now - 3 * h + 1000), plain(now - h - 1000)))
      assert.same({ 3, 2, 1 }, values(time.format(now - 3 * h), time.format(now - h)))
      assert.same({ 2, 1, 0 }, values(plain(now - 2 * h)))
      assert.same({ 1 }, values(plain(now - h), plain(now - h)))
      assert.same({}, values(plain(now - h + 1000), plain(now - h + 2000)))
      assert.equal(0, #values(plain(now + 1000), plain(now + 2 * h)))
      assert.is_true(#values("", "") >= 168)
    end)

    it("refuses what is older than a week, reversed or no time", function()
      assert.equal(200, ask { startTime = plain(socket.gettime() * 1000 // 1 - 7 * DAY) }.code)
      for _, ago in ipairs { 7 * DAY + 60000, 8 * DAY, 400 * DAY } do
        bad("startTime", { startTime = plain(now - ago) })
        bad("endTime", { endTime = plain(now - ago) })
      end
      bad("week", { startTime = plain(now - 8 * DAY) })
      bad("endTime", { startTime = plain(now - 3600000), endTime = plain(now - 3601000) })
      for _, field in ipairs { "startTime", "endTime" } do
        for _, value in ipairs { "yesterday", "2026-02-31 00:00:00", "2026-11-20", now, true, {}, long(65) } do bad(field, { [field] = value }) end
      end
    end)

    it("needs equipmentName and field", function()
      for _, value in ipairs { "", 1, true, json.null, {}, long(129), "a\0b" } do bad("equipmentName", { equipmentName = value }) end
      for _, value in ipairs { "", "value", "VALUES", 1, true, json.null, {} } do bad("field", { field = value }) end
      refused(400, "equipmentName", function() return c:history { field = "VALUE" } end)
      refused(400, "field", function() return c:history { equipmentName = name } end)
      for _, body in ipairs { "", "[]", "null", "1", '"x"', "{", "[{}]" } do
        refused(400, "", function() return c:ask("POST", "/device/v1/realtime/history", body) end)
      end
      for _, field in ipairs { "functionType", "equModel" } do
        for _, value in ipairs { 1, true, {}, long(129), "a\0b" } do bad(field, { [field] = value }) end
      end
    end)

    it("knows a device by its whole name, and model where given", function()
      assert.equal(0, #ask { equipmentName = name:sub(1, -2) }.data)
      assert.equal(0, #ask { equipmentName = devEui }.data)
      client.call(host, "neuron", "device.set", { devEui = devEui, equModel = "PAST-1" })
      assert.is_true(#ask { equModel = "PAST-1", functionType = "temp" }.data >= 168)
      assert.equal(0, #ask { equModel = "PAST-2" }.data)
      assert.is_true(#ask { equModel = "", functionType = "temp" }.data >= 168)
    end)

    it("gives the points of all devices of one name", function()
      local twin = fresh "Twin"
      local at = plain(now - 1000)
      c:push { record { equipmentName = twin, value = 1, time = at }, record { equipmentName = twin, buildingName = "Annex", value = 2, time = at },
        record { equipmentName = twin, devEui = fresh "eui", value = 3, time = at } }
      local sum = 0
      for _, v in ipairs(ask { equipmentName = twin }.data) do sum = sum + v.value end
      assert.equal(6, sum)
    end)

    it("shows another tenant nothing of this one's", function()
      assert.same({}, rival:history({ equipmentName = name, field = "VALUE" }).data)
      local theirs = select(2, device({ temp = 1 }, nil, rival))
      assert.same({}, ask { equipmentName = theirs }.data)
      assert.equal(1, #rival:history({ equipmentName = theirs, field = "VALUE", endTime = plain(now + DAY) }).data) -- its zone is UTC
    end)

    it("takes a project or none, and answers 428 to one that there is not", function()
      assert.is_true(#ask({ functionType = "temp" }, { ["X-Param-ProjectId"] = "anything" }).data >= 168)
      local query = { equipmentName = "x", field = "VALUE" }
      assert.equal(200, rival:history(query).code)
      assert.equal(200, rival:history(query, { ["X-Param-ProjectId"] = "p-1" }).code)
      refused(428, "X-Param-ProjectId", function() return rival:history(query, { ["X-Param-ProjectId"] = "p-2" }) end)
    end)

    it("is not kept in the inbox, for it changes nothing", function()
      local before = sql "select count(*) as n from inbox"[1].n
      ask()
      assert.equal(before, sql "select count(*) as n from inbox"[1].n)
    end)

    it("streams what is long", function()
      local big = fresh "Big"
      local wanted = 0
      for batch = 0, 4 do
        local list = {}
        for i = 1, 1000 do list[i] = record { equipmentName = big, functionType = "p" .. i % 3, value = i, time = plain(now - (batch * 1000 + i) * 1000) } end
        assert.equal(200, c:push(list).code)
        wanted = wanted + 1000
      end
      local answer, status, fields = ask { equipmentName = big }
      assert.equal(200, status)
      assert.equal("chunked", fields["transfer-encoding"])
      assert.truthy(fields["content-type"]:find "json")
      assert.same({ 200, "success", wanted }, { answer.code, answer.message, #answer.data })
      local seen = {}
      for _, v in ipairs(answer.data) do
        assert.is_nil(seen[v.time .. v.functionType])
        seen[v.time .. v.functionType] = true
      end
    end)
  end)

  describe("POST /dataset/v1/{datasetName}", function()
    local function row(changes)
      count = count + 1
      local r = { day = plain(1795132800000 + count * 1000), kwh = 12.5, area = "north", estimated = false }
      for k, v in pairs(changes or {}) do r[k] = v end
      return r
    end
    local function kept(name)
      return assert(client.call(host, "neuron", "records", { dataset = name or "energy", limit = 1000 })).records
    end
    local function keys() return sql "select count(*) as n from kv where key glob 'record*/energy/*'"[1].n end
    local before -- of those that a test expects to be refused
    before_each(function() before = keys() end)
    local function bad(field, records, code)
      return refused(code or 400, field, function() return c:dataset("energy", records, "p") end)
    end

    it("keeps records that fit, as they came and in their order", function()
      local a, b = row(), row { meters = 3 }
      local answer, status = c:dataset("energy", { a, b }, "p")
      assert.equal(200, status)
      assert.same({ code = 200, message = "success", isSuccess = true, data = json.null }, answer)
      local list = kept()
      assert.same({ a, b }, { list[#list - 1].record, list[#list].record })
      assert.is_true(list[#list].received <= socket.gettime() * 1000)
    end)

    it("takes 1 to 1000, all or none", function()
      local list = {}
      for i = 1, 1000 do list[i] = row() end
      assert.equal(200, c:dataset("energy", list, "p").code)
      assert.equal(before + 2000, keys()) -- the records, and their keys
      list[1001] = row()
      bad("1000", list)
      bad("body", {})
      for _, body in ipairs { "{}", "null", "1", '"x"', "", "[", json.encode(row()) } do bad("body", body) end
      for _, item in ipairs { "1", "null", "[]", '"x"' } do bad("[0]", "[" .. item .. "]") end
      local answer = bad("[2].kwh", { row(), row(), row { kwh = "12.5" } })
      assert.truthy(answer.message:find("record 3", 1, true), answer.message)
      assert.equal(before + 2000, keys())
    end)

    it("checks each declared type, what is missing and what is not declared", function()
      for field, values in pairs { kwh = { "1", true, {}, json.array {} }, meters = { 1.5, "1", true, {} }, area = { 1, true, {} },
        estimated = { 0, "true", {} }, day = { "2026-02-31 00:00:00", "2026-11-20", "x", 1, true } } do
        for _, value in ipairs(values) do bad("[0]." .. field, { row { [field] = value } }) end
      end
      for _, field in ipairs { "kwh", "area", "estimated", "day" } do
        local r = row()
        r[field] = nil
        bad("[0]." .. field, { r })
        bad("[0]." .. field, { row { [field] = json.null } })
      end
      bad("[0].other", { row { other = 1 } })
      bad("[0].Kwh", { row { Kwh = 1 } })
      assert.equal(before, keys())
      for _, r in ipairs { row { kwh = 3 }, row { meters = json.null }, row { meters = 3 }, row { area = "" }, row { estimated = true },
        row { day = "2026-11-21T00:00:00.123Z" } } do
        assert.equal(200, c:dataset("energy", { r }, "p").code)
      end
    end)

    it("answers 1000 to a key that there is already, and keeps none of that request", function()
      local r = row()
      assert.equal(200, c:dataset("energy", { r }, "p").code)
      bad("[1].day", { row(), r }, 1000)
      local twice = row()
      bad("[1].day", { twice, twice }, 1000)
      assert.equal(before + 2, keys())
      assert.equal(200, c:dataset("energy", { twice }, "p").code)
    end)

    it("needs X-Param-ProjectId, of a project that there is where they are declared", function()
      refused(400, "X-Param-ProjectId", function() return c:dataset("energy", { row() }) end)
      refused(400, "X-Param-ProjectId", function() return c:dataset("energy", { row() }, "") end)
      refused(428, "X-Param-ProjectId", function() return rival:dataset("energy", { { kwh = 1 } }, "p-2") end)
      assert.equal(200, rival:dataset("energy", { { kwh = 1 } }, "p-1").code)
    end)

    it("answers 404 to a data set that is not declared here", function()
      for _, name in ipairs { "nothing", "Energy", "energy ", "a'b", "energy%", long(128) } do
        refused(404, "datasetName", function() return c:dataset(name, { row() }, "p") end)
      end
      refused(400, "datasetName", function() return c:dataset(long(129), { row() }, "p") end)
      refused(404, "datasetName", function() return bare:dataset("energy", { row() }, "p") end)
      assert.equal(404, c:ask("POST", "/dataset/v1/", "[]").code)
    end)

    it("knows a key again in whatever form it comes", function()
      local declare = { name = "forms", fields = { at = "datetime key" } }
      assert(client.call(host, "neuron", "dataset.declare", declare))
      assert.equal(200, c:dataset("forms", { { at = "2026-11-20 08:00:00" } }, "p").code)
      for _, at in ipairs { "2026-11-20T08:00:00", "2026-11-20T00:00:00Z", "2026-11-20T00:00:00.000+00:00" } do
        refused(1000, "[0].at", function() return c:dataset("forms", { { at = at } }, "p") end)
      end
      assert.equal(200, c:dataset("forms", { { at = "2026-11-20T08:00:00Z" } }, "p").code)
      assert(client.call(host, "neuron", "dataset.declare", { name = "counts", fields = { n = "number key" } }))
      assert.equal(200, c:dataset("counts", { { n = 1 } }, "p").code)
      assert.equal(1000, c:dataset("counts", '[{"n":1.0}]', "p").code)
      assert.equal(200, c:dataset("counts", { { n = 1.5 } }, "p").code)
    end)

    it("may be declared by a command", function()
      assert.equal("visits", assert(client.call(host, "neuron", "dataset.declare", { name = "visits", fields = { at = "datetime", n = "integer key" } })).name)
      assert.equal(200, c:dataset("visits", { { at = "2026-11-20 08:00:00", n = 1 } }, "p").code)
      refused(400, "[0].n", function() return c:dataset("visits", { { at = "2026-11-20 08:00:00", n = 1.5 } }, "p") end)
      refused(1000, "[0].n", function() return c:dataset("visits", { { at = "2026-11-21 08:00:00", n = 1 } }, "p") end)
      assert.equal(1, #kept "visits")
      for _, fields in ipairs { { a = "float" }, { a = "" }, {}, { a = "number number" }, { a = "number key", b = "number key" }, { a = "number optional key" } } do
        assert.truthy(select(2, client.call(host, "neuron", "dataset.declare", { name = "wrong", fields = fields })):find "fields", json.encode(fields))
      end
      assert.truthy(select(2, client.call(host, "neuron", "dataset.declare", { name = "energy", fields = { a = "number" } })):find "settings")
      assert.truthy(select(2, client.call(host, "neuron", "records", { dataset = "wrong" })):find "no such data set")
    end)

    it("is read page by page", function()
      client.call(host, "neuron", "dataset.declare", { name = "paged", fields = { n = "integer" } })
      for batch = 0, 1 do
        local list = {}
        for i = 1, 12 do list[i] = { n = batch * 12 + i } end
        c:dataset("paged", list, "p")
      end
      local seen, after = {}, nil
      repeat
        local page = assert(client.call(host, "neuron", "records", { dataset = "paged", limit = 10, after = after }))
        for _, r in ipairs(page.records) do seen[#seen + 1] = r.record.n end
        after = page.after
      until not after
      for i = 1, 24 do assert.equal(i, seen[i]) end
      assert.equal(24, #seen)
    end)
  end)

  describe("what is common", function()
    it("paths and methods that there are not are answered 404 in the guide's envelope", function()
      for _, ask in ipairs { { "GET", "/dataPlatform/openapi" }, { "PUT", "/dataPlatform/openapi" }, { "POST", "/dataPlatform/other" }, { "POST", "/device/v1/mn/page" },
        { "DELETE", "/device/v1/mn/x" }, { "GET", "/device/v1/realtime/history" }, { "GET", "/device/v1/realtime/x/values/more" }, { "GET", "/device/v1/mn/x/y" },
        { "GET", "/dataset/v1/energy" }, { "PATCH", "/dataset/v1/energy/x" } } do
        local answer, status = c:ask(ask[1], ask[2], ask[1] ~= "GET" and "[]" or nil)
        assert.equal(200, status)
        assert.equal(404, answer.code)
        assert.truthy(answer.message:find(ask[2], 1, true), answer.message)
      end
    end)

    it("a body past the limit is 413 on the way and 400 in the envelope", function()
      local answer, status = c:push { record { reading = long(5 << 20) } }
      assert.equal(413, status)
      assert.equal(400, answer.code)
    end)

    it("gzip and chunked bodies are read", function()
      local path = os.tmpname()
      bed.write(path, json.encode { record() })
      assert(os.execute("gzip -f " .. path))
      local packed = bed.read(path .. ".gz")
      os.remove(path .. ".gz")
      local headers = client.headers(c.key, { ["content-encoding"] = "gzip" })
      assert.equal(200, c:ask("POST", "/dataPlatform/openapi", packed, headers).code)
      local answer = refused(400, "", function() return c:ask("POST", "/dataPlatform/openapi", packed:sub(1, -9), headers) end)
      assert.truthy(answer.message ~= "")
    end)

    it("every connection answers on its own mount with its own keys", function()
      for name, one in pairs(conns) do
        for other_name, other in pairs(conns) do
          local answer = one:ask("GET", "/device/v1/mn/page?current=1&size=1", nil, other.headers)
          assert.equal(name == other_name and 200 or 401, answer.code)
        end
      end
    end)
  end)

  describe("another vendor's devices that are shown", function()
    it("appear with their metrics as points, and only where they are shown", function()
      local sn = fresh "SN"
      host:request("POST", "/sinocare/push", bed.push { deviceSn = sn, testId = sn, testTime = plain(socket.gettime() * 1000 // 1 - 60000), customerName = "Ward 3" })
      local data = seeing:device(sn).data
      assert.same({ sn, sn, "Ward 3", true, true }, { data.name, data.devEUI, data.buildingName, data.isIot, data.isOnline })
      assert.same({ { type = "glucose", unit = "mmol/L", bmsId = json.null, control = false } }, data.points)
      assert.same({ 5.6, sn, "glucose" }, { seeing:values(sn).data[1].value, seeing:values(sn).data[1].equipmentName, seeing:values(sn).data[1].functionType })
      assert.equal(1, #seeing:history { equipmentName = sn, field = "VALUE" }.data)
      assert.equal(1, seeing:page { current = 1, size = 5, devEui = sn }.data.total)
      assert.equal(404, c:device(sn).code)
      assert.equal(404, c:values(sn).code)
      assert.equal(0, c:page { current = 1, size = 5, devEui = sn }.data.total)
      assert.same({}, c:history { equipmentName = sn, field = "VALUE" }.data)
      local ours = device()
      assert.equal(200, seeing:device(ours).code)
      client.call(host, "bare", "device.set", { devEui = ours .. "b", equipmentName = "x", buildingName = "HQ" })
      assert.equal(ours .. "b", seeing:device(ours .. "b").data.devEUI) -- of a tenant whose devices bear its name
      assert.equal(1, seeing:page { current = 1, size = 5, devEui = ours .. "b" }.data.total)
      assert.equal(404, c:device(ours .. "b").code)
      assert.equal(404, bare:device(ours).code)
    end)
  end)

  -- Made of openssl and curl alone.
  it("serves a client that knows nothing of neap", function()
    local folder = bed.folder()
    bed.write(folder .. "/neuron.pem", c.key.public_key)
    bed.write(folder .. "/client", ([[
set -e
cd '%s'
secret() { printf %%s '%s' | openssl pkeyutl -encrypt -pubin -inkey neuron.pem | base64 -w0; }
ask() { curl -sS -H 'X-Source-SecretId: %s' -H "X-Source-SecretKey: $(secret)" "$@"; echo; }
ask -H 'Content-Type: application/json' -d '[{"equipmentName":"Pump 1","functionType":"flow","buildingName":"HQ","devEui":"c0ffee0000000001","value":3.25,"unit":"m3/h","time":"2026-11-20 08:00:00"}]' '%s/dataPlatform/openapi'
ask '%s/device/v1/mn/page?current=1&size=10&name=Pump'
ask '%s/device/v1/mn/c0ffee0000000001'
ask '%s/device/v1/realtime/c0ffee0000000001/values'
ask -H 'Content-Type: application/json' -d '{"equipmentName":"Pump 1","field":"VALUE"}' '%s/device/v1/realtime/history'
ask -H 'Content-Type: application/json' -H 'X-Param-ProjectId: p' -d '[{"day":"2020-01-01 00:00:00","kwh":1,"area":"s","estimated":true}]' '%s/dataset/v1/energy'
]]):format(folder, c.key.key, c.key.secret_id, host.url, host.url, host.url, host.url, host.url, host.url))
    local out, code = bed.run { "sh", folder .. "/client" }
    assert.equal(0, code, out)
    local answers = {}
    for line in out:gmatch "[^\n]+" do answers[#answers + 1] = assert(json.decode(line), line) end
    assert.equal(6, #answers)
    for _, answer in ipairs(answers) do
      assert.equal(200, answer.code, json.encode(answer))
      assert.is_true(answer.isSuccess)
    end
    assert.equal("Pump 1", answers[2].data.records[1].name)
    assert.equal("c0ffee0000000001", answers[3].data.devEUI)
    assert.same({ "2026-11-20 08:00:00", 3.25, "m3/h" }, { answers[4].data[1].time, answers[4].data[1].value, answers[4].data[1].unit })
    assert.is_table(answers[5].data)
  end)

  it("has stored nothing of a request that it refused", function()
    assert.is_true(sql "select count(*) as n from inbox where outcome = 'refused'"[1].n > 150)
    assert.same({}, sql "select * from readings where request in (select id from inbox where outcome <> 'done')")
    assert.same({}, sql "select * from readings where request is null and vendor = 'neuron'")
  end)

  it("leaves no error in the log", function()
    host:read()
    for line in host.output:gmatch "[^\n]+" do
      assert.is_nil(line:find('"level":"error"', 1, true), line)
      assert.is_nil(line:find("Sanitizer", 1, true), line)
    end
  end)
end)

describe("neuron, the sandbox", function()
  it("has a building with weeks of values, credentials and an example that works", function()
    local p = bed.start { bed.neap, "sandbox", "neuron", "--json", "--plugins", bed.plugins }
    local told = assert(json.decode(p:wait_for "{[^\n]*\"secret_id\"[^\n]*}"))
    local host = { store = told.store, port = tonumber(told.url:match ":(%d+)$"), request = function(self, ...) return bed.request(self.port, ...) end }
    local key = { secret_id = told.secret_id, key = told.key, public_key = told.public_key }
    local c = setmetatable({ host = host, mount = "", key = key, headers = client.headers(key) }, client.Client)
    local page = c:page { current = 1, size = 100 }.data
    assert.equal(8, page.total)
    local iot = 0
    for _, d in ipairs(page.records) do
      assert.is_true(#d.points >= 2, d.name)
      assert.equal(told.buildingName, d.buildingName)
      if d.isIot then iot = iot + 1 end
    end
    assert.equal(6, iot)
    assert.equal(told.devEui, c:device(told.devEui).data.devEUI)
    assert.equal(4, #c:values(told.devEui).data)
    assert.is_true(#c:history { equipmentName = "Room 101 climate", field = "VALUE", functionType = "temperature" }.data >= 166)
    assert.is_true(#c:history { equipmentName = "AHU-1", field = "READING" }.data >= 166)
    local weeks = bed.sql(told.store, "select min(at) as a, max(at) as b from readings")[1]
    assert.is_true(weeks.b - weeks.a >= 20 * DAY)
    assert.equal(200, c:push { { equipmentName = "mine", functionType = "x", buildingName = told.buildingName, value = 1 } }.code)
    assert.equal(200, c:dataset(told.datasetName, { { day = "2026-01-01 00:00:00", kwh = 1, area = "a" } }, "p").code)
    local folder = bed.folder()
    bed.write(folder .. "/example", told.example)
    local out, code = bed.run { "sh", "-c", ("cd '%s' && sh example"):format(folder) }
    assert.equal(0, code, out)
    assert.equal(200, assert(json.decode(out), out).code)
    assert.truthy(select(2, client.call(host, "neuron", "sandbox", { url = told.url })):find "in use")
    p:stop()
  end)
end)

describe("neuron, settings", function()
  local function check(connection)
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua", ("return { store = 'neap.db', plugins = %q, connections = { %s } }"):format(bed.plugins, connection))
    return bed.run { bed.neap, "check", folder .. "/neap.lua" }
  end
  it("that are wrong are told when the configuration is read", function()
    for connection, what in pairs {
      ["{ 'neuron', zone = 'Asia/Nowhere' }"] = "Asia/Nowhere", ["{ 'neuron', padding = 'none' }"] = "padding", ["{ 'neuron', buildings = { 1 } }"] = "buildings",
      ["{ 'neuron', datasets = { energy = { kwh = 'float' } } }"] = "kwh", ["{ 'neuron', datasets = { ['a b'] = { kwh = 'number' } } }"] = "a b",
      ["{ 'neuron', url = 'http://127.0.0.1:1', span = '1h', overlap = '1h', secret_id = 'x', key = 'k', public_key = 'k' }"] = "overlap",
      ["{ 'neuron', url = 'http://127.0.0.1:1' }"] = "secret_id", ["{ 'neuron', url = 'http://127.0.0.1:1', secret_id = 'x', key = 'k', public_key = 'none' }"] = "public_key",
    } do
      local out, code = check(connection)
      assert.not_equal(0, code, connection)
      assert.truthy(out:find(what, 1, true), out)
    end
  end)
  it("are not needed", function()
    local out, code = check "{ 'neuron' }"
    assert.equal(0, code, out)
  end)
end)

describe("neuron, at its bounds", function()
  it("answers HTTP's 503 with Retry-After, and has stored what it has acknowledged", function()
    local host = bed.host { config = [[lanes = 1, queue = 1, connections = { { "neuron", buildings = { "HQ" } } }]] }
    local c = client.new(host, "neuron")
    local sockets, headers = {}, {}
    for k, v in pairs(c.headers) do headers[#headers + 1] = ("%s: %s\r\n"):format(k, v) end
    for i = 1, 100 do
      sockets[i] = assert(socket.connect("127.0.0.1", host.port))
      sockets[i]:settimeout(30)
    end
    local taken, busy = 0, 0
    bed.wait("some to be refused and some to be taken", function()
      for i, s in ipairs(sockets) do
        local body = json.encode { { equipmentName = "e" .. i, functionType = "f" .. taken, buildingName = "HQ", value = i } }
        s:send(("POST /dataPlatform/openapi HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s"):format(table.concat(headers), #body, body))
      end
      for _, s in ipairs(sockets) do
        local status, text, fields = bed.receive(s)
        if status == 200 then
          assert.equal(200, json.decode(text).code)
          taken = taken + 1
        else
          assert.equal(503, status)
          assert.is_true(tonumber(fields["retry-after"]) >= 1)
          assert.not_equal(200, json.decode(text).code)
          busy = busy + 1
        end
      end
      return busy > 0 and taken > 0
    end)
    for _, s in ipairs(sockets) do s:close() end
    assert.equal(taken, host:sql "select count(*) as n from readings"[1].n)
    host:stop()
  end)

  it("answers 503 in the envelope where the disk takes nothing more, and 200 once it does again", function()
    local folder, own = bed.folder(), bed.neap
    bed.write(folder .. "/neap", ("#!/bin/sh\ntrap '' XFSZ\nexec '%s' \"$@\"\n"):format(own))
    os.execute(("chmod +x '%s/neap'"):format(folder))
    bed.neap = folder .. "/neap"
    local host = bed.host { config = [[connections = { { "neuron", buildings = { "HQ" } } }]] }
    bed.neap = own
    local c = client.new(host, "neuron")
    local function limit(size) assert(os.execute(("prlimit --pid %d --fsize=%s"):format(host.pid, size))) end
    local n = 0
    local function push()
      n = n + 1
      return c:push { { equipmentName = "e", functionType = "f" .. n, buildingName = "HQ", reading = long(1000) } }
    end
    assert.equal(200, push().code)
    limit "409600:unlimited"
    local answer, status
    bed.wait("the disk to be full", function()
      answer, status = push()
      return status ~= 200
    end)
    assert.same({ 503, 503, false }, { status, answer.code, answer.isSuccess })
    limit "unlimited:unlimited"
    bed.wait("it to be taken again", function() return push().code == 200 end)
    host:stop()
  end)
end)

describe("neuron, a handler that fails", function()
  it("answers 500 in the envelope and keeps the request as failed", function()
    local text = bed.read(bed.plugins .. "/vendors/neuron.lua")
    local broken, n = text:gsub("\n    for _, device in ipairs%(order%)", "\n    error 'out of order'%0")
    assert.equal(1, n)
    local files = { ["vendors/neuron.lua"] = broken, ["lib/pages.lua"] = bed.read(bed.plugins .. "/lib/pages.lua"),
      ["lib/plausible.lua"] = bed.read(bed.plugins .. "/lib/plausible.lua"), ["lib/windows.lua"] = bed.read(bed.plugins .. "/lib/windows.lua") }
    for name in io.popen("ls " .. bed.plugins .. "/lib/neuron"):lines() do files["lib/neuron/" .. name] = bed.read(bed.plugins .. "/lib/neuron/" .. name) end
    local host = bed.host { plugins = files, config = [[connections = { { "neuron", buildings = { "HQ" } } }]] }
    local c = client.new(host, "neuron")
    local answer, status = c:push { { equipmentName = "a", functionType = "b", buildingName = "HQ", value = 1 } }
    assert.equal(500, status)
    assert.equal(500, answer.code)
    assert.equal("failed", host:sql "select outcome from inbox"[1].outcome)
    assert.same({}, host:sql "select * from readings")
    host:stop()
  end)
end)
