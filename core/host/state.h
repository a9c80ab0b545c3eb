/* State: what an instance keeps in the store is at a version, which its plugin's migrations bring up to what its code expects (plugin:migrate).
 * The version is a key of the store. Every write set of a call that reads or writes what its instance keeps has seen that key as it was when its
 * generation was built: so what a generation does that began before a migration conflicts after it, and its handler is run again, by the
 * generation then in force. While migrations run (host->migrating), such a handler waits a little before it is. */
#ifndef NP_HOST_STATE_H
#define NP_HOST_STATE_H

#include "host/plugin.h"
#include "store/store.h"

struct np_host;
struct np_lane;
struct np_overlay;

#define NP_STATE_SPACE "neap.state" /* of the store: instance -> its version */
#define NP_STATE_WAIT 5             /* ms until it is looked whether a migration is over */

struct np_state {
  int version; /* 0: it has none noted, which is 1 where a generation of it has been in force */
  int64_t row; /* the key's version in the store */
};
int np_state_read(struct np_reader *r, const char *instance, struct np_state *s, struct np_error *err);

int np_code_version(const struct np_code *c); /* what its migrations lead to; 1 without any */
/* Whether code can be in force on state of that version, perhaps after its migrations: -1 and err where not. */
int np_state_fits(const struct np_code *c, int version, struct np_error *err);

/* Adds to ws that the state is at `version`. What has seen it before conflicts from then on, also where the version is the same. */
void np_state_put(struct np_writeset *ws, const char *instance, int version);
/* Runs, in `in`, which no lane has, what brings state from `version` to the code's, and adds what it does to ws. Raises nothing: -1 and err with file and line. */
int np_state_migrate(struct np_host *host, struct np_reader *reader, struct np_instance *in, int version, struct np_writeset *ws,
                     struct np_error *err);

/* A call of this code has read or written what its instance keeps: its set conflicts where that has been migrated since. */
void np_state_see(const struct np_code *c, struct np_writeset *ws, struct np_overlay *overlay);
bool np_state_seen(const struct np_code *c, const struct np_overlay *overlay);

/* On a lane: the instance in force in place of `in`, where state was migrated since `in` was built; else `in` itself. */
struct np_instance *np_state_successor(struct np_lane *lane, struct np_instance *in);
bool np_state_is_migrating(const struct np_lane *lane);
/* A call in `in` has failed, or declined, that has seen what is, or is being, migrated: that may be why, so it runs again. */
bool np_state_excuses(struct np_lane *lane, struct np_instance *in, const struct np_overlay *overlay);

#endif
