-- What a message is about, for destinations that write into somebody's format: a reading, as the rule forward sends it, or an
-- alert, as low-glucose does; what an answer means that blames the settings; how many are written at once, and one is refused.
local json = require "neap.json"

local message = {}

--- Whether it is a time in ms that has a date in every zone: in the years 1 to 9998.
---@param at any
---@return boolean
function message.is_time(at) return math.type(at) == "integer" and at >= -62135596800000 and at < 253370764800000 end

local function is_reading(r)
  return type(r) == "table" and type(r.metric) == "string" and type(r.device) == "string" and math.type(r.at) == "integer"
    and (type(r.value) == "number" or type(r.value) == "string" or type(r.value) == "boolean")
end

-- A copy without nulls, in which what is a text where it is there is one; or nil and why not.
local TEXTS = { "unit", "vendor", "connection", "quality", "trend", "key" }
local NO_TIME = 'the field "at" is no time in ms'
local function tidy(given)
  local what = {}
  for k, v in pairs(given) do what[k] = v ~= json.null and v or nil end
  what.value = given.value
  if math.type(what.key) == "integer" then what.key = tostring(what.key) end
  for _, name in ipairs(TEXTS) do
    if what[name] ~= nil and type(what[name]) ~= "string" then return nil, ("the field %q is not a text"):format(name) end
  end
  return what
end

local function as_reading(given)
  local r, why = tidy(given)
  if not r then return nil, why end
  if not message.is_time(r.at) then return nil, NO_TIME end
  if r.interval ~= nil and type(r.interval) ~= "number" then return nil, 'the field "interval" is not a number' end
  if r.extra ~= nil and type(r.extra) ~= "table" then return nil, 'the field "extra" is not an object' end
  return "reading", r
end

local function as_alert(given, m)
  local alert, why = tidy(given)
  if not alert then return nil, why end
  if type(alert.device) ~= "string" then alert.device = m.device end
  if math.type(alert.at) ~= "integer" then alert.at = m.about or m.created end
  if not message.is_time(alert.at) then return nil, NO_TIME end
  return "alert", alert
end

--- Reads a message's body: { reading = { device, metric, value, unit, at, … } } or such a table itself is a reading; one with a
--- title, { title, device, value, at, … }, is an alert, whose device and at are the message's where it says none.
---@param m table a message, as plugin:deliver's handler gets it
---@return "reading"|"alert"|nil kind
---@return table|string what or why it is neither
function message.read(m)
  local d = m.data
  if type(d) ~= "table" then return nil, "the message's body is not an object" end
  if is_reading(d.reading) then return as_reading(d.reading) end
  if is_reading(d) then return as_reading(d) end
  if type(d.title) == "string" then return as_alert(d, m) end
  return nil, "the message is neither a reading (device, metric, value, at) nor an alert (title)"
end

--- What an answer means, or none. Who is not let in, is sent elsewhere, or asks where nothing is, has wrong settings: that message
--- is as good as any, and is tried again until somebody has mended them.
---@param res table? of neap.http
---@param why string?
---@return table|string outcome the answer, or why to try again
function message.settle(res, why)
  if not res then return why end
  local s, there = res.status, res.headers.location
  if s ~= 401 and s ~= 403 and s ~= 404 and (s < 300 or s >= 400) then return res end
  return ("answered %d, so the settings have to be mended: %s"):format(s, s < 400 and there or (res.body or ""):sub(1, 200))
end

local function is_refusal(outcome)
  local status = type(outcome) == "table" and outcome.status
  return status and status >= 400 and status < 500 and status ~= 408 and status ~= 425 and status ~= 429
end

-- Writes items first to last. What came of it where the server cannot take anything just now: then the rest need not be tried.
local function write_part(items, first, last, write, outcomes)
  local outcome, each = write(table.move(items, first, last, 1, {}))
  if is_refusal(outcome) and first < last then
    local middle = (first + last) // 2
    local busy = write_part(items, first, middle, write, outcomes)
    if not busy then return write_part(items, middle + 1, last, write, outcomes) end
    for i = middle + 1, last do outcomes[items[i].at] = busy end
    return busy
  end
  for i = first, last do outcomes[items[i].at] = each and each[i - first + 1] or outcome end
  if type(outcome) ~= "table" or outcome.status >= 300 and not is_refusal(outcome) then return outcome end
end

--- A handler's whole work: what each message is to be written as, all of it at once, and where that is refused, by halves, so that
--- only what is refused by itself is a dead letter. An item that was written twice on the way has to do no harm.
---@param messages table[]
---@param make fun(kind: "reading"|"alert", what: table, m: table): any, string? an item to write; nil and why not: a dead letter
---@param write fun(items: table[]): table|string, table? what became of all items (an answer, or why to try again), or of each
---@return table outcomes as plugin:deliver's handler returns them
function message.write(messages, make, write)
  local outcomes, items = {}, {}
  for i, m in ipairs(messages) do
    local kind, what = message.read(m)
    local item, why
    if kind then
      item, why = make(kind, what, m)
    else
      why = what
    end
    if item then
      items[#items + 1] = { at = i, item = item }
    else
      outcomes[i] = { dead = why }
    end
  end
  if #items > 0 then
    write_part(items, 1, #items, function(part)
      local list = {}
      for i, p in ipairs(part) do list[i] = p.item end
      return write(list)
    end, outcomes)
  end
  return outcomes
end

return message
