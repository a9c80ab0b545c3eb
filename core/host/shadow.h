/* Shadow runs: a rule's code on readings of the store, in the order in which they were stored and with the time at which each was received as its
 * present, giving each message that it would send and each reading that it would derive. It is the code that the router runs; what is left out is the store: nothing is written.
 *
 * A run begins from nothing: no throttle, no timer, no key of the rule's store, for what is there now was left by later readings. What the rule puts there
 * in the run it finds there in the run, and so do its filters that remember. Timers fire in order, at their moment between the readings. plugin:history sees what was stored by then; what is
 * known of a device (place, owner) is what is known now.
 * Lines that the rule would log are dropped. Any thread, one at a time for a run. */
#ifndef NP_HOST_SHADOW_H
#define NP_HOST_SHADOW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "host/filter.h"
#include "host/lane.h"
#include "store/store.h"

struct np_shadow;

struct np_shadow_cause {            /* what the rule was run on */
  const struct np_reading *reading; /* NULL: a timer */
  const char *timer, *key;
  int64_t at; /* ms: its present */
};

struct np_shadow_heard {
  void (*message)(void *arg, const struct np_shadow_cause *cause, const struct np_message *m); /* its id is made up */
  void (*derived)(void *arg, const struct np_shadow_cause *cause, const struct np_reading *r); /* NULL: not wanted */
  void (*failed)(void *arg, const struct np_shadow_cause *cause, const char *error);           /* it would be held */
  void *arg;
};

/* Takes over the instance, which is of a rule and on no lane. `to`: a reference to an epoch, of which only the names of those who take messages count;
 * `reader` is borrowed. NULL and err: then the instance is closed too. */
struct np_shadow *np_shadow_new(struct np_instance *in, struct np_epoch *to, struct np_reader *reader,
                                const struct np_shadow_heard *heard, struct np_error *err);
void np_shadow_free(struct np_shadow *s);

/* Of a message that it has been heard to send: plugin:acknowledged tells that from the moment `at` of the run on. record is JSON, as
 * plugin:acknowledged gives it. */
void np_shadow_acknowledge(struct np_shadow *s, struct np_text id, struct np_text record, int64_t at);

struct np_shadow_span {           /* which readings; zeroed where not wanted */
  int64_t after, upto;            /* seq: those with after < seq <= upto; upto 0: all */
  int64_t from, to;               /* ms: received, both included; to 0: no end */
  const struct np_filter *filter; /* NULL: all */
  int64_t until;                  /* ms: timers due by then fire after the last reading; 0: those due before it alone */
  int64_t work_us;                /* how long it may take; 0: no bound */
  const atomic_bool *stop, *full; /* end it where one becomes true; each may be NULL */
  /* Who follows it, on its thread: asked before a reading is given to the runs, and told once all up to that seq are dealt with, a reading or others that are
   * none of the span. Both may take their time; false ends the run. Each may be NULL. */
  bool (*ready)(void *arg, const struct np_reading *r);
  bool (*passed)(void *arg, int64_t seq);
  void *arg;
};

struct np_shadow_covered {
  int64_t readings;
  int64_t seq, at; /* of the last of them: what comes after it in the span was not run, but for timers by `until` where whole */
  bool whole;      /* the time was enough for all */
};

/* Gives each reading of the span to each of the n runs before the next one. -1 and err where the store cannot be read. */
int np_shadow_run(struct np_shadow *const *runs, size_t n, const struct np_shadow_span *span, struct np_shadow_covered *covered,
                  struct np_error *err);

#endif
