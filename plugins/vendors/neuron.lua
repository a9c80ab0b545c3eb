-- Neuron's building platform (its OpenAPI guide): serves the platform's endpoints from neap's own store, and calls the platform, or
-- another neap, where a url is set (lib/neuron/connect.lua).
-- Its keys are in lib/neuron/keys.lua, its words in shape.lua, data sets in datasets.lua, what an operator does in manage.lua.
local plugin = ... ---@type neap.Plugin
local json = require "neap.json"
local time = require "neap.time"
local crypto = require "neap.crypto"
local pages = require "pages"
local history = require "neuron.history"
local shape = require "neuron.shape"

local config = plugin:config {
  zone = { "string", default = "UTC", about = "of times without an offset" },
  padding = { "string", default = "pkcs1", values = { "pkcs1", "oaep" }, about = "of the encrypted key; the guide names none" },
  buildings = { "array", optional = true, items = { "string", min = 1, max = 128 }, about = "registered; more by a command" },
  projects = { "array", optional = true, items = { "string", min = 1, max = 128 }, about = "there are; without it, any" },
  datasets = { "object", optional = true,
    about = "{ name = { field = \"number\" } }: number, string, integer, boolean or datetime, then optional or key" },
  online_within = { "duration", default = "1h", about = "heard of within this time, a device is on line, unless told otherwise" },
  url = { "string", optional = true, about = "of the platform that is called" },
  serve = { "boolean", optional = true, about = "whether the endpoints are served; not by default where there is a url" },
  secret_id = { "string", optional = true, about = "the Key ID that the platform gave" },
  key = { "secret", optional = true, about = "the Key" },
  public_key = { "string", optional = true, about = "the Public Key, PEM or its base64" },
  project = { "string", optional = true, about = "the Platform Project ID, sent with data sets and histories" },
  building = { "string", optional = true, about = "where pushed readings belong; without it, the device's place" },
  pull = { "boolean", default = true, about = "whether the platform is asked; false where it is only pushed to" },
  poll = { "duration", default = "1m", min = 1, about = "between looks at the newest values" },
  devices = { "duration", default = "1h", min = 1, about = "between looks at the list of devices" },
  history = { "duration", default = "15m", min = 1, about = "between looks at what was missed" },
  since = { "duration", default = "7d", max = 604800, about = "how far back a history begins" },
  span = { "duration", default = "6h", min = 60, about = "of one request for history" },
  overlap = { "duration", default = "15m", about = "that is looked at again, for values that come late" },
}
local s = shape.new(plugin.name, config.zone)
local keys = require "neuron.keys".new(plugin, config.padding)
local datasets = require "neuron.datasets".new(plugin, config.datasets, s.read_time)
local lists = pages.new()

if config.url then require "neuron.connect"(plugin, config, s) end
if config.serve == false or config.url and not config.serve then return end

local CONTENT = { ["content-type"] = "application/json" }

local function answer(data)
  if data == nil then data = json.null end
  return 200, { code = 200, message = "success", isSuccess = true, data = data }
end

-- The guide's code is in the body, and HTTP's status is 200 with it, as for what went well; but what fails on the way, or in neap,
-- says so to proxies too. Records are counted from 0 in a field's name, as in JSON, and from 1 in words.
plugin:refuse(function(problem)
  local code, field, index = problem.kind, problem.field, nil
  if math.type(code) ~= "integer" then
    code = problem.status == 503 and 503 or problem.status >= 500 and 500 or 400
    if field == "" and code == 400 then field = problem.where end
  end
  field = field:gsub("%[(%d+)%]", function(n)
    index = index or tonumber(n)
    return ("[%d]"):format(n - 1)
  end)
  local message = (field ~= "" and field .. ": " or "") .. problem.reason .. (index and (" (record %d)"):format(index) or "")
  local on_the_way = problem.status >= 500 or problem.status == 413 or problem.status == 415
  return on_the_way and problem.status or 200, { code = code, message = message, isSuccess = false, data = json.null }
end)

local function auth(req)
  local id = keys.check(req.headers)
  if id then return id end
  return nil, "X-Source-SecretId and X-Source-SecretKey are not those of a valid key", 401
end

local function serve(route)
  route.auth = auth
  plugin:serve(route)
end

-- Names have no control characters.
local function name(t)
  t[1], t.min, t.max, t.pattern = "string", t.min or 1, t.max or 128, t.pattern or "%C+"
  return t
end
local function maybe(about, max) return name { optional = true, min = 0, pattern = "%C*", max = max, about = about } end
local function given(text) return text ~= "" and text or nil end
local DEV_EUI = { "string", min = 1, max = 128, pattern = "[^%c/]+", about = "unique identifier" }

local known_buildings, known_projects = {}, config.projects and {}
for _, b in ipairs(config.buildings or {}) do known_buildings[b] = true end
for _, p in ipairs(config.projects or {}) do known_projects[p] = true end

local function registered(building)
  return known_buildings[building] or plugin.store:get(shape.building_key(building)) ~= nil
end

local function project_of(req, needed)
  local project = given(req.headers["x-param-projectid"])
  if needed and not project then return nil, "missing: expected the platform's project id", 400, "X-Param-ProjectId" end
  if not project or not known_projects or known_projects[project] then return project or true end
  return nil, "there is no such project in this tenant", 428, "X-Param-ProjectId"
end

-- 1. Device time-series data push

-- What is wrong with the building of the nth record, or nil.
local function wrong_building(building, n, seen)
  if seen[building] == nil then seen[building] = registered(building) end
  if seen[building] then return nil end
  if not next(known_buildings) and not plugin.store:list("building/", { limit = 1 })[1] then
    return "no building is registered in this tenant yet", 429, ("[%d].buildingName"):format(n)
  end
  return "is not a registered building", 400, ("[%d].buildingName"):format(n)
end

-- When, and the reading's key. Without a time, records of one second are told apart by a key, for answers show whole seconds.
local function moment(record, received, n)
  local text = given(record.time)
  if text then return s.read_time(text) end
  return received // 1000 * 1000, crypto.uuid() .. "-" .. n
end

serve {
  "POST /dataPlatform/openapi", about = "Readings of devices, up to 1000.",
  body = { "array", min = 1, max = 1000, items = { "object", fields = {
    equipmentName = name { about = "device name" }, functionType = name { about = "device function point name" },
    buildingName = name { about = "has to be registered" }, time = maybe("data collection time; when it came, where absent", 64),
    devEui = name { optional = true, min = 0, max = 64, pattern = "[^%c/]*", about = "unique identifier for IoT devices" },
    value = { "number", optional = true, about = "this, or reading" }, unit = maybe("unit for the function point", 64),
    reading = { "string", optional = true, max = 1024, pattern = "%Z*", about = "this, or value" },
  } } },
  handler = function(req)
    local devices, order, seen = {}, {}, {}
    for i, r in ipairs(req.body) do
      local why, code, field = wrong_building(r.buildingName, i, seen)
      if why then return nil, why, code, field end
      if r.value == nil and r.reading == nil then
        return nil, "missing: expected value, a number, or reading, a string", 400, ("[%d].value"):format(i)
      end
      local at, key = moment(r, req.received, i)
      if not at then return nil, key, 400, ("[%d].time"):format(i) end
      local devEui = given(r.devEui)
      local device = devEui and s.id_of(devEui) or s.id_without(r.buildingName, r.equipmentName)
      plugin:emit { device = device, metric = r.functionType, value = r.value or r.reading, unit = given(r.unit), at = at,
        key = key, extra = r.value and r.reading and { reading = r.reading } or nil }
      if not devices[device] then order[#order + 1] = device end
      devices[device] = { device = device, serial = devEui, name = r.equipmentName, place = r.buildingName }
    end
    for _, device in ipairs(order) do plugin:device(devices[device]) end
    return answer()
  end,
}

-- 2. Devices

local function shown(row)
  return shape.device(s, row, plugin.data:latest(row.device, row.vendor), time.now(), config.online_within * 1000)
end

local function absent() return nil, "there is no such device", 404, "devEui" end

serve {
  "GET /device/v1/mn/page", about = "The devices of the tenant.",
  query = {
    current = { "integer", min = 1, max = 1000000000, about = "page, from 1" },
    size = { "integer", min = 1, max = 1000, about = "items per page" }, name = maybe "part of the device's name",
    devEui = maybe "exact", buildingName = maybe "exact", equModel = maybe "exact",
  },
  handler = function(req)
    local q = req.query
    local devEui = given(q.devEui)
    local filter = { name_has = given(q.name), place = given(q.buildingName), model = given(q.equModel),
      device = devEui and s.ids_of(plugin.data, devEui) or nil }
    local total = plugin.data:count("devices", filter)
    local key = table.concat({ filter.name_has or "", devEui or "", filter.place or "", filter.model or "" }, "\0")
    local function fetch(after, limit)
      filter.after, filter.limit = after, limit
      return plugin.data:devices(filter)
    end
    local rows = (q.current - 1) * q.size < total and lists:fetch(key, q.current, q.size, fetch) or {}
    local records = json.array {}
    for i, row in ipairs(rows) do records[i] = shown(row) end
    return answer { total = total, size = q.size, current = q.current, records = records }
  end,
}

serve {
  "GET /device/v1/mn/{devEui}", about = "One device.", path = { devEui = DEV_EUI },
  handler = function(req)
    local row = s.find(plugin.data, req.params.devEui)
    if not row then return absent() end
    return answer(shown(row))
  end,
}

serve {
  "GET /device/v1/realtime/{devEui}/values", about = "The newest value of each of a device's points.", path = { devEui = DEV_EUI },
  handler = function(req)
    local row = s.find(plugin.data, req.params.devEui)
    if not row then return absent() end
    local list = json.array {}
    for i, r in ipairs(plugin.data:latest(row.device, row.vendor)) do list[i] = shape.point(s, row, r) end
    return answer(list)
  end,
}

-- 3. History: once for a device's page of the guide, once for the data warehouse's with a project

serve {
  "POST /device/v1/realtime/history", about = "What a device's points were within the past week.", keep = false,
  body = {
    equipmentName = name { about = "exact" }, field = { "string", values = { "VALUE", "READING" }, about = "numbers or texts" },
    functionType = maybe "one point; all where absent",
    startTime = maybe("a week ago where absent", 64), endTime = maybe("now where absent", 64),
    equModel = maybe "exact",
  },
  handler = function(req)
    local b = req.body
    local project, problem, code, at = project_of(req)
    if not project then return nil, problem, code, at end
    local from, to, field = history.range(s, given(b.startTime), given(b.endTime), req.received)
    if not from then return nil, to, 400, field end
    local more = history.reader(plugin, s, history.named(plugin, b.equipmentName, given(b.equModel)),
      { metric = given(b.functionType), from = from, to = to }, b.field == "VALUE")
    local first = more()
    local second = first and more()
    if second then return 200, history.stream(first, second, more), CONTENT end
    return answer(first or json.array {})
  end,
}

-- 4. Data warehouse

serve {
  "POST /dataset/v1/{datasetName}", about = "Records of a data set, up to 1000.",
  path = { datasetName = name { about = "data set ID" } },
  body = { "array", min = 1, max = 1000, items = { "object" } },
  handler = function(req)
    local project, problem, code, at = project_of(req, true)
    if not project then return nil, problem, code, at end
    local dataset = datasets.find(req.params.datasetName)
    if not dataset then return nil, "there is no such data set", 404, "datasetName" end
    local done, why, kind, field = datasets.push(req.params.datasetName, dataset, req.body, req.received)
    if not done then return nil, why, kind, field end
    return answer()
  end,
}

for _, path in ipairs { "/dataPlatform/{path...}", "/device/v1/{path...}", "/dataset/v1/{path...}" } do
  serve { "* " .. path, handler = function(req)
    return nil, ("no such endpoint: %s %s"):format(req.method, utf8.len(req.path) and req.path or "(a path that is not UTF-8)"), 404
  end }
end

require "neuron.manage"(plugin, config, s, { keys = keys, datasets = datasets, buildings = known_buildings })
