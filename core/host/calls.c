/* Commands. The order of events is that of requests (web.c): handler, write set, commit, and only then the answer. */
#include "host/calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/log.h"
#include "base/near.h"
#include "host/alarm.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/replay.h"
#include "host/state.h"
#include "host/task.h"
#include "lib/json.h"

#define TRIES 100    /* of a handler whose reads were overtaken by another commit */
#define NEAR_MAX 256 /* names that a misspelt one is compared with */

struct running {
  struct np_waiter waiter; /* first: the keeper's answer finds its way back by it */
  struct np_calls *calls;  /* borrowed */
  struct running *next, **prev;
  struct np_call *call;             /* owned */
  struct np_instance *in;           /* pinned: it ends on the generation that it began on */
  const struct np_command *command; /* borrowed from in's code */
  struct np_task task;
  struct np_overlay overlay;
  struct np_writeset *ws; /* owned until submitted */
  int tries;
  struct np_alarm later; /* what its connection keeps is being migrated: it runs again after that */
  bool handling;         /* the handler runs or waits */
  bool declined;         /* it returned nil and why, or the arguments are not as declared; the answer says so */
};

struct np_calls {
  struct np_lane *lane; /* borrowed */
  struct running *all;  /* owned */
  bool closing;
};

struct np_call *np_call_new(const char *connection) {
  struct np_call *call = np_alloc(sizeof *call);
  call->connection = np_strdup(connection);
  return call;
}

void np_call_free(struct np_call *call) {
  if (!call) return;
  free(call->connection), free(call->name), free(call->args), free(call->requests);
  np_buf_free(&call->answer);
  free(call);
}

/* Answers */

void np_call_answer(struct np_call *call) { np_mailbox_force(call->back, &call->node); }

/* kind: JSON, a string or a number. */
static void tell_error(struct np_call *call, const char *field, const char *reason, const char *kind) {
  struct np_buf *b = &call->answer, whole = {0};
  np_buf_addf(&whole, "%s%s%s", field, *field ? ": " : "", reason);
  char *masked = np_mask_text(whole.data, whole.len);
  call->failed = true;
  np_buf_clear(b);
  np_buf_adds(b, "{\"error\":");
  np_buf_add_json(b, masked, strlen(masked));
  np_buf_addf(b, ",\"kind\":%s,\"field\":", kind);
  np_buf_add_json(b, field, strlen(field));
  np_buf_adds(b, "}\n");
  free(masked);
  np_buf_free(&whole);
}

static void refuse(struct np_call *call, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void refuse(struct np_call *call, const char *kind, const char *format, ...) {
  char *reason;
  va_list args;
  va_start(args, format);
  if (vasprintf(&reason, format, args) < 0) abort();
  va_end(args);
  tell_error(call, "", reason, kind);
  free(reason);
}

void np_call_refuse(struct np_call *call, const char *reason) { tell_error(call, "", reason, "\"refused\""); }

static void list_commands(struct np_call *call, const struct np_code *code) {
  struct np_buf *b = &call->answer;
  for (size_t i = 0; i < code->command_count; i++) {
    const struct np_command *c = &code->commands[i];
    np_buf_adds(b, "{\"command\":");
    np_buf_add_json(b, c->name, strlen(c->name));
    if (c->about) {
      np_buf_adds(b, ",\"about\":");
      np_buf_add_json(b, c->about, strlen(c->about));
    }
    np_buf_addf(b, ",\"args\":%s}\n", c->args_json);
  }
  np_buf_addf(b, "{\"summary\":{\"commands\":%zu}}\n", code->command_count);
}

/* A call under way */

static void run(struct running *r);

static void end(struct running *r) {
  struct np_lane *lane = r->calls->lane;
  *r->prev = r->next;
  if (r->next) r->next->prev = r->prev;
  np_alarm_stop(&r->later);
  np_overlay_free(&r->overlay);
  if (r->ws) np_writeset_unref(r->ws);
  np_lane_unpin(lane, r->in);
  if (r->calls->closing)
    np_call_free(r->call);
  else
    np_call_answer(r->call);
  free(r);
}

static void log_end(const struct running *r, const char *outcome, const char *error) {
  char generation[16];
  snprintf(generation, sizeof generation, "%d", r->in->code->number);
  np_log(error ? NP_ERROR : NP_INFO, error ? "a command failed; nothing of it is kept" : "a command was called", "plugin",
         r->in->code->instance, "command", r->command->name, "generation", generation, "outcome", outcome, "error", error, NULL);
}

static void fail(struct running *r, const char *kind, const char *error) {
  log_end(r, NULL, error);
  tell_error(r->call, "", error, kind);
  end(r);
}

/* By the generation that is in force, where what its connection keeps was migrated since it began. */
static void run_again(void *arg) {
  struct running *r = arg;
  struct np_lane *lane = r->calls->lane;
  if (np_state_is_migrating(lane)) {
    np_alarm_set(&r->later, NP_STATE_WAIT);
    return;
  }
  struct np_instance *in = np_state_successor(lane, r->in);
  for (size_t i = 0; in != r->in && i < in->code->command_count; i++) {
    if (strcmp(in->code->commands[i].name, r->call->name) != 0) continue;
    np_lane_pin(lane, in);
    np_lane_unpin(lane, r->in);
    r->in = in;
    r->command = &in->code->commands[i];
  }
  run(r);
}

static void wait_and_run(struct running *r) {
  r->later = (struct np_alarm){.lane = r->calls->lane, .fn = run_again, .arg = r};
  run_again(r);
}

static void answered(struct np_waiter *waiter, struct np_writeset *ws) {
  struct running *r = (struct running *)waiter;
  enum np_outcome outcome = ws->outcome;
  char why[sizeof ws->error];
  memcpy(why, ws->error, sizeof why);
  np_writeset_unref(ws);
  if (outcome == NP_COMMITTED) {
    log_end(r, "done", NULL);
    end(r);
  } else if (outcome == NP_CONFLICT && (np_state_is_migrating(r->calls->lane) || ++r->tries < TRIES)) {
    wait_and_run(r);
  } else {
    fail(r, "\"store\"", outcome == NP_CONFLICT ? "others kept changing what it reads" : why);
  }
}

static void commit(struct running *r) {
  struct np_writeset *ws = r->ws;
  r->ws = NULL;
  if (!ws->first) { /* it read, and wrote nothing */
    np_writeset_unref(ws);
    log_end(r, "done", NULL);
    end(r);
    return;
  }
  r->waiter.answered = answered;
  if (np_lane_submit(r->calls->lane, ws, &r->waiter, true) == 0) return;
  np_writeset_unref(ws);
  fail(r, "\"store\"", "neap is stopping");
}

static void after_handler(struct np_task *t) {
  struct running *r = t->owner;
  bool excused = np_state_excuses(r->calls->lane, r->in, &r->overlay);
  r->handling = false;
  np_overlay_free(&r->overlay);
  if (r->calls->closing) return;
  if ((t->failed || r->declined) && excused) {
    np_writeset_unref(r->ws);
    r->ws = NULL;
    wait_and_run(r);
    return;
  }
  if (t->failed) {
    fail(r, "\"failed\"", t->error);
  } else if (r->declined) {
    log_end(r, "refused", NULL);
    end(r);
  } else {
    commit(r);
  }
}

/* In the protected call */

/* A handler's nil, why [, kind [, field]]. */
static void take_refusal(lua_State *L, struct running *r, int first, int n) {
  char kind[200] = "\"refused\"";
  const char *field = n > 3 && lua_type(L, first + 3) == LUA_TSTRING ? lua_tostring(L, first + 3) : "";
  int type = n > 2 ? lua_type(L, first + 2) : LUA_TNIL;
  if (type == LUA_TSTRING || type == LUA_TNUMBER) {
    struct np_error err;
    if (np_json_encode(L, first + 2, &err) < 0) luaL_error(L, "a refusal's kind %s", err.text);
    if (lua_rawlen(L, -1) < sizeof kind) strcpy(kind, lua_tostring(L, -1));
  }
  tell_error(r->call, field, lua_tostring(L, first + 1), kind);
  r->declined = true;
}

static void take_result(lua_State *L, struct np_task *t, int n) {
  struct running *r = t->owner;
  struct np_buf *b = &r->call->answer;
  struct np_error err;
  int first = lua_gettop(L) - n + 1;
  luaL_checkstack(L, 8, NULL);
  if (n > 1 && lua_isnil(L, first) && lua_type(L, first + 1) == LUA_TSTRING) {
    take_refusal(L, r, first, n);
    return;
  }
  if (n == 0 || lua_isnil(L, first))
    lua_pushliteral(L, "null");
  else if (np_json_encode(L, first, &err) < 0)
    luaL_error(L, "the command's result %s", err.text);
  size_t len;
  const char *json = lua_tolstring(L, -1, &len);
  np_buf_clear(b);
  np_buf_adds(b, "{\"result\":");
  np_buf_add(b, json, len);
  np_buf_adds(b, "}\n");
}

/* A name in the table at args that the declaration does not have: true, and the answer says so. */
static bool refuse_unknown(lua_State *L, struct running *r, int args) {
  np_schema_push(L, r->command->args);
  int known = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, args); lua_pop(L, 1)) {
    size_t len, n = 0;
    const char *names[NEAR_MAX], *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &len) : NULL;
    if (!name) continue;
    lua_pushvalue(L, -2);
    if (lua_rawget(L, known) != LUA_TNIL) {
      lua_pop(L, 1);
      continue;
    }
    for (lua_pushnil(L); n < NEAR_MAX && lua_next(L, known); lua_pop(L, 1)) names[n++] = lua_tostring(L, -2);
    const char *meant = np_near(name, len, names, n);
    char reason[200];
    snprintf(reason, sizeof reason, "no such argument%s%.80s%s", meant ? ", did you mean \"" : "", meant ? meant : "",
             meant ? "\"?" : "");
    tell_error(r->call, name, reason, "\"unknown\"");
    return true;
  }
  return false;
}

static int push_args(lua_State *L, struct np_task *t) {
  struct running *r = t->owner;
  struct np_error err;
  struct np_problem problem;
  const char *args = r->call->args ? r->call->args : "{}";
  luaL_checkstack(L, 16, NULL);
  if (np_json_decode(L, args, strlen(args), &err) < 0) luaL_error(L, "arguments: %s", err.text);
  int at = lua_gettop(L);
  struct np_schema_check how = {.from_text = r->call->from_text, .arena = &t->arena, .people = &t->people};
  int result = np_schema_check(L, r->command->args, at, &how, &problem);
  np_mask_people(t->people);
  if (result < 0) {
    char kind[40];
    snprintf(kind, sizeof kind, "\"%s\"", problem.kind);
    tell_error(r->call, problem.field, problem.reason, kind);
  }
  r->declined = result < 0 || (!r->call->any_args && refuse_unknown(L, r, at));
  lua_settop(L, at);
  if (!r->declined) return 1;
  t->take = NULL;
  return -1;
}

static void run(struct running *r) {
  r->ws = np_writeset_new();
  r->declined = r->call->failed = false;
  r->handling = true;
  r->task = (struct np_task){.in = r->in,
                             .mode = NP_COMMANDING,
                             .ws = r->ws,
                             .overlay = &r->overlay,
                             .handler = r->command->handler,
                             .where = r->command->name,
                             .push = push_args,
                             .take = take_result,
                             .ended = after_handler,
                             .owner = r};
  np_task_start(&r->task);
}

/* Which? */

static const char *near_connection(const struct np_epoch *e, const char *name) {
  const char *names[NEAR_MAX];
  size_t n = 0;
  for (size_t i = 0; i < e->slot_count && n < NEAR_MAX; i++)
    if (e->slots[i].kind == NP_VENDOR) names[n++] = e->slots[i].instance;
  return np_near(name, strlen(name), names, n);
}

static const struct np_command *find_command(const struct np_code *code, struct np_call *call) {
  const char *names[NEAR_MAX] = {0};
  size_t n = 0;
  for (size_t i = 0; i < code->command_count; i++) {
    if (strcmp(code->commands[i].name, call->name) == 0) return &code->commands[i];
    if (n < NEAR_MAX) names[n++] = code->commands[i].name;
  }
  const char *meant = np_near(call->name, strlen(call->name), names, n);
  if (meant)
    refuse(call, "\"unknown\"", "%s has no command \"%.80s\", did you mean \"%s\"?", call->connection, call->name, meant);
  else if (n)
    refuse(call, "\"unknown\"", "%s has no command \"%.80s\": neap call %s lists those that it has", call->connection, call->name,
           call->connection);
  else
    refuse(call, "\"unknown\"", "%s has no commands", call->connection);
  return NULL;
}

/* NULL, and the answer says why. */
static struct np_instance *find_instance(struct np_lane *lane, struct np_call *call) {
  const struct np_slot *slot = np_epoch_slot(lane->epoch, call->connection);
  struct np_instance *in = np_lane_instance(lane, slot);
  if (lane->draining) {
    refuse(call, "\"stopping\"", "neap is stopping");
    return NULL;
  }
  if (!slot) {
    const char *meant = near_connection(lane->epoch, call->connection);
    refuse(call, "\"unknown\"", "no connection \"%.80s\"%s%s%s", call->connection,
           meant ? ", did you mean \"" : ": neap plugins lists them", meant ? meant : "", meant ? "\"?" : "");
  } else if (!in) {
    refuse(call, "\"held\"", "%s is not in force: %s", call->connection, slot->why_not ? slot->why_not : "its file is broken");
  } else if (in->code->kind != NP_VENDOR) {
    refuse(call, "\"unknown\"", "%s is a %s: commands are a connection's", call->connection, np_kind_names[in->code->kind]);
  } else if ((call->name || call->requests) && np_quarantine_holds(in)) {
    char *why = np_quarantine_text(in->code);
    refuse(call, "\"quarantined\"", "%s is %s: neap release %s", call->connection, why, call->connection);
    free(why);
  } else {
    return in;
  }
  return NULL;
}

void np_calls_take(struct np_calls *c, struct np_call *call) {
  struct np_instance *in = find_instance(c->lane, call);
  if (in && call->requests) {
    np_replays_take(c->lane->replays, call);
    return;
  }
  const struct np_command *command = in && call->name ? find_command(in->code, call) : NULL;
  if (!command) {
    if (in && !call->name) list_commands(call, in->code);
    np_call_answer(call);
    return;
  }
  struct running *r = np_alloc(sizeof *r);
  *r = (struct running){.calls = c, .next = c->all, .prev = &c->all, .call = call, .in = in, .command = command};
  if (r->next) r->next->prev = &r->next;
  c->all = r;
  np_lane_pin(c->lane, in);
  run(r);
}

struct np_calls *np_calls_new(struct np_lane *lane) {
  struct np_calls *c = np_alloc(sizeof *c);
  c->lane = lane;
  return c;
}

void np_calls_free(struct np_calls *c) {
  if (!c) return;
  c->closing = true;
  for (struct running *r; (r = c->all);) {
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): end has unlinked the one before */
    if (r->handling) np_task_kill(&r->task, "neap is stopping");
    end(r);
  }
  free(c);
}
