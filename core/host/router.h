/* The router of one lane: runs rules over committed readings, each partition in order, its cursor committed with what the rules did. A reading that is
 * quiet is passed over, in its turn.
 * Lane's thread. */
#ifndef NP_HOST_ROUTER_H
#define NP_HOST_ROUTER_H

#include "host/lane.h"

struct np_router *np_router_new(struct np_lane *lane, struct np_error *err);                           /* reads the cursors */
void np_router_reading(struct np_router *r, struct np_writeset *ws, const struct np_reading *reading); /* takes its own reference */
void np_router_seen(struct np_router *r, int64_t seq); /* every reading up to seq that is this lane's has been given */
void np_router_run(struct np_router *r);               /* after a batch of readings was given */
void np_router_rescan(struct np_router *r);            /* a notice was lost, or the host has just started */
void np_router_adopt(struct np_router *r);             /* runs held entries of rules whose instance is new */
void np_router_take_up(struct np_router *r, struct np_instance *in); /* its quarantine is over: runs what was held for it */
void np_router_drain(struct np_router *r);                           /* starts nothing more, commits cursors */
bool np_router_idle(const struct np_router *r);
void np_router_free(struct np_router *r);

#endif
