/* One try: what the handler returns decides. A delivered message must not be sent again because the store is full for a moment: the
 * outcome is kept and submitted until it is committed. */
#include "host/delivery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/delivery_parts.h"
#include "host/host.h"
#include "host/state.h"

#define RESUBMIT 1000
#define TRIES 10 /* of a handler whose reads were overtaken: each sends once more */

static void run(struct np_delivery *d);
static void give_up(struct np_delivery *d);

static struct np_result *result_of(struct np_delivery *d, size_t i) { return d->each ? &d->each[i] : &d->all; }

/* What is recorded */

/* Why a message that is a dead letter is one. */
static enum np_dead_reason reason_of(struct np_delivery *d, size_t i, int64_t now) {
  const struct np_terms *terms = d->in ? &d->in->code->terms : NULL;
  if (d->in && result_of(d, i)->verdict == NP_DELIVERY_REFUSED) return NP_DEAD_REFUSED;
  return !d->in || np_terms_expiry(terms, &d->messages[i]) <= now ? NP_DEAD_EXPIRED : NP_DEAD_GAVE_UP;
}

static void log_outcome(struct np_delivery *d, size_t i, const char *reason) {
  const struct np_message *m = &d->messages[i];
  const struct np_result *r = result_of(d, i);
  char attempt[16], next[32], status[16], state = d->states[i];
  snprintf(attempt, sizeof attempt, "%d", m->attempts + (d->in != NULL));
  snprintf(status, sizeof status, "%d", r->status);
  snprintf(next, sizeof next, "in %.1f s", (double)(d->dues[i] - np_now_ms()) / 1000);
  const char *answer = r->status ? status : NULL;
  if (state == 'd')
    np_log(NP_DEBUG, "delivered", "destination", m->destination.ptr, "message", m->id.ptr, "attempt", attempt, "status", answer,
           NULL);
  else if (state == 'r')
    np_log(NP_WARN, "not delivered", "destination", m->destination.ptr, "message", m->id.ptr, "attempt", attempt, "status", answer,
           "next try", next, "error", r->error, NULL);
  else
    np_log(NP_ERROR, "not delivered; it is a dead letter now", "destination", m->destination.ptr, "message", m->id.ptr, "device",
           m->device.ptr, "reason", reason, "attempts", attempt, "status", answer, "error", r->error, NULL);
}

/* A line for each message; but one for all of a batch that are tried again for the same reason. */
static void log_outcomes(struct np_delivery *d, int64_t now) {
  size_t again = 0, first = 0;
  for (size_t i = 0; i < d->count; i++) {
    bool together = !d->each && d->states[i] == 'r' && d->count > 1;
    if (!together) log_outcome(d, i, d->states[i] == 'x' ? np_dead_reasons[reason_of(d, i, now)] : NULL);
    if (together && !again++) first = i;
  }
  if (!again) return;
  char messages[24], next[32];
  snprintf(messages, sizeof messages, "%zu", again);
  snprintf(next, sizeof next, "in %.1f s", (double)(d->dues[first] - now) / 1000);
  if (d->split)
    np_log(NP_WARN, "a batch was refused: each message is tried alone", "destination", d->messages->destination.ptr, "messages",
           messages, "error", d->all.error, NULL);
  else
    np_log(NP_WARN, "a batch was not delivered", "destination", d->messages->destination.ptr, "messages", messages, "next try",
           next, "error", d->all.error, NULL);
}

static struct np_text text_of(struct np_delivery *d, const char *s) { return np_writeset_text(d->ws, s, s ? strlen(s) : 0); }

/* Of several requests for several messages, nobody can say which was whose. */
static bool has_exchange(struct np_delivery *d, size_t i) {
  return result_of(d, i)->verdict != NP_DELIVERY_DONE && (!d->each || d->exchange.count == 1);
}

static struct np_attempt attempt_of(struct np_delivery *d, size_t i) {
  static const char *const outcomes[] = {
      [NP_DELIVERY_AGAIN] = "again", [NP_DELIVERY_DONE] = "delivered", [NP_DELIVERY_REFUSED] = "refused"};
  const struct np_result *r = result_of(d, i);
  return (struct np_attempt){.n = d->messages[i].attempts + 1,
                             .at = d->began,
                             .took = d->took,
                             .generation = d->in->code->number,
                             .status = r->status,
                             .batch = (int)d->count,
                             .outcome = text_of(d, outcomes[r->verdict]),
                             .error = text_of(d, r->verdict == NP_DELIVERY_DONE ? NULL : r->error),
                             .answer = text_of(d, r->said && *r->said ? r->said : NULL),
                             .request = text_of(d, has_exchange(d, i) ? d->exchange.asked : NULL),
                             .reply = text_of(d, has_exchange(d, i) ? d->exchange.told : NULL)};
}

static void add_sent(struct np_delivery *d, size_t i, int64_t now) {
  const struct np_message *m = &d->messages[i];
  struct np_result *r = result_of(d, i);
  struct np_op *op = np_writeset_add(d->ws, NP_OP_SENT);
  bool failed = d->in && d->states[i] != 'd';
  op->as.sent.seq = m->seq;
  op->as.sent.state = d->states[i];
  op->as.sent.attempts = m->attempts + failed;
  op->as.sent.status = r->status;
  op->as.sent.at = now;
  op->as.sent.due = d->states[i] == 'r' ? d->dues[i] : 0;
  op->as.sent.id = np_writeset_text(d->ws, m->id.ptr, m->id.len);
  op->as.sent.destination = np_writeset_text(d->ws, m->destination.ptr, m->destination.len);
  if (failed) op->as.sent.error = text_of(d, r->error); /* of what is buried the last one's stays */
  if (d->states[i] == 'x') op->as.sent.reason = text_of(d, np_dead_reasons[reason_of(d, i, now)]);
  if (d->in) op->as.sent.attempt = attempt_of(d, i);
}

static void submit(struct np_delivery *d) {
  struct np_writeset *ws = d->ws;
  d->ws = NULL;
  if (np_lane_submit(d->lane, ws, &d->waiter, true) == 0) return;
  np_writeset_unref(ws);
  d->ended(d, NP_DELIVERY_STOPPED);
}

static void submit_again(void *arg) { submit(arg); }

/* By the generation that is in force, where what its connection keeps was migrated since it began. */
static void run_again(void *arg) {
  struct np_delivery *d = arg;
  if (np_state_is_migrating(d->lane)) {
    np_alarm_set(&d->later, NP_STATE_WAIT);
    return;
  }
  struct np_instance *in = np_state_successor(d->lane, d->in);
  if (!in->code->deliver) {
    give_up(d);
    return;
  }
  np_lane_pin(d->lane, in);
  np_lane_unpin(d->lane, d->in);
  d->in = in;
  run(d);
}

/* For those who tail: the outcomes stand in the set in the order of the messages. */
static void feed(struct np_delivery *d, const struct np_writeset *ws) {
  struct np_feed *to = &d->lane->host->feed;
  size_t i = 0;
  if (!np_feed_wanted(to, NP_FEED_ATTEMPTS)) return;
  for (const struct np_op *op = ws->first; op && i < d->count; op = op->next)
    if (op->kind == NP_OP_SENT && op->as.sent.seq == d->messages[i].seq) {
      if (op->as.sent.attempt.n) np_feed_send(to, np_feed_attempt(&d->messages[i], op));
      i++;
    }
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct np_delivery *d = (struct np_delivery *)waiter;
  if (ws->outcome == NP_FAILED) {
    np_log(NP_ERROR, "the outcome of a delivery cannot be stored yet", "destination", d->messages->destination.ptr, "message",
           d->messages->id.ptr, "error", ws->error, NULL);
    d->ws = ws;
    np_alarm_set(&d->resubmit, RESUBMIT);
    return;
  }
  if (ws->outcome == NP_COMMITTED) feed(d, ws);
  bool overtaken = ws->outcome == NP_CONFLICT; /* what the handler has read has changed */
  np_writeset_unref(ws);
  if (overtaken && d->seen && (np_state_is_migrating(d->lane) || ++d->tries < TRIES))
    run_again(d);
  else if (overtaken && d->seen)
    give_up(d);
  else
    d->ended(d, d->split ? NP_DELIVERY_SPLIT : NP_DELIVERY_RECORDED);
}

static void commit(struct np_delivery *d) {
  int64_t now = np_now_ms();
  if (!d->ws) d->ws = np_writeset_new();
  for (size_t i = 0; i < d->count; i++) add_sent(d, i, now);
  d->waiter.answered = answered;
  submit(d);
}

static bool same_device(const struct np_message *a, const struct np_message *b) {
  return a->device.len == b->device.len && memcmp(a->device.ptr, b->device.ptr, a->device.len) == 0;
}

/* Of a message that is to be tried again: when, for itself. A pause that is longer than its life ends with it. */
static int64_t next_try(struct np_delivery *d, size_t i, int64_t now) {
  const struct np_message *m = &d->messages[i];
  const struct np_terms *terms = &d->in->code->terms;
  int64_t wait = (int64_t)((double)np_backoff(m->attempts + 1, terms->backoff) * d->jitter), expiry = np_terms_expiry(terms, m);
  if (result_of(d, i)->retry_after > wait) wait = result_of(d, i)->retry_after;
  return now + wait < expiry ? now + wait : expiry;
}

static char state_of(struct np_delivery *d, size_t i, int64_t now) {
  const struct np_message *m = &d->messages[i];
  const struct np_terms *terms = &d->in->code->terms;
  enum np_delivery_verdict verdict = result_of(d, i)->verdict;
  if (verdict == NP_DELIVERY_DONE) return 'd';
  if (d->split) return 'r';
  return verdict == NP_DELIVERY_REFUSED || now - m->since >= terms->retry_for || np_terms_expiry(terms, m) <= now ? 'x' : 'r';
}

/* The next try of a device's messages is when its first one's is. */
static void decide(struct np_delivery *d) {
  int64_t now = np_now_ms(), due = 0;
  d->states = np_arena_alloc(&d->arena, d->count);
  d->dues = np_arena_alloc(&d->arena, d->count * sizeof *d->dues);
  d->verdict = NP_DELIVERY_AGAIN;
  d->retry_after = 0;
  d->error = NULL;
  for (size_t i = 0; i < d->count; i++) {
    const struct np_result *r = result_of(d, i);
    if (i && !same_device(&d->messages[i - 1], &d->messages[i])) due = 0;
    d->states[i] = state_of(d, i, now);
    if (d->states[i] == 'r' && !d->split && !due) due = next_try(d, i, now);
    d->dues[i] = due;
    if (r->verdict != NP_DELIVERY_AGAIN) d->verdict = r->verdict;
    if (r->retry_after > d->retry_after) d->retry_after = r->retry_after;
    if (r->verdict != NP_DELIVERY_DONE && !d->error) d->error = r->error;
  }
  log_outcomes(d, now);
}

static void mask(struct np_result *r) {
  free(r->error);
  free(r->said);
  r->error = np_mask_text(r->why, strlen(r->why));
  r->said = np_mask_text(r->answer, strlen(r->answer));
}

static void drop_result(struct np_result *r) {
  free(r->error);
  free(r->said);
}

static void drop_results(struct np_delivery *d) {
  for (size_t i = 0; d->each && i < d->count; i++) drop_result(&d->each[i]);
  drop_result(&d->all);
  d->each = NULL;
  d->all = (struct np_result){.verdict = NP_DELIVERY_AGAIN};
  d->declined = d->split = false;
}

static void drop_writes(struct np_delivery *d) {
  np_overlay_free(&d->overlay);
  if (d->ws) np_writeset_unref(d->ws);
  d->ws = NULL;
  d->seen = false;
}

static void give_up(struct np_delivery *d) {
  drop_results(d);
  drop_writes(d);
  snprintf(d->all.why, sizeof d->all.why, "others kept changing what the handler reads");
  mask(&d->all);
  decide(d);
  commit(d);
}

static void note_reads(struct np_delivery *d) {
  np_overlay_free(&d->overlay);
  for (const struct np_op *op = d->ws ? d->ws->first : NULL; op; op = op->next)
    if (op->kind == NP_OP_SEEN) d->seen = true;
}

static bool any_failed(struct np_delivery *d) {
  for (size_t i = 0; i < d->count; i++)
    if (result_of(d, i)->verdict != NP_DELIVERY_DONE) return true;
  return false;
}

static void after_handler(struct np_task *t) {
  struct np_delivery *d = t->owner;
  d->running = false;
  if (!d->ended) return; /* it is being freed */
  d->took = (np_mono_us() - d->began_us) / 1000;
  if (t->failed) {
    drop_results(d);
    struct np_buf why = {0};
    np_buf_addf(&why, "the handler raised: %s", t->error ? t->error : "an error");
    d->all.error = np_mask_text(np_buf_text(&why), why.len);
    np_buf_free(&why);
  } else {
    for (size_t i = 0; d->each && i < d->count; i++) mask(&d->each[i]);
    mask(&d->all);
  }
  if (any_failed(d)) np_exchange_keep(&d->exchange, &d->in->code->terms);
  d->split = !d->each && d->all.verdict == NP_DELIVERY_REFUSED && d->count > 1;
  if (t->failed || d->declined || d->split)
    drop_writes(d);
  else
    note_reads(d);
  decide(d);
  if (!d->tries) d->handled(d);
  commit(d);
}

static void run(struct np_delivery *d) {
  bool vendor = d->in->code->kind == NP_VENDOR;
  drop_results(d);
  np_exchange_forget(&d->exchange);
  drop_writes(d);
  if (vendor) d->ws = np_writeset_new();
  d->running = true;
  d->began = np_now_ms();
  d->began_us = np_mono_us();
  d->task = (struct np_task){.in = d->in,
                             .mode = NP_DELIVERING,
                             .ws = d->ws,
                             .overlay = vendor ? &d->overlay : NULL,
                             .where = "deliver",
                             .handler = d->in->code->deliver,
                             .push = np_delivery_push,
                             .take = np_delivery_take,
                             .ended = after_handler,
                             .owner = d};
  np_task_start(&d->task);
}

void np_delivery_start(struct np_delivery *d, struct np_instance *in) {
  d->resubmit = (struct np_alarm){.lane = d->lane, .fn = submit_again, .arg = d};
  d->later = (struct np_alarm){.lane = d->lane, .fn = run_again, .arg = d};
  d->in = in;
  np_lane_pin(d->lane, in);
  run(d);
}

void np_delivery_bury(struct np_delivery *d) {
  d->resubmit = (struct np_alarm){.lane = d->lane, .fn = submit_again, .arg = d};
  d->states = np_arena_alloc(&d->arena, d->count);
  d->dues = np_arena_alloc(&d->arena, d->count * sizeof *d->dues);
  memset(d->states, 'x', d->count);
  memset(d->dues, 0, d->count * sizeof *d->dues);
  d->verdict = NP_DELIVERY_REFUSED;
  d->all.error = np_strdup("it has expired: it was not sent");
  log_outcomes(d, np_now_ms());
  commit(d);
}

void np_delivery_free(struct np_delivery *d) {
  if (d->running) {
    d->ended = NULL;
    np_task_kill(&d->task, "neap is stopping");
  }
  np_alarm_stop(&d->resubmit);
  np_alarm_stop(&d->later);
  drop_results(d);
  np_exchange_forget(&d->exchange);
  drop_writes(d);
  if (d->in) np_lane_unpin(d->lane, d->in);
  np_arena_free(&d->arena);
  np_buf_free(&d->shown);
  free(d);
}
