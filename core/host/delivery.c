/* One try: what the handler returns decides. A delivered message must not be sent again because the store is full for a moment: the
 * outcome is kept and submitted until it is committed. */
#include "host/delivery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <lauxlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "lib/json.h"

#define BACKOFF_MOST 300000
#define RETRY_AFTER_MOST 3600000
#define RESUBMIT 1000
#define TRIES 10 /* of a handler whose reads were overtaken: each sends once more */

static void commit(struct np_delivery *d);
static void run(struct np_delivery *d);

/* In the protected call: what goes in */

static void set_text(lua_State *L, const char *name, struct np_text text) {
  lua_pushlstring(L, text.ptr ? text.ptr : "", text.len);
  lua_setfield(L, -2, name);
}

/* @class neap.Message: a message, as a destination is given it.
 * @field id string the same over all attempts
 * @field device string whose order it keeps
 * @field destination string
 * @field source string the rule that sent it
 * @field json string what was sent, as JSON
 * @field data any what was sent
 * @field created integer ms
 * @field attempt integer 1 at first
 */
static void push_message(lua_State *L, const struct np_message *m) {
  struct np_error err;
  lua_createtable(L, 0, 8);
  set_text(L, "id", m->id);
  set_text(L, "device", m->device);
  set_text(L, "destination", m->destination);
  set_text(L, "source", m->source);
  set_text(L, "json", m->body);
  lua_pushinteger(L, m->created);
  lua_setfield(L, -2, "created");
  lua_pushinteger(L, (lua_Integer)m->attempts + 1);
  lua_setfield(L, -2, "attempt");
  if (np_json_decode(L, m->body.ptr ? m->body.ptr : "", m->body.len, &err)) luaL_error(L, "message %s: %s", m->id.ptr, err.text);
  lua_setfield(L, -2, "data");
}

static int push_messages(lua_State *L, struct np_task *t) {
  const struct np_delivery *d = t->owner;
  luaL_checkstack(L, 8, NULL);
  lua_createtable(L, (int)d->count, 0);
  for (size_t i = 0; i < d->count; i++) {
    push_message(L, &d->messages[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->in->settings);
  return 2;
}

/* In the protected call: what comes out. Nothing is allocated. */

/* The start of a text, cut between characters. */
static int start_of(const char *s, size_t len, size_t most) {
  size_t n = 0;
  while (n < len && n < most) {
    size_t c = np_utf8_len(s + n, len - n);
    if (n + (c ? c : 1) > most) break;
    n += c ? c : 1;
  }
  return (int)n;
}

static int raw_field(lua_State *L, int idx, const char *name) {
  idx = lua_absindex(L, idx);
  lua_pushstring(L, name);
  return lua_rawget(L, idx);
}

/* RFC 9110 10.2.3: seconds, or a date. */
static int64_t retry_after(const char *text) {
  char *end;
  double ms = strtod(text, &end) * 1000;
  if (end == text || *end) {
    time_t at = curl_getdate(text, NULL);
    if (at < 0) return 0;
    ms = (double)at * 1000 - (double)np_now_ms();
  }
  if (!(ms > 0)) return 0;
  return ms > RETRY_AFTER_MOST ? RETRY_AFTER_MOST : (int64_t)ms;
}

static enum np_verdict judge(int status) {
  if (status >= 200 && status < 300) return NP_DELIVERY_DONE;
  if (status == 408 || status == 425 || status == 429 || status < 300 || status >= 500) return NP_DELIVERY_AGAIN;
  return NP_DELIVERY_REFUSED;
}

static void read_retry_after(lua_State *L, struct np_result *r, int idx) {
  int top = lua_gettop(L);
  if (raw_field(L, idx, "headers") == LUA_TTABLE && raw_field(L, -1, "retry-after") == LUA_TSTRING)
    r->retry_after = retry_after(lua_tostring(L, -1));
  lua_settop(L, top);
}

/* { dead = why }: the handler has seen that no try will help. */
static bool read_dead(lua_State *L, struct np_result *r, int idx) {
  int top = lua_gettop(L);
  size_t len;
  bool dead = lua_istable(L, idx) && raw_field(L, idx, "dead") == LUA_TSTRING;
  if (dead) {
    const char *why = lua_tolstring(L, -1, &len);
    r->verdict = NP_DELIVERY_REFUSED;
    snprintf(r->why, sizeof r->why, "%.*s", start_of(why, len, sizeof r->why - 1), why);
  }
  lua_settop(L, top);
  return dead;
}

/* An HTTP answer: true where the table at idx has a status; or { dead = why }. */
static bool read_answer(lua_State *L, struct np_result *r, int idx) {
  int top = lua_gettop(L), exact;
  if (read_dead(L, r, idx)) return true;
  if (!lua_istable(L, idx) || raw_field(L, idx, "status") != LUA_TNUMBER) {
    lua_settop(L, top);
    return false;
  }
  lua_Integer status = lua_tointegerx(L, -1, &exact);
  r->status = exact && status >= 100 && status <= 599 ? (int)status : 0;
  r->verdict = judge(r->status);
  read_retry_after(L, r, idx);
  if (r->verdict != NP_DELIVERY_DONE) {
    size_t len = 0;
    const char *body = raw_field(L, idx, "body") == LUA_TSTRING ? lua_tolstring(L, -1, &len) : "";
    if (!r->status)
      snprintf(r->why, sizeof r->why, "the handler returned a table whose status is none of HTTP's");
    else
      snprintf(r->why, sizeof r->why, "answered %d%s%.*s", r->status, len ? ": " : "", start_of(body, len, 200), body);
  }
  lua_settop(L, top);
  return true;
}

/* nil, "what: why", "code" and, where the code is "status", the answer that was not expected. */
static void read_failure(lua_State *L, struct np_result *r, int first, int n) {
  size_t len = 0;
  const char *why = n > 1 && lua_type(L, first + 1) == LUA_TSTRING ? lua_tolstring(L, first + 1, &len) : NULL;
  if (n > 3 && lua_type(L, first + 2) == LUA_TSTRING && strcmp(lua_tostring(L, first + 2), "status") == 0 &&
      read_answer(L, r, first + 3) && r->verdict == NP_DELIVERY_DONE) {
    r->verdict = NP_DELIVERY_AGAIN; /* the handler knows better what it expects */
  }
  if (why)
    snprintf(r->why, sizeof r->why, "%.*s", start_of(why, len, sizeof r->why - 1), why);
  else if (!r->why[0])
    snprintf(r->why, sizeof r->why, "the handler returned %s without saying why", n ? luaL_typename(L, first) : "nothing,");
}

/* A list: of each message true, an HTTP answer, { dead = why }, or a text that says why it has to be tried again. */
static bool read_list(lua_State *L, struct np_delivery *d, int idx) {
  size_t n = lua_istable(L, idx) ? lua_rawlen(L, idx) : 0;
  if (!n) return false;
  if (n != d->count) {
    snprintf(d->all.why, sizeof d->all.why, "the handler returned a list of %zu outcomes for %zu messages", n, d->count);
    return true;
  }
  d->each = np_arena_alloc(&d->arena, n * sizeof *d->each);
  memset(d->each, 0, n * sizeof *d->each);
  for (size_t i = 0; i < n; i++) {
    struct np_result *r = &d->each[i];
    size_t len;
    r->verdict = NP_DELIVERY_AGAIN;
    int type = lua_rawgeti(L, idx, (lua_Integer)i + 1), at = lua_gettop(L);
    const char *why = type == LUA_TSTRING ? lua_tolstring(L, at, &len) : NULL;
    if (type == LUA_TBOOLEAN && lua_toboolean(L, at))
      r->verdict = NP_DELIVERY_DONE;
    else if (why)
      snprintf(r->why, sizeof r->why, "%.*s", start_of(why, len, sizeof r->why - 1), why);
    else if (!read_answer(L, r, at))
      snprintf(r->why, sizeof r->why,
               "the handler's list has a %s; it has to hold true, an HTTP answer, { dead = why }, or a text that says why not",
               luaL_typename(L, at));
    lua_settop(L, at - 1);
  }
  return true;
}

static void take_outcome(lua_State *L, struct np_task *t, int n) {
  struct np_delivery *d = t->owner;
  int first = lua_gettop(L) - n + 1;
  luaL_checkstack(L, 8, NULL);
  if (n && lua_isboolean(L, first) && lua_toboolean(L, first)) {
    d->all.verdict = NP_DELIVERY_DONE;
  } else if (!n || !lua_toboolean(L, first)) {
    read_failure(L, &d->all, first, n);
    d->declined = true;
  } else if (!read_answer(L, &d->all, first) && !read_list(L, d, first)) {
    snprintf(d->all.why, sizeof d->all.why,
             "the handler returned a %s; it has to return true, an HTTP answer, { dead = why }, a list of such, or nil and why not",
             luaL_typename(L, first));
  }
}

/* What is recorded */

static struct np_result *result_of(struct np_delivery *d, size_t i) { return d->each ? &d->each[i] : &d->all; }

static void log_outcome(struct np_delivery *d, size_t i) {
  const struct np_message *m = &d->messages[i];
  const struct np_result *r = result_of(d, i);
  char attempt[16], next[32], status[16], state = d->states[i];
  snprintf(attempt, sizeof attempt, "%d", m->attempts + 1);
  snprintf(status, sizeof status, "%d", r->status);
  snprintf(next, sizeof next, "in %.1f s", (double)(d->due - np_now_ms()) / 1000);
  const char *answer = r->status ? status : NULL;
  if (state == 'd')
    np_log(NP_DEBUG, "delivered", "destination", m->destination.ptr, "message", m->id.ptr, "attempt", attempt, "status", answer,
           NULL);
  else if (state == 'r')
    np_log(NP_WARN, "not delivered", "destination", m->destination.ptr, "message", m->id.ptr, "attempt", attempt, "status", answer,
           "next try", next, "error", r->error, NULL);
  else
    np_log(NP_ERROR, "not delivered; it is a dead letter now", "destination", m->destination.ptr, "message", m->id.ptr, "attempts",
           attempt, "status", answer, "error", r->error, NULL);
}

static void add_sent(struct np_delivery *d, size_t i, int64_t now) {
  const struct np_message *m = &d->messages[i];
  const struct np_result *r = result_of(d, i);
  struct np_op *op = np_writeset_add(d->ws, NP_OP_SENT);
  bool done = d->states[i] == 'd';
  op->as.sent.seq = m->seq;
  op->as.sent.state = d->states[i];
  op->as.sent.attempts = m->attempts + !done;
  op->as.sent.status = r->status;
  op->as.sent.at = now;
  op->as.sent.due = d->states[i] == 'r' ? d->due : 0;
  if (!done) op->as.sent.error = np_writeset_text(d->ws, r->error, strlen(r->error));
}

static void end(struct np_delivery *d) {
  bool waits = memchr(d->states, 'r', d->count) != NULL;
  d->ended(d, waits ? NP_DELIVERY_WAITS : NP_DELIVERY_RECORDED);
}

static void submit(struct np_delivery *d) {
  struct np_writeset *ws = d->ws;
  d->ws = NULL;
  if (np_lane_submit(d->lane, ws, &d->waiter, true) == 0) return;
  np_writeset_unref(ws);
  d->ended(d, NP_DELIVERY_STOPPED);
}

static void submit_again(void *arg) { submit(arg); }

static void give_up(struct np_delivery *d);

/* What the handler has read has changed, so that it runs again; or one of the messages is gone, so that all is done for that one. */
static void resolve_conflict(struct np_delivery *d, struct np_writeset *ws) {
  if (d->seen && ++d->tries < TRIES) {
    np_writeset_unref(ws);
    run(d);
  } else if (d->seen) {
    np_writeset_unref(ws);
    give_up(d);
  } else {
    d->one_by_one = true;
    d->apart = d->wrote;
    np_writeset_undo(ws, d->mark);
    if (d->wrote)
      d->ws = ws;
    else
      np_writeset_unref(ws);
    commit(d);
  }
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct np_delivery *d = (struct np_delivery *)waiter;
  if (ws->outcome == NP_FAILED) {
    np_log(NP_ERROR, "the outcome of a delivery cannot be stored yet", "destination", d->messages->destination.ptr, "message",
           d->messages->id.ptr, "error", ws->error, NULL);
    d->ws = ws;
    np_alarm_set(&d->resubmit, RESUBMIT);
    return;
  }
  if (ws->outcome == NP_CONFLICT && !d->one_by_one && (d->wrote || d->count > 1)) {
    resolve_conflict(d, ws);
    return;
  }
  np_writeset_unref(ws);
  if (d->one_by_one && !d->apart) d->next++;
  d->apart = false;
  if (d->one_by_one && d->next < d->count)
    commit(d);
  else
    end(d);
}

static void commit(struct np_delivery *d) {
  int64_t now = np_now_ms();
  if (!d->ws) d->ws = np_writeset_new();
  d->mark = np_writeset_mark(d->ws);
  if (d->one_by_one && !d->apart)
    add_sent(d, d->next, now);
  else if (!d->one_by_one)
    for (size_t i = 0; i < d->count; i++) add_sent(d, i, now);
  d->waiter.answered = answered;
  submit(d);
}

/* Where all are told to come again, those that are too old do not. */
static void decide(struct np_delivery *d, const struct np_code *code) {
  int64_t now = np_now_ms(), wait = (int64_t)((double)np_backoff(d->messages->attempts + 1, BACKOFF_MOST) * d->jitter);
  for (size_t i = 0; i < d->count; i++)
    if (result_of(d, i)->retry_after > wait) wait = result_of(d, i)->retry_after;
  d->due = now + wait;
  d->states = np_arena_alloc(&d->arena, d->count);
  d->verdict = NP_DELIVERY_AGAIN;
  for (size_t i = 0; i < d->count; i++) {
    enum np_verdict verdict = result_of(d, i)->verdict;
    bool old = (double)(now - d->messages[i].created) >= code->retry_for * 1000;
    d->states[i] = verdict == NP_DELIVERY_DONE ? 'd' : verdict == NP_DELIVERY_REFUSED || old ? 'x' : 'r';
    if (verdict != NP_DELIVERY_AGAIN) d->verdict = verdict;
    log_outcome(d, i);
  }
}

static void mask_why(struct np_result *r) {
  free(r->error);
  r->error = np_mask_text(r->why, strlen(r->why));
}

static void drop_results(struct np_delivery *d) {
  for (size_t i = 0; d->each && i < d->count; i++) free(d->each[i].error);
  free(d->all.error);
  d->each = NULL;
  d->all = (struct np_result){.verdict = NP_DELIVERY_AGAIN};
  d->declined = false;
}

static void drop_writes(struct np_delivery *d) {
  np_overlay_free(&d->overlay);
  if (d->ws) np_writeset_unref(d->ws);
  d->ws = NULL;
  d->wrote = d->seen = false;
}

static void give_up(struct np_delivery *d) {
  drop_results(d);
  drop_writes(d);
  snprintf(d->all.why, sizeof d->all.why, "others kept changing what the handler reads");
  mask_why(&d->all);
  decide(d, d->in->code);
  commit(d);
}

static void note_writes(struct np_delivery *d) {
  np_overlay_free(&d->overlay);
  for (const struct np_op *op = d->ws ? d->ws->first : NULL; op; op = op->next) {
    d->wrote = true;
    if (op->kind == NP_OP_SEEN) d->seen = true;
  }
}

static void after_handler(struct np_task *t) {
  struct np_delivery *d = t->owner;
  d->running = false;
  if (!d->ended) return; /* it is being freed */
  if (t->failed) {
    drop_results(d);
    struct np_buf why = {0};
    np_buf_addf(&why, "the handler raised: %s", t->error ? t->error : "an error");
    d->all.error = np_mask_text(np_buf_text(&why), why.len);
    np_buf_free(&why);
  } else {
    for (size_t i = 0; d->each && i < d->count; i++) mask_why(&d->each[i]);
    mask_why(&d->all);
  }
  bool split = !d->each && d->all.verdict == NP_DELIVERY_REFUSED && d->count > 1;
  if (t->failed || d->declined || split)
    drop_writes(d);
  else
    note_writes(d);
  if (!d->tries) d->handled(d);
  if (split) {
    d->verdict = NP_DELIVERY_REFUSED;
    np_log(NP_WARN, "a batch was refused: each message is tried alone", "destination", d->messages->destination.ptr, "error",
           d->all.error, NULL);
    d->ended(d, NP_DELIVERY_SPLIT);
    return;
  }
  decide(d, t->in->code);
  commit(d);
}

static void run(struct np_delivery *d) {
  bool vendor = d->in->code->kind == NP_VENDOR;
  drop_results(d);
  drop_writes(d);
  if (vendor) d->ws = np_writeset_new();
  d->running = true;
  d->task = (struct np_task){.in = d->in,
                             .mode = NP_DELIVERING,
                             .ws = d->ws,
                             .overlay = vendor ? &d->overlay : NULL,
                             .where = "deliver",
                             .handler = d->in->code->deliver,
                             .push = push_messages,
                             .take = take_outcome,
                             .ended = after_handler,
                             .owner = d};
  np_task_start(&d->task);
}

void np_delivery_start(struct np_delivery *d, struct np_instance *in) {
  d->resubmit = (struct np_alarm){.lane = d->lane, .fn = submit_again, .arg = d};
  d->in = in;
  np_lane_pin(d->lane, in);
  run(d);
}

void np_delivery_free(struct np_delivery *d) {
  if (d->running) {
    d->ended = NULL;
    np_task_kill(&d->task, "neap is stopping");
  }
  np_alarm_stop(&d->resubmit);
  drop_results(d);
  drop_writes(d);
  if (d->in) np_lane_unpin(d->lane, d->in);
  np_arena_free(&d->arena);
  free(d);
}
