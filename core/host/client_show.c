/* Tables with aligned columns, and the lines of a tail. */
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
#include "host/client_row.h"
#include "lib/json.h"

#define WIDEST 40

const char *const np_show_colours[] = {"", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"};

/* A copy without control characters, C1 and what is not UTF-8 included; what had lines is one line. */
char *np_show_clean(const char *s, size_t n) {
  struct np_buf b = {0};
  np_buf_reserve(&b, n);
  for (size_t i = 0, len; i < n; i += len ? len : 1) {
    unsigned char c = (unsigned char)s[i];
    len = np_utf8_len(s + i, n - i);
    if (s[i] == '\n')
      np_buf_adds(&b, "; ");
    else if (len == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0))
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

char *np_show_field(lua_State *L, const char *name) {
  size_t n;
  lua_getfield(L, 1, name);
  const char *s = lua_isnil(L, -1) ? "" : luaL_tolstring(L, -1, &n);
  char *text = np_show_clean(s, strlen(s));
  lua_settop(L, 1);
  return text;
}

void np_show_lines(lua_State *L, const char *name, const char *before) {
  size_t n;
  const char *text = lua_getfield(L, 1, name) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
  for (const char *at = text, *end = text ? text + n : NULL, *stop; at < end; at = stop + 1) {
    stop = memchr(at, '\n', (size_t)(end - at));
    if (!stop) stop = end;
    char *line = np_show_clean(at, (size_t)(stop - at));
    printf("%s%s\n", before, line);
    free(line);
  }
  lua_settop(L, 1);
}

lua_Integer np_show_number(lua_State *L, const char *name) {
  lua_getfield(L, 1, name);
  lua_Integer n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return n;
}

char *np_show_moment(lua_Integer ms) {
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

char *np_show_moment_ago(lua_Integer ms) {
  static const struct {
    const char *name;
    long long seconds;
  } units[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}};
  char *at = np_show_moment(ms);
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

struct row *np_show_row(struct np_show *s) {
  if (s->count == NP_SHOW_ROWS) np_show_flush(s);
  struct row *r = &s->rows[s->count++];
  *r = (struct row){0};
  return r;
}

void np_show_named(struct np_show *s, const char *name, char *text) {
  if (!*text) {
    free(text);
    return;
  }
  struct row *r = np_show_row(s);
  r->cells[0] = (struct cell){np_strdup(name), DIM};
  r->cells[1].text = text;
}

static void print_cell(const struct np_show *s, const struct cell *c, size_t pad) {
  bool coloured = s->colour && c->colour != PLAIN;
  printf("%s%s%s%*s", coloured ? np_show_colours[c->colour] : "", c->text, coloured ? "\x1b[0m" : "", (int)pad, "");
}

static void print_row(const struct np_show *s, const struct row *r) {
  size_t last = s->kind->columns;
  while (last > 1 && (!r->cells[last - 1].text || !*r->cells[last - 1].text)) last--;
  for (size_t i = 0; i < last; i++) {
    const struct cell c = r->cells[i].text ? r->cells[i] : (struct cell){.text = (char *)""};
    size_t w = width(c.text);
    print_cell(s, &c, i + 1 == last ? 0 : 2 + (s->widths[i] > w ? s->widths[i] - w : 0));
  }
  putchar('\n');
  if (r->note) printf("    %s%s%s\n", s->colour ? np_show_colours[RED] : "", r->note, s->colour ? "\x1b[0m" : "");
}

static void print_heads(struct np_show *s) {
  struct row heads = {0};
  for (size_t i = 0; i < s->kind->columns; i++) heads.cells[i] = (struct cell){(char *)s->kind->heads[i], DIM};
  print_row(s, &heads);
  s->headed = true;
}

void np_show_flush(struct np_show *s) {
  for (size_t i = 0; i < s->count; i++)
    for (size_t j = 0; j < s->kind->columns; j++) {
      size_t w = s->rows[i].cells[j].text ? width(s->rows[i].cells[j].text) : 0;
      if (w > s->widths[j] && w <= WIDEST) s->widths[j] = w;
    }
  if (s->count && s->kind->heads && !s->headed) print_heads(s);
  for (size_t i = 0; i < s->count; i++) {
    print_row(s, &s->rows[i]);
    for (size_t j = 0; j < NP_SHOW_COLUMNS; j++) free(s->rows[i].cells[j].text);
    free(s->rows[i].note);
  }
  s->count = 0;
}

/* Whether an object with an error is about something that has it; else it is the host's own. */
static bool is_about(lua_State *L) {
  static const char *const names[] = {"instance", "id", "attempt"};
  for (size_t i = 0; i < 3; i++)
    if (lua_getfield(L, 1, names[i]) != LUA_TNIL) return true;
  return false;
}

static int show(lua_State *L) { /* the show; the line */
  struct np_show *s = lua_touserdata(L, 1);
  struct np_error err;
  size_t n;
  const char *line = lua_tolstring(L, 2, &n);
  if (np_json_decode(L, line, n, &err) < 0) return luaL_error(L, "the host's answer cannot be read: %s", err.text);
  lua_replace(L, 1);
  lua_settop(L, 1);
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getfield(L, 1, "error") == LUA_TSTRING && !is_about(L)) {
    lua_settop(L, 2);
    return lua_error(L);
  }
  lua_settop(L, 1);
  if (lua_getfield(L, 1, "summary") == LUA_TTABLE) {
    lua_replace(L, 1);
    s->failed = (long)np_show_number(L, "failed");
    np_show_flush(s);
    if (s->kind->summary && !s->quiet) s->kind->summary(s, L);
  } else if (!s->quiet) {
    lua_settop(L, 1);
    s->shown = true;
    s->kind->line(s, L);
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
  struct np_show *s = np_alloc(sizeof *s);
  s->kind = np_show_kind_of(command);
  s->colour = colour;
  s->quiet = quiet;
  for (size_t j = 0; s->kind->heads && j < s->kind->columns; j++) s->widths[j] = width(s->kind->heads[j]);
  s->L = luaL_newstate();
  if (!s->L) abort(); /* out of memory */
  return s;
}

void np_show_free(struct np_show *s) {
  lua_close(s->L);
  free(s);
}
