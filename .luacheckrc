std = "lua54"
cache = false
self = false
max_line_length = 132
files["spec"] = { std = "+busted" }
files["**/*_spec.lua"] = { std = "+busted" }
files["**/neap.lua"] = { read_globals = { "env", "file" } }
files["spec"].max_line_length = false
