-- plugins/destinations/log.lua in a running host.
local bed = require "bed"
local json = require "neap.json"

-- A rule that sends what a reading's device is named after.
local RULE = [[
local plugin = ...
plugin:on({ metric = "glucose" }, function(r)
  if r.device == "long" then plugin:send("desk", { device = "long", text = ("长"):rep(2000) })
  elseif r.device == "rude" then plugin:send("desk", { device = "rude", text = "one\ntwo\27[31m\r\0" })
  else plugin:send("desk", { device = r.device, value = r.value, none = {}, big = 9007199254740993 }) end
end)
]]

describe("log", function()
  local host
  local count = 0

  setup(function()
    host = bed.host {
      plugins = { ["vendors/sinocare.lua"] = bed.read(bed.plugins .. "/vendors/sinocare.lua"), ["rules/all.lua"] = RULE,
        ["destinations/log.lua"] = bed.read(bed.plugins .. "/destinations/log.lua") },
      config = [[connections = { { "sinocare", name = "ward-3" } }, rules = { { "all" } }, destinations = { desk = { "log" } }]],
    }
  end)
  teardown(function() host:stop() end)

  local function push(device)
    count = count + 1
    local _, answer = host:json("POST", "/sinocare/push", bed.push { testId = "t-" .. count, deviceSn = device,
      serialNo = json.null })
    assert.equal(0, answer.code)
  end

  local function line_of(id)
    for line in host:read():gmatch "[^\n]+" do
      if line:find(id, 1, true) then return assert(json.decode(line)) end
    end
  end

  local function delivered(device, n)
    return bed.wait("the messages of " .. device, function()
      local rows = host:sql(("select * from delivered where device = '%s' order by seq"):format(device))
      return #rows == n and rows
    end)
  end

  it("writes a message on one line: id, device, source and the body, byte for byte", function()
    push "SN-1"
    local row = delivered("SN-1", 1)[1]
    local line = bed.wait("the line", function() return line_of(row.id) end)
    assert.equal("info", line.level)
    assert.equal("message", line.event)
    assert.equal("desk", line.plugin)
    assert.equal("SN-1", line.device)
    assert.equal("all", line.source)
    assert.equal(row.body, line.body)
    assert.truthy(row.body:find("9007199254740993", 1, true))
    assert.same({}, host:sql "select * from outbox")
  end)

  it("keeps a device's order", function()
    for _ = 1, 20 do push "SN-2" end
    local rows = delivered("SN-2", 20)
    bed.wait("the last line", function() return line_of(rows[20].id) end)
    local last = 0
    for _, row in ipairs(rows) do
      local at = assert(host.output:find(row.id, 1, true))
      assert.is_true(at > last)
      last = at
    end
  end)

  it("counts no message as delivered whose line was left out", function()
    host:stop()
    local own, config = host.options.args, bed.read(host.folder .. "/neap.lua")
    host.options.args = { "--log-level", "warn" }
    host:begin()
    push "SN-3"
    host:wait_text "the line was left out, by limits.log or the log's level"
    assert.equal(1, #host:sql "select 1 from outbox where device = 'SN-3'")
    host:stop()
    host.options.args = own
    bed.write(host.folder .. "/neap.lua", (config:gsub('desk = { "log" }', 'desk = { "log", limits = { log = 1, log_burst = 1 } }')))
    host:begin()
    for _ = 1, 4 do push "SN-3" end
    local rows = delivered("SN-3", 5)
    for _, row in ipairs(rows) do assert.truthy(bed.wait("the line", function() return line_of(row.id) end)) end
    host:stop()
    bed.write(host.folder .. "/neap.lua", config)
    host:begin()
    for _ = 1, 300 do push "SN-4" end -- more than limits.log lets through at once
    for _, row in ipairs(delivered("SN-4", 300)) do bed.wait("the line", function() return line_of(row.id) end) end
  end)

  it("cuts a long body between characters", function()
    push "long"
    local row = delivered("long", 1)[1]
    local line = bed.wait("the line", function() return line_of(row.id) end)
    assert.is_true(#line.body < 1100)
    assert.truthy(line.body:find("…$"))
    assert.is_true(#row.body > 6000)
  end)

  it("lets no message break its line", function()
    push "rude"
    local row = delivered("rude", 1)[1]
    local line = bed.wait("the line", function() return line_of(row.id) end)
    assert.equal("one\ntwo\27[31m\r\0", json.decode(line.body).text)
    assert.is_nil(host.output:find("\27", 1, true))
  end)
end)
