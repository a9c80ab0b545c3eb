-- Kill -9 under load, 20 times over: what was answered 0 is stored once, ruled on once, and told at least once with one id.
local bed = require "bed"
local json = require "neap.json"
local process = require "process"
local socket = require "socket"

local KILLS, PUSHES = 20, 2000 -- pushes at least

-- Counts every reading of a device in a durable counter, and tells of each low one with the counter's value.
local RULE = [[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "glucose" }, function(r)
  local n = (plugin.store:get(r.device) or 0) + 1
  plugin.store:put(r.device, n)
  if r.value < 3.9 then plugin:send(config.to, { reading = r.id, device = r.device, n = n }) end
end)
]]

local function lines_of(path)
  local list = {}
  for line in io.lines(path) do list[#list + 1] = line end
  return list
end

describe("kill -9 under load", function()
  local host, receiver, pusher, acked, report
  local seen = {} -- reading -> { ids, times }
  local disorder = 0

  local function one(query) return host:sql(query)[1].n end

  -- What came to the receiver: ids by reading; the first arrivals of one device have to come in order.
  local newest, taken = {}, 0
  local function take_in()
    local requests = receiver:poll()
    for i = taken + 1, #requests do
      local r = requests[i]
      local m, id = r.json, r.headers["webhook-id"]
      local known = seen[m.reading]
      if not known then
        known = { ids = {}, count = 0 }
        seen[m.reading] = known
        if m.reading < (newest[m.device] or 0) then disorder = disorder + 1 end
        newest[m.device] = m.reading
      end
      if not known.ids[id] then known.ids[id], known.count = true, known.count + 1 end
      requests[i] = true -- it is counted; its text need not stay
    end
    taken = #requests
  end

  setup(function()
    math.randomseed(4711)
    receiver = bed.receiver()
    host = bed.host {
      plugins = { ["vendors/sinocare.lua"] = bed.read(bed.plugins .. "/vendors/sinocare.lua"),
        ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua"), ["rules/count.lua"] = RULE },
      config = ([[connections = { { "sinocare", name = "ward" } }, rules = { { "count", to = "desk" } },
        destinations = { desk = { "webhook", url = "%s/alerts" } }, lanes = 2]]):format(receiver.url),
    }
    acked = host.folder .. "/acked"
    pusher = bed.start { bed.tools .. "/pusher", "--url", host.url .. "/sinocare/push", "--connections", "32", "--rate", "1500",
      "--devices", "40", "--low-every", "7", "--seconds", "600", "--prefix", "k", "--acked", acked, "--reconnect",
        "--duplicate-every", "13", "--json" }
    for _ = 1, KILLS do
      local moment = socket.gettime() + 0.05 + math.random() * 0.6 -- in the middle of whatever it does by then
      while socket.gettime() < moment do
        take_in()
        process.sleep(0.002)
      end
      host:restart(9)
    end
    local many = math.max(#lines_of(acked) + 500, PUSHES)
    bed.wait("pushes after the last restart", function()
      take_in()
      return #lines_of(acked) > many
    end, 120)
    process.kill(pusher.pid, 2)
    bed.wait("the pusher to end", function()
      take_in()
      pusher:read()
      return pusher.ended
    end, 60)
    pusher:wait()
    report = assert(json.decode(pusher.output))
    bed.wait("the rule to have met every reading", function()
      take_in()
      return one "select coalesce(sum(value), 0) n from kv where space = 'plugin:count'" >= one "select count(*) n from readings"
    end, 60)
    bed.wait("the outbox to drain", function()
      take_in()
      return one "select count(*) n from outbox" == 0
    end, 120)
    take_in()
  end)

  teardown(function()
    host:stop()
    receiver:close()
  end)

  it("met a load, and cut it off", function()
    assert.is_true(report.ok > PUSHES, pusher.output)
    assert.is_true(report.reconnects >= KILLS, pusher.output)
    assert.is_true(report.repushed > 0, pusher.output)
    assert.equal(0, report.refused, pusher.output)
  end)

  it("keeps each push that was answered 0, once", function()
    local times = {}
    for _, row in ipairs(host:sql "select key, count(*) n from readings group by key") do times[row.key] = row.n end
    for key, n in pairs(times) do assert.equal(1, n, key) end
    local lost = {}
    for _, id in ipairs(lines_of(acked)) do
      if not times[id] then lost[#lost + 1] = id end
    end
    assert.same({}, lost)
  end)

  it("keeps the raw request of each reading with it", function()
    assert.equal(0,
      one "select count(*) n from readings r left join inbox i on i.id = r.request where i.id is null or i.outcome <> 'done'")
    local came, torn = {}, {}
    for _, row in ipairs(host:inbox()) do came[row.id] = row.body end
    for _, r in ipairs(host:sql "select key, request from readings") do
      if not came[r.request]:find(('"%s"'):format(r.key), 1, true) then torn[#torn + 1] = r.key end
    end
    assert.same({}, torn)
  end)

  it("ran the rule once on every reading, in order", function()
    assert.same({}, host:sql [[select d.device, d.n as stored, cast(kv.value as integer) as ruled from (select device, count(*) n
      from readings group by device) d
      left join kv on kv.space = 'plugin:count' and kv.key = d.device where kv.value is null or cast(kv.value as integer) <> d.n]])
    -- the n-th reading of a device, by seq, is the one that the rule counted as its n-th
    assert.same({}, host:sql [[with told as (select json_extract(body, '$.reading') reading, json_extract(body, '$.n') n
      from delivered),
      stored as (select seq, row_number() over (partition by device order by seq) n from readings)
      select * from told join stored on stored.seq = told.reading where told.n <> stored.n]])
    assert.equal(0, one "select count(*) n from held")
  end)

  it("made one message of each low reading", function()
    local low = one "select count(*) n from readings where value < 3.9"
    assert.is_true(low > 100)
    assert.equal(low, one "select count(*) n from delivered")
    assert.equal(low, one "select count(distinct reading) n from delivered")
    assert.equal(low, one "select count(distinct id) n from delivered")
    assert.equal(0, one "select count(*) n from dead")
  end)

  it("told of each low reading at least once, with one id, in order for a device", function()
    local missing, doubled = {}, {}
    for _,
      row in ipairs(host:sql "select r.seq, d.id from readings r left join delivered d on d.reading = r.seq where r.value < 3.9") do
      local s = seen[row.seq]
      if not s or not s.ids[row.id] then missing[#missing + 1] = row.seq end
      if s and s.count > 1 then doubled[#doubled + 1] = row.seq end
    end
    assert.same({}, missing)
    assert.same({}, doubled)
    assert.equal(0, disorder)
  end)

  it("ends cleanly", function()
    local how, code = host:stop()
    assert.equal("exit 0", how .. " " .. code, host.output:sub(-3000))
  end)
end)
