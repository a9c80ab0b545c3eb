-- TLS by certificate and key in the configuration.
local bed = require "bed"
local socket = require "socket"

describe("tls", function()
  local folder = bed.folder()
  local host
  local function openssl(...)
    local out, code = bed.run { "openssl", ... }
    assert(code == 0, out)
  end

  setup(function()
    local subject = "/CN=localhost"
    for _, name in ipairs { "one", "two" } do
      openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder .. "/" .. name .. ".key", "-out",
        folder .. "/" .. name .. ".pem")
    end
    bed.write(folder .. "/empty.pem", "")
    bed.write(folder .. "/text.pem", "this is no certificate")
    host = bed.host { config = ([[lanes = 2, tls = { certificate = "%s/one.pem", key = "%s/one.key" }]]):format(folder, folder),
      plugins = { ["vendors/hello.lua"] = [[local plugin = ...
        plugin:serve { "GET /hello", handler = function() return 200, "hello" end }
        plugin:serve { "POST /echo", handler = function(req) return 200, req.raw end }]] } }
  end)
  teardown(function() assert.same({ "exit", 0 }, { host:stop() }) end)

  local function curl(...) return bed.run { "curl", "-s", "-S", "--max-time", "20", ... } end

  it("serves to who trusts its certificate", function()
    assert.matches("https://", host.output)
    assert.same({ "hello", 0 }, { curl("--cacert", folder .. "/one.pem", host.url .. "/hello") })
    assert.same({ "hellohello", 0 }, { curl("--cacert", folder .. "/one.pem", host.url .. "/hello", host.url .. "/hello") })
    local big = ("0123456789"):rep(200000)
    bed.write(folder .. "/big", big)
    assert.equal(big, (curl("--cacert", folder .. "/one.pem", "-H", "Expect:", "--data-binary", "@" .. folder .. "/big", host.url .. "/echo")))
  end)

  it("is not trusted blindly", function()
    local out, code = curl("--cacert", folder .. "/two.pem", host.url .. "/hello")
    assert.equal(60, code, out)
  end)

  it("closes plain HTTP on its port", function()
    local s = assert(socket.connect("127.0.0.1", host.port))
    s:settimeout(20)
    s:send "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
    local got, why, part = s:receive "*a"
    s:close()
    assert.is_nil((got or part):find "hello")
    assert.is_true(got ~= nil or why == "closed" or why:find "reset" ~= nil, why)
  end)

  it("speaks TLS 1.2 and 1.3, and not 1.1", function()
    for version, ok in pairs { ["-tls1_3"] = true, ["-tls1_2"] = true, ["-tls1_1"] = false } do
      local out = bed.run { "sh", "-c", ("printf 'GET /hello HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -connect 127.0.0.1:%d %s -cipher 'ALL:@SECLEVEL=0' -ign_eof -quiet 2>&1"):format(host.port, version) }
      assert.equal(ok, out:find("hello\0?$") ~= nil or out:find "\nhello" ~= nil, version .. ": " .. out)
    end
  end)

  it("half a handshake leaves nothing behind", function()
    local before = host:summary()
    for k = 1, 40 do
      local s = assert(socket.connect("127.0.0.1", host.port))
      s:send(("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" .. ("x"):rep(40)):sub(1, k))
      s:close()
    end
    bed.wait("descriptors to be given back", function() return host:summary().descriptors <= before.descriptors end)
  end)

  it("serves a renewed certificate to who connects from then on, and stays with the old one while the new one is not in order", function()
    local f = bed.folder()
    local function put(name, part) bed.replace(("%s/site.%s"):format(f, part), bed.read(("%s/%s.%s"):format(folder, name, part))) end
    put("one", "pem") put("one", "key")
    local site = bed.host { config = ([[lanes = 2, tls = { certificate = "%s/site.pem", key = "%s/site.key" }]]):format(f, f),
      plugins = { ["vendors/hello.lua"] = [[local plugin = ... plugin:serve { "GET /hello", handler = function() return 200, "hello" end }]] } }
    local function trusts(name)
      local _, code = curl("--cacert", ("%s/%s.pem"):format(folder, name), site.url .. "/hello")
      return code == 0
    end
    assert.same({ true, false }, { trusts "one", trusts "two" })
    put("two", "pem") -- its key is still the old one
    site:wait_for "the certificate is not renewed; the one before goes on"
    local out, code = bed.run { bed.neap, "reload", site.folder }
    assert.equal(1, code)
    assert.matches(("cannot use the key %s/site.key: it is another certificate's"):format(f), out, 1, true)
    for _ = 1, 8 do assert.is_true(trusts "one") end -- on either lane
    put("two", "key")
    site:wait_for "the certificate is renewed"
    bed.wait("both lanes to have it", function()
      for _ = 1, 8 do if not trusts "two" then return false end end
      return true
    end)
    out, code = bed.run { bed.neap, "reload", site.folder }
    assert.equal(0, code, out)
    -- as certbot does it: the name is a link to the newest
    assert(os.execute(("ln -sfn '%s/one.key' '%s/site.key' && ln -sfn '%s/one.pem' '%s/site.pem'"):format(folder, f, folder, f)))
    bed.wait("the first to be served again", function()
      for _ = 1, 8 do if not trusts "one" then return false end end
      return true
    end)
    bed.replace(f .. "/site.pem", "half")
    site:wait_for "there is none in it, as PEM"
    os.remove(f .. "/site.key")
    assert.is_true(trusts "one")
    assert.same({ "exit", 0 }, { site:stop() })
  end)

  it("that cannot be served, or is another's, is a trouble of neap check", function()
    for _, pair in ipairs { { "text.pem", "one.key", "tls: cannot use the certificate" }, { "one.pem", "two.key", "it is another certificate's" } } do
      local f = bed.folder()
      bed.write(f .. "/neap.lua", ('return { plugins = %q, tls = { certificate = "%s/%s", key = "%s/%s" } }'):format(host.plugins, folder, pair[1], folder, pair[2]))
      local out, code = bed.run { bed.neap, "check", f }
      assert.equal(1, code, out)
      assert.matches(pair[3], out, 1, true)
    end
  end)

  local cases = {
    { "a certificate that is not there", "nowhere.pem", "one.key", "nowhere.pem" }, { "a key that is not there", "one.pem", "nowhere.key", "nowhere.key" }, { "a key of another certificate", "one.pem", "two.key", "two.key" },
    { "an empty certificate", "empty.pem", "one.key", "empty.pem" }, { "a certificate that is none", "text.pem", "one.key", "text.pem" }, { "a key that is none", "one.pem", "text.pem", "text.pem" },
    { "a key alone", nil, "one.key", "certificate" }, { "a certificate alone", "one.pem", nil, "key" },
  }
  for _, c in ipairs(cases) do
    it(c[1] .. ": it says which and does not start", function()
      local f = bed.folder()
      local function line(name, file) return file and ("%s = %q,"):format(name, folder .. "/" .. file) or "" end
      bed.write(f .. "/neap.lua", ('return { listen = "127.0.0.1:0", plugins = %q, tls = { %s %s } }'):format(host.plugins, line("certificate", c[2]), line("key", c[3])))
      local out, code = bed.run { bed.neap, "run", f .. "/neap.lua" }
      assert.equal(1, code, out)
      assert.matches(c[4], out, 1, true)
    end)
  end
end)
