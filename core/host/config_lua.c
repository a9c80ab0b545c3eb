/* Runs neap.lua within bounds: a configuration that does not end is an error, not a host that hangs. */
#include "host/config_lua.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/buf.h"
#include "base/duration.h"
#include "base/log.h"
#include "base/near.h"
#include "host/config.h"

#define MEMORY_MAX ((size_t)64 << 20)
#define INSTRUCTIONS_MAX 50000000
#define STEP 1000000
#define FILE_MAX_BYTES ((size_t)1 << 20)
#define CHUNK "neap.lua" /* Lua cuts longer names: the real one is put in its place afterwards */

struct bounds {
  const struct np_config_run *run;
  size_t used;
  int steps;
  struct np_buf text; /* of a file that is being read: here so that it is freed when something raises */
};

static void *bounded_alloc(void *ud, void *p, size_t old, size_t n) {
  struct bounds *b = ud;
  if (!p) old = 0;
  if (n == 0) {
    free(p);
    b->used -= old;
    return NULL;
  }
  if (n > old && b->used - old + n > MEMORY_MAX) return NULL;
  void *q = realloc(p, n);
  if (q) b->used += n - old;
  return q;
}

static struct bounds *bounds_of(lua_State *L) {
  void *ud;
  lua_getallocf(L, &ud);
  return ud;
}

/* Past the bound every further instruction raises, so that a pcall cannot go on. */
static void count_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct bounds *b = bounds_of(L);
  if (++b->steps < INSTRUCTIONS_MAX / STEP) return;
  lua_sethook(L, count_hook, LUA_MASKCOUNT, 1);
  luaL_where(L, 0); /* a hook has no frame of its own: the running function stands at level 0 */
  lua_pushliteral(L, "still running after 50 million instructions: is there a loop without an end?");
  lua_concat(L, 2);
  lua_error(L);
}

static int env_get(lua_State *L) {
  const char *name = luaL_checkstring(L, 1), *value = getenv(name);
  if (value && *value) {
    np_mask_secret(value, strlen(value));
    lua_pushstring(L, value);
  } else if (!lua_isnoneornil(L, 2)) {
    lua_settop(L, 2);
  } else if (bounds_of(L)->run->lenient) {
    lua_pushliteral(L, NP_CONFIG_MISSING);
  } else {
    return luaL_error(L, "the environment variable %s is %s: set it, or write env(\"%s\", default)", name,
                      value ? "empty" : "not set", name);
  }
  return 1;
}

static int read_bounded(const char *path, struct np_buf *text) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n;
  while ((n = read(fd, np_buf_reserve(text, 65536), 65536)) != 0) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    text->len += (size_t)n;
    if (text->len > FILE_MAX_BYTES) {
      n = -1;
      errno = EFBIG;
      break;
    }
  }
  int code = errno;
  close(fd);
  errno = code;
  return n < 0 ? -1 : 0;
}

static int file_get(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  struct bounds *b = bounds_of(L);
  const char *path = name[0] == '/' ? name : lua_pushfstring(L, "%s/%s", b->run->folder, name);
  np_buf_clear(&b->text);
  if (read_bounded(path, &b->text) < 0) {
    if (!b->run->lenient) return luaL_error(L, "file \"%s\" cannot be read: %s", path, strerror(errno));
    lua_pushliteral(L, NP_CONFIG_MISSING);
    return 1;
  }
  size_t n = b->text.len;
  if (n && b->text.data[n - 1] == '\n') n--;
  if (n && b->text.data[n - 1] == '\r') n--;
  if (n) np_mask_secret(b->text.data, n);
  lua_pushlstring(L, np_buf_text(&b->text), n);
  return 1;
}

/* No setmetatable: a __gc would run past the bound, for hooks do not count in finalizers. */
static void open_libraries(lua_State *L) {
  static const char *const kept[] = {"assert", "error",  "ipairs", "next",   "pairs",    "pcall",    "rawequal",
                                     "rawget", "rawlen", "rawset", "select", "tonumber", "tostring", "type"};
  luaL_requiref(L, "_G", luaopen_base, 0);
  lua_createtable(L, 0, 24);
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    lua_getfield(L, -2, kept[i]);
    lua_setfield(L, -2, kept[i]);
  }
  luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 0);
  lua_setfield(L, -2, LUA_STRLIBNAME);
  luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 0);
  lua_setfield(L, -2, LUA_TABLIBNAME);
  luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 0);
  lua_setfield(L, -2, LUA_MATHLIBNAME);
  lua_pushcfunction(L, env_get);
  lua_setfield(L, -2, "env");
  lua_pushcfunction(L, file_get);
  lua_setfield(L, -2, "file");
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pop(L, 1);
}

static int protected_run(lua_State *L) {
  const struct np_config_run *run = bounds_of(L)->run;
  open_libraries(L);
  const char *text = run->text;
  size_t len = run->len;
  if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, len -= 3;
  if (luaL_loadbufferx(L, text, len, "=" CHUNK, "t") != LUA_OK) return lua_error(L);
  lua_sethook(L, count_hook, LUA_MASKCOUNT, STEP);
  lua_call(L, 0, 1);
  lua_sethook(L, NULL, 0, 0);
  if (!lua_istable(L, 1)) {
    lua_pushfstring(L, "it has to return a table, such as return { store = \"neap.db\" }; it returned %s%s",
                    lua_isnil(L, 1) ? "" : "a ", lua_isnil(L, 1) ? "nothing" : luaL_typename(L, 1));
    return lua_error(L);
  }
  run->take(L, run->arg);
  return 0;
}

static void explain(lua_State *L, int status, const char *shown, struct np_error *err) {
  const char *message = status == LUA_ERRMEM             ? "not enough memory: it may use 64 MiB"
                        : lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                                         : "it raised an error that is not a string";
  size_t n = sizeof CHUNK - 1;
  struct np_buf b = {0};
  if (strncmp(message, CHUNK ":", n + 1) == 0 && message[n + 1] >= '0' && message[n + 1] <= '9')
    np_buf_addf(&b, "%s%s", shown, message + n);
  else
    np_buf_addf(&b, "%s: %s", shown, message);
  char *masked = np_mask_text(b.data, b.len);
  np_fail(err, "%s", masked);
  free(masked);
  np_buf_free(&b);
}

int np_config_run(const struct np_config_run *run, struct np_error *err) {
  struct bounds b = {.run = run};
  lua_State *L = lua_newstate(bounded_alloc, &b);
  if (!L) return np_fail(err, "%s: out of memory", run->shown);
  lua_pushcfunction(L, protected_run);
  int status = lua_pcall(L, 0, 0, 0);
  if (status != LUA_OK) explain(L, status, run->shown, err);
  lua_sethook(L, NULL, 0, 0);
  lua_close(L);
  np_buf_free(&b.text);
  return status == LUA_OK ? 0 : -1;
}

/* Tables. */

void np_table_raise(const struct np_table *t, const char *key, const char *format, ...) {
  char text[448];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  lua_pushfstring(t->L, "%s%s%s: %s", t->name, *t->name && *key && *key != '[' ? "." : "", key, text);
  lua_error(t->L);
  abort();
}

/* The value at the top is quoted; masked before it is cut, for a part of a secret would not be recognised any more. */
_Noreturn static void raise_type(const struct np_table *t, const char *key, const char *expected) {
  char got[72];
  size_t n;
  if (lua_type(t->L, -1) == LUA_TSTRING) {
    const char *value = lua_tolstring(t->L, -1, &n);
    char *masked = np_mask_quoted(value, n);
    snprintf(got, sizeof got, "\"%.60s\"", masked);
    free(masked);
  } else if (lua_type(t->L, -1) == LUA_TNUMBER) {
    snprintf(got, sizeof got, "%s", luaL_tolstring(t->L, -1, NULL));
  } else {
    snprintf(got, sizeof got, "a %s", luaL_typename(t->L, -1));
  }
  np_table_raise(t, key, "expected %s, got %s", expected, got);
}

static bool push(const struct np_table *t, const char *key) {
  luaL_checkstack(t->L, 8, NULL);
  lua_pushstring(t->L, key);
  if (lua_rawget(t->L, t->at) != LUA_TNIL) return true;
  lua_pop(t->L, 1);
  return false;
}

bool np_table_string(const struct np_table *t, const char *key, const char *example, const char **value) {
  if (!push(t, key)) return false;
  size_t len;
  const char *s = lua_type(t->L, -1) == LUA_TSTRING ? lua_tolstring(t->L, -1, &len) : NULL;
  if (!s || !len || strlen(s) != len) raise_type(t, key, example);
  lua_pop(t->L, 1);
  *value = s;
  return true;
}

bool np_table_integer(const struct np_table *t, const char *key, int64_t min, int64_t max, int64_t *value) {
  if (!push(t, key)) return false;
  int whole = 0;
  lua_Integer i = lua_type(t->L, -1) == LUA_TNUMBER ? lua_tointegerx(t->L, -1, &whole) : 0;
  char expected[96];
  snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)min, (long long)max);
  if (!whole || i < min || i > max) raise_type(t, key, expected);
  lua_pop(t->L, 1);
  *value = i;
  return true;
}

bool np_table_boolean(const struct np_table *t, const char *key, bool *value) {
  if (!push(t, key)) return false;
  if (!lua_isboolean(t->L, -1)) raise_type(t, key, "true or false");
  *value = lua_toboolean(t->L, -1);
  lua_pop(t->L, 1);
  return true;
}

bool np_table_duration(const struct np_table *t, const char *key, int64_t min, int64_t *ms) {
  static const int64_t max = 3653LL * 86400 * 1000;
  if (!push(t, key)) return false;
  int64_t found = -1;
  if (lua_type(t->L, -1) == LUA_TNUMBER) {
    lua_Number seconds = lua_tonumber(t->L, -1);
    if (seconds >= 0 && seconds * 1000 <= (lua_Number)max) found = (int64_t)(seconds * 1000 + 0.5);
  } else if (lua_type(t->L, -1) == LUA_TSTRING) {
    size_t n;
    const char *s = lua_tolstring(t->L, -1, &n);
    if (np_duration_parse(s, n, &found) < 0) found = -1;
  }
  if (found < 0) raise_type(t, key, "a duration such as \"10s\"");
  if (found < min) raise_type(t, key, "a duration that is longer");
  if (found > max) raise_type(t, key, "a duration of at most ten years");
  lua_pop(t->L, 1);
  *ms = found;
  return true;
}

bool np_table_bytes(const struct np_table *t, const char *key, size_t min, size_t max, size_t *value) {
  if (!push(t, key)) return false;
  int whole = 0;
  size_t found = 0;
  if (lua_type(t->L, -1) == LUA_TNUMBER) {
    lua_Integer i = lua_tointegerx(t->L, -1, &whole);
    if (whole && i >= 0)
      found = (size_t)i;
    else
      whole = 0;
  } else if (lua_type(t->L, -1) == LUA_TSTRING) {
    whole = np_config_bytes(lua_tostring(t->L, -1), &found) == 0;
  }
  if (!whole) raise_type(t, key, "a size such as \"4MiB\"");
  char expected[96];
  snprintf(expected, sizeof expected, "a size from %zu to %zu bytes", min, max);
  if (found < min || found > max) raise_type(t, key, expected);
  lua_pop(t->L, 1);
  *value = found;
  return true;
}

bool np_table_table(const struct np_table *t, const char *key, struct np_table *inner) {
  if (!push(t, key)) return false;
  if (!lua_istable(t->L, -1)) raise_type(t, key, "a table");
  *inner = (struct np_table){.L = t->L, .at = lua_gettop(t->L)};
  snprintf(inner->name, sizeof inner->name, "%.90s%s%.90s", t->name, *t->name ? "." : "", key);
  return true;
}

void np_table_known(const struct np_table *t, const char *const *words, size_t n) {
  lua_State *L = t->L;
  for (lua_pushnil(L); lua_next(L, t->at); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) {
      char key[64];
      snprintf(key, sizeof key, "[%s]", luaL_tolstring(L, -2, NULL));
      np_table_raise(t, key, "unexpected: every value here has a name");
    }
    size_t i = 0;
    const char *key = lua_tostring(L, -2);
    while (i < n && strcmp(words[i], key) != 0) i++;
    if (i < n) continue;
    const char *meant = np_near(key, strlen(key), words, n);
    if (meant) np_table_raise(t, key, "unknown, did you mean \"%s\"?", meant);
    luaL_Buffer all;
    luaL_buffinit(L, &all);
    for (i = 0; i < n; i++) {
      if (i) luaL_addstring(&all, ", ");
      luaL_addstring(&all, words[i]);
    }
    luaL_pushresult(&all);
    np_table_raise(t, key, "unknown; there are: %s", lua_tostring(L, -1));
  }
}
