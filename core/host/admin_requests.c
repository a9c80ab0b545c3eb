/* `requests`: a connection's requests are run again, as many in one call to its lane as take a moment. What became of them is passed on, and the next call is
 * made once the client has taken that: so it ends where the client goes. */
#include <inttypes.h>

#include <lauxlib.h>

#include "base/log.h"
#include "host/admin_talk.h"
#include "host/calls.h"
#include "host/replay.h"

static void done(struct np_call *call);

static void slice(struct np_talk *t) {
  if (!np_talk_full(t)) np_talk_call(t);
}

static void log_end(const char *connection, const struct np_requests *q) {
  char ran[24], done_[24], failed[24];
  snprintf(ran, sizeof ran, "%" PRId64, q->done + q->refused + q->failures);
  snprintf(done_, sizeof done_, "%lld", (long long)q->done);
  snprintf(failed, sizeof failed, "%" PRId64, q->failures + q->refused);
  np_log(NP_INFO, q->dry ? "requests were tried again, without effect" : "requests were run again", "plugin", connection,
         "requests", ran, "done", done_, "not done", failed, NULL);
}

static void add_summary(struct np_buf *b, const struct np_requests *q) {
  np_buf_addf(b, "{\"summary\":{\"requests\":%" PRId64 ",\"done\":%lld,\"refused\":%lld,\"failed\":%lld,\"gone\":%lld",
              q->done + q->refused + q->failures, (long long)q->done, (long long)q->refused, (long long)q->failures,
              (long long)q->gone);
  np_buf_addf(b, ",\"dry\":%s,\"only_failed\":%s,\"last\":%lld,\"readings\":{", q->dry ? "true" : "false",
              q->failed ? "true" : "false", (long long)q->after);
  for (int i = 0; i < (q->dry ? NP_READINGS_KINDS : NP_READINGS_SAME + 1); i++)
    np_buf_addf(b, "%s\"%s\":%lld", i ? "," : "", np_requests_readings[i], (long long)q->readings[i]);
  np_buf_adds(b, "}}}\n");
}

/* Goes on with another call, which has what the last one came to. */
static void done(struct np_call *call) {
  struct np_talk *t = np_talk_find(call->arg, call->id);
  struct np_requests *q = call->requests;
  bool over = q->over || call->failed;
  if (!t || over) log_end(call->connection, q);
  if (t) {
    np_buf_add(&t->out, call->answer.data, call->answer.len);
    if (q->over) add_summary(&t->out, q);
    if (over) {
      np_talk_end(t);
    } else {
      np_talk_send(t);
      np_talk_call_new(t, call->connection, done);
      t->call->requests = q;
      call->requests = NULL;
      t->state = NP_TALK_LISTING;
      t->slice = slice;
      slice(t);
    }
  }
  np_call_free(call);
}

static int read_number(lua_State *L, int request, const char *field, int64_t *n, struct np_error *err) {
  int exact = 1;
  if (lua_getfield(L, request, field) != LUA_TNIL) *n = lua_tointegerx(L, -1, &exact);
  lua_pop(L, 1);
  return exact && *n >= 0 ? 0 : np_fail(err, "%s: expected a whole number that is not negative", field);
}

static bool read_flag(lua_State *L, int request, const char *field) {
  lua_getfield(L, request, field);
  bool on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

int np_talk_requests_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  struct np_requests q = {.upto = INT64_MAX, .to = INT64_MAX};
  q.failed = read_flag(L, request, "failed");
  q.dry = read_flag(L, request, "dry");
  q.rules = read_flag(L, request, "rules");
  if (read_number(L, request, "after", &q.after, err) < 0 || read_number(L, request, "upto", &q.upto, err) < 0 ||
      read_number(L, request, "from", &q.from, err) < 0 || read_number(L, request, "to", &q.to, err) < 0 ||
      read_number(L, request, "pause", &q.pause, err) < 0)
    return -1;
  if (lua_getfield(L, request, "connection") != LUA_TSTRING) return np_fail(err, "connection: it is missing");
  np_talk_call_new(t, lua_tostring(L, -1), done);
  lua_pop(L, 1);
  t->call->requests = np_alloc(sizeof q);
  *t->call->requests = q;
  return 0;
}

void np_talk_requests(struct np_talk *t) { np_talk_call(t); }
