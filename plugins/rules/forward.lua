-- Readings go on to a destination as they are: another vendor's cloud, a connection that delivers, or a webhook.
local plugin = ... ---@type neap.Plugin

local function only(about) return { "string", optional = true, min = 1, about = about .. "; * stands for any characters" } end
local config = plugin:config {
  to = { "destination", about = "who is sent the readings" },
  device = only "only this device's", metric = only "only this metric", vendor = only "only this vendor's",
  connection = only "only what came by this connection", unit = only "only in this unit", quality = only "only of this quality",
  place = only "only of devices in this place", tag = only "only of devices with this tag",
  derived = { "boolean", optional = true, about = "only what rules derived, or only what they did not; both where absent" },
}

local filter = {}
for _, field in ipairs { "device", "metric", "vendor", "connection", "unit", "quality", "place", "tag", "derived" } do
  filter[field] = config[field]
end

plugin:on(filter, function(r)
  if r.connection == config.to then return end -- it has them: they came from there
  plugin:send(config.to, { reading = {
    device = r.device, metric = r.metric, value = r.value, unit = r.unit, at = r.at, vendor = r.vendor, connection = r.connection,
    key = r.key, serial = r.serial, interval = r.interval, trend = r.trend, quality = r.quality, extra = r.extra,
  } })
end)
