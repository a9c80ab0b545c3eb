-- Every rule that comes with neap, over the same stored readings on other numbers of lanes, and over a kill: the same messages, per
-- device in the same order, and the same derived readings.
local bed = require "bed"
local json = require "neap.json"

-- Settings of each rule; one that is missing here fails below.
local SETTINGS = {
  ["forward"] = [[{ "forward", to = "sink", quality = "valid", derived = false }]],
  ["summary"] = [[{ "summary", metric = "glucose", unit = "mmol/L", over = "1h", as = "glucose_1h", every = "2m" },
    { "summary", name = "summary-of-it", metric = "glucose_1h", of = "percentile", over = "3h", as = "glucose_3h" }]],
  ["low-glucose"] = [[{ "low-glucose", to = "sink", silence = "20m", escalate_to = "sink", escalate_after = "7m", escalate_times = 2 }]],
  ["time-in-range"] = [[{ "time-in-range", to = "sink", zone = "Asia/Shanghai" }]],
}

local FEED = [[
local plugin = ...
plugin:serve { "POST /readings", handler = function(req) for _, r in ipairs(req.body) do plugin:emit(r) end return 204 end }]]
local WITNESS = [[ -- has a message of every reading, in the commit of what the other rules did with it
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ derived = false }, function(r)
  local w = plugin:window { last = "1h" }
  plugin:send(config.to, { witness = r.id, mean = w.mean, slope = w.slope, p90 = w:percentile(90), again = plugin:debounce(r.device, "10m") })
end)]]

local OF_DERIVED = [[ -- has a message of every reading that a rule derived
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ derived = true }, function(r)
  plugin:send(config.to, { by = r.derived, metric = r.metric, value = r.value, at = r.at, received = r.received, key = r.key, extra = r.extra })
end)]]

local N, DEVICES = 700, 13
local BASE = os.time() // 86400 * 86400000 - 4 * 86400000

local function rules_there()
  local names, pipe = {}, io.popen("ls " .. bed.plugins .. "/rules/*.lua")
  for path in pipe:lines() do
    local name = path:match "([^/]+)%.lua$"
    if not name:find "_spec$" then names[#names + 1] = name end
  end
  pipe:close()
  return names
end

-- A store with readings that no rule has met, received half a minute apart; some are late, some not valid.
local function fill()
  local host = bed.host { plugins = { ["vendors/feed.lua"] = FEED }, config = "lanes = 1" }
  local list, random = {}, 11
  local function chance(n)
    random = (random * 1103515245 + 12345) % 2147483648
    return random // 65536 % n
  end
  for i = 1, N do
    local mgdl = chance(4) == 0
    list[i] = { device = "SN-" .. chance(DEVICES), metric = chance(9) == 0 and "temp" or "glucose", value = mgdl and 40 + chance(200) or (22 + chance(120)) / 10,
      unit = mgdl and "mg/dL" or "mmol/L", quality = chance(7) == 0 and "warmup" or "valid", key = tostring(i),
      at = BASE + (i - (chance(5) == 0 and chance(100) or 0)) * 30000 }
  end
  for i = 1, N, 100 do assert.equal(204, (host:request("POST", "/readings", { table.unpack(list, i, math.min(i + 99, N)) }))) end
  assert.same({ "exit", 0 }, { host:stop() })
  local out, code = bed.run { "sqlite3", host.store, ("update reading_rows set received = %d + seq * 30000; delete from cursors"):format(BASE) }
  assert(code == 0, out)
  return host.folder
end

-- Runs the rules over a copy of that store: each device's messages to each destination, in order.
local function messages(from, lanes, kill)
  local folder, plugins, entries = bed.folder(), { ["vendors/feed.lua"] = FEED, ["rules/witness.lua"] = WITNESS, ["rules/of-derived.lua"] = OF_DERIVED }, {}
  assert(os.execute(("cp '%s'/neap.db* '%s'"):format(from, folder)))
  for _, name in ipairs(rules_there()) do
    plugins["rules/" .. name .. ".lua"] = bed.read(bed.plugins .. "/rules/" .. name .. ".lua")
    entries[#entries + 1] = assert(SETTINGS[name], name .. " is a rule without settings in this spec")
  end
  plugins["destinations/log.lua"] = bed.read(bed.plugins .. "/destinations/log.lua")
  local host = bed.host { folder = folder, plugins = plugins, config = ([[lanes = %d, rules = { { "witness", to = "sink" }, { "of-derived", to = "sink" }, %s },
    destinations = { sink = { "log" } }]]):format(lanes, table.concat(entries, ", ")) }
  local all = "(select seq, destination, device, source, body from outbox union all select seq, destination, device, source, body from delivered)"
  local function count(where) return host:sql(("select count(*) n from %s %s"):format(all, where))[1].n end
  if kill then
    bed.wait("some of it", function() return count "" > 0 end)
    host:stop(9)
    host:begin()
  end
  bed.wait("all readings and timers", function()
    local derived = host:sql("select count(*) filter (where depth = 1) n, count(*) filter (where depth = 2) again from readings")[1]
    return count "where source = 'witness'" == N and host:sql("select count(*) n from timers")[1].n == 0
      and derived.n == derived.again and count "where source = 'of-derived'" == 2 * derived.n
  end, 60)
  assert.same({}, host:sql "select * from held")
  local by, n, sources = {}, 0, {}
  for _, m in ipairs(host:sql("select * from " .. all .. " order by seq")) do
    local body = json.decode(m.body)
    local place = m.destination .. " " .. m.device .. " " .. (body.by or "") -- of other rules, what was derived comes between as it may
    by[place] = by[place] or {}
    table.insert(by[place], { source = m.source, body = body })
    n, sources[body.by or m.source] = n + 1, true
  end
  for _, name in ipairs(rules_there()) do assert.is_true(sources[name], name .. " has sent nothing, so this tells nothing of it") end
  assert.same({ "exit", 0 }, { host:stop() })
  return by, n
end

describe("the rules that come with neap", function()
  it("give the same messages on any number of lanes, and after a kill", function()
    local store = fill()
    local first, n = messages(store, 1)
    assert.is_true(n > N)
    for _, run in ipairs { { 1 }, { 2 }, { 5 }, { 3, true } } do
      local again, n_again = messages(store, run[1], run[2])
      assert.equal(n, n_again, run[1] .. " lanes")
      for place, list in pairs(first) do
        assert.equal(#list, #(again[place] or {}), place)
        for i, message in ipairs(list) do assert.same(message, again[place][i], ("%d lanes: %s, message %d"):format(run[1], place, i)) end
      end
    end
  end)
end)
