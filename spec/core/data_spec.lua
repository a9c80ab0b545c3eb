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

local function start(connections, options)
  options = options or {}
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
end)
