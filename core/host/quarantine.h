/* Quarantine: a plugin that goes past its limits again and again is given no work for a while. Requests are answered 503 and kept as failed; readings are
 * held; messages, jobs, timers and commands wait. Then it is tried again: the first call that goes past a limit ends the trial, and the next quarantine
 * is twice as long; a trial that lasts ends it all. Plain errors do not count.
 *
 * The state is a generation's, so that a new one begins without it, and so does a start of neap. */
#ifndef NP_HOST_QUARANTINE_H
#define NP_HOST_QUARANTINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct np_code;
struct np_instance;
struct np_lane;
struct np_task;

#define NP_QUARANTINE_AFTER_MOST 100
#define NP_QUARANTINED "quarantined: " /* how what is kept and held for it begins */

struct np_quarantine_rules {               /* from neap.lua; the main thread writes, anyone reads */
  _Atomic int64_t after;                   /* so many calls past a limit; 0: there is no quarantine */
  _Atomic int64_t within, hold, hold_most; /* ms */
};

enum np_quarantine_state { NP_FREE, NP_QUARANTINE, NP_TRIAL };

struct np_quarantine { /* in a generation's code. Any thread */
  _Atomic int state;
  _Atomic int64_t ends; /* how often it was ended, or broken off for a trial: lanes compare it with what they have taken up */
  _Atomic bool mute;    /* its plugin:refuse went past a limit too: neap words its refusals */
  pthread_mutex_t lock; /* of the rest */
  int64_t overs[NP_QUARANTINE_AFTER_MOST]; /* ms on the monotonic clock: when the last calls went past a limit */
  int64_t count;                           /* of them, in all */
  int64_t times;                           /* quarantines since it was free */
  int64_t until;                           /* ms on the monotonic clock */
  int64_t since;                           /* the same: when the quarantine, or the trial, began */
  bool recorded;                           /* the main thread has done so */
  char why[300];
};
void np_quarantine_init(struct np_quarantine *q);
void np_quarantine_destroy(struct np_quarantine *q);

/* A call has ended. Its lane's thread. */
void np_quarantine_note(const struct np_task *t);
/* Is this instance's work held? Also until its lane has taken up what was held before. Its lane's thread. */
bool np_quarantine_holds(const struct np_instance *in);
/* Takes up what has waited, of every instance of the lane whose quarantine has ended. */
void np_quarantine_taken_up(struct np_lane *lane);

/* Main thread. Where its time has come: it is tried again, true. */
bool np_quarantine_try(struct np_quarantine *q);
/* By an operator; false where it was in none. */
bool np_quarantine_release(struct np_quarantine *q);
/* Any thread: "quarantined: it went past …", the caller's to free. */
char *np_quarantine_text(struct np_code *c);
/* Appends `,"quarantine":…`, where it is in one or on trial. */
void np_quarantine_describe(struct np_code *c, struct np_buf *b);

#endif
