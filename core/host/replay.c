/* Replays. A request is read from the inbox, parsed as when it came, and run by web.c; the next one after it, in another turn of the loop, so that
 * live traffic goes first. */
#include "host/replay.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/log.h"
#include "host/calls.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/web.h"
#include "host/webreq.h"
#include "io/http_head.h"

#define HEADERS_MAX 1000 /* it was taken in within the bounds that stood then */
#define SHOWN_MAX 20     /* failures that are told one by one */

struct run {
  struct np_replay replay; /* first: its callback finds its way back by it */
  struct np_replays *all;
  struct run *next, **prev;
  struct np_call *call; /* owned */
  int64_t after;        /* id of the last one dealt with */
  int64_t done, refused, failed;
  struct event *again;      /* owned */
  struct np_http_head head; /* of the request under way */
  struct np_webreq_kept kept;
  char *remote; /* owned */
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
  *r->prev = r->next;
  if (r->next) r->next->prev = r->prev;
  event_free(r->again);
  free(r);
}

static void finish(struct run *r) {
  struct np_call *call = r->call;
  np_buf_addf(&call->answer, "{\"summary\":{\"done\":%lld,\"refused\":%lld,\"failed\":%lld}}\n", (long long)r->done,
              (long long)r->refused, (long long)r->failed);
  char done[24], failed[24];
  snprintf(done, sizeof done, "%lld", (long long)r->done);
  snprintf(failed, sizeof failed, "%lld", (long long)(r->failed + r->refused));
  np_log(NP_INFO, "failed requests were run again", "plugin", call->connection, "done", done, "still not done", failed, NULL);
  free_run(r);
  np_call_answer(call);
}

static void soon(struct run *r) {
  static const struct timeval now = {0};
  event_add(r->again, &now);
}

static void tell(struct run *r, const char *outcome, const char *why) {
  struct np_buf *b = &r->call->answer;
  if (r->failed + r->refused > SHOWN_MAX) return;
  np_buf_addf(b, "{\"request\":%lld,\"outcome\":\"%s\",\"why\":", (long long)r->replay.id, outcome);
  np_buf_add_json(b, why, strlen(why));
  np_buf_adds(b, "}\n");
}

static void over(struct np_replay *replay, const char *outcome, const char *error) {
  struct run *r = (struct run *)replay;
  drop_request(r);
  if (strcmp(outcome, "done") == 0) {
    r->done++;
  } else if (strcmp(outcome, "refused") == 0) {
    r->refused++;
    tell(r, outcome, error ? error : "its plugin refuses it");
  } else if (strcmp(outcome, "failed") == 0) {
    r->failed++;
    tell(r, outcome, error ? error : "it could not be stored");
  }
  soon(r);
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
  if (np_webreq_open(&r->kept, r->all->lane->host->seal, op, &r->err) < 0 || read_head(r, op) < 0) return;
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

static void on_again(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct run *r = arg;
  struct np_lane *lane = r->all->lane;
  np_lane_sync(lane);
  const struct np_instance *in = np_lane_instance(lane, np_epoch_slot(lane->epoch, r->call->connection));
  bool held = in && np_quarantine_holds(in); /* one of the requests may be why */
  int64_t id = lane->draining ? 0 : held ? -1 : np_reader_failed(lane->reader, r->call->connection, r->after);
  if (id <= 0) {
    struct np_call *call = r->call;
    if (id == 0) {
      finish(r);
      return;
    }
    np_call_refuse(call, held ? "it has been quarantined; the rest stays as it is" : "the store cannot be read");
    free_run(r);
    np_call_answer(call);
    return;
  }
  r->after = r->replay.id = id;
  r->err.text[0] = 0;
  int found = np_reader_request(lane->reader, id, take_request, r, &r->err);
  bool ready = found == 1 && !r->err.text[0];
  if (ready && np_web_replay(lane, &r->replay) == 0) return;
  over(&r->replay, "failed",
       ready        ? "no route of the plugin in force takes it"
       : found == 0 ? "it is no longer kept"
                    : r->err.text);
}

void np_replays_take(struct np_replays *all, struct np_call *call) {
  struct run *r = np_alloc(sizeof *r);
  *r = (struct run){
      .all = all, .call = call, .next = all->first, .prev = &all->first, .replay = {.connection = call->connection, .over = over}};
  if (r->next) r->next->prev = &r->next;
  all->first = r;
  r->again = evtimer_new(all->lane->base, on_again, r);
  if (!r->again) abort(); /* out of memory */
  soon(r);
}

struct np_replays *np_replays_new(struct np_lane *lane) {
  struct np_replays *all = np_alloc(sizeof *all);
  all->lane = lane;
  return all;
}

void np_replays_free(struct np_replays *all) {
  if (!all) return;
  while (all->first) {
    np_call_free(all->first->call);
    free_run(all->first);
  }
  free(all);
}
