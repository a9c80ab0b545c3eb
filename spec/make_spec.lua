-- make deps: what is missing is installed, also where make runs several recipes at once, and before what needs it is built; with an apt-get that does no
-- more than say so.
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

  describe("and what is built with it in one call", function()
    -- All programs of this machine but pkg-config, which comes with apt-get's first install, and counts how often it is asked.
    local PKG_CONFIG = '#!/bin/sh\necho "$*" >>%s/questions\nexec %s "$@"\n'
    local function build(...)
      return bed.run { "env", "PATH=" .. folder .. "/bin:" .. folder .. "/all", "CC=cc", "make", "--no-print-directory", "B=" .. folder .. "/b", ... }
    end
    local function questions()
      local f = io.open(folder .. "/questions")
      return f and select(2, f:read("a"):gsub("\n", "")) or 0
    end
    before_each(function()
      local real = io.popen("command -v pkg-config"):read "l"
      assert(os.execute(("mkdir '%s/all' && ln -s /usr/bin/* '%s/all/' && rm '%s'/all/*pkg-config* && rm -f '%s'/all/pkgconf*"):format(folder, folder, folder, folder)))
      program("later", PKG_CONFIG:format(folder, real))
      program("apt-get", APT:format(folder):gsub("rmdir busy", "cp bin/later bin/pkg-config; %0"))
    end)
    local objects = { "/b/core/lib/options.o", "/b/core/lib/modules.o", "/b/core/lib/time.o" } -- that need lua.h

    it("takes pkg-config's flags once it is there, and asks it once", function()
      local wanted = {}
      for i, name in ipairs(objects) do wanted[i] = folder .. name end
      local out, code = build("-j4", "deps", table.unpack(wanted))
      assert.equal(0, code, out)
      for _, path in ipairs(wanted) do assert.truthy(io.open(path), path) end
      assert.equal(1, questions())
      out, code = build(table.unpack(wanted))
      assert.equal(0, code, out)
      assert.equal(1, questions()) -- nothing is to be done, so nothing is asked
    end)

    it("says what to do where it is not there", function()
      local out, code = build(folder .. objects[1])
      assert.equal(2, code, out)
      assert.matches("pkg%-config does not find all of .*run make deps", out)
    end)
  end)
end)
