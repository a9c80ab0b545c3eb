-- Records what a plugin asks of an API, and what is answered, for `neap test` to play: t.replay.
--   RECORD=https://api.fjordco.example neap run examples/recorder
-- Then the plugin's setting of that API's address is made http://127.0.0.1:8090/api, and when it has asked:
--   curl -s http://127.0.0.1:8090/recording > fjordco.http
return {
  listen = "127.0.0.1:8090",
  store = "neap.db",
  connections = { { "recorder", url = env "RECORD" } },
}
