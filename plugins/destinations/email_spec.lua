-- email: what mails say, and what a server's answers come to. That they arrive is tested against real mail servers.
local t = require "neap.test"
local crypto = require "neap.crypto"

local URL = "MAIL smtp://mail.example:587"

describe("email", function()
  local function begin(settings)
    t.at "2026-03-01T08:00:00Z"
    local all = { name = "desk", url = "smtp://mail.example:587", from = "Ward 3 <neap@ward.example>",
      to = { "desk@ward.example" } }
    for k, v in pairs(settings or {}) do all[k] = v end
    return t.plugin("email", all)
  end
  local function low(device)
    return { title = "Low glucose", device = device or "SN-1", value = 3.0, unit = "mmol/L", limit = 3.9, at = t.now() }
  end
  local function lows(rule, n)
    for i = 1, n do rule:reading { device = "SN-" .. i, metric = "glucose", value = 3.0, unit = "mmol/L", at = t.now() } end
  end
  local function sent(i) return t.sent("desk")[i or 1] end
  local function said(i) return t.asked(URL)[i or 1] end

  it("writes a mail of an alert, whose Message-ID is of the message's id", function()
    t.http(URL, 250, "2.0.0 Ok: queued as 4F1")
    local id = begin({ user = "neap", password = "w0rd" }):message(low())
    assert.same({ from = "neap@ward.example", to = "desk@ward.example", user = "neap" }, said().headers)
    assert.equal(table.concat({ "Date: Sun, 01 Mar 2026 08:00:00 +0000", "From: Ward 3", " <neap@ward.example>",
      "To: desk@ward.example",
      "Subject: Low glucose: SN-1", "Message-ID: <" .. id .. "@ward.example>", "Auto-Submitted: auto-generated",
      "MIME-Version: 1.0",
      "X-Neap-Id: " .. id, "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "",
      "Low glucose", "device:     SN-1", "value:      3.0 mmol/L", "limit:      3.9 mmol/L",
      "at:         2026-03-01T08:00:00Z", "" }, "\r\n"),
      said().body)
    assert.equal("delivered", sent().state)
    assert.equal(250, sent().status)
  end)

  it("writes of readings, and of whatever else a rule sends", function()
    t.http(URL, 250)
    local desk = begin { zone = "Europe/Berlin" }
    desk:message { reading = { device = "SN-1", metric = "glucose", value = 5.6, unit = "mmol/L", trend = "flat", at = t.now() } }
    assert.matches("\r\nSubject: glucose of SN%-1: 5.6 mmol/L\r\n", said().body)
    assert.matches("\r\ntrend:      flat\r\nat:         2026%-03%-01T09:00:00%+01:00\r\n$", said().body)
    desk:message { what = 1 }
    assert.matches("\r\nSubject: A message of test\r\n", said(2).body)
    desk:message { title = "Low\nBcc: x@y.example", device = "d" }
    assert.matches("\r\nSubject: Low Bcc: x@y.example: d\r\n", said(3).body)
    assert.matches('\r\n\r\n{"what":1}\r\n$', said(2).body)
    for n = 64, 68 do -- about 76 bytes, of which a line has no more
      local text = ("x"):rep(n)
      desk:message { what = text }
      for line in said(n - 60).body:gmatch "[^\r\n]+" do assert.is_true(#line <= 76) end
      assert.truthy(said(n - 60).body:gsub("=\r\n", ""):find('{"what":"' .. text .. '"}', 1, true))
    end
  end)

  it("fills templates, escapes what stands in HTML, and lets no value become a header", function()
    t.http(URL, 250)
    local desk = begin { subject = "{{title}} of {{device}}", body = "{{title}}: {{value:1}} {{unit?}}", html = "<b>{{title}}</b>",
      reply_to = "nurses@ward.example" }
    desk:message { title = "<Low>\r\nBcc: x@y.example", device = "Sensor ü", value = 3, unit = "mmol/L" }
    local body = said().body
    assert.is_nil(body:match "^(.-)\r\n\r\n":find("\nBcc", 1, true))
    assert.equal("<Low>  Bcc: x@y.example of Sensor ü",
      crypto.unbase64(body:match "\r\nSubject: =%?UTF%-8%?B%?([%w+/=]+)%?=\r\nMessage"))
    assert.matches("\r\nReply%-To: nurses@ward.example\r\n", body)
    assert.matches('\r\nContent%-Type: multipart/alternative;\r\n boundary="=_neap_%x+"\r\n\r\n%-%-=_neap', body)
    assert.matches("\r\n<b>&lt;Low&gt;\r\nBcc: x@y.example</b>\r\n", body)
    desk:message { title = "x" }
    assert.equal("dead", sent(2).state)
    assert.matches('has no field "', sent(2).error)
    desk:message { title = "x", device = "d", value = 3 }
    assert.matches("\r\nx: 3.0=20\r\n", said(2).body) -- or else a server may cut off what is blank there
  end)

  it("makes one mail of those that go together", function()
    t.http(URL, 250)
    t.at "2026-03-01T08:00:00Z"
    local rule = t.plugin("low-glucose", { to = "desk", again = "0s" })
    lows(rule, 3)
    begin { delivery = { batch = 10 } }
    t.advance "1m"
    assert.equal(1, #t.asked(URL))
    assert.matches("\r\nSubject: Low glucose: SN%-1 %(and 2 more%)\r\n", said().body)
    assert.is_nil(said().body:find("\n-- ", 1, true))
    assert.matches("\r\nMessage%-ID: <digest_%x+@ward.example>\r\n", said().body)
    for i = 1, 3 do
      assert.equal("delivered", sent(i).state)
      assert.truthy(said().body:find(sent(i).id, 1, true))
      assert.truthy(said().body:find("device:     SN-" .. i, 1, true))
    end
  end)

  it("says of messages that a replay has sent that they are of the past, and puts no others with them", function()
    t.http(URL, 250)
    local desk = begin()
    desk:message(low(), { replayed = 3, about = "2026-02-01T03:00:00Z" })
    desk:message(low())
    assert.matches("\r\nSubject: Low glucose: SN%-1 %(replayed%)\r\n", said().body)
    assert.matches("\r\nX%-Neap%-Replayed: 3\r\n", said().body)
    assert.is_nil(said(2).body:lower():find("replayed", 1, true))
  end)

  it("finds by halves the message for which a mail is refused", function()
    t.http(URL, function(req)
      if req.body:find("SN-2", 1, true) then return 554, "5.7.1 spam" end
      return 250
    end)
    t.at "2026-03-01T08:00:00Z"
    local rule = t.plugin("low-glucose", { to = "desk", again = "0s" })
    lows(rule, 4)
    begin { delivery = { batch = 10 } }
    t.advance "1m"
    for i = 1, 4 do assert.equal(i == 2 and "dead" or "delivered", sent(i).state) end
    assert.equal(5, #t.asked(URL)) -- all four, the first two, each of them, the other two
    assert.matches("answered 554 to the text: 5.7.1 spam", sent(2).error)
  end)

  it("tries again, under the same Message-ID, what is not to blame itself", function()
    local desk = begin()
    local answers = { { 451, "4.7.1 greylisted" }, { 535, "5.7.8 no", { stage = "auth" } },
      { 550, "5.7.1 not you", { stage = "mail" } },
      { 250, "", { ["desk@ward.example"] = "550 5.1.1 nobody" } } }
    local words = { "451 to the text: 4.7.1 greylisted", "settings have to be mended: .*535: 5.7.8", "mended: .*550 to the sender",
      "mended: .*none of the recipients: desk@ward.example: 550 5.1.1 nobody" }
    t.http(URL, 451)
    desk:message(low())
    for i, answer in ipairs(answers) do
      t.http(URL, table.unpack(answer))
      t.advance "10m"
      assert.equal("waiting", sent().state)
      assert.matches(words[i], sent().error)
    end
    for _, fault in ipairs { "timeout", "tls", "cut", "connect", "resolve" } do
      t.fail(URL, fault)
      t.advance "10m"
      assert.equal("waiting", sent().state)
    end
    t.http(URL, 250)
    t.advance "10m"
    assert.equal("delivered", sent().state)
    assert.equal(said().body, said(#t.asked(URL)).body)
  end)

  it("tells whom a mail did not reach, and holds nothing up for one who is refused", function()
    t.http(URL, 250, "2.0.0 Ok", { ["nobody@ward.example"] = "550 5.1.1 no such user" })
    begin({ to = { "desk@ward.example", "Nobody <nobody@ward.example>" } }):message(low())
    assert.equal("desk@ward.example, nobody@ward.example", said().headers.to)
    assert.equal("delivered", sent().state)
    assert.equal("not taken for nobody@ward.example: 550 5.1.1 no such user", t.logged("warn")[1].why)
  end)

  it("tries again those alone who are put off, and not for ever", function()
    local full = { ["full@ward.example"] = "452 4.2.2 full" }
    t.http(URL, 250, "2.0.0 Ok", full)
    local desk = begin { to = { "desk@ward.example", "full@ward.example" } }
    desk:message(low())
    assert.equal("waiting", sent().state)
    assert.equal("not taken for full@ward.example: 452 4.2.2 full", sent().error)
    t.http(URL, 250)
    t.advance "1m"
    assert.equal("delivered", sent().state)
    assert.equal("full@ward.example", said(2).headers.to)
    assert.equal(2, #t.asked(URL))
    t.http(URL, 250, "", full)
    desk:message(low())
    t.advance "9m"
    assert.equal("waiting", sent(2).state)
    t.fail(URL, "connect", 1)
    t.advance "10m"
    assert.equal("delivered", sent(2).state)
    for i = 4, #t.asked(URL) do assert.equal("full@ward.example", said(i).headers.to) end
    assert.matches("452 4.2.2 full", t.logged("warn")[#t.logged "warn"].why)
  end)

  it("remembers who has it for as long as the others are tried", function()
    t.http(URL, 250, "2.0.0 Ok", { ["full@ward.example"] = "452 4.2.2 full" })
    begin({ to = { "desk@ward.example", "full@ward.example" }, wait_for_rest = "2h" }):message(low())
    t.advance "90m"
    assert.is_true(#t.asked(URL) > 2)
    for i = 2, #t.asked(URL) do assert.equal("full@ward.example", said(i).headers.to) end
  end)

  it("tells in the end also whom an earlier try did not reach", function()
    local refused = { ["full@ward.example"] = "452 4.2.2 full", ["nobody@ward.example"] = "550 5.1.1 no such user" }
    local desk = begin { to = { "desk@ward.example", "full@ward.example", "nobody@ward.example" } }
    t.http(URL, 250, "", refused)
    desk:message(low())
    assert.equal("waiting", sent().state)
    t.http(URL, 250)
    t.advance "1m"
    assert.equal("delivered", sent().state)
    assert.equal("full@ward.example", said(2).headers.to)
    assert.equal("not taken for nobody@ward.example: 550 5.1.1 no such user", t.logged("warn")[#t.logged "warn"].why)
    t.http(URL, 250, "", refused)
    desk:message(low())
    refused["nobody@ward.example"] = nil
    t.advance "20m"
    assert.equal("delivered", sent(2).state)
    assert.matches("full@ward.example: 452 4.2.2 full; not taken for nobody@ward.example: 550 5.1.1 no such user$",
      t.logged("warn")[#t.logged "warn"].why)
  end)

  it("says which settings are wrong", function()
    local function wrong(settings, word)
      assert.has_error(function() begin(settings) end, word)
    end
    wrong({ url = "mail.example" }, "url")
    wrong({ to = {} }, "to")
    wrong({ to = { "desk" } }, 'to[1]: "desk" is no address')
    wrong({ to = { "schwester@krankenhaus-süd.example" } }, "xn--")
    wrong({ to = { "a@b.example", "A <a@b.example>" } }, "to[2]: a@b.example stands there twice")
    wrong({ from = "x\r\nBcc: a@b.example" }, "from")
    wrong({ reply_to = "nobody" }, "reply_to")
    wrong({ subject = "{{title" }, "subject")
    wrong({ body = "{{a b}}" }, "body")
    wrong({ password = "w0rd" }, "password: there is no user")
    wrong({ zone = "Mars" }, "zone")
    wrong({ url = "smtps://mail.example", starttls = false }, "starttls")
  end)
end)
