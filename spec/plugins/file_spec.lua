-- file in a running host: what is on disk, over kills, rotation and whatever else may stand there.
local bed = require "bed"
local json = require "neap.json"

local source = bed.UNKEPT_EMITTER
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
  local folder, out, host, pushed
  before_each(function()
    folder, pushed = bed.folder(), 0
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
    pushed = pushed + to - from + 1
    for i = from, to do list[#list + 1] = { device = "w-" .. i % 7, metric = "temp", value = i, at = 1772352000000 + i } end
    assert.equal(204, (host:request("POST", "/readings", json.encode(list))))
  end
  local function settled()
    bed.wait("all to be delivered", function()
      return host:sql("select (select count(*) from delivered) + (select count(*) from dead) as n")[1].n == pushed
    end)
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

  describe("on a disk", function()
    local own, control = bed.neap, nil
    local function disk(says) bed.replace(control, says) end
    before_each(function()
      control = folder .. "/says"
      local library, wrapper = folder .. "/faulty_disk.so", folder .. "/neap-on-it"
      local built, code = bed.run { "cc", "-shared", "-fPIC", "-o", library, "spec/plugins/faulty_disk.c", "-ldl" }
      assert.equal(0, code, built)
      bed.write(wrapper, ("#!/bin/sh\nexport FAULTY_DISK='%s' FAULTY_DISK_SAYS='%s' ASAN_OPTIONS=\"$ASAN_OPTIONS:verify_asan_link_order=0\"\nLD_PRELOAD='%s' exec '%s' \"$@\"\n")
        :format(out, control, library, own))
      os.execute("chmod +x " .. wrapper)
      bed.neap = wrapper
      disk "well"
    end)
    after_each(function() bed.neap = own end)

    local function tried(why)
      bed.wait("the reason: " .. why, function() return #host:sql(("select * from outbox where error like '%%%s%%'"):format(why)) > 0 end)
    end

    it("whose fsync fails, tells nobody that something is there; what was written is taken back, and written when it is well", function()
      disk "fail"
      start 'rotate = "never"'
      push(1, 20)
      tried "fsync of"
      bed.wait("nothing to stand there", function() return bed.read(out .. "/messages.ndjson") == "" end)
      assert.equal(0, host:sql "select count(*) n from delivered"[1].n)
      disk "well"
      settled()
      check(20)
      disk "fail" -- where there is something already
      local before = bed.read(out .. "/messages.ndjson")
      push(21, 30)
      tried "fsync of"
      bed.wait("no more to stand there than before", function() return bed.read(out .. "/messages.ndjson") == before end)
      disk "well"
      settled()
      check(30)
    end)

    it("that does not know how to rename without replacing, as NFS, puts aside all the same, and replaces nothing", function()
      disk "plain"
      start 'rotate = "day"'
      push(1, 1)
      settled()
      bed.write(out .. "/messages-20260301T080000Z.ndjson", "")
      assert(os.execute("touch -d 2026-03-01T08:00:00Z " .. out .. "/messages.ndjson"))
      push(2, 2)
      settled()
      assert.same({ "messages-20260301T080000Z.ndjson", "messages-20260301T080000Z_001.ndjson", "messages.ndjson" }, names())
      assert.equal("", bed.read(out .. "/messages-20260301T080000Z.ndjson"))
      for i, name in ipairs { "messages-20260301T080000Z_001.ndjson", "messages.ndjson" } do
        assert.matches('^{"id":"msg_[^\n]*"value":' .. i .. "[^\n]*\n$", bed.read(out .. "/" .. name))
      end
    end)

    it("that hangs, holds up nothing else, nor the end of the host; nothing is lost or doubled", function()
      disk "hang"
      start 'rotate = "never", timeout = "1s"'
      push(1, 20)
      tried "the disk has not answered in time"
      push(21, 30) -- others are served
      assert.is_true(#host:command "destinations" > 1)
      disk "well" -- what hung is there now, though it was told as failed
      settled()
      check(30)
      disk "hang"
      push(31, 40)
      tried "the disk has not answered in time"
      assert.same({ "exit", 0 }, { host:stop() })
      disk "well"
      host:begin()
      settled()
      check(40)
    end)
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
