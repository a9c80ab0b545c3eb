/* plugin.data: what a vendor's calls read from the store. Each query sees what is committed, and only what this connection and those that its
 * configuration shows it (`shows`) have written. */
#ifndef NP_HOST_DATA_H
#define NP_HOST_DATA_H

#include <lua.h>

#include "host/plugin.h"
#include "store/store.h"

/* Pushes the table of methods. */
int np_data_open(lua_State *L);
/* What the instance that runs now may see. Borrowed from its code. */
struct np_scope np_data_scope(lua_State *L);
bool np_data_sees(const struct np_code *code, const char *connection);

#endif
