-- No command shows a secret, as text or as JSON: of settings, of requests that came in, of those that went out, nor what others say back.
local bed = require "bed"

-- Each is invented, and none is part of another. What is sealed stands in settings of the type secret; the rest is told by where it stands.
local SECRETS = {
  setting = "opens-the-gauge-1", url = "in-a-url-2", header = "Bearer in-a-header-3", query = "in-a-query-4", outgoing = "goes-out-in-a-header-5",
  out_query = "goes-out-in-a-query-6", out_url = "goes-out-in-a-url-7", nightscout = "nightscout-secret-8",
}
local API_SECRET = require "neap.crypto".sha1(SECRETS.nightscout)

local vendor = [[
local plugin = ...
local http, log = require "neap.http", require "neap.log"
local config = plugin:config { word = { "secret" }, url = { "string" }, down = { "string", default = "http://127.0.0.1:1/" }, missing = { "string", optional = true, pattern = "x" } }
plugin:serve { "POST /in", body = { how = { "string" } }, handler = function(req)
  log.info("came", { word = config.word, url = config.url, all = config })
  if req.body.how == "raise" then error("said " .. config.word .. " to " .. config.url) end
  if req.body.how == "many" then
    for i = 1, 600 do http.get { url = config.down, headers = { ["x-token"] = "token-number-" .. i } } end
    error("said token-number-600 and " .. config.word)
  end
  if req.body.how == "refuse" then return nil, "it is not " .. config.word .. " of " .. config.url end
  plugin:device { device = "d", name = "with " .. config.word }
  plugin:emit { device = "d", metric = req.body.how, value = "is " .. config.word, unit = "1", extra = { word = config.word, url = config.url } }
  return 204
end }
plugin:every("1h", "job", function() error("asked " .. config.url .. " with " .. config.word) end)
plugin:command { "refuse", handler = function() return nil, "not " .. config.word .. " of " .. config.url end }
]]
local rule = [[
local plugin = ...
local config = plugin:config { word = { "secret" }, url = { "string" } }
plugin:on({ metric = "send" }, function(r)
  for _, to in ipairs { "desk", "site" } do plugin:send(to, { title = "it is " .. config.word, device = r.device, metric = "glucose", value = 5.5, unit = "mmol/L", at = r.at, word = config.word, url = config.url }) end
end)
plugin:on({ metric = "hold" }, function(r) error("held by " .. config.word .. " for " .. config.url) end)
]]
-- It says in its headers what it must not, and its settings stand open.
local desk = [[
local plugin = ...
local http = require "neap.http"
plugin:deliver { options = { url = { "string" }, token = { "string" }, query = { "string" } }, handler = function(messages, to)
  return http.post { url = to.url, query = { token = to.query }, headers = { Authorization = "Bearer " .. to.token }, body = messages[1].json }
end }
]]

describe("secrets", function()
  local host, receiver
  setup(function()
    receiver = bed.receiver()
    receiver.answer = function(request) -- it says all back, as some do
      local words = { request.path }
      for name, value in pairs(request.headers) do words[#words + 1] = name .. ": " .. value end
      return 400, table.concat(words, "; "), { ["x-said"] = table.concat(words, "; "):sub(1, 900) }
    end
    host = bed.host {
      config = ([[lanes = 1, quarantine = false,
        connections = { { "gauge", word = env "WORD", url = "https://ann:%s@gauge.example/" } },
        rules = { { "teller", word = env "WORD", url = "https://ann:%s@gauge.example/" } },
        destinations = { desk = { "desk", url = "http://ann:%s@127.0.0.1:%d/", token = "%s", query = "%s" },
          site = { "nightscout", url = "http://127.0.0.1:%d", secret = "%s" } },]]):format(SECRETS.url, SECRETS.url, SECRETS.out_url, receiver.port,
        SECRETS.outgoing, SECRETS.out_query, receiver.port, SECRETS.nightscout),
      plugins = bed.own_plugins { ["vendors/gauge.lua"] = vendor, ["rules/teller.lua"] = rule, ["destinations/desk.lua"] = desk },
      env = { "WORD=" .. SECRETS.setting },
    }
  end)
  teardown(function()
    host:stop()
    receiver:close()
  end)

  local function is_clean(what, text)
    for name, secret in pairs(SECRETS) do assert.is_nil(text:find(secret, 1, true), what .. " shows " .. name .. ": " .. text) end
    assert.is_nil(text:find(API_SECRET, 1, true), what .. " shows api-secret: " .. text)
  end

  it("are not shown by any command, nor by the log", function()
    local tails = {}
    for _, kind in ipairs { "readings", "matches", "messages", "attempts" } do
      tails[kind .. " --json"] = bed.start { bed.neap, "tail", kind, "--store", host.store, "--json" }
      tails[kind] = bed.start { bed.neap, "tail", kind, "--store", host.store }
    end
    local function come(how)
      local headers = { authorization = SECRETS.header, ["api-secret"] = SECRETS.header }
      host:request("POST", "/in?token=" .. SECRETS.query, { how = how }, headers)
    end
    bed.wait("something in each tail", function() -- what came before it had begun is not shown
      come "send"
      receiver:poll()
      for name, tail in pairs(tails) do
        if #tail:read() < 60 then return io.stderr:write(name, " ", tail.output, "|", host:sql("select count(*) n from dead")[1].n, host:read():sub(-500)) and false end
      end
      return true
    end)
    for _, how in ipairs { "send", "hold", "raise", "refuse", "wrong" } do
      come(how ~= "wrong" and how or 7)
    end
    bed.wait("all messages dead, and a reading held", function()
      receiver:poll()
      return host:sql("select (select count(*) from held) and not (select count(*) from outbox) done")[1].done == 1
    end)
    assert.truthy(bed.wait("what nightscout was told", function()
      for _, r in ipairs(receiver:poll()) do if r.headers["api-secret"] == API_SECRET then return true end end
    end))

    local commands = { { "plugins" }, { "devices" }, { "destinations" }, { "dead", "list" }, { "history", "gauge" }, { "history", "teller" }, { "diff", "gauge" },
      { "ack", "list" }, { "call", "gauge" }, { "call", "gauge", "refuse" }, { "replay", "list" }, { "reload" },
      { "replay", "gauge", "--failed", "--dry-run" }, { "replay", "--rule", "teller", "--dry-run", "--since", "24h" } }
    for _, row in ipairs(host:sql "select id from dead order by seq desc limit 4") do
      table.insert(commands, { "dead", "show", row.id })
      table.insert(commands, { "explain", row.id })
    end
    for _, row in ipairs(host:sql "select id from inbox order by id desc limit 6") do
      table.insert(commands, { "request", tostring(row.id) })
      table.insert(commands, { "explain", "request:" .. row.id })
    end
    for _, row in ipairs(host:sql "select seq from readings order by seq desc limit 3") do table.insert(commands, { "explain", tostring(row.seq) }) end
    for _, command in ipairs(commands) do
      local name = table.remove(command, 1)
      for _, more in ipairs { {}, { "--json" }, { "--people" }, { "--json", "--people" } } do
        local argv = { bed.neap, name, table.unpack(command) }
        argv[#argv + 1], argv[#argv + 2] = "--store", host.store
        for _, option in ipairs(more) do argv[#argv + 1] = option end
        local out = bed.run(argv)
        is_clean(table.concat(argv, " ", 2), out)
      end
    end
    for name, tail in pairs(tails) do
      tail:stop(2)
      is_clean("tail " .. name, tail:read())
    end
    is_clean("the log", host:read())
  end)

  it("are masked however many calls have told others before", function()
    host:request("POST", "/in", { how = "many" })
    local said = host:inbox "order by id desc limit 1" [1].error
    assert.truthy(said:find("said *** and ***", 1, true), said)
  end)

  it("are not quoted where they do not fit, by neap check nor by a host", function()
    local folder = bed.folder()
    local function check(entry)
      bed.write(folder .. "/plugins/destinations/desk.lua", [[
local plugin = ...
plugin:deliver { options = { url = { "string", pattern = "https://[^@]+", optional = true }, word = { "secret", pattern = "%d+", optional = true }, least = { "secret", min = 50, optional = true },
  one = { "string", values = { "a" }, optional = true }, number = { "secret", optional = true }, list = { "array", items = { "string", pattern = "x" }, optional = true } },
  handler = function() return true end }]])
      bed.write(folder .. "/neap.lua", ("return { destinations = { desk = { \"desk\", %s } } }"):format(entry))
      local text = bed.run({ bed.neap, "check", folder })
      local json, code = bed.run({ bed.neap, "check", folder, "--json" })
      assert.equal(1, code, text)
      return text .. json
    end
    for setting, entry in pairs {
      ["setting url: expected text that matches"] = 'url = "https://ann:pass-word-1@desk.example/"', ["setting word"] = 'word = "pass-word-1"', ["setting least"] = 'least = "pass-word-1"',
      ["setting one"] = 'one = "ann:pass-word-1@desk.example"', ["setting number"] = 'number = { "pass-word-1" }', ["setting list%[1%]"] = 'list = { "http://ann:pass-word-1@desk" }',
      ["delivery.rate"] = 'delivery = { rate = "http://ann:pass-word-1@desk" }', ["limits.calls"] = 'limits = { calls = "ann:pass-word-1@desk" }',
    } do
      local said = check(entry)
      assert.matches(setting, said)
      assert.is_nil(said:find("pass-word-1", 1, true), said)
    end
    assert.matches('got \\?"https://%*%*%*@desk.example/', check 'url = "https://ann:pass-word-1@desk.example/"')
  end)
end)
