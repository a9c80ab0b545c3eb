-- A reader of the log that does not read holds up nobody.
local bed = require "bed"

describe("the log", function()
  it("is dropped, and counted, rather than waited for", function()
    local host = bed.host { plugins = { ["vendors/noisy.lua"] = [[
      local plugin = ...
      local log = require "neap.log"
      local line = ("x"):rep(900)
      plugin:serve { "GET /noise", handler = function() for _ = 1, 100 do log.info(line) end return 204 end }
    ]] }, config = "limits = { log = 1000000, log_burst = 1000000 }" }
    -- nothing is read from its output meanwhile: a pipe holds 64 KiB, the host another MiB
    for _ = 1, 40 do assert.equal(204, (host:request("GET", "/noise"))) end
    assert.equal(204, (host:request("GET", "/noise")))
    host:wait_for "log lines were dropped"
    assert.equal("exit", (host:stop()))
  end)
end)
