/* The keeper: several threads submit, all are answered, the bound holds, a stop commits what waits, one bad set harms nobody. */
#include <poll.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/keeper.h"
#include "store_sets.h"

enum { THREADS = 4, EACH = 300 };

struct told { /* what the committed callback was told, on the keeper's thread */
  int sets, commits;
  int64_t last_seq;
  bool in_order;
  pthread_mutex_t gate; /* holds the keeper up while a test has it */
};

static void committed(void *arg, struct np_writeset *const *sets, size_t n) {
  struct told *t = arg;
  t->commits++;
  for (size_t i = 0; i < n; i++, t->sets++) {
    const struct np_op *op = sets[i]->first;
    if (sets[i]->outcome != NP_COMMITTED) t->in_order = false;
    if (!op || op->kind != NP_OP_READING || !op->as.reading.seq) continue;
    if (op->as.reading.seq <= t->last_seq) t->in_order = false;
    t->last_seq = op->as.reading.seq;
  }
  pthread_mutex_lock(&t->gate);
  pthread_mutex_unlock(&t->gate);
}

static struct np_keeper *start(struct told *t, size_t bound, size_t batch) {
  struct np_error err = {""};
  *t = (struct told){.in_order = true};
  pthread_mutex_init(&t->gate, NULL);
  struct np_keeper_options options = {.bound = bound, .batch = batch, .committed = committed, .arg = t};
  struct np_keeper *k = np_keeper_start(open_store(), &options, &err);
  CHECK(k, "%s", err.text);
  return k;
}

static struct np_writeset *take(struct np_mailbox *box) {
  struct pollfd p = {.fd = box->fd, .events = POLLIN};
  struct np_node *node;
  while (!(node = np_mailbox_take(box))) poll(&p, 1, -1);
  return (struct np_writeset *)node;
}

struct sender {
  struct np_keeper *k;
  struct np_reader *reader;
  int number, committed, answered, duplicates;
  pthread_t thread;
};

static void count_answers(struct sender *me, struct np_mailbox *box) {
  for (struct np_writeset *ws = take(box), *next; ws; ws = next) {
    next = (struct np_writeset *)ws->node.next;
    me->answered++;
    me->committed += ws->outcome == NP_COMMITTED;
    me->duplicates += ws->outcome == NP_COMMITTED && ws->fresh == 0;
    np_writeset_unref(ws);
  }
}

/* A lane: sends sets, keeps some in flight, reads for itself what was answered. Every tenth reading is one that all threads send. */
static void *sends(void *arg) {
  struct sender *me = arg;
  struct np_mailbox box;
  if (np_mailbox_init(&box, 0) < 0) return NULL;
  int sent = 0;
  while (me->answered < EACH) {
    while (sent < EACH && sent - me->answered < 20) {
      struct np_writeset *ws = np_writeset_new();
      char device[20], key[20];
      snprintf(device, sizeof device, "d%d", sent % 10 ? me->number : 99);
      snprintf(key, sizeof key, "%d", sent);
      add_reading(ws, device, sent, key, 1);
      ws->reply_to = &box;
      while (np_keeper_submit(me->k, ws) < 0) count_answers(me, &box);
      sent++;
    }
    count_answers(me, &box);
    if (me->answered % 50 == 0) np_reader_last_seq(me->reader);
  }
  np_mailbox_destroy(&box);
  return NULL;
}

static void many_threads(void) {
  struct told told;
  struct np_keeper *k = start(&told, 64, 16);
  struct sender senders[THREADS];
  int total = 0, duplicates = 0;
  for (int i = 0; i < THREADS; i++) {
    senders[i] = (struct sender){.k = k, .reader = open_reader(), .number = i};
    pthread_create(&senders[i].thread, NULL, sends, &senders[i]);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(senders[i].thread, NULL);
    np_reader_close(senders[i].reader);
    CHECK(senders[i].committed == EACH && senders[i].answered == EACH);
    total += senders[i].committed, duplicates += senders[i].duplicates;
  }
  CHECK(np_keeper_waiting(k) == 0 && !np_keeper_full(k));
  np_keeper_stop(k);
  CHECK(told.sets == total && told.in_order && told.commits <= total, "%d sets in %d commits", told.sets, told.commits);
  CHECK(duplicates == (THREADS - 1) * EACH / 10 && ask("SELECT count(*) FROM readings") == total - duplicates);
  test_clear();
}

static struct np_writeset *one(const char *device, int64_t at, struct np_mailbox *box) {
  struct np_writeset *ws = np_writeset_new();
  add_reading(ws, device, at, NULL, 1);
  ws->reply_to = box;
  return ws;
}

/* With the keeper held up in a callback, exactly `bound` are let in; force goes past; a stop answers all of them. */
static void bounded(void) {
  struct told told;
  struct np_keeper *k = start(&told, 5, 2);
  struct np_mailbox box;
  CHECK(np_mailbox_init(&box, 0) == 0);
  pthread_mutex_lock(&told.gate);
  int64_t at = 0;
  while (!np_keeper_full(k)) CHECK(np_keeper_submit(k, one("b", ++at, &box)) == 0);
  CHECK(at == 5 && np_keeper_waiting(k) == 5, "none can be answered yet");
  struct np_writeset *refused = one("b", 100, &box);
  CHECK(np_keeper_submit(k, refused) == -1 && refused->refs == 1);
  CHECK(np_keeper_force(k, refused) == 0 && np_keeper_waiting(k) == 6);
  struct np_error err = {""};
  CHECK(np_keeper_apply(k, one("b", 101, NULL), &err) == NP_FAILED && strstr(err.text, "too much waits"), "%s", err.text);
  pthread_mutex_unlock(&told.gate);
  np_keeper_stop(k);
  int answered = 0;
  for (struct np_node *n = np_mailbox_take(&box), *next; n; n = next, answered++) {
    next = n->next;
    CHECK(((struct np_writeset *)n)->outcome == NP_COMMITTED);
    np_writeset_unref((struct np_writeset *)n);
  }
  CHECK(answered == 6 && ask("SELECT count(*) FROM readings") == 6);
  np_mailbox_destroy(&box);
  test_clear();
}

static void applies(void) {
  struct told told;
  struct np_keeper *k = start(&told, 0, 0);
  struct np_error err = {""};
  CHECK(np_keeper_apply(k, one("a", 1, NULL), &err) == NP_COMMITTED);
  struct np_writeset *ws = one("a", 2, NULL);
  add_cursor(ws, 0, 7, 8);
  CHECK(np_keeper_apply(k, ws, &err) == NP_CONFLICT && strstr(err.text, "changed"), "%s", err.text);
  ws = one("a", 3, NULL);
  ws->first->as.reading.metric.ptr = NULL;
  CHECK(np_keeper_apply(k, ws, &err) == NP_FAILED && strstr(err.text, "metric"), "%s", err.text);
  CHECK(np_keeper_submit(k, one("a", 4, NULL)) == 0, "nobody to answer is fine");
  np_keeper_stop(k);
  CHECK(ask("SELECT count(*) FROM readings") == 2);
  test_clear();
}

/* Good sets share a commit with one that the database itself refuses. */
static void one_bad_among_good(void) {
  struct told told;
  struct np_keeper *k = start(&told, 0, 0);
  struct np_mailbox box;
  CHECK(np_mailbox_init(&box, 0) == 0);
  pthread_mutex_lock(&told.gate);
  for (int i = 0; i < 20; i++) {
    struct np_writeset *ws = one("o", i, &box);
    if (i == 11) np_writeset_add(ws, NP_OP_GENERATION); /* without any of its texts */
    ws->owner = i == 11 ? ws : NULL;
    CHECK(np_keeper_submit(k, ws) == 0);
  }
  pthread_mutex_unlock(&told.gate);
  np_keeper_stop(k);
  for (struct np_node *n = np_mailbox_take(&box), *next; n; n = next) {
    struct np_writeset *ws = (struct np_writeset *)n;
    next = n->next;
    CHECK(ws->outcome == (ws->owner ? NP_FAILED : NP_COMMITTED), "%s", ws->error);
    CHECK(ws->owner ? ws->error[0] != 0 : ws->fresh == 1);
    np_writeset_unref(ws);
  }
  CHECK(told.sets == 19 && ask("SELECT count(*) FROM readings") == 19 && ask("SELECT count(*) FROM generations") == 0);
  np_mailbox_destroy(&box);
  test_clear();
}

static void *stops(void *arg) {
  np_keeper_stop(arg);
  return NULL;
}

/* What is handed over while it stops is either committed and answered, or refused. */
static void stopping(void) {
  struct told told;
  struct np_keeper *k = start(&told, 10, 0);
  struct np_mailbox box;
  pthread_t stopper;
  int sent = 0, answered = 0;
  CHECK(np_mailbox_init(&box, 0) == 0);
  pthread_mutex_lock(&told.gate);
  CHECK(np_keeper_force(k, one("s", sent++, &box)) == 0);
  pthread_create(&stopper, NULL, stops, k);
  struct np_writeset *ws;
  while (np_keeper_force(k, ws = one("s", sent, &box)) == 0) sent++;
  CHECK(np_keeper_submit(k, ws) == -1);
  np_writeset_unref(ws);
  pthread_mutex_unlock(&told.gate);
  pthread_join(stopper, NULL);
  for (struct np_node *n = np_mailbox_take(&box), *next; n; n = next, answered++) {
    next = n->next;
    CHECK(((struct np_writeset *)n)->outcome == NP_COMMITTED);
    np_writeset_unref((struct np_writeset *)n);
  }
  CHECK(answered == sent && ask("SELECT count(*) FROM readings") == sent, "%d of %d", answered, sent);
  np_mailbox_destroy(&box);
  test_clear();
}

static void prunes(void) {
  struct np_error err = {""};
  struct np_keeper_options options = {.keep = {[NP_KEPT_REQUESTS] = {.age = 1000}}};
  struct np_keeper *k = np_keeper_start(open_store(), &options, &err);
  struct np_writeset *ws = np_writeset_new();
  for (int i = 0; i < 3; i++) {
    struct np_op *op = np_writeset_add(ws, NP_OP_REQUEST);
    op->as.request.instance = op->as.request.method = op->as.request.target = op->as.request.outcome = text(ws, "-");
    op->as.request.received = i < 2 ? np_now_ms() - 5000 : np_now_ms() + 1000000;
  }
  CHECK(np_keeper_apply(k, ws, &err) == NP_COMMITTED);
  while (ask("SELECT count(*) FROM inbox") > 1) usleep(10000);
  CHECK(ask("SELECT count(*) FROM inbox") == 1);
  np_keeper_stop(k);
  test_clear();
}

int main(void) {
  np_log_setup(NP_ERROR, false);
  test_begin();
  many_threads();
  bounded();
  applies();
  one_bad_among_good();
  stopping();
  prunes();
  return test_end();
}
