/* What the router's files share: the partitions of one lane and what waits in them. router.c has readings, batches and commits,
 * router_held.c held entries, router_timers.c timers. Private to them. Lane's thread. */
#ifndef NP_HOST_ROUTER_PARTS_H
#define NP_HOST_ROUTER_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "host/alarm.h"
#include "host/host.h"
#include "host/ledger.h"
#include "host/router.h"
#include "host/rule.h"

struct event;

struct np_part_item {
  struct np_part_item *next;
  struct np_writeset *ws; /* a reference: it holds the reading */
  const struct np_reading *reading;
};

struct np_held_item { /* a held entry that is to be run again */
  struct np_held_item *next;
  int64_t id;
  char *instance, *name, *key; /* owned */
  struct np_writeset *ws;      /* owns the reading's strings */
  struct np_reading reading;
  bool is_timer;
  int64_t at;     /* ms: when the timer was due */
  int generation; /* that failed on it; 0: it was only kept from it */
};

struct np_part {
  struct np_waiter waiter; /* first */
  struct np_router *router;
  int number;
  int64_t committed;                      /* the cursor in the store */
  int64_t done;                           /* rules have dealt with it, perhaps not yet written */
  int64_t seen;                           /* newest that was queued */
  int64_t coming;                         /* newest that rules of this lane have derived for it: it is stored, if not queued yet */
  struct np_part_item *first, **last;     /* waiting */
  struct np_part_item *batch;             /* those of the set under way, kept until it is committed */
  struct np_held_item *held, **held_last; /* to be run again before anything else */
  struct np_held_item *held_now;
  struct np_timer *timer; /* due, to be run: owned with its strings */
  int64_t wait_for;       /* a timer is due, and is run once readings up to this seq have been; 0: none */
  struct np_writeset *ws; /* under way */
  uint64_t made_in;       /* the epoch it was made in */
  int64_t made_after;     /* router->taken_up then */
  bool busy;
  struct np_node *matches; /* owned: of the set under way, for those who tail; see router_feed.c */
  struct event *again;     /* after the store could not */
};

struct np_router {
  struct np_lane *lane;
  struct np_part parts[NP_PARTITIONS]; /* those of other lanes stay unused */
  size_t waiting;                      /* items */
  bool behind;                         /* scan the store, notices are passed over */
  bool draining;
  bool held_more;                          /* held entries wait in the store for those in memory; readings wait for both */
  int64_t lazy_since;                      /* ms: when a cursor first moved without a commit; 0 */
  struct np_alarm timers;                  /* rings when the next armed timer is due */
  int64_t timers_at;                       /* ms, INT64_MAX where nothing is armed */
  struct np_overlay overlay;               /* of the batch that is being built */
  int64_t taken_up;                        /* how often what was held for a quarantine was looked for */
  int turn;                                /* the partition that comes first */
  uint64_t *bits;                          /* owned: of the rules that a reading may fire */
  uint32_t *ons;                           /* owned: those of one rule */
  size_t words;                            /* of bits */
  struct np_node *matches, **matches_last; /* owned: of the batch that is being built */
};

/* For those who tail. A rule was run on a reading; the batch is complete; it is committed, or where ws is NULL it will not be. router_feed.c */
void np_router_feed_match(struct np_router *r, const struct np_rule_run *run, const struct np_op *did);
void np_router_feed_begin(struct np_part *p);
void np_router_feed_end(struct np_part *p, const struct np_writeset *ws);

/* All handlers of one rule on one reading: all of what they did is in ws, or a held entry. False where it was held. judged: see np_rule_run. */
bool np_router_rule(struct np_router *r, const struct np_slot *slot, const struct np_reading *reading, const char *judged,
                    struct np_writeset *ws);
/* at: ms, now, or when the timer was due. */
void np_router_hold(struct np_writeset *ws, const char *instance, const struct np_reading *reading, const char *name,
                    const char *key, const char *error, int64_t at, int generation);
void np_router_log_held(const struct np_code *code, const struct np_reading *reading, const char *what, const char *error);
/* Commits ws, which p now waits for; or, where it does nothing, forgets it. */
void np_router_commit(struct np_part *p, struct np_writeset *ws, bool cursor_alone);
void np_router_part_run(struct np_part *p); /* its most urgent work: held entries, a due timer, waiting readings */

static inline bool np_router_mine(const struct np_router *r, int partition) {
  return np_lane_has(r->lane, partition, r->lane->host->lane_count);
}

void np_router_held_find(struct np_router *r, struct np_instance *in); /* looks for those of a rule that were not found before */
void np_router_held_late(struct np_router *r, const struct np_writeset *ws);
void np_router_held_more(struct np_router *r);
void np_router_held_run(struct np_part *p);
void np_router_held_again(struct np_part *p);
void np_router_held_forget(struct np_router *r, const char *instance); /* those of an instance, or of all where it is NULL */
void np_router_held_free(struct np_held_item *h);

void np_router_timers_open(struct np_router *r);
void np_router_timers_at(struct np_router *r, int64_t at);                     /* looks for due timers then, ms, or before */
void np_router_timers_note(struct np_router *r, const struct np_writeset *ws); /* those that a commit has armed */
void np_router_timer_run(struct np_part *p);

#endif
