-- A point's past, for Neuron's history query.
local json = require "neap.json"
local shape = require "neuron.shape"

local history = {}
local SLACK = 10000 -- ms: a client that asks for the whole week has read its clock before we do
local PAGE = 1000

--- From and to, ms; or nil, why and which field. The past week alone can be asked for.
function history.range(s, startTime, endTime, now)
  local function read(text, field)
    local at, why = s.read_time(text)
    if not at then return nil, why, field end
    if at < now - shape.WEEK - SLACK then return nil, "older than a week: only the past week can be queried", field end
    return at
  end
  local from, to = now - shape.WEEK, now
  if startTime then
    local at, why, field = read(startTime, "startTime")
    if not at then return nil, why, field end
    from = at
  end
  if endTime then
    local at, why, field = read(endTime, "endTime")
    if not at then return nil, why, field end
    if at < from and startTime then return nil, "before startTime", "endTime" end
    to = at % 1000 == 0 and at + 999 or at -- that whole second: answers may show no more of a time
  end
  return from, to
end

--- All devices of that name (and model, where given); one that bears none goes by its id.
function history.named(plugin, equipment, model)
  local rows, after = {}, nil
  repeat
    local page = plugin.data:devices { name = equipment, model = model, after = after, limit = PAGE }
    for _, row in ipairs(page) do rows[#rows + 1], after = row, row.id end
  until #page < PAGE
  for _, row in ipairs(plugin.data:devices { device = equipment, model = model }) do
    if not row.name then rows[#rows + 1] = row end
  end
  return rows
end

--- A function that gives the next points of the devices, oldest first, until there are none: those with a number, or those with a
--- text. range: { metric, from, to }.
function history.reader(plugin, s, rows, range, numbers)
  local n, cursor = 1, nil
  return function()
    while rows[n] do
      local row, points = rows[n], {}
      local list, next_cursor = plugin.data:readings { device = row.device, vendor = row.vendor, metric = range.metric,
        from = range.from, to = range.to, order = "asc", after = cursor, limit = PAGE }
      cursor = next_cursor
      if not cursor then n = n + 1 end
      for _, r in ipairs(list) do
        local value, reading = shape.values(r)
        local wanted = reading
        if numbers then wanted = value end
        if wanted ~= nil then points[#points + 1] = shape.point(s, row, r) end
      end
      if #points > 0 then return points end
    end
  end
end

local function bare(points) return json.encode(points):sub(2, -2) end

--- The answer's text piece by piece, for what is too long to be made at once: two parts that are there already, then what more()
--- gives.
function history.stream(first, second, more)
  local pending = { '{"code":200,"message":"success","isSuccess":true,"data":[' .. bare(first), "," .. bare(second) }
  return function()
    if pending[1] then return table.remove(pending, 1) end
    local points = more and more()
    if points then return "," .. bare(points) end
    if not more then return nil end
    more = nil
    return "]}"
  end
end

return history
