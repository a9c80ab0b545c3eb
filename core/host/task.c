/* Tasks: the one place that enters Lua.
 * Budgets: instructions and running time by a count hook, memory by the instance's allocator, total time by what asks for a ticket. */
#include "host/task.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <lauxlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "host/lane.h"
#include "host/place.h"

#define HOOK_EVERY 10000
#define ALARM_MS 20    /* of the thread's CPU time */
#define ERROR_MAX 8000 /* bytes of a message that are kept */

const char *const np_mode_names[10] = {"loading the file", "a request's handler", "a refusal",  "a streamed answer", "a job",
                                       "a rule",           "a rule's timer",      "a delivery", "a command",         "a migration"};

/* The state that runs now on this thread, for the alarm; how often that has rung; and whether it has since somebody looked at the clock. */
static _Thread_local lua_State *volatile running_state;
static _Thread_local volatile sig_atomic_t rings, rang;
static _Thread_local bool alarmed; /* there is an alarm */

static void hook(lua_State *L, lua_Debug *ar);

/* An alarm on the thread's CPU time: instructions of the virtual machine say little where each calls something slow. It has the state that
 * runs look at its budget at its next instruction; lua_sethook is made to be called from a signal. */
static void on_alarm(int signal) {
  (void)signal;
  lua_State *L = running_state;
  rings = (int)((unsigned)rings + 1);
  rang = 1;
  if (L) lua_sethook(L, hook, LUA_MASKCOUNT, 1);
}

static void watch_thread(void) {
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGURG};
  struct itimerspec every = {{0, ALARM_MS * 1000000}, {0, ALARM_MS * 1000000}};
  timer_t timer; /* as long as the thread */
  event._sigev_un._tid = gettid();
  sigaction(SIGURG, &action, NULL);
  if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0) alarmed = timer_settime(timer, 0, &every, NULL) == 0;
}

lua_State *np_task_enter(lua_State *L) {
  static _Thread_local bool watched;
  lua_State *outer = running_state;
  if (!watched) watch_thread();
  watched = true;
  running_state = L;
  return outer;
}

/* Says why, with the line that runs. What was caught by pcall would be met again at each next instruction of each level, and a handler of
 * xpcall would run within the hook, where no hook sees it. So where the coroutine can be left, it is: the task ends at once. */
static void over_budget(lua_State *L, struct np_task *t, const char *code) {
  if (!t->over) {
    struct np_buf b = {0};
    char place[NP_PLACE_MAX];
    t->error_code = code;
    np_place(L, place);
    np_buf_adds(&b, place);
    if (strcmp(code, "running") == 0)
      np_buf_addf(&b, "ran for longer than its budget of %g s (limits.running)", t->in->code->limits.running);
    else
      np_buf_addf(&b, "ran past its budget of %lld instructions in one call (limits.instructions)",
                  (long long)t->in->code->limits.instructions);
    t->over = b.data;
  }
  lua_sethook(L, lua_gethook(L), LUA_MASKCOUNT, 1);
  if (t->co && t->co != L) lua_sethook(t->co, lua_gethook(L), LUA_MASKCOUNT, 1);
}

void np_task_begin_slice(struct np_task *t) {
  t->slice_began = np_work_us();
  t->slice_rings = rings;
}

/* us that the slice has run: the clock's, or less where others had the processor meanwhile, in steps of the alarm. */
static int64_t slice_took(const struct np_task *t) {
  int64_t clock = np_work_us() - t->slice_began;
  int64_t steps = (int64_t)((unsigned)rings - (unsigned)t->slice_rings) + 1; /* begun, the first perhaps before the slice */
  return alarmed && steps * ALARM_MS * 1000 < clock ? steps * ALARM_MS * 1000 : clock;
}

static bool check_budget(lua_State *L, struct np_task *t) {
  int64_t took = slice_took(t);
  if (t->instructions > t->in->code->limits.instructions)
    over_budget(L, t, "instructions");
  else if (took > (int64_t)(t->in->code->limits.running * 1e6))
    over_budget(L, t, "running");
  struct np_uses *uses = &t->in->code->uses;
  np_uses_note(&uses->instructions, t->instructions);
  np_uses_note(&uses->running, took);
  return t->over == NULL;
}

/* The same, for what asks often: the clock is looked at where the alarm has rung. */
static bool look(lua_State *L, struct np_task *t) {
  if (alarmed && !rang && !t->over && t->instructions <= t->in->code->limits.instructions) return true;
  rang = 0;
  return check_budget(L, t);
}

static void hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  if (!t) return;
  int count = lua_gethookcount(L);
  t->instructions += count;
  if (check_budget(L, t)) {
    if (count != HOOK_EVERY) np_task_guard(L); /* the alarm had it look at once */
  } else if (lua_isyieldable(L)) {
    lua_yield(L, 0);
  } else {
    lua_pushstring(L, t->over);
    lua_error(L);
  }
}

void np_task_guard(lua_State *L) { lua_sethook(L, hook, LUA_MASKCOUNT, HOOK_EVERY); }

bool np_task_is_over(lua_State *L) {
  const struct np_task *t = ((struct np_instance *)np_env(L))->running;
  return t && t->over;
}

int np_task_leave(lua_State *L) {
  if (lua_isyieldable(L)) return lua_yield(L, 0);
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  over_budget(L, t, t->error_code);
  lua_pushstring(L, t->over);
  return lua_error(L);
}

void np_task_spend(lua_State *L, int64_t instructions) {
  struct np_task *t = ((struct np_instance *)np_env(L))->running;
  if (!t) return;
  t->instructions += instructions;
  if (!look(L, t)) np_task_leave(L);
}

/* The modules' C code has states that are no plugin's as well. */
static bool in_call(lua_State *L) {
  lua_State *inner = running_state;
  return inner && np_env(inner) == np_env(L);
}

void np_task_spend_if_inside(lua_State *L, int64_t instructions) {
  if (in_call(L)) np_task_spend(L, instructions);
}

bool np_task_goes_on(lua_State *L) {
  struct np_task *t = in_call(L) ? ((struct np_instance *)np_env(L))->running : NULL;
  return !t || look(L, t);
}

/* Where the failing coroutine stood; without allocating, for memory may be what failed. */
static void add_traceback(struct np_buf *b, lua_State *co) {
  lua_Debug ar;
  int shown = 0;
  for (int level = 0; shown < 12 && lua_getstack(co, level, &ar); level++) {
    lua_getinfo(co, "nSl", &ar);
    if (!np_place_is_own(&ar)) continue;
    np_buf_addf(b, "\n%s:%d: in %s", ar.short_src, ar.currentline, ar.name ? ar.name : "the handler");
    shown++;
  }
}

/* It is kept as text, and read by people: what is no UTF-8 and no end. */
static void add_message(struct np_buf *b, const char *s, size_t n) {
  if (n > ERROR_MAX) n = ERROR_MAX;
  for (size_t i = 0, len; i < n; i += len ? len : 1) {
    len = s[i] ? np_utf8_len(s + i, n - i) : 0;
    if (len)
      np_buf_add(b, s + i, len);
    else
      np_buf_addc(b, '?');
  }
}

static void describe_failure(struct np_task *t, int status) {
  struct np_buf b = {0};
  size_t len;
  t->failed = true;
  const char *text = lua_type(t->co, -1) == LUA_TSTRING ? lua_tolstring(t->co, -1, &len) : NULL;
  if (t->over)
    np_buf_adds(&b, t->over);
  else if (status == LUA_YIELD)
    np_buf_adds(&b, "coroutine.yield outside of a coroutine");
  else if (text)
    add_message(&b, text, len);
  else
    np_buf_addf(&b, "raised a %s instead of a message", luaL_typename(t->co, -1));
  if (status == LUA_ERRMEM && !t->over) {
    t->error_code = "memory";
    np_buf_clear(&b);
    np_buf_addf(&b, "used up its budget of %zu MiB of memory (limits.memory)", t->in->code->limits.memory >> 20);
  } else if (!t->error_code) {
    t->error_code = t->passed ? t->passed : "error";
  }
  add_traceback(&b, t->co);
  t->error = np_mask_text(np_buf_text(&b), b.len);
  np_buf_free(&b);
}

static int after(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct np_task *t = (struct np_task *)context;
  if (t->take) t->take(L, t, lua_gettop(L));
  return 0;
}

static int entry(lua_State *L) {
  struct np_task *t = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (t->handler) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->in->handlers);
    lua_rawgeti(L, -1, t->handler);
    lua_remove(L, 1);
  }
  int n = t->push ? t->push(L, t) : 0;
  if (n >= 0) lua_callk(L, n, LUA_MULTRET, (lua_KContext)t, after);
  return after(L, LUA_OK, (lua_KContext)t);
}

static int new_coroutine(lua_State *L) {
  struct np_task *t = lua_touserdata(L, 1);
  t->co = lua_newthread(L);
  t->co_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static bool take_coroutine(struct np_task *t) {
  struct np_instance *in = t->in;
  if (in->idle_count) {
    t->co = in->idle[--in->idle_count];
    t->co_ref = in->idle_refs[in->idle_count];
    return true;
  }
  lua_pushcfunction(in->L, new_coroutine);
  lua_pushlightuserdata(in->L, t);
  if (lua_pcall(in->L, 1, 0, 0) == LUA_OK) return true;
  lua_pop(in->L, 1);
  return false;
}

/* Closing runs pending to-be-closed variables: under the same budget. */
static void give_coroutine_back(struct np_task *t) {
  struct np_instance *in = t->in;
  if (!t->co) return;
  lua_State *outer = np_task_enter(t->co);
  int status = lua_resetthread(t->co);
  np_task_enter(outer);
  if (!t->failed && status == LUA_OK && in->idle_count < 8) {
    lua_settop(t->co, 0);
    in->idle[in->idle_count] = t->co;
    in->idle_refs[in->idle_count++] = t->co_ref;
  } else {
    luaL_unref(in->L, LUA_REGISTRYINDEX, t->co_ref);
  }
  t->co = NULL;
}

static void end(struct np_task *t) {
  struct np_instance *in = t->in;
  struct np_task *outer = in->running;
  in->running = t;
  give_coroutine_back(t);
  in->running = outer;
  if (t->error_code && strcmp(t->error_code, "memory") == 0) lua_gc(in->L, LUA_GCCOLLECT);
  if (t->waited) np_uses_note(&in->code->uses.total, np_mono_us() - t->total_end + (int64_t)(in->code->limits.total * 1e6));
  struct np_lane *lane = in->lane;
  struct np_arena arena = t->arena;
  char *error = t->error, *over = t->over;
  atomic_fetch_sub_explicit(&lane->live_tasks, 1, memory_order_relaxed);
  if (t->mode != NP_REFUSING && t->mode != NP_STREAMING && t->mode != NP_MIGRATING)
    if (!t->again) np_code_note(in->code, t->failed && !(t->error_code && strcmp(t->error_code, "stopped") == 0));
  if (t->mode != NP_MIGRATING) np_quarantine_note(t);
  t->ended(t); /* may free t */
  np_mask_people(NULL);
  np_lane_unpin(lane, in);
  np_arena_free(&arena);
  free(error);
  free(over);
}

static void resume(struct np_task *t, int nargs) {
  struct np_instance *in = t->in;
  struct np_task *outer = in->running;
  in->running = t;
  *in->env.now_slot = t->now;
  np_mask_people(t->people);
  np_task_begin_slice(t);
  lua_State *outer_state = np_task_enter(t->co);
  int n = 0, status = lua_resume(t->co, NULL, nargs, &n);
  np_task_enter(outer_state);
  in->running = outer;
  if (outer) *in->env.now_slot = outer->now;
  if (status == LUA_YIELD && t->waiting && !t->over) {
    np_mask_people(NULL);
    return;
  }
  if (status != LUA_OK || t->over) {
    np_mask_people(t->people);
    describe_failure(t, status);
  }
  end(t);
}

void np_task_start(struct np_task *t) {
  struct np_lane *lane = t->in->lane;
  np_lane_pin(lane, t->in);
  t->serial = ++t->in->calls;
  atomic_fetch_add_explicit(&lane->live_tasks, 1, memory_order_relaxed);
  t->total_end = np_mono_us() + (int64_t)(t->in->code->limits.total * 1e6);
  if (!take_coroutine(t)) {
    t->failed = true;
    t->error = np_strdup("used up its budget of memory (limits.memory) before the call began");
    t->error_code = "memory";
    end(t);
    return;
  }
  lua_pushcfunction(t->co, entry);
  lua_pushlightuserdata(t->co, t);
  resume(t, 1);
}

void np_task_run_woken(struct np_lane *lane) {
  struct np_task *list = lane->woken;
  lane->woken = NULL;
  lane->woken_tail = &lane->woken;
  for (struct np_task *t = list, *next; t; t = next) {
    next = t->next_woken;
    t->waiting = t->woken = false;
    resume(t, 0);
  }
}

/* It may have been woken and not resumed yet. */
static void forget_woken(struct np_task *t) {
  struct np_lane *lane = t->in->lane;
  struct np_task **at = &lane->woken;
  while (*at && *at != t) at = &(*at)->next_woken;
  if (*at) *at = t->next_woken;
  for (lane->woken_tail = &lane->woken; *lane->woken_tail;) lane->woken_tail = &(*lane->woken_tail)->next_woken;
}

void np_task_kill(struct np_task *t, const char *why) {
  if (t->woken) forget_woken(t);
  t->failed = true;
  t->waiting = false;
  t->error_code = "stopped";
  t->error = np_strdup(why);
  end(t);
}

static bool is_masked(const struct np_task *t, const char *s, size_t len) {
  for (const struct np_mask *m = t->people; m; m = m->next)
    if (m->len == len && memcmp(m->value, s, len) == 0) return true;
  return false;
}

void np_task_mask(struct np_task *t, const char *s, size_t len) {
  if (is_masked(t, s, len)) return;
  struct np_mask *m = np_arena_alloc(&t->arena, sizeof *m);
  *m = (struct np_mask){.next = t->people, .value = np_arena_copy(&t->arena, s, len), .len = len};
  t->people = m;
  np_mask_people(m);
}

void np_task_mask_credential(struct np_task *t, const char *s, size_t len) {
  if (is_masked(t, s, len)) return;
  struct np_mask **place = &t->credentials[t->credentials_told++ % NP_TASK_CREDENTIALS];
  if (*place) {
    (*place)->value = np_arena_copy(&t->arena, s, len);
    (*place)->len = len;
  } else {
    np_task_mask(t, s, len);
    *place = t->people;
  }
}

/* What np_env offers to modules. */

static bool in_own_coroutine(struct np_instance *in, lua_State *L) { return in->running && in->running->co == L; }

const char *np_task_forbidden(struct np_env *env, lua_State *L, const char *verb) {
  struct np_instance *in = (struct np_instance *)env;
  enum np_mode mode = in->running ? in->running->mode : NP_LOADING;
  (void)verb; /* all that ask wait */
  switch (mode) {
  case NP_LOADING: return "not while the file is loaded: call it from a handler or a job (plugin:every)";
  case NP_RULING:
  case NP_TIMING: return "not in a rule: a rule decides and does not wait; plugin:send to a destination, which may call out";
  case NP_MIGRATING: return "not in a migration: all wait for it; let a job (plugin:every) do that";
  case NP_REFUSING: return "not in plugin:refuse: a refusal is answered at once";
  case NP_STREAMING: return "not while an answer is streamed: fetch what it needs before the handler returns";
  default: break;
  }
  if (in->running && in->running->dry) return "not in a dry replay: it is only tried, and calls nobody";
  if (!in_own_coroutine(in, L)) return "not inside a coroutine of your own: call it from the handler itself, which may wait";
  return NULL;
}

double np_task_time_left(struct np_env *env) {
  struct np_instance *in = (struct np_instance *)env;
  return in->running ? (double)(in->running->total_end - np_mono_us()) / 1e6 : 0;
}

void *np_task_ticket(struct np_env *env) {
  struct np_task *t = ((struct np_instance *)env)->running;
  if (t) t->waiting = t->waited = true;
  return t;
}

void np_task_wake(void *ticket) {
  struct np_task *t = ticket;
  struct np_lane *lane = t->in->lane;
  if (t->woken || !t->waiting) return;
  t->woken = true;
  t->next_woken = NULL;
  *lane->woken_tail = t;
  lane->woken_tail = &t->next_woken;
  event_active(lane->on_woken, EV_TIMEOUT, 0);
}
