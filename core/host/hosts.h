/* Which hosts a plugin may call: those that its settings name in a URL. */
#ifndef NP_HOST_HOSTS_H
#define NP_HOST_HOSTS_H

#include <lua.h>

#include "host/plugin.h"

/* Adds the host and port of each URL that modules call (http, mqtt, smtp, each also with TLS) among the strings of the table at idx, however deep, to the code, where `add`. */
void np_hosts_collect(lua_State *L, int idx, struct np_code *code, bool add);
bool np_hosts_may_reach(struct np_env *env, const char *url);
/* Whether the setting `folder`, as it stands in neap.lua, is this folder. A default, which the plugin's author wrote, does not count. May raise. */
bool np_hosts_may_write(struct np_env *env, lua_State *L, const char *folder);

#endif
