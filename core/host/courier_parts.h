/* What the courier's files share; nobody else includes it. courier.c knows which lines there are and when something is due, courier_parcel.c makes parcels
 * of lines and deals with what became of them, courier_expiry.c finds what is no longer worth anything. */
#ifndef NP_HOST_COURIER_PARTS_H
#define NP_HOST_COURIER_PARTS_H

#include <event2/event.h>

#include "host/courier.h"
#include "host/delivery.h"
#include "host/host.h"
#include "host/outlet.h"

#define NP_STORE_RETRY 1000 /* ms */

enum np_line_state {
  NP_LINE_READY,  /* in its destination's queue */
  NP_LINE_FLYING, /* in a parcel, until what became of that is committed */
  NP_LINE_WAITING /* for its alarm */
};

struct np_line {              /* the messages of one device to one destination: those of replays, or the others */
  struct np_courier *courier; /* borrowed */
  struct np_destination *to;  /* borrowed */
  char *device;               /* owned */
  bool replayed;
  enum np_line_state state;
  bool more;              /* FLYING: there are messages after those under way */
  bool eager;             /* what is due later is tried now */
  size_t singly;          /* so many messages are delivered one by one */
  size_t messages, bytes; /* that are known to wait; there may be more */
  int64_t since;          /* ms: when the oldest of them was made; 0: long ago, as far as is known */
  int64_t due;            /* WAITING: ms */
  struct np_alarm alarm;
  struct np_line *prev, *next; /* READY */
};

struct np_ready {               /* lines that are, in the order in which they became so */
  struct np_line *first, *last; /* borrowed */
  size_t messages, bytes;       /* of them */
};

struct np_destination {
  struct np_courier *courier; /* borrowed */
  char *name;                 /* owned */
  struct np_outlet *outlet;   /* borrowed from the broker */
  struct np_ready ready[2];   /* live ones, and those of replays, which come after them */
  size_t waiting;             /* lines */
  struct np_instance *in;     /* only to be compared: the one in force when last looked */
  int generation;             /* of it; 0 where none is in force */
  bool scanned;               /* the store was asked for its messages of the past */
  bool asked;                 /* the outlet has this lane in its queue, or has promised it a turn */
  unsigned recoveries;        /* of the outlet, when last looked */
  struct np_alarm again;      /* looks at it again: a turn has come, a probe is due, a batch has waited long enough */
};

struct np_parcel {              /* messages under way together */
  struct np_courier *courier;   /* borrowed */
  struct np_destination *to;    /* borrowed */
  struct np_delivery *delivery; /* owned, until it has ended */
  bool probe;
  struct np_line **lines; /* owned array, borrowed lines: in the order of the delivery's messages */
  size_t *counts;         /* owned: messages of each */
  size_t line_count;
  struct np_parcel *prev, *next; /* in the courier's list */
};

struct np_courier {
  struct np_lane *lane;       /* borrowed */
  struct np_map lines;        /* owned: struct np_line by destination 0 device, of replays with another 0 */
  struct np_map destinations; /* owned: struct np_destination by name */
  struct np_parcel *parcels;  /* owned */
  struct event *pump;         /* owned: starts what is ready; never from inside somebody's callback */
  struct np_alarm rescan, expiry;
  int64_t next_expiry; /* ms: when `expiry` rings, where it is set */
  bool started, draining;
  uint64_t random; /* xorshift */
};

/* courier.c */
struct np_line *np_line_note(struct np_courier *c, const char *destination, const char *device, size_t len, bool replayed,
                             bool *found);
void np_line_ready(struct np_line *l);
void np_line_take(struct np_line *l); /* READY: out of the queue; WAITING: its alarm is stopped */
void np_line_wait(struct np_line *l, int64_t ms);
void np_line_remove(struct np_line *l);      /* it is in no queue and no parcel */
void np_courier_again(struct np_courier *c); /* has the pump run */

/* courier_parcel.c: makes a parcel of lines that are ready, of one of the destination's two kinds, and sends it. False: there was nothing to send. */
bool np_parcel_send(struct np_courier *c, struct np_destination *to, struct np_ready *ready, struct np_instance *in, bool probe);
/* Buries messages of that line that have expired; in: what is in force, NULL where nothing is. The line is neither in a queue nor in a parcel. False:
 * there are none, or the store cannot be read. */
bool np_parcel_bury(struct np_line *l, const struct np_instance *in);
void np_parcel_free(struct np_parcel *p);

/* courier_expiry.c */
void np_expiry_note(struct np_courier *c, int64_t expires); /* a message that expires then */
void np_expiry_sweep(void *arg);                            /* an alarm's: arg is the courier */

#endif
