/* Coroutines of a plugin's own, and xpcall. As Lua's, apart from this: where a call is past its budget, none of them goes on, whatever catches
 * errors on the way; and the coroutine that the host runs a handler in is not to be had, for it is the host that resumes it. */
#include <lauxlib.h>

#include "host/sandbox_parts.h"
#include "host/task.h"

#define CLOSES_MOST 6 /* each can call 200 levels of C below it */

static lua_State *coroutine_at(lua_State *L, int idx) {
  lua_State *co = lua_tothread(L, idx);
  luaL_argexpected(L, co, idx, "coroutine");
  return co;
}

/* The host's own coroutine looks like the main one. */
static bool is_hosts(lua_State *L) {
  const struct np_instance *in = (struct np_instance *)np_env(L);
  return !in->running || in->running->co == L || in->L == L;
}

/* The main one stands for the host's, which resumes this one: it is not to be touched, whatever its stack looks like. */
static bool is_main(lua_State *co) { return ((const struct np_instance *)np_env(co))->L == co; }

static const char *status_of(lua_State *L, lua_State *co) {
  lua_Debug ar;
  if (L == co || (is_main(co) && is_hosts(L))) return "running";
  if (is_main(co)) return "normal";
  if (lua_status(co) == LUA_YIELD) return "suspended";
  if (lua_status(co) != LUA_OK) return "dead";
  if (lua_getstack(co, 0, &ar)) return "normal";
  return lua_gettop(co) == 0 ? "dead" : "suspended";
}

/* How many a call has alive: registry[&known] has the coroutines as weak keys, each with the number of the call that made it. A call's count goes
 * down where one of its own ends; those that it has dropped are found out when the count comes to the limit. */

static const char known; /* its address is the key */

static void push_known(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &known) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &known);
}

/* With the table of all on top. */
static int64_t count_alive(lua_State *L, const struct np_task *t) {
  int64_t n = 0;
  lua_gc(L, LUA_GCCOLLECT);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    bool own = (uint64_t)lua_tointeger(L, -1) == t->serial;
    if (own && *status_of(L, lua_tothread(L, -2)) != 'd') n++;
  }
  return n;
}

/* The coroutine on top is new. */
static void note_made(lua_State *L, struct np_task *t) {
  struct np_code *code = t->in->code;
  push_known(L);
  if (t->coroutines >= code->limits.coroutines) {
    np_task_spend(L, 100 * code->limits.coroutines);
    t->coroutines = count_alive(L, t);
  }
  if (t->coroutines >= code->limits.coroutines)
    np_limit_raise(L, "coroutines",
                   "coroutine.create: %lld of its coroutines are alive, the most of one call, and this is one more",
                   (long long)code->limits.coroutines);
  lua_pushvalue(L, -2);
  lua_pushinteger(L, (lua_Integer)t->serial);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  np_uses_note(&code->uses.coroutines, ++t->coroutines);
}

/* The one at idx is at its end. */
static void note_ended(lua_State *L, int idx) {
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  if (!t || !lua_checkstack(L, 4)) return;
  push_known(L);
  lua_pushvalue(L, idx);
  if (lua_rawget(L, -2) == LUA_TNUMBER && (uint64_t)lua_tointeger(L, -1) == t->serial && t->coroutines > 0) t->coroutines--;
  lua_pop(L, 1);
  lua_pushvalue(L, idx);
  lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Results, or -1 and the error on top of L; -2 where the call is past its budget. idx: where co is. */
static int resume(lua_State *L, int idx, lua_State *co, int nargs) {
  int n = 0;
  if (is_main(co)) {
    lua_pushliteral(L, "cannot resume non-suspended coroutine");
    return -1;
  }
  if (!lua_checkstack(co, nargs)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, nargs);
  lua_State *outer = np_task_enter(co);
  int status = lua_resume(co, L, nargs, &n);
  np_task_enter(outer);
  if (np_task_is_over(L)) return -2;
  if (status != LUA_YIELD) note_ended(L, idx);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, n);
  return n;
}

static int co_resume(lua_State *L) {
  lua_State *co = coroutine_at(L, 1);
  int n = resume(L, 1, co, lua_gettop(L) - 1);
  if (n == -2) return np_task_leave(L);
  lua_pushboolean(L, n >= 0);
  if (n < 0) n = 1;
  lua_insert(L, -(n + 1));
  return n + 1;
}

/* Lua 5.4.4 does not count the C stack that closing takes, so a variable's __close that closes a coroutine that closes a coroutine … would
 * overflow it. Where that is too deep the coroutine stays open, and its variables are never closed. */
static int reset(lua_State *L, lua_State *co) {
  static _Thread_local int depth;
  if (depth == CLOSES_MOST) luaL_error(L, "coroutines are closed within each other, more than %d deep", CLOSES_MOST);
  lua_State *outer = np_task_enter(co);
  depth++;
  int status = lua_resetthread(co);
  depth--;
  np_task_enter(outer);
  return status;
}

static int wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int n = resume(L, lua_upvalueindex(1), co, lua_gettop(L));
  if (n == -2) return np_task_leave(L);
  if (n >= 0) return n;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) {
    status = reset(L, co); /* its variables are closed, which may raise in turn */
    if (np_task_is_over(L)) return np_task_leave(L);
    lua_xmove(co, L, 1);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int co_create(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  np_task_spend(L, 100); /* it has a count of its own, to whose end it may never come */
  lua_State *co = lua_newthread(L);
  np_task_guard(co);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  if (t) note_made(L, t);
  return 1;
}

static int co_wrap(lua_State *L) {
  co_create(L);
  lua_pushcclosure(L, wrapped, 1);
  return 1;
}

static int co_close(lua_State *L) {
  lua_State *co = coroutine_at(L, 1);
  const char *state = status_of(L, co);
  if (*state != 'd' && *state != 's') return luaL_error(L, "cannot close a %s coroutine", state);
  int status = reset(L, co);
  if (np_task_is_over(L)) return np_task_leave(L);
  note_ended(L, 1);
  lua_pushboolean(L, status == LUA_OK);
  if (status == LUA_OK) return 1;
  lua_xmove(co, L, 1);
  return 2;
}

static int co_status(lua_State *L) {
  lua_pushstring(L, status_of(L, coroutine_at(L, 1)));
  return 1;
}

static int co_running(lua_State *L) {
  bool hosts = is_hosts(L);
  if (hosts)
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  else
    lua_pushthread(L);
  lua_pushboolean(L, hosts);
  return 2;
}

static int co_yieldable(lua_State *L) {
  lua_State *of = lua_isnone(L, 1) ? L : coroutine_at(L, 1);
  lua_pushboolean(L, !is_hosts(of) && lua_isyieldable(of));
  return 1;
}

static int co_yield (lua_State *L) {
  if (is_hosts(L)) return luaL_error(L, "coroutine.yield outside of a coroutine");
  return lua_yield(L, lua_gettop(L));
}

/* xpcall's handler is not run for a call that is over: it would run inside the hook, where no hook sees it. */
static int handle(lua_State *L) {
  if (np_task_is_over(L)) return 1;
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int give_all(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

static int guarded_xpcall(lua_State *L) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, handle, 1);
  lua_replace(L, 2);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, give_all);
  return give_all(L, LUA_OK, 0);
}

void np_sandbox_coroutines(lua_State *L) {
  static const luaL_Reg verbs[] = {{"create", co_create}, {"resume", co_resume},         {"wrap", co_wrap},
                                   {"close", co_close},   {"status", co_status},         {"running", co_running},
                                   {"yield", co_yield },  {"isyieldable", co_yieldable}, {NULL, NULL}};
  lua_getglobal(L, "coroutine");
  luaL_setfuncs(L, verbs, 0);
  lua_pop(L, 1);
  lua_getglobal(L, "xpcall");
  lua_pushcclosure(L, guarded_xpcall, 1);
  lua_setglobal(L, "xpcall");
}
