-- plugins/vendors/tuya.lua's connect face: a neap that pulls from another neap's serve face, and from a scripted far side that fails in every way.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"
local time = require "neap.time"
local tuya = require "tuya"

package.path = "./plugins/lib/?.lua;" .. package.path
local sign = require "tuya.sign"

local DAY = 86400000
local NOW = time.now()

-- Sends a command for every reading that is named so.
local RULE = [[
local plugin = ...
plugin:on({ metric = "please" }, function(r)
  if r.value == "rename" then plugin:send("near", { device = r.device, command = "rename", args = { device_id = r.device, name = "By a rule" } })
  else plugin:send("near", { device = r.device, command = "rename", args = { device_id = "nobody", name = "x" } }) end
end)
]]

local function config(url, key, more)
  return ([[{ "tuya", name = "near", url = %q, client_id = %q, secret = %q, poll = "100ms", per_second = 0, per_month = 0, since = %q, people = true%s }]])
    :format(url, key.client_id, key.secret, time.format(NOW - 30 * DAY), more and ", " .. more or "")
end

local function near_host(url, key, more, options)
  options = options or {}
  return bed.host { plugins = tuya.plugins { ["rules/please.lua"] = RULE },
    config = ("drain = \"100ms\", connections = { { \"feed\", name = \"ward\", mount = \"/ward\" }, %s }, rules = { { \"please\" } }"):format(config(url, key, more)), env = options.env }
end

-- What is known of readings, in one order; of a device without logs a poll cannot tell when.
local function readings(host, where)
  local rows = host:sql("select device, metric, at, value from readings where metric <> 'please' and device <> 'silent' " .. (where or "") .. " order by device, metric, at")
  for i, r in ipairs(rows) do rows[i] = ("%s %s %d %s"):format(r.device, r.metric, r.at, tostring(r.value)) end
  return rows
end

local function events(host)
  local rows = host:sql "select device, type, at from events where type <> 'binding' and device like 'd_' order by device, type, at"
  for i, r in ipairs(rows) do rows[i] = ("%s %s %d"):format(r.device, r.type, r.at) end
  return rows
end

-- Waits until near has all that far has, and as much of it.
local function same(far, near)
  local want = #readings(far)
  bed.wait("all readings", function() return #readings(near) >= want end, 60)
  local there, here = {}, readings(near)
  for _, r in ipairs(readings(far)) do there[r] = true end
  for _, r in ipairs(here) do assert.is_true(there[r], "only here: " .. r) end
  assert.equal(want, #here)
end

describe("tuya, connected to another neap", function()
  local far, near, client, key

  setup(function()
    far = bed.host { plugins = tuya.plugins(), config = [[connections = { { "feed", name = "ward", mount = "/ward" },
      { "tuya", name = "far", shows = { "ward" }, people = true } }]] }
    key = assert(tuya.run(far, "far", "keys.issue"))
    client = tuya.client(far, key)
    local rows, happened, devices = {}, {}, {}
    for d = 1, 4 do
      devices[d] = { device = "d" .. d, name = "Device " .. d, owner = "u-1", place = "home-1", model = "p-1", online = d ~= 4, serial = "SN" .. d, status = "active",
        extra = { category = d == 1 and "wg2" or "cz", product_name = "Plug", sub = d == 3, gateway_id = d == 3 and "d1" or nil, uuid = "uu" .. d,
          mac = "5c:cf:7f:00:00:0" .. d, active_time = 1589505938, create_time = 1560827137, update_time = 1589764585 } }
      for i = 1, 700 do
        local at = NOW - 20 * DAY + i * 2000000 + d
        rows[#rows + 1] = { device = "d" .. d, metric = "cur_voltage", value = (2100 + i) / 10, at = at }
        if i % 10 == 0 then rows[#rows + 1] = { device = "d" .. d, metric = "switch_1", value = i % 20 == 0, at = at } end
        if i % 50 == 0 then
          rows[#rows + 1] = { device = "d" .. d, metric = "mode", value = tostring(i % 3), at = at } -- a text that looks like a number
          happened[#happened + 1] = { device = "d" .. d, type = i % 100 == 0 and "online" or "offline", at = at + 1 }
        end
      end
      happened[#happened + 1] = { device = "d" .. d, type = "command", at = NOW - DAY, data = { event_from = "2", code = "switch_1", value = true } }
    end
    tuya.feed(far, "/ward", { devices = devices, readings = rows, events = happened })
    near = near_host(far.url, key)
  end)
  teardown(function()
    assert.same({ "exit", 0 }, { near:stop() })
    far:stop()
  end)

  it("pulls every reading once, in neutral values with their units", function()
    same(far, near)
    for _, r in ipairs(near:sql "select distinct metric, unit, vendor, connection, typeof(value) as t from readings order by metric") do
      assert.equal("tuya", r.vendor)
      assert.equal("near", r.connection)
      if r.metric == "cur_voltage" then assert.equal("V", r.unit) end
      if r.metric == "mode" then assert.equal("text", r.t) end
    end
  end)

  it("pulls events, with where they came from", function()
    assert.same(events(far), events(near))
    local command = near:sql "select data from events where type = 'command' and device = 'd1'"[1]
    assert.same({ event_from = "2", code = "switch_1", value = "true" }, json.decode(command.data))
  end)

  it("pulls what is known of devices", function()
    local function known(host)
      local rows = host:sql "select device, name, owner, place, model, online, status from devices where vendor in ('tuya', 'feed') and device like 'd_' order by device"
      return json.encode(rows)
    end
    bed.wait("all devices", function() return known(near) == known(far) end)
    bed.wait("serial numbers", function()
      local rows = near:sql "select serial, extra from devices where device = 'd2' and serial is not null"
      return rows[1] and rows[1].serial == "SN2" and json.decode(rows[1].extra).mac == "5c:cf:7f:00:00:02"
    end)
    local extra = json.decode(near:sql "select extra from devices where device = 'd3'"[1].extra)
    assert.equal("d1", extra.gateway_id)
    assert.equal("cz", extra.category)
  end)

  it("serves what it has pulled, as it was", function()
    local mine = tuya.client(near, assert(tuya.run(near, "near", "keys.issue")))
    assert.same(client:get("/v1.0/devices/d1").status, mine:get("/v1.0/devices/d1").status)
    local query = ("?end_time=%d&size=100&start_time=%d&type=1,2,5,7"):format(NOW, NOW - 29 * DAY)
    assert.same(client:get("/v1.0/devices/d2/logs" .. query).logs, mine:get("/v1.0/devices/d2/logs" .. query).logs)
    assert.equal("d3", mine:get("/v1.0/devices/d1/sub-devices")[1].id)
  end)

  it("goes on with what is new, and doubles nothing", function()
    tuya.feed(far, "/ward", { readings = { { device = "d1", metric = "cur_voltage", value = 219.5, at = time.now() }, { device = "d1", metric = "new", value = "x", at = time.now() } } })
    same(far, near)
    tuya.feed(far, "/ward", { readings = { { device = "d4", metric = "cur_voltage", value = 1.5, at = time.now() - 60000 } } }) -- late by a minute
    same(far, near)
  end)

  it("takes a status that no log tells, once", function()
    tuya.feed(far, "/ward", { devices = { { device = "silent", name = "Silent", status = "active", extra = { category = "cz", logs = false } } },
      readings = { { device = "silent", metric = "cur_voltage", value = 220.5, at = NOW - 5 * DAY } } })
    local function values()
      local list = {}
      for i, r in ipairs(near:sql "select value from readings where device = 'silent' order by at") do list[i] = r.value end
      return list
    end
    bed.wait("its value", function() return #values() == 1 end)
    tuya.feed(far, "/ward", { readings = { { device = "silent", metric = "cur_voltage", value = 221.5, at = NOW - 4 * DAY } } })
    bed.wait("its next value", function() return #values() == 2 end)
    assert.same({ 220.5, 221.5 }, values())
    far:sql "select 1"
    assert.same({ 220.5, 221.5 }, values())
  end)

  it("forgets a device that is no longer there, and knows it again", function()
    tuya.feed(far, "/ward", { devices = { { device = "passing", name = "Passing", status = "active" } } })
    local function status() return (near:sql "select status from devices where device = 'passing'"[1] or {}).status end
    bed.wait("the device", function() return status() == "active" end)
    tuya.feed(far, "/ward", { devices = { { device = "passing", status = "unbound" } } })
    bed.wait("its end", function() return status() == "unbound" end)
    tuya.feed(far, "/ward", { devices = { { device = "passing", status = "active" } } })
    bed.wait("its return", function() return status() == "active" end)
  end)

  it("offers the document's endpoints as commands", function()
    assert.is_true(tuya.run(near, "near", "rename", { device_id = "d2", name = "新名字" }))
    assert.equal("新名字", client:get("/v1.0/devices/d2").name)
    assert.equal("新名字", near:sql "select name from devices where device = 'd2'"[1].name)
    assert.is_true(tuya.run(near, "near", "multiple-name", { device_id = "d2", identifier = "switch_1", name = "Left" }))
    assert.is_true(tuya.run(near, "near", "function-name", { device_id = "d2", function_code = "switch_2", name = "Right" }))
    assert.same({ { identifier = "switch_1", name = "Left" }, { identifier = "switch_2", name = "Right" } }, tuya.run(near, "near", "multiple-names", { device_id = "d2" }))
    local user = assert(tuya.run(near, "near", "user.add", { device_id = "d2", nick_name = "张三", sex = 1, height = 170 }))
    assert.same({ device_id = "d2", nick_name = "张三", sex = 1, height = 170 }, tuya.run(near, "near", "user.get", { device_id = "d2", user_id = user }))
    assert.is_true(tuya.run(near, "near", "user.update", { device_id = "d2", user_id = user, nick_name = "李四", sex = 2 }))
    assert.equal("李四", tuya.run(near, "near", "users", { device_id = "d2" })[1].nick_name)
    assert.is_true(tuya.run(near, "near", "user.remove", { device_id = "d2", user_id = user }))
    assert.same({}, tuya.run(near, "near", "users", { device_id = "d2" }))
    assert.equal("d2", tuya.run(near, "near", "device", { device_id = "d2" }).id)
    assert.truthy(#tuya.run(near, "near", "devices", { page_no = 1, page_size = 100 }).devices >= 4)
    assert.truthy(#tuya.run(near, "near", "user-devices", { uid = "u-1" }) == 4)
    assert.equal("SN2", tuya.run(near, "near", "factory-infos", { device_ids = "d2" })[1].sn)
    assert.equal("d3", tuya.run(near, "near", "sub-devices", { device_id = "d1" })[1].id)
    assert.equal(20, #tuya.run(near, "near", "logs", { device_id = "d2", type = "7", start_time = ("%d"):format(NOW - 29 * DAY), end_time = ("%d"):format(NOW) }).logs)
    assert.is_true(tuya.run(near, "near", "reset-factory", { device_id = "d2" }))
    assert.equal(1, #far:sql "select * from events where device = 'd2' and type = 'reset'")
    local nothing, why = tuya.run(near, "near", "rename", { device_id = "nobody", name = "x" })
    assert.is_nil(nothing)
    assert.truthy(why:find("1106", 1, true) and why:find("link it to the project", 1, true), why)
    tuya.feed(far, "/ward", { devices = { { device = "doomed", status = "active" } } })
    assert.is_true(tuya.run(near, "near", "remove", { device_id = "doomed" }))
    assert.equal("unbound", far:sql "select status from devices where device = 'doomed'"[1].status)
  end)

  it("runs commands that rules send, and makes a dead letter of one that cannot be run", function()
    local function ask(value, device)
      tuya.feed(near, "/ward", { readings = { { device = device or "d1", metric = "please", value = value } } })
    end
    ask "rename"
    bed.wait("the name", function() return client:get("/v1.0/devices/d1").name == "By a rule" end)
    ask "nothing"
    local dead = bed.wait("the dead letter", function() return near:sql "select * from dead"[1] end)
    assert.truthy(dead.error:find("1106", 1, true), dead.error)
  end)

  it("passes on what its own clients change, and asks for what it does not keep", function()
    local mine = tuya.client(near, assert(tuya.run(near, "near", "keys.issue")))
    assert.is_true(mine:call("PUT", "/v1.0/devices/d3", { name = "Passed on" }))
    assert.equal("Passed on", client:get("/v1.0/devices/d3").name)
    assert.equal("Passed on", mine:get("/v1.0/devices/d3").name)
    local user = mine:call("POST", "/v1.0/devices/d3/user", { nick_name = "a", sex = 1 })
    assert.equal("a", client:get("/v1.0/devices/d3/users/" .. user).nick_name)
    assert.equal("a", mine:get("/v1.0/devices/d3/users")[1].nick_name)
    assert.equal(1106, select(2, mine:get "/v1.0/devices/d3/users/1"))
  end)

  it("gets a new token where the old one was revoked, or has expired, and loses nothing", function()
    client.token = nil
    local _, answer = client:raw("GET", "/v1.0/token/" .. (client:sign_in().refresh_token), nil, { token = false })
    assert.is_true(answer.success) -- near's token and its refresh token are over now
    client.token = answer.result.access_token
    tuya.feed(far, "/ward", { readings = { { device = "d1", metric = "cur_voltage", value = 3.5, at = time.now() } } })
    same(far, near)
  end)

  it("is complete and not doubled after the far side was killed", function()
    far:restart(9)
    tuya.feed(far, "/ward", { readings = { { device = "d2", metric = "cur_voltage", value = 4.5, at = time.now() } } })
    same(far, near)
  end)

  it("is complete and not doubled after it was killed itself, in the midst of it all", function()
    local other = near_host(far.url, key)
    for n = 1, 3 do
      bed.wait("some readings", function() return #readings(other) >= n * 300 end)
      other:restart(9)
    end
    same(far, other)
    assert.same(events(far), events(other))
    other:stop()
  end)

  it("pages the paid query as well", function()
    local other = near_host(far.url, key, 'logs = "paid"')
    same(far, other)
    other:stop()
  end)

  it("pulls one user's devices where a uid is set", function()
    local other = near_host(far.url, key, 'uid = "u-1"')
    bed.wait("its readings", function() return #readings(other) >= #readings(far, "and device like 'd_'") end, 60)
    assert.same(readings(far, "and device like 'd_'"), readings(other))
    other:stop()
  end)

  it("lists more devices than one step has the time for", function()
    local hurried = bed.read(bed.plugins .. "/lib/tuya/sync.lua"):gsub("local STEP = %d+", "local STEP = 0")
    local devices = {}
    for i = 1, 250 do devices[i] = { device = "many-" .. i, name = "One of many", status = "active" } end
    tuya.feed(far, "/ward", { devices = devices })
    local other = bed.host { plugins = tuya.plugins { ["lib/tuya/sync.lua"] = hurried },
      config = ("connections = { %s }"):format(config(far.url, key, 'logs = "none"')) }
    local function known() return other:sql "select count(*) as n from devices where device like 'many-%' and status = 'active'"[1].n end
    bed.wait("all devices", function() return known() == 250 end)
    tuya.feed(far, "/ward", { devices = { { device = "many-250", status = "unbound" } } })
    bed.wait("one less", function() return known() == 249 end)
    assert.same({ { n = 1 } }, other:sql "select count(*) as n from events where type = 'binding'")
    other:stop()
    for i = 1, 250 do devices[i] = { device = "many-" .. i, status = "unbound" } end
    tuya.feed(far, "/ward", { devices = devices })
  end)

  it("keeps the device's key apart from all else", function()
    local made = assert(tuya.run(far, "far", "sandbox", { url = far.url }))
    bed.wait("the sandbox's devices", function()
      return #near:sql(("select * from devices where owner = '%s'"):format(made.credentials.uid)) == 9
    end)
    local d = client:get("/v1.0/devices/" .. made.credentials.device_id)
    assert.equal(16, #d.local_key)
    local mine = tuya.client(near, assert(tuya.run(near, "near", "keys.issue")))
    assert.equal(d.local_key, mine:get("/v1.0/devices/" .. made.credentials.device_id).local_key)
    assert.is_false(tuya.stored(near, d.local_key))
    near:read()
    assert.is_nil(near.output:find(d.local_key, 1, true))
  end)
end)

describe("tuya, connected to a far side that fails", function()
  local KEY = { client_id = "abcdefghijklmnopqrst", secret = "0123456789abcdef0123456789abcdef" }
  local far, near

  -- The far side: one device with `n` readings of log, 100 a page; calls of each path are counted. trouble(path, n) may answer instead.
  local function script(n, trouble, more)
    far = bed.receiver()
    far.calls, far.tokens = {}, 0
    local function ok(result) return 200, json.encode { success = true, t = time.now(), result = result } end
    far.ok = ok
    function far.no(code, msg) return 200, json.encode { success = false, code = code, msg = msg or "x", t = time.now() } end
    far.answer = function(r)
      local path = r.path:match "^[^?]*"
      local kind = path:find "/token" and "token" or path:match "([%w-]+)$"
      far.calls[kind] = (far.calls[kind] or 0) + 1
      local status, body = nil, nil
      if trouble then status, body = trouble(kind, far.calls[kind], r) end
      if status ~= nil then return status or nil, body end -- false hangs up
      if kind == "token" then
        far.tokens = far.tokens + 1
        return ok { access_token = "access-" .. far.tokens, refresh_token = "refresh-" .. far.tokens, expire_time = 7200, uid = "u" }
      elseif kind == "devices" then
        local first = r.path:find "page_no=1"
        return ok { total = 1, last_id = "1", devices = json.array(first and { { id = "x1", name = "X", uid = "u", category = "cz", online = true, sub = false, product_id = "p",
          status = { { code = "cur_voltage", value = 2000 + n } } } } or {}) }
      elseif kind == "logs" then
        local from, to = tonumber(r.path:match "start_time=(%d+)"), tonumber(r.path:match "end_time=(%d+)")
        local start = tonumber(r.path:match "start_row_key=(%d+)") or n
        local list, next_key = json.array {}, json.null
        for i = start, 1, -1 do
          local at = NOW - DAY + i * 1000
          if at >= from and at <= to then
            if #list == 100 then
              next_key = tostring(i)
              break
            end
            list[#list + 1] = { code = "cur_voltage", value = tostring(2000 + i), event_time = at, event_from = "1", event_id = 7 }
          end
        end
        return ok { logs = list, device_id = "x1", has_next = next_key ~= json.null, current_row_key = "c", next_row_key = next_key }
      elseif kind == "factory-infos" then return ok(json.array {}) end
      return far.no(1108)
    end
    near = near_host(far.url, KEY, more)
  end
  after_each(function()
    if near then near:stop() end
    if far then far:close() end
    near, far = nil, nil
  end)

  local function count() return near:sql "select count(*) as n, count(distinct at) as d from readings"[1] end

  -- Drives the far side until fn is true.
  local function until_true(what, fn, seconds)
    return bed.wait(what, function()
      for _ = 1, 20 do -- looking at the store takes longer than an answer
        far:poll()
        socket.sleep(0.001)
      end
      return fn()
    end, seconds)
  end

  local function complete(n)
    until_true(n .. " readings", function() return count().n >= n end, 60)
    local calls = far.calls.logs
    until_true("two rounds more", function() return far.calls.logs >= calls + 2 end)
    assert.same({ n = n, d = n }, count())
  end

  -- A line of near's log.
  local function said(text)
    return until_true(("%q in the log"):format(text), function() return near:read():find(text, 1, true) end, 60)
  end

  it("fetches a history of many pages", function()
    script(2345)
    complete(2345)
  end)

  it("does not take back a name that was given while the list of devices was on its way", function()
    local held = {}
    script(3, function(_, _, r)
      if r.method == "PUT" then return far.ok(true) end
    end)
    complete(3)
    local answer = far.answer
    far.answer = function(r, c)
      if not r.path:find "^/v1.0/devices%?" then return answer(r) end
      held[#held + 1] = c.socket
      return false
    end
    until_true("a list that is asked for", function() return held[1] end)
    local call = bed.start { bed.neap, "call", "near", "rename", "--store", near.store, "--args", json.encode { device_id = "x1", name = "Bed 2" } }
    local function name() return near:sql "select name from devices where device = 'x1'"[1].name end
    until_true("the name", function() return name() == "Bed 2" end)
    local _, old = far.ok { total = 1, last_id = "1", devices = { { id = "x1", name = "X", uid = "u", category = "cz", online = false, product_id = "p" } } }
    held[1]:send(("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"):format(#old, old))
    until_true("the next list that is asked for", function() return held[2] end)
    assert.equal("Bed 2", name())
    call:wait()
  end)

  it("asks with a signature that fits, and with the token that it was given", function()
    script(3)
    complete(3)
    for _, r in ipairs(far.requests) do
      local token = not r.path:find "/token" and r.headers.access_token or nil
      local call = { client = KEY.client_id, secret = KEY.secret, token = token, t = r.headers.t }
      assert.equal(sign.new(call, sign.text(r.method, r.body, "", sign.url(r.path))), r.headers.sign)
      if not r.path:find "/token" then assert.equal("access-1", token) end
    end
    assert.equal(1, far.tokens)
  end)

  for name, fails in pairs {
    ["answers 500 and 503"] = function(n) return n % 2 == 0 and (n % 4 == 0 and 500 or 503) or nil end,
    ["answers 429"] = function(n) return n % 3 == 2 and 429 or nil end,
    ["hangs up"] = function(n) return n % 3 == 2 and false or nil end,
    ["answers half a body"] = function(n)
      if n % 3 == 2 then return "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\ncontent-type: application/json\r\n\r\n{\"success\":true,\"result\":{\"logs\":[" end
    end,
    ["answers what is no JSON"] = function(n) if n % 3 == 2 then return 200, "<html>" end end,
    ["answers 500 in its own words"] = function(n)
      if n % 4 == 2 then return 200, json.encode { success = false, code = 500, msg = "system error", t = 1500000000001 } end
    end,
  } do
    it("is complete and not doubled where it " .. name, function()
      script(450, function(kind, n)
        if n <= 4 and (kind == "logs" or kind == "devices") then return fails(n) end -- each trouble makes the job wait longer
      end)
      complete(450)
    end)
  end

  it("is complete where it is slow", function()
    script(150)
    local waited = 0
    bed.wait("150 readings", function()
      waited = waited + 1
      if waited % 20 == 0 then far:poll() end
      return count().n >= 150
    end, 60)
    complete(150)
  end)

  it("gets a new token for one that the far side calls invalid, by the refresh token, once", function()
    script(250, function(kind, _, r)
      if kind ~= "token" and r.headers.access_token == "access-1" and (far.calls.logs or 0) >= 2 then return far.no(1010, "token invalid") end
    end)
    complete(250)
    assert.equal(2, far.tokens)
    local paths = {}
    for _, r in ipairs(far.requests) do if r.path:find "/token" then paths[#paths + 1] = r.path end end
    assert.same({ "/v1.0/token?grant_type=1", "/v1.0/token/refresh-1" }, paths)
  end)

  it("starts anew where the refresh token is spent", function()
    script(250, function(kind, _, r)
      if r.path:find "/token/" then return far.no(1010, "token invalid") end
      if kind ~= "token" and r.headers.access_token == "access-1" and (far.calls.logs or 0) >= 2 then return far.no(1010, "token invalid") end
    end)
    complete(250)
    assert.equal(2, far.tokens)
  end)

  for _, code in ipairs { 1004, 1005, 1001 } do
    it("takes " .. code .. " for a wrong credential: said once, and not tried again", function()
      script(1, function(kind) if kind == "token" then return far.no(code, "sign invalid") end end)
      said(tostring(code))
      local calls = far.calls.token
      local nothing, why = tuya.run(near, "near", "devices", { page_no = 1, page_size = 1 })
      assert.is_nil(nothing)
      assert.truthy(why:find(tostring(code), 1, true), why)
      far:poll()
      assert.equal(calls, far.calls.token)
    end)
  end

  for code, words in pairs { [28841002] = "renew it", [28841004] = "used up", [28841101] = "subscribe it", [28841106] = "data centre", [28841107] = "suspended", [2007] = "region",
    [1110] = "by itself", [1013] = "clock" } do
    it("says what to do for " .. code .. ", and goes on once it has passed", function()
      local troubled = true
      script(20, function(kind) if troubled and kind == "devices" then return far.no(code, "No permissions.") end end)
      said(words)
      troubled = false
      complete(20)
      assert.equal(1, far.tokens)
      near:read()
      assert.is_nil(near.output:find("denied", 1, true))
    end)
  end

  it("skips a device whose logs are refused, and takes up the others", function()
    script(20, function(kind)
      if kind == "logs" and far.calls.logs < 4 then return far.no(1106, "permission deny") end
    end)
    said "a device's logs are refused"
    complete(20)
  end)

  it("keeps within its budget of calls a month, over a restart", function()
    script(2345, nil, "per_month = 12")
    said "will not last" -- while there is time
    said "used up"
    near:restart()
    said "used up"
    assert.is_true(#far.requests <= 12, #far.requests .. " calls")
  end)

  it("does not start with one credential of two", function()
    local path = bed.folder() .. "/neap.lua"
    bed.write(path, ("return { plugins = %q, connections = { { \"tuya\", client_id = \"x\" } } }"):format(bed.plugins))
    local out, code = bed.run { bed.neap, "check", path }
    assert.equal(1, code)
    assert.truthy(out:find "client_id and secret go together", out)
  end)
end)
