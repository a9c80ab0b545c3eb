/* A thread of low priority beside the lanes: the main thread gives it a job, it runs that, and the main thread is told. One job at a time; the thread is made
 * with the first. */
#ifndef NP_HOST_WORKER_H
#define NP_HOST_WORKER_H

#include <stdbool.h>

#include "base/error.h"
#include "base/mailbox.h"

struct event_base;
struct np_worker;

struct np_worker_kind {
  const char *name;                             /* the thread's: "neap-gate", 15 bytes at most */
  void (*run)(struct np_node *job);             /* on the thread */
  void (*done)(void *arg, struct np_node *job); /* on the main thread: the job is its own again, and the next may be given */
  void (*drop)(struct np_node *job);            /* on the main thread: the worker is freed, and the job of nobody */
};

/* All on the main thread, whose loop base is. kind is borrowed. NULL and err. */
struct np_worker *np_worker_new(struct event_base *base, const struct np_worker_kind *kind, void *arg, struct np_error *err);
/* The job that was given and not told of yet; NULL: it is free. */
struct np_node *np_worker_job(const struct np_worker *w);
/* Takes the job over, where the worker is free; false: there is no thread to be had, and the job is still the caller's. */
bool np_worker_give(struct np_worker *w, struct np_node *job);
void np_worker_free(struct np_worker *w); /* waits for the job under way: have it end first */

#endif
