/* What each command's answer looks like, an object a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/buf.h"
#include "host/client_row.h"
#include "host/client_show.h"

/* plugins, reload */

static struct cell state_cell(lua_State *L) {
  struct cell c = {.text = np_show_field(L, "state")};
  c.colour = strcmp(c.text, "in force") == 0 ? GREEN : strcmp(c.text, "held") == 0 ? RED : YELLOW;
  return c;
}

static void set_note(struct row *r, lua_State *L) {
  static const char *const words[] = {"error", "quarantine", "waiting", "denied", "probed"};
  for (size_t i = 0; i < 5; i++) {
    r->note = np_show_field(L, words[i]);
    if (*r->note) return;
    free(r->note);
    r->note = NULL;
  }
}

static void plugins_line(struct np_show *s, lua_State *L) {
  static const char *const words[] = {"held", "pending", "dead"};
  struct row *r = np_show_row(s);
  struct np_buf waiting = {0};
  for (size_t i = 0; i < 3; i++)
    if (np_show_number(L, words[i]) > 0)
      np_buf_addf(&waiting, "%s%lld %s", waiting.len ? ", " : "", (long long)np_show_number(L, words[i]), words[i]);
  char *near = np_show_field(L, "near"); /* use against limit */
  if (*near) np_buf_addf(&waiting, "%s%s", waiting.len ? ", " : "", near);
  free(near);
  r->cells[0].text = np_show_field(L, "instance");
  r->cells[1].text = np_show_field(L, "plugin");
  r->cells[2].text = np_show_field(L, "kind");
  r->cells[3] = state_cell(L);
  r->cells[4].text = np_show_number(L, "generation") ? np_show_field(L, "generation") : np_strdup("-");
  r->cells[5].text = np_show_moment_ago(np_show_number(L, "since"));
  r->cells[6] = (struct cell){waiting.data ? waiting.data : np_strdup(""), YELLOW};
  set_note(r, L);
}

static void plugins_summary(struct np_show *s, lua_State *L) {
  (void)s;
  static const char *const words[] = {"held", "pending", "dead"};
  printf("%lld lane%s, port %lld, process %lld, %.1f MiB, %lld descriptors, %lld readings", (long long)np_show_number(L, "lanes"),
         np_show_number(L, "lanes") == 1 ? "" : "s", (long long)np_show_number(L, "port"), (long long)np_show_number(L, "pid"),
         (double)np_show_number(L, "resident") / 1048576, (long long)np_show_number(L, "descriptors"),
         (long long)np_show_number(L, "readings"));
  for (size_t i = 0; i < 3; i++)
    if (np_show_number(L, words[i]) > 0) printf(", %lld %s", (long long)np_show_number(L, words[i]), words[i]);
  putchar('\n');
}

static void reload_line(struct np_show *s, lua_State *L) {
  struct row *r = np_show_row(s);
  r->cells[0].text = np_show_field(L, "instance");
  r->cells[1] = state_cell(L);
  set_note(r, L);
}

static void reload_summary(struct np_show *s, lua_State *L) {
  (void)s;
  printf("%lld loaded, %lld kept, %lld failed, %lld removed", (long long)np_show_number(L, "loaded"),
         (long long)np_show_number(L, "kept"), (long long)np_show_number(L, "failed"), (long long)np_show_number(L, "removed"));
  if (np_show_number(L, "waiting") > 0) printf(", %lld at the gate", (long long)np_show_number(L, "waiting"));
  if (np_show_number(L, "gone") > 0)
    printf(", %lld gone: out of force in half a second, unless back by then", (long long)np_show_number(L, "gone"));
  putchar('\n');
}

/* devices */

/* A list of texts, joined; owned. */
static char *list_field(lua_State *L, const char *name) {
  struct np_buf b = {0};
  if (lua_getfield(L, 1, name) == LUA_TTABLE)
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) == LUA_TSTRING; i++, lua_pop(L, 1)) {
      size_t n;
      const char *s = lua_tolstring(L, -1, &n);
      char *clean = np_show_clean(s, n);
      np_buf_addf(&b, "%s%s", b.len ? ", " : "", clean);
      free(clean);
    }
  lua_settop(L, 1);
  return b.data ? b.data : np_strdup("");
}

/* What its vendor says and what operators have added. */
static char *all_tags(lua_State *L) {
  char *given = list_field(L, "tags"), *added = list_field(L, "own_tags");
  struct np_buf b = {0};
  np_buf_addf(&b, "%s%s%s", given, *given && *added ? ", " : "", added);
  free(given), free(added);
  return b.data;
}

static void devices_line(struct np_show *s, lua_State *L) {
  struct row *r = np_show_row(s);
  r->cells[0].text = np_show_field(L, "device");
  r->cells[1].text = np_show_field(L, "vendor");
  r->cells[2].text = np_show_field(L, "connection");
  lua_getfield(L, 1, "online");
  bool known = !lua_isnil(L, -1), online = lua_toboolean(L, -1);
  lua_pop(L, 1);
  r->cells[3] = (struct cell){np_strdup(!known ? "" : online ? "online" : "offline"), online ? GREEN : YELLOW};
  r->cells[4].text = np_show_moment_ago(np_show_number(L, "last_seen"));
  r->cells[5].text = np_show_field(L, "name");
  r->cells[6].text = all_tags(L);
}

static void tag_line(struct np_show *s, lua_State *L) {
  (void)s;
  char *device = np_show_field(L, "device"), *vendor = np_show_field(L, "vendor");
  char *given = list_field(L, "tags"), *added = list_field(L, "own_tags");
  printf("%s of %s: %s%s%s%s\n", device, vendor, *added || *given ? added : "no tags", *added && *given ? "; " : "",
         *given ? "its vendor says: " : "", given);
  free(device), free(vendor), free(given), free(added);
}

static void devices_summary(struct np_show *s, lua_State *L) {
  (void)s;
  lua_Integer n = np_show_number(L, "devices");
  printf("%lld device%s\n", (long long)n, n == 1 ? "" : "s");
}

/* call: the commands that a connection has */

static void argument_line(lua_State *L, const char *name, int field) {
  char *shown = np_show_clean(name, strlen(name)), *about, *type;
  size_t n;
  lua_getfield(L, field, "type");
  const char *text = luaL_optlstring(L, -1, "any", &n);
  type = np_show_clean(text, n);
  lua_getfield(L, field, "about");
  text = luaL_optlstring(L, -1, "", &n);
  about = np_show_clean(text, n);
  bool needed = lua_getfield(L, field, "optional") == LUA_TNIL && lua_getfield(L, field, "default") == LUA_TNIL;
  printf("    %s=%s%s%s%s\n", shown, type, needed ? "" : " (may be left out)", *about ? "  " : "", about);
  free(shown);
  free(about);
  free(type);
  lua_settop(L, field);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void call_line(struct np_show *s, lua_State *L) {
  char *name = np_show_field(L, "command"), *about = np_show_field(L, "about");
  bool colour = s->colour;
  printf("%s%s%s%s%s\n", colour ? np_show_colours[GREEN] : "", name, colour ? "\x1b[0m" : "", *about ? "  " : "", about);
  free(name);
  free(about);
  if (lua_getfield(L, 1, "args") != LUA_TTABLE) return;
  size_t n = 0, i = 0;
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) n++;
  const char **names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0); /* borrowed from the table */
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING) names[i++] = lua_tostring(L, -2);
  qsort(names, i, sizeof *names, compare_names);
  for (size_t k = 0; k < i; k++) {
    lua_getfield(L, 2, names[k]);
    argument_line(L, names[k], 4);
    lua_settop(L, 3);
  }
}

static void call_summary(struct np_show *s, lua_State *L) {
  (void)s;
  if (np_show_number(L, "commands") == 0) puts("it has no commands");
}

/* request, people */

/* A text of several lines, below its name, after what was there before. */
static void print_lines(struct np_show *s, lua_State *L, const char *name) {
  bool there = lua_getfield(L, 1, name) == LUA_TSTRING;
  lua_settop(L, 1);
  if (!there) return;
  np_show_flush(s);
  printf("%s%s%s\n", s->colour ? np_show_colours[DIM] : "", name, s->colour ? "\x1b[0m" : "");
  np_show_lines(L, name, "    ");
}

/* What became of it before it was run again. */
static void show_runs(struct np_show *s, lua_State *L) {
  if (lua_getfield(L, 1, "before") == LUA_TTABLE) {
    lua_State *one = lua_newthread(L);
    for (lua_Integer i = 1; lua_rawgeti(L, 2, i) == LUA_TTABLE; i++) {
      struct np_buf b = {0};
      lua_settop(one, 0);
      lua_xmove(L, one, 1);
      char *outcome = np_show_field(one, "outcome"), *error = np_show_field(one, "error"),
           *until = np_show_moment(np_show_number(one, "again"));
      np_buf_addf(&b, "%s by generation %lld, until it was run again %s%s%s", outcome, (long long)np_show_number(one, "generation"),
                  until, *error ? ": " : "", error);
      np_show_named(s, "before", b.data);
      free(outcome), free(error), free(until);
    }
  }
  lua_settop(L, 1);
}

static void request_line(struct np_show *s, lua_State *L) {
  static const char *const names[] = {"id",    "received", "connection", "generation", "method", "target",
                                      "route", "remote",   "status",     "outcome",    "error"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(names[i], "received") == 0) {
      struct row *r = np_show_row(s);
      r->cells[0] = (struct cell){np_strdup("received"), DIM};
      r->cells[1].text = np_show_moment_ago(np_show_number(L, "received"));
    } else {
      np_show_named(s, names[i], np_show_field(L, names[i]));
    }
  }
  show_runs(s, L);
  print_lines(s, L, "headers");
  print_lines(s, L, "body");
  print_lines(s, L, "body_base64");
}

static int compare_texts(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The details by name, after whose they are. */
static void people_line(struct np_show *s, lua_State *L) {
  char *names[128];
  size_t n = 0;
  np_show_named(s, "reference", np_show_field(L, "reference"));
  lua_getfield(L, 1, "person");
  lua_replace(L, 1);
  np_show_named(s, "connection", np_show_field(L, "connection"));
  np_show_named(s, "key", np_show_field(L, "key"));
  struct row *r = np_show_row(s);
  r->cells[0] = (struct cell){np_strdup("changed"), DIM};
  r->cells[1].text = np_show_moment_ago(np_show_number(L, "changed"));
  lua_getfield(L, 1, "details");
  lua_replace(L, 1);
  if (!lua_istable(L, 1)) return;
  for (lua_pushnil(L); lua_next(L, 1) && n < 128; lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING) names[n++] = np_strdup(lua_tostring(L, -2));
  lua_settop(L, 1);
  qsort(names, n, sizeof *names, compare_texts);
  for (size_t i = 0; i < n; i++) {
    char *text = np_show_field(L, names[i]), *name = np_show_clean(names[i], strlen(names[i]));
    r = np_show_row(s);
    r->cells[0] = (struct cell){name, DIM};
    r->cells[1].text = text;
    free(names[i]);
  }
}

static void people_summary(struct np_show *s, lua_State *L) {
  lua_Integer n = np_show_number(L, "people");
  lua_getfield(L, 1, "forgotten");
  bool forgotten = !lua_isnil(L, -1);
  lua_settop(L, 1);
  if (forgotten)
    puts("forgotten");
  else if (!s->shown)
    printf("%lld %s\n", (long long)n, n == 1 ? "person" : "people");
}

/* tail */

static void tail_line(struct np_show *s, lua_State *L) {
  struct row *r = np_show_row(s);
  r->cells[0] = (struct cell){np_show_moment(np_show_number(L, "at")), DIM};
  r->cells[1].text = np_show_field(L, "device");
  r->cells[2].text = np_show_field(L, "metric");
  char *value = np_show_field(L, "value"), *unit = np_show_field(L, "unit");
  struct np_buf b = {0};
  np_buf_addf(&b, "%s%s%s", value, *unit ? " " : "", unit);
  r->cells[3].text = b.data;
  free(value);
  free(unit);
  r->cells[4].text = np_show_field(L, "quality");
  r->cells[4].colour = strcmp(r->cells[4].text, "invalid") == 0 ? RED : strcmp(r->cells[4].text, "valid") == 0 ? PLAIN : YELLOW;
  char *connection = np_show_field(L, "connection");
  struct np_buf from = {0};
  np_buf_addf(&from, "%s%s", connection, np_show_number(L, "depth") ? " (derived)" : "");
  r->cells[5].text = from.data;
  free(connection);
}

/* What its shadow run found, where its messages changed; NULL. Borrowed from the object. */
static const char *changed_messages(lua_State *L) {
  const char *said = NULL;
  lua_getfield(L, 1, "stages");
  for (lua_Integer i = 1; !said && lua_istable(L, 2) && lua_rawgeti(L, 2, i) == LUA_TTABLE; i++) {
    bool differs = lua_getfield(L, 3, "verdict") == LUA_TSTRING && strcmp(lua_tostring(L, 4), "differs") == 0;
    if (differs && lua_getfield(L, 3, "said") == LUA_TSTRING) said = lua_tostring(L, 5);
    lua_settop(L, 2);
  }
  lua_settop(L, 1);
  return said;
}

static void history_line(struct np_show *s, lua_State *L) {
  struct row *r = np_show_row(s);
  char *state = np_show_field(L, "state"), *verdict = np_show_field(L, "verdict"), *cause = np_show_field(L, "cause"),
       *reason = np_show_field(L, "reason");
  const char *messages = changed_messages(L);
  bool bad = strcmp(verdict, "bad") == 0, waited = strcmp(verdict, "waiting") == 0, good = strcmp(verdict, "good") == 0;
  struct np_buf why = {0};
  np_buf_adds(&why, *cause ? cause : waited ? "its messages would be others" : good ? "" : reason);
  if (messages) np_buf_addf(&why, "%s%s", why.len ? ": " : "", messages);
  r->cells[0].text = np_show_field(L, "generation");
  r->cells[1] = (struct cell){np_show_moment(np_show_number(L, "at")), DIM};
  r->cells[2] = (struct cell){np_strdup(*state   ? state
                                        : bad    ? "not let in"
                                        : waited ? "waited"
                                        : good   ? ""
                                                 : verdict), /* "quarantined", "released" */
                              *state && !waited ? GREEN
                              : bad             ? RED
                              : good            ? PLAIN
                                                : YELLOW};
  r->cells[3].text = np_show_clean(np_buf_text(&why), why.len);
  np_buf_free(&why);
  free(state), free(verdict), free(cause), free(reason);
}

static void rollback_summary(struct np_show *s, lua_State *L) {
  (void)s;
  char *instance = np_show_field(L, "instance");
  printf("%s: generation %lld is in force, until its file changes, with the settings that neap.lua has\n", instance,
         (long long)np_show_number(L, "generation"));
  free(instance);
}

static void approve_summary(struct np_show *s, lua_State *L) {
  (void)s;
  char *instance = np_show_field(L, "instance");
  printf("%s: generation %lld is in force\n", instance, (long long)np_show_number(L, "generation"));
  free(instance);
}

static void release_summary(struct np_show *s, lua_State *L) {
  (void)s;
  char *instance = np_show_field(L, "instance");
  printf("%s: generation %lld is released from its quarantine; what was held is run\n", instance,
         (long long)np_show_number(L, "generation"));
  free(instance);
}

static const char *const history_heads[] = {"GENERATION", "AT", "STATE", "WHY"};
static const char *const plugins_heads[] = {"INSTANCE", "PLUGIN", "KIND", "STATE", "GENERATION", "SINCE", "WAITING"};
static const char *const devices_heads[] = {"DEVICE", "VENDOR", "CONNECTION", "STATE", "LAST SEEN", "NAME", "TAGS"};
static const struct np_show_kind kinds[] = {{"plugins", plugins_line, plugins_summary, plugins_heads, 7},
                                            {"reload", reload_line, reload_summary, NULL, 2},
                                            {"devices", devices_line, devices_summary, devices_heads, 7},
                                            {"tag", tag_line, NULL, NULL, 2},
                                            {"dead", np_show_dead, np_show_dead_summary, np_show_dead_heads, 6},
                                            {"letter", np_show_dead, NULL, NULL, 2},
                                            {"destinations", np_show_destination, NULL, np_show_destination_heads, 8},
                                            {"ack", np_show_ack, np_show_ack_summary, np_show_ack_heads, 6},
                                            {"call", call_line, call_summary, NULL, 2},
                                            {"request", request_line, NULL, NULL, 2},
                                            {"recording", np_show_recording, NULL, NULL, 2},
                                            {"explain", np_show_story, NULL, NULL, 2},
                                            {"history", history_line, NULL, history_heads, 4},
                                            {"requests", np_show_request_run, np_show_request_runs, NULL, 2},
                                            {"replay list", np_show_replay_row, NULL, np_show_replay_heads, 7},
                                            {"replay show", np_show_replay, NULL, NULL, 2},
                                            {"replay send", np_show_replay_progress, NULL, NULL, 2},
                                            {"rollback", NULL, rollback_summary, NULL, 2},
                                            {"approve", NULL, approve_summary, NULL, 2},
                                            {"messages", np_show_change, np_show_changes, np_show_change_heads, 5},
                                            {"release", NULL, release_summary, NULL, 2},
                                            {"people", people_line, people_summary, NULL, 2},
                                            {"tail matches", np_show_match, NULL, np_show_match_heads, 6},
                                            {"tail messages", np_show_message, NULL, np_show_message_heads, 6},
                                            {"tail attempts", np_show_attempt, NULL, np_show_attempt_heads, 7},
                                            {"tail acknowledgements", np_show_acked, NULL, np_show_acked_heads, 6},
                                            {"tail", tail_line, NULL, NULL, 6}};

const struct np_show_kind *np_show_kind_of(const char *command) {
  size_t i = 0;
  while (i + 1 < sizeof kinds / sizeof *kinds && strcmp(kinds[i].command, command) != 0) i++;
  return &kinds[i];
}
