/* What a plugin can reach: the whole list stands here. No io, os, debug, package; no binary chunks; no finalizers, for they would run
 * outside every budget; require finds neap's modules and plugins/lib alone. */
#include "host/sandbox.h"

#include <pthread.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "host/sandbox_parts.h"
#include "host/task.h"
#include "lib/modules.h"
#include "lib/spend.h"

int luaopen_neap_file(lua_State *L);
int luaopen_neap_http(lua_State *L);
int luaopen_neap_log(lua_State *L);
int luaopen_neap_mqtt(lua_State *L);
int luaopen_neap_smtp(lua_State *L);

static const luaL_Reg host_modules[] = {{"neap.file", luaopen_neap_file}, {"neap.http", luaopen_neap_http},
                                        {"neap.log", luaopen_neap_log},   {"neap.mqtt", luaopen_neap_mqtt},
                                        {"neap.smtp", luaopen_neap_smtp}, {NULL, NULL}};

static int setmetatable_without_gc(lua_State *L) {
  int type = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "cannot change a protected metatable");
  if (type == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL)
      return luaL_error(L, "setmetatable: a plugin has no __gc, for it would run outside of every budget; use <close> variables");
  }
  lua_settop(L, 2);
  lua_setmetatable(L, 1);
  return 1;
}

static int memory_in_use(lua_State *L) {
  static const char *const options[] = {"count", NULL};
  luaL_checkoption(L, 1, "count", options);
  lua_pushnumber(L, lua_gc(L, LUA_GCCOUNT) + lua_gc(L, LUA_GCCOUNTB) / 1024.0);
  return 1;
}

static const luaL_Reg *find_module(const luaL_Reg *list, const char *name) {
  while (list->name && strcmp(list->name, name) != 0) list++;
  return list->name ? list : NULL;
}

static int require_module(lua_State *L) {
  size_t len;
  const char *name = luaL_checklstring(L, 1, &len);
  luaL_argcheck(L, strlen(name) == len, 1, "a name has no zero byte");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, 2, name) != LUA_TNIL) return 1;
  lua_pop(L, 1);
  const luaL_Reg *m = find_module(np_modules_pure, name);
  if (!m) m = find_module(host_modules, name);
  if (m) {
    lua_pushcfunction(L, m->func);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
  } else if (strncmp(name, "neap.", 5) == 0) {
    return luaL_error(L,
                      "no module \"%s\"; there are neap.crypto, neap.file, neap.http, neap.json, neap.log, neap.mqtt, neap.smtp, "
                      "neap.time, neap.webhooks",
                      name);
  } else {
    lua_pushvalue(L, lua_upvalueindex(1)); /* loads from plugins/lib */
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushboolean(L, 1);
    }
  }
  lua_pushvalue(L, -1);
  lua_setfield(L, 2, name);
  return 1;
}

static void remove_global(lua_State *L, const char *name) {
  lua_pushnil(L);
  lua_setglobal(L, name);
}

static void lend_spending(void) { np_spending = (struct np_spending){np_task_spend_if_inside, np_task_goes_on}; }

void np_sandbox_open(lua_State *L, lua_CFunction library, lua_CFunction print) {
  static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},
                                       {LUA_COLIBNAME, luaopen_coroutine},
                                       {LUA_TABLIBNAME, luaopen_table},
                                       {LUA_STRLIBNAME, luaopen_string},
                                       {LUA_MATHLIBNAME, luaopen_math},
                                       {LUA_UTF8LIBNAME, luaopen_utf8},
                                       {NULL, NULL}};
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, lend_spending); /* lanes read it while others are opened */
  for (const luaL_Reg *l = libraries; l->name; l++) {
    luaL_requiref(L, l->name, l->func, 1);
    lua_pop(L, 1);
  }
  lua_pushcfunction(L, np_sandbox_load_verb);
  lua_setglobal(L, "load");
  lua_pushcfunction(L, setmetatable_without_gc);
  lua_setglobal(L, "setmetatable");
  lua_pushcfunction(L, memory_in_use);
  lua_setglobal(L, "collectgarbage");
  np_sandbox_coroutines(L);
  np_sandbox_patterns(L);
  np_sandbox_tables(L);
  remove_global(L, "warn"); /* it would say nothing */
  remove_global(L, "dofile");
  remove_global(L, "loadfile");
  lua_getglobal(L, "string");
  lua_pushnil(L);
  lua_setfield(L, -2, "dump");
  lua_pop(L, 1);
  lua_pushcfunction(L, print);
  lua_setglobal(L, "print");
  lua_pushcfunction(L, library);
  lua_pushcclosure(L, require_module, 1);
  lua_setglobal(L, "require");
}
