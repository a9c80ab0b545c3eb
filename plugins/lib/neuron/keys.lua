-- Neuron's keys: an id, a random key, and an RSA pair. The client sends the id, and the key encrypted with the public half; every
-- ciphertext of it is another. A key is its connection's: that of another connection is none here.
local crypto = require "neap.crypto"
local time = require "neap.time"

local keys = {}
local BITS = 2048
local ACCEPTED_MOST = 1000

local function place(id) return "key/" .. id end

--- The keys of a connection: check, issue, list and revoke are for calls of its plugin. padding ("pkcs1" or "oaep") is what keys
--- are issued with.
function keys.new(plugin, padding)
  local k = {}
  -- Ciphertexts that were right, by their digest: the RSA is not done again for a client that sends one twice. The key is looked up
  -- each time all the same, so that a revoked one is refused at once; and what is wrong is never in here.
  local accepted, count = {}, 0

  local function right(digest, box, known)
    if accepted[digest] then return true end
    if not crypto.rsa.holds(known.private, box, known.key, { padding = known.padding }) then return false end
    if count == ACCEPTED_MOST then accepted, count = {}, 0 end
    accepted[digest], count = true, count + 1
    return true
  end

  --- Whether the request carries a key of this connection. Takes as long for an id that there is not.
  function k.check(headers)
    local id, text = headers["x-source-secretid"], headers["x-source-secretkey"]
    local box = text and #text <= BITS and crypto.unbase64(text)
    if not box or not id or not id:find "^%w+$" or #id > 64 then return nil end
    local known = plugin.store:get(place(id))
    if known then return right(crypto.sha256(id .. "\0" .. box), box, known) and id or nil end
    local other = plugin.store:list("key/", { limit = 1 })[1]
    if other then crypto.rsa.holds(other.value.private, box, other.value.key, { padding = other.value.padding }) end
    return nil
  end

  function k.issue(args)
    local pair, id = crypto.rsa.generate(BITS), crypto.hex(crypto.random(8))
    local key = { key = crypto.base64url(crypto.random(24)), private = pair.private, padding = args.padding or padding,
      name = args.name, issued = time.now() }
    plugin.store:put(place(id), key, nil, "sealed")
    return { secret_id = id, key = key.key, public_key = pair.public, padding = key.padding }
  end

  function k.list()
    local list, after = {}, nil
    repeat
      local page = plugin.store:list("key/", { after = after, limit = 100 })
      for _, e in ipairs(page) do
        local key = e.value
        list[#list + 1] = { secret_id = e.key:sub(#place "" + 1), name = key.name, padding = key.padding, issued = key.issued }
        after = e.key
      end
    until #page < 100
    return list
  end

  function k.revoke(args)
    if not plugin.store:get(place(args.secret_id)) then return nil, "there is no such key", "values", "secret_id" end
    plugin.store:delete(place(args.secret_id))
    return { secret_id = args.secret_id, revoked = true }
  end

  return k
end

return keys
