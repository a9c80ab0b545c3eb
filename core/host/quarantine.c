/* Quarantine: who is in it, and for how long. */
#include "host/quarantine.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "host/courier.h"
#include "host/host.h"
#include "host/jobs.h"
#include "host/router.h"
#include "host/task.h"

static int64_t mono_ms(void) { return np_mono_us() / 1000; }

void np_quarantine_init(struct np_quarantine *q) { pthread_mutex_init(&q->lock, NULL); }

void np_quarantine_destroy(struct np_quarantine *q) { pthread_mutex_destroy(&q->lock); }

/* With the lock. 1, 2, 4 … times as long. */
static void begin(struct np_quarantine *q, const struct np_quarantine_rules *rules, int64_t now) {
  int64_t hold = rules->hold, most = rules->hold_most;
  for (int64_t i = 0; i < q->times && hold < most; i++) hold *= 2;
  q->times++;
  q->since = now;
  q->until = now + (hold < most ? hold : most);
  q->recorded = false;
  q->count = 0;
  atomic_store(&q->mute, false);
  atomic_store(&q->state, NP_QUARANTINE);
}

/* The first line: what follows is the traceback. */
static int first_line(const char *text) { return (int)strcspn(text, "\n"); }

static void tell(const struct np_code *c, const struct np_quarantine *q) {
  char generation[16], seconds[32];
  snprintf(generation, sizeof generation, "%d", c->number);
  snprintf(seconds, sizeof seconds, "in %.1f s", (double)(q->until - q->since) / 1000);
  np_log(NP_ERROR, "quarantined: its work is held; neap release ends it", "plugin", c->instance, "generation", generation,
         "next try", seconds, "why", q->why, NULL);
}

static void went_past(struct np_code *c, const struct np_quarantine_rules *rules, const struct np_task *t) {
  struct np_quarantine *q = &c->quarantine;
  int64_t now = mono_ms(), after = rules->after;
  if (after > NP_QUARANTINE_AFTER_MOST) after = NP_QUARANTINE_AFTER_MOST;
  pthread_mutex_lock(&q->lock);
  bool on_trial = q->state == NP_TRIAL, begins = false;
  if (q->state == NP_QUARANTINE) { /* it had begun before */
    if (t->mode == NP_REFUSING) atomic_store(&q->mute, true);
  } else {
    q->overs[q->count++ % after] = now;
    begins = on_trial || (q->count >= after && now - q->overs[q->count % after] <= rules->within);
  }
  if (begins) {
    if (on_trial)
      snprintf(q->why, sizeof q->why, "on trial it went past a limit again: %.*s", first_line(t->error), t->error);
    else
      snprintf(q->why, sizeof q->why, "%" PRId64 " calls went past a limit within %.0f s, the last: %.*s", after,
               (double)(now - q->overs[q->count % after]) / 1000, first_line(t->error), t->error);
    begin(q, rules, now);
    tell(c, q);
  }
  pthread_mutex_unlock(&q->lock);
}

static void went_well(struct np_code *c, const struct np_quarantine_rules *rules) {
  struct np_quarantine *q = &c->quarantine;
  pthread_mutex_lock(&q->lock);
  bool ends = q->state == NP_TRIAL && mono_ms() - q->since >= rules->within;
  if (ends) {
    q->times = 0;
    q->count = 0;
    atomic_store(&q->state, NP_FREE);
  }
  pthread_mutex_unlock(&q->lock);
  if (ends) np_log(NP_INFO, "its quarantine is over", "plugin", c->instance, NULL);
}

void np_quarantine_note(const struct np_task *t) {
  struct np_code *c = t->in->code;
  const struct np_quarantine_rules *rules = &t->in->lane->host->quarantine;
  if (!t->failed) {
    if (atomic_load_explicit(&c->quarantine.state, memory_order_relaxed) == NP_TRIAL) went_well(c, rules);
  } else if (rules->after && !t->again && strcmp(t->error_code, "error") != 0 && strcmp(t->error_code, "stopped") != 0) {
    went_past(c, rules, t);
  }
}

bool np_quarantine_holds(const struct np_instance *in) {
  const struct np_quarantine *q = &in->code->quarantine;
  return atomic_load_explicit(&q->state, memory_order_relaxed) == NP_QUARANTINE ||
         atomic_load_explicit(&q->ends, memory_order_relaxed) != in->taken_up;
}

void np_quarantine_taken_up(struct np_lane *lane) {
  const struct np_epoch *e = lane->epoch;
  for (size_t i = 0; i < e->slot_count; i++) {
    struct np_instance *in = np_lane_instance(lane, &e->slots[i]);
    int64_t ends = in ? atomic_load(&in->code->quarantine.ends) : 0;
    if (!in || in->taken_up == ends) continue;
    in->taken_up = ends;
    if (in->code->kind == NP_RULE) np_router_take_up(lane->router, in);
  }
  np_courier_adopt(lane->courier);
  np_jobs_adopt(lane->jobs);
}

bool np_quarantine_try(struct np_quarantine *q) {
  pthread_mutex_lock(&q->lock);
  bool now = q->state == NP_QUARANTINE && mono_ms() >= q->until;
  if (now) {
    q->since = mono_ms();
    atomic_fetch_add(&q->ends, 1);
    atomic_store(&q->state, NP_TRIAL);
  }
  pthread_mutex_unlock(&q->lock);
  return now;
}

bool np_quarantine_release(struct np_quarantine *q) {
  pthread_mutex_lock(&q->lock);
  bool was = q->state != NP_FREE;
  if (was) {
    q->times = 0;
    q->count = 0;
    atomic_fetch_add(&q->ends, 1);
    atomic_store(&q->state, NP_FREE);
  }
  pthread_mutex_unlock(&q->lock);
  return was;
}

char *np_quarantine_text(struct np_code *c) {
  struct np_buf b = {0};
  pthread_mutex_lock(&c->quarantine.lock);
  np_buf_addf(&b, "%s%s", NP_QUARANTINED, c->quarantine.why);
  pthread_mutex_unlock(&c->quarantine.lock);
  return b.data;
}

void np_quarantine_describe(struct np_code *c, struct np_buf *b) {
  struct np_quarantine *q = &c->quarantine;
  pthread_mutex_lock(&q->lock);
  if (q->state != NP_FREE) {
    np_buf_addf(b, ",\"quarantines\":%" PRId64, q->times);
    if (q->state == NP_QUARANTINE) np_buf_addf(b, ",\"next_try\":%" PRId64, np_now_ms() + q->until - mono_ms());
    np_buf_adds(b, ",\"quarantine\":");
    np_buf_add_json(b, q->why, strlen(q->why));
  }
  pthread_mutex_unlock(&q->lock);
}
