/* People: their details, encrypted in the store under a reference; readings and devices carry the reference alone.
 *
 * They are keys of the space "people" (the reference) with sealed values: {"connection", "key", "since", "changed", "details"}. So several calls that keep
 * details of one person are in order as any that read and write a key are, and none loses a field of another's. */
#include "host/data.h"
#include "host/ledger_parts.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/data.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/ledger_parts.h"
#include "lib/json.h"

#define KEY_MAX 4096
#define FIELDS_MAX 100
#define NAME_BYTES 64
#define BYTES_MAX 65536    /* of a person's details, as JSON */
#define STREAM_MASKS 65536 /* bytes of masks that a streamed answer keeps */

static const char *const instead = "people are kept and looked up in a vendor's handlers and jobs";

static struct np_seal *seal_of(const struct np_task *t) { return t->in->lane->host->seal; }

static const char *check_key(lua_State *L, const char *verb, int idx, size_t *len) {
  const char *key = luaL_checklstring(L, idx, len);
  if (!*len || *len > KEY_MAX) luaL_error(L, "plugin.people:%s: the key has to be of 1 to %d bytes", verb, KEY_MAX);
  return key;
}

/* The key as well: it is often a number of the person's. */
static void mask_record(lua_State *L, struct np_task *t) {
  lua_getfield(L, -1, "key");
  np_mask_value(L, t, -1, 2);
  lua_getfield(L, -2, "details");
  np_mask_value(L, t, -1, 2);
  lua_pop(L, 2);
}

/* Pushes the record under a reference, or nil. A row that is not sealed was not made here. */
static bool push_record(lua_State *L, struct np_task *t, const struct np_spot *s) {
  struct np_error err;
  struct np_buf *b = np_box_new(L);
  int found = np_spot_get(L, t, s, b);
  if (found == 1) luaL_error(L, "plugin.people: %s: it is not sealed: somebody has written it by hand", s->bytes + s->space + 1);
  if (!found)
    lua_pushnil(L);
  else if (np_json_decode(L, b->data, b->len, &err) < 0)
    luaL_error(L, "plugin.people: %s: %s", s->bytes + s->space + 1, err.text);
  else
    mask_record(L, t);
  lua_remove(L, -2);
  return found != 0;
}

static void check_detail(lua_State *L) { /* name, value on top */
  size_t len;
  if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "plugin.people:keep: details need names, got a %s", luaL_typename(L, -2));
  const char *name = lua_tolstring(L, -2, &len);
  if (len > NAME_BYTES) luaL_error(L, "plugin.people:keep: a detail's name is longer than %d bytes", NAME_BYTES);
  int type = lua_type(L, -1);
  if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN && !np_json_is_null(L, -1))
    luaL_error(L, "plugin.people:keep: %s has to be a string, a number or a boolean, or json.null to remove it, got a %s", name,
               luaL_typename(L, -1));
}

/* Puts what is new at `from` into the details at `to`; whether there was anything. */
static bool merge(lua_State *L, int from, int to) {
  bool changed = false;
  for (lua_pushnil(L); lua_next(L, from); lua_pop(L, 1)) {
    check_detail(L);
    lua_pushvalue(L, -2);
    lua_rawget(L, to);
    bool drop = np_json_is_null(L, -2),
         same = drop ? lua_isnil(L, -1) : lua_rawequal(L, -1, -2) && lua_isinteger(L, -1) == lua_isinteger(L, -2);
    lua_pop(L, 1);
    if (same) continue;
    changed = true;
    lua_pushvalue(L, -2);
    if (drop)
      lua_pushnil(L);
    else
      lua_pushvalue(L, -2);
    lua_rawset(L, to);
  }
  return changed;
}

static void check_size(lua_State *L, int details) {
  int n = 0;
  for (lua_pushnil(L); lua_next(L, details); lua_pop(L, 1)) n++;
  if (n > FIELDS_MAX) luaL_error(L, "plugin.people:keep: a person has at most %d details", FIELDS_MAX);
}

/* plugin.people:keep(key, details) -> reference: keeps a person's details, encrypted, under your own key for that person ("patient:4711"). A flat table;
 * what was kept before and is not in it stays, json.null removes. The reference is always the same for this connection and key: use it as a device's
 * owner. It commits with the call.
 * @param key string
 * @param details table<string, any>
 * @return string reference
 */
static int keep(lua_State *L) {
  struct np_task *t = np_acting(L, "people", NP_IN_VENDORS, instead);
  size_t len, json_len;
  const char *key = check_key(L, "keep", 2, &len), *connection = t->in->code->instance;
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  np_mask_value(L, t, 3, 2);
  char reference[NP_SEAL_REFERENCE + 1];
  struct np_spot s;
  struct np_error err;
  np_seal_reference(seal_of(t), connection, key, len, reference);
  np_spot_find(L, &s, "plugin.people", "people", reference, NP_SEAL_REFERENCE);
  if (!push_record(L, t, &s)) {
    lua_pop(L, 1);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, connection);
    lua_setfield(L, 4, "connection");
    lua_pushlstring(L, key, len);
    lua_setfield(L, 4, "key");
    lua_pushinteger(L, np_now_ms());
    lua_setfield(L, 4, "since");
    lua_newtable(L);
    lua_setfield(L, 4, "details");
  }
  lua_getfield(L, 4, "changed");
  bool is_new = lua_isnil(L, -1);
  lua_getfield(L, 4, "details");
  if (merge(L, 3, 6) || is_new) {
    check_size(L, 6);
    lua_pushinteger(L, np_now_ms());
    lua_setfield(L, 4, "changed");
    if (np_json_encode(L, 4, &err) < 0) return luaL_error(L, "plugin.people:keep: %s", err.text);
    const char *json = lua_tolstring(L, -1, &json_len);
    if (json_len > BYTES_MAX) return luaL_error(L, "plugin.people:keep: a person's details are longer than %d bytes", BYTES_MAX);
    np_spot_put(t, &s, json, json_len, 0, true);
  }
  lua_pushlstring(L, reference, NP_SEAL_REFERENCE);
  return 1;
}

/* plugin.people:reference(key [, connection]) -> the reference that keep gives, without keeping anything; of another connection's person
 * where that connection is one that this one shows.
 * @param key string
 * @param connection? string
 * @return string reference
 */
static int reference(lua_State *L) {
  struct np_task *t = np_acting(L, "people", NP_IN_VENDORS | NP_IN(NP_STREAMING), instead);
  size_t len;
  const char *key = check_key(L, "reference", 2, &len), *connection = luaL_optstring(L, 3, t->in->code->instance);
  char text[NP_SEAL_REFERENCE + 1];
  if (!np_data_sees(t->in->code, connection))
    return luaL_error(L, "plugin.people:reference: this connection does not show \"%s\": its `shows` in neap.lua has to name it",
                      connection);
  np_seal_reference(seal_of(t), connection, key, len, text);
  lua_pushlstring(L, text, NP_SEAL_REFERENCE);
  return 1;
}

static int none(lua_State *L, const char *why) {
  lua_pushnil(L);
  lua_pushstring(L, why);
  return 2;
}

/* Unmasked: it names no detail, and a short one ("12") would otherwise blot out half of a reference. */
static void log_reading(const struct np_task *t, const char *reference) {
  np_mask_people(NULL);
  np_log(NP_INFO, "a person's details were read", "plugin", t->in->code->instance, "reference", reference, "call",
         np_mode_names[t->mode], "of", t->where, NULL);
  np_mask_people(t->people);
}

/* plugin.people:details(reference) -> table, or nil, why. Only where the configuration says `people = true` of this connection, and of people that it
 * or a connection that it shows has kept; each reading is logged, without the details.
 * @param reference string
 * @return table<string, string|number|boolean>? details, string? why
 */
static int details(lua_State *L) {
  struct np_task *t = np_acting(L, "people", NP_IN_VENDORS | NP_IN(NP_STREAMING), instead);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  struct np_spot s;
  if (!t->in->code->people) return none(L, "people: this connection may not read details: its `people` in neap.lua is not true");
  if (!np_seal_is_reference(text, len)) return none(L, "people: that is no reference");
  /* A stream may go on for long: what it has read first is forgotten. Its arena holds nothing else. */
  if (t->mode == NP_STREAMING && t->arena.total > STREAM_MASKS) {
    np_mask_people(t->people = NULL);
    np_arena_free(&t->arena);
  }
  np_spot_find(L, &s, "plugin.people", "people", text, len);
  if (!push_record(L, t, &s)) return none(L, "people: nobody is kept under that reference");
  lua_getfield(L, -1, "connection");
  const char *connection = lua_tostring(L, -1);
  if (!connection || !np_data_sees(t->in->code, connection)) return none(L, "people: nobody is kept under that reference");
  log_reading(t, text);
  lua_getfield(L, -2, "details");
  return 1;
}

/* plugin.people:forget(reference) -> true, or nil, why: removes what this connection has kept of a person. It commits with the call.
 * @param reference string
 * @return true? done, string? why
 */
static int forget(lua_State *L) {
  struct np_task *t = np_acting(L, "people", NP_IN_VENDORS, instead);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  struct np_spot s;
  if (!np_seal_is_reference(text, len)) return none(L, "people: that is no reference");
  np_spot_find(L, &s, "plugin.people", "people", text, len);
  if (!push_record(L, t, &s)) return none(L, "people: nobody is kept under that reference");
  lua_getfield(L, -1, "connection");
  if (lua_type(L, -1) != LUA_TSTRING || strcmp(lua_tostring(L, -1), t->in->code->instance) != 0)
    return none(L, "people: another connection has kept that person");
  np_spot_put(t, &s, NULL, 0, 0, false);
  lua_pushboolean(L, 1);
  return 1;
}

int np_people_open(lua_State *L) {
  static const luaL_Reg verbs[] = {
      {"keep", keep}, {"reference", reference}, {"details", details}, {"forget", forget}, {NULL, NULL}};
  luaL_newlib(L, verbs);
  return 1;
}
