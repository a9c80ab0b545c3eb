/* Functions of table that go over lengths and ranges which are only claimed, as Lua's own do, but on the call's budget: the elements count as
 * instructions first, and at each the clock may have its say, for what is indexed can lead through thousands of metatables. */
#include <limits.h>

#include <lauxlib.h>

#include "host/sandbox_parts.h"
#include "host/task.h"

/* Anything that indexes as a table does will do. */
static void check_table(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE && !lua_getmetatable(L, idx))
    luaL_checktype(L, idx, LUA_TTABLE);
  else if (lua_type(L, idx) != LUA_TTABLE)
    lua_pop(L, 1);
}

static lua_Integer distance(lua_Integer from, lua_Integer to) {
  if (to < from) return 0;
  lua_Unsigned n = (lua_Unsigned)to - (lua_Unsigned)from;
  return n < LUA_MAXINTEGER >> 2 ? (lua_Integer)n + 1 : LUA_MAXINTEGER >> 2;
}

static void copy_one(lua_State *L, int from, lua_Integer i, int to, lua_Integer k) {
  np_task_spend(L, 0);
  lua_geti(L, from, i);
  lua_seti(L, to, k);
}

static int insert(lua_State *L) {
  check_table(L, 1);
  lua_Integer end = (lua_Integer)((lua_Unsigned)luaL_len(L, 1) + 1), at = end;
  int n = lua_gettop(L);
  if (n != 2 && n != 3) return luaL_error(L, "wrong number of arguments to 'insert'");
  if (n == 3) {
    at = luaL_checkinteger(L, 2);
    luaL_argcheck(L, (lua_Unsigned)at - 1u < (lua_Unsigned)end, 2, "position out of bounds");
    np_task_spend(L, distance(at, end) / 8);
    for (lua_Integer i = end; i > at; i--) copy_one(L, 1, i - 1, 1, i);
  }
  lua_seti(L, 1, at);
  return 0;
}

static int take_out(lua_State *L) {
  check_table(L, 1);
  lua_Integer size = luaL_len(L, 1), at = luaL_optinteger(L, 2, size);
  if (!lua_isnoneornil(L, 2)) luaL_argcheck(L, (lua_Unsigned)at - 1u <= (lua_Unsigned)size, 2, "position out of bounds");
  np_task_spend(L, distance(at, size) / 8);
  lua_geti(L, 1, at);
  for (; at < size; at++) copy_one(L, 1, at + 1, 1, at);
  lua_pushnil(L);
  lua_seti(L, 1, at);
  return 1;
}

static int move(lua_State *L) {
  lua_Integer from = luaL_checkinteger(L, 2), end = luaL_checkinteger(L, 3), to = luaL_checkinteger(L, 4);
  int dest = lua_isnoneornil(L, 5) ? 1 : 5;
  check_table(L, 1);
  check_table(L, dest);
  if (end >= from) {
    luaL_argcheck(L, from > 0 || end < LUA_MAXINTEGER + from, 3, "too many elements to move");
    lua_Integer n = end - from + 1;
    luaL_argcheck(L, to <= LUA_MAXINTEGER - n + 1, 4, "destination wrap around");
    np_task_spend(L, n);
    if (to > end || to <= from || (dest != 1 && !lua_compare(L, 1, dest, LUA_OPEQ)))
      for (lua_Integer i = 0; i < n; i++) copy_one(L, 1, from + i, dest, to + i);
    else
      for (lua_Integer i = n - 1; i >= 0; i--) copy_one(L, 1, from + i, dest, to + i);
  }
  lua_pushvalue(L, dest);
  return 1;
}

static void add_one(lua_State *L, luaL_Buffer *b, lua_Integer i) {
  np_task_spend(L, 0);
  lua_geti(L, 1, i);
  if (!lua_isstring(L, -1)) luaL_error(L, "invalid value (at index %I) in table for 'concat'", (LUAI_UACINT)i);
  luaL_addvalue(b);
}

static int concat(lua_State *L) {
  luaL_Buffer b;
  size_t len;
  check_table(L, 1);
  lua_Integer last = luaL_len(L, 1);
  const char *between = luaL_optlstring(L, 2, "", &len);
  lua_Integer i = luaL_optinteger(L, 3, 1);
  last = luaL_optinteger(L, 4, last);
  np_task_spend(L, distance(i, last) / 8);
  luaL_buffinit(L, &b);
  for (; i < last; i++) {
    add_one(L, &b, i);
    luaL_addlstring(&b, between, len);
  }
  if (i == last) add_one(L, &b, i);
  luaL_pushresult(&b);
  return 1;
}

static int unpack(lua_State *L) {
  lua_Integer i = luaL_optinteger(L, 2, 1), last = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
  if (i > last) return 0;
  lua_Integer n = distance(i, last);
  if (n >= INT_MAX || !lua_checkstack(L, (int)n)) return luaL_error(L, "too many results to unpack");
  for (lua_Integer k = 0; k < n; k++) {
    np_task_spend(L, 0);
    lua_geti(L, 1, i + k);
  }
  return (int)n;
}

static int give_all(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

/* Texts that are long and alike take long to compare. */
static int is_less(lua_State *L) {
  np_task_spend(L, 1);
  lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
  return 1;
}

/* Upvalue: an order that is in C, so that no hook sees it. */
static int is_less_by(lua_State *L) {
  np_task_spend(L, 1);
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 2, 1);
  return 1;
}

static int sort(lua_State *L) {
  check_table(L, 1);
  np_task_spend(L, luaL_len(L, 1));
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_pushcfunction(L, is_less);
    lua_replace(L, 2);
  } else if (lua_iscfunction(L, 2)) {
    lua_pushcclosure(L, is_less_by, 1);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_callk(L, 2, LUA_MULTRET, 0, give_all);
  return give_all(L, LUA_OK, 0);
}

void np_sandbox_tables(lua_State *L) {
  static const luaL_Reg verbs[] = {{"insert", insert}, {"remove", take_out}, {"move", move},
                                   {"concat", concat}, {"unpack", unpack},   {NULL, NULL}};
  lua_getglobal(L, "table");
  luaL_setfuncs(L, verbs, 0);
  lua_getfield(L, -1, "sort");
  lua_pushcclosure(L, sort, 1);
  lua_setfield(L, -2, "sort");
  lua_pop(L, 1);
}
