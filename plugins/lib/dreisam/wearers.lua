-- Who wears a sensor: the user that it was bound to here, else the one whose partner_uid its owner's reference was made of. So a
-- sensor that another vendor's plugin knows a patient of is that patient's here, and neither keeps the number in the clear.
local time = require "neap.time"

local wearers = {}
wearers.__index = wearers

local function binding_key(d) return ("bind/%s/%s"):format(d.vendor, d.device) end
local function bound_prefix(ref) return "of/" .. ref .. "/" end
local function bound_key(ref, d) return ("%s%s/%s"):format(bound_prefix(ref), d.vendor, d.device) end

--- What a connection knows of that; registers the commands that bind and unbind.
function wearers.new(plugin)
  local self = setmetatable({ plugin = plugin }, wearers)
  local device_sn = { "string", min = 1, max = 128, pattern = "%C+", about = "the device's serial number" }
  local vendor = { "string", optional = true, about = "whose device, where two have one of that number" }
  plugin:command {
    "bind", about = "Gives a device, of any vendor that this connection shows, to a user.",
    args = {
      device_sn = device_sn, vendor = vendor,
      partner_uid = { "string", min = 1, max = 128, pattern = "%C+", person = true, about = "the partner's own id of the user" },
    },
    handler = function(args) return self:bind(args.device_sn, args.vendor, args.partner_uid) end,
  }
  plugin:command {
    "unbind", about = "Says that a device is worn no more (status 0); its records stay its user's until it is bound again.",
    args = { device_sn = device_sn, vendor = vendor },
    handler = function(args) return self:unbind(args.device_sn, args.vendor) end,
  }
  return self
end

--- What stands for a user's partner_uid.
function wearers:reference(partner_uid) return self.plugin.people:reference("patient:" .. partner_uid) end

-- As what the connections that this one shows have this patient for an owner: a list, and whether a reference is in it.
local function owners(self, partner_uid)
  local list, is = {}, {}
  for i, connection in ipairs(self.plugin.data:connections()) do
    list[i] = self.plugin.people:reference("patient:" .. partner_uid, connection)
    is[list[i]] = true
  end
  return list, is
end

--- { ref, at, unbound } where the device was bound here, else nil.
function wearers:binding(d) return self.plugin.store:get(binding_key(d)) end

-- All devices that filter finds, a page at a time.
local function each_device(data, filter, fn)
  filter.limit = 1000
  repeat
    local page = data:devices(filter)
    for _, d in ipairs(page) do fn(d) end
    filter.after = #page > 0 and page[#page].id or nil
  until #page < filter.limit
end

--- The devices that a user wears or has worn; with device_sn those of that number, for two vendors may have given the same.
---@param user { ref: string, partner_uid: string }
---@param device_sn? string
---@return table[] devices as plugin.data has them
function wearers:by(user, device_sn)
  local list, known, data = {}, {}, self.plugin.data
  local references, is_owner = owners(self, user.partner_uid)
  local function is_of_user(d)
    local binding = self:binding(d)
    if binding then return binding.ref == user.ref end
    return d.owner ~= nil and is_owner[d.owner] == true
  end
  local function add(d)
    if not d or known[d.id] or not is_of_user(d) then return end
    known[d.id] = true
    list[#list + 1] = d
  end
  if device_sn then
    each_device(data, { device = device_sn }, add)
    return list
  end
  for _, bound in ipairs(self.plugin.store:list(bound_prefix(user.ref), { limit = 1000 })) do
    add(data:device(bound.value.device, bound.value.vendor))
  end
  for _, reference in ipairs(references) do each_device(data, { owner = reference }, add) end
  return list
end

-- The one device of this number that this connection sees.
function wearers:find(device_sn, vendor)
  local found = self.plugin.data:devices { device = device_sn, vendor = vendor, limit = 2 }
  if #found > 1 then return nil, "several vendors have such a device: name one", "values", "vendor" end
  return found[1]
end

function wearers:bind(device_sn, vendor, partner_uid)
  local plugin, store = self.plugin, self.plugin.store
  local d, why, kind, field = self:find(device_sn, vendor)
  if why then return nil, why, kind, field end
  if not d and vendor then return nil, "no such device", "values", "device_sn" end
  if not d then -- nobody has heard of it yet: it will be Dreisam's own
    plugin:device { device = device_sn, serial = device_sn, status = "bound" }
    d = { vendor = "dreisam", device = device_sn }
  end
  local ref, before = self:reference(partner_uid), self:binding(d)
  if before then store:delete(bound_key(before.ref, d)) end
  store:put(binding_key(d), { ref = ref, at = time.now() })
  store:put(bound_key(ref, d), { vendor = d.vendor, device = d.device })
  plugin:event { vendor = d.vendor, device = d.device, type = "binding", data = { bound = true } }
  return { device_sn = d.device, vendor = d.vendor }
end

function wearers:unbind(device_sn, vendor)
  local d, why, kind, field = self:find(device_sn, vendor)
  if why then return nil, why, kind, field end
  local binding = d and self:binding(d)
  if not binding then return nil, "no such device is bound", "values", "device_sn" end
  binding.unbound = time.now()
  self.plugin.store:put(binding_key(d), binding)
  self.plugin:event { vendor = d.vendor, device = d.device, type = "binding", data = { bound = false } }
  return { device_sn = d.device, vendor = d.vendor }
end

return wearers
