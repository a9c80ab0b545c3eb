/* Readers of the SQLite engine: a connection of a thread's own, and readings. A row holds numbers for names; those that were met
 * are remembered, for a name never changes. */
#include <stdlib.h>
#include <string.h>

#include "store/sqlite.h"

enum { MOST = 50000 };

#define READING "SELECT " NP_READING_COLUMNS " FROM reading_rows"

#define DERIVATION "SELECT reading, cause, generation, timer, key FROM derivations"
#define MESSAGE "seq, id, destination, device, body, source, reading, created, generation, replayed, about"
#define BY                                                                                                                         \
  " WHERE source = ?1 AND ((reading > ?2 AND reading <= ?3) OR"                                                                    \
  " (reading = 0 AND CASE replayed WHEN 0 THEN created ELSE about END BETWEEN ?4 AND ?5))"
#define OF " WHERE reading = ?1 AND reading > 0"
/* By the index of each table, which an OR would not be. Of what an older neap stored there is only when it was made, as a negative number: a little after it was
 * due. */
#define ABOUT(table)                                                                                                               \
  " FROM " table " WHERE seq IN (SELECT seq FROM " table " INDEXED BY " table "_about WHERE reading = 0 AND about = ?1 UNION ALL"  \
  " SELECT seq FROM " table " INDEXED BY " table "_about WHERE reading = 0 AND about BETWEEN -?1 - 60000 AND -?1)"
#define OUTBOX_ABOUT ABOUT("outbox")
#define DELIVERED_ABOUT ABOUT("delivered")
#define DEAD_ABOUT ABOUT("dead")
#define DROPPED_ABOUT ABOUT("dropped")
#define GENERATION "instance, file, hash, source, verdict, reason, at, number, id, cause"

const char *const np_read_texts[R_COUNT] = {
    [R_LAST] = "SELECT max(seq) FROM reading_rows",
    [R_SCAN] = READING " WHERE seq > ? ORDER BY seq LIMIT ?",
    [R_READING] = READING " WHERE seq = ?",
    [R_HISTORY] = READING " INDEXED BY reading_time WHERE series = ? AND at BETWEEN ? AND ? ORDER BY at DESC, seq DESC LIMIT ?",
    /* What came later is passed over in the index, without a look at its row. */
    [R_BEFORE] = READING " INDEXED BY reading_time WHERE series = ? AND at <= ? AND seq < ? ORDER BY at DESC, seq DESC",
    [R_FROM_REQUEST] =
        "SELECT " NP_READING_COLUMNS ", request FROM reading_rows WHERE seq >= (SELECT min(reading) FROM (SELECT reading FROM inbox"
        " WHERE id = ?1 UNION ALL SELECT reading FROM request_runs WHERE request = ?1) WHERE reading > ?2) ORDER BY seq",
    [R_REQUEST_OF] = "SELECT coalesce(request, 0) FROM reading_rows WHERE seq = ?",
    [R_DERIVATION] = DERIVATION " WHERE reading = ?",
    [R_DERIVED_FROM] = DERIVATION " WHERE cause = ?1 AND cause > 0 AND reading > ?2 ORDER BY reading LIMIT ?3",
    [R_DERIVED_COUNT] = "SELECT count(*) FROM derivations WHERE cause = ?1 AND cause > 0",
    [R_DERIVED_BY] =
        "SELECT d.reading, d.cause, d.generation, d.timer, d.key FROM derivations d JOIN reading_rows r ON r.seq = d.reading"
        " WHERE r.connection = (SELECT id FROM names WHERE name = ?1) AND ((d.cause > ?2 AND d.cause <= ?3)"
        " OR (d.cause = 0 AND r.received BETWEEN ?4 AND ?5)) ORDER BY d.reading",
    [R_SERIES_OF] = "SELECT s.id FROM device_rows d JOIN series s ON s.device = d.id WHERE d.name = ?1"
                    " AND s.metric = (SELECT id FROM names WHERE name = ?2)"
                    " AND (?3 IS NULL OR d.vendor = (SELECT id FROM names WHERE name = ?3))",
    [R_NAME] = "SELECT name FROM names WHERE id = ?",
    [R_SERIES] = "SELECT v.name, d.name, m.name FROM series s JOIN device_rows d ON d.id = s.device JOIN names v ON v.id = d.vendor"
                 " JOIN names m ON m.id = s.metric WHERE s.id = ?",
    [R_GET] = "SELECT value, version, expires FROM kv WHERE space = ? AND key = ?",
    [R_KEYS] = "SELECT key, value, version, expires FROM kv WHERE space = ? AND key >= ? ORDER BY key",
    [R_KEY_SIZE] = "SELECT length(CAST(key AS BLOB)) + length(CAST(value AS BLOB)) FROM kv WHERE space = ? AND key = ?",
    [R_SIZE] = "SELECT bytes FROM kv_sizes WHERE owner = ?",
    [R_KEY_COUNT] = "SELECT count(*) FROM kv WHERE space = ?",
    [R_REQUEST] = "SELECT received, instance, generation, method, target, headers, body, remote, status, outcome, error,"
                  " (SELECT count(*) FROM request_runs WHERE request = ?1) FROM inbox WHERE id = ?1",
    [R_TIMERS] = "SELECT instance, name, key, due FROM timers WHERE due <= ? ORDER BY due LIMIT ?",
    [R_TIMER_NEXT] = "SELECT due FROM timers WHERE due > ? ORDER BY due LIMIT 1",
    [R_TIMER_COUNT] = "SELECT count(*) FROM timers",
    [R_CURSORS] = "SELECT partition, seq FROM cursors",
    [R_HELD] = "SELECT id, instance, name, key, reading, at, generation, error FROM held WHERE instance = ? AND id > ? ORDER BY id "
               "LIMIT ?",
    [R_HELD_OF] = "SELECT id, instance, name, key, reading, at, generation, error FROM held WHERE reading = ? ORDER BY id",
    [R_HELD_COUNT] = "SELECT count(*) FROM held WHERE instance = ?",
    [R_HELD_ALL] = "SELECT count(*) FROM held",
    /* Jumps from a device to the next, however many messages each has. */
    [R_DEVICES_OF] = "WITH RECURSIVE d(device) AS (SELECT min(device) FROM outbox WHERE destination = ?1 AND (replayed > 0) = ?2 "
                     "UNION ALL SELECT"
                     " (SELECT min(device) FROM outbox WHERE destination = ?1 AND (replayed > 0) = ?2 AND device > d.device) FROM d"
                     " WHERE d.device IS NOT NULL) SELECT device FROM d WHERE device IS NOT NULL",
    [R_HEAD] =
        "SELECT " MESSAGE ", attempts, due, since, expires FROM outbox WHERE destination = ? AND device = ? AND (replayed > 0) = ?"
        " ORDER BY seq LIMIT ?",
    [R_PENDING] = "SELECT count(*) FROM outbox WHERE destination = ?",
    [R_DELIVERED] = "SELECT count(*) FROM delivered WHERE destination = ?",
    [R_DEAD] = "SELECT count(*) FROM dead WHERE destination = ?",
    [R_OLDEST] = "SELECT min(created) FROM outbox WHERE destination = ?",
    [R_DESTINATIONS] = "WITH RECURSIVE p(d) AS (SELECT min(destination) FROM outbox UNION ALL SELECT"
                       " (SELECT min(destination) FROM outbox WHERE destination > p.d) FROM p WHERE p.d IS NOT NULL),"
                       " x(d) AS (SELECT min(destination) FROM dead UNION ALL SELECT"
                       " (SELECT min(destination) FROM dead WHERE destination > x.d) FROM x WHERE x.d IS NOT NULL)"
                       " SELECT d FROM p WHERE d IS NOT NULL UNION SELECT d FROM x WHERE d IS NOT NULL",
    [R_EXPIRED] = "SELECT " MESSAGE ", attempts, due, since, expires FROM outbox WHERE expires > 0 AND expires <= ?1"
                  " AND (expires, seq) > (?2, ?3) ORDER BY expires, seq LIMIT ?4",
    [R_EXPIRED_OF] = "SELECT " MESSAGE ", attempts, due, since, expires FROM outbox WHERE destination = ? AND device = ?"
                     " AND (replayed > 0) = ? AND expires > 0 AND expires <= ? ORDER BY expires LIMIT ?",
    [R_NEXT_EXPIRY] = "SELECT expires FROM outbox WHERE expires > 0 AND expires > ? ORDER BY expires LIMIT 1",
    [R_ATTEMPTS] = "SELECT n, at, took, generation, status, batch, outcome, error, answer, request, reply FROM attempts WHERE "
                   "message = ? ORDER BY n",
    [R_MESSAGE_PENDING] = "SELECT " MESSAGE ", attempts, due, since, expires, status, 0, error FROM outbox WHERE id = ?",
    [R_MESSAGE_DELIVERED] = "SELECT " MESSAGE ", attempts, 0, 0, 0, status, at FROM delivered WHERE id = ?",
    [R_MESSAGE_DEAD] = "SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, error, reason FROM dead WHERE id = ?",
    [R_MESSAGE_DROPPED] = "SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, error, reason, dropped, by FROM dropped WHERE id = ?",
    [R_MESSAGES_OF] = "SELECT " MESSAGE ", attempts, due, since, expires, status, 0, error, NULL, 0, NULL, 'p' FROM outbox" OF
                      " UNION ALL SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, NULL, NULL, 0, NULL, 'd' FROM delivered" OF
                      " UNION ALL SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, error, reason, 0, NULL, 'x' FROM dead" OF
                      " UNION ALL SELECT " MESSAGE
                      ", attempts, 0, 0, 0, status, at, error, reason, dropped, by, 'o' FROM dropped" OF " ORDER BY 1",
    [R_MESSAGES_ABOUT] =
        "SELECT " MESSAGE ", attempts, due, since, expires, status, 0, error, NULL, 0, NULL, 'p'" OUTBOX_ABOUT
        " UNION ALL SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, NULL, NULL, 0, NULL, 'd'" DELIVERED_ABOUT
        " UNION ALL SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, error, reason, 0, NULL, 'x'" DEAD_ABOUT
        " UNION ALL SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, error, reason, dropped, by, 'o'" DROPPED_ABOUT " ORDER BY 1",
    [R_DELIVERED_FROM] = "SELECT created FROM delivered ORDER BY seq LIMIT 1",
    [R_MESSAGES_GONE] = "SELECT value FROM kv WHERE space = 'neap.messages' AND key = 'gone'",
    [R_REPLAY_PENDING] = "SELECT count(*) FROM outbox WHERE replayed = ? AND replayed > 0",
    [R_MESSAGES_BY] = "SELECT " MESSAGE ", attempts, due, since, expires, status, 0, error, NULL, 0, NULL, 'p' FROM outbox" BY
                      " UNION ALL SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, NULL, NULL, 0, NULL, 'd' FROM delivered" BY
                      " UNION ALL SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, error, reason, 0, NULL, 'x' FROM dead" BY
                      " UNION ALL SELECT " MESSAGE
                      ", attempts, 0, 0, 0, status, at, error, reason, dropped, by, 'o' FROM dropped" BY " ORDER BY 1",
    [R_DEAD_LIST] =
        "SELECT " MESSAGE ", attempts, 0, 0, 0, status, at, error, reason FROM dead WHERE seq > ?1"
        " AND (?2 IS NULL OR destination = ?2) AND at BETWEEN ?3 AND ?4 AND (?5 IS NULL OR id = ?5) ORDER BY seq LIMIT ?6",
    [R_DEVICES] =
        "SELECT id, vendor, connection, device, serial, model, name, owner, place, status, extra, online, first_seen, last_seen,"
        " tags, own_tags FROM devices WHERE id > ? ORDER BY id LIMIT ?",
    [R_GENERATION] = "SELECT " GENERATION " FROM generations"
                     " WHERE instance = ?1 AND (?2 IS NULL OR verdict = ?2) ORDER BY id DESC LIMIT 1",
    [R_GENERATIONS] = "SELECT " GENERATION " FROM generations WHERE instance = ? AND id < ? ORDER BY id DESC LIMIT ?",
    [R_GENERATION_AT] =
        "SELECT number FROM generations WHERE instance = ? AND verdict = 'good' AND at <= ? ORDER BY id DESC LIMIT 1",
    [R_REQUEST_FROM] = "SELECT id, received FROM inbox WHERE id >= ? ORDER BY id LIMIT 1",
    [R_LAST_REQUEST] = "SELECT max(id) FROM inbox",
    [R_NEXT_FAILED] = "SELECT id FROM inbox WHERE instance = ?1 AND outcome = 'failed' AND id > ?2 AND id <= ?3"
                      " AND received BETWEEN ?4 AND ?5 ORDER BY id LIMIT 1",
    [R_NEXT_REQUEST] =
        "SELECT id FROM inbox NOT INDEXED WHERE instance = ?1 AND id > ?2 AND id <= ?3 AND received BETWEEN ?4 AND ?5"
        " ORDER BY id LIMIT 1",
    [R_RUNS] = "SELECT until, generation, status, outcome, error FROM request_runs WHERE request = ? ORDER BY n",
    [R_RUN_COUNT] = "SELECT (SELECT count(*) FROM request_runs WHERE request = ?1) FROM inbox WHERE id = ?1",
    [R_REMOVED] = "SELECT removed FROM series WHERE id = ? AND removed IS NOT NULL",
    [R_SAME_TIME] = READING " INDEXED BY reading_time WHERE series = ? AND at = ? AND key IS NULL",
    [R_SAME_KEY] = READING " INDEXED BY reading_time WHERE series = ? AND at = ? AND key = ?",
    /* Those that are not indexed yet are looked through. */
    [R_HAS_KEY] = "SELECT 1 WHERE EXISTS(SELECT 1 FROM reading_keys WHERE series = ?1 AND key = ?2) OR EXISTS(SELECT 1"
                  " FROM reading_rows WHERE seq > (SELECT indexed FROM counters) AND +series = ?1 AND key = ?2)",
    [R_LAST_NUMBER] = "SELECT max(number) FROM generations WHERE instance = ?",
    [R_BEGIN] = "BEGIN",
    [R_COMMIT] = "COMMIT",
    [R_NAME_ID] = "SELECT id FROM names WHERE name = ?",
    [R_NAMED] = "SELECT id, vendor FROM device_rows WHERE name = ?",
    [R_WRITERS] = "SELECT connection FROM device_writers WHERE device = ?",
    [R_SERIES_OF_DEVICE] = "SELECT id, metric FROM series WHERE device = ?",
    /* Jump from one to the next, however many events each has. */
    [R_TYPES_OF_DEVICE] =
        "WITH RECURSIVE t(type) AS (SELECT min(type) FROM event_rows WHERE device = ?1 UNION ALL SELECT (SELECT min(type)"
        " FROM event_rows WHERE device = ?1 AND type > t.type) FROM t WHERE t.type IS NOT NULL) SELECT type FROM t"
        " WHERE type IS NOT NULL",
    [R_TYPES_OF_CONNECTION] =
        "WITH RECURSIVE t(type) AS (SELECT min(type) FROM event_rows WHERE connection IS nullif(?1, 0) UNION ALL"
        " SELECT (SELECT min(type) FROM event_rows WHERE connection IS nullif(?1, 0) AND type > t.type) FROM t"
        " WHERE t.type IS NOT NULL) SELECT type FROM t WHERE type IS NOT NULL",
    [R_EVENT_CONNECTIONS] =
        "WITH RECURSIVE c(id) AS (SELECT min(connection) FROM event_rows UNION ALL SELECT (SELECT min(connection)"
        " FROM event_rows WHERE connection > c.id) FROM c WHERE c.id IS NOT NULL) SELECT id FROM c WHERE id IS NOT NULL"
        " UNION ALL SELECT 0 WHERE EXISTS(SELECT 1 FROM event_rows WHERE connection IS NULL)",
    [R_DEVICE_NAMES] = "SELECT v.name, d.name, '' FROM device_rows d JOIN names v ON v.id = d.vendor WHERE d.id = ?",
    [R_COUNT_READINGS] = "SELECT count(*) FROM reading_rows INDEXED BY reading_time WHERE series = ? AND at BETWEEN ? AND ?",
    [R_COUNT_DEVICE_EVENTS] = "SELECT count(*) FROM event_rows INDEXED BY event_series WHERE device = ? AND type = ?"
                              " AND at BETWEEN ? AND ?",
    [R_COUNT_CONNECTION_EVENTS] = "SELECT count(*) FROM event_rows INDEXED BY event_connection WHERE connection IS nullif(?, 0)"
                                  " AND type = ? AND at BETWEEN ? AND ?",
};

struct name {
  size_t len;
  char text[];
};

struct series {
  size_t vendor, device, metric, offsets[2]; /* lengths; the three texts stand one behind the other */
  int partition;
  char text[];
};

struct np_reader *np_reader_open(const char *path, struct np_error *err) {
  struct np_reader *r = np_alloc(sizeof *r);
  if (np_sql_open(&r->sql, path, false, 4096, np_read_texts, R_COUNT, err) == 0 && np_schema_ready(&r->sql, path, false, err) == 0)
    return r;
  np_reader_close(r);
  return NULL;
}

void np_reader_close(struct np_reader *r) {
  if (!r) return;
  np_streams_close(r);
  if (r->sql.db) np_sql_close(&r->sql);
  np_map_free(&r->names, free);
  np_map_free(&r->series, free);
  np_map_free(&r->devices, free);
  free(r);
}

bool np_read_name(struct np_reader *r, sqlite3_stmt *row, int column, struct np_text *out) {
  *out = (struct np_text){0};
  int64_t id = sqlite3_column_int64(row, column);
  if (!id) return true;
  struct name *n = np_map_get(&r->names, (char *)&id, sizeof id);
  if (!n) {
    sqlite3_stmt *st = np_sql_start(&r->sql, R_NAME, "i", id);
    if (!st || sqlite3_step(st) != SQLITE_ROW) {
      if (st) sqlite3_reset(st);
      return false;
    }
    struct np_text t = np_sql_text(st, 0);
    n = np_alloc(sizeof *n + t.len + 1);
    n->len = t.len;
    memcpy(n->text, t.ptr, t.len);
    sqlite3_reset(st);
    np_map_put(&r->names, (char *)&id, sizeof id, n);
  }
  *out = (struct np_text){n->text, n->len};
  return true;
}

static struct series *load_series(struct np_reader *r, struct np_map *into, int which, int64_t id) {
  sqlite3_stmt *st = np_sql_start(&r->sql, which, "i", id);
  if (!st || sqlite3_step(st) != SQLITE_ROW) {
    if (st) sqlite3_reset(st);
    return NULL;
  }
  struct np_text v = np_sql_text(st, 0), d = np_sql_text(st, 1), m = np_sql_text(st, 2);
  struct series *s = np_alloc(sizeof *s + v.len + d.len + m.len + 3);
  *s = (struct series){.vendor = v.len, .device = d.len, .metric = m.len, .offsets = {v.len + 1, v.len + d.len + 2}};
  memcpy(s->text, v.ptr, v.len + 1);
  memcpy(s->text + s->offsets[0], d.ptr, d.len + 1);
  memcpy(s->text + s->offsets[1], m.ptr, m.len + 1);
  s->partition = np_partition(d.ptr, d.len);
  sqlite3_reset(st);
  np_map_put(into, (char *)&id, sizeof id, s);
  return s;
}

static bool find_series(struct np_reader *r, int64_t id, struct np_reading *out) {
  struct series *s = np_map_get(&r->series, (char *)&id, sizeof id);
  if (!s) s = load_series(r, &r->series, R_SERIES, id);
  if (!s) return false;
  out->vendor = (struct np_text){s->text, s->vendor};
  out->device = (struct np_text){s->text + s->offsets[0], s->device};
  out->metric = (struct np_text){s->text + s->offsets[1], s->metric};
  out->partition = s->partition;
  return true;
}

bool np_read_device(struct np_reader *r, sqlite3_stmt *row, int column, struct np_text *vendor, struct np_text *device) {
  if (r->devices.count > MOST) np_map_free(&r->devices, free);
  int64_t id = sqlite3_column_int64(row, column);
  struct series *s = np_map_get(&r->devices, (char *)&id, sizeof id);
  if (!s) s = load_series(r, &r->devices, R_DEVICE_NAMES, id);
  if (!s) return false;
  *vendor = (struct np_text){s->text, s->vendor};
  *device = (struct np_text){s->text + s->offsets[0], s->device};
  return true;
}

static void bound(struct np_reader *r) {
  if (r->names.count > MOST) np_map_free(&r->names, free);
  if (r->series.count > MOST) np_map_free(&r->series, free);
}

static struct np_value value_of(sqlite3_stmt *st, int column, bool truth) {
  switch (sqlite3_column_type(st, column)) {
  case SQLITE_INTEGER: return (struct np_value){.type = truth ? NP_BOOL : NP_NUMBER_INT, .i = sqlite3_column_int64(st, column)};
  case SQLITE_FLOAT: return (struct np_value){.type = NP_NUMBER_REAL, .d = sqlite3_column_double(st, column)};
  default: return (struct np_value){.type = NP_STRING, .s = np_sql_text(st, column)};
  }
}

bool np_read_reading(struct np_reader *r, sqlite3_stmt *st, struct np_reading *out) {
  bound(r);
  int traits = sqlite3_column_int(st, 7);
  *out = (struct np_reading){
      .seq = sqlite3_column_int64(st, 0),
      .at = sqlite3_column_int64(st, 2),
      .received = sqlite3_column_int64(st, 3),
      .value = value_of(st, 4, traits & 32),
      .quality = traits & 3,
      .trend = traits >> 2 & 7,
      .quiet = traits & 64,
      .depth = traits >> 7 & 7,
      .interval = sqlite3_column_int64(st, 8),
      .serial = sqlite3_column_type(st, 9) == SQLITE_NULL ? INT64_MIN : sqlite3_column_int64(st, 9),
      .key = np_sql_text(st, 10),
      .extra = np_sql_text(st, 11),
  };
  return find_series(r, sqlite3_column_int64(st, 1), out) && np_read_name(r, st, 5, &out->unit) &&
         np_read_name(r, st, 6, &out->connection);
}

static int walk(struct np_reader *r, sqlite3_stmt *st, np_reading_fn *fn, void *arg, struct np_error *err) {
  struct np_reading reading;
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    if (!np_read_reading(r, st, &reading)) {
      np_sql_end(&r->sql, st, SQLITE_ROW, err);
      return np_fail(err, "store: reading %lld has no device, metric or unit: the file is damaged", (long long)reading.seq);
    }
    if (!fn(arg, &reading)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int64_t np_reader_last_seq(struct np_reader *r) {
  int64_t seq = 0;
  return np_sql_one(&r->sql, R_LAST, &seq, "") == SQLITE_ROW ? seq : -1;
}

int np_reader_scan(struct np_reader *r, int64_t after, int limit, np_reading_fn *fn, void *arg, struct np_error *err) {
  return walk(r, np_sql_start(&r->sql, R_SCAN, "iw", after, limit), fn, arg, err);
}

int np_reader_reading(struct np_reader *r, int64_t seq, np_reading_fn *fn, void *arg, struct np_error *err) {
  return walk(r, np_sql_start(&r->sql, R_READING, "i", seq), fn, arg, err);
}

struct merge {       /* several series, merged newest first */
  sqlite3_stmt **of; /* owned; each stands on a row, or is NULL at its end */
  size_t count;
};

static sqlite3_stmt *newest(const struct merge *m, size_t *which) {
  sqlite3_stmt *best = NULL;
  for (size_t i = 0; i < m->count; i++) {
    if (!m->of[i]) continue;
    int64_t at = sqlite3_column_int64(m->of[i], 2), best_at = best ? sqlite3_column_int64(best, 2) : 0;
    if (best && (at < best_at || (at == best_at && sqlite3_column_int64(m->of[i], 0) < sqlite3_column_int64(best, 0)))) continue;
    best = m->of[i];
    *which = i;
  }
  return best;
}

static int step(struct merge *m, size_t i) {
  int rc = sqlite3_step(m->of[i]);
  if (rc == SQLITE_ROW) return SQLITE_OK;
  rc = sqlite3_finalize(m->of[i]);
  m->of[i] = NULL;
  return rc;
}

static int merge_rows(struct np_reader *r, struct merge *m, int limit, np_reading_fn *fn, void *arg) {
  struct np_reading reading;
  sqlite3_stmt *st;
  size_t which = 0;
  int rc = SQLITE_OK;
  for (size_t i = 0; i < m->count && rc == SQLITE_OK; i++) rc = step(m, i);
  for (; limit > 0 && rc == SQLITE_OK && (st = newest(m, &which)); limit--) {
    if (!np_read_reading(r, st, &reading)) return SQLITE_CORRUPT;
    if (!fn(arg, &reading)) break;
    rc = step(m, which);
  }
  return rc;
}

static int merge_series(struct np_reader *r, const int64_t *ids, size_t n, int64_t from, int64_t to, int limit, np_reading_fn *fn,
                        void *arg, struct np_error *err) {
  struct merge m = {.of = np_alloc(n * sizeof *m.of), .count = n};
  int rc = SQLITE_OK;
  for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
    rc = sqlite3_prepare_v2(r->sql.db, np_read_texts[R_HISTORY], -1, &m.of[i], NULL);
    if (rc != SQLITE_OK) break;
    sqlite3_bind_int64(m.of[i], 1, ids[i]);
    sqlite3_bind_int64(m.of[i], 2, from);
    sqlite3_bind_int64(m.of[i], 3, to);
    sqlite3_bind_int(m.of[i], 4, limit);
  }
  if (rc == SQLITE_OK) rc = merge_rows(r, &m, limit, fn, arg);
  if (rc != SQLITE_OK) np_sql_fail(&r->sql, rc, err);
  for (size_t i = 0; i < n; i++) sqlite3_finalize(m.of[i]);
  free(m.of);
  return rc == SQLITE_OK ? 0 : -1;
}

/* Those of a run of the request, which stand one behind the other: of the first that began after *last, which is moved to its last one. 1, 0 where there is
 * none, or fn has stopped, -1 and err. */
static int run_readings(struct np_reader *r, int64_t request, int64_t *last, np_reading_fn *fn, void *arg, struct np_error *err) {
  sqlite3_stmt *st = np_sql_start(&r->sql, R_FROM_REQUEST, "ii", request, *last);
  struct np_reading reading;
  int rc = SQLITE_OK;
  bool more = true, any = false;
  while (st && more && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    bool belongs = sqlite3_column_int64(st, 12) == request;
    if (belongs || !any) *last = sqlite3_column_int64(st, 0);
    any = true;
    if (!belongs) break;
    if (!np_read_reading(r, st, &reading)) {
      rc = SQLITE_CORRUPT;
      break;
    }
    more = fn(arg, &reading);
  }
  return np_sql_end(&r->sql, st, rc, err) < 0 ? -1 : any && more;
}

int np_reader_request_readings(struct np_reader *r, int64_t request, np_reading_fn *fn, void *arg, struct np_error *err) {
  int64_t last = 0;
  int more;
  do more = run_readings(r, request, &last, fn, arg, err);
  while (more > 0);
  return more;
}

int64_t np_reader_reading_request(struct np_reader *r, int64_t seq) {
  int64_t request = 0;
  int rc = np_sql_one(&r->sql, R_REQUEST_OF, &request, "i", seq);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? request : -1;
}

static int walk_derivations(struct np_reader *r, sqlite3_stmt *st, np_derivation_fn *fn, void *arg, struct np_error *err) {
  int rc = SQLITE_OK;
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    const struct np_derivation d = {.cause = sqlite3_column_int64(st, 1),
                                    .generation = sqlite3_column_int(st, 2),
                                    .timer = np_sql_text(st, 3),
                                    .key = np_sql_text(st, 4)};
    if (!fn(arg, sqlite3_column_int64(st, 0), &d)) break;
  }
  return np_sql_end(&r->sql, st, rc, err);
}

int np_reader_derivation(struct np_reader *r, int64_t reading, np_derivation_fn *fn, void *arg, struct np_error *err) {
  return walk_derivations(r, np_sql_start(&r->sql, R_DERIVATION, "i", reading), fn, arg, err);
}

int np_reader_derived_from(struct np_reader *r, int64_t cause, int64_t after, int limit, np_derivation_fn *fn, void *arg,
                           struct np_error *err) {
  return walk_derivations(r, np_sql_start(&r->sql, R_DERIVED_FROM, "iiw", cause, after, limit), fn, arg, err);
}

int np_reader_derived_by(struct np_reader *r, const char *rule, int64_t after, int64_t upto, int64_t from, int64_t to,
                         np_derivation_fn *fn, void *arg, struct np_error *err) {
  return walk_derivations(r, np_sql_start(&r->sql, R_DERIVED_BY, "siiii", rule, after, upto, from, to), fn, arg, err);
}

int np_reader_derived_count(struct np_reader *r, int64_t cause, int64_t *n, struct np_error *err) {
  int rc = np_sql_one(&r->sql, R_DERIVED_COUNT, n, "i", cause);
  return rc == SQLITE_ROW ? 0 : np_sql_fail(&r->sql, rc, err);
}

int np_reader_history(struct np_reader *r, const char *vendor, const char *device, const char *metric, int64_t from, int64_t to,
                      int limit, np_reading_fn *fn, void *arg, struct np_error *err) {
  int64_t *ids = NULL;
  size_t n = 0;
  int rc = SQLITE_OK;
  sqlite3_stmt *st = np_sql_start(&r->sql, R_SERIES_OF, "sss", device, metric, vendor);
  while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    ids = np_realloc(ids, (n + 1) * sizeof *ids);
    ids[n++] = sqlite3_column_int64(st, 0);
  }
  int done = np_sql_end(&r->sql, st, rc, err);
  if (done == 0 && n == 1)
    done = walk(r, np_sql_start(&r->sql, R_HISTORY, "iiiw", ids[0], from, to, limit), fn, arg, err);
  else if (done == 0 && n > 1)
    done = merge_series(r, ids, n, from, to, limit, fn, arg, err);
  free(ids);
  return done;
}

int np_read_series(struct np_reader *r, const char *vendor, const char *device, const char *metric, int64_t *series) {
  *series = 0;
  int rc = np_sql_one(&r->sql, R_SERIES_OF, series, "sss", device, metric, vendor);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int np_reader_before(struct np_reader *r, const char *vendor, const char *device, const char *metric, int64_t to, int64_t seq,
                     np_reading_fn *fn, void *arg, struct np_error *err) {
  int64_t series;
  int rc = np_read_series(r, vendor, device, metric, &series);
  if (rc != SQLITE_OK) return np_sql_fail(&r->sql, rc, err);
  if (!series) return 0;
  return walk(r, np_sql_start(&r->sql, R_BEFORE, "iii", series, to, seq), fn, arg, err);
}
