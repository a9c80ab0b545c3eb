/* Messages that have expired, wherever in their line they stand, become dead letters when they do, and not only when their turn would come. Those under way
 * are left to what comes of them. */
#include "host/courier_parts.h"

#include "base/clock.h"
#include "base/log.h"

#define PAGE 200
#define PAGES_MOST 20
#define LEFT_MS 1000     /* until it is looked again for what could not be buried */
#define FARTHEST 3600000 /* ms: a clock may be set forward */

static void look_at(struct np_courier *c, int64_t at) {
  if (c->draining || (c->expiry.set && c->next_expiry <= at)) return;
  int64_t ms = at - np_now_ms();
  c->next_expiry = at;
  np_alarm_set(&c->expiry, ms < FARTHEST ? ms : FARTHEST);
}

void np_expiry_note(struct np_courier *c, int64_t expires) {
  if (expires) look_at(c, expires);
}

struct sweep {
  struct np_courier *c;
  int64_t expires, seq; /* of the last row */
  int rows;
  bool left;
};

/* The lines are only collected while the store is read: burying reads it too. */
struct found {
  struct sweep *s;
  struct np_line *lines[PAGE];
  size_t count;
};

static bool take_row(void *arg, const struct np_message *m) {
  struct found *f = arg;
  struct np_courier *c = f->s->c;
  bool found;
  f->s->rows++;
  f->s->expires = m->expires;
  f->s->seq = m->seq;
  if (!np_lane_has(c->lane, np_partition(m->device.ptr, m->device.len), c->lane->host->lane_count)) return true;
  struct np_line *l = np_line_note(c, m->destination.ptr, m->device.ptr, m->device.len, m->replayed > 0, &found);
  if (l->state == NP_LINE_FLYING)
    f->s->left = true;
  else
    f->lines[f->count++] = l;
  return true;
}

static void bury(struct np_line *l) {
  if (l->state == NP_LINE_FLYING) return; /* by an earlier row */
  np_line_take(l);
  np_parcel_bury(l, NULL);
}

void np_expiry_sweep(void *arg) {
  struct np_courier *c = arg;
  struct np_error err;
  struct sweep s = {.c = c, .expires = INT64_MIN, .rows = PAGE};
  int64_t now = np_now_ms();
  if (c->draining) return;
  for (int page = 0; s.rows == PAGE && page < PAGES_MOST; page++) {
    struct found f = {.s = &s};
    s.rows = 0;
    if (np_reader_expired(c->lane->reader, now, s.expires, s.seq, PAGE, take_row, &f, &err) < 0) {
      np_log(NP_ERROR, "the outbox cannot be read", "error", err.text, NULL);
      s.left = true;
    }
    for (size_t i = 0; i < f.count; i++) bury(f.lines[i]);
  }
  int64_t next = np_reader_next_expiry(c->lane->reader, now);
  if (s.left || s.rows == PAGE || next < 0) next = now + LEFT_MS;
  if (next != INT64_MAX) look_at(c, next);
}
