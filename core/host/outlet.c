/* Outlets. */
#include "host/outlet.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/broker.h"
#include "host/host.h"

#define FAILURES_MOST 8 /* in a row: then it is open */
#define OPEN_LEAST 1000 /* ms */
#define OPEN_MOST 60000 /* ms */
#define LAST_PLACE 100  /* ms until replays ask again */
#define WELL_AFTER 16   /* deliveries in a row after which it is forgotten how long it was open */

const char *const np_circuit_names[3] = {"closed", "open", "half open"};

struct place { /* of a lane */
  int flying;
  int64_t turn;    /* us: when its promised delivery may begin; 0: none is promised */
  uint64_t ticket; /* in the queue of those who wait for another's end; 0: not in it */
};

struct np_outlet {
  struct np_broker *broker; /* borrowed */
  char *name;               /* owned */
  uint64_t epoch;           /* whose terms these are */
  int generation;           /* of the code in force there */
  int concurrency;
  double per_us, burst; /* per_us 0: no bound */
  double level;         /* under 0: as much is promised */
  int64_t filled;       /* us: when the level was right */
  enum np_circuit circuit;
  int failures, well;     /* in a row */
  int64_t since;          /* ms on the monotonic clock, as all here: of the first of the failures */
  int64_t until, open_ms; /* OPEN: when it may be probed; how long it was open last */
  int64_t open_most;
  int64_t paused; /* until then, for the destination asked for it */
  int64_t last_done;
  char error[200];
  int flying;
  uint64_t tickets;
  _Atomic unsigned recoveries;
  struct place places[]; /* a lane each */
};

static int64_t mono_ms(void) { return np_mono_us() / 1000; }

static struct np_outlet *get(struct np_broker *b, const char *name) {
  size_t len = strlen(name);
  struct np_outlet *o = np_map_get(&b->outlets, name, len);
  if (o) return o;
  size_t lanes = (size_t)b->host->lane_count;
  o = np_alloc(sizeof *o + lanes * sizeof *o->places);
  o->broker = b;
  o->name = np_strdup(name);
  o->concurrency = 1;
  o->open_most = OPEN_MOST;
  np_map_put(&b->outlets, name, len, o);
  return o;
}

struct np_outlet *np_outlet_get(struct np_broker *b, const char *destination) {
  np_broker_lock(b);
  struct np_outlet *o = get(b, destination);
  np_broker_unlock(b);
  return o;
}

/* From twenty on a tenth may come at once, the rest is spread; less is spread evenly: within a period there are never more, also where a new generation
 * has the same rate. What was promised is given back. */
static void set_rate(struct np_outlet *o, const struct np_terms *t) {
  double n = t->rate, burst = n >= 20 ? floor(n / 10) : 1, rest = n >= 20 ? n - burst : n;
  double per_us = t->rate ? rest / ((double)t->period * 1000) : 0;
  for (int i = 0; i < o->broker->host->lane_count; i++) {
    if (o->places[i].turn) o->level += 1;
    o->places[i].turn = 0;
  }
  if (per_us == o->per_us && burst == o->burst) return;
  o->per_us = per_us;
  o->burst = burst;
  o->level = burst;
  o->filled = np_mono_us();
}

void np_outlet_adopt(struct np_outlet *o, const struct np_lane *lane, const struct np_code *code) {
  np_broker_lock(o->broker);
  if (lane->epoch->number > o->epoch) {
    o->epoch = lane->epoch->number;
    o->generation = code->number;
    o->concurrency = code->terms.concurrency;
    o->open_most = code->terms.backoff < OPEN_MOST ? code->terms.backoff : OPEN_MOST;
    set_rate(o, &code->terms);
    o->circuit = NP_CIRCUIT_CLOSED;
    o->failures = o->well = 0;
    o->open_ms = o->paused = o->since = 0;
  }
  np_broker_unlock(o->broker);
}

/* Who waits for another's end. */

static int first_in_queue(const struct np_outlet *o) {
  int first = -1;
  for (int i = 0; i < o->broker->host->lane_count; i++)
    if (o->places[i].ticket && (first < 0 || o->places[i].ticket < o->places[first].ticket)) first = i;
  return first;
}

static void wake_first(struct np_outlet *o) {
  int first = first_in_queue(o);
  if (first >= 0 && o->flying < o->concurrency) np_broker_tell(o->broker, first);
}

static void wake_all(struct np_outlet *o) {
  for (int i = 0; i < o->broker->host->lane_count; i++) np_broker_tell(o->broker, i);
}

/* A lane has its turn where none stands before it, or where it has less than its share. */
static bool has_room(const struct np_outlet *o, int lane) {
  if (o->flying >= o->concurrency) return false;
  int first = first_in_queue(o), sharing = 1; /* itself */
  if (first < 0 || first == lane) return true;
  for (int i = 0; i < o->broker->host->lane_count; i++) sharing += i != lane && (o->places[i].flying || o->places[i].ticket);
  return o->places[lane].flying < o->concurrency / sharing;
}

/* Replays stand in no queue: who has live messages does, and goes before them, on whatever lane. */
static bool has_room_behind(struct np_outlet *o, struct place *p) {
  p->ticket = 0;
  wake_first(o);
  return o->flying < (o->concurrency > 1 ? o->concurrency - 1 : 1) && first_in_queue(o) < 0;
}

/* us until the lane's delivery may begin; then it is counted. */
static int64_t take_turn(struct np_outlet *o, struct place *p) {
  int64_t now = np_mono_us();
  if (o->per_us <= 0) return 0;
  o->level = fmin(o->burst, o->level + (double)(now - o->filled) * o->per_us);
  o->filled = now;
  if (!p->turn) {
    int64_t wait = o->level >= 1 ? 0 : (int64_t)ceil((1 - o->level) / o->per_us);
    o->level -= 1;
    p->turn = now + wait;
  }
  if (p->turn > now) return p->turn - now;
  p->turn = 0;
  return 0;
}

enum np_pass np_outlet_enter(struct np_outlet *o, const struct np_lane *lane, bool replayed, int64_t *ms) {
  struct place *p = &o->places[lane->index];
  enum np_pass pass = NP_PASS_GO;
  np_broker_lock(o->broker);
  int64_t now = mono_ms(), us = 0;
  *ms = 0;
  if (o->paused > now)
    *ms = o->paused - now;
  else if (o->circuit == NP_CIRCUIT_OPEN && o->until > now)
    *ms = o->until - now;
  else if (replayed && !has_room_behind(o, p))
    *ms = LAST_PLACE; /* a lane's own deliveries that end have it ask again before that */
  if (*ms) {
    pass = NP_PASS_LATER;
  } else if (o->circuit == NP_CIRCUIT_HALF_OPEN) {
    pass = NP_PASS_TOLD; /* all are, when it is known what came of the probe */
  } else if (o->circuit == NP_CIRCUIT_CLOSED && !has_room(o, lane->index)) {
    if (!p->ticket) p->ticket = ++o->tickets;
    wake_first(o);
    pass = NP_PASS_TOLD;
  } else if ((us = take_turn(o, p)) > 0) {
    *ms = (us + 999) / 1000;
    pass = NP_PASS_LATER;
  } else {
    if (o->circuit == NP_CIRCUIT_OPEN) {
      o->circuit = NP_CIRCUIT_HALF_OPEN;
      pass = NP_PASS_PROBE;
    }
    p->ticket = 0;
    p->flying++;
    o->flying++;
    wake_first(o);
  }
  np_broker_unlock(o->broker);
  return pass;
}

static void take_out(struct np_outlet *o, int lane) {
  o->places[lane].flying--;
  o->flying--;
  wake_first(o);
}

/* It has told nothing: another may probe, whichever lane has something. */
static void give_back(struct np_outlet *o, bool probe) {
  if (!probe || o->circuit != NP_CIRCUIT_HALF_OPEN) return;
  o->circuit = NP_CIRCUIT_OPEN;
  wake_all(o);
}

void np_outlet_cancel(struct np_outlet *o, const struct np_lane *lane, bool probe) {
  np_broker_lock(o->broker);
  if (o->per_us > 0) o->level += 1;
  give_back(o, probe);
  take_out(o, lane->index);
  np_broker_unlock(o->broker);
}

static void open_circuit(struct np_outlet *o, int64_t now) {
  o->open_ms = !o->open_ms ? OPEN_LEAST : o->open_ms * 2;
  if (o->open_ms > o->open_most) o->open_ms = o->open_most;
  o->until = now + (int64_t)((double)o->open_ms * (0.5 + np_broker_random(o->broker) / 2));
  if (o->until < o->paused) o->until = o->paused;
  bool first = o->circuit == NP_CIRCUIT_CLOSED;
  o->circuit = NP_CIRCUIT_OPEN;
  wake_all(o); /* who has nothing but what waits for its next try probes with that */
  if (!first) return;
  char failures[16], next[32];
  snprintf(failures, sizeof failures, "%d", o->failures);
  snprintf(next, sizeof next, "in %.1f s", (double)(o->until - now) / 1000);
  np_log(NP_WARN, "a destination keeps failing: it is only probed until one delivery arrives", "destination", o->name, "failures",
         failures, "next probe", next, "error", o->error, NULL);
}

static void close_circuit(struct np_outlet *o, int64_t now) {
  char after[32];
  snprintf(after, sizeof after, "%.1f s", (double)(now - o->since) / 1000);
  np_log(NP_INFO, "a destination takes messages again", "destination", o->name, "after", after, NULL);
  o->circuit = NP_CIRCUIT_CLOSED;
  atomic_fetch_add_explicit(&o->recoveries, 1, memory_order_release);
  wake_all(o);
}

static void note_success(struct np_outlet *o, int64_t now) {
  o->last_done = now;
  if (o->circuit != NP_CIRCUIT_CLOSED) close_circuit(o, now);
  if (++o->well == WELL_AFTER) o->open_ms = 0;
  o->failures = 0;
  o->since = 0;
}

static void note_failure(struct np_outlet *o, int64_t now, bool probe, const struct np_delivery *d) {
  o->well = 0;
  if (!o->failures++) o->since = now;
  snprintf(o->error, sizeof o->error, "%s", d->error ? d->error : "");
  if (o->circuit == NP_CIRCUIT_CLOSED ? o->failures >= FAILURES_MOST : probe) open_circuit(o, now);
}

static void note_pause(struct np_outlet *o, int64_t now, int64_t ms) {
  char seconds[32];
  if (now + ms <= o->paused) return;
  if (o->paused <= now) {
    snprintf(seconds, sizeof seconds, "%.1f s", (double)ms / 1000);
    np_log(NP_INFO, "a destination asked for a pause", "destination", o->name, "for", seconds, NULL);
  }
  o->paused = now + ms;
}

void np_outlet_leave(struct np_outlet *o, const struct np_lane *lane, bool probe, const struct np_delivery *d) {
  np_broker_lock(o->broker);
  int64_t now = mono_ms();
  bool current = d->in->code->number == o->generation; /* what was asked by other settings says nothing against these */
  if (d->retry_after && current) note_pause(o, now, d->retry_after);
  if (d->verdict != NP_DELIVERY_AGAIN)
    note_success(o, now);
  else if (current)
    note_failure(o, now, probe, d);
  else
    give_back(o, probe);
  take_out(o, lane->index);
  np_broker_unlock(o->broker);
}

void np_outlet_forgo(struct np_outlet *o, const struct np_lane *lane) {
  struct place *p = &o->places[lane->index];
  np_broker_lock(o->broker);
  if (p->turn) o->level += 1;
  p->turn = 0;
  p->ticket = 0;
  wake_first(o);
  np_broker_unlock(o->broker);
}

int64_t np_outlet_opens_in(struct np_outlet *o) {
  np_broker_lock(o->broker);
  int64_t now = mono_ms(), until = o->until > o->paused ? o->until : o->paused;
  int64_t ms = o->circuit != NP_CIRCUIT_OPEN ? -1 : until > now ? until - now : 0;
  np_broker_unlock(o->broker);
  return ms;
}

unsigned np_outlet_recoveries(const struct np_outlet *o) { return atomic_load_explicit(&o->recoveries, memory_order_acquire); }

struct np_outlet_view np_outlet_look(struct np_broker *b, const char *destination) {
  struct np_outlet_view v = {0};
  np_broker_lock(b);
  const struct np_outlet *o = np_map_get(&b->outlets, destination, strlen(destination));
  if (o) {
    int64_t mono = mono_ms(), ahead = np_now_ms() - mono;
    v = (struct np_outlet_view){.circuit = o->circuit, .failures = o->failures, .flying = o->flying};
    if (o->since) v.since = o->since + ahead;
    if (o->circuit == NP_CIRCUIT_OPEN) v.next_probe = o->until + ahead;
    if (o->paused > mono) v.paused = o->paused + ahead;
    if (o->last_done) v.last_done = o->last_done + ahead;
    if (o->failures) snprintf(v.error, sizeof v.error, "%s", o->error);
  }
  np_broker_unlock(b);
  return v;
}

static void free_outlet(void *value) {
  struct np_outlet *o = value;
  free(o->name);
  free(o);
}

void np_outlets_free(struct np_broker *b) { np_map_free(&b->outlets, free_outlet); }
