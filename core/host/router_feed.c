/* What the router tells those who tail: only once it is committed, for what is not has not happened. */
#include "host/feed.h"
#include "host/router_parts.h"

static struct np_feed *feed(const struct np_router *r) { return &r->lane->host->feed; }

void np_router_feed_match(struct np_router *r, const struct np_rule_run *run, const struct np_op *did) {
  if (!np_feed_wanted(feed(r), NP_FEED_MATCHES) || !run->fired) return;
  struct np_feed_item *item = np_feed_match(run->reading, run->in->code->instance, run->in->code->number, did, run->error);
  *r->matches_last = &item->node;
  r->matches_last = &item->node.next;
}

void np_router_feed_begin(struct np_part *p) {
  struct np_router *r = p->router;
  if (r->matches) {
    p->matches = r->matches;
    r->matches = NULL;
  }
  r->matches_last = &r->matches;
}

static void drop(struct np_node *list, struct np_feed *to) {
  for (struct np_node *next; list; list = next) {
    next = list->next;
    if (to)
      np_feed_send(to, (struct np_feed_item *)list);
    else
      np_feed_item_free((struct np_feed_item *)list);
  }
}

void np_router_feed_end(struct np_part *p, const struct np_writeset *ws) {
  struct np_feed *to = ws ? feed(p->router) : NULL;
  drop(p->matches, to);
  p->matches = NULL;
  if (!ws || !np_feed_wanted(to, NP_FEED_MESSAGES)) return;
  for (const struct np_op *op = ws->first; op; op = op->next)
    if (op->kind == NP_OP_SEND) np_feed_send(to, np_feed_message(&op->as.send));
}
