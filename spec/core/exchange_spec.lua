-- What an attempt that failed has asked and was answered: kept without what nobody is to see, and of those that arrived nothing.
local bed = require "bed"

local source = [[
local plugin = ...
plugin:serve { "POST /m", keep = false, body = { device = { "string" }, to = { "string" }, name = { "string", optional = true } },
  handler = function(req)
    plugin:emit { device = req.body.device, metric = req.body.to, value = 1, extra = { name = req.body.name } }
    return 204
  end }
]]
local rule = [[
local plugin = ...
plugin:on({}, function(r) plugin:send(r.metric, { device = r.device, name = r.extra.name }) end)
]]
-- `how` says what the handler does beside posting.
local desk = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { several = true, options = { url = { "string" }, word = { "secret" }, how = { "string", default = "" } }, handler = function(messages, to)
  if to.how == "many" then
    local all = {}
    for i, m in ipairs(messages) do all[i] = http.post { url = to.url, body = m.json } end
    return all
  end
  local m = messages[1]
  local headers = { ["X-Note"] = "says " .. to.word, ["X-Device"] = m.device, ["X-Ward"] = "icu", ["X-Api-Key"] = "opens-all",
    ["X-Name"] = m.data.name, ["X-Long"] = to.how == "long" and ("y"):rep(3000) or nil }
  local res, why, code = http.post { url = to.url, query = { access_token = "of-mine", n = 1 }, headers = headers, bearer = to.word, body = m.json }
  if to.how == "raise" then error "after it was sent" end
  return res, why, code
end }
]]

describe("an attempt's request and answer", function()
  local receiver, host
  local function begin(how, url, terms)
    host = bed.host { plugins = { ["vendors/source.lua"] = source, ["rules/pass.lua"] = rule, ["destinations/desk.lua"] = desk },
      config = ([[lanes = 1, destinations = { { "desk", url = %q, word = "%s", how = %q,
        delivery = { backoff = "1s", redact = { "name", "x-ward" }, %s } } }]]):format(url or receiver.url .. "/in", "open-sesame-7", how or "", terms or "") }
  end
  before_each(function() receiver = bed.receiver() end)
  after_each(function()
    host:stop()
    receiver:close()
  end)

  local function emit(device, name)
    assert.equal(204, (host:request("POST", "/m", { device = device or "d", to = "desk", name = name })))
  end
  -- What `neap dead show` tells of the message's attempts, once there are so many.
  local function attempts(n)
    bed.wait(n .. " attempts", function()
      receiver:poll()
      return host:sql("select count(*) n from attempts")[1].n >= n
    end)
    local list = host:command("dead", "show", host:sql("select id from outbox union all select id from dead union all select id from delivered")[1].id)
    return table.unpack(list, 2, #list - 1)
  end
  local REQUEST = "POST http://127.0.0.1:%d/in?access_token=***&n=1\n"

  it("are kept where it failed, without secrets, and nothing where it arrived", function()
    receiver.answer = function()
      if #receiver.requests == 1 then return 503, "busy", { ["X-Room"] = "four", ["Set-Cookie"] = "s=1", ["X-Say"] = "open-sesame-7!" } end
      return 200, "", { ["X-Room"] = "five" }
    end
    begin()
    emit("d", "Waltheof")
    local first, second = attempts(2)
    assert.equal("open-sesame-7", receiver.requests[1].headers.authorization:match "^Bearer (.*)$") -- it went out as it is
    assert.equal(REQUEST:format(receiver.port), first.request:match "^[^\n]*\n")
    for _, line in ipairs { "authorization: ***", "X-Api-Key: ***", "X-Note: says ***", "X-Device: d", "X-Ward: ***", "X-Name: ***" } do
      assert.truthy(first.request:find("\n" .. line .. "\n", 1, true), line .. " in " .. first.request)
    end
    for _, line in ipairs { "set-cookie: ***", "x-room: four", "x-say: ***!" } do
      assert.truthy(("\n" .. first.reply):find("\n" .. line .. "\n", 1, true), line .. " in " .. first.reply)
    end
    assert.same({ "delivered", 200 }, { second.outcome, second.status })
    assert.same({ nil, nil }, { second.request, second.reply })
    assert.equal(1, host:sql("select count(*) n from attempts where request is null and reply is null and n = 2")[1].n)
    local id = host:sql("select id from delivered")[1].id
    local text = bed.run { bed.neap, "dead", "show", id, "--store", host.store }
    assert.truthy(text:find("\n     > X-Device: d\n", 1, true), text)
    assert.truthy(text:find("\n     < x-room: four\n", 1, true), text)
    local without, with = bed.run { bed.neap, "explain", id, "--store", host.store }, bed.run { bed.neap, "explain", id, "--people", "--store", host.store }
    assert.is_nil(without:find("x-room", 1, true))
    assert.truthy(with:find("x-room: four", 1, true), with)
    local kept = bed.run { "sqlite3", "-readonly", host.store, "select request, reply, error, answer from attempts" }
    local all = host:read() .. text .. with .. kept
    for _, hidden in ipairs { "of-mine", "opens-all", "open-sesame-7" } do assert.is_nil(all:find(hidden, 1, true), hidden) end
  end)

  it("are of one that nobody answered, too, and of one whose handler raised after it", function()
    local free = bed.receiver()
    free:close()
    begin("", free.url .. "/in")
    emit()
    local first = attempts(1)
    assert.matches("connect", first.error)
    assert.equal(REQUEST:format(free.port), first.request:match "^[^\n]*\n")
    assert.is_nil(first.reply)
    host:stop()
    receiver.answer = function() return 200, "", { ["X-Room"] = "six" } end
    begin "raise"
    emit()
    first = attempts(1)
    assert.matches("after it was sent", first.error)
    assert.truthy(first.reply:find("x-room: six\n", 1, true))
  end)

  it("are not longer than is of use", function()
    receiver.answer = function() return 503, "", { ["X-Long"] = ("z"):rep(5000), ["A-Short"] = "1" } end
    begin "long"
    emit()
    local first = attempts(1)
    for _, text in ipairs { first.request, first.reply } do
      assert.is_true(#text <= 2004, #text)
      assert.equal("…\n", text:sub(-4))
    end
    host:stop()
    begin("", receiver.url .. "/" .. ("a"):rep(3000))
    emit()
    assert.matches("^POST http://[%d.:]+/a+…\n$", attempts(1).request)
  end)

  it("go by the names of secrets that recordings go by", function()
    local function names(path, from) -- of the first two lists in the file
      local list, text = {}, bed.read(path)
      for line in text:sub(text:find(from, 1, true), -1):gmatch "[^\n]*{[^\n]*}" do
        for name in line:gsub("([%w]+) = true", '"%1"'):gmatch '"(%l+)"' do list[#list + 1] = name end
        if #list > 12 then break end
      end
      return list
    end
    local c, lua = names("core/base/redact_head.c", "parts[] ="), names("core/host/recording.lua", "parts =")
    assert.equal(15, #c)
    assert.same(lua, c)
  end)

  it("are nobody's where several were made for several messages", function()
    receiver.answer = function() return 503 end
    begin("many", nil, 'batch = 2, batch_wait = "30s"')
    emit "a"
    emit "b"
    bed.wait("both", function()
      receiver:poll()
      return host:sql("select count(*) n from attempts where batch = 2 and n = 1")[1].n == 2
    end)
    assert.equal(0, host:sql("select count(*) n from attempts where batch = 2 and (request is not null or reply is not null)")[1].n)
    local one = bed.wait("one that goes alone", function()
      receiver:poll()
      return host:sql("select request from attempts where batch = 1")[1]
    end)
    assert.matches("^POST http", one.request)
  end)
end)
