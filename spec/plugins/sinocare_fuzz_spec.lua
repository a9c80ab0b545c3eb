-- 10,000 broken pushes, mutated from good ones with a fixed seed: each is refused in the vendor's words, or stored right.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local BODIES, CONNECTIONS, WINDOW = 10000, 4, 64

math.randomseed(20211102, 33)
local random = math.random

-- Good pushes, each with a testId and mostly with a device of its own.

local function good(n)
  local function pick(list) return list[random(#list)] end
  local body = bed.push {
    testId = "fuzz-" .. n, deviceSn = "SN-" .. n % 97, testResult = ("%.1f"):format(random(20, 250) / 10), serialNo = random(1,
      5000),
    testTime = ("2021-%02d-%02d %02d:%02d:%02d"):format(random(12), random(28), random(0, 23), random(0, 59), random(0, 59)),
    patientName = pick { "", "张三", "O'Neill" }, status = pick { "0", "1" }, cgmStatus = pick { "0", "1", "2", "4" },
      low = pick { json.null, 3.9 },
    high = pick { json.null, 13.9, "10" }, customerName = pick { "", "测试医院", "Ward \"3\"" },
  }
  return json.encode(body)
end

-- Mutations: each takes text and returns text.

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

local TOKENS = { "{", "}", "[", "]", ",", ":", '"', "null", "true", "\\", "\\u0000", "\\ud800", "\0", "\r\n", "\xff", "\xc0\x80",
  "\u{202e}", "9", "-", "e9",
  "\xEF\xBB\xBF" }
local function token(text)
  local at = random(#text)
  return splice(text, at, at - random(0, 1), TOKENS[random(#TOKENS)])
end

local VALUES = { "0", "1", "-1", "3", "5.6", "1e3", "1e308", "1e999", "-0", "9223372036854775807", "9223372036854775808",
  ("9"):rep(400), "null", "true",
  "[]", "{}", '[1,"a"]', '""', '" "', '"NaN"', '"-1"', '"0x10"', '"2021-02-31 12:00:00"', '"2021-11-02 25:00:00"',
    '"9999-12-31 23:59:59"',
  '"0000-00-00 00:00:00"', '"' .. ("x"):rep(5000) .. '"', '"\\u0000"', '"\\u0001x"', '"张三"', '"😀"', '"3"', '"01"', '"1e3"',
    '"' .. ("1"):rep(40) .. '"',
  ("["):rep(60) .. ("]"):rep(60), ("["):rep(300), ('{"a":'):rep(150) .. "1" .. ("}"):rep(150) }

-- Puts another value where the nth member's stands.
local function value(text)
  local spots = {}
  for from, to in text:gmatch '":()"[^"]*"()' do spots[#spots + 1] = { from, to - 1 } end
  for from, to in text:gmatch '":()[%d.nul]+()' do spots[#spots + 1] = { from, to - 1 } end
  local spot = spots[random(#spots)]
  return spot and splice(text, spot[1], spot[2], VALUES[random(#VALUES)]) or flip(text)
end

-- Numbers become strings and strings numbers.
local function swap(text)
  if random(2) == 1 then
    local n, count = random(4), 0
    return (text:gsub('":([%d.]+)', function(digits)
      count = count + 1
      return count == n and ('":"%s"'):format(digits) or nil
    end))
  end
  local n, count = random(6), 0
  return (text:gsub('":"(%-?[%d.]+)"', function(digits)
    count = count + 1
    return count == n and '":' .. digits or nil
  end))
end

local function rename(text)
  local names = {}
  for from, to in text:gmatch '()"%a+"():' do names[#names + 1] = { from, to - 1 } end
  local a, b = names[random(#names)], names[random(#names)]
  return a and splice(text, a[1], a[2], random(3) == 1 and '"x"' or text:sub(b[1], b[2])) or flip(text)
end

local MUTATIONS = { flip, flip, cut, double, drop, token, value, value, value, swap, swap, rename }

local function mutate(text)
  for _ = 1, random(10) < 8 and 1 or random(2, 4) do
    if #text > 0 then text = MUTATIONS[random(#MUTATIONS)](text) end
  end
  return text
end

-- What has to be stored for a body that was answered 0, read from the body by rules of its own.

local function as_text(v)
  if type(v) == "string" then return v end
  if v == 0 then return "0" end -- also -0
  if math.type(v) == "integer" then return ("%d"):format(v) end
  return type(v) == "number" and math.abs(v) < 2 ^ 53 and (v == math.floor(v) and ("%.0f"):format(v) or ("%.14g"):format(v)) or nil
end

local MONTHS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function leap(y) return y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0) end

-- ms of a time in China, which since 1992 is eight hours ahead; nil where it does not exist.
local function moment(text)
  local y, mo, d, h, mi, s = text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d) (%d%d):(%d%d):(%d%d)$"
  if not y then return nil end
  y, mo, d, h, mi, s = tonumber(y), tonumber(mo), tonumber(d), tonumber(h), tonumber(mi), tonumber(s)
  if mo < 1 or mo > 12 or d < 1 or d > MONTHS[mo] + (mo == 2 and leap(y)
    and 1 or 0) or h > 23 or mi > 59 or s > 59 then return nil end
  local days = 0
  for year = 1970, y - 1 do days = days + (leap(year) and 366 or 365) end
  for month = 1, mo - 1 do days = days + MONTHS[month] + (month == 2 and leap(y) and 1 or 0) end
  return ((days + d - 1) * 86400 + (h - 8) * 3600 + mi * 60 + s) * 1000, y
end

local function expected(text)
  local body = assert(json.decode(text), "answered 0, and is no JSON: " .. text)
  local d = body.data
  local code = as_text(body.reservedCode)
  assert(code == "01" or code == "1", "answered 0 with another reservedCode: " .. text)
  local at, year = moment(assert(d.testTime))
  assert(at, "answered 0 with a time that does not exist: " .. text)
  local status = d.status ~= nil and d.status ~= json.null and as_text(d.status) or "0"
  assert(status == "0" or status == "1", text)
  assert(as_text(d.testResult):match "^ *%d+%.?%d* *$", "answered 0 to a value that is no decimal number: " .. text)
  return {
    key = assert(as_text(d.testId)), device = assert(as_text(d.deviceSn)), value = assert(tonumber(as_text(d.testResult))),
    at = year >= 1992 and at or nil, serial = d.serialNo ~= json.null and tonumber(d.serialNo) or nil, valid = status == "0",
  }
end

-- Pipelined over a few connections, none of which may be closed by an answer.

local function request(body)
  local head = "POST /sinocare/push HTTP/1.1\r\nhost: fuzz\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
  return head:format(#body, body)
end

local function answer_of(s, sent)
  local status, text = bed.receive(s)
  assert(status, ("no answer to %q: %s"):format(sent, tostring(text)))
  local answer = json.decode(text)
  assert(type(answer) == "table" and math.type(answer.code) == "integer" and type(answer.msg) == "string" and next(answer,
    next(answer, next(answer))) == nil,
    ("answered %s to %q"):format(text, sent))
  return status, answer
end

local function drive(port, bodies, each)
  local sockets = {}
  for i = 1, CONNECTIONS do
    sockets[i] = assert(socket.connect("127.0.0.1", port))
    sockets[i]:settimeout(60)
  end
  for from = 1, #bodies, WINDOW * CONNECTIONS do
    for c = 1, CONNECTIONS do
      local batch = {}
      for i = from + (c - 1) * WINDOW, math.min(#bodies, from + c * WINDOW - 1) do batch[#batch + 1] = request(bodies[i]) end
      assert(sockets[c]:send(table.concat(batch)))
    end
    for c = 1, CONNECTIONS do
      for i = from + (c - 1) * WINDOW, math.min(#bodies, from + c * WINDOW - 1) do each(i, answer_of(sockets[c], bodies[i])) end
    end
  end
  for _, s in ipairs(sockets) do s:close() end
end

describe("10,000 broken pushes", function()
  local host
  local bodies, answered, refused = {}, {}, {}

  setup(function()
    host = bed.host { config = [[connections = { { "sinocare", name = "ward-3" } }]] }
    for n = 1, BODIES do bodies[n] = mutate(good(n)) end
    drive(host.port, bodies, function(i, status, answer)
      assert(status == 200, ("answered %d to %q"):format(status, bodies[i]))
      if answer.code == 0 then answered[#answered + 1] = i
      else
        assert(answer.msg ~= "", bodies[i])
        refused[#refused + 1] = i
      end
    end)
  end)
  teardown(function() host:stop() end)

  it("are each answered, many either way", function()
    assert.equal(BODIES, #answered + #refused)
    assert.is_true(#answered > BODIES / 10, #answered .. " accepted")
    assert.is_true(#refused > BODIES / 3, #refused .. " refused")
  end)

  it("are in the store exactly where they were answered 0, once, and right", function()
    local rows, n = {}, 0
    for _, row in ipairs(host:sql "select * from readings") do
      local id = row.device .. "\0" .. row.key
      assert.is_nil(rows[id], "stored twice: " .. id)
      rows[id] = row
      n = n + 1
    end
    local first, acknowledged = {}, 0
    for _, i in ipairs(answered) do
      local e = expected(bodies[i])
      local id = e.device .. "\0" .. e.key
      local row = assert(rows[id], "answered 0 and not stored: " .. bodies[i])
      if not first[id] then acknowledged = acknowledged + 1 end
      first[id] = first[id] or {}
      table.insert(first[id], e)
      assert.equal("glucose", row.metric)
      assert.equal("mmol/L", row.unit)
    end
    assert.equal(n, acknowledged)
    for id, candidates in pairs(first) do -- a mutated testId may have been another's: one of them was first
      local row, fits = rows[id], false
      for _, e in ipairs(candidates) do
        fits = fits or row.value == e.value and (not e.at or row.at == e.at) and (row.serial == json.null or row.serial == e.serial)
          and (e.serial == nil) == (row.serial == json.null) and (row.quality == "valid") == e.valid
      end
      assert.is_true(fits, json.encode { row = row, bodies = candidates })
    end
  end)

  it("that were refused are kept as they came, and name what is wrong", function()
    local kept = host:sql "select outcome, count(*) as n, sum(error is null) as unsaid from inbox group by outcome order by outcome"
    assert.same({ { outcome = "done", n = #answered, unsaid = #answered }, { outcome = "refused", n = #refused, unsaid = 0 } },
      kept)
    local came = {}
    for _, row in ipairs(host:inbox()) do came[row.body] = row.outcome end
    for _, i in ipairs(refused) do assert.equal("refused", came[bodies[i]]) end
  end)

  it("leave the host well, and no error in its log", function()
    local status, answer = host:json("POST", "/sinocare/push", bed.push { testId = "after", deviceSn = "after" })
    assert.equal(200, status)
    assert.equal(0, answer.code)
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
