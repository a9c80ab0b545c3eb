/* Rows of the store as tables, for plugins and their tests. Those that push put one on the stack, those that set give a field to the table on top of it, where
 * there is anything. All raise out of memory, and for JSON that is none. */
#ifndef NP_HOST_ROWS_H
#define NP_HOST_ROWS_H

#include <lua.h>

#include "store/store.h"

void np_set_text(lua_State *L, const char *field, const struct np_text *t);
void np_set_integer(lua_State *L, const char *field, int64_t i);
void np_set_json(lua_State *L, const char *field, const struct np_text *t);
void np_push_device(lua_State *L, const struct np_device *d);
void np_push_event(lua_State *L, const struct np_event *e);

#endif
