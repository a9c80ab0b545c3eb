-- The walk of docs/rules.md, every command as it stands there, in order.
local bed = require "bed"
local json = require "neap.json"

local page = bed.read "docs/rules.md"

describe("docs/rules.md", function()
  it("is a rule's whole life, as the page tells it", function()
    local name, vendor = page:match "```lua\n%-%- plugins/(%S+)\n(.-)```"
    local host = bed.host { plugins = { [name] = vendor, ["destinations/log.lua"] = bed.read(bed.plugins .. "/destinations/log.lua") },
      config = 'rules = {},\ndestinations = { desk = { "log" } }' }
    local blocks = {}
    for text in page:gmatch "```sh\n(.-)```" do blocks[#blocks + 1] = text end
    local done = 0
    local function step(expected)
      done = done + 1
      local before = ("cd %s && PATH=%s:$PATH && URL=%s\nset -e\n"):format(host.folder, bed.neap:match "^(.*)/", host.url)
      local out, code = bed.run { "sh", "-c", before .. blocks[done] }
      assert.equal(0, code, blocks[done] .. out)
      for _, text in ipairs(expected) do assert.matches(text, out, 1, true) end
      return out
    end
    step {}
    bed.wait("what came to be stored", function() return host:sql "select count(*) n from readings"[1].n == 4 end)
    step {}
    bed.wait("the rule to be known", function() return host:plugin "hot-fridge" end)
    assert.equal("unconfigured", host:plugin("hot-fridge").state)
    step { "passed" }
    local tried = step { "hot-fridge: 2 new, over 4 readings" }
    assert.matches("8.6", tried, 1, true)
    assert.matches("9.4", tried, 1, true)
    assert.equal(0, host:sql "select count(*) n from outbox"[1].n + host:sql "select count(*) n from delivered"[1].n)
    step { "hot-fridge  hot-fridge  rule" }
    assert.same({ "in force", 1 }, { host:plugin("hot-fridge").state, host:plugin("hot-fridge").generation })
    step {}
    local line = bed.read(host.folder .. "/matches"):match "\n(.-)\n"
    assert.same({ "pharmacy", 1 }, { json.decode(line).device, json.decode(line).sent })
    bed.wait("its delivery", function() return host:sql "select count(*) n from delivered"[1].n == 1 end)
    -- the block before left `matches`, which the next one reads
    step { "pharmacy temp 11.5 Cel", "hot-fridge: sent 1 message by generation 1, on record", "11.5 is above 8", "attempt 1", "delivered" }
    step { "hot-fridge: does not match", "5.1 is not above 8" }
    local back = step { "Too warm", "rolled back" }
    assert.matches("generation 1 is in force", back, 1, true)
    assert.equal(1, host:plugin("hot-fridge").generation)
    step {}
    bed.wait("the rule to be out of force", function()
      return not host:plugin "hot-fridge"
    end)
    assert.equal(#blocks, done)
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
