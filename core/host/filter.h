/* Which readings a rule's handler is for: matched in C, before Lua is entered. */
#ifndef NP_HOST_FILTER_H
#define NP_HOST_FILTER_H

#include <stdbool.h>

#include <lua.h>

#include "base/error.h"
#include "store/writeset.h"

struct np_filter; /* immutable once compiled */

/* From a table { device =, metric =, vendor =, connection =, unit =, quality =, below =, above =, changed = true }. Strings
 * may hold `*` (any run of characters); a list of strings matches any of them. below and above are strict and match numbers only; both must hold where both stand.
 * NULL and err: "filter: unknown field \"metrik\", did you mean \"metric\"?". Raises only out of memory. */
struct np_filter *np_filter_compile(lua_State *L, int idx, struct np_error *err);
void np_filter_free(struct np_filter *f);
/* Everything but `changed`, which needs history. */
bool np_filter_match(const struct np_filter *f, const struct np_reading *r);
bool np_filter_wants_change(const struct np_filter *f);
/* Shell-like matching with `*` alone; linear time. */
bool np_glob_match(const char *pattern, size_t pattern_len, const char *text, size_t len);

#endif
