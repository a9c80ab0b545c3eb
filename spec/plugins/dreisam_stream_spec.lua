-- Long histories of Dreisam's: streamed whole and in order, in memory that does not grow with them.
local bed = require "bed"
local json = require "neap.json"

local MAKER = [[
local plugin = ...
plugin:serve { "POST /many", body = { device = { "string" }, owner = { "string" }, first = { "integer" }, last = { "integer" }, offset = { "integer" } }, handler = function(req)
  local b = req.body
  plugin:device { device = b.device, owner = plugin.people:reference("patient:" .. b.owner), status = "active" }
  for n = b.first, b.last do
    plugin:emit { device = b.device, metric = "glucose", value = 4 + n % 80 / 10, unit = "mmol/L", at = 1700000000000 + n * 10000 + b.offset, serial = n }
  end
  return 204
end }
]]

local RECORDS, AT = 200000, 1700000000000

describe("a history of 200,000 records", function()
  local host, session

  setup(function()
    host = bed.host { plugins = bed.own_plugins { ["vendors/maker.lua"] = MAKER },
      config = [[lanes = 1, limits = { emits = 20000 }, timeouts = { write = "120s" }, connections = { { "maker", name = "made" }, { "dreisam", name = "face", shows = { "made" } } }]] }
    for n = 1, RECORDS, 10000 do
      for device, offset in pairs { long = 0, other = 5000 } do
        local status, text = host:request("POST", "/many", { device = device, owner = "u", first = n, last = n + 9999, offset = offset })
        assert.equal(204, status, text)
      end
    end
    session = json.decode((select(2, host:request("POST", "/partner/v1/user/register", { partner_uid = "u" })))).data
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function fetch(path)
    local file = os.tmpname()
    local before, most = host:summary().resident, 0
    local run = bed.start { "curl", "-sS", "--limit-rate", "40M", "-o", file, "-H", "Authorization: Bearer " .. session.access_token, host.url .. path }
    repeat
      most = math.max(most, host:summary().resident - before)
      run:read()
    until run.ended
    assert.same({ "exit", 0 }, { run:wait() }, run.output)
    local text = bed.read(file)
    os.remove(file)
    return text, most
  end

  local function check(text, most, count)
    assert.is_true(#text > 100 * count, #text .. " bytes")
    assert.is_true(most < 24 << 20, "grown by " .. most)
    assert.truthy(text:find('^{"code":0,"msg":"ok","data":{"open_id":"' .. session.open_id .. '","records":%[{'))
    assert.equal("}]}}", text:sub(-4))
    local n, last = 0, 0
    for at in text:gmatch '"measured_at":(%d+)' do
      n, at = n + 1, tonumber(at)
      if at <= last then error("out of order at " .. n) end
      last = at
    end
    assert.equal(count, n)
    assert.is_table(json.decode(text:sub(1, text:find("}", 4000, true)) .. "]}}"))
  end

  it("of one device comes whole, in bounded memory", function()
    local text, most = fetch "/partner/v1/device/glucose?device_sn=long"
    check(text, most, RECORDS)
    local first, last = text:match '"package_num":(%d+)', text:match '.*"package_num":(%d+)'
    assert.same({ "1", tostring(RECORDS) }, { first, last })
  end)

  it("of two devices is one in the order of time", function()
    local text, most = fetch(("/partner/v1/user/glucose?open_id=%s&start_time=%d&end_time=%d"):format(session.open_id, AT, AT + 30 * 86400000))
    check(text, most, 2 * RECORDS)
  end)

  it("that nobody reads to its end is given up", function()
    local before = host:summary()
    local run = bed.start { "curl", "-s", "--max-time", "60", "--limit-rate", "10K", "-o", "/dev/null", "-H", "Authorization: Bearer " .. session.access_token,
      host.url .. "/partner/v1/device/glucose?device_sn=long" }
    bed.wait("the stream to run", function() return host:summary().tasks > 0 end)
    run:stop(9)
    bed.wait("it to end", function()
      local s = host:summary()
      return s.tasks == 0 and s.descriptors <= before.descriptors
    end)
  end)
end)
