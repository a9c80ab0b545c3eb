/* neap.json: lua-cjson without its losses. A strict pass (json_sieve.c) stands before cjson's decoder, and a walk after it; encoding is in
 * json_encode.c. cjson holds a malloc of its own while it decodes and would leak it if Lua raised meanwhile, so nothing in it may raise:
 * the text is known to be JSON, and the memory it takes at most is asked for before. */
#include "lib/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "lib/json_sieve.h"
#include "lib/json_state.h"
#include "lib/modules.h"
#include "lib/spend.h"

#define EXACT 999999999999999.0 /* the largest integer the sieve leaves untagged */
#define KEEP (64u << 10)        /* bytes of scratch that are kept for the next time */

int luaopen_cjson(lua_State *L);

static const char state_key, state_meta_key, raw_key;

void np_json_scratch_free(struct np_json_scratch *s) {
  np_buf_free(&s->fixes);
  np_buf_free(&s->texts);
  np_buf_free(&s->out);
}

static int state_gc(lua_State *L) {
  np_json_scratch_free(&((struct np_json_state *)lua_touserdata(L, 1))->scratch);
  return 0;
}

struct np_json_state *np_json_state_new(lua_State *L) {
  struct np_json_state *st = lua_newuserdatauv(L, sizeof *st, NP_JSON_SLOTS);
  memset(st, 0, sizeof *st);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &state_meta_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, state_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_meta_key);
  }
  lua_setmetatable(L, -2);
  return st;
}

/* A function of cjson's table, at the top, becomes a user value of the state below it. */
static void keep(lua_State *L, const char *name, enum np_json_slot slot) {
  lua_getfield(L, -1, name);
  lua_setiuservalue(L, -3, slot);
}

static struct np_json_state *state_create(lua_State *L) {
  struct np_json_state *st = np_json_state_new(L);
  lua_pushcfunction(L, luaopen_cjson); /* each call makes a configuration of its own */
  lua_call(L, 0, 1);
  keep(L, "decode", NP_JSON_CJSON_DECODE);
  keep(L, "encode", NP_JSON_CJSON_ENCODE);
  keep(L, "encode_keep_buffer", NP_JSON_CJSON_KEEP);
  lua_pop(L, 1);
  lua_createtable(L, 0, 2);
  lua_pushliteral(L, "json.array");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  st->array_meta = lua_topointer(L, -1);
  lua_setiuservalue(L, -2, NP_JSON_ARRAY_META);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  return st;
}

struct np_json_state *np_json_state_push(lua_State *L) {
  luaL_checkstack(L, 8, NULL);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key) == LUA_TUSERDATA) return lua_touserdata(L, -1);
  lua_pop(L, 1);
  return state_create(L);
}

/* Raises out of memory unless Lua can have n more bytes. The allocator itself is asked, as nothing else knows the instance's limit. */
static void assure(lua_State *L, size_t n) {
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  void *p = alloc(ud, NULL, 0, n);
  if (p) {
    alloc(ud, p, n, 0);
    return;
  }
  lua_newuserdatauv(L, n, 0); /* collects all garbage, and raises where that is not enough */
  lua_pop(L, 1);
  lua_gc(L, LUA_GCCOLLECT, 0);
}

/* Pushes what a tagged string stands for. */
static void push_tagged(lua_State *L, int meta, const char *s, size_t n) {
  if (n == 0) {
    lua_createtable(L, 0, 0);
    lua_pushvalue(L, meta);
    lua_setmetatable(L, -2);
  } else if (*s == NP_JSON_TAG) {
    lua_pushlstring(L, s, n);
  } else if (memchr(s, '.', n) || memchr(s, 'e', n) || memchr(s, 'E', n) || !lua_stringtonumber(L, s)) {
    lua_pushnumber(L, strtod(s, NULL));
  }
}

static void restore(lua_State *L, int meta);

/* Puts right the value at the top. Returns whether it became another one. */
static bool restore_value(lua_State *L, int meta) {
  size_t n;
  switch (lua_type(L, -1)) {
  case LUA_TNUMBER: {
    lua_Number x = lua_tonumber(L, -1);
    lua_Integer i = x >= -EXACT && x <= EXACT ? (lua_Integer)x : 0;
    if ((lua_Number)i != x || (i == 0 && signbit(x))) return false;
    lua_pop(L, 1);
    lua_pushinteger(L, i);
    return true;
  }
  case LUA_TSTRING: {
    const char *s = lua_tolstring(L, -1, &n);
    if (n == 0 || *s != NP_JSON_TAG) return false;
    push_tagged(L, meta, s + 1, n - 1);
    lua_remove(L, -2);
    return true;
  }
  case LUA_TTABLE: restore(L, meta); return false;
  default: return false;
  }
}

/* Puts right the table at the top, which is as cjson made it: names, or 1 to n. */
static void restore(lua_State *L, int meta) {
  int t = lua_gettop(L);
  lua_Integer n = (lua_Integer)lua_rawlen(L, t);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, t, i);
    if (restore_value(L, meta))
      lua_rawseti(L, t, i);
    else
      lua_pop(L, 1);
  }
  if (n > 0) {
    lua_pushvalue(L, meta);
    lua_setmetatable(L, t);
    return;
  }
  for (lua_pushnil(L); lua_next(L, t);) {
    if (restore_value(L, meta)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, t);
    } else {
      lua_pop(L, 1);
    }
  }
}

/* Pushes the value of the text, which is the string at idx unless that is 0. */
static int decode(lua_State *L, int idx, const char *text, size_t len, struct np_error *err) {
  int top = lua_gettop(L);
  struct np_json_state *st = np_json_state_push(L);
  struct np_json_sieve sieve = {.out = &st->scratch.out};
  bool own = !st->busy;
  if (!own) sieve.out = &np_json_state_new(L)->scratch.out;
  np_buf_clear(sieve.out);
  np_spend(L, (int64_t)(len / 4));
  int failed = np_json_sieve(&sieve, text, len, err);
  if (!failed) {
    luaL_checkstack(L, 4 * sieve.depth + 2 * LUA_MINSTACK, NULL);
    lua_getiuservalue(L, top + 1, NP_JSON_ARRAY_META);
    lua_getiuservalue(L, top + 1, NP_JSON_CJSON_DECODE);
    if (sieve.rewritten)
      lua_pushlstring(L, sieve.out->data, sieve.out->len);
    else if (idx)
      lua_pushvalue(L, idx);
    else
      lua_pushlstring(L, text, len);
  }
  if (sieve.out->cap > KEEP) np_buf_free(sieve.out);
  if (failed) {
    lua_settop(L, top);
    return -1;
  }
  assure(L, 2048 + 2 * len + 80 * sieve.values + 128 * sieve.members + 96 * sieve.tables);
  lua_call(L, 1, 1);
  if (sieve.restore) restore_value(L, lua_gettop(L) - 1);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  return 0;
}

int np_json_decode(lua_State *L, const char *text, size_t len, struct np_error *err) { return decode(L, 0, text, len, err); }

void np_json_push_null(lua_State *L) { lua_pushlightuserdata(L, NULL); }

int np_json_is_null(lua_State *L, int idx) { return lua_islightuserdata(L, idx) && !lua_touserdata(L, idx); }

void np_json_mark_array(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  np_json_state_push(L);
  lua_getiuservalue(L, -1, NP_JSON_ARRAY_META);
  lua_setmetatable(L, idx);
  lua_pop(L, 1);
}

static bool has_array_meta(lua_State *L, int idx) {
  if (!lua_getmetatable(L, idx)) return false;
  struct np_json_state *st = np_json_state_push(L);
  bool same = lua_topointer(L, -2) == st->array_meta;
  lua_pop(L, 2);
  return same;
}

int np_json_is_array(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  return lua_istable(L, idx) && (lua_rawlen(L, idx) > 0 || has_array_meta(L, idx));
}

const char *np_json_raw(lua_State *L, int idx, size_t *len) {
  const char *text = NULL;
  if (!lua_getmetatable(L, idx)) return NULL;
  if (lua_rawgetp(L, -1, &raw_key) == LUA_TSTRING) text = lua_tolstring(L, -1, len);
  lua_pop(L, 2); /* the metatable keeps the text */
  return text;
}

/* nil, why, "json" */
static int push_failure(lua_State *L, const struct np_error *err) {
  lua_pushnil(L);
  lua_pushstring(L, err->text);
  lua_pushliteral(L, "json");
  return 3;
}

/* Reads a JSON text. Integers of 64 bits stay integers (larger ones become floats), a number with a point or an exponent is a float, null is
 * json.null, arrays are marked. Where a name occurs twice the last one counts.
 * ---@param text string
 * ---@return any|nil value, string? why, "json"? code */
static int json_decode(lua_State *L) {
  struct np_error err;
  size_t len;
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *text = lua_tolstring(L, 1, &len);
  return decode(L, 1, text, len, &err) < 0 ? push_failure(L, &err) : 1;
}

/* Writes a value as JSON. Raises where it cannot be one: functions, names beside a sequence, holes, a table behind __pairs, NaN and infinity, strings that are not
 * UTF-8, loops, more than 16 MiB. An empty table is {}, unless marked with json.array.
 * ---@param value any
 * ---@return string text */
static int json_encode(lua_State *L) {
  struct np_error err;
  luaL_checkany(L, 1);
  if (np_json_encode(L, 1, &err) < 0) return luaL_error(L, "%s", err.text);
  return 1;
}

/* As encode, for values whose strings come from elsewhere: does not raise.
 * ---@param value any
 * ---@return string|nil text, string? why, "json"? code */
static int json_try_encode(lua_State *L) {
  struct np_error err;
  luaL_checkany(L, 1);
  return np_json_encode(L, 1, &err) < 0 ? push_failure(L, &err) : 1;
}

/* Marks a table, or a new one, as an array, which is [] when it is empty.
 * ---@param t? table
 * ---@return table t the same */
static int json_array(lua_State *L) {
  lua_settop(L, 1);
  if (lua_isnil(L, 1)) {
    lua_createtable(L, 0, 0);
    lua_replace(L, 1);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  if (!has_array_meta(L, 1)) {
    if (lua_getmetatable(L, 1)) return luaL_argerror(L, 1, "this table has a metatable of its own");
    np_json_mark_array(L, 1);
  }
  return 1;
}

/* Tells whether v is an array: marked, or a sequence that is not empty.
 * ---@param v any
 * ---@return boolean */
static int json_is_array(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, np_json_is_array(L, 1));
  return 1;
}

static int raw_newindex(lua_State *L) { return luaL_error(L, "a json.raw cannot be changed"); }

/* A value that encode writes as the given JSON text, to the byte.
 * ---@param text string
 * ---@return table|nil value, string? why, "json"? code */
static int json_raw(lua_State *L) {
  struct np_error err;
  struct np_json_sieve sieve = {0};
  size_t len;
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *text = lua_tolstring(L, 1, &len);
  sieve.out = &np_json_state_new(L)->scratch.out;
  np_spend(L, (int64_t)(len / 4));
  int failed = np_json_sieve(&sieve, text, len, &err);
  np_buf_free(sieve.out);
  if (failed) return push_failure(L, &err);
  lua_createtable(L, 0, 0);
  lua_createtable(L, 0, 3);
  lua_pushvalue(L, 1);
  lua_rawsetp(L, -2, &raw_key);
  lua_pushcfunction(L, raw_newindex);
  lua_setfield(L, -2, "__newindex");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
  return 1;
}

/* @value json.null userdata JSON's null, which is true in Lua's eyes */
int luaopen_neap_json(lua_State *L) {
  static const luaL_Reg functions[] = {{"decode", json_decode},
                                       {"encode", json_encode},
                                       {"try_encode", json_try_encode},
                                       {"array", json_array},
                                       {"is_array", json_is_array},
                                       {"raw", json_raw},
                                       {NULL, NULL}};
  luaL_newlib(L, functions);
  np_json_push_null(L);
  lua_setfield(L, -2, "null");
  return 1;
}
