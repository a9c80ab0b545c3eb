---@meta _
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---@class neap.Store
local store = {}

---plugin.store:get(key) -> value, or nil
---@param key string
---@return any # value nil where there is none
function store:get(key) end

---Any value that JSON can hold; nil deletes. It commits with the call. "sealed" keeps it encrypted, and its texts out of
---the log of the call: for what has to be had back, such as a token. get opens it.
---@param key string
---@param value any
---@param lifetime? string|number a duration
---@param sealed? "sealed"
function store:put(key, value, lifetime, sealed) end

---It commits with the call.
---@param key string
function store:delete(key) end

---plugin.store:list(prefix [, { after = key, limit = 100 }]) -> list of { key =, value = } in the order of the keys'
---bytes, with what this call has written. limit is 1 to 1000; the next page goes on `after` the last key. Where another
---call changes one of them before this one commits, this one is run again; a key that is new meanwhile is not noticed.
---@param prefix string
---@param page? { after?: string, limit?: integer }
---@return { key: string, value: any }[]
function store:list(prefix, page) end

---@class neap.Data
local data = {}

---plugin.data:devices{ device, vendor, connection, name, name_has, owner, place, model, status, except_status, after =
---id, limit = 100 } -> devices, by id. A device has id, vendor, connection, device, first_seen, last_seen, and where
---they are known serial, model, name, owner, place, tags (its vendor's), status, online, extra. `device`, `status` and
---`except_status` are a string or a list; name_has is a part of the name; the next page goes on `after` the last id;
---limit is 1 to 1000.
---@param filter neap.DeviceFilter
---@return neap.Device[]
function data:devices(filter) end

---plugin.data:device(device [, vendor]) -> the device, or nil.
---@param device string
---@param vendor? string
---@return neap.Device? device
function data:device(device, vendor) end

---plugin.data:readings{ device, vendor, metric, from = ms, to = ms, order = "desc", after = cursor, limit = 100 } ->
---readings, cursor. `device` has to be there; it and metric are a string or a list. In the order of `at`, newest first
---unless order is "asc"; from and to are included; limit is 1 to 10000. The cursor, a string for the next page's
---`after`, is nil where there are no more; one that is none gives nil, why, "cursor". A page costs what it gives,
---wherever it stands, and pages stay what they are while readings come in.
---@param filter neap.ReadingFilter
---@return neap.Reading[]? page
---@return string? cursor
---@return string? code
function data:readings(filter) end

---plugin.data:latest(device [, vendor]) -> each metric's newest reading (by `at`), newest first.
---@param device string
---@param vendor? string
---@return neap.Reading[]
function data:latest(device, vendor) end

---plugin.data:events{ device, vendor, type, from = ms, to = ms, order = "desc", after = cursor, limit = 100 } -> events,
---cursor. As readings are asked for, but `device` may be left out. An event has id, device, vendor, connection, type,
---at, received, and where they are known key and data.
---@param filter neap.EventFilter
---@return neap.Event[]? page
---@return string? cursor
---@return string? code
function data:events(filter) end

---plugin.data:count(what, filter) -> how many; what is "devices", "readings" or "events", and the filter is theirs;
---after, order and limit do not matter. Readings are counted at some 20 million a second, on the lane: not for every
---request where a device has that many.
---@param what "devices"|"readings"|"events"
---@param filter table
---@return integer
function data:count(what, filter) end

---plugin.data:connections() -> array of names: this connection, and those that it shows. Where that is "*": all
---connections that neap.lua has.
---@return string[]
function data:connections() end

---@class neap.People
local people = {}

---plugin.people:keep(key, details) -> reference: keeps a person's details, encrypted, under your own key for that person
---("patient:4711"). A flat table; what was kept before and is not in it stays, json.null removes. The reference is
---always the same for this connection and key: use it as a device's owner. It commits with the call.
---@param key string
---@param details table<string, any>
---@return string reference
function people:keep(key, details) end

---plugin.people:reference(key [, connection]) -> the reference that keep gives, without keeping anything; of another
---connection's person where that connection is one that this one shows.
---@param key string
---@param connection? string
---@return string reference
function people:reference(key, connection) end

---plugin.people:details(reference) -> table, or nil, why. Only where the configuration says `people = true` of this
---connection, and of people that it or a connection that it shows has kept; each reading is logged, without the details.
---@param reference string
---@return table<string, string|number|boolean>? details
---@return string? why
function people:details(reference) end

---plugin.people:forget(reference) -> true, or nil, why: removes what this connection has kept of a person. It commits
---with the call.
---@param reference string
---@return true? done
---@return string? why
function people:forget(reference) end

---@class neap.Account
local account = {}

---account:token([key]) -> token, the table that refresh has returned last; or nil, why, code. It waits while a refresh
---is under way, of which there is one at a time for all lanes. code: "denied" where the vendor has refused the account,
---"quota" where it is asked too often, "again" where it could not be reached, until the back-off is over, "timeout"
---where the call has no time left.
---@param key? string
---@return neap.Token? token
---@return string? why
---@return string? code
function account:token(key) end

---The vendor says that this token, the table that account:token gave, is no good. The next account:token refreshes;
---once, also where many calls say the same of the same token.
---@param token neap.Token
function account:expired(token) end

---@class neap.Budget
local budget = {}

---budget:take([n]) -> true once n more (1 where absent) may be asked of the vendor: it waits for its turn, calls of all
---lanes in their order. Or nil, why, code: "quota" where the month's are used up, or its turn would come after the
---call's time; "store" where the month's count cannot be stored; "stopped" where neap is being stopped.
---@param n? integer
---@return true? may
---@return string? why
---@return string? code
function budget:take(n) end

---What plugin:window gives. Of no readings there are only count and sum.
---@class neap.Window
---@field count integer
---@field sum number
---@field mean? number
---@field min? number
---@field max? number
---@field stdev? number that of a sample; of two readings or more
---@field first? number the oldest's value
---@field last? number the newest's value
---@field from? integer ms, when the oldest was measured
---@field to? integer ms, when the newest was measured
---@field rate? number change for each minute, from the first to the last; of two moments or more
---@field slope? number change for each minute, by the line of least squares
---@field unit? string of all of them
local window = {}

---window:percentile(p) -> the value below which p of 100 readings are, between two of them on the line through both; nil
---where there are none.
---@param p number from 0 to 100: 50 is the median
---@return number?
function window:percentile(p) end

---window:in_range(lo, hi [, gap]) -> the share, from 0 to 1, of readings with lo <= value <= hi. With `gap`, a duration,
---the share of the time: a reading stands until the next one, the last until the rule's present, and none for longer
---than that. nil where there are no readings, or no time.
---@param lo number
---@param hi number
---@param gap? string|number
---@return number?
function window:in_range(lo, hi, gap) end

---window:covered(gap) -> seconds for which there is a reading: one stands until the next, the last until the rule's
---present, none for longer than gap.
---@param gap string|number a duration
---@return number
function window:covered(gap) end

---The handle, which a plugin's file is called with: local plugin = ...
---@class neap.Plugin
---@field name string of this connection, rule or destination
---@field store neap.Store what has to last
---@field data neap.Data what is stored of devices
---@field people neap.People what is kept of people
local plugin = {}

---The settings that this plugin takes, checked; call it once, before anything needs them.
---@param schema table<string, neap.Field>
---@return table<string, any> settings
function plugin:config(schema) end

---An HTTP endpoint: { "POST /path/{id}", about =, auth =, query =, path =, body =, body_max =, keep =, handler =
---function(req) … end }. The method "*" takes every method that has no route of its own there, and a last "{rest...}"
---all that follows, also nothing. The handler returns status, body, headers, or nil, why, kind, field: then nothing that
---it did counts, and plugin:refuse words it. auth = function(req) … end is run before query, path and body are checked
---(query and params are text then, and there is no body but req.raw): what it returns is the handler's req.caller,
---unless it is nil, why, kind, field.
---@param route neap.Route
function plugin:serve(route) end

---How this plugin words a refusal: function(problem) return status, body, headers end. problem: status, kind, where
---("auth", "body", "query", "path", "handler", "store", "host"), field, reason, message, route. kind is the schema's
---(missing, type, range, length, values, pattern, unknown), json, encoding, failed, store, or what a handler gave as its
---own: a text or a number.
---@param fn fun(problem: neap.Problem): any status, body and headers
function plugin:refuse(fn) end

---A job: plugin:every("5m", "catch up", function() … end). Where the handler returns a duration, it runs again after
---that instead of its period: "0s" is at once, for the next step of a back-fill.
---@param period string|number a duration
---@param name string
---@param fn fun(): any nil; or a duration, after which it runs again
function plugin:every(period, name, fn) end

---What an operator can have done by `neap call CONNECTION NAME [name=value …]`: { "keys.issue", about =, args =
---schema, handler = function(args) return result end }. The name is words joined by "." or "-". It runs as a request's
---handler does; its result, any value that JSON can hold, is printed once all is committed. nil, why, kind, field
---refuses: nothing that it did counts.
---@param command neap.Command
function plugin:command(command) end

---A vendor's account: { "main", early = "2m", refresh = function(key, old) … end } -> account, with token and expired.
---refresh is a call of its own. It returns { access = "…", lifetime = seconds, … }, a flat table that is kept,
---encrypted, and that account:token gives; or nil, why: again, with back-off; or nil, why, "denied": not again until the
---settings change, neap reload, or an hour has passed; or nil, why, "quota": not within a minute. old is what was kept
---last, or nil. A token is refreshed early, while it still serves: 2m before it expires, or a tenth of its life where
---that is less.
---@param account neap.AccountOptions
---@return neap.Account
function plugin:account(account) end

---How often a vendor may be asked: { "logs", per_second = 50, per_minute =, per_month = 26000 } -> budget, with take.
---nil: no bound. All lanes share it. A second's number may come at once; a minute's is spread, so that no minute has
---more; the count of a calendar month (UTC) is durable.
---@param budget neap.BudgetOptions
---@return neap.Budget
function plugin:budget(budget) end

---Brings what the plugin keeps from one version to the next: plugin:migrate(1, function(store) … end) makes state of
---version 1 state of version 2. What a plugin without any keeps is at version 1. It runs once, before this file's
---generation is in force, and commits with that; store is plugin.store. Where it raises, or returns nil and why, the
---generation before goes on. Several are called in their order, without a gap.
---@param from integer the version that it begins with
---@param fn fun(store: neap.Store): any
function plugin:migrate(from, fn) end

---A rule: plugin:on({ metric = "glucose", below = 3.9 }, function(reading) … end).
---@param filter neap.Filter
---@param fn fun(reading: neap.Reading)
function plugin:on(filter, fn) end

---What happens when a timer that plugin:arm has armed is due: plugin:timer("silence", function(key) … end).
---@param name string
---@param fn fun(key: string)
function plugin:timer(name, fn) end

---The metrics that a rule derives, a text or a list: plugin:derives { "glucose_mean" }. Its handlers and timers may then
---give readings of them by plugin:emit, and of no others: so that rules whose readings would come back to themselves are
---found when they are built, and are not put in force.
---@param metrics string|string[]
function plugin:derives(metrics) end

---A destination: plugin:deliver { options = schema, batch = 1, concurrency = 8, handler = function(messages, to) … end
---}. In a vendor's plugin, without options: its connections are destinations too, each under its own name, and `to` is
---its settings. The handler returns true, an HTTP answer, { dead = why } where no try will help, nil and why not, or a
---list of such: for each message true, an HTTP answer, { dead = why }, or why it has to be tried again. A vendor's may
---read and write the store and the rest that a job may: it commits with the outcome, unless that is nil and why. The
---terms, which neap.lua's entry may change by delivery = { … }: batch (messages at once, of any devices, each in
---order), batch_bytes, batch_wait (how long one waits for others), concurrency (of all lanes), rate ("10/s", "600/m",
---"1000/h"), retry_for ("3d"), backoff (from one try to the next at the most, "5m"), expires (of a message's life),
---redact (members of bodies and HTTP headers that are never shown: { "name", "patient.phone", "x-ward" }). A handler
---that deals with one message alone is never given more: an entry that asks for a larger batch is refused, unless
---`batch` is more than 1 here, or `several = true` says that the handler takes more where somebody wants it.
---@param delivery neap.Deliver
function plugin:deliver(delivery) end

---The table of plugins/tables/NAME.csv, key -> row, where the first column is the key and each column a field; or what
---plugins/tables/NAME.lua returns. It cannot be changed, and what it gives are copies. Keys are texts; a field that is
---empty is nil, one that is a number without quotes a number.
---@param name string
---@return table<any, any>
function plugin:table(name) end

---A reading. device, metric and value (a number, a string or a boolean) have to be there. unit is UCUM's; at is when it
---was measured, now where absent; key is the vendor's own id of it; serial counts up by one, and a hole becomes an event
---"gap"; trend is flat, rising_slowly, falling_slowly, rising_fast or falling_fast; quality is valid (the default),
---warmup or invalid; extra is kept as JSON. In a rule: a derived reading, of a metric that plugin:derives names, by the
---connection of the rule's own name. device, vendor, at and quality are its reading's where absent; a timer's device is
---its key, and has to be known. Its key is made of what led to it. It meets rules once it is committed.
---@param reading neap.Emitted
function plugin:emit(reading) end

---What is known of a device. Absent fields keep what is stored, "" clears a text, {} the tags; news older than what is
---stored change nothing. status is unbound, bound, warming, active or ended. With `vendor` it is about a device of
---another vendor's connection, which this one shows (see plugin.data); the device stays that connection's. It raises
---where there is none. Where two connections of a vendor tell of one device, its details are those of the one that told
---last, and nobody else's.
---@param news neap.DeviceNews
function plugin:device(news) end

---Something that happened to a device: online, offline, activated, reset, command, firmware, restart, alarm,
---session_start, session_end, binding, gap. The same device, type, at and key again is the same event. With `vendor` it
---is of a device of another vendor's connection, which this one shows, and counts as that connection's event.
---@param event neap.EventNews
function plugin:event(event) end

---A table; its `device`, or else the reading's, is whose order it keeps. Returns the message's id. One that has not
---arrived when it expires is a dead letter, and is not sent. One that is to be acknowledged is listed by `neap ack list`
---until somebody has.
---@param destination string
---@param message table
---@param options? { expires?: string|number, acknowledge?: boolean }
---@return string id
function plugin:send(destination, message, options) end

---The timer is due once `after` has passed; false disarms it. Armed again, it is moved. Where the key is a device, it
---fires only after all of that device's readings that were stored by then have met the rule.
---@param name string of a plugin:timer in this file
---@param key string
---@param after string|number|false a duration, or false
function plugin:arm(name, key, after) end

---A line of the log; the same as log.info.
---@param text string
---@param fields? table<string, any>
function plugin:log(text, fields) end

---plugin:throttle(key, time) -> true where this key has passed within that time; else false, and it counts as passed
---now.
---@param key string
---@param time string|number a duration
---@return boolean
function plugin:throttle(key, time) end

---plugin:debounce(key, time) -> true where this key was asked for within that time, whatever came of it; else false: it
---has been quiet. Each call begins the time anew, so of a row of readings with no such pause in it only the first gets
---false. By the readings' `received`.
---@param key string
---@param time string|number a duration
---@return boolean
function plugin:debounce(key, time) end

---plugin:history(device, metric, { last = "1h" | from = ms, to = ms, limit = 100 }) -> readings, newest first. In a
---rule: as they were when its reading had just been stored, or its timer was due, so that the same readings give the
---same messages. In a vendor's call: of what plugin.data shows it.
---@param device string
---@param metric string
---@param span neap.Span
---@return neap.Reading[]
function plugin:history(device, metric, span) end

---plugin:window{ last = "3h", count = 36, device, metric, vendor, unit, quality } -> numbers over readings: mean, min,
---max, count, sum, rate … The present is the reading's `at` (a timer's: its due): what was measured by then counts, of
---what was stored by then, the reading included. So a late reading has the window of its own time, and those of earlier
---readings are not made again. Numbers alone count, in one unit, of quality "valid" unless it says otherwise. It raises
---where there are more than 100,000 readings to look at.
---@param options neap.WindowOptions
---@return neap.Window
function plugin:window(options) end

---plugin:acknowledge(id [, { by = "anna", note = "on my way" }]) -> true: the message of that id is acknowledged, which
---commits with the call. False and whose it was where it had been already: the first one counts, and nothing has
---changed. nil, why and "unknown" where there is no such message, or it is no longer kept. by is the connection's name
---where it is absent, and has at most 200 bytes; note has at most 2000.
---@param id string of the message, which its destination was given
---@param how? { by?: string, note?: string }
---@return boolean? first
---@return neap.Acknowledgement|string|nil
---@return "unknown"?
function plugin:acknowledge(id, how) end

---plugin:acknowledged(id) -> the message's acknowledgement, or nil where it has none. What a rule was told holds when
---its call commits: where one comes between, the handler runs again. At the gate and in a dry run nothing is
---acknowledged; a replay that sends knows what is on record.
---@param id string of a message, as plugin:send has returned it
---@return neap.Acknowledgement?
function plugin:acknowledged(id) end
