/* Options: one reader for each kind. */
#include "lib/options.h"

#include <stdint.h>
#include <string.h>

#include <lauxlib.h>

#include "base/duration.h"
#include "base/near.h"

bool np_option(lua_State *L, const char *name) {
  lua_pushstring(L, name);
  if (lua_rawget(L, 1) != LUA_TNIL) return true;
  lua_pop(L, 1);
  return false;
}

int np_option_wrong(lua_State *L, const char *who, const char *name, const char *what) {
  return luaL_error(L, "%s: %s has to be %s, got a %s", who, name, what, luaL_typename(L, -1));
}

void np_options_known(lua_State *L, const char *who, const char *const *names, size_t count) {
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "%s: there is a %s without an option's name before it; write for example { url = \"…\" }", who,
                 luaL_typename(L, -1));
    size_t len, i = 0;
    const char *name = lua_tolstring(L, -2, &len);
    while (i < count && strcmp(names[i], name) != 0) i++;
    if (i < count) continue;
    const char *near = np_near(name, len, names, count);
    if (near) luaL_error(L, "%s: unknown option \"%s\", did you mean \"%s\"?", who, name, near);
    luaL_error(L, "%s: unknown option \"%s\"", who, name);
  }
}

const char *np_option_text(lua_State *L, const char *who, const char *name, bool needed) {
  if (!np_option(L, name)) {
    if (needed) luaL_error(L, "%s: %s is missing", who, name);
    return NULL;
  }
  if (lua_type(L, -1) != LUA_TSTRING) np_option_wrong(L, who, name, "a string");
  const char *s = lua_tostring(L, -1);
  if (strlen(s) != lua_rawlen(L, -1)) luaL_error(L, "%s: %s has a zero byte in it", who, name);
  return s;
}

const char *np_option_pem(lua_State *L, const char *who, const char *name) {
  if (!np_option(L, name)) return NULL;
  if (lua_type(L, -1) != LUA_TSTRING) np_option_wrong(L, who, name, "a string, the PEM text itself");
  const char *pem = lua_tostring(L, -1);
  if (!strstr(pem, "-----BEGIN ")) luaL_error(L, "%s: %s is not PEM: it has no line \"-----BEGIN …\"", who, name);
  if (strlen(pem) != lua_rawlen(L, -1)) luaL_error(L, "%s: %s has a zero byte in it", who, name);
  if (strstr(pem, "ENCRYPTED")) luaL_error(L, "%s: %s is a key that is encrypted: decrypt it, as by openssl pkey", who, name);
  return pem;
}

double np_option_timeout(lua_State *L, const char *who, double otherwise) {
  int64_t ms;
  size_t len;
  double seconds;
  if (!np_option(L, "timeout")) return otherwise;
  if (lua_type(L, -1) == LUA_TNUMBER) {
    seconds = lua_tonumber(L, -1);
  } else {
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    if (!text || np_duration_parse(text, len, &ms))
      luaL_error(L, "%s: timeout has to be a number of seconds or a duration such as \"10s\"", who);
    seconds = (double)ms / 1000;
  }
  if (!(seconds > 0)) luaL_error(L, "%s: timeout has to be more than 0 seconds", who);
  lua_pop(L, 1);
  return seconds;
}
