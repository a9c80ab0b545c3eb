/* Transactions of the SQLite engine: many sets in one commit, a set whole or not at all.
 *
 * A commit that fails is undone, and its pages in the WAL are written over by the next one. Only where the disk refused nothing but
 * the fsync, and the process then dies before another commit, can such a set come back at the next start: whole, and what is told as
 * failed is tried again, which a reading's identity, a version or a cursor then recognises. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "store/sqlite.h"

#define ROOM_US 1000000 /* between two tries to make room that were in vain */

static int load_counters(struct np_store *s) {
  sqlite3_stmt *st = np_sql_start(&s->sql, W_COUNTERS, "");
  if (!st) return np_sql_code(&s->sql);
  if (sqlite3_step(st) == SQLITE_ROW)
    s->count = (struct np_counters){sqlite3_column_int64(st, 0),
                                    sqlite3_column_int64(st, 1),
                                    sqlite3_column_int64(st, 2),
                                    sqlite3_column_int64(st, 3),
                                    sqlite3_column_int64(st, 4),
                                    sqlite3_column_int64(st, 5),
                                    {[NP_KEPT_REQUESTS] = sqlite3_column_int64(st, 6),
                                     [NP_KEPT_READINGS] = sqlite3_column_int64(st, 7),
                                     [NP_KEPT_EVENTS] = sqlite3_column_int64(st, 8),
                                     [NP_KEPT_DELIVERED] = sqlite3_column_int64(st, 9),
                                     [NP_KEPT_DEAD] = sqlite3_column_int64(st, 10)}};
  return sqlite3_reset(st);
}

/* Begins, and forgets what is remembered where another program has written since (or a transaction came to nothing). */
static int begin(struct np_store *s) {
  int64_t version = 0;
  s->mono = np_mono_us();
  int rc = np_sql_run(&s->sql, W_BEGIN, "");
  if (rc != SQLITE_OK) return rc;
  rc = np_sql_one(&s->sql, W_CHANGED, &version, "");
  if (rc != SQLITE_ROW) return rc;
  if (version != s->data_version) {
    np_known_forget(s);
    if ((rc = load_counters(s)) != SQLITE_OK) return rc;
    s->data_version = version;
  }
  s->saved = s->count;
  return SQLITE_OK;
}

static int commit(struct np_store *s) {
  const struct np_counters *c = &s->count;
  int rc = np_keys_index(s);
  if (rc != SQLITE_OK) return rc;
  if (memcmp(c, &s->saved, sizeof *c) != 0) {
    const int64_t *bytes = c->bytes;
    rc = np_sql_run(&s->sql, W_SAVE_COUNTERS, "iiiiiiiiiii", c->reading, c->request, c->message, c->held, c->version, c->indexed,
                    bytes[NP_KEPT_REQUESTS], bytes[NP_KEPT_READINGS], bytes[NP_KEPT_EVENTS], bytes[NP_KEPT_DELIVERED],
                    bytes[NP_KEPT_DEAD]);
    if (rc != SQLITE_OK) return rc;
  }
  return np_sql_run(&s->sql, W_COMMIT, "");
}

/* Says why in err, and undoes all. */
static void roll_back(struct np_store *s, int rc, struct np_error *err) {
  np_sql_fail(&s->sql, rc, err);
  if (!sqlite3_get_autocommit(s->sql.db)) np_sql_exec(&s->sql, "ROLLBACK");
  np_known_forget(s);
  s->data_version = -1;
}

/* As it was before: numbers given to readings and messages that are not stored must not stay on them. */
static void unset(struct np_writeset *ws) {
  ws->request_id = 0;
  ws->fresh = ws->too_old = 0;
  for (struct np_op *op = ws->first; op; op = op->next) {
    if (op->kind == NP_OP_READING) op->as.reading.seq = 0;
    if (op->kind == NP_OP_SEND) op->as.send.seq = 0;
    if (op->kind == NP_OP_DEAD) op->as.dead.done = false;
    if (op->kind == NP_OP_ACK) op->as.ack.done = false;
  }
}

static void failed(struct np_writeset *ws, const char *why) {
  unset(ws);
  ws->outcome = NP_FAILED;
  snprintf(ws->error, sizeof ws->error, "%.*s", (int)sizeof ws->error - 1, why);
}

static int apply_one(struct np_store *s, struct np_writeset *ws) {
  bool conflict;
  const char *bad;
  unset(ws);
  ws->error[0] = 0;
  int rc = np_write_check(s, ws, &conflict, &bad);
  if (rc != SQLITE_OK) return rc;
  if (bad) {
    failed(ws, bad);
    return SQLITE_OK;
  }
  ws->outcome = conflict ? NP_CONFLICT : NP_COMMITTED;
  return conflict ? SQLITE_OK : np_write_set(s, ws);
}

/* The same, so that a set that cannot be written harms no other. */
static int apply_apart(struct np_store *s, struct np_writeset *ws) {
  struct np_error why;
  int rc = np_sql_run(&s->sql, W_SAVEPOINT, "");
  if (rc != SQLITE_OK) return rc;
  int failure = apply_one(s, ws);
  if (np_sql_is_store_failure(failure)) return failure;
  if (failure != SQLITE_OK) {
    np_sql_fail(&s->sql, failure, &why);
    failed(ws, why.text);
    np_known_forget(s);
    rc = np_sql_exec(&s->sql, "ROLLBACK TO apart");
  }
  return rc == SQLITE_OK ? np_sql_run(&s->sql, W_RELEASE, "") : rc;
}

static int apply(struct np_store *s, struct np_writeset **sets, size_t n, bool apart, bool *full, struct np_error *err) {
  int rc = begin(s);
  for (size_t i = 0; i < n && rc == SQLITE_OK; i++) rc = apart ? apply_apart(s, sets[i]) : apply_one(s, sets[i]);
  if (rc == SQLITE_OK) rc = commit(s);
  *full = np_sql_is_space(rc);
  if (rc != SQLITE_OK) roll_back(s, rc, err);
  return rc;
}

/* Where the WAL has no room to grow: what is in it is moved into the file, as far as that has room for it, so that the next commit begins the WAL anew in the
 * room that it has. That is done after a commit otherwise, and there is none. True where another try is worth it. */
static bool make_room(struct np_store *s) {
  int64_t now = np_mono_us();
  if (s->room_us && now - s->room_us < ROOM_US) return false;
  s->room_us = now;
  sqlite3_busy_timeout(s->sql.db, 20);
  int rc = sqlite3_wal_checkpoint_v2(s->sql.db, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
  sqlite3_busy_timeout(s->sql.db, 5000);
  return rc == SQLITE_OK || rc == SQLITE_BUSY; /* busy: readers are still in it, and may be gone by then */
}

/* Once more, where there was no room and some could be made. */
static int apply_in_room(struct np_store *s, struct np_writeset **sets, size_t n, bool apart, struct np_error *err) {
  bool full;
  int rc = apply(s, sets, n, apart, &full, err);
  if (rc == SQLITE_OK || !full || !make_room(s)) return rc;
  rc = apply(s, sets, n, apart, &full, err);
  if (rc == SQLITE_OK) s->room_us = 0;
  return rc;
}

int np_store_apply(struct np_store *s, struct np_writeset **sets, size_t n, struct np_error *err) {
  struct np_error why;
  int rc = apply_in_room(s, sets, n, false, &why);
  if (rc != SQLITE_OK && !np_sql_is_store_failure(rc)) rc = apply_in_room(s, sets, n, true, &why);
  if (rc == SQLITE_OK) return 0;
  for (size_t i = 0; i < n; i++) failed(sets[i], why.text);
  return np_fail(err, "%s", why.text);
}

int np_store_prune(struct np_store *s, const struct np_keep keep[NP_KEPT_KINDS], int64_t now, int64_t expired,
                   struct np_pruned *pruned, struct np_error *err) {
  int gone = 0, rc = begin(s);
  *pruned = (struct np_pruned){0};
  if (rc == SQLITE_OK) rc = np_prune_step(s, keep, now, &gone, pruned);
  if (rc == SQLITE_OK) rc = np_sql_run(&s->sql, W_PRUNE_KEYS, "i", expired);
  if (rc == SQLITE_OK) gone += sqlite3_changes(s->sql.db);
  if (rc == SQLITE_OK) rc = commit(s);
  if (rc == SQLITE_OK) return gone;
  bool full = np_sql_is_space(rc);
  roll_back(s, rc, err);
  if (full) make_room(s);
  memset(s->sweeps, 0, sizeof s->sweeps);
  return -1;
}
