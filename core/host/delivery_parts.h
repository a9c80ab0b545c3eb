/* A delivery's handler: private to the delivery. */
#ifndef NP_HOST_DELIVERY_PARTS_H
#define NP_HOST_DELIVERY_PARTS_H

#include "host/delivery.h"

int np_delivery_push(lua_State *L, struct np_task *t);         /* the messages, and the settings */
void np_delivery_take(lua_State *L, struct np_task *t, int n); /* its results become d->all or d->each */
/* Masks what is to be kept, while what the call masks is set; gives all of it back. delivery_exchange.c */
void np_exchange_keep(struct np_exchange *x, const struct np_terms *terms);
void np_exchange_forget(struct np_exchange *x);

#endif
