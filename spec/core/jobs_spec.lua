-- Jobs of the running host: a poll's readings and the place that it has reached commit together.
local bed = require "bed"

local poller = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string" } }
plugin:every("100ms", "poll", function()
  local since = plugin.store:get "since" or 0
  local res = assert(http.get { url = config.url, query = { since = since }, expect = 200, timeout = 10 })
  for _, n in ipairs(res.json.numbers) do
    plugin:emit { device = "d", metric = "m", value = n, at = 1600000000000, key = tostring(n) }
  end
  plugin.store:put("since", res.json.newest)
end)
]]

describe("a job", function()
  local receiver, host

  before_each(function()
    receiver = bed.receiver()
    receiver.answer = function(r)
      local since = assert(math.tointeger(tonumber(r.path:match "since=(%d+)")))
      return 200, ('{"numbers":[%d,%d],"newest":%d}'):format(since + 1, since + 2, since + 2)
    end
    host = bed.host { plugins = { ["vendors/poller.lua"] = poller },
      config = ("connections = { { \"poller\", url = %q } }"):format(receiver.url) }
  end)
  after_each(function()
    host:stop()
    receiver:close()
  end)

  local function stored(query)
    return bed.wait("the store", function()
      receiver:poll()
      local row = host:sql(query)[1]
      return row and row.n
    end)
  end

  it("runs again and again, each time from where the last one committed", function()
    receiver:wait(4)
    for i, r in ipairs(receiver.requests) do assert.equal("/?since=" .. 2 * (i - 1), r.path) end
  end)

  it("goes on after it was killed at any moment, missing and doubling nothing", function()
    for round = 1, 3 do
      receiver:wait(3 * round)
      host:stop(9)
      host:begin()
    end
    receiver:wait(#receiver.requests + 2)
    host:stop()
    local rows = bed.sql(host.store, "SELECT value AS v FROM readings ORDER BY seq")
    assert.truthy(#rows >= 16, #rows)
    for i, row in ipairs(rows) do assert.equal(i, math.tointeger(tonumber(row.v))) end
  end)

  it("keeps nothing of a run that fails, says why, and tries again", function()
    receiver:wait(1)
    local answer = receiver.answer
    receiver.answer = function() return 503, "closed" end
    bed.wait("the failure", function()
      receiver:poll()
      return host:read():find("answered 503: closed", 1, true)
    end)
    local before = #receiver.requests
    receiver.answer = answer
    receiver:wait(before + 2)
    local newest = 0
    for _, r in ipairs(receiver.requests) do
      local since = tonumber(r.path:match "since=(%d+)")
      assert.truthy(since == newest or since == newest + 2, r.path)
      newest = since
    end
    assert.truthy(stored "SELECT count(*) AS n FROM readings" >= 2)
  end)
end)

describe("a job that returns a duration", function()
  local host
  after_each(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local filler = [[
    local plugin = ...
    local config = plugin:config { most = { "integer", default = 50 }, back = { "string", default = "0s" } }
    plugin:serve { "GET /n", handler = function() return { n = plugin.store:get "n" or 0, m = plugin.store:get "m" or 0 } end }
    plugin:every("1h", "fill", function()
      local n = (plugin.store:get "n" or 0) + 1
      plugin.store:put("n", n)
      if n < config.most then return config.back end
    end)
    plugin:every("1h", "other", function()
      local m = (plugin.store:get "m" or 0) + 1
      plugin.store:put("m", m)
      if m < 5 then return 0.01 end
    end)
  ]]
  local function counted() return select(2, host:json("GET", "/n")) end
  local function until_n(n)
    bed.wait("run " .. n, function() return counted().n >= n end)
  end

  it("runs again at once, one at a time, while requests are served, and then by its period", function()
    host = bed.host { plugins = { ["vendors/filler.lua"] = filler }, config = "lanes = 1" }
    until_n(50)
    bed.wait("the other job", function() return counted().m == 5 end)
    bed.wait("both to rest", function() return host:summary().tasks == 0 end)
    assert.same({ n = 50, m = 5 }, counted())
    local due = host:sql "SELECT CAST(value AS TEXT) AS v FROM kv WHERE space = 'neap.jobs' AND key = 'filler/fill'"[1].v
    assert.matches("^%d+ 0$", due)
  end)

  it("goes on at once after a restart, for when it is due is kept", function()
    host = bed.host { plugins = { ["vendors/filler.lua"] = filler }, config = 'connections = { { "filler", most = 1000000 } }' }
    for round = 1, 3 do
      until_n(20 * round)
      host:restart(round == 2 and 15 or 9)
    end
    until_n(80)
  end)

  it("can wait for longer as well, also over a restart", function()
    host = bed.host { plugins = { ["vendors/slow.lua"] = [[
      local plugin = ...
      plugin:serve { "GET /n", handler = function() return { n = plugin.store:get "n" or 0 } end }
      plugin:every("100ms", "slow", function() plugin.store:put("n", (plugin.store:get "n" or 0) + 1) return "1d" end)
    ]] } }
    until_n(1)
    host:restart()
    local row = host:sql "SELECT CAST(value AS TEXT) AS v FROM kv WHERE space = 'neap.jobs'"[1].v
    local began, due = row:match "^(%d+) (%d+)$"
    assert.is_true(tonumber(due) - tonumber(began) >= 86400000)
    bed.wait("its timer to be set", function() return host:summary().timers > 0 end)
    assert.equal(1, counted().n)
  end)

  it("and anything else fails the run, and says so", function()
    host = bed.host { plugins = { ["vendors/odd.lua"] = [[
      local plugin = ...
      plugin:every("1h", "odd", function() plugin.store:put("n", 1) return "soon" end)
    ]] } }
    host:wait_for 'a job returns nothing, or a duration such as \\"15m\\" after which it runs again; got soon'
    assert.same({}, host:sql "SELECT 1 FROM kv WHERE key = 'n'")
  end)
end)
