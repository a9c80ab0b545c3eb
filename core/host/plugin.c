/* Builds an instance: a fresh state under a budget, the sandbox, the prelude, the chunk; then what it declared is read (declare.c). */
#include "host/plugin.h"

#include "host/sources.h"
#include "host/table_csv.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/duration.h"
#include "host/account.h"
#include "host/budget.h"
#include "host/data.h"
#include "host/declare.h"
#include "host/delivery.h"
#include "host/hosts.h"
#include "host/ledger.h"
#include "host/place.h"
#include "host/sandbox.h"
#include "host/task.h"
#include "lib/json.h"
#include "lib/time.h"

extern const char _binary_core_host_host_lua_start[], _binary_core_host_host_lua_end[];

const char *const np_kind_names[3] = {"vendor", "rule", "destination"};

static const struct np_limits loading_limits = {
    .memory = 64u << 20, .instructions = 200000000, .running = 5, .total = 5, .coroutines = 1000, .log = 50, .log_burst = 200};

static void *limited_alloc(void *ud, void *ptr, size_t old, size_t size) {
  struct np_instance *in = ud;
  size_t used = atomic_load_explicit(&in->memory, memory_order_relaxed);
  if (!ptr) old = 0;
  if (size == 0) {
    free(ptr);
    atomic_store_explicit(&in->memory, used - old, memory_order_relaxed);
    return NULL;
  }
  if (size > old && used + (size - old) > in->memory_max) return NULL;
  void *p = realloc(ptr, size);
  if (p) atomic_store_explicit(&in->memory, used - old + size, memory_order_relaxed);
  return p;
}

static int panicked(lua_State *L) {
  const char *text = lua_tostring(L, -1);
  np_log(NP_ERROR, "a plugin raised outside of a protected call: this is a bug in neap", "plugin", np_env(L)->name, "error", text,
         NULL);
  return 0; /* Lua aborts */
}

static struct np_build *building(lua_State *L) {
  struct np_build *b = ((struct np_instance *)np_env(L))->building;
  if (!b) np_place_raise(L, "require it while the file is loaded, at its top");
  return b;
}

struct np_library_under_way { /* on the C stack */
  const char *name;
  const struct np_library_under_way *outer;
};

/* Without the mark that some editors put before UTF-8. */
static int load_text(lua_State *L, const struct np_source *source, const char *name) {
  size_t skip = source->len >= 3 && memcmp(source->text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
  return np_sandbox_load(L, source->text + skip, source->len - skip, name);
}

/* Its value, on the top; or what it raised. */
static int run_library(lua_State *L, struct np_build *b, const char *name) {
  struct np_library_under_way here = {.name = name, .outer = b->libraries};
  b->libraries = &here;
  lua_pushvalue(L, 1);
  int status = lua_pcall(L, 1, 1, 0);
  b->libraries = here.outer;
  return status;
}

static void refuse_circle(lua_State *L, const struct np_build *b, const char *name) {
  for (const struct np_library_under_way *l = b->libraries; l; l = l->outer) {
    if (strcmp(l->name, name) != 0) continue;
    np_place_raise(L, "library \"%s\" requires itself, by way of \"%s\": put what both need into a third", name,
                   b->libraries->name);
  }
}

static int load_library(lua_State *L) {
  struct np_build *b = building(L);
  const char *name = luaL_checkstring(L, 1);
  const struct np_source *source;
  struct np_error err;
  if (strncmp(name, NP_TABLE, strlen(NP_TABLE)) == 0)
    np_place_raise(L, "plugin:table(\"%s\") gives a table", name + strlen(NP_TABLE));
  refuse_circle(L, b, name);
  if (b->order->library(b->order->arg, name, &source, &err) < 0) return np_place_raise(L, "%s", err.text);
  lua_pushfstring(L, "@%s", source->path);
  np_declare_stage(b, NP_STAGE_SYNTAX);
  if (load_text(L, source, lua_tostring(L, -1)) != LUA_OK) return lua_error(L);
  np_declare_stage(b, NP_STAGE_DECLARATIONS);
  np_declare_library(b, name);
  return run_library(L, b, name) == LUA_OK ? 1 : lua_error(L);
}

static int print_to_log(lua_State *L) {
  luaL_Buffer b;
  int n = lua_gettop(L);
  luaL_buffinit(L, &b);
  for (int i = 1; i <= n; i++) {
    if (i > 1) luaL_addchar(&b, ' ');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  if (np_limit_log(np_env(L))) np_log(NP_INFO, lua_tostring(L, -1), "plugin", np_env(L)->name, NULL);
  return 0;
}

static int push_duration(lua_State *L) {
  int64_t ms = -1;
  if (lua_type(L, 1) == LUA_TNUMBER) {
    lua_Number seconds = lua_tonumber(L, 1);
    if (seconds >= 0 && seconds < 3.2e9) ms = (int64_t)(seconds * 1000 + 0.5);
  } else if (lua_type(L, 1) == LUA_TSTRING) {
    size_t len;
    const char *s = lua_tolstring(L, 1, &len);
    if (np_duration_parse(s, len, &ms) < 0) ms = -1;
  }
  if (ms < 0) return 0;
  lua_pushinteger(L, ms);
  return 1;
}

/* place() -> "vendors/x.lua:12: ", what calls the prelude; "" where nothing does */
static int push_place(lua_State *L) {
  char place[NP_PLACE_MAX];
  np_place(L, place);
  lua_pushstring(L, place);
  return 1;
}

/* table(name): the value of plugins/tables/NAME.csv or NAME.lua, which counts as a library that the file requires. */
static int load_table(lua_State *L) {
  struct np_build *b = building(L);
  const struct np_source *source;
  struct np_error err;
  lua_pushfstring(L, NP_TABLE "%s", luaL_checkstring(L, 1));
  lua_replace(L, 1);
  const char *name = lua_tostring(L, 1);
  refuse_circle(L, b, name);
  if (b->order->library(b->order->arg, name, &source, &err) < 0) {
    lua_pushstring(L, err.text);
    return lua_error(L);
  }
  np_declare_library(b, name);
  size_t path = strlen(source->path);
  if (path > 4 && strcmp(source->path + path - 4, ".csv") == 0) {
    np_table_csv(L, source->path, source->text, source->len);
    return 1;
  }
  lua_pushfstring(L, "@%s", source->path);
  if (load_text(L, source, lua_tostring(L, -1)) != LUA_OK || run_library(L, b, name) != LUA_OK) return lua_error(L);
  if (lua_type(L, -1) != LUA_TTABLE)
    return luaL_error(L, "%s: has to return a table, got a %s", source->path, luaL_typename(L, -1));
  return 1;
}

/* The whole of what is loaded, in one protected call: libraries, prelude, chunk, declarations. */
static int load_all(lua_State *L) {
  struct np_build *b = building(L);
  const struct np_order *order = b->order;
  struct np_instance *in = b->in;
  np_sandbox_open(L, load_library, print_to_log);
  in->env.now_slot = np_time_now_slot(L);
  size_t len = (size_t)(_binary_core_host_host_lua_end - _binary_core_host_host_lua_start);
  if (luaL_loadbufferx(L, _binary_core_host_host_lua_start, len, NP_PRELUDE, "t") != LUA_OK) return lua_error(L);
  np_ledger_open(L);
  np_data_open(L);
  lua_setfield(L, -2, "data");
  lua_pushcfunction(L, push_duration);
  lua_setfield(L, -2, "duration");
  lua_pushcfunction(L, push_place);
  lua_setfield(L, -2, "place");
  lua_pushcfunction(L, np_declare_config);
  lua_setfield(L, -2, "config");
  lua_pushcfunction(L, load_table);
  lua_setfield(L, -2, "table");
  lua_pushcfunction(L, np_declare_terms);
  lua_setfield(L, -2, "terms");
  lua_pushcfunction(L, np_account_handle);
  lua_setfield(L, -2, "account");
  lua_pushcfunction(L, np_budget_handle);
  lua_setfield(L, -2, "budget");
  lua_pushstring(L, order->instance);
  lua_setfield(L, -2, "name");
  lua_pushstring(L, order->settings_at ? order->settings_at : order->instance);
  lua_setfield(L, -2, "settings_at");
  lua_pushstring(L, order->source.path);
  lua_setfield(L, -2, "file");
  if (!b->first) np_declare_push_keys(L, b->code);
  lua_call(L, 1, 2);
  int handle = lua_gettop(L) - 1, finish = handle + 1;
  lua_pushfstring(L, "@%s", order->source.path);
  np_declare_stage(b, NP_STAGE_SYNTAX);
  if (load_text(L, &order->source, lua_tostring(L, -1)) != LUA_OK) return lua_error(L);
  np_declare_stage(b, NP_STAGE_DECLARATIONS);
  lua_pushvalue(L, handle);
  lua_call(L, 1, 0);
  lua_pushvalue(L, finish);
  lua_call(L, 0, 1);
  np_declare_read(L, b);
  return 0;
}

static struct np_instance *open_state(struct np_error *err) {
  struct np_instance *in = np_alloc(sizeof *in);
  in->memory_max = loading_limits.memory;
  in->L = lua_newstate(limited_alloc, in);
  if (!in->L) {
    free(in);
    np_fail(err, "out of memory");
    return NULL;
  }
  *(struct np_env **)lua_getextraspace(in->L) = &in->env;
  in->env = (struct np_env){.forbidden = np_task_forbidden,
                            .may_reach = np_hosts_may_reach,
                            .may_write = np_hosts_may_write,
                            .identify = np_lane_identify,
                            .succeeded = np_lane_succeeded,
                            .time_left = np_task_time_left,
                            .ticket = np_task_ticket,
                            .wake = np_task_wake,
                            .asks = np_exchange_asks,
                            .got = np_exchange_got,
                            .may_log = np_limit_log,
                            .turn = np_limit_turn,
                            .turn_came = np_limit_turn_came,
                            .turn_end = np_limit_turn_end,
                            .turns = np_limit_turns};
  in->turns.last = &in->turns.first;
  in->handlers = in->settings = LUA_NOREF;
  lua_atpanic(in->L, panicked);
  np_task_guard(in->L);
  return in;
}

/* Names the message a file already? What Lua says of a binary chunk, and an error that is no string, does not. */
static bool tells_where(const struct np_order *order, const char *message) {
  return strstr(message, ".lua:") || strstr(message, order->source.path) ||
         (order->settings_at && strstr(message, order->settings_at));
}

/* What is found wrong once the chunk has returned is told of the line that registered it. */
static void tell_failure(const struct np_build *build, lua_State *co, int status, struct np_error *err) {
  const struct np_order *order = build->order;
  const char *text = lua_type(co, -1) == LUA_TSTRING ? lua_tostring(co, -1) : NULL; /* to make text of a number may want memory */
  struct np_buf b = {0};
  if (status == LUA_ERRMEM) {
    char place[NP_PLACE_MAX]; /* such an error carries none */
    np_place(co, place);
    np_buf_addf(&b, "%sused up %zu MiB of memory while it was loaded", place, loading_limits.memory >> 20);
  } else {
    char *masked = np_mask_text(text ? text : "raised something that is not a message", text ? strlen(text) : 38);
    np_buf_adds(&b, masked);
    free(masked);
  }
  if (tells_where(order, b.data))
    np_fail(err, "%s", b.data);
  else if (build->place[0])
    np_fail(err, "%s%s", build->place, b.data);
  else
    np_fail(err, "%s: %s", order->source.path, b.data);
  np_buf_free(&b);
}

struct np_instance *np_instance_build(const struct np_order *order, struct np_code **code, bool *unconfigured,
                                      struct np_error *err) {
  struct np_instance *in = open_state(err);
  if (!in) return NULL;
  struct np_build b = {.order = order, .in = in, .first = *code == NULL};
  b.code = b.first ? np_declare_new(order) : *code;
  struct np_code limits_only = {.limits = loading_limits}; /* the hook reads its bounds here while the chunk is loaded */
  lua_State *co = lua_newthread(in->L);                    /* its stack is still there when it has failed */
  struct np_task loading = {.in = in, .mode = NP_LOADING, .co = co};
  in->env.name = b.code->instance;
  in->code = &limits_only;
  in->building = &b;
  in->running = &loading;
  lua_pushcfunction(co, load_all); /* not yieldable: it calls without a continuation */
  lua_State *outer = np_task_enter(co);
  np_task_begin_slice(&loading);
  int results, status = lua_resume(co, in->L, 0, &results);
  np_task_enter(outer);
  free(loading.over);
  np_limit_log_tell(in);
  in->running = NULL;
  in->building = NULL;
  in->code = b.code;
  if (!b.first) np_code_ref(b.code);
  if (status == LUA_OK) {
    lua_settop(in->L, 0);
    *code = b.code;
    in->memory_max = b.code->limits.memory;
    np_task_guard(in->L);
    return in;
  }
  tell_failure(&b, co, status, err);
  if (unconfigured) *unconfigured = b.unconfigured;
  lua_settop(in->L, 0);
  np_instance_close(in);
  return NULL;
}

void np_instance_close(struct np_instance *in) {
  lua_close(in->L);
  np_limit_log_tell(in);
  free(in->log.alarm);
  np_code_unref(in->code);
  free(in);
}
