/* The lines of neap tail matches, messages, attempts and acknowledgements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/client_row.h"
#include "host/client_show.h"

const char *const np_show_match_heads[] = {"AT", "RULE", "DEVICE", "METRIC", "VALUE", "DID"};
const char *const np_show_message_heads[] = {"AT", "RULE", "DEVICE", "TO", "READING", "MESSAGE"};
const char *const np_show_attempt_heads[] = {"AT", "TO", "DEVICE", "ATTEMPT", "OUTCOME", "TOOK", "MESSAGE"};
const char *const np_show_acked_heads[] = {"AT", "BY", "DEVICE", "TO", "MESSAGE", "NOTE"};

/* What is no item: that it has begun, or how many were left out. */
static bool is_said(struct np_show *s, lua_State *L) {
  lua_Integer dropped = np_show_number(L, "dropped");
  bool begun = lua_getfield(L, 1, "tailing") != LUA_TNIL;
  lua_settop(L, 1);
  if (dropped) {
    np_show_flush(s);
    printf("%s%lld dropped: this reads too slowly%s\n", s->colour ? np_show_colours[YELLOW] : "", (long long)dropped,
           s->colour ? "\x1b[0m" : "");
  }
  return dropped || begun;
}

static char *joined(lua_State *L, const char *a, const char *between, const char *b) {
  char *first = np_show_field(L, a), *second = np_show_field(L, b);
  struct np_buf text = {0};
  np_buf_addf(&text, "%s%s%s", first, *second ? between : "", second);
  free(first), free(second);
  return text.data;
}

static char *did(lua_State *L) {
  static const char *const words[] = {"sent", "armed", "disarmed", "stored", "emitted"};
  struct np_buf b = {0};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (np_show_number(L, words[i]))
      np_buf_addf(&b, "%s%s %lld", b.len ? ", " : "", words[i], (long long)np_show_number(L, words[i]));
  return b.data ? b.data : np_strdup("nothing");
}

void np_show_match(struct np_show *s, lua_State *L) {
  if (is_said(s, L)) return;
  struct row *r = np_show_row(s);
  char *held = np_show_field(L, "held");
  r->cells[0] = (struct cell){np_show_moment(np_show_number(L, "at")), DIM};
  r->cells[1].text = np_show_field(L, "rule");
  r->cells[2].text = np_show_field(L, "device");
  r->cells[3].text = np_show_field(L, "metric");
  r->cells[4].text = joined(L, "value", " ", "unit");
  r->cells[5] = *held ? (struct cell){np_strdup("held"), RED} : (struct cell){.text = did(L)};
  if (*held)
    r->note = held;
  else
    free(held);
}

void np_show_message(struct np_show *s, lua_State *L) {
  if (is_said(s, L)) return;
  struct row *r = np_show_row(s);
  r->cells[0] = (struct cell){np_show_moment(np_show_number(L, "created")), DIM};
  r->cells[1].text = np_show_field(L, "rule");
  r->cells[2].text = np_show_field(L, "device");
  r->cells[3].text = np_show_field(L, "destination");
  char *reading = np_show_field(L, "reading");
  struct np_buf b = {0};
  np_buf_addf(&b, "%s%s", *reading ? "r" : "a timer", reading);
  free(reading);
  r->cells[4].text = b.data;
  r->cells[5].text = np_show_field(L, "id");
}

void np_show_attempt(struct np_show *s, lua_State *L) {
  if (is_said(s, L)) return;
  struct row *r = np_show_row(s);
  r->cells[0] = (struct cell){np_show_moment(np_show_number(L, "at")), DIM};
  r->cells[1].text = np_show_field(L, "destination");
  r->cells[2].text = np_show_field(L, "device");
  r->cells[3].text = np_show_field(L, "attempt");
  char *state = np_show_field(L, "state");
  r->cells[4] = (struct cell){joined(L, "outcome", ", ", "status"), strcmp(state, "delivered") == 0 ? GREEN
                                                                    : strcmp(state, "dead") == 0    ? RED
                                                                                                    : YELLOW};
  struct np_buf b = {0};
  np_buf_addf(&b, "%lld ms", (long long)np_show_number(L, "took"));
  r->cells[5].text = b.data;
  r->cells[6].text = np_show_field(L, "id");
  r->note = np_show_field(L, "error");
  if (!*r->note) {
    free(r->note);
    r->note = NULL;
  }
  free(state);
}

void np_show_acked(struct np_show *s, lua_State *L) {
  static const char *const fields[] = {"by", "device", "destination", "id", "note"};
  if (is_said(s, L)) return;
  struct row *r = np_show_row(s);
  r->cells[0] = (struct cell){np_show_moment(np_show_number(L, "at")), DIM};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) r->cells[i + 1].text = np_show_field(L, fields[i]);
}
