-- Writes core/types/: definitions of what plugins can call, for editors (LuaCATS), taken from the comments in the source.
-- Usage: build/tools/lua spec/tools/types.lua FOLDER
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local source = require "source"

local out
local function put(...) out[#out + 1] = string.format(...) end

-- Comments of at most 120 columns.
local function put_text(text)
  local line = "---"
  for word in text:gmatch "%S+" do
    if #line + #word > 120 then
      put("%s", line)
      line = "---"
    end
    line = line .. (line == "---" and "" or " ") .. word
  end
  if line ~= "---" then put("%s", line) end
end

local function put_function(e, name, target)
  local names = {}
  put_text(e.about)
  for i, p in ipairs(e.params) do
    names[i] = p.name
    put("---@param %s%s %s%s", p.name, p.optional and "?" or "", p.type, p.text ~= "" and " " .. p.text or "")
  end
  for _, r in ipairs(e.returns) do
    for i, v in ipairs(r.values) do
      local about = i == 1 and r.text ~= "" and " # " .. r.text or ""
      put("---@return %s%s%s", v.type, v.name and " " .. v.name or "", about)
    end
  end
  put("function %s%s(%s) end\n", target, name, table.concat(names, ", "))
end

local function put_fields(fields)
  for _, f in ipairs(fields) do
    put("---@field %s%s %s%s", f.name, f.optional and "?" or "", f.type, f.text ~= "" and " " .. f.text or "")
  end
end

local function put_class(e)
  put_text(e.about)
  put("---@class %s", e.class)
  put_fields(e.fields)
  put ""
end

local classes = {
  plugin = "neap.Plugin", ["plugin.store"] = "neap.Store", ["plugin.data"] = "neap.Data", ["plugin.people"] = "neap.People",
  account = "neap.Account", budget = "neap.Budget", window = "neap.Window", client = "neap.MqttClient", p = "neap.test.Plugin",
}

-- Methods of one table: its class, then them.
local function put_methods(list, owner, fields)
  local any = false
  for _, e in ipairs(list) do
    if e.owner == owner then
      local target = owner:match "%w+$"
      if not any then
        if fields then put_text(fields.about) end
        put("---@class %s", classes[owner])
        if fields then put_fields(fields.fields) end
        if owner == "p" then put "---@field name string\n---@field kind \"vendor\"|\"rule\"|\"destination\"\n---@field plugin string" end
        put("local %s = {}\n", target)
        any = true
      end
      for _, name in ipairs { e.name, table.unpack(e.also or {}) } do put_function(e, name, target .. e.mark) end
    end
  end
end

local function put_globals(list)
  for _, e in ipairs(list) do
    if e.owner == "_G" then
      for _, name in ipairs { e.name, table.unpack(e.also) } do put_function(e, name, "") end
    end
  end
  put "---@type neap.Assert\nassert = {}\n"
end

local function put_module(list, module)
  local known = {}
  for _, e in ipairs(list) do
    if e.value then
      put_text(e.about)
      put("---@type %s\n%s = nil\n", e.type, e.value)
    end
    if e.owner and e.owner:match "^%w+" == module then
      if e.owner ~= module and not known[e.owner] then
        known[e.owner] = true
        put("%s = {}\n", e.owner)
      end
      for _, name in ipairs { e.name, table.unpack(e.also or {}) } do put_function(e, name, e.owner .. ".") end
    end
  end
end

local function write(path)
  local f = assert(io.open(path, "w"))
  f:write((table.concat(out, "\n"):gsub("\n+$", "") .. "\n"))
  f:close()
end

local function begin(meta)
  out = {}
  put("---@meta %s", meta)
  put "-- Made by `neap types` from the comments in neap's source: what is written here is lost."
  put "-- luacheck: ignore\n"
end

local folder = arg[1] or error("Usage: types.lua FOLDER")
for _, section in ipairs(source.sections()) do
  local handle, window, client -- whose fields stand with their methods
  if not section.module then
    begin "_"
    for _, e in ipairs(section.list) do
      if e.class == "neap.Plugin" then handle = e elseif e.class == "neap.Window" then window = e elseif e.class then put_class(e) end
    end
    write(folder .. "/shapes.lua")
  end
  local name = section.module or "plugin"
  begin(section.module and "neap." .. name or "_")
  if section.about then put_text(section.about) end
  local local_name = section.module == "test" and "t" or section.module
  if section.module then put("local %s = {}\n", local_name) end
  if not section.module then
    for _, owner in ipairs { "plugin.store", "plugin.data", "plugin.people", "account", "budget" } do put_methods(section.list, owner) end
    put_methods(section.list, "window", window)
    put_methods(section.list, "plugin", handle)
  else
    for _, e in ipairs(section.list) do
      if e.class == classes.client then client = e elseif e.class then put_class(e) end
    end
    if client then put_methods(section.list, "client", client) end
    if section.module == "test" then
      put_globals(section.list)
      put_methods(section.list, "p")
    end
    put_module(section.list, local_name)
    put("return %s", local_name)
  end
  write(("%s/%s.lua"):format(folder, name))
end
