/* Tags of devices: words that vendors and operators give them, for rules to match. In the store they stand sorted, a line each. */
#ifndef NP_HOST_TAGS_H
#define NP_HOST_TAGS_H

#include <lua.h>

#include "base/buf.h"
#include "base/error.h"
#include "store/writeset.h"

#define NP_TAGS_MOST 64 /* of one device, from its vendor; and from operators */

/* 0, or -1 and err: "a tag is 1 to 64 bytes without spaces, commas, control characters or `*`, and does not begin with + or -; got \"a b\"". */
int np_tag_check(const char *tag, size_t len, struct np_error *err);
/* The tag that begins at *at, and moves *at past it; false at the end. Start with *at = 0. */
bool np_tags_next(struct np_text tags, size_t *at, struct np_text *tag);
size_t np_tags_count(struct np_text tags);
bool np_tags_have(struct np_text tags, const char *tag, size_t len);
void np_tags_add_json(struct np_buf *b, struct np_text tags); /* as an array of strings */
/* The list at the top of the stack, of plugin:device: its text belongs to ws. Raises. */
struct np_text np_tags_field(lua_State *L, struct np_writeset *ws);

#endif
