/* The router of one lane.
 * A partition's readings wait in memory, in the order of their seq, and are run in batches: one write set for a batch, which holds what
 * the rules did and the partition's cursor. One batch of a partition is under way at a time, so the next one sees what the last one
 * did. Readings that meet no rule need no commit of their own: the cursor is then written a little later, and after a crash they are
 * only matched again.
 * Where a commit notice was lost, or memory is full, or the host has just started, readings are scanned from the store instead. */
#include "host/router.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/clock.h"
#include "host/host.h"
#include "host/ledger.h"
#include "host/task.h"

#define BATCH 64
#define WAITING_MAX 20000 /* readings of one lane in memory */
#define SCAN 1000
#define HELD_PAGE 1000 /* held entries of one rule in memory */
#define TIMER_GRACE_MS 100
#define DUE_MOST 1000000 /* due timers looked at: those that no rule in force knows stay, and must not hide the others */
#define SLICE_US 20000   /* of rules at a stretch, then the lane's other work has its turn */
#define LAZY_MS 1000     /* a cursor that moved without work is written within so long */

struct item {
  struct item *next;
  struct np_writeset *ws; /* a reference: it holds the reading */
  const struct np_reading *reading;
};

struct held_item { /* a held entry that is to be run again */
  struct held_item *next;
  int64_t id;
  char *instance, *name, *key; /* owned */
  struct np_writeset *ws;      /* owns the reading's strings */
  struct np_reading reading;
  bool is_timer;
};

struct partition {
  struct np_waiter waiter; /* first */
  struct np_router *router;
  int number;
  int64_t committed;                   /* the cursor in the store */
  int64_t done;                        /* rules have dealt with it, perhaps not yet written */
  int64_t seen;                        /* newest that was queued */
  struct item *first, **last;          /* waiting */
  struct item *batch;                  /* those of the set under way, kept until it is committed */
  struct held_item *held, **held_last; /* to be run again before anything else */
  struct held_item *held_now;
  struct np_timer *timer; /* due, to be run: owned with its strings */
  int64_t wait_for;       /* a timer is due, and is run once readings up to this seq have been; 0: none */
  struct np_writeset *ws; /* under way */
  uint64_t made_in;       /* the epoch it was made in */
  bool busy;
  struct event *again; /* after the store could not */
};

struct np_router {
  struct np_lane *lane;
  struct partition parts[NP_PARTITIONS]; /* those of other lanes stay unused */
  size_t waiting;                        /* items */
  bool behind;                           /* scan the store, notices are passed over */
  bool draining;
  bool held_more;            /* held entries wait in the store for those in memory; readings wait for both */
  int64_t lazy_since;        /* ms: when a cursor first moved without a commit; 0 */
  struct event *timers;      /* fires when the next armed timer is due */
  int64_t timers_at;         /* ms, INT64_MAX where nothing is armed */
  struct np_overlay overlay; /* of the batch that is being built */
  int turn;                  /* the partition that comes first */
};

static void run_partition(struct partition *p);

static bool mine(const struct np_router *r, int partition) { return np_lane_has(r->lane, partition, r->lane->host->lane_count); }

static void free_item(struct item *item) {
  np_writeset_unref(item->ws);
  free(item);
}

static void free_items(struct item *list) {
  for (struct item *next; list; list = next) {
    next = list->next;
    free_item(list);
  }
}

static void free_held(struct held_item *h) {
  if (!h) return;
  free(h->instance), free(h->name), free(h->key);
  np_writeset_unref(h->ws);
  free(h);
}

/* One handler of one rule. */

struct call {
  struct np_task task;
  const struct np_reading *reading;
  const char *key; /* of a timer */
  bool ok;
  char *error; /* owned */
};

static int push_reading(lua_State *L, struct np_task *t) {
  struct call *c = t->owner;
  np_push_reading(L, c->reading);
  return 1;
}

static int push_key(lua_State *L, struct np_task *t) {
  struct call *c = t->owner;
  lua_pushstring(L, c->key);
  return 1;
}

static void call_ended(struct np_task *t) {
  struct call *c = t->owner;
  c->ok = !t->failed;
  if (t->failed) c->error = np_strdup(t->error);
}

/* A rule cannot wait: the call has ended when this returns. */
static void call(struct np_router *r, struct np_instance *in, int handler, struct np_writeset *ws, int64_t now, struct call *c) {
  c->task = (struct np_task){.in = in,
                             .mode = c->reading ? NP_RULING : NP_TIMING,
                             .ws = ws,
                             .overlay = &r->overlay,
                             .now = now,
                             .reading = c->reading,
                             .handler = handler,
                             .push = c->reading ? push_reading : push_key,
                             .ended = call_ended,
                             .owner = c};
  np_task_start(&c->task);
}

/* `changed`: differs from the reading of the same device and metric that was measured before it. */
static bool note_value(void *arg, const struct np_reading *before) {
  struct {
    const struct np_reading *now;
    bool found, same;
  } *s = arg;
  if (before->seq >= s->now->seq) return true; /* it came later: as things stood, it was not there */
  const struct np_value *a = &s->now->value, *b = &before->value;
  s->found = true;
  if (a->type == NP_STRING || b->type == NP_STRING)
    s->same = a->type == b->type && a->s.len == b->s.len && memcmp(a->s.ptr, b->s.ptr, a->s.len) == 0;
  else
    s->same = (a->type == NP_NUMBER_REAL ? a->d : (double)a->i) == (b->type == NP_NUMBER_REAL ? b->d : (double)b->i);
  return false;
}

static bool has_changed(struct np_router *r, const struct np_reading *reading) {
  struct {
    const struct np_reading *now;
    bool found, same;
  } s = {.now = reading};
  struct np_error err;
  if (np_reader_history(r->lane->reader, reading->vendor.ptr, reading->device.ptr, reading->metric.ptr, INT64_MIN, reading->at,
                        1000, note_value, &s, &err) < 0)
    np_log(NP_ERROR, "cannot look for the reading before", "error", err.text, NULL);
  return !s.found || !s.same;
}

static void hold(struct np_writeset *ws, const char *instance, const struct np_reading *reading, const char *name, const char *key,
                 const char *error, int generation) {
  struct np_op *op = np_writeset_add(ws, NP_OP_HOLD);
  op->as.hold.instance = np_writeset_text(ws, instance, strlen(instance));
  op->as.hold.name = np_writeset_text(ws, name, strlen(name));
  op->as.hold.key = np_writeset_text(ws, key, strlen(key));
  op->as.hold.error = np_writeset_text(ws, error, strlen(error));
  op->as.hold.reading = reading ? reading->seq : 0;
  op->as.hold.at = np_now_ms();
  op->as.hold.generation = generation;
}

static void log_held(const struct np_code *code, const struct np_reading *reading, const char *what, const char *error) {
  char generation[16], id[24];
  snprintf(generation, sizeof generation, "%d", code->number);
  snprintf(id, sizeof id, "%lld", reading ? (long long)reading->seq : 0);
  np_log(NP_ERROR, what, "plugin", code->instance, "generation", generation, "reading", reading ? id : NULL, "error", error, NULL);
}

/* All handlers of one rule on one reading: all of what they did, or a held entry. False where it was held. */
static bool run_rule(struct np_router *r, const struct np_slot *slot, const struct np_reading *reading, struct np_writeset *ws) {
  const struct np_code *code = slot->code;
  struct np_instance *in = np_lane_instance(r->lane, slot);
  struct np_writeset_mark before = np_writeset_mark(ws);
  for (size_t i = 0; i < code->on_count; i++) {
    const struct np_filter *f = code->ons[i].filter;
    if (!np_filter_match(f, reading) || (np_filter_wants_change(f) && !has_changed(r, reading))) continue;
    struct call c = {.reading = reading};
    call(r, in, code->ons[i].handler, ws, reading->received, &c);
    if (c.ok) continue;
    log_held(code, reading, "a rule failed; the reading is held for it", c.error);
    np_writeset_undo(ws, before);
    np_overlay_rebuild(&r->overlay, ws);
    hold(ws, slot->instance, reading, "", "", c.error, code->number);
    free(c.error);
    return false;
  }
  return true;
}

static void run_rules(struct np_router *r, const struct np_reading *reading, struct np_writeset *ws) {
  const struct np_epoch *e = r->lane->epoch;
  for (size_t i = 0; i < e->slot_count; i++) {
    const struct np_slot *slot = &e->slots[i];
    if (slot->kind != NP_RULE) continue;
    if (slot->code)
      run_rule(r, slot, reading, ws);
    else
      hold(ws, slot->instance, reading, "", "", slot->why_not ? slot->why_not : "not in force", 0);
  }
}

/* Committing. */

static void settle(struct partition *p) {
  struct np_router *r = p->router;
  for (struct item *i = p->batch; i; i = i->next) r->waiting--;
  free_items(p->batch);
  p->batch = NULL;
  if (p->held_now) free_held(p->held_now);
  p->held_now = NULL;
  free(p->timer);
  p->timer = NULL;
}

static void submit_again(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct partition *p = arg;
  np_writeset_ref(p->ws);
  if (np_lane_submit(p->router->lane, p->ws, &p->waiter, true) < 0) np_writeset_unref(p->ws);
}

static void put_back(struct partition *p) {
  struct item *end = p->batch;
  if (!end) return;
  while (end->next) end = end->next;
  end->next = p->first;
  if (!p->first) p->last = &end->next;
  p->first = p->batch;
  p->batch = NULL;
}

static void note_timers(struct np_router *r, const struct np_writeset *ws);
static void find_held(struct np_router *r, struct np_instance *in);
static void arm_event(struct np_router *r, int64_t at);

static bool note_held(void *arg, const struct np_held *found) {
  int64_t *id = arg;
  *id = found->id;
  return false;
}

/* After a conflict: either what the rule read has changed, or the entry has been dealt with already. */
static void held_again(struct partition *p) {
  struct held_item *h = p->held_now;
  struct np_error err;
  int64_t id = 0;
  p->held_now = NULL;
  if (!h) return;
  if (np_reader_held(p->router->lane->reader, h->instance, h->id - 1, 1, note_held, &id, &err) == 0 && id != h->id) {
    free_held(h);
    return;
  }
  h->next = p->held;
  if (!p->held) p->held_last = &h->next;
  p->held = h;
}

/* A reading that the generation before held while the next one looked for held entries: that look came too early for it. */
static void find_late_held(struct np_router *r, const struct np_writeset *ws) {
  for (const struct np_op *op = ws->first; op; op = op->next) {
    if (op->kind != NP_OP_HOLD) continue;
    const struct np_slot *slot = np_epoch_slot(r->lane->epoch, op->as.hold.instance.ptr);
    if (slot && slot->code && slot->kind == NP_RULE) find_held(r, np_lane_instance(r->lane, slot));
  }
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct partition *p = (struct partition *)waiter;
  struct np_router *r = p->router;
  np_writeset_unref(ws);
  if (p->ws->outcome == NP_FAILED) { /* the same set again: nothing of it has happened */
    char partition[16];
    snprintf(partition, sizeof partition, "%d", p->number);
    np_log(NP_WARN, "what rules did is not committed; again in a second", "partition", partition, "error", p->ws->error, NULL);
    struct timeval second = {1, 0};
    event_add(p->again, &second);
    return;
  }
  p->busy = false;
  if (p->ws->outcome == NP_COMMITTED) {
    for (const struct np_op *op = p->ws->first; op; op = op->next)
      if (op->kind == NP_OP_CURSOR) p->committed = op->as.cursor.seq;
    note_timers(r, p->ws);
    settle(p);
    if (p->made_in != r->lane->epoch->number) find_late_held(r, p->ws);
  } else {
    put_back(p);
    p->done = p->committed;
    held_again(p);
    if (p->timer) { /* armed anew meanwhile, or found again */
      free(p->timer);
      p->timer = NULL;
      arm_event(r, np_now_ms());
    }
  }
  np_writeset_unref(p->ws);
  p->ws = NULL;
  run_partition(p);
}

static void add_cursor(struct partition *p, struct np_writeset *ws) {
  if (p->done == p->committed) return;
  struct np_op *op = np_writeset_add(ws, NP_OP_CURSOR);
  op->as.cursor.partition = p->number;
  op->as.cursor.from = p->committed;
  op->as.cursor.seq = p->done;
}

static bool does_something(const struct np_writeset *ws) {
  for (const struct np_op *op = ws->first; op; op = op->next)
    if (op->kind != NP_OP_SEEN) return true;
  return false;
}

/* Commits ws, which p now waits for; or, where it does nothing, forgets it. */
static void commit(struct partition *p, struct np_writeset *ws, bool cursor_alone) {
  struct np_router *r = p->router;
  np_overlay_free(&r->overlay);
  if (!does_something(ws) && !cursor_alone) {
    np_writeset_unref(ws);
    settle(p);
    if (p->done != p->committed && !r->lazy_since) r->lazy_since = np_now_ms();
    return;
  }
  add_cursor(p, ws);
  p->made_in = r->lane->epoch->number;
  p->busy = true;
  p->ws = ws;
  p->waiter.answered = answered;
  np_writeset_ref(ws);
  if (np_lane_submit(r->lane, ws, &p->waiter, true) < 0)
    np_writeset_unref(ws); /* the keeper stops: it is run again at the next start */
}

/* Work of a partition, most urgent first: held entries, waiting readings, a due timer. */

static void run_held(struct partition *p) {
  struct np_router *r = p->router;
  struct held_item *h = p->held;
  p->held = h->next;
  if (!p->held) p->held_last = &p->held;
  const struct np_slot *slot = np_epoch_slot(r->lane->epoch, h->instance);
  if (!slot || !slot->code || slot->kind != NP_RULE) {
    free_held(h);
    return;
  }
  struct np_writeset *ws = np_writeset_new();
  struct np_op *release = np_writeset_add(ws, NP_OP_RELEASE);
  release->as.release.id = h->id;
  bool ok = false;
  if (h->is_timer) {
    struct call c = {.key = h->key};
    for (size_t i = 0; i < slot->code->timer_count; i++) {
      if (strcmp(slot->code->timers[i].name, h->name) != 0) continue;
      call(r, np_lane_instance(r->lane, slot), slot->code->timers[i].handler, ws, np_now_ms(), &c);
      ok = c.ok;
      if (!ok) log_held(slot->code, NULL, "a held timer failed again; it stays held", c.error);
      free(c.error);
    }
  } else {
    struct np_writeset_mark mark = np_writeset_mark(ws);
    ok = run_rule(r, slot, &h->reading, ws);
    if (!ok) np_writeset_undo(ws, mark);
  }
  if (!ok) { /* the entry stays as it is */
    np_overlay_free(&r->overlay);
    np_writeset_unref(ws);
    free_held(h);
    return;
  }
  p->held_now = h;
  commit(p, ws, false);
}

static void run_batch(struct partition *p) {
  struct np_router *r = p->router;
  struct np_writeset *ws = np_writeset_new();
  struct item **end = &p->batch;
  int64_t stop = np_mono_us() + SLICE_US;
  for (int n = 0; p->first && n < BATCH; n++) {
    struct item *item = p->first;
    p->first = item->next;
    if (!p->first) p->last = &p->first;
    item->next = NULL;
    *end = item;
    end = &item->next;
    run_rules(r, item->reading, ws);
    p->done = item->reading->seq;
    if (ws->arena.total > (1u << 20) || np_mono_us() > stop) break;
  }
  commit(p, ws, false);
}

static const struct np_timer_decl *find_timer(const struct np_router *r, const struct np_timer *t, const struct np_slot **slot) {
  *slot = np_epoch_slot(r->lane->epoch, t->instance.ptr);
  const struct np_code *code = *slot ? (*slot)->code : NULL;
  for (size_t i = 0; code && i < code->timer_count; i++)
    if (strcmp(code->timers[i].name, t->name.ptr) == 0) return &code->timers[i];
  return NULL;
}

static void run_timer(struct partition *p) {
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
  struct call c = {.key = t->key.ptr};
  call(r, np_lane_instance(r->lane, slot), decl->handler, ws, t->due, &c);
  if (!c.ok) {
    log_held(slot->code, NULL, "a rule's timer failed; it is held", c.error);
    np_writeset_undo(ws, mark);
    np_overlay_free(&r->overlay);
    hold(ws, slot->instance, NULL, t->name.ptr, t->key.ptr, c.error, slot->code->number);
    free(c.error);
  }
  commit(p, ws, false);
}

/* The next ones, once all that were found have been run. */
static void find_more_held(struct np_router *r) {
  const struct np_epoch *e = r->lane->epoch;
  for (int i = 0; i < NP_PARTITIONS; i++)
    if (r->parts[i].held || r->parts[i].held_now) return;
  r->held_more = false;
  for (size_t i = 0; i < e->slot_count; i++) {
    struct np_instance *in = np_lane_instance(r->lane, &e->slots[i]);
    if (e->slots[i].kind == NP_RULE && in && in->held_more) find_held(r, in);
  }
  event_active(r->lane->tick, EV_TIMEOUT, 0);
}

static void run_partition(struct partition *p) {
  struct np_router *r = p->router;
  /* a batch that committed nothing leaves p free for the next; the loop's other events get their turn between batches */
  if (p->busy) return;
  if (r->held_more && !p->held) find_more_held(r);
  if (p->held)
    run_held(p);
  else if (r->held_more)
    return;
  else if (p->timer)
    run_timer(p);
  else if (p->first)
    run_batch(p);
  else
    return;
  if (!p->busy && (p->held || p->first || p->timer || r->held_more)) event_active(p->router->lane->tick, EV_TIMEOUT, 0);
}

/* Timers. */

static void arm_event(struct np_router *r, int64_t at) {
  if (at >= r->timers_at) return;
  r->timers_at = at;
  if (r->draining) return;
  int64_t ms = at + TIMER_GRACE_MS - np_now_ms();
  if (ms < 0) ms = 0;
  struct timeval in = {ms / 1000, (ms % 1000) * 1000};
  event_add(r->timers, &in);
}

static void note_timers(struct np_router *r, const struct np_writeset *ws) {
  for (const struct np_op *op = ws->first; op; op = op->next)
    if (op->kind == NP_OP_ARM && op->as.arm.due) arm_event(r, op->as.arm.due);
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
  struct partition *p = &due->r->parts[np_partition(t->key.ptr, t->key.len)];
  if (!mine(due->r, p->number) || !find_timer(due->r, t, &slot)) return true;
  due->more = true;
  if (p->timer) return true;
  if (p->first && !p->wait_for) p->wait_for = p->seen; /* what is stored by now comes first; what comes later does not keep it */
  if (p->busy || (p->first && p->done < p->wait_for)) return true;
  p->wait_for = 0;
  p->timer = copy_timer(t);
  return true;
}

/* Looked for a little after they are due, so that a reading that came in time has been committed and has moved them. */
static void find_timers(struct np_router *r) {
  struct np_error err;
  struct due due = {.r = r};
  int64_t now = np_now_ms() - TIMER_GRACE_MS;
  r->timers_at = INT64_MAX;
  if (r->draining) return;
  if (!r->behind && np_reader_timers_due(r->lane->reader, now, DUE_MOST, take_timer, &due, &err) < 0) {
    np_log(NP_ERROR, "cannot read timers", "error", err.text, NULL);
    due.more = true;
  }
  for (int i = 0; i < NP_PARTITIONS; i++)
    if (r->parts[i].timer) run_partition(&r->parts[i]);
  int64_t next = due.more || r->behind ? now + 10 : np_reader_timer_next(r->lane->reader, now);
  /* looked again within a second in any case: another lane may arm one whose key is of a partition of this lane, and the clock may be set */
  arm_event(r, next < 0 || next > now + 1000 ? now + 1000 : next);
}

static void on_timers(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_router *r = arg;
  np_lane_sync(r->lane);
  find_timers(r);
}

/* Taking in. */

static void queue(struct np_router *r, struct np_writeset *ws, const struct np_reading *reading) {
  struct partition *p = &r->parts[reading->partition];
  if (reading->seq <= p->seen) return;
  struct item *item = np_alloc(sizeof *item);
  *item = (struct item){.ws = ws, .reading = reading};
  np_writeset_ref(ws);
  *p->last = item;
  p->last = &item->next;
  p->seen = reading->seq;
  r->waiting++;
}

void np_router_reading(struct np_router *r, struct np_writeset *ws, const struct np_reading *reading) {
  if (r->behind || r->draining) return;
  if (r->waiting < WAITING_MAX)
    queue(r, ws, reading);
  else
    r->behind = true; /* the store has it */
}

/* All of this lane's readings up to seq have been given: partitions that had none of them are past it too. */
void np_router_seen(struct np_router *r, int64_t seq) {
  if (r->behind || r->draining) return;
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct partition *p = &r->parts[i];
    if (!mine(r, i) || p->seen >= seq) continue;
    p->seen = seq;
    if (p->first || p->busy) continue;
    p->done = seq;
    if (!r->lazy_since) r->lazy_since = np_now_ms();
  }
}

struct scan {
  struct np_router *r;
  struct np_writeset *ws;
  int64_t last;
  int n;
};

static struct np_text copy_text(struct np_writeset *ws, struct np_text t) { return np_writeset_text(ws, t.ptr, t.len); }

static struct np_reading copy_reading(struct np_writeset *ws, const struct np_reading *from) {
  struct np_reading r = *from;
  r.vendor = copy_text(ws, from->vendor), r.connection = copy_text(ws, from->connection), r.device = copy_text(ws, from->device);
  r.metric = copy_text(ws, from->metric), r.unit = copy_text(ws, from->unit), r.key = copy_text(ws, from->key);
  r.extra = copy_text(ws, from->extra);
  if (r.value.type == NP_STRING) r.value.s = copy_text(ws, from->value.s);
  return r;
}

static bool take_scanned(void *arg, const struct np_reading *reading) {
  struct scan *s = arg;
  s->last = reading->seq;
  s->n++;
  if (!mine(s->r, reading->partition) || reading->seq <= s->r->parts[reading->partition].seen) return true;
  struct np_op *op = np_writeset_add(s->ws, NP_OP_READING);
  op->as.reading = copy_reading(s->ws, reading);
  queue(s->r, s->ws, &op->as.reading);
  return true;
}

/* A slice of the store after what each partition has seen. Where it gives nothing new, the router has caught up with every commit
 * whose notice it passed over: those were committed before this look. */
static void scan(struct np_router *r) {
  struct np_error err;
  int64_t from = INT64_MAX;
  if (r->waiting > WAITING_MAX / 2) return;
  for (int i = 0; i < NP_PARTITIONS; i++)
    if (mine(r, i) && r->parts[i].seen < from) from = r->parts[i].seen;
  struct scan s = {.r = r, .ws = np_writeset_new()};
  if (np_reader_scan(r->lane->reader, from, SCAN, take_scanned, &s, &err) < 0) {
    np_log(NP_ERROR, "cannot read the log of readings", "error", err.text, NULL);
    np_writeset_unref(s.ws);
    return;
  }
  np_writeset_unref(s.ws);
  /* what was looked at is seen, also by the partitions that had none of it */
  for (int i = 0; s.n && i < NP_PARTITIONS; i++) {
    struct partition *p = &r->parts[i];
    if (!mine(r, i) || p->seen >= s.last) continue;
    p->seen = s.last;
    if (!p->first && !p->busy) p->done = s.last;
  }
  if (s.n < SCAN)
    r->behind = false;
  else
    event_active(r->lane->tick, EV_TIMEOUT, 0);
}

static void flush_cursors(struct np_router *r) {
  r->lazy_since = 0;
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct partition *p = &r->parts[i];
    if (!mine(r, i) || p->busy || p->first || p->done == p->committed) continue;
    commit(p, np_writeset_new(), true);
  }
}

void np_router_run(struct np_router *r) {
  if (r->draining) return;
  if (r->behind) scan(r);
  int64_t stop = np_mono_us() + SLICE_US;
  for (int n = 0, first = r->turn; n < NP_PARTITIONS; n++) {
    int i = (first + n) % NP_PARTITIONS;
    if (!mine(r, i)) continue;
    run_partition(&r->parts[i]);
    if (np_mono_us() <= stop) continue;
    r->turn = i + 1;
    event_active(r->lane->tick, EV_TIMEOUT, 0);
    break;
  }
  if (r->lazy_since && np_now_ms() - r->lazy_since >= LAZY_MS) flush_cursors(r);
}

void np_router_rescan(struct np_router *r) {
  r->behind = true;
  arm_event(r, np_now_ms());
}

/* Held entries. */

struct look {
  struct np_router *r;
  const struct np_held *held;
};

static struct held_item *new_held(const struct np_held *h) {
  struct held_item *item = np_alloc(sizeof *item);
  item->id = h->id;
  item->instance = np_strdup(h->instance.ptr);
  item->name = np_strdup(h->name.ptr ? h->name.ptr : "");
  item->key = np_strdup(h->key.ptr ? h->key.ptr : "");
  item->is_timer = h->reading == 0;
  item->ws = np_writeset_new();
  return item;
}

static void queue_held(struct np_router *r, struct held_item *item, int partition) {
  struct partition *p = &r->parts[partition];
  if (!mine(r, partition)) {
    free_held(item);
    return;
  }
  *p->held_last = item;
  p->held_last = &item->next;
}

static bool take_held_reading(void *arg, const struct np_reading *reading) {
  struct look *look = arg;
  if (!mine(look->r, reading->partition)) return false;
  struct held_item *item = new_held(look->held);
  item->reading = copy_reading(item->ws, reading);
  queue_held(look->r, item, reading->partition);
  return false;
}

struct held_list {
  struct held_item *first, **last;
  int64_t newest;
  int n;
};

static bool list_held(void *arg, const struct np_held *h) {
  struct held_list *list = arg;
  struct held_item *item = new_held(h);
  item->reading.seq = h->reading;
  *list->last = item;
  list->last = &item->next;
  list->newest = h->id;
  list->n++;
  return true;
}

static void queue_one(struct np_router *r, struct held_item *item) {
  struct np_error err;
  item->next = NULL;
  if (item->is_timer) {
    queue_held(r, item, np_partition(item->key, strlen(item->key)));
    return;
  }
  struct np_held h = {.id = item->id, .reading = item->reading.seq, .instance = {item->instance, strlen(item->instance)}};
  struct look look = {.r = r, .held = &h};
  if (np_reader_reading(r->lane->reader, h.reading, take_held_reading, &look, &err) < 0)
    np_log(NP_ERROR, "cannot read a held reading", "error", err.text, NULL);
  free_held(item);
}

/* Those of a rule that it has not found before, oldest first; not all at once where there are many. */
static void find_held(struct np_router *r, struct np_instance *in) {
  struct np_error err;
  struct held_list list = {.newest = in->held_seen};
  list.last = &list.first;
  if (np_reader_held(r->lane->reader, in->code->instance, in->held_seen, HELD_PAGE, list_held, &list, &err) < 0)
    np_log(NP_ERROR, "cannot read held entries", "error", err.text, NULL);
  for (struct held_item *item = list.first, *next; item; item = next) {
    next = item->next;
    queue_one(r, item);
  }
  in->held_seen = list.newest;
  in->held_more = list.n == HELD_PAGE;
  if (in->held_more) r->held_more = true;
}

/* Those of an instance, or of all where it is NULL. */
static void forget_held(struct np_router *r, const char *instance) {
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct partition *p = &r->parts[i];
    struct held_item **at = &p->held;
    for (struct held_item *h; (h = *at);) {
      if (instance && strcmp(h->instance, instance) != 0) {
        at = &h->next;
        continue;
      }
      *at = h->next;
      free_held(h);
    }
    p->held_last = at;
  }
}

void np_router_adopt(struct np_router *r) {
  const struct np_epoch *e = r->lane->epoch;
  for (size_t i = 0; i < e->slot_count; i++) {
    struct np_instance *in = np_lane_instance(r->lane, &e->slots[i]);
    if (e->slots[i].kind != NP_RULE || !in || !in->fresh) continue;
    forget_held(r, e->slots[i].instance);
    find_held(r, in);
  }
  r->timers_at = INT64_MAX;
  arm_event(r, np_now_ms());
  event_active(r->lane->tick, EV_TIMEOUT, 0);
}

struct np_router *np_router_new(struct np_lane *lane, struct np_error *err) {
  int64_t cursors[NP_PARTITIONS];
  if (np_reader_cursors(lane->reader, cursors, err) < 0) return NULL;
  struct np_router *r = np_alloc(sizeof *r);
  r->lane = lane;
  r->behind = true;
  r->timers_at = INT64_MAX;
  r->timers = event_new(lane->base, -1, 0, on_timers, r);
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct partition *p = &r->parts[i];
    *p = (struct partition){.router = r, .number = i, .committed = cursors[i], .done = cursors[i], .seen = cursors[i]};
    p->last = &p->first;
    p->held_last = &p->held;
    p->again = event_new(lane->base, -1, 0, submit_again, p);
  }
  return r;
}

bool np_router_idle(const struct np_router *r) {
  for (int i = 0; i < NP_PARTITIONS; i++)
    if (r->parts[i].busy) return false;
  return true;
}

/* What waits is in the store, and its cursors are not past it: it is run after the next start. */
void np_router_drain(struct np_router *r) {
  flush_cursors(r);
  r->draining = true;
}

void np_router_free(struct np_router *r) {
  forget_held(r, NULL);
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct partition *p = &r->parts[i];
    free_items(p->first);
    free_items(p->batch);
    free_held(p->held_now);
    free(p->timer);
    if (p->ws) np_writeset_unref(p->ws);
    event_free(p->again);
  }
  event_free(r->timers);
  np_overlay_free(&r->overlay);
  free(r);
}
