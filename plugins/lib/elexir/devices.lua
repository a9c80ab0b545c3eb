-- Elexir's devices, as they are served. A factory makes them known, an account registers one by its serial code. What decides whose
-- a device is stands in the plugin's store, so that of two who register it at one moment one is told that it is taken.
return function(plugin, users)
  local devices = {}
  local store = plugin.store

  local function owned_key(user_id, id) return ("owned/%010d/%010d"):format(user_id, id) end
  local function used_key(user_id, unique_id) return ("used/%010d/%s"):format(user_id, unique_id) end

  --- { id, unique_id, serial_code, model_id, modelname, mac_id, user_id, regdate (ms) }; letters count in either case.
  function devices.find(unique_id) return store:get("device/" .. unique_id:upper()) end

  --- The account's device of this number, or nil.
  function devices.own(user, id)
    local unique_id = store:get(owned_key(user.id, id))
    return unique_id and devices.find(unique_id)
  end

  --- The account's devices, by number.
  function devices.each(user)
    local next_id = users.each(("owned/%010d/"):format(user.id))
    return function()
      local unique_id = next_id()
      return unique_id and devices.find(unique_id)
    end
  end

  local function put(device)
    store:put("device/" .. device.unique_id, device)
    plugin:device {
      device = device.unique_id, serial = device.serial_code or "", model = device.modelname,
      owner = device.user_id and tostring(device.user_id) or "", status = device.user_id and "bound" or "unbound",
      extra = { id = device.id, model_id = device.model_id, mac_id = device.mac_id },
    }
  end

  --- Makes it the account's, or with user_id nil nobody's.
  function devices.bind(device, user_id, mac_id)
    local before = device.user_id
    if before then store:delete(owned_key(before, device.id)) end
    if user_id then store:put(owned_key(user_id, device.id), device.unique_id) end
    device.user_id, device.mac_id = user_id, mac_id or user_id == before and device.mac_id or nil -- it is the account's word
    put(device)
    if before ~= user_id then
      plugin:event { device = device.unique_id, type = "binding", data = { user_id = user_id, before = before } }
    end
  end

  --- Notes that there are logs of this account on this device, for devices change hands.
  function devices.used(user_id, unique_id)
    local key = used_key(user_id, unique_id)
    if not store:get(key) then store:put(key, unique_id) end
  end

  --- The set of devices that have logs of these accounts.
  function devices.used_by(user_ids)
    local set = {}
    for _, id in ipairs(user_ids) do
      for unique_id in users.each(used_key(id, "")) do set[unique_id] = true end
    end
    return set
  end

  --- A device from the factory, or more about one.
  function devices.add(args)
    local device = devices.find(args.unique_id)
      or { id = users.next_id "device", unique_id = args.unique_id:upper(), regdate = args.at }
    device.serial_code, device.model_id = args.serial_code or device.serial_code, args.model_id or device.model_id or 2
    device.modelname = args.modelname or device.modelname or "ELEXIR"
    put(device)
    return device
  end

  function users.removed(user)
    for device in devices.each(user) do devices.bind(device) end
  end

  return devices
end
