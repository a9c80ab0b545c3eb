/* A refresh: a call of the plugin's own, on the lane and the generation that first found no good token. It does not end with the call that wanted it; what
 * it returns is stored together with what it wrote, and then given to all who wait. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/account.h"
#include "host/host.h"
#include "host/ledger.h"
#include "host/task.h"
#include "lib/json.h"

#define BYTES_MAX 65536 /* of what it returns, as JSON */

struct np_refresh {
  struct np_waiter waiter; /* first: the keeper's answer finds its way back by it */
  struct np_refresh *next, **prev;
  struct np_account *account; /* borrowed */
  struct np_instance *in;     /* pinned */
  int handler;
  int64_t early;        /* ms, -1: neap's own */
  struct np_token *old; /* a reference: what it is given */
  bool storing;         /* there is a fresh one: it has only to be stored */
  int64_t began;        /* ms */
  bool handling;        /* the handler runs or waits */
  struct np_task task;
  struct np_overlay overlay;
  struct np_writeset *ws; /* owned until submitted */
  /* What it returned. */
  struct np_buf json; /* a token */
  double lifetime;    /* seconds; 0: it does not expire */
  char *why;          /* owned: or why not */
  const char *code;
};

/* With the lock. */
struct np_refresh *np_refresh_new(struct np_account *a, struct np_instance *in, const struct np_account_decl *decl) {
  struct np_refresh *r = np_alloc(sizeof *r);
  struct np_token *newest = np_account_newest(a);
  *r = (struct np_refresh){.account = a, .in = in, .handler = decl->handler, .early = decl->early, .old = newest};
  if (newest) newest->refs++;
  r->storing = a->fresh && np_now_ms() < a->fresh->expires;
  np_lane_pin(in->lane, in);
  return r;
}

void np_refresh_link(struct np_refresh **list, struct np_refresh *r) {
  r->next = *list;
  r->prev = list;
  if (r->next) r->next->prev = &r->next;
  *list = r;
}

static void unlink_refresh(struct np_refresh *r) {
  *r->prev = r->next;
  if (r->next) r->next->prev = r->prev;
}

static struct np_broker *broker_of(const struct np_refresh *r) { return r->in->lane->host->broker; }

/* It is over, and its account has been told. */
static void finish(struct np_refresh *r) {
  struct np_broker *b = broker_of(r);
  unlink_refresh(r);
  np_broker_lock(b);
  np_token_unref(r->old);
  np_broker_unlock(b);
  np_overlay_free(&r->overlay);
  if (r->ws) np_writeset_unref(r->ws);
  np_buf_free(&r->json);
  free(r->why);
  np_lane_unpin(r->in->lane, r->in);
  free(r);
}

static void log_failure(const struct np_refresh *r, int failures, int64_t ms, const char *why) {
  char generation[16], next[32], count[16];
  bool denied = strcmp(r->code, "denied") == 0;
  snprintf(generation, sizeof generation, "%d", r->in->code->number);
  snprintf(count, sizeof count, "%d", failures);
  snprintf(next, sizeof next, "in %.1f s", (double)ms / 1000);
  np_log(denied ? NP_ERROR : NP_WARN,
         denied ? "an account was denied: not tried again until its settings change, neap reload, or an hour has passed"
                : "an account could not be refreshed",
         "plugin", r->account->connection, "account", r->account->shown, "generation", generation, "failures",
         denied ? NULL : count, "next try", denied ? NULL : next, "error", why, NULL);
}

/* Calls are told the first line: what follows is a traceback, for the log. */
static void fail(struct np_refresh *r, const char *why, const char *code) {
  struct np_broker *b = broker_of(r);
  char *line = np_strndup(why, strcspn(why, "\n"));
  r->code = code;
  np_broker_lock(b);
  int64_t ms = np_account_failed(b, r->account, r->in->code->number, line, code);
  int failures = r->account->failures;
  np_broker_unlock(b);
  log_failure(r, failures, ms, why);
  free(line);
  finish(r);
}

/* Storing. */

static void store(struct np_refresh *r);

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct np_refresh *r = (struct np_refresh *)waiter;
  struct np_broker *b = broker_of(r);
  enum np_outcome outcome = ws->outcome;
  char why[sizeof ws->error + 40];
  snprintf(why, sizeof why, "its token could not be stored: %s", ws->error);
  np_writeset_unref(ws);
  if (outcome == NP_CONFLICT) {
    /* Others were quicker to what it read. To run it again would ask the vendor again; the token must not be lost: it is stored by itself. */
    np_log(NP_WARN, "what an account's refresh wrote besides its token is not kept: what it had read was changed meanwhile",
           "plugin", r->account->connection, "account", r->account->shown, NULL);
    store(r);
    return;
  }
  np_broker_lock(b);
  if (outcome == NP_COMMITTED)
    np_account_stored(b, r->account, r->early);
  else
    np_account_not_stored(r->account, why);
  np_broker_unlock(b);
  if (outcome == NP_FAILED)
    np_log(NP_ERROR, "an account's new token is in memory alone; the next call tries again to store it", "plugin",
           r->account->connection, "account", r->account->shown, "error", why, NULL);
  finish(r);
}

/* Fresh, with what else is in r->ws. */
static void store(struct np_refresh *r) {
  struct np_broker *b = broker_of(r);
  struct np_writeset *ws = r->ws ? r->ws : np_writeset_new();
  r->ws = NULL;
  np_broker_lock(b);
  np_account_put(b, ws, r->account, r->account->fresh);
  np_broker_unlock(b);
  r->waiter.answered = answered;
  if (np_lane_submit(r->in->lane, ws, &r->waiter, true) == 0) return;
  np_writeset_unref(ws);
  np_broker_lock(b);
  np_account_not_stored(r->account, "neap is stopping");
  np_broker_unlock(b);
  finish(r);
}

/* The handler. */

static int push_arguments(lua_State *L, struct np_task *t) {
  struct np_refresh *r = t->owner;
  struct np_error err;
  const char *key = strchr(r->account->name, '/');
  lua_pushstring(L, key ? key + 1 : "");
  if (!r->old)
    lua_pushnil(L);
  else if (np_json_decode(L, r->old->json, r->old->len, &err) < 0)
    luaL_error(L, "account %s: %s", r->account->name, err.text);
  if (r->old) np_token_hide(L, -1);
  return 2;
}

static void check_flat(lua_State *L, int at) {
  for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
    int type = lua_type(L, -1);
    if (lua_type(L, -2) != LUA_TSTRING || (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN))
      luaL_error(L,
                 "plugin:account: refresh has to return a flat table of names with strings, numbers and booleans; \"%s\" is a %s",
                 lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "a name", lua_typename(L, type));
  }
}

static void take_token(lua_State *L, struct np_refresh *r, int at) {
  size_t len;
  struct np_error err;
  check_flat(L, at);
  if (lua_getfield(L, at, "access") != LUA_TSTRING || !lua_rawlen(L, -1))
    luaL_error(L, "plugin:account: refresh has to return a table whose `access` is a string that is not empty");
  int type = lua_getfield(L, at, "lifetime");
  double seconds = type == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
  if (type != LUA_TNIL && !(seconds > 0 && seconds < 3.2e9))
    luaL_error(L, "plugin:account: `lifetime` has to be a number of seconds above 0, got %s", luaL_tolstring(L, -1, NULL));
  np_token_hide(L, at);
  if (np_json_encode(L, at, &err) < 0) luaL_error(L, "plugin:account: what refresh returned: %s", err.text);
  const char *text = lua_tolstring(L, -1, &len);
  if (len > BYTES_MAX) luaL_error(L, "plugin:account: refresh returned more than %d bytes", BYTES_MAX);
  np_buf_add(&r->json, text, len);
  r->lifetime = seconds;
}

static void take_result(lua_State *L, struct np_task *t, int n) {
  static const char *const codes[] = {"denied", "quota"};
  struct np_refresh *r = t->owner;
  int at = lua_gettop(L) - n + 1;
  luaL_checkstack(L, 8, NULL);
  if (n > 0 && lua_istable(L, at)) {
    take_token(L, r, at);
  } else if (n > 1 && lua_isnil(L, at) && lua_type(L, at + 1) == LUA_TSTRING) {
    size_t len;
    const char *why = lua_tolstring(L, at + 1, &len),
               *code = n > 2 && lua_type(L, at + 2) == LUA_TSTRING ? lua_tostring(L, at + 2) : "";
    r->code = "again";
    for (size_t i = 0; i < 2; i++)
      if (strcmp(code, codes[i]) == 0) r->code = codes[i];
    r->why = np_mask_text(why, len < 2000 ? len : 2000);
  } else {
    luaL_error(L, "plugin:account: refresh has to return a table with `access`, or nil and why");
  }
}

static void take_in(struct np_refresh *r) {
  struct np_broker *b = broker_of(r);
  struct np_token *t = np_alloc(sizeof *t);
  *t = (struct np_token){.refs = 1, .serial = r->old ? r->old->serial + 1 : 1, .obtained = r->began, .expires = INT64_MAX};
  if (r->lifetime > 0) t->expires = r->began + (int64_t)ceil(r->lifetime * 1000);
  t->json = r->json.data;
  t->len = r->json.len;
  r->json = (struct np_buf){0};
  np_broker_lock(b);
  np_account_got(r->account, t);
  np_broker_unlock(b);
}

static void ended(struct np_task *t) {
  struct np_refresh *r = t->owner;
  r->handling = false;
  np_overlay_free(&r->overlay);
  if (broker_of(r)->closed) return; /* np_refresh_leave goes on */
  if (t->failed) {
    fail(r, t->error, "again");
  } else if (r->why) {
    fail(r, r->why, r->code);
  } else {
    take_in(r);
    store(r);
  }
}

bool np_refresh_is_of(const struct np_task *t, const struct np_account *a) {
  return t->ended == ended && ((const struct np_refresh *)t->owner)->account == a;
}

static void start(struct np_refresh *r) {
  r->began = np_now_ms();
  if (r->storing) {
    store(r);
    return;
  }
  r->handling = true;
  r->ws = np_writeset_new();
  r->task = (struct np_task){.in = r->in,
                             .mode = NP_JOBBING,
                             .ws = r->ws,
                             .overlay = &r->overlay,
                             .handler = r->handler,
                             .push = push_arguments,
                             .take = take_result,
                             .ended = ended,
                             .where = r->account->name,
                             .owner = r};
  np_task_start(&r->task);
}

void np_refresh_run(struct np_lane *lane, struct np_refresh *list) {
  struct np_broker_lane *own = &lane->host->broker->lanes[lane->index];
  for (struct np_refresh *r = list, *next; r; r = next) {
    next = r->next;
    np_refresh_link(&own->running, r);
    start(r);
  }
}

/* Dropped: nothing of it was stored. What the vendor had given by then is lost with it, as in a crash. */
void np_refresh_leave(struct np_lane *lane) {
  struct np_broker_lane *own = &lane->host->broker->lanes[lane->index];
  struct np_refresh **lists[] = {&own->running, &own->starts};
  for (size_t i = 0; i < 2; i++)
    for (struct np_refresh *r = *lists[i], *next; r; r = next) {
      next = r->next;
      if (r->handling) np_task_kill(&r->task, "neap is stopping");
      finish(r);
    }
}
