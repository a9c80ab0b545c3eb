-- The readings of several devices as one list in order of time, with a page of each device in memory.
local timeline = {}

local PAGES = 2000 -- readings in memory, of all devices together

local function source(data, device, filter, limit)
  local page, i, cursor, more = {}, 0, nil, true
  return function()
    i = i + 1
    if not page[i] and more then
      page, cursor = data:readings {
        device = device.device, vendor = device.vendor, metric = filter.metric, from = filter.from, to = filter.to,
        order = "asc", after = cursor, limit = limit,
      }
      i, more = 1, cursor ~= nil
    end
    return page[i]
  end
end

--- A function that gives one reading after another, oldest first, and the device that it is of; nil at the end.
---@param data table plugin.data
---@param devices table[] as plugin.data:devices gives them
---@param filter { metric: string, from?: integer, to?: integer } times in ms, both included
---@return fun(): table?, table?
function timeline.open(data, devices, filter)
  local heads, limit = {}, math.max(50, PAGES // math.max(1, #devices))
  for i, device in ipairs(devices) do
    local pull = source(data, device, filter, limit)
    heads[i] = { device = device, pull = pull, reading = pull() }
  end
  return function()
    local first
    for _, head in ipairs(heads) do
      if head.reading and (not first or head.reading.at < first.reading.at) then first = head end
    end
    if not first then return nil end
    local reading = first.reading
    first.reading = first.pull()
    return reading, first.device
  end
end

return timeline
