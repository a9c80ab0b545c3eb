-- neap's readings and devices in Neuron's words, and back; what both faces share.
local crypto = require "neap.crypto"
local json = require "neap.json"
local log = require "neap.log"
local time = require "neap.time"

local shape = {}
local PLAIN = "yyyy-MM-dd HH:mm:ss"
local LAST = 253402300799999 -- the end of the year 9999, UTC
shape.WEEK = 7 * 86400000

--- A connection's way to write times and to name devices.
---
--- A device is known by its devEui where it has one, else by CONNECTION/building/name. In a connection with a name of its own the
--- devEui has that before it too: what two tenants of one host push never meets in one device.
function shape.new(connection, zone)
  local s = {}
  assert(time.zone(zone))

  --- `yyyy-MM-dd HH:mm:ss` in the zone, or RFC 3339; the second value tells whether it is a whole second.
  function s.read_time(text)
    if not text:find "^%d%d%d%d%-%d%d%-%d%d[ T]%d%d:%d%d:%d%d" then return nil, "expected yyyy-MM-dd HH:mm:ss or RFC 3339" end
    local at, why = time.parse(text, zone)
    if at and (at < 0 or at > LAST) then return nil, "not a time that a device can measure at" end
    return at, why
  end

  --- RFC 3339 only where the plain form would be another moment: with ms, or where clocks are put back.
  function s.write_time(at)
    local text = time.format(at, zone, PLAIN)
    return time.parse(text, zone, PLAIN) == at and text or time.format(at, zone)
  end

  function s.id_of(devEui) return connection == "neuron" and devEui or connection .. "/" .. devEui end
  function s.id_without(building, name)
    return ("%s/%s/%s"):format(connection, (building:gsub("[%%/]", { ["%"] = "%25", ["/"] = "%2F" })), name)
  end

  --- A device's devEui, or nil. Of another vendor's device it is its id, where that can stand in a path.
  function s.dev_eui(row)
    if row.vendor == "neuron" then return row.serial end
    return not row.device:find "/" and row.device or nil
  end

  --- The ids that a device of that devEui may have: this connection's own first, then those of the connections that it shows.
  function s.ids_of(data, devEui)
    local ids = { s.id_of(devEui), devEui }
    for _, name in ipairs(data:connections()) do ids[#ids + 1] = name .. "/" .. devEui end
    return ids
  end

  --- The device of that devEui, or nil: this connection's own before those that it shows.
  function s.find(data, devEui)
    local own = data:device(s.id_of(devEui), "neuron")
    if own then return own end
    for _, row in ipairs(data:devices { device = s.ids_of(data, devEui) }) do
      if s.dev_eui(row) == devEui then return row end
    end
  end

  return s
end

--- Where in the plugin's store a registered building is noted.
function shape.building_key(building) return "building/" .. crypto.sha256(building) end

local function null(v)
  if v == nil then return json.null end
  return v
end

--- A reading's number and text: one of the two is nil, or both are there where both came.
function shape.values(r)
  local v = r.value
  if type(v) == "number" then return v, r.extra and type(r.extra.reading) == "string" and r.extra.reading or nil end
  return nil, type(v) == "boolean" and tostring(v) or v
end

--- A reading as a point's value.
function shape.point(s, row, r)
  local value, reading = shape.values(r)
  return { time = s.write_time(r.at), equipmentName = row.name or row.device, buildingName = null(row.place),
    functionType = r.metric, devEUI = null(s.dev_eui(row)), value = null(value), reading = null(reading), unit = null(r.unit) }
end

-- What is known of its points, and what they have sent.
local function points_of(s, row, latest)
  local list, by = json.array {}, {}
  local function add(metric)
    local p = { type = metric, unit = json.null, bmsId = json.null, control = false }
    if not s.dev_eui(row) then p.bmsId = row.device .. "/" .. metric end
    list[#list + 1], by[metric] = p, p
    return p
  end
  for _, known in ipairs(row.extra and type(row.extra.points) == "table" and row.extra.points or {}) do
    if type(known) == "table" and type(known.metric) == "string" then
      local p = by[known.metric] or add(known.metric)
      p.unit, p.control = null(known.unit), known.writable == true
      if known.id then p.bmsId = known.id end
    end
  end
  for _, r in ipairs(latest) do
    local p = by[r.metric] or add(r.metric)
    if r.unit then p.unit = r.unit end
  end
  table.sort(list, function(a, b) return a.type < b.type end)
  return list
end

--- A device as details and list show it. within: ms, how long after it was heard of a device is on line, unless somebody says.
function shape.device(s, row, latest, now, within)
  local extra, online = row.vendor == "neuron" and row.extra or {}, row.online
  if online == nil then online = now - row.last_seen <= within end
  local devEui = s.dev_eui(row)
  return { name = row.name or row.device, alias = null(extra.alias), equModel = null(row.model), points = points_of(s, row, latest),
    devEUI = null(devEui), location = null(extra.location), isOnline = online, descriptions = null(extra.descriptions),
    isIot = devEui ~= nil, buildingName = null(row.place) }
end

-- The other way: what a cloud says. Nothing of it is trusted to be as documented.

local function text(v)
  if math.type(v) == "integer" then v = ("%d"):format(v) end
  return type(v) == "string" and v ~= "" and #v <= 1000 and not v:find "\0" and v or nil
end

local function id_in(s, v)
  local devEui, name, building = text(v.devEUI) or text(v.devEui), text(v.equipmentName) or text(v.name), text(v.buildingName)
  if devEui and not devEui:find "/" then return s.id_of(devEui), devEui end
  return name and building and s.id_without(building, name) or nil
end

--- Emits a point's value as a cloud gives it. false where it cannot be read; that is logged.
function shape.emit(s, plugin, v)
  local why = type(v) ~= "table" and "not an object" or nil
  local device = not why and id_in(s, v)
  local metric, at = not why and text(v.functionType), nil
  if not why then
    local value = type(v.value) == "number" and v.value or nil
    local reading = type(v.reading) == "string" and #v.reading <= 4096 and not v.reading:find "\0" and v.reading or nil
    if type(v.time) == "string" then at, why = s.read_time(v.time) else why = "without a time" end
    if not device or not metric then why = "without a device or a point"
    elseif not value and not reading then why = "without a value" end
    if not why then
      plugin:emit { device = device, metric = metric, value = value or reading, unit = text(v.unit), at = at,
        extra = value and reading and { reading = reading } or nil }
      return true
    end
  end
  log.warn("a value that the cloud gave cannot be read", { why = why, device = device or nil, point = metric or nil })
  return false
end

local function read_points(list)
  local points = json.array {}
  for _, p in ipairs(type(list) == "table" and list or {}) do
    local metric = type(p) == "table" and text(p.type)
    if metric then
      points[#points + 1] = { metric = metric, unit = text(p.unit), writable = p.control == true, id = text(p.bmsId) }
    end
  end
  return points
end

--- Keeps a device as a cloud tells of it. false where it has no identity; that is logged.
function shape.keep(s, plugin, v)
  local device, devEui
  if type(v) == "table" then device, devEui = id_in(s, v) end
  if not device then
    log.warn("a device that the cloud gave has neither a devEUI nor a name and building", {})
    return false
  end
  local online
  if type(v.isOnline) == "boolean" then online = v.isOnline end
  plugin:device { device = device, serial = devEui, name = text(v.name) or text(v.equipmentName), model = text(v.equModel),
    place = text(v.buildingName), online = online, extra = { alias = text(v.alias), location = text(v.location),
    descriptions = text(v.descriptions), points = read_points(v.points) } }
  return true
end

return shape
