/* One try at delivering some messages of one destination: the handler is run, its outcome read and committed, each attempt with it. A vendor's handler has a
 * write set as its requests have: what it wrote is committed together with the outcome, unless it raised or returned nil and why. Lane's thread. */
#ifndef NP_HOST_DELIVERY_H
#define NP_HOST_DELIVERY_H

#include "base/buf.h"
#include "host/alarm.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/task.h"

enum np_delivery_verdict {
  NP_DELIVERY_AGAIN, /* no answer, or one that says to try again */
  NP_DELIVERY_DONE,
  NP_DELIVERY_REFUSED, /* for good: to try again would not help */
};

enum np_delivery_end {
  NP_DELIVERY_RECORDED, /* what became of the messages is committed: d->states */
  NP_DELIVERY_SPLIT,    /* a batch was refused, which may be due to one of them: that is committed, each is to be tried alone */
  NP_DELIVERY_STOPPED,  /* the keeper takes nothing more: nothing is known of the messages, they are pending */
};

struct np_result { /* what the handler says of a message, or of all */
  enum np_delivery_verdict verdict;
  int status;          /* of the last HTTP answer; 0 for none */
  int64_t retry_after; /* ms; 0 where the destination did not say */
  char why[500];       /* where not done; in the protected call, so without malloc */
  char answer[200];    /* the start of the answer's body */
  char *error, *said;  /* owned: the same or the handler's error, and the answer, masked */
};

struct np_exchange {            /* what the handler asks by HTTP */
  int count;                    /* how many requests it has made: of the last of them is */
  struct np_buf request, reply; /* owned: "POST https://…\nname: value\n…", and the answer's headers; as they went */
  char *asked, *told;           /* owned: the same, masked, where an attempt has failed; else NULL */
};

struct np_delivery {
  /* Set by who starts it; the rest zero. The messages and their texts live in `arena`, those of one device stand together, oldest first. */
  struct np_waiter waiter; /* first: the keeper's answer finds its way back by it */
  struct np_lane *lane;    /* borrowed */
  struct np_message *messages;
  size_t count;
  double jitter;                          /* 0.5 to 1: of the time to the next try */
  void (*handled)(struct np_delivery *d); /* the handler has ended, the commit has not: another delivery may start */
  void (*ended)(struct np_delivery *d, enum np_delivery_end end); /* once, last; frees it by np_delivery_free */
  void *owner;
  struct np_arena arena;

  /* What came of it: from `handled` on. */
  char *states;                     /* in arena: of each message, as NP_OP_SENT has them */
  int64_t *dues;                    /* in arena: ms, of those that are tried again; the same for all of one device */
  enum np_delivery_verdict verdict; /* AGAIN where none of them went any further */
  int64_t retry_after;              /* ms: the longest that the destination asked for */
  const char *error;                /* borrowed: of the first that was not delivered; NULL */

  /* The delivery's own. */
  struct np_task task;
  bool running;           /* the handler is */
  bool declined;          /* it returned nil and why: what it wrote does not count */
  bool split;             /* a batch was refused */
  struct np_result all;   /* of all messages, where `each` is NULL */
  struct np_result *each; /* in arena: of each message, where the handler returned a list */
  struct np_exchange exchange;
  struct np_instance *in;    /* pinned until all is committed; NULL: nothing is tried */
  struct np_writeset *ws;    /* owned until submitted: of a vendor, what the handler wrote, and the outcome */
  struct np_overlay overlay; /* of a vendor's ws */
  bool seen;                 /* ws holds what the handler has read */
  int tries;                 /* of a handler whose reads were overtaken */
  int64_t began, began_us;   /* the try */
  int64_t took;              /* ms */
  struct np_alarm resubmit;
  struct np_alarm later; /* what its connection keeps is being migrated: the handler runs again after that */
  struct np_buf shown;   /* scratch */
};

/* What np_env lends: of a delivery's handler they note what it asks; of other calls nothing. delivery_exchange.c */
void np_exchange_asks(struct np_env *env, const struct np_fetch_request *request);
void np_exchange_got(struct np_env *env, int status, const char *headers);
/* Runs in->code->deliver. May call handled and ended before it returns. */
void np_delivery_start(struct np_delivery *d, struct np_instance *in);
/* The messages are no longer worth anything: they become dead letters without a try. `handled` is not called. */
void np_delivery_bury(struct np_delivery *d);
/* After `ended`; or while the lane is being closed: then the handler is stopped, and nothing is called or committed. */
void np_delivery_free(struct np_delivery *d);

#endif
