-- 10,000 broken requests to Neuron's endpoints, mutated from good ones with a fixed seed: each is answered in the guide's envelope, and what a push
-- was answered 200 for is stored, right, and nothing else.
local bed = require "bed"
local client = require "neuron_client"
local crypto = require "neap.crypto"
local json = require "neap.json"
local socket = require "socket"

local REQUESTS, CONNECTIONS, WINDOW = 10000, 4, 32

math.randomseed(20260101, 7)
local random = math.random
local function pick(list) return list[random(#list)] end

-- Good requests.

local function plain(seconds) return os.date("!%Y-%m-%d %H:%M:%S", seconds) end

local function good_records(n)
  local list = json.array {}
  for i = 1, random(3) do
    local r = { equipmentName = pick { "AHU " .. n % 50, "温度 " .. n % 50 }, functionType = ("p%d-%d"):format(n, i), buildingName = pick { "HQ", "Annex" },
      time = plain(1790000000 + n * 10 + i), unit = pick { "Cel", json.null }, devEui = pick { "eui" .. n % 70, json.null } }
    if random(2) == 1 then r.value = pick { 21.5, 3, -4.25 } else r.reading = pick { "on", "off", "运行" } end
    list[i] = r
  end
  return list
end

-- Mutations of a text.

local function splice(text, from, to, with) return text:sub(1, from - 1) .. with .. text:sub(to + 1) end
local function flip(text)
  local at = random(#text)
  return splice(text, at, at, string.char(text:byte(at) ~ 1 << random(0, 7)))
end
local function cut(text) return text:sub(1, random(0, #text - 1)) end
local function double(text)
  local from = random(#text)
  return splice(text, from, from - 1, text:sub(from, math.min(#text, from + random(0, 60))))
end
local function drop(text)
  local from = random(#text)
  return splice(text, from, math.min(#text, from + random(0, 30)), "")
end
local TOKENS = { "{", "}", "[", "]", ",", ":", '"', "null", "true", "\\", "\\u0000", "\\ud800", "\0", "\r\n", "\xff", "\xc0\x80", "9", "-", "e9", "/", "%2F",
  "\xEF\xBB\xBF" }
local function token(text)
  local at = random(#text)
  return splice(text, at, at - random(0, 1), pick(TOKENS))
end
local VALUES = { "0", "-1", "21.5", "1e3", "1e308", "1e999", "-0", "9223372036854775807", "9223372036854775808", "null", "true", "[]", "{}", '[1,"a"]', '""', '" "',
  '"1"', '"NaN"', '"HQ"', '"hq"', '"VALUE"', '"READING"', '"2021-02-31 12:00:00"', '"2026-01-02 03:04:05"', '"2026-01-02T03:04:05Z"', '"9999-12-31 23:59:59"',
  '"0000-00-00 00:00:00"', '"' .. ("x"):rep(128) .. '"', '"' .. ("x"):rep(129) .. '"', '"' .. ("x"):rep(5000) .. '"', '"\\u0000"', '"\\u0001x"', '"a/b"', '"😀"',
  ("["):rep(60) .. ("]"):rep(60), ("["):rep(300), ('{"a":'):rep(150) .. "1" .. ("}"):rep(150) }
local function value(text)
  local spots = {}
  for from, to in text:gmatch '":()"[^"]*"()' do spots[#spots + 1] = { from, to - 1 } end
  for from, to in text:gmatch '":()[%d.nul-]+()' do spots[#spots + 1] = { from, to - 1 } end
  local spot = spots[1] and pick(spots)
  return spot and splice(text, spot[1], spot[2], pick(VALUES)) or flip(text)
end
local function rename(text)
  local names = {}
  for from, to in text:gmatch '()"%a+"():' do names[#names + 1] = { from, to - 1 } end
  if not names[1] then return flip(text) end
  local a, b = pick(names), pick(names)
  return splice(text, a[1], a[2], random(3) == 1 and '"x"' or text:sub(b[1], b[2]))
end
local MUTATIONS = { flip, cut, double, drop, token, value, value, value, rename }
local function mutate(text)
  for _ = 1, random(10) < 8 and 1 or random(2, 4) do
    if #text > 0 then text = pick(MUTATIONS)(text) end
  end
  return text
end

local function escape(text) return (text:gsub("[^%w%-_.~]", function(ch) return ("%%%02X"):format(ch:byte()) end)) end
local function segment(text) -- mutated, but one that a path can hold
  text = mutate(text):gsub("%z", "0")
  return escape(text ~= "" and text or "x")
end

local function broken_query(n)
  local names = { "current", "size", "name", "devEui", "buildingName", "equModel", "x" }
  local parts = { "current=" .. pick { n % 5, 1, "x", "", "-1", 1 }, "size=" .. pick { 1, 7, 1000, 1001, "1.5", 10 } }
  for _ = 1, random(0, 3) do parts[#parts + 1] = pick(names) .. "=" .. escape(mutate("AHU " .. n)) end
  if random(4) == 1 then table.remove(parts, random(#parts)) end
  return table.concat(parts, "&")
end

-- The nth request: { kind, method, path, body, headers }. `key` makes what is sent as authentication.
local function make(n, key)
  local dice = random(100)
  local headers = key.good
  if dice <= 6 then headers = key.broken(n) end
  if dice <= 62 then return { "push", "POST", "/dataPlatform/openapi", mutate(json.encode(good_records(n))), headers } end
  if dice <= 76 then
    local query = { equipmentName = "AHU " .. n % 50, field = pick { "VALUE", "READING" }, functionType = "p1-1", startTime = plain(os.time() - 86400), endTime = plain(os.time()) }
    return { "history", "POST", "/device/v1/realtime/history", mutate(json.encode(query)), headers }
  end
  if dice <= 86 then
    local list = json.array {}
    for i = 1, random(3) do list[i] = { n = n, kwh = 1.5, day = plain(1790000000), area = "x" } end
    return { "dataset", "POST", "/dataset/v1/" .. pick { "energy", "energy", segment "energy" }, mutate(json.encode(list)), headers }
  end
  if dice <= 91 then return { "page", "GET", "/device/v1/mn/page?" .. broken_query(n), nil, headers } end
  if dice <= 95 then return { "device", "GET", "/device/v1/mn/" .. segment("eui" .. n % 70), nil, headers } end
  if dice <= 98 then return { "values", "GET", "/device/v1/realtime/" .. segment("eui" .. n % 70) .. "/values", nil, headers } end
  return { "none", pick { "GET", "PUT", "DELETE", "PATCH" }, "/device/v1/" .. segment "realtime", nil, headers }
end

-- What a push that was answered 200 has to have stored, by rules of this file's own.

local function characters(text) return select(2, text:gsub("[^\x80-\xBF]", "")) end
local function is_name(v, most) return type(v) == "string" and characters(v) <= most and not v:find "%c" end

local MONTHS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
local function leap(y) return y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0) end
-- ms of a plain UTC time; false where it does not exist; nil where it has another form.
local function moment(text)
  local y, mo, d, h, mi, sec = text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d) (%d%d):(%d%d):(%d%d)$"
  if not y then return nil end
  y, mo, d, h, mi, sec = tonumber(y), tonumber(mo), tonumber(d), tonumber(h), tonumber(mi), tonumber(sec)
  if y < 1970 or mo < 1 or mo > 12 or d < 1 or d > MONTHS[mo] + (mo == 2 and leap(y) and 1 or 0) or h > 23 or mi > 59 or sec > 59 then return false end
  local days = d - 1
  for year = 1970, y - 1 do days = days + (leap(year) and 366 or 365) end
  for month = 1, mo - 1 do days = days + MONTHS[month] + (month == 2 and leap(y) and 1 or 0) end
  return (days * 86400 + h * 3600 + mi * 60 + sec) * 1000
end

local function given(v)
  if v ~= json.null and v ~= "" then return v end
end

local function expected(text)
  local body = assert(json.decode(text), "answered 200, and is no JSON: " .. text)
  assert(json.is_array(body) and #body >= 1 and #body <= 1000, text)
  local list = {}
  for i, r in ipairs(body) do
    assert(type(r) == "table" and is_name(r.equipmentName, 128) and r.equipmentName ~= "" and is_name(r.functionType, 128) and r.functionType ~= ""
      and (r.buildingName == "HQ" or r.buildingName == "Annex"), text)
    local devEui, at, v = given(r.devEui), nil, r.value ~= json.null and r.value or nil
    local reading = r.reading ~= json.null and r.reading or nil
    assert(not devEui or is_name(devEui, 64) and not devEui:find "/", text)
    assert(not given(r.unit) or is_name(r.unit, 64), text)
    assert(v == nil or type(v) == "number", text)
    assert(reading == nil or type(reading) == "string" and characters(reading) <= 1024 and not reading:find "%z", text)
    assert(v ~= nil or reading ~= nil, text)
    if given(r.time) then
      assert(type(r.time) == "string", text)
      at = moment(r.time)
      assert(at ~= false, text)
    end
    if v == nil then v = reading end
    list[i] = { device = devEui or ("neuron/%s/%s"):format(r.buildingName, r.equipmentName), metric = r.functionType, at = at, value = v }
  end
  return list
end

local function same(a, b)
  if type(a) ~= "number" or type(b) ~= "number" then return a == b end
  return a == b or math.abs(a - b) <= math.abs(a) * 1e-14
end

-- Pipelined over a few connections, none of which may be closed by an answer.

local function wire(r)
  local lines = { ("%s %s HTTP/1.1"):format(r[2], r[3]), "host: fuzz" }
  for k, v in pairs(r[5]) do lines[#lines + 1] = k .. ": " .. v end
  if r[2] ~= "GET" then
    lines[#lines + 1] = "content-type: application/json"
    lines[#lines + 1] = "content-length: " .. #(r[4] or "")
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (r[4] or "")
end

local function take(s, sent)
  local status, text = bed.receive(s)
  assert(status == 200, ("answered %s, %s to %s"):format(tostring(status), tostring(text), wire(sent)))
  local answer = json.decode(text)
  assert(type(answer) == "table" and math.type(answer.code) == "integer" and type(answer.message) == "string" and answer.message ~= ""
    and answer.isSuccess == (answer.code == 200) and answer.data ~= nil, ("answered %s to %s"):format(text, wire(sent)))
  return answer
end

local function drive(port, requests, each)
  local sockets = {}
  for i = 1, CONNECTIONS do
    sockets[i] = assert(socket.connect("127.0.0.1", port))
    sockets[i]:settimeout(60)
  end
  for from = 1, #requests, WINDOW * CONNECTIONS do
    for ch = 1, CONNECTIONS do
      local batch = {}
      for i = from + (ch - 1) * WINDOW, math.min(#requests, from + ch * WINDOW - 1) do batch[#batch + 1] = wire(requests[i]) end
      assert(sockets[ch]:send(table.concat(batch)))
    end
    for ch = 1, CONNECTIONS do
      for i = from + (ch - 1) * WINDOW, math.min(#requests, from + ch * WINDOW - 1) do each(requests[i], take(sockets[ch], requests[i])) end
    end
  end
  for _, s in ipairs(sockets) do s:close() end
end

describe("10,000 broken requests to Neuron's endpoints", function()
  local host, c
  local requests, codes, answered, refused = {}, {}, {}, {}

  setup(function()
    host = bed.host { config = [[connections = { { "neuron", buildings = { "HQ", "Annex" },
      datasets = { energy = { n = "integer", kwh = "number", day = "datetime", area = "string optional" } } } }]] }
    c = client.new(host, "neuron")
    local box = crypto.unbase64(c.headers["X-Source-SecretKey"])
    c.headers["X-Param-ProjectId"] = "p"
    local key = { good = c.headers, broken = function(n)
      local id, text = c.key.secret_id, crypto.base64(flip(box))
      if n % 4 == 0 then text = mutate(text):gsub("[%c\x80-\xff]", "+") end
      if n % 7 == 0 then id = mutate(id):gsub("[%c\x80-\xff]", "+") end
      return { ["X-Source-SecretId"] = id, ["X-Source-SecretKey"] = text, ["X-Param-ProjectId"] = "p" }
    end }
    for n = 1, REQUESTS do requests[n] = make(n, key) end
    drive(host.port, requests, function(r, answer)
      local of = codes[r[1]] or {}
      codes[r[1]] = of
      of[answer.code] = (of[answer.code] or 0) + 1
      assert.is_true(({ [200] = true, [400] = true, [401] = true, [404] = true })[answer.code], json.encode(answer))
      assert.equal(r[5] ~= c.headers, answer.code == 401) -- a wrong key, and nothing else
      if r[1] == "push" then table.insert(answer.code == 200 and answered or refused, r) end
    end)
  end)
  teardown(function() host:stop() end)

  it("are each answered, many either way", function()
    for _, kind in ipairs { "push", "history", "dataset", "page" } do
      assert.is_true((codes[kind][200] or 0) > 20 and (codes[kind][400] or 0) > 20, json.encode(codes[kind][200] or 0) .. " " .. json.encode(codes[kind][400] or 0))
    end
    assert.is_true((codes.device[404] or 0) > 50 and (codes.push[401] or 0) > 300)
    assert.is_nil(codes.none[200])
  end)

  it("are in the store exactly where they were answered 200, and right", function()
    local groups, rows = {}, host:sql "select * from readings"
    local function group(device, metric)
      local id = device .. "\0" .. metric
      groups[id] = groups[id] or { rows = {}, wanted = {} }
      return groups[id]
    end
    for _, row in ipairs(rows) do table.insert(group(row.device, row.metric).rows, row) end
    local n = 0
    for _, r in ipairs(answered) do
      for _, e in ipairs(expected(r[4])) do
        n = n + 1
        table.insert(group(e.device, e.metric).wanted, e)
      end
    end
    assert.is_true(#rows <= n and #rows > n - 200, ("%d rows, %d expected"):format(#rows, n))
    for id, g in pairs(groups) do
      for _, e in ipairs(g.wanted) do -- the first of one time counts, whatever else was sent for it
        local found = false
        for _, row in ipairs(g.rows) do found = found or (not e.at or row.at == e.at) and (same(e.value, row.value) or #g.wanted > 1) end
        assert.is_true(found, ("%q: %s"):format(id, json.encode(g)))
      end
      for _, row in ipairs(g.rows) do
        local found = false
        for _, e in ipairs(g.wanted) do found = found or (not e.at or row.at == e.at) and same(e.value, row.value) end
        assert.is_true(found, ("%q: %s"):format(id, json.encode(g)))
      end
    end
  end)

  it("that were refused have stored nothing and are kept as refused", function()
    assert.is_true(#refused > 1000)
    assert.same({}, host:sql "select * from readings where request in (select id from inbox where outcome <> 'done')")
    local kept = host:sql "select outcome, count(*) as n, sum(error is null) as unsaid from inbox where target = '/dataPlatform/openapi' group by outcome order by outcome"
    assert.same({ { outcome = "done", n = #answered, unsaid = #answered }, { outcome = "refused", n = #refused, unsaid = 0 } }, kept)
  end)

  it("leave the host well, and no error in its log", function()
    assert.equal(200, c:push { { equipmentName = "after", functionType = "x", buildingName = "HQ", value = 1 } }.code)
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
