-- The router of a running host: what is held is run again, and timers come when they are due.
local bed = require "bed"

local vendor = [[
local plugin = ...
plugin:serve { "POST /x", handler = function(req)
  for _, device in ipairs(req.body.devices) do plugin:emit { device = device, metric = "glucose", value = 3, unit = "mmol/L" } end
  return 204
end }
]]
local broken = [[local plugin = ...
plugin:on({ metric = "glucose" }, function() error "broken" end)]]

-- What the broken rule logs has to fit into the pipe that nobody reads meanwhile: 64 KiB.
local function devices(prefix, n)
  local list = {}
  for i = 1, n do list[i] = prefix .. i end
  return { devices = list }
end

local function count(host, query)
  host:read()
  return host:sql("select count(*) n from " .. query)[1].n
end

describe("router", function()
  it("runs what was held while its rule's new generation came into force", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = vendor, ["rules/r.lua"] = broken }, config = "lanes = 2" }
    local pushed = 0
    for i = 1, 40 do
      assert.equal(204, (host:request("POST", "/x", devices("d" .. i .. "-", 5))))
      pushed = pushed + 5
      host:read()
      if i == 20 then
        bed.replace(host.plugins .. "/rules/r.lua", [[local plugin = ...
plugin:on({ metric = "glucose" }, function(r) plugin.store:put(r.device, r.id) end)]])
      end
    end
    bed.wait("all to be ruled", function() return count(host, "kv where space = 'plugin:r'") == pushed end)
    assert.equal(0, count(host, "held"))
    host:stop()
  end)

  it("runs held entries that all change one key, each once", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = vendor, ["rules/r.lua"] = broken }, config = "lanes = 2" }
    host:request("POST", "/x", devices("d", 200))
    bed.wait("all to be held", function() return count(host, "held") == 200 end)
    bed.replace(host.plugins .. "/rules/r.lua", [[local plugin = ...
plugin:on({ metric = "glucose" }, function() plugin.store:put("n", (plugin.store:get "n" or 0) + 1) end)]])
    bed.wait("none to be held", function() return count(host, "held") == 0 end)
    assert.equal("200", host:sql("select value from kv where space = 'plugin:r'")[1].value)
    host:stop()
  end)

  it("fires a timer in time whose key is of a partition of another lane", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = vendor, ["rules/r.lua"] = [[
local plugin = ...
plugin:on({ metric = "glucose" }, function(r)
  plugin:arm("far", r.device, "20m")
  plugin:arm("near", r.device, "1s")
  if r.device == "last" then for i = 1, 8 do plugin:arm("others", "key" .. i, "1s") end end
end)
plugin:timer("far", function() end)
plugin:timer("near", function() end)
plugin:timer("others", function(key) plugin:send("to", { key = key }) end)
]], ["destinations/to.lua"] = "local plugin = ... plugin:deliver { handler = function() return true end }" }, config = "lanes = 2" }
    host:request("POST", "/x", devices("d", 64))
    bed.wait("both lanes to wait for far timers", function() return count(host, "timers") == 64 end)
    host:request("POST", "/x", { devices = { "last" } })
    bed.wait("the others to fire", function() return count(host, "delivered") == 8 end)
    host:stop()
  end)

  it("writes down what it has dealt with a second later, however often it was woken before", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = [[
local plugin = ...
plugin:serve { "POST /x", handler = function(req)
  for i = 1, 9000 do plugin:emit { device = "d" .. i % 50, metric = "glucose", value = i, key = req.body.tag .. i } end
  return 204
end }]], ["rules/r.lua"] = [[
local plugin = ...
plugin:derives "double"
plugin:on({ metric = "glucose" }, function(r) plugin:emit { metric = "double", value = 2 * r.value } end)]] }, config = "lanes = 2" }
    for i = 1, 6 do assert.equal(204, (host:request("POST", "/x", { tag = i .. "-" }))) end
    bed.wait("all of it", function() return count(host, "readings") == 108000 end)
    bed.wait("its cursors", function() return count(host, "cursors where seq = 108000") > 0 end)
    host:stop()
  end)

  it("fires timers past any number of those that no rule knows any more", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = vendor, ["rules/r.lua"] = [[
local plugin = ...
plugin:on({ metric = "glucose" }, function(r) plugin:arm("soon", r.device, "0.1s") end)
plugin:timer("soon", function() plugin.store:put("fired", true) end)
]] } }
    host:stop()
    local out, code = bed.run { "sqlite3", host.store, "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 10050)"
      .. " INSERT INTO timers(instance, name, key, due) SELECT 'gone', 'x', 'k' || n, 1000 + n FROM c" }
    assert.equal(0, code, out)
    host:begin()
    host:request("POST", "/x", { devices = { "d" } })
    bed.wait("it to fire", function() return count(host, "kv where space = 'plugin:r'") == 1 end)
    host:stop()
  end)
end)
