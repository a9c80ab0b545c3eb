-- Loaded by busted before each spec file: nothing that a spec has started may outlive it.
local busted = require "busted"
local bench = require "bed"

busted.subscribe({ "file", "end" }, function(file)
  local left = bench.stop_all()
  if left > 0 then
    busted.publish({ "error", "file" }, file, nil, ("%d programs were still running when the file's specs had ended"):format(left))
  end
  return nil, true
end)
