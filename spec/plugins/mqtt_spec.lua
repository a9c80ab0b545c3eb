-- mqtt against Debian's mosquitto: what its own client reads, over kills and restarts of either side, TLS, passwords and ACLs.
local bed = require "bed"
local certificates = require "certificates"
local json = require "neap.json"
local socket = require "socket"

local source = bed.UNKEPT_EMITTER
-- Publishes what it is asked to, and tells what it was told.
local prober = [[
local plugin = ...
local mqtt = require "neap.mqtt"
local config = plugin:config { url = { "string", default = "%s" } }
local clients = { own = mqtt.client { url = config.url, inflight = 2 }, old = mqtt.client { url = config.url, version = "3.1.1" },
  far = mqtt.client { url = "mqtt://127.0.0.2:1883" } }
plugin:serve { "POST /probe", keep = false, handler = function(req)
  local b = require "neap.json".decode(req.raw)
  local client = clients[b.client]
  local got = table.pack(pcall(function()
    if not b.messages then return client:connect(b.timeout) end
    return client:publish(b.messages, { timeout = b.timeout, connection = b.connection })
  end))
  for i = 1, got.n do if got[i] == nil then got[i] = false end end
  got.n = nil
  return 200, { got = got }
end }
]]

-- A broker: mosquitto with these lines as its configuration. Its port is free again after stop(), and begin() takes it again.
local Broker = {}
Broker.__index = Broker

local function broker(lines)
  local b = setmetatable({ port = bed.free_port(), folder = bed.folder() }, Broker)
  bed.write(b.folder .. "/m.conf", ("listener %d 127.0.0.1\nlog_dest stdout\nconnection_messages true\nuser root\n%s\n")
    :format(b.port, lines or "allow_anonymous true"))
  b:begin()
  return b
end

function Broker:begin()
  self.program = bed.start { "mosquitto", "-c", self.folder .. "/m.conf" }
  bed.wait("mosquitto to listen", function()
    local s = socket.connect("127.0.0.1", self.port)
    if s then s:close() end
    return s
  end)
end

function Broker:stop(signal) self.program:stop(signal or 15) end

-- What comes in: lines of topic and payload, by mosquitto_sub.
function Broker:listen()
  local sub = bed.start { "mosquitto_sub", "-p", tostring(self.port), "-q", "1", "-v", "-t", "neap/#", "-t", "ready" }
  bed.wait("the subscriber", function()
    bed.run { "mosquitto_pub", "-p", tostring(self.port), "-t", "ready", "-m", "x" }
    return sub:read(0.05):find "ready x"
  end)
  return sub
end

local function published(sub)
  local list = {}
  for topic, payload in sub:read():gmatch "(neap/[^ \n]+) ({[^\n]*})\n" do list[#list + 1] = { topic = topic, json = json.decode(payload) } end
  return list
end

-- Whether the kernel holds bytes that the broker has not read.
local function unread(port)
  local pattern = ("%%x+:%04X %%x+:%%x+ %%x+ %%x+:(%%x+)"):format(port)
  for queued in bed.read "/proc/net/tcp":gmatch(pattern) do
    if tonumber(queued, 16) > 0 then return true end
  end
  return false
end

-- Values by device in the order in which they came, each at its first coming.
local function firsts(sub)
  local of, seen, count = {}, {}, 0
  for _, p in ipairs(published(sub)) do
    local r = p.json.reading
    if not seen[p.json.message_id] then
      seen[p.json.message_id] = true
      of[r.device] = of[r.device] or {}
      table.insert(of[r.device], r.value)
      count = count + 1
    end
  end
  return of, count
end

describe("mqtt", function()
  local host, hub
  after_each(function()
    if host then assert.same({ "exit", 0 }, { host:stop() }) host = nil end
    if hub then hub:stop() hub = nil end
  end)

  local function start(settings, lanes)
    host = bed.host { config = ([[ lanes = %d, rules = { { "forward", to = "hub", metric = "temp" } },
      destinations = { hub = { "mqtt", url = "%s://127.0.0.1:%d", timeout = "10s", %s delivery = { backoff = "1s" } } }]])
      :format(lanes or 2, (settings or ""):find "ca =" and "mqtts" or "mqtt", hub.port, settings and settings .. "," or ""),
      plugins = bed.own_plugins { ["vendors/source.lua"] = source, ["vendors/prober.lua"] = prober:format("mqtt://127.0.0.1:" .. hub.port) } }
  end
  local function push(from, to)
    local list = {}
    for i = from, to do list[#list + 1] = { device = "w-" .. i % 7, metric = "temp", value = i, unit = "Cel", at = 1772352000000 + i } end
    assert.equal(204, (host:request("POST", "/readings", json.encode(list))))
  end
  local function count(table_name) return host:sql("select count(*) as n from " .. table_name)[1].n end
  local function settled(n)
    bed.wait(n .. " messages delivered", function() return count "delivered" == n end, 60)
    assert.equal(0, count "dead")
  end
  local function waiting(pattern)
    return bed.wait("an attempt that failed with " .. pattern, function()
      for _, row in ipairs(host:sql "select error from attempts where error is not null") do
        if row.error:find(pattern) then return row.error end
      end
    end, 30)
  end
  -- What the broker keeps: how many metrics Home Assistant can find, and how many connections are said to be gone.
  local function announced()
    local kept = bed.run { "mosquitto_sub", "-p", tostring(hub.port), "-v", "-C", "9", "-W", "30", "-t", "neap/status/#", "-t", "homeassistant/#" }
    return select(2, kept:gsub("homeassistant/sensor/[%w_-]+/config {", "")), select(2, kept:gsub(" offline\n", ""))
  end
  local function probe(what) return select(2, host:json("POST", "/probe", what)).got end
  local function in_order(sub, n)
    local of
    bed.wait(n .. " messages at the subscriber", function()
      local found
      of, found = firsts(sub)
      return found == n
    end, 30)
    for device, values in pairs(of) do
      for i = 2, #values do assert.is_true(values[i - 1] < values[i], device) end
    end
  end

  it("is read by mosquitto's own client: all of it, in order for each device", function()
    hub = broker()
    local sub = hub:listen()
    start()
    push(1, 300)
    settled(300)
    in_order(sub, 300)
    assert.equal(300, #published(sub)) -- and nothing twice
    sub:stop()
  end)

  it("delivers all, in order, over a broker that is killed and comes again", function()
    hub = broker("allow_anonymous true\npersistence false")
    start 'discovery = "homeassistant"'
    local sub = hub:listen()
    push(1, 20)
    settled(20)
    in_order(sub, 20)
    sub:stop()
    os.execute("kill -STOP " .. hub.program.pid)
    push(21, 60)
    bed.wait("messages on the way", function() return unread(hub.port) end) -- sent, and nobody has read them
    hub:stop(9)
    waiting "the connection was lost"
    os.execute("kill -STOP " .. host.pid) -- until somebody listens again
    hub:begin()
    sub = hub:listen()
    os.execute("kill -CONT " .. host.pid)
    settled(60)
    in_order(sub, 40)
    sub:stop()
    assert.equal(7, announced()) -- anew, for the broker has forgotten them
  end)

  it("goes on over kill -9 of neap, with the same ids", function()
    hub = broker()
    local sub = hub:listen()
    start()
    push(1, 50)
    bed.wait("some to be delivered", function() return count "delivered" > 0 end)
    host:restart(9)
    settled(50)
    in_order(sub, 50)
    sub:stop()
  end)

  it("goes on over a reload in the middle: the new generation connects beside the old, which says goodbye", function()
    hub = broker()
    local sub = hub:listen()
    start 'discovery = "homeassistant"'
    push(1, 100)
    local path = host.plugins .. "/destinations/mqtt.lua"
    for i = 1, 3 do
      bed.write(path, bed.read(path) .. "\n-- " .. i)
      bed.wait("generation " .. i + 1, function() return host:plugin("hub").generation == i + 1 end)
      push(100 * i + 1, 100 * i + 100)
    end
    settled(400)
    in_order(sub, 400)
    hub.program:read()
    assert.equal("online", (hub.program.output and sub:read():match "neap/status/%w+L0 (%a+)\n.-$"))
    assert.is_nil(sub:read():find "offline") -- the old one's will was not said
    sub:stop()
  end)

  it("says that it is gone where it is: its will, retained", function()
    hub = broker()
    local sub = hub:listen()
    start 'discovery = "homeassistant"'
    push(1, 14)
    settled(14)
    assert.is_nil(sub:read():find "offline")
    host:stop(9)
    host = nil
    bed.wait("both lanes' wills", function() return select(2, sub:read():gsub("neap/status/%w+ offline", "")) == 2 end)
    local metrics, gone = announced()
    assert.equal(7, metrics)
    assert.equal(2, gone)
    sub:stop()
  end)

  it("waits while a password is wrong, and delivers once it is mended", function()
    local file = bed.folder() .. "/passwords"
    assert(os.execute(("touch '%s' && mosquitto_passwd -b '%s' ward right"):format(file, file)))
    hub = broker("allow_anonymous false\npassword_file " .. file)
    start 'user = "ward", password = "wrong"'
    push(1, 3)
    assert.matches("does not let it in: Not authorized %(135%), so the settings have to be mended$", waiting "does not let it in")
    bed.write(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub('"wrong"', '"right"')))
    settled(3)
  end)

  it("tells what an ACL denies, and sends the rest", function()
    local file = bed.folder() .. "/acl"
    bed.write(file, "topic readwrite neap/w-1/#\ntopic readwrite neap/w-2/#\n")
    os.execute("chmod 644 " .. file)
    hub = broker("allow_anonymous true\nacl_file " .. file)
    start()
    push(1, 14)
    waiting "Not authorized %(135%), so the settings have to be mended"
    bed.wait("what is allowed", function() return count "delivered" == 4 end)
    assert.equal(10, count "outbox")
    -- 3.1.1 has no word for it: the broker acknowledges what it throws away
    assert.same({ true, { true } }, probe { client = "old", messages = { { topic = "neap/w-3/temp" } } })
  end)

  it("goes by TLS where it trusts the broker, whose name has to be right, and shows a certificate", function()
    local path = certificates()
    hub = broker(("allow_anonymous true\ncafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true")
      :format(path "ca.pem", path "server.pem", path "server.key"))
    start(("ca = file %q, cert = file %q, key = file %q"):format(path "ca.pem", path "client.pem", path "client.key"))
    push(1, 20)
    settled(20)
    local function with(pattern, replacement)
      local text = bed.read(host.folder .. "/neap.lua"):gsub(pattern, replacement)
      bed.write(host.folder .. "/neap.lua", text)
    end
    with("[^\"]*/ca%.pem", path "elsewhere.pem")
    bed.wait("the reload", function() return host:plugin("hub").generation == 2 end)
    push(21, 21)
    assert.matches("TLS: .*certificate.*so the settings have to be mended$", waiting "TLS")
    with("[^\"]*/elsewhere%.pem", path "ca.pem")
    settled(21)
    with("[^\"]*/client%.", (path "stranger."))
    bed.wait("the reload", function() return host:plugin("hub").generation == 4 end)
    push(22, 22)
    waiting "the settings have to be mended"
    with("[^\"]*/stranger%.", (path "client."))
    settled(22)
  end)

  it("refuses a broker whose certificate is of another name", function()
    local path = certificates()
    local made, code = bed.run { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
      "/CN=other", "-addext", "subjectAltName=DNS:other.example", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", path "other.key",
      "-out", path "other.pem", "-CA", path "ca.pem", "-CAkey", path "ca.key" }
    assert.equal(0, code, made)
    hub = broker(("allow_anonymous true\ncafile %s\ncertfile %s\nkeyfile %s"):format(path "ca.pem", path "other.pem", path "other.key"))
    start(("ca = file %q"):format(path "ca.pem"))
    push(1, 1)
    assert.matches("mismatch", waiting "TLS")
  end)

  describe("the module", function()
    before_each(function()
      hub = broker()
      start(nil, 1)
    end)

    it("tells each message's fate, in order, more than are under way at once", function()
      local messages = {}
      for i = 1, 20 do messages[i] = { topic = "neap/x", payload = tostring(i) } end
      messages[5] = { topic = "neap/+" }
      messages[6] = { topic = "a\0b" }
      messages[7] = { topic = "" }
      local sub = hub:listen()
      local got = probe { client = "own", messages = messages }
      assert.is_true(got[1])
      assert.same({ true, { true, true } }, probe { client = "own", messages = { { topic = "b", qos = 0 }, { topic = "c", qos = 2 } } })
      for i = 1, 20 do
        if i < 5 or i > 7 then assert.is_true(got[2][i]) else assert.equal("topic", got[2][i].code) end
      end
      sub:wait_for "neap/x 20\n"
      local came = {}
      for n in sub.output:gmatch "neap/x (%d+)\n" do came[#came + 1] = n end
      assert.equal("1 2 3 4 8 9 10 11 12 13 14 15 16 17 18 19 20", table.concat(came, " "))
      sub:stop()
    end)

    it("counts its connections, and publishes on the one that is asked for", function()
      assert.same({ true, 1 }, probe { client = "own" })
      assert.same({ true, 1 }, probe { client = "own" })
      hub:stop(9)
      hub:begin()
      local again = bed.wait("the second connection", function()
        local got = probe { client = "own" }
        return got[2] == 2 and got
      end)
      assert.same({ true, 2 }, again)
      assert.equal("cut", probe({ client = "own", connection = 1, messages = { { topic = "neap/x" } } })[2][1].code)
      assert.same({ true, { true } }, probe { client = "own", connection = 2, messages = { { topic = "neap/x" } } })
      assert.same({ true, {} }, probe { client = "own", messages = json.array {} })
    end)

    it("says why there is no connection", function()
      hub:stop()
      local got = probe { client = "own" }
      assert.equal("connect", got[4])
      assert.matches("Connection refused", got[3])
    end)

    it("gives up a broker that hangs, when the time is over", function()
      assert.same({ true, 1 }, probe { client = "own" })
      os.execute("kill -STOP " .. hub.program.pid) -- the kernel still takes what is sent
      local got = probe { client = "own", timeout = 0.5, messages = { { topic = "neap/x" }, { topic = "neap/y" }, { topic = "neap/z" } } }
      for i = 1, 3 do assert.equal("timeout", got[2][i].code) end
      got = probe { client = "own", timeout = 0.5 }
      assert.equal("timeout", got[4])
      os.execute("kill -CONT " .. hub.program.pid)
      assert.same({ true, 2 }, probe { client = "own" })
    end)

    it("says which message is wrong, and how", function()
      for _, case in ipairs {
        { { payload = "x" }, "messages%[1%].topic is missing" },
        { { topic = "a", qos = 3 }, "messages%[1%].qos has to be a whole number from 0 to 2" },
        { { topic = "a", retian = true }, 'unknown field "messages%[1%].retian", did you mean "retain"' },
        { { topic = "a", properties = { x = 1 } }, "messages%[1%].properties has to be a table of names and texts" },
        { "a", "messages%[1%] has to be a message" },
      } do
        local got = probe { client = "own", messages = { case[1] } }
        assert.is_false(got[1])
        assert.matches(case[2], got[2])
      end
    end)

    it("reaches only what a setting names", function()
      local got = probe { client = "far" }
      assert.is_false(got[1])
      assert.matches("may not reach", got[2])
    end)
  end)
end)
