/* neap request --recording: what recording.lua makes of a request. */
#include <stdio.h>

#include <lauxlib.h>
#include <lualib.h>

#include "host/client_row.h"

extern const char _binary_core_host_recording_lua_start[], _binary_core_host_recording_lua_end[];

void np_show_recording(struct np_show *s, lua_State *L) {
  (void)s;
  size_t len = (size_t)(_binary_core_host_recording_lua_end - _binary_core_host_recording_lua_start);
  luaL_openlibs(L);
  if (luaL_loadbufferx(L, _binary_core_host_recording_lua_start, len, "=recording", "t") != LUA_OK) lua_error(L);
  lua_call(L, 0, 1);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  const char *text = lua_tolstring(L, -1, &len);
  fwrite(text, 1, len, stdout);
}
