-- A deadline for each vendor's device. The timer's key is the device's name, so that it fires only after all readings of that name
-- have met the rule; vendors may have devices of one name, and each of them has its own.
local time = require "neap.time"

local deadlines = {}

--- Registers a timer of that name, and returns a function that sets a deadline for a reading's device: set(r, due, what). It takes
--- the place of the one that this vendor's device has under the same `what`, which may be absent; that has then not been missed,
--- also where its moment has gone by and the timer is yet to fire.
--- @param plugin neap.Plugin
--- @param name string
--- @param missed fun(device: string, vendor?: string) called at each deadline; time.now() is that moment. There is no vendor where
---   the rule armed the timer itself, before it used this
--- @return fun(r: { device: string, vendor?: string }, due: number, what?: string|integer) set r is a reading, or says as much of
---   one; due is ms, after the present
function deadlines.new(plugin, name, missed)
  local function place(device) return "deadlines/" .. name .. "/" .. device end

  local function keep(device, list)
    local first
    for _, d in ipairs(list) do first = math.min(first or d.due, d.due) end
    plugin.store:put(place(device), first and list)
    if first and first > time.now() then plugin:arm(name, device, (first - time.now()) / 1000) end -- else it is about to fire
  end

  plugin:timer(name, function(device)
    local list, over, rest = plugin.store:get(place(device)), {}, {}
    if not list then return missed(device) end
    for _, d in ipairs(list) do
      local into = d.due <= time.now() and over or rest
      into[#into + 1] = d
    end
    keep(device, rest)
    for _, d in ipairs(over) do missed(device, d.vendor) end
  end)

  return function(r, due, what)
    local list, own = plugin.store:get(place(r.device)) or {}, nil
    for _, d in ipairs(list) do own = d.vendor == r.vendor and d.what == what and d or own end
    if own and own.due == math.floor(due) then return end
    if not own then
      own = { vendor = r.vendor, what = what }
      list[#list + 1] = own
    end
    own.due = math.floor(due)
    keep(r.device, list)
  end
end

return deadlines
