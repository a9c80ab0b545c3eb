/* Acknowledgements, for people: one that was made, or the messages that wait for one. */
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/client_row.h"
#include "host/client_show.h"

const char *const np_show_ack_heads[] = {"ID", "RULE", "DEVICE", "TO", "WAITS SINCE", "STATE"};

static void show_made(lua_State *L) {
  bool first = lua_getfield(L, 1, "first") == LUA_TBOOLEAN && lua_toboolean(L, -1);
  lua_settop(L, 1);
  char *id = np_show_field(L, "id");
  lua_getfield(L, 1, "acknowledged");
  lua_replace(L, 1);
  char *by = np_show_field(L, "by"), *note = np_show_field(L, "note"), *at = np_show_moment_ago(np_show_number(L, "at"));
  printf("%s: %sacknowledged by %s, %s%s%s%s\n", id, first ? "" : "it had been ", by, at, *note ? ": " : "", note,
         first ? "" : "; nothing has changed");
  free(id), free(by), free(note), free(at);
}

void np_show_ack(struct np_show *s, lua_State *L) {
  bool made = lua_getfield(L, 1, "acknowledged") == LUA_TTABLE;
  lua_settop(L, 1);
  if (made) {
    show_made(L);
    return;
  }
  struct row *r = np_show_row(s);
  char *state = np_show_field(L, "state");
  r->cells[0].text = np_show_field(L, "id");
  r->cells[1].text = np_show_field(L, "source");
  r->cells[2].text = np_show_field(L, "device");
  r->cells[3].text = np_show_field(L, "destination");
  r->cells[4].text = np_show_moment_ago(np_show_number(L, "created"));
  r->cells[5] = (struct cell){state, *state == 'd' && state[2] == 'l' ? GREEN : *state == 'p' ? YELLOW : RED};
}

void np_show_ack_summary(struct np_show *s, lua_State *L) {
  (void)s;
  if (lua_getfield(L, 1, "unacknowledged") == LUA_TNIL) return;
  lua_Integer n = lua_tointeger(L, -1);
  printf("%lld message%s to be acknowledged\n", (long long)n, n == 1 ? "" : "s");
}
