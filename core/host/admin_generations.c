/* What an operator asks about generations: which there were, what stood in them, and to go back to one. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/bufferevent.h>
#include <lauxlib.h>

#include "host/admin_line.h"
#include "host/admin_talk.h"
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

static bool add_generation(void *arg, const struct np_generation *g) {
  struct np_talk *t = arg;
  const char *file;
  bool now = g->number && g->number == t->wanted; /* the newest row of it */
  if (now) t->wanted = 0;
  np_line_begin(&t->out);
  if (g->number) np_line_int(&t->out, "generation", g->number);
  np_line_int(&t->out, "at", g->at);
  np_line_text(&t->out, "verdict", g->verdict.ptr);
  if (now && in_force(t, &file)) np_line_text(&t->out, "state", "in force");
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

static void cause_of(const struct np_talk *t, char *text, size_t size) {
  struct ucred who;
  socklen_t n = sizeof who;
  struct passwd user, *found = NULL;
  char names[1024];
  if (getsockopt(bufferevent_getfd(t->bev), SOL_SOCKET, SO_PEERCRED, &who, &n) < 0)
    snprintf(text, size, "neap rollback");
  else if (getpwuid_r(who.uid, &user, names, sizeof names, &found) == 0 && found)
    snprintf(text, size, "neap rollback by %.60s", found->pw_name);
  else
    snprintf(text, size, "neap rollback by user %lu", (unsigned long)who.uid);
}

void np_talk_rollback(struct np_talk *t) {
  struct np_error err;
  char cause[100];
  cause_of(t, cause, sizeof cause);
  int number = t->at > INT32_MAX ? np_fail(&err, "there is no such generation")
                                 : np_deploy_rollback(t->host->deploy, t->instance, (int)t->at, cause, &err);
  if (number < 0) {
    np_talk_fail(t, err.text);
    return;
  }
  np_buf_adds(&t->out, "{\"summary\":{\"instance\":");
  np_buf_add_json(&t->out, t->instance, strlen(t->instance));
  np_buf_addf(&t->out, ",\"generation\":%d}}\n", number);
  np_talk_end(t);
}
