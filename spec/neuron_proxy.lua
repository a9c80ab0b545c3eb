-- Stands between two hosts and lets go wrong what a spec asks for: answers that are lost, cut, late or not the far one's. One request a connection.
local bed = require "bed"
local socket = require "socket"

local proxy = {}
local Proxy = {}
Proxy.__index = Proxy

--- fault(n, request) of the nth request: nil passes it on; "lost" passes it on and hangs up; "half" cuts the answer; "slow" answers only after
--- some looks; "deaf" hangs up at once; { status, body, headers } is answered instead of the far one.
function proxy.new(port, fault)
  local s = assert(socket.bind("127.0.0.1", 0))
  s:settimeout(0)
  local _, number = s:getsockname()
  return setmetatable({ socket = s, far = port, url = "http://127.0.0.1:" .. number, fault = fault or function() end, clients = {}, n = 0, requests = {} }, Proxy)
end

local function whole(text)
  local head, stop = text:match "^(.-)\r\n\r\n()"
  if not head then return nil end
  local length = tonumber(head:lower():match "\r\ncontent%-length:%s*(%d+)") or 0
  if #text < stop - 1 + length then return nil end
  local headers = {}
  for k, v in head:gmatch "\r\n([^:\r\n]+):%s*([^\r\n]*)" do headers[k:lower()] = v end
  return { method = head:match "^%S+", path = head:match "^%S+ (%S+)", headers = headers, body = text:sub(stop, stop - 1 + length), text = text }
end

local function answer(c, status, body, headers, cut)
  local lines = { ("HTTP/1.1 %d X"):format(status), "connection: close", "content-length: " .. #body }
  for k, v in pairs(headers or {}) do lines[#lines + 1] = k .. ": " .. v end
  local text = table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
  c:settimeout(5)
  c:send(cut and text:sub(1, -1 - #body // 2) or text)
  c:close()
end

-- What the far one says, or nil where it is not there.
function Proxy:ask(request)
  local s = socket.connect("127.0.0.1", self.far)
  if not s then return nil end
  s:settimeout(60)
  s:send(request.text)
  local ok, status, body, fields = pcall(bed.receive, s)
  s:close()
  if ok and status and body then return status, body, { ["content-type"] = fields["content-type"] } end
end

function Proxy:serve(c, request)
  self.n = self.n + 1
  self.requests[self.n] = request
  local fault = self.fault(self.n, request)
  if type(fault) == "table" then return answer(c, fault[1], fault[2] or "", fault[3]) end
  if fault == "deaf" then return c:close() end
  local status, body, headers = self:ask(request)
  if not status or fault == "lost" then return c:close() end
  if fault == "slow" then
    self.clients[#self.clients + 1] = { looks = 100, late = function() answer(c, status, body, headers) end }
    return
  end
  answer(c, status, body, headers, fault == "half")
end

--- Takes in what has come, answers what is due.
function Proxy:poll()
  local c = self.socket:accept()
  while c do
    c:settimeout(0)
    self.clients[#self.clients + 1] = { socket = c, text = "" }
    c = self.socket:accept()
  end
  for i = #self.clients, 1, -1 do
    local one = self.clients[i]
    if one.late then
      one.looks = one.looks - 1
      if one.looks == 0 then
        table.remove(self.clients, i)
        one.late()
      end
    else
      local bytes, why, part = one.socket:receive(65536)
      one.text = one.text .. (bytes or part or "")
      local request = whole(one.text)
      if request or why == "closed" then table.remove(self.clients, i) end
      if request then self:serve(one.socket, request) elseif why == "closed" then one.socket:close() end
    end
  end
end

--- As bed.wait, serving meanwhile. `ask` is looked at every 50th time, for it may start a program.
function Proxy:wait(what, ask, seconds)
  local looks = 0
  return bed.wait(what, function()
    self:poll()
    looks = looks + 1
    return looks % 50 == 0 and ask()
  end, seconds or 60)
end

function Proxy:close()
  for _, one in ipairs(self.clients) do
    if one.socket then one.socket:close() end
  end
  self.socket:close()
end

return proxy
