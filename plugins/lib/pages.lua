-- Page numbers for what is read by keys: the store gives what comes after a key at the cost of that page alone, while vendors'
-- lists are asked for by number. Where pages begin is remembered for a minute; a page is reached from the nearest one that is
-- known.
local time = require "neap.time"

local pages = {}
local Pages = {}
Pages.__index = Pages
local KEPT, MOST = 60000, 200 -- ms; lists

function pages.new() return setmetatable({ lists = {}, count = 0 }, Pages) end

function Pages:list(key)
  local now = time.now()
  local list = self.lists[key]
  if list and now < list.until_ms then return list.begins end
  if not list and self.count >= MOST then self.lists, self.count = {}, 0 end
  if not list then self.count = self.count + 1 end
  list = { until_ms = now + KEPT, begins = { false } } -- [page] = the id before its first; false: at the very beginning
  self.lists[key] = list
  return list.begins
end

--- The items of a page.
--- @param key string tells one list, with its filters, from another
--- @param page integer from 1
--- @param size integer
--- @param fetch fun(after: integer?, limit: integer): table[] items, each with `id`, in the order of their ids
--- @return table[] items none past the end
function Pages:fetch(key, page, size, fetch)
  local begins = self:list(key .. "/" .. size)
  local at = math.min(page, #begins)
  while true do
    local items = fetch(begins[at] or nil, size)
    if #items == size then begins[at + 1] = items[size].id end
    if at == page then return items end
    if #items < size then return {} end
    at = at + 1
  end
end

return pages
