-- A destination's handler that says { dead = why }: no try will help.
local bed = require "bed"

local source = [[
local plugin = ...
plugin:serve { "POST /m", body = { n = { "integer" } }, keep = false, handler = function(req)
  plugin:emit { device = "d", metric = "m", value = req.body.n, at = req.body.n }
  return 204
end }
]]
local rule = [[
local plugin = ...
plugin:on({ metric = "m" }, function(r) plugin:send("desk", { n = r.value }) end)
]]
local desk = [[
local plugin = ...
plugin:deliver { options = {}, batch = 10, handler = function(messages)
  if messages[1].data.n == 0 then return { dead = "the whole of it is of no use" } end
  local outcomes = {}
  for i, m in ipairs(messages) do outcomes[i] = m.data.n % 2 == 0 or { dead = "odd: " .. m.data.n } end
  return outcomes
end }
]]

describe("a handler that gives up a message", function()
  local host
  setup(function()
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/all.lua"] = rule, ["destinations/desk.lua"] = desk } }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  it("makes a dead letter of it, for its reason and at once, and of no other", function()
    for n = 0, 5 do assert.equal(204, (host:request("POST", "/m", { n = n })))  end
    bed.wait("all outcomes", function() return #host:sql "select * from outbox" == 0 end)
    local dead = {}
    for _, row in ipairs(host:sql "select body, error, attempts, status from dead order by seq") do
      dead[#dead + 1] = ("%s %s %d %d"):format(row.body, row.error, row.attempts, row.status)
    end
    assert.same({ '{"n":0} the whole of it is of no use 1 0', '{"n":1} odd: 1 1 0', '{"n":3} odd: 3 1 0', '{"n":5} odd: 5 1 0' }, dead)
    assert.equal(2, #host:sql "select * from delivered")
  end)
end)
