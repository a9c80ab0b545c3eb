-- Runs busted on the files given, inside build/tools/lua, which has neap's own modules; closes with "N passed, N failed".
package.path = "/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua;./spec/?.lua;" .. package.path
package.cpath = "/usr/lib/x86_64-linux-gnu/lua/5.4/?.so;" .. package.cpath
_G.arg = { [0] = "busted", "--ignore-lua", "--output", "spec/output.lua", "--helper", "spec/helper.lua", "--pattern", "_spec", table.unpack(arg) }
require "busted.runner" { standalone = false }
