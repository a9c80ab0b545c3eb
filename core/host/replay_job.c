/* Rows of replays: a JSON object each, under its number. */
#include "host/replay_job.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "host/filter.h"
#include "lib/json.h"

#define KEPT_MS (INT64_C(366) * 86400000)

static const char *const states[NP_REPLAY_STATES] = {"waiting", "running", "done", "stopped"};
static const char *const names[NP_REPLAY_NAMES] = {"device", "metric", "vendor", "connection"};

/* The members, each by its name; what is 0 or NULL is left out. */
static const struct {
  const char *name;
  size_t offset;
} numbers[] = {
    {"replay", offsetof(struct np_replay_job, number)},
    {"upto", offsetof(struct np_replay_job, upto)},
    {"since", offsetof(struct np_replay_job, from)},
    {"until", offsetof(struct np_replay_job, to)},
    {"created", offsetof(struct np_replay_job, created)},
    {"rate", offsetof(struct np_replay_job, rate)},
    {"period", offsetof(struct np_replay_job, period)},
    {"ended", offsetof(struct np_replay_job, ended)},
    {"seq", offsetof(struct np_replay_job, at.seq)},
    {"said", offsetof(struct np_replay_job, at.said)},
    {"readings", offsetof(struct np_replay_job, at.readings)},
    {"sent", offsetof(struct np_replay_job, at.sent)},
    {"already", offsetof(struct np_replay_job, at.already)},
    {"expired", offsetof(struct np_replay_job, at.expired)},
    {"held", offsetof(struct np_replay_job, at.waiting)},
    {"unsure", offsetof(struct np_replay_job, at.unsure)},
    {"failed", offsetof(struct np_replay_job, at.failed)},
    {"derived", offsetof(struct np_replay_job, at.derived)},
    {"failed_reading", offsetof(struct np_replay_job, at.failed_reading)},
};
#define NUMBERS (sizeof numbers / sizeof *numbers)
static const struct {
  const char *name;
  size_t offset;
} texts[] = {{"rule", offsetof(struct np_replay_job, rule)},
             {"by", offsetof(struct np_replay_job, by)},
             {"why", offsetof(struct np_replay_job, why)},
             {"error", offsetof(struct np_replay_job, error)}};
#define TEXTS (sizeof texts / sizeof *texts)

static int64_t *number_at(const struct np_replay_job *j, size_t i) { return (int64_t *)((char *)j + numbers[i].offset); }
static char **text_at(const struct np_replay_job *j, size_t i) { return (char **)((char *)j + texts[i].offset); }

static void add_text(struct np_buf *b, const char *name, const char *text) {
  if (!text) return;
  np_buf_addf(b, ",\"%s\":", name);
  np_buf_add_json(b, text, strlen(text));
}

void np_replay_job_add(const struct np_replay_job *j, struct np_buf *b) {
  np_buf_addf(b, "\"replay\":%" PRId64 ",\"state\":\"%s\"", j->number, states[j->state]);
  for (size_t i = 0; i < TEXTS; i++) add_text(b, texts[i].name, *text_at(j, i));
  for (int i = 0; i < NP_REPLAY_NAMES; i++) add_text(b, names[i], j->names[i]);
  for (size_t i = 1; i < NUMBERS; i++)
    if (*number_at(j, i)) np_buf_addf(b, ",\"%s\":%" PRId64, numbers[i].name, *number_at(j, i));
  np_buf_addf(b, ",\"generation\":%d%s", j->generation, j->again ? ",\"again\":true" : "");
}

size_t np_replay_job_key(int64_t number, char key[24]) { return (size_t)snprintf(key, 24, "%012" PRId64, number); }

void np_replay_job_see(int64_t number, int64_t version, struct np_writeset *ws) {
  char key[24];
  struct np_op *op = np_writeset_add(ws, NP_OP_SEEN);
  op->as.seen.space = np_writeset_text(ws, NP_REPLAY_SPACE, strlen(NP_REPLAY_SPACE));
  op->as.seen.key = np_writeset_text(ws, key, np_replay_job_key(number, key));
  op->as.seen.version = version;
}

void np_replay_job_put(const struct np_replay_job *j, struct np_writeset *ws) {
  struct np_buf b = {0};
  char key[24];
  size_t n = np_replay_job_key(j->number, key);
  np_buf_addc(&b, '{');
  np_replay_job_add(j, &b);
  add_text(&b, "print", j->print);
  np_buf_addc(&b, '}');
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, NP_REPLAY_SPACE, strlen(NP_REPLAY_SPACE));
  op->as.put.key = np_writeset_text(ws, key, n);
  op->as.put.value = np_writeset_text(ws, b.data, b.len);
  op->as.put.expires = j->ended ? j->ended + KEPT_MS : 0;
  np_buf_free(&b);
}

struct reading {
  struct np_replay_job *j;
  const char *text;
  size_t len;
};

static char *take_text(lua_State *L, const char *name) {
  char *copy = lua_getfield(L, -1, name) == LUA_TSTRING ? np_strdup(lua_tostring(L, -1)) : NULL;
  lua_pop(L, 1);
  return copy;
}

static int64_t take_number(lua_State *L, const char *name) {
  lua_getfield(L, -1, name);
  int64_t n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return n;
}

/* Protected. What it has taken is in the job, and so is freed with it. */
static int read_row(lua_State *L) {
  struct reading *r = lua_touserdata(L, 1);
  struct np_replay_job *j = r->j;
  struct np_error err;
  if (np_json_decode(L, r->text, r->len, &err) < 0) return luaL_error(L, "%s", err.text);
  luaL_checktype(L, -1, LUA_TTABLE);
  for (size_t i = 0; i < NUMBERS; i++) *number_at(j, i) = take_number(L, numbers[i].name);
  for (size_t i = 0; i < TEXTS; i++) *text_at(j, i) = take_text(L, texts[i].name);
  for (int i = 0; i < NP_REPLAY_NAMES; i++) j->names[i] = take_text(L, names[i]);
  j->generation = (int)take_number(L, "generation");
  lua_getfield(L, -1, "again");
  j->again = lua_toboolean(L, -1);
  lua_pop(L, 1);
  char *print = take_text(L, "print"), *state = take_text(L, "state");
  snprintf(j->print, sizeof j->print, "%s", print ? print : "");
  j->state = NP_REPLAY_STATES;
  for (int i = 0; i < NP_REPLAY_STATES; i++)
    if (state && strcmp(states[i], state) == 0) j->state = (enum np_replay_state)i;
  free(print), free(state);
  if (!j->rule || !j->number || j->state == NP_REPLAY_STATES || j->rate < 1 || j->period < 1)
    return luaL_error(L, "the row of a replay makes no sense");
  return 0;
}

int np_replay_job_read(struct np_replay_job *j, const char *text, size_t len, struct np_error *err) {
  struct reading r = {j, text, len};
  *j = (struct np_replay_job){0};
  lua_State *L = luaL_newstate();
  if (!L) abort(); /* out of memory */
  lua_pushcfunction(L, read_row);
  lua_pushlightuserdata(L, &r);
  int status = lua_pcall(L, 1, 0, 0) == LUA_OK ? 0 : np_fail(err, "%s", lua_tostring(L, -1));
  lua_close(L);
  if (status < 0) np_replay_job_clear(j);
  return status;
}

int np_replay_job_load(struct np_reader *r, int64_t number, struct np_replay_job *j, int64_t *version, struct np_error *err) {
  struct np_buf value = {0};
  char key[24];
  int64_t unused;
  size_t n = np_replay_job_key(number, key);
  int found = np_reader_get(r, NP_REPLAY_SPACE, key, n, np_now_ms(), &value, version ? version : &unused, err);
  if (found == 1 && np_replay_job_read(j, value.data, value.len, err) < 0) found = -1;
  np_buf_free(&value);
  return found;
}

void np_replay_job_clear(struct np_replay_job *j) {
  for (size_t i = 0; i < TEXTS; i++) free(*text_at(j, i));
  for (int i = 0; i < NP_REPLAY_NAMES; i++) free(j->names[i]);
  *j = (struct np_replay_job){0};
}

void np_replay_job_stop(struct np_replay_job *j, const char *why) {
  char *copy = np_strdup(why);
  free(j->why);
  j->why = copy;
  j->state = NP_REPLAY_STOPPED;
  j->ended = np_now_ms();
}

struct np_filter *np_replay_filter(const char *const patterns[NP_REPLAY_NAMES], struct np_error *err) {
  lua_State *L = luaL_newstate();
  if (!L) abort(); /* out of memory */
  lua_newtable(L);
  for (int i = 0; i < NP_REPLAY_NAMES; i++) {
    if (!patterns[i]) continue;
    lua_pushstring(L, patterns[i]);
    lua_setfield(L, -2, names[i]);
  }
  struct np_filter *f = np_filter_compile(L, 1, err);
  lua_close(L);
  return f;
}
