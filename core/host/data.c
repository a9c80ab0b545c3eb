/* plugin.data. A filter is read into structs that borrow their text from the filter's table, which stands on the stack meanwhile; rows become
 * tables one by one, each in a protected call, for a raise may not cross the reader. */
#include "host/data.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/near.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/ledger_parts.h"
#include "host/rows.h"
#include "host/task.h"
#include "lib/json.h"

#define DATA_CALLS (NP_IN_VENDORS | NP_IN(NP_STREAMING))
enum { SELF = 1, FILTER = 2, LIST_MAX = 1000, NAMED_MAX = 100, DEVICES_MAX = 1000, ROWS_MAX = 10000 };

struct np_scope np_data_scope(lua_State *L) {
  const struct np_code *code = ((struct np_instance *)np_env(L))->code;
  return (struct np_scope){.connections = (const char *const *)code->sees, .count = code->see_count, .all = code->sees_all};
}

bool np_data_sees(const struct np_code *code, const char *connection) {
  for (size_t i = 0; i < code->see_count; i++)
    if (strcmp(code->sees[i], connection) == 0) return true;
  return code->sees_all;
}

static struct np_reader *reading(lua_State *L, const char *verb) {
  struct np_instance *in = (struct np_instance *)np_env(L);
  enum np_mode mode = in->running ? in->running->mode : NP_LOADING;
  if (!(DATA_CALLS & NP_IN(mode)) || in->code->kind != NP_VENDOR)
    luaL_error(L, "plugin.data:%s does not belong in %s: use it in a vendor's handlers, jobs and streamed answers", verb,
               np_mode_names[mode]);
  if (!lua_istable(L, SELF)) luaL_error(L, "plugin.data:%s: call it with a colon", verb);
  return in->lane->reader;
}

/* Filters. */

enum type { TEXT, TEXTS, TIME, ID, LIMIT, ORDER, CURSOR };

struct asked {
  const char *verb;
  struct np_device_filter devices;
  struct np_row_filter rows;
  int64_t limit, limit_max;
  bool bad_cursor;
};

struct field {
  const char *name;
  enum type type;
  size_t offset; /* in struct asked */
};

static const struct field device_fields[] = {
    {"vendor", TEXT, offsetof(struct asked, devices.vendor)},
    {"device", TEXTS, offsetof(struct asked, devices.devices)},
    {"connection", TEXT, offsetof(struct asked, devices.connection)},
    {"name", TEXT, offsetof(struct asked, devices.name)},
    {"name_has", TEXT, offsetof(struct asked, devices.name_has)},
    {"owner", TEXT, offsetof(struct asked, devices.owner)},
    {"place", TEXT, offsetof(struct asked, devices.place)},
    {"model", TEXT, offsetof(struct asked, devices.model)},
    {"status", TEXTS, offsetof(struct asked, devices.statuses)},
    {"except_status", TEXTS, offsetof(struct asked, devices.except_statuses)},
    {"after", ID, offsetof(struct asked, devices.after)},
    {"limit", LIMIT, offsetof(struct asked, limit)},
};
static const struct field reading_fields[] = {
    {"device", TEXTS, offsetof(struct asked, rows.devices)}, {"vendor", TEXT, offsetof(struct asked, rows.vendor)},
    {"metric", TEXTS, offsetof(struct asked, rows.kinds)},   {"from", TIME, offsetof(struct asked, rows.from)},
    {"to", TIME, offsetof(struct asked, rows.to)},           {"order", ORDER, offsetof(struct asked, rows.ascending)},
    {"after", CURSOR, offsetof(struct asked, rows.after)},   {"limit", LIMIT, offsetof(struct asked, limit)},
};
static const struct field event_fields[] = {
    {"device", TEXTS, offsetof(struct asked, rows.devices)}, {"vendor", TEXT, offsetof(struct asked, rows.vendor)},
    {"type", TEXTS, offsetof(struct asked, rows.kinds)},     {"from", TIME, offsetof(struct asked, rows.from)},
    {"to", TIME, offsetof(struct asked, rows.to)},           {"order", ORDER, offsetof(struct asked, rows.ascending)},
    {"after", CURSOR, offsetof(struct asked, rows.after)},   {"limit", LIMIT, offsetof(struct asked, limit)},
};
#define COUNT(list) (sizeof(list) / sizeof *(list))

static struct np_text text_at(lua_State *L, int idx, const struct asked *a, const char *field) {
  size_t len;
  if (lua_type(L, idx) != LUA_TSTRING)
    luaL_error(L, "plugin.data:%s: %s has to be a string, got a %s", a->verb, field, luaL_typename(L, idx));
  const char *s = lua_tolstring(L, idx, &len);
  if (memchr(s, 0, len)) luaL_error(L, "plugin.data:%s: %s holds a zero byte", a->verb, field);
  return (struct np_text){s, len};
}

/* The value on top: a string, or a list of them. The list is a userdata that is left below it on the stack. */
static struct np_texts texts_at(lua_State *L, const struct asked *a, const char *field) {
  bool one = lua_type(L, -1) == LUA_TSTRING;
  if (!one && !lua_istable(L, -1))
    luaL_error(L, "plugin.data:%s: %s has to be a string or a list of strings, got a %s", a->verb, field, luaL_typename(L, -1));
  size_t n = one ? 1 : lua_rawlen(L, -1);
  if (n == 0) luaL_error(L, "plugin.data:%s: %s is an empty list: leave it out to take all", a->verb, field);
  if (n > LIST_MAX) luaL_error(L, "plugin.data:%s: %s lists %d, at most %d", a->verb, field, (int)n, LIST_MAX);
  struct np_text *list = lua_newuserdatauv(L, n * sizeof *list, 0);
  lua_insert(L, -2);
  for (size_t i = 0; i < n; i++) {
    if (!one) lua_rawgeti(L, -1, (lua_Integer)i + 1);
    list[i] = text_at(L, -1, a, field);
    if (!one) lua_pop(L, 1); /* the table has it still */
  }
  return (struct np_texts){list, n};
}

static int64_t integer_at(lua_State *L, const struct asked *a, const char *field, const char *what) {
  int exact;
  lua_Integer i = lua_tointegerx(L, -1, &exact);
  if (!exact || lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "plugin.data:%s: %s has to be %s, got %s", a->verb, field, what, luaL_tolstring(L, -1, NULL));
  return i;
}

static bool ascending_at(lua_State *L, const struct asked *a) {
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  if (strcmp(s, "asc") != 0 && strcmp(s, "desc") != 0)
    luaL_error(L, "plugin.data:%s: order has to be \"asc\" or \"desc\", got %s", a->verb, luaL_tolstring(L, -1, NULL));
  return s[0] == 'a';
}

/* A cursor often comes from a client, so a wrong one is the world's doing. */
static void cursor_at(lua_State *L, struct asked *a) {
  struct np_text t = text_at(L, -1, a, "after");
  char *end;
  errno = 0;
  a->rows.after_at = strtoll(t.ptr, &end, 10);
  a->bad_cursor = errno || end == t.ptr || *end != '.' || t.len > 42;
  const char *second = end + (*end == '.');
  a->rows.after_seq = strtoll(second, &end, 10);
  a->bad_cursor |= errno || end == second || *end || strspn(t.ptr, "-0123456789.") != t.len;
  a->rows.after = true;
}

static void read_field(lua_State *L, struct asked *a, const struct field *f) {
  void *to = (char *)a + f->offset;
  switch (f->type) {
  case TEXT: *(struct np_text *)to = text_at(L, -1, a, f->name); break;
  case TEXTS: *(struct np_texts *)to = texts_at(L, a, f->name); break;
  case TIME: *(int64_t *)to = integer_at(L, a, f->name, "an integer of ms since 1970"); break;
  case ID: *(int64_t *)to = integer_at(L, a, f->name, "the id of the last device of the page before"); break;
  case LIMIT: *(int64_t *)to = integer_at(L, a, f->name, "an integer"); break;
  case ORDER: *(bool *)to = ascending_at(L, a); break;
  case CURSOR: cursor_at(L, a); break;
  }
}

static void unknown_field(lua_State *L, const struct asked *a, const struct field *fields, size_t n) {
  const char *known[16], *near = NULL;
  for (size_t i = 0; i < n; i++) known[i] = fields[i].name;
  lua_pushvalue(L, -2);
  size_t len;
  const char *name = luaL_tolstring(L, -1, &len);
  near = np_near(name, len, known, n);
  luaL_error(L, "plugin.data:%s: unknown field \"%s\"%s%s%s", a->verb, name, near ? ", did you mean \"" : "", near ? near : "",
             near ? "\"?" : "");
}

/* Reads the filter at idx; lists stay on the stack above it. */
static void read_filter(lua_State *L, int idx, struct asked *a, const struct field *fields, size_t n) {
  if (!lua_istable(L, idx)) luaL_error(L, "plugin.data:%s: expected a filter, a table, got a %s", a->verb, luaL_typename(L, idx));
  luaL_checkstack(L, 40, NULL);
  a->rows.from = INT64_MIN;
  a->rows.to = INT64_MAX;
  a->limit = 100;
  a->devices.scope = a->rows.scope = np_data_scope(L);
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    size_t i = 0;
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    while (i < n && strcmp(fields[i].name, name) != 0) i++;
    if (i == n) unknown_field(L, a, fields, n);
    read_field(L, a, &fields[i]);
    if (fields[i].type == TEXTS) { /* key, list, value: the list goes below the key */
      lua_pop(L, 1);
      lua_insert(L, -2);
    } else {
      lua_pop(L, 1);
    }
  }
  if (a->limit < 1 || a->limit > a->limit_max)
    luaL_error(L, "plugin.data:%s: limit has to be from 1 to %d, got %d", a->verb, (int)a->limit_max, (int)a->limit);
}

static void need_device(lua_State *L, const struct asked *a) {
  if (!a->rows.devices.count) luaL_error(L, "plugin.data:%s: device is missing: readings are kept by device", a->verb);
  if (a->rows.devices.count > NAMED_MAX)
    luaL_error(L, "plugin.data:%s: device lists %d, at most %d", a->verb, (int)a->rows.devices.count, NAMED_MAX);
}

static int refuse_cursor(lua_State *L) {
  lua_pushnil(L);
  lua_pushliteral(L, "cursor: not one that this query has given");
  lua_pushliteral(L, "cursor");
  return 3;
}

/* Rows as tables. */

struct page {
  lua_State *L;
  void (*push)(lua_State *L, const void *row);
  lua_Integer n, limit;
  bool failed, more;
  int64_t at, id; /* of the last row */
};

/* (rows, page, row) */
static int put_row(lua_State *L) {
  const struct page *p = lua_touserdata(L, 2);
  p->push(L, lua_touserdata(L, 3));
  lua_rawseti(L, 1, p->n + 1);
  return 0;
}

/* Into the table on top of the stack. False: enough. */
static bool add_row(struct page *p, const void *row, int64_t at, int64_t id) {
  if (p->n == p->limit) {
    p->more = true;
    return false;
  }
  lua_pushcfunction(p->L, put_row);
  lua_pushvalue(p->L, -2);
  lua_pushlightuserdata(p->L, p);
  lua_pushlightuserdata(p->L, (void *)row);
  if (lua_pcall(p->L, 3, 0, 0) != LUA_OK) {
    p->failed = true;
    return false;
  }
  p->n++;
  p->at = at;
  p->id = id;
  return true;
}

static void begin_page(lua_State *L, struct page *p, void (*push)(lua_State *L, const void *row), int64_t limit) {
  *p = (struct page){.L = L, .push = push, .limit = limit};
  luaL_checkstack(L, 8, NULL);
  lua_createtable(L, limit < 16 ? (int)limit : 16, 0);
  np_json_mark_array(L, -1); /* an empty page is [] */
}

/* What the reader gave: the rows, and the cursor where there are more. */
static int end_page(lua_State *L, const struct page *p, const char *verb, int result, const struct np_error *err) {
  if (p->failed) return lua_error(L);
  if (result < 0) return luaL_error(L, "plugin.data:%s: %s", verb, err->text);
  if (!p->more) return 1;
  char cursor[48];
  snprintf(cursor, sizeof cursor, "%lld.%lld", (long long)p->at, (long long)p->id);
  lua_pushstring(L, cursor);
  return 2;
}

static void push_device(lua_State *L, const void *row) { np_push_device(L, row); }
static void push_reading(lua_State *L, const void *row) { np_push_reading(L, row); }
static void push_event(lua_State *L, const void *row) { np_push_event(L, row); }
static bool add_device(void *arg, const struct np_device *d) { return add_row(arg, d, 0, d->id); }
static bool add_reading(void *arg, const struct np_reading *r) { return add_row(arg, r, r->at, r->seq); }
static bool add_event(void *arg, const struct np_event *e) { return add_row(arg, e, e->at, e->id); }

/* Methods. */

/* @class neap.DeviceFilter: which devices plugin.data:devices gives.
 * @field device? string|string[]
 * @field vendor? string
 * @field connection? string
 * @field name? string
 * @field name_has? string a part of the name
 * @field owner? string
 * @field place? string
 * @field model? string
 * @field status? string|string[]
 * @field except_status? string|string[]
 * @field after? integer an id
 * @field limit? integer 1 to 1000
 */
/* plugin.data:devices{ device, vendor, connection, name, name_has, owner, place, model, status, except_status, after = id, limit = 100 } -> devices, by id.
 * A device has id, vendor, connection, device, first_seen, last_seen, and where they are known serial, model, name, owner, place, tags (its vendor's), status, online, extra.
 * `device`, `status` and `except_status` are a string or a list; name_has is a part of the name; the next page goes on `after` the last id; limit is 1 to 1000.
 * @param filter neap.DeviceFilter
 * @return neap.Device[]
 */
static int data_devices(lua_State *L) {
  struct np_reader *r = reading(L, "devices");
  struct asked a = {.verb = "devices", .limit_max = DEVICES_MAX};
  struct np_error err;
  struct page p;
  read_filter(L, FILTER, &a, device_fields, COUNT(device_fields));
  begin_page(L, &p, push_device, a.limit);
  return end_page(L, &p, a.verb, np_reader_find_devices(r, &a.devices, (int)a.limit, add_device, &p, &err), &err);
}

/* The device at index 2 and the vendor at 3, which may be nil. */
static struct np_text named_device(lua_State *L, struct asked *a, struct np_text *vendor) {
  lua_settop(L, 3);
  struct np_text device = text_at(L, 2, a, "the device");
  if (!lua_isnil(L, 3)) *vendor = text_at(L, 3, a, "the vendor");
  return device;
}

/* plugin.data:device(device [, vendor]) -> the device, or nil.
 * @param device string
 * @param vendor? string
 * @return neap.Device? device
 */
static int data_device(lua_State *L) {
  struct np_reader *r = reading(L, "device");
  struct asked a = {.verb = "device"};
  struct np_text device = named_device(L, &a, &a.devices.vendor);
  struct np_error err;
  struct page p;
  a.devices.scope = np_data_scope(L);
  a.devices.devices = (struct np_texts){&device, 1};
  begin_page(L, &p, push_device, 1);
  end_page(L, &p, a.verb, np_reader_find_devices(r, &a.devices, 1, add_device, &p, &err), &err);
  lua_rawgeti(L, 4, 1);
  return 1;
}

/* @class neap.ReadingFilter: which readings plugin.data:readings gives.
 * @field device string|string[]
 * @field vendor? string
 * @field metric? string|string[]
 * @field from? integer ms
 * @field to? integer ms
 * @field order? "asc"|"desc"
 * @field after? string a cursor
 * @field limit? integer 1 to 10000
 */
/* plugin.data:readings{ device, vendor, metric, from = ms, to = ms, order = "desc", after = cursor, limit = 100 } -> readings, cursor. `device` has to be there;
 * it and metric are a string or a list. In the order of `at`, newest first unless order is "asc"; from and to are included; limit is 1 to 10000. The
 * cursor, a string for the next page's `after`, is nil where there are no more; one that is none gives nil, why, "cursor". A page costs what it gives,
 * wherever it stands, and pages stay what they are while readings come in.
 * @param filter neap.ReadingFilter
 * @return neap.Reading[]? page, string? cursor, string? code
 */
static int data_readings(lua_State *L) {
  struct np_reader *r = reading(L, "readings");
  struct asked a = {.verb = "readings", .limit_max = ROWS_MAX};
  struct np_error err;
  struct page p;
  read_filter(L, FILTER, &a, reading_fields, COUNT(reading_fields));
  need_device(L, &a);
  if (a.bad_cursor) return refuse_cursor(L);
  begin_page(L, &p, push_reading, a.limit);
  return end_page(L, &p, a.verb, np_reader_find_readings(r, &a.rows, (int)a.limit + 1, add_reading, &p, &err), &err);
}

/* plugin.data:latest(device [, vendor]) -> each metric's newest reading (by `at`), newest first.
 * @param device string
 * @param vendor? string
 * @return neap.Reading[]
 */
static int data_latest(lua_State *L) {
  struct np_reader *r = reading(L, "latest");
  struct asked a = {.verb = "latest"};
  struct np_text device = named_device(L, &a, &a.rows.vendor);
  struct np_error err;
  struct page p;
  a.rows.scope = np_data_scope(L);
  a.rows.devices = (struct np_texts){&device, 1};
  begin_page(L, &p, push_reading, INT32_MAX);
  return end_page(L, &p, a.verb, np_reader_latest(r, &a.rows, add_reading, &p, &err), &err);
}

/* @class neap.EventFilter: which events plugin.data:events gives.
 * @field device? string|string[]
 * @field vendor? string
 * @field type? string|string[]
 * @field from? integer ms
 * @field to? integer ms
 * @field order? "asc"|"desc"
 * @field after? string a cursor
 * @field limit? integer
 */
/* plugin.data:events{ device, vendor, type, from = ms, to = ms, order = "desc", after = cursor, limit = 100 } -> events, cursor. As readings are asked for, but `device` may
 * be left out. An event has id, device, vendor, connection, type, at, received, and where they are known key and data.
 * @param filter neap.EventFilter
 * @return neap.Event[]? page, string? cursor, string? code
 */
static int data_events(lua_State *L) {
  struct np_reader *r = reading(L, "events");
  struct asked a = {.verb = "events", .limit_max = ROWS_MAX};
  struct np_error err;
  struct page p;
  read_filter(L, FILTER, &a, event_fields, COUNT(event_fields));
  if (a.bad_cursor) return refuse_cursor(L);
  begin_page(L, &p, push_event, a.limit);
  return end_page(L, &p, a.verb, np_reader_find_events(r, &a.rows, (int)a.limit + 1, add_event, &p, &err), &err);
}

/* plugin.data:count(what, filter) -> how many; what is "devices", "readings" or "events", and the filter is theirs; after, order and limit do not matter.
 * Readings are counted at some 20 million a second, on the lane: not for every request where a device has that many.
 * @param what "devices"|"readings"|"events"
 * @param filter table
 * @return integer
 */
static int data_count(lua_State *L) {
  static const char *const what[] = {"devices", "readings", "events"};
  struct np_reader *r = reading(L, "count");
  struct asked a = {.verb = "count", .limit_max = ROWS_MAX};
  struct np_error err;
  int64_t n;
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  lua_settop(L, 3);
  if (strcmp(name, what[0]) == 0) {
    read_filter(L, 3, &a, device_fields, COUNT(device_fields));
    n = np_reader_count_devices(r, &a.devices, &err);
  } else if (strcmp(name, what[1]) == 0) {
    read_filter(L, 3, &a, reading_fields, COUNT(reading_fields));
    need_device(L, &a);
    n = np_reader_count_readings(r, &a.rows, &err);
  } else if (strcmp(name, what[2]) == 0) {
    read_filter(L, 3, &a, event_fields, COUNT(event_fields));
    n = np_reader_count_events(r, &a.rows, &err);
  } else {
    const char *near = np_near(name, strlen(name), what, 3);
    return luaL_error(L, "plugin.data:count: expected \"devices\", \"readings\" or \"events\" first, got %s%s%s%s",
                      luaL_tolstring(L, 2, NULL), near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
  }
  if (n < 0) return luaL_error(L, "plugin.data:count: %s", err.text);
  lua_pushinteger(L, n);
  return 1;
}

/* plugin.data:connections() -> array of names: this connection, and those that it shows. Where that is "*": all connections that neap.lua has.
 * @return string[]
 */
static int data_connections(lua_State *L) {
  reading(L, "connections");
  const struct np_instance *in = (const struct np_instance *)np_env(L);
  const struct np_epoch *epoch = in->lane->epoch;
  lua_Integer n = 0;
  luaL_checkstack(L, 4, NULL);
  lua_newtable(L);
  np_json_mark_array(L, -1);
  for (size_t i = 0; !in->code->sees_all && i < in->code->see_count; i++) {
    lua_pushstring(L, in->code->sees[i]);
    lua_rawseti(L, -2, ++n);
  }
  for (size_t i = 0; in->code->sees_all && i < epoch->slot_count; i++) {
    if (epoch->slots[i].kind != NP_VENDOR) continue;
    lua_pushstring(L, epoch->slots[i].instance);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

int np_data_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"devices", data_devices}, {"device", data_device}, {"readings", data_readings},       {"latest", data_latest},
      {"events", data_events},   {"count", data_count},   {"connections", data_connections}, {NULL, NULL}};
  luaL_newlib(L, methods);
  return 1;
}
