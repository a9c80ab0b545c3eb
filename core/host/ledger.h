/* The verbs that act: emit, device, event, send, arm, throttle, debounce, history, window, store. Each adds to the write set of the call that runs now, or looks. */
#ifndef NP_HOST_LEDGER_H
#define NP_HOST_LEDGER_H

#include <stdbool.h>

#include <lua.h>

#include "base/map.h"
#include "store/writeset.h"

/* What a write set has put and seen under each key, so that a handler reads what it wrote. Belongs to whoever builds the set. */
struct np_overlay {
  struct np_map puts;    /* space 0 key -> struct np_op of the newest PUT, borrowed from the set */
  struct np_map seen;    /* space 0 key -> struct np_op of the SEEN */
  struct np_map derived; /* vendor 0 device 0 metric 0 key -> struct np_op of a derived READING whose key was made for it */
  /* Of a run over the past: below what it has put there is nothing, for what the store has was put there later; and readings after `newest` (seq) were
   * not there yet. */
  bool past;
  int64_t newest;
};
void np_overlay_free(struct np_overlay *o);
/* After np_writeset_undo: forgets what is no longer in the set. */
void np_overlay_rebuild(struct np_overlay *o, const struct np_writeset *ws);

/* Pushes what host.lua is called with: `verbs`, which the handle has as they are, store and people. */
int np_ledger_open(lua_State *L);
/* Reads the table at idx into r, as plugin:emit does: its texts are of the set. Returns what it says of what may be left out. Raises. vendor,
 * connection, received and partition are the caller's; of a rule's (derived) the device may be absent, and the vendor may be there. */
enum { NP_SAYS_AT = 1, NP_SAYS_QUALITY = 2 };
unsigned np_take_reading(lua_State *L, int idx, struct np_writeset *ws, struct np_reading *r, bool derived);
/* A new message's id, which is of the set. */
struct np_text np_message_id(struct np_writeset *ws);
/* Reads the table at idx into op->as.device, as plugin:device does; at and online keep what they are where it says nothing. Raises. */
void np_take_device(lua_State *L, int idx, struct np_writeset *ws, struct np_op *op);
/* Pushes a reading as plugins see it. */
void np_push_reading(lua_State *L, const struct np_reading *r);

#endif
