-- A request as neap test plays it (core/test/recording.lua), without what is secret. Compiled into the program, for neap request;
-- and a library of examples/recorder.

-- Does the name of a header, a field or a parameter say that its value is a secret?
local parts = { "auth", "cookie", "key", "pass", "pwd", "secret", "sign", "token", "credential", "session" }
local whole = { sig = true, mac = true, hmac = true, code = true, pin = true }

local function is_secret(name)
  name = name:lower()
  for _, part in ipairs(parts) do
    if name:find(part, 1, true) then return true end
  end
  return whole[name:match "[^-_]*$"] == true
end

local function mask_pairs(text) -- of a query, or of a form
  return (text:gsub("([^&=]+)=([^&]*)", function(name, value) return name .. "=" .. (is_secret(name) and "***" or value) end))
end

-- The text stays as it is, byte for byte, but for the values of fields whose names say that they are secret.
local function mask_json(text)
  local out, at = {}, 1
  while true do
    local from = text:find('"', at, true)
    if not from then break end
    local to = from + 1
    while to <= #text and text:sub(to, to) ~= '"' do to = to + (text:sub(to, to) == "\\" and 2 or 1) end
    out[#out + 1] = text:sub(at, to)
    at = to + 1
    local value = text:match("^%s*:%s*()", at)
    if value and is_secret(text:sub(from + 1, to - 1)) then
      local first = text:sub(value, value)
      local last
      if first == '"' then
        last = value + 1
        while last <= #text and text:sub(last, last) ~= '"' do last = last + (text:sub(last, last) == "\\" and 2 or 1) end
      else
        last = text:match("^[%d.eE+-]+()", value) -- objects and lists are looked at by the names in them
        last = last and last - 1
      end
      if last then
        out[#out + 1] = text:sub(at, value - 1) .. '"***"'
        at = last + 1
      end
    end
  end
  return table.concat(out) .. text:sub(at)
end

local function mask_body(text)
  if text:find "^%s*[{%[]" then return mask_json(text) end
  if text:find "=" and not text:find "[%c<]" then return mask_pairs(text) end
  return text
end

local function base64(text)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local encoded = text:gsub("..?.?", function(three)
    local a, b, c = three:byte(1, 3)
    local word, out = a << 16 | (b or 0) << 8 | (c or 0), ""
    for i = 0, #three do
      local digit = word >> 18 - 6 * i & 63
      out = out .. alphabet:sub(digit + 1, digit + 1)
    end
    return out .. ("="):rep(3 - #three)
  end)
  return encoded
end

-- Would the file not say the same: what may be taken for another part, an end that is not seen, control characters?
local function needs_base64(text)
  return ("\n" .. text):find "\n[<>]+ " or text:find "\n$" or text:find "[^%C\n\t]"
end

local function add_headers(out, headers) -- lines, or a table
  local names = {}
  if type(headers) == "string" then
    for name, value in headers:gmatch "([^:\n]+): *([^\n]*)" do names[#names + 1] = { name:lower(), value } end
  else
    for name, value in pairs(headers or {}) do names[#names + 1] = { name:lower(), value } end
    table.sort(names, function(a, b) return a[1] < b[1] end)
  end
  for _, h in ipairs(names) do
    if h[1] ~= "body-is" then out[#out + 1] = ("%s: %s\n"):format(h[1], is_secret(h[1]) and "***" or h[2]) end
  end
end

local function add_part(out, part)
  add_headers(out, part.headers)
  local body, encoded = part.body and mask_body(part.body), part.body_base64
  if body and needs_base64(body) then encoded = base64(body) end
  if encoded then out[#out + 1] = "body-is: base64\n" end
  if encoded or body and body ~= "" then out[#out + 1] = ("\n%s\n"):format(encoded or body) end
end

-- A request as neap keeps it: method, target (a path, or a URL), headers, body or body_base64, status. answer: headers and body.
return function(r)
  local path, query = r.target:match "^([^?]*)%??(.*)$"
  local out = { (">>> %s %s%s%s\n"):format(r.method, path, query ~= "" and "?" or "", mask_pairs(query)) }
  add_part(out, r)
  out[#out + 1] = ("<<< %d\n"):format(r.status)
  if r.answer then add_part(out, r.answer) end
  return table.concat(out)
end
