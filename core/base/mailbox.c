/* A bounded queue into one thread. The eventfd is written only when the box was empty: one wake-up serves a burst. */
#include "base/mailbox.h"

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int np_mailbox_init(struct np_mailbox *m, size_t bound) {
  *m = (struct np_mailbox){.bound = bound};
  m->tail = &m->head;
  m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (m->fd < 0) return -1;
  pthread_mutex_init(&m->lock, NULL);
  return 0;
}

void np_mailbox_destroy(struct np_mailbox *m) {
  close(m->fd);
  pthread_mutex_destroy(&m->lock);
}

static void wake(struct np_mailbox *m) {
  uint64_t one = 1;
  ssize_t n = write(m->fd, &one, sizeof one);
  (void)n; /* fails only where the counter is full, and then the reader is awake */
}

static int put(struct np_mailbox *m, struct np_node *node, bool force) {
  pthread_mutex_lock(&m->lock);
  if (!force && (m->closed || (m->bound && m->count >= m->bound))) {
    pthread_mutex_unlock(&m->lock);
    return -1;
  }
  bool first = m->head == NULL;
  node->next = NULL;
  *m->tail = node;
  m->tail = &node->next;
  m->count++;
  if (first) wake(m); /* inside the lock: the receiver may destroy the box once it has this node */
  pthread_mutex_unlock(&m->lock);
  return 0;
}

int np_mailbox_send(struct np_mailbox *m, struct np_node *node) { return put(m, node, false); }

void np_mailbox_force(struct np_mailbox *m, struct np_node *node) { put(m, node, true); }

struct np_node *np_mailbox_take(struct np_mailbox *m) {
  pthread_mutex_lock(&m->lock);
  uint64_t n;
  ssize_t r = read(m->fd, &n, sizeof n);
  (void)r; /* EAGAIN where nothing was sent */
  struct np_node *head = m->head;
  m->head = NULL;
  m->tail = &m->head;
  m->count = 0;
  pthread_mutex_unlock(&m->lock);
  return head;
}

void np_mailbox_close(struct np_mailbox *m) {
  pthread_mutex_lock(&m->lock);
  m->closed = true;
  wake(m);
  pthread_mutex_unlock(&m->lock);
}

size_t np_mailbox_count(struct np_mailbox *m) {
  pthread_mutex_lock(&m->lock);
  size_t n = m->count;
  pthread_mutex_unlock(&m->lock);
  return n;
}
