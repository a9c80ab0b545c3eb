/* Replays of rules, for people: a table of them, one in full, or one that is followed until it has ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/client_row.h"
#include "host/client_show.h"

const char *const np_show_replay_heads[] = {"REPLAY", "RULE", "STATE", "BEGAN", "READINGS", "SENT", "BY"};

static enum colour colour_of(const char *state) {
  return strcmp(state, "done") == 0 ? GREEN : strcmp(state, "stopped") == 0 ? RED : YELLOW;
}

void np_show_replay_row(struct np_show *s, lua_State *L) {
  static const char *const whole[] = {"readings", "sent"};
  struct row *r = np_show_row(s);
  char *state = np_show_field(L, "state");
  r->cells[0].text = np_show_field(L, "replay");
  r->cells[1].text = np_show_field(L, "rule");
  r->cells[2] = (struct cell){state, colour_of(state)};
  r->cells[3].text = np_show_moment_ago(np_show_number(L, "created"));
  for (int i = 0; i < 2; i++) {
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)np_show_number(L, whole[i]));
    r->cells[4 + i].text = np_strdup(number);
  }
  r->cells[6].text = np_show_field(L, "by");
  r->note = np_show_field(L, "why");
  if (*r->note) return;
  free(r->note);
  r->note = NULL;
}

void np_show_replay(struct np_show *s, lua_State *L) {
  static const char *const texts[] = {"replay", "rule",   "generation", "state",  "why",
                                      "by",     "device", "metric",     "vendor", "connection"},
                           *const times[] = {"since", "until", "created", "ended"}, *const counts[] = {"readings", "sent",
                                                                                                       "pending",  "already",
                                                                                                       "expired",  "held",
                                                                                                       "unsure",   "derived",
                                                                                                       "failed"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) np_show_named(s, texts[i], np_show_field(L, texts[i]));
  for (size_t i = 0; i < sizeof times / sizeof *times; i++)
    if (np_show_number(L, times[i])) np_show_named(s, times[i], np_show_moment_ago(np_show_number(L, times[i])));
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) np_show_named(s, counts[i], np_show_field(L, counts[i]));
  np_show_named(s, "error", np_show_field(L, "error"));
  np_show_flush(s);
}

/* "12 sent, 3 sent already", for both ends and what is on the way. */
static void add_counts(struct np_buf *b, lua_State *L) {
  static const struct {
    const char *name, *words;
  } counts[] = {{"already", "sent already"},
                {"expired", "expired"},
                {"held", "left to the rule itself, which is held for them"},
                {"unsure", "too long ago to tell whether they were sent (--again sends them)"},
                {"derived", "readings derived"},
                {"failed", "failed"}};
  np_buf_addf(b, "%lld sent", (long long)np_show_number(L, "sent"));
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    if (np_show_number(L, counts[i].name))
      np_buf_addf(b, ", %lld %s", (long long)np_show_number(L, counts[i].name), counts[i].words);
  lua_Integer readings = np_show_number(L, "readings");
  np_buf_addf(b, ", over %lld reading%s", (long long)readings, readings == 1 ? "" : "s");
}

/* On a terminal, the line of what runs is written over by the next. */
void np_show_replay_progress(struct np_show *s, lua_State *L) {
  (void)s;
  char *state = np_show_field(L, "state"), *rule = np_show_field(L, "rule"), *why = np_show_field(L, "why"),
       *error = np_show_field(L, "error");
  bool ended = strcmp(state, "done") == 0 || strcmp(state, "stopped") == 0, terminal = isatty(STDOUT_FILENO);
  lua_Integer upto = np_show_number(L, "upto"), seq = np_show_number(L, "seq");
  struct np_buf b = {0};
  np_buf_addf(&b, "replay %lld of %s: ", (long long)np_show_number(L, "replay"), rule);
  if (!ended && strcmp(state, "waiting") == 0)
    np_buf_adds(&b, "waits for its turn");
  else if (!ended)
    np_buf_addf(&b, "%lld %%, ", upto > 0 ? (long long)(seq * 100 / upto) : 0);
  if (strcmp(state, "waiting") != 0) add_counts(&b, L);
  if (*why) np_buf_addf(&b, "; stopped: %s", why);
  if (terminal) fputs("\r\x1b[K", stdout);
  if (ended || terminal) fputs(b.data, stdout);
  if (ended) printf("\n%s%s%s", *error ? "  the first that failed: " : "", error, *error ? "\n" : "");
  free(state), free(rule), free(why), free(error);
  np_buf_free(&b);
}
