-- Writes docs/reference.md: what plugins can call, taken from the comments that stand above each function in the source.
-- Usage: build/tools/lua spec/tools/reference.lua > docs/reference.md
local function read(path)
  local f = assert(io.open(path))
  local text = f:read "a"
  f:close()
  return text
end

-- A C or Lua comment without its marks. Parameters become a list.
local function clean(comment)
  local text = comment:gsub("^/%*+%s*", ""):gsub("%s*%*/%s*$", ""):gsub("\n %* ?", "\n"):gsub("^%-%-%-%s*", ""):gsub("\n%-%-%-? ?", "\n")
  text = text:gsub("%-%-%-@", "@"):gsub("%s+@", "\n@"):gsub("\n@(%l+) ", "\n- `@%1` ")
  text = text:gsub("\n([^-\n])", " %1"):gsub("\n%- ", "\n\n- ", 1)
  return (text:gsub("%s+\n\n", "\n\n"))
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

local out = {}
local function put(...) out[#out + 1] = string.format(...) end

put "# Reference"
put "\nMade from the comments in the source by `make docs`. The guide is [plugins.md](plugins.md). `?` marks what may be left out; times are integer ms since 1970 UTC.\n"
put "\n## The handle\n"

local about_verb = {}
for line in read("core/host/host.lua"):gmatch "[^\n]*" do
  local name, arguments = line:match "^function plugin:(%w+)(%b())"
  if line:match "^%-%-%- " or line:match "^%-%- " and #about_verb > 0 then
    about_verb[#about_verb + 1] = line:gsub("^%-+ ", "")
  elseif name and #about_verb > 0 then
    put("### plugin:%s%s\n%s\n", name, arguments, table.concat(about_verb, "\n"))
    about_verb = {}
  else
    about_verb = {}
  end
end
for _, path in ipairs { "core/host/ledger.c", "core/host/ledger_store.c", "core/host/ledger_history.c", "core/host/store_list.c", "core/host/data.c", "core/host/people.c" } do
  for comment in read(path):gmatch "(/%* plugin[.:][%w_:]+[ ({].-%*/)" do
    local text = clean(comment)
    local call = text:match "^plugin[%.:][%w_:]+%b()" or text:match "^plugin[%.:][%w_:]+%b{}"
    if call then put("### %s\n%s\n", call, text) end
  end
end
for _, path in ipairs { "core/host/account_verbs.c", "core/host/budget.c" } do
  for text in read(path):gmatch "(/%* %l+:[%w_]+%b() ?.-%*/)" do
    text = clean(text)
    if text:match "^account:" or text:match "^budget:" then put("### %s\n%s\n", text:match "^[%w:_]+%b()", text) end
  end
end

local modules = {
  { "neap.crypto", "core/lib/crypto.c", "core/lib/crypto_text.c", "core/lib/crypto_digest.c", "core/lib/crypto_cipher.c", "core/lib/crypto_rsa.c",
    "core/lib/crypto_password.c", "core/lib/crypto_jwt.c" },
  { "neap.http", "core/lib/http.c" }, { "neap.json", "core/lib/json.c" }, { "neap.log", "core/lib/log.c" },
  { "neap.time", "core/lib/time.c" }, { "neap.webhooks", "core/lib/webhooks.c" },
}
for _, m in ipairs(modules) do
  put("\n## %s\n", m[1])
  local head = read(m[2]):match "^(/%*.-%*/)"
  put("%s\n", clean(head))
  for i = 2, #m do
    local text, inner = read(m[i]), m[i]:match "crypto_(rsa)" or m[i]:match "crypto_(jwt)"
    for at, name, fn in text:gmatch '(){"([%w_]+)", ([%w_]+)}' do
      local position = text:find("static int " .. fn .. "%(lua_State %*L%) {")
      local about = position and comment_above(text, position)
      if about and not name:match "^__" then put("### %s.%s%s\n%s\n", m[1]:match "%.(.*)", inner and inner .. "." or "", name, about) end
      local _ = at
    end
  end
end

-- Of neap.test, comments that begin with a call.
put "\n## neap.test\nIn a spec that `neap test` runs: `local t = require \"neap.test\"`; `p` is what t.plugin returned.\n"
for block in ("\n" .. read "core/test/test.lua" .. "\n" .. read "core/test/http.lua"):gmatch "\n(%-%- [tp][.:]%l+[({].-)\n[^-]" do
  local text = block:gsub("^%-%- ", ""):gsub("\n%-%- ?", " ")
  put("### %s\n%s\n", text:match "^%l[.:]%l+%b()" or text:match "^%l[.:]%l+%b{}", text)
end
io.write((table.concat(out, "\n"):gsub("\n\n\n+", "\n\n")))
