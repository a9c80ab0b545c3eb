-- neap's devices as Tuya's document shows them, and Tuya's as neap keeps them.
local json = require "neap.json"
local scale = require "tuya.scale"

local shapes = {}

local ABOUT = 3600 * 1000 -- a device of which nobody says whether it is online is, if it was heard of within that time

-- Of a Tuya device, kept as they are.
local KEPT = { "category", "product_name", "sub", "uuid", "biz_type", "icon", "ip", "model", "time_zone", "active_time",
  "create_time", "update_time", "gateway_id" }

--- What plugin:device is given for a device of Tuya's. extra of the stored row goes on where Tuya's answer does not say.
---@param d table as the document's lists have it
---@param row table? as plugin.data gives it
function shapes.from_tuya(d, row)
  local extra = {}
  for k, v in pairs(row and row.extra or {}) do extra[k] = v end
  for _, k in ipairs(KEPT) do
    if d[k] ~= nil and d[k] ~= json.null then extra[k] = d[k] end
  end
  local function text(v) return v ~= nil and v ~= json.null and tostring(v) or nil end
  local online = d.online
  if type(online) ~= "boolean" then online = nil end
  return { device = d.id, name = text(d.name), owner = text(d.uid), place = text(d.owner_id), model = text(d.product_id),
    online = online, status = "active", extra = extra }
end

--- Tells whether two values are the same, tables member by member.
function shapes.same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do
    if not shapes.same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

-- The document's numbers of seconds.
local function seconds(extra, name, otherwise)
  return math.tointeger(extra[name]) or otherwise // 1000
end

local function online(row, now)
  if row.online ~= nil then return row.online end
  return (row.last_seen or 0) > now - ABOUT
end

function shapes.category(row)
  return row.extra and row.extra.category or "qt" -- 其他: others
end

--- A reading's value as Tuya has it.
function shapes.value(row, metric, value, own)
  return scale.to_tuya(value, (scale.of(row.extra and row.extra.category, metric, own)))
end

--- A device's newest readings as a status array. Tuya has no word for one that is not valid: it is left out.
function shapes.status(row, readings, own)
  local status = json.array {}
  for _, r in ipairs(readings) do
    if r.quality == "valid" then
      status[#status + 1] = { code = r.metric, value = shapes.value(row, r.metric, r.value, own) }
    end
  end
  table.sort(status, function(a, b) return a.code < b.code end)
  return status
end

--- A device as the detail and the lists show it.
---@param it table { row, id, uid, local_key?, status, now }
function shapes.device(it)
  local row, extra = it.row, it.row.extra or {}
  return {
    id = it.id, name = row.name or "", uid = it.uid, local_key = it.local_key, category = shapes.category(row),
    product_id = row.model or "", product_name = extra.product_name or row.model or row.vendor, sub = extra.sub == true,
    uuid = extra.uuid or row.device, owner_id = row.place or "", online = online(row, it.now), status = it.status,
    active_time = seconds(extra, "active_time", row.first_seen), create_time = seconds(extra, "create_time", row.first_seen),
    update_time = seconds(extra, "update_time", row.last_seen), biz_type = math.tointeger(extra.biz_type) or 0,
    icon = extra.icon or "", ip = extra.ip or "", model = extra.model, time_zone = extra.time_zone or "+00:00",
    gateway_id = extra.gateway_id,
  }
end

function shapes.sub_device(it)
  local d = shapes.device(it)
  return { id = d.id, name = d.name, online = d.online, owner_id = d.owner_id, category = d.category, product_id = d.product_id,
    active_time = d.active_time, update_time = d.update_time }
end

function shapes.factory(it)
  local row, extra = it.row, it.row.extra or {}
  return { id = it.id, uuid = extra.uuid or row.device, sn = row.serial, mac = extra.mac }
end

return shapes
