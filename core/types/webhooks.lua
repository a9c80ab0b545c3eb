---@meta neap.webhooks
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.webhooks: signs and checks deliveries as Standard Webhooks 1.0.0 describes (https://www.standardwebhooks.com),
---with the symmetric signature v1: HMAC-SHA256 over id, timestamp and body with a full stop between.
local webhooks = {}

---The headers of a delivery. The id stays the same over retries, the timestamp is the attempt's.
---@param secret string? "whsec_" and 24 to 64 bytes in base64, or the key's bytes themselves; without one there is no signature
---@param message { id: string|integer, json: string } the body is json, byte for byte; an id has visible ASCII without "."
---@param now_ms? integer ms, the clock where absent
---@return { [string]: string }
function webhooks.sign(secret, message, now_ms) end

---Tells whether a delivery is the sender's, untouched and fresh. A delivery seen before passes: keep its webhook-id to
---know it again.
---@param secret string as for sign
---@param headers { [string]: string } by lower-case names
---@param body string as it came
---@param options? { tolerance?: number, now?: integer } seconds, 300 where absent; ms, the clock where absent
---@return true? # or nil, why, code: "missing", "format", "time", "signature"
---@return string? why
---@return string? code
function webhooks.verify(secret, headers, body, options) end

return webhooks
