/* Requests: from the server's callbacks through a plugin's handler and the keeper to the answer. Lane's thread. */
#ifndef NP_HOST_WEB_H
#define NP_HOST_WEB_H

#include "host/lane.h"
#include "io/serve.h"

extern const struct np_server_handler np_web; /* its arg is the struct np_lane */

/* A request of the inbox that had failed, run again by the generation in force, with its own time as the present; what becomes of it is committed
 * with what the handler does, on the request's row. Where it fails again the row stays. `over` is called once, later or at once: outcome is "done"
 * "refused" "failed", or "gone" where the row is no longer a failed one; error says why, or is NULL. req belongs to the caller and lives until then. */
struct np_replay {
  struct np_request req;
  const char *connection; /* whose it is: no other one is given it, whichever serves its path now */
  int64_t id;             /* in the inbox */
  void (*over)(struct np_replay *r, const char *outcome, const char *error);
  void *web; /* web.c's */
};
/* -1 where its connection does not take it now. */
int np_web_replay(struct np_lane *lane, struct np_replay *r);
void np_web_replay_stop(struct np_replay *r); /* the lane is being closed: nothing is called */

#endif
