/* Replays of rules: asked for, followed until they have ended, listed, shown, stopped and resumed. Whoever follows one looks at its row now and then: the
 * replay does not know of it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"
#include "host/replay_jobs.h"

#define LOOK_MS 200
#define ROWS_MOST 100000
#define RATE_MOST 1000000

enum action { SEND, LIST, SHOW, STOP, RESUME, ACTIONS };
static const char *const actions[ACTIONS] = {"send", "list", "show", "stop", "resume"};

struct np_talk_replays {
  enum action action;
  int64_t first, last; /* numbers of those that it is about, and */
  int64_t now;         /* the one that is followed */
  int64_t version;     /* of its row, as it was told last */
  int64_t failed;      /* of those that have ended, how many were stopped */
};

void np_talk_replays_free(struct np_talk *t) { free(t->replays); }

/* What is asked */

static int take_text(lua_State *L, int request, const char *name, char **to, struct np_error *err) {
  int type = lua_getfield(L, request, name);
  if (type == LUA_TSTRING) *to = np_strdup(lua_tostring(L, -1));
  lua_pop(L, 1);
  return type == LUA_TSTRING || type == LUA_TNIL ? 0 : np_fail(err, "%s: expected a text", name);
}

static int take_number(lua_State *L, int request, const char *name, int64_t most, int64_t *to, struct np_error *err) {
  int whole = 1;
  if (lua_getfield(L, request, name) != LUA_TNIL) *to = lua_tointegerx(L, -1, &whole);
  lua_pop(L, 1);
  return whole && *to >= 0 && *to <= most ? 0 : np_fail(err, "%s: expected a whole number from 0 to %" PRId64, name, most);
}

static bool is_true(lua_State *L, int request, const char *name) {
  lua_getfield(L, request, name);
  bool yes = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return yes;
}

/* Of one rule: the job that is wanted. */
static int read_job(struct np_talk *t, lua_State *L, int request, struct np_replay_job *j, struct np_error *err) {
  static const char *const names[NP_REPLAY_NAMES] = {"device", "metric", "vendor", "connection"};
  char cause[100];
  *j = (struct np_replay_job){.rate = 20, .period = 1000, .again = is_true(L, request, "again")};
  for (int i = 0; i < NP_REPLAY_NAMES; i++)
    if (take_text(L, request, names[i], &j->names[i], err) < 0) return -1;
  if (take_number(L, request, "since", INT64_MAX, &j->from, err) < 0 ||
      take_number(L, request, "until", INT64_MAX, &j->to, err) < 0 ||
      take_number(L, request, "rate", RATE_MOST, &j->rate, err) < 0 ||
      take_number(L, request, "period", 3600000, &j->period, err) < 0)
    return -1;
  if (!j->rate || !j->period) return np_fail(err, "rate: expected so many within so many ms, both at least 1");
  np_talk_cause(t, "neap replay", cause, sizeof cause);
  j->by = np_strdup(cause);
  return 0;
}

static int start_one(struct np_talk *t, lua_State *L, int request, const char *rule, struct np_error *err) {
  struct np_talk_replays *q = t->replays;
  struct np_replay_job j;
  if (read_job(t, L, request, &j, err) < 0) {
    np_replay_job_clear(&j);
    return -1;
  }
  j.rule = np_strdup(rule);
  int64_t number = np_replay_jobs_start(t->host->replay_jobs, &j, err);
  if (number < 0) return -1;
  if (!q->first) q->first = q->now = number;
  q->last = number;
  return 0;
}

/* Every rule in force; those in quarantine and those that are not in force are named in an error before any is begun. */
static int start_all(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  const struct np_deploy *d = t->host->deploy;
  bool any = false;
  for (int begin = 0; begin < 2; begin++)
    for (size_t i = 0; i < np_deploy_count(d); i++) {
      struct np_status s = np_deploy_status(d, i);
      if (s.kind != NP_RULE || strcmp(s.state, "unconfigured") == 0) continue;
      any = true;
      if (!s.code || strcmp(s.state, "quarantined") == 0)
        return np_fail(err, "%s is %s: begin the others one by one, by --rule", s.instance, s.state);
      if (begin && start_one(t, L, request, s.instance, err) < 0) return -1;
    }
  return any ? 0 : np_fail(err, "there are no rules");
}

static int begin_send(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  char *rule = NULL;
  int status = take_text(L, request, "rule", &rule, err);
  if (status == 0 && !rule && !is_true(L, request, "all")) status = np_fail(err, "which rule? Name one, or all");
  if (status == 0) status = rule ? start_one(t, L, request, rule, err) : start_all(t, L, request, err);
  free(rule);
  return status;
}

int np_talk_replays_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  struct np_talk_replays *q = t->replays = np_alloc(sizeof *q);
  char cause[100], *action = NULL;
  int which = 0;
  luaL_checkstack(L, 8, NULL);
  if (take_text(L, request, "action", &action, err) < 0) return -1;
  while (which < ACTIONS && (!action || strcmp(actions[which], action) != 0)) which++;
  free(action);
  if (which == ACTIONS) return np_fail(err, "action: expected send, list, show, stop or resume");
  q->action = (enum action)which;
  if (q->action == SEND) return begin_send(t, L, request, err);
  if (take_number(L, request, "replay", INT64_MAX, &q->first, err) < 0) return -1;
  q->now = q->last = q->first;
  if (q->action == LIST) return 0;
  if (!q->first) return np_fail(err, "which replay? neap replay list lists them");
  np_talk_cause(t, "neap replay stop", cause, sizeof cause);
  return q->action == STOP     ? np_replay_jobs_stop(t->host->replay_jobs, q->first, cause, err)
         : q->action == RESUME ? np_replay_jobs_resume(t->host->replay_jobs, q->first, err)
                               : 0;
}

/* What is told */

static void add_job(struct np_talk *t, struct np_replay_job *j) {
  int64_t pending = np_reader_replay_pending(t->host->reader, j->number);
  bool runs = np_replay_jobs_runs(t->host->replay_jobs, j->number);
  if (j->state == NP_REPLAY_WAITING && runs) j->state = NP_REPLAY_RUNNING;
  np_buf_addc(&t->out, '{');
  np_replay_job_add(j, &t->out);
  if (pending > 0) np_buf_addf(&t->out, ",\"pending\":%" PRId64, pending);
  np_buf_adds(&t->out, "}\n");
}

static bool add_row(void *arg, struct np_text key, struct np_text value, int64_t version) {
  struct np_talk *t = arg;
  struct np_replay_job j;
  struct np_error err;
  (void)key, (void)version;
  if (np_replay_job_read(&j, value.ptr, value.len, &err) < 0) {
    np_line_error(&t->out, err.text);
    return true;
  }
  np_buf_addc(&t->out, '{');
  np_replay_job_add(&j, &t->out);
  np_buf_adds(&t->out, "}\n");
  np_replay_job_clear(&j);
  t->count++;
  return true;
}

static void list(struct np_talk *t) {
  struct np_error err;
  if (np_reader_keys(t->host->reader, NP_REPLAY_SPACE, "0", NULL, np_now_ms(), ROWS_MOST, add_row, t, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_addf(&t->out, "{\"summary\":{\"replays\":%" PRId64 "}}\n", t->count);
  np_talk_end(t);
}

/* The next row of those that are followed, where it has changed. False: there is nothing new yet. */
static bool tell_next(struct np_talk *t, struct np_error *err) {
  struct np_talk_replays *q = t->replays;
  struct np_replay_job j;
  int64_t version;
  int found = np_replay_job_load(t->host->reader, q->now, &j, &version, err);
  if (found == 0) np_fail(err, "there is no replay %" PRId64 ": neap replay list lists them", q->now);
  if (found != 1) {
    np_talk_fail(t, err->text);
    return false;
  }
  bool ended = j.state == NP_REPLAY_DONE || j.state == NP_REPLAY_STOPPED, news = version != q->version;
  if (news) add_job(t, &j);
  q->version = version;
  if (ended || q->action == SHOW) {
    q->failed += j.state == NP_REPLAY_STOPPED && q->action != STOP && q->action != SHOW;
    q->now++;
    q->version = 0;
  }
  np_replay_job_clear(&j);
  return news;
}

static void follow(struct np_talk *t) {
  struct np_talk_replays *q = t->replays;
  struct np_error err;
  bool any = false;
  if (np_talk_full(t)) return;
  while (t->state == NP_TALK_LISTING && q->now <= q->last && tell_next(t, &err)) any = true;
  if (t->state != NP_TALK_LISTING) return;
  if (q->now > q->last) {
    np_buf_addf(&t->out, "{\"summary\":{\"replays\":%" PRId64 ",\"failed\":%" PRId64 "}}\n", q->last - q->first + 1, q->failed);
    np_talk_end(t);
    return;
  }
  if (any) np_talk_send(t);
  np_talk_again(t, LOOK_MS);
}

void np_talk_replays(struct np_talk *t) {
  if (t->replays->action == LIST)
    list(t);
  else
    np_talk_list(t, follow);
}
