-- Writes docs/reference.md: what plugins can call, taken from the comments in the source.
-- Usage: build/tools/lua spec/tools/reference.lua > docs/reference.md
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local source = require "source"

local out = {}
local function put(...) out[#out + 1] = string.format(...) end

local function put_tags(tags)
  local lines = {}
  for _, t in ipairs(tags) do
    local said = t.name and ("%s%s %s"):format(t.name, t.optional and "?" or "", t.type)
    if not said then
      local values = {}
      for i, v in ipairs(t.values) do values[i] = v.type .. (v.name and " " .. v.name or "") end
      said = t.text ~= "" and t.values[1].type or table.concat(values, ", ")
    end
    lines[#lines + 1] = ("- `@%s %s`%s"):format(t.tag, said, t.text ~= "" and " " .. t.text or "")
  end
  if #lines > 0 then put("\n%s\n", table.concat(lines, "\n")) end
end

put "# Reference"
put "\nMade from the comments in the source by `make docs`. The guide is [plugins.md](plugins.md). `?` marks what may be left out; times are integer ms since 1970 UTC."
put "`neap types` writes the same for editors.\n"
for _, section in ipairs(source.sections()) do
  put("\n## %s\n", section.title)
  if section.about then put("%s\n", section.about) end
  for _, e in ipairs(section.list) do
    put("### %s\n%s\n", e.class or e.head, e.about)
    put_tags(e.fields or e.tags)
  end
end
io.write((table.concat(out, "\n"):gsub("\n\n\n+", "\n\n")))
