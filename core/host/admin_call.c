/* `call`: a command of a connection. What the lane answers is passed on as it comes, if whoever asked is still there. */
#include "host/admin_talk.h"

#include <string.h>

#include <lauxlib.h>

#include "host/calls.h"
#include "lib/json.h"

static uint64_t last_id;

void np_talk_call_new(struct np_talk *t, const char *connection, void (*answered)(struct np_call *call)) {
  t->id = ++last_id;
  t->call = np_call_new(connection);
  t->call->done = answered;
  t->call->arg = t->admin;
  t->call->id = t->id;
}

static int read_name(lua_State *L, int request, const char *field, const char **name, struct np_error *err) {
  int type = lua_getfield(L, request, field);
  *name = type == LUA_TSTRING ? lua_tostring(L, -1) : NULL; /* it stays in the request */
  lua_pop(L, 1);
  return type == LUA_TSTRING || type == LUA_TNIL ? 0
                                                 : np_fail(err, "%s: expected a string, got a %s", field, lua_typename(L, type));
}

/* Adds the fields of request[field] to the table on top. */
static int add_args(lua_State *L, int request, const char *field, bool texts, struct np_error *err) {
  int all = lua_gettop(L), type = lua_getfield(L, request, field);
  if (type != LUA_TNIL && (type != LUA_TTABLE || np_json_is_array(L, -1)))
    return np_fail(err, "%s: expected an object, got %s", field, type == LUA_TTABLE ? "an array" : luaL_typename(L, -1));
  for (lua_pushnil(L); type != LUA_TNIL && lua_next(L, all + 1); lua_pop(L, 1)) {
    const char *name = lua_tostring(L, -2);
    if (texts && lua_type(L, -1) != LUA_TSTRING) return np_fail(err, "%s.%.80s: expected a string", field, name);
    lua_pushvalue(L, -2);
    if (lua_rawget(L, all) != LUA_TNIL) return np_fail(err, "%.80s: given twice", name);
    lua_pop(L, 1);
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, all);
  }
  lua_settop(L, all);
  return 0;
}

static void done(struct np_call *call) {
  struct np_talk *t = np_talk_find(call->arg, call->id);
  if (t) {
    np_buf_add(&t->out, call->answer.data, call->answer.len);
    np_talk_end(t);
  }
  np_call_free(call);
}

int np_talk_call_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  const char *connection, *name, *args;
  luaL_checkstack(L, 12, NULL);
  if (read_name(L, request, "connection", &connection, err) < 0 || read_name(L, request, "name", &name, err) < 0) return -1;
  if (!connection) return np_fail(err, "connection: it is missing");
  lua_newtable(L);
  if (add_args(L, request, "args", false, err) < 0) return -1;
  lua_getfield(L, request, "words");
  bool from_text = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (add_args(L, request, "words", true, err) < 0 || np_json_encode(L, -1, err) < 0) return -1;
  args = lua_tostring(L, -1);
  np_talk_call_new(t, connection, done);
  t->call->name = name ? np_strdup(name) : NULL;
  t->call->args = np_strdup(args);
  t->call->from_text = from_text;
  return 0;
}

void np_talk_call(struct np_talk *t) {
  struct np_call *call = t->call;
  t->call = NULL;
  t->state = NP_TALK_CALLING;
  np_host_call(t->host, call);
}
