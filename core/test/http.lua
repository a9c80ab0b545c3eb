-- HTTP out of a test: what answers the requests that plugins make, and what they were. A part of test.lua.
local t, text_of = ... -- the module; values as text

local json = require "neap.json"

local scripts, asked = {}, {} -- of the test that runs: what answers, the newest first; what was asked

-- @class neap.test.Asked: an HTTP request that a plugin made.
-- @field method string
-- @field url string
-- @field plain string the URL without its query
-- @field query table<string, string>
-- @field headers table<string, string> names in lower case
-- @field body string
-- @field json any the body, decoded; nil where it is not JSON

-- t.asked([what]) -> HTTP requests that plugins made: { method, url, query, headers, body, json }; `what` as t.http has it.
-- @param what? string
-- @return neap.test.Asked[]
local matches_script
function t.asked(what)
  local list = {}
  for _, r in ipairs(asked) do
    if not what or matches_script(what, r) then list[#list + 1] = r end
  end
  return list
end

local function script(what, level)
  local known = type(what) == "string"
    and (what:find "^[%u*]+ https?://" or what:find "^APPEND file:///" or what:find "^MAIL smtps?://"
      or what:find "^PUBLISH mqtts?://")
  if not known then
    error(("expected a method and a URL such as \"POST https://desk.example/alerts\", got %s"):format(text_of(what)), level + 1)
  end
end

-- Without its query a URL counts whatever is asked; * stands for any characters.
function matches_script(what, request)
  local pattern = "^" .. what:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*") .. "$"
  return (request.method .. " " .. request.plain):find(pattern) ~= nil
    or (request.method .. " " .. request.url):find(pattern) ~= nil
end

-- t.http(what, answer…): answers the requests that plugins make of it, from now on. what is "POST
-- https://desk.example/alerts", * any characters; the query need not be in it. neap.file asks "APPEND file:///folder/name"
-- with the lines as body: 200 is done, any other status a failure. neap.smtp asks "MAIL smtp://host:port" with the envelope as
-- headers `from` and `to` and the mail as body: the status is the server's last answer, 250 for a mail that it takes, the body
-- its words; headers say { ["a@ward.example"] = "550 no such user" } of recipients, and { stage = "auth" }, "mail" or "data"
-- where that answer is not to the text. neap.mqtt asks "PUBLISH mqtt://broker/topic", with qos, retain and properties as headers
-- and the payload as body: 200 acknowledges it, 128 to 162 refuse it for that reason. answer is a function that is given
-- { method, url, query, headers, body, json } and returns status, body, headers, or these themselves; a table as body is JSON.
-- The newest that fits counts. A request that nothing answers fails the test.
-- @param what string
-- @param answer integer|fun(req: neap.test.Asked): any a status; or a function that returns status, body, headers
-- @param body? string|table
-- @param headers? table<string, any>
function t.http(what, ...)
  script(what, 2)
  local fn, n, fixed = (...), select("#", ...), { ... }
  if type(fn) ~= "function" then
    if math.type(fn) ~= "integer" then error("t.http: expected a function or a status, got " .. text_of(fn), 2) end
    fn = function() return table.unpack(fixed, 1, n) end
  end
  table.insert(scripts, 1, { what = what, answer = fn })
end

local faults = { timeout = true, cut = true, connect = true, resolve = true, tls = true }

-- t.fail(what, fault [, times]): has requests fail, as many times or from now on: timeout, cut, connect, resolve or tls.
-- @param what string
-- @param fault "timeout"|"cut"|"connect"|"resolve"|"tls"
-- @param times? integer
function t.fail(what, fault, times)
  script(what, 2)
  if not faults[fault] then error("t.fail: expected timeout, cut, connect, resolve or tls, got " .. text_of(fault), 2) end
  table.insert(scripts, 1, { what = what, fault = fault, left = times or math.huge })
end

local function decoded(s)
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function request_of(method, url, lines, body)
  local r = { method = method, url = url, headers = {}, body = body, query = {}, plain = url:match "^[^?#]*" }
  for name, value in lines:gmatch "([^:\n]+): *([^\n]*)" do r.headers[name:lower()] = value end
  for name, value in (url:match "%?([^#]*)" or ""):gmatch "([^=&]+)=?([^&]*)" do r.query[decoded(name)] = decoded(value) end
  if body ~= "" then r.json = json.decode(body) end
  return r
end

local function lines_of_headers(headers, body)
  local lines = {}
  for name, value in pairs(headers or {}) do lines[#lines + 1] = name:lower() .. ": " .. tostring(value) .. "\n" end
  if type(body) == "table" and not (headers and (headers["content-type"] or headers["Content-Type"])) then
    lines[#lines + 1] = "content-type: application/json\n"
  end
  table.sort(lines)
  return table.concat(lines)
end

-- Called by what plugins ask.
local function answer(method, url, lines, body)
  local r = request_of(method, url, lines, body)
  asked[#asked + 1] = r
  for _, s in ipairs(scripts) do
    if (s.left or 1) > 0 and matches_script(s.what, r) then
      if s.fault then
        s.left = s.left - 1
        return nil, s.fault
      end
      local status, text, headers = s.answer(r)
      if math.type(status) ~= "integer" or status < 100 or status > 599 then
        error(("t.http %q: the function has to return a status, got %s"):format(s.what, text_of(status)), 0)
      end
      return status, lines_of_headers(headers, text), type(text) == "table" and json.encode(text) or text
    end
  end
  error(("a plugin asked %s %s, and no t.http or t.fail answers that"):format(method, url), 0)
end

local function begin() scripts, asked = {}, {} end

return answer, begin
