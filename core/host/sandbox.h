/* What a plugin can reach. */
#ifndef NP_HOST_SANDBOX_H
#define NP_HOST_SANDBOX_H

#include <lua.h>

/* Opens it in a fresh state. `library` is called by require with a name that is no module of neap's and returns its value. Raises out of memory. */
void np_sandbox_open(lua_State *L, lua_CFunction library, lua_CFunction print);

/* Compiles text, never a binary chunk, as luaL_loadbufferx does; on the call's budget, for a text can be made that takes minutes. */
int np_sandbox_load(lua_State *L, const char *text, size_t len, const char *name);

#endif
