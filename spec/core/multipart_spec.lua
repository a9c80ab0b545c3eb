-- core/host/multipart.c: bodies of multipart/form-data, as clients send them and broken.
local bed = require "bed"
local json = require "neap.json"

local PLUGIN = [[
local plugin = ...
plugin:serve { "POST /try", keep = false, body = { a = { "string", max = 100000 }, n = { "integer", optional = true } },
  handler = function(req) return 200, req.body end }
plugin:serve { "POST /raw", keep = false, handler = function(req) return 200, { body = req.body == nil, raw = #req.raw } end }
]]

describe("a multipart form", function()
  local host
  setup(function() host = bed.host { plugins = { ["vendors/try.lua"] = PLUGIN }, config = "connections = { { 'try' } }" } end)
  teardown(function() host:stop() end)

  local function send(body, type, path)
    return host:json("POST", path or "/try", body, { ["content-type"] = type or "multipart/form-data; boundary=XyZ" })
  end
  local function part(name, value, more) return ("--XyZ\r\ncontent-disposition: form-data; name=\"%s\"%s\r\n\r\n%s\r\n"):format(name, more or "", value) end
  local function whole(...) return table.concat({ ... }) .. "--XyZ--\r\n" end

  it("is its fields, as text that is read as the schema has it", function()
    local status, body = send(whole(part("a", "hello"), part("n", "7")))
    assert.equal(200, status)
    assert.same({ a = "hello", n = 7 }, body)
    status = send(whole(part("a", "hello"), part("n", "x")))
    assert.equal(400, status)
  end)
  it("keeps values byte for byte, empty ones too", function()
    for _, value in ipairs { "", "\r\n", "--", "--Xy", "\r\n--XyY", "a=b&c%20+", "\r\n\r\n", "é", ("x"):rep(70000) } do
      local status, body = send(whole(part("a", value)))
      assert.equal(200, status)
      assert.equal(value, body.a)
    end
  end)
  it("may have a preamble, an epilogue, quotes, other headers, spaces behind a boundary, a field twice, a file", function()
    local status, body = send("text before\r\n" .. whole(part("a", "1"), part("a", "2")) .. "text behind")
    assert.equal(200, status)
    assert.equal("1", body.a)
    assert.equal("1", select(2, send(whole(part("a", "1")), "Multipart/Form-Data; charset=utf-8; boundary=\"XyZ\"")).a)
    assert.equal("1", select(2, send(whole(part("a", "1", "\r\ncontent-type: text/plain")))).a)
    assert.equal("1", select(2, send((whole(part("a", "1")):gsub("XyZ\r\n", "XyZ \t\r\n", 1)))).a)
    assert.equal("1", select(2, send(whole(part("a", "1", "; filename=\"b\"")))).a)
    assert.equal("1", select(2, send((whole(part("b", "1")):gsub("name=\"b\"", "filename=\"b\"; name=\"a\"")))).a)
  end)
  it("is what curl sends", function()
    local out = bed.run { "curl", "-s", "-F", "a=hello world", "-F", "n=-3", host.url .. "/try" }
    assert.same({ a = "hello world", n = -3 }, json.decode(out))
  end)
  it("is refused where it is broken", function()
    local good = whole(part("a", "hello"), part("n", "7"))
    for n = 0, #good - 5 do assert.equal(400, (send(good:sub(1, n))), n) end
    for _, type in ipairs { "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" .. ("x"):rep(71),
      "multipart/form-data; boundary=other" } do
      assert.equal(400, (send(good, type)))
    end
    for _, body in ipairs { "--XyZx\r\n" .. good, good:gsub("name=", "nome="), good:gsub("name=\"n\"", "name=\"n"), whole(part("a", "x", ("y"):rep(5000))),
      '{"a":"b"}' } do
      assert.equal(400, (send(body)))
    end
  end)
  it("is left alone where no body is declared", function()
    local status, body = send("nonsense", nil, "/raw")
    assert.equal(200, status)
    assert.same({ body = true, raw = 8 }, body)
  end)
  it("of random bytes between boundaries harms nothing", function()
    math.randomseed(7, 7)
    local pieces = { "--XyZ", "\r\n", "--", "name=\"a\"", "content-disposition: form-data; ", "\r\n\r\n", "x", "\0", "\"", "XyZ", "\r", "\n", "=" }
    for _ = 1, 2000 do
      local t = { math.random(2) == 1 and "--XyZ\r\n" or "" }
      for _ = 1, math.random(30) do t[#t + 1] = pieces[math.random(#pieces)] end
      local status = send(table.concat(t))
      assert.is_true(status == 200 or status == 400)
    end
  end)
end)
