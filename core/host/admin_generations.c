/* What an operator asks about generations: which there were, what stood in them, and to go back to one. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/bufferevent.h>
#include <lauxlib.h>

#include "base/clock.h"
#include "host/admin_line.h"
#include "host/admin_talk.h"
#include "host/gate.h"
#include "host/sources.h"

#define SHOWN 100
#define FILES 200

static int read_number(lua_State *L, int request, const char *name, int64_t *number, struct np_error *err) {
  int whole = 1;
  if (lua_getfield(L, request, name) != LUA_TNIL) *number = lua_tointegerx(L, -1, &whole);
  lua_pop(L, 1);
  return whole && *number >= 0 ? 0 : np_fail(err, "a generation is a number");
}

int np_talk_generation_begin(struct np_talk *t, lua_State *L, int request, struct np_error *err) {
  size_t n;
  if (lua_getfield(L, request, "instance") != LUA_TSTRING) return np_fail(err, "of which plugin?");
  const char *name = lua_tolstring(L, -1, &n);
  if (n >= sizeof t->instance) return np_fail(err, "no plugin has so long a name");
  memcpy(t->instance, name, n + 1);
  lua_pop(L, 1);
  return read_number(L, request, "a", &t->at, err) < 0 || read_number(L, request, "b", &t->wanted, err) < 0 ? -1 : 0;
}

/* history */

static int in_force(const struct np_talk *t, const char **file) {
  const struct np_deploy *d = t->host->deploy;
  for (size_t i = 0; i < np_deploy_count(d); i++) {
    struct np_status s = np_deploy_status(d, i);
    if (strcmp(s.instance, t->instance) != 0) continue;
    *file = s.file;
    return s.generation;
  }
  return 0;
}

static const struct np_gate *gate_of(const struct np_talk *t) {
  const struct np_deploy *d = t->host->deploy;
  for (size_t i = 0; i < np_deploy_count(d); i++) {
    struct np_status s = np_deploy_status(d, i);
    if (strcmp(s.instance, t->instance) == 0) return s.gate;
  }
  return NULL;
}

/* What it passed, as the gate kept it. */
static void add_stages(struct np_talk *t, int number) {
  struct np_error err;
  struct np_buf value = {0};
  char key[120];
  int64_t version;
  int n = snprintf(key, sizeof key, "%s %d", t->instance, number);
  int found = number ? np_reader_get(t->host->reader, NP_GATE_SPACE, key, (size_t)n, np_now_ms(), &value, &version, &err) : 0;
  if (found > 0 && value.len > 2) np_line_more(&t->out, value.data + 1, value.len - 2); /* without its braces */
  np_buf_free(&value);
}

static bool add_generation(void *arg, const struct np_generation *g) {
  struct np_talk *t = arg;
  const char *file;
  bool now = g->number && g->number == t->wanted && strcmp(g->verdict.ptr, "good") == 0; /* the newest row of it */
  if (now) t->wanted = 0;
  np_line_begin(&t->out);
  if (g->number) np_line_int(&t->out, "generation", g->number);
  np_line_int(&t->out, "at", g->at);
  np_line_text(&t->out, "verdict", g->verdict.ptr);
  if (now && in_force(t, &file)) np_line_text(&t->out, "state", "in force");
  bool waits = strcmp(g->verdict.ptr, "waiting") == 0 && np_gate_waits(gate_of(t)) && np_gate_number(gate_of(t)) == g->number;
  if (waits) np_line_text(&t->out, "state", "waiting for approval");
  add_stages(t, g->number);
  np_line_text(&t->out, "cause", g->cause.ptr);
  np_line_text(&t->out, "reason", g->reason.ptr);
  np_line_text(&t->out, "file", g->file.ptr);
  np_line_text(&t->out, "hash", g->hash.ptr);
  np_line_end(&t->out);
  t->count++;
  return true;
}

void np_talk_history(struct np_talk *t) {
  struct np_error err;
  const char *file = NULL;
  t->wanted = in_force(t, &file);
  if (np_reader_generations(t->host->reader, t->instance, INT64_MAX, SHOWN, add_generation, t, &err) < 0) {
    np_talk_fail(t, err.text);
  } else if (!t->count) {
    np_fail(&err, "there is no generation of a plugin \"%s\": neap plugins lists them", t->instance);
    np_talk_fail(t, err.text);
  } else {
    np_buf_addf(&t->out, "{\"summary\":{\"generations\":%lld}}\n", (long long)t->count);
    np_talk_end(t);
  }
}

/* sources, for neap diff */

struct wanted {
  int64_t number;
  char *bundle; /* owned */
  size_t len;
};

static bool take_bundle(void *arg, const struct np_generation *g) {
  struct wanted *w = arg;
  if (g->number != w->number || !g->source.ptr) return true;
  w->bundle = np_strndup(g->source.ptr, g->source.len);
  w->len = g->source.len;
  return false;
}

static int add_sources(struct np_talk *t, int64_t number, struct np_error *err) {
  struct wanted w = {.number = number};
  struct np_source list[FILES];
  if (np_reader_generations(t->host->reader, t->instance, INT64_MAX, INT32_MAX, take_bundle, &w, err) < 0) return -1;
  if (!w.bundle)
    return np_fail(err, "%s: generation %lld is not kept: neap history %s", t->instance, (long long)number, t->instance);
  int n = np_bundle_read(w.bundle, w.len, list, FILES, err);
  free(w.bundle);
  for (int i = 0; i < n; i++) {
    np_line_begin(&t->out);
    np_line_int(&t->out, "generation", number);
    np_line_text(&t->out, "file", list[i].path);
    np_line_text(&t->out, "text", list[i].text);
    np_line_end(&t->out);
    np_source_free(&list[i]);
  }
  return n < 0 ? -1 : 0;
}

void np_talk_sources(struct np_talk *t) {
  struct np_error err;
  const char *file;
  if (!t->wanted) t->wanted = in_force(t, &file);
  if (add_sources(t, t->at, &err) < 0 || add_sources(t, t->wanted, &err) < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_addf(&t->out, "{\"summary\":{\"a\":%lld,\"b\":%lld}}\n", (long long)t->at, (long long)t->wanted);
  np_talk_end(t);
}

/* rollback */

bool np_talk_user(const struct np_talk *t, char *text, size_t size) {
  struct ucred who;
  socklen_t n = sizeof who;
  struct passwd user, *found = NULL;
  char names[1024];
  if (getsockopt(bufferevent_getfd(t->bev), SOL_SOCKET, SO_PEERCRED, &who, &n) < 0) return false;
  if (getpwuid_r(who.uid, &user, names, sizeof names, &found) == 0 && found)
    snprintf(text, size, "%.60s", found->pw_name);
  else
    snprintf(text, size, "user %lu", (unsigned long)who.uid);
  return true;
}

void np_talk_cause(const struct np_talk *t, const char *command, char *text, size_t size) {
  char user[64];
  bool known = np_talk_user(t, user, sizeof user);
  snprintf(text, size, known ? "%s by %s" : "%s", command, user);
}

static void tell_number(struct np_talk *t, int number, const struct np_error *err) {
  if (number < 0) {
    np_talk_fail(t, err->text);
    return;
  }
  np_buf_adds(&t->out, "{\"summary\":{\"instance\":");
  np_buf_add_json(&t->out, t->instance, strlen(t->instance));
  np_buf_addf(&t->out, ",\"generation\":%d}}\n", number);
  np_talk_end(t);
}

void np_talk_rollback(struct np_talk *t) {
  struct np_error err;
  char cause[100];
  np_talk_cause(t, "neap rollback", cause, sizeof cause);
  int number = t->at > INT32_MAX ? np_fail(&err, "there is no such generation")
                                 : np_deploy_rollback(t->host->deploy, t->instance, (int)t->at, cause, &err);
  tell_number(t, number, &err);
}

void np_talk_approve(struct np_talk *t) {
  struct np_error err;
  char cause[100];
  np_talk_cause(t, "neap approve", cause, sizeof cause);
  tell_number(t, np_deploy_approve(t->host->deploy, t->instance, cause, &err), &err);
}

/* messages, for neap diff --messages */

/* Those of the generation that is asked for, or of the newest that came to the gate. They stand in the store as they are told. */
void np_talk_messages(struct np_talk *t) {
  struct np_error err;
  char key[120];
  int64_t version, number = t->at ? t->at : np_gate_number(gate_of(t));
  int n = snprintf(key, sizeof key, "%s %lld messages", t->instance, (long long)number);
  int found = np_reader_get(t->host->reader, NP_GATE_SPACE, key, (size_t)n, np_now_ms(), &t->out, &version, &err);
  if (found > 0) {
    np_talk_end(t);
    return;
  }
  if (found == 0)
    np_fail(&err, "%s: no messages of generation %lld were compared, or they are no longer kept: neap history %s", t->instance,
            (long long)number, t->instance);
  np_talk_fail(t, err.text);
}

void np_talk_release(struct np_talk *t) {
  struct np_error err;
  char cause[100];
  np_talk_cause(t, "neap release", cause, sizeof cause);
  int number = np_deploy_release(t->host->deploy, t->instance, cause, &err);
  tell_number(t, number, &err);
}
