-- Types as LuaCATS writes them (https://luals.github.io/wiki/annotations): read from the beginning of a text.
local luacats = {}

local parse

local function skip(s, at) return s:match("^%s*()", at) end

local function fail(s, at, what) error(("%s expected at %q"):format(what, s:sub(at, at + 30)), 0) end

local function names_in(s, at, closing, names) -- "a?: T, b: T" up to the closing mark; types alone where there is no colon
  at = skip(s, at)
  while s:sub(at, at) ~= closing do
    local after = s:match("^[%w_]+%??%s*:%s*()", at) or s:match("^%.%.%.%s*:%s*()", at)
    local key = s:match("^%[()", at)
    if not after and key then
      at = parse(s, key, names)
      after = s:match("^%]%??%s*:%s*()", at) or fail(s, at, "]: and a type")
    end
    at = skip(s, parse(s, after or at, names))
    if s:sub(at, at) == "," then at = skip(s, at + 1)
    elseif s:sub(at, at) ~= closing then fail(s, at, closing) end
  end
  return at + 1
end

local function unit(s, at, names)
  local to = s:match('^"[^"]*"()', at) or s:match("^%-?%d+()", at)
  if to then return to end
  local open = s:match("^fun%(()", at)
  if open then
    at = names_in(s, open, ")", names)
    local after = s:match("^%s*:%s*()", at)
    return after and parse(s, after, names) or at
  end
  if s:match("^{", at) then return names_in(s, at + 1, "}", names) end
  if s:match("^%(", at) then
    at = parse(s, at + 1, names)
    return s:match("^%)()", at) or fail(s, at, ")")
  end
  local name, after = s:match("^([%a_][%w_.]*)()", at)
  if not name then fail(s, at, "a type") end
  name = name:gsub("%.$", function() after = after - 1 return "" end)
  names[#names + 1] = name
  local inner = name == "table" and s:match("^<()", after)
  if inner then
    after = parse(s, inner, names)
    inner = s:match("^%s*,%s*()", after) or fail(s, after, ",")
    after = parse(s, inner, names)
    after = s:match("^>()", after) or fail(s, after, ">")
  end
  return after
end

function parse(s, at, names)
  while true do
    at = unit(s, at, names)
    while s:find("^%[%]", at) do at = at + 2 end
    at = s:match("^%?()", at) or at
    local more = s:match("^|()", at)
    if not more then return at end
    at = more
  end
end

-- The type that the text begins with, the text after it, and the names of types in it. Raises where it begins with none.
function luacats.type(s)
  local names = {}
  local at = parse(s, 1, names)
  return s:sub(1, at - 1), (s:sub(at):gsub("^%s+", "")), names
end

return luacats
