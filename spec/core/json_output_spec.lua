-- --json: what each command says is JSON, an object a line, its errors too; only a command line that is wrong is told in words.
local bed = require "bed"
local json = require "neap.json"

-- Every command with words that are in order for it.
local COMMANDS = {
  check = {}, test = {}, plugins = {}, reload = {}, devices = {}, tag = { "d" }, destinations = {}, dead = { "list" }, ack = { "list" }, tail = {},
  call = { "v" }, keys = { "list", "v" }, request = { "1" }, explain = { "r1" }, people = {}, history = { "v" }, diff = { "v", "1" }, rollback = { "v" },
  approve = { "v" }, release = { "v" }, replay = { "v", "--failed" }, new = { "rule", "fresh" }, backup = { "copy.db" }, export = {}, import = { "nothing.ndjson" },
  types = {}, version = {},
}
local WORDS_ONLY = { run = true, sandbox = true, help = true }

describe("--json", function()
  local folder, host
  before_each(function() folder = bed.folder() end)
  after_each(function()
    if host then assert.same({ "exit", 0 }, { host:stop() }) end
    host = nil
  end)

  -- Lines on standard output and on standard error, decoded; the exit code.
  local function run(name, words, ...)
    local out, code = bed.run { "sh", "-c", "cd \"$1\" && shift && exec \"$@\" 2>err", "sh", folder, bed.neap, name, "--json", table.unpack(table.move({ ... }, 1, select("#", ...), #words + 1, { table.unpack(words) })) }
    local function decoded(text, from)
      local all = {}
      for line in text:gmatch "[^\n]+" do
        local ok, value = pcall(json.decode, line)
        assert(ok and type(value) == "table", ("neap %s says on standard %s: %s"):format(name, from, line))
        all[#all + 1] = value
      end
      return all
    end
    return decoded(out, "output"), decoded(bed.read(folder .. "/err"), "error"), code
  end

  it("is taken by every command that says anything", function()
    for name in (bed.run { bed.neap, "help" }):gmatch "\n  (%l+)" do
      assert.is_true(COMMANDS[name] ~= nil or WORDS_ONLY[name], name .. " is in no list of this spec")
    end
  end)

  it("has the error in JSON where no host is running, or there is no store", function()
    local without = { check = true, test = true, new = true, types = true, version = true, import = true }
    for name, words in pairs(COMMANDS) do
      if not without[name] then
        local out, err, code = run(name, words, "--store", folder .. "/none.db")
        assert.equal(1, code, name)
        local on_stderr = name == "call" or name == "keys" or name == "export" -- standard output is for results alone
        assert.same({ on_stderr and 0 or 1, on_stderr and 1 or 0 }, { #out, #err }, name)
        assert.is_string((on_stderr and err or out)[1].error, name)
      end
    end
  end)

  it("has what a host answers, and what it refuses", function()
    host = bed.host { config = "lanes = 1", plugins = { ["vendors/v.lua"] = "local plugin = ... plugin:serve { 'POST /v', handler = function() return 204 end }" } }
    host:request("POST", "/v", "x")
    for name, words in pairs(COMMANDS) do
      local needs_store = not ({ check = true, test = true, new = true, types = true, version = true, tail = true })[name]
      if needs_store then
        local out, err = run(name, words, "--store", host.store)
        assert.is_true(#out + #err > 0, name .. " says nothing")
      end
    end
    for name, words in pairs { explain = { "r99" }, request = { "99" }, history = { "nobody" }, diff = { "v", "7" }, rollback = { "v", "9" }, approve = { "v" }, release = { "v" },
      tag = { "nobody", "+x" }, dead = { "show", "x" }, ack = { "x" }, replay = { "nobody", "--failed" } } do
      local out, _, code = run(name, words, "--store", host.store)
      assert.equal(1, code, name)
      assert.is_string(out[#out].error, name)
    end
  end)

  it("has what is written, tested and checked", function()
    local out, err, code = run("new", { "rule", "fresh" })
    assert.same({ 0, {} }, { code, err })
    assert.same({ "plugins/rules/fresh.lua", "plugins/rules/fresh_spec.lua", ".luarc.json", ".luacheckrc", "types/neap" },
      { out[1].wrote, out[2].wrote, out[3].wrote, out[4].wrote, out[5].wrote })
    out, err, code = run("new", { "rule", "fresh" })
    assert.same({ 1, {}, 1 }, { code, err, #out })
    assert.matches("fresh", out[1].error, 1, true)
    assert.same({ { wrote = "other/neap" } }, (run("types", { "other" })))
    assert.matches("^%d+%.%d+", run("version", {})[1].version)
    bed.write(folder .. "/file", "")
    out, err, code = run("types", { "file" })
    assert.same({ 1, {}, "string" }, { code, err, type(out[1].error) })
    out, err, code = run("test", { "nobody" })
    assert.same({ 1, {}, { summary = { passed = 0, failed = 1 } } }, { code, err, out[2] })
    assert.matches("nobody: no such file", out[1].error, 1, true)
    out, err, code = run("check", { "nowhere.lua" })
    assert.same({ 1, {} }, { code, err })
    assert.matches("nowhere.lua", out[1].error, 1, true)
  end)
end)
