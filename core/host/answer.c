/* An answer on its way out. */
#include "host/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "host/task.h"
#include "lib/json.h"

#define HEADERS_MAX 64
#define HEADER_BYTES_MAX ((size_t)64 << 10) /* of all of an answer's */
#define SLICE_US 20000                      /* of a stream at a stretch, then the lane's other work has its turn */

void np_refusal_set(struct np_refusal *r, int status, const char *kind, const char *where) {
  *r = (struct np_refusal){.status = status, .where = where};
  snprintf(r->kind, sizeof r->kind, "%s", kind);
}

void np_refusal_take(lua_State *L, struct np_refusal *r, const char *where, int first, int n) {
  size_t len;
  const char *why = lua_tolstring(L, first + 1, &len);
  const char *kind = n > 2 && lua_type(L, first + 2) == LUA_TSTRING ? lua_tostring(L, first + 2) : "refused";
  const char *field = n > 3 && lua_type(L, first + 3) == LUA_TSTRING ? lua_tostring(L, first + 3) : "";
  np_refusal_set(r, 400, kind, where);
  if (n > 2 && lua_isinteger(L, first + 2)) {
    r->numbered = true;
    r->number = lua_tointeger(L, first + 2);
  }
  char *masked = np_mask_text(why, len); /* the schema masks what it quotes itself */
  size_t fits = np_utf8_check(masked, strnlen(masked, sizeof r->reason - 1));
  snprintf(r->reason, sizeof r->reason, "%.*s", (int)fits, masked);
  free(masked);
  snprintf(r->field, sizeof r->field, "%s", field);
}

void np_answer_plain(struct np_request *req, int status, const char *text, const struct np_header *more, size_t count) {
  struct np_buf b = {0};
  struct np_header headers[4] = {{"Content-Type", "application/json"}};
  for (size_t i = 0; i < count; i++) headers[i + 1] = more[i];
  np_buf_adds(&b, "{\"error\":");
  np_buf_add_json(&b, text, strlen(text));
  np_buf_addc(&b, '}');
  np_request_reply(req, status, headers, count + 1, b.data, b.len);
  np_buf_free(&b);
}

/* @class neap.Problem: why a request is refused, for plugin:refuse to put into words.
 * @field status integer that neap would answer
 * @field kind string|number missing, type, range, length, values, pattern, unknown, json, encoding, failed, store, or what a handler gave
 * @field where "auth"|"body"|"query"|"path"|"handler"|"store"|"host"
 * @field field string
 * @field reason string
 * @field message string the field and the reason
 * @field route string
 */
void np_refusal_push(lua_State *L, const struct np_refusal *r) {
  lua_createtable(L, 0, 7);
  lua_pushinteger(L, r->status);
  lua_setfield(L, -2, "status");
  if (r->numbered)
    lua_pushinteger(L, r->number);
  else
    lua_pushstring(L, r->kind);
  lua_setfield(L, -2, "kind");
  lua_pushstring(L, r->where);
  lua_setfield(L, -2, "where");
  lua_pushstring(L, r->field);
  lua_setfield(L, -2, "field");
  lua_pushstring(L, r->reason);
  lua_setfield(L, -2, "reason");
  lua_pushfstring(L, "%s%s%s", r->field, r->field[0] ? ": " : "", r->reason);
  lua_setfield(L, -2, "message");
  lua_pushstring(L, r->route);
  lua_setfield(L, -2, "route");
}

void np_answer_free(struct np_answer *a) {
  np_buf_free(&a->headers);
  np_buf_free(&a->body);
  *a = (struct np_answer){0};
}

void np_answer_header(struct np_answer *a, const char *name, const char *value) {
  if (a->header_count >= HEADERS_MAX - 1) return;
  np_buf_add(&a->headers, name, strlen(name) + 1);
  np_buf_add(&a->headers, value, strlen(value) + 1);
  a->header_count++;
}

static const char *find_header(const struct np_answer *a, const char *name) {
  const char *at = a->headers.data;
  for (size_t i = 0; i < a->header_count; i++) {
    const char *value = at + strlen(at) + 1;
    if (strcasecmp(at, name) == 0) return value;
    at = value + strlen(value) + 1;
  }
  return NULL;
}

static void add_value(lua_State *L, struct np_answer *a, const char *name) {
  if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "answer: header %s has to be a string, got a %s", name, luaL_typename(L, -1));
  lua_pushvalue(L, -1);
  size_t len;
  const char *value = lua_tolstring(L, -1, &len);
  if (strlen(name) + len + a->headers.len > HEADER_BYTES_MAX) luaL_error(L, "answer: the headers are larger than 64 KiB");
  np_answer_header(a, name, value);
  lua_pop(L, 1);
}

static void take_headers(lua_State *L, struct np_answer *a, int idx) {
  if (lua_isnoneornil(L, idx)) return;
  if (!lua_istable(L, idx)) luaL_error(L, "answer: headers have to be a table, got a %s", luaL_typename(L, idx));
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "answer: a header's name has to be a string");
    const char *name = lua_tostring(L, -2);
    if (!lua_istable(L, -1)) {
      add_value(L, a, name);
      continue;
    }
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
      add_value(L, a, name);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
}

void np_answer_take(lua_State *L, struct np_answer *a, int n) {
  struct np_error err;
  int base = lua_gettop(L) - n;
  lua_settop(L, base + 3);
  np_answer_free(a);
  if (n == 0) {
    a->status = 204;
    return;
  }
  int status = base + 1, body = base + 2, headers = base + 3;
  if (lua_isnil(L, status)) luaL_error(L, "answer: the handler returned nil: return a status, a body, or nothing for 204");
  if (lua_type(L, status) != LUA_TNUMBER) { /* body [, headers] */
    lua_pushinteger(L, 200);
    lua_insert(L, status);
    lua_settop(L, base + 3);
  }
  a->status = (int)luaL_checkinteger(L, status);
  if (a->status < 200 || a->status > 599) luaL_error(L, "answer: the status has to be from 200 to 599, got %d", a->status);
  take_headers(L, a, headers);
  const char *type = NULL;
  switch (lua_type(L, body)) {
  case LUA_TNIL: break;
  case LUA_TSTRING: type = "text/plain; charset=utf-8"; break;
  case LUA_TTABLE:
    if (np_json_encode(L, body, &err) < 0) luaL_error(L, "answer: %s", err.text);
    lua_replace(L, body);
    type = "application/json";
    break;
  case LUA_TFUNCTION:
    lua_pushvalue(L, body);
    a->stream_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    type = "application/json";
    break;
  default: luaL_error(L, "answer: the body has to be a table, a string or a function, got a %s", luaL_typename(L, body));
  }
  if (type && !find_header(a, "content-type")) np_answer_header(a, "Content-Type", type);
  if (lua_type(L, body) == LUA_TSTRING) {
    size_t len;
    const char *s = lua_tolstring(L, body, &len);
    np_buf_add(&a->body, s, len);
  }
}

void np_answer_problem(struct np_answer *a, const struct np_refusal *r) {
  np_answer_free(a);
  a->status = r->status;
  np_answer_header(a, "Content-Type", "application/json");
  struct np_buf message = {0};
  np_buf_addf(&message, "%s%s%s", r->field, r->field[0] ? ": " : "", r->reason);
  np_buf_adds(&a->body, "{\"error\":");
  np_buf_add_json(&a->body, message.data, message.len);
  if (r->field[0]) {
    np_buf_adds(&a->body, ",\"field\":");
    np_buf_add_json(&a->body, r->field, strlen(r->field));
  }
  np_buf_addc(&a->body, '}');
  np_buf_free(&message);
}

static size_t list_headers(const struct np_answer *a, struct np_header list[HEADERS_MAX]) {
  const char *at = a->headers.data;
  for (size_t i = 0; i < a->header_count; i++) {
    list[i].name = at;
    list[i].value = at + strlen(at) + 1;
    at = list[i].value + strlen(list[i].value) + 1;
  }
  return a->header_count;
}

void np_answer_send(const struct np_answer *a, struct np_request *req) {
  struct np_header headers[HEADERS_MAX];
  size_t n = list_headers(a, headers);
  np_request_reply(req, a->status, headers, n, np_buf_text(&a->body), a->body.len);
}

/* Streaming: a task whose function is `pump`, which calls the plugin's function and writes what it returns. */

struct np_stream {
  struct np_task task;
  struct np_request *req; /* NULL once it is over */
  int ref;
  struct np_stream **here; /* borrowed: where its owner holds it; set to NULL at the end */
};

static int pump(lua_State *L);

static int pump_on(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return pump(L);
}

static int pumped(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct np_stream *s = (struct np_stream *)context;
  size_t len;
  if (lua_isnil(L, -1) || np_request_gone(s->req)) return 0;
  if (lua_type(L, -1) != LUA_TSTRING)
    return luaL_error(L, "answer: the body's function has to return strings and at the end nil, got a %s", luaL_typename(L, -1));
  const char *bytes = lua_tolstring(L, -1, &len);
  bool room = np_request_write(s->req, bytes, len);
  lua_settop(L, 1);
  if (room) return -1;
  np_env(L)->ticket(np_env(L));
  return lua_yieldk(L, 0, context, pump_on);
}

/* (function); the stream is the task's owner. Each piece has the whole budget. */
static int pump(lua_State *L) {
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  for (int64_t stop = np_work_us() + SLICE_US;;) {
    lua_settop(L, 1);
    t->instructions = 0;
    np_task_begin_slice(t);
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    int result = pumped(L, LUA_OK, (lua_KContext)t->owner);
    if (result >= 0) return result;
    if (np_work_us() < stop) continue;
    np_env(L)->ticket(np_env(L));
    np_task_wake(t);
    return lua_yieldk(L, 0, (lua_KContext)t->owner, pump_on);
  }
}

static int push_stream(lua_State *L, struct np_task *t) {
  struct np_stream *s = t->owner;
  lua_pushcfunction(L, pump);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref);
  return 1;
}

static void room_again(void *arg, struct np_request *req) {
  struct np_stream *s = arg;
  (void)req;
  np_task_wake(&s->task);
}

static void stream_ended(struct np_task *t) {
  struct np_stream *s = t->owner;
  luaL_unref(t->in->L, LUA_REGISTRYINDEX, s->ref);
  *s->here = NULL;
  if (!s->req) {
    free(s);
    return;
  }
  if (t->failed) {
    np_log(NP_ERROR, "a streamed answer failed and was cut", "plugin", t->in->code->instance, "error", t->error, NULL);
    np_request_abort(s->req);
  } else {
    np_request_finish(s->req);
  }
  free(s);
}

void np_answer_stop(struct np_stream *s) {
  s->req = NULL;
  np_task_kill(&s->task, "neap has stopped");
}

void np_answer_stream(struct np_answer *a, struct np_request *req, struct np_instance *in, struct np_stream **here) {
  struct np_header headers[HEADERS_MAX];
  size_t n = list_headers(a, headers);
  struct np_stream *s = np_alloc(sizeof *s);
  s->req = req;
  s->here = here;
  *here = s;
  s->ref = a->stream_ref;
  a->stream_ref = 0;
  np_request_start(req, a->status, headers, n, room_again, s);
  if (strcmp(req->method, "HEAD") == 0) { /* no body, so nothing is asked for */
    luaL_unref(in->L, LUA_REGISTRYINDEX, s->ref);
    np_request_finish(req);
    *here = NULL;
    free(s);
    return;
  }
  s->task = (struct np_task){.in = in, .mode = NP_STREAMING, .push = push_stream, .ended = stream_ended, .owner = s};
  np_task_start(&s->task);
}
