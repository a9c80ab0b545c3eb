-- Passwords are derived beside the lane, which does other work meanwhile; where a call may not wait, in place.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local LOGINS = 8

local VENDOR = [[
local plugin = ...
local crypto = require "neap.crypto"
local at_load = crypto.password_hash "loaded"
plugin:serve { "GET /ping", handler = function() return 204 end }
plugin:serve { "POST /login", body = { n = { "integer" } }, handler = function(req)
  local kept = plugin.store:get "hash"
  if not kept then
    kept = crypto.password_hash "correct horse"
    plugin.store:put("hash", kept)
  end
  plugin.store:put("try" .. req.body.n, true)
  return { ok = crypto.password_verify("correct horse", kept), wrong = crypto.password_verify("battery", kept) }
end }
plugin:serve { "GET /apart", handler = function()
  local kept = coroutine.wrap(function() return crypto.password_hash "x" end)()
  local all = { "b", "a" }
  table.sort(all, function(a, b) return crypto.password_verify("x", kept) and a < b end)
  local caught, why = pcall(crypto.password_verify, "x")
  return { ok = crypto.password_verify("x", kept), loaded = crypto.password_verify("loaded", at_load), sorted = all, caught = caught, format = (select(3, crypto.password_verify("x", "none"))) }
end }
plugin:serve { "POST /v", handler = function(req)
  plugin:emit { device = "d", metric = "m", value = 1, at = 1 }
  return 204
end }]]
local RULE = [[
local plugin = ...
local crypto = require "neap.crypto"
plugin:on({ metric = "m" }, function(r) plugin.store:put("ok", crypto.password_verify("x", crypto.password_hash "x")) end)]]

describe("passwords", function()
  local host
  setup(function()
    host = bed.host { plugins = { ["vendors/v.lua"] = VENDOR, ["rules/r.lua"] = RULE },
      config = "lanes = 1, limits = { instructions = 40000000 }" }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function ask(n)
    local s = assert(socket.connect("127.0.0.1", host.port))
    local body = json.encode { n = n }
    s:send(("POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"):format(#body, body))
    return s
  end

  it("are derived while the lane answers others", function()
    assert.equal(200, (host:request("POST", "/login", { n = 0 })))
    local waiting = {}
    for n = 1, LOGINS do waiting[n] = ask(n) end
    bed.wait("all to be under way", function() return host:summary().tasks >= LOGINS // 2 end)
    assert.equal(204, (host:request("GET", "/ping")))
    assert.is_true(#socket.select(waiting, nil, 0) < LOGINS, "the ping came after all of them")
    for _, s in ipairs(waiting) do
      local status, text = bed.receive(s, "POST")
      assert.equal(200, status)
      assert.same({ ok = true, wrong = false }, json.decode(text))
      s:close()
    end
    assert.equal(LOGINS + 1, #host:sql "select 1 from kv where space = 'plugin:v' and key like 'try%'")
  end)

  it("are derived in place where a call may not wait", function()
    local _, answer = host:json("GET", "/apart")
    assert.same({ ok = true, loaded = true, sorted = { "a", "b" }, caught = false, format = "format" }, answer)
    assert.equal(204, (host:request("POST", "/v")))
    bed.wait("the rule", function() return #host:sql "select 1 from kv where space = 'plugin:r' and value = 'true'" == 1 end)
  end)

  it("end with a call that is stopped", function()
    local waiting = {}
    for n = 1, LOGINS do waiting[n] = ask(n) end
    bed.wait("some to be under way", function() return host:summary().tasks > 0 end)
    host:restart(15)
    for _, s in ipairs(waiting) do s:close() end
    assert.equal(200, (host:request("POST", "/login", { n = 0 })))
  end)
end)
