-- Messages of 200 devices to receivers that fail in every way, with ten kill -9 on the way: every one arrives, each device's in order, none under two ids, and
-- what goes to a healthy destination waits for no sick one. NEAP_MESSAGES says how many: 100,000 where it does not.
local bed = require "bed"
local json = require "neap.json"
local process = require "process"
local socket = require "socket"

local MESSAGES = tonumber(os.getenv "NEAP_MESSAGES") or 100000
local KILLS, DEVICES = 10, 200
local CHUNK = MESSAGES // KILLS

local source = [[
local plugin = ...
plugin:command { "burst", args = { from = { "integer" }, to = { "integer" } }, handler = function(args)
  for i = args.from, args.to do
    plugin:emit { device = "d" .. i % 200, metric = "m", value = i, at = 1600000000000 + i }
  end
end }
]]
-- Of ten messages six go to bulk, three to moody and one to steady.
local rule = [[
local plugin = ...
local config = plugin:config { bulk = { "destination" }, moody = { "destination" }, steady = { "destination" } }
plugin:on({ metric = "m" }, function(r)
  local which = r.value // 200 % 10
  plugin:send(which < 6 and config.bulk or which < 9 and config.moody or config.steady, { n = r.value })
end)
]]
local post = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { several = true, options = { url = { "string" } }, handler = function(messages, to)
  local lines = {}
  for i, m in ipairs(messages) do lines[i] = m.id .. " " .. m.device .. " " .. m.data.n .. "\n" end
  local res, why, code = http.post { url = to.url, body = table.concat(lines), timeout = 1 }
  if not res then return nil, why, code end
  if res.status ~= 207 then return res end
  local outcomes = {}
  for word in res.body:gmatch "%a+" do outcomes[#outcomes + 1] = word == "ok" or word end
  return outcomes
end }
]]

local function expected(which, most)
  local n = 0
  for i = 1, most do
    local w = i // DEVICES % 10
    if which == (w < 6 and "bulk" or w < 9 and "moody" or "steady") then n = n + 1 end
  end
  return n
end

describe("deliveries in a storm", function()
  local host, sick, healthy, reports

  local function receiver(seed)
    local p = bed.start { bed.tools .. "/receiver", "--messages", tostring(MESSAGES), "--seed", tostring(seed) }
    p.port = tonumber(p:wait_for "receiver on (%d+)")
    return p
  end
  local function report(p)
    local status, body = bed.request(p.port, "GET", "/report")
    assert.equal(200, status)
    return json.decode(body)
  end
  local function one(query) return host:sql(query)[1].n end
  local function pending(name) return one(("SELECT count(*) n FROM outbox WHERE destination = '%s'"):format(name)) end

  -- Readings up to that number are stored; what was stored before a kill is known again.
  local function feed(chunk)
    local from, to = (chunk - 1) * CHUNK + 1, chunk * CHUNK
    for at = from, to, 5000 do
      local _, code = host:command("call", "source", "burst", "from=" .. at, "to=" .. math.min(to, at + 4999))
      assert.equal(0, code)
    end
  end
  local function ruled() return one "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM delivered) + (SELECT count(*) FROM dead) n" end

  setup(function()
    math.randomseed(20210407)
    sick, healthy = receiver(1), receiver(2)
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/spread.lua"] = rule, ["destinations/post.lua"] = post },
      args = { "--log-level", "warn", "--log", "json" },
      config = ([[rules = { { "spread", bulk = "bulk", moody = "moody", steady = "steady" } }, lanes = 2, destinations = {
        { "post", name = "bulk", url = "http://127.0.0.1:%d/bulk", delivery = { batch = 100, batch_wait = "100ms", backoff = "2s" } },
        { "post", name = "moody", url = "http://127.0.0.1:%d/moody", delivery = { concurrency = 16, backoff = "2s" } },
        { "post", name = "steady", url = "http://127.0.0.1:%d/steady" } }]]):format(sick.port, sick.port, healthy.port) }
    for kill = 1, KILLS do
      feed(kill)
      if kill == 4 then process.kill(sick.pid, 10) end -- it refuses
      if kill == 6 then
        bed.wait("what is for the healthy destination", function()
          return ruled() >= kill * CHUNK and pending "steady" == 0
        end, 120)
        assert.equal(expected("steady", kill * CHUNK), report(healthy).steady.taken)
        assert.is_true(pending "moody" > 0 and pending "bulk" > 0)
        process.kill(sick.pid, 12)
      end
      local moment = socket.gettime() + math.random() * 0.5 -- in the middle of whatever it does by then
      while socket.gettime() < moment do
        process.sleep(0.005)
        host:read()
      end
      host:restart(9)
    end
    bed.wait("all to have arrived", function()
      host:read()
      host.output = host.output:sub(-2000)
      process.sleep(0.05)
      return ruled() >= MESSAGES and one "SELECT count(*) n FROM outbox" == 0
    end, 300)
    reports = report(sick)
    reports.steady = report(healthy).steady
  end)

  teardown(function()
    host:stop()
    sick:stop()
    healthy:stop()
  end)

  for _, name in ipairs { "bulk", "moody", "steady" } do
    it("brings " .. name .. " every message, each device's in order, none under two ids", function()
      local r = reports[name]
      assert.equal(expected(name, MESSAGES), r.taken)
      assert.equal(0, r.two_ids)
      assert.equal(0, r.disorder)
    end)
  end

  it("met a storm", function()
    for _, name in ipairs { "bulk", "moody" } do assert.is_true(reports[name].repeated > 0, name) end
    for _, said in ipairs { "answered 500%", "answered 429%", "%Couldn_t connect%", "%transfer closed%", "%Empty reply%", "%no answer within%", "again" } do
      assert.is_true(one(("SELECT count(*) n FROM attempts WHERE error LIKE '%s'"):format(said)) > 0, said)
    end
  end)

  it("knows of each that it has arrived, once", function()
    assert.equal(MESSAGES, one "SELECT count(*) n FROM delivered")
    assert.equal(MESSAGES, one "SELECT count(DISTINCT id) n FROM delivered")
    assert.equal(MESSAGES, one "SELECT count(DISTINCT reading) n FROM delivered")
    assert.equal(0, one "SELECT count(*) n FROM dead")
    assert.equal(MESSAGES, one "SELECT count(*) n FROM attempts WHERE outcome = 'delivered'")
    assert.equal(0, one "SELECT count(*) n FROM delivered d WHERE NOT EXISTS (SELECT 1 FROM attempts a WHERE a.message = d.seq AND a.n = d.attempts + 1)")
  end)

  it("ends cleanly", function()
    local how, code = host:stop()
    assert.equal("exit 0", how .. " " .. code, host.output:sub(-3000))
  end)
end)
