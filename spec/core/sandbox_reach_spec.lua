-- What a plugin can reach, against the one list of it, in docs/plugins.md: what is added to a plugin's world has to be written there.
local bed = require "bed"
local probe = require "probe"

local page = bed.read "docs/plugins.md"

-- The list's rows: place -> set of names.
local function listed()
  local section = page:match "\n## What a plugin can reach\n(.-)\n## "
  local found = {}
  for place, names in section:gmatch "\n| `([^`]+)`[^|]*| `([^`]+)`" do
    local set = {}
    for name in names:gmatch "%S+" do set[name] = true end
    found[place] = set
  end
  return found
end

-- Each name that C gives a function, and each that Lua gives a metamethod or a module: what is tried on what cannot be walked.
local function candidates()
  local names = {}
  for path in io.popen "find core -name '*.c' -o -name '*.lua'":lines() do
    for name in bed.read(path):gmatch '"([%w_.]+)"' do names[name] = true end
  end
  for name in ("__index __newindex __gc __close __call __tostring __name __len __pairs __eq __lt __le __concat __metatable __mode "
    .. "io os debug package string table math utf8 coroutine _G cjson cjson.safe socket lfs neap neap.test neap.task jit bit32 ffi "
    .. "shared vendors.probe probe lib.shared"):gmatch "%S+" do names[name] = true end
  local list = {}
  for name in pairs(names) do list[#list + 1] = ("%q"):format(name) end
  table.sort(list)
  return table.concat(list, ",")
end

local walk = [[
local names = { %s }
local found, seen, places = {}, {}, {}
local function add(place, name) found[#found + 1] = place .. " " .. tostring(name) end
local function visit(place, v)
  if type(v) == "table" and not seen[v] then
    seen[v] = place
    for k, inner in next, v do
      add(place, k)
      if type(inner) == "table" then visit(place == "globals" and k or place .. "." .. tostring(k), inner) end
    end
  end
  local meta = getmetatable(v)
  if type(meta) == "table" and meta ~= getmetatable "" then
    add(place, "(a metatable)")
    visit(place .. " (a metatable)", meta)
  end
  if type(v) == "userdata" then
    for _, name in ipairs(names) do
      local ok, inner = pcall(function() return v[name] end)
      if ok and inner ~= nil then add(place, name) end
      if pcall(function() v[name] = 1 end) then add(place, name .. " (assigned)") end
    end
  end
end
for _, name in ipairs { "string", "table", "math", "utf8", "coroutine" } do visit(name, _G[name]) end -- under their own names
visit("globals", _G)
for _, name in ipairs(names) do
  local ok, v = pcall(require, name)
  if ok and v ~= _G[name] and name ~= "_G" then visit(name, v) add("require", name) end
end
visit("plugin", plugin)
visit("an account", account)
visit("a budget", budget)
if window then visit("a window", window) end
local client = require "neap.mqtt".client { url = "mqtt://127.0.0.1" }
visit("an mqtt client", client)
for k in pairs(getmetatable "") do add("a text's metatable", k) end
if getmetatable("").__index ~= string then add("a text's metatable", "(another __index)") end
local given = { account, budget, req, plugin, json.array {}, json.raw "1", client, window }
for i = 1, 8 do
  if given[i] ~= nil and getmetatable(given[i]) ~= false then add("a metatable that is not locked:", i) end
  if given[i] ~= nil and pcall(setmetatable, given[i], {}) then add("a metatable that can be changed:", i) end
end
return table.unpack(found)
]]

local rule = [[
local plugin = ...
local json = require "neap.json"
for _, name in ipairs { "crypto", "http", "log", "mqtt", "time", "webhooks" } do require("neap." .. name) end
local account, budget, req, window
local function walk()
  WALK
end
plugin:on({ metric = "walk" }, function()
  window = plugin:window { metric = "past", count = 2 }
  plugin.store:put("found", { walk() })
end)]]

describe("what a plugin can reach", function()
  local host, reached
  setup(function()
    local code = walk:format(candidates())
    local rule_file = rule:gsub("WALK", function() return code end)
    host = probe.host('{ "probe" }, { "poster" }', {
      config = 'rules = { { "walks", limits = { instructions = 200000000, running = "20s" } } }',
      plugins = {
        ["lib/shared.lua"] = "return { of = 'lib' }",
        ["vendors/library.lua"] = 'local plugin = ... require "shared" plugin:serve { "GET /library", handler = function() end }',
        ["rules/walks.lua"] = rule_file,
        ["vendors/poster.lua"] = [[
local plugin = ...
plugin:serve { "POST /walk", handler = function()
  for i = 1, 2 do plugin:emit { device = "d", metric = "past", value = i, unit = "u", at = i * 60000 } end
  plugin:emit { device = "d", metric = "walk", value = 1 }
  return 204
end }]],
      },
    })
    reached = assert(probe.run(host, code))
  end)
  teardown(function() host:stop() end)

  local function places(list)
    local found = {}
    for _, line in ipairs(list) do
      local place, name = line:match "^(.-) ([^ ]+)$"
      if line:find("(", 1, true) then place, name = line:match "^(.-) (%(.*)$" end
      if not place or line:find "%(assigned%)" then place, name = "what should not be", line end
      found[place] = found[place] or {}
      found[place][name] = true
    end
    return found
  end

  it("is what the list in docs/plugins.md says, no more and no less", function()
    local list, found = listed(), places(reached)
    list["a window"] = nil -- a rule has it
    for place, names in pairs(found) do
      for name in pairs(names) do
        assert.truthy((list[place] or {})[name], ("%s of %s can be reached and is not in the list of docs/plugins.md"):format(name, place))
      end
    end
    for place, names in pairs(list) do
      for name in pairs(names) do
        assert.truthy((found[place] or {})[name], ("%s of %s is in the list of docs/plugins.md and cannot be reached"):format(name, place))
      end
    end
  end)

  it("is the same for a rule, apart from accounts and budgets, and windows in their place", function()
    assert.equal(204, (host:request("POST", "/walk")))
    local row = bed.wait("the rule", function() return host:sql("select value from kv where space = 'plugin:walks'")[1] end)
    local list = require "neap.json".decode(row.value)
    local a, b = places(reached), places(list)
    a["an account"], a["a budget"] = nil, nil
    assert.same(listed()["a window"], b["a window"])
    b["a window"] = nil
    assert.same(a, b)
  end)

  it("is told by its name where it asks for a module that is not there", function()
    local said = probe.run(host, "return select(2, pcall(require, 'neap.nothing'))")[1]
    local modules = 0
    for name in pairs(listed()["require"]) do
      if name:find "^neap%." then
        modules = modules + 1
        assert.matches(" " .. name, said, 1, true)
      end
    end
    assert.is_true(modules > 5)
  end)

  it("has no way to what another file has required", function()
    assert.same({ "false" }, probe.run(host, "return (pcall(require, 'shared'))"))
  end)
end)
