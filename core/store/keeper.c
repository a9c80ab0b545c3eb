/* The keeper's thread. Commits group by themselves: while one waits for the disk, the next ones queue. */
#include "store/keeper.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

/* Pruning: a step a second; where there is more to do, one every so often, so that it keeps up and never holds a commit up long. */
enum { PRUNE_US = 1000000, PRUNE_MORE_US = 50000 };
/* Expired keys are kept a week longer: rules that catch up live in the time of their readings. */
#define EXPIRED_MS (7 * 86400000LL)
#define BYTES_MAX ((size_t)256 << 20) /* of sets that wait */

struct np_keeper {
  struct np_store *store; /* owned; the keeper's thread's */
  struct np_keeper_options options;
  struct np_mailbox in; /* unbounded itself: what has been taken out but not answered counts too */
  size_t waiting;       /* atomic: handed over and not yet answered */
  size_t bytes;         /* atomic: of those */
  pthread_t thread;
  struct np_writeset **batch, **done; /* owned; options.batch each */
  int64_t prune_at;                   /* us, monotonic */
  bool failing;                       /* the last commit could not be made; logged once */
};

static void note(struct np_keeper *k, const struct np_error *failure) {
  if (failure && !k->failing) np_log(NP_ERROR, "store: cannot commit", "error", failure->text, NULL);
  if (!failure && k->failing) np_log(NP_INFO, "store: commits again", NULL);
  k->failing = failure != NULL;
}

static void answer(struct np_keeper *k, struct np_writeset *ws) {
  __atomic_sub_fetch(&k->waiting, 1, __ATOMIC_RELAXED);
  __atomic_sub_fetch(&k->bytes, ws->arena.total, __ATOMIC_RELAXED);
  if (ws->reply_to)
    np_mailbox_force(ws->reply_to, &ws->node);
  else
    np_writeset_unref(ws);
}

static void commit(struct np_keeper *k, size_t n) {
  struct np_error err;
  size_t done = 0;
  note(k, np_store_apply(k->store, k->batch, n, &err) < 0 ? &err : NULL);
  for (size_t i = 0; i < n; i++)
    if (k->batch[i]->outcome == NP_COMMITTED) k->done[done++] = k->batch[i];
  if (done && k->options.committed) k->options.committed(k->options.arg, k->done, done);
  for (size_t i = 0; i < n; i++) answer(k, k->batch[i]);
}

static void tell(const char *event, int n) {
  char count[16];
  snprintf(count, sizeof count, "%d", n);
  if (n) np_log(NP_WARN, event, "count", count, NULL);
}

static void prune(struct np_keeper *k) {
  struct np_error err;
  struct np_pruned pruned;
  int64_t now = np_now_ms();
  if (np_store_prune(k->store, k->options.keep, now, now - EXPIRED_MS, &pruned, &err) < 0) {
    note(k, &err);
    pruned = (struct np_pruned){0};
  }
  tell("failed requests that nobody has replayed are past what is kept, and were removed", pruned.failed);
  tell("dead letters that nobody has looked after are past what is kept, and were dropped", pruned.dead);
  k->prune_at = np_mono_us() + (pruned.more ? PRUNE_MORE_US : PRUNE_US);
}

static bool is_closed(struct np_keeper *k) {
  pthread_mutex_lock(&k->in.lock);
  bool closed = k->in.closed;
  pthread_mutex_unlock(&k->in.lock);
  return closed;
}

static void rest(struct np_keeper *k) {
  int64_t left = (k->prune_at - np_mono_us() + 999) / 1000;
  struct pollfd p = {.fd = k->in.fd, .events = POLLIN};
  if (left > 0) poll(&p, 1, (int)left);
}

static void *keep(void *arg) {
  struct np_keeper *k = arg;
  for (;;) {
    bool last = is_closed(k); /* asked first: nothing is sent after it, so what is taken now is all */
    struct np_node *node = np_mailbox_take(&k->in);
    bool idle = !node;
    while (node) {
      size_t n = 0;
      for (; node && n < k->options.batch; node = node->next) k->batch[n++] = (struct np_writeset *)node;
      commit(k, n);
    }
    if (last) return NULL;
    if (np_mono_us() >= k->prune_at)
      prune(k);
    else if (idle)
      rest(k);
  }
}

struct np_keeper *np_keeper_start(struct np_store *store, const struct np_keeper_options *options, struct np_error *err) {
  struct np_keeper *k = np_alloc(sizeof *k);
  k->store = store;
  k->options = *options;
  if (!k->options.bound) k->options.bound = 4096;
  if (!k->options.batch) k->options.batch = 1024;
  k->prune_at = np_mono_us() + PRUNE_US;
  if (np_mailbox_init(&k->in, 0) < 0) {
    free(k);
    np_fail(err, "keeper: no file descriptor is left");
    return NULL;
  }
  k->batch = np_alloc(k->options.batch * sizeof(struct np_writeset *));
  k->done = np_alloc(k->options.batch * sizeof(struct np_writeset *));
  if (k->options.here || pthread_create(&k->thread, NULL, keep, k) == 0) return k;
  np_fail(err, "keeper: no thread can be started");
  np_mailbox_destroy(&k->in);
  free(k->batch);
  free(k->done);
  free(k);
  return NULL;
}

static int hand_over(struct np_keeper *k, struct np_writeset *ws, size_t bound, size_t bytes) {
  size_t size = ws->arena.total;
  bool room = __atomic_fetch_add(&k->waiting, 1, __ATOMIC_RELAXED) < bound;
  room = __atomic_fetch_add(&k->bytes, size, __ATOMIC_RELAXED) < bytes && room;
  if (room && k->options.here) {
    k->batch[0] = ws;
    commit(k, 1);
    return 0;
  }
  if (room && np_mailbox_send(&k->in, &ws->node) == 0) return 0;
  __atomic_sub_fetch(&k->waiting, 1, __ATOMIC_RELAXED);
  __atomic_sub_fetch(&k->bytes, size, __ATOMIC_RELAXED);
  return -1;
}

int np_keeper_submit(struct np_keeper *k, struct np_writeset *ws) { return hand_over(k, ws, k->options.bound, BYTES_MAX); }

int np_keeper_force(struct np_keeper *k, struct np_writeset *ws) { return hand_over(k, ws, SIZE_MAX, SIZE_MAX); }

enum np_outcome np_keeper_apply(struct np_keeper *k, struct np_writeset *ws, struct np_error *err) {
  struct np_mailbox box;
  enum np_outcome outcome = NP_FAILED;
  if (np_mailbox_init(&box, 0) < 0) {
    np_fail(err, "keeper: no file descriptor is left");
    np_writeset_unref(ws);
    return outcome;
  }
  ws->reply_to = &box;
  if (np_keeper_submit(k, ws) < 0) {
    np_fail(err, "keeper: too much waits to be stored, or neap is stopping; try again");
  } else {
    struct pollfd p = {.fd = box.fd, .events = POLLIN};
    while (!np_mailbox_take(&box)) poll(&p, 1, -1);
    outcome = ws->outcome;
    if (outcome == NP_CONFLICT)
      np_fail(err, "store: what was read has changed since");
    else if (outcome == NP_FAILED)
      np_fail(err, "%s", ws->error);
  }
  np_mailbox_destroy(&box);
  np_writeset_unref(ws);
  return outcome;
}

size_t np_keeper_waiting(struct np_keeper *k) { return __atomic_load_n(&k->waiting, __ATOMIC_RELAXED); }

int np_keeper_full(struct np_keeper *k) {
  return np_keeper_waiting(k) >= k->options.bound || __atomic_load_n(&k->bytes, __ATOMIC_RELAXED) >= BYTES_MAX;
}

void np_keeper_stop(struct np_keeper *k) {
  if (!k) return;
  np_mailbox_close(&k->in);
  if (!k->options.here) pthread_join(k->thread, NULL);
  np_store_close(k->store);
  np_mailbox_destroy(&k->in);
  free(k->batch);
  free(k->done);
  free(k);
}
