-- How a partner signs its calls to Dreisam's cloud: HMAC-SHA256, with the app's secret, over method, path, the three X- headers and
-- the query parameters, sorted by name, each as name and value with nothing between, and the body.
local crypto = require "neap.crypto"

local signature = {}

--- The text that is signed.
---@param method string
---@param path string
---@param app { id: string, nonce: string, timestamp: string }
---@param query { [string]: string|integer } decoded, the first value of each name
---@param body string
function signature.text(method, path, app, query, body)
  local pairs_of = { { "X-App-Id", app.id }, { "X-Nonce", app.nonce }, { "X-Timestamp", app.timestamp } }
  for name, value in pairs(query) do pairs_of[#pairs_of + 1] = { name, tostring(value) } end
  table.sort(pairs_of, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local parts = { method, path }
  for _, p in ipairs(pairs_of) do
    parts[#parts + 1] = p[1]
    parts[#parts + 1] = p[2]
  end
  parts[#parts + 1] = body
  return table.concat(parts)
end

--- The signature of these, in lower-case hex.
function signature.of(secret, method, path, app, query, body)
  return crypto.hmac("sha256", secret, signature.text(method, path, app, query, body))
end

return signature
