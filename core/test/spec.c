/* One spec file. */
#include "test/spec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/zone.h"
#include "host/sandbox.h"
#include "lib/time.h"
#include "test/spec_parts.h"

#define PART(name)                                                                                                                 \
  { #name, _binary_core_test_##name##_lua_start, _binary_core_test_##name##_lua_end }
extern const char _binary_core_test_test_lua_start[], _binary_core_test_test_lua_end[];
extern const char _binary_core_test_assert_lua_start[], _binary_core_test_assert_lua_end[];
extern const char _binary_core_test_http_lua_start[], _binary_core_test_http_lua_end[];
extern const char _binary_core_test_recording_lua_start[], _binary_core_test_recording_lua_end[];

#define PRELUDE "=neap.test"
#define TEST_SECONDS 20         /* real ones, that one test may take */
#define MEMORY_MAX (512 << 10)  /* KiB of the spec's own state */
#define HOOK_EVERY 100000       /* instructions */
#define BEGINNING 1767225600000 /* 2026-01-01T00:00:00Z: when each test begins */
#define SPEC_BYTES_MAX ((size_t)4 << 20)

static int seconds_of(const struct np_spec *s) { return s->run->seconds > 0 ? s->run->seconds : TEST_SECONDS; }

/* A test that does not end by itself is ended; past it each further instruction raises, so that a pcall cannot go on. */
static void hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct np_spec *s = np_spec_of(L);
  const char *why = NULL;
  char late[100];
  snprintf(late, sizeof late, "the test was ended: it ran for %d s; is there a loop without an end?", seconds_of(s));
  if (s->over || np_work_us() > s->until_us)
    why = late;
  else if (lua_gc(L, LUA_GCCOUNT) > MEMORY_MAX)
    why = "the test was ended: it used up 512 MiB of memory";
  if (!why) return;
  s->over = true;
  lua_sethook(L, hook, LUA_MASKCOUNT, 1);
  luaL_where(L, 0);
  lua_pushstring(L, why);
  lua_concat(L, 2);
  lua_error(L);
}

static void begin_budget(struct np_spec *s) {
  s->until_us = np_work_us() + seconds_of(s) * INT64_C(1000000);
  s->over = false;
  lua_sethook(s->L, hook, LUA_MASKCOUNT, HOOK_EVERY);
}

struct np_world *np_spec_world(lua_State *L) {
  struct np_spec *s = np_spec_of(L);
  if (!s->world) luaL_error(L, "there is no world here: each `it` has one of its own; use neap.test in it, or in before_each");
  s->calling = L;
  return s->world;
}

/* Running */

/* Past "neap.test:12: ", which is what luaL_error names where the prelude has called; or the message itself. */
static const char *without_ours(const char *message) {
  const char *place = PRELUDE + 1; /* "=" */
  size_t n = strlen(place);
  if (strncmp(message, place, n) != 0 || message[n] != ':') return message;
  size_t digits = strspn(message + n + 1, "0123456789");
  const char *after = message + n + 1 + digits;
  return digits && strncmp(after, ": ", 2) == 0 ? after + 2 : message;
}

/* The message, and which lines of the spec led to it. */
static int with_lines(lua_State *L) {
  const char *file = np_spec_of(L)->run->file, *message = luaL_tolstring(L, 1, NULL), *plain = without_ours(message);
  struct np_buf b = {0};
  lua_Debug ar;
  int shown = 0, last = 0;
  bool placed = plain == message;
  if (placed) np_buf_adds(&b, message);
  for (int level = 1; shown < 8 && lua_getstack(L, level, &ar); level++) {
    char place[300];
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || ar.source[0] != '@' || strcmp(ar.source + 1, file) != 0 || ar.currentline == last) continue;
    last = ar.currentline;
    snprintf(place, sizeof place, "%.280s:%d", ar.short_src, ar.currentline);
    if (!placed) {
      np_buf_addf(&b, "%s: %s", place, plain);
      placed = true;
      continue;
    }
    if (strncmp(message, place, strlen(place)) == 0 && shown == 0) continue;
    np_buf_addf(&b, "\n  in %s:%d", file, ar.currentline);
    shown++;
  }
  if (!placed) np_buf_adds(&b, plain);
  lua_pushlstring(L, b.data, b.len);
  np_buf_free(&b);
  return 1;
}

/* core.try(fn) -> nil, or what went wrong */
static int try(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_pushcfunction(L, with_lines);
  lua_insert(L, 1);
  begin_budget(np_spec_of(L));
  int status = lua_pcall(L, 0, 0, 1);
  begin_budget(np_spec_of(L)); /* for what goes on with the next one */
  return status == LUA_OK ? 0 : 1;
}

/* core.begin(): a fresh world, the same each time. */
static int begin(lua_State *L) {
  struct np_spec *s = np_spec_of(L);
  struct np_error err;
  np_clock_set(BEGINNING);
  np_random_seed(1);
  begin_budget(s);
  s->world = np_world_new(s->run->sources, s->run->plugins, np_spec_script, s, &err);
  if (!s->world) return luaL_error(L, "%s", err.text);
  return 0;
}

static int finish(lua_State *L) {
  struct np_spec *s = np_spec_of(L);
  struct np_world *w = s->world;
  s->world = NULL;
  np_world_free(w);
  begin_budget(s);
  lua_gc(L, LUA_GCSTEP, 50);
  return 0;
}

/* core.trouble() -> why the test fails, whatever it says itself; nil */
static int trouble(lua_State *L) {
  const struct np_world *w = np_spec_of(L)->world;
  lua_pushstring(L, w ? w->trouble : NULL);
  return 1;
}

/* core.line(fn) -> where it is defined */
static int line_of(lua_State *L) {
  lua_Debug ar;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_getinfo(L, ">S", &ar);
  lua_pushinteger(L, ar.linedefined);
  return 1;
}

static int work(lua_State *L) {
  lua_pushinteger(L, np_work_us());
  return 1;
}

/* core.report(name, line, us, error) */
static int report(lua_State *L) {
  const struct np_spec_run *run = np_spec_of(L)->run;
  run->told(run->arg, &(struct np_test_result){.file = run->file,
                                               .name = luaL_checkstring(L, 1),
                                               .line = (int)luaL_checkinteger(L, 2),
                                               .us = luaL_checkinteger(L, 3),
                                               .error = lua_tostring(L, 4)});
  return 0;
}

/* The state */

static char *read_whole(const char *path, size_t *len) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct np_buf b = {0};
  ssize_t n = -1;
  while (fd >= 0 && (n = read(fd, np_buf_reserve(&b, 16384), 16384)) > 0 && b.len < SPEC_BYTES_MAX) b.len += (size_t)n;
  int why = n < 0 ? errno : n > 0 ? EFBIG : 0;
  if (fd >= 0) close(fd);
  if (why) {
    np_buf_free(&b);
    errno = why;
    return NULL;
  }
  *len = b.len;
  np_buf_addc(&b, 0);
  return b.data;
}

static void run_text(lua_State *L, const char *text, size_t len, const char *path) {
  lua_pushfstring(L, "@%s", path);
  int status = luaL_loadbufferx(L, text, len, lua_tostring(L, -1), "t");
  lua_remove(L, -2);
  if (status != LUA_OK) lua_error(L);
}

/* Pushes the path of a file beside the spec. */
static void push_beside(lua_State *L, const char *name) {
  const char *file = np_spec_of(L)->run->file, *slash = strrchr(file, '/');
  lua_pushfstring(L, "%s/%s", slash ? lua_pushlstring(L, file, (size_t)(slash - file)) : ".", name);
  if (slash) lua_remove(L, -2);
}

/* core.read(name) -> the text of a file beside the spec */
static int read_beside(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  size_t len = 0;
  if (name[0] == '/' || strstr(name, "..")) return luaL_error(L, "%s: only what stands beside the spec, or below it", name);
  push_beside(L, name);
  char *text = read_whole(lua_tostring(L, -1), &len);
  if (!text) return luaL_error(L, "%s: cannot be read: %s", lua_tostring(L, -1), strerror(errno));
  lua_pushlstring(L, text, len);
  free(text);
  return 1;
}

/* A library of the plugins, or a file beside the spec. */
static int load_library(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  const struct np_file *f = np_sources_find(np_spec_of(L)->run->sources, true, name);
  if (f && f->error) return luaL_error(L, "%s", f->error);
  if (f) {
    run_text(L, f->source.text, f->source.len, f->source.path);
  } else {
    size_t len = 0;
    luaL_gsub(L, name, ".", "/");
    push_beside(L, lua_pushfstring(L, "%s.lua", lua_tostring(L, -1)));
    char *text = strstr(name, "..") ? NULL : read_whole(lua_tostring(L, -1), &len);
    if (!text) return luaL_error(L, "no library \"%s\" in plugins/lib, nor beside the spec", name);
    lua_pushfstring(L, "@%s", lua_tostring(L, -1));
    int status = luaL_loadbufferx(L, text, len, lua_tostring(L, -1), "t");
    free(text);
    if (status != LUA_OK) return lua_error(L);
  }
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int print(lua_State *L) {
  for (int i = 1, n = lua_gettop(L); i <= n; i++) {
    fprintf(stderr, "%s%s", i > 1 ? "\t" : "", luaL_tolstring(L, i, NULL));
    lua_pop(L, 1);
  }
  fputc('\n', stderr);
  return 0;
}

static const char *no_http(struct np_env *env, lua_State *L, const char *verb) {
  (void)env, (void)L, (void)verb;
  return "not in a spec: p:request asks the plugin, and t.http answers what the plugin asks";
}

static bool reach_nothing(struct np_env *env, const char *url) {
  (void)env, (void)url;
  return false;
}

static double no_time(struct np_env *env) {
  (void)env;
  return 0;
}

/* core.part(name) -> the function that is one of the prelude's files */
static int part(lua_State *L) {
  static const struct { const char *name, *start, *end; } parts[] = {PART(test), PART(assert), PART(http), PART(recording)};
  const char *name = luaL_checkstring(L, 1);
  size_t i = 0, n = sizeof parts / sizeof *parts;
  while (i < n && strcmp(parts[i].name, name) != 0) i++;
  luaL_argcheck(L, i < n, 1, "no such part");
  int status = luaL_loadbufferx(L, parts[i].start, (size_t)(parts[i].end - parts[i].start), PRELUDE, "t");
  return status == LUA_OK ? 1 : lua_error(L);
}

/* Everything in one protected call; the spec's own errors are caught and reported inside. */
static int run_all(lua_State *L) {
  struct np_spec *s = np_spec_of(L);
  static const luaL_Reg core[] = {{"try", try},   {"begin", begin},   {"finish", finish}, {"trouble", trouble},  {"line", line_of},
                                  {"work", work}, {"report", report}, {"part", part},     {"read", read_beside}, {NULL, NULL}};
  np_sandbox_open(L, load_library, print);
  s->in.env.now_slot = np_time_now_slot(L);
  size_t len;
  lua_pushcfunction(L, part);
  lua_pushliteral(L, "test");
  lua_call(L, 1, 1);
  luaL_newlib(L, core);
  np_spec_verbs(L);
  np_spec_look(L);
  lua_call(L, 1, 3); /* the module, the function that runs all, the one that answers HTTP */
  s->answer = luaL_ref(L, LUA_REGISTRYINDEX);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, "neap.test");
  lua_pop(L, 1);
  char *text = read_whole(s->run->file, &len);
  if (!text) return luaL_error(L, "%s: cannot be read: %s", s->run->file, strerror(errno));
  lua_pushfstring(L, "@%s", s->run->file);
  int status = luaL_loadbufferx(L, text, len, lua_tostring(L, -1), "t");
  free(text);
  if (status != LUA_OK) return lua_error(L);
  lua_remove(L, -2);
  lua_call(L, 1, 0);
  return 0;
}

int np_spec_run(const struct np_spec_run *run, struct np_error *err) {
  struct np_spec s = {.run = run};
  s.code.limits = np_limits_default(NP_VENDOR);
  s.in.code = &s.code;
  s.in.env = (struct np_env){.name = "spec", .forbidden = no_http, .may_reach = reach_nothing, .time_left = no_time};
  s.L = luaL_newstate();
  if (!s.L) return np_fail(err, "out of memory");
  *(struct np_env **)lua_getextraspace(s.L) = &s.in.env;
  s.in.L = s.L;
  np_clock_set(BEGINNING);
  np_random_seed(1);
  begin_budget(&s);
  lua_pushcfunction(s.L, with_lines);
  lua_pushcfunction(s.L, run_all);
  if (lua_pcall(s.L, 0, 0, 1) != LUA_OK)
    run->told(run->arg, &(struct np_test_result){.file = run->file, .name = "the file", .error = lua_tostring(s.L, -1)});
  np_world_free(s.world);
  lua_close(s.L);
  np_clock_set(0);
  np_random_seed(0);
  return 0;
}
