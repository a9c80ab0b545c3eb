/* Lua patterns in declarations. Used by schema*.c alone. */
#ifndef NP_HOST_SCHEMA_PATTERN_H
#define NP_HOST_SCHEMA_PATTERN_H

#include <stdbool.h>

#include <lua.h>

/* Whether a pattern is well formed, told before it meets a value: lstrlib.c notices only what its matching happens to reach.
 * NULL, or what is wrong ("ends with %"). *anchored: its last item is the $ that stands for the end. */
const char *np_pattern_check(const char *pattern, bool *anchored);

enum np_pattern_outcome {
  NP_PATTERN_FITS,
  NP_PATTERN_DIFFERS,
  NP_PATTERN_COMPLEX, /* lstrlib.c gave up on it */
  NP_PATTERN_UNABLE,  /* the string library has no match, or a plugin's own */
};
/* Matches the string at the top of the stack against a pattern that is anchored at both ends. Raises nothing but out of memory. */
enum np_pattern_outcome np_pattern_match(lua_State *L, const char *whole);

#endif
