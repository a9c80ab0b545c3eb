-- A ward of 50 glucose sensors. Sinocare's cloud pushes their readings here, a rule picks out the low ones, a webhook is told.
-- Save a change of this file, or of a file in the plugins folder, and it is in force within a second; a broken one changes nothing.
return {
  -- Where requests are taken, where everything is kept, and where the plugins are. A relative path is relative to this file.
  listen = "127.0.0.1:8080",
  store = "neap.db",
  plugins = "../../plugins",
  unlisted = false, -- that folder has more: only what is listed here is in force

  -- Where readings come from: plugins/vendors/sinocare.lua serves POST /sinocare/push. The name is what readings are marked with.
  connections = { { "sinocare", name = "ward-3", unit = "mmol/L" } },

  -- What is done with them: plugins/rules/low-glucose.lua. Try limit = 5.5, save, and watch.
  -- It tells of one device at most once in `again`, by default 15m; here that much of the patients' time passes in 5 s.
  rules = { { "low-glucose", to = "desk", limit = 3.9, again = "5s" } },

  -- Who is told: plugins/destinations/webhook.lua posts to the nurses' desk. NEAP_DESK tells of another place, if it is set.
  destinations = { desk = { "webhook", url = env("NEAP_DESK", "http://127.0.0.1:8090/alerts") } },
}
