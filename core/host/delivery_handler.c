/* What a delivery's handler is given, and what it answers: in its protected call, so without malloc that a raise could lose. */
#include "host/delivery_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <lauxlib.h>

#include "base/clock.h"
#include "base/redact.h"
#include "base/utf8.h"
#include "lib/json.h"

#define RETRY_AFTER_MOST 3600000
#define HIDDEN_LEAST 4 /* bytes: less would mask ordinary text */

/* What goes in. */

static void set_text(lua_State *L, const char *name, struct np_text text) {
  lua_pushlstring(L, text.ptr ? text.ptr : "", text.len);
  lua_setfield(L, -2, name);
}

/* What is not to be shown is masked, like people's details, while the handler runs. */
static void hide(void *arg, const char *text, size_t len) {
  struct np_task *t = arg;
  if (len < HIDDEN_LEAST) return;
  struct np_mask *m = np_arena_alloc(&t->arena, sizeof *m);
  *m = (struct np_mask){.next = t->people, .value = np_arena_copy(&t->arena, text, len), .len = len};
  t->people = m;
  np_mask_people(m);
}

/* @class neap.Message: a message, as a destination is given it.
 * @field id string the same over all attempts
 * @field device string whose order it keeps
 * @field destination string
 * @field source string the rule that sent it
 * @field json string what was sent, as JSON
 * @field data any what was sent
 * @field shown? string json, with what the terms redact left out
 * @field created integer ms
 * @field about? integer ms: the moment that it is about: when the reading that led to it had been received, or its timer was due
 * @field replayed? integer the number of the replay that made it, of `neap replay --send`; nil: it is as it happens
 * @field attempt integer 1 at first
 */
static void push_message(lua_State *L, struct np_task *t, const struct np_message *m) {
  const struct np_terms *terms = &t->in->code->terms;
  struct np_error err;
  lua_createtable(L, 0, 11);
  if (terms->redact_count) {
    struct np_delivery *d = t->owner;
    np_buf_clear(&d->shown);
    np_redact(&d->shown, m->body.ptr ? m->body.ptr : "", m->body.len, (const char *const *)terms->redact, terms->redact_count, hide,
              t);
    set_text(L, "shown", (struct np_text){d->shown.data, d->shown.len});
  }
  set_text(L, "id", m->id);
  set_text(L, "device", m->device);
  set_text(L, "destination", m->destination);
  set_text(L, "source", m->source);
  set_text(L, "json", m->body);
  lua_pushinteger(L, m->created);
  lua_setfield(L, -2, "created");
  if (m->about) lua_pushinteger(L, m->about), lua_setfield(L, -2, "about");
  if (m->replayed) lua_pushinteger(L, m->replayed), lua_setfield(L, -2, "replayed");
  lua_pushinteger(L, (lua_Integer)m->attempts + 1);
  lua_setfield(L, -2, "attempt");
  if (np_json_decode(L, m->body.ptr ? m->body.ptr : "", m->body.len, &err)) luaL_error(L, "message %s: %s", m->id.ptr, err.text);
  lua_setfield(L, -2, "data");
}

int np_delivery_push(lua_State *L, struct np_task *t) {
  const struct np_delivery *d = t->owner;
  luaL_checkstack(L, 8, NULL);
  lua_createtable(L, (int)d->count, 0);
  for (size_t i = 0; i < d->count; i++) {
    push_message(L, t, &d->messages[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->in->settings);
  return 2;
}

/* What comes out. */

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

/* RFC 9110 10.2.3: seconds, or a date; what is neither says nothing. */
static int64_t retry_after(const char *text) {
  size_t n = strspn(text, "0123456789.");
  double ms = n && !text[n] ? strtod(text, NULL) * 1000 : 0;
  time_t at = text[n] ? curl_getdate(text, NULL) : -1;
  if (at >= 0) ms = (double)at * 1000 - (double)np_now_ms();
  if (!(ms > 0)) return 0;
  return ms > RETRY_AFTER_MOST ? RETRY_AFTER_MOST : (int64_t)ms;
}

static enum np_delivery_verdict judge(int status) {
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
  size_t len = 0;
  const char *body = raw_field(L, idx, "body") == LUA_TSTRING ? lua_tolstring(L, -1, &len) : "";
  snprintf(r->answer, sizeof r->answer, "%.*s", start_of(body, len, sizeof r->answer - 1), body);
  if (!r->status)
    snprintf(r->why, sizeof r->why, "answered %lld, which is no status of HTTP's", (long long)status);
  else if (r->verdict != NP_DELIVERY_DONE)
    snprintf(r->why, sizeof r->why, "answered %d%s%s", r->status, len ? ": " : "", r->answer);
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

void np_delivery_take(lua_State *L, struct np_task *t, int n) {
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
