/* Replays: which there are, whose turn it is, and their thread. */
#include "host/replay_jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <lauxlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/canonical.h"
#include "host/gate_parts.h"
#include "host/replay_run.h"
#include "host/worker.h"

#define NUMBER_KEY "number" /* the last one given out: none is given out twice */
#define ROWS_MOST 100000
#define AGAIN_S 5 /* until one whose end could not be written down has another turn */

struct np_replay_jobs {
  struct np_host *host;     /* borrowed */
  struct np_worker *worker; /* owned: of runs */
  struct event *turn;       /* owned */
  uint64_t epoch;           /* the last that was looked at */
  bool draining;
};

/* The one under way; NULL: none is. */
static struct np_replay_run *under_way(const struct np_replay_jobs *all) {
  return (struct np_replay_run *)np_worker_job(all->worker);
}

/* The rule in force */

/* By its text and its settings; the caller's. */
static void print_of(const struct np_code *code, char print[65]) {
  struct np_buf b = {0};
  lua_State *L = luaL_newstate();
  if (!L) abort(); /* out of memory */
  np_buf_addf(&b, "%s ", code->hash);
  if (code->settings) np_canonical_text(L, code->settings, strlen(code->settings), &b, NULL);
  np_sha256_hex(b.data, b.len, print);
  lua_close(L);
  np_buf_free(&b);
}

/* NULL and err where it cannot be replayed. */
static struct np_unit *find_rule(struct np_replay_jobs *all, const char *rule, struct np_error *err) {
  struct np_unit *u = np_unit_find(all->host->deploy, rule);
  if (!u || (u->code && u->code->kind != NP_RULE)) {
    np_fail(err, u ? "%s is no rule" : "there is no rule \"%s\": neap plugins lists them", rule);
  } else if (!u->code || !u->want) {
    np_fail(err, "%s is not in force%s%s", rule, u->error ? ": " : "", u->error ? u->error : "");
  } else if (atomic_load(&u->code->quarantine.state) == NP_QUARANTINE) {
    np_fail(err, "%s is in quarantine: mend it, or neap release %s", rule, rule);
  } else {
    return u;
  }
  return NULL;
}

static int check_same(const struct np_replay_job *j, const struct np_unit *u, struct np_error *err) {
  char print[65];
  print_of(u->code, print);
  if (u->code->number == j->generation && strcmp(print, j->print) == 0) return 0;
  return np_fail(err, "%s is another since: generation %d is in force, this was generation %d; start a replay anew", j->rule,
                 u->code->number, j->generation);
}

/* Rows */

static int save(struct np_replay_jobs *all, const struct np_replay_job *j, bool is_new, struct np_error *err) {
  struct np_writeset *ws = np_writeset_new();
  np_replay_job_put(j, ws);
  if (is_new) {
    char text[24];
    int n = snprintf(text, sizeof text, "%" PRId64, j->number);
    struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
    op->as.put.space = np_writeset_text(ws, NP_REPLAY_SPACE, strlen(NP_REPLAY_SPACE));
    op->as.put.key = np_writeset_text(ws, NUMBER_KEY, strlen(NUMBER_KEY));
    op->as.put.value = np_writeset_text(ws, text, (size_t)n);
  }
  return np_keeper_apply(all->host->keeper, ws, err) == NP_COMMITTED ? 0 : -1;
}

static int next_number(struct np_replay_jobs *all, int64_t *number, struct np_error *err) {
  struct np_buf value = {0};
  int64_t version;
  int found = np_reader_get(all->host->reader, NP_REPLAY_SPACE, NUMBER_KEY, strlen(NUMBER_KEY), 0, &value, &version, err);
  *number = found == 1 ? strtoll(value.data, NULL, 10) + 1 : 1;
  np_buf_free(&value);
  return found < 0 ? -1 : 0;
}

static void log_job(enum np_log_level level, const char *event, const struct np_replay_job *j, const char *error) {
  char number[24], sent[24], readings[24], already[24];
  snprintf(number, sizeof number, "%" PRId64, j->number);
  snprintf(sent, sizeof sent, "%" PRId64, j->at.sent);
  snprintf(already, sizeof already, "%" PRId64, j->at.already);
  snprintf(readings, sizeof readings, "%" PRId64, j->at.readings);
  np_log(level, event, "replay", number, "plugin", j->rule, "readings", readings, "sent", sent, "sent already", already, "error",
         error, NULL);
}

static void stop_row(struct np_replay_jobs *all, struct np_replay_job *j, const char *why) {
  struct np_error err;
  np_replay_job_stop(j, why);
  log_job(NP_WARN, "a replay stops", j, why);
  if (save(all, j, false, &err) < 0) log_job(NP_ERROR, "that a replay has stopped cannot be written down", j, err.text);
}

/* Whose turn it is */

static bool take_row(void *arg, struct np_text key, struct np_text value, int64_t version) {
  struct np_replay_job *first = arg;
  struct np_error err;
  (void)key, (void)version;
  if (np_replay_job_read(first, value.ptr, value.len, &err) < 0) return true;
  if (first->state == NP_REPLAY_WAITING || first->state == NP_REPLAY_RUNNING) return false;
  np_replay_job_clear(first);
  return true;
}

static int build(struct np_replay_jobs *all, struct np_replay_run *run, struct np_error *err) {
  struct np_host *host = all->host;
  const struct np_keep *kept = &host->config->keep[NP_KEPT_DELIVERED];
  struct np_built built;
  struct np_unit *u = find_rule(all, run->job.rule, err);
  if (!u || check_same(&run->job, u, err) < 0) return -1;
  np_log_hush(true); /* what it says while it is loaded, it has said */
  int status = np_gate_rebuild(host->deploy, u->want, host->reader, u->code, NULL, &built, err);
  np_log_hush(false);
  if (status < 0) return -1;
  run->in = np_gate_take(&built);
  run->in->code->number = run->job.generation;
  run->to = np_gate_epoch(host->deploy);
  run->delivered_age = kept->age;
  run->delivered_size = kept->size > 0;
  return 0;
}

/* False: there is none. */
static bool take_turn(struct np_replay_jobs *all) {
  struct np_error err;
  struct np_replay_job first = {0};
  int status = np_reader_keys(all->host->reader, NP_REPLAY_SPACE, "0", NULL, np_now_ms(), ROWS_MOST, take_row, &first, &err);
  if (status < 0) np_log(NP_ERROR, "the replays cannot be read", "error", err.text, NULL);
  if (status < 0 || !first.number) return false;
  struct np_replay_run *run = np_replay_run_new(all->host);
  run->job = first;
  if (build(all, run, &err) < 0) {
    stop_row(all, &run->job, err.text);
    np_replay_run_free(run);
    return true;
  }
  bool goes_on = run->job.state == NP_REPLAY_RUNNING;
  run->job.state = NP_REPLAY_RUNNING;
  log_job(NP_INFO, goes_on ? "a replay goes on" : "a replay begins", &run->job, NULL);
  if (np_worker_give(all->worker, &run->node)) return true;
  np_log(NP_ERROR, "no thread to be had for replays: they wait", NULL);
  np_replay_run_free(run);
  return false;
}

static void want_turn(struct np_replay_jobs *all, int seconds) {
  const struct timeval then = {seconds, 0};
  event_add(all->turn, &then);
}

static void on_turn(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_replay_jobs *all = arg;
  if (!under_way(all) && !all->draining && take_turn(all)) want_turn(all, 0);
}

static void run(struct np_node *job) { np_replay_run((struct np_replay_run *)job); }

static void drop(struct np_node *job) { np_replay_run_free((struct np_replay_run *)job); }

static void done(void *arg, struct np_node *node) {
  struct np_replay_jobs *all = arg;
  struct np_replay_run *run = (struct np_replay_run *)node;
  struct np_replay_job row = {0};
  struct np_error err;
  if (run->job.state == NP_REPLAY_DONE) log_job(NP_INFO, "a replay is done", &run->job, run->job.error);
  if (run->job.state == NP_REPLAY_STOPPED) log_job(NP_WARN, "a replay stops", &run->job, run->job.why);
  bool ended = np_replay_job_load(all->host->reader, run->job.number, &row, NULL, &err) == 1 && row.ended;
  np_replay_job_clear(&row);
  want_turn(all, ended ? 0 : AGAIN_S);
  np_replay_run_free(run);
}

static const struct np_worker_kind kind = {"neap-replay", run, done, drop};

/* What is asked of them */

int64_t np_replay_jobs_start(struct np_replay_jobs *all, struct np_replay_job *job, struct np_error *err) {
  struct np_unit *u = find_rule(all, job->rule, err);
  int64_t last = u ? np_reader_last_seq(all->host->reader) : -1, number = -1;
  if (u && last < 0) np_fail(err, "the store cannot be read");
  if (last >= 0 && next_number(all, &number, err) < 0) number = -1;
  if (number > 0) {
    job->number = number;
    job->generation = u->code->number;
    print_of(u->code, job->print);
    job->upto = last;
    job->created = np_now_ms();
    job->state = NP_REPLAY_WAITING;
    if (save(all, job, true, err) < 0) number = -1;
  }
  np_replay_job_clear(job);
  if (number > 0) want_turn(all, 0);
  return number;
}

bool np_replay_jobs_runs(const struct np_replay_jobs *all, int64_t number) {
  return under_way(all) && under_way(all)->job.number == number;
}

static int load(struct np_replay_jobs *all, int64_t number, struct np_replay_job *j, int64_t *version, struct np_error *err) {
  int found = np_replay_job_load(all->host->reader, number, j, version, err);
  if (found == 0) np_fail(err, "there is no replay %" PRId64 ": neap replay list lists them", number);
  return found == 1 ? 0 : -1;
}

/* Where its run has moved the row on meanwhile, that is a conflict. */
static enum np_outcome stop_at(struct np_replay_jobs *all, struct np_replay_job *j, int64_t version, const char *cause,
                               struct np_error *err) {
  struct np_writeset *ws = np_writeset_new();
  np_replay_job_stop(j, cause);
  np_replay_job_see(j->number, version, ws);
  np_replay_job_put(j, ws);
  return np_keeper_apply(all->host->keeper, ws, err);
}

/* First it is on disk that it has stopped: from then on its run commits nothing, whenever it learns of that. */
int np_replay_jobs_stop(struct np_replay_jobs *all, int64_t number, const char *cause, struct np_error *err) {
  enum np_outcome outcome = NP_CONFLICT;
  while (outcome == NP_CONFLICT) {
    struct np_replay_job j;
    struct np_error why;
    int64_t version;
    if (load(all, number, &j, &version, err) < 0) return -1;
    bool ended = j.state == NP_REPLAY_DONE || j.state == NP_REPLAY_STOPPED;
    outcome = ended ? NP_FAILED : stop_at(all, &j, version, cause, &why);
    if (outcome == NP_COMMITTED) log_job(NP_WARN, "a replay stops", &j, cause);
    if (outcome == NP_FAILED && ended) np_fail(err, "replay %" PRId64 " has ended already", number);
    if (outcome == NP_FAILED && !ended) np_fail(err, "replay %" PRId64 " is not stopped: %s", number, why.text);
    np_replay_job_clear(&j);
  }
  if (outcome == NP_COMMITTED && np_replay_jobs_runs(all, number)) np_replay_run_stop(under_way(all), NULL);
  return outcome == NP_COMMITTED ? 0 : -1;
}

int np_replay_jobs_resume(struct np_replay_jobs *all, int64_t number, struct np_error *err) {
  struct np_replay_job j;
  if (load(all, number, &j, NULL, err) < 0) return -1;
  struct np_unit *u = j.state == NP_REPLAY_STOPPED ? find_rule(all, j.rule, err) : NULL;
  int status = -1;
  if (j.state != NP_REPLAY_STOPPED)
    np_fail(err, "replay %" PRId64 " is not stopped", number);
  else if (np_replay_jobs_runs(all, number)) /* its row says so already */
    np_fail(err, "replay %" PRId64 " is only just stopping: try again", number);
  else if (u)
    status = check_same(&j, u, err);
  if (status == 0) {
    free(j.why);
    j.why = NULL;
    j.ended = 0;
    j.state = NP_REPLAY_WAITING;
    status = save(all, &j, false, err);
  }
  np_replay_job_clear(&j);
  if (status == 0) want_turn(all, 0);
  return status;
}

void np_replay_jobs_look(struct np_replay_jobs *all) {
  uint64_t now = all ? atomic_load_explicit(&all->host->epoch, memory_order_acquire) : 0;
  struct np_error err;
  if (!all || now == all->epoch) return;
  all->epoch = now;
  struct np_replay_run *run = under_way(all);
  if (!run) return;
  const struct np_unit *u = np_unit_find(all->host->deploy, run->job.rule);
  if (!u || !u->code)
    np_replay_run_stop(run, "its rule is no longer in force");
  else if (check_same(&run->job, u, &err) < 0)
    np_replay_run_stop(run, err.text);
}

/* From beginning to end */

struct np_replay_jobs *np_replay_jobs_new(struct np_host *host, struct np_error *err) {
  struct np_replay_jobs *all = np_alloc(sizeof *all);
  all->host = host;
  all->worker = np_worker_new(host->base, &kind, all, err);
  if (!all->worker) {
    free(all);
    return NULL;
  }
  all->turn = evtimer_new(host->base, on_turn, all);
  if (!all->turn) abort(); /* out of memory */
  want_turn(all, 0);
  return all;
}

void np_replay_jobs_drain(struct np_replay_jobs *all) {
  if (!all) return;
  all->draining = true;
  if (under_way(all)) np_replay_run_stop(under_way(all), NULL);
}

void np_replay_jobs_free(struct np_replay_jobs *all) {
  if (!all) return;
  np_replay_jobs_drain(all);
  np_worker_free(all->worker);
  event_free(all->turn);
  free(all);
}
