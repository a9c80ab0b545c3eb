-- neap types: what it writes is what the source says, can be read as LuaCATS, and is what plugins are really given.
package.path = "./spec/tools/?.lua;" .. package.path
local bed = require "bed"
local luacats = require "luacats"
local luafields = require "luafields"
local luatypes = require "luatypes"

local names = { "plugin", "shapes", "crypto", "file", "http", "json", "log", "mqtt", "smtp", "time", "webhooks", "test" }

describe("the types", function()
  local types -- of all files together
  setup(function()
    types = luatypes.new()
    for _, name in ipairs(names) do types:read("core/types/" .. name .. ".lua") end
  end)

  it("are what `make docs` makes of the source, file by file", function()
    local folder = bed.folder()
    local out, code = bed.run { bed.tools .. "/lua", "spec/tools/types.lua", folder }
    assert.equal(0, code, out)
    local made = bed.run { "ls", folder }
    assert.equal(made, bed.run { "ls", "core/types" })
    for name in made:gmatch "%S+" do assert.truthy(bed.read(folder .. "/" .. name) == bed.read("core/types/" .. name), name .. ": make docs") end
  end)

  it("are written where only the program is, again and again, and over nothing else", function()
    local folder = bed.folder()
    for _ = 1, 2 do
      local out, code = bed.run({ bed.neap, "types", "a/b" }, { cwd = folder })
      assert.equal(0, code, out)
      for _, name in ipairs(names) do
        assert.truthy(bed.read("core/types/" .. name .. ".lua") == bed.read(folder .. "/a/b/neap/" .. name .. ".lua"), name)
      end
    end
    bed.write(folder .. "/types/neap/http.lua", "mine")
    local out, code = bed.run({ bed.neap, "types" }, { cwd = folder })
    assert.equal(1, code)
    assert.matches("types/neap/http.lua: is there, and neap has not written it", out)
    assert.equal("mine", bed.read(folder .. "/types/neap/http.lua"))
  end)

  it("are Lua, and every annotation can be read; every type that is named is there", function()
    for _, name in ipairs(names) do assert(loadfile("core/types/" .. name .. ".lua")) end
    assert.same({}, types.wrong)
    assert.same({}, types:unknown())
  end)

  it("are not read where they are wrong", function()
    for _, text in ipairs { "strin g|", "{ a: }", "table<string>", "fun(a: string", "|string", "a:b", "[]" } do
      local ok, kind, rest = pcall(luacats.type, text)
      assert.truthy(not ok or rest ~= "" and kind ~= text, text)
    end
  end)

  -- A host with a plugin that tells what it is given.
  local function keys_of(table_of)
    local list = {}
    for k in pairs(table_of) do list[#list + 1] = k end
    table.sort(list)
    return list
  end

  it("have each verb of the handle and each function of the modules, and no other", function()
    local folder = bed.folder()
    bed.write(folder .. "/plugins/vendors/probe.lua", [[
      local plugin = ...
      local json = require "neap.json"
      local function names(t)
        local list = {}
        for k, v in pairs(t) do if type(v) == "function" then list[#list + 1] = k end end
        table.sort(list)
        return json.array(list)
      end
      plugin:command { "names", handler = function()
        local out = { plugin = names(plugin) }
        for _, part in ipairs { "store", "data", "people" } do out["plugin." .. part] = names(plugin[part]) end
        for _, m in ipairs { "crypto", "file", "http", "json", "log", "mqtt", "smtp", "time", "webhooks" } do out[m] = names(require("neap." .. m)) end
        out.values = json.array {}
        for _, m in ipairs { "crypto", "file", "http", "json", "log", "mqtt", "smtp", "time", "webhooks" } do
          for k, v in pairs(require("neap." .. m)) do
            if type(v) ~= "function" and type(v) ~= "table" then table.insert(out.values, m .. "." .. k) end
          end
        end
        local client = require "neap.mqtt".client { url = "mqtt://127.0.0.1" }
        out.client = json.array { client.connect and "connect", client.publish and "publish" }
        for _, part in ipairs { "rsa", "jwt" } do out["crypto." .. part] = names(require "neap.crypto"[part]) end
        return out
      end }
    ]])
    bed.write(folder .. "/plugins/vendors/probe_spec.lua", [[
      local t = require "neap.test"
      local json = require "neap.json"
      it("tells", function()
        local test = {}
        for k, v in pairs(t) do if type(v) == "function" then test[#test + 1] = k end end
        table.sort(test)
        local p = t.plugin "probe"
        local out = p:call "names"
        out.t, out.p = test, {}
        for k, v in pairs(getmetatable(p).__index) do if type(v) == "function" then table.insert(out.p, k) end end
        table.sort(out.p)
        error("<<" .. json.encode(out) .. ">>")
      end)
    ]])
    local out = bed.run({ bed.neap, "test" }, { cwd = folder })
    local real = require "neap.json".decode(out:match "<<(.*)>>")
    local values = {}
    for owner, list in pairs(types.values) do
      for name in pairs(list) do values[#values + 1] = owner .. "." .. name end
    end
    assert.same(real.values, values)
    real.values = nil
    for owner, list in pairs(real) do assert.same(list, keys_of(types.functions[owner] or {}), owner) end
    for owner in pairs(types.functions) do
      assert.truthy(real[owner] or owner == "_G" or owner == "account" or owner == "budget" or owner == "window", owner .. " is not real")
    end
    for _, name in ipairs { "describe", "it", "before_each", "after_each", "setup", "teardown" } do assert.truthy(types.functions._G[name], name) end
  end)

  it("have the options that the source takes, and no other", function()
    local function strings(path, pattern)
      local set = {}
      for name in bed.read(path):match(pattern):gmatch '"([%w_]+)"' do set[name] = true end
      return keys_of(set)
    end
    local function fields(class)
      local set = {}
      for name in pairs(types.classes[class]) do if name:find "^%a" then set[name] = true end end
      return keys_of(set)
    end
    assert.same(strings("core/lib/http_asked.c", "option_names%[%] = (%b{})"), fields "neap.HttpOptions")
    assert.same(strings("core/lib/mqtt_asked.c", "client_names%[%] = (%b{})"), fields "neap.MqttOptions")
    assert.same(strings("core/lib/mqtt_asked.c", "message_names%[%] = (%b{})"), fields "neap.MqttMessage")
    assert.same(strings("core/host/filter_compile.c", "np_filter_fields%[NP_F_COUNT%] = (%b{})"), fields "neap.Filter")
    local set = { default = true } -- it stands apart there
    for name in bed.read("core/host/schema_options.c"):match("options%[%] = (%b{})"):gmatch '{"([%w_]+)"' do set[name] = true end
    assert.same(keys_of(set), fields "neap.Field")
    for verb, class in pairs { serve = "Route", command = "Command", account = "AccountOptions", budget = "BudgetOptions", deliver = "Deliver" } do
      local known = {}
      for name in bed.read("core/host/host.lua"):match('check_options%("' .. verb .. '", t, (%b{})'):gmatch "([%a_]+) = 1" do known[name] = true end
      assert.same(keys_of(known), fields("neap." .. class), verb)
    end
  end)

  it("have the fields that readings, requests, problems, messages, devices, events and answers really have", function()
    local folder = bed.folder()
    bed.write(folder .. "/plugins/vendors/probe.lua", [[
      local plugin = ...
      local json, http, log = require "neap.json", require "neap.http", require "neap.log"
      local function tell(class, t)
        local list = {}
        for k in pairs(t) do list[#list + 1] = tostring(k) end
        log.info("shape", { class = class, fields = table.concat(list, " ") })
      end
      plugin:config { url = { "string", default = "https://x.example" } }
      plugin:refuse(function(problem) tell("neap.Problem", problem) return 400, {} end)
      plugin:serve { "POST /probe/{id}", query = {}, body = { a = { "integer", optional = true } }, auth = function() return { me = true } end,
        handler = function(req)
          local _ = req.headers, req.raw
          tell("neap.Request", req)
          plugin:device { device = "d", serial = "s", model = "m", name = "n", owner = "o", place = "p", status = "active", online = true, extra = { x = 1 } }
          plugin:event { device = "d", type = "alarm", key = "k", data = { y = 1 } }
          plugin:emit { device = "d", metric = "m", value = 1, unit = "u", key = "k", serial = 1, interval = "5m", trend = "flat", quality = "valid",
            extra = { z = 1 } }
          return 204
        end }
      plugin:command { "look", handler = function()
        tell("neap.Device", plugin.data:device "d")
        tell("neap.Event", plugin.data:events {}[1])
        tell("neap.Reading", plugin.data:readings { device = "d" }[1])
        local res = http.get "https://x.example"
        local _ = res.json
        tell("neap.Response", res)
        return true
      end }
    ]])
    bed.write(folder .. "/plugins/destinations/sink.lua", [[
      local log = require "neap.log";
      (...):deliver { handler = function(messages)
        local list = {}
        for k in pairs(messages[1]) do list[#list + 1] = k end
        log.info("shape", { class = "neap.Message", fields = table.concat(list, " ") })
        return true
      end }
    ]])
    bed.write(folder .. "/plugins/vendors/probe_spec.lua", [[
      local t = require "neap.test"
      it("tells", function()
        local p = t.plugin "probe"
        assert.equal(204, (p:request("POST", "/probe/1", { a = 1 })))
        assert.equal(400, (p:request("POST", "/probe/1", { a = "x" })))
        t.http("GET https://x.example/", 200, { ok = true })
        assert.is_true(p:call "look")
        t.plugin("sink"):message { text = "x" }
        local out = {}
        for _, line in ipairs(t.logged "info") do if line.text == "shape" then out[#out + 1] = "<" .. line.class .. " " .. line.fields .. ">" end end
        error(table.concat(out))
      end)
    ]])
    local out, seen = bed.run({ bed.neap, "test" }, { cwd = folder }), 0
    for class, fields in out:gmatch "<(neap%.%w+) ([^>]*)>" do
      local has = {}
      seen = seen + 1
      for name in fields:gmatch "%S+" do
        has[name] = true
        assert.truthy(types.classes[class][name], class .. " has no field " .. name)
      end
      for name, field in pairs(types.classes[class]) do assert.truthy(has[name] or field.optional, class .. "." .. name .. " is not there") end
    end
    assert.equal(7, seen, out)
  end)

  it("have all that the plugins that come with neap use, and those that neap new writes", function()
    local paths = bed.run { "find", "plugins", "core/new", "-name", "*.lua", "-not", "-path", "plugins/lib/*" }
    local n = 0
    for path in paths:gmatch "%S+" do
      assert.same({}, luafields(types, bed.read(path)), path)
      n = n + 1
    end
    assert.is_true(n > 20)
  end)

  it("find a name that is wrong", function()
    local sound = [[
      local plugin = ...
      local http, json, time = require "neap.http", require "neap.json", require "neap.time"
      local config = plugin:config { url = { "string", default = "x", about = "y" } }
      local account = plugin:account { "main", refresh = function(key, old) return old and { access = old.access .. key } end }
      plugin:serve { "POST /x", body = { a = { "array", items = { "object", fields = { b = { "string" } } } } },
        handler = function(req)
          for _, r in ipairs(plugin.data:readings { device = req.params.id }) do plugin:emit { device = r.device, metric = "m", value = r.value } end
          local token = assert(account:token())
          local res = assert(http.get { url = config.url, bearer = token.access })
          plugin.store:put("k", { json.null, res.json, time.parse(res.body) })
          return 200, { req.headers["x-y"] }
        end }
      plugin:refuse(function(problem) return problem.status, { problem.message } end)
      plugin:on({ metric = "m", below = 3 }, function(reading) plugin:send("x", { at = reading.at }) end)
      plugin:deliver { handler = function(messages, to) return http.post { url = to.url, json = messages[1].data } end }
    ]]
    assert.same({}, luafields(types, sound))
    for right, wrong in pairs {
      ["plugin:config"] = "plugin:confg", ["default ="] = "defaults =", ["refresh ="] = "refreshed =", ["body = { a"] = "bodies = { a",
      ["fields = { b"] = "field = { b", ["req.params"] = "req.parms", ["plugin.data:readings"] = "plugin.data:reading", ["{ device = req"] = "{ dev = req",
      ["r.value"] = "r.val", ['metric = "m", value'] = 'metrik = "m", value', ["account:token"] = "account:tokens", ["http.get"] = "http.got", ["bearer"] = "berer",
      ["plugin.store:put"] = "plugin.storage:put", ["json.null"] = "json.nul", ["res.json"] = "res.jsn", ["time.parse"] = "time.pars", ["res.body"] = "res.bdy",
      ["req.headers"] = "req.header", ["problem.status"] = "problem.state", ["below = 3"] = "beneath = 3", ["reading.at"] = "reading.att",
      ["messages[1].data"] = "messages[1].dat", ["plugin:send"] = "plugin:sends",
    } do
      local from, to = sound:find(right, 1, true)
      local found = luafields(types, sound:sub(1, from - 1) .. wrong .. sound:sub(to + 1))
      assert.truthy(#found > 0, wrong .. " is not found")
    end
  end)
end)
