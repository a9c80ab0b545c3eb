-- What a spec is given: describe, it and the rest, assert, and the module neap.test. Compiled into the program.
local core = ... -- functions in C

local json = require "neap.json"
local time = require "neap.time"

local assertion, text_of, scalar = core.part "assert" ()

-- The tree of tests

local root = { children = {}, before = {}, after = {}, setup = {}, teardown = {} }
local block, registering = root, true

local function register(verb, level)
  if not registering then error(verb .. " belongs into a describe or the file itself, not into a test", (level or 1) + 2) end
end

-- describe(name, fn): a group of tests. Groups may hold groups.
-- @param name string
-- @param fn fun()
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

-- it(name, fn): a test, in a world of its own.
-- @param name string
-- @param fn fun()
local function it(name, fn)
  register "it"
  if type(fn) ~= "function" then error("it: expected a name and a function", 2) end
  block.children[#block.children + 1] = { name = tostring(name), test = fn, outer = block }
end

-- before_each(fn), after_each, setup, teardown: runs before and after each test of a group; before and after all of
-- them.
-- @param fn fun()
local function hook(verb, list)
  return function(fn)
    register(verb)
    if type(fn) ~= "function" then error(verb .. ": expected a function", 2) end
    block[list][#block[list] + 1] = fn
  end
end

-- neap.test

local t, world = {}, { zone = "UTC", looked_at_held = false }
local answer_http, begin_http = core.part "http" (t, text_of)

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

-- @class neap.test.Given: a reading that a test gives. It may have what neap.Emitted has.
-- @field device string
-- @field metric string
-- @field value number|string|boolean
-- @field unit? string
-- @field at? integer|string ms, or a text; now where absent
-- @field key? string|integer
-- @field serial? integer
-- @field interval? string|number
-- @field trend? "flat"|"rising_slowly"|"falling_slowly"|"rising_fast"|"falling_fast"
-- @field quality? "valid"|"warmup"|"invalid"
-- @field extra? table
-- @field vendor? string
-- @field connection? string

-- @class neap.test.Message: a message that a rule has sent, and what has become of it.
-- @field id string
-- @field destination string
-- @field device string
-- @field source string the rule
-- @field created integer ms
-- @field reading? integer the id of the reading that led to it
-- @field json string
-- @field data any what the rule sent
-- @field state "waiting"|"delivered"|"dead"
-- @field attempts integer
-- @field status? integer of the last answer
-- @field error? string
-- @field due? integer ms, the next attempt
-- @field acknowledge? boolean it asks for an acknowledgement
-- @field acknowledged? neap.Acknowledgement

-- t.plugin(name [, settings]): loads the plugin's file and puts it in force, with settings as neap.lua gives them: `name`,
-- `mount`, `limits`, `people` and `shows` too. Several may be loaded: a vendor, a rule, a destination. A destination that a
-- setting names and that is not loaded takes messages and does nothing with them. Raises where the plugin does not load or a
-- setting is wrong.
-- @param name string
-- @param settings? table<string, any>
-- @return neap.test.Plugin
function t.plugin(name, settings)
  if type(name) ~= "string" then error("t.plugin: expected the plugin's name, got a " .. type(name), 2) end
  local instance, kind = call(core.plugin, name, settings or {})
  return setmetatable({ name = instance, kind = kind, plugin = name }, plugin_methods)
end

-- t.kept(name, version, { key = value, … }): what an earlier version of the plugin has left in plugin.store, before t.plugin loads
-- the one that has a plugin:migrate from that version: t.plugin runs it, and raises where it fails.
function t.kept(name, version, values)
  if type(values) ~= "table" then error("t.kept: expected a name, a version and a table, got a " .. type(values), 2) end
  call(function()
    local texts = {}
    for k, v in pairs(values) do
      if type(k) ~= "string" then error("t.kept: a key is a text, got a " .. type(k), 0) end
      texts[k] = assert(json.encode(v))
    end
    core.kept(name, version, texts)
  end)
end

-- t.at(time): sets the clock: ms, or a text as time.parse reads it. Once a plugin is loaded it goes forward, and what is due
-- until then happens. Each test begins at 2026-01-01T00:00:00Z.
-- @param time integer|string
function t.at(at) call(function() core.at(moment(at)) end) end

-- t.advance(duration): moves the clock; timers, jobs, retries and what else is due happen in order, each at its moment.
-- @param duration string|number
function t.advance(duration) call(core.advance, duration) end

-- t.now(): the clock, in ms. It stands still but for t.at, t.advance, and a request, command or job that waits for time.
-- @return integer ms
function t.now() return core.now() end

-- t.zone(name): the zone of texts without an offset that t.at and `at` of a reading are given. UTC at first.
-- @param name string
function t.zone(name)
  call(core.zone, name)
  world.zone = name
end

-- t.random(seed): crypto.random, crypto.uuid, ids and jitter follow from it. Before the first plugin; without it from a seed
-- that is always the same.
-- @param seed integer
function t.random(seed) call(core.seed, seed) end

-- p:reading{ device, metric, value, unit, at, … }: a reading comes in, as if a vendor had emitted it. `at` may be a text; now
-- where it is absent. `vendor` and `connection` are "test", or p's where p is a vendor. All that it leads to at this moment has
-- happened when this returns. Returns its id, nil for a duplicate.
-- @param reading neap.test.Given
-- @return integer? id
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

-- p:message(data [, as]): a message comes to a destination, as if a rule had sent it; its `device` is whose order it keeps. The
-- delivery has been tried when this returns: t.sent() tells what became of it. Returns the message's id. One that a replay has
-- made has the number of that, and is about a moment long ago: p:message(data, { replayed = 3, about = "2026-03-01T03:00:00Z" }).
-- @param data table
-- @param as? { replayed: integer, about: integer|string }
-- @return string id
function plugin:message(data, as)
  if type(data) ~= "table" then error("p:message: expected a table, got a " .. type(data), 2) end
  as = as or {}
  return call(function()
    return core.message(self.name, tostring(data.device or ""), json.encode(data), as.replayed, as.about and moment(as.about))
  end)
end

-- t.acknowledge(id [, { by, note }]) -> whether it was the first; nil where there is no such message: somebody acknowledges a
-- message, as by `neap ack`. `by` is "somebody" where it is absent.
-- @param id string
-- @param how? { by?: string, note?: string }
-- @return boolean? first
function t.acknowledge(id, how)
  how = how or {}
  return call(core.acknowledge, id, how.by or "somebody", how.note)
end

-- p:device{ device, place, owner, tags, name, … }: what is known of a device changes, as if a vendor had called plugin:device.
-- `vendor` and `connection` are as for p:reading.
-- @param fields neap.DeviceNews
function plugin:device(fields)
  if type(fields) ~= "table" then error("p:device: expected a table, got a " .. type(fields), 2) end
  return call(function()
    local copy = {}
    for k, v in pairs(fields) do copy[k] = v end
    if copy.at ~= nil then copy.at = moment(copy.at) end
    local vendor, connection = copy.vendor, copy.connection
    copy.vendor, copy.connection = nil, nil
    local own = self.kind == "vendor"
    return core.device(copy, vendor or (own and self.plugin or "test"), connection or (own and self.name or "test"))
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
-- @param method string
-- @param target string
-- @param body? string|table
-- @param headers? table<string, any>
-- @return integer status, any body, table<string, string> headers, boolean whole
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
-- @param command string
-- @param args? table<string, any>
-- @return any result, string? why, string|number|nil kind
function plugin:call(name, args)
  return call(function()
    local answer = json.decode(core.call(self.name, name, args and next(args) ~= nil and json.encode(args) or "{}"))
    if answer.error then return nil, answer.error, answer.kind end
    if answer.result == json.null then return true end
    return answer.result
  end)
end

-- p:job(name) -> true; or nil and why it failed: has the job run now, whenever it is due.
-- @param name string
-- @return true? done, string? why
function plugin:job(name) return call(core.job, self.name, name) end

-- p:stored(key) -> what plugin.store has under the key now.
-- @param key string
-- @return any
function plugin:stored(key) return call(core.stored, self.name, key) end

-- t.stored(plugin, key) -> the same, of a plugin or its name.
-- @param plugin neap.test.Plugin|string
-- @param key string
-- @return any
function t.stored(p, key) return call(core.stored, type(p) == "table" and p.name or p, key) end

-- t.sent([destination]) -> messages, oldest first: { id, destination, device, source, created, reading, json, data, state,
-- attempts, status, error, due, acknowledge, acknowledged }; `data` is what the rule sent, `state` is waiting, delivered or dead.
-- @param destination? string
-- @return neap.test.Message[]
function t.sent(destination)
  local list = {}
  for _, m in ipairs(call(core.sent)) do
    if not destination or m.destination == destination then list[#list + 1] = m end
  end
  return list
end

-- t.emitted() -> readings that plugins emitted, and rules derived, duplicates left out, as a rule sees them.
-- @return neap.Reading[]
function t.emitted() return call(core.emitted) end

-- t.events() -> what the store knows of events.
-- @return neap.Event[]
function t.events() return call(core.events) end

-- t.devices() -> what the store knows of devices.
-- @return neap.Device[]
function t.devices() return call(core.devices) end

-- t.armed() -> timers, soonest first: { plugin, name, key, due }.
-- @return { plugin: string, name: string, key: string, due: integer }[]
function t.armed() return call(core.armed) end

-- t.held() -> what rules failed on: { plugin, error, reading, name, key, at }. A test in which a rule failed fails, unless it
-- asks.
-- @return { plugin: string, error: string, at: integer, reading?: integer, name?: string, key?: string }[]
function t.held()
  world.looked_at_held = true
  return call(core.held)
end

-- t.logged([level]) -> lines of the log: { level, text, plugin, … }.
-- @param level? "debug"|"info"|"warn"|"error"
-- @return table<string, string>[]
function t.logged(level)
  local list = {}
  for _, line in ipairs(call(core.logged)) do
    if not level or line.level == level then list[#list + 1] = line end
  end
  return list
end

core.part "recording" (t, plugin, core, call, text_of)

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
  world = { zone = "UTC", looked_at_held = false }
  begin_http()
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
end, answer_http
