std = "lua54"
cache = false
max_line_length = 132
files["spec"] = { std = "+busted" }
files["**/neap.lua"] = { read_globals = { "env", "file" } }
