/* load. The compiler is C that no hook sees, and a text of some MB can be made that takes it minutes, for a name is looked for in all functions
 * around its place: so it is fed in small pieces, and each counts on the call's budget. */
#include <string.h>

#include <lauxlib.h>

#include "host/sandbox.h"
#include "host/sandbox_parts.h"
#include "host/task.h"

#define PIECE 1024 /* bytes between looks at the budget */

struct text {
  const char *at;
  size_t left;
};

static const char *next_piece(lua_State *L, struct text *t, size_t *size) {
  const char *piece = t->at;
  *size = t->left < PIECE ? t->left : PIECE;
  t->at += *size, t->left -= *size;
  np_task_spend(L, (int64_t)*size);
  return piece;
}

static const char *read_text(lua_State *L, void *ud, size_t *size) { return next_piece(L, ud, size); }

int np_sandbox_load(lua_State *L, const char *text, size_t len, const char *name) {
  struct text t = {text, len};
  return lua_load(L, read_text, &t, name, "t");
}

/* The function at 1 gives the text piece by piece; the one that is being read is kept at 5. */
static const char *read_function(lua_State *L, void *ud, size_t *size) {
  struct text *t = ud;
  if (!t->left) {
    luaL_checkstack(L, 2, "too many nested functions");
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      *size = 0;
      return NULL;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "reader function must return a string");
    lua_replace(L, 5);
    t->at = lua_tolstring(L, 5, &t->left);
  }
  return next_piece(L, t, size);
}

/* load(chunk [, name [, mode [, env]]]): text only, whatever the mode asks. */
int np_sandbox_load_verb(lua_State *L) {
  int given = lua_gettop(L), status;
  size_t len;
  lua_settop(L, 5);
  const char *text = lua_isstring(L, 1) ? lua_tolstring(L, 1, &len) : NULL;
  luaL_optstring(L, 3, "bt");
  if (text) {
    status = np_sandbox_load(L, text, len, luaL_optstring(L, 2, text));
  } else {
    struct text t = {0};
    const char *name = luaL_optstring(L, 2, "=(load)");
    luaL_checktype(L, 1, LUA_TFUNCTION);
    status = lua_load(L, read_function, &t, name, "t");
  }
  if (np_task_is_over(L)) return np_task_leave(L);
  if (status != LUA_OK) {
    luaL_pushfail(L);
    lua_insert(L, -2);
    return 2;
  }
  if (given >= 4) {
    lua_pushvalue(L, 4);
    if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
  }
  return 1;
}
