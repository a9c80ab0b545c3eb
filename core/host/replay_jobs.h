/* Replays for real, `neap replay --rule NAME --send`: a rule's generation in force is run over readings of the past, and what it sends that is not on record
 * as sent is sent. Each is a row of the store (host/replay_job.h); one after another runs on a thread of its own, at a low priority
 * (host/replay_run.h), and goes on after a restart. Main thread. */
#ifndef NP_HOST_REPLAY_JOBS_H
#define NP_HOST_REPLAY_JOBS_H

#include "host/host.h"
#include "host/replay_job.h"

struct np_replay_jobs;

/* What is unfinished in the store goes on. NULL and err. */
struct np_replay_jobs *np_replay_jobs_new(struct np_host *host, struct np_error *err);
/* Now and then: where another generation of a rule is in force, its replay stops. */
void np_replay_jobs_look(struct np_replay_jobs *all);
/* Its number, by which its row is found; it has its turn after those before it. The job's rule, names, from, to, rate, period, again and by say which; its
 * texts are taken over in either case. -1 and err. */
int64_t np_replay_jobs_start(struct np_replay_jobs *all, struct np_replay_job *job, struct np_error *err);
/* Its row says so when this returns, on disk, and nothing more is sent. -1 and err: it goes on. */
int np_replay_jobs_stop(struct np_replay_jobs *all, int64_t number, const char *cause, struct np_error *err);
/* One that was stopped goes on where it was. */
int np_replay_jobs_resume(struct np_replay_jobs *all, int64_t number, struct np_error *err);
bool np_replay_jobs_runs(const struct np_replay_jobs *all, int64_t number); /* it is under way now */
void np_replay_jobs_drain(struct np_replay_jobs *all); /* nothing more is sent; all goes on at the next start */
void np_replay_jobs_free(struct np_replay_jobs *all);  /* before the keeper is stopped */

#endif
