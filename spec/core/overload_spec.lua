-- More than the store can take: a request is refused with 503 and Retry-After rather than buffered without end, and what is taken is kept.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

describe("overload", function()
  for _, queue in ipairs { 1, 4 } do
    describe("with queue = " .. queue, function()
      local host, desk
      local acked, refused = {}, 0
      setup(function()
        desk = bed.receiver()
        host = bed.host { config = ([[lanes = 2, queue = %d, connections = { { "sinocare", name = "ward" } }, rules = { { "low-glucose", to = "desk" } },
          destinations = { desk = { "webhook", url = "http://127.0.0.1:%d/" } }]]):format(queue, desk.port) }
      end)
      teardown(function()
        desk:close()
        assert.same({ "exit", 0 }, { host:stop() })
      end)

      -- Pushes on many connections at once: all are sent before the first answer is read.
      local function flood(round, sockets)
        for i, s in ipairs(sockets) do
          local id = ("r%d-%d"):format(round, i)
          local body = json.encode(bed.push { testId = id, deviceSn = "SN-" .. id, testResult = round == 1 and "2.5" or "5.5", serialNo = json.null })
          s:send(("POST /sinocare/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
        end
        for i, s in ipairs(sockets) do
          local status, body, fields = bed.receive(s)
          if status == 200 then
            assert.equal(0, json.decode(body).code)
            acked[#acked + 1] = { id = ("r%d-%d"):format(round, i), low = round == 1 }
          else
            refused = refused + 1
            assert.equal(503, status)
            assert.is_true(tonumber(fields["retry-after"]) >= 1)
            assert.not_equal(0, json.decode(body).code)
          end
        end
      end

      it("past the bound it is 503 with Retry-After, and nothing that was acknowledged is lost", function()
        local sockets = {}
        for i = 1, 200 do
          sockets[i] = assert(socket.connect("127.0.0.1", host.port))
          sockets[i]:settimeout(30)
        end
        local round = 0
        bed.wait("some to be refused and some to be taken", function()
          round = round + 1
          flood(round, sockets)
          desk:poll()
          return refused > 0 and #acked > 100
        end)
        local before = host:summary()
        for _ = 1, 20 do
          round = round + 1
          flood(round, sockets)
        end
        local after = host:summary()
        assert.is_true(after.resident - before.resident < 30 << 20, "grown by " .. after.resident - before.resident)
        assert.is_true(after.queue <= queue + 64, "waiting: " .. after.queue)
        for _, s in ipairs(sockets) do s:close() end
        local rows = {}
        for _, r in ipairs(host:sql "select key, count(*) n from readings group by key") do rows[r.key] = r.n end
        for _, a in ipairs(acked) do assert.equal(1, rows[a.id], a.id) end
        local told = {}
        bed.wait("the low ones at the desk", function()
          for _, r in ipairs(desk:poll()) do told[r.json.device] = true end
          for _, a in ipairs(acked) do
            if a.low and not told["SN-" .. a.id] then return false end
          end
          return true
        end)
        bed.wait("tasks to end", function() return host:summary().tasks == 0 end)
      end)

      it("it takes all again when the flood is over", function()
        for i = 1, 50 do
          bed.wait("a push to be taken", function() -- what rules do of the one before counts towards so small a bound too
            local status, answer = host:json("POST", "/sinocare/push", bed.push { testId = "calm-" .. i, deviceSn = "SN-calm" })
            return status == 200 and answer.code == 0
          end)
        end
      end)
    end)
  end
end)
