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
  const char *key; /* of a timer */
  bool ok;
  char *error; /* owned */
};
void np_rule_call(struct np_instance *in, int handler, struct np_overlay *overlay, struct np_writeset *ws, int64_t now,
                  struct np_rule_call *c);

/* All handlers of one rule on one reading: all of what they did is added to ws, or nothing. False where one failed: *error, the caller's, says why. */
bool np_rule_reading(struct np_instance *in, const struct np_reading *reading, struct np_overlay *overlay, struct np_writeset *ws,
                     char **error);
/* The timer of that name, NULL where the code has none. */
const struct np_timer_decl *np_rule_timer(const struct np_code *code, const char *name);

/* A copy whose strings belong to ws. */
struct np_reading np_reading_copy(struct np_writeset *ws, const struct np_reading *from);

#endif
