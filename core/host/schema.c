/* What a compiled schema holds: values outside any lua_State, fields by name, and the way back into Lua for documents. */
#include "host/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/schema_field.h"
#include "lib/json.h"

const char *const np_field_types[NP_FIELD_TYPES] = {"string", "number", "integer", "boolean",  "object",
                                                    "array",  "any",    "secret",  "duration", "destination"};
const char *const np_field_expected[NP_FIELD_TYPES] = {"a string",
                                                       "a number",
                                                       "an integer",
                                                       "a boolean",
                                                       "an object",
                                                       "an array",
                                                       "a JSON value",
                                                       "a string",
                                                       "a duration such as \"15m\"",
                                                       "the name of a destination"};

static const char *read_object(lua_State *L, struct np_arena *arena, struct np_value *v, size_t *budget, int depth) {
  size_t n = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) return "a table is either a list without holes or has names that are strings";
    if (++n > *budget) return "it is too large";
  }
  *v = (struct np_value){.kind = NP_VALUE_OBJECT, .len = n, .entries = np_arena_alloc(arena, n * sizeof *v->entries)};
  struct np_value_entry *e = v->entries;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), e++) {
    const char *key = lua_tolstring(L, -2, &e->len);
    e->key = np_arena_copy(arena, key, e->len);
    const char *wrong = np_value_read(L, arena, &e->value, budget, depth + 1);
    if (wrong) return wrong;
  }
  return NULL;
}

static const char *read_array(lua_State *L, struct np_arena *arena, struct np_value *v, size_t *budget, int depth) {
  size_t n = lua_rawlen(L, -1);
  if (n > *budget) return "it is too large";
  *v = (struct np_value){.kind = NP_VALUE_ARRAY, .len = n, .entries = np_arena_alloc(arena, n * sizeof *v->entries)};
  for (size_t i = 0; i < n; i++) {
    v->entries[i] = (struct np_value_entry){0};
    lua_rawgeti(L, -1, (lua_Integer)i + 1);
    const char *wrong = np_value_read(L, arena, &v->entries[i].value, budget, depth + 1);
    if (wrong) return wrong;
    lua_pop(L, 1);
  }
  return NULL;
}

const char *np_value_read(lua_State *L, struct np_arena *arena, struct np_value *v, size_t *budget, int depth) {
  if (depth > NP_SCHEMA_DEPTH) return "it is nested too deeply";
  if (*budget == 0) return "it is too large";
  --*budget;
  luaL_checkstack(L, 4, "a default");
  size_t len;
  switch (lua_type(L, -1)) {
  case LUA_TBOOLEAN: *v = (struct np_value){.kind = NP_VALUE_BOOLEAN, .boolean = lua_toboolean(L, -1)}; return NULL;
  case LUA_TNUMBER:
    if (lua_isinteger(L, -1))
      *v = (struct np_value){.kind = NP_VALUE_INTEGER, .integer = lua_tointeger(L, -1)};
    else
      *v = (struct np_value){.kind = NP_VALUE_FLOAT, .number = lua_tonumber(L, -1)};
    return v->kind == NP_VALUE_FLOAT && !isfinite(v->number) ? "a number has to be finite" : NULL;
  case LUA_TSTRING:
    *v = (struct np_value){.kind = NP_VALUE_STRING, .text = lua_tolstring(L, -1, &len)};
    v->len = len;
    v->text = np_arena_copy(arena, v->text, len);
    return NULL;
  case LUA_TTABLE:
    return np_json_is_array(L, -1) ? read_array(L, arena, v, budget, depth) : read_object(L, arena, v, budget, depth);
  default: break;
  }
  if (!np_json_is_null(L, -1)) return "it has to be what JSON can hold";
  *v = (struct np_value){.kind = NP_VALUE_NULL};
  return NULL;
}

void np_value_push(lua_State *L, const struct np_value *v) {
  switch (v->kind) {
  case NP_VALUE_NULL: np_json_push_null(L); return;
  case NP_VALUE_BOOLEAN: lua_pushboolean(L, v->boolean); return;
  case NP_VALUE_INTEGER: lua_pushinteger(L, v->integer); return;
  case NP_VALUE_FLOAT: lua_pushnumber(L, v->number); return;
  case NP_VALUE_STRING: lua_pushlstring(L, v->text, v->len); return;
  case NP_VALUE_ARRAY:
    lua_createtable(L, (int)v->len, 0);
    for (size_t i = 0; i < v->len; i++) {
      np_value_push(L, &v->entries[i].value);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    np_json_mark_array(L, -1);
    return;
  case NP_VALUE_OBJECT:
    lua_createtable(L, 0, (int)v->len);
    for (size_t i = 0; i < v->len; i++) {
      lua_pushlstring(L, v->entries[i].key, v->entries[i].len);
      np_value_push(L, &v->entries[i].value);
      lua_rawset(L, -3);
    }
    return;
  }
}

size_t np_value_number(lua_State *L, int idx, char text[static 40]) {
  lua_Number n = lua_tonumber(L, idx);
  if (lua_isinteger(L, idx)) return (size_t)snprintf(text, 40, LUA_INTEGER_FMT, (LUAI_UACINT)lua_tointeger(L, idx));
  if (fabs(n) < 0x1p53 && n == floor(n)) return (size_t)snprintf(text, 40, "%lld", (long long)n);
  int len = 0;
  for (int digits = 15; digits <= 17; digits++) {
    len = snprintf(text, 40, "%.*g", digits, n);
    if (strtod(text, NULL) == n) break;
  }
  return (size_t)len;
}

int np_field_compare(const char *a, size_t a_len, const char *b, size_t b_len) {
  int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
  return order ? order : (a_len > b_len) - (a_len < b_len);
}

const struct np_field *np_field_find(const struct np_field *object, const char *name, size_t len) {
  size_t low = 0, high = object->n_fields;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const struct np_field *f = &object->fields[middle];
    int order = np_field_compare(name, len, f->name, f->len);
    if (order == 0) return f;
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

/* Levenshtein's distance, row by row. */
static int edits(const char *a, size_t n, const char *b, size_t m) {
  int row[32];
  for (size_t j = 0; j <= m; j++) row[j] = (int)j;
  for (size_t i = 1; i <= n; i++) {
    int diagonal = row[0];
    row[0] = (int)i;
    for (size_t j = 1; j <= m; j++) {
      int above = row[j], least = diagonal + (a[i - 1] != b[j - 1]);
      if (above + 1 < least) least = above + 1;
      if (row[j - 1] + 1 < least) least = row[j - 1] + 1;
      diagonal = above;
      row[j] = least;
    }
  }
  return row[m];
}

void np_nearest_offer(struct np_nearest *n, const char *word) {
  size_t len = strlen(word);
  if (n->len > 30 || len > 30) return;
  bool begins = n->len >= 3 && n->len < len && memcmp(n->given, word, n->len) == 0; /* "int", "bool" */
  int distance = begins ? 2 : edits(n->given, n->len, word, len);
  if (!begins && (size_t)distance * 2 > n->len) return; /* of a short word hardly anything would be left */
  if (distance > 2 || (n->best && distance >= n->distance)) return;
  n->best = word;
  n->distance = distance;
}

bool np_schema_is_private(const struct np_schema *s) { return s && s->root.holds_private; }

void np_schema_free(struct np_schema *s) {
  if (!s) return;
  np_arena_free(&s->arena);
  free(s);
}

bool np_schema_all_optional(const struct np_schema *s) {
  for (size_t i = 0; i < s->root.n_fields; i++)
    if (!s->root.fields[i].optional) return false;
  return true;
}

static void push_fields(lua_State *L, const struct np_field *object);

static void set_text(lua_State *L, const char *name, const char *text) {
  if (!text) return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static void set_flag(lua_State *L, const char *name, bool flag) {
  if (!flag) return;
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, name);
}

static void set_value(lua_State *L, const char *name, const struct np_value *v) {
  if (!v) return;
  np_value_push(L, v);
  lua_setfield(L, -2, name);
}

static void push_field(lua_State *L, const struct np_field *f) {
  luaL_checkstack(L, 8 + 2 * NP_SCHEMA_DEPTH, "a schema");
  lua_createtable(L, 0, 4);
  set_text(L, "type", np_field_types[f->type]);
  set_text(L, "about", f->about);
  set_text(L, "unit", f->unit);
  set_text(L, "pattern", f->pattern);
  set_flag(L, "optional", f->optional);
  set_flag(L, "null", f->null);
  set_flag(L, "lenient", f->lenient);
  set_flag(L, "person", f->person);
  set_flag(L, "only", f->only);
  set_value(L, "min", f->min);
  set_value(L, "max", f->max);
  if (f->type != NP_FIELD_SECRET && !(f->fallback && f->holds_private)) set_value(L, "default", f->fallback);
  if (f->values) {
    lua_createtable(L, (int)f->n_values, 0);
    for (size_t i = 0; i < f->n_values; i++) {
      np_value_push(L, &f->values[i]);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "values");
  }
  if (f->items) {
    push_field(L, f->items);
    lua_setfield(L, -2, "items");
  }
  if (f->type == NP_FIELD_OBJECT && !f->any_object) {
    push_fields(L, f);
    lua_setfield(L, -2, "fields");
  }
}

static void push_fields(lua_State *L, const struct np_field *object) {
  luaL_checkstack(L, 8, "a schema");
  lua_createtable(L, 0, (int)object->n_fields);
  for (size_t i = 0; i < object->n_fields; i++) {
    lua_pushlstring(L, object->fields[i].name, object->fields[i].len);
    push_field(L, &object->fields[i]);
    lua_rawset(L, -3);
  }
}

void np_schema_push(lua_State *L, const struct np_schema *s) { push_fields(L, &s->root); }
