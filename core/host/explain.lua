-- A story (core/host/story.h) as a tree that a person reads. Compiled into the program, for neap explain.
local clean, colour, lines, asked

local function dim(text) return colour and "\27[2m" .. text .. "\27[0m" or text end
local function text(value) return clean(tostring(value)) end
local function moment(ms) return os.date("%Y-%m-%d %H:%M:%S", ms // 1000) .. (".%03d"):format(ms % 1000) end
local function count(n, what) return ("%d %s%s"):format(n, what, n == 1 and "" or "s") end

-- What has passed since the step before.
local function after(from, to)
  local ms = to - from
  local sign, size = ms < 0 and "-" or "+", math.abs(ms)
  if size < 10000 then return ("%s%d ms"):format(sign, size) end
  if size < 600000 then return ("%s%.1f s"):format(sign, size / 1000) end
  if size < 172800000 then return ("%s%.1f h"):format(sign, size / 3600000) end
  return ("%s%.1f d"):format(sign, size / 86400000)
end

-- A node is a list: its line, then its children.
local function draw(nodes, indent)
  for i, node in ipairs(nodes) do
    local last = i == #nodes
    lines[#lines + 1] = dim(indent .. (last and "└─ " or "├─ ")) .. node[1]
    draw({ table.unpack(node, 2) }, indent .. (last and "   " or "│  "))
  end
end

local function mark(id) return id == asked and "  <- asked for" or "" end

local function attempt_node(a, from)
  local words = { ("attempt %d  %s  %s"):format(a.attempt, after(from, a.at), text(a.outcome)) }
  if a.status then words[#words + 1] = "answered " .. a.status end
  words[#words + 1] = ("took %d ms"):format(a.took)
  words[#words + 1] = "by generation " .. a.generation
  if a.batch > 1 then words[#words + 1] = ("with %s in one batch"):format(count(a.batch - 1, "other")) end
  local node = { table.concat(words, ", ") }
  if a.error then node[#node + 1] = { text(a.error) } end
  if a.answer then node[#node + 1] = { "answer: " .. text(a.answer) } end
  for _, part in ipairs { a.request or "", a.reply and "answered\n" .. a.reply or "" } do
    local headers
    for line in part:gmatch "[^\n]+" do
      if headers then headers[#headers + 1] = { text(line) } else headers = { text(line) } end
    end
    node[#node + 1] = headers
  end
  return node
end

local function end_of(m)
  if m.gone then return { "pending: nothing named " .. text(m.to) .. " takes messages now" } end
  if m.state == "pending" then return { m.due and m.due > 0 and "pending: next try " .. moment(m.due) or "pending" } end
  if m.state == "delivered" then return { "delivered  " .. after(m.created, m.at) .. " after it was made" } end
  local line = "dead letter since " .. moment(m.at)
  for _, why in ipairs { m.reason or "", m.error or "" } do line = line .. (why ~= "" and ": " .. text(why) or "") end
  if m.dropped then line = line .. (", dropped %s%s"):format(moment(m.dropped), m.by and " by " .. text(m.by) or "") end
  return { line }
end

local function ack_node(m)
  local a = m.acknowledged
  if not a then return m.unacknowledged and { "not acknowledged by anybody: it asks for that" } end
  return { ("acknowledged  %s after it was made, by %s%s"):format(after(m.created, a.at), text(a.by),
    a.note and ": " .. text(a.note) or "") }
end

local function message_node(m, from)
  local made = from and after(from, m.created) or moment(m.created)
  local replay = m.replay and ("  replayed by replay %d, about %s"):format(m.replay, m.about and moment(m.about) or "then") or ""
  local node = { ("message %s to %s  %s%s%s"):format(text(m.message), text(m.to), made, replay, mark(m.message)) }
  if m.body then node[#node + 1] = { "body: " .. text(m.body) } end
  local before, number = m.created, 1
  for _, a in ipairs(m.attempts) do
    if a.attempt > number then node[#node + 1] = { ("%s not kept"):format(count(a.attempt - number, "attempt")) } end
    number = a.attempt + 1
    node[#node + 1] = attempt_node(a, before)
    before = a.at
  end
  if #m.attempts == 0 and m.state == "pending" then node[#node + 1] = { "no attempt yet" } end
  node[#node + 1] = end_of(m)
  node[#node + 1] = ack_node(m) or nil
  return node
end

-- Why one filter does not match: what says no; why it may: all of it.
local function why_of(filter)
  local reasons = {}
  for _, w in ipairs(filter.why) do
    if filter.matches == "yes" or w.fits == filter.matches then reasons[#reasons + 1] = w.field .. ": " .. text(w.why) end
  end
  return table.concat(reasons, "; ")
end

local said = { yes = "fits", no = "does not match", unknown = "may have matched" }

local reading_node

local function derived_node(r, cause)
  local node = reading_node(r)
  local of = r.device ~= cause.device and text(r.device) .. " " or ""
  local what = ("%s%s %s%s"):format(of, text(r.metric), text(r.value), r.unit and " " .. text(r.unit) or "")
  local at = r.at ~= cause.at and "  at " .. moment(r.at) or ""
  node[1] = ("derived r%d  %s%s%s"):format(r.seq, what, at, mark("r" .. r.seq))
  return node
end

local function held_node(h, received)
  local failed = h.generation and ", generation " .. h.generation .. " failed" or ""
  return { ("held %s%s: %s"):format(after(received, h.at), failed, text(h.error:match "^[^\n]*")) }
end

local function rule_node(rule, reading)
  local sent, held, derived = #rule.messages, #rule.held, #rule.readings
  local head = text(rule.rule) .. ": "
  if sent + derived > 0 then
    local by = sent > 0 and rule.messages[1].generation or derived > 0 and (rule.readings[1].derivation or {}).generation
    local did = {}
    if sent > 0 then did[1] = "sent " .. count(sent, "message") end
    if derived > 0 then did[#did + 1] = "derived " .. count(derived, "reading") end
    head = head .. ("%s%s, on record"):format(table.concat(did, " and "), by and " by generation " .. by or "")
  elseif held > 0 then head = head .. "held, on record"
  elseif not rule.matches then head = head .. "not in force: " .. text(rule.state)
  elseif reading.waiting and rule.matches ~= "no" then
    head = head .. said[rule.matches] .. "; that it has been run on this reading is not on record yet"
  elseif rule.matches == "no" then head = head .. "does not match"
  else head = head .. said[rule.matches] .. "; no message of it is on record" end
  local node = { head }
  if rule.matches then
    local now = "generation " .. rule.generation .. ", in force now"
    if rule.state ~= "in force" then now = "generation " .. rule.generation .. ", " .. text(rule.state) .. " now" end
    if not rule["then"] then now = now .. "; none is on record for when the reading came"
    elseif rule["then"] ~= rule.generation then now = now .. "; then it was generation " .. rule["then"] end
    for i, filter in ipairs(rule.filters) do
      local reasons = why_of(filter)
      node[#node + 1] = { ("%s%s%s (%s)"):format(#rule.filters > 1 and "handler " .. i .. " " or "", said[filter.matches],
        reasons == "" and ": it takes every reading" or ": " .. reasons, now) }
    end
  end
  for _, h in ipairs(rule.held) do node[#node + 1] = held_node(h, reading.received) end
  for _, m in ipairs(rule.messages) do node[#node + 1] = message_node(m, reading.received) end
  for _, r in ipairs(rule.readings) do node[#node + 1] = derived_node(r, reading) end
  return node
end

function reading_node(r, request)
  local what = ("%s %s %s%s"):format(text(r.device), text(r.metric), text(r.value), r.unit and " " .. text(r.unit) or "")
  local came = request and after(request.received, r.received) or moment(r.received)
  local node = { ("reading r%d  %s  at %s, of %s  %s%s"):format(r.seq, what, moment(r.at), text(r.connection or r.vendor), came,
    mark("r" .. r.seq)) }
  if r.quiet then node[2] = { "no rule was run on it: it was imported, or derived by a replay" } end
  for _, rule in ipairs(r.rules) do
    if not r.quiet or #rule.messages + #rule.held + #rule.readings > 0 then node[#node + 1] = rule_node(rule, r) end
  end
  local others = r.others == 1 and "1 other rule does" or r.others and r.others .. " other rules do"
  if others and not r.quiet then node[#node + 1] = { ("%s not match: neap explain r%d tells why"):format(others, r.seq) } end
  for _, h in ipairs(r.held) do
    local other = held_node(h, r.received)
    other[1] = "for rule " .. text(h.rule) .. ", which is no longer configured: " .. other[1]
    node[#node + 1] = other
  end
  for _, m in ipairs(r.messages) do
    local other = message_node(m, r.received)
    other[1] = "of rule " .. text(m.rule) .. ", which is no longer configured: " .. other[1]
    node[#node + 1] = other
  end
  for _, d in ipairs(r.readings) do
    local other = derived_node(d, r)
    other[1] = "by rule " .. text(d.derived or d.connection) .. ", which is no longer configured: " .. other[1]
    node[#node + 1] = other
  end
  if r.more_derived then node[#node + 1] = { count(r.more_derived, "more derived reading") } end
  if r.more_messages then node[#node + 1] = { count(r.more_messages, "more message") } end
  if #node == 1 then node[2] = { "no rules are configured" } end
  return node
end

local function request_line(q)
  local what = ("request q%d  %s %s"):format(q.id, text(q.method), text(q.target or q.route))
  what = what .. ("  to %s, generation %d  %s  %s"):format(text(q.connection), q.generation, moment(q.received), text(q.outcome))
  if q.status > 0 then what = what .. ", answered " .. q.status end
  return what .. (q.error and ": " .. text(q.error) or "") .. mark("q" .. q.id)
end

-- What became of it before it was run again.
local function run_line(q, run)
  return ("before that, until it was run again %s: %s by generation %d%s"):format(after(q.received, run.again), text(run.outcome),
    run.generation, run.error and ": " .. text(run.error:match "^[^\n]*") or "")
end

return function(story, cleaner, coloured)
  clean, colour, lines, asked = cleaner, coloured, {}, story.asked
  if story.of ~= "message" and asked:match "^%d" then asked = (story.of == "reading" and "r" or "q") .. asked end
  local q, nodes = story.request, {}
  for i, r in ipairs(story.readings) do nodes[i] = reading_node(r, q) end
  if story.more_readings then nodes[#nodes + 1] = { count(story.more_readings, "more reading") } end
  if q and #story.readings == 0 then nodes[1] = { "it gave no new readings" } end
  if story.message then
    local m = story.message
    if story.reading_gone then lines[1] = ("reading r%d is gone: it is no longer kept"):format(story.reading_gone)
    else lines[1] = "a timer of " .. text(m.rule) .. ", or what was held of it; no reading led to it" end
    if m.generation then lines[1] = lines[1] .. "  generation " .. m.generation end
    nodes[1] = message_node(m)
  elseif q then
    lines[1] = request_line(q)
    for _, run in ipairs(q.before or {}) do lines[#lines + 1] = dim "│    " .. run_line(q, run) end
    for _, part in ipairs { q.headers or "", q.body or "" } do
      for line in part:gmatch "[^\n]+" do lines[#lines + 1] = dim "│    " .. text(line) end
    end
  elseif story.request_gone then
    lines[1] = ("request q%d is gone: it is older than what is kept (keep.requests)"):format(story.request_gone)
  elseif story.readings[1] and story.readings[1].derived then
    local r = story.readings[1]
    local d = r.derivation or {}
    local by = text(r.derived) .. (d.generation and ", generation " .. d.generation or "")
    if d.timer then lines[1] = ("derived by a timer of %s: %s of %s"):format(by, text(d.timer), text(d.key))
    elseif d.cause then lines[1] = ("derived by %s, from reading r%d, which is no longer kept"):format(by, d.cause)
    else lines[1] = ("derived by %s; from what is not on record, as of one that was imported"):format(by) end
  else lines[1] = "no request: the reading was fetched by a job, imported, or came in otherwise" end
  draw(nodes, "")
  for _, r in ipairs(story.readings) do
    if story.keep_size or story.keep_age and story.now - r.received > story.keep_age then
      lines[#lines + 1] = dim "Delivered messages are not kept for ever (keep.delivered): there may have been more."
      break
    end
  end
  lines[#lines + 1] = dim("What came, messages, attempts and what is held are told as they are on record;"
    .. " whether a rule matches, and why, as the rules in force now say.")
  return table.concat(lines, "\n") .. "\n"
end
