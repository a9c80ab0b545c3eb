/* Jobs: one record for each instance and name, which outlives generations, so that a job never runs twice at once. */
#include "host/jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/duration.h"
#include "base/log.h"
#include "base/map.h"
#include "base/random.h"
#include "host/alarm.h"
#include "host/host.h"
#include "host/ledger.h"
#include "host/state.h"
#include "host/task.h"

#define SPACE "neap.jobs"
#define JITTER_MOST 2000 /* ms */
#define CONFLICTS_MOST 5
#define STORE_RETRY 1000

struct job {
  struct np_waiter waiter; /* first: the keeper's answer finds its way back by it */
  struct np_jobs *jobs;    /* borrowed */
  char *key;               /* owned: "INSTANCE/NAME" */
  char *instance;          /* owned */
  const char *name;        /* in key */
  bool wanted;             /* the generation in force declares it */
  bool running;            /* handler or commit */
  int generation;          /* in force */
  int64_t period;          /* ms */
  int handler;
  int64_t last;            /* ms: start of the last run that was committed; 0: it never was */
  int64_t due;             /* ms: when the handler of that run said it is to run again; 0: the period counts */
  bool known;              /* last and due were read from the store */
  int failures, conflicts; /* in a row */
  struct np_alarm alarm;
  /* Of the run under way. */
  int64_t began; /* ms */
  int began_generation;
  int64_t again; /* ms after its end that the handler wants to run again; -1: the period counts */
  int64_t again_at;
  bool handling; /* the handler runs or waits */
  struct np_task task;
  struct np_overlay overlay;
  struct np_writeset *ws; /* owned until submitted */
};

struct np_jobs {
  struct np_lane *lane; /* borrowed */
  struct np_map all;    /* owned: struct job by key */
  bool draining, closing;
  uint64_t random; /* xorshift */
};

static void run(struct job *job);

static int64_t jitter(struct np_jobs *j, int64_t period) {
  j->random ^= j->random << 13, j->random ^= j->random >> 7, j->random ^= j->random << 17;
  return (int64_t)(j->random % (uint64_t)((period < JITTER_MOST ? period : JITTER_MOST) + 1));
}

/* When */

static void read_last(struct job *job) {
  struct np_buf value = {0};
  struct np_error err;
  int64_t version, now = np_now_ms();
  int found = np_reader_get(job->jobs->lane->reader, SPACE, job->key, strlen(job->key), now, &value, &version, &err);
  if (found < 0)
    np_log(NP_ERROR, "a job's last run cannot be read", "plugin", job->instance, "job", job->name, "error", err.text, NULL);
  job->known = found >= 0;
  char *due = NULL;
  if (found > 0) job->last = strtoll(np_buf_text(&value), &due, 10);
  if (due) job->due = strtoll(due, NULL, 10);
  if (job->last > now) { /* the clock was set back */
    if (job->due) job->due -= job->last - now;
    job->last = now;
  }
  np_buf_free(&value);
}

static int64_t next_of(const struct job *job) { return job->due ? job->due : job->last + job->period; }

static void set_alarm(struct job *job, int64_t at) {
  int64_t wait = at - np_now_ms(), most = next_of(job) - job->last;
  if (most < job->period) most = job->period;
  if (wait > most) wait = most; /* the clock was set back */
  if (!job->jobs->draining) np_alarm_set(&job->alarm, wait);
}

/* The first run under this generation. What is overdue or never ran is spread a little. */
static void schedule(struct job *job) {
  int64_t now = np_now_ms();
  if (job->jobs->draining) return;
  if (!job->known) read_last(job);
  if (!job->known)
    set_alarm(job, now + STORE_RETRY);
  else if (job->due || next_of(job) > now)
    set_alarm(job, next_of(job));
  else
    set_alarm(job, now + jitter(job->jobs, job->period));
}

static void remove_job(struct job *job) {
  np_map_remove(&job->jobs->all, job->key, strlen(job->key));
  np_alarm_stop(&job->alarm);
  free(job->key);
  free(job->instance);
  free(job);
}

static void on_alarm(void *arg) {
  struct job *job = arg;
  if (job->running) return; /* what comes after it is scheduled when it ends */
  if (!job->wanted)
    remove_job(job);
  else if (!job->known)
    schedule(job);
  else if (!job->jobs->draining)
    run(job);
}

/* A run */

static void log_failure(const struct job *job, const char *error, int64_t wait) {
  char generation[16], next[32], failures[16];
  snprintf(generation, sizeof generation, "%d", job->began_generation);
  snprintf(failures, sizeof failures, "%d", job->failures);
  snprintf(next, sizeof next, "in %.1f s", (double)wait / 1000);
  np_log(NP_ERROR, "a job failed; nothing of it is kept", "plugin", job->instance, "job", job->name, "generation", generation,
         "failures", failures, "next try", job->wanted && !job->jobs->draining ? next : NULL, "error", error, NULL);
}

/* The run is over. at: when the next one is due. */
static void finish(struct job *job, int64_t at) {
  job->running = false;
  job->conflicts = 0;
  if (!job->wanted)
    remove_job(job);
  else if (job->generation != job->began_generation)
    schedule(job);
  else
    set_alarm(job, at);
}

static void fail(struct job *job, const char *error) {
  job->failures++;
  int64_t wait = np_backoff(job->failures, job->period);
  log_failure(job, error, wait);
  finish(job, np_now_ms() + wait);
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct job *job = (struct job *)waiter;
  enum np_outcome outcome = ws->outcome;
  char why[sizeof ws->error];
  memcpy(why, ws->error, sizeof why);
  np_writeset_unref(ws);
  if (outcome == NP_COMMITTED) {
    job->last = job->began;
    job->due = job->again_at;
    job->failures = 0;
    finish(job, next_of(job));
  } else if (outcome == NP_FAILED) {
    fail(job, why);
  } else if (np_state_is_migrating(job->jobs->lane)) {
    finish(job, np_now_ms() + NP_STATE_WAIT);
  } else if (++job->conflicts > CONFLICTS_MOST) {
    fail(job, "others kept changing what it reads");
  } else if (job->wanted && !job->jobs->draining) {
    run(job);
  } else {
    finish(job, np_now_ms());
  }
}

static void commit(struct job *job) {
  char text[48];
  job->again_at = job->again < 0 ? 0 : np_now_ms() + job->again;
  int n = snprintf(text, sizeof text, "%" PRId64 " %" PRId64, job->began, job->again_at);
  struct np_writeset *ws = job->ws;
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, SPACE, strlen(SPACE));
  op->as.put.key = np_writeset_text(ws, job->key, strlen(job->key));
  op->as.put.value = np_writeset_text(ws, text, (size_t)n);
  job->ws = NULL;
  job->waiter.answered = answered;
  if (np_lane_submit(job->jobs->lane, ws, &job->waiter, true) == 0) return;
  np_writeset_unref(ws);
  finish(job, job->began + job->period); /* neap is stopping */
}

/* In the protected call. */
static void take_again(lua_State *L, struct np_task *t, int n) {
  struct job *job = t->owner;
  int first = lua_gettop(L) - n + 1;
  size_t len;
  if (n == 0 || lua_isnil(L, first)) return;
  if (lua_type(L, first) == LUA_TNUMBER) {
    lua_Number seconds = lua_tonumber(L, first);
    if (seconds >= 0 && seconds < 3.2e9) job->again = (int64_t)(seconds * 1000 + 0.5);
  } else if (lua_type(L, first) == LUA_TSTRING) {
    const char *text = lua_tolstring(L, first, &len);
    if (np_duration_parse(text, len, &job->again) < 0) job->again = -1;
  }
  if (job->again < 0)
    luaL_error(L, "a job returns nothing, or a duration such as \"15m\" after which it runs again; got %s",
               luaL_tolstring(L, first, NULL));
}

static void after_handler(struct np_task *t) {
  struct job *job = t->owner;
  job->handling = false;
  np_overlay_free(&job->overlay);
  if (job->jobs->closing) return;
  if (t->failed) {
    np_writeset_unref(job->ws);
    job->ws = NULL;
    fail(job, t->error);
  } else {
    commit(job);
  }
}

static void run(struct job *job) {
  struct np_lane *lane = job->jobs->lane;
  const struct np_slot *slot = np_epoch_slot(lane->epoch, job->instance);
  struct np_instance *in = np_lane_instance(lane, slot);
  if (!in || np_quarantine_holds(in)) { /* the next epoch has it; or it is adopted again when that is over */
    job->running = false;
    return;
  }
  job->running = job->handling = true;
  job->began = np_now_ms();
  job->began_generation = job->generation;
  job->again = -1;
  job->ws = np_writeset_new();
  job->task = (struct np_task){.in = in,
                               .mode = NP_JOBBING,
                               .ws = job->ws,
                               .overlay = &job->overlay,
                               .handler = job->handler,
                               .take = take_again,
                               .where = job->name,
                               .ended = after_handler,
                               .owner = job};
  np_task_start(&job->task);
}

/* Adoption */

static struct job *find_job(struct np_jobs *j, const char *instance, const char *name) {
  struct np_buf key = {0};
  np_buf_addf(&key, "%s/%s", instance, name);
  struct job *job = np_map_get(&j->all, key.data, key.len);
  if (!job && np_hash_stable(key.data, key.len) % (uint64_t)j->lane->host->lane_count == (uint64_t)j->lane->index) {
    job = np_alloc(sizeof *job);
    *job = (struct job){.jobs = j, .key = np_strndup(key.data, key.len), .instance = np_strdup(instance)};
    job->name = job->key + strlen(instance) + 1;
    job->alarm = (struct np_alarm){.lane = j->lane, .fn = on_alarm, .arg = job};
    np_map_put(&j->all, key.data, key.len, job);
  }
  np_buf_free(&key);
  return job;
}

static void adopt_job(struct job *job, const struct np_code *code, const struct np_job *declared) {
  bool fresh = job->generation != code->number || job->period != declared->period; /* a mended one is not held up by its failures */
  job->wanted = true;
  job->handler = declared->handler;
  job->generation = code->number;
  job->period = declared->period;
  if (fresh) job->failures = 0;
  if (!job->running && (fresh || !job->alarm.set)) schedule(job);
}

void np_jobs_adopt(struct np_jobs *j) {
  const struct np_epoch *e = j->lane->epoch;
  struct np_map_entry *entry;
  for (size_t i = 0; (entry = np_map_next(&j->all, &i));) ((struct job *)entry->value)->wanted = false;
  for (size_t i = 0; i < e->slot_count; i++) {
    const struct np_code *code = e->slots[i].code;
    for (size_t k = 0; code && k < code->job_count; k++) {
      struct job *job = find_job(j, code->instance, code->jobs[k].name);
      if (job) adopt_job(job, code, &code->jobs[k]);
    }
  }
  /* those that are gone are removed by their alarm: this may be the lane's doing on behalf of one of them */
  for (size_t i = 0; (entry = np_map_next(&j->all, &i));) {
    struct job *job = entry->value;
    if (!job->wanted && !job->running && !j->draining) np_alarm_set(&job->alarm, 0);
  }
}

struct np_jobs *np_jobs_new(struct np_lane *lane) {
  struct np_jobs *j = np_alloc(sizeof *j);
  j->lane = lane;
  j->random = np_random_number();
  return j;
}

static struct job *known_job(const struct np_jobs *j, const char *instance, const char *name) {
  struct np_buf key = {0};
  np_buf_addf(&key, "%s/%s", instance, name);
  struct job *job = np_map_get(&j->all, key.data, key.len);
  np_buf_free(&key);
  return job && job->wanted ? job : NULL;
}

bool np_jobs_hurry(struct np_jobs *j, const char *instance, const char *name) {
  struct job *job = known_job(j, instance, name);
  if (!job || job->running) return false;
  np_alarm_set(&job->alarm, 0);
  return true;
}

bool np_jobs_running(const struct np_jobs *j, const char *instance, const char *name) {
  const struct job *job = known_job(j, instance, name);
  return job && job->running;
}

void np_jobs_drain(struct np_jobs *j) {
  struct np_map_entry *entry;
  j->draining = true;
  for (size_t i = 0; (entry = np_map_next(&j->all, &i));) np_alarm_stop(&((struct job *)entry->value)->alarm);
}

/* A job under way is dropped: nothing of it was committed, and it is run again after the next start. */
static void free_job(void *value) {
  struct job *job = value;
  np_alarm_stop(&job->alarm);
  if (job->handling) np_task_kill(&job->task, "neap is stopping");
  if (job->ws) np_writeset_unref(job->ws);
  free(job->key);
  free(job->instance);
  free(job);
}

void np_jobs_free(struct np_jobs *j) {
  if (!j) return;
  j->closing = true;
  np_map_free(&j->all, free_job);
  free(j);
}
