/* The verbs that act. Arguments are checked before anything is added, so that a verb that raises has done nothing. */
#include "host/ledger.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/duration.h"
#include "host/data.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/ledger_parts.h"
#include "host/task.h"
#include "lib/json.h"

#define OPS_MAX 200000
#define BYTES_MAX ((size_t)128 << 20)
#define SECRET_LEAST                                                                                                               \
  6 /* bytes of a sealed text from which on it is masked: words such as "Bearer" are found in every line, but no secret is so short */

/* The call that runs now, if the verb belongs there and the set has room. */
struct np_task *np_acting(lua_State *L, const char *verb, unsigned modes, const char *instead) {
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  enum np_mode mode = t ? t->mode : NP_LOADING;
  bool belongs =
      modes & NP_IN(mode) && !(mode == NP_DELIVERING && t->in->code->kind != NP_VENDOR); /* a destination only delivers */
  if (!belongs) luaL_error(L, "plugin:%s does not belong in %s: %s", verb, np_mode_names[mode], instead);
  if (t->ws && (t->ws->count > OPS_MAX || t->ws->arena.total > BYTES_MAX))
    luaL_error(L, "plugin:%s: too much in one call: at most %d entries and %d MiB commit together", verb, OPS_MAX,
               (int)(BYTES_MAX >> 20));
  return t;
}

/* Reading tables: the value of the field just read is on top; errors name verb and field. */

static struct np_text text_field(lua_State *L, struct np_writeset *ws, const char *verb, const char *field) {
  size_t len;
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "plugin:%s: %s has to be a string, got a %s", verb, field, luaL_typename(L, -1));
  const char *s = lua_tolstring(L, -1, &len);
  if (len > 4096) luaL_error(L, "plugin:%s: %s is longer than 4096 bytes", verb, field);
  if (memchr(s, 0, len)) luaL_error(L, "plugin:%s: %s holds a zero byte", verb, field);
  return np_writeset_text(ws, s, len);
}

static int64_t time_field(lua_State *L, const char *verb, const char *field) {
  int exact;
  lua_Integer ms = lua_tointegerx(L, -1, &exact);
  if (!exact || lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "plugin:%s: %s has to be an integer of ms since 1970, got %s", verb, field, luaL_tolstring(L, -1, NULL));
  if (ms < -62135596800000 || ms > 253402300799999) luaL_error(L, "plugin:%s: %s is outside the years 1 to 9999", verb, field);
  return ms;
}

static int64_t integer_field(lua_State *L, const char *verb, const char *field) {
  int exact;
  lua_Integer i = lua_tointegerx(L, -1, &exact);
  if (!exact || lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "plugin:%s: %s has to be an integer, got %s", verb, field, luaL_tolstring(L, -1, NULL));
  return i;
}

/* ms of a duration at idx: "15m" or seconds. */
static int64_t duration_at(lua_State *L, int idx, const char *verb, const char *what) {
  idx = lua_absindex(L, idx);
  int64_t ms = -1;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    lua_Number s = lua_tonumber(L, idx);
    if (s >= 0 && s < 3.2e9) ms = (int64_t)(s * 1000 + 0.5);
  } else if (lua_type(L, idx) == LUA_TSTRING) {
    size_t len;
    const char *s = lua_tolstring(L, idx, &len);
    if (np_duration_parse(s, len, &ms) < 0) ms = -1;
  }
  if (ms < 0)
    luaL_error(L, "plugin:%s: %s has to be a duration such as \"15m\" or a number of seconds, got %s", verb, what,
               luaL_tolstring(L, idx, NULL));
  return ms;
}

static struct np_text json_field(lua_State *L, struct np_writeset *ws, const char *verb, const char *field) {
  struct np_error err;
  size_t len;
  if (lua_type(L, -1) != LUA_TTABLE) luaL_error(L, "plugin:%s: %s has to be a table, got a %s", verb, field, luaL_typename(L, -1));
  if (np_json_encode(L, -1, &err) < 0) luaL_error(L, "plugin:%s: %s %s", verb, field, err.text);
  const char *s = lua_tolstring(L, -1, &len);
  struct np_text text = np_writeset_text(ws, s, len);
  lua_pop(L, 1);
  return text;
}

static struct np_value value_field(lua_State *L, struct np_writeset *ws, const char *verb) {
  struct np_value v = {0};
  switch (lua_type(L, -1)) {
  case LUA_TNUMBER:
    if (lua_isinteger(L, -1)) {
      v.type = NP_NUMBER_INT;
      v.i = lua_tointeger(L, -1);
    } else {
      v.type = NP_NUMBER_REAL;
      v.d = lua_tonumber(L, -1);
      if (!isfinite(v.d)) luaL_error(L, "plugin:%s: value has to be finite", verb);
    }
    return v;
  case LUA_TBOOLEAN:
    v.type = NP_BOOL;
    v.i = lua_toboolean(L, -1);
    return v;
  case LUA_TSTRING:
    v.type = NP_STRING;
    v.s = text_field(L, ws, verb, "value");
    return v;
  default:
    luaL_error(L, "plugin:%s: value has to be a number, a string or a boolean, got a %s", verb, luaL_typename(L, -1));
    return v;
  }
}

static int name_field(lua_State *L, const char *verb, const char *field, const char *const *names, int n) {
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  for (int i = 0; i < n; i++)
    if (names[i] && strcmp(names[i], s) == 0) return i;
  return luaL_error(L, "plugin:%s: %s: unknown \"%s\"", verb, field, s);
}

static void unknown_field(lua_State *L, const char *verb) {
  lua_pushvalue(L, -2);
  luaL_error(L, "plugin:%s: unknown field \"%s\"", verb, luaL_tolstring(L, -1, NULL));
}

static const char *field_name(lua_State *L, const char *verb) {
  if (lua_type(L, -2) != LUA_TSTRING) unknown_field(L, verb);
  return lua_tostring(L, -2);
}

static void whose(lua_State *L, struct np_task *t, struct np_text *vendor, struct np_text *connection) {
  const struct np_code *code = ((struct np_instance *)np_env(L))->code;
  *vendor = np_writeset_text(t->ws, code->plugin, strlen(code->plugin));
  *connection = np_writeset_text(t->ws, code->instance, strlen(code->instance));
}

struct shown {
  struct np_writeset *ws;
  struct np_text connection;
  bool found;
};

static bool take_shown(void *arg, const struct np_device *d) {
  struct shown *s = arg;
  s->found = d->details;
  if (s->found) s->connection = np_writeset_text(s->ws, d->connection.ptr, d->connection.len);
  return false;
}

/* Whose a device is of which `vendor` was given: it has to be one of a connection that this one shows. Gives that connection. */
static void whose_shown(lua_State *L, struct np_task *t, const char *verb, const struct np_text *device, struct np_text *vendor,
                        struct np_text *connection) {
  struct np_device_filter f = {.scope = np_data_scope(L), .devices = {device, 1}, .vendor = *vendor};
  struct shown s = {.ws = t->ws};
  struct np_error err;
  if (np_reader_find_devices(t->in->lane->reader, &f, 1, take_shown, &s, &err) < 0) luaL_error(L, "plugin:%s: %s", verb, err.text);
  if (s.found)
    *connection = s.connection;
  else if (strcmp(vendor->ptr, t->in->code->plugin) == 0)
    whose(L, t, vendor, connection);
  else
    luaL_error(L,
               "plugin:%s: no device \"%s\" of vendor \"%s\" is known to a connection that this one shows: look with "
               "plugin.data:device first",
               verb, device->ptr, vendor->ptr);
}

static int64_t received_now(const struct np_task *t) { return t->received ? t->received : np_now_ms(); }

static void read_reading(lua_State *L, struct np_writeset *ws, struct np_reading *r, bool *has_at, bool *has_value) {
  const char *name = field_name(L, "emit");
  if (strcmp(name, "device") == 0)
    r->device = text_field(L, ws, "emit", name);
  else if (strcmp(name, "metric") == 0)
    r->metric = text_field(L, ws, "emit", name);
  else if (strcmp(name, "value") == 0)
    r->value = value_field(L, ws, "emit"), *has_value = true;
  else if (strcmp(name, "unit") == 0)
    r->unit = text_field(L, ws, "emit", name);
  else if (strcmp(name, "at") == 0)
    r->at = time_field(L, "emit", name), *has_at = true;
  else if (strcmp(name, "key") == 0)
    r->key = text_field(L, ws, "emit", name);
  else if (strcmp(name, "serial") == 0)
    r->serial = integer_field(L, "emit", name);
  else if (strcmp(name, "interval") == 0)
    r->interval = duration_at(L, -1, "emit", name);
  else if (strcmp(name, "trend") == 0)
    r->trend = name_field(L, "emit", name, np_trend_names, 6);
  else if (strcmp(name, "quality") == 0)
    r->quality = name_field(L, "emit", name, np_quality_names, 3);
  else if (strcmp(name, "extra") == 0)
    r->extra = json_field(L, ws, "emit", name);
  else
    unknown_field(L, "emit");
}

/* plugin:emit{ device, metric, value, unit, at = ms, key, serial, interval = duration, trend, quality, extra = {} }: a reading. device, metric
 * and value (a number, a string or a boolean) have to be there. unit is UCUM's; at is when it was measured, now where absent; key is the
 * vendor's own id of it; serial counts up by one, and a hole becomes an event "gap"; trend is flat, rising_slowly, falling_slowly, rising_fast or
 * falling_fast; quality is valid (the default), warmup or invalid; extra is kept as JSON. */
static int emit(lua_State *L) {
  struct np_task *t = np_acting(L, "emit", NP_IN_VENDORS, "readings come from a vendor plugin's handlers and jobs");
  luaL_checktype(L, 1, LUA_TTABLE);
  struct np_reading r = {.serial = INT64_MIN};
  bool has_at = false, has_value = false;
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) read_reading(L, t->ws, &r, &has_at, &has_value);
  if (!r.device.len) return luaL_error(L, "plugin:emit: device is missing");
  if (!r.metric.len) return luaL_error(L, "plugin:emit: metric is missing");
  if (!has_value) return luaL_error(L, "plugin:emit: value is missing");
  whose(L, t, &r.vendor, &r.connection);
  r.received = received_now(t);
  if (!has_at) r.at = r.received;
  r.partition = np_partition(r.device.ptr, r.device.len);
  np_writeset_add(t->ws, NP_OP_READING)->as.reading = r;
  return 0;
}

/* plugin:device{ device, serial, model, name, owner, place, status, online, at = ms, extra = {}, vendor }: what is known of a device. Absent fields keep
 * what is stored, "" clears a text; news older than what is stored change nothing. status is unbound, bound, warming, active or ended. With `vendor` it is
 * about a device of another vendor's connection, which this one shows (see plugin.data); the device stays that connection's. It raises where there is none.
 * Where two connections of a vendor tell of one device, its details are those of the one that told last, and nobody else's. */
static int device(lua_State *L) {
  static const char *const states[] = {"unbound", "bound", "warming", "active", "ended", ""};
  struct np_task *t = np_acting(L, "device", NP_IN_VENDORS, "what is known of devices comes from a vendor plugin");
  luaL_checktype(L, 1, LUA_TTABLE);
  struct np_op op = {.as.device = {.online = -1, .at = received_now(t)}};
  struct {
    const char *name;
    struct np_text *to;
  } texts[] = {{"device", &op.as.device.device}, {"serial", &op.as.device.serial}, {"model", &op.as.device.model},
               {"name", &op.as.device.name},     {"owner", &op.as.device.owner},   {"place", &op.as.device.place},
               {"vendor", &op.as.device.vendor}};
  enum { TEXTS = sizeof texts / sizeof *texts };
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    const char *name = field_name(L, "device");
    size_t i = 0;
    while (i < TEXTS && strcmp(texts[i].name, name) != 0) i++;
    if (i < TEXTS)
      *texts[i].to = text_field(L, t->ws, "device", name);
    else if (strcmp(name, "status") == 0)
      op.as.device.status.ptr = states[name_field(L, "device", name, states, 6)];
    else if (strcmp(name, "online") == 0)
      op.as.device.online = lua_toboolean(L, -1);
    else if (strcmp(name, "at") == 0)
      op.as.device.at = time_field(L, "device", name);
    else if (strcmp(name, "extra") == 0)
      op.as.device.extra = json_field(L, t->ws, "device", name);
    else
      unknown_field(L, "device");
  }
  if (!op.as.device.device.len) return luaL_error(L, "plugin:device: device is missing");
  if (op.as.device.status.ptr) op.as.device.status.len = strlen(op.as.device.status.ptr);
  if (op.as.device.vendor.ptr) {
    struct np_text connection; /* the row's stays as it is */
    whose_shown(L, t, "device", &op.as.device.device, &op.as.device.vendor, &connection);
    if (strcmp(connection.ptr, t->in->code->instance) == 0) op.as.device.connection = connection;
  } else {
    whose(L, t, &op.as.device.vendor, &op.as.device.connection);
  }
  struct np_op *added = np_writeset_add(t->ws, NP_OP_DEVICE);
  added->as.device = op.as.device;
  return 0;
}

/* plugin:event{ device, type, at = ms, key, data = {}, vendor }: something that happened to a device: online, offline, activated, reset, command, firmware,
 * restart, alarm, session_start, session_end, binding, gap. The same device, type, at and key again is the same event. With `vendor` it is of a device of
 * another vendor's connection, which this one shows, and counts as that connection's event. */
static int event(lua_State *L) {
  struct np_task *t = np_acting(L, "event", NP_IN_VENDORS, "events come from a vendor plugin");
  luaL_checktype(L, 1, LUA_TTABLE);
  struct np_op op = {.as.event = {.received = received_now(t)}};
  op.as.event.at = op.as.event.received;
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    const char *name = field_name(L, "event");
    if (strcmp(name, "device") == 0)
      op.as.event.device = text_field(L, t->ws, "event", name);
    else if (strcmp(name, "vendor") == 0)
      op.as.event.vendor = text_field(L, t->ws, "event", name);
    else if (strcmp(name, "type") == 0)
      op.as.event.type = text_field(L, t->ws, "event", name);
    else if (strcmp(name, "key") == 0)
      op.as.event.key = text_field(L, t->ws, "event", name);
    else if (strcmp(name, "at") == 0)
      op.as.event.at = time_field(L, "event", name);
    else if (strcmp(name, "data") == 0)
      op.as.event.data = json_field(L, t->ws, "event", name);
    else
      unknown_field(L, "event");
  }
  if (!op.as.event.device.len) return luaL_error(L, "plugin:event: device is missing");
  if (!op.as.event.type.len) return luaL_error(L, "plugin:event: type is missing");
  if (op.as.event.vendor.ptr)
    whose_shown(L, t, "event", &op.as.event.device, &op.as.event.vendor, &op.as.event.connection);
  else
    whose(L, t, &op.as.event.vendor, &op.as.event.connection);
  np_writeset_add(t->ws, NP_OP_EVENT)->as.event = op.as.event;
  return 0;
}

static struct np_text new_message_id(struct np_writeset *ws) {
  unsigned char raw[16];
  char text[40] = "msg_";
  if (getrandom(raw, sizeof raw, 0) != sizeof raw) abort();
  for (int i = 0; i < 16; i++) snprintf(text + 4 + 2 * i, 3, "%02x", raw[i]);
  return np_writeset_text(ws, text, 36);
}

/* plugin:send(destination, message): a table; its `device`, or else the reading's, is whose order it keeps. Returns the message's id. */
static int send(lua_State *L) {
  struct np_task *t = np_acting(L, "send", NP_IN_RULES, "messages are a rule's; a vendor plugin emits readings, and a rule sends");
  size_t len;
  const char *to = luaL_checklstring(L, 1, &len);
  luaL_checktype(L, 2, LUA_TTABLE);
  const struct np_slot *slot = np_epoch_slot(t->in->lane->epoch, to);
  if (!slot || !np_slot_takes_messages(slot)) return luaL_error(L, "plugin:send: no destination \"%s\" is configured", to);
  struct np_message m = {.created = np_now_ms(), .reading = t->reading ? t->reading->seq : 0};
  m.destination = np_writeset_text(t->ws, to, len);
  lua_settop(L, 2);
  if (lua_getfield(L, 2, "device") != LUA_TNIL)
    m.device = text_field(L, t->ws, "send", "device");
  else if (t->reading)
    m.device = np_writeset_text(t->ws, t->reading->device.ptr, t->reading->device.len);
  else
    m.device = np_writeset_text(t->ws, "", 0);
  lua_pop(L, 1);
  m.body = json_field(L, t->ws, "send", "the message");
  m.source = np_writeset_text(t->ws, t->in->code->instance, strlen(t->in->code->instance));
  m.id = new_message_id(t->ws);
  m.due = 0;
  lua_pushlstring(L, m.id.ptr, m.id.len);
  np_writeset_add(t->ws, NP_OP_SEND)->as.send = m;
  return 1;
}

/* plugin:arm(name, key, after): the timer is due once `after` has passed; false disarms it. Armed again, it is moved. Where the key is a device, it
 * fires only after all of that device's readings that were stored by then have met the rule. */
static int arm(lua_State *L) {
  struct np_task *t = np_acting(L, "arm", NP_IN_RULES, "timers are a rule's; a vendor plugin has plugin:every");
  size_t name_len, key_len;
  const char *name = luaL_checklstring(L, 1, &name_len), *key = luaL_checklstring(L, 2, &key_len);
  int64_t due = 0;
  if (key_len > 512) return luaL_error(L, "plugin:arm: the key is longer than 512 bytes");
  if (memchr(key, 0, key_len)) return luaL_error(L, "plugin:arm: the key holds a zero byte");
  if (lua_toboolean(L, 3))
    due = t->now + duration_at(L, 3, "arm", "the time");
  else if (lua_isnoneornil(L, 3))
    return luaL_error(L, "plugin:arm: after what time? Give a duration, or false to disarm");
  struct np_op *op = np_writeset_add(t->ws, NP_OP_ARM);
  op->as.arm.instance = np_writeset_text(t->ws, t->in->code->instance, strlen(t->in->code->instance));
  op->as.arm.name = np_writeset_text(t->ws, name, name_len);
  op->as.arm.key = np_writeset_text(t->ws, key, key_len);
  op->as.arm.due = due;
  return 0;
}

/* Key-value, with what this set has written on top. */

void np_overlay_free(struct np_overlay *o) {
  np_map_free(&o->puts, NULL);
  np_map_free(&o->seen, NULL);
}

void np_spot_find(lua_State *L, struct np_spot *s, const char *verb, const char *space, const char *key, size_t len) {
  size_t n = strlen(space);
  if (n + 514 > sizeof s->bytes) luaL_error(L, "%s: the plugin's name is too long", verb);
  if (len > 512) luaL_error(L, "%s: the key is longer than 512 bytes", verb);
  if (memchr(key, 0, len)) luaL_error(L, "%s: the key holds a zero byte", verb);
  memcpy(s->bytes, space, n + 1);
  s->space = n;
  memcpy(s->bytes + n + 1, key, len);
  s->len = n + 1 + len;
  s->bytes[s->len] = 0;
}

void np_spot_own(lua_State *L, struct np_spot *s, const char *kind, const char *key, size_t len) {
  char space[200];
  snprintf(space, sizeof space, "%s:%s", kind, np_env(L)->name);
  np_spot_find(L, s, "plugin.store", space, key, len);
}

void np_overlay_rebuild(struct np_overlay *o, const struct np_writeset *ws) {
  np_overlay_free(o);
  for (struct np_op *op = ws->first; op; op = op->next) {
    bool put = op->kind == NP_OP_PUT;
    if (!put && op->kind != NP_OP_SEEN) continue;
    const struct np_text *space = put ? &op->as.put.space : &op->as.seen.space, *key = put ? &op->as.put.key : &op->as.seen.key;
    char bytes[1300];
    if (space->len + key->len + 1 > sizeof bytes) continue; /* no verb makes such a key */
    memcpy(bytes, space->ptr, space->len + 1);
    memcpy(bytes + space->len + 1, key->ptr, key->len);
    np_map_put(put ? &o->puts : &o->seen, bytes, space->len + 1 + key->len, op);
  }
}

/* What a sealed value is sealed for: its place. */
static struct np_seal_context place(const struct np_spot *s) {
  return (struct np_seal_context){"kv", s->bytes, s->bytes + s->space + 1, s->len - s->space - 1};
}

void np_spot_put(struct np_task *t, const struct np_spot *s, const char *value, size_t len, int64_t expires, bool sealed) {
  struct np_op *op = np_writeset_add(t->ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(t->ws, s->bytes, s->space);
  op->as.put.key = np_writeset_text(t->ws, s->bytes + s->space + 1, s->len - s->space - 1);
  op->as.put.expires = expires;
  if (sealed && value) {
    struct np_seal_context c = place(s);
    char *bytes = np_arena_alloc(&t->ws->arena, len + NP_SEAL_MORE + 1);
    np_seal_put(t->in->lane->host->seal, &c, value, len, bytes);
    bytes[len + NP_SEAL_MORE] = 0;
    op->as.put.value = (struct np_text){bytes, len + NP_SEAL_MORE};
  } else {
    op->as.put.value = np_writeset_text(t->ws, value, len);
  }
  np_map_put(&t->overlay->puts, s->bytes, s->len, op);
}

/* What the store has under the key, or what this set has put there. */
static int get(lua_State *L, struct np_task *t, const struct np_spot *s, struct np_buf *value) {
  struct np_op *op = t->overlay ? np_map_get(&t->overlay->puts, s->bytes, s->len) : NULL;
  if (op) {
    if (!op->as.put.value.ptr) return 0;
    np_buf_add(value, op->as.put.value.ptr, op->as.put.value.len);
    return 1;
  }
  struct np_error err;
  int64_t version = 0, now = t->now ? t->now : np_now_ms();
  const char *key = s->bytes + s->space + 1;
  size_t key_len = s->len - s->space - 1;
  int found = np_reader_get(t->in->lane->reader, s->bytes, key, key_len, now, value, &version, &err);
  if (found < 0) return luaL_error(L, "plugin.store: %s", err.text);
  if (t->ws && !np_map_get(&t->overlay->seen, s->bytes, s->len)) {
    op = np_writeset_add(t->ws, NP_OP_SEEN);
    op->as.seen.space = np_writeset_text(t->ws, s->bytes, s->space);
    op->as.seen.key = np_writeset_text(t->ws, key, key_len);
    op->as.seen.version = version;
    np_map_put(&t->overlay->seen, s->bytes, s->len, op);
  }
  return found;
}

void np_spot_open(lua_State *L, struct np_task *t, const struct np_spot *s, struct np_buf *value) {
  struct np_error err;
  struct np_seal_context c = place(s);
  struct np_buf *sealed = np_box_new(L);
  *sealed = *value;
  *value = (struct np_buf){0};
  long n = np_seal_get(t->in->lane->host->seal, &c, sealed->data, sealed->len, np_buf_reserve(value, sealed->len), &err);
  if (n < 0) luaL_error(L, "plugin.store: %s: %s", s->bytes + s->space + 1, err.text);
  value->len = (size_t)n;
  value->data[n] = 0;
  lua_pop(L, 1);
}

int np_spot_get(lua_State *L, struct np_task *t, const struct np_spot *s, struct np_buf *value) {
  if (!get(L, t, s, value)) return 0;
  if (!np_seal_is(value->data, value->len)) return 1;
  np_spot_open(L, t, s, value);
  return 2;
}

/* Buffers that outlive a raise: a userdata with a finalizer. */
static int free_box(lua_State *L) {
  np_buf_free(lua_touserdata(L, 1));
  return 0;
}

struct np_buf *np_box_new(lua_State *L) {
  struct np_buf *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (struct np_buf){0};
  if (luaL_newmetatable(L, "neap.box")) {
    lua_pushcfunction(L, free_box);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return b;
}

struct masking {
  lua_State *L;
  struct np_task *t;
  size_t least;
  int left; /* values */
};

static void mask_top(struct masking *m, int depth) {
  lua_State *L = m->L;
  if (m->left-- <= 0) return;
  if (lua_type(L, -1) == LUA_TTABLE && depth < 16 && lua_checkstack(L, 4)) {
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) mask_top(m, depth + 1);
  } else if (lua_type(L, -1) == LUA_TSTRING || lua_type(L, -1) == LUA_TNUMBER) {
    size_t len;
    lua_pushvalue(L, -1); /* what it is in the table stays what it is */
    const char *s = lua_tolstring(L, -1, &len);
    if (len >= m->least) {
      struct np_mask *mask = np_arena_alloc(&m->t->arena, sizeof *mask);
      *mask = (struct np_mask){.next = m->t->people, .value = np_arena_copy(&m->t->arena, s, len), .len = len};
      m->t->people = mask;
    }
    lua_pop(L, 1);
  }
}

void np_mask_value(lua_State *L, struct np_task *t, int idx, size_t least) {
  struct masking m = {.L = L, .t = t, .least = least, .left = 256};
  lua_pushvalue(L, idx);
  mask_top(&m, 0);
  lua_pop(L, 1);
  np_mask_people(t->people);
}

#define STORE_MODES (NP_IN_VENDORS | NP_IN_RULES)
static const char *const store_instead = "use it in a vendor's handlers and jobs, and in rules";

bool np_spot_push(lua_State *L, struct np_task *t, const struct np_spot *s) {
  struct np_buf *b = np_box_new(L);
  struct np_error err;
  int found = np_spot_get(L, t, s, b);
  if (found && np_json_decode(L, b->data, b->len, &err) < 0)
    luaL_error(L, "plugin.store: %s: %s", s->bytes + s->space + 1, err.text);
  if (found == 2) np_mask_value(L, t, -1, SECRET_LEAST);
  lua_remove(L, found ? -2 : -1);
  return found;
}

/* plugin.store:get(key) -> value, or nil */
static int store_get(lua_State *L) {
  struct np_task *t = np_acting(L, "store", STORE_MODES, store_instead);
  size_t len;
  const char *key = luaL_checklstring(L, 2, &len);
  struct np_spot s;
  np_spot_own(L, &s, "plugin", key, len);
  if (!np_spot_push(L, t, &s)) lua_pushnil(L);
  return 1;
}

/* plugin.store:put(key, value [, lifetime [, "sealed"]]): any value that JSON can hold; nil deletes. It commits with the call. "sealed" keeps it
 * encrypted, and its texts out of the log of the call: for what has to be had back, such as a token. get opens it. */
static int store_put(lua_State *L) {
  struct np_task *t = np_acting(L, "store", STORE_MODES, store_instead);
  size_t len, value_len = 0;
  const char *key = luaL_checklstring(L, 2, &len), *value = NULL;
  struct np_spot s;
  np_spot_own(L, &s, "plugin", key, len);
  luaL_checkany(L, 3);
  bool sealed = !lua_isnoneornil(L, 5);
  if (sealed && strcmp(luaL_checkstring(L, 5), "sealed") != 0)
    return luaL_error(L, "plugin.store:put: after the lifetime only \"sealed\" can stand, got \"%s\"", lua_tostring(L, 5));
  if (sealed) np_mask_value(L, t, 3, SECRET_LEAST);
  int64_t now = t->now ? t->now : np_now_ms();
  int64_t expires = lua_isnoneornil(L, 4) ? 0 : now + duration_at(L, 4, "store", "the lifetime");
  if (!lua_isnil(L, 3)) {
    struct np_error err;
    if (np_json_encode(L, 3, &err) < 0) return luaL_error(L, "plugin.store: %s: %s", key, err.text);
    value = lua_tolstring(L, -1, &value_len);
  }
  np_spot_put(t, &s, value, value_len, expires, sealed);
  return 0;
}

/* plugin.store:delete(key): it commits with the call. */
static int store_delete(lua_State *L) {
  lua_settop(L, 2);
  lua_pushnil(L);
  return store_put(L);
}

/* plugin:throttle(key, time) -> true where this key has passed within that time; else false, and it counts as passed now. */
static int throttle(lua_State *L) {
  struct np_task *t = np_acting(L, "throttle", NP_IN_RULES, "it is for rules");
  size_t len;
  const char *key = luaL_checklstring(L, 1, &len);
  int64_t ms = duration_at(L, 2, "throttle", "the time");
  struct np_spot s;
  np_spot_own(L, &s, "throttle", key, len);
  struct np_buf *b = np_box_new(L);
  if (np_spot_get(L, t, &s, b)) {
    int64_t last = strtoll(np_buf_text(b), NULL, 10);
    /* a reading received before the last one that passed was in order then: it is inside the time as well */
    if (t->now < last + ms) {
      lua_pushboolean(L, 1);
      return 1;
    }
  }
  char now[24];
  int n = snprintf(now, sizeof now, "%lld", (long long)t->now);
  np_spot_put(t, &s, now, (size_t)n, t->now + ms, false);
  lua_pushboolean(L, 0);
  return 1;
}

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
  if (np_trend_names[r->trend]) {
    lua_pushstring(L, np_trend_names[r->trend]);
    lua_setfield(L, -2, "trend");
  }
  struct np_error err;
  if (r->extra.ptr && np_json_decode(L, r->extra.ptr, r->extra.len, &err) == 0) lua_setfield(L, -2, "extra");
}

struct history {
  lua_State *L;
  int64_t newest; /* seq */
  lua_Integer n, limit;
  bool failed;
};

static int push_one(lua_State *L) {
  np_push_reading(L, lua_touserdata(L, 1));
  return 1;
}

/* Protected, for a raise may not cross the reader that calls this. */
static bool add_to_history(void *arg, const struct np_reading *r) {
  struct history *h = arg;
  if (r->seq > h->newest) return true;
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
  if (lua_getfield(L, 3, field) != LUA_TNIL) otherwise = time_field(L, "history", field);
  lua_pop(L, 1);
  return otherwise;
}

/* plugin:history(device, metric, { last = "1h" | from = ms, to = ms, limit = 100 }) -> readings, newest first. In a rule: as they were
 * when its reading had just been stored, so that the same readings give the same messages. In a vendor's call: of what plugin.data shows it. */
static int history(lua_State *L) {
  struct np_task *t = np_acting(L, "history", STORE_MODES, "use it in rules and in a vendor's handlers and jobs");
  const char *dev = luaL_checkstring(L, 1), *metric = luaL_checkstring(L, 2);
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) {
    lua_newtable(L);
    lua_replace(L, 3);
  }
  luaL_checktype(L, 3, LUA_TTABLE);
  int64_t now = t->now ? t->now : np_now_ms(), from = INT64_MIN, to = INT64_MAX;
  if (t->reading) now = t->reading->at, to = now;
  if (lua_getfield(L, 3, "last") != LUA_TNIL) from = now - duration_at(L, -1, "history", "last");
  lua_pop(L, 1);
  from = optional_time(L, "from", from);
  to = optional_time(L, "to", to);
  lua_Integer limit = 100;
  if (lua_getfield(L, 3, "limit") != LUA_TNIL) limit = integer_field(L, "history", "limit");
  lua_pop(L, 1);
  if (limit < 1 || limit > 10000) return luaL_error(L, "plugin:history: limit has to be from 1 to 10000");
  luaL_checkstack(L, 8, NULL);
  lua_createtable(L, (int)limit, 0);
  struct history h = {.L = L, .newest = t->reading ? t->reading->seq : INT64_MAX, .limit = limit};
  struct np_error err;
  struct np_reader *r = t->in->lane->reader;
  int done;
  if (NP_IN(t->mode) & NP_IN_RULES) {
    const char *vendor = t->reading ? t->reading->vendor.ptr : NULL;
    int more = t->reading ? 1000 : 0; /* later arrivals with an earlier `at` are passed over */
    done = np_reader_history(r, vendor, dev, metric, from, to, (int)limit + more, add_to_history, &h, &err);
  } else {
    const struct np_text device = {dev, strlen(dev)}, kind = {metric, strlen(metric)};
    const struct np_row_filter f = {
        .scope = np_data_scope(L), .devices = {&device, 1}, .kinds = {&kind, 1}, .from = from, .to = to};
    done = np_reader_find_readings(r, &f, (int)limit, add_to_history, &h, &err);
  }
  if (done < 0) return luaL_error(L, "plugin:history: %s", err.text);
  if (h.failed) return lua_error(L);
  return 1;
}

/* plugin:log(text [, fields]): a line of the log; the same as log.info. */
static int log_line(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "neap.log");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "info");
  lua_insert(L, 1);
  lua_pop(L, 1);
  lua_call(L, lua_gettop(L) - 1, 0);
  return 0;
}

int np_ledger_open(lua_State *L) {
  static const luaL_Reg verbs[] = {{"emit", emit},         {"device", device},   {"event", event},  {"send", send}, {"arm", arm},
                                   {"throttle", throttle}, {"history", history}, {"log", log_line}, {NULL, NULL}};
  static const luaL_Reg store[] = {
      {"get", store_get}, {"put", store_put}, {"delete", store_delete}, {"list", np_store_list}, {NULL, NULL}};
  luaL_newlib(L, verbs);
  luaL_newlib(L, store);
  lua_setfield(L, -2, "store");
  np_people_open(L);
  lua_setfield(L, -2, "people");
  return 1;
}
