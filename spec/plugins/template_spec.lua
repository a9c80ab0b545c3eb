-- plugins/lib/template.lua: what is put in is escaped, what is wrong is told before the first message comes.
package.path = "plugins/lib/?.lua;" .. package.path
local json = require "neap.json"
local template = require "template"

describe("a template", function()
  local message = { id = "m-1", device = "SN-1", source = "low", destination = "desk", created = 1000, attempt = 2, json = "…",
    data = { title = 'He said "no"\\\n', n = 5, f = 5.6, yes = true, no = false, at = 1772352000000, null = json.null, far = math.maxinteger,
      device = "of the body", reading = { value = 5.26, tags = { "a", "b" } }, evil = '"} , "x": {"' } }
  local function fill(text, kind, m) return assert(template.compile(text, kind or "application/json"))(m or message) end

  it("puts in fields of the body, and the message's own", function()
    assert.equal("m-1 2 low desk 1000", fill("{{id}} {{ attempt }} {{source}} {{destination}} {{created}}", "text/plain"))
    assert.equal("of the body 5.26", fill("{{device}} {{reading.value}}", "text/plain"))
    assert.equal("SN-1", fill("{{device}}", "text/plain", { device = "SN-1", data = {} }))
  end)

  it("knows in JSON whether it stands inside of a string", function()
    assert.equal([[{"a": "x He said \"no\"\\\n y", "b": "He said \"no\"\\\n", "n": 5, "t": true, "f": false, "r": ["a","b"]}]],
      fill [[{"a": "x {{title}} y", "b": {{title}}, "n": {{n}}, "t": {{yes}}, "f": {{no}}, "r": {{reading.tags}}}]])
    assert.equal([["\"{{n}} 5"]], (fill([["\"{{evil?}} {{n}}"]], nil, { data = { evil = "{{n}}", n = 5 } })))
  end)

  it("lets no value become more than a value", function()
    assert.same({ a = message.data.evil, b = message.data.evil }, json.decode(fill [[{"a": "{{evil}}", "b": {{evil}}}]]))
    assert.equal("a=%22%7D%20%2C%20%22x%22%3A%20%7B%22&b=5.6", fill("a={{evil}}&b={{f}}", "application/x-www-form-urlencoded"))
    assert.equal("<a>&quot;} , &quot;x&quot;: {&quot;</a>", fill("<a>{{evil}}</a>", "application/xml"))
    assert.equal("<a b='&lt;&amp;&gt;&#39;'/>", fill("<a b='{{x}}'/>", "text/html", { data = { x = "<&>'" } }))
    assert.equal('He said "no"\\ ', fill("{{title}}", "header"))
    assert.equal('a\r b', (fill("{{x}}", "text/plain", { data = { x = "a\r b" } })))
    assert.equal('a  b ', (fill("{{x}}", "header", { data = { x = "a\r\nb\127" } })))
  end)

  it("writes times and decimals", function()
    assert.equal("2026-03-01T08:00:00Z 1772352000 5.3 5.60 5",
      fill("{{at:iso}} {{at:unix}} {{reading.value:1}} {{f:2}} {{n:0}}", "text/plain"))
    assert.equal([[{"v": 5.60, "s": "5.60", "t": "2026-03-01T08:00:00Z"}]], fill [[{"v": {{f:2}}, "s": "{{f:2}}", "t": {{at:iso}}}]])
  end)

  it("says which field is missing, unless it may be", function()
    for text, why in pairs { ["{{nothing}}"] = 'no field "nothing"', ["{{reading.nothing}}"] = 'no field "reading.nothing"',
      ["{{title.x}}"] = 'no field "title.x"', ["{{null}}"] = 'no field "null"', ["{{title:1}}"] = 'the field "title" is not a number',
      ["{{f:iso}}"] = 'the field "f" is not a time in ms', ["{{far:iso}}"] = 'the field "far" is not a time in ms',
      ["{{far:unix}}"] = 'the field "far" is not a time in ms', ["{{json}}"] = 'no field "json"', ["{{reading.id}}"] = 'no field "reading.id"' } do
      local filled, said = fill(text, "text/plain")
      assert.is_nil(filled)
      assert.truthy(said:find(why, 1, true), said)
    end
    assert.equal([[{"a": null, "b": "", "c": null}]], fill [[{"a": {{nothing?}}, "b": "{{nothing?}}", "c": {{null:iso?}}}]])
    assert.equal("[|]", fill("[{{nothing?}}|{{nothing:1?}}]", "text/plain"))
    assert.equal("[null]", fill "[{{nothing:1?}}]")
  end)

  it("says what is wrong with it when it is read", function()
    for text, why in pairs { ["{{"] = 'not followed by "}}"', ["a {{b"] = 'not followed by "}}"', ["{{}}"] = "no place", ["{{1x}}"] = "no place",
      ["{{a..b}}"] = "no place", ["{{a.}}"] = "no place", ["{{a | b}}"] = "after the field", ["{{a:b}}"] = 'no format "b"',
      ["{{a:12}}"] = 'no format "12"', ["{{os.execute('x')}}"] = "after the field" } do
      local fn, said = template.compile(text, "text/plain")
      assert.is_nil(fn, text)
      assert.truthy(said:find(why, 1, true), text .. ": " .. said)
    end
    for _, text in ipairs { '{"a": {{b}}', '{"a": x{{b}}}', '{ {{a}}: 1}', '"{{a}}', "" } do
      local fn, said = template.compile(text, "application/fhir+json; charset=utf-8")
      assert.is_nil(fn, text)
      assert.truthy(said:find "JSON", said)
    end
  end)
end)
