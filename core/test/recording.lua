-- Recordings: HTTP as it went over the wire, in a file that a person can read, played again in a test. A part of test.lua.
local t, plugin, core, call, text_of = ... -- the module, its plugins' methods, functions in C, what calls into them, values as text

local crypto = require "neap.crypto"

-- A line ">>> METHOD target" begins a request, ">>> METHOD URL" one that a plugin made; header lines; an empty line; the body, if
-- there is one. "<<< status" begins its answer, of the same parts. Lines before the first are remarks.

-- Headers and body of a part.
local function read_part(part, text)
  local head, body = text:match "^(.-\n)\n(.*)$"
  if not head then head, body = text, "" end
  part.headers = {}
  for name, value in head:gmatch "([^:\n]+): *([^\n]*)\n" do part.headers[name:lower()] = value end
  part.body = body:gsub("\n+$", "")
  if part.headers["body-is"] == "base64" then part.body = assert(crypto.unbase64(part.body)) end
  part.headers["body-is"] = nil
  return part
end

local function parse(name, text)
  local list, starts, last = {}, {}, nil
  for at, mark in ("\n" .. text):gmatch "\n()([<>]+) " do
    if mark == ">>>" or mark == "<<<" then starts[#starts + 1] = at - 1 end
  end
  for i, at in ipairs(starts) do
    local part = text:sub(at, starts[i + 1] and starts[i + 1] - 1 or -1) .. "\n"
    local first, rest = part:match "^([^\n]*)\n(.*)$"
    local method, target = first:match "^>>> (%u+) (%S+)$"
    local status = first:match "^<<< (%d%d%d)"
    if method then
      last = read_part({ method = method, target = target }, rest)
      list[#list + 1] = last
    elseif status and last and not last.answer then
      last.answer = read_part({ status = tonumber(status) }, rest)
    else
      error(("%s: expected \">>> METHOD target\" or \"<<< status\", got %q"):format(name, first), 0)
    end
  end
  if #list == 0 then error(name .. ": no line \">>> METHOD target\" is in it", 0) end
  return list
end

local function read(name)
  if type(name) ~= "string" then error("expected the name of a file beside the spec, got a " .. type(name), 0) end
  local ok, text = pcall(core.read, name)
  if not ok then error(text, 0) end
  return parse(name, text)
end

local function is_out(r) return r.target:find "^https?://" ~= nil end

-- t.replay(file): the requests that plugins make are answered as the recording says, from now on. The file stands beside the
-- spec. A request counts where method and URL are the same, with its query; *** in the recording stands for anything. Where it was
-- recorded more than once it is answered in that order, and the last answer goes on. Returns what is in the recording.
-- @param file string
-- @return neap.test.Recorded[]
function t.replay(name)
  local list, answers, order = call(read, name), {}, {}
  for _, r in ipairs(list) do
    if is_out(r) then
      if not r.answer then error(("%s: %s %s has no answer"):format(name, r.method, r.target), 2) end
      local what = r.method .. " " .. r.target:gsub("%*%*%*", "*")
      if not answers[what] then
        answers[what] = {}
        order[#order + 1] = what
      end
      table.insert(answers[what], r.answer)
    end
  end
  local function stars(what) return select(2, what:gsub("%*", "")) end
  table.sort(order, function(a, b) return stars(a) > stars(b) end) -- what is exact comes last, and counts first
  for _, what in ipairs(order) do
    local n = 0
    t.http(what, function()
      n = math.min(n + 1, #answers[what])
      local a = answers[what][n]
      return a.status, a.body, a.headers
    end)
  end
  return list
end

-- p:replay(file [, change]): the requests that came in are made again, in order, and each has to be answered with the status that
-- it had. change is given each before it goes, such as to sign it anew, for secrets are masked in a recording. Returns the answers.
-- @param file string
-- @param change? fun(req: neap.test.Recorded)
-- @return { status: integer, body: any, headers: table<string, string> }[]
function plugin:replay(name, change)
  local got = {}
  for _, r in ipairs(call(read, name)) do
    if not is_out(r) then
      local recorded = r.answer and r.answer.status
      r.headers["content-length"], r.headers["transfer-encoding"], r.headers.connection, r.headers.expect = nil, nil, nil, nil
      if change then change(r) end
      local status, body, headers = self:request(r.method, r.target, r.body ~= "" and r.body or nil, r.headers)
      got[#got + 1] = { status = status, body = body, headers = headers }
      if recorded and recorded ~= status then
        local wrong = "%s: %s %s was answered %d when it was recorded, and %d now: %s"
        error(wrong:format(name, r.method, r.target, recorded, status, text_of(body)), 2)
      end
    end
  end
  if #got == 0 then error(name .. ": no request that came in is in it", 2) end
  return got
end

-- @class neap.test.Recorded: a request of a recording.
-- @field method string
-- @field target string a path, of a request that came in; a URL, of one that a plugin made
-- @field headers table<string, string> names in lower case
-- @field body string
-- @field answer? { status: integer, headers: table<string, string>, body: string }
