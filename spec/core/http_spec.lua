-- HTTP in, over raw sockets against the running host.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local echo = [[
local plugin = ...
local json = require "neap.json"
local http = require "neap.http"
local config = plugin:config { upstream = { "string" } }
local function show(req)
  return 200, { method = req.method, path = req.path, route = req.route, params = req.params, query = req.query, body = req.body == nil and json.null or req.body, raw = #req.raw,
    text = #req.raw < 200 and req.raw or "", headers = { x = req.headers["x-test"], type = req.headers["content-type"] } }
end
plugin:serve { "GET /things/{id}", handler = show }
plugin:serve { "GET /things/special", handler = function() return 200, "literal" end }
plugin:serve { "GET /things/{id}/parts/{part}", path = { part = { "integer", min = 1 } }, handler = show }
plugin:serve { "PUT /things/{id}", handler = show }
plugin:serve { "DELETE /things/{id}", handler = function() return 204 end }
plugin:serve { "POST /echo", handler = show }
plugin:serve { "POST /small", body_max = 1000, handler = show }
plugin:serve { "POST /large", body_max = "6MiB", handler = show }
plugin:serve { "GET /query", query = { n = { "integer", min = 1, max = 9, optional = true }, word = { "string", optional = true }, flag = { "boolean", optional = true } }, handler = show }
plugin:serve { "POST /form", body = { name = { "string" }, age = { "integer", optional = true } }, handler = show }
plugin:serve { "POST /schema", body = { a = { "object", fields = { b = { "array", items = { "integer" } } } } }, handler = show }
plugin:serve { "GET /headers", handler = function() return 201, "x", { ["X-One"] = "1", ["X-Two"] = { "a", "b" }, ["Content-Type"] = "text/x-own" } end }
plugin:serve { "GET /nothing", handler = function() end }
plugin:serve { "GET /wait", handler = function() local res = http.get { url = config.upstream, timeout = 20 } return 200, res and "waited" or "failed" end }
plugin:serve { "GET /long", handler = function() local i = 0 return 200, function() i = i + 1 if i <= 2000 then return ("x"):rep(10000) end end end }
]]

local own_words = [[
local plugin = ...
plugin:refuse(function(p) return p.status == 400 and 422 or p.status, { no = p.message, field = p.field, where = p.where, kind = p.kind } end)
plugin:serve { "POST /own/schema", body = { a = { "string" } }, handler = function() return 200 end }
plugin:serve { "GET /own/query", query = { n = { "integer" } }, handler = function() return 200 end }
plugin:serve { "GET /own/{id}", path = { id = { "integer" } }, handler = function() return 200 end }
plugin:serve { "POST /own/small", body_max = 10, handler = function() return 200 end }
]]

local function gzip(text)
  local f = bed.folder()
  bed.write(f .. "/in", text)
  os.execute(("gzip -c '%s/in' > '%s/out'"):format(f, f))
  return bed.read(f .. "/out")
end

describe("http", function()
  local host, upstream
  setup(function()
    upstream = bed.receiver()
    host = bed.host {
      config = ([[lanes = 2, timeouts = { head = "3s", body = "3s", write = "3s", idle = "20s" }, connections = { { "echo", upstream = "http://127.0.0.1:%d/" }, { "own" } }]]):format(upstream.port),
      plugins = { ["vendors/echo.lua"] = echo, ["vendors/own.lua"] = own_words },
    }
  end)
  teardown(function()
    upstream:close()
    assert.same({ "exit", 0 }, { host:stop() })
  end)

  local function connect(port)
    local s = assert(socket.connect("127.0.0.1", port or host.port))
    s:settimeout(30)
    s:setoption("tcp-nodelay", true)
    return s
  end

  -- Sends text as it is and reads one answer (of a request with that method).
  local function raw(text, method)
    local s = connect()
    s:send(text)
    local status, body, fields = bed.receive(s, method)
    return status, body, fields, s
  end

  local function closed(s)
    local bytes, why = s:receive(1)
    return bytes == nil and why == "closed"
  end

  local function post(path, body, headers)
    return ("POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s"):format(path, headers or "", #body, body)
  end

  local function settled(before)
    bed.wait("everything to be given back", function()
      upstream:poll()
      local s = host:summary()
      return s.tasks == 0 and (not before or s.descriptors <= before.descriptors)
    end, 60)
    assert.equal(200, (host:request("GET", "/things/alive")))
  end

  describe("a connection", function()
    it("is kept for further requests", function()
      local s = connect()
      for i = 1, 50 do
        s:send(("GET /things/%d HTTP/1.1\r\nHost: x\r\n\r\n"):format(i))
        local status, body = bed.receive(s)
        assert.same({ 200, tostring(i) }, { status, json.decode(body).params.id })
      end
      s:send "GET /things/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
      local status, _, fields = bed.receive(s)
      assert.same({ 200, "close", true }, { status, fields.connection, closed(s) })
      s:close()
    end)

    it("answers pipelined requests in their order", function()
      local s, parts = connect(), {}
      for i = 1, 30 do parts[i] = i % 3 == 0 and post("/echo", tostring(i)) or ("GET /things/%d HTTP/1.1\r\nHost: x\r\n\r\n"):format(i) end
      s:send(table.concat(parts))
      for i = 1, 30 do
        local status, body = bed.receive(s)
        assert.equal(200, status)
        local b = json.decode(body)
        assert.equal(tostring(i), b.params.id or b.text)
      end
      s:close()
    end)

    it("takes a request byte by byte", function()
      local s = connect()
      local text = post("/echo?a=1", "hello")
      for i = 1, #text do s:send(text:sub(i, i)) end
      local _, body = bed.receive(s)
      assert.same({ "hello", "1" }, { json.decode(body).text, json.decode(body).query.a })
      s:close()
    end)

    it("of HTTP/1.0 is closed after the answer", function()
      local status, _, _, s = raw "GET /things/1 HTTP/1.0\r\n\r\n"
      assert.same({ 200, true }, { status, closed(s) })
    end)
  end)

  describe("a method", function()
    it("HEAD is GET without a body", function()
      local s = connect()
      s:send "HEAD /things/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /things/2 HTTP/1.1\r\nHost: x\r\n\r\n"
      local status, body, fields = bed.receive(s, "HEAD")
      assert.same({ 200, "", true }, { status, body, tonumber(fields["content-length"]) > 0 })
      status, body = bed.receive(s)
      assert.same({ 200, "2" }, { status, json.decode(body).params.id })
      s:close()
    end)

    it("OPTIONS tells what a path takes", function()
      local status, body, fields = host:request("OPTIONS", "/things/1")
      assert.same({ 204, "" }, { status, body })
      for _, m in ipairs { "GET", "PUT", "DELETE", "HEAD", "OPTIONS" } do assert.matches("%f[%u]" .. m .. "%f[^%u]", fields.allow) end
      assert.is_nil(fields.allow:find "POST")
      assert.equal(404, (host:request("OPTIONS", "/nowhere")))
    end)

    it("that a path does not take is 405 with Allow", function()
      local status, _, fields = host:request("PATCH", "/things/1")
      assert.equal(405, status)
      assert.matches("PUT", fields.allow)
      assert.equal(404, (host:request("GET", "/things")))
      assert.equal(404, (host:request("GET", "/things/1/parts")))
      assert.equal(404, (host:request("GET", "/")))
    end)
  end)

  describe("a path", function()
    it("gives its parameters, decoded", function()
      local _, b = host:json("GET", "/things/a%20b%3Fc%C3%A9/parts/7")
      assert.same({ id = "a b?cé", part = 7 }, b.params)
      assert.equal("/things/{id}/parts/{part}", b.route)
    end)
    it("that is literal comes before one with parameters", function()
      assert.equal("literal", (select(2, host:request("GET", "/things/special"))))
      assert.equal("specials", (select(2, host:json("GET", "/things/specials"))).params.id)
      local _, _, fields = host:request("POST", "/things/special")
      assert.matches("GET", fields.allow)
      local _, b = host:json("PUT", "/things/special") -- the literal path does not take it, the other does
      assert.equal("special", b.params.id)
    end)
    it("that does not fit its schema is refused by name", function()
      local status, b = host:json("GET", "/things/1/parts/x")
      assert.same({ 400, "part" }, { status, b.field })
      assert.matches("part", b.error)
    end)
    it("that is malformed is refused", function()
      for _, target in ipairs { "/a%zz", "/a%2", "/a%00b", "nothing", "/a b" } do assert.equal(400, (raw(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(target))), target) end
    end)
  end)

  describe("a query", function()
    it("is decoded, and the first of a name stands", function()
      local _, b = host:json("GET", "/things/1?a=1%2B2&b=x+y&a=second&%C3%A9=%C3%BC&empty=&bare&&=nameless&c=a=b&bad=%zz")
      assert.equal("1+2", b.query.a)
      assert.equal("x y", b.query.b)
      assert.equal("ü", b.query["é"])
      assert.equal("", b.query.empty)
      assert.equal("", b.query.bare)
      assert.equal("a=b", b.query.c)
      assert.equal("%zz", b.query.bad)
    end)
    it("is taken as its schema says, or refused by name", function()
      local _, b = host:json("GET", "/query?n=3&word=7&flag=true")
      assert.same({ n = 3, word = "7", flag = true }, b.query)
      for query, field in pairs { ["n=x"] = "n", ["n=10"] = "n", ["n=1.5"] = "n", ["flag=perhaps"] = "flag" } do
        local status, answer = host:json("GET", "/query?" .. query)
        assert.same({ 400, field }, { status, answer.field }, query)
        assert.matches(field, answer.error)
      end
    end)
  end)

  describe("a body", function()
    it("by Content-Length", function()
      local _, body = raw(post("/echo", '{"a":[1,2.5,"x",null]}', "Content-Type: application/json\r\n"))
      assert.same({ a = { 1, 2.5, "x", json.null } }, json.decode(body).body)
    end)

    it("in chunks, with extensions and a trailer", function()
      local s = connect()
      s:send "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\nTrailer: 1\r\n\r\nGET /things/next HTTP/1.1\r\nHost: x\r\n\r\n"
      local _, body = bed.receive(s)
      assert.same({ a = 1 }, json.decode(body).body)
      _, body = bed.receive(s)
      assert.equal("next", json.decode(body).params.id)
      s:close()
    end)

    it("in malformed chunks is refused", function()
      for _, chunks in ipairs { "x\r\n", "-1\r\n", "5\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "3 \n\nabc" } do
        local status = raw("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" .. chunks .. "0\r\n\r\n")
        assert.equal(400, status, chunks)
      end
    end)

    for _, way in ipairs { "Content-Length", "chunks", "gzip" } do
      it("is bounded for its route: by " .. way, function()
        for path, bound in pairs { ["/small"] = 1000, ["/echo"] = 4 << 20, ["/large"] = 6 << 20 } do
          for more = -1, 1 do
            local body = ("x"):rep(bound + more)
            local s = connect()
            if way == "Content-Length" then
              s:send(("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"):format(path, #body))
              s:send(body) -- past the bound the answer may come, and the rest be cut off, before all is sent
            elseif way == "chunks" then
              s:send(("POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n"):format(path, #body))
              s:send(body)
              s:send "\r\n0\r\n\r\n"
            else
              local z = gzip(body)
              s:send(post(path, z, "Content-Encoding: gzip\r\n"))
            end
            local status, answer = bed.receive(s)
            assert.equal(more > 0 and 413 or 200, status, path .. " " .. more)
            if more <= 0 then assert.equal(#body, json.decode(answer).raw) end
            s:close()
          end
        end
        settled()
      end)
    end

    it("that is gzip is unpacked; broken gzip is 400, another coding 415", function()
      local _, body = raw(post("/echo", gzip '{"a":1}', "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"))
      assert.same({ a = 1 }, json.decode(body).body)
      assert.equal(400, (raw(post("/echo", "no gzip at all", "Content-Encoding: gzip\r\n"))))
      local z = gzip(("abc"):rep(1000))
      assert.equal(400, (raw(post("/echo", z:sub(1, -5), "Content-Encoding: gzip\r\n"))))
      assert.equal(415, (raw(post("/echo", "x", "Content-Encoding: br\r\n"))))
    end)

    it("that is a gzip bomb costs no memory", function()
      local bomb = gzip(("\0"):rep(100 << 20))
      local before = host:summary().resident
      for _ = 1, 20 do assert.equal(413, (raw(post("/echo", bomb, "Content-Encoding: gzip\r\n")))) end
      local grown = host:summary().resident - before
      assert.is_true(grown < 60 << 20, "grown by " .. grown)
      settled()
    end)

    it("is asked for by 100 Continue, unless it is refused first", function()
      local s = connect()
      s:send "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
      assert.equal("HTTP/1.1 100 Continue", s:receive "*l")
      s:receive "*l"
      s:send "hello"
      local status, body = bed.receive(s)
      assert.same({ 200, "hello" }, { status, json.decode(body).text })
      s:close()
      assert.equal(404, (raw "POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"))
      assert.equal(413, (raw "POST /small HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n"))
      assert.equal(417, (raw "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 5\r\n\r\n"))
    end)

    it("that is a form", function()
      local _, b = host:json("POST", "/form", "name=A+B%21&age=7&name=second&x=1", { ["content-type"] = "application/x-www-form-urlencoded" })
      assert.same({ name = "A B!", age = 7, x = "1" }, b.body)
      local status, answer = host:json("POST", "/form", "age=x&name=n", { ["content-type"] = "application/x-www-form-urlencoded" })
      assert.same({ 400, "age" }, { status, answer.field })
      status, answer = host:json("POST", "/form", "", { ["content-type"] = "application/x-www-form-urlencoded" })
      assert.same({ 400, "name" }, { status, answer.field })
    end)

    it("that does not fit its schema is refused by name", function()
      for body, field in pairs { ['{}'] = "a", ['{"a":{}}'] = "a.b", ['{"a":{"b":[1,"x"]}}'] = "a.b[2]", ['{"a":3}'] = "a" } do
        local status, answer = host:json("POST", "/schema", body, { ["content-type"] = "application/json" })
        assert.same({ 400, field }, { status, answer.field }, body)
        assert.matches(field, answer.error, 1, true)
      end
      for _, body in ipairs { "", "{", "nonsense", '{"a":1}}', "[1]", '"text"', "\xff" } do
        local status, answer = host:json("POST", "/schema", body, { ["content-type"] = "application/json" })
        assert.equal(400, status, body)
        assert.is_string(answer.error)
      end
    end)

    it("that is refused is kept with the reason", function()
      host:request("POST", "/schema", '{"a":{"b":["unfit"]}}', { ["content-type"] = "application/json" })
      local row = host:sql("select * from inbox where body like '%unfit%'")[1]
      assert.same({ "refused", 400 }, { row.outcome, row.status })
      assert.matches("a.b[1]", row.error, 1, true)
    end)
  end)

  it("plugin:refuse words every refusal", function()
    local own = { ["content-type"] = "application/json" }
    for _, c in ipairs { { "POST", "/own/schema", "{}", 422, "body", "a", "missing" }, { "POST", "/own/schema", '{"a":1}', 422, "body", "a", "type" }, { "POST", "/own/schema", "{", 422, "body", "", "json" },
      { "GET", "/own/query?n=x", nil, 422, "query", "n", "type" }, { "GET", "/own/query", nil, 422, "query", "n", "missing" }, { "GET", "/own/x", nil, 422, "path", "id", "type" },
      { "POST", "/own/small", ("x"):rep(11), 413, "body", "", "length" } } do
      local status, b = host:json(c[1], c[2], c[3], c[3] and { ["content-type"] = own["content-type"] })
      assert.same({ c[4], c[5], c[6], c[7] }, { status, b.where, b.field, b.kind }, c[2])
      if c[6] ~= "" then assert.matches(c[6], b.no, 1, true) end
    end
  end)

  it("an answer has the headers that it was given", function()
    local s = connect()
    s:send "GET /headers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    local text = s:receive "*a"
    s:close()
    for _, line in ipairs { "HTTP/1.1 201 Created\r\n", "X-One: 1\r\n", "X-Two: a\r\n", "X-Two: b\r\n", "Content-Type: text/x-own\r\n", "Content-Length: 1\r\n", "Date: " } do
      assert.matches(line, text, 1, true)
    end
    assert.equal(204, (host:request("GET", "/nothing")))
  end)

  describe("a head", function()
    local malformed = {
      ["no version"] = "GET /things/1\r\n\r\n", ["no spaces"] = "GET/things/1HTTP/1.1\r\nHost: x\r\n\r\n", ["no colon"] = "GET /things/1 HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n",
      ["a blank before the colon"] = "GET /things/1 HTTP/1.1\r\nHost : x\r\n\r\n", ["a folded line"] = "GET /things/1 HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
      ["no Host"] = "GET /things/1 HTTP/1.1\r\n\r\n", ["two Hosts"] = "GET /things/1 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
      ["both lengths"] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["two different lengths"] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", ["a signed length"] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
      ["a length that is none"] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: three\r\n\r\nabc", ["a huge length"] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
      ["a zero byte"] = "GET /things/1 HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", ["a method that is no token"] = "G@T /things/1 HTTP/1.1\r\nHost: x\r\n\r\n", ["binary"] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    }
    for what, text in pairs(malformed) do
      it("with " .. what .. " is 400 and the end", function()
        local status, _, _, s = raw(text)
        assert.equal(400, status)
        assert.is_true(closed(s))
        s:close()
      end)
    end

    it("past its limits is refused", function()
      assert.equal(431, (raw("GET /things/1 HTTP/1.1\r\nHost: x\r\nA: " .. ("x"):rep(20000) .. "\r\n\r\n")))
      assert.equal(431, (raw("GET /things/1 HTTP/1.1\r\nHost: x\r\n" .. ("A: b\r\n"):rep(200) .. "\r\n")))
      assert.equal(414, (raw("GET /" .. ("x"):rep(20000) .. " HTTP/1.1\r\nHost: x\r\n\r\n")))
      assert.equal(501, (raw "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\n\r\n"))
      assert.equal(505, (raw "GET /things/1 HTTP/2.0\r\nHost: x\r\n\r\n"))
    end)

    it("within its limits is taken", function()
      local status, body = raw("GET /things/1 HTTP/1.1\r\nHost: x\r\nX-Test: " .. ("y"):rep(10000) .. "\r\n\r\n")
      assert.same({ 200, 10000 }, { status, #json.decode(body).headers.x })
    end)

    it("with a header that comes again has both values", function()
      local _, body = raw "GET /things/1 HTTP/1.1\r\nHost: x\r\nX-TEST: a\r\nx-test:   b  \r\n\r\n"
      assert.equal("a, b", json.decode(body).headers.x)
    end)
  end)

  it("a hundred slow clients cost nobody else anything, and are given up", function()
    local before, slow = host:summary(), {}
    for i = 1, 100 do
      slow[i] = connect()
      slow[i]:send(i % 2 == 0 and "GET /things/slow HT" or "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    end
    local s = connect()
    for i = 1, 500 do
      s:send(("GET /things/%d HTTP/1.1\r\nHost: x\r\n\r\n"):format(i))
      assert.equal(200, (bed.receive(s)))
    end
    s:close()
    for i = 1, 100 do assert.equal(408, (bed.receive(slow[i])), i) end -- their time is up
    for i = 1, 100 do slow[i]:close() end
    settled(before)
  end)

  describe("a client that vanishes", function()
    it("after any number of bytes leaves nothing behind", function()
      local before = host:summary()
      for _, text in ipairs { post("/echo?x=1", '{"a":1}', "Content-Type: application/json\r\n"), "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET /long HTTP/1.1\r\nHost: x\r\n\r\n" } do
        for k = 0, #text do
          local s = connect()
          s:send(text:sub(1, k))
          if k % 2 == 0 then s:setoption("linger", { on = true, timeout = 0 }) end -- by a reset
          s:close()
        end
      end
      settled(before)
    end)

    it("while its handler waits leaves nothing behind", function()
      local before = host:summary()
      local waiting = {}
      upstream.answer = function() return nil end
      for i = 1, 20 do
        waiting[i] = connect()
        waiting[i]:send "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
      end
      bed.wait("the handlers to wait", function() return host:summary().tasks == 20 end)
      for i = 1, 20 do
        if i % 2 == 0 then waiting[i]:setoption("linger", { on = true, timeout = 0 }) end
        waiting[i]:close()
      end
      settled(before) -- the upstream hangs up, and the handlers go on to their end
    end)

    it("while its answer streams leaves nothing behind", function()
      local before = host:summary()
      for i = 1, 20 do
        local s = connect()
        s:send "GET /long HTTP/1.1\r\nHost: x\r\n\r\n"
        assert.equal(1000 * i, #assert(s:receive(1000 * i)))
        if i % 2 == 0 then s:setoption("linger", { on = true, timeout = 0 }) end
        s:close()
      end
      settled(before)
    end)

    it("with a request in the middle of others does not harm them", function()
      local s = connect()
      s:send(post("/echo", "one") .. post("/echo", "two") .. "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nunfinish")
      for _, said in ipairs { "one", "two" } do assert.equal(said, json.decode((select(2, bed.receive(s)))).text) end
      s:close()
      settled()
      assert.equal(0, host:sql("select count(*) n from inbox where body like 'unf%'")[1].n)
    end)
  end)

  it("a client that has shut down its sending side is still answered", function()
    local s = connect()
    s:send(post("/echo", "last"))
    s:shutdown "send"
    assert.equal("last", json.decode((select(2, bed.receive(s)))).text)
    s:close()
  end)
end)
