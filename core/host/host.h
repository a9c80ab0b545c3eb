/* The host: lanes, keeper, deploy and admin of one running neap. Everything here is the main thread's, unless it says otherwise. */
#ifndef NP_HOST_HOST_H
#define NP_HOST_HOST_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"
#include "host/config.h"
#include "host/feed.h"
#include "host/lane.h"
#include "host/quarantine.h"
#include "store/keeper.h"
#include "store/seal.h"

struct event_base;
struct np_deploy;
struct np_admin;
struct np_call;
struct np_broker;
struct np_replay_jobs;

/* What a test of plugins (core/test/) has in place of the world. */
struct np_host_test {
  struct np_alarms *alarms;                                                                            /* see host/alarm.h */
  void (*script)(void *arg, const struct np_fetch_request *request, struct np_fetch_scripted *answer); /* of HTTP out */
  void *arg;
};

struct np_host {
  struct np_config *config; /* owned: the one that it started with; deploy holds the newest */
  struct event_base *base;  /* owned: the main thread's loop */
  struct np_keeper *keeper; /* owned */
  struct np_reader *reader; /* owned: the main thread's */
  struct np_seal *seal;     /* owned: of the store; any thread */
  struct np_lane **lanes;   /* owned; as many as config->lanes, set before any runs */
  int lane_count;
  atomic_int migrating;   /* 1 while what plugins keep is being brought to another version: see host/state.h */
  _Atomic uint64_t epoch; /* number in force: each lane adopts its staged epoch once this reaches its number */
  struct np_quarantine_rules quarantine;
  struct np_broker *broker;           /* owned; the lanes share it */
  struct np_deploy *deploy;           /* owned */
  struct np_admin *admin;             /* owned */
  _Atomic int64_t last_seq;           /* of the newest committed reading: the main thread looks at it now and then, for tail */
  struct np_feed feed;                /* what those who tail see */
  struct np_mailbox called;           /* struct np_call that lanes have dealt with */
  int calling;                        /* calls that are with the lanes, or in there */
  struct np_replay_jobs *replay_jobs; /* owned */
  struct np_importer *importer;       /* owned: of the newest import; NULL: there was none */
  int port;                           /* that it listens on */
  struct np_host_test *test;          /* borrowed: NULL in a host that runs */
};

struct np_host_hooks { /* for who runs a host of its own */
  /* On the main thread, once it takes requests at url; then nothing is printed. */
  void (*listening)(struct np_host *host, const char *url, void *arg);
  void *arg;
};

/* Runs until a signal says stop, then drains. The process's exit code. hooks may be NULL. */
int np_host_run(struct np_config *config, const struct np_host_hooks *hooks);
/* Starts a drain as SIGTERM does; np_host_run returns when it is done. */
void np_host_stop(struct np_host *host);
/* Has a lane run it; call->done is called later, from the loop. */
void np_host_call(struct np_host *host, struct np_call *call);

#endif
