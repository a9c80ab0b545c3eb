/* What the store's tests share: a directory of their own, sets, and readers that count. */
#ifndef NP_SPEC_STORE_SETS_H
#define NP_SPEC_STORE_SETS_H

#include <dirent.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "store/store.h"

#define UNUSED __attribute__((unused))

static char test_dir[] = "/tmp/neap-store-XXXXXX";
static char test_path[64];

UNUSED static void test_begin(void) {
  if (!mkdtemp(test_dir)) abort();
  snprintf(test_path, sizeof test_path, "%s/s.db", test_dir);
}

UNUSED static void test_clear(void) {
  DIR *d = opendir(test_dir);
  for (struct dirent *e; (e = readdir(d));) unlinkat(dirfd(d), e->d_name, 0);
  closedir(d);
}

UNUSED static int test_end(void) {
  test_clear();
  rmdir(test_dir);
  return check_end();
}

UNUSED static struct np_text text(struct np_writeset *ws, const char *s) { return np_writeset_text(ws, s, s ? strlen(s) : 0); }

UNUSED static bool is(struct np_text t, const char *s) {
  return s ? t.ptr && t.len == strlen(s) && !memcmp(t.ptr, s, t.len) && !t.ptr[t.len] : !t.ptr;
}

/* A reading of device's glucose; key NULL for none. */
UNUSED static struct np_reading *add_reading(struct np_writeset *ws, const char *device, int64_t at, const char *key,
                                             double value) {
  struct np_reading *r = &np_writeset_add(ws, NP_OP_READING)->as.reading;
  *r = (struct np_reading){.vendor = text(ws, "tideco"),
                           .connection = text(ws, "bay"),
                           .device = text(ws, device),
                           .metric = text(ws, "level"),
                           .unit = text(ws, "m"),
                           .at = at,
                           .received = at + 7,
                           .key = text(ws, key),
                           .serial = INT64_MIN,
                           .value = {.type = NP_NUMBER_REAL, .d = value}};
  return r;
}

UNUSED static void add_put(struct np_writeset *ws, const char *key, const char *value, int64_t expires) {
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = text(ws, "space");
  op->as.put.key = text(ws, key);
  op->as.put.value = text(ws, value);
  op->as.put.expires = expires;
}

UNUSED static void add_seen(struct np_writeset *ws, const char *key, int64_t version) {
  struct np_op *op = np_writeset_add(ws, NP_OP_SEEN);
  op->as.seen.space = text(ws, "space");
  op->as.seen.key = text(ws, key);
  op->as.seen.version = version;
}

UNUSED static void add_cursor(struct np_writeset *ws, int partition, int64_t from, int64_t seq) {
  struct np_op *op = np_writeset_add(ws, NP_OP_CURSOR);
  op->as.cursor.partition = partition;
  op->as.cursor.from = from;
  op->as.cursor.seq = seq;
}

/* Applies one set and lets it go. */
UNUSED static enum np_outcome apply(struct np_store *s, struct np_writeset *ws) {
  struct np_error err = {""};
  np_store_apply(s, &ws, 1, &err);
  enum np_outcome outcome = ws->outcome;
  np_writeset_unref(ws);
  return outcome;
}

UNUSED static struct np_store *open_store(void) {
  struct np_error err = {""};
  struct np_store *s = np_store_open(test_path, &err);
  CHECK(s, "%s", err.text);
  if (!s) exit(check_end());
  return s;
}

UNUSED static struct np_reader *open_reader(void) {
  struct np_error err = {""};
  struct np_reader *r = np_reader_open(test_path, &err);
  CHECK(r, "%s", err.text);
  if (!r) exit(check_end());
  return r;
}

/* What a person with the sqlite3 shell sees: the first number that a statement gives, -1 where it fails. */
UNUSED static int64_t ask(const char *sql) {
  sqlite3 *db;
  sqlite3_stmt *st = NULL;
  int64_t n = -1;
  sqlite3_open_v2(test_path, &db, SQLITE_OPEN_READWRITE, NULL);
  sqlite3_busy_timeout(db, 5000);
  int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  if (rc == SQLITE_ROW)
    n = sqlite3_column_int64(st, 0);
  else if (rc == SQLITE_DONE)
    n = 0;
  else
    fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
  sqlite3_finalize(st);
  sqlite3_close(db);
  return n;
}

enum { NOW = 1700000000 };

struct seen { /* what a reader's callback saw */
  int count, stop;
  int64_t seq, at, version;
  struct np_reading last;
  char texts[8][80];
};

UNUSED static void keep(struct seen *s, int i, struct np_text t) {
  snprintf(s->texts[i], sizeof s->texts[i], "%s", t.ptr ? t.ptr : "(absent)");
}

UNUSED static bool see_reading(void *arg, const struct np_reading *r) {
  struct seen *s = arg;
  s->last = *r;
  s->seq = r->seq;
  s->at = r->at;
  keep(s, 0, r->vendor), keep(s, 1, r->connection), keep(s, 2, r->device), keep(s, 3, r->metric), keep(s, 4, r->unit);
  keep(s, 5, r->key), keep(s, 6, r->extra), keep(s, 7, r->value.type == NP_STRING ? r->value.s : (struct np_text){0});
  return ++s->count != s->stop;
}

UNUSED static struct np_writeset *reading(const char *device, int64_t at, const char *key, double value) {
  struct np_writeset *ws = np_writeset_new();
  add_reading(ws, device, at, key, value);
  return ws;
}

/* Applies and gives the reading's seq: 0 for a duplicate. */
UNUSED static int64_t store_reading(struct np_store *s, const char *device, int64_t at, const char *key) {
  struct np_writeset *ws = reading(device, at, key, 1.5);
  struct np_error err;
  CHECK(np_store_apply(s, &ws, 1, &err) == 0 && ws->outcome == NP_COMMITTED);
  int64_t seq = ws->first->as.reading.seq;
  CHECK(ws->fresh == (seq != 0));
  np_writeset_unref(ws);
  return seq;
}

UNUSED static int64_t version_of(struct np_reader *r, const char *key, const char *expect, int64_t now) {
  struct np_buf b = {0};
  int64_t version = -1;
  int found = np_reader_get(r, "space", key, strlen(key), now, &b, &version, NULL);
  CHECK(found == (expect != NULL), "%s", key);
  if (expect) CHECK(!strcmp(np_buf_text(&b), expect), "%s", np_buf_text(&b));
  np_buf_free(&b);
  return version;
}

UNUSED static enum np_outcome put(struct np_store *s, const char *key, const char *value, int64_t expires, int64_t seen) {
  struct np_writeset *ws = np_writeset_new();
  if (seen >= 0) add_seen(ws, key, seen);
  add_put(ws, key, value, expires);
  return apply(s, ws);
}

UNUSED static int64_t send_to(struct np_store *s, const char *destination, const char *device) {
  struct np_writeset *ws = np_writeset_new();
  struct np_message *m = &np_writeset_add(ws, NP_OP_SEND)->as.send;
  *m = (struct np_message){.id = text(ws, "msg"),
                           .destination = text(ws, destination),
                           .device = text(ws, device),
                           .body = text(ws, "{}"),
                           .source = text(ws, "rule"),
                           .reading = 5,
                           .created = 10,
                           .due = 20};
  np_writeset_ref(ws);
  CHECK(apply(s, ws) == NP_COMMITTED);
  int64_t seq = m->seq;
  np_writeset_unref(ws);
  return seq;
}

UNUSED static void sent(struct np_store *s, int64_t seq, char state) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_SENT);
  op->as.sent.seq = seq, op->as.sent.state = state, op->as.sent.attempts = 3, op->as.sent.status = 503, op->as.sent.at = 1000,
  op->as.sent.due = 2000;
  op->as.sent.error = text(ws, "busy");
  CHECK(apply(s, ws) == NP_COMMITTED);
}

#endif
