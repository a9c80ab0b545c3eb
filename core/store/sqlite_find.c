/* Queries over readings and events: streams, each an index range in order, are merged by a heap. A page so costs what it gives, wherever it
 * stands, and however many rows there are.
 *
 * A row counts where its connection is in the query's scope. Who has ever written of a device is known (device_writers): a device that
 * nobody in the scope has written of is passed over whole, and where nobody else has, rows need not be looked at one by one. */
#include <stdlib.h>
#include <string.h>

#include "store/sqlite.h"

#define BOTH(base, columns, key, id)                                                                                               \
  [(base)] = columns " WHERE " key " AND at BETWEEN ?3 AND ?4 ORDER BY at DESC, " id " DESC",                                      \
  [(base) + 1] = columns " WHERE " key " AND at = ?3 AND " id " < ?4 ORDER BY " id " DESC",                                        \
  [(base) + 2] = columns " WHERE " key " AND at BETWEEN ?3 AND ?4 ORDER BY at, " id,                                               \
  [(base) + 3] = columns " WHERE " key " AND at = ?3 AND " id " > ?4 ORDER BY " id
#define READINGS "SELECT " NP_READING_COLUMNS " FROM reading_rows INDEXED BY reading_time"
#define EVENTS "SELECT id, device, at, received, type, key, connection, data FROM event_rows INDEXED BY "

/* Of each: newest first; the rest of one moment, newest first; and the same oldest first. */
enum { OF_SERIES = 0, OF_DEVICE = 4, OF_CONNECTION = 8 };
enum { TIE = 1, ASCENDING = 2 };
enum { C_ID = 0, C_AT = 2, C_CONNECTION = 6 }; /* columns of all of them */

static const char *const texts[NP_STREAM_TEXTS] = {
    BOTH(OF_SERIES, READINGS, "series = ?1", "seq"),
    BOTH(OF_DEVICE, EVENTS "event_series", "device = ?1 AND type = ?2", "id"),
    BOTH(OF_CONNECTION, EVENTS "event_connection", "connection IS nullif(?1, 0) AND type = ?2", "id"),
};

struct stream {
  sqlite3_stmt *st; /* owned while open; NULL before and after */
  int text;
  bool mixed; /* others have written here too */
  int64_t key, kind;
  int64_t at, id; /* of the row that it stands on */
};

struct find {
  struct np_reader *r;
  const struct np_row_filter *f;
  int source; /* OF_… */
  struct np_ids scope, kinds;
  int64_t vendor;
  bool nothing;           /* a name that the filter asks for is unknown */
  struct stream *streams; /* owned */
  size_t count;
  struct stream **heap; /* owned: those that stand on a row, the next one first */
  size_t heap_count;
};

void np_streams_close(struct np_reader *r) {
  for (int i = 0; i < NP_STREAM_TEXTS; i++)
    while (r->streams[i].count) sqlite3_finalize(r->streams[i].kept[--r->streams[i].count]);
}

void np_ids_add(struct np_ids *ids, int64_t id) {
  ids->list = np_realloc(ids->list, (ids->count + 1) * sizeof *ids->list);
  ids->list[ids->count++] = id;
}

bool np_ids_have(const struct np_ids *ids, int64_t id) {
  for (size_t i = 0; i < ids->count; i++)
    if (ids->list[i] == id) return true;
  return false;
}

int np_find_id(struct np_reader *r, const struct np_text *name, int64_t *id, struct np_error *err) {
  *id = 0;
  int rc = np_sql_one(&r->sql, R_NAME_ID, id, "t", name);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : np_sql_fail(&r->sql, rc, err);
}

int np_find_scope(struct np_reader *r, const struct np_scope *scope, struct np_ids *ids, struct np_error *err) {
  for (size_t i = 0; !scope->all && i < scope->count; i++) {
    struct np_text name = {scope->connections[i], strlen(scope->connections[i])};
    int64_t id;
    if (np_find_id(r, &name, &id, err) < 0) return -1;
    if (id) np_ids_add(ids, id);
  }
  return 0;
}

int np_find_begin(struct np_reader *r, struct np_error *err) {
  int rc = np_sql_run(&r->sql, R_BEGIN, "");
  return rc == SQLITE_OK ? 0 : np_sql_fail(&r->sql, rc, err);
}

int np_find_end(struct np_reader *r, int result, struct np_error *err) {
  int rc = np_sql_run(&r->sql, R_COMMIT, "");
  if (rc == SQLITE_OK) return result;
  np_sql_exec(&r->sql, "ROLLBACK");
  return result < 0 ? result : np_sql_fail(&r->sql, rc, err);
}

/* Streams. */

static sqlite3_stmt *take_statement(struct np_reader *r, int text) {
  struct np_streams *pool = &r->streams[text];
  if (pool->count) return pool->kept[--pool->count];
  sqlite3_stmt *st = NULL;
  sqlite3_prepare_v3(r->sql.db, texts[text], -1, SQLITE_PREPARE_PERSISTENT, &st, NULL);
  return st;
}

static int give_back(struct np_reader *r, int text, sqlite3_stmt *st) {
  struct np_streams *pool = &r->streams[text];
  int rc = sqlite3_reset(st);
  if (pool->count < NP_STREAMS_KEPT)
    pool->kept[pool->count++] = st;
  else
    sqlite3_finalize(st);
  return rc;
}

static int open_part(struct find *f, struct stream *s, int text, int64_t third, int64_t fourth) {
  s->text = text;
  s->st = take_statement(f->r, text);
  if (!s->st) return np_sql_code(&f->r->sql);
  sqlite3_bind_int64(s->st, 1, s->key);
  if (f->source != OF_SERIES) sqlite3_bind_int64(s->st, 2, s->kind);
  sqlite3_bind_int64(s->st, 3, third);
  return sqlite3_bind_int64(s->st, 4, fourth);
}

static int open_range(struct find *f, struct stream *s) {
  const struct np_row_filter *q = f->f;
  int64_t from = q->from, to = q->to;
  if (q->after && q->ascending && q->after_at >= from) {
    if (q->after_at == INT64_MAX) return SQLITE_OK;
    from = q->after_at + 1;
  }
  if (q->after && !q->ascending && q->after_at <= to) {
    if (q->after_at == INT64_MIN) return SQLITE_OK;
    to = q->after_at - 1;
  }
  return from > to ? SQLITE_OK : open_part(f, s, f->source + (q->ascending ? ASCENDING : 0), from, to);
}

/* The cursor stands on a moment that may have more rows: they come first. */
static int open_stream(struct find *f, struct stream *s) {
  const struct np_row_filter *q = f->f;
  if (!q->after || q->after_at < q->from || q->after_at > q->to) return open_range(f, s);
  return open_part(f, s, f->source + (q->ascending ? ASCENDING : 0) + TIE, q->after_at, q->after_seq);
}

static bool counts(const struct find *f, const struct stream *s) {
  return !s->mixed || np_ids_have(&f->scope, sqlite3_column_int64(s->st, C_CONNECTION));
}

/* To its next row; st is NULL at its end. */
static int advance(struct find *f, struct stream *s) {
  while (s->st) {
    int rc = sqlite3_step(s->st);
    if (rc == SQLITE_ROW) {
      if (!counts(f, s)) continue;
      s->at = sqlite3_column_int64(s->st, C_AT);
      s->id = sqlite3_column_int64(s->st, C_ID);
      return SQLITE_OK;
    }
    rc = give_back(f->r, s->text, s->st);
    s->st = NULL;
    if (rc == SQLITE_OK && s->text & TIE) rc = open_range(f, s);
    if (rc != SQLITE_OK) return rc;
  }
  return SQLITE_OK;
}

/* The heap: the stream whose row comes first in the order is on top. */

static bool comes_before(const struct find *f, const struct stream *a, const struct stream *b) {
  bool less = a->at != b->at ? a->at < b->at : a->id < b->id;
  return f->f->ascending ? less : !less;
}

static void sift_down(struct find *f, size_t i) {
  for (;;) {
    size_t best = i;
    for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < f->heap_count; child++)
      if (comes_before(f, f->heap[child], f->heap[best])) best = child;
    if (best == i) return;
    struct stream *swap = f->heap[i];
    f->heap[i] = f->heap[best];
    f->heap[best] = swap;
    i = best;
  }
}

static int open_all(struct find *f) {
  f->heap = np_alloc((f->count + 1) * sizeof(struct stream *));
  for (size_t i = 0; i < f->count; i++) {
    int rc = open_stream(f, &f->streams[i]);
    if (rc == SQLITE_OK) rc = advance(f, &f->streams[i]);
    if (rc != SQLITE_OK) return rc;
    if (f->streams[i].st) f->heap[f->heap_count++] = &f->streams[i];
  }
  for (size_t i = f->heap_count; i-- > 0;) sift_down(f, i);
  return SQLITE_OK;
}

/* The stream that has been used moves on, or (once) is done with. */
static int next(struct find *f, bool once) {
  struct stream *s = f->heap[0];
  int rc = once ? SQLITE_OK : advance(f, s);
  if (rc != SQLITE_OK) return rc;
  if (once || !s->st) f->heap[0] = f->heap[--f->heap_count];
  sift_down(f, 0);
  return SQLITE_OK;
}

/* What a filter's names come to. */

static int find_names(struct find *f, struct np_error *err) {
  if (np_find_scope(f->r, &f->f->scope, &f->scope, err) < 0) return -1;
  f->nothing = !f->f->scope.all && !f->scope.count;
  for (size_t i = 0; i < f->f->kinds.count; i++) {
    int64_t id;
    if (np_find_id(f->r, &f->f->kinds.list[i], &id, err) < 0) return -1;
    if (id && !np_ids_have(&f->kinds, id)) np_ids_add(&f->kinds, id);
  }
  if (f->f->kinds.count && !f->kinds.count) f->nothing = true;
  if (!f->f->vendor.ptr) return 0;
  if (np_find_id(f->r, &f->f->vendor, &f->vendor, err) < 0) return -1;
  if (!f->vendor) f->nothing = true;
  return 0;
}

static void add_stream(struct find *f, int64_t key, int64_t kind, bool mixed) {
  if (f->f->kinds.count && !np_ids_have(&f->kinds, kind)) return;
  f->streams = np_realloc(f->streams, (f->count + 1) * sizeof *f->streams);
  f->streams[f->count++] = (struct stream){.key = key, .kind = kind, .mixed = mixed};
}

/* Whether somebody in the scope has written of the device, and whether anybody else has. */
static int find_writers(struct find *f, int64_t device, bool *ours, bool *mixed, struct np_error *err) {
  *ours = f->f->scope.all;
  *mixed = false;
  if (*ours) return 0;
  sqlite3_stmt *st = np_sql_start(&f->r->sql, R_WRITERS, "i", device);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) *(np_ids_have(&f->scope, sqlite3_column_int64(st, 0)) ? ours : mixed) = true;
  return np_sql_end(&f->r->sql, st, rc, err);
}

static int add_device(struct find *f, int64_t device, struct np_error *err) {
  bool ours, mixed;
  if (find_writers(f, device, &ours, &mixed, err) < 0) return -1;
  if (!ours) return 0;
  sqlite3_stmt *st = np_sql_start(&f->r->sql, f->source == OF_SERIES ? R_SERIES_OF_DEVICE : R_TYPES_OF_DEVICE, "i", device);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    int64_t first = sqlite3_column_int64(st, 0);
    if (f->source == OF_SERIES)
      add_stream(f, first, sqlite3_column_int64(st, 1), mixed);
    else
      add_stream(f, device, first, mixed);
  }
  return np_sql_end(&f->r->sql, st, rc, err);
}

static int add_named(struct find *f, const struct np_text *name, struct np_ids *met, struct np_error *err) {
  size_t first = met->count;
  sqlite3_stmt *st = np_sql_start(&f->r->sql, R_NAMED, "t", name);
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    int64_t id = sqlite3_column_int64(st, 0);
    if (f->vendor && sqlite3_column_int64(st, 1) != f->vendor) continue;
    if (!np_ids_have(met, id)) np_ids_add(met, id);
  }
  if (np_sql_end(&f->r->sql, st, rc, err) < 0) return -1;
  for (size_t i = first; i < met->count; i++)
    if (add_device(f, met->list[i], err) < 0) return -1;
  return 0;
}

/* Events of no device in particular: by the connections in the scope. */
static int add_connections(struct find *f, struct np_error *err) {
  f->source = OF_CONNECTION;
  int rc = SQLITE_OK;
  if (f->f->scope.all) {
    sqlite3_stmt *st = np_sql_start(&f->r->sql, R_EVENT_CONNECTIONS, "");
    while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) np_ids_add(&f->scope, sqlite3_column_int64(st, 0));
    if (np_sql_end(&f->r->sql, st, rc, err) < 0) return -1;
  }
  for (size_t i = 0; i < f->scope.count; i++) {
    sqlite3_stmt *st = np_sql_start(&f->r->sql, R_TYPES_OF_CONNECTION, "i", f->scope.list[i]);
    while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) add_stream(f, f->scope.list[i], sqlite3_column_int64(st, 0), false);
    if (np_sql_end(&f->r->sql, st, rc, err) < 0) return -1;
  }
  return 0;
}

static int find_streams(struct find *f, struct np_error *err) {
  if (find_names(f, err) < 0) return -1;
  if (f->nothing) return 0;
  if (f->source == OF_DEVICE && !f->f->devices.count) return add_connections(f, err);
  struct np_ids met = {0};
  int done = 0;
  for (size_t i = 0; i < f->f->devices.count && done == 0; i++) done = add_named(f, &f->f->devices.list[i], &met, err);
  free(met.list);
  return done;
}

static int begin(struct find *f, struct np_error *err) {
  if (np_find_begin(f->r, err) < 0) return -1;
  return find_streams(f, err);
}

/* Frees all; gives result, or -1 and err where rc is a failure. */
static int end(struct find *f, int result, int rc, struct np_error *err) {
  if (rc != SQLITE_OK) result = np_sql_fail(&f->r->sql, rc, err);
  for (size_t i = 0; i < f->count; i++)
    if (f->streams[i].st) give_back(f->r, f->streams[i].text, f->streams[i].st);
  free(f->streams);
  free(f->heap);
  free(f->scope.list);
  free(f->kinds.list);
  return sqlite3_get_autocommit(f->r->sql.db) ? result : np_find_end(f->r, result, err);
}

static int damaged(const char *what, int64_t id, struct np_error *err) {
  return np_fail(err, "store: %s %lld has no device or no name: the file is damaged", what, (long long)id);
}

static int give_readings(struct find *f, int limit, bool once, np_reading_fn *fn, void *arg, struct np_error *err) {
  struct np_reading reading;
  int rc = open_all(f);
  for (; rc == SQLITE_OK && f->heap_count && limit > 0; limit--) {
    if (!np_read_reading(f->r, f->heap[0]->st, &reading)) return end(f, damaged("reading", f->heap[0]->id, err), SQLITE_OK, err);
    if (!fn(arg, &reading)) break;
    if (limit > 1) rc = next(f, once);
  }
  return end(f, 0, rc, err);
}

int np_reader_find_readings(struct np_reader *r, const struct np_row_filter *q, int limit, np_reading_fn *fn, void *arg,
                            struct np_error *err) {
  struct find f = {.r = r, .f = q, .source = OF_SERIES};
  if (begin(&f, err) < 0) return end(&f, -1, SQLITE_OK, err);
  return give_readings(&f, limit, false, fn, arg, err);
}

int np_reader_latest(struct np_reader *r, const struct np_row_filter *q, np_reading_fn *fn, void *arg, struct np_error *err) {
  const struct np_row_filter all = {
      .scope = q->scope, .devices = q->devices, .kinds = q->kinds, .vendor = q->vendor, .from = INT64_MIN, .to = INT64_MAX};
  struct find f = {.r = r, .f = &all, .source = OF_SERIES};
  if (begin(&f, err) < 0) return end(&f, -1, SQLITE_OK, err);
  return give_readings(&f, INT32_MAX, true, fn, arg, err);
}

static bool read_event(struct np_reader *r, sqlite3_stmt *st, struct np_event *e) {
  *e = (struct np_event){.id = sqlite3_column_int64(st, C_ID),
                         .at = sqlite3_column_int64(st, C_AT),
                         .received = sqlite3_column_int64(st, 3),
                         .key = np_sql_text(st, 5),
                         .data = np_sql_text(st, 7)};
  return np_read_device(r, st, 1, &e->vendor, &e->device) && np_read_name(r, st, 4, &e->type) &&
         np_read_name(r, st, C_CONNECTION, &e->connection);
}

/* Streams of a connection hold every vendor's; one more look then. */
static bool is_of_vendor(const struct find *f, const struct np_event *e) {
  const struct np_text *v = &f->f->vendor;
  return f->source != OF_CONNECTION || !v->ptr || (v->len == e->vendor.len && memcmp(v->ptr, e->vendor.ptr, v->len) == 0);
}

static int give_events(struct find *f, int64_t limit, np_event_fn *fn, void *arg, struct np_error *err) {
  struct np_event event;
  int rc = open_all(f);
  while (rc == SQLITE_OK && f->heap_count && limit > 0) {
    if (!read_event(f->r, f->heap[0]->st, &event)) return end(f, damaged("event", f->heap[0]->id, err), SQLITE_OK, err);
    if (is_of_vendor(f, &event)) {
      if (!fn(arg, &event)) break;
      limit--;
    }
    if (limit) rc = next(f, false);
  }
  return end(f, 0, rc, err);
}

int np_reader_find_events(struct np_reader *r, const struct np_row_filter *q, int limit, np_event_fn *fn, void *arg,
                          struct np_error *err) {
  struct find f = {.r = r, .f = q, .source = OF_DEVICE};
  if (begin(&f, err) < 0) return end(&f, -1, SQLITE_OK, err);
  return give_events(&f, limit, fn, arg, err);
}

/* Counting. */

static int count_rows(struct find *f, struct stream *s, int64_t *n) {
  int rc = open_stream(f, s);
  if (rc == SQLITE_OK) rc = advance(f, s);
  for (; rc == SQLITE_OK && s->st; rc = advance(f, s)) ++*n;
  return rc;
}

static int count_stream(struct find *f, struct stream *s, int64_t *n) {
  struct np_sql *q = &f->r->sql;
  int64_t more = 0, from = f->f->from, to = f->f->to;
  if (s->mixed) return count_rows(f, s, n);
  int rc = f->source == OF_SERIES ? np_sql_one(q, R_COUNT_READINGS, &more, "iii", s->key, from, to)
                                  : np_sql_one(q, f->source == OF_DEVICE ? R_COUNT_DEVICE_EVENTS : R_COUNT_CONNECTION_EVENTS, &more,
                                               "iiii", s->key, s->kind, from, to);
  *n += more;
  return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static bool count_event(void *arg, const struct np_event *e) {
  (void)e;
  ++*(int64_t *)arg;
  return true;
}

static int64_t count(struct np_reader *r, const struct np_row_filter *q, int source, struct np_error *err) {
  struct np_row_filter whole = *q;
  whole.after = false;
  struct find f = {.r = r, .f = &whole, .source = source};
  int64_t n = 0;
  if (begin(&f, err) < 0) return end(&f, -1, SQLITE_OK, err);
  if (f.source == OF_CONNECTION && q->vendor.ptr) return give_events(&f, INT64_MAX, count_event, &n, err) < 0 ? -1 : n;
  int rc = SQLITE_OK;
  for (size_t i = 0; i < f.count && rc == SQLITE_OK; i++) rc = count_stream(&f, &f.streams[i], &n);
  return end(&f, 0, rc, err) < 0 ? -1 : n;
}

int64_t np_reader_count_readings(struct np_reader *r, const struct np_row_filter *f, struct np_error *err) {
  return count(r, f, OF_SERIES, err);
}

int64_t np_reader_count_events(struct np_reader *r, const struct np_row_filter *f, struct np_error *err) {
  return count(r, f, OF_DEVICE, err);
}
