-- Dreisam's two faces against each other: one neap pulls from another that serves; through whatever happens, all comes over, once.
local bed = require "bed"
local json = require "neap.json"
local time = require "neap.time"

local MAKER = [[
local plugin = ...
plugin:serve { "POST /make", body = { readings = { "array", optional = true }, devices = { "array", optional = true } }, handler = function(req)
  for _, r in ipairs(req.body.readings or {}) do plugin:emit(r) end
  for _, d in ipairs(req.body.devices or {}) do
    d.owner = plugin.people:reference("patient:" .. d.owner)
    plugin:device(d)
  end
  return 204
end }
]]

local DAY, HOUR, MINUTE = 86400000, 3600000, 60000
local TRENDS = { "flat", "rising_slowly", "falling_slowly", "rising_fast", "falling_fast" }
local BEGAN = time.now() // DAY * DAY - 100 * DAY

describe("dreisam pulling from dreisam", function()
  local far, near, proxy, fault

  -- The cloud: two users, one with two sensors, 100 days back; a reading every 6 hours, and two days of one every 5 minutes.
  local function make(device, from, to, step)
    local readings = {}
    for n = 1, (to - from) // step do
      readings[n] = { device = device, metric = "glucose", value = 4 + n % 97 / 10, unit = "mmol/L", at = from + n * step, serial = n, trend = TRENDS[1 + n % 5] }
    end
    assert.equal(204, (far:request("POST", "/make", { readings = readings })))
  end

  local function start_far(options)
    options = options or {}
    options.plugins = options.plugins or bed.own_plugins { ["vendors/maker.lua"] = MAKER }
    options.config = [[lanes = 2, connections = { { "maker", name = "made" },
      { "dreisam", name = "face", app_id = "app_1", app_secret = "s3cret-of-the-app", shows = { "made" } } }]]
    far = bed.host(options)
    assert.equal(204, (far:request("POST", "/make", { devices = {
      { device = "A1", owner = "u1", status = "ended", extra = { bound_at = BEGAN, activated_at = BEGAN + 1, ended_at = BEGAN + 50 * DAY } },
      { device = "A2", owner = "u1", status = "active", extra = { bound_at = BEGAN + 50 * DAY } }, { device = "B1", owner = "u2", status = "active" } } })))
    make("A1", BEGAN, BEGAN + 50 * DAY, 6 * HOUR)
    make("A2", BEGAN + 50 * DAY, BEGAN + 100 * DAY, 6 * HOUR)
    make("B1", BEGAN + 96 * DAY, BEGAN + 98 * DAY, 5 * MINUTE)
  end

  local function config_of(settings)
    return ([[lanes = 2, connections = { { "dreisam", name = "cloud", url = %q, app_id = "app_1", since = %q, poll = "1s", per_second = 1000, window = "20d", overlap = "1d", %s } }]]):format(
      proxy.url, time.format(BEGAN, "UTC", "yyyy-MM-dd"), settings or [[app_secret = "s3cret-of-the-app", users = { "u1", "u2" }]])
  end

  local function start_near(settings) near = bed.host { config = config_of(settings) } end

  -- Stands between the two: passes on, unless `fault` answers in the cloud's place.
  local function pass(request, client)
    if fault then
      local answer = table.pack(fault(request, client))
      if answer.n > 0 then return table.unpack(answer, 1, answer.n) end
    end
    local headers = {}
    for k, v in pairs(request.headers) do
      if k ~= "host" and k ~= "connection" and k ~= "content-length" then headers[k] = v end
    end
    local status, body = bed.request(far.port, request.method, request.path, request.body ~= "" and request.body or nil, headers)
    return status, body, { ["content-type"] = "application/json" }
  end

  before_each(function()
    fault = nil
    proxy = bed.receiver()
    proxy.answer = pass
  end)
  after_each(function()
    if near then near:stop(9) end
    if far then far:stop(9) end
    near, far = nil, nil
    proxy:close()
  end)

  local function wait(what, fn)
    return bed.wait(what, function()
      proxy:poll()
      return fn()
    end, 60)
  end

  local ROWS = "select device, metric, value, unit, at, serial, trend, quality from readings order by device, at"
  local function complete(what)
    local expected = json.encode(far:sql(ROWS))
    wait(what or "all readings to come over", function()
      return far:sql("select count(*) as n from readings")[1].n == near:sql("select count(*) as n from readings")[1].n
    end)
    assert.equal(expected, json.encode(near:sql(ROWS)))
  end

  local function seen(pattern)
    local n = 0
    for _, r in ipairs(proxy.requests) do if r.path:find(pattern) then n = n + 1 end end
    return n
  end

  local function command(name, args)
    local run = bed.start { bed.neap, "call", "--store", near.store, "cloud", name, "--args", json.encode(args or json.decode "{}") }
    wait("the command", function()
      run:read()
      return run.ended
    end)
    local _, code = run:wait()
    return code == 0 and assert(json.decode(run.output)) or nil, run.output
  end

  it("brings all history over, in windows, and then what is new and what comes late", function()
    start_far()
    start_near()
    complete()
    local first = 0
    for _, r in ipairs(proxy.requests) do
      local from, to = r.path:match "start_time=(%d+)", r.path:match "end_time=(%d+)"
      if from then
        assert.is_true(to - from <= 20 * DAY and to - from >= 0)
        first = first + (tonumber(from) == BEGAN and 1 or 0)
      end
    end
    assert.equal(2, first) -- each user's history was begun once
    assert.equal(2, seen "/user/register")
    assert.equal(0, seen "/user/token")

    make("A2", BEGAN + 100 * DAY, BEGAN + 100 * DAY + 2 * MINUTE, MINUTE)
    make("B1", time.now() - 3 * HOUR, time.now() - 2 * HOUR, 5 * MINUTE) -- older than what was had, within the overlap
    complete "what is new"
    assert.equal(2, seen "/user/register")
  end)

  it("knows devices: whose they are, their status, and when it changed", function()
    start_far()
    start_near()
    complete()
    local function device(name) return near:sql(("select owner, status, serial, vendor, connection, extra from devices where device = '%s'"):format(name))[1] end
    wait("the devices' states", function() return device "A1" and device "A1".status == "ended" and device "B1" and device "B1".status == "active" end)
    local a1, a2, b1 = device "A1", device "A2", device "B1"
    assert.same({ "dreisam", "cloud", "A1" }, { a1.vendor, a1.connection, a1.serial })
    assert.truthy(a1.owner:match "^p_%x+$" and a1.owner == a2.owner and a1.owner ~= b1.owner)
    assert.same({ bound_at = BEGAN, activated_at = BEGAN + 1, ended_at = BEGAN + 50 * DAY }, json.decode(a1.extra))
    local events = near:sql "select type, at from events where device = 'A1' and type <> 'gap' order by at"
    assert.same({ { type = "binding", at = BEGAN }, { type = "activated", at = BEGAN + 1 }, { type = "session_end", at = BEGAN + 50 * DAY } }, events)
    assert.equal(1, seen "device_sn=A1") -- one that has ended is not asked about again
  end)

  it("goes on where it was after either side was killed", function()
    start_far()
    start_near()
    local rounds = 0
    wait("a first window", function() return near:sql("select count(*) as n from readings")[1].n > 0 end)
    repeat
      near:stop(9)
      near:begin()
      rounds = rounds + 1
      wait("something more", function() return seen "/user/glucose" > 3 * rounds end)
    until rounds == 4
    far:stop(9)
    local before = #proxy.requests
    fault = function() return nil end -- nobody is there
    wait("calls that nobody answers", function() return #proxy.requests > before + 2 end)
    fault = nil
    far:begin()
    complete()
  end)

  for name, trouble in pairs {
    ["asks for fewer calls"] = function() return 429, "slow down" end,
    ["is down"] = function() return 503, "closed" end,
    ["fails"] = function() return 500, '{"code":500,"msg":"oh","data":{}}' end,
    ["says something else"] = function() return 200, "<html>welcome</html>" end,
    ["says nothing"] = function() return nil end,
    ["has another form"] = function() return 200, '{"code":0,"msg":"ok","data":{"records":7,"open_id":null}}' end,
    ["sends half a body"] = function(_, client)
      client.socket:send 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"code":0,"msg":"ok","data":{"open_id":"x","records":[{"app_id"'
      return nil
    end,
  } do
    it("tries again where the cloud " .. name, function()
      start_far()
      local met = {}
      fault = function(request, ...)
        local call = request.path:match "^[^?]*"
        if name == "asks for fewer calls" and call:find "register" then return end -- an account waits for a minute then
        met[call] = (met[call] or 0) + 1
        if met[call] % 4 == 1 and met[call] < 10 then return trouble(request, ...) end
      end
      start_near()
      complete()
      assert.is_true(met["/partner/v1/user/glucose"] > 5)
    end)
  end

  it("waits for a slow answer", function()
    start_far()
    local held
    fault = function(request, client)
      if not held and request.path:find "/user/glucose" then
        held = { request, client }
        return false
      end
    end
    start_near()
    wait("a call to be held", function() return held end)
    wait("the other user's work meanwhile", function() return #proxy.requests > 5 end)
    local count = "select count(*) as n from readings"
    assert.is_true(near:sql(count)[1].n < far:sql(count)[1].n) -- whichever user's call it is
    local status, body = pass(held[1], held[2])
    assert.equal(200, status)
    held[2].socket:settimeout(5)
    held[2].socket:send(("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"):format(#body, body))
    held[2].socket:settimeout(0)
    complete()
  end)

  it("takes another token where the cloud says that its own is no good", function()
    start_far()
    local n = 0
    fault = function(request)
      if not request.path:find "/user/glucose" then return end
      n = n + 1
      if n == 2 or n == 5 then return 200, '{"code":1001,"msg":"token invalid","data":{}}' end
    end
    start_near()
    complete()
    assert.equal(2, seen "/user/token")
    assert.equal(2, seen "/user/register")
  end)

  it("takes another where the cloud has lost all tokens", function()
    start_far()
    start_near()
    complete()
    far:stop()
    assert.equal(0, select(2, bed.run { "sqlite3", far.store, "delete from kv where key like 'access:%'" }))
    far:begin()
    make("A2", BEGAN + 100 * DAY, BEGAN + 100 * DAY + 2 * MINUTE, MINUTE)
    complete()
    assert.is_true(seen "/user/token" >= 1)
  end)

  it("registers again where the cloud has forgotten the user", function()
    start_far()
    start_near()
    complete()
    far:stop()
    assert.equal(0, select(2, bed.run { "sqlite3", far.store, "delete from kv where key like 'access:%' or key like 'open/%' or key like 'user/%'" }))
    far:begin()
    make("A2", BEGAN + 100 * DAY, BEGAN + 100 * DAY + 2 * MINUTE, MINUTE)
    complete()
    wait("the user without new readings to be registered too", function() return seen "/user/register" >= 4 end)
    assert.equal(4, seen "/user/register")
  end)

  it("with a wrong secret says so, and does not go on asking; with the right one all comes over", function()
    start_far()
    start_near [[app_secret = "wrong", users = { "u1" }]]
    wait("the refusal to be told", function() return near:read():find("X-Signature does not fit", 1, true) end)
    assert.is_nil(near:read():find("wrong", 1, true))
    wait("the job to have come again", function() return #near:read():gsub('[^\n]*"user 1"[^\n]*', "") >= 0 and select(2, near:read():gsub('user 1', "")) >= 2 end)
    assert.equal(1, seen "/user/register")
    assert.equal(#proxy.requests, seen "/user/register")
    bed.replace(near.folder .. "/neap.lua", ("return { listen = \"127.0.0.1:0\", store = \"neap.db\", plugins = %q,\n%s\n}"):format(near.plugins, config_of()))
    complete()
  end)

  it("leaves out a record that is none, and says how many", function()
    start_far()
    fault = function(request)
      if request.path:find "/user/glucose" and request.path:find("start_time=" .. BEGAN, 1, true) then
        return 200, json.encode { code = 0, msg = "ok", data = { open_id = "x", records = {
          { device_sn = "A1", value = "high", measured_at = BEGAN + 5 }, { device_sn = 7, value = 5.5, measured_at = BEGAN + 5 },
          { device_sn = "A1", value = 5.5, measured_at = "now" }, { device_sn = "A1", value = 5.5, measured_at = 0 }, 7,
          { device_sn = "Z9", value = 5, measured_at = BEGAN + 5, trend = 7, package_num = "x", type = 3 } } } }
      end
    end
    start_near [[app_secret = "s3cret-of-the-app", users = { "u1" }]]
    wait("the one that is whole", function() return #near:sql "select 1 from readings where device = 'Z9'" == 1 end)
    local row = near:sql "select value, trend, serial, extra from readings where device = 'Z9'"[1]
    assert.same({ 5.0, json.null, json.null, 3 }, { row.value, row.trend, row.serial, json.decode(row.extra).type })
    assert.equal(0, near:sql("select count(*) as n from readings where at = 0")[1].n)
    near:wait_text '"count":"5","of":"6"'
  end)

  it("keeps users' names out of the store and the log", function()
    start_far()
    start_near [[app_secret = "s3cret-of-the-app", users = { "patient-in-the-clear" }]]
    wait("a registration", function() return seen "/user/glucose" > 2 end)
    local dump = assert(io.popen(("sqlite3 -readonly -cmd '.timeout 10000' '%s' .dump"):format(near.store))):read "a"
    assert.is_nil(dump:find("patient-in-the-clear", 1, true))
    assert.is_nil(near:read():find("patient-in-the-clear", 1, true))
  end)

  it("refuses settings that cannot work", function()
    local folder = bed.folder()
    for text, why in pairs { ["window = '1h', overlap = '1h'"] = "window", ["window = '31d'"] = "window", ["since = 'yesterday'"] = "since: not a time",
      ["app_secret = 'x'"] = "app_id", ["per_second = 0"] = "per_second", ["users = { 7 }"] = "users" } do
      bed.write(folder .. "/neap.lua", ("return { store = 'neap.db', plugins = %q, connections = { { 'dreisam', url = 'http://127.0.0.1:1', %s } } }"):format(bed.plugins, text))
      local out, code = bed.run { bed.neap, "check", folder .. "/neap.lua" }
      assert.not_equal(0, code, text)
      assert.truthy(out:find(why, 1, true), out)
    end
  end)

  describe("offers the calls as commands:", function()
    before_each(function()
      start_far()
      start_near()
      complete()
    end)
    it("register and token", function()
      local session = assert(command("register", { partner_uid = "u3", region = "EU" }))
      assert.equal(7200, session.expire_in)
      local again = assert(command("token", { open_id = session.open_id }))
      assert.equal(session.open_id, again.open_id)
      assert.not_equal(session.access_token, again.access_token)
      local _, why = command("token", { open_id = "user_0" })
      assert.truthy(why:find("1002", 1, true), why)
    end)
    it("user.glucose, device.info and device.glucose, of a user by partner_uid or open_id", function()
      local data = assert(command("user.glucose", { partner_uid = "u1", start_time = BEGAN, end_time = BEGAN + DAY }))
      assert.equal(4, #data.records)
      data = assert(command("user.glucose", { open_id = data.open_id, start_time = BEGAN, end_time = BEGAN + 2 * DAY }))
      assert.equal(8, #data.records)
      assert.equal(3, assert(command("device.info", { partner_uid = "u1", device_sn = "A1" })).status)
      assert.equal(200, #assert(command("device.glucose", { partner_uid = "u1", device_sn = "A1" })).records)
      assert.equal(4, #assert(command("device.glucose", { partner_uid = "u1", device_sn = "A1", end_time = BEGAN + DAY })).records)
      for _, c in ipairs { { "user.glucose", { partner_uid = "u1", start_time = BEGAN, end_time = BEGAN + 31 * DAY }, "1003" },
        { "device.info", { partner_uid = "u2", device_sn = "A1" }, "1002" }, { "device.info", { device_sn = "A1" }, "partner_uid" },
        { "device.info", { partner_uid = "u9", device_sn = "A1" }, "none of the settings' users" } } do
        local _, why = command(c[1], c[2])
        assert.truthy(why:find(c[3], 1, true), why)
      end
    end)
    it("with keep, the readings are stored too", function()
      make("A1", BEGAN - 2 * DAY, BEGAN - DAY, 6 * HOUR) -- from before `since`
      assert(command("device.glucose", { partner_uid = "u1", device_sn = "A1", end_time = BEGAN, keep = true }))
      complete()
    end)
  end)
end)
