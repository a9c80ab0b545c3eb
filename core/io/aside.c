/* Work on threads beside the loops, which are woken by an eventfd. */
#include "io/aside.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
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
  struct np_aside *next; /* in its pool's queue */
};

#define IDLE_S 10    /* until a thread that has nothing to do ends */
#define HEAVY_MOST 4 /* at once, where there are as many processors */

static struct pool {
  pthread_mutex_t lock;
  pthread_cond_t wake, gone; /* there is something in the queue; a thread has ended */
  struct np_aside *first, *last;
  int queued, idle, threads, most; /* most 0: not known yet */
  bool ending;
} blocking = {.lock = PTHREAD_MUTEX_INITIALIZER,
              .wake = PTHREAD_COND_INITIALIZER,
              .gone = PTHREAD_COND_INITIALIZER,
              .most = 1 << 20},
  heavy = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .gone = PTHREAD_COND_INITIALIZER};

static void leave(struct np_aside *a) {
  if (atomic_fetch_sub(&a->refs, 1) > 1) return;
  if (a->fd >= 0) close(a->fd);
  a->job->drop(a->job);
  free(a);
}

/* Where the loop has left before it began, it is not begun. */
static void work(struct np_aside *a) {
  if (atomic_load(&a->refs) > 1) {
    a->job->work(a->job);
    atomic_store(&a->finished, true);
    uint64_t one = 1;
    while (write(a->fd, &one, sizeof one) < 0 && errno == EINTR) {}
  }
  leave(a);
}

/* Under the pool's lock. The next in the queue; NULL: the thread has waited for long enough, or all is to end. */
static struct np_aside *next(struct pool *p) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += IDLE_S;
  int late = 0;
  p->idle++;
  while (!p->first && !p->ending && !late) late = pthread_cond_timedwait(&p->wake, &p->lock, &until);
  p->idle--;
  struct np_aside *a = p->first;
  if (!a) return NULL;
  p->first = a->next;
  if (!p->first) p->last = NULL;
  p->queued--;
  return a;
}

static void *run(void *arg) {
  struct pool *p = arg;
  struct np_aside *a;
  pthread_setname_np(pthread_self(), "neap-aside");
  if (p == &heavy) setpriority(PRIO_PROCESS, (id_t)gettid(), 5); /* lanes come first, but somebody waits for it */
  pthread_mutex_lock(&p->lock);
  while ((a = next(p))) {
    pthread_mutex_unlock(&p->lock);
    work(a);
    pthread_mutex_lock(&p->lock);
  }
  p->threads--;
  pthread_cond_broadcast(&p->gone);
  pthread_mutex_unlock(&p->lock);
  return NULL;
}

static int start_thread(struct pool *p) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes)) return -1;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  int bad = pthread_create(&thread, &attributes, run, p);
  pthread_attr_destroy(&attributes);
  if (!bad) p->threads++;
  return bad ? -1 : 0;
}

static int heavy_most(void) {
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > HEAVY_MOST ? HEAVY_MOST : (int)n;
}

/* A thread is there for it, or will be when its turn comes; -1: none is to be had. */
static int give(struct np_aside *a) {
  struct pool *p = a->job->heavy ? &heavy : &blocking;
  pthread_mutex_lock(&p->lock);
  if (!p->most) p->most = heavy_most();
  bool more = p->queued >= p->idle && p->threads < p->most;
  int bad = more && start_thread(p) < 0 && (p != &heavy || !p->threads) ? -1 : 0;
  if (!bad) {
    atomic_store(&a->refs, 2);
    *(p->last ? &p->last->next : &p->first) = a;
    p->last = a;
    p->queued++;
    pthread_cond_signal(&p->wake);
  }
  pthread_mutex_unlock(&p->lock);
  return bad;
}

void np_aside_settle(void) {
  pthread_mutex_lock(&heavy.lock);
  heavy.ending = true;
  pthread_cond_broadcast(&heavy.wake);
  while (heavy.threads) pthread_cond_wait(&heavy.gone, &heavy.lock);
  heavy.ending = false;
  pthread_mutex_unlock(&heavy.lock);
}

static void on_event(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_aside *a = arg;
  event_free(a->event);
  a->event = NULL;
  a->done(a->arg, a->job, atomic_load(&a->finished));
  leave(a);
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
  if (!a->event || (job->work && (event_add(a->event, &tv) || give(a)))) {
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
