-- A destination: writes each message into neap's own log.
local plugin = ... ---@type neap.Plugin
local log = require "neap.log"

plugin:deliver {
  options = {},
  batch = 100,
  handler = function(messages)
    for _, m in ipairs(messages) do
      log.info("message", { id = m.id, device = m.device, source = m.source, replayed = m.replayed, body = m.shown or m.json })
    end
    return true
  end,
}
