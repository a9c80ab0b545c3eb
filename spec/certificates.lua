-- Certificates for a spec, by the openssl program: an authority, a server's for 127.0.0.1 and a client's that it has signed, and one
-- that somebody else has signed. Returns path(name): "ca.pem", "server.pem", "server.key", "client.pem", "client.key", "stranger.pem", …
local bed = require "bed"

local function openssl(...)
  local out, code = bed.run { "openssl", ... }
  assert(code == 0, out)
end

return function()
  local folder = bed.folder()
  local function path(name) return folder .. "/" .. name end
  local function make(name, signed_by, ...)
    local signing = signed_by and { "-CA", path(signed_by .. ".pem"), "-CAkey", path(signed_by .. ".key") } or {}
    local more = { ... }
    table.move(signing, 1, #signing, #more + 1, more)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" .. name,
      "-keyout", path(name .. ".key"), "-out", path(name .. ".pem"), table.unpack(more))
  end
  make "ca"
  make "elsewhere"
  make("server", "ca", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
  make("client", "ca", "-addext", "basicConstraints=critical,CA:FALSE")
  make("stranger", "elsewhere", "-addext", "basicConstraints=critical,CA:FALSE")
  return path
end
