-- plugins/lib/message.lua: what a body is taken for, and how many are written where one is refused.
package.path = "plugins/lib/?.lua;" .. package.path
local json = require "neap.json"
local message = require "message"

local function m(data) return { id = "m-1", device = "of the message", created = 5, data = data } end
local function read(data) return message.read(m(data)) end

describe("a message", function()
  it("is a reading, by itself or within", function()
    local r = { device = "d", metric = "m", value = 1, at = 2, unit = json.null, key = 7, extra = { a = json.null } }
    for _, data in ipairs { r, { reading = r } } do
      local kind, what = read(data)
      assert.equal("reading", kind)
      assert.same({ device = "d", metric = "m", value = 1, at = 2, key = "7", extra = { a = json.null } }, what)
    end
    assert.same({ "reading", { device = "d", metric = "m", value = false, at = 2 } }, { read { device = "d", metric = "m", value = false, at = 2 } })
  end)

  it("is an alert, of the message's device and time where it says none", function()
    assert.same({ "alert", { title = "t", device = "of the message", at = 5 } }, { read { title = "t" } })
    assert.same({ "alert", { title = "t", device = "d", at = 9, value = 1 } }, { read { title = "t", device = "d", at = 9, value = 1 } })
  end)

  it("is neither, and says why", function()
    for why, data in pairs { ["not an object"] = "text", ["neither a reading"] = { device = "d", metric = "m", value = 1 }, ['"unit" is not a text'] = {
      device = "d", metric = "m", value = 1, at = 2, unit = {} }, ['"interval" is not a number'] = { device = "d", metric = "m", value = 1, at = 2, interval = "5m" },
      ['"extra" is not an object'] = { reading = { device = "d", metric = "m", value = 1, at = 2, extra = 7 } }, ['"quality" is not a text'] = { title = "t", quality = 1 } } do
      local kind, said = read(data)
      assert.is_nil(kind)
      assert.truthy(said:find(why, 1, true), said)
    end
    assert.is_nil((read { device = "d", metric = "m", value = json.null, at = 2 }))
    assert.is_nil((read { device = "d", metric = "m", value = 1, at = 2.5 }))
  end)

  it("is of no time that has no date", function()
    local first, last = -62135596800000, 253370764799999
    for _, at in ipairs { first, last } do
      assert.equal("reading", (read { device = "d", metric = "m", value = 1, at = at }))
      assert.equal("alert", (read { title = "t", at = at }))
    end
    for _, at in ipairs { first - 1, last + 1, math.mininteger, math.maxinteger } do
      for _, data in ipairs { { device = "d", metric = "m", value = 1, at = at }, { title = "t", at = at } } do
        assert.same({ n = 2, nil, 'the field "at" is no time in ms' }, table.pack(read(data)))
      end
    end
  end)

  it("that is refused is found by halves, and all others are written", function()
    for bad = 0, 9 do
      local list, written, writes = {}, {}, 0
      for i = 1, 9 do list[i] = m { device = "d", metric = "m", value = i, at = i } end
      local outcomes = message.write(list, function(_, r) return r.value end, function(items)
        writes = writes + 1
        for _, v in ipairs(items) do
          if v == bad then return { status = 400, body = "no" } end
        end
        for _, v in ipairs(items) do written[v] = (written[v] or 0) + 1 end
        return { status = 204 }
      end)
      for i = 1, 9 do
        assert.equal(i == bad and 400 or 204, outcomes[i].status)
        assert.equal(i ~= bad and 1 or nil, written[i])
      end
      assert.is_true(writes <= 9)
    end
  end)

  it("waits with all others where the server can take none of them, whether it says so at once or on the way", function()
    local list = {}
    for i = 1, 4 do list[i] = m { device = "d", metric = "m", value = i, at = i } end
    for _, busy in ipairs { "no answer", { status = 408 }, { status = 425 }, { status = 429 }, { status = 500 }, { status = 503 } } do
      for first = 1, 2 do
        local writes = 0
        local outcomes = message.write(list, function(_, r) return r.value end, function()
          writes = writes + 1
          return writes < first and { status = 400 } or busy
        end)
        assert.same({ first, { busy, busy, busy, busy } }, { writes, outcomes })
      end
    end
  end)
end)
