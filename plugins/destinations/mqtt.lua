-- A destination: publishes messages to an MQTT broker; what the broker has acknowledged is delivered. It can make devices known to
-- Home Assistant, by its MQTT discovery.
local plugin = ... ---@type neap.Plugin
local homeassistant = require "homeassistant"
local log = require "neap.log"
local message = require "message"
local mqtt = require "neap.mqtt"
local template = require "template"
local time = require "neap.time"

local config = plugin:config {
  url = { "string", pattern = "mqtts?://.+", about = "of the broker: mqtt://broker.example, or mqtts:// for TLS" },
  user = { "string", optional = true, min = 1 },
  password = { "secret", optional = true },
  version = { "string", default = "5", values = { "5", "3.1.1" }, about = "of the protocol" },
  client_id = { "string", optional = true, min = 1, about = "the beginning of it, where the broker wants a certain one" },
  prefix = { "string", default = "neap", min = 1, pattern = "[^+#]+", about = "how topics begin: neap/DEVICE/METRIC" },
  topic = { "string", optional = true, min = 1, pattern = "[^+#]+",
    about = "a template, as ward/{{device}}/{{reading.metric}}; in place of that" },
  body = { "string", optional = true, min = 1, about = "a template of the payload; else the message itself, as JSON" },
  type = { "string", default = "application/json", pattern = "[%w.+-]+/[%w.+-]+.*",
    about = "the payload's media type; the template escapes accordingly" },
  qos = { "integer", default = 1, min = 0, max = 2, about = "0: nobody knows whether it arrived" },
  retain = { "boolean", default = false, about = "whether the broker keeps the last message of each topic" },
  discovery = { "string", optional = true, values = { "homeassistant" }, about = "makes devices known to Home Assistant" },
  discovery_prefix = { "string", default = "homeassistant", min = 1, pattern = "[^+#]+" },
  expire_after = { "duration", optional = true, about = "discovery: a value older than that is shown as unavailable" },
  keepalive = { "duration", default = "60s" },
  inflight = { "integer", default = 64, min = 1, max = 65535, about = "messages under way at once" },
  cert = { "secret", optional = true, about = "mutual TLS: the client's certificate, PEM: file \"client.pem\"" },
  key = { "secret", optional = true, about = "its key, PEM, not encrypted; it may stand in cert" },
  ca = { "secret", optional = true, about = "PEM: the broker's certificate has to come from these, and from nobody else" },
  timeout = { "duration", default = "30s" },
}

local function client(will)
  return mqtt.client { url = config.url, user = config.user, password = config.password, version = config.version,
    client_id = config.client_id, keepalive = config.keepalive, inflight = config.inflight, cert = config.cert, key = config.key,
    ca = config.ca, will = will }
end

local function compile(setting, kind)
  if not config[setting] then return nil end
  local fill, why = template.compile(config[setting], kind)
  if not fill then error(("%s: %s"):format(setting, why), 0) end
  return function(m)
    local text, missing = fill(m)
    if not text then return nil, ("%s: %s"):format(setting, missing) end
    return text
  end
end

local fill_topic, fill_body = compile("topic", "topic"), compile("body", config.type)
if config.discovery and fill_body then
  error("discovery: Home Assistant reads the message itself: leave body out, or discovery", 0)
end
local broker = client() -- at load, so that wrong settings are told there

local function live_topic(m, kind, what)
  if fill_topic then return fill_topic(m) end
  local last = kind == "reading" and what.metric or kind == "alert" and "alert" or "message"
  return ("%s/%s/%s"):format(config.prefix, template.level(kind and what.device or m.device), template.level(last))
end

-- What a replay sends is of the past: where it stood beside the rest, the last value would be an old one.
local function topic_of(m, kind, what)
  local topic, why = live_topic(m, kind, what)
  return topic and m.replayed and topic .. "/replayed" or topic, why
end

-- The message as JSON, which tells its id in 3.1.1 too.
local function payload_of(m)
  if fill_body then return fill_body(m) end
  if m.json:sub(1, 1) ~= "{" or m.data.message_id ~= nil then return m.json end
  local past = m.replayed and (',"replayed":%d,"about":%d'):format(m.replayed, m.about or m.created) or ""
  return ('{"message_id":"%s"%s%s%s'):format(m.id, past, next(m.data) ~= nil and "," or "", m.json:sub(2))
end

-- What is published for a message, or nil and why it never can be.
local function item_of(m)
  local kind, what = message.read(m)
  local topic, why = topic_of(m, kind, what)
  if not topic then return nil, why end
  local payload
  payload, why = payload_of(m)
  if not payload then return nil, why end
  local properties = { ["neap-id"] = m.id, ["neap-source"] = m.source, ["neap-replayed"] = m.replayed and tostring(m.replayed) }
  return { reading = kind == "reading" and not m.replayed and what or nil, publish = { topic = topic, payload = payload,
    qos = config.qos, retain = config.retain and not m.replayed, content_type = config.type, properties = properties } }
end

-- Home Assistant: each connection says that it is there, and of each metric what it is, before its first value.
local known, online_at, announced = nil, 0, {}
local availability

local function with_will()
  availability = ("%s/status/%s"):format(config.prefix, mqtt.id())
  broker = client { topic = availability, payload = "offline", retain = true }
end

local function introduce(list, item)
  local r = item.reading
  local key = r and ("%s\0%s\0%s\0%s\0%s"):format(r.device, r.metric, type(r.value), r.unit or "", item.publish.topic)
  if not r or announced[key] ~= nil then return end
  announced[key] = false -- until it is acknowledged
  local about = { prefix = config.discovery_prefix, topic = item.publish.topic, availability = availability,
    qos = math.min(config.qos, 1), expire_after = config.expire_after }
  list[#list + 1] = { key = key, of = announced, publish = homeassistant.config(r, about) }
end

local function say_online(list, connection)
  if connection ~= known then known, announced, online_at = connection, {}, 0 end
  if time.now() - online_at < 60000 then return end
  list[#list + 1] = { online = true, publish = { topic = availability, payload = "online", qos = 1, retain = true } }
end

local function introduced(item, outcome)
  if outcome == true then
    if item.online then online_at = time.now() else item.of[item.key] = true end
    return
  end
  if item.key then item.of[item.key] = nil end
  log.warn("Home Assistant was not told of it", { topic = item.publish.topic, error = outcome.why })
end

-- What a message that was not acknowledged becomes: a dead letter, or a reason to try again.
local MEND = { auth = true, version = true, settings = true, tls = true, near = true, qos = true, retain = true }
local MEND_REASON = { [135] = true, [154] = true, [155] = true } -- not authorized; retain, qos not supported
local DEAD_REASON = { [144] = true, [149] = true, [153] = true } -- the topic, the size, the payload

local function mend(why) return why .. ", so the settings have to be mended" end

local function verdict(o)
  if o.code == "too_large" or o.code == "topic" or DEAD_REASON[o.reason] then return { dead = o.why } end
  if MEND[o.code] or MEND_REASON[o.reason] then return mend(o.why) end
  return o.why
end

-- After one that the broker refuses for a while, what follows on its topic is sent again as well, so that the order stays.
local function judge(item, outcome, stuck)
  local topic = item.publish.topic
  if outcome ~= true then
    local said = verdict(outcome)
    if type(said) == "string" and not MEND_REASON[outcome.reason] then stuck[topic] = said end
    return said
  end
  return stuck[topic] or true
end

local function fail_all(items, outcomes, why, code)
  for _, item in ipairs(items) do outcomes[item.at] = MEND[code] and mend(why) or why end
  return outcomes
end

plugin:deliver {
  batch = 100,
  handler = function(messages)
    local outcomes, items, list, texts, stuck = {}, {}, {}, {}, {}
    for i, m in ipairs(messages) do
      local item, why = item_of(m)
      if item then
        item.at = i
        items[#items + 1] = item
      else
        outcomes[i] = { dead = why }
      end
    end
    if #items == 0 then return outcomes end
    if config.discovery and not availability then with_will() end
    local connection, why, code = broker:connect(config.timeout)
    if not connection then return fail_all(items, outcomes, why, code) end
    if config.discovery then say_online(list, connection) end
    for _, item in ipairs(items) do
      if config.discovery then introduce(list, item) end
      list[#list + 1] = item
    end
    for i, item in ipairs(list) do texts[i] = item.publish end
    local done
    done, why, code = broker:publish(texts, { timeout = config.timeout, connection = connection })
    for i, item in ipairs(list) do
      local outcome = done and done[i] or { code = code, why = why }
      if item.at then outcomes[item.at] = judge(item, outcome, stuck) else introduced(item, outcome) end
    end
    return outcomes
  end,
}
