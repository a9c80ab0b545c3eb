-- One neap between four vendors. What comes in by one vendor's dialect is read by another's:
--   a Tuya cloud is polled, and its readings are pushed on to a Neuron building platform, in batches;
--   a Sinocare cloud pushes a ward's glucose sensors, and the patients' app reads them as if they were Dreisam's.
-- `sh examples/crossing/run` plays the two clouds and fills in what stands as env here.
return {
  listen = "127.0.0.1:8080",
  store = "neap.db",
  plugins = "../../plugins",

  connections = {
    { "tuya", name = "home", url = env "TUYA_URL", client_id = env "TUYA_CLIENT_ID", secret = env "TUYA_SECRET",
      since = env "TUYA_SINCE", poll = "5s", per_second = 50, per_month = 0 },
    { "neuron", name = "campus", url = env "NEURON_URL", secret_id = env "NEURON_SECRET_ID", key = env "NEURON_KEY",
      public_key = env "NEURON_PUBLIC_KEY", building = env "NEURON_BUILDING", pull = false },
    { "sinocare", name = "ward-3" },
    -- the patients' app: a sensor is the patient's whose number its push carried
    { "dreisam", name = "app", shows = "ward-3" },
  },
  rules = { { "forward", to = "campus", connection = "home" } },
}
