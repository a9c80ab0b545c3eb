-- Values as text, their differences, and assert with the names that busted's users know. A part of test.lua.
local json = require "neap.json"

-- Showing values

local function is_name(k) return type(k) == "string" and k:find "^[%a_][%w_]*$" end

local function order(a, b)
  if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
  if type(a) ~= type(b) then return type(a) < type(b) end
  return tostring(a) < tostring(b)
end

local function scalar(v)
  if v == json.null then return "json.null" end
  if math.type(v) == "float" and math.tointeger(v) then return tostring(math.tointeger(v)) end -- 3.0 equals 3
  if type(v) ~= "string" then return tostring(v) end
  return (("%q"):format(v):gsub("\\\n", "\\n"):gsub("\\9", "\\t"))
end

-- A value as text: on one line where it is short, else a field a line.
local function show(v, indent, seen)
  if type(v) ~= "table" or v == json.null then return scalar(v) end
  if seen[v] then return "(a table that holds itself)" end
  if next(v) == nil then return "{}" end
  seen[v] = true
  local keys, parts, length = {}, {}, 0
  for k in pairs(v) do keys[#keys + 1] = k end
  table.sort(keys, order)
  for i, k in ipairs(keys) do
    local value = show(v[k], indent .. "  ", seen)
    local name = k == i and "" or is_name(k) and k .. " = " or "[" .. scalar(k) .. "] = "
    parts[i] = name .. value
    length = length + #parts[i] + 2
  end
  seen[v] = nil
  local whole = table.concat(parts, ", ")
  if length <= 70 and not whole:find "\n" then return "{ " .. whole .. " }" end
  return "{\n" .. indent .. "  " .. table.concat(parts, ",\n" .. indent .. "  ") .. "\n" .. indent .. "}"
end

local function text_of(v) return show(v, "", {}) end

local function lines_of(text)
  local list = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do list[#list + 1] = line end
  return list
end

-- Two texts as one: lines of the first alone with "-", of the second alone with "+".
local function diff(a, b)
  local x, y = lines_of(a), lines_of(b)
  if #x * #y > 1000000 then return "expected:\n" .. a .. "\ngot:\n" .. b end
  local longest = {} -- of the lines from i and from j on, how many are common
  for i = #x + 1, 1, -1 do
    longest[i] = {}
    for j = #y + 1, 1, -1 do
      if i > #x or j > #y then longest[i][j] = 0
      elseif x[i] == y[j] then longest[i][j] = longest[i + 1][j + 1] + 1
      else longest[i][j] = math.max(longest[i + 1][j], longest[i][j + 1]) end
    end
  end
  local out, i, j = {}, 1, 1
  while i <= #x or j <= #y do
    if i <= #x and j <= #y and x[i] == y[j] then
      out[#out + 1] = "    " .. x[i]
      i, j = i + 1, j + 1
    elseif i <= #x and (j > #y or longest[i + 1][j] >= longest[i][j + 1]) then
      out[#out + 1] = "  - " .. x[i]
      i = i + 1
    else
      out[#out + 1] = "  + " .. y[j]
      j = j + 1
    end
  end
  return table.concat(out, "\n")
end

local function difference(expected, got)
  local a, b = text_of(expected), text_of(got)
  if a:find "\n" or b:find "\n" then return "\n  - expected, + got\n" .. diff(a, b) end
  return "\n  expected " .. a .. "\n  got      " .. b
end

-- assert

local function same(a, b)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" or a == json.null or b == json.null then return false end
  for k, v in pairs(a) do
    if not same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

local function without_place(message)
  return type(message) == "string" and (message:gsub("^[^\n]-%.lua:%d+: ", "")) or message
end

-- @class neap.Assert: assert in a spec. "is", "are", "has", "was" and "have" may stand before a name, "not" and "no" turn it round:
-- assert.is_not_nil(v), assert.are.same(a, b), assert.has_no.errors(fn).
-- @field equal fun(expected: any, got: any): any
-- @field same fun(expected: any, got: any): any with all that is in them
-- @field truthy fun(v: any, why: any?): any
-- @field falsy fun(v: any, why: any?): any
-- @field is_true fun(v: any): any
-- @field is_false fun(v: any): any
-- @field is_nil fun(v: any): any
-- @field is_not_nil fun(v: any): any
-- @field matches fun(pattern: string, text: any): any a pattern of Lua's
-- @field near fun(expected: number, got: any, tolerance: number?): any
-- @field has_error fun(fn: function, expected: any?): any its words, or a part of them
-- @field [string] any

-- Each gives whether it holds, and what to say where it does not, or where it does and should not.
local checks = {}
function checks.equal(expected, got) return expected == got, difference(expected, got), "two equal values:\n  " .. text_of(got) end
function checks.same(expected, got)
  return same(expected, got), difference(expected, got), "two same values:\n  " .. text_of(got)
end
checks["true"] = function(v) return v == true, "expected true, got " .. text_of(v), "expected anything but true" end
checks["false"] = function(v) return v == false, "expected false, got " .. text_of(v), "expected anything but false" end
checks["nil"] = function(v) return v == nil, "expected nil, got " .. text_of(v), "expected anything but nil" end
function checks.truthy(v, why) return v, "expected something true, got " .. text_of(v) .. (why and ": " .. tostring(why) or ""),
  "expected nil or false, got " .. text_of(v) end
function checks.falsy(v, why) return not v, "expected nil or false, got " .. text_of(v) .. (why and ": " .. tostring(why) or ""),
  "expected something true, got " .. text_of(v) end
function checks.matches(pattern, s)
  return type(s) == "string" and s:find(pattern) ~= nil,
    "expected a text that matches " .. scalar(pattern) .. "\n  got " .. text_of(s),
    "expected a text that does not match " .. scalar(pattern) .. "\n  got " .. text_of(s)
end
function checks.near(expected, got, tolerance)
  return type(got) == "number" and math.abs(got - expected) <= (tolerance or 1e-9), difference(expected, got), "two near numbers"
end
function checks.error(fn, expected)
  local ok, message = pcall(fn)
  if ok then return false, "expected an error, there was none", "" end
  local holds = expected == nil or same(expected, message)
  if not holds and type(message) == "string" and type(expected) == "string" then
    holds = without_place(message) == expected or message:find(expected, 1, true) ~= nil
  end
  return holds, "an error of other words" .. difference(expected, message), "expected no error, got " .. text_of(message)
end
for _, name in ipairs { "number", "string", "table", "boolean", "function" } do
  checks[name] = function(v) return type(v) == name, "expected a " .. name .. ", got " .. text_of(v), "expected no " .. name end
end
checks.equals, checks.match, checks.errors, checks.is_error = checks.equal, checks.matches, checks.error, checks.error

-- assert.is_not_nil, assert.is.not_nil, assert.are.same …: words that say nothing are passed over, "not" and "no" turn it round.
local empty = { is = true, are = true, has = true, was = true, have = true, that = true }
local negative = { ["not"] = true, no = true, isnt = true, arent = true }

local function resolve(words)
  local negated, rest = false, {}
  for word in words:gmatch "[^_%.]+" do
    if #rest == 0 and negative[word] then negated = not negated
    elseif #rest > 0 or not empty[word] then rest[#rest + 1] = word end
  end
  return table.concat(rest, "_"), negated
end

local proxy

local function checker(words)
  local name, negated = resolve(words)
  if name == "" then return proxy(words) end
  local check = checks[name]
  if not check then error(("assert.%s: there is no such assertion"):format(words), 2) end
  return function(...)
    local holds, why, why_not = check(...)
    if negated then holds, why = not holds, why_not end
    if holds then return ... end
    error(why, 2)
  end
end

function proxy(prefix)
  return setmetatable({}, { __index = function(_, word) return checker(prefix .. "_" .. tostring(word)) end })
end

local assertion = setmetatable({}, {
  __index = function(_, word) return checker(tostring(word)) end,
  __call = function(_, v, why, ...)
    if v then return v, why, ... end
    error(type(why) == "table" and why or why ~= nil and tostring(why) or "expected something true, got " .. text_of(v), 2)
  end,
})

return assertion, text_of, scalar
