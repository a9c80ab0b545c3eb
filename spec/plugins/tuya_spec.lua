-- plugins/vendors/tuya.lua's serve face against the vendor's document (设备管理), endpoint by endpoint in its order, and its signatures.
local bed = require "bed"
local crypto = require "neap.crypto"
local json = require "neap.json"
local time = require "neap.time"
local tuya = require "tuya"

local HOUR, DAY = 3600000, 86400000
local NOW = time.now()

-- The document's own devices: the scale of its first sample, the plug of its second, the speaker of its third.
local SCALE = {
  active_time = 1589505938, biz_type = 299009, category = "qt", create_time = 1560827137, icon = "smart/icon/15402589135gknz23xajb_0.png",
  id = "60613135b121cddc2941", ip = "120.198.7.7", name = "体脂秤", online = true, owner_id = "10701111", product_id = "g0er6hSKgMqrAAAA",
  product_name = "Wifi scales_OEM", sub = false, time_zone = "+08:00", uid = "ay157896239864843gAAAA", update_time = 1589764585,
  uuid = "60613135b23cddc29411",
  status = { { code = "battery_low", value = false }, { code = "body_r", value = 653 }, { code = "left_hand_r", value = 0 },
    { code = "left_leg_r", value = 0 }, { code = "right_hand_r", value = 0 }, { code = "right_leg_r", value = 0 }, { code = "weight", value = 48900 } },
}
local PLUG = {
  sub = false, create_time = 1540691155, owner_id = "3571111", ip = "10.62.43.9", biz_type = 293964, icon = "smart/product_icon/cz.png",
  time_zone = "+08:00", uuid = "27511006b4e62d4b1111", product_name = "Wi-Fi 智能计量插座", active_time = 1548584422, uid = "ay1548569152777QAAAA",
  update_time = 1548584559, product_id = "EvolhYPyZNWYPAAA", name = "xxx测试", online = true, id = "27511006b4e62d4b2222", category = "cz",
  status = { { code = "countdown_1", value = 0 }, { code = "cur_current", value = 0 }, { code = "cur_power", value = 0 },
    { code = "cur_voltage", value = 2196 }, { code = "switch", value = false } },
}

local function fed(d)
  local extra = { category = d.category, product_name = d.product_name, sub = d.sub, uuid = d.uuid, biz_type = d.biz_type, icon = d.icon, ip = d.ip,
    time_zone = d.time_zone, active_time = d.active_time, create_time = d.create_time, update_time = d.update_time, gateway_id = d.gateway_id, mac = d.mac,
    logs = d.logs }
  return { device = d.id, name = d.name, owner = d.uid, place = d.owner_id, model = d.product_id, online = d.online, serial = d.sn, status = "active", extra = extra }
end

local function copy(t, changes)
  local c = {}
  for k, v in pairs(t) do c[k] = v end
  for k, v in pairs(changes or {}) do c[k] = v end
  return c
end

describe("tuya", function()
  local host, client, legacy, restricted, strict, strict_legacy, other
  local keys = {}
  local count = 0

  local function fresh(prefix)
    count = count + 1
    return prefix .. count
  end

  setup(function()
    host = bed.host { plugins = tuya.plugins(), config = [[connections = {
      { "feed", name = "ward", mount = "/ward" }, { "other", name = "lab", mount = "/lab" }, { "other", name = "hidden", mount = "/hidden" },
      { "tuya", name = "face", shows = { "ward", "lab" }, people = true },
      { "tuya", name = "strict", mount = "/strict", shows = { "ward" }, legacy_sign = false, schema = "testApp",
        scale = { cur_voltage = 2, ["cz.cur_power"] = 0 } } }]] }
    keys.face = assert(tuya.run(host, "face", "keys.issue"))
    keys.other = assert(tuya.run(host, "face", "keys.issue"))
    keys.restricted = assert(tuya.run(host, "face", "keys.issue", { uid = PLUG.uid }))
    keys.strict = assert(tuya.run(host, "strict", "keys.issue"))
    client, other, restricted = tuya.client(host, keys.face), tuya.client(host, keys.other), tuya.client(host, keys.restricted)
    legacy = tuya.client(host, keys.face, { legacy = true })
    strict, strict_legacy = tuya.client(host, keys.strict, { mount = "/strict" }), tuya.client(host, keys.strict, { legacy = true, mount = "/strict" })
    local at = NOW - 3 * DAY
    tuya.feed(host, "/ward", {
      devices = { fed(SCALE), fed(PLUG), fed { id = "gw-1", name = "Gateway", category = "wg2", owner_id = "home-1", uid = "u-gw", sub = false, product_id = "p-gw", online = true },
        fed { id = "leak-1", name = "水浸警报", category = "sj", owner_id = "home-1", uid = "u-gw", sub = true, gateway_id = "gw-1", product_id = "p-leak",
          online = true, active_time = 1586169374, update_time = 1586169379, sn = "SN-77", mac = "5c:cf:7f:01:02:03", uuid = "uu-leak" },
        fed { id = "mute-1", name = "Speaker", category = "znyxss", uid = "u-gw", logs = false },
        fed { id = "bare-1", name = "Bare" } },
      readings = {
        { device = SCALE.id, metric = "weight", value = 48900, at = at }, { device = SCALE.id, metric = "left_hand_r", value = 0, at = at },
        { device = SCALE.id, metric = "right_hand_r", value = 0, at = at }, { device = SCALE.id, metric = "left_leg_r", value = 0, at = at },
        { device = SCALE.id, metric = "right_leg_r", value = 0, at = at }, { device = SCALE.id, metric = "body_r", value = 653, at = at },
        { device = SCALE.id, metric = "battery_low", value = false, at = at },
        { device = PLUG.id, metric = "cur_power", value = 0, at = at }, { device = PLUG.id, metric = "cur_voltage", value = 219.6, at = at },
        { device = PLUG.id, metric = "switch", value = false, at = at }, { device = PLUG.id, metric = "countdown_1", value = 0, at = at },
        { device = PLUG.id, metric = "cur_current", value = 0, at = at },
      },
    })
    tuya.feed(host, "/hidden", { devices = { { device = "secret-1", owner = "u-hidden", status = "active" } },
      readings = { { device = "secret-1", metric = "x", value = 1 } } })
  end)
  teardown(function()
    host:read()
    for line in host.output:gmatch "[^\n]+" do assert.is_nil(line:find('"level":"error"', 1, true), line) end
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  -- A new device of its own for a case.
  local function device(changes)
    local d = fed(copy({ id = fresh "dev-", name = "A device", category = "cz", uid = PLUG.uid, owner_id = "home-2", product_id = "p-1", online = true,
      sub = false }, changes))
    tuya.feed(host, "/ward", { devices = { d } })
    return d.device
  end

  -- Refused with this code, and a msg that names the field.
  local function refused(code, field, method, target, body, change)
    local result, got, msg = client:call(method, target, body, change)
    assert.is_nil(result, ("%s %s was answered %s"):format(method, target, json.encode(result or "")))
    assert.equal(code, got, target .. ": " .. tostring(msg))
    if field then assert.truthy(msg:find(field, 1, true), msg) end
    return msg
  end

  describe("signatures", function()
    package.path = "./plugins/lib/?.lua;" .. package.path
    local sign = require "tuya.sign"
    local call = { client = "1KAD46OrT9HafiKdsXeg", secret = "4OHBOnWOqaEC1mWXOpVL3yV50s0qGSRC", t = "1588925778000",
      nonce = "5138cc3a9033d69856923fd07b491173" }
    local with_token = copy(call, { token = "3f4eda2bdec17232f67c0b188af3eec1" })
    local headers = sign.headers("area_id:call_id", { area_id = "29a33e8796834b1efa6", call_id = "8afdb70ab2ed11eb85290242ac130003" })

    it("are the vendor's vectors", function()
      assert.equal("9E48A3E93B302EEECC803C7241985D0A34EB944F40FB573C7B5C2A82158AF13E",
        sign.new(call, sign.text("GET", "", headers, sign.url "/v1.0/token?grant_type=1")))
      assert.equal("AE4481C692AA80B25F3A7E12C3A5FD9BBF6251539DD78E565A1A72A508A88784",
        sign.new(with_token, sign.text("GET", "", headers, sign.url "/v2.0/apps/schema/users?page_size=50&page_no=1")))
      assert.equal("CEAAFB5CCDC2F723A9FD3E91D3D2238EE0DD9A6D7C3C365DEB50FC2AF277AA83", sign.old(call))
      assert.equal("36C30E300F226B68ADD014DD1EF56A81EDB7B7A817840485769B9D6C96D0FAA1", sign.old(with_token))
    end)

    it("are over the path and the query sorted by key and not percent-encoded", function()
      assert.equal("/v1.0/devices/a b?codes=x,y&type=7&z=&z=1&2", sign.url "/v1.0/devices/a%20b?z=&type=7&z=1%262&codes=x%2Cy")
      local query = "type=1%2C7&start_time=0&end_time=" .. NOW .. "&size=20&codes=a%26b%2C%E4%BD%93"
      local target = "/v1.0/devices/" .. PLUG.id .. "/logs?"
      local signed = target .. ("codes=a&b,体&end_time=%d&size=20&start_time=0&type=1,7"):format(NOW)
      assert.truthy(client:get(target .. query, { signed = signed }))
      assert.truthy(client:get(target .. query))
      assert.equal(1004, select(2, client:get(target .. query, { signed = target .. query })))
    end)

    it("may be over a + as it is, or as the space that it stands for", function()
      local target = "/v1.0/devices?page_no=1&page_size=5&product_id=a+b"
      assert.truthy(client:get(target))
      assert.truthy(client:get(target, { signed = "/v1.0/devices?page_no=1&page_size=5&product_id=a b" }))
    end)

    it("are over the body's bytes, on GET and DELETE too", function()
      local target = "/v1.0/devices/" .. PLUG.id
      assert.truthy(client:call("GET", target, "{}"))
      refused(1004, nil, "GET", target, "{}", { body = "" })
      refused(1004, nil, "DELETE", target, " ", { body = "" })
      refused(1004, nil, "PUT", target, '{"name":"b"}', { body = '{"name":"a"}' })
      assert.is_true(client:call("PUT", target, '{ "name" :  "xxx测试" }'))
    end)

    it("take in the headers that Signature-Headers lists", function()
      local change = { listed = "area_id:call_id", headers = { area_id = "29a33e8796834b1efa6", call_id = "8afdb70ab2ed11eb85290242ac130003" } }
      assert.truthy(client:get("/v1.0/devices/" .. PLUG.id, change))
      local h = client:headers("GET", "/v1.0/devices/" .. PLUG.id, nil, change)
      h.area_id = "another"
      local _, text = host:request("GET", "/v1.0/devices/" .. PLUG.id, nil, h)
      assert.equal(1004, tuya.envelope(text).code)
    end)

    it("are refused with 1004 where they are wrong", function()
      local target = "/v1.0/devices/" .. PLUG.id
      refused(1004, nil, "GET", target, nil, { secret = keys.other.secret })
      refused(1004, nil, "GET", target, nil, { without = "sign" })
      refused(1004, nil, "GET", target, nil, { headers = { sign_method = "MD5" } })
      refused(1004, nil, "GET", target, nil, { signed = target .. "?a=1" })
      refused(1004, nil, "GET", target .. "?a=1", nil, { signed = target })
      refused(1004, nil, "PUT", target, { name = "x" }, { signed = "/v1.0/devices/" .. SCALE.id })
      local h = client:headers("GET", target)
      h.sign = h.sign:lower()
      assert.equal(1004, tuya.envelope(select(2, host:request("GET", target, nil, h))).code)
      local _, answer = client:raw("GET", "/v1.0/token?grant_type=1", nil, { token = false, secret = "x" })
      assert.equal(1004, answer.code)
      _, answer = client:raw("GET", "/v1.0/token?grant_type=1") -- a token call is signed without the token
      assert.equal(1004, answer.code)
    end)

    it("of old projects are good, unless legacy_sign is false", function()
      assert.equal(PLUG.id, legacy:get("/v1.0/devices/" .. PLUG.id).id)
      assert.equal(1004, select(2, legacy:get("/v1.0/devices/" .. PLUG.id, { secret = "x" })))
      assert.equal(PLUG.id, strict:get("/v1.0/devices/" .. PLUG.id).id)
      strict_legacy.token = strict.token
      assert.equal(1004, select(2, strict_legacy:get("/v1.0/devices/" .. PLUG.id)))
      local _, answer = strict_legacy:raw("GET", "/v1.0/token?grant_type=1", nil, { token = false })
      assert.equal(1004, answer.code)
    end)

    it("below a mount are over the whole path, or over the document's", function()
      assert.truthy(strict:get("/v1.0/devices/" .. PLUG.id, { signed = "/strict/v1.0/devices/" .. PLUG.id }))
      assert.truthy(strict:get("/v1.0/devices/" .. PLUG.id, { signed = "/v1.0/devices/" .. PLUG.id }))
      assert.equal(1004, select(2, strict:get("/v1.0/devices/" .. PLUG.id, { signed = "/devices/" .. PLUG.id })))
    end)

    it("older or newer than 5 minutes are 1013", function()
      local function at(offset) return { t = ("%d"):format(time.now() + offset) } end
      assert.truthy(client:get("/v1.0/devices/" .. PLUG.id, at(-290000)))
      assert.truthy(client:get("/v1.0/devices/" .. PLUG.id, at(290000)))
      for _, change in ipairs { at(-310000), at(310000), { t = "" }, { t = "x" }, { t = "1588925778" }, { t = ("9"):rep(30) }, { without = "t" } } do
        refused(1013, "t", "GET", "/v1.0/devices/" .. PLUG.id, nil, change)
      end
    end)

    it("with a nonce are good once", function()
      local nonce = fresh "5138cc3a9033d69856923fd07b4911"
      local change = { nonce = nonce }
      local t = ("%d"):format(time.now())
      change.t = t
      assert.truthy(client:get("/v1.0/devices/" .. PLUG.id, change))
      refused(1004, "nonce", "GET", "/v1.0/devices/" .. PLUG.id, nil, change)
      refused(1004, "nonce", "GET", "/v1.0/devices/" .. SCALE.id, nil, { nonce = nonce })
      assert.truthy(other:get("/v1.0/devices/" .. PLUG.id, change)) -- another client's is another
      refused(1004, nil, "GET", "/v1.0/devices/" .. PLUG.id, nil, { nonce = fresh "n", secret = "x" })
    end)

    it("of a nonce that was refused for its signature do not use it up", function()
      local nonce = fresh "good"
      refused(1004, nil, "GET", "/v1.0/devices/" .. PLUG.id, nil, { nonce = nonce, secret = "x" })
      assert.truthy(client:get("/v1.0/devices/" .. PLUG.id, { nonce = nonce }))
    end)
  end)

  describe("clients", function()
    it("that are unknown, or name none, are 1005", function()
      for _, id in ipairs { "unknown", "", "client/x", ("x"):rep(5000), "' or 1=1" } do
        refused(1005, nil, "GET", "/v1.0/devices/" .. PLUG.id, nil, { headers = { client_id = id } })
      end
      refused(1005, nil, "GET", "/v1.0/devices/" .. PLUG.id, nil, { without = "client_id" })
    end)

    it("of one connection are strangers to another", function()
      local stranger = tuya.client(host, keys.face, { mount = "/strict" })
      assert.equal(1005, select(2, stranger:raw("GET", "/v1.0/token?grant_type=1", nil, { token = false })).code)
    end)

    it("are listed without their secrets, and revoked with their tokens", function()
      local key = assert(tuya.run(host, "face", "keys.issue", { uid = "u-9" }))
      assert.equal("u-9", key.uid)
      assert.truthy(key.client_id:find "^%w+$" and #key.secret == 32)
      local mine
      for _, c in ipairs(assert(tuya.run(host, "face", "keys.list"))) do
        assert.is_nil(c.secret)
        if c.client_id == key.client_id then mine = c end
      end
      assert.equal("u-9", mine.uid)
      assert.is_true(mine.restricted)
      local c = tuya.client(host, key):sign_in()
      assert.equal(1106, select(2, c:get("/v1.0/devices/" .. PLUG.id)))
      assert.truthy(tuya.run(host, "face", "keys.revoke", { client_id = key.client_id }))
      assert.equal(1005, select(2, c:get("/v1.0/devices/" .. PLUG.id)))
      local nothing, why = tuya.run(host, "face", "keys.revoke", { client_id = key.client_id })
      assert.is_nil(nothing)
      assert.truthy(why:find "keys.list", why)
    end)

    it("have secrets and tokens that the store does not show", function()
      client:sign_in()
      assert.is_true(tuya.stored(host, keys.face.client_id))
      for _, secret in ipairs { keys.face.secret, client.token, client.refresh_token } do assert.is_false(tuya.stored(host, secret)) end
    end)
  end)

  describe("GET /v1.0/token", function()
    local function token(c, target) return select(2, c:raw("GET", target or "/v1.0/token?grant_type=1", nil, { token = false })) end

    it("gives a token for 7200 s, and the same with the time that is left when asked again", function()
      local c = tuya.client(host, assert(tuya.run(host, "face", "keys.issue")))
      local first = token(c).result
      assert.equal(7200, first.expire_time)
      assert.equal("integer", math.type(first.expire_time))
      assert.truthy(#first.access_token == 32 and #first.refresh_token == 32 and first.access_token ~= first.refresh_token)
      assert.equal(c.uid, first.uid)
      local again = token(c).result
      assert.equal(first.access_token, again.access_token)
      assert.equal(first.refresh_token, again.refresh_token)
      assert.is_true(again.expire_time <= 7200 and again.expire_time > 7100)
    end)

    it("takes grant_type 1 alone: 1003", function()
      for _, target in ipairs { "/v1.0/token", "/v1.0/token?grant_type=", "/v1.0/token?grant_type=2", "/v1.0/token?grant_type=01" } do
        local answer = token(client, target)
        assert.equal(1003, answer.code)
        assert.truthy(answer.msg:find "grant")
      end
    end)

    it("with a refresh token gives a new pair, once", function()
      local c = tuya.client(host, assert(tuya.run(host, "face", "keys.issue"))):sign_in()
      local old = c.token
      assert.truthy(c:get("/v1.0/devices/" .. PLUG.id))
      local new = token(c, "/v1.0/token/" .. c.refresh_token).result
      assert.are_not.equal(old, new.access_token)
      assert.equal(7200, new.expire_time)
      assert.equal(1010, token(c, "/v1.0/token/" .. c.refresh_token).code)
      assert.equal("token invalid", token(c, "/v1.0/token/" .. c.refresh_token).msg)
      assert.equal(1010, select(2, c:get("/v1.0/devices/" .. PLUG.id))) -- the old one is over
      c.token = new.access_token
      assert.truthy(c:get("/v1.0/devices/" .. PLUG.id))
      assert.equal(1010, token(c, "/v1.0/token/" .. ("0"):rep(32)).code)
      assert.equal(1011, token(other, "/v1.0/token/" .. new.refresh_token).code)
      assert.equal(new.access_token, token(c).result.access_token) -- the other's try has not used it up
    end)
  end)

  describe("an access token", function()
    local target = "/v1.0/devices/" .. PLUG.id
    it("that is missing is 1002", function()
      refused(1002, nil, "GET", target, nil, { token = false })
      refused(1002, nil, "GET", target, nil, { token = "" })
    end)
    it("that is unknown or was replaced is 1010, token invalid", function()
      for _, t in ipairs { ("0"):rep(32), "x", ("x"):rep(3000) } do
        assert.equal("token invalid", refused(1010, nil, "GET", target, nil, { token = t }))
      end
      refused(1010, nil, "GET", target, nil, { token = client:sign_in().refresh_token })
    end)
    it("of another client is 1011", function()
      refused(1011, nil, "GET", target, nil, { token = other:sign_in().token })
    end)
    it("that has expired is 1010", function()
      local c = tuya.client(host, assert(tuya.run(host, "face", "keys.issue"))):sign_in()
      -- The clock cannot be moved from here: the store says when it ends.
      host:stop()
      local out, code = bed.run { "sqlite3", host.store, ("update kv set expires = 1 where key = 'access:%s'"):format(crypto.sha256(c.token)) }
      assert(code == 0, out)
      host:begin()
      assert.equal(1010, select(2, c:get(target)))
      assert.are_not.equal(c.token, select(2, c:raw("GET", "/v1.0/token?grant_type=1", nil, { token = false })).result.access_token)
    end)
  end)

  describe("paths and methods that there are not", function()
    it("are 1108", function()
      for _, m in ipairs { { "GET", "/v1.0" .. "/nothing" }, { "GET", "/v1.0/" }, { "POST", "/v1.0/devices" }, { "POST", "/v1.0/devices/" .. PLUG.id },
        { "PUT", "/v1.0/token" }, { "DELETE", "/v1.0/devices/x/user" }, { "GET", "/v1.0/devices/x/user" }, { "POST", "/v1.0/devices/x/users" },
        { "GET", "/v1.0/devices/x/multiple-name" }, { "PUT", "/v1.0/devices/x/multiple-names" }, { "GET", "/v1.0/iot-03/devices/x" }, { "GET", "/v2.0/cloud/thing/x" },
        { "PATCH", "/v1.0/devices/" .. PLUG.id }, { "GET", "/v1.0/devices/x/functions/switch_1" }, { "PUT", "/v1.0/devices/factory-infos/x" } } do
        local status, text = host:request(m[1], m[2], m[1] ~= "GET" and "{}" or nil)
        assert.equal(200, status, text)
        assert.equal(1108, tuya.envelope(text).code, m[1] .. " " .. m[2])
      end
    end)
  end)

  -- Every endpoint with an id: a device of a connection that is not shown, one that does not exist, one that was removed, and for a
  -- restricted client somebody else's, are all the same 1106.
  describe("somebody else's device or user", function()
    local calls = {
      { "GET", "/v1.0/devices/%s" }, { "GET", "/v1.0/devices/factory-infos?device_ids=%s" }, { "GET", "/v1.0/devices?device_ids=%s" },
      { "GET", "/v1.0/devices/%s/logs?end_time=" .. NOW .. "&type=7" }, { "GET", "/v1.0/devices/%s/sub-devices" }, { "GET", "/v1.0/devices/%s/users" },
      { "GET", "/v1.0/devices/%s/users/5121231" }, { "GET", "/v1.0/devices/%s/multiple-names" }, { "PUT", "/v1.0/devices/%s", { name = "x" } },
      { "PUT", "/v1.0/devices/%s/functions/switch_1", { name = "x" } }, { "PUT", "/v1.0/devices/%s/reset-factory" }, { "DELETE", "/v1.0/devices/%s" },
      { "POST", "/v1.0/devices/%s/user", { nick_name = "x", sex = 1 } }, { "PUT", "/v1.0/devices/%s/users/5121231", { nick_name = "x", sex = 1 } },
      { "DELETE", "/v1.0/devices/%s/users/5121231" }, { "PUT", "/v1.0/devices/%s/multiple-name", { identifier = "switch_1", name = "x" } },
    }

    it("is 1106 for every endpoint, with the same words as one that there is not", function()
      local gone = device()
      assert.is_true(client:call("DELETE", "/v1.0/devices/" .. gone))
      for _, c in ipairs(calls) do
        local words = refused(1106, nil, c[1], c[2]:format "nobody-1", c[3])
        for _, id in ipairs { "secret-1", gone, "other:secret-1", "%E4%BD%93", "%01", ("x"):rep(2000) } do
          local target = c[2]:format(id)
          local _, code, msg = client:call(c[1], target, c[3])
          assert.equal(1106, code, c[1] .. " " .. target)
          assert.equal(words, msg)
        end
        local _, code, msg = restricted:call(c[1], c[2]:format(SCALE.id), c[3])
        assert.equal(1106, code, c[1] .. " " .. c[2])
        assert.equal(words, msg)
      end
      assert.equal("active", host:sql "select status from devices where device = 'secret-1'"[1].status)
    end)

    it("is 1106 for a user", function()
      for _, uid in ipairs { "nobody", "u-hidden", "ay999" } do refused(1106, nil, "GET", "/v1.0/users/" .. uid .. "/devices") end
      assert.equal(1106, select(2, restricted:get("/v1.0/users/" .. SCALE.uid .. "/devices")))
      assert.equal(1106, select(2, restricted:get("/v1.0/users/" .. client.uid .. "/devices")))
    end)

    it("does not spoil a list of one's own: the whole is refused", function()
      refused(1106, nil, "GET", "/v1.0/devices?device_ids=" .. PLUG.id .. ",secret-1")
      refused(1106, nil, "GET", "/v1.0/devices/factory-infos?device_ids=" .. PLUG.id .. ",nobody")
    end)
  end)

  describe("GET /v1.0/devices/{device_id}", function()
    it("is the document's sample", function()
      local d, text = client:get("/v1.0/devices/" .. SCALE.id)
      assert.same(SCALE, d)
      for _, field in ipairs { "active_time", "biz_type", "create_time", "update_time" } do assert.equal("integer", math.type(d[field]), field) end
      assert.truthy(text:find('"value":48900', 1, true) and text:find('"value":false', 1, true) and text:find('"value":653', 1, true))
    end)

    it("has a status of [] where there is none, and every documented field", function()
      local d, text = client:get "/v1.0/devices/bare-1"
      assert.truthy(text:find('"status":[]', 1, true), text)
      for _, field in ipairs { "id", "name", "uid", "category", "product_id", "product_name", "uuid", "owner_id", "icon", "ip", "time_zone" } do
        assert.equal("string", type(d[field]), field)
      end
      assert.equal("boolean", type(d.sub))
      assert.equal("boolean", type(d.online))
      for _, field in ipairs { "active_time", "create_time", "update_time", "biz_type" } do assert.equal("integer", math.type(d[field]), field) end
      assert.is_true(math.abs(d.create_time - NOW // 1000) < 600)
    end)

    it("gives numbers as Tuya's integers by their scale, and native values where there is none", function()
      local id = device()
      tuya.feed(host, "/ward", { readings = {
        { device = id, metric = "cur_voltage", value = 230, at = NOW }, { device = id, metric = "cur_power", value = 12.34, at = NOW },
        { device = id, metric = "add_ele", value = 0.007, at = NOW }, { device = id, metric = "va_temperature", value = -1.5, at = NOW },
        { device = id, metric = "battery_percentage", value = 55.0, at = NOW }, { device = id, metric = "cur_current", value = 0.5, at = NOW },
        { device = id, metric = "glucose", value = 5.6, at = NOW }, { device = id, metric = "mode", value = "btm", at = NOW },
        { device = id, metric = "big", value = 9007199254740993, at = NOW }, { device = id, metric = "on", value = true, at = NOW } } })
      local _, text = client:get("/v1.0/devices/" .. id)
      local status = text:match '"status":%[(.-)%]'
      for code, value in pairs { cur_voltage = "2300", cur_power = "123", add_ele = "7", va_temperature = "-15", battery_percentage = "55", cur_current = "0.5",
        glucose = "5.6", mode = '"btm"', big = "9007199254740993", on = "true" } do
        local object = status:match('{[^{}]*"code":"' .. code .. '"[^{}]*}')
        assert.equal(value, object and object:match '"value":([^,}]+)', code .. " in " .. status)
      end
    end)

    it("takes a connection's own scales before the table", function()
      local d = strict:get("/v1.0/devices/" .. PLUG.id)
      local by = {}
      for _, s in ipairs(d.status) do by[s.code] = s.value end
      assert.equal(21960, by.cur_voltage)
    end)

    it("shows each metric's newest reading", function()
      local id = device()
      tuya.feed(host, "/ward", { readings = { { device = id, metric = "switch", value = true, at = NOW - 1000 }, { device = id, metric = "switch", value = false, at = NOW - 5000 } } })
      assert.same({ { code = "switch", value = true } }, client:get("/v1.0/devices/" .. id).status)
    end)

    it("shows devices of other vendors, two of the same id apart", function()
      tuya.feed(host, "/lab", { devices = { { device = "AHU-7", name = "Air handler", serial = "S7", model = "AHU", status = "active", online = true } },
        readings = { { device = "AHU-7", metric = "Supply temperature", value = 21.5, unit = "Cel", at = NOW } } })
      local d = client:get "/v1.0/devices/AHU-7"
      assert.equal("Air handler", d.name)
      assert.equal("AHU", d.product_id)
      assert.same({ { code = "Supply temperature", value = 21.5 } }, d.status)
      tuya.feed(host, "/ward", { devices = { { device = "AHU-7", name = "Its namesake" } } })
      assert.equal("Air handler", client:get("/v1.0/devices/AHU-7").name)
      local namesake = client:get "/v1.0/devices/feed:AHU-7"
      assert.equal("Its namesake", namesake.name)
      assert.equal("feed:AHU-7", namesake.id)
      assert.equal("AHU-7", client:get("/v1.0/devices/other:AHU-7").id)
      assert.equal("feed:AHU-7", client:get("/v1.0/devices/feed:AHU-7/logs?type=7&end_time=" .. NOW).device_id)
    end)

    it("writes ids with a slash so that they fit into a path", function()
      tuya.feed(host, "/lab", { devices = { { device = "campus/E~1", name = "Chiller", model = "slashed" } },
        readings = { { device = "campus/E~1", metric = "temp", value = 6.5, at = NOW } } })
      local id = client:get("/v1.0/devices?product_id=slashed").devices[1].id
      assert.equal("campus~1E~01", id)
      assert.equal("Chiller", client:get("/v1.0/devices/" .. id).name)
      local target = "/v1.0/devices/" .. id .. "/logs?type=7&size=1&end_time=" .. NOW
      local page = client:get(target)
      assert.same({ id, "6.5" }, { page.device_id, page.logs[1].value })
      assert.same(page, client:get(target .. "&start_row_key=" .. page.current_row_key:gsub("[+/=]", { ["+"] = "%2B", ["/"] = "%2F", ["="] = "%3D" })))
      assert.equal(id, client:get("/v1.0/devices/factory-infos?device_ids=" .. id)[1].id)
    end)
  end)

  describe("GET /v1.0/users/{uid}/devices", function()
    it("is the document's sample", function()
      local list, text = client:get("/v1.0/users/" .. SCALE.uid .. "/devices")
      assert.same({ SCALE }, list)
      assert.truthy(text:find('"result":[', 1, true))
    end)

    it("pages, or gives all", function()
      local uid = fresh "owner-"
      local ids = {}
      for i = 1, 25 do ids[i] = device { uid = uid } end
      local function names(target)
        local list = assert(client:get(target))
        for i, d in ipairs(list) do list[i] = d.id end
        return list
      end
      local target = "/v1.0/users/" .. uid .. "/devices"
      assert.same(ids, names(target))
      assert.same({ table.unpack(ids, 1, 10) }, names(target .. "?page_no=1&page_size=10"))
      assert.same({ table.unpack(ids, 21, 25) }, names(target .. "?page_no=3&page_size=10"))
      assert.same({ table.unpack(ids, 1, 20) }, names(target .. "?page_no=1"))
      assert.same({ table.unpack(ids, 1, 7) }, names(target .. "?page_size=7"))
      assert.same(ids, names(target .. "?from=home"))
      local _, text = client:get(target .. "?page_no=4&page_size=10")
      assert.truthy(text:find('"result":[]', 1, true), text)
      _, text = client:get(target .. "?from=sharing")
      assert.truthy(text:find('"result":[]', 1, true), text)
    end)

    it("of the client itself is all that it sees, or its user's", function()
      local list = client:get("/v1.0/users/" .. client.uid .. "/devices")
      local ids = {}
      for _, d in ipairs(list) do ids[d.id] = true end
      assert.is_true(ids[PLUG.id] and ids[SCALE.id] and ids["bare-1"] and not ids["secret-1"])
      for _, d in ipairs(restricted:get("/v1.0/users/" .. PLUG.uid .. "/devices")) do assert.equal(PLUG.uid, d.uid) end
    end)

    it("refuses parameters that are none", function()
      local target = "/v1.0/users/" .. PLUG.uid .. "/devices?"
      refused(1109, "from", "GET", target .. "from=work")
      refused(1104, "page_no", "GET", target .. "page_no=x")
      refused(1101, "page_no", "GET", target .. "page_no=0")
      refused(1101, "page_size", "GET", target .. "page_size=0")
      refused(1101, "page_size", "GET", target .. "page_size=1001")
      assert.truthy(client:get(target .. "page_size=1000"))
    end)
  end)

  describe("GET /v1.0/devices", function()
    local product = "p-paged"
    local ids = {}
    local function list(target, c)
      local result = assert((c or client):get(target))
      local got = {}
      for i, d in ipairs(result.devices) do got[i] = d.id end
      return got, result
    end

    setup(function()
      for i = 1, 45 do ids[i] = device { product_id = product, create_time = 1600000000 + i } end
    end)

    it("has total, devices and last_id", function()
      local got, result = list("/v1.0/devices?product_id=" .. product)
      assert.same({ table.unpack(ids, 1, 20) }, got)
      assert.equal(45, result.total)
      assert.equal("integer", math.type(result.total))
      assert.truthy(result.last_id:find "^%d+$")
      local d = list("/v1.0/devices?device_ids=" .. SCALE.id)
      assert.same({ SCALE.id }, d)
      assert.same(SCALE, client:get("/v1.0/devices?device_ids=" .. SCALE.id).devices[1])
    end)

    it("pages by page_no and page_size", function()
      assert.same({ table.unpack(ids, 21, 40) }, (list("/v1.0/devices?page_no=2&page_size=20&product_id=" .. product)))
      assert.same({ table.unpack(ids, 41, 45) }, (list("/v1.0/devices?page_no=3&page_size=20&product_id=" .. product)))
      local none, result = list("/v1.0/devices?page_no=4&page_size=20&product_id=" .. product)
      assert.same({}, none)
      assert.equal(45, result.total)
      assert.truthy(select(2, client:get("/v1.0/devices?page_no=99&page_size=20")):find('"devices":[]', 1, true))
    end)

    it("pages by last_id and page_size, to the last, each once", function()
      local got, last = {}, ""
      repeat
        local page, result = list(("/v1.0/devices?last_id=%s&page_size=7&product_id=%s"):format(last, product))
        for _, id in ipairs(page) do got[#got + 1] = id end
        last = result.last_id
      until #page < 7
      assert.same(ids, got)
    end)

    it("goes from page_no to last_id", function()
      local _, result = list("/v1.0/devices?page_no=1&page_size=20&product_id=" .. product)
      assert.same({ table.unpack(ids, 21, 30) }, (list("/v1.0/devices?last_id=" .. result.last_id .. "&page_size=10&product_id=" .. product)))
    end)

    it("takes schema, product_id or device_ids in place of a page", function()
      assert.truthy(client:get "/v1.0/devices?schema=testApp")
      assert.same({ ids[3], ids[1] }, (list("/v1.0/devices?device_ids=" .. ids[3] .. "," .. ids[1])))
      assert.same({ ids[3] }, (list("/v1.0/devices?device_ids=" .. ids[3] .. ",," .. ids[3])))
      assert.same({}, (list "/v1.0/devices?product_id=nothing"))
      assert.truthy(strict:get "/v1.0/devices?schema=testApp")
      assert.equal(1106, select(2, strict:get "/v1.0/devices?schema=another"))
    end)

    it("takes the time of the first pairing, in 10 digits", function()
      local target = "/v1.0/devices?product_id=" .. product
      assert.same({ table.unpack(ids, 40, 45) }, (list(target .. "&start_time=1600000040")))
      assert.same({ table.unpack(ids, 1, 3) }, (list(target .. "&end_time=1600000003")))
      local got, result = list(target .. "&start_time=1600000010&end_time=1600000019&page_no=2&page_size=4")
      assert.same({ table.unpack(ids, 14, 17) }, got)
      assert.equal(10, result.total)
      local more = list(target .. "&start_time=1600000010&end_time=1600000019&last_id=" .. result.last_id .. "&page_size=4")
      assert.same({ table.unpack(ids, 18, 19) }, more)
      refused(1101, "start_time", "GET", target .. "&start_time=1600000010000")
      refused(1109, "start_time", "GET", target .. "&start_time=160000")
      refused(1109, "end_time", "GET", target .. "&end_time=x")
      refused(1101, "start_time", "GET", target .. "&start_time=1600000019&end_time=1600000018")
    end)

    it("says which parameter is missing or wrong", function()
      refused(1100, "page_no", "GET", "/v1.0/devices")
      refused(1100, "page_no", "GET", "/v1.0/devices?page_size=20")
      refused(1100, "page_size", "GET", "/v1.0/devices?page_no=1")
      refused(1100, "page_size", "GET", "/v1.0/devices?last_id=1")
      refused(1100, "page_no", "GET", "/v1.0/devices?schema=")
      refused(1104, "page_no", "GET", "/v1.0/devices?page_no=one&page_size=20")
      refused(1101, "page_no", "GET", "/v1.0/devices?page_no=0&page_size=20")
      refused(1101, "page_no", "GET", "/v1.0/devices?page_no=-1&page_size=20")
      refused(1101, "page_size", "GET", "/v1.0/devices?page_no=1&page_size=0")
      refused(1101, "page_size", "GET", "/v1.0/devices?page_no=1&page_size=1001")
      refused(1109, "last_id", "GET", "/v1.0/devices?last_id=x&page_size=20")
      local many = {}
      for i = 1, 101 do many[i] = ids[1] .. "x" .. i end
      assert.equal(1106, select(2, client:get("/v1.0/devices?device_ids=" .. table.concat(many, ","))))
    end)

    it("shows a restricted client its user's devices alone", function()
      local _, result = list("/v1.0/devices?page_no=1&page_size=1000", restricted)
      for _, d in ipairs(result.devices) do assert.equal(PLUG.uid, d.uid) end
      assert.equal(result.total, #result.devices)
    end)
  end)

  describe("PUT /v1.0/devices/{device_id}/functions/{function_code}", function()
    it("renames a function, which is then among the multiple names", function()
      local id = device()
      local _, text = client:call("PUT", "/v1.0/devices/" .. id .. "/functions/switch_1", { name = "lalal" })
      assert.truthy(text:find('"result":true', 1, true))
      assert.same({ { identifier = "switch_1", name = "lalal" } }, client:get("/v1.0/devices/" .. id .. "/multiple-names"))
    end)
    it("needs a name, of text, and a function code", function()
      local target = "/v1.0/devices/" .. PLUG.id .. "/functions/switch_1"
      refused(1100, "name", "PUT", target, "{}")
      refused(1104, "name", "PUT", target, { name = 1 })
      refused(1100, "name", "PUT", target, { name = json.null })
      refused(1104, nil, "PUT", target, "[1]")
      refused(1109, "JSON", "PUT", target, "{")
      refused(1101, "name", "PUT", target, { name = ("x"):rep(256) })
      assert.is_true(client:call("PUT", target, { name = ("x"):rep(255) }))
      refused(1109, "function_code", "PUT", "/v1.0/devices/" .. PLUG.id .. "/functions/a-b", { name = "x" })
    end)
  end)

  describe("GET /v1.0/devices/{device_id}/logs", function()
    local id
    local at = NOW - 2 * DAY
    setup(function()
      id = device()
      local readings, events = {}, {}
      for i = 1, 30 do
        readings[i] = { device = id, metric = i % 2 == 0 and "switch_1" or "cur_voltage", value = i % 2 ~= 0 and 219 + i / 10 or i % 4 == 0, at = at + i * 1000,
          extra = i == 30 and { event_from = "2" } or nil }
      end
      readings[31] = { device = id, metric = "switch_1", value = true, at = NOW - 10 * DAY }
      for i, name in ipairs { "online", "offline", "activated", "reset", "command", "firmware", "signal", "restart", "schedule" } do
        events[i] = { device = id, type = name, at = at + i * 1000 + 500, data = name == "command" and { event_from = "4", code = "switch_1", value = false } or nil }
      end
      events[10] = { device = id, type = "binding", at = at + 100 }
      events[11] = { device = id, type = "online", at = at + 30000 } -- at the same ms as a reading
      tuya.feed(host, "/ward", { readings = readings, events = events })
    end)

    local function target(query) return "/v1.0/devices/" .. id .. "/logs?" .. query .. (query:find "end_time" and "" or "&end_time=" .. NOW) end
    local function logs(query) return client:get(target(query)) end
    local function bad(code, field, query) refused(code, field, "GET", query:find "^/" and query or target(query)) end

    it("has the fields of the free sample, to the type", function()
      local result, text = logs "type=7&size=2&start_time=0"
      assert.equal(id, result.device_id)
      assert.is_true(result.has_next)
      assert.equal(2, #result.logs)
      assert.same({ code = "switch_1", value = "false", event_time = at + 30000, event_from = "2", event_id = 7 }, result.logs[1])
      assert.same({ code = "cur_voltage", value = "2219", event_time = at + 29000, event_from = "1", event_id = 7 }, result.logs[2])
      assert.truthy(text:find('"event_id":7', 1, true) and text:find('"value":"false"', 1, true) and text:find('"event_from":"1"', 1, true))
      assert.equal("string", type(result.current_row_key))
      assert.equal("string", type(result.next_row_key))
      assert.is_nil(result.count)
    end)

    it("is by default 20 of the last 7 days, newest first", function()
      local result = logs "type=7"
      assert.equal(20, #result.logs)
      for i = 2, 20 do assert.is_true(result.logs[i].event_time < result.logs[i - 1].event_time) end
      assert.equal(30, #logs("type=7&size=100").logs) -- the 31st is older
      assert.equal(30, #logs("type=7&size=100&start_time=").logs)
      assert.equal(30, #logs("type=7&size=100&start_time=0").logs)
      assert.equal(31, #logs("type=7&size=100&start_time=" .. NOW - 20 * DAY).logs)
    end)

    it("pages by start_row_key, each entry once, and next_row_key is null at the end", function()
      local seen, key, pages = {}, "", 0
      repeat
        local result, text = logs("type=1,2,3,4,5,6,7,8,9,10&size=7&start_row_key=" .. key:gsub("[+/=]", { ["+"] = "%2B", ["/"] = "%2F", ["="] = "%3D" }))
        for _, e in ipairs(result.logs) do seen[#seen + 1] = e end
        pages = pages + 1
        if result.next_row_key == json.null then
          assert.is_false(result.has_next)
          assert.truthy(text:find('"next_row_key":null', 1, true))
          key = nil
        else key = result.next_row_key end
      until not key
      assert.equal(40, #seen)
      assert.equal(6, pages)
      for i = 2, #seen do assert.is_true(seen[i].event_time <= seen[i - 1].event_time) end
      local whole = logs "type=1,2,3,4,5,6,7,8,9,10&size=100"
      assert.same(whole.logs, seen)
    end)

    it("pages by last_row_key and last_event_time where it is paid, with row, count and status", function()
      local seen, key, event_time = {}, nil, nil
      repeat
        local result = logs("type=1,7&query_type=2&size=6" .. (key and "&last_row_key=" .. key .. "&last_event_time=" .. event_time or ""))
        assert.equal(32, result.count)
        assert.is_nil(result.next_row_key)
        for _, e in ipairs(result.logs) do
          assert.equal("1", e.status)
          assert.equal("string", type(e.row))
          seen[#seen + 1] = e
        end
        local last = result.logs[#result.logs]
        key, event_time = last.row, last.event_time
      until not result.has_next
      assert.equal(32, #seen)
      local rows = {}
      for _, e in ipairs(seen) do
        assert.is_nil(rows[e.row])
        rows[e.row] = true
      end
      assert.equal(12, logs("type=1,5,7&query_type=2&codes=cur_voltage&end_time=" .. at + 24500 .. "&start_time=" .. at).count - 1) -- and one that has no code
    end)

    it("has types 1 to 10: readings are 7, events the others", function()
      for n, name in ipairs { "online", "offline", "activated", "reset", "command", "firmware", false, "signal", "restart", "schedule" } do
        if name then
          local result = logs("type=" .. n .. "&start_time=" .. at .. "&end_time=" .. at + 29000)
          assert.equal(1, #result.logs, name)
          assert.equal(n, result.logs[1].event_id)
          assert.equal(name == "command" and "4" or "1", result.logs[1].event_from)
        end
      end
      local command = logs("type=5").logs[1]
      assert.equal("switch_1", command.code)
      assert.equal("false", command.value)
    end)

    it("is limited by codes, start_time and end_time, both included", function()
      local result = logs "type=7&codes=switch_1&size=100"
      assert.equal(15, #result.logs)
      for _, e in ipairs(result.logs) do assert.equal("switch_1", e.code) end
      assert.equal(30, #logs("type=7&codes=switch_1,cur_voltage&size=100").logs)
      assert.equal(0, #logs("type=7&codes=nothing").logs)
      result = logs("type=7&start_time=" .. at + 5000 .. "&end_time=" .. at + 8000)
      assert.equal(4, #result.logs)
      assert.truthy(select(2, logs("type=7&start_time=1000000000000&end_time=1000000000001")):find('"logs":[]', 1, true))
    end)

    it("takes the document's requests", function()
      assert.truthy(logs("start_row_key=&type=1,2&start_time=0&end_time=" .. NOW .. "&size=20"))
    end)

    it("says which parameter is missing or wrong", function()
      bad(1100, "type", "size=1")
      bad(1100, "end_time", "/v1.0/devices/" .. id .. "/logs?type=7")
      for _, type in ipairs { "0", "11", "7,11", "x", "7;1", "1,,2", "-1", "1.5" } do bad(1104, "type", "type=" .. type) end
      bad(1101, "type", "type=")
      bad(1109, "start_time", "type=7&start_time=1600000000")
      bad(1109, "start_time", "type=7&start_time=x")
      bad(1101, "start_time", "type=7&start_time=16000000000000")
      bad(1109, "end_time", "type=7&end_time=1600000000")
      bad(1101, "start_time", "type=7&start_time=" .. NOW .. "&end_time=" .. NOW - 1)
      bad(1104, "size", "type=7&size=x")
      bad(1101, "size", "type=7&size=0")
      bad(1101, "size", "type=7&size=1001")
      bad(1109, "query_type", "type=7&query_type=3")
      bad(1104, "query_type", "type=7&query_type=x")
      bad(1109, "start_row_key", "type=7&start_row_key=x")
      bad(1109, "start_row_key", "type=7&start_row_key=" .. crypto.base64("other_1_7_1"):gsub("=", "%%3D"))
      bad(1100, "last_event_time", "type=7&query_type=2&last_row_key=x")
      bad(1100, "last_row_key", "type=7&query_type=2&last_event_time=1")
      bad(1109, "last_row_key", "type=7&query_type=2&last_row_key=x&last_event_time=1")
    end)

    it("leaves out what is not valid, as the status does", function()
      local sensor = device()
      tuya.feed(host, "/ward", { readings = { { device = sensor, metric = "glucose", value = 5.5, at = NOW - 2000 },
        { device = sensor, metric = "glucose", value = 1.5, at = NOW - 1000, quality = "invalid" }, { device = sensor, metric = "other", value = 1, at = NOW - 1000, quality = "warmup" } } })
      local result = client:get("/v1.0/devices/" .. sensor .. "/logs?end_time=" .. NOW .. "&query_type=2&type=1,7")
      assert.equal(1, #result.logs)
      assert.equal(1, result.count)
      assert.equal("5.5", result.logs[1].value)
      assert.same({}, client:get("/v1.0/devices/" .. sensor).status)
    end)

    it("of a device that keeps none is 2009", function()
      local _, code, msg = client:get("/v1.0/devices/mute-1/logs?end_time=" .. NOW .. "&type=7")
      assert.equal(2009, code)
      assert.equal("not support this device", msg)
    end)

    it("goes through many entries of one millisecond", function()
      local busy = device()
      local readings = {}
      for i = 1, 250 do readings[i] = { device = busy, metric = "m" .. i, value = i, at = NOW - HOUR } end
      tuya.feed(host, "/ward", { readings = readings })
      local seen, n, key = {}, 0, ""
      repeat
        local t = ("/v1.0/devices/%s/logs?end_time=%d&size=60&start_row_key=%s&type=7"):format(busy, NOW, key:gsub("=", "%%3D"))
        local result = client:get(t)
        for _, e in ipairs(result.logs) do
          assert.is_nil(seen[e.code])
          seen[e.code], n = true, n + 1
        end
        key = result.next_row_key
      until key == json.null
      assert.equal(250, n)
    end)
  end)

  describe("PUT /v1.0/devices/{device_id}/reset-factory", function()
    it("is a reset in the device's log", function()
      local id = device()
      local _, text = client:call("PUT", "/v1.0/devices/" .. id .. "/reset-factory")
      assert.truthy(text:find('"result":true', 1, true))
      local result = client:get("/v1.0/devices/" .. id .. "/logs?end_time=" .. time.now() .. "&type=4")
      assert.equal(1, #result.logs)
      assert.equal("3", result.logs[1].event_from)
    end)
  end)

  describe("DELETE /v1.0/devices/{device_id}", function()
    it("removes a device from all that is shown, with its users and names", function()
      local uid = fresh "remover-"
      local id, stays = device { uid = uid }, device { uid = uid }
      local user = client:call("POST", "/v1.0/devices/" .. id .. "/user", { nick_name = "gone", sex = 1 })
      client:call("PUT", "/v1.0/devices/" .. id .. "/multiple-name", { identifier = "switch_1", name = "gone" })
      assert.is_true(client:call("DELETE", "/v1.0/devices/" .. id))
      refused(1106, nil, "GET", "/v1.0/devices/" .. id)
      refused(1106, nil, "DELETE", "/v1.0/devices/" .. id)
      refused(1106, nil, "GET", "/v1.0/devices/" .. id .. "/users/" .. user)
      local list = client:get("/v1.0/users/" .. uid .. "/devices")
      assert.equal(1, #list)
      assert.equal(stays, list[1].id)
      assert.equal("unbound", host:sql(("select status from devices where device = '%s'"):format(id))[1].status)
      tuya.feed(host, "/ward", { devices = { { device = id, status = "active" } } }) -- bound again, without what it had
      assert.truthy(client:get("/v1.0/devices/" .. id))
      assert.same({}, client:get("/v1.0/devices/" .. id .. "/users"))
      assert.same({}, client:get("/v1.0/devices/" .. id .. "/multiple-names"))
    end)
  end)

  describe("GET /v1.0/devices/{deviceId}/sub-devices", function()
    it("is the document's sample", function()
      local list = client:get "/v1.0/devices/gw-1/sub-devices"
      assert.same({ { active_time = 1586169374, category = "sj", id = "leak-1", name = "水浸警报", online = true, owner_id = "home-1", product_id = "p-leak",
        update_time = 1586169379 } }, list)
    end)
    it("is [] where there are none", function()
      assert.truthy(select(2, client:get("/v1.0/devices/" .. PLUG.id .. "/sub-devices")):find('"result":[]', 1, true))
    end)
  end)

  describe("GET /v1.0/devices/factory-infos", function()
    it("is served before {device_id}, with id, uuid, sn and mac", function()
      local list = client:get("/v1.0/devices/factory-infos?device_ids=leak-1," .. PLUG.id)
      assert.same({ { id = "leak-1", uuid = "uu-leak", sn = "SN-77", mac = "5c:cf:7f:01:02:03" }, { id = PLUG.id, uuid = PLUG.uuid } }, list)
    end)
    it("needs device_ids, at most 100", function()
      refused(1100, "device_ids", "GET", "/v1.0/devices/factory-infos")
      refused(1101, "device_ids", "GET", "/v1.0/devices/factory-infos?device_ids=")
      refused(1100, "device_ids", "GET", "/v1.0/devices/factory-infos?device_ids=,")
      local uid, ids = fresh "many-", {}
      for i = 1, 101 do ids[i] = device { uid = uid } end
      assert.equal(100, #client:get("/v1.0/devices/factory-infos?device_ids=" .. table.concat(ids, ",", 1, 100)))
      refused(1109, "device_ids", "GET", "/v1.0/devices/factory-infos?device_ids=" .. table.concat(ids, ","))
    end)
  end)

  describe("PUT /v1.0/devices/{device_id}", function()
    it("renames a device, wherever it comes from", function()
      local id = device()
      local _, text = client:call("PUT", "/v1.0/devices/" .. id, { name = "新名字" })
      assert.truthy(text:find('"result":true', 1, true))
      assert.equal("新名字", client:get("/v1.0/devices/" .. id).name)
      assert.equal("新名字", host:sql(("select name from devices where device = '%s'"):format(id))[1].name)
      assert.equal("ward", host:sql(("select connection from devices where device = '%s'"):format(id))[1].connection)
      assert.is_true(client:call("PUT", "/v1.0/devices/" .. id, '{ "name":"" }')) -- the document's own request
      assert.equal("", client:get("/v1.0/devices/" .. id).name)
    end)
    it("needs a name, of text", function()
      local target = "/v1.0/devices/" .. PLUG.id
      refused(1100, "name", "PUT", target, "{}")
      refused(1100, "name", "PUT", target, { name = json.null })
      for _, name in ipairs { 1, true, { "x" } } do refused(1104, "name", "PUT", target, { name = name }) end
      refused(1101, "name", "PUT", target, { name = ("x"):rep(256) })
      refused(1109, "name", "PUT", target, { name = "a\0b" })
      refused(1109, "JSON", "PUT", target, "name=x")
      refused(1109, "empty", "PUT", target, "")
      assert.equal("xxx测试", client:get(target).name)
    end)
  end)

  describe("a device's users", function()
    local id
    local PERSON = { nick_name = "张三", sex = 1, birthday = 1544996327422, height = 178, weight = 160000, contact = "13800138000" }
    setup(function() id = device() end)
    local function target(rest) return "/v1.0/devices/" .. id .. rest end

    it("are added with POST …/user, which gives the id as a string", function()
      local user, text = client:call("POST", target "/user", { nick_name = "test", sex = 1 })
      assert.truthy(user:find "^%d+$", user)
      assert.truthy(text:find('"result":"' .. user .. '"', 1, true))
      assert.same({ device_id = id, nick_name = "test", sex = 1 }, client:get(target("/users/" .. user)))
    end)

    it("have all that was given, to the type", function()
      local user = client:call("POST", target "/user", PERSON)
      local got, text = client:get(target("/users/" .. user))
      assert.same(copy(PERSON, { device_id = id }), got)
      assert.truthy(text:find('"birthday":1544996327422', 1, true) and text:find('"sex":1', 1, true) and text:find('"height":178', 1, true))
    end)

    it("are changed, what is not given staying, and removed", function()
      local user = client:call("POST", target "/user", PERSON)
      assert.is_true(client:call("PUT", target("/users/" .. user), { nick_name = "李四", sex = 2, weight = 70000 }))
      assert.same(copy(PERSON, { device_id = id, nick_name = "李四", sex = 2, weight = 70000 }), client:get(target("/users/" .. user)))
      assert.is_true(client:call("PUT", target("/users/" .. user), -- the document's own request
        '{ "nick_name": "", "sex": 1, "birthday": 1544996327422, "height": 178, "weight": 160 }'))
      assert.equal("", client:get(target("/users/" .. user)).nick_name)
      assert.is_true(client:call("DELETE", target("/users/" .. user)))
      refused(1106, nil, "GET", target("/users/" .. user))
      refused(1106, nil, "DELETE", target("/users/" .. user))
      refused(1106, nil, "PUT", target("/users/" .. user), { nick_name = "x", sex = 1 })
    end)

    it("are listed, of that device alone; [] where there are none", function()
      local one, two = device(), device()
      assert.truthy(select(2, client:get("/v1.0/devices/" .. one .. "/users")):find('"result":[]', 1, true))
      local user = client:call("POST", "/v1.0/devices/" .. one .. "/user", PERSON)
      client:call("POST", "/v1.0/devices/" .. one .. "/user", { nick_name = "b", sex = 0 })
      assert.equal(2, #client:get("/v1.0/devices/" .. one .. "/users"))
      assert.same({}, client:get("/v1.0/devices/" .. two .. "/users"))
      refused(1106, nil, "GET", "/v1.0/devices/" .. two .. "/users/" .. user)
      refused(1106, nil, "DELETE", "/v1.0/devices/" .. two .. "/users/" .. user)
    end)

    it("leave their details out where the connection may not read them", function()
      local user = assert(strict:call("POST", target "/user", PERSON))
      assert.same({ device_id = id, sex = 1, height = 178, weight = 160000 }, strict:get(target("/users/" .. user)))
    end)

    it("are in no table, log line or error as they came", function()
      local p = { nick_name = "Xanthippe-77", sex = 1, contact = "contact-of-77", birthday = 123456789012 }
      client:call("POST", target "/user", p)
      refused(1101, "sex", "POST", target "/user", copy(p, { sex = 77 }))
      local wrong = refused(1104, "contact", "POST", target "/user", copy(p, { contact = 7777777 }))
      assert.is_nil(wrong:find("7777777", 1, true))
      for _, text in ipairs { p.nick_name, p.contact, "123456789012" } do assert.is_false(tuya.stored(host, text)) end
      host:read()
      assert.is_nil(host.output:find("Xanthippe-77", 1, true))
      assert.is_nil(host.output:find("contact-of-77", 1, true))
    end)

    for _, how in ipairs { "POST", "PUT" } do
      it("need " .. how .. "'s fields, each of its type and within its bounds", function()
        local to = target "/user"
        if how == "PUT" then to = target("/users/" .. client:call("POST", target "/user", PERSON)) end
        local function without(field)
          local p = copy(PERSON)
          p[field] = nil
          return p
        end
        refused(1100, "nick_name", how, to, without "nick_name")
        refused(1100, "sex", how, to, without "sex")
        refused(1100, "sex", how, to, copy(PERSON, { sex = json.null }))
        for _, sex in ipairs { "1", 1.5, true, "x" } do refused(1104, "sex", how, to, copy(PERSON, { sex = sex })) end
        refused(1101, "sex", how, to, copy(PERSON, { sex = -1 }))
        refused(1101, "sex", how, to, copy(PERSON, { sex = 10 }))
        refused(1104, "nick_name", how, to, copy(PERSON, { nick_name = 1 }))
        refused(1101, "nick_name", how, to, copy(PERSON, { nick_name = ("x"):rep(256) }))
        for _, field in ipairs { "birthday", "height", "weight" } do
          refused(1104, field, how, to, copy(PERSON, { [field] = "x" }))
          refused(1104, field, how, to, copy(PERSON, { [field] = 1.5 }))
        end
        refused(1101, "height", how, to, copy(PERSON, { height = -1 }))
        refused(1101, "height", how, to, copy(PERSON, { height = 1001 }))
        refused(1101, "weight", how, to, copy(PERSON, { weight = 10000001 }))
        refused(1101, "birthday", how, to, copy(PERSON, { birthday = 253402300800000 }))
        refused(1104, "contact", how, to, copy(PERSON, { contact = 1 }))
        refused(1101, "contact", how, to, copy(PERSON, { contact = ("x"):rep(256) }))
        assert.truthy(client:call(how, to, copy(PERSON, { birthday = -1000, height = 1000, weight = 10000000, sex = 9 })))
        assert.truthy(client:call(how, to, without "contact"))
      end)
    end
  end)

  describe("multiple names", function()
    it("are set and read", function()
      local id = device()
      assert.truthy(select(2, client:get("/v1.0/devices/" .. id .. "/multiple-names")):find('"result":[]', 1, true))
      for _, n in ipairs { { "switch_2", "插座二" }, { "switch_1", "插座一" }, { "switch_2", "Two" } } do
        assert.is_true(client:call("PUT", "/v1.0/devices/" .. id .. "/multiple-name", { identifier = n[1], name = n[2] }))
      end
      assert.same({ { identifier = "switch_1", name = "插座一" }, { identifier = "switch_2", name = "Two" } },
        client:get("/v1.0/devices/" .. id .. "/multiple-names"))
      assert.is_true(client:call("PUT", "/v1.0/devices/" .. id .. "/multiple-name", '{ "identifier":"", "name":"" }')) -- the document's own request
    end)
    it("need identifier and name, of text", function()
      local target = "/v1.0/devices/" .. PLUG.id .. "/multiple-name"
      refused(1100, "identifier", "PUT", target, { name = "x" })
      refused(1100, "name", "PUT", target, { identifier = "x" })
      refused(1104, "identifier", "PUT", target, { identifier = 1, name = "x" })
      refused(1104, "name", "PUT", target, { identifier = "x", name = 1 })
      refused(1101, "identifier", "PUT", target, { identifier = ("x"):rep(129), name = "x" })
      refused(1101, "name", "PUT", target, { identifier = "x", name = ("x"):rep(256) })
    end)
  end)

  describe("a failure", function()
    it("is 500 in Tuya's words", function()
      local broken = bed.host { plugins = tuya.plugins { ["lib/tuya/desk.lua"] = bed.read(bed.plugins .. "/lib/tuya/desk.lua"):gsub('desk%["device"%] = function%(client, a%)', "%0 error 'boom'") },
        config = [[connections = { { "tuya", name = "face" } }]] }
      local c = tuya.client(broken, assert(tuya.run(broken, "face", "keys.issue")))
      local _, code, msg = c:get "/v1.0/devices/x"
      assert.equal(500, code)
      assert.is_nil(msg:find "boom")
      broken:stop()
    end)
  end)

  describe("commands without credentials", function()
    it("work on this store", function()
      local id = device()
      assert.equal(id, tuya.run(host, "face", "device", { device_id = id }).id)
      assert.is_true(tuya.run(host, "face", "rename", { device_id = id, name = "By hand" }))
      assert.equal("By hand", client:get("/v1.0/devices/" .. id).name)
      local nothing, why = tuya.run(host, "face", "rename", { device_id = "nobody", name = "x" })
      assert.is_nil(nothing)
      assert.truthy(why:find "permission deny", why)
    end)
  end)

  describe("the sandbox", function()
    it("has devices, a client, and an example that works", function()
      local made = assert(tuya.run(host, "face", "sandbox", { url = host.url }))
      local c = tuya.client(host, made.credentials)
      local d = c:get("/v1.0/devices/" .. made.credentials.device_id)
      assert.equal(made.credentials.uid, d.uid)
      assert.equal(16, #d.local_key)
      local list = c:get("/v1.0/users/" .. made.credentials.uid .. "/devices")
      assert.equal(9, #list)
      local gateway
      for _, one in ipairs(list) do gateway = one.category == "wg2" and one.id or gateway end
      assert.equal(2, #c:get("/v1.0/devices/" .. gateway .. "/sub-devices"))
      local result = c:get(("/v1.0/devices/%s/logs?end_time=%d&size=100&type=7"):format(d.id, time.now()))
      assert.equal(100, #result.logs)
      local out, code = bed.run { "sh", "-c", made.example }
      assert.equal(0, code, out)
      assert.equal(c.token, tuya.envelope(out).result.access_token)
      assert.is_false(tuya.stored(host, d.local_key))
    end)
  end)
end)
