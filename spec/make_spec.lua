-- make deps: what is missing is installed, also where make runs several recipes at once; with an apt-get that does no more than say so.
local bed = require "bed"

-- Fails where another one is under way, as apt-get does; waits a little for another one to come. What it installs starts a service, which lives on.
local APT = [[
#!/bin/sh
cd %s || exit 1
mkdir busy || { echo "E: Could not get lock /var/lib/dpkg/lock-frontend" >&2; exit 100; }
echo "$*" >>asked
sleep 0.2
case "$*" in *install*) for p in "$@"; do echo "$p" >>installed; done; sleep 30 >/dev/null 2>&1 & echo $! >>services ;; esac
rmdir busy
]]
local DPKG = [[
#!/bin/sh
for package in "$@"; do :; done
grep -qx -- "$package" %s/installed 2>/dev/null && echo "ii "
]]

describe("make deps", function()
  local folder
  local function program(name, text)
    bed.write(folder .. "/bin/" .. name, text)
    assert(os.execute(("chmod +x '%s/bin/%s'"):format(folder, name)))
  end
  local function make(...)
    return bed.run { "env", "PATH=" .. folder .. "/bin:" .. os.getenv "PATH", "make", "--no-print-directory", ... }
  end
  before_each(function()
    folder = bed.folder()
    os.execute(("mkdir '%s/bin'"):format(folder))
    program("apt-get", APT:format(folder))
    program("dpkg-query", DPKG:format(folder))
    program("sudo", '#!/bin/sh\nexec "$@"\n')
    for _, name in ipairs { "invoke-rc.d", "update-rc.d" } do program(name, "#!/bin/sh\n") end
  end)
  after_each(function() os.execute(("xargs -r kill 2>/dev/null < '%s/services'"):format(folder)) end)

  it("installs one after the other, however many make runs at once, and only what is missing", function()
    local out, code = make("-j4", "deps", "deps-lint", "deps-bench")
    assert.equal(0, code, out)
    local asked = bed.read(folder .. "/asked")
    for _, package in ipairs { "liblua5.4-dev", "lua-busted", "clang-tidy", "nginx" } do
      assert.matches("[^\n]*install [^\n]*%f[%w]" .. package:gsub("%p", "%%%0") .. "%f[%s]", asked)
    end
    assert.equal(1, select(2, asked:gsub("%f[%S]lua%-check%f[%s]", ""))) -- two of them want it
    local before = asked
    out, code = make("-j4", "deps", "deps-lint", "deps-bench")
    assert.equal(0, code, out)
    assert.equal(before, bed.read(folder .. "/asked"))
  end)
end)
