/* What an operator acknowledges, and what waits for it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/ack.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"

#define PAGE 100

static int text_field(lua_State *L, int request, const char *name, struct np_text *to, struct np_writeset *ws,
                      struct np_error *err) {
  size_t n;
  int type = lua_getfield(L, request, name);
  const char *s = type == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
  if (s) *to = np_writeset_text(ws, s, n);
  lua_pop(L, 1);
  return s || type == LUA_TNIL ? 0 : np_fail(err, "%s: expected a text", name);
}

int np_talk_ack_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  struct np_writeset *ws = t->set = np_writeset_new();
  struct np_text id = {0}, by = {0}, note = {0};
  char user[64];
  if (text_field(L, request, "id", &id, ws, err) < 0 || text_field(L, request, "by", &by, ws, err) < 0 ||
      text_field(L, request, "note", &note, ws, err) < 0)
    return -1;
  if (!id.ptr) return 0; /* a list */
  if (!by.ptr && np_talk_user(t, user, sizeof user)) by = np_writeset_text(ws, user, strlen(user));
  if (np_ack_check(by, note, err) < 0) return -1;
  if (id.len >= sizeof t->device || strlen(id.ptr) != id.len) return np_fail(err, "no message has such an id");
  memcpy(t->device, id.ptr, id.len + 1);
  int found = np_ack_add(ws, t->host->reader, t->device, by, note, np_now_ms(), err);
  if (found == 0) np_fail(err, "there is no message \"%.100s\", or it is no longer kept", t->device);
  return found == 1 ? 0 : -1;
}

static bool add_message(void *arg, const struct np_sent *s) {
  struct np_talk *t = arg;
  np_line_begin(&t->out);
  np_line_message(&t->out, s);
  return false;
}

/* 0 where it has been pruned since. The object is not ended. */
static int tell_message(struct np_talk *t, const char *id, struct np_error *err) {
  int found = np_reader_message(t->host->reader, id, add_message, t, err);
  if (found == 1 && np_ack_line(&t->out, t->host->reader, id, err) < 0) return -1;
  return found;
}

/* A list. */

static bool take_id(void *arg, struct np_text id) {
  np_buf_add(arg, id.ptr, id.len + 1);
  return true;
}

static void list_slice(struct np_talk *t) {
  struct np_buf ids = {0};
  struct np_error err;
  int n = 0;
  if (np_talk_full(t)) return;
  int result = np_reader_waiting_all(t->host->reader, *t->device ? t->device : NULL, PAGE, take_id, &ids, &err);
  for (const char *id = ids.data; result >= 0 && id && id < ids.data + ids.len; id += strlen(id) + 1, n++) {
    snprintf(t->device, sizeof t->device, "%s", id);
    if ((result = tell_message(t, id, &err)) < 1) continue;
    np_line_end(&t->out);
    t->count++;
  }
  np_buf_free(&ids);
  if (result < 0) {
    np_talk_fail(t, err.text);
  } else if (n == PAGE) {
    np_talk_send(t);
    np_talk_again(t, 0);
  } else {
    np_buf_addf(&t->out, "{\"summary\":{\"unacknowledged\":%" PRId64 "}}\n", t->count);
    np_talk_end(t);
  }
}

/* One. */

static int commit(struct np_talk *t, struct np_error *err) {
  const struct np_op *op = t->set->first;
  np_writeset_ref(t->set); /* the keeper uses one up */
  if (np_keeper_apply(t->host->keeper, t->set, err) != NP_COMMITTED) return -1;
  if (op->as.ack.done) np_log(NP_INFO, "a message is acknowledged", "message", t->device, "by", op->as.ack.by.ptr, NULL);
  return 0;
}

void np_talk_ack(struct np_talk *t) {
  struct np_error err;
  if (!*t->device) {
    np_talk_list(t, list_slice);
    return;
  }
  int found = commit(t, &err) < 0 ? -1 : tell_message(t, t->device, &err);
  if (found == 0) np_fail(&err, "there is no message \"%.100s\", or it is no longer kept", t->device);
  if (found < 1) {
    np_talk_fail(t, err.text);
    return;
  }
  bool first = t->set->first->as.ack.done;
  np_line_more(&t->out, first ? "\"first\":true" : "\"first\":false", first ? 12 : 13);
  np_line_end(&t->out);
  np_buf_addf(&t->out, "{\"summary\":{\"acknowledged\":%d}}\n", first);
  np_talk_end(t);
}
