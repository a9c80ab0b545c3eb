-- What plugins can call, taken from the comments in the source: docs/reference.md and core/types/ are made of it.
--
-- A comment that begins with a call, such as `plugin.store:get(key)`, or that stands above a module's function, tells of that
-- function; one that begins with `@class` tells of a table, one with `@value` of what else a module has. Its sentences come first, then `@param name type text`,
-- `@return type text` (or `@return type name, type name`) and `@field name type text`; types are LuaCATS'. What may be left out
-- has a `?` after its name. A text with "or nil, why" says that a reason and a code come back then.
local luacats = require "luacats"

local source = {}

local function read(path)
  local f = assert(io.open(path))
  local text = f:read "a"
  f:close()
  return text
end

-- A comment without its marks, on one line.
local function clean(comment)
  local text = comment:gsub("^/%*+", ""):gsub("%*/%s*$", ""):gsub("\n%s*%*", "\n"):gsub("^%-%-+", ""):gsub("\n%-%-+", "\n")
  return (text:gsub("%-%-%-@", "@"):gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

local function read_returns(text)
  local values, rest = {}, text
  while rest ~= "" do -- "T name, T name", to the end
    local ok, kind, after = pcall(luacats.type, rest)
    local name, more = (ok and after or ""):match "^([%a_][%w_]*)(.*)$"
    if not name or more ~= "" and not more:find "^, " then break end
    values[#values + 1] = { type = kind, name = name }
    rest = more:gsub("^, ", "")
    if more == "" then return { values = values, text = "" } end
  end
  local kind, after = luacats.type(text)
  values = { { type = kind } }
  if after:find "or nil, why" then
    values[2] = { type = "string?", name = "why" }
    values[3] = { type = "string?", name = "code" }
  end
  return { values = values, text = after }
end

local function read_tag(tag, text)
  if tag == "return" then
    local r = read_returns(text)
    r.tag, r.said = tag, text
    return r
  end
  local name, rest = text:match "^(%b[])%s+(.*)$"
  if not name then name, rest = text:match "^([%a_][%w_]*%??)%s+(.*)$" end
  if not name then error("@" .. tag .. ": expected a name and a type: " .. text, 0) end
  local optional = name:find "%?$" ~= nil
  local kind, after = luacats.type(rest)
  return { tag = tag, name = name:gsub("%?$", ""), optional = optional, type = kind, text = after, said = text }
end

-- Sentences, and what is said by tags.
local function split(text)
  local tags, first = {}, text:find "%f[@]@%l+ "
  if not first then return text, tags end
  local at = first
  while at do
    local tag, from = text:match("^@(%l+) ()", at)
    local next_at = from and text:find(" @%l+ ", from)
    tags[#tags + 1] = read_tag(tag, text:sub(from, next_at and next_at - 1 or -1):gsub(" $", ""))
    at = next_at and next_at + 1
  end
  return text:sub(1, first - 1):gsub(" $", ""), tags
end

-- "name [, settings]" -> parameters of a function whose comment does not tell their types
local function params_of(args)
  local list = {}
  if args:find "^{" then return { { tag = "param", name = "options", type = "table", text = "", optional = false } } end
  local optional = false
  for mark, name in args:sub(2, -2):gsub("%b{}", "options"):gmatch "(%[?)[%s,]*(%[?[%a_]+)" do
    if mark == "[" or name:find "^%[" then optional = true end
    list[#list + 1] = { tag = "param", name = name:gsub("^%[", ""), type = "any", text = "", optional = optional }
  end
  return list
end

local function entry(owner, mark, name, args, text, head)
  local about, tags = split(text)
  if about:sub(1, #head + 1) == head .. ":" then about = about:sub(#head + 3) end
  about = about:gsub("^%l+%f[ ,]", function(word) return word:sub(1, 1):upper() .. word:sub(2) end)
  local e = { owner = owner, mark = mark, name = name, args = args, head = head, about = about, tags = tags, params = {}, returns = {} }
  for _, t in ipairs(tags) do
    if t.tag == "param" then e.params[#e.params + 1] = t end
    if t.tag == "return" then e.returns[#e.returns + 1] = t end
  end
  if #e.params == 0 then e.params = params_of(args) end
  if #e.returns == 0 and about:find "%-> " then
    e.returns = { { values = { { type = "any" }, { type = "string?", name = "why" }, { type = "string?", name = "code" } }, text = "" } }
  end
  return e
end

-- What a comment that begins with a call tells of, or nil. "http.get(options), http.post: …" tells of two functions.
local function called(text)
  local owner, mark, name, rest = text:match "^([%a_.]-)([.:])([%a_]+)([({].*)$"
  if not owner then return end
  local args = rest:match "^%b()" or rest:match "^%b{}"
  if not args then return end
  local more = rest:sub(#args + 1):match "^(, [%l_., ]+):%f[ \0]" or ""
  local head = owner .. mark .. name .. args .. more
  local e = entry(owner, mark, name, args, text, head)
  e.also = {}
  for also in more:gmatch "([%l_]+)%f[,\0]" do e.also[#e.also + 1] = also end
  return e
end

local function class(text)
  local name, rest = text:match "^@class ([%w_.]+):? ?(.*)$"
  if not name then return end
  local about, tags = split(rest)
  return { class = name, about = about:gsub("^%l", string.upper), fields = tags }
end

local function value(text)
  local name, rest = text:match "^@value ([%w_.]+) (.*)$"
  if not name then return end
  local kind, about = luacats.type(rest)
  return { value = name, head = name, type = kind, about = about:gsub("^%l", string.upper), tags = {} }
end

-- All kinds of things that the comments of a C file tell of.
local function of_c(path, owners, list)
  for comment in read(path):gmatch "/%*.-%*/" do
    local text = clean(comment)
    local found = class(text) or value(text) or called(text)
    if found and (found.class or found.value or owners[found.owner]) then list[#list + 1] = found end
  end
end

-- Blocks of "--" lines of a Lua file, each with the line that follows it.
local function blocks(path)
  local list, block = {}, {}
  for line in (read(path) .. "\n"):gmatch "(.-)\n" do
    if line:find "^%-%-" then
      block[#block + 1] = line
    elseif #block > 0 then
      list[#list + 1] = { text = clean(table.concat(block, "\n")), doc = block[1]:find "^%-%-%- " ~= nil, next = line }
      block = {}
    end
  end
  return list
end

local function of_lua(path, owners, list)
  for _, b in ipairs(blocks(path)) do
    local owner, mark, name, args = b.next:match "^function (%w+)([.:])(%w+)(%b())"
    local found = class(b.text)
    if not found and b.doc and owners[owner] then
      found = entry(owner, mark, name, args, b.text, owner .. mark .. name .. args)
    elseif not found then
      local text = b.text
      local global = owners._G and text:find "^%l[%l_]+%("
      found = called(global and "_G." .. text or text)
      if global then found.head = found.head:gsub("_G%.", "") end
      if found and not owners[found.owner] then found = nil end
    end
    if found then list[#list + 1] = found end
  end
end

-- The comment that ends right before `position`, past functions that share it.
local function comment_above(text, position)
  local before = text:sub(1, position - 1)
  while true do
    local shorter = before:gsub("static int [%w_]+%(lua_State %*L%) {[^\n]*}\n$", "")
    if shorter == before then break end
    before = shorter
  end
  local start
  for at in before:gmatch "()/%*" do start = at end
  local comment = start and before:sub(start)
  if comment and comment:match "^/%*.-%*/\n$" and not comment:match "%*/.*%*/" then return clean(comment:sub(1, -2)) end
end

-- A module's functions: those of its registration table.
local function of_module(path, owner, list)
  local text = read(path)
  for name, fn in text:gmatch '{"([%w_]+)", ([%w_]+)}' do
    local position = not name:match "^__" and text:find("static int " .. fn .. "%(lua_State %*L%) {")
    local about = position and comment_above(text, position)
    if about and not about:find "^@[cv]%l+ " and not called(about) then
      list[#list + 1] = entry(owner, ".", name, "()", about, owner .. "." .. name)
    end
  end
end

local function paths(pattern)
  local list = {}
  local pipe = assert(io.popen("ls " .. pattern))
  for path in pipe:lines() do list[#list + 1] = path end
  pipe:close()
  return list
end

local handle = { plugin = true, ["plugin.store"] = true, ["plugin.data"] = true, ["plugin.people"] = true, account = true, budget = true, window = true }
local first = { "ledger.c", "ledger_store.c", "ledger_history.c", "ledger_window.c", "store_list.c", "data.c", "people.c", "account_verbs.c", "budget.c" }

local modules = {
  { "crypto", "crypto.c", "crypto_text.c", "crypto_digest.c", "crypto_cipher.c", "crypto_rsa.c", "crypto_password.c", "crypto_jwt.c" },
  { "file", "file.c" }, { "http", "http.c", "http_asked.c" }, { "json", "json.c" }, { "log", "log.c" }, { "mqtt", "mqtt.c", "mqtt_asked.c" }, { "smtp", "smtp.c" }, { "time", "time.c" }, { "webhooks", "webhooks.c" },
}

-- -> sections { title, module, about, list of functions and classes }: the handle, each module, neap.test
function source.sections()
  local plugin = { title = "The handle", list = {} }
  of_lua("core/host/host.lua", { plugin = true }, plugin.list)
  local seen = {}
  for _, name in ipairs(first) do
    seen["core/host/" .. name] = true
    of_c("core/host/" .. name, handle, plugin.list)
  end
  for _, path in ipairs(paths "core/host/*.c") do
    if not seen[path] then of_c(path, handle, plugin.list) end
  end
  local all = { plugin }
  for _, m in ipairs(modules) do
    local s = { title = "neap." .. m[1], module = m[1], list = {} }
    s.about = clean(read("core/lib/" .. m[2]):match "^(/%*.-%*/)")
    for i = 2, #m do
      local inner = m[i]:match "crypto_(rsa)" or m[i]:match "crypto_(jwt)"
      of_c("core/lib/" .. m[i], { [m[1]] = true, client = m[1] == "mqtt" }, s.list)
      of_module("core/lib/" .. m[i], inner and m[1] .. "." .. inner or m[1], s.list)
    end
    all[#all + 1] = s
  end
  local test = { title = "neap.test", module = "test", list = {} }
  test.about = "In a spec that `neap test` runs: `local t = require \"neap.test\"`; `p` is what t.plugin returned."
  for _, path in ipairs(paths "core/test/*.lua") do of_lua(path, { t = true, p = true, _G = true }, test.list) end
  all[#all + 1] = test
  for _, section in ipairs(all) do -- functions first, then the tables that they take and give
    local functions, classes = {}, {}
    for _, e in ipairs(section.list) do table.insert(e.class and classes or functions, e) end
    section.list = table.move(classes, 1, #classes, #functions + 1, functions)
  end
  return all
end

return source
