/* What a tail of matches, messages, attempts or acknowledgements shows: items from whichever thread it happens on to the main thread. Where nobody tails, asking whether
 * anybody does is one load, and nothing else is done. Nobody ever waits: where too much is on its way, items are lost, and counted. */
#ifndef NP_HOST_FEED_H
#define NP_HOST_FEED_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/mailbox.h"
#include "store/writeset.h"

enum np_feed_kind { NP_FEED_MATCHES, NP_FEED_MESSAGES, NP_FEED_ATTEMPTS, NP_FEED_ACKS, NP_FEEDS };
extern const char *const np_feed_kinds[NP_FEEDS]; /* "matches" … */

/* By which a tail chooses. */
enum np_feed_name {
  NP_FEED_RULE,
  NP_FEED_DESTINATION,
  NP_FEED_DEVICE,
  NP_FEED_METRIC,
  NP_FEED_VENDOR,
  NP_FEED_CONNECTION,
  NP_FEED_NAMES
};
extern const char *const np_feed_names[NP_FEED_NAMES]; /* "rule" … */
bool np_feed_has(enum np_feed_kind kind, enum np_feed_name name);

struct np_feed_item {
  struct np_node node; /* first */
  enum np_feed_kind kind;
  char *names[NP_FEED_NAMES]; /* owned; NULL where it has none */
  struct np_buf line;         /* owned: JSON, with its newline */
};

struct np_feed {
  atomic_int wanted[NP_FEEDS]; /* tails */
  atomic_long lost[NP_FEEDS];
  struct np_mailbox box; /* of struct np_feed_item, to the main thread */
};

int np_feed_init(struct np_feed *f); /* -1 where no descriptor is left */
void np_feed_close(struct np_feed *f);
static inline bool np_feed_wanted(const struct np_feed *f, enum np_feed_kind kind) {
  return atomic_load_explicit(&f->wanted[kind], memory_order_relaxed) > 0;
}
/* Hands it over; it may be lost. Any thread. */
void np_feed_send(struct np_feed *f, struct np_feed_item *item);
void np_feed_item_free(struct np_feed_item *item);

/* A rule's filters have let a reading through, and its handlers were run: what they did are the operations from `did` on. error: it was held, why. */
struct np_feed_item *np_feed_match(const struct np_reading *r, const char *rule, int generation, const struct np_op *did,
                                   const char *error);
struct np_feed_item *np_feed_message(const struct np_message *m);
struct np_feed_item *np_feed_ack(const struct np_op *ack); /* an NP_OP_ACK that was the first */
/* sent: the NP_OP_SENT that an attempt at m led to. */
struct np_feed_item *np_feed_attempt(const struct np_message *m, const struct np_op *sent);

#endif
