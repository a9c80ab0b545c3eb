-- The vendor's own SDK, @tuya/tuya-connector-nodejs, unchanged, against neap: what a client written for Tuya meets. `make sdk` installs it below build/sdk.
local bed = require "bed"
local json = require "neap.json"
local tuya = require "tuya"

local HOME = bed.root .. "/build/sdk"

for version, name in pairs { v2 = "with today's signature", v1 = "with the old signature" } do
  describe("tuya's SDK " .. name, function()
    local host, made, steps

    setup(function()
      assert(os.execute(("test -f '%s/node_modules/@tuya/tuya-connector-nodejs/package.json'"):format(HOME)),
        "the SDK is not below build/sdk: run `make sdk`, which installs it by npm")
      host = bed.host { config = [[connections = { { "tuya", people = true } }]] }
      made = assert(tuya.run(host, "tuya", "sandbox", { url = host.url }))
      bed.write(HOME .. "/tuya_sdk.js", bed.read(bed.root .. "/spec/plugins/tuya_sdk.js"))
      local c = made.credentials
      local out, code = bed.run { "node", HOME .. "/tuya_sdk.js", host.url, c.client_id, c.secret, c.device_id, version }
      assert(code == 0, out)
      steps = {}
      for line in out:gmatch "[^\n]+" do
        local step = assert(json.decode(line), line)
        steps[step.step] = step.value
      end
    end)
    teardown(function() host:stop() end)

    local function result(step)
      assert.is_true(steps[step].success, json.encode(steps[step]))
      return steps[step].result
    end

    it("gets a token", function()
      assert.equal(7200, result "token".expire_time)
      assert.equal(made.credentials.uid, result "token".uid)
    end)

    it("reads a device and the list", function()
      assert.equal(made.credentials.device_id, result "detail".id)
      assert.equal("Infusion pump socket", result "detail".name)
      assert.equal(5, #result "list".devices)
      assert.equal(9, result "list".total)
    end)

    it("reads logs, page by page", function()
      local first, second = result "logs", result "more logs"
      assert.equal(10, #first.logs)
      assert.equal(10, #second.logs)
      assert.is_true(second.logs[1].event_time <= first.logs[10].event_time)
      for _, e in ipairs(first.logs) do assert.truthy(e.code == "cur_voltage" or e.code == "switch_1" or e.event_id == 1) end
    end)

    it("renames a device, and keeps its users", function()
      assert.is_true(result "rename")
      assert.equal("新 name & more", result "renamed".name)
      assert.truthy(result "user":find "^%d+$")
      assert.equal("张三", result "users"[1].nick_name)
      assert.is_true(result "user removed")
    end)

    it("goes on where its token has expired, by the refresh token or by a new one", function()
      assert.equal(made.credentials.device_id, result "after an expired token".id)
      assert.equal(made.credentials.device_id, result "after both".id)
      assert.is_true(steps["the pair is the same while it is valid"])
    end)

    it("is told that a path is none, and that a secret is wrong", function()
      assert.equal(1108, steps["nothing there"].code)
      assert.truthy(tostring(steps["wrong secret"]):find("1004", 1, true), json.encode(steps["wrong secret"]))
    end)
  end)
end
