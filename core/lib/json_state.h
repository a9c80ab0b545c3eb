/* What one lua_State keeps for JSON: made when it is first needed, kept in the registry. Only json*.c includes this. */
#ifndef NP_LIB_JSON_STATE_H
#define NP_LIB_JSON_STATE_H

#include <stdbool.h>

#include <lua.h>

#include "base/buf.h"

#define NP_JSON_MAX_TEXT (16u << 20) /* bytes that encode writes at most, about */

/* User values of the userdata that is the state. */
enum np_json_slot {
  NP_JSON_CJSON_DECODE = 1,
  NP_JSON_CJSON_ENCODE,
  NP_JSON_CJSON_KEEP,
  NP_JSON_ARRAY_META,
  NP_JSON_SLOTS = NP_JSON_ARRAY_META
};

struct np_json_scratch {
  struct np_buf fixes; /* struct fix, in the order in which cjson writes the values */
  struct np_buf texts; /* what the fixes put in */
  struct np_buf out;
};

struct np_json_state {
  struct np_json_scratch scratch; /* owned; freed by the userdata's __gc */
  bool busy;                      /* an encode uses the scratch; a finalizer that encodes meanwhile takes one of its own */
  const void *array_meta;         /* identity of the metatable of arrays */
};

/* Pushes the userdata. Raises only out of memory. */
struct np_json_state *np_json_state_push(lua_State *L);
/* Pushes a userdata that owns a fresh state, for its scratch. */
struct np_json_state *np_json_state_new(lua_State *L);
/* The text of the json.raw at idx, borrowed from it, or NULL. */
const char *np_json_raw(lua_State *L, int idx, size_t *len);
void np_json_scratch_free(struct np_json_scratch *s);

#endif
