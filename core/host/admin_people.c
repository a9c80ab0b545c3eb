/* What an operator asks about people: a request as it came, a person's details. Whatever shows some is logged, with who asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/bufferevent.h>
#include <lauxlib.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/redact.h"
#include "base/utf8.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"
#include "host/webreq.h"

#define PEOPLE "people" /* their space in the store; people.c */

/* Who asks, as the kernel says: the number of a user. */
static void user_of(const struct np_talk *t, char text[24]) {
  struct ucred who;
  socklen_t n = sizeof who;
  if (getsockopt(bufferevent_getfd(t->bev), SOL_SOCKET, SO_PEERCRED, &who, &n) == 0)
    snprintf(text, 24, "%lu", (unsigned long)who.uid);
  else
    snprintf(text, 24, "unknown");
}

void np_talk_log_shown(const struct np_talk *t, const char *event, const char *what, const char *which) {
  char user[24];
  user_of(t, user);
  np_log(NP_INFO, event, what, which, "user", user, NULL);
}

static bool flag(lua_State *L, int request, const char *name) {
  lua_getfield(L, request, name);
  bool on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

/* A request. */

int np_talk_request_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  lua_getfield(L, request, "id");
  int whole;
  t->at = lua_tointegerx(L, -1, &whole);
  lua_pop(L, 1);
  t->people = flag(L, request, "people");
  return whole && t->at > 0 ? 0 : np_fail(err, "expected the number of a request");
}

/* As text where it is, otherwise as base64. */
static void add_bytes(struct np_buf *out, const char *name, const char *bytes, size_t n) {
  if (np_utf8_check(bytes, n) == n && !memchr(bytes, 0, n)) {
    char *text = np_strndup(bytes, n);
    np_line_text(out, name, text);
    free(text);
    return;
  }
  char label[40];
  unsigned char *text = np_alloc(n / 3 * 4 + 8);
  EVP_EncodeBlock(text, (const unsigned char *)bytes, (int)n);
  snprintf(label, sizeof label, "%s_base64", name);
  np_line_text(out, label, (const char *)text);
  free(text);
}

/* Without what its parameters have of secrets; they stay in the store as they came. */
static void add_target(struct np_talk *t, const char *name, const char *target) {
  struct np_buf shown = {0};
  if (target) np_redact_url(&shown, target, strlen(target), NULL, 0);
  np_line_text(&t->out, name, target ? np_buf_text(&shown) : NULL);
  np_buf_free(&shown);
}

static void add_parts(struct np_talk *t, const struct np_op *op) {
  struct np_error err;
  struct np_webreq_kept kept;
  bool opens = np_webreq_open(&kept, t->host->seal, op, &err) == 0;
  add_target(t, "target", kept.target);
  struct np_buf headers = {0};
  if (kept.headers) np_redact_headers(&headers, kept.headers, strlen(kept.headers), NULL, 0);
  np_line_text(&t->out, "headers", kept.headers ? np_buf_text(&headers) : err.text);
  np_buf_free(&headers);
  if (opens)
    add_bytes(&t->out, "body", kept.body, kept.body_len);
  else
    np_line_text(&t->out, "body", err.text);
  np_webreq_kept_free(&kept);
}

static void add_fields(void *arg, int64_t id, const struct np_op *op) {
  struct np_talk *t = arg;
  bool sealed = np_seal_is(op->as.request.headers.ptr, op->as.request.headers.len);
  np_line_int(&t->out, "id", id);
  np_line_int(&t->out, "received", op->as.request.received);
  np_line_text(&t->out, "connection", op->as.request.instance.ptr);
  np_line_int(&t->out, "generation", op->as.request.generation);
  np_line_text(&t->out, "method", op->as.request.method.ptr);
  if (t->people)
    add_parts(t, op);
  else
    add_target(t, sealed ? "route" : "target", op->as.request.target.ptr);
  np_line_text(&t->out, "remote", op->as.request.remote.ptr);
  np_line_int(&t->out, "status", op->as.request.status);
  np_line_text(&t->out, "outcome", op->as.request.outcome.ptr);
  np_line_text(&t->out, "error", op->as.request.error.ptr);
}

static bool add_run(void *arg, const struct np_request_run *run) {
  struct np_buf *b = arg;
  if (b->len) np_buf_addc(b, ',');
  np_line_begin(b);
  np_line_int(b, "again", run->until);
  np_line_int(b, "generation", run->generation);
  np_line_int(b, "status", run->status);
  np_line_text(b, "outcome", run->outcome.ptr);
  np_line_text(b, "error", run->error.ptr);
  np_buf_addc(b, '}');
  return true;
}

int np_talk_request_object(struct np_talk *t, int64_t id, struct np_error *err) {
  struct np_reader *r = t->host->reader;
  struct np_buf runs = {0};
  np_line_begin(&t->out);
  int found = np_reader_request(r, id, add_fields, t, err);
  if (found == 1 && np_reader_request_runs(r, id, add_run, &runs, err) < 0) found = -1;
  if (runs.len) np_buf_addf(&t->out, ",\"before\":[%s]", runs.data);
  np_buf_addc(&t->out, '}');
  np_buf_free(&runs);
  return found;
}

void np_talk_request(struct np_talk *t) {
  struct np_error err;
  char id[24];
  snprintf(id, sizeof id, "%lld", (long long)t->at);
  int found = np_talk_request_object(t, t->at, &err);
  if (found == 1) {
    np_buf_addc(&t->out, '\n');
    if (t->people) np_talk_log_shown(t, "details shown", "request", id);
    np_buf_adds(&t->out, "{\"summary\":{\"requests\":1}}\n");
    np_talk_end(t);
    return;
  }
  if (found == 0)
    np_fail(&err, "there is no request %s: it never was, or is older than what is kept (keep.requests in neap.lua)", id);
  np_talk_fail(t, err.text);
}

/* People. */

int np_talk_people_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  size_t n = 0;
  lua_getfield(L, request, "reference");
  const char *s = lua_tolstring(L, -1, &n);
  bool good = !s || np_seal_is_reference(s, n);
  if (s && good) memcpy(t->reference, s, n + 1);
  lua_pop(L, 1);
  t->forget = flag(L, request, "forget");
  if (good && (*t->reference || !t->forget)) return 0;
  return np_fail(err, "expected a reference: \"p_\" and 32 hex digits, such as a device's owner");
}

static int forget(struct np_talk *t, struct np_error *err) {
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, PEOPLE, strlen(PEOPLE));
  op->as.put.key = np_writeset_text(ws, t->reference, strlen(t->reference));
  return np_keeper_apply(t->host->keeper, ws, err) == NP_COMMITTED ? 0 : -1;
}

static int show(struct np_talk *t, const struct np_buf *sealed, struct np_error *err) {
  const struct np_seal_context place = {"kv", PEOPLE, t->reference, strlen(t->reference)};
  char *plain = np_alloc(sealed->len + 1);
  long n = np_seal_get(t->host->seal, &place, sealed->data, sealed->len, plain, err);
  if (n >= 0) {
    np_buf_addf(&t->out, "{\"reference\":\"%s\",\"person\":", t->reference);
    np_buf_add(&t->out, plain, (size_t)n);
    np_buf_adds(&t->out, "}\n");
    OPENSSL_cleanse(plain, (size_t)n);
  }
  free(plain);
  return n < 0 ? -1 : 0;
}

/* One person: shown, or forgotten. */
static int person(struct np_talk *t, struct np_error *err) {
  struct np_buf sealed = {0};
  int64_t version;
  int result = -1,
      found = np_reader_get(t->host->reader, PEOPLE, t->reference, strlen(t->reference), np_now_ms(), &sealed, &version, err);
  if (found == 0) np_fail(err, "nobody is kept under %s", t->reference);
  if (found == 1) result = t->forget ? forget(t, err) : show(t, &sealed, err);
  np_buf_free(&sealed);
  if (result == 0) np_talk_log_shown(t, t->forget ? "a person was forgotten" : "details shown", "reference", t->reference);
  return result;
}

void np_talk_people(struct np_talk *t) {
  struct np_error err;
  int64_t n = 0;
  int result = *t->reference ? person(t, &err) : np_reader_key_count(t->host->reader, PEOPLE, &n, &err);
  if (result < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_addf(&t->out, "{\"summary\":{\"%s\":%lld}}\n", t->forget ? "forgotten" : "people", (long long)(*t->reference ? 1 : n));
  np_talk_end(t);
}
