-- file in a running host: what is on disk, over kills, rotation and whatever else may stand there.
local bed = require "bed"
local json = require "neap.json"

local source = [[
local plugin = ...
plugin:serve { "POST /readings", keep = false, handler = function(req)
  for _, r in ipairs(require "neap.json".decode(req.raw)) do plugin:emit(r) end
  return 204
end }
]]
-- Tries to write where it may not.
local rogue = [[
local plugin = ...
local file = require "neap.file"
local config = plugin:config { folder = { "string", default = "%s" }, other = { "string", default = "/x" } }
plugin:serve { "POST /rogue", keep = false, body = { folder = { "string" }, name = { "string" } }, handler = function(req)
  local ok, why = pcall(file.append, { folder = req.body.folder, name = req.body.name, lines = { { "a", "a" } } })
  return 200, { ok = ok, why = tostring(why) }
end }
]]

describe("file", function()
  local folder, out, host
  before_each(function()
    folder = bed.folder()
    out = folder .. "/out"
    os.execute("mkdir " .. out)
  end)
  after_each(function() if host then assert.same({ "exit", 0 }, { host:stop() }) host = nil end end)

  local function start(settings, more)
    host = bed.host { plugins = bed.own_plugins { ["vendors/source.lua"] = source, ["vendors/rogue.lua"] = rogue:format(folder) },
      config = ([[ rules = { { "forward", to = "kept", metric = "temp" } }, %s
        destinations = { kept = { "file", folder = %q, %s, delivery = { backoff = "1s" } } }]]):format(more or "", out, settings) }
  end
  local function push(from, to)
    local list = {}
    for i = from, to do list[#list + 1] = { device = "w-" .. i % 7, metric = "temp", value = i, at = 1772352000000 + i } end
    assert.equal(204, (host:request("POST", "/readings", json.encode(list))))
  end
  local function settled()
    bed.wait("nothing to wait in the outbox", function() return host:sql("select count(*) as n from outbox")[1].n == 0 end)
    assert.equal(0, #host:sql "select * from dead")
  end
  local function names()
    local list = {}
    for name in io.popen("LC_ALL=C ls " .. out):lines() do list[#list + 1] = name end
    return list
  end
  -- Every line of all files, decoded.
  local function lines()
    local list = {}
    for _, name in ipairs(names()) do
      local text = bed.read(out .. "/" .. name)
      assert.equal("\n", text:sub(-1), name)
      for l in text:gmatch "([^\n]*)\n" do list[#list + 1] = assert(json.decode(l)) end
    end
    return list
  end
  -- Each of 1 to n once, and each device's in order.
  local function check(n)
    local seen, last = {}, {}
    for _, l in ipairs(lines()) do
      local r = l.body.reading
      assert.is_nil(seen[r.value], "twice: " .. r.value)
      seen[r.value] = true
      assert.is_true(r.value > (last[r.device] or 0))
      last[r.device] = r.value
    end
    for i = 1, n do assert.is_true(seen[i], "missing: " .. i) end
  end

  it("has each message once, in order of its device, in the ids of the store", function()
    start 'rotate = "never"'
    push(1, 500)
    settled()
    check(500)
    local ids = {}
    for _, row in ipairs(host:sql "select id from delivered") do ids[row.id] = true end
    for _, l in ipairs(lines()) do assert.is_true(ids[l.id]) end
    assert.equal("640", io.popen("stat -c %a " .. out .. "/messages.ndjson"):read "l")
  end)

  it("loses and doubles nothing over kill -9", function()
    start 'rotate = "20KiB"'
    for round = 1, 5 do
      push(round * 100 - 99, round * 100)
      host:restart(9)
    end
    settled()
    check(500)
    assert.is_true(#names() > 2)
  end)

  it("does not write again what stands there, where the receipt was lost; cuts what a kill left of a line", function()
    local path = out .. "/messages.ndjson"
    os.execute(("ln -s nowhere %s"):format(path))
    start 'rotate = "never"'
    push(1, 2)
    local rows
    bed.wait("two that wait", function()
      rows = host:sql "select * from outbox where attempts > 0 order by seq"
      return #rows == 2
    end)
    host:stop(9)
    -- as if the process had been killed after the first line was on disk, in the middle of the second, before the store knew of either
    local first = ('{"id":"%s","created":%d,"device":"w-1","source":"forward","body":%s}\n'):format(rows[1].id, rows[1].created, rows[1].body)
    os.remove(path)
    bed.write(path, first .. '{"id":"' .. rows[2].id .. '","crea')
    host:begin()
    settled()
    assert.equal(first, bed.read(path):sub(1, #first))
    check(2)
    host:wait_text "what a kill had left of a line was cut off"
    host:wait_text "lines that stood there already"
  end)

  it("is put aside when the day is over", function()
    start 'file = "day.csv", format = "csv"'
    push(1, 1)
    settled()
    assert(os.execute("touch -d 2026-03-01T08:00:00Z " .. out .. "/day.csv"))
    push(2, 2)
    settled()
    assert.same({ "day-20260301T080000Z.csv", "day.csv" }, names())
    for i, name in ipairs(names()) do
      local text = bed.read(out .. "/" .. name)
      assert.matches("^id,kind,at,device,[^\n]*\n[^\n]*,reading,2026%-03%-01T08:00:00.00" .. i .. "Z,w%-" .. i .. ",temp," .. i .. ",[^\n]*\n$", text)
    end
  end)

  it("follows no link and waits until the folder is as it should be", function()
    bed.write(folder .. "/secret", "mine\n")
    os.execute(("ln -s %s/secret %s/messages.ndjson"):format(folder, out))
    start 'rotate = "never"'
    push(1, 1)
    bed.wait("the reason", function() return #host:sql "select * from outbox where error like '%is a symbolic link%'" == 1 end)
    assert.equal("mine\n", bed.read(folder .. "/secret"))
    os.execute(("rm %s/messages.ndjson && ln %s/secret %s/messages.ndjson"):format(out, folder, out))
    bed.wait("the reason", function() return #host:sql "select * from outbox where error like '%second name%'" == 1 end)
    os.execute(("rm %s/messages.ndjson && mv %s %s2 && ln -s %s2 %s"):format(out, out, out, out, out))
    bed.wait("the reason", function() return #host:sql "select * from outbox where error like '%symbolic link or no folder%'" == 1 end)
    os.execute(("rm %s && mv %s2 %s"):format(out, out, out))
    settled()
    check(1)
    assert.equal("mine\n", bed.read(folder .. "/secret"))
  end)

  it("lets a plugin write in the folder that a person named, and nowhere else", function()
    start('rotate = "never"', ([[ connections = { { "source" }, { "rogue", folder = %q, other = "/tmp" } },]]):format(out))
    local function ask(where, name)
      local _, answer = host:json("POST", "/rogue", { folder = where, name = name })
      return answer
    end
    assert.matches("may not write", ask("/tmp", "x").why)
    assert.matches("may not write", ask(out .. "/", "x").why)
    assert.matches("may not write", ask(folder, "x").why)
    assert.matches("without \"..\"", ask(out .. "/../out", "x").why)
    for _, name in ipairs { "../x", "a/b", ".x", "", "-x" } do assert.matches("no plain name", ask(out, name).why) end
    assert.is_true(ask(out, "x").ok)
    assert.same({ "x" }, names())
  end)

  it("takes no folder that is a plugin's own default", function()
    start 'rotate = "never"'
    local _, answer = host:json("POST", "/rogue", { folder = folder, name = "x" })
    assert.matches("may not write", answer.why)
  end)
end)
