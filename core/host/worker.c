/* Workers. */
#include "host/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/buf.h"

struct np_worker {
  const struct np_worker_kind *kind; /* borrowed */
  void *arg;                         /* borrowed: for done */
  pthread_t thread;
  bool running; /* the thread */
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct np_node *next; /* under lock: handed over */
  bool ending;          /* under lock */
  struct np_mailbox box;
  struct event *on_done; /* owned */
  struct np_node *job;   /* in `next`, with the thread, or in `box` */
};

static void *run_thread(void *arg) {
  struct np_worker *w = arg;
  pthread_setname_np(pthread_self(), w->kind->name);
  setpriority(PRIO_PROCESS, (id_t)gettid(), 10); /* lanes come first */
  pthread_mutex_lock(&w->lock);
  while (!w->ending) {
    struct np_node *job = w->next;
    w->next = NULL;
    if (!job) {
      pthread_cond_wait(&w->wake, &w->lock);
      continue;
    }
    pthread_mutex_unlock(&w->lock);
    w->kind->run(job);
    np_mailbox_force(&w->box, job);
    pthread_mutex_lock(&w->lock);
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

static bool start_thread(struct np_worker *w) {
  sigset_t every, was;
  if (w->running) return true;
  sigfillset(&every);
  sigdelset(&every, SIGURG); /* by which what runs too long is noticed */
  pthread_sigmask(SIG_SETMASK, &every, &was);
  w->running = pthread_create(&w->thread, NULL, run_thread, w) == 0;
  pthread_sigmask(SIG_SETMASK, &was, NULL);
  return w->running;
}

static void on_done(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_worker *w = arg;
  struct np_node *job = np_mailbox_take(&w->box);
  if (!job) return;
  w->job = NULL;
  w->kind->done(w->arg, job);
}

struct np_node *np_worker_job(const struct np_worker *w) {
  return w->job;
}

bool np_worker_give(struct np_worker *w, struct np_node *job) {
  if (!start_thread(w)) return false;
  w->job = job;
  pthread_mutex_lock(&w->lock);
  w->next = job;
  pthread_cond_signal(&w->wake);
  pthread_mutex_unlock(&w->lock);
  return true;
}

struct np_worker *np_worker_new(struct event_base *base, const struct np_worker_kind *kind, void *arg, struct np_error *err) {
  struct np_worker *w = np_alloc(sizeof *w);
  w->kind = kind;
  w->arg = arg;
  if (np_mailbox_init(&w->box, 0) < 0) {
    np_fail(err, "no descriptor left for a worker");
    free(w);
    return NULL;
  }
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->wake, NULL);
  w->on_done = event_new(base, w->box.fd, EV_READ | EV_PERSIST, on_done, w);
  if (!w->on_done) abort(); /* out of memory */
  event_add(w->on_done, NULL);
  return w;
}

void np_worker_free(struct np_worker *w) {
  if (!w) return;
  if (w->running) {
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
  }
  if (w->job) w->kind->drop(w->job);
  event_free(w->on_done);
  np_mailbox_destroy(&w->box);
  pthread_cond_destroy(&w->wake);
  pthread_mutex_destroy(&w->lock);
  free(w);
}
