-- The nurses' desk: a neap with one plugin, that prints the alerts which are posted to it.
return {
  listen = "127.0.0.1:8090",
  lanes = 1,
  store = "neap.db",
  plugins = "plugins",
  connections = { { "desk" } },
}
