-- 10,000 malformed requests to Elexir's endpoints, made with a fixed seed: each is refused in the vendor's words, with the status that
-- what is wrong with it calls for, and stores nothing.
package.path = "./spec/plugins/?.lua;" .. package.path
local bed = require "bed"
local elexir = require "elexir_bed"
local json = require "neap.json"
local socket = require "socket"

local REQUESTS, CONNECTIONS, WINDOW = 10000, 4, 64
local PREFIXES = { "/api/v1/legacy/", "/api/v1/elexir/", "/api/v1/addnox/" }

math.randomseed(20250414, 11)
local random = math.random
local function pick(list) return list[random(#list)] end

-- Bytes of any value, or of those that may stand in a path or header.
local function bytes(n)
  local t = {}
  for i = 1, n do t[i] = string.char(random(0, 255)) end
  return table.concat(t)
end
local function visible(n)
  local t = {}
  for i = 1, n do t[i] = string.char(random(33, 126)) end
  return (table.concat(t):gsub("[/?#%%]", "x"))
end

local world -- tokens, ids; filled in setup

local LOG = { user_id = "integer", model_id = "integer", device_id = "integer", fversion = "number", logdate = "time", mode = "mode",
  finish_flag = "flag", last_intensity = "number", treatment_time = "integer", event_num = "integer", log_data = "text" }
local TEMP = { user_id = "integer", model_id = "integer", device_id = "integer", unique_id = "text", finish_flag = "flag", start_date = "time",
  last_date = "last" }
local NAMES = {}
for fields, list in pairs { [LOG] = {}, [TEMP] = {} } do
  for name in pairs(fields) do list[#list + 1] = name end
  table.sort(list)
  NAMES[fields] = list
end

local NO_NUMBER = { '"x"', '""', "true", "null", "[]", "{}", "[1]", "-1", "2147483648000", "1e300", '" 1"', '"1e"', '"0x10"', '"１"' }
local WRONG = {
  number = NO_NUMBER,
  integer = { "0.5", '"0.5"', "1e-3", "9223372036854775808", table.unpack(NO_NUMBER) },
  mode = { "2", "-1", "0.5", '"01x"', "3", table.unpack(NO_NUMBER) },
  flag = { "5", "6", "8", "70", "0.5", '"5"', table.unpack(NO_NUMBER) },
  time = { "1", "null", "true", "[]", "{}", '""', '"now"', '"2025-02-31T00:00:00Z"', '"2025-04-14T24:00:00Z"', '"1969-12-31T00:00:00Z"',
    '"2025-04-14T00:00:00+99:00"', '"' .. ("2"):rep(65) .. '"', '"\\u0000"', '"2025-04-14T00:00:00\\u0000Z"', '"٢٠٢٥-04-14"' },
  text = { "1", "null", "true", "[]", "{}", "0.5", '["a"]', '"' .. ("x"):rep(65537) .. '"' },
  last = { "1", "null", "true", "[]", "{}", '"x"', '" "', '"2025-02-31T00:00:00Z"', '"2025-04-13T00:00:00Z"' },
}

local function good(fields)
  local body = fields == LOG and elexir.log { user_id = world.user_id, device_id = world.device_id }
    or { user_id = world.user_id, model_id = 2, device_id = world.device_id, unique_id = world.unique_id, finish_flag = 1,
      start_date = "2025-04-14T03:53:49.261Z", last_date = "2025-04-14T04:53:49.261Z" }
  return body, json.encode(body)
end

-- Each gives a body that cannot be right, and the status that it calls for.
local BODIES = {
  function(fields) -- cut
    local _, text = good(fields)
    return text:sub(1, random(0, #text - 1)), 422
  end,
  function(fields) -- a byte that JSON does not have
    local _, text = good(fields)
    local at = random(#text)
    return text:sub(1, at - 1) .. pick { "\0", "\1", "\xff", "\xc0\x80", "\x1f", "\xed\xa0\x80" } .. text:sub(at), 422
  end,
  function(fields) -- more behind it
    local _, text = good(fields)
    return text .. pick { "x", "{}", text, "]", "\0", "," }, 422
  end,
  function(fields) -- a field less, or under another name
    local body = good(fields)
    local name = pick(NAMES[fields])
    if random(2) == 1 then body[name .. "_"] = body[name] end
    body[name] = nil
    return json.encode(body), 422
  end,
  function(fields) -- a field of another type, or past its bounds
    local body = good(fields)
    local name = pick(NAMES[fields])
    body[name] = assert(json.raw(pick(WRONG[fields[name]])))
    return json.encode(body), 422
  end,
  function(fields) -- several
    local body = good(fields)
    for _ = 1, random(2, 5) do
      local name = pick(NAMES[fields])
      body[name] = assert(json.raw(pick(WRONG[fields[name]])))
    end
    return json.encode(body), 422
  end,
  function(fields) -- somebody else's
    local body = good(fields)
    if random(2) == 1 then
      body.user_id = pick { 0, world.other_user_id, random(1000, 2147483647) }
      return json.encode(body), 403
    end
    body.device_id = pick { 0, world.other_device_id, random(1000, 2147483647) }
    return json.encode(body), 404
  end,
  function() -- nothing like it
    return pick { "", " ", "null", "[]", "0", '"x"', "[[", ("["):rep(5000), ('{"a":'):rep(2000), "{}", "\xef\xbb\xbf{}", "a=b&c=d" }, 422
  end,
  function() -- noise, which is no JSON object
    return (bytes(random(1, 200)):gsub("^%s*{", "x")), 422
  end,
}

local DEVICES = { "check-device", "set-my-device", "un-connect" }
local METHOD = { ["check-device"] = "GET", ["set-my-device"] = "POST", ["un-connect"] = "PATCH" }

local function query_request()
  local path = pick(DEVICES)
  local kind = random(5)
  local query, status
  if kind == 1 then query, status = pick { "", "?", "?unique_id", "?uniqueid=x", "?unique_id[]=x", "?&&=&" }, 422
    if query == "?unique_id" then status = path == "set-my-device" and 422 or 404 end
  elseif kind == 2 then query, status = "?serial_code=x&unique_id=" .. ("x"):rep(random(65, 500)), 422
  elseif kind == 3 then query, status = "?serial_code=x&unique_id=a%" .. pick { "00", "0a", "1B", "7f" }, 422
  elseif kind == 4 then
    query, status = "?unique_id=" .. world.other_unique_id .. "&serial_code=" .. (random(2) == 1 and world.other_serial_code or "wrong"), 409
    if path == "un-connect" or path == "set-my-device" and query:find("wrong", 1, true) then status = 404 end
  else query, status = "?serial_code=x&unique_id=" .. visible(random(1, 60)):gsub("[&+=]", "x"), 404 end
  return METHOD[path], "device/" .. path .. query, nil, status
end

local function path_request()
  local kind = random(4)
  if kind == 1 then -- no month
    local month = pick { "2025-13", "2025-00", "2025-4", ("%d-%02d"):format(random(0, 999), random(12)), "x" .. visible(random(1, 40)), "%01", "%ff%fe",
      "2025-04%20" }
    return "GET", "device/my-devlog/" .. month, nil, 400
  elseif kind == 2 then -- no number
    return "GET", "device/devlog/lasttime/" .. pick { "x", "1.5", "1e3", "%31x", "--1", "x" .. visible(20), ("9"):rep(random(20, 90)) }, nil, 422
  elseif kind == 3 then -- nobody's, or somebody else's
    return "GET", "device/devlog/lasttime/" .. pick { world.other_device_id, 0, -random(1000), random(1000, 1 << 40) }, nil, 404
  end
  return pick { "GET", "POST", "PATCH", "PUT", "DELETE" }, pick { "device/", "auth/" } .. "x" .. visible(random(1, 60)), nil, 404
end

local function auth_request()
  local path = pick { "device/my-devices", "device/my-devlog/2025-04", "device/check-device?unique_id=x", "device/devlog/lasttime/1" }
  return "GET", path, nil, 401, pick { "", "Bearer", "Bearer " .. visible(random(1, 300)), "Basic " .. world.token, visible(random(1, 30)),
    "Bearer " .. world.token:sub(1, -2), "Bearer " .. world.token .. " x", world.token, "Bearer  " .. world.token:reverse() .. "0" }
end

local function sign_in_request()
  local kind = random(4)
  if kind == 1 then return "POST", "auth/signin", json.encode { email = visible(20), password = "x" }, 403 end
  if kind == 2 then return "POST", "auth/refresh-token", json.encode { refresh_token = visible(random(1, 100)) }, 401 end
  if kind == 3 then
    return "POST", pick { "auth/signin", "auth/refresh-token" }, pick { "{", "[1]", "1", '"x"', '{"password":1,"refresh_token":[]}', "\xff" }, 422
  end
  return "POST", "auth/signin", '{"password":' .. pick { "1", "true", "{}", '["x"]', '"' .. ("x"):rep(600) .. '"' } .. ',"email":"a@b.example"}', 422
end

local function method_request()
  local path, right = table.unpack(pick { { "device/my-devices", "GET" }, { "device/devlog", "POST" }, { "device/devlog/temp", "POST" },
    { "device/un-connect", "PATCH" }, { "device/my-devlog/2025-04", "GET" }, { "auth/signin", "POST" } })
  local method
  repeat method = pick { "GET", "POST", "PUT", "PATCH", "DELETE" } until method ~= right
  return method, path, method ~= "GET" and bytes(random(0, 60)) or nil, 405
end

local function body_request()
  local fields = random(2) == 1 and LOG or TEMP
  local body, status = pick(BODIES)(fields)
  return "POST", fields == LOG and "device/devlog" or "device/devlog/temp", body, status
end

local KINDS = { body_request, body_request, body_request, body_request, query_request, path_request, auth_request, sign_in_request, method_request }

local function make()
  local method, path, body, status, authorization = pick(KINDS)()
  local lines = { ("%s %s%s HTTP/1.1"):format(method, pick(PREFIXES), path), "host: fuzz", "content-type: application/json",
    "authorization: " .. (authorization or "Bearer " .. world.token) }
  if body or method ~= "GET" then lines[#lines + 1] = "content-length: " .. #(body or "") end
  return { text = table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or ""), status = status }
end

local function check_answer(request, status, text, fields)
  local shown = ("%s answered %s to %q"):format(status, text, request.text:sub(1, 2000))
  assert(status == request.status, ("expected %d: "):format(request.status) .. shown)
  assert(fields["content-type"] == "application/json", shown)
  local answer = json.decode(text)
  assert(type(answer) == "table" and next(answer, (next(answer))) == nil, shown)
  if status ~= 422 then
    assert(type(answer.detail) == "string" and answer.detail ~= "", shown)
  else
    assert(json.is_array(answer.detail) and #answer.detail == 1, shown)
    local d = answer.detail[1]
    assert(json.is_array(d.loc) and ({ body = true, query = true, path = true })[d.loc[1]] and type(d.msg) == "string" and d.msg ~= ""
      and type(d.type) == "string" and d.type ~= "", shown)
  end
end

describe("10,000 malformed requests to elexir", function()
  local host, before
  local counts = {}

  local function stored()
    return json.encode { host:sql "select count(*) as n from readings", host:sql "select device, owner, status from devices order by device",
      host:sql "select count(*) as n from events", host:sql "select count(*) as n from kv" }
  end

  setup(function()
    host = bed.host { config = [[connections = { { "elexir" } }]] }
    local function call(name, args) return elexir.call(host, "elexir", name, args) end
    local function account(email)
      local user = call("keys.issue", { email = email, password = "correct horse" })
      return user.id, elexir.sign_in(host, email, "correct horse").access_token
    end
    local function device(unique_id, token)
      local d = call("device.add", { unique_id = unique_id, serial_code = "S-" .. unique_id })
      assert(elexir.request(host, "POST", "device/set-my-device", { token = token, query = { unique_id = unique_id, serial_code = "S-" .. unique_id } }) == 200)
      return d.id
    end
    world = { unique_id = "FUZZ-1", other_unique_id = "FUZZ-2", other_serial_code = "S-FUZZ-2" }
    world.user_id, world.token = account "fuzz@example.org"
    local other_token
    world.other_user_id, other_token = account "other@example.org"
    world.device_id, world.other_device_id = device("FUZZ-1", world.token), device("FUZZ-2", other_token)
    before = stored()
  end)
  teardown(function() host:stop() end)

  it("are each refused, in the vendor's words, on connections that stay open", function()
    local sockets = {}
    for i = 1, CONNECTIONS do
      sockets[i] = assert(socket.connect("127.0.0.1", host.port))
      sockets[i]:settimeout(120)
    end
    for _ = 1, REQUESTS, WINDOW * CONNECTIONS do
      local sent = {}
      for c = 1, CONNECTIONS do
        sent[c] = {}
        local batch = {}
        for i = 1, WINDOW do
          sent[c][i] = make()
          batch[i] = sent[c][i].text
        end
        assert(sockets[c]:send(table.concat(batch)))
      end
      for c = 1, CONNECTIONS do
        for _, request in ipairs(sent[c]) do
          local status, text, fields = bed.receive(sockets[c])
          assert(status, ("no answer to %q: %s"):format(request.text:sub(1, 2000), tostring(text)))
          check_answer(request, status, text, fields)
          counts[status] = (counts[status] or 0) + 1
        end
      end
    end
    for _, s in ipairs(sockets) do s:close() end
    local total = 0
    for _, status in ipairs { 400, 401, 403, 404, 405, 409, 422 } do
      assert.is_true(counts[status] > 50, status .. " " .. counts[status])
      total = total + counts[status]
    end
    assert.is_true(total >= REQUESTS)
  end)

  it("store nothing but the raw requests, which say what was wrong", function()
    assert.equal(before, stored())
    local kept = host:sql "select outcome, count(*) as n, sum(error is null) as unsaid from inbox where id > 2 group by outcome"
    assert.equal(1, #kept)
    assert.equal("refused", kept[1].outcome)
    assert.equal(0, kept[1].unsaid)
  end)

  it("leave the host well, and no error in its log", function()
    local status = elexir.request(host, "POST", "device/devlog", { token = world.token, body = (good(LOG)) })
    assert.equal(200, status)
    host:read()
    for line in host.output:gmatch "[^\n]+" do
      assert.is_nil(line:find('"level":"error"', 1, true), line)
      assert.is_nil(line:find("Sanitizer", 1, true), line)
      assert.is_nil(line:find("runtime error", 1, true), line)
    end
    assert.equal("exit", (host:stop()))
    assert.equal(0, host.code)
  end)
end)
