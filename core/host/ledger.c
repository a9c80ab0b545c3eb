/* The verbs that act. Arguments are checked before anything is added, so that a verb that raises has done nothing. Each is called as a method of the
 * handle, which is at 1, by the plugin itself: so that luaL_error names the plugin's own line, and counts arguments as its author does. */
#include "host/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/random.h"
#include "host/ack.h"
#include "host/data.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/ledger_parts.h"
#include "host/tags.h"
#include "host/task.h"
#include "lib/modules.h"

#define OPS_MAX 200000
#define BYTES_MAX ((size_t)128 << 20)

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

struct taking {
  struct np_reading *r;
  bool derived, has_value;
  unsigned says;
};

static void read_reading(lua_State *L, struct np_writeset *ws, struct taking *t) {
  struct np_reading *r = t->r;
  const char *name = np_field_name(L, "emit");
  if (strcmp(name, "device") == 0)
    r->device = np_field_text(L, ws, "emit", name);
  else if (strcmp(name, "metric") == 0)
    r->metric = np_field_text(L, ws, "emit", name);
  else if (strcmp(name, "value") == 0)
    r->value = np_field_value(L, ws, "emit"), t->has_value = true;
  else if (strcmp(name, "unit") == 0)
    r->unit = np_field_text(L, ws, "emit", name);
  else if (strcmp(name, "at") == 0)
    r->at = np_field_time(L, "emit", name), t->says |= NP_SAYS_AT;
  else if (strcmp(name, "key") == 0)
    r->key = np_field_text(L, ws, "emit", name);
  else if (t->derived && strcmp(name, "vendor") == 0)
    r->vendor = np_field_text(L, ws, "emit", name);
  else if (t->derived && strcmp(name, "serial") == 0)
    luaL_error(L, "plugin:emit: a rule gives no serial: it counts what a vendor sends, and a hole in it would be told as a gap");
  else if (strcmp(name, "serial") == 0)
    r->serial = np_field_integer(L, "emit", name);
  else if (strcmp(name, "interval") == 0)
    r->interval = np_field_duration(L, -1, "emit", name);
  else if (strcmp(name, "trend") == 0)
    r->trend = np_field_word(L, "emit", name, np_trend_names, 6);
  else if (strcmp(name, "quality") == 0)
    r->quality = np_field_word(L, "emit", name, np_quality_names, 3), t->says |= NP_SAYS_QUALITY;
  else if (strcmp(name, "extra") == 0)
    r->extra = np_field_json(L, ws, "emit", name);
  else
    np_field_unknown(L, "emit");
}

unsigned np_take_reading(lua_State *L, int idx, struct np_writeset *ws, struct np_reading *r, bool derived) {
  struct taking t = {.r = r, .derived = derived};
  idx = lua_absindex(L, idx);
  *r = (struct np_reading){.serial = INT64_MIN};
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) read_reading(L, ws, &t);
  if (!r->device.len && !derived) luaL_error(L, "plugin:emit: device is missing");
  if (!r->metric.len) luaL_error(L, "plugin:emit: metric is missing");
  if (!t.has_value) luaL_error(L, "plugin:emit: value is missing");
  return t.says;
}

/* @class neap.Emitted: what plugin:emit takes.
 * @field device? string a rule's is its reading's where absent, or its timer's key
 * @field metric string
 * @field value number|string|boolean
 * @field unit? string UCUM's
 * @field at? integer ms, when it was measured; now where absent, of a rule its reading's
 * @field key? string the vendor's own id of it
 * @field vendor? string in a rule alone: whose device it is; its reading's where absent
 * @field serial? integer counts up by one; in a vendor's plugin alone
 * @field interval? string|number how far apart readings are, a duration
 * @field trend? "flat"|"rising_slowly"|"falling_slowly"|"rising_fast"|"falling_fast"
 * @field quality? "valid"|"warmup"|"invalid" valid where absent, of a rule its reading's
 * @field extra? table kept as JSON
 */
/* plugin:emit{ device, metric, value, unit, at = ms, key, serial, interval = duration, trend, quality, extra = {} }: a reading. device, metric
 * and value (a number, a string or a boolean) have to be there. unit is UCUM's; at is when it was measured, now where absent; key is the
 * vendor's own id of it; serial counts up by one, and a hole becomes an event "gap"; trend is flat, rising_slowly, falling_slowly, rising_fast or
 * falling_fast; quality is valid (the default), warmup or invalid; extra is kept as JSON.
 * In a rule: a derived reading, of a metric that plugin:derives names, by the connection of the rule's own name. device, vendor, at and quality
 * are its reading's where absent; a timer's device is its key, and has to be known. Its key is made of what led to it. It meets rules once it is committed.
 * @param reading neap.Emitted
 */
static int emit(lua_State *L) {
  struct np_task *t =
      np_acting(L, "emit", NP_IN_VENDORS | NP_IN_RULES, "readings come from a vendor plugin's handlers and jobs, and from rules");
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  if (NP_IN(t->mode) & NP_IN_RULES) return np_derive(L, t);
  struct np_reading r;
  bool has_at = np_take_reading(L, 2, t->ws, &r, false) & NP_SAYS_AT;
  whose(L, t, &r.vendor, &r.connection);
  r.received = received_now(t);
  if (!has_at) r.at = r.received;
  r.partition = np_partition(r.device.ptr, r.device.len);
  np_limit_emit(L, t, "emit");
  np_writeset_add(t->ws, NP_OP_READING)->as.reading = r;
  return 0;
}

void np_take_device(lua_State *L, int idx, struct np_writeset *ws, struct np_op *op) {
  static const char *const states[] = {"unbound", "bound", "warming", "active", "ended", ""};
  struct {
    const char *name;
    struct np_text *to;
  } texts[] = {{"device", &op->as.device.device}, {"serial", &op->as.device.serial}, {"model", &op->as.device.model},
               {"name", &op->as.device.name},     {"owner", &op->as.device.owner},   {"place", &op->as.device.place},
               {"vendor", &op->as.device.vendor}};
  enum { TEXTS = sizeof texts / sizeof *texts };
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    const char *name = np_field_name(L, "device");
    size_t i = 0;
    while (i < TEXTS && strcmp(texts[i].name, name) != 0) i++;
    if (i < TEXTS)
      *texts[i].to = np_field_text(L, ws, "device", name);
    else if (strcmp(name, "status") == 0)
      op->as.device.status.ptr = states[np_field_word(L, "device", name, states, 6)];
    else if (strcmp(name, "online") == 0)
      op->as.device.online = lua_toboolean(L, -1);
    else if (strcmp(name, "at") == 0)
      op->as.device.at = np_field_time(L, "device", name);
    else if (strcmp(name, "extra") == 0)
      op->as.device.extra = np_field_json(L, ws, "device", name);
    else if (strcmp(name, "tags") == 0)
      op->as.device.tags = np_tags_field(L, ws);
    else
      np_field_unknown(L, "device");
  }
  if (!op->as.device.device.len) luaL_error(L, "plugin:device: device is missing");
  if (op->as.device.status.ptr) op->as.device.status.len = strlen(op->as.device.status.ptr);
}

/* @class neap.DeviceNews: what plugin:device takes.
 * @field device string
 * @field serial? string
 * @field model? string
 * @field name? string
 * @field owner? string a reference of plugin.people
 * @field place? string
 * @field tags? string[] words that rules can match; {} takes all away
 * @field status? "unbound"|"bound"|"warming"|"active"|"ended"
 * @field online? boolean
 * @field at? integer ms, when it was so; now where absent
 * @field extra? table kept as JSON
 * @field vendor? string of the connection that is shown, whose device it is
 */
/* plugin:device{ device, serial, model, name, owner, place, tags = {"icu", …}, status, online, at = ms, extra = {}, vendor }: what is known of a device. Absent
 * fields keep what is stored, "" clears a text, {} the tags; news older than what is stored change nothing. status is unbound, bound, warming, active or ended. With `vendor` it is
 * about a device of another vendor's connection, which this one shows (see plugin.data); the device stays that connection's. It raises where there is none.
 * Where two connections of a vendor tell of one device, its details are those of the one that told last, and nobody else's.
 * @param news neap.DeviceNews
 */
static int device(lua_State *L) {
  struct np_task *t = np_acting(L, "device", NP_IN_VENDORS, "what is known of devices comes from a vendor plugin");
  luaL_checktype(L, 2, LUA_TTABLE);
  struct np_op op = {.as.device = {.online = -1, .at = received_now(t)}};
  lua_settop(L, 2);
  np_take_device(L, 2, t->ws, &op);
  if (op.as.device.vendor.ptr) {
    struct np_text connection; /* the row's stays as it is */
    whose_shown(L, t, "device", &op.as.device.device, &op.as.device.vendor, &connection);
    if (strcmp(connection.ptr, t->in->code->instance) == 0) op.as.device.connection = connection;
  } else {
    whose(L, t, &op.as.device.vendor, &op.as.device.connection);
  }
  np_limit_emit(L, t, "device");
  struct np_op *added = np_writeset_add(t->ws, NP_OP_DEVICE);
  added->as.device = op.as.device;
  return 0;
}

/* @class neap.EventNews: what plugin:event takes.
 * @field device string
 * @field type string
 * @field at? integer ms
 * @field key? string|integer
 * @field data? table kept as JSON
 * @field vendor? string of the connection that is shown, whose device it is
 */
/* plugin:event{ device, type, at = ms, key, data = {}, vendor }: something that happened to a device: online, offline, activated, reset, command, firmware,
 * restart, alarm, session_start, session_end, binding, gap. The same device, type, at and key again is the same event. With `vendor` it is of a device of
 * another vendor's connection, which this one shows, and counts as that connection's event.
 * @param event neap.EventNews
 */
static int event(lua_State *L) {
  struct np_task *t = np_acting(L, "event", NP_IN_VENDORS, "events come from a vendor plugin");
  luaL_checktype(L, 2, LUA_TTABLE);
  struct np_op op = {.as.event = {.received = received_now(t)}};
  op.as.event.at = op.as.event.received;
  lua_settop(L, 2);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    const char *name = np_field_name(L, "event");
    if (strcmp(name, "device") == 0)
      op.as.event.device = np_field_text(L, t->ws, "event", name);
    else if (strcmp(name, "vendor") == 0)
      op.as.event.vendor = np_field_text(L, t->ws, "event", name);
    else if (strcmp(name, "type") == 0)
      op.as.event.type = np_field_text(L, t->ws, "event", name);
    else if (strcmp(name, "key") == 0)
      op.as.event.key = np_field_text(L, t->ws, "event", name);
    else if (strcmp(name, "at") == 0)
      op.as.event.at = np_field_time(L, "event", name);
    else if (strcmp(name, "data") == 0)
      op.as.event.data = np_field_json(L, t->ws, "event", name);
    else
      np_field_unknown(L, "event");
  }
  if (!op.as.event.device.len) return luaL_error(L, "plugin:event: device is missing");
  if (!op.as.event.type.len) return luaL_error(L, "plugin:event: type is missing");
  if (op.as.event.vendor.ptr)
    whose_shown(L, t, "event", &op.as.event.device, &op.as.event.vendor, &op.as.event.connection);
  else
    whose(L, t, &op.as.event.vendor, &op.as.event.connection);
  np_limit_emit(L, t, "event");
  np_writeset_add(t->ws, NP_OP_EVENT)->as.event = op.as.event;
  return 0;
}

/* They rise with time, so that the store's index of them is written where it was written last. */
struct np_text np_message_id(struct np_writeset *ws) {
  unsigned char raw[16];
  char text[40] = "msg_";
  np_random(raw, sizeof raw);
  int64_t now = np_now_ms();
  for (int i = 0; i < 6; i++) raw[i] = (unsigned char)(now >> (40 - 8 * i));
  for (int i = 0; i < 16; i++) snprintf(text + 4 + 2 * i, 3, "%02x", raw[i]);
  return np_writeset_text(ws, text, 36);
}

/* A message's life counts from the rule's present, which is when the reading came: what a rule catches up with may be born dead. */
static void read_options(lua_State *L, int idx, const struct np_task *t, const struct np_slot *to, struct np_message *m) {
  int64_t ms = to->code ? to->code->terms.expires : 0;
  if (!lua_isnoneornil(L, idx)) luaL_checktype(L, idx, LUA_TTABLE);
  for (lua_pushnil(L); lua_istable(L, idx) && lua_next(L, idx); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "[1]";
    if (strcmp(name, "acknowledge") == 0 && lua_isboolean(L, -1)) {
      m->asks = lua_toboolean(L, -1);
      continue;
    }
    if (strcmp(name, "acknowledge") == 0)
      luaL_error(L, "plugin:send: acknowledge has to be true or false, got a %s", luaL_typename(L, -1));
    if (strcmp(name, "expires") != 0) luaL_error(L, "plugin:send: unknown option \"%s\"; there are: expires, acknowledge", name);
    ms = np_field_duration(L, -1, "send", name);
    if (!ms) luaL_error(L, "plugin:send: expires has to be longer than nothing");
  }
  m->expires = ms ? t->now + ms : 0;
}

/* plugin:send(destination, message [, { expires = "30m", acknowledge = true }]): a table; its `device`, or else the reading's, is whose order it keeps.
 * Returns the message's id. One that has not arrived when it expires is a dead letter, and is not sent. One that is to be acknowledged is listed by
 * `neap ack list` until somebody has.
 * @param destination string
 * @param message table
 * @param options? { expires?: string|number, acknowledge?: boolean }
 * @return string id
 */
static int send(lua_State *L) {
  struct np_task *t = np_acting(L, "send", NP_IN_RULES, "messages are a rule's; a vendor plugin emits readings, and a rule sends");
  size_t len;
  const char *to = luaL_checklstring(L, 2, &len);
  luaL_checktype(L, 3, LUA_TTABLE);
  const struct np_slot *slot = np_epoch_slot(t->in->lane->epoch, to);
  if (!slot || !np_slot_takes_messages(slot)) return luaL_error(L, "plugin:send: no destination \"%s\" is configured", to);
  struct np_message m = {.created = np_now_ms(), .about = t->now, .reading = t->reading ? t->reading->seq : 0};
  m.destination = np_writeset_text(t->ws, to, len);
  lua_settop(L, 4);
  read_options(L, 4, t, slot, &m);
  lua_settop(L, 3);
  if (lua_getfield(L, 3, "device") != LUA_TNIL)
    m.device = np_field_text(L, t->ws, "send", "device");
  else if (t->reading)
    m.device = np_writeset_text(t->ws, t->reading->device.ptr, t->reading->device.len);
  else
    m.device = np_writeset_text(t->ws, "", 0);
  lua_pop(L, 1);
  m.body = np_field_json(L, t->ws, "send", "the message");
  m.source = np_writeset_text(t->ws, t->in->code->instance, strlen(t->in->code->instance));
  m.generation = t->in->code->number;
  m.id = np_message_id(t->ws);
  m.due = 0;
  np_limit_emit(L, t, "send");
  lua_pushlstring(L, m.id.ptr, m.id.len);
  np_writeset_add(t->ws, NP_OP_SEND)->as.send = m;
  return 1;
}

static bool has_timer(const struct np_code *code, const char *name) {
  for (size_t i = 0; i < code->timer_count; i++)
    if (strcmp(code->timers[i].name, name) == 0) return true;
  return false;
}

/* plugin:arm(name, key, after): the timer is due once `after` has passed; false disarms it. Armed again, it is moved. Where the key is a device, it
 * fires only after all of that device's readings that were stored by then have met the rule.
 * @param name string of a plugin:timer in this file
 * @param key string
 * @param after string|number|false a duration, or false
 */
static int arm(lua_State *L) {
  struct np_task *t = np_acting(L, "arm", NP_IN_RULES, "timers are a rule's; a vendor plugin has plugin:every");
  size_t name_len, key_len;
  const char *name = luaL_checklstring(L, 2, &name_len), *key = luaL_checklstring(L, 3, &key_len);
  int64_t due = 0;
  if (!has_timer(t->in->code, name)) return luaL_error(L, "plugin:arm: no plugin:timer(\"%s\", …) in this file", name);
  if (key_len > 512) return luaL_error(L, "plugin:arm: the key is longer than 512 bytes");
  if (memchr(key, 0, key_len)) return luaL_error(L, "plugin:arm: the key holds a zero byte");
  if (lua_toboolean(L, 4))
    due = t->now + np_field_duration(L, 4, "arm", "the time");
  else if (lua_isnoneornil(L, 4))
    return luaL_error(L, "plugin:arm: after what time? Give a duration, or false to disarm");
  struct np_op *op = np_writeset_add(t->ws, NP_OP_ARM);
  op->as.arm.instance = np_writeset_text(t->ws, t->in->code->instance, strlen(t->in->code->instance));
  op->as.arm.name = np_writeset_text(t->ws, name, name_len);
  op->as.arm.key = np_writeset_text(t->ws, key, key_len);
  op->as.arm.due = due;
  return 0;
}

/* plugin:log(text [, fields]): a line of the log; the same as log.info.
 * @param text string
 * @param fields? table<string, any>
 */
static int log_line(lua_State *L) {
  np_log_line(L, 2, NP_INFO);
  return 0;
}

int np_ledger_open(lua_State *L) {
  static const luaL_Reg verbs[] = {{"emit", emit},
                                   {"device", device},
                                   {"event", event},
                                   {"send", send},
                                   {"arm", arm},
                                   {"throttle", np_store_throttle},
                                   {"debounce", np_store_debounce},
                                   {"history", np_history},
                                   {"window", np_window},
                                   {"acknowledge", np_acknowledge},
                                   {"acknowledged", np_acknowledged},
                                   {"log", log_line},
                                   {NULL, NULL}};
  static const luaL_Reg store[] = {
      {"get", np_store_get}, {"put", np_store_put}, {"delete", np_store_delete}, {"list", np_store_list}, {NULL, NULL}};
  lua_createtable(L, 0, 8);
  luaL_newlib(L, verbs);
  lua_setfield(L, -2, "verbs");
  luaL_newlib(L, store);
  lua_setfield(L, -2, "store");
  np_people_open(L);
  lua_setfield(L, -2, "people");
  return 1;
}
