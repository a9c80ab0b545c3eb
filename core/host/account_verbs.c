/* What plugins call of accounts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "host/account.h"
#include "host/host.h"
#include "host/place.h"
#include "host/task.h"
#include "lib/json.h"

#define HANDLE "neap.account"
#define KEY_MAX 256
#define TOKENS "neap.tokens" /* in the registry: the tables that were given out -> "SERIAL ID" */

struct handle {
  char name[64];
};

static const struct np_account_decl *declared(lua_State *L, const struct np_instance *in, const char *name) {
  for (size_t i = 0; i < in->code->account_count; i++)
    if (strcmp(in->code->accounts[i].name, name) == 0) return &in->code->accounts[i];
  luaL_error(L, "account %s: not while the file is loaded: call it from a handler or a job", name);
  return NULL;
}

/* Masking. */

static void hide(lua_State *L, struct np_task *t, int idx, const char *field) {
  size_t len;
  lua_pushstring(L, field);
  const char *s = lua_rawget(L, idx) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
  if (s && len >= 4) np_task_mask(t, s, len);
  lua_pop(L, 1);
}

void np_token_hide(lua_State *L, int idx) {
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  idx = lua_absindex(L, idx);
  hide(L, t, idx, "access");
  hide(L, t, idx, "refresh");
}

/* Which token a table is. */

static void push_tokens(lua_State *L) {
  if (luaL_getsubtable(L, LUA_REGISTRYINDEX, TOKENS)) return;
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

static void push_token(lua_State *L, const struct np_token_call *c) {
  struct np_error err;
  luaL_checkstack(L, 8, NULL);
  if (np_json_decode(L, c->token->json, c->token->len, &err) < 0) luaL_error(L, "account %s: %s", c->account->name, err.text);
  int at = lua_gettop(L);
  np_token_hide(L, at);
  push_tokens(L);
  lua_pushvalue(L, at);
  lua_pushfstring(L, "%I %s", (LUAI_UACINT)c->token->serial, c->account->id);
  lua_rawset(L, -3);
  lua_settop(L, at);
}

static void close_call(lua_State *L, struct np_wait *w) {
  (void)L;
  struct np_token_call *c = (struct np_token_call *)w;
  np_broker_lock(w->broker);
  np_token_unref(c->token);
  np_broker_unlock(w->broker);
  free(c->why);
}

static int answer(lua_State *L, int status, lua_KContext context) {
  (void)status;
  const struct np_token_call *c = (const struct np_token_call *)context;
  if (c->token) {
    push_token(L, c);
    return 1;
  }
  const char *why = c->why ? c->why : "its refresh has not ended, and no time is left in this call";
  lua_pushnil(L);
  lua_pushfstring(L, "account %s: %s", c->account->name, why);
  lua_pushstring(L, c->why ? c->code : "timeout");
  return 3;
}

/* account:token([key]) -> token, the table that refresh has returned last; or nil, why, code. It waits while a refresh is under way, of which there is
 * one at a time for all lanes. code: "denied" where the vendor has refused the account, "quota" where it is asked too often, "again" where it could not be
 * reached, until the back-off is over, "timeout" where the call has no time left.
 * @param key? string
 * @return neap.Token? token, string? why, string? code
 */
static int account_token(lua_State *L) {
  struct np_env *env = np_env(L);
  struct np_instance *in = (struct np_instance *)env;
  const struct handle *h = luaL_checkudata(L, 1, HANDLE);
  size_t len;
  const char *key = luaL_optlstring(L, 2, "", &len), *why = env->forbidden(env, L, "http");
  if (why) return luaL_error(L, "account:token: %s", why);
  if (!lua_isyieldable(L)) return luaL_error(L, "account:token: not inside a function that C code calls, for it may wait");
  if (len > KEY_MAX) return luaL_error(L, "account:token: the key is longer than %d bytes", KEY_MAX);
  if (memchr(key, 0, len)) return luaL_error(L, "account:token: the key holds a zero byte");
  const struct np_account_decl *decl = declared(L, in, h->name);
  struct np_error err;
  lua_settop(L, 2);
  struct np_token_call *c = np_wait_push(L, sizeof *c, close_call);
  c->account = np_account_find(in->lane, in->code->instance, h->name, key, len, decl->early, &err);
  if (!c->account) return luaL_error(L, "account:token: %s", err.text);
  if (np_refresh_is_of(in->running, c->account))
    return luaL_error(L, "account:token: not in its own refresh: it would wait for itself");
  if (np_account_ask(c, in, decl)) return np_wait_yield(L, &c->wait, (int64_t)(env->time_left(env) * 1000), answer);
  return answer(L, LUA_OK, (lua_KContext)c);
}

/* account:expired(token): the vendor says that this token, the table that account:token gave, is no good. The next account:token refreshes; once, also
 * where many calls say the same of the same token.
 * @param token neap.Token
 */
static int account_expired(lua_State *L) {
  struct np_instance *in = (struct np_instance *)np_env(L);
  const struct handle *h = luaL_checkudata(L, 1, HANDLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  declared(L, in, h->name);
  lua_settop(L, 2);
  push_tokens(L);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, 3) != LUA_TSTRING)
    return luaL_error(L, "account:expired: expected the table that account:token gave, no copy of it");
  char *id;
  int64_t serial = strtoll(lua_tostring(L, -1), &id, 10);
  if (!np_account_expired(in->lane->host->broker, in->code->instance, h->name, id + 1, serial))
    return luaL_error(L, "account:expired: this token is not account %s's", h->name);
  return 0;
}

int np_account_handle(lua_State *L) {
  static const luaL_Reg methods[] = {{"token", account_token}, {"expired", account_expired}, {NULL, NULL}};
  size_t len;
  const char *name = luaL_checklstring(L, 1, &len);
  struct handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  if (len >= sizeof h->name) return np_place_raise(L, "plugin:account: the name is longer than %d bytes", (int)sizeof h->name - 1);
  memcpy(h->name, name, len + 1);
  if (luaL_newmetatable(L, HANDLE)) {
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  return 1;
}
