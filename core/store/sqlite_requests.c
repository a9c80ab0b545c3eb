/* Readers of the SQLite engine: kept requests that are to be run again, and whether what they give is known. */
#include <string.h>

#include "store/sqlite.h"

#define STEP 2000        /* requests that are looked at in one go */
#define DISORDER 3600000 /* ms: a request is numbered when its handler has ended, and a handler may have waited for long */

/* The first row with id >= *id: 1 and both, 0 where there is none, -1. */
static int row_from(struct np_reader *r, int64_t *id, int64_t *received) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_REQUEST_FROM, "i", *id);
  int rc = st ? sqlite3_step(st) : SQLITE_ERROR;
  if (rc == SQLITE_ROW) {
    *id = sqlite3_column_int64(st, 0);
    *received = sqlite3_column_int64(st, 1);
  }
  if (st) sqlite3_reset(st);
  return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : -1;
}

/* Numbers rise with time, give or take. */
static int first_since(struct np_reader *r, int64_t ms, int64_t low, int64_t high, int64_t *first) {
  while (low < high) {
    int64_t middle = low + (high - low) / 2, id = middle, received = 0;
    int found = row_from(r, &id, &received);
    if (found < 0) return -1;
    if (found && received < ms)
      low = id + 1;
    else
      high = middle;
  }
  *first = low;
  return 0;
}

int np_reader_request_bounds(struct np_reader *r, struct np_request_filter *f, struct np_error *err) {
  int64_t last = 0, first = 1, received;
  int rc = np_sql_one(&r->sql, R_LAST_REQUEST, &last, "");
  if (rc != SQLITE_ROW) return np_sql_fail(&r->sql, rc, err);
  if (f->upto > last) f->upto = last;
  if (row_from(r, &first, &received) < 0 ||
      (f->from > INT64_MIN + DISORDER && first_since(r, f->from - DISORDER, first, last + 1, &first) < 0))
    return np_sql_fail(&r->sql, np_sql_code(&r->sql), err);
  if (f->after < first - 1) f->after = first - 1;
  return 0;
}

int np_reader_next_request(struct np_reader *r, struct np_request_filter *f, struct np_error *err) {
  int64_t id = 0, upto = !f->failed && f->upto - f->after > STEP ? f->after + STEP : f->upto;
  int rc =
      np_sql_one(&r->sql, f->failed ? R_NEXT_FAILED : R_NEXT_REQUEST, &id, "siiii", f->instance, f->after, upto, f->from, f->to);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return np_sql_fail(&r->sql, rc, err);
  f->after = rc == SQLITE_ROW ? id : upto > f->after ? upto : f->after;
  return rc == SQLITE_ROW;
}

int np_reader_request_runs(struct np_reader *r, int64_t request, bool (*fn)(void *arg, const struct np_request_run *run), void *arg,
                           struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_RUNS, "i", request);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_request_run run = {sqlite3_column_int64(st, 0), sqlite3_column_int(st, 1), sqlite3_column_int(st, 2),
                                 np_sql_text(st, 3), np_sql_text(st, 4)};
    if (!fn(arg, &run)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_request_run_count(struct np_reader *r, int64_t request) {
  int64_t n;
  return np_sql_one(&r->sql, R_RUN_COUNT, &n, "i", request) == SQLITE_ROW ? (int)n : -1;
}

/* By key it is looked for at its time first, where the index has it; that the key is there is known in any case. */
static int find_same(struct np_reader *r, const struct np_reading *reading, int64_t series, enum np_same *same, np_reading_fn *fn,
                     void *arg) {
  struct np_reading stored;
  int64_t one;
  bool keyed = reading->key.ptr && reading->key.len;
  sqlite3_stmt *st = keyed ? np_sql_start(&r->sql, R_SAME_KEY, "iit", series, reading->at, &reading->key)
                           : np_sql_start(&r->sql, R_SAME_TIME, "ii", series, reading->at);
  int rc = st ? sqlite3_step(st) : np_sql_code(&r->sql);
  if (rc == SQLITE_ROW) {
    *same = NP_SAME_STORED;
    rc = np_read_reading(r, st, &stored) ? SQLITE_OK : SQLITE_CORRUPT;
    if (rc == SQLITE_OK) fn(arg, &stored);
  }
  if (st) sqlite3_reset(st);
  if (rc != SQLITE_DONE || !keyed) return rc == SQLITE_DONE ? SQLITE_OK : rc;
  rc = np_sql_one(&r->sql, R_HAS_KEY, &one, "it", series, &reading->key);
  if (rc == SQLITE_ROW) *same = NP_SAME_ELSEWHEN;
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int np_reader_same(struct np_reader *r, const struct np_reading *reading, enum np_same *same, np_reading_fn *fn, void *arg,
                   struct np_error *err) {
  int64_t series, removed = INT64_MIN;
  *same = NP_SAME_NONE;
  int rc = np_read_series(r, reading->vendor.ptr, reading->device.ptr, reading->metric.ptr, &series);
  if (rc == SQLITE_OK && series) rc = find_same(r, reading, series, same, fn, arg);
  if (rc == SQLITE_OK && series && *same == NP_SAME_NONE) {
    rc = np_sql_one(&r->sql, R_REMOVED, &removed, "i", series);
    if (rc == SQLITE_ROW || rc == SQLITE_DONE) rc = SQLITE_OK;
    if (reading->at <= removed) *same = NP_SAME_TOO_OLD;
  }
  return rc == SQLITE_OK ? 0 : np_sql_fail(&r->sql, rc, err);
}
