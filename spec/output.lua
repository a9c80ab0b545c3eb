-- busted's output: failures in full, then the one closing line that spec/run counts.
return function()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  local function show(kind, list)
    for _, t in ipairs(list) do
      local message = t.message
      if type(message) ~= "string" then message = require("pl.pretty").write(message) end
      io.write(("%s: %s (%s:%s)\n%s\n%s\n"):format(kind, t.name or "?", t.trace and t.trace.short_src or "?", t.trace and t.trace.currentline or "?",
        message or "", t.trace and t.trace.traceback or ""))
    end
  end

  busted.subscribe({ "exit" }, function()
    show("failure", handler.failures)
    show("error", handler.errors)
    show("pending", handler.pendings)
    -- what is pending has not been shown to work
    io.write(("%d passed, %d failed\n"):format(handler.successesCount, handler.failuresCount + handler.errorsCount + #handler.pendings))
    io.flush()
    return nil, true
  end)
  return handler
end
