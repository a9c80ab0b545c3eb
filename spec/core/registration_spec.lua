-- What a chunk registers: every lane's copy calls the handler that was registered, in whatever order its chunk came to it.
local bed = require "bed"

describe("registration", function()
  local host
  after_each(function() host:stop() end)

  it("in a pairs loop calls the right handler on every lane", function()
    host = bed.host { config = "lanes = 4", plugins = { ["vendors/many.lua"] = [[
      local plugin = ...
      local names = {}
      for i = 1, 40 do names["n" .. i] = i end
      for name, i in pairs(names) do
        plugin:serve { "GET /" .. name, handler = function() return { i = i } end }
      end
    ]] } }
    for i = 1, 40 do
      for _ = 1, 6 do
        local status, answer = host:json("GET", "/n" .. i)
        assert.equal(200, status)
        assert.equal(i, answer.i)
      end
    end
  end)

  it("that depends on chance is refused, and says so", function()
    host = bed.host { config = "lanes = 4", plugins = { ["vendors/dice.lua"] = [[
      local plugin = ...
      plugin:serve { "GET /" .. tostring({}):gsub("%W", ""), handler = function() end }
    ]] } }
    host:wait_for "vendors/dice.lua: registers something else each time"
  end)

  it("of a handler that returns nil fails the request", function()
    host = bed.host { plugins = { ["vendors/nothing.lua"] = [[
      local plugin = ...
      plugin:serve { "GET /nil", handler = function() return nil end }
      plugin:serve { "GET /none", handler = function() end }
    ]] } }
    assert.equal(500, (host:request("GET", "/nil")))
    host:wait_for "returned nil"
    assert.equal(204, (host:request("GET", "/none")))
  end)
end)
