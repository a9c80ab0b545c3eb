-- examples/recorder: what a plugin asks of an API becomes a file that a spec plays.
local bed = require "bed"
local json = require "neap.json"

describe("the recorder", function()
  it("passes on and writes down what is asked and answered, without secrets, and a spec plays it", function()
    local cloud, folder = bed.receiver(), bed.folder()
    local n = 0
    cloud.answer = function()
      n = n + 1
      return 200, json.encode { access_token = "t0ken", n = n }, { ["content-type"] = "application/json", ["set-cookie"] = "sid=t0ken" }
    end
    for _, name in ipairs { "plugins/vendors/recorder.lua", "plugins/lib/recording.lua", "neap.lua" } do
      bed.write(folder .. "/" .. name, bed.read("examples/recorder/" .. name))
    end
    local host = bed.host { folder = folder, keep_config = true, env = { "RECORD=" .. cloud.url .. "/v1/" }, args = { "--listen", "127.0.0.1:0" } }
    for i = 1, 2 do
      local curl = bed.start { "curl", "-s", host.url .. "/api/levels?since=1&token=t0ken", "-H", "Authorization: Bearer t0ken", "-H", "X-Note: kept" }
      local request = cloud:wait(i)[i]
      curl:wait()
      assert.same({ access_token = "t0ken", n = i }, json.decode(curl.output))
      assert.equal("/v1/levels?since=1&token=t0ken", request.path)
      assert.equal("Bearer t0ken", request.headers.authorization)
    end
    local text = bed.run { "curl", "-s", host.url .. "/recording" }
    assert.truthy(text:find((">>> GET %s/v1/levels?since=1&token=***\n"):format(cloud.url), 1, true), text)
    for _, line in ipairs { "authorization: ***", "set-cookie: ***", "x-note: kept", "<<< 200", "content-type: application/json" } do
      assert.truthy(text:find("\n" .. line .. "\n", 1, true), line .. " is not in " .. text)
    end
    assert.truthy(text:find('"access_token":"***"', 1, true), text)
    assert.is_nil(text:find "t0ken")
    assert.same({ forgotten = 2 }, json.decode((bed.run { bed.neap, "call", "recorder", "forget", "--config", folder })))
    assert.equal("", (bed.run { "curl", "-s", host.url .. "/recording" }))
    cloud:close()
    local unreached = bed.run { "curl", "-s", "-w", "%{http_code}", host.url .. "/api/levels" }
    assert.matches("502$", unreached)
    host:stop()

    bed.write(folder .. "/own/plugins/vendors/x.http", text)
    bed.write(folder .. "/own/plugins/vendors/x.lua", ([[
      local plugin = ...
      local http = require "neap.http"
      local config = plugin:config { url = { "string", default = "%s/v1" }, token = { "secret", default = "mine" } }
      plugin:every("5m", "poll", function()
        local res = assert(http.get { url = config.url .. "/levels?since=1", query = { token = config.token }, expect = 200 })
        plugin.store:put("n", res.json.n)
      end)]]):format(cloud.url))
    bed.write(folder .. "/own/plugins/vendors/x_spec.lua", [[
      local t = require "neap.test"
      it("is played", function()
        local x = t.plugin "x"
        t.replay "x.http"
        for n = 1, 2 do
          assert.is_true(x:job "poll")
          assert.equal(n, x:stored "n")
        end
      end)]])
    local out, code = bed.run({ bed.neap, "test" }, { cwd = folder .. "/own" })
    assert.equal(0, code, out)
  end)
end)
