/* Where a plugin's own text stands on a Lua stack: what an error is to point its author at. */
#ifndef NP_HOST_PLACE_H
#define NP_HOST_PLACE_H

#include <stdbool.h>

#include <lua.h>

/* The chunk that host.lua is loaded as. */
#define NP_PRELUDE "=neap"
#define NP_PLACE_MAX (LUA_IDSIZE + 16)

/* Whether a frame that was asked for "Sl" is one of a plugin's text: neither C nor the prelude. */
bool np_place_is_own(const lua_Debug *ar);
/* "vendors/x.lua:12: " of the innermost such frame, or "". Allocates nothing. */
void np_place(lua_State *L, char to[NP_PLACE_MAX]);
/* luaL_error for what the prelude calls, or require: names that place, where luaL_error would name the prelude's own line. */
int np_place_raise(lua_State *L, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
