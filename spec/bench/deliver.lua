-- Messages to a local receiver: they wait in the outbox until their destination comes into force, then it is measured how fast they go, and what each costs.
local bed = require "bed"
local json = require "neap.json"
local servers = require "servers"
local socket = require "socket"

local MESSAGES, DEVICES, CHUNK = 20000, 200, 5000

local source = [[
local plugin = ...
plugin:command { "burst", args = { from = { "integer" }, to = { "integer" } }, handler = function(args)
  for i = args.from, args.to do plugin:emit { device = "d" .. i %% %d, metric = "m", value = i, at = 1600000000000 + i } end
end }
]]
local rule = [[
local plugin = ...
plugin:on({ metric = "m" }, function(r) plugin:send("post", { device = r.device, n = r.value, at = r.at }) end)
]]
local post = bed.POSTER

-- The courier's own share: a handler that has nothing to do.
local nothing = [[
local plugin = ...
plugin:deliver { options = { url = { "string" } }, handler = function() return true end }
]]

local function taken(receiver)
  local _, body = bed.request(receiver.port, "GET", "/report")
  return json.decode(body).steady
end

-- messages/s and µs of neap's CPU for each, by these terms
local function measure(terms, handler)
  local receiver = bed.start { bed.tools .. "/receiver", "--messages", tostring(MESSAGES) }
  servers.runs(receiver.pid, true)
  receiver.port = tonumber(receiver:wait_for "receiver on (%d+)")
  local host = bed.host {
    plugins = { ["vendors/source.lua"] = source:format(DEVICES), ["rules/pass.lua"] = rule, ["destinations/post.lua"] = "error 'not yet'" },
    args = { "--log-level", "error" },
    config = ("destinations = { { \"post\", url = \"http://127.0.0.1:%d/steady\", delivery = %s } }"):format(receiver.port, terms) }
  servers.runs(host.pid, true)
  for from = 1, MESSAGES, CHUNK do
    local _, code = host:command("call", "source", "burst", "from=" .. from, "to=" .. from + CHUNK - 1)
    assert(code == 0)
  end
  bed.wait("all to wait", function() return host:sql("SELECT count(*) AS n FROM outbox")[1].n == MESSAGES end, 60)
  local server = servers.watch(host.pid)
  local cpu = server:cpu()
  bed.replace(host.plugins .. "/destinations/post.lua", handler)
  bed.wait("the first to have gone", function() return host:sql("SELECT count(*) AS n FROM outbox")[1].n < MESSAGES end)
  local began, before = socket.gettime(), host:sql("SELECT count(*) AS n FROM outbox")[1].n
  bed.wait("all to be delivered", function() return host:sql("SELECT count(*) AS n FROM outbox")[1].n == 0 end, 120)
  local seconds = socket.gettime() - began
  cpu = server:cpu() - cpu
  local r = taken(receiver)
  assert(handler == nothing or r.taken == MESSAGES and r.two_ids == 0 and r.disorder == 0)
  host:stop()
  receiver:stop()
  servers.runs(host.pid, false)
  servers.runs(receiver.pid, false)
  return before / seconds, cpu / MESSAGES
end

-- Prints a row for each way; rounds: medians are of so many.
return function(say, median, rounds)
  say("\n%-44s%14s%14s", ("deliveries, %d messages of %d devices"):format(MESSAGES, DEVICES), "messages/s", "CPU each, µs")
  local ways = { { "one by one, 8 at once", "{}", post }, { "one by one, 32 at once", "{ concurrency = 32 }", post },
    { "one by one, to a handler that does nothing", "{}", nothing }, { "batches of 100", "{ batch = 100 }", post } }
  for _, way in ipairs(ways) do
    local rates, costs = {}, {}
    for i = 1, rounds do rates[i], costs[i] = measure(way[2], way[3]) end
    say("%-44s%14.0f%14.1f", way[1], median(rates), median(costs))
  end
end
