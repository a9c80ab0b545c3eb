-- What a plugin keeps is brought from one version to the next as a part of the switch: once, whole, also under load and over kills.
local bed = require "bed"
local json = require "neap.json"
local process = require "process"
local socket = require "socket"

-- Counts the pushes of each device. Version 1 keeps a number, version 2 a table, version 3 a text.
local COUNT = [[
local plugin = ...
%s
plugin:serve { "POST /push", handler = function(req)
  local device = req.body.data.deviceSn
  local kept = plugin.store:get(device)
  %s
  return 200, { code = 0, msg = "ok" }
end }
plugin:serve { "GET /v", handler = function() return 200, { version = %q } end }
]]
local WRITES = {
  'assert(kept == nil or math.type(kept) == "integer", "this is for numbers")\n  plugin.store:put(device, (kept or 0) + 1)',
  'assert(kept == nil or kept.n, "this is for tables")\n  plugin.store:put(device, { n = (kept and kept.n or 0) + 1 })',
  'assert(kept == nil or tonumber(kept), "this is for texts")\n  plugin.store:put(device, tostring((tonumber(kept) or 0) + 1))',
}
local TO_2 = [[
plugin:migrate(1, function(store)
  local after
  repeat
    local page = store:list("", { after = after, limit = 20 })
    for _, row in ipairs(page) do store:put(row.key, { n = row.value }); after = row.key end
  until #page < 20
end)]]
local TO_3 = [[
plugin:migrate(2, function(store)
  for _, row in ipairs(store:list("", { limit = 1000 })) do store:put(row.key, tostring(row.value.n)) end
end)]]
local function count(version, migrations) return COUNT:format(migrations or "", WRITES[version], tostring(version)) end

describe("a migration", function()
  local host
  after_each(function()
    if host then assert.same({ "exit", 0 }, { host:stop() }, host.output) end
    host = nil
  end)

  local function file(name) return host.plugins .. "/" .. name end
  local function version() return (select(2, host:json("GET", "/v")) or {}).version end
  local function in_force(want) return bed.wait("version " .. want, function() return version() == want end) end
  local function kept(instance)
    local list = {}
    for _, row in ipairs(host:sql("select key, value from kv where space = 'plugin:" .. (instance or "c") .. "'")) do
      list[row.key] = json.decode(row.value)
    end
    return list
  end
  local function state(instance)
    local row = host:sql("select value from kv where space = 'neap.state' and key = '" .. (instance or "c") .. "'")[1]
    return row and tonumber(row.value)
  end
  local function push(device, n)
    for _ = 1, n or 1 do
      local status, answer = host:json("POST", "/push", { data = { deviceSn = device } })
      assert.same({ 200, 0 }, { status, answer.code })
    end
  end
  local function failing(text, instance)
    return bed.wait("the failure", function()
      local p = host:plugin(instance or "c")
      return p and p.error and p.error:find(text, 1, true) and p
    end)
  end
  local function begin(text, config)
    host = bed.host { plugins = { ["vendors/c.lua"] = text }, config = "lanes = 2, probation = '0s'," .. (config or "") }
  end

  it("runs once, with the generation's own commit, in its order; what is new has nothing to migrate", function()
    begin(count(1))
    push("a", 3)
    push("b")
    assert.is_nil(state())
    bed.replace(file "vendors/c.lua", count(3, TO_2 .. "\n" .. TO_3))
    in_force "3"
    assert.same({ a = "3", b = "1" }, kept())
    assert.equal(3, state())
    host:wait_for "what it keeps was migrated[^\n]*\"from\":\"1\",\"to\":\"3\""
    push("a")
    assert.equal("4", kept().a)
    bed.replace(file "vendors/c.lua", count(3, TO_2 .. "\n" .. TO_3) .. "-- changed")
    bed.wait("generation 3", function() return host:plugin("c").generation == 3 end)
    host:restart()
    push("a")
    assert.same({ a = "5", b = "1" }, kept())
    bed.write(file "vendors/d.lua", (count(2, 'plugin:migrate(1, function() error "nothing to do" end)'):gsub("/push", "/d"):gsub("/v\"", "/dv\"")))
    bed.wait("d", function() return host:plugin "d" and host:plugin("d").state == "in force" end)
    assert.equal(2, state "d")
  end)

  it("that fails leaves the old generation in force, and what it keeps as it was", function()
    begin(count(1))
    push("a", 2)
    local half = "store:put('a', 'half'); store:put('other', 1)\n"
    for _, c in ipairs {
      { "error 'on purpose'", "vendors/c.lua:3: on purpose" },
      { "while true do end", "its budget of" },
      { "local s = 'x' while true do s = s .. s end", "memory" },
      { "return nil, 'too old for me'", "too old for me" },
      { "require('neap.http').get { url = 'http://127.0.0.1/' }", "in a migration" },
      { "plugin:emit { device = 'd', metric = 'm', value = 1 }", "plugin:emit does not belong in a migration" },
      { "store:put('f', function() end)", "vendors/c.lua:3:" },
    } do
      bed.replace(file "vendors/c.lua", count(2, "plugin:migrate(1, function(store) " .. half .. c[1] .. "\nend)"))
      local p = failing(c[2])
      assert.matches("the migration from version 1", p.error, 1, true)
      assert.matches("plugins/vendors/c.lua", p.error, 1, true)
      assert.same({ "in force", 1 }, { p.state, p.generation })
    end
    push("a")
    assert.same({ a = 3 }, kept())
    assert.equal("1", version())
    host:restart() -- such a file at a start: the last good generation goes on
    push("a")
    assert.same({ a = 4 }, kept())
    assert.equal("last good", host:plugin("c").state)
    bed.replace(file "vendors/c.lua", count(2, TO_2))
    in_force "2"
    assert.same({ a = { n = 4 } }, kept())
  end)

  it("cannot be undone by going back: that is refused, until a migration onwards says how", function()
    begin(count(1))
    push("a", 2)
    bed.replace(file "vendors/c.lua", count(2, TO_2))
    in_force "2"
    local out, code = bed.run { bed.neap, "rollback", "c", "--store", host.store }
    assert.equal(1, code)
    assert.matches("what c keeps is at version 2, and this text knows it up to version 1", out, 1, true)
    assert.matches("plugin:migrate(2,", out, 1, true)
    local p = host:plugin "c"
    assert.same({ "in force", 2, nil }, { p.state, p.generation, p.error })
    host:restart(9)
    in_force "2"
    assert.equal("in force", host:plugin("c").state)
    bed.replace(file "vendors/c.lua", count(1))
    p = failing "what c keeps is at version 2"
    assert.same({ "in force", 2 }, { p.state, p.generation })
    push("a")
    host:restart()
    push("a")
    assert.same({ a = { n = 4 } }, kept())
    local back = "plugin:migrate(2, function(store) store:put('a', store:get('a').n) end)"
    bed.replace(file "vendors/c.lua", count(1, back))
    in_force "1"
    assert.same({ a = 4 }, kept())
    assert.equal(3, state())
    bed.replace(file "vendors/c.lua", count(2, "plugin:migrate(4, function() end)"))
    failing "the first migration is from version 4"
  end)

  it("is checked as the rest of a file is", function()
    begin(count(1))
    for _, c in ipairs {
      { "plugin:migrate(1, function() end) plugin:migrate(3, function() end)", "comes the one from version 2, got 3" },
      { "plugin:migrate(1, function() end) plugin:migrate(1, function() end)", "comes the one from version 2, got 1" },
      { "plugin:migrate('1', function() end)", "an integer from 1" }, { "plugin:migrate(0, function() end)", "an integer from 1" },
      { "plugin:migrate(1)", "a version and a function" } } do
      bed.replace(file "vendors/c.lua", count(1, c[1]))
      assert.matches("vendors/c.lua:2: plugin:migrate", failing(c[2]).error, 1, true)
    end
  end)

  it("under load fails no request, and loses and doubles nothing; a slow one makes them wait", function()
    begin(count(1))
    local acked = host.folder .. "/acked"
    local function load(seconds)
      return bed.start { bed.tools .. "/pusher", "--url", host.url .. "/push", "--connections", "32", "--devices", "50", "--seconds",
        tostring(seconds), "--rate", "1000", "--acked", acked, "--json" }
    end
    local p = load(3)
    local slow = "for _ = 1, 10000000 do end\n"
    bed.wait("some pushes", function() return #host:sql "select 1 from inbox limit 1" == 1 end)
    local texts = { count(2, TO_2), count(3, TO_2 .. TO_3), count(1, [[
plugin:migrate(3, function(store)
  ]] .. slow .. [[
  for _, row in ipairs(store:list("", { limit = 1000 })) do store:put(row.key, tonumber(row.value)) end
end)]]), count(2, TO_2:gsub("1,", "4,", 1)) }
    local want = { "2", "3", "1", "2" }
    for i, text in ipairs(texts) do
      local good = host:plugin("c").generation
      bed.replace(file "vendors/c.lua", count(1, "plugin:migrate(" .. i .. ", function(store) store:put('SN-0001', false) error 'no' end)"))
      failing ":2: no"
      assert.equal(good, host:plugin("c").generation)
      bed.replace(file "vendors/c.lua", text)
      in_force(want[i])
    end
    p:wait(60)
    local report = json.decode(p.output)
    assert.same({ 0, 0, 0 }, { report.failed, report.refused, report.reconnects }, p.output)
    local n, sum = 0, 0
    for _ in io.lines(acked) do n = n + 1 end
    for _, row in pairs(kept()) do sum = sum + row.n end
    assert.is_true(n > 500)
    assert.equal(n, sum)
    assert.equal(5, state())
    assert.equal(0, host:sql("select count(*) n from inbox where outcome <> 'done'")[1].n)
  end)

  it("comes before a call that began on the old generation commits: that runs again, on the new one", function()
    local receiver = bed.receiver()
    local text = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string" } }
%s
local function add()
  assert(http.get { url = config.url, timeout = 30 })
  local kept = plugin.store:get "n"
  %s
  return %q
end
plugin:serve { "POST /add", handler = function() return 200, { by = add() } end }
plugin:command { "add", handler = add }
plugin:serve { "GET /v", handler = function() return 200, { version = %q } end }
]]
    local one = text:format("", "plugin.store:put('n', (kept or 0) + 1)", "1", "1")
    local two = text:format("plugin:migrate(1, function(store) store:put('n', { n = store:get 'n' or 0 }) end)",
      "plugin.store:put('n', { n = kept.n + 1 })", "2", "2")
    begin(one, ([[connections = { { "c", url = "%s/" } }]]):format(receiver.url))
    receiver.answer = function() return false end -- they wait
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:settimeout(30)
    assert(s:send "POST /add HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    local command = bed.start { bed.neap, "call", "c", "add", "--store", host.store }
    receiver:wait(2)
    bed.replace(file "vendors/c.lua", two)
    in_force "2"
    assert.same({ n = { n = 0 } }, kept())
    receiver.answer = function() return 200, "" end
    for _, client in ipairs(receiver.clients) do client.socket:send "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" end
    receiver:wait(4) -- each asks once more, and the slower of them a third time
    bed.wait("the answer", function()
      receiver:poll()
      return socket.select({ s }, nil, 0)[1]
    end)
    local status, body = bed.receive(s)
    assert.same({ 200, "2" }, { status, json.decode(body).by })
    bed.wait("the command", function()
      receiver:poll()
      command:read()
      return command.ended
    end)
    command:wait()
    assert.same({ 0, true }, { command.code, command.output:find('"2"', 1, true) ~= nil }, command.output)
    assert.same({ n = { n = 2 } }, kept())
    s:close()
    receiver:close()
  end)

  it("of a rule stands between two readings: none is lost, doubled or ruled on by the wrong one", function()
    local rule = [[
local plugin = ...
%s
plugin:on({ metric = "level" }, function(r)
  local kept = plugin.store:get(r.device)
  %s
end)]]
    local to_2 = "plugin:migrate(1, function(store) for _, r in ipairs(store:list '') do store:put(r.key, { n = r.value }) end end)"
    local feed = [[
local plugin = ...
local n = 0
plugin:serve { "POST /push", handler = function(req)
  plugin:emit { device = req.body.data.deviceSn, metric = "level", value = 1, key = req.body.data.testId }
  return 200, { code = 0, msg = "ok" }
end }]]
    host = bed.host { plugins = { ["vendors/feed.lua"] = feed,
      ["rules/c.lua"] = rule:format("", "plugin.store:put(r.device, (kept or 0) + 1)") }, config = "lanes = 2, probation = '0s'" }
    local p = bed.start { bed.tools .. "/pusher", "--url", host.url .. "/push", "--connections", "16", "--devices", "20", "--rate", "1000",
      "--seconds", "2", "--json" }
    bed.wait("some", function() return (host:sql("select count(*) n from readings")[1]).n > 100 end)
    bed.replace(file "rules/c.lua", rule:format(to_2, "plugin.store:put(r.device, { n = (kept and kept.n or 0) + 1 })"))
    bed.wait("version 2", function() return state() == 2 end)
    p:wait(60)
    local function sum()
      local n = 0
      for _, row in pairs(kept()) do n = n + (type(row) == "table" and row.n or 0) end
      return n
    end
    local readings = host:sql("select count(*) n from readings")[1].n
    assert.equal(json.decode(p.output).ok, readings)
    bed.wait("all to be ruled on", function() return sum() >= readings end)
    assert.equal(readings, sum())
    assert.equal(0, host:sql("select count(*) n from held")[1].n)
  end)

  it("and its generation are there both or neither, wherever neap is killed", function()
    begin(count(1))
    push("a", 2)
    for i = 1, 8 do
      bed.replace(file "vendors/c.lua", count(1))
      local slow = "for _ = 1, 3000000 do end\n"
      bed.replace(file "vendors/c.lua", count(2, (TO_2:gsub("local after", slow .. "  local after"))))
      process.sleep(0.02 + 0.02 * i) -- somewhere in it
      host:stop(9)
      local good = #host:sql "select number from generations where instance = 'c' and number = 2" == 1
      if good then
        assert.equal(2, state())
        assert.same({ a = { n = 2 } }, kept())
        break
      end
      assert.is_true(state() == nil or state() == 1)
      assert.same({ a = 2 }, kept())
      bed.replace(file "vendors/c.lua", count(1))
      host:begin()
    end
    if not host.how then host:stop() end
    host:begin()
  end)

  it("holds back a set that is atomic", function()
    begin(count(1), 'deploy = "atomic"')
    bed.write(file ".hold", "")
    bed.write(file "vendors/new.lua", "local plugin = ...\nplugin:serve { 'GET /new', handler = function() return 200 end }")
    bed.replace(file "vendors/c.lua", count(2, "plugin:migrate(1, function() error 'no' end)"))
    push("a")
    os.remove(file ".hold")
    failing "the migration from version 1"
    failing("held back", "new")
    assert.equal(404, (host:request("GET", "/new")))
    bed.replace(file "vendors/c.lua", count(2, TO_2))
    in_force "2"
    assert.equal(200, (host:request("GET", "/new")))
    assert.same({ a = { n = 1 } }, kept())
  end)
end)
