-- Fetching a vendor's history in windows of time, step by step: how far it has come is kept in the plugin's store and commits with
-- what a step has brought, so that a crash or a restart goes on exactly there.
local windows = {}

--- The next window to fetch.
--- @param store table plugin.store
--- @param key string tells one history from another: "readings:SN-1"
--- @param options { since: integer, span: integer, overlap?: integer, now: integer } ms: where history begins; how long a window
---   may be; how far back each step looks again, for what comes late; the present
--- @return table window { from, to, more }: ms, and whether the present is not reached with it: then run again at once
function windows.next(store, key, options)
  local overlap = options.overlap or 0
  assert(options.span > overlap, "windows: span has to be longer than overlap")
  local upto = store:get(key)
  local from = math.max(options.since, upto and upto - overlap or options.since)
  local to = math.min(from + options.span, options.now)
  return { from = math.min(from, to), to = to, more = to < options.now }
end

--- It has been fetched whole.
--- @param store table plugin.store
--- @param key string
--- @param window table as windows.next gave it
function windows.done(store, key, window)
  store:put(key, window.to)
end

return windows
