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
