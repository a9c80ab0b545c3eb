/* The store: every operation and what readers say of it, what identifies a reading, what conflicts. */
#include <sys/stat.h>

#include "store_sets.h"

static void identity(struct np_store *s) {
  CHECK(store_reading(s, "g1", 100, "k1") == 1);
  CHECK(store_reading(s, "g1", 100, "k2") == 2, "another key at the same time is another reading");
  CHECK(store_reading(s, "g1", 100, "k1") == 0);
  CHECK(store_reading(s, "g1", 999, "k1") == 0, "the same key at another time is the same reading");
  CHECK(store_reading(s, "g2", 100, "k1") == 3, "another device's key is its own");
  CHECK(store_reading(s, "g1", 100, NULL) == 4, "one without a key is not one with a key");
  CHECK(store_reading(s, "g1", 100, NULL) == 0);
  CHECK(store_reading(s, "g1", 101, NULL) == 5);
  CHECK(store_reading(s, "g1", 100, "") == 0, "an empty key is none");
  CHECK(store_reading(s, "g1", 102, "") == 6);
  struct np_writeset *ws = np_writeset_new();
  add_reading(ws, "g3", 1, "a", 1);
  add_reading(ws, "g3", 1, "a", 2);
  struct np_reading *other = add_reading(ws, "g3", 1, "a", 3);
  other->vendor = text(ws, "other");
  np_writeset_ref(ws);
  CHECK(apply(s, ws) == NP_COMMITTED && ws->fresh == 2 && ws->first->as.reading.seq == 7 && ws->first->next->as.reading.seq == 0);
  CHECK(other->seq == 8 && other->partition == np_partition("g3", 2));
  np_writeset_unref(ws);
  CHECK(ask("SELECT count(*) FROM readings") == 8 && ask("SELECT value = 1.0 FROM readings WHERE seq = 7") == 1,
        "the first counts");
}

static void reading_fields(struct np_store *s, struct np_reader *r) {
  struct np_writeset *ws = np_writeset_new();
  struct np_reading *a = add_reading(ws, "full", 50, "key \xc3\xa9", 0);
  a->value = (struct np_value){.type = NP_STRING, .s = np_writeset_text(ws, "high\0er", 7)};
  a->quiet = true, a->serial = -3, a->interval = 180000, a->trend = NP_FALLING_FAST, a->quality = NP_INVALID,
  a->extra = text(ws, "{\"raw\":[]}");
  struct np_reading *b = add_reading(ws, "full", 51, NULL, 0);
  b->value = (struct np_value){.type = NP_BOOL, .i = 1}, b->unit = (struct np_text){0}, b->connection = (struct np_text){0};
  struct np_reading *c = add_reading(ws, "full", 52, NULL, 0);
  c->value = (struct np_value){.type = NP_NUMBER_INT, .i = INT64_MAX};
  struct np_reading *d = add_reading(ws, "full", 53, NULL, 5.0);
  np_writeset_ref(ws);
  CHECK(apply(s, ws) == NP_COMMITTED);
  struct seen x = {0};
  CHECK(np_reader_reading(r, a->seq, see_reading, &x, NULL) == 0 && x.count == 1 && x.seq == a->seq);
  CHECK(x.last.at == 50 && x.last.received == 57 && x.last.serial == -3 && x.last.interval == 180000);
  CHECK(x.last.trend == NP_FALLING_FAST && x.last.quality == NP_INVALID && x.last.partition == np_partition("full", 4));
  CHECK(x.last.quiet);
  CHECK(x.last.value.type == NP_STRING && x.last.value.s.len == 7, "a value is kept byte for byte");
  CHECK(!strcmp(x.texts[0], "tideco") && !strcmp(x.texts[1], "bay") && !strcmp(x.texts[2], "full") && !strcmp(x.texts[3], "level"));
  CHECK(!strcmp(x.texts[4], "m") && !strcmp(x.texts[5], "key \xc3\xa9") && !strcmp(x.texts[6], "{\"raw\":[]}"));
  CHECK(np_reader_reading(r, b->seq, see_reading, &x, NULL) == 0 && x.last.value.type == NP_BOOL && x.last.value.i == 1 &&
        !x.last.quiet);
  CHECK(!x.last.unit.ptr && !x.last.connection.ptr && !x.last.key.ptr && x.last.serial == INT64_MIN && !x.last.extra.ptr);
  CHECK(np_reader_reading(r, c->seq, see_reading, &x, NULL) == 0 && x.last.value.type == NP_NUMBER_INT &&
        x.last.value.i == INT64_MAX);
  CHECK(np_reader_reading(r, d->seq, see_reading, &x, NULL) == 0 && x.last.value.type == NP_NUMBER_REAL && x.last.value.d == 5.0);
  CHECK(np_reader_last_seq(r) == d->seq);
  x = (struct seen){0};
  CHECK(np_reader_scan(r, a->seq, 2, see_reading, &x, NULL) == 0 && x.count == 2 && x.seq == c->seq);
  x = (struct seen){.stop = 1};
  CHECK(np_reader_scan(r, 0, 100, see_reading, &x, NULL) == 0 && x.count == 1 && x.seq == 1);
  x = (struct seen){0};
  CHECK(np_reader_reading(r, 12345, see_reading, &x, NULL) == 0 && x.count == 0);
  np_writeset_unref(ws);
}

static void history(struct np_store *s, struct np_reader *r) {
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 20; i++)
    add_reading(ws, "h", i / 2, i % 2 ? "odd" : NULL, i)->key =
        i % 2 ? text(ws, (char[]){(char)('a' + i), 0}) : (struct np_text){0};
  for (int i = 0; i < 5; i++) add_reading(ws, "h", i, NULL, i)->vendor = text(ws, "other");
  CHECK(apply(s, ws) == NP_COMMITTED);
  struct seen x = {0};
  CHECK(np_reader_history(r, "tideco", "h", "level", 3, 5, 100, see_reading, &x, NULL) == 0 && x.count == 6 && x.at == 3);
  x = (struct seen){.stop = 1};
  CHECK(np_reader_history(r, "tideco", "h", "level", 3, 5, 100, see_reading, &x, NULL) == 0 && x.at == 5 && x.last.value.d == 11,
        "ties: newest first");
  x = (struct seen){0};
  CHECK(np_reader_history(r, "tideco", "h", "level", INT64_MIN, INT64_MAX, 4, see_reading, &x, NULL) == 0 && x.count == 4 &&
        x.at == 8);
  x = (struct seen){0};
  CHECK(np_reader_history(r, NULL, "h", "level", 0, 4, 100, see_reading, &x, NULL) == 0 && x.count == 15 && x.at == 0, "%d",
        x.count);
  x = (struct seen){0};
  CHECK(np_reader_history(r, NULL, "h", "level", 0, 4, 2, see_reading, &x, NULL) == 0 && x.count == 2 && x.at == 4 &&
        x.last.value.d == 9);
  x = (struct seen){0};
  CHECK(np_reader_history(r, NULL, "h", "other", 0, 4, 2, see_reading, &x, NULL) == 0 && x.count == 0);
  CHECK(np_reader_history(r, "nobody", "h", "level", 0, 4, 2, see_reading, &x, NULL) == 0 && x.count == 0);
}

struct derived {
  int64_t cause, readings[8];
  int generation, count;
  char timer[40], key[40];
};

static bool see_derivation(void *arg, int64_t reading, const struct np_derivation *d) {
  struct derived *s = arg;
  s->readings[s->count++] = reading;
  s->cause = d->cause, s->generation = d->generation;
  snprintf(s->timer, sizeof s->timer, "%s", d->timer.ptr ? d->timer.ptr : "");
  snprintf(s->key, sizeof s->key, "%s", d->key.ptr ? d->key.ptr : "");
  return true;
}

static int64_t store_derived(struct np_store *s, int64_t at, const char *key, const struct np_derivation *by, int depth) {
  struct np_writeset *ws = np_writeset_new();
  struct np_reading *r = add_reading(ws, "derived", at, key, 2.5);
  r->depth = depth;
  r->derivation = by;
  r->quality = NP_WARMUP;
  np_writeset_ref(ws);
  enum np_outcome outcome = apply(s, ws);
  int64_t seq = outcome == NP_COMMITTED ? r->seq : -1;
  np_writeset_unref(ws);
  return seq;
}

/* Whether a derived reading and a vendor's of one key are kept apart: in memory, after a start, and in the index of keys. */
static void of_keys(struct np_store **s, const struct np_derivation *by) {
  CHECK(store_derived(*s, 60, "same", by, 1) == 0 && store_reading(*s, "derived", 60, "same") == 0);
  np_store_close(*s);
  *s = open_store();
  CHECK(store_derived(*s, 61, "same", by, 1) == 0 && store_reading(*s, "derived", 61, "same") == 0);
}

static void derived(struct np_store **s, struct np_reader *r) {
  struct seen x = {0};
  struct derived d = {0};
  int64_t cause = store_reading(*s, "derived", 1, "c"), n = 0;
  struct np_derivation by = {.cause = cause, .generation = 4};
  struct np_writeset *none = np_writeset_new();
  struct np_derivation timed = {.generation = 5, .timer = text(none, "quiet"), .key = text(none, "d-1")};
  int64_t a = store_derived(*s, 50, "a", &by, 1), b = store_derived(*s, 51, "b", &by, 7), c = store_derived(*s, 52, "c", &timed, 1);
  CHECK(a > cause && b > a && c > b, "the vendor's key c is another");
  CHECK(store_derived(*s, 53, "a", &by, 1) == 0, "the first counts");
  CHECK(store_derived(*s, 54, NULL, &by, 1) == -1 && store_derived(*s, 54, "z", &by, 8) == -1);
  CHECK(np_reader_reading(r, b, see_reading, &x, NULL) == 0 && x.last.depth == 7 && x.last.quality == NP_WARMUP &&
        !x.last.derivation);
  CHECK(np_reader_derived_from(r, cause, 0, 8, see_derivation, &d, NULL) == 0 && d.count == 2 && d.readings[0] == a &&
        d.readings[1] == b && d.generation == 4);
  CHECK(np_reader_derived_count(r, cause, &n, NULL) == 0 && n == 2);
  d.count = 0;
  CHECK(np_reader_derived_from(r, cause, a, 1, see_derivation, &d, NULL) == 0 && d.count == 1 && d.readings[0] == b);
  d.count = 0;
  CHECK(np_reader_derivation(r, c, see_derivation, &d, NULL) == 0 && d.count == 1 && d.cause == 0 && !strcmp(d.timer, "quiet") &&
        !strcmp(d.key, "d-1"));
  CHECK(np_reader_derivation(r, cause, see_derivation, &d, NULL) == 0 && d.count == 1, "a vendor's has none");
  CHECK(np_reader_derived_from(r, 0, 0, 8, see_derivation, &d, NULL) == 0 && d.count == 1, "timers' causes are no reading");
  CHECK(store_derived(*s, 60, "same", NULL, 1) > 0 && store_reading(*s, "derived", 60, "same") > 0);
  of_keys(s, &by);
  struct np_writeset *many = np_writeset_new();
  for (int i = 0; i < 5000; i++) add_reading(many, "others", i, NULL, 1);
  CHECK(apply(*s, many) == NP_COMMITTED && ask("SELECT indexed > 5000 FROM counters") == 1);
  of_keys(s, &by);
  np_writeset_unref(none);
}

static void requests(struct np_store *s) {
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 2; i++) {
    struct np_op *op = np_writeset_add(ws, NP_OP_REQUEST);
    op->as.request.instance = text(ws, "bay"), op->as.request.method = text(ws, "POST"), op->as.request.target = text(ws, "/x?y=1");
    op->as.request.headers = text(ws, "A: b\n"), op->as.request.remote = text(ws, "127.0.0.1"),
    op->as.request.outcome = text(ws, "done");
    op->as.request.body = i ? np_writeset_text(ws, "\xff\0z", 3) : text(ws, "{}");
    op->as.request.received = 1000 + i, op->as.request.generation = 4, op->as.request.status = 204;
    add_reading(ws, "req", i, NULL, 1);
  }
  np_writeset_ref(ws);
  CHECK(apply(s, ws) == NP_COMMITTED && ws->request_id == 2);
  CHECK(ask("SELECT request FROM readings WHERE device = 'req' AND at = 0") == 1);
  CHECK(ask("SELECT request FROM readings WHERE device = 'req' AND at = 1") == 2);
  CHECK(ask("SELECT count(*) FROM inbox WHERE instance = 'bay' AND method = 'POST' AND target = '/x?y=1' AND headers = 'A: b' || "
            "char(10)"
            " AND generation = 4 AND status = 204 AND outcome = 'done' AND error IS NULL") == 2);
  CHECK(ask("SELECT count(*) FROM inbox WHERE body = '{}' OR body = x'ff007a'") == 2, "a body is kept byte for byte");
  np_writeset_unref(ws);
}

static void news(struct np_store *s, const char *status, const char *place, int online, int64_t at) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_DEVICE);
  op->as.device.vendor = text(ws, "tideco"), op->as.device.device = text(ws, "dev"), op->as.device.connection = text(ws, "bay");
  op->as.device.status = text(ws, status), op->as.device.place = text(ws, place), op->as.device.online = online,
  op->as.device.at = at;
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static bool see_device(void *arg, const struct np_device *d) {
  struct seen *s = arg;
  if (!is(d->device, "dev")) return true;
  s->count++;
  s->seq = d->online, s->at = d->first_seen, s->version = d->last_seen;
  keep(s, 0, d->status), keep(s, 1, d->place), keep(s, 2, d->vendor), keep(s, 3, d->connection), keep(s, 4, d->name);
  return true;
}

static void devices(struct np_store *s, struct np_reader *r) {
  news(s, "ok", "pier", -1, 1000);
  news(s, NULL, NULL, 1, 2000);
  struct seen x = {0};
  CHECK(np_reader_devices(r, 0, 1000, see_device, &x, NULL) == 0 && x.count == 1 && x.seq == 1 && x.at == 1000 &&
        x.version == 2000);
  CHECK(!strcmp(x.texts[0], "ok") && !strcmp(x.texts[1], "pier") && !strcmp(x.texts[2], "tideco") && !strcmp(x.texts[3], "bay") &&
        !strcmp(x.texts[4], "(absent)"));
  news(s, "bad", "sea", 0, 1500);
  CHECK(np_reader_devices(r, 0, 1000, see_device, &x, NULL) == 0 && !strcmp(x.texts[0], "ok") && x.seq == 1,
        "old news change nothing");
  news(s, "low", NULL, -1, 3000);
  CHECK(np_reader_devices(r, 0, 1000, see_device, &x, NULL) == 0 && !strcmp(x.texts[0], "low") && !strcmp(x.texts[1], "pier") &&
        x.seq == 1);
  store_reading(s, "dev", 9000, NULL);
  CHECK(np_reader_devices(r, 0, 1000, see_device, &x, NULL) == 0 && x.version == 9007,
        "a reading's receipt is when it was last heard of");
  CHECK(ask("SELECT count(*) FROM devices WHERE device = 'dev' AND status = 'low' AND last_seen = 9007") == 1);
}

/* News that repeat what is known write nothing, but still count as the newest. */
static void unchanged_news(struct np_store *s) {
  news(s, "same", NULL, -1, 20000);
  struct stat before, after;
  char wal[80];
  snprintf(wal, sizeof wal, "%s-wal", test_path);
  CHECK(stat(wal, &before) == 0);
  news(s, "same", NULL, -1, 30000);
  CHECK(stat(wal, &after) == 0 && before.st_size == after.st_size, "nothing was written");
  news(s, "late", NULL, -1, 25000);
  CHECK(ask("SELECT status = 'same' FROM devices WHERE device = 'dev'") == 1);
}

static void events(struct np_store *s) {
  for (int i = 0; i < 4; i++) {
    struct np_writeset *ws = np_writeset_new();
    struct np_op *op = np_writeset_add(ws, NP_OP_EVENT);
    op->as.event.vendor = text(ws, "tideco"), op->as.event.device = text(ws, "eventful"), op->as.event.type = text(ws, "flood");
    op->as.event.key = i < 2 ? (struct np_text){0} : text(ws, "k"), op->as.event.at = 5,
    op->as.event.data = text(ws, i ? "{}" : "[1]");
    CHECK(apply(s, ws) == NP_COMMITTED);
  }
  CHECK(ask("SELECT count(*) FROM events WHERE device = 'eventful' AND type = 'flood' AND vendor = 'tideco'") == 2);
  CHECK(ask("SELECT data = '[1]' FROM events WHERE device = 'eventful' AND key = ''") == 1, "the first counts");
}

static void serial(struct np_store *s, int64_t at, int64_t number) {
  struct np_writeset *ws = np_writeset_new();
  add_reading(ws, "counter", at, NULL, 1)->serial = number;
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static void gaps(struct np_store *s) {
  const char *count = "SELECT count(*) FROM events WHERE device = 'counter' AND type = 'gap'";
  serial(s, 10, 1), serial(s, 20, 2), serial(s, 30, 5);
  CHECK(ask(count) == 1 && ask("SELECT at = 30 AND json_extract(data, '$.from') = 3 AND json_extract(data, '$.to') = 4"
                               " FROM events WHERE device = 'counter'") == 1);
  serial(s, 25, 3), serial(s, 40, 6), serial(s, 50, 6);
  CHECK(ask(count) == 1, "what comes late, or says the same number, makes no gap");
  serial(s, 60, 1);
  CHECK(ask(count) == 1, "a new count");
  serial(s, 70, 3);
  CHECK(ask(count) == 2);
}

static void key_values(struct np_store *s, struct np_reader *r) {
  CHECK(version_of(r, "a", NULL, NOW) == 0);
  CHECK(put(s, "a", "one", 0, 0) == NP_COMMITTED);
  int64_t v1 = version_of(r, "a", "one", NOW);
  CHECK(v1 > 0 && put(s, "a", "two", 0, 0) == NP_CONFLICT && put(s, "a", "two", 0, v1 + 1) == NP_CONFLICT);
  CHECK(put(s, "a", "two", 0, v1) == NP_COMMITTED);
  int64_t v2 = version_of(r, "a", "two", NOW);
  CHECK(v2 > v1 && put(s, "a", NULL, 0, v1) == NP_CONFLICT && put(s, "a", NULL, 0, v2) == NP_COMMITTED);
  CHECK(version_of(r, "a", NULL, NOW) == 0 && put(s, "a", "three", 0, v2) == NP_CONFLICT);
  CHECK(put(s, "a", "two", 0, -1) == NP_COMMITTED && version_of(r, "a", "two", NOW) > v2, "a new version after a deletion");
  CHECK(put(s, "soon", "x", NOW, -1) == NP_COMMITTED);
  CHECK(version_of(r, "soon", "x", NOW - 1) > 0 && version_of(r, "soon", NULL, NOW) > 0);
  CHECK(put(s, "", "", 0, 0) == NP_COMMITTED && version_of(r, "", "", NOW) > 0, "an empty value is there");
}

static bool see_key(void *arg, struct np_text key, struct np_text value, int64_t version) {
  struct seen *s = arg;
  if (s->count < 8) snprintf(s->texts[s->count], 80, "%s=%s", key.ptr, value.ptr);
  s->version = version;
  return ++s->count != s->stop;
}

static void key_ranges(struct np_store *s, struct np_reader *r) {
  const char *keys[] = {"p/b", "p/a", "p", "q", "p/\xff", "p/c"};
  for (int i = 0; i < 6; i++) CHECK(put(s, keys[i], "v", i == 5 ? NOW : 0, -1) == NP_COMMITTED);
  struct seen x = {0};
  CHECK(np_reader_keys(r, "space", "p/", NULL, NOW, 100, see_key, &x, NULL) == 0 && x.count == 3);
  CHECK(!strcmp(x.texts[0], "p/a=v") && !strcmp(x.texts[1], "p/b=v") && !strcmp(x.texts[2], "p/\xff=v"));
  x = (struct seen){0};
  CHECK(np_reader_keys(r, "space", "p/", NULL, NOW - 1, 3, see_key, &x, NULL) == 0 && x.count == 3 && !strcmp(x.texts[2], "p/c=v"));
  x = (struct seen){.stop = 2};
  CHECK(np_reader_keys(r, "space", "", NULL, NOW, 100, see_key, &x, NULL) == 0 && x.count == 2);
  x = (struct seen){0};
  CHECK(np_reader_keys(r, "elsewhere", "", NULL, NOW, 100, see_key, &x, NULL) == 0 && x.count == 0);
}

static enum np_outcome timer(struct np_store *s, enum np_op_kind kind, const char *key, int64_t due) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, kind);
  op->as.arm.instance = text(ws, "rule"), op->as.arm.name = text(ws, "silence"), op->as.arm.key = text(ws, key);
  op->as.arm.due = due; /* FIRED has the same shape */
  return apply(s, ws);
}

static bool see_timer(void *arg, const struct np_timer *t) {
  struct seen *s = arg;
  s->at = t->due;
  keep(s, 0, t->instance), keep(s, 1, t->name), keep(s, 2, t->key);
  return ++s->count != s->stop;
}

static void timers(struct np_store *s, struct np_reader *r) {
  CHECK(np_reader_timer_next(r, 0) == INT64_MAX && np_reader_timer_count(r) == 0);
  timer(s, NP_OP_ARM, "d1", 300), timer(s, NP_OP_ARM, "d2", 200), timer(s, NP_OP_ARM, "d1", 100), timer(s, NP_OP_ARM, NULL, 400);
  struct seen x = {.stop = 1};
  CHECK(np_reader_timers_due(r, 200, 10, see_timer, &x, NULL) == 0 && x.at == 100 && !strcmp(x.texts[2], "d1") &&
        !strcmp(x.texts[1], "silence"));
  x = (struct seen){0};
  CHECK(np_reader_timers_due(r, 200, 10, see_timer, &x, NULL) == 0 && x.count == 2 && x.at == 200);
  CHECK(np_reader_timer_next(r, 100) == 200 && np_reader_timer_next(r, 99) == 100 && np_reader_timer_count(r) == 3);
  CHECK(timer(s, NP_OP_FIRED, "d1", 300) == NP_CONFLICT && timer(s, NP_OP_FIRED, "d9", 0) == NP_CONFLICT);
  CHECK(timer(s, NP_OP_FIRED, "d1", 100) == NP_COMMITTED && timer(s, NP_OP_FIRED, "d1", 100) == NP_CONFLICT);
  CHECK(timer(s, NP_OP_ARM, "d2", 0) == NP_COMMITTED && timer(s, NP_OP_FIRED, "d2", 200) == NP_CONFLICT);
  CHECK(timer(s, NP_OP_FIRED, NULL, 400) == NP_COMMITTED && np_reader_timer_count(r) == 0);
  timer(s, NP_OP_ARM, "again", 10); /* a timer that arms itself again */
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 2; i++) {
    struct np_op *op = np_writeset_add(ws, i ? NP_OP_FIRED : NP_OP_ARM);
    op->as.arm.instance = text(ws, "rule"), op->as.arm.name = text(ws, "silence"), op->as.arm.key = text(ws, "again"),
    op->as.arm.due = i ? 10 : 20;
  }
  CHECK(apply(s, ws) == NP_COMMITTED && np_reader_timer_next(r, 0) == 20);
  timer(s, NP_OP_ARM, "again", 0);
}

static enum np_outcome cursor(struct np_store *s, int partition, int64_t from, int64_t seq) {
  struct np_writeset *ws = np_writeset_new();
  add_cursor(ws, partition, from, seq);
  return apply(s, ws);
}

static void cursors(struct np_store *s, struct np_reader *r) {
  int64_t c[NP_PARTITIONS];
  CHECK(np_reader_cursors(r, c, NULL) == 0 && c[0] == 0 && c[63] == 0);
  CHECK(cursor(s, 63, 1, 5) == NP_CONFLICT && cursor(s, 63, 0, 5) == NP_COMMITTED && cursor(s, 63, 0, 6) == NP_CONFLICT);
  CHECK(cursor(s, 63, 5, 9) == NP_COMMITTED && cursor(s, 64, 0, 1) == NP_FAILED && cursor(s, -1, 0, 1) == NP_FAILED);
  struct np_writeset *ws = np_writeset_new();
  add_cursor(ws, 0, 0, 3);
  add_cursor(ws, 0, 3, 4);
  CHECK(apply(s, ws) == NP_COMMITTED, "a set may go on from its own step");
  CHECK(np_reader_cursors(r, c, NULL) == 0 && c[0] == 4 && c[63] == 9 && c[1] == 0);
}

static bool see_held(void *arg, const struct np_held *h) {
  struct seen *s = arg;
  s->seq = h->id, s->at = h->reading, s->version = h->generation;
  keep(s, 0, h->instance), keep(s, 1, h->name), keep(s, 2, h->key), keep(s, 3, h->error);
  return ++s->count != s->stop;
}

static enum np_outcome let_go(struct np_store *s, int64_t id) {
  struct np_writeset *ws = np_writeset_new();
  np_writeset_add(ws, NP_OP_RELEASE)->as.release.id = id;
  return apply(s, ws);
}

static void held(struct np_store *s, struct np_reader *r) {
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 3; i++) {
    struct np_op *op = np_writeset_add(ws, NP_OP_HOLD);
    op->as.hold.instance = text(ws, i < 2 ? "rule" : "another"), op->as.hold.error = text(ws, "boom"), op->as.hold.generation = 2;
    if (i == 1)
      op->as.hold.name = text(ws, "silence"), op->as.hold.key = text(ws, "d1");
    else
      op->as.hold.reading = 77;
  }
  CHECK(apply(s, ws) == NP_COMMITTED);
  struct seen x = {0};
  CHECK(np_reader_held(r, "rule", 0, 10, see_held, &x, NULL) == 0 && x.count == 2 && x.at == 0 && !strcmp(x.texts[1], "silence") &&
        !strcmp(x.texts[2], "d1"));
  int64_t second = x.seq;
  x = (struct seen){0};
  CHECK(np_reader_held(r, "rule", 0, 1, see_held, &x, NULL) == 0 && x.at == 77 && x.version == 2 &&
        !strcmp(x.texts[1], "(absent)") && !strcmp(x.texts[3], "boom"));
  CHECK(np_reader_held_count(r, "rule") == 2 && np_reader_held_count(r, NULL) == 3 && np_reader_held_count(r, "none") == 0);
  CHECK(let_go(s, second) == NP_COMMITTED && let_go(s, second) == NP_CONFLICT && np_reader_held_count(r, "rule") == 1);
  x = (struct seen){0};
  CHECK(np_reader_held(r, "rule", x.seq, 10, see_held, &x, NULL) == 0 && x.count == 1);
}

static bool see_message(void *arg, const struct np_message *m) {
  struct seen *s = arg;
  s->seq = m->seq, s->at = m->due, s->version = m->attempts;
  keep(s, 0, m->id), keep(s, 1, m->destination), keep(s, 2, m->device), keep(s, 3, m->body), keep(s, 4, m->source);
  return ++s->count != s->stop;
}

static bool see_text(void *arg, struct np_text t) {
  struct seen *s = arg;
  if (s->count < 8) keep(s, s->count, t);
  return ++s->count != s->stop;
}

static bool decide_dead(struct np_store *s, int64_t seq, char action) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_DEAD);
  op->as.dead.seq = seq, op->as.dead.action = action, op->as.dead.at = 7000, op->as.dead.by = text(ws, "a person");
  np_writeset_ref(ws);
  CHECK(apply(s, ws) == NP_COMMITTED);
  bool done = op->as.dead.done;
  np_writeset_unref(ws);
  return done;
}

static void try_at(struct np_store *s, int64_t seq, int n, char state) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_SENT);
  op->as.sent.seq = seq, op->as.sent.state = state, op->as.sent.attempts = n, op->as.sent.at = 1000 + n;
  op->as.sent.error = text(ws, "no");
  op->as.sent.attempt = (struct np_attempt){.n = n, .at = 1000 + n, .took = 5, .generation = 2, .status = 503, .batch = 1};
  op->as.sent.attempt.outcome = text(ws, state == 'd' ? "delivered" : "again");
  op->as.sent.attempt.answer = text(ws, "closed");
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static bool see_attempt(void *arg, const struct np_attempt *a) {
  struct seen *s = arg;
  CHECK(a->at == 1000 + a->n && a->took == 5 && a->generation == 2 && a->status == 503 && !strcmp(a->answer.ptr, "closed"));
  if (!s->count) s->seq = a->n;
  s->at = a->n;
  return ++s->count != s->stop;
}

static bool see_sent(void *arg, const struct np_sent *m) {
  struct seen *s = arg;
  s->seq = m->message.seq;
  s->version = m->state;
  s->count++;
  return true;
}

/* The first attempt and the newest 20 are kept, and go with the message. */
static void attempts(struct np_store *s, struct np_reader *r) {
  int64_t a = send_to(s, "tried", "d1");
  for (int n = 1; n <= 25; n++) try_at(s, a, n, 'r');
  struct seen x = {0};
  CHECK(np_reader_attempts(r, a, see_attempt, &x, NULL) == 0 && x.count == 21 && x.seq == 1 && x.at == 25);
  CHECK(np_reader_message(r, "msg", see_sent, &x, NULL) == 1 && np_reader_message(r, "none", see_sent, &x, NULL) == 0);
  try_at(s, a, 26, 'd');
  x = (struct seen){0};
  CHECK(np_reader_attempts(r, a, see_attempt, &x, NULL) == 0 && x.count == 21 && x.at == 26);
  try_at(s, a, 27, 'r');
  CHECK(ask("SELECT max(n) FROM attempts") == 26, "none of a message that is no longer pending");
  const struct np_keep keep_none[NP_KEPT_KINDS] = {[NP_KEPT_DELIVERED] = {.age = 1}};
  struct np_pruned pruned;
  CHECK(np_store_prune(s, keep_none, INT64_MAX, 0, &pruned, NULL) > 0 && ask("SELECT count(*) FROM attempts") == 0);
}

static void add_expiring(struct np_store *s, const char *device, int64_t expires) {
  struct np_writeset *ws = np_writeset_new();
  struct np_message *m = &np_writeset_add(ws, NP_OP_SEND)->as.send;
  m->id = text(ws, "e"), m->destination = text(ws, "late"), m->device = text(ws, device), m->body = text(ws, "{}");
  m->expires = expires;
  CHECK(apply(s, ws) == NP_COMMITTED);
}

static void expiry(struct np_store *s, struct np_reader *r) {
  CHECK(np_reader_next_expiry(r, 0) == INT64_MAX);
  add_expiring(s, "x", 0), add_expiring(s, "x", 300), add_expiring(s, "x", 200), add_expiring(s, "y", 200),
      add_expiring(s, "y", 900);
  struct seen x = {0};
  CHECK(np_reader_next_expiry(r, 0) == 200 && np_reader_next_expiry(r, 300) == 900);
  CHECK(np_reader_expired(r, 300, INT64_MIN, 0, 10, see_message, &x, NULL) == 0 && x.count == 3);
  int64_t first = ask("SELECT min(seq) FROM outbox WHERE expires = 200");
  x = (struct seen){0};
  CHECK(np_reader_expired(r, 300, 200, first, 10, see_message, &x, NULL) == 0 && x.count == 2, "after a place");
  x = (struct seen){0};
  CHECK(np_reader_expired_of(r, "late", "x", false, 300, 10, see_message, &x, NULL) == 0 && x.count == 2 &&
        !strcmp(x.texts[2], "x"));
  int64_t seq = ask("SELECT min(seq) FROM outbox WHERE expires = 300");
  sent(s, seq, 'x');
  x = (struct seen){0};
  struct np_dead_filter f = {.id = "e", .destination = "late", .from = 1000, .to = 1000};
  CHECK(np_reader_dead(r, &f, 10, see_sent, &x, NULL) == 0 && x.count == 1 && x.seq == seq && x.version == 'x');
  f.to = 999;
  CHECK(np_reader_dead(r, &f, 10, see_sent, &x, NULL) == 0 && x.count == 1);
}

/* Messages of replays stand apart; what no reading led to is found by what it is about. */
static void replayed(struct np_store *s, struct np_reader *r) {
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 4; i++) {
    struct np_message *m = &np_writeset_add(ws, NP_OP_SEND)->as.send;
    m->id = text(ws, i < 2 ? "live" : "past"), m->destination = text(ws, "apart"), m->device = text(ws, i % 2 ? "d1" : "d0");
    m->body = text(ws, "{}"), m->source = text(ws, "rule"), m->replayed = i < 2 ? 0 : 7, m->about = 1000 + i;
    m->expires = i == 2 ? 50 : 0;
  }
  CHECK(apply(s, ws) == NP_COMMITTED);
  struct seen x = {0};
  CHECK(np_reader_outbox_head(r, "apart", "d0", false, 10, see_message, &x, NULL) == 0 && x.count == 1 &&
        !strcmp(x.texts[0], "live"));
  x = (struct seen){0};
  CHECK(np_reader_outbox_head(r, "apart", "d0", true, 10, see_message, &x, NULL) == 0 && x.count == 1 &&
        !strcmp(x.texts[0], "past"));
  x = (struct seen){0};
  CHECK(np_reader_outbox_devices(r, "apart", true, see_text, &x, NULL) == 0 && x.count == 2 && !strcmp(x.texts[1], "d1"));
  x = (struct seen){0};
  CHECK(np_reader_expired_of(r, "apart", "d0", false, 100, 10, see_message, &x, NULL) == 0 && x.count == 0);
  CHECK(np_reader_expired_of(r, "apart", "d0", true, 100, 10, see_message, &x, NULL) == 0 && x.count == 1);
  CHECK(np_reader_replay_pending(r, 7) == 2 && np_reader_replay_pending(r, 8) == 0);
  int64_t seq = ask("SELECT seq FROM outbox WHERE about = 1003");
  sent(s, seq, 'd');
  x = (struct seen){0};
  CHECK(np_reader_messages_about(r, 1003, see_sent, &x, NULL) == 0 && x.count == 1 && x.seq == seq && x.version == 'd');
  CHECK(np_reader_messages_about(r, 1004, see_sent, &x, NULL) == 0 && x.count == 1);
  CHECK(np_reader_replay_pending(r, 7) == 1);
  CHECK(ask("SELECT count(*) FROM pragma_index_info('outbox_order')") == 4);
  while ((seq = ask("SELECT coalesce(min(seq), 0) FROM outbox WHERE destination = 'apart'")) > 0) sent(s, seq, 'd');
}

static void outbox(struct np_store *s, struct np_reader *r) {
  int64_t a = send_to(s, "desk", "d1"), b = send_to(s, "desk", "d1"), c = send_to(s, "desk", NULL), d = send_to(s, "other", "d9");
  CHECK(a > 0 && b > a && c > b && d > c);
  struct seen x = {0};
  CHECK(np_reader_outbox_devices(r, "desk", false, see_text, &x, NULL) == 0 && x.count == 2 && !strcmp(x.texts[0], "") &&
        !strcmp(x.texts[1], "d1"));
  x = (struct seen){0};
  CHECK(np_reader_outbox_devices(r, "none", false, see_text, &x, NULL) == 0 && x.count == 0);
  x = (struct seen){.stop = 1};
  CHECK(np_reader_outbox_head(r, "desk", "d1", false, 10, see_message, &x, NULL) == 0 && x.seq == a && x.at == 20 &&
        x.version == 0);
  CHECK(!strcmp(x.texts[0], "msg") && !strcmp(x.texts[1], "desk") && !strcmp(x.texts[2], "d1") && !strcmp(x.texts[3], "{}") &&
        !strcmp(x.texts[4], "rule"));
  sent(s, a, 'r');
  CHECK(np_reader_outbox_head(r, "desk", "d1", false, 1, see_message, &x, NULL) == 0 && x.seq == a && x.at == 2000 &&
            x.version == 3,
        "order is kept");
  sent(s, a, 'd');
  CHECK(np_reader_outbox_head(r, "desk", "d1", false, 1, see_message, &x, NULL) == 0 && x.seq == b);
  sent(s, b, 'x');
  CHECK(np_reader_outbox_count(r, "desk", 'p') == 1 && np_reader_outbox_count(r, "desk", 'd') == 1 &&
        np_reader_outbox_count(r, "desk", 'x') == 1);
  CHECK(ask("SELECT count(*) FROM delivered WHERE status = 503 AND attempts = 3 AND at = 1000 AND device = 'd1'") == 1);
  CHECK(ask("SELECT count(*) FROM dead WHERE error = 'busy' AND attempts = 3 AND reading = 5") == 1);
  sent(s, a, 'd'), sent(s, a, 'x'), sent(s, a, 'r');
  CHECK(ask("SELECT count(*) FROM delivered") == 1 && ask("SELECT count(*) FROM dead") == 1, "what is delivered stays so");
  CHECK(decide_dead(s, b, 'r') && !decide_dead(s, a, 'r'));
  x = (struct seen){0};
  CHECK(np_reader_outbox_head(r, "desk", "d1", false, 1, see_message, &x, NULL) == 0 && x.count == 1 && x.seq == b && x.at == 0,
        "a dead letter is tried again");
  CHECK(np_reader_outbox_count(r, "desk", 'x') == 0);
  CHECK(ask("SELECT since FROM outbox WHERE device = 'd1'") == 7000, "its age counts anew");
  sent(s, b, 'x');
  CHECK(decide_dead(s, b, 'x') && np_reader_outbox_count(r, "desk", 'x') == 0);
  CHECK(ask("SELECT count(*) FROM dropped WHERE dropped = 7000 AND by = 'a person' AND error = 'busy'") == 1,
        "what is dropped is kept");
  CHECK(!decide_dead(s, b, 'x') && !decide_dead(s, b, 'r'));
  sent(s, b, 'd'), sent(s, c, 'd'), sent(s, d, 'd');
  CHECK(send_to(s, "desk", "d1") > d && np_reader_outbox_count(r, "desk", 'p') == 1);
}

static void see_generation(void *arg, const struct np_generation *g) {
  struct seen *s = arg;
  s->seq = g->number, s->at = g->at;
  keep(s, 0, g->instance), keep(s, 1, g->file), keep(s, 2, g->hash), keep(s, 3, g->source), keep(s, 4, g->verdict),
      keep(s, 5, g->reason);
}

static void generations(struct np_store *s, struct np_reader *r) {
  for (int i = 1; i <= 3; i++) {
    struct np_writeset *ws = np_writeset_new();
    struct np_op *op = np_writeset_add(ws, NP_OP_GENERATION);
    op->as.generation.instance = text(ws, "bay"), op->as.generation.file = text(ws, "bay.lua"),
    op->as.generation.hash = text(ws, "abc");
    op->as.generation.source = text(ws, "return 1"), op->as.generation.verdict = text(ws, i == 3 ? "bad" : "good");
    op->as.generation.reason = i == 3 ? text(ws, "syntax") : (struct np_text){0}, op->as.generation.at = i,
    op->as.generation.number = i;
    CHECK(apply(s, ws) == NP_COMMITTED);
  }
  struct seen x = {0};
  CHECK(np_reader_generation(r, "bay", "good", see_generation, &x, NULL) == 1 && x.seq == 2 && !strcmp(x.texts[3], "return 1"));
  CHECK(np_reader_generation(r, "bay", NULL, see_generation, &x, NULL) == 1 && x.seq == 3 && !strcmp(x.texts[5], "syntax") &&
        !strcmp(x.texts[1], "bay.lua"));
  CHECK(np_reader_generation(r, "nobody", NULL, see_generation, &x, NULL) == 0);
}

static void bad_texts(struct np_store *s) {
  struct np_writeset *ws = reading("x", 1, NULL, 1);
  ws->first->as.reading.device = np_writeset_text(ws, "a\0b", 3);
  CHECK(apply(s, ws) == NP_FAILED);
  ws = reading("x", 1, NULL, 0.0 / 0.0);
  CHECK(apply(s, ws) == NP_FAILED, "what is not a number is no value");
  ws = np_writeset_new();
  np_writeset_add(ws, NP_OP_SEND);
  CHECK(apply(s, ws) == NP_FAILED);
  ws = np_writeset_new();
  np_writeset_add(ws, NP_OP_DEVICE);
  CHECK(apply(s, ws) == NP_FAILED);
  ws = np_writeset_new();
  np_writeset_add(ws, NP_OP_EVENT);
  CHECK(apply(s, ws) == NP_FAILED);
  CHECK(apply(s, np_writeset_new()) == NP_COMMITTED, "an empty set is fine");
}

int main(void) {
  test_begin();
  struct np_store *s = open_store();
  struct np_reader *r = open_reader();
  CHECK(np_reader_last_seq(r) == 0);
  identity(s);
  reading_fields(s, r);
  history(s, r);
  requests(s);
  devices(s, r);
  unchanged_news(s);
  events(s);
  gaps(s);
  key_values(s, r);
  key_ranges(s, r);
  timers(s, r);
  cursors(s, r);
  held(s, r);
  outbox(s, r);
  replayed(s, r);
  attempts(s, r);
  expiry(s, r);
  generations(s, r);
  bad_texts(s);
  derived(&s, r);
  np_reader_close(r);
  np_store_close(s);
  return test_end();
}
