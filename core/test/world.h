/* The world of one test: a host of one lane without threads, a store of its own, and a clock that stands still until it is moved. What runs in it is
 * what runs in production: tasks, write sets, the keeper, router, courier, jobs, accounts, requests. One world at a time, on one thread. */
#ifndef NP_TEST_WORLD_H
#define NP_TEST_WORLD_H

#include "base/log.h"
#include "host/alarm.h"
#include "host/host.h"
#include "host/sources.h"

struct np_unit_loaded { /* a plugin of this world, or a destination that only records */
  char *instance;       /* owned */
  enum np_kind kind;
  struct np_code *code;   /* a reference; NULL: it records */
  struct np_instance *in; /* the lane's */
};

struct np_world_commit {
  struct np_writeset *ws; /* a reference */
  bool fed;               /* by the test itself */
};

struct np_world_line {
  enum np_log_level level;
  char *text;
  char **pairs; /* owned, 2 * n: names and values */
  size_t n;
};

struct np_world_answer { /* of a request: the bytes as they came */
  struct np_buf bytes;
  bool whole; /* the server has ended it */
};

struct np_world {
  struct np_host host;
  struct np_config config; /* entries are owned; the rest borrowed */
  size_t entries_good;     /* of its entries: the others were refused */
  struct np_host_test test;
  struct np_alarms alarms;
  const struct np_sources *sources; /* borrowed */
  struct np_lane *lane;             /* owned; NULL until the first plugin is loaded */
  struct np_lane *lanes[1];
  char store[96];
  uint64_t epoch;
  struct np_unit_loaded *loaded; /* owned, sorted by instance */
  size_t loaded_count;
  struct np_world_commit *commits; /* owned */
  size_t commit_count;
  struct np_world_line *lines; /* owned: what was logged */
  size_t line_count;
  bool feeding;
  bool settling; /* plugins run now: what they ask is answered from there */
  char *trouble; /* owned: why the test fails, whatever it says itself */
};

/* script answers HTTP out. NULL and err. */
struct np_world *np_world_new(const struct np_sources *sources, const char *plugins,
                              void (*script)(void *arg, const struct np_fetch_request *, struct np_fetch_scripted *), void *arg,
                              struct np_error *err);
void np_world_free(struct np_world *w);

/* Forgets entries that were refused. */
void np_world_forget_refused(struct np_world *w);
/* Loads the plugin of entry `i` of w->config and puts it in force. -1 and err. */
int np_world_load(struct np_world *w, size_t i, struct np_error *err);
const struct np_unit_loaded *np_world_find(const struct np_world *w, const char *instance);
/* The kind that the folder of its file says, and whether it says one. */
bool np_world_kind(const struct np_world *w, const char *plugin, enum np_kind *kind);

/* Runs all that can run now. -1 where it does not come to rest: then `trouble` says so. */
int np_world_settle(struct np_world *w);
/* Moves the clock, and has happen in order what is due until then. */
int np_world_advance(struct np_world *w, int64_t ms);
/* Runs, and moves the clock to what is due next, until `done` says so; at most so many ms. False where it never does. */
bool np_world_until(struct np_world *w, bool (*done)(void *arg), void *arg, int64_t most);

/* A request as it goes over the wire, and its answer. */
struct np_world_answer np_world_request(struct np_world *w, const struct np_buf *bytes);

void np_world_blame(struct np_world *w, const char *why); /* the first trouble counts */

#endif
