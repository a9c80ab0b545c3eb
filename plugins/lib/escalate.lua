-- Messages that somebody has to acknowledge: where nobody does in time, somebody else is told, and told again.
-- One waits for each vendor's device. While nobody has answered, further messages about it belong to that: whoever acknowledges any
-- of them, or of what was sent to the other one, has acknowledged all that were sent until then.
local deadlines = require "deadlines"
local time = require "neap.time"

local escalate = {}

local IDS = 20 -- of messages that may be acknowledged, the newest

--- Adds the settings escalate_to, escalate_after and escalate_times to a rule's own, which it returns.
--- @param own table<string, neap.Field>
--- @return table<string, neap.Field>
function escalate.settings(own)
  own.escalate_to = { "destination", optional = true, about = "who is told of what nobody has acknowledged" }
  own.escalate_after = { "duration", default = "10m", min = "1s", max = "1d", about = "how long one waits for it" }
  own.escalate_times = { "integer", default = 3, min = 1, max = 100,
    about = "how often they are told, unless somebody acknowledges" }
  return own
end

--- Registers a timer of that name, and returns a function that sends: send(r, destination, message). Without escalate_to it
--- sends, and waits for nothing. A rule that tells of several things has one for each. r is the reading, or says as much of one; a
--- device's name alone is that of whatever vendor.
--- @param plugin neap.Plugin
--- @param config table<string, any> the rule's settings
--- @param name string
--- @return fun(r: string|{ device: string, vendor?: string }, to: string, message: table)
function escalate.new(plugin, config, name)
  local function place(r) return name .. "/" .. (r.vendor and r.vendor .. " " or "") .. r.device end

  local function is_acknowledged(open)
    for _, id in ipairs(open.ids) do
      if plugin:acknowledged(id) then return true end
    end
    return false
  end

  local function send(open, to, message)
    if #open.ids == IDS then table.remove(open.ids, 1) end
    open.ids[#open.ids + 1] = plugin:send(to, message, { acknowledge = true })
  end

  local wait
  wait = deadlines.new(plugin, name, function(device, vendor)
    local r = { device = device, vendor = vendor }
    local open = plugin.store:get(place(r))
    if not open or not config.escalate_to or is_acknowledged(open) then
      plugin.store:delete(place(r))
      return
    end
    open.told = open.told + 1
    local message = {}
    for field, value in pairs(open.message) do message[field] = value end
    message.device, message.escalation = message.device or device, open.told
    message.title = "Not acknowledged: " .. tostring(open.message.title or "a message")
    send(open, config.escalate_to, message)
    if open.told >= config.escalate_times then
      plugin.store:delete(place(r))
    else
      plugin.store:put(place(r), open)
      wait(r, time.now() + config.escalate_after * 1000)
    end
  end)

  return function(r, to, message)
    if not config.escalate_to then
      plugin:send(to, message)
      return
    end
    if type(r) == "string" then r = { device = r } end
    local open = plugin.store:get(place(r))
    if not open or is_acknowledged(open) then
      open = { ids = {}, told = 0 }
      wait(r, time.now() + config.escalate_after * 1000)
    end
    open.message = message
    send(open, to, message)
    plugin.store:put(place(r), open)
  end
end

return escalate
