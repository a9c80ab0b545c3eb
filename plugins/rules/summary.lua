-- A number over a stretch of each device's past becomes a metric of its own: the mean of an hour, the share of a day in range.
local plugin = ... ---@type neap.Plugin

local function only(about) return { "string", optional = true, min = 1, about = about .. "; * stands for any characters" } end
local OF = { "mean", "min", "max", "sum", "count", "stdev", "slope", "percentile", "in_range" }
local config = plugin:config {
  metric = { "string", min = 1, pattern = "^[^*]+$", about = "what is summed up; numbers of quality valid" },
  of = { "string", values = OF, default = "mean", about = "slope is a minute's, in_range per cent" },
  over = { "duration", about = "how far back from each reading: 1h" },
  as = { "string", min = 1, pattern = "^[^*]+$", about = "the metric that it becomes" },
  unit = { "string", optional = true, min = 1, pattern = "^[^*]+$",
    about = "only readings in this unit; the newest's where there is none" },
  percentile = { "number", default = 50, min = 0, max = 100, about = "of percentile: 50 is the median" },
  low = { "number", optional = true, about = "of in_range: from here" },
  high = { "number", optional = true, about = "of in_range: to here" },
  gap = { "duration", optional = true, about = "of in_range: by time, where a reading stands for so long at most" },
  least = { "integer", default = 1, min = 1, about = "readings that there have to be" },
  every = { "duration", optional = true, about = "for one device, at most one in this time; one for each reading where absent" },
  digits = { "integer", optional = true, min = 0, max = 12, about = "after the point" },
  device = only "only this device's", vendor = only "only this vendor's", connection = only "only what came by this connection",
  place = only "only of devices in this place", tag = only "only of devices with this tag",
}
assert(config.of ~= "in_range" or config.low and config.high, "of = \"in_range\" needs low and high")

local function value_of(w)
  if config.of == "percentile" then return w:percentile(config.percentile), w.unit end
  if config.of == "slope" then return w.slope, w.unit and w.unit .. "/min" end
  if config.of == "count" then return w.count, nil end
  if config.of ~= "in_range" then return w[config.of], w.unit end
  local share = config.gap and w:in_range(config.low, config.high, config.gap) or w:in_range(config.low, config.high)
  return share and share * 100, "%"
end

local filter = { metric = config.metric, unit = config.unit, quality = "valid" }
for _, field in ipairs { "device", "vendor", "connection", "place", "tag" } do filter[field] = config[field] end

plugin:derives(config.as)
plugin:on(filter, function(r)
  local w = plugin:window { last = config.over, unit = config.unit }
  if w.count < config.least then return end
  local value, unit = value_of(w)
  if not value or config.every and plugin:throttle(r.vendor .. " " .. r.device, config.every) then return end
  if config.digits then value = math.floor(value * 10 ^ config.digits + 0.5) / 10 ^ config.digits end
  plugin:emit { metric = config.as, value = value, unit = unit, extra = { count = w.count } }
end)
