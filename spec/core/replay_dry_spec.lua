-- neap replay --dry-run: rules as their files stand, over what came, against what was sent.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = bed.EMITTER
local HOT = [[
local plugin = ...
plugin:on({ metric = "temp", above = %d }, function(r) plugin:send("desk", { hot = r.value }) end)]]
local QUIET = [[
local plugin = ...
plugin:timer("quiet", function(key) plugin:send("desk", { device = key, quiet = %d }) end)
plugin:on({ metric = "beat" }, function(r) plugin:arm("quiet", r.device, "1s") end)]]

describe("neap replay --dry-run", function()
  local host, start
  setup(function()
    start = os.time()
    host = bed.host { plugins = { ["vendors/v.lua"] = VENDOR, ["rules/hot.lua"] = HOT:format(8), ["rules/quiet.lua"] = QUIET:format(1),
      ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") },
      config = [[lanes = 2, destinations = { desk = { "webhook", url = "http://127.0.0.1:1/" } }]] }
    local list = {}
    for i = 1, 10 do list[i] = { device = "D" .. i % 2, metric = "temp", value = i, at = i * 1000 } end
    list[11] = { device = "D1", metric = "beat", value = 1 }
    assert.equal(204, (host:request("POST", "/v", list)))
    bed.wait("what rules send", function() return host:sql "select count(*) n from outbox"[1].n == 3 end) -- 9, 10, and the timer's
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function replay(...) return bed.run { bed.neap, "replay", "--config", host.folder, "--dry-run", ... } end
  local function report(...)
    local out, code = replay("--json", ...)
    assert.equal(0, code, out)
    return json.decode(out)
  end
  local function counts(r) return { r.new, r.gone, r.different, r.failing } end
  local function save(name, text) bed.write(host.plugins .. "/rules/" .. name .. ".lua", text) end

  it("of what is in force is what was sent: readings and timers", function()
    for _, name in ipairs { "hot", "quiet" } do
      local r = report("--rule", name)
      assert.same({ name, 11, { 0, 0, 0, 0 } }, { r.rule, r.readings, counts(r) }, json.encode(r))
    end
    local out, code = replay "--all"
    assert.equal(0, code)
    assert.matches("hot: what was sent, over 11 readings", out, 1, true)
    assert.matches("quiet: what was sent, over 11 readings", out, 1, true)
  end)

  it("tells what another text would send; nothing is sent, nothing is put in force by it", function()
    local folder = bed.folder()
    assert(os.execute(("cp -r %s/. %s"):format(host.folder, folder)))
    bed.write(folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub('plugins = "[^"]*"', 'plugins = "plugins"')))
    local before = bed.read(host.plugins .. "/rules/hot.lua")
    -- a copy of the files beside the host, tried against the host's store
    local function try(name, text, ...)
      bed.write(folder .. "/plugins/rules/" .. name .. ".lua", text)
      local out, code = bed.run { bed.neap, "replay", "--config", folder, "--store", host.store, "--dry-run", "--rule", name, "--json", ... }
      return code == 0 and json.decode(out) or out, code
    end
    local r = try("hot", HOT:format(6))
    assert.same({ 2, 0, 0, 0 }, counts(r))
    assert.same({ "new", "D0", 8 }, { r.messages[1].change, r.messages[1].device, r.messages[1].after.hot })
    assert.same({ "new", "D1", 7 }, { r.messages[2].change, r.messages[2].device, r.messages[2].after.hot })
    assert.same({ 0, 1, 0, 0 }, counts(try("hot", HOT:format(9))))
    assert.same({ 0, 0, 2, 0 }, counts(try("hot", (HOT:format(8):gsub("hot =", "hotter =")))))
    assert.same({ 1, 0, 0, 0 }, counts(try("hot", HOT:format(6), "--device", "D1")))
    assert.same({ 0, 0, 0, 0 }, counts(try("hot", HOT:format(6), "--metric", "beat")))
    assert.same({ 0, 2, 0, 1 }, counts(try("hot", 'local plugin = ...\nplugin:on({ metric = "beat" }, function() error "oh" end)')))
    assert.same({ 0, 0, 1, 0 }, counts(try("quiet", QUIET:format(2))))
    local out, code = try("hot", "local plugin = ... = broken")
    assert.equal(1, code)
    assert.matches("hot.lua:1", out, 1, true)
    assert.equal(3, host:sql "select count(*) n from outbox"[1].n)
    assert.equal(before, bed.read(host.plugins .. "/rules/hot.lua"))
    assert.equal(1, host:plugin("hot").generation)
  end)

  it("is of what came when it is asked for", function()
    assert.equal(11, report("--rule", "hot", "--since", "24h").readings)
    assert.equal(11, report("--rule", "hot", "--since", os.date("!%Y-%m-%dT%H:%M:%SZ", start - 1)).readings)
    local none = report("--rule", "hot", "--until", "24h")
    assert.same({ 0, { 0, 0, 0, 0 } }, { none.readings, counts(none) })
  end)

  it("refuses what makes no sense", function()
    local function wrong(expected, ...)
      local out, code = bed.run { bed.neap, "replay", ... }
      assert.equal(2, code, out)
      assert.matches(expected, out, 1, true)
    end
    wrong("expected --dry-run", "--rule", "hot")
    wrong("expected --rule NAME, or --all", "--dry-run")
    wrong("two things", "v", "--rule", "hot", "--dry-run")
    wrong("expected a time", "--rule", "hot", "--dry-run", "--since", "yesterday")
    local out, code = replay("--rule", "nobody")
    assert.equal(1, code)
    assert.matches('there is no rule "nobody"', out, 1, true)
    out, code = replay("--rule", "v")
    assert.equal(1, code)
    assert.matches("it is no rule", out, 1, true)
  end)

  it("is a message on the screen, too", function()
    save("hot", HOT:format(9))
    local out, code = replay("--rule", "hot")
    assert.equal(0, code)
    assert.matches("hot: 1 gone, over 11 readings", out, 1, true)
    assert.matches("D1 .- gone +desk", out)
  end)
end)
