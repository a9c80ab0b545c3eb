/* Queries over devices, readings and events: what a drawn store gives, in every order, filter, scope and page size, against sorting the whole. */
#include "store/sqlite.h"
#include "store_sets.h"

static unsigned random_state = 20261124;
static int draw(int n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (int)((random_state >> 8) % (unsigned)n);
}

enum { ROWS = 1500, DEVICES = 6, KINDS = 5, CONNECTIONS = 4, VENDORS = 2 };
static const char *const devices[] = {"dev-0", "dev-1", "dev-2", "dev-3", "dev-4", "dev-5"};
static const char *const kinds[] = {"level", "temp", "glucose", "spo2", "alarm"};
static const char *const connections[] = {"north", "south", "east", NULL}; /* the last: nobody named */
static const char *const vendors[] = {"tideco", "other"};

struct row {
  int64_t id, at;
  int device, kind, connection, vendor;
};
static struct row readings[ROWS], events[ROWS];
static size_t reading_count, event_count;

/* Few moments, so that many rows share one; devices 0 and 1 are one connection's alone. */
static struct row draw_row(void) {
  struct row r = {.at = draw(40) * 10 - 100, .device = draw(DEVICES), .kind = draw(KINDS), .vendor = draw(VENDORS)};
  r.connection = r.device < 2 ? r.device : draw(CONNECTIONS);
  return r;
}

static void add_drawn_reading(struct np_writeset *ws, int i) {
  struct row r = draw_row();
  char key[16];
  snprintf(key, sizeof key, "k%d", i);
  struct np_reading *reading = add_reading(ws, devices[r.device], r.at, key, i);
  reading->vendor = text(ws, vendors[r.vendor]);
  reading->metric = text(ws, kinds[r.kind]);
  reading->connection = text(ws, connections[r.connection]);
  r.id = i + 1;
  readings[reading_count++] = r;
}

static void add_drawn_event(struct np_writeset *ws, int i) {
  struct row r = draw_row();
  char key[16];
  snprintf(key, sizeof key, "k%d", i);
  struct np_op *op = np_writeset_add(ws, NP_OP_EVENT);
  op->as.event.vendor = text(ws, vendors[r.vendor]);
  op->as.event.connection = text(ws, connections[r.connection]);
  op->as.event.device = text(ws, devices[r.device]);
  op->as.event.type = text(ws, kinds[r.kind]);
  op->as.event.key = text(ws, key);
  op->as.event.at = r.at;
  op->as.event.received = NOW;
  r.id = i + 1;
  events[event_count++] = r;
}

/* Their numbers in the store are 1 to ROWS in the order that they were drawn in. */
static void fill(struct np_store *s) {
  for (int i = 0; i < ROWS;) {
    struct np_writeset *ws = np_writeset_new();
    for (int n = 0; n < 100; n++, i++) {
      add_drawn_reading(ws, i);
      add_drawn_event(ws, i);
    }
    CHECK(apply(s, ws) == NP_COMMITTED);
  }
  CHECK(ask("SELECT max(seq) FROM reading_rows") == ROWS && ask("SELECT max(id) FROM event_rows") == ROWS);
}

/* A filter that is drawn, and what of the model it takes. */
struct drawn {
  struct np_row_filter f;
  struct np_text names[DEVICES], types[KINDS];
  const char *scope[CONNECTIONS];
  bool device[DEVICES], kind[KINDS], connection[CONNECTIONS];
  int vendor; /* -1: any */
};

static struct np_text plain(const char *s) { return (struct np_text){s, strlen(s)}; }

static void draw_filter(struct drawn *d, bool needs_device) {
  memset(d, 0, sizeof *d);
  size_t n = 0;
  bool all_devices = !needs_device && draw(3) == 0, all_kinds = draw(2);
  for (int i = 0; i < DEVICES; i++) {
    d->device[i] = all_devices || draw(2);
    if (d->device[i] && !all_devices) d->names[n++] = plain(devices[i]);
  }
  if (!n && !all_devices) d->device[0] = true, d->names[n++] = plain(devices[0]);
  d->f.devices = (struct np_texts){d->names, n};
  n = 0;
  for (int i = 0; i < KINDS; i++) {
    d->kind[i] = all_kinds || draw(2);
    if (d->kind[i] && !all_kinds) d->types[n++] = plain(kinds[i]);
  }
  if (!n && !all_kinds) d->types[n++] = plain("unknown");
  d->f.kinds = (struct np_texts){d->types, n};
  d->f.scope.all = draw(4) == 0;
  d->f.scope.connections = d->scope;
  for (int i = 0; i < CONNECTIONS; i++) {
    d->connection[i] = d->f.scope.all || (connections[i] && draw(2));
    if (d->connection[i] && connections[i]) d->scope[d->f.scope.count++] = connections[i];
  }
  d->vendor = draw(3) - 1;
  if (d->vendor >= 0) d->f.vendor = plain(vendors[d->vendor]);
  d->f.from = draw(3) ? INT64_MIN : draw(30) * 10 - 100;
  d->f.to = draw(3) ? INT64_MAX : draw(40) * 10 - 100;
  d->f.ascending = draw(2);
}

static bool takes(const struct drawn *d, const struct row *r) {
  return d->device[r->device] && d->kind[r->kind] && d->connection[r->connection] && (d->vendor < 0 || d->vendor == r->vendor) &&
         r->at >= d->f.from && r->at <= d->f.to;
}

static bool ascending;
static int by_order(const void *a, const void *b) {
  const struct row *x = a, *y = b;
  int less = x->at != y->at ? (x->at < y->at ? -1 : 1) : x->id < y->id ? -1 : x->id > y->id;
  return ascending ? less : -less;
}

static size_t expect(const struct drawn *d, const struct row *from, size_t count, struct row *out) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    if (takes(d, &from[i])) out[n++] = from[i];
  ascending = d->f.ascending;
  qsort(out, n, sizeof *out, by_order);
  return n;
}

struct page {
  struct row rows[ROWS];
  size_t n;
  bool right; /* each says what the model has under its id */
};

static bool same_row(const struct row *r, struct np_text vendor, struct np_text connection, struct np_text device,
                     struct np_text kind) {
  return is(vendor, vendors[r->vendor]) && is(connection, connections[r->connection]) && is(device, devices[r->device]) &&
         is(kind, kinds[r->kind]);
}

static bool take_reading(void *arg, const struct np_reading *r) {
  struct page *p = arg;
  p->right = p->right && same_row(&readings[r->seq - 1], r->vendor, r->connection, r->device, r->metric);
  p->rows[p->n++] = (struct row){.id = r->seq, .at = r->at};
  return true;
}

static bool take_event(void *arg, const struct np_event *e) {
  struct page *p = arg;
  p->right = p->right && same_row(&events[e->id - 1], e->vendor, e->connection, e->device, e->type);
  p->rows[p->n++] = (struct row){.id = e->id, .at = e->at};
  return true;
}

/* All pages of a size, one behind the other, are the expected rows. */
static bool pages_are(struct np_reader *r, struct drawn *d, bool of_events, int size, const struct row *expected, size_t n) {
  static struct page page;
  size_t at = 0;
  d->f.after = false;
  for (;;) {
    page.n = 0, page.right = true;
    int done = of_events ? np_reader_find_events(r, &d->f, size, take_event, &page, NULL)
                         : np_reader_find_readings(r, &d->f, size, take_reading, &page, NULL);
    if (done < 0 || !page.right || page.n > (size_t)size) return false;
    for (size_t i = 0; i < page.n; i++, at++)
      if (at >= n || page.rows[i].id != expected[at].id || page.rows[i].at != expected[at].at) return false;
    if (page.n < (size_t)size) return at == n;
    d->f.after = true;
    d->f.after_at = page.rows[page.n - 1].at;
    d->f.after_seq = page.rows[page.n - 1].id;
  }
}

static void against_a_model(struct np_reader *r) {
  static struct row expected[ROWS];
  for (int i = 0; i < 300; i++) {
    struct drawn d;
    bool of_events = i % 2;
    draw_filter(&d, !of_events);
    size_t n = expect(&d, of_events ? events : readings, of_events ? event_count : reading_count, expected);
    CHECK(pages_are(r, &d, of_events, ROWS, expected, n), "filter %d at once", i);
    CHECK(pages_are(r, &d, of_events, 1 + draw(7), expected, n), "filter %d in small pages", i);
    CHECK(pages_are(r, &d, of_events, 1 + draw(200), expected, n), "filter %d in pages", i);
    int64_t counted = of_events ? np_reader_count_events(r, &d.f, NULL) : np_reader_count_readings(r, &d.f, NULL);
    CHECK(counted == (int64_t)n, "filter %d: %lld of %zu", i, (long long)counted, n);
  }
}

static void every_page_size(struct np_reader *r) {
  static struct row expected[ROWS];
  struct drawn d;
  memset(&d, 0, sizeof d);
  d.f.scope.all = true;
  d.names[0] = plain(devices[2]);
  d.f.devices = (struct np_texts){d.names, 1};
  d.vendor = -1;
  d.f.from = INT64_MIN, d.f.to = INT64_MAX;
  d.device[2] = true;
  for (int i = 0; i < KINDS; i++) d.kind[i] = true;
  for (int i = 0; i < CONNECTIONS; i++) d.connection[i] = true;
  for (int order = 0; order < 2; order++) {
    d.f.ascending = order;
    size_t n = expect(&d, readings, reading_count, expected);
    CHECK(n > 100);
    for (size_t size = 1; size <= n + 1; size++)
      CHECK(pages_are(r, &d, false, (int)size, expected, n), "order %d, pages of %zu", order, size);
  }
}

static void the_newest_of_each(struct np_reader *r) {
  static struct page page;
  for (int i = 0; i < 60; i++) {
    struct drawn d;
    draw_filter(&d, true);
    d.f.from = INT64_MIN, d.f.to = INT64_MAX, d.f.ascending = false;
    struct row newest[DEVICES][KINDS][VENDORS];
    size_t n = 0, right = 0;
    memset(newest, 0, sizeof newest);
    for (size_t k = 0; k < reading_count; k++) {
      const struct row *x = &readings[k];
      struct row *have = &newest[x->device][x->kind][x->vendor];
      if (!takes(&d, x) || (have->id && (have->at > x->at || (have->at == x->at && have->id > x->id)))) continue;
      n += !have->id;
      *have = *x;
    }
    page.n = 0, page.right = true;
    CHECK(np_reader_latest(r, &d.f, take_reading, &page, NULL) == 0 && page.right);
    for (size_t k = 0; k < page.n; k++) {
      const struct row *x = &readings[page.rows[k].id - 1];
      right += newest[x->device][x->kind][x->vendor].id == x->id;
      if (k) CHECK(page.rows[k - 1].at >= x->at, "newest first");
    }
    CHECK(page.n == n && right == n, "%zu of %zu, %zu right", page.n, n, right);
  }
}

static bool stop_at_once(void *arg, const struct np_reading *r) {
  (void)r;
  ++*(int *)arg;
  return false;
}

/* A callback that stops, names that are unknown, a cursor at the ends of time. */
static void edges(struct np_reader *r) {
  struct np_text name = plain("dev-2"), nobody = plain("nobody");
  const char *const north[] = {"north"};
  const char *const unknown[] = {"west"};
  struct np_row_filter f = {.scope = {.all = true}, .devices = {&name, 1}, .from = INT64_MIN, .to = INT64_MAX};
  struct seen x = {0};
  int called = 0;
  CHECK(np_reader_find_readings(r, &f, 10, stop_at_once, &called, NULL) == 0 && called == 1);
  CHECK(np_reader_find_readings(r, &f, 3, see_reading, &x, NULL) == 0 && x.count == 3);
  f.devices.list = &nobody;
  CHECK(np_reader_count_readings(r, &f, NULL) == 0);
  f.devices.list = &name;
  f.vendor = nobody;
  CHECK(np_reader_count_readings(r, &f, NULL) == 0 && np_reader_count_events(r, &f, NULL) == 0);
  f.vendor = (struct np_text){0};
  f.kinds = (struct np_texts){&nobody, 1};
  CHECK(np_reader_count_readings(r, &f, NULL) == 0 && np_reader_count_events(r, &f, NULL) == 0);
  f.kinds.count = 0;
  f.scope = (struct np_scope){0}; /* nobody's */
  CHECK(np_reader_count_readings(r, &f, NULL) == 0 && np_reader_count_events(r, &f, NULL) == 0);
  f.scope = (struct np_scope){.connections = unknown, .count = 1};
  CHECK(np_reader_count_readings(r, &f, NULL) == 0 && np_reader_count_events(r, &f, NULL) == 0);
  f.scope = (struct np_scope){.connections = north, .count = 1};
  CHECK(np_reader_count_readings(r, &f, NULL) > 0 && np_reader_count_events(r, &f, NULL) > 0);
  f.after = true, f.after_at = INT64_MIN;
  called = 0;
  CHECK(np_reader_find_readings(r, &f, 10, stop_at_once, &called, NULL) == 0 && called == 0);
  f.after_at = INT64_MAX, f.ascending = true;
  CHECK(np_reader_find_readings(r, &f, 10, stop_at_once, &called, NULL) == 0 && called == 0);
  f.after = false, f.from = 5, f.to = 4;
  CHECK(np_reader_count_readings(r, &f, NULL) == 0 && np_reader_find_readings(r, &f, 10, stop_at_once, &called, NULL) == 0 &&
        called == 0);
}

struct list {
  char text[600];
  int64_t last;
};

/* "name:connection:owner:place:status" of each, "-" for what is absent. */
static bool list_device(void *arg, const struct np_device *d) {
  struct list *l = arg;
  const struct np_text *of[] = {&d->device, &d->connection, &d->owner, &d->place, &d->status};
  size_t n = strlen(l->text);
  for (int i = 0; i < 5; i++)
    n += (size_t)snprintf(l->text + n, sizeof l->text - n, "%s%s", i ? ":" : n ? " " : "", of[i]->ptr ? of[i]->ptr : "-");
  l->last = d->last_seen;
  CHECK(d->details == (d->owner.ptr != NULL), "%s", l->text);
  return true;
}

static void devices_are(struct np_reader *r, const struct np_device_filter *f, const char *expected) {
  struct list l = {.last = 0};
  int n = expected[0] != 0;
  for (const char *c = expected; *c; c++) n += *c == ' ';
  CHECK(np_reader_find_devices(r, f, 100, list_device, &l, NULL) == 0 && !strcmp(l.text, expected), "%s instead of %s", l.text,
        expected);
  CHECK(f->after || np_reader_count_devices(r, f, NULL) == n, "count of %s", expected);
}

static void tell(struct np_store *s, const char *connection, const char *device, int64_t at, const char *owner, const char *place) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_DEVICE);
  op->as.device.vendor = text(ws, "tideco"), op->as.device.device = text(ws, device),
  op->as.device.connection = text(ws, connection);
  op->as.device.owner = text(ws, owner), op->as.device.place = text(ws, place);
  op->as.device.status = text(ws, place && place[0] ? "active" : NULL);
  op->as.device.online = -1, op->as.device.at = at;
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static void of_devices(void) {
  struct np_store *s = open_store();
  struct np_reader *r = open_reader();
  const char *const north[] = {"north"};
  const char *const both[] = {"south", "north"};
  struct np_text owner = plain("o1"), active = plain("active"), one = plain("one");
  tell(s, "north", "one", 10, "o1", "p1");
  tell(s, "south", "two", 10, "o2", "p2");
  tell(s, "north", "three", 10, "o1", NULL);
  struct np_device_filter n = {.scope = {north, 1, false}}, b = {.scope = {both, 2, false}}, all = {.scope = {.all = true}};
  devices_are(r, &n, "one:north:o1:p1:active three:north:o1:-:-");
  devices_are(r, &b, "one:north:o1:p1:active two:south:o2:p2:active three:north:o1:-:-");
  devices_are(r, &all, "one:north:o1:p1:active two:south:o2:p2:active three:north:o1:-:-");
  n.owner = owner, b.owner = owner;
  devices_are(r, &n, "one:north:o1:p1:active three:north:o1:-:-");
  devices_are(r, &b, "one:north:o1:p1:active three:north:o1:-:-");
  n.owner = b.owner = (struct np_text){0};
  n.after = 1;
  devices_are(r, &n, "three:north:o1:-:-");
  CHECK(np_reader_count_devices(r, &n, NULL) == 2, "all, whatever after says");
  n.after = 0;
  n.except_statuses = (struct np_texts){&active, 1};
  devices_are(r, &n, "three:north:o1:-:-");
  n.except_statuses.count = 0;

  /* An empty text clears; older news change nothing; news that name no connection leave the row where it is. */
  tell(s, "north", "one", 20, NULL, "");
  devices_are(r, &n, "one:north:o1:-:active three:north:o1:-:-");
  tell(s, "north", "one", 15, "old", "old");
  devices_are(r, &n, "one:north:o1:-:active three:north:o1:-:-");
  tell(s, NULL, "one", 25, NULL, "p3");
  devices_are(r, &n, "one:north:o1:p3:active three:north:o1:-:-");
  CHECK(ask("SELECT count(*) FROM device_rows WHERE place IS NULL") == 1);

  /* Another connection's news: north keeps the device, but is told nothing of what south says, nor south of what north said. */
  struct np_writeset *ws = np_writeset_new();
  struct np_reading *reading = add_reading(ws, "one", 50, NULL, 1);
  reading->connection = text(ws, "north");
  reading->received = 5000;
  CHECK(apply(s, ws) == NP_COMMITTED);
  tell(s, "south", "one", 9000, "o9", NULL);
  devices_are(r, &n, "one:north:-:-:- three:north:o1:-:-");
  struct list l = {.last = 0};
  n.devices = (struct np_texts){&one, 1};
  CHECK(np_reader_find_devices(r, &n, 1, list_device, &l, NULL) == 0 && l.last == 5000, "%lld", (long long)l.last);
  devices_are(r, &all, "one:south:o9:-:- two:south:o2:p2:active three:north:o1:-:-");
  devices_are(r, &b, "one:south:o9:-:- two:south:o2:p2:active three:north:o1:-:-");
  n.devices.count = 0;
  n.owner = plain("o9");
  devices_are(r, &n, "");
  n.owner = (struct np_text){0};
  n.except_statuses = (struct np_texts){&active, 1};
  devices_are(r, &n, "one:north:-:-:- three:north:o1:-:-");
  n.scope.count = 0;
  devices_are(r, &n, "");
  np_reader_close(r);
  np_store_close(s);
}

static const char *writers = "SELECT sum(device * 1000 + connection) FROM device_writers";

/* What later schemas have added, backwards. */
static const char *const undo[] = {
    "DROP INDEX outbox_line_expires",
    "ALTER TABLE counters DROP COLUMN dead_bytes",
    "DROP INDEX outbox_about",
    "DROP INDEX delivered_about",
    "DROP INDEX dead_about",
    "DROP INDEX outbox_replayed",
    "DROP INDEX outbox_order",
    "CREATE INDEX outbox_order ON outbox(destination, device, seq)",
    "ALTER TABLE outbox DROP COLUMN about",
    "ALTER TABLE delivered DROP COLUMN about",
    "ALTER TABLE dead DROP COLUMN about",
    "ALTER TABLE attempts DROP COLUMN request",
    "ALTER TABLE attempts DROP COLUMN reply",
    "DROP TRIGGER request_gone",
    "DROP TABLE request_runs",
    "DROP TRIGGER derived_gone",
    "DROP TABLE derivations",
    "DROP TRIGGER delivered_unasked",
    "DROP TRIGGER dropped_unasked",
    "DROP TRIGGER dropped_asks_no_more",
    "DROP INDEX outbox_id",
    "DROP INDEX outbox_reading",
    "DROP INDEX delivered_reading",
    "DROP INDEX dead_reading",
    "DROP INDEX dropped_reading",
    "ALTER TABLE inbox DROP COLUMN reading",
    "ALTER TABLE outbox DROP COLUMN generation",
    "ALTER TABLE outbox DROP COLUMN replayed",
    "ALTER TABLE delivered DROP COLUMN generation",
    "ALTER TABLE delivered DROP COLUMN replayed",
    "ALTER TABLE dead DROP COLUMN generation",
    "ALTER TABLE dead DROP COLUMN replayed",
    "DROP INDEX delivered_to",
    "CREATE INDEX delivered_at ON delivered(destination, at)",
    "DROP INDEX held_reading",
    "ALTER TABLE series DROP COLUMN removed",
    "ALTER TABLE counters DROP COLUMN request_bytes",
    "ALTER TABLE counters DROP COLUMN reading_bytes",
    "ALTER TABLE counters DROP COLUMN event_bytes",
    "ALTER TABLE counters DROP COLUMN delivered_bytes",
    "DROP VIEW devices",
    "ALTER TABLE device_rows DROP COLUMN tags",
    "DROP TABLE device_tags",
    "DROP TRIGGER delivered_gone",
    "DROP TRIGGER dropped_gone",
    "DROP TABLE attempts",
    "DROP TABLE dropped",
    "DROP INDEX delivered_id",
    "DROP INDEX dead_id",
    "ALTER TABLE dead DROP COLUMN reason",
    "DROP INDEX outbox_expires",
    "ALTER TABLE outbox DROP COLUMN expires",
    "ALTER TABLE outbox DROP COLUMN since",
    "DROP INDEX inbox_failed",
    "ALTER TABLE generations DROP COLUMN cause",
    "DROP INDEX event_connection",
    "DROP INDEX event_series",
    "DROP INDEX device_owner",
    "DROP TABLE device_writers",
    "PRAGMA user_version = 1",
};

/* A store of the first schema: what its rows tell of writers is found when it is opened. */
static void from_an_older_schema(void) {
  int64_t before = ask(writers), n = ask("SELECT count(*) FROM device_writers");
  int64_t bytes = ask("SELECT reading_bytes FROM counters"), of_events = ask("SELECT event_bytes FROM counters");
  CHECK(before > 0 && n > 10 && bytes > 1000 && of_events > 1000);
  for (size_t i = 0; i < sizeof undo / sizeof *undo; i++) CHECK(ask(undo[i]) == 0, "%s", undo[i]);
  struct np_error err;
  CHECK(!np_reader_open(test_path, &err) && strstr(err.text, "old schema"), "%s", err.text);
  np_store_close(open_store());
  CHECK(ask(writers) == before && ask("SELECT count(*) FROM device_writers") == n);
  CHECK(ask("SELECT reading_bytes FROM counters") == bytes && ask("SELECT event_bytes FROM counters") == of_events);
  struct np_reader *r = open_reader();
  against_a_model(r);
  np_reader_close(r);
}

/* Large tables are looked up by an index. */
static void plans(struct np_reader *r) {
  static const int texts[] = {R_MESSAGES_OF, R_MESSAGES_ABOUT, R_HEAD,        R_DEVICES_OF,
                              R_EXPIRED_OF,  R_REPLAY_PENDING, R_DERIVED_FROM};
  static const char *const tables[] = {"SCAN outbox",  "SCAN delivered",   "SCAN dead",
                                       "SCAN dropped", "SCAN derivations", "TEMP B-TREE FOR ORDER"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct np_buf sql = {0};
    sqlite3_stmt *st;
    np_buf_addf(&sql, "EXPLAIN QUERY PLAN %s", np_read_texts[texts[i]]);
    CHECK(sqlite3_prepare_v2(r->sql.db, sql.data, -1, &st, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(r->sql.db));
    while (sqlite3_step(st) == SQLITE_ROW)
      for (size_t k = 0; k < sizeof tables / sizeof *tables; k++)
        CHECK(!strstr((const char *)sqlite3_column_text(st, 3), tables[k]), "%s: %s", sql.data, tables[k]);
    sqlite3_finalize(st);
    np_buf_free(&sql);
  }
}

int main(void) {
  test_begin();
  struct np_store *s = open_store();
  fill(s);
  struct np_reader *r = open_reader();
  against_a_model(r);
  every_page_size(r);
  the_newest_of_each(r);
  edges(r);
  plans(r);
  np_reader_close(r);
  np_store_close(s);
  from_an_older_schema();
  test_clear();
  of_devices();
  return test_end();
}
