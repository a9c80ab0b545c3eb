---@meta neap.log
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.log: log.debug, info, warn, error(text [, { name = value, … }]): one line of the host's log with the plugin's
---name in it.
local log = {}

---Writes a line.
---@param text any
---@param fields? table<string, any> shown by their names
---@return boolean # written false where the log's level or limits.log leaves the line out
function log.debug(text, fields) end

---Writes a line.
---@param text any
---@param fields? table<string, any> shown by their names
---@return boolean # written false where the log's level or limits.log leaves the line out
function log.info(text, fields) end

---Writes a line.
---@param text any
---@param fields? table<string, any> shown by their names
---@return boolean # written false where the log's level or limits.log leaves the line out
function log.warn(text, fields) end

---Writes a line.
---@param text any
---@param fields? table<string, any> shown by their names
---@return boolean # written false where the log's level or limits.log leaves the line out
function log.error(text, fields) end

return log
