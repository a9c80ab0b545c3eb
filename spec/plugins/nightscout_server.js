// Nightscout's own API (cgm-remote-monitor 0.12.8: routes, authorization, entries, treatments) over collections in memory, for MongoDB is no
// part of npm. node nightscout_server.js API_SECRET [PORT]; prints its port.
process.env.API_SECRET = process.argv[2];
process.env.ENABLE = "careportal"; // treatments may be posted
const say = console.log; console.log = console.info = console.debug = () => {}; // the API's own
const home = require("path").dirname(require.resolve("nightscout/package.json"));
const part = (name) => require(home + "/" + name);
const MongoMock = require("mongomock");

// Collections in memory: what Nightscout asks of MongoDB's driver, with its own mongomock for queries.
const collections = {};
function collection(name) {
  const rows = (collections[name] ??= []);
  const same = (query) => (row) => Object.entries(query).every(([k, v]) => row[k] === v);
  return {
    update(query, row, options, done) {
      const at = rows.findIndex(same(query));
      if (at >= 0) rows[at] = { ...row, _id: rows[at]._id };
      else rows.push({ _id: require("crypto").randomBytes(12).toString("hex"), ...row });
      done(null, { result: { ok: 1, upserted: at >= 0 ? undefined : [{ _id: rows[rows.length - 1]._id }] } });
    },
    find(query) {
      const asked = { order: {}, most: Infinity };
      const cursor = { sort: (o) => ((asked.order = o), cursor), limit: (n) => ((asked.most = n), cursor), toArray(done) {
        new MongoMock({ all: rows }).collection("all").find(query ?? {}).toArray((err, found) => {
          const [field, way] = Object.entries(asked.order)[0] ?? [];
          if (field) found.sort((a, b) => way * (a[field] < b[field] ? -1 : a[field] > b[field] ? 1 : 0));
          done(err, (found ?? []).slice(0, asked.most).map((r) => ({ ...r })));
        });
      } };
      return cursor;
    },
    insert(row, done) { rows.push(row); done(null, { ops: [row] }); },
  };
}

const env = part("env")();
const ctx = { store: { collection, ensureIndexes() {} }, settings: env.settings };
ctx.bus = part("lib/bus")(env.settings, ctx);
ctx.authorization = part("lib/authorization")(env, ctx);
ctx.authorization.storage.reload(() => {
  for (const name of ["entries", "treatments", "profile", "devicestatus", "food", "activity"]) ctx[name] = part("lib/server/" + name)(env, ctx);
  ctx.plugins = { extendedClientSettings: () => ({}) };
  ctx.ddata = part("lib/data/ddata")();
  const app = require("express")();
  app.use("/api/v1", part("lib/api")(env, ctx));
  app.listen(Number(process.argv[3] ?? 0), "127.0.0.1", function () { say("port " + this.address().port); });
});
