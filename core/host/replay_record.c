/* What is on record of a replay's cause. */
#include "host/replay_record.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "host/canonical.h"

#define TIMERS_MOST 1000000

struct np_on_record { /* a message of the same rule and the same reading or moment */
  int64_t seq;
  struct np_text id, destination, device, body;
  bool paired; /* one of this run stands for it */
};

/* Whether the rule itself has still to be run on that: then it will send by itself. */

struct waiting {
  const struct np_replay_record *r;
  const struct np_shadow_cause *cause;
  bool found;
};

static bool is_text(struct np_text t, const char *s) { return t.ptr && strcmp(t.ptr, s) == 0; }

static bool take_held(void *arg, const struct np_held *h) {
  struct waiting *w = arg;
  const struct np_shadow_cause *c = w->cause;
  bool same = c->reading || (!h->reading && is_text(h->name, c->timer) && is_text(h->key, c->key));
  w->found = same && is_text(h->instance, w->r->rule);
  return !w->found;
}

static bool take_timer(void *arg, const struct np_timer *t) {
  struct waiting *w = arg;
  w->found = is_text(t->instance, w->r->rule) && is_text(t->name, w->cause->timer) && is_text(t->key, w->cause->key);
  return !w->found;
}

static int is_waiting(struct np_replay_record *r, const struct np_shadow_cause *cause, struct np_error *err) {
  struct waiting w = {r, cause, false};
  int status = cause->reading ? np_reader_held_of(r->reader, cause->reading->seq, take_held, &w, err)
                              : np_reader_timers_due(r->reader, cause->at, TIMERS_MOST, take_timer, &w, err);
  if (status == 0 && !cause->reading && !w.found) status = np_reader_held(r->reader, r->rule, 0, INT32_MAX, take_held, &w, err);
  r->waiting = w.found;
  return status;
}

/* Messages */

static bool take_record(void *arg, const struct np_sent *s) {
  struct np_replay_record *r = arg;
  struct np_writeset *ws = r->ws;
  size_t n = r->count;
  if (!is_text(s->message.source, r->rule) || s->message.replayed == r->number) return true;
  if ((n & (n - 1)) == 0) r->list = np_realloc(r->list, (n ? n * 2 : 1) * sizeof *r->list);
  r->list[r->count++] =
      (struct np_on_record){.seq = s->message.seq,
                            .id = np_writeset_text(ws, s->message.id.ptr, s->message.id.len),
                            .destination = np_writeset_text(ws, s->message.destination.ptr, s->message.destination.len),
                            .device = np_writeset_text(ws, s->message.device.ptr, s->message.device.len),
                            .body = np_writeset_text(ws, s->message.body.ptr, s->message.body.len)};
  return true;
}

static bool is_cause(const struct np_replay_record *r, const struct np_shadow_cause *c) {
  if (!r->ws || r->at != c->at) return false;
  if (c->reading) return r->reading == c->reading->seq;
  return r->timer && c->timer && strcmp(r->timer, c->timer) == 0 && strcmp(r->key, c->key) == 0;
}

/* It is asked first whether the rule itself is still to be run: what it does from then on is no longer missed. Timers of one moment share what is on
 * record, and one message does not stand for two. */
int np_replay_record_read(struct np_replay_record *r, const struct np_shadow_cause *c, struct np_error *err) {
  struct np_on_record *before = r->list;
  size_t count = r->at == c->at && r->timer && c->timer ? r->count : 0;
  if (is_cause(r, c)) return 0;
  if (r->ws) np_writeset_unref(r->ws);
  r->ws = np_writeset_new();
  r->list = NULL;
  r->count = 0;
  r->reading = c->reading ? c->reading->seq : 0;
  r->at = c->at;
  r->timer = c->timer ? np_writeset_text(r->ws, c->timer, strlen(c->timer)).ptr : NULL;
  r->key = c->key ? np_writeset_text(r->ws, c->key, strlen(c->key)).ptr : NULL;
  int status = is_waiting(r, c, err);
  if (status == 0)
    status = c->reading ? np_reader_messages_of(r->reader, c->reading->seq, take_record, r, err)
                        : np_reader_messages_about(r->reader, c->at, take_record, r, err);
  for (size_t i = 0; i < r->count; i++)
    for (size_t k = 0; k < count; k++)
      if (before[k].seq == r->list[i].seq) r->list[i].paired = before[k].paired;
  free(before);
  return status;
}

static bool same_text(struct np_text a, struct np_text b) { return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0; }

static bool same_body(struct np_replay_record *r, struct np_text a, struct np_text b) {
  struct np_buf x = {0}, y = {0};
  if (same_text(a, b)) return true;
  bool same = np_canonical_text(r->L, a.ptr, a.len, &x, NULL) == 0 && np_canonical_text(r->L, b.ptr, b.len, &y, NULL) == 0 &&
              x.len == y.len && memcmp(np_buf_text(&x), np_buf_text(&y), x.len) == 0;
  np_buf_free(&x), np_buf_free(&y);
  return same;
}

const char *np_replay_record_find(struct np_replay_record *r, const struct np_message *m) {
  for (size_t i = 0; i < r->count; i++) {
    struct np_on_record *o = &r->list[i];
    if (o->paired || !same_text(o->destination, m->destination) || !same_text(o->device, m->device) ||
        !same_body(r, o->body, m->body))
      continue;
    o->paired = true;
    return o->id.ptr;
  }
  return NULL;
}

/* What was removed by an older neap, or under other bounds, only the bounds tell of. */
int64_t np_replay_record_from(struct np_replay_record *r, struct np_error *err) {
  int64_t from = r->delivered_age ? np_now_ms() - r->delivered_age : 0;
  int64_t oldest = r->delivered_size ? np_reader_delivered_from(r->reader) : 0, gone = np_reader_messages_gone(r->reader);
  if (oldest < 0 || gone < 0) return np_fail(err, "the store cannot be read");
  if (gone >= from) from = gone + 1;
  return oldest > from ? oldest : from;
}

void np_replay_record_free(struct np_replay_record *r) {
  if (r->ws) np_writeset_unref(r->ws);
  free(r->list);
}
