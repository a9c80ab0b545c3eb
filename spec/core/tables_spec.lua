-- plugin:table: lookup tables beside the plugins, as CSV or Lua; reloaded, taken back with what uses them, and told of where they are wrong.
local bed = require "bed"
local json = require "neap.json"

local PROBE = [[
local plugin = ...
local json = require "neap.json"
local wards = plugin:table "wards"
plugin:serve { "POST /probe", handler = function(req)
  local r = table.pack(assert(load(req.raw, "=probe", "t", setmetatable({ wards = wards, plugin = plugin, json = json }, { __index = _G })))())
  return 200, { results = table.move(r, 1, r.n, 1, json.array {}) }
end }]]
local RULE = [[
local plugin = ...
local limits = plugin:table "limits"
plugin:on({ metric = "level" }, function(r) plugin.store:put("limit", limits.of[r.device] and limits.of[r.device].high) end)]]

local WARDS = 'bed,ward,limit,note\nb-1,3A,5,\n"b ""2""",3A,4.5,"two\nlines, and a comma"\r\n\n007,"12",1e3,-0.5\n'

local function check(files)
  local folder = bed.folder()
  for name, text in pairs(files) do bed.write(folder .. "/plugins/" .. name, text) end
  bed.write(folder .. "/neap.lua", 'return { plugins = "plugins" }')
  return bed.run { bed.neap, "check", folder }
end

describe("tables", function()
  local host
  setup(function()
    host = bed.host { config = 'lanes = 2, connections = { { "probe" } }', plugins = {
      ["vendors/probe.lua"] = PROBE, ["rules/limited.lua"] = RULE, ["tables/wards.csv"] = WARDS,
      ["tables/limits.lua"] = "return { of = { ['d-1'] = { high = 7 } } }",
    } }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function run(code)
    local status, answer = host:json("POST", "/probe", code)
    assert.equal(200, status, json.encode(answer or {}))
    return table.unpack(answer.results)
  end
  local function generation(n)
    bed.wait("generation " .. n, function() return host:plugin("probe").generation == n end)
  end

  it("are keyed by the first column, with numbers where they are written as such", function()
    assert.same({ bed = "b-1", ward = "3A", limit = 5 }, run 'return wards["b-1"]')
    assert.same({ bed = 'b "2"', ward = "3A", limit = 4.5, note = "two\nlines, and a comma" }, run [[return wards['b "2"'] ]])
    assert.same({ bed = "007", ward = "12", limit = 1000.0, note = -0.5 }, run 'return wards["007"]')
    assert.same({ "integer", "float", true, 3 }, { run [[
      local n = 0
      for k, row in pairs(wards) do n = n + 1 assert(row.bed == k) end
      return math.type(wards["b-1"].limit), math.type(wards['b "2"'].limit), wards.nothing == nil, n]] })
  end)

  it("cannot be changed", function()
    assert.same({ false, 5, "3A" }, { run [[
      local ok = pcall(function() wards.x = 1 end)
      local row = wards["b-1"]
      row.limit = 99
      return ok, wards["b-1"].limit, json.decode(json.encode(wards["b-1"])).ward]] })
    assert.same({ false, false, false }, { run [[return (pcall(setmetatable, wards, {})), (pcall(require, "table:wards")), (pcall(plugin.table, plugin, "wards"))]] })
  end)

  it("reload what uses them, and nothing else; a wrong one leaves what is in force", function()
    bed.replace(host.plugins .. "/tables/wards.csv", (WARDS:gsub("3A,5", "3B,6")))
    generation(2)
    assert.equal("3B", run 'return wards["b-1"].ward')
    assert.equal(1, host:plugin("limited").generation)
    bed.replace(host.plugins .. "/tables/wards.csv", "bed,ward\nb-1\n")
    bed.wait("the error", function() return (host:plugin("probe").error or ""):find("plugins/tables/wards.csv:2:4: there are fewer fields than columns", 1, true) end)
    assert.equal("3B", run 'return wards["b-1"].ward')
    bed.replace(host.plugins .. "/tables/wards.csv", (WARDS:gsub("3A,5", "3C,6")))
    bed.wait("the third text", function() return run 'return wards["b-1"].ward' == "3C" end)
  end)

  it("come back with a generation that is gone back to", function()
    local out, code = bed.run { bed.neap, "rollback", "probe", "1", "--store", host.store }
    assert.equal(0, code, out)
    bed.wait("the first text", function() return run 'return wards["b-1"].ward' == "3A" end)
  end)

  it("are told of with file, line and column", function()
    local rule = 'local plugin = ... plugin:table "t" plugin:on({}, function() end)'
    for text, why in pairs {
      [""] = "1:1: the first line has to name the columns", ["a,a\n"] = "1:3: there is a column of this name already", ["a,,b\n"] = "1:3: this column has no name",
      ["a,b\n1,2\n1,3\n"] = "3:1: there is a line of this key already", ["a,b\n1,2,3\n"] = "2:5: there are more fields than columns",
      ["a,b\n,2\n"] = "2:1: the key, the first column, is empty", ['a,b\n1,"x\n\n'] = "2:3: this quote is not closed", ['a,b\n1,"x"y\n'] = "2:6: after a closing quote",
      ['a,b\n1,x"y\n'] = "2:4: a quote inside of a field", ['a,b\n"1\n1",2\n1\n'] = "4:2: there are fewer fields",
      ["a,b\n\xE4,1\n"] = "2:1: this is no UTF-8 text", ["a,b\n1,\0x\n"] = "2:3: this is no UTF-8 text", ["\xFF\xFEa\0,\0b\0"] = "1:1: this is no UTF-8 text",
      ["a,b\r1,2\r"] = "1:4: a carriage return alone ends no line", ["a,b\n1,2\r3,4\n"] = "2:4: a carriage return alone ends no line",
      ["a;b\n1;2\n"] = "1:2: columns are separated by commas here, not by semicolons", ["\xEF\xBB\xBFbed\tb\n1\t2\n"] = "1:4: columns are separated by commas here, not by tabs",
    } do
      local out, code = check { ["rules/r.lua"] = rule, ["tables/t.csv"] = text }
      assert.equal(1, code, text)
      assert.truthy(out:find("plugins/tables/t.csv:" .. why, 1, true), out)
    end
    for text, why in pairs { ["return 1"] = "plugins/tables/t.lua: has to return a table, got a number", ["return {\n1 +"] = "plugins/tables/t.lua:2:" } do
      local out = check { ["rules/r.lua"] = rule, ["tables/t.lua"] = text }
      assert.truthy(out:find(why, 1, true), out)
    end
    assert.matches("there is no t.csv or t.lua in plugins/tables", (check { ["rules/r.lua"] = rule }), 1, true)
    local both = check { ["rules/r.lua"] = rule, ["tables/t.csv"] = "a\n", ["tables/t.lua"] = "return {}" }
    assert.truthy(both:find("has the same name as", 1, true), both)
    assert.equal(0, select(2, check { ["rules/r.lua"] = rule, ["tables/t.csv"] = "\xEF\xBB\xBFa,b\r\n1,2" }))
    assert.equal(0, select(2, check { ["rules/r.lua"] = rule, ["tables/t.csv"] = '"a;b"\n"1\r2"\nä;\n' }))
  end)

  it("are refused as a message, which would be sent empty; a row of one is not", function()
    local folder = bed.folder()
    bed.write(folder .. "/plugins/rules/all.lua", [[local plugin = ...
      local t, config = plugin:table "t", plugin:config { to = { "destination" } }
      plugin:on({ metric = "m" }, function(r) plugin:send(config.to, { row = r.value == 1 and t.a or t }) end)]])
    bed.write(folder .. "/plugins/tables/t.csv", "name,high\na,7\n")
    bed.write(folder .. "/plugins/rules/all_spec.lua", [[local t = require "neap.test"
      it("sends", function()
        local p = t.plugin("all", { to = "desk" })
        p:reading { device = "d", metric = "m", value = 1, key = "1" }
        p:reading { device = "d", metric = "m", value = 2, key = "2" }
        assert.equal(7, t.sent()[1].data.row.high)
        assert.equal(1, #t.sent())
        assert.matches("behind __pairs", t.held()[1].error)
      end)]])
    assert.matches("1 passed, 0 failed\n$", (bed.run({ bed.neap, "test" }, { cwd = folder })))
  end)

  it("are there in neap test", function()
    local folder = bed.folder()
    bed.write(folder .. "/plugins/rules/limited.lua", RULE)
    bed.write(folder .. "/plugins/tables/limits.lua", "return { of = { ['d-1'] = { high = 7 } } }")
    bed.write(folder .. "/plugins/rules/limited_spec.lua", [[local t = require "neap.test"
      it("looks up", function()
        local p = t.plugin "limited"
        p:reading { device = "d-1", metric = "level", value = 1 }
        assert.equal(7, p:stored "limit")
      end)]])
    local out = bed.run({ bed.neap, "test" }, { cwd = folder })
    assert.matches("1 passed, 0 failed\n$", out)
  end)
end)
