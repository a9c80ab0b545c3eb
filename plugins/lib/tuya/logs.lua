-- A device's log: readings (type 7) and events (the others) in one list, newest first, paged by where the last page ended.
local crypto = require "neap.crypto"
local json = require "neap.json"

local logs = {}

local TYPES = { "online", "offline", "activated", "reset", "command", "firmware", "reading", "signal", "restart", "schedule" }
local NUMBERS = {}
for n, name in ipairs(TYPES) do NUMBERS[name] = n end
logs.READING = NUMBERS.reading

--- The neutral event of a log type; "reading" for 7, nil where there is none.
function logs.event_of(event_id) return TYPES[event_id] end

--- The set of types and event names that "1,7" asks for, or nil.
function logs.types(text)
  local set, events = {}, {}
  for part in (text .. ","):gmatch "([^,]*)," do
    local n = math.tointeger(tonumber(part:match "^%s*(%d%d?)%s*$" or ""))
    if not n or not TYPES[n] then return nil end
    if not set[n] and n ~= logs.READING then events[#events + 1] = TYPES[n] end
    set[n] = true
  end
  return { readings = set[logs.READING], events = events }
end

--- A log value is a string, whatever the status has.
function logs.text(value)
  if type(value) == "string" then return value end
  if math.type(value) == "float" then return value == math.floor(value) and ("%.0f"):format(value) or ("%.14g"):format(value) end
  return tostring(value)
end

-- A place in the list: newest first, then readings before events, then the later stored.
local function row_key(id, e) return ("%s_%d_%d_%d"):format(id, math.maxinteger - e.at, e.event_id, e.seq) end

local function parse(id, key)
  local device, back, event_id, seq = key:match "^(.*)_(%d+)_(%d+)_(%d+)$"
  if device ~= id then return nil end
  back, event_id, seq = math.tointeger(tonumber(back)), math.tointeger(tonumber(event_id)), math.tointeger(tonumber(seq))
  if not back or not TYPES[event_id or 0] or not seq then return nil end
  return { at = math.maxinteger - back, stream = event_id == logs.READING and 1 or 2, seq = seq }
end

--- Where a page begins: at a free key (that one included), or behind a paid one. nil where the text is no key of this device.
function logs.from_free(id, key)
  local text = crypto.unbase64((key:gsub(" ", "+")))
  local place = text and parse(id, text)
  if place then place.included = true end
  return place
end

function logs.behind_paid(id, key, at)
  local place = parse(id, key)
  return place and place.at == at and place or nil
end

function logs.free_key(id, e) return crypto.base64(row_key(id, e)) end

-- Tells whether e comes before the place, newest first.
local function before(e, place)
  if not place then return false end
  if e.at ~= place.at then return e.at > place.at end
  if e.stream ~= place.stream then return e.stream < place.stream end
  return e.seq > place.seq or e.seq == place.seq and not place.included
end

-- Adds up to `want` of a stream's entries that do not come before the place.
local function take(list, want, place, fetch, entry)
  local cursor
  repeat
    local rows
    rows, cursor = fetch(cursor, math.max(want, 100))
    for _, r in ipairs(rows) do
      local e = entry(r)
      if e and not before(e, place) then
        list[#list + 1] = e
        want = want - 1
        if want == 0 then return end
      end
    end
  until not cursor
end

-- Tuya has no word for a reading that is not valid: it is left out.
local function reading_entry(r, q)
  if r.quality ~= "valid" then return nil end
  local value = logs.text(q.value(r.metric, r.value))
  return { at = r.at, stream = 1, seq = r.id, event_id = logs.READING, code = r.metric, value = value,
    from = r.extra and r.extra.event_from or "1" }
end

local function event_entry(r, q)
  local data = type(r.data) == "table" and r.data or {}
  if q.codes and data.code and not q.codes[data.code] then return nil end
  return { at = r.at, stream = 2, seq = r.id, event_id = NUMBERS[r.type], code = data.code,
    value = data.value ~= nil and logs.text(data.value) or nil, from = data.event_from or "1" }
end

local function filters(q, to)
  local readings = { device = q.row.device, vendor = q.row.vendor, metric = q.metrics, from = q.from, to = to, order = "desc" }
  local events = { device = q.row.device, vendor = q.row.vendor, type = q.types.events, from = q.from, to = to, order = "desc" }
  return q.types.readings and readings, #q.types.events > 0 and events
end

local function with(filter, after, limit)
  local t = { after = after, limit = math.min(limit, 10000) }
  for k, v in pairs(filter) do t[k] = v end
  return t
end

--- The first n entries from a place on.
---@param q table { row, types, from, to, codes? (a set), metrics? (a list), value = function(metric, value), place? }
function logs.page(data, q, n)
  local readings, events = filters(q, q.place and math.min(q.to, q.place.at) or q.to)
  local list = {}
  if readings then
    take(list, n, q.place, function(after, limit) return data:readings(with(readings, after, limit)) end,
      function(r) return reading_entry(r, q) end)
  end
  if events then
    take(list, n, q.place, function(after, limit) return data:events(with(events, after, limit)) end,
      function(r) return event_entry(r, q) end)
  end
  table.sort(list, function(a, b)
    if a.at ~= b.at then return a.at > b.at end
    if a.stream ~= b.stream then return a.stream < b.stream end
    return a.seq > b.seq
  end)
  for i = #list, n + 1, -1 do list[i] = nil end
  return list
end

-- Counts what the store cannot count by itself.
local function count_all(fetch, entry)
  local list = {}
  take(list, math.maxinteger, nil, fetch, entry)
  return #list
end

--- How many entries there are from q.from to q.to.
function logs.count(data, q)
  local readings, events = filters(q, q.to)
  local n = 0
  if readings and q.row.vendor == "tuya" then n = data:count("readings", readings) -- all of Tuya's are valid
  elseif readings then
    n = count_all(function(after) return data:readings(with(readings, after, 10000)) end,
      function(r) return reading_entry(r, q) end)
  end
  if events and not q.codes then return n + data:count("events", events) end
  if not events then return n end
  return n + count_all(function(after) return data:events(with(events, after, 10000)) end, function(r) return event_entry(r, q) end)
end

--- The result of a query: query_type 1 is free, 2 is paid.
function logs.result(data, id, q, size, paid)
  local list = logs.page(data, q, size + 1)
  local more = list[size + 1]
  list[size + 1] = nil
  local result = { device_id = id, has_next = more ~= nil, logs = json.array {} }
  for i, e in ipairs(list) do
    local entry = { code = e.code, value = e.value, event_time = e.at, event_from = e.from, event_id = e.event_id }
    if paid then entry.row, entry.status = row_key(id, e), "1" end
    result.logs[i] = entry
  end
  if paid then
    result.count = logs.count(data, q)
  else
    result.current_row_key = list[1] and logs.free_key(id, list[1]) or json.null
    result.next_row_key = more and logs.free_key(id, more) or json.null
  end
  return result
end

return logs
