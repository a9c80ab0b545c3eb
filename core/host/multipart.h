/* Bodies of multipart/form-data (RFC 7578): what HTML forms with files, and some clients for every form, send. */
#ifndef NP_HOST_MULTIPART_H
#define NP_HOST_MULTIPART_H

#include <lua.h>

#include "base/error.h"

/* Pushes a table of the fields: name -> text, byte for byte; of a name that comes again, the first value stands. `type` is the content type,
 * which names the boundary. -1 and why, and nothing pushed, where the body is none. May raise out of memory. */
int np_multipart_push(lua_State *L, const char *type, const char *body, size_t len, struct np_error *err);

#endif
