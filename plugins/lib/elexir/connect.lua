-- Elexir's other face: one account of the vendor's cloud, or of another neap. Its devices and usage logs are fetched month by
-- month, and what the cloud offers can be called by commands, and by rules whose messages come here.
local http = require "neap.http"
local json = require "neap.json"
local message = require "message"
local neaplog = require "neap.log"
local time = require "neap.time"
local log = require "elexir.log"

local API = "/api/v1/legacy"

return function(plugin, config)
  for _, name in ipairs { "email", "password" } do
    assert(config[name], "elexir: url is set, so that this connection signs in there: it needs " .. name .. " too")
  end
  local url = config.url:gsub("/+$", "") .. API
  local store = plugin.store

  -- Signing in. Tokens last 15 minutes; a refresh token serves once, and one that does not match revokes the one that would.

  local function tokens_of(res, old)
    local t = res.json
    if type(t) ~= "table" or type(t.access_token) ~= "string" then return nil, "sign-in: the answer has no access_token" end
    local refresh = type(t.refresh_token) == "string" and t.refresh_token or old and old.refresh
    return { access = t.access_token, refresh = refresh, lifetime = math.type(t.expires_in) == "integer" and t.expires_in or 900 }
  end

  local account = plugin:account { "main", early = "2m", refresh = function(_, old)
    if old and old.refresh then
      local res, why = http.post { url = url .. "/auth/refresh-token", timeout = config.timeout,
        json = { refresh_token = old.refresh } }
      if not res then return nil, why end
      if res.status == 200 then return tokens_of(res, old) end
      if res.status == 429 or res.status >= 500 then return nil, "refresh: answered " .. res.status end
    end
    local res, why = http.post { url = url .. "/auth/signin", timeout = config.timeout,
      form = { username = config.email, email = config.email, password = config.password } }
    if not res then return nil, why end
    if res.status == 200 then return tokens_of(res) end
    if res.status == 401 then return nil, "sign-in: the password is wrong", "denied" end
    if res.status == 403 then return nil, "sign-in: there is no such account", "denied" end
    return nil, "sign-in: answered " .. res.status
  end }

  -- One call, with the token; with a new one where that is no good. nil, why, code where there is no answer to it.
  local function call(method, path, options)
    local res
    for _ = 1, 2 do
      local token, why, code = account:token()
      if not token then return nil, why, code end
      res, why, code = http.request { method = method, url = url .. "/device" .. path, timeout = config.timeout,
        bearer = token.access, query = options and options.query, json = options and options.json }
      if not res then return nil, why, code end
      if res.status ~= 401 then return res end
      account:expired(token)
    end
    return nil, method .. " " .. path .. ": the token is refused, and so is a new one", "denied"
  end

  -- What a person or a job wants: the answer's value; nil, why, the status.
  local function value_of(res, why, code)
    if not res then return nil, why, code end
    local value = res.json
    if res.status >= 200 and res.status < 300 and value ~= nil then return value end
    local detail = type(value) == "table" and value.detail
    if type(detail) == "table" then detail = json.encode(detail) end
    return nil, ("%s (%d)"):format(detail or "the answer is not JSON", res.status), res.status
  end

  local function array_of(path)
    local value, why = value_of(call("GET", path))
    if not value then return nil, path .. ": " .. why end
    if not json.is_array(value) then return nil, path .. ": expected an array" end
    return value
  end

  -- Devices. A log names its device by number: what that number is called here stays, for it is part of what a reading is known by.

  local function name_of(id, unique_id)
    local key = "name/" .. id
    local name = store:get(key)
    if not name then
      name = unique_id or plugin.name .. "-" .. id
      store:put(key, name)
    end
    return name
  end

  local function fetch_devices()
    local names = json.array()
    for i, d in ipairs(assert(array_of "/my-devices")) do
      if type(d) ~= "table" or math.type(d.id) ~= "integer" or type(d.unique_id) ~= "string" then
        error(("/my-devices: element %d is no device"):format(i), 0)
      end
      names[#names + 1] = name_of(d.id, d.unique_id)
      local function text(v) return v ~= nil and v ~= json.null and tostring(v) or "" end
      plugin:device { device = names[#names], serial = text(d.serialcode), model = text(d.modelname), owner = text(d.user_id),
        status = "bound", extra = { id = d.id, model_id = d.model_id, mac_id = d.mac_id, regdate = d.regdate } }
    end
    local still = {}
    for _, name in ipairs(names) do still[name] = true end
    for _, name in ipairs(store:get "devices" or {}) do
      if not still[name] then plugin:device { device = name, owner = "", status = "unbound" } end
    end
    store:put("devices", names)
  end

  -- Logs.

  -- Why this is no log, or nil; and when it began.
  local function read_log(l)
    if type(l) ~= "table" or math.type(l.id) ~= "integer" then return "it has no id" end
    for name, field in pairs(log.fields) do
      if field[1] == "string" and type(l[name]) ~= "string" then return name .. " is no string" end
      if field[1] ~= "string" and math.type(l[name]) == nil then return name .. " is no number" end
    end
    local at, why = log.time(l.logdate, config.zone)
    if not at then return "logdate: " .. why end
    return nil, at
  end

  local function fetch_month(month)
    for _, l in ipairs(assert(array_of("/my-devlog/" .. month))) do
      local why, at = read_log(l)
      if why then
        neaplog.error("elexir: a log is passed over: " .. why, { month = month, log = type(l) == "table" and tostring(l.id) })
      else
        log.emit(plugin, name_of(l.device_id), at, tostring(l.id), l)
      end
    end
  end

  local function month_of(ms) return time.format(ms, config.zone, "yyyy-MM") end
  local function move(month, n)
    local months = tonumber(month:sub(1, 4)) * 12 + tonumber(month:sub(6)) - 1 + n
    return ("%04d-%02d"):format(months // 12, months % 12 + 1)
  end

  -- One month at a time; its readings and the month that is next commit together. Past months are looked at again, for a device
  -- keeps its log until it is next connected to an app: what is there already is known by its id.
  plugin:every(config.poll, "fetch", function()
    local present = month_of(time.now())
    local state = store:get "months"
    if not state or state.since ~= config.since then
      state = { since = config.since, first = config.since or present, next = config.since or present }
    end
    if state.next > present then state.next = present end
    local month = state.next
    fetch_devices()
    fetch_month(month)
    local again = month < present
    state.next = again and move(month, 1) or move(present, -config.late)
    if state.next < state.first then state.next = state.first end
    store:put("months", state)
    return again and "0s" or nil
  end)

  -- What the cloud offers. Each gives what `call` gives.

  local unique_id = { "string", min = 1, max = 64 }
  local OFFERED = {
    devices = { about = "The account's devices.", args = {}, call = function() return call("GET", "/my-devices") end },
    check = { about = "Whether a device can be connected.", args = { unique_id = unique_id },
      call = function(args) return call("GET", "/check-device", { query = { unique_id = args.unique_id } }) end },
    connect = { about = "Registers a device to the account.",
      args = { unique_id = unique_id, serial_code = { "string" }, mac_id = { "string", optional = true } },
      call = function(args)
        return call("POST", "/set-my-device", { query = { unique_id = args.unique_id, serial_code = args.serial_code,
          mac_id = args.mac_id } })
      end },
    unconnect = { about = "Gives a device up.", args = { unique_id = unique_id },
      call = function(args) return call("PATCH", "/un-connect", { query = { unique_id = args.unique_id } }) end },
    upload = { about = "Uploads a usage log.", args = log.fields,
      call = function(args) return call("POST", "/devlog", { json = log.only(args, log.fields) }) end },
    ["upload.temp"] = { about = "Tells that a session begins or has ended.", args = log.temp_fields,
      call = function(args) return call("POST", "/devlog/temp", { json = log.only(args, log.temp_fields) }) end },
    lasttime = { about = "When a device was last used.", args = { device_id = { "integer", lenient = true } },
      call = function(args) return call("GET", ("/devlog/lasttime/%d"):format(args.device_id)) end },
    logs = { about = "The usage logs of a month.", args = { month = { "string", pattern = "%d%d%d%d%-%d%d" } },
      call = function(args) return call("GET", "/my-devlog/" .. args.month) end },
  }

  for _, name in ipairs { "devices", "check", "connect", "unconnect", "upload", "upload.temp", "lasttime", "logs" } do
    local offer = OFFERED[name]
    plugin:command { name, about = offer.about, args = offer.args, handler = function(args) return value_of(offer.call(args)) end }
  end

  -- A reading that is a log goes to the account's device of the same name, as its owner's.
  local function upload_reading(reading)
    if reading.metric == "last_intensity" then return true end -- it is in the treatment time's log
    local l = reading.extra
    if reading.metric ~= "treatment_time" or type(l) ~= "table" or type(l.log_data) ~= "string" then
      return { status = 422, body = "the reading is no usage log of an Elexir" }
    end
    local res, why = call("GET", "/my-devices")
    if not res then return nil, why end
    if res.status ~= 200 then return res end
    for _, d in ipairs(res.json) do
      if d.unique_id == reading.device:upper() then
        local copy = log.only(l, log.fields)
        copy.device_id, copy.model_id, copy.user_id, copy.logdate = d.id, d.model_id, d.user_id, time.format(reading.at)
        return OFFERED.upload.call(copy)
      end
    end
    return { status = 404, body = "the account has no device " .. reading.device }
  end

  plugin:deliver { handler = function(messages)
    local kind, reading = message.read(messages[1])
    if kind == "reading" then return upload_reading(reading) end
    local m = messages[1].data
    local offer = OFFERED[m.command]
    if not offer then return { status = 422, body = "a message is a reading, or one of the commands" } end
    return offer.call(type(m.args) == "table" and m.args or {})
  end }
end
