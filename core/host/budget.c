/* Budgets.
 *
 * By the second and the minute: each call takes its turn at once and then waits until it has come, so that turns are in the order of the calls, and no
 * lane has to tell another. A call that ends before its turn gives it back.
 *
 * By the month (of the calendar, UTC): the store says how many are reserved; a block of them is reserved, durably, before the first of it is used, so that a
 * crash can lose some but never forgets one that was used. What is not used at a clean stop is given back. */
#include "host/budget.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/host.h"
#include "host/place.h"
#include "host/task.h"

#define SPACE "neap.budgets" /* key "CONNECTION/NAME/2026-11", value the number that is reserved */
#define HANDLE "neap.budget"
#define BLOCK_MOST 100
#define KEEP_MS (400 * 86400000LL)
#define TAKE_MOST 1000000

enum { SECOND, MINUTE, RATES };

struct rate {
  double per_us, burst; /* per_us 0: no bound */
  double level;         /* under 0: as much is promised */
};

struct budget {
  struct np_waiter waiter; /* first: the keeper's answer about a block finds its way back by it */
  struct np_broker *broker;
  char *id;         /* owned: "CONNECTION/NAME" */
  const char *name; /* in id */
  int generation;   /* whose numbers these are */
  struct rate rates[RATES];
  int64_t filled; /* us on the monotonic clock: when the levels were right */
  int64_t limit;  /* a month; 0: no bound */
  char month[16]; /* that the following is about: "2026-11"; "" before the first */
  int64_t reserved, available;
  bool told;      /* the log has been told that it is used up */
  bool reserving; /* a block is being stored */
  char block_month[16];
  int64_t block;
  struct np_lane *lane;   /* that stores it */
  struct np_waits months; /* struct take: for the block, in order */
  struct np_waits turns;  /* struct take: for their turn, in order */
};

struct take {
  struct np_wait wait; /* first */
  struct budget *budget;
  int64_t n;
  bool counted, promised, done;
  const char *code; /* static: why it was not granted; NULL */
  char why[200];
};

static void month_of(int64_t ms, char out[16]) {
  time_t s = (time_t)(ms / 1000);
  struct tm tm;
  gmtime_r(&s, &tm);
  strftime(out, 16, "%Y-%m", &tm);
}

static struct budget *find(struct np_broker *b, const char *connection, const char *name) {
  struct np_buf id = {0};
  np_buf_addf(&id, "%s/%s", connection, name);
  struct budget *u = np_map_get(&b->budgets, id.data, id.len);
  if (!u) {
    u = np_alloc(sizeof *u);
    *u = (struct budget){.broker = b, .id = np_strdup(id.data), .filled = np_mono_us()};
    u->name = u->id + strlen(connection) + 1;
    np_map_put(&b->budgets, id.data, id.len, u);
  }
  np_buf_free(&id);
  return u;
}

/* By the second and the minute. */

static void set_rate(struct rate *r, double per_us, double burst) {
  bool had = r->per_us > 0;
  *r = (struct rate){per_us, burst, had && r->level < burst ? r->level : burst};
}

/* A second's worth may come at once. Of a minute's only a tenth, the rest spread over it: so there are never more in any minute. */
static void set_rates(struct budget *u, const struct np_budget_decl *d, int generation) {
  if (generation == u->generation) return;
  u->generation = generation;
  set_rate(&u->rates[SECOND], d->per_second / 1e6, d->per_second > 1 ? d->per_second : 1);
  double burst = d->per_minute > 10 ? d->per_minute / 10 : 1, rest = d->per_minute > 1 ? d->per_minute - burst : d->per_minute;
  set_rate(&u->rates[MINUTE], rest / 60e6, burst);
  u->limit = d->per_month;
}

static void fill(struct budget *u, int64_t now) {
  for (int i = 0; i < RATES; i++) {
    struct rate *r = &u->rates[i];
    r->level += (double)(now - u->filled) * r->per_us;
    if (r->level > r->burst) r->level = r->burst;
  }
  u->filled = now;
}

/* us until n may be taken: more than a burst may be taken as well, and is then paid back. */
static int64_t wait_for(const struct rate *r, int64_t n) {
  double need = (double)n < r->burst ? (double)n : r->burst;
  if (r->per_us <= 0 || r->level >= need) return 0;
  return (int64_t)ceil((need - r->level) / r->per_us);
}

static void promise(struct budget *u, int64_t n) {
  for (int i = 0; i < RATES; i++)
    if (u->rates[i].per_us > 0) u->rates[i].level -= (double)n;
}

/* By the month. */

static int64_t left_of(const struct budget *u) { return u->limit - u->reserved + u->available; }

/* With the lock: the month has changed, or nothing is known yet. */
static bool knows_month(const struct budget *u) {
  char month[16];
  month_of(np_now_ms(), month);
  return strcmp(month, u->month) == 0;
}

static int read_reserved(struct np_reader *reader, const char *id, const char *month, int64_t *reserved, struct np_error *err) {
  struct np_buf key = {0}, value = {0};
  int64_t version;
  np_buf_addf(&key, "%s/%s", id, month);
  int found = np_reader_get(reader, SPACE, key.data, key.len, np_now_ms(), &value, &version, err);
  *reserved = found > 0 ? strtoll(np_buf_text(&value), NULL, 10) : 0;
  np_buf_free(&key);
  np_buf_free(&value);
  return found < 0 ? -1 : 0;
}

/* Without the lock. */
static int learn_month(struct budget *u, struct np_lane *lane, struct np_error *err) {
  char month[16];
  int64_t reserved;
  month_of(np_now_ms(), month);
  if (read_reserved(lane->reader, u->id, month, &reserved, err) < 0) return -1;
  np_broker_lock(u->broker);
  if (strcmp(u->month, month) != 0) {
    strcpy(u->month, month);
    u->reserved = reserved;
    u->available = 0;
    u->told = false;
  }
  np_broker_unlock(u->broker);
  return 0;
}

static void put_reserved(struct np_writeset *ws, const struct budget *u, const char *month, int64_t reserved) {
  struct np_buf key = {0}, value = {0};
  np_buf_addf(&key, "%s/%s", u->id, month);
  np_buf_addf(&value, "%" PRId64, reserved);
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, SPACE, strlen(SPACE));
  op->as.put.key = np_writeset_text(ws, key.data, key.len);
  op->as.put.value = np_writeset_text(ws, value.data, value.len);
  op->as.put.expires = np_now_ms() + KEEP_MS;
  np_buf_free(&key);
  np_buf_free(&value);
}

static void refuse(struct take *t, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void refuse(struct take *t, const char *code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(t->why, sizeof t->why, format, args);
  va_end(args);
  t->code = code;
}

static void used_up(struct take *t) {
  struct budget *u = t->budget;
  int64_t left = left_of(u);
  if (left > 0) {
    refuse(t, "quota", "only %" PRId64 " of the %" PRId64 " of %s are left", left, u->limit, u->month);
    return;
  }
  refuse(t, "quota", "the %" PRId64 " of %s are used up", u->limit, u->month);
  if (u->told) return;
  u->told = true;
  char limit[24];
  snprintf(limit, sizeof limit, "%" PRId64, u->limit);
  np_log(NP_WARN, "a month's budget is used up", "budget", u->id, "month", u->month, "limit", limit, NULL);
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws);

static void fail_block(struct budget *u, const char *why) {
  for (struct np_wait *w; (w = u->months.first);) {
    refuse((struct take *)w, "store", "its count could not be stored: %s", why);
    np_wait_wake(w);
  }
}

static void reserve(struct budget *u, struct np_lane *lane, int64_t n) {
  int64_t block = u->limit / 100, most = u->limit - u->reserved;
  if (block > BLOCK_MOST) block = BLOCK_MOST;
  if (block < n - u->available) block = n - u->available;
  if (block < 1) block = 1;
  if (block > most) block = most;
  u->reserving = true;
  u->block = block;
  u->lane = lane;
  strcpy(u->block_month, u->month);
  struct np_writeset *ws = np_writeset_new();
  put_reserved(ws, u, u->month, u->reserved + block);
  u->waiter.answered = answered;
  if (np_lane_submit(lane, ws, &u->waiter, true) == 0) return;
  np_writeset_unref(ws);
  u->reserving = false;
  fail_block(u, "neap is stopping");
}

/* Counted, or refused: true. Else a block has to be reserved first. */
static bool count(struct take *t) {
  struct budget *u = t->budget;
  if (!u->limit) return true;
  if (left_of(u) < t->n) {
    used_up(t);
    return true;
  }
  if (u->available < t->n) return false;
  u->available -= t->n;
  t->counted = true;
  return true;
}

/* Those who wait for a block, in order. */
static void serve_months(struct budget *u, struct np_lane *lane) {
  for (struct np_wait *w; !u->reserving && (w = u->months.first);) {
    if (count((struct take *)w))
      np_wait_wake(w);
    else
      reserve(u, lane, ((struct take *)w)->n);
  }
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct budget *u = (struct budget *)waiter;
  np_broker_lock(u->broker);
  u->reserving = false;
  bool same = strcmp(u->block_month, u->month) == 0; /* else it was the month before's */
  if (ws->outcome == NP_COMMITTED && same) {
    u->reserved += u->block;
    u->available += u->block;
  }
  if (ws->outcome != NP_COMMITTED) fail_block(u, ws->error);
  serve_months(u, u->lane);
  np_broker_unlock(u->broker);
  np_writeset_unref(ws);
}

/* Taking. */

static void close_take(lua_State *L, struct np_wait *w) {
  (void)L;
  struct take *t = (struct take *)w;
  if (t->done || !t->budget) return;
  np_broker_lock(w->broker);
  if (t->promised) promise(t->budget, -t->n);
  if (t->counted) t->budget->available += t->n;
  np_broker_unlock(w->broker);
}

static int finish(lua_State *L, struct take *t) {
  if (!t->code) {
    t->done = true;
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_pushfstring(L, "budget %s: %s", t->budget->name, t->why);
  lua_pushstring(L, t->code);
  return 3;
}

static int at_turn(lua_State *L, int status, lua_KContext context) {
  (void)status;
  return finish(L, (struct take *)context);
}

/* With the lock: its turn is promised, or it is refused. us until then. */
static int64_t take_turn(struct take *t, int64_t left_us) {
  struct budget *u = t->budget;
  int64_t now = np_mono_us(), wait = 0;
  fill(u, now);
  for (int i = 0; i < RATES; i++) {
    int64_t one = wait_for(&u->rates[i], t->n);
    if (one > wait) wait = one;
  }
  if (wait > left_us) {
    refuse(t, "quota", "its turn would come in %.1f s, and the call has no time left to wait", (double)wait / 1e6);
    return 0;
  }
  if (wait > 0 && t->wait.lane->draining) {
    refuse(t, "stopped", "neap is stopping");
    return 0;
  }
  promise(u, t->n);
  t->promised = true;
  return wait;
}

static int turn(lua_State *L, struct take *t) {
  struct np_broker *b = t->wait.broker;
  np_broker_lock(b);
  int64_t us = take_turn(t, (int64_t)(t->wait.env->time_left(t->wait.env) * 1e6));
  t->wait.in_order = true;
  if (us > 0) np_wait_enter(&t->budget->turns, &t->wait);
  np_broker_unlock(b);
  return us > 0 ? np_wait_yield(L, &t->wait, (us + 999) / 1000, at_turn) : finish(L, t);
}

static int at_month(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct take *t = (struct take *)context;
  if (t->wait.late) refuse(t, "quota", "its count was not stored in time, and the call has no time left");
  return t->code ? finish(L, t) : turn(L, t);
}

static const struct np_budget_decl *declared(lua_State *L, const struct np_instance *in, const char *name) {
  for (size_t i = 0; i < in->code->budget_count; i++)
    if (strcmp(in->code->budgets[i].name, name) == 0) return &in->code->budgets[i];
  luaL_error(L, "budget %s: not while the file is loaded: call it from a handler or a job", name);
  return NULL;
}

static int64_t count_at(lua_State *L, int idx) {
  int exact = 1;
  lua_Integer n = lua_isnoneornil(L, idx) ? 1 : lua_tointegerx(L, idx, &exact);
  if (!exact || n < 1 || n > TAKE_MOST)
    luaL_error(L, "budget:take: expected an integer from 1 to %d, got %s", TAKE_MOST, luaL_tolstring(L, idx, NULL));
  return n;
}

struct handle {
  char name[64];
};

/* budget:take([n]) -> true once n more (1 where absent) may be asked of the vendor: it waits for its turn, calls of all lanes in their order. Or nil,
 * why, code: "quota" where the month's are used up, or its turn would come after the call's time; "store" where the month's count cannot be stored;
 * "stopped" where neap is being stopped.
 * @param n? integer
 * @return true? may, string? why, string? code
 */
static int budget_take(lua_State *L) {
  struct np_env *env = np_env(L);
  struct np_instance *in = (struct np_instance *)env;
  const struct handle *h = luaL_checkudata(L, 1, HANDLE);
  int64_t n = count_at(L, 2);
  const char *why = env->forbidden(env, L, "http");
  if (why) return luaL_error(L, "budget:take: %s", why);
  if (!lua_isyieldable(L)) return luaL_error(L, "budget:take: not inside a function that C code calls, for it may wait");
  const struct np_budget_decl *decl = declared(L, in, h->name);
  struct np_error err;
  lua_settop(L, 2);
  struct take *t = np_wait_push(L, sizeof *t, close_take);
  struct np_broker *b = t->wait.broker;
  t->n = n;
  np_broker_lock(b);
  t->budget = find(b, in->code->instance, h->name);
  set_rates(t->budget, decl, in->code->number);
  bool known = !t->budget->limit || knows_month(t->budget);
  np_broker_unlock(b);
  if (!known && learn_month(t->budget, in->lane, &err) < 0) return luaL_error(L, "budget:take: %s", err.text);
  np_broker_lock(b);
  bool waits = t->budget->months.first || !count(t);
  if (waits) np_wait_enter(&t->budget->months, &t->wait);
  if (waits) serve_months(t->budget, in->lane);
  np_broker_unlock(b);
  if (waits) return np_wait_yield(L, &t->wait, (int64_t)(env->time_left(env) * 1000), at_month);
  return t->code ? finish(L, t) : turn(L, t);
}

int np_budget_handle(lua_State *L) {
  static const luaL_Reg methods[] = {{"take", budget_take}, {NULL, NULL}};
  size_t len;
  const char *name = luaL_checklstring(L, 1, &len);
  struct handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  if (len >= sizeof h->name) return np_place_raise(L, "plugin:budget: the name is longer than %d bytes", (int)sizeof h->name - 1);
  memcpy(h->name, name, len + 1);
  if (luaL_newmetatable(L, HANDLE)) {
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  return 1;
}

/* The host's part. */

void np_budgets_drain(struct np_lane *lane) {
  struct np_broker *b = lane->host->broker;
  struct np_map_entry *e;
  np_broker_lock(b);
  for (size_t i = 0; (e = np_map_next(&b->budgets, &i));) {
    struct budget *u = e->value;
    for (struct np_wait *w = u->turns.first, *next; w; w = next) {
      next = w->next;
      if (w->lane != lane) continue;
      refuse((struct take *)w, "stopped", "neap is stopping");
      np_wait_wake(w);
    }
  }
  np_broker_unlock(b);
}

void np_budgets_settle(struct np_broker *b, struct np_writeset *ws) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&b->budgets, &i));) {
    struct budget *u = e->value;
    if (u->available > 0) put_reserved(ws, u, u->month, u->reserved - u->available);
    u->reserved -= u->available;
    u->available = 0;
  }
}

static int64_t used_of(struct np_broker *b, const char *id, const char *month, struct np_reader *reader) {
  int64_t used = 0;
  np_broker_lock(b);
  const struct budget *u = np_map_get(&b->budgets, id, strlen(id));
  bool known = u && strcmp(u->month, month) == 0;
  if (known) used = u->reserved - u->available;
  np_broker_unlock(b);
  if (!known) read_reserved(reader, id, month, &used, NULL);
  return used;
}

void np_budgets_describe(struct np_broker *b, const struct np_code *code, struct np_reader *reader, struct np_buf *out) {
  char month[16];
  bool any = false;
  month_of(np_now_ms(), month);
  for (size_t i = 0; code && i < code->budget_count; i++) {
    const struct np_budget_decl *d = &code->budgets[i];
    if (!d->per_month) continue;
    struct np_buf id = {0};
    np_buf_addf(&id, "%s/%s", code->instance, d->name);
    np_buf_addf(out, "%s{\"budget\":\"%s\",\"month\":\"%s\",\"used\":%" PRId64 ",\"limit\":%" PRId64 "}",
                any ? "," : ",\"budgets\":[", d->name, month, used_of(b, id.data, month, reader), d->per_month);
    np_buf_free(&id);
    any = true;
  }
  if (any) np_buf_addc(out, ']');
}

static void free_budget(void *value) {
  struct budget *u = value;
  free(u->id);
  free(u);
}

void np_budgets_free(struct np_broker *b) { np_map_free(&b->budgets, free_budget); }
