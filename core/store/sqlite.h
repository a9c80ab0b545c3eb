/* What the SQLite engine's files share; nobody else includes it. Functions that return `int` and take no np_error return a
 * SQLite result code, SQLITE_OK or what failed. */
#ifndef NP_STORE_SQLITE_H
#define NP_STORE_SQLITE_H

#include <sqlite3.h>

#include "store/store.h"

/* A connection, and its statements: prepared when first used, kept for its life. */
struct np_sql {
  sqlite3 *db;              /* owned */
  const char *const *texts; /* static */
  sqlite3_stmt **kept;      /* owned */
  int count;
  bool write, memory;
};

bool np_sql_in_memory(const char *path); /* it is no file: NP_STORE_MEMORY and a name */
/* Opens path for reading or writing with this much cache. */
int np_sql_open(struct np_sql *q, const char *path, bool write, int cache_kb, const char *const *texts, int count,
                struct np_error *err);
void np_sql_close(struct np_sql *q);
/* The statement with its parameters bound, or NULL. One letter of format a parameter: i int64_t, w int, t struct np_text *,
 * k the same with "" for an absent one, b the same as t but kept as a BLOB where it is not text, v struct np_value *, s char *.
 * NULL binds NULL. What is bound is borrowed until the reset. */
sqlite3_stmt *np_sql_start(struct np_sql *q, int which, const char *format, ...);
int np_sql_run(struct np_sql *q, int which, const char *format, ...); /* to its end */
/* First column of the first row: SQLITE_ROW and *out, SQLITE_DONE where there is none, or what failed. */
int np_sql_one(struct np_sql *q, int which, int64_t *out, const char *format, ...);
int np_sql_exec(struct np_sql *q, const char *text);
/* Ends a walk over a statement's rows whose last step gave rc (st NULL: it could not be started): 0, or -1 and err. */
int np_sql_end(struct np_sql *q, sqlite3_stmt *st, int rc, struct np_error *err);
int np_sql_code(const struct np_sql *q);                  /* why np_sql_start gave NULL; never SQLITE_OK */
struct np_text np_sql_text(sqlite3_stmt *st, int column); /* borrowed until the next step */
/* "store: why" of the last failure; returns -1. */
int np_sql_fail(const struct np_sql *q, int rc, struct np_error *err);
/* Whether a failure is the store's own (space, disk, memory, damage, a lock) and not of what was written. */
bool np_sql_is_store_failure(int rc);

bool np_sql_is_space(int rc); /* of those, one that may have been for want of room on the disk */

#define NP_SCHEMA_ID 0x6e656170 /* "neap", the file's application_id */
/* Brings the file to the newest schema; with write false only checks that it is there. */
int np_schema_ready(struct np_sql *q, const char *path, bool write, struct np_error *err);

/* The writer's statements; their texts are np_write_texts. */
enum {
  W_BEGIN,
  W_COMMIT,
  W_SAVEPOINT,
  W_RELEASE,
  W_CHANGED,
  W_COUNTERS,
  W_SAVE_COUNTERS,
  W_NAME,
  W_ADD_NAME,
  W_DEVICE,
  W_ADD_DEVICE,
  W_SET_DEVICE,
  W_WRITER,
  W_SERIES,
  W_LAST_SERIAL,
  W_ADD_SERIES,
  W_REQUEST,
  W_READING,
  W_DERIVED,
  W_SAME_TIME,
  W_SAME_KEY,
  W_ADD_KEY,
  W_RECENT,
  W_EVENT,
  W_VERSION,
  W_PUT,
  W_DELETE,
  W_DUE,
  W_ARM,
  W_DISARM,
  W_FIRED,
  W_SEND,
  W_DELIVERED,
  W_DIED,
  W_AGAIN,
  W_ATTEMPT,
  W_OLD_ATTEMPT,
  W_RETRY,
  W_DROP,
  W_BURY,
  W_SENT,
  W_HOLD,
  W_HELD,
  W_FREE,
  W_CURSOR,
  W_SET_CURSOR,
  W_GENERATION,
  W_OLD_GENERATIONS,
  W_RUNS,
  W_KEEP_RUN,
  W_REPLAYED,
  W_TAG,
  W_UNTAG,
  W_ACK,
  W_REQUEST_BYTES,
  W_MESSAGE_BYTES,
  W_MESSAGE_OF,
  W_MESSAGES_GONE,
  W_PRUNE_KEYS,
  W_OLD_REQUESTS,
  W_OLD_READINGS,
  W_OLD_EVENTS,
  W_OLD_DEAD,
  W_OLD_MESSAGES,
  W_DROP_REQUEST,
  W_DROP_READING,
  W_DROP_EVENT,
  W_DROP_DELIVERED,
  W_DROP_DROPPED,
  W_DROP_KEY,
  W_REMOVED,
  W_SET_REMOVED,
  W_NEWEST,
  W_NEWEST_SERIAL,
  W_SERIES_DEVICE,
  W_HELD_READING,
  W_COUNT,
};
extern const char *const np_write_texts[W_COUNT];

/* The last numbers given out; none is ever given twice. Kept in the file with each commit. */
struct np_counters {
  int64_t reading, request, message, held, version;
  int64_t indexed;              /* readings up to this one have their keys in reading_keys */
  int64_t bytes[NP_KEPT_KINDS]; /* of what is kept of each; of failed requests none, for they count as requests */
};

/* What a row counts for: its texts, what hangs on it (np_write_texts), and this for the rest. Writing and removing it count the same. */
enum { NP_REQUEST_BYTES = 150, NP_READING_BYTES = 60, NP_EVENT_BYTES = 80, NP_MESSAGE_BYTES = 150 };

struct np_sweep { /* a walk over a table from its oldest row on */
  int64_t after;  /* rows up to this one have been looked at */
  bool stayed;    /* some that were passed over have to stay */
  int64_t rest;   /* us on the monotonic clock: it begins again then */
};

struct np_store {
  struct np_sql sql;
  int lock; /* descriptor of PATH.lock, locked while open */
  struct np_counters count, saved;
  int64_t data_version; /* changes when somebody else has written; -1: what is remembered is not to be trusted */
  int64_t room_us;      /* when it was last tried to make room in the WAL; 0: that helped */
  int tried;            /* pages in the WAL when it was last moved into the file */
  int64_t mono;         /* us, when this transaction began */
  /* What is remembered of the file, so that it need not be looked up. */
  struct np_map names;   /* name -> its id */
  struct np_map devices; /* vendor 0 device -> struct np_known_device */
  struct np_map series;  /* vendor 0 device 0 metric -> struct np_known_series */
  size_t known_bytes;
  struct np_map recent; /* series (8 bytes) key, as it is indexed -> itself: keys of the readings after count.indexed */
  bool recent_known;    /* recent is all of them */
  struct np_buf key;    /* scratch */
  struct np_sweep sweeps[NP_KEPT_KINDS];
  uint64_t removals; /* steps that have removed readings, from 1 */
};

enum { NP_DEVICE_FIELDS = 9 }; /* connection, serial, model, name, owner, place, status, extra, tags */

struct np_known_device {
  int64_t id, news, seen;         /* news: `at` of the newest; seen: ms when last heard of */
  int64_t saved_us;               /* when the row was last written or read */
  bool dirty;                     /* news or seen are newer than the row's */
  int online;                     /* -1 unknown */
  char *fields[NP_DEVICE_FIELDS]; /* owned; NULL unknown */
  size_t lens[NP_DEVICE_FIELDS];
  int64_t *writers; /* owned: connections that are known to stand in device_writers */
  size_t writer_count;
};

struct np_known_series {
  int64_t id;
  struct np_known_device *device; /* borrowed from devices */
  bool counted;                   /* serial and at are known */
  int64_t removed;                /* newest `at` that was removed; INT64_MIN where none was */
  uint64_t removals;              /* what the store's were when `removed` was read */
  int64_t serial;                 /* of the newest reading by `at` that has one; INT64_MIN where none has */
  int64_t at;
};

int np_known_name(struct np_store *s, const struct np_text *name, int64_t *id); /* 0 for an absent one */
int np_known_device(struct np_store *s, const struct np_text *vendor, const struct np_text *device,
                    const struct np_text *connection, int64_t at, struct np_known_device **out);
int np_known_series(struct np_store *s, const struct np_reading *r, struct np_known_series **out);
int np_known_news(struct np_store *s, const struct np_op *op); /* NP_OP_DEVICE */
/* Notes that the connection has written something of the device, at ms. */
int np_known_writer(struct np_store *s, struct np_known_device *d, int64_t connection, int64_t at);
void np_known_forget(struct np_store *s);
int np_known_bound(struct np_store *s); /* where much is remembered: saves what is unsaved and forgets. In a transaction. */
int np_known_save(struct np_store *s);  /* writes what is dirty. In a transaction. */

/* A reading's key in its series. What rules derive has keys apart from those of vendors. */
struct np_series_key {
  int64_t series;
  struct np_text key;
  bool derived;
};
/* Whether a series has a reading of that key; if not, it counts as having one from now on. */
int np_keys_take(struct np_store *s, const struct np_series_key *key, bool *fresh);
int np_keys_index(struct np_store *s);                                 /* now and then, in a transaction before its commit */
int np_keys_drop(struct np_store *s, const struct np_series_key *key); /* its reading is removed */
void np_keys_forget(struct np_store *s);

/* A small step of removing what is past its bounds; in a transaction. Adds to *gone, sets *pruned. */
int np_prune_step(struct np_store *s, const struct np_keep keep[NP_KEPT_KINDS], int64_t now, int *gone, struct np_pruned *pruned);

/* Checks a set against the state: a sentence in `bad` where it cannot be stored, *conflict where what it saw has changed. */
int np_write_check(struct np_store *s, const struct np_writeset *ws, bool *conflict, const char **bad);
int np_write_set(struct np_store *s, struct np_writeset *ws);

/* Messages (sqlite_outbox.c). */
int np_outbox_send(struct np_store *s, struct np_message *m);
int np_outbox_sent(struct np_store *s, const struct np_op *op);
int np_outbox_dead(struct np_store *s, struct np_op *op);
int np_outbox_ack(struct np_store *s, struct np_op *op);
/* Adds what a message counts for (sign 1), or takes it away (-1), where it is one that is kept: delivered, dead or dropped. */
int np_outbox_count(struct np_store *s, int64_t seq, int sign);

/* The readers' statements; their texts are np_read_texts. */
enum {
  R_LAST,
  R_SCAN,
  R_READING,
  R_HISTORY,
  R_BEFORE,
  R_FROM_REQUEST,
  R_REQUEST_OF,
  R_DERIVATION,
  R_DERIVED_FROM,
  R_DERIVED_COUNT,
  R_DERIVED_BY,
  R_SERIES_OF,
  R_NAME,
  R_SERIES,
  R_GET,
  R_KEYS,
  R_KEY_COUNT,
  R_KEY_SIZE,
  R_SIZE,
  R_REQUEST,
  R_TIMERS,
  R_TIMER_NEXT,
  R_TIMER_COUNT,
  R_CURSORS,
  R_HELD,
  R_HELD_OF,
  R_HELD_COUNT,
  R_HELD_ALL,
  R_DEVICES_OF,
  R_HEAD,
  R_PENDING,
  R_DELIVERED,
  R_DEAD,
  R_OLDEST,
  R_DESTINATIONS,
  R_EXPIRED,
  R_EXPIRED_OF,
  R_NEXT_EXPIRY,
  R_ATTEMPTS,
  R_MESSAGE_PENDING,
  R_MESSAGE_DELIVERED,
  R_MESSAGE_DEAD,
  R_MESSAGE_DROPPED,
  R_MESSAGES_OF,
  R_MESSAGES_ABOUT,
  R_REPLAY_PENDING,
  R_DELIVERED_FROM,
  R_MESSAGES_GONE,
  R_MESSAGES_BY,
  R_DEAD_LIST,
  R_DEVICES,
  R_GENERATION,
  R_GENERATIONS,
  R_GENERATION_AT,
  R_LAST_NUMBER,
  R_REQUEST_FROM,
  R_LAST_REQUEST,
  R_NEXT_FAILED,
  R_NEXT_REQUEST,
  R_RUNS,
  R_RUN_COUNT,
  R_REMOVED,
  R_SAME_TIME,
  R_SAME_KEY,
  R_HAS_KEY,
  R_BEGIN,
  R_COMMIT,
  R_NAME_ID,
  R_NAMED,
  R_WRITERS,
  R_SERIES_OF_DEVICE,
  R_TYPES_OF_DEVICE,
  R_TYPES_OF_CONNECTION,
  R_EVENT_CONNECTIONS,
  R_DEVICE_NAMES,
  R_COUNT_READINGS,
  R_COUNT_DEVICE_EVENTS,
  R_COUNT_CONNECTION_EVENTS,
  R_COUNT,
};
extern const char *const np_read_texts[R_COUNT];

/* Where rows of one kind and one order come from: statements of which a query needs several at once (sqlite_find.c). */
enum { NP_STREAM_TEXTS = 12, NP_STREAMS_KEPT = 32 };
struct np_streams {
  sqlite3_stmt *kept[NP_STREAMS_KEPT]; /* owned: not in use */
  int count;
};

struct np_reader {
  struct np_sql sql;
  struct np_map names, series, devices; /* id (8 bytes) -> what stands under it; never changes in the file */
  struct np_streams streams[NP_STREAM_TEXTS];
};

/* The name under the id in a row's column; absent for NULL. False where the store cannot say. */
bool np_read_name(struct np_reader *r, sqlite3_stmt *row, int column, struct np_text *out);
/* Vendor and name of the device whose id stands in a row's column. */
bool np_read_device(struct np_reader *r, sqlite3_stmt *row, int column, struct np_text *vendor, struct np_text *device);
#define NP_READING_COLUMNS "seq, series, at, received, value, unit, connection, traits, interval, serial, key, extra"
/* A reading from a row of these columns; false where names are missing, which is damage. */
bool np_read_reading(struct np_reader *r, sqlite3_stmt *row, struct np_reading *out);
/* The series of a vendor's device's metric; 0 where there is none. SQLITE_OK, or what failed. */
int np_read_series(struct np_reader *r, const char *vendor, const char *device, const char *metric, int64_t *series);
/* A device from a row of id, vendor, connection, device, serial, model, name, owner, place, status, extra, online, first_seen, last_seen, tags, own_tags. */
void np_read_device_row(sqlite3_stmt *row, struct np_device *out);
void np_streams_close(struct np_reader *r);

/* Numbers of connections, as rows have them. */
struct np_ids {
  int64_t *list; /* owned */
  size_t count;
};
void np_ids_add(struct np_ids *ids, int64_t id);
bool np_ids_have(const struct np_ids *ids, int64_t id);
/* The numbers of those names that the store knows. 0, or -1 and err. */
int np_find_id(struct np_reader *r, const struct np_text *name, int64_t *id, struct np_error *err); /* *id 0: unknown */
int np_find_scope(struct np_reader *r, const struct np_scope *scope, struct np_ids *ids, struct np_error *err);
/* A query's statements see one moment of the store. */
int np_find_begin(struct np_reader *r, struct np_error *err);
int np_find_end(struct np_reader *r, int result, struct np_error *err); /* gives result, or -1 */

#endif
