/* Filters compiled from Lua tables. Everything is read by raw access, so that nothing can raise while the filter is built. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/duration.h"
#include "base/map.h"
#include "base/near.h"
#include "host/filter_parts.h"

#define LIST_MAX 10000

/* @class neap.Filter: which readings a rule's handler is for: all that stand must hold. Texts may hold * for any run of characters.
 * @field metric? string|string[]
 * @field device? string|string[]
 * @field vendor? string|string[]
 * @field connection? string|string[]
 * @field unit? string|string[]
 * @field place? string|string[] of the device
 * @field owner? string|string[] of the device, a reference of plugin.people
 * @field tag? string|string[] of the device
 * @field quality? string|string[] valid, warmup, invalid
 * @field derived? boolean true: what rules derived; false: what vendors sent
 * @field below? number strictly
 * @field above? number strictly
 * @field outside? number[] { low, high }, strictly
 * @field margin? number fires on crossing, and again only after a reading that has come back by so much
 * @field changed? boolean it differs from the reading measured before it
 * @field rate? { below?: number, above?: number, per?: string|number } against the reading measured before it
 * @field first? string|number "ever", "day" or a duration: of one device, the first that fits all the rest
 * @field hours? string[]|string[][] { "22:00", "06:00" }, or a list of such pairs
 * @field weekdays? string|string[] mon, tue, wed, thu, fri, sat, sun
 * @field zone? string of hours, weekdays and the day
 */
const char *const np_filter_fields[NP_F_COUNT] = {"metric",  "device",  "vendor",  "connection", "unit",  "place",   "owner",
                                                  "tag",     "quality", "derived", "below",      "above", "outside", "margin",
                                                  "changed", "rate",    "zone",    "first",      "hours", "weekdays"};
const char *const np_weekdays[7] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

/* Each function that takes something reads the value at the top of the stack. */

static int expected(lua_State *L, const char *field, const char *what, struct np_error *err) {
  return np_fail(err, "filter: %s has to be %s, got a %s", field, what, lua_typename(L, lua_type(L, -1)));
}

static bool key_is(lua_State *L, int key, const char *name) {
  size_t len;
  if (lua_type(L, key) != LUA_TSTRING) return false;
  const char *s = lua_tolstring(L, key, &len);
  return len == strlen(name) && memcmp(s, name, len) == 0;
}

/* Pushes key and value of a field. Walks, for to push its name could raise out of memory. */
static bool find(lua_State *L, int idx, const char *name) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1))
    if (key_is(L, -2, name)) return true;
  return false;
}

/* `of` is "" or "rate." */
static int check_names(lua_State *L, int idx, const char *of, const char *const *names, size_t n, const char *there_are,
                       struct np_error *err) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    size_t i = 0, len;
    while (i < n && !key_is(L, -2, names[i])) i++;
    if (i < n) continue;
    if (lua_type(L, -2) != LUA_TSTRING)
      return np_fail(err, "filter: there is a %s without a field's name before it; write for example %s",
                     lua_typename(L, lua_type(L, -1)), *of ? "rate = { above = 0.1, per = \"1m\" }" : "{ metric = \"glucose\" }");
    const char *name = lua_tolstring(L, -2, &len), *near = np_near(name, len, names, n);
    if (near) return np_fail(err, "filter: unknown field \"%s%.60s\", did you mean \"%s%s\"?", of, name, of, near);
    return np_fail(err, "filter: unknown field \"%s%.60s\"; there are %s", of, name, there_are);
  }
  return 0;
}

/* How many a list has; 0 and err where the table at the top is none, or empty, or too long. */
static size_t list_length(lua_State *L, const char *field, const char *what, struct np_error *err) {
  size_t n = lua_rawlen(L, -1), keys = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) keys++;
  if (!n && !keys)
    np_fail(err, "filter: %s is an empty list, which no reading can match", field);
  else if (n != keys)
    np_fail(err, "filter: %s has to be %s, got a table with names in it", field, what);
  else if (n > LIST_MAX)
    np_fail(err, "filter: %s lists %zu strings; %d is the most", field, n, LIST_MAX);
  else
    return n;
  return 0;
}

/* Texts */

static const char texts_wanted[] = "a string or a list of strings";

static int take_pattern(lua_State *L, struct np_filter *f, const char *field, struct np_pattern *p, struct np_error *err) {
  if (lua_type(L, -1) != LUA_TSTRING) return expected(L, field, texts_wanted, err);
  const char *s = lua_tolstring(L, -1, &p->len);
  p->text = np_arena_copy(&f->arena, s, p->len);
  p->star = memchr(s, '*', p->len) != NULL;
  return 0;
}

/* A string, or a list of them. */
static int take_patterns(lua_State *L, struct np_filter *f, const char *field, struct np_pattern **list, size_t *count,
                         struct np_error *err) {
  if (!lua_istable(L, -1)) {
    *list = np_arena_alloc(&f->arena, sizeof **list);
    *count = 1;
    return take_pattern(L, f, field, *list, err);
  }
  size_t n = list_length(L, field, texts_wanted, err);
  if (!n) return -1;
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
  struct np_pattern *list;
  size_t n;
  if (take_patterns(L, f, "quality", &list, &n, err)) return -1;
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

/* Numbers */

static int take_limit(lua_State *L, const char *field, struct np_value *limit, struct np_error *err) {
  if (lua_type(L, -1) != LUA_TNUMBER) return expected(L, field, "a number", err);
  if (lua_isinteger(L, -1)) {
    *limit = (struct np_value){.type = NP_NUMBER_INT, .i = lua_tointeger(L, -1)};
  } else {
    *limit = (struct np_value){.type = NP_NUMBER_REAL, .d = lua_tonumber(L, -1)};
    if (isnan(limit->d)) return np_fail(err, "filter: %s is not a number (nan): no reading can match", field);
  }
  return 0;
}

static double as_double(const struct np_value *v) { return v->type == NP_NUMBER_INT ? (double)v->i : v->d; }

static int take_outside(lua_State *L, struct np_filter *f, struct np_error *err) {
  static const char wanted[] = "two numbers such as { 3.9, 10 }";
  if (!lua_istable(L, -1)) return expected(L, "outside", wanted, err);
  size_t n = list_length(L, "outside", wanted, err);
  if (!n) return -1;
  if (n != 2) return np_fail(err, "filter: outside has to be %s, got %zu", wanted, n);
  for (int i = 1; i <= 2; i++) {
    lua_rawgeti(L, -1, i);
    int status = take_limit(L, "outside", i == 1 ? &f->below : &f->above, err);
    lua_pop(L, 1);
    if (status) return -1;
  }
  if (np_value_less(&f->above, &f->below))
    return np_fail(err, "filter: outside is { %.14g, %.14g }: the lower limit comes first", as_double(&f->below),
                   as_double(&f->above));
  f->outside_set = true;
  return 0;
}

static int take_margin(lua_State *L, struct np_filter *f, struct np_error *err) {
  static const struct np_value zero = {.type = NP_NUMBER_INT};
  if (take_limit(L, "margin", &f->margin, err)) return -1;
  if (np_value_less(&f->margin, &zero) || !isfinite(as_double(&f->margin)))
    return np_fail(err, "filter: margin has to be 0 or more, got %.14g", as_double(&f->margin));
  f->margin_set = true;
  return 0;
}

/* Duration: "15m" or seconds. */
static int take_duration(lua_State *L, const char *field, int64_t *ms, struct np_error *err) {
  size_t len;
  *ms = -1;
  if (lua_type(L, -1) == LUA_TNUMBER) {
    lua_Number s = lua_tonumber(L, -1);
    if (s > 0 && s < 3.2e9) *ms = (int64_t)(s * 1000 + 0.5);
  } else if (lua_type(L, -1) == LUA_TSTRING) {
    const char *s = lua_tolstring(L, -1, &len);
    if (np_duration_parse(s, len, ms) < 0) *ms = -1;
    if (*ms <= 0) return np_fail(err, "filter: %s \"%.40s\" is no duration above 0 such as \"15m\"", field, s);
  } else {
    return expected(L, field, "a duration such as \"15m\"", err);
  }
  return *ms > 0 ? 0 : np_fail(err, "filter: %s has to be a duration above 0, got %.14g seconds", field, lua_tonumber(L, -1));
}

static const char *written(lua_State *L, struct np_filter *f) {
  char number[40];
  size_t len;
  if (lua_type(L, -1) == LUA_TSTRING) {
    const char *s = lua_tolstring(L, -1, &len);
    return np_arena_copy(&f->arena, s, len);
  }
  int n = snprintf(number, sizeof number, "%.14g s", lua_tonumber(L, -1));
  return np_arena_copy(&f->arena, number, (size_t)n);
}

static int take_rate(lua_State *L, struct np_filter *f, struct np_error *err) {
  static const char *const names[] = {"below", "above", "per"};
  static const struct {
    const char *name;
    size_t value, set;
  } limits[] = {{"below", offsetof(struct np_filter, rate_below), offsetof(struct np_filter, rate_below_set)},
                {"above", offsetof(struct np_filter, rate_above), offsetof(struct np_filter, rate_above_set)}};
  if (!lua_istable(L, -1)) return expected(L, "rate", "a table such as { above = 0.1, per = \"1m\" }", err);
  int at = lua_gettop(L);
  if (check_names(L, at, "rate.", names, 3, "below, above, per", err)) return -1;
  for (int i = 0; i < 2; i++) {
    struct np_value v;
    if (!find(L, at, limits[i].name)) continue;
    if (take_limit(L, i ? "rate.above" : "rate.below", &v, err)) return -1;
    *(double *)((char *)f + limits[i].value) = as_double(&v);
    *(bool *)((char *)f + limits[i].set) = true;
    lua_settop(L, at);
  }
  f->per = 60000;
  f->per_text = "1m";
  if (find(L, at, "per")) {
    if (take_duration(L, "rate.per", &f->per, err)) return -1;
    f->per_text = written(L, f);
    lua_settop(L, at);
  }
  if (!f->rate_below_set && !f->rate_above_set) return np_fail(err, "filter: rate needs a limit: below, above or both");
  if (f->rate_below_set && f->rate_above_set && !(f->rate_above < f->rate_below))
    return np_fail(err, "filter: no rate is above %.14g and below %.14g; for both directions write two plugin:on", f->rate_above,
                   f->rate_below);
  f->rate_set = true;
  return 0;
}

static int take_first(lua_State *L, struct np_filter *f, struct np_error *err) {
  size_t len = 0;
  if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
    return expected(L, "first", "\"ever\", \"day\" or a duration", err);
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : "";
  f->first_text = written(L, f);
  f->first = strcmp(s, "ever") == 0 ? NP_FIRST_EVER : strcmp(s, "day") == 0 ? NP_FIRST_DAY : NP_FIRST_AFTER;
  if (f->first != NP_FIRST_AFTER) return 0;
  if (lua_type(L, -1) == LUA_TSTRING && np_duration_parse(s, len, &f->first_ms) < 0) {
    static const char *const words[] = {"ever", "day"};
    const char *near = np_near(s, len, words, 2);
    return np_fail(err, "filter: first \"%.40s\" is neither \"ever\" nor \"day\" nor a duration such as \"12h\"%s%s%s", s,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
  }
  return take_duration(L, "first", &f->first_ms, err);
}

/* Clock and calendar */

/* Minutes of "HH:MM", -1 where it is none. */
static int minutes_of(const char *s, size_t len) {
  if (len != 5 || s[2] != ':') return -1;
  for (int i = 0; i < 5; i++)
    if (i != 2 && (s[i] < '0' || s[i] > '9')) return -1;
  int hour = (s[0] - '0') * 10 + s[1] - '0', minute = (s[3] - '0') * 10 + s[4] - '0';
  return hour < 24 && minute < 60 ? hour * 60 + minute : hour == 24 && !minute ? NP_DAY_MINUTES : -1;
}

/* A pair { from, to }. */
static int take_span(lua_State *L, struct np_filter *f, struct np_buf *text, struct np_error *err) {
  int of[2];
  for (int i = 0; i < 2; i++) {
    size_t len = 0;
    lua_rawgeti(L, -1, i + 1);
    const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    if (!s) return expected(L, "hours", "two times such as { \"22:00\", \"06:00\" }, or a list of such pairs", err);
    of[i] = minutes_of(s, len);
    if (of[i] < 0 || (i == 0 && of[i] == NP_DAY_MINUTES))
      return np_fail(err, "filter: hours: \"%.20s\" is no time of day from \"00:00\" to \"%s\"", s, i ? "24:00" : "23:59");
    np_buf_addf(text, "%s%s", i ? "-" : text->len ? ", " : "", s);
    lua_pop(L, 1);
  }
  if (of[0] == of[1]) return np_fail(err, "filter: hours begin and end at the same time; leave them out for the whole day");
  for (int m = of[0]; m != of[1];) {
    f->minutes[m / 8] |= (unsigned char)(1 << m % 8);
    if (++m == NP_DAY_MINUTES && of[1] != NP_DAY_MINUTES) m = 0;
  }
  return 0;
}

static int take_hours(lua_State *L, struct np_filter *f, struct np_error *err) {
  static const char wanted[] = "two times such as { \"22:00\", \"06:00\" }, or a list of such pairs";
  struct np_buf text = {0};
  if (!lua_istable(L, -1)) return expected(L, "hours", wanted, err);
  size_t n = list_length(L, "hours", wanted, err);
  if (!n) return -1;
  lua_rawgeti(L, -1, 1);
  bool pairs = lua_istable(L, -1);
  lua_pop(L, 1);
  int status = 0, at = lua_gettop(L);
  for (size_t i = 1; i <= (pairs ? n : 1) && !status; i++) {
    if (pairs) lua_rawgeti(L, at, (lua_Integer)i);
    size_t length = 0;
    if (lua_istable(L, -1))
      length = list_length(L, "hours", wanted, err);
    else
      expected(L, "hours", wanted, err);
    if (length && length != 2) np_fail(err, "filter: hours has to be %s, got %zu times", wanted, length);
    status = length == 2 ? take_span(L, f, &text, err) : -1;
    lua_settop(L, at);
  }
  f->hours_set = true;
  f->hours_text = np_arena_copy(&f->arena, np_buf_text(&text), text.len);
  np_buf_free(&text);
  return status;
}

static int take_weekdays(lua_State *L, struct np_filter *f, struct np_error *err) {
  struct np_pattern *list;
  size_t n;
  if (take_patterns(L, f, "weekdays", &list, &n, err)) return -1;
  for (size_t i = 0; i < n; i++) {
    int day = 0;
    while (day < 7 && strcmp(list[i].text, np_weekdays[day]) != 0) day++;
    if (day == 7) {
      const char *near = NULL;
      for (int d = 0; d < 7 && !near; d++)
        if (strncasecmp(list[i].text, np_weekdays[d], list[i].len < 3 ? 2 : 3) == 0) near = np_weekdays[d];
      return np_fail(err,
                     "filter: weekdays: \"%.40s\" is none of \"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"%s%s%s",
                     list[i].text, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    f->weekdays |= 1U << day;
  }
  return 0;
}

static int take_zone(lua_State *L, struct np_filter *f, struct np_error *err) {
  struct np_error why;
  size_t len;
  if (lua_type(L, -1) != LUA_TSTRING) return expected(L, "zone", "a name such as \"Europe/Berlin\"", err);
  const char *s = lua_tolstring(L, -1, &len);
  f->zone = np_zone_get(s, len, &why);
  if (!f->zone) return np_fail(err, "filter: %s", why.text);
  f->zone_name = np_arena_copy(&f->arena, s, len);
  return 0;
}

/* The whole */

static int take_field(lua_State *L, struct np_filter *f, int field, struct np_error *err) {
  const char *name = np_filter_fields[field];
  switch (field) {
  case NP_F_QUALITY: return take_quality(L, f, err);
  case NP_F_DERIVED:
    if (!lua_isboolean(L, -1)) return expected(L, name, "true or false", err);
    f->derived_set = true;
    f->derived = lua_toboolean(L, -1);
    return 0;
  case NP_F_BELOW: f->below_set = true; return take_limit(L, name, &f->below, err);
  case NP_F_ABOVE: f->above_set = true; return take_limit(L, name, &f->above, err);
  case NP_F_OUTSIDE:
    if (f->below_set || f->above_set) return np_fail(err, "filter: outside stands for below and above: give it or them");
    return take_outside(L, f, err);
  case NP_F_MARGIN: return take_margin(L, f, err);
  case NP_F_CHANGED:
    if (!lua_isboolean(L, -1)) return expected(L, name, "true or false", err);
    f->changed = lua_toboolean(L, -1);
    return 0;
  case NP_F_RATE: return take_rate(L, f, err);
  case NP_F_ZONE: return take_zone(L, f, err);
  case NP_F_FIRST: return take_first(L, f, err);
  case NP_F_HOURS: return take_hours(L, f, err);
  case NP_F_WEEKDAYS: return take_weekdays(L, f, err);
  default: return take_patterns(L, f, name, &f->patterns[field], &f->counts[field], err);
  }
}

/* Where a low or high value counts as back. In decimal, as people write them: 1.1 and 2.2 are 3.3. */
static struct np_value moved(const struct np_value *limit, const struct np_value *margin, int sign) {
  int64_t i;
  if (limit->type == NP_NUMBER_INT && margin->type == NP_NUMBER_INT && !__builtin_add_overflow(limit->i, sign * margin->i, &i))
    return (struct np_value){.type = NP_NUMBER_INT, .i = i};
  return (struct np_value){.type = NP_NUMBER_REAL, .d = np_round_digits(as_double(limit) + sign * as_double(margin), 15)};
}

static int check_together(struct np_filter *f, struct np_error *err) {
  if (f->below_set && f->above_set && !np_value_less(&f->above, &f->below))
    return np_fail(err,
                   "filter: no value is above %.14g and below %.14g; for values outside a range write outside = { %.14g, %.14g }",
                   as_double(&f->above), as_double(&f->below), as_double(&f->below), as_double(&f->above));
  if (f->margin_set && !f->below_set && !f->above_set && !f->outside_set)
    return np_fail(err, "filter: margin needs a limit to come back from: below, above or outside");
  const char *by_zone = f->hours_set ? "hours" : f->weekdays ? "weekdays" : f->first == NP_FIRST_DAY ? "first = \"day\"" : NULL;
  if (by_zone && !f->zone)
    return np_fail(err, "filter: %s needs a zone beside it, such as zone = \"Europe/Berlin\" or \"UTC\"", by_zone);
  if (f->zone && !by_zone)
    return np_fail(err, "filter: zone is for hours, weekdays and first = \"day\": without them it says nothing");
  if (!f->margin_set) return 0;
  f->low_back = moved(&f->below, &f->margin, 1);
  f->high_back = moved(&f->above, &f->margin, -1);
  if (f->outside_set && np_value_less(&f->above, &f->low_back))
    return np_fail(err, "filter: a margin of %.14g is more than lies between %.14g and %.14g", as_double(&f->margin),
                   as_double(&f->below), as_double(&f->above));
  return 0;
}

static void add_value(struct np_buf *b, const char *name, const struct np_value *v) {
  if (v->type == NP_NUMBER_INT)
    np_buf_addf(b, "%s=%" PRId64 ";", name, v->i);
  else
    np_buf_addf(b, "%s=%.17g;", name, v->d);
}

static void add_hash(struct np_filter *f) {
  struct np_buf b = {0};
  for (int i = 0; i < NP_F_TEXTS; i++)
    for (size_t k = 0; f->patterns[i] && k < f->counts[i]; k++) {
      np_buf_addf(&b, "%s=%zu:", np_filter_fields[i], f->patterns[i][k].len);
      np_buf_add(&b, f->patterns[i][k].text, f->patterns[i][k].len);
    }
  if (f->qualified) np_buf_addf(&b, "quality=%u;", f->qualities);
  if (f->derived_set) np_buf_addf(&b, "derived=%d;", f->derived);
  if (f->below_set) add_value(&b, "below", &f->below);
  if (f->above_set) add_value(&b, "above", &f->above);
  if (f->outside_set) add_value(&b, "low", &f->below), add_value(&b, "high", &f->above);
  if (f->margin_set) add_value(&b, "margin", &f->margin);
  if (f->changed) np_buf_adds(&b, "changed;");
  if (f->rate_below_set) np_buf_addf(&b, "rate.below=%.17g;", f->rate_below);
  if (f->rate_above_set) np_buf_addf(&b, "rate.above=%.17g;", f->rate_above);
  if (f->rate_set) np_buf_addf(&b, "per=%" PRId64 ";", f->per);
  if (f->first) np_buf_addf(&b, "first=%d,%" PRId64 ";", (int)f->first, f->first_ms);
  if (f->hours_set) np_buf_add(&b, f->minutes, sizeof f->minutes);
  if (f->weekdays) np_buf_addf(&b, "weekdays=%u;", f->weekdays);
  if (f->zone_name) np_buf_adds(&b, f->zone_name);
  snprintf(f->hash, sizeof f->hash, "%016" PRIx64, np_hash_stable(np_buf_text(&b), b.len));
  np_buf_free(&b);
}

/* Fields are taken in an order of our own, so that the first error is the same in every run. */
static int compile(lua_State *L, int idx, struct np_filter *f, struct np_error *err) {
  if (!lua_istable(L, idx)) return np_fail(err, "filter: expected a table, got a %s", lua_typename(L, lua_type(L, idx)));
  static const char there_are[] =
      "device, metric, vendor, connection, unit, place, owner, tag, quality, derived, below, above, outside, margin, "
      "changed, rate, first, hours, weekdays, zone";
  if (check_names(L, idx, "", np_filter_fields, NP_F_COUNT, there_are, err)) return -1;
  int top = lua_gettop(L);
  for (int field = 0; field < NP_F_COUNT; field++) {
    if (!find(L, idx, np_filter_fields[field])) continue;
    if (take_field(L, f, field, err)) return -1;
    lua_settop(L, top);
  }
  if (check_together(f, err)) return -1;
  add_hash(f);
  return 0;
}

struct np_filter *np_filter_compile(lua_State *L, int idx, struct np_error *err) {
  int top = lua_gettop(L);
  idx = lua_absindex(L, idx);
  if (!lua_checkstack(L, 20)) {
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
