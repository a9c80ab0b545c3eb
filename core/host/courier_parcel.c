/* Parcels: what goes to a destination together. Messages of several devices may; those of one stand in their order, and none of a line goes while others of it
 * are under way. What a line delivers next is always asked of the store, after the commit before it: so nothing is sent twice, and nothing forgotten. */
#include "host/courier_parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"

#define LINES_MOST 256 /* each is a query */
#define BURY_MOST 500
#define ALONE_AFTER 3 /* tries of a batch: what is wrong with one message must not hold up other devices */

static double jitter(struct np_courier *c) {
  c->random ^= c->random << 13, c->random ^= c->random >> 7, c->random ^= c->random << 17;
  return 0.5 + (double)(c->random >> 11) * 0x1p-54;
}

static struct np_parcel *parcel_new(struct np_courier *c, struct np_destination *to, size_t messages, size_t lines) {
  struct np_parcel *p = np_alloc(sizeof *p);
  *p = (struct np_parcel){.courier = c, .to = to, .next = c->parcels};
  if (p->next) p->next->prev = p;
  c->parcels = p;
  p->lines = np_alloc(lines * sizeof(struct np_line *));
  p->counts = np_alloc(lines * sizeof *p->counts);
  struct np_delivery *d = p->delivery = np_alloc(sizeof *d);
  *d = (struct np_delivery){.lane = c->lane, .jitter = jitter(c), .owner = p};
  d->messages = np_arena_alloc(&d->arena, messages * sizeof *d->messages);
  return p;
}

void np_parcel_free(struct np_parcel *p) {
  *(p->prev ? &p->prev->next : &p->courier->parcels) = p->next;
  if (p->next) p->next->prev = p->prev;
  if (p->delivery) np_delivery_free(p->delivery);
  free(p->lines);
  free(p->counts);
  free(p);
}

static void add_line(struct np_parcel *p, struct np_line *l, size_t messages) {
  p->lines[p->line_count] = l;
  p->counts[p->line_count++] = messages;
  l->state = NP_LINE_FLYING;
  l->eager = false;
}

/* What became of it. */

static void line_ended(struct np_line *l, const struct np_delivery *d, size_t first, size_t count) {
  const char *again = memchr(d->states + first, 'r', count);
  l->singly -= count < l->singly ? count : l->singly;
  if (again && d->count > 1 && d->messages[first].attempts + 1 >= ALONE_AFTER) l->singly = count;
  if (again && !l->eager)
    np_line_wait(l, d->dues[again - d->states] - np_now_ms());
  else if (again || l->more)
    np_line_ready(l); /* eager: a new generation is in force since it began */
  else
    np_line_remove(l);
}

static void on_ended(struct np_delivery *d, enum np_delivery_end end) {
  struct np_parcel *p = d->owner;
  struct np_courier *c = p->courier;
  size_t first = 0;
  for (size_t i = 0; i < p->line_count; first += p->counts[i++]) {
    struct np_line *l = p->lines[i];
    if (end == NP_DELIVERY_STOPPED) {
      l->state = NP_LINE_WAITING; /* for the next start of neap */
      p->to->waiting++;
    } else if (end == NP_DELIVERY_SPLIT) {
      l->singly = p->counts[i];
      l->eager = true;
      np_line_ready(l);
    } else {
      line_ended(l, d, first, p->counts[i]);
    }
  }
  np_parcel_free(p);
  np_courier_again(c);
}

static void on_handled(struct np_delivery *d) {
  struct np_parcel *p = d->owner;
  np_outlet_leave(p->to->outlet, p->courier->lane, p->probe, d);
  np_courier_again(p->courier);
}

/* What goes in. */

struct head { /* the oldest messages of a line, as they are read */
  struct np_parcel *p;
  struct np_line *line;
  const struct np_terms *terms;
  size_t most, taken, bytes; /* bytes of the whole parcel */
  int64_t now, due;          /* due: where the first is not to be tried yet */
  bool eager, more, full, expired;
  int64_t next_made; /* ms: when the first one that was not taken was made */
};

static struct np_text copy(struct np_arena *a, struct np_text t) {
  return (struct np_text){np_arena_copy(a, t.ptr ? t.ptr : "", t.len), t.len};
}

static void add_message(struct np_delivery *d, const struct np_message *m) {
  struct np_message *to = &d->messages[d->count++];
  *to = *m;
  to->id = copy(&d->arena, m->id);
  to->destination = copy(&d->arena, m->destination);
  to->device = copy(&d->arena, m->device);
  to->body = copy(&d->arena, m->body);
  to->source = copy(&d->arena, m->source);
}

static bool take_message(void *arg, const struct np_message *m) {
  struct head *h = arg;
  struct np_delivery *d = h->p->delivery;
  bool expired = np_terms_expiry(h->terms, m) <= h->now, due = m->due <= h->now || h->eager;
  bool fits = !d->count || !h->terms->batch_bytes || h->bytes + m->body.len <= h->terms->batch_bytes;
  if (h->taken < h->most && !expired && due && fits) {
    add_message(d, m);
    h->taken++;
    h->bytes += m->body.len;
    return true;
  }
  h->more = true;
  h->next_made = m->created;
  if (h->taken) return false;
  if (expired)
    h->expired = true;
  else if (!fits)
    h->full = true;
  else
    h->due = m->due;
  return false;
}

static void read_failed(struct np_line *l, const struct np_error *err) {
  np_log(NP_ERROR, "the outbox cannot be read", "destination", l->to->name, "error", err->text, NULL);
  np_line_wait(l, NP_STORE_RETRY);
}

/* The next messages of the line, the first of the queue. False: the parcel is full. */
static bool take_line(struct np_parcel *p, struct np_line *l, const struct np_instance *in, struct head *h) {
  struct np_courier *c = p->courier;
  struct np_error err;
  size_t room = (size_t)in->code->terms.batch - p->delivery->count;
  h->line = l;
  h->most = l->singly ? 1 : room;
  h->taken = 0;
  h->due = h->next_made = 0;
  h->eager = l->eager;
  h->more = h->full = h->expired = false;
  int status = np_reader_outbox_head(c->lane->reader, p->to->name, l->device, l->replayed, (int)h->most + 1, take_message, h, &err);
  if (h->full && status == 0) return false;
  np_line_take(l);
  l->messages = h->more;
  l->bytes = 0;
  l->since = h->next_made;
  l->more = h->more; /* whatever is committed from now on is noted anew */
  if (h->taken)
    add_line(p, l, h->taken);
  else if (status < 0)
    read_failed(l, &err);
  else if (h->expired)
    np_parcel_bury(l, in);
  else if (h->more)
    np_line_wait(l, h->due - h->now);
  else
    np_line_remove(l);
  return true;
}

bool np_parcel_send(struct np_courier *c, struct np_destination *to, struct np_ready *ready, struct np_instance *in, bool probe) {
  const struct np_terms *terms = &in->code->terms;
  size_t most = (size_t)terms->batch, lines = most < LINES_MOST ? most : LINES_MOST;
  struct np_parcel *p = parcel_new(c, to, most, lines);
  struct head h = {.p = p, .terms = terms, .now = np_now_ms()};
  while (ready->first && p->delivery->count < most && p->line_count < lines) {
    struct np_line *l = ready->first;
    bool alone = l->singly > 0;
    if (alone && p->delivery->count) break;
    if (!take_line(p, l, in, &h) || (alone && p->delivery->count)) break;
  }
  if (!p->delivery->count) {
    np_parcel_free(p);
    return false;
  }
  p->probe = probe;
  p->delivery->handled = on_handled;
  p->delivery->ended = on_ended;
  np_delivery_start(p->delivery, in);
  return true;
}

/* What is buried. */

static bool take_expired(void *arg, const struct np_message *m) {
  struct np_delivery *d = arg;
  add_message(d, m);
  return true;
}

static bool take_outlived(void *arg, const struct np_message *m) {
  struct head *h = arg;
  if (np_terms_expiry(h->terms, m) > h->now) return false;
  add_message(h->p->delivery, m);
  return true;
}

bool np_parcel_bury(struct np_line *l, const struct np_instance *in) {
  struct np_courier *c = l->courier;
  struct np_error err;
  int64_t now = np_now_ms();
  struct np_parcel *p = parcel_new(c, l->to, BURY_MOST, 1);
  struct np_delivery *d = p->delivery;
  int status = np_reader_expired_of(c->lane->reader, l->to->name, l->device, l->replayed, now, BURY_MOST, take_expired, d, &err);
  if (status == 0 && !d->count && in) { /* those at the head that say nothing themselves */
    struct head h = {.p = p, .terms = &in->code->terms, .now = now};
    status = np_reader_outbox_head(c->lane->reader, l->to->name, l->device, l->replayed, BURY_MOST, take_outlived, &h, &err);
  }
  if (status == 0 && d->count) {
    add_line(p, l, d->count);
    l->more = true;
    d->ended = on_ended;
    np_delivery_bury(d);
    return true;
  }
  np_parcel_free(p);
  if (status < 0)
    read_failed(l, &err);
  else
    np_line_ready(l);
  return false;
}
