-- low-glucose and acknowledge in a running host: what nobody acknowledges goes further, once, over kills too; what somebody does goes nowhere.
local bed = require "bed"
local json = require "neap.json"

describe("what nobody has acknowledged", function()
  local host, desk, key
  local count = 0

  local function begin(after)
    desk = bed.receiver()
    host = bed.host { config = ([[lanes = 2, connections = { { "sinocare", name = "ward-3" } },
      rules = { { "low-glucose", to = "nurses", again = "0s", escalate_to = "doctor", escalate_after = %q, escalate_times = 1 } },
      destinations = { nurses = { "webhook", url = %q }, doctor = { "webhook", url = %q } }]]):format(after, desk.url .. "/nurses", desk.url .. "/doctor") }
    key = host:command("keys", "issue", "acknowledge", "name=desk")[1].key
  end
  after_each(function()
    host:stop()
    desk:close()
  end)

  local function push(device)
    count = count + 1
    local _, answer = host:json("POST", "/sinocare/push", bed.push { testId = "t-" .. count, deviceSn = device, testResult = "3.1", serialNo = json.null,
      testTime = ("2021-11-02 %02d:%02d:00"):format(count // 60, count % 60) })
    assert.equal(0, answer.code)
  end
  -- The ids of what has come to that place about the device, each once.
  local function came(to, device)
    local ids, seen = {}, {}
    for _, r in ipairs(desk:poll()) do
      local id = r.headers["webhook-id"]
      if r.path == "/" .. to and r.json.device == device and not seen[id] then
        seen[id] = true
        ids[#ids + 1] = id
      end
    end
    return ids
  end
  local function wait_for(to, device, n)
    return bed.wait(("message %d to %s about %s"):format(n, to, device), function()
      local ids = came(to, device)
      return #ids >= n and ids
    end)
  end
  local function acknowledge(id, body, with)
    return host:json("POST", "/acknowledgements/" .. id, body or {}, { authorization = "Bearer " .. (with or key) })
  end
  local function armed() return host:sql("select count(*) n from timers where name = 'low'")[1].n end

  it("goes to somebody else, once, also where neap is killed again and again meanwhile", function()
    begin "3s"
    for i = 1, 6 do push("SN-" .. i) end
    for i = 1, 6 do wait_for("nurses", "SN-" .. i, 1) end
    for _ = 1, 6 do
      host:restart(9)
      desk:poll()
    end
    for i = 1, 6 do wait_for("doctor", "SN-" .. i, 1) end
    bed.wait("all to be told", function() desk:poll() return armed() == 0 and host:sql("select count(*) n from outbox")[1].n == 0 end)
    for i = 1, 6 do assert.same({ 1, 1 }, { #came("nurses", "SN-" .. i), #came("doctor", "SN-" .. i) }) end
    assert.same({}, host:sql "select * from held")
  end)

  it("is only that: what was acknowledged with its webhook-id and a key goes nowhere, over a kill", function()
    begin "3s"
    push "SN-a"
    push "SN-b"
    local id = wait_for("nurses", "SN-a", 1)[1]
    assert.equal(401, (acknowledge(id, {}, "wrong")))
    local status, answer = acknowledge(id, { by = "Agnes" })
    assert.same({ 200, true, "Agnes" }, { status, answer.first, answer.acknowledged.by })
    assert.is_false(select(2, acknowledge(id, { by = "Berta" })).first)
    host:restart(9)
    wait_for("doctor", "SN-b", 1)
    bed.wait("both timers to have fired", function() return armed() == 0 end)
    assert.equal(0, host:sql([[select count(*) n from (select device, destination from outbox union all select device, destination from delivered)
      where destination = 'doctor' and device = 'SN-a']])[1].n)
    assert.equal("Agnes", host:command("dead", "show", id)[1].acknowledged.by)
  end)

  it("holds up nothing once the settings name nobody any more", function()
    begin "3s"
    push "SN-a"
    wait_for("nurses", "SN-a", 1)
    bed.replace(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub('escalate_to = "doctor", ', "")))
    bed.wait("its timer to have fired", function() return armed() == 0 end)
    assert.same({}, host:sql "select * from held")
  end)

  it("keeps the request of whoever acknowledges, without the key in clear", function()
    begin "1h"
    push "SN-a"
    local id = wait_for("nurses", "SN-a", 1)[1]
    acknowledge(id, { by = "Agnes" })
    local row = host:inbox("where instance = 'acknowledge'")[1]
    assert.is_true(row.sealed)
    assert.equal("done", row.outcome)
    assert.is_nil((bed.read(host.store) .. bed.read(host.store .. "-wal") .. host:read()):find(key, 1, true))
  end)
end)
