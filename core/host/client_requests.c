/* neap replay CONNECTION: what became of requests that were run again, as people read it. One that is as it was is only counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/canonical.h"
#include "host/client_row.h"

/* The value at the top, as JSON. */
static void add_value(lua_State *L, struct np_buf *b) {
  struct np_buf json = {0};
  if (lua_isnil(L, -1))
    np_buf_adds(&json, "?");
  else
    np_canonical_add(L, &json);
  char *text = np_show_clean(np_buf_text(&json), json.len);
  np_buf_adds(b, text);
  free(text);
  np_buf_free(&json);
}

/* ": value 5 -> 6, unit null -> "m"" of the change at index 1. */
static void add_fields(lua_State *L, struct np_buf *b) {
  static const char *const names[] = {"at", "value", "unit", "serial", "interval", "trend", "quality", "extra", "connection"};
  int n = 0;
  if (lua_getfield(L, 1, "fields") != LUA_TTABLE) {
    lua_settop(L, 1);
    return;
  }
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (lua_getfield(L, 2, names[i]) == LUA_TTABLE) {
      np_buf_addf(b, "%s %s ", n++ ? "," : ":", names[i]);
      lua_getfield(L, 3, "stored");
      add_value(L, b);
      np_buf_adds(b, " -> ");
      lua_getfield(L, 3, "now");
      add_value(L, b);
    }
    lua_settop(L, 2);
  }
  lua_settop(L, 1);
}

static void print_change(lua_State *L, lua_Integer request) {
  char *what = np_show_field(L, "what"), *device = np_show_field(L, "device"), *metric = np_show_field(L, "metric"),
       *value = np_show_field(L, "value"), *unit = np_show_field(L, "unit"), *at = np_show_moment(np_show_number(L, "at"));
  struct np_buf fields = {0};
  add_fields(L, &fields);
  printf("request %lld: %s: %s %s %s%s%s at %s%s\n", (long long)request, strcmp(what, "too_old") == 0 ? "too old" : what, device,
         metric, value, *unit ? " " : "", unit, at, np_buf_text(&fields));
  free(what), free(device), free(metric), free(value), free(unit), free(at);
  np_buf_free(&fields);
}

/* Each is moved to a stack of its own, where it stands at index 1 as an object of the answer does. */
static void print_changes(lua_State *L, lua_Integer request) {
  lua_Integer more = np_show_number(L, "more_changes");
  if (lua_getfield(L, 1, "changes") == LUA_TTABLE) {
    lua_State *one = lua_newthread(L);
    for (lua_Integer i = 1; lua_rawgeti(L, 2, i) == LUA_TTABLE; i++) {
      lua_settop(one, 0);
      lua_xmove(L, one, 1);
      print_change(one, request);
    }
  }
  lua_settop(L, 1);
  if (more) printf("request %lld: and %lld readings more: --json counts them\n", (long long)request, (long long)more);
}

void np_show_request_run(struct np_show *s, lua_State *L) {
  (void)s;
  lua_Integer request = np_show_number(L, "request");
  char *outcome = np_show_field(L, "outcome"), *was = np_show_field(L, "was"), *why = np_show_field(L, "why");
  bool expected = strcmp(was, outcome) == 0 || strcmp(was, "failed") == 0 || strcmp(outcome, "gone") == 0;
  if (*why)
    printf("request %lld: %s%s%s%s: %s\n", (long long)request, outcome, expected ? "" : " (it was ", expected ? "" : was,
           expected ? "" : ")", why);
  print_changes(L, request);
  free(outcome), free(was), free(why);
}

void np_show_request_runs(struct np_show *s, lua_State *L) {
  static const char *const words[] = {"new", "same", "different", "missing", "too_old"};
  (void)s;
  lua_Integer n = np_show_number(L, "requests"),
              counts[] = {np_show_number(L, "done"), np_show_number(L, "refused"), np_show_number(L, "failed")};
  lua_getfield(L, 1, "only_failed");
  lua_getfield(L, 1, "dry");
  bool only_failed = lua_toboolean(L, 2), dry = lua_toboolean(L, 3);
  lua_settop(L, 1);
  if (!only_failed) printf("%lld request%s: ", (long long)n, n == 1 ? "" : "s");
  printf("%lld done, %lld refused, %lld failed%s", (long long)counts[0], (long long)counts[1], (long long)counts[2],
         only_failed && !dry ? " again" : "");
  if (!only_failed || dry) {
    lua_getfield(L, 1, "readings");
    lua_replace(L, 1);
    int any = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
      lua_Integer count = np_show_number(L, words[i]);
      if (count || i < 2)
        printf("%s%lld %s", any++ ? ", " : "; readings: ", (long long)count,
               strcmp(words[i], "too_old") == 0 ? "too old" : words[i]);
    }
  }
  puts(dry ? "; nothing was written" : "");
}
