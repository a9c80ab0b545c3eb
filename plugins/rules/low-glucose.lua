-- Low glucose goes to a destination, at most once in a while for one device; so does silence. What nobody acknowledges goes to
-- another one.
local plugin = ... ---@type neap.Plugin
local deadlines = require "deadlines"
local escalate = require "escalate"
local glucose = require "glucose"
local time = require "neap.time"

local config = plugin:config(escalate.settings {
  to = { "destination", about = "who is told" },
  limit = { "number", default = 3.9, unit = "mmol/L", min = 1, max = 10, about = "below this it is low" },
  again = { "duration", default = "15m", about = "for one device, at most one message in this time, and one of what came late" },
  silence = { "duration", optional = true, min = "1ms", about = "also tell when a device has sent nothing for so long" },
})
local LATE = 10 * 60000 -- ms
local tell_low, tell_silent = escalate.new(plugin, config, "low"), escalate.new(plugin, config, "silent")

-- A reading keeps its vendor's unit.
local function watch(unit, limit)
  plugin:on({ metric = "glucose", unit = unit, below = limit, quality = "valid" }, function(r)
    -- Vendors may have devices of one name. What was measured long ago, and comes now, is not to hold back what is so now.
    local late = r.received - r.at > LATE and " late" or ""
    if plugin:throttle(r.vendor .. " " .. r.device .. late, config.again) then return end
    tell_low(r, config.to, {
      title = "Low glucose", device = r.device, value = r.value, unit = r.unit, limit = limit, at = r.at, reading = r.id,
    })
  end)
end
watch("mmol/L", config.limit)
watch("mg/dL", config.limit * glucose.MGDL)

if config.silence then
  local expect = deadlines.new(plugin, "silence", function(device, vendor)
    tell_silent({ device = device, vendor = vendor }, config.to, { title = "No data", device = device })
  end)
  plugin:on({ metric = "glucose" }, function(r) expect(r, time.now() + config.silence * 1000) end)
end
