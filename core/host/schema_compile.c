/* Compiles declarations. Everything is read by raw access, in an order of our own, so that the first error is the same in every run.
 * All of it runs inside one lua_pcall: the schema under construction is freed whatever Lua raises. */
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/duration.h"
#include "host/schema.h"
#include "host/schema_field.h"
#include "host/schema_pattern.h"

struct where { /* the way to a field; on the C stack */
  const struct where *up;
  const char *name; /* NULL: the items of an array */
};

struct compile {
  lua_State *L;
  struct np_schema *s;
  struct np_error *err;
  size_t fields, values; /* what remains of the bounds */
  int status;
};

static void add_path(struct np_buf *b, const struct where *at) {
  if (at->up) add_path(b, at->up);
  if (!at->name)
    np_buf_adds(b, "[]");
  else
    np_buf_addf(b, "%s%.60s", b->len ? "." : "", at->name);
}

static int __attribute__((format(printf, 3, 4))) fail(struct compile *c, const struct where *at, const char *format, ...) {
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (!at) return np_fail(c->err, "%s", text);
  struct np_buf path = {0};
  add_path(&path, at);
  int status = np_fail(c->err, "field %s: %s", np_buf_text(&path), text);
  np_buf_free(&path);
  return status;
}

static const char *suggestion(const struct np_nearest *n, char text[static 64]) {
  if (n->best)
    snprintf(text, 64, ", did you mean \"%s\"?", n->best);
  else
    text[0] = 0;
  return text;
}

/* Of the options, each reads the value at the top of the stack. */

static int compile_field(struct compile *c, const struct where *at, struct np_field *f, int depth);
static int compile_fields(struct compile *c, const struct where *at, struct np_field *object, int depth);

static int copy_text(struct compile *c, const struct where *at, const char *option, const char **to) {
  size_t len;
  if (lua_type(c->L, -1) != LUA_TSTRING) return fail(c, at, "option \"%s\" has to be a string", option);
  const char *text = lua_tolstring(c->L, -1, &len);
  if (memchr(text, 0, len)) return fail(c, at, "option \"%s\" has a zero byte in it", option);
  *to = np_arena_copy(&c->s->arena, text, len);
  return 0;
}

static int read_about(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  (void)depth;
  return copy_text(c, at, "about", &f->about);
}

static int read_unit(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  (void)depth;
  return copy_text(c, at, "unit", &f->unit);
}

static int read_pattern(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  (void)depth;
  if (copy_text(c, at, "pattern", &f->pattern) != 0) return -1;
  size_t len = strlen(f->pattern);
  if (len > NP_SCHEMA_PATTERN) return fail(c, at, "a pattern has at most %d bytes", NP_SCHEMA_PATTERN);
  bool anchored;
  const char *wrong = np_pattern_check(f->pattern, &anchored);
  if (wrong) return fail(c, at, "the pattern \"%.80s\" %s", f->pattern, wrong);
  bool at_start = f->pattern[0] == '^';
  char *whole = np_arena_alloc(&c->s->arena, len + 3);
  snprintf(whole, len + 3, "^%s%s", f->pattern + at_start, anchored ? "" : "$");
  f->whole = whole;
  return 0;
}

/* The number at the top of the stack, of a field's type: a duration may be text, an integer may be 5.0. */
static int copy_number(struct compile *c, const struct where *at, const struct np_field *f, const char *what, struct np_value *v) {
  bool length = f->type == NP_FIELD_STRING || f->type == NP_FIELD_SECRET || f->type == NP_FIELD_ARRAY;
  lua_Integer whole;
  size_t len;
  int64_t ms;
  if (f->type == NP_FIELD_DURATION && lua_type(c->L, -1) == LUA_TSTRING) {
    const char *text = lua_tolstring(c->L, -1, &len);
    if (np_duration_parse(text, len, &ms) != 0) return fail(c, at, "%s has to be a duration such as \"15m\"", what);
    if (ms % 1000 == 0)
      *v = (struct np_value){.kind = NP_VALUE_INTEGER, .integer = ms / 1000};
    else
      *v = (struct np_value){.kind = NP_VALUE_FLOAT, .number = (lua_Number)ms / 1000};
    return 0;
  }
  if (lua_type(c->L, -1) != LUA_TNUMBER || !isfinite(lua_tonumber(c->L, -1)))
    return fail(c, at, "%s has to be a number%s", what, f->type == NP_FIELD_DURATION ? " of seconds or a duration" : "");
  if (lua_isinteger(c->L, -1))
    *v = (struct np_value){.kind = NP_VALUE_INTEGER, .integer = lua_tointeger(c->L, -1)};
  else if (lua_numbertointeger(lua_tonumber(c->L, -1), &whole) && (lua_Number)whole == lua_tonumber(c->L, -1))
    *v = (struct np_value){.kind = NP_VALUE_INTEGER, .integer = whole};
  else
    *v = (struct np_value){.kind = NP_VALUE_FLOAT, .number = lua_tonumber(c->L, -1)};
  if (length && (v->kind != NP_VALUE_INTEGER || v->integer < 0)) return fail(c, at, "%s has to be a length: 0, 1, 2, …", what);
  return 0;
}

static int read_min(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  (void)depth;
  struct np_value *v = np_arena_alloc(&c->s->arena, sizeof *v);
  f->min = v;
  return copy_number(c, at, f, "option \"min\"", v);
}

static int read_max(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  (void)depth;
  struct np_value *v = np_arena_alloc(&c->s->arena, sizeof *v);
  f->max = v;
  return copy_number(c, at, f, "option \"max\"", v);
}

static int read_values(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  (void)depth;
  lua_State *L = c->L;
  if (lua_type(L, -1) != LUA_TTABLE || lua_rawlen(L, -1) == 0)
    return fail(c, at, "option \"values\" has to be a list with at least one value");
  f->n_values = lua_rawlen(L, -1);
  if (f->n_values > c->values) return fail(c, at, "option \"values\" is too long");
  size_t seen = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) seen++;
  if (seen != f->n_values) return fail(c, at, "option \"values\" has to be a list without holes or names");
  c->values -= f->n_values;
  struct np_value *values = np_arena_alloc(&c->s->arena, f->n_values * sizeof *values);
  for (size_t i = 0; i < f->n_values; i++) {
    char what[40];
    snprintf(what, sizeof what, "values[%zu]", i + 1);
    lua_rawgeti(L, -1, (lua_Integer)i + 1);
    if (f->type == NP_FIELD_STRING) {
      if (lua_type(L, -1) != LUA_TSTRING) return fail(c, at, "%s has to be a string", what);
      size_t budget = 1;
      np_value_read(L, &c->s->arena, &values[i], &budget, 0);
    } else {
      if (copy_number(c, at, f, what, &values[i]) != 0) return -1;
      if (f->type == NP_FIELD_INTEGER && values[i].kind != NP_VALUE_INTEGER) return fail(c, at, "%s has to be an integer", what);
    }
    lua_pop(L, 1);
  }
  f->values = values;
  return 0;
}

static int read_items(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  struct where here = {.up = at};
  struct np_field *items = np_arena_alloc(&c->s->arena, sizeof *items);
  *items = (struct np_field){0};
  if (compile_field(c, &here, items, depth + 1) != 0) return -1;
  if (items->fallback) return fail(c, &here, "an element of an array has no default");
  if (items->optional) return fail(c, &here, "an element of an array is not optional");
  f->items = items;
  return 0;
}

static int read_fields(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  f->any_object = false;
  return compile_fields(c, at, f, depth + 1);
}

#define T(type) (1u << NP_FIELD_##type)
#define ALL ((1u << NP_FIELD_TYPES) - 1)

static const struct option {
  const char *name;
  unsigned types; /* it is meant for */
  int (*read)(struct compile *c, const struct where *at, struct np_field *f, int depth);
  size_t flag; /* where there is no read: offset of a bool */
} options[] = {
    {"about", ALL, read_about, 0},
    {"unit", ALL, read_unit, 0},
    {"optional", ALL, NULL, offsetof(struct np_field, optional)},
    {"null", ALL, NULL, offsetof(struct np_field, null)},
    {"lenient", T(STRING) | T(SECRET) | T(NUMBER) | T(INTEGER), NULL, offsetof(struct np_field, lenient)},
    {"person", ALL, NULL, offsetof(struct np_field, person)},
    {"only", T(OBJECT), NULL, offsetof(struct np_field, only)},
    {"min", T(NUMBER) | T(INTEGER) | T(DURATION) | T(STRING) | T(SECRET) | T(ARRAY), read_min, 0},
    {"max", T(NUMBER) | T(INTEGER) | T(DURATION) | T(STRING) | T(SECRET) | T(ARRAY), read_max, 0},
    {"values", T(STRING) | T(NUMBER) | T(INTEGER) | T(DURATION), read_values, 0},
    {"pattern", T(STRING) | T(SECRET), read_pattern, 0},
    {"items", T(ARRAY), read_items, 0},
    {"fields", T(OBJECT), read_fields, 0},
};
#define OPTIONS (sizeof options / sizeof *options)

static int unknown_option(struct compile *c, const struct where *at, const char *name, size_t len) {
  struct np_nearest near = {.given = name, .len = len};
  char mean[64], list[200] = "";
  for (size_t i = 0; i < OPTIONS; i++) {
    np_nearest_offer(&near, options[i].name);
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s, ", options[i].name);
  }
  np_nearest_offer(&near, "default");
  if (near.best) return fail(c, at, "unknown option \"%.40s\"%s", name, suggestion(&near, mean));
  return fail(c, at, "unknown option \"%.40s\"; there are %sdefault", name, list);
}

static bool is_option(const char *name) {
  for (size_t i = 0; i < OPTIONS; i++)
    if (strcmp(options[i].name, name) == 0) return true;
  return strcmp(name, "default") == 0 || strcmp(name, "type") == 0;
}

/* The least unknown name in the declaration at the top of the stack is the one that is told. */
static int check_options(struct compile *c, const struct where *at) {
  lua_State *L = c->L;
  const char *least = NULL; /* borrowed from the table */
  size_t least_len = 0, len;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1) continue;
    if (lua_type(L, -2) != LUA_TSTRING)
      return fail(c, at, "a declaration is one type, then options by name: { \"string\", optional = true }");
    const char *name = lua_tolstring(L, -2, &len);
    if (strlen(name) == len && is_option(name)) continue;
    if (least && np_field_compare(name, len, least, least_len) > 0) continue;
    least = name;
    least_len = len;
  }
  return least ? unknown_option(c, at, least, least_len) : 0;
}

/* The type's name is at the top of the stack. */
static int read_type(struct compile *c, const struct where *at, struct np_field *f) {
  if (lua_isnil(c->L, -1)) return fail(c, at, "its type is missing: the first element of a declaration, { \"string\" }");
  if (lua_type(c->L, -1) != LUA_TSTRING) return fail(c, at, "its type has to be a string, not a %s", luaL_typename(c->L, -1));
  size_t len;
  const char *name = lua_tolstring(c->L, -1, &len);
  struct np_nearest near = {.given = name, .len = len};
  char mean[64], list[128] = "";
  for (int i = 0; i < NP_FIELD_TYPES; i++) {
    np_nearest_offer(&near, np_field_types[i]);
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", np_field_types[i]);
    if (strcmp(name, np_field_types[i]) != 0 || strlen(name) != len) continue;
    f->type = (enum np_field_type)i;
    return 0;
  }
  if (near.best) return fail(c, at, "unknown type \"%.40s\"%s", name, suggestion(&near, mean));
  return fail(c, at, "unknown type \"%.40s\"; there are %s", name, list);
}

static int read_options(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  lua_State *L = c->L;
  for (size_t i = 0; i < OPTIONS; i++) {
    const struct option *o = &options[i];
    lua_pushstring(L, o->name);
    lua_rawget(L, -2);
    if (!lua_isnil(L, -1)) {
      if (!(o->types & 1u << f->type)) return fail(c, at, "option \"%s\" is not for %s", o->name, np_field_types[f->type]);
      if (o->read) {
        if (o->read(c, at, f, depth) != 0) return -1;
      } else {
        if (lua_type(L, -1) != LUA_TBOOLEAN) return fail(c, at, "option \"%s\" has to be true or false", o->name);
        *(bool *)((char *)f + o->flag) = lua_toboolean(L, -1);
      }
    }
    lua_pop(L, 1);
  }
  return 0;
}

static bool above(lua_State *L, const struct np_value *a, const struct np_value *b) {
  np_value_push(L, b);
  np_value_push(L, a);
  bool is = lua_compare(L, -2, -1, LUA_OPLT);
  lua_pop(L, 2);
  return is;
}

/* The default, at the top of the stack, is checked on a copy: an author's table stays as it was written. */
static int read_default(struct compile *c, const struct where *at, struct np_field *f) {
  struct np_value declared, *v = np_arena_alloc(&c->s->arena, sizeof *v);
  const char *wrong = np_value_read(c->L, &c->s->arena, &declared, &c->values, 0);
  if (wrong) return fail(c, at, "its default cannot be used: %s", wrong);
  np_value_push(c->L, &declared);
  struct np_problem problem;
  struct np_schema_check how = {0};
  if (np_field_check(c->L, f, &how, &problem) != 0)
    return fail(c, at, "its default does not fit: %s%s%s", problem.field, problem.field[0] ? ": " : "", problem.reason);
  wrong = np_value_read(c->L, &c->s->arena, v, &c->values, 0);
  if (wrong) return fail(c, at, "its default cannot be used: %s", wrong);
  lua_pop(c->L, 1);
  f->fallback = v;
  f->optional = true;
  return 0;
}

static void inherit(struct np_field *f, const struct np_field *below) {
  f->holds_private |= below->holds_private;
  f->holds_destination |= below->holds_destination;
}

/* What can be said of a field once its options are known. The declaration is at the top of the stack. */
static int finish(struct compile *c, const struct where *at, struct np_field *f) {
  if (f->min && f->max && above(c->L, f->min, f->max)) return fail(c, at, "option \"min\" is above \"max\"");
  if (f->only && f->any_object) return fail(c, at, "option \"only\" needs \"fields\"");
  f->private = f->type == NP_FIELD_SECRET || f->person;
  f->holds_private |= f->private;
  f->holds_destination |= f->type == NP_FIELD_DESTINATION;
  if (f->items) inherit(f, f->items);
  for (size_t i = 0; i < f->n_fields; i++) inherit(f, &f->fields[i]);
  lua_pushliteral(c->L, "default");
  lua_rawget(c->L, -2);
  if (!lua_isnil(c->L, -1) && read_default(c, at, f) != 0) return -1;
  lua_pop(c->L, 1);
  return 0;
}

/* The declaration is at the top of the stack, and stays. */
static int compile_field(struct compile *c, const struct where *at, struct np_field *f, int depth) {
  lua_State *L = c->L;
  luaL_checkstack(L, 16 + 2 * NP_SCHEMA_DEPTH, "a schema");
  if (depth > NP_SCHEMA_DEPTH) return fail(c, at, "fields are nested more than %d deep", NP_SCHEMA_DEPTH);
  if (c->fields-- == 0) return fail(c, at, "a schema has at most %d fields", NP_SCHEMA_FIELDS);
  if (depth > c->s->depth) c->s->depth = depth;
  f->any_object = true;
  if (lua_type(L, -1) == LUA_TSTRING) {
    if (read_type(c, at, f) != 0) return -1;
    lua_newtable(L);
  } else if (lua_type(L, -1) == LUA_TTABLE) {
    if (check_options(c, at) != 0) return -1;
    lua_pushliteral(L, "type");
    lua_rawget(L, -2);
    lua_rawgeti(L, -2, 1);
    if (!lua_isnil(L, -2) && !lua_isnil(L, -1)) return fail(c, at, "its type is given twice");
    if (lua_isnil(L, -1))
      lua_pop(L, 1);
    else
      lua_remove(L, -2);
    if (read_type(c, at, f) != 0) return -1;
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
  } else {
    return fail(c, at, "a declaration is a table such as { \"string\" }, not a %s", luaL_typename(L, -1));
  }
  if (read_options(c, at, f, depth) != 0 || finish(c, at, f) != 0) return -1;
  lua_pop(L, 1);
  return 0;
}

static int by_name(const void *a, const void *b) {
  const struct np_field *x = a, *y = b;
  return np_field_compare(x->name, x->len, y->name, y->len);
}

/* A field's place for each name in the table at the top of the stack. */
static int list_names(struct compile *c, const struct where *at, struct np_field *object) {
  lua_State *L = c->L;
  size_t n = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      return fail(c, at, "fields are declared by name, { name = { TYPE } }, but there is one without");
    if (++n > c->fields) return fail(c, at, "a schema has at most %d fields", NP_SCHEMA_FIELDS);
  }
  object->n_fields = n;
  object->fields = np_arena_alloc(&c->s->arena, n * sizeof *object->fields);
  struct np_field *f = object->fields;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), f++) {
    *f = (struct np_field){0};
    const char *name = lua_tolstring(L, -2, &f->len);
    if (f->len == 0 || memchr(name, 0, f->len)) return fail(c, at, "a field's name is text that is not empty and has no zero byte");
    f->name = np_arena_copy(&c->s->arena, name, f->len);
  }
  if (n > 1) qsort(object->fields, n, sizeof *object->fields, by_name);
  return 0;
}

static int compile_fields(struct compile *c, const struct where *at, struct np_field *object, int depth) {
  lua_State *L = c->L;
  if (lua_type(L, -1) != LUA_TTABLE)
    return fail(c, at, "%s is a table of fields, { name = { TYPE } }, not a %s", at ? "option \"fields\"" : "a schema",
                luaL_typename(L, -1));
  if (list_names(c, at, object) != 0) return -1;
  for (size_t i = 0; i < object->n_fields; i++) {
    struct np_field *f = &object->fields[i];
    struct where here = {.up = at, .name = f->name};
    lua_pushlstring(L, f->name, f->len);
    lua_rawget(L, -2);
    if (compile_field(c, &here, f, depth) != 0) return -1;
    lua_pop(L, 1);
  }
  return 0;
}

static int compile(lua_State *L) {
  struct compile *c = lua_touserdata(L, 2);
  lua_settop(L, 1);
  c->status = compile_fields(c, NULL, &c->s->root, 1);
  for (size_t i = 0; i < c->s->root.n_fields && c->status == 0; i++) inherit(&c->s->root, &c->s->root.fields[i]);
  return 0;
}

struct np_schema *np_schema_compile(lua_State *L, int idx, struct np_error *err) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 4, "a schema");
  struct np_schema *s = np_alloc(sizeof *s);
  s->root.type = NP_FIELD_OBJECT;
  struct compile c = {.L = L, .s = s, .err = err, .fields = NP_SCHEMA_FIELDS, .values = NP_SCHEMA_VALUES};
  lua_pushcfunction(L, compile);
  lua_pushvalue(L, idx);
  lua_pushlightuserdata(L, &c);
  int status = lua_pcall(L, 2, 0, 0);
  if (status == LUA_OK && c.status == 0) return s;
  np_schema_free(s);
  if (status == LUA_ERRMEM) lua_error(L);
  if (status != LUA_OK) {
    np_fail(err, "a schema could not be read: %s", lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "an error without words");
    lua_pop(L, 1);
  }
  return NULL;
}
