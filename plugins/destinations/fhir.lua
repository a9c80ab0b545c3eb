-- A destination: readings become FHIR R4 Observations, by HL7's guide to continuous glucose monitoring 1.0.0 where they are
-- glucose, and are posted as a bundle. Each is created unless the server has one of its identifier: a retry makes no second one.
local plugin = ... ---@type neap.Plugin
local crypto = require "neap.crypto"
local http = require "neap.http"
local json = require "neap.json"
local message = require "message"
local template = require "template"
local time = require "neap.time"

local config = plugin:config {
  url = { "string", pattern = "https?://.+", about = "where bundles are posted: the server's base, or …/$submit-cgm-bundle" },
  bundle = { "string", default = "batch", values = { "batch", "transaction" }, about = "a transaction takes all or nothing" },
  subject = { "string", optional = true, min = 1, about = "whose a reading is: a template, as Patient/{{reading.extra.patient}}" },
  subject_system = { "string", optional = true, min = 1, about = "subject is an identifier in this system, not a reference" },
  patients = { "object", optional = true, about = "whose a device is: { [\"SN-1\"] = \"Patient/17\" }; counts before subject" },
  device_system = { "string", optional = true, min = 1, about = "the system that devices' identifiers are of" },
  codes = { "object", optional = true,
    about = "other metrics: { temp = { code = \"8310-5\", display = \"Body temperature\", category = \"vital-signs\" } }" },
  token = { "secret", optional = true, about = "a bearer token" },
  user = { "string", optional = true, min = 1 },
  password = { "secret", optional = true },
  gzip = { "boolean", default = false, about = "whether bundles go out gzipped" },
  cert = { "secret", optional = true, about = "mutual TLS: the client's certificate, PEM: file \"client.pem\"" },
  key = { "secret", optional = true, about = "its key, PEM, not encrypted; it may stand in cert" },
  ca = { "secret", optional = true, about = "PEM: the server's certificate has to come from these, and from nobody else" },
  timeout = { "duration", default = "30s" },
}

local LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
local TERMS = "http://terminology.hl7.org/CodeSystem/"
local GUIDE = "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-"
-- The guide has a profile for each unit, and fixes how that is written.
local GLUCOSE = {
  ["mg/dL"] = { profile = GUIDE .. "mass-per-volume", code = "99504-3", unit = "mg/dl",
    display = "Glucose [Mass/volume] in Interstitial fluid" },
  ["mmol/L"] = { profile = GUIDE .. "moles-per-volume", code = "105272-9", unit = "mmol/l",
    display = "Glucose [Moles/volume] in Interstitial fluid" },
}

local codes = config.codes or {}
for metric, c in pairs(codes) do
  if type(c) ~= "table" or type(c.code) ~= "string" then
    error(("codes.%s: expected { code = \"…\" }"):format(tostring(metric)), 0)
  end
end
for device, reference in pairs(config.patients or {}) do
  if type(reference) ~= "string" then error(("patients.%s: expected a reference"):format(tostring(device)), 0) end
end
if not config.subject and not config.patients then error("subject: say whose readings are, by subject or patients", 0) end
if config.key and not config.cert then error("key: there is no cert to it", 0) end
if config.token and config.user then error("token: user and token are both given", 0) end
local fill_subject, wrong
if config.subject then
  fill_subject, wrong = template.compile(config.subject, "text/plain")
  if not fill_subject then error("subject: " .. wrong, 0) end
end

local function coding(system, code, display)
  return { coding = json.array { { system = system, code = code, display = display } } }
end

local function subject_of(r, m)
  local known = config.patients and config.patients[r.device]
  if known then return { reference = known } end
  if not fill_subject then return nil, ("no patient: the device %q is not in the setting patients"):format(r.device) end
  local text, why = fill_subject(m)
  if not text then return nil, "no patient: subject: " .. why end
  if config.subject_system then return { identifier = { system = config.subject_system, value = text } } end
  return { reference = text }
end

-- The same reading has the same identifier for ever: what makes it one in neap, as a UUID of the kind that is anybody's own (8).
local function uuid_of(r)
  local what = { r.vendor or "", r.device, r.metric, r.key and "key" or "at", r.key or ("%d"):format(r.at) }
  local hex = crypto.sha256(table.concat(what, "\0"))
  return ("%s-%s-8%s-a%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(13, 15), hex:sub(16, 18), hex:sub(19, 30))
end

local function observe(r, m)
  local glucose = r.metric == "glucose" and not codes.glucose
  local known = codes[r.metric] or glucose and GLUCOSE[r.unit]
  if glucose and not known then return nil, ("glucose is known in mg/dL and mmol/L, not in %q"):format(tostring(r.unit)) end
  if not known then return nil, ("no code for the metric %q: the setting codes gives it one"):format(r.metric) end
  if glucose and type(r.value) ~= "number" then return nil, "the value of glucose is not a number" end
  local subject, why = subject_of(r, m)
  if not subject then return nil, why end

  local uuid = uuid_of(r)
  local category = known.category or (glucose and "laboratory" or nil)
  local o = {
    resourceType = "Observation",
    meta = known.profile and { profile = json.array { known.profile } },
    identifier = json.array { { system = "urn:ietf:rfc:3986", value = "urn:uuid:" .. uuid } },
    status = r.quality == "warmup" and "preliminary" or "final",
    category = category and json.array { coding(TERMS .. "observation-category", category) },
    code = coding(known.system or LOINC, known.code, known.display),
    subject = subject,
    effectiveDateTime = time.format(r.at),
    device = { identifier = { system = config.device_system, value = r.device }, display = r.device },
  }
  if r.quality == "invalid" then
    o.dataAbsentReason = coding(TERMS .. "data-absent-reason", "error", "Error")
  elseif type(r.value) == "number" then
    o.valueQuantity = { value = r.value, unit = known.unit or r.unit, system = r.unit and UCUM, code = r.unit }
  elseif type(r.value) == "string" then
    o.valueString = r.value
  else
    o.valueBoolean = r.value
  end
  return { fullUrl = "urn:uuid:" .. uuid, resource = o, request = { method = "POST", url = "Observation",
    ifNoneExist = "identifier=urn:ietf:rfc:3986|urn:uuid:" .. uuid } }
end

-- What an OperationOutcome says.
local function words(outcome)
  local list = {}
  for _, issue in ipairs(type(outcome) == "table" and type(outcome.issue) == "table" and outcome.issue or {}) do
    local where = type(issue.expression) == "table" and issue.expression[1]
    local what = issue.diagnostics or type(issue.details) == "table" and issue.details.text or issue.code
    list[#list + 1] = (where and where .. ": " or "") .. tostring(what)
  end
  return table.concat(list, "; ")
end

-- What became of one entry: as if it had been posted by itself, but that what depends on the moment is tried again.
local function outcome_of(entry)
  local response = type(entry) == "table" and type(entry.response) == "table" and entry.response or {}
  local status = tonumber(tostring(response.status):match "^%d%d%d")
  if not status then return "the server's bundle says no status of it" end
  local said = words(response.outcome)
  if status == 401 or status == 409 then return ("answered %d: %s"):format(status, said) end
  return { status = status, body = said }
end

local function make(kind, r, m)
  if kind == "reading" then return observe(r, m) end
  return nil, "an alert is no Observation: this destination takes readings"
end

local function write(entries)
  local res = message.settle(http.post {
    url = config.url, timeout = config.timeout,
    json = { resourceType = "Bundle", type = config.bundle, entry = json.array(entries) },
    headers = { ["content-type"] = "application/fhir+json", accept = "application/fhir+json", prefer = "return=minimal" },
    bearer = config.token, basic = config.user and { config.user, config.password or "" } or nil, gzip = config.gzip,
    cert = config.cert, key = config.key, ca = config.ca,
  })
  if type(res) ~= "table" then return res end
  local said = words(res.json)
  if res.status == 409 then return "answered 409: " .. said end
  if res.status < 200 or res.status >= 300 then
    return { status = res.status, headers = res.headers, body = said ~= "" and said or res.body }
  end
  local answers = type(res.json) == "table" and res.json.entry
  if type(answers) ~= "table" or #answers ~= #entries then
    return ("answered %d, but not with a bundle of %d answers"):format(res.status, #entries)
  end
  local each = {}
  for i, answer in ipairs(answers) do each[i] = outcome_of(answer) end
  return res, each
end

plugin:deliver { batch = 100, handler = function(messages) return message.write(messages, make, write) end }
