/* The durable store, whatever engine is behind it. An engine applies write sets (one writer) and answers readers (one for each
 * thread). Nothing here is SQL, so that another engine can stand behind the same functions.
 *
 * What identifies a reading: the vendor, device, metric and the vendor's own key; where it has no key, vendor, device, metric and at. A second one is
 * a duplicate: not stored, seq 0, and no rule sees it. Only the first counts, also where the second says something else. An empty
 * key identifies nothing and counts as absent. A derived reading always has a key, and it counts apart from vendors' keys: what a rule derives is never
 * taken for what a vendor sends, nor the other way round.
 *
 * A reading's `serial` counts up by one: where a device's metric passes over numbers, the store adds an event "gap" with the reading's
 * `at` and {"metric", "from", "to"}. */
#ifndef NP_STORE_STORE_H
#define NP_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/map.h"
#include "store/writeset.h"

struct np_store;  /* the writer: one thread at a time */
struct np_reader; /* one thread */

#define NP_STORE_MEMORY "memory:" /* a path that begins so is no file: a test's store, gone when it is closed */

/* Opens or creates (owner-only permission), migrates to the newest schema, recovers. NULL and err where it cannot: a file
 * that is not a neap store, one of a newer neap, one that another process has open for writing (a lock is held beside it). */
struct np_store *np_store_open(const char *path, struct np_error *err);
void np_store_close(struct np_store *s);

/* Applies n sets in one transaction and commits it durably (fsync). Sets each outcome, each fresh reading's and message's seq,
 * request_id, fresh and too_old. A conflicting set is left out, the others go on. Returns 0 when committed; -1 and err where the store could not: then
 * every set's outcome is NP_FAILED, except that after an error that is not about space or the disk each set is tried alone. */
int np_store_apply(struct np_store *s, struct np_writeset **sets, size_t n, struct np_error *err);

/* How long each kind of thing is kept, and how much of it. What is needed goes later than that: a reading that rules have not dealt with, or
 * that a held entry names, and the newest of each series, by which gaps and changes are told. */
enum np_kept {
  NP_KEPT_REQUESTS,  /* by when they were received; the size is of all, failed ones too */
  NP_KEPT_FAILED,    /* requests that failed and have not been replayed: their age */
  NP_KEPT_READINGS,  /* by when they were received */
  NP_KEPT_EVENTS,    /* the same */
  NP_KEPT_DELIVERED, /* messages, by when they were delivered, or dropped */
  NP_KEPT_DEAD,      /* dead letters, by when they became that: they are dropped then, which keeps them as NP_KEPT_DELIVERED says */
  NP_KEPT_KINDS
};
struct np_keep { /* 0: no bound */
  int64_t age;   /* ms */
  int64_t size;  /* bytes of content, without what the file needs around it; the oldest go first */
};

struct np_pruned { /* what went in a step */
  int failed;      /* failed requests among it */
  int dead;        /* dead letters that were dropped */
  bool more;       /* there is more to do at once */
};

/* Removes, in a small step, what is past its bounds at `now` (ms), and keys that have expired before `expired`. A row goes, and counts, with what hangs on
 * it: a request's former runs, a message's attempts and acknowledgement, what led to a derived reading. Returns how many rows went; 0
 * when there is nothing more to do for a while; -1 and err.
 *
 * A reading that comes when newer ones of its series have been removed cannot be told from one of those: it is not taken, as a duplicate is not,
 * and the device has an event "too_old" at the newest `at` that was removed, {"metric"}. An `at` later than when it was received counts as that. */
int np_store_prune(struct np_store *s, const struct np_keep keep[NP_KEPT_KINDS], int64_t now, int64_t expired,
                   struct np_pruned *pruned, struct np_error *err);

/* Copies the store, which may be in use by another process, as it is at one moment, into a new file of that name, for its owner only; checks the copy
 * and fsyncs it. -1 and err: then no file of that name was made. The key file is not copied. */
int np_store_backup(const char *store, const char *path, struct np_error *err);

struct np_reader *np_reader_open(const char *path, struct np_error *err);
void np_reader_close(struct np_reader *r);

/* All readers see every commit that was answered before the call. Callbacks return false to stop; what they are given is
 * borrowed during the call, and they do not use the same reader. Functions return -1 and err where the store cannot be read, otherwise 0 unless said. */
typedef bool np_reading_fn(void *arg, const struct np_reading *reading);

int64_t np_reader_last_seq(struct np_reader *r); /* newest reading's, 0 where there is none, -1 on error */
/* Readings after seq, oldest first, at most limit. */
int np_reader_scan(struct np_reader *r, int64_t after, int limit, np_reading_fn *fn, void *arg, struct np_error *err);
int np_reader_reading(struct np_reader *r, int64_t seq, np_reading_fn *fn, void *arg, struct np_error *err);
/* The readings that a request gave, in all its runs: those that were new, in their order; fn returns false to stop. */
int np_reader_request_readings(struct np_reader *r, int64_t request, np_reading_fn *fn, void *arg, struct np_error *err);
/* The request that a reading came with; 0 where there is none (a job fetched it), or no such reading; -1 on error. */
int64_t np_reader_reading_request(struct np_reader *r, int64_t seq);
/* What led to a derived reading: nothing where it is none, or that is not on record. And the readings that were derived from a reading itself, with
 * seq > after, oldest first. */
typedef bool np_derivation_fn(void *arg, int64_t reading, const struct np_derivation *d);
int np_reader_derivation(struct np_reader *r, int64_t reading, np_derivation_fn *fn, void *arg, struct np_error *err);
int np_reader_derived_from(struct np_reader *r, int64_t cause, int64_t after, int limit, np_derivation_fn *fn, void *arg,
                           struct np_error *err);
/* What a rule derived from readings with after < seq <= upto, and by its timers with from <= received <= to (ms). Looks at all that was derived. */
int np_reader_derived_by(struct np_reader *r, const char *rule, int64_t after, int64_t upto, int64_t from, int64_t to,
                         np_derivation_fn *fn, void *arg, struct np_error *err);
int np_reader_derived_count(struct np_reader *r, int64_t cause, int64_t *n, struct np_error *err);
/* A device's metric with from <= at <= to, newest `at` first (ties: newest seq first). vendor NULL takes every vendor's device of that name. */
int np_reader_history(struct np_reader *r, const char *vendor, const char *device, const char *metric, int64_t from, int64_t to,
                      int limit, np_reading_fn *fn, void *arg, struct np_error *err);

/* A vendor's device's metric with at <= to, of the readings before seq: newest `at` first (ties: newest seq first), until fn returns false. */
int np_reader_before(struct np_reader *r, const char *vendor, const char *device, const char *metric, int64_t to, int64_t seq,
                     np_reading_fn *fn, void *arg, struct np_error *err);

/* Queries on behalf of a connection see only what connections of a scope wrote: other rows do not exist for them. Of a device that
 * connections share, each sees its own readings and events. Its details are those of the connection that gave the newest news: for the others
 * it has none, only a name, a first_seen and a last_seen made of what they wrote themselves. */
struct np_scope {
  const char *const *connections; /* borrowed */
  size_t count;
  bool all; /* every connection's rows, also those that name none */
};

struct np_texts {             /* any of these; count 0 takes all */
  const struct np_text *list; /* borrowed */
  size_t count;
};

/* Readings of devices, or events; in the order of (at, seq), or (at, id). */
struct np_row_filter {
  struct np_scope scope;
  struct np_texts devices; /* readings: at least one */
  struct np_texts kinds;   /* metrics, or types */
  struct np_text vendor;   /* absent: every vendor's device of that name */
  int64_t from, to;        /* at, both included */
  bool ascending;
  bool after; /* only what comes behind this place in the order */
  int64_t after_at, after_seq;
};
/* At most limit. A page costs what it gives, wherever it stands and however long the rest is; except that of a device which others share, their
 * rows in between are looked at too. */
int np_reader_find_readings(struct np_reader *r, const struct np_row_filter *f, int limit, np_reading_fn *fn, void *arg,
                            struct np_error *err);
/* The newest of each series, newest first: by `at`, then seq. Only scope, devices, kinds and vendor of the filter count. */
int np_reader_latest(struct np_reader *r, const struct np_row_filter *f, np_reading_fn *fn, void *arg, struct np_error *err);

struct np_event {
  int64_t id, at, received;
  struct np_text vendor, connection, device, type, key, data; /* key "" and data absent where it has none */
};
typedef bool np_event_fn(void *arg, const struct np_event *event);
int np_reader_find_events(struct np_reader *r, const struct np_row_filter *f, int limit, np_event_fn *fn, void *arg,
                          struct np_error *err);

/* How many there are in all, whatever `after` says. From the index alone, about 50 ns each; of a shared device each row is
 * looked at, about 1 us. -1 and err. */
int64_t np_reader_count_readings(struct np_reader *r, const struct np_row_filter *f, struct np_error *err);
int64_t np_reader_count_events(struct np_reader *r, const struct np_row_filter *f, struct np_error *err);

/* 1 and fills value and version where the key is there and has not expired at now; 0 and version where not (the version may
 * then be nonzero, for an expired key); -1 on error. */
int np_reader_get(struct np_reader *r, const char *space, const char *key, size_t key_len, int64_t now, struct np_buf *value,
                  int64_t *version, struct np_error *err);
/* Keys of a space that start with prefix and come after `after` (NULL: from the first), in order of their bytes, those that have not expired. */
int np_reader_keys(struct np_reader *r, const char *space, const char *prefix, const char *after, int64_t now, int limit,
                   bool (*fn)(void *arg, struct np_text key, struct np_text value, int64_t version), void *arg,
                   struct np_error *err);

int np_reader_key_count(struct np_reader *r, const char *space, int64_t *n, struct np_error *err);

/* Bytes of all keys and values of the spaces "KIND:OWNER", what has expired and is not yet pruned included; it is kept, not counted. -1 on error. */
int64_t np_reader_size(struct np_reader *r, const char *owner);
int64_t np_reader_key_size(struct np_reader *r, const char *space, const char *key,
                           size_t key_len); /* of one; 0 where it is not there */

/* The inbox's row of that id as the NP_OP_REQUEST that it was: 1, 0 where there is none, -1 and err. */
int np_reader_request(struct np_reader *r, int64_t id, void (*fn)(void *arg, int64_t id, const struct np_op *op), void *arg,
                      struct np_error *err);

/* Which requests of an instance: ids after < id <= upto, received from .. to (ms). */
struct np_request_filter {
  const char *instance; /* borrowed */
  bool failed;          /* only those whose outcome is that */
  int64_t after, upto, from, to;
};
/* The next one by id: 1, and `after` is its id; 0 where there is none up to `after`, which is moved on by a bounded step (there are more to be looked at while
 * it is less than upto); -1 and err. */
int np_reader_next_request(struct np_reader *r, struct np_request_filter *f, struct np_error *err);
/* Moves `after` to where such requests can begin, and `upto` to the newest one: once, before the first. -1 and err. */
int np_reader_request_bounds(struct np_reader *r, struct np_request_filter *f, struct np_error *err);

struct np_request_run { /* what became of a request, before it was run again at `until` (ms) */
  int64_t until;
  int generation, status;
  struct np_text outcome, error;
};
/* Of a request that was run again: oldest first. */
int np_reader_request_runs(struct np_reader *r, int64_t request, bool (*fn)(void *arg, const struct np_request_run *run), void *arg,
                           struct np_error *err);
int np_reader_request_run_count(struct np_reader *r, int64_t request); /* -1 where there is no such request, or on error */

/* What would become of a reading that came now. */
enum np_same {
  NP_SAME_NONE,     /* it is new */
  NP_SAME_STORED,   /* there is one of its identity: fn is given it */
  NP_SAME_ELSEWHEN, /* there is one of its key, measured at another time */
  NP_SAME_TOO_OLD,  /* newer ones of its series have been removed */
};
int np_reader_same(struct np_reader *r, const struct np_reading *reading, enum np_same *same, np_reading_fn *fn, void *arg,
                   struct np_error *err);

struct np_timer {
  struct np_text instance, name, key;
  int64_t due;
};
int np_reader_timers_due(struct np_reader *r, int64_t now, int limit, bool (*fn)(void *arg, const struct np_timer *t), void *arg,
                         struct np_error *err);                   /* due <= now, soonest first */
int64_t np_reader_timer_next(struct np_reader *r, int64_t after); /* soonest due > after, INT64_MAX where none, -1 on error */
int64_t np_reader_timer_count(struct np_reader *r);

int np_reader_cursors(struct np_reader *r, int64_t cursors[NP_PARTITIONS], struct np_error *err); /* 0 where never set */

struct np_held {
  int64_t id, reading, at;
  struct np_text instance, name, key, error;
  int generation;
};
/* Held entries of an instance with id > after, by id. */
int np_reader_held(struct np_reader *r, const char *instance, int64_t after, int limit,
                   bool (*fn)(void *arg, const struct np_held *h), void *arg, struct np_error *err);
int np_reader_held_of(struct np_reader *r, int64_t reading, bool (*fn)(void *arg, const struct np_held *h), void *arg,
                      struct np_error *err);                             /* of whatever instance, for that reading */
int64_t np_reader_held_count(struct np_reader *r, const char *instance); /* NULL: of all */

/* Pending messages, those of replays or the others. Devices of a destination that have any, in no order; then the oldest ones of such a pair. */
int np_reader_outbox_devices(struct np_reader *r, const char *destination, bool replayed,
                             bool (*fn)(void *arg, struct np_text device), void *arg, struct np_error *err);
int np_reader_outbox_head(struct np_reader *r, const char *destination, const char *device, bool replayed, int limit,
                          bool (*fn)(void *arg, const struct np_message *m), void *arg, struct np_error *err);
int64_t np_reader_outbox_count(struct np_reader *r, const char *destination, char state); /* 'p' pending, 'd', 'x' */
int64_t np_reader_outbox_oldest(struct np_reader *r,
                                const char *destination); /* when the oldest pending one was made; 0: there is none */
/* Names of destinations for which messages wait, or are dead letters, whether there is one of that name now or not. fn may read the store. */
int np_reader_destinations(struct np_reader *r, bool (*fn)(void *arg, struct np_text destination), void *arg, struct np_error *err);

/* Pending messages that have expired at now, soonest first, after that place; or those of one line, in the same order. When the next one does (INT64_MAX: none). */
int np_reader_expired(struct np_reader *r, int64_t now, int64_t after_expires, int64_t after_seq, int limit,
                      bool (*fn)(void *arg, const struct np_message *m), void *arg, struct np_error *err);
int np_reader_expired_of(struct np_reader *r, const char *destination, const char *device, bool replayed, int64_t now, int limit,
                         bool (*fn)(void *arg, const struct np_message *m), void *arg, struct np_error *err);
int64_t np_reader_next_expiry(struct np_reader *r, int64_t after);

struct np_sent { /* a message, and what has become of it */
  struct np_message message;
  char state; /* 'p' pending, 'd' delivered, 'x' dead letter, 'o' dropped by a person */
  int status; /* of the last answer */
  int64_t at; /* delivered, or dead since; 0 while pending */
  struct np_text error, reason;
  int64_t dropped; /* when, and by whom */
  struct np_text by;
};
typedef bool np_sent_fn(void *arg, const struct np_sent *s);
/* The message of that id, wherever it is: 1, 0 where there is none, -1 and err. */
int np_reader_message(struct np_reader *r, const char *id, np_sent_fn *fn, void *arg, struct np_error *err);
/* Those that a reading led to, oldest first, wherever they are. */
int np_reader_messages_of(struct np_reader *r, int64_t reading, np_sent_fn *fn, void *arg, struct np_error *err);
/* Those that no reading led to, but a timer that was due then. */
int np_reader_messages_about(struct np_reader *r, int64_t about, np_sent_fn *fn, void *arg, struct np_error *err);
int64_t np_reader_delivered_from(
    struct np_reader *r); /* ms: when the oldest that is kept as delivered was made; 0: there is none; -1 on error */
/* ms: when the newest was made of those that are no longer on record, for np_store_prune has removed them; 0: none has been; -1 on error. */
int64_t np_reader_messages_gone(struct np_reader *r);
int64_t np_reader_replay_pending(struct np_reader *r, int64_t replay); /* how many of that replay are pending; -1 on error */
/* What a rule has sent, also by replays: for readings with after < seq <= upto, and, from its timers, made in from .. to (ms), by a replay for a moment
 * in there. Oldest first; looks at all messages. */
int np_reader_messages_by(struct np_reader *r, const char *rule, int64_t after, int64_t upto, int64_t from, int64_t to,
                          np_sent_fn *fn, void *arg, struct np_error *err);
/* Its attempts, the first and the newest 20, in order. By the message's seq. */
int np_reader_attempts(struct np_reader *r, int64_t message, bool (*fn)(void *arg, const struct np_attempt *a), void *arg,
                       struct np_error *err);

/* Acknowledgements (NP_OP_ACK). They are kept as long as their message is. The record of a message's first one is added to `record`: 1, 0 where there is
 * none, -1 and err. *version is what an NP_OP_SEEN of NP_SPACE_ACKS and the id has to name. */
#define NP_SPACE_ACKS "neap.acks"   /* id of a message -> record */
#define NP_SPACE_ASKED "neap.asked" /* id of a message that asks for one, has none, and was not dropped */
int np_reader_ack(struct np_reader *r, const char *id, struct np_buf *record, int64_t *version, struct np_error *err);
/* Whether the message waits for one: 1, 0, -1 and err. */
int np_reader_waiting(struct np_reader *r, const char *id, struct np_error *err);
/* Those that do, whatever has become of them, oldest first, after that id (NULL: from the first); fn is given the id alone. */
int np_reader_waiting_all(struct np_reader *r, const char *after, int limit, bool (*fn)(void *arg, struct np_text id), void *arg,
                          struct np_error *err);

struct np_dead_filter {         /* absent texts take any */
  const char *id, *destination; /* borrowed */
  int64_t from, to;             /* dead since, both included */
  int64_t after;                /* seq */
};
int np_reader_dead(struct np_reader *r, const struct np_dead_filter *f, int limit, np_sent_fn *fn, void *arg, struct np_error *err);

struct np_device {
  int64_t id;
  struct np_text vendor, connection, device, serial, model, name, owner, place, status, extra;
  struct np_text tags, own_tags; /* sorted, a line each: its vendor's, and those that operators have added */
  int online;
  bool details;                  /* false: they are another connection's, outside of the query's scope, and so left out */
  int64_t first_seen, last_seen; /* ms: received of its first and newest reading or news */
};
typedef bool np_device_fn(void *arg, const struct np_device *device);
int np_reader_devices(struct np_reader *r, int64_t after_id, int limit, np_device_fn *fn, void *arg, struct np_error *err);

struct np_device_filter { /* absent texts and empty lists take any device */
  struct np_scope scope;
  struct np_texts devices, statuses, except_statuses; /* one without a status is in no status, so it is not excepted */
  struct np_text vendor, connection, name, name_has, owner, place, model;
  int64_t after; /* id */
};
/* By id, at most limit. By device or owner, and of one connection, a page costs what it gives; of several, what they have. */
int np_reader_find_devices(struct np_reader *r, const struct np_device_filter *f, int limit, np_device_fn *fn, void *arg,
                           struct np_error *err);
int64_t np_reader_count_devices(struct np_reader *r, const struct np_device_filter *f, struct np_error *err);

struct np_generation {
  struct np_text instance, file, hash, source, verdict, reason, cause;
  int64_t id, at;
  int number; /* 0 where it was not let in */
};
/* The newest with that verdict ("good", "bad"); NULL takes any. 1 found, 0 none, -1 error. */
int np_reader_generation(struct np_reader *r, const char *instance, const char *verdict,
                         void (*fn)(void *arg, const struct np_generation *g), void *arg, struct np_error *err);
/* Those of an instance with id < before (INT64_MAX: all), newest first; fn returns false to stop. */
int np_reader_generations(struct np_reader *r, const char *instance, int64_t before, int limit,
                          bool (*fn)(void *arg, const struct np_generation *g), void *arg, struct np_error *err);
int np_reader_generation_at(struct np_reader *r, const char *instance,
                            int64_t at); /* the number of the one that was in force then, 0 where none is on record, -1 on error */
int np_reader_last_number(struct np_reader *r, const char *instance); /* the highest given out, 0 where none was, -1 on error */

#endif
