/* Measures what it costs to find and match filters, by the host's own functions and without Lua, a store or a lane:
 *
 *   rules
 *
 * For 1 to 10,000 filters, of which 3 fire: us of CPU for each reading, to find the candidates, and to match them. Then what one field of each kind
 * costs, in ns, where it is the only one that decides. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lauxlib.h>

#include "host/filter_index.h"

enum { READINGS = 200000 };

static _Noreturn void die(const char *why) {
  fprintf(stderr, "rules: %s\n", why);
  exit(1);
}

static struct np_filter *compile(lua_State *L, const char *source) {
  struct np_error err;
  lua_settop(L, 0);
  if (luaL_dostring(L, source) != LUA_OK) die(lua_tostring(L, -1));
  struct np_filter *f = np_filter_compile(L, 1, &err);
  return f ? f : (die(err.text), NULL);
}

static double cpu(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct np_text text(const char *s) { return (struct np_text){s, strlen(s)}; }

static struct np_reading reading(int i) {
  static char names[50][12];
  snprintf(names[i % 50], sizeof *names, "device-%d", i % 50);
  return (struct np_reading){.metric = text("glucose"),
                             .device = text(names[i % 50]),
                             .vendor = text("acme"),
                             .connection = text("ward-3"),
                             .unit = text("mmol/L"),
                             .at = 1700000000000 + i * INT64_C(1000),
                             .value = {.type = NP_NUMBER_REAL, .d = 4 + i % 100 / 10.0}};
}

/* As spec/bench/rules.lua has them. */
static struct np_filter *one_of(lua_State *L, int i) {
  char source[200];
  static const char *const forms[] = {"return { metric = 'glucose', device = 'another-%d', below = 3.9 }",
                                      "return { metric = 'metric-%d' }", "return { metric = 'glucose', place = 'ward-%d' }",
                                      "return { metric = 'glucose', above = 2%d }"};
  snprintf(source, sizeof source, i < 3 ? "return { metric = 'glucose', above = 0.%d }" : forms[i % 4], i);
  return compile(L, source);
}

static void measure(lua_State *L, int n) {
  struct np_filter_world none = {0};
  struct np_error err;
  const struct np_filter **filters = calloc((size_t)n, sizeof *filters);
  uint64_t *bits = calloc((size_t)n / 64 + 1, sizeof *bits);
  if (!filters || !bits) die("out of memory");
  for (int i = 0; i < n; i++) filters[i] = one_of(L, i);
  struct np_filter_index *x = np_filter_index_new(filters, (size_t)n);
  long fired = 0;
  double begin = cpu(), finding = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < READINGS; i++) {
      struct np_reading r = reading(i);
      np_filter_index_find(x, &r, NULL, bits);
      for (size_t w = 0; pass && w < np_filter_index_words(x); w++)
        for (uint64_t left = bits[w]; left; left &= left - 1)
          fired += np_filter_run(filters[w * 64 + (size_t)__builtin_ctzll(left)], &r, &none, &err);
    }
    if (!pass) finding = cpu() - begin;
  }
  double whole = cpu() - begin - finding;
  printf("%6d filters  %8.3f us to find  %8.3f us with matching  %.1f fire\n", n, finding * 1e6 / READINGS, whole * 1e6 / READINGS,
         (double)fired / READINGS);
  np_filter_index_free(x);
  for (int i = 0; i < n; i++) np_filter_free((struct np_filter *)filters[i]);
  free(filters);
  free(bits);
}

static void measure_field(lua_State *L, const char *fields) {
  char source[200];
  struct np_filter_world none = {0};
  struct np_error err;
  snprintf(source, sizeof source, "return { %s }", fields);
  struct np_filter *f = compile(L, source);
  long fired = 0;
  double begin = cpu();
  for (int i = 0; i < READINGS * 5; i++) {
    struct np_reading r = reading(i);
    fired += np_filter_run(f, &r, &none, &err);
  }
  printf("%-46s %8.1f ns  (%ld%% fire)\n", fields, (cpu() - begin) * 1e9 / (READINGS * 5), fired / (READINGS / 20));
  np_filter_free(f);
}

int main(void) {
  lua_State *L = luaL_newstate();
  if (!L) die("out of memory");
  for (int n = 1; n <= 10000; n *= 10) measure(L, n);
  measure_field(L, "");
  measure_field(L, "metric = 'glucose'");
  measure_field(L, "device = { 'x-*', 'device-1*', '*-2' }");
  measure_field(L, "below = 3.9");
  measure_field(L, "outside = { 3.9, 10 }, margin = 0.3");
  measure_field(L, "hours = { '22:00', '06:00' }, zone = 'Europe/Berlin'");
  lua_close(L);
  return 0;
}
