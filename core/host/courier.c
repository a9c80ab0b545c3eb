/* Lines of messages, one for each destination and device, and when the next try of each is due.
 *
 * A line is READY (in its destination's queue), FLYING (a delivery is under way, its commit included) or WAITING (for an alarm).
 * What it delivers next is always asked of the store, after the commit before it: so nothing is sent twice, and nothing forgotten. */
#include "host/courier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/random.h"
#include "host/delivery.h"
#include "host/host.h"

#define STARTS_MOST 32    /* of one destination before other work of the lane has its turn */
#define STORE_RETRY 1000  /* ms */
#define WAIT_MOST 3600000 /* ms: a clock that was set back does not hold a message for longer */
#define FAILURES_MOST 8   /* in a row, of a destination: then one delivery at a time until one arrives */

enum state { READY, FLYING, WAITING };

struct line {
  struct np_courier *courier; /* borrowed */
  struct destination *to;     /* borrowed */
  char *device;               /* owned */
  enum state state;
  bool more;                    /* FLYING: there are messages after those under way */
  bool eager;                   /* what is due later is tried now */
  size_t singly;                /* so many messages are delivered one by one */
  struct np_delivery *delivery; /* owned; FLYING */
  struct np_alarm alarm;
  struct line *next; /* READY: in the destination's queue */
};

struct destination {
  char *name;                /* owned */
  struct line *head, **tail; /* ready lines */
  int handling;              /* handlers that run or wait */
  int failures;              /* in a row */
  struct np_instance *in;    /* only to be compared: the one in force when last looked */
  int generation;            /* of it; 0 where none is in force */
  bool scanned;              /* the store was asked for its messages of the past */
};

struct np_courier {
  struct np_lane *lane;       /* borrowed */
  struct np_map lines;        /* owned: struct line by destination 0 device */
  struct np_map destinations; /* owned: struct destination by name */
  struct event *pump;         /* owned: starts what is ready; never from inside somebody's callback */
  struct np_alarm rescan;
  bool started, draining;
  uint64_t random; /* xorshift */
};

static double jitter(struct np_courier *c) {
  c->random ^= c->random << 13, c->random ^= c->random >> 7, c->random ^= c->random << 17;
  return 0.5 + (double)(c->random >> 11) * 0x1p-54;
}

/* Lines */

static void make_ready(struct line *l) {
  l->state = READY;
  l->next = NULL;
  *l->to->tail = l;
  l->to->tail = &l->next;
  event_active(l->courier->pump, EV_TIMEOUT, 0);
}

static void line_is_due(void *arg) {
  struct line *l = arg;
  if (l->state == WAITING) make_ready(l); /* else the lane has just adopted a new destination */
}

static void wait_for(struct line *l, int64_t ms) {
  l->state = WAITING;
  if (!l->courier->draining) np_alarm_set(&l->alarm, ms < WAIT_MOST ? ms : WAIT_MOST);
}

static void line_key(struct np_buf *key, const char *destination, const char *device, size_t device_len) {
  np_buf_add(key, destination, strlen(destination) + 1);
  np_buf_add(key, device, device_len);
}

static struct destination *find_destination(struct np_courier *c, const char *name) {
  struct destination *to = np_map_get(&c->destinations, name, strlen(name));
  if (to) return to;
  to = np_alloc(sizeof *to);
  to->name = np_strdup(name);
  to->tail = &to->head;
  np_map_put(&c->destinations, name, strlen(name), to);
  const struct np_slot *slot = c->lane->epoch ? np_epoch_slot(c->lane->epoch, name) : NULL;
  to->in = np_lane_instance(c->lane, slot);
  to->generation = to->in ? to->in->code->number : 0;
  return to;
}

/* There is a message for this pair: sees to it that it will be looked for. */
static void note(struct np_courier *c, const char *name, const char *device, size_t len) {
  struct np_buf key = {0};
  line_key(&key, name, device, len);
  struct line *l = np_map_get(&c->lines, key.data, key.len);
  if (l) {
    l->more = true;
  } else {
    l = np_alloc(sizeof *l);
    *l = (struct line){.courier = c, .to = find_destination(c, name), .device = np_strndup(device, len)};
    l->alarm = (struct np_alarm){.lane = c->lane, .fn = line_is_due, .arg = l};
    np_map_put(&c->lines, key.data, key.len, l);
    make_ready(l);
  }
  np_buf_free(&key);
}

static void free_line(void *value) {
  struct line *l = value;
  np_alarm_stop(&l->alarm);
  if (l->delivery) np_delivery_free(l->delivery);
  free(l->device);
  free(l);
}

static void remove_line(struct line *l) {
  struct np_buf key = {0};
  line_key(&key, l->to->name, l->device, strlen(l->device));
  np_map_remove(&l->courier->lines, key.data, key.len);
  np_buf_free(&key);
  free_line(l);
}

/* Deliveries */

static void on_handled(struct np_delivery *d) {
  struct line *l = d->owner;
  l->to->handling--;
  if (l->to->head) event_active(l->courier->pump, EV_TIMEOUT, 0);
}

static void note_failure(struct destination *to) {
  if (++to->failures == FAILURES_MOST)
    np_log(NP_WARN, "a destination keeps failing: one delivery at a time until one arrives", "destination", to->name, NULL);
}

static void on_ended(struct np_delivery *d, enum np_delivery_end end) {
  struct line *l = d->owner;
  size_t count = d->count;
  int64_t due = d->due;
  if (d->verdict != NP_DELIVERY_AGAIN)
    l->to->failures = 0;
  else if (end != NP_DELIVERY_STOPPED)
    note_failure(l->to);
  l->delivery = NULL;
  np_delivery_free(d);
  switch (end) {
  case NP_DELIVERY_RECORDED:
    l->singly -= count < l->singly ? count : l->singly;
    if (l->more)
      make_ready(l);
    else
      remove_line(l);
    return;
  case NP_DELIVERY_WAITS:
    if (l->eager)
      make_ready(l); /* a new generation is in force since it began */
    else
      wait_for(l, due - np_now_ms());
    return;
  case NP_DELIVERY_SPLIT:
    l->singly = count;
    l->eager = true;
    make_ready(l);
    return;
  case NP_DELIVERY_STOPPED: l->state = WAITING; return; /* for the next start of neap */
  }
}

struct head { /* the oldest messages of a line, as they are read */
  struct np_delivery *d;
  size_t limit;
  int64_t now, due; /* due: where the first is not to be tried yet */
  bool more;
};

static struct np_text copy(struct np_arena *a, struct np_text t) {
  return (struct np_text){np_arena_copy(a, t.ptr ? t.ptr : "", t.len), t.len};
}

static bool take_message(void *arg, const struct np_message *m) {
  struct head *h = arg;
  struct np_delivery *d = h->d;
  if (d->count == h->limit || m->due > h->now) {
    h->more = true;
    if (!d->count) h->due = m->due;
    return false;
  }
  struct np_message *to = &d->messages[d->count++];
  *to = *m;
  to->id = copy(&d->arena, m->id);
  to->destination = copy(&d->arena, m->destination);
  to->device = copy(&d->arena, m->device);
  to->body = copy(&d->arena, m->body);
  to->source = copy(&d->arena, m->source);
  return true;
}

/* Takes the line's next messages to its destination; the line has left the queue. */
static void start(struct np_courier *c, struct line *l, struct np_instance *in) {
  struct np_error err;
  struct np_delivery *d = np_alloc(sizeof *d);
  struct head h = {.d = d, .limit = l->singly ? 1 : (size_t)in->code->batch, .now = l->eager ? INT64_MAX : np_now_ms()};
  if (!h.limit) h.limit = 1;
  *d = (struct np_delivery){.lane = c->lane, .jitter = jitter(c), .handled = on_handled, .ended = on_ended, .owner = l};
  d->messages = np_arena_alloc(&d->arena, h.limit * sizeof *d->messages);
  l->more = false; /* whatever is committed from now on is noted anew */
  int status = np_reader_outbox_head(c->lane->reader, l->to->name, l->device, (int)h.limit + 1, take_message, &h, &err);
  if (status == 0 && d->count) {
    l->state = FLYING;
    l->eager = false;
    l->more = h.more;
    l->delivery = d;
    l->to->handling++;
    np_delivery_start(d, in);
    return;
  }
  np_delivery_free(d);
  if (status < 0) {
    np_log(NP_ERROR, "the outbox cannot be read", "destination", l->to->name, "error", err.text, NULL);
    wait_for(l, STORE_RETRY);
  } else if (h.more) {
    wait_for(l, h.due - h.now);
  } else {
    remove_line(l);
  }
}

/* NULL where what is in force under that name is no destination: its messages are held. */
static struct np_instance *in_force(struct np_courier *c, const struct destination *to) {
  const struct np_slot *slot = c->lane->epoch ? np_epoch_slot(c->lane->epoch, to->name) : NULL;
  struct np_instance *in = np_lane_instance(c->lane, slot);
  return in && in->code->deliver ? in : NULL;
}

static void start_ready(struct np_courier *c, struct destination *to) {
  struct np_instance *in = to->head ? in_force(c, to) : NULL;
  if (!in) return;
  int most = to->failures < FAILURES_MOST && in->code->concurrency > 0 ? in->code->concurrency : 1;
  for (int n = 0; to->head && to->handling < most; n++) {
    if (n == STARTS_MOST) {
      event_active(c->pump, EV_TIMEOUT, 0);
      return;
    }
    struct line *l = to->head;
    to->head = l->next;
    if (!to->head) to->tail = &to->head;
    start(c, l, in);
  }
}

static void on_pump(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_courier *c = arg;
  np_lane_sync(c->lane);
  if (c->draining) return;
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->destinations, &i));) start_ready(c, e->value);
}

/* Messages of the past */

struct scan {
  struct np_courier *c;
  const char *name;
};

static bool take_device(void *arg, struct np_text device) {
  struct scan *s = arg;
  struct np_lane *lane = s->c->lane;
  if (np_lane_has(lane, np_partition(device.ptr, device.len), lane->host->lane_count)) note(s->c, s->name, device.ptr, device.len);
  return true;
}

static void scan(struct np_courier *c, struct destination *to) {
  struct np_error err;
  struct scan s = {.c = c, .name = to->name};
  to->scanned = np_reader_outbox_devices(c->lane->reader, to->name, take_device, &s, &err) == 0;
  if (to->scanned) return;
  np_log(NP_ERROR, "the outbox cannot be read", "destination", to->name, "error", err.text, NULL);
  if (!c->draining) np_alarm_set(&c->rescan, STORE_RETRY);
}

/* Destinations that are configured and were not asked for yet. */
static void scan_new(void *arg) {
  struct np_courier *c = arg;
  const struct np_epoch *e = c->lane->epoch;
  for (size_t i = 0; e && i < e->slot_count; i++) {
    if (!np_slot_takes_messages(&e->slots[i])) continue;
    struct destination *to = find_destination(c, e->slots[i].instance);
    if (!to->scanned) scan(c, to);
  }
}

void np_courier_message(struct np_courier *c, const struct np_message *m) {
  note(c, m->destination.ptr, m->device.ptr ? m->device.ptr : "", m->device.len);
}

void np_courier_rescan(struct np_courier *c) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->destinations, &i));) ((struct destination *)e->value)->scanned = false;
  c->started = true;
  scan_new(c);
}

/* A destination was mended, or given other settings: what waits is tried at once. */
static void hurry(struct np_courier *c, const struct destination *to) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->lines, &i));) {
    struct line *l = e->value;
    if (l->to != to) continue;
    l->eager = true;
    if (l->state != WAITING) continue;
    np_alarm_stop(&l->alarm);
    make_ready(l);
  }
}

void np_courier_adopt(struct np_courier *c) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->destinations, &i));) {
    struct destination *to = e->value;
    struct np_instance *in = in_force(c, to);
    if (!in || (in == to->in && in->code->number == to->generation)) continue;
    to->in = in;
    to->generation = in->code->number;
    to->failures = 0;
    hurry(c, to);
  }
  event_active(c->pump, EV_TIMEOUT, 0);
  if (c->started) scan_new(c);
}

struct np_courier *np_courier_new(struct np_lane *lane) {
  struct np_courier *c = np_alloc(sizeof *c);
  c->lane = lane;
  c->pump = event_new(lane->base, -1, 0, on_pump, c);
  if (!c->pump) abort(); /* as np_alloc */
  c->rescan = (struct np_alarm){.lane = lane, .fn = scan_new, .arg = c};
  c->random = np_random_number();
  return c;
}

void np_courier_drain(struct np_courier *c) {
  struct np_map_entry *e;
  c->draining = true;
  np_alarm_stop(&c->rescan);
  for (size_t i = 0; (e = np_map_next(&c->lines, &i));) np_alarm_stop(&((struct line *)e->value)->alarm);
}

static void free_destination(void *value) {
  struct destination *to = value;
  free(to->name);
  free(to);
}

void np_courier_free(struct np_courier *c) {
  if (!c) return;
  c->draining = true;
  np_alarm_stop(&c->rescan);
  np_map_free(&c->lines, free_line);
  np_map_free(&c->destinations, free_destination);
  event_free(c->pump);
  free(c);
}
