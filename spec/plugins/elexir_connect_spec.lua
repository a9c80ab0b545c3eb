-- Elexir's two faces against each other: one host serves the vendor's endpoints, another connects to it, mostly through a proxy in this
-- process that plays what goes wrong on the way.
package.path = "./spec/plugins/?.lua;" .. package.path
local bed = require "bed"
local elexir = require "elexir_bed"
local json = require "neap.json"
local time = require "neap.time"

local PASSWORD = "correct horse"

-- The serving host: an account with its devices.
local function far_host()
  local far = bed.host { config = [[connections = { { "elexir" } }]] }
  local function call(name, args, fails) return elexir.call(far, "elexir", name, args, fails) end
  local w = { host = far, call = call, user = call("keys.issue", { email = "ana@example.org", password = PASSWORD }) }
  w.token = elexir.sign_in(far, "ana@example.org", PASSWORD).access_token
  function w.device(unique_id, free)
    local d = call("device.add", { unique_id = unique_id, serial_code = "S-" .. unique_id })
    if not free then
      assert(elexir.request(far, "POST", "device/set-my-device", { token = w.token, query = { unique_id = unique_id, serial_code = d.serial_code } }) == 200)
    end
    return d
  end
  function w.log(changes)
    changes.user_id = w.user.id
    local status, _, text = elexir.request(far, "POST", "device/devlog", { token = w.token, body = elexir.log(changes) })
    assert(status == 200, text)
  end
  function w.month(text) return select(2, elexir.request(far, "GET", "device/my-devlog/" .. text, { token = w.token })) end
  return w
end

-- A proxy: proxy.fault(request) may say what happens to a request; else it is passed on.
local function proxy_to(far)
  local proxy = bed.receiver()
  proxy.fault = function() end
  proxy.count = {} -- by path
  function proxy.pass(request)
    local headers = {}
    for _, name in ipairs { "authorization", "content-type" } do headers[name] = request.headers[name] end
    local ok, status, body, fields = pcall(bed.request, far.port, request.method, request.path, request.body, headers)
    if not ok or not status then return nil end -- the far host is down: so is the way to it
    return status, body, { ["content-type"] = fields["content-type"], ["retry-after"] = fields["retry-after"] }
  end
  function proxy.answer(request)
    local path = request.path:match "^/api/v1/legacy/([^?]*)"
    request.what = path and path:gsub("/%d.*", "")
    proxy.count[request.what] = (proxy.count[request.what] or 0) + 1
    local fault = table.pack(proxy.fault(request))
    if fault.n > 0 then return table.unpack(fault, 1, fault.n) end
    return proxy.pass(request)
  end
  return proxy
end

local function near_host(url, settings, more)
  local config = ([[connections = { { "elexir", name = "campus", url = %q, email = "ana@example.org", password = %q, poll = "1s", timeout = "8s", %s } }]])
    :format(url, PASSWORD, settings or "")
  return bed.host { config = config .. (more or "") }
end

local function stored(near, connection)
  return near:sql(("select device, metric, value, at, key, extra from readings where connection = '%s' order by at, metric, key"):format(connection or "campus"))
end

-- What is stored is what the far account has, each log once, as two readings.
local function check_whole(near, w, months, names)
  local expected = {}
  for _, month in ipairs(months) do
    for _, l in ipairs(w.month(month)) do expected[tostring(l.id)] = l end
  end
  local seen = {}
  for _, r in ipairs(stored(near)) do
    local l = assert(expected[r.key], "stored, and not there: " .. r.key)
    local id = r.metric .. " " .. r.key
    assert.is_nil(seen[id], "stored twice: " .. id)
    seen[id] = true
    assert.equal(names[l.device_id], r.device)
    assert.equal(time.parse(l.logdate), r.at)
    assert.equal(l[r.metric], r.value)
    if r.metric == "treatment_time" then assert.same(l, json.decode(r.extra)) end
  end
  local n = 0
  for id in pairs(expected) do
    assert.is_true(seen["treatment_time " .. id] and seen["last_intensity " .. id], "not stored: " .. id)
    n = n + 1
  end
  return n
end

local function wait_for_readings(near, n, proxy)
  local ok, why = pcall(bed.wait, n .. " readings", function()
    if proxy then proxy:poll() end
    near:read()
    return near:sql("select count(*) as n from readings where connection = 'campus'")[1].n >= n
  end, 15)
  if not ok then error(why .. "; its log:\n" .. near.output:sub(-3000), 2) end
end

-- Runs a command while the proxy answers what it asks for.
local function command(near, proxy, name, args)
  local p = bed.start { bed.neap, "call", "--store", near.store, "campus", name, "--args", json.encode(args or {}) }
  bed.wait("the command " .. name, function()
    proxy:poll()
    p:read()
    return p.ended
  end)
  local _, code = p:wait()
  return code == 0 and json.decode(p.output) or nil, p.output
end

local present = time.format(time.now(), "UTC", "yyyy-MM")
local function months_ago(n)
  local y, m = tonumber(present:sub(1, 4)), tonumber(present:sub(6))
  local i = y * 12 + m - 1 - n
  return ("%04d-%02d"):format(i // 12, i % 12 + 1)
end

describe("elexir, connected", function()
  local w, a, b, names
  local MONTHS = { months_ago(4), months_ago(3), months_ago(2), months_ago(1), present }

  setup(function()
    w = far_host()
    a, b = w.device "FAR-A", w.device "FAR-B"
    names = { [a.id] = "FAR-A", [b.id] = "FAR-B" }
    for i, month in ipairs(MONTHS) do
      if i ~= 3 then -- one month has nothing
        for day = 1, 9 do
          w.log { device_id = day % 3 == 0 and b.id or a.id, logdate = ("%s-0%dT0%d:00:00"):format(month, day, i), event_num = day,
            last_intensity = 60.5 + day, fversion = day % 2 == 0 and 22 or 22.0, finish_flag = day % 2 + 1 }
        end
      end
    end
  end)
  teardown(function() w.host:stop() end)

  it("fetches the devices and every log since the month it was told, once", function()
    local near = near_host(w.host.url, ("since = %q"):format(MONTHS[1]))
    wait_for_readings(near, 72)
    assert.equal(36, check_whole(near, w, MONTHS, names))
    local list = near:sql "select * from devices order by device"
    assert.equal(2, #list)
    assert.equal("FAR-A", list[1].device)
    assert.equal("S-FAR-A", list[1].serial)
    assert.equal("ELEXIR", list[1].model)
    assert.equal("bound", list[1].status)
    assert.equal(tostring(w.user.id), list[1].owner)
    assert.equal(a.id, json.decode(list[1].extra).id)
    near:stop()
  end)

  it("fetches this month only where it was told nothing, and what comes new, also for past months that are late", function()
    local near = near_host(w.host.url, "late = 2")
    wait_for_readings(near, 18)
    assert.equal(18, #stored(near))
    w.log { device_id = a.id, logdate = present .. "-01T23:00:00" }
    wait_for_readings(near, 20)
    near:stop()
    near = near_host(w.host.url, ("late = 2, since = %q"):format(MONTHS[1]))
    wait_for_readings(near, 74)
    w.log { device_id = a.id, logdate = MONTHS[3] .. "-03T03:00:00" } -- a device was connected to its app two months later
    wait_for_readings(near, 76)
    assert.equal(38, check_whole(near, w, MONTHS, names))
    near:stop()
  end)

  it("begins again where `since` is changed, and doubles nothing", function()
    local near = near_host(w.host.url, ("since = %q"):format(MONTHS[4]))
    wait_for_readings(near, 38)
    assert.equal(19, check_whole(near, w, { MONTHS[4], MONTHS[5] }, names))
    local text = bed.read(near.folder .. "/neap.lua")
    bed.replace(near.folder .. "/neap.lua", (text:gsub("since = \"[^\"]*\"", ("since = %q"):format(MONTHS[1]))))
    wait_for_readings(near, 76)
    assert.equal(38, check_whole(near, w, MONTHS, names))
    near:stop()
  end)

  it("is complete and not doubled, whatever happens on the way", function()
    local proxy = proxy_to(w.host)
    local seen, n = {}, 0
    local function half(request)
      local _, body = proxy.pass(request)
      return ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"):format(#body, body:sub(1, #body // 2))
    end
    local FAULTS = {
      function() return nil end, -- hangs up
      function() return 500, '{"detail":"Internal Server Error"}' end,
      half,
      function() return 429, '{"detail":"Too Many Requests"}', { ["retry-after"] = "1" } end,
      function() return 503, "<html>" end,
      function() return 401, '{"detail":"Could not validate credentials"}' end,
      function() return 200, "[{" end,
      function() return 200, '{"detail":"?"}' end,
      function() return false end, -- slow: no answer at all
      function() return 400, '{"detail":"Read Device Log Failed"}' end,
    }
    proxy.fault = function(request)
      if request.path:find "/auth/" then return end
      n = n + 1
      if n % 2 == 0 and n // 2 <= #FAULTS then
        seen[n // 2] = true
        return FAULTS[n // 2](request)
      end
    end
    local near = near_host(proxy.url, ("since = %q"):format(MONTHS[1]))
    bed.wait("all that can go wrong", function()
      proxy:poll()
      return #seen == #FAULTS
    end, 120)
    wait_for_readings(near, 76, proxy)
    assert.equal(38, check_whole(near, w, MONTHS, names))
    near:stop()
    proxy:close()
  end)

  it("goes on where it was, when it is killed and when the other side is", function()
    local proxy = proxy_to(w.host)
    local near = near_host(proxy.url, ("since = %q"):format(MONTHS[1]))
    bed.wait("the first months", function()
      proxy:poll()
      return (proxy.count["device/my-devlog"] or 0) >= 2
    end)
    near:restart(9)
    bed.wait("another month", function()
      proxy:poll()
      return proxy.count["device/my-devlog"] >= 3
    end)
    w.host:stop(9)
    local before = #proxy.requests
    bed.wait("calls that nobody answers", function() return #proxy:poll() >= before + 2 end)
    w.host:begin()
    wait_for_readings(near, 76, proxy)
    assert.equal(38, check_whole(near, w, MONTHS, names))
    near:stop()
    proxy:close()
  end)

  it("goes past a log that is none, and says so", function()
    local proxy = proxy_to(w.host)
    proxy.fault = function(request)
      if request.path:find("my-devlog", 1, true) then
        local _, body = proxy.pass(request)
        return 200, (body:gsub("^%[", '[{"id":1234567},7,{"id":"x"},', 1)), { ["content-type"] = "application/json" }
      end
    end
    local near = near_host(proxy.url, ("since = %q"):format(MONTHS[1]))
    wait_for_readings(near, 76, proxy)
    assert.equal(38, check_whole(near, w, MONTHS, names))
    near:wait_for "a log is passed over[^\n]*1234567"
    near:stop()
    proxy:close()
  end)

  it("notes a device that is the account's no longer, and keeps its name for logs", function()
    local near = near_host(w.host.url, ("since = %q"):format(MONTHS[1]))
    wait_for_readings(near, 76)
    elexir.request(w.host, "PATCH", "device/un-connect", { token = elexir.sign_in(w.host, "ana@example.org", PASSWORD).access_token, query = { unique_id = "FAR-B" } })
    bed.wait("the device to be unbound", function()
      return near:sql("select status from devices where device = 'FAR-B'")[1].status == "unbound"
    end)
    assert.equal("bound", near:sql("select status from devices where device = 'FAR-A'")[1].status)
    near:stop()
    -- one that connects only now has never seen the device: its logs are kept under its number, and stay there
    near = near_host(w.host.url, ("since = %q"):format(MONTHS[1]))
    wait_for_readings(near, 76)
    w.token = elexir.sign_in(w.host, "ana@example.org", PASSWORD).access_token
    elexir.request(w.host, "POST", "device/set-my-device", { token = w.token, query = { unique_id = "FAR-B", serial_code = "S-FAR-B" } })
    bed.wait("the device to be known", function() return #near:sql("select * from devices where device = 'campus-" .. b.id .. "'") == 1 end)
    assert.equal(38, check_whole(near, w, MONTHS, { [a.id] = "FAR-A", [b.id] = "campus-" .. b.id }))
    near:stop()
  end)
end)

describe("elexir's account", function()
  local w, proxy
  setup(function()
    w = far_host()
    w.device "FAR-A"
  end)
  before_each(function() proxy = proxy_to(w.host) end)
  after_each(function() proxy:close() end)
  teardown(function() w.host:stop() end)

  local function polls(n)
    bed.wait(n .. " looks", function()
      proxy:poll()
      return (proxy.count["device/my-devlog"] or 0) >= n
    end, 15)
  end

  it("signs in once, and refreshes with the newest refresh token before the old one expires", function()
    proxy.fault = function(request)
      if request.path:find("/auth/", 1, true) then
        local status, body, headers = proxy.pass(request)
        return status, (body:gsub('"expires_in":900', '"expires_in":1')), headers
      end
    end
    local near = near_host(proxy.url)
    bed.wait("three refreshes", function()
      proxy:poll()
      return (proxy.count["auth/refresh-token"] or 0) >= 3
    end, 15)
    polls(3)
    assert.equal(1, proxy.count["auth/signin"]) -- else a refresh token had come twice, and was revoked
    near:stop()
  end)

  it("refreshes where its token is refused", function()
    local near = near_host(proxy.url)
    polls(1)
    local refused
    proxy.fault = function(request)
      if request.path:find("/device/", 1, true) and not refused then
        refused = request.headers.authorization
        return 401, '{"detail":"Could not validate credentials"}'
      end
    end
    polls(4)
    assert.equal(1, proxy.count["auth/signin"])
    assert.equal(1, proxy.count["auth/refresh-token"])
    assert.are_not.equal(refused, proxy.requests[#proxy.requests].headers.authorization)
    near:stop()
  end)

  it("signs in anew where its refresh token is refused", function()
    local near = near_host(proxy.url)
    polls(1)
    w.call("keys.password", { email = "ana@example.org", password = PASSWORD }) -- the same, but what was signed in is revoked
    polls(4)
    assert.equal(2, proxy.count["auth/signin"])
    near:stop()
  end)

  it("with a wrong password is denied and says so, once", function()
    w.call("keys.password", { email = "ana@example.org", password = "another one" })
    local near = near_host(proxy.url)
    bed.wait("the sign-in", function()
      proxy:poll()
      return proxy.count["auth/signin"]
    end)
    near:wait_for "the password is wrong"
    for _ = 1, 3 do
      local value, output = command(near, proxy, "devices")
      assert.is_nil(value)
      assert.truthy(output:find("the password is wrong", 1, true), output)
    end
    assert.equal(1, proxy.count["auth/signin"])
    assert.is_nil(near.output:find(PASSWORD, 1, true))
    local text = bed.read(near.folder .. "/neap.lua")
    bed.replace(near.folder .. "/neap.lua", (text:gsub("correct horse", "another one")))
    polls(1)
    near:stop()
    w.call("keys.password", { email = "ana@example.org", password = PASSWORD })
  end)

  it("that does not exist is denied too, and one that must wait is not", function()
    proxy.fault = function(request)
      if request.path:find("/auth/", 1, true) and (proxy.count["auth/signin"] or 0) <= 2 then
        return 429, '{"detail":"Too Many Requests"}', { ["retry-after"] = "1" }
      end
    end
    local near = near_host(proxy.url)
    polls(1)
    assert.is_true(proxy.count["auth/signin"] >= 3)
    near:stop()
    proxy.fault = function(request)
      if request.path:find("/auth/", 1, true) then return 403, '{"detail":"Not Found User"}' end
    end
    near = near_host(proxy.url)
    bed.wait("the denial", function()
      proxy:poll()
      return near:read():find("there is no such account", 1, true)
    end)
    near:stop()
  end)

  it("is asked for where there is a url", function()
    local folder = bed.folder()
    bed.write(folder .. "/neap.lua", ("return { store = 'neap.db', plugins = %q, connections = { { 'elexir', url = 'http://127.0.0.1:1' } } }"):format(bed.plugins))
    local out, code = bed.run { bed.neap, "check", folder .. "/neap.lua" }
    assert.are_not.equal(0, code)
    assert.truthy(out:find("needs email", 1, true), out)
  end)
end)

describe("elexir's commands", function()
  local w, near
  setup(function()
    w = far_host()
    w.device "FAR-A"
    w.device("FREE-1", true)
    near = near_host(w.host.url)
  end)
  teardown(function()
    near:stop()
    w.host:stop()
  end)
  local function call(name, args, fails) return elexir.call(near, "campus", name, args, fails) end

  it("are the vendor's endpoints", function()
    local list = call "devices"
    assert.equal(1, #list)
    assert.equal("FAR-A", list[1].unique_id)
    assert.equal(json.null, call("check", { unique_id = "free-1" }).user_id)
    assert.same({ statuscode = 200, message = "device connected" }, call("connect", { unique_id = "FREE-1", serial_code = "S-FREE-1", mac_id = "aa" }))
    local d = call("check", { unique_id = "FREE-1" })
    assert.equal(w.user.id, d.user_id)
    assert.equal("aa", d.mac_id)
    local l = elexir.log { user_id = w.user.id, device_id = d.id, logdate = "2025-04-11T15:58:00" }
    assert.same(l, call("upload", l))
    local temp = { user_id = w.user.id, model_id = 2, device_id = d.id, unique_id = "FREE-1", finish_flag = 0, start_date = "2025-04-11T15:58:00Z", last_date = "" }
    assert.same(temp, call("upload.temp", temp))
    assert.equal("2025-04-11 15:58:00", call("lasttime", { device_id = d.id }))
    local logs = call("logs", { month = "2025-04" })
    assert.equal(1, #logs)
    assert.equal("06008101f793466e1100800cb0043304", logs[1].log_data)
    assert.same({ statusCode = 200, message = "device unconnected" }, call("unconnect", { unique_id = "FREE-1" }))
    assert.equal(0, #call("logs", { month = "2025-05" }))
  end)

  it("say what the vendor said where it refuses", function()
    assert.truthy(call("check", { unique_id = "x" }, true):find("Not Found Device (404)", 1, true))
    assert.truthy(call("connect", { unique_id = "FREE-1", serial_code = "wrong" }, true):find("Serial code is not valid (404)", 1, true))
    assert.truthy(call("lasttime", { device_id = 999 }, true):find("No Content (404)", 1, true))
    assert.truthy(call("logs", { month = "2025-13" }, true):find("Read Device Log Failed (400)", 1, true))
    assert.truthy(call("upload", elexir.log { user_id = 999, device_id = 1 }, true):find("(403)", 1, true))
    call("check", {}, true)
    call("logs", { month = "x" }, true)
  end)
end)

describe("elexir as a destination", function()
  local RULE = [[
local plugin = ...
plugin:on({ connection = "gateway" }, function(r)
  plugin:send("campus", { reading = { device = r.device, metric = r.metric, value = r.value, unit = r.unit, at = r.at, extra = r.extra } })
  if r.metric == "treatment_time" and r.value == 7 then
    plugin:send("campus", { command = "connect", args = { unique_id = "FREE-1", serial_code = "S-FREE-1" } })
    plugin:send("campus", { command = "connect", args = { unique_id = "FREE-1", serial_code = "wrong" } })
    plugin:send("campus", { command = "nonsense" })
    plugin:send("campus", { title = "no reading" })
  end
end)
]]
  local FILES = { "lib/tokens.lua", "lib/plausible.lua", "lib/elexir/log.lua", "lib/elexir/logs.lua", "lib/elexir/users.lua", "lib/elexir/devices.lua",
    "lib/elexir/connect.lua", "lib/elexir/sandbox.lua", "vendors/elexir.lua" }

  it("uploads logs and runs commands, once each, through whatever goes wrong", function()
    local w = far_host()
    local d = w.device "PATIENT-1"
    w.device("FREE-1", true)
    local proxy = proxy_to(w.host)
    local files = { ["rules/upload.lua"] = RULE }
    for _, name in ipairs(FILES) do files[name] = bed.read(bed.plugins .. "/" .. name) end
    local near = bed.host { plugins = files, config = ([[
      connections = { { "elexir", name = "gateway" },
        { "elexir", name = "campus", url = %q, email = "ana@example.org", password = %q, poll = "1h", timeout = "2s" } },
      rules = { { "upload" } }]]):format(proxy.url, PASSWORD) }
    local function call(name, args) return elexir.call(near, "gateway", name, args) end
    local user = call("keys.issue", { email = "kim@example.org", password = PASSWORD })
    local token = elexir.sign_in(near, "kim@example.org", PASSWORD).access_token
    local faults = 0
    proxy.fault = function(request)
      if request.method == "POST" and request.path:find("/devlog", 1, true) then
        faults = faults + 1
        if faults == 1 then return 500, '{"detail":"Internal server error"}' end
        if faults == 3 then
          proxy.pass(request) -- it is stored, and the answer is lost: the same log comes again
          return nil
        end
        if faults == 5 then return 429, '{"detail":"Too Many Requests"}', { ["retry-after"] = "1" } end
        if faults == 7 then return 401, '{"detail":"Could not validate credentials"}' end
      end
    end
    for _, unique_id in ipairs { "PATIENT-1", "PATIENT-2" } do
      call("device.add", { unique_id = unique_id, serial_code = "S" })
      assert.equal(200, (elexir.request(near, "POST", "device/set-my-device", { token = token, query = { unique_id = unique_id, serial_code = "S" } })))
    end
    local sent = {}
    for i = 1, 5 do
      sent[i] = elexir.log { user_id = user.id, device_id = 1, logdate = ("2025-04-0%dT10:00:00.5%dZ"):format(i, i), treatment_time = 2 + i, fversion = i % 2 == 0 and 22 or 22.5 }
      assert.equal(200, (elexir.request(near, "POST", "device/devlog", { token = token, body = sent[i] })))
    end
    assert.equal(200, (elexir.request(near, "POST", "device/devlog", { token = token, body = elexir.log { user_id = user.id, device_id = 2 } })))
    bed.wait("all messages to have ended", function()
      proxy:poll()
      return near:sql "select (select count(*) from delivered) + (select count(*) from dead) as n"[1].n == 16
    end, 90)
    local list = w.month "2025-04"
    assert.equal(5, #list)
    for i, l in ipairs(list) do
      local s = sent[6 - i]
      assert.equal(w.user.id, l.user_id)
      assert.equal(d.id, l.device_id)
      assert.equal(time.parse(s.logdate), time.parse(l.logdate))
      for _, name in ipairs { "fversion", "mode", "finish_flag", "last_intensity", "treatment_time", "event_num", "log_data" } do
        assert.equal(s[name], l[name])
        assert.equal(math.type(s[name]), math.type(l[name]))
      end
    end
    local _, devices = elexir.request(w.host, "GET", "device/my-devices", { token = w.token })
    assert.equal(2, #devices)
    local reasons = {}
    for _, row in ipairs(near:sql "select * from dead") do reasons[#reasons + 1] = json.encode(row) end
    local text = table.concat(reasons, "\n")
    for _, reason in ipairs { "the account has no device PATIENT-2", "Serial code is not valid", "one of the commands" } do
      assert.truthy(text:find(reason, 1, true), reason .. " in " .. text)
    end
    near:stop()
    w.host:stop()
    proxy:close()
  end)
end)
