/* The SQLite engine's file: its schema, its migrations, who may write to it.
 *
 * Tables that end in _rows are compact: names stand once, in names, and elsewhere as numbers. People look at the views of the
 * plain name (readings, devices, events). What is only written once or seldom (inbox, outbox, …) is a plain table. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/sqlite.h"

/* Readings are looked up by (series, at) for history, and by (series, key), in reading_keys, for what identifies one; the keys of
 * readings after counters.indexed are not in there yet (sqlite_keys.c). traits holds the quality (2
 * bits), the trend (3 bits), as 32 that the value is a truth value, as 64 that no rule is run on it, and in the 3 bits from 128 on its
 * depth. */
static const char first_schema[] =
    "CREATE TABLE counters(one INTEGER PRIMARY KEY CHECK(one = 1), reading INTEGER NOT NULL, request INTEGER NOT NULL,"
    " message INTEGER NOT NULL, held INTEGER NOT NULL, version INTEGER NOT NULL, indexed INTEGER NOT NULL);"
    "INSERT INTO counters VALUES(1, 0, 0, 0, 0, 0, 0);"
    "CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"

    "CREATE TABLE device_rows(id INTEGER PRIMARY KEY, name TEXT NOT NULL, vendor INTEGER NOT NULL, first_seen INTEGER NOT NULL,"
    " seen INTEGER NOT NULL, news INTEGER, online INTEGER, connection TEXT, serial TEXT, model TEXT, label TEXT, owner TEXT,"
    " place TEXT, status TEXT, extra TEXT, UNIQUE(name, vendor));"
    "CREATE TABLE series(id INTEGER PRIMARY KEY, device INTEGER NOT NULL, metric INTEGER NOT NULL, UNIQUE(device, metric));"
    "CREATE TABLE reading_rows(seq INTEGER PRIMARY KEY, series INTEGER NOT NULL, at INTEGER NOT NULL, received INTEGER NOT NULL,"
    " value NOT NULL, unit INTEGER, connection INTEGER, traits INTEGER NOT NULL, request INTEGER, interval INTEGER, serial INTEGER,"
    " key TEXT, extra);"
    "CREATE INDEX reading_time ON reading_rows(series, at);"
    "CREATE TABLE reading_keys(series INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY(series, key)) WITHOUT ROWID;"
    "CREATE VIEW readings AS SELECT r.seq, v.name AS vendor, c.name AS connection, d.name AS device, m.name AS metric, r.value,"
    " u.name AS unit, r.at, r.received, r.key, r.serial, r.interval,"
    " CASE r.traits >> 2 & 7 WHEN 1 THEN 'flat' WHEN 2 THEN 'rising_slowly' WHEN 3 THEN 'falling_slowly'"
    " WHEN 4 THEN 'rising_fast' WHEN 5 THEN 'falling_fast' END AS trend,"
    " CASE r.traits & 3 WHEN 0 THEN 'valid' WHEN 1 THEN 'warmup' ELSE 'invalid' END AS quality, r.extra, r.request"
    " FROM reading_rows r JOIN series s ON s.id = r.series JOIN device_rows d ON d.id = s.device"
    " JOIN names v ON v.id = d.vendor JOIN names m ON m.id = s.metric LEFT JOIN names u ON u.id = r.unit"
    " LEFT JOIN names c ON c.id = r.connection;"
    /* When a device was last heard of is not written with every reading: its newest readings say. */
    "CREATE VIEW devices AS SELECT d.id, v.name AS vendor, d.connection, d.name AS device, d.serial, d.model, d.label AS name,"
    " d.owner, d.place, d.status, d.online, d.extra, d.first_seen, max(d.seen, coalesce((SELECT max((SELECT r.received"
    " FROM reading_rows r WHERE r.series = s.id ORDER BY r.at DESC LIMIT 1)) FROM series s WHERE s.device = d.id), d.seen))"
    " AS last_seen FROM device_rows d JOIN names v ON v.id = d.vendor;"

    "CREATE TABLE inbox(id INTEGER PRIMARY KEY, received INTEGER NOT NULL, instance TEXT NOT NULL, generation INTEGER NOT NULL,"
    " method TEXT NOT NULL, target TEXT NOT NULL, headers TEXT, body, remote TEXT, status INTEGER NOT NULL, outcome TEXT NOT NULL,"
    " error TEXT);"
    "CREATE TABLE event_rows(id INTEGER PRIMARY KEY, device INTEGER NOT NULL, type INTEGER NOT NULL, at INTEGER NOT NULL,"
    " key TEXT NOT NULL, received INTEGER NOT NULL, connection INTEGER, data, UNIQUE(device, type, at, key));"
    "CREATE VIEW events AS SELECT e.id, v.name AS vendor, c.name AS connection, d.name AS device, t.name AS type, e.key, e.at,"
    " e.received, e.data FROM event_rows e JOIN device_rows d ON d.id = e.device JOIN names v ON v.id = d.vendor"
    " JOIN names t ON t.id = e.type LEFT JOIN names c ON c.id = e.connection;"

    "CREATE TABLE kv(space TEXT NOT NULL, key TEXT NOT NULL, value NOT NULL, version INTEGER NOT NULL, expires INTEGER NOT NULL,"
    " PRIMARY KEY(space, key)) WITHOUT ROWID;"
    "CREATE INDEX kv_expires ON kv(expires) WHERE expires > 0;"
    "CREATE TABLE timers(instance TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, due INTEGER NOT NULL,"
    " PRIMARY KEY(instance, name, key)) WITHOUT ROWID;"
    "CREATE INDEX timers_due ON timers(due);"
    "CREATE TABLE cursors(partition INTEGER PRIMARY KEY, seq INTEGER NOT NULL);"
    "CREATE TABLE held(id INTEGER PRIMARY KEY, instance TEXT NOT NULL, name TEXT, key TEXT, reading INTEGER NOT NULL,"
    " at INTEGER NOT NULL, generation INTEGER NOT NULL, error TEXT);"
    "CREATE INDEX held_instance ON held(instance);"

    "CREATE TABLE outbox(seq INTEGER PRIMARY KEY, id TEXT NOT NULL, destination TEXT NOT NULL, device TEXT NOT NULL, body NOT NULL,"
    " source TEXT, reading INTEGER NOT NULL, created INTEGER NOT NULL, attempts INTEGER NOT NULL, due INTEGER NOT NULL,"
    " status INTEGER NOT NULL DEFAULT 0, error TEXT);"
    "CREATE INDEX outbox_order ON outbox(destination, device, seq);"
    "CREATE TABLE delivered(seq INTEGER PRIMARY KEY, id TEXT NOT NULL, destination TEXT NOT NULL, device TEXT NOT NULL, body NOT "
    "NULL,"
    " source TEXT, reading INTEGER NOT NULL, created INTEGER NOT NULL, attempts INTEGER NOT NULL, status INTEGER NOT NULL,"
    " at INTEGER NOT NULL);"
    "CREATE INDEX delivered_at ON delivered(destination, at);"
    "CREATE TABLE dead(seq INTEGER PRIMARY KEY, id TEXT NOT NULL, destination TEXT NOT NULL, device TEXT NOT NULL, body NOT NULL,"
    " source TEXT, reading INTEGER NOT NULL, created INTEGER NOT NULL, attempts INTEGER NOT NULL, status INTEGER NOT NULL,"
    " at INTEGER NOT NULL, error TEXT);"
    "CREATE INDEX dead_destination ON dead(destination);"
    "CREATE TABLE generations(id INTEGER PRIMARY KEY, instance TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL,"
    " verdict TEXT NOT NULL, file TEXT, hash TEXT, reason TEXT, source);"
    "CREATE INDEX generations_instance ON generations(instance);";

/* For queries: who has written of a device (connection 0: nobody named), a device's and a connection's events by type and time. */
static const char queries[] =
    "CREATE TABLE device_writers(device INTEGER NOT NULL, connection INTEGER NOT NULL, first_seen INTEGER NOT NULL,"
    " PRIMARY KEY(device, connection)) WITHOUT ROWID;"
    "INSERT OR IGNORE INTO names(name) SELECT DISTINCT connection FROM device_rows WHERE connection IS NOT NULL;"
    "INSERT INTO device_writers SELECT device, connection, min(at) FROM ("
    "SELECT s.device, coalesce(r.connection, 0) AS connection, r.received AS at FROM reading_rows r JOIN series s ON s.id = "
    "r.series"
    " UNION ALL SELECT device, coalesce(connection, 0), received FROM event_rows"
    " UNION ALL SELECT d.id, n.id, d.first_seen FROM device_rows d JOIN names n ON n.name = d.connection) GROUP BY 1, 2;"
    "CREATE INDEX writer_devices ON device_writers(connection, device);"
    "CREATE INDEX device_owner ON device_rows(owner) WHERE owner IS NOT NULL;"
    "CREATE INDEX event_series ON event_rows(device, type, at);"
    "CREATE INDEX event_connection ON event_rows(connection, type, at);";

/* Why a generation came into force, or was not let in. */
static const char causes[] = "ALTER TABLE generations ADD COLUMN cause TEXT;"
                             "CREATE INDEX inbox_failed ON inbox(instance, id) WHERE outcome = 'failed';";

/* Deliveries that one can vouch for: each attempt, when a message expires, why one is a dead letter, and what a person dropped. Attempts go with
 * their message. */
static const char attempts[] =
    "ALTER TABLE outbox ADD COLUMN since INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE outbox ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;"
    "UPDATE outbox SET since = created;"
    "CREATE INDEX outbox_expires ON outbox(expires) WHERE expires > 0;"
    "ALTER TABLE dead ADD COLUMN reason TEXT;"
    "CREATE TABLE dropped(seq INTEGER PRIMARY KEY, id TEXT NOT NULL, destination TEXT NOT NULL, device TEXT NOT NULL, body NOT "
    "NULL,"
    " source TEXT, reading INTEGER NOT NULL, created INTEGER NOT NULL, attempts INTEGER NOT NULL, status INTEGER NOT NULL,"
    " at INTEGER NOT NULL, error TEXT, reason TEXT, dropped INTEGER NOT NULL, by TEXT);"
    "CREATE INDEX delivered_id ON delivered(id);"
    "CREATE INDEX dead_id ON dead(id);"
    "CREATE INDEX dropped_id ON dropped(id);"
    "CREATE TABLE attempts(message INTEGER NOT NULL, n INTEGER NOT NULL, at INTEGER NOT NULL, took INTEGER NOT NULL,"
    " generation INTEGER NOT NULL, status INTEGER NOT NULL, batch INTEGER NOT NULL, outcome TEXT NOT NULL, error TEXT, answer,"
    " PRIMARY KEY(message, n)) WITHOUT ROWID;"
    "CREATE TRIGGER delivered_gone AFTER DELETE ON delivered BEGIN DELETE FROM attempts WHERE message = old.seq; END;"
    "CREATE TRIGGER dropped_gone AFTER DELETE ON dropped BEGIN DELETE FROM attempts WHERE message = old.seq; END;";

/* Tags of devices: what a vendor says stands in the row, a line each, and what operators have added apart from it. */
static const char tags[] =
    "ALTER TABLE device_rows ADD COLUMN tags TEXT;"
    "CREATE TABLE device_tags(device INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY(device, tag)) WITHOUT ROWID;"
    "DROP VIEW IF EXISTS devices;"
    "CREATE VIEW devices AS SELECT d.id, v.name AS vendor, d.connection, d.name AS device, d.serial, d.model, d.label AS name,"
    " d.owner, d.place, d.status, d.online, d.extra, d.first_seen, max(d.seen, coalesce((SELECT max((SELECT r.received"
    " FROM reading_rows r WHERE r.series = s.id ORDER BY r.at DESC LIMIT 1)) FROM series s WHERE s.device = d.id), d.seen))"
    " AS last_seen, d.tags, (SELECT group_concat(t.tag, char(10)) FROM device_tags t WHERE t.device = d.id) AS own_tags"
    " FROM device_rows d JOIN names v ON v.id = d.vendor;";

/* How much is kept of each kind, in the bytes that np_store_prune counts; what has been removed. */
static const char retention[] =
    "ALTER TABLE counters ADD COLUMN request_bytes INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE counters ADD COLUMN reading_bytes INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE counters ADD COLUMN event_bytes INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE counters ADD COLUMN delivered_bytes INTEGER NOT NULL DEFAULT 0;"
    "UPDATE counters SET"
    " request_bytes = (SELECT ifnull(sum(length(CAST(target AS BLOB)) + ifnull(length(CAST(headers AS BLOB)), 0)"
    " + ifnull(length(CAST(body AS BLOB)), 0) + 150), 0) FROM inbox),"
    " reading_bytes = (SELECT ifnull(sum(CASE WHEN typeof(value) IN ('text', 'blob') THEN length(CAST(value AS BLOB)) ELSE 0 END"
    " + ifnull(length(CAST(key AS BLOB)), 0) + ifnull(length(CAST(extra AS BLOB)), 0) + 60), 0) FROM reading_rows),"
    " event_bytes = (SELECT ifnull(sum(length(CAST(key AS BLOB)) + ifnull(length(CAST(data AS BLOB)), 0) + 80), 0) FROM "
    "event_rows),"
    " delivered_bytes = (SELECT ifnull(sum(length(CAST(body AS BLOB)) + 150), 0) FROM delivered);"
    "ALTER TABLE series ADD COLUMN removed INTEGER;"
    "CREATE INDEX held_reading ON held(reading);"
    "DROP INDEX delivered_at;"
    "CREATE INDEX delivered_to ON delivered(destination);";

/* How many bytes each plugin keeps: those of the spaces "KIND:INSTANCE". Triggers see every way in and out, pruning too. */
static const char sizes[] =
    "DROP TRIGGER IF EXISTS kv_added; DROP TRIGGER IF EXISTS kv_changed; DROP TRIGGER IF EXISTS kv_removed;"
    "DROP TABLE IF EXISTS kv_sizes;"
    "CREATE TABLE kv_sizes(owner TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO kv_sizes SELECT substr(space, instr(space, ':') + 1),"
    " sum(length(CAST(key AS BLOB)) + length(CAST(value AS BLOB))) FROM kv WHERE instr(space, ':') GROUP BY 1;"
    "CREATE TRIGGER kv_added AFTER INSERT ON kv WHEN instr(new.space, ':') BEGIN"
    " INSERT INTO kv_sizes VALUES(substr(new.space, instr(new.space, ':') + 1),"
    " length(CAST(new.key AS BLOB)) + length(CAST(new.value AS BLOB)))"
    " ON CONFLICT(owner) DO UPDATE SET bytes = bytes + excluded.bytes; END;"
    "CREATE TRIGGER kv_changed AFTER UPDATE OF value ON kv"
    " WHEN instr(new.space, ':') AND length(CAST(new.value AS BLOB)) != length(CAST(old.value AS BLOB)) BEGIN"
    " UPDATE kv_sizes SET bytes = bytes + length(CAST(new.value AS BLOB)) - length(CAST(old.value AS BLOB))"
    " WHERE owner = substr(new.space, instr(new.space, ':') + 1); END;"
    "CREATE TRIGGER kv_removed AFTER DELETE ON kv WHEN instr(old.space, ':') BEGIN"
    " UPDATE kv_sizes SET bytes = bytes - length(CAST(old.key AS BLOB)) - length(CAST(old.value AS BLOB))"
    " WHERE owner = substr(old.space, instr(old.space, ':') + 1); END;";

/* Stories: which readings a request gave (they stand one behind the other from the first on), which messages and held entries a reading led to, and by
 * which generation of the rule, or by which replay. */
static const char stories[] =
    "ALTER TABLE inbox ADD COLUMN reading INTEGER NOT NULL DEFAULT 0;"
    "UPDATE inbox SET reading = f.first FROM (SELECT request, min(seq) AS first FROM reading_rows WHERE request IS NOT NULL"
    " GROUP BY request) AS f WHERE f.request = inbox.id;"
    "ALTER TABLE outbox ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE outbox ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE delivered ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE delivered ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE dead ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE dead ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE dropped ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE dropped ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX outbox_id ON outbox(id);"
    "CREATE INDEX outbox_reading ON outbox(reading) WHERE reading > 0;"
    "CREATE INDEX delivered_reading ON delivered(reading) WHERE reading > 0;"
    "CREATE INDEX dead_reading ON dead(reading) WHERE reading > 0;"
    "CREATE INDEX dropped_reading ON dropped(reading) WHERE reading > 0;";

/* Acknowledgements, and that one is waited for, stand in kv (NP_SPACE_ACKS, NP_SPACE_ASKED) and go with their message. Nobody waits for what a person
 * has dropped. */
static const char acks[] = "CREATE TRIGGER delivered_unasked AFTER DELETE ON delivered BEGIN"
                           " DELETE FROM kv WHERE space IN ('neap.acks', 'neap.asked') AND key = old.id; END;"
                           "CREATE TRIGGER dropped_asks_no_more AFTER INSERT ON dropped BEGIN"
                           " DELETE FROM kv WHERE space = 'neap.asked' AND key = new.id; END;"
                           "CREATE TRIGGER dropped_unasked AFTER DELETE ON dropped BEGIN"
                           " DELETE FROM kv WHERE space IN ('neap.acks', 'neap.asked') AND key = old.id; END;";

/* What led a rule to derive a reading; other readings have no row here. */
static const char derivations[] =
    "CREATE TABLE derivations(reading INTEGER PRIMARY KEY, cause INTEGER NOT NULL, generation INTEGER NOT NULL, timer TEXT, key "
    "TEXT);"
    "CREATE INDEX derivation_cause ON derivations(cause) WHERE cause > 0;"
    "CREATE TRIGGER derived_gone AFTER DELETE ON reading_rows WHEN old.traits & 896 BEGIN"
    " DELETE FROM derivations WHERE reading = old.seq; END;"
    "DROP VIEW IF EXISTS readings;"
    "CREATE VIEW readings AS SELECT r.seq, v.name AS vendor, c.name AS connection, d.name AS device, m.name AS metric, r.value,"
    " u.name AS unit, r.at, r.received, r.key, r.serial, r.interval,"
    " CASE r.traits >> 2 & 7 WHEN 1 THEN 'flat' WHEN 2 THEN 'rising_slowly' WHEN 3 THEN 'falling_slowly'"
    " WHEN 4 THEN 'rising_fast' WHEN 5 THEN 'falling_fast' END AS trend,"
    " CASE r.traits & 3 WHEN 0 THEN 'valid' WHEN 1 THEN 'warmup' ELSE 'invalid' END AS quality, r.extra, r.request,"
    " r.traits >> 6 & 1 AS quiet, r.traits >> 7 & 7 AS depth"
    " FROM reading_rows r JOIN series s ON s.id = r.series JOIN device_rows d ON d.id = s.device"
    " JOIN names v ON v.id = d.vendor JOIN names m ON m.id = s.metric LEFT JOIN names u ON u.id = r.unit"
    " LEFT JOIN names c ON c.id = r.connection;";

/* What became of a request each time before it was run again, until when; its own row says what became of it the last time. `reading` as there. */
static const char reruns[] =
    "CREATE TABLE request_runs(request INTEGER NOT NULL, n INTEGER NOT NULL, until INTEGER NOT NULL, generation INTEGER NOT NULL,"
    " status INTEGER NOT NULL, outcome TEXT NOT NULL, error TEXT, reading INTEGER NOT NULL, PRIMARY KEY(request, n)) WITHOUT ROWID;"
    "CREATE TRIGGER request_gone AFTER DELETE ON inbox BEGIN DELETE FROM request_runs WHERE request = old.id; END;";

/* What an attempt that failed asked by HTTP, and what it was answered. */
static const char exchanges[] = "ALTER TABLE attempts ADD COLUMN request; ALTER TABLE attempts ADD COLUMN reply;";

/* Replays: what a message is about, by which one without a reading is told from another; messages of replays stand behind the live ones. */
static const char replays[] = "ALTER TABLE outbox ADD COLUMN about INTEGER NOT NULL DEFAULT 0;"
                              "ALTER TABLE delivered ADD COLUMN about INTEGER NOT NULL DEFAULT 0;"
                              "ALTER TABLE dead ADD COLUMN about INTEGER NOT NULL DEFAULT 0;"
                              "ALTER TABLE dropped ADD COLUMN about INTEGER NOT NULL DEFAULT 0;"
                              "UPDATE outbox SET about = -created WHERE reading = 0;"
                              "UPDATE delivered SET about = -created WHERE reading = 0;"
                              "UPDATE dead SET about = -created WHERE reading = 0;"
                              "UPDATE dropped SET about = -created WHERE reading = 0;"
                              "CREATE INDEX outbox_about ON outbox(about) WHERE reading = 0;"
                              "CREATE INDEX delivered_about ON delivered(about) WHERE reading = 0;"
                              "CREATE INDEX dead_about ON dead(about) WHERE reading = 0;"
                              "CREATE INDEX dropped_about ON dropped(about) WHERE reading = 0;"
                              "CREATE INDEX outbox_replayed ON outbox(replayed) WHERE replayed > 0;"
                              "DROP INDEX outbox_order;"
                              "CREATE INDEX outbox_order ON outbox(destination, (replayed > 0), device, seq);";

/* What hangs on a request, a reading and a message counts with it, and what was dropped with what was delivered; dead letters count, too. */
static const char sizes_whole[] =
    "ALTER TABLE counters ADD COLUMN dead_bytes INTEGER NOT NULL DEFAULT 0;"
    "CREATE TEMP VIEW on_message AS SELECT m.seq, (SELECT ifnull(sum(80 + ifnull(length(CAST(a.error AS BLOB)), 0)"
    " + ifnull(length(CAST(a.answer AS BLOB)), 0) + ifnull(length(CAST(a.request AS BLOB)), 0)"
    " + ifnull(length(CAST(a.reply AS BLOB)), 0)), 0) FROM attempts a WHERE a.message = m.seq)"
    " + (SELECT ifnull(sum(40 + length(CAST(k.key AS BLOB)) + length(CAST(k.value AS BLOB))), 0) FROM kv k"
    " WHERE k.space IN ('neap.acks', 'neap.asked') AND k.key = m.id) AS bytes"
    " FROM (SELECT seq, id FROM delivered UNION ALL SELECT seq, id FROM dropped UNION ALL SELECT seq, id FROM dead) m;"
    "UPDATE counters SET"
    " request_bytes = request_bytes + (SELECT ifnull(sum(length(CAST(error AS BLOB))), 0) FROM inbox)"
    " + (SELECT ifnull(sum(60 + ifnull(length(CAST(error AS BLOB)), 0)), 0) FROM request_runs),"
    " reading_bytes = reading_bytes + (SELECT ifnull(sum(40 + ifnull(length(CAST(timer AS BLOB)), 0)"
    " + ifnull(length(CAST(key AS BLOB)), 0)), 0) FROM derivations),"
    " delivered_bytes = delivered_bytes + (SELECT ifnull(sum(150 + length(CAST(body AS BLOB))"
    " + ifnull(length(CAST(error AS BLOB)), 0)), 0) FROM dropped)"
    " + (SELECT ifnull(sum(bytes), 0) FROM on_message WHERE seq NOT IN (SELECT seq FROM dead)),"
    " dead_bytes = (SELECT ifnull(sum(150 + length(CAST(body AS BLOB)) + ifnull(length(CAST(error AS BLOB)), 0)), 0) FROM dead)"
    " + (SELECT ifnull(sum(bytes), 0) FROM on_message WHERE seq IN (SELECT seq FROM dead));"
    "DROP VIEW on_message;";

/* What has expired of a line, however long that is. */
static const char line_expiry[] =
    "CREATE INDEX outbox_line_expires ON outbox(destination, device, (replayed > 0), expires) WHERE expires > 0;";

/* A table that does not begin empty has to be told to `empty` below. Number n brings a file from user_version n to n + 1. What has been released is never changed, only followed by another. */
static const char *const migrations[] = {first_schema, queries,     causes, attempts,  tags,    retention,   sizes,      stories,
                                         acks,         derivations, reruns, exchanges, replays, sizes_whole, line_expiry};
enum { NEWEST = sizeof migrations / sizeof *migrations };

/* The first number that a statement gives, or what failed, as a negative number. */
static int64_t ask(struct np_sql *q, const char *text) {
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(q->db, text, -1, &st, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_step(st);
  int64_t n = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : -(int64_t)rc;
  sqlite3_finalize(st);
  return n;
}

static int migrate(struct np_sql *q, int64_t from, struct np_error *err) {
  for (int64_t n = from; n < NEWEST; n++) {
    char close[120];
    sqlite3_snprintf(sizeof close, close, "PRAGMA application_id = %d; PRAGMA user_version = %lld; COMMIT", NP_SCHEMA_ID, n + 1);
    int rc = np_sql_exec(q, "BEGIN IMMEDIATE");
    if (rc == SQLITE_OK) rc = np_sql_exec(q, migrations[n]);
    if (rc == SQLITE_OK) rc = np_sql_exec(q, close);
    if (rc == SQLITE_OK) continue;
    np_sql_fail(q, rc, err);
    np_sql_exec(q, "ROLLBACK");
    return -1;
  }
  return 0;
}

int np_schema_ready(struct np_sql *q, const char *path, bool write, struct np_error *err) {
  int64_t tables = ask(q, "SELECT count(*) FROM sqlite_schema"), id = ask(q, "PRAGMA application_id");
  int64_t version = ask(q, "PRAGMA user_version");
  if (tables < 0) return np_sql_fail(q, (int)-tables, err);
  if (id != NP_SCHEMA_ID && (id || tables || version))
    return np_fail(err, "store: %s is not a neap store but another program's SQLite file", path);
  if (version > NEWEST)
    return np_fail(err, "store: %s was written by a newer neap (schema %lld; this one knows %d): run that one", path,
                   (long long)version, NEWEST);
  if (!write && version < NEWEST) return np_fail(err, "store: %s has an old schema or none: start neap on it once", path);
  if (!write) return 0;
  if (!id) ask(q, "PRAGMA page_size = 4096");
  int rc = np_sql_exec(q, "PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 67108864");
  if (rc != SQLITE_OK) return np_sql_fail(q, rc, err);
  return migrate(q, version, err);
}

/* Held as long as the store is open; the file stays, for removing it would let two in. */
static int lock(const char *path, struct np_error *err) {
  char *name = sqlite3_mprintf("%s.lock", path);
  int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 && errno == ENOENT) {
    np_fail(err, "store: the folder of %s is not there: make it, or name another store", path);
  } else if (fd < 0) {
    np_fail(err, "store: cannot create %s: %s", name, strerror(errno));
  } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    np_fail(err, errno == EWOULDBLOCK ? "store: %s is in use by another neap (%s is locked)" : "store: cannot lock %s by %s", path,
            name);
    close(fd);
    fd = -1;
  }
  sqlite3_free(name);
  return fd;
}

/* Created before SQLite sees it, so that nobody else can ever read it; SQLite gives its other files the same mode. */
static int create(const char *path, struct np_error *err) {
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return errno == EEXIST ? 0 : np_fail(err, "store: cannot create %s: %s", path, strerror(errno));
  close(fd);
  char *copy = np_strdup(path);
  fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  free(copy);
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
  return 0;
}

/* After a commit that left so many pages in the WAL: moves them into the file as far as readers let it, now and again where they
 * do not. A WAL that readers have kept from starting over for long is worth a short wait for them. */
static int checkpoint(void *arg, sqlite3 *db, const char *name, int pages) {
  struct np_store *s = arg;
  if (pages < s->tried) s->tried = 0;
  if (pages < 12000 || pages < s->tried + 100) return SQLITE_OK;
  s->tried = pages;
  sqlite3_busy_timeout(db, 20);
  sqlite3_wal_checkpoint_v2(db, name, pages < 40000 ? SQLITE_CHECKPOINT_PASSIVE : SQLITE_CHECKPOINT_RESTART, NULL, NULL);
  sqlite3_busy_timeout(db, 5000);
  return SQLITE_OK;
}

/* As the schema leaves it: a store in memory is used again by the next test. */
static int empty(struct np_sql *q, struct np_error *err) {
  static const char list[] = "SELECT 'DELETE FROM ' || name || ';' FROM sqlite_schema WHERE type = 'table' AND name != 'counters'";
  static const char counters[] =
      "UPDATE counters SET reading = 0, request = 0, message = 0, held = 0, version = 0, indexed = 0, request_bytes = 0,"
      " reading_bytes = 0, event_bytes = 0, delivered_bytes = 0, dead_bytes = 0; COMMIT";
  struct np_buf all = {0};
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(q->db, list, -1, &st, NULL);
  np_buf_adds(&all, "BEGIN IMMEDIATE;");
  while (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) np_buf_adds(&all, (const char *)sqlite3_column_text(st, 0));
  sqlite3_finalize(st);
  np_buf_adds(&all, counters);
  if (rc == SQLITE_OK) rc = np_sql_exec(q, all.data);
  np_buf_free(&all);
  return rc == SQLITE_OK ? 0 : np_sql_fail(q, rc, err);
}

struct np_store *np_store_open(const char *path, struct np_error *err) {
  struct np_store *s = np_alloc(sizeof *s);
  s->data_version = -1;
  s->removals = 1;
  bool file = !np_sql_in_memory(path);
  s->lock = file ? lock(path, err) : -1;
  if (file && (s->lock < 0 || create(path, err) < 0)) goto fail;
  if (np_sql_open(&s->sql, path, true, 16384, np_write_texts, W_COUNT, err) < 0) goto fail;
  if (np_schema_ready(&s->sql, path, true, err) < 0) goto fail;
  if (!file && empty(&s->sql, err) < 0) goto fail;
  sqlite3_wal_hook(s->sql.db, checkpoint, s);
  return s;
fail:
  np_sql_close(&s->sql);
  if (s->lock >= 0) close(s->lock);
  free(s);
  return NULL;
}

void np_store_close(struct np_store *s) {
  if (!s) return;
  if (np_sql_run(&s->sql, W_BEGIN, "") == SQLITE_OK) {
    bool saved = np_known_save(s) == SQLITE_OK && np_sql_run(&s->sql, W_COMMIT, "") == SQLITE_OK;
    if (!saved) np_sql_exec(&s->sql, "ROLLBACK");
  }
  sqlite3_busy_timeout(s->sql.db, 200);
  sqlite3_wal_checkpoint_v2(s->sql.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
  np_sql_close(&s->sql);
  if (s->lock >= 0) close(s->lock);
  np_known_forget(s);
  np_buf_free(&s->key);
  free(s);
}
