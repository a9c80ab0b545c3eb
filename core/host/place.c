/* Places. */
#include "host/place.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

bool np_place_is_own(const lua_Debug *ar) { return ar->currentline >= 0 && strcmp(ar->source, NP_PRELUDE) != 0; }

void np_place(lua_State *L, char to[NP_PLACE_MAX]) {
  lua_Debug ar;
  to[0] = 0;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (!np_place_is_own(&ar)) continue;
    snprintf(to, NP_PLACE_MAX, "%s:%d: ", ar.short_src, ar.currentline);
    return;
  }
}

int np_place_raise(lua_State *L, const char *format, ...) {
  char place[NP_PLACE_MAX], text[1200];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  np_place(L, place);
  lua_pushfstring(L, "%s%s", place, text);
  return lua_error(L);
}
