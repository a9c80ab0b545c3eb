-- Who may call the serve face: clients, their signatures and their tokens. Secrets are sealed; of tokens the hashes are kept, and
-- each client's own pair sealed, for Tuya gives the same token again while it is valid.
local crypto = require "neap.crypto"
local sign = require "tuya.sign"
local time = require "neap.time"
local tokens = require "tokens"

local LIFETIME, REFRESH = 7200, 30 * 86400 -- seconds; the document names none for refresh tokens
local STALE = 5 * 60 * 1000
local NONCE = "10m"

local CLIENT = "client/"
local ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

local function letters(n)
  local bytes = crypto.random(n)
  return (bytes:gsub(".", function(c)
    local i = c:byte() % #ALPHABET + 1
    return ALPHABET:sub(i, i)
  end))
end

---@param plugin table the plugin's handle
---@param legacy boolean whether the old signature is good
return function(plugin, legacy)
  local keys = {}
  local store = plugin.store
  local access, refresh = tokens.new(plugin, "access", LIFETIME), tokens.new(plugin, "refresh", REFRESH)

  local function client_of(req)
    local id = req.headers.client_id
    local client = id and #id <= 64 and id:find "^%w+$" and store:get(CLIENT .. id)
    if not client then return nil, "clientId invalid", 1005 end
    client.id = id
    return client
  end

  local function fresh(t)
    local ms = t and #t <= 15 and t:find "^%d+$" and math.tointeger(tonumber(t))
    return ms and math.abs(time.now() - ms) <= STALE
  end

  local function signature_fits(req, call)
    local given = req.headers.sign or ""
    local headers = sign.headers(req.headers["signature-headers"], req.headers)
    for _, url in ipairs(sign.urls(req.target)) do
      if crypto.equal(given, sign.new(call, sign.text(req.method, req.raw, headers, url))) then return true end
    end
    return legacy and crypto.equal(given, sign.old(call))
  end

  -- The client whose signature the request carries, or nil, why, code.
  local function signer(req, client, token)
    local h = req.headers
    if not fresh(h.t) then return nil, "request time is invalid: t", 1013 end
    if h.sign_method and h.sign_method ~= "HMAC-SHA256" then return nil, "sign invalid: sign_method", 1004 end
    local nonce = h.nonce ~= "" and h.nonce or nil
    local call = { client = client.id, secret = client.secret, token = token, t = h.t, nonce = nonce }
    if not signature_fits(req, call) then return nil, "sign invalid", 1004 end
    if nonce then
      local key = ("nonce/%s/%s"):format(client.id, crypto.sha256(nonce))
      if store:get(key) then return nil, "sign invalid: nonce has been used", 1004 end
      store:put(key, true, NONCE)
    end
    return { id = client.id, uid = client.uid, restricted = client.restricted }
  end

  --- auth of token calls: a client by its signature.
  function keys.client(req)
    local client, why, code = client_of(req)
    if not client then return nil, why, code end
    return signer(req, client)
  end

  --- auth of all other calls: a client by its signature and its token.
  function keys.caller(req)
    local client, why, code = client_of(req)
    if not client then return nil, why, code end
    local token = req.headers.access_token
    if not token or token == "" then return nil, "access_token is null", 1002 end
    local caller
    caller, why, code = signer(req, client, token)
    if not caller then return nil, why, code end
    local found = access:find(token)
    if not found then return nil, "token invalid", 1010 end
    if found.subject ~= caller.id then return nil, "token invalid", 1011 end
    return caller
  end

  local function pair_key(id) return "pair/" .. id end

  local function issue(client)
    access:revoke_subject(client.id)
    refresh:revoke_subject(client.id)
    local pair = { access = access:issue(client.id), refresh = refresh:issue(client.id) }
    store:put(pair_key(client.id), pair, LIFETIME, "sealed")
    return { access_token = pair.access, refresh_token = pair.refresh, expire_time = LIFETIME, uid = client.uid }
  end

  --- GET /v1.0/token?grant_type=1
  function keys.token(client, grant)
    if grant ~= "1" then return nil, "grant type invalid: grant_type has to be 1", 1003 end
    local pair = store:get(pair_key(client.id))
    local found = pair and access:find(pair.access)
    if not found or found.left < 1 then return issue(client) end
    return { access_token = pair.access, refresh_token = pair.refresh, expire_time = found.left, uid = client.uid }
  end

  --- GET /v1.0/token/{refresh_token}: it serves once.
  function keys.refreshed(client, text)
    local found = refresh:find(text)
    if not found then return nil, "token invalid", 1010 end
    if found.subject ~= client.id then return nil, "token invalid", 1011 end
    return issue(client)
  end

  --- A new client. With a uid it sees that user's devices alone.
  function keys.issue(uid)
    local id = letters(20)
    local client = { secret = crypto.hex(crypto.random(16)), uid = uid or "ay" .. letters(18), restricted = uid ~= nil,
      created = time.now() }
    store:put(CLIENT .. id, client, nil, "sealed")
    return { client_id = id, secret = client.secret, uid = client.uid }
  end

  function keys.list()
    local list, after = {}, nil
    repeat
      local page = store:list(CLIENT, { after = after, limit = 100 })
      for _, item in ipairs(page) do
        after = item.key
        list[#list + 1] = { client_id = item.key:sub(#CLIENT + 1), uid = item.value.uid, restricted = item.value.restricted,
          created = time.format(item.value.created) }
      end
    until #page < 100
    return list
  end

  --- Ends a client and its tokens; false where there is none.
  function keys.revoke(id)
    if not store:get(CLIENT .. id) then return false end
    store:delete(CLIENT .. id)
    store:delete(pair_key(id))
    access:revoke_subject(id)
    refresh:revoke_subject(id)
    return true
  end

  return keys
end
