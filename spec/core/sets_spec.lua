-- Files that are changed together: one look, one epoch, also where it takes long to write them; and all or none of them, where neap.lua says so
-- or a library that they share would otherwise be there in two texts.
local bed = require "bed"
local process = require "process"

local function vendor(answer, path, lib)
  return ([[
local plugin = ...
local shared = %s
local calls = 0
plugin:serve { "GET %s", handler = function()
  calls = calls + 1
  return 200, { version = %q, shared = shared, calls = calls }
end }
]]):format(lib and ("require %q"):format(lib) or "0", path or "/v", answer)
end

describe("a set of changes", function()
  local host
  after_each(function()
    assert.same({ "exit", 0 }, { host:stop() }, host.output)
  end)

  local function file(name) return host.plugins .. "/" .. name end
  local function ask(path)
    local status, answer = host:json("GET", path or "/v")
    return status == 200 and answer.version or status, status == 200 and answer
  end
  local function in_force(want, path)
    return bed.wait("version " .. tostring(want), function() return ask(path) == want end)
  end
  local function shared(path) return (select(2, ask(path))).shared end
  local function failing(instance, text)
    local p = bed.wait(instance .. " to fail", function()
      local now = host:plugin(instance)
      return now and now.error and now.error:find(text, 1, true) and now
    end)
    return p
  end
  local function sh(command) assert(os.execute(("cd '%s' && %s >/dev/null 2>&1"):format(host.plugins, command))) end

  it("is none where the whole folder cannot be found: all goes on, and can be gone back with, until it is there again", function()
    host = bed.host { plugins = { ["vendors/v.lua"] = vendor "1", ["vendors/w.lua"] = vendor("1", "/w") } }
    bed.replace(file "vendors/v.lua", vendor "2")
    in_force "2"
    assert(os.rename(host.plugins, host.plugins .. ".away"))
    host:wait_for "cannot read the plugins; what is in force goes on"
    local out, code = bed.run { bed.neap, "reload", "--store", host.store }
    assert.same({ 1, "2", "1" }, { code, ask(), (ask "/w") }, out)
    assert.matches("plugins/ +last good", out)
    assert.matches("No such file", failing("plugins/", "plugins").error, 1, true)
    out, code = bed.run { bed.neap, "rollback", "v", "--store", host.store }
    assert.same({ 0, "1" }, { code, (ask()) }, out)
    assert(os.rename(host.plugins .. ".away", host.plugins))
    bed.wait("the folder to be read", function() return not host:plugin "plugins/" end)
    assert.same({ "rolled back", "1" }, { host:plugin("v").state, (ask()) })
    bed.replace(file "vendors/w.lua", vendor("2", "/w"))
    in_force("2", "/w")
    assert.equal(1, select(2, host.output:gsub("cannot read the plugins", "")))
  end)

  it("is none where all files are gone at once, as where a mount is: until there is a file again, or one says that it is meant so", function()
    host = bed.host { plugins = { ["vendors/v.lua"] = vendor "1", ["vendors/w.lua"] = vendor("1", "/w") } }
    local function reload(...) return bed.run { bed.neap, "reload", "--store", host.store, ... } end
    local function empty()
      assert(os.rename(host.plugins, host.plugins .. ".away"))
      assert(os.execute(("mkdir '%s'"):format(host.plugins)))
    end
    local function stays(...)
      failing("plugins/", "it is there, but empty: is something to be mounted there?")
      for _ = 1, 2 do -- asking again is no order
        local out, code = reload()
        assert.same({ 1, ... }, { code, ask(), (ask "/w") }, out)
        assert.matches("If it is to be empty: neap reload --empty", out, 1, true)
      end
    end
    empty()
    stays("1", "1")
    assert(os.remove(host.plugins) and os.rename(host.plugins .. ".away", host.plugins))
    bed.wait("the folder to be read", function() return not host:plugin "plugins/" end)
    os.remove(file "vendors/w.lua") -- one that goes by itself is retired, and so is the last one of the folder that was there
    in_force(404, "/w")
    empty()
    stays("1", 404) -- it would be the last one, but that is another folder
    assert(os.remove(host.plugins) and os.rename(host.plugins .. ".away", host.plugins))
    bed.wait("the folder to be read", function() return not host:plugin "plugins/" end)
    os.remove(file "vendors/v.lua")
    in_force(404)
    bed.replace(file "vendors/v.lua", vendor "2")
    bed.replace(file "vendors/w.lua", vendor("2", "/w"))
    in_force "2" in_force("2", "/w")
    sh "rm vendors/*.lua"
    failing("plugins/", "it is there, but empty")
    assert.same({ "2", "2" }, { (ask()), (ask "/w") })
    reload "--empty"
    in_force(404) in_force(404, "/w")
    assert.is_nil(host:plugin "plugins/")
    bed.replace(file "vendors/v.lua", vendor "3")
    bed.replace(file "vendors/w.lua", vendor("3", "/w"))
    in_force "3" in_force("3", "/w")
    sh "rm vendors/*.lua" -- that it once was meant to be empty does not hold for ever
    failing("plugins/", "it is there, but empty")
    assert.same({ "3", "3" }, { (ask()), (ask "/w") })
  end)

  describe("that is still being written is waited for:", function()
    before_each(function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "1", ["vendors/w.lua"] = vendor("1", "/w"),
        ["vendors/deeper/x.lua"] = vendor("1", "/x") } }
    end)

    -- begins, changes one file, and much later another
    local function in_two_steps(begin, finish, sign)
      begin()
      bed.replace(file "vendors/v.lua", vendor "2")
      host:wait_for("a set of changes is still being written[^\n]*" .. sign)
      for _ = 1, 10 do -- longer than any quiet time
        process.sleep(0.06)
        assert.equal("1", (ask()))
      end
      bed.replace(file "vendors/w.lua", vendor("2", "/w"))
      finish()
      in_force("2", "/w")
      assert.equal("2", (ask()))
      assert.equal(1, #host:sql "select distinct at / 1000 from generations where number = 2")
    end

    it("git's lock of its index", function()
      sh "git init -b main ."
      in_two_steps(function() bed.write(file ".git/index.lock", "") end, function() os.remove(file ".git/index.lock") end, "index.lock")
    end)

    it("that of a worktree, which is elsewhere", function()
      bed.write(host.folder .. "/elsewhere/HEAD", "")
      bed.write(file ".git", "gitdir: ../elsewhere\n")
      in_two_steps(function() bed.write(host.folder .. "/elsewhere/index.lock", "") end,
        function() os.remove(host.folder .. "/elsewhere/index.lock") end, "index.lock")
    end)

    it("rsync's temporary file", function()
      in_two_steps(function() bed.write(file "vendors/deeper/.x.lua.aB3xYz", vendor("2", "/x"):sub(1, 40)) end,
        function() assert(os.rename(file "vendors/deeper/.x.lua.aB3xYz", file "vendors/deeper/x.lua")) end, "aB3xYz")
      failing("x", "x.lua") -- of it only a part came: told by name
    end)

    it("a file named .hold, for all other tools", function()
      in_two_steps(function() bed.write(file ".hold", "") end, function() os.remove(file ".hold") end, "%.hold")
    end)
  end)

  describe("that is atomic", function()
    before_each(function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "1", ["vendors/w.lua"] = vendor("1", "/w"),
        ["vendors/x.lua"] = vendor("1", "/x") }, config = 'lanes = 2, deploy = "atomic"' }
    end)
    local function all(want)
      for _, path in ipairs { "/v", "/w", "/x" } do assert.equal(want[path], (ask(path)), path) end
    end

    it("comes whole or not at all, and says which file holds which back", function()
      bed.replace(file "vendors/v.lua", vendor "2")
      bed.replace(file "vendors/w.lua", "local plugin = ...\nlocal x = = 1")
      os.remove(file "vendors/x.lua")
      bed.write(file "vendors/new.lua", vendor("2", "/new"))
      failing("w", "plugins/vendors/w.lua:2:")
      for _, name in ipairs { "v", "x", "new" } do
        assert.matches("plugins/vendors/w%.lua:2:", failing(name, "held back").error)
      end
      all { ["/v"] = "1", ["/w"] = "1", ["/x"] = "1" }
      assert.equal(404, (ask "/new"))
      assert.same({ "held", 0 }, { host:plugin("new").state, host:plugin("new").generation })
      local out, code = bed.run { bed.neap, "reload", "--store", host.store }
      assert.equal(1, code, out)
      -- what one of them is changed to meanwhile waits as well, and a restart changes nothing either
      bed.replace(file "vendors/v.lua", vendor "3")
      host:wait_for "held back"
      host:restart()
      all { ["/v"] = "1", ["/w"] = "1", ["/x"] = 404 } -- a file that is gone is gone at a start
      assert.equal("last good", host:plugin("v").state)
      assert.matches("w.lua:2:", failing("v", "held back").error, 1, true)
      bed.replace(file "vendors/w.lua", vendor("2", "/w"))
      in_force("2", "/w")
      all { ["/v"] = "3", ["/w"] = "2", ["/x"] = 404 }
      assert.equal("2", (ask "/new"))
      for _, name in ipairs { "v", "w", "new" } do
        local p = host:plugin(name)
        assert.same({ "in force", nil }, { p.state, p.error })
      end
    end)

    it("goes on when the file that held it back is taken away", function()
      bed.write(file ".hold", "")
      bed.replace(file "vendors/v.lua", vendor "2")
      bed.replace(file "vendors/w.lua", "local plugin = ...\nlocal x = = 1")
      os.remove(file ".hold")
      failing("v", "held back")
      os.remove(file "vendors/w.lua")
      in_force "2"
      all { ["/v"] = "2", ["/w"] = 404, ["/x"] = "1" }
      assert.same({ nil, nil }, { host:plugin "w", host:plugin("v").error })
    end)

    it("counts neap.lua in", function()
      local config = bed.read(host.folder .. "/neap.lua")
      bed.write(file ".hold", "")
      bed.replace(host.folder .. "/neap.lua", (config:gsub("lanes", "lane")))
      bed.replace(file "vendors/v.lua", vendor "2")
      os.remove(file ".hold")
      assert.matches("lane", failing("v", "neap.lua").error, 1, true)
      all { ["/v"] = "1", ["/w"] = "1", ["/x"] = "1" }
      bed.replace(host.folder .. "/neap.lua", config)
      in_force "2"
    end)

    it("takes a plugin's new name at one moment", function()
      os.rename(file "vendors/v.lua", file "vendors/renamed.lua")
      bed.wait("the new name", function()
        assert.equal("1", (ask()))
        local p = host:plugin "renamed"
        return p and p.state == "in force"
      end)
      assert.is_nil(host:plugin "v")
      assert.is_nil(host:read():find("not in force", 1, true))
    end)

    it("is refused for a word that is none", function()
      local config = bed.read(host.folder .. "/neap.lua")
      bed.replace(host.folder .. "/neap.lua", (config:gsub("atomic", "atomics")))
      host:wait_for "deploy: expected"
    end)
  end)

  describe("of which each stands for itself", function()
    it("takes what is good; a plugin's new name costs no request and no error", function()
      host = bed.host { plugins = { ["vendors/v.lua"] = vendor "1", ["vendors/w.lua"] = vendor("1", "/w") } }
      bed.replace(file "vendors/v.lua", "local plugin = ...\nlocal x = = 1")
      bed.replace(file "vendors/w.lua", vendor("2", "/w"))
      in_force("2", "/w")
      assert.equal("1", (ask()))
      os.rename(file "vendors/w.lua", file "vendors/renamed.lua")
      bed.wait("the new name", function()
        assert.equal("2", (ask "/w"))
        local p = host:plugin "renamed"
        return p and p.state == "in force"
      end)
      assert.is_nil(host:read():find("served by", 1, true))
    end)
  end)

  describe("of a library", function()
    before_each(function()
      host = bed.host { plugins = {
        ["lib/deep.lua"] = "return 1",
        ["lib/middle.lua"] = "return require 'deep'",
        ["lib/other.lua"] = "return 1",
        ["vendors/a.lua"] = vendor("1", "/a", "middle"),
        ["vendors/b.lua"] = vendor("1", "/b", "deep"),
        ["vendors/c.lua"] = "local deep = require 'deep'\nassert(deep < 3, 'deep has to be below 3')\n" .. vendor("1", "/c", "deep"),
        ["vendors/e.lua"] = vendor("1", "/e", "other"),
        ["vendors/plain.lua"] = vendor("1", "/plain") }, config = "lanes = 2" }
    end)

    it("reloads what depends on it, also by another one, at one epoch, and nothing else", function()
      ask "/plain"
      local before = host:plugin "plain"
      bed.replace(file "lib/deep.lua", "return 2")
      bed.wait("the new text", function()
        local a = shared "/a"
        assert.is_true(shared "/b" >= a and shared "/c" >= a)
        return a == 2
      end)
      assert.same({ 1, before.since }, { host:plugin("plain").generation, host:plugin("plain").since })
      assert.equal(1, host:plugin("e").generation)
    end)

    it("that one cannot take stays as it is for all that require it, which says why; others are not concerned", function()
      bed.write(file ".hold", "")
      bed.replace(file "lib/deep.lua", "return 3")
      bed.replace(file "vendors/b.lua", vendor("2", "/b", "deep"))
      bed.replace(file "vendors/e.lua", vendor("2", "/e", "other"))
      bed.write(file "vendors/d.lua", vendor("1", "/d", "middle"))
      os.remove(file ".hold")
      in_force("2", "/e")
      failing("c", "deep has to be below 3")
      for _, name in ipairs { "a", "b", "d" } do
        local p = failing(name, "held back")
        assert.matches("plugins/lib/deep.lua", p.error, 1, true)
        assert.matches("c requires it too", p.error, 1, true)
        assert.matches("plugins/vendors/c.lua:2: deep has to be below 3", p.error, 1, true)
      end
      assert.same({ 1, 1, 1, 404 }, { shared "/a", shared "/b", shared "/c", (ask "/d") })
      assert.equal("1", (ask "/b"))
      host:restart()
      assert.same({ 1, 1, 1, 404 }, { shared "/a", shared "/b", shared "/c", (ask "/d") })
      assert.equal("1", (ask "/b"))
      bed.replace(file "vendors/c.lua", vendor("2", "/c", "deep"))
      in_force("2", "/c")
      assert.same({ 3, 3, 3, 3 }, { shared "/a", shared "/b", shared "/c", shared "/d" })
      assert.equal("2", (ask "/b"))
    end)

    it("is not held back by a plugin that somebody went back with", function()
      bed.replace(file "vendors/c.lua", vendor("2", "/c", "deep"))
      in_force("2", "/c")
      assert.equal(0, select(2, bed.run { bed.neap, "rollback", "c", "--store", host.store }))
      bed.replace(file "lib/deep.lua", "return 3")
      bed.wait("the new text", function() return shared "/a" == 3 end)
      assert.same({ 3, 1 }, { shared "/b", shared "/c" })
      assert.equal("rolled back", host:plugin("c").state)
    end)
  end)

  it("touches nothing that it does not change: not a generation, nor what an instance has in memory", function()
    local settings = [[
local plugin = ...
local config = plugin:config { limit = { "number" } }
local calls = 0
plugin:serve { "GET /limit", handler = function() calls = calls + 1; return 200, { version = config.limit, calls = calls } end }
]]
    local config = [[return { listen = "127.0.0.1:0", store = "neap.db", plugins = "plugins", lanes = 1,
      connections = { { "a", limit = %d }, { "b", name = "other", mount = "/other", limit = 1 } } }]]
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua", config:format(1))
    host = bed.host { folder = folder, keep_config = true, plugins = { ["vendors/a.lua"] = settings, ["vendors/b.lua"] = settings,
      ["vendors/v.lua"] = vendor "1" } }
    for n = 1, 5 do
      assert.equal(n, select(2, ask "/other/limit").calls)
      assert.equal(n, select(2, ask()).calls)
    end
    local before = { host:plugin "other", host:plugin "v" }
    for n = 2, 4 do
      bed.replace(folder .. "/neap.lua", config:format(n))
      in_force(n, "/limit")
      assert.equal(4 + n, select(2, ask "/other/limit").calls)
      assert.equal(4 + n, select(2, ask()).calls)
    end
    for i, name in ipairs { "other", "v" } do
      local now = host:plugin(name)
      assert.same({ before[i].generation, before[i].since, before[i].hash }, { now.generation, now.since, now.hash })
    end
  end)
end)
