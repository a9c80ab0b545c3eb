-- What the specs of Elexir share: commands of a running host, and requests as the vendor's apps make them.
local bed = require "bed"
local json = require "neap.json"

local elexir = {}

--- Runs a command of a connection; its result. With `fails` true: what it printed instead.
function elexir.call(host, connection, name, args, fails)
  local out, code = bed.run { bed.neap, "call", "--store", host.store, connection, name, "--args", json.encode(args or {}) }
  if fails then
    assert(code ~= 0, "the command should have failed: " .. out)
    return out
  end
  assert(code == 0, ("neap call %s %s: %s"):format(connection, name, out))
  return assert(json.decode(out))
end

local function encode(text) return (text:gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end)) end

--- name=value&…, by name.
function elexir.form(fields)
  local parts = {}
  for name, value in pairs(fields) do parts[#parts + 1] = name .. "=" .. encode(tostring(value)) end
  table.sort(parts)
  return table.concat(parts, "&")
end

--- A request: options are token, query (a table), form (a table), body (a table, or text), headers, prefix. Status, what was answered, its text
--- and headers.
function elexir.request(host, method, path, options)
  options = options or {}
  local headers = {}
  for k, v in pairs(options.headers or {}) do headers[k] = v end
  if options.token then headers.authorization = "Bearer " .. options.token end
  local body = options.body
  if type(body) == "table" then body = json.encode(body) end
  if body and not headers["content-type"] then headers["content-type"] = "application/json" end
  if options.form then
    body, headers["content-type"] = elexir.form(options.form), "application/x-www-form-urlencoded"
  end
  if options.query then path = path .. "?" .. elexir.form(options.query) end
  if path:sub(1, 1) ~= "/" then path = (options.prefix or "/api/v1/legacy/") .. path end
  local status, text, fields = host:request(method, path, body, headers)
  assert(status, "no answer to " .. method .. " " .. path)
  assert(fields["content-type"] == "application/json", text)
  return status, assert(json.decode(text)), text, fields
end

function elexir.sign_in(host, email, password, prefix)
  local status, tokens, text = elexir.request(host, "POST", "auth/signin", { form = { username = email, password = password },
    prefix = prefix })
  assert(status == 200, text)
  return tokens
end

--- A log with these changes.
function elexir.log(changes)
  local l = { user_id = 1, model_id = 2, device_id = 1, fversion = 22.0, logdate = "2025-04-11T15:58:00", mode = 1, finish_flag = 1,
    last_intensity = 161.0, treatment_time = 1200, event_num = 2, log_data = "06008101f793466e1100800cb0043304" }
  for k, v in pairs(changes or {}) do l[k] = v end
  return l
end

return elexir
