/* Encoding for neap.json. A walk over the value finds what cannot be JSON and what lua-cjson would write with a loss; for the latter it notes
 * the text that ought to stand there (a fix) with its ordinal among the numbers and empty tables, as both go over the value in the
 * same order. cjson writes; then, where there are fixes or slashes (cjson writes \/), its text is gone over once. */
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/utf8.h"
#include "lib/json.h"
#include "lib/json_sieve.h"
#include "lib/json_state.h"
#include "lib/spend.h"

#define KEEP (64u << 10)
#define PLAIN_INTEGER 99999999999999LL /* cjson writes 14 digits */

struct fix {
  size_t token;    /* which number or empty table, from 0 */
  size_t from, to; /* in scratch->texts */
};

struct walk {
  lua_State *L;
  const struct np_json_state *st;
  struct np_json_scratch *scratch;
  size_t token; /* numbers and empty tables met */
  size_t size;  /* bytes of text, about */
  int depth;
  bool slash; /* a string has one */
  char path[160];
  struct np_error *err;
};

/* Puts a step in front of the path to what is wrong; of a path too long the end is told. */
static void prepend(struct walk *w, const char *step) {
  size_t n = strlen(step), had = strlen(w->path);
  if (strncmp(w->path, "...", 3) == 0) return;
  if (n + had >= sizeof w->path) {
    memcpy(w->path, "...", 3);
    return;
  }
  memmove(w->path + n, w->path, had + 1);
  memcpy(w->path, step, n);
}

static int refuse(struct walk *w, const char *why) {
  w->path[0] = 0;
  return np_fail(w->err, "%s", why);
}

static int under_name(struct walk *w, const char *name) {
  char step[48];
  snprintf(step, sizeof step, ".%.*s", (int)(strlen(name) < 40 ? strlen(name) : 40), name);
  step[np_utf8_check(step, strlen(step))] = 0;
  prepend(w, step);
  return -1;
}

static int under_index(struct walk *w, lua_Integer i) {
  char step[32];
  snprintf(step, sizeof step, "[%" PRId64 "]", (int64_t)i);
  prepend(w, step);
  return -1;
}

static void fix(struct walk *w, const char *text, size_t n) {
  struct fix f = {w->token, w->scratch->texts.len, w->scratch->texts.len + n};
  np_buf_add(&w->scratch->texts, text, n);
  np_buf_add(&w->scratch->fixes, &f, sizeof f);
}

static int grow(struct walk *w, size_t n) {
  w->size += n;
  return w->size > NP_JSON_MAX_TEXT ? refuse(w, "more than 16 MiB") : 0;
}

/* Whether s is UTF-8; runs of ASCII are skipped eight bytes at a time. */
static bool is_utf8(const char *s, size_t n) {
  uint64_t word;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    memcpy(&word, s + i, 8);
    if (word & 0x8080808080808080u) break;
  }
  return np_utf8_check(s + i, n - i) == n - i;
}

static int check_string(struct walk *w, int idx, const char *why) {
  size_t n;
  const char *s = lua_tolstring(w->L, idx, &n);
  if (!is_utf8(s, n)) return refuse(w, why);
  if (!w->slash && memchr(s, '/', n)) w->slash = true;
  return grow(w, n + 3);
}

/* Whether x is a decimal fraction of few digits, which cjson writes as it is. r / 1e4 is rounded correctly, so where it gives x back, x is the
 * double nearest to a decimal of 14 digits at most. */
static bool short_fraction(double x) {
  double r = rint(x * 1e4);
  return fabs(r) < 1e13 && r / 1e4 == x;
}

static int check_number(struct walk *w) {
  char text[48];
  if (lua_isinteger(w->L, -1)) {
    int64_t i = lua_tointeger(w->L, -1);
    if (i > PLAIN_INTEGER || i < -PLAIN_INTEGER) fix(w, text, (size_t)snprintf(text, sizeof text, "%" PRId64, i));
  } else {
    double x = lua_tonumber(w->L, -1);
    if (!isfinite(x)) return refuse(w, isnan(x) ? "NaN" : "an infinite number");
    bool whole = x == floor(x);
    if (whole || !short_fraction(x)) {
      int n = 0;
      for (int digits = 14; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
      }
      if (!strpbrk(text, ".e")) n += snprintf(text + n, sizeof text - (size_t)n, ".0");
      fix(w, text, (size_t)n);
    }
  }
  w->token++;
  return grow(w, 8);
}

static int check_value(struct walk *w);

/* The array of n at t. */
static int check_array(struct walk *w, int t, lua_Integer n) {
  lua_State *L = w->L;
  lua_Integer count = 0;
  for (lua_pushnil(L); lua_next(L, t); count++) {
    lua_pop(L, 1);
    lua_Integer i = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
    if (!i && lua_type(L, -1) != LUA_TNUMBER) return refuse(w, "a table with both a sequence and names");
    if (i < 1 || i > n) return refuse(w, "an array with holes");
  }
  if (count != n) return refuse(w, "an array with holes");
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, t, i);
    if (check_value(w) < 0) return under_index(w, i);
    lua_pop(L, 1);
  }
  return 0;
}

/* The object at t, whose first name and value are at the top. */
static int check_object(struct walk *w, int t) {
  lua_State *L = w->L;
  do {
    if (lua_type(L, -2) == LUA_TNUMBER)
      return refuse(w, lua_rawlen(L, t) ? "a table with both a sequence and names" : "an array with holes");
    if (lua_type(L, -2) != LUA_TSTRING) return refuse(w, "a name that is not a string");
    if (check_string(w, -2, "a name that is not UTF-8") < 0) return -1;
    if (check_value(w) < 0) return under_name(w, lua_tostring(L, t + 1));
    lua_pop(L, 1);
  } while (lua_next(L, t));
  return 0;
}

/* The table at the top, with what its metatable says of it. */
static int check_table(struct walk *w) {
  lua_State *L = w->L;
  int t = lua_gettop(L);
  bool marked = false;
  size_t raw_len = 0;
  const char *raw = NULL;
  if (lua_getmetatable(L, t)) {
    marked = lua_topointer(L, -1) == w->st->array_meta;
    lua_pushliteral(L, "__pairs");
    bool behind = !marked && lua_rawget(L, -2) != LUA_TNIL;
    lua_settop(L, t);
    if (behind) return refuse(w, "a table whose content is behind __pairs: copy it into one of its own");
    if (!marked) raw = np_json_raw(L, t, &raw_len);
  }
  lua_Integer n = (lua_Integer)lua_rawlen(L, t);
  if (n > 0) return raw ? refuse(w, "a json.raw that was changed") : check_array(w, t, n);
  lua_pushnil(L);
  if (!lua_next(L, t)) {
    if (marked)
      fix(w, "[]", 2);
    else if (raw)
      fix(w, raw, raw_len);
    w->token++;
    return grow(w, raw_len + 3);
  }
  if (raw) return refuse(w, "a json.raw that was changed");
  if (marked) return refuse(w, lua_type(L, -2) == LUA_TNUMBER ? "an array with holes" : "an array with names");
  return check_object(w, t);
}

/* The value at the top. After a refusal the stack holds what was being looked at. */
static int check_value(struct walk *w) {
  switch (lua_type(w->L, -1)) {
  case LUA_TSTRING: return check_string(w, -1, "a string that is not UTF-8");
  case LUA_TNUMBER: return check_number(w);
  case LUA_TBOOLEAN:
  case LUA_TNIL: return grow(w, 6);
  case LUA_TTABLE: {
    if (++w->depth > NP_JSON_DEPTH) return refuse(w, "a loop, or tables nested deeper than 128");
    if (grow(w, 3) < 0 || check_table(w) < 0) return -1;
    w->depth--;
    return 0;
  }
  case LUA_TLIGHTUSERDATA:
    if (!lua_touserdata(w->L, -1)) return grow(w, 5);
  }
  char why[64];
  snprintf(why, sizeof why, "a %s", lua_typename(w->L, lua_type(w->L, -1)));
  return refuse(w, why);
}

static size_t string_end(const char *text, size_t i, size_t len) {
  for (i++; i < len && text[i] != '"'; i++)
    if (text[i] == '\\') i++;
  return i < len ? i + 1 : len;
}

static void copy_unslashed(struct np_buf *out, const char *text, size_t n) {
  const char *end = text + n, *p;
  while ((p = memchr(text, '\\', (size_t)(end - text))) && end - p > 1) {
    np_buf_add(out, text, (size_t)(p - text));
    if (p[1] != '/') np_buf_addc(out, '\\');
    np_buf_addc(out, p[1]);
    text = p + 2;
  }
  np_buf_add(out, text, (size_t)(end - text));
}

/* Copies cjson's text to scratch->out with the fixes in their places. Returns how many it found no place for. */
static size_t mend(struct np_json_scratch *sc, const char *text, size_t len) {
  const struct fix *f = (const struct fix *)(void *)sc->fixes.data, *last = f + sc->fixes.len / sizeof *f;
  size_t token = 0, i = 0;
  np_buf_reserve(&sc->out, len + sc->texts.len);
  while (i < len) {
    size_t from = i;
    bool fixable = true;
    if (text[i] == '"') {
      i = string_end(text, i, len);
      copy_unslashed(&sc->out, text + from, i - from);
      continue;
    }
    if (text[i] == '-' || (text[i] >= '0' && text[i] <= '9'))
      i += strspn(text + i, "+-.0123456789e");
    else if (text[i] == '{' && text[i + 1] == '}')
      i += 2;
    else
      fixable = i++ != from;
    if (fixable && f < last && f->token == token) {
      np_buf_add(&sc->out, sc->texts.data + f->from, f->to - f->from);
      f++;
    } else {
      np_buf_add(&sc->out, text + from, i - from);
    }
    token += fixable;
  }
  return (size_t)(last - f);
}

/* cjson keeps the buffer of its largest text; after a large one it is told to let go. */
static void trim(lua_State *L, int state, struct np_json_scratch *sc) {
  for (int on = 0; on <= 1; on++) {
    lua_getiuservalue(L, state, NP_JSON_CJSON_KEEP);
    lua_pushboolean(L, on);
    lua_call(L, 1, 0);
  }
  np_json_scratch_free(sc);
}

int np_json_encode(lua_State *L, int idx, struct np_error *err) {
  idx = lua_absindex(L, idx);
  int top = lua_gettop(L);
  struct np_json_state *st = np_json_state_push(L), *mine = st->busy ? np_json_state_new(L) : st;
  struct np_error why;
  struct walk w = {.L = L, .st = st, .scratch = &mine->scratch, .err = &why};
  /* no allocation, so no collection and no finalizer, until cjson has written */
  luaL_checkstack(L, (NP_JSON_DEPTH + 4) * 4 + 2 * LUA_MINSTACK, NULL);
  mine->busy = true; /* where Lua runs out of memory below it stays so, and each encode takes a scratch of its own */
  np_buf_clear(&w.scratch->fixes);
  np_buf_clear(&w.scratch->texts);
  np_buf_clear(&w.scratch->out);
  lua_pushvalue(L, idx);
  if (check_value(&w) < 0) {
    mine->busy = false;
    lua_settop(L, top);
    return np_fail(err, "cannot be JSON: %s%s%s", why.text, w.path[0] ? " at " : "", w.path);
  }
  mine->busy = false;
  np_spend(L, (int64_t)(w.size / 4));
  mine->busy = true;
  lua_getiuservalue(L, top + 1, NP_JSON_CJSON_ENCODE);
  lua_insert(L, -2);
  lua_call(L, 1, 1);
  size_t lost = 0, len = 0;
  if (w.slash || w.scratch->fixes.len) {
    const char *text = lua_tolstring(L, -1, &len);
    lost = mend(w.scratch, text, len);
    lua_pushlstring(L, w.scratch->out.data, w.scratch->out.len);
  }
  if (w.size > KEEP) trim(L, top + 1, w.scratch);
  mine->busy = false;
  lua_replace(L, top + 1);
  lua_settop(L, lost ? top : top + 1);
  return lost ? np_fail(err, "cannot be JSON: it changed meanwhile") : 0;
}
