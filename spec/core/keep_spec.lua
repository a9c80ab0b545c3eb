-- Taking a store's content elsewhere: a backup of a running host, and readings as NDJSON and CSV.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = [[
local plugin = ...
plugin:serve { "POST /v", body = { list = { "array", items = { "any" } } }, handler = function(req)
  for _, r in ipairs(req.body.list) do plugin:emit(r) end
  return 204
end }]]
-- Of every type of value, and what CSV has to quote.
local READINGS = {
  { device = "d1", metric = "glucose", value = 5.6, unit = "mmol/L", at = 1772352000000, trend = "falling_fast", interval = 300 },
  { device = "d1", metric = "glucose", value = 6, unit = "mmol/L", at = 1772352300123, quality = "warmup", serial = 2 },
  { device = "d,2", metric = "note", value = "say \"12\"\nand, so", at = 1772352600000, key = "k1" },
  { device = "d,2", metric = "text", value = "12", at = 1772352600000, extra = { a = { 1, "x" } } },
  { device = "Zähler 3", metric = "open", value = true, at = 1772352900000 },
  { device = "Zähler 3", metric = "level", value = 9007199254740993, at = 1772352900000 },
}

-- RFC 4180
local function parse_csv(text)
  local rows, row, at = {}, {}, 1
  while at <= #text do
    local cell, rest
    if text:sub(at, at) == '"' then
      local stop = at + 1
      while true do
        stop = text:find('"', stop, true)
        if text:sub(stop + 1, stop + 1) ~= '"' then break end
        stop = stop + 2
      end
      cell, rest = text:sub(at + 1, stop - 1):gsub('""', '"'), stop + 1
    else
      rest = text:find("[,\r]", at)
      cell = text:sub(at, rest - 1)
    end
    row[#row + 1] = cell
    if text:sub(rest, rest) == "," then
      at = rest + 1
    else
      assert.equal("\r\n", text:sub(rest, rest + 1))
      rows[#rows + 1], row, at = row, {}, rest + 2
    end
  end
  return rows
end

describe("what is stored can be taken elsewhere:", function()
  local host
  setup(function()
    host = bed.host { plugins = { ["vendors/v.lua"] = VENDOR } }
    assert.equal(204, (host:request("POST", "/v", { list = READINGS })))
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function neap(...)
    local words = { bed.neap, ... }
    table.move({ "--store", host.store }, 1, 2, #words + 1, words)
    return bed.run(words)
  end
  local function exported(...)
    local out, code = bed.run { "sh", "-c", '"$@" 2>"$0"', host.folder .. "/told", bed.neap, "export", "--store", host.store, ... }
    assert.equal(0, code, out)
    return out, bed.read(host.folder .. "/told")
  end

  describe("neap export", function()
    it("writes each reading as a line of JSON that loses nothing", function()
      local out, told = exported()
      local n = 0
      for line in out:gmatch "[^\n]+" do
        n = n + 1
        local r, expected = json.decode(line), READINGS[n]
        assert.equal("v", r.vendor)
        assert.equal("v", r.connection)
        assert.equal(expected.quality or "valid", r.quality)
        for k, v in pairs(expected) do assert.same(k == "interval" and v * 1000 or v, r[k]) end
        assert.equal(math.type(expected.value), math.type(r.value))
      end
      assert.equal(#READINGS, n)
      assert.equal("6 readings\n", told)
    end)

    it("writes CSV that says the same", function()
      local rows = parse_csv((exported("--format", "csv")))
      local columns = table.remove(rows, 1)
      assert.same({ "at", "vendor", "connection", "device", "metric", "value", "unit", "received", "key", "serial", "interval", "trend", "quality",
        "extra", "depth" }, columns)
      assert.equal(#READINGS, #rows)
      for i, row in ipairs(rows) do
        local r, expected = {}, READINGS[i]
        for k, name in ipairs(columns) do r[name] = row[k] end
        assert.same(expected.value, json.decode("[" .. r.value .. "]")[1])
        assert.equal(expected.device, r.device)
        assert.equal(tostring(expected.serial or ""), r.serial)
        assert.equal(expected.trend or "", r.trend)
        if expected.extra then assert.same(expected.extra, json.decode(r.extra)) end
      end
      assert.equal("2026-03-01T08:00:00Z", rows[1][1])
      assert.equal("2026-03-01T08:05:00.123Z", rows[2][1])
    end)

    it("takes those of a device, a metric, a time", function()
      local function keys(...)
        local all = {}
        for line in exported(...):gmatch "[^\n]+" do all[#all + 1] = json.decode(line).metric end
        return table.concat(all, " ")
      end
      assert.equal("glucose glucose", keys("--device", "d1"))
      assert.equal("note text", keys("--device", "d,*"))
      assert.equal("glucose", keys("--metric", "glucose", "--since", "2026-03-01T08:00:00.001Z"))
      assert.equal("glucose", keys("--until", "2026-03-01T09:00:00+01:00"))
      assert.equal("glucose glucose", keys("--device", "d1", "--since", "20000d"))
      assert.equal("", keys("--device", "d1", "--until", "20000d"))
      assert.equal("", keys("--vendor", "w"))
    end)

    it("says what it cannot do", function()
      assert.same({ 'neap export: --format: expected ndjson or csv, got "xml"\n', 2 }, { neap("export", "--format", "xml") })
      assert.same({ 'neap export: --since: expected a time such as 2026-03-01T08:00:00Z, or how long ago, such as 24h, got "monday"\n', 2 },
        { neap("export", "--since", "monday") })
      local out, code = bed.run { bed.neap, "export", "--store", host.folder .. "/none.db" }
      assert.equal(1, code)
      assert.matches("none.db", out, 1, true)
      assert.same({ "", 1 }, { bed.run { "sh", "-c", '"$0" export --store "$1" 2>/dev/null >/dev/full', bed.neap, host.store } })
    end)
  end)

  describe("neap backup", function()
    it("copies a store that is being written to, as it is at one moment; a host starts on the copy", function()
      local copy = host.folder .. "/copy.db"
      local pusher = bed.start({ "sh", "-c", 'while [ ! -e "$0" ]; do curl -s -o /dev/null -H "content-type: application/json" -d "{\\"list\\":[{\\"device\\":\\"p\\",'
        .. '\\"metric\\":\\"m\\",\\"value\\":1,\\"at\\":$(date +%s%N | cut -c1-13)}]}" "$1"; done', host.folder .. "/enough", host.url .. "/v" })
      bed.wait("pushes", function() return host:sql("select count(*) n from readings where device = 'p'")[1].n > 5 end)
      local out, code = neap("backup", copy)
      bed.write(host.folder .. "/enough", "")
      pusher:wait()
      assert.equal(0, code, out)
      assert.matches("^" .. copy:gsub("%p", "%%%0") .. ": %d+%.%d MiB, checked%.", out)
      assert.equal("600", (bed.run { "stat", "-c", "%a", copy }):match "%d+")
      local n = bed.sql(copy, "select count(*) n from readings")[1].n
      assert.is_true(n > #READINGS and n <= host:sql("select count(*) n from readings")[1].n)
      assert.equal(n, bed.sql(copy, "select max(seq) n from readings")[1].n)
      local folder = bed.folder()
      os.rename(copy, folder .. "/neap.db")
      bed.run { "cp", "-p", host.store .. ".key", folder .. "/neap.db.key" }
      local second = bed.host { folder = folder, plugins = { ["vendors/v.lua"] = VENDOR } }
      assert.equal(204, (second:request("POST", "/v", { list = READINGS })))
      assert.equal(n, second:sql("select count(*) n from readings")[1].n) -- it knows them all
      assert.same({ "exit", 0 }, { second:stop() })
    end)

    it("writes over nothing, and leaves nothing half done", function()
      local there = host.folder .. "/there.db"
      bed.write(there, "precious")
      local out, code = neap("backup", there)
      assert.same({ there .. " is there already: give another name\n", 1 }, { out, code })
      assert.equal("precious", bed.read(there))
      out, code = neap("backup", host.folder .. "/no/where.db")
      assert.same({ host.folder .. "/no/where.db.part: No such file or directory\n", 1 }, { out, code })
      bed.write(host.folder .. "/other.db", "no store")
      out, code = bed.run { bed.neap, "backup", host.folder .. "/x.db", "--store", host.folder .. "/other.db", "--json" }
      assert.equal(1, code)
      assert.matches("other.db is not a neap store", json.decode(out).error, 1, true)
      assert.equal("", (bed.run { "sh", "-c", 'cd "$0"; ls | grep -e part -e x.db', host.folder }))
      assert.equal(2, select(2, neap "backup"))
    end)
  end)
end)
