-- neap.json: RFC 8259, strictly, and nothing lost on the way.
local json = require "neap.json"

-- Values and their kinds are the same: 5 is not 5.0, and 0.0 is not -0.0.
local function same(a, b)
  if math.type(a) ~= math.type(b) or type(a) ~= type(b) then return false end
  if type(a) ~= "table" then return a == b and (a ~= 0 or math.type(a) == "integer" or 1 / a == 1 / b) end
  if json.is_array(a) ~= json.is_array(b) then return false end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end

local function round_trip(v)
  local text = json.encode(v)
  local back, why = json.decode(text)
  assert(same(v, back), text .. " came back as another value: " .. tostring(why))
  return text
end

describe("json.decode", function()
  local valid = {
    "{}", "[]", "null", "true", "false", "0", "-0", '""', " \t\r\n1 \t\r\n", "[null]", "[[]]", "[{}]", '{"":0}', '{"a":{}}',
    '{"a":[]}',
    "[1,2,3]", "[1e2]", "[1E+2]", "[1e-2]", "[0.5]", "[-0.0]", "[0e1]", "[0.0e+0]", "[-1.5E-3]",
    "[123456789012345678901234567890]", "[1e-400]",
    '["\\u0000"]', '["\\u0001"]', '["\\uD834\\uDd1e"]', '["\\"\\\\\\/\\b\\f\\n\\r\\t"]', '["\u{7f}"]',
      '["\u{e9}\u{20ac}\u{10ffff}"]', '["\\uFFFF"]',
    '{"a":1,"a":2}', '{"\\u0061":1}', '[ 1 , { "a" : [ ] } ]', "[true,false,null]", '"\u{feff}"', '["/"]', '["\u{2028}"]',
      '["\\u000a"]',
    ("["):rep(128) .. ("]"):rep(128),
  }
  for _, text in ipairs(valid) do
    it("takes " .. text:sub(1, 40), function()
      local v, why = json.decode(text)
      assert.is_nil(why)
      round_trip(v)
    end)
  end

  local invalid = {
    "", " ", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1]]", "[1]x", "1 2", '{"a"}', '{"a":}',
    '{"a":1,}', '{"a" 1}', "{a:1}",
    "{'a':1}", "{1:1}", "{,}", '{"a":1 "b":2}', "{null:1}", "nul", "nulll", "True", "NaN", "[Infinity]", "[-Infinity]", "[inf]",
    "[nan]", "undefined",
    "01", "-01", "[00]", "+1", "1.", ".5", "-.5", "-", "--1", "1e", "1e+", "1E-", "1.e1", "1.5.5", "0x10", "1_0", "0b1", "1e1.5",
    "[1e5000]", "[-1e309]",
    '"', '"a', '"\\', '"\\x41"', '"\\u"', '"\\u12"', '"\\u12g4"', '"\\U0041"', '"\\\0"', '"\n"', '"\t"', '"\0"', '"\31"', "'a'",
      '["a]',
    '"\\ud800"', '"\\udc00"', '"\\ud800x"', '"\\ud800\\u0041"', '"\\ud800\\ud800"', '"\\udc00\\ud800"', '"\\ud800\\',
      '"\\uD800\\uD8"',
    '"\xff"', '"\xc0\x80"', '"\xed\xa0\x80"', '"\xf4\x90\x80\x80"', '"\xe2\x82"', '"\xe2\x82', '{"\xff":1}', "\u{feff}1", "[1]\0",
      "\0", "1\0", "[\f1]",
    "[\u{a0}1]", "/**/1", "[1]//", "#1", "[1;2]", "<a/>", "\xff\xfe1\0", "*", ("["):rep(129) .. ("]"):rep(129), ("["):rep(1000000),
    ('{"a":'):rep(200000),
  }
  for _, text in ipairs(invalid) do
    it("refuses " .. ("%q"):format(text:sub(1, 30)), function()
      local v, why, code = json.decode(text)
      assert.is_nil(v)
      assert.matches("^not JSON: .+ at byte %d+ %(line %d+%)$", why)
      assert.equal("json", code)
    end)
  end

  it("says where", function()
    assert.equal("not JSON: unexpected '}' at byte 11 (line 2)", select(2, json.decode('{"a": 1,\n }')))
    assert.equal("not JSON: unexpected end at byte 8 (line 1)", select(2, json.decode('{"a": 1')))
    assert.equal("not JSON: half a surrogate pair at byte 3 (line 1)", select(2, json.decode('["\\ud800"]')))
    assert.equal("not JSON: a number too large for 64 bits at byte 2 (line 1)", select(2, json.decode("[1e999]")))
    assert.equal("not JSON: unexpected byte 0xef at byte 1 (line 1)", select(2, json.decode("\u{feff}{}")))
  end)

  it("raises for what is no string", function()
    for _, v in ipairs { 1, true, {}, json.null } do assert.has_error(function() json.decode(v) end) end
    assert.has_error(function() json.decode() end)
  end)

  it("keeps integers of 64 bits, makes floats of larger ones", function()
    local v = json.decode "[0,5,5.0,5e0,-1,999999999999999,1000000000000000,9007199254740993,9223372036854775807]"
    assert(same(v, json.array { 0, 5, 5.0, 5.0, -1, 999999999999999, 1000000000000000, 9007199254740993, math.maxinteger }))
    assert(same(json.decode "-9223372036854775808", math.mininteger))
    assert(same(json.decode "9223372036854775808", 2.0 ^ 63))
    assert(same(json.decode "-9223372036854775809", -2.0 ^ 63))
    assert(same(json.decode "-99999999999999", -99999999999999))
    assert(same(json.decode "-99999999999999.0", -99999999999999.0))
    assert(same(json.decode "1234567890123456.0", 1234567890123456.0))
    assert(same(json.decode "0.99999999999999999999", 1.0))
    assert(same(json.decode "4503599627370497.5", 4503599627370497.5))
  end)

  it("keeps the sign of zero", function()
    for _, text in ipairs { "-0", "-0.0", "-0e5" } do assert.equal(-math.huge, 1 / json.decode(text)) end
    assert.equal("integer", math.type(json.decode "0"))
    assert.equal(math.huge, 1 / json.decode "0.0")
  end)

  it("reads strings to the byte", function()
    assert.equal("a\0b", json.decode '"a\\u0000b"')
    assert.equal("\1", json.decode '"\\u0001"')
    assert.equal("\1\1", json.decode '"\\u0001\\u0001"')
    assert.equal("\0011", json.decode '"\\u00011"')
    assert.same({ ["\1"] = "x" }, json.decode '{"\\u0001":"x"}')
    assert.equal("\u{1d11e}/", json.decode '"\\ud834\\udd1e\\/"')
  end)

  it("takes the last of two members of one name", function()
    assert.same({ a = 2 }, json.decode '{"a":[],"a":2}')
    assert.equal(json.null, json.decode('{"a":1,"a":null}').a)
  end)

  it("marks arrays, so that one that is emptied stays an array", function()
    local v = json.decode '{"a":[1],"b":[],"c":{}}'
    table.remove(v.a)
    assert.equal("[]", json.encode(v.a))
    assert.equal("[]", json.encode(v.b))
    assert.equal("{}", json.encode(v.c))
    assert.is_true(json.is_array(v.b))
    assert.is_false(json.is_array(v.c))
  end)

  it("is at ease with hostile texts", function()
    local digits = ("9"):rep(4 << 20)
    assert.matches("too large", select(2, json.decode(digits)))
    assert.equal(1.0, json.decode("0." .. digits))
    assert.equal(#digits, #json.decode('"' .. digits .. '"'))
    assert.equal(200000, #json.decode("[" .. ("[],"):rep(199999) .. "[]]"))
    assert.equal(200000, #json.decode("[" .. ("1.0,"):rep(199999) .. "1.0]"))
  end)
end)

describe("json.encode", function()
  local function refused(v)
    local text, why, code = json.try_encode(v)
    assert.is_nil(text)
    assert.equal("json", code)
    local _, raised = pcall(json.encode, v)
    assert.equal(why, raised)
    return why
  end

  it("writes what cjson would blur", function()
    local cases = {
      { 0, "0" }, { -1, "-1" }, { 5.0, "5.0" }, { -0.0, "-0.0" }, { 0.0, "0.0" }, { 0.1 + 0.2, "0.30000000000000004" },
      { 0.1, "0.1" }, { 1e308, "1e+308" },
      { 5e-324, "4.9406564584125e-324" }, { 1 / 3, "0.3333333333333333" }, { 1e15, "1e+15" }, { 1e100, "1e+100" },
      { 99999999999999, "99999999999999" },
      { 100000000000000, "100000000000000" }, { -100000000000000, "-100000000000000" }, { math.maxinteger, "9223372036854775807" },
      { math.mininteger, "-9223372036854775808" }, { 123456.0, "123456.0" }, { 36.6, "36.6" }, { 2.0 ^ 53, "9007199254740992.0" },
      { 2.0 ^ 63, "9.223372036854776e+18" }, { "a/b", '"a/b"' }, { "\\/", '"\\\\/"' }, { '"\\', '"\\"\\\\"' },
      { "</script>", '"</script>"' }, { {}, "{}" },
      { json.array {}, "[]" }, { json.array(), "[]" }, { json.null, "null" }, { { json.null }, "[null]" },
      { { {}, json.array(), { {} } }, "[{},[],[{}]]" },
      { { a = json.array() }, '{"a":[]}' }, { { 1, 2.0, "3", true }, '[1,2.0,"3",true]' }, { "{}", '"{}"' },
      { { "{}12", 5.0 }, '["{}12",5.0]' },
      { { ["1.5{}/"] = json.array() }, '{"1.5{}/":[]}' }, { "\0\31\127", '"\\u0000\\u001f\\u007f"' },
    }
    for _, c in ipairs(cases) do
      assert.equal(c[2], json.encode(c[1]))
      assert(same(c[1], json.decode(c[2])), c[2])
    end
    assert.equal("null", json.encode(nil))
  end)

  it("refuses what is no JSON, and says where", function()
    assert.equal("cannot be JSON: a function", refused(print))
    assert.equal("cannot be JSON: a function at .a.b", refused { a = { b = print } })
    assert.equal("cannot be JSON: a userdata at [2]", refused { 1, io.stdout })
    assert.equal("cannot be JSON: a thread at .co", refused { co = coroutine.create(print) })
    assert.equal("cannot be JSON: NaN at .v[1]", refused { v = { 0 / 0 } })
    assert.equal("cannot be JSON: an infinite number", refused(-math.huge))
    assert.equal("cannot be JSON: an array with holes at .a", refused { a = { 1, [3] = 3 } })
    assert.equal("cannot be JSON: an array with holes", refused { [2] = 1 })
    assert.equal("cannot be JSON: an array with holes", refused(json.array { [2] = 1 }))
    assert.equal("cannot be JSON: a table with both a sequence and names", refused { 1, x = 2 })
    assert.equal("cannot be JSON: an array with names", refused(json.array { x = 2 }))
    assert.equal("cannot be JSON: a name that is not a string", refused { [true] = 1 })
    assert.equal("cannot be JSON: a string that is not UTF-8 at .q[1]", refused { q = { "\xff" } })
    assert.equal("cannot be JSON: a string that is not UTF-8", refused("eight bytes or more \xed\xa0\x80"))
    assert.equal("cannot be JSON: a name that is not UTF-8 at .q", refused { q = { ["\xff"] = 1 } })
    for _, v in ipairs { { [1.5] = 1, x = 1, 1 }, { [0.5] = 1 }, { [0] = 1, x = 2 }, { [1 << 40] = 1 },
      { 1, 2, [-1] = 3 } } do refused(v) end
    assert.matches("^cannot be JSON: an array with holes", refused { [0] = 1 })
  end)

  it("refuses loops, depth and size without end", function()
    local loop = {}
    loop.again = loop
    assert.matches("a loop, or tables nested deeper than 128 at %.", refused(loop))
    local deep = {}
    for _ = 1, 127 do deep = { deep } end
    assert.equal(("["):rep(127) .. "{}" .. ("]"):rep(127), json.encode(deep))
    refused { deep }
    local wide = { "x" }
    for _ = 1, 100 do wide = { wide, wide } end
    assert.matches("more than 16 MiB", refused(wide))
    assert.equal('{"fine":1}', json.encode { fine = 1 })
  end)

  it("puts fixes where they belong in large values", function()
    local v = {}
    for i = 1, 3000 do v[i] = { i, i + 0.0, json.array(), {}, i / 7, tostring(i) .. "/{}", n = nil, { a = i * 1e15 // 1 | 0,
      b = { json.array() } } } end
    round_trip(v)
    v = {}
    for i = 1, 3000 do v["k/" .. i] = i % 3 == 0 and i / 3.0 or i % 3 == 1 and json.array() or i << 50 end
    round_trip(v)
  end)

  it("inserts raw text as it stands", function()
    local raw = json.raw ' {"b" : 1.50,\n"a":"\\/" } '
    assert.equal('[ {"b" : 1.50,\n"a":"\\/" } ,1]', json.encode { raw, 1 })
    assert.equal(' {"b" : 1.50,\n"a":"\\/" } ', json.encode(raw))
    local v, why, code = json.raw "[1,]"
    assert.same({ nil, "not JSON: unexpected ']' at byte 4 (line 1)", "json" }, { v, why, code })
    assert.has_error(function() raw.x = 1 end)
    assert.equal("cannot be JSON: a json.raw that was changed", refused(rawset(json.raw "1", "x", 1)))
    assert.equal("cannot be JSON: a json.raw that was changed", refused(rawset(json.raw "1", 1, 1)))
  end)
end)

describe("json.array", function()
  it("marks and tells", function()
    local t = {}
    assert.equal(t, json.array(t))
    assert.equal(t, json.array(t))
    assert.is_true(json.is_array(t))
    assert.is_true(json.is_array { 1 })
    for _, v in ipairs { {}, { a = 1 }, json.null, "x", 1 } do assert.is_false(json.is_array(v)) end
    assert.has_error(function() json.array(setmetatable({}, {})) end)
    assert.has_error(function() json.array(1) end)
  end)
end)

describe("json", function()
  it("brings random values back", function()
    math.randomseed(20211102)
    local random = math.random
    local make
    local scalars = {
      function() return random(-1000, 1000) end,
      function() return random(0) end,
      function() return random(-100000, 100000) / 100 end,
      function() return random(-1000, 1000) * 1.0 end,
      function()
        local x
        repeat x = string.unpack("d", string.pack("j", random(0))) until x == x and x - x == 0
        return x
      end,
      function()
        local s = {}
        for i = 1, random(0, 12) do
          local c
          repeat c = random(4) == 1 and random(0, 0x10ffff) or random(0, 127) until c < 0xd800 or c > 0xdfff
          s[i] = utf8.char(c)
        end
        return table.concat(s)
      end,
      function() return random(2) == 1 end,
      function() return json.null end,
    }
    function make(depth)
      local kind = depth > 4 and 1 or random(4)
      if kind <= 2 then return scalars[random(#scalars)]() end
      local t = kind == 3 and json.array {} or {}
      for i = 1, random(0, 6) do t[kind == 3 and i or scalars[6]()] = make(depth + 1) end
      return t
    end
    for _ = 1, 3000 do round_trip(make(0)) end
  end)

  it("brings a finalizer that encodes in the midst of it no harm", function()
    local ran = 0
    local function litter()
      setmetatable({}, { __gc = function()
        ran = ran + 1
        assert(json.encode { 7.0, "a/b", json.array(), 8.0 } == '[7.0,"a/b",[],8.0]' and json.decode("[1.0]")[1] == 1)
      end })
    end
    local long = ("x"):rep(1 << 20)
    local value, text = { 5.0, long, 1e300, json.array() }, '[5.0,"' .. long .. '",1e+300,[]]'
    collectgarbage("generational", 1) -- a large allocation is a whole collection: cjson's text is the largest here
    for _ = 1, 30 do
      litter()
      assert(json.encode(value) == text)
    end
    collectgarbage("generational", 20)
    collectgarbage "incremental"
    assert(ran > 0)
  end)
end)
