/* plugin:window: numbers over a device's past, for rules. What counts is what was stored when the rule's reading had just been, so that a run over
 * the past, or after a crash, gives the same. */
#include <math.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/ledger_parts.h"
#include "host/window.h"

#define WINDOW "neap.window"
#define LOOKED_MAX 100000 /* readings of one window that are looked at */
#define AT_ONCE 1000      /* of them between two looks at the call's budget */
#define COST 20           /* instructions that a reading counts for */
#define EXACT 9007199254740992

struct wish { /* which readings a window is made of */
  const char *vendor, *device, *metric, *unit;
  unsigned qualities; /* bits */
  int64_t last, count;
};

struct gathering {
  lua_State *L;
  const struct wish *wish;
  int64_t seq, received;  /* none that is newer in either */
  struct np_buf *samples; /* borrowed: struct np_sample, newest first */
  struct np_buf *unit;    /* borrowed: of what counts, once known */
  int64_t n, looked;
  bool known, whole, too_many, over;
};

static bool has_unit(struct gathering *g, const struct np_reading *r) {
  const char *text = r->unit.ptr ? r->unit.ptr : "";
  if (!g->known) np_buf_adds(g->unit, text);
  g->known = true;
  return strcmp(np_buf_text(g->unit), text) == 0;
}

/* Touches no Lua but to ask whether the call may go on. */
static bool gather(void *arg, const struct np_reading *r) {
  struct gathering *g = arg;
  if (++g->looked > LOOKED_MAX) {
    g->too_many = true;
    return false;
  }
  if (g->looked % AT_ONCE == 0 && !np_task_goes_on(g->L)) {
    g->over = true;
    return false;
  }
  if (r->seq > g->seq || r->received > g->received) return true;
  if (r->value.type != NP_NUMBER_INT && r->value.type != NP_NUMBER_REAL) return true;
  if (!(g->wish->qualities >> r->quality & 1) || !has_unit(g, r)) return true;
  bool integer = r->value.type == NP_NUMBER_INT;
  struct np_sample s = {.at = r->at, .value = integer ? (double)r->value.i : r->value.d};
  g->whole = g->whole && integer && fabs(s.value) <= EXACT;
  np_buf_add(g->samples, &s, sizeof s);
  return ++g->n < g->wish->count;
}

/* The wish */

/* By raw access: a text that a metamethod makes would be nobody's, and gone with the next collection. */
static int raw_field(lua_State *L, const char *field) {
  lua_pushstring(L, field);
  return lua_rawget(L, 2);
}

static const char *text_of(lua_State *L, const char *field, const char *otherwise) {
  if (raw_field(L, field) == LUA_TNIL) {
    lua_pop(L, 1);
    return otherwise;
  }
  if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "plugin:window: %s has to be a string, got a %s", field, luaL_typename(L, -1));
  const char *s = lua_tostring(L, -1); /* the table keeps it */
  lua_pop(L, 1);
  return s;
}

static unsigned quality_of(lua_State *L) {
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  for (unsigned i = 0; i < 3; i++)
    if (strcmp(np_quality_names[i], s) == 0) return 1u << i;
  luaL_error(L, "plugin:window: quality: unknown \"%s\"; there are valid, warmup and invalid, or a list of them", s);
  return 0;
}

static unsigned qualities(lua_State *L) {
  unsigned bits = 0;
  switch (raw_field(L, "quality")) {
  case LUA_TNIL: bits = 1u << NP_VALID; break;
  case LUA_TTABLE:
    for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, -1); i <= n && i <= 3; i++) {
      lua_rawgeti(L, -1, i);
      bits |= quality_of(L);
      lua_pop(L, 1);
    }
    break;
  default: bits = quality_of(L);
  }
  lua_pop(L, 1);
  if (!bits) luaL_error(L, "plugin:window: quality is an empty list: which readings count?");
  return bits;
}

static void check_fields(lua_State *L) {
  static const char *const fields[] = {"device", "metric", "vendor", "unit", "quality", "last", "count"};
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "[1]";
    size_t i = 0;
    while (i < sizeof fields / sizeof *fields && strcmp(fields[i], name) != 0) i++;
    if (i == sizeof fields / sizeof *fields)
      luaL_error(L, "plugin:window: unknown field \"%s\"; there are device, metric, vendor, unit, quality, last and count", name);
  }
}

static void read_wish(lua_State *L, const struct np_task *t, struct wish *w) {
  const struct np_reading *r = t->reading;
  check_fields(L);
  w->device = text_of(L, "device", r ? r->device.ptr : NULL);
  w->metric = text_of(L, "metric", r ? r->metric.ptr : NULL);
  w->vendor = text_of(L, "vendor", r ? r->vendor.ptr : NULL);
  w->unit = text_of(L, "unit", NULL);
  w->qualities = qualities(L);
  w->last = -1;
  w->count = INT64_MAX;
  if (!w->device || !w->metric)
    luaL_error(L, "plugin:window: %s is missing: a timer has no reading to take it from", w->device ? "metric" : "device");
  if (raw_field(L, "last") != LUA_TNIL) w->last = np_field_duration(L, -1, "window", "last");
  if (raw_field(L, "count") != LUA_TNIL) w->count = np_field_integer(L, "window", "count");
  lua_pop(L, 2);
  if (w->last < 0 && w->count == INT64_MAX) luaL_error(L, "plugin:window: how far back? Give last = \"3h\", count = 36, or both");
  if (w->last == 0) luaL_error(L, "plugin:window: last has to be longer than nothing");
  if (w->count < 1) luaL_error(L, "plugin:window: count has to be 1 or more");
}

/* The object: a userdata of the window and its samples, with its unit. */

static const struct np_window *window_at(lua_State *L, int idx) { return luaL_checkudata(L, idx, WINDOW); }

static void push_number(lua_State *L, const struct np_window *w, double d) {
  if (w->whole && fabs(d) <= EXACT)
    lua_pushinteger(L, (lua_Integer)d);
  else
    lua_pushnumber(L, d);
}

static void push_window(lua_State *L, struct gathering *g, int64_t end) {
  size_t n = (size_t)g->n;
  struct np_window *w = lua_newuserdatauv(L, sizeof *w + 2 * n * sizeof(struct np_sample), 1);
  struct np_sample *samples = (struct np_sample *)(w + 1);
  for (size_t i = 0; i < n; i++) memcpy(&samples[i], g->samples->data + (n - 1 - i) * sizeof *samples, sizeof *samples);
  w->whole = g->whole;
  np_window_make(w, samples, samples + n, n, end);
  if (g->known && g->unit->len)
    lua_pushlstring(L, g->unit->data, g->unit->len);
  else
    lua_pushnil(L);
  lua_setiuservalue(L, -2, 1);
  luaL_setmetatable(L, WINDOW);
}

static bool push_field(lua_State *L, const struct np_window *w, const char *name) {
  const struct np_sample *first = w->samples, *last = w->count ? first + w->count - 1 : first;
  if (strcmp(name, "count") == 0)
    lua_pushinteger(L, (lua_Integer)w->count);
  else if (strcmp(name, "unit") == 0)
    lua_getiuservalue(L, 1, 1);
  else if (strcmp(name, "sum") == 0)
    push_number(L, w, w->sum);
  else if (!w->count)
    return false;
  else if (strcmp(name, "mean") == 0)
    lua_pushnumber(L, w->mean);
  else if (strcmp(name, "min") == 0)
    push_number(L, w, w->min);
  else if (strcmp(name, "max") == 0)
    push_number(L, w, w->max);
  else if (strcmp(name, "first") == 0)
    push_number(L, w, first->value);
  else if (strcmp(name, "last") == 0)
    push_number(L, w, last->value);
  else if (strcmp(name, "from") == 0)
    lua_pushinteger(L, first->at);
  else if (strcmp(name, "to") == 0)
    lua_pushinteger(L, last->at);
  else if (strcmp(name, "stdev") == 0 && w->count > 1)
    lua_pushnumber(L, w->stdev);
  else if (strcmp(name, "rate") == 0 && w->moves)
    lua_pushnumber(L, w->rate);
  else if (strcmp(name, "slope") == 0 && w->moves)
    lua_pushnumber(L, w->slope);
  else
    return false;
  return true;
}

static int window_index(lua_State *L) {
  const struct np_window *w = window_at(L, 1);
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (push_field(L, w, name)) return 1;
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1)); /* its methods */
  return 1;
}

/* window:percentile(p) -> the value below which p of 100 readings are, between two of them on the line through both; nil where there are none.
 * @param p number from 0 to 100: 50 is the median
 * @return number?
 */
static int percentile(lua_State *L) {
  const struct np_window *w = window_at(L, 1);
  lua_Number p = luaL_checknumber(L, 2);
  if (!(p >= 0 && p <= 100)) return luaL_error(L, "window:percentile: from 0 to 100, got %f", p);
  if (!w->count) return 0;
  lua_pushnumber(L, np_window_percentile(w, p));
  return 1;
}

static int64_t gap_at(lua_State *L, int idx, const char *verb) {
  int64_t gap = np_field_duration(L, idx, verb, "the longest time that a reading stands for");
  if (!gap) luaL_error(L, "plugin:%s: a reading has to stand for some time", verb);
  return gap;
}

/* window:in_range(lo, hi [, gap]) -> the share, from 0 to 1, of readings with lo <= value <= hi. With `gap`, a duration, the share of the time: a reading
 * stands until the next one, the last until the rule's present, and none for longer than that. nil where there are no readings, or no time.
 * @param lo number
 * @param hi number
 * @param gap? string|number
 * @return number?
 */
static int in_range(lua_State *L) {
  const struct np_window *w = window_at(L, 1);
  lua_Number lo = luaL_checknumber(L, 2), hi = luaL_checknumber(L, 3);
  if (!(lo <= hi)) return luaL_error(L, "window:in_range: the lower bound comes first");
  np_task_spend(L, (int64_t)w->count);
  int64_t within = (int64_t)np_window_within(w, lo, hi), all = (int64_t)w->count;
  if (!lua_isnoneornil(L, 4)) np_window_time(w, lo, hi, gap_at(L, 4, "window:in_range"), &within, &all);
  if (!all) return 0;
  lua_pushnumber(L, (lua_Number)within / (lua_Number)all);
  return 1;
}

/* window:covered(gap) -> seconds for which there is a reading: one stands until the next, the last until the rule's present, none for longer than gap.
 * @param gap string|number a duration
 * @return number
 */
static int covered(lua_State *L) {
  const struct np_window *w = window_at(L, 1);
  int64_t within, all;
  np_task_spend(L, (int64_t)w->count);
  np_window_time(w, -HUGE_VAL, HUGE_VAL, gap_at(L, 2, "window:covered"), &within, &all);
  lua_pushnumber(L, (lua_Number)all / 1000);
  return 1;
}

static void register_window(lua_State *L) {
  static const luaL_Reg methods[] = {{"percentile", percentile}, {"in_range", in_range}, {"covered", covered}, {NULL, NULL}};
  if (luaL_newmetatable(L, WINDOW)) {
    luaL_newlib(L, methods);
    lua_pushcclosure(L, window_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
  }
  lua_pop(L, 1);
}

/* @class neap.WindowOptions: what plugin:window takes; last, count or both have to be there.
 * @field last? string|number a duration: what was measured in that time before the present, the beginning not included
 * @field count? integer at most so many, the newest
 * @field device? string the reading's where absent
 * @field metric? string the reading's where absent
 * @field vendor? string the reading's where absent; a timer takes every vendor's device of that name
 * @field unit? string only readings in this unit; the newest's where absent
 * @field quality? string|string[] "valid" where absent
 */
/* @class neap.Window: what plugin:window gives. Of no readings there are only count and sum.
 * @field count integer
 * @field sum number
 * @field mean? number
 * @field min? number
 * @field max? number
 * @field stdev? number that of a sample; of two readings or more
 * @field first? number the oldest's value
 * @field last? number the newest's value
 * @field from? integer ms, when the oldest was measured
 * @field to? integer ms, when the newest was measured
 * @field rate? number change for each minute, from the first to the last; of two moments or more
 * @field slope? number change for each minute, by the line of least squares
 * @field unit? string of all of them
 */
/* plugin:window{ last = "3h", count = 36, device, metric, vendor, unit, quality } -> numbers over readings: mean, min, max, count, sum, rate … The present is
 * the reading's `at` (a timer's: its due): what was measured by then counts, of what was stored by then, the reading included. So a late reading has the
 * window of its own time, and those of earlier readings are not made again. Numbers alone count, in one unit, of quality "valid" unless it says otherwise.
 * It raises where there are more than 100,000 readings to look at.
 * @param options neap.WindowOptions
 * @return neap.Window
 */
int np_window(lua_State *L) {
  struct np_task *t = np_acting(L, "window", NP_IN_RULES, "it is for rules; plugin:history gives a vendor's readings");
  struct wish w = {0};
  struct np_error err;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  read_wish(L, t, &w);
  register_window(L);
  int64_t end = t->reading ? t->reading->at : t->now;
  bool past = t->overlay->past;
  struct gathering g = {.L = L,
                        .wish = &w,
                        .seq = t->reading ? t->reading->seq
                               : past     ? t->overlay->newest
                                          : INT64_MAX,
                        .received = t->reading ? INT64_MAX : t->now,
                        .samples = np_box_new(L),
                        .unit = np_box_new(L),
                        .known = w.unit != NULL,
                        .whole = true};
  if (w.unit) np_buf_adds(g.unit, w.unit);
  int64_t from = w.last < 0 ? INT64_MIN : end - w.last + 1;
  int done = np_reader_history(t->in->lane->reader, w.vendor, w.device, w.metric, from, end, LOOKED_MAX + 1, gather, &g, &err);
  if (done < 0) return luaL_error(L, "plugin:window: %s", err.text);
  np_task_spend(L, COST * g.looked);
  if (g.too_many) return luaL_error(L, "plugin:window: more than %d readings to look at: make it shorter", LOOKED_MAX);
  push_window(L, &g, end);
  return 1;
}
