-- The plugins that came with neap: a program that is moved with its share/ finds its own, and whoever has plugins of his own and misses one is told where it is.
local bed = require "bed"

describe("the plugins that came with neap", function()
  local root, work, shipped
  before_each(function()
    root, work = bed.folder(), bed.folder()
    shipped = root .. "/share/neap/plugins"
    assert(os.execute(("mkdir -p '%s/bin' '%s/share/neap' && cp '%s' '%s/bin/neap' && cp -r '%s' '%s'"):format(
      root, root, bed.neap, root, bed.plugins, shipped)))
  end)

  local function neap(...) return bed.run({ root .. "/bin/neap", ... }, { cwd = work }) end
  local function configure(text) bed.write(work .. "/neap.lua", "return { " .. text .. " }") end
  local function own(name, text) bed.write(work .. "/plugins/" .. name, text or "local plugin = ...\nplugin:on({ metric = \"m\" }, function() end)\n") end
  local function says(out, text) assert.truthy(out:find(text, 1, true), out) end

  it("are used by a host that has no plugins folder, from beside the program", function()
    configure [[rules = { { "low-glucose", to = "log" } }]]
    local out, code = neap "check"
    assert.equal(0, code, out)
    says(out, "plugins, all good")
    out, code = neap("test", "low-glucose")
    assert.equal(0, code, out)
    says(out, shipped .. "/rules/low-glucose_spec.lua")
  end)

  it("are told of by neap new where it makes the folder that stands before them, and only then", function()
    local out, code = neap("new", "rule", "hot-fridge")
    assert.equal(0, code, out)
    says(out, "plugins/ is new. A host whose neap.lua stands beside it takes its plugins from there alone, from its next start on.")
    local command = out:match "To have those that came with neap there too:  (cp [^\n]+)\n"
    assert.same({ "", 0 }, { bed.run({ "sh", "-c", command }, { cwd = work }) })
    configure [[rules = { { "hot-fridge", to = "log" }, { "low-glucose", to = "log" } }]]
    out, code = neap "check"
    assert.equal(0, code, out)
    says(out, "plugins, all good")
    out = neap("new", "destination", "pager")
    assert.is_nil(out:find("plugins/ is new", 1, true), out)
    says(out, 'destinations = { desk = { "pager", url = "https://where.messages/are/posted" } }, for rules that say to = "desk"')
  end)

  it("are guessed where a name is misspelt, and so are a destination's settings", function()
    configure [[connections = { { "sinocar" } }]]
    local out, code = neap "check"
    assert.equal(1, code, out)
    says(out, ('neap.lua: connections[1]: no plugin file sinocar.lua in %s, did you mean "sinocare"?'):format(shipped))
    configure [[rules = { { "low-glucose" } }]]
    says((neap "check"), "neap.lua: rules[1]: setting to: missing: expected the name of a destination (who is told)")
    configure [[destinations = { archive = { "file", folder = "here" } }]]
    says((neap "check"), 'setting folder: expected text that matches the pattern /.+, got "here" (where files are written, a whole path: it has to be there)')
    configure [[destinations = { desk = { "webhook", url = "http://192.0.2.1/", headrs = {} } }]]
    says((neap "check"), 'neap.lua: destinations.desk: unknown setting "headrs", did you mean "headers"?')
  end)

  it("are not there where neap.lua names a folder that is not: neap check says so", function()
    configure [[plugins = "plugin"]]
    local out, code = neap "check"
    assert.equal(1, code, out)
    says(out, "neap.lua: plugins: " .. work .. "/plugin is not there")
  end)

  it("are not seen by one that has, which is told where to copy from, by library too, until all is there", function()
    own "rules/mine.lua"
    configure [[destinations = { { "webhook", name = "desk", url = "http://192.0.2.1/" } }]]
    local copied = {}
    for _ = 1, 10 do
      local out, code = neap "check"
      if code == 0 then break end
      local path = assert(out:match "; neap came with one: copy it from (%S+%.lua)", out)
      assert.equal(shipped, path:sub(1, #shipped))
      copied[#copied + 1] = path:sub(#shipped + 2)
      own(copied[#copied], bed.read(path))
    end
    table.sort(copied)
    assert.same({ "destinations/webhook.lua", "lib/message.lua", "lib/template.lua" }, copied)
    local out, code = neap "check"
    assert.equal(0, code, out)
  end)

  for _, entry in ipairs { { "connections", "tuya", "vendors" }, { "rules", "forward", "rules" }, { "destinations", "log", "destinations" } } do
    it("are found in " .. entry[3] .. "/", function()
      own "rules/mine.lua"
      configure(("%s = { { %q } }"):format(entry[1], entry[2]))
      local out, code = neap "check"
      assert.equal(1, code)
      says(out, ("no plugin file %s.lua in %s/plugins; neap came with one: copy it from %s/%s/%s.lua"):format(entry[2], work, shipped, entry[3], entry[2]))
    end)
  end

  it("are not spoken of where none has that name", function()
    own("rules/mine.lua", "local plugin = ...\nrequire \"vendors.log\"\nplugin:on({ metric = \"m\" }, function() end)\n")
    own("rules/other.lua", "local plugin = ...\nrequire \"../destinations/log\"\nplugin:on({ metric = \"m\" }, function() end)\n")
    configure [[destinations = { { "pager" }, { "message" } }]]
    local out, code = neap "check"
    assert.equal(1, code)
    says(out, "no plugin file pager.lua in ")
    says(out, "no plugin file message.lua in ") -- a library is no plugin
    says(out, 'no library "vendors.log" in plugins/lib')
    says(out, 'no library "../destinations/log" in plugins/lib')
    assert.falsy(out:find("came with", 1, true), out)
  end)

  it("are those of the installation where the program stands alone", function()
    own "rules/mine.lua"
    assert(os.execute(("rm -r '%s/share'"):format(root)))
    configure [[destinations = { { "log" } }]]
    local out, code = neap "check"
    assert.equal(1, code)
    says(out, "no plugin file log.lua in ")
    assert.falsy(out:find(root, 1, true), out)
  end)
end)
