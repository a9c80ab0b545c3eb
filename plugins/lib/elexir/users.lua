-- Elexir's accounts: who there is, how they sign in, and whose children they are. The vendor's sign-in hands out an access
-- token for 15 minutes and a refresh token for 14 days; of the latter an account has one at a time.
local crypto = require "neap.crypto"
local json = require "neap.json"
local time = require "neap.time"
local tokens = require "tokens"

local ACCESS, REFRESH = 900, 1209600
local FREE, LONGEST = 5, 900 -- wrong passwords before an account has to wait, and for how long at most, in seconds
local CHECKS = 5 -- passwords checked a second: each takes a lane for a tenth of one

return function(plugin)
  local users = {}
  local access, refresh = tokens.new(plugin, "access", ACCESS), tokens.new(plugin, "refresh", REFRESH)
  local checks = { take = function() return CHECKS end }
  local store = plugin.store

  local function email_key(email) return "email/" .. plugin.people:reference("email:" .. email:lower()) end
  local function user_key(id) return ("user/%010d"):format(id) end
  local function child_key(parent, id) return ("child/%010d/%010d"):format(parent, id) end

  --- What else has to be done when an account goes: whoever has more of it, says so here.
  function users.removed() end

  --- Every entry of the store below a prefix.
  function users.each(prefix)
    local after, list, i = nil, {}, 0
    return function()
      i = i + 1
      if i > #list and (i == 1 or #list == 1000) then list, i = store:list(prefix, { after = after, limit = 1000 }), 1 end
      local entry = list[i]
      if entry then after = entry.key return entry.value, entry.key end
    end
  end

  function users.find(email) return store:get(email_key(email)) end
  function users.get(id) return store:get(user_key(id)) end

  --- A number of its own for each thing of a kind.
  function users.next_id(kind)
    local id = (store:get("last/" .. kind) or 0) + 1
    store:put("last/" .. kind, id)
    return id
  end

  --- A new account; nil, why where the address is taken or the parent unknown.
  function users.add(email, password, parent)
    if users.find(email) then return nil, "there is an account with this address", "values", "email" end
    if parent and not users.get(parent) then return nil, "no account has this id", "values", "parent" end
    local user = { id = users.next_id "user", email = email, password = crypto.password_hash(password), parent = parent,
      created = time.now() }
    store:put(user_key(user.id), user, nil, "sealed")
    store:put(email_key(email), user.id)
    if parent then store:put(child_key(parent, user.id), user.id) end
    return user
  end

  local function sign_out(id)
    access:revoke_subject(tostring(id))
    refresh:revoke_subject(tostring(id))
    store:delete("refresh/" .. id)
  end

  function users.remove(user)
    store:delete(user_key(user.id))
    store:delete(email_key(user.email))
    if user.parent then store:delete(child_key(user.parent, user.id)) end
    sign_out(user.id)
  end

  function users.set_password(user, password)
    user.password = crypto.password_hash(password)
    store:put(user_key(user.id), user, nil, "sealed")
    store:delete("tries/" .. user.id)
    sign_out(user.id)
  end

  --- The account's own id and its children's.
  function users.family(user)
    local ids = { user.id }
    for id in users.each(("child/%010d/"):format(user.id)) do ids[#ids + 1] = id end
    return ids
  end

  function users.is_family(user, id) return id == user.id or store:get(child_key(user.id, id)) ~= nil end

  --- Tokens for an account; the refresh token before this one is good no longer.
  function users.issue(id)
    local text = refresh:issue(tostring(id))
    store:put("refresh/" .. id, refresh:find(text).hash, REFRESH)
    return { access_token = access:issue(tostring(id)), refresh_token = text, token_type = "bearer", expires_in = ACCESS,
      refresh_expires_in = REFRESH }
  end

  --- For `auth`: the account whose token the request bears.
  function users.bearer(req)
    local scheme, text = (req.headers.authorization or ""):match "^(%a+) +(%S+) *$"
    if not scheme or scheme:lower() ~= "bearer" then return nil, "Not authenticated", 401 end
    local token = access:find(text)
    local user = token and users.get(tonumber(token.subject))
    if not user then return nil, "Could not validate credentials", 401 end
    return user
  end

  -- A wrong password is counted, so it is no refusal: what a refused call does is undone.
  local function wrong_password(id, tries, now)
    tries.n = tries.n + 1
    local wait = tries.n < FREE and 0 or math.min(LONGEST, 1 << math.min(tries.n - FREE + 1, 20))
    tries.free_at = now + wait * 1000
    store:put("tries/" .. id, tries, LONGEST + wait)
    return 401, { detail = "Incorrect password" }, { ["www-authenticate"] = "Bearer" }
  end

  local function sign_in(req)
    local email, now = req.body.email or req.body.username, time.now()
    if not email then return nil, "missing: expected an email or a username", "missing", "email" end
    local id = users.find(email)
    if not id then return nil, "Not Found User", 403 end
    local tries = store:get("tries/" .. id) or { n = 0, free_at = 0 }
    if tries.free_at > now then
      return 429, { detail = "Too Many Requests" }, { ["retry-after"] = tostring((tries.free_at - now + 999) // 1000) }
    end
    if not checks:take() then return nil, "Too Many Requests", 429 end
    local user = users.get(id)
    if not user or not crypto.password_verify(req.body.password, user.password) then return wrong_password(id, tries, now) end
    if tries.n > 0 then store:delete("tries/" .. id) end
    return 200, users.issue(id)
  end

  -- One that was good once and is not the account's present one is a copy in somebody's hands: then the present one goes too.
  local function sign_in_again(req)
    local text = req.body.refresh_token or req.query.refresh_token
      or (req.headers.authorization or ""):match "^[Bb]earer +(%S+) *$"
    if not text then return nil, "missing: expected a string", "missing", "refresh_token" end
    local token = refresh:find(text)
    if not token then return nil, "Could not validate credentials", 401 end
    if store:get("refresh/" .. token.subject) ~= token.hash or not users.get(tonumber(token.subject)) then
      store:delete("refresh/" .. token.subject)
      return 401, { detail = "Could not validate credentials" }, { ["www-authenticate"] = "Bearer" }
    end
    return 200, users.issue(tonumber(token.subject))
  end

  local function address(about) return { "string", optional = true, person = true, min = 1, max = 254, about = about } end
  local text = { "secret", optional = true, max = 512 }

  -- Not kept, unless it is refused, and encrypted then.
  users.routes = {
    { "POST", "signin", about = "Tokens for an address and a password, as a form or JSON.", keep = false, handler = sign_in,
      body = { email = address "or username", username = address "or email", password = { "secret", max = 512 } } },
    { "POST", "refresh-token", about = "New tokens for a refresh token, which serves once.", keep = false,
      handler = sign_in_again, body = { refresh_token = text }, query = { refresh_token = text } },
  }

  local function shown(user)
    return { id = user.id, email = user.email, parent = user.parent, created = time.format(user.created) }
  end
  local who = { "string", person = true, min = 3, max = 254, pattern = "[^%s@%c]+@[^%s@%c]+" }
  local password = { "secret", optional = true, min = 8, max = 512, about = "made where absent, and shown once" }

  local function known(args)
    local id = users.find(args.email)
    if not id then return nil, "no account has this address", "values", "email" end
    return users.get(id)
  end

  plugin:command { "keys.issue", about = "An account that can sign in; parent is the id of the account whose child it is.",
    args = { email = who, password = password, parent = { "integer", optional = true, lenient = true } },
    handler = function(args)
      local new = args.password or crypto.base64url(crypto.random(15))
      local user, why, kind, field = users.add(args.email, new, args.parent)
      if not user then return nil, why, kind, field end
      local result = shown(user)
      if not args.password then result.password = new end
      return result
    end }

  plugin:command { "keys.password", about = "Another password for an account; what it was signed in with is revoked.",
    args = { email = who, password = password },
    handler = function(args)
      local user, why, kind, field = known(args)
      if not user then return nil, why, kind, field end
      local new = args.password or crypto.base64url(crypto.random(15))
      users.set_password(user, new)
      local result = shown(user)
      if not args.password then result.password = new end
      return result
    end }

  plugin:command { "keys.list", about = "The accounts.", args = {}, handler = function()
    local list = {}
    for user in users.each "user/" do list[#list + 1] = shown(user) end
    return json.array(list)
  end }

  plugin:command { "keys.revoke", about = "Takes an account away, and its tokens; its devices are free again, its logs stay.",
    args = { email = who },
    handler = function(args)
      local user, why, kind, field = known(args)
      if not user then return nil, why, kind, field end
      users.remove(user)
      users.removed(user)
      return shown(user)
    end }

  return users
end
