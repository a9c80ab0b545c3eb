---@meta neap.json
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.json: lua-cjson without its losses. A strict pass (json_sieve.c) stands before cjson's decoder, and a walk after
---it; encoding is in json_encode.c. cjson holds a malloc of its own while it decodes and would leak it if Lua raised
---meanwhile, so nothing in it may raise: the text is known to be JSON, and the memory it takes at most is asked for
---before.
local json = {}

---JSON's null, which is true in Lua's eyes
---@type userdata
json.null = nil

---Reads a JSON text. Integers of 64 bits stay integers (larger ones become floats), a number with a point or an exponent
---is a float, null is json.null, arrays are marked. Where a name occurs twice the last one counts.
---@param text string
---@return any|nil value
---@return string? why
---@return "json"? code
function json.decode(text) end

---Writes a value as JSON. Raises where it cannot be one: functions, names beside a sequence, holes, a table behind
---__pairs, NaN and infinity, strings that are not UTF-8, loops, more than 16 MiB. An empty table is {}, unless marked
---with json.array.
---@param value any
---@return string text
function json.encode(value) end

---As encode, for values whose strings come from elsewhere: does not raise.
---@param value any
---@return string|nil text
---@return string? why
---@return "json"? code
function json.try_encode(value) end

---Marks a table, or a new one, as an array, which is [] when it is empty.
---@param t? table
---@return table # t the same
function json.array(t) end

---Tells whether v is an array: marked, or a sequence that is not empty.
---@param v any
---@return boolean
function json.is_array(v) end

---A value that encode writes as the given JSON text, to the byte.
---@param text string
---@return table|nil value
---@return string? why
---@return "json"? code
function json.raw(text) end

return json
