/* The options of a declaration: a table of what there is and which types it is for. Each function reads the value at the top of the stack. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/duration.h"
#include "host/schema_compile.h"
#include "host/schema_pattern.h"

static int copy_text(struct np_compiling *c, const struct np_where *at, const char *option, const char **to) {
  size_t len;
  if (lua_type(c->L, -1) != LUA_TSTRING) return np_compile_fail(c, at, "option \"%s\" has to be a string", option);
  const char *text = lua_tolstring(c->L, -1, &len);
  if (memchr(text, 0, len)) return np_compile_fail(c, at, "option \"%s\" has a zero byte in it", option);
  *to = np_arena_copy(&c->s->arena, text, len);
  return 0;
}

static int read_about(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  (void)depth;
  return copy_text(c, at, "about", &f->about);
}

static int read_unit(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  (void)depth;
  return copy_text(c, at, "unit", &f->unit);
}

static int read_pattern(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  (void)depth;
  if (copy_text(c, at, "pattern", &f->pattern) != 0) return -1;
  size_t len = strlen(f->pattern);
  if (len > NP_SCHEMA_PATTERN) return np_compile_fail(c, at, "a pattern has at most %d bytes", NP_SCHEMA_PATTERN);
  bool anchored;
  const char *wrong = np_pattern_check(f->pattern, &anchored);
  if (wrong) return np_compile_fail(c, at, "the pattern \"%.80s\" %s", f->pattern, wrong);
  bool at_start = f->pattern[0] == '^';
  char *whole = np_arena_alloc(&c->s->arena, len + 3);
  snprintf(whole, len + 3, "^%s%s", f->pattern + at_start, anchored ? "" : "$");
  f->whole = whole;
  return 0;
}

/* The number at the top of the stack, of a field's type: a duration may be text, an integer may be 5.0. */
static int copy_number(struct np_compiling *c, const struct np_where *at, const struct np_field *f, const char *what,
                       struct np_value *v) {
  bool length = f->type == NP_FIELD_STRING || f->type == NP_FIELD_SECRET || f->type == NP_FIELD_ARRAY;
  lua_Integer whole;
  size_t len;
  int64_t ms;
  if (f->type == NP_FIELD_DURATION && lua_type(c->L, -1) == LUA_TSTRING) {
    const char *text = lua_tolstring(c->L, -1, &len);
    if (np_duration_parse(text, len, &ms) != 0) return np_compile_fail(c, at, "%s has to be a duration such as \"15m\"", what);
    if (ms % 1000 == 0)
      *v = (struct np_value){.kind = NP_VALUE_INTEGER, .integer = ms / 1000};
    else
      *v = (struct np_value){.kind = NP_VALUE_FLOAT, .number = (lua_Number)ms / 1000};
    return 0;
  }
  if (lua_type(c->L, -1) != LUA_TNUMBER || !isfinite(lua_tonumber(c->L, -1)))
    return np_compile_fail(c, at, "%s has to be a number%s", what, f->type == NP_FIELD_DURATION ? " of seconds or a duration" : "");
  if (lua_isinteger(c->L, -1))
    *v = (struct np_value){.kind = NP_VALUE_INTEGER, .integer = lua_tointeger(c->L, -1)};
  else if (lua_numbertointeger(lua_tonumber(c->L, -1), &whole) && (lua_Number)whole == lua_tonumber(c->L, -1))
    *v = (struct np_value){.kind = NP_VALUE_INTEGER, .integer = whole};
  else
    *v = (struct np_value){.kind = NP_VALUE_FLOAT, .number = lua_tonumber(c->L, -1)};
  if (length && (v->kind != NP_VALUE_INTEGER || v->integer < 0))
    return np_compile_fail(c, at, "%s has to be a length: 0, 1, 2, …", what);
  return 0;
}

static int read_min(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  (void)depth;
  struct np_value *v = np_arena_alloc(&c->s->arena, sizeof *v);
  f->min = v;
  return copy_number(c, at, f, "option \"min\"", v);
}

static int read_max(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  (void)depth;
  struct np_value *v = np_arena_alloc(&c->s->arena, sizeof *v);
  f->max = v;
  return copy_number(c, at, f, "option \"max\"", v);
}

static int read_values(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  (void)depth;
  lua_State *L = c->L;
  if (lua_type(L, -1) != LUA_TTABLE || lua_rawlen(L, -1) == 0)
    return np_compile_fail(c, at, "option \"values\" has to be a list with at least one value");
  f->n_values = lua_rawlen(L, -1);
  if (f->n_values > c->values) return np_compile_fail(c, at, "option \"values\" is too long");
  size_t seen = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) seen++;
  if (seen != f->n_values) return np_compile_fail(c, at, "option \"values\" has to be a list without holes or names");
  c->values -= f->n_values;
  struct np_value *values = np_arena_alloc(&c->s->arena, f->n_values * sizeof *values);
  for (size_t i = 0; i < f->n_values; i++) {
    char what[40];
    snprintf(what, sizeof what, "values[%zu]", i + 1);
    lua_rawgeti(L, -1, (lua_Integer)i + 1);
    if (f->type == NP_FIELD_STRING) {
      if (lua_type(L, -1) != LUA_TSTRING) return np_compile_fail(c, at, "%s has to be a string", what);
      size_t budget = 1;
      np_value_read(L, &c->s->arena, &values[i], &budget, 0);
    } else {
      if (copy_number(c, at, f, what, &values[i]) != 0) return -1;
      if (f->type == NP_FIELD_INTEGER && values[i].kind != NP_VALUE_INTEGER)
        return np_compile_fail(c, at, "%s has to be an integer", what);
    }
    lua_pop(L, 1);
  }
  f->values = values;
  return 0;
}

static int read_items(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  struct np_where here = {.up = at};
  struct np_field *items = np_arena_alloc(&c->s->arena, sizeof *items);
  *items = (struct np_field){0};
  if (np_compile_field(c, &here, items, depth + 1) != 0) return -1;
  if (items->fallback) return np_compile_fail(c, &here, "an element of an array has no default");
  if (items->optional) return np_compile_fail(c, &here, "an element of an array is not optional");
  f->items = items;
  return 0;
}

static int read_fields(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  f->any_object = false;
  return np_compile_fields(c, at, f, depth + 1);
}

#define T(type) (1u << NP_FIELD_##type)
#define ALL ((1u << NP_FIELD_TYPES) - 1)

/* @class neap.Field: what a value may be: { TYPE, option = … }.
 * @field [1] "string"|"number"|"integer"|"boolean"|"object"|"array"|"any"|"secret"|"duration"|"destination"
 * @field about? string
 * @field unit? string
 * @field optional? boolean
 * @field null? boolean null is kept, as json.null
 * @field default? any
 * @field lenient? boolean takes "12" for 12 and the reverse
 * @field person? boolean somebody's detail: masked in the log, encrypted in the inbox
 * @field only? boolean of an object: no other fields
 * @field min? number|string of a string or an array: its length
 * @field max? number|string
 * @field values? any[] it has to be one of these
 * @field pattern? string
 * @field items? neap.Field of an array
 * @field fields? table<string, neap.Field> of an object
 */
static const struct option {
  const char *name;
  unsigned types; /* it is meant for */
  int (*read)(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth);
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

static int unknown_option(struct np_compiling *c, const struct np_where *at, const char *name, size_t len) {
  struct np_nearest near = {.given = name, .len = len};
  char mean[64], list[200] = "";
  for (size_t i = 0; i < OPTIONS; i++) {
    np_nearest_offer(&near, options[i].name);
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s, ", options[i].name);
  }
  np_nearest_offer(&near, "default");
  if (near.best) return np_compile_fail(c, at, "unknown option \"%.40s\"%s", name, np_compile_suggestion(&near, mean));
  return np_compile_fail(c, at, "unknown option \"%.40s\"; there are %sdefault", name, list);
}

static bool is_option(const char *name) {
  for (size_t i = 0; i < OPTIONS; i++)
    if (strcmp(options[i].name, name) == 0) return true;
  return strcmp(name, "default") == 0 || strcmp(name, "type") == 0;
}

/* The least unknown name in the declaration at the top of the stack is the one that is told. */
int np_options_check(struct np_compiling *c, const struct np_where *at) {
  lua_State *L = c->L;
  const char *least = NULL; /* borrowed from the table */
  size_t least_len = 0, len;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1) continue;
    if (lua_type(L, -2) != LUA_TSTRING)
      return np_compile_fail(c, at, "a declaration is one type, then options by name: { \"string\", optional = true }");
    const char *name = lua_tolstring(L, -2, &len);
    if (strlen(name) == len && is_option(name)) continue;
    if (least && np_field_compare(name, len, least, least_len) > 0) continue;
    least = name;
    least_len = len;
  }
  return least ? unknown_option(c, at, least, least_len) : 0;
}

int np_options_read(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  lua_State *L = c->L;
  for (size_t i = 0; i < OPTIONS; i++) {
    const struct option *o = &options[i];
    lua_pushstring(L, o->name);
    lua_rawget(L, -2);
    if (!lua_isnil(L, -1)) {
      if (!(o->types & 1u << f->type))
        return np_compile_fail(c, at, "option \"%s\" is not for %s", o->name, np_field_types[f->type]);
      if (o->read) {
        if (o->read(c, at, f, depth) != 0) return -1;
      } else {
        if (lua_type(L, -1) != LUA_TBOOLEAN) return np_compile_fail(c, at, "option \"%s\" has to be true or false", o->name);
        *(bool *)((char *)f + o->flag) = lua_toboolean(L, -1);
      }
    }
    lua_pop(L, 1);
  }
  return 0;
}
