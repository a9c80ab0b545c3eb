/* A call out of a plugin, whatever it speaks: it takes its turn among those that are open of its instance (limits.calls), and waits for its answer. Part of
 * the userdata of http's, smtp's and mqtt's calls. The lane's thread. */
#ifndef NP_LIB_OUTGOING_H
#define NP_LIB_OUTGOING_H

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "lib/env.h"

struct np_outgoing {
  struct np_env *env;   /* borrowed */
  const char *who;      /* static: "http" */
  struct np_turn *turn; /* owned: its place among the open calls, or in their queue */
  void *ticket;         /* of the host, for wake */
  int64_t queued;       /* us on the monotonic clock, when it began to wait for its turn; 0: it had it at once */
  double timeout;       /* seconds for all of it */
};

/* At the start, after env and who are set. True: np_outgoing_seconds may be asked at once; false: after np_outgoing_wait. */
bool np_outgoing_begin(struct np_outgoing *o, double timeout);
/* Seconds that are left for the call, and NULL; or pushes why it cannot be made, and gives the code: "limit" where no other one has ended in time,
 * "timeout". */
const char *np_outgoing_seconds(lua_State *L, struct np_outgoing *o, double *seconds);
/* Yields until the turn has come, or until somebody wakes the ticket; then goes on in `then`, with the context. */
int np_outgoing_wait(lua_State *L, struct np_outgoing *o, lua_KContext context, lua_KFunction then);
/* Gives its place to the next one. It may be called again, and where nothing has begun. */
void np_outgoing_end(struct np_outgoing *o);

#endif
