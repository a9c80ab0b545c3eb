-- A destination: writes each message into neap's own log, no faster than limits.log lets lines through.
local plugin = ... ---@type neap.Plugin
local log = require "neap.log"

plugin:deliver {
  options = {},
  rate = "50/s",
  handler = function(messages)
    local m = messages[1]
    local written = log.info("message", { id = m.id, device = m.device, source = m.source, replayed = m.replayed,
      body = m.shown or m.json })
    if written then return true end
    return nil, "the line was left out, by limits.log or the log's level: it is written once that lets it through"
  end,
}
