-- What the endpoints of Tuya's document do on neap's own store: one function for each, by its command. They take the client, nil
-- for whoever may do all, and the arguments by the vendor's names, and return the result or nil, why, Tuya's code.
local crypto = require "neap.crypto"
local json = require "neap.json"
local logs = require "tuya.logs"
local pages = require "pages"
local shapes = require "tuya.shapes"
local time = require "neap.time"

local WEEK = 7 * 86400 * 1000
local GONE = "unbound" -- the status of a device that was removed; it comes back where its vendor says that it is bound again
local LISTED = 100     -- ids that one request may list

local function denied() return nil, "permission deny", 1106 end
local function empty(field) return nil, "param is empty: " .. field, 1100 end
local function illegal(field, why) return nil, ("param is illegal, please check it: %s: %s"):format(field, why), 1109 end

---@param plugin table the plugin's handle
---@param config table its settings: scale, schema
return function(plugin, config)
  local desk = {}
  local data, people, store = plugin.data, plugin.people, plugin.store
  local numbered = pages.new()

  -- Devices and their ids. A device has its vendor's id; where two vendors gave the same, that which was known later is
  -- "vendor:id". Clients put ids into paths as they are: a slash is written ~1, and so ~ itself ~0, as JSON pointers do.

  local function written(id) return (id:gsub("[~/]", { ["~"] = "~0", ["/"] = "~1" })) end
  local function meant(id) return (id:gsub("~[01]", { ["~0"] = "~", ["~1"] = "/" })) end

  local function first_of(device)
    return data:devices { device = device, limit = 1 }[1]
  end

  -- Whether a text that somebody sent may be asked of the store.
  local function askable(id) return id ~= "" and #id <= 512 and not id:find "%c" end

  local function find(id)
    if not askable(id) then return nil end
    id = meant(id)
    local row = first_of(id)
    if row then return row end
    local vendor, device = id:match "^([%w_-]+):(.+)$"
    return vendor and data:device(device, vendor)
  end

  -- The ids of rows, by row.
  local function ids_of(rows)
    local first, ids = {}, {}
    for from = 1, #rows, 500 do
      local names, after = {}, nil
      for i = from, math.min(#rows, from + 499) do names[#names + 1] = rows[i].device end
      repeat
        local same = data:devices { device = names, after = after, limit = 1000 }
        for _, row in ipairs(same) do first[row.device], after = first[row.device] or row.id, row.id end
      until #same < 1000
    end
    for _, row in ipairs(rows) do
      ids[row] = written((first[row.device] or row.id) == row.id and row.device or row.vendor .. ":" .. row.device)
    end
    return ids
  end

  local function sees(client, row)
    return row and row.status ~= GONE and (not client or not client.restricted or row.owner == client.uid)
  end

  local function mine(client, id)
    local row = id and find(id)
    if sees(client, row) then return row end
  end

  -- What the shapes are made of.
  local function items(client, rows)
    local ids, now, list = ids_of(rows), time.now(), {}
    for i, row in ipairs(rows) do
      local secrets = row.extra and row.extra.secrets and people:details(row.extra.secrets)
      list[i] = { row = row, id = ids[row], uid = row.owner or client and client.uid or "", now = now,
        local_key = secrets and secrets.local_key, status = shapes.status(row, data:latest(row.device, row.vendor), config.scale) }
    end
    return list
  end

  local function shaped(client, rows, shape)
    local list = json.array {}
    for i, it in ipairs(items(client, rows)) do list[i] = shape(it) end
    return list
  end

  local function filter_for(client, more)
    local filter = { except_status = GONE, owner = client and client.restricted and client.uid or nil }
    for k, v in pairs(more or {}) do filter[k] = v end
    return filter
  end

  local function rows_after(filter, after, limit)
    local t = { after = after, limit = limit }
    for k, v in pairs(filter) do t[k] = v end
    return data:devices(t)
  end

  -- All rows of a filter that fit.
  local function all_rows(filter, fits)
    local list, after = {}, nil
    repeat
      local rows = rows_after(filter, after, 1000)
      for _, row in ipairs(rows) do
        after = row.id
        if not fits or fits(row) then list[#list + 1] = row end
      end
    until #rows < 1000
    return list
  end

  local function rows_of(client, text)
    local rows, seen = {}, {}
    for id in (text .. ","):gmatch "%s*([^,]-)%s*," do
      if id ~= "" and not seen[id] then
        seen[id] = true
        if #rows == LISTED then return illegal("device_ids", ("more than %d"):format(LISTED)) end
        local row = mine(client, id)
        if not row then return denied() end
        rows[#rows + 1] = row
      end
    end
    if #rows == 0 then return empty "device_ids" end
    return rows
  end

  -- Reading

  desk["device"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    return shaped(client, { row }, shapes.device)[1]
  end

  desk["factory-infos"] = function(client, a)
    local rows, why, code = rows_of(client, a.device_ids)
    if not rows then return nil, why, code end
    return shaped(client, rows, shapes.factory)
  end

  desk["user-devices"] = function(client, a)
    local filter = filter_for(client, { owner = a.uid })
    local own = client and client.uid == a.uid
    if client and client.restricted and not own or not askable(a.uid) then return denied() end
    if #rows_after(filter, nil, 1) == 0 then
      if not own then return denied() end
      if not client.restricted then filter.owner = nil end -- a project's own user: all that the project sees
    end
    if a.from == "sharing" then return json.array {} end -- nothing here is shared from user to user
    if not a.page_no and not a.page_size then return shaped(client, all_rows(filter), shapes.device) end
    local rows = numbered:fetch(("user %s %s"):format(client and client.id or "", a.uid), a.page_no or 1, a.page_size or 20,
      function(after, limit) return rows_after(filter, after, limit) end)
    return shaped(client, rows, shapes.device)
  end

  -- The 10 digits of a bound, in seconds; nil where it is absent.
  local function seconds(a, field)
    local text = a[field]
    if not text or text == "" or text == "0" then return nil end
    if #text ~= 10 then return illegal(field, "expected a timestamp of 10 digits") end
    return tonumber(text)
  end

  local function listed(rows, total, last, client)
    local last_id = rows[1] and tostring(rows[#rows].id) or last
    return { devices = shaped(client, rows, shapes.device), total = total, last_id = last_id }
  end

  -- Of a list that had to be read whole, the page that is asked for.
  local function cut(rows, a, client)
    local page, first = {}, ((a.page_no or 1) - 1) * (a.page_size or 20)
    if a.last_id then
      first = 0
      while rows[first + 1] and rows[first + 1].id <= (tonumber(a.last_id) or 0) do first = first + 1 end
    end
    for i = first + 1, math.min(#rows, first + (a.page_size or 20)) do page[#page + 1] = rows[i] end
    return listed(page, #rows, a.last_id or "", client)
  end

  local function given(text) return text ~= "" and text or nil end

  -- By page_no and page_size, or by last_id and page_size; where schema, product_id or device_ids says which, the page may be
  -- left out.
  local function paging(a)
    local chosen = given(a.schema) or given(a.product_id) or given(a.device_ids)
    if not a.last_id and not a.page_no and not chosen then return empty "page_no" end
    if not a.page_size and (a.last_id or a.page_no) and not chosen then return empty "page_size" end
    return true
  end

  desk["devices"] = function(client, a)
    local fine, why, code = paging(a)
    if not fine then return nil, why, code end
    if config.schema and given(a.schema) and a.schema ~= config.schema then return denied() end
    local from, to
    from, why, code = seconds(a, "start_time")
    if why then return nil, why, code end
    to, why, code = seconds(a, "end_time")
    if why then return nil, why, code end
    if from and to and from > to then return nil, "params range invalid: start_time is after end_time", 1101 end
    local function paired(row)
      local at = math.tointeger(row.extra and row.extra.create_time) or row.first_seen // 1000
      return (not from or at >= from) and (not to or at <= to)
    end
    local product = given(a.product_id)
    if given(a.device_ids) then
      local rows
      rows, why, code = rows_of(client, a.device_ids)
      if not rows then return nil, why, code end
      local fitting = {}
      for _, row in ipairs(rows) do
        if paired(row) and (not product or row.model == product) then fitting[#fitting + 1] = row end
      end
      return listed(fitting, #fitting, "", client)
    end
    local filter = filter_for(client, { model = product })
    if from or to then return cut(all_rows(filter, paired), a, client) end
    local function fetch(after, limit) return rows_after(filter, after, limit) end
    local size = a.page_size or 20
    local rows = a.last_id and fetch(a.last_id ~= "" and tonumber(a.last_id) or nil, size)
      or numbered:fetch(("list %s %s"):format(client and client.id or "", product or ""), a.page_no or 1, size, fetch)
    return listed(rows, data:count("devices", filter), a.last_id or "", client)
  end

  desk["sub-devices"] = function(client, a)
    local gateway = mine(client, a.device_id)
    if not gateway then return denied() end
    local rows = all_rows(filter_for(client, { vendor = gateway.vendor, place = gateway.place }),
      function(row) return row.extra and row.extra.gateway_id == gateway.device end)
    return shaped(client, rows, shapes.sub_device)
  end

  local function span_of(a)
    local from, to = tonumber(a.start_time) or 0, tonumber(a.end_time)
    if from ~= 0 and #a.start_time ~= 13 then return illegal("start_time", "expected a timestamp of 13 digits, 0 or nothing") end
    if #a.end_time ~= 13 then return illegal("end_time", "expected a timestamp of 13 digits") end
    if from > to then return nil, "params range invalid: start_time is after end_time", 1101 end
    return { from = from == 0 and time.now() - WEEK or from, to = to }
  end

  -- Where the page begins: false for at the newest.
  local function place_of(a, id, paid)
    if paid then
      local key, at = a.last_row_key or "", a.last_event_time or ""
      if key == "" and at == "" then return false end
      if key == "" then return empty "last_row_key" end
      if at == "" then return empty "last_event_time" end
      local place = logs.behind_paid(id, key, math.tointeger(tonumber(at)))
      if not place then return illegal("last_row_key", "no row of this device at last_event_time") end
      return place
    end
    if not given(a.start_row_key) then return false end
    local place = logs.from_free(id, a.start_row_key)
    if not place then return illegal("start_row_key", "no row of this device") end
    return place
  end

  desk["logs"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    local types = logs.types(a.type)
    if not types then return nil, "type is incorrect: type: expected numbers from 1 to 10, separated by commas", 1104 end
    local q, why, code = span_of(a)
    if not q then return nil, why, code end
    local paid = a.query_type == 2
    q.place, why, code = place_of(a, a.device_id, paid)
    if q.place == nil then return nil, why, code end
    if row.extra and row.extra.logs == false then return nil, "not support this device", 2009 end
    q.row, q.types = row, types
    if given(a.codes) then
      q.codes, q.metrics = {}, {}
      for metric in a.codes:gmatch "[^,%s]+" do
        if not q.codes[metric] then q.codes[metric], q.metrics[#q.metrics + 1] = true, metric end
      end
      if #q.metrics == 0 or #q.metrics > LISTED then return illegal("codes", ("expected 1 to %d codes"):format(LISTED)) end
    end
    q.value = function(metric, value) return shapes.value(row, metric, value, config.scale) end
    return logs.result(data, a.device_id, q, a.size or 20, paid)
  end

  -- Names of functions and channels, which are the same thing: a power strip's second socket is switch_2.

  local function name_key(row, identifier) return ("name/%d/%s"):format(row.id, identifier) end

  local function each_kept(prefix, fn)
    local after
    repeat
      local page = store:list(prefix, { after = after, limit = 100 })
      for _, item in ipairs(page) do
        after = item.key
        fn(item.key:sub(#prefix + 1), item.value, item.key)
      end
    until #page < 100
  end

  desk["multiple-names"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    local list = json.array {}
    each_kept(name_key(row, ""), function(identifier, name) list[#list + 1] = { identifier = identifier, name = name } end)
    return list
  end

  desk["multiple-name"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    store:put(name_key(row, a.identifier), a.name)
    return true
  end

  desk["function-name"] = function(client, a)
    if not a.function_code:find "^[%w_]+$" or #a.function_code > 128 then
      return illegal("function_code", "expected letters, digits and _")
    end
    return desk["multiple-name"](client, { device_id = a.device_id, identifier = a.function_code, name = a.name })
  end

  -- A device's users. Who they are is kept apart, as all people's details are.

  local function user_key(row, user_id) return ("user/%d/%s"):format(row.id, user_id) end

  local function keep_user(row, user_id, a, before)
    local key = user_key(row, user_id)
    local user = before or {}
    for _, k in ipairs { "sex", "height", "weight" } do user[k] = a[k] or user[k] end
    user.person = people:keep(key, { nick_name = a.nick_name, birthday = a.birthday, contact = a.contact })
    store:put(key, user, nil, "sealed")
  end

  local function show_user(id, user)
    local shown = { device_id = id, sex = user.sex, height = user.height, weight = user.weight }
    local details = people:details(user.person) or {}
    for _, k in ipairs { "nick_name", "birthday", "contact" } do shown[k] = details[k] end
    return shown
  end

  local function user_of(client, a)
    local row = mine(client, a.device_id)
    local user = row and #a.user_id <= 64 and askable(a.user_id) and store:get(user_key(row, a.user_id))
    if user then return user, row end
  end

  desk["users"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    local list = json.array {}
    each_kept(user_key(row, ""), function(_, user) list[#list + 1] = show_user(a.device_id, user) end)
    return list
  end

  desk["user.get"] = function(client, a)
    local user = user_of(client, a)
    if not user then return denied() end
    return show_user(a.device_id, user)
  end

  desk["user.add"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    local id
    repeat
      id = ("%d"):format(1000000000 + string.unpack("<I4", crypto.random(4)))
    until not store:get(user_key(row, id))
    keep_user(row, id, a)
    return id
  end

  desk["user.update"] = function(client, a)
    local user, row = user_of(client, a)
    if not user then return denied() end
    keep_user(row, a.user_id, a, user)
    return true
  end

  desk["user.remove"] = function(client, a)
    local user, row = user_of(client, a)
    if not user then return denied() end
    people:forget(user.person)
    store:delete(user_key(row, a.user_id))
    return true
  end

  -- Changing devices

  desk["rename"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    plugin:device { vendor = row.vendor, device = row.device, name = a.name }
    return true
  end

  desk["reset-factory"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    plugin:event { vendor = row.vendor, device = row.device, type = "reset", data = { event_from = "3" } }
    return true
  end

  desk["remove"] = function(client, a)
    local row = mine(client, a.device_id)
    if not row then return denied() end
    each_kept(user_key(row, ""), function(_, user, key)
      people:forget(user.person)
      store:delete(key)
    end)
    each_kept(name_key(row, ""), function(_, _, key) store:delete(key) end)
    plugin:device { vendor = row.vendor, device = row.device, status = GONE }
    plugin:event { vendor = row.vendor, device = row.device, type = "reset", data = { event_from = "11" } }
    return true
  end

  --- The row behind an id that the client sees, or nil.
  desk.row = mine

  return desk
end
