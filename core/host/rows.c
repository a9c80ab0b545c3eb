/* Rows of the store as tables. */
#include "host/rows.h"

#include <lauxlib.h>

#include "host/tags.h"
#include "lib/json.h"

void np_set_text(lua_State *L, const char *field, const struct np_text *t) {
  if (!t->len) return;
  lua_pushlstring(L, t->ptr, t->len);
  lua_setfield(L, -2, field);
}

void np_set_integer(lua_State *L, const char *field, int64_t i) {
  lua_pushinteger(L, i);
  lua_setfield(L, -2, field);
}

void np_set_json(lua_State *L, const char *field, const struct np_text *t) {
  struct np_error err;
  if (!t->len) return;
  if (np_json_decode(L, t->ptr, t->len, &err) < 0) luaL_error(L, "%s in the store: %s", field, err.text);
  lua_setfield(L, -2, field);
}

static void set_tags(lua_State *L, struct np_text tags) {
  struct np_text tag;
  lua_Integer n = 0;
  if (!tags.len) return;
  lua_newtable(L);
  for (size_t at = 0; np_tags_next(tags, &at, &tag);) {
    lua_pushlstring(L, tag.ptr, tag.len);
    lua_rawseti(L, -2, ++n);
  }
  lua_setfield(L, -2, "tags");
}

/* @class neap.Device: a device as it is stored.
 * @field id integer
 * @field vendor string
 * @field connection string
 * @field device string
 * @field first_seen integer ms
 * @field last_seen integer ms
 * @field serial? string
 * @field model? string
 * @field name? string
 * @field owner? string
 * @field place? string
 * @field tags? string[] its vendor's
 * @field status? "unbound"|"bound"|"warming"|"active"|"ended"
 * @field online? boolean
 * @field extra? table
 */
void np_push_device(lua_State *L, const struct np_device *d) {
  lua_createtable(L, 0, 14);
  np_set_integer(L, "id", d->id);
  np_set_text(L, "vendor", &d->vendor);
  np_set_text(L, "connection", &d->connection);
  np_set_text(L, "device", &d->device);
  np_set_text(L, "serial", &d->serial);
  np_set_text(L, "model", &d->model);
  np_set_text(L, "name", &d->name);
  np_set_text(L, "owner", &d->owner);
  np_set_text(L, "place", &d->place);
  np_set_text(L, "status", &d->status);
  np_set_json(L, "extra", &d->extra);
  set_tags(L, d->tags);
  if (d->online >= 0) {
    lua_pushboolean(L, d->online);
    lua_setfield(L, -2, "online");
  }
  np_set_integer(L, "first_seen", d->first_seen);
  np_set_integer(L, "last_seen", d->last_seen);
}

/* @class neap.Event: an event as it is stored.
 * @field id integer
 * @field device string
 * @field vendor string
 * @field connection string
 * @field type string
 * @field at integer ms
 * @field received integer ms
 * @field key? string
 * @field data? table
 */
void np_push_event(lua_State *L, const struct np_event *e) {
  lua_createtable(L, 0, 9);
  np_set_integer(L, "id", e->id);
  np_set_text(L, "device", &e->device);
  np_set_text(L, "vendor", &e->vendor);
  np_set_text(L, "connection", &e->connection);
  np_set_text(L, "type", &e->type);
  np_set_integer(L, "at", e->at);
  np_set_integer(L, "received", e->received);
  np_set_text(L, "key", &e->key);
  np_set_json(L, "data", &e->data);
}
