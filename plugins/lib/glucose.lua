-- Glucose in the two units that people use.
local glucose = { MGDL = 18.01559 } -- mg/dL in 1 mmol/L

--- @param value number
--- @param unit string "mmol/L" or "mg/dL"
--- @return number? mmol/L; nil for another unit
function glucose.to_mmol(value, unit)
  if unit == "mmol/L" then return value + 0.0 end
  if unit == "mg/dL" then return value / glucose.MGDL end
end

--- @param value number
--- @param unit string "mmol/L" or "mg/dL"
--- @return number? mg/dL; nil for another unit
function glucose.to_mgdl(value, unit)
  if unit == "mg/dL" then return value + 0.0 end
  if unit == "mmol/L" then return value * glucose.MGDL end
end

return glucose
