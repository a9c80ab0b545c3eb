-- A destination: each message becomes a line of a file, as NDJSON or CSV (RFC 4180), which is on disk before the message counts as
-- delivered. Files are put aside by day or by size.
local plugin = ... ---@type neap.Plugin
local file = require "neap.file"
local json = require "neap.json"
local log = require "neap.log"
local message = require "message"
local time = require "neap.time"

local config = plugin:config {
  folder = { "string", pattern = "/.+", about = "where files are written, a whole path: it has to be there" },
  file = { "string", optional = true, pattern = "[%w_][%w._-]*",
    about = "the file that grows; messages.ndjson or messages.csv where absent" },
  format = { "string", default = "ndjson", values = { "ndjson", "csv" }, about = "csv takes readings and alerts only" },
  rotate = { "string", default = "day", about = "when a file is put aside: day (UTC), a size such as 100MiB, or never" },
  timeout = { "duration", default = "30s" },
}

local UNITS = { KiB = 1 << 10, MiB = 1 << 20, GiB = 1 << 30 }
local daily, bytes_most = config.rotate == "day", nil
if not daily and config.rotate ~= "never" then
  local n, unit = config.rotate:match "^(%d+)(%aiB)$"
  bytes_most = n and #n < 7 and UNITS[unit] and tonumber(n) * UNITS[unit]
  if not bytes_most or bytes_most == 0 then error("rotate: expected day, never, or a size such as 100MiB", 0) end
end

local function ndjson(m)
  local device, source, body = json.encode(m.device), json.encode(m.source), m.json:gsub("[\r\n]", " ")
  local replayed = m.replayed and (',"replayed":%d,"about":%d'):format(m.replayed, m.about or m.created) or ""
  return ('{"id":"%s","created":%d,"device":%s,"source":%s%s,"body":%s}'):format(m.id, m.created, device, source, replayed, body)
end

local COLUMNS = { "id", "kind", "at", "device", "metric", "value", "unit", "quality", "trend", "key", "vendor", "connection",
  "title", "limit", "source", "replayed" }

-- A text that a spreadsheet would take for a formula gets a quote in front. There are no line breaks in a cell.
local function cell(value)
  if value == nil or value == json.null then return "" end
  local s = type(value) == "string" and value:gsub("[%c]", " "):gsub("^[=+@-]", "'%0") or json.encode(value)
  return s:find '[",]' and '"' .. s:gsub('"', '""') .. '"' or s
end

local function csv(m)
  local kind, what = message.read(m)
  if not kind then return nil, what end
  local row, cells = { id = m.id, kind = kind, source = m.source, replayed = m.replayed, at = time.format(what.at) }, {}
  for i, name in ipairs(COLUMNS) do
    local value = row[name]
    if value == nil then value = what[name] end
    cells[i] = cell(value)
  end
  return table.concat(cells, ",")
end

local csv_wanted = config.format == "csv"
local line = csv_wanted and csv or ndjson

plugin:deliver {
  batch = 500,
  concurrency = 1,
  handler = function(messages)
    local outcomes, lines, at = {}, {}, {}
    for i, m in ipairs(messages) do
      local text, why = line(m)
      if text then
        lines[#lines + 1] = { m.id, text }
        at[#at + 1] = i
      else
        outcomes[i] = { dead = why }
      end
    end
    if #lines == 0 then return outcomes end
    local done, why = file.append { folder = config.folder, name = config.file or "messages." .. config.format, lines = lines,
      head = csv_wanted and table.concat(COLUMNS, ",") or nil, daily = daily, bytes_most = bytes_most, timeout = config.timeout }
    for _, i in ipairs(at) do outcomes[i] = done ~= nil or why end
    if done and done.cut > 0 then log.warn("what a kill had left of a line was cut off", { bytes = done.cut }) end
    if done and done.known > 0 then log.info("lines that stood there already", { lines = done.known }) end
    return outcomes
  end,
}
