-- NAME: takes the pushes of its cloud, signed, and fetches what was missed.
local plugin = ... ---@type neap.Plugin
local crypto = require "neap.crypto"
local http = require "neap.http"
local time = require "neap.time"

-- What neap.lua may set. A secret is masked wherever it is shown. Only hosts that a setting names can be asked.
local config = plugin:config {
  url = { "string", default = "https://api.NAME.example", about = "their API" },
  secret = { "secret", about = "signs their pushes, and is our key for their API" },
  zone = { "string", default = "UTC", about = "of their times" },
}

-- A handler is a transaction: what it emits and stores is on disk together, or not at all, before anybody is answered.
local function emit(r)
  local at = assert(time.parse(r.time, config.zone))
  plugin:emit { device = r.device, metric = "temp", value = r.temp, unit = "Cel", at = at, key = r.id }
end

-- Who calls? Run before anything else is looked at.
local function auth(req)
  local mac = crypto.hmac("sha256", config.secret, req.raw)
  if not crypto.equal(mac, req.headers["x-signature"] or "") then return nil, "bad signature", "signature" end
  return true
end

-- How they want a refusal to be worded.
plugin:refuse(function(problem)
  return problem.where == "auth" and 401 or problem.status, { error = problem.message }
end)

-- What does not fit `body` is refused before the handler is called.
plugin:serve {
  "POST /NAME/readings", about = "Their cloud pushes readings here.", auth = auth,
  body = {
    readings = { "array", max = 1000, items = { "object", fields = {
      id = { "string" },
      device = { "string", min = 1, max = 64 },
      temp = { "number", min = -100, max = 200 },
      time = { "string" },
    } } },
  },
  handler = function(req)
    for _, r in ipairs(req.body.readings) do emit(r) end
    return 200, { taken = #req.body.readings }
  end,
}

-- Pushing and fetching the same reading is harmless: its key says that it is one.
plugin:every("5m", "catch up", function()
  local since = plugin.store:get "since" or 0
  local res = assert(http.get {
    url = config.url .. "/readings", query = { since = since }, bearer = config.secret, expect = 200, timeout = "10s",
  })
  for _, r in ipairs(res.json.readings) do emit(r) end
  plugin.store:put("since", res.json.newest) -- commits with the readings
end)
