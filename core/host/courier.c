/* Lines of messages, one for each destination and device, and when the next try of each is due. */
#include "host/courier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/random.h"
#include "host/courier_parts.h"

#define STARTS_MOST 32    /* of one destination before other work of the lane has its turn */
#define WAIT_MOST 3600000 /* ms: a clock that was set back does not hold a message for longer */

void np_courier_again(struct np_courier *c) { event_active(c->pump, EV_TIMEOUT, 0); }

/* Lines */

/* What is known to wait in its ready lines tells when a batch is full. */
static void weigh(struct np_line *l, bool in) {
  struct np_ready *ready = &l->to->ready[l->replayed];
  ready->messages += in ? l->messages : -l->messages;
  ready->bytes += in ? l->bytes : -l->bytes;
}

void np_line_ready(struct np_line *l) {
  struct np_ready *ready = &l->to->ready[l->replayed];
  l->state = NP_LINE_READY;
  if (!l->messages) l->messages = 1;
  l->next = NULL;
  l->prev = ready->last;
  *(ready->last ? &ready->last->next : &ready->first) = l;
  ready->last = l;
  weigh(l, true);
  np_courier_again(l->courier);
}

void np_line_take(struct np_line *l) {
  struct np_ready *ready = &l->to->ready[l->replayed];
  if (l->state == NP_LINE_WAITING) {
    np_alarm_stop(&l->alarm);
    l->to->waiting--;
  } else if (l->state == NP_LINE_READY) {
    *(l->prev ? &l->prev->next : &ready->first) = l->next;
    *(l->next ? &l->next->prev : &ready->last) = l->prev;
    l->prev = l->next = NULL;
    weigh(l, false);
  }
}

static void line_is_due(void *arg) {
  struct np_line *l = arg;
  if (l->state != NP_LINE_WAITING) return; /* the lane has just adopted a new destination */
  np_line_take(l);
  l->since = 0;
  np_line_ready(l);
}

void np_line_wait(struct np_line *l, int64_t ms) {
  l->state = NP_LINE_WAITING;
  l->to->waiting++;
  l->due = np_now_ms() + ms;
  if (!l->courier->draining) np_alarm_set(&l->alarm, ms < WAIT_MOST ? ms : WAIT_MOST);
}

static void line_key(struct np_buf *key, const char *destination, const char *device, size_t device_len, bool replayed) {
  np_buf_add(key, destination, strlen(destination) + 1);
  np_buf_add(key, device, device_len);
  if (replayed) np_buf_addc(key, 0); /* no device's name has one */
}

/* NULL where what is in force under that name is no destination, or is in quarantine: its messages are held. */
static struct np_instance *in_force(struct np_courier *c, const struct np_destination *to) {
  const struct np_slot *slot = c->lane->epoch ? np_epoch_slot(c->lane->epoch, to->name) : NULL;
  struct np_instance *in = np_lane_instance(c->lane, slot);
  return in && in->code->deliver && !np_quarantine_holds(in) ? in : NULL;
}

/* Whether another is in force than when it was last looked. */
static bool adopt(struct np_destination *to, struct np_instance *in) {
  if (!in || (in == to->in && in->code->number == to->generation)) return false;
  to->in = in;
  to->generation = in->code->number;
  np_outlet_adopt(to->outlet, to->courier->lane, in->code);
  return true;
}

static void look_again(void *arg);

static struct np_destination *find_destination(struct np_courier *c, const char *name) {
  struct np_destination *to = np_map_get(&c->destinations, name, strlen(name));
  if (to) return to;
  to = np_alloc(sizeof *to);
  *to = (struct np_destination){.courier = c, .name = np_strdup(name), .outlet = np_outlet_get(c->lane->host->broker, name)};
  to->again = (struct np_alarm){.lane = c->lane, .fn = look_again, .arg = to, .uncounted = true};
  to->recoveries = np_outlet_recoveries(to->outlet);
  np_map_put(&c->destinations, name, strlen(name), to);
  adopt(to, in_force(c, to));
  return to;
}

/* There is a message for this pair: sees to it that it will be looked for. */
struct np_line *np_line_note(struct np_courier *c, const char *name, const char *device, size_t len, bool replayed, bool *found) {
  struct np_buf key = {0};
  line_key(&key, name, device, len, replayed);
  struct np_line *l = np_map_get(&c->lines, key.data, key.len);
  *found = l != NULL;
  if (l) {
    l->more = true;
  } else {
    l = np_alloc(sizeof *l);
    *l = (struct np_line){.courier = c, .to = find_destination(c, name), .device = np_strndup(device, len), .replayed = replayed};
    l->alarm = (struct np_alarm){.lane = c->lane, .fn = line_is_due, .arg = l};
    np_map_put(&c->lines, key.data, key.len, l);
    np_line_ready(l);
  }
  np_buf_free(&key);
  return l;
}

static void free_line(void *value) {
  struct np_line *l = value;
  np_alarm_stop(&l->alarm);
  free(l->device);
  free(l);
}

void np_line_remove(struct np_line *l) {
  struct np_buf key = {0};
  line_key(&key, l->to->name, l->device, strlen(l->device), l->replayed);
  np_map_remove(&l->courier->lines, key.data, key.len);
  np_buf_free(&key);
  free_line(l);
}

/* What waits is tried now. */
static void hurry(struct np_courier *c, const struct np_destination *to) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->lines, &i));) {
    struct np_line *l = e->value;
    if (l->to != to) continue;
    l->eager = true;
    l->since = 0;
    if (l->state != NP_LINE_WAITING) continue;
    np_line_take(l);
    np_line_ready(l);
  }
}

/* Starting what is ready */

static void look_in(struct np_destination *to, int64_t ms) { np_alarm_set(&to->again, ms < WAIT_MOST ? ms : WAIT_MOST); }

static bool has_ready(const struct np_destination *to) { return to->ready[0].first || to->ready[1].first; }

static struct np_line *next_due(const struct np_destination *to) {
  struct np_line *best = NULL;
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&to->courier->lines, &i));) {
    struct np_line *l = e->value;
    if (l->to == to && l->state == NP_LINE_WAITING && (!best || l->due < best->due)) best = l;
  }
  return best;
}

/* A probe is due, and all that there is waits for its next try: the one that would come first is tried. */
static void look_again(void *arg) {
  struct np_destination *to = arg;
  struct np_line *l = !has_ready(to) && np_outlet_opens_in(to->outlet) == 0 ? next_due(to) : NULL;
  if (l) {
    np_line_take(l);
    l->eager = true;
    np_line_ready(l);
  }
  np_courier_again(to->courier);
}

/* ms that a batch may still wait for more. */
static int64_t batch_waits(const struct np_ready *ready, const struct np_terms *t) {
  const struct np_line *first = ready->first;
  if (t->batch == 1 || !t->batch_wait || first->singly || first->eager || !first->since) return 0;
  if (ready->messages >= (size_t)t->batch || (t->batch_bytes && ready->bytes >= t->batch_bytes)) return 0;
  int64_t age = np_now_ms() - first->since;
  return age < 0 ? t->batch_wait : t->batch_wait - age;
}

/* What goes next: live lines, or those of replays while there are none that may go. NULL: all of them wait for their batch, *ms. */
static struct np_ready *next_ready(struct np_destination *to, const struct np_terms *t, int64_t *ms) {
  *ms = INT64_MAX;
  for (int i = 0; i < 2; i++) {
    int64_t wait = to->ready[i].first ? batch_waits(&to->ready[i], t) : INT64_MAX;
    if (wait <= 0) return &to->ready[i];
    if (wait < *ms) *ms = wait;
  }
  return NULL;
}

static void forgo(struct np_destination *to) {
  if (to->asked) np_outlet_forgo(to->outlet, to->courier->lane);
  to->asked = false;
}

/* False: not now. */
static bool start_one(struct np_courier *c, struct np_destination *to, struct np_instance *in) {
  int64_t ms;
  struct np_ready *ready = next_ready(to, &in->code->terms, &ms);
  if (!ready) {
    forgo(to);
    look_in(to, ms);
    return false;
  }
  enum np_pass pass = np_outlet_enter(to->outlet, c->lane, ready == &to->ready[1], &ms);
  to->asked = pass == NP_PASS_LATER || pass == NP_PASS_TOLD;
  if (pass == NP_PASS_LATER) look_in(to, ms);
  if (to->asked) return false;
  bool probe = pass == NP_PASS_PROBE;
  if (!np_parcel_send(c, to, ready, in, probe)) np_outlet_cancel(to->outlet, c->lane, probe);
  return true;
}

static void start_ready(struct np_courier *c, struct np_destination *to) {
  struct np_instance *in = in_force(c, to);
  unsigned recoveries = np_outlet_recoveries(to->outlet);
  if (recoveries != to->recoveries) hurry(c, to);
  to->recoveries = recoveries;
  for (int n = 0; in && has_ready(to) && !np_quarantine_holds(in); n++) {
    if (n == STARTS_MOST) {
      np_courier_again(c);
      return;
    }
    if (!start_one(c, to, in)) return;
  }
  forgo(to);
  int64_t ms = in && to->waiting ? np_outlet_opens_in(to->outlet) : -1;
  if (ms >= 0) look_in(to, ms);
}

static void on_pump(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_courier *c = arg;
  np_lane_sync(c->lane);
  if (c->draining) return;
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->destinations, &i));) start_ready(c, e->value);
}

void np_courier_wake(struct np_courier *c) { np_courier_again(c); }

/* Messages of the past */

struct scan {
  struct np_courier *c;
  const char *name;
  bool replayed;
};

static bool take_device(void *arg, struct np_text device) {
  struct scan *s = arg;
  struct np_lane *lane = s->c->lane;
  bool found;
  if (!np_lane_has(lane, np_partition(device.ptr, device.len), lane->host->lane_count)) return true;
  np_line_note(s->c, s->name, device.ptr, device.len, s->replayed, &found);
  return true;
}

static void scan(struct np_courier *c, struct np_destination *to) {
  struct np_error err;
  struct scan live = {.c = c, .name = to->name}, replays = {.c = c, .name = to->name, .replayed = true};
  to->scanned = np_reader_outbox_devices(c->lane->reader, to->name, false, take_device, &live, &err) == 0 &&
                np_reader_outbox_devices(c->lane->reader, to->name, true, take_device, &replays, &err) == 0;
  if (to->scanned) return;
  np_log(NP_ERROR, "the outbox cannot be read", "destination", to->name, "error", err.text, NULL);
  if (!c->draining) np_alarm_set(&c->rescan, NP_STORE_RETRY);
}

/* Destinations that are configured and were not asked for yet. */
static void scan_new(void *arg) {
  struct np_courier *c = arg;
  const struct np_epoch *e = c->lane->epoch;
  for (size_t i = 0; e && i < e->slot_count; i++) {
    if (!np_slot_takes_messages(&e->slots[i])) continue;
    struct np_destination *to = find_destination(c, e->slots[i].instance);
    if (!to->scanned) scan(c, to);
  }
}

void np_courier_message(struct np_courier *c, const struct np_message *m) {
  bool found;
  struct np_line *l =
      np_line_note(c, m->destination.ptr, m->device.ptr ? m->device.ptr : "", m->device.len, m->replayed > 0, &found);
  bool ready = l->state == NP_LINE_READY;
  if (ready) weigh(l, false);
  if (!found) l->messages = 0;
  if (!found || (!l->messages && !l->since)) l->since = m->created;
  l->messages++;
  l->bytes += m->body.len;
  if (ready) {
    weigh(l, true);
    np_courier_again(c); /* its batch may be full now */
  }
  np_expiry_note(c, m->expires);
}

/* Whether a replay had made it is not asked: a line that has nothing is taken away again. */
void np_courier_retry(struct np_courier *c, const char *destination, const char *device, size_t len) {
  for (int replayed = 0; replayed < 2; replayed++) {
    bool found;
    struct np_line *l = np_line_note(c, destination, device, len, replayed, &found);
    l->since = 0;
    if (l->state != NP_LINE_WAITING) continue;
    np_line_take(l);
    np_line_ready(l); /* it goes before what waits for its next try */
  }
}

void np_courier_rescan(struct np_courier *c) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->destinations, &i));) ((struct np_destination *)e->value)->scanned = false;
  c->started = true;
  scan_new(c);
  np_expiry_sweep(c);
}

/* A destination that was mended, or given other settings, is tried at once. */
void np_courier_adopt(struct np_courier *c) {
  struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&c->destinations, &i));) {
    struct np_destination *to = e->value;
    if (adopt(to, in_force(c, to))) hurry(c, to);
  }
  np_courier_again(c);
  if (c->started) scan_new(c);
}

struct np_courier *np_courier_new(struct np_lane *lane) {
  struct np_courier *c = np_alloc(sizeof *c);
  c->lane = lane;
  c->pump = event_new(lane->base, -1, 0, on_pump, c);
  if (!c->pump) abort(); /* as np_alloc */
  c->rescan = (struct np_alarm){.lane = lane, .fn = scan_new, .arg = c};
  c->expiry = (struct np_alarm){.lane = lane, .fn = np_expiry_sweep, .arg = c, .uncounted = true};
  c->random = np_random_number();
  return c;
}

void np_courier_drain(struct np_courier *c) {
  struct np_map_entry *e;
  c->draining = true;
  np_alarm_stop(&c->rescan);
  np_alarm_stop(&c->expiry);
  for (size_t i = 0; (e = np_map_next(&c->lines, &i));) np_alarm_stop(&((struct np_line *)e->value)->alarm);
  for (size_t i = 0; (e = np_map_next(&c->destinations, &i));) {
    struct np_destination *to = e->value;
    np_alarm_stop(&to->again);
    forgo(to);
  }
}

static void free_destination(void *value) {
  struct np_destination *to = value;
  np_alarm_stop(&to->again);
  free(to->name);
  free(to);
}

void np_courier_free(struct np_courier *c) {
  if (!c) return;
  c->draining = true;
  np_alarm_stop(&c->rescan);
  np_alarm_stop(&c->expiry);
  while (c->parcels) np_parcel_free(c->parcels);
  np_map_free(&c->lines, free_line);
  np_map_free(&c->destinations, free_destination);
  event_free(c->pump);
  free(c);
}
