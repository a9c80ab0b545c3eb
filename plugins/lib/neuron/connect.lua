-- Neuron's connect face: neap as a client of the platform. Polls devices, newest values and history, pushes what rules send, and
-- offers it all by `neap call`.
local crypto = require "neap.crypto"
local http = require "neap.http"
local json = require "neap.json"
local log = require "neap.log"
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

local function list_of(data) return json.is_array(data) and data or {} end

--- Registers jobs, deliveries and commands of a connection that has a url.
return function(plugin, config, s)
  for _, name in ipairs { "secret_id", "key", "public_key" } do
    if not config[name] then error(("%s: needed where a url is set: it came with the platform's token"):format(name), 0) end
  end
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

  -- What the courier is told. A refused batch (400, 413) is tried again one by one by it; what is there already has arrived.
  local function outcome(data, why, code, res)
    if data ~= nil or code == 1000 then return true end
    if code == 400 then return { status = 400, body = why } end
    if code == "http" and (res.status == 413 or res.status == 429 or res.status >= 500) then return res end
    return nil, why
  end

  local COMMANDS = {
    push = function(args) return push(args.records or { args }) end,
    dataset = function(args) return push_dataset(args.name or "", args.records or {}, args.project) end,
  }

  plugin:deliver {
    about = "Pushes readings, and the commands push and dataset.", batch = MOST,
    handler = function(messages)
      local records, reading = {}, messages[1].data.reading
      local row = reading and plugin.data:device(reading.device, reading.vendor) -- messages are one device's
      for i, m in ipairs(messages) do
        reading = m.data.reading
        if not reading and #messages > 1 then return { status = 400, body = "commands go one by one" } end
        records[i] = reading and record(reading, row)
        if reading and not records[i].buildingName then
          return { status = 400, body = "no building: set building, or the device's place" }
        end
      end
      if records[1] then return outcome(push(records)) end
      local command = COMMANDS[messages[1].data.command]
      if not command then return { status = 400, body = "a message has to carry a reading, or the command push or dataset" } end
      return outcome(command(messages[1].data.args or {}))
    end,
  }

  -- 2. Polling. A run does a part and commits it with how far it has come; then it goes on at once.

  plugin:every(config.devices, "devices", function()
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

  -- Calls one(row) for the next devices of this connection. `more` from it keeps the place. "0s" while there are devices left.
  local function walk(key, one)
    local began, after = time.now(), plugin.store:get(key)
    local rows = plugin.data:devices { connection = plugin.name, vendor = "neuron", after = after, limit = STEP }
    for _, row in ipairs(rows) do
      if one(row) then
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

  -- A device that the platform knows no more, or fails on, does not keep the others waiting; anything else ends the run.
  local function of_device(row, data, why, code)
    if data ~= nil then return list_of(data) end
    if code ~= 404 and code ~= 400 and code ~= 500 then error(why, 0) end
    log.warn("the platform gives nothing of a device", { device = row.device, why = why })
  end

  plugin:every(config.poll, "values", function()
    return walk("values.after", function(row)
      if not row.serial then return end -- without a devEui: its history alone
      local path = ("/device/v1/realtime/%s/values"):format(escape(row.serial))
      for _, v in ipairs(of_device(row, call("GET", path, {})) or {}) do shape.emit(s, plugin, v) end
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
    local list = of_device(row, call("POST", "/device/v1/realtime/history", { body = body, project = config.project }))
    for _, v in ipairs(list or {}) do shape.emit(s, plugin, v) end
    windows.done(plugin.store, key, w)
    return w.more
  end

  plugin:every(config.history, "history", function()
    return walk("history.after", function(row)
      if not row.name then return end
      local numbers, texts = history_of(row, "VALUE"), history_of(row, "READING")
      return numbers or texts
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
