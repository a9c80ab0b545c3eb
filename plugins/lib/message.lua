-- What a message is about, for destinations that write into somebody's format: a reading, as the rule forward sends it, or an alert,
-- as low-glucose does; and what an answer means that blames the settings rather than the message.
local message = {}

local function is_reading(r)
  return type(r) == "table" and type(r.metric) == "string" and type(r.device) == "string" and math.type(r.at) == "integer"
    and (type(r.value) == "number" or type(r.value) == "string" or type(r.value) == "boolean")
end

--- Reads a message's body: { reading = { device, metric, value, unit, at, … } } or such a table itself is a reading; one with a title,
--- { title, device, value, at, … }, is an alert, whose device and at are the message's where it says none.
---@param m table a message, as plugin:deliver's handler gets it
---@return "reading"|"alert"|nil kind
---@return table|string what or why it is neither
function message.read(m)
  local d = m.data
  if type(d) ~= "table" then return nil, "the message's body is not an object" end
  if is_reading(d.reading) then return "reading", d.reading end
  if is_reading(d) then return "reading", d end
  if type(d.title) == "string" then
    local alert = {}
    for k, v in pairs(d) do alert[k] = v end
    if type(alert.device) ~= "string" then alert.device = m.device end
    if math.type(alert.at) ~= "integer" then alert.at = m.created end
    return "alert", alert
  end
  return nil, "the message is neither a reading (device, metric, value, at) nor an alert (title)"
end

--- What a handler returns of an answer to all it has sent. Who is not let in, or asks where nothing is, has wrong settings: that
--- message is as good as any, and is tried again until somebody has mended them.
---@param res table? of neap.http
---@param why string?
---@return table? res
---@return string? why
function message.settle(res, why)
  if not res then return nil, why end
  if res.status ~= 401 and res.status ~= 403 and res.status ~= 404 then return res end
  return nil, ("answered %d, so the settings have to be mended: %s"):format(res.status, (res.body or ""):sub(1, 200))
end

return message
