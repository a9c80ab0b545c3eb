-- Mails as text: RFC 5322 headers, with what is not ASCII by RFC 2047; bodies as quoted-printable, RFC 2045, plain or plain beside
-- HTML. All that comes out is ASCII in short lines, which any server takes; no value can become a header of its own.
local crypto = require "neap.crypto"
local time = require "neap.time"

local mail = {}

local DAYS = { "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

-- Addresses

local ATOM, LABEL = "^[%w!#$%%&'*+/=?^_`{|}~-]+$", "^[%w-]+$"

local function is_dotted(s, word, most, word_most)
  if #s > most then return false end
  for part in (s .. "."):gmatch "([^.]*)%." do
    if #part > word_most or not part:find(word) then return false end
  end
  return true
end

local function is_address(s)
  local here, domain = s:match "^([^@]*)@([^@]*)$"
  return here and is_dotted(here, ATOM, 64, 64) and is_dotted(domain, LABEL, 255, 63)
end

--- Reads "desk@ward.example" or "Nurses' desk <desk@ward.example>".
---@param text string
---@return { address: string, name: string? }? mailbox nil and why where it is none
---@return string? why
function mail.mailbox(text)
  local name, address = text:match "^%s*(.-)%s*<([^<>]*)>%s*$"
  address = address or text:match "^%s*(.-)%s*$"
  if not address:find "^[\33-\126]*$" then
    return nil, ("%q is no address in ASCII: write its domain in the form xn--…; what stands before @ has to be ASCII"):format(text)
  end
  if not is_address(address) then
    return nil, ('%q is no address: write "desk@ward.example" or "Desk <desk@ward.example>"'):format(text)
  end
  name = name and name:gsub('^"(.*)"$', "%1"):gsub('\\(.)', "%1")
  return { address = address, name = name ~= "" and name or nil }
end

-- Headers

-- One line of characters, whatever it was.
local function tidy(s)
  s = s:gsub("[%c]", " ")
  return utf8.len(s) and s or (s:gsub("[\128-\255]", "?"))
end

-- As it is, where it is ASCII that means nothing else and is short; else as encoded words of whole characters, which with what
-- stands before them have no more than 76.
local function words(s, plain)
  if #s <= 60 and s:find(plain) and not s:find("=?", 1, true) then return s end
  local list, part = {}, ""
  local function flush()
    list[#list + 1] = "=?UTF-8?B?" .. crypto.base64(part) .. "?="
    part = ""
  end
  for c in s:gmatch(utf8.charpattern) do
    if #part + #c > 36 then flush() end
    part = part .. c
  end
  flush()
  return table.concat(list, "\r\n ")
end

local function mailbox_text(m)
  if not m.name then return m.address end
  return words(tidy(m.name), "^[%w !#$%%&'*+/=?^_`{|}~-]+$") .. "\r\n <" .. m.address .. ">"
end

local function mailboxes(list)
  local texts = {}
  for i, m in ipairs(list) do texts[i] = mailbox_text(m) end
  return table.concat(texts, ",\r\n ")
end

--- A time as mails have it: "Sun, 01 Mar 2026 08:00:00 +0000".
---@param ms integer
---@return string
function mail.date(ms)
  local p = time.parts(ms)
  local clock = ("%02d:%02d:%02d +0000"):format(p.hour, p.minute, p.second)
  return ("%s, %02d %s %04d %s"):format(DAYS[p.weekday], p.day, MONTHS[p.month], p.year, clock)
end

-- Bodies

local function hex(c) return ("=%02X"):format(c:byte()) end

-- A line, in pieces of at most 76 with the "=" that says that it goes on.
local function quote_line(line)
  local s = line:gsub("[^\t\32-\60\62-\126]", hex):gsub("[\t ]$", hex)
  local pieces, at = {}, 1
  while #s - at + 1 > 76 do
    local to = at + 74
    if s:byte(to) == 61 then to = to - 1 elseif s:byte(to - 1) == 61 then to = to - 2 end
    pieces[#pieces + 1] = s:sub(at, to) .. "="
    at = to + 1
  end
  pieces[#pieces + 1] = s:sub(at)
  return table.concat(pieces, "\r\n")
end

local function quoted_printable(text)
  local lines = {}
  for line in (text:gsub("\r\n?", "\n"):gsub("\n$", "") .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = quote_line(line) end
  return table.concat(lines, "\r\n") .. "\r\n"
end

local function part(kind, text)
  local head = ("Content-Type: %s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"):format(kind)
  return head .. quoted_printable(text)
end

-- "=_" stands in no quoted-printable text, so the boundary is none of its lines.
local function body(m)
  if not m.html then return part("text/plain", m.text) end
  local boundary = "=_neap_" .. crypto.sha256(m.id):sub(1, 24)
  local next_part = "--" .. boundary .. "\r\n"
  return ('Content-Type: multipart/alternative;\r\n boundary="%s"\r\n\r\n'):format(boundary) .. next_part
    .. part("text/plain", m.text) .. next_part .. part("text/html", m.html) .. "--" .. boundary .. "--\r\n"
end

--- @class neap.Mail: what mail.compose takes.
---@field from { address: string, name: string? } as mail.mailbox reads it
---@field to { address: string, name: string? }[]
---@field reply_to? { address: string, name: string? }
---@field subject string
---@field text string
---@field html? string the same, as HTML
---@field date integer ms
---@field id string of letters, digits and "._-": the Message-ID is made of it and the sender's domain
---@field headers? string[][] more of them, each { name, value }; a long value is broken at its blanks

-- At blanks, so that no line is long.
local function fold(name, value)
  local lines, line = {}, name .. ":"
  for word in tidy(value):gmatch "%S+" do
    if #line + 1 + #word > 76 and line ~= name .. ":" then
      lines[#lines + 1] = line
      line = ""
    end
    line = line .. " " .. word
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\r\n")
end

--- A whole mail, as neap.smtp takes it.
---@param m neap.Mail
---@return string text
function mail.compose(m)
  local lines = {
    "Date: " .. mail.date(m.date), "From: " .. mailbox_text(m.from), "To: " .. mailboxes(m.to),
    m.reply_to and "Reply-To: " .. mailbox_text(m.reply_to) or false,
    "Subject: " .. words(tidy(m.subject), "^[\32-\126]*$"),
    ("Message-ID: <%s@%s>"):format(m.id, m.from.address:match "@(.*)"),
    "Auto-Submitted: auto-generated", -- RFC 3834: so that nobody's machine answers
    "MIME-Version: 1.0",
  }
  local head = {}
  for _, line in ipairs(lines) do head[#head + 1] = line or nil end
  for _, h in ipairs(m.headers or {}) do head[#head + 1] = fold(h[1], h[2]) end
  return table.concat(head, "\r\n") .. "\r\n" .. body(m)
end

return mail
