/* Walks Lua patterns as lstrlib.c's do_match does, and has them matched by it. */
#include "host/schema_pattern.h"

#include <lauxlib.h>
#include <lualib.h>

enum { MAX_CAPTURES = 32 }; /* LUA_MAXCAPTURES */

/* Past the set that starts at p, its '['; NULL where it has no end. */
static const char *set_end(const char *p) {
  if (*++p == '^') p++;
  do { /* a ] that comes first stands for itself */
    if (*p == 0) return NULL;
    if (*p++ == '%' && *p++ == 0) return NULL;
  } while (*p != ']');
  return p + 1;
}

struct captures {
  bool closed[MAX_CAPTURES];
  int count;
};

static const char *capture(struct captures *c, char paren) {
  if (paren == '(') {
    if (c->count == MAX_CAPTURES) return "has too many captures";
    c->closed[c->count++] = false;
    return NULL;
  }
  for (int i = c->count; i-- > 0;) {
    if (c->closed[i]) continue;
    c->closed[i] = true;
    return NULL;
  }
  return "has a ) without its (";
}

/* Past the escape at p, its '%'. NULL and *wrong where it is none. */
static const char *escape_end(const char *p, const struct captures *c, const char **wrong) {
  p++;
  if (*p == 0) {
    *wrong = "ends with %";
  } else if (*p == 'b') {
    if (p[1] && p[2]) return p + 3;
    *wrong = "lacks the two characters of %b";
  } else if (*p == 'f') {
    if (p[1] == '[' && (p = set_end(p + 1))) return p;
    *wrong = "lacks the set of %f";
  } else if (*p >= '0' && *p <= '9') {
    int i = *p - '1';
    if (i >= 0 && i < c->count && c->closed[i]) return p + 1;
    *wrong = "refers to a capture that it does not have";
  } else {
    return p + 1;
  }
  return NULL;
}

const char *np_pattern_check(const char *p, bool *anchored) {
  struct captures captures = {.count = 0};
  const char *wrong = NULL;
  *anchored = false;
  if (*p == '^') p++;
  while (*p) {
    if (*p == '(' || *p == ')') {
      wrong = capture(&captures, *p++);
    } else if (*p == '[') {
      if (!(p = set_end(p))) return "has a [ without its ]";
    } else if (*p == '%') {
      p = escape_end(p, &captures, &wrong);
    } else {
      *anchored = *p == '$' && p[1] == 0;
      p++;
    }
    if (wrong) return wrong;
  }
  for (int i = 0; i < captures.count; i++)
    if (!captures.closed[i]) return "has a ( without its )";
  return NULL;
}

/* string.match, from the library's own table. What a plugin put there instead is not called. */
static bool push_match(lua_State *L) {
  lua_pushliteral(L, LUA_LOADED_TABLE);
  lua_rawget(L, LUA_REGISTRYINDEX);
  if (lua_type(L, -1) == LUA_TTABLE) {
    lua_pushliteral(L, LUA_STRLIBNAME);
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  if (lua_type(L, -1) == LUA_TTABLE) {
    lua_pushliteral(L, "match");
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  if (lua_iscfunction(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

enum np_pattern_outcome np_pattern_match(lua_State *L, const char *whole) {
  if (!push_match(L)) return NP_PATTERN_UNABLE;
  lua_pushvalue(L, -2);
  lua_pushstring(L, whole);
  int status = lua_pcall(L, 2, 1, 0);
  if (status == LUA_ERRMEM) lua_error(L);
  bool fits = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (status != LUA_OK) return NP_PATTERN_COMPLEX;
  return fits ? NP_PATTERN_FITS : NP_PATTERN_DIFFERS;
}
