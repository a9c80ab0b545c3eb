/* The list of modules that need no host; what those that need one have in common. */
#include "lib/modules.h"

#include <lauxlib.h>

#include "lib/env.h"
#include "lib/spend.h"

struct np_spending np_spending;

const luaL_Reg np_modules_pure[] = {
    {"neap.crypto", luaopen_neap_crypto},
    {"neap.json", luaopen_neap_json},
    {"neap.time", luaopen_neap_time},
    {"neap.webhooks", luaopen_neap_webhooks},
    {NULL, NULL},
};

void np_env_may_wait(lua_State *L, struct np_env *env, const char *who, bool there) {
  const char *why = env->forbidden(env, L, who);
  if (why) luaL_error(L, "%s: %s", who, why);
  if (!there) luaL_error(L, "%s: not while the file is loaded", who);
  if (!lua_isyieldable(L))
    luaL_error(L, "%s: not inside a function that C code calls, such as the order given to table.sort: it has to wait", who);
}

struct np_env *np_env_waits(lua_State *L, const char *who) {
  struct np_env *env = np_spending.spend ? np_env(L) : NULL; /* a bare lua_State has none */
  return env && env->base && lua_isyieldable(L) && !env->forbidden(env, L, who) ? env : NULL;
}
