-- Commands of a connection: neap call, neap keys, and plugin:command behind them. The real binary, over the admin socket.
local bed = require "bed"
local json = require "neap.json"
local unix = require "socket.unix"

local gauge = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string", default = "http://127.0.0.1:1" }, word = { "string", default = "first" } }
plugin:serve { "POST /gauge", handler = function() return 204 end }
plugin:command { "keys.issue", about = "issues a key", args = {
    name = { "string", min = 1, about = "whose it is" },
    days = { "integer", default = 30, min = 1, max = 365 },
    admin = { "boolean", optional = true },
    ratio = { "number", optional = true },
    pin = { "secret", optional = true },
    scopes = { "array", items = { "string" }, optional = true },
  },
  handler = function(args)
    local n = (plugin.store:get "issued" or 0) + 1
    plugin.store:put("issued", n)
    plugin.store:put("key:" .. args.name, args)
    args.number, args.secret = n, "sesame-" .. args.name
    args.pin = args.pin and "given"
    return args
  end }
plugin:command { "keys.list", handler = function() return { issued = plugin.store:get "issued" or 0 } end }
plugin:command { "keys.revoke", args = { name = { "string" } }, handler = function(args)
  plugin.store:put("key:" .. args.name, nil)
  plugin.store:put("issued", -1)
  if args.name == "nobody" then return nil, "no such key", 40401, "name" end
  if args.name == "held" then return nil, "it is held" end
  return true
end }
plugin:command { "emit", args = { device = { "string" } }, handler = function(args)
  plugin:emit { device = args.device, metric = "level", value = 1, unit = "m", at = 1600000000000 }
  plugin:device { device = args.device, name = "by a command" }
  plugin:event { device = args.device, type = "made", at = 1600000000000 }
  return #plugin:history(args.device, "level")
end }
plugin:command { "add", handler = function()
  local n = (plugin.store:get "sum" or 0) + 1
  plugin.store:put("sum", n)
  return n
end }
plugin:command { "raise", handler = function() plugin.store:put("issued", -1) error "it is broken" end }
plugin:command { "loop", handler = function() plugin.store:put("issued", -1) while true do end end }
plugin:command { "hoard", handler = function() local t = {} while true do t[#t + 1] = ("x"):rep(1000):rep(5000) .. #t end end }
plugin:command { "fetch", handler = function()
  plugin.store:put("fetched", true)
  local res, why = http.get { url = config.url .. "/x", timeout = 60 }
  return res and { status = res.status, body = res.body, word = config.word } or { why = why }
end }
plugin:command { "give", args = { what = { "string" } }, handler = function(args)
  local json = require_json
  if args.what == "nothing" then return end
  if args.what == "nil" then return nil end
  if args.what == "false" then return false end
  if args.what == "number" then return 1.5 end
  if args.what == "text" then return "a\27[31m\u{7f}\u{9b}\n\"b\"" end
  if args.what == "deep" then return { a = { { b = {} }, 2 } } end
  if args.what == "function" then return print end
end }
]]
gauge = gauge:gsub("  local json = require_json\n", "")
local rule = 'local plugin = ... plugin:on({ metric = "level" }, function() end)'

describe("a command", function()
  local host, receiver
  setup(function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/gauge.lua"] = gauge, ["rules/watch.lua"] = rule,
        ["vendors/mute.lua"] = 'local plugin = ... plugin:serve { "GET /mute", handler = function() return 204 end }' },
      config = ("connections = { { \"gauge\", name = \"ward-3\", url = %q } },"):format(receiver.url)
        .. "lanes = 2" }
  end)
  teardown(function()
    assert.same({ "exit", 0 }, { host:stop() })
    receiver:close()
  end)

  local function neap(...) return bed.run { bed.neap, ... } end
  local function call(...) return neap("call", "--store", host.store, ...) end
  local function result(...)
    local out, code = call("--json", "ward-3", ...)
    assert.equal(0, code, out)
    assert.equal(1, select(2, out:gsub("\n", "")))
    return (json.decode(out))
  end
  local function issued() return result("keys.list").issued end

  it("takes words and JSON, and prints its result once", function()
    assert.same({ name = "a", days = 30, number = 1, secret = "sesame-a" }, result("keys.issue", "name=a"))
    assert.same({ name = "12", days = 7, admin = true, ratio = 0.5, number = 2, secret = "sesame-12" },
      result("keys.issue", "name=12", "days=7", "admin=true", "ratio=0.5"))
    assert.same({ name = "b=c", days = 8, number = 3, scopes = { "r", "w" }, secret = "sesame-b=c" },
      result("keys.issue", "--args", '{"scopes":["r","w"],\n"days":8}', "name=b=c"))
    assert.equal("integer", math.type(result("keys.issue", "--args", '{"name":"x","days":9.0}').days))
    assert.equal(4, issued())
    assert.equal(4, host:sql("SELECT count(*) AS n FROM kv WHERE key LIKE 'key:%'")[1].n)
  end)

  it("is refused arguments that are not as it declares them, and is not run", function()
    local before = issued()
    for _, case in ipairs {
      { "name: required, but missing", "missing", "name" },
      { "days: expected an integer, got \"x\"", "type", "days", "name=a", "days=x" },
      { "days: expected at most 365, got 400", "range", "days", "name=a", "days=400" },
      { "admin: expected a boolean, got \"maybe\"", "type", "admin", "name=a", "admin=maybe" },
      { "day: no such argument, did you mean \"days\"?", "unknown", "day", "name=a", "day=1" },
      { "colour: no such argument", "unknown", "colour", "name=a", "colour=red" },
      { "days: expected an integer, got a string", "type", "days", "--args", '{"name":"a","days":"3"}' },
      { "scopes[2]: expected a string, got a number", "type", "scopes[2]", "--args", '{"name":"a","scopes":["r",2]}' },
    } do
      local out, code = call("ward-3", "keys.issue", table.unpack(case, 4))
      assert.equal(1, code)
      assert.matches("^neap: " .. case[3]:gsub("%p", "%%%0"), out)
      out, code = call("ward-3", "--json", "keys.issue", table.unpack(case, 4))
      assert.equal(1, code)
      local problem = json.decode(out)
      assert.same({ case[2], case[3] }, { problem.kind, problem.field })
      if case[1]:sub(1, 5) ~= "name:" then assert.equal(case[1], problem.error) end
    end
    assert.equal(before, issued())
  end)

  it("that refuses or fails keeps nothing, says why, and exits with 1", function()
    local before = issued()
    assert.same({ "neap: name: no such key\n", 1 }, { call("ward-3", "keys.revoke", "name=nobody") })
    assert.same({ error = "name: no such key", kind = 40401, field = "name" },
      (json.decode((call("ward-3", "keys.revoke", "name=nobody", "--json")))))
    assert.same({ error = "it is held", kind = "refused", field = "" },
      (json.decode((call("ward-3", "keys.revoke", "name=held", "--json")))))
    local out, code = call("ward-3", "raise")
    assert.equal(1, code)
    assert.matches("^neap: plugins/vendors/gauge%.lua:%d+: it is broken\n", out)
    host:wait_text "a command failed; nothing of it is kept"
    out, code = call("ward-3", "hoard")
    assert.equal(1, code)
    assert.matches("used up its budget of 64 MiB of memory", out)
    out, code = call("ward-3", "give", "what=function")
    assert.equal(1, code)
    assert.matches("the command's result cannot be JSON: a function", out)
    assert.equal(before, issued())
  end)

  it("that loops is ended by its budget, and the lane goes on", function()
    local before = issued()
    local out, code = call("ward-3", "loop")
    assert.equal(1, code)
    assert.matches("ran past its budget of 50000000 instructions", out)
    assert.equal(before, issued())
  end)

  it("gives any value that JSON can hold", function()
    for what, want in pairs { nothing = "null", ["nil"] = "null", ["false"] = "false", number = "1.5" } do
      assert.same({ want .. "\n", 0 }, { call("ward-3", "give", "what=" .. what) })
      assert.same({ want .. "\n", 0 }, { call("ward-3", "--json", "give", "what=" .. what) })
    end
    assert.same({ '{\n  "a": [\n    {\n      "b": {}\n    },\n    2\n  ]\n}\n', 0 }, { call("ward-3", "give", "what=deep") })
    local out = call("ward-3", "give", "what=text")
    assert.equal('"a\\u001b[31m\\u007f\\u009b\\n\\"b\\""\n', out:gsub("\\u001B", "\\u001b")) -- a text cannot steer the terminal
  end)

  it("emits, as other handlers do", function()
    assert.equal(0, result("emit", "device=d-1"))
    assert.equal(1, result("emit", "device=d-1")) -- it sees what was committed before; the second is the same reading
    assert.same({ { connection = "ward-3", vendor = "gauge", value = "1" } },
      (function()
        local rows = host:sql "SELECT connection, vendor, value FROM readings WHERE device = 'd-1'"
        for _, r in ipairs(rows) do r.value = tostring(math.tointeger(tonumber(r.value))) end
        return rows
      end)())
    assert.equal(1, host:sql("SELECT count(*) AS n FROM events WHERE type = 'made'")[1].n)
  end)

  it("is listed with what it takes", function()
    local out, code = call "ward-3"
    assert.equal(0, code)
    assert.matches("keys%.issue  issues a key\n    admin=boolean %(may be left out%)\n    days=integer %(may be left out%)\n"
      .. "    name=string  whose it is\n", out)
    assert.matches("\nkeys%.revoke\n    name=string\n", out)
    local list = host:command("call", "ward-3")
    assert.equal("keys.issue", list[1].command)
    assert.same({ type = "string", min = 1, about = "whose it is" }, list[1].args.name)
    assert.equal(#list - 1, list[#list].summary.commands)
    assert.same({ "it has no commands\n", 0 }, { call "mute" })
  end)

  it("that there is none of is named, with a near one", function()
    for _, case in ipairs {
      { 'neap: ward-3 has no command "keys.isue", did you mean "keys.issue"?', "ward-3", "keys.isue" },
      { 'neap: ward-3 has no command "sing": neap call ward-3 lists those that it has', "ward-3", "sing" },
      { "neap: mute has no commands", "mute", "sing" },
      { 'neap: no connection "ward-33", did you mean "ward-3"?', "ward-33", "sing" },
      { 'neap: no connection "elsewhere": neap plugins lists them', "elsewhere" },
      { "neap: watch is a rule: commands are a connection's", "watch", "sing" },
    } do
      assert.same({ case[1] .. "\n", 1 }, { call(table.unpack(case, 2)) })
    end
  end)

  it("has a command line that can be wrong, which is 2", function()
    for _, case in ipairs {
      { "neap call: of which connection?: neap help call", "call" },
      { 'neap call: "x": expected name=value', "call", "ward-3", "keys.issue", "x" },
      { 'neap call: "=x": expected name=value', "call", "ward-3", "keys.issue", "=x" },
      { "neap call: a: given twice", "call", "ward-3", "keys.issue", "a=1", "a=2" },
      { "neap call: a: given twice", "call", "ward-3", "keys.issue", "a=1", "--args", '{"a":1}' },
      { "neap call: --args: expected a JSON object, got [1]", "call", "ward-3", "keys.issue", "--args", "[1]" },
      { "neap call: --args: of which command?: neap help call", "call", "ward-3", "--args", "{}" },
      { "neap call: unknown option --arg, did you mean --args?", "call", "ward-3", "x", "--arg", "{}" },
      { "neap keys: expected issue, list or revoke: neap help keys", "keys" },
      { "neap keys: expected issue, list or revoke: neap help keys", "keys", "lose", "ward-3" },
      { "neap keys: of which connection?: neap help keys", "keys", "list" },
    } do
      assert.same({ case[1] .. "\n", 2 }, { neap(table.unpack(case, 2)) })
    end
    local out, code = call("ward-3", "x", "--args", "{")
    assert.equal(2, code)
    assert.matches("^neap call: %-%-args: not JSON", out)
    local folder = bed.folder()
    assert.same({ ("neap: no host is running at %s/neap.db: start one with neap run; one with another store is found by its neap.lua, or --store\n"):format(folder), 1 },
      { neap("call", "ward-3", "--store", folder .. "/neap.db") })
    assert.same({ '{"issued":', 0 }, (function(text, exit) return { text:match '^{"issued":', exit } end)(
      neap("keys", "list", "ward-3", "--json", "--config", host.folder)))
  end)

  it("of a key's: its secret is printed, and is in no line of the log", function()
    local out, code = neap("keys", "issue", "ward-3", "--store", host.store, "name=desk", "pin=hush-hush", "--json")
    assert.equal(0, code)
    assert.equal("sesame-desk", json.decode(out).secret)
    host:wait_for "\"command\":\"keys%.issue\""
    assert.equal("given", json.decode(out).pin)
    out, code = neap("keys", "revoke", "ward-3", "--store", host.store, "name=desk")
    assert.same({ "true\n", 0 }, { out, code })
    host:wait_for "\"command\":\"keys%.revoke\""
    assert.is_nil(host:read():find("sesame", 1, true))
    assert.is_nil(host:read():find("hush-hush", 1, true))
  end)

  it("called 64 times at once counts 64", function()
    local before = result "add"
    local clients = {}
    for i = 1, 64 do
      local s = unix.stream()
      assert(s:connect(host.store .. ".sock"))
      assert(s:send '{"command":"call","connection":"ward-3","name":"add"}\n')
      clients[i] = s
    end
    local seen = {}
    for _, s in ipairs(clients) do
      s:settimeout(30)
      local n = json.decode(assert(s:receive "*l")).result
      assert.is_nil(seen[n])
      seen[n] = true
      s:close()
    end
    for n = before + 1, before + 64 do assert.truthy(seen[n], n) end
    assert.equal(before + 65, result "add")
  end)

  it("goes on where whoever asked has left", function()
    for _ = 1, 20 do
      local s = unix.stream()
      assert(s:connect(host.store .. ".sock"))
      assert(s:send '{"command":"call","connection":"ward-3","name":"add"}\n')
      s:close()
    end
    local s = unix.stream() -- one that has closed only its sending half is answered
    assert(s:connect(host.store .. ".sock"))
    assert(s:send '{"command":"call","connection":"ward-3","name":"keys.list"}\n')
    s:shutdown "send"
    s:settimeout(30)
    assert.truthy(json.decode(assert(s:receive "*l")).result.issued)
    s:close()
    local last = result "add"
    bed.wait("all calls to be done", function() return host:summary().tasks == 0 end)
    assert.is_true(last >= 21)
  end)

  it("waits for http, while others are served, and ends on the generation that it began on", function()
    receiver.answer = function(r) return r.path == "/x" and 200 or 404, "hello" end
    local asked = bed.start { bed.neap, "call", "--store", host.store, "ward-3", "fetch", "--json" }
    bed.wait("the fetch to be under way", function() return host:summary().tasks > 0 end)
    assert.truthy(result "keys.list")
    assert.equal(204, (host:request("POST", "/gauge")))
    bed.replace(host.plugins .. "/vendors/gauge.lua", (gauge:gsub('default = "first"', 'default = "second"')))
    bed.wait("the next generation", function() return host:plugin("ward-3").generation == 2 end)
    bed.wait("the answer", function()
      receiver:poll()
      return asked:read() ~= ""
    end)
    assert.same({ "exit", 0 }, { asked:wait() })
    assert.same({ status = 200, body = "hello", word = "first" }, (json.decode(asked.output)))
    local again = bed.start { bed.neap, "call", "--store", host.store, "ward-3", "fetch", "--json" }
    bed.wait("the answer", function()
      receiver:poll()
      return again:read() ~= ""
    end)
    assert.equal("second", json.decode(again.output).word)
    again:wait()
  end)

  it("under way when neap is told to stop is finished, and whoever asked is answered", function()
    receiver.requests = {}
    local asked = bed.start { bed.neap, "call", "--store", host.store, "ward-3", "fetch", "--json" }
    bed.wait("the fetch to be under way", function() return host:summary().tasks > 0 end)
    host:command "plugins"
    require("process").kill(host.pid, 15)
    host:wait_text "stopping: what is under way is finished"
    bed.wait("the answer", function()
      receiver:poll()
      return asked:read() ~= ""
    end)
    assert.same({ "exit", 0 }, { asked:wait() })
    assert.equal("hello", json.decode(asked.output).body)
    assert.same({ "exit", 0 }, { host:wait() })
    assert.equal(1, bed.sql(host.store, "SELECT count(*) AS n FROM kv WHERE key = 'fetched'")[1].n)
    host:begin()
  end)

  it("whose result was printed is on disk, whatever happens then", function()
    for _ = 1, 5 do
      local n = result "add"
      host:restart(9)
      assert.equal(n + 1, result "add")
    end
  end)

  it("of a connection that is not in force says why", function()
    bed.replace(host.folder .. "/neap.lua", bed.read(host.folder .. "/neap.lua"):gsub("name = \"ward%-3\"", "name = \"ward-3\", wrod = 1"))
    host:stop()
    host:begin()
    bed.wait("the connection to be out of force", function()
      local out, code = call("ward-3", "keys.list")
      return code == 1 and out:find("wrod", 1, true)
    end)
  end)
end)

describe("plugin:command", function()
  local function check(text)
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua", "return {}")
    bed.write(folder .. "/plugins/vendors/x.lua", "local plugin = ...\n" .. text)
    return bed.run { bed.neap, "check", folder }
  end

  it("says what is wrong with a declaration", function()
    for text, want in pairs {
      ['plugin:command "x"'] = "x%.lua:2: plugin:command: expected a table, got a string",
      ['plugin:command { "a b", handler = print }'] = 'x%.lua:2: plugin:command: expected a name of words joined by "%." or "%-" first, got "a b"',
      ['plugin:command { ".a", handler = print }'] = "expected a name of words",
      ['plugin:command { handler = print }'] = 'expected a name of words joined by "%." or "%-" first, got "nil"',
      ['plugin:command { "a" }'] = "x%.lua:2: plugin:command: the handler has to be a function, got a nil",
      ['plugin:command { "a", handlr = print }'] = 'x%.lua:2: plugin:command: unknown option "handlr", did you mean "handler"%?',
      ['plugin:command { "a", args = { x = { "strin" } }, handler = print }'] = 'plugin:command a, args: field x: unknown type "strin"',
      ['plugin:command { "a", args = 1, handler = print }'] = "plugin:command: args has to be a table, got a number",
      ['plugin:command { "a", handler = print }\nplugin:command { "a", handler = print }'] = 'x%.lua:3: plugin:command: two commands are named "a"',
      ['plugin:command { "a", handler = print }\nplugin:on({}, print)'] = "a plugin is either a vendor %(serve, every, command%)",
    } do
      local out, code = check(text)
      assert.equal(1, code, out)
      assert.matches(want, out)
    end
    assert.same({ "1 plugin, all good\n", 0 }, { check 'plugin:command { "a.b-c.d2", handler = print }' })
  end)
end)
