/* What the host says to neap.time. */
#ifndef NP_LIB_TIME_H
#define NP_LIB_TIME_H

#include <stdint.h>

#include <lua.h>

/* Where time.now() of this state looks: what stands there (ms since 1970 UTC) is "now", 0 is the real clock. The pointer is good until the
 * state is closed; the state's thread writes it directly. Raises only out of memory, the first time. */
int64_t *np_time_now_slot(lua_State *L);
void np_time_set_now(lua_State *L, int64_t ms);

#endif
