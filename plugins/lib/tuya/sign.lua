-- Tuya's request signatures: the one of today, over the whole request, and that of projects from before 30 June 2021.
local crypto = require "neap.crypto"

local sign = {}

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- The URL of a signature: the path, and the query sorted by key (parts of one key stay as they came), not percent-encoded.
---@param target string path and query, as they are sent
---@return string
function sign.url(target)
  local path, query = target:match "^([^?]*)%??(.*)$"
  local parts = {}
  for part in query:gmatch "[^&]+" do
    parts[#parts + 1] = { key = decode(part:match "^[^=]*"), text = decode(part), n = #parts }
  end
  table.sort(parts, function(a, b)
    if a.key ~= b.key then return a.key < b.key end
    return a.n < b.n
  end)
  for i, part in ipairs(parts) do parts[i] = part.text end
  return decode(path) .. (#parts > 0 and "?" .. table.concat(parts, "&") or "")
end

--- All that a sender may have signed for a target: a + may have been a space, and a path may stand below where neap is mounted.
---@return string[]
function sign.urls(target)
  local urls = { sign.url(target) }
  if target:find("+", 1, true) then
    local path, query = target:match "^([^?]*)(.*)$"
    urls[2] = sign.url(path .. query:gsub("%+", "%%20"))
  end
  for i = 1, #urls do
    local below = urls[i]:match "^/.-(/v%d%.%d/.*)$"
    if below then urls[#urls + 1] = below end
  end
  return urls
end

--- What stands between nonce and end of today's signed text.
---@param method string
---@param body string the bytes of the body, "" where there is none
---@param headers string "key:value\n" for each header that Signature-Headers lists
---@param url string
---@return string
function sign.text(method, body, headers, url)
  return table.concat({ method, crypto.sha256(body), headers, url }, "\n")
end

--- The headers' part, by the value of Signature-Headers ("area_id:call_id").
---@param listed string?
---@param headers table by lower-case names
---@return string
function sign.headers(listed, headers)
  local lines = {}
  for name in (listed or ""):gmatch "[^:]+" do
    lines[#lines + 1] = ("%s:%s\n"):format(name, headers[name:lower()] or "")
  end
  return table.concat(lines)
end

local function mac(secret, ...)
  return crypto.hmac("sha256", secret, table.concat { ... }):upper()
end

--- Today's signature. `call` is { client, secret, token?, t, nonce? }; token is absent on token calls.
function sign.new(call, text)
  return mac(call.secret, call.client, call.token or "", call.t, call.nonce or "", text)
end

--- The signature of old projects, which covers no request.
function sign.old(call)
  return mac(call.secret, call.client, call.token or "", call.t)
end

return sign
