-- Plays the part of Sinocare's cloud (三诺推送CGM数据规范文档, 2024-02-21): pushes each reading of simulated sensors until it is
-- answered code 0 within 5 s; some are pushed twice, some late and out of order, some never get to the cloud.
local plugin = ...
local plausible = require "plausible"
local http = require "neap.http"
local json = require "neap.json"
local patients = require "patients"
local time = require "neap.time"

local config = plugin:config {
  url = { "string", about = "where readings are pushed" },
  speed = { "number", default = 180, min = 1, max = 100000, about = "how many times faster than the clock the patients live" },
  patients = { "integer", default = 50, min = 1, max = 999, about = "how many there are" },
  seed = { "integer", default = 3, about = "another seed is another ward" },
  groups = { "integer", default = 8, min = 1, max = 50, about = "how many pushes may be under way at once" },
  ago = { "duration", default = "30d", about = "how long ago the patients' time begins; it never overtakes the clock" },
}

local SECOND, MINUTE, HOUR, DAY = 1000, 60000, 3600000, 86400000
local STEP, DAYS, WARM_UP = 3 * MINUTE, 8, 20 -- a reading each 3 minutes for 8 days, the first 20 from the sensor's warm-up
local LAST = DAYS * DAY // STEP
local ANSWER_WITHIN, PAUSE_MAX = 5, 20 -- seconds
local PENDING_MAX, TURN_MAX = 400, 100 -- what a sensor's phone keeps until the ward answers again; pushes in one turn of a group

local now_ms = time.now
local counts = { pushed = 0, again = 0, late = 0, twice = 0, lost = 0 }
local beds, clocks = {}, {} -- as in plugin.store, filled when they are first needed
local trouble -- why the last push was not taken

local function chance(...) return plausible.chance(config.seed, ...) end

-- 02:15 in the patients' zone: the first half minute has the lows of a night, the next the dawn, then comes breakfast
local function beginning()
  local day = (now_ms() - config.ago * SECOND // 1 + 8 * HOUR) // DAY * DAY
  return math.tointeger(day - 8 * HOUR + 2 * HOUR + 15 * MINUTE)
end

-- next: serial of its next reading; pending: those to be pushed, { serial, due on the patients' clock, tries, due on the real one }
local function bed_of(number, clock)
  local bed = beds[number] or plugin.store:get(("bed-%03d"):format(number))
  if not bed then
    local ago = 45 * MINUTE + chance(number, 1) * 100 * MINUTE // 1
    bed = { sensor = 1, since = math.tointeger(clock - ago), next = 1, pending = {} }
  end
  beds[number] = bed
  return bed
end

local function serial_number(number, bed) return ("GS%02d-%d"):format(number, bed.sensor) end

-- When a reading gets to the cloud: mostly at once; within a loss of signal, when that is over, or never (nil).
local function arrival(number, bed, serial, at)
  if serial > WARM_UP then
    local window = at // (2 * HOUR)
    local from = window * 2 * HOUR + chance(number, window, 2) * HOUR // 1
    local length = (12 + chance(number, window, 3) * 40) * MINUTE
    if chance(number, window, 4) < 0.07 and at >= from and at < from + length then
      if chance(number, window, 5) < 0.3 then return nil end
      return math.tointeger((from + length + chance(number, bed.sensor, serial, 6) * MINUTE) // 1), true -- in no order
    end
  end
  if chance(number, bed.sensor, serial, 7) < 0.03 then
    return at + math.tointeger((4 + chance(number, serial, 8) * 6) * MINUTE // 1), true
  end
  return at + math.tointeger(chance(number, 9) * 2 * MINUTE // 1)
end

local function schedule(number, bed, clock)
  local changed = false
  while #bed.pending < PENDING_MAX do
    local serial, at = bed.next, bed.since + bed.next * STEP
    if at > clock then return changed end
    changed = true
    local due, late = arrival(number, bed, serial, at)
    if due then
      bed.pending[#bed.pending + 1] = { serial, due, 0, 0 }
      if late then counts.late = counts.late + 1 end
      if chance(number, bed.sensor, serial, 10) < 0.02 then
        bed.pending[#bed.pending + 1] = { serial, due + MINUTE, 0, 0 }
        counts.twice = counts.twice + 1
      end
    else
      counts.lost = counts.lost + 1
    end
    bed.next = serial + 1
    if serial == LAST then return changed end
  end
  return changed
end

-- A worn-out sensor is replaced once all of its readings were taken.
local function replace(bed)
  if bed.next <= LAST or #bed.pending > 0 then return end
  bed.since, bed.sensor, bed.next = bed.since + LAST * STEP + 20 * MINUTE, bed.sensor + 1, 1
end

local function message(number, bed, serial)
  local at = bed.since + serial * STEP
  local data = patients.of(number)
  data.testId = ("%d%03d%05d"):format(bed.since // MINUTE, number, serial)
  data.deviceSn = serial_number(number, bed)
  data.testResult = ("%.1f"):format(plausible.patient(config.seed, number, at))
  data.serialNo = serial
  data.testTime = time.format(at, "Asia/Shanghai", "yyyy-MM-dd HH:mm:ss")
  data.increMinute = STEP // MINUTE
  data.cgmDay = DAYS
  data.status = serial <= WARM_UP and "1" or "0"
  data.cgmStatus = serial <= WARM_UP and "1" or serial == LAST and "4" or "2"
  data.low = json.null
  data.high = json.null
  return { reservedCode = "01", data = data }
end

-- true where it was taken, else why not and whether there was an answer at all
local function push(number, bed, serial)
  local res, why = http.post { url = config.url, json = message(number, bed, serial), timeout = ANSWER_WITHIN }
  if not res then return false, why, false end
  local answer = res.json
  if res.status == 200 and type(answer) == "table" and answer.code == 0 then return true end
  return false, ("answered %d %s"):format(res.status, res.body:sub(1, 200)), true
end

local function say_trouble(why)
  if why and not trouble then print("the ward does not take a push, it will be pushed again: " .. why) end
  if trouble and not why then print "the ward takes pushes again" end
  trouble = why
end

-- Those of a group that are due, in the order in which they got to the cloud.
local function due_now(group, clock, now)
  local list = {}
  for number = group, config.patients, config.groups do
    local bed = beds[number]
    for _, p in ipairs(bed.pending) do
      if p[2] <= clock and p[4] <= now then list[#list + 1] = { number = number, bed = bed, entry = p } end
    end
  end
  table.sort(list, function(a, b)
    if a.entry[2] ~= b.entry[2] then return a.entry[2] < b.entry[2] end
    if a.number ~= b.number then return a.number < b.number end
    return a.entry[1] < b.entry[1]
  end)
  return list
end

local function forget(pending, entry)
  for i, p in ipairs(pending) do
    if p == entry then return table.remove(pending, i) end
  end
end

-- Pushes what is due, one after another; no answer ends the turn, so that a dead ward is not waited for time and again.
local function push_due(group, clock, changed)
  local began = now_ms()
  for i, item in ipairs(due_now(group, clock, began)) do
    if i > TURN_MAX or now_ms() - began > 10 * SECOND then return end
    local entry = item.entry
    local taken, why, answered = push(item.number, item.bed, entry[1])
    changed[item.number] = item.bed
    counts.pushed = counts.pushed + 1
    if entry[3] > 0 then counts.again = counts.again + 1 end
    if taken then
      forget(item.bed.pending, entry)
    else
      entry[3] = entry[3] + 1
      local pause = math.min(PAUSE_MAX, ANSWER_WITHIN * 2 ^ math.min(entry[3] - 1, 10))
      entry[4] = now_ms() + math.tointeger(pause * SECOND // 1)
    end
    say_trouble(not taken and why or nil)
    if not taken and not answered then return end
  end
end

for group = 1, math.min(config.groups, config.patients) do
  plugin:every("250ms", "group " .. group, function()
    local key, now, changed = "clock-" .. group, now_ms(), {}
    local clock = clocks[group] or { at = plugin.store:get(key) or beginning(), real = now }
    clocks[group] = clock
    clock.at = math.min(now, clock.at + math.tointeger((now - clock.real) * config.speed // 1))
    clock.real = now
    for number = group, config.patients, config.groups do
      local bed = bed_of(number, clock.at)
      replace(bed)
      if schedule(number, bed, clock.at) then changed[number] = bed end
    end
    push_due(group, clock.at, changed)
    plugin.store:put(key, clock.at)
    for number, bed in pairs(changed) do plugin.store:put(("bed-%03d"):format(number), bed) end
  end)
end

plugin:every("5s", "summary", function()
  if not clocks[1] then return end
  local waiting = 0
  for _, bed in pairs(beds) do
    for _, p in ipairs(bed.pending) do waiting = waiting + (p[3] > 0 and 1 or 0) end
  end
  print(("%s in the ward: %d pushes (%d late, %d twice, %d again), %d lost signal, %d not taken yet"):format(
    time.format(clocks[1].at, "Asia/Shanghai", "MM-dd HH:mm"),
    counts.pushed, counts.late, counts.twice, counts.again, counts.lost, waiting))
  for name in pairs(counts) do counts[name] = 0 end
end)
