-- What the count hook cannot interrupt, for it is C: each has a bound of its own, and plugins that try to hold a lane with it do not.
local bed = require "bed"
local probe = require "probe"

-- Steps on the way of an index: Lua follows 2000 tables without a single instruction.
local chain = "local t = setmetatable({}, { __index = rawlen }) for _ = 1, 1900 do t = setmetatable({}, { __index = t }) end "
-- Claims to be long, and has each index led to C.
local claimed = "local t = setmetatable({}, { __len = function() return 300000000 end, __index = type, __newindex = type }) "
-- Texts that differ in their last byte.
local alike = "local a, b = ('x'):rep(20 << 20) .. 'a', ('x'):rep(20 << 20) .. 'b' "
-- A name that is looked for in 180 functions with 190 variables each.
local nested = [[
local names, open = {}, {}
for i = 1, 190 do names[i] = "a" .. i end
for i = 1, 180 do open[i] = "local " .. table.concat(names, ",") .. " local function f() " end
local text = table.concat(open) .. ("b=b "):rep(300000) .. ("end "):rep(180)
]]

-- Name, code, and where it is not the time or the instructions that end it, what it gives or says.
local attempts = {
  { "table.unpack through a chain of metatables", chain .. "return select('#', table.unpack(t, 1, 990000))" },
  { "table.unpack of what is not there", "return pcall(table.unpack, {}, 1, 1 << 40)", "too many results" },
  { "table.unpack around the integers", "return pcall(table.unpack, {}, math.mininteger, math.maxinteger)", "too many results" },
  { "table.insert before a claimed length", claimed .. "table.insert(t, 1, true)" },
  { "table.remove after a claimed length", claimed .. "table.remove(t, 1)" },
  { "table.move of C metatables", claimed .. "table.move(t, 1, 300000000, 2)" },
  { "table.move through a chain of metatables", chain .. "return table.move(t, 1, 900000, 1, setmetatable({}, { __newindex = type }))" },
  { "table.move around the integers", "return pcall(table.move, {}, math.mininteger, math.maxinteger, 1)", "too many elements" },
  { "table.concat of a claimed length", "return #table.concat(setmetatable({}, { __len = function() return 300000000 end, __index = rawlen }))", "budget" },
  { "table.concat through a chain of metatables", chain .. "return #table.concat(t, '', 1, 2000000)" },
  { "table.sort of long texts that are alike", alike .. "local t = {} for i = 1, 20000 do t[i] = i % 2 == 0 and a or b end table.sort(t)" },
  { "table.sort by an order in C", alike .. "local t = {} for i = 1, 20000 do t[i] = i % 2 == 0 and a or b end table.sort(t, string.find)" },
  { "table.sort by an order that derives keys", "local t = {} for i = 1, 1000 do t[i] = 'p' .. i end table.sort(t, crypto.password_hash)" },
  { "table.sort through a chain of metatables", chain .. "return table.sort(setmetatable({}, { __index = t, __newindex = type, __len = function() return 900000 end }))", "" },
  { "table.sort by an order that contradicts itself", "local t = {} for i = 1, 1000 do t[i] = i % 7 end return pcall(table.sort, t, function() return true end)", "invalid order function" },
  { "table.sort that sorts within its order", "local function f(n) table.sort({ 3, 2, 1 }, function(a, b) f(n + 1) return a < b end) end f(1)", "C stack overflow" },
  { "a pattern that backtracks", "return (('a'):rep(3000)):match(('.-'):rep(20) .. 'b')" },
  { "a pattern that goes back to a long capture", "return (('a'):rep(20 << 20)):match '^(a-)%1b'" },
  { "a pattern of nested captures", "return pcall(string.match, 'x', ('('):rep(33) .. (')'):rep(33))", "too many captures" },
  { "a pattern that recurses", "return pcall(string.match, ('a'):rep(300), ('a?'):rep(300) .. ('a'):rep(300))", "pattern too complex" },
  { "gmatch of a pattern that backtracks", "for _ in (('a'):rep(3000)):gmatch(('.-'):rep(20) .. 'b') do end" },
  { "gsub that calls what derives keys", "return #('x'):rep(100000):gsub('.', crypto.password_hash)" },
  { "gsub that writes JSON", "local t = {} for i = 1, 200000 do t[i] = i end return (('x'):rep(100000):gsub('.', setmetatable(t, { __index = json.encode })))" },
  { "gsub that recurses", "local function f(s) return (s:gsub('.', f)) end return f 'xx'", "C stack overflow" },
  { "gsub that grows", "local s = 'x' while true do s = s:gsub('x', ('x'):rep(100)) end", "budget" },
  { "plain find of texts that are alike", "local s = ('a'):rep(16 << 20) local n = ('a'):rep(8 << 20) .. 'b' while true do s:find(n, 1, true) end" },
  { "string.rep", "return pcall(string.rep, 'x', 1 << 40)", "memory" },
  { "string.rep beyond a size", "return pcall(string.rep, 'xx', math.maxinteger)", "too large" },
  { "string.format of a wide field", "return pcall(string.format, '%99999d', 1)", "invalid" },
  { "string.pack of a wide field", "return string.pack('c2147483647', 'x')", "budget" },
  { "string.pack of too wide an integer", "return pcall(string.pack, 'i17', 1)", "out of limits" },
  { "concatenation that doubles", "local s = 'x' while true do s = s .. s end", "budget" },
  { "long texts compared", alike .. "while true do local _ = a < b end" },
  { "utf8 of long texts", "local s = ('é'):rep(10 << 20) while true do utf8.len(s) end" },
  { "utf8.codepoint of a long text", "return pcall(utf8.codepoint, ('x'):rep(20 << 20), 1, -1)", "too long" },
  { "string.byte of a long text", "return pcall(string.byte, ('x'):rep(20 << 20), 1, -1)", "too long" },
  { "tonumber of long texts", "local s = ('1'):rep(20 << 20) while true do tonumber(s) tonumber(s, 7) tonumber('0x' .. s:sub(1, 1000)) end" },
  { "a __len that is endless", "return #setmetatable({}, { __len = function() while true do end end })" },
  { "load of a text that takes minutes to compile", nested .. "return load(text) ~= nil" },
  { "load of such a text from a function", nested .. "local t = { text } return load(function() return table.remove(t) end) ~= nil" },
  { "load inside pcall of such a text", nested .. "while true do pcall(load, text) end" },
  { "load of a text that is nested", "return load(('('):rep(100000))", "overflow" },
  { "load of a text that never ends", "return load(function() return 'x=1 ' end)", "budget" },
  { "digests of long texts", "local s = ('x'):rep(30 << 20) while true do crypto.sha512(s) end" },
  { "AES of long texts", "local s, k = ('x'):rep(10 << 20), crypto.random(32) while true do crypto.seal(k, s) end" },
  { "passwords", "while true do crypto.password_hash 'x' end", "limits.instructions", "/counted" },
  { "a password that costs much", "local s = '$scrypt$ln=17,r=8,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' while true do crypto.password_verify('x', s) end", "limits.instructions", "/counted" },
  { "passwords where it may not wait", "coroutine.wrap(function() while true do crypto.password_hash 'x' end end)()" },
  { "a password that costs too much", "return crypto.password_verify('x', '$scrypt$ln=30,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA')", "not one that this reads" },
  { "RSA keys", "while true do crypto.rsa.generate(4096) end" },
  { "RSA keys inside gsub", "return (('x'):rep(1000):gsub('.', function() return crypto.rsa.generate(2048).public end))" },
  { "signatures", "local k = crypto.rsa.generate(2048) while true do crypto.rsa.sign(k.private, 'x') end" },
  { "JSON read for ever", "local s = '[' .. ('[1,2],'):rep(100000) .. '0]' while true do json.decode(s) end" },
  { "JSON written for ever", "local t = {} for i = 1, 100000 do t[i] = { i } end while true do json.encode(t) end" },
  { "JSON in a loop", "local t = {} t.t = t return json.try_encode(t)", "a loop" },
  { "next over a table that is emptied", "local t = {} for i = 1, 500000 do t['k' .. i] = true end for i = 1, 499999 do t['k' .. i] = nil end while true do next(t) end" },
  { "a header that a list names a thousand times", "local s, t = ('x'):rep(200000), {} for i = 1, 1000 do t[i] = s end return http.get { url = config.url, headers = { a = t } }", "headers is larger" },
  { "a form that a list names a thousand times", "local s, t = ('x'):rep(9 << 20), {} for i = 1, 1000 do t[i] = s end return http.post { url = config.url, form = { a = t } }", "form is larger" },
  { "a query that a list names a thousand times", "local s, t = ('x'):rep(60000), {} for i = 1, 1000 do t[i] = s end return http.get { url = config.url, query = { a = t } }", "query is larger" },
  { "details that are long", "local s, t = ('x'):rep(9 << 20), {} for i = 1, 100 do t['d' .. i] = s end return pcall(plugin.people.keep, plugin.people, 'p', t)", "" },
}

describe("what is C and takes long ends on the call's budget:", function()
  local host
  setup(function()
    local entry = [[{ "probe", name = "%s", mount = "/%s", url = "http://127.0.0.1:1", limits = { memory = "128MiB", instructions = %d, running = "%s" } }]]
    host = probe.host(entry:format("hasty", "hasty", 2000000000, "500ms") .. ", " .. entry:format("patient", "patient", 2000000000, "20s") .. ", " ..
      entry:format("counted", "counted", 20000000, "20s")) -- for what is done beside the lane
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  for _, a in ipairs(attempts) do
    it(a[1], function()
      local place = a[4] or a[3] and a[3] ~= "budget" and a[3] ~= "" and "/patient" or "/hasty" -- the budget must not be what ends it
      local results, why = probe.run(host, a[2], place .. "/probe")
      local said = results and table.concat(results, " ") or why
      assert.truthy(said:find(a[3] or "budget of 0.5 s", 1, true), said)
      assert.equal("here", (select(2, host:request("GET", place .. "/here")))) -- by the same instance of the same lane
    end)
  end
end)

describe("a rule is bounded in the same way", function()
  it("and holds the reading", function()
    local host = probe.host('{ "probe" }, { "poster" }', {
      config = [[rules = { { "slow", limits = { running = "500ms" } } }]],
      plugins = {
        ["rules/slow.lua"] = [[
local plugin = ...
local t = setmetatable({}, { __index = rawlen }) for _ = 1, 1900 do t = setmetatable({}, { __index = t }) end
plugin:on({ metric = "m" }, function() table.unpack(t, 1, 990000) end)]],
        ["vendors/poster.lua"] = [[
local plugin = ...
plugin:serve { "POST /reading", handler = function() plugin:emit { device = "d", metric = "m", value = 1 } return 204 end }]],
      },
    })
    assert.equal(204, (host:request("POST", "/reading")))
    local held = bed.wait("it to be held", function() return host:sql("select error from held")[1] end)
    assert.matches("budget of 0.5 s", held.error)
    assert.same({ "exit", 0 }, { host:stop() })
  end)
end)

describe("at the bound, one below and one above:", function()
  local host, receiver
  setup(function()
    receiver = bed.receiver()
    host = probe.host(([[{ "probe", url = "http://127.0.0.1:%d", limits = { memory = "256MiB", instructions = 2000000000, running = "20s" } }, { "answers" }]]):format(receiver.port), { plugins = {
      ["vendors/answers.lua"] = [[
local plugin = ...
plugin:serve { "GET /answers/{n}", path = { n = { "integer", lenient = true } }, handler = function(req) return 200, "x", { a = ("x"):rep(req.params.n - 1) } end }]],
    } })
  end)
  teardown(function()
    receiver:close()
    host:stop()
  end)
  local function run(code) return probe.run(host, code, nil, function() receiver:poll() end) end

  it("the URL", function()
    local base = #("http://127.0.0.1:%d/?q="):format(receiver.port)
    for n, fits in pairs { [65535] = true, [65536] = true, [65537] = false } do
      local r, why = run(("local res = http.get { url = config.url .. '/', query = { q = ('x'):rep(%d) } } return res and #res.url"):format(n - base))
      if fits then assert.same({ tostring(n) }, r) else assert.matches("larger than 64 KiB", why) end
    end
  end)

  it("the headers", function()
    for n, fits in pairs { [262143] = true, [262144] = true, [262145] = false } do
      local r, why = run(("return pcall(function() return http.get { url = config.url .. '/x', headers = { a = ('x'):rep(%d) } } end)"):format(n - 4))
      assert.equal(fits, not table.concat(r or { why }, " "):find("larger than 256 KiB", 1, true))
    end
  end)

  it("the form", function()
    for n, fits in pairs { [(16 << 20) - 1] = true, [16 << 20] = true, [(16 << 20) + 1] = false } do
      local r, why = run(("return pcall(function() return http.post { url = config.url .. '/x', timeout = 0.05, form = { a = ('x'):rep(%d) } } end)"):format(n - 2))
      assert.equal(fits, not table.concat(r or { why }, " "):find("larger than 16384 KiB", 1, true))
    end
  end)

  it("an answer's headers", function()
    for n, fits in pairs { [65535] = true, [65536] = true, [65537] = false } do
      assert.equal(fits and 200 or 500, (host:request("GET", "/answers/" .. n)))
    end
  end)

  it("JSON's depth", function()
    for n, fits in pairs { [127] = true, [128] = true, [129] = false } do
      local r = run(("local v, why = json.decode(('['):rep(%d) .. (']'):rep(%d)) local t = {} for _ = 1, %d - 1 do t = { t } end return v ~= nil, (json.try_encode(t)) ~= nil"):format(n, n, n))
      assert.same({ tostring(fits), tostring(fits) }, r)
    end
  end)

  it("JSON's size", function()
    for n, fits in pairs { [(16 << 20) - 4] = true, [(16 << 20) - 3] = true, [(16 << 20) - 2] = false } do
      assert.same({ tostring(fits) }, run(("return json.try_encode(('x'):rep(%d)) ~= nil"):format(n)))
    end
  end)

  it("coroutines that close each other", function()
    for n, fits in pairs { [5] = true, [6] = true, [7] = false } do
      local r = run(([[
        local worst = "none"
        local co = coroutine.create(function() end)
        for i = 1, %d do
          local inner = co
          co = coroutine.create(function()
            local x <close> = setmetatable({}, { __close = function()
              if i == 1 then return end
              local ok, why = coroutine.close(inner)
              if not ok then worst = why end
            end })
            coroutine.yield()
          end)
          coroutine.resume(co)
        end
        local ok, why = coroutine.close(co)
        return worst == "none" and ok, ok and worst or why]]):format(n))
      assert.equal(tostring(fits), r[1])
      if not fits then assert.matches("more than 6 deep", r[2]) end
    end
  end)

  it("random bytes", function()
    for n, fits in pairs { [(1 << 20) - 1] = true, [1 << 20] = true, [(1 << 20) + 1] = false } do
      assert.equal(tostring(fits), run(("return (pcall(crypto.random, %d))"):format(n))[1])
    end
  end)

  it("the bits of an RSA key", function()
    for n, fits in pairs { [2047] = false, [2048] = true, [4097] = false } do
      assert.equal(tostring(fits), run(("return (pcall(crypto.rsa.generate, %d))"):format(n))[1])
    end
  end)
end)

describe("instructions", function()
  it("are counted for what OpenSSL does", function()
    local host = probe.host [[{ "probe", limits = { instructions = 6000000, running = "20s" } }]]
    local function said(code)
      local r, why = probe.run(host, code)
      return r and r[1] or why
    end
    assert.equal("table", said "return type(crypto.rsa.generate(2048))")
    assert.matches("instructions", said "crypto.rsa.generate(2048) crypto.rsa.generate(2048)")
    assert.matches("instructions", said "return crypto.rsa.generate(4096)")
    assert.equal("string", said "return type(crypto.password_hash 'x')")
    assert.matches("instructions", said "crypto.password_hash 'x' crypto.password_hash 'x'")
    assert.equal("here", (select(2, host:request("GET", "/here"))))
    host:stop()
  end)
end)
