-- Derived readings: what a rule emits is stored with the cursor, meets rules on whatever lane owns its device, and never comes back to itself.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = bed.EMITTER
-- The sum of a value and the one that the rule had kept before; and a ward's own device.
local MEAN = [[
local plugin = ...
plugin:derives { "temp_mean", "ward_temp" }
plugin:on({ metric = "temp" }, function(r)
  local last = plugin.store:get(r.device) or r.value
  plugin.store:put(r.device, r.value)
  plugin:emit { metric = "temp_mean", value = (last + r.value) / 2, unit = r.unit }
  if r.value > 40 then plugin:emit { device = "ward-3", metric = "ward_temp", value = r.value, at = r.at + 1, quality = "warmup" } end
end)]]
local ALERT = [[
local plugin = ...
plugin:on({ metric = { "temp_mean", "ward_temp" }, derived = true }, function(r)
  plugin:send("desk", { metric = r.metric, value = r.value, id = r.id, derived = r.derived, key = r.key, at = r.at, received = r.received, quality = r.quality,
    vendor = r.vendor, connection = r.connection, unit = r.unit })
end)]]
local DESK = [[
local plugin = ...
plugin:deliver { handler = function() return true end }]]

local function start(rules, config)
  local plugins = { ["vendors/v.lua"] = VENDOR, ["destinations/desk.lua"] = DESK }
  for name, text in pairs(rules) do plugins["rules/" .. name .. ".lua"] = text end
  return bed.host { plugins = plugins, config = config or "lanes = 2" }
end

local SENT = "select * from (select seq, source, device, body, reading from outbox union all select seq, source, device, body, reading from delivered)"
local function sent(host, n)
  local list
  bed.wait(n .. " messages", function()
    list = host:sql(SENT .. " order by seq")
    return #list >= n
  end)
  for _, m in ipairs(list) do m.data = json.decode(m.body) end
  return list
end

describe("a derived reading", function()
  it("is stored as the rule's, with its device and its cause's times, and meets rules", function()
    local host = start { mean = MEAN, alert = ALERT }
    local at = 1760000000000
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp", value = 36.5, unit = "Cel", at = at, key = "k-1", quality = "warmup" } })))
    local list = sent(host, 1)
    local cause, derived = table.unpack(host:sql "select * from readings order by seq")
    assert.same({ "v", "mean", "D-1", "temp_mean", 36.5, "Cel", at, cause.received, "warmup", 1, 0 }, { derived.vendor, derived.connection, derived.device,
      derived.metric, derived.value, derived.unit, derived.at, derived.received, derived.quality, derived.depth, derived.quiet })
    assert.matches("^mean:%x+$", derived.key)
    assert.same({ { reading = derived.seq, cause = cause.seq, generation = 1, timer = json.null, key = json.null } }, host:sql "select * from derivations")
    local d = list[1].data
    assert.same({ "alert", derived.seq, "D-1" }, { list[1].source, list[1].reading, list[1].device })
    assert.same({ "mean", "temp_mean", 36.5, derived.key, at, cause.received, "warmup", "v", "mean", "Cel", derived.seq }, { d.derived, d.metric, d.value, d.key,
      d.at, d.received, d.quality, d.vendor, d.connection, d.unit, d.id })
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("may be of a device of another lane, and of another moment and quality", function()
    local host = start({ mean = MEAN, alert = ALERT }, "lanes = 5")
    local list = {}
    for i = 1, 40 do list[i] = { device = "D-" .. i, metric = "temp", value = 40 + i, at = 1760000000000 + i } end
    assert.equal(204, (host:request("POST", "/v", list)))
    local of_ward = {}
    for _, m in ipairs(sent(host, 80)) do
      if m.device == "ward-3" then of_ward[m.data.value - 40] = { m.data.metric, m.data.quality, m.data.at - 1760000000001 } end
    end
    for i = 1, 40 do assert.same({ "ward_temp", "warmup", i }, of_ward[i]) end
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("does not take the place of what a vendor sends, nor the other way round", function()
    local host = start({ mean = MEAN, alert = ALERT }, "lanes = 1")
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp", value = 1, at = 1000, key = "a" } })))
    sent(host, 1)
    local key = host:sql "select key from readings where depth = 1"[1].key
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp_mean", value = 7, at = 1000, key = key },
      { device = "D-1", metric = "temp_mean", value = 8, at = 1000, key = key }, { device = "D-1", metric = "temp", value = 2, at = 1000, key = "a" } })))
    assert.same({ { value = 1, depth = 0 }, { value = 1.0, depth = 1 }, { value = 7, depth = 0 } }, host:sql "select value, depth from readings order by seq")
    host:restart()
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp_mean", value = 9, at = 1000, key = key } })))
    assert.equal(3, host:sql "select count(*) n from readings"[1].n)
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("is known again in another store, where its cause has another number and meets the rule once more", function()
    local host = start { mean = MEAN, alert = ALERT }
    local list = {}
    for i = 1, 5 do list[i] = { device = "D-1", metric = "temp", value = i, at = i * 1000, key = i % 2 == 0 and "k" .. i or nil } end
    assert.equal(204, (host:request("POST", "/v", list)))
    bed.wait("all", function() return host:sql "select count(*) n from readings"[1].n == 10 end)
    local out, code = bed.run { "sh", "-c", ("'%s' export --store '%s' 2>/dev/null"):format(bed.neap, host.store) }
    assert.equal(0, code)
    assert.same({ "exit", 0 }, { host:stop() })
    local derived, causes = {}, {}
    for line in out:gmatch "[^\n]+\n" do table.insert(line:find '"depth":1' and derived or causes, line) end
    assert.same({ 5, 5 }, { #derived, #causes })
    local other = start { mean = MEAN, alert = ALERT }
    local function import(lines, ...)
      local path = os.tmpname()
      bed.write(path, table.concat(lines))
      local said, status = bed.run { bed.neap, "import", path, "--store", other.store, ... }
      os.remove(path)
      assert.equal(0, status, said)
    end
    import(derived) -- so they have the first numbers
    import(causes, "--rules")
    bed.wait("all to be ruled, on record", function() return other:sql "select count(*) n from kv where space = 'plugin:mean' and value = '5'"[1].n == 1 end)
    local fields = "select device, metric, value, at, key, depth, quiet from readings order by depth, at"
    local rows = other:sql(fields)
    assert.equal(10, #rows)
    for i = 1, 5 do assert.same({ 0, 1, 1 }, { rows[i].quiet, rows[i + 5].quiet, rows[i + 5].depth }) end
    -- one that is new is derived, whatever its number
    assert.equal(204, (other:request("POST", "/v", { { device = "D-1", metric = "temp", value = 6, at = 6000 } })))
    bed.wait("it", function() return other:sql "select count(*) n from readings where depth = 1"[1].n == 6 end)
    assert.same({ "exit", 0 }, { other:stop() })
  end)

  it("is neither lost nor doubled by kill -9 anywhere", function()
    local host = start({ mean = MEAN, alert = ALERT }, "lanes = 2")
    local n = 0
    for round = 1, 6 do
      local list = {}
      for i = 1, 100 do
        n = n + 1
        list[i] = { device = "D-" .. n % 7, metric = "temp", value = 20 + n % 17, at = n * 1000, key = tostring(n) }
      end
      assert.equal(204, (host:request("POST", "/v", list)))
      if round % 2 == 0 then bed.wait("some of it", function() return host:sql "select count(*) n from readings where depth = 1"[1].n > 100 * (round - 1) end) end
      host:restart(9)
    end
    local list = sent(host, n)
    assert.equal(n, #list)
    assert.same({ { n = n, causes = n } }, host:sql "select count(*) n, count(distinct cause) causes from derivations")
    -- what a rule that is never killed would give: by device in order
    local last, expected = {}, {}
    for i = 1, n do
      local device, value = "D-" .. i % 7, 20 + i % 17
      expected[device] = expected[device] or {}
      table.insert(expected[device], ((last[device] or value) + value) / 2)
      last[device] = value
    end
    for device, values in pairs(expected) do
      local got, at = {}, {}
      for _, r in ipairs(host:sql(("select value, at from readings where depth = 1 and device = '%s' order by seq"):format(device))) do
        got[#got + 1], at[#at + 1] = r.value, r.at
      end
      assert.same(values, got)
      local told = {}
      for _, m in ipairs(list) do if m.device == device then told[#told + 1] = m.data.value end end
      assert.same(values, told)
    end
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("of a timer names a device that is known", function()
    local host = start { silence = [[
local plugin = ...
plugin:derives "silent"
plugin:on({ metric = "beat" }, function(r)
  plugin:arm("quiet", r.device, "0.2s")
  if r.value == 2 then plugin:arm("quiet", "nobody", "0.2s") end
end)
plugin:timer("quiet", function(key) plugin:emit { metric = "silent", value = true } end)]], alert = [[
local plugin = ...
plugin:on({ metric = "silent" }, function(r) plugin:send("desk", { device = r.device, value = r.value, vendor = r.vendor, late = r.received - r.at }) end)]] }
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "beat", value = 1 } })))
    local m = sent(host, 1)[1]
    assert.same({ device = "D-1", value = true, vendor = "v", late = 0 }, m.data)
    local r, beat = host:sql "select * from readings where depth = 1"[1], host:sql "select * from readings where depth = 0"[1]
    assert.same({ beat.received + 200, beat.received + 200 }, { r.at, r.received })
    assert.same({ { reading = r.seq, cause = 0, generation = 1, timer = "quiet", key = "D-1" } }, host:sql "select * from derivations")
    host:request("POST", "/v", { { device = "D-1", metric = "beat", value = 2 } })
    bed.wait("the other to be held", function() return host:sql "select count(*) n from held"[1].n == 1 end)
    assert.matches('there is no device "nobody" that is known', host:sql "select error from held"[1].error, 1, true)
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("of a reading that was held comes once the rule is mended, as of its time", function()
    local host = start { mean = [[
local plugin = ...
plugin:derives "temp_mean"
plugin:on({ metric = "temp" }, function(r)
  plugin:emit { metric = "temp_mean", value = 1 }
  error "broken"
end)]], alert = ALERT }
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp", value = 3, at = 5000 } })))
    bed.wait("it to be held", function() return host:sql "select count(*) n from held"[1].n == 1 end)
    assert.equal(0, host:sql "select count(*) n from readings where depth = 1"[1].n)
    bed.replace(host.plugins .. "/rules/mean.lua", MEAN)
    local m = sent(host, 1)[1]
    assert.same({ 3, 5000, host:sql "select received from readings where depth = 0"[1].received }, { m.data.value, m.data.at, m.data.received })
    assert.same({ { cause = 1, generation = 2 } }, host:sql "select cause, generation from derivations")
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("of what was held for a quarantine comes once that is over, each once", function()
    local host = start({ mean = [[
local plugin = ...
plugin:derives "double"
plugin:on({ metric = "temp" }, function(r)
  plugin:emit { metric = "double", value = 2 * r.value }
  if r.device == "hog" then while true do end end
end)]] }, 'lanes = 2, quarantine = { after = 1, hold = "10m" }, rules = { { "mean", limits = { instructions = 200000 } } }')
    local function give(device, value) assert.equal(204, (host:request("POST", "/v", { { device = device, metric = "temp", value = value } }))) end
    give("hog", 1)
    bed.wait("its quarantine", function() return host:plugin("mean").state == "quarantined" end)
    for i = 1, 20 do give("D-" .. i, i) end
    bed.wait("all to be held", function() return host:sql "select count(*) n from held"[1].n == 21 end)
    assert.equal(0, host:sql "select count(*) n from readings where depth = 1"[1].n)
    local out, code = bed.run { bed.neap, "release", "mean", "--store", host.store }
    assert.equal(0, code, out)
    bed.wait("what was held", function() return host:sql "select count(*) n from readings where depth = 1"[1].n == 20 end)
    assert.same({ { n = 20, sum = 420 } }, host:sql "select count(distinct device) n, sum(value) sum from readings where depth = 1")
    bed.wait("the one that fails to be left", function() return host:sql "select count(*) n from held"[1].n == 1 end)
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("has limits: what is not declared, twice the same, a serial, too many, too deep", function()
    local host = start { r = [[
local plugin = ...
plugin:derives "x"
plugin:on({ metric = "undeclared" }, function(r) plugin:emit { metric = "y", value = 1 } end)
plugin:on({ metric = "twice" }, function(r) plugin:emit { metric = "x", value = 1 } plugin:emit { metric = "x", value = 2 } end)
plugin:on({ metric = "two handlers" }, function(r) plugin:emit { metric = "x", value = 1 } end)
plugin:on({ metric = "two *" }, function(r) plugin:emit { metric = "x", value = 1 } end)
plugin:on({ metric = "moments" }, function(r) for i = 1, 3 do plugin:emit { metric = "x", value = i, at = r.at + i } end end)
plugin:on({ metric = "keys" }, function(r) for i = 1, 3 do plugin:emit { metric = "x", value = 10 + i % 2, key = "k" .. i % 2 } end end)
plugin:on({ metric = "serial" }, function(r) plugin:emit { metric = "x", value = 1, serial = 4 } end)
plugin:on({ metric = "vendor" }, function(r) plugin:emit { metric = "x", value = 1, vendor = "w" } end)
plugin:on({ metric = "many" }, function(r) for i = 1, 6 do plugin:emit { metric = "x", value = 1, key = "m" .. i } end end)
plugin:on({ metric = "arm" }, function(r) plugin:arm("soon", r.device, "0s") end)
plugin:timer("soon", function() plugin:emit { metric = "x", value = 1 } end)]],
      none = [[
local plugin = ...
plugin:on({ metric = "none" }, function(r) plugin:emit { metric = "x", value = 1 } end)]] }
    bed.write(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub("lanes = 2", 'lanes = 2, rules = { { "r", limits = { emits = 5 } }, { "none" } }')))
    bed.wait("its limits", function() return host:plugin("r").limits.emits.limit == 5 end)
    local function held(metric)
      assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = metric, value = 1, at = 1000 } })))
      local seq = host:sql "select max(seq) n from readings where depth = 0"[1].n
      bed.wait(metric .. " to be held", function() return host:sql("select count(*) n from held where reading = " .. seq)[1].n == 1 end)
      return host:sql("select error from held where reading = " .. seq)[1].error
    end
    assert.matches('the metric "y" is not declared: say plugin:derives "y"', held "undeclared", 1, true)
    assert.matches('the metric "x" is not declared', held "none", 1, true)
    assert.matches('"x" of "D-1" was emitted already for this reading and the same moment: give each a key of its own', held "twice", 1, true)
    assert.matches("was emitted already", held "two handlers", 1, true)
    assert.matches("a rule gives no serial", held "serial", 1, true)
    assert.matches('vendor "w" has no device "D-1" that is known', held "vendor", 1, true)
    assert.matches("5 readings, events, devices and messages are the most of one call", held "many", 1, true)
    bed.write(host.plugins .. "/vendors/w.lua", (VENDOR:gsub("POST /v", "POST /w")))
    bed.wait("another vendor", function() return host:plugin "w" end)
    assert.equal(204, (host:request("POST", "/w", { { device = "D-1", metric = "plain", value = 1 } })))
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "arm", value = 1 } })))
    local timer = bed.wait("the timer to be held", function() return host:sql "select error from held where name = 'soon'"[1] end)
    assert.matches('several vendors have a device "D-1": say which by vendor', timer.error, 1, true)
    assert.equal(0, host:sql "select count(*) n from readings where depth > 0"[1].n)
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "moments", value = 1, at = 1000 }, { device = "D-1", metric = "keys", value = 1, at = 1000 } })))
    bed.wait("both", function() return host:sql "select count(*) n from readings where depth = 1"[1].n >= 5 end)
    assert.same({ { value = 1, key = "" }, { value = 2, key = "" }, { value = 3, key = "" }, { value = 11, key = "r:=k1" }, { value = 10, key = "r:=k0" } },
      host:sql "select value, case when key like 'r:=%' then key else '' end as key from readings where depth = 1 order by seq")
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("is as deep as seven rules, and the eighth holds its reading", function()
    local rules = {}
    for i = 0, 8 do
      rules["r" .. i] = ([[
local plugin = ...
plugin:derives "m%d"
plugin:on({ metric = "m%d" }, function(r) plugin:emit { metric = "m%d", value = r.value + 1 } end)]]):format(i + 1, i, i + 1)
    end
    local host = start(rules)
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "m0", value = 0 } })))
    bed.wait("it to be held", function() return host:sql "select count(*) n from held"[1].n == 1 end)
    assert.same({ { instance = "r7", reading = 8 } }, host:sql "select instance, reading from held")
    assert.matches("7 rules stand between this reading and what a vendor sent, which is the most", host:sql "select error from held"[1].error, 1, true)
    assert.same({ { n = 8, depth = 7, value = 7 } }, host:sql "select count(*) n, max(depth) depth, max(value) value from readings")
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("can be asked for by a filter, and left out by one", function()
    local tell = [[
local plugin = ...
plugin:on({ metric = "temp*", %s }, function(r) plugin:send("desk", { metric = r.metric }) end)]]
    local host = start { mean = MEAN, raw = tell:format "derived = false", made = tell:format "derived = true", both = tell:format "",
      connection = tell:format 'connection = "mean"' }
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp", value = 3 } })))
    local by = {}
    for _, m in ipairs(sent(host, 5)) do
      by[m.source] = by[m.source] or {}
      table.insert(by[m.source], m.data.metric)
    end
    assert.same({ raw = { "temp" }, made = { "temp_mean" }, both = { "temp", "temp_mean" }, connection = { "temp_mean" } }, by)
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("what was derived", function()
  local host
  setup(function()
    host = start({ mean = MEAN, alert = ALERT, timer = [[
local plugin = ...
plugin:derives "silent"
plugin:timer("quiet", function(key) plugin:emit { metric = "silent", value = true, device = "D-1" } end)
plugin:on({ metric = "temp_mean", derived = true }, function(r) plugin:arm("quiet", r.device, "0.1s") end)]] },
      'lanes = 2, rules = { { "mean" }, { "alert" }, { "timer" } }, connections = { { "v" }, { "look", shows = { "v", "mean" } } }')
    bed.write(host.plugins .. "/vendors/look.lua", [[
local plugin = ...
local json = require "neap.json"
plugin:serve { "GET /look", handler = function()
  local list = plugin.data:readings { device = "D-1" }
  for i, r in ipairs(list) do list[i] = { r.metric, r.derived or "" } end
  return 200, json.array(list)
end }]])
    bed.wait("what looks", function() return (host:plugin "look" or {}).generation == 1 end)
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp", value = 3, at = 1000, unit = "Cel" } })))
    bed.wait("the rest", function() return host:sql "select count(*) n from readings"[1].n == 3 end)
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  it("is in the tails", function()
    local p = bed.start { bed.neap, "tail", "--last", "3", "--store", host.store }
    p:wait_for "temp_mean +3.0 Cel +valid +mean %(derived%)"
    p:wait_for "silent +true +valid +timer %(derived%)"
    p:stop()
    p = bed.start { bed.neap, "tail", "--last", "3", "--json", "--store", host.store, "--metric", "temp*" }
    local r = json.decode(p:wait_for '({"seq":2.-})\n')
    assert.same({ "temp_mean", "mean", 1, "mean" }, { r.metric, r.derived, r.depth, r.connection })
    p:stop()
    p = bed.start { bed.neap, "tail", "matches", "--json", "--store", host.store }
    p:wait_for '{"tailing":"matches"}'
    host:request("POST", "/v", { { device = "D-1", metric = "temp", value = 4, at = 2000 } })
    p:wait_text '"rule":"mean","generation":1,"stored":1,"emitted":1'
    p:stop()
  end)

  it("is seen by a connection that is shown the rule", function()
    local _, list = host:json("GET", "/look")
    local seen = {}
    for _, r in ipairs(list) do seen[r[1]] = r[2] end
    assert.same({ temp = "", temp_mean = "mean" }, seen)
  end)

  it("goes when it is old, as any other", function()
    local count = "select count(*) n from derivations"
    assert.is_true(host:sql(count)[1].n >= 2)
    bed.wait("all to be ruled, on record", function()
      return host:sql "select count(*) n from cursors where seq = (select max(seq) from reading_rows)"[1].n > 0
    end)
    host:stop()
    assert(os.execute(("sqlite3 %s 'update reading_rows set received = 1000 where seq <= 2'"):format(host.store)))
    local path = host.folder .. "/neap.lua"
    bed.write(path, (bed.read(path):gsub("lanes = 2", 'lanes = 2, keep = { readings = "30d" }')))
    host:begin()
    bed.wait("it to go", function() return #host:sql "select seq from readings where seq = 2" == 0 end, 60)
    assert.same({}, host:sql "select * from derivations where reading = 2")
  end)
end)

describe("rules whose readings would come back", function()
  local function deriving(to, filter) return ([[
local plugin = ...
plugin:derives %q
plugin:on(%s, function(r) plugin:emit { metric = %q, value = r.value } end)]]):format(to, filter, to) end

  local function check(rules)
    local folder = bed.folder()
    bed.write(folder .. "/plugins/vendors/v.lua", VENDOR)
    for name, text in pairs(rules) do bed.write(folder .. "/plugins/rules/" .. name .. ".lua", text) end
    bed.write(folder .. "/neap.lua", 'return { plugins = "plugins", store = "neap.db" }')
    return bed.run { bed.neap, "check", folder }
  end

  it("are told by neap check: the whole circle and what to do", function()
    local out, code = check { a = deriving("y", '{ metric = "x" }'), b = deriving("x", '{ metric = { "q", "y*" } }') }
    assert.equal(1, code)
    assert.matches('rules/b.lua: what it derives comes back to it: b -> a -> b, by metrics "x" and "y": have one of them take less (derived = false', out, 1, true)
    out, code = check { a = deriving("y", "{ }") }
    assert.equal(1, code)
    assert.matches('a.lua: what it derives comes back to it: a -> a, by metric "y"', out, 1, true)
    out, code = check { a = deriving("y", '{ metric = "x" }'), b = deriving("z", '{ metric = "y" }'), c = deriving("x", '{ metric = "z", connection = "b" }') }
    assert.equal(1, code)
    assert.matches('c -> a -> b -> c, by metrics "x", "y" and "z"', out, 1, true)
  end)

  it("are none where a filter cannot take it, or a rule derives nothing", function()
    for _, b in ipairs { deriving("x", '{ metric = "y", derived = false }'), deriving("x", '{ metric = "y", connection = "v" }'), deriving("x", '{ metric = "yy" }'),
      'local plugin = ...\nplugin:on({}, function() end)' } do
      local out, code = check { a = deriving("y", '{ metric = "x" }'), b = b }
      assert.equal(0, code, out)
    end
  end)

  it("are not put in force: the newcomer is refused, what is in force goes on, and a mended one comes in", function()
    local host = start { a = deriving("y", '{ metric = "x" }') }
    bed.replace(host.plugins .. "/rules/b.lua", deriving("x", '{ metric = "y" }'))
    bed.wait("it to be refused", function() return host:plugin "b" end)
    local b = host:plugin "b"
    assert.same({ 0, "held" }, { b.generation, b.state == "in force" and "in force" or "held" })
    assert.matches("b -> a -> b", b.error, 1, true)
    host:wait_text "what it derives comes back to it"
    bed.replace(host.plugins .. "/rules/b.lua", deriving("x", '{ metric = "y", derived = false }'))
    bed.wait("it to be in force", function() return host:plugin("b").generation == 1 end)
    -- a new text of what is in force
    bed.replace(host.plugins .. "/rules/b.lua", deriving("x", '{ metric = "y" }'))
    bed.wait("its new text to be refused", function() return host:plugin("b").error end)
    local verdicts = {}
    for _, s in ipairs(host:plugin("b").gate.stages) do verdicts[s.stage] = s.verdict end
    assert.same({ "not reached", "failed", "not reached", "not reached" }, { verdicts.shadow, verdicts.circles, verdicts.routes, verdicts.migration })
    assert.same({ { "x" }, { "y" } }, { host:plugin("b").derives, host:plugin("a").derives })
    assert.equal(1, host:plugin("b").generation)
    -- free once the other is gone
    os.remove(host.plugins .. "/rules/a.lua")
    bed.wait("it to be in force", function() return host:plugin("b").generation == 2 and not host:plugin("b").error end)
    -- and it stands in the other's way
    bed.replace(host.plugins .. "/rules/a.lua", deriving("y", '{ metric = "x" }'))
    bed.wait("the other to be refused", function() return (host:plugin "a" or {}).error end)
    assert.equal(0, host:plugin("a").generation)
    host:restart()
    bed.wait("the same after a start", function() return (host:plugin "a" or {}).error end)
    assert.same({ 0, 2 }, { host:plugin("a").generation, host:plugin("b").generation })
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  it("are refused by a rollback, an approval and a set too", function()
    local host = start { a = deriving("y", '{ metric = "x" }'), b = deriving("x", '{ metric = "other" }') }
    bed.replace(host.plugins .. "/rules/a.lua", deriving("z", '{ metric = "x" }'))
    bed.wait("a anew", function() return host:plugin("a").generation == 2 end)
    bed.replace(host.plugins .. "/rules/b.lua", deriving("x", '{ metric = "y" }'))
    bed.wait("b anew", function() return host:plugin("b").generation == 2 end)
    local out, code = bed.run { bed.neap, "rollback", "a", "--store", host.store }
    assert.equal(1, code, out)
    assert.matches("a -> b -> a", out, 1, true)
    assert.same({ 2, 2 }, { host:plugin("a").generation, host:plugin("b").generation })
    assert.is_nil(host:plugin("a").error)
    -- a new text at the gate
    local function configure(more)
      bed.replace(host.folder .. "/neap.lua", ("return { listen = \"127.0.0.1:0\", store = \"neap.db\", plugins = %q, lanes = 2, %s }"):format(host.plugins, more))
    end
    configure 'policy = "hold"'
    bed.wait("the new configuration", function() return host:command("reload") and true end)
    host:request("POST", "/v", { { device = "D-1", metric = "x", value = 1 } })
    bed.wait("it to be ruled", function() return host:sql "select count(*) n from readings where depth = 1"[1].n == 1 end)
    bed.replace(host.plugins .. "/rules/a.lua", (deriving("y", '{ metric = "x" }'):gsub("r.value }", "r.value + 1 }")))
    bed.wait("it to wait or to be refused", function() return host:plugin("a").waiting or host:plugin("a").error end)
    bed.wait("its run to be over", function()
      local p = host:plugin "a"
      return p.error or (p.gate or {}).approval
    end)
    if host:plugin("a").gate.approval then
      out, code = bed.run { bed.neap, "approve", "a", "--store", host.store }
      assert.equal(1, code, out)
      assert.matches("a -> b -> a", out, 1, true)
    end
    assert.same({ 2, 2 }, { host:plugin("a").generation, host:plugin("b").generation })
    -- an atomic set that has a circle in it is held back whole
    configure 'deploy = "atomic", policy = "inform"'
    bed.replace(host.plugins .. "/rules/a.lua", deriving("y", '{ metric = "x" }'))
    bed.replace(host.plugins .. "/rules/c.lua", 'local plugin = ...\nplugin:on({}, function() end)')
    bed.wait("c to be held back", function() return ((host:plugin "c" or {}).error or ""):find "held back" end)
    bed.replace(host.plugins .. "/rules/b.lua", deriving("x", '{ metric = "other" }'))
    bed.wait("all of it in force", function() return host:plugin("c").generation == 1 and host:plugin("a").generation > 2 and host:plugin("b").generation > 2 end)
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("neap explain of what was derived", function()
  local host
  setup(function() host = start({ mean = MEAN, alert = ALERT, above = [[
local plugin = ...
plugin:derives "high"
plugin:on({ metric = "temp_mean", above = 30 }, function(r) plugin:emit { metric = "high", value = true } end)]], timer = [[
local plugin = ...
plugin:derives "silent"
plugin:on({ metric = "beat" }, function(r) plugin:arm("quiet", r.device, "0.1s") end)
plugin:timer("quiet", function() plugin:emit { metric = "silent", value = true } end)]] }) end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function story(id)
    local list, code = host:command("explain", id)
    assert.equal(0, code, json.encode(list))
    return list[1]
  end
  local function tell(id)
    local out, code = bed.run { bed.neap, "explain", id, "--store", host.store }
    assert.equal(0, code, out)
    return out
  end
  local function rule(reading, name)
    for _, r in ipairs(reading.rules) do if r.rule == name then return r end end
  end
  local function seq(metric) return host:sql(("select max(seq) n from readings where metric = '%s'"):format(metric))[1].n end

  it("is one tree from the request on, whichever of it is asked for", function()
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "temp", value = 41 } })))
    local message = sent(host, 2)[2]
    bed.wait("the last", function() return host:sql "select count(*) n from readings"[1].n == 4 end)
    local ids = { "r" .. seq "temp", "r" .. seq "temp_mean", "r" .. seq "high", "r" .. seq "ward_temp" }
    for _, id in ipairs(ids) do
      local s = story(id)
      assert.same({ 1, 1, seq "temp" }, { s.request.id, #s.readings, s.readings[1].seq })
      local mean = rule(s.readings[1], "mean")
      assert.same({ 2, "mean", 1, 1, seq "temp" }, { #mean.readings, mean.readings[1].derived, mean.readings[1].depth, mean.readings[1].derivation.generation,
        mean.readings[1].derivation.cause })
      local high = rule(mean.readings[1], "above").readings[1]
      assert.same({ seq "high", 2, seq "temp_mean", true }, { high.seq, high.depth, high.derivation.cause, high.value })
      assert.equal(1, #rule(mean.readings[1], "alert").messages)
      local out = tell(id)
      assert.matches(("mean: derived 2 readings by generation 1, on record"), out, 1, true)
      assert.matches(("derived r%d  temp_mean 41.0"):format(seq "temp_mean"), out, 1, true)
      assert.matches(("derived r%d  high true"):format(seq "high"), out, 1, true)
      assert.matches(("derived r%d  ward-3 ward_temp 41  at "):format(seq "ward_temp"), out, 1, true)
      assert.matches("alert: sent 1 message by generation 1, on record", out, 1, true)
      assert.matches("[^\n]*" .. id .. "[^\n]*<%- asked for", out)
    end
    assert.matches(("derived r%d[^\n]*\n[^\n]*\n?.-message %s"):format(message.reading, "msg_"), tell("r" .. message.reading))
  end)

  it("tells of a timer, of a cause that is gone, and of a rule that is gone", function()
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "beat", value = 1 } })))
    bed.wait("the timer", function() return host:sql "select count(*) n from readings where metric = 'silent'"[1].n == 1 end)
    assert.matches("derived by a timer of timer, generation 1: quiet of D-1", tell("r" .. seq "silent"), 1, true)
    assert.same({ timer = "quiet", key = "D-1", generation = 1 }, story("r" .. seq "silent").readings[1].derivation)
    os.remove(host.plugins .. "/rules/mean.lua")
    bed.wait("the rule to be gone", function() return not host:plugin "mean" end)
    assert.matches("by rule mean, which is no longer configured: derived r", tell("r" .. seq "temp"), 1, true)
    host:stop()
    assert(os.execute(("sqlite3 %s 'delete from reading_rows where seq = %d'"):format(host.store, seq "temp")))
    host:begin()
    assert.matches(("derived by mean, generation 1, from reading r%d, which is no longer kept"):format(seq "temp_mean" - 1), tell("r" .. seq "high"), 1, true)
    host:stop()
    assert(os.execute(("sqlite3 %s 'delete from reading_rows where seq = %d'"):format(host.store, seq "high")))
    assert.equal(0, host:sql(("select count(*) n from derivations where reading = %d"):format(seq "ward_temp" + 1))[1].n)
    host:begin()
  end)

  it("shows so many that a person can read them, and counts the others", function()
    bed.replace(host.plugins .. "/rules/many.lua", [[
local plugin = ...
plugin:derives "many"
plugin:on({ metric = "burst" }, function(r) for i = 1, 30 do plugin:emit { metric = "many", value = i, key = "k" .. i } end end)]])
    bed.wait("the rule", function() return host:plugin "many" end)
    assert.equal(204, (host:request("POST", "/v", { { device = "D-1", metric = "burst", value = 1 } })))
    bed.wait("all", function() return host:sql "select count(*) n from readings where metric = 'many'"[1].n == 30 end)
    local s = story("r" .. seq "burst")
    assert.same({ 20, 10 }, { #rule(s.readings[1], "many").readings, s.readings[1].more_derived })
    assert.matches("10 more derived readings", tell("r" .. seq "burst"), 1, true)
    assert.matches("<- asked for", tell("r" .. seq "many"), 1, true) -- the thirtieth
    for _, query in ipairs { "select * from derivations where cause = 5 and cause > 0 and reading > 0 order by reading", "select * from derivations where reading = 5" } do
      local plan = bed.run { "sqlite3", "-readonly", host.store, "explain query plan " .. query }
      assert.is_nil(plan:find "SCAN", plan)
    end
  end)
end)
