---@meta neap.smtp
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.smtp: smtp.send { url =, from =, to = { … }, text = } hands a mail to a server, and returns when that has taken
---it. It looks as if it blocked, while the lane does other work. It returns { status, text, refused } of the server's
---last answer and of the recipients it did not take, where it took at least one; else nil, "what: why", a code, and
---where the server has answered such a table: timeout, resolve, connect, tls, cut, near, bad_url, limit, other; later
---(4xx), settings (it refuses us, the user, the sender or all recipients), refused (this text, or its size). After
---timeout and cut it may have taken the mail all the same. url is smtp://host:port, with STARTTLS, or smtps://host:port;
---a path is what EHLO says. text is the mail as RFC 5322 has it, in ASCII; the library `mail` makes such texts. Only
---hosts that the plugin's settings name can be reached. Options: user, password (PLAIN or LOGIN; where the server offers
---no login, the mail is not sent: settings); starttls = false (smtp:// without TLS, a password too); cert, key, ca (PEM,
---as neap.http has them); timeout (seconds or "10s", 60 s where absent).
local smtp = {}

---What a mail server has answered.
---@class neap.Mailed
---@field status integer its last answer's: 250
---@field text string and the words: "2.0.0 Ok: queued as 4F1"
---@field refused { to: string, status: integer, text: string }[] recipients that it has not taken

---What smtp.send takes.
---@class neap.MailOptions
---@field url string "smtp://mail.example:587", "smtps://mail.example"
---@field from string the envelope's sender, an address
---@field to string[] its recipients
---@field text string the mail, as RFC 5322 has it, in ASCII
---@field user? string
---@field password? string
---@field starttls? boolean false: smtp:// without TLS
---@field cert? string the client's certificate, PEM
---@field key? string its key, PEM
---@field ca? string PEM: who is trusted, and nobody else is
---@field timeout? string|number a duration; 60 s where absent

---Hands a mail to a server.
---@param options neap.MailOptions
---@return neap.Mailed? res
---@return string? why
---@return string? code
---@return neap.Mailed? answer
function smtp.send(options) end

return smtp
