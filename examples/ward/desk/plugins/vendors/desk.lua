-- The receiver of the ward's webhook: prints each alert, once; one that is delivered again is known by its webhook-id.
local plugin = ...
local time = require "neap.time"

local config = plugin:config {
  zone = { "string", default = "Asia/Shanghai", about = "the zone of the times that are printed" },
  remember = { "duration", default = "7d", about = "how long an alert is known again" },
}
assert(time.zone(config.zone))

local optional = { "any", optional = true, null = true }

plugin:serve {
  "POST /alerts", about = "The ward's webhook delivers one alert.",
  body = { title = { "string" }, device = { "string" }, value = optional, unit = optional, limit = optional,
    at = { "integer", optional = true } },
  handler = function(req)
    local id, alert = req.headers["webhook-id"], req.body
    if not id then return 400, { error = "the header webhook-id is missing" } end
    local times = (plugin.store:get(id) or 0) + 1
    plugin.store:put(id, times, config.remember)
    if times > 1 then
      print(("delivered again, no new alert: %s %s (%d times so far)"):format(id, alert.device, times))
      return 204
    end
    local value = ""
    if type(alert.value) == "number" then
      value = ("  %4.1f %s, limit %s"):format(alert.value, alert.unit or "", alert.limit or "?")
    end
    local at = alert.at and time.format(alert.at, config.zone, "  MM-dd HH:mm") or ""
    print(("ALERT  %s  %s%s%s"):format(alert.title, alert.device, value, at))
    return 204
  end,
}
