-- What the connect face pulls from Tuya's cloud: devices page by page, their logs in windows that can be gone on with, and of their
-- status what no log has told. Each step commits with how far it has come.
local json = require "neap.json"
local log = require "neap.log"
local logs = require "tuya.logs"
local scale = require "tuya.scale"
local shapes = require "tuya.shapes"
local time = require "neap.time"
local windows = require "windows"

local PAGE = 100                  -- devices or logs that one call asks for; Tuya's most
local PAGES = 10                  -- of logs, that one step fetches
local WEEK = 7 * 86400 * 1000     -- what Tuya keeps of a project that pays nothing
local SPAN = WEEK                 -- of a window
local EXTRA = 5                   -- calls a poll makes for what lists do not have: serial numbers, whose gateway it is
local STEP = 40000                -- ms: a step that has taken so long commits, and is gone on with
local ASKED = "1d"                -- how long it does not ask again
local ALL_TYPES = "1,2,3,4,5,6,7,8,9,10"

---@param plugin table the plugin's handle
---@param config table its settings: schema, uid, since, overlap, logs, scale, poll (seconds), per_month
---@param cloud table tuya.cloud's
return function(plugin, config, cloud)
  local sync = {}
  local data, store = plugin.data, plugin.store
  local mine = { connection = plugin.name, vendor = "tuya" }

  local function rows(more)
    local t = { connection = mine.connection, vendor = mine.vendor }
    for k, v in pairs(more) do t[k] = v end
    return data:devices(t)
  end

  -- Devices

  local function list_page(last, page_no)
    if config.uid then
      local path = ("/v1.0/users/%s/devices"):format(config.uid)
      local list, t, code = cloud.call("GET", path, { page_no = page_no, page_size = PAGE })
      if list == nil then return nil, t, code end
      return { devices = list }, t
    end
    local query = { page_size = PAGE, schema = config.schema }
    if last then query.last_id = last else query.page_no = 1 end
    return cloud.call("GET", "/v1.0/devices", query)
  end

  local function keep_status(d, t)
    local key, values = "status/" .. d.id, {}
    for _, s in ipairs(type(d.status) == "table" and d.status or {}) do
      if type(s) == "table" and type(s.code) == "string" and s.value ~= nil and s.value ~= json.null then
        values[s.code] = type(s.value) == "table" and json.encode(s.value) or s.value
      end
    end
    local kept = store:get(key)
    if not kept or not shapes.same(kept.values, values) then store:put(key, { t = t, values = values, looked = 0 }) end
  end

  -- Device by device, what has changed; at: when they were asked for, so that what changed meanwhile is not taken back.
  local function keep_devices(devices, t, at, seen)
    local ids, known = {}, {}
    for _, d in ipairs(devices) do
      if type(d) == "table" and type(d.id) == "string" and d.id ~= "" then ids[#ids + 1] = d.id end
    end
    for _, row in ipairs(#ids > 0 and rows { device = ids, limit = 1000 } or {}) do known[row.device] = row end
    local added = 0
    for _, d in ipairs(devices) do
      if type(d) == "table" and type(d.id) == "string" and d.id ~= "" then
        if not seen[d.id] then added = added + 1 end
        seen[d.id] = true
        local row = known[d.id]
        local new = shapes.from_tuya(d, row)
        local changed = not row or row.status ~= new.status
        for _, k in ipairs { "name", "owner", "place", "model", "online", "extra" } do
          changed = changed or new[k] ~= nil and not shapes.same(new[k], row[k]) and not (new[k] == "" and row[k] == nil)
        end
        if changed then
          if type(d.local_key) == "string" and d.local_key ~= "" then
            new.extra.secrets = plugin.people:keep("device/" .. d.id, { local_key = d.local_key })
          end
          new.at = at
          plugin:device(new)
        end
        keep_status(d, t)
      end
    end
    return added
  end

  local function forget_others(seen)
    local after
    repeat
      local page = rows { after = after, limit = 1000, except_status = "unbound" }
      for _, row in ipairs(page) do
        after = row.id
        if not seen[row.device] then
          plugin:device { device = row.device, status = "unbound" }
          plugin:event { device = row.device, type = "binding", data = { bound = false } }
        end
      end
    until #page < 1000
  end

  -- A month's calls that are used up in the middle of it leave a hole: that is said while it can be mended.
  local function look_ahead(n)
    local month = config.logs == "none" and 1 or 1 + n
    local needed = math.ceil(month * 30 * 86400 / config.poll)
    if config.per_month == 0 or needed <= config.per_month or store:get "ahead" then return end
    store:put("ahead", true, ASKED)
    log.warn("polled so often, the month's calls to Tuya will not last: raise poll, or per_month if the project's plan allows",
      { devices = n, needed = needed, per_month = config.per_month,
        poll_at_least = ("%dm"):format(math.ceil(month * 30 * 1440 / config.per_month)) })
  end

  local function ids_in(seen)
    local ids = json.array {}
    for id in pairs(seen) do ids[#ids + 1] = id end
    return ids
  end

  --- The project's devices, all of them: a job. It raises where Tuya cannot be reached.
  function sync.devices()
    local began, seen, n = time.now(), {}, 0
    local kept = store:get "list" or { page_no = 1, ids = {} } -- of a list that took too long for one step
    local last, page_no = kept.last, kept.page_no
    for _, id in ipairs(kept.ids) do seen[id], n = true, n + 1 end
    while true do
      local asked_at = time.now()
      local result, t = list_page(last, page_no)
      if result == nil then error(t, 0) end
      local devices = type(result) == "table" and result.devices
      if type(devices) ~= "table" then error("tuya: the answer to a list of devices has none", 0) end
      local added = keep_devices(devices, t, asked_at, seen)
      last, page_no, n = result.last_id, page_no + 1, n + added
      if #devices < PAGE or added == 0 or not config.uid and (type(last) ~= "string" or last == "") then break end
      if time.now() - began >= STEP then
        store:put("list", { last = last, page_no = page_no, ids = ids_in(seen) }, ASKED)
        return "0s"
      end
    end
    store:delete "list"
    forget_others(seen)
    look_ahead(n)
  end

  -- What lists do not have

  local function asked(key)
    if store:get(key) then return true end
    store:put(key, true, ASKED)
  end

  -- What a call gave, nil where it was refused; anything else is trouble with all of Tuya.
  local function optional(result, why, code)
    if result ~= nil or cloud.is_refusal(code) then return result end
    error(why, 0)
  end

  local function ask_serials(list)
    local ids, by_id = {}, {}
    for _, row in ipairs(list) do
      if not row.serial and #ids < 20 and not asked("factory/" .. row.device) then
        ids[#ids + 1], by_id[row.device] = row.device, row
      end
    end
    if #ids == 0 then return 0 end
    for _, f in ipairs(optional(cloud.call("GET", "/v1.0/devices/factory-infos", { device_ids = table.concat(ids, ",") })) or {}) do
      local row = by_id[f.id]
      if row then
        row.extra = row.extra or {}
        row.extra.mac = type(f.mac) == "string" and f.mac or nil
        local serial = type(f.sn) == "string" and f.sn ~= "" and f.sn or type(f.uuid) == "string" and f.uuid or nil
        plugin:device { device = row.device, serial = serial, extra = row.extra }
      end
    end
    return 1
  end

  local function ask_gateway(gateway, by_id)
    local subs = optional(cloud.call("GET", ("/v1.0/devices/%s/sub-devices"):format(gateway.device)))
    for _, d in ipairs(subs or {}) do
      local row = by_id[d.id]
      if row and row.extra.gateway_id ~= gateway.device then
        row.extra.gateway_id = gateway.device
        plugin:device { device = row.device, extra = row.extra }
      end
    end
  end

  --- Serial numbers, MAC addresses, and which gateway a sub-device is behind: a few calls each time, a job.
  function sync.details()
    local list, by_id, after = {}, {}, nil
    repeat
      local page = rows { after = after, limit = 1000, except_status = "unbound" }
      for _, row in ipairs(page) do
        list[#list + 1], by_id[row.device], after = row, row, row.id
      end
    until #page < 1000
    local calls = ask_serials(list)
    local homes = {} -- in which a sub-device's gateway is not known
    for _, row in ipairs(list) do
      local extra = row.extra or {}
      if extra.sub == true and not extra.gateway_id then homes[row.place or ""] = true end
    end
    for _, row in ipairs(list) do
      if calls < EXTRA and homes[row.place or ""] and not (row.extra and row.extra.sub) and not asked("subs/" .. row.device) then
        ask_gateway(row, by_id)
        calls = calls + 1
      end
    end
  end

  -- Logs

  -- A log's text as the value that the status has: the text "1" may be a number, or a choice of that name.
  local function value_of(text, like)
    if type(like) == "string" then return text end
    if text == "true" then return true elseif text == "false" then return false end
    local n = text:find "^%-?%d+%.?%d*$" and tonumber(text) or text:find "^%-?%d[%d.]*[eE][-+]?%d+$" and tonumber(text)
    return n or text
  end

  local function emit(row, code, value, at, from)
    local n, unit = scale.of(row.extra and row.extra.category, code, config.scale)
    local neutral = scale.to_neutral(value, n)
    plugin:emit { device = row.device, metric = code, value = neutral, unit = math.type(neutral) and unit or nil, at = at,
      extra = from and from ~= "1" and { event_from = from } or nil }
  end

  local function keep_log(row, entry, like, newest)
    local at, id = math.tointeger(tonumber(entry.event_time)), math.tointeger(tonumber(entry.event_id))
    local from = entry.event_from ~= json.null and entry.event_from ~= nil and tostring(entry.event_from) or nil
    local code = type(entry.code) == "string" and entry.code ~= "" and entry.code or nil
    if not at or not id then return end
    local value = entry.value
    if value == json.null or type(value) == "table" then value = nil end
    if id == logs.READING then
      if not code or value == nil then return end
      if type(value) == "string" then value = value_of(value, like[code]) end
      emit(row, code, value, at, from)
      if not newest[code] or newest[code].at <= at then newest[code] = { at = at, value = value } end
    elseif logs.event_of(id) then
      plugin:event { device = row.device, type = logs.event_of(id), at = at, key = code,
        data = { event_from = from, code = code, value = value } }
    end
  end

  local function log_query(window, place)
    local query = { type = ALL_TYPES, start_time = window.from, end_time = window.to, size = PAGE }
    if config.logs == "paid" then
      query.query_type = 2
      query.last_row_key, query.last_event_time = place and place.row or nil, place and place.at or nil
    else
      query.start_row_key = place and place.row or nil
    end
    return query
  end

  -- Where the next page begins, or nil at the end.
  local function next_place(result, entries)
    if not result.has_next or #entries == 0 then return nil end
    if config.logs == "paid" then return { row = entries[#entries].row, at = entries[#entries].event_time } end
    return type(result.next_row_key) == "string" and { row = result.next_row_key } or nil
  end

  -- Fetches a few pages of the window. Entries oldest first; and where to go on, nil at the window's end.
  local function fetch(row, window)
    local began, list, place = time.now(), {}, window.place
    local path = ("/v1.0/devices/%s/logs"):format(row.device)
    for _ = 1, PAGES do
      local result, why, code = cloud.call("GET", path, log_query(window, place))
      if result == nil and #list > 0 and not cloud.is_refusal(code) then break end -- what has come is kept; it goes on from there
      if result == nil then return nil, why, code end
      local entries = type(result) == "table" and result.logs
      if type(entries) ~= "table" then return nil, "tuya: the answer to a query of logs has none", "format" end
      for _, e in ipairs(entries) do list[#list + 1] = e end
      place = next_place(result, entries)
      if not place or time.now() - began >= STEP then break end
    end
    for i = 1, #list // 2 do list[i], list[#list + 1 - i] = list[#list + 1 - i], list[i] end
    return list, place
  end

  -- A code's value that no log has told is a reading as of when it was seen. One that was logged before may be on its way: it is
  -- taken at the next look, if it is still so.
  local function tell_status(row, status, newest, logged)
    for _, r in ipairs(data:latest(row.device, row.vendor)) do
      if not newest[r.metric] or newest[r.metric].at < r.at then
        local n = scale.of(row.extra and row.extra.category, r.metric, config.scale)
        newest[r.metric] = { at = r.at, value = scale.to_tuya(r.value, n) }
      end
    end
    local waits
    for code, value in pairs(status.values) do
      local known = newest[code]
      if not known or known.value ~= value and known.at < status.t and (not logged or status.looked > 0) then
        emit(row, code, value, status.t)
      elseif known.value ~= value and known.at < status.t then
        waits = true
      end
    end
    if waits then
      status.looked = status.looked + 1
      store:put("status/" .. row.device, status)
    end
  end

  -- One step for one device. true: there is more of it.
  local function step(row)
    local status = store:get("status/" .. row.device) or { t = 0, values = {}, looked = 0 }
    local key, newest = "logs/" .. row.device, {}
    local logged = config.logs ~= "none" and not (row.extra and row.extra.logs == false)
    if logged then
      local kept = store:get("window/" .. row.device)
      local now = time.now()
      local window = kept or windows.next(store, key, { since = config.since or now - WEEK, span = SPAN, overlap = config.overlap,
        now = now })
      local list, place, code = fetch(row, window)
      if not list and code == "unsupported" then
        row.extra = row.extra or {}
        row.extra.logs, logged = false, false
        plugin:device { device = row.device, extra = row.extra }
      elseif not list and cloud.is_refusal(code) then
        log.warn("a device's logs are refused; they are asked for again with the next poll", { device = row.device, why = place })
        store:delete("window/" .. row.device) -- its place may be what was refused
        return false
      elseif not list then
        error(place, 0)
      else
        for _, entry in ipairs(list) do
          if type(entry) == "table" then keep_log(row, entry, status.values, newest) end
        end
        window.place = place
        store:put("window/" .. row.device, place and window)
        if place then return true end
        windows.done(store, key, window)
        if window.more then return true end
      end
    end
    tell_status(row, status, newest, logged)
    return false
  end

  --- The next step of the devices' logs, one device after the other: a job, which runs again at once until all are done.
  function sync.logs()
    local after = store:get "at"
    local row = rows { after = after, limit = 1, except_status = "unbound" }[1]
    if not row then
      store:delete "at"
      return nil
    end
    if not step(row) then store:put("at", row.id) end
    return "0s"
  end

  return sync
end
