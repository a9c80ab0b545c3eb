-- neap.smtp against a server that says what it should not, and RFC 5321.
local bed = require "bed"
local json = require "neap.json"
local smtp_server = require "smtp_server"
local socket = require "socket"

local poster = [[
local plugin = ...
local smtp = require "neap.smtp"
plugin:config { url = { "string" }, other = { "string", default = "smtp://name.localhost.test:1" } }
plugin:serve { "POST /send", keep = false, handler = function(req)
  local options = require "neap.json".decode(req.raw)
  if options.times then options.text, options.times = options.text:rep(options.times), nil end
  local out = table.pack(pcall(smtp.send, options))
  if not out[1] then return 200, { raised = out[2] } end
  return 200, { res = out[2], why = out[3], code = out[4], answer = out[5] }
end }
plugin:serve { "GET /alive", keep = false, handler = function() return 204 end }
]]

describe("neap.smtp", function()
  local host, server

  before_each(function()
    server = smtp_server()
    host = bed.host { plugins = { ["vendors/poster.lua"] = poster }, config = ("lanes = 1, connections = { { 'poster', url = %q } }"):format(server.url) }
  end)
  after_each(function()
    server:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  local function begin(options)
    local all = { url = server.url, starttls = false, from = "neap@ward.example", to = { "desk@ward.example" }, text = "Subject: x\n\nHello\n", timeout = 20 }
    for k, v in pairs(options or {}) do all[k] = v ~= json.null and v or nil end
    local body = json.encode(all)
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:send(("POST /send HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"):format(#body, body))
    return s
  end
  local function finish(s)
    bed.wait("the handler's end", function()
      server:poll()
      return #socket.select({ s }, nil, 0) == 1
    end)
    s:settimeout(20)
    local status, text = bed.receive(s)
    s:close()
    assert.equal(200, status, text)
    return json.decode(text)
  end
  local function send(options) return finish(begin(options)) end
  local function has(line)
    for _, said in ipairs(server.said) do
      if said == line then return true end
    end
    return false
  end

  it("hands a mail over: the envelope, its size, the text byte for byte with CRLF", function()
    local text = "Subject: x\n\n.\n..dots\r\n.a\n" .. ("x"):rep(998) .. "\nthe end"
    local got = send { text = text, to = { "a@ward.example", "b+c@b.ward.example" } }
    assert.same({ status = 250, text = "2.0.0 Ok: queued as 4F1", refused = {} }, got.res)
    local mail = server:wait(1)[1]
    assert.equal("neap@ward.example", mail.from)
    assert.same({ "a@ward.example", "b+c@b.ward.example" }, mail.to)
    local whole = text:gsub("\r", ""):gsub("\n", "\r\n") .. "\r\n"
    assert.equal(whole, mail.text)
    assert.truthy(has(("MAIL FROM:<neap@ward.example> SIZE=%d"):format(#whole)))
  end)

  it("says EHLO as the URL's path has it, and a password only as AUTH", function()
    assert.truthy(send({ url = server.url .. "/ward.example", user = "neap", password = "w0rd" }).res)
    assert.truthy(has "EHLO ward.example")
    assert.truthy(has "AUTH PLAIN AG5lYXAAdzByZA==")
    server.answer = function(verb, line)
      if verb == "EHLO" then return "250-x\r\n250 AUTH LOGIN" end
      if verb == "AUTH" then return "334 UGFzc3dvcmQ6" end
      if line == "dzByZA==" then return "235 welcome" end
    end
    assert.truthy(send({ user = "nurse", password = "w0rd" }).res)
    assert.truthy(has "AUTH LOGIN bnVyc2U=")
  end)

  it("sends the next mail over the same connection, and parts from it", function()
    for i = 1, 3 do
      assert.truthy(send().res)
      assert.equal(i, #server.mails)
    end
    assert.equal(1, server.connected)
    assert.truthy(send({ user = "neap", password = "w0rd" }).res) -- as somebody else: another one
    assert.equal(2, server.connected)
    bed.wait("QUIT of both", function()
      server:poll()
      return #server.clients == 0
    end)
    local quits = 0
    for _, line in ipairs(server.said) do quits = quits + (line == "QUIT" and 1 or 0) end
    assert.equal(2, quits)
  end)

  it("tries with a new connection where one that rested is closed meanwhile", function()
    assert.truthy(send().res)
    server.answer = function(verb)
      if verb == "MAIL" and server.connected == 1 then return "421 4.4.2 too late" end
    end
    assert.truthy(send().res)
    assert.equal(2, server.connected)
    server.answer = function(verb) if verb == "MAIL" and server.connected == 2 then return "" end end
    assert.truthy(send().res)
    assert.equal(3, server.connected)
    assert.equal(3, #server.mails)
  end)

  it("takes what others of several recipients are refused for, and says whom", function()
    server.answer = function(verb, line)
      if verb ~= "RCPT" then return end
      if line:find "nobody" then return "550-5.1.1 no\r\n550 5.1.1 such user" end
      if line:find "full" then return "452 4.2.2 full" end
    end
    local got = send { to = { "nobody@ward.example", "desk@ward.example", "full@ward.example" } }
    assert.same({ { to = "nobody@ward.example", status = 550, text = "5.1.1 no 5.1.1 such user" },
      { to = "full@ward.example", status = 452, text = "4.2.2 full" } }, got.res.refused)
    assert.same({ "desk@ward.example" }, server.mails[1].to)
  end)

  -- What is answered to which verb, and what it becomes.
  local cases = {
    { "GREET", "554 5.7.1 go away", "settings", "answered 554: 5.7.1 go away" }, { "GREET", "421 4.3.2 later", "later", "answered 421: 4.3.2 later" },
    { "GREET", "", "cut" }, { "GREET", "hello", "timeout" },
    { "AUTH", "535 5.7.8 no", "settings", "answered 535: 5.7.8 no" }, { "AUTH", "454 4.7.0 not now", "later", "454" }, { "AUTH", "", "cut" },
    { "EHLO", "250-x\r\n250 AUTH CRAM-MD5", "settings", "neither PLAIN nor LOGIN" }, { "EHLO", "250 x", "settings", "offers no login (AUTH)" },
    { "EHLO", "250-x\r\n250 AUTH", "settings", "offers no login (AUTH)" }, { "EHLO", "235 welcome", "settings", "offers no login (AUTH)" },
    { "MAIL", "451 4.3.0 later", "later", "answered 451 to the sender: 4.3.0 later" }, { "MAIL", "550 5.7.1 not you", "settings", "550" },
    { "MAIL", "552 5.3.4 too large", "refused", "552" }, { "MAIL", "250", nil }, { "MAIL", "", "cut" }, { "MAIL", "SSH-2.0", "other", "no SMTP" },
    { "MAIL", ("x"):rep(5000), "other", "more than 4096" }, { "MAIL", ("250-x\r\n"):rep(20000) .. "250 ok", "other", "more than 65536" },
    { "GREET", ("220-x\r\n"):rep(20000) .. "220 ok", "other", "more than 65536" },
    { "DATA", "354 go\r\n250 taken", "other", "answers 250 to what was not said yet" },
    { "RCPT", "550 5.1.1 nobody", "settings", "takes none of the recipients: desk@ward.example: 550 5.1.1 nobody" },
    { "RCPT", "450 4.2.1 greylisted", "later", "450 4.2.1" }, { "RCPT", "421 4.0.0 bye", "later", "421" }, { "RCPT", "", "cut" },
    { "DATA", "451 4.3.0 later", "later", "answered 451 to DATA" }, { "DATA", "554 5.0.0 no", "refused", "554" }, { "DATA", "250 well", "other", "250" },
    { "TEXT", "451 4.7.1 later", "later", "answered 451 to the text" }, { "TEXT", "554 5.7.1 spam", "refused", "answered 554 to the text: 5.7.1 spam" },
    { "TEXT", "552 5.2.2 too much", "refused", "552" }, { "TEXT", "", "cut" }, { "TEXT", "250 \1\27[31m\xff ok", nil },
  }
  for _, verb in ipairs { "GREET", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "TEXT" } do
    table.insert(cases, { verb, false, "timeout", "no answer within 0.5 s" .. (verb == "TEXT" and "; it had the text, and may have taken it" or "") })
  end
  it("tells apart what the server says, and says it in the server's words", function()
    for i, case in ipairs(cases) do
      local verb, answer, code, words = table.unpack(case, 1, 4)
      server.answer = function(v) if v == verb then return answer end end
      local got = send { user = "neap" .. i, password = "w0rd", timeout = code == "timeout" and 0.5 or 20 }
      local name = verb .. " " .. tostring(answer):sub(1, 30)
      assert.equal(code, got.code, name .. ": " .. tostring(got.why))
      if code then
        assert.truthy(got.why:find(("smtp: 127.0.0.1:%d: "):format(server.port), 1, true), got.why)
        assert.truthy(not words or got.why:find(words, 1, true), got.why)
        assert.is_nil(got.why:find "w0rd")
      else
        assert.equal(verb == "TEXT" and "  [31m? ok" or "2.0.0 Ok: queued as 4F1", got.res.text)
      end
    end
  end)

  it("believes no server that has taken a text of which it has a part", function()
    local other
    server.answer = function(verb, _, c) if verb == "DATA" then other = c end end
    local s = begin { text = ("x"):rep(70) .. "\n", times = 200000 }
    bed.wait("a part of the text", function()
      server:poll()
      return other and other.text and #other.bytes > 0
    end)
    other.socket:send "250 taken\r\n" -- there is room for a part of it in the sockets, and nobody reads
    bed.wait("the handler's end", function() return #socket.select({ s }, nil, 0) == 1 end)
    local got = finish(s)
    assert.equal("other", got.code)
    assert.truthy(got.why:find("answers 250 to what was not said yet", 1, true), got.why)
    assert.equal(0, #server.mails)
  end)

  it("keeps its lane free while a server hangs, at every stage, QUIT among them", function()
    for _, verb in ipairs { "GREET", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "TEXT", "QUIT" } do
      local asked = false
      server.answer = function(v)
        if v ~= verb then return end
        asked = true
        return false
      end
      local function alive()
        bed.wait("it to hang", function()
          server:poll()
          return asked
        end)
        for _ = 1, 20 do assert.equal(204, (host:request("GET", "/alive"))) end
      end
      local s = begin { timeout = verb == "QUIT" and 20 or 1, user = verb .. "er", password = "w0rd" } -- of each another connection
      if verb ~= "QUIT" then alive() end
      assert.equal(verb ~= "QUIT" and "timeout" or nil, finish(s).code)
      if verb == "QUIT" then alive() end
    end
  end)

  it("asks for STARTTLS, and tells neither mail nor password without it", function()
    local got = send { starttls = json.null, user = "neap", password = "w0rd" }
    assert.equal("tls", got.code)
    assert.truthy(got.why:find("does not offer STARTTLS", 1, true), got.why)
    server.answer = function(verb)
      if verb == "EHLO" then return "250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS" end
      if verb == "STARTTLS" then return "454 4.7.0 not now" end
    end
    assert.equal("later", send({ starttls = json.null, user = "neap", password = "w0rd" }).code)
    server.answer = function(verb)
      if verb == "EHLO" then return "250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS" end
      if verb == "STARTTLS" then return "220 go on\r\n250 AUTH PLAIN\r\n235 welcome\r\n250 ok" end -- what is said before TLS does not count after it
    end
    assert.truthy(send({ starttls = json.null, user = "neap", password = "w0rd", timeout = 5 }).code)
    for _, line in ipairs(server.said) do assert.is_nil(line:find "^AUTH" or line:find "^MAIL", line) end
  end)

  it("goes only where a setting leads", function()
    assert.matches("may not reach", send({ url = "smtp://127.0.0.1:1" }).raised)
    assert.matches("may not reach", send({ url = "http://127.0.0.1:" .. server.port .. "1" }).raised)
    assert.equal("bad_url", send({ url = server.url:gsub("smtp", "http") .. "/" }).code)
    local at = server.url:gsub("//", "//neap:w0rd@")
    assert.equal("bad_url", send({ url = at }).code)
    assert.equal("resolve", send({ url = "smtp://name.localhost.test:1" }).code)
    local gone = server
    server = smtp_server()
    gone:close()
    assert.equal("connect", send({ url = gone.url }).code)
  end)

  it("says what is wrong with its options, and sends no such thing", function()
    local wrong = { { { from = "neap" }, "from has to be an address" }, { { from = "a@b\r\nRCPT TO:<c@d>" }, "from has" }, { { from = "ä@b.example" }, "ASCII" },
      { { to = {} }, "to has to list 1 to 100" }, { { to = "a@b" }, "to has to be a list" }, { { to = { "a@b", "<a@b>" } }, "to[2] has" }, { { to = { "a b@c" } }, "to[1]" },
      { { to = { "a@b..c" } }, "to[1]" }, { { to = { "a..b@c" } }, "to[1]" }, { { to = { (("x"):rep(65)) .. "@c" } }, "to[1]" }, { { to = { "a@[1.2.3.4]" } }, "to[1]" },
      { { text = json.null }, "text is missing" }, { { text = "ä\n" }, "ASCII" }, { { text = ("x"):rep(999) }, "at most 998" }, { { text = "a\0b" }, "ASCII" },
      { { timeout = 0 }, "more than 0" }, { { password = "w0rd" }, "without user" }, { { key = "-----BEGIN X-----" }, "without cert" }, { { cert = "x" }, "not PEM" },
      { { subject = "x" }, "unknown option" }, { { starttls = "no" }, "starttls has to be true or false" }, { { url = json.null }, "url is missing" },
      { { url = "smtps://127.0.0.1:1" }, "starttls = false is for smtp://" } }
    for _, w in ipairs(wrong) do
      local got = send(w[1])
      assert.truthy(got.raised and got.raised:find(w[2], 1, true), w[2] .. ": " .. json.encode(got))
    end
    assert.equal(0, server.connected)
  end)
end)
