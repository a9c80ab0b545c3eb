-- The last part of `make bench`: what a stored reading and a stored request take on disk, by table and index, beside what keeps the same elsewhere: a plain
-- SQLite table with the same columns, the same lines as NDJSON, and those packed by gzip. And what `neap import` costs. Usage: size.lua [READINGS [REQUESTS]]
package.path = "./spec/?.lua;./spec/bench/?.lua;/usr/share/lua/5.4/?.lua;" .. package.path
package.cpath = "/usr/lib/x86_64-linux-gnu/lua/5.4/?.so;/usr/lib/aarch64-linux-gnu/lua/5.4/?.so;" .. package.cpath
local bed = require "bed"

local READINGS, REQUESTS = tonumber(arg[1]) or 300000, tonumber(arg[2]) or 20000
local DEVICES, EVERY, START = 100, 300000, 1735689600000
local function say(...) print(string.format(...)) io.stdout:flush() end

local function run(command, ...)
  local out, code = bed.run { "sh", "-c", command, "size", ... }
  if code ~= 0 then error(command .. ":\n" .. out) end
  return out
end
local function bytes(path) return tonumber((run("stat -c %s \"$1\"", path))) end

-- CPU of a command, in seconds; what it prints is not shown.
local function cpu(command, ...)
  local out = run(command .. " >/dev/null && times", ...)
  local total = 0
  for minutes, seconds in out:match "\n(.-)\n?$":gmatch "(%d+)m([%d.]+)s" do total = total + minutes * 60 + seconds end
  return total
end

-- Readings as devices send them: each every 5 minutes, in the order in which they come.
local function write(path, kind)
  local f = assert(io.open(path, "w"))
  f:setvbuf("full", 1 << 20)
  local extra = kind == "extra" and ',"extra":{"cgmDay":8,"increMinute":3,"cgmStatus":"2","status":"0","visitId":"","inSerialId":""}' or ""
  for i = 0, READINGS - 1 do
    local d, k = i % DEVICES, i // DEVICES
    local at = START + k * EVERY + d * 2711
    local more = kind ~= "plain" and ('"key":"t-%d-%d","serial":%d,"interval":%d,'):format(d, k, k + 1, EVERY) or ""
    f:write(('{"vendor":"sinocare","connection":"ward-3","device":"SN-%04d","metric":"glucose","value":%.1f,"unit":"mmol/L","at":%d,"received":%d,%s"quality":"valid"%s}\n')
      :format(d, 4 + i * 7919 % 80 / 10, at, at + 1500, more, extra))
  end
  f:close()
end

-- Bytes of each table and index; nil where this sqlite3 cannot say.
local function parts(store)
  local ok, rows = pcall(bed.sql, store, "select name, sum(pgsize) as bytes from dbstat group by name order by 2 desc")
  if not ok then return nil end
  local by = {}
  for _, row in ipairs(rows) do by[row.name] = row.bytes end
  return by
end

-- What somebody would write who keeps readings in SQLite: the names in each row, one index for the time and one for the vendor's own id.
local PLAIN = [[CREATE TABLE readings(seq INTEGER PRIMARY KEY, at INTEGER, vendor TEXT, connection TEXT, device TEXT, metric TEXT, value REAL, unit TEXT, received INTEGER,
key TEXT, serial INTEGER, interval INTEGER, trend TEXT, quality TEXT, extra TEXT);
CREATE UNIQUE INDEX by_time ON readings(vendor, device, metric, at);
CREATE UNIQUE INDEX by_key ON readings(vendor, device, metric, key) WHERE key != '';
CREATE TABLE lines(line TEXT);
.mode ascii
.separator "\001" "\n"
.import %s lines
INSERT INTO readings(at, vendor, connection, device, metric, value, unit, received, key, serial, interval, trend, quality, extra) SELECT line ->> 'at', line ->> 'vendor',
line ->> 'connection', line ->> 'device', line ->> 'metric', line ->> 'value', line ->> 'unit', line ->> 'received', line ->> 'key', line ->> 'serial', line ->> 'interval',
line ->> 'trend', line ->> 'quality', line ->> 'extra' FROM lines;
DROP TABLE lines;
]]

local function plain_table(folder, lines)
  local path = folder .. "/plain.db"
  bed.write(folder .. "/plain.sql", PLAIN:format(lines))
  run('sqlite3 -batch "$1" <"$2"', path, folder .. "/plain.sql")
  -- without the room that the lines took
  return bed.sql(path, "select sum(pgsize) as n from dbstat where name in ('readings', 'by_time', 'by_key')")[1].n
end

local function readings(kind, label)
  local folder = bed.folder()
  local lines, store = folder .. "/lines.ndjson", folder .. "/neap.db"
  write(lines, kind)
  local seconds = cpu('"$1" import "$2" --store "$3"', bed.neap, lines, store)
  local size, by = bytes(store), parts(store)
  local n = bed.sql(store, "select count(*) as n from reading_rows")[1].n
  if n ~= READINGS then error(("%d of %d readings are in the store"):format(n, READINGS)) end
  local ok, plain = pcall(plain_table, folder, lines)
  run('gzip -k "$1"', lines)
  local function each(x) return x and ("%9.1f"):format(x / READINGS) or "        -" end
  local rows, time, keys = by and by.reading_rows, by and by.reading_time, by and by.reading_keys
  say("%-30s%s%s%s%s%s   %s%s%s%9.1f", label, each(size), each(rows), each(time), each(keys), each(by and size - rows - time - keys), each(ok and plain), each(bytes(lines)),
    each(bytes(lines .. ".gz")), seconds * 1e6 / READINGS)
  run('rm -rf "$1"', folder)
end

-- Requests as vendors send them, one reading each. They are pushed, for what is kept of one is made where it comes in.
local CLEAR = [[
local plugin = ...
plugin:serve { "POST /clear", handler = function() return 200, { code = 0 } end }]]
local function requests(path, label)
  local h = bed.host { plugins = { ["vendors/sinocare.lua"] = bed.read(bed.plugins .. "/vendors/sinocare.lua"), ["vendors/clear.lua"] = CLEAR }, config = "lanes = 2" }
  run('"$1" --url "$2" --count "$3" --seconds 120 --json', bed.tools .. "/pusher", h.url .. path, REQUESTS)
  h:stop()
  local by = parts(h.store)
  local row = bed.sql(h.store, "select count(*) as n, avg(length(cast(target as blob)) + length(headers) + length(body)) as content from inbox")[1]
  local index = by and (by.inbox_failed or 0)
  say("%-30s%9.1f%s%s   %9.1f", label, (by and by.inbox + index or 0) / row.n, by and ("%9.1f"):format(by.inbox / row.n) or "        -",
    by and ("%9.1f"):format(index / row.n) or "        -", row.content)
  run('rm -rf "$1"', h.folder)
end

say("\nsize on disk, bytes each; %d readings of %d devices", READINGS, DEVICES)
say("%-30s%9s%9s%9s%9s%9s   %9s%9s%9s%9s", "", "neap", "rows", "time", "keys", "rest", "table", "NDJSON", "gzip", "CPU, us")
readings("plain", "device, value, at")
readings("key", "and key, serial, interval")
readings("extra", "and 100 bytes of extra")
say("\n%d requests of 380 bytes", REQUESTS)
say("%-30s%9s%9s%9s   %9s", "", "neap", "rows", "failed", "content")
requests("/clear", "in clear")
requests("/sinocare/push", "encrypted, about a person")
os.exit(bed.stop_all() == 0 and 0 or 1)
