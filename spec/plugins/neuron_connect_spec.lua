-- plugins/vendors/neuron.lua, connecting: one neap calls another that serves, over loopback, with all that goes wrong between two hosts.
local bed = require "bed"
local client = require "neuron_client"
local json = require "neap.json"
local proxy = require "neuron_proxy"
local socket = require "socket"
local time = require "neap.time"

local DAY, HOUR = 86400000, 3600000
local FEED = [[
local plugin = ...
plugin:serve { "POST /feed", body = { "array" }, handler = function(req)
  for _, r in ipairs(req.body) do
    if r.name then plugin:device { device = r.device, name = r.name, place = r.place } else plugin:emit(r) end
  end
  return 204
end }
]]

local function now() return socket.gettime() * 1000 // 1000 * 1000 | 0 end

-- The project's plugins, and a vendor whose readings a spec makes up.
local function plugins()
  local files = { ["vendors/feed.lua"] = FEED }
  for path in io.popen(("cd '%s' && find lib rules vendors/neuron.lua -name '*.lua'"):format(bed.plugins)):lines() do files[path] = bed.read(bed.plugins .. "/" .. path) end
  return files
end

local function settings(url, key, more)
  return ("{ 'neuron', name = 'campus', url = %q, secret_id = %q, key = %q, public_key = %q, %s }"):format(url, key.secret_id, key.key, key.public_key, more or "")
end

local function near_config(connection) return ("connections = { { 'feed' }, %s }, rules = { { 'forward', to = 'campus', vendor = 'feed' } }"):format(connection) end

-- Readings of a store as "device metric at value", sorted; `where` in SQL.
local function readings(host, where)
  local list = {}
  for _, r in ipairs(host:sql("select device, metric, at, value, unit from readings " .. (where or ""))) do
    list[#list + 1] = ("%s|%s|%d|%s|%s"):format(r.device, r.metric, r.at, tostring(r.value), tostring(r.unit))
  end
  table.sort(list)
  return list
end

local function feed(host, list) assert.equal(204, (host:request("POST", "/feed", list))) end

describe("neuron connecting, pulls", function()
  local far, c, near, link, all
  setup(function()
    far = bed.host { config = [[connections = { { "neuron", buildings = { "HQ" }, zone = "Asia/Hong_Kong" } }]] }
    c = client.new(far, "neuron")
    all = now()
    for n = 1, 3 do
      local list = {}
      for hour = 1, 166 do
        local at = time.format(all - hour * HOUR, "Asia/Hong_Kong", "yyyy-MM-dd HH:mm:ss")
        list[#list + 1] = { equipmentName = "Room " .. n, devEui = n < 3 and "eui" .. n or nil, buildingName = "HQ", functionType = "temp", value = hour / 4, unit = "Cel", time = at }
        list[#list + 1] = { equipmentName = "Room " .. n, devEui = n < 3 and "eui" .. n or nil, buildingName = "HQ", functionType = "state", reading = "s" .. hour, time = at }
      end
      list[#list + 1] = { equipmentName = "Room " .. n, devEui = n < 3 and "eui" .. n or nil, buildingName = "HQ", functionType = "temp", value = 9, unit = "Cel",
        time = time.format(all - 5 * HOUR + 250) }
      assert.equal(200, c:push(list).code)
    end
    client.call(far, "neuron", "device.set", { devEui = "eui1", alias = "lobby", equModel = "ERS", location = "1F", descriptions = "by the door", online = false,
      points = { { type = "setpoint", unit = "Cel", control = true }, { type = "temp", bmsId = "b-7" } } })
  end)
  teardown(function()
    if near then near:stop() end
    if link then link:close() end
    far:stop()
  end)

  it("devices with all that the platform says, and the whole week of their values, over lost, cut, late and refused answers", function()
    link = proxy.new(far.port, function(n, request)
      if n == 1 then return { 503, "busy" } end
      if request.path:find "page" and n < 6 then return "half" end
      if n % 13 == 3 then return "lost" end
      if n % 13 == 5 then return "half" end
      if n % 13 == 7 then return { 200, '{"code":503,"message":"busy","isSuccess":false}' } end
      if n % 13 == 9 then return { 500, "" } end
      if n % 13 == 11 then return "slow" end
    end)
    near = bed.host { plugins = plugins(), config = near_config(settings(link.url, c.key,
      "poll = '1s', devices = '1s', history = '1s', span = '2d', zone = 'Asia/Hong_Kong'")) }
    -- A device without devEui bears each side's own connection in its name.
    local wanted = readings(far)
    for i, line in ipairs(wanted) do wanted[i] = line:gsub("^neuron/", "campus/"):gsub("^eui", "campus/eui") end
    table.sort(wanted)
    assert.equal(999, #wanted)
    link:wait("all values", function() return #near:sql "select seq from readings" >= #wanted end, 120)
    assert.same(wanted, readings(near))
    local before = link.n
    link:wait("more polls", function() return link.n > before + 12 end) -- looks again, to no effect
    assert.same(wanted, readings(near))
  end)

  it("keeps a device's details", function()
    local device = near:sql "select * from devices where device = 'campus/eui1'"[1]
    assert.same({ "eui1", "Room 1", "ERS", "HQ", 0 }, { device.serial, device.name, device.model, device.place, device.online })
    local extra = json.decode(device.extra)
    assert.same({ "lobby", "1F", "by the door" }, { extra.alias, extra.location, extra.descriptions })
    assert.same({ { metric = "setpoint", unit = "Cel", writable = true }, { metric = "state", writable = false }, { metric = "temp", unit = "Cel", writable = false, id = "b-7" } }, extra.points)
    assert.equal("HQ", near:sql "select place from devices where device = 'campus/HQ/Room 3'"[1].place)
  end)

  it("goes on where it was after a kill, and takes what is new", function()
    near:stop(9)
    assert.equal(200, c:push { { equipmentName = "Room 3", buildingName = "HQ", functionType = "temp", value = 1000.5, time = time.format(now()) } }.code)
    near:restart()
    link:wait("the new value", function() return #near:sql "select seq from readings where value = 1000.5" == 1 end, 90)
    assert.equal(1000, #near:sql "select seq from readings")
  end)

  it("carries out the commands", function()
    near:stop()
    bed.write(near.folder .. "/neap.lua", ("return { listen = '127.0.0.1:0', store = 'neap.db', plugins = 'plugins', %s }"):format(
      near_config(settings(far.url, c.key, "pull = false, building = 'HQ', project = 'p'"))))
    near.options.keep_config = true
    near:begin()
    local function call(command, args) return client.call(near, "campus", command, args) end
    assert.equal("Room 1", call("device", { devEui = "eui1" }).name)
    local page = call("devices", { current = 1, size = 2 })
    assert.same({ 3, 2, 2 }, { page.total, page.size, #page.records })
    assert.equal(1, call("devices", { name = "Room 2" }).total)
    assert.equal(2, #call("values", { devEui = "eui2" }))
    assert.is_true(#call("history", { equipmentName = "Room 2", functionType = "temp" }) >= 166)
    assert.equal(1, #call("history", { equipmentName = "Room 3", startTime = time.format(all + 1) }))
    assert.same({ pushed = 1 }, call("push", { equipmentName = "Pump", functionType = "flow", value = 1.5 }))
    local many = {}
    for i = 1, 1001 do many[i] = { equipmentName = "Many", functionType = "p" .. i, value = i } end
    assert.same({ pushed = 1001 }, call("push", { records = many }))
    assert.equal(1001, #far:sql "select seq from readings where device = 'neuron/HQ/Many'")
    local _, why = call("push", { equipmentName = "Pump", functionType = "flow", value = 1, buildingName = "nowhere" })
    assert.truthy(why:find("[0].buildingName", 1, true), why)
    _, why = call("device", { devEui = "nobody" })
    assert.truthy(why:find("404", 1, true) and why:find("no such device", 1, true), why)
    _, why = call("history", { equipmentName = "x", field = "NOTHING" })
    assert.truthy(why:find("field", 1, true), why)
    client.call(far, "neuron", "dataset.declare", { name = "visits", fields = { n = "integer key" } })
    assert.same({ pushed = 2 }, call("dataset", { name = "visits", records = { { n = 1 }, { n = 2 } } }))
    _, why = call("dataset", { name = "visits", records = { { n = 3 }, { n = 1 } } })
    assert.truthy(why:find("1000", 1, true) and why:find("[1].n", 1, true), why)
    assert.equal(2, #assert(client.call(far, "neuron", "records", { dataset = "visits" })).records)
    _, why = call("push", {})
    assert.truthy(why:find("equipmentName", 1, true), why)
    near:stop()
  end)
end)

describe("neuron connecting, pushes", function()
  local far, c, near, link
  local function begin(fault, more)
    far = bed.host { config = [[connections = { { "neuron", buildings = { "HQ", "Annex" }, zone = "Europe/Berlin" } }]] }
    c = client.new(far, "neuron")
    link = proxy.new(far.port, fault)
    near = bed.host { plugins = plugins(), config = near_config(settings(link.url, c.key, "pull = false, zone = 'Europe/Berlin', " .. (more or "building = 'HQ'"))) }
  end
  after_each(function()
    near:stop()
    link:close()
    far:stop()
  end)

  -- n devices with m readings each, all of them in the far store once.
  local function list_of(n, m)
    local list, wanted, at = {}, {}, now() - 3 * DAY
    for d = 1, n do
      for i = 1, m do
        list[#list + 1] = { device = "SN-" .. d, metric = "glucose", value = i / 8, unit = "mmol/L", at = at + i * 60000, key = "k" .. i }
        wanted[#wanted + 1] = ("neuron/HQ/SN-%d|glucose|%d|%s|mmol/L"):format(d, at + i * 60000, tostring(i / 8))
      end
    end
    table.sort(wanted)
    return list, wanted
  end

  it("completely and not doubled over lost, cut, late, busy, throttled and failed answers", function()
    begin(function(n)
      return ({ "lost", "half", "slow", { 503, "" }, { 429, "", { ["retry-after"] = "1" } }, { 200, '{"code":503,"message":"busy","isSuccess":false}' },
        { 200, '{"code":500,"message":"oops","isSuccess":false}' }, { 500, "oops" }, "deaf", { 200, '{"code":200,"mess' } })[n]
    end)
    local list, wanted = list_of(12, 40)
    feed(near, list)
    link:wait("all readings", function() return #far:sql "select seq from readings" >= #wanted end, 120)
    link:wait("an empty outbox", function() return #near:sql "select seq from outbox" == 0 end, 120)
    assert.same(wanted, readings(far))
    assert.is_true(link.n > 12)
    for _, request in ipairs(link.requests) do assert.equal(c.key.secret_id, request.headers["x-source-secretid"]) end
    local boxes = {}
    for _, request in ipairs(link.requests) do
      assert.is_nil(boxes[request.headers["x-source-secretkey"]])
      boxes[request.headers["x-source-secretkey"]] = true
    end
  end)

  it("completely and not doubled where the far one is killed meanwhile, and where this one is", function()
    begin(function(n)
      if n == 4 then far:stop(9) end
    end)
    local list, wanted = list_of(10, 100)
    feed(near, list)
    link:wait("a failure", function() return near:read():find "not delivered" end)
    local there = #far:sql "select seq from readings"
    assert.is_true(there > 0 and there < #wanted, there)
    near:restart(9)
    link:wait("another failure", function() return near:read():find "not delivered" end)
    far:restart()
    link:wait("all readings", function() return #far:sql "select seq from readings" >= #wanted end, 120)
    link:wait("an empty outbox", function() return #near:sql "select seq from outbox" == 0 end, 120)
    assert.same(wanted, readings(far))
  end)

  it("in batches of up to 1000", function()
    begin(function(n) return n == 1 and { 503, "" } or nil end)
    local list = list_of(1, 2300)
    feed(near, list)
    link:wait("all readings", function() return #far:sql "select seq from readings" >= 2300 end, 120)
    local most = 0
    for _, request in ipairs(link.requests) do most = math.max(most, #json.decode(request.body)) end
    assert.equal(1000, most)
    assert.is_true(link.n <= 8, link.n .. " requests")
  end)

  it("numbers, texts, truth values, names, places, units and times as the platform takes them", function()
    begin(nil, "shows = { 'feed' }")
    local at = now() - DAY
    feed(near, { { device = "SN-1", name = "Pump 1", place = "Annex" }, { device = "SN-2", name = "Pump 2" } })
    feed(near, { { device = "SN-1", metric = "flow", value = 3, unit = "m3/h", at = at }, { device = "SN-1", metric = "flow", value = 3.5, at = at + 1 },
      { device = "SN-1", metric = "state", value = "läuft", at = at }, { device = "SN-1", metric = "open", value = true, at = at },
      { device = "SN-1", metric = "autumn", value = 1, at = 1792888200000 }, { device = "SN-1", metric = "autumn", value = 2, at = 1792891800000 } })
    feed(near, { { device = "SN-2", metric = "flow", value = 1, at = at } })
    link:wait("all readings", function() return #far:sql "select seq from readings" == 6 end)
    assert.same({ "neuron/Annex/Pump 1|autumn|1792888200000|1|null", "neuron/Annex/Pump 1|autumn|1792891800000|2|null", -- the hour that comes twice
      ("neuron/Annex/Pump 1|flow|%d|3|m3/h"):format(at), ("neuron/Annex/Pump 1|flow|%d|3.5|null"):format(at + 1),
      ("neuron/Annex/Pump 1|open|%d|true|null"):format(at), ("neuron/Annex/Pump 1|state|%d|läuft|null"):format(at) },
      (function() local l = readings(far) for i, v in ipairs(l) do l[i] = v:gsub("userdata: %(nil%)", "null") end return l end)())
    near:wait_text "no building: set building"
    link:wait("all others to be known as delivered", function() return #near:sql "select device from outbox" == 1 end)
    assert.same({ { device = "SN-2" } }, near:sql "select device from outbox") -- waits for somebody who sets it
    assert.same({}, near:sql "select seq from dead")
    bed.replace(near.folder .. "/neap.lua", (bed.read(near.folder .. "/neap.lua"):gsub("shows = { 'feed' }", "%0, building = 'HQ'")))
    link:wait("the last one", function() return #far:sql "select seq from readings where device = 'neuron/HQ/Pump 2'" == 1 end)
  end)

  it("all of a batch but what is wrong with it", function()
    begin(function(n) return n == 1 and { 503, "" } or nil end)
    local list, wanted = list_of(1, 200)
    for _, i in ipairs { 7, 100, 101, 200 } do list[i].metric = ("m"):rep(129) end
    feed(near, list)
    link:wait("all that are right", function() return #far:sql "select seq from readings" >= 196 end)
    link:wait("an empty outbox", function() return #near:sql "select seq from outbox" == 0 end)
    assert.equal(#wanted - 4, #readings(far))
    local dead = near:sql "select error from dead"
    assert.equal(4, #dead)
    for _, d in ipairs(dead) do assert.truthy(d.error:find("functionType", 1, true), d.error) end
    assert.is_true(link.n < 60, link.n .. " requests")
  end)

  it("all of a batch but what is there already", function()
    begin(function(n, request)
      if n == 1 then return { 503, "" } end
      if request.body:find('"value":0.5,', 1, true) or request.body:find('"value":0.5}', 1, true) then
        return { 200, '{"code":1000,"message":"Data already exists","isSuccess":false}' }
      end
    end)
    local list, wanted = list_of(1, 200)
    feed(near, list)
    link:wait("an empty outbox", function() return #near:sql "select seq from outbox" == 0 end)
    assert.equal(#wanted - 1, #readings(far))
    assert.equal(0, #near:sql "select seq from dead")
  end)

  it("nothing with a key that is refused, and all of it once the key is right", function()
    begin(nil)
    near:stop()
    local config = bed.read(near.folder .. "/neap.lua")
    bed.write(near.folder .. "/neap.lua", (config:gsub(c.key.key:gsub("%p", "%%%0"), "wrong")))
    near.options.keep_config = true
    near:begin()
    local list, wanted = list_of(2, 5)
    feed(near, list)
    link:wait("the refusal in the log", function() return near:read():find "Token Management" end)
    assert.equal(0, #near:sql "select seq from dead")
    assert.is_nil(near.output:find(c.key.key, 1, true))
    bed.replace(near.folder .. "/neap.lua", config)
    link:wait("all readings", function() return #far:sql "select seq from readings" >= #wanted end, 90)
    assert.same(wanted, readings(far))
  end)

  for code, what in pairs { [428] = "project", [429] = "register", [404] = "url", [503] = "busy" } do
    it("again later where the platform says " .. code .. ", and says what to do", function()
      begin(function(n) return n == 1 and { 200, ('{"code":%d,"message":"said so","isSuccess":false}'):format(code) } or nil end)
      local list, wanted = list_of(1, 1)
      feed(near, list)
      link:wait("the readings", function() return #far:sql "select seq from readings" >= 1 end)
      assert.same(wanted, readings(far))
      near:wait_text(what)
      near:wait_text "said so"
      assert.equal(0, #near:sql "select seq from dead")
    end)
  end
end)

describe("neuron connecting, to a platform that answers anything", function()
  it("takes what can be read, logs the rest and goes on", function()
    local receiver = bed.receiver()
    local key = { secret_id = "id", key = "k", public_key = require "neap.crypto".rsa.generate().public }
    local at = time.format(now() - HOUR)
    local junk = { 1, "x", json.null, {}, { devEUI = "e1" }, { devEUI = "e1", functionType = "t" }, { devEUI = "e1", functionType = "t", value = "x", time = at },
      { devEUI = "e1", functionType = "t", value = 1 }, { devEUI = "e1", functionType = "t", value = 1, time = "yesterday" }, { devEUI = "e1", functionType = "t", value = 1, time = 7 },
      { devEUI = {}, functionType = {}, value = {}, reading = {}, time = {} }, { devEUI = "a/b", functionType = "t", value = 1, time = at },
      { devEUI = "e1", functionType = ("t"):rep(2000), value = 1, time = at }, { devEUI = "e1", functionType = "z\0", value = 1, time = at },
      { devEUI = "e1", functionType = "good", value = 7, reading = json.null, unit = json.null, time = at, more = 1 } }
    local devices = { 1, json.null, {}, { name = "n" }, { devEUI = "a/b", name = 5 }, { devEUI = "e1", name = "n1", points = { 1, {}, { type = 5 }, { type = "t", unit = 9 } }, isOnline = "yes" } }
    local answers = { page = json.encode { code = 200, data = { records = json.array(devices) } }, values = json.encode { code = 200, isSuccess = true, data = json.array(junk) },
      history = '{"code":200,"data":{"not":"an array"}}' }
    local turn = 0
    receiver.answer = function(request)
      turn = turn + 1
      local kind = request.path:match "page" or request.path:match "values" or "history"
      return 200, ({ answers[kind], answers[kind], "null", "[]", '{"code":"200"}', "", '{"code":200}', '{"code":200,"data":7}' })[turn % 8 + 1]
    end
    local near = bed.host { plugins = plugins(), config = near_config(settings(receiver.url, key, "poll = '1s', devices = '1s', history = '1s'")) }
    bed.wait("the good value", function()
      receiver:poll()
      return turn > 30 and turn % 10 == 0 and #near:sql "select seq from readings where metric = 'good'" == 1
    end, 90)
    assert.equal(1, #near:sql "select seq from readings")
    assert.equal("n1", near:sql "select name from devices where device = 'campus/e1'"[1].name)
    near:read()
    assert.truthy(near.output:find("cannot be read", 1, true))
    near:stop()
    receiver:close()
  end)
end)
