-- Budgets of the running host: one count for all lanes, in order; a month's is durable and never undercounted.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local vendor = [[
local plugin = ...
local lane = tostring {}
local config = plugin:config { second = { "number", optional = true }, minute = { "number", optional = true }, month = { "integer", optional = true } }
local budget = plugin:budget { "logs", per_second = config.second, per_minute = config.minute, per_month = config.month }
local arrived = 0
plugin:serve { "GET /take", query = { n = { "integer", default = 1, lenient = true } }, handler = function(req)
  arrived = arrived + 1
  local key = tostring(arrived)
  local ok, why, code = budget:take(req.query.n)
  plugin:emit { device = "d", metric = "m", value = 1, key = key, at = 1 }
  return 200, { ok = ok, why = why, code = code, lane = lane }
end }
]]

describe("a budget", function()
  local host
  local function start(settings, more)
    host = bed.host { plugins = { ["vendors/acme.lua"] = vendor },
      config = ("%s connections = { { \"acme\", %s } }"):format(more or "lanes = 2,", settings) }
  end
  after_each(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function take(n)
    local _, answer = host:json("GET", "/take?n=" .. (n or 1))
    return answer
  end

  local function many(n, path)
    local calls = {}
    for i = 1, n do
      local s = assert(socket.connect("127.0.0.1", host.port))
      s:settimeout(30)
      s:send(("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):format(path or "/take"))
      calls[i] = s
    end
    return calls
  end

  local function answers(calls)
    local list, lanes, n = {}, {}, 0
    for i, s in ipairs(calls) do
      local _, body = bed.receive(s)
      s:close()
      list[i] = assert(json.decode(body))
      if not lanes[list[i].lane] then n = n + 1 end
      lanes[list[i].lane] = true
    end
    return list, n
  end

  local function granted(list)
    local n = 0
    for _, a in ipairs(list) do n = n + (a.ok and 1 or 0) end
    return n
  end

  local function used() return host:plugin "acme".budgets[1].used end

  it("without bounds lets all through", function()
    start ""
    assert.equal(100, granted((answers(many(100)))))
    assert.is_nil(host:plugin "acme".budgets)
  end)

  it("lets a second's number through at once, and the others wait for their turn", function()
    start "second = 20"
    local list, lanes = answers(many(60)) -- 20, and 40 more in two seconds
    assert.equal(60, granted(list))
    assert.equal(2, lanes)
    assert.equal(0, host:summary().tasks)
  end)

  it("refuses a call whose turn would come after its time, and takes nothing for it", function()
    start "second = 0.001"
    assert.is_true(take().ok)
    for _ = 1, 3 do
      local answer = take()
      assert.equal("quota", answer.code)
      assert.matches("the call has no time left to wait", answer.why)
      assert.is_true(tonumber(answer.why:match "in ([%d.]+) s") <= 1000) -- not 2000 for the second
    end
  end)

  it("spreads a minute's number, and has more than a burst paid back", function()
    start "minute = 2" -- one at once, and one more each minute
    assert.is_true(take(3).ok)
    local answer = take()
    assert.equal("quota", answer.code)
    local seconds = tonumber(answer.why:match "in ([%d.]+) s")
    assert.is_true(seconds > 120 and seconds <= 180, answer.why)
  end)

  it("wakes in the order of the calls, also those that are due in one millisecond", function()
    start("second = 20000", "lanes = 1,")
    assert.is_true(take(20000).ok)
    local calls = many(1, "/take?n=20000")
    for _, s in ipairs(many(100)) do calls[#calls + 1] = s end
    assert.equal(101, granted((answers(calls))))
    local rows = host:sql "SELECT key FROM readings ORDER BY seq"
    assert.equal(102, #rows)
    for i, row in ipairs(rows) do assert.equal(tostring(i), row.key) end
  end)

  it("of a month grants exactly that many, to all lanes together, and says once that it is used up", function()
    start "month = 150"
    local list, lanes = answers(many(200))
    assert.equal(150, granted(list))
    assert.equal(2, lanes)
    for _, a in ipairs(list) do
      if not a.ok then
        assert.equal("quota", a.code)
        assert.matches("the 150 of %d%d%d%d%-%d%d are used up", a.why)
      end
    end
    local line = host:plugin "acme".budgets[1]
    assert.same({ "logs", 150, 150 }, { line.budget, line.used, line.limit })
    host:wait_text "a month's budget is used up"
    assert.equal(1, select(2, host:read():gsub("a month's budget is used up", "")))
  end)

  it("of a month counts a few too many after a kill, and exactly after a clean stop", function()
    start "month = 1000" -- blocks of ten
    assert.equal(25, granted((answers(many(25)))))
    assert.equal(25, used())
    host:restart(15)
    assert.equal(25, used())
    assert.is_true(take().ok)
    assert.equal(26, used())
    host:restart(9)
    assert.equal(35, used()) -- the block of ten that began at 25
    assert.is_true(take().ok)
    assert.equal(36, used())
  end)

  it("of a month is never undercounted, whenever it is killed", function()
    start "month = 100000"
    local sum = 0
    for _ = 1, 5 do
      local calls = many(40)
      local answered = 0
      for i, s in ipairs(calls) do
        if i > 20 then break end
        local status, body = bed.receive(s)
        if status and json.decode(body).ok then answered = answered + 1 end
      end
      host:restart(9)
      for _, s in ipairs(calls) do s:close() end
      sum = sum + answered
      assert.is_true(used() >= sum)
    end
    assert.is_true(sum >= 100)
  end)

  it("refuses more than the month's at once, and takes what is left", function()
    start "month = 10"
    assert.equal("quota", take(11).code)
    assert.is_true(take(9).ok)
    assert.matches("only 1 of the 10 of", take(2).why)
    assert.is_true(take(1).ok)
    assert.equal("quota", take(1).code)
  end)

  it("ends who waits when neap is stopped", function()
    start("second = 0.05", "lanes = 2, drain = \"60s\",")
    assert.is_true(take().ok)
    local calls = many(4)
    bed.wait("them to wait", function() return host:summary().tasks == 4 end)
    assert.same({ "exit", 0 }, { host:stop() })
    for _, a in ipairs((answers(calls))) do assert.equal("stopped", a.code) end
  end)
end)
