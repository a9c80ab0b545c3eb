-- plugins/rules/low-glucose.lua in a running host: what is told, and how often.
local bed = require "bed"
local json = require "neap.json"

describe("low-glucose", function()
  local host
  local count = 0

  -- Beside the rule under test runs another that tells of all lows below 30: what both do with a reading is committed together,
  -- so that its message shows that the other has decided as well.
  local function begin(rule, connection)
    host = bed.host { config = ([[
      connections = { { "sinocare", name = "ward-3"%s } },
      rules = { { "low-glucose", to = "desk"%s }, { "low-glucose", name = "all-lows", to = "witness", limit = 10, again = "0s" } },
      destinations = { desk = { "log" }, witness = { "log" } }]]):format(connection or "", rule or "") }
  end
  after_each(function()
    if host then host:stop() end
    host = nil
  end)

  -- Each reading a minute after the one before.
  local function push(device, value, more)
    count = count + 1
    local body = bed.push { testId = "t-" .. count, deviceSn = device, testResult = value, serialNo = json.null,
      testTime = ("2021-11-02 %02d:%02d:00"):format(count // 60, count % 60) }
    for k, v in pairs(more or {}) do body.data[k] = v end
    local _, answer = host:json("POST", "/sinocare/push", body)
    assert.equal(0, answer.code)
    return host:sql(("select * from readings where key = '%s'"):format(body.data.testId))[1]
  end

  -- Messages to a destination, in the order in which they were sent; `where` is SQL.
  local function sent(to, where)
    return host:sql(([[select * from (select seq, id, destination, device, body, source, reading from outbox union all
      select seq, id, destination, device, body, source,
        reading from delivered) where destination = '%s' and %s order by seq]]):format(to, where or "1"))
  end

  -- Messages to the desk about a device once all of its readings have been decided on.
  local function told(device)
    local last = push(device, "1.0", { status = "0" })
    bed.wait("the witness to be told of the last reading", function() return sent("witness", "reading = " .. last.seq)[1] end)
    local list = {}
    for _, m in ipairs(sent("desk", ("device = '%s'"):format(device))) do
      if m.reading ~= last.seq then list[#list + 1] = json.decode(m.body) end
    end
    return list
  end

  it("tells of a low reading, with all there is to know", function()
    begin()
    local row = push("SN-1", "3.8")
    assert.same({ { title = "Low glucose", device = "SN-1", value = 3.8, unit = "mmol/L", limit = 3.9, at = row.at,
      reading = row.seq } }, told "SN-1")
    local m = sent("desk", "device = 'SN-1'")[1]
    assert.equal(row.seq, m.reading)
    assert.equal("low-glucose", m.source)
  end)

  it("says nothing at the limit and above", function()
    begin()
    push("SN-1", "3.9")
    push("SN-1", "5.6")
    push("SN-1", "33.3")
    assert.same({}, told "SN-1")
  end)

  it("takes its limit from its setting", function()
    begin ", limit = 5.5"
    push("SN-1", "5.5")
    push("SN-1", "5.4")
    local list = told "SN-1"
    assert.equal(1, #list)
    assert.equal(5.4, list[1].value)
    assert.equal(5.5, list[1].limit)
  end)

  it("knows mg/dL: 3.9 mmol/L are 70.26", function()
    begin("", ', unit = "mg/dL"')
    push("SN-1", "71")
    push("SN-1", "70.3")
    push("SN-1", "70.2")
    local list = told "SN-1"
    assert.equal(1, #list)
    assert.equal(70.2, list[1].value)
    assert.equal("mg/dL", list[1].unit)
    assert.is_true(math.abs(list[1].limit - 70.26) < 0.01)
  end)

  it("does not believe what is not valid", function()
    begin()
    push("SN-1", "2.0", { status = "1", cgmStatus = "1" })
    push("SN-1", "2.0", { status = "1", cgmStatus = "2" })
    assert.same({}, told "SN-1")
  end)

  it("tells once in a quarter of an hour, of each device", function()
    begin()
    local first = push("SN-1", "3.0")
    for _ = 1, 5 do push("SN-1", "2.0") end
    push("SN-2", "3.1")
    local list = told "SN-1"
    assert.equal(1, #list)
    assert.equal(first.seq, list[1].reading)
    assert.equal(1, #told "SN-2")
  end)

  it("tells again once the time has passed since the reading that was told of was received", function()
    begin ', again = "500ms"'
    bed.wait("three messages", function()
      push("SN-1", "3.0")
      return #sent "desk" >= 3
    end)
    told "SN-1"
    local last, expected = -math.huge, {}
    for _, r in ipairs(host:sql "select seq, received from readings order by seq") do
      if r.received >= last + 500 then
        expected[#expected + 1] = r.seq
        last = r.received
      end
    end
    local got = {}
    for _, m in ipairs(sent "desk") do got[#got + 1] = m.reading end
    assert.same(expected, got)
  end)

  it("does not tell of a duplicate again", function()
    begin ', again = "0s"'
    push("SN-1", "3.0", { testId = "same" })
    push("SN-1", "3.0", { testId = "same" })
    assert.equal(1, #told "SN-1")
  end)

  describe("silence", function()
    local function timers() return host:sql "select name, key, due from timers where instance = 'low-glucose'" end

    it("is not watched unless asked for", function()
      begin()
      push("SN-1", "5.6")
      told "SN-1"
      assert.same({}, timers())
    end)

    it("is armed by every reading, valid or not, anew", function()
      begin ', silence = "20m"'
      for _, more in ipairs { {}, { status = "1" }, { testResult = "9.9" } } do
        local row = push("SN-1", "5.6", more)
        bed.wait("the timer to be due 20 minutes after the reading was received", function()
          local list = timers()
          return #list == 1 and list[1].key == "SN-1" and list[1].due == row.received + 1200000
        end)
      end
      push("SN-2", "5.6")
      bed.wait("a timer of its own for another device", function() return #timers() == 2 end)
      assert.same({}, sent("desk", "body like '%No data%'"))
    end)

    it("is told once, with the device, and again after the next reading", function()
      begin ', silence = "300ms"'
      push("SN-1", "5.6")
      local function silent() return sent("desk", "device = 'SN-1'") end
      bed.wait("no data", function() return #silent() == 1 end)
      assert.same({ title = "No data", device = "SN-1" }, json.decode(silent()[1].body))
      assert.same({}, timers())
      push("SN-1", "5.6")
      bed.wait("no data again", function() return #silent() == 2 end)
      assert.same({}, timers())
    end)

    it("that fell due while neap was down is told when it is back", function()
      begin ', silence = "2s"'
      push("SN-1", "5.6")
      bed.wait("the timer", function() return #timers() == 1 end)
      host:restart(9)
      bed.wait("no data", function() return #sent("desk", "body like '%No data%'") == 1 end)
    end)
  end)

  it("says which settings are wrong", function()
    local function check(rule)
      local folder = bed.folder()
      bed.write(folder .. "/neap.lua",
        ("return { store = 'neap.db', plugins = %q, rules = { { 'low-glucose', %s } }, destinations = { desk = { 'log' } } }")
        :format(bed.plugins, rule))
      return bed.run { bed.neap, "check", folder .. "/neap.lua" }
    end
    for rule, word in pairs { ["to = 'nobody'"] = "nobody", ["limit = 4"] = "to", ["to = 'desk', limit = 39"] = "limit",
      ["to = 'desk', limt = 4"] = "limt",
      ["to = 'desk', again = 'often'"] = "again" } do
      local out, code = check(rule)
      assert.are_not.equal(0, code)
      assert.truthy(out:find(word, 1, true), out)
    end
    local out, code = check "to = 'desk', limit = 4.0, again = '10m', silence = '20m'"
    assert.equal(0, code, out)
  end)
end)
