/* The router's timers: armed by rules, kept in the store, run in their partition. */
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/clock.h"
#include "host/router_parts.h"

#define TIMER_GRACE_MS 100
#define DUE_MOST 1000000 /* due timers looked at: those that no rule in force knows stay, and must not hide the others */

static const struct np_timer_decl *find_timer(const struct np_router *r, const struct np_timer *t, const struct np_slot **slot) {
  *slot = np_epoch_slot(r->lane->epoch, t->instance.ptr);
  struct np_instance *in = np_lane_instance(r->lane, *slot);
  return in && !np_quarantine_holds(in) ? np_rule_timer((*slot)->code, t->name.ptr) : NULL;
}

void np_router_timer_run(struct np_part *p) {
  struct np_router *r = p->router;
  struct np_timer *t = p->timer;
  const struct np_slot *slot;
  const struct np_timer_decl *decl = find_timer(r, t, &slot);
  if (!decl) { /* stays armed until a generation that knows it is in force */
    free(p->timer);
    p->timer = NULL;
    return;
  }
  struct np_writeset *ws = np_writeset_new();
  struct np_op *fired = np_writeset_add(ws, NP_OP_FIRED);
  fired->as.fired.instance = np_writeset_text(ws, t->instance.ptr, t->instance.len);
  fired->as.fired.name = np_writeset_text(ws, t->name.ptr, t->name.len);
  fired->as.fired.key = np_writeset_text(ws, t->key.ptr, t->key.len);
  fired->as.fired.due = t->due;
  struct np_writeset_mark mark = np_writeset_mark(ws);
  struct np_rule_call c = {.timer = t->name.ptr, .key = t->key.ptr};
  np_rule_call(np_lane_instance(r->lane, slot), decl->handler, &r->overlay, ws, t->due, &c);
  if (!c.ok) {
    np_router_log_held(slot->code, NULL, "a rule's timer failed; it is held", c.error);
    np_writeset_undo(ws, mark);
    np_overlay_free(&r->overlay);
    np_router_hold(ws, slot->instance, NULL, t->name.ptr, t->key.ptr, c.error, t->due, slot->code->number);
    free(c.error);
  }
  np_router_commit(p, ws, false);
}

/* A test's clock stands still while readings are committed: there they are due when they are due. */
static int64_t grace(const struct np_router *r) { return r->lane->alarms ? 0 : TIMER_GRACE_MS; }

void np_router_timers_at(struct np_router *r, int64_t at) {
  if (at >= r->timers_at) return;
  r->timers_at = at;
  if (r->draining) return;
  np_alarm_set(&r->timers, at + grace(r) - np_now_ms());
}

void np_router_timers_note(struct np_router *r, const struct np_writeset *ws) {
  for (const struct np_op *op = ws->first; op; op = op->next)
    if (op->kind == NP_OP_ARM && op->as.arm.due) np_router_timers_at(r, op->as.arm.due);
}

static struct np_timer *copy_timer(const struct np_timer *t) {
  size_t need = sizeof *t + t->instance.len + t->name.len + t->key.len + 3;
  struct np_timer *copy = np_alloc(need);
  char *at = (char *)(copy + 1);
  const struct np_text *from[] = {&t->instance, &t->name, &t->key};
  struct np_text *to[] = {&copy->instance, &copy->name, &copy->key};
  for (int i = 0; i < 3; i++) {
    memcpy(at, from[i]->ptr, from[i]->len);
    *to[i] = (struct np_text){at, from[i]->len};
    at += from[i]->len + 1;
  }
  copy->due = t->due;
  return copy;
}

struct due {
  struct np_router *r;
  bool more; /* some have to wait their turn */
};

/* A due timer waits until its partition has dealt with every reading that was stored: one of them may move it. */
static bool take_timer(void *arg, const struct np_timer *t) {
  struct due *due = arg;
  const struct np_slot *slot;
  struct np_part *p = &due->r->parts[np_partition(t->key.ptr, t->key.len)];
  if (!np_router_mine(due->r, p->number) || !find_timer(due->r, t, &slot)) return true;
  due->more = true;
  if (p->timer) return true;
  if (p->first && !p->wait_for) p->wait_for = p->seen; /* what is stored by now comes first; what comes later does not keep it */
  if (p->coming > p->seen) return true;
  if (p->busy || (p->first && p->done < p->wait_for)) return true;
  p->wait_for = 0;
  p->timer = copy_timer(t);
  return true;
}

/* Looked for a little after they are due, so that a reading that came in time has been committed and has moved them. */
static void find_timers(void *arg) {
  struct np_router *r = arg;
  struct np_error err;
  struct due due = {.r = r};
  int64_t now = np_now_ms() - grace(r);
  r->timers_at = INT64_MAX;
  if (r->draining) return;
  if (!r->behind && np_reader_timers_due(r->lane->reader, now, DUE_MOST, take_timer, &due, &err) < 0) {
    np_log(NP_ERROR, "cannot read timers", "error", err.text, NULL);
    due.more = true;
  }
  for (int i = 0; i < NP_PARTITIONS; i++)
    if (r->parts[i].timer) np_router_part_run(&r->parts[i]);
  /* of a partition's timers that are due at one moment each waits for the one before; in a test that moment lasts until all have fired */
  int64_t next = due.more || r->behind ? now + (r->lane->alarms ? 0 : 10) : np_reader_timer_next(r->lane->reader, now);
  /* looked again within a second in any case: another lane may arm one whose key is of a partition of this lane, and the clock may be set */
  bool alone = r->lane->alarms && next >= 0;
  np_router_timers_at(r, !alone && (next < 0 || next > now + 1000) ? now + 1000 : next);
}

void np_router_timers_open(struct np_router *r) {
  r->timers_at = INT64_MAX;
  r->timers = (struct np_alarm){.lane = r->lane, .fn = find_timers, .arg = r, .uncounted = true};
}
