---@meta neap.test
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---In a spec that `neap test` runs: `local t = require "neap.test"`; `p` is what t.plugin returned.
local t = {}

---Assert in a spec. "is", "are", "has", "was" and "have" may stand before a name, "not" and "no" turn it round:
---assert.is_not_nil(v), assert.are.same(a, b), assert.has_no.errors(fn).
---@class neap.Assert
---@field equal fun(expected: any, got: any): any
---@field same fun(expected: any, got: any): any with all that is in them
---@field truthy fun(v: any, why: any?): any
---@field falsy fun(v: any, why: any?): any
---@field is_true fun(v: any): any
---@field is_false fun(v: any): any
---@field is_nil fun(v: any): any
---@field is_not_nil fun(v: any): any
---@field matches fun(pattern: string, text: any): any a pattern of Lua's
---@field near fun(expected: number, got: any, tolerance: number?): any
---@field has_error fun(fn: function, expected: any?): any its words, or a part of them
---@field [string] any

---An HTTP request that a plugin made.
---@class neap.test.Asked
---@field method string
---@field url string
---@field plain string the URL without its query
---@field query table<string, string>
---@field headers table<string, string> names in lower case
---@field body string
---@field json any the body, decoded; nil where it is not JSON

---A request of a recording.
---@class neap.test.Recorded
---@field method string
---@field target string a path, of a request that came in; a URL, of one that a plugin made
---@field headers table<string, string> names in lower case
---@field body string
---@field answer? { status: integer, headers: table<string, string>, body: string }

---A reading that a test gives. It may have what neap.Emitted has.
---@class neap.test.Given
---@field device string
---@field metric string
---@field value number|string|boolean
---@field unit? string
---@field at? integer|string ms, or a text; now where absent
---@field key? string|integer
---@field serial? integer
---@field interval? string|number
---@field trend? "flat"|"rising_slowly"|"falling_slowly"|"rising_fast"|"falling_fast"
---@field quality? "valid"|"warmup"|"invalid"
---@field extra? table
---@field vendor? string
---@field connection? string

---A message that a rule has sent, and what has become of it.
---@class neap.test.Message
---@field id string
---@field destination string
---@field device string
---@field source string the rule
---@field created integer ms
---@field reading? integer the id of the reading that led to it
---@field json string
---@field data any what the rule sent
---@field state "waiting"|"delivered"|"dead"
---@field attempts integer
---@field status? integer of the last answer
---@field error? string
---@field due? integer ms, the next attempt
---@field acknowledge? boolean it asks for an acknowledgement
---@field acknowledged? neap.Acknowledgement

---A group of tests. Groups may hold groups.
---@param name string
---@param fn fun()
function describe(name, fn) end

---A test, in a world of its own.
---@param name string
---@param fn fun()
function it(name, fn) end

---Runs before and after each test of a group; before and after all of them.
---@param fn fun()
function before_each(fn) end

---Runs before and after each test of a group; before and after all of them.
---@param fn fun()
function after_each(fn) end

---Runs before and after each test of a group; before and after all of them.
---@param fn fun()
function setup(fn) end

---Runs before and after each test of a group; before and after all of them.
---@param fn fun()
function teardown(fn) end

---@type neap.Assert
assert = {}

---@class neap.test.Plugin
---@field name string
---@field kind "vendor"|"rule"|"destination"
---@field plugin string
local p = {}

---The requests that came in are made again, in order, and each has to be answered with the status that it had. change is
---given each before it goes, such as to sign it anew, for secrets are masked in a recording. Returns the answers.
---@param file string
---@param change? fun(req: neap.test.Recorded)
---@return { status: integer, body: any, headers: table<string, string> }[]
function p:replay(file, change) end

---A reading comes in, as if a vendor had emitted it. `at` may be a text; now where it is absent. `vendor` and
---`connection` are "test", or p's where p is a vendor. All that it leads to at this moment has happened when this
---returns. Returns its id, nil for a duplicate.
---@param reading neap.test.Given
---@return integer? id
function p:reading(reading) end

---A message comes to a destination, as if a rule had sent it; its `device` is whose order it keeps. The delivery has
---been tried when this returns: t.sent() tells what became of it. Returns the message's id. One that a replay has made
---has the number of that, and is about a moment long ago: p:message(data, { replayed = 3, about = "2026-03-01T03:00:00Z"
---}).
---@param data table
---@param as? { replayed: integer, about: integer|string }
---@return string id
function p:message(data, as) end

---What is known of a device changes, as if a vendor had called plugin:device. `vendor` and `connection` are as for
---p:reading.
---@param fields neap.DeviceNews
function p:device(fields) end

---p:request(method, target [, body [, headers]]) -> status, body, headers: over the wire, through routes, auth, schemas
---and commit, as a client's. A table as body is sent as JSON; the answer's is decoded where it is JSON. Where the
---handler waits for time, the clock moves. A streamed answer that was cut has `false` as a fourth value.
---@param method string
---@param target string
---@param body? string|table
---@param headers? table<string, any>
---@return integer status
---@return any body
---@return table<string, string> headers
---@return boolean whole
function p:request(method, target, body, headers) end

---p:call(command [, args]) -> its result; or nil, why, kind, as `neap call` has it carried out.
---@param command string
---@param args? table<string, any>
---@return any result
---@return string? why
---@return string|number|nil kind
function p:call(command, args) end

---p:job(name) -> true; or nil and why it failed: has the job run now, whenever it is due.
---@param name string
---@return true? done
---@return string? why
function p:job(name) end

---p:stored(key) -> what plugin.store has under the key now.
---@param key string
---@return any
function p:stored(key) end

---t.asked([what]) -> HTTP requests that plugins made: { method, url, query, headers, body, json }; `what` as t.http has
---it.
---@param what? string
---@return neap.test.Asked[]
function t.asked(what) end

---Answers the requests that plugins make of it, from now on. what is "POST https://desk.example/alerts", * any
---characters; the query need not be in it. neap.file asks "APPEND file:///folder/name" with the lines as body: 200 is
---done, any other status a failure. neap.smtp asks "MAIL smtp://host:port" with the envelope as headers `from` and `to`
---and the mail as body: the status is the server's last answer, 250 for a mail that it takes, the body its words;
---headers say { ["a@ward.example"] = "550 no such user" } of recipients, and { stage = "auth" }, "mail" or "data" where
---that answer is not to the text. neap.mqtt asks "PUBLISH mqtt://broker/topic", with qos, retain and properties as
---headers and the payload as body: 200 acknowledges it, 128 to 162 refuse it for that reason. answer is a function that
---is given { method, url, query, headers, body, json } and returns status, body, headers, or these themselves; a table
---as body is JSON. The newest that fits counts. A request that nothing answers fails the test.
---@param what string
---@param answer integer|fun(req: neap.test.Asked): any a status; or a function that returns status, body, headers
---@param body? string|table
---@param headers? table<string, any>
function t.http(what, answer, body, headers) end

---Has requests fail, as many times or from now on: timeout, cut, connect, resolve or tls.
---@param what string
---@param fault "timeout"|"cut"|"connect"|"resolve"|"tls"
---@param times? integer
function t.fail(what, fault, times) end

---The requests that plugins make are answered as the recording says, from now on. The file stands beside the spec. A
---request counts where method and URL are the same, with its query; *** in the recording stands for anything. Where it
---was recorded more than once it is answered in that order, and the last answer goes on. Returns what is in the
---recording.
---@param file string
---@return neap.test.Recorded[]
function t.replay(file) end

---Loads the plugin's file and puts it in force, with settings as neap.lua gives them: `name`, `mount`, `limits`,
---`people` and `shows` too. Several may be loaded: a vendor, a rule, a destination. A destination that a setting names
---and that is not loaded takes messages and does nothing with them. Raises where the plugin does not load or a setting
---is wrong.
---@param name string
---@param settings? table<string, any>
---@return neap.test.Plugin
function t.plugin(name, settings) end

---What an earlier version of the plugin has left in plugin.store, before t.plugin loads the one that has a
---plugin:migrate from that version: t.plugin runs it, and raises where it fails.
---@param name any
---@param version any
---@param options any
function t.kept(name, version, options) end

---Sets the clock: ms, or a text as time.parse reads it. Once a plugin is loaded it goes forward, and what is due until
---then happens. Each test begins at 2026-01-01T00:00:00Z.
---@param time integer|string
function t.at(time) end

---Moves the clock; timers, jobs, retries and what else is due happen in order, each at its moment.
---@param duration string|number
function t.advance(duration) end

---The clock, in ms. It stands still but for t.at, t.advance, and a request, command or job that waits for time.
---@return integer ms
function t.now() end

---The zone of texts without an offset that t.at and `at` of a reading are given. UTC at first.
---@param name string
function t.zone(name) end

---crypto.random, crypto.uuid, ids and jitter follow from it. Before the first plugin; without it from a seed that is
---always the same.
---@param seed integer
function t.random(seed) end

---t.acknowledge(id [, { by, note }]) -> whether it was the first; nil where there is no such message: somebody
---acknowledges a message, as by `neap ack`. `by` is "somebody" where it is absent.
---@param id string
---@param how? { by?: string, note?: string }
---@return boolean? first
function t.acknowledge(id, how) end

---t.stored(plugin, key) -> the same, of a plugin or its name.
---@param plugin neap.test.Plugin|string
---@param key string
---@return any
function t.stored(plugin, key) end

---t.sent([destination]) -> messages, oldest first: { id, destination, device, source, created, reading, json, data,
---state, attempts, status, error, due, acknowledge, acknowledged }; `data` is what the rule sent, `state` is waiting,
---delivered or dead.
---@param destination? string
---@return neap.test.Message[]
function t.sent(destination) end

---t.emitted() -> readings that plugins emitted, and rules derived, duplicates left out, as a rule sees them.
---@return neap.Reading[]
function t.emitted() end

---t.events() -> what the store knows of events.
---@return neap.Event[]
function t.events() end

---t.devices() -> what the store knows of devices.
---@return neap.Device[]
function t.devices() end

---t.armed() -> timers, soonest first: { plugin, name, key, due }.
---@return { plugin: string, name: string, key: string, due: integer }[]
function t.armed() end

---t.held() -> what rules failed on: { plugin, error, reading, name, key, at }. A test in which a rule failed fails,
---unless it asks.
---@return { plugin: string, error: string, at: integer, reading?: integer, name?: string, key?: string }[]
function t.held() end

---t.logged([level]) -> lines of the log: { level, text, plugin, … }.
---@param level? "debug"|"info"|"warn"|"error"
---@return table<string, string>[]
function t.logged(level) end

return t
