-- Neuron's connect face: neap as a client of the platform. Polls devices, newest values and history, pushes what rules send, and
-- offers it all by `neap call`.
local crypto = require "neap.crypto"
local http = require "neap.http"
local json = require "neap.json"
local log = require "neap.log"
local told = require "message"
local time = require "neap.time"
local windows = require "windows"
local shape = require "neuron.shape"

local MOST = 1000 -- records of one push
local PAGE = 100 -- devices of one page
local STEP = 20 -- devices of one run of a job
local LONG = 40000 -- ms: then a run ends, commits, and goes on at once

-- What a person can do about a code.
local ADVICE = {
  [400] = "the request is refused",
  [401] = "the key is refused: issue another in the platform's Token Management and set secret_id, key and public_key"
    .. " (where they are right: padding)",
  [404] = "there is no such endpoint, device or data set: is url right?",
  [428] = "there is no such user, tenant or project: is project right?",
  [429] = "the user is not registered there (it is not asked too often): register the tenant and its buildings",
  [500] = "the platform failed",
  [503] = "the platform is busy",
  [1000] = "the data is there already",
}

local function said(code, message)
  local advice = ADVICE[code]
  local quoted = type(message) == "string" and message ~= "" and " (" .. message:sub(1, 200) .. ")" or ""
  return ("%d%s%s"):format(code, advice and ": " .. advice or "", quoted)
end

-- The client: call(method, path, options) gives data (json.null where there is none), or nil, why, code and the HTTP answer. The
-- code is the platform's number, or "http" for an answer that is not the platform's, or neap.http's for one that never came.
local function new_client(config)
  local url = config.url:gsub("/+$", "")

  local function headers(project)
    local box, why = crypto.rsa.encrypt(config.public_key, config.key, { padding = config.padding })
    if not box then error("public_key: " .. why, 0) end
    return { ["X-Source-SecretId"] = config.secret_id, ["X-Source-SecretKey"] = crypto.base64(box),
      ["X-Param-ProjectId"] = project }
  end
  headers() -- a public key that is none is told now

  return function(method, path, options)
    local res, why, code = http.request { method = method, url = url .. path, query = options.query, json = options.body,
      headers = headers(options.project), timeout = 30 }
    if not res then return nil, why, code end
    local answer = res.json
    if type(answer) ~= "table" or math.type(answer.code) ~= "integer" then
      return nil, ("answered %d without a code in its body: is url the platform's?"):format(res.status), "http", res
    end
    if answer.code ~= 200 or answer.isSuccess == false then return nil, said(answer.code, answer.message), answer.code, res end
    return answer.data == nil and json.null or answer.data
  end
end

local function escape(segment)
  return (segment:gsub("[^%w%-_.~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function ms(seconds) return math.tointeger(seconds * 1000 // 1) end

local function list_of(data) return json.is_array(data) and data or {} end -- nil too

--- Registers jobs, deliveries and commands of a connection that has a url.
return function(plugin, config, s)
  for _, name in ipairs { "secret_id", "key", "public_key" } do
    if not config[name] then error(("%s: needed where a url is set: it came with the platform's token"):format(name), 0) end
  end
  if config.overlap >= config.span then error("overlap: has to be shorter than span", 0) end
  local call = new_client(config)

  local function must(...)
    local data, why = ...
    if data == nil then error(why, 0) end
    return data
  end

  -- 1. Pushing

  local function record(reading, row)
    local v = reading.value
    local extra = type(reading.extra) == "table" and reading.extra.reading
    return {
      time = s.write_time(reading.at), equipmentName = row and row.name or reading.device, functionType = reading.metric,
      buildingName = config.building or row and row.place, devEui = row and row.vendor == "neuron" and row.serial or nil,
      value = type(v) == "number" and v or nil, unit = reading.unit,
      reading = type(v) == "string" and v or type(v) == "boolean" and tostring(v) or type(extra) == "string" and extra or nil,
    }
  end

  local function push(records) return call("POST", "/dataPlatform/openapi", { body = json.array(records) }) end

  local function push_dataset(name, records, project)
    return call("POST", "/dataset/v1/" .. escape(name), { body = json.array(records), project = project or config.project })
  end

  -- What the courier is told of a message: 4xx is a dead letter, a text is tried again. What is there already has arrived.
  local function outcome(data, why, code, res)
    if data ~= nil or code == 1000 then return true end
    if code == 400 then return { status = 400, body = why } end
    if code == "http" and (res.status == 413 or res.status == 429 or res.status >= 500) then return res end
    return why
  end

  local function is_refused(result) return type(result) == "table" and (result.status == 400 or result.status == 413) end

  -- Pushes the records of those messages. Of a batch that is refused, or of which something is there already, each half is tried
  -- again: what is wrong with one record keeps no other from arriving, and of one alone it is known whether it is there.
  local function push_halves(indexes, records, outcomes, from, to)
    local data, why, code, res = push { table.unpack(records, from, to) }
    local result = outcome(data, why, code, res)
    if (is_refused(result) or code == 1000) and from < to then
      local middle = (from + to) // 2
      push_halves(indexes, records, outcomes, from, middle)
      push_halves(indexes, records, outcomes, middle + 1, to)
      return
    end
    for i = from, to do outcomes[indexes[i]] = result end
  end

  local COMMANDS = {
    push = function(args) return push(args.records or { args }) end,
    dataset = function(args) return push_dataset(args.name or "", args.records or {}, args.project) end,
  }

  plugin:deliver {
    about = "Pushes readings, and what the commands push and dataset push.", batch = MOST,
    handler = function(messages)
      local outcomes, indexes, records, rows = {}, {}, {}, {}
      local function flush()
        if #records > 0 then push_halves(indexes, records, outcomes, 1, #records) end
        indexes, records = {}, {}
      end
      for i, m in ipairs(messages) do
        local kind, reading = told.read(m)
        if kind == "reading" then
          local key = (reading.vendor or "") .. "\0" .. reading.device
          if rows[key] == nil then rows[key] = plugin.data:device(reading.device, reading.vendor) or false end
          local r = record(reading, rows[key] or nil)
          outcomes[i] = not r.buildingName and "no building: set building, for the device has no place"
          if r.buildingName then indexes[#indexes + 1], records[#records + 1] = i, r end
        else
          flush()
          local command, args = COMMANDS[m.data.command], m.data.args
          outcomes[i] = command and outcome(command(type(args) == "table" and args or {}))
            or { status = 400, body = "a message has to carry a reading, or the command push or dataset" }
        end
      end
      flush()
      return outcomes
    end,
  }

  -- 2. Polling. A run does a part and commits it with how far it has come; then it goes on at once.

  local function every(period, name, run)
    if config.pull then plugin:every(period, name, run) end
  end

  every(config.devices, "devices", function()
    local page = plugin.store:get "devices.page" or 1
    local data = must(call("GET", "/device/v1/mn/page", { query = { current = page, size = PAGE } }))
    local records = list_of(data.records)
    for _, d in ipairs(records) do shape.keep(s, plugin, d) end
    if #records < PAGE then
      plugin.store:delete "devices.page"
      return
    end
    plugin.store:put("devices.page", page + 1)
    return "0s"
  end)

  -- Calls one(row) for the next devices of this connection. It returns whether it has more to do for this one, and why it could
  -- not. A failure ends the run: what went before is kept where there is any, and the next run begins with the device that failed.
  local function walk(key, one)
    local began, first = time.now(), plugin.store:get(key)
    local after = first
    local rows = plugin.data:devices { connection = plugin.name, vendor = "neuron", after = first, limit = STEP }
    for _, row in ipairs(rows) do
      local more, why = one(row)
      if why and after == first then error(why, 0) end
      if why then log.warn("asking goes on with this device", { device = row.device, why = why }) end
      if why or more then
        plugin.store:put(key, after)
        return "0s"
      end
      after = row.id
      if time.now() - began > LONG then break end
    end
    if #rows == 0 or #rows < STEP and after == rows[#rows].id then
      plugin.store:delete(key)
      return
    end
    plugin.store:put(key, after)
    return "0s"
  end

  -- Emits what the platform gives of a device; returns why it has to be asked again. A device that it knows no more, or fails on,
  -- does not keep the others waiting.
  local function take(row, data, why, code)
    if data == nil and code ~= 404 and code ~= 400 and code ~= 500 then return why end
    if data == nil then log.warn("the platform gives nothing of a device", { device = row.device, why = why }) end
    for _, v in ipairs(list_of(data)) do shape.emit(s, plugin, v) end
  end

  every(config.poll, "values", function()
    return walk("values.after", function(row)
      if not row.serial then return end -- without a devEui: its history alone
      return false, take(row, call("GET", ("/device/v1/realtime/%s/values"):format(escape(row.serial)), {}))
    end)
  end)

  local function history_of(row, field)
    local now, key = time.now(), ("history/%s/%s"):format(crypto.sha256(row.device), field)
    local oldest = now - shape.WEEK + 60000 -- a week back is refused by whose clock is ahead
    local since = math.max(now - ms(config.since), oldest)
    local upto = plugin.store:get(key)
    if upto and upto < oldest then
      log.warn("history older than a week cannot be had",
        { device = row.device, from = time.format(upto), to = time.format(oldest) })
    end
    local w = windows.next(plugin.store, key, { since = since, span = ms(config.span), overlap = ms(config.overlap), now = now })
    local body = { equipmentName = row.name, field = field, startTime = s.write_time(w.from // 1000 * 1000),
      endTime = s.write_time(w.to // 1000 * 1000) }
    local why = take(row, call("POST", "/device/v1/realtime/history", { body = body, project = config.project }))
    if why then return false, why end
    windows.done(plugin.store, key, w)
    return w.more
  end

  every(config.history, "history", function()
    return walk("history.after", function(row)
      if not row.name then return end
      local numbers, why = history_of(row, "VALUE")
      if why then return false, why end
      local texts
      texts, why = history_of(row, "READING")
      return numbers or texts, why
    end)
  end)

  -- 3. Commands

  local function command(name, about, args, handler) plugin:command { name, about = about, args = args, handler = handler } end
  local function text(about) return { "string", optional = true, about = about } end
  local function needed(about) return { "string", min = 1, about = about } end
  local ROW = { equipmentName = text(), functionType = text(), buildingName = text "the setting building where absent",
    devEui = text(), time = text "now where absent", value = { "number", optional = true }, reading = text(), unit = text() }

  -- In parts of as many as are taken at once; those that went before a failure stay pushed.
  local function in_parts(records, send)
    for from = 1, #records, MOST do
      local data, why, code = send { table.unpack(records, from, math.min(#records, from + MOST - 1)) }
      if data == nil then return nil, ("records from %d on: %s"):format(from, why), code end
    end
    return { pushed = #records }
  end

  local args = { records = { "array", optional = true, min = 1, items = { "object", fields = ROW } } }
  for k, v in pairs(ROW) do args[k] = v end
  command("push", "Pushes one reading, or records = [{…}].", args, function(a)
    local records = a.records or { a }
    a.records = nil
    for _, r in ipairs(records) do
      r.buildingName = r.buildingName or config.building
      r.time = r.time or s.write_time(time.now() // 1000 * 1000)
    end
    return in_parts(records, push)
  end)
  args = { name = needed "data set ID", project = text "the setting project where absent",
    records = { "array", min = 1, items = { "object" } } }
  command("dataset", "Pushes records of a data set.", args, function(a)
    return in_parts(a.records, function(part) return push_dataset(a.name, part, a.project) end)
  end)
  command("device", "A device, as the platform shows it.", { devEui = needed() }, function(a)
    return call("GET", "/device/v1/mn/" .. escape(a.devEui), {})
  end)
  args = { current = { "integer", default = 1 }, size = { "integer", default = 20 }, name = text(), devEui = text(),
    buildingName = text(), equModel = text() }
  command("devices", "A page of the devices.", args, function(a) return call("GET", "/device/v1/mn/page", { query = a }) end)
  command("values", "The newest values of a device's points.", { devEui = needed() }, function(a)
    return call("GET", ("/device/v1/realtime/%s/values"):format(escape(a.devEui)), {})
  end)
  args = { equipmentName = needed(), field = { "string", default = "VALUE" }, functionType = text(), startTime = text(),
    endTime = text(), equModel = text(), project = text() }
  command("history", "What a device's points were within the past week.", args, function(a)
    local project = a.project or config.project
    a.project = nil
    return call("POST", "/device/v1/realtime/history", { body = a, project = project })
  end)
end
