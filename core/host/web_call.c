/* What of a plugin is called for a request: auth, the handler, plugin:refuse; and what they return. */
#include <stdlib.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/web_parts.h"

int np_web_push_refusal(lua_State *L, struct np_task *t) {
  struct np_web_call *w = t->owner;
  w->refusal.route = w->route->pattern;
  np_refusal_push(L, &w->refusal);
  return 1;
}

void np_web_note_refusal(struct np_web_call *w) {
  struct np_buf why = {0};
  np_buf_addf(&why, "%s%s%s: %s", w->refusal.where, w->refusal.field[0] ? " " : "", w->refusal.field, w->refusal.reason);
  w->outcome = "refused";
  free(w->error);
  w->error = why.data;
}

/* A handler's, or auth's, nil, why [, kind [, field]]. */
static void take_handlers_refusal(lua_State *L, struct np_web_call *w, int first, int n) {
  np_refusal_take(L, &w->refusal, w->asking ? "auth" : "body", first, n);
  w->declined = true;
}

void np_web_take(lua_State *L, struct np_task *t, int n) {
  struct np_web_call *w = t->owner;
  int first = lua_gettop(L) - n + 1;
  bool declines = t->mode == NP_SERVING && n > 1 && lua_isnil(L, first) && lua_type(L, first + 1) == LUA_TSTRING;
  if (declines)
    take_handlers_refusal(L, w, first, n);
  else
    np_answer_take(L, &w->answer, n);
}

static void push_handler(lua_State *L, const struct np_web_call *w, int handler) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, w->in->handlers);
  lua_rawgeti(L, -1, handler);
  lua_remove(L, -2);
}

/* Makes of the request alone on the stack the handler and its argument; or, where it is not as declared, plugin:refuse and what it is told,
 * or nothing where the plugin has none: how many arguments, or -1. */
static int push_call(lua_State *L, struct np_task *t) {
  struct np_web_call *w = t->owner;
  if (np_webreq_check(L, t, w->route, w->req, &w->refusal) == 0) {
    push_handler(L, w, w->route->handler);
    lua_insert(L, 1);
    return 1;
  }
  np_web_note_refusal(w);
  lua_settop(L, 0);
  if (w->route->auth) { /* without what auth did */
    np_web_begin_set(w);
    t->ws = w->ws;
  }
  if (!w->in->code->refuse) {
    np_answer_problem(&w->answer, &w->refusal);
    t->take = NULL;
    return -1;
  }
  push_handler(L, w, w->in->code->refuse);
  t->mode = NP_REFUSING;
  return np_web_push_refusal(L, t);
}

static int all_results(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

/* The stack: the request, and what auth returned. */
static int after_auth(lua_State *L, int status, lua_KContext context) {
  struct np_task *t = (struct np_task *)context;
  struct np_web_call *w = t->owner;
  (void)status;
  lua_settop(L, 5);
  if (!lua_toboolean(L, 2)) {
    if (lua_type(L, 3) != LUA_TSTRING)
      return luaL_error(L, "auth has to return who calls, or nil and why, got a %s", luaL_typename(L, 2));
    lua_pushnil(L);
    lua_replace(L, 1);
    lua_remove(L, 2);
    return 4; /* nil, why, kind, field */
  }
  lua_settop(L, 2);
  lua_setfield(L, 1, "caller");
  w->asking = false;
  int n = push_call(L, t);
  if (n < 0) return 0;
  lua_callk(L, n, LUA_MULTRET, context, all_results);
  return all_results(L, LUA_OK, context);
}

static int with_auth(lua_State *L) {
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  struct np_web_call *w = t->owner;
  np_webreq_push(L, t, w->route, &w->match, w->req);
  push_handler(L, w, w->route->auth);
  lua_pushvalue(L, 1);
  w->asking = true;
  lua_callk(L, 1, LUA_MULTRET, (lua_KContext)t, after_auth);
  return after_auth(L, LUA_OK, (lua_KContext)t);
}

/* In the protected call: what is called, and its arguments. */
int np_web_push(lua_State *L, struct np_task *t) {
  struct np_web_call *w = t->owner;
  if (w->route->auth) {
    lua_pushcfunction(L, with_auth);
    return 0;
  }
  np_webreq_push(L, t, w->route, &w->match, w->req);
  return push_call(L, t);
}
