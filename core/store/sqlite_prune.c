/* Removing what is past its age or its size: each table is walked from its oldest row on, some hundred rows at a time. Rows that have to stay are
 * passed over, and looked at again a while after the walk's end. */
#include <string.h>

#include "store/sqlite.h"

enum { STEP = 500, STEP_BYTES = 4 << 20, ROUND_US = 60000000 }; /* a step: so many rows, and so much in them, or one row */

enum choice { STOP, STAY, GO };

struct walk {
  const struct np_keep *keep;
  int64_t now;
  enum np_kept kind;
  struct np_pruned *pruned;
  int64_t newest_made; /* of the messages among those that go: ms; 0: there are none */
};

/* Whether a row of that time has outlived what is kept. */
static bool is_past(const struct walk *w, enum np_kept kind, int64_t at) {
  return w->keep[kind].age && at < w->now - w->keep[kind].age;
}

static bool is_over(const struct np_store *s, const struct walk *w) {
  return w->keep[w->kind].size && s->count.bytes[w->kind] > w->keep[w->kind].size;
}

/* Of each kind, from a row as W_OLD_… gives it. */

static int look_at_request(struct np_store *s, struct walk *w, sqlite3_stmt *row, enum choice *c) {
  int64_t received = sqlite3_column_int64(row, 1);
  bool failed = sqlite3_column_int(row, 3);
  bool past = is_past(w, NP_KEPT_REQUESTS, received), failed_past = is_past(w, NP_KEPT_FAILED, received);
  if ((failed ? failed_past : past) || is_over(s, w))
    *c = GO;
  else
    *c = past || failed_past ? STAY : STOP; /* one of the other kind, further on, may be past its age */
  if (*c == GO) w->pruned->failed += failed;
  return SQLITE_OK;
}

/* Delivered, dropped or dead. */
static int look_at_message(struct np_store *s, struct walk *w, sqlite3_stmt *row, enum choice *c) {
  int64_t made = sqlite3_column_int64(row, 3);
  bool may = is_past(w, w->kind, made); /* made so long ago: so may be those behind it */
  *c = is_past(w, w->kind, sqlite3_column_int64(row, 1)) || is_over(s, w) ? GO : may ? STAY : STOP;
  if (*c == GO && w->kind == NP_KEPT_DELIVERED && made > w->newest_made) w->newest_made = made;
  if (*c == GO && w->kind == NP_KEPT_DEAD) w->pruned->dead++;
  return SQLITE_OK;
}

static int look_at_event(struct np_store *s, struct walk *w, sqlite3_stmt *row, enum choice *c) {
  *c = is_past(w, NP_KEPT_EVENTS, sqlite3_column_int64(row, 1)) || is_over(s, w) ? GO : STOP;
  return SQLITE_OK;
}

/* Whether rules have dealt with it. */
static int is_routed(struct np_store *s, int64_t series, int64_t seq, bool *routed) {
  int64_t cursor = 0;
  int partition = -1;
  sqlite3_stmt *st = np_sql_start(&s->sql, W_SERIES_DEVICE, "i", series);
  if (!st) return np_sql_code(&s->sql);
  if (sqlite3_step(st) == SQLITE_ROW) {
    struct np_text device = np_sql_text(st, 0);
    partition = np_partition(device.ptr, device.len);
  }
  int rc = sqlite3_reset(st);
  if (rc == SQLITE_OK) rc = np_sql_one(&s->sql, W_CURSOR, &cursor, "w", partition);
  *routed = cursor >= seq;
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int is_needed(struct np_store *s, int64_t series, int64_t seq, bool counted, bool *needed) {
  int64_t found = 0;
  int rc = np_sql_one(&s->sql, W_NEWEST, &found, "i", series);
  *needed = found == seq;
  if (rc == SQLITE_ROW && !*needed && counted) {
    rc = np_sql_one(&s->sql, W_NEWEST_SERIAL, &found, "i", series);
    *needed = found == seq;
  }
  if (rc == SQLITE_ROW && !*needed) {
    rc = np_sql_one(&s->sql, W_HELD_READING, &found, "i", seq);
    *needed = rc == SQLITE_ROW;
  }
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int look_at_reading(struct np_store *s, struct walk *w, sqlite3_stmt *row, enum choice *c) {
  int64_t seq = sqlite3_column_int64(row, 0), series = sqlite3_column_int64(row, 3);
  bool routed = false, needed = false;
  *c = STOP;
  if (!is_past(w, NP_KEPT_READINGS, sqlite3_column_int64(row, 1)) && !is_over(s, w)) return SQLITE_OK;
  int rc = is_routed(s, series, seq, &routed);
  if (rc == SQLITE_OK && routed) rc = is_needed(s, series, seq, sqlite3_column_int(row, 6), &needed);
  *c = routed && !needed ? GO : STAY;
  if (rc != SQLITE_OK || *c != GO) return rc;
  /* A time that was still to come when it was received is a clock's mistake: what is measured until then is no older for that. */
  int64_t at = sqlite3_column_int64(row, 4), received = sqlite3_column_int64(row, 1);
  rc = np_sql_run(&s->sql, W_SET_REMOVED, "ii", series, at < received ? at : received);
  const struct np_series_key key = {series, np_sql_text(row, 5), sqlite3_column_int(row, 7)};
  return rc == SQLITE_OK && key.key.ptr ? np_keys_drop(s, &key) : rc;
}

/* A dead letter goes nowhere without a trace: it is dropped, and counts and ages as what has been delivered from then on. */
static int drop(struct np_store *s, const struct walk *w, int64_t seq) {
  static const struct np_text by = {"keep.dead", 9};
  int rc = np_sql_run(&s->sql, W_DROP, "iit", seq, w->now, &by);
  return rc == SQLITE_OK ? np_outbox_count(s, seq, 1) : rc;
}

static const struct {
  enum np_kept kind;
  int old, gone, bytes;
  int (*look)(struct np_store *s, struct walk *w, sqlite3_stmt *row, enum choice *c);
} tables[] = {{NP_KEPT_REQUESTS, W_OLD_REQUESTS, W_DROP_REQUEST, NP_REQUEST_BYTES, look_at_request},
              {NP_KEPT_READINGS, W_OLD_READINGS, W_DROP_READING, NP_READING_BYTES, look_at_reading},
              {NP_KEPT_EVENTS, W_OLD_EVENTS, W_DROP_EVENT, NP_EVENT_BYTES, look_at_event},
              {NP_KEPT_DEAD, W_OLD_DEAD, W_BURY, NP_MESSAGE_BYTES, look_at_message},
              {NP_KEPT_DELIVERED, W_OLD_MESSAGES, W_DROP_DELIVERED, NP_MESSAGE_BYTES, look_at_message}};

static int remove_row(struct np_store *s, const struct walk *w, int table, int64_t id) {
  int rc = SQLITE_OK;
  if (w->kind == NP_KEPT_DEAD) rc = drop(s, w, id);
  if (w->kind == NP_KEPT_DELIVERED) rc = np_sql_run(&s->sql, W_DROP_DROPPED, "i", id);
  return rc == SQLITE_OK ? np_sql_run(&s->sql, tables[table].gone, "i", id) : rc;
}

/* Looks at the next rows: those that go are in ids. *end: what is behind them stays for now. */
static int choose(struct np_store *s, struct walk *w, int table, int64_t ids[STEP], int *n, bool *end) {
  struct np_sweep *sweep = &s->sweeps[w->kind];
  sqlite3_stmt *row = np_sql_start(&s->sql, tables[table].old, "i", sweep->after);
  int rc = row ? SQLITE_ROW : np_sql_code(&s->sql), status = SQLITE_OK, seen = 0;
  int64_t looked_at = 0;
  enum choice c = STAY;
  while (row && status == SQLITE_OK && c != STOP && looked_at < STEP_BYTES && (rc = sqlite3_step(row)) == SQLITE_ROW) {
    int64_t bytes = sqlite3_column_int64(row, 2) + tables[table].bytes;
    status = tables[table].look(s, w, row, &c);
    if (status != SQLITE_OK || c == STOP) break;
    seen++;
    looked_at += bytes;
    sweep->after = sqlite3_column_int64(row, 0);
    if (c == STAY) sweep->stayed = true;
    if (c != GO) continue;
    ids[(*n)++] = sweep->after;
    s->count.bytes[w->kind] -= bytes;
  }
  bool full = looked_at >= STEP_BYTES;
  *end = c == STOP || (seen < STEP && !full);
  if (full && *n) w->pruned->more = true;
  int reset = row ? sqlite3_reset(row) : rc;
  return status != SQLITE_OK ? status : reset;
}

static int sweep(struct np_store *s, struct walk *w, int table, int *gone) {
  struct np_sweep *sw = &s->sweeps[w->kind];
  bool aged = w->keep[w->kind].age || (w->kind == NP_KEPT_REQUESTS && w->keep[NP_KEPT_FAILED].age), end = false;
  int64_t ids[STEP];
  int n = 0;
  if (!is_over(s, w) && (!aged || s->mono < sw->rest)) return SQLITE_OK;
  int rc = choose(s, w, table, ids, &n, &end);
  for (int i = 0; i < n && rc == SQLITE_OK; i++) rc = remove_row(s, w, table, ids[i]);
  if (end) *sw = (struct np_sweep){.rest = sw->stayed ? s->mono + ROUND_US : 0};
  *gone += n;
  return rc;
}

int np_prune_step(struct np_store *s, const struct np_keep keep[NP_KEPT_KINDS], int64_t now, int *gone, struct np_pruned *pruned) {
  struct walk w = {.keep = keep, .now = now, .pruned = pruned};
  int rc = SQLITE_OK;
  for (size_t i = 0; i < sizeof tables / sizeof *tables && rc == SQLITE_OK; i++) {
    w.kind = tables[i].kind;
    rc = sweep(s, &w, (int)i, gone);
  }
  if (*gone >= STEP) pruned->more = true;
  s->removals++;
  return rc == SQLITE_OK && w.newest_made ? np_sql_run(&s->sql, W_MESSAGES_GONE, "i", w.newest_made) : rc;
}
