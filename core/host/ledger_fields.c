/* Fields of the tables that verbs take. */
#include <math.h>
#include <string.h>

#include <lauxlib.h>

#include "base/duration.h"
#include "host/ledger_parts.h"
#include "lib/json.h"

struct np_text np_field_text(lua_State *L, struct np_writeset *ws, const char *verb, const char *field) {
  size_t len;
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "plugin:%s: %s has to be a string, got a %s", verb, field, luaL_typename(L, -1));
  const char *s = lua_tolstring(L, -1, &len);
  if (len > 4096) luaL_error(L, "plugin:%s: %s is longer than 4096 bytes", verb, field);
  if (memchr(s, 0, len)) luaL_error(L, "plugin:%s: %s holds a zero byte", verb, field);
  return np_writeset_text(ws, s, len);
}

int64_t np_field_time(lua_State *L, const char *verb, const char *field) {
  int exact;
  lua_Integer ms = lua_tointegerx(L, -1, &exact);
  if (!exact || lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "plugin:%s: %s has to be an integer of ms since 1970, got %s", verb, field, luaL_tolstring(L, -1, NULL));
  if (ms < -62135596800000 || ms > 253402300799999) luaL_error(L, "plugin:%s: %s is outside the years 1 to 9999", verb, field);
  return ms;
}

int64_t np_field_integer(lua_State *L, const char *verb, const char *field) {
  int exact;
  lua_Integer i = lua_tointegerx(L, -1, &exact);
  if (!exact || lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "plugin:%s: %s has to be an integer, got %s", verb, field, luaL_tolstring(L, -1, NULL));
  return i;
}

/* ms of a duration at idx: "15m" or seconds. */
int64_t np_field_duration(lua_State *L, int idx, const char *verb, const char *what) {
  idx = lua_absindex(L, idx);
  int64_t ms = -1;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    lua_Number s = lua_tonumber(L, idx);
    if (s >= 0 && s < 3.2e9) ms = (int64_t)(s * 1000 + 0.5);
  } else if (lua_type(L, idx) == LUA_TSTRING) {
    size_t len;
    const char *s = lua_tolstring(L, idx, &len);
    if (np_duration_parse(s, len, &ms) < 0) ms = -1;
  }
  if (ms < 0)
    luaL_error(L, "plugin:%s: %s has to be a duration such as \"15m\" or a number of seconds, got %s", verb, what,
               luaL_tolstring(L, idx, NULL));
  return ms;
}

struct np_text np_field_json(lua_State *L, struct np_writeset *ws, const char *verb, const char *field) {
  struct np_error err;
  size_t len;
  if (lua_type(L, -1) != LUA_TTABLE) luaL_error(L, "plugin:%s: %s has to be a table, got a %s", verb, field, luaL_typename(L, -1));
  if (np_json_encode(L, -1, &err) < 0) luaL_error(L, "plugin:%s: %s %s", verb, field, err.text);
  const char *s = lua_tolstring(L, -1, &len);
  struct np_text text = np_writeset_text(ws, s, len);
  lua_pop(L, 1);
  return text;
}

struct np_value np_field_value(lua_State *L, struct np_writeset *ws, const char *verb) {
  struct np_value v = {0};
  switch (lua_type(L, -1)) {
  case LUA_TNUMBER:
    if (lua_isinteger(L, -1)) {
      v.type = NP_NUMBER_INT;
      v.i = lua_tointeger(L, -1);
    } else {
      v.type = NP_NUMBER_REAL;
      v.d = lua_tonumber(L, -1);
      if (!isfinite(v.d)) luaL_error(L, "plugin:%s: value has to be finite", verb);
    }
    return v;
  case LUA_TBOOLEAN:
    v.type = NP_BOOL;
    v.i = lua_toboolean(L, -1);
    return v;
  case LUA_TSTRING:
    v.type = NP_STRING;
    v.s = np_field_text(L, ws, verb, "value");
    return v;
  default:
    luaL_error(L, "plugin:%s: value has to be a number, a string or a boolean, got a %s", verb, luaL_typename(L, -1));
    return v;
  }
}

int np_field_word(lua_State *L, const char *verb, const char *field, const char *const *names, int n) {
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  for (int i = 0; i < n; i++)
    if (names[i] && strcmp(names[i], s) == 0) return i;
  luaL_Buffer known;
  luaL_buffinit(L, &known);
  for (int i = 0; i < n; i++) {
    if (!names[i] || !*names[i]) continue;
    if (luaL_bufflen(&known)) luaL_addstring(&known, ", ");
    luaL_addstring(&known, names[i]);
  }
  luaL_pushresult(&known);
  return luaL_error(L, "plugin:%s: %s: expected one of %s, got \"%s\"", verb, field, lua_tostring(L, -1), s);
}

void np_field_unknown(lua_State *L, const char *verb) {
  lua_pushvalue(L, -2);
  luaL_error(L, "plugin:%s: unknown field \"%s\"", verb, luaL_tolstring(L, -1, NULL));
}

const char *np_field_name(lua_State *L, const char *verb) {
  if (lua_type(L, -2) != LUA_TSTRING) np_field_unknown(L, verb);
  return lua_tostring(L, -2);
}
