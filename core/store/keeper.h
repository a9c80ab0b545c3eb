/* The keeper: the one thread that writes. It takes all write sets that wait, applies them in one transaction, commits, and
 * answers all: one fsync serves hundreds of requests. */
#ifndef NP_STORE_KEEPER_H
#define NP_STORE_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "store/store.h"

struct np_keeper;

struct np_keeper_options {
  size_t bound; /* write sets that may wait, of at most 256 MiB together; 0 is 4096 */
  size_t batch; /* at most so many in one transaction; 0 is 1024 */
  struct np_keep keep[NP_KEPT_KINDS];
  /* Told, on the keeper's thread, of the sets of one commit that were NP_COMMITTED, in order, before they are answered: whoever
   * follows commits takes its own references and returns soon. */
  void (*committed)(void *arg, struct np_writeset *const *sets, size_t n);
  void *arg;
  bool here; /* a test's: no thread; who hands a set over commits it, and all that is called is called on its thread */
};

/* Takes over the store. */
struct np_keeper *np_keeper_start(struct np_store *store, const struct np_keeper_options *options, struct np_error *err);
/* Hands a set over (one reference goes with it). -1 where the bound is reached or the keeper is stopping: it is still the caller's. Any thread. */
int np_keeper_submit(struct np_keeper *k, struct np_writeset *ws);
/* The same past the bound: for the consequences of what was taken in already (rules, deliveries). -1 only when stopping. Any thread. */
int np_keeper_force(struct np_keeper *k, struct np_writeset *ws);
/* Submits and waits for the outcome; the reference is used up. Not from a lane, whose loop it would stop. Any other thread. */
enum np_outcome np_keeper_apply(struct np_keeper *k, struct np_writeset *ws, struct np_error *err);
size_t np_keeper_waiting(struct np_keeper *k);
int np_keeper_full(struct np_keeper *k); /* 1 where a submit would be refused now. Any thread. */
/* Commits what waits, stops the thread, closes the store. */
void np_keeper_stop(struct np_keeper *k);

#endif
