-- NAME: posts each message as JSON.
local plugin = ... ---@type neap.Plugin
local http = require "neap.http"

plugin:deliver {
  options = {
    url = { "string", pattern = "https?://.+", about = "where messages are posted" },
    token = { "secret", optional = true, about = "sent as a bearer token" },
    timeout = { "duration", default = "10s", about = "how long an answer may take" },
  },
  batch = 1, -- up to 1000, where the handler deals with all of `messages`: those of a device together, oldest first
  handler = function(messages, to)
    local m = messages[1]
    -- m.id is the same over all attempts, so the receiver can tell what comes twice. What is answered says what becomes
    -- of the message: 2xx is delivered; 429, 5xx and no answer are tried again; anything else is a dead letter.
    return http.post {
      url = to.url, bearer = to.token, headers = { ["idempotency-key"] = m.id }, json = m.data, timeout = to.timeout,
    }
  end,
}
