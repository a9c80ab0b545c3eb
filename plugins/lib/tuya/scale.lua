-- Decimal scales and units of Tuya's standard status codes: cur_voltage 2196 at scale 1 is 219.6 V. A product may differ, and the
-- vendor's own metadata is sometimes wrong: a connection's setting `scale` counts before these tables.
local scale = {}

local COMMON = {
  cur_voltage = { 1, "V" }, cur_power = { 1, "W" }, cur_current = { 0, "mA" }, add_ele = { 3, "kW.h" },
  va_temperature = { 1, "Cel" }, va_humidity = { 0, "%" }, va_battery = { 0, "%" },
  temp_current = { 0, "Cel" }, temp_set = { 0, "Cel" }, temp_current_f = { 0, "[degF]" }, temp_set_f = { 0, "[degF]" },
  temp_current_external = { 1, "Cel" }, temp_indoor = { 0, "Cel" }, temp_outdoor = { 0, "Cel" },
  humidity_current = { 0, "%" }, humidity_indoor = { 0, "%" }, humidity_value = { 0, "%" },
  battery_percentage = { 0, "%" }, residual_electricity = { 0, "%" }, battery_value = { 0, "mV" },
  co2_value = { 0, "[ppm]" }, co_value = { 0, "[ppm]" }, pm25 = { 0, "ug/m3" }, pm25_value = { 0, "ug/m3" }, pm10 = { 0, "ug/m3" },
  pm1 = { 0, "ug/m3" }, ch2o_value = { 2, "mg/m3" }, voc_value = { 2, "mg/m3" }, gas_sensor_value = { 0, "[ppm]" },
  bright_value = { 0, "lx" }, bright_sensitivity = { 0, "%" }, countdown = { 0, "s" }, countdown_1 = { 0, "s" },
  countdown_2 = { 0, "s" }, countdown_3 = { 0, "s" }, countdown_4 = { 0, "s" },
  forward_energy_total = { 2, "kW.h" }, reverse_energy_total = { 2, "kW.h" }, total_forward_energy = { 2, "kW.h" },
  water_total = { 3, "m3" }, percent_control = { 0, "%" }, percent_state = { 0, "%" },
}

-- Where a category's standard differs from the above.
local CATEGORIES = {
  wsdcg = { temp_current = { 1, "Cel" } },                          -- temperature and humidity sensors
  ldcg = { temp_current = { 1, "Cel" } },                           -- luminance sensors
  hjjcy = { va_temperature = { 0, "Cel" } },                        -- air housekeepers
  wkf = { temp_current = { 1, "Cel" }, temp_set = { 1, "Cel" } },   -- radiator valves
}

--- Scale and unit of a status code; nil where none is known.
---@param category string?
---@param code string
---@param own table? a connection's own: by "category.code" or "code"
---@return integer? scale, string? unit
function scale.of(category, code, own)
  local known = category and CATEGORIES[category] and CATEGORIES[category][code] or COMMON[code]
  local given = own and (own[tostring(category) .. "." .. code] or own[code])
  if given then return given, known and known[2] end
  if known then return known[1], known[2] end
end

--- A setting `scale`, checked: it raises where a scale is none.
function scale.check(own)
  for code, n in pairs(own) do
    if math.type(n) ~= "integer" or n < 0 or n > 12 then
      error(("scale.%s: expected an integer from 0 to 12, got %s"):format(code, tostring(n)), 0)
    end
  end
  return own
end

--- Tuya's value as the neutral one: 2196 is 219.6 at scale 1.
function scale.to_neutral(value, n)
  if math.type(value) and n and n > 0 then return value / 10 ^ n end
  return value
end

--- The neutral value as Tuya's integer, or as it is where there is no scale.
function scale.to_tuya(value, n)
  if math.type(value) ~= "float" and not (math.type(value) and n and n > 0) then return value end
  local raw = value * 10.0 ^ (n or 0)
  if not n or math.abs(raw) >= 2 ^ 53 then return value end
  if n == 0 and raw ~= math.floor(raw) then return value end -- a whole number of that unit cannot say it
  return math.tointeger(math.floor(raw + 0.5))
end

return scale
