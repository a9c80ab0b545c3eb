-- The rock: LuaRocks has nothing to say against it, it carries every plugin, library, spec and definition that there is, and the specs pass
-- on what was installed. No network: the server that LuaRocks is told of does not exist.
local bed = require "bed"

local ROCKSPEC = "rockspec/neap-0.1.0-1.rockspec"

describe("the rock", function()
  local home
  setup(function()
    home = bed.folder()
    bed.write(home .. "/config.lua", "rocks_servers = { 'file:///nowhere' }\n")
  end)

  local function luarocks(...)
    return bed.run { "env", "HOME=" .. home, "LUAROCKS_CONFIG=" .. home .. "/config.lua", "PATH=" .. bed.neap:match "^(.*)/" .. ":" .. os.getenv "PATH",
      "luarocks", "--lua-version", "5.4", ... }
  end

  local function read_rockspec()
    local fields = {}
    assert(loadfile(ROCKSPEC, "t", fields))()
    return fields
  end

  -- Files below a folder: path below it -> text.
  local function files_of(folder)
    local files = {}
    for path in assert(io.popen(("find '%s' -type f"):format(folder))):lines() do files[path:sub(#folder + 2)] = bed.read(path) end
    return files
  end

  -- Where the rock puts each file of the repository that it has to carry: path below LuaRocks' folder of Lua files -> text.
  local function wanted()
    local files = {}
    for path, text in pairs(files_of "plugins") do files["neap/plugins/" .. path] = text end
    for path, text in pairs(files_of "core/types") do files["neap/types/neap/" .. path] = text end
    return files
  end

  local function names_of(files)
    local list = {}
    for name in pairs(files) do list[#list + 1] = name end
    table.sort(list)
    return list
  end

  it("has the program's version, and nothing that luarocks lint finds", function()
    local out, code = luarocks("lint", ROCKSPEC)
    assert.equal(0, code, out)
    assert.equal("neap " .. read_rockspec().version:match "^(.*)%-%d+$" .. "\n", (bed.run { bed.neap, "version" }))
  end)

  it("lists each plugin, library, spec and definition, and nothing else", function()
    local listed = {}
    for module, path in pairs(read_rockspec().build.install.lua) do listed[module:gsub("%.", "/") .. ".lua"] = bed.read(path) end
    assert.same(names_of(wanted()), names_of(listed))
    for name, text in pairs(wanted()) do assert.truthy(listed[name] == text, name .. " is listed with another file") end
  end)

  describe("as luarocks make installs it", function()
    local lua -- LuaRocks' folder of Lua files
    setup(function()
      local tree = bed.folder()
      local out, code = luarocks("make", "--tree", tree, ROCKSPEC)
      assert.equal(0, code, out)
      lua = luarocks("--tree", tree, "config", "deploy_lua_dir"):match "[^\n]+"
      local rock = luarocks("--tree", tree, "show", "--rock-dir", "neap"):match "[^\n]+"
      assert.equal(bed.read "LICENSE", bed.read(rock .. "/conf/LICENSE"))
      assert.same(files_of "docs", files_of(rock .. "/docs"))
    end)

    it("is what the repository has, file by file", function()
      local installed = files_of(lua)
      assert.same(names_of(wanted()), names_of(installed))
      for name, text in pairs(wanted()) do assert.truthy(installed[name] == text, name) end
    end)

    it("has plugins whose specs pass, each of them", function()
      local folder, specs = lua .. "/neap/plugins", 0
      for name in pairs(files_of "plugins") do specs = specs + (name:find "_spec%.lua$" and 1 or 0) end
      local out, code = bed.run({ bed.neap, "test", "--plugins", folder }, { cwd = home })
      assert.equal(0, code, out)
      local passed = 0
      for name in out:gmatch "ok%s+(%S+)" do
        assert.equal(folder, name:sub(1, #folder))
        passed = passed + 1
      end
      assert.equal(specs, passed, out)
      assert.truthy(specs > 0)
      assert.matches("\n%d+ passed, 0 failed\n$", out)
    end)

    it("has plugins whose specs fail where one of them is broken", function()
      local path = lua .. "/neap/plugins/rules/low-glucose.lua"
      local sound = bed.read(path)
      bed.write(path, (sound:gsub("below", "above")))
      local out, code = bed.run({ bed.neap, "test", "--plugins", lua .. "/neap/plugins", "low-glucose" }, { cwd = home })
      bed.write(path, sound)
      assert.equal(1, code, out)
    end)

    it("has the types that neap types writes, as an editor's library", function()
      local folder = bed.folder()
      assert.equal(0, select(2, bed.run { bed.neap, "types", folder }))
      assert.same(files_of(folder), files_of(lua .. "/neap/types"))
    end)

    it("serves a host, as the folder of its plugins", function()
      local host = bed.host { config = [[rules = { { "low-glucose", to = "log" } }, connections = { { "sinocare" } }]], folder = bed.folder(),
        args = { "--plugins", lua .. "/neap/plugins" } }
      assert.equal(200, (host:json("POST", "/sinocare/push", bed.push { testResult = "2.9" })))
      assert.equal("in force", host:plugin("low-glucose").state)
      host:stop()
    end)
  end)

  it("is tested by luarocks test, with the neap that is found", function()
    local out, code = luarocks("test", ROCKSPEC)
    assert.equal(0, code, out)
    assert.matches("\n%d+ passed, 0 failed\n", out)
  end)
end)
