-- Tags of devices: from vendors and from operators, durable, shown, and matched by rules as soon as they are there.
local bed = require "bed"
local json = require "neap.json"

local VENDOR = [[
local plugin = ...
plugin:serve { "POST /%s", handler = function(req)
  if req.body.device then plugin:device(req.body.device) end
  if req.body.value then plugin:emit { device = req.body.name, metric = "glucose", value = req.body.value } end
  return 204
end }
plugin:serve { "GET /%s", handler = function() return 200, plugin.data:devices {} end }
]]
local RULE = [[local plugin = ...
plugin:on({ metric = "glucose", tag = { "icu", "bed-*" } }, function(r) plugin:send("desk", { value = r.value }) end)]]
local DESK = "local plugin = ... plugin:deliver { handler = function() return true end }"

describe("tags", function()
  local host
  before_each(function()
    host = bed.host { config = "lanes = 2", plugins = { ["vendors/x.lua"] = VENDOR:format("x", "x"),
      ["vendors/y.lua"] = VENDOR:format("y", "y"), ["rules/r.lua"] = RULE, ["destinations/desk.lua"] = DESK } }
  end)
  after_each(function() host:stop() end)

  local function tag(...) return bed.run { bed.neap, "tag", "--store", host.store, "--json", ... } end
  local function give(body, path) assert.equal(204, (host:request("POST", path or "/x", body))) end
  local function value(v) give { name = "d", value = v } end
  local function sent()
    host:read()
    bed.wait("all readings to be ruled", function()
      return host:sql("select count(*) n from cursors where seq = (select max(seq) from readings)")[1].n > 0
    end)
    local list = {}
    for i, row in ipairs(host:sql "select body from outbox union all select body from delivered order by 1") do
      list[i] = row.body:match "[%d.]+"
    end
    return table.concat(list, " ")
  end
  local function first(out) return json.decode((out:match "^[^\n]*")) end

  it("of an operator are matched from the next reading on, and last", function()
    value(1)
    local out, code = tag("d", "+icu", "+night")
    assert.equal(0, code, out)
    assert.same({ "icu", "night" }, first(out).own_tags)
    value(2)
    out = bed.run { bed.neap, "tag", "--store", host.store, "d" }
    assert.equal("d of x: icu, night\n", out)
    tag("d", "-icu")
    value(3)
    tag("d", "+bed-4", "-night", "-gone")
    host:stop()
    host:begin()
    value(4)
    assert.equal("2 4", sent())
    assert.matches("TAGS.*\nd +x .*bed%-4", (bed.run { bed.neap, "devices", "--store", host.store }))
  end)

  it("of a vendor are what it last said, beside those of operators", function()
    give { device = { device = "d", tags = { "icu", "b", "icu" } }, name = "d", value = 1 }
    local out, code = tag("d", "+hall")
    assert.equal(0, code, out)
    assert.same({ "b", "icu" }, first(out).tags)
    out, code = tag("d", "+x", "-icu")
    assert.equal(1, code)
    assert.truthy(out:find([["icu" is what its vendor's plugin says (x), and that plugin's to take away]], 1, true) or
      out:find([[\"icu\" is what its vendor's plugin says (x), and that plugin's to take away]], 1, true), out)
    out = bed.run { bed.neap, "tag", "--store", host.store, "d" }
    assert.equal("d of x: hall; its vendor says: b, icu\n", out) -- x was not added
    give { device = { device = "d", name = "Pier" } }
    value(2)
    local _, body = host:request("GET", "/x")
    body = type(body) == "string" and json.decode(body) or body
    assert.same({ "b", "icu" }, body[1].tags)
    assert.is_nil(body[1].own_tags)
    give { device = { device = "d", tags = json.array {} } }
    value(3)
    assert.equal("1 2", sent())
  end)

  it("refuse what is no tag, no device, or one of several", function()
    value(1)
    give({ name = "d", value = 1 }, "/y")
    give({ name = "e", value = 1 }, "/y")
    for _, case in ipairs {
      { { "d", "+icu" }, "x and y each have a device \\\"d\\\": say which with --vendor" },
      { { "f", "+icu" }, "no device \\\"f\\\" is known: neap devices lists them" },
      { { "e", "+a b" }, "a tag is 1 to 64 bytes without spaces" },
      { { "e", "++a" }, "a tag is 1 to 64 bytes without spaces" },
      { { "e", "+" .. ("a"):rep(65) }, "a tag is 1 to 64 bytes without spaces" },
    } do
      local out, code = tag(table.unpack(case[1]))
      assert.equal(1, code, out)
      assert.truthy(out:find(case[2], 1, true), out)
    end
    local out, code = tag("d", "+icu", "--vendor", "y")
    assert.equal(0, code, out)
    assert.same({ "y", { "icu" } }, { first(out).vendor, first(out).own_tags })
    out, code = tag("e", "icu")
    assert.equal(2, code)
    assert.truthy(out:find("expected +NAME or -NAME after the device", 1, true), out)
    local many = {}
    for i = 1, 65 do many[i] = "+t" .. i end
    out, code = tag("e", table.unpack(many))
    assert.equal(1, code)
    assert.truthy(out:find("at most 64 tags", 1, true), out)
    many[65] = nil
    assert.equal(0, select(2, tag("e", table.unpack(many))))
  end)

  it("of plugin:device are checked", function()
    local status = host:request("POST", "/x", { device = { device = "d", tags = { "a b" } } })
    assert.equal(500, status)
    host:wait_for "plugin:device: tags: a tag is 1 to 64 bytes"
    status = host:request("POST", "/x", { device = { device = "d", tags = { a = "b" } } })
    assert.equal(500, status)
    host:wait_for "plugin:device: tags has to be a list of strings, got a table with names in it"
  end)

  it("and its status are of the words that there are", function()
    assert.equal(500, (host:request("POST", "/x", { device = { device = "d", status = "asleep" } })))
    host:wait_text "plugin:device: status: expected one of unbound, bound, warming, active, ended, got "
  end)
end)
