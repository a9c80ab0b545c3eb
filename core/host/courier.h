/* The courier of one lane: takes committed messages to their destinations, in order for each destination and device, and again
 * until they have arrived. Holds no messages in memory but those under way: the outbox in the store is the queue. Lane's thread. */
#ifndef NP_HOST_COURIER_H
#define NP_HOST_COURIER_H

#include "host/lane.h"

struct np_courier *np_courier_new(struct np_lane *lane);
/* A committed message of this lane's partitions (np_partition of its device). */
void np_courier_message(struct np_courier *c, const struct np_message *m);
/* A dead letter of that device is to be tried again, as committed. */
void np_courier_retry(struct np_courier *c, const char *destination, const char *device, size_t len);
/* An outlet has changed (host/outlet.h). */
void np_courier_wake(struct np_courier *c);
/* A notice was lost, or the host has just started: finds all pending messages in the store. */
void np_courier_rescan(struct np_courier *c);
/* The lane has adopted a new epoch: destinations whose instance is new are tried at once; those not in force wait. */
void np_courier_adopt(struct np_courier *c);
/* Starts nothing more; what is under way ends by itself. */
void np_courier_drain(struct np_courier *c);
void np_courier_free(struct np_courier *c); /* nothing is under way */

#endif
