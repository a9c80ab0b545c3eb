/* The durable store, whatever engine is behind it. An engine applies write sets (one writer) and answers readers (one for each
 * thread). Nothing here is SQL, so that another engine can stand behind the same functions.
 *
 * What identifies a reading: the vendor, device, metric and the vendor's own key; where it has no key, vendor, device, metric and at. A second one is
 * a duplicate: not stored, seq 0, and no rule sees it. Only the first counts, also where the second says something else. An empty
 * key identifies nothing and counts as absent.
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

/* Opens or creates (owner-only permission), migrates to the newest schema, recovers. NULL and err where it cannot: a file
 * that is not a neap store, one of a newer neap, one that another process has open for writing (a lock is held beside it). */
struct np_store *np_store_open(const char *path, struct np_error *err);
void np_store_close(struct np_store *s);

/* Applies n sets in one transaction and commits it durably (fsync). Sets each outcome, each fresh reading's and message's seq,
 * request_id and fresh. A conflicting set is left out, the others go on. Returns 0 when committed; -1 and err where the store could not: then
 * every set's outcome is NP_FAILED, except that after an error that is not about space or the disk each set is tried alone. */
int np_store_apply(struct np_store *s, struct np_writeset **sets, size_t n, struct np_error *err);

/* Removes, in a small step, inbox rows received before `requests` and delivered messages and expired keys before `now` (all ms).
 * Returns how many rows went; 0 when there is nothing more to do; -1 and err. */
int np_store_prune(struct np_store *s, int64_t requests, int64_t delivered, int64_t now, struct np_error *err);

struct np_reader *np_reader_open(const char *path, struct np_error *err);
void np_reader_close(struct np_reader *r);

/* All readers see every commit that was answered before the call. Callbacks return false to stop; what they are given is
 * borrowed during the call, and they do not use the same reader. Functions return -1 and err where the store cannot be read, otherwise 0 unless said. */
typedef bool np_reading_fn(void *arg, const struct np_reading *reading);

int64_t np_reader_last_seq(struct np_reader *r); /* newest reading's, 0 where there is none, -1 on error */
/* Readings after seq, oldest first, at most limit. */
int np_reader_scan(struct np_reader *r, int64_t after, int limit, np_reading_fn *fn, void *arg, struct np_error *err);
int np_reader_reading(struct np_reader *r, int64_t seq, np_reading_fn *fn, void *arg, struct np_error *err);
/* A device's metric with from <= at <= to, newest `at` first (ties: newest seq first). vendor NULL takes every vendor's device of that name. */
int np_reader_history(struct np_reader *r, const char *vendor, const char *device, const char *metric, int64_t from, int64_t to,
                      int limit, np_reading_fn *fn, void *arg, struct np_error *err);

/* 1 and fills value and version where the key is there and has not expired at now; 0 and version where not (the version may
 * then be nonzero, for an expired key); -1 on error. */
int np_reader_get(struct np_reader *r, const char *space, const char *key, size_t key_len, int64_t now, struct np_buf *value,
                  int64_t *version, struct np_error *err);
/* Keys of a space that start with prefix, in order, those that have not expired. */
int np_reader_keys(struct np_reader *r, const char *space, const char *prefix, int64_t now, int limit,
                   bool (*fn)(void *arg, struct np_text key, struct np_text value, int64_t version), void *arg,
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
int64_t np_reader_held_count(struct np_reader *r, const char *instance); /* NULL: of all */

/* Pending messages. Devices of a destination that have any, in no order; then the oldest ones of such a pair. */
int np_reader_outbox_devices(struct np_reader *r, const char *destination, bool (*fn)(void *arg, struct np_text device), void *arg,
                             struct np_error *err);
int np_reader_outbox_head(struct np_reader *r, const char *destination, const char *device, int limit,
                          bool (*fn)(void *arg, const struct np_message *m), void *arg, struct np_error *err);
int64_t np_reader_outbox_count(struct np_reader *r, const char *destination, char state); /* 'p' pending, 'd', 'x' */

struct np_device {
  int64_t id;
  struct np_text vendor, connection, device, serial, model, name, owner, place, status, extra;
  int online;
  int64_t first_seen, last_seen; /* ms: received of its first and newest reading or news */
};
int np_reader_devices(struct np_reader *r, int64_t after_id, int limit, bool (*fn)(void *arg, const struct np_device *d), void *arg,
                      struct np_error *err);

struct np_generation {
  struct np_text instance, file, hash, source, verdict, reason;
  int64_t at;
  int number;
};
/* The newest with that verdict ("good", "bad"); NULL takes any. 1 found, 0 none, -1 error. */
int np_reader_generation(struct np_reader *r, const char *instance, const char *verdict,
                         void (*fn)(void *arg, const struct np_generation *g), void *arg, struct np_error *err);

#endif
