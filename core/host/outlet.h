/* The outlet to a destination, which all lanes share: how many deliveries may be under way, how often one may begin, and whether it is worth trying.
 *
 * CLOSED is the normal state of its circuit. After 8 failures in a row, of whatever device, it is OPEN: nothing is sent until a moment, which is farther off
 * each time (a second to a minute). Then it is HALF OPEN: one delivery probes, and if it arrives all goes on. A destination that asks for a pause (Retry-After)
 * gets it. Outlets live in the broker and are guarded by its lock; what is to be tried when is the couriers'. */
#ifndef NP_HOST_OUTLET_H
#define NP_HOST_OUTLET_H

#include <stdbool.h>
#include <stdint.h>

#include "host/delivery.h"

struct np_broker;
struct np_outlet;

enum np_circuit { NP_CIRCUIT_CLOSED, NP_CIRCUIT_OPEN, NP_CIRCUIT_HALF_OPEN };
extern const char *const np_circuit_names[3]; /* "closed" "open" "half open" */

/* The one of that name; as long as the broker. Any thread. */
struct np_outlet *np_outlet_get(struct np_broker *b, const char *destination);

/* The rest is a lane's, on its thread. */

/* The lane has adopted this code of the destination: its terms count, and it is trusted anew. What the code before has under way says nothing against it. */
void np_outlet_adopt(struct np_outlet *o, const struct np_lane *lane, const struct np_code *code);

enum np_pass {
  NP_PASS_GO,    /* a delivery may begin; it ends by np_outlet_leave or np_outlet_cancel */
  NP_PASS_PROBE, /* the same: it is the one that probes */
  NP_PASS_LATER, /* ask again in *ms */
  NP_PASS_TOLD,  /* the lane's courier is woken when it may ask again */
};
/* replayed: for messages of a replay, which stand behind the live ones of every lane, and leave them the last place where there is more than one. */
enum np_pass np_outlet_enter(struct np_outlet *o, const struct np_lane *lane, bool replayed, int64_t *ms);
void np_outlet_cancel(struct np_outlet *o, const struct np_lane *lane, bool probe); /* there was nothing to deliver */
/* The handler has ended, its outcome is decided. */
void np_outlet_leave(struct np_outlet *o, const struct np_lane *lane, bool probe, const struct np_delivery *d);
/* The lane has nothing more to deliver: others have its place. */
void np_outlet_forgo(struct np_outlet *o, const struct np_lane *lane);
/* ms until a delivery may probe, 0: now; -1: the circuit is closed, or somebody probes. */
int64_t np_outlet_opens_in(struct np_outlet *o);
/* Goes up each time that the circuit has closed again: what waits for its next try is tried then. */
unsigned np_outlet_recoveries(const struct np_outlet *o);

struct np_outlet_view {
  enum np_circuit circuit;
  int failures, flying;
  int64_t since;      /* ms: since when it fails; 0: it does not */
  int64_t next_probe; /* ms; 0 where none waits */
  int64_t paused;     /* ms: until when it asked to be left alone; 0: it did not */
  int64_t last_done;  /* ms: when something last arrived; 0: not since the start */
  char error[200];    /* of the last failure, masked; "" */
};
struct np_outlet_view np_outlet_look(struct np_broker *b, const char *destination); /* any thread */

void np_outlets_free(struct np_broker *b);

#endif
