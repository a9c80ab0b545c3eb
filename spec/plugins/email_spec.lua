-- email in a running host against Debian's exim4; what arrived is read by Python's email package.
local bed = require "bed"
local certificates = require "certificates"
local json = require "neap.json"
local mail_server = require "mail_server"
local smtp_server = require "smtp_server"

local source = bed.UNKEPT_EMITTER
local teller = [[
local plugin = ...
local config = plugin:config { to = { "destination" } }
plugin:on({ metric = "note" }, function(r) plugin:send(config.to, { title = r.value, device = r.device, at = r.at, n = r.extra and r.extra.n }) end)
]]

describe("email", function()
  local path, host, server
  setup(function() path = certificates() end)
  after_each(function()
    if host then assert.same({ "exit", 0 }, { host:stop() }) end
    if server then server:stop() end
    host, server = nil, nil
  end)

  local function start(settings, lanes)
    host = bed.host { plugins = bed.own_plugins { ["vendors/source.lua"] = source, ["rules/teller.lua"] = teller }, config = ([[
      lanes = %d,
      rules = { { "teller", to = "desk" } },
      destinations = { desk = { "email", url = %q, from = "Ward 3 <neap@ward.example>", %s } },]]):format(lanes or 2, server.url, settings) }
  end
  local function tls() return ('user = "neap", password = "w0rd", ca = file %q'):format(path "ca.pem") end
  local function real(options)
    options = options or {}
    options.cert, options.key = path "server.pem", path "server.key"
    server = mail_server(options)
  end
  local function tell(list)
    for i, r in ipairs(list) do
      r.device, r.metric, r.at = r.device or "SN-1", "note", r.at or 1772352000000 + i
    end
    assert.equal(204, (host:request("POST", "/readings", json.encode(list))))
  end
  local function rows(from) return host:sql("select * from " .. from .. " order by seq") end
  local function error_of(words)
    return bed.wait(("an error with %q"):format(words), function()
      if server and server.poll then server:poll() end
      for _, row in ipairs(rows "outbox") do
        if row.error ~= json.null and row.error:find(words, 1, true) then return row end
      end
    end)
  end

  it("reaches each recipient, over STARTTLS, in headers and words that others read as they were meant", function()
    real()
    local nasty = { "plain", "Zucker niedrig: 3,0 mmol/l – ä ö ü 血糖値が低い 😀 " .. ("überlang "):rep(20), ".", ".. dots\n.\n. more", "=?UTF-8?B?eA==?= =41=\n", "a\r\nBcc: x@ward.example\r\n\r\nb",
      ("no blank "):rep(3):gsub(" ", "_") .. ("x"):rep(2000), "tab\tand trail \nend ", "From me", "" }
    start(tls() .. [[, to = { "desk@ward.example", "Schwester Ö. \"N\" <ward+3@b.ward.example>" }, reply_to = "Ä <a@ward.example>", body = "{{title}}", html = "<p>{{title}}</p>", subject = "{{title}}"]])
    for i, text in ipairs(nasty) do tell { { value = text, at = 1772352000000 + i, device = "SN-" .. i } } end
    host:all_told()
    assert.same({}, rows "dead")
    local list, by_id = server:wait(2 * #nasty), {}
    assert.equal(2 * #nasty, #list)
    for _, m in ipairs(list) do
      local id = m.headers["x-neap-id"]
      by_id[id] = by_id[id] or {}
      by_id[id][m.to] = m
      assert.same({}, m.defects, id)
      assert.is_true(m.ascii)
      assert.is_true(m.longest <= 78, m.longest)
      assert.equal("<" .. id .. "@ward.example>", m.headers["message-id"])
      assert.equal("auto-generated", m.headers["auto-submitted"])
      assert.same({ { "Ward 3", "neap@ward.example" } }, m.addresses.From)
      assert.same({ { "", "desk@ward.example" }, { 'Schwester Ö. "N"', "ward+3@b.ward.example" } }, m.addresses.To)
      assert.same({ { "Ä", "a@ward.example" } }, m.addresses["Reply-To"])
      assert.same({ "multipart/alternative", "text/plain", "text/html" }, m.parts)
      assert.is_nil(m.headers.bcc)
    end
    for _, row in ipairs(rows "delivered") do
      local title = json.decode(row.body).title
      local got = by_id[row.id]
      assert.equal(title:gsub("\r\n", "\n"):gsub("\n$", ""), got["desk@ward.example"].plain)
      assert.equal(got["desk@ward.example"].plain, got["ward+3@b.ward.example"].plain)
      assert.equal("<p>" .. title:gsub("[&<>\"']", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }):gsub("\r\n", "\n") .. "</p>", got["desk@ward.example"].html)
      assert.equal(title:gsub("%c", " "):match "^%s*(.-)%s*$", got["desk@ward.example"].headers.subject:match "^%s*(.-)%s*$")
      assert.equal(row.created // 1000 * 1000, got["desk@ward.example"].at)
      assert.equal(250, row.status)
    end
  end)

  it("speaks TLS from the start, and trusts no stranger", function()
    real { smtps = true }
    start(tls() .. ', to = { "desk@ward.example" }')
    tell { { value = "hello" } }
    server:wait(1)
    host:all_told()
    assert.same({ "exit", 0 }, { host:stop() })
    start(('user = "neap", password = "w0rd", ca = file %q, to = { "desk@ward.example" }'):format(path "elsewhere.pem"))
    tell { { value = "hello" } }
    error_of "the settings have to be mended: smtp: 127.0.0.1"
    assert.equal(1, #server:mails())
  end)

  it("trusts no stranger over STARTTLS either, nor sends where there is none", function()
    real()
    start(('user = "neap", password = "w0rd", ca = file %q, to = { "desk@ward.example" }'):format(path "elsewhere.pem"))
    tell { { value = "hello" } }
    error_of "the settings have to be mended"
    assert.same({ "exit", 0 }, { host:stop() })
    server:stop()
    server = mail_server {}
    start 'user = "neap", password = "w0rd", to = { "desk@ward.example" }'
    tell { { value = "hello" } }
    error_of "does not offer STARTTLS"
    assert.equal(0, #server:mails())
  end)

  it("shows a client's certificate where a server asks for it", function()
    real { clients = path "ca.pem" }
    start(tls() .. (', cert = file %q, key = file %q, to = { "desk@ward.example" }'):format(path "stranger.pem", path "stranger.key"))
    tell { { value = "hello" } }
    bed.wait("a try", function() return #host:sql "select * from outbox where attempts > 0" == 1 end)
    local config = bed.read(host.folder .. "/neap.lua")
    bed.replace(host.folder .. "/neap.lua", (config:gsub("stranger", "client")))
    host:all_told()
    assert.equal(1, #server:wait(1))
  end)

  it("waits where the settings are wrong, and delivers all once they are mended", function()
    real()
    start((tls():gsub("w0rd", "wr0ng")) .. ', to = { "desk@ward.example" }')
    tell { { value = "one" }, { value = "two" } }
    error_of "answered 535"
    local config = bed.read(host.folder .. "/neap.lua")
    bed.replace(host.folder .. "/neap.lua", (config:gsub("wr0ng", "w0rd"):gsub("desk@", "nobody@")))
    error_of "takes none of the recipients: nobody@ward.example: 550 5.1.1 no such user"
    bed.replace(host.folder .. "/neap.lua", (config:gsub('user = "neap", password = "wr0ng",', "")))
    error_of "550 5.7.1 relaying denied"
    bed.replace(host.folder .. "/neap.lua", (config:gsub("wr0ng", "w0rd")))
    host:all_told()
    assert.equal(2, #server:wait(2))
    assert.same({}, rows "dead")
    for _, text in ipairs { host.output, json.encode(host:sql "select * from attempts") } do assert.is_nil(text:find("w0rd", 1, true)) end
  end)

  it("holds messages, and names the settings, where user is set and the server offers no login", function()
    server = smtp_server()
    server.stop = server.close
    server.answer = function(verb) if verb == "EHLO" then return "250-mail.example\r\n250 SIZE 1000000" end end
    start('starttls = false, user = "neap", password = "w0rd", to = { "desk@ward.example" }')
    tell { { value = "one" }, { value = "two" } }
    local row = error_of "the settings have to be mended"
    assert.truthy(row.error:find("offers no login (AUTH), so that user and password cannot be said", 1, true), row.error)
    assert.same({}, server:poll())
    for _, line in ipairs(server.said) do assert.is_nil(line:find "^MAIL", line) end
    local config = bed.read(host.folder .. "/neap.lua")
    bed.replace(host.folder .. "/neap.lua", (config:gsub('user = "neap", password = "w0rd",', "")))
    bed.wait("both, once user is taken out", function() return #server:poll() == 2 and #rows "delivered" == 2 end)
    assert.same({}, rows "dead")
  end)

  it("makes a dead letter of the text that is refused, of a digest of that message alone", function()
    real()
    start(tls() .. ', to = { "desk@ward.example" }, delivery = { batch = 20, batch_wait = "1h" }', 1)
    local list = {}
    for i = 1, 20 do list[i] = { value = i == 7 and "spam" or "fine " .. i, device = "SN-" .. i } end
    tell(list)
    host:all_told()
    assert.equal(1, #rows "dead")
    assert.matches("answered 550 to the text: 5.7.1 this is spam", rows "dead"[1].error)
    assert.equal(19, #rows "delivered")
    local text, ids = "", ""
    for _, m in ipairs(server:wait(1)) do
      text, ids = text .. m.plain, ids .. " " .. m.headers["x-neap-id"]
      assert.same({}, m.defects)
      assert.is_true(m.longest <= 78)
    end
    for i = 1, 20 do assert.equal(i ~= 7, text:find("fine " .. i .. "\n", 1, true) ~= nil) end
    for _, row in ipairs(rows "delivered") do assert.truthy(ids:find(row.id, 1, true)) end
  end)

  it("tells who is put off, and sends the others theirs at once", function()
    real()
    start(tls() .. ', to = { "desk@ward.example", "later@ward.example", "nobody@ward.example" }, wait_for_rest = "3s", delivery = { backoff = "1s" }')
    tell { { value = "hello" } }
    assert.equal("desk@ward.example", server:wait(1)[1].to)
    host:all_told()
    assert.equal(1, #server:mails())
    host:wait_text "a mail did not reach all recipients"
    assert.truthy(host.output:find("later@ward.example: 451 4.2.1 greylisted", 1, true))
  end)

  it("loses none while neap and the mail server are killed", function()
    real()
    start(tls() .. ', to = { "desk@ward.example" }, body = "{{n}}", delivery = { backoff = "1s" }')
    for round = 1, 4 do
      local list = {}
      for i = 1, 15 do
        local n = round * 15 - 15 + i
        list[i] = { value = "x", device = "SN-" .. n % 3, at = 1772352000000 + n, extra = { n = n } }
      end
      tell(list)
      if round % 2 == 1 then
        host:restart(9)
      else
        server:stop(9)
        server:begin()
      end
    end
    host:all_told()
    assert.same({}, rows "dead")
    assert.equal(60, #rows "delivered")
    bed.wait("all 60 in the maildir", function()
      local seen, distinct = {}, 0
      for _, m in ipairs(server:mails()) do
        local n = tonumber(m.plain)
        if not seen[n] then distinct = distinct + 1 end
        assert(not seen[n] or seen[n] == m.headers["message-id"])
        seen[n] = m.headers["message-id"]
      end
      return distinct == 60
    end)
  end)

  it("sends the same mail again, byte for byte, where neap was killed before the server's answer came", function()
    server = smtp_server()
    server.stop = server.close
    start('starttls = false, to = { "desk@ward.example" }')
    local texts = {}
    server.answer = function(verb, text)
      if verb ~= "TEXT" then return end
      table.insert(texts, text)
      if #texts == 1 then return false end
    end
    tell { { value = "hello" } }
    bed.wait("the text", function()
      server:poll()
      return #texts == 1
    end)
    host:restart(9)
    bed.wait("the message to be delivered", function()
      server:poll()
      return #rows "delivered" == 1
    end)
    assert.equal(2, #texts)
    assert.equal(texts[1], texts[2])
    assert.truthy(texts[1]:find("\r\nMessage-ID: <" .. rows "delivered"[1].id .. "@ward.example>\r\n", 1, true))
  end)

  it("goes on while the plugin is saved anew in the middle", function()
    server = smtp_server()
    server.stop = server.close
    start('starttls = false, to = { "desk@ward.example" }, timeout = "20s"')
    local held
    server.answer = function(verb, _, client)
      if verb == "TEXT" and not held then
        held = client
        return false
      end
    end
    tell { { value = "hello" } }
    bed.wait("the text", function()
      server:poll()
      return held
    end)
    local file = host.plugins .. "/destinations/email.lua"
    bed.replace(file, bed.read(file) .. "\n-- another text\n")
    bed.wait("the new generation", function() return host:plugin "desk".generation == 2 end)
    held.socket:send "250 2.0.0 Ok\r\n"
    bed.wait("the message to be delivered", function()
      server:poll()
      return #rows "delivered" == 1
    end)
    assert.equal(0, #server.mails) -- the one that was held is all there is
    assert.equal(1, server.connected)
  end)
end)
