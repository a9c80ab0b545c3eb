/* What the sandbox puts in the place of Lua's own functions, because those can take for ever where no hook sees it. Private to it. */
#ifndef NP_HOST_SANDBOX_PARTS_H
#define NP_HOST_SANDBOX_PARTS_H

#include <lua.h>

int np_sandbox_load_verb(lua_State *L);
void np_sandbox_coroutines(lua_State *L); /* coroutine.*, xpcall */
void np_sandbox_patterns(lua_State *L);   /* string.find, match, gmatch, gsub, rep */
void np_sandbox_tables(lua_State *L);     /* table.move, insert, remove, concat, unpack, sort */

#endif
