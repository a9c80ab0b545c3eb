/* The messages and derived readings that a change of a rule changes, a row each, of one that differs two: what it is now and what it would be. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/canonical.h"
#include "host/client_row.h"
#include "host/client_show.h"

const char *const np_show_change_heads[] = {"DEVICE", "AT", "CHANGE", "TO", "MESSAGE"};

/* A message as JSON, what was raised as it is. */
static char *body(lua_State *L, const char *name) {
  struct np_buf b = {0};
  lua_getfield(L, 1, name);
  if (lua_type(L, -1) == LUA_TSTRING)
    np_buf_adds(&b, lua_tostring(L, -1));
  else
    np_canonical_add(L, &b);
  lua_settop(L, 1);
  size_t line = strcspn(np_buf_text(&b), "\n"); /* a traceback's lines are for --json */
  char *clean = np_show_clean(np_buf_text(&b), line);
  np_buf_free(&b);
  return clean;
}

static bool has(lua_State *L, const char *name) {
  bool there = lua_getfield(L, 1, name) != LUA_TNIL;
  lua_settop(L, 1);
  return there;
}

void np_show_change(struct np_show *s, lua_State *L) {
  char *what = np_show_field(L, "change"), *timer = np_show_field(L, "timer"), *key = np_show_field(L, "key");
  bool before = has(L, "before"), after = has(L, "after");
  bool good = strcmp(what, "new") == 0 || strcmp(what, "mended") == 0,
       bad = strcmp(what, "gone") == 0 || strcmp(what, "failing") == 0;
  struct row *r = np_show_row(s);
  r->cells[0].text = np_show_field(L, "device");
  if (!*r->cells[0].text && *key) { /* of a timer that says no device, its key */
    free(r->cells[0].text);
    r->cells[0].text = np_strdup(key);
  }
  r->cells[1] = (struct cell){np_show_moment(np_show_number(L, "at")), DIM};
  r->cells[2] = (struct cell){np_strdup(what), good ? GREEN : bad ? RED : YELLOW};
  r->cells[3].text = np_show_field(L, has(L, "metric") ? "metric" : "destination");
  r->cells[4].text = body(L, before ? "before" : "after");
  if (before && after) {
    r = np_show_row(s);
    r->cells[2] = (struct cell){np_strdup("  would be"), YELLOW};
    r->cells[4].text = body(L, "after");
  }
  free(what), free(timer), free(key);
}

void np_show_changes(struct np_show *s, lua_State *L) {
  static const char *const words[] = {"new", "gone", "different", "failing", "mended"};
  bool any = false;
  (void)s;
  printf("generation %lld: ", (long long)np_show_number(L, "generation"));
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (!np_show_number(L, words[i])) continue;
    printf("%s%lld %s", any ? ", " : "", (long long)np_show_number(L, words[i]), words[i]);
    any = true;
  }
  printf("%s, over %lld of the last %lld readings",
         any                 ? ""
         : has(L, "derives") ? "the same messages and readings"
                             : "the same messages",
         (long long)np_show_number(L, "readings"), (long long)np_show_number(L, "wanted"));
  if (np_show_number(L, "shown") < np_show_number(L, "changes"))
    printf("; the first %lld are shown", (long long)np_show_number(L, "shown"));
  putchar('\n');
}
