-- plugins/vendors/dreisam.lua against the vendor's "Partner API Reference", endpoint by endpoint: what it serves.
package.path = "plugins/lib/?.lua;" .. package.path
local bed = require "bed"
local crypto = require "neap.crypto"
local json = require "neap.json"
local signature = require "dreisam.signature"
local time = require "neap.time"

-- A vendor of the spec's own: stores what it is posted. `owner` is a patient's number.
local MAKER = [[
local plugin = ...
plugin:serve { "POST /make", body = { readings = { "array", optional = true }, devices = { "array", optional = true } }, handler = function(req)
  for _, r in ipairs(req.body.readings or {}) do plugin:emit(r) end
  for _, d in ipairs(req.body.devices or {}) do
    if d.owner then d.owner = plugin.people:reference("patient:" .. d.owner) end
    plugin:device(d)
  end
  return 204
end }
]]

local DAY, MINUTE = 86400000, 60000
local REGISTER, TOKEN = "/partner/v1/user/register", "/partner/v1/user/token"
local GLUCOSE, INFO, HISTORY = "/partner/v1/user/glucose", "/partner/v1/device/info", "/partner/v1/device/glucose"
local AT = 1700000000000 -- the document's own moment

describe("dreisam", function()
  local host
  local count = 0

  setup(function()
    host = bed.host { plugins = bed.own_plugins { ["vendors/maker.lua"] = MAKER }, config = [[connections = {
      { "sinocare", name = "ward-3" },
      { "maker", name = "made" },
      { "maker", name = "hidden", mount = "/hidden" },
      { "sinocare", name = "ward-4", mount = "/four" },
      { "dreisam", name = "face", shows = { "ward-3", "ward-4", "made" } },
      { "dreisam", name = "brief", mount = "/brief", token_life = "1s", partner_id = "P-7" },
      { "dreisam", name = "signed", mount = "/signed", app_id = "app_123", app_secret = "test_secret" },
      { "dreisam", name = "issued", mount = "/issued" } }]] }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  -- A name of its own for each case: what stands in the store then is this case's.
  local function fresh(prefix)
    count = count + 1
    return prefix .. "-" .. count
  end

  local function escape(text)
    return (tostring(text):gsub("[^%w_.-]", function(c) return ("%%%02X"):format(c:byte()) end))
  end

  local function path_of(path, query)
    local parts = {}
    for k, v in pairs(query or {}) do parts[#parts + 1] = escape(k) .. "=" .. escape(v) end
    table.sort(parts)
    return path .. (#parts > 0 and "?" .. table.concat(parts, "&") or "")
  end

  -- A call, whose answer has the document's common format: its envelope, and HTTP status.
  local function call(method, path, options)
    options = options or {}
    local headers = {}
    for k, v in pairs(options.headers or {}) do headers[k] = v end
    if options.token then headers.authorization = "Bearer " .. options.token end
    local status, text = host:request(method, path_of(path, options.query), options.body, headers)
    local answer = assert(json.decode(text))
    assert.equal("integer", math.type(answer.code), text)
    assert.equal("string", type(answer.msg), text)
    assert.equal("table", type(answer.data), text)
    assert.is_false(json.is_array(answer.data), text)
    return answer, status, text
  end

  local function good(...)
    local answer, status, text = call(...)
    assert.equal(200, status)
    assert.equal(0, answer.code, answer.msg)
    assert.equal("ok", answer.msg)
    return answer.data, text
  end

  -- The call is answered by this code, under HTTP 200, with no data, and the message names this.
  local function refused(code, naming, ...)
    local answer, status = call(...)
    assert.equal(code, answer.code, answer.msg)
    assert.equal(200, status)
    assert.is_nil(next(answer.data))
    assert.truthy(answer.msg:find(naming, 1, true), answer.msg)
    return answer
  end

  local function register(partner_uid, prefix)
    return good("POST", (prefix or "") .. REGISTER, { body = { partner_uid = partner_uid } })
  end

  local function command(connection, name, args)
    local out, code = bed.run { bed.neap, "call", "--store", host.store, connection, name, "--args", json.encode(args or json.decode "{}") }
    return code == 0 and json.decode(out) or nil, out
  end

  local function make(devices, readings, prefix)
    local status, text = host:request("POST", (prefix or "") .. "/make", { devices = json.array(devices or {}), readings = json.array(readings or {}) })
    assert.equal(204, status, text)
  end

  -- A user with a device and n readings, 5 minutes apart.
  local function wearer(n, changes)
    local uid, sn = fresh "uid", fresh "SN"
    local device, readings = { device = sn, serial = sn, owner = uid, status = "active" }, {}
    for i = 1, n or 0 do
      readings[i] = { device = sn, metric = "glucose", value = 6.0, unit = "mmol/L", at = AT + (i - 1) * 5 * MINUTE, serial = i, trend = "flat" }
      for k, v in pairs(changes and changes(i) or {}) do readings[i][k] = v ~= json.null and v or nil end
    end
    make({ device }, readings)
    local session = register(uid)
    return { uid = uid, sn = sn, open_id = session.open_id, token = session.access_token }
  end

  local function history(user, query, sn)
    query = query or {}
    query.device_sn = sn or user.sn
    return good("GET", HISTORY, { token = user.token, query = query })
  end

  describe("the common format", function()
    it("is kept where there is no such endpoint, or not with this method", function()
      for _, c in ipairs { { "GET", REGISTER }, { "POST", GLUCOSE }, { "DELETE", TOKEN }, { "GET", "/partner/v1" }, { "GET", "/partner/v1/" },
        { "GET", "/partner/v1/user/glucose/more" }, { "POST", "/partner/v1/users/register" } } do
        local answer, status = call(c[1], c[2])
        assert.same({ 404, 404 }, { status, answer.code })
      end
      assert.equal(404, (host:request("GET", "/partner/v2/user/token")))
    end)
    it("is kept where a body is too large or its encoding unknown", function()
      local answer, status = call("POST", REGISTER, { body = json.encode { partner_uid = "x", more = ("x"):rep(5 << 20) } })
      assert.same({ 413, 1003 }, { status, answer.code })
      answer, status = call("POST", REGISTER, { body = "x", headers = { ["content-encoding"] = "br" } })
      assert.is_true(status >= 400, status)
      assert.equal(1003, answer.code)
    end)
  end)

  describe("authentication", function()
    local user
    setup(function() user = wearer(1) end)

    local function each_endpoint(fn)
      fn("GET", GLUCOSE, { open_id = user.open_id, start_time = AT, end_time = AT })
      fn("GET", INFO, { device_sn = user.sn })
      fn("GET", HISTORY, { device_sn = user.sn })
    end

    it("is by a bearer token, whose scheme may be written in any case", function()
      for _, scheme in ipairs { "Bearer ", "bearer ", "BEARER  " } do
        each_endpoint(function(method, path, query)
          good(method, path, { query = query, headers = { authorization = scheme .. user.token } })
        end)
      end
    end)
    it("without, with another scheme, or an unknown token gives 1001", function()
      local values = { "", "Bearer", "Bearer ", "Basic " .. user.token, user.token, "Bearer " .. user.token .. "0", "Bearer " .. user.token:upper() .. " x",
        "Bearer " .. user.token:sub(1, -2), "Bearer " .. ("x"):rep(4000), "Bearer user_1", "Bearer " .. user.open_id, "Bearer " .. user.token .. ", Bearer x" }
      each_endpoint(function(method, path, query)
        refused(1001, "token", method, path, { query = query })
        for _, value in ipairs(values) do refused(1001, "token", method, path, { query = query, headers = { authorization = value } }) end
        refused(1001, "token", method, path, { query = { access_token = user.token } })
      end)
    end)
    it("comes before anything else is said", function()
      refused(1001, "token", "GET", GLUCOSE)
      refused(1001, "token", "GET", INFO, { query = { device_sn = "" } })
    end)
    it("of another connection does not count", function()
      refused(1001, "token", "GET", "/issued" .. INFO, { token = user.token, query = { device_sn = user.sn } })
    end)
    it("ends when the token expires; token then gives another", function()
      local session = register(fresh "uid", "/brief")
      assert.equal(1, session.expire_in)
      local function asked() return call("GET", "/brief" .. INFO, { token = session.access_token, query = { device_sn = "x" } }) end
      assert.equal(1002, asked().code)
      bed.wait("the token to expire", function() return asked().code == 1001 end)
      session = good("GET", "/brief" .. TOKEN, { query = { open_id = session.open_id } })
      assert.equal(1002, asked().code)
    end)
    it("keeps no token, and no partner_uid, in the clear", function()
      local uid = fresh "uid-in-the-clear"
      local token = register(uid).access_token
      local dump = assert(io.popen(("sqlite3 -readonly -cmd '.timeout 10000' '%s' .dump"):format(host.store))):read "a"
      assert.is_nil(dump:find(uid, 1, true))
      assert.is_nil(dump:find(token, 1, true))
      assert.is_nil(dump:find(crypto.hex(uid):upper(), 1, true))
      assert.is_nil(host:read():find(uid, 1, true))
    end)
  end)

  describe("register", function()
    it("gives exactly open_id, access_token and expire_in, which is 7200", function()
      local data = register(fresh "uid")
      assert.equal(7200, data.expire_in)
      assert.equal("integer", math.type(data.expire_in))
      assert.truthy(#data.open_id > 0 and #data.access_token > 0)
      for k in pairs(data) do assert.truthy(({ open_id = 1, access_token = 1, expire_in = 1 })[k], k) end
    end)
    it("the same partner_uid again gives the same open_id, and a token more", function()
      local uid = fresh "uid"
      local first, second = register(uid), register(uid)
      assert.equal(first.open_id, second.open_id)
      assert.not_equal(first.access_token, second.access_token)
      for _, s in ipairs { first, second } do refused(1002, "device_sn", "GET", INFO, { token = s.access_token, query = { device_sn = "x" } }) end
      assert.not_equal(first.open_id, register(fresh "uid").open_id)
    end)
    it("also where many ask at once", function()
      local uid, ids = fresh "uid", {}
      local runs = {}
      for i = 1, 12 do
        runs[i] = bed.start { "curl", "-s", "-H", "content-type: application/json", "-d", json.encode { partner_uid = uid }, host.url .. REGISTER }
      end
      for _, r in ipairs(runs) do
        r:wait()
        ids[json.decode(r.output).data.open_id] = true
      end
      assert.is_nil(next(ids, (next(ids))))
    end)
    it("takes a partner_uid of 1 to 128 characters", function()
      for _, uid in ipairs { "a", ("x"):rep(127) .. count % 10, "用户-1", "a b/c%2F?&=+", '"<&>\\', "'; drop table kv" } do register(uid) end
    end)
    it("refuses another partner_uid with 1003, naming it", function()
      for _, uid in ipairs { "", ("x"):rep(129), 7, 7.5, true, json.null, json.decode "[]", json.decode "{}", "a\0b", "a\nb" } do
        refused(1003, "partner_uid", "POST", REGISTER, { body = { partner_uid = uid } })
      end
      refused(1003, "partner_uid", "POST", REGISTER, { body = "{}" , headers = { ["content-type"] = "application/json" } })
      refused(1003, "partner_uid", "POST", REGISTER, { body = { partner_id = "x" } })
    end)
    it("says nothing of what was sent as partner_uid", function()
      local answer = refused(1003, "partner_uid", "POST", REGISTER, { body = { partner_uid = "secret\nname" } })
      assert.is_nil(answer.msg:find("secret", 1, true))
    end)
    it("takes a region or none, and refuses another with 1003", function()
      local uid = fresh "uid"
      for _, region in ipairs { "CN", "EU", "us-west_1", json.null } do good("POST", REGISTER, { body = { partner_uid = uid, region = region } }) end
      for _, region in ipairs { "", 1, true, json.decode "[]", ("x"):rep(33), "C N", "C\0" } do
        refused(1003, "region", "POST", REGISTER, { body = { partner_uid = uid, region = region } })
      end
    end)
    it("refuses what is no JSON object with 1003", function()
      for _, body in ipairs { "", " ", "x", "{", "[]", "null", "1", '"x"', "{}{}", '{"partner_uid":"x",}', "\xFF", '{"partner_uid":"\xFF"}' } do
        refused(1003, "", "POST", REGISTER, { body = body, headers = { ["content-type"] = "application/json" } })
      end
      refused(1003, "", "POST", REGISTER)
    end)
  end)

  describe("token", function()
    it("gives exactly open_id, access_token and expire_in; tokens from before go on", function()
      local user = wearer(1)
      local data = good("GET", TOKEN, { query = { open_id = user.open_id } })
      assert.equal(user.open_id, data.open_id)
      assert.equal(7200, data.expire_in)
      for k in pairs(data) do assert.truthy(({ open_id = 1, access_token = 1, expire_in = 1 })[k], k) end
      for _, t in ipairs { user.token, data.access_token } do good("GET", INFO, { token = t, query = { device_sn = user.sn } }) end
    end)
    it("needs an open_id that there is", function()
      refused(1003, "open_id", "GET", TOKEN)
      for _, value in ipairs { "", ("x"):rep(129), "a\nb" } do refused(1003, "open_id", "GET", TOKEN, { query = { open_id = value } }) end
      for _, value in ipairs { "user_0", "x", ("x"):rep(128), "用户", "open/x", "\xFF" } do refused(1002, "open_id", "GET", TOKEN, { query = { open_id = value } }) end
    end)
    it("knows no open_id of another connection", function()
      refused(1002, "open_id", "GET", "/issued" .. TOKEN, { query = { open_id = register(fresh "uid").open_id } })
    end)
  end)

  describe("a partner's signature", function()
    local APP = { id = "app_123", secret = "test_secret" }

    local function headers_of(method, path, query, body, changes)
      local app = { id = APP.id, nonce = crypto.uuid(), timestamp = ("%d"):format(time.now()) }
      for k, v in pairs(changes or {}) do app[k] = v end
      return { ["X-App-Id"] = app.id, ["X-Nonce"] = app.nonce, ["X-Timestamp"] = app.timestamp,
        ["X-Signature"] = app.signature or signature.of(app.secret or APP.secret, method, path, app, query or {}, body or "") }
    end

    local function sign_up(uid, changes, prefix)
      local body = json.encode { partner_uid = uid }
      local headers = headers_of("POST", (prefix or "/signed") .. REGISTER, {}, body, changes)
      headers["content-type"] = "application/json"
      return "POST", (prefix or "/signed") .. REGISTER, { body = body, headers = headers }
    end

    it("is what it has to be for the known vector", function()
      local app, query = { id = "app_123", nonce = "abcd1234", timestamp = "1700000000000" }, { open_id = "user_xxx" }
      assert.equal("GET/partner/v1/user/tokenX-App-Idapp_123X-Nonceabcd1234X-Timestamp1700000000000open_iduser_xxx",
        signature.text("GET", TOKEN, app, query, ""))
      assert.equal("7f3ee189ec490bc4c8061c68cdbc0444303569b8afc810e12ae4f9eb86ab1584", signature.of("test_secret", "GET", TOKEN, app, query, ""))
    end)
    it("sorts by name in ASCII order, capitals first, and ends with the body", function()
      assert.equal("POST/pA1X-App-IdiX-NoncenX-Timestamptb2{}", signature.text("POST", "/p", { id = "i", nonce = "n", timestamp = "t" }, { b = 2, A = 1 }, "{}"))
    end)
    it("opens register and token", function()
      local data = good(sign_up(fresh "uid"))
      local query = { open_id = data.open_id }
      good("GET", "/signed" .. TOKEN, { query = query, headers = headers_of("GET", "/signed" .. TOKEN, query) })
      good("GET", "/signed" .. TOKEN, { query = query, headers = headers_of("GET", TOKEN, query) }) -- the path that the document has
    end)
    it("is over the first value of each parameter, decoded", function()
      local id = good(sign_up(fresh "uid")).open_id
      local query = { open_id = id, note = "a b&c=d/用" }
      local path = ("/signed%s?note=a+b%%26c%%3Dd%%2F%%E7%%94%%A8&open_id=%s&open_id=other"):format(TOKEN, id)
      good("GET", path, { headers = headers_of("GET", "/signed" .. TOKEN, query) })
    end)
    it("is needed where the connection has an app: without it, or with half of it, 1001", function()
      local data = good(sign_up(fresh "uid"))
      local query = { open_id = data.open_id }
      refused(1001, "X-App-Id", "POST", "/signed" .. REGISTER, { body = { partner_uid = "x" } })
      refused(1001, "X-App-Id", "GET", "/signed" .. TOKEN, { query = query })
      for _, name in ipairs { "X-App-Id", "X-Nonce", "X-Timestamp", "X-Signature" } do
        local headers = headers_of("GET", "/signed" .. TOKEN, query)
        headers[name] = nil
        refused(1001, "X-App-Id", "GET", "/signed" .. TOKEN, { query = query, headers = headers })
      end
      refused(1001, "X-App-Id", "GET", "/signed" .. TOKEN, { query = query, token = data.access_token }) -- a user's token is no app's
    end)
    it("is not needed for what has a user's token", function()
      local data = good(sign_up(fresh "uid"))
      refused(1002, "device_sn", "GET", "/signed" .. INFO, { token = data.access_token, query = { device_sn = "x" } })
    end)
    it("with another secret, app, method, path, parameter or body is refused", function()
      refused(1001, "X-Signature", sign_up(fresh "uid", { secret = "test_secret2" }))
      refused(1001, "X-Signature", sign_up(fresh "uid", { id = "app_124" }))
      refused(1001, "X-Signature", sign_up(fresh "uid", { id = "app/123" }))
      refused(1001, "X-Signature", sign_up(fresh "uid", { id = ("x"):rep(4000) }))
      refused(1001, "X-Signature", sign_up(fresh "uid", { id = "app_124", secret = "" }))
      local query = { open_id = "user_1" }
      for _, headers in ipairs { headers_of("POST", "/signed" .. TOKEN, query), headers_of("GET", "/signed" .. REGISTER, query),
        headers_of("GET", "/signed" .. TOKEN, { open_id = "user_2" }), headers_of("GET", "/signed" .. TOKEN, {}), headers_of("GET", "/signed" .. TOKEN, query, "x"),
        headers_of("GET", "/signed" .. TOKEN, { open_id = "user_1", more = 1 }) } do
        refused(1001, "X-Signature", "GET", "/signed" .. TOKEN, { query = query, headers = headers })
      end
      local method, path, options = sign_up(fresh "uid")
      options.body = options.body .. " "
      refused(1001, "X-Signature", method, path, options)
      local good_one = headers_of("GET", "/signed" .. TOKEN, query)["X-Signature"]
      for _, s in ipairs { "", "x", ("0"):rep(64), good_one:upper(), good_one .. "0", good_one:sub(1, 63) } do
        if s ~= "" then refused(1001, "X-", "GET", "/signed" .. TOKEN, { query = query, headers = headers_of("GET", "/signed" .. TOKEN, query, nil, { signature = s }) }) end
      end
    end)
    it("older than 5 minutes, or as far in the future, is refused; just short of that it is good", function()
      for _, off in ipairs { -5 * MINUTE + 20000, 5 * MINUTE - 20000 } do good(sign_up(fresh "uid", { timestamp = ("%d"):format(time.now() + off) })) end
      for _, off in ipairs { -5 * MINUTE - 1000, 5 * MINUTE + 20000, -DAY, 100 * DAY } do
        refused(1001, "X-Timestamp", sign_up(fresh "uid", { timestamp = ("%d"):format(time.now() + off) }))
      end
      for _, value in ipairs { "now", "-1", "1.7e12", ("%d"):format(time.now() // 1000), ("9"):rep(30), ("%d "):format(time.now()) .. "1", "0x18BCFE56800" } do
        refused(1001, "X-Timestamp", sign_up(fresh "uid", { timestamp = value }))
      end
    end)
    it("with a nonce that was used is refused, whatever it signs", function()
      local nonce, uid = crypto.uuid(), fresh "uid"
      local method, path, options = sign_up(uid, { nonce = nonce })
      good(method, path, options)
      refused(1001, "X-Nonce", method, path, options)
      refused(1001, "X-Nonce", sign_up(fresh "uid", { nonce = nonce }))
      good(sign_up(uid))
      for _, value in ipairs { "a b", "ü", ("x"):rep(129), "a/b" } do refused(1001, "X-Nonce", sign_up(fresh "uid", { nonce = value })) end
    end)
    it("that is wrong does not use up a nonce", function()
      local nonce = crypto.uuid()
      refused(1001, "X-Signature", sign_up(fresh "uid", { nonce = nonce, secret = "wrong" }))
      good(sign_up(fresh "uid", { nonce = nonce }))
    end)
    it("sent twice at once counts once", function()
      local _, path, options = sign_up(fresh "uid")
      local runs, codes = {}, {}
      for i = 1, 8 do
        local argv = { "curl", "-s", "-d", options.body, host.url .. path }
        for k, v in pairs(options.headers) do argv[#argv + 1], argv[#argv + 2] = "-H", k .. ": " .. v end
        runs[i] = bed.start(argv)
      end
      for _, r in ipairs(runs) do
        r:wait()
        local code = json.decode(r.output).code
        codes[code] = (codes[code] or 0) + 1
      end
      assert.same({ [0] = 1, [1001] = 7 }, codes)
    end)

    describe("of an app that was issued", function()
      it("is needed from then on, and stays needed when the app is revoked", function()
        local session = register(fresh "uid", "/issued")
        local app = assert(command("issued", "keys.issue"))
        assert.truthy(app.app_id:match "^app_%x+$" and #app.app_secret == 64)
        refused(1001, "X-App-Id", "POST", "/issued" .. REGISTER, { body = { partner_uid = "x" } })
        local function with(a) return { id = a.app_id, secret = a.app_secret } end
        good(sign_up(fresh "uid", with(app), "/issued"))
        local query = { open_id = session.open_id }
        good("GET", "/issued" .. TOKEN, { query = query, headers = headers_of("GET", "/issued" .. TOKEN, query, "", with(app)) })

        local renewed = assert(command("issued", "keys.issue", { app_id = app.app_id }))
        refused(1001, "X-Signature", sign_up(fresh "uid", with(app), "/issued"))
        good(sign_up(fresh "uid", with(renewed), "/issued"))
        local list = command("issued", "keys.list").apps
        assert.same({ app.app_id }, { list[1].app_id, list[2] and list[2].app_id })
        assert.is_nil(json.encode(list):find(renewed.app_secret, 1, true))

        assert(command("issued", "keys.revoke", { app_id = app.app_id }))
        refused(1001, "X-Signature", sign_up(fresh "uid", with(renewed), "/issued"))
        refused(1001, "X-App-Id", "POST", "/issued" .. REGISTER, { body = { partner_uid = "x" } })
        local _, why = command("issued", "keys.revoke", { app_id = app.app_id })
        assert.truthy(why:find("was not issued", 1, true), why)
        _, why = command("signed", "keys.issue", { app_id = "app_123" })
        assert.truthy(why:find("settings", 1, true), why)
      end)
    end)
  end)

  describe("user/glucose", function()
    local user
    setup(function() user = wearer(12) end)
    local function ask(query, token)
      local whole = { open_id = user.open_id, start_time = AT, end_time = AT + DAY }
      for k, v in pairs(query or {}) do whole[k] = v ~= json.null and v or nil end
      return "GET", GLUCOSE, { token = token or user.token, query = whole }
    end

    it("gives open_id and records of exactly the document's members and types", function()
      local data, text = good(ask())
      assert.equal(user.open_id, data.open_id)
      assert.is_true(json.is_array(data.records))
      assert.equal(12, #data.records)
      local row = host:sql(("select received from readings where device = '%s' limit 1"):format(user.sn))[1]
      for i, r in ipairs(data.records) do
        assert.same({ app_id = "face", device_sn = user.sn, open_id = user.open_id, type = 1, value = 6.0, trend = 1, package_num = i,
          measured_at = AT + (i - 1) * 5 * MINUTE, app_received_at = row.received }, r)
        assert.equal("float", math.type(r.value))
        for _, name in ipairs { "type", "trend", "package_num", "measured_at", "app_received_at" } do assert.equal("integer", math.type(r[name]), name) end
      end
      assert.truthy(text:find('"value":6.0', 1, true))
    end)
    it("takes start_time and end_time as included", function()
      local function n(from, to) return #good(ask { start_time = from, end_time = to }).records end
      assert.equal(1, n(AT, AT))
      assert.equal(0, n(AT + 1, AT + 5 * MINUTE - 1))
      assert.equal(2, n(AT, AT + 5 * MINUTE))
      assert.equal(1, n(AT + 1, AT + 5 * MINUTE))
      assert.equal(0, n(0, 1))
    end)
    it("without any record is an empty array", function()
      local data, text = good(ask { start_time = 1, end_time = 2 })
      assert.same({}, data.records)
      assert.truthy(text:find('"records":[]', 1, true), text)
    end)
    it("spans exactly 30 days, and not a ms more", function()
      for _, from in ipairs { 0, AT, AT - 30 * DAY } do
        good(ask { start_time = from, end_time = from + 30 * DAY })
        refused(1003, "end_time", ask { start_time = from, end_time = from + 30 * DAY + 1 })
      end
      refused(1003, "end_time", ask { start_time = 0, end_time = 253402300799999 })
    end)
    it("is refused with a reversed range", function()
      refused(1003, "end_time", ask { start_time = AT, end_time = AT - 1 })
      refused(1003, "end_time", ask { start_time = AT + 100 * DAY, end_time = AT })
    end)
    it("is refused with 1003 where a parameter is absent, or is not what it has to be, naming it", function()
      for _, name in ipairs { "open_id", "start_time", "end_time" } do
        refused(1003, name, ask { [name] = json.null })
        refused(1003, name, ask { [name] = "" })
      end
      for _, name in ipairs { "start_time", "end_time" } do
        for _, value in ipairs { "x", "1.5", "1e12", "-1", "0x10", " 1", "1 ", "+1", "9223372036854775808", ("9"):rep(300), "253402300800000", "null", "2023-11-14", "NaN" } do
          refused(1003, name, ask { [name] = value })
        end
      end
      for _, value in ipairs { ("x"):rep(129), "a\nb", "\0" } do refused(1003, "open_id", ask { open_id = value }) end
    end)
    it("of another user is 1002, be there one or not", function()
      local other = register(fresh "uid")
      local a = refused(1002, "open_id", ask { open_id = other.open_id })
      local b = refused(1002, "open_id", ask { open_id = "user_00" })
      assert.equal(a.msg, b.msg)
      refused(1002, "open_id", ask({}, other.access_token))
    end)
    it("with a parameter twice counts the first", function()
      local data = good("GET", ("%s?open_id=%s&start_time=%d&end_time=%d&start_time=x&open_id=y"):format(GLUCOSE, user.open_id, AT, AT), { token = user.token })
      assert.equal(1, #data.records)
    end)
    it("is of all devices of the user, in order of time", function()
      local second, third = fresh "SN", fresh "SN"
      local readings = {}
      for i = 1, 2500 do readings[i] = { device = second, metric = "glucose", value = 5.0, unit = "mmol/L", at = AT + DAY * 2 + i * 1000, trend = "flat" } end
      for i = 1, 1200 do readings[#readings + 1] = { device = third, metric = "glucose", value = 7.0, unit = "mmol/L", at = AT + DAY * 2 + i * 2500 + 1, trend = "flat" } end
      make({ { device = second, owner = user.uid }, { device = third, owner = user.uid } }, readings)
      local records = good(ask { start_time = AT, end_time = AT + 3 * DAY }).records
      assert.equal(12 + 2500 + 1200, #records)
      local last, seen = 0, {}
      for _, r in ipairs(records) do
        assert.is_true(r.measured_at >= last)
        last = r.measured_at
        seen[r.device_sn] = (seen[r.device_sn] or 0) + 1
      end
      assert.same({ [user.sn] = 12, [second] = 2500, [third] = 1200 }, seen)
    end)
  end)

  describe("a record's", function()
    it("value is in mmol/L, whatever the reading's unit", function()
      local user = wearer(3, function(i) return ({ { value = 101, unit = "mg/dL" }, { value = 7 }, { value = 5.65 } })[i] end)
      local records, text = history(user).records, select(2, history(user))
      assert.is_true(math.abs(101 / 18.01559 - records[1].value) < 1e-9)
      assert.equal(7.0, records[2].value)
      assert.equal(5.65, records[3].value)
      for _, r in ipairs(records) do assert.equal("float", math.type(r.value)) end
      assert.truthy(text:find('"value":7.0', 1, true))
    end)
    it("trend is the reading's own", function()
      local names = { "flat", "rising_slowly", "falling_slowly", "rising_fast", "falling_fast" }
      local user = wearer(5, function(i) return { trend = names[i] } end)
      local got = {}
      for i, r in ipairs(history(user).records) do got[i] = r.trend end
      assert.same({ 1, 5, 10, 15, 20 }, got)
    end)
    it("trend is made of the past 15 minutes where the reading has none, and absent where they say nothing", function()
      local values = { 6.0, 6.1, 6.9, 8.6, 8.6, 8.5, 7.6, 5.6 } -- 5 minutes apart
      local user = wearer(#values, function(i) return { trend = json.null, value = values[i] } end)
      local got = {}
      for i, r in ipairs(history(user).records) do got[i] = r.trend or 0 end
      assert.same({ 0, 1, 5, 15, 15, 5, 10, 20 }, got)
      got = {}
      for i, r in ipairs(history(user, { start_time = AT + 15 * MINUTE }).records) do got[i] = r.trend or 0 end
      assert.same({ 15, 15, 5, 10, 20 }, got) -- the same, wherever the range begins
    end)
    it("trend is not made up over a gap, or of less than 5 minutes", function()
      local user = wearer(3, function(i) return { trend = json.null, at = AT + ({ 0, 4, 30 })[i] * MINUTE, value = 5.0 + i } end)
      local _, text = history(user)
      assert.is_nil(text:find("trend", 1, true), text)
    end)
    it("package_num is absent where the sensor counts nothing", function()
      local user = wearer(1, function() return { serial = json.null } end)
      assert.is_nil(history(user).records[1].package_num)
    end)
    it("is left out where it is no glucose, in no unit of it, or not valid", function()
      local user = wearer(7, function(i)
        return ({ { quality = "warmup" }, { quality = "invalid" }, { metric = "temp", unit = "Cel" }, { unit = "g" }, { unit = json.null }, { value = "HI" }, {} })[i]
      end)
      local records = history(user).records
      assert.equal(1, #records)
      assert.equal(7, records[1].package_num)
    end)
  end)

  describe("device/info", function()
    it("gives exactly the document's members", function()
      local user = wearer(3)
      local data = good("GET", INFO, { token = user.token, query = { device_sn = user.sn } })
      assert.same({ device_sn = user.sn, status = 2, bound_at = json.null, activated_at = AT, estimated_end_at = json.null, ended_at = json.null,
        partner_id = "face", app_id = "face", open_id = user.open_id }, data)
      assert.equal("integer", math.type(data.status))
    end)
    it("status is 0 unbound, 1 bound, 2 activated, also while it warms up, 3 ended", function()
      for status, number in pairs { unbound = 0, bound = 1, warming = 2, active = 2, ended = 3 } do
        local user = wearer(0)
        make { { device = user.sn, owner = user.uid, status = status } }
        assert.equal(number, good("GET", INFO, { token = user.token, query = { device_sn = user.sn } }).status)
      end
    end)
    it("status of a device of which none is told is 1, and 2 once it has readings", function()
      local uid, sn = fresh "uid", fresh "SN"
      make { { device = sn, owner = uid } }
      local token = register(uid).access_token
      local function status() return good("GET", INFO, { token = token, query = { device_sn = sn } }).status end
      assert.equal(1, status())
      make(nil, { { device = sn, metric = "glucose", value = 6.0, unit = "mmol/L", at = AT } })
      assert.equal(2, status())
    end)
    it("times are those that are known", function()
      local user = wearer(2)
      make { { device = user.sn, status = "ended", extra = { bound_at = AT - 1, activated_at = AT, estimated_end_at = AT + 14 * DAY, ended_at = AT + 13 * DAY } } }
      local data = good("GET", INFO, { token = user.token, query = { device_sn = user.sn } })
      assert.same({ 3, AT - 1, AT, AT + 14 * DAY, AT + 13 * DAY }, { data.status, data.bound_at, data.activated_at, data.estimated_end_at, data.ended_at })
      for _, name in ipairs { "bound_at", "activated_at", "estimated_end_at", "ended_at" } do assert.equal("integer", math.type(data[name])) end
      user = wearer(2)
      make { { device = user.sn, status = "ended", extra = { life_days = 8 } } }
      data = good("GET", INFO, { token = user.token, query = { device_sn = user.sn } })
      assert.same({ AT, AT + 8 * DAY, AT + 5 * MINUTE }, { data.activated_at, data.estimated_end_at, data.ended_at })
    end)
    it("partner_id is a setting", function()
      local sn = fresh "SN"
      local session = register(fresh "uid", "/brief")
      assert(command("brief", "bind", { device_sn = sn, partner_uid = "uid-" .. count }))
      session = good("GET", "/brief" .. TOKEN, { query = { open_id = session.open_id } })
      local data = good("GET", "/brief" .. INFO, { token = session.access_token, query = { device_sn = sn } })
      assert.same({ "P-7", 1 }, { data.partner_id, data.status })
    end)
    it("needs a device_sn, of this user's", function()
      local user, other = wearer(1), wearer(1)
      refused(1003, "device_sn", "GET", INFO, { token = user.token })
      for _, value in ipairs { "", ("x"):rep(129), "a\nb", "\0" } do refused(1003, "device_sn", "GET", INFO, { token = user.token, query = { device_sn = value } }) end
      local said = {}
      for _, value in ipairs { other.sn, "nothing", ("x"):rep(128), "\xFF", "%", "*" } do
        said[refused(1002, "device_sn", "GET", INFO, { token = user.token, query = { device_sn = value } }).msg] = true
      end
      assert.is_nil(next(said, (next(said)))) -- of a device that there is, and one that is not, the same is said
    end)
    it("of a connection that is not shown is 1002", function()
      local uid, sn = fresh "uid", fresh "SN"
      make({ { device = sn, owner = uid } }, {}, "/hidden")
      refused(1002, "device_sn", "GET", INFO, { token = register(uid).access_token, query = { device_sn = sn } })
    end)
  end)

  describe("device/glucose", function()
    local user
    setup(function() user = wearer(20) end)
    it("gives all history without times, in order", function()
      local data = history(user)
      assert.equal(user.open_id, data.open_id)
      assert.equal(20, #data.records)
      for i, r in ipairs(data.records) do assert.equal(i, r.package_num) end
    end)
    it("takes one time, or both, as included, over any span", function()
      local function n(query) return #history(user, query).records end
      assert.equal(20, n { start_time = AT })
      assert.equal(19, n { start_time = AT + 1 })
      assert.equal(1, n { end_time = AT })
      assert.equal(0, n { end_time = AT - 1 })
      assert.equal(20, n { start_time = 0, end_time = 253402300799999 })
      assert.equal(2, n { start_time = AT + 5 * MINUTE, end_time = AT + 10 * MINUTE })
      assert.equal(1, n { start_time = AT, end_time = AT })
    end)
    it("is refused with 1003 where a range is reversed, or a parameter is not what it has to be", function()
      local function ask(query)
        query.device_sn = query.device_sn or user.sn
        return "GET", HISTORY, { token = user.token, query = query }
      end
      refused(1003, "end_time", ask { start_time = AT, end_time = AT - 1 })
      for _, name in ipairs { "start_time", "end_time" } do
        for _, value in ipairs { "", "x", "1.5", "-1", "1e3", "253402300800000", ("9"):rep(40) } do refused(1003, name, ask { [name] = value }) end
      end
      refused(1003, "device_sn", "GET", HISTORY, { token = user.token })
      for _, value in ipairs { "", ("x"):rep(129), "a\nb" } do refused(1003, "device_sn", ask { device_sn = value }) end
    end)
    it("of a device that is not this user's is 1002, be there one or not", function()
      local other = wearer(1)
      for _, sn in ipairs { other.sn, "nothing" } do refused(1002, "device_sn", "GET", HISTORY, { token = user.token, query = { device_sn = sn } }) end
      refused(1002, "device_sn", "GET", HISTORY, { token = other.token, query = { device_sn = user.sn } })
    end)
  end)

  describe("a device", function()
    it("that Sinocare's cloud has pushed for is its patient's", function()
      local sn, uid = fresh "SN", fresh "patient"
      for i = 1, 4 do
        local status, answer = host:json("POST", "/sinocare/push", bed.push { deviceSn = sn, testId = fresh "t", patientId = uid, serialNo = i,
          testTime = ("2021-11-02 12:%02d:33"):format(30 + 3 * i), testResult = ("%.1f"):format(5.5 + i / 10) })
        assert.same({ 200, 0 }, { status, answer.code })
      end
      local session, other = register(uid), register(fresh "patient")
      local data = good("GET", HISTORY, { token = session.access_token, query = { device_sn = sn } })
      assert.equal(4, #data.records)
      local first = data.records[1]
      assert.same({ sn, 5.6, 1, time.parse("2021-11-02 12:33:33", "Asia/Shanghai") }, { first.device_sn, first.value, first.package_num, first.measured_at })
      assert.same({ false, false, 1, 1 }, { first.trend or false, data.records[2].trend or false, data.records[3].trend, data.records[4].trend })
      local info = good("GET", INFO, { token = session.access_token, query = { device_sn = sn } })
      assert.same({ 2, first.measured_at, first.measured_at + 8 * DAY }, { info.status, info.activated_at, info.estimated_end_at })
      local all = good("GET", GLUCOSE, { token = session.access_token, query = { open_id = session.open_id, start_time = first.measured_at, end_time = first.measured_at + DAY } })
      assert.equal(4, #all.records)
      for _, path in ipairs { HISTORY, INFO } do refused(1002, "device_sn", "GET", path, { token = other.access_token, query = { device_sn = sn } }) end
    end)
    it("that moved from one ward to another is the patient's whom the second one knows", function()
      local sn, uid = fresh "SN", fresh "patient"
      host:json("POST", "/sinocare/push", bed.push { deviceSn = sn, testId = fresh "t", patientId = "", testTime = "2021-11-02 12:30:33" })
      host:json("POST", "/four/sinocare/push", bed.push { deviceSn = sn, testId = fresh "t", patientId = uid })
      local session = register(uid)
      assert.equal(2, #good("GET", HISTORY, { token = session.access_token, query = { device_sn = sn } }).records)
      refused(1002, "device_sn", "GET", HISTORY, { token = register(fresh "uid").access_token, query = { device_sn = sn } })
    end)
    it("of nobody's is given to a user by a command, and taken back by another", function()
      local sn, uid = fresh "SN", fresh "uid"
      host:json("POST", "/sinocare/push", bed.push { deviceSn = sn, testId = fresh "t" })
      local session = register(uid)
      local function ask(path) return "GET", path, { token = session.access_token, query = { device_sn = sn } } end
      refused(1002, "device_sn", ask(HISTORY))
      assert.same({ device_sn = sn, vendor = "sinocare" }, command("face", "bind", { device_sn = sn, partner_uid = uid }))
      assert.equal(1, #good(ask(HISTORY)).records)
      local info = good(ask(INFO))
      assert.equal(2, info.status)
      assert.is_true(math.abs(info.bound_at - time.now()) < 10 * MINUTE)
      assert.equal(1, #good("GET", GLUCOSE, { token = session.access_token, query = { open_id = session.open_id, start_time = 1635800000000, end_time = 1635900000000 } }).records)
      assert(command("face", "unbind", { device_sn = sn }))
      assert.equal(0, good(ask(INFO)).status)
      local second = register(fresh "uid")
      assert(command("face", "bind", { device_sn = sn, partner_uid = "uid-" .. count }))
      refused(1002, "device_sn", ask(INFO))
      assert.equal(0, #good("GET", GLUCOSE, { token = session.access_token, query = { open_id = session.open_id, start_time = 1635800000000, end_time = 1635900000000 } }).records)
      good("GET", INFO, { token = second.access_token, query = { device_sn = sn } })
      local _, why = command("face", "unbind", { device_sn = fresh "SN" })
      assert.truthy(why:find("no such device is bound", 1, true), why)
    end)
    it("that two vendors have by one number is bound by naming the vendor", function()
      local sn, uid = fresh "SN", fresh "uid"
      host:json("POST", "/sinocare/push", bed.push { deviceSn = sn, testId = fresh "t" })
      make({ { device = sn } }, { { device = sn, metric = "glucose", value = 9.0, unit = "mmol/L", at = AT } })
      local _, why = command("face", "bind", { device_sn = sn, partner_uid = uid })
      assert.truthy(why:find("vendor", 1, true), why)
      assert(command("face", "bind", { device_sn = sn, partner_uid = uid, vendor = "maker" }))
      local data = good("GET", HISTORY, { token = register(uid).access_token, query = { device_sn = sn } })
      assert.equal(1, #data.records)
      assert.equal(9.0, data.records[1].value)
    end)
  end)
end)

describe("dreisam's sandbox", function()
  it("has users and sensors with weeks of readings, and tells how to call it", function()
    local host = bed.host { config = [[connections = { { "dreisam", name = "sandbox" } }]] }
    local made, code = bed.run { bed.neap, "call", "--store", host.store, "sandbox", "sandbox", "url=" .. host.url }
    assert.equal(0, code, made)
    local answer = json.decode(made)
    local s = answer.credentials
    s.url, s.example = host.url, answer.example
    for _, name in ipairs { "url", "app_id", "app_secret", "open_id", "access_token", "device_sn", "example" } do assert.equal("string", type(s[name]), name) end
    local out
    out, code = bed.run { "sh", "-c", (s.example:gsub("^curl", "curl -s")) }
    assert.equal(0, code, out)
    answer = json.decode(out)
    assert.equal(0, answer.code)
    assert.is_true(#answer.data.records > 1000)
    local port = tonumber(s.url:match ":(%d+)")
    local app = { id = s.app_id, nonce = crypto.uuid(), timestamp = ("%d"):format(time.now()) }
    local _, text = bed.request(port, "GET", TOKEN .. "?open_id=" .. s.open_id, nil, { ["X-App-Id"] = app.id, ["X-Nonce"] = app.nonce,
      ["X-Timestamp"] = app.timestamp, ["X-Signature"] = signature.of(s.app_secret, "GET", TOKEN, app, { open_id = s.open_id }, "") })
    local session = json.decode(text)
    assert.equal(0, session.code, text)
    local to = time.now()
    _, text = bed.request(port, "GET", ("%s?open_id=%s&start_time=%d&end_time=%d"):format(GLUCOSE, s.open_id, to - 30 * DAY, to), nil,
      { authorization = "Bearer " .. session.data.access_token })
    local sensors = {}
    for _, r in ipairs(json.decode(text).data.records) do
      assert.is_true(r.value > 1 and r.value < 30)
      sensors[r.device_sn] = true
    end
    assert.truthy(next(sensors, (next(sensors)))) -- two of them
    host:stop()
  end)
end)
