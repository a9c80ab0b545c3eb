-- Backups of a store that is pruned, imported into and replayed from at the same time: each is the store as it was at one moment, and a host goes on from it.
local bed = require "bed"

local LINES, OLD, TEMPS = 4000, 2000, 100

local RULE = [[
local plugin = ...
plugin:on({ metric = "temp" }, function(r) plugin:send("desk", { value = r.value }) end)]]

describe("neap backup while much goes on", function()
  local host, receiver
  local function plugins()
    return { ["vendors/v.lua"] = bed.EMITTER, ["rules/hot.lua"] = RULE, ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") }
  end
  local function config()
    return ([[lanes = 2, keep = { requests = { size = "16KiB" }, readings = "30d" }, destinations = { desk = { "webhook", url = %q } }]]):format(receiver.url)
  end
  local function number(store, query) return bed.sql(store, query)[1].n end
  local function started(...) return bed.start { ... } end
  local function ended(p)
    bed.wait(p.name .. " to end", function()
      receiver:poll()
      p:read()
      return p.ended
    end, 120)
    p:wait()
    assert.equal(0, p.code, p.output)
  end

  setup(function()
    receiver = bed.receiver()
    host = bed.host { plugins = plugins(), config = config() }
    local list = {}
    for i = 1, TEMPS do list[i] = { device = "T" .. i % 5, metric = "temp", value = i, at = i * 1000 } end
    assert.equal(204, (host:request("POST", "/v", list)))
    bed.wait("the messages", function() receiver:poll() return host:sql("select count(*) n from delivered")[1].n == TEMPS end)
    -- Of two lines one is of a reading that was received long ago, which goes at once but for the newest.
    local now, lines = os.time() * 1000, {}
    for i = 1, LINES do
      lines[#lines + 1] = ('{"vendor":"v","device":"K","metric":"m","value":%d,"at":%d,"received":%d}'):format(i, now - 86400000 + i, now)
      if i % (LINES // OLD) == 0 then
        lines[#lines + 1] = ('{"vendor":"v","device":"O","metric":"m","value":%d,"at":%d,"received":%d}'):format(i, i, i + 1)
      end
    end
    bed.write(host.folder .. "/lines.ndjson", table.concat(lines, "\n") .. "\n")
  end)
  teardown(function()
    host:stop()
    receiver:close()
  end)

  local copies = {}

  -- What has to be so at any one moment.
  local function check(copy)
    assert.equal("ok", (bed.run { "sqlite3", "-readonly", copy, "pragma integrity_check" }):match "%S+")
    local k = bed.sql(copy, "select count(*) n, coalesce(max(value), 0) last from readings where device = 'K'")[1]
    assert.equal(k.last, k.n) -- lines are taken in their order, some hundred at a time
    local sent = number(copy, "select coalesce(max(json_extract(value, '$.sent')), 0) n from kv where space = 'neap.replay' and key != 'number'")
    assert.equal(sent, number(copy, "select (select count(*) from outbox where replayed > 0) + (select count(*) from delivered where replayed > 0) n"))
    local bytes = bed.sql(copy, "select reading_bytes r, request_bytes q from counters")[1]
    assert.equal(bytes.r, number(copy, "select sum(60 + coalesce(length(key), 0) + coalesce(length(extra), 0)) n from reading_rows"))
    assert.equal(bytes.q, number(copy, "select sum(150 + length(target) + length(cast(headers as blob)) + length(cast(body as blob)) + coalesce(length(error), 0)) n from inbox"))
  end

  it("copies the store as it is at one moment", function()
    local enough = host.folder .. "/enough"
    local pusher = started("sh", "-c", 'while [ ! -e "$0" ]; do curl -s -o /dev/null -d "[{\\"device\\":\\"p\\",\\"metric\\":\\"m\\",\\"value\\":1,\\"at\\":$(date +%s%N | cut -c1-13)}]" "$1"; sleep 0.05; done',
      enough, host.url .. "/v")
    local replay = started(bed.neap, "replay", "--store", host.store, "--rule", "hot", "--send", "--again", "--rate", "10/s")
    local import = started(bed.neap, "import", host.folder .. "/lines.ndjson", "--store", host.store)
    bed.wait("all three", function()
      receiver:poll()
      return number(host.store, "select count(*) n from delivered where replayed > 0") > 0 and number(host.store, "select count(*) n from readings where device = 'K'") > 0
        and number(host.store, "select min(id) n from inbox") > 1
    end)
    for i = 1, 4 do
      copies[i] = ("%s/copy-%d.db"):format(host.folder, i)
      ended(started(bed.neap, "backup", copies[i], "--store", host.store))
      check(copies[i])
    end
    bed.write(enough, "")
    ended(pusher)
    ended(import)
    replay:stop(2)
    check(host.store)
  end)

  it("and a host goes on from there", function()
    assert.equal("running", bed.sql(copies[1], "select json_extract(value, '$.state') s from kv where space = 'neap.replay' and key != 'number'")[1].s)
    local folder = bed.folder()
    os.rename(copies[1], folder .. "/neap.db")
    bed.run { "cp", "-p", host.store .. ".key", folder .. "/neap.db.key" }
    host:stop()
    host = bed.host { folder = folder, plugins = plugins(), config = config() }
    ended(started(bed.neap, "import", (copies[2]:gsub("copy%-2.db$", "lines.ndjson")), "--store", host.store))
    bed.wait("the replay's end", function()
      receiver:poll()
      local row = host:command("replay", "show", "1")[1]
      return row.state == "done" and host:sql "select count(*) n from outbox"[1].n == 0
    end, 120)
    assert.equal(TEMPS, number(host.store, "select count(distinct id) n from delivered where replayed > 0"))
    assert.equal(TEMPS, number(host.store, "select count(*) n from delivered where replayed > 0"))
    check(host.store)
    assert.equal(LINES, number(host.store, "select count(*) n from readings where device = 'K'"))
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
