-- A connection as a destination: a vendor's plugin delivers, with a write set of its own, and rules send to its connections by name.
local bed = require "bed"

local source = [[
local plugin = ...
plugin:serve { "POST /m", keep = false, body = { device = { "string" }, n = { "integer" }, how = { "string", default = "well" } },
  handler = function(req)
    plugin:emit { device = req.body.device, metric = "m", value = req.body.n, at = 1600000000000 + req.body.n,
      extra = { how = req.body.how } }
    return 204
  end }
plugin:command { "burst", args = { n = { "integer" }, device = { "string" }, bad = { "integer", default = 0 } }, handler = function(args)
  for n = 1, args.n do
    plugin:emit { device = args.device, metric = "m", value = n, at = 1600000000000 + n,
      extra = { how = n == args.bad and "poison" or "well" } }
  end
end }
]]
local rule = [[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "m" }, function(r) plugin:send(config.to, { n = r.value, how = r.extra.how }) end)
]]
local cloud = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string" }, batch = { "integer", default = 1 } }
plugin:command { "sent", handler = function()
  return { n = plugin.store:get "n" or 0, by = plugin.store:get "by" or {}, devices = #plugin.data:devices {} }
end }
plugin:command { "add", handler = function() plugin.store:put("n", (plugin.store:get "n" or 0) + 1000) end }
plugin:deliver { batch = config.batch, concurrency = 4, handler = function(messages, to)
  local n = plugin.store:get "n" or 0
  local answers = {}
  for i, m in ipairs(messages) do
    n = n + 1
    if m.data.how == "raise" then plugin.store:put("n", n) error "it broke" end
    if m.data.how == "list" then answers[i] = { status = 422, body = "not this one" }
    elseif m.data.how == "later" then answers[i] = m.attempt == 1 and "not yet" or true
    else answers[i] = true end
  end
  plugin.store:put("n", n)
  plugin:device { device = messages[1].device, name = "known there" }
  if messages[1].data.how == "nil" and messages[1].attempt == 1 then return nil, "not now" end
  local list = {}
  for i, m in ipairs(messages) do list[i] = m.data.n end
  local res, why, code, answer = http.post { url = to.url .. "/in", json = { device = messages[1].device, list = list } }
  if not res then return res, why, code, answer end
  if res.status ~= 200 then return res end
  return answers
end }
]]

describe("a connection that delivers", function()
  local receiver, host

  local function begin(more, plugins)
    receiver = bed.receiver()
    local files = { ["vendors/source.lua"] = source, ["rules/pass.lua"] = rule, ["vendors/cloud.lua"] = cloud }
    for name, text in pairs(plugins or {}) do files[name] = text end
    host = bed.host { plugins = files, config = ([[lanes = 2, connections = { { "source" }, { "cloud", name = "campus", url = %q%s } },
      rules = { { "pass", to = "campus" } }]]):format(receiver.url, more or "") }
  end
  after_each(function()
    assert.same({ "exit", 0 }, { host:stop() })
    receiver:close()
  end)

  local function emit(device, n, how) assert.equal(204, (host:request("POST", "/m", { device = device, n = n, how = how }))) end
  local function sent() return host:command("call", "campus", "sent")[1].n end
  local function pending(n)
    bed.wait(n .. " pending", function()
      receiver:poll()
      return host:plugin("campus").pending == n
    end)
  end

  it("is sent to by its name, and what it stores commits with the outcome", function()
    begin()
    for n = 1, 5 do emit("d", n) end
    receiver:wait(5)
    pending(0)
    assert.equal(5, sent())
    assert.same({ device = "d", list = { 1 } }, receiver.requests[1].json)
    local row = host:plugin "campus"
    assert.same({ "vendor", 0 }, { row.kind, row.dead })
    assert.equal(5, host:sql("SELECT count(*) AS n FROM delivered WHERE destination = 'campus'")[1].n)
  end)

  it("keeps nothing of a try that raised, or returned nil and why", function()
    begin()
    emit("d", 1, "raise")
    host:wait_text "it broke"
    emit("e", 1, "nil")
    receiver:wait(1) -- its second try
    bed.wait("one to be delivered", function()
      receiver:poll()
      return host:sql("SELECT count(*) AS n FROM delivered")[1].n == 1
    end)
    assert.equal(1, sent())
    assert.equal(1, host:plugin("campus").pending)
  end)

  it("counts what it stores by an answer that says again, and tries again in order", function()
    begin()
    local busy = true
    receiver.answer = function() return busy and 503 or 200, "busy" end
    emit("d", 1)
    emit("d", 2)
    receiver:wait(1)
    host:wait_text "answered 503: busy"
    bed.wait("the try to be recorded", function() return sent() >= 1 end)
    busy = false
    pending(0)
    local last = receiver.requests[#receiver.requests]
    assert.same({ 2 }, last.json.list)
    assert.equal(#receiver.requests, sent())
  end)

  it("says of each message of a batch what became of it", function()
    begin ', batch = 10'
    receiver.answer = function() return 503 end -- so that they come together
    emit("d", 1)
    receiver:wait(1)
    emit("d", 2, "list")
    emit("d", 3, "later")
    emit("d", 4)
    receiver.answer = function() return 200 end
    pending(0)
    assert.equal(1, host:plugin("campus").dead)
    host:wait_text "answered 422: not this one"
    local rows = host:sql "SELECT json_extract(body, '$.n') AS n FROM delivered ORDER BY seq"
    assert.same({ { n = 1 }, { n = 3 }, { n = 4 } }, rows)
    assert.same({ { n = 2 } }, host:sql "SELECT json_extract(body, '$.n') AS n FROM dead")
  end)

  it("has a refused batch split, so that one does not take the others along", function()
    begin ', batch = 30'
    receiver.answer = function(r)
      for _, n in ipairs(r.json.list) do
        if n == 13 then return 400, "poison" end
      end
      return 200
    end
    assert.equal(0, select(2, host:command("call", "source", "burst", "n=25", "device=d")))
    bed.wait("all to be done", function()
      receiver:poll()
      local row = host:plugin "campus"
      return row.pending == 0 and row.dead == 1
    end)
    assert.equal(24, host:sql("SELECT count(*) AS n FROM delivered")[1].n)
  end)

  it("runs again where another call has changed what it read", function()
    begin()
    local first = true
    receiver.answer = function()
      if first then
        first = false
        assert.equal(0, select(2, host:command("call", "campus", "add")))
      end
      return 200
    end
    emit("d", 1)
    receiver:wait(2)
    pending(0)
    assert.equal(1001, sent())
    assert.same(receiver.requests[1].json, receiver.requests[2].json)
    assert.equal(1, host:sql("SELECT count(*) AS n FROM delivered")[1].n)
  end)

  it("is killed at any moment, and what it stored fits what it delivered", function()
    begin()
    local total = 0
    for round = 1, 4 do
      for n = 1, 10 do emit("d" .. round, n) end
      total = total + 10
      receiver:wait(#receiver.requests + 3)
      host:restart(9)
    end
    pending(0)
    assert.equal(total, sent())
    assert.equal(total, host:sql("SELECT count(*) AS n FROM delivered")[1].n)
  end)

  it("that is broken holds what it is sent, and delivers it once it is mended", function()
    begin(nil, { ["vendors/cloud.lua"] = "local plugin = ...\nplugin:deliver {" })
    bed.wait("the rule to be in force", function()
      local row = host:plugin "pass"
      return row and row.state == "in force"
    end)
    emit("d", 1)
    bed.wait("the message to be held", function() return host:plugin("campus").pending == 1 end)
    bed.replace(host.plugins .. "/vendors/cloud.lua", cloud)
    receiver:wait(1)
    pending(0)
    assert.equal(1, sent())
  end)

  it("need not be listed, and a rule that waited for it is put in force when it comes to deliver", function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/pass.lua"] = rule,
        ["vendors/campus.lua"] = 'local plugin = ... plugin:command { "x", handler = print }' },
      config = [[rules = { { "pass", to = "campus" } }]] }
    local row = host:plugin "pass"
    assert.equal("held", row.state)
    assert.matches("campus", row.error)
    bed.replace(host.plugins .. "/vendors/campus.lua", [[local plugin = ...
      plugin:command { "x", handler = print }
      plugin:deliver { handler = function(messages) plugin.store:put("got", messages[1].data.n) return true end }]])
    bed.wait("the rule to be in force", function() return host:plugin("pass").state == "in force" end)
    emit("d", 7)
    bed.wait("the message", function() return host:sql("SELECT count(*) AS n FROM delivered")[1].n == 1 end)
    assert.equal("7", host:sql("SELECT CAST(value AS TEXT) AS v FROM kv WHERE key = 'got'")[1].v)
    assert.same({ 0 }, { select(2, bed.run { bed.neap, "check", host.folder }) })
  end)

  it("has its own verbs there, and a destination still has none", function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/pass.lua"] = rule,
        ["destinations/plain.lua"] = [[local plugin = ...
          plugin:deliver { handler = function() plugin.store:put("x", 1) return true end }]] },
      config = [[rules = { { "pass", to = "plain" } }]] }
    emit("d", 1)
    host:wait_for "plugin:store does not belong in a delivery"
  end)

  it("takes no options of its own", function()
    receiver = bed.receiver()
    host = bed.host { plugins = { ["vendors/source.lua"] = source:gsub("plugin:command.*", "") ..
      'plugin:deliver { options = {}, handler = print }' } }
    host:wait_text "plugin:deliver: a vendor's settings are those of plugin:config: leave options out"
  end)
end)
