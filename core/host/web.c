/* Requests. The order of events is the second law: handler, write set, commit, and only then the answer. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/state.h"
#include "host/web_parts.h"

#define TRIES 100         /* of a handler whose reads were overtaken by another commit: as many may want one key at once */
#define REQUESTS_MAX 4096 /* under way on one lane */
#define BYTES_MAX ((size_t)256 << 20) /* of their bodies */

static void start_handler(struct np_web_call *w);
static void run_again(void *arg);
static void refuse(struct np_web_call *w, int status, const char *kind, const char *where, const char *reason);
static void word_refusal(struct np_web_call *w);

static void drop_answer(struct np_web_call *w) {
  if (w->answer.stream_ref) luaL_unref(w->in->L, LUA_REGISTRYINDEX, w->answer.stream_ref);
  np_answer_free(&w->answer);
}

static void reply_busy(struct np_lane *lane, struct np_request *req) {
  static const struct np_header again = {"Retry-After", "1"};
  atomic_fetch_add_explicit(&lane->refused, 1, memory_order_relaxed);
  np_answer_plain(req, 503, "busy: try again in a second", &again, 1);
}

/* The head is here: which plugin is it for, and is there room? */
static void on_head(void *arg, struct np_request *req) {
  struct np_lane *lane = arg;
  np_lane_sync(lane);
  struct np_route_match m;
  np_routes_match(lane->epoch->routes, req->method, req->path, req->path_len, &m);
  if (!m.value) {
    struct np_header allow = {"Allow", m.allow};
    if (!m.allow[0])
      np_answer_plain(req, 404, "not found: no plugin serves this path", NULL, 0);
    else if (strcmp(req->method, "OPTIONS") == 0)
      np_request_reply(req, 204, &allow, 1, NULL, 0);
    else
      np_answer_plain(req, 405, "this path does not take this method", &allow, 1);
    return;
  }
  if (lane->requests >= REQUESTS_MAX || np_keeper_full(lane->host->keeper)) {
    reply_busy(lane, req);
    return;
  }
  const struct np_route *route = m.value;
  const struct np_slot *slot = np_epoch_slot(lane->epoch, route->code->instance);
  struct np_web_call *w = np_alloc(sizeof *w);
  *w = (struct np_web_call){
      .lane = lane, .req = req, .epoch = lane->epoch, .route = route, .match = m, .in = np_lane_instance(lane, slot)};
  w->later = (struct np_alarm){.lane = lane, .fn = run_again, .arg = w};
  np_epoch_ref(w->epoch);
  np_lane_pin(lane, w->in);
  lane->requests++;
  req->user = w;
  if (route->body_max) req->body_max = route->body_max;
}

static void end(struct np_web_call *w) {
  struct np_lane *lane = w->lane;
  lane->requests--;
  lane->request_bytes -= w->bytes;
  w->over = true;
  np_alarm_stop(&w->later);
  if (w->task.waiting) np_task_kill(&w->task, "neap has stopped");
  if (w->stream) np_answer_stop(w->stream);
  drop_answer(w);
  np_overlay_free(&w->overlay);
  if (w->ws) np_writeset_unref(w->ws);
  free(w->error);
  np_epoch_unref(w->epoch);
  np_lane_unpin(lane, w->in);
  free(w);
}

static void on_done(void *arg, struct np_request *req) {
  struct np_web_call *w = req->user;
  (void)arg;
  if (!w) return;
  req->user = NULL;
  end(w);
}

static void end_replay(struct np_web_call *w, const char *outcome) {
  struct np_replay *r = w->replay;
  struct np_writeset *set = w->ws;
  char *error = w->error;
  r->web = NULL;
  r->status = w->answer.status;
  r->set = set;
  w->error = NULL;
  w->ws = NULL;
  end(w);
  r->over(r, outcome, error);
  free(error);
  if (set) np_writeset_unref(set);
}

static void quieten(struct np_writeset *ws) {
  for (struct np_op *op = ws->first; op; op = op->next)
    if (op->kind == NP_OP_READING) op->as.reading.quiet = true;
}

static void count_readings(struct np_replay *r, const struct np_writeset *ws) {
  r->readings = 0;
  r->fresh = ws->fresh;
  for (const struct np_op *op = ws->first; op; op = op->next) r->readings += op->kind == NP_OP_READING;
}

void np_web_begin_set(struct np_web_call *w) {
  if (w->ws) np_writeset_unref(w->ws);
  w->ws = np_writeset_new();
  np_overlay_free(&w->overlay);
  if (w->replay) {
    w->replayed = np_writeset_add(w->ws, NP_OP_REPLAYED);
    w->replayed->as.replayed.id = w->replay->id;
    w->replayed->as.replayed.runs = w->replay->runs;
    return;
  }
  w->kept = w->route->keep ? np_webreq_keep(w->ws, w->req, w->route, w->lane->host->seal) : NULL;
}

static void send_answer(struct np_web_call *w) {
  struct np_lane *lane = w->lane;
  if (w->replay) {
    end_replay(w, w->outcome);
    return;
  }
  atomic_long *counter = strcmp(w->outcome, "done") == 0      ? &lane->served
                         : strcmp(w->outcome, "refused") == 0 ? &lane->refused
                                                              : &lane->failed;
  atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
  if (w->answer.stream_ref)
    np_answer_stream(&w->answer, w->req, w->in, &w->stream);
  else
    np_answer_send(&w->answer, w->req);
}

/* What its plugin keeps was migrated since it began: it runs again by the generation that is in force. */
static void move_on(struct np_web_call *w) {
  struct np_instance *in = np_state_successor(w->lane, w->in);
  struct np_route_match m;
  if (in == w->in) return;
  np_routes_match(w->lane->epoch->routes, w->req->method, w->req->path, w->req->path_len, &m);
  if (!m.value || ((struct np_route *)m.value)->code != in->code) return; /* it has no such route any more: the request fails */
  drop_answer(w);
  np_lane_pin(w->lane, in);
  np_lane_unpin(w->lane, w->in);
  np_epoch_ref(w->lane->epoch);
  np_epoch_unref(w->epoch);
  w->epoch = w->lane->epoch;
  w->in = in, w->route = m.value, w->match = m;
}

static void run_again(void *arg) {
  struct np_web_call *w = arg;
  if (np_state_is_migrating(w->lane))
    np_alarm_set(&w->later, NP_STATE_WAIT);
  else
    move_on(w), start_handler(w);
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  static const char overtaken[] = "others kept changing what this request reads";
  struct np_web_call *w = (struct np_web_call *)waiter;
  enum np_outcome outcome = ws->outcome;
  char why[256];
  memcpy(why, ws->error, sizeof why);
  if (w->replay) count_readings(w->replay, ws);
  np_writeset_unref(ws);
  if (outcome == NP_COMMITTED) {
    send_answer(w);
  } else if (w->replay && outcome == NP_CONFLICT &&
             np_reader_request_run_count(w->lane->reader, w->replay->id) != w->replay->runs) {
    end_replay(w, "gone");
  } else if (outcome == NP_CONFLICT && (np_state_is_migrating(w->lane) || ++w->tries < TRIES)) {
    run_again(w);
  } else if (w->replay) {
    free(w->error);
    w->error = np_strdup(outcome == NP_CONFLICT ? overtaken : why);
    end_replay(w, "unstored");
  } else {
    w->outcome = "failed";
    w->ws = NULL;
    refuse(w, 503, "store", "store", outcome == NP_CONFLICT ? overtaken : why);
  }
}

/* The set is complete: fills in what became of the request, and hands it to the keeper. */
static void commit(struct np_web_call *w) {
  if (w->kept) {
    w->kept->as.request.status = w->answer.status;
    w->kept->as.request.outcome = np_writeset_text(w->ws, w->outcome, strlen(w->outcome));
    if (w->error) w->kept->as.request.error = np_writeset_text(w->ws, w->error, strlen(w->error));
  }
  if (w->replay) {
    w->replayed->as.replayed.at = np_now_ms();
    w->replayed->as.replayed.generation = w->in->code->number;
    w->replayed->as.replayed.status = w->answer.status;
    w->replayed->as.replayed.outcome = np_writeset_text(w->ws, w->outcome, strlen(w->outcome));
    if (w->error) w->replayed->as.replayed.error = np_writeset_text(w->ws, w->error, strlen(w->error));
  }
  if (w->replay && w->replay->dry) {
    count_readings(w->replay, w->ws);
    end_replay(w, w->outcome);
    return;
  }
  struct np_writeset *ws = w->ws;
  if (w->replay && w->replay->quiet) quieten(ws);
  w->ws = NULL;
  np_overlay_free(&w->overlay);
  if (!ws->first) { /* it read, and wrote nothing */
    np_writeset_unref(ws);
    send_answer(w);
    return;
  }
  w->waiter.answered = answered;
  if (np_lane_submit(w->lane, ws, &w->waiter, false) == 0) return;
  np_writeset_unref(ws);
  if (w->replay)
    end_replay(w, "busy");
  else
    reply_busy(w->lane, w->req);
}

static void after_refusal(struct np_task *t) {
  struct np_web_call *w = t->owner;
  if (w->over) return;
  if (t->failed) {
    np_log(NP_ERROR, "plugin:refuse raised", "plugin", w->in->code->instance, "error", t->error, NULL);
    np_answer_problem(&w->answer, &w->refusal);
  }
  if (w->answer.stream_ref) { /* a refusal is short */
    drop_answer(w);
    np_answer_problem(&w->answer, &w->refusal);
  }
  if (w->refusal.status == 503) np_answer_header(&w->answer, "Retry-After", "5");
  if (w->ws)
    commit(w);
  else
    send_answer(w);
}

static void refuse(struct np_web_call *w, int status, const char *kind, const char *where, const char *reason) {
  np_refusal_set(&w->refusal, status, kind, where);
  snprintf(w->refusal.reason, sizeof w->refusal.reason, "%s", reason);
  word_refusal(w);
}

/* Words a refusal as the plugin does, or in neap's own way, and commits what w->ws holds, if anything. */
static void word_refusal(struct np_web_call *w) {
  int status = w->refusal.status;
  drop_answer(w);
  if (!w->in->code->refuse || (np_quarantine_holds(w->in) && w->in->code->quarantine.mute)) {
    np_answer_problem(&w->answer, &w->refusal);
    if (status == 503) np_answer_header(&w->answer, "Retry-After", "5");
    if (w->ws)
      commit(w);
    else
      send_answer(w);
    return;
  }
  w->task = (struct np_task){.in = w->in,
                             .mode = NP_REFUSING,
                             .handler = w->in->code->refuse,
                             .push = np_web_push_refusal,
                             .take = np_web_take,
                             .ended = after_refusal,
                             .owner = w};
  np_task_start(&w->task);
}

static void log_failure(const struct np_web_call *w, const struct np_task *t) {
  char generation[16];
  snprintf(generation, sizeof generation, "%d", w->in->code->number);
  np_log(NP_ERROR, "a request's handler failed; the request is kept as failed", "plugin", w->in->code->instance, "generation",
         generation, "route", w->route->pattern, "error", t->error, NULL);
}

static void after_handler(struct np_task *t) {
  struct np_web_call *w = t->owner;
  if (w->over) return;
  if ((t->failed || w->declined) && np_state_excuses(w->lane, w->in, &w->overlay)) {
    run_again(w);
    return;
  }
  if (t->failed) {
    log_failure(w, t);
    w->outcome = "failed";
    free(w->error);
    w->error = np_strdup(t->error);
    if (w->replay) {
      end_replay(w, "failed");
      return;
    }
    np_web_begin_set(w); /* without what the handler did */
    refuse(w, 500, "failed", "handler",
           "the plugin failed on this request; it is kept, and can be run again once the plugin is mended");
    return;
  }
  if (w->declined) {
    np_web_note_refusal(w);
    np_web_begin_set(w); /* without what the handler did before */
    word_refusal(w);
    return;
  }
  if (!w->outcome) w->outcome = w->answer.status >= 400 ? "refused" : "done";
  commit(w);
}

static void start_handler(struct np_web_call *w) {
  np_web_begin_set(w);
  drop_answer(w);
  w->outcome = NULL;
  w->declined = w->asking = false;
  w->task = (struct np_task){.in = w->in,
                             .mode = NP_SERVING,
                             .ws = w->ws,
                             .overlay = &w->overlay,
                             .now = w->replay ? w->req->received : 0,
                             .received = w->req->received,
                             .where = w->route->pattern,
                             .again = w->replay != NULL,
                             .dry = w->replay && w->replay->dry,
                             .push = np_web_push,
                             .take = np_web_take,
                             .ended = after_handler,
                             .owner = w};
  np_task_start(&w->task);
}

int np_web_replay(struct np_lane *lane, struct np_replay *r) {
  struct np_route_match m;
  np_routes_match(lane->epoch->routes, r->req.method, r->req.path, r->req.path_len, &m);
  const struct np_route *route = m.value;
  if (!route || strcmp(route->code->instance, r->connection) != 0) return -1;
  struct np_web_call *w = np_alloc(sizeof *w);
  *w = (struct np_web_call){.lane = lane, .req = &r->req, .epoch = lane->epoch, .route = route, .match = m, .replay = r};
  w->later = (struct np_alarm){.lane = lane, .fn = run_again, .arg = w};
  w->in = np_lane_instance(lane, np_epoch_slot(lane->epoch, route->code->instance));
  np_epoch_ref(w->epoch);
  np_lane_pin(lane, w->in);
  lane->requests++;
  r->web = w;
  start_handler(w);
  return 0;
}

void np_web_replay_stop(struct np_replay *r) {
  if (r->web) end(r->web);
  r->web = NULL;
}

/* Its plugin is not called: the request is kept as failed. */
static void keep_from(struct np_web_call *w) {
  w->outcome = "failed";
  w->error = np_quarantine_text(w->in->code);
  np_web_begin_set(w);
  refuse(w, 503, "quarantined", "host", "the plugin is in quarantine: what came is kept, if it was to be, and can be run again");
}

static void on_request(void *arg, struct np_request *req) {
  struct np_lane *lane = arg;
  struct np_web_call *w = req->user;
  if (!w) return;
  if (lane->request_bytes + req->body_len > BYTES_MAX) {
    reply_busy(lane, req);
    return;
  }
  w->bytes = req->body_len;
  lane->request_bytes += w->bytes;
  (np_quarantine_holds(w->in) ? keep_from : start_handler)(w);
}

static void on_refused(void *arg, struct np_request *req, int status, const char *why) {
  struct np_web_call *w = req->user;
  (void)arg;
  if (!w) {
    np_answer_plain(req, status, why, NULL, 0);
    return;
  }
  w->outcome = "refused";
  refuse(w, status, status == 413 ? "length" : "encoding", "body", why);
}

const struct np_server_handler np_web = {.head = on_head, .request = on_request, .refused = on_refused, .done = on_done};
