-- Neuron's data sets: named lists of records whose fields and types are declared, in the settings or by a command. A record is kept
-- as it came, below record/NAME/ in the plugin's store, in the order of arrival.
local crypto = require "neap.crypto"
local json = require "neap.json"

local datasets = {}
local NAME = "^[%w_.%-]+$"

local CHECKS = {
  number = function(v) return type(v) == "number" end,
  integer = function(v) return math.type(v) == "integer" end,
  string = function(v) return type(v) == "string" end,
  boolean = function(v) return type(v) == "boolean" end,
  datetime = function(v, read_time) return type(v) == "string" and read_time(v) ~= nil end,
}
local WORDS = { number = "a number", integer = "an integer", string = "a string", boolean = "true or false",
  datetime = "yyyy-MM-dd HH:mm:ss or RFC 3339" }

--- A declaration, checked: { field = "number", other = "string optional", id = "integer key" } -> a list by name, or nil and why.
function datasets.compile(name, fields)
  if type(name) ~= "string" or #name > 64 or not name:find(NAME) then
    return nil, ("data set %q: a name is 1 to 64 letters, digits, \"_\", \".\" or \"-\""):format(tostring(name))
  end
  local list, keyed = {}, false
  for field, words in pairs(type(fields) == "table" and fields or {}) do
    local f, at = { name = field }, ("data set %s: %s: "):format(name, tostring(field))
    for word in tostring(words):gmatch "%S+" do
      if CHECKS[word] and not f.type then f.type = word
      elseif word == "optional" then f.optional = true
      elseif word == "key" then f.key = true
      else return nil, ("%sunknown %q: number, string, integer, boolean or datetime, then optional or key"):format(at, word) end
    end
    if type(field) ~= "string" or not f.type then return nil, at .. "no type is declared" end
    if f.key and (keyed or f.optional) then return nil, at .. "one field can be the key, and it cannot be optional" end
    keyed = keyed or f.key
    list[#list + 1] = f
  end
  if #list == 0 then return nil, ("data set %s: no fields are declared"):format(name) end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- nil where the record fits, or what is wrong, and the field.
local function check(fields, known, record, read_time)
  for _, f in ipairs(fields) do
    local v = record[f.name]
    if v == nil or v == json.null then
      if not f.optional then return "missing: expected " .. WORDS[f.type], f.name end
    elseif not CHECKS[f.type](v, read_time) then
      return "expected " .. WORDS[f.type], f.name
    end
  end
  local unknown
  for name in pairs(record) do
    if not known[name] and (not unknown or name < unknown) then unknown = name end
  end
  if unknown then return "the data set declares no such field", #unknown <= 64 and unknown or "(a long name)" end
end

--- The data sets of a connection: find, declare, push and records are for calls of its plugin. Raises where a setting is wrong.
function datasets.new(plugin, settings, read_time)
  local d, configured = {}, {}
  for name, fields in pairs(settings or {}) do configured[name] = assert(datasets.compile(name, fields)) end

  --- The declared fields, or nil.
  function d.find(name)
    return configured[name] or name:find(NAME) and #name <= 64 and plugin.store:get("dataset/" .. name) or nil
  end

  function d.declare(name, fields)
    local list, why = datasets.compile(name, fields)
    if not list then return nil, why, "values", "fields" end
    if configured[name] then return nil, "it is declared in the settings", 1000, "name" end
    plugin.store:put("dataset/" .. name, list)
    return { name = name, fields = list }
  end

  -- A key's value in the one form of it: 1.0 is 1, and a moment has many texts.
  local function plain(value, type)
    if type == "datetime" then return read_time(value) end
    return math.type(value) == "float" and math.tointeger(value) or value
  end

  -- Tells whether that key is new, and takes it.
  local function claim(name, value)
    local place = ("record.key/%s/%s"):format(name, crypto.sha256(json.encode(value)))
    if plugin.store:get(place) then return false end
    plugin.store:put(place, true)
    return true
  end

  --- Keeps all records or, with why, code and field, none. received: ms.
  function d.push(name, fields, records, received)
    local known, key = {}, nil
    for _, f in ipairs(fields) do
      known[f.name] = true
      if f.key then key = f end
    end
    for i, record in ipairs(records) do
      local why, field = check(fields, known, record, read_time)
      if why then return nil, why, 400, ("[%d].%s"):format(i, field) end
    end
    local batch = crypto.hex(crypto.random(4))
    for i, record in ipairs(records) do
      if key and not claim(name, plain(record[key.name], key.type)) then
        return nil, "data already exists: this key has been pushed before", 1000, ("[%d].%s"):format(i, key.name)
      end
      plugin.store:put(("record/%s/%014d-%s-%04d"):format(name, received, batch, i), record)
    end
    return true
  end

  --- Records in the order of arrival: { records, after }; after is where the next page goes on, nil at the end.
  function d.records(name, after, limit)
    local prefix = ("record/%s/"):format(name)
    local page = plugin.store:list(prefix, { after = after and prefix .. after, limit = limit })
    local list = json.array {}
    for i, e in ipairs(page) do
      local id = e.key:sub(#prefix + 1)
      list[i] = { id = id, received = tonumber(id:sub(1, 14)), record = e.value }
    end
    return { records = list, after = #page == limit and list[#list].id or nil }
  end

  return d
end

return datasets
