-- Recordings: real requests become a file without secrets in it, and are played again in a spec, on both sides.
local bed = require "bed"
local crypto = require "neap.crypto"

describe("a recording", function()
  local folder
  before_each(function() folder = bed.folder() end)
  after_each(function() bed.stop_all() end)

  local PLUGIN = [[
    local plugin = ...
    local crypto, http = require "neap.crypto", require "neap.http"
    local config = plugin:config { secret = { "secret" }, url = { "string", default = "https://api.x.example" } }
    plugin:serve { "POST /x/push", body = { id = { "string" }, v = { "number" } }, auth = function(req)
        if req.headers["x-signature"] ~= crypto.hmac("sha256", config.secret, req.raw) then return nil, "bad signature" end
        return true
      end,
      handler = function(req)
        plugin:emit { device = "d", metric = "m", value = req.body.v, key = req.body.id }
        return 200, { ok = true }
      end }
    plugin:every("5m", "poll", function()
      for page = 1, 2 do
        local res = assert(http.get { url = config.url .. "/levels", query = { page = page }, bearer = config.secret, expect = 200 })
        plugin.store:put("page" .. page, res.json.value or res.json)
      end
    end)
  ]]
  local function test(files)
    bed.write(folder .. "/plugins/vendors/x.lua", PLUGIN)
    for name, text in pairs(files) do bed.write(folder .. "/plugins/vendors/" .. name, text) end
    return bed.run({ bed.neap, "test", "x" }, { cwd = folder })
  end
  local function spec(body)
    return 'local t = require "neap.test"\nlocal crypto = require "neap.crypto"\nit("plays", function()\n'
      .. 'local p = t.plugin("x", { secret = "another secret" })\n' .. body .. "\nend)"
  end

  it("answers what plugins ask, in the order in which it was answered", function()
    local out, code = test {
      ["cloud.http"] = [[
# The cloud of x, on a Tuesday.
>>> GET https://api.x.example/levels?page=1
authorization: ***

<<< 200
content-type: application/json

{"value":1}

<<<not a line that begins an answer
>>> GET https://api.x.example/levels?page=1
<<< 200
content-type: application/json

{"value":11}
>>> GET https://api.x.example/levels?page=***

<<< 200
body-is: base64

eyJ2YWx1ZSI6Mn0=
]],
      ["x_spec.lua"] = spec [[
        assert.equal(3, #t.replay "cloud.http")
        assert.is_nil(p:job "poll") -- the first answer has a line too many to be JSON
      ]],
    }
    assert.equal(0, code, out)
    out, code = test {
      ["cloud.http"] = bed.read(folder .. "/plugins/vendors/cloud.http"):gsub("\n<<<not[^\n]*", ""),
      ["x_spec.lua"] = spec [[
        local all = t.replay "cloud.http"
        assert.equal("GET", all[1].method)
        assert.equal("***", all[1].headers.authorization)
        assert.is_true(p:job "poll")
        assert.equal(1, p:stored "page1")
        assert.equal(2, p:stored "page2")
        for _ = 1, 2 do
          assert.is_true(p:job "poll")
          assert.equal(11, p:stored "page1")
        end
      ]],
    }
    assert.equal(0, code, out)
  end)

  it("gives a plugin what came in, as it came, and tells where it is answered otherwise now", function()
    local push = '>>> POST /x/push\ncontent-type: application/json\nx-signature: ***\n\n{"id":"a","v":1}\n<<< 200\n'
      .. '>>> POST /x/push\ncontent-type: application/json\nx-signature: ***\n\n{"id":"b", "v" : "no number"}\n<<< 400\n'
    local out, code = test {
      ["push.http"] = push,
      ["x_spec.lua"] = spec [[
        local answers = p:replay("push.http", function(req)
          req.headers["x-signature"] = crypto.hmac("sha256", "another secret", req.body)
        end)
        assert.equal(2, #answers)
        assert.same({ ok = true }, answers[1].body)
        assert.equal("a", t.emitted()[1].key)
        assert.equal(1, #t.emitted())
      ]],
    }
    assert.equal(0, code, out)
    out, code = test { ["push.http"] = push, ["x_spec.lua"] = spec [[ p:replay "push.http" ]] }
    assert.equal(1, code)
    assert.truthy(out:find("push.http: POST /x/push was answered 200 when it was recorded, and 400 now", 1, true), out)
  end)

  it("is what docs/plugins.md shows", function()
    local page = bed.read "docs/plugins.md"
    bed.write(folder .. "/plugins/vendors/fjordco.lua", page:match "```lua\n(%-%- plugins/vendors/fjordco.lua\n.-)```")
    bed.write(folder .. "/plugins/vendors/fjordco.http", page:match "```\n(>>> GET .-)```")
    bed.write(folder .. "/plugins/vendors/fjordco_spec.lua", [[
      local t = require "neap.test"
      it("is played", function()
        local fjord = t.plugin("fjordco", { id = "neap", secret = "s3cret-of-ours" })
        t.http("POST https://api.fjordco.example/token", 200, { access_token = "token-1", expires_in = 3600 })
        t.replay "fjordco.http"
        assert.is_true(fjord:job "poll")
        assert.equal(1.25, t.emitted()[1].value)
        assert.equal(7, fjord:stored "since")
      end)
    ]])
    local out, code = bed.run({ bed.neap, "test" }, { cwd = folder })
    assert.equal(0, code, out)
  end)

  it("is read from beside the spec alone, and has to be one", function()
    for text, why in pairs {
      ['t.replay "../../x.http"'] = "only what stands beside the spec", ['t.replay "/etc/passwd"'] = "only what stands beside the spec",
      ['t.replay "none.http"'] = "none.http: cannot be read: No such file", ['t.replay "empty.http"'] = "empty.http: no line",
      ['t.replay "half.http"'] = "has no answer", ['t.replay "odd.http"'] = "odd.http: expected", ["t.replay(7)"] = "expected the name of a file",
      ['p:replay "half.http"'] = "no request that came in",
    } do
      local out, code = test {
        ["empty.http"] = "nothing", ["half.http"] = ">>> GET https://x.example/\n", ["odd.http"] = "<<< 200\n", ["x_spec.lua"] = spec(text),
      }
      assert.equal(1, code, text)
      assert.truthy(out:find(why, 1, true), text .. ": " .. out)
      assert.truthy(out:find("x_spec.lua:5", 1, true), out)
    end
  end)

  it("is made of requests that a host has kept: the same but for secrets, and played by a spec", function()
    local host = bed.host { plugins = { ["vendors/x.lua"] = PLUGIN }, config = 'connections = { { "x", secret = "s3cret-of-theirs" } }' }
    local function kept(body, headers, query)
      headers = headers or {}
      headers["x-signature"] = headers["x-signature"] or crypto.hmac("sha256", "s3cret-of-theirs", body)
      host:request("POST", "/x/push" .. (query or ""), body, headers)
      local id = bed.sql(host.store, "select max(id) as id from inbox")[1].id
      local out, code = bed.run { bed.neap, "request", tostring(id), "--recording", "--store", host.store }
      assert.equal(0, code, out)
      return out
    end
    local first = kept('{ "id":"a",  "v":1.50,"api_key" : "k\\"ey", "nested":{"Access-Token":"t0ken","pin":1234,"tokens":["x"]} }', {
      ["content-type"] = "application/json", authorization = "Bearer t0ken", cookie = "sid=t0ken", ["x-note"] = "kept",
    }, "?from=1&access_token=t0ken&mac=t0ken")
    assert.truthy(first:find(">>> POST /x/push?from=1&access_token=***&mac=***\n", 1, true), first)
    assert.truthy(first:find('\n\n{ "id":"a",  "v":1.50,"api_key" : "***", "nested":{"Access-Token":"***","pin":"***","tokens":["x"]} }\n<<< 200\n', 1, true), first)
    for _, line in ipairs { "authorization: ***", "cookie: ***", "x-signature: ***", "x-note: kept", "content-type: application/json" } do
      assert.truthy(first:find("\n" .. line .. "\n", 1, true), line .. " is not in " .. first)
    end
    assert.is_nil(first:find "t0ken")
    local form = kept("id=b&v=2&client_secret=t0ken", { ["content-type"] = "application/x-www-form-urlencoded" })
    assert.truthy(form:find("\n\nid=b&v=2&client_secret=***\n<<< 200\n", 1, true), form)
    local odd = kept('{"id":"c","v":3}\n<<< 500\n', { ["content-type"] = "application/json" })
    assert.truthy(odd:find("body-is: base64\n\n" .. crypto.base64 '{"id":"c","v":3}\n<<< 500\n' .. "\n<<< 400\n", 1, true), odd)
    local bytes = kept("\0\1\255", { ["content-type"] = "application/json" })
    assert.truthy(bytes:find("body-is: base64\n\nAAH/\n<<< 400\n", 1, true), bytes)
    host:wait_for "details shown"
    local shown = bed.run { bed.neap, "request", tostring(bed.sql(host.store, "select max(id) as id from inbox")[1].id), "--store", host.store }
    assert.matches("error +body: not JSON", shown) -- a request that failed is shown like any other
    local out, code = bed.run { bed.neap, "request", "1", "--recording", "--json", "--store", host.store }
    assert.equal(2, code, out)
    host:stop()

    out, code = test {
      ["push.http"] = first .. form .. odd .. bytes,
      ["x_spec.lua"] = spec [[
        local bodies = {}
        p:replay("push.http", function(req)
          bodies[#bodies + 1] = req.body
          req.headers["x-signature"] = crypto.hmac("sha256", "another secret", req.body)
        end)
        assert.equal('{"id":"c","v":3}\n<<< 500\n', bodies[3])
        assert.equal("\0\1\255", bodies[4])
        assert.equal(2, #t.emitted())
        assert.equal(1.5, t.emitted()[1].value)
      ]],
    }
    assert.equal(0, code, out)
  end)
end)
