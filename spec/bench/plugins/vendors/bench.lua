-- For `make bench`: bodies of many readings, once checked against a schema and once taken as they are.
local plugin = ...

local function take(req)
  local readings = req.body.readings
  for i = 1, #readings do
    local r = readings[i]
    plugin:emit { device = r.device, metric = r.metric, value = r.value, unit = "mmol/L", at = r.at }
  end
  return 204
end

plugin:serve {
  "POST /bench/batch", about = "Readings, each checked against the schema.",
  body = {
    readings = { "array", items = { "object", fields = {
      device = { "string", min = 1, max = 128 },
      metric = { "string", min = 1, max = 64 },
      value = { "number", min = 0, max = 100 },
      at = { "integer", min = 0 },
    } } },
  },
  handler = take,
}

plugin:serve { "POST /bench/loose", about = "The same without a schema.", handler = take }
