-- docs/reference.md is made from the source: it has to be what the source says now.
local bed = require "bed"

describe("the reference", function()
  it("is what `make docs` makes of the source", function()
    local made, code = bed.run { bed.tools .. "/lua", "spec/tools/reference.lua" }
    assert.equal(0, code)
    assert.equal(made, bed.read "docs/reference.md")
  end)

  it("has every verb of the handle and every function of the modules", function()
    local text = bed.read "docs/reference.md"
    for _, name in ipairs { "crypto", "json", "time", "webhooks" } do
      for verb, value in pairs(require("neap." .. name)) do
        if type(value) == "function" then assert.truthy(text:find("### " .. name .. "." .. verb, 1, true), name .. "." .. verb .. " is not in it") end
      end
    end
    for verb in bed.read("core/host/host.lua"):gmatch "function plugin:(%w+)" do
      assert.truthy(text:find("### plugin:" .. verb, 1, true), verb .. " is not in it")
    end
  end)
end)
