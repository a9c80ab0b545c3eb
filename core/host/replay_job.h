/* A replay of a rule as it stands in the store: what it runs on, how far it has come, what became of what the rule sends. Its position is committed together with
 * the messages before it, so that a host that ends in the middle goes on at the next start: the rule, which is the same text on the same readings, runs
 * through what it has been through, and sends from there on. */
#ifndef NP_HOST_REPLAY_JOB_H
#define NP_HOST_REPLAY_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "store/store.h"

#define NP_REPLAY_SPACE "neap.replay"

struct np_filter;

enum np_replay_state {
  NP_REPLAY_WAITING, /* for its turn */
  NP_REPLAY_RUNNING,
  NP_REPLAY_DONE,
  NP_REPLAY_STOPPED, /* by a person, or because it cannot go on */
  NP_REPLAY_STATES
};

enum np_replay_name { NP_REPLAY_DEVICE, NP_REPLAY_METRIC, NP_REPLAY_VENDOR, NP_REPLAY_CONNECTION, NP_REPLAY_NAMES };

struct np_replay_job {
  int64_t number;
  char *rule;                   /* owned */
  int generation;               /* of it */
  char print[65];               /* of its text and its settings: with another it does not go on */
  char *names[NP_REPLAY_NAMES]; /* owned: patterns; NULL: any */
  int64_t upto;                 /* the newest reading when it was asked for; 0: there was none */
  int64_t from, to;             /* ms: when readings were received; to 0: until it was asked for */
  int64_t created;              /* ms */
  int64_t rate, period;         /* so many messages within so many ms */
  bool again;                   /* what is on record as sent is sent, too */
  char *by;                     /* owned: who asked */
  enum np_replay_state state;
  char *why;     /* owned: it has stopped; NULL */
  int64_t ended; /* ms; 0: it has not */
  struct np_replay_progress {
    int64_t seq;  /* what was said on readings up to there is dealt with, and */
    int64_t said; /* so many messages and failures after that */
    int64_t readings;
    int64_t sent;    /* messages that were made */
    int64_t already; /* not: they are on record */
    int64_t expired; /* not: no longer worth anything */
    int64_t waiting; /* not: the rule itself is yet to be run on that, for it is held */
    int64_t unsure;  /* not: it was so long ago that nobody can tell whether it was sent */
    int64_t derived; /* readings that it gave: stored where they were missing */
    int64_t failed;  /* readings and timers on which the rule raised */
    int64_t failed_reading;
  } at;
  char *error; /* owned: what the first of the failed said; NULL */
};

/* Adds the row to a write set; a job that has ended is kept for a year. */
void np_replay_job_put(const struct np_replay_job *j, struct np_writeset *ws);
/* The set is a conflict where the row is not that version any more. */
void np_replay_job_see(int64_t number, int64_t version, struct np_writeset *ws);
/* Reads a row's value. -1 and err. */
int np_replay_job_read(struct np_replay_job *j, const char *text, size_t len, struct np_error *err);
/* The job of that number, with the version of its row: 1, 0 where there is none, -1 and err. version may be NULL. */
int np_replay_job_load(struct np_reader *r, int64_t number, struct np_replay_job *j, int64_t *version, struct np_error *err);
size_t np_replay_job_key(int64_t number, char key[24]);
/* `"replay":7,"rule":…`: the members of an object, as JSON. */
void np_replay_job_add(const struct np_replay_job *j, struct np_buf *b);
void np_replay_job_clear(struct np_replay_job *j);
void np_replay_job_stop(struct np_replay_job *j, const char *why);

/* The filter of patterns for device, metric, vendor and connection, each may be NULL. NULL and err. */
struct np_filter *np_replay_filter(const char *const names[NP_REPLAY_NAMES], struct np_error *err);

#endif
