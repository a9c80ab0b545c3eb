/* The terms of a delivery, from a table. */
#include "host/terms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/duration.h"
#include "base/near.h"
#include "host/config.h"

#define DAY INT64_C(86400000)
#define REDACT_MOST 100

static const char *const names[] = {"batch",     "batch_bytes", "batch_wait", "concurrency", "rate",
                                    "retry_for", "backoff",     "expires",    "redact"};
#define NAMES (sizeof names / sizeof *names)

struct np_terms np_terms_default(void) {
  return (struct np_terms){.batch = 1, .concurrency = 8, .retry_for = 3 * DAY, .backoff = 5 * 60000};
}

static int wrong(lua_State *L, const char *name, const char *expected, struct np_error *err) {
  size_t n;
  const char *got = luaL_tolstring(L, -1, &n);
  bool text = lua_type(L, -2) == LUA_TSTRING;
  char *masked = np_mask_quoted(got, n);
  np_fail(err, "%s: expected %s, got %s%.60s%s", name, expected, text ? "\"" : "", masked, text ? "\"" : "");
  free(masked);
  lua_pop(L, 1);
  return -1;
}

static int take_count(lua_State *L, const char *name, int most, int *to, struct np_error *err) {
  char expected[64];
  int whole = 0;
  lua_Integer n = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
  snprintf(expected, sizeof expected, "a whole number from 1 to %d", most);
  if (!whole || n < 1 || n > most) return wrong(L, name, expected, err);
  *to = (int)n;
  return 0;
}

static int take_bytes(lua_State *L, const char *name, size_t *to, struct np_error *err) {
  static const char expected[] = "a size from 1 byte to 64 MiB, such as \"1MiB\"";
  size_t found = 0;
  int whole = 0;
  if (lua_type(L, -1) == LUA_TNUMBER) {
    lua_Integer n = lua_tointegerx(L, -1, &whole);
    found = whole && n > 0 ? (size_t)n : 0;
  } else if (lua_type(L, -1) != LUA_TSTRING || np_config_bytes(lua_tostring(L, -1), &found) < 0) {
    return wrong(L, name, expected, err);
  }
  if (!found || found > (size_t)64 << 20) return wrong(L, name, expected, err);
  *to = found;
  return 0;
}

static int take_duration(lua_State *L, const char *name, int64_t most, const char *expected, int64_t *to, struct np_error *err) {
  int64_t ms = -1;
  size_t n;
  if (lua_type(L, -1) == LUA_TNUMBER) {
    lua_Number seconds = lua_tonumber(L, -1);
    if (seconds >= 0 && seconds < 3.2e9) ms = (int64_t)(seconds * 1000 + 0.5);
  } else if (lua_type(L, -1) == LUA_TSTRING) {
    const char *s = lua_tolstring(L, -1, &n);
    if (np_duration_parse(s, n, &ms) < 0) ms = -1;
  }
  if (ms < 0 || ms > most) return wrong(L, name, expected, err);
  *to = ms;
  return 0;
}

/* "10/s", "600/m", "1000/h" */
static int take_rate(lua_State *L, struct np_terms *t, struct np_error *err) {
  static const char expected[] = "so many a second, minute or hour, such as \"10/s\", \"600/m\" or \"1000/h\"";
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  char *end;
  long n = *s >= '0' && *s <= '9' ? strtol(s, &end, 10) : 0;
  if (n < 1 || n > 1000000 || strlen(end) != 2 || *end != '/') return wrong(L, "rate", expected, err);
  int64_t period = end[1] == 's' ? 1000 : end[1] == 'm' ? 60000 : end[1] == 'h' ? 3600000 : 0;
  if (!period) return wrong(L, "rate", expected, err);
  t->rate = (int)n;
  t->period = period;
  return 0;
}

static void free_redact(struct np_terms *t) {
  for (size_t i = 0; i < t->redact_count; i++) free(t->redact[i]);
  free(t->redact);
  t->redact = NULL;
  t->redact_count = 0;
}

static int take_redact(lua_State *L, struct np_terms *t, struct np_error *err) {
  static const char expected[] = "a list of names of a message's members, such as { \"name\", \"patient.phone\" }";
  int list = lua_gettop(L);
  size_t n = lua_istable(L, list) ? lua_rawlen(L, list) : 0, all = 0;
  if (!lua_istable(L, list) || n > REDACT_MOST) return wrong(L, "redact", expected, err);
  for (lua_pushnil(L); lua_next(L, list); lua_pop(L, 1)) all++;
  if (all != n) return wrong(L, "redact", expected, err);
  free_redact(t);
  for (size_t i = 1; i <= n; i++) {
    size_t len;
    bool text = lua_rawgeti(L, list, (lua_Integer)i) == LUA_TSTRING;
    const char *name = text ? lua_tolstring(L, -1, &len) : NULL;
    int failed = !text || !len || strlen(name) != len ? wrong(L, "redact", expected, err) : 0;
    if (!failed) {
      t->redact = np_realloc(t->redact, (t->redact_count + 1) * sizeof *t->redact);
      t->redact[t->redact_count++] = np_strdup(name);
    }
    lua_pop(L, 1);
    if (failed) return -1;
  }
  return 0;
}

/* The value of that name is at the top. */
static int take(lua_State *L, const char *name, struct np_terms *t, struct np_error *err) {
  if (strcmp(name, "batch") == 0) return take_count(L, name, 1000, &t->batch, err);
  if (strcmp(name, "batch_bytes") == 0) return take_bytes(L, name, &t->batch_bytes, err);
  if (strcmp(name, "batch_wait") == 0)
    return take_duration(L, name, DAY, "a duration of at most a day, such as \"2s\"", &t->batch_wait, err);
  if (strcmp(name, "concurrency") == 0) return take_count(L, name, 64, &t->concurrency, err);
  if (strcmp(name, "rate") == 0) return take_rate(L, t, err);
  if (strcmp(name, "retry_for") == 0)
    return take_duration(L, name, 366 * DAY, "a duration of at most a year, such as \"3d\"", &t->retry_for, err);
  if (strcmp(name, "expires") == 0)
    return take_duration(L, name, 366 * DAY, "a duration of at most a year, such as \"30m\"", &t->expires, err);
  if (strcmp(name, "redact") == 0) return take_redact(L, t, err);
  if (take_duration(L, name, DAY, "a duration from 1s to 1d", &t->backoff, err) < 0) return -1;
  return t->backoff < 1000 ? wrong(L, name, "a duration from 1s to 1d", err) : 0;
}

int np_terms_read(lua_State *L, int idx, struct np_terms *t, struct np_error *err) {
  int failed = 0;
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 8, NULL);
  for (size_t i = 0; i < NAMES && !failed; i++) {
    lua_pushstring(L, names[i]);
    if (lua_rawget(L, idx) != LUA_TNIL) failed = take(L, names[i], t, err);
    lua_pop(L, 1);
  }
  return failed;
}

int np_terms_known(lua_State *L, int idx, struct np_error *err) {
  idx = lua_absindex(L, idx);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    size_t i = 0;
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    while (i < NAMES && strcmp(names[i], name) != 0) i++;
    if (i < NAMES) continue;
    const char *meant = np_near(name, strlen(name), names, NAMES);
    np_fail(err,
            meant ? "%.60s: unknown, did you mean \"%s\"?"
                  : "%.60s: unknown; there are: batch, batch_bytes, batch_wait, concurrency, "
                    "rate, retry_for, backoff, expires, redact",
            *name ? name : "[1]", meant);
    lua_pop(L, 2);
    return -1;
  }
  return 0;
}

void np_terms_free(struct np_terms *t) { free_redact(t); }

int64_t np_terms_expiry(const struct np_terms *t, const struct np_message *m) {
  if (m->expires) return m->expires;
  return t && t->expires ? m->since + t->expires : INT64_MAX;
}
