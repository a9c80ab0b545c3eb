/* `neap replay CONNECTION`: a connection's kept requests are run again, oldest first, one after the other, by the generation that is in force; or only tried,
 * and what they would give is compared with what is stored. What a handler does commits with the mark on the request's row. */
#ifndef NP_HOST_REPLAY_H
#define NP_HOST_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

struct np_lane;
struct np_call;
struct np_replays;

/* Which ones, how, and how far it has come: it goes with a call (host/calls.h) to the lane, for as many requests as take a moment, and back. */
struct np_requests {
  bool failed; /* only those that have failed */
  bool dry;    /* nothing is written */
  bool rules;  /* rules are run on what is new; they always are where a request had failed, for that is work that was missed */
  int64_t after, upto; /* ids: after < id <= upto; `after` is moved on */
  int64_t from, to;    /* ms, when they were received */
  int64_t pause;       /* us between one and the next */
  int64_t due;         /* us on the monotonic clock: when the next one may come */
  /* Given by the lane. */
  bool begun, over; /* over: there is none left */
  int64_t done, refused, failures, gone;
  int64_t readings[5]; /* see np_requests_readings */
};
/* How readings are counted: "new", "same", "different", "missing", "too_old". What is run in truth knows new and same only. */
enum { NP_READINGS_NEW, NP_READINGS_SAME, NP_READINGS_DIFFERENT, NP_READINGS_MISSING, NP_READINGS_TOO_OLD, NP_READINGS_KINDS };
extern const char *const np_requests_readings[NP_READINGS_KINDS];

/* The replays of one lane. Lane's thread. */
struct np_replays *np_replays_new(struct np_lane *lane);
/* The call's answer: a line for each request, {"request", "was", "outcome", "status", "why", "readings": {…}, "changes": […]}; one with an "error" where it cannot
 * go on. */
void np_replays_take(struct np_replays *r, struct np_call *call);
void np_replays_free(struct np_replays *r);

#endif
