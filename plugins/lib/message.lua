-- What a message is about, for destinations that write into somebody's format: a reading, as the rule forward sends it, or an
-- alert, as low-glucose does; what an answer means that blames the settings; how many are written at once, and one is refused.
local message = {}

local function is_reading(r)
  return type(r) == "table" and type(r.metric) == "string" and type(r.device) == "string" and math.type(r.at) == "integer"
    and (type(r.value) == "number" or type(r.value) == "string" or type(r.value) == "boolean")
end

--- Reads a message's body: { reading = { device, metric, value, unit, at, … } } or such a table itself is a reading; one with a
--- title, { title, device, value, at, … }, is an alert, whose device and at are the message's where it says none.
---@param m table a message, as plugin:deliver's handler gets it
---@return "reading"|"alert"|nil kind
---@return table|string what or why it is neither
function message.read(m)
  local d = m.data
  if type(d) ~= "table" then return nil, "the message's body is not an object" end
  if is_reading(d.reading) then return "reading", d.reading end
  if is_reading(d) then return "reading", d end
  if type(d.title) == "string" then
    local alert = {}
    for k, v in pairs(d) do alert[k] = v end
    if type(alert.device) ~= "string" then alert.device = m.device end
    if math.type(alert.at) ~= "integer" then alert.at = m.created end
    return "alert", alert
  end
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

local function write_part(items, first, last, write, outcomes)
  local part = table.move(items, first, last, 1, {})
  local outcome, each = write(part)
  local refused = type(outcome) == "table" and outcome.status and outcome.status >= 400 and outcome.status < 500
    and outcome.status ~= 408 and outcome.status ~= 425 and outcome.status ~= 429
  if refused and first < last then
    local middle = (first + last) // 2
    write_part(items, first, middle, write, outcomes)
    return write_part(items, middle + 1, last, write, outcomes)
  end
  for i = first, last do outcomes[items[i].at] = each and each[i - first + 1] or outcome end
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
