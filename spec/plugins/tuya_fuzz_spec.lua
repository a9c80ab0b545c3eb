-- 10,000 malformed requests to plugins/vendors/tuya.lua, mutated from good ones with a fixed seed, most of them well signed: each is answered in
-- Tuya's words, shows nothing that is not the client's, changes nothing that it does not name, and breaks nothing.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"
local tuya = require "tuya"

local REQUESTS = 10000
local SECRET = "not-for-this-client"

math.randomseed(20210630, 1004)
local random = math.random
local function pick(list) return list[random(#list)] end

local IDS = { "dev-1", "dev-2", "dev-3", "gw-1" }
local END = "1795000000000"

-- { method, target, body? }
local function good()
  local id = pick(IDS)
  local base = "/v1.0/devices/" .. id
  local calls = {
    { "GET", base }, { "GET", base .. "/users" }, { "GET", base .. "/multiple-names" }, { "GET", base .. "/sub-devices" },
    { "GET", "/v1.0/devices?page_no=" .. random(3) .. "&page_size=" .. random(30) }, { "GET", "/v1.0/devices?last_id=" .. random(9) .. "&page_size=20" },
    { "GET", "/v1.0/devices?device_ids=dev-1,dev-2" }, { "GET", "/v1.0/devices?start_time=1600000000&end_time=1700000000&schema=testApp" },
    { "GET", "/v1.0/devices/factory-infos?device_ids=" .. id }, { "GET", "/v1.0/users/u-1/devices?from=home&page_no=1&page_size=5" },
    { "GET", base .. "/logs?codes=switch_1&end_time=" .. END .. "&size=20&start_row_key=&start_time=0&type=1,7" },
    { "GET", base .. "/logs?end_time=" .. END .. "&last_event_time=1&last_row_key=" .. id .. "_9223372036854775806_7_1&query_type=2&start_time=0&type=7" },
    { "GET", base .. "/users/5121231" }, { "GET", "/v1.0/token?grant_type=1" }, { "GET", "/v1.0/token/" .. ("0"):rep(32) },
    { "PUT", base, '{"name":"Name"}' }, { "PUT", base .. "/functions/switch_1", '{"name":"lalal"}' },
    { "PUT", base .. "/multiple-name", '{"identifier":"switch_1","name":"Left"}' }, { "DELETE", base .. "/users/5121231" },
    { "POST", base .. "/user", '{"nick_name":"test","sex":1,"birthday":1544996327422,"height":178,"weight":160,"contact":"1"}' },
    { "PUT", base .. "/users/5121231", '{"nick_name":"","sex":1,"birthday":1544996327422,"height":178,"weight":160}' },
  }
  return pick(calls)
end

local function splice(text, from, to, with) return text:sub(1, from - 1) .. with .. text:sub(to + 1) end
local TOKENS = { "%00", "%2F", "%", "%zz", "..", "//", "?", "&", "=", "&&", "#", "+", "%C0%80", "%F0%9F%98%80", "%0A", "hidden-1", "feed:hidden-1", "other:hidden-1", "-1", "0",
  "99999999999999999999", "1e9", "null", "true", ("x"):rep(300), ("9"):rep(40), "type=7", "page_no=", "'", '"', "[]", "{}", ";", ",", ",,", " ", "体", "\0", "\r", "\xff" }
local VALUES = { "0", "-1", "1.5", "1e3", "1e999", "-0", "9223372036854775808", ("9"):rep(300), "null", "true", "[]", "{}", '""', '"x"', '"\\u0000"', '"\\ud800"',
  '"' .. ("y"):rep(5000) .. '"', ("["):rep(200) .. ("]"):rep(200), "", "nope", '{"a":{"b":1}}', '"😀"', '"1"' }

local function mutate_text(text)
  if #text == 0 then return pick(TOKENS) end
  local at = random(#text)
  local how = random(6)
  if how == 1 then return splice(text, at, at, string.char(random(33, 126))) end
  if how == 2 then return text:sub(1, at) end
  if how == 3 then return splice(text, at, math.min(#text, at + random(8)), "") end
  if how == 4 then return splice(text, at, at - 1, text:sub(at, math.min(#text, at + random(20)))) end
  return splice(text, at, at - random(0, 1), pick(TOKENS))
end

-- A parameter gets another value, or is gone.
local function mutate_query(target)
  local path, query = target:match "^(.-)%?(.*)$"
  if not path then return mutate_text(target) end
  local parts = {}
  for part in query:gmatch "[^&]+" do parts[#parts + 1] = part end
  if #parts == 0 then return mutate_text(target) end
  local i = random(#parts)
  local how = random(3)
  if how == 1 then table.remove(parts, i)
  elseif how == 2 then parts[i] = parts[i]:match "^[^=]*" .. "=" .. pick(TOKENS)
  else parts[#parts + 1] = parts[i]:match "^[^=]*" .. "=" .. pick(VALUES) end
  return path .. "?" .. table.concat(parts, "&")
end

local function mutate_body(body)
  if random(3) == 1 then return mutate_text(body) end
  local spots = {}
  for from, to in body:gmatch '":()[^,}]+()' do spots[#spots + 1] = { from, to - 1 } end
  local spot = spots[random(math.max(1, #spots))]
  return spot and splice(body, spot[1], spot[2], pick(VALUES)) or mutate_text(body)
end

-- What HTTP itself would not let through is percent-encoded.
local function sendable(target)
  target = target:gsub("[^!-~]", function(c) return ("%%%02X"):format(c:byte()) end):gsub("#", "%%23")
  return target:sub(1, 1) == "/" and target or "/" .. target
end

local HEADERS = { "client_id", "t", "sign", "sign_method", "access_token", "nonce", "signature-headers" }

describe("10,000 malformed requests", function()
  local host, client
  local codes, shown = {}, 0

  local function connect()
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:settimeout(60)
    return s
  end

  local function request(method, target, body, headers)
    local lines = { ("%s %s HTTP/1.1"):format(method, target), "host: fuzz" }
    for k, v in pairs(headers) do lines[#lines + 1] = k .. ": " .. v end
    if body then lines[#lines + 1] = "content-type: application/json\r\ncontent-length: " .. #body end
    return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
  end

  local function make()
    local call = good()
    local method, target, body = call[1], call[2], call[3]
    for _ = 1, random(3) do
      local how = random(10)
      if how <= 4 and target:find "?" then target = mutate_query(target)
      elseif how <= 8 and body then body = mutate_body(body)
      elseif how <= 9 then
        local known = random(4) > 1 and #"/v1.0/devices/" or 0 -- mostly behind what all paths begin with
        target = target:sub(1, known) .. mutate_text(target:sub(known + 1))
      elseif random(4) == 1 then method = pick { "GET", "PUT", "POST", "PATCH" } end
    end
    target = sendable(target)
    -- a mutation that removes a device of the client's own is a request like any other, but the rest would find nothing
    if method == "DELETE" and not target:find "^/v1%.0/devices/[^/?]*/users/[^/?]" then method = "PATCH" end
    local token
    if target:find("^/v1%.0/token") then token = false elseif random(25) == 1 then token = mutate_text(client.token):gsub("[^!-~]", "?") end
    local headers = client:headers(method, target, body, { token = token })
    if random(5) == 1 then -- and one in five is signed wrong as well
      local name = pick(HEADERS)
      headers[name] = random(4) > 1 and mutate_text(headers[name] or ""):gsub("[^ -~]", "?"):gsub("^ +", ""):gsub(" +$", "") or nil
    end
    return method, target, body, headers
  end

  setup(function()
    host = bed.host { plugins = tuya.plugins(), config = [[connections = { { "feed", name = "ward", mount = "/ward" }, { "other", name = "hidden", mount = "/hidden" },
      { "tuya", name = "face", shows = { "ward" }, people = true } }]] }
    local devices, readings = {}, {}
    for i, id in ipairs(IDS) do
      devices[i] = { device = id, name = "Name", owner = "u-1", place = "home", model = "p", status = "active", extra = { category = "cz" } }
      for n = 1, 60 do readings[#readings + 1] = { device = id, metric = n % 2 == 0 and "switch_1" or "cur_voltage", value = n, at = tonumber(END) - n * 60000 } end
    end
    tuya.feed(host, "/ward", { devices = devices, readings = readings })
    tuya.feed(host, "/hidden", { devices = { { device = "hidden-1", name = SECRET, owner = "u-2", status = "active" } }, readings = { { device = "hidden-1", metric = SECRET, value = 1 } } })
    client = tuya.client(host, assert(tuya.run(host, "face", "keys.issue"))):sign_in()
    local s = connect()
    for _ = 1, REQUESTS do
      local method, target, body, headers = make()
      local bytes = request(method, target, body, headers)
      assert(s:send(bytes))
      local status, text, fields = bed.receive(s, method)
      assert(status, ("no answer to %q: %s"):format(bytes, tostring(text)))
      if text:find(SECRET, 1, true) then shown = shown + 1 end
      if status == 200 then
        local ok, answer = pcall(tuya.envelope, text)
        assert(ok, ("%q was answered %s"):format(bytes, text))
        codes[answer.code or "success"] = (codes[answer.code or "success"] or 0) + 1
        assert(answer.code ~= 500, ("%q was answered 500"):format(bytes))
      else
        -- what is no path of Tuya's at all is answered by neap
        assert(status == 400 or status == 404 or status == 414 or status == 431, ("%q was answered %d %s"):format(bytes, status, text))
        codes[status] = (codes[status] or 0) + 1
      end
      if fields.connection == "close" then
        s:close()
        s = connect()
      end
    end
    s:close()
  end)
  teardown(function() host:stop() end)

  it("are each answered in Tuya's words, and reach every kind of refusal", function()
    for _, code in ipairs { "success", 1002, 1003, 1004, 1005, 1010, 1013, 1100, 1101, 1104, 1106, 1108, 1109 } do
      assert.is_true((codes[code] or 0) > 0, tostring(code) .. " in " .. json.encode((function()
        local t = {}
        for k, v in pairs(codes) do t[tostring(k)] = v end
        return t
      end)()))
    end
    assert.is_true(codes.success < REQUESTS * 0.6, codes.success .. " were taken")
    assert.is_true((codes[404] or 0) + (codes[400] or 0) < REQUESTS / 3)
  end)

  it("show nothing that is not the client's", function() assert.equal(0, shown) end)

  it("change nothing that they may not", function()
    assert.same({ { name = SECRET, status = "active", owner = "u-2" } }, host:sql "select name, status, owner from devices where device = 'hidden-1'")
    assert.same({ { n = 4 * 60 + 1 } }, host:sql "select count(*) as n from readings")
    assert.same({ { n = 5 } }, host:sql "select count(*) as n from devices")
    for _, row in ipairs(host:sql "select owner, place, model, status from devices where device <> 'hidden-1'") do
      assert.same({ owner = "u-1", place = "home", model = "p", status = "active" }, row)
    end
  end)

  it("leave the host well, and no error in its log", function()
    client.token = nil
    assert.equal("gw-1", client:get("/v1.0/devices/gw-1").id)
    assert.equal(20, #client:get("/v1.0/devices/gw-1/logs?end_time=" .. END .. "&start_time=1794000000000&type=7").logs)
    host:read()
    for line in host.output:gmatch "[^\n]+" do
      assert.is_nil(line:find('"level":"error"', 1, true), line)
      assert.is_nil(line:find("Sanitizer", 1, true), line)
      assert.is_nil(line:find("runtime error", 1, true), line)
    end
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)
