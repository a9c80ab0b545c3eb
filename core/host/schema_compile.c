/* Compiles declarations. Everything is read by raw access, in an order of our own, so that the first error is the same in every run.
 * All of it runs inside one lua_pcall: the schema under construction is freed whatever Lua raises. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/schema_compile.h"

static void add_path(struct np_buf *b, const struct np_where *at) {
  if (at->up) add_path(b, at->up);
  if (!at->name)
    np_buf_adds(b, "[]");
  else
    np_buf_addf(b, "%s%.60s", b->len ? "." : "", at->name);
}

int np_compile_fail(struct np_compiling *c, const struct np_where *at, const char *format, ...) {
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

const char *np_compile_suggestion(const struct np_nearest *n, char text[static 64]) {
  if (n->best)
    snprintf(text, 64, ", did you mean \"%s\"?", n->best);
  else
    text[0] = 0;
  return text;
}

/* The type's name is at the top of the stack. */
static int read_type(struct np_compiling *c, const struct np_where *at, struct np_field *f) {
  if (lua_isnil(c->L, -1)) return np_compile_fail(c, at, "its type is missing: the first element of a declaration, { \"string\" }");
  if (lua_type(c->L, -1) != LUA_TSTRING)
    return np_compile_fail(c, at, "its type has to be a string, not a %s", luaL_typename(c->L, -1));
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
  if (near.best) return np_compile_fail(c, at, "unknown type \"%.40s\"%s", name, np_compile_suggestion(&near, mean));
  return np_compile_fail(c, at, "unknown type \"%.40s\"; there are %s", name, list);
}

static bool above(lua_State *L, const struct np_value *a, const struct np_value *b) {
  np_value_push(L, b);
  np_value_push(L, a);
  bool is = lua_compare(L, -2, -1, LUA_OPLT);
  lua_pop(L, 2);
  return is;
}

/* The default, at the top of the stack, is checked on a copy: an author's table stays as it was written. */
static int read_default(struct np_compiling *c, const struct np_where *at, struct np_field *f) {
  struct np_value declared, *v = np_arena_alloc(&c->s->arena, sizeof *v);
  const char *wrong = np_value_read(c->L, &c->s->arena, &declared, &c->values, 0);
  if (wrong) return np_compile_fail(c, at, "its default cannot be used: %s", wrong);
  np_value_push(c->L, &declared);
  struct np_problem problem;
  struct np_schema_check how = {0};
  if (np_field_check(c->L, f, &how, &problem) != 0)
    return np_compile_fail(c, at, "its default does not fit: %s%s%s", problem.field, problem.field[0] ? ": " : "", problem.reason);
  wrong = np_value_read(c->L, &c->s->arena, v, &c->values, 0);
  if (wrong) return np_compile_fail(c, at, "its default cannot be used: %s", wrong);
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
static int finish(struct np_compiling *c, const struct np_where *at, struct np_field *f) {
  if (f->min && f->max && above(c->L, f->min, f->max)) return np_compile_fail(c, at, "option \"min\" is above \"max\"");
  if (f->only && f->any_object) return np_compile_fail(c, at, "option \"only\" needs \"fields\"");
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
int np_compile_field(struct np_compiling *c, const struct np_where *at, struct np_field *f, int depth) {
  lua_State *L = c->L;
  luaL_checkstack(L, 16 + 2 * NP_SCHEMA_DEPTH, "a schema");
  if (depth > NP_SCHEMA_DEPTH) return np_compile_fail(c, at, "fields are nested more than %d deep", NP_SCHEMA_DEPTH);
  if (c->fields-- == 0) return np_compile_fail(c, at, "a schema has at most %d fields", NP_SCHEMA_FIELDS);
  if (depth > c->s->depth) c->s->depth = depth;
  f->any_object = true;
  if (lua_type(L, -1) == LUA_TSTRING) {
    if (read_type(c, at, f) != 0) return -1;
    lua_newtable(L);
  } else if (lua_type(L, -1) == LUA_TTABLE) {
    if (np_options_check(c, at) != 0) return -1;
    lua_pushliteral(L, "type");
    lua_rawget(L, -2);
    lua_rawgeti(L, -2, 1);
    if (!lua_isnil(L, -2) && !lua_isnil(L, -1)) return np_compile_fail(c, at, "its type is given twice");
    if (lua_isnil(L, -1))
      lua_pop(L, 1);
    else
      lua_remove(L, -2);
    if (read_type(c, at, f) != 0) return -1;
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
  } else {
    return np_compile_fail(c, at, "a declaration is a table such as { \"string\" }, not a %s", luaL_typename(L, -1));
  }
  if (np_options_read(c, at, f, depth) != 0 || finish(c, at, f) != 0) return -1;
  lua_pop(L, 1);
  return 0;
}

static int by_name(const void *a, const void *b) {
  const struct np_field *x = a, *y = b;
  return np_field_compare(x->name, x->len, y->name, y->len);
}

/* A field's place for each name in the table at the top of the stack. */
static int list_names(struct np_compiling *c, const struct np_where *at, struct np_field *object) {
  lua_State *L = c->L;
  size_t n = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      return np_compile_fail(c, at, "fields are declared by name, { name = { TYPE } }, but there is one without");
    if (++n > c->fields) return np_compile_fail(c, at, "a schema has at most %d fields", NP_SCHEMA_FIELDS);
  }
  object->n_fields = n;
  object->fields = np_arena_alloc(&c->s->arena, n * sizeof *object->fields);
  struct np_field *f = object->fields;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), f++) {
    *f = (struct np_field){0};
    const char *name = lua_tolstring(L, -2, &f->len);
    if (f->len == 0 || memchr(name, 0, f->len))
      return np_compile_fail(c, at, "a field's name is text that is not empty and has no zero byte");
    f->name = np_arena_copy(&c->s->arena, name, f->len);
  }
  if (n > 1) qsort(object->fields, n, sizeof *object->fields, by_name);
  return 0;
}

int np_compile_fields(struct np_compiling *c, const struct np_where *at, struct np_field *object, int depth) {
  lua_State *L = c->L;
  if (lua_type(L, -1) != LUA_TTABLE)
    return np_compile_fail(c, at, "%s is a table of fields, { name = { TYPE } }, not a %s", at ? "option \"fields\"" : "a schema",
                           luaL_typename(L, -1));
  if (list_names(c, at, object) != 0) return -1;
  for (size_t i = 0; i < object->n_fields; i++) {
    struct np_field *f = &object->fields[i];
    struct np_where here = {.up = at, .name = f->name};
    lua_pushlstring(L, f->name, f->len);
    lua_rawget(L, -2);
    if (np_compile_field(c, &here, f, depth) != 0) return -1;
    lua_pop(L, 1);
  }
  return 0;
}

static int compile(lua_State *L) {
  struct np_compiling *c = lua_touserdata(L, 2);
  lua_settop(L, 1);
  c->status = np_compile_fields(c, NULL, &c->s->root, 1);
  for (size_t i = 0; i < c->s->root.n_fields && c->status == 0; i++) inherit(&c->s->root, &c->s->root.fields[i]);
  return 0;
}

struct np_schema *np_schema_compile(lua_State *L, int idx, struct np_error *err) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 4, "a schema");
  struct np_schema *s = np_alloc(sizeof *s);
  s->root.type = NP_FIELD_OBJECT;
  struct np_compiling c = {.L = L, .s = s, .err = err, .fields = NP_SCHEMA_FIELDS, .values = NP_SCHEMA_VALUES};
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
