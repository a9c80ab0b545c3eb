-- Live messages go before those of replays, however many of these wait: 100,000 here, or NEAP_MESSAGES. What a message costs, and the host's memory, do
-- not hang on how many there are.
local bed = require "bed"

local WAITING, DEVICES, LIVE, FLYING = tonumber(os.getenv "NEAP_MESSAGES") or 100000, 500, 400, 4

local RULE = [[
local plugin = ...
plugin:on({ metric = "m" }, function(r) plugin:send("desk", { n = r.value }) end)]]

local function memory(pid) return tonumber(bed.read("/proc/" .. pid .. "/status"):match "VmRSS:%s*(%d+)") / 1024 end

describe("live messages", function()
  local host, receiver, hold, held, order
  local function config(batch)
    return ([[return { listen = "127.0.0.1:0", plugins = %q, lanes = 2,
      destinations = { desk = { "desk", url = %q, delivery = { batch = %d, concurrency = %d } } } }]]):format(host.plugins, receiver.url, batch, FLYING)
  end
  local function count(where) return host:sql("select count(*) n from outbox where " .. where)[1].n end
  local function push(from, to)
    local list = {}
    for n = from, to do list[#list + 1] = { device = "D" .. n % DEVICES, metric = "m", value = n, at = n } end
    assert.equal(204, (host:request("POST", "/readings", list)))
  end
  local function answer(client)
    client.socket:settimeout(5)
    client.socket:send "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    client.socket:settimeout(0)
  end

  -- Each line that comes is in `order`: the message's number, those of replays below 0.
  before_each(function()
    hold, held, order = true, {}, {}
    receiver = bed.receiver()
    receiver.answer = function(request, client)
      for n in request.body:gmatch "(%-?%d+)\n" do order[#order + 1] = tonumber(n) end
      if not hold then return 200, "" end
      held[#held + 1] = client
      return false
    end
    host = bed.host { plugins = { ["vendors/v.lua"] = bed.UNKEPT_EMITTER, ["rules/r.lua"] = RULE, ["destinations/desk.lua"] = bed.POSTER } }
  end)
  after_each(function()
    host:stop()
    receiver:close()
  end)

  -- A host on whose start so many messages of a replay wait, which is given live ones; when all of these and as many of the others have arrived: CPU and memory.
  local function measure(waiting)
    host:stop()
    bed.write(host.folder .. "/neap.lua", config(1))
    local out, code = bed.run { "sqlite3", host.store, ([[
      insert into outbox(seq, id, destination, device, body, source, reading, created, generation, replayed, about, attempts, due, since)
      with recursive c(n) as (select 1 union all select n + 1 from c where n < %d)
      select n, printf('msg_%%032d', n), 'desk', 'D' || (n %% %d), '{"n":-' || n || '}', 'r', 0, 1, 1, 1, 1, 0, 0, 1 from c]]):format(waiting, DEVICES) }
    assert.equal(0, code, out)
    host:begin()
    local function come(n) bed.wait(n .. " messages", function() receiver:poll() return #order >= n end) end
    come(FLYING - 1) -- one place is left to live messages
    push(1, LIVE)
    bed.wait("live messages", function() receiver:poll() return count "replayed = 0" == LIVE end)
    assert.equal(waiting, count "replayed > 0")
    hold = false
    for _, client in ipairs(held) do answer(client) end
    come(2 * LIVE)
    return bed.cpu(host.pid), memory(host.pid)
  end

  local function check_order()
    local last = 0
    for i, n in ipairs(order) do
      if n > 0 then last = i end
    end
    assert.is_true(last <= LIVE + 2 * FLYING, "the last live message was number " .. last)
  end

  local small_cpu, small_memory
  it("go before some hundreds", function()
    small_cpu, small_memory = measure(4 * LIVE)
    check_order()
  end)

  it("go before tens of thousands, at the same cost each", function()
    local cpu, mb = measure(WAITING)
    check_order()
    assert.is_true(cpu < 2 * small_cpu + 0.3, ("%.2f s of CPU, and %.2f where few waited"):format(cpu, small_cpu))
    assert.is_true(mb < small_memory + 16, ("%.0f MiB, and %.0f where few waited"):format(mb, small_memory))

    bed.replace(host.folder .. "/neap.lua", config(100))
    bed.wait("all of them", function() receiver:poll() return #order >= WAITING + LIVE end, 120)
    bed.wait("the outbox to be empty", function() receiver:poll() return count "1" == 0 end)
    assert.equal(WAITING + LIVE, #order)
    local newest = {}
    for _, n in ipairs(order) do -- of each device in their order, and so none twice
      if n < 0 then
        assert.is_true((newest[-n % DEVICES] or 0) < -n, "message " .. -n)
        newest[-n % DEVICES] = -n
      end
    end
  end)
end)
