-- Texts with places for a message's fields: {{device}}, {{reading.value}}. What is put in is escaped as the text's type asks, so
-- that no value can become more than a value. There is nothing to run: no conditions, no loops, no code.
--   {{title}} {{reading.value}}  the body's field of that name, or else the message's own: id, device, source, destination,
--                                created, about, replayed, attempt
--   {{trend?}}                   may be missing: null in JSON, nothing elsewhere
--   {{at:iso}} {{at:unix}}       a time in ms, as RFC 3339 or in seconds
--   {{value:1}}                  a number with so many decimals
-- In JSON a place inside of a string is a part of it, and one outside is a whole value: "{{device}}", {{reading.value}}.
local json = require "neap.json"
local message = require "message"
local time = require "neap.time"

local template = {}
local OWN = { id = true, device = true, source = true, destination = true, created = true, about = true, replayed = true,
  attempt = true }
local MISSING = {}

local function text_of(value)
  if type(value) == "string" then return value end
  return json.encode(value)
end

local XML = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }
local function percent(c) return ("%%%02X"):format(c:byte()) end

--- A text as one level of an MQTT topic: what has a meaning there, and what no broker takes, is percent-encoded.
---@param text string
---@return string
function template.level(text) return (text:gsub("[%%/+#%z\1-\31\127]", percent):gsub("^%$", percent)) end

-- How a value is written, by the type of the text; MISSING is what an optional field is where it is missing.
local writers = {
  json = function(value, in_string)
    if value == MISSING then return in_string and "" or "null" end
    if not in_string then return json.encode(value) end
    return json.encode(text_of(value)):sub(2, -2)
  end,
  form = function(value) return value == MISSING and "" or (text_of(value):gsub("[^%w%-._~]", percent)) end,
  xml = function(value) return value == MISSING and "" or (text_of(value):gsub("[&<>\"']", XML)) end,
  header = function(value) return value == MISSING and "" or (text_of(value):gsub("[%z\1-\31\127]", " ")) end,
  text = function(value) return value == MISSING and "" or text_of(value) end,
  topic = function(value) return value == MISSING and "" or template.level(text_of(value)) end,
}

local function kind_of(media_type)
  local name = media_type:lower():match "^%s*([^;%s]*)"
  if name:match "/json$" or name:match "%+json$" then return "json" end
  if name == "application/x-www-form-urlencoded" then return "form" end
  if name:match "/xml$" or name:match "%+xml$" or name == "text/html" then return "xml" end
  return "text"
end

local formats = {
  iso = function(v) return message.is_time(v) and time.format(v), "a time in ms" end,
  unix = function(v) return message.is_time(v) and v // 1000, "a time in ms" end,
}

local function decimals(n)
  return function(v) return type(v) == "number" and ("%." .. n .. "f"):format(v), "a number" end
end

-- One place: { path, optional, format, in_string }, or nil and why.
local function parse_place(inside)
  local path, rest = inside:match "^%s*([%a_][%w_-]*[%w_.-]*)(.-)%s*$"
  if not path or path:find("..", 1, true) or path:sub(-1) == "." then
    return nil, ("{{%s}} is no place: write {{field}} or {{field.part}}"):format(inside)
  end
  local format, optional = rest:match "^:(%w+)(%??)$"
  if not format then
    format, optional = nil, rest:match "^(%??)$"
  end
  if not optional then
    return nil, ('{{%s}}: after the field come ":iso", ":unix" or ":2" (decimals), and "?"'):format(inside)
  end
  local fn = format and (formats[format] or format:match "^%d$" and decimals(format))
  if format and not fn then
    return nil, ('{{%s}}: there is no format "%s": iso, unix, or 0 to 9 for decimals'):format(inside, format)
  end
  local keys = {}
  for key in path:gmatch "[^.]+" do keys[#keys + 1] = key end
  return { path = path, keys = keys, optional = optional == "?", format = fn, digits = fn and not formats[format] }
end

-- Whether a string of JSON is open after these characters.
local function string_open(piece, open)
  local at = 1
  while at <= #piece do
    local c = piece:sub(at, at)
    if c == "\\" and open then at = at + 1 elseif c == '"' then open = not open end
    at = at + 1
  end
  return open
end

-- The pieces of a text: strings, and places between them.
local function parse(text)
  local pieces, at, open = {}, 1, false
  while true do
    local from, to, inside = text:find("{{(.-)}}", at)
    local piece = text:sub(at, from and from - 1)
    if piece:find("{{", 1, true) then return nil, "\"{{\" is not followed by \"}}\"" end
    open = string_open(piece, open)
    pieces[#pieces + 1] = piece
    if not from then return pieces end
    local place, why = parse_place(inside)
    if not place then return nil, why end
    place.in_string = open
    pieces[#pieces + 1] = place
    at = to + 1
  end
end

-- What stands there: a value, MISSING, or nil and why not.
local function look_up(place, m)
  local value = m.data
  for _, key in ipairs(place.keys) do
    local inner
    if type(value) == "table" then inner = value[key] end
    if inner == nil and #place.keys == 1 and OWN[key] then inner = m[key] end
    value = inner
  end
  if value == nil or value == json.null then
    if place.optional then return MISSING end
    return nil, ("the message has no field \"%s\""):format(place.path)
  end
  if not place.format then return value end
  local formatted, what = place.format(value)
  if not formatted then return nil, ("the field \"%s\" is not %s"):format(place.path, what) end
  return formatted
end

--- Reads a template. kind: "header", "topic" (of MQTT), or a media type such as "application/json".
---@param text string
---@param kind string
---@return (fun(message: table): string?, string?)? fill the text for a message; nil and why where a field is missing. Or nil
---@return string? why
function template.compile(text, kind)
  local pieces, why = parse(text)
  if not pieces then return nil, why end
  kind = (kind == "header" or kind == "topic") and kind or kind_of(kind)
  local write = writers[kind]
  if kind == "json" then
    local sample = {}
    for i, piece in ipairs(pieces) do sample[i] = type(piece) == "string" and piece or piece.in_string and "x" or "null" end
    local ok, wrong = json.decode(table.concat(sample))
    if ok == nil then return nil, "it is not JSON: " .. wrong end
  end
  return function(m)
    local parts = {}
    for i, piece in ipairs(pieces) do
      if type(piece) == "string" then
        parts[i] = piece
      else
        local value, missing = look_up(piece, m)
        if value == nil then return nil, missing end
        parts[i] = piece.digits and value ~= MISSING and value or write(value, piece.in_string)
      end
    end
    return table.concat(parts)
  end
end

return template
