-- A destination: messages become mails, handed to a mail server by SMTP; one each, or those that go together as one digest. The
-- Message-ID is made of the message's id, so that a mail which comes twice can be told.
local plugin = ... ---@type neap.Plugin
local crypto = require "neap.crypto"
local json = require "neap.json"
local log = require "neap.log"
local mail = require "mail"
local message = require "message"
local smtp = require "neap.smtp"
local template = require "template"
local time = require "neap.time"

local config = plugin:config {
  url = { "string", pattern = "smtps?://.+", about = "the mail server: smtp://mail.example:587, smtps://mail.example" },
  starttls = { "boolean", default = true, about = "false: over smtp:// all goes unencrypted, a password too" },
  user = { "string", optional = true, min = 1, about = "a server that offers no login gets no mail then" },
  password = { "secret", optional = true },
  from = { "string", min = 3, about = "who sends: neap@ward.example, or Ward 3 <neap@ward.example>" },
  to = { "array", min = 1, max = 100, items = { "string" }, about = "who gets it: { \"desk@ward.example\", … }" },
  reply_to = { "string", optional = true, min = 3, about = "where answers go, if not to from" },
  subject = { "string", optional = true, min = 1, about = "a template, as {{title}}: {{device}}; else what the message is about" },
  body = { "string", optional = true, min = 1, about = "a template of the text; else the message's fields" },
  html = { "string", optional = true, min = 1, about = "a template of the same as HTML, which goes beside the text" },
  zone = { "string", default = "UTC", about = "of the times in mails without a template" },
  wait_for_rest = { "duration", default = "10m",
    about = "how long recipients are tried again whom the server puts off while it takes others" },
  cert = { "secret", optional = true, about = "mutual TLS: the client's certificate, PEM: file \"client.pem\"" },
  key = { "secret", optional = true, about = "its key, PEM, not encrypted; it may stand in cert" },
  ca = { "secret", optional = true, about = "PEM: the server's certificate has to come from these, and from nobody else" },
  timeout = { "duration", default = "60s" },
}

local function read(setting, fn, text, ...)
  local value, why = fn(text, ...)
  if not value then error(("%s: %s"):format(setting, why), 0) end
  return value
end

local from, to, names = read("from", mail.mailbox, config.from), {}, {}
for i, text in ipairs(config.to) do
  to[i] = read(("to[%d]"):format(i), mail.mailbox, text)
  if names[to[i].address] then error(("to[%d]: %s stands there twice"):format(i, to[i].address), 0) end
  names[to[i].address] = to[i]
end
local reply_to = config.reply_to and read("reply_to", mail.mailbox, config.reply_to)
local fill_subject = config.subject and read("subject", template.compile, config.subject, "header")
local fill_body = config.body and read("body", template.compile, config.body, "text/plain")
local fill_html = config.html and read("html", template.compile, config.html, "text/html")
if config.password and not config.user then error("password: there is no user to it", 0) end
if config.key and not config.cert then error("key: there is no cert to it", 0) end
if not config.starttls and config.url:find "^smtps:" then error("starttls: it is for smtp://, and url is smtps://", 0) end
read("zone", time.zone, config.zone)

-- Without templates

local FIELDS = { "device", "metric", "value", "limit", "quality", "trend", "at", "place", "vendor", "connection" }
local function value_text(name, what)
  local v = what[name]
  if name == "at" then return time.format(v, config.zone) end
  local text = type(v) == "string" and v or json.encode(v)
  return (name == "value" or name == "limit") and type(v) == "number" and what.unit and text .. " " .. what.unit or text
end

local function own_subject(m)
  local kind, what = message.read(m)
  if kind == "alert" then return what.title .. ": " .. what.device end
  if kind == "reading" then return ("%s of %s: %s"):format(what.metric, what.device, value_text("value", what)) end
  return "A message of " .. m.source
end

local function own_body(m)
  local kind, what = message.read(m)
  if not kind then return m.json end
  local lines = { what.title }
  for _, name in ipairs(FIELDS) do
    if what[name] ~= nil then lines[#lines + 1] = ("%-11s %s"):format(name .. ":", value_text(name, what)) end
  end
  return table.concat(lines, "\n")
end

-- What a message says: { subject, text, html }; or nil and why it cannot be said.
local function say(m)
  local said = {}
  for name, fill in pairs { subject = fill_subject or own_subject, text = fill_body or own_body, html = fill_html } do
    local text, why = fill(m)
    if not text then return nil, ("%s: %s"):format(name == "text" and "body" or name, why) end
    said[name] = text
  end
  return said
end

-- Recipients whom a message has reached already, or who are refused for good, while others are still tried:
-- { [id] = { created =, had = { [address] = true }, lost = those who are refused, as the server worded it } }.
-- It lives as long as this generation on this lane: after a restart they may get the mail twice.
local reached = {}
local FORGOTTEN = 7 * 86400000 -- ms: what is no longer tried by then, because it has expired

local function note_reached(m, recipients, refused, put_off)
  for id, r in pairs(reached) do
    if time.now() - r.created > FORGOTTEN then reached[id] = nil end
  end
  local r = reached[m.id] or { created = m.created, had = {}, lost = {} }
  reached[m.id] = r
  for _, one in ipairs(refused) do
    if not put_off[one.to] then r.lost[#r.lost + 1] = one end
  end
  for _, address in ipairs(recipients) do r.had[address] = not put_off[address] or nil end
end

local function pending(m)
  local list, r = {}, reached[m.id]
  for _, mailbox in ipairs(to) do
    if not (r and r.had[mailbox.address]) then list[#list + 1] = mailbox.address end
  end
  return list
end

local function refusals(refused)
  local texts = {}
  for i, r in ipairs(refused) do texts[i] = ("%s: %d %s"):format(r.to, r.status, r.text) end
  return "not taken for " .. table.concat(texts, "; ")
end

-- It is through, but for those whom the last try did not reach (why), and those who were refused before.
local function delivered_in_part(m, why)
  local lost = reached[m.id] and reached[m.id].lost or {}
  if #lost > 0 then why = (why and why .. "; " or "") .. refusals(lost) end
  if not why then return nil end
  log.warn("a mail did not reach all recipients", { message = m.id, why = why })
  return { status = 250, body = why }
end

-- Some have it. Those who are put off are tried again for a while, those who are refused are not.
local function rest_of(m, recipients, refused, why)
  local put_off = {}
  for _, r in ipairs(refused) do put_off[r.to] = r.status < 500 or nil end
  if next(put_off) and time.now() - m.created < config.wait_for_rest * 1000 then
    note_reached(m, recipients, refused, put_off)
    return why
  end
  return delivered_in_part(m, why)
end

-- What became of a message.
local function judge(m, recipients, res, why, code, answer)
  if res and #res.refused == 0 then
    return delivered_in_part(m) or { status = 250, body = ("%d %s"):format(res.status, res.text) }
  end
  if res then return rest_of(m, recipients, res.refused, refusals(res.refused)) end
  if reached[m.id] then -- the rest of them was tried
    local refused = answer and #answer.refused > 0 and answer.refused or {}
    if #refused == 0 then -- nothing was said of them
      for i, address in ipairs(recipients) do refused[i] = { to = address, status = 0 } end
    end
    return rest_of(m, recipients, refused, why)
  end
  if code == "refused" then return { dead = why } end
  if code == "settings" or code == "tls" or code == "bad_url" then return "the settings have to be mended: " .. why end
  return why
end

local LINE = "\n\n" .. ("-"):rep(40) .. "\n\n" -- "-- " would make the rest a signature, which mail programs hide

local function compose(items, recipients)
  local ids, texts, htmls, first = {}, {}, {}, items[1]
  local more = #items > 1 and (" (and %d more)"):format(#items - 1) or ""
  if first.m.replayed then more = more .. " (replayed)" end
  for i, item in ipairs(items) do
    ids[i], texts[i], htmls[i] = item.m.id, item.said.text, item.said.html
  end
  return smtp.send {
    url = config.url, starttls = config.starttls, user = config.user, password = config.password, timeout = config.timeout,
    cert = config.cert, key = config.key, ca = config.ca, from = from.address, to = recipients,
    text = mail.compose {
      from = from, to = to, reply_to = reply_to, date = first.m.created,
      id = #items == 1 and first.m.id or "digest_" .. crypto.sha256(table.concat(ids, " ")):sub(1, 32),
      subject = first.said.subject .. more, text = table.concat(texts, LINE),
      html = fill_html and table.concat(htmls, "\n<hr>\n") or nil,
      headers = { { "X-Neap-Id", table.concat(ids, " ") }, first.m.replayed and { "X-Neap-Replayed", tostring(first.m.replayed) } },
    },
  }
end

-- Sends items as one mail; where that is refused, by halves, so that only what is refused by itself is a dead letter.
local function send(items, recipients)
  local res, why, code, answer = compose(items, recipients)
  if code == "refused" and #items > 1 then
    local middle = #items // 2
    send(table.move(items, 1, middle, 1, {}), recipients)
    return send(table.move(items, middle + 1, #items, 1, {}), recipients)
  end
  for _, item in ipairs(items) do item.outcome = judge(item.m, recipients, res, why, code, answer) end
end

-- Messages that go to the same recipients, which is nearly always all of them; of the past by themselves.
local function grouped(messages, outcomes)
  local groups, by_name = {}, {}
  for i, m in ipairs(messages) do
    local said, why = say(m)
    local recipients = pending(m)
    local name = table.concat(recipients, " ") .. (m.replayed and " replayed" or "")
    if said and not by_name[name] then
      by_name[name] = { recipients = recipients, items = {} }
      groups[#groups + 1] = by_name[name]
    end
    if said then
      table.insert(by_name[name].items, { at = i, m = m, said = said })
    else
      outcomes[i] = { dead = why }
    end
  end
  return groups
end

plugin:deliver {
  concurrency = 2, several = true,
  handler = function(messages)
    local outcomes = {}
    for _, group in ipairs(grouped(messages, outcomes)) do
      send(group.items, group.recipients)
      for _, item in ipairs(group.items) do
        outcomes[item.at] = item.outcome
        if type(item.outcome) == "table" then reached[item.m.id] = nil end
      end
    end
    return outcomes
  end,
}
