-- Reads definitions as `neap types` writes them: classes with their fields, functions with their parameters and what they return.
local luacats = require "luacats"

local luatypes = {}
luatypes.__index = luatypes

local builtin = {}
for name in ("any nil boolean string number integer table function true false userdata thread unknown"):gmatch "%S+" do builtin[name] = true end

function luatypes.new()
  return setmetatable({ classes = {}, functions = {}, values = {}, named = {}, wrong = {} }, luatypes)
end

local function tag_of(self, tag, text, place)
  local ok, why = pcall(function()
    local name, optional, rest
    if tag == "return" then rest = text else
      name, optional, rest = text:match "^(%b[])(%??)%s+(.+)$"
      if not name then name, optional, rest = text:match "^([%a_][%w_]*)(%??)%s+(.+)$" end
      if not name then error "a name and a type are expected" end
    end
    local kind, after, names = luacats.type(rest)
    for _, n in ipairs(names) do self.named[n] = place end
    return { name = name, optional = optional == "?" or kind:find "%?$" ~= nil or kind == "any", type = kind, text = after }
  end)
  if ok then return why end
  self.wrong[#self.wrong + 1] = place .. ": " .. tostring(why)
end

function luatypes:read(path)
  local class, params, returns, n = nil, {}, {}, 0
  for line in io.lines(path) do
    n = n + 1
    local place = path .. ":" .. n
    local tag, text = line:match "^%-%-%-@(%l+) (.*)$"
    if tag == "class" then
      class = text:match "^[%w_.]+$"
      if not class or self.classes[class] then self.wrong[#self.wrong + 1] = place .. ": " .. line end
      self.classes[class or "?"] = {}
    elseif tag == "field" then
      local f = tag_of(self, tag, text, place)
      if f and self.classes[class] then self.classes[class][f.name] = f end
    elseif tag == "param" then
      params[#params + 1] = tag_of(self, tag, text, place)
    elseif tag == "return" then
      returns[#returns + 1] = tag_of(self, tag, text, place)
    elseif tag == "type" then
      tag_of(self, "return", text, place)
    elseif tag and tag ~= "meta" then
      self.wrong[#self.wrong + 1] = place .. ": " .. line
    end
    local known, value = line:match "^(%l+)%.([%w_]+) = nil$"
    if known then
      self.values[known] = self.values[known] or {}
      self.values[known][value] = true
    end
    local owner, name, args = line:match "^function ([%w_.]-)[.:]?([%w_]+)%(([^)]*)%) end$"
    if name then
      if owner == "" then owner = "_G" end
      if class and owner:find "^%l+$" and not self.functions[owner] then self.functions[owner] = {} end
      owner = ({ store = "plugin.store", data = "plugin.data", people = "plugin.people" })[owner] or owner
      self.functions[owner] = self.functions[owner] or {}
      local given = {}
      for i, p in ipairs(params) do given[i] = p.name end
      if table.concat(given, ", ") ~= args then self.wrong[#self.wrong + 1] = place .. ": its parameters are not those above it" end
      self.functions[owner][name] = { params = params, returns = returns }
    end
    if not line:find "^%-%-%-" then params, returns, class = {}, {}, nil end
  end
  for owner in pairs(self.functions) do
    if not next(self.functions[owner]) then self.functions[owner] = nil end
  end
end

-- Names of types that nothing defines, each with the place that names it.
function luatypes:unknown()
  local list = {}
  for name, place in pairs(self.named) do
    if not builtin[name] and not self.classes[name] then list[#list + 1] = place .. ": " .. name end
  end
  table.sort(list)
  return list
end

return luatypes
