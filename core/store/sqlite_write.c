/* What the SQLite engine's writer does for each operation of a set, and what it checks before. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "store/sqlite.h"

#define MESSAGE "seq, id, destination, device, body, source, reading, created, generation, replayed, about"

/* What rows count for, with what hangs on them. */
#define BYTES(column) "ifnull(length(CAST(" column " AS BLOB)), 0)"
#define SUM(bytes, rows) "ifnull((SELECT sum(" bytes ") FROM " rows "), 0)"
#define REQUEST_BYTES                                                                                                              \
  BYTES("target")                                                                                                                  \
  " + " BYTES("headers") " + " BYTES("body") " + " BYTES("error") " + " SUM("60 + " BYTES("r.error"),                              \
                                                                            "request_runs r WHERE r.request = inbox.id")
#define DERIVATION_BYTES "40 + " BYTES("timer") " + " BYTES("key")
#define READING_BYTES                                                                                                              \
  "CASE WHEN typeof(value) IN ('text', 'blob') THEN length(CAST(value AS BLOB)) ELSE 0 END + " BYTES("key") " + " BYTES(           \
      "extra") " + CASE WHEN traits & 896 THEN " SUM(DERIVATION_BYTES, "derivations WHERE reading = seq") " ELSE 0 END"
/* Attempts go by the number of a message, its acknowledgement, or that one is waited for, by its id. */
#define MESSAGE_BYTES                                                                                                              \
  BYTES("body")                                                                                                                    \
  " + " SUM("80 + " BYTES("error") " + " BYTES("answer") " + " BYTES("request") " + " BYTES("reply"),                              \
            "attempts WHERE message = seq") " + " SUM("40 + " BYTES("key") " + " BYTES("value"),                                   \
                                                      "kv WHERE space IN ('neap.acks', 'neap.asked') AND key = id")
#define DEAD_BYTES MESSAGE_BYTES " + " BYTES("error")

const char *const np_write_texts[W_COUNT] = {
    [W_BEGIN] = "BEGIN IMMEDIATE",
    [W_COMMIT] = "COMMIT",
    [W_SAVEPOINT] = "SAVEPOINT apart",
    [W_RELEASE] = "RELEASE apart",
    [W_CHANGED] = "PRAGMA data_version",
    /* Where somebody has put rows in by hand, numbers still go on past them. */
    [W_COUNTERS] = "SELECT max(reading, coalesce((SELECT max(seq) FROM reading_rows), 0)),"
                   " max(request, coalesce((SELECT max(id) FROM inbox), 0)),"
                   " max(message, coalesce((SELECT max(seq) FROM outbox), 0)),"
                   " max(held, coalesce((SELECT max(id) FROM held), 0)), version,"
                   " indexed, request_bytes, reading_bytes, event_bytes, delivered_bytes, dead_bytes FROM counters",
    [W_SAVE_COUNTERS] = "UPDATE counters SET reading = ?, request = ?, message = ?, held = ?, version = ?, indexed = ?,"
                        " request_bytes = ?, reading_bytes = ?, event_bytes = ?, delivered_bytes = ?, dead_bytes = ? WHERE one = 1",
    [W_NAME] = "SELECT id FROM names WHERE name = ?",
    [W_ADD_NAME] = "INSERT INTO names(name) VALUES(?)",
    [W_DEVICE] =
        "SELECT id, seen, news, online, connection, serial, model, label, owner, place, status, extra, tags FROM device_rows"
        " WHERE name = ? AND vendor = ?",
    [W_ADD_DEVICE] = "INSERT INTO device_rows(name, vendor, first_seen, seen, connection) VALUES(?, ?, ?, ?, ?)",
    [W_SET_DEVICE] =
        "UPDATE device_rows SET seen = ?2, news = ?3, online = ?4, connection = ?5, serial = ?6, model = ?7, label = ?8,"
        " owner = ?9, place = ?10, status = ?11, extra = ?12, tags = ?13 WHERE id = ?1",
    [W_WRITER] = "INSERT INTO device_writers VALUES(?, ?, ?) ON CONFLICT DO NOTHING",
    [W_SERIES] = "SELECT id FROM series WHERE device = ? AND metric = ?",
    [W_LAST_SERIAL] = "SELECT serial, at FROM reading_rows INDEXED BY reading_time WHERE series = ? AND serial IS NOT NULL"
                      " ORDER BY at DESC LIMIT 1",
    [W_ADD_SERIES] = "INSERT INTO series(device, metric) VALUES(?, ?)",
    [W_REQUEST] = "INSERT INTO inbox(id, received, instance, generation, method, target, headers, body, remote, status, outcome, "
                  "error, reading)"
                  " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [W_READING] =
        "INSERT INTO reading_rows VALUES(?, ?, ?, ?, ?, nullif(?, 0), nullif(?, 0), ?, nullif(?, 0), nullif(?, 0), ?, ?, ?)",
    [W_DERIVED] = "INSERT INTO derivations VALUES(?, ?, ?, ?, ?) RETURNING " DERIVATION_BYTES,
    [W_SAME_TIME] = "SELECT 1 FROM reading_rows INDEXED BY reading_time WHERE series = ? AND at = ? AND key IS NULL",
    [W_SAME_KEY] = "SELECT 1 FROM reading_keys WHERE series = ? AND key = ?",
    [W_ADD_KEY] = "INSERT INTO reading_keys VALUES(?, ?) ON CONFLICT DO NOTHING",
    [W_RECENT] = "SELECT series, key, traits & 896 FROM reading_rows WHERE seq > ? AND key IS NOT NULL",
    [W_EVENT] = "INSERT INTO event_rows(device, type, at, key, received, connection, data) VALUES(?, ?, ?, ?, ?,"
                " nullif(?, 0), ?) ON CONFLICT(device, type, at, key) DO NOTHING",
    [W_VERSION] = "SELECT version FROM kv WHERE space = ? AND key = ?",
    [W_PUT] = "INSERT INTO kv VALUES(?, ?, ?, ?, ?) ON CONFLICT(space, key)"
              " DO UPDATE SET value = excluded.value, version = excluded.version, expires = excluded.expires",
    [W_DELETE] = "DELETE FROM kv WHERE space = ? AND key = ?",
    [W_DUE] = "SELECT due FROM timers WHERE instance = ? AND name = ? AND key = ?",
    [W_ARM] = "INSERT INTO timers VALUES(?, ?, ?, ?) ON CONFLICT(instance, name, key) DO UPDATE SET due = excluded.due",
    [W_DISARM] = "DELETE FROM timers WHERE instance = ? AND name = ? AND key = ?",
    [W_FIRED] = "DELETE FROM timers WHERE instance = ? AND name = ? AND key = ? AND due = ?",
    [W_SEND] = "INSERT INTO outbox(" MESSAGE ", attempts, due, since, expires) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [W_DELIVERED] =
        "INSERT INTO delivered(" MESSAGE ", attempts, status, at) SELECT " MESSAGE ", ?2, ?3, ?4 FROM outbox WHERE seq = ?1",
    [W_DIED] = "INSERT INTO dead(" MESSAGE ", attempts, status, at, error, reason) SELECT " MESSAGE
               ", ?2, CASE WHEN ?5 IS NULL THEN status ELSE ?3 END, ?4, coalesce(?5, error), ?6 FROM outbox WHERE seq = ?1",
    [W_AGAIN] = "UPDATE outbox SET attempts = ?2, status = ?3, due = ?4, error = ?5 WHERE seq = ?1",
    /* Only where the message is still there: nobody would remove it otherwise. */
    [W_ATTEMPT] = "INSERT OR REPLACE INTO attempts(message, n, at, took, generation, status, batch, outcome, error, answer,"
                  " request, reply) SELECT seq, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM outbox WHERE seq = ?1",
    /* The first is kept, and the newest 20. */
    [W_OLD_ATTEMPT] = "DELETE FROM attempts WHERE message = ?1 AND n > 1 AND n <= ?2 - 20",
    [W_RETRY] = "INSERT INTO outbox(" MESSAGE ", attempts, due, status, error, since, expires) SELECT " MESSAGE
                ", attempts, 0, status, error, ?2, 0 FROM dead WHERE seq = ?1",
    [W_DROP] = "INSERT INTO dropped(" MESSAGE ", attempts, status, at, error, reason, dropped, by) SELECT " MESSAGE
               ", attempts, status, at, error, reason, ?2, ?3 FROM dead WHERE seq = ?1",
    [W_BURY] = "DELETE FROM dead WHERE seq = ?",
    [W_SENT] = "DELETE FROM outbox WHERE seq = ?",
    [W_HOLD] = "INSERT INTO held(id, instance, name, key, reading, at, generation, error) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
    [W_HELD] = "SELECT 1 FROM held WHERE id = ?",
    [W_FREE] = "DELETE FROM held WHERE id = ?",
    [W_CURSOR] = "SELECT seq FROM cursors WHERE partition = ?",
    [W_SET_CURSOR] = "INSERT INTO cursors VALUES(?, ?) ON CONFLICT(partition) DO UPDATE SET seq = excluded.seq",
    [W_GENERATION] = "INSERT INTO generations(instance, number, at, verdict, file, hash, reason, source, cause) VALUES(?, ?, ?, ?, "
                     "?, ?, ?, ?, ?)",
    /* A hundred of each verdict are kept. */
    [W_OLD_GENERATIONS] = "DELETE FROM generations WHERE instance = ?1 AND verdict = ?2 AND id <= (SELECT id FROM generations"
                          " WHERE instance = ?1 AND verdict = ?2 ORDER BY id DESC LIMIT 1 OFFSET 100)",
    [W_RUNS] = "SELECT 1 + (SELECT count(*) FROM request_runs WHERE request = ?1) FROM inbox WHERE id = ?1",
    [W_KEEP_RUN] =
        "INSERT INTO request_runs SELECT id, ?2, ?3, generation, status, outcome, error, reading FROM inbox WHERE id = ?1",
    [W_REPLAYED] = "UPDATE inbox SET generation = ?2, status = ?3, outcome = ?4, error = ?5, reading = ?6 WHERE id = ?1",
    [W_TAG] = "INSERT INTO device_tags SELECT d.id, ?3 FROM device_rows d WHERE d.name = ?2 AND d.vendor ="
              " (SELECT id FROM names WHERE name = ?1) ON CONFLICT DO NOTHING",
    [W_UNTAG] = "DELETE FROM device_tags WHERE device = (SELECT d.id FROM device_rows d WHERE d.name = ?2 AND d.vendor ="
                " (SELECT id FROM names WHERE name = ?1)) AND tag = ?3",
    [W_ACK] = "INSERT INTO kv SELECT ?1, ?2, ?3, ?4, 0 WHERE EXISTS(SELECT 1 FROM outbox WHERE id = ?2)"
              " OR EXISTS(SELECT 1 FROM delivered WHERE id = ?2) OR EXISTS(SELECT 1 FROM dead WHERE id = ?2)"
              " OR EXISTS(SELECT 1 FROM dropped WHERE id = ?2) ON CONFLICT DO NOTHING",
    [W_REQUEST_BYTES] = "SELECT " REQUEST_BYTES " FROM inbox WHERE id = ?",
    /* Where a message is kept: whether that is as a dead letter, and its bytes. */
    [W_MESSAGE_BYTES] = "SELECT 0, " MESSAGE_BYTES " FROM delivered WHERE seq = ?1 UNION ALL SELECT 0, " DEAD_BYTES
                        " FROM dropped WHERE seq = ?1 UNION ALL SELECT 1, " DEAD_BYTES " FROM dead WHERE seq = ?1",
    [W_MESSAGE_OF] = "SELECT seq FROM delivered WHERE id = ?1 UNION ALL SELECT seq FROM dropped WHERE id = ?1"
                     " UNION ALL SELECT seq FROM dead WHERE id = ?1",
    /* Until when those were made that are no longer on record. */
    [W_MESSAGES_GONE] = "INSERT INTO kv VALUES('neap.messages', 'gone', ?, 0, 0) ON CONFLICT(space, key)"
                        " DO UPDATE SET value = max(value, excluded.value)",
    [W_PRUNE_KEYS] =
        "DELETE FROM kv WHERE (space, key) IN (SELECT space, key FROM kv WHERE expires > 0 AND expires <= ? LIMIT 500)",
    /* Numbers rise with time, so the oldest rows are the first ones. Each: number, when, bytes, what else it takes to decide. */
    [W_OLD_REQUESTS] = "SELECT id, received, " REQUEST_BYTES ", outcome = 'failed' FROM inbox WHERE id > ? ORDER BY id LIMIT 500",
    [W_OLD_READINGS] = "SELECT seq, received, " READING_BYTES ", series, at, key, serial IS NOT NULL, traits & 896"
                       " FROM reading_rows WHERE seq > ? ORDER BY seq LIMIT 500",
    [W_OLD_EVENTS] = "SELECT id, received, " BYTES("key") " + " BYTES("data") " FROM event_rows WHERE id > ? ORDER BY id LIMIT 500",
    [W_OLD_DEAD] = "SELECT seq, at, " DEAD_BYTES ", created FROM dead WHERE seq > ? ORDER BY seq LIMIT 500",
    [W_OLD_MESSAGES] =
        "SELECT seq, at, " MESSAGE_BYTES ", created FROM delivered WHERE seq > ?1 UNION ALL SELECT seq, dropped, " DEAD_BYTES
        ", created FROM dropped WHERE seq > ?1 ORDER BY seq LIMIT 500",
    [W_DROP_REQUEST] = "DELETE FROM inbox WHERE id = ?",
    [W_DROP_READING] = "DELETE FROM reading_rows WHERE seq = ?",
    [W_DROP_EVENT] = "DELETE FROM event_rows WHERE id = ?",
    [W_DROP_DELIVERED] = "DELETE FROM delivered WHERE seq = ?",
    [W_DROP_DROPPED] = "DELETE FROM dropped WHERE seq = ?",
    [W_DROP_KEY] = "DELETE FROM reading_keys WHERE series = ? AND key = ?",
    [W_REMOVED] = "SELECT removed FROM series WHERE id = ? AND removed IS NOT NULL",
    [W_SET_REMOVED] = "UPDATE series SET removed = ?2 WHERE id = ?1 AND (removed IS NULL OR removed < ?2)",
    [W_NEWEST] = "SELECT seq FROM reading_rows INDEXED BY reading_time WHERE series = ? ORDER BY at DESC, seq DESC LIMIT 1",
    [W_NEWEST_SERIAL] = "SELECT seq FROM reading_rows INDEXED BY reading_time WHERE series = ? AND serial IS NOT NULL"
                        " ORDER BY at DESC LIMIT 1",
    [W_SERIES_DEVICE] = "SELECT d.name FROM series s JOIN device_rows d ON d.id = s.device WHERE s.id = ?",
    [W_HELD_READING] = "SELECT 1 FROM held WHERE reading = ?",
};

/* Names are compared, joined and shown: what cannot be any is told before something is written. */
static bool is_name(const struct np_text *t) { return t->ptr && !memchr(t->ptr, 0, t->len); }
static bool is_name_or_absent(const struct np_text *t) { return !t->ptr || is_name(t); }

static const char *check_reading(const struct np_reading *r) {
  if (!is_name(&r->vendor) || !is_name(&r->device) || !is_name(&r->metric))
    return "store: a reading's vendor, device and metric have to be there, without a 0 byte";
  if (!is_name_or_absent(&r->unit) || !is_name_or_absent(&r->connection)) return "store: a reading's unit has a 0 byte";
  if (r->value.type == NP_STRING && !r->value.s.ptr) return "store: a reading has no value";
  if (r->depth < 0 || r->depth > NP_DEPTH_MAX) return "store: a reading's depth is out of bounds";
  if (r->depth && !r->key.len) return "store: a derived reading has no key";
  if (r->value.type == NP_NUMBER_REAL && isnan(r->value.d)) return "store: a reading's value is not a number";
  return NULL;
}

static const char *check_op(const struct np_op *op) {
  switch (op->kind) {
  case NP_OP_READING: return check_reading(&op->as.reading);
  case NP_OP_DEVICE:
    if (!is_name(&op->as.device.vendor) || !is_name(&op->as.device.device))
      return "store: a device's vendor and name have to be there, without a 0 byte";
    return NULL;
  case NP_OP_EVENT:
    if (!is_name(&op->as.event.vendor) || !is_name(&op->as.event.device) || !is_name(&op->as.event.type) ||
        !is_name_or_absent(&op->as.event.connection))
      return "store: an event's vendor, device and type have to be there, without a 0 byte";
    return NULL;
  case NP_OP_SEND:
    if (!is_name(&op->as.send.destination) || !is_name_or_absent(&op->as.send.device) || !op->as.send.id.ptr ||
        !op->as.send.body.ptr)
      return "store: a message needs an id, a destination and a body";
    return NULL;
  case NP_OP_ACK:
    if (!is_name(&op->as.ack.id) || !op->as.ack.record.ptr) return "store: an acknowledgement needs a message's id and a record";
    return NULL;
  case NP_OP_CURSOR:
    return op->as.cursor.partition < 0 || op->as.cursor.partition >= NP_PARTITIONS ? "store: there is no such partition" : NULL;
  default: return NULL;
  }
}

/* Where this set itself has already moved the cursor to, or else where the store has it. */
static int cursor_now(struct np_store *s, const struct np_writeset *ws, const struct np_op *op, int64_t *seq) {
  bool moved = false;
  for (const struct np_op *o = ws->first; o != op; o = o->next) {
    if (o->kind != NP_OP_CURSOR || o->as.cursor.partition != op->as.cursor.partition) continue;
    *seq = o->as.cursor.seq;
    moved = true;
  }
  return moved ? SQLITE_ROW : np_sql_one(&s->sql, W_CURSOR, seq, "w", op->as.cursor.partition);
}

static int check_state(struct np_store *s, const struct np_writeset *ws, const struct np_op *op, bool *conflict) {
  int64_t found = 0, wanted;
  int rc;
  switch (op->kind) {
  case NP_OP_SEEN:
    rc = np_sql_one(&s->sql, W_VERSION, &found, "tk", &op->as.seen.space, &op->as.seen.key);
    wanted = op->as.seen.version;
    break;
  case NP_OP_FIRED:
    rc = np_sql_one(&s->sql, W_DUE, &found, "ttk", &op->as.fired.instance, &op->as.fired.name, &op->as.fired.key);
    if (rc == SQLITE_DONE) *conflict = true;
    wanted = op->as.fired.due;
    break;
  case NP_OP_RELEASE:
    rc = np_sql_one(&s->sql, W_HELD, &found, "i", op->as.release.id);
    wanted = 1;
    break;
  case NP_OP_REPLAYED:
    rc = np_sql_one(&s->sql, W_RUNS, &found, "i", op->as.replayed.id);
    wanted = op->as.replayed.runs + 1;
    break;
  case NP_OP_CURSOR:
    rc = cursor_now(s, ws, op, &found);
    wanted = op->as.cursor.from;
    break;
  default: return SQLITE_OK;
  }
  if (found != wanted) *conflict = true;
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int np_write_check(struct np_store *s, const struct np_writeset *ws, bool *conflict, const char **bad) {
  *conflict = false;
  *bad = NULL;
  for (const struct np_op *op = ws->first; op; op = op->next) {
    if ((*bad = check_op(op))) return SQLITE_OK;
    int rc = check_state(s, ws, op, conflict);
    if (rc != SQLITE_OK) return rc;
  }
  return SQLITE_OK;
}

static int write_request(struct np_store *s, struct np_writeset *ws, const struct np_op *op) {
  ws->request_id = ++s->count.request;
  s->count.bytes[NP_KEPT_REQUESTS] +=
      (int64_t)(op->as.request.target.len + op->as.request.headers.len + op->as.request.body.len + op->as.request.error.len) +
      NP_REQUEST_BYTES;
  return np_sql_run(&s->sql, W_REQUEST, "iitwttbbtwtti", ws->request_id, op->as.request.received, &op->as.request.instance,
                    op->as.request.generation, &op->as.request.method, &op->as.request.target, &op->as.request.headers,
                    &op->as.request.body, &op->as.request.remote, op->as.request.status, &op->as.request.outcome,
                    &op->as.request.error, s->count.reading + 1);
}

static int add_event(struct np_store *s, int64_t device, int64_t type, int64_t at, const struct np_text *key, int64_t received,
                     int64_t connection, const struct np_text *data) {
  int rc = np_sql_run(&s->sql, W_EVENT, "iiikiib", device, type, at, key, received, connection, data);
  if (rc == SQLITE_OK && sqlite3_changes(s->sql.db))
    s->count.bytes[NP_KEPT_EVENTS] += (int64_t)(key->len + data->len) + NP_EVENT_BYTES;
  return rc;
}

/* Serial numbers count up by one from 1: what they pass over is a gap, an event of the device. Looked at in the order of `at`: what
 * comes late fills a hole and makes none. A number that falls begins a new count. */
static int count_serial(struct np_store *s, struct np_known_series *k) {
  k->serial = INT64_MIN;
  sqlite3_stmt *st = np_sql_start(&s->sql, W_LAST_SERIAL, "i", k->id);
  if (!st) return np_sql_code(&s->sql);
  if (sqlite3_step(st) == SQLITE_ROW) {
    k->serial = sqlite3_column_int64(st, 0);
    k->at = sqlite3_column_int64(st, 1);
  }
  k->counted = true;
  return sqlite3_reset(st);
}

static int write_gap(struct np_store *s, struct np_known_series *k, const struct np_reading *r) {
  if (k->serial != INT64_MIN && r->at <= k->at) return SQLITE_OK;
  int64_t from = k->serial == INT64_MIN || r->serial < k->serial ? 1 : k->serial + 1, connection, type;
  bool same = r->serial == k->serial;
  k->serial = r->serial;
  k->at = r->at;
  if (same || r->serial <= from) return SQLITE_OK;
  char key[200], data[240];
  static const struct np_text gap = {"gap", 3};
  int key_len = snprintf(key, sizeof key, "%.100s:%lld-%lld", r->metric.ptr, (long long)from, (long long)r->serial - 1);
  struct np_buf metric = {0};
  np_buf_add_json(&metric, r->metric.ptr, r->metric.len < 100 ? r->metric.len : 100);
  int data_len = snprintf(data, sizeof data, "{\"metric\":%s,\"from\":%lld,\"to\":%lld}", metric.data, (long long)from,
                          (long long)r->serial - 1);
  np_buf_free(&metric);
  struct np_text key_text = {key, (size_t)key_len}, data_text = {data, (size_t)data_len};
  int rc = np_known_name(s, &gap, &type);
  if (rc == SQLITE_OK) rc = np_known_name(s, &r->connection, &connection);
  if (rc != SQLITE_OK) return rc;
  return add_event(s, k->device->id, type, r->at, &key_text, r->received, connection, &data_text);
}

static int find_removed(struct np_store *s, struct np_known_series *k) {
  if (k->removals == s->removals) return SQLITE_OK;
  k->removed = INT64_MIN;
  int rc = np_sql_one(&s->sql, W_REMOVED, &k->removed, "i", k->id);
  k->removals = s->removals;
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* It may have been there, and be gone for its age. */
static int write_too_old(struct np_store *s, struct np_known_series *k, const struct np_reading *r) {
  static const struct np_text too_old = {"too_old", 7};
  struct np_text key = {r->metric.ptr, r->metric.len < 100 ? r->metric.len : 100};
  struct np_buf data = {0};
  int64_t connection, type;
  np_buf_adds(&data, "{\"metric\":");
  np_buf_add_json(&data, key.ptr, key.len);
  np_buf_addc(&data, '}');
  struct np_text text = {data.data, data.len};
  int rc = np_known_name(s, &too_old, &type);
  if (rc == SQLITE_OK) rc = np_known_name(s, &r->connection, &connection);
  if (rc == SQLITE_OK) rc = add_event(s, k->device->id, type, k->removed, &key, r->received, connection, &text);
  np_buf_free(&data);
  return rc;
}

/* An empty key identifies nothing, so it counts as absent: otherwise all of a device's readings but one would be lost. */
static int is_fresh(struct np_store *s, const struct np_reading *r, int64_t series, bool *fresh) {
  int64_t same;
  const struct np_series_key key = {series, r->key, r->depth};
  if (r->key.ptr && r->key.len) return np_keys_take(s, &key, fresh);
  int rc = np_sql_one(&s->sql, W_SAME_TIME, &same, "ii", series, r->at);
  *fresh = rc == SQLITE_DONE;
  return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int insert_reading(struct np_store *s, const struct np_writeset *ws, const struct np_reading *r,
                          struct np_known_series *series) {
  int64_t unit, connection;
  int rc = np_known_name(s, &r->unit, &unit);
  if (rc == SQLITE_OK) rc = np_known_name(s, &r->connection, &connection);
  if (rc == SQLITE_OK) rc = np_known_writer(s, series->device, connection, r->received);
  if (rc != SQLITE_OK) return rc;
  int traits = (int)r->quality | (int)r->trend << 2 | (r->value.type == NP_BOOL ? 32 : 0) | (r->quiet ? 64 : 0) | r->depth << 7;
  sqlite3_stmt *st =
      np_sql_start(&s->sql, W_READING, "iiiiviiwiiitb", s->count.reading + 1, series->id, r->at, r->received, &r->value, unit,
                   connection, traits, ws->request_id, r->interval, r->serial, r->key.len ? &r->key : NULL, &r->extra);
  if (!st) return np_sql_code(&s->sql);
  if (r->serial == INT64_MIN) sqlite3_bind_null(st, 11);
  sqlite3_step(st);
  return sqlite3_reset(st);
}

/* What led to it, of one that was derived. */
static int write_derivation(struct np_store *s, const struct np_reading *r) {
  const struct np_derivation *d = r->derivation;
  if (!d) return SQLITE_OK;
  int64_t bytes = 0;
  int rc = np_sql_one(&s->sql, W_DERIVED, &bytes, "iiwtt", r->seq, d->cause, d->generation, &d->timer, &d->key);
  s->count.bytes[NP_KEPT_READINGS] += bytes;
  return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int write_reading(struct np_store *s, struct np_writeset *ws, struct np_reading *r) {
  struct np_known_series *series;
  bool fresh = false;
  int rc = np_known_series(s, r, &series);
  if (rc == SQLITE_OK) rc = is_fresh(s, r, series->id, &fresh);
  if (rc != SQLITE_OK || !fresh) return rc;
  if ((rc = find_removed(s, series)) != SQLITE_OK) return rc;
  if (r->at <= series->removed) {
    ws->too_old++;
    const struct np_series_key key = {series->id, r->key, r->depth};
    if (r->key.len) rc = np_keys_drop(s, &key); /* it was noted just now */
    return rc == SQLITE_OK ? write_too_old(s, series, r) : rc;
  }
  bool counts = r->serial != INT64_MIN;
  if (counts && !series->counted) rc = count_serial(s, series);
  if (rc == SQLITE_OK) rc = insert_reading(s, ws, r, series);
  if (rc != SQLITE_OK) return rc;
  r->seq = ++s->count.reading;
  r->partition = np_partition(r->device.ptr, r->device.len);
  ws->fresh++;
  s->count.bytes[NP_KEPT_READINGS] +=
      (int64_t)((r->value.type == NP_STRING ? r->value.s.len : 0) + r->key.len + r->extra.len) + NP_READING_BYTES;
  if (r->received > series->device->seen) {
    series->device->seen = r->received;
    series->device->dirty = true;
  }
  rc = write_derivation(s, r);
  return rc == SQLITE_OK && counts ? write_gap(s, series, r) : rc;
}

static int write_event(struct np_store *s, const struct np_op *op) {
  struct np_known_device *device;
  int64_t type, connection;
  int rc = np_known_device(s, &op->as.event.vendor, &op->as.event.device, &op->as.event.connection, op->as.event.received, &device);
  if (rc == SQLITE_OK) rc = np_known_name(s, &op->as.event.type, &type);
  if (rc == SQLITE_OK) rc = np_known_name(s, &op->as.event.connection, &connection);
  if (rc != SQLITE_OK) return rc;
  rc = add_event(s, device->id, type, op->as.event.at, &op->as.event.key, op->as.event.received, connection, &op->as.event.data);
  if (rc != SQLITE_OK || !sqlite3_changes(s->sql.db)) return rc;
  return np_known_writer(s, device, connection, op->as.event.received);
}

static int write_put(struct np_store *s, const struct np_op *op) {
  if (!op->as.put.value.ptr) return np_sql_run(&s->sql, W_DELETE, "tk", &op->as.put.space, &op->as.put.key);
  return np_sql_run(&s->sql, W_PUT, "tkbii", &op->as.put.space, &op->as.put.key, &op->as.put.value, ++s->count.version,
                    op->as.put.expires);
}

static int write_generation(struct np_sql *q, const struct np_op *op) {
  int rc = np_sql_run(q, W_GENERATION, "twittttbt", &op->as.generation.instance, op->as.generation.number, op->as.generation.at,
                      &op->as.generation.verdict, &op->as.generation.file, &op->as.generation.hash, &op->as.generation.reason,
                      &op->as.generation.source, &op->as.generation.cause);
  if (rc != SQLITE_OK) return rc;
  return np_sql_run(q, W_OLD_GENERATIONS, "tt", &op->as.generation.instance, &op->as.generation.verdict);
}

static int write_replayed(struct np_store *s, struct np_writeset *ws, const struct np_op *op) {
  int64_t id = op->as.replayed.id, before = 0, after = 0;
  ws->request_id = id;
  int rc = np_sql_one(&s->sql, W_REQUEST_BYTES, &before, "i", id);
  if (rc == SQLITE_ROW) rc = np_sql_run(&s->sql, W_KEEP_RUN, "iwi", id, op->as.replayed.runs + 1, op->as.replayed.at);
  if (rc == SQLITE_OK)
    rc = np_sql_run(&s->sql, W_REPLAYED, "iwwtti", id, op->as.replayed.generation, op->as.replayed.status, &op->as.replayed.outcome,
                    &op->as.replayed.error, s->count.reading + 1);
  if (rc == SQLITE_OK) rc = np_sql_one(&s->sql, W_REQUEST_BYTES, &after, "i", id);
  s->count.bytes[NP_KEPT_REQUESTS] += after - before;
  return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int write_op(struct np_store *s, struct np_writeset *ws, struct np_op *op) {
  struct np_sql *q = &s->sql;
  switch (op->kind) {
  case NP_OP_REQUEST: return write_request(s, ws, op);
  case NP_OP_READING: return write_reading(s, ws, &op->as.reading);
  case NP_OP_DEVICE: return np_known_news(s, op);
  case NP_OP_EVENT: return write_event(s, op);
  case NP_OP_SEEN: return SQLITE_OK;
  case NP_OP_PUT: return write_put(s, op);
  case NP_OP_ARM:
    if (!op->as.arm.due) return np_sql_run(q, W_DISARM, "ttk", &op->as.arm.instance, &op->as.arm.name, &op->as.arm.key);
    return np_sql_run(q, W_ARM, "ttki", &op->as.arm.instance, &op->as.arm.name, &op->as.arm.key, op->as.arm.due);
  case NP_OP_FIRED:
    return np_sql_run(q, W_FIRED, "ttki", &op->as.fired.instance, &op->as.fired.name, &op->as.fired.key, op->as.fired.due);
  case NP_OP_SEND: return np_outbox_send(s, &op->as.send);
  case NP_OP_SENT: return np_outbox_sent(s, op);
  case NP_OP_DEAD: return np_outbox_dead(s, op);
  case NP_OP_HOLD:
    return np_sql_run(q, W_HOLD, "itttiiwt", ++s->count.held, &op->as.hold.instance, &op->as.hold.name, &op->as.hold.key,
                      op->as.hold.reading, op->as.hold.at, op->as.hold.generation, &op->as.hold.error);
  case NP_OP_RELEASE: return np_sql_run(q, W_FREE, "i", op->as.release.id);
  case NP_OP_CURSOR: return np_sql_run(q, W_SET_CURSOR, "wi", op->as.cursor.partition, op->as.cursor.seq);
  case NP_OP_GENERATION: return write_generation(q, op);
  case NP_OP_REPLAYED: return write_replayed(s, ws, op);
  case NP_OP_TAG:
    return np_sql_run(q, op->as.tag.on ? W_TAG : W_UNTAG, "ttt", &op->as.tag.vendor, &op->as.tag.device, &op->as.tag.tag);
  case NP_OP_ACK: return np_outbox_ack(s, op);
  }
  return SQLITE_ERROR;
}

int np_write_set(struct np_store *s, struct np_writeset *ws) {
  int rc = np_known_bound(s);
  for (struct np_op *op = ws->first; op && rc == SQLITE_OK; op = op->next) rc = write_op(s, ws, op);
  return rc;
}
