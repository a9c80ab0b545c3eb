/* The verbs that keep and read values under keys: plugin.store, throttle, debounce; and what a call has written on top of the store. */
#include "host/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/ledger_parts.h"
#include "host/state.h"
#include "host/task.h"
#include "lib/json.h"

/* Bytes of a sealed text from which on it is masked: words such as "Bearer" are found in every line, but no secret is so short. */
#define SECRET_LEAST 6
/* A long text is masked in pieces, for a line shows no more than a part of it; and no more than an error's text can hold. */
#define PIECE 256
#define PIECES 8192

void np_overlay_free(struct np_overlay *o) {
  np_map_free(&o->puts, NULL);
  np_map_free(&o->seen, NULL);
  np_map_free(&o->derived, NULL);
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
  struct np_buf bytes = {0};
  np_overlay_free(o);
  for (struct np_op *op = ws->first; op; op = op->next) {
    bool put = op->kind == NP_OP_PUT;
    if (op->kind == NP_OP_READING && op->as.reading.depth) {
      np_derived_spot(&bytes, &op->as.reading);
      np_map_put(&o->derived, bytes.data, bytes.len, op);
    }
    if (!put && op->kind != NP_OP_SEEN) continue;
    const struct np_text *space = put ? &op->as.put.space : &op->as.seen.space, *key = put ? &op->as.put.key : &op->as.seen.key;
    np_buf_clear(&bytes);
    np_buf_add(&bytes, space->ptr, space->len);
    np_buf_addc(&bytes, 0);
    np_buf_add(&bytes, key->ptr, key->len);
    np_map_put(put ? &o->puts : &o->seen, bytes.data, bytes.len, op);
  }
  np_buf_free(&bytes);
}

/* What a sealed value is sealed for: its place. */
static struct np_seal_context place(const struct np_spot *s) {
  return (struct np_seal_context){"kv", s->bytes, s->bytes + s->space + 1, s->len - s->space - 1};
}

void np_spot_put(struct np_task *t, const struct np_spot *s, const char *value, size_t len, int64_t expires, bool sealed) {
  if (!t->overlay->past) np_state_see(t->in->code, t->ws, t->overlay);
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
  int64_t version = 0, now = t->now ? t->now : np_now_ms();
  if (op) {
    if (!op->as.put.value.ptr || (op->as.put.expires && op->as.put.expires <= now)) return 0;
    np_buf_add(value, op->as.put.value.ptr, op->as.put.value.len);
    return 1;
  }
  if (t->overlay && t->overlay->past) return 0;
  struct np_error err;
  const char *key = s->bytes + s->space + 1;
  size_t key_len = s->len - s->space - 1;
  int found = np_reader_get(t->in->lane->reader, s->bytes, key, key_len, now, value, &version, &err);
  if (found < 0) return luaL_error(L, "plugin.store: %s", err.text);
  if (t->ws) np_state_see(t->in->code, t->ws, t->overlay);
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

/* What every line of its log names it by. */
static bool is_own_name(const struct np_code *c, const char *s) { return strcmp(s, c->instance) == 0 || strcmp(s, c->plugin) == 0; }

static void add_mask(struct masking *m, const char *s, size_t len) {
  struct np_mask *mask = np_arena_alloc(&m->t->arena, sizeof *mask);
  *mask = (struct np_mask){.next = m->t->people, .value = np_arena_copy(&m->t->arena, s, len), .len = len};
  m->t->people = mask;
}

static void mask_top(struct masking *m, int depth) {
  lua_State *L = m->L;
  if (m->left-- <= 0) return;
  if (lua_type(L, -1) == LUA_TTABLE && depth < 16 && lua_checkstack(L, 4)) {
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) mask_top(m, depth + 1);
  } else if (lua_type(L, -1) == LUA_TSTRING || lua_type(L, -1) == LUA_TNUMBER) {
    size_t len;
    lua_pushvalue(L, -1); /* what it is in the table stays what it is */
    const char *s = lua_tolstring(L, -1, &len);
    if (len > PIECE && len >= m->least)
      for (size_t i = 0; i < len && i < PIECES; i += PIECE) add_mask(m, s + i, len - i < PIECE ? len - i : PIECE);
    else if (len >= m->least && !is_own_name(m->t->in->code, s))
      add_mask(m, s, len);
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

/* plugin.store:get(key) -> value, or nil
 * @param key string
 * @return any value nil where there is none
 */
int np_store_get(lua_State *L) {
  struct np_task *t = np_acting(L, "store", NP_IN_STORE, store_instead);
  size_t len;
  const char *key = luaL_checklstring(L, 2, &len);
  struct np_spot s;
  np_spot_own(L, &s, "plugin", key, len);
  if (!np_spot_push(L, t, &s)) lua_pushnil(L);
  return 1;
}

/* plugin.store:put(key, value [, lifetime [, "sealed"]]): any value that JSON can hold; nil deletes. It commits with the call. "sealed" keeps it
 * encrypted, and its texts out of the log of the call: for what has to be had back, such as a token. get opens it.
 * @param key string
 * @param value any
 * @param lifetime? string|number a duration
 * @param sealed? "sealed"
 */
int np_store_put(lua_State *L) {
  struct np_task *t = np_acting(L, "store", NP_IN_STORE, store_instead);
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
  int64_t expires = lua_isnoneornil(L, 4) ? 0 : now + np_field_duration(L, 4, "store", "the lifetime");
  if (!lua_isnil(L, 3)) {
    struct np_error err;
    if (np_json_encode(L, 3, &err) < 0) return luaL_error(L, "plugin.store: %s: %s", key, err.text);
    value = lua_tolstring(L, -1, &value_len);
  }
  if (value) np_limit_store(L, t, &s, len + value_len + (sealed ? NP_SEAL_MORE : 0));
  np_spot_put(t, &s, value, value_len, expires, sealed);
  return 0;
}

/* plugin.store:delete(key): it commits with the call.
 * @param key string
 */
int np_store_delete(lua_State *L) {
  lua_settop(L, 2);
  lua_pushnil(L);
  return np_store_put(L);
}

/* ms that the rule's verb has put under the key, INT64_MIN where nothing is there, or what nothing can have been put at yet; the key is at 2
 * and the time at 3. */
static int64_t last_of(lua_State *L, struct np_task *t, const char *verb, struct np_spot *s, int64_t *ms) {
  size_t len;
  const char *key = luaL_checklstring(L, 2, &len);
  *ms = np_field_duration(L, 3, verb, "the time");
  np_spot_own(L, s, verb, key, len);
  struct np_buf *b = np_box_new(L);
  int64_t last = np_spot_get(L, t, s, b) ? strtoll(np_buf_text(b), NULL, 10) : INT64_MIN;
  return np_is_ahead(last) ? INT64_MIN : last;
}

static void put_last(lua_State *L, struct np_task *t, const struct np_spot *s, int64_t at, int64_t ms) {
  char text[24];
  int n = snprintf(text, sizeof text, "%lld", (long long)at);
  np_limit_store(L, t, s, s->len - s->space - 1 + (size_t)n);
  np_spot_put(t, s, text, (size_t)n, at + ms, false);
}

/* plugin:throttle(key, time) -> true where this key has passed within that time; else false, and it counts as passed now.
 * @param key string
 * @param time string|number a duration
 * @return boolean
 */
int np_store_throttle(lua_State *L) {
  struct np_task *t = np_acting(L, "throttle", NP_IN_RULES, "it is for rules");
  struct np_spot s;
  int64_t ms, last = last_of(L, t, "throttle", &s, &ms);
  /* a reading received before the last one that passed was in order then: it is inside the time as well */
  bool held_back = last != INT64_MIN && t->now < last + ms;
  if (!held_back) put_last(L, t, &s, t->now, ms);
  lua_pushboolean(L, held_back);
  return 1;
}

/* plugin:debounce(key, time) -> true where this key was asked for within that time, whatever came of it; else false: it has been quiet. Each call begins
 * the time anew, so of a row of readings with no such pause in it only the first gets false. By the readings' `received`.
 * @param key string
 * @param time string|number a duration
 * @return boolean
 */
int np_store_debounce(lua_State *L) {
  struct np_task *t = np_acting(L, "debounce", NP_IN_RULES, "it is for rules");
  struct np_spot s;
  int64_t ms, last = last_of(L, t, "debounce", &s, &ms);
  bool again = last != INT64_MIN && t->now < last + ms;
  put_last(L, t, &s, again && last > t->now ? last : t->now, ms);
  lua_pushboolean(L, again);
  return 1;
}
