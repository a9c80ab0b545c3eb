/* neap explain: what explain.lua makes of a story. */
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <lualib.h>

#include "host/client_row.h"

extern const char _binary_core_host_explain_lua_start[], _binary_core_host_explain_lua_end[];

static int clean(lua_State *L) {
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  char *text = np_show_clean(s, n);
  lua_pushstring(L, text);
  free(text);
  return 1;
}

void np_show_story(struct np_show *s, lua_State *L) {
  size_t len = (size_t)(_binary_core_host_explain_lua_end - _binary_core_host_explain_lua_start);
  luaL_openlibs(L);
  if (luaL_loadbufferx(L, _binary_core_host_explain_lua_start, len, "=explain", "t") != LUA_OK) lua_error(L);
  lua_call(L, 0, 1);
  lua_pushvalue(L, 1);
  lua_pushcfunction(L, clean);
  lua_pushboolean(L, s->colour);
  lua_call(L, 3, 1);
  const char *text = lua_tolstring(L, -1, &len);
  fwrite(text, 1, len, stdout);
}
