-- What docs/destinations.md shows of neap.lua is in order as it stands there, and what it says of settings is what the plugins have.
local bed = require "bed"

local page = bed.read "docs/destinations.md"

describe("docs/destinations.md", function()
  it("shows configurations that are in order", function()
    local n = 0
    for text in page:gmatch "```lua\n(.-)```" do
      n = n + 1
      local folder = bed.folder()
      for _, name in ipairs { "client.pem", "client.key", "desk-ca.pem" } do bed.write(folder .. "/" .. name, "-----BEGIN X-----\n") end
      local env = {}
      for name in text:gmatch 'env "([%w_]+)"' do env[#env + 1] = name .. "=twelve letters and more" end
      bed.write(folder .. "/neap.lua", (text:gsub("^return {", ("return { plugins = %q,"):format(bed.plugins))))
      local out, code = bed.run({ bed.neap, "check", folder .. "/neap.lua" }, env)
      assert.equal(0, code, text .. out)
    end
    assert.is_true(n >= 5)
  end)

  it("names every setting of each plugin that it describes, and no other", function()
    for plugin in page:gmatch "\n## ([%w-]+)\n" do
      local f = io.open(bed.plugins .. "/destinations/" .. plugin .. ".lua", "rb")
      if f then
        local code = f:read "a"
        f:close()
        local section = page:match("\n## " .. plugin .. "\n(.-)\n## ") or page:match("\n## " .. plugin .. "\n(.*)$")
        local table_of = section:match "| setting |.-\n\n" or section:match "| setting |.*" or "" -- it has none
        local said, has = {}, {}
        for row in table_of:gmatch "\n| ([^|]+)|" do for name in row:gmatch "`([%w_]+)`" do said[name] = true end end
        for name in code:gmatch "\n  ([%w_]+) = { \"%l+\"" do has[name] = true end
        said.subject_system, has.subject_system = nil, nil -- stands with subject
        assert.same(has, said, plugin)
      end
    end
  end)
end)
