/* plugin.store:list: the keys of the store and those that this call has written, in one order; then each value as get gives it. */
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/ledger_parts.h"
#include "lib/json.h"

enum { LIMIT_MAX = 1000 };

struct listing {
  struct np_task *t;
  struct np_spot from; /* the prefix */
  const char *after;   /* borrowed from the arguments; NULL: from the first */
  lua_Integer limit;
  struct np_buf *keys; /* in a box: texts, each with its 0 */
  size_t count;
};

static const char *prefix_of(const struct listing *l) { return l->from.bytes + l->from.space + 1; }

static void add_key(struct listing *l, const char *key, size_t len) {
  np_buf_add(l->keys, key, len);
  np_buf_addc(l->keys, 0);
  l->count++;
}

/* What this call has written is added by itself, for it may be deleted. */
static bool take_key(void *arg, struct np_text key, struct np_text value, int64_t version) {
  struct listing *l = arg;
  struct np_spot s = l->from;
  (void)value, (void)version;
  if (key.len > 512) return true; /* no verb makes such a key */
  memcpy(s.bytes + s.space + 1, key.ptr, key.len);
  if (!np_map_get(&l->t->overlay->puts, s.bytes, s.space + 1 + key.len)) add_key(l, key.ptr, key.len);
  return true;
}

static size_t add_written(struct listing *l) {
  size_t n = 0, prefix = l->from.len - l->from.space - 1;
  const struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&l->t->overlay->puts, &i));) {
    if (e->len < l->from.len || memcmp(e->key, l->from.bytes, l->from.space + 1 + prefix) != 0) continue;
    const char *key = e->key + l->from.space + 1;
    if (l->after && strcmp(key, l->after) <= 0) continue;
    n++;
    if (((struct np_op *)e->value)->as.put.value.ptr) add_key(l, key, e->len - l->from.space - 1);
  }
  return n;
}

static int compare(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Pushes a userdata: the keys in their order. They are borrowed from the box. */
static const char **push_sorted(lua_State *L, const struct listing *l) {
  const char **sorted = lua_newuserdatauv(L, (l->count + 1) * sizeof *sorted, 0), *at = l->keys->data;
  for (size_t i = 0; i < l->count; i++, at += strlen(at) + 1) sorted[i] = at;
  qsort(sorted, l->count, sizeof *sorted, compare);
  return sorted;
}

static void read_options(lua_State *L, struct listing *l) {
  l->limit = 100;
  if (lua_isnoneornil(L, 3)) return;
  if (!lua_istable(L, 3)) luaL_error(L, "plugin.store:list: the options have to be a table, got a %s", luaL_typename(L, 3));
  for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    if (strcmp(name, "after") == 0) {
      size_t len;
      if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "plugin.store:list: after has to be a key, got a %s", luaL_typename(L, -1));
      l->after = lua_tolstring(L, -1, &len); /* the table has it still */
      if (memchr(l->after, 0, len)) luaL_error(L, "plugin.store:list: after holds a zero byte");
    } else if (strcmp(name, "limit") == 0) {
      int exact;
      l->limit = lua_tointegerx(L, -1, &exact);
      if (!exact || lua_type(L, -1) != LUA_TNUMBER || l->limit < 1 || l->limit > LIMIT_MAX)
        luaL_error(L, "plugin.store:list: limit has to be an integer from 1 to %d, got %s", LIMIT_MAX, luaL_tolstring(L, -1, NULL));
    } else {
      lua_pushvalue(L, -2);
      luaL_error(L, "plugin.store:list: unknown option \"%s\": there are after and limit", luaL_tolstring(L, -1, NULL));
    }
  }
}

/* plugin.store:list(prefix [, { after = key, limit = 100 }]) -> list of { key =, value = } in the order of the keys' bytes, with what this call has written.
 * limit is 1 to 1000; the next page goes on `after` the last key. Where another call changes one of them before this one commits, this one is run
 * again; a key that is new meanwhile is not noticed.
 * @param prefix string
 * @param page? { after?: string, limit?: integer }
 * @return { key: string, value: any }[]
 */
int np_store_list(lua_State *L) {
  struct listing l = {.t = np_acting(L, "store", NP_IN_STORE, "use it in a vendor's handlers and jobs, and in rules")};
  struct np_error err;
  size_t len;
  const char *prefix = luaL_checklstring(L, 2, &len);
  lua_settop(L, 3);
  np_spot_own(L, &l.from, "plugin", prefix, len);
  read_options(L, &l);
  l.keys = np_box_new(L);
  size_t written = add_written(&l);
  int64_t now = l.t->now ? l.t->now : np_now_ms();
  if (!l.t->overlay->past && np_reader_keys(l.t->in->lane->reader, l.from.bytes, prefix_of(&l), l.after, now,
                                            (int)l.limit + (int)written, take_key, &l, &err) < 0)
    return luaL_error(L, "plugin.store:list: %s", err.text);
  const char **sorted = push_sorted(L, &l);
  lua_newtable(L);
  np_json_mark_array(L, -1);
  lua_Integer n = 0;
  for (size_t i = 0; i < l.count && n < l.limit; i++) {
    struct np_spot s;
    np_spot_own(L, &s, "plugin", sorted[i], strlen(sorted[i]));
    if (!np_spot_push(L, l.t, &s)) continue; /* gone since */
    lua_createtable(L, 0, 2);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    lua_pushstring(L, sorted[i]);
    lua_setfield(L, -2, "key");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}
