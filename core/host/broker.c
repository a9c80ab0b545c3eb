/* The broker: its lock, and how a call waits for what another lane may give.
 *
 * A waiting call stands in a list of what it waits for. Whoever has it (any thread, with the lock) moves the call to the ready list of its lane and
 * writes to that lane; the lane wakes what is ready. Where the call ends first, its userdata is closed and takes itself out of the list. */
#include "host/broker.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/random.h"
#include "host/account.h"
#include "host/budget.h"
#include "host/courier.h"
#include "host/host.h"
#include "host/outlet.h"

#define WAIT "neap.wait"

void np_broker_lock(struct np_broker *b) { pthread_mutex_lock(&b->lock); }

void np_broker_unlock(struct np_broker *b) { pthread_mutex_unlock(&b->lock); }

double np_broker_random(struct np_broker *b) {
  b->random ^= b->random << 13, b->random ^= b->random >> 7, b->random ^= b->random << 17;
  return (double)(b->random >> 11) * 0x1p-53;
}

/* Lists. */

void np_wait_enter(struct np_waits *list, struct np_wait *w) {
  w->in = list;
  w->next = NULL;
  w->prev = list->last;
  *(list->last ? &list->last->next : &list->first) = w;
  list->last = w;
}

void np_wait_leave(struct np_wait *w) {
  if (!w->in) return;
  *(w->prev ? &w->prev->next : &w->in->first) = w->next;
  *(w->next ? &w->next->prev : &w->in->last) = w->prev;
  w->in = NULL;
}

static void write_to(struct np_lane *lane) {
  struct np_letter *letter = np_alloc(sizeof *letter);
  letter->kind = NP_LETTER_BROKER;
  np_lane_send(lane, letter);
}

void np_wait_wake(struct np_wait *w) {
  struct np_waits *ready = &w->broker->lanes[w->lane->index].ready;
  np_wait_leave(w);
  bool first = !ready->first;
  np_wait_enter(ready, w);
  if (first && !w->broker->closed) write_to(w->lane);
}

/* A call that waits. */

static int close_wait(lua_State *L) {
  struct np_wait *w = luaL_checkudata(L, 1, WAIT);
  if (!w->broker) return 0;
  np_broker_lock(w->broker);
  np_wait_leave(w);
  np_broker_unlock(w->broker);
  np_alarm_stop(&w->alarm);
  if (w->close) w->close(L, w);
  w->broker = NULL;
  return 0;
}

static void wake_late(struct np_wait *w) {
  np_wait_leave(w);
  np_alarm_stop(&w->alarm);
  w->late = true;
  w->env->wake(w->ticket); /* it only queues the call */
}

static void on_late(void *arg) {
  struct np_wait *w = arg, *next;
  struct np_broker *b = w->broker;
  np_broker_lock(b);
  if (w->in && w->in != &b->lanes[w->lane->index].ready) {
    for (struct np_wait *before = w->in->first; w->in_order && before != w; before = next) {
      next = before->next;
      if (before->lane == w->lane) wake_late(before);
    }
    wake_late(w);
  }
  np_broker_unlock(b);
}

void *np_wait_push(lua_State *L, size_t size, void (*close)(lua_State *L, struct np_wait *w)) {
  struct np_instance *in = (struct np_instance *)np_env(L);
  struct np_wait *w = lua_newuserdatauv(L, size, 0);
  memset(w, 0, size);
  if (luaL_newmetatable(L, WAIT)) {
    lua_pushcfunction(L, close_wait);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, close_wait);
    lua_setfield(L, -2, "__close");
  }
  lua_setmetatable(L, -2);
  lua_toclose(L, -1);
  w->broker = in->lane->host->broker;
  w->lane = in->lane;
  w->env = np_env(L);
  w->close = close;
  w->alarm = (struct np_alarm){.lane = in->lane, .fn = on_late, .arg = w};
  return w;
}

int np_wait_yield(lua_State *L, struct np_wait *w, int64_t ms, lua_KFunction k) {
  w->late = false;
  np_alarm_set(&w->alarm, ms);
  w->ticket = w->env->ticket(w->env);
  return lua_yieldk(L, 0, (lua_KContext)w, k);
}

/* The lane's part. */

void np_broker_start(struct np_lane *lane, struct np_refresh *r) {
  struct np_broker *b = lane->host->broker;
  struct np_broker_lane *own = &b->lanes[lane->index];
  bool first = !own->starts;
  np_refresh_link(&own->starts, r);
  if (first) write_to(lane);
}

void np_broker_tell(struct np_broker *b, int lane) {
  struct np_broker_lane *own = &b->lanes[lane];
  if (own->courier || b->closed || !b->host->lanes[lane]) return;
  own->courier = true;
  write_to(b->host->lanes[lane]);
}

static void wake_ready(struct np_broker *b, struct np_broker_lane *own) {
  np_broker_lock(b);
  for (struct np_wait *w; (w = own->ready.first);) {
    np_wait_leave(w);
    np_alarm_stop(&w->alarm);
    w->env->wake(w->ticket); /* it only queues the call */
  }
  np_broker_unlock(b);
}

void np_broker_run(struct np_lane *lane) {
  struct np_broker *b = lane->host->broker;
  struct np_broker_lane *own = &b->lanes[lane->index];
  wake_ready(b, own);
  np_broker_lock(b);
  struct np_refresh *starts = own->starts;
  own->starts = NULL;
  bool courier = own->courier;
  own->courier = false;
  np_broker_unlock(b);
  if (courier) np_courier_wake(lane->courier);
  np_refresh_run(lane, starts);
}

void np_broker_drain(struct np_lane *lane) { np_budgets_drain(lane); }

void np_broker_leave(struct np_lane *lane) { np_refresh_leave(lane); }

struct np_broker *np_broker_new(struct np_host *host) {
  struct np_broker *b = np_alloc(sizeof *b);
  b->host = host;
  b->lanes = np_alloc((size_t)host->lane_count * sizeof *b->lanes);
  pthread_mutex_init(&b->lock, NULL);
  b->random = np_random_number();
  return b;
}

void np_broker_settle(struct np_broker *b) {
  struct np_writeset *ws = np_writeset_new();
  struct np_error err;
  np_broker_lock(b);
  b->closed = true;
  np_accounts_settle(b, ws);
  np_budgets_settle(b, ws);
  np_broker_unlock(b);
  if (!ws->first)
    np_writeset_unref(ws);
  else if (np_keeper_apply(b->host->keeper, ws, &err) != NP_COMMITTED)
    np_log(NP_ERROR, "what accounts and budgets had left to store is lost", "error", err.text, NULL);
}

void np_broker_free(struct np_broker *b) {
  if (!b) return;
  np_accounts_free(b);
  np_budgets_free(b);
  np_outlets_free(b);
  pthread_mutex_destroy(&b->lock);
  free(b->lanes);
  free(b);
}
