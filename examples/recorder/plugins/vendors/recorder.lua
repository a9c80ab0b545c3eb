-- Stands between a plugin and the API that it asks: passes on what is asked and answered, and writes it down, secrets masked.
local plugin = ... ---@type neap.Plugin
local crypto = require "neap.crypto"
local http = require "neap.http"
local time = require "neap.time"
local recording = require "recording"

local config = plugin:config {
  url = { "string", pattern = "https?://.+", about = "the API, as the plugin's setting has it" },
  keep = { "duration", default = "1h", about = "how long what was recorded is kept" },
}

-- Of one connection, not of the request.
local hop = {}
for name in ("host connection keep-alive content-length transfer-encoding te trailer upgrade expect accept-encoding date")
  :gmatch "%S+" do hop[name] = true end

local function passed_on(headers)
  local copy = {}
  for name, value in pairs(headers) do
    if not hop[name] then copy[name] = value end
  end
  return copy
end

plugin:serve {
  "* /api/{path...}", about = "All that the API has.", keep = false, body_max = "16MiB",
  handler = function(req)
    local url, body = config.url:gsub("/$", "") .. req.target:match "/api(.*)$", req.raw ~= "" and req.raw or nil
    local headers = passed_on(req.headers)
    local res, why = http.request { method = req.method, url = url, headers = headers, body = body, timeout = "30s" }
    if not res then return 502, { error = why } end
    local answer = passed_on(res.headers)
    local text = recording {
      method = req.method, target = url, headers = headers, body = body, status = res.status,
      answer = { headers = answer, body = res.body },
    }
    -- Nothing is read here: where it were, another request could have this one run, and ask, again.
    plugin.store:put(("%d %s"):format(time.now(), crypto.uuid()), text, config.keep, "sealed")
    return res.status, res.body, answer
  end,
}

plugin:serve {
  "GET /recording", about = "What was recorded, as a file.",
  handler = function()
    local texts, after = {}, nil
    repeat
      local page = plugin.store:list("", { after = after, limit = 100 })
      for _, entry in ipairs(page) do texts[#texts + 1], after = entry.value .. "\n", entry.key end
    until #page < 100
    return 200, table.concat(texts), { ["content-type"] = "text/plain; charset=utf-8" }
  end,
}

plugin:command {
  "forget", about = "forgets what was recorded",
  handler = function()
    local list = plugin.store:list("", { limit = 1000 })
    for _, entry in ipairs(list) do plugin.store:delete(entry.key) end
    return { forgotten = #list }
  end,
}
