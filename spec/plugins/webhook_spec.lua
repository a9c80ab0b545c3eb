-- plugins/destinations/webhook.lua in a running host, against https://www.standardwebhooks.com and receivers that misbehave.
local bed = require "bed"
local json = require "neap.json"
local webhooks = require "neap.webhooks"

local BYTES = "0123456789abcdef0123456789abcdef" -- of the key
local SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

describe("webhook", function()
  local host, receiver
  local count = 0

  local function begin(settings, options)
    receiver = receiver or bed.receiver()
    options = options or {}
    options.config = ([[
      connections = { { "sinocare", name = "ward-3" } },
      rules = { { "low-glucose", to = "desk", again = "0s" } },
      destinations = { desk = { "webhook", url = "%s/alerts"%s } }]]):format(receiver.url, settings or "")
    host = bed.host(options)
  end
  after_each(function()
    if host then host:stop() end
    if receiver then receiver:close() end
    host, receiver = nil, nil
  end)

  local function push(device)
    count = count + 1
    local _, answer = host:json("POST", "/sinocare/push", bed.push { testId = "t-" .. count, deviceSn = device or "SN-1",
      testResult = "3.0",
      serialNo = json.null, testTime = ("2021-11-02 %02d:%02d:00"):format(count // 60, count % 60) })
    assert.equal(0, answer.code)
  end

  local function rows(from) return host:sql(("select * from %s order by seq"):format(from)) end
  local function wait_row(from, what, fn)
    return bed.wait(what, function()
      if receiver.polled ~= false then receiver:poll() end
      for _, row in ipairs(rows(from)) do
        if not fn or fn(row) then return row end
      end
    end)
  end
  local function delivered(n)
    bed.wait(n .. " delivered messages", function()
      receiver:poll()
      return #rows "delivered" == n
    end)
    return rows "delivered"
  end

  -- HMAC-SHA256 by the openssl program, in base64.
  local function openssl(signed)
    local path = os.tmpname()
    bed.write(path, signed)
    local hex = BYTES:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    local out, code = bed.run { "sh", "-c",
      ("openssl dgst -sha256 -mac HMAC -macopt hexkey:%s -binary <'%s' | openssl base64 -A"):format(hex, path) }
    os.remove(path)
    assert(code == 0, out)
    return out
  end

  it("posts the message as it stands in the store, with the headers of Standard Webhooks", function()
    begin((", secret = %q"):format(SECRET))
    push()
    local request = receiver:wait(1)[1]
    local row = delivered(1)[1]
    assert.equal("POST", request.method)
    assert.equal("/alerts", request.path)
    assert.equal("application/json", request.headers["content-type"])
    assert.equal(row.id, request.headers["webhook-id"])
    assert.equal(row.body, request.body)
    assert.equal("SN-1", request.json.device)
    local at = tonumber(request.headers["webhook-timestamp"])
    assert.equal("integer", math.type(at))
    assert.is_true(at * 1000 >= row.created - 1000 and at * 1000 <= row.at)
    assert.is_true(webhooks.verify(SECRET, request.headers, request.body))
    assert.is_nil(webhooks.verify(SECRET, request.headers, request.body .. " "))
    assert.equal("v1," .. openssl(("%s.%s.%s"):format(request.headers["webhook-id"], request.headers["webhook-timestamp"],
      request.body)),
      request.headers["webhook-signature"])
    assert.equal(200, row.status)
    assert.same({}, rows "outbox")
  end)

  it("does not sign where there is no secret", function()
    begin()
    push()
    local request = receiver:wait(1)[1]
    assert.is_nil(request.headers["webhook-signature"])
    assert.equal("string", type(request.headers["webhook-id"]))
    assert.truthy(tonumber(request.headers["webhook-timestamp"]))
  end)

  it("tries again after 500, with the same id and body, signed anew", function()
    begin((", secret = %q"):format(SECRET))
    receiver.answer = function() return #receiver.requests < 2 and 500 or 204 end
    push()
    local list = receiver:wait(2)
    local row = delivered(1)[1]
    assert.equal(list[1].headers["webhook-id"], list[2].headers["webhook-id"])
    assert.equal(list[1].body, list[2].body)
    assert.is_true(webhooks.verify(SECRET, list[2].headers, list[2].body))
    assert.equal(row.id, list[1].headers["webhook-id"])
    assert.equal(1, row.attempts)
    assert.equal(204, row.status)
    assert.equal(2, #receiver.requests)
  end)

  it("does not come back before Retry-After, in seconds or as a date", function()
    for form, seconds in pairs { seconds = 600, date = 1200 } do
      local at = os.time() + seconds
      begin()
      receiver.answer = function()
        return 429, "slow down", { ["retry-after"] = form == "seconds"
          and tostring(seconds) or os.date("!%a, %d %b %Y %H:%M:%S GMT", at) }
      end
      push()
      local row = wait_row("outbox", "the try to be noted", function(r) return r.attempts > 0 end)
      assert.equal(429, row.status)
      assert.equal(1, row.attempts)
      assert.is_true(row.due >= (form == "seconds" and row.created + seconds * 1000 or at * 1000))
      assert.is_true(row.due < row.created + 3600000)
      host:stop()
      receiver:close()
      receiver = nil
    end
    host = nil
    receiver = bed.receiver()
  end)

  it("gives up at once on 400: a dead letter, with the reason; what comes after it goes on", function()
    begin()
    receiver.answer = function() return #receiver.requests == 1 and 400 or 200, "no such ward" end
    push()
    local row = wait_row("dead", "a dead letter")
    assert.equal(400, row.status)
    assert.equal(1, row.attempts)
    assert.equal("desk", row.destination)
    assert.truthy(row.error:find("400", 1, true))
    assert.truthy(row.error:find("no such ward", 1, true))
    assert.same({}, rows "outbox")
    push()
    delivered(1)
    assert.equal(2, #receiver.requests)
    assert.are_not.equal(receiver.requests[1].headers["webhook-id"], receiver.requests[2].headers["webhook-id"])
  end)

  for status, words in pairs { [307] = "/elsewhere", [401] = "who are you", [403] = "who are you", [404] = "who are you" } do
    it(("holds what it was answered %d: the settings are wrong, and not the message"):format(status), function()
      begin()
      receiver.answer = function() return status, "who are you", { location = "/elsewhere" } end
      push()
      local row = wait_row("outbox", "the try to be noted", function(r) return r.attempts > 0 end)
      assert.truthy(row.error:find(("answered %d, so the settings have to be mended: %s"):format(status, words), 1, true), row.error)
      for _, r in ipairs(receiver.requests) do assert.equal("/alerts", r.path) end
      receiver.answer = function() return 200, "" end
      assert.equal(row.id, delivered(1)[1].id)
    end)
  end

  it("comes again to a receiver that hung up", function()
    begin()
    receiver.answer = function() if #receiver.requests > 1 then return 200 end end
    push()
    local row = delivered(1)[1]
    assert.is_true(row.attempts >= 1)
    for _, r in ipairs(receiver.requests) do assert.equal(row.id, r.headers["webhook-id"]) end
  end)

  it("does not wait for ever for one that hangs", function()
    begin ', timeout = "300ms"'
    receiver.polled = false -- the kernel takes the connection, and nobody answers
    push()
    local row = wait_row("outbox", "the try to be noted", function(r) return r.attempts > 0 end)
    assert.truthy(row.error:find("no answer within", 1, true), row.error)
    receiver.polled = nil
    assert.equal(row.id, delivered(1)[1].id)
  end)

  it("comes again to one that was down", function()
    begin()
    receiver.polled = false
    receiver:close()
    push()
    local row = wait_row("outbox", "the try to be noted", function(r) return r.attempts > 0 end)
    assert.equal(0, row.status)
    assert.are_not.equal("", row.error)
    receiver = bed.receiver(receiver.port)
    assert.equal(row.id, receiver:wait(1)[1].headers["webhook-id"])
    delivered(1)
  end)

  it("keeps a message over a kill, and its id", function()
    begin()
    receiver.answer = function() return 503 end
    push()
    local row = wait_row("outbox", "the try to be noted", function(r) return r.attempts > 0 end)
    receiver.answer = function() return 200 end
    host:restart(9)
    assert.equal(row.id, delivered(1)[1].id)
    for _, r in ipairs(receiver.requests) do assert.equal(row.id, r.headers["webhook-id"]) end
  end)

  it("keeps each device's order, and lets none wait for another's", function()
    begin()
    local well = false
    receiver.answer = function(r) return (r.json.device == "SN-A" and not well) and 503 or 200 end
    for _ = 1, 3 do push "SN-A" end
    wait_row("outbox", "the first to have failed", function(r) return r.device == "SN-A" and r.attempts > 0 end)
    for _ = 1, 3 do push "SN-B" end
    bed.wait("all of the other device's", function()
      receiver:poll()
      return host:sql("select count(*) as n from delivered where device = 'SN-B'")[1].n == 3
    end)
    local ids = {}
    for _, r in ipairs(receiver.requests) do
      if r.json.device == "SN-A" then ids[r.headers["webhook-id"]] = true end
    end
    assert.equal(host:sql("select id from outbox where device = 'SN-A' order by seq")[1].id, (next(ids)))
    assert.is_nil(next(ids, next(ids)))
    well = true
    delivered(6)
    for _, device in ipairs { "SN-A", "SN-B" } do
      local last = 0
      for _, r in ipairs(receiver.requests) do
        if r.json.device == device then
          assert.is_true(r.json.reading >= last)
          last = r.json.reading
        end
      end
    end
  end)

  it("never shows its secret, even where the receiver quotes it", function()
    begin(', secret = env "DESK_SECRET"', { env = { "DESK_SECRET=" .. SECRET } })
    receiver.answer = function() return #receiver.requests == 1 and 500 or 400, "expected " .. SECRET .. ", not that" end
    push()
    local row = wait_row("dead", "a dead letter")
    host:wait_text "not delivered"
    local out = bed.run { bed.neap, "plugins", "--store", host.store, "--json" }
    for _, text in ipairs { host.output, row.error, out, json.encode(host:sql "select * from generations") } do
      assert.is_nil(text:find(SECRET, 1, true), text)
      assert.is_nil(text:find(SECRET:sub(7), 1, true), text)
    end
    assert.truthy(row.error:find("expected ***, not that", 1, true), row.error)
  end)

  it("says which settings are wrong", function()
    for settings, word in pairs { ["url = 'desk.example'"] = "url", [""] = "url",
      ["url = 'http://x/', timeout = 'long'"] = "timeout",
      ["url = 'http://x/', secrets = 'x'"] = "secrets" } do
      local folder = bed.folder()
      bed.write(folder .. "/neap.lua", ("return { store = 'neap.db', plugins = %q, destinations = { desk = { 'webhook', %s } } }")
        :format(bed.plugins, settings))
      local out, code = bed.run { bed.neap, "check", folder .. "/neap.lua" }
      assert.are_not.equal(0, code)
      assert.truthy(out:find(word, 1, true), out)
    end
  end)
end)
