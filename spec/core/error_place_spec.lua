-- What a verb raises names the plugin's own file and line, once, wherever it is shown: no line of the host's.
local bed = require "bed"

-- Each line is one mistake, its number the line of the plugin below.
local vendor = {
  'local plugin, on = ..., {}',
  'local json = require "neap.json"',
  'on[3] = function() plugin:emit { device = "d", metric = "m" } end',
  'on[4] = function() plugin:emit { device = "d", metric = "m", value = 1, at = "now" } end',
  'on[5] = function() plugin:emit { device = "d", metric = "m", value = 1, colour = 1 } end',
  'on[6] = function() plugin:emit(7) end',
  'on[7] = function() plugin:emit() end',
  'on[8] = function() plugin:device { name = "no device" } end',
  'on[9] = function() plugin:device { device = "d", tags = 3 } end',
  'on[10] = function() plugin:event { device = "d" } end',
  'on[11] = function() plugin:event(true) end',
  'on[12] = function() plugin:send("desk", {}) end',
  'on[13] = function() plugin:arm("x", "y", 1) end',
  'on[14] = function() plugin:throttle("x", "1m") end',
  'on[15] = function() plugin:debounce("x", "1m") end',
  'on[16] = function() plugin:window { last = "1h" } end',
  'on[17] = function() plugin:history("d", "m", { last = "soon" }) end',
  'on[18] = function() plugin:history("d") end',
  'on[19] = function() plugin:acknowledge({}) end',
  'on[20] = function() plugin:acknowledge("msg_1", { of = 1 }) end',
  'on[21] = function() plugin:acknowledged() end',
  'on[22] = function() plugin:log() end',
  'on[23] = function() plugin:log("x", 7) end',
  'on[24] = function() plugin:log("x", { ["a b"] = 1 }) end',
  'on[25] = function() plugin.store:get({}) end',
  'on[26] = function() plugin.store:put("k", function() end) end',
  'on[27] = function() plugin.store:list(1, 2) end',
  'on[28] = function() plugin.data:readings { colour = 1 } end',
  'on[29] = function() plugin.people:keep("", {}) end',
  'on[30] = function() plugin:serve { "GET /late", handler = print } end',
  'on[31] = function() plugin:every("1m", "late", print) end',
  'on[32] = function() plugin:config {} end',
  'on[33] = function() plugin:table "late" end',
  'on[34] = function() plugin:emitt {} end',
  'on[35] = function() plugin.mine = print end',
  'on[36] = function() return plugin:emit { device = "d" } end',
  'on[37] = function() require "neap.http".get { url = 7 } end',
  'on[38] = function() json.decode(7) end',
  'on[39] = function() require "late" end',
  'on[40] = function() for i = 1, 20 do plugin:emit { device = "d", metric = "m", value = i } end end',
  'plugin:serve { "POST /on", body = { line = { "integer" } }, handler = function(req) on[req.body.line]() end }',
}

local rule = [[
local plugin = ...
plugin:on({ metric = "emit" }, function(r) plugin:emit { metric = "undeclared", value = 1 } end)
plugin:on({ metric = "device" }, function(r) plugin:device { device = r.device } end)
plugin:on({ metric = "send" }, function(r) plugin:send("desk", "text") end)
plugin:on({ metric = "nowhere" }, function(r) plugin:send("nowhere", {}) end)
plugin:on({ metric = "options" }, function(r) plugin:send("desk", {}, { expire = "1m" }) end)
plugin:on({ metric = "arm" }, function(r) plugin:arm("silence", r.device, "1m") end)
plugin:on({ metric = "when" }, function(r) plugin:arm("late", r.device, "soon") end)
plugin:on({ metric = "window" }, function(r) plugin:window { last = "1h", colour = 1 } end)
plugin:on({ metric = "throttle" }, function(r) plugin:throttle(r.device) end)
plugin:timer("late", print)
]]
local desk = 'local plugin = ...\nplugin:deliver { handler = function() return true end }'

local function first_line(text) return (text:match "^[^\n]*") end

describe("what a handler's verbs raise", function()
  local host
  setup(function()
    host = bed.host {
      config = [[quarantine = false, limits = { emits = 10 }, connections = { { "mistakes" }, { "poster" } }, rules = { { "wrong" } },
        destinations = { desk = { "taker" } }]],
      plugins = { ["vendors/mistakes.lua"] = table.concat(vendor, "\n"), ["rules/wrong.lua"] = rule, ["vendors/poster.lua"] = bed.EMITTER,
        ["destinations/taker.lua"] = desk },
    }
  end)
  teardown(function() host:stop() end)

  for line = 3, #vendor - 1 do
    it("names the plugin's line: " .. vendor[line]:match "function%(%) (.*) end$", function()
      assert.equal(500, (host:request("POST", "/on", { line = line })))
      local rows = host:inbox "order by id desc limit 1"
      local said = rows[1].error
      assert.equal("plugins/vendors/mistakes.lua:" .. line .. ": ", said:match "^[^:]*:%d+: ", said)
      assert.is_nil(first_line(said):match "%.lua:%d+:.*%.lua:%d+:", said)
      assert.is_nil(said:match "neap:%d", said)
    end)
  end

  it("counts arguments as their author does, and names the verb", function()
    host:request("POST", "/on", { line = 6 })
    local said = host:inbox "order by id desc limit 1" [1].error
    assert.equal("plugins/vendors/mistakes.lua:6: bad argument #1 to 'emit' (table expected, got number)", first_line(said))
  end)

  it("shows the same in the log", function()
    host:request("POST", "/on", { line = 12 })
    host:wait_for "vendors/mistakes%.lua:12: plugin:send does not belong in a request's handler"
    assert.is_nil(host:read():match "neap:%d+:")
  end)

  it("shows the same of what a rule is held for", function()
    local metrics, lines = { "emit", "device", "send", "nowhere", "options", "arm", "when", "window", "throttle" }, {}
    for i, metric in ipairs(metrics) do
      assert.equal(204, (host:request("POST", "/v", { { device = "d", metric = metric, value = 1, at = 1000 + i } })))
      lines[i] = i + 1
    end
    local rows = bed.wait("what is held", function()
      local list = host:sql "select error from held order by id"
      return #list == #metrics and list
    end)
    local seen = {}
    for i, row in ipairs(rows) do
      seen[i] = tonumber(row.error:match "^plugins/rules/wrong%.lua:(%d+): ")
      assert.is_nil(row.error:match "neap:%d", row.error)
      if seen[i] == 7 then assert.matches('plugin:arm: no plugin:timer("silence", …) in this file', row.error, 1, true) end
    end
    table.sort(seen)
    assert.same(lines, seen)
  end)
end)

-- The mistake is in the second line; what a file is refused for as a whole has no line.
local files = {
  { 'plugin:config { url = { "strong" } }', "plugin:config: " },
  { 'plugin:config { url = { "string", maximum = 3 } }', "plugin:config: " },
  { "plugin:config(7)", "plugin:config: expected a table of settings, got a number" },
  { 'plugin:account { ("a"):rep(70), refresh = print }', "plugin:account: " },
  { 'plugin:budget { ("b"):rep(70), per_second = 1 }', "plugin:budget: " },
  { 'plugin:serve { "POST /x", body = { a = { "strong" } }, handler = print }', "plugin:serve POST /x, body: " },
  { 'plugin:serve { "POST /x", body_max = "much", handler = print }', "plugin:serve POST /x: body_max " },
  { 'plugin:serve { "POST /x", hander = print }', "plugin:serve: unknown option" },
  { 'plugin:command { "x", args = { a = { "strong" } }, handler = print }', "plugin:command x, args: " },
  { 'plugin:on({ metrik = "m" }, print)', "plugin:on: " },
  { 'plugin:on({ below = "low" }, print)', "plugin:on: " },
  { 'plugin:deliver { options = { a = { "strong" } }, handler = print }', "plugin:deliver options: " },
  { 'plugin:deliver { batch = "many", handler = print }', "plugin:deliver: batch" },
  { 'plugin:every("often", "x", print)', "plugin:every: the period " },
  { 'plugin:migrate(0, print)', "plugin:migrate: " },
  { 'plugin:table "missing"', "plugin:table: " },
  { 'plugin:table "wrong"', "plugin:table: plugins/tables/wrong.csv:2:" },
  { 'require "missing"', 'no library "missing"' },
  { 'plugin:emit { device = "d" }', "plugin:emit does not belong in loading the file" },
  { "while true do end", "ran " },
  { "for i = 1, math.huge do plugin:derives {} end", "plugin:derives: " },
}

describe("what a file is refused for", function()
  local folder, said
  setup(function()
    folder = bed.folder()
    bed.write(folder .. "/plugins/tables/wrong.csv", 'key,a\n"x,1\n')
    for i, file in ipairs(files) do
      bed.write(("%s/plugins/vendors/file%02d.lua"):format(folder, i), "local plugin = ...\n" .. file[1] .. "\n")
    end
    said = bed.run({ bed.neap, "check", "--plugins", folder .. "/plugins" })
  end)

  for i, file in ipairs(files) do
    it("names the line of " .. file[1], function()
      local name = ("vendors/file%02d.lua"):format(i)
      local line
      for l in said:gmatch "[^\n]+" do if l:find(name, 1, true) then line = l end end
      assert.is_truthy(line, said)
      local place, why = line:match("(plugins/" .. name:gsub("%.", "%%.") .. ":%d+: )(.*)$")
      assert.equal("plugins/" .. name .. ":2: ", place, line)
      assert.equal(file[2], why:sub(1, #file[2]))
      assert.is_nil(line:match "neap:%d", line)
    end)
  end

  it("is told by neap test as well", function()
    bed.write(folder .. "/plugins/rules/talks.lua", "local plugin = ...\nplugin:on({}, function(r)\n  plugin:emit { metric = 'm', value = 1 }\nend)\n")
    bed.write(folder .. "/plugins/rules/talks_spec.lua", [[
local t = require "neap.test"
it("takes a reading", function()
  local p = t.plugin "talks"
  p:reading { device = "d", metric = "m", value = 1 }
end)
it("makes a mistake of its own", function()
  t.plugin "talks":reading { device = "d", metric = "m" }
end)
]])
    local out, code = bed.run { bed.neap, "test", folder .. "/plugins/rules/talks_spec.lua", "--plugins", folder .. "/plugins" }
    assert.equal(1, code, out)
    assert.is_truthy(out:find('plugins/rules/talks.lua:3: plugin:emit: the metric "m" is not declared', 1, true), out)
    assert.is_truthy(out:find("plugins/rules/talks_spec.lua:7: plugin:emit: value is missing\n", 1, true), out)
    assert.is_nil(out:match "neap[%w.]*:%d", out)
  end)
end)
