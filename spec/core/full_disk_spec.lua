-- A full disk: pushes are refused in the vendor's words, service returns by itself, nothing acknowledged is lost.
local bed = require "bed"

local is_root = io.popen("id -u"):read "l" == "0"

-- Two ways to have no space. fill() returns when nothing more can be written, free() gives it back.
local function small_tmpfs()
  local d = { name = "a full tmpfs", folder = bed.folder() }
  assert(os.execute(("mount -t tmpfs -o size=16m tmpfs '%s'"):format(d.folder)), "cannot mount a tmpfs")
  function d.fill() os.execute(("dd if=/dev/zero of='%s/ballast' bs=64k 2>/dev/null"):format(d.folder)) end
  function d.free() os.remove(d.folder .. "/ballast") end
  function d.close() assert(os.execute(("umount -l '%s'"):format(d.folder))) end
  return d
end

-- No file may grow: as a quota would have it. The write-ahead log's room is what it has grown to.
local function small_files()
  local d = { name = "files that cannot grow", folder = bed.folder() }
  local own = bed.neap
  local wrapper = d.folder .. "/neap-with-limit"
  bed.write(wrapper, ("#!/bin/sh\ntrap '' XFSZ\nexec '%s' \"$@\"\n"):format(own))
  os.execute(("chmod +x '%s'"):format(wrapper))
  bed.neap = wrapper
  local function limit(size) assert(os.execute(("prlimit --pid %d --fsize=%s"):format(d.host.pid, size))) end
  function d.fill() limit "409600:unlimited" end
  function d.free() limit "unlimited:unlimited" end
  function d.close() bed.neap = own end
  return d
end

for _, new_disk in ipairs(is_root and { small_tmpfs, small_files } or { small_files }) do
  describe("the store", function()
    local disk, host, desk
    local acked, refused, n = {}, {}, 0

    local function push()
      n = n + 1
      local id = ("id-%d"):format(n)
      local status, answer, fields = host:json("POST", "/sinocare/push", bed.push { testId = id, deviceSn = "SN-" .. id, testResult = "2.5", serialNo = n, patientName = ("name "):rep(20) })
      if status == 200 and answer.code == 0 then
        acked[#acked + 1] = id
        return true
      end
      refused[#refused + 1] = id
      return false, status, answer, fields
    end

    -- Each acknowledged push is a reading exactly once, has met the rule exactly once and reached the desk.
    local function check_whole()
      bed.wait("all messages at the desk", function()
        desk:poll()
        local seen = {}
        for _, r in ipairs(desk.requests) do seen[r.json.device] = true end
        for _, id in ipairs(acked) do
          if not seen["SN-" .. id] then return false end
        end
        return true
      end, 60)
      local rows = {}
      for _, r in ipairs(host:sql "select key, count(*) n from readings group by key") do rows[r.key] = r.n end
      for _, id in ipairs(acked) do assert.equal(1, rows[id], id) end
      local ids = {} -- device -> id of its message
      for _, r in ipairs(desk.requests) do
        local device, id = r.json.device, r.headers["webhook-id"]
        assert.is_true(ids[device] == nil or ids[device] == id, "two messages of " .. device)
        ids[device] = id
      end
      bed.wait("tasks to end", function() return host:summary().tasks == 0 end)
      assert.equal("ok", bed.run({ "sqlite3", "-readonly", host.store, "pragma integrity_check" }):match "%S+")
    end

    setup(function()
      disk = new_disk()
      desk = bed.receiver()
      host = bed.host {
        folder = disk.folder,
        config = ([[connections = { { "sinocare", name = "ward" } }, rules = { { "low-glucose", to = "desk" } },
          destinations = { desk = { "webhook", url = "http://127.0.0.1:%d/" } }]]):format(desk.port),
      }
      disk.host = host
    end)
    teardown(function()
      host:stop()
      desk:close()
      disk.close()
    end)

    it("refuses pushes while there is no space, and takes them again once there is", function()
      for _ = 1, 20 do assert.is_true(push()) end
      disk.fill()
      local tries = 0
      bed.wait("the first refusal", function() desk:poll() tries = tries + 1 return not push() end)
      for _ = 1, 10 do
        local ok, status, answer, fields = push()
        if not ok then -- a small rest may still have fitted
          assert.equal(503, status)
          assert.is_number(answer.code)
          assert.not_equal(0, answer.code)
          assert.is_string(answer.msg)
          assert.is_true(tonumber(fields["retry-after"]) >= 1)
        end
      end
      assert.equal(404, (host:request("GET", "/nowhere")))
      assert.is_table(host:summary())
      host:wait_text "store: cannot commit"
      disk.free()
      bed.wait("service to return by itself", push)
      assert.is_true(push())
      host:wait_text "store: commits again"
      check_whole()
    end)

    it("keeps what it has acknowledged when it is killed on a full disk", function()
      for _ = 1, 20 do assert.is_true(push()) end
      disk.fill()
      bed.wait("a refusal", function() return not push() end)
      host:stop(9)
      -- without space it either starts, or says what it lacks
      local p = bed.start { bed.neap, "run", host.folder .. "/neap.lua", "--listen", "127.0.0.1:" .. host.port }
      bed.wait("it to start or to end", function()
        p:read()
        return p.output:find "neap listening on" or p.ended
      end)
      if p.ended then
        assert.matches("store: ", p.output)
        assert.matches("full", p.output)
        local how, code = p:wait()
        assert.same({ "exit", 1 }, { how, code })
      else
        assert.equal(404, (host:request("GET", "/nowhere")))
        p:stop(9)
      end
      if disk.name == "a full tmpfs" then disk.free() end
      host:begin()
      assert.is_true(push())
      check_whole()
    end)

    it("takes what was refused when it is pushed again", function()
      local again = refused
      refused = {}
      for _, id in ipairs(again) do
        local status, answer = host:json("POST", "/sinocare/push", bed.push { testId = id, deviceSn = "SN-" .. id, testResult = "2.5" })
        assert.same({ 200, 0 }, { status, answer.code })
        acked[#acked + 1] = id
      end
      check_whole()
      assert.same({ "exit", 0 }, { host:stop() })
    end)
  end)
end
