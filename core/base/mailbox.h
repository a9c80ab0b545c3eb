/* A bounded queue into one thread, from any number of others. The receiver sleeps on a file descriptor, so that it fits
 * an event loop as well as poll(). Messages are nodes inside the caller's own structures: sending hands them over. */
#ifndef NP_BASE_MAILBOX_H
#define NP_BASE_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct np_node {
  struct np_node *next;
};

struct np_mailbox {
  pthread_mutex_t lock;
  struct np_node *head, **tail; /* under lock */
  size_t count, bound;          /* under lock; bound 0 is none */
  int fd;                       /* eventfd, readable while there is something to take */
  bool closed;                  /* under lock; sends are refused */
};

int np_mailbox_init(struct np_mailbox *m, size_t bound); /* -1 where no descriptor is left */
void np_mailbox_destroy(struct np_mailbox *m);           /* the caller has taken what was in it */
/* Hands node over. -1 where the box is full or closed: the node is still the caller's. */
int np_mailbox_send(struct np_mailbox *m, struct np_node *node);
/* The same past the bound, for what must not be refused: answers to what was taken in under a bound. */
void np_mailbox_force(struct np_mailbox *m, struct np_node *node);
/* Takes all, oldest first, and quietens the descriptor. NULL where it is empty. Receiver's thread. */
struct np_node *np_mailbox_take(struct np_mailbox *m);
void np_mailbox_close(struct np_mailbox *m); /* refuses sends from now on and wakes the receiver */
size_t np_mailbox_count(struct np_mailbox *m);

#endif
