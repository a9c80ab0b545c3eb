/* One replay, as its thread runs it: the rule over the readings, in a shadow run (host/shadow.h) whose messages are committed. Made on the main thread, run on
 * another, and given back. Private to the replays (host/replay_jobs.h). */
#ifndef NP_HOST_REPLAY_RUN_H
#define NP_HOST_REPLAY_RUN_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/mailbox.h"
#include "host/host.h"
#include "host/replay_job.h"

#define NP_REPLAY_PENDING_MOST 256 /* of its messages in the outbox at once */

struct np_replay_run {
  struct np_node node;      /* first */
  struct np_host *host;     /* borrowed: its keeper, feed and configuration */
  struct np_replay_job job; /* owned */
  int64_t delivered_age;    /* ms that delivered messages are kept; 0: for ever */
  bool delivered_size;      /* there is a bound on how much of them is kept, too */
  struct np_instance *in;   /* owned, until it is run */
  struct np_epoch *to;      /* a reference: whom messages may be sent to */
  atomic_bool stop;         /* it is to end soon; also set by the thread, where it finds that its row has been stopped */
  pthread_mutex_t lock;
  pthread_cond_t woken; /* when it is to */
  char *why;            /* owned, under lock: to be written down as stopped for that; NULL: it goes on at the next start */
};

struct np_replay_run *np_replay_run_new(struct np_host *host);
/* From another thread. why NULL: nothing is written. */
void np_replay_run_stop(struct np_replay_run *run, const char *why);
/* Runs it to its end, or until it is stopped; run->job is then as its row is, unless the row could not be written. */
void np_replay_run(struct np_replay_run *run);
void np_replay_run_free(struct np_replay_run *run);

#endif
