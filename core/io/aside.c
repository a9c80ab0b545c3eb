/* Work on a thread of its own, which wakes the loop by an eventfd. */
#include "io/aside.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/buf.h"

struct np_aside {
  atomic_int refs;          /* the loop's and the thread's */
  atomic_bool finished;     /* the job may be read */
  int fd;                   /* owned: an eventfd, by which the thread wakes the loop; -1 where there is no thread */
  struct np_aside_job *job; /* owned */
  struct event *event;      /* owned by the loop */
  np_aside_done *done;      /* the loop's */
  void *arg;
};

static void leave(struct np_aside *a) {
  if (atomic_fetch_sub(&a->refs, 1) > 1) return;
  if (a->fd >= 0) close(a->fd);
  a->job->drop(a->job);
  free(a);
}

static void *run(void *arg) {
  struct np_aside *a = arg;
  a->job->work(a->job);
  atomic_store(&a->finished, true);
  uint64_t one = 1;
  while (write(a->fd, &one, sizeof one) < 0 && errno == EINTR) {}
  leave(a);
  return NULL;
}

static void on_event(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_aside *a = arg;
  event_free(a->event);
  a->event = NULL;
  a->done(a->arg, a->job, atomic_load(&a->finished));
  leave(a);
}

static int start_thread(struct np_aside *a) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes)) return -1;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  atomic_store(&a->refs, 2);
  int bad = pthread_create(&thread, &attributes, run, a);
  if (bad) atomic_store(&a->refs, 1);
  pthread_attr_destroy(&attributes);
  return bad ? -1 : 0;
}

struct np_aside *np_aside_start(struct event_base *base, struct np_aside_job *job, double seconds, np_aside_done *done, void *arg,
                                struct np_error *err) {
  struct np_aside *a = np_alloc(sizeof *a);
  a->job = job;
  a->done = done;
  a->arg = arg;
  atomic_store(&a->refs, 1);
  a->fd = job->work ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
  struct timeval tv = {.tv_sec = (time_t)seconds, .tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
  a->event = !job->work || a->fd >= 0 ? event_new(base, a->fd, (short)(job->work ? EV_READ : 0), on_event, a) : NULL;
  if (!a->event || (job->work && (event_add(a->event, &tv) || start_thread(a)))) {
    np_fail(err, "no descriptor or thread is to be had");
    if (a->event) event_free(a->event);
    leave(a);
    return NULL;
  }
  if (!job->work) event_active(a->event, EV_TIMEOUT, 0);
  return a;
}

void np_aside_cancel(struct np_aside *a) {
  event_free(a->event);
  a->event = NULL;
  leave(a);
}
