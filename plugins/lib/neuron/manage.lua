-- What an operator of Neuron's serve face does by `neap call`: buildings, devices, data sets, keys, and the sandbox.
local json = require "neap.json"
local sandbox = require "neuron.sandbox"
local shape = require "neuron.shape"

local place = shape.building_key

-- Adds what is given to what is known of the device.
local function set_device(plugin, s, args)
  local device = args.devEui and s.id_of(args.devEui)
  if not device and args.equipmentName and args.buildingName then device = s.id_without(args.buildingName, args.equipmentName) end
  if not device then return nil, "give devEui, or equipmentName and buildingName", "missing", "devEui" end
  local row = plugin.data:device(device, "neuron")
  local extra = row and row.extra or {}
  for _, field in ipairs { "alias", "location", "descriptions" } do extra[field] = args[field] or extra[field] end
  if args.points then
    extra.points = json.array {}
    for i, p in ipairs(args.points) do
      extra.points[i] = { metric = p.type, unit = p.unit, id = p.bmsId, writable = p.control or false }
    end
  end
  plugin:device { device = device, serial = args.devEui, name = args.equipmentName, place = args.buildingName,
    model = args.equModel, online = args.online, extra = extra }
  return { device = device }
end

--- Registers the commands. face: { keys, datasets, buildings = those of the settings, by name }.
return function(plugin, _, s, face)
  local function text(about) return { "string", optional = true, max = 128, pattern = "%C*", about = about } end

  plugin:command {
    "building", about = "Registers a building, or takes it away: readings are taken for registered ones alone.",
    args = { name = { "string", min = 1, max = 128, pattern = "%C+" }, remove = { "boolean", default = false } },
    handler = function(args)
      local there = plugin.store:get(place(args.name)) ~= nil
      if face.buildings[args.name] then return nil, "it is registered in the settings", 1000, "name" end
      if args.remove then
        if not there then return nil, "there is no such building", "values", "name" end
        plugin.store:delete(place(args.name))
      else
        if there then return nil, "data already exists: it is registered", 1000, "name" end
        plugin.store:put(place(args.name), args.name)
      end
      return { building = args.name, registered = not args.remove }
    end,
  }

  plugin:command {
    "buildings", about = "The registered buildings.",
    handler = function()
      local list, after = json.array {}, nil
      for name in pairs(face.buildings) do list[#list + 1] = name end
      repeat
        local page = plugin.store:list("building/", { after = after, limit = 100 })
        for _, e in ipairs(page) do list[#list + 1], after = e.value, e.key end
      until #page < 100
      table.sort(list)
      return list
    end,
  }

  plugin:command {
    "device.set", about = "Tells what cannot be learnt from readings: a device's alias, model, place, points.",
    args = {
      devEui = { "string", optional = true, min = 1, max = 64, pattern = "[^%c/]+" }, equipmentName = text "device name",
      buildingName = text "device building", alias = text(), equModel = text "device model", location = text(),
      descriptions = { "string", optional = true, max = 1024 }, online = { "boolean", optional = true },
      points = { "array", optional = true, max = 1000, items = { "object", only = true, fields = {
        type = { "string", min = 1, max = 128 }, unit = text(), bmsId = text(), control = { "boolean", optional = true },
      } } },
    },
    handler = function(args) return set_device(plugin, s, args) end,
  }

  plugin:command {
    "dataset.declare", about = "Declares a data set: fields = { field = \"number\" }, as in the settings.",
    args = { name = { "string" }, fields = { "object" } },
    handler = function(args) return face.datasets.declare(args.name, args.fields) end,
  }

  plugin:command {
    "records", about = "The records of a data set, in the order of arrival.",
    args = { dataset = { "string" }, after = { "string", optional = true },
      limit = { "integer", default = 100, min = 1, max = 1000 } },
    handler = function(args)
      if not face.datasets.find(args.dataset) then return nil, "there is no such data set", "values", "dataset" end
      return face.datasets.records(args.dataset, args.after, args.limit)
    end,
  }

  plugin:command {
    "keys.issue", about = "Issues a key: id, key and public key are shown this once.",
    args = { name = text "whose it is", padding = { "string", optional = true, values = { "pkcs1", "oaep" } } },
    handler = face.keys.issue,
  }
  plugin:command { "keys.list", about = "The keys there are.", handler = face.keys.list }
  plugin:command {
    "keys.revoke", about = "Takes a key away.", args = { secret_id = { "string", min = 1, max = 64 } },
    handler = face.keys.revoke,
  }

  plugin:command {
    "sandbox", about = "Fills an empty connection with an invented building.", args = { url = { "string" } },
    handler = function(args)
      local function any(prefix) return plugin.store:list(prefix, { limit = 1 })[1] end
      if next(face.buildings) or any "building/" or any "key/" then
        return nil, "this connection is in use: it has buildings or keys", "values"
      end
      plugin.store:put(place(sandbox.BUILDING), sandbox.BUILDING)
      face.datasets.declare(sandbox.DATASET, sandbox.FIELDS)
      local device = sandbox.fill(plugin, s)
      local key = face.keys.issue { name = "sandbox" }
      return { credentials = { secret_id = key.secret_id, key = key.key, public_key = key.public_key, devEui = device,
        buildingName = sandbox.BUILDING, datasetName = sandbox.DATASET },
        example = sandbox.example(args.url, key, device) }
    end,
  }
end
