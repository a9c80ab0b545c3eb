/* Replays of requests. A request is read from the inbox, parsed as when it came, and run by web.c; the next one after it, in another turn of the loop, so that
 * live traffic goes first, and not while the keeper has no room. */
#include "host/replay.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/calls.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/replay_compare.h"
#include "host/web.h"
#include "host/webreq.h"
#include "io/http_head.h"

#define HEADERS_MAX 1000  /* it was taken in within the bounds that stood then */
#define CALL_REQUESTS 200 /* of one call: then, or after so long, or with so much to tell, what has been done is told */
#define CALL_US 300000    /* us */
#define CALL_BYTES ((size_t)64 << 10)
#define BUSY_US 20000 /* us until the keeper is looked at again */

const char *const np_requests_readings[NP_READINGS_KINDS] = {"new", "same", "different", "missing", "too_old"};

struct run {
  struct np_replay replay; /* first: its callback finds its way back by it */
  struct np_replays *all;
  struct run *next, **prev;
  struct np_call *call;     /* owned */
  struct np_requests *q;    /* borrowed from the call */
  int64_t end;              /* us: when the call is to be answered */
  int requests;             /* of this call */
  struct event *again;      /* owned */
  struct np_http_head head; /* of the request under way */
  struct np_webreq_kept kept;
  char *remote;               /* owned */
  char was[16];               /* its outcome before */
  bool taken;                 /* it is one of those that are asked for */
  struct np_compare *compare; /* owned: of a dry one that has been run */
  struct np_buf line;         /* what is told of it */
  struct np_error err;
};

struct np_replays {
  struct np_lane *lane; /* borrowed */
  struct run *first;    /* owned */
};

static void drop_request(struct run *r) {
  np_http_head_free(&r->head);
  r->head = (struct np_http_head){0};
  np_webreq_kept_free(&r->kept);
  free(r->remote);
  r->remote = NULL;
}

static void free_run(struct run *r) {
  np_web_replay_stop(&r->replay);
  drop_request(r);
  np_compare_free(r->compare);
  np_buf_free(&r->line);
  *r->prev = r->next;
  if (r->next) r->next->prev = r->prev;
  event_free(r->again);
  free(r);
}

static void answer(struct run *r) {
  struct np_call *call = r->call;
  free_run(r);
  np_call_answer(call);
}

/* After what has been told. */
static void give_up(struct run *r, const char *why) {
  struct np_buf *b = &r->call->answer;
  char *masked = np_mask_text(why, strlen(why));
  r->call->failed = true;
  np_buf_adds(b, "{\"error\":");
  np_buf_add_json(b, masked, strlen(masked));
  np_buf_adds(b, "}\n");
  free(masked);
  answer(r);
}

static void soon(struct run *r, int64_t us) {
  const struct timeval then = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
  event_add(r->again, &then);
}

/* Telling what became of one. */

static void begin_line(struct run *r, const char *outcome, const char *why) {
  np_buf_clear(&r->line);
  np_buf_addf(&r->line, "{\"request\":%lld,\"was\":\"%s\",\"outcome\":\"%s\"", (long long)r->replay.id, r->was, outcome);
  if (r->replay.status) np_buf_addf(&r->line, ",\"status\":%d", r->replay.status);
  if (!why) return;
  char *masked = np_mask_text(why, strlen(why));
  np_buf_adds(&r->line, ",\"why\":");
  np_buf_add_json(&r->line, masked, strlen(masked));
  free(masked);
}

static void end_line(struct run *r) {
  np_buf_adds(&r->line, "}\n");
  np_buf_add(&r->call->answer, r->line.data, r->line.len);
  r->q->after = r->replay.id;
  r->q->due = np_mono_us() + r->q->pause;
  r->requests++;
  soon(r, 0);
}

static void tell_readings(struct run *r) {
  int64_t fresh = (int64_t)r->replay.fresh, same = (int64_t)r->replay.readings - fresh;
  np_buf_addf(&r->line, ",\"readings\":{\"new\":%lld,\"same\":%lld}", (long long)fresh, (long long)same);
  r->q->readings[NP_READINGS_NEW] += fresh;
  r->q->readings[NP_READINGS_SAME] += same;
}

static void go_on_comparing(struct run *r) {
  int more = np_compare_step(r->compare, &r->err);
  if (more < 0) {
    give_up(r, r->err.text);
  } else if (more) {
    soon(r, 0);
  } else {
    np_compare_tell(r->compare, &r->line, r->q->readings);
    np_compare_free(r->compare);
    r->compare = NULL;
    end_line(r);
  }
}

static void over(struct np_replay *replay, const char *outcome, const char *error) {
  struct run *r = (struct run *)replay;
  bool done = strcmp(outcome, "done") == 0, refused = strcmp(outcome, "refused") == 0, failed = strcmp(outcome, "failed") == 0;
  drop_request(r);
  if (strcmp(outcome, "busy") == 0) {
    soon(r, BUSY_US); /* the same one */
    return;
  }
  if (strcmp(outcome, "unstored") == 0) {
    char why[400];
    snprintf(why, sizeof why, "request %lld cannot be stored: %s", (long long)replay->id, error ? error : "the store could not");
    give_up(r, why);
    return;
  }
  r->q->done += done, r->q->refused += refused, r->q->failures += failed, r->q->gone += !done && !refused && !failed;
  begin_line(r, outcome,
             done      ? NULL
             : error   ? error
             : refused ? "its plugin refuses it"
             : failed  ? "its plugin failed on it"
                       : "it is no longer kept, or was run again meanwhile");
  if (!done && !refused) {
    end_line(r);
  } else if (!r->q->dry) {
    tell_readings(r);
    end_line(r);
  } else {
    r->compare = np_compare_new(r->all->lane->reader, replay->id, (struct np_writeset *)replay->set, &r->err);
    if (r->compare)
      soon(r, 0);
    else
      give_up(r, r->err.text);
  }
}

/* The head as it came, so that the one parser reads it; what said how long the body was on the wire is not asked again. */
static int read_head(struct run *r, const struct np_op *op) {
  struct np_buf b = {0};
  const char *why = NULL;
  np_buf_addf(&b, "%s %s HTTP/1.1\r\n", op->as.request.method.ptr, r->kept.target);
  for (const char *line = r->kept.headers; *line;) {
    size_t n = strcspn(line, "\n");
    np_buf_add(&b, line, n);
    np_buf_adds(&b, "\r\n");
    line += n + (line[n] == '\n');
  }
  np_buf_adds(&b, "\r\n");
  int status = np_http_head_read(&r->head, b.data, b.len, HEADERS_MAX, &why);
  np_buf_free(&b);
  return status ? np_fail(&r->err, "its head cannot be read: %s", why ? why : "it is malformed") : 0;
}

static void take_request(void *arg, int64_t id, const struct np_op *op) {
  struct run *r = arg;
  (void)id;
  snprintf(r->was, sizeof r->was, "%s", op->as.request.outcome.ptr);
  r->replay.runs = op->as.request.runs;
  r->replay.quiet = !r->q->rules && strcmp(r->was, "failed") != 0;
  r->taken = !r->q->failed || strcmp(r->was, "failed") == 0;
  if (!r->taken || np_webreq_open(&r->kept, r->all->lane->host->seal, op, &r->err) < 0 || read_head(r, op) < 0) return;
  r->remote = np_strdup(op->as.request.remote.ptr ? op->as.request.remote.ptr : "");
  r->replay.req = (struct np_request){.method = r->head.method,
                                      .target = r->head.target,
                                      .path = r->head.path,
                                      .path_len = r->head.path_len,
                                      .query = r->head.query,
                                      .headers = r->head.headers,
                                      .header_count = r->head.header_count,
                                      .body = r->kept.body,
                                      .body_len = r->kept.body_len,
                                      .remote = r->remote,
                                      .received = op->as.request.received};
}

static void run_one(struct run *r, int64_t id) {
  struct np_lane *lane = r->all->lane;
  struct np_replay *replay = &r->replay;
  *replay = (struct np_replay){.id = id, .connection = r->call->connection, .dry = r->q->dry, .over = over};
  r->err.text[0] = 0;
  snprintf(r->was, sizeof r->was, "gone");
  int found = np_reader_request(lane->reader, id, take_request, r, &r->err);
  bool ready = found == 1 && r->taken && !r->err.text[0];
  if (ready && np_web_replay(lane, replay) == 0) return;
  if (found < 0)
    give_up(r, r->err.text);
  else if (found == 0 || !r->taken)
    over(replay, "gone", NULL);
  else
    over(replay, "failed", ready ? "no route of the plugin in force takes it" : r->err.text);
}

/* The next one, or the end of this call, or of all. */
static void go_on(struct run *r) {
  struct np_lane *lane = r->all->lane;
  struct np_requests *q = r->q;
  struct np_request_filter f = {r->call->connection, q->failed, q->after, q->upto, q->from, q->to};
  if (!q->begun && np_reader_request_bounds(lane->reader, &f, &r->err) < 0) {
    give_up(r, r->err.text);
    return;
  }
  q->begun = true;
  q->upto = f.upto;
  bool enough = r->requests >= CALL_REQUESTS || r->call->answer.len >= CALL_BYTES || np_mono_us() >= r->end;
  int found = enough && r->requests ? 0 : np_reader_next_request(lane->reader, &f, &r->err);
  if (found < 0) {
    give_up(r, r->err.text);
  } else if (found) {
    run_one(r, f.after);
  } else if (enough && r->requests) {
    answer(r);
  } else {
    q->after = f.after;
    q->over = q->after >= q->upto;
    if (q->over)
      answer(r);
    else
      soon(r, 0);
  }
}

static void on_again(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct run *r = arg;
  struct np_lane *lane = r->all->lane;
  if (r->compare) {
    go_on_comparing(r);
    return;
  }
  np_lane_sync(lane);
  const struct np_instance *in = np_lane_instance(lane, np_epoch_slot(lane->epoch, r->call->connection));
  int64_t wait = r->q->due - np_mono_us();
  if (lane->draining)
    give_up(r, "neap is stopping");
  else if (in && np_quarantine_holds(in)) /* one of the requests may be why */
    give_up(r, "it has been quarantined; the rest stays as it is");
  else if (!in)
    give_up(r, "it is no longer in force; the rest stays as it is");
  else if (np_keeper_full(lane->host->keeper))
    soon(r, BUSY_US);
  else if (wait <= 0)
    go_on(r);
  else if (r->requests && wait > BUSY_US) /* what it has come to is told before it */
    answer(r);
  else
    soon(r, wait < CALL_US ? wait : CALL_US);
}

void np_replays_take(struct np_replays *all, struct np_call *call) {
  struct run *r = np_alloc(sizeof *r);
  *r = (struct run){
      .all = all, .call = call, .q = call->requests, .end = np_mono_us() + CALL_US, .next = all->first, .prev = &all->first};
  if (r->next) r->next->prev = &r->next;
  all->first = r;
  r->again = evtimer_new(all->lane->base, on_again, r);
  if (!r->again) abort(); /* out of memory */
  soon(r, 0);
}

struct np_replays *np_replays_new(struct np_lane *lane) {
  struct np_replays *all = np_alloc(sizeof *all);
  all->lane = lane;
  return all;
}

void np_replays_free(struct np_replays *all) {
  if (!all) return;
  while (all->first) {
    np_call_free(all->first->call); /* NOLINT(clang-analyzer-unix.Malloc): free_run has unlinked the one before */
    free_run(all->first);
  }
  free(all);
}
