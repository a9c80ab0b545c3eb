-- The command line, driven as a person drives it: the real binary against a real host.
local bed = require "bed"
local json = require "neap.json"

local function neap(...) return bed.run { bed.neap, ... } end

local vendor = [[
local plugin = ...
plugin:serve { "POST /push", body = { device = { "string" }, value = { "number" } }, handler = function(req)
  plugin:emit { device = req.body.device, metric = "level", value = req.body.value, unit = "m", at = 1000 * req.body.value }
  return 204
end }
]]

local function lines(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end

describe("neap without a host", function()
  it("explains itself", function()
    local out, code = neap()
    assert.equal(2, code)
    assert.matches("Usage: neap COMMAND", out)
    for _, args in ipairs { { "help" }, { "--help" }, { "-h" } } do
      out, code = neap(table.unpack(args))
      assert.equal(0, code)
      assert.matches("run %[CONFIG%]", out)
    end
    for _, command in ipairs { "run", "check", "plugins", "reload", "devices", "tail", "version", "help" } do
      out, code = neap("help", command)
      assert.equal(0, code)
      assert.matches("^neap " .. command, out)
      assert.matches("For example: neap " .. command, out)
      assert.same({ out, 0 }, { neap(command, "--help") })
    end
  end)

  it("wraps what it explains, and says of an option what it means to that command", function()
    for command in (neap "help"):gmatch "\n  (%l+) " do
      for line in (neap("help", command)):gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 100, line) end
    end
    assert.matches("%-%-vendor NAME +only this vendor's\n", (neap("help", "tail")))
    assert.matches("%-%-vendor NAME +whose devices those are that do not say it\n", (neap("help", "import")))
    assert.matches("See\n%-%-dry%-run first%.\n\nThe host is found", (neap("help", "replay")))
  end)

  it("colours a log for people on a terminal alone, or where that is asked for", function()
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua", 'return { listen = "127.0.0.1:0" }')
    local function log(env)
      local host = bed.start { "sh", "-c", ("%s exec %s run %s --log human"):format(env, bed.neap, folder) }
      host:wait_for "listening  "
      host:stop()
      return host.output
    end
    assert.is_nil(log "":find "\27")
    assert.matches("\27%[32m●\27%[0m ", log "CLICOLOR_FORCE=1")
    assert.is_nil(log "CLICOLOR_FORCE=1 NO_COLOR=1":find "\27")
  end)

  it("tells its version", function()
    local out, code = neap "version"
    assert.equal(0, code)
    assert.matches("^neap %d+%.%d+%.%d+\n$", out)
    assert.same({ out, 0 }, { neap "--version" })
  end)

  it("says what is wrong with a command line, and exits with 2", function()
    for _, case in ipairs {
      { "neap: unknown command \"rnu\", did you mean \"run\"?", "rnu" },
      { "neap: unknown command \"foo\": neap help lists them", "help", "foo" },
      { "neap run: unknown option --lissten, did you mean --listen?", "run", "--lissten", "x" },
      { "neap run: --json is not an option of this command", "run", "--json" },
      { "neap tail: --json takes no value", "tail", "--json=1" },
      { "neap tail: --last needs a value: --last N", "tail", "--last" },
      { "neap tail: --last: expected a number from 1 to 100000, got \"0\"", "tail", "--last", "0" },
      { "neap tail: --below: expected a number, got \"0x1\"", "tail", "--below=0x1" },
      { "neap run: \"b\" is one argument too many: neap help run", "run", "a", "b" },
      { "neap import: too many arguments: neap help import", "import", "a", "b" },
      { "neap backup: too many arguments: neap help backup", "backup", "a", "b" },
      { "neap run: --lanes: expected a number from 1 to 64, got \"65\"", "run", "--lanes", "65" },
      { "neap run: --log-level: expected debug, info, warn or error, got \"loud\"", "run", "--log-level", "loud" },
      { "neap run: --log: expected human or json, got \"xml\"", "run", "--log=xml" },
    } do
      local out, code = neap(table.unpack(case, 2))
      assert.same({ case[1] .. "\n", 2 }, { out, code })
    end
  end)

  it("says of a store whose folder is not there what to do", function()
    local folder = bed.folder()
    local out, code = neap("run", "--listen", "127.0.0.1:0", "--store", folder .. "/no/neap.db")
    assert.equal(1, code)
    assert.matches(("neap: store: the folder of %s/no/neap.db is not there: make it, or name another store\n"):format(folder), out, 1, true)
  end)

  it("says that no host is running", function()
    local folder = bed.folder()
    for _, command in ipairs { "plugins", "reload", "devices", "tail" } do
      local want = ("neap: no host is running at %s/neap.db: start one with neap run; one with another store is found by its neap.lua, or --store\n"):format(folder)
      assert.same({ want, 1 }, { neap(command, "--store", folder .. "/neap.db") })
      bed.write(folder .. "/neap.lua", "return { secret = env 'NEAP_SPEC_UNSET' }") -- only its store matters
      assert.same({ want, 1 }, { neap(command, folder) })
    end
    assert.same({ "CONFIG match: No such file or directory; tails are of readings, matches, messages, attempts and acknowledgements\n", 1 },
      { neap("tail", "match") })
    assert.same({ "CONFIG r2: No such file or directory\n", 1 }, { neap("explain", "r1", "r2") })
    bed.write(folder .. "/neap.lua", "return {\n store = \n}")
    local out, code = neap("plugins", folder .. "/neap.lua")
    assert.equal(1, code)
    assert.matches("^" .. folder:gsub("%p", "%%%0") .. "/neap%.lua:3: unexpected symbol", out)
  end)

  it("refuses a broken neap.lua before anything runs", function()
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua", "return { lanes = 2, listn = 'x' }")
    local want = folder .. "/neap.lua: listn: unknown, did you mean \"listen\"?"
    assert.same({ want .. "\n", 1 }, { neap("run", folder) })
    assert.same({ want .. "\n", 1 }, { neap("check", folder) })
    local out, code = neap("check", "--json", folder)
    assert.same({ { error = want }, 1 }, { json.decode(out), code })
  end)

  it("checks plugins without running them", function()
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua", "return {}")
    bed.write(folder .. "/plugins/vendors/gauge.lua", vendor)
    assert.same({ "1 plugin, all good\n", 0 }, { neap("check", folder) })
    bed.write(folder .. "/plugins/vendors/broken.lua", "local plugin = ...\nplugin:serve {\n")
    local out, code = neap("check", folder)
    assert.equal(1, code)
    assert.matches("broken%.lua:", out)
    out, code = neap("check", "--json", folder)
    local states = {}
    for _, line in ipairs(lines(out)) do
      local object = json.decode(line)
      states[object.instance] = object.state
    end
    assert.same({ { gauge = "good", broken = "broken" }, 1 }, { states, code })
    bed.write(folder .. "/plugins/rules/hot.lua", "local plugin = ...\nlocal c = plugin:config { limit = { 'number' } }\n" ..
      "plugin:on({ below = 1, above = c.limit }, print)")
    bed.write(folder .. "/neap.lua", "return { rules = { { 'hot', name = 'a', limit = 0 }, { 'hot', name = 'b', limit = 2 } } }")
    out = neap("check", folder)
    assert.matches("hot%.lua:3: [^\n]+ %(b%)\n", out)
    assert.no_match("%(a%)", out)
  end)
end)

describe("neap with a host", function()
  local host
  setup(function() host = bed.host { plugins = { ["vendors/gauge.lua"] = vendor } } end)
  teardown(function() host:stop() end)

  local function push(device, value)
    assert.equal(204, (host:request("POST", "/push", { device = device, value = value })))
  end

  it("shows plugins to a person and to a script", function()
    local out, code = neap("plugins", host.folder)
    assert.equal(0, code)
    assert.matches("^INSTANCE +PLUGIN +KIND +STATE +GENERATION +SINCE\n?", out)
    assert.matches("\ngauge +gauge +vendor +in force +1 +%d%d:%d%d:%d%d, %d+[smhd] ago\n", out)
    assert.not_matches("\27", out) -- no colour where it is no terminal
    local list = host:command "plugins"
    assert.equal("gauge", list[1].instance)
    assert.equal("in force", list[1].state)
    local summary = list[#list].summary
    assert.equal(host.pid, summary.pid)
    for _, name in ipairs { "lanes", "tasks", "states", "timers", "descriptors", "resident", "queue", "held", "epoch",
      "pending" } do
      assert.equal("integer", math.type(summary[name]), name)
    end
    assert.is_true(summary.descriptors > 0 and summary.resident > 0 and summary.states > 0)
  end)

  it("reloads, and says where it failed", function()
    bed.replace(host.plugins .. "/vendors/bad.lua", "local plugin = ...\nplugin:serve {\n")
    local out, code = neap("reload", host.folder)
    assert.equal(1, code)
    assert.matches("bad +%a+\n +%S*bad%.lua:%d+: ", out)
    assert.matches("1 failed", out)
    local list
    list, code = host:command "reload"
    assert.equal(1, code)
    assert.matches("bad%.lua:%d", list[1].error)
    assert.equal(1, list[#list].summary.failed)
    os.remove(host.plugins .. "/vendors/bad.lua")
    list, code = host:command "reload"
    assert.same({ 1, 0 }, { #list, code })
    assert.equal(0, list[1].summary.failed)
  end)

  it("lists devices", function()
    push("SN-\27[31m7", 3)
    push("SN-8", 4)
    local out, code = neap("devices", "--store", host.store)
    assert.equal(0, code)
    assert.matches("\nSN%-%?%[31m7 +gauge +gauge +%S", out) -- a name cannot steer the terminal
    assert.matches("\n2 devices\n$", out)
    local list = host:command "devices"
    assert.same({ "SN-\27[31m7", "SN-8", 2 }, { list[1].device, list[2].device, list[3].summary.devices })
  end)

  it("tails readings, filtered, the last ones first", function()
    for i = 11, 15 do push("tail-" .. i % 2, i) end
    local people = bed.start { bed.neap, "tail", "--last=3", host.folder, "--device", "tail-*", "--above", "11" }
    local script = bed.start { bed.neap, "tail", host.folder, "--json", "--last", "1", "--device=tail-1" }
    people:wait_for "15 m"
    script:wait_for "\"value\":15"
    push("other", 16)
    push("tail-0", 17)
    push("tail-1", 18)
    people:wait_for "18 m"
    script:wait_for "\"value\":18[^\n]*\n"
    local values = {}
    for value in people.output:gmatch "level  (%d+) m" do values[#values + 1] = value end
    assert.same({ "13", "14", "15", "17", "18" }, values)
    assert.matches("^[^\n]*%d%d:%d%d:%d%d  tail%-1  level  13 m  valid  gauge\n", people.output)
    local seen = {}
    for _, line in ipairs(lines(script.output)) do seen[#seen + 1] = json.decode(line).value end
    assert.same({ 15, 18 }, seen)
    assert.same({ "exit", 0 }, { people:stop(2) }) -- Ctrl-C
    assert.same({ "exit", 0 }, { script:stop(2) })
  end)

  it("says what a filter cannot be", function()
    local out, code = neap("tail", host.folder, "--quality", "good")
    assert.equal(1, code)
    assert.matches("^neap: .*quality", out)
  end)

  it("ends quietly when nobody reads its output", function()
    local out, code = bed.run { "sh", "-c", ("'%s' tail '%s' --last 5 | head -n 1; echo closed"):format(bed.neap, host.folder) }
    assert.equal(0, code)
    assert.matches("^[^\n]+\nclosed\n$", out)
  end)

  it("refuses a second host on the same store, and leaves the first one's socket alone", function()
    local out, code = neap("run", host.folder)
    assert.equal(1, code)
    assert.matches("neap%.db", out)
    assert.equal(host.pid, host:summary().pid)
  end)

  it("takes the place of a host that was killed", function()
    host:stop(9)
    local out, code = neap("plugins", host.folder)
    assert.same({ ("neap: no host is running at %s: start one with neap run; one with another store is found by its neap.lua, or --store\n"):format(host.store), 1 }, { out, code })
    host:begin()
    assert.equal(host.pid, host:summary().pid)
  end)

  it("tells a tail that the host has stopped", function()
    local tail = bed.start { bed.neap, "tail", host.folder, "--last", "1" }
    tail:wait_for "valid"
    assert.same({ "exit", 0 }, { host:stop() })
    assert.same({ "exit", 1 }, { tail:wait() })
    assert.matches("neap: the host has stopped", tail.output)
  end)
end)
