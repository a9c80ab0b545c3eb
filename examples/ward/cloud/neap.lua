-- The simulated cloud of the sensors' vendor: a neap with one plugin, that pushes to the ward.
return {
  listen = "127.0.0.1:0", -- nobody calls it
  lanes = 1,
  store = "neap.db",
  plugins = "plugins",
  connections = {
    { "sensor-cloud", name = "cloud",
      url = env("WARD_URL", "http://127.0.0.1:8080/sinocare/push"),
      speed = tonumber(env("WARD_SPEED", "180")), -- three minutes of the patients' in a second: a reading of each
      patients = tonumber(env("WARD_PATIENTS", "50")) },
  },
}
