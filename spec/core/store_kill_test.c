/* kill -9 at random moments: whatever was acknowledged is there, once, and no set is there by half. */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>

#include "store/keeper.h"
#include "store_sets.h"

enum { ROUNDS = 10, MOST = 200000 };

static char acknowledged[MOST];

/* A set of two readings, a key and a cursor. `number` is unique over all rounds. */
static struct np_writeset *numbered(int number, struct np_mailbox *box) {
  struct np_writeset *ws = np_writeset_new();
  char device[20], key[20];
  snprintf(device, sizeof device, "d%d", number % 37);
  snprintf(key, sizeof key, "%d", number);
  add_reading(ws, device, number, key, number);
  add_reading(ws, "unkeyed", number, NULL, number);
  add_put(ws, key, key, 0);
  ws->reply_to = box;
  ws->owner = (void *)(intptr_t)number;
  return ws;
}

/* The child: writes as fast as it can and reports each acknowledged number, until it is killed. */
static void run(int pipe_fd, int number) {
  struct np_error err;
  struct np_keeper_options options = {.batch = 8};
  struct np_mailbox box;
  struct np_store *s = np_store_open(test_path, &err);
  struct np_keeper *k = s ? np_keeper_start(s, &options, &err) : NULL;
  if (!k || np_mailbox_init(&box, 0) < 0) _exit(1);
  for (int i = 0; i < 30; i++) np_keeper_force(k, numbered(number++, &box));
  for (;;) {
    struct pollfd p = {.fd = box.fd, .events = POLLIN};
    poll(&p, 1, -1);
    for (struct np_node *n = np_mailbox_take(&box), *next; n; n = next) {
      struct np_writeset *ws = (struct np_writeset *)n;
      next = n->next;
      int done = (int)(intptr_t)ws->owner;
      if (ws->outcome != NP_COMMITTED || ws->fresh != 2 || write(pipe_fd, &done, sizeof done) != sizeof done) _exit(1);
      np_writeset_unref(ws);
      if (number < MOST) np_keeper_force(k, numbered(number++, &box));
    }
  }
}

/* Lets a child live until it has acknowledged so many; returns the highest number met. */
static int one_round(int number, int enough) {
  int ends[2], done, count = 0, highest = number, status;
  CHECK(pipe(ends) == 0);
  pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    run(ends[1], number);
  }
  close(ends[1]);
  while (read(ends[0], &done, sizeof done) == sizeof done) {
    acknowledged[done] = 1;
    if (done > highest) highest = done;
    if (++count == enough) kill(child, SIGKILL);
  }
  close(ends[0]);
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", (unsigned)status);
  return highest;
}

struct found {
  int keyed, unkeyed;
  char seen[MOST];
};

static bool see(void *arg, const struct np_reading *r) {
  struct found *f = arg;
  int number = (int)r->value.d;
  if (r->key.ptr)
    f->seen[number]++, f->keyed++;
  else
    f->unkeyed++;
  return true;
}

/* Sends again some of what is there: all of it is known. */
static void resend(struct np_store *s, const struct found *f) {
  int fresh = 0;
  for (int i = 0; i < MOST; i += 13) {
    if (!f->seen[i]) continue;
    struct np_writeset *ws = numbered(i, NULL);
    np_writeset_ref(ws);
    apply(s, ws);
    fresh += (int)ws->fresh;
    np_writeset_unref(ws);
  }
  CHECK(fresh == 0, "%d doubled", fresh);
}

static void verify(void) {
  struct found *f = calloc(1, sizeof *f);
  struct np_store *s = open_store(); /* recovers */
  struct np_reader *r = open_reader();
  CHECK(np_reader_scan(r, 0, 10000000, see, f, NULL) == 0);
  int missing = 0, doubled = 0;
  for (int i = 0; i < MOST; i++) {
    missing += acknowledged[i] && !f->seen[i];
    doubled += f->seen[i] > 1;
  }
  CHECK(missing == 0 && doubled == 0, "%d missing, %d doubled", missing, doubled);
  CHECK(f->keyed == f->unkeyed && ask("SELECT count(*) FROM kv") == f->keyed, "no set is there by half");
  resend(s, f);
  np_store_close(s);
  np_reader_close(r);
  free(f);
}

int main(void) {
  test_begin();
  unsigned random = 7;
  int number = 0;
  for (int i = 0; i < ROUNDS; i++) {
    random = random * 1664525u + 1013904223u;
    number = one_round(number, 1 + (int)((random >> 8) % 2000)) + 1000; /* past what was in flight */
    verify();
  }
  CHECK(ask("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
  return test_end();
}
