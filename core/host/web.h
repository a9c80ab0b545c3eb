/* Requests: from the server's callbacks through a plugin's handler and the keeper to the answer. Lane's thread. */
#ifndef NP_HOST_WEB_H
#define NP_HOST_WEB_H

#include "host/lane.h"
#include "io/serve.h"

extern const struct np_server_handler np_web; /* its arg is the struct np_lane */

/* A request of the inbox, run again by the generation in force, with its own time as the present; what becomes of it is committed with what the handler does,
 * on the request's row, or, where it is dry, nowhere. Where it fails the row stays. `over` is called once, later or at once: outcome is "done" "refused"
 * "failed", "gone" where the request is, or was run again by somebody else meanwhile, "unstored" where the store could not, or "busy" where it has no room just
 * now; error says why, or is NULL. req belongs to the caller and lives until then. */
struct np_replay {
  struct np_request req;
  const char *connection; /* whose it is: no other one is given it, whichever serves its path now */
  int64_t id;             /* in the inbox */
  int runs;               /* how often it was run again, when it was read */
  bool dry;
  bool quiet; /* what it gives is stored without rules being run on it */
  /* For `over`, where it is done or refused. */
  int status;                    /* what it would be answered */
  size_t readings, fresh;        /* that the handler emitted; that were new: 0 where it is dry */
  const struct np_writeset *set; /* borrowed during the call: of a dry one, what would be committed */
  void (*over)(struct np_replay *r, const char *outcome, const char *error);
  void *web; /* web.c's */
};
/* -1 where its connection does not take it now. */
int np_web_replay(struct np_lane *lane, struct np_replay *r);
void np_web_replay_stop(struct np_replay *r); /* the lane is being closed: nothing is called */

#endif
