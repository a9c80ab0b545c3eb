-- plugins/lib/deadlines.lua in a host that was down at a deadline: what came after it, and is dealt with first, puts off only what it is to put off.
local bed = require "bed"
local socket = require "socket"

local RULE = [[
local plugin = ...
local deadlines, time = require "deadlines", require "neap.time"
local config = plugin:config { to = { "destination" } }
local function tell(what)
  return function(device, vendor) plugin:send(config.to, { what = what, device = device, vendor = vendor, due = time.now() }) end
end
local silent, night = deadlines.new(plugin, "silent", tell "silent"), deadlines.new(plugin, "night", tell "night")
plugin:on({ metric = "level" }, function(r)
  silent(r, time.now() + r.value)
  night(r, time.now() + r.value, r.key)
end)
]]

describe("deadlines", function()
  local desk, host
  after_each(function()
    if host then host:stop() end
    if desk then desk:close() end
  end)

  it("are each vendor's, and those of which each counts are not put off by what comes before the timer fires", function()
    desk = bed.receiver()
    host = bed.host { config = ([[rules = { { "watch", to = "desk" } }, destinations = { desk = { "webhook", url = %q } }]]):format(desk.url), plugins = {
      ["vendors/reeds.lua"] = bed.EMITTER, ["rules/watch.lua"] = RULE, ["destinations/webhook.lua"] = bed.read(bed.plugins .. "/destinations/webhook.lua") } }
    local function import(vendor, value, key)
      local path = host.folder .. "/readings.ndjson"
      bed.write(path, ('{"device":"d","metric":"level","vendor":"%s","value":%d,"key":"%s","at":1772352000000}\n'):format(vendor, value, key))
      local out, code = bed.run { bed.neap, "import", path, "--rules", "--store", host.store }
      assert.equal(0, code, out)
    end
    assert.equal(204, (host:request("POST", "/v", { { device = "d", metric = "level", value = 5000, key = "first" } })))
    local due = bed.wait("the timers", function()
      local t = host:sql "select min(due) due, count(*) n from timers"[1]
      return t.n == 2 and t.due
    end)
    host:stop(9)
    import("rushes", 1, "other") -- of a device of the same name
    bed.wait("the deadline", function() return socket.gettime() * 1000 > due end)
    import("reeds", 3600000, "second")
    host:begin()
    local function told()
      local list, seen = {}, {}
      for _, r in ipairs(desk:poll()) do
        local m = r.json
        local text = ("%s %s %s%s"):format(m.what, m.vendor, m.device, m.due == due and " in time" or "")
        if not seen[r.headers["webhook-id"]] then list[#list + 1] = text end
        seen[r.headers["webhook-id"]] = true
      end
      table.sort(list)
      return list
    end
    bed.wait("what was missed", function() return #told() >= 3 end)
    bed.wait("the timers to be those of the second reading", function() return host:sql("select min(due) due from timers")[1].due > due + 1000000 end)
    assert.same({ "night reeds d in time", "night rushes d", "silent rushes d" }, told())
    assert.same({ 2, 0 }, { host:sql("select count(*) n from timers")[1].n, host:summary().held })
  end)
end)
