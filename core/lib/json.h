/* JSON without loss, on lua-cjson (RFC 8259). Integers stay integers of 64 bits, floats come back to the last bit, an empty array stays [],
 * null is json.null, strings are UTF-8 and kept byte for byte. */
#ifndef NP_LIB_JSON_H
#define NP_LIB_JSON_H

#include <lua.h>

#include "base/buf.h"
#include "base/error.h"

/* Pushes the value and returns 0; or pushes nothing, returns -1 and err says where: "not JSON: …, at byte 17". Raises only out of memory. */
int np_json_decode(lua_State *L, const char *text, size_t len, struct np_error *err);
/* Pushes the text of the value at idx as a string and returns 0; or -1 and err ("cannot be JSON: a function at .a.b"). */
int np_json_encode(lua_State *L, int idx, struct np_error *err);
/* Pushes json.null / tells whether the value at idx is it. */
void np_json_push_null(lua_State *L);
int np_json_is_null(lua_State *L, int idx);
/* Marks the table at idx as an array, so that it is [] when empty. */
void np_json_mark_array(lua_State *L, int idx);
/* 1: an array (marked, or a sequence from 1 that is not empty), 0: an object (also an empty table without a mark). */
int np_json_is_array(lua_State *L, int idx);

#endif
