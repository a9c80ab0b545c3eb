-- webhook against a receiver that others have written: signatures are checked by the standardwebhooks library from npm (`make sdk`), the
-- client's certificate by node's TLS.
local bed = require "bed"
local certificates = require "certificates"
local json = require "neap.json"

local HOME = bed.root .. "/build/sdk"
local SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

describe("webhook and the standardwebhooks library", function()
  local path = certificates()
  local receiver, host, count = nil, nil, 0

  setup(function()
    assert(os.execute(("test -f '%s/node_modules/standardwebhooks/package.json'"):format(HOME)),
      "the library is not below build/sdk: run `make sdk`, which installs it by npm")
    bed.write(HOME .. "/webhook_receiver.js", bed.read(bed.root .. "/spec/plugins/webhook_receiver.js"))
  end)
  after_each(function()
    if host then assert.same({ "exit", 0 }, { host:stop() }) end
    if receiver then receiver:stop() end
    receiver, host = nil, nil
  end)

  local function listen(tls)
    receiver = bed.start { "node", HOME .. "/webhook_receiver.js", SECRET, table.unpack(tls and { path "server.pem", path "server.key", path "ca.pem" } or {}) }
    return (tls and "https" or "http") .. "://127.0.0.1:" .. receiver:wait_for "port (%d+)"
  end
  local function begin(url, settings)
    host = bed.host { config = ([[
      connections = { { "sinocare", name = "ward-3" } },
      rules = { { "low-glucose", to = "desk", again = "0s" } },
      destinations = { desk = { "webhook", url = "%s/alerts", %s } }]]):format(url, settings) }
  end
  local function push(device)
    count = count + 1
    local _, answer = host:json("POST", "/sinocare/push", bed.push { testId = "t-" .. count, deviceSn = device or "SN-1", testResult = "3.0",
      serialNo = json.null, testTime = ("2021-11-02 %02d:%02d:00"):format(count // 60, count % 60) })
    assert.equal(0, answer.code)
  end
  local function requests(n)
    local list = {}
    bed.wait(n .. " requests at the receiver", function()
      list = {}
      for line in receiver:read():gmatch "{[^\n]*}\n" do
        local seen = json.decode(line)
        if seen.path then list[#list + 1] = seen end -- else a client that was not let in
      end
      return #list >= n
    end)
    return list
  end

  it("is verified, and not by another secret", function()
    begin(listen(), ("secret = %q"):format(SECRET))
    push()
    local seen = requests(1)[1]
    assert.is_true(seen.verified, seen.why)
    assert.equal("SN-1", json.decode(seen.body).device)
    host:stop()
    begin("http://127.0.0.1:" .. receiver.output:match "port (%d+)", 'secret = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="')
    push()
    assert.is_false(requests(2)[2].verified)
  end)

  it("signs what its template makes, gzipped or not, and fills in headers", function()
    begin(listen(), ([=[secret = %q, gzip = true, body = [[{"text": "{{title}} of {{device}}", "value": {{value}}, "at": "{{at:iso}}"}]],
      headers = { Authorization = "Bearer t-1", ["X-Device"] = "dev {{device}}" }]=]):format(SECRET))
    push 'SN "1" \\ Ü'
    local seen = requests(1)[1]
    assert.is_true(seen.verified, seen.why)
    assert.equal("gzip", seen.headers["content-encoding"])
    assert.equal("application/json", seen.headers["content-type"])
    assert.same({ text = 'Low glucose of SN "1" \\ Ü', value = 3.0, at = json.decode(seen.text).at }, json.decode(seen.text))
    assert.truthy(json.decode(seen.text).at:find "^2021%-11%-01T16:%d%d:00Z$")
    assert.equal("Bearer t-1", seen.headers.authorization)
    assert.truthy(seen.headers["x-device"]:find('dev SN "1" \\', 1, true))
  end)

  it("shows its certificate to a server that asks for it", function()
    begin(listen(true), ("secret = %q, cert = file %q, key = file %q, ca = file %q"):format(SECRET, path "client.pem", path "client.key",
      path "ca.pem"))
    push()
    local seen = requests(1)[1]
    assert.is_true(seen.verified, seen.why)
    assert.same({ CN = "client" }, seen.client)
    local key = bed.read(path "client.key"):match "\n(%S+)\n"
    assert.is_nil(json.encode(host:sql "select * from generations"):find(key, 1, true))
  end)

  it("holds its messages where the server refuses the certificate or is not the one it trusts", function()
    local url = listen(true)
    for _, names in ipairs { { "stranger", "ca" }, { "client", "elsewhere" } } do
      begin(url, ("cert = file %q, key = file %q, ca = file %q"):format(path(names[1] .. ".pem"), path(names[1] .. ".key"),
        path(names[2] .. ".pem")))
      push()
      local row = bed.wait("the try to be noted", function() return host:sql("select * from outbox where attempts > 0")[1] end)
      assert.equal(0, row.status)
      assert.is_nil(row.error:find("BEGIN", 1, true))
      host:stop()
    end
    assert.is_nil(receiver:read():find '"verified"')
  end)

  it("shows a renewed certificate once neap has looked at its files again", function()
    local folder = bed.folder()
    for _, kind in ipairs { ".pem", ".key" } do bed.write(folder .. "/mine" .. kind, bed.read(path("stranger" .. kind))) end
    begin(listen(true), ("cert = file %q, key = file %q, ca = file %q"):format(folder .. "/mine.pem", folder .. "/mine.key", path "ca.pem"))
    push()
    bed.wait("the try to be noted", function() return host:sql("select * from outbox where attempts > 0")[1] end)
    for _, kind in ipairs { ".pem", ".key" } do bed.replace(folder .. "/mine" .. kind, bed.read(path("client" .. kind))) end
    local _, code = host:command "reload"
    assert.equal(0, code)
    assert.same({ CN = "client" }, requests(1)[1].client)
  end)
end)
