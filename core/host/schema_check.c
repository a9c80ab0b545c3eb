/* Checks values against compiled declarations. Each function here works on the value at the top of the stack and returns 0 where it passes
 * as it is, 1 where a completed one has taken its place, -1 with the problem told. No memory is held while Lua can raise. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/duration.h"
#include "base/utf8.h"
#include "host/schema.h"
#include "host/schema_field.h"
#include "host/schema_pattern.h"
#include "host/schema_problem.h"
#include "lib/json.h"

enum { NUMBER_BYTES = 200 }; /* of a number in text */

static const double longest_duration = 100.0 * 366 * 86400; /* seconds; as np_duration_parse has it */

static int check_value(struct np_checking *c, const struct np_field *f, const struct np_at *at);
static int check_fields(struct np_checking *c, const struct np_field *object, const struct np_at *at);

static int wrong_type(struct np_checking *c, const struct np_field *f, const struct np_at *at, enum np_got got) {
  return np_problem_tell(c, at, "type", got, "expected %s", np_field_expected[f->type]);
}

/* Whether the number is below or above a limit: exactly, whatever mix of integer and float. */
static bool is_below(lua_State *L, const struct np_value *limit) {
  if (lua_isinteger(L, -1) && limit->kind == NP_VALUE_INTEGER) return lua_tointeger(L, -1) < limit->integer;
  np_value_push(L, limit);
  bool is = lua_compare(L, -2, -1, LUA_OPLT);
  lua_pop(L, 1);
  return is;
}

static bool is_above(lua_State *L, const struct np_value *limit) {
  if (lua_isinteger(L, -1) && limit->kind == NP_VALUE_INTEGER) return lua_tointeger(L, -1) > limit->integer;
  np_value_push(L, limit);
  bool is = lua_compare(L, -1, -2, LUA_OPLT);
  lua_pop(L, 1);
  return is;
}

static int check_range(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  const struct np_value *limit = NULL;
  if (f->min && is_below(c->L, f->min))
    limit = f->min;
  else if (f->max && is_above(c->L, f->max))
    limit = f->max;
  if (!limit) return 0;
  char text[40];
  np_value_push(c->L, limit);
  np_value_number(c->L, -1, text);
  lua_pop(c->L, 1);
  return np_problem_tell(c, at, "range", NP_GOT_VALUE, "expected at %s %s%s", limit == f->min ? "least" : "most", text,
                         f->type == NP_FIELD_DURATION ? " seconds" : "");
}

static int check_length(struct np_checking *c, const struct np_field *f, const struct np_at *at, size_t n, const char *what) {
  bool low = f->min && n < (size_t)f->min->integer, high = f->max && n > (size_t)f->max->integer;
  if (!low && !high) return 0;
  lua_Integer limit = low ? f->min->integer : f->max->integer;
  char got[40] = "";
  if (!at->private) snprintf(got, sizeof got, ", got %zu", n);
  return np_problem_tell(c, at, "length", NP_GOT_NOTHING, "expected at %s %lld %s%s%s", low ? "least" : "most", (long long)limit,
                         what, limit == 1 ? "" : "s", got);
}

/* A byte that is not UTF-8 counts as one. */
static size_t characters(const char *s, size_t n) {
  size_t count = 0;
  for (size_t i = 0; i < n; count++) {
    size_t len = np_utf8_len(s + i, n - i);
    i += len ? len : 1;
  }
  return count;
}

static bool same(lua_State *L, const struct np_value *v) {
  if (v->kind == NP_VALUE_STRING) {
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    return len == v->len && memcmp(text, v->text, len) == 0;
  }
  np_value_push(L, v);
  bool is = lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  return is;
}

static int check_values(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  for (size_t i = 0; i < f->n_values; i++)
    if (same(c->L, &f->values[i])) return 0;
  return f->n_values ? np_problem_values(c, f, at) : 0;
}

static int check_pattern(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  if (lua_rawlen(c->L, -1) > NP_SCHEMA_MATCHED)
    return np_problem_tell(c, at, "length", NP_GOT_NOTHING, "expected at most %d bytes, for it is matched against a pattern",
                           NP_SCHEMA_MATCHED);
  switch (np_pattern_match(c->L, f->whole)) {
  case NP_PATTERN_FITS: return 0;
  case NP_PATTERN_DIFFERS:
    return np_problem_tell(c, at, "pattern", NP_GOT_VALUE, "expected text that matches the pattern %.80s", f->pattern);
  case NP_PATTERN_COMPLEX:
    return np_problem_tell(c, at, "pattern", NP_GOT_NOTHING, "the pattern %.80s is too complex for it", f->pattern);
  default: return np_problem_tell(c, at, "pattern", NP_GOT_NOTHING, "cannot be matched: string.match has been taken away");
  }
}

/* Past 2^53 a float stands for many numbers: as text they would be one, and two identifiers with them. */
static bool has_one_text(lua_State *L) { return lua_isinteger(L, -1) || fabs(lua_tonumber(L, -1)) < 0x1p53; }

static int check_string(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  int changed = 0;
  if (lua_type(c->L, -1) == LUA_TNUMBER && f->lenient && has_one_text(c->L)) {
    char text[40];
    lua_pushlstring(c->L, text, np_value_number(c->L, -1, text));
    lua_replace(c->L, -2);
    changed = 1;
  }
  if (lua_type(c->L, -1) != LUA_TSTRING) return wrong_type(c, f, at, NP_GOT_TYPE);
  if (f->min || f->max) {
    size_t len;
    const char *s = lua_tolstring(c->L, -1, &len);
    if (check_length(c, f, at, characters(s, len), "character") != 0) return -1;
  }
  if (f->n_values && check_values(c, f, at) != 0) return -1;
  if (f->whole && check_pattern(c, f, at) != 0) return -1;
  return changed;
}

/* -?digits, and for a number that is no integer: [.digits][e[+-]digits]. */
static bool is_decimal(const char *s, size_t n, bool integer) {
  const char *end = s + n;
  const char *digits = s += n && *s == '-';
  while (s < end && *s >= '0' && *s <= '9') s++;
  if (s == digits) return false;
  if (integer) return s == end;
  if (s < end && *s == '.') {
    digits = ++s;
    while (s < end && *s >= '0' && *s <= '9') s++;
    if (s == digits) return false;
  }
  if (s < end && (*s == 'e' || *s == 'E')) {
    s++;
    if (s < end && (*s == '+' || *s == '-')) s++;
    digits = s;
    while (s < end && *s >= '0' && *s <= '9') s++;
    if (s == digits) return false;
  }
  return s == end;
}

static int check_number(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  lua_State *L = c->L;
  int changed = 0, integral;
  if (lua_type(L, -1) == LUA_TSTRING && (c->how->from_text || f->lenient)) {
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    if (len > NUMBER_BYTES || !is_decimal(text, len, f->type == NP_FIELD_INTEGER)) return wrong_type(c, f, at, NP_GOT_VALUE);
    if (lua_stringtonumber(L, text) != len + 1) return wrong_type(c, f, at, NP_GOT_VALUE);
    if (f->type == NP_FIELD_INTEGER ? !lua_isinteger(L, -1) : !isfinite(lua_tonumber(L, -1))) {
      lua_pop(L, 1); /* past 64 bits, or what a float can hold */
      return wrong_type(c, f, at, NP_GOT_VALUE);
    }
    lua_replace(L, -2);
    changed = 1;
  }
  if (lua_type(L, -1) != LUA_TNUMBER) return wrong_type(c, f, at, NP_GOT_TYPE);
  if (!lua_isinteger(L, -1)) {
    if (!isfinite(lua_tonumber(L, -1))) return wrong_type(c, f, at, NP_GOT_VALUE);
    if (f->type == NP_FIELD_INTEGER) {
      lua_Integer i = lua_tointegerx(L, -1, &integral);
      if (!integral) return wrong_type(c, f, at, NP_GOT_VALUE);
      lua_pop(L, 1);
      lua_pushinteger(L, i);
      changed = 1;
    }
  }
  if ((f->min || f->max) && check_range(c, f, at) != 0) return -1;
  if (f->n_values && check_values(c, f, at) != 0) return -1;
  return changed;
}

static int check_boolean(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  if (lua_type(c->L, -1) == LUA_TBOOLEAN) return 0;
  if (lua_type(c->L, -1) != LUA_TSTRING || !c->how->from_text) return wrong_type(c, f, at, NP_GOT_TYPE);
  size_t len;
  const char *s = lua_tolstring(c->L, -1, &len);
  bool yes = (len == 4 && memcmp(s, "true", 4) == 0) || (len == 1 && *s == '1');
  if (!yes && !(len == 5 && memcmp(s, "false", 5) == 0) && !(len == 1 && *s == '0')) return wrong_type(c, f, at, NP_GOT_VALUE);
  lua_pop(c->L, 1);
  lua_pushboolean(c->L, yes);
  return 1;
}

static int check_duration(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  lua_State *L = c->L;
  int changed = 0;
  if (lua_type(L, -1) == LUA_TSTRING) {
    size_t len;
    int64_t ms;
    const char *s = lua_tolstring(L, -1, &len);
    if (np_duration_parse(s, len, &ms) != 0) return wrong_type(c, f, at, NP_GOT_VALUE);
    lua_pop(L, 1);
    if (ms % 1000 == 0)
      lua_pushinteger(L, ms / 1000);
    else
      lua_pushnumber(L, (lua_Number)ms / 1000);
    changed = 1;
  }
  if (lua_type(L, -1) != LUA_TNUMBER) return wrong_type(c, f, at, NP_GOT_TYPE);
  double seconds = lua_tonumber(L, -1);
  if (!isfinite(seconds)) return wrong_type(c, f, at, NP_GOT_VALUE);
  if (seconds < 0 || seconds > longest_duration)
    return np_problem_tell(c, at, "range", NP_GOT_VALUE, "expected 0 or more seconds, at most 100 years");
  if ((f->min || f->max) && check_range(c, f, at) != 0) return -1;
  if (f->n_values && check_values(c, f, at) != 0) return -1;
  return changed;
}

static int check_destination(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  if (lua_type(c->L, -1) != LUA_TSTRING) return wrong_type(c, f, at, NP_GOT_TYPE);
  size_t len;
  const char *name = lua_tolstring(c->L, -1, &len);
  bool known = len > 0 && strlen(name) == len && (!c->how->destination || c->how->destination(c->how->arg, name));
  return known ? 0 : np_problem_tell(c, at, "values", NP_GOT_VALUE, "expected the name of a configured destination");
}

static bool is_empty(lua_State *L) {
  lua_pushnil(L);
  if (!lua_next(L, -2)) return true;
  lua_pop(L, 2);
  return false;
}

static int check_object(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  if (lua_type(c->L, -1) != LUA_TTABLE) return wrong_type(c, f, at, NP_GOT_TYPE);
  if (np_json_is_array(c->L, -1) && !is_empty(c->L)) return wrong_type(c, f, at, NP_GOT_TYPE);
  return f->any_object ? 0 : check_fields(c, f, at);
}

static int check_array(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  lua_State *L = c->L;
  if (lua_type(L, -1) != LUA_TTABLE) return wrong_type(c, f, at, NP_GOT_TYPE);
  if (!np_json_is_array(L, -1)) {
    if (!is_empty(L)) return wrong_type(c, f, at, NP_GOT_TYPE);
    if (!lua_getmetatable(L, -1))
      np_json_mark_array(L, -1); /* so that it stays [] when it is passed on */
    else
      lua_pop(L, 1);
  }
  size_t n = lua_rawlen(L, -1);
  if (check_length(c, f, at, n, "element") != 0) return -1;
  if (!f->items) return 0;
  struct np_at here = {.up = at, .private = at->private || f->items->private};
  for (size_t i = 1; i <= n; i++) {
    here.index = (lua_Integer)i;
    lua_rawgeti(L, -1, here.index);
    int status = np_check_field(c, f->items, &here);
    if (status < 0) return -1;
    if (status > 0)
      lua_rawseti(L, -2, here.index);
    else
      lua_pop(L, 1);
  }
  return 0;
}

static int check_any(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  int type = lua_type(c->L, -1);
  bool plain = type == LUA_TBOOLEAN || type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TTABLE;
  return plain ? 0 : wrong_type(c, f, at, NP_GOT_TYPE);
}

static int check_value(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  switch (f->type) {
  case NP_FIELD_STRING:
  case NP_FIELD_SECRET: return check_string(c, f, at);
  case NP_FIELD_NUMBER:
  case NP_FIELD_INTEGER: return check_number(c, f, at);
  case NP_FIELD_BOOLEAN: return check_boolean(c, f, at);
  case NP_FIELD_OBJECT: return check_object(c, f, at);
  case NP_FIELD_ARRAY: return check_array(c, f, at);
  case NP_FIELD_DURATION: return check_duration(c, f, at);
  case NP_FIELD_DESTINATION: return check_destination(c, f, at);
  default: return check_any(c, f, at);
  }
}

int np_check_field(struct np_checking *c, const struct np_field *f, const struct np_at *at) {
  lua_State *L = c->L;
  int type = lua_type(L, -1);
  bool null = type == LUA_TLIGHTUSERDATA && np_json_is_null(L, -1);
  if (null && f->null) return 0;
  if (type != LUA_TNIL && !null) return check_value(c, f, at);
  if (!f->optional)
    return np_problem_tell(c, at, "missing", null ? NP_GOT_TYPE : NP_GOT_NOTHING, null ? "expected %s" : "missing: expected %s",
                           np_field_expected[f->type]);
  if (f->fallback) {
    lua_pop(L, 1);
    np_value_push(L, f->fallback);
    /* A default was checked when it was compiled, but for what only this call knows. */
    if (f->holds_destination && f->fallback->kind != NP_VALUE_NULL && check_value(c, f, at) < 0) return -1;
    return 1;
  }
  if (!null) return 0;
  lua_pop(L, 1);
  lua_pushnil(L);
  return 1;
}

/* The first name, in byte order, that is not declared. A name that is no string comes before all. */
static int check_only(struct np_checking *c, const struct np_field *object, const struct np_at *at) {
  lua_State *L = c->L;
  const char *least = NULL; /* borrowed from the table */
  size_t least_len = 0, len;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) {
      lua_pop(L, 2);
      return np_problem_tell(c, at, "unknown", NP_GOT_NOTHING, "expected fields by name only");
    }
    const char *name = lua_tolstring(L, -2, &len);
    if (np_field_find(object, name, len)) continue;
    if (least && np_field_compare(name, len, least, least_len) > 0) continue;
    least = name;
    least_len = len;
  }
  return least ? np_problem_unknown(c, object, at, least, least_len) : 0;
}

static int check_member(struct np_checking *c, const struct np_field *f, struct np_at *at) {
  lua_State *L = c->L;
  at->name = f->name;
  at->len = f->len;
  at->private = at->up->private || f->private;
  lua_pushstring(L, f->name); /* found by the name's address, without hashing it anew */
  lua_rawget(L, -2);
  int status = np_check_field(c, f, at);
  if (status < 0) return -1;
  if (status > 0) {
    lua_pushstring(L, f->name);
    lua_insert(L, -2);
    lua_rawset(L, -3);
  } else {
    lua_pop(L, 1);
  }
  return 0;
}

static bool is_deep(const struct np_field *f) { return f->n_fields || f->items; }

/* What is an object's own first, so that of an envelope with a payload, whose kind it tells, the envelope is refused. */
static int check_fields(struct np_checking *c, const struct np_field *object, const struct np_at *at) {
  if (object->only && check_only(c, object, at) != 0) return -1;
  struct np_at here = {.up = at};
  size_t deep = 0;
  for (size_t i = 0; i < object->n_fields; i++) {
    const struct np_field *f = &object->fields[i];
    if (is_deep(f))
      deep++;
    else if (check_member(c, f, &here) != 0)
      return -1;
  }
  for (size_t i = 0; deep > 0; i++) {
    const struct np_field *f = &object->fields[i];
    if (!is_deep(f)) continue;
    deep--;
    if (check_member(c, f, &here) != 0) return -1;
  }
  return 0;
}

int np_field_check(lua_State *L, const struct np_field *f, const struct np_schema_check *how, struct np_problem *problem) {
  struct np_checking c = {.L = L, .how = how, .problem = problem};
  struct np_at at = {.private = f->private};
  int top = lua_gettop(L), status = 0;
  luaL_checkstack(L, 10 * NP_SCHEMA_DEPTH + 16, "a schema");
  if (f->holds_private) status = np_private_gather(&c, f, &at);
  if (status == 0) status = np_check_field(&c, f, &at);
  lua_settop(L, top);
  return status < 0 ? -1 : 0;
}

int np_schema_check(lua_State *L, const struct np_schema *s, int idx, const struct np_schema_check *how,
                    struct np_problem *problem) {
  int top = lua_gettop(L);
  struct np_checking c = {.L = L, .how = how, .problem = problem};
  struct np_at at = {0};
  idx = lua_absindex(L, idx);
  if (!lua_checkstack(L, 8 * s->depth + 2 * NP_SCHEMA_DEPTH + 16)) luaL_error(L, "stack overflow (a schema's check)");
  lua_pushvalue(L, idx);
  int status = 0;
  if (s->root.holds_private) status = np_private_gather(&c, &s->root, &at);
  if (status == 0) status = check_object(&c, &s->root, &at);
  lua_settop(L, top);
  return status < 0 ? -1 : 0;
}
