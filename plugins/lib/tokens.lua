-- Bearer tokens that a plugin issues: random texts of which only the hashes are kept, in the plugin's store, until they expire.
-- What is issued, found out and revoked commits with the handler that does it.
local crypto = require "neap.crypto"
local time = require "neap.time"

local tokens = {}
local Tokens = {}
Tokens.__index = Tokens

--- @param plugin table the plugin's handle
--- @param kind string tells this plugin's tokens of one kind from those of another: "access"
--- @param lifetime number seconds
function tokens.new(plugin, kind, lifetime)
  return setmetatable({ store = plugin.store, kind = kind, lifetime = lifetime }, Tokens)
end

function Tokens:key(hash) return self.kind .. ":" .. hash end
-- A subject's tokens stand behind each other, so that all of them can be revoked. It may be any text.
function Tokens:of(subject) return self.kind .. "/of:" .. crypto.sha256(subject) .. ":" end

--- A new token.
--- @param subject string whom or what it is for
--- @param data? any kept with it: what JSON can hold
--- @param lifetime? number seconds, where it is not the usual
--- @return string token 32 hexadecimal digits
--- @return number seconds how long it lasts
function Tokens:issue(subject, data, lifetime)
  lifetime = lifetime or self.lifetime
  local text = crypto.hex(crypto.random(16))
  local hash = crypto.sha256(text)
  local expires = time.now() + math.floor(lifetime * 1000)
  self.store:put(self:key(hash), { subject = subject, data = data, expires = expires }, lifetime)
  self.store:put(self:of(subject) .. hash, true, lifetime)
  return text, lifetime
end

--- What a token stands for.
--- @param text? string
--- @return table? found { subject, data, expires = ms, left = seconds, hash }; nil where it is unknown, revoked or expired
function Tokens:find(text)
  if type(text) ~= "string" or #text > 512 then return nil end
  local hash = crypto.sha256(text)
  local found = self.store:get(self:key(hash))
  local left = found and found.expires - time.now()
  if not left or left <= 0 then return nil end
  found.left, found.hash = left // 1000, hash
  return found
end

--- @param hash string as found.hash
--- @param subject string
function Tokens:revoke_hash(hash, subject)
  self.store:delete(self:key(hash))
  self.store:delete(self:of(subject) .. hash)
end

--- Ends one token; whether it was good until now.
--- @param text string
--- @return boolean
function Tokens:revoke(text)
  local found = self:find(text)
  if found then self:revoke_hash(found.hash, found.subject) end
  return found ~= nil
end

--- Ends all tokens of a subject.
--- @param subject string
--- @return integer how many there were
function Tokens:revoke_subject(subject)
  local prefix, count = self:of(subject), 0
  local after
  repeat
    local page = self.store:list(prefix, { after = after, limit = 100 })
    for _, item in ipairs(page) do
      self:revoke_hash(item.key:sub(#prefix + 1), subject)
      after, count = item.key, count + 1
    end
  until #page < 100
  return count
end

return tokens
