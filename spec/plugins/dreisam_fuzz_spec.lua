-- 10,000 malformed requests to Dreisam's endpoints, mutated from good ones with a fixed seed: each is answered in the vendor's envelope, none tells
-- anybody what is not theirs, and the host stays well.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local REQUESTS, CONNECTIONS, WINDOW = 10000, 4, 64
local AT, DAY = 1635827613000, 86400000

math.randomseed(20231114, 22)
local random = math.random
local function pick(list) return list[random(#list)] end

describe("10,000 malformed requests", function()
  local host
  local users = {}

  setup(function()
    host = bed.host { plugins = bed.own_plugins { ["vendors/maker.lua"] = [[
local plugin = ...
plugin:serve { "POST /make", handler = function(req)
  plugin:device { device = req.body.device, owner = plugin.people:reference("patient:" .. req.body.owner), status = "active" }
  for n = 1, 3 do plugin:emit { device = req.body.device, metric = "glucose", value = 5.5, unit = "mmol/L", at = 1635827613000 + n, serial = n } end
  return 204
end }]] }, config = [[connections = { { "maker", name = "made" }, { "dreisam", name = "face", shows = { "made" } },
      { "dreisam", name = "signed", mount = "/signed", app_id = "app_123", app_secret = "test_secret" } }]] }
    for i = 1, 3 do
      assert.equal(204, (host:request("POST", "/make", { device = "SN-" .. i, owner = "uid-" .. i })))
      users[i] = json.decode((select(2, host:request("POST", "/partner/v1/user/register", { partner_uid = "uid-" .. i })))).data
      users[i].sn = "SN-" .. i
    end
  end)
  teardown(function() host:stop() end)

  -- A good request, whose parts can be broken: { method, path, query = list of { name, value }, headers = list of { name, value }, body }.
  local function good(n)
    local user = users[1 + n % 3]
    local headers = { { "Authorization", "Bearer " .. user.access_token } }
    local kind = random(6)
    if kind == 1 then return { "POST", "/partner/v1/user/register", query = {}, headers = { { "Content-Type", "application/json" } },
      body = json.encode { partner_uid = "uid-" .. n, region = pick { "CN", "EU" } } } end
    if kind == 2 then return { "GET", "/partner/v1/user/token", query = { { "open_id", user.open_id } }, headers = {} } end
    if kind == 3 then return { "GET", "/partner/v1/user/glucose", headers = headers,
      query = { { "open_id", user.open_id }, { "start_time", AT }, { "end_time", AT + random(0, 30) * DAY } } } end
    if kind == 4 then return { "GET", "/partner/v1/device/info", query = { { "device_sn", user.sn } }, headers = headers } end
    if kind == 5 then return { "GET", "/partner/v1/device/glucose", query = { { "device_sn", user.sn }, { "start_time", AT }, { "end_time", AT + DAY } }, headers = headers } end
    return { "GET", "/signed/partner/v1/user/token", query = { { "open_id", user.open_id } }, headers = { { "X-App-Id", "app_123" }, { "X-Nonce", "n" .. n },
      { "X-Timestamp", AT }, { "X-Signature", ("0"):rep(64) } } }
  end

  local VALUES = { "", "0", "-1", "1.5", "1e3", "9223372036854775807", "9223372036854775808", ("9"):rep(400), "NaN", "null", "true", "%00", "%0a", "%", "%zz", "%ff%fe",
    "'", '"', "\\", "%F0%9F%98%80", "..%2F..", ("x"):rep(129), ("x"):rep(5000), "253402300799999", "253402300800000", "*", "%25", "1+2", "undefined", "[]", "{}" }
  local BODIES = { "", "x", "{", "[]", "null", "{}", '{"partner_uid":null}', '{"partner_uid":{}}', '{"partner_uid":["a"]}', '{"partner_uid":"a","partner_uid":7}',
    ("["):rep(2000), '{"partner_uid":"\\u0000"}', '{"partner_uid":"\\ud800"}', '{"partner_uid":"' .. ("x"):rep(5000) .. '"}', '{"partner_uid":1e999}', "\xEF\xBB\xBF{}", "\0", "partner_uid=x" }

  local function flip(text)
    if #text == 0 then return "x" end
    local at = random(#text)
    return text:sub(1, at - 1) .. string.char(text:byte(at) ~ 1 << random(0, 6)) .. text:sub(at + 1)
  end

  local MUTATIONS = {
    function(r) if #r.query > 0 then pick(r.query)[2] = pick(VALUES) end end,
    function(r) if #r.query > 0 then pick(r.query)[2] = pick(VALUES) end end,
    function(r) if #r.query > 0 then table.remove(r.query, random(#r.query)) end end,
    function(r) if #r.query > 0 then pick(r.query)[1] = pick { "open_id", "device_sn", "start_time", "end_time", "x", "", "X-App-Id", "%6fpen_id" } end end,
    function(r) if #r.query > 1 then r.query[1][2], r.query[2][2] = r.query[2][2], r.query[1][2] end end,
    function(r) table.insert(r.query, random(#r.query + 1), { pick { "open_id", "device_sn", "start_time", "end_time", "more" }, pick(VALUES) }) end,
    function(r) for _, q in ipairs(r.query) do if q[1] == "open_id" then q[2] = pick(users).open_id elseif q[1] == "device_sn" then q[2] = pick(users).sn end end end,
    function(r) if #r.headers > 0 then table.remove(r.headers, random(#r.headers)) end end,
    function(r) if #r.headers > 0 then local h = pick(r.headers) h[2] = flip(tostring(h[2])):gsub("[%c]", "?") end end,
    function(r) if #r.headers > 0 then pick(r.headers)[2] = pick { "", "x", "Bearer", "Bearer  ", "Basic eDp5", ("y"):rep(3000), "application/json", "text/plain", "-1", "1700000000000" } end end,
    function(r) if #r.headers > 0 then table.insert(r.headers, pick(r.headers)) end end,
    function(r) r[1] = pick { "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS" } end,
    function(r) r[2] = pick { r[2] .. "/", r[2]:gsub("v1", "v2"), r[2] .. "x", "/partner/v1/", "/partner/v1/user/%67lucose", r[2]:gsub("user", "device"), "/partner/v1/" .. ("a/"):rep(40) } end,
    function(r) if r.body then r.body = pick(BODIES) end end,
    function(r) if r.body then r.body = flip(r.body) end end,
    function(r) if r.body then r.body = r.body:sub(1, random(0, #r.body - 1 > 0 and #r.body - 1 or 0)) end end,
    function(r) if not r.body then r.body = pick(BODIES) end end,
  }

  local function text_of(r)
    local parts = {}
    for i, q in ipairs(r.query) do parts[i] = q[1] .. "=" .. tostring(q[2]):gsub("[^%w%%+._~-]", function(c) return ("%%%02X"):format(c:byte()) end) end
    local lines = { ("%s %s%s HTTP/1.1"):format(r[1], r[2], #parts > 0 and "?" .. table.concat(parts, "&") or ""), "host: fuzz" }
    for _, h in ipairs(r.headers) do lines[#lines + 1] = h[1] .. ": " .. h[2] end
    if r.body then lines[#lines + 1] = "content-length: " .. #r.body end
    return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (r.body or "")
  end

  it("are answered in the envelope, and nobody is told what is not theirs", function()
    local sent, sockets, codes = {}, {}, {}
    for n = 1, REQUESTS do
      local r = good(n)
      local headers = {}
      for i, h in ipairs(r.headers) do headers[i] = { h[1], h[2] } end
      r.headers = headers
      for _ = 1, random(1, 3) do pick(MUTATIONS)(r) end
      sent[n] = { text = text_of(r), method = r[1], path = r[2] }
    end
    for i = 1, CONNECTIONS do
      sockets[i] = assert(socket.connect("127.0.0.1", host.port))
      sockets[i]:settimeout(60)
    end
    local function check(i, status, body)
      assert(status, ("no answer to %q: %s"):format(sent[i].text, tostring(body)))
      if status == 204 or not sent[i].path:find "^/partner/v1" and not sent[i].path:find "^/signed/partner/v1" then return end -- OPTIONS; no path of Dreisam's
      local answer = json.decode(body)
      assert(type(answer) == "table" and math.type(answer.code) == "integer" and type(answer.msg) == "string" and type(answer.data) == "table",
        ("answered %d %s to %q"):format(status, body, sent[i].text))
      codes[answer.code] = (codes[answer.code] or 0) + 1
      assert(status < 500, sent[i].text)
      assert(answer.code == 0 or next(answer.data) == nil, body)
      if answer.code == 0 then
        local token = sent[i].text:match "[Aa]uthorization: [Bb]earer +(%x+)"
        for k, user in ipairs(users) do -- whoever asks with this token sees this user alone
          if token and token ~= user.access_token then
            assert(not body:find("SN-" .. k, 1, true) and not body:find(user.open_id, 1, true), ("told %s to %q"):format(body, sent[i].text))
          end
        end
      end
    end
    for from = 1, REQUESTS, WINDOW * CONNECTIONS do
      for c = 1, CONNECTIONS do
        local batch = {}
        for i = from + (c - 1) * WINDOW, math.min(REQUESTS, from + c * WINDOW - 1) do batch[#batch + 1] = sent[i].text end
        assert(sockets[c]:send(table.concat(batch)))
      end
      for c = 1, CONNECTIONS do
        for i = from + (c - 1) * WINDOW, math.min(REQUESTS, from + c * WINDOW - 1) do check(i, bed.receive(sockets[c])) end
      end
    end
    for _, s in ipairs(sockets) do s:close() end
    for _, code in ipairs { 0, 1001, 1002, 1003, 404 } do assert.is_true((codes[code] or 0) > 100, code .. ": " .. (codes[code] or 0)) end
  end)

  it("leave the host well, and no error in its log", function()
    for _, user in ipairs(users) do
      local _, answer = host:json("GET", "/partner/v1/device/glucose?device_sn=" .. user.sn, nil, { authorization = "Bearer " .. user.access_token })
      assert.equal(0, answer.code)
      assert.equal(3, #answer.data.records)
    end
    host:read()
    for line in host.output:gmatch "[^\n]+" do
      assert.is_nil(line:find('"level":"error"', 1, true), line)
      assert.is_nil(line:find("Sanitizer", 1, true), line)
      assert.is_nil(line:find("runtime error", 1, true), line)
    end
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
