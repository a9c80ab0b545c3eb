/* Whether a Lua pattern is well formed, told before it meets a value: lstrlib.c notices only what its matching happens to reach.
 * Used by schema*.c alone. */
#ifndef NP_HOST_SCHEMA_PATTERN_H
#define NP_HOST_SCHEMA_PATTERN_H

#include <stdbool.h>

/* NULL, or what is wrong with it ("ends with %"). *anchored: its last item is the $ that stands for the end. */
const char *np_pattern_check(const char *pattern, bool *anchored);

#endif
