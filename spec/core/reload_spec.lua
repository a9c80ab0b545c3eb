-- What a change of a plugin's file, of the folder it is in, or of neap.lua does to a running host: all of it, or nothing, within
-- a second.
local bed = require "bed"
local process = require "process"
local socket = require "socket"

-- A vendor whose answer tells which text of it is in force.
local function vendor(answer, path)
  return ([[
local plugin = ...
plugin:serve { "GET %s", handler = function() return 200, { version = %q } end }
]]):format(path or "/v", answer)
end

local SINK = [[
local plugin = ...
plugin:deliver { options = {}, handler = function() return true end }
]]

describe("reload", function()
  local host
  after_each(function()
    if host then
      local how, code = host:stop()
      assert.equal("exit 0", how .. " " .. code, host.output)
      host = nil
    end
  end)

  local function version(path)
    local status, answer = host:json("GET", path or "/v")
    return status == 200 and answer.version or status
  end
  local function in_force(want, path)
    return bed.wait("version " .. tostring(want), function() return version(path) == want end)
  end
  local function file(name) return host.plugins .. "/" .. name end
  local function settled(instance, fn)
    return bed.wait("the state of " .. instance, function()
      local p = host:plugin(instance)
      return p and fn(p) and p
    end)
  end
  local function generations(instance)
    return host:sql(("select count(*) n from generations where instance = '%s' and verdict = 'good'"):format(instance))[1].n
  end
  -- A change elsewhere that is in force: every look at the files up to then has been made.
  local marks = 0
  local function looked()
    marks = marks + 1
    bed.replace(file "vendors/mark.lua", vendor("mark " .. marks, "/mark"))
    in_force("mark " .. marks, "/mark")
  end

  describe("of a host that finds no plugin at its start", function()
    local RULE = [[
local plugin = ...
plugin:on({ metric = "temp" }, function(r) plugin.store:put(r.device, r.value) end)]]
    local function bring(device, ...)
      bed.write(host.folder .. "/in.ndjson", ('{"vendor":"v","device":%q,"metric":"temp","value":1,"at":1700000000000}\n'):format(device))
      assert.equal(0, select(2, bed.run { bed.neap, "import", host.folder .. "/in.ndjson", "--store", host.store, ... }))
    end
    local function start()
      host = bed.host { plugins = { ["rules/r.lua"] = RULE }, config = "lanes = 1" }
      host:stop()
      bring("early", "--rules")
      assert(os.rename(host.plugins, host.plugins .. ".away"))
      assert(os.execute(("mkdir '%s'"):format(host.plugins)))
      host:begin()
      host:wait_for "there is no plugin at all"
      bring "quiet" -- of another partition: once all others are past it the router has looked at both
      bed.wait("the router", function() return #host:sql "select * from cursors where seq > 0" == 63 end)
    end

    it("lets readings wait for rules, and runs them once they are there", function()
      start()
      assert(os.remove(host.plugins) and os.rename(host.plugins .. ".away", host.plugins))
      bed.wait("the rule", function() return #host:sql "select * from kv where space = 'plugin:r' and key = 'early'" == 1 end)
    end)

    it("lets them pass once somebody says that it is to be empty", function()
      start()
      assert.equal(0, select(2, bed.run { bed.neap, "reload", "--empty", "--store", host.store }))
      bed.wait("the cursor", function() return #host:sql "select * from cursors where seq > 0" == 64 end)
    end)
  end)

  describe("takes what is written", function()
    it("within a second, for a rule, with no restart", function()
      local receiver = bed.receiver()
      local rule = [[
local plugin = ...
plugin:on({ metric = "glucose", below = %s }, function(r) plugin:send("desk", { value = r.value, rule = %q }) end)
]]
      host = bed.host { plugins = { ["vendors/sinocare.lua"] = bed.read(bed.plugins .. "/vendors/sinocare.lua"),
        ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua"),
          ["rules/low.lua"] = rule:format("3.9", "first") },
        config = ([[rules = { { "low" } }, destinations = { desk = { "webhook", url = "%s" } }]]):format(receiver.url) }
      host:json("POST", "/sinocare/push", bed.push { testId = "a", testResult = "3.5" })
      receiver:wait(1)
      assert.equal("first", receiver.requests[1].json.rule)
      bed.replace(file "rules/low.lua", rule:format("3.0", "second"))
      settled("low", function(p) return p.generation == 2 end)
      host:json("POST", "/sinocare/push", bed.push { testId = "b", testResult = "3.5", serialNo = 2,
        testTime = "2021-11-02 12:36:33" })
      host:json("POST", "/sinocare/push", bed.push { testId = "c", testResult = "2.9", serialNo = 3,
        testTime = "2021-11-02 12:39:33" })
      receiver:wait(2)
      assert.equal("second", receiver.requests[2].json.rule)
      assert.equal(2.9, receiver.requests[2].json.value)
      assert.equal(0, host:sql("select count(*) n from held")[1].n)
      receiver:close()
    end)

    it("in place, renamed over, removed and created, or appended to", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "0" } }
      assert.equal("0", version())
      bed.write(file "vendors/v.lua", vendor "1")
      in_force "1"
      bed.replace(file "vendors/v.lua", vendor "2")
      in_force "2"
      os.remove(file "vendors/v.lua")
      bed.write(file "vendors/v.lua", vendor "3")
      in_force "3"
      local f = assert(io.open(file "vendors/v.lua", "ab"))
      f:write "plugin:serve { 'GET /more', handler = function() return 200, { version = 'more' } end }\n"
      f:close()
      in_force("more", "/more")
      assert.equal("3", version())
    end)

    it("half, and then whole: what is broken never serves", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "old" } }
      local text = vendor "new"
      local f = assert(io.open(file "vendors/v.lua", "wb"))
      f:write(text:sub(1, #text // 2))
      f:flush()
      local p = settled("v", function(p) return p.error end)
      assert.truthy(p.error:find("plugins/vendors/v.lua:%d+:"), p.error)
      assert.equal("in force", p.state)
      assert.equal("old", version())
      f:write(text:sub(#text // 2 + 1))
      f:close()
      in_force "new"
      assert.is_nil(host:plugin("v").error)
    end)

    it("from a git checkout of another branch", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "main" } }
      local function git(command)
        local who = "-c user.name=Test -c user.email=test@example.com"
        assert(os.execute(("cd '%s' && git %s %s >/dev/null 2>&1"):format(host.plugins, who, command)))
      end
      git "init -b main ."
      git "add -A"
      git "commit -m one"
      git "checkout -b other"
      bed.write(file "vendors/v.lua", vendor "other")
      bed.write(file "vendors/w.lua", vendor("beside", "/w"))
      git "add -A"
      git "commit -m two"
      in_force "other"
      in_force("beside", "/w")
      git "checkout main"
      in_force "main"
      in_force(404, "/w")
      git "checkout other"
      in_force "other"
      in_force("beside", "/w")
    end)

    it("when the folder is a symbolic link that is swapped", function()
      local folder = bed.folder()
      bed.write(folder .. "/release-1/vendors/v.lua", vendor "release 1")
      bed.write(folder .. "/release-2/vendors/v.lua", vendor "release 2")
      assert(os.execute(("ln -s release-1 '%s/current'"):format(folder)))
      bed.write(folder .. "/neap.lua", 'return { listen = "127.0.0.1:0", store = "neap.db", plugins = "current" }')
      host = bed.host { folder = folder, keep_config = true }
      assert.equal("release 1", version())
      assert(os.execute(("ln -s release-2 '%s/next' && mv -T '%s/next' '%s/current'"):format(folder, folder, folder)))
      in_force "release 2"
      assert(os.execute(("ln -sfn release-1 '%s/current'"):format(folder))) -- in two steps: removed, made
      in_force "release 1"
      bed.write(folder .. "/release-1/vendors/v.lua", vendor "edited behind the link")
      in_force "edited behind the link"
      assert.is_nil(host:read():find("retired", 1, true))
    end)

    it("when a file is dropped in, with no other edit", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "v" } }
      assert.equal(404, version "/w")
      bed.write(file "vendors/deeper/w.lua", vendor("new", "/w"))
      in_force("new", "/w")
      assert.equal("v", version())
    end)

    it("but not a file that was only touched", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "v" } }
      local before = host:plugin "v"
      assert(os.execute(("touch '%s'"):format(file "vendors/v.lua")))
      bed.replace(file "vendors/v.lua", vendor "v")
      looked()
      local now = host:plugin "v"
      assert.equal(before.generation, now.generation)
      assert.equal(before.since, now.since)
      assert.equal(1, generations "v")
    end)
  end)

  describe("of a file that is gone", function()
    it("retires the plugin: its route, its destination, its states", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "v", ["vendors/w.lua"] = vendor("w", "/w"),
        ["destinations/sink.lua"] = SINK }, config = "lanes = 2" }
      bed.wait("two lanes' states", function() return host:summary().states == 6 end)
      os.remove(file "vendors/v.lua")
      in_force(404)
      assert.is_nil(host:plugin "v")
      assert.equal("w", version "/w")
      os.remove(file "destinations/sink.lua")
      bed.wait("the destination to go", function() return not host:plugin "sink" end)
      bed.wait("the states to be closed", function() return host:summary().states == 2 end)
      host:wait_text "retired"
    end)

    it("holds what neap.lua lists, and goes on when it is back", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "v" }, config = [[connections = { { "v", name = "ward" } }]] }
      assert.equal("v", version())
      os.remove(file "vendors/v.lua")
      in_force(404)
      local p = host:plugin "ward"
      assert.equal("held", p.state)
      assert.truthy(p.error:find("neap.lua", 1, true), p.error)
      assert.truthy(p.error:find("v.lua", 1, true), p.error)
      bed.write(file "vendors/v.lua", vendor "v")
      in_force "v"
      p = host:plugin "ward"
      assert.equal("in force", p.state)
      assert.equal(1, p.generation) -- the same sources
      assert.is_nil(p.error)
    end)

    it("does nothing where it is back at once", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "0" } }
      local last = "0"
      for i = 1, 10 do
        os.remove(file "vendors/v.lua")
        local gone = socket.gettime()
        while socket.gettime() < gone + 0.1 do assert.equal(last, version()) end -- a slow editor
        last = tostring(i)
        bed.write(file "vendors/v.lua", vendor(last))
        bed.wait("version " .. i, function()
          local now = version()
          assert.truthy(now == last or now == tostring(i - 1), now)
          return now == last
        end)
      end
      assert.is_nil(host:read():find("retired", 1, true))
    end)
  end)

  describe("of neap.lua", function()
    local function config(inside, folder)
      return ("return { listen = \"127.0.0.1:0\", store = \"neap.db\", plugins = %q,\n%s\n}"):format(folder or host.plugins, inside)
    end
    local shown = [[
local plugin = ...
local config = plugin:config { limit = { "number", default = 1 } }
plugin:serve { "GET /limit", handler = function() return 200, { version = config.limit } end }
]]
    local rule = "local plugin = ...\nplugin:on({ metric = 'glucose' }, function(r) plugin.store:put('seen', r.id) end)"

    it("leaves what it does not list alone where it says so, as soon as it says so", function()
      host = bed.host { plugins = { ["vendors/shown.lua"] = shown, ["rules/r.lua"] = rule } }
      assert.equal(200, (host:request("GET", "/limit")))
      bed.replace(host.folder .. "/neap.lua", config [[unlisted = false, rules = { { "r" } }]])
      bed.wait("the vendor to be retired", function() return not host:plugin "shown" end)
      assert.equal("in force", host:plugin("r").state)
      assert.equal(404, (host:request("GET", "/limit")))
      bed.replace(host.folder .. "/neap.lua", config [[unlisted = false, connections = { { "shown" } }]])
      in_force(1, "/limit")
    end)

    it("takes a changed setting, a new entry, and one that is removed", function()
      host = bed.host { plugins = { ["vendors/shown.lua"] = shown, ["rules/r.lua"] = rule }, config = [[connections = { {
        "shown", limit = 3 } }]] }
      assert.equal(3, version "/limit")
      bed.replace(host.folder .. "/neap.lua", config [[connections = { { "shown", limit = 4 } }]])
      in_force(4, "/limit")
      bed.replace(host.folder .. "/neap.lua", config [[connections = { { "shown", limit = 4 }, { "shown", name = "b",
        mount = "/b", limit = 5 } }, rules = { { "r", name = "again" } }]])
      in_force(5, "/b/limit")
      settled("again", function(p) return p.state == "in force" end)
      assert.equal(4, version "/limit")
      bed.replace(host.folder .. "/neap.lua", config [[connections = { { "shown", limit = 4 } }]])
      in_force(404, "/b/limit")
      assert.is_nil(host:plugin "again")
      assert.is_nil(host:plugin "b")
      assert.equal(4, version "/limit")
    end)

    it("tells by neap reload what is gone and goes in a moment", function()
      host = bed.host { plugins = { ["vendors/shown.lua"] = shown, ["rules/r.lua"] = rule }, config = [[connections = { {
        "shown", limit = 3 } }]] }
      os.remove(host.plugins .. "/rules/r.lua")
      local list = host:command "reload"
      local summary = list[#list].summary
      if summary.gone == 0 then assert.is_nil(host:plugin "r") else assert.same({ 1, 0 }, { summary.gone, summary.removed }) end
      bed.wait("it to be retired", function() return not host:plugin "r" end)
      list = host:command "reload"
      assert.equal(0, list[#list].summary.gone)
    end)

    for how, back in pairs { ["as its file stands"] = false, ["that was gone back to"] = true } do
      it("retires what it lists no more and needs settings, " .. how, function()
        local needs = "local plugin = ...\nlocal config = plugin:config { n = { 'integer' } }\n"
          .. "plugin:on({ metric = 'glucose' }, function(r) plugin.store:put('seen', config.n) end)"
        host = bed.host { plugins = { ["rules/r.lua"] = needs }, config = [[rules = { { "r", n = 1 } }]] }
        if back then
          bed.replace(file "rules/r.lua", needs .. "\n-- 2")
          settled("r", function(p) return p.generation == 2 end)
          assert.equal(0, select(2, host:command("rollback", "r")))
        end
        bed.replace(host.folder .. "/neap.lua", config "")
        bed.wait("the rule to be retired", function()
          local p = host:plugin "r"
          return not p or p.state == "unconfigured"
        end)
        bed.wait("its lanes to close it", function() return host:summary().states == 0 end)
        bed.replace(host.folder .. "/neap.lua", config [[rules = { { "r", n = 2 } }]])
        settled("r", function(p) return p.generation > 0 and p.state ~= "unconfigured" and not p.error end)
      end)
    end

    for what, text in pairs { ["that does not parse"] = "return {\n  connections = {\n", ["that is empty"] = "",
      ["that raises"] = "\nerror 'oh'",
      ["with an unknown key"] = "return {\n conections = {} }", ["of binary"] = "\27Lua\0\0" } do
      it("that is broken, " .. what .. ", changes nothing and says where", function()
        host = bed.host { plugins = { ["vendors/shown.lua"] = shown }, config = [[connections = { { "shown", limit = 3 } }]] }
        bed.write(host.folder .. "/neap.lua", text)
        bed.wait("the error", function() return host:read():find("the configuration as it stands is not put in force", 1, true) end)
        assert.truthy(host.output:find '"error":"[^"\n]*neap%.lua[:"]', host.output)
        looked()
        assert.equal(3, version "/limit")
        local _, code = host:command "reload"
        assert.equal(1, code)
        assert.truthy(host:plugin("neap.lua").error:find "neap%.lua", host:plugin("neap.lua").error)
        bed.replace(host.folder .. "/neap.lua", config [[connections = { { "shown", limit = 7 } }]])
        in_force(7, "/limit")
        assert.is_nil(host:plugin "neap.lua")
      end)
    end

    it("puts a rule in force once its destination is there", function()
      host = bed.host { plugins = {
        ["rules/r.lua"] = "local plugin = ...\nlocal config = plugin:config { to = { 'destination' } }\n" ..
        "plugin:on({ metric = 'glucose' }, function(r) plugin:send(config.to, { id = r.id }) end)",
        ["destinations/sink.lua"] = SINK },
        config = [[rules = { { "r", to = "desk" } }]] }
      assert.truthy(host:plugin("r").error:find("desk", 1, true))
      assert.equal("held", host:plugin("r").state)
      bed.replace(host.folder .. "/neap.lua", config [[rules = { { "r", to = "desk" } }, destinations = { desk = { "sink" } }]])
      settled("r", function(p) return p.state == "in force" and not p.error end)
    end)
  end)

  describe("of what is wrong leaves the old one in force, and says where:", function()
    local function nest(n) return ("("):rep(n) .. "1" .. (")"):rep(n) end
    local wrong = {
      { "a syntax error", "local plugin = ...\nlocal x = = 1", "v%.lua:2:" },
      { "an error while it is loaded", "local plugin = ...\n\nerror 'oh'", "v%.lua:3: oh" },
      { "an error that is not a message", "local plugin = ...\nerror({})", "v%.lua" },
      { "a nil that is called", "local plugin = ...\nlocal a\na.b.c()", "v%.lua:3:" },
      { "a declaration that is wrong", "local plugin = ...\nplugin:serve { 'NOWHERE', handler = print }", "v%.lua:2: .*METHOD" },
      { "a schema that is wrong",
        "local plugin = ...\nplugin:serve {\n 'GET /v', query = { a = { 'nosuch' } }, handler = print }", "v%.lua" },
      { "a verb that does not exist", "local plugin = ...\nplugin:serv {}", "v%.lua:2: .*did you mean" },
      { "a module that does not exist", "local plugin = ...\nrequire 'neap.nosuch'", "v%.lua:2:" },
      { "a library that does not exist", "local plugin = ...\nrequire 'nosuch'", "v%.lua:2:" },
      { "nothing registered", "local plugin = ...", "v%.lua: registers nothing" },
      { "an empty file", "", "v%.lua: registers nothing" },
      { "two kinds in one", vendor "x" .. "plugin:on({ metric = 'm' }, print)", "v%.lua: .*split the file" },
      { "a required setting that nobody gave", "local plugin = ...\nplugin:config { url = { 'string' } }\n"
        .. vendor("x"):match "\n(.*)", "v%.lua.* url" },
      { "an endless loop", "local plugin = ...\n\nwhile true do end", "v%.lua:3:" },
      { "an endless loop in a coroutine",
        "local plugin = ...\nlocal f = coroutine.wrap(function()\nwhile true do end\nend)\nwhile true do pcall(f) end",
          "v%.lua:%d:" },
      { "endless recursion", "local plugin = ...\nlocal function f() return 1 + f() end\nf()", "v%.lua:2:" },
      { "all memory eaten", "local plugin = ...\nlocal t = {}\nfor i = 1, 1e9 do t[i] = ('x'):rep(100000) .. i end",
        "v%.lua:3: .*memory" },
      { "one huge string", "local plugin = ...\nlocal s = ('x'):rep(1 << 30)", "v%.lua:2: .*" },
      { "a binary chunk", string.dump(function() end), "v%.lua.*binary" },
      { "not Lua at all", ("\0\1\2\3"):rep(1000), "v%.lua:1:" },
      { "too deep for the compiler", "local plugin = ...\nlocal x = " .. nest(1000), "v%.lua: " },
      { "a route that another has", vendor("x", "/other"), "v%.lua: GET /other is served by other" },
      { "a yield", "local plugin = ...\ncoroutine.yield()", "v%.lua.*yield" },
      { "a name that the sandbox does not have", "local plugin = ...\nio.open 'x'", "v%.lua:2:" },
    }
    it("each of them, and the old text clears the error", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "good", ["vendors/other.lua"] = vendor("other", "/other") },
        config = "lanes = 2" }
      local before = bed.wait("states", function() local s = host:summary() return s.states == 4 and s end)
      for _, w in ipairs(wrong) do
        local mark = #host:read()
        bed.replace(file "vendors/v.lua", w[2])
        local p = settled("v", function(p) return p.error end)
        assert.equal("in force", p.state, w[1])
        assert.equal(1, p.generation, w[1])
        assert.truthy(p.error:find(w[3]), w[1] .. ": " .. p.error)
        assert.is_nil(p.error:find("^plugins/vendors/v.lua:? ?plugins/vendors/v.lua"), p.error)
        assert.is_nil(p.error:find "[%z\1-\8]", w[1])
        assert.equal("good", version(), w[1])
        assert.equal("other", version "/other", w[1])
        bed.wait("the log to tell of " .. w[1],
          function() return host:read():find("not put in force; the generation before goes on", mark, true) end)
        assert.truthy(host.output:sub(mark):find('"plugin":"v"', 1, true))
        bed.replace(file "vendors/v.lua", vendor "good")
        settled("v", function(now) return not now.error end)
      end
      assert.equal(1, generations "v")
      assert.equal(before.states, host:summary().states)
    end)

    it("a file that cannot be read", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "good" } }
      local path = file "vendors/v.lua"
      bed.replace(path, "-- " .. ("x"):rep(5 << 20)) -- larger than any plugin
      local p = settled("v", function(p) return p.error end)
      assert.truthy(p.error:find "^plugins/vendors/v%.lua: cannot be read", p.error)
      assert.equal("good", version())
      bed.replace(path, vendor "good")
      settled("v", function(now) return not now.error end)
      os.remove(path)
      assert(os.execute(("mkfifo '%s'"):format(path))) -- nobody ever writes into it
      p = settled("v", function(now) return now.error end)
      assert.truthy(p.error:find "^plugins/vendors/v%.lua", p.error)
      assert.equal("good", version())
    end)

    it("two files of one name", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "good" } }
      bed.write(file "rules/v.lua", vendor "bad")
      local p = settled("v", function(p) return p.error end)
      assert.truthy(p.error:find("plugins/vendors/v.lua", 1, true) and p.error:find("plugins/rules/v.lua", 1, true), p.error)
      assert.equal("good", version())
      os.remove(file "rules/v.lua")
      settled("v", function(now) return not now.error and now.generation == 1 end)
    end)

    it("an unknown setting, a missing one, one of the wrong type", function()
      local text = [[
local plugin = ...
local config = plugin:config { url = { "string" }, limit = { "number", default = 1 } }
plugin:serve { "GET /v", handler = function() return 200, { version = config.url } end }
]]
      host = bed.host { plugins = { ["vendors/v.lua"] = text }, config = [[connections = { { "v", url = "good" } }]] }
      local original = bed.read(host.folder .. "/neap.lua")
      for _, w in ipairs { { [[{ "v", url = "x", limt = 2 }]], "neap%.lua.*limt.*limit" }, { [[{ "v" }]], "neap%.lua.*url" }, {
        [[{ "v", url = "x", limit = "a" }]], "neap%.lua.*limit" } } do
        bed.replace(host.folder .. "/neap.lua", (original:gsub("{ \"v\", url = \"good\" }", function() return w[1] end)))
        local p = settled("v", function(p) return p.error end)
        assert.truthy(p.error:find(w[2]), p.error)
        assert.equal("good", version())
        bed.replace(host.folder .. "/neap.lua", original)
        assert.equal(1, settled("v", function(now) return not now.error end).generation)
      end
    end)

    it("a newcomer whose route is taken, until it is free", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "v" } }
      bed.write(file "vendors/a.lua", vendor "a") -- first in the alphabet, but second here
      bed.wait("the refusal", function() return host:read():find("GET /v is served by v already", 1, true) end)
      looked()
      assert.equal("v", version())
      bed.replace(file "vendors/v.lua", vendor("v", "/elsewhere"))
      in_force("v", "/elsewhere")
      in_force "a"
    end)
  end)

  describe("of a library", function()
    local user = [[
local plugin = ...
local lib = require "shared.text"
plugin:serve { "GET /%s", handler = function() return 200, { version = lib.text } end }
]]
    it("reloads those that require it; a broken one leaves them as they are", function()
      host = bed.host { plugins = { ["lib/shared/text.lua"] = "return { text = 'one' }", ["vendors/a.lua"] = user:format "a",
        ["vendors/b.lua"] = user:format "b",
        ["vendors/c.lua"] = vendor("c", "/c") } }
      assert.equal("one", version "/a")
      bed.replace(file "lib/shared/text.lua", "return { text = 'two' }")
      in_force("two", "/a")
      in_force("two", "/b")
      assert.equal(1, host:plugin("c").generation)
      assert.equal(2, host:plugin("a").generation)
      bed.replace(file "lib/shared/text.lua", "local x\nreturn { text = = }")
      for _, name in ipairs { "a", "b" } do
        local p = settled(name, function(p) return p.error end)
        assert.truthy(p.error:find("plugins/lib/shared/text.lua:2:", 1, true), p.error)
        assert.equal("two", version("/" .. name))
        assert.equal("in force", p.state)
      end
      assert.is_nil(host:plugin("c").error)
      bed.replace(file "lib/shared/text.lua", "return { text = 'two' }")
      for _, name in ipairs { "a", "b" } do
        assert.equal(2, settled(name, function(p) return not p.error end).generation)
      end
      os.remove(file "lib/shared/text.lua")
      for _, name in ipairs { "a", "b" } do
        assert.truthy(settled(name, function(p) return p.error end).error:find("shared.text", 1, true))
        assert.equal("two", version("/" .. name))
      end
      bed.write(file "lib/shared/text.lua", "return { text = 'three' }")
      in_force("three", "/a")
      in_force("three", "/b")
    end)

    it("a plugin that failed for want of a library comes up when it is there", function()
      host = bed.host { plugins = { ["vendors/a.lua"] = user:format "a" } }
      assert.equal(404, version "/a")
      bed.write(file "lib/shared/text.lua", "return { text = 'here' }")
      in_force("here", "/a")
    end)
  end)

  describe("at one epoch", function()
    it("ends a request in flight on the generation that it began on, then closes it", function()
      local receiver = bed.receiver()
      local waiting
      receiver.answer = function() return nil end
      local text = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string" } }
plugin:serve { "GET /v", handler = function() return 200, { version = "%s" } end }
plugin:serve { "GET /slow", handler = function()
  local answer = assert(http.get { url = config.url, timeout = 30 })
  return 200, { version = "%s", heard = answer.body }
end }
]]
      host = bed.host { plugins = { ["vendors/v.lua"] = text:format("old", "old") }, config = ([[lanes = 2, connections = { {
        "v", url = "%s/" } }]]):format(receiver.url) }
      local s = assert(socket.connect("127.0.0.1", host.port))
      s:settimeout(30)
      assert(s:send "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
      -- takes the request, and leaves it without an answer
      waiting = bed.wait("the handler's own request", function() return receiver.socket:accept() end)
      waiting:settimeout(30)
      bed.replace(file "vendors/v.lua", text:format("new", "new"))
      in_force "new"
      assert.equal(3, host:summary().states) -- two new ones, and the old one that still waits
      assert.equal(1, host:summary().tasks)
      assert(waiting:send "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nword")
      local status, body = bed.receive(s)
      assert.equal(200, status)
      assert.same({ version = "old", heard = "word" }, require "neap.json".decode(body))
      bed.wait("the old state to be closed", function() return host:summary().states == 2 end)
      assert(s:send "GET /v HTTP/1.1\r\nhost: x\r\n\r\n") -- the same connection, a new request
      status, body = bed.receive(s)
      assert.equal(200, status)
      assert.equal("new", require "neap.json".decode(body).version)
      s:close()
      waiting:close()
      receiver:close()
    end)

    it("so that nobody sees the old one after somebody has seen the new", function()
      -- a call that keeps its lane busy: it takes the new epoch later than the other
      local busy = "plugin:serve { 'GET /busy', handler = function() for _ = 1, 2000000 do end return 204 end }"
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "0" .. busy }, config = "lanes = 2" }
      -- connections on both lanes, each asked in turn: one answer is had before the next is asked for
      local socks = {}
      for i = 1, 16 do
        socks[i] = assert(socket.connect("127.0.0.1", host.port))
        socks[i]:settimeout(30)
        socks[i]:setoption("tcp-nodelay", true)
      end
      local newest, asked, turns = 0, 0, 0
      local function ask()
        local s = socks[asked % #socks + 1]
        asked = asked + 1
        assert(s:send "GET /v HTTP/1.1\r\nhost: x\r\n\r\n")
        local status, body = bed.receive(s)
        assert.equal(200, status)
        local seen = tonumber(body:match '"version":"(%d+)"')
        assert.is_true(seen >= newest, ("%d after %d"):format(seen, newest))
        if seen > newest then newest, turns = seen, turns + 1 end
      end
      local burner = assert(socket.connect("127.0.0.1", host.port))
      burner:settimeout(30)
      for i = 1, 30 do
        bed.replace(file "vendors/v.lua", vendor(tostring(i)) .. busy)
        bed.wait("version " .. i, function()
          assert(burner:send "GET /busy HTTP/1.1\r\nhost: x\r\n\r\n")
          for _ = 1, 50 do ask() end
          assert.equal(204, (bed.receive(burner)))
          return newest == i
        end)
        for _ = 1, 50 do ask() end
      end
      burner:close()
      assert.equal(30, turns)
      for _, s in ipairs(socks) do s:close() end
    end)

    it("two plugins that change together change together", function()
      local text = [[
local plugin = ...
local n = require "n"
plugin:serve { "GET /%s", handler = function() return 200, { version = n } end }
]]
      host = bed.host { plugins = { ["lib/n.lua"] = "return 0",
        ["vendors/a.lua"] = text:format "a",
        ["vendors/b.lua"] = text:format "b" }, config = "lanes = 2" }
      for i = 1, 10 do
        bed.replace(file "lib/n.lua", "return " .. i)
        bed.wait("version " .. i, function()
          local a = version "/a"
          local b = version "/b"
          assert.is_true(b >= a, ("%s after %s"):format(b, a))
          return a == i
        end)
      end
    end)
  end)

  it("never retires for want of descriptors", function()
    host = bed.host { plugins = { ["vendors/v.lua"] = vendor "v" }, config = [[connections = { { "v", name = "listed" } },
      lanes = 1]] }
    -- as if descriptors were used up by clients: no further one can be opened
    local open = host:summary().descriptors
    assert(os.execute(("prlimit --pid %d --nofile=%d:"):format(host.pid, open)))
    local s = assert(socket.connect("127.0.0.1", host.port)) -- it waits; nobody can take it in
    bed.write(file "vendors/v.lua", vendor "w")
    bed.wait("the host to say so", function() return host:read():find("Too many open files", 1, true) end)
    process.sleep(0.6) -- longer than a file has to be gone
    bed.replace(file "vendors/v.lua", vendor "x")
    process.sleep(0.6)
    assert(os.execute(("prlimit --pid %d --nofile=1000:"):format(host.pid)))
    s:close()
    in_force "x"
    assert.is_nil(host:read():find("not in force", 1, true))
    assert.is_nil(host.output:find("retired", 1, true))
  end)
end)
