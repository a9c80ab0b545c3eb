/* JSON with sorted keys, so that equal values are equal text. */
#ifndef NP_HOST_CANONICAL_H
#define NP_HOST_CANONICAL_H

#include <lua.h>

#include "base/buf.h"
#include "base/error.h"

/* Appends the value at the top of the stack, which was decoded from JSON. Raises only out of memory or stack. */
void np_canonical_add(lua_State *L, struct np_buf *out);

/* Appends a JSON text so written. -1 and err where it is none. */
int np_canonical_text(lua_State *L, const char *json, size_t len, struct np_buf *out, struct np_error *err);

struct np_canonical_key {
  const char *text;
  size_t len;
};
/* Pushes an array of the string keys of the table at idx, in byte order. They are borrowed from the table. */
struct np_canonical_key *np_canonical_keys(lua_State *L, int idx, size_t *count);

#endif
