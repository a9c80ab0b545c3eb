/* neap.test's verbs that look at what has happened: in the commits as they were made, and in the store as it is. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/ledger.h"
#include "host/rows.h"
#include "lib/json.h"
#include "test/spec_parts.h"

#define ROWS_MOST 100000

static void add(lua_State *L, int list) { lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1); }

/* core.sent() -> all messages, oldest first, and what has become of each */
static void push_message(lua_State *L, const struct np_message *m) {
  lua_createtable(L, 0, 12);
  np_set_text(L, "id", &m->id);
  np_set_text(L, "destination", &m->destination);
  np_set_text(L, "device", &m->device);
  np_set_text(L, "source", &m->source);
  np_set_integer(L, "created", m->created);
  np_set_integer(L, "attempts", 0);
  if (m->reading) np_set_integer(L, "reading", m->reading);
  if (m->expires) np_set_integer(L, "expires", m->expires);
  if (m->asks) lua_pushboolean(L, 1), lua_setfield(L, -2, "acknowledge");
  lua_pushliteral(L, "waiting");
  lua_setfield(L, -2, "state");
  np_set_text(L, "json", &m->body);
  np_set_json(L, "data", &m->body);
}

static void set_ack(lua_State *L, int list, const struct np_op *op) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, list);
  for (lua_Integer i = 1; i <= n && op->as.ack.done; i++) {
    lua_rawgeti(L, list, i);
    lua_getfield(L, -1, "id");
    bool this = strcmp(lua_tostring(L, -1), op->as.ack.id.ptr) == 0;
    lua_pop(L, 1);
    if (this) np_set_json(L, "acknowledged", &op->as.ack.record);
    lua_pop(L, 1);
  }
}

static int sent(lua_State *L) {
  const struct np_world *w = np_spec_world(L);
  lua_newtable(L); /* the list */
  lua_newtable(L); /* seq -> message */
  int list = lua_gettop(L) - 1, by_seq = list + 1;
  for (size_t i = 0; i < w->commit_count; i++) {
    for (const struct np_op *op = w->commits[i].ws->first; op; op = op->next) {
      if (op->kind == NP_OP_SEND) {
        push_message(L, &op->as.send);
        lua_pushvalue(L, -1);
        lua_rawseti(L, by_seq, op->as.send.seq);
        add(L, list);
      } else if (op->kind == NP_OP_SENT && lua_rawgeti(L, by_seq, op->as.sent.seq) == LUA_TTABLE) {
        lua_pushstring(L, op->as.sent.state == 'd' ? "delivered" : op->as.sent.state == 'x' ? "dead" : "waiting");
        lua_setfield(L, -2, "state");
        np_set_integer(L, "attempts", op->as.sent.attempts);
        np_set_integer(L, "status", op->as.sent.status);
        if (op->as.sent.state == 'r') np_set_integer(L, "due", op->as.sent.due);
        np_set_text(L, "error", &op->as.sent.error);
        np_set_text(L, "reason", &op->as.sent.reason);
        lua_pop(L, 1);
      } else if (op->kind == NP_OP_SENT) {
        lua_pop(L, 1);
      } else if (op->kind == NP_OP_ACK) {
        set_ack(L, list, op);
      }
    }
  }
  lua_settop(L, list);
  return 1;
}

/* core.emitted() -> readings that plugins emitted and that were new */
static int emitted(lua_State *L) {
  const struct np_world *w = np_spec_world(L);
  lua_newtable(L);
  int list = lua_gettop(L);
  for (size_t i = 0; i < w->commit_count; i++) {
    if (w->commits[i].fed) continue;
    for (const struct np_op *op = w->commits[i].ws->first; op; op = op->next) {
      if (op->kind != NP_OP_READING || !op->as.reading.seq) continue;
      np_push_reading(L, &op->as.reading);
      add(L, list);
    }
  }
  return 1;
}

/* Rows of the store: the state may not raise while the reader runs, and it does not: it has no limit of memory there. */
struct rows {
  lua_State *L;
  int list;
};

static bool add_event(void *arg, const struct np_event *e) {
  struct rows *r = arg;
  np_push_event(r->L, e);
  add(r->L, r->list);
  return true;
}

static bool add_device(void *arg, const struct np_device *d) {
  struct rows *r = arg;
  np_push_device(r->L, d);
  add(r->L, r->list);
  return true;
}

static bool add_timer(void *arg, const struct np_timer *t) {
  struct rows *r = arg;
  lua_createtable(r->L, 0, 4);
  np_set_text(r->L, "plugin", &t->instance);
  np_set_text(r->L, "name", &t->name);
  np_set_text(r->L, "key", &t->key);
  np_set_integer(r->L, "due", t->due);
  add(r->L, r->list);
  return true;
}

static bool add_held(void *arg, const struct np_held *h) {
  struct rows *r = arg;
  lua_createtable(r->L, 0, 6);
  np_set_text(r->L, "plugin", &h->instance);
  np_set_text(r->L, "name", &h->name);
  if (!h->reading) np_set_text(r->L, "key", &h->key); /* of a timer */
  np_set_text(r->L, "error", &h->error);
  np_set_integer(r->L, "at", h->at);
  if (h->reading) np_set_integer(r->L, "reading", h->reading);
  add(r->L, r->list);
  return true;
}

static struct rows begin_rows(lua_State *L) {
  lua_checkstack(L, 20);
  lua_newtable(L);
  return (struct rows){L, lua_gettop(L)};
}

static int end_rows(lua_State *L, int result, const struct np_error *err) {
  return result < 0 ? luaL_error(L, "the test's store cannot be read: %s", err->text) : 1;
}

static int events(lua_State *L) {
  const struct np_world *w = np_spec_world(L);
  struct np_error err;
  struct rows r = begin_rows(L);
  struct np_row_filter f = {.scope = {.all = true}, .from = INT64_MIN, .to = INT64_MAX, .ascending = true};
  return end_rows(L, np_reader_find_events(w->host.reader, &f, ROWS_MOST, add_event, &r, &err), &err);
}

static int devices(lua_State *L) {
  const struct np_world *w = np_spec_world(L);
  struct np_error err;
  struct rows r = begin_rows(L);
  return end_rows(L, np_reader_devices(w->host.reader, 0, ROWS_MOST, add_device, &r, &err), &err);
}

static int armed(lua_State *L) {
  const struct np_world *w = np_spec_world(L);
  struct np_error err;
  struct rows r = begin_rows(L);
  return end_rows(L, np_reader_timers_due(w->host.reader, INT64_MAX, ROWS_MOST, add_timer, &r, &err), &err);
}

static int held(lua_State *L) {
  const struct np_world *w = np_spec_world(L);
  struct np_error err;
  struct rows r = begin_rows(L);
  int result = 0;
  for (size_t i = 0; i < w->loaded_count && result == 0; i++)
    result = np_reader_held(w->host.reader, w->loaded[i].instance, 0, ROWS_MOST, add_held, &r, &err);
  return end_rows(L, result, &err);
}

/* core.stored(instance, key) -> what plugin.store has there, opened where it is sealed; nil */
static int stored(lua_State *L) {
  const struct np_world *w = np_spec_world(L);
  char space[200];
  size_t len;
  int64_t version;
  struct np_error err;
  struct np_buf value = {0}, open = {0};
  snprintf(space, sizeof space, "plugin:%s", luaL_checkstring(L, 1));
  const char *key = luaL_checklstring(L, 2, &len);
  int found = np_reader_get(w->host.reader, space, key, len, np_now_ms(), &value, &version, &err);
  if (found > 0 && np_seal_is(value.data, value.len)) {
    struct np_seal_context c = {"kv", space, key, len};
    long n = np_seal_get(w->host.seal, &c, value.data, value.len, np_buf_reserve(&open, value.len), &err);
    np_buf_free(&value);
    value = open;
    value.len = n < 0 ? 0 : (size_t)n;
    found = n < 0 ? -1 : 1;
  }
  int pushed = found > 0 && np_json_decode(L, value.data, value.len, &err) == 0;
  np_buf_free(&value);
  if (found < 0 || (found > 0 && !pushed)) return luaL_error(L, "the test's store: %s: %s", key, err.text);
  return pushed;
}

/* core.logged() -> lines: { level, text, and each field by its name } */
static int logged(lua_State *L) {
  static const char *const levels[] = {"debug", "info", "warn", "error"};
  const struct np_world *w = np_spec_world(L);
  struct rows r = begin_rows(L);
  for (size_t i = 0; i < w->line_count; i++) {
    const struct np_world_line *line = &w->lines[i];
    lua_createtable(L, 0, (int)line->n + 2);
    for (size_t k = 0; k < line->n; k++) {
      lua_pushstring(L, line->pairs[2 * k + 1]);
      lua_setfield(L, -2, line->pairs[2 * k]);
    }
    lua_pushstring(L, line->text);
    lua_setfield(L, -2, "text");
    lua_pushstring(L, levels[line->level]);
    lua_setfield(L, -2, "level");
    add(L, r.list);
  }
  return 1;
}

void np_spec_look(lua_State *L) {
  static const luaL_Reg verbs[] = {{"sent", sent}, {"emitted", emitted}, {"events", events}, {"devices", devices}, {"armed", armed},
                                   {"held", held}, {"stored", stored},   {"logged", logged}, {NULL, NULL}};
  luaL_setfuncs(L, verbs, 0);
}
