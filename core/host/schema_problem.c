/* Words for problems; masks for what is private. */
#include "host/schema_problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "lib/json.h"

enum {
  QUOTED = 40,            /* bytes of a value that are shown */
  QUOTABLE = 4096,        /* bytes of a value that is looked through for what to mask, so that some of it can be shown */
  LISTED = 150,           /* bytes of a list of allowed values */
  GATHER_DEPTH = 1000,    /* levels of a person's details where no fields are declared; as deep as JSON is read */
  GATHER_VALUES = 100000, /* of them in one value */
};

/* Bytes of s that fit in room, ending with a character. */
static size_t fitting(const char *s, size_t n, size_t room) {
  if (n <= room) return n;
  size_t cut = room;
  while (cut > 0 && cut + 4 > room && ((unsigned char)s[cut] & 0xc0) == 0x80) cut--;
  return cut;
}

static void put(char *to, size_t size, const struct np_buf *text) {
  if (text->len < size) {
    memcpy(to, np_buf_text(text), text->len + 1);
    return;
  }
  size_t cut = fitting(text->data, text->len, size - 4);
  memcpy(to, text->data, cut);
  memcpy(to + cut, "...", 4);
}

static bool holds_person(const struct np_checking *c, const char *s, size_t n) {
  const struct np_mask *m = c->how->people ? *c->how->people : NULL;
  for (; m; m = m->next)
    if (m->len && memmem(s, n, m->value, m->len)) return true;
  return false;
}

/* What a stranger sent, fit to be shown: masked, short, without control characters. False where it is not to be shown. */
static bool add_shown(const struct np_checking *c, struct np_buf *b, const char *s, size_t n, bool quotes) {
  if (n > QUOTABLE || memchr(s, 0, n) || holds_person(c, s, n)) return false;
  char *masked = np_mask_quoted(s, n);
  size_t len = strlen(masked), cut = fitting(masked, len, QUOTED);
  for (size_t i = 0; i < cut; i++)
    if ((unsigned char)masked[i] < 0x20 || masked[i] == 0x7f) masked[i] = '?';
  struct np_buf shown = {0};
  np_buf_add(&shown, masked, cut);
  if (cut < len) np_buf_adds(&shown, "...");
  struct np_buf clean = {0};
  np_buf_add_json(&clean, np_buf_text(&shown), shown.len);
  if (quotes)
    np_buf_add(b, clean.data, clean.len);
  else
    np_buf_add(b, clean.data + 1, clean.len - 2);
  np_buf_free(&clean);
  np_buf_free(&shown);
  free(masked);
  return true;
}

static void add_path(struct np_buf *b, const struct np_at *at) {
  if (at->up) add_path(b, at->up);
  if (at->index) np_buf_addf(b, "[%lld]", (long long)at->index);
  if (!at->name) return;
  if (b->len) np_buf_addc(b, '.');
  np_buf_add(b, at->name, at->len);
}

static const char *type_words(lua_State *L) {
  switch (lua_type(L, -1)) {
  case LUA_TBOOLEAN: return "a boolean";
  case LUA_TNUMBER: return "a number";
  case LUA_TSTRING: return "a string";
  case LUA_TTABLE: return np_json_is_array(L, -1) ? "an array" : "an object";
  case LUA_TFUNCTION: return "a function";
  case LUA_TTHREAD: return "a coroutine";
  case LUA_TLIGHTUSERDATA: return np_json_is_null(L, -1) ? "null" : "a userdata";
  case LUA_TUSERDATA: return "a userdata";
  default: return "nothing";
  }
}

static void add_value(const struct np_checking *c, struct np_buf *b, const char *words) {
  char number[40];
  size_t len;
  const char *s;
  switch (lua_type(c->L, -1)) {
  case LUA_TNUMBER:
    len = np_value_number(c->L, -1, number);
    np_buf_adds(b, ", got ");
    if (!add_shown(c, b, number, len, false)) np_buf_adds(b, "a number");
    return;
  case LUA_TSTRING:
    s = lua_tolstring(c->L, -1, &len);
    np_buf_adds(b, ", got ");
    if (!add_shown(c, b, s, len, true)) np_buf_adds(b, "another string");
    return;
  default: np_buf_addf(b, ", got %s", words);
  }
}

static int tell(struct np_checking *c, const struct np_at *at, const char *kind, enum np_got got, const char *words,
                struct np_buf *reason) {
  if (at->private && got == NP_GOT_VALUE) got = strcmp(kind, "type") == 0 ? NP_GOT_TYPE : NP_GOT_NOTHING;
  if (got == NP_GOT_TYPE)
    np_buf_addf(reason, ", got %s", words);
  else if (got == NP_GOT_VALUE)
    add_value(c, reason, words);
  struct np_buf path = {0};
  add_path(&path, at);
  put(c->problem->field, sizeof c->problem->field, &path);
  put(c->problem->reason, sizeof c->problem->reason, reason);
  c->problem->kind = kind;
  np_buf_free(&path);
  np_buf_free(reason);
  return -1;
}

int np_problem_tell(struct np_checking *c, const struct np_at *at, const char *kind, enum np_got got, const char *format, ...) {
  char text[200];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  const char *words = type_words(c->L); /* before memory is held: it may raise */
  struct np_buf reason = {0};
  np_buf_adds(&reason, text);
  return tell(c, at, kind, got, words, &reason);
}

int np_problem_values(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  struct np_buf reason = {0};
  np_buf_adds(&reason, f->n_values > 1 ? "expected one of " : "expected ");
  for (size_t i = 0; i < f->n_values; i++) {
    const struct np_value *v = &f->values[i];
    if (i) np_buf_adds(&reason, ", ");
    if (reason.len > LISTED) {
      np_buf_addf(&reason, "... (%zu in all)", f->n_values);
      break;
    }
    if (v->kind == NP_VALUE_STRING) {
      np_buf_add_json(&reason, v->text, fitting(v->text, v->len, QUOTED));
    } else {
      char number[40];
      np_value_push(c->L, v);
      np_buf_add(&reason, number, np_value_number(c->L, -1, number));
      lua_pop(c->L, 1);
    }
  }
  return tell(c, at, "values", NP_GOT_VALUE, "another value", &reason);
}

int np_problem_unknown(struct np_checking *c, const struct np_field *object, const struct np_at *at, const char *name, size_t len) {
  struct np_nearest near = {.given = name, .len = len};
  for (size_t i = 0; i < object->n_fields && !at->private; i++) np_nearest_offer(&near, object->fields[i].name);
  struct np_buf shown = {0}, reason = {0};
  if (at->private || !add_shown(c, &shown, name, len, false)) np_buf_adds(&shown, "***");
  np_buf_adds(&reason, "unknown field");
  if (near.best) np_buf_addf(&reason, ", did you mean \"%s\"?", near.best);
  struct np_at here = {.up = at, .name = shown.data, .len = shown.len};
  tell(c, &here, "unknown", NP_GOT_NOTHING, NULL, &reason);
  np_buf_free(&shown);
  return -1;
}

/* Of the private: what is under one declared as such, all of it, is noted. */

struct gather {
  struct np_checking *c;
  int values; /* that remain */
};

static int gather_field(struct gather *g, const struct np_field *f, const struct np_at *at);

static void note(struct gather *g, bool secret) {
  char number[40];
  size_t len;
  const char *s = number;
  if (lua_type(g->c->L, -1) == LUA_TSTRING)
    s = lua_tolstring(g->c->L, -1, &len);
  else
    len = np_value_number(g->c->L, -1, number);
  const struct np_schema_check *how = g->c->how;
  if (!how->people || !how->arena) { /* a setting: masked as long as the process lives */
    if (secret) np_mask_secret(s, len);
    return;
  }
  if (len < 2) return; /* one letter would mask all text and tell little */
  struct np_mask *m = np_arena_alloc(how->arena, sizeof *m);
  *m = (struct np_mask){.next = *how->people, .value = np_arena_copy(how->arena, s, len), .len = len};
  *how->people = m;
}

/* Everything in the value at the top of the stack, which stays. */
static int note_all(struct gather *g, const struct np_at *at, bool secret, int depth) {
  lua_State *L = g->c->L;
  int type = lua_type(L, -1);
  if (type == LUA_TSTRING || type == LUA_TNUMBER) note(g, secret);
  if (type != LUA_TTABLE) return 0;
  if (depth == GATHER_DEPTH || !lua_checkstack(L, 4))
    return np_problem_tell(g->c, at, "length", NP_GOT_NOTHING, "it is nested too deeply to be masked");
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (g->values-- == 0) return np_problem_tell(g->c, at, "length", NP_GOT_NOTHING, "it has too many values to be masked");
    if (note_all(g, at, secret, depth + 1) != 0) return -1;
  }
  return 0;
}

static int gather_fields(struct gather *g, const struct np_field *object, const struct np_at *at) {
  lua_State *L = g->c->L;
  for (size_t i = 0; i < object->n_fields; i++) {
    const struct np_field *f = &object->fields[i];
    if (!f->holds_private) continue;
    struct np_at here = {.up = at, .name = f->name, .len = f->len};
    lua_pushstring(L, f->name);
    lua_rawget(L, -2);
    if (gather_field(g, f, &here) != 0) return -1;
    lua_pop(L, 1);
  }
  return 0;
}

static int gather_field(struct gather *g, const struct np_field *f, const struct np_at *at) {
  lua_State *L = g->c->L;
  if (f->private && note_all(g, at, f->type == NP_FIELD_SECRET, 0) != 0) return -1;
  if (lua_type(L, -1) != LUA_TTABLE) return 0;
  if (f->type == NP_FIELD_OBJECT) return gather_fields(g, f, at);
  if (!f->items || !f->items->holds_private) return 0;
  struct np_at here = {.up = at};
  size_t n = lua_rawlen(L, -1);
  for (size_t i = 1; i <= n; i++) {
    here.index = (lua_Integer)i;
    lua_rawgeti(L, -1, here.index);
    if (gather_field(g, f->items, &here) != 0) return -1;
    lua_pop(L, 1);
  }
  return 0;
}

int np_private_gather(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  struct gather g = {.c = c, .values = GATHER_VALUES};
  return gather_field(&g, f, at);
}
