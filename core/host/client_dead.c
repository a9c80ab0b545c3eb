/* Dead letters, a message with its attempts, and destinations, for people. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/client_row.h"
#include "host/client_show.h"

const char *const np_show_dead_heads[] = {"ID", "DESTINATION", "DEVICE", "DEAD SINCE", "ATTEMPTS", "REASON"};
const char *const np_show_destination_heads[] = {"DESTINATION", "PLUGIN", "STATE", "CIRCUIT",
                                                 "PENDING",     "OLDEST", "DEAD",  "LAST ARRIVAL"};

static void named_moment(struct np_show *s, lua_State *L, const char *name) {
  if (np_show_number(L, name)) np_show_named(s, name, np_show_moment_ago(np_show_number(L, name)));
}

static void show_message(struct np_show *s, lua_State *L) {
  static const char *const before[] = {"id", "state", "destination", "device", "source", "reading", "replay"},
                           *const times[] = {"created", "about", "at", "due", "expires", "dropped"},
                           *const after[] = {"by", "attempts", "status", "reason", "error", "body"};
  for (size_t i = 0; i < sizeof before / sizeof *before; i++) np_show_named(s, before[i], np_show_field(L, before[i]));
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) named_moment(s, L, times[i]);
  for (size_t i = 0; i < sizeof after / sizeof *after; i++) np_show_named(s, after[i], np_show_field(L, after[i]));
  np_show_flush(s);
}

static void show_attempt(struct np_show *s, lua_State *L) {
  char *at = np_show_moment(np_show_number(L, "at")), *outcome = np_show_field(L, "outcome"), *error = np_show_field(L, "error"),
       *answer = np_show_field(L, "answer");
  bool good = strcmp(outcome, "delivered") == 0, refused = strcmp(outcome, "refused") == 0;
  const char *colour = s->colour ? np_show_colours[good ? GREEN : refused ? RED : YELLOW] : "", *end = s->colour ? "\x1b[0m" : "";
  printf("  %lld. %s, %lld ms, generation %lld: %s%s%s", (long long)np_show_number(L, "attempt"), at,
         (long long)np_show_number(L, "took"), (long long)np_show_number(L, "generation"), colour, outcome, end);
  if (np_show_number(L, "batch") > 1) printf(", in a batch of %lld", (long long)np_show_number(L, "batch"));
  if (np_show_number(L, "status")) printf(", %lld", (long long)np_show_number(L, "status"));
  if (*error || *answer) printf(": %s", *error ? error : answer);
  putchar('\n');
  np_show_lines(L, "request", "     > ");
  np_show_lines(L, "reply", "     < ");
  free(at), free(outcome), free(error), free(answer);
}

/* A dead letter of a list has an id and no body; of one that is shown there is all. */
void np_show_dead(struct np_show *s, lua_State *L) {
  bool body = lua_getfield(L, 1, "body") != LUA_TNIL;
  lua_settop(L, 1);
  if (body) {
    show_message(s, L);
    return;
  }
  if (np_show_number(L, "attempt")) {
    show_attempt(s, L);
    return;
  }
  struct row *r = np_show_row(s);
  r->cells[0].text = np_show_field(L, "id");
  r->cells[1].text = np_show_field(L, "destination");
  r->cells[2].text = np_show_field(L, "device");
  r->cells[3].text = np_show_moment_ago(np_show_number(L, "at"));
  r->cells[4].text = np_show_field(L, "attempts");
  r->cells[5] = (struct cell){np_show_field(L, "reason"), RED};
  r->note = np_show_field(L, "error");
  if (*r->note) return;
  free(r->note);
  r->note = NULL;
}

static bool has(lua_State *L, const char *name) {
  bool there = lua_getfield(L, 1, name) != LUA_TNIL;
  lua_settop(L, 1);
  return there;
}

static void tell(lua_Integer n, const char *what) { printf("%lld dead letter%s%s\n", (long long)n, n == 1 ? "" : "s", what); }

void np_show_dead_summary(struct np_show *s, lua_State *L) {
  (void)s;
  if (has(L, "dead")) tell(np_show_number(L, "dead"), "");
  if (has(L, "retried")) tell(np_show_number(L, "retried"), " to be tried again");
  if (has(L, "dropped")) tell(np_show_number(L, "dropped"), " dropped");
}

void np_show_destination(struct np_show *s, lua_State *L) {
  struct row *r = np_show_row(s);
  char *circuit = np_show_field(L, "circuit");
  bool closed = strcmp(circuit, "closed") == 0, gone = !*circuit;
  r->cells[0].text = np_show_field(L, "instance");
  r->cells[1].text = gone ? np_strdup("-") : np_show_field(L, "plugin");
  r->cells[2] = (struct cell){np_show_field(L, "state"), gone ? RED : PLAIN};
  r->cells[3] = (struct cell){gone ? np_strdup("-") : circuit, gone ? PLAIN : closed ? GREEN : RED};
  r->cells[4].text = np_show_field(L, "pending");
  r->cells[5].text = np_show_number(L, "oldest") ? np_show_moment_ago(np_show_number(L, "oldest")) : np_strdup("-");
  r->cells[6] = (struct cell){np_show_field(L, "dead"), np_show_number(L, "dead") ? RED : PLAIN};
  r->cells[7].text = np_show_number(L, "last_arrival") ? np_show_moment_ago(np_show_number(L, "last_arrival")) : np_strdup("-");
  if (gone) free(circuit);
  char *probed = np_show_field(L, "probed"), *error = np_show_field(L, "error");
  if (*probed || *error) {
    struct np_buf note = {0};
    np_buf_addf(&note, "%s%s%s", probed, *probed && *error ? ": " : "", error);
    r->note = note.data;
  }
  free(probed), free(error);
}
