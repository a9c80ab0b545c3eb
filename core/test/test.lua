-- What a spec is given: describe, it and the rest, assert, and the module neap.test. Compiled into the program.
local core = ... -- functions in C

local json = require "neap.json"
local time = require "neap.time"

-- Showing values

local function is_name(k) return type(k) == "string" and k:find "^[%a_][%w_]*$" end

local function order(a, b)
  if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
  if type(a) ~= type(b) then return type(a) < type(b) end
  return tostring(a) < tostring(b)
end

local function scalar(v)
  if v == json.null then return "json.null" end
  if math.type(v) == "float" and math.tointeger(v) then return tostring(math.tointeger(v)) end -- 3.0 equals 3
  if type(v) ~= "string" then return tostring(v) end
  return (("%q"):format(v):gsub("\\\n", "\\n"):gsub("\\9", "\\t"))
end

-- A value as text: on one line where it is short, else a field a line.
local function show(v, indent, seen)
  if type(v) ~= "table" or v == json.null then return scalar(v) end
  if seen[v] then return "(a table that holds itself)" end
  if next(v) == nil then return "{}" end
  seen[v] = true
  local keys, parts, length = {}, {}, 0
  for k in pairs(v) do keys[#keys + 1] = k end
  table.sort(keys, order)
  for i, k in ipairs(keys) do
    local value = show(v[k], indent .. "  ", seen)
    local name = k == i and "" or is_name(k) and k .. " = " or "[" .. scalar(k) .. "] = "
    parts[i] = name .. value
    length = length + #parts[i] + 2
  end
  seen[v] = nil
  local whole = table.concat(parts, ", ")
  if length <= 70 and not whole:find "\n" then return "{ " .. whole .. " }" end
  return "{\n" .. indent .. "  " .. table.concat(parts, ",\n" .. indent .. "  ") .. "\n" .. indent .. "}"
end

local function text_of(v) return show(v, "", {}) end

local function lines_of(text)
  local list = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do list[#list + 1] = line end
  return list
end

-- Two texts as one: lines of the first alone with "-", of the second alone with "+".
local function diff(a, b)
  local x, y = lines_of(a), lines_of(b)
  if #x * #y > 1000000 then return "expected:\n" .. a .. "\ngot:\n" .. b end
  local longest = {} -- of the lines from i and from j on, how many are common
  for i = #x + 1, 1, -1 do
    longest[i] = {}
    for j = #y + 1, 1, -1 do
      if i > #x or j > #y then longest[i][j] = 0
      elseif x[i] == y[j] then longest[i][j] = longest[i + 1][j + 1] + 1
      else longest[i][j] = math.max(longest[i + 1][j], longest[i][j + 1]) end
    end
  end
  local out, i, j = {}, 1, 1
  while i <= #x or j <= #y do
    if i <= #x and j <= #y and x[i] == y[j] then
      out[#out + 1] = "    " .. x[i]
      i, j = i + 1, j + 1
    elseif i <= #x and (j > #y or longest[i + 1][j] >= longest[i][j + 1]) then
      out[#out + 1] = "  - " .. x[i]
      i = i + 1
    else
      out[#out + 1] = "  + " .. y[j]
      j = j + 1
    end
  end
  return table.concat(out, "\n")
end

local function difference(expected, got)
  local a, b = text_of(expected), text_of(got)
  if a:find "\n" or b:find "\n" then return "\n  - expected, + got\n" .. diff(a, b) end
  return "\n  expected " .. a .. "\n  got      " .. b
end

-- assert

local function same(a, b)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" or a == json.null or b == json.null then return false end
  for k, v in pairs(a) do
    if not same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

local function without_place(message)
  return type(message) == "string" and (message:gsub("^[^\n]-%.lua:%d+: ", "")) or message
end

-- Each gives whether it holds, and what to say where it does not, or where it does and should not.
local checks = {}
function checks.equal(expected, got) return expected == got, difference(expected, got), "two equal values:\n  " .. text_of(got) end
function checks.same(expected, got)
  return same(expected, got), difference(expected, got), "two same values:\n  " .. text_of(got)
end
checks["true"] = function(v) return v == true, "expected true, got " .. text_of(v), "expected anything but true" end
checks["false"] = function(v) return v == false, "expected false, got " .. text_of(v), "expected anything but false" end
checks["nil"] = function(v) return v == nil, "expected nil, got " .. text_of(v), "expected anything but nil" end
function checks.truthy(v, why) return v, "expected something true, got " .. text_of(v) .. (why and ": " .. tostring(why) or ""),
  "expected nil or false, got " .. text_of(v) end
function checks.falsy(v, why) return not v, "expected nil or false, got " .. text_of(v) .. (why and ": " .. tostring(why) or ""),
  "expected something true, got " .. text_of(v) end
function checks.matches(pattern, s)
  return type(s) == "string" and s:find(pattern) ~= nil,
    "expected a text that matches " .. scalar(pattern) .. "\n  got " .. text_of(s),
    "expected a text that does not match " .. scalar(pattern) .. "\n  got " .. text_of(s)
end
function checks.near(expected, got, tolerance)
  return type(got) == "number" and math.abs(got - expected) <= (tolerance or 1e-9), difference(expected, got), "two near numbers"
end
function checks.error(fn, expected)
  local ok, message = pcall(fn)
  if ok then return false, "expected an error, there was none", "" end
  local holds = expected == nil or same(expected, message)
  if not holds and type(message) == "string" and type(expected) == "string" then
    holds = without_place(message) == expected or message:find(expected, 1, true) ~= nil
  end
  return holds, "an error of other words" .. difference(expected, message), "expected no error, got " .. text_of(message)
end
for _, name in ipairs { "number", "string", "table", "boolean", "function" } do
  checks[name] = function(v) return type(v) == name, "expected a " .. name .. ", got " .. text_of(v), "expected no " .. name end
end
checks.equals, checks.match, checks.errors, checks.is_error = checks.equal, checks.matches, checks.error, checks.error

-- assert.is_not_nil, assert.is.not_nil, assert.are.same …: words that say nothing are passed over, "not" and "no" turn it round.
local empty = { is = true, are = true, has = true, was = true, have = true, that = true }
local negative = { ["not"] = true, no = true, isnt = true, arent = true }

local function resolve(words)
  local negated, rest = false, {}
  for word in words:gmatch "[^_%.]+" do
    if #rest == 0 and negative[word] then negated = not negated
    elseif #rest > 0 or not empty[word] then rest[#rest + 1] = word end
  end
  return table.concat(rest, "_"), negated
end

local proxy

local function checker(words)
  local name, negated = resolve(words)
  if name == "" then return proxy(words) end
  local check = checks[name]
  if not check then error(("assert.%s: there is no such assertion"):format(words), 2) end
  return function(...)
    local holds, why, why_not = check(...)
    if negated then holds, why = not holds, why_not end
    if holds then return ... end
    error(why, 2)
  end
end

function proxy(prefix)
  return setmetatable({}, { __index = function(_, word) return checker(prefix .. "_" .. tostring(word)) end })
end

local assertion = setmetatable({}, {
  __index = function(_, word) return checker(tostring(word)) end,
  __call = function(_, v, why, ...)
    if v then return v, why, ... end
    error(type(why) == "table" and why or why ~= nil and tostring(why) or "expected something true, got " .. text_of(v), 2)
  end,
})

-- The tree of tests

local root = { children = {}, before = {}, after = {}, setup = {}, teardown = {} }
local block, registering = root, true

local function register(verb, level)
  if not registering then error(verb .. " belongs into a describe or the file itself, not into a test", (level or 1) + 2) end
end

local function describe(name, fn)
  register "describe"
  local outer = block
  block = { name = tostring(name), outer = outer, children = {}, before = {}, after = {}, setup = {}, teardown = {} }
  outer.children[#outer.children + 1] = block
  local inner = block
  fn()
  assert(block == inner)
  block = outer
end

local function it(name, fn)
  register "it"
  if type(fn) ~= "function" then error("it: expected a name and a function", 2) end
  block.children[#block.children + 1] = { name = tostring(name), test = fn, outer = block }
end

local function hook(verb, list)
  return function(fn)
    register(verb)
    if type(fn) ~= "function" then error(verb .. ": expected a function", 2) end
    block[list][#block[list] + 1] = fn
  end
end

-- neap.test

local t, world = {}, { scripts = {}, asked = {}, zone = "UTC", looked_at_held = false }

-- What C raises carries no place: it is the spec's line that called.
local function passed(ok, ...)
  if ok then return ... end
  error((...), 3)
end
local function call(fn, ...) return passed(pcall(fn, ...)) end

local function moment(at)
  if type(at) == "string" then
    local ms, why = time.parse(at, world.zone)
    if not ms then error(why, 0) end
    return ms
  end
  return at
end

local plugin = {} -- the methods of a loaded plugin
local plugin_methods = { __index = plugin, __tostring = function(p) return p.name end }

-- t.plugin(name [, settings]): loads the plugin's file and puts it in force, with settings as neap.lua gives them: `name`,
-- `mount`, `limits`, `people` and `shows` too. Several may be loaded: a vendor, a rule, a destination. A destination that a
-- setting names and that is not loaded takes messages and does nothing with them. Raises where the plugin does not load or a
-- setting is wrong.
function t.plugin(name, settings)
  if type(name) ~= "string" then error("t.plugin: expected the plugin's name, got a " .. type(name), 2) end
  local instance, kind = call(core.plugin, name, settings or {})
  return setmetatable({ name = instance, kind = kind, plugin = name }, plugin_methods)
end

-- t.at(time): sets the clock: ms, or a text as time.parse reads it. Once a plugin is loaded it goes forward, and what is due
-- until then happens. Each test begins at 2026-01-01T00:00:00Z.
function t.at(at) call(function() core.at(moment(at)) end) end

-- t.advance(duration): moves the clock; timers, jobs, retries and what else is due happen in order, each at its moment.
function t.advance(duration) call(core.advance, duration) end

-- t.now(): the clock, in ms. It stands still but for t.at, t.advance, and a request, command or job that waits for time.
function t.now() return core.now() end

-- t.zone(name): the zone of texts without an offset that t.at and `at` of a reading are given. UTC at first.
function t.zone(name)
  call(core.zone, name)
  world.zone = name
end

-- t.random(seed): crypto.random, crypto.uuid, ids and jitter follow from it. Before the first plugin; without it from a seed
-- that is always the same.
function t.random(seed) call(core.seed, seed) end

-- p:reading{ device, metric, value, unit, at, … }: a reading comes in, as if a vendor had emitted it. `at` may be a text; now
-- where it is absent. `vendor` and `connection` are "test", or p's where p is a vendor. All that it leads to at this moment has
-- happened when this returns. Returns its id, nil for a duplicate.
function plugin:reading(fields)
  if type(fields) ~= "table" then error("p:reading: expected a table, got a " .. type(fields), 2) end
  return call(function()
    local copy = {}
    for k, v in pairs(fields) do copy[k] = v end
    copy.at = moment(copy.at)
    local vendor, connection = copy.vendor, copy.connection
    copy.vendor, copy.connection = nil, nil
    local own = self.kind == "vendor"
    return core.reading(copy, vendor or (own and self.plugin or "test"), connection or (own and self.name or "test"))
  end)
end

local function unchunk(body)
  local parts, at = {}, 1
  while true do
    local from, to, size = body:find("^(%x+)[^\r\n]*\r\n", at)
    if not from then return table.concat(parts) .. body:sub(at), false end
    local n = tonumber(size, 16)
    if n == 0 then return table.concat(parts), true end
    parts[#parts + 1] = body:sub(to + 1, to + n)
    at = to + n + 3
  end
end

local function read_answer(bytes)
  local head, body = bytes:match "^(.-\r\n)\r\n(.*)$"
  local status = head and tonumber(head:match "^HTTP/1%.%d (%d+)")
  if not status then error("the answer is no HTTP: " .. scalar(bytes:sub(1, 200)), 0) end
  local headers = {}
  for name, value in head:gmatch "\n([^:\r\n]+): *([^\r\n]*)" do
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  local whole = true
  if headers["transfer-encoding"] == "chunked" then body, whole = unchunk(body) end
  headers.date, headers.connection, headers["content-length"], headers["transfer-encoding"] = nil, nil, nil, nil
  local value
  if (headers["content-type"] or ""):find("json", 1, true) then value = json.decode(body) end
  if value == nil then value = body end
  return status, value, headers, whole
end

-- p:request(method, target [, body [, headers]]) -> status, body, headers: over the wire, through routes, auth, schemas and
-- commit, as a client's. A table as body is sent as JSON; the answer's is decoded where it is JSON. Where the handler waits for
-- time, the clock moves. A streamed answer that was cut has `false` as a fourth value.
function plugin:request(method, target, body, headers)
  return call(function()
    if type(method) ~= "string" or type(target) ~= "string" then error("p:request: expected a method and a target", 0) end
    local all = { host = "localhost", connection = "close" }
    if type(body) == "table" then
      body = json.encode(body)
      all["content-type"] = "application/json"
    end
    for k, v in pairs(headers or {}) do all[k:lower()] = tostring(v) end
    if body or method == "POST" or method == "PUT" or method == "PATCH" then all["content-length"] = #(body or "") end
    local names, lines = {}, { ("%s %s HTTP/1.1"):format(method, target) }
    for name in pairs(all) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do lines[#lines + 1] = name .. ": " .. all[name] end
    return read_answer(core.request(self.name, table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")))
  end)
end

-- p:call(command [, args]) -> its result; or nil, why, kind, as `neap call` has it carried out.
function plugin:call(name, args)
  return call(function()
    local answer = json.decode(core.call(self.name, name, args and next(args) ~= nil and json.encode(args) or "{}"))
    if answer.error then return nil, answer.error, answer.kind end
    if answer.result == json.null then return true end
    return answer.result
  end)
end

-- p:job(name) -> true; or nil and why it failed: has the job run now, whenever it is due.
function plugin:job(name) return call(core.job, self.name, name) end

-- p:stored(key) -> what plugin.store has under the key now.
function plugin:stored(key) return call(core.stored, self.name, key) end
function t.stored(p, key) return call(core.stored, type(p) == "table" and p.name or p, key) end

-- t.sent([destination]) -> messages, oldest first: { id, destination, device, source, created, reading, json, data, state,
-- attempts, status, error, due }; `data` is what the rule sent, `state` is waiting, delivered or dead.
function t.sent(destination)
  local list = {}
  for _, m in ipairs(call(core.sent)) do
    if not destination or m.destination == destination then list[#list + 1] = m end
  end
  return list
end

-- t.emitted() -> readings that plugins emitted, duplicates left out, as a rule sees them.
function t.emitted() return call(core.emitted) end

-- t.events(), t.devices() -> what the store knows.
function t.events() return call(core.events) end
function t.devices() return call(core.devices) end

-- t.armed() -> timers, soonest first: { plugin, name, key, due }.
function t.armed() return call(core.armed) end

-- t.held() -> what rules failed on: { plugin, error, reading, name, key, at }. A test in which a rule failed fails, unless it
-- asks.
function t.held()
  world.looked_at_held = true
  return call(core.held)
end

-- t.logged([level]) -> lines of the log: { level, text, plugin, … }.
function t.logged(level)
  local list = {}
  for _, line in ipairs(call(core.logged)) do
    if not level or line.level == level then list[#list + 1] = line end
  end
  return list
end

-- t.asked([what]) -> HTTP requests that plugins made: { method, url, query, headers, body, json }; `what` as t.http has it.
local matches_script
function t.asked(what)
  local list = {}
  for _, r in ipairs(world.asked) do
    if not what or matches_script(what, r) then list[#list + 1] = r end
  end
  return list
end

local function script(what, level)
  if type(what) ~= "string" or not what:find "^[%u*]+ https?://" then
    error(("expected a method and a URL such as \"POST https://desk.example/alerts\", got %s"):format(text_of(what)), level + 1)
  end
end

-- Without its query a URL counts whatever is asked; * stands for any characters.
function matches_script(what, request)
  local pattern = "^" .. what:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*") .. "$"
  return (request.method .. " " .. request.plain):find(pattern) ~= nil
    or (request.method .. " " .. request.url):find(pattern) ~= nil
end

-- t.http(what, answer…): answers the requests that plugins make of it, from now on. what is "POST https://desk.example/alerts",
-- * any characters; the query need not be in it. answer is a function that is given { method, url, query, headers, body, json }
-- and returns status, body, headers, or these themselves; a table as body is JSON. The newest that fits counts. A request that
-- nothing answers fails the test.
function t.http(what, ...)
  script(what, 2)
  local fn, n, fixed = (...), select("#", ...), { ... }
  if type(fn) ~= "function" then
    if math.type(fn) ~= "integer" then error("t.http: expected a function or a status, got " .. text_of(fn), 2) end
    fn = function() return table.unpack(fixed, 1, n) end
  end
  table.insert(world.scripts, 1, { what = what, answer = fn })
end

local faults = { timeout = true, cut = true, connect = true, resolve = true, tls = true }

-- t.fail(what, fault [, times]): has requests fail, as many times or from now on: timeout, cut, connect, resolve or tls.
function t.fail(what, fault, times)
  script(what, 2)
  if not faults[fault] then error("t.fail: expected timeout, cut, connect, resolve or tls, got " .. text_of(fault), 2) end
  table.insert(world.scripts, 1, { what = what, fault = fault, left = times or math.huge })
end

local function decoded(s)
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function request_of(method, url, lines, body)
  local r = { method = method, url = url, headers = {}, body = body, query = {}, plain = url:match "^[^?#]*" }
  for name, value in lines:gmatch "([^:\n]+): *([^\n]*)" do r.headers[name:lower()] = value end
  for name, value in (url:match "%?([^#]*)" or ""):gmatch "([^=&]+)=?([^&]*)" do r.query[decoded(name)] = decoded(value) end
  if body ~= "" then r.json = json.decode(body) end
  return r
end

local function lines_of_headers(headers, body)
  local lines = {}
  for name, value in pairs(headers or {}) do lines[#lines + 1] = name:lower() .. ": " .. tostring(value) .. "\n" end
  if type(body) == "table" and not (headers and (headers["content-type"] or headers["Content-Type"])) then
    lines[#lines + 1] = "content-type: application/json\n"
  end
  table.sort(lines)
  return table.concat(lines)
end

-- Called by what plugins ask.
local function answer(method, url, lines, body)
  local r = request_of(method, url, lines, body)
  world.asked[#world.asked + 1] = r
  for _, s in ipairs(world.scripts) do
    if (s.left or 1) > 0 and matches_script(s.what, r) then
      if s.fault then
        s.left = s.left - 1
        return nil, s.fault
      end
      local status, text, headers = s.answer(r)
      if math.type(status) ~= "integer" or status < 100 or status > 599 then
        error(("t.http %q: the function has to return a status, got %s"):format(s.what, text_of(status)), 0)
      end
      return status, lines_of_headers(headers, text), type(text) == "table" and json.encode(text) or text
    end
  end
  error(("a plugin asked %s %s, and no t.http or t.fail answers that"):format(method, url), 0)
end

-- Running

local function full_name(node)
  local names = {}
  while node and node.name do
    table.insert(names, 1, node.name)
    node = node.outer
  end
  return table.concat(names, " ")
end

local function hooks(node, list)
  local all = {}
  while node do
    for i = #node[list], 1, -1 do table.insert(all, 1, node[list][i]) end
    node = node.outer
  end
  return all
end

local function run_hooks_after(node, failed)
  while node do
    for _, fn in ipairs(node.after) do
      local why = core.try(fn)
      failed = failed or why
    end
    node = node.outer
  end
  return failed
end

-- What plugins logged of errors, for whoever reads that a test failed.
local function logged_errors()
  local out = {}
  for _, line in ipairs(core.logged()) do
    if line.level == "error" and #out < 5 then
      out[#out + 1] = ("\n  logged: %s: %s%s"):format(line.plugin or "neap", line.text, line.error and ": " .. line.error or "")
    end
  end
  return table.concat(out)
end

local function run_test(test)
  world = { scripts = {}, asked = {}, zone = "UTC", looked_at_held = false }
  local begun = core.work()
  core.begin()
  local failed
  for _, fn in ipairs(hooks(test.outer, "before")) do failed = failed or core.try(fn) end
  failed = failed or core.try(test.test)
  failed = run_hooks_after(test.outer, failed)
  failed = failed or core.trouble()
  if not failed and not world.looked_at_held then
    local held = core.held()[1]
    local what = held and (held.reading and "a reading" or "a timer")
    if held then failed = ("%s failed, and held %s: %s"):format(held.plugin, what, held.error) end
  elseif failed then
    failed = failed .. logged_errors()
  end
  core.finish()
  core.report(full_name(test), core.line(test.test), core.work() - begun, failed)
end

local function fail_all(node, why)
  if node.test then
    core.report(full_name(node), core.line(node.test), 0, why)
  else
    for _, child in ipairs(node.children) do fail_all(child, why) end
  end
end

local function run_block(node)
  local failed
  for _, fn in ipairs(node.setup) do failed = failed or core.try(fn) end
  for _, child in ipairs(node.children) do
    if failed then fail_all(child, failed)
    elseif child.test then run_test(child)
    else run_block(child) end
  end
  for _, fn in ipairs(node.teardown) do
    local why = core.try(fn)
    if why then core.report(full_name(node) .. " teardown", core.line(fn), 0, why) end
  end
end

_G.describe, _G.context, _G.it = describe, describe, it
_G.before_each, _G.after_each = hook("before_each", "before"), hook("after_each", "after")
_G.setup, _G.teardown = hook("setup", "setup"), hook("teardown", "teardown")
_G.assert = assertion

return t, function(chunk)
  chunk()
  registering = false
  run_block(root)
end, answer
