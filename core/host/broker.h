/* The broker: what all lanes share for the sake of others' servers: accounts (account.c), budgets (budget.c), the outlets to destinations (outlet.c). One lock guards the whole of it and is held
 * for moments: Lua is never entered with it held, nor the store read. Lanes tell each other by letter only: a call is woken on its own lane. */
#ifndef NP_HOST_BROKER_H
#define NP_HOST_BROKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "base/buf.h"
#include "base/map.h"
#include "host/alarm.h"
#include "host/lane.h"

struct np_wait;
struct np_refresh;

struct np_waits { /* zeroed is empty; in order */
  struct np_wait *first, *last;
};

struct np_broker {
  struct np_host *host;            /* borrowed */
  pthread_mutex_t lock;            /* guards all that follows, and what the maps hold */
  struct np_map accounts, budgets; /* owned: by their names, see account.c and budget.c */
  struct np_map outlets;           /* owned: by the destination, see outlet.c */
  struct np_broker_lane {
    struct np_waits ready;      /* calls of this lane to be woken */
    struct np_refresh *starts;  /* refreshes to be started on this lane, newest first */
    struct np_refresh *running; /* its lane's alone */
    bool courier;               /* its courier is to be woken */
  } * lanes;                    /* owned: one each */
  uint64_t random;              /* xorshift */
  unsigned reloads;             /* asked for by the operator so far */
  bool closed;                  /* the lanes have ended: nothing is sent any more */
};

/* A call that waits. Lives at the start of a userdata on the stack of its coroutine, which closes it however it ends. */
struct np_wait {
  struct np_broker *broker; /* borrowed */
  struct np_lane *lane;     /* borrowed: of the call */
  struct np_env *env;       /* borrowed */
  void *ticket;             /* while it waits */
  struct np_waits *in;      /* under the lock: the list that it stands in, or NULL */
  struct np_wait *prev, *next;
  bool in_order;                                  /* who stands before it in its list, on its lane, is woken before it */
  bool late;                                      /* its time was up before it was woken */
  struct np_alarm alarm;                          /* its time */
  void (*close)(lua_State *L, struct np_wait *w); /* gives back what else it holds, without raising */
};

struct np_broker *np_broker_new(struct np_host *host);
/* The lanes have ended, the keeper still runs: what is to outlast the process is stored. */
void np_broker_settle(struct np_broker *b);
void np_broker_free(struct np_broker *b); /* after the lanes */

/* Of a lane, on its thread. */
void np_broker_run(struct np_lane *lane);   /* NP_LETTER_BROKER */
void np_broker_drain(struct np_lane *lane); /* who waits for a budget does no longer */
void np_broker_leave(struct np_lane *lane); /* it is freed: refreshes under way are dropped */

void np_broker_lock(struct np_broker *b);
void np_broker_unlock(struct np_broker *b);
double np_broker_random(struct np_broker *b); /* from 0, under 1. With the lock */

/* Pushes a zeroed userdata of `size` bytes, a struct np_wait at its start, to be closed when the calling function's frame ends. NULL broker outside of
 * a host. */
void *np_wait_push(lua_State *L, size_t size, void (*close)(lua_State *L, struct np_wait *w));
/* With the lock: puts it at the end of a list. */
void np_wait_enter(struct np_waits *list, struct np_wait *w);
/* Without the lock, after np_wait_enter: yields until it is woken, or for so many ms; then k is called. `return` what it returns. */
int np_wait_yield(lua_State *L, struct np_wait *w, int64_t ms, lua_KFunction k);
/* With the lock, any thread: takes it out of its list and has its lane wake it. */
void np_wait_wake(struct np_wait *w);
/* With the lock: takes it out of the list that it stands in, if any. */
void np_wait_leave(struct np_wait *w);

/* With the lock, any thread: that lane's courier is to look at its destinations again. */
void np_broker_tell(struct np_broker *b, int lane);

/* With the lock: a refresh is to be started on that lane, which is the calling one. */
void np_broker_start(struct np_lane *lane, struct np_refresh *r);

#endif
