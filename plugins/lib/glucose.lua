-- Glucose: its two units, sensors' arrows, and the numbers that people are judged by. The ranges are those of the international
-- consensus on time in range (Battelino 2019), the glucose management indicator is Bergenstal's (2018).
local glucose = { MGDL = 18.01559 } -- mg/dL in 1 mmol/L

--- @param value number
--- @param unit string "mmol/L" or "mg/dL"
--- @return number? mmol/L; nil for another unit
function glucose.to_mmol(value, unit)
  if unit == "mmol/L" then return value + 0.0 end
  if unit == "mg/dL" then return value / glucose.MGDL end
end

--- @param value number
--- @param unit string "mmol/L" or "mg/dL"
--- @return number? mg/dL; nil for another unit
function glucose.to_mgdl(value, unit)
  if unit == "mg/dL" then return value + 0.0 end
  if unit == "mmol/L" then return value * glucose.MGDL end
end

-- Arrows

local function both_ways(of)
  local back = {}
  for name, theirs in pairs(of) do back[theirs] = name end
  return { of = of, to = back }
end

--- Each vendor's arrows: `of` has theirs by neap's name, `to` neap's name by theirs. What is not in `to` says nothing of a trend.
--- Sinocare's, Elexir's and Tuya's readings have none.
glucose.arrows = {
  dreisam = both_ways { flat = 1, rising_slowly = 5, falling_slowly = 10, rising_fast = 15, falling_fast = 20 },
  nightscout = both_ways { flat = "Flat", rising_slowly = "FortyFiveUp", falling_slowly = "FortyFiveDown", rising_fast = "SingleUp",
    falling_fast = "SingleDown" },
}
glucose.arrows.nightscout.to.DoubleUp = "rising_fast" -- from 3 mg/dL a minute on, of which neap makes nothing further
glucose.arrows.nightscout.to.DoubleDown = "falling_fast"

-- Ranges

-- Below the first is very low, from the second to the third in range, above the fourth very high. People's bounds in mmol/L are
-- round numbers too, not what those in mg/dL come to.
local BOUNDS = { ["mg/dL"] = { 54, 70, 180, 250 }, ["mmol/L"] = { 3.0, 3.9, 10.0, 13.9 } }

--- @param unit string
--- @return number[]? the four bounds; nil for another unit
function glucose.bounds(unit) return BOUNDS[unit] end

--- In which range a value is.
--- @param value number
--- @param unit string
--- @return "very_low"|"low"|"in_range"|"high"|"very_high"|nil
function glucose.range(value, unit)
  local b = BOUNDS[unit]
  if not b then return nil end
  if value < b[2] then return value < b[1] and "very_low" or "low" end
  return value <= b[3] and "in_range" or value <= b[4] and "high" or "very_high"
end

--- The glucose management indicator: about the HbA1c, in per cent, that goes with a mean.
--- @param mean number
--- @param unit string
--- @return number?
function glucose.gmi(mean, unit)
  local mgdl = glucose.to_mgdl(mean, unit)
  return mgdl and 3.31 + 0.02392 * mgdl
end

glucose.ENOUGH = 0.7 -- of the time has to be covered
local GMI_LEAST = 14 * 86400 -- seconds that a mean has to be of

--- What a window over glucose comes to, by time: a reading stands until the next one, and for `gap` at most.
--- @param window table as plugin:window gives it
--- @param options { span: number, gap?: string } seconds that the window is over; "15m" where absent
--- @return table? summary count, unit, mean, cv (per cent), the shares very_low, low, in_range, high and very_high (from 0 to 1,
---   together 1), data (the share of the span that is covered), enough (whether that is 0.7 or more), gmi (of 14 days or more
---   with enough); nil where there is nothing of it
function glucose.summary(window, options)
  local b, gap = BOUNDS[window.unit], options.gap or "15m"
  local target = b and window:in_range(b[2], b[3], gap)
  if not target then return nil end
  local function upto(hi) return window:in_range(-math.huge, hi, gap) end
  local not_high, not_very_high, not_very_low = upto(b[3]), upto(b[4]), window:in_range(b[1], math.huge, gap)
  local data = math.min(1, window:covered(gap) / options.span)
  local s = {
    count = window.count, unit = window.unit, mean = window.mean, cv = window.stdev and 100 * window.stdev / window.mean,
    very_low = 1 - not_very_low, low = not_high - target - (1 - not_very_low), in_range = target,
    high = not_very_high - not_high, very_high = 1 - not_very_high, data = data, enough = data >= glucose.ENOUGH,
  }
  for _, name in ipairs { "very_low", "low", "high", "very_high" } do s[name] = math.max(0, s[name]) end -- of rounding
  if s.enough and options.span >= GMI_LEAST then s.gmi = glucose.gmi(window.mean, window.unit) end
  return s
end

return glucose
