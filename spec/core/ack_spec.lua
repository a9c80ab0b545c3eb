-- Acknowledgements: by an operator and by a connection's plugin; the first counts, a rule is told, and all who look see it.
local bed = require "bed"
local json = require "neap.json"

local source = [[
local plugin = ...
plugin:serve { "POST /m", keep = false, body = { device = { "string" }, wait = { "integer" }, asks = { "boolean", optional = true } },
  handler = function(req)
    plugin:emit { device = req.body.device, metric = "alarm", value = req.body.wait, extra = { asks = req.body.asks } }
    return 204
  end }
]]
-- Says what plugin:acknowledge gave; several ids go through one call, and `fail` undoes it.
local ear = [[
local plugin = ...
local json = require "neap.json"
plugin:serve { "POST /ack", keep = false, body = { ids = { "array", items = { "string" } }, by = { "string", optional = true },
    note = { "string", optional = true }, fail = { "boolean", optional = true } },
  handler = function(req)
    local out = json.array {}
    for i, id in ipairs(req.body.ids) do
      local first, more, code = plugin:acknowledge(id, { by = req.body.by, note = req.body.note })
      out[i] = { first = first == nil and "nil" or first, more = more, code = code, seen = plugin:acknowledged(id) }
    end
    if req.body.fail then error "undone" end
    return 200, out
  end }
]]
local rule = [[
local plugin = ...
plugin:on({ metric = "alarm" }, function(r)
  local id = plugin:send("desk", { n = r.value }, { acknowledge = r.extra.asks ~= false })
  plugin.store:put(r.device, id)
  plugin:arm("wait", r.device, r.value / 1000)
end)
plugin:timer("wait", function(device)
  local a = plugin:acknowledged(plugin.store:get(device))
  plugin:send("boss", { device = device, seen = a and a.by or "nobody" })
end)
]]

describe("an acknowledgement", function()
  local desk, host
  local plugins = { ["vendors/source.lua"] = source, ["vendors/ear.lua"] = ear, ["rules/rule.lua"] = rule,
    ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") }
  before_each(function()
    desk = bed.receiver()
    host = bed.host { plugins = plugins, config = ([[lanes = 2, destinations = { desk = { "webhook", url = %q },
      boss = { "webhook", url = %q } }]]):format(desk.url .. "/desk", desk.url .. "/boss") }
  end)
  after_each(function()
    host:stop()
    desk:close()
  end)

  -- Sends an alarm; the id of its message, which has arrived. wait: ms until the rule looks.
  local function alarm(device, wait, asks)
    assert.equal(204, (host:request("POST", "/m", { device = device, wait = wait or 3600000, asks = asks })))
    return bed.wait("the message of " .. device, function()
      desk:poll()
      local row = host:sql(("select id from delivered where destination = 'desk' and device = '%s'"):format(device))[1]
      return row and row.id
    end)
  end
  local function ack(...)
    local list, code = host:command("ack", ...)
    return list[1], code, list
  end
  local function post(body)
    local status, answer = host:json("POST", "/ack", body)
    assert.equal(200, status)
    return answer
  end
  local function waiting()
    local list, ids = select(3, ack "list"), {}
    for i, m in ipairs(list) do ids[i] = m.id end
    assert.equal(#ids, list[#list].summary.unacknowledged)
    return ids
  end
  -- What the boss was told of that device.
  local function told(device)
    return bed.wait("the boss to be told of " .. device, function()
      for _, r in ipairs(desk:poll()) do
        if r.path == "/boss" and r.json.device == device then return r.json.seen end
      end
    end)
  end

  it("is an operator's: the first one counts, and a second is told whose it was", function()
    local id = alarm "d"
    local m, code, list = ack(id, "--by", "Agnes", "--note", "on my \"way\"")
    assert.equal(0, code)
    assert.same({ id, true, "Agnes", "on my \"way\"", "delivered", "desk" },
      { m.id, m.first, m.acknowledged.by, m.acknowledged.note, m.state, m.destination })
    assert.same({ acknowledged = 1 }, list[2].summary)
    m, code, list = ack(id, "--by", "Berta")
    assert.same({ 0, false, "Agnes", 0 }, { code, m.first, m.acknowledged.by, list[2].summary.acknowledged })
    local text = bed.run { bed.neap, "ack", id, "--store", host.store }
    assert.truthy(text:find(id .. ': it had been acknowledged by Agnes, %d+:%d+:%d+, %d+s ago: on my "way"; nothing has changed'), text)
    host:wait_text '"by":"Agnes"'
  end)

  it("is whoever's asks, where nobody is named", function()
    local m = ack(alarm "d")
    assert.equal(bed.run { "id", "-un" }:match "%S+", m.acknowledged.by)
    assert.is_nil(m.acknowledged.note)
  end)

  it("is of a message that there is", function()
    local m, code = ack "msg_none"
    assert.equal(1, code)
    assert.equal('there is no message "msg_none", or it is no longer kept', m.error)
    m, code = ack(alarm "d", "--by", ("x"):rep(201))
    assert.same({ 1, "by: at most 200 bytes, got 201" }, { code, m.error })
    m = ack(alarm "d", "--by", ("x"):rep(200), "--note", ("y"):rep(2000))
    assert.same({ 200, 2000 }, { #m.acknowledged.by, #m.acknowledged.note })
    m, code = ack(alarm "d", "--note", ("y"):rep(2001))
    assert.same({ 1, "note: at most 2000 bytes, got 2001" }, { code, m.error })
    local out, exit = bed.run { bed.neap, "ack", "list", "--by", "x", "--store", host.store }
    assert.same({ 2, "neap ack: which message?: neap help ack\n" }, { exit, out })
  end)

  it("is waited for: a list of all that ask for one and have none", function()
    local ids = { alarm "a", alarm "b", alarm "c" }
    alarm("quiet", nil, false)
    assert.same(ids, waiting())
    assert.truthy(bed.run { bed.neap, "ack", "--store", host.store }:find "3 messages to be acknowledged")
    ack(ids[2])
    assert.same({ ids[1], ids[3] }, waiting())
    for i = 1, 150 do host:request("POST", "/m", { device = "m" .. i, wait = 3600000 }) end -- more than a page
    bed.wait("all to be sent", function() desk:poll() return host:sql "select count(*) n from kv where space = 'neap.asked'"[1].n == 152 end)
    local all, seen = waiting(), {}
    for _, id in ipairs(all) do seen[id] = true end
    assert.equal(152, #all)
    assert.truthy(seen[ids[1]] and seen[ids[3]])
  end)

  it("is a plugin's: true, false and whose, or unknown; in one transaction with its call", function()
    local a, b = alarm "a", alarm "b"
    local r = post { ids = { a, a, "msg_none", "", ("x"):rep(600) }, by = "Agnes", note = "seen" }
    assert.same({ first = true, seen = r[2].more }, r[1])
    assert.same({ false, "Agnes", "seen" }, { r[2].first, r[2].more.by, r[2].more.note })
    assert.same({ "nil", 'acknowledge: there is no message "msg_none", or it is no longer kept', "unknown" }, { r[3].first, r[3].more, r[3].code })
    assert.same({ "unknown", "unknown" }, { r[4].code, r[5].code })
    assert.equal(500, (host:request("POST", "/ack", { ids = { b }, fail = true })))
    assert.same({ b }, waiting())
    assert.same({ true, "ear" }, { post { ids = { b } }[1].first, post { ids = { b } }[1].more.by })
    local wrong = host:json("POST", "/ack", { ids = { b }, by = "" })
    assert.equal(500, wrong)
    host:wait_text "plugin:acknowledge: by: whose acknowledgement it is has to be said"
  end)

  it("is what a rule sees, also over a kill", function()
    local yes, no = alarm("yes", 2000), alarm("no", 2000)
    ack(yes, "--by", "Agnes")
    host:restart(9)
    assert.equal("Agnes", told "yes")
    assert.equal("nobody", told "no")
    assert.same({ no }, waiting())
  end)

  it("is of a dead letter too, and nobody waits for what was dropped", function()
    desk.answer = function() return 410, "gone" end
    for _, device in ipairs { "a", "b" } do host:request("POST", "/m", { device = device, wait = 3600000 }) end
    local dead = bed.wait("dead letters", function()
      desk:poll()
      local rows = host:sql "select id from dead order by id"
      return #rows == 2 and rows
    end)
    assert.same({ dead[1].id, dead[2].id }, waiting())
    host:command("dead", "drop", dead[1].id)
    assert.same({ dead[2].id }, waiting())
    assert.equal("dead", ack(dead[2].id).state)
  end)

  it("is told by explain, dead show and a tail", function()
    local tail = bed.start { bed.neap, "tail", "acknowledgements", "--destination", "de*", "--json", "--store", host.store }
    tail:wait_text '{"tailing":"acknowledgements"}'
    local id = alarm "d"
    local function explained() return bed.run { bed.neap, "explain", id, "--store", host.store } end
    assert.truthy(explained():find("not acknowledged by anybody: it asks for that", 1, true))
    assert.equal(true, host:command("dead", "show", id)[1].unacknowledged)
    post { ids = { id }, by = "Agnes", note = "seen" }
    local line = json.decode(tail:wait_for '({"id".-})\n')
    assert.same({ id = id, rule = "rule", destination = "desk", device = "d", by = "Agnes", note = "seen", at = line.at }, line)
    post { ids = { id }, by = "Berta" } -- a second one is no news
    ack(id, "--by", "Berta")
    assert.truthy(explained():find("acknowledged  %+[%d.]+ m?s after it was made, by Agnes: seen"), explained())
    assert.same({ at = line.at, by = "Agnes", note = "seen" }, host:command("dead", "show", id)[1].acknowledged)
    local other = alarm "e"
    ack(other, "--by", "Cora")
    assert.equal(other, json.decode(tail:wait_for '\n({[^\n]*"by":"Cora"})\n').id)
    assert.is_nil(tail.output:find("Berta", 1, true))
    tail:stop()
  end)

  it("does not belong in a rule", function()
    bed.replace(host.plugins .. "/rules/rule.lua", rule:gsub("local a = plugin:acknowledged", "local a = plugin:acknowledge"))
    host:wait_text "rule"
    host:command "reload"
    alarm("d", 10)
    host:wait_text "plugin:acknowledge does not belong in a rule's timer"
  end)
end)
