/* Tasks: one call of a plugin's handler, in a coroutine of its instance, with a write set and a budget. This is the one place that
 * enters Lua. Whatever allocates or may raise runs inside the protected call: `push` and `take` are called in there. */
#ifndef NP_HOST_TASK_H
#define NP_HOST_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "base/log.h"
#include "host/plugin.h"
#include "store/writeset.h"

enum np_mode {
  NP_LOADING,
  NP_SERVING,
  NP_REFUSING,
  NP_STREAMING,
  NP_JOBBING,
  NP_RULING,
  NP_TIMING,
  NP_DELIVERING,
  NP_COMMANDING,
  NP_MIGRATING
};
extern const char *const np_mode_names[10]; /* "a request's handler" … for messages */

#define NP_TASK_CREDENTIALS 32 /* each call out may have others, as a signature, and a line of the log is looked through for all */

struct np_task {
  /* Set by who starts it; the rest zero. */
  struct np_instance *in;
  enum np_mode mode;
  struct np_writeset *ws;           /* borrowed: where verbs write; NULL where the mode has none */
  int64_t now;                      /* ms: what time.now() says; 0 the real clock */
  int64_t received;                 /* ms: of what it emits; 0 is the present */
  const struct np_reading *reading; /* RULING: the one it is about */
  const char *timer, *key;          /* TIMING: its name and key; borrowed */
  const char *where;                /* borrowed: a route's pattern, a job's name, for the log; may be NULL */
  bool again;  /* an operator has it run again: what becomes of it is no reason for a quarantine, or for going back */
  bool dry;    /* nothing of it will be committed: it calls nobody */
  int handler; /* index among the instance's handlers; 0: `push` pushes the function too */
  /* Pushes the arguments (after the function) and returns their number. May raise. Returning -1 means: what stands on
   * the stack are results already, do not call (their number is in task->nargs). */
  int (*push)(lua_State *L, struct np_task *t);
  /* Takes the n results at the top of the stack. May raise. NULL: not wanted. */
  void (*take)(lua_State *L, struct np_task *t, int n);
  /* The task has ended; t->failed tells how. Called exactly once, from np_task_start or later from the loop; may free t. */
  void (*ended)(struct np_task *t);
  void *owner;

  /* The task's own. */
  bool failed;
  char *error;            /* owned: message and traceback, where failed */
  char *over;             /* owned: what was said when it went past its budget; it cannot go on then */
  const char *error_code; /* static: "error", "stopped", or the limit that it went past: "memory", "instructions", "running" … */
  const char *passed;     /* static: the limit that a verb raised about, whether that was caught or not; NULL */
  int nargs;
  lua_State *co;
  int co_ref;
  int64_t instructions; /* used so far */
  int64_t slice_began;  /* us on np_work_us */
  int slice_rings;      /* of the thread's alarm, until then */
  int64_t total_end;    /* us on np_mono_us */
  int64_t emits;        /* so far */
  int64_t coroutines;   /* of its own, that it has made and that are not known to be at their end */
  uint64_t serial;      /* of all calls of its instance: tells it from another that stands at the same address later */
  bool waiting;         /* a ticket is out */
  bool waited;          /* one was */
  bool woken;
  struct np_task *next_woken;
  struct np_mask *people;                           /* details found in its input: masked while it runs. In `arena` */
  struct np_mask *credentials[NP_TASK_CREDENTIALS]; /* those of `people` that its newest calls out told; NULL */
  unsigned credentials_told;                        /* so far */
  struct np_arena arena;                            /* freed when it ends */
  struct np_overlay *overlay; /* borrowed: of ws, where it has verbs that read what they wrote (host/ledger.h) */
};

/* Starts and runs it until it ends or waits. */
void np_task_start(struct np_task *t);
/* Runs those whose tickets were woken. Called by the lane from its loop. */
void np_task_run_woken(struct np_lane *lane);
/* Masks the text in the log and the errors of this call, from now on; where it is not masked already. */
void np_task_mask(struct np_task *t, const char *s, size_t len);
/* The same for what a call out tells to whom it asks, until so many others have come. */
void np_task_mask_credential(struct np_task *t, const char *s, size_t len);
/* A waiting task whose lane is being stopped: its coroutine is dropped, `ended` is called with an error. */
void np_task_kill(struct np_task *t, const char *why);

/* For what runs inside a call and may take long without the virtual machine: counts as so many instructions. Raises past the budget. */
void np_task_spend(lua_State *L, int64_t instructions);
/* The same for modules, whose functions are called in other states too; and whether the call may go on, for what cannot raise where it stands. */
void np_task_spend_if_inside(lua_State *L, int64_t instructions);
bool np_task_goes_on(lua_State *L);
/* For what resumes a coroutine inside a call: is the call past its budget? Then what resumed it has to `return np_task_leave(L)`. */
bool np_task_is_over(lua_State *L);
int np_task_leave(lua_State *L);
/* From here on counts what limits.running allows: time that the thread ran, as others may have the processor for longer. For the thread that runs it. */
void np_task_begin_slice(struct np_task *t);
/* L runs now on this thread, until the state that this returns is entered again. */
lua_State *np_task_enter(lua_State *L);

/* For plugin.c: arms the count hook of a new state; what np_env lends. */
void np_task_guard(lua_State *L);
const char *np_task_forbidden(struct np_env *env, lua_State *L, const char *verb);
double np_task_time_left(struct np_env *env);
void *np_task_ticket(struct np_env *env);
void np_task_wake(void *ticket);

#endif
