-- NAME: tells of a value that is too high, at most once in a while for one device.
local plugin = ... ---@type neap.Plugin

-- What neap.lua may set. Only `to` has to be there.
local config = plugin:config {
  to = { "destination", about = "who is told" },
  metric = { "string", default = "temp", about = "what is watched" },
  limit = { "number", default = 8, about = "above this it is told" },
  again = { "duration", default = "30m", about = "for one device, at most one message in this time" },
}

-- The filter is matched before Lua is entered: the function gets a reading that fits, and decides. It cannot wait.
plugin:on({ metric = config.metric, above = config.limit, quality = "valid" }, function(r)
  if plugin:throttle(r.device, config.again) then return end -- local variables do not last, this does
  plugin:send(config.to, { title = "Too high", device = r.device, value = r.value, unit = r.unit, at = r.at })
end)
