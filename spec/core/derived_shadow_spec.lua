-- What a rule derives is compared as its messages are: by the gate's shadow run, neap diff --messages, and neap replay --dry-run.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = bed.EMITTER
local MEAN = [[
local plugin = ...
plugin:derives { "double", "silent" }
plugin:on({ metric = "temp" }, function(r)
  plugin:emit { metric = "double", value = r.value * %s, unit = "Cel", extra = { b = { 1, 2 }, a = "x" } }
  plugin:arm("quiet", r.device, "0.3s")
end)
plugin:timer("quiet", function() plugin:emit { metric = "silent", value = true } end)]]

describe("a deriving rule's change", function()
  local host
  setup(function()
    host = bed.host { plugins = { ["vendors/v.lua"] = VENDOR, ["rules/mean.lua"] = MEAN:format "2" }, config = "lanes = 2" }
    local list = {}
    for i = 1, 6 do list[i] = { device = "D-" .. i % 2, metric = "temp", value = i, at = 1000 * i } end
    assert.equal(204, (host:request("POST", "/v", list)))
    bed.wait("all of it", function() return host:sql "select count(*) n from readings where depth = 1"[1].n == 8 end)
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function replay(text, ...)
    local folder = bed.folder()
    assert(os.execute(("cp -r %s/. %s"):format(host.folder, folder)))
    bed.write(folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub('plugins = "[^"]*"', 'plugins = "plugins"')))
    if text then bed.write(folder .. "/plugins/rules/mean.lua", text) end
    local out, code = bed.run { bed.neap, "replay", "--config", folder, "--store", host.store, "--dry-run", "--rule", "mean", ... }
    assert.equal(0, code, out)
    return out
  end
  local function counts(r) return { r.new, r.gone, r.different, r.failing } end

  it("is none where it is what is in force: a replay derives what was derived", function()
    local r = json.decode(replay(nil, "--json"))
    assert.same({ 14, { 0, 0, 0, 0 } }, { r.readings, counts(r) }, json.encode(r))
    assert.matches("mean: what was sent and derived, over 14 readings", replay(nil), 1, true)
  end)

  it("tells what would be new, gone or different, by a replay", function()
    local r = json.decode(replay(MEAN:format "3", "--json"))
    assert.same({ 0, 0, 6, 0 }, counts(r))
    local m = r.messages[1]
    assert.same({ "different", "D-0", "double", 2, { 4, 6 } }, { m.change, m.device, m.metric, m.reading, { m.before.value, m.after.value } })
    assert.same({ at = 2000, value = 4, unit = "Cel", quality = "valid", extra = { a = "x", b = { 1, 2 } } }, m.before)
    assert.is_nil(m.destination)
    r = json.decode(replay((MEAN:format "2"):gsub('"temp" }', '"temp", above = 3 }'), "--json"))
    assert.same({ 0, 3, 0, 0 }, counts(r))
    r = json.decode(replay((MEAN:format "2"):gsub('"silent", value = true', '"silent", value = false'), "--json"))
    assert.same({ 0, 0, 2, 0 }, counts(r))
    assert.same({ "silent", "quiet" }, { r.messages[1].metric, r.messages[1].timer })
    r = json.decode(replay((MEAN:format "2"):gsub('"double", value', '"silent", value'), "--json"))
    assert.same({ 6, 6, 0, 0 }, counts(r))
    r = json.decode(replay(MEAN:format "3", "--json", "--device", "D-1"))
    assert.same({ 0, 0, 3, 0 }, counts(r))
    local out = replay(MEAN:format "3")
    assert.matches("mean: 6 different, over 14 readings", out, 1, true)
    assert.matches("D%-0 .- different +double +{\"at\":2000", out)
  end)

  it("is told by the gate, and waits where it has to", function()
    bed.replace(host.plugins .. "/rules/mean.lua", MEAN:format "2" .. "\n-- the same")
    bed.wait("the same", function()
      local p = host:plugin "mean"
      return p.generation == 2 and p.gate and p.gate.stages[5].verdict == "passed"
    end)
    assert.same({ "shadow", "circles" }, { host:plugin("mean").gate.stages[5].stage, host:plugin("mean").gate.stages[6].stage })
    assert.matches("the same messages and readings, over the last 14 readings", host:plugin("mean").gate.stages[5].said, 1, true)
    bed.replace(host.folder .. "/neap.lua", ("return { listen = \"127.0.0.1:0\", store = \"neap.db\", plugins = %q, lanes = 2, policy = \"hold\" }"):format(host.plugins))
    host:command "reload"
    bed.replace(host.plugins .. "/rules/mean.lua", MEAN:format "4")
    bed.wait("it to wait", function() return ((host:plugin "mean" or {}).gate or {}).approval end)
    assert.matches("waiting for approval: 6 different", host:plugin("mean").waiting, 1, true)
    host:wait_text "it waits to be approved, for its messages or derived readings would be others"
    local out = bed.run { bed.neap, "diff", "mean", "--messages", "--store", host.store }
    assert.matches("D%-0 .- different +double", out)
    assert.equal(2, host:plugin("mean").generation)
    local _, code = bed.run { bed.neap, "approve", "mean", "--store", host.store }
    assert.equal(0, code)
    assert.equal(3, host:plugin("mean").generation)
  end)
end)
