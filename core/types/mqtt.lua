---@meta neap.mqtt
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.mqtt: MQTT out. mqtt.client { url = "mqtts://broker.example", … } is a broker to publish to; it connects when
---it is first needed, keeps the connection as long as the plugin's generation is in force, and makes it anew when it is
---needed and was lost. client:publish { { topic =, payload = }, … } returns when the broker has acknowledged each
---message or the time is over: a list of what became of each, true or { code, why, reason }; or nil, "what: why", and a
---code, and then nothing was sent. It looks as if it blocked, while the lane does other work. Only brokers that the
---plugin's settings name can be reached. Options of a client: url (mqtt:// or mqtts://, port 1883 or 8883 where it says
---none); user, password; cert, key, ca (PEM texts, as of neap.http); version ("5" where absent, or "3.1.1"); client_id
---(the beginning of it; neap's own where absent); keepalive (60 s where absent); inflight (messages that wait for their
---acknowledgement at once, 64 where absent); will (a message that the broker publishes when neap is gone). A message:
---topic; payload (""); qos (1 where absent); retain; content_type and properties (version 5 only).
local mqtt = {}

---What became of a message that was not acknowledged.
---@class neap.MqttRefused
---@field code "cut"|"timeout"|"refused"|"too_large"|"topic"|"qos"|"retain"|"other"
---@field why string
---@field reason? integer the broker's reason code, where it refused

---How long to wait, and on which connection.
---@class neap.MqttPublishOptions
---@field timeout? string|number a duration; 30 s where absent
---@field connection? integer as client:connect gave it: where it is another one meanwhile, all messages are "cut"

---A message to publish.
---@class neap.MqttMessage
---@field topic string without "+" and "#"
---@field payload? string
---@field qos? 0|1|2 1 where absent
---@field retain? boolean
---@field content_type? string version 5 only
---@field properties? table<string, string> user properties, version 5 only

---A broker to publish to.
---@class neap.MqttOptions
---@field url string mqtt:// or mqtts://
---@field user? string
---@field password? string
---@field cert? string the client's certificate, PEM
---@field key? string its key, PEM
---@field ca? string PEM: who is trusted, and nobody else is
---@field version? "5"|"3.1.1"
---@field client_id? string the beginning of it; lane and generation are added
---@field keepalive? string|number a duration; 60 s where absent
---@field inflight? integer messages under way at once, 64 where absent
---@field will? neap.MqttMessage what the broker publishes when neap is gone

---A broker to publish to.
---@class neap.MqttClient
---@field url string
local client = {}

---Connects where it is not.
---@param timeout? string|number a duration; 30 s where absent
---@return integer? connection
---@return string? why
---@return string? code
function client:connect(timeout) end

---Publishes in order, and waits until each has been acknowledged or refused.
---@param messages neap.MqttMessage[]
---@param options? neap.MqttPublishOptions
---@return (true|neap.MqttRefused)[]? outcomes
---@return string? why
---@return string? code
function client:publish(messages, options) end

---A broker to publish to; nothing is connected yet.
---@param options neap.MqttOptions
---@return neap.MqttClient
function mqtt.client(options) end

---A name for this plugin's connections, the same over restarts and reloads; lanes have different ones. In handlers.
---@return string # of letters and digits
function mqtt.id() end

return mqtt
