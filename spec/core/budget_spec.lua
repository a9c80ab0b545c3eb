-- A plugin that loops, eats memory, raises or recurses: that call ends, its request or reading is kept, everybody else is served.
local bed = require "bed"
local json = require "neap.json"

-- What a handler does wrong, in one line, and what the message has to say about it (nil: only where it happened).
local wrongs = {
  { "an endless loop", "while true do end", "budget" },
  { "a loop inside pcall", "while true do pcall(function() while true do end end) end", "budget" },
  { "a loop inside nested pcalls", "local function f(n) while true do pcall(f, n + 1) end end f(0)", "budget" },
  { "a caught loop that is returned", "return pcall(function() while true do end end)", "budget" },
  { "a loop inside xpcall with a looping handler", "xpcall(function() while true do end end, function() while true do end end) while true do end", "budget" },
  { "a loop in a coroutine", "coroutine.wrap(function() while true do end end)()", "budget" },
  { "loops in coroutines inside pcall", "while true do pcall(coroutine.wrap(function() while true do end end)) end", "budget" },
  { "loops in coroutines of coroutines", "local function deep(n) while true do pcall(coroutine.wrap(function() if n < 20 then deep(n + 1) end while true do end end)) end end deep(0)",
    "budget" },
  { "coroutines that are resumed for ever", "local co = coroutine.create(function() while true do coroutine.yield() end end) while true do coroutine.resume(co) end", "budget" },
  { "a goto loop", "::again:: goto again", "budget" },
  { "eating memory", "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", "memory" },
  { "eating memory inside pcall", "while true do pcall(function() local t = {} while true do t[#t + 1] = {} end end) end" },
  { "a string.rep bomb", "return 200, ('x'):rep(1 << 40)" },
  { "a string that doubles", "local s = 'x' while true do s = s .. s end", "memory" },
  { "a table.concat bomb", "local t = {} for i = 1, 1000 do t[i] = ('x'):rep(100000) end return 200, table.concat(t)", "memory" },
  { "raising a text", "error 'it broke'", "it broke" },
  { "raising a table", "error({ code = 7 })", "table" },
  { "raising nil", "error(nil)", "nil" },
  { "raising a table whose __tostring loops", "error(setmetatable({}, { __tostring = function() while true do end end }))", "table" },
  { "raising 10 MB", "error(('long '):rep(2 << 20))", "long" },
  { "raising bytes that are not text", "error '\\xff\\0\\xfe'" },
  { "indexing nil", "local x = nil; return x.y", "index a nil" },
  { "recursion without end", "local function f() return 1 + f() end f()" },
  { "recursion without end in tail calls", "local function f() return f() end f()", "budget" },
  { "recursion through __index", "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k] end return t.x", "overflow" },
  { "recursion through __eq and __concat", "local m = {} m.__concat = function(a, b) return a .. b end local t = setmetatable({}, m) return t .. t", "overflow" },
  { "a chain of __index tables that closes", "local a, b = {}, {} setmetatable(a, { __index = b }) setmetatable(b, { __index = a }) return a.x", "__index" },
  { "an __index function that loops", "return setmetatable({}, { __index = function() while true do end end }).x", "budget" },
  { "a __tostring that loops", "return tostring(setmetatable({}, { __tostring = function() while true do end end }))", "budget" },
  { "an error in __close", "local x <close> = setmetatable({}, { __close = function() error 'while closing' end })", "while closing" },
  { "an error in __close after an error", "local x <close> = setmetatable({}, { __close = function() error 'while closing' end }) error 'first'" },
  { "a __close that loops", "local x <close> = setmetatable({}, { __close = function() while true do end end }) error 'first'" },
  { "a __close that loops after a loop", "local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end", "budget" },
  { "a coroutine with a looping __close", "local co = coroutine.create(function() local x <close> = setmetatable({}, { __close = function() while true do end end }) coroutine.yield() end) coroutine.resume(co) coroutine.close(co) while true do end",
    "budget" },
  { "yielding to nobody", "coroutine.yield(1)", "yield" },
  { "a sort whose order loops", "table.sort({ 3, 2, 1 }, function() while true do end end)", "budget" },
  { "a gsub whose function loops", "return (('x'):gsub('.', function() while true do end end))", "budget" },
  { "string.rep of nothing, very often", "return 200, (''):rep(1 << 50)", false },
  { "moving what is not there", "table.move({}, 1, 1 << 50, 2)" },
  { "inserting before a claimed length", "table.insert(setmetatable({}, { __len = function() return 1 << 50 end }), 1, true)" },
  { "removing after a claimed length", "table.remove(setmetatable({}, { __len = function() return 1 << 50 end }), 1)" },
  { "a pattern that backtracks for ever", "return 200, tostring((('a'):rep(40)):find(('a*'):rep(40) .. 'b'))", "budget" },
  { "a search that takes for ever", "local a = ('a'):rep(1 << 21) return 200, tostring(a:find(('a'):rep(1 << 20) .. 'b', 1, true))", false },
}

-- The same in a file of its own, where each stands on line 10 * i.
local function file_of(register, cases, each)
  local lines = { "local plugin = ...", register or "" }
  for i, c in ipairs(cases) do
    while #lines < 10 * i - 1 do lines[#lines + 1] = "" end
    lines[#lines + 1] = each(i, c)
  end
  return table.concat(lines, "\n")
end

local function vendor_file()
  return file_of(nil, wrongs, function(i, c) return ("plugin:serve { 'POST /wrong/%d', handler = function(req) %s end }"):format(i, c[2]) end)
end

local function rule_file()
  return file_of(nil, wrongs, function(i, c) return ("plugin:on({ metric = 'wrong-%d' }, function(r) %s end)"):format(i, c[2]) end)
end

local good = [[
local plugin = ...
plugin:serve { "POST /good", body = { metric = { "string" }, device = { "string" } }, handler = function(req)
  plugin:emit { device = req.body.device, metric = req.body.metric, value = 1 }
  return 200, { ok = true }
end }
plugin:serve { "GET /here", handler = function() return 200, "here" end }
]]

local counter = [[
local plugin = ...
plugin:on({ metric = "*" }, function(r) plugin.store:put("n", (plugin.store:get("n") or 0) + 1) end)
]]

local function settled(host)
  bed.wait("all tasks to end", function() return host:summary().tasks == 0 end)
  assert.equal("here", (select(2, host:request("GET", "/here"))))
end

-- The log's lines that tell of an error of this plugin.
local function log_of(host, plugin)
  local found = {}
  for line in host:read():gmatch "[^\n]+" do
    local l = json.decode(line)
    if type(l) == "table" and l.plugin == plugin and l.level == "error" then found[#found + 1] = l end
  end
  return found
end

describe("budgets", function()
  local host
  local limits = [[limits = { memory = "32MiB", instructions = 2000000, running = "20s" }]]
  setup(function()
    host = bed.host {
      config = ([[lanes = 1, quarantine = false,
        connections = { { "wrong", %s }, { "hoard", %s }, { "clumsy", %s }, { "stream", %s }, { "odd", %s }, { "good" } },
        rules = { { "wrongrule", %s }, { "counter" }, { "hoardrule", %s } }]]):format(limits, limits, limits, limits, limits, limits, limits),
      plugins = {
        ["vendors/wrong.lua"] = vendor_file(), ["rules/wrongrule.lua"] = rule_file(), ["vendors/good.lua"] = good, ["rules/counter.lua"] = counter,
        ["vendors/hoard.lua"] = [[
local plugin = ...
local hoard = {}
plugin:serve { "POST /hoard", handler = function()
  for i = 1, 100000 do hoard[#hoard + 1] = ("%d "):format(#hoard):rep(100) end
  return 200
end }]],
        ["rules/hoardrule.lua"] = [[
local plugin = ...
local hoard = {}
plugin:on({ metric = "hoard" }, function() for i = 1, 100000 do hoard[#hoard + 1] = ("%d "):format(#hoard):rep(100) end end)]],
        ["vendors/clumsy.lua"] = [[
local plugin = ...
local what
plugin:refuse(function(problem)
  if problem.field ~= "" then what = problem.field end -- a second call tells that the first has failed
  if what == "loops" then while true do end end
  if what == "raises" then error "no words" end
  if what == "yields" then coroutine.yield() end
  if what == "odd" then return 99, {} end
  return problem.status, { said = problem.message }
end)
for _, name in ipairs { "loops", "raises", "yields", "odd", "fine" } do
  plugin:serve { "POST /clumsy/" .. name, body = { [name] = { "string" } }, handler = function() error "handler" end }
end]],
        ["vendors/stream.lua"] = [[
local plugin = ...
local function after(n, fn)
  local i = 0
  return function()
    i = i + 1
    if i <= n then return ("%d "):format(i) end
    return fn()
  end
end
local ends = {
  loops = function() while true do end end, raises = function() error "midway" end, eats = function() return ("x"):rep(1 << 30) end,
  yields = function() coroutine.yield() end, odd = function() return {} end, number = function() return 1 end, fine = function() end,
  recurses = function() local function f() return 1 + f() end return f() end,
}
for name, fn in pairs(ends) do
  for _, n in ipairs { 0, 3 } do
    plugin:serve { "GET /stream/" .. name .. "/" .. n, handler = function() return 200, after(n, fn) end }
  end
end]],
        ["vendors/odd.lua"] = [[
local plugin = ...
local json = require "neap.json"
local deep = {}
do local t = deep for _ = 1, 100000 do t[1] = {} t = t[1] end end
local cycle = {} cycle.again = cycle
local answers = {
  deep = function() return 200, deep end, cycle = function() return 200, cycle end, functions = function() return 200, { print } end,
  mixed = function() return 200, { 1, 2, x = 3 } end, nan = function() return 200, { 0 / 0 } end, boolean = function() return true end,
  status = function() return 99, "x" end, fraction = function() return 200.5, "x" end, header = function() return 200, "x", { a = {} , b = print } end,
  headers = function() return 200, "x", "y" end, thread = function() return 200, coroutine.create(print) end,
  emit_deep = function() plugin:emit { device = "d", metric = "m", value = 1, extra = deep } end,
  emit_cycle = function() plugin:emit { device = "d", metric = "m", value = 1, extra = cycle } end,
  store_deep = function() plugin.store:put("deep", deep) end,
  encode_cycle = function() return 200, json.encode(cycle) end,
}
for name, fn in pairs(answers) do plugin:serve { "POST /odd/" .. name, handler = fn } end]],
      },
    }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  describe("a vendor's handler:", function()
    for i, c in ipairs(wrongs) do
      it(c[1], function()
        local status, text = host:request("POST", "/wrong/" .. i, "raw " .. i)
        if c[3] == false then -- no harm in it, if it is quick
          assert.equal(200, status)
          settled(host)
          return
        end
        assert.equal(500, status, text)
        local row = host:sql(("select * from inbox where target = '/wrong/%d'"):format(i))[1]
        assert.equal("failed", row.outcome)
        assert.equal("raw " .. i, row.body)
        assert.equal(1, row.generation)
        assert.is_true(#row.error < 20000, "the kept error has " .. #row.error .. " bytes")
        assert.matches("vendors/wrong.lua:" .. 10 * i .. ":", row.error, 1, true)
        if c[3] then assert.matches(c[3], row.error, 1, true) end
        local said = bed.wait("the log to name the line", function()
          for _, l in ipairs(log_of(host, "wrong")) do if l.error:find("vendors/wrong.lua:" .. 10 * i .. ":", 1, true) then return l end end
        end)
        assert.equal("1", tostring(said.generation))
        settled(host)
      end)
    end
  end)

  describe("a rule:", function()
    for i, c in ipairs(wrongs) do
      if c[3] ~= false then
        it(c[1], function()
          local before = tonumber((host:sql("select value from kv where key = 'n' and space = 'plugin:counter'")[1] or { value = 0 }).value)
          assert.equal(200, (host:request("POST", "/good", { device = "d-" .. i, metric = "wrong-" .. i })))
          local held = bed.wait("the reading to be held", function()
            return host:sql(("select h.*, r.metric from held h join readings r on r.seq = h.reading where h.instance = 'wrongrule' and r.metric = 'wrong-%d'"):format(i))[1]
          end)
          assert.equal(1, held.generation)
          assert.matches("rules/wrongrule.lua:" .. 10 * i .. ":", held.error, 1, true)
          if c[3] then assert.matches(c[3], held.error, 1, true) end
          -- the other rule has seen it all the same
          assert.equal(before + 1, tonumber(host:sql("select value from kv where key = 'n' and space = 'plugin:counter'")[1].value))
          settled(host)
        end)
      end
    end
  end)

  describe("plugin:refuse:", function()
    for _, name in ipairs { "loops", "raises", "yields", "odd" } do
      it(name .. ": neap's own words stand", function()
        local status, answer = host:json("POST", "/clumsy/" .. name, {})
        assert.is_true(status == 400 or status == 500, "status " .. tostring(status))
        assert.is_string(answer.error)
        settled(host)
      end)
    end
    it("words a refusal, and a failed handler", function()
      local status, answer = host:json("POST", "/clumsy/fine", {})
      assert.equal(400, status)
      assert.matches("fine", answer.said)
      status, answer = host:json("POST", "/clumsy/fine", { fine = "x" })
      assert.equal(500, status)
      assert.is_string(answer.said)
      settled(host)
    end)
  end)

  describe("a streamed answer", function()
    for _, name in ipairs { "loops", "raises", "eats", "yields", "odd", "number", "recurses" } do
      for _, n in ipairs { 0, 3 } do
        it(("that %s after %d pieces is cut"):format(name, n), function()
          local socket = require "socket"
          local s = assert(socket.connect("127.0.0.1", host.port))
          s:settimeout(60)
          s:send(("GET /stream/%s/%d HTTP/1.1\r\nHost: x\r\n\r\n"):format(name, n))
          local got, why, part = s:receive "*a"
          s:close()
          got = got or part
          assert.is_nil(got:find("\r\n0\r\n", 1, true), "ended as if it were whole: " .. tostring(why))
          settled(host)
        end)
      end
    end
    it("that ends is whole", function()
      assert.same({ 200, "1 2 3 " }, { (host:request("GET", "/stream/fine/3")), (select(2, host:request("GET", "/stream/fine/3"))) })
    end)
  end)

  describe("an answer that is none:", function()
    for _, name in ipairs { "deep", "cycle", "functions", "mixed", "nan", "boolean", "status", "fraction", "header", "headers", "thread", "emit_deep",
      "emit_cycle", "store_deep", "encode_cycle" } do
      it(name, function()
        assert.equal(500, (host:request("POST", "/odd/" .. name, "x")))
        assert.equal("failed", host:sql(("select outcome from inbox where target = '/odd/%s'"):format(name))[1].outcome)
        settled(host)
      end)
    end
  end)

  it("a hoard fills up its own plugin alone", function()
    for _ = 1, 5 do assert.equal(500, (host:request("POST", "/hoard", "x"))) end
    for n = 1, 3 do
      assert.equal(200, (host:request("POST", "/good", { device = "hoard", metric = "hoard" })))
      bed.wait("the reading to be held", function() return host:sql("select count(*) n from held where instance = 'hoardrule'")[1].n == n end)
    end
    for _, name in ipairs { "hoard", "hoardrule" } do
      local p = host:plugin(name)
      assert.is_true(p.memory <= p.memory_max, p.memory .. " of " .. p.memory_max)
    end
    settled(host)
  end)

  for _, c in ipairs { { "loops", "while true do end" }, { "loops in pcall", "while true do pcall(function() while true do end end) end" },
    { "eats memory", "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end" }, { "raises", "error 'no'" }, { "raises a table", "error {}" },
    { "recurses", "local function f() return 1 + f() end f()" }, { "backtracks", "(('a'):rep(40)):find(('a*'):rep(40) .. 'b')" } } do
    it("a file that " .. c[1] .. " while it is loaded is not let in", function()
      bed.replace(host.plugins .. "/vendors/fresh.lua", "local plugin = ...\n\n" .. c[2])
      local p = bed.wait("the verdict", function() return host:sql("select * from generations where instance = 'fresh' and verdict = 'bad' and reason <> ''")[1] or host:plugin "fresh" end, 60)
      assert.matches("fresh.lua", p.reason or p.error, 1, true)
      bed.wait("the log", function()
        for _, l in ipairs(log_of(host, "fresh")) do if l.error and l.error:find("fresh.lua", 1, true) then return true end end
        return host:read():find("fresh.lua", 1, true)
      end)
      settled(host)
      os.remove(host.plugins .. "/vendors/fresh.lua")
      bed.wait("it to be gone", function() return not host:plugin "fresh" end)
      host.output = ""
    end)
  end
end)
