-- Each midnight, how a sensor's last days have been: time in range by the international consensus, mean, variability, and whether
-- there was data enough to say so. What comes after midnight of the time before is not in it.
local plugin = ... ---@type neap.Plugin
local deadlines = require "deadlines"
local glucose = require "glucose"
local time = require "neap.time"

local config = plugin:config {
  to = { "destination", about = "who is told" },
  days = { "integer", default = 1, min = 1, max = 90, about = "that a summary is over; GMI is told from 14 on" },
  zone = { "string", default = "UTC", about = "whose midnight: Asia/Shanghai" },
  gap = { "duration", default = "15m", about = "the longest time that a reading stands for" },
}
assert(time.zone(config.zone))

local HOUR = 3600000
local function midnight(at) -- before it
  local p = time.parts(at, config.zone)
  return assert(time.from_parts({ year = p.year, month = p.month, day = p.day }, config.zone))
end

local function rounded(n, digits) return n and math.floor(n * 10 ^ digits + 0.5) / 10 ^ digits end

local tell_at = deadlines.new(plugin, "midnight", function(device, vendor)
  local now = time.now()
  -- what was under way at midnight, and committed after it, sets that deadline again
  if plugin:throttle(("%s %s %d"):format(vendor or "", device, now), "1d") then return end
  local span = (now - midnight(now - (config.days * 24 - 12) * HOUR)) / 1000 -- a day can have 23 hours, or 25
  local w = plugin:window { device = device, vendor = vendor, metric = "glucose", last = span + 0.001 } -- with that midnight itself
  local s = glucose.summary(w, { span = span, gap = config.gap })
  if w.count > 0 and not glucose.bounds(w.unit) then
    plugin:log("no time in range is told: the unit is neither mmol/L nor mg/dL", { device = device, unit = w.unit or "" })
  end
  if not s then return end -- or all of it was measured before
  plugin:send(config.to, {
    title = s.enough and "Time in range" or "Time in range: too little data", device = device, days = config.days,
    upto = now, count = s.count, data = rounded(s.data, 3), mean = rounded(s.mean, 2), unit = s.unit, cv = rounded(s.cv, 1),
    gmi = rounded(s.gmi, 2),
    very_low = rounded(s.very_low, 4), low = rounded(s.low, 4), in_range = rounded(s.in_range, 4), high = rounded(s.high, 4),
    very_high = rounded(s.very_high, 4),
  })
end)

-- Each midnight is a deadline of its own: a reading that comes after one before it has been told of does not put it off.
plugin:on({ metric = "glucose", quality = "valid" }, function(r)
  local due = midnight(midnight(time.now()) + 36 * HOUR)
  tell_at(r, due, due)
end)
