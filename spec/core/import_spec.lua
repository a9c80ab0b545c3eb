-- neap import: what neap export writes, and files of others, into a store that nobody runs on or a host's; what is known is passed over, rules are not run.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = [[
local plugin = ...
plugin:serve { "POST /v", body = { list = { "array", items = { "any" } } }, handler = function(req)
  for _, r in ipairs(req.body.list) do plugin:emit(r) end
  return 204
end }]]
local LOW = [[
local plugin = ...
plugin:on({ metric = "glucose", below = 4 }, function(r)
  plugin:send("desk", { device = r.device, value = r.value, before = #plugin:history(r.device, "glucose", { last = "24h", limit = 1000 }) })
end)]]
local DESK = [[
local plugin = ...
plugin:deliver { handler = function() return { status = 200 } end }]]
local CONFIG = [[lanes = 2, destinations = { desk = { "desk" } }]]
local function plugins() return { ["vendors/v.lua"] = VENDOR, ["rules/low.lua"] = LOW, ["destinations/desk.lua"] = DESK } end

local T = 1735689600000 -- 2025-01-01
local function lines(n, change)
  local list = {}
  for i = 1, n do
    local r = { vendor = "v", device = "d" .. i % 7, metric = "glucose", value = 3.5, unit = "mmol/L", at = T + i * 1000 }
    for k, v in pairs(change and change(i) or {}) do r[k] = v end
    list[i] = json.encode(r)
  end
  return table.concat(list, "\n") .. "\n"
end

-- What it prints on standard output, its exit code, and what it prints on standard error.
local function neap(folder, input, ...)
  bed.write(folder .. "/input", input or "")
  local out, code = bed.run { "sh", "-c", 'd=$0; exec "$@" <"$d/input" 2>"$d/told"', folder, bed.neap, ... }
  return out, code, bed.read(folder .. "/told")
end
local function export(store, ...) return bed.run { "sh", "-c", '"$@" 2>/dev/null', "-", bed.neap, "export", "--store", store, ... } end

describe("neap import", function()
  describe("where no host runs", function()
    local folder, store
    before_each(function()
      folder = bed.folder()
      store = folder .. "/neap.db"
    end)
    local function import(input, ...) return neap(folder, input, "import", "-", "--store", store, ...) end

    it("takes what neap export writes, so that the copy's export is the same byte for byte", function()
      local host = bed.host { plugins = plugins(), config = CONFIG }
      local list, trends, qualities = {}, { "flat", "rising_slowly", "falling_slowly", "rising_fast", "falling_fast" }, { "valid", "warmup", "invalid" }
      local values = { 5.6, 6, -0.0, 1e300, 9007199254740993, true, false, "12", "say \"x\",\nand so\r\n", "", "Zähler 😀", 0.1 + 0.2 }
      for i = 1, 600 do
        list[i] = { device = "d,\"" .. i % 5, metric = i % 3 == 0 and "note" or "glucose", value = values[i % #values + 1], at = T + i * 60001,
          unit = i % 2 == 0 and "mmol/L" or nil, key = i % 4 == 0 and "k\\" .. i or nil, serial = i % 5 == 0 and i or nil, interval = i % 7 == 0 and 300.5 or nil,
          trend = trends[i % 8], quality = qualities[i % 4], extra = i % 6 == 0 and { raw = { 1, "ü", {} }, n = 1.0 } or nil }
      end
      assert.equal(204, (host:request("POST", "/v", { list = list })))
      assert.same({ "exit", 0 }, { host:stop() })
      for _, format in ipairs { "ndjson", "csv" } do
        local text = export(host.store, "--format", format)
        local _, count = text:gsub("\n", "\n")
        assert.is_true(count >= 600)
        local copy = folder .. "/" .. format .. ".db"
        local out, code, told = neap(folder, text, "import", "-", "--store", copy, "--format", format)
        assert.same({ "600 readings: 600 new, 0 known\n", 0, "" }, { out, code, told })
        assert.equal(text, (export(copy, "--format", format)))
        assert.equal("600 readings: 0 new, 600 known\n", (neap(folder, text, "import", "-", "--store", copy, "--format", format)))
      end
    end)

    it("into a new store, on which a host then starts: no rule is run on what was imported, each is on what comes", function()
      local out, code = import(lines(1500))
      assert.same({ "1500 readings: 1500 new, 0 known\n", 0 }, { out, code })
      local host = bed.host { folder = folder, plugins = plugins(), config = CONFIG }
      assert.equal(204, (host:request("POST", "/v", { list = { { device = "d1", metric = "glucose", value = 3.1, unit = "mmol/L", at = T + 2000000 } } })))
      bed.wait("the message of what came now", function() return host:sql "select count(*) n from delivered"[1].n == 1 end)
      local sent = host:sql "select body, reading from delivered"[1]
      assert.same({ "d1", 3.1, 1501 }, { json.decode(sent.body).device, json.decode(sent.body).value, sent.reading })
      assert.equal(216, json.decode(sent.body).before) -- its history has the imported ones
      local told = bed.run { bed.neap, "explain", "r7", "--store", store }
      assert.matches("no rule was run on it: it was imported, or derived by a replay", told, 1, true)
      assert.is_nil(told:find("low:", 1, true))
      local story = host:command("explain", "r7")[1]
      assert.is_true(story.readings[1].quiet)
      -- no held entry, and the cursors are past it
      bed.wait("the cursors", function() return host:sql "select count(*) n from cursors where seq >= 1494"[1].n == 64 end)
      assert.equal(0, host:sql "select count(*) n from held"[1].n)
      assert.same({ "exit", 0 }, { host:stop() })
    end)

    it("of CSV of others: columns in any order, times in a zone, texts by a column of their types", function()
      local out, code, told = import("\239\187\191value,metric,device,at,type,key\r\n5.6,glucose,d1,2025-01-01T08:00:00,number,\r\n12,note,d1,2025-07-01T08:00:00,text,k\r\n"
        .. "\r\ntrue,open,d1,1735689600000,,\r\n\"a, \"\"b\"\"\n\",note,d1,2025-01-01T08:00:00Z,text,\r\n", "--format", "csv", "--vendor", "sinocare", "--connection", "ward-3",
        "--zone", "Europe/Berlin")
      assert.same({ "4 readings: 4 new, 0 known\n", 0, "" }, { out, code, told })
      local list = {}
      for line in export(store):gmatch "[^\n]+" do
        local r = json.decode(line)
        assert.same({ "sinocare", "ward-3" }, { r.vendor, r.connection })
        list[#list + 1] = { r.value, r.at }
      end
      assert.same({ { 5.6, 1735714800000 }, { "12", 1751349600000 }, { true, 1735689600000 }, { "a, \"b\"\n", 1735718400000 } }, list)
    end)

    it("says what it cannot take with line, column and field; of that batch nothing is committed", function()
      local head, row = "device,metric,value,at,vendor\n", "d,m,1,1735689600000,v\n"
      for _, c in ipairs {
        { head .. row .. "d,m,ok,1735689600000,v\n", "3:5: value: ok is neither a number nor true or false; a text stands in quotes, as in JSON, or has \"text\" in a column type" },
        { head .. row .. "d,m,\"5,6\",1735689600000,v\n", "3:5: value: 5,6 is neither a number" },
        { head .. "d,m,1,1735689600,v\n", "2:7: at: 1735689600 ms after 1970 is before 1974: are these seconds?" },
        { head .. "d,m,1,2025-01-01 08:00:00,v\n", "2:7: at: not a time" },
        { head .. "d,m,1,2025-01-01T08:00:00,v\n", "2:7: at: not a time that is known: it has no offset (Z or +hh:mm), and no --zone says where it is meant" },
        { head .. "d,m,1,2025-02-30T08:00:00Z,v\n", "2:7: at: not a time: no day 30 in 2025-02" },
        { head .. ",m,1,1735689600000,v\n", "2:1: device: it is missing" },
        { head .. row .. "d,m,1\n", "3:6: there are fewer fields than columns" },
        { head .. "d,m,1,1735689600000,v,x\n", "2:23: there are more fields than columns" },
        { head .. "d,\"m\n2\"x,1,1735689600000,v\n", "3:3: after a closing quote only a comma can stand" },
        { head .. row .. "d,m,1,1735689600000,v", "3:1: the file ends within a line: is all of it there?" },
        { head .. row .. "\"d,m,1,1735689600000,v\n", "3:1: the file ends within quotes" },
        { head .. "Z\xe4hler,m,1,1735689600000,v\n", "2:1: device: byte 2 of it is not UTF-8" },
        { "device,metric,valu,at,vendor\n", "1:15: a reading has no \"valu\", did you mean \"value\"?" },
        { "device,metric,value,vendor\n", "1:1: there is no column at" },
        { "device,metric,value,at\n", "1:1: whose devices are these? There is no column vendor, and no --vendor" },
        { "device;metric;value;at\n", "1:1: columns are separated by commas, not by semicolons" },
        { "", ": there is nothing in it: the first line names the columns" },
      } do
        local out, code, told = import(c[1], "--format", "csv")
        assert.same({ "", 1 }, { out, code }, c[2])
        assert.equal("neap import: -" .. (c[2]:match "^:" and "" or ":") .. c[2], told:sub(1, #("neap import: -:" .. c[2]) - (c[2]:match "^:" and 1 or 0)))
      end
      local good = '{"vendor":"v","device":"d","metric":"m","value":1,"at":1735689600000}\n'
      for _, c in ipairs {
        { good .. '{"vendor":"v","devise":"d"}\n', "-:2:15: a reading has no \"devise\", did you mean \"device\"?" },
        { good .. '{"vendor":"v",\n', "-:2:15: not JSON: unexpected end" },
        { good:gsub("1,", "null,"), "-:1:1: value: it is missing" },
        { good:gsub("1735689600000", "1735689600000,\"received\":4891363200000"), "-:1:81: received: it is still to come" },
        { (good:gsub('"vendor":"v",', "")), "-:1:1: vendor: whose device is it? It is missing, here and on the command line (--vendor)" },
      } do
        local out, code, told = import(c[1])
        assert.same({ "", 1, "neap import: " .. c[2] .. "\n" }, { out, code, told })
      end
      assert.equal("", (export(store)))
      local out, code = import(lines(2500, function(i) return i == 2400 and { trend = "up" } or {} end), "--json")
      local told = json.decode(out)
      assert.same({ 1, 2400, "trend", 2000, 0, false }, { code, told.line, told.field, told.new, told.bad, told.rules })
      assert.matches("-:2400:%d+: trend: expected one of flat, .*, got \"up\"", told.error)
      assert.equal(2000, bed.sql(store, "select count(*) n from readings")[1].n)
    end)

    it("puts aside what it cannot take where it is told to, as a file that can be mended and imported", function()
      local bad = folder .. "/bad.csv"
      local text = "device,metric,value,at,vendor\nd,m,1,1735689600000,v\nd,m,\"x\ny\",1735689601000,v\nd,m,2\"3,1735689602000,v\nd,m,3,1735689603000,v\n"
      local out, code, told = import(text, "--format", "csv", "--skip-bad", bad)
      assert.same({ "2 readings: 2 new, 0 known; 2 lines passed over, in " .. bad .. " now\n", 1 }, { out, code })
      assert.matches("-:3:5: value: .*-:5:6: a quote inside of a field", told)
      assert.equal("device,metric,value,at,vendor\r\nd,m,\"x\ny\",1735689601000,v\r\nd,m,2\"3,1735689602000,v\r\n", bed.read(bad))
      bed.write(folder .. "/mended.csv", (bed.read(bad):gsub('"x\ny"', "7"):gsub('2"3', "8")))
      assert.equal("2 readings: 2 new, 0 known\n", (neap(folder, "", "import", folder .. "/mended.csv", "--store", store)))
      out, code, told = import(text, "--format", "csv", "--skip-bad", bad)
      assert.same({ "", 1, "neap import: " .. bad .. " is there already: give another name\n" }, { out, code, told })
      os.remove(bad)
      assert.equal(0, select(2, import("", "--skip-bad", bad)))
      assert.is_nil(io.open(bad)) -- nothing was put there
      assert.equal(1, select(2, import(text, "--format", "csv", "--skip-bad", "/dev/full")))
    end)

    it("takes times of receipt that the file has, but for a run of rules over them", function()
      local line = lines(1, function() return { received = T + 5000 } end)
      import(line)
      import((line:gsub('"d1"', '"d2"')), "--rules")
      local rows = bed.sql(store, "select received, traits & 64 as quiet from reading_rows order by seq")
      assert.same({ T + 5000, 64 }, { rows[1].received, rows[1].quiet })
      assert.is_true(rows[2].received > T + 86400000)
      assert.equal(0, rows[2].quiet)
    end)

    it("takes derived readings as such; rules that are run derive none of them a second time", function()
      local DOUBLE = [[
local plugin = ...
plugin:derives "double"
plugin:on({ metric = "glucose", derived = false }, function(r) plugin:emit { metric = "double", value = r.value * 2 } end)]]
      local files = plugins()
      files["rules/double.lua"] = DOUBLE
      local host = bed.host { plugins = files, config = CONFIG }
      local list = {}
      for i = 1, 20 do list[i] = { device = "d" .. i % 3, metric = "glucose", value = i, at = T + i } end
      assert.equal(204, (host:request("POST", "/v", { list = list })))
      bed.wait("what is derived", function() return host:sql "select count(*) n from readings"[1].n == 40 end)
      assert.same({ "exit", 0 }, { host:stop() })
      local text = export(host.store)
      assert.equal(20, select(2, text:gsub('"depth":1', "")))
      assert.equal("40 readings: 40 new, 0 known\n", (import(text)))
      assert.equal(text, (export(store)))
      local second = bed.host { plugins = files, config = CONFIG }
      assert.equal("40 readings: 40 new, 0 known\n", (neap(folder, text, "import", "-", "--store", second.store, "--rules")))
      bed.wait("rules", function() return second:sql "select count(*) n from delivered"[1].n == 3 end)
      assert.equal(204, (second:request("POST", "/v", { list = { { device = "d1", metric = "glucose", value = 9, at = T + 90 } } })))
      bed.wait("the last one's", function() return second:sql "select count(*) n from readings"[1].n == 42 end)
      assert.equal(21, second:sql "select count(*) n from readings where depth = 1"[1].n)
      assert.same({ "exit", 0 }, { second:stop() })
    end)

    it("says what is wrong with the command line", function()
      for _, c in ipairs {
        { {}, 'neap import: from which file? - is standard input: neap help import\n', 2 },
        { { "a", "b" }, "neap import: too many arguments: neap help import\n", 2 },
        { { "-", "--format", "xml" }, 'neap import: --format: expected ndjson or csv, got "xml"\n', 2 },
        { { "-", "--zone", "Nowhere" }, "neap import: zone 'Nowhere': there is none of this name\n", 1 },
        { { folder }, "neap import: " .. folder .. ": Is a directory\n", 1 },
        { { folder .. "/none" }, "neap import: " .. folder .. "/none: No such file or directory\n", 1 },
      } do
        local _, code, told = neap(folder, "", "import", "--store", store, table.unpack(c[1]))
        assert.same({ c[2], c[3] }, { told, code })
      end
      bed.write(folder .. "/other.db", "no store")
      local out = neap(folder, "", "import", "-", "--store", folder .. "/other.db", "--json")
      assert.matches("other.db is not a neap store", json.decode(out).error, 1, true)
    end)
  end)

  describe("where a host runs", function()
    local host
    before_each(function() host = bed.host { plugins = plugins(), config = CONFIG } end)
    after_each(function() host:stop(9) end)
    local function import(input, ...) return neap(host.folder, input, "import", "-", "--store", host.store, ...) end
    local function count() return host:sql "select count(*) n from readings"[1].n end

    it("brings it there; twice is once; no rule is run on it", function()
      assert.same({ "2500 readings: 2500 new, 0 known\n", 0, "" }, { import(lines(2500)) })
      assert.same({ "2600 readings: 100 new, 2500 known\n", 0, "" }, { import(lines(2600)) })
      host:wait_text "readings were imported"
      local out = import(lines(1, function() return { value = 3, at = T } end), "--json")
      assert.same({ new = 1, known = 0, too_old = 0, bad = 0, rules = false }, json.decode(out))
      assert.equal(204, (host:request("POST", "/v", { list = { { device = "d1", metric = "glucose", value = 2, at = T + 9000000 } } })))
      bed.wait("the message", function() return host:sql "select count(*) n from delivered"[1].n > 0 end)
      assert.same({ { reading = 2602 } }, host:sql "select reading from delivered")
      assert.equal(2602, count())
      assert.same({ "exit", 0 }, { host:stop() })
    end)

    it("runs rules over it where that is asked for, as if it came now, and only once", function()
      local before = os.time() * 1000
      assert.equal("300 readings: 300 new, 0 known\n", (import(lines(300, function(i) return { value = i % 3 == 0 and 3.5 or 5, received = T } end), "--rules")))
      bed.wait("100 messages", function() return host:sql "select count(*) n from delivered"[1].n == 100 end)
      assert.equal("300 readings: 0 new, 300 known\n", (import(lines(300), "--rules")))
      bed.wait("the cursors", function() return host:sql "select count(*) n from cursors where seq >= 294"[1].n == 64 end)
      assert.equal(100, host:sql "select count(*) n from delivered"[1].n)
      assert.is_true(host:sql "select min(received) n from readings"[1].n >= before)
      -- those that were imported as history stay so
      import(lines(400))
      import(lines(400), "--rules")
      assert.equal(204, (host:request("POST", "/v", { list = { { device = "d1", metric = "glucose", value = 2, at = T + 9000000 } } })))
      bed.wait("the live one's", function() return host:sql "select count(*) n from delivered where reading = 401"[1].n == 1 end)
      assert.equal(101, host:sql "select count(*) n from delivered"[1].n)
    end)

    it("takes a line at a time from who writes slowly", function()
      local slow = bed.start { "sh", "-c", '{ cat "$0/one"; while [ ! -e "$0/go" ]; do sleep 0.05; done; cat "$0/two"; } | "$1" import - --store "$2"', host.folder, bed.neap,
        host.store, (bed.write(host.folder .. "/one", lines(3)) or bed.write(host.folder .. "/two", lines(5)) or nil) }
      bed.wait("the first three", function() return count() == 3 end)
      bed.write(host.folder .. "/go", "")
      assert.same({ "exit", 0 }, { slow:wait() })
      assert.matches("8 readings: 5 new, 3 known", slow:read(), 1, true)
    end)

    it("is one at a time, and goes on where it was broken off by the host's stop", function()
      local held = bed.start { "sh", "-c", '{ cat "$0/one"; while [ ! -e "$0/go" ]; do sleep 0.05; done; } | "$1" import - --store "$2"', host.folder, bed.neap, host.store,
        (bed.write(host.folder .. "/one", lines(3)) or nil) }
      bed.wait("the first three", function() return count() == 3 end)
      local _, code, told = import(lines(10))
      assert.same({ 1, "neap import: another import is under way\n" }, { code, told })
      assert.same({ "exit", 0 }, { host:stop() })
      bed.write(host.folder .. "/go", "")
      held:wait()
      -- it has had an answer for all that it sent
      assert.matches("3 readings: 3 new, 0 known", held:read(), 1, true)
      host:begin()
      assert.equal("10 readings: 7 new, 3 known\n", (import(lines(10))))
    end)

    it("loses and doubles nothing over kill -9 of the host and of itself", function()
      local n = 60000
      bed.write(host.folder .. "/many", lines(n))
      for turn = 1, 6 do
        local had = count()
        local p = bed.start { bed.neap, "import", host.folder .. "/many", "--store", host.store }
        -- more than what the one before may have had under way: so this one is with the host
        bed.wait("some of it", function() return count() > had + 1000 or p:read() and p.ended end)
        if turn % 2 == 0 then
          host:restart(9)
          local _, code = p:wait()
          if not p.output:find(n .. " readings") then assert.equal(1, code, p.output) end
        else
          p:stop(9)
        end
      end
      local out = neap(host.folder, "", "import", host.folder .. "/many", "--store", host.store)
      assert.matches("^" .. n .. " readings: %d+ new, %d+ known\n$", out)
      assert.equal(n, count())
      assert.equal(n, host:sql "select count(distinct at) n from readings"[1].n)
      assert.equal(0, host:sql "select count(*) n from outbox"[1].n + host:sql "select count(*) n from delivered"[1].n)
    end)

    it("bears with clients that send what is none, and with one that never reads", function()
      local unix = require "socket.unix"
      local function open()
        local s = assert((unix.stream or unix)())
        assert(s:connect(host.store .. ".sock"))
        s:settimeout(30)
        s:send '{"command":"import"}\n'
        return s, s:receive "*l"
      end
      local function begin()
        return bed.wait("the import before to end", function()
          local s, said = open()
          if said == '{"importing":true}' then return s end
          assert.matches("another import is under way", said, 1, true)
          s:close()
        end)
      end
      for sent, answer in pairs { ["abc\n"] = "expected the length of a batch", ["99999999999999\n"] = "expected the length of a batch", ["\n"] = "expected the length of a batch",
        ['4\n{"a"'] = "a batch ends within a line", ["3\n{}\n"] = "device: it is missing", ["4\nabc\n"] = "not JSON" } do
        local s = begin()
        s:send(sent)
        assert.matches(answer, s:receive "*l", 1, true)
        assert.is_nil(s:receive "*l")
        s:close()
      end
      assert.equal(0, count())
      local s = begin()
      s:settimeout(0.5)
      local i = 0
      repeat
        i = i + 1
        local line = lines(1, function() return { at = T + i } end)
      until not s:send(#line .. "\n" .. line)
      assert.is_true(i > 10)
      assert.same({ "exit", 0 }, { host:stop() })
      s:close()
    end)

    it("keeps what comes in now from nothing: an alert does not wait for the import's end", function()
      local n = 100000
      bed.write(host.folder .. "/many", lines(n, function(i) return { value = 5, device = "d" .. i % 200 } end))
      local p = bed.start { bed.neap, "import", host.folder .. "/many", "--store", host.store, "--rules" }
      bed.wait("its first batches", function() return count() > 2000 end)
      assert.equal(204, (host:request("POST", "/v", { list = { { device = "d1", metric = "glucose", value = 2, at = T + 900000000 } } })))
      bed.wait("the alert", function() return host:sql "select count(*) n from delivered"[1].n == 1 end)
      assert.is_true(count() < n)
      p:stop(9)
    end)

  end)

  it("respects what has been removed of a series: what may have been there is not taken again", function()
    local host = bed.host { plugins = plugins(), config = CONFIG .. [[, keep = { readings = "1h" }]] }
    local function import(input) return neap(host.folder, input, "import", "-", "--store", host.store) end
    local now = os.time() * 1000
    -- they are past their age in a moment, when the cursors are past them
    assert.equal("10 readings: 10 new, 0 known\n", (import(lines(10, function(i) return { device = "d", at = now - 7200000 + i, received = now - 3595000 } end))))
    -- all but the newest of the series go
    bed.wait("what is past its age to go", function() return host:sql "select count(*) n from readings"[1].n == 1 end)
    assert.equal("4 readings: 1 new, 0 known, 3 older than what is kept\n", (import(lines(4, function(i) return { device = "d", at = i < 4 and now - 7300000 + i or now - 60000 } end))))
    assert.equal(1, host:sql "select count(*) n from events where type = 'too_old'"[1].n)
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
