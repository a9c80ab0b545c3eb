---@meta neap.time
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.time: times are integers, ms since 1970 UTC. Zones are base/zone.c's, text is time_text.c's.
local time = {}

---Now, in ms. In a rule that is when the reading was received.
---@return integer ms
function time.now() end

---Reads a time. Without a pattern: RFC 3339, and without an offset, read in the zone, yyyy-MM-dd HH:mm:ss (or with T;
---fractions are cut to ms), yyyy-MM-dd, yyyyMMdd. A pattern: yyyy MM dd HH mm ss SSS XXX, text in '…'; an offset in
---the text counts before the zone. A local time that clocks skip is read with the offset from before the gap; of one
---that comes twice the first is meant.
---@param text string
---@param zone? string IANA name, "UTC" (the default) or "+08:00"
---@param pattern? string
---@return integer|nil ms
---@return string? why
---@return "time"? code
function time.parse(text, zone, pattern) end

---Writes a time: as RFC 3339, with ms where there are any, or by a pattern.
---@param ms integer
---@param zone? string
---@param pattern? string
---@return string
function time.format(ms, zone, pattern) end

---Tells whether a zone exists, to check a setting.
---@param name string
---@return true|nil # , string? why, "time"? code
function time.zone(name) end

---Reads a duration: "15m", "1h30m", "250ms", "2d"; a number is seconds.
---@param d string|number
---@return integer|nil ms
---@return string? why
---@return "time"? code
function time.duration(d) end

---The parts of a time. weekday is 1 for Monday to 7; offset is in minutes.
---@param ms integer
---@param zone? string
---@return { year: integer, month: integer, day: integer, hour: integer, minute: integer, second: integer, ms: integer, weekday: integer, yearday: integer, offset: integer }
function time.parts(ms, zone) end

---The time of its parts: year is needed, month and day are 1 and the rest 0 where missing. An offset among them counts
---before the zone.
---@param parts table as time.parts gives it
---@param zone? string
---@return integer|nil ms
---@return string? why
---@return "time"? code
function time.from_parts(parts, zone) end

return time
