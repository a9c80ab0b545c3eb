/* Lookup tables as CSV (RFC 4180): a line of names, then a line for each key. What is wrong is told with file, line and column. */
#include "host/table_csv.h"

#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>

#include "base/utf8.h"

#define COLUMNS_MAX 200

struct csv {
  lua_State *L;
  const char *path, *at, *end, *line_start;
  int line;
  bool quoted; /* the field that was read last */
};

static int wrong(struct csv *c, const char *at, const char *what) {
  return luaL_error(c->L, "%s:%d:%d: %s", c->path, c->line, (int)(at - c->line_start) + 1, what);
}

static void next_line(struct csv *c) {
  c->line++;
  c->line_start = c->at;
}

static bool at_line_end(const struct csv *c) {
  return c->at == c->end || *c->at == '\n' || (*c->at == '\r' && (c->at + 1 == c->end || c->at[1] == '\n'));
}

static void skip_line_end(struct csv *c) {
  if (c->at < c->end && *c->at == '\r') c->at++;
  if (c->at < c->end && *c->at == '\n') c->at++;
  next_line(c);
}

static void read_quoted(struct csv *c, luaL_Buffer *b) {
  const char *start = c->at++, *line_start = c->line_start;
  int line = c->line;
  for (;;) {
    if (c->at == c->end) {
      c->line = line;
      c->line_start = line_start;
      wrong(c, start, "this quote is not closed");
    }
    char ch = *c->at++;
    if (ch == '"' && (c->at == c->end || *c->at != '"')) break;
    if (ch == '"') c->at++;
    luaL_addchar(b, ch);
    if (ch == '\n') next_line(c);
  }
  if (!at_line_end(c) && *c->at != ',') wrong(c, c->at, "after a closing quote only a comma can stand, or the line's end");
}

/* Pushes the field as a text. */
static void push_field(struct csv *c) {
  luaL_Buffer b;
  luaL_buffinit(c->L, &b);
  c->quoted = c->at < c->end && *c->at == '"';
  if (c->quoted) read_quoted(c, &b);
  while (!c->quoted && !at_line_end(c) && *c->at != ',') {
    if (*c->at == '"') wrong(c, c->at, "a quote inside of a field: put the whole field in quotes, and write it twice");
    if (*c->at == '\r') wrong(c, c->at, "a carriage return alone ends no line: save the file with lines that end in LF or CRLF");
    luaL_addchar(&b, *c->at++);
  }
  luaL_pushresult(&b);
}

/* As JSON writes numbers, so that "007" and "1e" stay texts; an integer that does not fit stays one too. */
static bool is_number(const char *s) {
  if (*s == '-') s++;
  size_t whole = strspn(s, "0123456789");
  if (!whole || (whole > 1 && *s == '0')) return false;
  bool integer = !s[whole];
  s += whole;
  if (*s == '.') {
    size_t digits = strspn(++s, "0123456789");
    if (!digits) return false;
    s += digits;
  }
  if (*s == 'e' || *s == 'E') {
    s += s[1] == '-' || s[1] == '+' ? 2 : 1;
    size_t digits = strspn(s, "0123456789");
    if (!digits) return false;
    s += digits;
  }
  return !*s && !(integer && whole > 18);
}

/* In place of the text at the top: a number where it is written as one, nil where it is empty. */
static void make_value(struct csv *c) {
  size_t len;
  const char *s = lua_tolstring(c->L, -1, &len);
  if (c->quoted) return;
  if (!len)
    lua_pushnil(c->L);
  else if (!memchr(s, 0, len) && is_number(s))
    lua_stringtonumber(c->L, s);
  else
    return;
  lua_remove(c->L, -2);
}

/* A file in another encoding would be read as keys that nobody asks for. */
static void check_text(struct csv *c) {
  const char *zero = memchr(c->at, 0, (size_t)(c->end - c->at)), *bad = c->at + np_utf8_check(c->at, (size_t)(c->end - c->at));
  if (zero && zero < bad) bad = zero;
  if (bad == c->end) return;
  for (; c->at < bad; c->at++)
    if (*c->at == '\n') c->line++, c->line_start = c->at + 1;
  wrong(c, bad, "this is no UTF-8 text: save the file as UTF-8");
}

/* What spreadsheets write where the comma stands in numbers. A table of one column may be meant, of such a name it is not. */
static void check_separator(struct csv *c, const char *name) {
  const char *other = strpbrk(name, ";\t");
  if (!other || c->quoted) return;
  wrong(c, c->line_start + (other - name),
        *other == ';' ? "columns are separated by commas here, not by semicolons"
                      : "columns are separated by commas here, not by tabs");
}

/* Leaves a list of the columns' names; their number. */
static int read_names(struct csv *c) {
  int n = 0;
  lua_newtable(c->L); /* names */
  lua_newtable(c->L); /* those that were there */
  for (;; c->at++) {
    const char *start = c->at;
    push_field(c);
    if (!lua_rawlen(c->L, -1)) wrong(c, start, "this column has no name");
    if (n == COLUMNS_MAX) wrong(c, start, "there are more than 200 columns");
    lua_pushvalue(c->L, -1);
    if (lua_rawget(c->L, -3) != LUA_TNIL) wrong(c, start, "there is a column of this name already");
    lua_pop(c->L, 1);
    lua_pushvalue(c->L, -1);
    lua_pushboolean(c->L, 1);
    lua_rawset(c->L, -4);
    lua_rawseti(c->L, -3, ++n);
    if (at_line_end(c)) break;
  }
  lua_rawgeti(c->L, -2, 1);
  if (n == 1) check_separator(c, lua_tostring(c->L, -1));
  lua_pop(c->L, 1);
  lua_pop(c->L, 1);
  skip_line_end(c);
  return n;
}

/* One line into the table at `rows`; the names are at `names`. */
static void read_row(struct csv *c, int rows, int names, int n) {
  const char *start = c->at;
  int column = 1;
  push_field(c);
  if (!lua_rawlen(c->L, -1)) wrong(c, start, "the key, the first column, is empty");
  lua_pushvalue(c->L, -1);
  if (lua_rawget(c->L, rows) != LUA_TNIL) wrong(c, start, "there is a line of this key already");
  lua_pop(c->L, 1);
  lua_createtable(c->L, 0, n); /* key, row */
  lua_rawgeti(c->L, names, 1);
  lua_pushvalue(c->L, -3);
  lua_rawset(c->L, -3);
  for (; !at_line_end(c); column++) {
    c->at++;
    if (column == n) wrong(c, c->at, "there are more fields than columns");
    lua_rawgeti(c->L, names, column + 1);
    push_field(c);
    make_value(c);
    lua_rawset(c->L, -3);
  }
  if (column < n) wrong(c, c->at, "there are fewer fields than columns");
  lua_rawset(c->L, rows);
  skip_line_end(c);
}

void np_table_csv(lua_State *L, const char *path, const char *text, size_t len) {
  struct csv c = {.L = L, .path = path, .at = text, .end = text + len, .line = 1};
  if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) c.at += 3;
  c.line_start = c.at;
  luaL_checkstack(L, 12, NULL);
  check_text(&c);
  if (c.at == c.end || at_line_end(&c)) wrong(&c, c.at, "the first line has to name the columns");
  int n = read_names(&c), names = lua_gettop(L);
  lua_newtable(L);
  int rows = lua_gettop(L);
  while (c.at < c.end) {
    if (at_line_end(&c))
      skip_line_end(&c); /* an empty line */
    else
      read_row(&c, rows, names, n);
  }
  lua_remove(L, names);
}
