-- Changes that go wrong, one after the other, under load: before, during and after each the old behaviour serves on, no request fails, and what
-- is said names the file, the line and the cure.
local bed = require "bed"
local json = require "neap.json"

local function vendor(version, more)
  return ([[
local plugin = ...
local n = require "n"
local config = plugin:config { title = { "string" } }
%s
plugin:serve { "POST /push", handler = function(req)
  plugin.store:put(req.body.data.deviceSn, n)
  return 200, { code = 0, msg = "ok" }
end }
plugin:serve { "GET /v", handler = function() return 200, { version = %q, n = n } end }
]]):format(more or "", version)
end
local function dependant(path) return ([[
local plugin = ...
local n = require "n"
assert(n < 10, "n has to be below 10")
plugin:serve { "GET /%s", handler = function() return 200, { version = n } end }
]]):format(path) end
local RULE = [[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "m" }, function(r) plugin:send(config.to, { id = r.id }) end)
]]
local SINK = "local plugin = ...\nplugin:deliver { options = {}, handler = function() return true end }"
describe("a change that goes wrong,", function()
  local host, pusher, good
  local V = "vendors/v.lua"

  local function file(name) return host.plugins .. "/" .. name end
  local function sh(command, ...) assert(os.execute(("cd '%s' && %s"):format(host.plugins, command:format(...)))) end
  local function serves(want)
    local status, answer = host:json("GET", "/v")
    assert.equal(200, status)
    if want then assert.equal(want, answer.version) end
    return answer.version
  end
  local function put(text) return function() bed.replace(file(V), text) end end
  local function add(name, text) return function() bed.write(file(name), text) end, function() os.remove(file(name)) end end
  local function config(from, to)
    return function() bed.replace(host.folder .. "/neap.lua", (good.config:gsub(from, to))) end,
      function() bed.replace(host.folder .. "/neap.lua", good.config) end
  end
  local function restore()
    sh("rm -rf %s", V)
    bed.write(file(V), vendor "good")
  end

  setup(function()
    local folder = bed.folder()
    good = { config = [[return { listen = "127.0.0.1:0", store = "neap.db", plugins = "plugins", lanes = 2, probation = "0s",
  connections = { { "v", mount = "", title = "ward" } }, rules = { { "r", to = "sink" } } }]] }
    bed.write(folder .. "/neap.lua", good.config)
    host = bed.host { folder = folder, keep_config = true, plugins = { [V] = vendor "good", ["vendors/a.lua"] = dependant "a",
      ["vendors/b.lua"] = dependant "b", ["vendors/c.lua"] = dependant "c", ["lib/n.lua"] = "return 1",
      ["rules/r.lua"] = RULE, ["destinations/sink.lua"] = SINK } }
    pusher = bed.start { bed.tools .. "/pusher", "--url", host.url .. "/push", "--connections", "8", "--rate", "200", "--seconds", "600", "--json" }
  end)
  teardown(function()
    pusher:stop(2)
    host:stop()
  end)

  -- what, how, how it is undone (nil: the file is put back), whose error, what it says
  local function refused(what, make, undo, whose, ...)
    local says = { ... }
    it(what .. " is refused, and the old one serves on", function()
      local before = host:plugin "v"
      serves "good"
      make()
      local p = bed.wait("what is wrong", function()
        serves "good"
        local now = host:plugin(whose)
        return now and now.error and now
      end)
      for _, pattern in ipairs(says) do assert.matches(pattern, p.error) end
      local now = host:plugin "v"
      assert.same({ before.generation, before.hash, "in force" }, { now.generation, now.hash, now.state })
      serves "good";
      (undo or restore)()
      bed.wait("order", function()
        serves "good"
        local again = host:plugin(whose)
        return not again or not again.error
      end)
      assert.equal(before.generation, host:plugin("v").generation)
    end)
  end
  -- what is no fault after all: it comes into force, without a request that fails on the way
  local function taken(what, make, want, undo)
    it(what .. " is taken when it is whole, and the old one serves until then", function()
      serves "good"
      make()
      bed.wait("the new one", function() return serves() == want end);
      (undo or restore)()
      bed.wait("the old one", function() return serves() == "good" end)
    end)
  end
  local function half()
    local f = assert(io.open(file(V), "wb"))
    f:write(vendor("whole"):sub(1, 100))
    f:close()
  end

  local text = vendor "bad"
  local AT = "plugins/vendors/v%.lua"
  refused("a syntax error", put "local plugin = ...\nlocal x = = 1", nil, "v", AT .. ":2:")
  refused("an error while it is loaded", put "local plugin = ...\n\nerror 'oh'", nil, "v", AT .. ":3: oh")
  refused("a declaration that is wrong", put(vendor("bad", "plugin:serve { 'NOWHERE', handler = print }")), nil, "v", AT .. ":4:", "METHOD /path")
  refused("a verb that is misspelt", put(vendor("bad", "plugin:serv {}")), nil, "v", AT .. ":4:", 'did you mean "serve"')
  refused("a secret that nobody has given", put((text:gsub("config {", 'config { key = { "secret" },', 1))), nil, "v", "neap%.lua: connections%[1%]", "key")
  refused("an endless start", put(vendor("bad", "while true do end")), nil, "v", AT .. ":4:", "budget")
  refused("a start that uses up memory", put(vendor("bad", "local s = 'x' while true do s = s .. s end")), nil, "v", AT .. ":4:", "64 MiB of memory")
  refused("an empty file", put "", nil, "v", AT .. ": registers nothing: no plugin:serve")
  refused("a file half written", half, nil, "v", AT .. ":%d+:")
  refused("a binary chunk", put(string.dump(assert(load(text)))), nil, "v", AT, "binary")
  refused("a file of 100 MB", function() sh("truncate -s 100M big && mv big %s", V) end, nil, "v", AT .. ": cannot be read: it is larger than 4 MiB")
  refused("a zero byte", put "local plugin = ...\n\0\n", nil, "v", AT .. ":2:")
  refused("UTF-16", put("\255\254" .. text:gsub(".", "%0\0")), nil, "v", AT .. ":1:")
  refused("a vendor turned into a rule", put((RULE:gsub('to = { "destination" }', 'title = { "string" }'):gsub("config.to", "'sink'"))), nil, "v",
    "neap%.lua: connections%[1%]: v is a rule, it belongs in rules")
  refused("a file that cannot be read", function() sh("ln -s /proc/self/mem mem && mv mem %s", V) end, nil, "v", AT .. ": cannot be read: ")
  refused("a folder with a file's name", function() sh("rm %s && mkdir %s", V, V) end, nil, "v", AT .. ": cannot be read: it is a folder: name")
  refused("a FIFO", function() sh("mkfifo f && mv f %s", V) end, nil, "v", AT .. ": cannot be read: it is no ordinary file")
  refused("a link to itself", function() sh("ln -sfn v.lua %s", V) end, nil, "v", AT .. ": cannot be read: ")
  refused("a link to nothing", function() sh("ln -s nowhere l && mv l %s", V) end, nil, "v", AT .. ": cannot be read: it is a link to what is not there")
  refused("a library that is not there", put(vendor("bad", "require 'nosuch'")), nil, "v", AT .. ":4:", 'no library "nosuch" in plugins/lib')
  refused("a migration that fails", put(vendor("bad", "plugin:migrate(1, function() error 'no' end)")), nil, "v",
    AT .. ": the migration from version 1: " .. AT .. ":4: no")
  refused("libraries that require each other", function()
    bed.write(file "lib/x.lua", "return require 'y'")
    bed.write(file "lib/y.lua", "return require 'x'")
    bed.replace(file(V), vendor("bad", "require 'x'"))
  end, function()
    restore()
    sh "rm lib/x.lua lib/y.lua"
  end, "v", "plugins/lib/[xy]%.lua:1:")
  do
    it("a second plugin for the same route is refused, and the old one serves on", function()
      local make, undo = add("vendors/second.lua", 'local plugin = ...\nplugin:serve { "POST /push", handler = print }')
      make()
      host:wait_for "vendors/second%.lua: POST /push is served by v already: give one of them a mount"
      serves "good"
      undo()
    end)
    local make, undo = add("rules/v.lua", "local plugin = ...\nplugin:on({ metric = 'm' }, print)")
    refused("a rule with a vendor's name", make, undo, "v", "v%.lua: has the same name as", "rename one")
  end
  for _, who in ipairs { "a", "b", "c" } do
    refused("a library that breaks three, for " .. who, function() bed.replace(file "lib/n.lua", "return 10") end,
      function() bed.replace(file "lib/n.lua", "return 1") end, who, "plugins/vendors/" .. who .. "%.lua:3: n has to be below 10")
  end
  refused("a library that breaks three others", function() bed.replace(file "lib/n.lua", "return 10") end,
    function() bed.replace(file "lib/n.lua", "return 1") end, "v", "held back", "plugins/lib/n%.lua", "n has to be below 10")
  do
    local function with(from, to) return config(from, to) end
    local make, undo = with('title = "ward"', 'title = "ward", titel = "ward"')
    refused("a setting that is misspelt", make, undo, "v", "neap%.lua: connections%[1%]", "titel", "title")
    make, undo = with('"sink"', '"snk"')
    refused("a destination that is not there", make, undo, "r", "neap%.lua: rules%[1%]", "snk")
    make, undo = with("lanes", "lanse")
    refused("a key of neap.lua that is misspelt", make, undo, "neap.lua", "neap%.lua", "lanse", "lanes")
    make, undo = with("connections = {", "connections = = {")
    refused("a neap.lua that does not parse", make, undo, "neap.lua", "neap%.lua:2:")
    refused("a neap.lua that is gone", function() os.remove(host.folder .. "/neap.lua") end, undo, "neap.lua", "neap%.lua: No such file")
  end

  taken("a slow start", put(vendor("slow", "for _ = 1, 30000000 do end")), "slow")
  taken("a file with carriage returns", put((vendor("crlf"):gsub("\n", "\r\n"))), "crlf")
  taken("a file with a byte order mark", put("\239\187\191" .. vendor "bom"), "bom")
  taken("a file that is deleted and made anew", function()
    os.remove(file(V))
    bed.write(file(V), vendor "anew")
  end, "anew")
  taken("a file that is half written and then whole", function()
    half()
    bed.wait("half of it", function() return host:plugin("v").error end)
    serves "good"
    bed.write(file(V), vendor "whole")
  end, "whole")
  taken("a folder that is swapped for another by its link", function()
    sh "rm -rf ../next && cp -r . ../next"
    bed.write(host.folder .. "/next/" .. V, vendor "swapped")
    sh "cd .. && mv plugins old && ln -s next plugins"
  end, "swapped", function() sh "cd .. && rm plugins && mv old plugins" end)

  it("an error at the first call is found by the plugin's own spec, where neap.lua asks for it", function()
    bed.write(file "vendors/v_spec.lua", [[
local t = require "neap.test"
it("answers", function()
  local p = t.plugin("v", { title = "ward" })
  assert.equal(200, (p:request("POST", "/push", { data = { deviceSn = "d" } })))
end)]])
    bed.replace(host.folder .. "/neap.lua", (good.config:gsub("lanes", "check = { spec = true }, lanes")))
    bed.replace(file(V), (vendor("bad"):gsub("plugin.store:put", "plugin.store.putt")))
    local p = bed.wait("the spec", function()
      serves "good"
      local now = host:plugin "v"
      return now.error and now
    end)
    assert.matches("its spec failed", p.error)
    restore()
    bed.wait("order", function() return not host:plugin("v").error end)
    bed.replace(host.folder .. "/neap.lua", good.config)
    os.remove(file "vendors/v_spec.lua")
  end)

  it("or is none: renamed, a plugin that is not listed serves under its new name", function()
    assert(os.rename(file "vendors/a.lua", file "vendors/renamed.lua"))
    bed.wait("the new name", function()
      assert.equal(200, (host:request("GET", "/a")))
      return host:plugin "renamed" and host:plugin("renamed").state == "in force"
    end)
    assert.is_nil(host:plugin "a")
  end)

  it("costs no request", function()
    pusher:stop(2)
    local report = assert(json.decode(pusher.output))
    assert.same({ 0, 0, 0 }, { report.failed, report.refused, report.reconnects }, pusher.output)
    assert.is_true(report.ok > 200, pusher.output)
    assert.equal(0, host:sql("select count(*) n from inbox where outcome <> 'done'")[1].n)
    assert.equal(0, host:sql("select count(*) n from held")[1].n)
  end)
end)
