-- A destination that keeps failing, by a test's clock: when it is probed, and what happens once a delivery arrives.
local bed = require "bed"

local DESK = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { options = {}, handler = function(messages)
  return http.post { url = "https://desk.example/", body = messages[1].json }
end }]]

describe("a destination that keeps failing", function()
  local function run(body)
    local folder = bed.folder()
    bed.write(folder .. "/plugins/destinations/desk.lua", (DESK:gsub("options = {}", "options = { url = { 'string', default = 'https://desk.example' } }")))
    bed.write(folder .. "/plugins/destinations/desk_spec.lua", [[
local t = require "neap.test"
local URL = "POST https://desk.example/"
local function tried() return #t.asked(URL) end
local function delivered()
  local n = 0
  for _, m in ipairs(t.sent "desk") do n = n + (m.state == "delivered" and 1 or 0) end
  return n
end
it("works", function()
  t.http(URL, 503)
  local desk = t.plugin "desk"
]] .. body .. "\nend)")
    local out, code = bed.run({ bed.neap, "test" }, { cwd = folder })
    assert.equal(0, code, out)
  end

  it("is only probed after eight failures: after a second, then two, then four, less a random part", function()
    run [[
      for i = 1, 12 do desk:message { device = "d" .. i } end
      assert.equal(8, tried())
      local n, wait = 8, 1000
      for _ = 1, 4 do
        t.advance(("%dms"):format(wait // 2 - 1))
        assert.equal(n, tried())
        t.advance(("%dms"):format(wait // 2 + 1))
        n, wait = n + 1, wait * 2
        assert.is_true(tried() == n, tried() .. " tries, not " .. n)
      end
    ]]
  end)

  it("is probed each minute at least, also where all that waits has been put off for longer, and gets all of it once one arrives", function()
    run [[
      for i = 1, 3 do desk:message { device = "d" .. i } end
      t.advance "1h"
      local n = tried()
      t.advance "10m"
      assert.is_true(tried() - n >= 10 and tried() - n <= 20, tried() - n .. " tries in ten minutes")
      t.http(URL, 204)
      t.advance "1m"
      assert.equal(3, delivered())
    ]]
  end)
end)
