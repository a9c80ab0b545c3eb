-- plugins/vendors/sinocare.lua against the vendor's document, field by field.
local bed = require "bed"
local json = require "neap.json"

describe("sinocare", function()
  local host
  setup(function() host = bed.host { config = [[connections = { { "sinocare", name = "ward-3" } }]] } end)
  teardown(function() host:stop() end)

  it("answers 0 and stores the reading", function()
    local status, answer = host:json("POST", "/sinocare/push", bed.push())
    assert.equal(200, status)
    assert.same({ code = 0, msg = "" }, answer)
    local row = host:sql("select * from readings where key = 't-1'")[1]
    assert.equal(1635827613000, row.at)
    assert.equal(5.6, row.value)
  end)
end)
