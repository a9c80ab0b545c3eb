-- A destination: POSTs each message as JSON, with the headers that Standard Webhooks describes (signed where there is a secret).
local plugin = ...
local http = require "neap.http"
local webhooks = require "neap.webhooks"

plugin:deliver {
  options = {
    url = { "string", pattern = "https?://.+", about = "where messages are posted" },
    secret = { "secret", optional = true, about = "signs them: whsec_ and base64, or any text" },
    timeout = { "duration", default = "10s", about = "how long an answer may take" },
  },
  handler = function(messages, to)
    local m = messages[1]
    return http.post { url = to.url, headers = webhooks.sign(to.secret, m), body = m.json, timeout = to.timeout }
  end,
}
