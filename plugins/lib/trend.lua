-- The trend of a sensor's glucose by its rate of change, for readings whose vendor says none.
local glucose = require "glucose"

local trend = {}

--- ms of readings before the one in question that count: what a sensor's own arrow looks back on.
trend.LOOKBACK = 15 * 60000
local LEAST = 5 * 60000 -- a shorter time is the sensor's noise

-- mmol/L a minute from which it is slow and fast: 1 and 2 mg/dL, where the arrows on sensors change.
local SLOW, FAST = 1 / glucose.MGDL, 2 / glucose.MGDL

--- The name of a rate in mmol/L a minute.
---@param rate number
---@return "flat"|"rising_slowly"|"falling_slowly"|"rising_fast"|"falling_fast"
function trend.name(rate)
  local size = math.abs(rate)
  if size < SLOW then return "flat" end
  return (rate > 0 and "rising_" or "falling_") .. (size < FAST and "slowly" or "fast")
end

--- A function that is given one sensor's readings in order of time, and tells each one's trend: its change since the oldest of
--- those of the past 15 minutes; nil where none of them is 5 minutes older.
---@return fun(at: integer, mmol: number): string?
function trend.follow()
  local times, values, first, last = {}, {}, 1, 0
  return function(at, mmol)
    while first <= last and at - times[first] > trend.LOOKBACK do
      times[first], values[first] = nil, nil
      first = first + 1
    end
    local name
    if first <= last and at - times[first] >= LEAST then
      name = trend.name((mmol - values[first]) / ((at - times[first]) / 60000))
    end
    last = last + 1
    times[last], values[last] = at, mmol
    return name
  end
end

return trend
