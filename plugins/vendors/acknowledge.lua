-- Whoever was sent a message acknowledges it here, by the id that came with it (a webhook's webhook-id).
-- Each client has a key: neap keys issue acknowledge name=desk; it is sent as Authorization: Bearer KEY.
local plugin = ... ---@type neap.Plugin
local crypto = require "neap.crypto"
local json = require "neap.json"
local time = require "neap.time"

local STATUS = { auth = 401, unknown = 404, failed = 500, store = 503, quarantined = 503 }

plugin:refuse(function(problem)
  local status = problem.where == "auth" and 401 or STATUS[problem.kind] or problem.status
  return status, { error = problem.message, field = problem.field ~= "" and problem.field or nil }
end)

-- Keys: of each only the hash is kept, under its client's name.

local function place(name) return "key/" .. name end
local function hash_place(key) return "hash/" .. crypto.sha256(key) end

plugin:command {
  "keys.issue", about = "A key for a client, shown this once. One that the client had before is good no more.",
  args = { name = { "string", max = 50, pattern = "[^%c]+", about = "the client's; in whose name it acknowledges" } },
  handler = function(args)
    local key, old = crypto.base64url(crypto.random(24)), plugin.store:get(place(args.name))
    if old then plugin.store:delete(old.hash) end
    plugin.store:put(place(args.name), { hash = hash_place(key), issued = time.now() })
    plugin.store:put(hash_place(key), { name = args.name })
    return { name = args.name, key = key }
  end,
}

plugin:command {
  "keys.list", about = "The clients that have a key.",
  handler = function()
    local list, after = json.array {}, nil
    repeat
      local page = plugin.store:list(place "", { after = after, limit = 100 })
      for _, e in ipairs(page) do
        list[#list + 1] = { name = e.key:sub(#place "" + 1), issued = e.value.issued }
        after = e.key
      end
    until #page < 100
    return list
  end,
}

plugin:command {
  "keys.revoke", about = "Takes a client's key away.", args = { name = { "string" } },
  handler = function(args)
    local old = plugin.store:get(place(args.name))
    if not old then return nil, "there is no such client", "values", "name" end
    plugin.store:delete(old.hash)
    plugin.store:delete(place(args.name))
    return { name = args.name, revoked = true }
  end,
}

local function auth(req)
  local key = (req.headers.authorization or ""):match "^[Bb]earer +(%S+)$"
  local client = key and #key <= 200 and plugin.store:get(hash_place(key))
  if not client then return nil, "expected Authorization: Bearer KEY, of neap keys issue " .. plugin.name, "auth" end
  return client.name
end

-- Acknowledgements

plugin:serve {
  "POST /acknowledgements/{id}", about = "Acknowledges a message. The first one counts: `first` says whether it was this one.",
  auth = auth, body_max = "16KiB",
  body = {
    by = { "string", optional = true, max = 50, pattern = "[^%c]+", about = "whose it is" },
    note = { "string", optional = true, max = 500, pattern = "%Z*" },
  },
  handler = function(req)
    local how = { by = req.body.by or req.caller, note = req.body.note }
    local first, other, code = plugin:acknowledge(req.params.id, how)
    if first == nil then return nil, other, code end
    return 200, { id = req.params.id, first = first, acknowledged = plugin:acknowledged(req.params.id) }
  end,
}

plugin:serve {
  "GET /acknowledgements/{id}", about = "Whose acknowledgement a message has.", auth = auth,
  handler = function(req)
    local a = plugin:acknowledged(req.params.id)
    if not a then return nil, "nobody has acknowledged it", "unknown" end
    return 200, { id = req.params.id, acknowledged = a }
  end,
}
