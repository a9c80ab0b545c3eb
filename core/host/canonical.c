/* JSON with sorted keys. */
#include "host/canonical.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/real.h"
#include "lib/json.h"

static int compare_keys(const void *a, const void *b) {
  const struct np_canonical_key *x = a, *y = b;
  int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
  return order ? order : (x->len > y->len) - (x->len < y->len);
}

struct np_canonical_key *np_canonical_keys(lua_State *L, int idx, size_t *count) {
  size_t n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) n += lua_type(L, -2) == LUA_TSTRING;
  struct np_canonical_key *keys = lua_newuserdatauv(L, (n + 1) * sizeof *keys, 0);
  *count = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    keys[*count].text = lua_tolstring(L, -2, &keys[*count].len);
    ++*count;
  }
  qsort(keys, *count, sizeof *keys, compare_keys);
  return keys;
}

static void add_real(struct np_buf *out, double d) {
  char text[NP_REAL_TEXT];
  np_buf_add(out, text, np_real_text(text, d));
}

void np_canonical_add(lua_State *L, struct np_buf *out) {
  luaL_checkstack(L, 8, NULL);
  int at = lua_gettop(L);
  size_t n;
  const char *s;
  if (lua_type(L, at) == LUA_TSTRING) {
    s = lua_tolstring(L, at, &n);
    np_buf_add_json(out, s, n);
  } else if (lua_isinteger(L, at)) {
    np_buf_addf(out, "%lld", (long long)lua_tointeger(L, at));
  } else if (lua_type(L, at) == LUA_TNUMBER) {
    add_real(out, lua_tonumber(L, at));
  } else if (lua_type(L, at) == LUA_TBOOLEAN) {
    np_buf_adds(out, lua_toboolean(L, at) ? "true" : "false");
  } else if (np_json_is_null(L, at) || !lua_istable(L, at)) {
    np_buf_adds(out, "null");
  } else if (np_json_is_array(L, at)) {
    np_buf_addc(out, '[');
    n = lua_rawlen(L, at);
    for (size_t i = 1; i <= n; i++) {
      if (i > 1) np_buf_addc(out, ',');
      lua_rawgeti(L, at, (lua_Integer)i);
      np_canonical_add(L, out);
      lua_pop(L, 1);
    }
    np_buf_addc(out, ']');
  } else {
    struct np_canonical_key *keys = np_canonical_keys(L, at, &n);
    np_buf_addc(out, '{');
    for (size_t i = 0; i < n; i++) {
      if (i) np_buf_addc(out, ',');
      np_buf_add_json(out, keys[i].text, keys[i].len);
      np_buf_addc(out, ':');
      lua_pushlstring(L, keys[i].text, keys[i].len);
      lua_rawget(L, at);
      np_canonical_add(L, out);
      lua_pop(L, 1);
    }
    np_buf_addc(out, '}');
    lua_pop(L, 1);
  }
}

struct text {
  const char *json;
  size_t len;
  struct np_buf *out;
};

static int bring_in_order(lua_State *L) {
  struct text *t = lua_touserdata(L, 1);
  struct np_error err;
  if (np_json_decode(L, t->json, t->len, &err) < 0) return luaL_error(L, "%s", err.text);
  np_canonical_add(L, t->out);
  return 0;
}

int np_canonical_text(lua_State *L, const char *json, size_t len, struct np_buf *out, struct np_error *err) {
  struct text t = {json, len, out};
  lua_pushcfunction(L, bring_in_order);
  lua_pushlightuserdata(L, &t);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK) return 0;
  if (err) np_fail(err, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
  return -1;
}
