-- Accounts of the running host: one refresh at a time over all lanes, stored before it is used.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local vendor = [[
local plugin = ...
local http = require "neap.http"
local lane = tostring {}
local config = plugin:config { tokens = { "string" }, api = { "string" }, early = { "string", optional = true } }

local account = plugin:account { "main", early = config.early, refresh = function(key, old)
  local n = plugin.store:get "n" or 0
  plugin.store:put("n", n + 1)
  local res, why = http.post { url = config.tokens, json = { key = key, refresh = old and old.refresh }, timeout = 60 }
  if not res then return nil, why end
  if res.status == 401 then return nil, "the vendor says " .. res.body, "denied" end
  if res.status == 429 then return nil, "too often", "quota" end
  if res.status == 418 then return { access = 5 } end
  if res.status ~= 200 then return nil, "answered " .. res.status end
  return res.json
end }

-- A call as a vendor's plugin makes them: a 401 means that the token is no good.
local function ask(key)
  for _ = 1, 3 do
    local token, why, code = account:token(key)
    if not token then return 503, { why = why, code = code, lane = lane } end
    local res = assert(http.get { url = config.api, bearer = token.access, timeout = 60 })
    if res.status ~= 401 then return 200, { access = token.access, lane = lane } end
    account:expired(token)
  end
  return 502, { why = "401 again and again" }
end

plugin:serve { "GET /call", query = { key = { "string", optional = true } }, handler = function(req) return ask(req.query.key) end }
plugin:serve { "GET /token", query = { key = { "string", optional = true } }, handler = function(req)
  local token, why, code = account:token(req.query.key)
  return 200, { access = token and token.access, uid = token and token.uid, why = why, code = code }
end }
plugin:serve { "GET /n", handler = function() return 200, { n = plugin.store:get "n" } end }
plugin:serve { "POST /n", handler = function() plugin.store:put("n", 100) return 204 end }
plugin:command { "token", handler = function() return assert(account:token()).access end }
plugin:serve { "GET /copy", handler = function() account:expired { access = "x" } return 204 end }
plugin:serve { "GET /inside", handler = function()
  local ok, why = pcall(coroutine.wrap(function() account:token() end))
  return 200, { ok = ok, why = why }
end }
]]

describe("an account", function()
  local tokens, api, host, good

  -- The vendor: gives out t1, t2, … for a refresh token that is used up by it; r0 stands for the first sign-in.
  local function rotate(extra)
    local n, refresh = 0, nil
    tokens.answer = function(r)
      if r.json.refresh ~= refresh then return 401, "invalid_grant" end
      n = n + 1
      refresh, good = "refresh-" .. n, "access-" .. n
      local t = { access = good, refresh = refresh, uid = "u-1", lifetime = 3600 }
      for k, v in pairs(extra or {}) do t[k] = v end
      return 200, json.encode(t)
    end
  end

  local function start(settings, options)
    options = options or {}
    tokens, api = bed.receiver(), bed.receiver()
    api.answer = function(r) return r.headers.authorization == "Bearer " .. tostring(good) and 200 or 401, "" end
    rotate(options.extra)
    options.plugins = { ["vendors/acme.lua"] = vendor }
    options.config = ("lanes = 2, drain = \"1s\", connections = { { \"acme\", tokens = %q, api = %q, %s } }"):format(tokens.url, api.url, settings or "")
    host = bed.host(options)
  end

  after_each(function()
    assert.same({ "exit", 0 }, { host:stop() }) -- with nothing left over, where the build looks for leaks
    tokens:close()
    api:close()
  end)

  local function send(path)
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:settimeout(0)
    s:send(("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):format(path))
    return { socket = s, text = "" }
  end

  local function poll(calls)
    local open = 0
    for _, c in ipairs(calls) do
      if not c.done then
        local bytes, why, part = c.socket:receive(65536)
        c.text = c.text .. (bytes or part or "")
        if why == "closed" then
          c.done = true
          c.socket:close()
          c.status = tonumber(c.text:match "^HTTP/1.1 (%d+)")
          c.json = json.decode(c.text:match "\r\n\r\n(.*)$" or "")
        else
          open = open + 1
        end
      end
    end
    return open
  end

  -- Waits until all are answered; the vendor answers meanwhile.
  local function finish(calls, without_tokens)
    bed.wait("the answers", function()
      if not without_tokens then tokens:poll() end
      api:poll()
      return poll(calls) == 0
    end)
    return calls
  end

  local function many(n, path)
    local calls = {}
    for i = 1, n do calls[i] = send(path) end
    return calls
  end

  local function one(path) return finish(many(1, path))[1] end

  local function lanes_of(calls)
    local seen, n = {}, 0
    for _, c in ipairs(calls) do
      if not seen[c.json.lane] then n = n + 1 end
      seen[c.json.lane] = true
    end
    return n
  end

  local function all_have(calls, access)
    for _, c in ipairs(calls) do assert.same({ 200, access }, { c.status, c.json and c.json.access or c.json.why }) end
  end

  it("is refreshed once for all calls of all lanes, and again once when all of them meet a 401", function()
    start()
    local calls = finish(many(100, "/call"))
    all_have(calls, "access-1")
    assert.equal(2, lanes_of(calls))
    assert.equal(1, #tokens.requests)
    good = "revoked" -- from now on the vendor refuses access-1
    calls = finish(many(200, "/call"))
    all_have(calls, "access-2")
    assert.equal(2, lanes_of(calls))
    assert.equal(2, #tokens.requests)
    assert.equal("refresh-1", tokens.requests[2].json.refresh)
  end)

  it("keeps all waiting for an endpoint that is slow, and ends with the one refresh", function()
    start()
    local calls = many(200, "/call")
    bed.wait("all to wait", function() return host:summary().tasks == 201 end) -- and the refresh
    finish(calls)
    all_have(calls, "access-1")
    assert.equal(1, #tokens.requests)
  end)

  it("survives a restart and a kill, and what the refresh returned besides is kept", function()
    start()
    assert.equal("access-1", one "/token".json.access)
    for _, signal in ipairs { 15, 9 } do
      host:restart(signal)
      local answer = one "/token".json
      assert.same({ "access-1", "u-1" }, { answer.access, answer.uid })
    end
    assert.equal(1, #tokens.requests)
    local row = host:sql "SELECT key, hex(value) AS v FROM kv WHERE space = 'neap.accounts'"[1]
    assert.equal("acme/main", row.key)
    assert.is_nil(row.v:find((("access-1"):gsub(".", function(c) return ("%02X"):format(c:byte()) end)))) -- it is encrypted
  end)

  it("has a token of its own for each key", function()
    start()
    tokens.answer = function(r) return 200, json.encode { access = "for-" .. r.json.key } end
    assert.equal("for-ann", one "/token?key=ann".json.access)
    assert.equal("for-bob", one "/token?key=bob".json.access)
    assert.equal("for-", one "/token".json.access)
    assert.equal("for-ann", one "/token?key=ann".json.access)
    assert.equal(3, #tokens.requests)
    local shown = {}
    for _, account in ipairs(host:plugin "acme".accounts) do shown[#shown + 1] = account.account end
    table.sort(shown)
    assert.equal("main", shown[1])
    for i = 2, 3 do assert.matches("^main/%x%x%x%x%x%x%x%x$", shown[i]) end -- a key may be somebody's number
  end)

  it("that fails once is tried again after the back-off", function()
    start()
    local answer = tokens.answer
    tokens.answer = function() return 500, "" end
    local calls = many(50, "/token")
    bed.wait("all to wait", function() return host:summary().tasks == 51 end) -- and the refresh
    finish(calls)
    assert.equal(1, #tokens.requests)
    for _, c in ipairs(calls) do assert.same({ "again", "account main: answered 500" }, { c.json.code, c.json.why }) end
    tokens.answer = answer
    bed.wait("the next try", function() return one "/token".json.access == "access-1" end)
    assert.equal(2, #tokens.requests)
  end)

  it("that is told 429 is not denied, and not asked again for a while", function()
    start()
    tokens.answer = function() return 429, "" end
    assert.equal("quota", one "/token".json.code)
    for _ = 1, 20 do assert.equal("quota", one "/token".json.code) end
    assert.equal(1, #tokens.requests)
    assert.is_nil(host:plugin "acme".denied)
    assert.equal("failing", host:plugin "acme".accounts[1].state)
  end)

  it("that is denied says so once, and is tried again after a reload or with other settings", function()
    start()
    tokens.answer = function() return 401, "invalid_client" end
    assert.equal("denied", one "/token".json.code)
    for _ = 1, 20 do assert.same({ "denied", "account main: the vendor says invalid_client" }, { one "/token".json.code, one "/token".json.why }) end
    assert.equal(1, #tokens.requests)
    local line = host:plugin "acme"
    assert.equal("account main was denied: the vendor says invalid_client", line.denied)
    assert.equal("denied", line.accounts[1].state)
    assert.matches("account main was denied", (bed.run { bed.neap, "plugins", "--store", host.store }))
    host:wait_text "an account was denied"
    assert.equal(1, select(2, host:read():gsub("an account was denied", "")))

    host:command "reload"
    assert.equal("denied", one "/token".json.code)
    assert.equal(2, #tokens.requests)

    rotate()
    bed.replace(host.folder .. "/neap.lua", (bed.read(host.folder .. "/neap.lua"):gsub("api =", "early = \"1m\", api =")))
    bed.wait("the new settings", function() return host:plugin "acme".generation == 2 end)
    assert.is_nil(host:plugin "acme".denied)
    assert.equal("access-1", one "/token".json.access)
    assert.equal(3, #tokens.requests)
    assert.is_nil(host:plugin "acme".denied)
  end)

  it("is refreshed early in the background, while the old token serves", function()
    start("early = \"9s\",", { extra = { lifetime = 10 } })
    assert.equal("access-1", one "/token".json.access)
    bed.wait("the second refresh", function()
      local calls = finish(many(1, "/token"), true) -- the token endpoint does not answer, and nobody waits for it
      assert.equal("access-1", calls[1].json.access)
      return host:summary().tasks == 1
    end)
    bed.wait("the new token", function() return one "/token".json.access == "access-2" end)
  end)

  it("whose refresh returns what is no token fails, with the reason", function()
    start()
    tokens.answer = function() return 418, "" end
    local answer = one "/token".json
    assert.equal("again", answer.code)
    assert.matches("`access` is a string", answer.why)
  end)

  it("goes on with its refresh when the call that began it is gone, and over a change of the file", function()
    start()
    local calls = many(5, "/token")
    bed.wait("all to wait", function() return host:summary().tasks == 6 end)
    for _, c in ipairs(calls) do c.socket:close() end
    bed.replace(host.folder .. "/plugins/vendors/acme.lua", vendor .. "\n-- changed\n")
    bed.wait("the new generation", function() return host:plugin "acme".generation == 2 end)
    calls = many(5, "/token")
    bed.wait("all to wait", function() return host:summary().tasks == 11 end)
    all_have(finish(calls), "access-1")
    assert.equal(1, #tokens.requests)
  end)

  it("is another in another connection of the same plugin", function()
    start()
    local config = bed.read(host.folder .. "/neap.lua")
    bed.replace(host.folder .. "/neap.lua", (config:gsub("connections = {", "connections = { { \"acme\", name = \"other\", mount = \"/other\", tokens = \"" .. tokens.url ..
      "\", api = \"" .. api.url .. "\" },")))
    bed.wait("the other", function() return host:plugin "other" end)
    assert.equal("access-1", one "/token".json.access)
    assert.equal("denied", one "/other/token".json.code) -- it has no refresh token, and the vendor wants one by now
    assert.equal("access-1", one "/token".json.access)
  end)

  it("at the end of the time to drain drops what waits, and ends cleanly", function()
    start()
    local calls = many(20, "/token")
    bed.wait("all to wait", function() return host:summary().tasks == 21 end)
    assert.same({ "exit", 0 }, { host:stop() })
    for _, c in ipairs(calls) do c.socket:close() end
    tokens:wait(1) -- what the vendor gave to the one that was dropped is lost
    rotate()
    host:begin()
    assert.equal("access-1", one "/token".json.access)
  end)

  it("keeps a token that cannot be stored, gives it to nobody, and asks the vendor for no other", function()
    local own, folder = bed.neap, bed.folder()
    finally(function() bed.neap = own end)
    bed.neap = folder .. "/neap-with-limit" -- a host whose files can be kept from growing, as by a full disk
    bed.write(bed.neap, ("#!/bin/sh\ntrap '' XFSZ\nexec '%s' \"$@\"\n"):format(own))
    os.execute(("chmod +x '%s'"):format(bed.neap))
    start()
    local function disk(size) assert(os.execute(("prlimit --pid %d --fsize=%s"):format(host.pid, size))) end
    disk "1:unlimited"
    local calls = finish(many(20, "/token"))
    for _, c in ipairs(calls) do
      assert.equal("again", c.json.code)
      assert.matches("its token could not be stored", c.json.why)
    end
    for _ = 1, 3 do assert.equal("again", one "/token".json.code) end
    assert.equal(1, #tokens.requests)
    disk "unlimited:unlimited"
    all_have(finish(many(20, "/token")), "access-1")
    assert.equal(1, #tokens.requests)

    good = "revoked" -- and a second one, that only the clean stop stores
    disk "1:unlimited"
    assert.equal("again", one "/call".json.code)
    assert.equal(2, #tokens.requests)
    disk "unlimited:unlimited"
    host:restart()
    assert.equal("access-2", one "/token".json.access)
    assert.equal(2, #tokens.requests)
  end)

  it("commits what its refresh wrote with the token; where that was overtaken, the token alone, and says so", function()
    start()
    one "/token"
    assert.equal(1, one "/n".json.n)
    good = "revoked"
    local calls = many(5, "/call")
    bed.wait("the refresh to be under way", function()
      api:poll()
      return host:summary().tasks == 6
    end)
    assert.equal(204, (host:request("POST", "/n")))
    all_have(finish(calls), "access-2")
    host:wait_text "what an account's refresh wrote besides its token is not kept"
    assert.equal(100, one "/n".json.n)
    host:restart()
    assert.equal("access-2", one "/token".json.access)
    assert.equal(2, #tokens.requests)
  end)

  it("serves a command as well", function()
    start()
    local call = bed.start { bed.neap, "call", "--store", host.store, "acme", "token" }
    bed.wait("the command", function()
      tokens:poll()
      return call:read():find("access-1", 1, true)
    end)
    call:wait()
  end)

  it("says what is wrong with a use of it", function()
    start()
    one "/copy"
    host:wait_text "expected the table that account:token gave, no copy of it"
    assert.matches("not inside a coroutine of your own", one "/inside".json.why)
    assert.equal(0, host:summary().timers)
  end)
end)

describe("plugin:account", function()
  local function check(name, text)
    local folder = bed.folder()
    bed.write(folder .. "/plugins/" .. name, text)
    bed.write(folder .. "/neap.lua", ("return { plugins = %q, store = \"neap.db\" }"):format(folder .. "/plugins"))
    return (bed.run { bed.neap, "check", folder .. "/neap.lua" })
  end

  it("refuses what is misspelt, and a rule that wants one", function()
    assert.matches("did you mean \"refresh\"", check("vendors/v.lua", "local p = ... p:account { 'main', refesh = print } p:every('1s', 'x', print)"))
    assert.matches("vendors/v.lua:1: plugin:account: refresh has to be a function, got a nil", check("vendors/v.lua", "local p = ... p:account { 'main' }"))
    assert.matches("vendors/v.lua:1: plugin:account: two are named \"main\"", check("vendors/v.lua", "local p = ... p:account { 'main', refresh = print } p:account { 'main', refresh = print }"))
    assert.matches("a rule decides and does not wait", check("rules/r.lua", "local p = ... p:account { 'main', refresh = print } p:on({}, print)"))
    assert.matches("not while the file is loaded", check("vendors/v.lua", "local p = ... p:account { 'main', refresh = print }:token()"))
  end)
end)

describe("the vendor of docs/plugins.md that has an account", function()
  it("polls with a token, gets another where it is refused, and counts", function()
    local text = assert(bed.read "docs/plugins.md":match "```lua\n(%-%- plugins/vendors/fjordco.lua\n.-)```")
    local cloud = bed.receiver()
    local n = 0
    cloud.answer = function(r)
      if r.path == "/token" then
        n = n + 1
        return 200, json.encode { access_token = "a-" .. n, refresh_token = "r-" .. n, expires_in = 3600 }
      end
      if r.headers.authorization ~= "Bearer a-2" then return 401, "" end -- the first is refused
      return 200, json.encode { newest = 7, list = { { buoy = "b-1", m = 1.5, at = 1600000000000, id = "x" } } }
    end
    local host = bed.host { plugins = { ["vendors/fjordco.lua"] = text },
      config = ("connections = { { \"fjordco\", url = %q, id = \"me\", secret = \"sesame\" } }"):format(cloud.url) }
    bed.wait("the reading", function()
      cloud:poll()
      return host:sql "SELECT count(*) AS n FROM readings"[1].n == 1
    end)
    local paths = {}
    for i, r in ipairs(cloud.requests) do paths[i] = r.path end
    assert.same({ "/token", "/levels?since=0", "/token", "/levels?since=0" }, paths)
    assert.equal("r-1", cloud.requests[3].json.refresh_token)
    assert.equal(2, host:plugin "fjordco".budgets[1].used)
    assert.same({ "exit", 0 }, { host:stop() })
    cloud:close()
  end)
end)
