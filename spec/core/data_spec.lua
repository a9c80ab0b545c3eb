-- plugin.data: what a vendor's calls read from the store, and whose it is.
local bed = require "bed"
local json = require "neap.json"

-- A vendor that runs Lua it is sent, so that a spec says in one place what it asks and what it expects.
local probe = [[
local plugin = ...
local json, time = require "neap.json", require "neap.time"
local env = setmetatable({ plugin = plugin, data = plugin.data, json = json, time = time, store = plugin.store }, { __index = _G })
plugin:serve { "POST /probe", handler = function(req)
  local r = table.pack(assert(load(req.raw, "=probe", "t", env))())
  return 200, { n = r.n, results = table.move(r, 1, r.n, 1, {}) }
end }
]]

local function start(connections)
  return bed.host {
    config = "lanes = 2, connections = {" .. connections .. "}",
    plugins = { ["vendors/probe.lua"] = probe, ["vendors/other.lua"] = probe },
  }
end

local function run_on(host, mount, code)
  local status, answer = host:json("POST", mount .. "/probe", code)
  assert.equal(200, status, code .. ": " .. json.encode(answer or {}))
  return table.unpack(answer.results, 1, answer.n)
end

local function refused(host, mount, code)
  local status, answer = host:json("POST", mount .. "/probe", "local ok, why = pcall(function() " .. code .. " end) return ok, tostring(why)")
  assert.equal(200, status)
  assert.is_false(answer.results[1], code)
  return answer.results[2]
end

-- Field `key` of each of a list, as one text.
local function names(list, key)
  local out = {}
  for i, item in ipairs(list) do out[i] = tostring(item[key]) end
  return table.concat(out, " ")
end

describe("plugin.data", function()
  local host
  setup(function()
    host = start [[
      { "probe", name = "a", mount = "/a" }, { "probe", name = "b", mount = "/b" }, { "other", name = "c", mount = "/c" },
      { "probe", name = "face", mount = "/face", shows = { "a", "c" } }, { "probe", name = "all", mount = "/all", shows = "*" }
    ]]
    run_on(host, "/a", [[
      for i = 1, 3 do
        plugin:device { device = "d" .. i, model = "m" .. i % 2, name = "Gauge " .. i, owner = "o" .. i % 2, place = "p", status = i == 3 and "ended" or "active", online = i == 1,
          serial = "s" .. i, extra = { i = i } }
      end
      for i = 1, 10 do plugin:emit { device = "d1", metric = "level", value = i, at = 1000 * i } end
      for i = 1, 5 do plugin:emit { device = "d1", metric = "temp", value = i, at = 2000 * i, key = "t" .. i, unit = "Cel" } end
      plugin:event { device = "d1", type = "alarm", at = 5000, key = "k", data = { x = 1 } }
      plugin:event { device = "d1", type = "online", at = 4000 }
      plugin:event { device = "d2", type = "alarm", at = 3000 }
    ]])
    run_on(host, "/b", [[
      plugin:emit { device = "shared", metric = "level", value = 100, at = 1 }
      plugin:emit { device = "b1", metric = "level", value = 7, at = 1 }
      plugin:event { device = "b1", type = "alarm", at = 1 }
    ]])
    run_on(host, "/a", [[ plugin:emit { device = "shared", metric = "level", value = 200, at = 2 } ]])
    run_on(host, "/c", [[ plugin:emit { device = "d1", metric = "level", value = 3, at = 5500 } plugin:emit { device = "c1", metric = "x", value = true, at = 5 } ]])
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function run(mount, code) return run_on(host, mount, code) end

  it("gives devices with all that is known of them", function()
    local d = run("/a", "return data:device 'd1'")
    assert.is_true(d.id > 0 and d.first_seen > 0 and d.last_seen >= d.first_seen)
    d.id, d.first_seen, d.last_seen = nil, nil, nil
    assert.same({ vendor = "probe", connection = "a", device = "d1", serial = "s1", model = "m1", name = "Gauge 1", owner = "o1", place = "p", status = "active",
      online = true, extra = { i = 1 } }, d)
    assert.is_nil(run("/a", "return data:device 'nobody'"))
    assert.is_nil(run("/a", "return data:device('d1', 'other')"))
    assert.equal("[[],[],[],[],[]]", run("/a", "return json.encode { data:devices { device = 'x' }, data:readings { device = 'x' }, data:events { device = 'x' }, data:latest 'x', store:list 'x' }"))
  end)

  it("names the connections that it sees", function()
    local function seen(mount)
      local list = run(mount, "return data:connections()")
      table.sort(list)
      return table.concat(list, " ")
    end
    assert.same({ "a", "a c face", "a all b c face" }, { seen "/a", seen "/face", seen "/all" })
  end)

  it("finds devices by every filter", function()
    local cases = {
      ["{}"] = "d1 d2 d3 shared", ["{ device = 'd2' }"] = "d2", ["{ device = { 'd3', 'd1', 'none' } }"] = "d1 d3", ["{ vendor = 'probe' }"] = "d1 d2 d3 shared",
      ["{ vendor = 'other' }"] = "", ["{ vendor = 'nobody' }"] = "", ["{ connection = 'a' }"] = "d1 d2 d3", ["{ connection = 'b' }"] = "", ["{ name = 'Gauge 2' }"] = "d2",
      ["{ name_has = 'auge' }"] = "d1 d2 d3", ["{ name_has = '3' }"] = "d3", ["{ name_has = '%' }"] = "", ["{ owner = 'o1' }"] = "d1 d3", ["{ owner = 'o0' }"] = "d2",
      ["{ place = 'p' }"] = "d1 d2 d3", ["{ place = 'q' }"] = "", ["{ model = 'm0' }"] = "d2", ["{ status = 'ended' }"] = "d3",
      ["{ status = { 'ended', 'active' } }"] = "d1 d2 d3", ["{ except_status = 'ended' }"] = "d1 d2 shared", ["{ except_status = { 'ended', 'active' } }"] = "shared",
      ["{ owner = 'o1', status = 'active' }"] = "d1", ["{ limit = 2 }"] = "d1 d2", ["{ limit = 1000 }"] = "d1 d2 d3 shared",
    }
    for filter, expected in pairs(cases) do
      assert.equal(expected, names(run("/a", "return data:devices " .. filter), "device"), filter)
      if not filter:find "limit" then
        local n = select(2, expected:gsub("%S+", ""))
        assert.equal(n, run("/a", "return data:count('devices', " .. filter .. ")"), "count of " .. filter)
      end
    end
    local pages = run("/a", [[ local all, after = {}, 0
      while true do local page = data:devices { after = after, limit = 1 } if #page == 0 then return all end all[#all + 1] = page[1] after = page[1].id end ]])
    assert.equal("d1 d2 d3 shared", names(pages, "device"))
  end)

  it("gives readings in both orders, a metric or several, and pages of every size", function()
    assert.equal("10 9 8", names(run("/a", "return data:readings { device = 'd1', metric = 'level', limit = 3 }"), "value"))
    assert.equal("1 2 3", names(run("/a", "return data:readings { device = 'd1', metric = 'level', limit = 3, order = 'asc' }"), "value"))
    assert.equal("5 4 3", names(run("/a", "return data:readings { device = 'd1', metric = { 'level', 'none' }, from = 3000, to = 5000 }"), "value"))
    local whole, cursor = run("/a", "return data:readings { device = 'd1' }")
    assert.equal(15, #whole)
    assert.is_nil(cursor)
    for _, order in ipairs { "asc", "desc" } do
      for size = 1, 16 do
        local pages = run("/a", ([[ local all, after = {}, nil
          repeat
            local page, next = data:readings { device = 'd1', order = %q, after = after, limit = %d }
            for _, r in ipairs(page) do all[#all + 1] = r.id end
            after = next
          until not after
          return all ]]):format(order, size))
        local expected = {}
        for i, r in ipairs(whole) do expected[order == "desc" and i or 16 - i] = r.id end
        assert.same(expected, pages, order .. " " .. size)
      end
    end
  end)

  it("gives the newest of each metric", function()
    local list = run("/a", "return data:latest 'd1'")
    assert.equal("temp level", names(list, "metric"))
    assert.equal("5 10", names(list, "value"))
    assert.same({}, run("/a", "return data:latest 'nobody'"))
  end)

  it("gives events, of a device, of all, by type and time", function()
    local cases = {
      ["{}"] = "5000 4000 3000", ["{ device = 'd1' }"] = "5000 4000", ["{ type = 'alarm' }"] = "5000 3000", ["{ type = { 'online', 'gap' } }"] = "4000",
      ["{ device = 'd2', type = 'online' }"] = "", ["{ from = 4000 }"] = "5000 4000", ["{ to = 4000 }"] = "4000 3000", ["{ order = 'asc' }"] = "3000 4000 5000",
      ["{ vendor = 'other' }"] = "", ["{ vendor = 'probe' }"] = "5000 4000 3000", ["{ device = { 'd1', 'd2' } }"] = "5000 4000 3000",
    }
    for filter, expected in pairs(cases) do
      assert.equal(expected, names(run("/a", "return data:events " .. filter), "at"), filter)
      local n = select(2, expected:gsub("%S+", ""))
      assert.equal(n, run("/a", "return data:count('events', " .. filter .. ")"), "count of " .. filter)
    end
    local e = run("/a", "return data:events { type = 'alarm', device = 'd1' }")[1]
    assert.is_true(e.id > 0 and e.received > 0)
    e.id, e.received = nil, nil
    assert.same({ device = "d1", vendor = "probe", connection = "a", type = "alarm", at = 5000, key = "k", data = { x = 1 } }, e)
  end)

  it("shows a connection what itself and those in its shows have written, and nothing else", function()
    local asks = {
      devices = "return data:devices {}", named = "return data:devices { device = { 'd1', 'shared', 'b1', 'c1' } }",
      owned = "return data:devices { owner = 'o1' }", readings = "return data:readings { device = { 'd1', 'shared', 'b1', 'c1' } }",
      latest = "local all = {} for _, d in ipairs { 'd1', 'shared', 'b1', 'c1' } do for _, r in ipairs(data:latest(d)) do all[#all + 1] = r end end return all",
      events = "return data:events {}", of = "return data:events { device = { 'd1', 'd2', 'b1' } }",
      one = "local all = {} for _, d in ipairs { 'd1', 'shared', 'b1', 'c1' } do all[#all + 1] = data:device(d) end return all",
    }
    local sees = { a = "a", b = "b", c = "c", face = "a c face", all = "a b c" }
    local got = {}
    for connection, scope in pairs(sees) do
      got[connection] = {}
      for what, code in pairs(asks) do
        local list = run("/" .. connection, code)
        got[connection][what] = #list
        for _, item in ipairs(list) do
          local inside = (" " .. scope .. " "):find(" " .. item.connection .. " ", 1, true)
          assert.is_truthy(inside, ("%s sees %s's in %s: %s"):format(connection, item.connection, what, json.encode(item)))
        end
      end
    end
    -- Device d1 of c is another vendor's; b and a share the device `shared`, b's by its first reading.
    assert.same({ devices = 4, named = 2, owned = 2, readings = 16, latest = 3, events = 3, of = 3, one = 2 }, got.a)
    assert.same({ devices = 2, named = 2, owned = 0, readings = 2, latest = 2, events = 1, of = 1, one = 2 }, got.b)
    assert.same({ devices = 2, named = 2, owned = 0, readings = 2, latest = 2, events = 0, of = 0, one = 2 }, got.c)
    assert.same({ devices = 6, named = 4, owned = 2, readings = 18, latest = 5, events = 3, of = 3, one = 3 }, got.face)
    assert.same({ devices = 7, named = 5, owned = 2, readings = 20, latest = 6, events = 4, of = 4, one = 4 }, got.all)
    assert.equal("100", names(run("/b", "return data:readings { device = 'shared' }"), "value"))
    assert.equal("200", names(run("/a", "return data:latest 'shared'"), "value"))
    assert.equal(1, run("/b", "return data:count('readings', { device = 'shared' })"))
    assert.equal(1, run("/a", "return data:count('readings', { device = 'shared' })"))
    assert.equal(2, run("/all", "return data:count('readings', { device = 'shared' })"))
    assert.equal(0, run("/b", "return data:count('readings', { device = 'd1' })"))
    assert.equal("", names(run("/b", "return plugin:history('d1', 'level')"), "value"))
    assert.equal("100", names(run("/b", "return plugin:history('shared', 'level')"), "value"))
    assert.equal("10 9", names(run("/face", "return plugin:history('d1', 'level', { limit = 2 })"), "value"))
    assert.equal(0, run("/b", "return data:count('devices', { device = 'd1' })"))
  end)

  it("keeps to each what it says of a device that two connections share", function()
    run("/a", "plugin:device { device = 'moved', owner = 'alice', name = 'A', online = true, extra = { a = 1 } } plugin:emit { device = 'moved', metric = 'x', value = 1, at = 1 }")
    assert.equal("alice", run("/a", "return data:device('moved').owner"))
    assert.is_nil(run("/b", "return data:device 'moved'"))
    run("/b", "plugin:device { device = 'moved', place = 'B' }")
    local mine = run("/b", "return data:device 'moved'")
    assert.same({ "b", "B" }, { mine.connection, mine.place })
    assert.same({}, { mine.owner, mine.name, mine.online, mine.extra })
    local theirs = run("/a", "return data:device 'moved'")
    assert.equal("a", theirs.connection)
    assert.same({}, { theirs.place, theirs.owner })
    assert.equal("", names(run("/a", "return data:devices { place = 'B' }"), "device"))
    assert.equal("moved", names(run("/b", "return data:devices { place = 'B' }"), "device"))
    assert.equal("moved", names(run("/all", "return data:devices { place = 'B' }"), "device"))
  end)

  it("has pages that stay what they are while readings come in", function()
    run("/a", "for i = 1, 20 do plugin:emit { device = 'busy', metric = 'm' .. i % 3, value = i, at = 10 * (i // 4) , key = 'k' .. i } end")
    local seen, cursor = {}, nil
    local more = 0
    repeat
      local page, next = run("/a", ("return data:readings { device = 'busy', limit = 3, after = %s, to = 1000 }"):format(cursor and ("%q"):format(cursor) or "nil"))
      for _, r in ipairs(page) do seen[#seen + 1] = r.value end
      cursor = next
      more = more + 1
      -- newer ones, and some that are as old as what has been given
      run("/a", ("plugin:emit { device = 'busy', metric = 'm1', value = 100, at = 900, key = 'n%d' } plugin:emit { device = 'busy', metric = 'm0', value = 101, at = 50, key = 'o%d' }"):format(more, more))
    until not cursor
    local count = {}
    for _, v in ipairs(seen) do count[v] = (count[v] or 0) + 1 end
    for i = 1, 20 do assert.equal(1, count[i], "reading " .. i) end
    assert.is_nil(count[100])
  end)

  it("takes limits up to the bound, and cursors that it has given", function()
    for what, most in pairs { devices = 1000, readings = 10000, events = 10000 } do
      local filter = what == "readings" and "device = 'd1', " or ""
      for _, n in ipairs { 1, most - 1, most } do
        assert.equal("table", run("/a", ("return type(data:%s { %slimit = %d })"):format(what, filter, n)))
      end
      for _, n in ipairs { "0", "-1", most + 1, "1.5", "'1'", "2^53" } do
        assert.matches("plugin.data:" .. what .. ": limit has to be", refused(host, "/a", ("return data:%s { %slimit = %s }"):format(what, filter, n)), 1, true)
      end
    end
    for _, wrong in ipairs { "", "x", "1", "1.", ".1", "1.2.3", "1.2x", " 1.2", "1. 2", "99999999999999999999.1", "1.99999999999999999999", "0x1.2", "1.2 " } do
      for _, what in ipairs { "readings", "events" } do
        local none, why, code = run("/a", ("local l, why, code = data:%s { device = 'd1', after = %q } return l == nil, why, code"):format(what, wrong))
        assert.same({ true, "cursor: not one that this query has given", "cursor" }, { none, why, code }, wrong)
      end
    end
    assert.equal("1", names(run("/a", "return data:readings { device = 'd1', metric = 'level', after = '1001.0' }"), "value"))
    assert.equal("", names(run("/a", "return data:readings { device = 'd1', after = '-9223372036854775808.0' }"), "value"))
    assert.equal("", names(run("/a", "return data:readings { device = 'd1', order = 'asc', after = '9223372036854775807.0' }"), "value"))
  end)

  it("refuses misuse, with the verb and the field", function()
    local cases = {
      ["data:devices { onwer = 'x' }"] = 'plugin.data:devices: unknown field "onwer", did you mean "owner"?',
      ["data:readings { device = 'd', metrics = 'x' }"] = 'plugin.data:readings: unknown field "metrics", did you mean "metric"?',
      ["data:events { kind = 'x' }"] = 'plugin.data:events: unknown field "kind"', ["data:events { 'x' }"] = 'plugin.data:events: unknown field "1"',
      ["data:readings {}"] = "plugin.data:readings: device is missing", ["data:count('readings', {})"] = "plugin.data:count: device is missing",
      ["data:readings { device = 5 }"] = "plugin.data:readings: device has to be a string or a list of strings, got a number",
      ["data:readings { device = { 'd', 5 } }"] = "plugin.data:readings: device has to be a string, got a number",
      ["data:readings { device = {} }"] = "plugin.data:readings: device is an empty list", ["data:devices { status = {} }"] = "status is an empty list",
      ["data:readings { device = 'd', from = 'x' }"] = "plugin.data:readings: from has to be an integer of ms since 1970, got x",
      ["data:readings { device = 'd', to = 1.5 }"] = "plugin.data:readings: to has to be an integer of ms since 1970, got 1.5",
      ["data:readings { device = 'd', order = 'up' }"] = 'plugin.data:readings: order has to be "asc" or "desc", got up',
      ["data:readings { device = 'd', after = 5 }"] = "plugin.data:readings: after has to be a string, got a number",
      ["data:readings { device = 'd\\0' }"] = "plugin.data:readings: device holds a zero byte",
      ["data:devices { after = 'x' }"] = "plugin.data:devices: after has to be the id", ["data:devices()"] = "plugin.data:devices: expected a filter, a table, got a no value",
      ["data.devices { }"] = "expected a filter", ["data.devices()"] = "plugin.data:devices: call it with a colon",
      ["data:device(nil)"] = "plugin.data:device: the device has to be a string, got a nil", ["data:latest {}"] = "plugin.data:latest: the device has to be a string, got a table",
      ["data:count('device', {})"] = 'got device, did you mean "devices"?', ["data:count('devices')"] = "plugin.data:count: expected a filter, a table",
      ["local l = {} for i = 1, 101 do l[i] = 'x' end data:readings { device = l }"] = "plugin.data:readings: device lists 101, at most 100",
      ["local l = {} for i = 1, 1001 do l[i] = 'x' end data:devices { device = l }"] = "plugin.data:devices: device lists 1001, at most 1000",
    }
    for code, why in pairs(cases) do assert.matches(why, refused(host, "/a", code), 1, true) end
    local all = "local l = {} for i = 1, %d do l[i] = 'x' .. i end l[1] = 'd1' return "
    assert.equal(15, run("/a", all:format(100) .. "#data:readings { device = l, metric = l, limit = 50 } + #data:readings { device = l }"))
    assert.equal(1, run("/a", all:format(1000) .. "#data:devices { device = l, except_status = l }"))
  end)

  it("writes on another vendor's device where the connection shows it", function()
    run("/c", "plugin:device { device = 'theirs', name = 'old', place = 'here', status = 'active' }")
    run("/face", "plugin:device { device = 'theirs', vendor = 'other', name = 'new', place = '', status = '' } plugin:event { device = 'theirs', vendor = 'other', type = 'command', at = 9 }")
    for _, who in ipairs { "/c", "/face" } do
      local d = run(who, "return data:device 'theirs'")
      assert.same({ "c", "new" }, { d.connection, d.name })
      assert.same({}, { d.place, d.status })
      assert.equal("command", names(run(who, "return data:events { device = 'theirs' }"), "type"))
    end
    assert.same({ { place = json.null, label = "new" } }, host:sql "SELECT place, label FROM device_rows WHERE name = 'theirs'")
    assert.matches('plugin:device: no device "theirs" of vendor "other" is known to a connection that this one shows', refused(host, "/a", "plugin:device { device = 'theirs', vendor = 'other', name = 'mine' }"), 1, true)
    assert.matches('plugin:event: no device "nobody" of vendor "other"', refused(host, "/face", "plugin:event { device = 'nobody', vendor = 'other', type = 'x' }"), 1, true)
    assert.matches('plugin:event: no device "b1" of vendor "other"', refused(host, "/face", "plugin:event { device = 'b1', vendor = 'other', type = 'x' }"), 1, true)
    assert.equal("new", run("/c", "return data:device('theirs').name"))
    run("/a", "plugin:device { device = 'own', vendor = 'probe', name = 'mine' }") -- its own vendor's name changes nothing
    assert.same({ "a", "mine" }, { run("/a", "local d = data:device 'own' return d.connection, d.name") })
    run("/face", "plugin:device { device = 'own', vendor = 'probe', name = 'shown' }") -- of one vendor, and the row stays a's
    assert.same({ "a", "shown" }, { run("/a", "local d = data:device 'own' return d.connection, d.name") })
  end)

  it("lists keys of the store, with what the call has written", function()
    run("/a", "for i = 1, 25 do store:put(('k/%02d'):format(i), i) end store:put('k', 'no') store:put('l/1', 'no') store:put('k/99', 'gone', '1ms')")
    bed.wait("a key to expire", function() return run("/a", "return #store:list 'k/'") == 25 end)
    assert.equal("k/01 k/02 k/03", names(run("/a", "return store:list('k/', { limit = 3 })"), "key"))
    assert.equal("24 25", names(run("/a", "return store:list('k/', { after = 'k/23' })"), "value"))
    assert.equal("k k/01", names(run("/a", "return store:list('', { limit = 2 })"), "key"))
    assert.equal("", names(run("/b", "return store:list ''"), "key"))
    local page = run("/a", [[ store:delete 'k/02' store:put('k/03', 'new') store:put('k/02x', { 1 }) store:put('j', 0) store:put('k/01', 1)
      local l = store:list('k/', { limit = 4 }) local m = store:list('k/', { after = l[4].key, limit = 1 }) l[5] = m[1] return l ]])
    assert.same({ { key = "k/01", value = 1 }, { key = "k/02x", value = { 1 } }, { key = "k/03", value = "new" }, { key = "k/04", value = 4 }, { key = "k/05", value = 5 } }, page)
    assert.equal("k/01 k/02x k/03", names(run("/a", "return store:list('k/', { limit = 3 })"), "key"))
    run("/a", "store:put('s/1', { token = 'a-secret-text' }, nil, 'sealed')")
    assert.same({ { key = "s/1", value = { token = "a-secret-text" } } }, run("/a", "return store:list 's/'"))
    assert.equal(0, #run("/a", "return store:list 'none'"))
    for _, n in ipairs { "0", "1001", "1.5", "'x'" } do
      assert.matches("plugin.store:list: limit has to be an integer from 1 to 1000", refused(host, "/a", ("store:list('', { limit = %s })"):format(n)), 1, true)
    end
    assert.equal("table", run("/a", "return type(store:list('', { limit = 1000 }))"))
    assert.matches('unknown option "aftre"', refused(host, "/a", "store:list('', { aftre = 'x' })"), 1, true)
    assert.matches("after has to be a key, got a number", refused(host, "/a", "store:list('', { after = 5 })"), 1, true)
  end)
end)

describe("plugin.data elsewhere", function()
  local streamer = [[
local plugin = ...
local json = require "neap.json"
plugin:serve { "POST /fill/{device}", keep = false, handler = function(req)
  local n, from = req.raw:match "(%d+) (%d+)"
  for i = 1, n do plugin:emit { device = req.params.device, metric = "level", value = i / 8, at = from + i, extra = { note = ("x"):rep(40) } } end
  return 204
end }
plugin:serve { "GET /all/{device}", handler = function(req)
  local after, more = nil, true
  return 200, function()
    if not more then return nil end
    local page
    page, after = plugin.data:readings { device = req.params.device, after = after, limit = 1000, order = "asc" }
    more = after ~= nil
    local out = {}
    for i, r in ipairs(page) do out[i] = r.value end
    return table.concat(out, "\n") .. "\n"
  end
end }
plugin:every("1h", "look", function() plugin.store:put("looked", plugin.data:count("devices", {})) end)
plugin:serve { "GET /looked", handler = function() return 200, { n = plugin.store:get "looked" } end }
plugin:serve { "GET /writing", handler = function() plugin.store:list "" return 200, function() plugin.store:put("a", 1) end end }
]]

  it("streams a device's readings page after page in constant memory", function()
    local host = bed.host { config = "lanes = 1", plugins = { ["vendors/streamer.lua"] = streamer } }
    for i = 0, 39 do assert.equal(204, (host:request("POST", "/fill/big", ("5000 %d"):format(i * 5000)))) end
    local status, body = host:request("GET", "/all/big")
    assert.equal(200, status)
    local n, at = 0, 0
    for v in body:gmatch "[^\n]+" do
      n = n + 1
      if tonumber(v) ~= ((n - 1) % 5000 + 1) / 8 then at = n end
    end
    assert.equal(200000, n)
    assert.equal(0, at)
    -- A page of 1,000 is about 1 MiB of tables; all 200,000 readings would be about 150.
    local memory = host:plugin "streamer".memory
    assert.is_true(memory < 16 << 20, ("%d bytes after the stream"):format(memory))
    assert.equal("exit", (host:stop()))
  end)

  it("is for a vendor's jobs too, and not for rules", function()
    local rule = [[
local plugin = ...
plugin:on({}, function(r) local ok, why = pcall(plugin.data.devices, plugin.data, {}) plugin.store:put("why", why) plugin:log("the rule is told", { why = why }) end)
]]
    local loading = [[
local plugin = ...
local ok, why = pcall(function() return plugin.data:devices {} end)
plugin:serve { "GET /loading", handler = function() return 200, { ok = ok, why = why } end }
]]
    local host = bed.host { config = "lanes = 1", plugins = { ["vendors/streamer.lua"] = streamer, ["vendors/loading.lua"] = loading, ["rules/rule.lua"] = rule } }
    host:request("POST", "/fill/one", "1 0")
    host:wait_text "plugin.data:devices does not belong in a rule: use it in a vendor's handlers, jobs and streamed answers"
    local _, at_load = host:json("GET", "/loading")
    assert.is_false(at_load.ok)
    assert.matches("plugin.data:devices does not belong in loading the file", at_load.why, 1, true)
    bed.wait("the job to look", function()
      local _, looked = host:json("GET", "/looked")
      return looked.n ~= nil
    end)
    assert.equal("exit", (host:stop()))
  end)
end)

describe("shows", function()
  local function config(shows)
    return ([[return { listen = "127.0.0.1:0", store = "neap.db", plugins = "plugins", connections = {
      { "probe", name = "a", mount = "/a" }, { "probe", name = "face", mount = "/face"%s } } }]]):format(shows)
  end

  it("is checked, and names a connection that is not there", function()
    local folder = bed.folder()
    bed.write(folder .. "/plugins/vendors/probe.lua", probe)
    bed.write(folder .. "/plugins/vendors/other.lua", probe:gsub("/probe", "/other"))
    local cases = {
      [", shows = 'a'"] = false, [", shows = { 'a', '*', 'other' }"] = false, [", shows = {}"] = false, [", shows = { 'face' }"] = false,
      [", shows = 'aa'"] = 'connections[2].shows: there is no connection "aa"', [", shows = { 'a', 'fcae' }"] = 'there is no connection "fcae", did you mean "face"?',
      [", shows = { 5 }"] = 'connections[2].shows[1]: expected the name of a connection, or "*" for all, got a number', [", shows = true"] = "connections[2].shows: expected the name",
      [", shows = { x = 'a' }"] = "connections[2].shows: expected a list of connections", [", shows = { 'a b' }"] = "connections[2].shows[1]: expected a name",
    }
    for shows, why in pairs(cases) do
      bed.write(folder .. "/neap.lua", config(shows))
      local out, code = bed.run { bed.neap, "check", folder .. "/neap.lua" }
      assert.equal(why and 1 or 0, code, shows .. ": " .. out)
      if why then assert.matches(why, out, 1, true) end
    end
  end)

  it("counts at once when it is changed", function()
    local folder = bed.folder()
    bed.write(folder .. "/plugins/vendors/probe.lua", probe)
    bed.write(folder .. "/neap.lua", config "")
    local host = bed.host { folder = folder, keep_config = true }
    run_on(host, "/a", "plugin:emit { device = 'd', metric = 'x', value = 1 }")
    assert.equal(0, #run_on(host, "/face", "return data:devices {}"))
    bed.replace(folder .. "/neap.lua", config ", shows = 'a'")
    bed.wait("the device to be shown", function() return #run_on(host, "/face", "return data:devices {}") == 1 end)
    bed.replace(folder .. "/neap.lua", config "")
    bed.wait("the device to be hidden", function() return #run_on(host, "/face", "return data:devices {}") == 0 end)
    assert.equal("exit", (host:stop()))
  end)
end)
