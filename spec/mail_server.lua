-- A real mail server: Debian's exim4, with a configuration of the spec's own, as whoever runs the spec, on a free port of 127.0.0.1. It delivers into a
-- maildir, which Python's email package reads: server:mails(). users neap and w0rd may send anywhere once TLS is there; others to nobody. What it says to
-- recipients: nobody@… 550, later@… 451. A text with "spam" in it is refused, one with "slow" put off.
local bed = require "bed"
local json = require "neap.json"
local socket = require "socket"

local Server = {}
Server.__index = Server

local configuration = [[
exim_user = @USER
exim_group = @GROUP
primary_hostname = mail.example
spool_directory = @FOLDER/spool
log_file_path = @FOLDER/log/%slog
pid_file_path = @FOLDER/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = @PORT
@TLS
qualify_domain = ward.example
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
message_size_limit = 1M
message_body_visible = 1M
disable_ipv6 = true
keep_environment =
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny local_parts = nobody
       message = 5.1.1 no such user
  defer local_parts = later
       message = 4.2.1 greylisted
  accept authenticated = *
  deny message = 5.7.1 relaying denied
data:
  deny condition = ${if match{$message_body}{spam}}
       message = 5.7.1 this is spam
  defer condition = ${if match{$message_body}{slow}}
       message = 4.7.1 not just now
  accept
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = @FOLDER/mail
  maildir_format
  create_directory
  envelope_to_add
  user = @USER
  group = @GROUP
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if and{{eq{$auth2}{neap}}{eq{$auth3}{w0rd}}}}
  server_advertise_condition = ${if def:tls_in_cipher}
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{neap}}{eq{$auth2}{w0rd}}}}
  server_advertise_condition = ${if def:tls_in_cipher}
]]

--- options: cert, key (paths; without them there is no TLS); smtps = true: TLS from the start; clients (a path): whose certificates clients have to have.
local function new(options)
  assert(os.execute "test -x /usr/sbin/exim4", "no exim4: make deps-test installs it")
  local root = io.popen "id -u":read "l" == "0"
  local user = root and "nobody" or io.popen "id -un":read "l"
  local group = root and "nogroup" or io.popen "id -gn":read "l"
  local server = setmetatable({ folder = bed.folder(), port = bed.free_port() }, Server)
  server.url = (options.smtps and "smtps" or "smtp") .. "://127.0.0.1:" .. server.port
  local tls = "tls_advertise_hosts ="
  if options.cert then
    for _, name in ipairs { "cert", "key", options.clients and "clients" } do bed.write(server.folder .. "/tls." .. name, bed.read(options[name])) end
    tls = "tls_advertise_hosts = *\ntls_certificate = @FOLDER/tls.cert\ntls_privatekey = @FOLDER/tls.key"
    if options.clients then tls = tls .. "\ntls_verify_hosts = *\ntls_verify_certificates = @FOLDER/tls.clients" end
    if options.smtps then tls = tls .. "\ntls_on_connect_ports = @PORT" end
  end
  local text = configuration:gsub("@TLS", tls):gsub("@USER", user):gsub("@GROUP", group):gsub("@FOLDER", server.folder):gsub("@PORT", server.port)
  os.execute(("mkdir -p %s/spool %s/log %s/mail/new %s/mail/cur %s/mail/tmp"):gsub("%%s", server.folder))
  if root then os.execute(("chown -R %s:%s %s"):format(user, group, server.folder)) end
  bed.write(server.folder .. "/exim.conf", text)
  os.execute(("chmod 644 %s/exim.conf"):format(server.folder))
  server:begin()
  return server
end

function Server:begin()
  self.program = bed.start { "/usr/sbin/exim4", "-C", self.folder .. "/exim.conf", "-bdf", "-q5m" }
  bed.wait("exim4 to listen", function()
    local s = socket.connect("127.0.0.1", self.port)
    if not s then
      self.program:read()
      assert(not self.program.ended, self.program.output)
      return false
    end
    s:close()
    return true
  end)
end

function Server:stop(signal) self.program:stop(signal or 15) end

--- All mails that were delivered, as email_read.py shows them.
function Server:mails()
  local out, code = bed.run { "python3", bed.root .. "/spec/plugins/email_read.py", self.folder .. "/mail" }
  assert(code == 0, out)
  local list = {}
  for line in out:gmatch "[^\n]+" do list[#list + 1] = assert(json.decode(line)) end
  return list
end

function Server:wait(n)
  local list
  bed.wait(n .. " mails", function()
    list = self:mails()
    return #list >= n
  end)
  return list
end

return new
