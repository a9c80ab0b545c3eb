-- Invented data for sandboxes and examples: pure functions of a seed and a time, so that nothing has to be kept and all can be
-- made again. Plausible curves, not models of anybody's body.
local plausible = {}

local DAY, HOUR, MINUTE = 86400000, 3600000, 60000
local ZONE = 8 * HOUR -- the patients live in China, which has no daylight saving

--- 0 <= x < 1 that looks random and is the same for the same arguments (splitmix64's mixing).
local function chance(...)
  local x = 0
  for i = 1, select("#", ...) do
    x = (x ~ math.tointeger((select(i, ...)))) + 0x9e3779b97f4a7c15
    x = (x ~ (x >> 30)) * 0xbf58476d1ce4e5b9
    x = (x ~ (x >> 27)) * 0x94d049bb133111eb
    x = x ~ (x >> 31)
  end
  return (x >> 11) / 9007199254740992
end
plausible.chance = chance

local function between(low, high, ...) return low + (high - low) * chance(...) end

-- Rises to 1 at `peak` hours and falls off slowly, as what a meal or a dose of insulin does.
local function gamma(hours, peak, power)
  if hours <= 0 then return 0 end
  local x = hours / peak
  return (x * math.exp(1 - x)) ^ power
end

-- A bump of height 1 around `middle`, on the clock's circle of 24 hours.
local function bell(hour, middle, width)
  local d = (hour - middle + 12) % 24 - 12
  return math.exp(-d * d / (2 * width * width))
end

local MEALS = { 7, 11.75, 17.75 }

-- One day's meals, still felt in the next: their rise, and in brittle patients the dip where the insulin was too much.
local function meals(seed, bed, day, hour, brittle)
  local sum = 0
  for meal, usual in ipairs(MEALS) do
    local since = hour - usual - between(-0.4, 0.4, seed, bed, day, meal, 1)
    if since > 0 and since < 12 then
      local size = between(2.2, 5.2, seed, bed, 2) * between(0.6, 1.3, seed, bed, day, meal, 3)
      sum = sum + size * gamma(since, between(0.9, 1.4, seed, bed, 4), 2)
      if brittle and chance(seed, bed, day, meal, 5) < 0.4 then
        sum = sum - between(2.0, 3.6, seed, bed, day, meal, 6) * gamma(since, 3.6, 5)
      end
    end
  end
  return sum
end

-- Somebody lies on the sensor: for a while at night it reads too low.
local function compression(seed, bed, day, hour)
  if chance(seed, bed, day, 7) > 0.15 then return 0 end
  local from, length = between(0.5, 4.5, seed, bed, day, 8), between(0.3, 0.7, seed, bed, day, 9)
  local edge = math.min(hour - from, from + length - hour) / 0.15
  return edge > 0 and -between(1.8, 3.2, seed, bed, day, 10) * math.min(1, edge) or 0
end

-- The sensor's noise: each value keeps four fifths of the one before (an AR(1) process, cut off where nothing is left of it).
local function noise(seed, bed, step)
  local sum, weight = 0, 0.14
  for back = 0, 15 do
    sum = sum + weight * (chance(seed, bed, step - back, 11) + chance(seed, bed, step - back, 12) - 1) * 2.4
    weight = weight * 0.8
  end
  return sum
end

--- The glucose of a simulated patient at a moment.
--- @param seed integer
--- @param bed integer which of the seed's patients
--- @param at integer ms
--- @return number mmol/L
function plausible.patient(seed, bed, at)
  local day, hour = (at + ZONE) // DAY, (at + ZONE) % DAY / HOUR
  local brittle = bed % 4 == 3
  local base = brittle and between(5.0, 6.2, seed, bed, 13) or between(5.8, 9.4, seed, bed, 13)
  local value = base
    + between(0.3, 1.6, seed, bed, 14) * bell(hour, 6.5, 1.6)                                 -- dawn
    - (brittle and between(1.4, 2.8, seed, bed, day, 15) or 0.6) * bell(hour, 3.2, 1.7)       -- deep in the night
    + meals(seed, bed, day, hour, brittle) + meals(seed, bed, day - 1, hour + 24, brittle)
    + compression(seed, bed, day, hour)
    + noise(seed, bed, at // (3 * MINUTE))
  return math.max(1.7, math.min(27.8, value))
end

local STEP = 3 * MINUTE
-- From so many mmol/L a minute on (2 and 1 mg/dL, as the sensors' makers draw their arrows).
local FAST, SLOW = 0.111, 0.0555

--- A sensor's value at a moment, to one decimal, and where it is going.
--- @param seed integer
--- @param at integer ms
--- @return number mmol/L
--- @return string trend flat, rising_slowly, falling_slowly, rising_fast or falling_fast
function plausible.glucose(seed, at)
  local value, before = plausible.patient(seed, seed, at), plausible.patient(seed, seed, at - 5 * STEP)
  local rate = (value - before) / (5 * STEP / MINUTE)
  local trend = "flat"
  if math.abs(rate) >= SLOW then
    trend = (rate > 0 and "rising" or "falling") .. (math.abs(rate) >= FAST and "_fast" or "_slowly")
  end
  return math.floor(value * 10 + 0.5) / 10, trend
end

--- A value that goes up and down with the day, such as a room's temperature.
--- @param seed integer
--- @param at integer ms
--- @param low number
--- @param high number
--- @return number
function plausible.daily(seed, at, low, high)
  local hour = at % DAY / HOUR
  local wave = 0.5 + 0.38 * math.sin((hour - 9 + 2 * chance(seed, 1)) / 24 * 2 * math.pi)
  return low + (high - low) * math.max(0, math.min(1, wave + 0.12 * (chance(seed, at // (10 * MINUTE), 2) * 2 - 1)))
end

local FIRST = { "Ada", "Bo", "Cleo", "Dov", "Esme", "Finn", "Gwen", "Hugo", "Ines", "Jun", "Kaya", "Lev", "Mina", "Nils" }
local LAST = { "Ashgrove", "Birkmoor", "Coldwell", "Dunhaven", "Elmstead", "Fairholt", "Greywick", "Hollins" }

--- The name of somebody who does not exist.
--- @param seed integer
--- @return string
function plausible.name(seed)
  return FIRST[1 + seed % #FIRST] .. " " .. LAST[1 + math.floor(chance(seed, 21) * #LAST)]
end

return plausible
