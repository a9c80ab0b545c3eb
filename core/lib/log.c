/* neap.log: log.debug, info, warn, error(text [, { name = value, … }]): one line of the host's log with the plugin's name in it. */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/log.h"
#include "base/utf8.h"
#include "lib/env.h"
#include "lib/json.h"
#include "lib/modules.h"

int luaopen_neap_log(lua_State *L);

#define FIELDS_MOST 16
#define VALUE_MOST 1000

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Replaces the string at the top by one that fits a line: cut, without zero bytes; in a sentence also without control characters. */
static void make_fit(lua_State *L, bool sentence) {
  size_t len, n;
  const char *s = lua_tolstring(L, -1, &len);
  bool fits = len <= VALUE_MOST;
  for (size_t i = 0; fits && i < len; i++) fits = s[i] && (!sentence || !iscntrl((unsigned char)s[i]));
  if (fits) return;
  luaL_Buffer b;
  luaL_buffinitsize(L, &b, VALUE_MOST + 8);
  for (size_t i = 0; i < len; i += n) {
    n = np_utf8_len(s + i, len - i);
    if (!n) n = 1;
    if (i + n > VALUE_MOST) {
      luaL_addstring(&b, "…");
      break;
    }
    if (!s[i] || (sentence && iscntrl((unsigned char)s[i])))
      luaL_addchar(&b, ' ');
    else
      luaL_addlstring(&b, s + i, n);
  }
  luaL_pushresult(&b);
  lua_replace(L, -2);
}

/* Replaces the value at the top by its text. A table that says nothing of itself is shown as JSON, where it can be. */
static void make_text(lua_State *L) {
  struct np_error err;
  bool plain = lua_istable(L, -1);
  if (plain && luaL_getmetafield(L, -1, "__tostring") != LUA_TNIL) {
    lua_pop(L, 1);
    plain = false;
  }
  if (!plain || np_json_encode(L, -1, &err)) luaL_tolstring(L, -1, NULL);
  lua_replace(L, -2);
  make_fit(L, false);
}

/* Names reach a terminal as they are. */
static void check_name(lua_State *L, const char *name, size_t len) {
  size_t i = 0;
  while (i < len && (isalnum((unsigned char)name[i]) || name[i] == '_' || name[i] == '.' || name[i] == '-')) i++;
  if (!len || i < len || len > 60)
    luaL_error(L, "log: the name of a field has to be of letters, digits, \"_\", \".\" and \"-\", at most 60 of them");
}

/* Leaves the sorted names on the stack, as an array that points into the table at `fields`. */
static const char **push_names(lua_State *L, int fields, size_t *count) {
  size_t n = 0, len;
  for (lua_pushnil(L); lua_next(L, fields); lua_pop(L, 1), n++) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "log: fields have names: log.info(\"polled\", { readings = 12 })");
    const char *name = lua_tolstring(L, -2, &len);
    check_name(L, name, len);
  }
  const char **names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
  *count = n;
  n = 0;
  for (lua_pushnil(L); lua_next(L, fields); lua_pop(L, 1)) names[n++] = lua_tostring(L, -2);
  qsort(names, n, sizeof *names, by_name);
  return names;
}

static bool is_ours(const char *name) {
  static const char *const ours[] = {"time", "level", "event", "plugin"};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (strcmp(ours[i], name) == 0) return true;
  return false;
}

/* A log line must not be why a handler fails: too many fields are counted, names of the host's own get a "_". */
bool np_log_line(lua_State *L, int at, enum np_log_level level) {
  int fields = at + 1;
  const char *pairs[2 * (FIELDS_MOST + 2)];
  size_t n = 0, count = 0;
  char more[32];
  luaL_checkany(L, at);
  lua_settop(L, fields);
  if (!lua_isnil(L, fields)) luaL_checktype(L, fields, LUA_TTABLE);
  luaL_checkstack(L, 3 * FIELDS_MOST + 12, "log");
  pairs[2 * n] = "plugin";
  pairs[2 * n++ + 1] = np_env(L)->name;
  const char **names = lua_istable(L, fields) ? push_names(L, fields, &count) : NULL;
  if (!np_log_wants(level) || (np_env(L)->may_log && !np_env(L)->may_log(np_env(L)))) return false;
  size_t shown = count < FIELDS_MOST ? count : FIELDS_MOST;
  for (size_t i = 0; i < shown; i++) names[i] = lua_pushstring(L, names[i]); /* a __tostring may change the table */
  for (size_t i = 0; i < shown; i++) {
    pairs[2 * n] = is_ours(names[i]) ? lua_pushfstring(L, "%s_", names[i]) : names[i];
    lua_pushstring(L, names[i]);
    lua_rawget(L, fields);
    make_text(L);
    pairs[2 * n++ + 1] = lua_tostring(L, -1);
  }
  if (count > FIELDS_MOST) {
    snprintf(more, sizeof more, "%zu", count - FIELDS_MOST);
    pairs[2 * n] = "fields_left_out";
    pairs[2 * n++ + 1] = more;
  }
  lua_pushvalue(L, at);
  luaL_tolstring(L, -1, NULL);
  make_fit(L, true);
  np_log_pairs(level, lua_tostring(L, -1), pairs, n);
  return true;
}

/* log.debug(text [, fields]), log.info, log.warn, log.error: writes a line.
 * @param text any
 * @param fields? table<string, any> shown by their names
 * @return boolean written false where the log's level or limits.log leaves the line out
 */
static int write_line(lua_State *L) {
  lua_pushboolean(L, np_log_line(L, 1, (enum np_log_level)lua_tointeger(L, lua_upvalueindex(1))));
  return 1;
}

int luaopen_neap_log(lua_State *L) {
  static const char *const levels[] = {[NP_DEBUG] = "debug", [NP_INFO] = "info", [NP_WARN] = "warn", [NP_ERROR] = "error"};
  lua_createtable(L, 0, 4);
  for (int level = NP_DEBUG; level <= NP_ERROR; level++) {
    lua_pushinteger(L, level);
    lua_pushcclosure(L, write_line, 1);
    lua_setfield(L, -2, levels[level]);
  }
  return 1;
}
