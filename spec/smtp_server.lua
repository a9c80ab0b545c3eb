-- A mail server in the spec's own process, which says what the spec wants it to. server:poll() takes in what has come; server.mails is a list of
-- { from, to, text } that it has taken, server.said one of all lines that clients said. server.answer = function(verb, line, client) may
-- return an answer in place of the usual one: a text; false: it says nothing; "": it hangs up. Verbs: GREET, EHLO, AUTH, MAIL, RCPT, DATA, TEXT, QUIT.
local bed = require "bed"
local socket = require "socket"

local Server = {}
Server.__index = Server

local usual = { GREET = "220 mail.example ESMTP", EHLO = "250-mail.example\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 1000000", AUTH = "235 2.7.0 welcome",
  MAIL = "250 2.1.0 Ok", RCPT = "250 2.1.5 Ok", DATA = "354 go on", QUIT = "221 2.0.0 Bye", RSET = "250 Ok", TEXT = "250 2.0.0 Ok: queued as 4F1" }

local function new(port)
  local s = assert(socket.bind("127.0.0.1", port or 0))
  s:settimeout(0)
  local _, number = s:getsockname()
  return setmetatable({ socket = s, port = tonumber(number), url = "smtp://127.0.0.1:" .. number, mails = {}, said = {}, clients = {}, connected = 0 }, Server)
end

local function say(self, c, verb, line)
  local text = self.answer and self.answer(verb, line, c)
  if text == nil then text = usual[verb] or "500 5.5.1 what?" end
  if text == "" then
    c.ended = true
  elseif text then
    c.socket:settimeout(5)
    c.socket:send(text .. "\r\n")
    c.socket:settimeout(0)
    if verb == "QUIT" then c.ended = true end
  end
  return text and text:sub(1, 1)
end

local function take_line(self, c, line)
  table.insert(self.said, line)
  local verb = line:match "^%a+"
  verb = verb and verb:upper() or line
  local kind = say(self, c, verb, line)
  if verb == "MAIL" and kind == "2" then
    c.mail = { from = line:match "<(.-)>", to = {} }
  elseif verb == "RCPT" and kind == "2" then
    table.insert(c.mail.to, line:match "<(.-)>")
  elseif verb == "DATA" and kind == "3" then
    c.text = ""
  end
end

local function take(self, c)
  while not c.ended do
    if c.text then
      local stop, after = ("\r\n" .. c.bytes):find("\r\n.\r\n", 1, true)
      if not stop then return end
      c.mail.text = c.bytes:sub(1, stop - 1):gsub("^%.%.", "."):gsub("\r\n%.%.", "\r\n.")
      c.bytes, c.text = c.bytes:sub(after - 1), nil
      local kind = say(self, c, "TEXT", c.mail.text)
      if kind == "2" then table.insert(self.mails, c.mail) end
    else
      local line, rest = c.bytes:match "^([^\n]*)\r\n(.*)$"
      if not line then return end
      c.bytes = rest
      take_line(self, c, line)
    end
  end
end

function Server:poll()
  for client in function() return self.socket:accept() end do
    client:settimeout(0)
    self.connected = self.connected + 1
    local c = { socket = client, bytes = "" }
    table.insert(self.clients, c)
    say(self, c, "GREET")
  end
  for i = #self.clients, 1, -1 do
    local c = self.clients[i]
    local bytes, why, part = c.socket:receive(65536)
    c.bytes = c.bytes .. (bytes or part or "")
    take(self, c)
    if c.ended or why == "closed" then
      c.socket:close()
      table.remove(self.clients, i)
    end
  end
  return self.mails
end

function Server:wait(n)
  return bed.wait(n .. " mails", function() return #self:poll() >= n and self.mails end)
end

function Server:close()
  for _, c in ipairs(self.clients) do c.socket:close() end
  self.clients = {}
  self.socket:close()
end

return new
