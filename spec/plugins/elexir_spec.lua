-- plugins/vendors/elexir.lua against the vendor's document (API 가이드, Elexir Legacy, 기기, 2025-04-23), from its top to its end.
package.path = "./spec/plugins/?.lua;" .. package.path
local bed = require "bed"
local elexir = require "elexir_bed"
local json = require "neap.json"
local time = require "neap.time"

local PREFIXES = { "/api/v1/legacy/", "/api/v1/elexir/", "/api/v1/addnox/" }
local PASSWORD = "correct horse"
local LOG_FIELDS = { "user_id", "model_id", "device_id", "fversion", "logdate", "mode", "finish_flag", "last_intensity",
  "treatment_time", "event_num", "log_data" }
local TEMP_FIELDS = { "user_id", "model_id", "device_id", "unique_id", "finish_flag", "start_date", "last_date" }

describe("elexir", function()
  local host, ana, child, eve, ana_token, eve_token
  local count = 0

  local function call(name, args, fails) return elexir.call(host, "elexir", name, args, fails) end
  local function request(method, path, options) return elexir.request(host, method, path, options) end
  local function sql(query, ...) return host:sql(query:format(...)) end

  -- A device of its own for each case: { id, unique_id, serial_code }, bound to ana unless `free`.
  local function device(free, token)
    count = count + 1
    local d = call("device.add", { unique_id = ("27003800%016d"):format(count), serial_code = "SC-" .. count })
    if not free then
      local status, _, text = request("POST", "device/set-my-device", { token = token or ana_token,
        query = { unique_id = d.unique_id, serial_code = d.serial_code } })
      assert.equal(200, status, text)
    end
    return d
  end

  local function refused(status, detail, method, path, options)
    local got, answer, text, fields = request(method, path, options)
    assert.equal(status, got, text)
    assert.same({ detail = detail }, answer)
    return fields
  end

  -- A validation error, as FastAPI words it.
  local function invalid(loc, method, path, options)
    local got, answer, text = request(method, path, options)
    assert.equal(422, got, text)
    assert.equal(1, #answer.detail, text)
    local d = answer.detail[1]
    assert.same(loc, d.loc, text)
    assert.equal("string", type(d.msg))
    assert.are_not.equal("", d.msg)
    assert.equal("string", type(d.type))
    return d
  end

  setup(function()
    host = bed.host { config = [[connections = {
      { "elexir" },
      { "elexir", name = "seoul", mount = "/seoul", zone = "Asia/Seoul" } }]] }
    ana = call("keys.issue", { email = "ana@example.org", password = PASSWORD })
    child = call("keys.issue", { email = "ben@example.org", password = PASSWORD, parent = ana.id })
    eve = call("keys.issue", { email = "eve@example.org", password = PASSWORD })
    ana_token = elexir.sign_in(host, "ana@example.org", PASSWORD).access_token
    eve_token = elexir.sign_in(host, "eve@example.org", PASSWORD).access_token
  end)
  teardown(function() host:stop() end)

  describe("signing in", function()
    it("takes a form with username and password, or email, and gives tokens for 15 minutes and 14 days", function()
      for _, name in ipairs { "username", "email" } do
        local status, t = request("POST", "auth/signin", { form = { [name] = "ana@example.org", password = PASSWORD, grant_type = "password" } })
        assert.equal(200, status)
        assert.equal("bearer", t.token_type)
        assert.equal(900, t.expires_in)
        assert.equal(1209600, t.refresh_expires_in)
        assert.equal(200, (request("GET", "device/my-devices", { token = t.access_token })))
      end
    end)
    it("takes JSON too, an address in either case, under each prefix", function()
      for _, prefix in ipairs(PREFIXES) do
        local status, t = request("POST", "auth/signin", { prefix = prefix, body = { email = "ANA@example.org", password = PASSWORD } })
        assert.equal(200, status)
        assert.equal(200, (request("GET", "device/my-devices", { prefix = prefix, token = t.access_token })))
      end
    end)
    it("takes a multipart form, which some apps make of every form", function()
      local out = bed.run { "curl", "-s", "-F", "username=ana@example.org", "-F", "password=" .. PASSWORD, host.url .. "/api/v1/legacy/auth/signin" }
      assert.equal(200, (request("GET", "device/my-devices", { token = json.decode(out).access_token })))
    end)
    it("with the wrong password is 401, as somebody unknown 403", function()
      local fields = refused(401, "Incorrect password", "POST", "auth/signin", { form = { username = "ana@example.org", password = "Correct horse" } })
      assert.equal("Bearer", fields["www-authenticate"])
      refused(401, "Incorrect password", "POST", "auth/signin", { form = { username = "ana@example.org", password = "" } })
      refused(403, "Not Found User", "POST", "auth/signin", { form = { username = "nobody@example.org", password = PASSWORD } })
      refused(403, "Not Found User", "POST", "auth/signin", { form = { username = "x", password = PASSWORD } })
      assert.equal(200, (request("POST", "auth/signin", { form = { username = "ana@example.org", password = PASSWORD } })))
    end)
    it("without a field, or with one that is no text, is 422", function()
      invalid({ "body", "email" }, "POST", "auth/signin", { form = { password = PASSWORD } })
      invalid({ "body", "password" }, "POST", "auth/signin", { form = { username = "ana@example.org" } })
      for _, value in ipairs { 1, true, { "x" }, json.array {} } do
        invalid({ "body", "password" }, "POST", "auth/signin", { body = { email = "ana@example.org", password = value } })
        invalid({ "body", "email" }, "POST", "auth/signin", { body = { email = value, password = PASSWORD } })
      end
      invalid({ "body", "username" }, "POST", "auth/signin", { form = { username = ("x"):rep(255), password = PASSWORD } })
      invalid({ "body", "password" }, "POST", "auth/signin", { form = { username = "ana@example.org", password = ("x"):rep(513) } })
      invalid({ "body" }, "POST", "auth/signin", { body = "{" })
      invalid({ "body" }, "POST", "auth/signin", { body = "[1]" })
    end)
    it("is slowed down for an account after five wrong passwords, and not for others", function()
      call("keys.issue", { email = "slow@example.org", password = PASSWORD })
      local wrong = { form = { username = "slow@example.org", password = "wrong password" } }
      for _ = 1, 5 do refused(401, "Incorrect password", "POST", "auth/signin", wrong) end
      local fields = refused(429, "Too Many Requests", "POST", "auth/signin", wrong)
      assert.truthy(tonumber(fields["retry-after"]) >= 1)
      wrong.form.password = PASSWORD
      refused(429, "Too Many Requests", "POST", "auth/signin", wrong)
      elexir.sign_in(host, "ana@example.org", PASSWORD)
      bed.wait("the account to be free again", function() return (request("POST", "auth/signin", wrong)) == 200 end)
      wrong.form.password = "wrong again"
      refused(401, "Incorrect password", "POST", "auth/signin", wrong) -- counted from nothing again
    end)
    it("leaves no token, password or address in the store as text", function()
      local t = elexir.sign_in(host, "ana@example.org", PASSWORD)
      refused(401, "Incorrect password", "POST", "auth/signin", { form = { username = "ana@example.org", password = "my secret guess" } })
      refused(403, "Not Found User", "POST", "auth/signin", { form = { username = "anna@example.org", password = "another guess" } })
      elexir.sign_in(host, "ana@example.org", PASSWORD)
      local out, code = bed.run { "sh", "-c", ("cat '%s' '%s-wal'"):format(host.store, host.store) }
      assert.equal(0, code)
      for _, text in ipairs { t.access_token, t.refresh_token, PASSWORD, "my secret guess", "another guess", "ana@example.org",
        "anna@example.org" } do
        assert.is_nil(out:find(text, 1, true), text .. " is in the store")
        host:read()
        assert.is_nil(host.output:find(text, 1, true), text .. " is in the log")
      end
    end)
    it("gives tokens that expire", function()
      local before = time.now()
      elexir.sign_in(host, "ana@example.org", PASSWORD)
      local rows = sql("select key, expires from kv where space = 'plugin:elexir' and expires >= %d", before + 900000)
      local seen = {}
      for _, row in ipairs(rows) do
        local kind = row.key:match "^(%a+):%x+$"
        if kind then
          seen[kind] = true
          local left = row.expires - before
          assert.is_true(kind == "access" and left < 960000 or kind == "refresh" and left >= 1209600000 - 60000 and left < 1209660000,
            row.key .. " " .. left)
        end
      end
      assert.same({ access = true, refresh = true }, seen)
    end)
  end)

  describe("refreshing", function()
    local function refresh(text, how)
      local options = how == "form" and { form = { refresh_token = text } } or how == "query" and { query = { refresh_token = text } }
        or how == "header" and { token = text } or { body = { refresh_token = text } }
      return request("POST", "auth/refresh-token", options)
    end
    it("gives new tokens for a refresh token, as JSON, a form, in the query or as bearer, under each prefix", function()
      local t = elexir.sign_in(host, "ana@example.org", PASSWORD)
      for _, how in ipairs { "json", "form", "query", "header" } do
        local status, new, text = refresh(t.refresh_token, how)
        assert.equal(200, status, text)
        assert.are_not.equal(t.refresh_token, new.refresh_token)
        assert.are_not.equal(t.access_token, new.access_token)
        assert.equal(900, new.expires_in)
        assert.equal(200, (request("GET", "device/my-devices", { token = new.access_token })))
        t = new
      end
      for _, prefix in ipairs(PREFIXES) do
        local status, new = request("POST", "auth/refresh-token", { prefix = prefix, body = { refresh_token = t.refresh_token } })
        assert.equal(200, status)
        t = new
      end
    end)
    it("with one that does not match revokes the stored one", function()
      local first = elexir.sign_in(host, "eve@example.org", PASSWORD)
      local _, second = refresh(first.refresh_token)
      refused(401, "Could not validate credentials", "POST", "auth/refresh-token", { body = { refresh_token = first.refresh_token } })
      refused(401, "Could not validate credentials", "POST", "auth/refresh-token", { body = { refresh_token = second.refresh_token } })
    end)
    it("with one from before another sign-in does not match", function()
      local first, second = elexir.sign_in(host, "eve@example.org", PASSWORD), elexir.sign_in(host, "eve@example.org", PASSWORD)
      assert.equal(401, (refresh(first.refresh_token)))
      assert.equal(401, (refresh(second.refresh_token)))
    end)
    it("with an unknown one is 401, and touches nobody's", function()
      local t = elexir.sign_in(host, "eve@example.org", PASSWORD)
      for _, text in ipairs { "x", ("0"):rep(32), t.access_token } do
        refused(401, "Could not validate credentials", "POST", "auth/refresh-token", { body = { refresh_token = text } })
      end
      assert.equal(200, (refresh(t.refresh_token)))
    end)
    it("without one, or with one that is no text, is 422", function()
      invalid({ "body", "refresh_token" }, "POST", "auth/refresh-token")
      invalid({ "body", "refresh_token" }, "POST", "auth/refresh-token", { body = {} })
      invalid({ "body", "refresh_token" }, "POST", "auth/refresh-token", { body = { refresh_token = 5 } })
      invalid({ "body", "refresh_token" }, "POST", "auth/refresh-token", { body = { refresh_token = ("x"):rep(513) } })
    end)
  end)

  describe("accounts", function()
    it("are issued with a password, or with one that is made and shown once", function()
      local made = call("keys.issue", { email = "made@example.org" })
      assert.truthy(#made.password >= 16)
      elexir.sign_in(host, "made@example.org", made.password)
      assert.truthy(call("keys.issue", { email = "MADE@example.org" }, true):find("there is an account", 1, true))
      assert.truthy(call("keys.issue", { email = "other@example.org", parent = 999999 }, true):find("no account", 1, true))
      for _, email in ipairs { "", "x", "a b@c", "@", "a@b\nc" } do call("keys.issue", { email = email }, true) end
      call("keys.issue", { email = "short@example.org", password = "1234567" }, true)
    end)
    it("are listed, without their passwords", function()
      local list = call "keys.list"
      local found
      for _, user in ipairs(list) do
        assert.is_nil(user.password)
        if user.id == child.id then found = user end
      end
      assert.equal("ben@example.org", found.email)
      assert.equal(ana.id, found.parent)
    end)
    it("are given another password, which ends what was signed in", function()
      call("keys.issue", { email = "change@example.org", password = PASSWORD })
      local t = elexir.sign_in(host, "change@example.org", PASSWORD)
      call("keys.password", { email = "change@example.org", password = "battery staple" })
      refused(401, "Could not validate credentials", "GET", "device/my-devices", { token = t.access_token })
      assert.equal(401, (request("POST", "auth/refresh-token", { body = { refresh_token = t.refresh_token } })))
      refused(401, "Incorrect password", "POST", "auth/signin", { form = { username = "change@example.org", password = PASSWORD } })
      elexir.sign_in(host, "change@example.org", "battery staple")
      call("keys.password", { email = "nobody@example.org", password = "battery staple" }, true)
    end)
    it("are revoked: nothing of them is good any longer, and their devices are free", function()
      call("keys.issue", { email = "gone@example.org", password = PASSWORD })
      local t = elexir.sign_in(host, "gone@example.org", PASSWORD)
      local d = device(false, t.access_token)
      call("keys.revoke", { email = "gone@example.org" })
      refused(401, "Could not validate credentials", "GET", "device/my-devices", { token = t.access_token })
      assert.equal(401, (request("POST", "auth/refresh-token", { body = { refresh_token = t.refresh_token } })))
      refused(403, "Not Found User", "POST", "auth/signin", { form = { username = "gone@example.org", password = PASSWORD } })
      local status, answer = request("GET", "device/check-device", { token = ana_token, query = { unique_id = d.unique_id } })
      assert.equal(200, status)
      assert.equal(json.null, answer.user_id)
      call("keys.revoke", { email = "gone@example.org" }, true)
    end)
    it("of one connection are not those of another", function()
      refused(401, "Could not validate credentials", "GET", "/seoul/api/v1/legacy/device/my-devices", { token = ana_token })
      refused(403, "Not Found User", "POST", "/seoul/api/v1/legacy/auth/signin", { form = { username = "ana@example.org", password = PASSWORD } })
    end)
  end)

  local ENDPOINTS = {
    { "GET", "device/my-devices" }, { "GET", "device/check-device?unique_id=x" }, { "POST", "device/set-my-device?unique_id=x&serial_code=x" },
    { "PATCH", "device/un-connect?unique_id=x" }, { "POST", "device/devlog", elexir.log() }, { "POST", "device/devlog/temp", {} },
    { "GET", "device/devlog/lasttime/1" }, { "GET", "device/my-devlog/2025-04" },
  }

  describe("a token", function()
    it("is needed for each endpoint, under each prefix, before anything else is looked at", function()
      local refresh_token = elexir.sign_in(host, "eve@example.org", PASSWORD).refresh_token
      for _, prefix in ipairs(PREFIXES) do
        for _, e in ipairs(ENDPOINTS) do
          local function with(authorization)
            return { prefix = prefix, body = e[3], headers = { authorization = authorization } }
          end
          local fields = refused(401, "Not authenticated", e[1], e[2], with(nil))
          assert.equal("Bearer", fields["www-authenticate"])
          for _, other in ipairs { "", "Bearer", "Basic " .. ana_token, ana_token } do refused(401, "Not authenticated", e[1], e[2], with(other)) end
          for _, other in ipairs { ("0"):rep(32), ana_token .. "0", ana_token:upper() .. "x", refresh_token } do
            refused(401, "Could not validate credentials", e[1], e[2], with("Bearer " .. other))
          end
        end
      end
      assert.equal(200, (request("GET", "device/my-devices", { headers = { authorization = "bearer " .. ana_token } })))
    end)
  end)

  describe("GET my-devices", function()
    it("is a bare array, [] where there are none", function()
      call("keys.issue", { email = "none@example.org", password = PASSWORD })
      local token = elexir.sign_in(host, "none@example.org", PASSWORD).access_token
      for _, prefix in ipairs(PREFIXES) do
        local status, _, text = request("GET", "device/my-devices", { prefix = prefix, token = token })
        assert.equal(200, status)
        assert.equal("[]", text)
      end
    end)
    it("has what the document's sample has", function()
      call("keys.issue", { email = "some@example.org", password = PASSWORD })
      local t = elexir.sign_in(host, "some@example.org", PASSWORD)
      local first, second = device(false, t.access_token), device(true)
      request("POST", "device/set-my-device", { token = t.access_token,
        query = { unique_id = second.unique_id, serial_code = second.serial_code, mac_id = "2023-06-29 15:07:25" } })
      local status, list = request("GET", "device/my-devices", { token = t.access_token })
      assert.equal(200, status)
      assert.equal(2, #list)
      local regdate = list[1].regdate
      assert.truthy(regdate:match "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d$", regdate)
      assert.is_true(math.abs(time.parse(regdate) - time.now()) < 600000)
      assert.same({ id = first.id, serialcode = first.serial_code, user_id = list[1].user_id, model_id = 2, mac_id = json.null,
        unique_id = first.unique_id, modelname = "ELEXIR", regdate = regdate }, list[1])
      assert.equal("integer", math.type(list[1].user_id))
      assert.equal("2023-06-29 15:07:25", list[2].mac_id)
      assert.equal(second.id, list[2].id)
    end)
    it("has nobody else's", function()
      local d = device()
      for _, token in ipairs { eve_token, elexir.sign_in(host, "ben@example.org", PASSWORD).access_token } do
        local _, list = request("GET", "device/my-devices", { token = token })
        for _, other in ipairs(list) do assert.are_not.equal(d.id, other.id) end
      end
    end)
  end)

  describe("GET check-device", function()
    local function check(token, unique_id, prefix)
      return request("GET", "device/check-device", { token = token, query = { unique_id = unique_id }, prefix = prefix })
    end
    it("of one's own gives it, under each prefix", function()
      local d = device()
      for _, prefix in ipairs(PREFIXES) do
        local status, answer = check(ana_token, d.unique_id, prefix)
        assert.equal(200, status)
        assert.truthy(answer.regdate:match "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", answer.regdate)
        assert.same({ serial_code = d.serial_code, user_id = ana.id, mac_id = json.null, model_id = 2, unique_id = d.unique_id, id = d.id,
          regdate = answer.regdate }, answer)
      end
    end)
    it("upper-cases unique_id", function()
      local d = call("device.add", { unique_id = "abcDEF00" .. count, serial_code = "SC-case" })
      assert.equal("ABCDEF00" .. count, d.unique_id)
      for _, unique_id in ipairs { d.unique_id, d.unique_id:lower() } do
        local status, answer = check(ana_token, unique_id)
        assert.equal(200, status)
        assert.equal(d.unique_id, answer.unique_id)
        assert.equal(json.null, answer.user_id)
      end
    end)
    it("of one without a serial code is 400, of an unknown one 404, of somebody else's 409", function()
      local d = call("device.add", { unique_id = "UNREGISTERED" })
      refused(400, "This device is not registered", "GET", "device/check-device", { token = ana_token, query = { unique_id = d.unique_id } })
      call("device.add", { unique_id = "UNREGISTERED", serial_code = "SC-late" })
      assert.equal(200, (check(ana_token, d.unique_id)))
      for _, unknown in ipairs { "", "unknown", "☃", "a/b", "'" } do
        refused(404, "Not Found Device", "GET", "device/check-device", { token = ana_token, query = { unique_id = unknown } })
      end
      local mine = device()
      refused(409, "Already Connected Device", "GET", "device/check-device", { token = eve_token, query = { unique_id = mine.unique_id } })
    end)
    it("needs unique_id, of at most 64 characters", function()
      assert.equal("missing", invalid({ "query", "unique_id" }, "GET", "device/check-device", { token = ana_token }).type)
      assert.equal(404, (check(ana_token, ("x"):rep(64))))
      invalid({ "query", "unique_id" }, "GET", "device/check-device", { token = ana_token, query = { unique_id = ("x"):rep(65) } })
      invalid({ "query", "unique_id" }, "GET", "device/check-device", { token = ana_token, query = { unique_id = "a\0b" } })
    end)
  end)

  describe("POST set-my-device", function()
    local function set(token, query, prefix) return request("POST", "device/set-my-device", { token = token, query = query, prefix = prefix }) end
    it("registers a device, in letters of either case, under each prefix", function()
      for _, prefix in ipairs(PREFIXES) do
        count = count + 1
        local d = call("device.add", { unique_id = "SET-" .. count, serial_code = "Sc-1" })
        local status, answer = set(ana_token, { unique_id = "set-" .. count, serial_code = "Sc-1", mac_id = "aa:bb" }, prefix)
        assert.equal(200, status)
        assert.same({ statuscode = 200, message = "device connected" }, answer)
        local _, checked = request("GET", "device/check-device", { token = ana_token, query = { unique_id = d.unique_id } })
        assert.equal(ana.id, checked.user_id)
        assert.equal("aa:bb", checked.mac_id)
        local row = sql("select * from devices where device = '%s'", d.unique_id)[1]
        assert.equal("bound", row.status)
        assert.equal("Sc-1", row.serial)
        assert.equal(tostring(ana.id), row.owner)
        assert.equal(1, #sql("select * from events where device = '%s' and type = 'binding'", d.unique_id))
      end
    end)
    it("again is well, keeps the MAC, and is no second binding", function()
      local d = device(true)
      set(ana_token, { unique_id = d.unique_id, serial_code = d.serial_code, mac_id = "aa:bb" })
      assert.equal(200, (set(ana_token, { unique_id = d.unique_id, serial_code = d.serial_code })))
      local _, checked = request("GET", "device/check-device", { token = ana_token, query = { unique_id = d.unique_id } })
      assert.equal("aa:bb", checked.mac_id)
      assert.equal(1, #sql("select * from events where device = '%s' and type = 'binding'", d.unique_id))
    end)
    it("does not tell the next account the MAC that the one before gave", function()
      local d = device(true)
      local query = { unique_id = d.unique_id, serial_code = d.serial_code }
      set(ana_token, { unique_id = d.unique_id, serial_code = d.serial_code, mac_id = "aa:bb" })
      request("PATCH", "device/un-connect", { token = ana_token, query = { unique_id = d.unique_id } })
      assert.equal(200, (set(eve_token, query)))
      local _, checked = request("GET", "device/check-device", { token = eve_token, query = { unique_id = d.unique_id } })
      assert.equal(json.null, checked.mac_id)
    end)
    it("with a wrong serial code is 404, of an unknown device 404, of somebody else's 409", function()
      local d = device(true)
      for _, wrong in ipairs { "", "x", d.serial_code:lower(), d.serial_code .. " " } do
        refused(404, "Serial code is not valid", "POST", "device/set-my-device", { token = ana_token,
          query = { unique_id = d.unique_id, serial_code = wrong } })
      end
      call("device.add", { unique_id = "NO-SERIAL" })
      refused(404, "Serial code is not valid", "POST", "device/set-my-device", { token = ana_token, query = { unique_id = "NO-SERIAL", serial_code = "" } })
      refused(404, "Not Found Device", "POST", "device/set-my-device", { token = ana_token, query = { unique_id = "1", serial_code = "test1" } })
      assert.equal(200, (set(ana_token, { unique_id = d.unique_id, serial_code = d.serial_code })))
      refused(409, "Already Connected Device", "POST", "device/set-my-device", { token = eve_token,
        query = { unique_id = d.unique_id, serial_code = d.serial_code } })
      assert.equal(tostring(ana.id), sql("select owner from devices where device = '%s'", d.unique_id)[1].owner)
    end)
    it("takes its parameters from the query, and needs two of them", function()
      local d = device(true)
      local query = { unique_id = d.unique_id, serial_code = d.serial_code, mac_id = "aa" }
      for _, name in ipairs { "unique_id", "serial_code" } do
        local less = { unique_id = d.unique_id, serial_code = d.serial_code }
        less[name] = nil
        invalid({ "query", name }, "POST", "device/set-my-device", { token = ana_token, query = less })
        invalid({ "query", name }, "POST", "device/set-my-device", { token = ana_token, query = less, body = query })
      end
      for name in pairs(query) do
        local long = { unique_id = d.unique_id, serial_code = d.serial_code, [name] = ("x"):rep(65) }
        invalid({ "query", name }, "POST", "device/set-my-device", { token = ana_token, query = long })
      end
      invalid({ "query", "mac_id" }, "POST", "device/set-my-device", { token = ana_token,
        query = { unique_id = d.unique_id, serial_code = d.serial_code, mac_id = "a\nb" } })
      assert.equal(200, (set(ana_token, { unique_id = d.unique_id, serial_code = d.serial_code, mac_id = ("x"):rep(64) })))
    end)
  end)

  describe("PATCH un-connect", function()
    it("gives a device up, under each prefix; then somebody else may have it", function()
      for _, prefix in ipairs(PREFIXES) do
        local d = device()
        local status, answer = request("PATCH", "device/un-connect", { prefix = prefix, token = ana_token, query = { unique_id = d.unique_id:lower() } })
        assert.equal(200, status)
        assert.same({ statusCode = 200, message = "device unconnected" }, answer)
        local row = sql("select * from devices where device = '%s'", d.unique_id)[1]
        assert.equal("unbound", row.status)
        assert.is_true(row.owner == json.null or row.owner == "")
        local _, list = request("GET", "device/my-devices", { token = ana_token })
        for _, other in ipairs(list) do assert.are_not.equal(d.id, other.id) end
        assert.equal(200, (request("POST", "device/set-my-device", { token = eve_token,
          query = { unique_id = d.unique_id, serial_code = d.serial_code } })))
      end
    end)
    it("of an unknown device, somebody else's or nobody's is 404", function()
      local theirs, free = device(), device(true)
      for _, unique_id in ipairs { "unknown", "", theirs.unique_id, free.unique_id } do
        refused(404, "Not Found Device", "PATCH", "device/un-connect", { token = eve_token, query = { unique_id = unique_id } })
      end
      assert.equal("bound", sql("select status from devices where device = '%s'", theirs.unique_id)[1].status)
    end)
    it("needs unique_id", function()
      invalid({ "query", "unique_id" }, "PATCH", "device/un-connect", { token = ana_token })
      invalid({ "query", "unique_id" }, "PATCH", "device/un-connect", { token = ana_token, query = { unique_id = ("x"):rep(65) } })
    end)
  end)

  local function readings(d, metric)
    return sql("select * from readings where device = '%s' and metric = '%s' order by seq", d.unique_id, metric or "treatment_time")
  end

  local function upload(changes, options)
    options = options or {}
    options.token, options.body = options.token or ana_token, type(changes) == "string" and changes or elexir.log(changes)
    return request("POST", "device/devlog", options)
  end

  describe("POST devlog", function()
    it("answers what it stored, with the document's sample's values, under each prefix", function()
      local d = device()
      for i, prefix in ipairs(PREFIXES) do
        local sample = ([[{ "user_id": %d, "model_id": 0, "device_id": %d, "fversion": 0, "logdate": "2025-04-14T02:09:21.38%dZ",
          "mode": 0, "finish_flag": 0, "last_intensity": 0, "treatment_time": 0, "event_num": 0, "log_data": "string" }]]):format(ana.id, d.id, i)
        local status, answer = upload(sample, { prefix = prefix })
        assert.equal(200, status)
        assert.same(json.decode(sample), answer)
        assert.equal(i, #readings(d))
      end
      local r = readings(d)[1]
      assert.equal(1744596561381, r.at)
      assert.equal(0, r.value)
      assert.equal("s", r.unit)
      assert.equal("elexir", r.vendor)
      r = readings(d, "last_intensity")[1]
      assert.equal("V", r.unit)
      assert.equal(1744596561381, r.at)
    end)
    it("keeps floats floats and integers integers, to the letter", function()
      local d = device()
      for fversion, intensity in pairs { ["22.0"] = "161.0", ["22"] = "161", ["22.5"] = "0.1", ["0.0"] = "0" } do
        count = count + 1
        local body = json.encode(elexir.log { user_id = ana.id, device_id = d.id, logdate = ("2025-04-11T15:58:%02d"):format(count % 60) })
        body = body:gsub('"fversion":22%.0', '"fversion":' .. fversion):gsub('"last_intensity":161%.0', '"last_intensity":' .. intensity)
        local status, _, text = upload(body)
        assert.equal(200, status)
        assert.truthy(text:find('"fversion":' .. fversion .. "[,}]"), text)
        assert.truthy(text:find('"last_intensity":' .. intensity .. "[,}]"), text)
        assert.truthy(text:find('"treatment_time":1200[,}]'), text)
        local _, _, list = request("GET", "device/my-devlog/2025-04", { token = ana_token })
        assert.truthy(list:find('"fversion":' .. fversion .. "[,}]"), list)
        assert.truthy(list:find('"last_intensity":' .. intensity .. "[,}]"), list)
      end
    end)
    it("is two readings", function()
      local d = device()
      assert.equal(200, (upload { user_id = ana.id, device_id = d.id }))
      local seconds, volts = readings(d)[1], readings(d, "last_intensity")[1]
      assert.equal(1200, seconds.value)
      assert.equal(161, volts.value)
      assert.equal(1744387080000, seconds.at)
      assert.equal(1744387080000, volts.at)
      local extra = json.decode(seconds.extra)
      assert.same(elexir.log { user_id = ana.id, device_id = d.id }, extra)
    end)
    for _, name in ipairs(LOG_FIELDS) do
      it("needs " .. name .. ", of its type", function()
        local d = device()
        local function without()
          local l = elexir.log { user_id = ana.id, device_id = d.id }
          l[name] = nil
          return l
        end
        local function refuse(value)
          local l = without()
          l[name] = value
          return invalid({ "body", name }, "POST", "device/devlog", { token = ana_token, body = l })
        end
        assert.equal("missing", refuse(nil).type)
        assert.equal("missing", refuse(json.null).type)
        local text = name == "logdate" or name == "log_data"
        for _, value in ipairs { true, {}, json.array {}, { 1 }, text and 5 or "x", text and 5.5 or "" } do
          assert.equal("type_error", refuse(value).type)
        end
        if not text and name ~= "fversion" and name ~= "last_intensity" then refuse(1.5) refuse "1.5" end
        if not text then refuse(-1) end
        assert.same({}, readings(d))
      end)
    end
    it("takes numbers at their bounds and none past them, and digits for numbers as FastAPI does", function()
      local d = device()
      local most = 2147483647
      local status, answer = upload { user_id = ana.id, device_id = d.id, model_id = most, treatment_time = most, event_num = most,
        fversion = 1e9, last_intensity = 1e9 }
      assert.equal(200, status)
      assert.equal(most, answer.treatment_time)
      for _, name in ipairs { "user_id", "device_id", "model_id", "treatment_time", "event_num" } do
        invalid({ "body", name }, "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = ana.id, device_id = d.id, [name] = most + 1 } })
      end
      for _, name in ipairs { "fversion", "last_intensity" } do
        invalid({ "body", name }, "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = ana.id, device_id = d.id, [name] = 1e9 + 1 } })
      end
      status, answer = upload { user_id = tostring(ana.id), device_id = d.id, finish_flag = "3", fversion = "22.5", treatment_time = 60.0 }
      assert.equal(200, status)
      assert.equal(3, answer.finish_flag)
      assert.equal(22.5, answer.fversion)
      assert.equal("integer", math.type(answer.treatment_time))
    end)
    it("takes finish_flag 0, 1, 2, 3, 4, 7 and mode 0, 1", function()
      local d = device()
      for _, flag in ipairs { 0, 1, 2, 3, 4, 7 } do
        for mode = 0, 1 do
          local status, answer = upload { user_id = ana.id, device_id = d.id, finish_flag = flag, mode = mode }
          assert.equal(200, status)
          assert.equal(flag, answer.finish_flag)
          assert.equal(mode, answer.mode)
        end
      end
      assert.equal(12, #readings(d))
      for _, flag in ipairs { 5, 6, 8, -1, 10, 1e300 } do
        invalid({ "body", "finish_flag" }, "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = ana.id, device_id = d.id, finish_flag = flag } })
      end
      for _, mode in ipairs { 2, -1 } do
        invalid({ "body", "mode" }, "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = ana.id, device_id = d.id, mode = mode } })
      end
    end)
    it("reads logdate with Z, with T, with a space, with an offset; without one in the connection's zone", function()
      local d = device()
      for text, at in pairs { ["2025-04-14T02:09:21.380Z"] = 1744596561380, ["2025-04-14T02:09:21Z"] = 1744596561000,
        ["2025-04-14T02:09:22"] = 1744596562000, ["2025-04-14 02:09:23"] = 1744596563000, ["2025-04-14T11:09:24+09:00"] = 1744596564000,
        ["2025-04-14T02:09:25.123456"] = 1744596565123, ["2024-02-29T00:00:00"] = 1709164800000 } do
        local status, answer = upload { user_id = ana.id, device_id = d.id, logdate = text }
        assert.equal(200, status)
        assert.equal(text, answer.logdate)
        local rows = readings(d)
        assert.equal(at, rows[#rows].at, text)
      end
    end)
    it("refuses a logdate that is no time", function()
      local d = device()
      for _, text in ipairs { "", "now", "2025-02-31T00:00:00", "2025-02-29T00:00:00Z", "2025-13-01T00:00:00", "2025-04-14T25:00:00", "2025-04-14T02:60:00",
        "14.04.2025", "1969-12-31T23:59:59Z", "2025-04-14T02:09:21.380Zx", ("2"):rep(65), "2025-04-14T02:09:21\0" } do
        invalid({ "body", "logdate" }, "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = ana.id, device_id = d.id, logdate = text } })
      end
      assert.same({}, readings(d))
    end)
    it("keeps log_data byte for byte, and tells the log of what is odd", function()
      local d = device()
      local samples = { "06008101f793466e1100800cb0043304", "", "string", "0600", "ABCDEF0123456789", " é\n\t\"\\ ", ("0"):rep(65536) }
      for i, data in ipairs(samples) do
        local status, answer = upload { user_id = ana.id, device_id = d.id, log_data = data, logdate = ("2023-01-01T00:00:%02dZ"):format(i), event_num = #data // 16 }
        assert.equal(200, status)
        assert.equal(data, answer.log_data)
      end
      local _, list = request("GET", "device/my-devlog/2023-01", { token = ana_token })
      for i, data in ipairs(samples) do assert.equal(data, list[#samples + 1 - i].log_data) end
      host:wait_for("log_data is not hexadecimal[^\n]*" .. d.unique_id)
      host:wait_for("log_data has 4 characters for 0 events of 16[^\n]*" .. d.unique_id)
      invalid({ "body", "log_data" }, "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = ana.id, device_id = d.id, log_data = ("0"):rep(65537) } })
    end)
    it("sent again is answered the same and stored once; what differs in anything is another log", function()
      local d = device()
      local l = { user_id = ana.id, device_id = d.id }
      for _ = 1, 3 do
        local status, answer = upload(l)
        assert.equal(200, status)
        assert.same(elexir.log(l), answer)
      end
      upload { user_id = ana.id, device_id = d.id, logdate = "2025-04-11 15:58:00Z" } -- the same moment
      upload { user_id = ana.id, device_id = d.id, fversion = 22 } -- the same number
      assert.equal(1, #readings(d))
      assert.equal(1, #readings(d, "last_intensity"))
      local other = { user_id = child.id, model_id = 3, fversion = 23.0, logdate = "2025-04-11T15:58:01", mode = 0, finish_flag = 2,
        last_intensity = 160.0, treatment_time = 1201, event_num = 3, log_data = "06008101f793466e1100800cb0043305" }
      local n = 1
      for name, value in pairs(other) do
        n = n + 1
        assert.equal(200, (upload { user_id = ana.id, device_id = d.id, [name] = value }))
        assert.equal(n, #readings(d), name)
      end
    end)
    it("is for one's own account or a child's, on one's own device", function()
      local mine, theirs, free = device(), device(false, eve_token), device(true)
      assert.equal(200, (upload { user_id = ana.id, device_id = mine.id }))
      assert.equal(200, (upload { user_id = child.id, device_id = mine.id }))
      for _, id in ipairs { eve.id, 0, 999999 } do
        refused(403, "Not Found User", "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = id, device_id = mine.id } })
      end
      for _, id in ipairs { theirs.id, free.id, 0, 999999 } do
        refused(404, "Not Found Device", "POST", "device/devlog", { token = ana_token, body = elexir.log { user_id = ana.id, device_id = id } })
      end
      local child_token = elexir.sign_in(host, "ben@example.org", PASSWORD).access_token
      refused(404, "Not Found Device", "POST", "device/devlog", { token = child_token, body = elexir.log { user_id = child.id, device_id = mine.id } })
      local own = device(false, child_token)
      refused(403, "Not Found User", "POST", "device/devlog", { token = child_token, body = elexir.log { user_id = ana.id, device_id = own.id } })
      assert.equal(2, #readings(mine))
      assert.same({}, readings(theirs))
      assert.same({}, readings(free))
    end)
    it("takes one log, as a JSON object", function()
      for _, body in ipairs { "", " ", "{", "null", "1", '"x"', "[]", "[" .. json.encode(elexir.log()) .. "]", "\xff" } do
        local status, answer, text = request("POST", "device/devlog", { token = ana_token, body = body })
        assert.equal(422, status, text)
        assert.equal("body", answer.detail[1].loc[1])
      end
    end)
    it("passes over members that the document does not name", function()
      local d = device()
      local status, answer = upload { user_id = ana.id, device_id = d.id, battery = 5, id = 7 }
      assert.equal(200, status)
      assert.same(elexir.log { user_id = ana.id, device_id = d.id }, answer)
    end)
  end)

  describe("POST devlog/temp", function()
    local function body(d, changes)
      local b = { user_id = ana.id, model_id = 2, device_id = d.id, unique_id = d.unique_id, finish_flag = 0, start_date = "2025-04-14T03:53:49.261Z",
        last_date = "" }
      for k, v in pairs(changes or {}) do b[k] = v end
      return b
    end
    local function events(d)
      local list = sql("select type, at, data from events where device = '%s' and type like 'session%%' order by id", d.unique_id)
      for _, e in ipairs(list) do e.data = json.decode(e.data) end
      return list
    end
    it("with flag 0 and no last_date is a session's start, under each prefix, and comes back as it was sent", function()
      for _, prefix in ipairs(PREFIXES) do
        local d = device()
        local status, answer = request("POST", "device/devlog/temp", { prefix = prefix, token = ana_token, body = body(d) })
        assert.equal(200, status)
        assert.same(body(d), answer)
        local list = events(d)
        assert.equal(1, #list)
        assert.equal("session_start", list[1].type)
        assert.equal(1744602829261, list[1].at)
        assert.equal(ana.id, list[1].data.user_id)
        assert.is_nil(list[1].data.reason)
      end
    end)
    it("with another flag and a last_date is its end, with the reason", function()
      for flag, reason in pairs { [1] = "normal", [2] = "button", [3] = "app", [4] = "contacts", [7] = "factory" } do
        local d = device()
        request("POST", "device/devlog/temp", { token = ana_token, body = body(d) })
        local sent = body(d, { finish_flag = flag, last_date = "2025-04-14T04:53:49.261Z" })
        local status, answer = request("POST", "device/devlog/temp", { token = ana_token, body = sent })
        assert.equal(200, status)
        assert.same(sent, answer)
        local list = events(d)
        assert.equal(2, #list)
        assert.equal("session_end", list[2].type)
        assert.equal(1744606429261, list[2].at)
        assert.equal(reason, list[2].data.reason)
        assert.equal(flag, list[2].data.finish_flag)
        assert.equal("2025-04-14T03:53:49.261Z", list[2].data.start_date)
      end
    end)
    it("with flag 0 and a last_date, as in the document's answer, is a start", function()
      local d = device()
      local sent = body(d, { start_date = "2025-04-14T02:09:21.381Z", last_date = "2025-04-14T02:09:21.381Z" })
      local status, answer = request("POST", "device/devlog/temp", { token = ana_token, body = sent })
      assert.equal(200, status)
      assert.same(sent, answer)
      assert.equal("session_start", events(d)[1].type)
    end)
    it("sent again is one event", function()
      local d = device()
      for _ = 1, 3 do
        request("POST", "device/devlog/temp", { token = ana_token, body = body(d) })
        request("POST", "device/devlog/temp", { token = ana_token, body = body(d, { finish_flag = 1, last_date = "2025-04-14T04:53:49.261Z" }) })
      end
      assert.equal(2, #events(d))
    end)
    it("is no reading", function()
      local d = device()
      request("POST", "device/devlog/temp", { token = ana_token, body = body(d) })
      assert.same({}, readings(d))
      refused(404, "No Content", "GET", "device/devlog/lasttime/" .. d.id, { token = ana_token })
    end)
    for _, name in ipairs(TEMP_FIELDS) do
      it("needs " .. name .. ", of its type", function()
        local d = device()
        local function refuse(value)
          local b = body(d)
          b[name] = value
          return invalid({ "body", name }, "POST", "device/devlog/temp", { token = ana_token, body = b })
        end
        assert.equal("missing", refuse(nil).type)
        assert.equal("missing", refuse(json.null).type)
        local text = name:find "date" or name == "unique_id"
        for _, value in ipairs { true, {}, json.array {}, text and 5 or "x" } do assert.equal("type_error", refuse(value).type) end
        if name == "finish_flag" then for _, flag in ipairs { 5, 6, 8, -1 } do refuse(flag) end end
        if name:find "date" then for _, bad in ipairs { "x", "2025-02-31T00:00:00Z", ("2"):rep(65) } do refuse(bad) end end
        if name == "start_date" then refuse "" end
        if name == "unique_id" then refuse(("x"):rep(65)) end
        if not text and name ~= "finish_flag" then refuse(-1) refuse(2147483648) refuse(0.5) end
        assert.same({}, events(d))
      end)
    end
    it("is no end without a last_date, nor with one before start_date", function()
      local d = device()
      invalid({ "body", "last_date" }, "POST", "device/devlog/temp", { token = ana_token, body = body(d, { finish_flag = 1 }) })
      invalid({ "body", "last_date" }, "POST", "device/devlog/temp", { token = ana_token,
        body = body(d, { finish_flag = 1, last_date = "2025-04-14T03:53:49.260Z" }) })
      assert.equal(200, (request("POST", "device/devlog/temp", { token = ana_token,
        body = body(d, { finish_flag = 1, last_date = "2025-04-14T03:53:49.261Z" }) })))
    end)
    it("takes unique_id in either case, and no other device's", function()
      local d, other = device(), device()
      assert.equal(200, (request("POST", "device/devlog/temp", { token = ana_token, body = body(d, { unique_id = d.unique_id:lower() }) })))
      refused(404, "Not Found Device", "POST", "device/devlog/temp", { token = ana_token, body = body(d, { unique_id = other.unique_id }) })
    end)
    it("is for one's own account or a child's, on one's own device", function()
      local mine, theirs = device(), device(false, eve_token)
      assert.equal(200, (request("POST", "device/devlog/temp", { token = ana_token, body = body(mine, { user_id = child.id }) })))
      refused(403, "Not Found User", "POST", "device/devlog/temp", { token = ana_token, body = body(mine, { user_id = eve.id }) })
      refused(404, "Not Found Device", "POST", "device/devlog/temp", { token = ana_token, body = body(theirs) })
      assert.same({}, events(theirs))
    end)
  end)

  describe("GET devlog/lasttime/{device_id}", function()
    it("is a bare JSON string, the newest log's beginning, under each prefix", function()
      local d = device()
      refused(404, "No Content", "GET", "device/devlog/lasttime/" .. d.id, { token = ana_token })
      for _, logdate in ipairs { "2025-04-10T05:58:00", "2025-04-11T15:58:00.999Z", "2025-04-09T05:58:00" } do
        upload { user_id = ana.id, device_id = d.id, logdate = logdate }
      end
      for _, prefix in ipairs(PREFIXES) do
        local status, _, text = request("GET", "device/devlog/lasttime/" .. d.id, { prefix = prefix, token = ana_token })
        assert.equal(200, status)
        assert.equal('"2025-04-11 15:58:00"', text)
      end
    end)
    it("of an unknown device, somebody else's or nobody's is 404", function()
      local d = device()
      upload { user_id = ana.id, device_id = d.id }
      for _, id in ipairs { d.id, 0, -1, 999999, 9223372036854775807, device(true).id } do
        refused(404, "No Content", "GET", "device/devlog/lasttime/" .. id, { token = eve_token })
      end
    end)
    it("does not tell a device's new owner of the old one's logs", function()
      local d = device()
      upload { user_id = ana.id, device_id = d.id }
      request("PATCH", "device/un-connect", { token = ana_token, query = { unique_id = d.unique_id } })
      request("POST", "device/set-my-device", { token = eve_token, query = { unique_id = d.unique_id, serial_code = d.serial_code } })
      refused(404, "No Content", "GET", "device/devlog/lasttime/" .. d.id, { token = eve_token })
      upload({ user_id = eve.id, device_id = d.id, logdate = "2024-01-01T00:00:00" }, { token = eve_token })
      local _, last = request("GET", "device/devlog/lasttime/" .. d.id, { token = eve_token })
      assert.equal("2024-01-01 00:00:00", last)
    end)
    it("needs a number", function()
      for _, id in ipairs { "x", "1.5", "1x", "0x1", "%20", "9223372036854775808" } do
        invalid({ "path", "device_id" }, "GET", "device/devlog/lasttime/" .. id, { token = ana_token })
      end
    end)
  end)

  describe("GET my-devlog/{year-month}", function()
    local zia, token, d
    setup(function()
      zia = call("keys.issue", { email = "zia@example.org", password = PASSWORD })
      token = elexir.sign_in(host, "zia@example.org", PASSWORD).access_token
      d = device(false, token)
    end)
    local function month(text, prefix)
      local status, list, raw = request("GET", "device/my-devlog/" .. text, { token = token, prefix = prefix })
      assert.equal(200, status, raw)
      return list, raw
    end
    local function put(changes)
      changes.user_id, changes.device_id = changes.user_id or zia.id, changes.device_id or d.id
      assert.equal(200, (upload(changes, { token = token })))
    end
    it("is [] where there are none", function()
      local _, raw = month "2025-04"
      assert.equal("[]", raw)
      _, raw = month "9999-12"
      assert.equal("[]", raw)
    end)
    it("gives the document's sample, newest first, under each prefix", function()
      local samples = {
        { logdate = "2025-04-11T15:58:00" }, { logdate = "2025-04-10T05:58:00", finish_flag = 3 },
        { logdate = "2025-04-09T05:58:00", mode = 0, finish_flag = 4, last_intensity = 89.0, treatment_time = 2280, event_num = 6,
          log_data = "040081015f93b16f1a0082590f00020318008059501f9b1e5c02810350927c71350280593520f31eb40481030a92dc71" } }
      for _, i in ipairs { 2, 3, 1 } do put(samples[i]) end
      for _, prefix in ipairs(PREFIXES) do
        local list = month("2025-04", prefix)
        assert.equal(3, #list)
        local ids = {}
        for i, l in ipairs(list) do
          assert.equal("integer", math.type(l.id))
          assert.is_nil(ids[l.id])
          ids[l.id] = true
          assert.truthy(l.regdate:match "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d$", l.regdate)
          assert.is_true(math.abs(time.parse(l.regdate) - time.now()) < 600000)
          l.id, l.regdate = nil, nil
          assert.same(elexir.log(samples[i]), l)
        end
      end
      local first, again = month "2025-04", month "2025-04"
      assert.same(first, again)
    end)
    it("has its bounds at the month's first and last moment", function()
      for _, logdate in ipairs { "2024-01-31T23:59:59.999Z", "2024-02-01T00:00:00.000Z", "2024-02-29T23:59:59.999Z", "2024-03-01T00:00:00.000Z" } do
        put { logdate = logdate }
      end
      local list = month "2024-02"
      assert.equal(2, #list)
      assert.equal("2024-02-29T23:59:59.999", list[1].logdate)
      assert.equal("2024-02-01T00:00:00", list[2].logdate)
      assert.equal(1, #month "2024-01")
      assert.equal(1, #month "2024-03")
    end)
    it("has December's end in the next year", function()
      put { logdate = "2022-12-31T23:59:59Z" }
      put { logdate = "2023-01-01T00:00:00Z" }
      assert.equal(1, #month "2022-12")
    end)
    it("merges devices by time", function()
      local other = device(false, token)
      for day = 1, 9 do put { logdate = ("2021-05-%02dT00:00:00"):format(day), device_id = day % 2 == 0 and d.id or other.id } end
      local list = month "2021-05"
      assert.equal(9, #list)
      for i, l in ipairs(list) do assert.equal(("2021-05-%02dT00:00:00"):format(10 - i), l.logdate) end
    end)
    it("is whole however many there are", function()
      for i = 0, 249 do put { logdate = ("2020-06-%02dT%02d:00:00"):format(1 + i // 24, i % 24), event_num = i, log_data = ("ab"):rep(i) } end
      local list = month "2020-06"
      assert.equal(250, #list)
      for i, l in ipairs(list) do
        assert.equal(250 - i, l.event_num)
        assert.equal(("ab"):rep(250 - i), l.log_data)
      end
    end)
    it("has one's own logs and one's children's, and nobody else's, though the device has changed hands", function()
      local kid = call("keys.issue", { email = "kid@example.org", password = PASSWORD, parent = zia.id })
      local shared = device(false, token)
      put { logdate = "2019-07-01T00:00:00", device_id = shared.id }
      put { logdate = "2019-07-02T00:00:00", device_id = shared.id, user_id = kid.id }
      request("PATCH", "device/un-connect", { token = token, query = { unique_id = shared.unique_id } })
      request("POST", "device/set-my-device", { token = eve_token, query = { unique_id = shared.unique_id, serial_code = shared.serial_code } })
      upload({ user_id = eve.id, device_id = shared.id, logdate = "2019-07-03T00:00:00" }, { token = eve_token })
      local list = month "2019-07"
      assert.equal(2, #list)
      assert.equal(kid.id, list[1].user_id)
      assert.equal(zia.id, list[2].user_id)
      local _, theirs = request("GET", "device/my-devlog/2019-07", { token = eve_token })
      assert.equal(1, #theirs)
      assert.equal(eve.id, theirs[1].user_id)
      local kid_token = elexir.sign_in(host, "kid@example.org", PASSWORD).access_token
      local _, own = request("GET", "device/my-devlog/2019-07", { token = kid_token })
      assert.equal(1, #own)
      assert.equal(kid.id, own[1].user_id)
    end)
    it("of what is no month is 400", function()
      for _, text in ipairs { "2025-13", "2025-00", "2025-4", "25-04", "2025", "202504", "2025-04-01", "abcd-ef", "%20", "2025-04x", "x2025-04", "２０２５-04" } do
        refused(400, "Read Device Log Failed", "GET", "device/my-devlog/" .. text, { token = token })
      end
    end)
  end)

  it("the zone of a connection is that of times without one, and of a month's bounds", function()
    local function there(name, args) return elexir.call(host, "seoul", name, args) end
    local kim = there("keys.issue", { email = "kim@example.org", password = PASSWORD })
    local d = there("device.add", { unique_id = "SEOUL-1", serial_code = "S1", model_id = 3, modelname = "ELEXIR 2" })
    local token = elexir.sign_in(host, "kim@example.org", PASSWORD, "/seoul/api/v1/legacy/").access_token
    local function at(method, path, options)
      options = options or {}
      options.token, options.prefix = token, "/seoul/api/v1/legacy/device/"
      local status, answer, text = request(method, path, options)
      assert.equal(200, status, text)
      return answer
    end
    at("POST", "set-my-device", { query = { unique_id = "seoul-1", serial_code = "S1" } })
    assert.equal("ELEXIR 2", at("GET", "my-devices")[1].modelname)
    for _, logdate in ipairs { "2025-04-30T23:59:59", "2025-04-30 15:00:00Z", "2025-03-31T15:00:00Z" } do
      at("POST", "devlog", { body = elexir.log { user_id = kim.id, device_id = d.id, logdate = logdate } })
    end
    local april = at("GET", "my-devlog/2025-04")
    assert.equal(2, #april)
    assert.equal("2025-04-30T23:59:59", april[1].logdate)
    assert.equal("2025-04-01T00:00:00", april[2].logdate)
    assert.equal("2025-05-01T00:00:00", at("GET", "my-devlog/2025-05")[1].logdate)
    assert.equal("2025-05-01 00:00:00", at("GET", "devlog/lasttime/" .. d.id))
    assert.equal(1746025199000, sql("select max(at) as at from readings where device = 'SEOUL-1' and at < 1746025200000")[1].at)
  end)

  it("unknown paths are 404 and other methods 405, in the vendor's words", function()
    for _, prefix in ipairs(PREFIXES) do
      for _, path in ipairs { "device/", "device/my-device", "device/my-devlog", "device/devlog/lasttime", "device/devlog/temp/1", "auth/", "auth/signout",
        "device/my-devlog/2025/04", "device/my-devlog/2025%2F04" } do
        for _, method in ipairs { "GET", "POST", "PATCH", "DELETE" } do refused(404, "Not Found", method, path, { prefix = prefix, token = ana_token }) end
      end
      for _, e in ipairs { { "POST", "device/my-devices", "GET" }, { "POST", "device/check-device", "GET" }, { "GET", "device/set-my-device", "POST" },
        { "POST", "device/un-connect", "PATCH" }, { "GET", "device/devlog", "POST" }, { "PUT", "device/devlog/temp", "POST" },
        { "POST", "device/devlog/lasttime/1", "GET" }, { "DELETE", "device/my-devlog/2025-04", "GET" }, { "GET", "auth/signin", "POST" },
        { "GET", "auth/refresh-token", "POST" } } do
        local fields = refused(405, "Method Not Allowed", e[1], e[2], { prefix = prefix })
        assert.truthy(fields.allow:find(e[3], 1, true))
      end
    end
  end)

  it("an upload is kept as it came, and cannot be read by who has the file", function()
    local d = device()
    upload { user_id = ana.id, device_id = d.id, log_data = "c0ffee00c0ffee00", event_num = 1, logdate = "2018-01-01T00:00:00" }
    local row = sql "select outcome, cast(body as text) as body, cast(headers as text) as headers from inbox order by id desc limit 1"[1]
    assert.equal("done", row.outcome)
    assert.is_nil((row.body .. row.headers):find("c0ffee00", 1, true))
    assert.is_nil((row.body .. row.headers):find(ana_token, 1, true))
    assert.equal(0, sql("select count(*) as n from inbox where target like '%%auth/%%' and outcome = 'done'")[1].n)
  end)

  it("two accounts that register one device at one moment: one gets it", function()
    local socket = require "socket"
    for _ = 1, 10 do
      local d = device(true)
      local sockets = {}
      for i, token in ipairs { ana_token, eve_token } do
        sockets[i] = assert(socket.connect("127.0.0.1", host.port))
        sockets[i]:settimeout(30)
        sockets[i]:send(("POST /api/v1/legacy/device/set-my-device?unique_id=%s&serial_code=%s HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-length: 0\r\n\r\n")
          :format(d.unique_id, d.serial_code, token))
      end
      local codes = {}
      for i, s in ipairs(sockets) do
        codes[i] = bed.receive(s)
        s:close()
      end
      table.sort(codes)
      assert.same({ 200, 409 }, codes)
    end
  end)

  it("an upload that was acknowledged outlives a kill", function()
    local d = device()
    assert.equal(200, (upload { user_id = ana.id, device_id = d.id, logdate = "2017-01-01T00:00:00" }))
    host:restart(9)
    local status, list = request("GET", "device/my-devlog/2017-01", { token = ana_token })
    assert.equal(200, status)
    assert.equal(1, #list)
  end)
end)

-- The plugin with handlers that raise: what the document has for a failure of the server.
describe("elexir, where the server fails", function()
  it("says what the document has for each endpoint", function()
    local files = {}
    for _, name in ipairs { "lib/tokens.lua", "lib/plausible.lua", "lib/elexir/log.lua", "lib/elexir/logs.lua", "lib/elexir/users.lua",
      "lib/elexir/devices.lua", "lib/elexir/connect.lua", "lib/elexir/sandbox.lua", "vendors/elexir.lua" } do
      files[name] = bed.read(bed.plugins .. "/" .. name)
    end
    local text, n = files["vendors/elexir.lua"]:gsub("function%(req%)", "function(req) if req.caller then error 'broken' end")
    assert(n >= 8)
    files["vendors/elexir.lua"] = text
    local host = bed.host { plugins = files, config = [[connections = { { "elexir" } }]] }
    elexir.call(host, "elexir", "keys.issue", { email = "ana@example.org", password = PASSWORD })
    local token = elexir.sign_in(host, "ana@example.org", PASSWORD).access_token
    for _, e in ipairs {
      { 500, "Internal Server Error", "GET", "device/my-devices" }, { 400, "Device Connection Failed", "GET", "device/check-device?unique_id=x" },
      { 400, "Device Connection Failed", "POST", "device/set-my-device?unique_id=x&serial_code=x" },
      { 400, "Device unconnect failed", "PATCH", "device/un-connect?unique_id=x" }, { 500, "Internal server error", "POST", "device/devlog", elexir.log() },
      { 500, "Internal server error", "POST", "device/devlog/temp", { user_id = 1, model_id = 1, device_id = 1, unique_id = "x", finish_flag = 0,
        start_date = "2025-04-14T03:53:49.261Z", last_date = "" } },
      { 500, "Internal server error", "GET", "device/devlog/lasttime/1" }, { 400, "Read Device Log Failed", "GET", "device/my-devlog/2025-04" },
    } do
      local status, answer, raw = elexir.request(host, e[3], e[4], { token = token, body = e[5] })
      assert.equal(e[1], status, raw)
      assert.same({ detail = e[2] }, answer)
    end
    host:stop()
  end)
end)

describe("elexir's sandbox", function()
  it("has accounts, devices and weeks of sessions that work with the credentials it gives", function()
    local host = bed.host { config = [[connections = { { "elexir", people = true } }]] }
    local made = elexir.call(host, "elexir", "sandbox", { url = host.url })
    local c = made.credentials
    local function get(path, options)
      options = options or {}
      options.token = options.token or c.access_token
      return elexir.request(host, options.method or "GET", "device/" .. path, options)
    end
    assert.equal(c.user_id, select(2, get "my-devices")[1].user_id)
    c.access_token = elexir.sign_in(host, c.email, c.password).access_token
    assert.equal(c.device_id, select(2, get("check-device", { query = { unique_id = c.unique_id } })).id)
    assert.equal(409, (get("check-device", { query = { unique_id = c.other_unique_id } })))
    assert.equal(400, (get("check-device", { query = { unique_id = c.unregistered_unique_id } })))
    assert.equal(200, (get("set-my-device", { method = "POST", query = { unique_id = c.free_unique_id, serial_code = c.free_serial_code } })))
    assert.equal(200, (get("set-my-device", { method = "POST", query = { unique_id = c.unique_id, serial_code = c.serial_code } })))
    local now, sessions = time.now(), {}
    for _, at in ipairs { now, now - 28 * 86400000 } do
      local month = time.format(at, "UTC", "yyyy-MM")
      if not sessions[month] then sessions[month] = select(2, get("my-devlog/" .. month)) end
    end
    local n, kids = 0, 0
    for _, list in pairs(sessions) do
      for _, l in ipairs(list) do
        n = n + 1
        if l.user_id == c.child_id then kids = kids + 1 else assert.equal(c.user_id, l.user_id) end
        assert.equal(c.device_id, l.device_id)
        assert.equal(l.event_num * 16, #l.log_data)
        local at = time.parse(l.logdate)
        assert.is_true(at < now and at > now - 22 * 86400000, l.logdate)
      end
    end
    assert.is_true(n >= 20 and kids >= 10 and n - kids >= 10, n .. " sessions")
    assert.is_true(n * 2 <= host:sql "select count(*) as n from events where type in ('session_start', 'session_end')"[1].n)
    assert.equal(200, (get("devlog/lasttime/" .. c.device_id)))
    local l = elexir.log { user_id = c.user_id, device_id = c.device_id, model_id = c.model_id }
    assert.equal(200, (get("devlog", { method = "POST", body = l })))
    elexir.sign_in(host, c.other_email, c.other_password)
    local out, code = bed.run { "sh", "-c", made.example }
    assert.equal(0, code)
    assert.truthy(out:find(c.unique_id, 1, true), out)
    assert.is_nil(host:read():find("log_data", 1, true)) -- nothing odd about what was invented
    host:stop()
  end)
end)
