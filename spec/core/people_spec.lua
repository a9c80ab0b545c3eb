-- People's details and secrets at rest: sealed in the store, opened by who may, and lost with the key.
local bed = require "bed"
local json = require "neap.json"

local probe = [[
local plugin = ...
local json, time = require "neap.json", require "neap.time"
local env = setmetatable({ plugin = plugin, json = json, time = time, store = plugin.store, people = plugin.people }, { __index = _G })
plugin:serve { "POST /probe", keep = false, handler = function(req)
  local r = table.pack(assert(load(req.raw, "=probe", "t", env))())
  return 200, { results = table.move(r, 1, r.n, 1, {}) }
end }
plugin:every("1h", "look", function()
  local reference = plugin.store:get "look"
  if reference then plugin:log("looked", { found = plugin.people:details(reference) ~= nil }) end
end)
plugin:command { "look", args = { reference = { "string" } }, handler = function(args)
  local d, why = plugin.people:details(args.reference)
  if not d then return nil, why end
  return d
end }
plugin:serve { "GET /list/{reference}", handler = function(req)
  local n = 0
  return 200, function()
    n = n + 1
    if n <= 300 then return plugin.people:details(req.params.reference).name .. "\n" end
  end
end }
plugin:serve { "POST /session/{token}", auth = function(req)
  if req.headers.authorization == "Bearer let-me-in" then return "someone" end
  return nil, "who is that"
end, handler = function(req) return 200, { caller = req.caller } end }
plugin:serve { "POST /asked", query = { card = { "string", person = true } }, handler = function() return 204 end }
plugin:serve { "POST /batch", body = { "array", items = { "object", fields = { deep = { "object", optional = true, fields = { pin = { "secret" } } } } } },
  handler = function() return 204 end }
plugin:serve { "POST /open", body = { level = { "number" } }, handler = function() return 204 end }
plugin:serve { "POST /keep/{key}", keep = false, handler = function(req)
  return 200, { plugin.people:keep(req.params.key, req.body) }
end }
]]

local CONFIG = [[lanes = 2, connections = { { "probe", name = "a", people = true }, { "probe", name = "b", mount = "/b" },
  { "probe", name = "face", mount = "/face", shows = { "b" }, people = true }, { "probe", name = "all", mount = "/all", shows = "*", people = true } },]]
local NAME, CARD = "Żółta Gęś", "11010519491231002X"

local function lua(host, text, mount)
  local status, answer = host:json("POST", (mount or "") .. "/probe", text)
  assert(status == 200, ("%s: %s"):format(tostring(status), json.encode(answer or {})))
  return table.unpack(answer.results)
end

-- Which of the store's files hold this text as it stands?
local function files_with(host, text)
  return (bed.run { "sh", "-c", ("LC_ALL=C grep -laF -e '%s' %s/neap.db %s/neap.db-wal"):format(text, host.folder, host.folder) })
end

describe("people", function()
  local host
  setup(function() host = bed.host { config = CONFIG, plugins = { ["vendors/probe.lua"] = probe } } end)
  teardown(function() host:stop() end)

  it("are kept under a reference that is always the same, and differs from one connection to another", function()
    local first = lua(host, "return people:keep('patient:1', { name = 'Ann' })")
    assert.matches("^p_%x+$", first)
    assert.equal(34, #first)
    assert.equal(first, (lua(host, "return people:keep('patient:1', { name = 'Ann' })")))
    assert.equal(first, (lua(host, "return people:reference 'patient:1'")))
    assert.not_equal(first, (lua(host, "return people:reference 'patient:2'")))
    assert.not_equal(first, (lua(host, "return people:reference 'patient:1'", "/b")))
  end)

  it("of a connection that another shows can be referred to by that one, and their details read where it may", function()
    local reference = lua(host, "return people:keep('patient:7', { name = 'Ann' })", "/b")
    for _, mount in ipairs { "/face", "/all" } do
      assert.equal(reference, (lua(host, "return people:reference('patient:7', 'b')", mount)))
      assert.same({ name = "Ann" }, (lua(host, ("return people:details '%s'"):format(reference), mount)))
      assert.equal("people: another connection has kept that person", (lua(host, ("return select(2, people:forget '%s')"):format(reference), mount)))
    end
    reference = lua(host, "return people:keep('patient:8', { name = 'Bo' })")
    assert.equal("people: nobody is kept under that reference", (lua(host, ("return select(2, people:details '%s')"):format(reference), "/face")))
    assert.matches('does not show "a"', (lua(host, "return select(2, pcall(people.reference, people, 'patient:8', 'a'))", "/face")))
  end)

  it("keep the fields of before, and lose what is null", function()
    lua(host, "return people:keep('merged', { name = 'Ann', age = 4, weight = 4.0, ill = false })")
    assert.same({ { name = "Bo", age = 4, weight = 4.0, room = "7", ill = false } },
      { lua(host, "return people:details(people:keep('merged', { name = 'Bo', room = '7' }))") })
    assert.same({ name = "Bo", age = 4, weight = 4.0, ill = false }, (lua(host, "return people:details(people:keep('merged', { room = json.null }))")))
    assert.equal("integer", (lua(host, "return math.type(people:details(people:reference 'merged').age)")))
    assert.equal("float", (lua(host, "return math.type(people:details(people:reference 'merged').weight)")))
  end)

  it("are not written anew where nothing is new", function()
    local reference = lua(host, "return people:keep('same', { name = 'Ann', age = 4 })")
    local query = ("SELECT version FROM kv WHERE space = 'people' AND key = '%s'"):format(reference)
    local before = host:sql(query)
    lua(host, "return people:keep('same', { age = 4 })")
    assert.same(before, host:sql(query))
    lua(host, "return people:keep('same', { age = 4.0 })") -- not the same as 4
    assert.not_same(before, host:sql(query))
  end)

  it("are forgotten by the connection that kept them alone", function()
    local reference = lua(host, "return people:keep('gone', { name = 'Ann' })")
    local code = ("local ok, why = people:forget '%s' return ok or why"):format(reference)
    assert.equal("people: another connection has kept that person", (lua(host, code, "/b")))
    assert.is_true((lua(host, code)))
    assert.equal("people: nobody is kept under that reference", (lua(host, code)))
    assert.equal("people: nobody is kept under that reference", (lua(host, ("return select(2, people:details '%s')"):format(reference))))
    assert.same({}, host:sql(("SELECT 1 FROM kv WHERE key = '%s'"):format(reference)))
  end)

  it("are shown only where the configuration says so, and each reading is logged", function()
    local reference = lua(host, "return people:keep('shown', { name = 'Mallory Quux' })")
    assert.same({ name = "Mallory Quux" }, (lua(host, ("return people:details '%s'"):format(reference))))
    host:wait_text([["plugin":"a","reference":"]] .. reference .. [[","call":"a request's handler","of":"/probe"]])
    local other = lua(host, "return people:keep('shown', { name = 'Ann' })", "/b")
    local why = lua(host, ("return select(2, people:details '%s')"):format(other), "/b")
    assert.equal("people: this connection may not read details: its `people` in neap.lua is not true", why)
    assert.equal("people: nobody is kept under that reference", (lua(host, ("return select(2, people:details '%s')"):format(other))))
    assert.equal("people: that is no reference", (lua(host, "return select(2, people:details 'Ann')")))
    assert.is_nil(host:read():find("Mallory", 1, true))
  end)

  it("do not blot out what the log names a call by", function()
    local reference = lua(host, "local r = people:reference 'short' return people:keep('short', { digit = r:sub(5, 7), who = 'face' })", "/b")
    assert.equal("face", (lua(host, ("return people:details('%s').who"):format(reference), "/face")))
    host:wait_text('"plugin":"face","reference":"' .. reference .. '","call":"a request\'s handler","of":"/face/probe"')
    host:request("POST", "/face/probe", ("local d = people:details '%s' error('of ' .. d.digit)"):format(reference))
    host:wait_text '"plugin":"face","generation":"1","route":"/face/probe"'
    assert.matches("probe:1: of %*%*%*", host:read())
  end)

  it("misused, say what is wrong", function()
    local function wrong(text) return (lua(host, "return select(2, pcall(function() " .. text .. " end))")) end
    assert.matches("plugin.people:keep: tags has to be a string, a number or a boolean, or json.null to remove it, got a table",
      wrong "people:keep('x', { tags = {} })")
    assert.matches("plugin.people:keep: details need names, got a number", wrong "people:keep('x', { 'Ann' })")
    assert.matches("the key has to be of 1 to 4096 bytes", wrong "people:keep('', {})")
    assert.matches("the key has to be of 1 to 4096 bytes", wrong "people:keep(('x'):rep(4097), {})")
    assert.matches("at most 100 details", wrong "local t = {} for i = 1, 101 do t['f' .. i] = i end people:keep('x', t)")
    assert.matches("longer than 65536 bytes", wrong "people:keep('x', { name = ('x'):rep(70000) })")
    assert.matches("longer than 64 bytes", wrong "people:keep('x', { [('x'):rep(65)] = 1 })")
    assert.matches("does not show \"b\"", wrong "people:reference('x', 'b')")
    assert.equal("people: nobody is kept under that reference", (lua(host, "return select(2, people:details(people:reference 'x'))")))
  end)

  it("kept by many calls at once lose no field", function()
    local jobs = {}
    for i = 1, 24 do
      jobs[i] = bed.start { "curl", "-s", "-d", ('{"field%d":%d}'):format(i, i), "-H", "Content-Type: application/json", host.url .. "/keep/crowd" }
    end
    for _, j in ipairs(jobs) do j:wait() end
    local n = 0
    for _ in pairs(lua(host, "return people:details(people:reference 'crowd')")) do n = n + 1 end
    assert.equal(24, n)
  end)

  it("are out of the log and the errors of the calls that keep or read them", function()
    local reference = lua(host, ("return people:keep('logged', { name = '%s', card = '%s' })"):format(NAME, CARD))
    host:request("POST", "/probe", ("local d = people:details '%s' plugin:log('read ' .. d.name, { card = d.card }) error('of ' .. d.name)"):format(reference))
    host:wait_text "of ***"
    host:wait_text "read ***"
    host:request("POST", "/probe", ("people:keep('logged', { name = 'Zeta Omega' }) error 'about Zeta Omega'"))
    host:wait_text "about ***"
    for _, text in ipairs { NAME, CARD, "Zeta" } do assert.is_nil(host:read():find(text, 1, true), text) end
  end)
end)

describe("what a person's details are read by", function()
  local host
  setup(function() host = bed.host { config = CONFIG, plugins = { ["vendors/probe.lua"] = probe } } end)
  teardown(function() host:stop() end)

  it("is named in the log: a command, a streamed answer, a job", function()
    local reference = lua(host, "return people:keep('r', { name = 'Wulfstan Aberth' })")
    local out, code = bed.run { bed.neap, "call", "a", "look", "reference=" .. reference, "--store", host.store }
    assert.equal(0, code, out)
    assert.matches("Wulfstan Aberth", out)
    host:wait_text('"reference":"' .. reference .. '","call":"a command","of":"look"')
    local _, body = host:request("GET", "/list/" .. reference)
    assert.equal(("Wulfstan Aberth\n"):rep(300), body)
    host:wait_text('"reference":"' .. reference .. '","call":"a streamed answer"')
    assert.is_nil(host:read():find("Wulfstan", 1, true))
  end)

  it("may do so from the moment on at which the configuration says so, and no longer than that", function()
    local reference = lua(host, "return people:keep('s', { name = 'Ann' })", "/b")
    local code = ("return people:details '%s' ~= nil"):format(reference)
    assert.is_false((lua(host, code, "/b")))
    local config = bed.read(host.folder .. "/neap.lua")
    bed.replace(host.folder .. "/neap.lua", (config:gsub('mount = "/b"', 'mount = "/b", people = true')))
    bed.wait("it to be let", function() return (lua(host, code, "/b")) end)
    bed.replace(host.folder .. "/neap.lua", config)
    bed.wait("it not to be let", function() return not (lua(host, code, "/b")) end)
  end)

  it("has to be told apart by true or false", function()
    bed.write(host.folder .. "/wrong.lua", ('return { plugins = %q, connections = { { "probe", people = "yes" } } }'):format(host.plugins))
    local out, code = bed.run { bed.neap, "check", host.folder .. "/wrong.lua" }
    assert.equal(1, code)
    assert.matches("connections%[1%].people: expected true or false", out)
  end)
end)

describe("an operator", function()
  local host
  setup(function() host = bed.host { config = CONFIG, plugins = { ["vendors/probe.lua"] = probe } } end)
  teardown(function() host:stop() end)

  local function neap(...) return bed.run { bed.neap, ... } end

  it("counts people, is shown one, and forgets one", function()
    local reference = lua(host, "return people:keep('patient:7', { name = 'Godric Thegn', ward = 3 })")
    lua(host, "return people:keep('patient:8', { name = 'Ann' })")
    assert.equal("2 people\n", (neap("people", "--store", host.store)))
    local out, code = neap("people", reference, host.folder)
    assert.equal(0, code, out)
    assert.matches("key +patient:7\n", out)
    assert.matches("name +Godric Thegn\n", out)
    assert.matches("ward +3\n", out)
    host:wait_text('"event":"details shown","reference":"' .. reference .. '","user":"')
    assert.equal("forgotten\n", (neap("people", reference, "--forget", "--store", host.store)))
    host:wait_text('"event":"a person was forgotten","reference":"' .. reference)
    out, code = neap("people", reference, "--store", host.store)
    assert.same({ "neap: nobody is kept under " .. reference .. "\n", 1 }, { out, code })
    assert.equal("1 person\n", (neap("people", "--store", host.store)))
    assert.is_true((lua(host, ("return people:details '%s' == nil"):format(reference))))
    out, code = neap("people", "p_12", "--store", host.store)
    assert.equal(1, code)
    assert.matches("expected a reference", out)
    assert.is_nil(host:read():find("Godric", 1, true))
  end)

  it("sees of a request what it is about, and what it held only on demand", function()
    local function last(target, body, headers)
      host:request("POST", target, body, headers)
      return tostring(host:sql "select max(id) as id from inbox"[1].id)
    end
    local id = last("/session/tok-Leofric?hint=Eadgyth", '{"x":"Sweyn"}', { authorization = "Bearer let-me-in" })
    local out = neap("request", id, "--store", host.store)
    assert.matches("route +/session/{token}\n", out)
    assert.matches("outcome +done\n", out)
    for _, text in ipairs { "Leofric", "Eadgyth", "Sweyn", "authorization" } do
      assert.is_nil(out:find(text, 1, true), text)
      if text ~= "authorization" then assert.equal("", (files_with(host, text))) end -- which the plugin's source holds
    end
    local came = host:command("request", id, "--people")[1]
    assert.equal("/session/tok-Leofric?hint=Eadgyth", came.target)
    assert.equal('{"x":"Sweyn"}', came.body)
    assert.matches("authorization: %*%*%*\n", came.headers) -- it is in the store as it came, and shown to nobody
    assert.matches("authorization: Bearer let%-me%-in\n", host:inbox("where id = " .. id)[1].headers)
    host:wait_text('"event":"details shown","request":"' .. id .. '"')
    id = last("/session/tok-Leofric", "\0\xff\1", { authorization = "Bearer no" })
    came = host:command("request", id, "--people")[1]
    assert.same({ "refused", 400, "AP8B" }, { came.outcome, came.status, came.body_base64 })
    assert.equal("\0\xff\1", host:inbox("where id = " .. id)[1].body)
  end)

  it("finds in clear what is nobody's", function()
    host:request("POST", "/open?note=Tostig", { level = 4 })
    local row = host:inbox "order by id desc limit 1"[1]
    assert.same({ false, "/open?note=Tostig", '{"level":4}' }, { row.sealed, row.target, row.body })
    local list = host:command("request", tostring(row.id))
    assert.same({ "/open?note=Tostig" }, { list[1].target, list[1].body })
    assert.equal('{"level":4}', host:command("request", tostring(row.id), "--people")[1].body)
    host:request("POST", "/open?note=Tostig&access_token=Harald", { level = 4 }, { ["X-Api-Key"] = "Harthacnut", ["X-Plain"] = "Svein" })
    local kept = host:inbox "order by id desc limit 1"[1]
    assert.equal("/open?note=Tostig&access_token=Harald", kept.target)
    assert.matches("X%-Api%-Key: Harthacnut\n", kept.headers)
    for _, args in ipairs { { "request", tostring(kept.id) }, { "request", tostring(kept.id), "--people" }, { "explain", "q" .. kept.id },
      { "explain", "q" .. kept.id, "--people" } } do
      local text = bed.run { bed.neap, args[1], args[2], args[3] or "--json", "--store", host.store }
      assert.truthy(text:find("/open?note=Tostig&access_token=***", 1, true), text)
      assert.is_nil(text:find("Harald", 1, true) or text:find("Harthacnut", 1, true), text)
      assert.equal(args[3] ~= nil, text:find("Svein", 1, true) ~= nil)
    end
  end)

  it("does not, where a detail is declared anywhere", function()
    host:request("POST", "/asked?card=Hereward", "")
    host:request("POST", "/batch", '[{"deep":{"pin":"Waltheof"}}]', { ["content-type"] = "application/json" })
    for _, row in ipairs(host:inbox "order by id desc limit 2") do assert.is_true(row.sealed) end
    for _, text in ipairs { "Hereward", "Waltheof" } do assert.equal("", (files_with(host, text))) end
  end)

  it("is told where there is no such request, or none is named", function()
    local out, code = neap("request", "999999", "--store", host.store)
    assert.equal(1, code)
    assert.matches("there is no request 999999", out)
    out, code = neap("request", "x", "--store", host.store)
    assert.equal(2, code)
    assert.matches('expected the number of a request, got "x"', out)
  end)

  it("notices where a kept request was moved to another's place", function()
    host:request("POST", "/session/one", "first", { authorization = "Bearer let-me-in" })
    local first = host:sql("select max(received) ms from inbox")[1].ms -- a place is a connection, a moment and a part
    bed.wait("another moment", function() return require "socket".gettime() * 1000 >= first + 1 end)
    host:request("POST", "/session/two", "second", { authorization = "Bearer let-me-in" })
    local rows = host:inbox "order by id desc limit 2"
    host:stop()
    bed.run { "sqlite3", host.store, ("update inbox set body = (select body from inbox where id = %d) where id = %d"):format(rows[1].id, rows[2].id) }
    host:begin()
    local came = host:command("request", tostring(rows[2].id), "--people")[1]
    assert.matches("does not open", came.body)
    assert.matches("authorization", came.headers)
  end)
end)

describe("what is sealed in plugin.store", function()
  local host
  setup(function() host = bed.host { config = CONFIG, plugins = { ["vendors/probe.lua"] = probe } } end)
  teardown(function() host:stop() end)

  it("comes back, within the call and later, and is nobody's to see", function()
    lua(host, "store:put('token', { access = 'tok-Aethelred', n = 4 }, '1h', 'sealed') return 1")
    assert.same({ access = "tok-Aethelred", n = 4 }, (lua(host, "return store:get 'token'")))
    assert.same({ "tok-Ecgberht" }, { lua(host, "store:put('own', 'tok-Ecgberht', nil, 'sealed') return store:get 'own'") })
    lua(host, "store:put('clear', 'tok-Visible') return 1")
    assert.equal("", (files_with(host, "Aethelred")))
    assert.equal("", (files_with(host, "Ecgberht")))
    assert.not_equal("", (files_with(host, "tok-Visible"))) -- or else the look into the files shows nothing
    assert.same({ { t = "blob" } }, host:sql "SELECT typeof(value) AS t FROM kv WHERE key = 'token'")
  end)

  it("is out of the log of the calls that write or read it", function()
    host:request("POST", "/probe", "store:put('k', { secret = 'tok-Offa-of-Mercia' }, nil, 'sealed') plugin:log 'wrote tok-Offa-of-Mercia'")
    host:wait_text "wrote ***"
    host:request("POST", "/probe", "local t = store:get 'k' error('with ' .. t.secret)")
    host:wait_text "with ***"
    assert.is_nil(host:read():find("Offa", 1, true))
  end)

  it("says what else cannot stand there", function()
    assert.matches('only "sealed" can stand, got "sealt"', (lua(host, "return select(2, pcall(store.put, store, 'k', 1, nil, 'sealt'))")))
  end)

  it("does not open at another place", function()
    lua(host, "store:put('here', 'tok-Cnut', nil, 'sealed') return 1")
    host:stop()
    bed.run { "sqlite3", host.store, "UPDATE kv SET value = (SELECT value FROM kv WHERE key = 'here') WHERE key = 'clear'" }
    host:begin()
    assert.matches("clear: it does not open", (lua(host, "return select(2, pcall(store.get, store, 'clear'))")))
    assert.equal("tok-Cnut", (lua(host, "return store:get 'here'")))
  end)
end)

describe("the key file", function()
  local host, folder
  setup(function()
    host = bed.host { config = CONFIG, plugins = { ["vendors/probe.lua"] = probe } }
    folder = host.folder
    lua(host, "store:put('token', 'tok-Athelstan', nil, 'sealed') return people:keep('p', { name = 'Ann' })")
  end)
  teardown(function() host:stop() end)

  local function refused() return bed.run { bed.neap, "run", folder .. "/neap.lua" } end

  it("is made at the first start, said once, and a restart reads what was sealed", function()
    host:wait_text "a key file was made"
    assert.equal("600\n", (bed.run { "stat", "-c", "%a", folder .. "/neap.db.key" }))
    assert.matches("^%x+\n$", bed.read(folder .. "/neap.db.key"))
    host:restart()
    assert.equal("tok-Athelstan", (lua(host, "return store:get 'token'")))
    assert.same({ name = "Ann" }, (lua(host, "return people:details(people:reference 'p')")))
    assert.is_nil(host:read():find("a key file was made", 1, true))
    host:restart(9)
    assert.equal("tok-Athelstan", (lua(host, "return store:get 'token'")))
  end)

  it("lost, replaced or open to others, is not got around", function()
    host:stop()
    local key = folder .. "/neap.db.key"
    local text = bed.read(key)
    os.rename(key, key .. ".away")
    local out, code = refused()
    assert.equal(1, code)
    assert.matches("neap.db.key is missing, and this store is sealed with it: restore it from its backup", out)
    assert.is_nil(io.open(key))
    bed.write(key, ("00"):rep(32))
    os.execute("chmod 600 " .. key)
    out, code = refused()
    assert.equal(1, code)
    assert.matches("is not the one that this store is sealed with", out)
    bed.write(key, text)
    os.execute("chmod 640 " .. key)
    out, code = refused()
    assert.equal(1, code)
    assert.matches("can be read or written by others %(mode 640%): chmod 600", out)
    os.execute("chmod 600 " .. key)
    host:begin()
    assert.equal("tok-Athelstan", (lua(host, "return store:get 'token'")))
  end)

  it("lost for good, is given up as the manual says, and the rest of the store is there still", function()
    host:request("POST", "/keep/lost", { name = "Ann" })
    lua(host, "store:put('clear', 7) return 1")
    host:stop()
    os.remove(folder .. "/neap.db.key")
    local manual = bed.read "docs/operating.md"
    local statement = assert(manual:match 'sqlite3 neap%.db "(DELETE FROM kv [^"]*)"')
    assert.equal("", (bed.run { "sqlite3", host.store, statement }))
    host:begin()
    host:wait_text "a key file was made"
    assert.same({ true, 7 }, { lua(host, "return store:get 'token' == nil, store:get 'clear'") })
    assert.equal("0 people\n", (bed.run { bed.neap, "people", "--store", host.store }))
    lua(host, "store:put('token', 'tok-Athelstan', nil, 'sealed') return 1")
  end)

  it("can be at another place", function()
    host:stop()
    local away = bed.folder()
    os.rename(folder .. "/neap.db.key", away .. "/ward.key")
    local config = bed.read(folder .. "/neap.lua")
    bed.write(folder .. "/neap.lua", (config:gsub("lanes = 2", ("key = %q, lanes = 2"):format(away .. "/ward.key"))))
    host:begin()
    assert.equal("tok-Athelstan", (lua(host, "return store:get 'token'")))
    bed.write(folder .. "/neap.lua", config)
  end)
end)
