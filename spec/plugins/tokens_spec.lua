-- plugins/lib/tokens.lua in the running host: what is issued is found, by its hash alone, until it ends.
local bed = require "bed"

local PLUGIN = [[
local plugin = ...
local tokens = require "tokens"
local access = tokens.new(plugin, "access", 3600)
local refresh = tokens.new(plugin, "refresh", 3600)
plugin:serve { "POST /issue", body = { subject = { "string" }, seconds = { "number", optional = true } }, handler = function(req)
  local text, seconds = access:issue(req.body.subject, { scope = "all" }, req.body.seconds)
  return 200, { text = text, seconds = seconds }
end }
plugin:serve { "GET /find", query = { t = { "string" } }, handler = function(req)
  local found = access:find(req.query.t)
  return 200, { found = found and found.subject, scope = found and found.data.scope, left = found and found.left, other = refresh:find(req.query.t) ~= nil }
end }
plugin:serve { "POST /revoke", body = { t = { "string" } }, handler = function(req) return 200, { was = access:revoke(req.body.t) } end }
plugin:serve { "POST /revoke-all", body = { subject = { "string" } }, handler = function(req)
  return 200, { count = access:revoke_subject(req.body.subject) }
end }
]]

describe("tokens", function()
  local host, folder
  setup(function()
    folder = bed.folder()
    host = bed.host { folder = folder, plugins = { ["vendors/t.lua"] = PLUGIN, ["lib/tokens.lua"] = bed.read(bed.plugins .. "/lib/tokens.lua") } }
  end)
  teardown(function() host:stop() end)
  local function issue(subject, seconds) return (select(2, host:json("POST", "/issue", { subject = subject, seconds = seconds }))) end
  local function find(text) return (select(2, host:json("GET", "/find?t=" .. text))) end

  it("are random, found, and survive a restart; only their hashes are kept", function()
    local a, b = issue "ann", issue "ann"
    assert.matches("^%x+$", a.text)
    assert.equal(32, #a.text)
    assert.not_equal(a.text, b.text)
    assert.equal(3600, a.seconds)
    host:restart()
    local found = find(a.text)
    assert.same({ "ann", "all", false }, { found.found, found.scope, found.other })
    assert.is_true(found.left <= 3600 and found.left > 3500)
    host:stop()
    for _, file in ipairs { "neap.db", "neap.db-wal" } do
      local f = io.open(folder .. "/" .. file, "rb")
      if f then
        assert.is_nil(f:read("a"):find(a.text, 1, true))
        f:close()
      end
    end
    host:begin()
  end)

  it("unknown, foreign and over-long ones are nothing", function()
    for _, text in ipairs { "0123456789abcdef0123456789abcdef", "x", ("a"):rep(600) } do assert.is_nil(find(text).found) end
  end)

  it("end with their time", function()
    local short = issue("ann", 0.05)
    bed.wait("it to expire", function() return not find(short.text).found end)
  end)

  it("are revoked one by one, or all of a subject and nobody else's", function()
    local one, two, other = issue "bo", issue "bo", issue "bob"
    assert.is_true(select(2, host:json("POST", "/revoke", { t = one.text })).was)
    assert.is_false(select(2, host:json("POST", "/revoke", { t = one.text })).was)
    assert.is_nil(find(one.text).found)
    assert.equal("bo", find(two.text).found)
    local many = {}
    for i = 1, 120 do many[i] = issue "bo" end
    local _, all = host:json("POST", "/revoke-all", { subject = "bo" })
    assert.equal(121, all.count, require "neap.json".encode(all))
    for _, t in ipairs { two, many[1], many[120] } do assert.is_nil(find(t.text).found) end
    assert.equal("bob", find(other.text).found)
    assert.equal(0, select(2, host:json("POST", "/revoke-all", { subject = "nobody" })).count)
  end)
end)
