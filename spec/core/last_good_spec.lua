-- What comes up broken runs on its last good generation; what has none holds its work, and does it once, in order, when it is
-- mended.
local bed = require "bed"

local function vendor(answer)
  return ([[
local plugin = ...
plugin:serve { "GET /v", handler = function() return 200, { version = %q } end }
]]):format(answer)
end

-- Readings of as many values as are asked for, device D unless another is named.
local FEED = [[
local plugin = ...
plugin:serve { "POST /feed", body = { values = { "array", items = { "number" } }, device = { "string", default = "D" }, from = {
  "integer" } },
  handler = function(req)
    for i, v in ipairs(req.body.values) do
      plugin:emit { device = req.body.device, metric = "m", value = v, at = 1700000000000 + (req.body.from + i) * 1000 }
    end
    return 204
  end }
]]

-- Keeps the values that it met, in the order it met them, for each device.
local NOTE = [[
local plugin = ...
plugin:on({ metric = "m" }, function(r)
  %s
  plugin.store:put(r.device, (plugin.store:get(r.device) or "") .. r.value .. " ")
end)
]]

describe("the last good generation", function()
  local host
  after_each(function()
    local how, code = host:stop()
    assert.equal("exit 0", how .. " " .. code, host.output)
  end)

  local function file(name) return host.plugins .. "/" .. name end
  local function version()
    local status, answer = host:json("GET", "/v")
    return status == 200 and answer.version or status
  end
  local function in_force(want)
    return bed.wait("version " .. want, function() return version() == want end)
  end
  local function one(query) return host:sql(query)[1].n end
  local function feed(from, values, device)
    assert.equal(204, (host:request("POST", "/feed", { values = values, from = from, device = device })))
  end
  local function met(device)
    local rows = host:sql(("select json_extract(value, '$') n from kv where space = 'plugin:note' and key = '%s'"):format(device
      or "D"))
    return rows[1] and rows[1].n or ""
  end
  local function count_to(n, first)
    local values = {}
    for i = first or 1, n do values[#values + 1] = i end
    return values
  end
  local function text_of(values) return #values > 0 and table.concat(values, " ") .. " " or "" end

  for what, broken in pairs { ["does not parse"] = "local plugin = ...\nlocal x = = 1",
    ["raises"] = "local plugin = ...\nerror 'oh'",
    ["is empty"] = "",
      ["waits for a setting"] = "local plugin = ...\nplugin:config { url = { 'string' } }\n" ..
        "plugin:serve { 'GET /v', handler = print }" } do
    it("serves where the file " .. what .. " at the start", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "one" } }
      bed.replace(file "vendors/v.lua", vendor "two")
      in_force "two"
      assert.equal(2, host:plugin("v").generation)
      host:stop()
      bed.write(file "vendors/v.lua", broken)
      host:begin()
      assert.equal("two", version())
      local p = host:plugin "v"
      assert.equal("last good", p.state)
      assert.equal(2, p.generation)
      assert.truthy(p.error:find("plugins/vendors/v.lua", 1, true), p.error)
      host:wait_for '"event":"runs on its last good generation[^\n]*"plugin":"v","generation":"2"'
      bed.replace(file "vendors/v.lua", vendor "three")
      in_force "three"
      p = host:plugin "v"
      assert.equal("in force", p.state)
      assert.is_nil(p.error)
      assert.equal(3, p.generation)
    end)
  end

  it("serves through many starts, and takes its own text back under its own number", function()
    host = bed.host { plugins = { ["vendors/v.lua"] = vendor "one" } }
    host:stop()
    bed.write(file "vendors/v.lua", "= broken")
    for _ = 1, 3 do
      host:begin()
      assert.equal("one", version())
      assert.equal("last good", host:plugin("v").state)
      host:stop(9)
    end
    host:begin()
    bed.replace(file "vendors/v.lua", vendor "one")
    bed.wait("the file to be in force", function() return host:plugin("v").state == "in force" end)
    assert.equal(1, host:plugin("v").generation)
    assert.equal(1, one "select count(*) n from generations where instance = 'v' and verdict = 'good'")
    assert.equal(1, one "select count(*) n from generations where instance = 'v' and verdict = 'bad'") -- not once for each start
  end)

  it("has its libraries with it", function()
    host = bed.host { plugins = { ["lib/text.lua"] = "return 'from the library'", ["vendors/v.lua"] =
      "local plugin = ...\nlocal text = require 'text'\n" ..
      "plugin:serve { 'GET /v', handler = function() return 200, { version = text } end }" } }
    assert.equal("from the library", version())
    host:stop()
    os.remove(file "lib/text.lua")
    host:begin()
    assert.equal("from the library", version())
    assert.equal("last good", host:plugin("v").state)
    assert.truthy(host:plugin("v").error:find("text", 1, true))
    bed.write(file "lib/text.lua", "return 'mended'")
    in_force "mended"
  end)

  it("keeps the numbers of generations over restarts", function()
    host = bed.host { plugins = { ["vendors/v.lua"] = vendor "one" } }
    bed.replace(file "vendors/v.lua", vendor "two")
    in_force "two"
    host:restart()
    assert.equal(2, host:plugin("v").generation)
    host:restart(9)
    assert.equal(2, host:plugin("v").generation)
    assert.equal(2, one "select count(*) n from generations where instance = 'v'")
    host:stop()
    bed.write(file "vendors/v.lua", vendor "three") -- edited while it was not running
    host:begin()
    assert.equal("three", version())
    assert.equal(3, host:plugin("v").generation)
  end)

  it("sees what changes while it starts", function()
    host = bed.host { plugins = { ["vendors/v.lua"] = vendor "0" } }
    for i = 1, 10 do
      host:stop()
      local first, path = host.folder .. "/first", file "vendors/v.lua"
      bed.write(first, vendor("before " .. i))
      -- goes on while the host comes up
      os.execute(([[(for k in 1 2 3 4 5 6 7 8 9 10 11 12; do
          sed "s/before/step $k/" '%s' > '%s.new~'; mv '%s.new~' '%s'; sleep 0.002
        done; touch '%s/done') &]]):format(
        first, path, path, path, host.folder))
      host:begin()
      bed.wait("the last edit", function() return os.remove(host.folder .. "/done") end)
      in_force("step 12 " .. i)
    end
  end)

  it("of a rule that never had one: its readings are held, and then ruled on once, in order", function()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["rules/note.lua"] = "local plugin = ...\nlocal x = = 1" },
      config = [[lanes = 2, rules = { { "note" } }]] }
    local p = host:plugin "note"
    assert.equal("held", p.state)
    assert.truthy(p.error:find("plugins/rules/note.lua:2:", 1, true), p.error)
    feed(0, count_to(30))
    feed(0, count_to(30), "E")
    bed.wait("all to be held", function() return one "select count(*) n from held" == 60 end)
    assert.equal(60, host:plugin("note").held)
    host:restart() -- held entries outlive it
    assert.equal(60, host:plugin("note").held)
    feed(30, count_to(40, 31))
    bed.wait("those to be held too", function() return one "select count(*) n from held" == 70 end)
    bed.replace(file "rules/note.lua", NOTE:format "")
    bed.wait("nothing to be held", function() return one "select count(*) n from held" == 0 end)
    assert.equal(text_of(count_to(40)), met())
    assert.equal(text_of(count_to(30)), met "E")
    assert.equal(0, host:plugin("note").held)
    feed(40, { 41 })
    bed.wait("the next", function() return met() == text_of(count_to(41)) end)
    host:restart() -- nothing is run again
    feed(41, { 42 })
    bed.wait("the next", function() return met() == text_of(count_to(42)) end)
  end)

  it("of a rule that has held more than is looked at at once: in order, and what comes meanwhile after it", function()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["rules/note.lua"] = "= broken",
      ["rules/other.lua"] = "local plugin = ...\n" ..
        "plugin:on({ metric = 'm', above = 2500 }, function(r) plugin.store:put(r.device, r.value) end)" },
      config = [[lanes = 2, rules = { { "note" } }]] }
    for d = 1, 4 do feed(0, count_to(2500), "D" .. d) end
    bed.wait("all to be held", function() return one "select count(*) n from held" == 10000 end)
    bed.replace(file "rules/note.lua", NOTE:format "")
    bed.wait("the first of them", function() return one "select count(*) n from held" < 10000 end)
    for d = 1, 4 do feed(2500, { 2501 }, "D" .. d) end
    bed.wait("nothing to be held", function() return one "select count(*) n from held" == 0 end)
    for d = 1, 4 do
      bed.wait("the last", function() return #met("D" .. d) >= #text_of(count_to(2501)) end)
      assert.equal(text_of(count_to(2501)), met("D" .. d))
    end
    assert.equal(4, one "select count(*) n from kv where space = 'plugin:other'")
  end)

  it("of a rule whose readings come while it is mended: once, in order", function()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["rules/note.lua"] = "= broken" }, config = [[lanes = 2, rules = {
      { "note" } }]] }
    local sent = 0
    local function more(n)
      for _ = 1, n do
        sent = sent + 1
        feed(sent, { sent })
      end
    end
    for turn = 1, 8 do
      more(40)
      bed.replace(file "rules/note.lua", NOTE:format("-- " .. turn))
      more(40) -- the switch is somewhere among these
      bed.wait("all to be ruled on", function() return one "select count(*) n from held" == 0
        and #met() >= #text_of(count_to(sent)) end, 10)
      assert.equal(text_of(count_to(sent)), met())
      if turn < 8 then
        os.remove(file "rules/note.lua")
        bed.wait("the rule to be gone", function() return host:plugin("note").state == "held" end)
      end
    end
  end)

  it("of a rule that raises on some: those are held, the others go on; the mended one runs them", function()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED,
      ["rules/note.lua"] = NOTE:format "if r.value % 3 == 0 then error 'three' end" },
      config = [[lanes = 2, rules = { { "note" } }]] }
    feed(0, count_to(10))
    bed.wait("the others", function() return met() == "1 2 4 5 7 8 10 " end)
    assert.equal(3, one "select count(*) n from held")
    local held = host:sql "select h.*, r.value from held h join readings r on r.seq = h.reading order by h.id"
    for i, h in ipairs(held) do
      assert.equal("note", h.instance)
      assert.equal(1, h.generation)
      assert.equal(3 * i, h.value)
      assert.truthy(h.error:find("plugins/rules/note.lua:3: three", 1, true), h.error)
    end
    host:wait_text '"event":"a rule failed; the reading is held for it","plugin":"note","generation":"1"'
    bed.replace(file "rules/note.lua", NOTE:format "if r.value == 6 then error 'still' end") -- mended in part
    bed.wait("those that work now", function() return met() == "1 2 4 5 7 8 10 3 9 " end)
    assert.equal(1, one "select count(*) n from held")
    bed.replace(file "rules/note.lua", NOTE:format "")
    bed.wait("the last", function() return met() == "1 2 4 5 7 8 10 3 9 6 " end)
    assert.equal(0, one "select count(*) n from held")
  end)

  it("of a rule that raises under load: none is forgotten when it is mended", function()
    host = bed.host { plugins = { ["vendors/feed.lua"] = FEED, ["rules/note.lua"] = NOTE:format "error 'oh'" },
      config = [[lanes = 2, probation = "0s", rules = { { "note" } }]] }
    local sent, want = 0, { {}, {}, {}, {} }
    for turn = 1, 20 do
      for _ = 1, 3 do
        for d, values in ipairs(want) do
          local some = count_to(sent + 10, sent + 1)
          table.move(some, 1, #some, #values + 1, values)
          feed(sent, some, "D" .. d)
          host:read() -- each is logged
        end
        sent = sent + 10
      end
      bed.replace(file "rules/note.lua", NOTE:format("-- " .. turn)) -- while they are being held
      for d, values in ipairs(want) do
        bed.wait("all to be ruled on", function()
          host:read()
          return met("D" .. d) == text_of(values)
        end, 10)
      end
      assert.equal(0, one "select count(*) n from held")
      bed.replace(file "rules/note.lua", NOTE:format("error 'oh " .. turn .. "'"))
      bed.wait("the broken rule", function() return host:plugin("note").generation == 2 * turn + 1 end)
    end
  end)
end)
