/* neap.time: times are integers, ms since 1970 UTC. Zones are base/zone.c's, text is time_text.c's. */
#include "lib/time.h"

#include <math.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/duration.h"
#include "base/utf8.h"
#include "lib/modules.h"
#include "lib/time_text.h"

#define DAY_MS 86400000LL
#define MAX_TEXT 512 /* bytes of a pattern, so that what it writes fits the stack */

static const char slot_key;

int64_t *np_time_now_slot(lua_State *L) {
  luaL_checkstack(L, 2, NULL);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &slot_key) != LUA_TUSERDATA) {
    lua_pop(L, 1);
    *(int64_t *)lua_newuserdatauv(L, sizeof(int64_t), 0) = 0;
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &slot_key);
  }
  int64_t *slot = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return slot;
}

void np_time_set_now(lua_State *L, int64_t ms) { *np_time_now_slot(L) = ms; }

/* nil, why, "time" */
static int push_failure(lua_State *L, const struct np_error *err) {
  lua_pushnil(L);
  lua_pushstring(L, err->text);
  lua_pushliteral(L, "time");
  return 3;
}

/* The zone named at arg, UTC where there is none. Upvalue 1 holds those that were met: name to pointer. Raises for an unknown one. */
static const struct np_zone *check_zone(lua_State *L, int arg) {
  struct np_error err;
  if (lua_isnoneornil(L, arg))
    lua_pushliteral(L, "UTC");
  else
    lua_pushvalue(L, arg);
  if (lua_type(L, -1) != LUA_TSTRING) luaL_typeerror(L, arg, "string");
  lua_pushvalue(L, -1);
  const struct np_zone *z = lua_rawget(L, lua_upvalueindex(1)) == LUA_TLIGHTUSERDATA ? lua_touserdata(L, -1) : NULL;
  lua_pop(L, 1);
  if (!z) {
    size_t len;
    const char *name = lua_tolstring(L, -1, &len);
    if (!(z = np_zone_get(name, len, &err))) luaL_argerror(L, arg, err.text);
    lua_pushvalue(L, -1);
    lua_pushlightuserdata(L, (void *)(uintptr_t)z);
    lua_rawset(L, lua_upvalueindex(1));
  }
  lua_pop(L, 1);
  return z;
}

/* The pattern at arg, or NULL. Raises for a wrong one. */
static const char *check_pattern(lua_State *L, int arg, bool reads, size_t *len) {
  struct np_error err;
  *len = 0;
  if (lua_isnoneornil(L, arg)) return NULL;
  luaL_checktype(L, arg, LUA_TSTRING);
  const char *pattern = lua_tolstring(L, arg, len);
  if (*len > MAX_TEXT) luaL_argerror(L, arg, "pattern: longer than 512 bytes");
  if (np_time_pattern_check(pattern, *len, reads, &err) < 0) luaL_argerror(L, arg, err.text);
  return pattern;
}

static int out_of_range(lua_State *L) { return luaL_argerror(L, 1, "a time out of the years 0 to 9999"); }

/* The time at 1, somewhere near those years, so that nothing overflows; its year there is checked later. */
static int64_t check_ms(lua_State *L) {
  lua_Integer ms = luaL_checkinteger(L, 1);
  if (ms < NP_TIME_MIN - 2 * DAY_MS || ms > NP_TIME_MAX + 2 * DAY_MS) out_of_range(L);
  return ms;
}

/* Now, in ms. In a rule that is when the reading was received.
 * ---@return integer ms */
static int time_now(lua_State *L) {
  const int64_t *slot = lua_touserdata(L, lua_upvalueindex(2));
  lua_pushinteger(L, *slot ? *slot : np_now_ms());
  return 1;
}

/* Reads a time. Without a pattern: RFC 3339, and without an offset, read in the zone, yyyy-MM-dd HH:mm:ss (or with T; fractions are cut to ms),
 * yyyy-MM-dd, yyyyMMdd. A pattern: yyyy MM dd HH mm ss SSS XXX, text in '…'; an offset in the text counts before the zone. A local time
 * that clocks skip is read with the offset from before the gap; of one that comes twice the first is meant.
 * ---@param text string
 * ---@param zone? string IANA name, "UTC" (the default) or "+08:00"
 * ---@param pattern? string
 * ---@return integer|nil ms, string? why, "time"? code */
static int time_parse(lua_State *L) {
  struct np_error err;
  size_t len, pattern_len;
  int64_t ms;
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *text = lua_tolstring(L, 1, &len);
  const struct np_zone *z = check_zone(L, 2);
  const char *pattern = check_pattern(L, 3, true, &pattern_len);
  if (np_time_read(text, len, pattern, pattern_len, z, &ms, &err) < 0) return push_failure(L, &err);
  lua_pushinteger(L, ms);
  return 1;
}

/* Writes a time: as RFC 3339, with ms where there are any, or by a pattern.
 * ---@param ms integer
 * ---@param zone? string
 * ---@param pattern? string
 * ---@return string */
static int time_format(lua_State *L) {
  char bytes[4 * MAX_TEXT];
  size_t len;
  int64_t ms = check_ms(L);
  const struct np_zone *z = check_zone(L, 2);
  const char *pattern = check_pattern(L, 3, false, &len);
  struct np_buf out = {bytes, 0,
                       sizeof bytes}; /* never grows: of a pattern "X-X-..." two letters become six bytes, the most there is */
  if (np_time_write(&out, ms, pattern, len, z) < 0) return out_of_range(L);
  lua_pushlstring(L, bytes, out.len);
  return 1;
}

/* Tells whether a zone exists, to check a setting.
 * ---@param name string
 * ---@return true|nil, string? why, "time"? code */
static int time_zone(lua_State *L) {
  struct np_error err;
  size_t len;
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *name = lua_tolstring(L, 1, &len);
  if (!np_zone_get(name, len, &err)) return push_failure(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

/* Reads a duration: "15m", "1h30m", "250ms", "2d"; a number is seconds.
 * ---@param d string|number
 * ---@return integer|nil ms, string? why, "time"? code */
static int time_duration(lua_State *L) {
  struct np_error err;
  int64_t ms;
  if (lua_type(L, 1) == LUA_TNUMBER) {
    double s = lua_tonumber(L, 1);
    if (s >= 0 && s <= 100.0 * 366 * 86400) {
      lua_pushinteger(L, (lua_Integer)(s * 1000 + 0.5));
      return 1;
    }
    np_fail(&err, "not a duration: %.14g seconds (0 to 100 years)", s);
    return push_failure(L, &err);
  }
  size_t len;
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *text = lua_tolstring(L, 1, &len);
  if (np_duration_parse(text, len, &ms) < 0) {
    if (len > 40) len = 40;
    np_fail(&err, "not a duration: '%.*s' (as \"15m\", \"1h30m\", \"250ms\", \"2d\")", (int)np_utf8_check(text, len), text);
    return push_failure(L, &err);
  }
  lua_pushinteger(L, ms);
  return 1;
}

/* The parts of a time. weekday is 1 for Monday to 7; offset is in minutes.
 * ---@param ms integer
 * ---@param zone? string
 * ---@return { year: integer, month: integer, day: integer, hour: integer, minute: integer, second: integer, ms: integer,
 *              weekday: integer, yearday: integer, offset: integer } */
static int time_parts(lua_State *L) {
  int64_t ms = check_ms(L);
  struct np_time_fields f = np_time_split(ms, check_zone(L, 2), true);
  if (f.year < 0 || f.year > 9999) return out_of_range(L);
  int64_t days = np_days(f.year, f.month, f.day);
  const struct {
    const char *name;
    lua_Integer value;
  } all[] = {{"year", f.year},
             {"month", f.month},
             {"day", f.day},
             {"hour", f.hour},
             {"minute", f.minute},
             {"second", f.second},
             {"ms", f.ms},
             {"weekday", ((days + 3) % 7 + 7) % 7 + 1}, /* 1970 began on a Thursday */
             {"yearday", days - np_days(f.year, 1, 1) + 1},
             {"offset", f.offset / 60}};
  lua_createtable(L, 0, sizeof all / sizeof *all);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    lua_pushinteger(L, all[i].value);
    lua_setfield(L, -2, all[i].name);
  }
  return 1;
}

/* An integer field of the table at 1. Returns whether it is there. */
static bool field(lua_State *L, const char *name, int *value) {
  int is;
  if (lua_getfield(L, 1, name) == LUA_TNIL) {
    lua_pop(L, 1);
    return false;
  }
  lua_Integer i = lua_tointegerx(L, -1, &is);
  if (!is || lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "time.from_parts: %s is no integer", name);
  *value = i < -1000000 ? -1000000 : i > 1000000 ? 1000000 : (int)i;
  lua_pop(L, 1);
  return true;
}

/* The time of its parts: year is needed, month and day are 1 and the rest 0 where missing. An offset among them counts before the zone.
 * ---@param parts table as time.parts gives it
 * ---@param zone? string
 * ---@return integer|nil ms, string? why, "time"? code */
static int time_from_parts(lua_State *L) {
  struct np_error err;
  struct np_time_fields f = {.month = 1, .day = 1};
  int minutes;
  int64_t ms;
  luaL_checktype(L, 1, LUA_TTABLE);
  const struct np_zone *z = check_zone(L, 2);
  if (!field(L, "year", &f.year)) return luaL_argerror(L, 1, "there is no year in it");
  field(L, "month", &f.month);
  field(L, "day", &f.day);
  field(L, "hour", &f.hour);
  field(L, "minute", &f.minute);
  field(L, "second", &f.second);
  field(L, "ms", &f.ms);
  if ((f.zoned = field(L, "offset", &minutes))) {
    if (minutes <= -1440 || minutes >= 1440) {
      np_fail(&err, "not a time: an offset of %d minutes", minutes);
      return push_failure(L, &err);
    }
    f.offset = minutes * 60;
  }
  if (np_time_join(&f, z, &ms, &err) < 0) return push_failure(L, &err);
  lua_pushinteger(L, ms);
  return 1;
}

int luaopen_neap_time(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"now", time_now},           {"parse", time_parse}, {"format", time_format},         {"zone", time_zone},
      {"duration", time_duration}, {"parts", time_parts}, {"from_parts", time_from_parts}, {NULL, NULL}};
  luaL_newlibtable(L, functions);
  lua_createtable(L, 0, 4); /* upvalue 1: zones by name */
  np_time_now_slot(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &slot_key); /* upvalue 2: now */
  luaL_setfuncs(L, functions, 2);
  return 1;
}
