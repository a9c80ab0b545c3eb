-- MQTT discovery of Home Assistant (https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery): what it is to know of a
-- device's metric. Such a message is retained, at PREFIX/COMPONENT/OBJECT/config.
local crypto = require "neap.crypto"
local json = require "neap.json"

local homeassistant = {}

-- Units as Home Assistant writes them.
local UNITS = { Cel = "°C", ["[degF]"] = "°F", K = "K", Pa = "Pa", hPa = "hPa", kPa = "kPa", mbar = "mbar", ["/min"] = "bpm" }
-- Device classes, each with the units that it may have.
local CLASSES = {
  blood_glucose_concentration = { ["mg/dL"] = true, ["mmol/L"] = true },
  temperature = { ["°C"] = true, ["°F"] = true, K = true },
  humidity = { ["%"] = true },
  battery = { ["%"] = true },
  weight = { kg = true, g = true, lb = true },
  pressure = { Pa = true, hPa = true, kPa = true, mbar = true },
}
local CLASS_OF = { glucose = "blood_glucose_concentration", temp = "temperature", temperature = "temperature",
  humidity = "humidity", battery = "battery", weight = "weight", pressure = "pressure" }

-- A payload is { reading = { … } } or the reading itself. What is not valid is shown as unknown, and not like the rest.
local VALUE = "{%% set r = value_json.reading | default(value_json) %%}"
  .. "{%% if r.quality | default('valid', true) == 'valid' %%}{{ %s }}{%% else %%}{{ None }}{%% endif %%}"

local function slug(s) return (s:gsub("[^%w_-]", "_")) end

-- Letters, digits, "_" and "-", and different for different ones.
local function object_of(r)
  local name = slug(r.device) .. "_" .. slug(r.metric)
  return name .. "_" .. crypto.sha256(r.device .. "\0" .. r.metric):sub(1, 8)
end

--- The message that makes a metric of a device known.
---@param r table the reading
---@param about { prefix: string, topic: string, availability: string, qos: integer, expire_after: number? }
---@return neap.MqttMessage
function homeassistant.config(r, about)
  local object, boolean = object_of(r), type(r.value) == "boolean"
  local unit = type(r.unit) == "string" and (UNITS[r.unit] or r.unit) or nil
  local class = CLASS_OF[r.metric]
  if class and not CLASSES[class][unit or ""] then class = nil end
  local config = {
    name = r.metric, unique_id = "neap_" .. object, object_id = object,
    state_topic = about.topic, availability_topic = about.availability, qos = about.qos,
    value_template = VALUE:format(boolean and "'ON' if r.value else 'OFF'" or "r.value"),
    device = { identifiers = json.array { "neap_" .. r.device }, name = r.device, manufacturer = r.vendor },
    origin = { name = "neap" },
    expire_after = about.expire_after and math.ceil(about.expire_after) or nil,
  }
  if type(r.value) == "number" then
    config.unit_of_measurement, config.device_class, config.state_class = unit, class, "measurement"
  end
  return { topic = ("%s/%s/%s/config"):format(about.prefix, boolean and "binary_sensor" or "sensor", object),
    payload = json.encode(config), qos = 1, retain = true, content_type = "application/json" }
end

return homeassistant
