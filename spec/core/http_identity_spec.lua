-- neap.http with a client's certificate, an authority of its own and gzipped bodies, against the openssl and gzip programs.
local bed = require "bed"
local certificates = require "certificates"
local json = require "neap.json"

local caller = [[
local plugin = ...
local http = require "neap.http"
local config = plugin:config { url = { "string" }, other = { "string" } }
plugin:serve { "POST /call", keep = false, handler = function(req)
  local ok, res, why, code = pcall(http.request, req.body)
  if not ok then return 200, { raised = res } end
  if not res then return 200, { why = why, code = code } end
  return 200, { status = res.status, body = res.body }
end }
]]

describe("neap.http's identity", function()
  local path = certificates()
  local server, other, host, url
  local function pem(name) return bed.read(path(name)) end

  setup(function()
    server = bed.start { "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", path "server.pem", "-key", path "server.key", "-CAfile",
      path "ca.pem", "-Verify", "1", "-verify_return_error", "-www" }
    url = "https://127.0.0.1:" .. server:wait_for "ACCEPT [%d.]+:(%d+)"
    other = bed.host { plugins = { ["vendors/elsewhere.lua"] = ([[local plugin = ...
      plugin:serve { "GET /away", handler = function() return 307, "", { location = "%s/" } end }
    ]]):format(url) } }
    host = bed.host { plugins = { ["vendors/caller.lua"] = caller },
      config = ("connections = { { \"caller\", url = %q, other = %q } }"):format(url, other.url) }
  end)
  teardown(function()
    assert.same({ "exit", 0 }, { host:stop() })
    assert.same({ "exit", 0 }, { other:stop() })
    server:stop(9)
  end)

  local function call(options)
    options.method, options.url = options.method or "GET", options.url or url .. "/"
    local status, res = host:json("POST", "/call", options)
    assert.equal(200, status)
    return res
  end

  it("shows its certificate to who asks for it", function()
    local res = call { cert = pem "client.pem", key = pem "client.key", ca = pem "ca.pem" }
    assert.equal(200, res.status, json.encode(res))
    assert.truthy(res.body:find("CN%s*=%s*client"), res.body)
    res = call { cert = pem "client.pem" .. pem "client.key", ca = pem "ca.pem" } -- both in one text
    assert.equal(200, res.status, json.encode(res))
  end)

  it("does not get in without one, with a stranger's, or with a key that is not its own", function()
    for _, identity in ipairs { {}, { cert = pem "stranger.pem", key = pem "stranger.key" },
      { cert = pem "client.pem", key = pem "stranger.key" } } do
      identity.ca = pem "ca.pem"
      local res = call(identity)
      assert.is_nil(res.status, res.body)
      assert.truthy(res.code == "tls" or res.code == "cut", json.encode(res))
    end
    -- and what one call has shown is not another's
    assert.equal(200, call({ cert = pem "client.pem", key = pem "client.key", ca = pem "ca.pem" }).status)
    assert.is_nil(call({ ca = pem "ca.pem" }).status)
  end)

  it("does not show its certificate to where it was redirected", function()
    local options = { url = other.url .. "/away", cert = pem "client.pem", key = pem "client.key", ca = pem "ca.pem", redirects = 1 }
    local res = call(options)
    assert.is_nil(res.status, res.body)
    assert.truthy(res.code == "tls" or res.code == "cut", json.encode(res))
    options.redirects = 0
    assert.equal(307, call(options).status)
  end)

  it("trusts those in ca, and nobody else", function()
    local identity = { cert = pem "client.pem", key = pem "client.key" }
    assert.equal("tls", call(identity).code) -- the system knows nothing of that authority
    identity.ca = pem "elsewhere.pem"
    assert.equal("tls", call(identity).code)
    identity.ca = pem "elsewhere.pem" .. pem "ca.pem"
    assert.equal(200, call(identity).status)
  end)

  it("says what is wrong with a text, without quoting it", function()
    local encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIseldom\n-----END ENCRYPTED PRIVATE KEY-----\n"
    for _, case in ipairs { { { key = pem "client.key" }, "key is given without cert" }, { { cert = "/etc/cert.pem" }, "cert is not PEM" },
      { { ca = 7 }, "ca has to be a string" }, { { cert = pem "client.pem", key = encrypted }, "key is a key that is encrypted" } } do
      local said = call(case[1]).raised
      assert.truthy(said and said:find(case[2], 1, true), said)
      assert.is_nil(said:find("MII", 1, true), said)
    end
    local res = call { cert = "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n", ca = pem "ca.pem" }
    assert.equal("tls", res.code, json.encode(res))
  end)
end)

describe("neap.http's gzip", function()
  local receiver = bed.receiver()
  local host
  setup(function()
    host = bed.host { plugins = { ["vendors/caller.lua"] = [[local plugin = ...
      local http = require "neap.http"
      local json = require "neap.json"
      local config = plugin:config { url = { "string" } }
      plugin:command { "post", args = { options = { "string" } }, handler = function(args)
        local options = json.decode(args.options)
        options.url = config.url
        local ok, res = pcall(http.post, options)
        return { said = ok and res.status or res }
      end }]] }, config = ("connections = { { \"caller\", url = %q } }"):format(receiver.url) }
  end)
  teardown(function()
    assert.same({ "exit", 0 }, { host:stop() })
    receiver:close()
  end)

  local function post(options)
    receiver.requests = {}
    local p = bed.start { bed.neap, "call", "--store", host.store, "--json", "caller", "post", "options=" .. json.encode(options) }
    bed.wait("the call to end", function()
      receiver:poll()
      p:read()
      return p.ended
    end)
    p:wait()
    return receiver.requests[1], p.output
  end

  it("sends what the gzip program reads, and says so", function()
    local text = ("a reading of 5.6 mmol/L; "):rep(400)
    local sent = post { body = text, gzip = true }
    assert.equal("gzip", sent.headers["content-encoding"])
    assert.is_true(#sent.body < #text / 20)
    local file = bed.folder() .. "/body.gz"
    bed.write(file, sent.body)
    assert.equal(text, (bed.run { "gzip", "-dc", file }))
    sent = post { json = { n = 1 }, gzip = true }
    assert.equal("application/json", sent.headers["content-type"])
    bed.write(file, sent.body)
    assert.equal('{"n":1}', (bed.run { "gzip", "-dc", file }))
  end)

  it("sends as it is what is not to be gzipped, or is nothing", function()
    assert.equal("plain", post({ body = "plain", gzip = false }).body)
    local sent = post { gzip = true }
    assert.is_nil(sent.headers["content-encoding"])
    assert.equal("", sent.body)
  end)

  it("is not done twice", function()
    local sent, out = post { body = "x", gzip = true, headers = { ["Content-Encoding"] = "br" } }
    assert.is_nil(sent)
    assert.truthy(out:find("both given", 1, true), out)
  end)
end)
