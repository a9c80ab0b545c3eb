-- Runs busted on the files given, inside build/tools/lua, which has neap's own modules; closes with "N passed, N failed".
package.path = "./spec/?.lua;/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua;" .. package.path
package.cpath = "/usr/lib/x86_64-linux-gnu/lua/5.4/?.so;" .. package.cpath
local files = { table.unpack(arg) }
arg = { [0] = "busted", "--output", "spec/output.lua", "--no-auto-insulate", "--helper", "spec/helper.lua", "--pattern", "_spec", table.unpack(files) }
require "busted.runner" { standalone = false }
