-- The apps that a Dreisam connection knows its partner by: issued by command, or named in its settings; and the check of what they
-- sign.
local crypto = require "neap.crypto"
local signature = require "dreisam.signature"
local time = require "neap.time"

local apps = {}
apps.__index = apps

local UNAUTHORIZED = 1001
local STALE = 5 * 60000 -- ms that a signature is good for, either way

local function forbidden(why) return nil, "unauthorized: " .. why, UNAUTHORIZED end

--- The apps of this connection; registers the commands that issue, list and revoke them.
function apps.new(plugin, config)
  local self = setmetatable({ plugin = plugin, config = config }, apps)
  plugin:command {
    "keys.issue", about = "Makes an app: from then on register and token have to be signed. With the id of one, a new secret.",
    args = { app_id = { "string", optional = true, min = 1, max = 128, pattern = "[%w_.-]+" } },
    handler = function(args) return self:issue(args.app_id) end,
  }
  plugin:command {
    "keys.list", about = "The apps that there are.",
    handler = function() return self:list() end,
  }
  plugin:command {
    "keys.revoke", about = "Ends an app.", args = { app_id = { "string", min = 1, max = 128, pattern = "[%w_.-]+" } },
    handler = function(args) return self:revoke(args.app_id) end,
  }
  return self
end

function apps:issue(app_id)
  if app_id and app_id == self.config.app_id then return nil, "is in the settings already", "values", "app_id" end
  local store = self.plugin.store
  local app = { app_id = app_id or "app_" .. crypto.hex(crypto.random(8)), app_secret = crypto.hex(crypto.random(32)) }
  store:put("app/" .. app.app_id, { secret = app.app_secret, issued = time.now() }, nil, "sealed")
  store:put("signed", true) -- stays when the last one is revoked, so that this never opens what was closed
  return app
end

function apps:list()
  local list = { self.config.app_id and { app_id = self.config.app_id, settings = true, signs = self.config.app_secret ~= nil } }
  for _, entry in ipairs(self.plugin.store:list("app/", { limit = 1000 })) do
    list[#list + 1] = { app_id = entry.key:sub(5), issued = entry.value.issued, signs = true }
  end
  return { apps = list }
end

function apps:revoke(app_id)
  if not self.plugin.store:get("app/" .. app_id) then return nil, "was not issued here", "values", "app_id" end
  self.plugin.store:delete("app/" .. app_id)
  return { app_id = app_id }
end

function apps:secret_of(app_id)
  if app_id == self.config.app_id then return self.config.app_secret end
  local app = self.plugin.store:get("app/" .. app_id)
  return app and app.secret
end

--- A route's auth: the app whose signature the request has, { app_id }; any caller, where this connection has no app with a secret.
--- A proxy or a mount may put something before the documented path: the path as it came and as it is documented are both good.
---@param path string the documented path
function apps:signed(path)
  return function(req)
    local config, store, h = self.config, self.plugin.store, req.headers
    if not config.app_secret and not store:get "signed" then return { app_id = config.app_id or self.plugin.name } end
    local app = { id = h["x-app-id"], nonce = h["x-nonce"], timestamp = h["x-timestamp"] }
    if not (app.id and app.nonce and app.timestamp and h["x-signature"]) then
      return forbidden "X-App-Id, X-Timestamp, X-Nonce and X-Signature are needed"
    end
    local at = #app.timestamp <= 15 and app.timestamp:match "^%d+$" and math.tointeger(tonumber(app.timestamp))
    if not at or math.abs(req.received - at) > STALE then return forbidden "X-Timestamp is not within 5 minutes of now" end
    if not app.nonce:match "^[%w_.-]+$" or #app.nonce > 128 then return forbidden "X-Nonce is not 1 to 128 of A-Z a-z 0-9 _ . -" end
    local secret = #app.id <= 128 and app.id:match "^[%w_.-]+$" and self:secret_of(app.id)
    local good = false
    for _, p in ipairs { req.path, path } do
      local expected = signature.of(secret or "", req.method, p, app, req.query, req.raw)
      good = crypto.equal(expected, h["x-signature"]) and secret ~= nil and secret ~= false or good
    end
    if not good then return forbidden "X-Signature does not fit" end
    local used = ("nonce/%s/%s"):format(app.id, app.nonce)
    if store:get(used) then return forbidden "X-Nonce was used before" end
    store:put(used, true, "11m") -- past the last moment at which its timestamp could be good
    return { app_id = app.id }
  end
end

return apps
