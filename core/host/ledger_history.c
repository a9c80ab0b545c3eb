/* Readings as plugins see them, and plugin:history. */
#include "host/ledger.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/data.h"
#include "host/lane.h"
#include "host/ledger_parts.h"
#include "host/task.h"
#include "lib/json.h"

/* @class neap.Reading: a reading as it is stored.
 * @field device string
 * @field metric string
 * @field value number|string|boolean
 * @field unit? string UCUM's
 * @field at integer ms, when it was measured
 * @field received integer ms, when it came
 * @field quality "valid"|"warmup"|"invalid"
 * @field vendor string
 * @field connection string
 * @field id integer
 * @field key? string the vendor's own id of it
 * @field serial? integer
 * @field interval? number seconds
 * @field trend? "flat"|"rising_slowly"|"falling_slowly"|"rising_fast"|"falling_fast"
 * @field extra? table
 * @field derived? string the rule that derived it; nil where a vendor sent it
 */
void np_push_reading(lua_State *L, const struct np_reading *r) {
  lua_createtable(L, 0, 14);
  const struct {
    const char *name;
    const struct np_text *text;
  } texts[] = {{"device", &r->device},         {"metric", &r->metric}, {"vendor", &r->vendor},
               {"connection", &r->connection}, {"unit", &r->unit},     {"key", &r->key}};
  for (size_t i = 0; i < 6; i++) {
    if (!texts[i].text->ptr) continue;
    lua_pushlstring(L, texts[i].text->ptr, texts[i].text->len);
    lua_setfield(L, -2, texts[i].name);
  }
  switch (r->value.type) {
  case NP_NUMBER_INT: lua_pushinteger(L, r->value.i); break;
  case NP_NUMBER_REAL: lua_pushnumber(L, r->value.d); break;
  case NP_STRING: lua_pushlstring(L, r->value.s.ptr, r->value.s.len); break;
  case NP_BOOL: lua_pushboolean(L, (int)r->value.i); break;
  }
  lua_setfield(L, -2, "value");
  const struct {
    const char *name;
    int64_t i;
    bool has;
  } integers[] = {
      {"at", r->at, true}, {"received", r->received, true}, {"id", r->seq, true}, {"serial", r->serial, r->serial != INT64_MIN}};
  for (size_t i = 0; i < 4; i++) {
    if (!integers[i].has) continue;
    lua_pushinteger(L, integers[i].i);
    lua_setfield(L, -2, integers[i].name);
  }
  if (r->interval) {
    lua_pushnumber(L, (lua_Number)r->interval / 1000);
    lua_setfield(L, -2, "interval");
  }
  lua_pushstring(L, np_quality_names[r->quality]);
  lua_setfield(L, -2, "quality");
  if (r->depth && r->connection.ptr) {
    lua_pushlstring(L, r->connection.ptr, r->connection.len);
    lua_setfield(L, -2, "derived");
  }
  if (np_trend_names[r->trend]) {
    lua_pushstring(L, np_trend_names[r->trend]);
    lua_setfield(L, -2, "trend");
  }
  struct np_error err;
  if (r->extra.ptr && np_json_decode(L, r->extra.ptr, r->extra.len, &err) == 0) lua_setfield(L, -2, "extra");
}

#define PASSED_MOST 100000 /* readings that came later and are passed over */

struct history {
  lua_State *L;
  int64_t newest, received; /* none with a larger seq, or that came later */
  lua_Integer n, limit, passed;
  bool failed;
};

static int push_one(lua_State *L) {
  np_push_reading(L, lua_touserdata(L, 1));
  return 1;
}

/* Protected, for a raise may not cross the reader that calls this. */
static bool add_to_history(void *arg, const struct np_reading *r) {
  struct history *h = arg;
  if (r->seq > h->newest || r->received > h->received) return h->passed++ < PASSED_MOST;
  lua_pushcfunction(h->L, push_one);
  lua_pushlightuserdata(h->L, (void *)r);
  if (lua_pcall(h->L, 1, 1, 0) != LUA_OK) {
    h->failed = true;
    return false;
  }
  lua_rawseti(h->L, -2, ++h->n); /* the table was made with room for it */
  return h->n < h->limit;
}

static int64_t optional_time(lua_State *L, const char *field, int64_t otherwise) {
  if (lua_getfield(L, 4, field) != LUA_TNIL) otherwise = np_field_time(L, "history", field);
  lua_pop(L, 1);
  return otherwise;
}

/* @class neap.Span: which of a device's readings plugin:history gives.
 * @field last? string|number a duration, up to now
 * @field from? integer ms
 * @field to? integer ms
 * @field limit? integer 100 where absent
 */
/* plugin:history(device, metric, { last = "1h" | from = ms, to = ms, limit = 100 }) -> readings, newest first. In a rule: as they were
 * when its reading had just been stored, or its timer was due, so that the same readings give the same messages. In a vendor's call: of what plugin.data
 * shows it.
 * @param device string
 * @param metric string
 * @param span neap.Span
 * @return neap.Reading[]
 */
int np_history(lua_State *L) {
  struct np_task *t = np_acting(L, "history", NP_IN_STORE, "use it in rules and in a vendor's handlers and jobs");
  const char *dev = luaL_checkstring(L, 2), *metric = luaL_checkstring(L, 3);
  lua_settop(L, 4);
  if (lua_isnil(L, 4)) {
    lua_newtable(L);
    lua_replace(L, 4);
  }
  luaL_checktype(L, 4, LUA_TTABLE);
  int64_t now = t->now ? t->now : np_now_ms(), from = INT64_MIN, to = INT64_MAX;
  bool ruling = NP_IN(t->mode) & NP_IN_RULES;
  if (t->reading) now = t->reading->at;
  if (ruling) to = now;
  if (lua_getfield(L, 4, "last") != LUA_TNIL) from = now - np_field_duration(L, -1, "history", "last");
  lua_pop(L, 1);
  from = optional_time(L, "from", from);
  to = optional_time(L, "to", to);
  lua_Integer limit = 100;
  if (lua_getfield(L, 4, "limit") != LUA_TNIL) limit = np_field_integer(L, "history", "limit");
  lua_pop(L, 1);
  if (limit < 1 || limit > 10000) return luaL_error(L, "plugin:history: limit has to be from 1 to 10000");
  luaL_checkstack(L, 8, NULL);
  lua_createtable(L, (int)limit, 0);
  bool past = t->overlay && t->overlay->past; /* of its timers too: what came after one was not there */
  int64_t newest = t->reading ? t->reading->seq : past ? t->overlay->newest : INT64_MAX;
  struct history h = {.L = L, .newest = newest, .received = t->reading || !ruling ? INT64_MAX : t->now, .limit = limit};
  struct np_error err;
  struct np_reader *r = t->in->lane->reader;
  int done;
  if (ruling) {
    const char *vendor = t->reading ? t->reading->vendor.ptr : NULL;
    done = np_reader_history(r, vendor, dev, metric, from, to, (int)limit + PASSED_MOST + 1, add_to_history, &h, &err);
  } else {
    const struct np_text device = {dev, strlen(dev)}, kind = {metric, strlen(metric)};
    const struct np_row_filter f = {
        .scope = np_data_scope(L), .devices = {&device, 1}, .kinds = {&kind, 1}, .from = from, .to = to};
    done = np_reader_find_readings(r, &f, (int)limit, add_to_history, &h, &err);
  }
  if (done < 0) return luaL_error(L, "plugin:history: %s", err.text);
  if (h.failed) return lua_error(L);
  if (h.passed > PASSED_MOST)
    return luaL_error(L, "plugin:history: more than %d readings came later: ask for a shorter time", PASSED_MOST);
  return 1;
}
