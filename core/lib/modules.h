/* The modules that plugins can require: one file each, one luaopen each. */
#ifndef NP_LIB_MODULES_H
#define NP_LIB_MODULES_H

#include <stdbool.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/log.h"

int luaopen_neap_crypto(lua_State *L);
int luaopen_neap_json(lua_State *L);
int luaopen_neap_time(lua_State *L);
int luaopen_neap_webhooks(lua_State *L);

/* Those that need no host around them: name and opener, ended by NULL. */
extern const luaL_Reg np_modules_pure[];

/* Writes a line of the log: its text is at the index `at`, its fields stand behind that. They are what the caller itself was given, and what is wrong
 * with them raises. False where the level or limits.log leaves the line out. log.c */
bool np_log_line(lua_State *L, int at, enum np_log_level level);

#endif
