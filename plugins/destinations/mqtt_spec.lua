-- mqtt: topics, payloads, what a refusal becomes, and what Home Assistant is told. Brokers are in spec/plugins/mqtt_spec.lua.
-- `neap test mqtt` runs it.
local t = require "neap.test"
local json = require "neap.json"

local BROKER = "PUBLISH mqtt://broker.example/"

describe("mqtt", function()
  local hub

  local function begin(settings)
    t.at "2026-03-01T08:00:00Z"
    settings = settings or {}
    settings.name, settings.url = "hub", settings.url or "mqtt://broker.example"
    hub = t.plugin("mqtt", settings)
  end
  local function reading(r)
    r.device, r.metric, r.at, r.unit = r.device or "SN-1", r.metric or "glucose", r.at or t.now(), r.unit or "mmol/L"
    r.vendor = "sinocare"
    if r.value == nil then r.value = 5.6 end
    return hub:message { reading = r }
  end
  local function state(i) return t.sent("hub")[i or 1].state end
  local function topics()
    local list = {}
    for i, asked in ipairs(t.asked(BROKER .. "*")) do list[i] = asked.url:match "^mqtt://[^/]+/(.*)$" end
    return list
  end

  it("publishes the message as JSON, with its id, under device and metric", function()
    t.http(BROKER .. "*", 200)
    begin()
    local id = reading {}
    local asked = t.asked(BROKER .. "neap/SN-1/glucose")[1]
    assert.equal(id, asked.json.message_id)
    assert.equal(5.6, asked.json.reading.value)
    assert.same({ "1", "false", "application/json", id }, { asked.headers.qos, asked.headers.retain, asked.headers["content-type"],
      asked.headers["neap-id"] })
    assert.equal("delivered", state())
  end)

  it("publishes alerts and anything else under topics of their own", function()
    t.http(BROKER .. "*", 200)
    begin { qos = 2, retain = true, prefix = "ward/3" }
    hub:message { title = "Low glucose", device = "SN-1", value = 3.1 }
    hub:message({ anything = 1 })
    assert.equal("ward/3/SN-1/alert", topics()[1])
    assert.matches("^ward/3/.*/message$", topics()[2])
    assert.same({ "2", "true" }, { t.asked(BROKER .. "*")[1].headers.qos, t.asked(BROKER .. "*")[1].headers.retain })
  end)

  it("lets no name of a device become more than one level of a topic", function()
    t.http(BROKER .. "*", 200)
    begin()
    reading { device = "a/+/#\1b%" }
    reading { device = "$SYS" }
    assert.equal("neap/a%2F%2B%2F%23%01b%25/glucose", topics()[1])
    assert.equal("neap/%24SYS/glucose", topics()[2])
  end)

  it("fills templates of topic and payload", function()
    t.http(BROKER .. "*", 200)
    begin { topic = "beds/{{reading.device}}/{{reading.metric}}", body = "{{reading.value:2}} {{reading.unit}}",
      type = "text/plain" }
    reading { device = "bed/1" }
    local asked = t.asked(BROKER .. "*")[1]
    assert.equal("beds/bed%2F1/glucose", topics()[1])
    assert.equal("5.60 mmol/L", asked.body)
    assert.equal("text/plain", asked.headers["content-type"])
  end)

  it("makes a dead letter of what a template has no field for, and of what the broker never takes", function()
    t.http(BROKER .. "*", 200)
    t.http(BROKER .. "ward/large", 149)
    begin { topic = "ward/{{reading.metric}}" }
    hub:message { title = "no reading" }
    assert.equal('topic: the message has no field "reading.metric"', t.sent("hub")[1].error)
    reading { metric = "large" }
    assert.equal("dead", state(2))
    assert.equal("the broker refuses it: Packet too large (149)", t.sent("hub")[2].error)
  end)

  it("tries again what the broker does not allow, for the settings have to be mended", function()
    t.http(BROKER .. "*", 135)
    begin()
    reading {}
    assert.equal("waiting", state())
    assert.equal("the broker refuses it: Not authorized (135), so the settings have to be mended", t.sent("hub")[1].error)
    t.http(BROKER .. "*", 200)
    t.advance "10m"
    assert.equal("delivered", state())
  end)

  it("goes by the reason that the broker gives: the message itself, the settings, or the moment", function()
    begin()
    for i, reason in ipairs { 144, 149, 153, 135, 151 } do
      t.http(BROKER .. "neap/d" .. i .. "/*", reason)
      reading { device = "d" .. i }
      local mend = (t.sent("hub")[i].error or ""):find("the settings have to be mended", 1, true) ~= nil
      assert.same({ reason, i < 4 and "dead" or "waiting", i == 4 }, { reason, state(i), mend })
    end
  end)

  it("tries again what got no acknowledgement, with the same id", function()
    t.fail(BROKER .. "*", "cut", 1)
    begin()
    local id = reading {}
    assert.equal("waiting", state())
    t.http(BROKER .. "*", 200)
    t.advance "10m"
    assert.equal("delivered", state())
    for _, asked in ipairs(t.asked(BROKER .. "*")) do assert.equal(id, asked.json.message_id) end
  end)

  it("tries again while there is no broker", function()
    t.fail(BROKER .. "*", "connect", 1)
    begin()
    reading {}
    assert.equal("waiting", state())
    assert.matches("^mqtt mqtt://broker.example: ", t.sent("hub")[1].error)
  end)

  it("sends what follows on a topic again too, where one before it is refused for a while", function()
    local busy = true
    t.http(BROKER .. "*", function(req) return busy and req.json.reading.value == 1 and 151 or 200 end)
    begin { delivery = { batch = 10, batch_wait = "5s" } }
    for i = 1, 2 do reading { value = i, at = t.now() + i } end
    reading { value = 3, metric = "temp", at = t.now() }
    t.advance "5s"
    assert.same({ "waiting", "waiting", "delivered" }, { state(1), state(2), state(3) })
    busy = false
    t.advance "10m"
    local got = {}
    for _, asked in ipairs(t.asked(BROKER .. "neap/SN-1/glucose")) do got[#got + 1] = asked.json.reading.value end
    assert.same({ 1, 2, 1, 2 }, got)
    assert.equal("delivered", state(2))
  end)

  it("keeps what a replay sends apart: another topic, not retained, and said so", function()
    t.http(BROKER .. "*", 200)
    begin { retain = true, discovery = "homeassistant" }
    hub:message({ reading = { device = "SN-1", metric = "glucose", value = 5.6, unit = "mmol/L", at = t.now() } },
      { replayed = 3, about = 1772352000000 })
    local asked = t.asked(BROKER .. "neap/SN-1/glucose/replayed")[1]
    assert.same({ 3, 1772352000000, 5.6 }, { asked.json.replayed, asked.json.about, asked.json.reading.value })
    assert.same({ "false", "3" }, { asked.headers.retain, asked.headers["neap-replayed"] })
    assert.equal(0, #t.asked(BROKER .. "homeassistant/*"))
  end)

  describe("discovery", function()
    local function config_of(i)
      for _, asked in ipairs(t.asked(BROKER .. "homeassistant/*")) do
        i = i - 1
        if i == 0 then return asked.json, asked end
      end
    end

    it("tells Home Assistant of a metric once, before its first value, retained", function()
      t.http(BROKER .. "*", 200)
      begin { discovery = "homeassistant", expire_after = "20m" }
      reading {}
      reading { at = t.now() + 1 }
      local list = topics()
      assert.equal(4, #list)
      assert.matches("^neap/status/neap%x+L0$", list[1])
      assert.matches("^homeassistant/sensor/SN%-1_glucose_%x+/config$", list[2])
      assert.same({ "neap/SN-1/glucose", "neap/SN-1/glucose" }, { list[3], list[4] })
      assert.equal("online", t.asked(BROKER .. "neap/status/*")[1].body)
      local config, asked = config_of(1)
      assert.equal("true", asked.headers.retain)
      assert.same({ "neap/SN-1/glucose", list[1], "mmol/L", "blood_glucose_concentration", "measurement", 1200 },
        { config.state_topic, config.availability_topic, config.unit_of_measurement, config.device_class, config.state_class,
          config.expire_after })
      assert.same({ identifiers = { "neap_SN-1" }, name = "SN-1", manufacturer = "sinocare" }, config.device)
      assert.equal(config.unique_id, "neap_" .. config.object_id)
    end)

    it("gives different ones different ids, and only classes that their units allow", function()
      t.http(BROKER .. "*", 200)
      begin { discovery = "homeassistant" }
      reading { device = "a b" }
      reading { device = "a_b", unit = "g/L" }
      reading { metric = "on_body", value = true }
      local one, two, three = config_of(1), config_of(2), (select(2, config_of(3)))
      assert.not_equal(one.unique_id, two.unique_id)
      assert.matches("^[%w_-]+$", one.unique_id)
      assert.is_nil(two.device_class)
      assert.matches("/homeassistant/binary_sensor/", three.url)
      assert.is_nil(three.json.unit_of_measurement)
    end)

    it("tells nothing of alerts, and delivers where it is not allowed to tell", function()
      t.http(BROKER .. "*", 200)
      t.http(BROKER .. "homeassistant/*", 135)
      begin { discovery = "homeassistant" }
      hub:message { title = "Low glucose", device = "SN-1" }
      assert.is_nil(config_of(1))
      reading {}
      assert.equal("delivered", state(2))
      reading { at = t.now() + 1 }
      assert.not_nil(config_of(2)) -- not acknowledged, so it is told again
    end)
  end)

  it("names the setting that is wrong", function()
    for setting, case in pairs {
      url = { { url = "http://broker.example" }, "url" },
      user = { { url = "mqtt://me@broker.example" }, "has a user in it" },
      path = { { url = "mqtt://broker.example/topic" }, "has a path" },
      topic = { { topic = "a/{{device" }, 'topic: "{{" is not followed by "}}"' },
      body = { { body = "{{title}", discovery = nil }, "body: " },
      both = { { body = "1", discovery = "homeassistant" }, "discovery: " },
      password = { { password = "x" }, "password: there is no user to it" },
      key = { { url = "mqtts://broker.example", key = "-----BEGIN PRIVATE KEY-----" }, "key: there is no cert to it" },
      ca = { { ca = "-----BEGIN CERTIFICATE-----" }, "cert and ca are for mqtts://" },
      keepalive = { { keepalive = "1s" }, "keepalive" },
      prefix = { { prefix = "a/#" }, "prefix" },
      wildcard = { { topic = "a/+/{{device}}" }, "setting topic" },
    } do
      case[1].url = case[1].url or "mqtt://broker.example"
      assert.has_error(function() t.plugin("mqtt", case[1]) end, case[2], setting)
    end
  end)

  it("does not repeat a password that stands in the URL", function()
    for _, url in ipairs { "mqtt://me:w0rd@broker.example", "mqtt://:w0rd@broker.example" } do
      local taken, why = pcall(t.plugin, "mqtt", { url = url })
      assert.is_false(taken)
      assert.truthy(tostring(why):find("url", 1, true), tostring(why))
      assert.is_nil(tostring(why):find("w0rd", 1, true))
    end
  end)

  it("writes JSON that is not an object as it is", function()
    t.http(BROKER .. "*", 200)
    begin()
    hub:message(json.array { 1, 2 })
    assert.equal("[1,2]", t.asked(BROKER .. "*")[1].body)
    hub:message { message_id = "the rule's own" }
    assert.equal('{"message_id":"the rule\'s own"}', t.asked(BROKER .. "*")[2].body)
  end)
end)
