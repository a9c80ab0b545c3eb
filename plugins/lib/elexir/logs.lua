-- The stored logs of Elexir's devices, read again: newest first, whatever number of devices they are on, a page of each at a time.
local logs = {}

local function of_device(plugin, unique_id, from, to)
  local page, i, after, done = {}, 0, nil, false
  return function()
    i = i + 1
    if i > #page and not done then
      page, after = plugin.data:readings { device = unique_id, metric = "treatment_time", from = from, to = to, order = "desc",
        after = after, limit = 100 }
      i, done = 1, after == nil
    end
    return page[i]
  end
end

local function is_newer(a, b) return a.at > b.at or a.at == b.at and a.id > b.id end

--- An iterator of the readings whose `extra` are the logs of these accounts (an array) on these devices (a set).
function logs.newest_first(plugin, user_ids, unique_ids, from, to)
  local whose, heads = {}, {}
  for _, id in ipairs(user_ids) do whose[id] = true end
  local function advance(head)
    repeat head.reading = head.next() until not head.reading or whose[head.reading.extra.user_id]
  end
  for unique_id in pairs(unique_ids) do
    local head = { next = of_device(plugin, unique_id, from, to) }
    advance(head)
    heads[#heads + 1] = head
  end
  return function()
    local best
    for _, head in ipairs(heads) do
      if head.reading and (not best or is_newer(head.reading, best.reading)) then best = head end
    end
    if not best then return nil end
    local reading = best.reading
    advance(best)
    return reading
  end
end

--- A streamed JSON array: `begin` gives an iterator once the first piece is wanted, `word` the JSON of one element.
function logs.stream(begin, word)
  local each, lead = nil, "["
  return function()
    if not lead then return nil end
    each = each or begin()
    local item = each()
    local piece = item and lead .. word(item) or (lead == "[" and "[]" or "]")
    lead = item and "," or nil
    return piece
  end
end

return logs
