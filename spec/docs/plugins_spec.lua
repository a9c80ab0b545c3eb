-- What docs/plugins.md shows is run as it stands there: its files are put into a folder, its commands given to a shell.
local bed = require "bed"
local json = require "neap.json"

local page = bed.read "docs/plugins.md"

-- The blocks that begin with their file's name.
local function files()
  local found = {}
  for text in page:gmatch "```lua\n(.-)```" do
    local name = text:match "^%-%- plugins/(%S+%.lua)\n"
    if name then found[name] = text end
  end
  return found
end

describe("docs/plugins.md", function()
  local SECRET = "tide-and-time"
  local host, cloud
  setup(function()
    cloud = bed.receiver()
    cloud.answer = function()
      return 200, json.encode { newest = 5, readings = {
        { gauge = "pier-7", level_cm = 412.5, time = "2026-03-01T08:00:00Z" }, { gauge = "pier-8", level_cm = -3, time = "2026-03-01T08:05:00Z" } } }
    end
    host = bed.host { plugins = files(), env = { "TIDECO_SECRET=" .. SECRET }, config = ([[
      connections = { { "tideco", secret = env "TIDECO_SECRET", url = %q } },
      rules = { { "hot-fridge", to = "desk" } },
      destinations = { desk = { "webhook", url = "http://127.0.0.1:1/" } },]]):format(cloud.url) }
  end)
  teardown(function()
    cloud:close()
    host:stop()
  end)

  local function run(script)
    local whole = ("URL=%s TIDECO_SECRET=%s\n%s"):format(host.url, SECRET, script)
    local out, code = bed.run { "sh", "-c", whole }
    assert.equal(0, code, out)
    return out
  end

  it("has a rule, a destination and a vendor that are in force as they stand there", function()
    for _, name in ipairs { "tideco", "hot-fridge", "desk" } do assert.equal("in force", host:plugin(name).state) end
  end)

  it("has specs that pass, and fail where their plugin is broken", function()
    local folder = bed.folder()
    for name, text in pairs(files()) do bed.write(folder .. "/" .. name, text) end
    local out, code = bed.run { bed.neap, "test", "--plugins", folder }
    assert.equal(0, code, out)
    assert.matches("hot%-fridge_spec.lua %(1 in", out)
    assert.matches("fjordco_spec.lua %(3 in", out)
    bed.write(folder .. "/rules/hot-fridge.lua", (files()["rules/hot-fridge.lua"]:gsub("30m", "3m")))
    out, code = bed.run { bed.neap, "test", "hot-fridge", "--plugins", folder }
    assert.equal(1, code, out)
  end)

  it("the vendor's walk answers what the page says", function()
    local walk = assert(page:match "```sh\n(body=.-)```")
    local out = run(walk)
    assert.matches("^HTTP/1.1 204", out)
    local said = assert(page:match "the second `(.-)`")
    assert.same(json.decode(said), json.decode(out:match "\r\n\r\n(.*)$"))
    local again = run(walk)
    assert.same(json.decode(said), json.decode(again:match "\r\n\r\n(.*)$"))
    assert.equal(1, host:sql "select count(*) n from readings where device = 'pier-7'"[1].n)
    local wrong = run(walk:gsub("%$%(mac [^)]*%)", "0"))
    assert.matches("^HTTP/1.1 401", wrong)
    assert.same({ error = "bad signature", field = "" }, json.decode(wrong:match "\r\n\r\n(%b{})"))
    local far = run(walk:gsub("412.5", "9000", 1))
    assert.equal("level_cm", json.decode(far:match "\r\n\r\n(%b{})").field)
  end)

  it("its job brings what was missed, once", function()
    cloud:wait(1)
    bed.wait("the missed reading", function() return host:sql "select count(*) n from readings where device = 'pier-8'"[1].n == 1 end)
    assert.equal("/readings?since=0", cloud.requests[1].path)
    assert.equal(1, host:sql "select count(*) n from readings where device = 'pier-7'"[1].n)
  end)
end)
