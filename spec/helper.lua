-- Loaded by busted before each spec file: nothing that a spec has started may outlive it.
local busted = require "busted"
local bench = require "bed"

busted.subscribe({ "file", "end" }, function()
  local left = bench.stop_all()
  if left > 0 then io.write(("error: %d programs were still running when the file's specs had ended\n"):format(left)) end
  return nil, true
end)
