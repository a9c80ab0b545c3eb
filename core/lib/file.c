/* neap.file: file.append { folder =, name =, lines = { { id, text }, … } } adds lines to a file of that folder, and returns when they are on disk (fsync):
 * { written, known, cut }, or nil, "what: why", and a code: folder, name, full, busy, timeout, other. Then nothing was added. It looks as if it blocked,
 * while the lane does other work. Only the folder that a setting named `folder` has in neap.lua can be written to; a default of the plugin's does not count.
 * A line whose id stands near the file's end already (in the last MiB) is not written again; ids are of one length and stand at the same place
 * of each line. What a kill has left of a line is cut off. Options: head (the first line of each file), bytes_most and
 * daily (when the file is put aside as name-20260301T080000Z.ext), timeout (seconds, 30 where absent). */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "io/append.h"
#include "lib/env.h"
#include "lib/spend.h"

int luaopen_neap_file(lua_State *L);

#define CALL "neap.file.call"
#define LINES_MOST 100000

struct call {
  struct np_env *env;             /* borrowed */
  struct np_append_call *running; /* NULL before and after */
  void *ticket;
  bool answered;
  struct np_append_result result;
};

static int close_call(lua_State *L) {
  struct call *c = luaL_checkudata(L, 1, CALL);
  if (c->running) np_append_cancel(c->running);
  c->running = NULL;
  return 0;
}

static void on_done(void *arg, const struct np_append_result *result) {
  struct call *c = arg;
  c->running = NULL;
  c->answered = true;
  c->result = *result;
  c->env->wake(c->ticket);
}

static int failed(lua_State *L, const char *why, const char *code) {
  lua_pushnil(L);
  lua_pushfstring(L, "file: %s", why);
  lua_pushstring(L, code);
  return 3;
}

/* @class neap.Appended: what has become of lines.
 * @field written integer lines
 * @field known integer lines that stood there already
 * @field cut integer bytes that were left of a line
 */
static int answered(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct call *c = (struct call *)context;
  if (!c->answered) return luaL_error(L, "file: woken before it was done");
  if (c->result.code) return failed(L, c->result.why, c->result.code);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, c->result.written);
  lua_setfield(L, -2, "written");
  lua_pushinteger(L, c->result.known);
  lua_setfield(L, -2, "known");
  lua_pushinteger(L, c->result.cut);
  lua_setfield(L, -2, "cut");
  return 1;
}

/* A text of the options, which keep it alive; NULL where it is absent. */
static const char *text(lua_State *L, const char *name, bool needed) {
  size_t len;
  lua_pushstring(L, name);
  int type = lua_rawget(L, 1);
  if (type == LUA_TNIL && !needed) {
    lua_pop(L, 1);
    return NULL;
  }
  if (type != LUA_TSTRING) luaL_error(L, "file: %s has to be a text", name);
  const char *s = lua_tolstring(L, -1, &len);
  if (strlen(s) != len || strpbrk(s, "\r\n")) luaL_error(L, "file: %s has a line break or a zero byte in it", name);
  lua_pop(L, 1);
  return s;
}

static lua_Number number(lua_State *L, const char *name, lua_Number otherwise) {
  lua_pushstring(L, name);
  int type = lua_rawget(L, 1);
  lua_Number n = type == LUA_TNIL ? otherwise : lua_tonumber(L, -1);
  if ((type != LUA_TNIL && type != LUA_TNUMBER) || !(n >= 0) || n > 1e15)
    luaL_error(L, "file: %s has to be a number, 0 or more", name);
  lua_pop(L, 1);
  return n;
}

static const char *member(lua_State *L, lua_Integer i, int at, size_t *len) {
  if (lua_rawgeti(L, -1, at) != LUA_TSTRING) luaL_error(L, "file: lines[%I] has to be { id, text }", (LUAI_UACINT)i);
  const char *s = lua_tolstring(L, -1, len);
  lua_pop(L, 1);
  return s;
}

/* The lines' table is at 3 and stays there: it keeps the texts alive. */
static struct np_append_line *read_lines(lua_State *L, size_t *count) {
  lua_pushliteral(L, "lines");
  if (lua_rawget(L, 1) != LUA_TTABLE) luaL_error(L, "file: lines has to be a list of { id, text }");
  *count = lua_rawlen(L, -1);
  if (*count > LINES_MOST) luaL_error(L, "file: at most %d lines at once", LINES_MOST);
  np_spend(L, (lua_Integer)*count);
  struct np_append_line *lines = lua_newuserdatauv(L, (*count + 1) * sizeof *lines, 0);
  for (lua_Integer i = 1; i <= (lua_Integer)*count; i++) {
    struct np_append_line *l = &lines[i - 1];
    if (lua_rawgeti(L, 3, i) != LUA_TTABLE) luaL_error(L, "file: lines[%I] has to be { id, text }", (LUAI_UACINT)i);
    l->id = member(L, i, 1, &l->id_len);
    l->text = member(L, i, 2, &l->len);
    lua_pop(L, 1);
    if (memchr(l->text, '\n', l->len)) luaL_error(L, "file: lines[%I] has a line break in it", (LUAI_UACINT)i);
    if (!l->id_len || !memmem(l->text, l->len, l->id, l->id_len))
      luaL_error(L, "file: the id of lines[%I] does not stand in it", (LUAI_UACINT)i);
  }
  return lines;
}

static void check_target(lua_State *L, struct np_env *env, const struct np_append *a) {
  if (*a->folder != '/' || strstr(a->folder, "/../") ||
      (strlen(a->folder) >= 3 && strcmp(a->folder + strlen(a->folder) - 3, "/..") == 0))
    luaL_error(L, "file: the folder \"%s\" has to be a whole path, from / on and without \"..\"", a->folder);
  if (!env->may_write(env, L, a->folder))
    luaL_error(L, "file: %s may not write to \"%s\": only the folder that a setting named folder has in neap.lua", env->name,
               a->folder);
  if (!np_append_is_name(a->name)) luaL_error(L, "file: \"%s\" is no plain name of a file: letters, digits, \". _ -\"", a->name);
}

/* @class neap.AppendOptions: what file.append takes.
 * @field folder string as the setting `folder` says it
 * @field name string "readings.csv"
 * @field lines string[][] a list of { id, text }
 * @field head? string the first line of each file
 * @field bytes_most? number a file is put aside before it grows past that
 * @field daily? boolean a file that was last changed on an earlier day (UTC) is put aside
 * @field timeout? number seconds; 30 where absent
 */
/* file.append(options): adds lines, and waits until they are on disk.
 * @param options neap.AppendOptions
 * @return neap.Appended? done, string? why, string? code
 */
static int append(lua_State *L) {
  struct np_env *env = np_env(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  np_env_may_wait(L, env, "file", env->appender != NULL);
  struct call *c = lua_newuserdatauv(L, sizeof *c, 0);
  *c = (struct call){.env = env};
  luaL_setmetatable(L, CALL);
  lua_toclose(L, 2);
  struct np_append a = {.folder = text(L, "folder", true), .name = text(L, "name", true), .head = text(L, "head", false)};
  check_target(L, env, &a);
  a.bytes_most = (int64_t)number(L, "bytes_most", 0);
  double timeout = number(L, "timeout", 30), left = env->time_left(env);
  lua_pushliteral(L, "daily");
  lua_rawget(L, 1);
  a.daily = lua_toboolean(L, -1);
  lua_pop(L, 1);
  a.lines = read_lines(L, &a.count);
  if (!(left > 0) || !(timeout > 0)) return failed(L, "no time is left in this call", "timeout");
  struct np_error err;
  c->running = np_append_start(env->appender, &a, timeout < left ? timeout : left, on_done, c, &err);
  if (!c->running) return failed(L, err.text, "other");
  c->ticket = env->ticket(env);
  if (!c->ticket) return luaL_error(L, "file: not in this call");
  return lua_yieldk(L, 0, (lua_KContext)c, answered);
}

int luaopen_neap_file(lua_State *L) {
  static const luaL_Reg call_methods[] = {{"__gc", close_call}, {"__close", close_call}, {NULL, NULL}};
  static const luaL_Reg verbs[] = {{"append", append}, {NULL, NULL}};
  luaL_newmetatable(L, CALL);
  luaL_setfuncs(L, call_methods, 0);
  lua_pop(L, 1);
  luaL_newlib(L, verbs);
  return 1;
}
