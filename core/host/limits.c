/* Limits. What the count hook, the allocator and the clock watch is task.c's and plugin.c's; here are the counts. */
#include "host/limits.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/alarm.h"
#include "host/lane.h"
#include "host/task.h"

struct np_limits np_limits_default(enum np_kind kind) {
  bool rule = kind == NP_RULE;
  return (struct np_limits){.memory = 64u << 20,
                            .instructions = rule ? 10000000 : 50000000,
                            .running = rule ? 2 : 5,
                            .total = rule ? 2 : 120,
                            .coroutines = 1000,
                            .calls = 16,
                            .emits = 10000,
                            .log = 50,
                            .log_burst = 200,
                            .store = 64u << 20};
}

void np_limits_lay(struct np_limits *l, const struct np_limits *over) {
  if (over->memory) l->memory = over->memory;
  if (over->instructions) l->instructions = over->instructions;
  if (over->running > 0) l->running = over->running;
  if (over->total > 0) l->total = over->total;
  if (over->coroutines) l->coroutines = over->coroutines;
  if (over->calls) l->calls = over->calls;
  if (over->emits) l->emits = over->emits;
  if (over->log) l->log = over->log;
  if (over->log_burst) l->log_burst = over->log_burst;
  if (over->store) l->store = over->store;
}

void np_limits_print(const struct np_limits *l, struct np_buf *b) {
  np_buf_addf(b, "%zu %" PRId64 " %g %g %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %zu", l->memory,
              l->instructions, l->running, l->total, l->coroutines, l->calls, l->emits, l->log, l->log_burst, l->store);
}

void np_uses_note(_Atomic int64_t *most, int64_t used) {
  int64_t was = atomic_load_explicit(most, memory_order_relaxed);
  while (was < used && !atomic_compare_exchange_weak_explicit(most, &was, used, memory_order_relaxed, memory_order_relaxed)) {}
}

/* From four fifths on. */
static void add_use(struct np_buf *b, struct np_buf *near, const char *name, double used, double limit) {
  np_buf_addf(b, "%s\"%s\":{\"used\":%.10g,\"limit\":%.10g}", b->data[b->len - 1] == '{' ? "" : ",", name, used, limit);
  if (used >= 0.8 * limit) np_buf_addf(near, "%s%s %.0f %%", near->len ? ", " : "", name, used * 100 / limit);
}

void np_limits_describe(const struct np_code *code, size_t memory, int64_t store, struct np_buf *b) {
  const struct np_limits *l = &code->limits;
  const struct np_uses *u = &code->uses;
  struct np_buf near = {0};
  np_buf_adds(b, ",\"limits\":{");
  add_use(b, &near, "memory", (double)memory, (double)l->memory);
  add_use(b, &near, "instructions", (double)atomic_load(&u->instructions), (double)l->instructions);
  add_use(b, &near, "running", (double)atomic_load(&u->running) / 1e6, l->running);
  add_use(b, &near, "total", (double)atomic_load(&u->total) / 1e6, l->total);
  add_use(b, &near, "coroutines", (double)atomic_load(&u->coroutines), (double)l->coroutines);
  add_use(b, &near, "calls", (double)atomic_load(&u->calls), (double)l->calls);
  add_use(b, &near, "emits", (double)atomic_load(&u->emits), (double)l->emits);
  if (store >= 0) add_use(b, &near, "store", (double)store, (double)l->store);
  int64_t lines = atomic_load(&u->log_left_out);
  np_buf_addf(b, ",\"log\":{\"left_out\":%" PRId64 ",\"limit\":%" PRId64 "}}", lines, l->log);
  if (lines) np_buf_addf(&near, "%s%" PRId64 " log lines left out", near.len ? ", " : "", lines);
  if (near.len) np_buf_addf(b, ",\"near\":\"%s\"", near.data);
  np_buf_free(&near);
}

int np_limit_raise(lua_State *L, const char *code, const char *format, ...) {
  struct np_instance *in = (struct np_instance *)np_env(L);
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (in->running) in->running->passed = code;
  return luaL_error(L, "%s (limits.%s of \"%s\" in neap.lua)", text, code, in->env.name);
}

void np_limit_emit(lua_State *L, struct np_task *t, const char *verb) {
  struct np_code *code = t->in->code;
  if (t->emits >= code->limits.emits)
    np_limit_raise(L, "emits",
                   "plugin:%s: %" PRId64 " readings, events, devices and messages are the most of one call, and this is one more",
                   verb, code->limits.emits);
  np_uses_note(&code->uses.emits, ++t->emits);
}

/* The log. */

bool np_limit_log(struct np_env *env) {
  struct np_instance *in = (struct np_instance *)env;
  const struct np_limits *l = &in->code->limits;
  struct np_log_budget *b = &in->log;
  double burst = (double)(l->log_burst > l->log ? l->log_burst : l->log);
  int64_t now = np_mono_us();
  b->level = b->filled ? b->level + (double)(now - b->filled) * (double)l->log / 1e6 : burst;
  if (b->level > burst) b->level = burst;
  b->filled = now;
  if (b->level >= 1) {
    b->level -= 1;
    return true;
  }
  atomic_fetch_add_explicit(&in->code->uses.log_left_out, 1, memory_order_relaxed);
  b->left_out++;
  if (b->alarm && !b->alarm->set) np_alarm_set(b->alarm, 1000);
  return false;
}

void np_limit_log_tell(struct np_instance *in) {
  struct np_log_budget *b = &in->log;
  char lines[24], limit[24];
  if (b->alarm) np_alarm_stop(b->alarm);
  if (!b->left_out) return;
  snprintf(lines, sizeof lines, "%" PRId64, b->left_out);
  snprintf(limit, sizeof limit, "%" PRId64, in->code->limits.log);
  b->left_out = 0;
  np_log(NP_WARN, "lines of its log were left out: they were more than limits.log lets through", "plugin", in->env.name, "lines",
         lines, "a second", limit, NULL);
}

static void tell(void *arg) { np_limit_log_tell(arg); }

void np_limit_adopt(struct np_instance *in) {
  in->log.alarm = np_alloc(sizeof *in->log.alarm);
  *in->log.alarm = (struct np_alarm){.lane = in->lane, .fn = tell, .arg = in, .uncounted = true};
}

/* Calls out. */

struct np_turn {
  struct np_instance *in;
  struct np_task *task;
  struct np_alarm alarm; /* it has waited for long enough */
  bool open;
  struct np_turn *next; /* in the queue, where it is not open */
};

static void open_turn(struct np_instance *in, struct np_turn *turn) {
  turn->open = true;
  np_uses_note(&in->code->uses.calls, ++in->turns.open);
}

static void give_up(void *arg) {
  struct np_turn *turn = arg;
  np_task_wake(turn->task);
}

struct np_turn *np_limit_turn(struct np_env *env, double seconds, bool *open) {
  struct np_instance *in = (struct np_instance *)env;
  struct np_turn *turn = np_alloc(sizeof *turn);
  *turn = (struct np_turn){.in = in, .task = in->running};
  turn->alarm = (struct np_alarm){.lane = in->lane, .fn = give_up, .arg = turn};
  *open = in->turns.open < in->code->limits.calls;
  if (*open) {
    open_turn(in, turn);
  } else {
    *in->turns.last = turn;
    in->turns.last = &turn->next;
    np_alarm_set(&turn->alarm, (int64_t)(seconds * 1000) + 1);
  }
  return turn;
}

bool np_limit_turn_came(struct np_env *env, const struct np_turn *turn) {
  struct np_instance *in = (struct np_instance *)env;
  if (!turn->open && in->running) in->running->passed = "calls";
  return turn->open;
}

void np_limit_turn_end(struct np_turn *turn) {
  struct np_instance *in = turn->in;
  struct np_turns *all = &in->turns;
  if (turn->open) {
    all->open--;
  } else {
    struct np_turn **at = &all->first;
    while (*at != turn) at = &(*at)->next;
    *at = turn->next;
    if (!*at) all->last = at;
  }
  np_alarm_stop(&turn->alarm);
  free(turn);
  struct np_turn *next = all->first;
  if (!next || all->open >= in->code->limits.calls) return;
  all->first = next->next;
  if (!all->first) all->last = &all->first;
  np_alarm_stop(&next->alarm);
  open_turn(in, next);
  np_task_wake(next->task);
}

int64_t np_limit_turns(const struct np_env *env) { return ((const struct np_instance *)env)->code->limits.calls; }
