-- The prelude: what a plugin is given as its handle. The chunk only registers; what it registered is read by the host
-- (declare.c) once the chunk has returned. Compiled into the program.
local core = ... -- functions in C: the ledger's verbs, and what those here need; names

-- What it calls is kept here: a chunk can put others in the place of globals and of string's functions, and what has been
-- checked here is read by C.
local error, ipairs, pairs, tostring, type, setmetatable = error, ipairs, pairs, tostring, type, setmetatable
local next, pcall = next, pcall
local byte, find, format, gsub, match = string.byte, string.find, string.format, string.gsub, string.match
local concat, insert, remove, sort = table.concat, table.insert, table.remove, table.sort
local min, tointeger = math.min, math.tointeger

local declared = {
  routes = {}, ons = {}, jobs = {}, timers = {}, derives = {}, commands = {}, accounts = {}, budgets = {}, migrations = {},
  handlers = {},
}
local loading = true

-- Points an error at the line of the plugin that called the verb.
local function misuse(...)
  error(format(...), 3)
end

local function registering(verb, level)
  if loading then return end
  error("plugin:" .. verb .. " registers: call it while the file is loaded, not from a handler", (level or 1) + 2)
end

-- A near name for a misspelt one, or "".
local function near(name, known)
  local best, distance
  for k in pairs(known) do
    if type(k) ~= "string" then goto continue end
    local row = {}
    for j = 0, #k do row[j] = j end
    for i = 1, #name do
      local diagonal = row[0]
      row[0] = i
      for j = 1, #k do
        local cost = byte(name, i) == byte(k, j) and 0 or 1
        local value = min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
        diagonal, row[j] = row[j], value
      end
    end
    local d = row[#k]
    if d <= 2 and (not distance or d < distance or d == distance and k < best) then best, distance = k, d end
    ::continue::
  end
  return best and format(", did you mean %q?", best) or ""
end

local function check_options(verb, t, known)
  for k in pairs(t) do
    if not known[k] then
      local name = tostring(k)
      error(format("plugin:%s: unknown option %q%s", verb, name, near(name, known)), 3)
    end
  end
end

local function keep_handler(verb, fn, what)
  if type(fn) ~= "function" then
    error(format("plugin:%s: %s has to be a function, got a %s", verb, what or "the handler", type(fn)), 3)
  end
  local h = declared.handlers
  h[#h + 1] = fn
  return #h
end

local function duration(verb, what, value)
  local ms = core.duration(value)
  if not ms then
    local wrong = "plugin:%s: %s has to be a duration such as \"15m\" or a number of seconds, got %s"
    error(format(wrong, verb, what, tostring(value)), 3)
  end
  return ms
end

--- @class neap.Plugin: the handle, which a plugin's file is called with: local plugin = ...
---@field name string of this connection, rule or destination
---@field store neap.Store what has to last
---@field data neap.Data what is stored of devices
---@field people neap.People what is kept of people
local plugin = { name = core.name, store = core.store, data = core.data, people = core.people }

--- @class neap.Route: what plugin:serve takes.
---@field [1] string "POST /path/{id}"
---@field about? string
---@field auth? fun(req: neap.Request): any what is req.caller then; or nil, why, kind, field
---@field query? table<string, neap.Field>
---@field path? table<string, neap.Field>
---@field body? table<string, neap.Field>|neap.Field its fields; or a single field, for a body that is no object
---@field body_max? integer|string bytes, or "16MiB"
---@field keep? boolean whether the raw request is kept; not for GET where absent
---@field handler fun(req: neap.Request): any status, body, headers; or nil, why, kind, field

--- @class neap.Command: what plugin:command takes.
---@field [1] string its name, words joined by "." or "-"
---@field about? string
---@field args? table<string, neap.Field>
---@field handler fun(args: table<string, any>): any its result; or nil, why, kind, field

--- @class neap.AccountOptions: what plugin:account takes.
---@field [1] string its name
---@field early? string|number a duration
---@field refresh fun(key: string, old: neap.Token?): any a token; or nil, why, and "denied" or "quota"

--- @class neap.Token: a flat table, as an account's refresh has returned it. It may have further fields.
---@field access string
---@field lifetime? number seconds; for ever where absent
---@field [string] any

--- @class neap.BudgetOptions: what plugin:budget takes.
---@field [1] string its name
---@field per_second? number
---@field per_minute? number
---@field per_month? integer

--- @class neap.Deliver: what plugin:deliver takes.
---@field options? table<string, neap.Field> the settings of a destination
---@field batch? integer messages given together, 1 where absent
---@field several? boolean whether the handler takes more than one message, where `batch` is 1: neap.lua may then ask for more
---@field batch_bytes? integer|string of their bodies together
---@field batch_wait? string|number a duration that one waits for others
---@field concurrency? integer deliveries at once, 8 where absent
---@field rate? string deliveries begun: "10/s", "600/m", "1000/h"
---@field retry_for? string|number a duration, 3d where absent
---@field backoff? string|number the longest duration between two tries, 5m where absent
---@field expires? string|number a message's life
---@field redact? string[] members of messages, and HTTP headers, that are never shown
---@field about? string
---@field handler fun(messages: neap.Message[], to: table<string, any>): any true, an answer, nil and why, or such a list

--- The settings that this plugin takes, checked; call it once, before anything needs them.
---@param schema table<string, neap.Field>
---@return table<string, any> settings
function plugin:config(schema)
  registering "config"
  if declared.configured then misuse "plugin:config: called twice" end
  if type(schema) ~= "table" then misuse("plugin:config: expected a table of settings, got a %s", type(schema)) end
  declared.configured = true
  local settings, unknown = core.config(schema)
  if unknown then error(format("%s: unknown setting %q%s", core.settings_at, unknown, near(unknown, schema)), 0) end
  return settings
end

--- An HTTP endpoint: { "POST /path/{id}", about =, auth =, query =, path =, body =, body_max =, keep =,
--- handler = function(req) … end }.
--- The method "*" takes every method that has no route of its own there, and a last "{rest...}" all that follows, also nothing.
--- The handler returns status, body, headers, or nil, why, kind, field: then nothing that it did counts, and plugin:refuse
--- words it. auth = function(req) … end is run before query, path and body are checked (query and params are text then, and
--- there is no body but req.raw): what it returns is the handler's req.caller, unless it is nil, why, kind, field.
---@param route neap.Route
function plugin:serve(t)
  registering "serve"
  if type(t) ~= "table" then misuse("plugin:serve: expected a table, got a %s", type(t)) end
  check_options("serve", t, { [1] = 1, about = 1, auth = 1, query = 1, path = 1, body = 1, body_max = 1, keep = 1, handler = 1 })
  local method, pattern = match(tostring(t[1]), "^([%u*]+) (/%S*)$")
  if not method then misuse("plugin:serve: expected \"METHOD /path\" first, got %q", tostring(t[1])) end
  local body, whole = t.body, false
  if type(body) == "table" and type(body[1]) == "string" then body, whole = { body = body }, true end
  local keep = t.keep
  if keep == nil then keep = method ~= "*" and method ~= "GET" and method ~= "HEAD" and method ~= "OPTIONS" end
  declared.routes[#declared.routes + 1] = {
    place = core.place(), method = method, pattern = pattern, about = t.about, query = t.query, path = t.path,
    body = body, body_whole = whole, body_max = t.body_max, keep = keep, handler = keep_handler("serve", t.handler),
    auth = t.auth ~= nil and keep_handler("serve", t.auth, "auth") or nil,
  }
end

--- How this plugin words a refusal: function(problem) return status, body, headers end.
--- problem: status, kind, where ("auth", "body", "query", "path", "handler", "store", "host"), field, reason, message, route.
--- kind is the schema's (missing, type, range, length, values, pattern, unknown), json, encoding, failed, store, or what a
--- handler gave as its own: a text or a number.
---@param fn fun(problem: neap.Problem): any status, body and headers
function plugin:refuse(fn)
  registering "refuse"
  if declared.refuse then misuse "plugin:refuse: called twice" end
  declared.refuse = keep_handler("refuse", fn)
end

--- A job: plugin:every("5m", "catch up", function() … end). Where the handler returns a duration, it runs again after that instead
--- of its period: "0s" is at once, for the next step of a back-fill.
---@param period string|number a duration
---@param name string
---@param fn fun(): any nil; or a duration, after which it runs again
function plugin:every(period, name, fn)
  registering "every"
  if type(name) ~= "string" then misuse("plugin:every: expected a period, a name and a function; the name is a %s", type(name)) end
  for _, j in ipairs(declared.jobs) do
    if j.name == name then misuse("plugin:every: two jobs are named %q", name) end
  end
  local ms = duration("every", "the period", period)
  if ms < 100 then misuse("plugin:every: the period has to be 100 ms or more, got %s", tostring(period)) end
  declared.jobs[#declared.jobs + 1] = { name = name, period = ms, handler = keep_handler("every", fn) }
end

--- What an operator can have done by `neap call CONNECTION NAME [name=value …]`: { "keys.issue", about =, args = schema,
--- handler = function(args) return result end }. The name is words joined by "." or "-". It runs as a request's handler does; its
--- result, any value that JSON can hold, is printed once all is committed. nil, why, kind, field refuses: nothing that it did
--- counts.
---@param command neap.Command
function plugin:command(t)
  registering "command"
  if type(t) ~= "table" then misuse("plugin:command: expected a table, got a %s", type(t)) end
  check_options("command", t, { [1] = 1, about = 1, args = 1, handler = 1 })
  local name, args = t[1], t.args == nil and {} or t.args
  if type(name) ~= "string" or #name > 64 or gsub("." .. name, "[.-]%w+", "") ~= "" then
    misuse("plugin:command: expected a name of words joined by \".\" or \"-\" first, got %q", tostring(name))
  end
  if t.about and type(t.about) ~= "string" then misuse("plugin:command: about is a text, got a %s", type(t.about)) end
  if type(args) ~= "table" then misuse("plugin:command: args has to be a table, got a %s", type(args)) end
  for _, c in ipairs(declared.commands) do
    if c.name == name then misuse("plugin:command: two commands are named %q", name) end
  end
  local handler = keep_handler("command", t.handler)
  declared.commands[#declared.commands + 1] = {
    place = core.place(), name = name, about = t.about, args = args, handler = handler,
  }
end

local function new_name(verb, name, list)
  if type(name) ~= "string" or not match(name, "^%w[%w._-]*$") then
    error(format("plugin:%s: expected a name of letters, digits, \".\", \"_\" and \"-\" first, got %q", verb, tostring(name)), 3)
  end
  for _, other in ipairs(list) do
    if other.name == name then error(format("plugin:%s: two are named %q", verb, name), 3) end
  end
  return name
end

--- A vendor's account: { "main", early = "2m", refresh = function(key, old) … end } -> account, with token and expired.
--- refresh is a call of its own. It returns { access = "…", lifetime = seconds, … }, a flat table that is kept, encrypted, and that
--- account:token gives; or nil, why: again, with back-off; or nil, why, "denied": not again until the settings change, neap reload,
--- or an hour has passed; or nil, why, "quota": not within a minute. old is what was kept last, or nil. A token is refreshed early,
--- while it still serves: 2m before it expires, or a tenth of its life where that is less.
---@param account neap.AccountOptions
---@return neap.Account
function plugin:account(t)
  registering "account"
  if type(t) ~= "table" then misuse("plugin:account: expected a table, got a %s", type(t)) end
  check_options("account", t, { [1] = 1, early = 1, refresh = 1 })
  local name = new_name("account", t[1], declared.accounts)
  local early = t.early ~= nil and duration("account", "early", t.early) or nil
  local handler = keep_handler("account", t.refresh, "refresh")
  declared.accounts[#declared.accounts + 1] = { name = name, early = early, handler = handler }
  return core.account(name)
end

--- How often a vendor may be asked: { "logs", per_second = 50, per_minute =, per_month = 26000 } -> budget, with take. nil: no
--- bound. All lanes share it. A second's number may come at once; a minute's is spread, so that no minute has more; the count of a
--- calendar month (UTC) is durable.
---@param budget neap.BudgetOptions
---@return neap.Budget
function plugin:budget(t)
  registering "budget"
  if type(t) ~= "table" then misuse("plugin:budget: expected a table, got a %s", type(t)) end
  check_options("budget", t, { [1] = 1, per_second = 1, per_minute = 1, per_month = 1 })
  local budget = { name = new_name("budget", t[1], declared.budgets) }
  for _, field in ipairs { "per_second", "per_minute", "per_month" } do
    local n = t[field]
    if n ~= nil and (type(n) ~= "number" or not (n > 0 and n <= 1e12)) then
      misuse("plugin:budget: %s has to be a number above 0, got %s", field, tostring(n))
    end
    if n and field == "per_month" and not tointeger(n) then
      misuse("plugin:budget: per_month has to be an integer, got %s", tostring(n))
    end
    budget[field] = n
  end
  declared.budgets[#declared.budgets + 1] = budget
  return core.budget(budget.name)
end

--- Brings what the plugin keeps from one version to the next: plugin:migrate(1, function(store) … end) makes state of
--- version 1 state of version 2. What a plugin without any keeps is at version 1. It runs once, before this file's generation is
--- in force, and commits with that; store is plugin.store. Where it raises, or returns nil and why, the generation before goes
--- on. Several are called in their order, without a gap.
---@param from integer the version that it begins with
---@param fn fun(store: neap.Store): any
function plugin:migrate(from, fn)
  registering "migrate"
  local list = declared.migrations
  local last = list[#list]
  if math.type(from) ~= "integer" or from < 1 or from > 1000000 then
    misuse("plugin:migrate: expected the version that it begins with first, an integer from 1, got %s", tostring(from))
  end
  if last and from ~= last.from + 1 then
    misuse("plugin:migrate: after the one from version %d comes the one from version %d, got %d", last.from, last.from + 1, from)
  end
  if type(fn) ~= "function" then misuse("plugin:migrate: expected a version and a function, got a %s", type(fn)) end
  local handler = keep_handler("migrate", function()
    local done, why = fn(core.store)
    if done == nil and why ~= nil then error(why, 0) end
  end)
  list[#list + 1] = { from = from, handler = handler }
end

--- A rule: plugin:on({ metric = "glucose", below = 3.9 }, function(reading) … end).
---@param filter neap.Filter
---@param fn fun(reading: neap.Reading)
function plugin:on(filter, fn)
  registering "on"
  if type(filter) ~= "table" then misuse("plugin:on: expected a filter, a table, got a %s", type(filter)) end
  declared.ons[#declared.ons + 1] = { place = core.place(), filter = filter, handler = keep_handler("on", fn) }
end

--- What happens when a timer that plugin:arm has armed is due: plugin:timer("silence", function(key) … end).
---@param name string
---@param fn fun(key: string)
function plugin:timer(name, fn)
  registering "timer"
  if type(name) ~= "string" then misuse("plugin:timer: expected a name and a function; the name is a %s", type(name)) end
  for _, t in ipairs(declared.timers) do
    if t.name == name then misuse("plugin:timer: two timers are named %q", name) end
  end
  declared.timers[#declared.timers + 1] = { name = name, handler = keep_handler("timer", fn) }
end

--- The metrics that a rule derives, a text or a list: plugin:derives { "glucose_mean" }. Its handlers and timers may then give
--- readings of them by plugin:emit, and of no others: so that rules whose readings would come back to themselves are found when
--- they are built, and are not put in force.
---@param metrics string|string[]
function plugin:derives(metrics)
  registering "derives"
  local list = metrics
  if type(metrics) == "string" then list = { metrics } end
  if type(list) ~= "table" then misuse("plugin:derives: expected a metric or a list of them, got a %s", type(metrics)) end
  for k in pairs(list) do
    local wrong = math.type(k) ~= "integer" or k < 1 or k > #list
    if wrong then misuse "plugin:derives: expected a list, got a table with names in it" end
  end
  if #list == 0 or #list > 1000 then misuse("plugin:derives: expected from 1 to 1000 metrics, got %d", #list) end
  for _, metric in ipairs(list) do
    if type(metric) ~= "string" or metric == "" or #metric > 4096 or find(metric, "[%z*]") then
      misuse("plugin:derives: expected the names of metrics, without \"*\", got %q", tostring(metric))
    end
    for _, other in ipairs(declared.derives) do
      if other.metric == metric then misuse("plugin:derives: %q stands there twice", metric) end
    end
    declared.derives[#declared.derives + 1] = { metric = metric }
  end
end

--- A destination: plugin:deliver { options = schema, batch = 1, concurrency = 8, handler = function(messages, to) … end }.
--- In a vendor's plugin, without options: its connections are destinations too, each under its own name, and `to` is its settings.
--- The handler returns true, an HTTP answer, { dead = why } where no try will help, nil and why not, or a list of such: for each
--- message true, an HTTP answer, { dead = why }, or why it has to be tried again.
--- A vendor's may read and write the store and the rest that a job may: it commits with the outcome, unless that is nil and why.
--- The terms, which neap.lua's entry may change by delivery = { … }: batch (messages at once, of any devices, each in order),
--- batch_bytes, batch_wait (how long one waits for others), concurrency (of all lanes), rate ("10/s", "600/m", "1000/h"),
--- retry_for ("3d"), backoff (from one try to the next at the most, "5m"), expires (of a message's life), redact (members of bodies
--- and HTTP headers that are never shown: { "name", "patient.phone", "x-ward" }).
--- A handler that deals with one message alone is never given more: an entry that asks for a larger batch is refused, unless
--- `batch` is more than 1 here, or `several = true` says that the handler takes more where somebody wants it.
---@param delivery neap.Deliver
function plugin:deliver(t)
  registering "deliver"
  if declared.deliver then misuse "plugin:deliver: called twice" end
  if type(t) ~= "table" then misuse("plugin:deliver: expected a table, got a %s", type(t)) end
  check_options("deliver", t, {
    options = 1, batch = 1, batch_bytes = 1, batch_wait = 1, concurrency = 1, rate = 1, retry_for = 1, backoff = 1, expires = 1,
    redact = 1, handler = 1, about = 1, several = 1,
  })
  if t.several ~= nil and type(t.several) ~= "boolean" then
    misuse("plugin:deliver: several: expected true or false, got a %s", type(t.several))
  end
  local wrong = core.terms(t)
  if wrong then misuse("plugin:deliver: %s", wrong) end
  local terms = {}
  for name, value in pairs(t) do terms[name] = value end
  declared.deliver = {
    place = core.place(), options = t.options or {}, own_options = t.options ~= nil, terms = terms, several = t.several,
    handler = keep_handler("deliver", t.handler),
  }
end

local function copy(v)
  if type(v) ~= "table" then return v end
  local c = {}
  for k, inner in next, v do c[k] = copy(inner) end
  return c
end

-- What gives copies of what is in `of`, and takes nothing.
local function read_only(of)
  return setmetatable({}, {
    __index = function(_, k) return copy(of[k]) end,
    __newindex = function() error("a table of plugin:table cannot be changed", 2) end,
    __len = function() return #of end,
    __pairs = function(view)
      return function(_, k)
        local following, v = next(of, k)
        return following, copy(v)
      end, view, nil
    end,
    __metatable = false,
  })
end

local tables = {}
--- The table of plugins/tables/NAME.csv, key -> row, where the first column is the key and each column a field; or what
--- plugins/tables/NAME.lua returns. It cannot be changed, and what it gives are copies. Keys are texts; a field that is empty
--- is nil, one that is a number without quotes a number.
---@param name string
---@return table<any, any>
function plugin:table(name)
  registering "table"
  if type(name) ~= "string" then misuse("plugin:table: expected a name, got a %s", type(name)) end
  if not tables[name] then
    local ok, t = pcall(core.table, name)
    if not ok then misuse("plugin:table: %s", tostring(t)) end
    tables[name] = read_only(t)
  end
  return tables[name]
end

-- The verbs that act are the ledger's. No function stands around them: what they raise names the line that called them.
for name, verb in pairs(core.verbs) do plugin[name] = verb end

setmetatable(plugin, {
  __metatable = false,
  __index = function(_, name)
    error(format("plugin:%s: no such verb%s", tostring(name), near(tostring(name), plugin)), 2)
  end,
  __newindex = function(_, name)
    local wrong = "plugin.%s: the handle cannot be changed; keep your own state in local variables or plugin.store"
    error(format(wrong, tostring(name)), 2)
  end,
})

-- A value as text that is the same whenever the value is.
local function canonical(v)
  if type(v) ~= "table" then return type(v) .. ":" .. tostring(v) end
  local parts = {}
  for k, inner in pairs(v) do parts[#parts + 1] = canonical(k) .. "=" .. canonical(inner) end
  sort(parts)
  return "{" .. concat(parts, ",") .. "}"
end

-- Every lane has a copy of its own, and a chunk that registers in a pairs() loop does so in another order each time. So the
-- first copy's order counts, and the others' are brought into it: keys is what the first has registered, one text for each.
local function bring_into_order(list, keys, key_of, n)
  local own = {}
  for _, item in ipairs(list) do
    local key = key_of(item)
    own[key] = own[key] or {}
    insert(own[key], item)
  end
  for i = 1, #list do
    local same = keys[n + i] and own[keys[n + i]]
    list[i] = same and remove(same, 1)
    if not list[i] then
      error(core.file .. ": registers something else each time it is loaded: that must not depend on chance or time", 0)
    end
  end
end

local key_of = {
  routes = function(r) return "route " .. r.method .. " " .. r.pattern end,
  ons = function(o) return "on " .. canonical(o.filter) end,
  jobs = function(j) return "job " .. j.name .. " " .. j.period end,
  timers = function(t) return "timer " .. t.name end,
  derives = function(d) return "derives " .. d.metric end,
  commands = function(c) return "command " .. c.name end,
  accounts = function(a) return "account " .. a.name .. " " .. tostring(a.early) end,
  budgets = function(b) return "budget " .. canonical(b) end,
  migrations = function(m) return "migrate " .. m.from end,
}
local kinds = { "routes", "ons", "jobs", "timers", "derives", "commands", "accounts", "budgets", "migrations" }

local function order()
  local keys, n = {}, 0
  for _, kind in ipairs(kinds) do
    if core.keys then bring_into_order(declared[kind], core.keys, key_of[kind], n) end
    for i, item in ipairs(declared[kind]) do keys[n + i] = key_of[kind](item) end
    n = n + #declared[kind]
  end
  declared.keys = keys
  local handlers = {}
  local function number(item, field)
    if not item or not item[field] then return end
    handlers[#handlers + 1] = declared.handlers[item[field]]
    item[field] = #handlers
  end
  for _, kind in ipairs(kinds) do
    for _, item in ipairs(declared[kind]) do
      number(item, "handler")
      number(item, "auth")
    end
  end
  number(declared.deliver, "handler")
  if declared.refuse then number(declared, "refuse") end
  declared.handlers = handlers
end

-- Called once the chunk has returned.
local function finish()
  loading = false
  local serves, rules = #declared.routes + #declared.jobs + #declared.commands, #declared.ons + #declared.timers
  local delivers = declared.deliver and 1 or 0
  if rules > 0 and serves + delivers > 0 then
    error("a plugin is either a vendor (serve, every, command), a rule (on, timer) or a destination (deliver): split the file", 0)
  end
  if serves > 0 and delivers > 0 and declared.deliver.own_options then
    error("plugin:deliver: a vendor's settings are those of plugin:config: leave options out", 0)
  end
  if serves + rules + delivers == 0 then
    error("registers nothing: no plugin:serve, every, command, on, timer or deliver was called while the file was loaded", 0)
  end
  if #declared.derives > 0 and rules == 0 then
    error("plugin:derives is for a rule (on, timer): a vendor's plugin emits readings without it", 0)
  end
  if declared.refuse and #declared.routes == 0 then error("plugin:refuse is for a plugin that serves", 0) end
  order()
  declared.kind = rules > 0 and "rule" or serves > 0 and "vendor" or "destination"
  if declared.kind ~= "vendor" and #declared.accounts + #declared.budgets > 0 then
    error("plugin:account and plugin:budget are for a vendor: a rule decides and does not wait, it sends to a destination", 0)
  end
  return declared
end

return plugin, finish
