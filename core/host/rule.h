/* Running a rule's handlers, in whatever the router, or a run over the past (host/shadow.h), has of a world around them. A rule cannot wait: a call
 * has ended when the function returns. */
#ifndef NP_HOST_RULE_H
#define NP_HOST_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "host/ledger.h"
#include "host/task.h"

/* One handler of one rule. */
struct np_rule_call {
  struct np_task task;
  const struct np_reading *reading;
  const char *timer, *key; /* of a timer */
  bool ok;
  char *error; /* owned */
};
void np_rule_call(struct np_instance *in, int handler, struct np_overlay *overlay, struct np_writeset *ws, int64_t now,
                  struct np_rule_call *c);

/* One rule on one reading: which of its handlers it fires, then those handlers. */
struct np_rule_run {
  struct np_instance *in;
  const struct np_reading *reading;
  struct np_overlay *overlay;
  struct np_writeset *ws;
  const uint32_t *ons; /* borrowed: the handlers that it may fire, of the code's, in their order; NULL: all */
  size_t on_count;
  /* Of a held entry: what the filters that remember said when it was held, for by now they have gone on. Borrowed; NULL or "": they are asked now. */
  const char *judged;
  struct np_buf verdicts; /* owned by the caller, filled: the same, to be held where it fails */
  size_t fired;           /* handlers */
  char *error;            /* the caller's, where it fails */
  bool kept_back;         /* it has not failed: its plugin is in quarantine, and no handler was run */
};
/* All that the handlers did is added to run->ws, or nothing, where one of them failed: false, and run->error. What filters remember from now on is added
 * in either case, unless the reading cannot even be matched. */
bool np_rule_run(struct np_rule_run *run);
/* The same for all handlers. False: *error, the caller's, says why. */
bool np_rule_reading(struct np_instance *in, const struct np_reading *reading, struct np_overlay *overlay, struct np_writeset *ws,
                     char **error);
/* The numbers (uint32_t) of the handlers that fire are added to fired; what filters remember, to run->ws. -1 and err where the store cannot be
 * read. Enters no Lua. rule_match.c */
int np_rule_match(struct np_rule_run *run, struct np_buf *fired, struct np_error *err);
/* The world of a handler's filter: what the router's looks at. `on` is the code's; keep changes run->ws. Borrowed, as long as *w is used. */
struct np_rule_world {
  struct np_filter_world world;
  struct np_rule_run *run;
  const struct np_on *on;
};
void np_rule_world(struct np_rule_world *w, struct np_rule_run *run, const struct np_on *on);
/* The timer of that name, NULL where the code has none. */
const struct np_timer_decl *np_rule_timer(const struct np_code *code, const char *name);

/* A copy whose strings belong to ws. */
struct np_reading np_reading_copy(struct np_writeset *ws, const struct np_reading *from);

#endif
