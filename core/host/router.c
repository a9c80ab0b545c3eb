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
#include "host/router_parts.h"
#include "host/state.h"
#include "host/task.h"

#define BATCH 64
#define WAITING_MAX 20000 /* readings of one lane in memory */
#define SCAN 1000
#define SLICE_US 20000 /* of rules at a stretch, then the lane's other work has its turn */
#define LAZY_MS 1000   /* a cursor that moved without work is written within so long */

static void free_item(struct np_part_item *item) {
  np_writeset_unref(item->ws);
  free(item);
}

static void free_items(struct np_part_item *list) {
  for (struct np_part_item *next; list; list = next) {
    next = list->next;
    free_item(list);
  }
}

void np_router_hold(struct np_writeset *ws, const char *instance, const struct np_reading *reading, const char *name,
                    const char *key, const char *error, int64_t at, int generation) {
  struct np_op *op = np_writeset_add(ws, NP_OP_HOLD);
  op->as.hold.instance = np_writeset_text(ws, instance, strlen(instance));
  op->as.hold.name = np_writeset_text(ws, name, strlen(name));
  op->as.hold.key = np_writeset_text(ws, key, strlen(key));
  op->as.hold.error = np_writeset_text(ws, error, strlen(error));
  op->as.hold.reading = reading ? reading->seq : 0;
  op->as.hold.at = at;
  op->as.hold.generation = generation;
}

void np_router_log_held(const struct np_code *code, const struct np_reading *reading, const char *what, const char *error) {
  char generation[16], id[24];
  snprintf(generation, sizeof generation, "%d", code->number);
  snprintf(id, sizeof id, "%lld", reading ? (long long)reading->seq : 0);
  np_log(NP_ERROR, what, "plugin", code->instance, "generation", generation, "reading", reading ? id : NULL, "error", error, NULL);
}

static bool run_rule(struct np_router *r, const struct np_slot *slot, struct np_rule_run *run) {
  run->in = np_lane_instance(r->lane, slot);
  run->overlay = &r->overlay;
  struct np_op **did = np_writeset_mark(run->ws).last;
  bool ok = np_rule_run(run);
  np_router_feed_match(r, run, *did);
  if (!ok) {
    int failed = run->kept_back ? 0 : slot->code->number;
    if (failed) np_router_log_held(slot->code, run->reading, "a rule failed; the reading is held for it", run->error);
    np_router_hold(run->ws, slot->instance, run->reading, "", np_buf_text(&run->verdicts), run->error, np_now_ms(), failed);
    free(run->error);
  }
  np_buf_free(&run->verdicts);
  return ok;
}

bool np_router_rule(struct np_router *r, const struct np_slot *slot, const struct np_reading *reading, const char *judged,
                    struct np_writeset *ws) {
  struct np_rule_run run = {.reading = reading, .judged = judged, .ws = ws};
  return run_rule(r, slot, &run);
}

/* The bits of those rules' filters that the reading may fire. Where it cannot be known of its device which, of all: those that need it will say so. */
static void find_rules(struct np_router *r, const struct np_rules *rules, const struct np_reading *reading) {
  const struct np_facts *facts = NULL;
  struct np_error err;
  size_t words = np_filter_index_words(rules->index);
  if (words > r->words) {
    r->bits = np_realloc(r->bits, words * sizeof *r->bits);
    r->ons = np_realloc(r->ons, words * 64 * sizeof *r->ons);
    r->words = words;
  }
  bool all = np_filter_index_wants_facts(rules->index) &&
             np_facts_find(&r->lane->facts, r->lane->reader, reading->vendor, reading->device, &facts, &err) < 0;
  if (!all)
    np_filter_index_find(rules->index, reading, facts, r->bits);
  else
    for (size_t i = 0; i < rules->count; i++) r->bits[i / 64] |= UINT64_C(1) << i % 64;
}

static void run_rules(struct np_router *r, const struct np_reading *reading, struct np_writeset *ws) {
  const struct np_epoch *e = r->lane->epoch;
  const struct np_rules *rules = e->rules;
  for (size_t i = 0; i < rules->out_count; i++) {
    const struct np_slot *slot = &e->slots[rules->out_of_force[i]];
    np_router_hold(ws, slot->instance, reading, "", "", slot->why_not ? slot->why_not : "not in force", np_now_ms(), 0);
  }
  if (!rules->count) return;
  find_rules(r, rules, reading);
  size_t n = 0;
  uint32_t slot = 0;
  for (size_t word = 0; word < (rules->count + 63) / 64; word++)
    for (uint64_t bits = r->bits[word]; bits; bits &= bits - 1) {
      const struct np_rule_on *on = &rules->ons[word * 64 + (size_t)__builtin_ctzll(bits)];
      if (n && on->slot != slot) {
        struct np_rule_run run = {.reading = reading, .ws = ws, .ons = r->ons, .on_count = n};
        run_rule(r, &e->slots[slot], &run);
        n = 0;
      }
      slot = on->slot;
      r->ons[n++] = on->on;
    }
  struct np_rule_run run = {.reading = reading, .ws = ws, .ons = r->ons, .on_count = n};
  if (n) run_rule(r, &e->slots[slot], &run);
}

/* Committing. */

static void tell_backlog(const struct np_router *r) {
  atomic_store_explicit(&r->lane->backlog, (long)r->waiting + (r->behind ? WAITING_MAX : 0), memory_order_relaxed);
}

static void settle(struct np_part *p) {
  struct np_router *r = p->router;
  for (struct np_part_item *i = p->batch; i; i = i->next) r->waiting--;
  tell_backlog(r);
  free_items(p->batch);
  p->batch = NULL;
  if (p->held_now) np_router_held_free(p->held_now);
  p->held_now = NULL;
  free(p->timer);
  p->timer = NULL;
}

static void submit_again(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_part *p = arg;
  if (!p->ws) {
    if (!np_state_is_migrating(p->router->lane)) {
      np_lane_sync(p->router->lane);
      p->busy = false;
      np_router_part_run(p);
      return;
    }
    struct timeval soon = {0, NP_STATE_WAIT * 1000};
    event_add(p->again, &soon);
    return;
  }
  np_writeset_ref(p->ws);
  if (np_lane_submit(p->router->lane, p->ws, &p->waiter, true) < 0) np_writeset_unref(p->ws);
}

static void put_back(struct np_part *p) {
  struct np_part_item *end = p->batch;
  if (!end) return;
  while (end->next) end = end->next;
  end->next = p->first;
  if (!p->first) p->last = &end->next;
  p->first = p->batch;
  p->batch = NULL;
}

/* What rules have derived comes with the commit's notice; timers wait for it, as for all that is stored. */
static void note_derived(struct np_router *r, const struct np_writeset *ws) {
  for (const struct np_op *op = ws->first; op; op = op->next) {
    const struct np_reading *reading = &op->as.reading;
    if (op->kind == NP_OP_READING && np_router_mine(r, reading->partition) && reading->seq > r->parts[reading->partition].coming)
      r->parts[reading->partition].coming = reading->seq;
  }
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct np_part *p = (struct np_part *)waiter;
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
    note_derived(r, p->ws);
    np_router_timers_note(r, p->ws);
    np_router_feed_end(p, p->ws);
    settle(p);
    if (p->made_in != r->lane->epoch->number || p->made_after != r->taken_up) np_router_held_late(r, p->ws);
  } else {
    np_router_feed_end(p, NULL);
    put_back(p);
    p->done = p->committed;
    np_router_held_again(p);
    if (p->timer) { /* armed anew meanwhile, or found again */
      free(p->timer);
      p->timer = NULL;
      np_router_timers_at(r, np_now_ms());
    }
  }
  bool waits = p->ws->outcome == NP_CONFLICT && np_state_is_migrating(r->lane);
  np_writeset_unref(p->ws);
  p->ws = NULL;
  p->busy = waits;
  if (waits)
    submit_again(-1, 0, p);
  else
    np_router_part_run(p);
}

static void add_cursor(struct np_part *p, struct np_writeset *ws) {
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
void np_router_commit(struct np_part *p, struct np_writeset *ws, bool cursor_alone) {
  struct np_router *r = p->router;
  np_overlay_free(&r->overlay);
  np_router_feed_begin(p);
  if (!does_something(ws) && !cursor_alone) {
    np_router_feed_end(p, ws);
    np_writeset_unref(ws);
    settle(p);
    if (p->done != p->committed && !r->lazy_since) r->lazy_since = np_now_ms();
    return;
  }
  add_cursor(p, ws);
  p->made_in = r->lane->epoch->number;
  p->made_after = r->taken_up;
  p->busy = true;
  p->ws = ws;
  p->waiter.answered = answered;
  np_writeset_ref(ws);
  if (np_lane_submit(r->lane, ws, &p->waiter, true) < 0)
    np_writeset_unref(ws); /* the keeper stops: it is run again at the next start */
}

/* Work of a partition, most urgent first: held entries, waiting readings, a due timer. */

static bool may_run(const struct np_part *p) { return p->first && (p->first->reading->quiet || !p->router->lane->epoch->bare); }

static void run_batch(struct np_part *p) {
  struct np_router *r = p->router;
  struct np_writeset *ws = np_writeset_new();
  struct np_part_item **end = &p->batch;
  int64_t stop = np_work_us() + SLICE_US;
  for (int n = 0; may_run(p) && n < BATCH; n++) {
    struct np_part_item *item = p->first;
    p->first = item->next;
    if (!p->first) p->last = &p->first;
    item->next = NULL;
    *end = item;
    end = &item->next;
    if (!item->reading->quiet) run_rules(r, item->reading, ws);
    p->done = item->reading->seq;
    if (ws->arena.total > (1u << 20) || np_work_us() > stop) break;
  }
  np_router_commit(p, ws, false);
}

void np_router_part_run(struct np_part *p) {
  struct np_router *r = p->router;
  /* a batch that committed nothing leaves p free for the next; the loop's other events get their turn between batches */
  if (p->busy) return;
  if (r->held_more && !p->held) np_router_held_more(r);
  if (p->held)
    np_router_held_run(p);
  else if (r->held_more)
    return;
  else if (p->timer)
    np_router_timer_run(p);
  else if (may_run(p))
    run_batch(p);
  else
    return;
  if (!p->busy && (p->held || may_run(p) || p->timer || r->held_more)) np_lane_soon(p->router->lane);
}

/* Taking in. */

static void queue(struct np_router *r, struct np_writeset *ws, const struct np_reading *reading) {
  struct np_part *p = &r->parts[reading->partition];
  if (reading->seq <= p->seen) return;
  struct np_part_item *item = np_alloc(sizeof *item);
  *item = (struct np_part_item){.ws = ws, .reading = reading};
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
    struct np_part *p = &r->parts[i];
    if (!np_router_mine(r, i) || p->seen >= seq) continue;
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

static bool take_scanned(void *arg, const struct np_reading *reading) {
  struct scan *s = arg;
  s->last = reading->seq;
  s->n++;
  if (!np_router_mine(s->r, reading->partition) || reading->seq <= s->r->parts[reading->partition].seen) return true;
  struct np_op *op = np_writeset_add(s->ws, NP_OP_READING);
  op->as.reading = np_reading_copy(s->ws, reading);
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
    if (np_router_mine(r, i) && r->parts[i].seen < from) from = r->parts[i].seen;
  struct scan s = {.r = r, .ws = np_writeset_new()};
  if (np_reader_scan(r->lane->reader, from, SCAN, take_scanned, &s, &err) < 0) {
    np_log(NP_ERROR, "cannot read the log of readings", "error", err.text, NULL);
    np_writeset_unref(s.ws);
    return;
  }
  np_writeset_unref(s.ws);
  /* what was looked at is seen, also by the partitions that had none of it */
  for (int i = 0; s.n && i < NP_PARTITIONS; i++) {
    struct np_part *p = &r->parts[i];
    if (!np_router_mine(r, i) || p->seen >= s.last) continue;
    p->seen = s.last;
    if (!p->first && !p->busy) p->done = s.last;
  }
  if (s.n < SCAN)
    r->behind = false;
  else
    np_lane_soon(r->lane);
}

static void flush_cursors(struct np_router *r) {
  r->lazy_since = 0;
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct np_part *p = &r->parts[i];
    if (!np_router_mine(r, i) || p->busy || p->first || p->done == p->committed) continue;
    np_router_commit(p, np_writeset_new(), true);
  }
}

void np_router_run(struct np_router *r) {
  if (r->draining) return;
  if (r->behind) scan(r);
  int64_t stop = np_work_us() + SLICE_US;
  for (int n = 0, first = r->turn; n < NP_PARTITIONS; n++) {
    int i = (first + n) % NP_PARTITIONS;
    if (!np_router_mine(r, i)) continue;
    np_router_part_run(&r->parts[i]);
    if (np_work_us() <= stop) continue;
    r->turn = i + 1;
    np_lane_soon(r->lane);
    break;
  }
  if (r->lazy_since && np_now_ms() - r->lazy_since >= LAZY_MS) flush_cursors(r);
  tell_backlog(r);
}

void np_router_take_up(struct np_router *r, struct np_instance *in) {
  r->taken_up++;
  in->held_seen = 0;
  in->held_for_quarantine = true;
  np_router_held_forget(r, in->code->instance);
  np_router_held_find(r, in);
  np_router_timers_at(r, np_now_ms());
  np_lane_soon(r->lane);
}

void np_router_rescan(struct np_router *r) {
  r->behind = true;
  np_router_timers_at(r, np_now_ms());
}

void np_router_adopt(struct np_router *r) {
  const struct np_epoch *e = r->lane->epoch;
  for (size_t i = 0; i < e->slot_count; i++) {
    struct np_instance *in = np_lane_instance(r->lane, &e->slots[i]);
    if (e->slots[i].kind != NP_RULE || !in || !in->fresh) continue;
    np_router_held_forget(r, e->slots[i].instance);
    np_router_held_find(r, in);
  }
  r->timers_at = INT64_MAX;
  np_router_timers_at(r, np_now_ms());
  np_lane_soon(r->lane);
}

struct np_router *np_router_new(struct np_lane *lane, struct np_error *err) {
  int64_t cursors[NP_PARTITIONS];
  if (np_reader_cursors(lane->reader, cursors, err) < 0) return NULL;
  struct np_router *r = np_alloc(sizeof *r);
  r->lane = lane;
  r->behind = true;
  r->timers_at = INT64_MAX;
  r->matches_last = &r->matches;
  np_router_timers_open(r);
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct np_part *p = &r->parts[i];
    *p = (struct np_part){.router = r, .number = i, .committed = cursors[i], .done = cursors[i], .seen = cursors[i]};
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
  np_alarm_stop(&r->timers);
  r->draining = true;
}

void np_router_free(struct np_router *r) {
  np_router_held_forget(r, NULL);
  for (int i = 0; i < NP_PARTITIONS; i++) {
    struct np_part *p = &r->parts[i];
    free_items(p->first);
    free_items(p->batch);
    np_router_held_free(p->held_now);
    free(p->timer);
    if (p->ws) np_writeset_unref(p->ws);
    np_router_feed_begin(p);
    np_router_feed_end(p, NULL);
    event_free(p->again);
  }
  np_alarm_stop(&r->timers);
  np_overlay_free(&r->overlay);
  free(r->bits), free(r->ons);
  free(r);
}
