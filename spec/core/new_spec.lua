-- neap new: what it writes works at once, its spec notices when it is broken, and nothing that is there is overwritten.
local bed = require "bed"
local json = require "neap.json"

describe("neap new", function()
  local folder
  before_each(function() folder = bed.folder() end)

  local function neap(...) return bed.run({ bed.neap, ... }, { cwd = folder }) end
  local function path(name) return folder .. "/" .. name end

  -- What an editor's slip or a misunderstanding may do to each plugin: { plain text, what it becomes }.
  local breaks = {
    vendor = {
      { "not crypto.equal(mac", "crypto.equal(mac" }, { "req.raw)", "req.path)" }, { "auth = auth,", "" },
      { 'problem.where == "auth" and 401 or ', "" }, { "value = r.temp", "value = r.tmp" }, { "key = r.id", "key = r.id .. 1" },
      { ', key = r.id', "" }, { "at = at,", "" }, { 'unit = "Cel"', 'unit = "K"' }, { 'metric = "temp"', 'metric = "tmp"' },
      { "bearer = config.secret, ", "" }, { "since = since", "since = 0" }, { "res.json.newest)", "since)" }, { '"5m"', '"50m"' },
      { "expect = 200", "expect = 503" }, { "assert(time.parse(r.time, config.zone))", "time.parse(r.time, config.zone)" },
      { 'temp = { "number", min = -100, max = 200 }', 'temp = { "any" }' }, { "taken = #req.body.readings", "taken = 0" },
    },
    rule = {
      { "above =", "below =" }, { "plugin:throttle(r.device", 'plugin:throttle("all"' }, { "if plugin:throttle(r.device, config.again) then return end", "" },
      { ', quality = "valid"', "" }, { "metric = config.metric, ", "" }, { "value = r.value, ", "" }, { 'title = "Too high"', 'title = "Too low"' },
      { '{ "destination",', '{ "string", default = "desk",' }, { "device = r.device,", "" }, { "at = r.at", "at = r.att" },
    },
    destination = {
      { "bearer = to.token, ", "" }, { 'm.id }', 'tostring(m.attempt) }' }, { "json = m.data", "json = m" }, { "http.post", "http.put" },
      { "return http.post", "http.post" }, { "return http.post {", "return true or http.post {" },
    },
  }

  for _, kind in ipairs { "vendor", "rule", "destination" } do
    it("writes a " .. kind .. " whose spec passes, and which neap check takes", function()
      local out, code = neap("new", kind, "my-own")
      assert.equal(0, code, out)
      out, code = neap("test", "my-own")
      assert.equal(0, code, out)
      assert.matches("\n%d+ passed, 0 failed\n$", out)
      bed.write(path "neap.lua", ({
        vendor = 'return { connections = { { "my-own", secret = "s3cret" } } }',
        rule = 'return { rules = { { "my-own", to = "desk" } }, destinations = { { "pager", name = "desk" } } }',
        destination = 'return { destinations = { { "my-own", url = "https://desk.example/alerts" } } }',
      })[kind])
      bed.write(path "plugins/destinations/pager.lua", "(...):deliver { handler = function() return true end }")
      out, code = neap "check"
      assert.equal(0, code, out)
    end)

    it("writes a " .. kind .. " that luacheck has nothing to say of, whatever its name", function()
      local out, code = neap("new", kind, "a" .. ("0123456789-"):rep(3) .. "z")
      assert.equal(0, code, out)
      out, code = bed.run({ "luacheck", "--no-color", "." }, { cwd = folder })
      assert.equal(0, code, out)
    end)

    it("writes a spec that notices when its " .. kind .. " is broken", function()
      assert.equal(0, select(2, neap("new", kind, "my-own")))
      local file = path("plugins/" .. kind .. "s/my-own.lua")
      local sound = bed.read(file)
      for _, b in ipairs(breaks[kind]) do
        local from, to = sound:find(b[1], 1, true)
        assert.truthy(from, b[1] .. " is not in it")
        bed.write(file, sound:sub(1, from - 1) .. b[2] .. sound:sub(to + 1))
        local out, code = neap("test", "my-own")
        assert.equal(1, code, ("%s -> %s is not noticed:\n%s"):format(b[1], b[2], out))
      end
    end)
  end

  it("says the line of neap.lua that the plugin needs", function()
    assert.truthy(neap("new", "vendor", "north-sea"):find('connections = { { "north-sea", secret = env "NORTH_SEA_SECRET" } }', 1, true))
    assert.truthy(neap("new", "rule", "hot-fridge"):find('rules = { { "hot-fridge", to = ', 1, true))
  end)

  it("writes what editors and luacheck need, beside the plugins, once", function()
    local out = neap("new", "rule", "one", "--plugins", "lua/ward")
    assert.truthy(out:find("neap test one --plugins lua/ward", 1, true), out)
    local rc = json.decode(bed.read(path "lua/.luarc.json"))
    assert.equal("Lua 5.4", rc["runtime.version"])
    assert.same({ "types" }, rc["workspace.library"])
    assert.same({ "?.lua", "ward/lib/?.lua" }, rc["runtime.path"])
    assert.matches("^%-%-%-@meta", bed.read(path "lua/types/neap/plugin.lua"))
    bed.write(path "lua/.luarc.json", "mine")
    bed.write(path "lua/.luacheckrc", "mine too")
    out = neap("new", "rule", "two", "--plugins", "lua/ward")
    assert.equal("mine", bed.read(path "lua/.luarc.json"))
    assert.equal("mine too", bed.read(path "lua/.luacheckrc"))
    assert.falsy(out:find(".luarc.json", 1, true))
    assert.equal(0, select(2, neap("test", "--plugins", "lua/ward")))
  end)

  it("overwrites nothing: a name is one plugin's, in whatever folder", function()
    bed.write(path "plugins/rules/old/taken.lua", "-- mine")
    bed.write(path "plugins/rules/half_spec.lua", "-- mine")
    for _, name in ipairs { "taken", "half" } do
      for _, kind in ipairs { "vendor", "rule" } do
        local out, code = neap("new", kind, name)
        if name == "taken" or kind == "rule" then
          assert.equal(1, code, out)
          assert.matches(name .. "[%w_]*%.lua is there already: nothing was written", out)
        end
      end
    end
    assert.equal("-- mine", bed.read(path "plugins/rules/old/taken.lua"))
    assert.equal("-- mine", bed.read(path "plugins/rules/half_spec.lua"))
    assert.is_nil(io.open(path "plugins/rules/half.lua"))
    assert.is_nil(io.open(path "plugins/vendors/taken_spec.lua"))
  end)

  it("refuses names that are none, and says which are", function()
    for _, name in ipairs { "Hot", "hot fridge", "hot_fridge", "../x", "1st", "-x", "x-", "", "a.b", ("x"):rep(41), "é" } do
      local out, code = neap("new", "rule", "--", name)
      assert.equal(2, code, name)
      assert.matches("a name ", out)
    end
    assert.is_nil(io.open(path "plugins"))
  end)

  it("says what is missing or too much", function()
    local function refused(why, ...)
      local out, code = neap("new", ...)
      assert.equal(2, code)
      assert.truthy(out:find(why, 1, true), out)
    end
    refused "expected vendor, rule or destination"
    refused("did you mean \"rule\"?", "rul", "x")
    refused("expected vendor, rule or destination", "gadget", "x")
    refused("what is it to be called?", "rule")
    refused("one argument too many", "rule", "x", "y")
  end)

  it("says where it cannot write, and leaves no half behind", function()
    bed.write(path "plugins", "a file")
    local out, code = neap("new", "rule", "x")
    assert.equal(1, code)
    assert.matches("plugins", out)
    bed.write(path "other/rules", "a file")
    out, code = neap("new", "rule", "x", "--plugins", "other")
    assert.equal(1, code)
    assert.matches("other/rules: no folder can be made", out)
  end)
end)
