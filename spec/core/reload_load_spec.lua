-- Load on 64 connections while the vendor plugin and the rule are rewritten every 100 ms, every tenth time with a broken file.
-- 10 s of it, and on a slow machine for as long as it takes until as much has happened as the specs ask for; NEAP_LONG=1 makes it 60 s.
local bed = require "bed"
local json = require "neap.json"
local process = require "process"
local socket = require "socket"

local SECONDS = os.getenv "NEAP_LONG" and 60 or 10
local PUSHES, GENERATIONS = SECONDS * 50, SECONDS * 5 -- at least
local RATE = tonumber(os.getenv "NEAP_RATE") or 1000
local SANITIZED = (os.getenv "B" or ""):find "san" -- keeps freed memory for a while

local VENDOR = bed.read(bed.plugins .. "/vendors/sinocare.lua")

-- Counts every reading of a device, and makes one message of each.
local RULE = [[
local plugin = ...
plugin:on({ metric = "glucose" }, function(r)
  local n = (plugin.store:get(r.device) or 0) + 1
  plugin.store:put(r.device, n)
  plugin:send("sink", { reading = r.id, device = r.device, n = n })
  plugin:arm("later", r.device, "1h")
end)
plugin:timer("later", function() end)
]]
local SINK = [[
local plugin = ...
plugin:deliver { options = {}, batch = 500, handler = function() return true end }
]]
local REFUSED = "not put in force; the generation before goes on"
local BROKEN = { "\nlocal x = = 1\n", "\nerror 'broken on purpose'\n", "\nplugin:serve { 'NOWHERE' }\n", "\nplugin:nosuch()\n" }

describe("reloading under load", function()
  local host, pusher, acked, report, before, after, rewrites
  local generations = 0

  local function one(query) return host:sql(query)[1].n end

  local function in_place(path, text)
    local f = assert(io.open(path, "wb"))
    f:write(text)
    f:close()
  end
  local function anew(path, text)
    os.remove(path)
    in_place(path, text)
  end
  local ways = { in_place, bed.replace, anew }

  local function start_pusher(prefix, serial, ...)
    return bed.start { bed.tools .. "/pusher", "--url", host.url .. "/sinocare/push", "--connections", "64", "--devices", "50",
      "--start-serial", tostring(serial), "--prefix", prefix, "--acked", acked, "--json", ... }
  end

  local function drained()
    return one "select coalesce(sum(value), 0) n from kv where space = 'plugin:count'" >= one "select count(*) n from readings"
      and one "select count(*) n from outbox" == 0
  end

  local function pushed(p)
    p:wait(SECONDS + 60)
    local r = assert(json.decode(p.output))
    bed.wait("everything to be ruled on and delivered", drained, 120)
    return r
  end

  local function put_in_force() return one "select sum(newest) n from (select max(number) newest from generations group by instance)" end

  local function compared() -- the gate has run the rule's newest text over the last readings
    for _, stage in ipairs(host:plugin("count").gate.stages) do
      if stage.stage == "shadow" then return stage.verdict ~= "running" end
    end
  end

  local function at_rest()
    return bed.wait("the host to be at rest", function()
      local s = host:summary()
      return s.tasks == 0 and s.states == 2 * 3 and compared() and s
    end)
  end

  setup(function()
    host = bed.host { plugins = { ["vendors/sinocare.lua"] = VENDOR, ["rules/count.lua"] = RULE, ["destinations/sink.lua"] = SINK },
      config = [[lanes = 2, rules = { { "count" } }]] }
    acked = host.folder .. "/acked"
    -- first what grows with the number of readings has to be as large as it gets: the store's page cache, 16 MiB
    pushed(start_pusher("warm", 1, "--count", SANITIZED and "2000" or "25000", "--seconds", "60"))
    bed.replace(host.plugins .. "/rules/count.lua", RULE .. "\n-- warm") -- and what the gate needs is opened when it is first needed
    bed.wait("the second generation", function() return host:plugin("count").generation == 2 end)
    before = at_rest()
    rewrites = 0
    local enough, first = socket.gettime() + SECONDS, one "select count(*) n from readings"
    local files = { { host.plugins .. "/vendors/sinocare.lua", VENDOR }, { host.plugins .. "/rules/count.lua", RULE } }
    pusher = start_pusher("load", 1000, "--rate", tostring(RATE), "--seconds", "600")
    local next_at = socket.gettime()
    while not pusher.ended do
      pusher:read(math.max(0, next_at - socket.gettime()))
      host:read()
      if socket.gettime() >= next_at then
        next_at = next_at + 0.1
        rewrites = rewrites + 1
        for i, file in ipairs(files) do
          local text = file[2] .. "\n-- version " .. rewrites .. "\n"
          if rewrites % 10 == 5 * (i - 1) then text = file[2] .. BROKEN[rewrites // 10 % #BROKEN + 1] .. "-- " .. rewrites end
          ways[(rewrites + i) % 3 + 1](file[1], text)
        end
        if socket.gettime() >= enough and host.output:find(REFUSED) and put_in_force() > GENERATIONS
          and one "select count(*) n from readings" > first + PUSHES then
          process.kill(pusher.pid, 15)
          break
        end
      end
    end
    for _, file in ipairs(files) do bed.replace(file[1], file[2]) end
    report = pushed(pusher)
    after = at_rest()
    generations = put_in_force()
  end)

  teardown(function() host:stop() end)

  it("fails no request", function()
    assert.equal(0, report.failed, pusher.output)
    assert.equal(0, report.refused, pusher.output)
    assert.equal(0, report.reconnects, pusher.output)
    assert.is_true(report.ok > PUSHES, pusher.output)
  end)

  it("loses no reading and stores none twice", function()
    local n = 0
    for _ in io.lines(acked) do n = n + 1 end
    assert.equal(n, one "select count(*) n from readings")
    assert.equal(n, one "select count(distinct key) n from readings")
  end)

  it("routes each reading once, in order", function()
    local readings = one "select count(*) n from readings"
    assert.same({}, host:sql [[select d.device from (select device, count(*) n from readings group by device) d
      left join kv on kv.space = 'plugin:count' and kv.key = d.device where kv.value is null or cast(kv.value as integer) <> d.n]])
    assert.equal(readings, one "select count(*) n from delivered")
    assert.equal(readings, one "select count(distinct reading) n from delivered")
    assert.same({}, host:sql [[with told as (select json_extract(body, '$.reading') reading, json_extract(body, '$.n') n
      from delivered),
      stored as (select seq, row_number() over (partition by device order by seq) n from readings)
      select * from told join stored on stored.seq = told.reading where told.n <> stored.n]])
    assert.equal(0, one "select count(*) n from held")
    assert.equal(0, one "select count(*) n from dead")
  end)

  it("put many generations in force, and refused the broken ones", function()
    assert.is_true(generations > GENERATIONS, ("%d generations of %d rewrites of two files"):format(generations, rewrites))
    assert.is_truthy(host.output:find(REFUSED))
    assert.is_nil(host.output:find "nothing to serve")
    assert.is_nil(host.output:find "retired")
  end)

  it("ends in force, with no error left", function()
    for _, name in ipairs { "sinocare", "count" } do
      local p = host:plugin(name)
      assert.equal("in force", p.state)
      assert.is_nil(p.error)
    end
  end)

  it("comes back to where it was", function()
    local function line(s) return ("%d states, %d tasks, %d timers, %d descriptors, %.1f MiB"):format(s.states, s.tasks,
      s.timers, s.descriptors, s.resident / 2^20) end
    if os.getenv "NEAP_LONG" then print("before: " .. line(before), "after: " .. line(after), rewrites .. " rewrites",
      generations .. " generations", pusher.output) end
    assert.equal(before.states, after.states)
    assert.equal(before.tasks, after.tasks)
    assert.equal(before.timers, after.timers)
    -- a leak would be one for each of many generations; what a store's readers have open comes and goes
    assert.is_true(after.descriptors <= before.descriptors + 3, line(before) .. " -> " .. line(after))
    if not SANITIZED then assert.is_true(after.resident < before.resident + 4 * 2^20, line(before) .. " -> " .. line(after)) end
  end)

  it("ends cleanly", function()
    local how, code = host:stop()
    assert.equal("exit 0", how .. " " .. code, host.output:sub(-3000))
  end)
end)
