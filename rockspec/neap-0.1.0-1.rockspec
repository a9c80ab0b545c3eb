rockspec_format = "3.0"
package = "neap"
version = "0.1.0-1"
source = { url = "." }
description = {
  summary = "Plugins of neap: vendors, rules and destinations for device readings",
  detailed = "The Lua side of neap, a small C host for Lua plugins that move device readings between vendors' clouds, rules and destinations. It runs inside neap.",
  license = "MIT",
}
dependencies = { "lua >= 5.4, < 5.5" }
build = {
  type = "none",
  install = {
    lua = {
      ["neap.plugins.vendors.sinocare"] = "plugins/vendors/sinocare.lua",
      ["neap.plugins.vendors.elexir"] = "plugins/vendors/elexir.lua",
      ["neap.plugins.rules.low-glucose"] = "plugins/rules/low-glucose.lua",
      ["neap.plugins.destinations.webhook"] = "plugins/destinations/webhook.lua",
      ["neap.plugins.destinations.log"] = "plugins/destinations/log.lua",
    },
  },
}
