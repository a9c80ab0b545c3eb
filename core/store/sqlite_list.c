/* What readers of the SQLite engine answer apart from readings. */
#include <string.h>

#include "store/sqlite.h"

int np_reader_get(struct np_reader *r, const char *space, const char *key, size_t key_len, int64_t now, struct np_buf *value,
                  int64_t *version, struct np_error *err) {
  const struct np_text k = {key, key_len};
  sqlite3_stmt *st = np_sql_start(&r->sql, R_GET, "sk", space, &k);
  int found = 0, rc = st ? sqlite3_step(st) : SQLITE_OK;
  *version = 0;
  if (st && rc == SQLITE_ROW) {
    int64_t expires = sqlite3_column_int64(st, 2);
    *version = sqlite3_column_int64(st, 1);
    found = !expires || expires > now;
    if (found) {
      struct np_text t = np_sql_text(st, 0);
      np_buf_clear(value);
      np_buf_add(value, t.ptr, t.len);
    }
  }
  return np_sql_end(&r->sql, st, rc, err) < 0 ? -1 : found;
}

int np_reader_keys(struct np_reader *r, const char *space, const char *prefix, const char *after, int64_t now, int limit,
                   bool (*fn)(void *arg, struct np_text key, struct np_text value, int64_t version), void *arg,
                   struct np_error *err) {
  if (!prefix) prefix = "";
  sqlite3_stmt *st = np_sql_start(&r->sql, R_KEYS, "ss", space, after && strcmp(after, prefix) > 0 ? after : prefix);
  size_t len = strlen(prefix);
  int rc = SQLITE_OK;
  while (st && limit > 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_text key = np_sql_text(st, 0);
    int64_t expires = sqlite3_column_int64(st, 3);
    if (key.len < len || memcmp(key.ptr, prefix, len) != 0) break;
    if ((expires && expires <= now) || (after && strcmp(key.ptr, after) <= 0)) continue;
    limit--;
    if (!fn(arg, key, np_sql_text(st, 1), sqlite3_column_int64(st, 2))) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_key_count(struct np_reader *r, const char *space, int64_t *n, struct np_error *err) {
  int rc = np_sql_one(&r->sql, R_KEY_COUNT, n, "s", space);
  return rc == SQLITE_ROW ? 0 : np_sql_fail(&r->sql, rc, err);
}

int64_t np_reader_size(struct np_reader *r, const char *owner) {
  int64_t n = 0;
  int rc = np_sql_one(&r->sql, R_SIZE, &n, "s", owner);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? n : -1;
}

int64_t np_reader_key_size(struct np_reader *r, const char *space, const char *key, size_t key_len) {
  const struct np_text text = {key, key_len};
  int64_t n = 0;
  int rc = np_sql_one(&r->sql, R_KEY_SIZE, &n, "sk", space, &text);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? n : -1;
}

int np_reader_request(struct np_reader *r, int64_t id, void (*fn)(void *arg, int64_t id, const struct np_op *op), void *arg,
                      struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_REQUEST, "i", id);
  int rc = st ? sqlite3_step(st) : SQLITE_OK, found = st && rc == SQLITE_ROW;
  if (found) {
    struct np_op op = {.kind = NP_OP_REQUEST};
    op.as.request.received = sqlite3_column_int64(st, 0);
    op.as.request.instance = np_sql_text(st, 1);
    op.as.request.generation = sqlite3_column_int(st, 2);
    op.as.request.method = np_sql_text(st, 3);
    op.as.request.target = np_sql_text(st, 4);
    op.as.request.headers = np_sql_text(st, 5);
    op.as.request.body = np_sql_text(st, 6);
    op.as.request.remote = np_sql_text(st, 7);
    op.as.request.status = sqlite3_column_int(st, 8);
    op.as.request.outcome = np_sql_text(st, 9);
    op.as.request.error = np_sql_text(st, 10);
    op.as.request.runs = sqlite3_column_int(st, 11);
    fn(arg, id, &op);
  }
  return np_sql_end(&r->sql, st, rc, err) < 0 ? -1 : found;
}

int np_reader_timers_due(struct np_reader *r, int64_t now, int limit, bool (*fn)(void *arg, const struct np_timer *t), void *arg,
                         struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_TIMERS, "iw", now, limit);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_timer t = {np_sql_text(st, 0), np_sql_text(st, 1), np_sql_text(st, 2), sqlite3_column_int64(st, 3)};
    if (!fn(arg, &t)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int64_t np_reader_timer_next(struct np_reader *r, int64_t after) {
  int64_t due;
  int rc = np_sql_one(&r->sql, R_TIMER_NEXT, &due, "i", after);
  return rc == SQLITE_ROW ? due : rc == SQLITE_DONE ? INT64_MAX : -1;
}

int64_t np_reader_timer_count(struct np_reader *r) {
  int64_t n;
  return np_sql_one(&r->sql, R_TIMER_COUNT, &n, "") == SQLITE_ROW ? n : -1;
}

int np_reader_cursors(struct np_reader *r, int64_t cursors[NP_PARTITIONS], struct np_error *err) {
  memset(cursors, 0, NP_PARTITIONS * sizeof *cursors);
  sqlite3_stmt *st = np_sql_start(&r->sql, R_CURSORS, "");
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    int64_t p = sqlite3_column_int64(st, 0);
    if (p >= 0 && p < NP_PARTITIONS) cursors[p] = sqlite3_column_int64(st, 1);
  }
  return np_sql_end(&r->sql, st, rc, err);
}

static int walk_held(struct np_reader *r, sqlite3_stmt *st, bool (*fn)(void *arg, const struct np_held *h), void *arg,
                     struct np_error *err) {
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_held h = {
        .id = sqlite3_column_int64(st, 0),
        .instance = np_sql_text(st, 1),
        .name = np_sql_text(st, 2),
        .key = np_sql_text(st, 3),
        .reading = sqlite3_column_int64(st, 4),
        .at = sqlite3_column_int64(st, 5),
        .generation = sqlite3_column_int(st, 6),
        .error = np_sql_text(st, 7),
    };
    if (!fn(arg, &h)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_held(struct np_reader *r, const char *instance, int64_t after, int limit,
                   bool (*fn)(void *arg, const struct np_held *h), void *arg, struct np_error *err) {
  return walk_held(r, np_sql_start(&r->sql, R_HELD, "siw", instance, after, limit), fn, arg, err);
}

int np_reader_held_of(struct np_reader *r, int64_t reading, bool (*fn)(void *arg, const struct np_held *h), void *arg,
                      struct np_error *err) {
  return walk_held(r, np_sql_start(&r->sql, R_HELD_OF, "i", reading), fn, arg, err);
}

int64_t np_reader_held_count(struct np_reader *r, const char *instance) {
  int64_t n;
  int rc = instance ? np_sql_one(&r->sql, R_HELD_COUNT, &n, "s", instance) : np_sql_one(&r->sql, R_HELD_ALL, &n, "");
  return rc == SQLITE_ROW ? n : -1;
}

void np_read_device_row(sqlite3_stmt *st, struct np_device *d) {
  *d = (struct np_device){.id = sqlite3_column_int64(st, 0), .details = true, .first_seen = sqlite3_column_int64(st, 12)};
  struct np_text *texts[] = {&d->vendor, &d->connection, &d->device, &d->serial, &d->model,
                             &d->name,   &d->owner,      &d->place,  &d->status, &d->extra};
  for (int i = 0; i < 10; i++) *texts[i] = np_sql_text(st, i + 1);
  d->online = sqlite3_column_type(st, 11) == SQLITE_NULL ? -1 : sqlite3_column_int(st, 11);
  d->last_seen = sqlite3_column_int64(st, 13);
  d->tags = np_sql_text(st, 14);
  d->own_tags = np_sql_text(st, 15);
}

int np_reader_devices(struct np_reader *r, int64_t after_id, int limit, np_device_fn *fn, void *arg, struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_DEVICES, "iw", after_id, limit);
  struct np_device d;
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    np_read_device_row(st, &d);
    if (!fn(arg, &d)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

static struct np_generation read_generation(sqlite3_stmt *st) {
  return (struct np_generation){
      .instance = np_sql_text(st, 0),
      .file = np_sql_text(st, 1),
      .hash = np_sql_text(st, 2),
      .source = np_sql_text(st, 3),
      .verdict = np_sql_text(st, 4),
      .reason = np_sql_text(st, 5),
      .at = sqlite3_column_int64(st, 6),
      .number = sqlite3_column_int(st, 7),
      .id = sqlite3_column_int64(st, 8),
      .cause = np_sql_text(st, 9),
  };
}

int np_reader_generation(struct np_reader *r, const char *instance, const char *verdict,
                         void (*fn)(void *arg, const struct np_generation *g), void *arg, struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_GENERATION, "ss", instance, verdict);
  int rc = st ? sqlite3_step(st) : SQLITE_OK, found = st && rc == SQLITE_ROW;
  if (found) {
    struct np_generation g = read_generation(st);
    fn(arg, &g);
  }
  return np_sql_end(&r->sql, st, rc, err) < 0 ? -1 : found;
}

int np_reader_generations(struct np_reader *r, const char *instance, int64_t before, int limit,
                          bool (*fn)(void *arg, const struct np_generation *g), void *arg, struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_GENERATIONS, "siw", instance, before, limit);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    struct np_generation g = read_generation(st);
    if (!fn(arg, &g)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_last_number(struct np_reader *r, const char *instance) {
  int64_t number = 0;
  return np_sql_one(&r->sql, R_LAST_NUMBER, &number, "s", instance) == SQLITE_ROW ? (int)number : -1;
}

int np_reader_generation_at(struct np_reader *r, const char *instance, int64_t at) {
  int64_t number = 0;
  int rc = np_sql_one(&r->sql, R_GENERATION_AT, &number, "si", instance, at);
  return rc == SQLITE_ROW ? (int)number : rc == SQLITE_DONE ? 0 : -1;
}
