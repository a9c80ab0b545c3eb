-- A plugin that goes past its limits again and again is quarantined: its work is held, nothing of it is lost, and nobody else feels it.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local small = "limits = { instructions = 200000 }"

-- Loops for a device "hog" while the store says so; otherwise it does its work.
local hog = [[
local plugin = ...
plugin:refuse(function(problem) return problem.status, { code = 50300, said = problem.message, kind = problem.kind } end)
plugin:serve { "POST /hog", body = { device = { "string" }, at = { "integer" } }, handler = function(req)
  if req.body.device == "hog" then while true do end end
  plugin:emit { device = req.body.device, metric = "m", value = 1, at = req.body.at }
  return 200, { ok = true }
end }
plugin:serve { "GET /hog/here", handler = function() return 200, "here" end }
plugin:every("100ms", "tick", function() plugin.store:put("ticks", (plugin.store:get "ticks" or 0) + 1) end)
plugin:command { "greet", handler = function() return "hello" end }
]]

local good = [[
local plugin = ...
plugin:serve { "POST /good", body = { device = { "string" }, metric = { "string" }, at = { "integer" } }, handler = function(req)
  plugin:emit { device = req.body.device, metric = req.body.metric, value = 1, at = req.body.at }
  return 200, { ok = true }
end }
]]

local rule = [[
local plugin = ...
plugin:on({ metric = "watched" }, function(r)
  if r.device == "hog" then while true do end end
  plugin:send("desk", { device = r.device, at = r.at })
  if r.device == "armed" then plugin:arm("late", r.device, "1s") end
end)
plugin:timer("late", function(device) plugin:send("desk", { device = device, late = true }) end)
]]

local other = [[
local plugin = ...
plugin:on({ metric = "watched" }, function(r) plugin.store:put("n", (plugin.store:get "n" or 0) + 1) end)
]]

-- Delivers by writing what it was given into the log; loops for a device "hog".
local desk = [[
local plugin = ...
local log = require "neap.log"
plugin:deliver { batch = 1, handler = function(messages)
  local m = messages[1]
  if m.data.device == "hog-desk" then while true do end end
  log.info("delivered", { device = m.data.device, at = tostring(m.data.at), late = tostring(m.data.late) })
  return true
end }
]]

local function delivered(host)
  local list = {}
  for line in host:read():gmatch "[^\n]+" do
    local ok, l = pcall(json.decode, line)
    if ok and type(l) == "table" and l.event == "delivered" then list[#list + 1] = l end
  end
  return list
end

local function state(host, name) return host:plugin(name).state end

local function start(quarantine, more)
  return bed.host {
    config = ([[lanes = 1, quarantine = %s,
      connections = { { "hog", %s }, { "good" } }, rules = { { "watch", %s }, { "other" } }, destinations = { desk = { "desk", %s } }, %s]])
      :format(quarantine, small, small, small, more or ""),
    plugins = {
      ["vendors/hog.lua"] = hog, ["vendors/good.lua"] = good, ["rules/watch.lua"] = rule, ["rules/other.lua"] = other,
      ["destinations/desk.lua"] = desk,
    },
  }
end

local function push_hog(host, n, at)
  for i = 1, n do assert.equal(500, (host:request("POST", "/hog", { device = "hog", at = (at or 0) + i }))) end
end

describe("a connection's quarantine", function()
  local host
  setup(function()
    host = start([[{ after = 5, within = "10m", hold = "10m" }]], [[probation = "0s"]])
    bed.wait("the first run of its job", function() return #host:sql "select value from kv where space = 'plugin:hog'" > 0 end)
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  it("does not begin one below", function()
    push_hog(host, 4)
    assert.equal(200, (host:request("POST", "/hog", { device = "a", at = 1 })))
    assert.equal("in force", state(host, "hog"))
  end)

  it("begins at the fifth call past a limit: log, plugins, history", function()
    push_hog(host, 1)
    host:wait_text "quarantined: its work is held; neap release ends it"
    local p = host:plugin "hog"
    assert.equal("quarantined", p.state)
    assert.equal(1, p.quarantines)
    assert.matches("5 calls went past a limit within %d+ s, the last: .*vendors/hog.lua:4: ran past its budget of 200000 instructions", p.quarantine)
    assert.is_true(p.next_try > os.time() * 1000 + 500000)
    local rows = bed.wait("the row of its history", function()
      local list = host:command("history", "hog")
      return list[1].verdict == "quarantined" and list
    end)
    assert.matches("5 calls went past a limit", rows[1].reason)
    assert.equal("good", rows[2].verdict)
    assert.equal("in force", rows[2].state)
    local out = bed.run { bed.neap, "history", "hog", "--store", host.store }
    assert.matches("\n1 +%S+ +quarantined +5 calls went past a limit", out)
    out = bed.run { bed.neap, "plugins", "--store", host.store }
    assert.matches("hog%s+hog%s+vendor%s+quarantined", out)
    assert.matches("\n    5 calls went past a limit", out)
  end)

  it("answers requests 503 in the plugin's words, and keeps them as failed", function()
    local status, answer, headers = host:json("POST", "/hog", { device = "b", at = 2 })
    assert.equal(503, status)
    assert.equal(50300, answer.code)
    assert.equal("quarantined", answer.kind)
    assert.is_truthy(headers["retry-after"])
    local row = host:sql("select * from inbox order by id desc limit 1")[1]
    assert.equal("failed", row.outcome)
    assert.equal(503, row.status)
    assert.matches("b", row.body)
    assert.matches("^quarantined: 5 calls", row.error)
    assert.equal(0, #host:sql "select * from readings where device = 'b'")
    assert.equal(503, (host:request("GET", "/hog/here"))) -- which is not kept
    assert.equal(1, #host:sql "select * from inbox where error like 'quarantined%'")
  end)

  it("has its jobs and commands wait, and a replay", function()
    local out, code = bed.run { bed.neap, "call", "hog", "greet", "--store", host.store }
    assert.equal(1, code)
    assert.matches("hog is quarantined: .*: neap release hog", out)
    out, code = bed.run { bed.neap, "replay", "hog", "--failed", "--store", host.store }
    assert.equal(1, code)
    assert.matches("hog is quarantined", out)
    local ticks = host:sql("select value from kv where space = 'plugin:hog'")[1].value
    -- the other one goes on
    for i = 1, 200 do assert.equal(200, (host:request("POST", "/good", { device = "c", metric = "x", at = i }))) end
    assert.equal(ticks, host:sql("select value from kv where space = 'plugin:hog'")[1].value)
  end)

  it("does not touch what is not in quarantine", function()
    local out, code = bed.run { bed.neap, "release", "good", "--store", host.store }
    assert.equal(1, code)
    assert.matches("good is not in quarantine", out)
    out, code = bed.run { bed.neap, "release", "nobody", "--store", host.store }
    assert.equal(1, code)
    assert.matches("there is no plugin \"nobody\"", out)
  end)

  it("is ended by neap release; what it held is run", function()
    local ticks = host:sql("select value from kv where space = 'plugin:hog'")[1].value
    local list, code = host:command("release", "hog")
    assert.equal(0, code)
    assert.same({ instance = "hog", generation = 1 }, list[1].summary)
    bed.wait("it to be taken up", function() return host:request("GET", "/hog/here") == 200 end)
    assert.equal("in force", state(host, "hog"))
    assert.equal("released", host:command("history", "hog")[1].verdict)
    assert.matches("^neap release by ", host:command("history", "hog")[1].cause)
    assert.equal("hello", (host:command("call", "hog", "greet"))[1])
    bed.wait("the job", function() return host:sql("select value from kv where space = 'plugin:hog'")[1].value > ticks end)
    local rows = host:sql "select id from inbox where outcome = 'failed' and error not like 'quarantined%'"
    assert.equal(5, #rows)
    -- the one that was kept is run again; those that loop fail again, which is no reason for a quarantine: an operator wanted it
    host:command("replay", "hog", "--failed")
    assert.equal("in force", state(host, "hog"))
    assert.equal(5, #host:sql "select * from inbox where outcome = 'failed'")
    assert.equal(1, #host:sql "select * from readings where device = 'b'")
  end)

  it("is ended by a new generation, and by a restart", function()
    push_hog(host, 5, 100)
    assert.equal("quarantined", state(host, "hog"))
    bed.replace(host.plugins .. "/vendors/hog.lua", hog .. "-- mended\n")
    bed.wait("the new generation", function() return host:plugin("hog").generation == 2 end)
    assert.equal("in force", state(host, "hog"))
    assert.equal(200, (host:request("POST", "/hog", { device = "d", at = 3 })))
    push_hog(host, 5, 200)
    assert.equal("quarantined", state(host, "hog"))
    host:restart()
    assert.equal("in force", state(host, "hog"))
    assert.equal(200, (host:request("POST", "/hog", { device = "d", at = 4 })))
  end)
end)

describe("plain errors", function()
  it("are no reason for a quarantine", function()
    local host = bed.host {
      config = [[lanes = 1, quarantine = { after = 1 }]],
      plugins = { ["vendors/plain.lua"] = [[
local plugin = ...
plugin:serve { "POST /plain", handler = function() error "plain" end }]] },
    }
    for _ = 1, 10 do assert.equal(500, (host:request("POST", "/plain", "x"))) end
    assert.equal("in force", state(host, "plain"))
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("a rule's quarantine", function()
  local host
  setup(function() host = start [[{ after = 2, within = "10m", hold = "10m" }]] end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function push(device, at) assert.equal(200, (host:request("POST", "/good", { device = device, metric = "watched", at = at }))) end
  local function held() return tonumber(host:sql("select count(*) as n from held where instance = 'watch'")[1].n) end
  local function seen() return tonumber((host:sql("select value from kv where space = 'plugin:other'")[1] or { value = 0 }).value) end

  it("holds the readings that it would have been run on; other rules see all", function()
    push("armed", 1)
    bed.wait("a timer", function() return #host:sql "select * from timers" == 1 end)
    for i = 1, 2 do push("hog", i) end
    bed.wait("the quarantine", function() return state(host, "watch") == "quarantined" end)
    local before = #delivered(host) -- on a slow machine the timer may have fired
    for i = 1, 40 do push("d-" .. i % 4, i) end
    host:request("POST", "/good", { device = "d-1", metric = "unwatched", at = 1 })
    bed.wait("all to be held", function() return held() == 42 end)
    bed.wait("the other rule", function() return seen() == 43 end)
    assert.equal(2, #host:sql "select * from held where generation = 1")
    assert.equal(40, #host:sql "select * from held where generation = 0 and error like 'quarantined: 2 calls%'")
    local due = host:sql("select max(due) as due from timers")[1].due
    bed.wait("the timer to be due", function() return not tonumber(due) or socket.gettime() * 1000 > tonumber(due) + 200 end)
    push("d-1", 999)
    bed.wait("one more to be held", function() return held() == 43 end)
    assert.equal(before, #delivered(host))
    assert.equal(2 - before, #host:sql "select * from timers") -- due, and armed still
    assert.equal(0, tonumber(host:summary().pending))
  end)

  it("runs them in order once it is released, before what comes then; what it had failed on stays held", function()
    host:command("release", "watch")
    push("d-1", 1000)
    bed.wait("all messages", function() return #delivered(host) == 44 end)
    local last, late = {}, 0
    for _, l in ipairs(delivered(host)) do
      if l.late == "true" then
        late = late + 1
      else
        assert.is_true(tonumber(l.at) > (last[l.device] or 0), l.device .. " out of order")
        last[l.device] = tonumber(l.at)
      end
    end
    assert.equal(1000, last["d-1"])
    assert.equal(1, late)
    assert.equal(2, held())
    assert.equal("in force", state(host, "watch"))
  end)
end)

describe("a destination's quarantine", function()
  it("has messages wait, in order, until it is over", function()
    local host = start [[{ after = 2, within = "10m", hold = "10m" }]]
    local function push(device, at) assert.equal(200, (host:request("POST", "/good", { device = device, metric = "watched", at = at }))) end
    push("hog-desk", 1)
    bed.wait("the quarantine", function() return state(host, "desk") == "quarantined" end)
    for i = 1, 20 do push("d", i) end
    bed.wait("them to wait", function() return host:plugin("desk").pending == 21 end)
    assert.equal(0, #delivered(host))
    assert.equal("in force", state(host, "watch"))
    host:command("release", "desk")
    bed.wait("them to be delivered", function() return #delivered(host) == 20 end)
    for i, l in ipairs(delivered(host)) do assert.equal(i, tonumber(l.at)) end
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("a trial", function()
  it("comes by itself, after twice as long each time it fails; one that lasts ends it all", function()
    local host = start [[{ after = 1, within = "10m", hold = "100ms", hold_most = "400ms" }]]
    local function hold_of(n)
      local lines = {}
      for line in host:read():gmatch "[^\n]+" do
        local ok, l = pcall(json.decode, line)
        if ok and type(l) == "table" and l.event:find "^quarantined: its work" then lines[#lines + 1] = l["next try"] end
      end
      return lines[n]
    end
    for n = 1, 4 do
      bed.wait("a call that goes past its limit", function() return host:request("POST", "/hog", { device = "hog", at = n }) == 500 end)
      local want = ({ "in 0.1 s", "in 0.2 s", "in 0.4 s", "in 0.4 s" })[n]
      assert.equal(want, bed.wait("its line in the log", function() return hold_of(n) end))
      bed.wait("the trial", function() return state(host, "hog") == "on trial" end)
    end
    assert.matches("on trial it went past a limit again", host:plugin("hog").quarantine)
    assert.equal(200, (host:request("GET", "/hog/here")))
    assert.equal("on trial", state(host, "hog"))
    bed.replace(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub("10m", "1ms")))
    bed.wait("its end", function()
      assert.equal(200, (host:request("GET", "/hog/here")))
      return state(host, "hog") == "in force"
    end)
    host:wait_text "its quarantine is over"
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("without quarantines", function()
  it("none goes on that had begun", function()
    local host = start [[{ after = 1, within = "10m", hold = "10m" }]]
    push_hog(host, 1)
    bed.wait("the quarantine", function() return state(host, "hog") == "quarantined" end)
    bed.replace(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub("quarantine = %b{}", "quarantine = false")))
    bed.wait("its end", function() return state(host, "hog") == "in force" end)
    assert.equal(200, (host:request("GET", "/hog/here")))
    local row = host:command("history", "hog")[1]
    assert.same({ "released", "neap.lua: quarantine = false" }, { row.verdict, row.cause })
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("a new generation that goes past its limits where the one before did not", function()
  it("is taken back, and is no quarantine's", function()
    local host = start [[{ after = 3, within = "10m", hold = "10m" }]]
    assert.equal(200, (host:request("POST", "/hog", { device = "a", at = 1 })))
    bed.replace(host.plugins .. "/vendors/hog.lua", (hog:gsub('if req.body.device == "hog" then', "if true then")))
    bed.wait("the new generation", function() return host:plugin("hog").generation == 2 end)
    for i = 1, 3 do host:request("POST", "/hog", { device = "a", at = i + 1 }) end
    bed.wait("the old one", function() return host:plugin("hog").generation == 1 end)
    host:wait_text "taken back: it failed where the generation before did not"
    assert.equal("rolled back", state(host, "hog"))
    assert.equal(200, (host:request("POST", "/hog", { device = "a", at = 9 })))
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("under load", function()
  it("a hog beside a healthy connection takes none of its requests", function()
    local host = bed.host {
      config = ([[lanes = 2, quarantine = { after = 5, within = "10m", hold = "10m" }, connections = { { "hog", %s }, { "good" } }]]):format(small),
      plugins = { ["vendors/hog.lua"] = hog, ["vendors/good.lua"] = good },
    }
    local function client()
      local s = assert(socket.connect("127.0.0.1", host.port))
      s:settimeout(30)
      return s
    end
    local function send(s, path, body)
      local text = json.encode(body)
      assert(s:send(("POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"):format(path, #text, text)))
    end
    local hogs, goods, hog_says = {}, {}, {}
    for i = 1, 8 do hogs[i], goods[i] = client(), client() end
    for round = 1, 50 do
      for i = 1, 8 do
        send(hogs[i], "/hog", { device = "hog", at = round * 10 + i })
        send(goods[i], "/good", { device = "g-" .. i, metric = "m", at = round })
      end
      for i = 1, 8 do
        assert.equal(200, (bed.receive(goods[i], "POST")))
        local status = bed.receive(hogs[i], "POST")
        hog_says[status] = (hog_says[status] or 0) + 1
      end
    end
    for i = 1, 8 do
      hogs[i]:close()
      goods[i]:close()
    end
    assert.equal(400, #host:sql "select * from readings where connection = 'good'")
    assert.equal(400, hog_says[500] + hog_says[503])
    assert.is_true(hog_says[500] >= 5 and hog_says[500] <= 5 + 16, "calls of the hog: " .. hog_says[500])
    assert.equal(400, #host:sql "select * from inbox where instance = 'hog' and outcome = 'failed'")
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
