/* Filters of rules, compiled from Lua tables. Everything is read by raw access, so that nothing can raise while the filter is built. */
#include "host/filter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/near.h"

#define LIST_MAX 10000

/* The text fields, the one that tells most apart first: so are they matched. */
enum field { METRIC, DEVICE, VENDOR, CONNECTION, UNIT, TEXT_FIELDS };
enum { QUALITY = TEXT_FIELDS, BELOW, ABOVE, CHANGED, FIELDS };
static const char *const field_names[FIELDS] = {"metric",  "device", "vendor", "connection", "unit",
                                                "quality", "below",  "above",  "changed"};

struct pattern {
  const char *text; /* in the arena */
  size_t len;
  bool star; /* it holds a `*` */
};

struct np_filter {
  struct np_arena arena;
  struct pattern *patterns[TEXT_FIELDS]; /* in the arena; NULL takes anything */
  size_t counts[TEXT_FIELDS];
  unsigned qualities; /* bit of each np_quality that passes */
  bool qualified;     /* quality was given */
  bool below_set, above_set, changed;
  struct np_value below, above;
};

/* Matching */

bool np_glob_match(const char *pattern, size_t pattern_len, const char *text, size_t len) {
  const char *end = pattern + pattern_len, *star = memchr(pattern, '*', pattern_len);
  if (!star) return pattern_len == len && memcmp(pattern, text, len) == 0;
  size_t head = (size_t)(star - pattern);
  if (head > len || memcmp(pattern, text, head) != 0) return false;
  text += head, len -= head;
  for (pattern = star + 1;; pattern = star + 1) { /* the leftmost place for each piece leaves most to the rest */
    star = memchr(pattern, '*', (size_t)(end - pattern));
    if (!star) break;
    size_t piece = (size_t)(star - pattern);
    const char *at = piece ? memmem(text, len, pattern, piece) : text;
    if (!at) return false;
    len -= (size_t)(at - text) + piece;
    text = at + piece;
  }
  size_t tail = (size_t)(end - pattern);
  return tail <= len && memcmp(pattern, text + len - tail, tail) == 0;
}

static bool match_text(const struct pattern *p, size_t n, struct np_text text) {
  if (!p) return true;
  const char *s = text.ptr ? text.ptr : "";
  for (; n; n--, p++) {
    if (p->star ? np_glob_match(p->text, p->len, s, text.len) : p->len == text.len && memcmp(p->text, s, p->len) == 0) return true;
  }
  return false;
}

/* i < d and i > d without rounding i to a double. NaN is neither. */
static bool int_below(int64_t i, double d) { return d >= 0x1p63 || (d > -0x1p63 && i < (int64_t)ceil(d)); }
static bool int_above(int64_t i, double d) { return d < -0x1p63 || (d < 0x1p63 && i > (int64_t)floor(d)); }

static bool less(const struct np_value *a, const struct np_value *b) {
  if (a->type == NP_NUMBER_INT) return b->type == NP_NUMBER_INT ? a->i < b->i : int_below(a->i, b->d);
  return b->type == NP_NUMBER_INT ? int_above(b->i, a->d) : a->d < b->d;
}

bool np_filter_match(const struct np_filter *f, const struct np_reading *r) {
  const struct np_text texts[TEXT_FIELDS] = {
      [METRIC] = r->metric, [DEVICE] = r->device, [VENDOR] = r->vendor, [CONNECTION] = r->connection, [UNIT] = r->unit};
  if (!match_text(f->patterns[METRIC], f->counts[METRIC], texts[METRIC])) return false;
  if (f->below_set || f->above_set) {
    if (r->value.type != NP_NUMBER_INT && r->value.type != NP_NUMBER_REAL) return false;
    if (f->below_set && !less(&r->value, &f->below)) return false;
    if (f->above_set && !less(&f->above, &r->value)) return false;
  }
  if (f->qualified && !(f->qualities >> r->quality & 1)) return false;
  for (int i = METRIC + 1; i < TEXT_FIELDS; i++)
    if (!match_text(f->patterns[i], f->counts[i], texts[i])) return false;
  return true;
}

bool np_filter_wants_change(const struct np_filter *f) { return f->changed; }

/* Compiling. Each reads the value at the top of the stack. */

static int expected(lua_State *L, int field, const char *what, struct np_error *err) {
  return np_fail(err, "filter: %s has to be %s, got a %s", field_names[field], what, lua_typename(L, lua_type(L, -1)));
}

static int take_pattern(lua_State *L, struct np_filter *f, int field, struct pattern *p, struct np_error *err) {
  if (lua_type(L, -1) != LUA_TSTRING) return expected(L, field, "a string or a list of strings", err);
  const char *s = lua_tolstring(L, -1, &p->len);
  p->text = np_arena_copy(&f->arena, s, p->len);
  p->star = memchr(s, '*', p->len) != NULL;
  return 0;
}

/* A string, or a list of them. */
static int take_patterns(lua_State *L, struct np_filter *f, int field, struct pattern **list, size_t *count, struct np_error *err) {
  if (!lua_istable(L, -1)) {
    *list = np_arena_alloc(&f->arena, sizeof **list);
    *count = 1;
    return take_pattern(L, f, field, *list, err);
  }
  size_t n = lua_rawlen(L, -1), keys = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) keys++;
  if (!n && !keys) return np_fail(err, "filter: %s is an empty list, which no reading can match", field_names[field]);
  if (n != keys)
    return np_fail(err, "filter: %s has to be a string or a list of strings, got a table with names in it", field_names[field]);
  if (n > LIST_MAX) return np_fail(err, "filter: %s lists %zu strings; %d is the most", field_names[field], n, LIST_MAX);
  *list = np_arena_alloc(&f->arena, n * sizeof **list);
  *count = n;
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i + 1);
    int status = take_pattern(L, f, field, *list + i, err);
    lua_pop(L, 1);
    if (status) return -1;
  }
  return 0;
}

static int take_quality(lua_State *L, struct np_filter *f, struct np_error *err) {
  struct pattern *list;
  size_t n;
  if (take_patterns(L, f, QUALITY, &list, &n, err)) return -1;
  f->qualified = true;
  for (size_t i = 0; i < n; i++) {
    unsigned bits = 0;
    for (int q = NP_VALID; q <= NP_INVALID; q++)
      if (np_glob_match(list[i].text, list[i].len, np_quality_names[q], strlen(np_quality_names[q]))) bits |= 1U << q;
    if (!bits) {
      const char *near = np_near(list[i].text, list[i].len, np_quality_names, 3);
      return np_fail(err, "filter: quality \"%.40s\" is none of \"valid\", \"warmup\", \"invalid\"%s%s%s", list[i].text,
                     near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    f->qualities |= bits;
  }
  return 0;
}

static int take_limit(lua_State *L, int field, struct np_value *limit, bool *set, struct np_error *err) {
  if (lua_type(L, -1) != LUA_TNUMBER) return expected(L, field, "a number", err);
  *set = true;
  if (lua_isinteger(L, -1)) {
    *limit = (struct np_value){.type = NP_NUMBER_INT, .i = lua_tointeger(L, -1)};
  } else {
    *limit = (struct np_value){.type = NP_NUMBER_REAL, .d = lua_tonumber(L, -1)};
    if (isnan(limit->d)) return np_fail(err, "filter: %s is not a number (nan): no reading can match", field_names[field]);
  }
  return 0;
}

static int take_field(lua_State *L, struct np_filter *f, int field, struct np_error *err) {
  switch (field) {
  case QUALITY: return take_quality(L, f, err);
  case BELOW: return take_limit(L, field, &f->below, &f->below_set, err);
  case ABOVE: return take_limit(L, field, &f->above, &f->above_set, err);
  case CHANGED:
    if (!lua_isboolean(L, -1)) return expected(L, field, "true or false", err);
    f->changed = lua_toboolean(L, -1);
    return 0;
  default: return take_patterns(L, f, field, &f->patterns[field], &f->counts[field], err);
  }
}

static int unknown_field(lua_State *L, struct np_error *err) { /* the key is below the value */
  if (lua_type(L, -2) != LUA_TSTRING) {
    return np_fail(err, "filter: there is a %s without a field's name before it; write for example { metric = \"glucose\" }",
                   lua_typename(L, lua_type(L, -1)));
  }
  size_t len;
  const char *name = lua_tolstring(L, -2, &len), *near = np_near(name, len, field_names, FIELDS);
  if (near) return np_fail(err, "filter: unknown field \"%.60s\", did you mean \"%s\"?", name, near);
  return np_fail(
      err, "filter: unknown field \"%.60s\"; there are device, metric, vendor, connection, unit, quality, below, above, changed",
      name);
}

static bool is_named(lua_State *L, int key, int field) {
  size_t len;
  if (lua_type(L, key) != LUA_TSTRING) return false;
  const char *name = lua_tolstring(L, key, &len);
  return len == strlen(field_names[field]) && memcmp(name, field_names[field], len) == 0;
}

static int check_names(lua_State *L, int idx, struct np_error *err) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    int field = 0;
    while (field < FIELDS && !is_named(L, -2, field)) field++;
    if (field == FIELDS) return unknown_field(L, err);
  }
  return 0;
}

/* Pushes the field's value. Walks, for to push its name could raise out of memory. */
static bool find(lua_State *L, int idx, int field) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1))
    if (is_named(L, -2, field)) return true;
  return false;
}

/* Fields are taken in an order of our own, so that the first error is the same in every run. */
static int compile(lua_State *L, int idx, struct np_filter *f, struct np_error *err) {
  if (!lua_istable(L, idx)) return np_fail(err, "filter: expected a table, got a %s", lua_typename(L, lua_type(L, idx)));
  if (check_names(L, idx, err)) return -1;
  for (int field = 0; field < FIELDS; field++) {
    if (!find(L, idx, field)) continue;
    if (take_field(L, f, field, err)) return -1;
    lua_pop(L, 2);
  }
  if (f->below_set && f->above_set && !less(&f->above, &f->below)) {
    return np_fail(err, "filter: no value is above %.14g and below %.14g; for values outside a range write two plugin:on",
                   f->above.type == NP_NUMBER_INT ? (double)f->above.i : f->above.d,
                   f->below.type == NP_NUMBER_INT ? (double)f->below.i : f->below.d);
  }
  return 0;
}

struct np_filter *np_filter_compile(lua_State *L, int idx, struct np_error *err) {
  int top = lua_gettop(L);
  idx = lua_absindex(L, idx);
  if (!lua_checkstack(L, 10)) {
    np_fail(err, "filter: out of memory");
    return NULL;
  }
  struct np_filter *f = np_alloc(sizeof *f);
  int status = compile(L, idx, f, err);
  lua_settop(L, top);
  if (status == 0) return f;
  np_filter_free(f);
  return NULL;
}

void np_filter_free(struct np_filter *f) {
  if (!f) return;
  np_arena_free(&f->arena);
  free(f);
}
