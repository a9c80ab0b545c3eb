-- Limits of one instance: at the bound it works, one more is refused, and what is said names the limit, its setting and the use.
local bed = require "bed"
local json = require "neap.json"
local process = require "process"
local socket = require "socket"

local greedy = [[
local plugin = ...
local http = require "neap.http"
local log = require "neap.log"
local config = plugin:config { url = { "string", default = "http://127.0.0.1:1" } }

local function number(name) return { [name] = { "integer" } } end

plugin:serve { "POST /emit", body = number "n", handler = function(req)
  local kinds = {
    function(i) plugin:emit { device = "d", metric = "m", value = i, at = i } end,
    function(i) plugin:event { device = "d", type = "alarm", at = i } end,
    function() plugin:device { device = "d", name = "a device" } end,
  }
  for i = 1, req.body.n do kinds[i % 3 + 1](i) end
  return 200, { n = req.body.n }
end }

plugin:serve { "POST /alive", body = number "n", handler = function(req)
  local kept = {}
  for i = 1, req.body.n do
    kept[i] = coroutine.wrap(function() coroutine.yield(i) end)
    kept[i]()
  end
  return 200, { n = #kept }
end }

-- As many as one likes one after the other: ended, failed, closed or dropped.
plugin:serve { "POST /passing", body = number "n", handler = function(req)
  for i = 1, req.body.n do
    local way = i % 4
    if way == 0 then coroutine.wrap(function() return i end)() end
    if way == 1 then pcall(coroutine.wrap(function() error "fails" end)) end
    if way == 2 then local co = coroutine.create(function() coroutine.yield() end) coroutine.resume(co) coroutine.close(co) end
    if way == 3 then coroutine.wrap(function() coroutine.yield(i) end)() end
  end
  return 200, { n = req.body.n }
end }

plugin:serve { "POST /caught", body = number "n", handler = function(req)
  local ok, why = pcall(function() for i = 1, req.body.n do plugin:emit { device = "caught", metric = "m", value = i, at = i } end end)
  return 200, { ok = ok, why = why }
end }

plugin:serve { "POST /say", body = number "n", handler = function(req)
  for i = 1, req.body.n do if i % 2 == 0 then log.warn("line " .. i) else print("line " .. i) end end
  return 200
end }

plugin:serve { "POST /call", body = { timeout = { "number" } }, handler = function(req)
  local res, why, code = http.get { url = config.url .. "/", timeout = req.body.timeout }
  return 200, { status = res and res.status, why = why, code = code }
end }
]]

local function said(host, event)
  local found = {}
  for line in host:read():gmatch "[^\n]+" do
    local ok, l = pcall(json.decode, line)
    if ok and type(l) == "table" and l.event:find(event, 1, true) then found[#found + 1] = l end
  end
  return found
end

describe("limits", function()
  local host
  setup(function()
    host = bed.host {
      config = [[lanes = 1, limits = { emits = 30, coroutines = 7 },
        connections = { { "greedy" }, { "greedy", name = "more", mount = "/more", limits = { emits = 60 } } }]],
      plugins = { ["vendors/greedy.lua"] = greedy },
    }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  it("of what a call emits: one below, at the bound, one above", function()
    assert.equal(200, (host:request("POST", "/emit", { n = 29 })))
    assert.equal(200, (host:request("POST", "/emit", { n = 30 })))
    assert.equal(500, (host:request("POST", "/emit", { n = 31 })))
    local why = host:sql("select error from inbox where outcome = 'failed' order by id desc limit 1")[1].error
    assert.matches("30 readings, events, devices and messages are the most of one call, and this is one more (limits.emits of \"greedy\" in neap.lua)",
      why, 1, true)
    assert.matches("vendors/greedy.lua:11:", why, 1, true)
    assert.equal(30, host:plugin("greedy").limits.emits.used)
    assert.equal(30, host:plugin("greedy").limits.emits.limit)
  end)

  it("of an entry come before those for all", function()
    assert.equal(200, (host:request("POST", "/more/emit", { n = 60 })))
    assert.equal(500, (host:request("POST", "/more/emit", { n = 61 })))
    assert.same({ used = 60, limit = 60 }, host:plugin("more").limits.emits)
    assert.equal(7, host:plugin("more").limits.coroutines.limit)
  end)

  it("that are passed raise, and who catches that keeps what was before", function()
    local _, answer = host:json("POST", "/caught", { n = 40 })
    assert.is_false(answer.ok)
    assert.matches("limits.emits", answer.why, 1, true)
    assert.equal(30, #host:sql "select * from readings where device = 'caught'")
  end)

  it("of coroutines: one below, at the bound, one above", function()
    assert.equal(200, (host:request("POST", "/alive", { n = 6 })))
    assert.equal(200, (host:request("POST", "/alive", { n = 7 })))
    assert.equal(500, (host:request("POST", "/alive", { n = 8 })))
    local why = host:sql("select error from inbox where outcome = 'failed' order by id desc limit 1")[1].error
    assert.matches("7 of its coroutines are alive, the most of one call, and this is one more (limits.coroutines of \"greedy\" in neap.lua)", why, 1, true)
    assert.same({ used = 7, limit = 7 }, host:plugin("greedy").limits.coroutines)
  end)

  it("of coroutines count those that are alive: ended, failed, closed and dropped ones do not", function()
    assert.equal(200, (host:request("POST", "/passing", { n = 1000 })))
  end)

  it("shows use against limit in the table where it is near", function()
    local out = bed.run { bed.neap, "plugins", "--store", host.store }
    assert.matches("coroutines 100 %, emits 100 %", out, 1, true)
    assert.is_nil(host:plugin("greedy").near:find("memory", 1, true))
  end)
end)

describe("the log's limit", function()
  local host
  setup(function()
    host = bed.host {
      config = [[lanes = 1, connections = { { "greedy", limits = { log = 5, log_burst = 20 } } }]],
      plugins = { ["vendors/greedy.lua"] = greedy },
    }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  it("lets a burst through; what is over is counted, and said", function()
    assert.equal(200, (host:request("POST", "/say", { n = 20 })))
    host:wait_text "line 20"
    assert.equal(0, host:plugin("greedy").limits.log.left_out)
    local before = socket.gettime()
    assert.equal(200, (host:request("POST", "/say", { n = 500 })))
    local lines = bed.wait("what was left out to be said", function() return said(host, "lines of its log were left out")[1] end)
    local filled = math.ceil((socket.gettime() - before) * 5) + 1 -- what came back meanwhile
    local left_out = tonumber(lines.lines)
    assert.is_true(left_out <= 500 and left_out >= 500 - 20 - filled, "left out: " .. left_out)
    assert.equal("greedy", lines.plugin)
    assert.equal("5", tostring(lines["a second"]))
    assert.equal(left_out, host:plugin("greedy").limits.log.left_out)
    assert.equal(20 + 500 - left_out, #said(host, "line "))
  end)

  it("says what was left out also when it is stopped at once", function()
    host:request("POST", "/say", { n = 500 })
    local before = #said(host, "lines of its log")
    assert.same({ "exit", 0 }, { host:stop() })
    assert.is_true(#said(host, "lines of its log") > before)
    host:begin()
  end)
end)

-- A server that takes connections and answers when it is told to.
local function slow_server()
  local s = assert(socket.bind("127.0.0.1", 0, 200))
  s:settimeout(0)
  local held = {}
  local self = { port = select(2, s:getsockname()) }
  function self.asked()
    local c = s:accept()
    while c do
      held[#held + 1] = c
      c = s:accept()
    end
    return #held
  end
  function self.answer(n)
    for _ = 1, n do
      local c = table.remove(held, 1)
      c:settimeout(10)
      repeat local line = c:receive "*l" until not line or line == ""
      c:send "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
      c:close()
    end
  end
  function self.close()
    for _, c in ipairs(held) do c:close() end
    s:close()
  end
  return self
end

-- A request that is sent and not waited for.
local function begin(host, path, body)
  local s = assert(socket.connect("127.0.0.1", host.port))
  s:settimeout(30)
  local text = json.encode(body)
  s:send(("POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"):format(path, #text, text))
  return function()
    local _, answer = bed.receive(s, "POST")
    s:close()
    return json.decode(answer)
  end
end

describe("the limit of open calls", function()
  local host, server
  setup(function()
    server = slow_server()
    host = bed.host {
      config = ([[lanes = 1, connections = { { "greedy", url = "http://127.0.0.1:%d", limits = { calls = 3 } } }]]):format(server.port),
      plugins = { ["vendors/greedy.lua"] = greedy },
    }
  end)
  teardown(function()
    server.close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("has one more wait until another has ended", function()
    local answers = {}
    for i = 1, 4 do answers[i] = begin(host, "/call", { timeout = 20 }) end
    bed.wait("three calls", function() return server.asked() == 3 end)
    bed.wait("four requests under way", function() return host:summary().tasks == 4 end)
    assert.equal(3, server.asked())
    assert.equal(3, host:plugin("greedy").limits.calls.used)
    server.answer(1)
    bed.wait("the fourth call", function() return server.asked() == 3 end)
    server.answer(3)
    for i = 1, 4 do assert.same({ status = 200 }, answers[i]()) end
    assert.equal(3, host:plugin("greedy").limits.calls.used)
  end)

  it("is told where none ends in time, and a place is free again afterwards", function()
    local answers = {}
    for i = 1, 3 do answers[i] = begin(host, "/call", { timeout = 20 }) end
    bed.wait("three calls", function() return server.asked() == 3 end)
    local answer = begin(host, "/call", { timeout = 0.05 })()
    assert.equal("limit", answer.code)
    assert.matches("3 calls are open at once, its limit (limits.calls), and none of them ended in ", answer.why, 1, true)
    server.answer(3)
    for i = 1, 3 do assert.same({ status = 200 }, answers[i]()) end
    local again = begin(host, "/call", { timeout = 20 })
    bed.wait("one call", function() return server.asked() == 1 end)
    server.answer(1)
    assert.same({ status = 200 }, again())
    assert.equal(0, host:summary().timers)
  end)
end)

-- Each kind of call, to a server that takes the connection and says nothing.
local speaker = [[
local plugin = ...
local http, mqtt, smtp = require "neap.http", require "neap.mqtt", require "neap.smtp"
local config = plugin:config { http = { "string" }, mqtt = { "string" }, smtp = { "string" } }
local broker = mqtt.client { url = config.mqtt }
local calls = {
  http = function(t) return http.get { url = config.http, timeout = t } end,
  mqtt = function(t) return broker:publish({ { topic = "a" } }, { timeout = t }) end,
  smtp = function(t) return smtp.send { url = config.smtp, starttls = false, from = "a@ward.example", to = { "b@ward.example" }, text = "x", timeout = t } end,
}
plugin:serve { "POST /call", keep = false, body = { kind = { "string" }, timeout = { "number" } }, handler = function(req)
  local res, why, code = calls[req.body.kind](req.body.timeout)
  return 200, { done = res ~= nil, why = why, code = code }
end }
]]

describe("mails and MQTT calls, as HTTP calls,", function()
  local host, listener
  setup(function()
    listener = assert(socket.bind("127.0.0.1", 0))
    listener:settimeout(0)
    local _, port = listener:getsockname()
    host = bed.host {
      config = ([[lanes = 1, connections = { { "speaker", http = "http://127.0.0.1:%d/", mqtt = "mqtt://127.0.0.1:%d", smtp = "smtp://127.0.0.1:%d", limits = { calls = 1 } } }]]):format(port, port, port),
      plugins = { ["vendors/speaker.lua"] = speaker },
    }
  end)
  teardown(function()
    listener:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  for _, kind in ipairs { "http", "mqtt", "smtp" } do
    it(kind .. " keeps any other waiting while it is open, and no longer", function()
      local first = begin(host, "/call", { kind = kind, timeout = 60 })
      local there
      bed.wait("its connection", function()
        there = there or listener:accept()
        return there
      end)
      for _, other in ipairs { "http", "mqtt", "smtp" } do
        local answer = begin(host, "/call", { kind = other, timeout = 0.05 })()
        assert.equal("limit", answer.code, other)
        assert.matches("1 calls are open at once, its limit (limits.calls), and none of them ended in ", answer.why, 1, true)
      end
      assert.is_nil(listener:accept())
      assert.equal(1, host:plugin("speaker").limits.calls.used)
      local waits = begin(host, "/call", { kind = "http", timeout = 60 })
      bed.wait("both under way", function() return host:summary().tasks == 2 end)
      there:close()
      assert.is_false(first().done)
      local turn
      bed.wait("the one that waited", function()
        turn = turn or listener:accept()
        return turn
      end)
      turn:close()
      assert.equal("cut", waits().code)
    end)
  end
end)

local keeper = [[
local plugin = ...
plugin:serve { "POST /put", keep = false, body = { key = { "string" }, n = { "integer" }, again = { "integer", optional = true }, sealed = { "boolean", optional = true } }, handler = function(req)
  for _ = 1, req.body.again or 1 do
    plugin.store:put(req.body.key, ("x"):rep(req.body.n), nil, req.body.sealed and "sealed" or nil)
  end
  return 200
end }
plugin:serve { "POST /caught", keep = false, body = { n = { "integer" } }, handler = function(req)
  local ok, why = pcall(plugin.store.put, plugin.store, "caught", ("x"):rep(req.body.n))
  plugin.store:put("small", 1)
  return 200, { ok = ok, why = why }
end }
plugin:serve { "POST /remove", keep = false, body = { key = { "string" } }, handler = function(req)
  plugin.store:delete(req.body.key)
  return 200
end }
plugin:serve { "POST /many", keep = false, body = { n = { "integer" }, bytes = { "integer" } }, handler = function(req)
  for i = 1, req.body.n do plugin.store:put("many-" .. i, ("x"):rep(req.body.bytes)) end
  return 200
end }
plugin:serve { "POST /seen", keep = false, handler = function() plugin:emit { device = "d", metric = "seen", value = 1 } return 200 end }
]]

local throttled = [[
local plugin = ...
plugin:on({ metric = "seen" }, function(r) plugin:throttle(("k"):rep(500) .. r.id, "1h") end)
]]

describe("the limit of what is stored", function()
  local host
  local function kept(owner)
    local counted = host:sql(("select sum(length(cast(key as blob)) + length(cast(value as blob))) as n from kv where space like '%%:%s'"):format(owner))[1].n
    local known = host:sql(("select bytes from kv_sizes where owner = '%s'"):format(owner))[1]
    assert.equal(tonumber(counted) or 0, known and tonumber(known.bytes) or 0)
    return known and tonumber(known.bytes) or 0
  end
  local function put(key, n, more)
    local body = { key = key, n = n - #key - 2 } -- as JSON, and the key
    for k, v in pairs(more or {}) do body[k] = v end
    return (host:request("POST", "/put", body))
  end
  setup(function()
    host = bed.host {
      config = [[lanes = 1, quarantine = false, connections = { { "keeper", limits = { store = "4KiB" } } }, rules = { { "throttled", limits = { store = "4KiB" } } }]],
      plugins = { ["vendors/keeper.lua"] = keeper, ["rules/throttled.lua"] = throttled },
    }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  it("one below, at the bound, one above", function()
    assert.equal(200, put("a", 1000))
    assert.equal(200, put("b", 3095))
    assert.equal(4095, kept "keeper")
    assert.equal(200, put("b", 3096))
    assert.equal(4096, kept "keeper")
    assert.same({ used = 4096, limit = 4096 }, host:plugin("keeper").limits.store)
    assert.equal(500, put("b", 3097))
    assert.equal(4096, kept "keeper")
    host:wait_text "plugin.store: b: with its 3097 bytes it would keep 4097 bytes, and its limit is 4096 (limits.store of \\\"keeper\\\" in neap.lua)"
  end)

  it("counts what is there: what is replaced and deleted makes room, also within one call", function()
    assert.equal(200, put("b", 3096, { again = 50 }))
    assert.equal(200, put("b", 2096))
    assert.equal(200, put("c", 1000))
    assert.equal(500, put("d", 10))
    assert.equal(200, (host:request("POST", "/remove", { key = "c" })))
    assert.equal(200, put("d", 10))
    assert.equal(3106, kept "keeper")
    assert.equal(200, (host:request("POST", "/remove", { key = "d" })))
    assert.equal(500, (host:request("POST", "/many", { n = 10, bytes = 100 })))
    assert.equal(200, (host:request("POST", "/many", { n = 9, bytes = 100 })))
    assert.equal(4068, kept "keeper")
  end)

  it("leaves what was put before to who catches it", function()
    assert.equal(200, (host:request("POST", "/remove", { key = "b" })))
    local status, answer = host:json("POST", "/caught", { n = 4000 })
    assert.equal(200, status)
    assert.is_false(answer.ok)
    assert.matches("limits.store", answer.why, 1, true)
    assert.equal("1", tostring(host:sql("select value from kv where space = 'plugin:keeper' and key = 'small'")[1].value))
  end)

  it("counts what is sealed as it is stored", function()
    local before = kept "keeper"
    assert.equal(200, put("s", 100, { sealed = true }))
    assert.is_true(kept "keeper" > before + 100)
    assert.equal(500, put("s", 4096 - before - 1, { sealed = true }))
  end)

  it("holds over a restart", function()
    local before = kept "keeper"
    host:restart()
    assert.equal(before, kept "keeper")
    assert.equal(500, put("z", 4097 - before))
    assert.equal(200, put("z", 4096 - before))
    assert.equal(4096, kept "keeper")
  end)

  it("is a rule's too: past it the reading is held", function()
    for i = 1, 9 do
      assert.equal(200, (host:request("POST", "/seen")))
      bed.wait("the rule to be done with it", function()
        return #host:sql "select * from kv where space = 'throttle:throttled'" + #host:sql "select * from held" >= i
      end)
    end
    local held = host:sql "select * from held"
    assert.equal(2, #held)
    assert.matches("its limit is 4096 (limits.store of \"throttled\" in neap.lua)", held[1].error, 1, true)
    assert.is_true(kept "throttled" <= 4096)
  end)
end)

describe("limits.running", function()
  it("counts what the plugin took of the processor, and not what a machine that stands still took of it", function()
    local host = bed.host {
      config = [[connections = { { "digger", limits = { running = "1s" } } }]],
      plugins = { ["vendors/digger.lua"] = [[
local plugin = ...
local crypto = require "neap.crypto"
local log = require "neap.log"
plugin:serve { "POST /dig", handler = function()
  log.info "digging"
  local text = ("x"):rep(1 << 20)
  for _ = 1, 100 do crypto.sha256(text) end
  return 200
end }]] },
    }
    local s = assert(socket.connect("127.0.0.1", host.port))
    assert(s:send "POST /dig HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    host:wait_for '"digging"'
    process.kill(host.pid, 19) -- SIGSTOP
    local stopped = socket.gettime()
    bed.wait("the budget to be over by the clock", function() return socket.gettime() - stopped > 1.5 end)
    process.kill(host.pid, 18) -- SIGCONT
    s:settimeout(60)
    assert.equal("HTTP/1.1 200 OK", (s:receive "*l"))
    s:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
