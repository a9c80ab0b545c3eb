-- examples/ward as a newcomer meets it: the script that `make run` starts, in a copy of the project's folder.
local bed = require "bed"
local json = require "neap.json"
local process = require "process"
local socket = require "socket"

-- The examples and the plugins, without what a run of somebody's has left.
local function copy()
  local folder = bed.folder()
  local command = "tar -cf - --exclude='neap.db*' examples/ward plugins | tar -xf - -C '%s'"
  assert(os.execute(command:format(folder)))
  return folder
end

-- Listens on a port below those that the kernel gives to connections, so that no other program gets it, or the next, by chance.
local function listen()
  while true do
    local port = math.random(10000, 30000)
    local s = socket.bind("127.0.0.1", port)
    if s then return s, port end
  end
end

local function free_port()
  local s, port = listen()
  s:close()
  return port
end

-- The script, on ports of its own; a patients' hour passes in 5 s.
local function open_ward(folder, ports)
  ports = ports or { free_port(), free_port() }
  return bed.start({ "sh", folder .. "/examples/ward/run" }, {
    "NEAP=" .. bed.neap, "WARD_PATIENTS=12", "WARD_SPEED=720", "WARD_PORT=" .. ports[1], "DESK_PORT=" .. ports[2],
  })
end

-- Ctrl-C, as a terminal sends it: to the whole group.
local function interrupt(ward)
  process.kill(-ward.pid, 2)
  return ward:wait()
end

local function processes(folder)
  local out = bed.run { "pgrep", "-f", folder }
  return out
end

local function change(path, from, to)
  local text = bed.read(path)
  local at, stop = text:find(from, 1, true)
  assert(at, from .. " is not in " .. path)
  bed.replace(path, text:sub(1, at - 1) .. to .. text:sub(stop + 1))
end

local READING = "ward  │ [%d-]+ [%d:]+  GS07%-1  glucose  [%d.]+ mmol/L  valid"
local ALERT = "desk  │ [%d:.]+ ● ALERT  Low glucose  (GS%d+%-%d+) +([%d.]+) mmol/L, limit 3%.9"

-- What a failed spec leaves: the script's programs have sessions of their own, so that killing the script does not end them.
local function clear(folder)
  for pid in processes(folder):gmatch "%d+" do process.kill(tonumber(pid), 9) end
end

describe("examples/ward", function()
  local folder
  before_each(function() folder = copy() end)
  after_each(function() clear(folder) end)

  it("shows readings and alerts, follows its files, and ends cleanly on Ctrl-C", function()
    local ward = open_ward(folder)
    local example, rule = folder .. "/examples/ward", folder .. "/plugins/rules/low-glucose.lua"
    ward:wait_for(READING)
    ward:wait_for "cloud │ [%d:.]+ ● %d%d%-%d%d %d%d:%d%d in the ward: %d+ pushes"
    ward:wait_for(ALERT)
    local value = select(2, ward.output:match(ALERT))
    assert.is_true(tonumber(value) < 3.9)

    change(example .. "/neap.lua", "limit = 3.9", "limit = 5.5")
    local device = ward:wait_for "ALERT  Low glucose  (GS%d+%-%d+) +[45]%.%d mmol/L, limit 5%.5"
    assert.truthy(device)
    change(rule, [[title = "Low glucose"]], [[title = "Sugar is low"]])
    ward:wait_for "ALERT  Sugar is low"

    local line = select(2, bed.read(rule):gsub("\n", "\n")) + 1
    bed.replace(rule, bed.read(rule) .. "a word too many\n")
    ward:wait_for(("ward  │ [%%d:.]+ ■ .-low%%-glucose%%.lua:%d:"):format(line))
    local so_far = #ward.output
    bed.wait("alerts by the generation before", function() return ward:read():find("ALERT  Sugar is low", so_far, true) end)

    for _, name in ipairs { "ward/run", "ward ", "ward/cloud ", "ward/desk ", "ward " .. "--device" } do
      assert.truthy(processes(folder .. "/examples/" .. name):find "%d", name)
    end
    assert.same({ "exit", 0 }, { interrupt(ward) })
    assert.equal("", processes(folder))
    assert.is_nil(ward.output:find "\27")

    -- what the cloud did arrived as it should
    local store = example .. "/neap.db"
    local n = bed.sql(store, [[select count(*) as readings, count(distinct device || ' ' || serial) as different,
      sum((serial <= 20) <> (quality = 'warmup')) as misjudged, count(distinct device) as devices from readings]])[1]
    assert.equal(n.different, n.readings)
    assert.equal(0, n.misjudged)
    assert.equal(12, n.devices)
    local pushes = bed.sql(store, "select count(*) as all_of_them, sum(outcome <> 'done') as refused from inbox")[1]
    assert.is_true(pushes.all_of_them > n.readings, "some were pushed twice")
    local late = bed.sql(store, [[select count(*) as n from readings a join readings b on b.device = a.device
      and b.serial = a.serial + 1 where b.seq < a.seq]])[1]
    assert.is_true(late.n > 0, "some came out of order")

    -- and nothing that was delivered is missing at the desk
    local known, lost = {}, {}
    local remembered = bed.sql(example .. "/desk/neap.db", "select key from kv where space = 'plugin:desk'")
    for _, row in ipairs(remembered) do known[row.key] = true end
    local delivered = bed.sql(store, "select id from delivered")
    assert.is_true(#delivered > 0)
    for _, row in ipairs(delivered) do
      if not known[row.id] then lost[#lost + 1] = row.id end
    end
    assert.same({}, lost)
  end)

  it("goes on where it stopped, and begins anew when told so", function()
    local store = folder .. "/examples/ward/neap.db"
    local function count()
      return bed.sql(store, "select count(*) as n, count(distinct device || ' ' || serial) as different from readings")[1]
    end
    local first = open_ward(folder)
    first:wait_for "cloud │ .- pushes"
    assert.same({ "exit", 0 }, { interrupt(first) })
    local before = count()
    local second = open_ward(folder)
    second:wait_for "cloud │ .- pushes"
    bed.wait("more readings", function() return count().n > before.n end)
    assert.same({ "exit", 0 }, { second:stop(15) })
    local after = count()
    assert.equal(after.n, after.different)

    local fresh = bed.start({ "sh", folder .. "/examples/ward/run", "fresh" }, { "NEAP=/bin/false" })
    fresh:wait()
    assert.is_nil(io.open(store))
  end)

  it("takes other ports where those are taken, and runs once on one folder", function()
    local a, first = listen()
    local b, second = listen()
    local ports = { first, second }
    local ward = open_ward(folder, ports)
    local other = ward:wait_for(("port %d is taken, so the ward takes (%%d+)"):format(ports[1]))
    ward:wait_for(("port %d is taken, so the desk takes %%d+"):format(ports[2]))
    ward:wait_for(("The ward  http://127%%.0%%.0%%.1:%s/sinocare/push"):format(other))
    ward:wait_for(ALERT)
    local again = open_ward(folder)
    assert.same({ "exit", 1 }, { again:wait() })
    assert.truthy(again.output:find("it runs already", 1, true))
    local so_far = #ward:read()
    bed.wait("the first to go on", function() return ward:read():find("ALERT", so_far, true) end)
    assert.same({ "exit", 0 }, { interrupt(ward) })
    a:close()
    b:close()
  end)

  it("says that a program has ended, and ends the others", function()
    local ward = open_ward(folder)
    ward:wait_for(READING)
    local host = tonumber((bed.run { "pgrep", "-f", "run " .. folder .. "/examples/ward/desk" }):match "%d+")
    process.kill(host, 9)
    assert.same({ "exit", 1 }, { ward:wait() })
    assert.truthy(ward.output:find("has ended by itself", 1, true))
    assert.equal("", processes(folder))
  end)
end)

describe("examples/ward/cloud", function()
  local TYPES = { testId = "string", deviceSn = "string", testResult = "string", serialNo = "integer", increMinute = "integer",
    cgmDay = "integer", idCard = "string", testTime = "string", visitId = "string", patientName = "string", customerName = "string",
    patientId = "string", inSerialId = "string", status = "string", cgmStatus = "string", low = "number", high = "number" }
  local function type_of(v) return math.type(v) or type(v) end

  it("pushes what the vendor's document says, and again until the answer is code 0", function()
    local folder = copy()
    local receiver = bed.receiver()
    local refused = {} -- testId -> how often; the first answers of one are no success, each in another way
    local answers = { { 200, [[{"code":1,"msg":"no"}]] }, { 500, "" }, { 200, "no JSON" } }
    local taken = {}
    receiver.answer = function(r)
      local id = r.json.data.testId
      if not taken[id] and (refused[id] or 0) < 1 and r.json.data.serialNo <= 3 then
        refused[id] = (refused[id] or 0) + 1
        return table.unpack(answers[r.json.data.serialNo])
      end
      taken[id] = (taken[id] or 0) + 1
      return 200, [[{"code":0,"msg":""}]], { ["content-type"] = "application/json" }
    end
    local cloud = bed.start({ bed.neap, "run", folder .. "/examples/ward/cloud" },
      { "WARD_URL=" .. receiver.url .. "/push", "WARD_PATIENTS=1", "WARD_SPEED=60" })
    bed.wait("those that were refused to be pushed again", function()
      local waiting, seen = false, 0
      receiver:poll()
      for id in pairs(refused) do
        seen = seen + 1
        waiting = waiting or not taken[id]
      end
      return seen == 3 and not waiting
    end)
    assert.same({ "exit", 0 }, { cloud:stop(15) })
    receiver:close()

    local ids = {}
    for _, r in ipairs(receiver.requests) do
      assert.equal("POST", r.method)
      assert.equal("application/json", r.headers["content-type"])
      assert.equal("01", r.json.reservedCode)
      local d = r.json.data
      for name, wanted in pairs(TYPES) do
        if d[name] ~= json.null then assert.equal(wanted, type_of(d[name]), name) end
        assert.not_nil(d[name], name)
      end
      for name in pairs(d) do assert.not_nil(TYPES[name], name .. " is not in the document") end
      assert.truthy(d.testTime:match "^%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d$")
      assert.truthy(d.testResult:match "^%d+%.%d$")
      assert.equal(d.serialNo <= 20 and "1" or "0", d.status)
      assert.equal(d.serialNo <= 20 and "1" or "2", d.cgmStatus)
      local same = ids[d.testId]
      if same then assert.same(same, d) end
      ids[d.testId] = d
    end
    for serial = 1, 3 do
      local found
      for _, d in pairs(ids) do found = found or d.serialNo == serial end
      assert.is_true(found)
    end
  end)
end)
