-- neap sandbox: a host in one command, for whoever writes a client of a vendor's API.
local bed = require "bed"
local json = require "neap.json"
local process = require "process"

local toy = [[
local plugin = ...
plugin:config { word = { "string", default = "sesame" } }
plugin:serve { "GET /toy/{key}", handler = function(req)
  return plugin.store:get("key:" .. req.params.key) and 200 or 401, { devices = plugin.data:count("devices", {}) }
end }
plugin:command { "sandbox", handler = function(args)
  plugin.store:put("key:k-1", args.url)
  plugin:device { device = "SN-1", owner = plugin.people:keep("p", { name = "Ada" }) }
  assert(plugin.people:reference "p")
  return { credentials = { client_id = "k-1", client_secret = "s-1", number = 7 }, example = "curl " .. args.url .. "/toy/k-1" }
end }
plugin:command { "count", handler = function() return plugin.data:count("devices", {}) end }
]]
local other = 'local plugin = ... plugin:serve { "GET /other", handler = function() return 204 end }'
local bad = 'local plugin = ... plugin:command { "sandbox", handler = function() error "no data today" end }'

describe("neap sandbox", function()
  local folder
  setup(function()
    folder = bed.folder()
    bed.write(folder .. "/plugins/vendors/toy.lua", toy)
    bed.write(folder .. "/plugins/vendors/other.lua", other)
    bed.write(folder .. "/plugins/vendors/bad.lua", bad)
    bed.write(folder .. "/plugins/vendors/odd.lua", 'local plugin = ... plugin:command { "sandbox", handler = function() return 1 end }')
    bed.write(folder .. "/plugins/vendors/broken.lua", "local plugin = ...\nplugin:command {")
    assert(os.execute(("mkdir -p '%s/tmp'"):format(folder)))
  end)

  local function start(...)
    return bed.start({ bed.neap, "sandbox", "--plugins", folder .. "/plugins", ... }, { "TMPDIR=" .. folder .. "/tmp" })
  end
  local function run(...)
    local p = start(...)
    local _, code = p:wait()
    return p.output, code
  end
  local function left() return #bed.run { "ls", folder .. "/tmp" } end

  it("says all in one line of JSON, serves, and leaves nothing behind", function()
    for _, signal in ipairs { 2, 15 } do
      local p = bed.start { "sh", "-c", ("TMPDIR='%s/tmp' exec '%s' sandbox toy --plugins '%s/plugins' --json --log-level debug 2>'%s/log'")
        :format(folder, bed.neap, folder, folder) }
      local line = p:wait_for "^[^\n]*\n"
      local told = json.decode(line)
      assert.same({ "toy", "k-1", "s-1", 7 }, { told.vendor, told.client_id, told.client_secret, told.number })
      assert.equal("curl " .. told.url .. "/toy/k-1", told.example)
      local port = tonumber(told.url:match "^http://127%.0%.0%.1:(%d+)$")
      local status, body = bed.request(port, "GET", "/toy/k-1")
      assert.same({ 200, '{"devices":1}' }, { status, body })
      assert.equal(401, (bed.request(port, "GET", "/toy/k-2")))
      assert.equal(404, (bed.request(port, "GET", "/other"))) -- the vendor alone
      assert.same({ "1\n", 0 }, { bed.run { bed.neap, "call", "toy", "count", "--store", told.store } })
      assert.is_true(left() > 0)
      assert.same({ "exit", 0 }, { p:stop(signal) })
      assert.equal(line, p.output) -- nothing else on standard output, however much is logged
      assert.matches('"command":"sandbox"', bed.read(folder .. "/log"))
      assert.is_nil(bed.read(folder .. "/log"):find("s-1", 1, true))
      assert.equal(0, left())
    end
  end)

  it("tells a person what there is", function()
    local p = start "toy"
    p:wait_for "Ctrl%-C ends it"
    assert.matches("^The sandbox of toy is at http://127%.0%.0%.1:%d+\n\n  client_id      k%-1\n  client_secret  s%-1\n  number         7\n\n"
      .. "For example:\n  curl http://127%.0%.0%.1:%d+/toy/k%-1\n\nIts store is " .. folder:gsub("%p", "%%%0")
      .. "/tmp/neap%-sandbox%-%w+/neap%.db, and is removed at the end%. Ctrl%-C ends it%.\n$", p.output)
    p:stop(2)
    assert.equal(0, left())
  end)

  it("takes an address and a store, which stays", function()
    local store = folder .. "/kept.db"
    local first = start("toy", "--store", store, "--listen", "127.0.0.1:0", "--json", "--lanes", "1")
    local told = json.decode(first:wait_for "^[^\n]*\n")
    assert.equal(store, told.store)
    first:stop()
    assert.equal(1, bed.sql(store, "SELECT count(*) AS n FROM devices")[1].n)
    local port = told.url:match ":(%d+)$"
    local again = start("toy", "--store", store, "--listen", "127.0.0.1:" .. port, "--json")
    assert.equal(told.url, json.decode(again:wait_for "^[^\n]*\n").url)
    local second, code = run("toy", "--store", store)
    assert.equal(1, code)
    assert.matches("kept%.db", second)
    again:stop()
    assert.equal(0, left())
  end)

  it("lists those that have one where there is none", function()
    assert.same({ 'neap sandbox: "other" has no sandbox. There is one of: bad, odd, toy\n', 2 }, { run "other" })
    assert.same({ 'neap sandbox: "toi" has no sandbox, did you mean "toy"? There is one of: bad, odd, toy\n', 2 }, { run "toi" })
    assert.same({ "neap sandbox: of which vendor? There is one of: bad, odd, toy\n", 2 }, { run() })
    local empty = bed.folder()
    assert.same({ ('neap sandbox: "x" has no sandbox. No plugin in %s has one: --plugins names another folder\n'):format(empty), 2 },
      { bed.run { bed.neap, "sandbox", "x", "--plugins", empty } })
    assert.equal(0, left())
  end)

  it("says why it cannot be had, ends, and leaves nothing behind", function()
    local out, code = run("bad", "--json")
    assert.equal(1, code)
    assert.matches("neap sandbox: plugins/vendors/bad%.lua:1: no data today", out)
    out, code = run "odd"
    assert.equal(1, code)
    assert.matches('neap sandbox: its command "sandbox" returned no table\n', out)
    out, code = run "broken"
    assert.equal(1, code)
    assert.matches("^neap sandbox: plugins/vendors/broken%.lua:2: ", out)
    out, code = run("toy", "--listen", "nowhere")
    assert.equal(1, code)
    assert.matches("%-%-listen", out)
    assert.same({ "neap sandbox: --lanes: expected a number from 1 to 64, got \"0\"\n", 2 }, { run("toy", "--lanes", "0") })
    assert.equal(0, left())
  end)

  it("that is killed has lost nothing of a store that was named", function()
    local store = folder .. "/killed.db"
    local p = start("toy", "--store", store, "--json")
    p:wait_for "^[^\n]*\n"
    process.kill(p.pid, 9)
    p:wait()
    assert.equal(1, bed.sql(store, "SELECT count(*) AS n FROM kv WHERE key = 'key:k-1'")[1].n)
    os.execute(("rm -rf '%s/tmp/'*"):format(folder))
  end)
end)
