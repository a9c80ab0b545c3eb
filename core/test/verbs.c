/* neap.test's verbs that act: they load plugins, move the clock, give input, answer HTTP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/duration.h"
#include "base/random.h"
#include "base/zone.h"
#include "host/ack.h"
#include "host/calls.h"
#include "host/config_entry.h"
#include "host/jobs.h"
#include "host/ledger.h"
#include "host/ledger_parts.h"
#include "host/state.h"
#include "test/spec_parts.h"

#define CALL_MOST 600000 /* ms that the clock may have to move for a request, a command or a job */

/* Raises where what has just run cannot be trusted. */
static int check_trouble(lua_State *L, const struct np_world *w) {
  if (w->trouble) return luaL_error(L, "%s", w->trouble);
  return 0;
}

static const struct np_unit_loaded *check_unit(lua_State *L, const struct np_world *w, int idx) {
  const char *name = luaL_checkstring(L, idx);
  const struct np_unit_loaded *u = np_world_find(w, name);
  if (!u || !u->code) luaL_error(L, "no plugin \"%s\" is loaded in this test", name);
  return u;
}

/* Plugins */

/* Adds the entry as neap.lua's list of that kind has it: { NAME, settings... } at the top. Raises as neap.lua's does. */
static void add_entry(lua_State *L, struct np_world *w, enum np_kind kind) {
  static const char *const lists[] = {"connections", "rules", "destinations"};
  int entry = lua_gettop(L);
  struct np_buf *scratch = np_box_new(L); /* freed also where an entry is refused */
  lua_createtable(L, 0, 1);
  struct np_table top = {.L = L, .at = lua_gettop(L)};
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, entry);
  lua_rawseti(L, -2, 1);
  lua_setfield(L, top.at, lists[kind]);
  np_config_entries(&w->config, &top, "t.plugin", scratch);
  lua_settop(L, entry);
}

/* core.plugin(name, settings) -> instance, its kind's name */
static int plugin(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  const char *name = luaL_checkstring(L, 1);
  struct np_error err;
  enum np_kind kind = NP_VENDOR;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  bool sure = np_world_kind(w, name, &kind);
  lua_createtable(L, 1, 8);
  for (lua_pushnil(L); lua_next(L, 2);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, 3);
  }
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, 1);
  for (;; kind++) { /* the folder says what it is, or what it registers does */
    np_world_forget_refused(w);
    size_t i = w->config.entry_count;
    add_entry(L, w, kind);
    if (np_world_load(w, i, &err) == 0) break;
    if (sure || kind == NP_DESTINATION || !strstr(err.text, "it belongs in")) return luaL_error(L, "%s", err.text);
  }
  check_trouble(L, w);
  const struct np_config_entry *e = &w->config.entries[w->config.entry_count - 1];
  lua_pushstring(L, e->instance);
  lua_pushstring(L, np_kind_names[np_world_find(w, e->instance)->code->kind]);
  return 2;
}

/* core.kept(instance, version, { key = JSON, … }) */
static int kept(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  struct np_error err;
  const char *instance = luaL_checkstring(L, 1);
  lua_Integer version = luaL_checkinteger(L, 2);
  char space[200];
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_argcheck(L, version >= 1 && version < 1000000, 2, "a version from 1");
  if (np_world_find(w, instance))
    return luaL_error(L, "t.kept: \"%s\" is loaded already: say before t.plugin what it finds", instance);
  snprintf(space, sizeof space, "plugin:%s", instance);
  struct np_writeset *ws = np_writeset_new();
  np_state_put(ws, instance, (int)version);
  for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
    size_t key_len, len;
    const char *key = lua_tolstring(L, -2, &key_len), *value = lua_tolstring(L, -1, &len);
    struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
    op->as.put.space = np_writeset_text(ws, space, strlen(space));
    op->as.put.key = np_writeset_text(ws, key, key_len);
    op->as.put.value = np_writeset_text(ws, value, len);
  }
  if (np_keeper_apply(w->host.keeper, ws, &err) != NP_COMMITTED) return luaL_error(L, "t.kept: %s", err.text);
  return 0;
}

/* Time and chance */

static int now(lua_State *L) {
  lua_pushinteger(L, np_now_ms());
  return 1;
}

/* core.at(ms): forward, and what is due happens; before anything is loaded also back. */
static int at(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  int64_t ms = luaL_checkinteger(L, 1), by = ms - np_now_ms();
  luaL_argcheck(L, ms > 0, 1, "a time after 1970");
  if (by < 0 && w->lane) return luaL_error(L, "t.at: time goes forward once a plugin is loaded; each test begins anew");
  if (by < 0)
    np_clock_move(by);
  else
    np_world_advance(w, by);
  return check_trouble(L, w);
}

/* core.advance("20m") */
static int advance(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  int64_t ms = -1;
  size_t len;
  if (lua_type(L, 1) == LUA_TNUMBER) {
    lua_Number s = lua_tonumber(L, 1);
    if (s >= 0 && s < 3.2e9) ms = (int64_t)(s * 1000 + 0.5);
  } else if (lua_type(L, 1) == LUA_TSTRING) {
    const char *text = lua_tolstring(L, 1, &len);
    if (np_duration_parse(text, len, &ms) < 0) ms = -1;
  }
  if (ms < 0)
    return luaL_error(L, "t.advance: expected a duration such as \"20m\" or a number of seconds, got %s",
                      luaL_tolstring(L, 1, NULL));
  np_world_advance(w, ms);
  return check_trouble(L, w);
}

static int seed(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  lua_Integer n = luaL_checkinteger(L, 1);
  if (w->lane) return luaL_error(L, "t.random: call it before the first plugin is loaded, for its jitter follows from it too");
  np_random_seed((uint64_t)n * 2 + 1); /* never 0 */
  return 0;
}

/* core.zone(name): raises where there is none. */
static int zone(lua_State *L) {
  size_t len;
  struct np_error err;
  const char *name = luaL_checklstring(L, 1, &len);
  if (!np_zone_get(name, len, &err)) return luaL_error(L, "t.zone: %s", err.text);
  return 0;
}

/* Input */

static int free_set(lua_State *L) {
  struct np_writeset **box = lua_touserdata(L, 1);
  if (*box) np_writeset_unref(*box);
  *box = NULL;
  return 0;
}

/* Pushes an owner, which frees it also where reading a table raises. */
static struct np_writeset *new_set(lua_State *L) {
  struct np_writeset **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = np_writeset_new();
  if (luaL_newmetatable(L, "neap.test.set")) {
    lua_pushcfunction(L, free_set);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return *box;
}

/* Commits what the test itself gives. */
static void feed(lua_State *L, struct np_world *w, struct np_writeset *ws, const char *what) {
  np_writeset_ref(ws);
  w->feeding = true;
  int taken = np_keeper_force(w->host.keeper, ws);
  w->feeding = false;
  if (taken < 0 || ws->outcome != NP_COMMITTED) luaL_error(L, "the %s cannot be stored: %s", what, ws->error);
}

/* core.reading(fields, vendor, connection) -> its id, or nil where it is a duplicate */
static int reading(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  size_t vendor_len, connection_len;
  luaL_checktype(L, 1, LUA_TTABLE);
  const char *vendor = luaL_checklstring(L, 2, &vendor_len), *connection = luaL_checklstring(L, 3, &connection_len);
  struct np_writeset *ws = new_set(L);
  struct np_reading r;
  bool has_at = np_take_reading(L, 1, ws, &r, false) & NP_SAYS_AT;
  r.vendor = np_writeset_text(ws, vendor, vendor_len);
  r.connection = np_writeset_text(ws, connection, connection_len);
  r.received = np_now_ms();
  if (!has_at) r.at = r.received;
  r.partition = np_partition(r.device.ptr, r.device.len);
  struct np_op *op = np_writeset_add(ws, NP_OP_READING);
  op->as.reading = r;
  feed(L, w, ws, "reading");
  int64_t seq = op->as.reading.seq;
  np_world_settle(w);
  check_trouble(L, w);
  if (!seq) return 0;
  lua_pushinteger(L, seq);
  return 1;
}

/* core.message(instance, device, json, replayed, about) -> its id */
static int message(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  size_t device_len, len;
  const struct np_unit_loaded *u = check_unit(L, w, 1);
  const char *device = luaL_checklstring(L, 2, &device_len), *json = luaL_checklstring(L, 3, &len);
  if (!u->code->deliver) return luaL_error(L, "%s takes no messages: it has no plugin:deliver", u->instance);
  struct np_writeset *ws = new_set(L);
  struct np_message m = {.created = np_now_ms(),
                         .id = np_message_id(ws),
                         .replayed = luaL_optinteger(L, 4, 0),
                         .about = luaL_optinteger(L, 5, np_now_ms())};
  m.destination = np_writeset_text(ws, u->instance, strlen(u->instance));
  m.device = np_writeset_text(ws, device, device_len);
  m.body = np_writeset_text(ws, json, len);
  m.source = np_writeset_text(ws, "test", 4);
  np_writeset_add(ws, NP_OP_SEND)->as.send = m;
  feed(L, w, ws, "message");
  np_world_settle(w);
  check_trouble(L, w);
  lua_pushlstring(L, m.id.ptr, m.id.len);
  return 1;
}

/* core.acknowledge(id, by, note) -> whether it was the first; nil where there is no such message */
static int acknowledge(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  struct np_text by = {0}, note = {0};
  struct np_error err;
  const char *id = luaL_checkstring(L, 1);
  by.ptr = luaL_checklstring(L, 2, &by.len);
  note.ptr = luaL_optlstring(L, 3, NULL, &note.len);
  struct np_writeset *ws = new_set(L);
  if (np_ack_check(by, note, &err) < 0) return luaL_error(L, "t.acknowledge: %s", err.text);
  int found = np_ack_add(ws, w->host.reader, id, by, note, np_now_ms(), &err);
  if (found < 0) return luaL_error(L, "t.acknowledge: %s", err.text);
  if (!found) return 0;
  feed(L, w, ws, "acknowledgement");
  np_world_settle(w);
  check_trouble(L, w);
  lua_pushboolean(L, ws->first->as.ack.done);
  return 1;
}

/* core.device(fields, vendor, connection) */
static int device(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  size_t vendor_len, connection_len;
  luaL_checktype(L, 1, LUA_TTABLE);
  const char *vendor = luaL_checklstring(L, 2, &vendor_len), *connection = luaL_checklstring(L, 3, &connection_len);
  struct np_writeset *ws = new_set(L);
  struct np_op news = {.as.device = {.online = -1, .at = np_now_ms()}};
  np_take_device(L, 1, ws, &news);
  news.as.device.vendor = np_writeset_text(ws, vendor, vendor_len);
  news.as.device.connection = np_writeset_text(ws, connection, connection_len);
  np_writeset_add(ws, NP_OP_DEVICE)->as.device = news.as.device;
  feed(L, w, ws, "device");
  np_world_settle(w);
  check_trouble(L, w);
  return 0;
}

/* core.request(instance, bytes) -> the answer's bytes */
static int request(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  size_t len;
  const struct np_unit_loaded *u = check_unit(L, w, 1);
  const char *bytes = luaL_checklstring(L, 2, &len);
  if (!u->code->route_count) return luaL_error(L, "%s serves no routes", u->instance);
  struct np_buf b = {.data = (char *)bytes, .len = len};
  struct np_world_answer a = np_world_request(w, &b);
  lua_pushlstring(L, np_buf_text(&a.bytes), a.bytes.len);
  np_buf_free(&a.bytes);
  check_trouble(L, w);
  if (!a.whole) return luaL_error(L, "the request was not answered, though the clock was moved by ten minutes for it");
  return 1;
}

static bool call_is_back(void *arg) { return np_mailbox_count(&((struct np_world *)arg)->host.called) > 0; }

static void nobody_waits(struct np_call *call) { (void)call; }

/* core.call(instance, name, args as JSON) -> the answer as JSON */
static int call(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  const struct np_unit_loaded *u = check_unit(L, w, 1);
  struct np_call *c = np_call_new(u->instance);
  c->name = np_strdup(luaL_checkstring(L, 2));
  c->args = np_strdup(luaL_checkstring(L, 3));
  c->done = nobody_waits;
  np_host_call(&w->host, c);
  bool back = np_world_until(w, call_is_back, w, CALL_MOST);
  struct np_node *node = np_mailbox_take(&w->host.called);
  if (!back || !node) {
    check_trouble(L, w);
    return luaL_error(L, "the command did not end, though the clock was moved by ten minutes for it");
  }
  c = (struct np_call *)node;
  w->host.calling--;
  lua_pushlstring(L, np_buf_text(&c->answer), c->answer.len);
  np_call_free(c);
  check_trouble(L, w);
  return 1;
}

struct job {
  struct np_world *w;
  const char *instance, *name;
};

static bool job_has_ended(void *arg) {
  const struct job *j = arg;
  return !np_jobs_running(j->w->lane->jobs, j->instance, j->name);
}

/* What the log says of the job's failure, among the lines from `first` on. */
static const char *failure_of(const struct np_world *w, size_t first, const struct job *j) {
  for (size_t i = w->line_count; i-- > first;) {
    const struct np_world_line *line = &w->lines[i];
    const char *plugin_name = "", *job = "", *error = NULL;
    for (size_t k = 0; k < line->n; k++) {
      const char *name = line->pairs[2 * k], *value = line->pairs[2 * k + 1];
      if (strcmp(name, "plugin") == 0) plugin_name = value;
      if (strcmp(name, "job") == 0) job = value;
      if (strcmp(name, "error") == 0) error = value;
    }
    if (line->level == NP_ERROR && error && strcmp(plugin_name, j->instance) == 0 && strcmp(job, j->name) == 0) return error;
  }
  return NULL;
}

/* core.job(instance, name) -> true, or nil and why */
static int job(lua_State *L) {
  struct np_world *w = np_spec_world(L);
  const struct np_unit_loaded *u = check_unit(L, w, 1);
  struct job j = {.w = w, .instance = u->instance, .name = luaL_checkstring(L, 2)};
  size_t first = w->line_count;
  if (!np_jobs_hurry(w->lane->jobs, j.instance, j.name)) {
    luaL_Buffer known;
    luaL_buffinit(L, &known);
    for (size_t i = 0; i < u->code->job_count; i++) {
      luaL_addstring(&known, i ? "\", \"" : "; it has \"");
      luaL_addstring(&known, u->code->jobs[i].name);
    }
    if (u->code->job_count) luaL_addchar(&known, '"');
    luaL_pushresult(&known);
    return luaL_error(L, "%s has no job \"%s\"%s, or it is running already", j.instance, j.name, lua_tostring(L, -1));
  }
  bool ended = np_world_until(w, job_has_ended, &j, CALL_MOST);
  check_trouble(L, w);
  if (!ended) return luaL_error(L, "the job did not end, though the clock was moved by ten minutes for it");
  const char *why = failure_of(w, first, &j);
  if (!why) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, why);
  return 2;
}

/* HTTP out */

/* Calls the spec's function: method, url, headers as lines, body -> status, headers as lines, body; or nil, code, why. */
static int ask(lua_State *L) {
  const struct np_fetch_request *r = lua_touserdata(L, 1);
  luaL_Buffer b;
  lua_rawgeti(L, LUA_REGISTRYINDEX, np_spec_of(L)->answer);
  lua_pushstring(L, r->method);
  lua_pushstring(L, r->url);
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < r->header_count; i++) {
    luaL_addstring(&b, r->headers[i]);
    luaL_addchar(&b, '\n');
  }
  luaL_pushresult(&b);
  lua_pushlstring(L, r->body ? r->body : "", r->body ? r->body_len : 0);
  lua_call(L, 4, 3);
  return 3;
}

static const char *fault_of(const char *code) {
  static const char *const codes[] = {"timeout", "cut", "connect", "resolve", "tls", "other"};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (strcmp(codes[i], code) == 0) return codes[i];
  return "other";
}

static const char *sentence_of(const char *code) {
  static const char *const said[][2] = {{"timeout", "no answer in time"},
                                        {"cut", "the connection was closed before the answer was whole"},
                                        {"connect", "the connection was refused"},
                                        {"resolve", "the name could not be resolved"},
                                        {"tls", "the TLS handshake failed"}};
  for (size_t i = 0; i < sizeof said / sizeof *said; i++)
    if (strcmp(said[i][0], code) == 0) return said[i][1];
  return "no test answers it";
}

void np_spec_script(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer) {
  struct np_spec *s = arg;
  lua_State *L = s->calling;
  size_t len;
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 10)) abort();
  lua_pushcfunction(L, ask);
  lua_pushlightuserdata(L, (void *)request);
  if (lua_pcall(L, 1, 3, 0) != LUA_OK) {
    np_world_blame(s->world, luaL_tolstring(L, -1, NULL));
    answer->code = "other";
    answer->why = sentence_of("other");
  } else if (lua_isinteger(L, -3)) {
    answer->status = (int)lua_tointeger(L, -3);
    const char *text = lua_tolstring(L, -2, &len);
    if (text) np_buf_add(&answer->headers, text, len);
    text = lua_tolstring(L, -1, &len);
    if (text) np_buf_add(&answer->body, text, len);
  } else {
    answer->code = fault_of(lua_tostring(L, -2));
    answer->why = sentence_of(answer->code);
  }
  lua_settop(L, top);
}

void np_spec_verbs(lua_State *L) {
  static const luaL_Reg verbs[] = {{"plugin", plugin},   {"kept", kept},
                                   {"now", now},         {"at", at},
                                   {"advance", advance}, {"seed", seed},
                                   {"zone", zone},       {"reading", reading},
                                   {"request", request}, {"message", message},
                                   {"device", device},   {"call", call},
                                   {"job", job},         {"acknowledge", acknowledge},
                                   {NULL, NULL}};
  luaL_setfuncs(L, verbs, 0);
}
