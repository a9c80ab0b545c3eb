/* Limits: how much of each thing one instance of a plugin may take, and how much it has taken. A limit that is passed ends the call, unless it says
 * otherwise; what is raised names the limit, its setting and the use. */
#ifndef NP_HOST_LIMITS_H
#define NP_HOST_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "base/buf.h"

enum np_kind { NP_VENDOR, NP_RULE, NP_DESTINATION };
struct np_alarm;
struct np_task;
struct np_instance;
struct np_env;
struct np_code;

struct np_limits {      /* where they are what neap.lua says, 0 is what it does not */
  size_t memory;        /* bytes of one instance on one lane */
  int64_t instructions; /* VM instructions of one call */
  double running;       /* seconds one call may run between waits */
  double total;         /* seconds one call may take in all */
  int64_t coroutines;   /* of its own, that one call has made and that are not at their end */
  int64_t
      calls; /* out, by HTTP, SMTP and MQTT, that are open at once, of one instance on one lane: a further one waits for its turn */
  int64_t emits;     /* readings, events, devices and messages of one call */
  int64_t log;       /* lines a second of one instance on one lane: what is over is left out, counted, and that is said */
  int64_t log_burst; /* lines at once */
  size_t store;      /* bytes of keys and values */
};
struct np_limits np_limits_default(enum np_kind kind);
/* What `over` says in place of what `limits` says. */
void np_limits_lay(struct np_limits *limits, const struct np_limits *over);
/* Appends all of them: limits that are equal give the same text. */
void np_limits_print(const struct np_limits *limits, struct np_buf *b);

/* The most that any call of a generation has taken so far, on all lanes. Written by lanes, read by anyone. */
struct np_uses {
  _Atomic int64_t instructions, running, total, coroutines, calls, emits; /* running and total: us */
  _Atomic int64_t log_left_out;                                           /* lines, in all */
};
void np_uses_note(_Atomic int64_t *most, int64_t used);
/* Appends `,"limits":{…}`, use against limit of each, and `,"near":"…"` where a use is near its limit. memory: of the lane that uses most; store:
 * bytes, -1 where that is not known. */
void np_limits_describe(const struct np_code *code, size_t memory, int64_t store, struct np_buf *b);

/* Log lines of one instance: a bucket that fills by itself. */
struct np_log_budget {
  double level;
  int64_t filled;         /* us on the monotonic clock; 0 before the first */
  int64_t left_out;       /* and not said yet */
  struct np_alarm *alarm; /* owned: says it; NULL before a lane has it */
};
void np_limit_adopt(struct np_instance *in);    /* its lane has it now */
bool np_limit_log(struct np_env *env);          /* may it write a line? It is counted */
void np_limit_log_tell(struct np_instance *in); /* says what was left out, if anything */

struct np_store_budget {
  int64_t bytes; /* in the store, and what its calls have put since: never too few, but for what is under way */
  int64_t at;    /* us on the monotonic clock: when the store was asked; 0: never */
};

/* One HTTP call's place among those that are open, or wait. */
struct np_turn;
struct np_turns {
  int64_t open;
  struct np_turn *first, **last; /* those that wait */
};
/* What np_env lends, see lib/env.h. */
struct np_turn *np_limit_turn(struct np_env *env, double seconds, bool *open);
bool np_limit_turn_came(struct np_env *env, const struct np_turn *turn);
void np_limit_turn_end(struct np_turn *turn);
int64_t np_limit_turns(const struct np_env *env);

/* One more reading, event, device or message of the call that runs. Raises where it is one too many. */
void np_limit_emit(lua_State *L, struct np_task *t, const char *verb);
/* A key of its space is about to hold so many more bytes, key included. Raises where that is too much. What is stored is looked up now and then, so
 * that calls at the same moment, on other lanes, may pass the limit together by what they put within a second. */
struct np_spot;
void np_limit_store(lua_State *L, struct np_task *t, const struct np_spot *s, size_t bytes);
/* Raises: "WHAT: its limit is …". Marks the call as one that passed that limit; `code` is the limit's name, static. */
int np_limit_raise(lua_State *L, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
