-- Calls to Tuya's cloud: signed, with the project's token, within its budget; and what went wrong as a sentence for a person.
local http = require "neap.http"
local json = require "neap.json"
local sign = require "tuya.sign"
local time = require "neap.time"

-- What the vendor's codes ask a person to do. "quota" ones are never a wrong credential, and pass or are mended elsewhere.
local TROUBLES = {
  [1001] = { "denied", "the secret is wrong: take it from the project's overview on iot.tuya.com" },
  [1004] = { "denied", "the signature is wrong: secret is not the one of client_id, or url is of another data centre" },
  [1005] = { "denied", "client_id is unknown: it is of another project, or url is of another data centre" },
  [1010] = { "expired", "the token is no longer good" },
  [1011] = { "expired", "the token is not this project's" },
  [1012] = { "expired", "the token's state is invalid" },
  [1013] = { "clock", "this machine's clock is more than 5 minutes wrong" },
  [1106] = { "permission", "the project may not see this device or user: link it to the project on iot.tuya.com" },
  [1110] = { "quota", "too many calls at once; it goes on by itself" },
  [1111] = { "quota", "Tuya is busy; it goes on by itself" },
  [1199] = { "quota", "too many calls; it goes on by itself, and per_second may be lowered" },
  [2007] = { "quota", "url is of another data centre than the project: set url to the host of the project's region" },
  [2009] = { "unsupported", "the device does not support this" },
  [28841002] = { "quota", "the project's cloud development plan has expired, or there is none: renew it on iot.tuya.com" },
  [28841004] = { "quota", "the trial edition's calls of this month are used up: upgrade the plan, or wait for the next month" },
  [28841101] = { "quota", "the project is not subscribed to this API: subscribe it under Service API on iot.tuya.com" },
  [28841105] = { "quota", "the project is not authorised for this API: authorise it under Service API on iot.tuya.com" },
  [28841106] = { "quota", "the project is not authorised for this data centre: enable it on iot.tuya.com, or correct url" },
  [28841107] = { "quota", "the project's data centre is suspended: enable it on iot.tuya.com, or correct url" },
}

--- A sentence and a code for Tuya's answer { success = false, code, msg }.
local function trouble(answer)
  local code = math.tointeger(answer.code) or 0
  local known = TROUBLES[code]
  local msg = type(answer.msg) == "string" and answer.msg or ""
  if known then return ("tuya: %s (%d %s)"):format(known[2], code, msg), known[1] end
  return ("tuya: refused (%d %s)"):format(code, msg), code == 500 and "server" or "refused"
end

-- RFC 3986, as a query and a path take it.
local function encode(text)
  return (tostring(text):gsub("[^%w%-._~,:]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function target_of(path, query)
  local parts = {}
  for k, v in pairs(query or {}) do parts[#parts + 1] = k .. "=" .. encode(v) end
  table.sort(parts)
  return path .. (#parts > 0 and "?" .. table.concat(parts, "&") or "")
end

---@param plugin table the plugin's handle
---@param config table its settings: url, client_id, secret, per_second, per_month
return function(plugin, config)
  local cloud = {}
  local url = config.url:gsub("/+$", "")
  local budget = plugin:budget { "calls", per_second = config.per_second > 0 and config.per_second or nil,
    per_month = config.per_month > 0 and config.per_month or nil }

  -- One call. The answer's result and t, or nil, why, what kind of trouble.
  local function request(method, target, body, token)
    local ours, why = budget:take()
    if not ours then return nil, why, "quota" end
    local raw = body and json.encode(body) or ""
    local t = ("%d"):format(time.now())
    local call = { client = config.client_id, secret = config.secret, token = token, t = t }
    local headers = { client_id = config.client_id, access_token = token, t = t, sign_method = "HMAC-SHA256",
      sign = sign.new(call, sign.text(method, raw, "", sign.url(target))), ["content-type"] = body and "application/json" or nil }
    local res, failed, code = http.request { method = method, url = url .. target, headers = headers, body = body and raw,
      timeout = 30 }
    if not res then return nil, failed, code end
    if res.status == 429 then return nil, "tuya: too many calls (HTTP 429); it goes on by itself", "quota" end
    if res.status ~= 200 then return nil, ("tuya: answered HTTP %d"):format(res.status), "status" end
    local answer = json.decode(res.body)
    if type(answer) ~= "table" or type(answer.success) ~= "boolean" then return nil, "tuya: the answer is not Tuya's", "format" end
    if not answer.success then return nil, trouble(answer) end
    local result = answer.result
    if result == json.null then result = nil end
    return result == nil or result, math.tointeger(answer.t) or time.now()
  end

  local function token_of(target)
    local result, why, code = request("GET", target)
    if not result then return nil, why, code end
    if type(result) ~= "table" or type(result.access_token) ~= "string" or type(result.refresh_token) ~= "string"
      or not math.type(result.expire_time) then
      return nil, "tuya: the answer to a token call has no token", "format"
    end
    return { access = result.access_token, refresh = result.refresh_token, lifetime = result.expire_time, uid = result.uid }
  end

  -- A refresh token serves once; where it is spent or unknown, the client's own credentials get a new pair.
  local account = plugin:account { "main", early = "2m", refresh = function(_, old)
    local token, why, code
    if old and old.refresh then
      token, why, code = token_of("/v1.0/token/" .. encode(old.refresh))
      if token or code ~= "expired" and code ~= "refused" then return token, why, code end
    end
    return token_of "/v1.0/token?grant_type=1"
  end }

  --- A call with the account's token; once more where Tuya says that the token is no longer good.
  ---@return any result, integer|string t or why, string? code
  function cloud.call(method, path, query, body)
    local target = target_of(path, query)
    local result, why, code
    for _ = 1, 2 do
      local token
      token, why, code = account:token()
      if not token then return nil, why, code end
      result, why, code = request(method, target, body, token.access)
      if result ~= nil or code ~= "expired" then break end
      account:expired(token)
    end
    return result, why, code
  end

  --- The endpoint of the document (tuya.api) with these arguments, by the vendor's names.
  function cloud.run(endpoint, args)
    local method, pattern = endpoint[2]:match "^(%u+) (.*)$"
    local path = pattern:gsub("{([%w_]+)}", function(name) return encode(args[name]) end)
    local function only(schema)
      if not schema then return nil end
      local t = {}
      for k in pairs(schema) do t[k] = args[k] end
      return t
    end
    return cloud.call(method, path, only(endpoint.query), only(endpoint.body))
  end

  --- Troubles that are about the one device or request, not about the way to Tuya.
  function cloud.is_refusal(code) return code == "refused" or code == "permission" or code == "unsupported" end

  return cloud
end
