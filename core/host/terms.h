/* The terms of a delivery: how a destination is to be sent to. Its plugin states them in plugin:deliver, and neap.lua's entry has the last word by
 * `delivery`. */
#ifndef NP_HOST_TERMS_H
#define NP_HOST_TERMS_H

#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "base/error.h"
#include "store/writeset.h"

struct np_terms {
  int batch;          /* messages that go together at the most */
  size_t batch_bytes; /* and bytes of their bodies; one message may have more. 0: no bound */
  int64_t batch_wait; /* ms that a message may wait for others to fill its batch */
  int concurrency;    /* deliveries at once, of all lanes together */
  int rate;           /* deliveries begun within `period`, of all lanes together; 0: no bound */
  int64_t period;     /* ms */
  int64_t retry_for;  /* ms after which an undelivered message is a dead letter */
  int64_t backoff;    /* ms from one try to the next at the most */
  int64_t expires;    /* ms of a message's life, where it says nothing itself; 0: it does not expire */
  char **redact;      /* owned: members of bodies whose values are shown to nobody: "name", "patient.name" */
  size_t redact_count;
};

struct np_terms np_terms_default(void);
/* Takes what the table at idx states into t. -1 and err: "batch: expected a whole number from 1 to 1000, got 0". Leaves the stack as it was. */
int np_terms_read(lua_State *L, int idx, struct np_terms *t, struct np_error *err);
/* -1 and err where one of the table's names is none of the terms. */
int np_terms_known(lua_State *L, int idx, struct np_error *err);
void np_terms_free(struct np_terms *t);

/* ms when the message is no longer worth anything; INT64_MAX: never. */
int64_t np_terms_expiry(const struct np_terms *t, const struct np_message *m);

#endif
