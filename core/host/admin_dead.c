/* What an operator asks about deliveries: the dead letters, one message with its attempts, to try dead letters again or drop them; and how each destination
 * fares. Many are dealt with a page at a time, so that the main thread does other things in between. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/bufferevent.h>
#include <lauxlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/ack.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"
#include "host/outlet.h"

#define PAGE 200

struct np_talk_dead {
  char action; /* 'l' list, 's' show, 'r' retry, 'd' drop */
  char id[80], destination[80];
  struct np_dead_filter filter;
  int64_t done, seq;
  bool found;
  struct np_writeset *ws; /* owned while a page is read */
  char by[80];
};

static int read_text(lua_State *L, int request, const char *name, char *to, size_t size, struct np_error *err) {
  size_t n;
  int type = lua_getfield(L, request, name);
  const char *s = type == LUA_TSTRING ? lua_tolstring(L, -1, &n) : "";
  bool fits = strlen(s) < size;
  if (fits) strcpy(to, s);
  lua_pop(L, 1);
  return fits ? 0 : np_fail(err, "no %s is as long as that", name);
}

/* An age in ms as the moment that long ago. */
static int64_t moment(lua_State *L, int request, const char *name, int64_t otherwise) {
  int64_t at = lua_getfield(L, request, name) == LUA_TNUMBER ? np_now_ms() - (int64_t)lua_tonumber(L, -1) : otherwise;
  lua_pop(L, 1);
  return at;
}

int np_talk_dead_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  static const char *const actions[] = {"list", "show", "retry", "drop"};
  char action[16];
  int which = 0;
  struct np_talk_dead *d = t->dead = np_alloc(sizeof *d);
  if (read_text(L, request, "action", action, sizeof action, err) < 0 ||
      read_text(L, request, "id", d->id, sizeof d->id, err) < 0 ||
      read_text(L, request, "destination", d->destination, sizeof d->destination, err) < 0)
    return -1;
  while (which < 4 && strcmp(actions[which], action) != 0) which++;
  if (which == 4) return np_fail(err, "a dead letter is listed, shown, tried again (retry) or dropped");
  d->action = actions[which][0];
  d->filter = (struct np_dead_filter){.id = *d->id ? d->id : NULL,
                                      .destination = *d->destination ? d->destination : NULL,
                                      .from = moment(L, request, "newer", INT64_MIN),
                                      .to = moment(L, request, "older", np_now_ms())};
  bool all = lua_getfield(L, request, "all") == LUA_TBOOLEAN && lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (d->action == 's' && !*d->id) return np_fail(err, "which message?");
  bool any = *d->id || *d->destination || d->filter.from != INT64_MIN || lua_getfield(L, request, "older") == LUA_TNUMBER;
  if ((d->action == 'r' || d->action == 'd') && !any && !all)
    return np_fail(err, "which ones? Name an id, a destination or an age, or all");
  return 0;
}

void np_talk_dead_free(struct np_talk *t) {
  if (t->dead && t->dead->ws) np_writeset_unref(t->dead->ws);
  free(t->dead);
}

static bool list_one(void *arg, const struct np_sent *s) {
  struct np_talk *t = arg;
  np_line_begin(&t->out);
  np_line_message(&t->out, s);
  np_line_end(&t->out);
  t->dead->filter.after = s->message.seq;
  t->count++;
  return true;
}

/* show */

static bool show_one(void *arg, const struct np_sent *s) {
  struct np_talk *t = arg;
  np_line_begin(&t->out);
  np_line_message(&t->out, s);
  np_line_body(&t->out, t->host, s->message.destination.ptr, s->message.body);
  t->dead->seq = s->message.seq;
  return true;
}

static bool show_attempt(void *arg, const struct np_attempt *a) {
  struct np_talk *t = arg;
  np_line_begin(&t->out);
  np_line_attempt(&t->out, a);
  np_line_exchange(&t->out, a);
  np_line_end(&t->out);
  t->count++;
  return true;
}

static void show(struct np_talk *t) {
  struct np_error err;
  int found = np_reader_message(t->host->reader, t->dead->id, show_one, t, &err);
  if (found == 0) np_fail(&err, "there is no message \"%s\", or it is no longer kept", t->dead->id);
  if (found == 1 && np_ack_line(&t->out, t->host->reader, t->dead->id, &err) < 0) found = -1;
  if (found == 1) np_line_end(&t->out);
  if (found < 1 || np_reader_attempts(t->host->reader, t->dead->seq, show_attempt, t, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_addf(&t->out, "{\"summary\":{\"attempts\":%" PRId64 "}}\n", t->count);
  np_talk_end(t);
}

/* retry, drop */

static bool decide_one(void *arg, const struct np_sent *s) {
  struct np_talk *t = arg;
  struct np_talk_dead *d = t->dead;
  const struct np_message *m = &s->message;
  struct np_op *op = np_writeset_add(d->ws, NP_OP_DEAD);
  op->as.dead.seq = m->seq;
  op->as.dead.action = d->action == 'r' ? 'r' : 'x';
  op->as.dead.destination = np_writeset_text(d->ws, m->destination.ptr, m->destination.len);
  op->as.dead.device = np_writeset_text(d->ws, m->device.ptr, m->device.len);
  op->as.dead.at = np_now_ms();
  op->as.dead.by = np_writeset_text(d->ws, d->by, strlen(d->by));
  d->filter.after = m->seq;
  t->count++;
  return true;
}

static int commit_page(struct np_talk *t, struct np_error *err) {
  struct np_talk_dead *d = t->dead;
  struct np_writeset *ws = d->ws;
  d->ws = NULL;
  np_writeset_ref(ws);
  int failed = ws->first && np_keeper_apply(t->host->keeper, ws, err) != NP_COMMITTED ? -1 : 0;
  if (!ws->first) np_writeset_unref(ws);
  for (const struct np_op *op = ws->first; op && !failed; op = op->next) d->done += op->as.dead.done;
  np_writeset_unref(ws);
  return failed;
}

static void tell_log(const struct np_talk_dead *d) {
  char n[24];
  snprintf(n, sizeof n, "%" PRId64, d->done);
  np_log(d->action == 'r' ? NP_INFO : NP_WARN, d->action == 'r' ? "dead letters are tried again" : "dead letters were dropped",
         "letters", n, "by", d->by, "id", *d->id ? d->id : NULL, "destination", *d->destination ? d->destination : NULL, NULL);
}

static void dead_slice(struct np_talk *t) {
  struct np_talk_dead *d = t->dead;
  struct np_error err;
  int64_t before = t->count;
  bool decides = d->action == 'r' || d->action == 'd';
  if (np_talk_full(t)) return;
  if (decides) d->ws = np_writeset_new();
  if (np_reader_dead(t->host->reader, &d->filter, PAGE, decides ? decide_one : list_one, t, &err) < 0 ||
      (decides && commit_page(t, &err) < 0)) {
    np_talk_fail(t, err.text);
    return;
  }
  if (t->count - before == PAGE) {
    np_talk_send(t);
    np_talk_again(t, 0);
    return;
  }
  if (decides && d->done) tell_log(d);
  if (decides && *d->id && !d->done) {
    np_fail(&err, "there is no dead letter \"%s\"", d->id);
    np_talk_fail(t, err.text);
    return;
  }
  const char *said = d->action == 'l' ? "dead" : d->action == 'r' ? "retried" : "dropped";
  np_buf_addf(&t->out, "{\"summary\":{\"%s\":%" PRId64 "}}\n", said, decides ? d->done : t->count);
  np_talk_end(t);
}

void np_talk_dead(struct np_talk *t) {
  if (t->dead->action == 's') {
    show(t);
    return;
  }
  np_talk_cause(t, t->dead->action == 'r' ? "neap dead retry" : "neap dead drop", t->dead->by, sizeof t->dead->by);
  np_talk_list(t, dead_slice);
}

/* destinations */

static void add_waiting(struct np_buf *b, struct np_reader *reader, const char *destination) {
  int64_t oldest = np_reader_outbox_oldest(reader, destination);
  np_line_int(b, "pending", np_reader_outbox_count(reader, destination, 'p'));
  if (oldest > 0) np_line_int(b, "oldest", oldest);
  np_line_int(b, "dead", np_reader_outbox_count(reader, destination, 'x'));
}

static void add_destination(struct np_talk *t, const struct np_status *s) {
  struct np_buf *b = &t->out;
  struct np_outlet_view v = np_outlet_look(t->host->broker, s->instance);
  np_line_begin(b);
  np_line_text(b, "instance", s->instance);
  np_line_text(b, "plugin", s->plugin);
  np_line_text(b, "state", s->state);
  np_line_outlet(b, t->host, s->instance);
  np_line_int(b, "flying", v.flying);
  add_waiting(b, t->host->reader, s->instance);
  if (v.last_done) np_line_int(b, "last_arrival", v.last_done);
  if (s->code) {
    np_line_int(b, "batch", s->code->terms.batch);
    np_line_int(b, "concurrency", s->code->terms.concurrency);
  }
  np_line_text(b, "error", *v.error ? v.error : NULL);
  np_line_end(b);
  t->count++;
}

/* What an entry that was taken away or renamed has left. */
static bool add_gone(void *arg, struct np_text name) {
  struct np_talk *t = arg;
  struct np_buf *b = &t->out;
  if (np_deploy_is_destination(t->host->deploy, name.ptr)) return true;
  np_line_begin(b);
  np_line_text(b, "instance", name.ptr);
  np_line_text(b, "state", "gone");
  add_waiting(b, t->host->reader, name.ptr);
  np_line_text(b, "error", "nothing of that name takes messages: what waits does so until something does");
  np_line_end(b);
  t->count++;
  return true;
}

void np_talk_destinations(struct np_talk *t) {
  const struct np_deploy *d = t->host->deploy;
  struct np_error err;
  for (size_t i = 0; i < np_deploy_count(d); i++) {
    struct np_status s = np_deploy_status(d, i);
    if (np_status_is_destination(&s)) add_destination(t, &s);
  }
  if (np_reader_destinations(t->host->reader, add_gone, t, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_addf(&t->out, "{\"summary\":{\"destinations\":%" PRId64 "}}\n", t->count);
  np_talk_end(t);
}
