---@meta neap.file
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.file: file.append { folder =, name =, lines = { { id, text }, … } } adds lines to a file of that folder, and
---returns when they are on disk (fsync): { written, known, cut }, or nil, "what: why", and a code: folder, name, full,
---busy, timeout, other. Then nothing was added. It looks as if it blocked, while the lane does other work. Only the
---folder that a setting named `folder` has in neap.lua can be written to; a default of the plugin's does not count. A
---line whose id stands near the file's end already (in the last MiB) is not written again; ids are of one length and
---stand at the same place of each line. What a kill has left of a line is cut off. Options: head (the first line of each
---file), bytes_most and daily (when the file is put aside as name-20260301T080000Z.ext), timeout (seconds, 30 where
---absent).
local file = {}

---What has become of lines.
---@class neap.Appended
---@field written integer lines
---@field known integer lines that stood there already
---@field cut integer bytes that were left of a line

---What file.append takes.
---@class neap.AppendOptions
---@field folder string as the setting `folder` says it
---@field name string "readings.csv"
---@field lines string[][] a list of { id, text }
---@field head? string the first line of each file
---@field bytes_most? number a file is put aside before it grows past that
---@field daily? boolean a file that was last changed on an earlier day (UTC) is put aside
---@field timeout? number seconds; 30 where absent

---Adds lines, and waits until they are on disk.
---@param options neap.AppendOptions
---@return neap.Appended? done
---@return string? why
---@return string? code
function file.append(options) end

return file
