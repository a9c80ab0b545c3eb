/* Running a replay. What the rule sends is collected and committed some at a time, with the place up to which all is dealt with. */
#include "host/replay_run.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/ledger.h"
#include "host/replay_record.h"
#include "host/rule.h"
#include "host/shadow.h"
#include "lib/json.h"

#define BATCH_MOST 64    /* messages that are committed together */
#define DERIVED_MOST 500 /* readings, likewise */
#define GATHER_MS 200    /* or what has come together in that time */
#define NOTE_MS 2000     /* how often the place is committed where nothing is sent */
#define ROOM_MS 100      /* until it is looked again whether there is room in the outbox */
#define ROUTER_MS 20     /* until it is looked again whether the rule itself has been run on a reading */
#define AGAIN_MS 1000    /* until a commit that failed is tried again */

struct runner {
  struct np_replay_run *run;
  struct np_reader *reader, *other; /* owned: the run's, and one to ask what is on record */
  struct np_filter *filter;         /* owned */
  struct np_shadow *shadow;         /* owned */
  lua_State *L;                     /* owned: brings bodies into one order of keys */
  struct np_replay_progress now;    /* as it will be once all that is collected is committed */
  int64_t skip;                     /* messages and failures after now.seq that were dealt with before */
  bool silent;                      /* not yet at the place where it goes on */
  bool over;                        /* it ends: what comes is left */
  bool in_reading;
  int64_t cursors[NP_PARTITIONS];
  int64_t version;        /* of its row */
  struct np_writeset *ws; /* owned: messages to be committed */
  size_t collected;
  size_t derived;                 /* readings in it */
  int64_t first_us, noted_us;     /* monotonic: of the first of them; of the last commit */
  int64_t free_us;                /* when the rate lets the next ones go */
  struct np_replay_record record; /* of the cause at hand */
  struct np_error err;
};

/* Waiting */

static bool stopped(const struct runner *r) { return atomic_load_explicit(&r->run->stop, memory_order_relaxed); }

/* False where it is to end. */
static bool nap(struct runner *r, int64_t ms) {
  struct np_replay_run *run = r->run;
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += ms / 1000;
  until.tv_nsec += ms % 1000 * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  pthread_mutex_lock(&run->lock);
  while (!atomic_load(&run->stop) && pthread_cond_timedwait(&run->woken, &run->lock, &until) == 0) {}
  pthread_mutex_unlock(&run->lock);
  return !stopped(r);
}

/* Committing */

static struct np_text text(struct np_writeset *ws, const char *s) { return np_writeset_text(ws, s, strlen(s)); }

/* The row as it is now: 1, 0 where it has gone, -1. Where somebody has stopped it (np_replay_jobs_stop) it is not this run's to write any more: 0 is the version
 * of what is not there, so that whatever is still committed is a conflict. */
static int load_row(struct runner *r, struct np_replay_job *row) {
  int found = np_replay_job_load(r->other, r->run->job.number, row, &r->version, &r->err);
  if (found != 1 || row->state != NP_REPLAY_STOPPED || r->run->job.state == NP_REPLAY_STOPPED) return found;
  r->version = 0;
  atomic_store(&r->run->stop, true);
  return found;
}

/* What was thought to have failed may have been. */
static bool is_committed(struct runner *r) {
  struct np_replay_job row;
  if (load_row(r, &row) != 1) return false;
  const struct np_replay_job *j = &r->run->job;
  bool same = memcmp(&row.at, &j->at, sizeof row.at) == 0 && row.state == j->state;
  np_replay_job_clear(&row);
  return same;
}

static void feed(struct runner *r, const struct np_writeset *ws) {
  struct np_feed *to = &r->run->host->feed;
  if (!np_feed_wanted(to, NP_FEED_MESSAGES)) return;
  for (const struct np_op *op = ws->first; op; op = op->next)
    if (op->kind == NP_OP_SEND) np_feed_send(to, np_feed_message(&op->as.send));
}

/* The row, and what was collected, in one commit. False where it could not be, and will not be; the store being full it is tried again until it is to end. */
static bool commit(struct runner *r, bool last) {
  struct np_writeset *ws = r->ws;
  enum np_outcome outcome;
  bool done = false;
  np_replay_job_see(r->run->job.number, r->version, ws);
  np_replay_job_put(&r->run->job, ws);
  do {
    np_writeset_ref(ws);
    outcome = np_keeper_apply(r->run->host->keeper, ws, &r->err);
    done = outcome == NP_COMMITTED || (outcome == NP_CONFLICT && is_committed(r));
  } while (outcome == NP_FAILED && !last && nap(r, AGAIN_MS));
  if (done) feed(r, ws);
  np_writeset_unref(ws);
  r->ws = np_writeset_new();
  r->collected = r->derived = 0;
  r->noted_us = np_mono_us();
  struct np_replay_job row;
  if (!done || load_row(r, &row) != 1) return false;
  np_replay_job_clear(&row);
  return true;
}

static int64_t interval_us(const struct np_replay_job *j) { return j->period * 1000 / j->rate; }

static size_t batch_of(const struct np_replay_job *j) {
  int64_t n = j->rate * 250 / j->period;
  return n < 1 ? 1 : n > BATCH_MOST ? BATCH_MOST : (size_t)n;
}

/* Until the rate, and what is still in the outbox, leave room. */
static bool wait_for_room(struct runner *r) {
  int64_t us;
  while ((us = r->free_us - np_mono_us()) > 0)
    if (!nap(r, us / 1000 + 1)) return false;
  while (np_reader_replay_pending(r->other, r->run->job.number) + (int64_t)r->collected > NP_REPLAY_PENDING_MOST)
    if (!nap(r, ROOM_MS)) return false;
  return true;
}

static void flush(struct runner *r) {
  size_t n = r->collected;
  if (r->over) return;
  if (n && !wait_for_room(r)) {
    r->over = true;
    return;
  }
  struct np_replay_progress before = r->run->job.at;
  r->run->job.at = r->now;
  if (!commit(r, false)) {
    r->run->job.at = before;
    r->over = true;
  }
  int64_t now = np_mono_us();
  r->free_us = (r->free_us > now - GATHER_MS * 1000 ? r->free_us : now) + (int64_t)n * interval_us(&r->run->job);
}

static int64_t made_at(lua_State *L, const struct np_buf *record) {
  struct np_error err;
  int64_t at = INT64_MAX;
  if (np_json_decode(L, record->data, record->len, &err) < 0) return at;
  if (lua_istable(L, -1) && lua_getfield(L, -1, "at") == LUA_TNUMBER) at = lua_tointeger(L, -1);
  lua_settop(L, 0);
  return at;
}

/* Its acknowledgement is that of the message of the run which it stands for. */
static void take_ack(struct runner *r, const char *id, const struct np_message *m) {
  struct np_buf record = {0};
  int64_t version;
  int found = np_reader_ack(r->other, id, &record, &version, &r->err);
  if (found < 0) r->over = true;
  if (found > 0) np_shadow_acknowledge(r->shadow, m->id, (struct np_text){record.data, record.len}, made_at(r->L, &record));
  np_buf_free(&record);
}

static bool is_unsure(struct runner *r, const struct np_shadow_cause *cause) {
  int64_t from = np_replay_record_from(&r->record, &r->err);
  if (from < 0) r->over = true;
  return from < 0 || cause->at < from;
}

/* What the rule says */

static void add(struct runner *r, const struct np_message *m) {
  struct np_writeset *ws = r->ws;
  struct np_message *to = &np_writeset_add(ws, NP_OP_SEND)->as.send;
  *to = *m;
  to->id = np_message_id(ws);
  to->destination = np_writeset_text(ws, m->destination.ptr, m->destination.len);
  to->device = np_writeset_text(ws, m->device.ptr, m->device.len);
  to->body = np_writeset_text(ws, m->body.ptr, m->body.len);
  to->source = np_writeset_text(ws, m->source.ptr, m->source.len);
  to->generation = r->run->job.generation;
  to->replayed = r->run->job.number;
  if (!r->collected++) r->first_us = np_mono_us();
  r->now.sent++;
  if (r->collected >= batch_of(&r->run->job)) flush(r);
}

static void decide(struct runner *r, const struct np_shadow_cause *cause, const struct np_message *m, bool known) {
  const struct np_replay_job *j = &r->run->job;
  if (known && !j->again)
    r->now.already++;
  else if (m->expires && m->expires <= np_now_ms())
    r->now.expired++;
  else if (r->record.waiting)
    r->now.waiting++;
  else if (!j->again && is_unsure(r, cause))
    r->now.unsure++;
  else
    add(r, m);
}

static bool is_dealt_with(struct runner *r) { return r->silent || r->over || ++r->now.said <= r->skip; }

static void on_message(void *arg, const struct np_shadow_cause *cause, const struct np_message *m) {
  struct runner *r = arg;
  if (r->over) return;
  r->over = np_replay_record_read(&r->record, cause, &r->err) < 0;
  const char *known = r->over ? NULL : np_replay_record_find(&r->record, m); /* also what was dealt with before stands for one */
  if (known) take_ack(r, known, m);
  if (!is_dealt_with(r)) decide(r, cause, m, known != NULL);
}

/* Stored where it is missing, by its identity, and quiet: what other rules would make of it is theirs to be replayed. */
static void on_derived(void *arg, const struct np_shadow_cause *cause, const struct np_reading *given) {
  struct runner *r = arg;
  if (is_dealt_with(r)) return;
  if (np_replay_record_read(&r->record, cause, &r->err) < 0) {
    r->over = true;
    return;
  }
  if (r->record.waiting) {
    r->now.waiting++;
    return;
  }
  struct np_reading reading = np_reading_copy(r->ws, given);
  struct np_derivation *d = np_arena_alloc(&r->ws->arena, sizeof *d);
  *d = (struct np_derivation){.cause = cause->reading ? cause->reading->seq : 0, .generation = r->run->job.generation};
  if (!cause->reading) d->timer = text(r->ws, cause->timer), d->key = text(r->ws, cause->key);
  reading.derivation = d;
  reading.quiet = true;
  np_writeset_add(r->ws, NP_OP_READING)->as.reading = reading;
  r->now.derived++;
  if (++r->derived >= DERIVED_MOST) flush(r);
}

static void on_failed(void *arg, const struct np_shadow_cause *cause, const char *error) {
  struct runner *r = arg;
  struct np_replay_job *j = &r->run->job;
  if (is_dealt_with(r)) return;
  if (!r->now.failed++) {
    r->now.failed_reading = cause->reading ? cause->reading->seq : 0;
    free(j->error);
    j->error = np_strndup(error, strcspn(error, "\n"));
  }
}

/* How far it is */

static void wake(struct runner *r) {
  r->silent = false;
  r->now.said = 0;
  r->skip = r->run->job.at.said;
}

/* Only what the rule itself has been run on is run again: else both would send. */
static bool ready(void *arg, const struct np_reading *reading) {
  struct runner *r = arg;
  if (r->silent && reading->seq > r->now.seq) wake(r);
  while (r->cursors[reading->partition] < reading->seq) {
    if (np_reader_cursors(r->other, r->cursors, &r->err) < 0) return false;
    if (r->cursors[reading->partition] >= reading->seq) break;
    if (r->collected) flush(r);
    if (!nap(r, ROUTER_MS)) return false;
  }
  r->in_reading = true;
  return !r->over;
}

/* Where pages end differs from run to run: they are no place to go on behind what was not said again yet. */
static bool passed(void *arg, int64_t seq) {
  struct runner *r = arg;
  bool reading = r->in_reading, here = r->silent && seq == r->now.seq;
  int64_t us = np_mono_us();
  r->in_reading = false;
  if (r->silent && seq >= r->now.seq) wake(r);
  if (r->silent || here || (!reading && r->now.said < r->skip)) return !r->over && !stopped(r);
  r->now.seq = seq;
  r->now.said = r->skip = 0;
  r->now.readings += reading;
  if ((r->collected && us - r->first_us >= GATHER_MS * 1000) || us - r->noted_us >= NOTE_MS * 1000) flush(r);
  return !r->over && !stopped(r);
}

/* From beginning to end */

static int begin(struct runner *r) {
  const struct np_replay_job *j = &r->run->job;
  const char *store = r->run->host->config->store;
  struct np_replay_job row;
  r->filter = np_replay_filter((const char *const *)j->names, &r->err);
  if (!r->filter || !(r->reader = np_reader_open(store, &r->err)) || !(r->other = np_reader_open(store, &r->err))) return -1;
  int found = load_row(r, &row);
  if (found != 1) return found < 0 ? -1 : np_fail(&r->err, "its row has gone");
  np_replay_job_clear(&row);
  r->record = (struct np_replay_record){.reader = r->other,
                                        .L = r->L,
                                        .rule = j->rule,
                                        .number = j->number,
                                        .delivered_age = r->run->delivered_age,
                                        .delivered_size = r->run->delivered_size};
  r->now = j->at;
  r->silent = true;
  r->noted_us = np_mono_us();
  return 0;
}

static int run_rule(struct runner *r, bool *whole) {
  struct np_replay_run *run = r->run;
  const struct np_replay_job *j = &run->job;
  const struct np_shadow_heard heard = {on_message, on_derived, on_failed, r};
  int64_t to = j->to ? j->to : j->created;
  const struct np_shadow_span span = {.upto = j->upto ? j->upto : 1, /* 0 would be all */
                                      .from = j->from,
                                      .to = to,
                                      .filter = r->filter,
                                      .until = to < j->created ? to : j->created,
                                      .stop = &run->stop,
                                      .ready = ready,
                                      .passed = passed,
                                      .arg = r};
  struct np_shadow_covered covered;
  r->shadow = np_shadow_new(run->in, run->to, r->reader, &heard, &r->err);
  run->in = NULL;
  if (!r->shadow) return -1;
  int status = np_shadow_run(&r->shadow, 1, &span, &covered, &r->err);
  np_shadow_free(r->shadow);
  *whole = status == 0 && covered.whole && !r->over;
  return status;
}

/* What was collected and is not committed is left: it is said again where the replay goes on. */
static void leave(struct runner *r, const char *why) {
  np_replay_job_stop(&r->run->job, why);
  if (!r->version) return;
  np_writeset_unref(r->ws);
  r->ws = np_writeset_new();
  commit(r, true);
}

static void end(struct runner *r, int status, bool whole) {
  struct np_replay_job *j = &r->run->job;
  if (whole && (r->collected || r->derived)) flush(r);
  if (whole && !r->over) {
    struct np_replay_progress before = j->at;
    j->at = r->now;
    j->state = NP_REPLAY_DONE;
    j->ended = np_now_ms();
    if (commit(r, false)) return;
    j->at = before;
    j->state = NP_REPLAY_RUNNING;
    j->ended = 0;
  }
  pthread_mutex_lock(&r->run->lock);
  char *why = r->run->why;
  r->run->why = NULL;
  pthread_mutex_unlock(&r->run->lock);
  if (why || !stopped(r)) {
    struct np_error err;
    np_fail(&err, "%s", why ? why : status < 0 || r->err.text[0] ? r->err.text : "it could not go on");
    leave(r, err.text);
  }
  free(why);
}

void np_replay_run(struct np_replay_run *run) {
  struct runner r = {.run = run, .ws = np_writeset_new(), .L = luaL_newstate()};
  bool whole = false;
  if (!r.L) abort(); /* out of memory */
  int status = begin(&r);
  if (status == 0) status = run_rule(&r, &whole);
  end(&r, status, whole);
  lua_close(r.L);
  np_filter_free(r.filter);
  np_reader_close(r.reader);
  np_reader_close(r.other);
  np_writeset_unref(r.ws);
  np_replay_record_free(&r.record);
}

struct np_replay_run *np_replay_run_new(struct np_host *host) {
  struct np_replay_run *run = np_alloc(sizeof *run);
  pthread_condattr_t attributes;
  run->host = host;
  pthread_mutex_init(&run->lock, NULL);
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&run->woken, &attributes);
  pthread_condattr_destroy(&attributes);
  return run;
}

void np_replay_run_stop(struct np_replay_run *run, const char *why) {
  pthread_mutex_lock(&run->lock);
  if (why && !run->why) run->why = np_strdup(why);
  atomic_store(&run->stop, true);
  pthread_cond_signal(&run->woken);
  pthread_mutex_unlock(&run->lock);
}

void np_replay_run_free(struct np_replay_run *run) {
  if (!run) return;
  if (run->in) np_instance_close(run->in);
  np_epoch_unref(run->to);
  np_replay_job_clear(&run->job);
  pthread_mutex_destroy(&run->lock);
  pthread_cond_destroy(&run->woken);
  free(run->why);
  free(run);
}
