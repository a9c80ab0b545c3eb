/* The router's held entries: readings and timers that a rule has failed on, run again when a new generation of it is in force. */
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/clock.h"
#include "host/router_parts.h"

#define HELD_PAGE 1000 /* held entries of one rule in memory */

void np_router_held_free(struct np_held_item *h) {
  if (!h) return;
  free(h->instance), free(h->name), free(h->key);
  np_writeset_unref(h->ws);
  free(h);
}

static bool note_held(void *arg, const struct np_held *found) {
  int64_t *id = arg;
  *id = found->id;
  return false;
}

/* After a conflict: either what the rule read has changed, or the entry has been dealt with already. */
void np_router_held_again(struct np_part *p) {
  struct np_held_item *h = p->held_now;
  struct np_error err;
  int64_t id = 0;
  p->held_now = NULL;
  if (!h) return;
  if (np_reader_held(p->router->lane->reader, h->instance, h->id - 1, 1, note_held, &id, &err) == 0 && id != h->id) {
    np_router_held_free(h);
    return;
  }
  h->next = p->held;
  if (!p->held) p->held_last = &h->next;
  p->held = h;
}

/* The rule was run on it, and failed. */
static bool fails_itself(const struct np_writeset *ws) {
  const struct np_op *last = NULL;
  for (const struct np_op *op = ws->first; op; op = op->next)
    if (op->kind == NP_OP_HOLD) last = op;
  return last && last->as.hold.generation;
}

void np_router_held_run(struct np_part *p) {
  struct np_router *r = p->router;
  struct np_held_item *h = p->held;
  p->held = h->next;
  if (!p->held) p->held_last = &p->held;
  const struct np_slot *slot = np_epoch_slot(r->lane->epoch, h->instance);
  if (!slot || !slot->code || slot->kind != NP_RULE) {
    np_router_held_free(h);
    return;
  }
  if (np_quarantine_holds(np_lane_instance(r->lane, slot))) { /* it is found again when that is over */
    np_router_held_free(h);
    return;
  }
  struct np_writeset *ws = np_writeset_new();
  struct np_op *release = np_writeset_add(ws, NP_OP_RELEASE);
  release->as.release.id = h->id;
  bool ok = false;
  if (h->is_timer) {
    const struct np_timer_decl *decl = np_rule_timer(slot->code, h->name);
    struct np_rule_call c = {.timer = h->name, .key = h->key};
    if (decl) np_rule_call(np_lane_instance(r->lane, slot), decl->handler, &r->overlay, ws, h->at, &c);
    ok = c.ok;
    if (decl && !ok) np_router_log_held(slot->code, NULL, "a held timer failed again; it stays held", c.error);
    free(c.error);
  } else {
    struct np_writeset_mark mark = np_writeset_mark(ws);
    ok = np_router_rule(r, slot, &h->reading, h->key, ws);
    if (!ok && !h->generation && fails_itself(ws))
      ok = true; /* it was held for others' failures, from now on for its own */
    else if (!ok)
      np_writeset_undo(ws, mark);
  }
  if (!ok) { /* the entry stays as it is */
    np_overlay_free(&r->overlay);
    np_writeset_unref(ws);
    np_router_held_free(h);
    return;
  }
  p->held_now = h;
  np_router_commit(p, ws, false);
}

struct look {
  struct np_router *r;
  const struct np_held *held;
};

static struct np_held_item *new_held(const struct np_held *h) {
  struct np_held_item *item = np_alloc(sizeof *item);
  item->id = h->id;
  item->instance = np_strdup(h->instance.ptr);
  item->name = np_strdup(h->name.ptr ? h->name.ptr : "");
  item->key = np_strdup(h->key.ptr ? h->key.ptr : "");
  item->is_timer = h->reading == 0;
  item->generation = h->generation;
  item->at = h->at;
  item->ws = np_writeset_new();
  return item;
}

static void queue_held(struct np_router *r, struct np_held_item *item, int partition) {
  struct np_part *p = &r->parts[partition];
  if (!np_router_mine(r, partition)) {
    np_router_held_free(item);
    return;
  }
  *p->held_last = item;
  p->held_last = &item->next;
}

static bool take_held_reading(void *arg, const struct np_reading *reading) {
  struct look *look = arg;
  if (!np_router_mine(look->r, reading->partition)) return false;
  struct np_held_item *item = new_held(look->held);
  item->reading = np_reading_copy(item->ws, reading);
  queue_held(look->r, item, reading->partition);
  return false;
}

struct held_list {
  struct np_held_item *first, **last;
  int64_t newest;
  int n;
  bool for_quarantine;
};

static bool list_held(void *arg, const struct np_held *h) {
  struct held_list *list = arg;
  list->newest = h->id;
  list->n++;
  if (list->for_quarantine && h->generation) return true; /* it has had its turn */
  struct np_held_item *item = new_held(h);
  item->reading.seq = h->reading;
  *list->last = item;
  list->last = &item->next;
  return true;
}

static void queue_one(struct np_router *r, struct np_held_item *item) {
  struct np_error err;
  item->next = NULL;
  if (item->is_timer) {
    queue_held(r, item, np_partition(item->key, strlen(item->key)));
    return;
  }
  struct np_held h = {.id = item->id,
                      .reading = item->reading.seq,
                      .instance = {item->instance, strlen(item->instance)},
                      .key = {item->key, strlen(item->key)},
                      .generation = item->generation};
  struct look look = {.r = r, .held = &h};
  if (np_reader_reading(r->lane->reader, h.reading, take_held_reading, &look, &err) < 0)
    np_log(NP_ERROR, "cannot read a held reading", "error", err.text, NULL);
  np_router_held_free(item);
}

/* Those of a rule that it has not found before, oldest first; not all at once where there are many. */
void np_router_held_find(struct np_router *r, struct np_instance *in) {
  struct np_error err;
  struct held_list list = {.newest = in->held_seen, .for_quarantine = in->held_for_quarantine};
  list.last = &list.first;
  if (np_reader_held(r->lane->reader, in->code->instance, in->held_seen, HELD_PAGE, list_held, &list, &err) < 0)
    np_log(NP_ERROR, "cannot read held entries", "error", err.text, NULL);
  for (struct np_held_item *item = list.first, *next; item; item = next) {
    next = item->next;
    queue_one(r, item);
  }
  in->held_seen = list.newest;
  in->held_more = list.n == HELD_PAGE;
  if (in->held_more) r->held_more = true;
}

/* Those of an instance, or of all where it is NULL. */
void np_router_held_forget(struct np_router *r, const char *instance) {
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct np_part *p = &r->parts[i];
    struct np_held_item **at = &p->held;
    for (struct np_held_item *h; (h = *at);) {
      if (instance && strcmp(h->instance, instance) != 0) {
        at = &h->next;
        continue;
      }
      *at = h->next;
      np_router_held_free(h);
    }
    p->held_last = at;
  }
}

/* A reading that the generation before held while the next one looked for held entries: that look came too early for it. */
void np_router_held_late(struct np_router *r, const struct np_writeset *ws) {
  for (const struct np_op *op = ws->first; op; op = op->next) {
    if (op->kind != NP_OP_HOLD) continue;
    const struct np_slot *slot = np_epoch_slot(r->lane->epoch, op->as.hold.instance.ptr);
    if (slot && slot->code && slot->kind == NP_RULE) np_router_held_find(r, np_lane_instance(r->lane, slot));
  }
}

/* The next ones, once all that were found have been run. */
void np_router_held_more(struct np_router *r) {
  const struct np_epoch *e = r->lane->epoch;
  for (int i = 0; i < NP_PARTITIONS; i++)
    if (r->parts[i].held || r->parts[i].held_now) return;
  r->held_more = false;
  for (size_t i = 0; i < e->slot_count; i++) {
    struct np_instance *in = np_lane_instance(r->lane, &e->slots[i]);
    if (e->slots[i].kind == NP_RULE && in && in->held_more && !np_quarantine_holds(in)) np_router_held_find(r, in);
  }
  np_lane_soon(r->lane);
}
