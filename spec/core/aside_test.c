/* Work beside a loop: threads are used again, one that hangs holds up nobody, heavy work is done a few at a time, in its order. */
#include "io/aside.h"

#include <event2/event.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "check.h"

struct job {
  struct np_aside_job job; /* first */
  int n;
  sem_t *wait; /* borrowed: until it is posted; NULL */
};

static atomic_int begun, dropped, running, most, last_thread;
static atomic_int begun_as[16]; /* the numbers, in the order in which they were begun */
static int order[16], ended, late;

static void work(struct np_aside_job *job) {
  const struct job *j = (const struct job *)job;
  int now = atomic_fetch_add(&running, 1) + 1, before = atomic_load(&most);
  while (now > before && !atomic_compare_exchange_weak(&most, &before, now)) {}
  atomic_store(&last_thread, (int)gettid());
  atomic_store(&begun_as[atomic_fetch_add(&begun, 1) % 16], j->n);
  if (j->wait) sem_wait(j->wait);
  atomic_fetch_sub(&running, 1);
}

static void drop(struct np_aside_job *job) {
  free(job);
  atomic_fetch_add(&dropped, 1);
}

static void on_done(void *arg, struct np_aside_job *job, bool finished) {
  (void)arg;
  late += !finished;
  order[ended++ % 16] = ((struct job *)job)->n;
}

static struct np_aside *start(struct event_base *base, int n, bool heavy, sem_t *wait, double seconds) {
  struct np_error err = {""};
  struct job *j = np_alloc(sizeof *j);
  *j = (struct job){.job = {.work = work, .drop = drop, .heavy = heavy}, .n = n, .wait = wait};
  struct np_aside *a = np_aside_start(base, &j->job, seconds, on_done, NULL, &err);
  CHECK(a, "%s", err.text);
  return a;
}

static void run_until(struct event_base *base, int count) {
  while (ended < count) event_base_loop(base, EVLOOP_ONCE);
}

static void until(atomic_int *n, int count) {
  while (atomic_load(n) < count) sched_yield();
}

static void a_thread_is_used_again(struct event_base *base) {
  for (int heavy = 0; heavy < 2; heavy++) {
    int thread = 0;
    int others = 0;
    for (int i = 0; i < 50; i++) {
      ended = 0;
      start(base, i, heavy, NULL, 60);
      run_until(base, 1);
      until(&dropped, heavy * 50 + i + 1); /* it has left that behind, too */
      others += thread && thread != last_thread;
      thread = last_thread;
    }
    CHECK(others <= 5, "%d times another thread", others);
  }
}

/* What blocks does not wait for others that do. */
static void one_that_hangs(struct event_base *base) {
  sem_t held;
  sem_init(&held, 0, 0);
  atomic_store(&begun, 0);
  ended = late = 0;
  for (int i = 0; i < 5; i++) start(base, i, false, &held, 60);
  until(&begun, 5);
  start(base, 5, false, NULL, 60);
  run_until(base, 1);
  CHECK(order[0] == 5);
  start(base, 6, false, &held, 0.001);
  run_until(base, 2);
  CHECK(order[1] == 6 && late == 1, "its time has passed");
  for (int i = 0; i < 6; i++) sem_post(&held);
  run_until(base, 7);
  CHECK(late == 1);
  until(&dropped, 107);
  sem_destroy(&held);
}

static void heavy_work(struct event_base *base) {
  sem_t held;
  struct np_aside *all[10];
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  int at_once = processors < 4 ? (int)processors : 4;
  sem_init(&held, 0, 0);
  atomic_store(&begun, 0);
  atomic_store(&most, 0);
  ended = 0;
  for (int i = 0; i < 10; i++) all[i] = start(base, i, true, &held, 60);
  until(&begun, at_once);
  start(base, 10, false, NULL, 60);
  run_until(base, 1);
  CHECK(order[0] == 10, "what blocks has threads of its own");
  np_aside_cancel(all[8]);
  for (int i = 0; i < 10; i++) sem_post(&held);
  run_until(base, 10);
  until(&dropped, 118);
  CHECK(atomic_load(&begun) == 10, "what nobody waits for any more is not begun: %d", atomic_load(&begun));
  CHECK(atomic_load(&most) <= at_once + 1, "%d at once", atomic_load(&most));
  for (int i = 0; i < 10; i++) {
    int n = atomic_load(&begun_as[i]);
    CHECK(n == 10 || abs(n - i) <= at_once + 1, "%d was number %d", n, i);
  }
  sem_destroy(&held);
}

static void settles(struct event_base *base) {
  int before = atomic_load(&dropped);
  for (int i = 0; i < 10; i++) np_aside_cancel(start(base, i, true, NULL, 60));
  np_aside_settle();
  CHECK(atomic_load(&dropped) == before + 10);
  ended = 0;
  start(base, 1, true, NULL, 60);
  run_until(base, 1);
  np_aside_settle();
  CHECK(atomic_load(&dropped) == before + 11, "and goes on after it");
}

int main(void) {
  struct event_base *base = event_base_new();
  a_thread_is_used_again(base);
  one_that_hangs(base);
  heavy_work(base);
  settles(base);
  event_base_free(base);
  return check_end();
}
