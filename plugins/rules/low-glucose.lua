-- Low glucose goes to a destination, at most once in a while for one device; so does silence. What nobody acknowledges goes to
-- another one.
local plugin = ... ---@type neap.Plugin
local escalate = require "escalate"

local config = plugin:config(escalate.settings {
  to = { "destination", about = "who is told" },
  limit = { "number", default = 3.9, unit = "mmol/L", min = 1, max = 10, about = "below this it is low" },
  again = { "duration", default = "15m", about = "for one device, at most one message in this time" },
  silence = { "duration", optional = true, about = "also tell when a device has sent nothing for so long" },
})
local tell_low, tell_silent = escalate.new(plugin, config, "low"), escalate.new(plugin, config, "silent")

-- A reading keeps its vendor's unit.
local function watch(unit, limit)
  plugin:on({ metric = "glucose", unit = unit, below = limit, quality = "valid" }, function(r)
    if plugin:throttle(r.vendor .. " " .. r.device, config.again) then return end -- vendors may have devices of one name
    tell_low(r.device, config.to, {
      title = "Low glucose", device = r.device, value = r.value, unit = r.unit, limit = limit, at = r.at, reading = r.id,
    })
  end)
end
watch("mmol/L", config.limit)
watch("mg/dL", config.limit * 18.01559)

if config.silence then
  plugin:on({ metric = "glucose" }, function(r) plugin:arm("silence", r.device, config.silence) end)
  plugin:timer("silence", function(device)
    tell_silent(device, config.to, { title = "No data", device = device })
  end)
end
