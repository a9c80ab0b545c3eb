/* Tables with aligned columns, and the lines of a tail. What comes from outside cannot steer the terminal. */
#include "host/client_show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lauxlib.h>
#include <lua.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "lib/json.h"

#define COLUMNS 8
#define ROWS 500 /* printed together */
#define WIDEST 40

enum colour { PLAIN, DIM, RED, GREEN, YELLOW };
static const char *const colours[] = {"", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"};

struct cell {
  char *text; /* owned */
  enum colour colour;
};

struct row {
  struct cell cells[COLUMNS];
  char *note; /* owned: a line of its own below; may be NULL */
};

struct np_show {
  void (*line)(struct np_show *s, lua_State *L); /* the object is at index 1 */
  void (*summary)(struct np_show *s, lua_State *L);
  const char *const *heads;          /* NULL: a tail, whose rows are printed at once */
  bool headed, colour, quiet, shown; /* shown: a line was */
  size_t columns, count;
  struct row rows[ROWS];
  size_t widths[COLUMNS];
  long failed;
  lua_State *L; /* owned */
};

/* A copy without control characters, C1 and what is not UTF-8 included. */
static char *clean(const char *s, size_t n) {
  struct np_buf b = {0};
  np_buf_reserve(&b, n);
  for (size_t i = 0, len; i < n; i += len ? len : 1) {
    unsigned char c = (unsigned char)s[i];
    len = np_utf8_len(s + i, n - i);
    if (len == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0))
      np_buf_addc(&b, '?');
    else
      np_buf_add(&b, s + i, len);
  }
  return b.data ? b.data : np_strdup("");
}

static size_t width(const char *s) {
  size_t n = 0;
  for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
  return n;
}

/* Fields of the object at index 1. */

static char *field(lua_State *L, const char *name) {
  size_t n;
  lua_getfield(L, 1, name);
  const char *s = lua_isnil(L, -1) ? "" : luaL_tolstring(L, -1, &n);
  char *text = clean(s, strlen(s));
  lua_settop(L, 1);
  return text;
}

static lua_Integer number(lua_State *L, const char *name) {
  lua_getfield(L, 1, name);
  lua_Integer n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return n;
}

static char *moment(lua_Integer ms) {
  if (ms == 0) return np_strdup("-");
  char text[40];
  time_t then = (time_t)(ms / 1000), now = (time_t)(np_now_ms() / 1000);
  struct tm a, b;
  localtime_r(&then, &a);
  localtime_r(&now, &b);
  bool today = a.tm_yday == b.tm_yday && a.tm_year == b.tm_year;
  strftime(text, sizeof text, today ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &a);
  return np_strdup(text);
}

static char *moment_ago(lua_Integer ms) {
  static const struct {
    const char *name;
    long long seconds;
  } units[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}};
  char *at = moment(ms);
  if (ms == 0) return at;
  long long ago = (np_now_ms() - ms) / 1000;
  size_t i = 0;
  if (ago < 0) ago = 0;
  while (i < 3 && ago < units[i].seconds) i++;
  struct np_buf b = {0};
  np_buf_addf(&b, "%s, %lld%s ago", at, ago / units[i].seconds, units[i].name);
  free(at);
  return b.data;
}

/* Rows. */

static struct row *row_new(struct np_show *s) {
  if (s->count == ROWS) np_show_flush(s);
  struct row *r = &s->rows[s->count++];
  *r = (struct row){0};
  return r;
}

static void print_cell(const struct np_show *s, const struct cell *c, size_t pad) {
  bool coloured = s->colour && c->colour != PLAIN;
  printf("%s%s%s%*s", coloured ? colours[c->colour] : "", c->text, coloured ? "\x1b[0m" : "", (int)pad, "");
}

static void print_row(const struct np_show *s, const struct row *r) {
  size_t last = s->columns;
  while (last > 1 && (!r->cells[last - 1].text || !*r->cells[last - 1].text)) last--;
  for (size_t i = 0; i < last; i++) {
    const struct cell c = r->cells[i].text ? r->cells[i] : (struct cell){.text = (char *)""};
    size_t w = width(c.text);
    print_cell(s, &c, i + 1 == last ? 0 : 2 + (s->widths[i] > w ? s->widths[i] - w : 0));
  }
  putchar('\n');
  if (r->note) printf("    %s%s%s\n", s->colour ? colours[RED] : "", r->note, s->colour ? "\x1b[0m" : "");
}

static void print_heads(struct np_show *s) {
  struct row heads = {0};
  for (size_t i = 0; i < s->columns; i++) heads.cells[i] = (struct cell){(char *)s->heads[i], DIM};
  print_row(s, &heads);
  s->headed = true;
}

void np_show_flush(struct np_show *s) {
  for (size_t i = 0; i < s->count; i++)
    for (size_t j = 0; j < s->columns; j++) {
      size_t w = s->rows[i].cells[j].text ? width(s->rows[i].cells[j].text) : 0;
      if (w > s->widths[j] && w <= WIDEST) s->widths[j] = w;
    }
  if (s->count && s->heads && !s->headed) print_heads(s);
  for (size_t i = 0; i < s->count; i++) {
    print_row(s, &s->rows[i]);
    for (size_t j = 0; j < COLUMNS; j++) free(s->rows[i].cells[j].text);
    free(s->rows[i].note);
  }
  s->count = 0;
}

/* plugins, reload */

static struct cell state_cell(lua_State *L) {
  struct cell c = {.text = field(L, "state")};
  c.colour = strcmp(c.text, "in force") == 0 ? GREEN : strcmp(c.text, "held") == 0 ? RED : YELLOW;
  return c;
}

static void set_note(struct row *r, lua_State *L) {
  static const char *const words[] = {"error", "denied"};
  for (size_t i = 0; i < 2; i++) {
    r->note = field(L, words[i]);
    if (*r->note) return;
    free(r->note);
    r->note = NULL;
  }
}

static void plugins_line(struct np_show *s, lua_State *L) {
  static const char *const words[] = {"held", "pending", "dead"};
  struct row *r = row_new(s);
  struct np_buf waiting = {0};
  for (size_t i = 0; i < 3; i++)
    if (number(L, words[i]) > 0)
      np_buf_addf(&waiting, "%s%lld %s", waiting.len ? ", " : "", (long long)number(L, words[i]), words[i]);
  r->cells[0].text = field(L, "instance");
  r->cells[1].text = field(L, "plugin");
  r->cells[2].text = field(L, "kind");
  r->cells[3] = state_cell(L);
  r->cells[4].text = number(L, "generation") ? field(L, "generation") : np_strdup("-");
  r->cells[5].text = moment_ago(number(L, "since"));
  r->cells[6] = (struct cell){waiting.data ? waiting.data : np_strdup(""), YELLOW};
  set_note(r, L);
}

static void plugins_summary(struct np_show *s, lua_State *L) {
  (void)s;
  static const char *const words[] = {"held", "pending", "dead"};
  printf("%lld lane%s, port %lld, process %lld, %.1f MiB, %lld descriptors, %lld readings", (long long)number(L, "lanes"),
         number(L, "lanes") == 1 ? "" : "s", (long long)number(L, "port"), (long long)number(L, "pid"),
         (double)number(L, "resident") / 1048576, (long long)number(L, "descriptors"), (long long)number(L, "readings"));
  for (size_t i = 0; i < 3; i++)
    if (number(L, words[i]) > 0) printf(", %lld %s", (long long)number(L, words[i]), words[i]);
  putchar('\n');
}

static void reload_line(struct np_show *s, lua_State *L) {
  struct row *r = row_new(s);
  r->cells[0].text = field(L, "instance");
  r->cells[1] = state_cell(L);
  set_note(r, L);
}

static void reload_summary(struct np_show *s, lua_State *L) {
  (void)s;
  printf("%lld loaded, %lld kept, %lld failed, %lld removed\n", (long long)number(L, "loaded"), (long long)number(L, "kept"),
         (long long)number(L, "failed"), (long long)number(L, "removed"));
}

/* devices */

static void devices_line(struct np_show *s, lua_State *L) {
  struct row *r = row_new(s);
  r->cells[0].text = field(L, "device");
  r->cells[1].text = field(L, "vendor");
  r->cells[2].text = field(L, "connection");
  lua_getfield(L, 1, "online");
  bool known = !lua_isnil(L, -1), online = lua_toboolean(L, -1);
  lua_pop(L, 1);
  r->cells[3] = (struct cell){np_strdup(!known ? "" : online ? "online" : "offline"), online ? GREEN : YELLOW};
  r->cells[4].text = moment_ago(number(L, "last_seen"));
  r->cells[5].text = field(L, "name");
}

static void devices_summary(struct np_show *s, lua_State *L) {
  (void)s;
  lua_Integer n = number(L, "devices");
  printf("%lld device%s\n", (long long)n, n == 1 ? "" : "s");
}

/* call: the commands that a connection has */

static void argument_line(lua_State *L, const char *name, int field) {
  char *shown = clean(name, strlen(name)), *about, *type;
  size_t n;
  lua_getfield(L, field, "type");
  const char *text = luaL_optlstring(L, -1, "any", &n);
  type = clean(text, n);
  lua_getfield(L, field, "about");
  text = luaL_optlstring(L, -1, "", &n);
  about = clean(text, n);
  bool needed = lua_getfield(L, field, "optional") == LUA_TNIL && lua_getfield(L, field, "default") == LUA_TNIL;
  printf("    %s=%s%s%s%s\n", shown, type, needed ? "" : " (may be left out)", *about ? "  " : "", about);
  free(shown);
  free(about);
  free(type);
  lua_settop(L, field);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void call_line(struct np_show *s, lua_State *L) {
  char *name = field(L, "command"), *about = field(L, "about");
  bool colour = s->colour;
  printf("%s%s%s%s%s\n", colour ? colours[GREEN] : "", name, colour ? "\x1b[0m" : "", *about ? "  " : "", about);
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
  if (number(L, "commands") == 0) puts("it has no commands");
}

/* request, people */

static void named(struct np_show *s, lua_State *L, const char *name) {
  char *text = field(L, name);
  if (!*text) {
    free(text);
    return;
  }
  struct row *r = row_new(s);
  r->cells[0] = (struct cell){np_strdup(name), DIM};
  r->cells[1].text = text;
}

/* A text of several lines, after what was there before. */
static void print_lines(struct np_show *s, lua_State *L, const char *name) {
  size_t n;
  if (lua_getfield(L, 1, name) == LUA_TSTRING) {
    const char *at = lua_tolstring(L, -1, &n), *end = at + n;
    np_show_flush(s);
    printf("%s%s%s\n", s->colour ? colours[DIM] : "", name, s->colour ? "\x1b[0m" : "");
    while (at < end) {
      const char *stop = memchr(at, '\n', (size_t)(end - at));
      if (!stop) stop = end;
      char *line = clean(at, (size_t)(stop - at));
      printf("    %s\n", line);
      free(line);
      at = stop + 1;
    }
  }
  lua_settop(L, 1);
}

static void request_line(struct np_show *s, lua_State *L) {
  static const char *const names[] = {"id",    "received", "connection", "generation", "method", "target",
                                      "route", "remote",   "status",     "outcome",    "error"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(names[i], "received") == 0) {
      struct row *r = row_new(s);
      r->cells[0] = (struct cell){np_strdup("received"), DIM};
      r->cells[1].text = moment_ago(number(L, "received"));
    } else {
      named(s, L, names[i]);
    }
  }
  print_lines(s, L, "headers");
  print_lines(s, L, "body");
  print_lines(s, L, "body_base64");
}

static int compare_texts(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The details by name, after whose they are. */
static void people_line(struct np_show *s, lua_State *L) {
  char *names[128];
  size_t n = 0;
  named(s, L, "reference");
  lua_getfield(L, 1, "person");
  lua_replace(L, 1);
  named(s, L, "connection");
  named(s, L, "key");
  struct row *r = row_new(s);
  r->cells[0] = (struct cell){np_strdup("changed"), DIM};
  r->cells[1].text = moment_ago(number(L, "changed"));
  lua_getfield(L, 1, "details");
  lua_replace(L, 1);
  if (!lua_istable(L, 1)) return;
  for (lua_pushnil(L); lua_next(L, 1) && n < 128; lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING) names[n++] = np_strdup(lua_tostring(L, -2));
  lua_settop(L, 1);
  qsort(names, n, sizeof *names, compare_texts);
  for (size_t i = 0; i < n; i++) {
    char *text = field(L, names[i]), *name = clean(names[i], strlen(names[i]));
    r = row_new(s);
    r->cells[0] = (struct cell){name, DIM};
    r->cells[1].text = text;
    free(names[i]);
  }
}

static void people_summary(struct np_show *s, lua_State *L) {
  lua_Integer n = number(L, "people");
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
  struct row *r = row_new(s);
  r->cells[0] = (struct cell){moment(number(L, "at")), DIM};
  r->cells[1].text = field(L, "device");
  r->cells[2].text = field(L, "metric");
  char *value = field(L, "value"), *unit = field(L, "unit");
  struct np_buf b = {0};
  np_buf_addf(&b, "%s%s%s", value, *unit ? " " : "", unit);
  r->cells[3].text = b.data;
  free(value);
  free(unit);
  r->cells[4].text = field(L, "quality");
  r->cells[4].colour = strcmp(r->cells[4].text, "invalid") == 0 ? RED : strcmp(r->cells[4].text, "valid") == 0 ? PLAIN : YELLOW;
  r->cells[5].text = field(L, "connection");
}

static void history_line(struct np_show *s, lua_State *L) {
  struct row *r = row_new(s);
  char *state = field(L, "state"), *verdict = field(L, "verdict"), *cause = field(L, "cause"), *reason = field(L, "reason");
  r->cells[0].text = field(L, "generation");
  r->cells[1] = (struct cell){moment(number(L, "at")), DIM};
  bool bad = strcmp(verdict, "bad") == 0;
  r->cells[2] = (struct cell){np_strdup(*state ? state : bad ? "not let in" : ""), *state ? GREEN : bad ? RED : PLAIN};
  r->cells[3].text = *cause ? np_strdup(cause) : np_strdup(bad ? reason : "");
  free(state), free(verdict), free(cause), free(reason);
}

static void rollback_summary(struct np_show *s, lua_State *L) {
  (void)s;
  char *instance = field(L, "instance");
  printf("%s: generation %lld is in force, until its file changes\n", instance, (long long)number(L, "generation"));
  free(instance);
}

static void replay_line(struct np_show *s, lua_State *L) {
  (void)s;
  char *outcome = field(L, "outcome"), *why = field(L, "why");
  printf("request %lld: %s: %s\n", (long long)number(L, "request"), outcome, why);
  free(outcome);
  free(why);
}

static void replay_summary(struct np_show *s, lua_State *L) {
  (void)s;
  printf("%lld done, %lld refused, %lld failed again\n", (long long)number(L, "done"), (long long)number(L, "refused"),
         (long long)number(L, "failed"));
}

static const char *const history_heads[] = {"GENERATION", "AT", "STATE", "WHY"};
static const char *const plugins_heads[] = {"INSTANCE", "PLUGIN", "KIND", "STATE", "GENERATION", "SINCE", "WAITING"};
static const char *const devices_heads[] = {"DEVICE", "VENDOR", "CONNECTION", "STATE", "LAST SEEN", "NAME"};
static const struct {
  const char *command;
  void (*line)(struct np_show *s, lua_State *L), (*summary)(struct np_show *s, lua_State *L);
  const char *const *heads;
  size_t columns;
} kinds[] = {{"plugins", plugins_line, plugins_summary, plugins_heads, 7},
             {"reload", reload_line, reload_summary, NULL, 2},
             {"devices", devices_line, devices_summary, devices_heads, 6},
             {"call", call_line, call_summary, NULL, 2},
             {"request", request_line, NULL, NULL, 2},
             {"history", history_line, NULL, history_heads, 4},
             {"replay", replay_line, replay_summary, NULL, 2},
             {"rollback", NULL, rollback_summary, NULL, 2},
             {"people", people_line, people_summary, NULL, 2},
             {"tail", tail_line, NULL, NULL, 6}};

static int show(lua_State *L) { /* the show; the line */
  struct np_show *s = lua_touserdata(L, 1);
  struct np_error err;
  size_t n;
  const char *line = lua_tolstring(L, 2, &n);
  if (np_json_decode(L, line, n, &err) < 0) return luaL_error(L, "the host's answer cannot be read: %s", err.text);
  lua_replace(L, 1);
  lua_settop(L, 1);
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getfield(L, 1, "error") == LUA_TSTRING && lua_getfield(L, 1, "instance") == LUA_TNIL) {
    lua_pop(L, 1);
    return lua_error(L);
  }
  lua_settop(L, 1);
  if (lua_getfield(L, 1, "summary") == LUA_TTABLE) {
    lua_replace(L, 1);
    s->failed = (long)number(L, "failed");
    np_show_flush(s);
    if (s->summary && !s->quiet) s->summary(s, L);
  } else if (!s->quiet) {
    lua_settop(L, 1);
    s->shown = true;
    s->line(s, L);
  }
  return 0;
}

int np_show_line(struct np_show *s, const char *line, size_t len, struct np_error *err) {
  lua_State *L = s->L;
  lua_settop(L, 0);
  lua_pushcfunction(L, show);
  lua_pushlightuserdata(L, s);
  lua_pushlstring(L, line, len);
  if (lua_pcall(L, 2, 0, 0) == LUA_OK) return 0;
  return np_fail(err, "%s", lua_tostring(L, -1));
}

long np_show_failed(const struct np_show *s) { return s->failed; }

struct np_show *np_show_new(const char *command, bool colour, bool quiet) {
  size_t i = 0;
  while (i + 1 < sizeof kinds / sizeof *kinds && strcmp(kinds[i].command, command) != 0) i++;
  struct np_show *s = np_alloc(sizeof *s);
  s->line = kinds[i].line;
  s->summary = kinds[i].summary;
  s->heads = kinds[i].heads;
  s->columns = kinds[i].columns;
  s->colour = colour;
  s->quiet = quiet;
  for (size_t j = 0; s->heads && j < s->columns; j++) s->widths[j] = width(s->heads[j]);
  s->L = luaL_newstate();
  if (!s->L) abort(); /* out of memory */
  return s;
}

void np_show_free(struct np_show *s) {
  lua_close(s->L);
  free(s);
}
