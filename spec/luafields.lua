-- Finds names that the definitions do not have in a plugin's source, as an editor does by them: fields of readings and requests, verbs, functions
-- of modules, options, schemas. It follows what is plain to see: the handle, modules, parameters of handlers, results of calls, ipairs.
package.path = package.path .. ";/usr/share/lua/5.1/?.lua" -- luacheck's parser
local decoder = require "luacheck.decoder"
local parser = require "luacheck.parser"

local owner_of = {
  ["neap.Plugin"] = "plugin", ["neap.Store"] = "plugin.store", ["neap.Data"] = "plugin.data", ["neap.People"] = "plugin.people",
  ["neap.Account"] = "account", ["neap.Budget"] = "budget", ["neap.test.Plugin"] = "p",
}

local Walk = {}
Walk.__index = Walk

local function plain(kind) return kind and kind:gsub("%?$", "") or nil end

function Walk:wrong(node, what) self.found[#self.found + 1] = ("%d: %s"):format(node.line or 0, what) end

-- The function that a class or a module has under that name; nil where it has none.
function Walk:member(kind, name)
  local owner = owner_of[kind] or kind and kind:match "^module (.*)$"
  return owner and self.types.functions[owner] and self.types.functions[owner][name]
end

-- The type of a field, "" where it is not known; nil where there is no such field.
function Walk:field(kind, name)
  local class = self.types.classes[kind]
  if self:member(kind, name) then return "" end
  if kind:find "^module " then
    local inner = kind .. "." .. name
    if self.types.functions[inner:match "^module (.*)$"] then return inner end
    local values = self.types.values[kind:match "^module (.*)$"]
    return values and values[name] and "" or nil
  end
  if not class then return "" end
  local f = class[name] or class["[string]"]
  return f and plain(f.type)
end

function Walk:index(node)
  local kind, key = plain(self:expression(node[1])), node[2]
  if key.tag ~= "String" then
    self:expression(key)
    return kind and kind:match "^(.*)%[%]$"
  end
  if not kind or kind == "" then return end
  local found = self:field(kind, key[1])
  if not found then self:wrong(node, kind .. " has no " .. key[1]) end
  return found
end

-- A table that is given where a type is expected.
function Walk:construct(node, kind)
  local class = self.types.classes[kind]
  local each = kind:match "^table<string, ([%w_.]+)>"
  local place = 0
  for _, item in ipairs(node) do
    local name, value = item.tag == "Pair" and item[1].tag == "String" and item[1][1] or nil, item.tag == "Pair" and item[2] or item
    if item.tag ~= "Pair" then
      place = place + 1
      name = "[" .. place .. "]"
    end
    local f = class and name and (class[name] or class["[string]"])
    if class and name and not f and item.tag == "Pair" then self:wrong(value, kind .. " has no " .. name) end
    self:given(value, each or f and plain(f.type))
  end
  if not class then return end
  for name, f in pairs(class) do
    local has = f.optional or name:find "^%["
    for _, item in ipairs(node) do has = has or item.tag == "Pair" and item[1][1] == name end
    if not has then self:wrong(node, kind .. " needs " .. name) end
  end
end

function Walk:given(node, kind)
  if node.tag == "Table" and kind then
    for one in kind:gmatch "[^|]+" do
      if self.types.classes[one] or one:find "^table<string, neap" then return self:construct(node, one) end
    end
  elseif node.tag == "Function" and kind and kind:find "^fun%(" then
    local kinds = {}
    for k in kind:match("^fun(%b())"):sub(2, -2):gmatch ":%s*([^,]+)" do kinds[#kinds + 1] = plain(k) end
    return self:closure(node, kinds)
  end
  return self:expression(node)
end

function Walk:closure(node, kinds)
  local outer = self.scope
  self.scope = setmetatable({}, { __index = outer })
  for i, p in ipairs(node[1]) do self.scope[p[1]] = kinds and kinds[i] or "" end
  self:block(node[2])
  self.scope = outer
end

function Walk:call(node)
  local fn, first
  if node.tag == "Invoke" then
    local kind = plain(self:expression(node[1]))
    fn, first = self:member(kind, node[2][1]), 3
    if kind and owner_of[kind] and not fn then self:wrong(node, kind .. " has no " .. node[2][1]) end
  else
    local callee = node[1]
    first = 2
    if callee.tag == "Id" and callee[1] == "require" and node[2] and node[2].tag == "String" then
      local module = node[2][1]:match "^neap%.(%w+)$"
      return module and "module " .. (module == "test" and "t" or module) or ""
    end
    if callee.tag == "Id" and callee[1] == "assert" then
      local kind = node[2] and self:expression(node[2])
      for i = 3, #node do self:expression(node[i]) end
      return plain(kind)
    end
    if callee.tag == "Index" and callee[2].tag == "String" then fn = self:member(plain(self:expression(callee[1])), callee[2][1]) end
    self:expression(callee)
  end
  for i = first, #node do
    local p = fn and fn.params[i - first + 1]
    self:given(node[i], p and plain(p.type))
  end
  local r = fn and fn.returns[1]
  return r and plain(r.type)
end

function Walk:expression(node)
  local tag = node.tag
  if tag == "Id" then return rawget(self, "scope")[node[1]] end
  if tag == "Index" then return self:index(node) end
  if tag == "Call" or tag == "Invoke" then return self:call(node) end
  if tag == "Paren" then return self:expression(node[1]) end
  if tag == "Function" then return self:closure(node) end
  if tag == "Dots" then return self.top and "neap.Plugin" or nil end
  for _, inner in ipairs(node) do
    if type(inner) == "table" then self:expression(inner) end
  end
end

function Walk:statement(node)
  local tag = node.tag
  if tag == "Local" or tag == "Set" then
    local kinds = {}
    for i, value in ipairs(node[2] or {}) do kinds[i] = self:expression(value) or "" end
    for i, name in ipairs(node[1]) do
      if name.tag ~= "Id" then self:expression(name)
      elseif tag == "Local" then self.scope[name[1]] = kinds[i] or "" end
    end
  elseif tag == "Localrec" then
    self.scope[node[1][1][1] or node[1][1]] = ""
    self:expression(node[2][1] or node[2])
  elseif tag == "Forin" then
    local outer, from = self.scope, node[2][1]
    local kind = from.tag == "Call" and from[1][1] == "ipairs" and from[2] and plain(self:expression(from[2])) or nil
    for _, e in ipairs(node[2]) do self:expression(e) end
    self.scope = setmetatable({}, { __index = outer })
    for i, name in ipairs(node[1]) do self.scope[name[1]] = i == 2 and kind and kind:match "^(.*)%[%]$" or "" end
    self:block(node[3])
    self.scope = outer
  else
    for _, inner in ipairs(node) do
      if type(inner) == "table" then
        if inner.tag then
          if inner.tag:find "^[LSDWFRIGB]" and inner.tag ~= "Id" and inner.tag ~= "Index" and inner.tag ~= "Invoke" and inner.tag ~= "Function"
            and inner.tag ~= "String" and inner.tag ~= "Dots" and inner.tag ~= "False" then self:statement(inner) else self:expression(inner) end
        else
          self:block(inner)
        end
      end
    end
  end
end

function Walk:block(list)
  local outer = self.scope
  self.scope = setmetatable({}, { __index = outer })
  for _, node in ipairs(list) do
    if node.tag == "Call" or node.tag == "Invoke" then self:expression(node) else self:statement(node) end
  end
  self.scope = outer
end

-- What is wrong in the source: "LINE: neap.Reading has no valeu".
return function(types, source)
  local walk = setmetatable({ types = types, found = {}, scope = {}, top = true }, Walk)
  walk:block((parser.parse(decoder.decode(source), {}, {})))
  return walk.found
end
