/* Reads what a chunk has declared. */
#include "host/declare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/near.h"
#include "host/config.h"
#include "host/hosts.h"
#include "lib/json.h"

struct np_code *np_declare_new(const struct np_order *order) {
  struct np_code *c = np_alloc(sizeof *c);
  c->refs = 1;
  np_quarantine_init(&c->quarantine);
  c->instance = np_strdup(order->instance);
  c->plugin = np_strdup(order->plugin);
  c->file = np_strdup(order->source.path);
  c->mount = np_strdup(order->mount ? order->mount : "");
  c->settings = np_strdup(order->settings ? order->settings : "{}");
  c->limits = order->limits;
  c->terms = np_terms_default();
  c->people = order->people;
  c->sees = np_alloc((order->show_count + 1) * sizeof *c->sees);
  c->sees[c->see_count++] = np_strdup(order->instance);
  for (size_t i = 0; i < order->show_count; i++) {
    if (strcmp(order->shows[i], "*") == 0)
      c->sees_all = true;
    else
      c->sees[c->see_count++] = np_strdup(order->shows[i]);
  }
  return c;
}

void np_code_note(struct np_code *c, bool failed) {
  uint64_t was = atomic_load_explicit(&c->outcomes, memory_order_relaxed), now;
  const uint64_t bits = (UINT64_C(1) << NP_OUTCOMES) - 1;
  do {
    now = ((was >> NP_OUTCOMES) + 1) << NP_OUTCOMES | ((was << 1 | failed) & bits);
  } while (!atomic_compare_exchange_weak_explicit(&c->outcomes, &was, now, memory_order_relaxed, memory_order_relaxed));
}

void np_code_ref(struct np_code *c) { __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED); }

static void free_strings(char **list, size_t n) {
  for (size_t i = 0; i < n; i++) free(list[i]);
  free(list);
}

void np_code_unref(struct np_code *c) {
  if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  for (size_t i = 0; i < c->route_count; i++) {
    struct np_route *r = &c->routes[i];
    free(r->method), free(r->pattern), free(r->about);
    np_schema_free(r->query), np_schema_free(r->path), np_schema_free(r->body);
  }
  for (size_t i = 0; i < c->on_count; i++) np_filter_free(c->ons[i].filter);
  for (size_t i = 0; i < c->job_count; i++) free(c->jobs[i].name);
  for (size_t i = 0; i < c->timer_count; i++) free(c->timers[i].name);
  for (size_t i = 0; i < c->command_count; i++) {
    free(c->commands[i].name), free(c->commands[i].about), free(c->commands[i].args_json);
    np_schema_free(c->commands[i].args);
  }
  for (size_t i = 0; i < c->account_count; i++) free(c->accounts[i].name);
  for (size_t i = 0; i < c->budget_count; i++) free(c->budgets[i].name);
  free(c->accounts), free(c->budgets), free(c->migrations);
  free(c->routes), free(c->ons), free(c->jobs), free(c->timers), free(c->commands);
  np_schema_free(c->options);
  np_terms_free(&c->terms);
  free_strings(c->hosts, c->host_count);
  free_strings(c->libraries, c->library_count);
  free(c->library_hashes);
  free_strings(c->keys, c->key_count);
  free_strings(c->derives, c->derive_count);
  free_strings(c->sees, c->see_count);
  np_quarantine_destroy(&c->quarantine);
  free(c->instance), free(c->plugin), free(c->file), free(c->mount), free(c->settings), free(c->hash);
  free(c);
}

void np_declare_library(struct np_build *b, const char *name) {
  if (!b->first) return;
  struct np_code *c = b->code;
  c->libraries = np_realloc(c->libraries, (c->library_count + 1) * sizeof *c->libraries);
  c->libraries[c->library_count++] = np_strdup(name);
}

/* What a setting is for, where that helps whoever has left it out or written it otherwise. */
static const char *about_setting(lua_State *L, int schema_at, const struct np_problem *problem) {
  if (strcmp(problem->kind, "missing") != 0 && strcmp(problem->kind, "pattern") != 0) return NULL;
  if (lua_getfield(L, schema_at, problem->field) != LUA_TTABLE) return NULL;
  return lua_getfield(L, -1, "about") == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
}

/* Settings: decoded, checked against the schema at schema_at, kept; pushes the table. */
static void check_settings(lua_State *L, struct np_build *b, int schema_at, struct np_schema *schema) {
  const struct np_order *order = b->order;
  struct np_error err;
  struct np_problem problem;
  const char *settings = order->settings ? order->settings : "{}";
  if (np_json_decode(L, settings, strlen(settings), &err) < 0) luaL_error(L, "settings: %s", err.text);
  int at = lua_gettop(L);
  struct np_schema_check how = {.destination = order->destination, .arg = order->arg};
  if (np_schema_check(L, schema, at, &how, &problem) < 0) {
    b->unconfigured = !order->configured && strcmp(problem.kind, "missing") == 0;
    const char *about = about_setting(L, schema_at, &problem);
    lua_pushfstring(L, "%s: setting %s: %s%s%s%s", order->settings_at ? order->settings_at : order->source.path, problem.field,
                    problem.reason, about ? " (" : "", about ? about : "", about ? ")" : "");
    lua_error(L); /* no line of the prelude before it */
  }
  np_hosts_collect(L, at, b->code, b->first);
  lua_pushvalue(L, at);
  b->in->settings = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushnil(L); /* any setting that the schema does not know? */
  while (lua_next(L, at)) {
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    if (lua_gettable(L, schema_at) == LUA_TNIL) {
      lua_pop(L, 1);
      lua_pushvalue(L, at);
      lua_insert(L, -2);
      return; /* settings, name */
    }
    lua_pop(L, 1);
  }
  lua_pushvalue(L, at);
  lua_pushnil(L);
}

/* A schema lives in a userdata until it is handed to the code, so that an error between cannot leak it. */
static int free_schema(lua_State *L) {
  struct np_schema **s = lua_touserdata(L, 1);
  np_schema_free(*s);
  *s = NULL;
  return 0;
}

static struct np_schema **compile_schema(lua_State *L, int idx, const char *what) {
  struct np_error err;
  idx = lua_absindex(L, idx);
  struct np_schema **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_newmetatable(L, "neap.schema")) {
    lua_pushcfunction(L, free_schema);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  *box = np_schema_compile(L, idx, &err);
  if (!*box) np_place_raise(L, "%s: %s", what, err.text);
  return box;
}

int np_declare_config(lua_State *L) {
  struct np_build *b = ((struct np_instance *)np_env(L))->building;
  if (!b) return luaL_error(L, "plugin:config: call it while the file is loaded");
  struct np_schema **schema = compile_schema(L, 1, "plugin:config");
  np_declare_stage(b, NP_STAGE_CONFIGURATION);
  check_settings(L, b, 1, *schema);
  np_declare_stage(b, NP_STAGE_DECLARATIONS);
  return 2;
}

static struct np_schema *take_schema(lua_State *L, int table, const char *field, const char *what) {
  struct np_schema *s = NULL;
  if (lua_getfield(L, table, field) != LUA_TNIL) {
    char where[160];
    snprintf(where, sizeof where, "plugin:serve %s, %s", what, field);
    struct np_schema **box = compile_schema(L, -1, where);
    s = *box;
    *box = NULL;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return s;
}

static char *take_string(lua_State *L, int table, const char *field) {
  lua_getfield(L, table, field);
  const char *s = lua_tostring(L, -1);
  char *copy = s ? np_strdup(s) : NULL;
  lua_pop(L, 1);
  return copy;
}

/* One that the prelude has seen to be a string. */
static char *take_name(lua_State *L, int table, const char *field) {
  char *s = take_string(L, table, field);
  if (!s) luaL_error(L, "%s of what was registered is no string", field);
  return s;
}

static int take_int(lua_State *L, int table, const char *field) {
  lua_getfield(L, table, field);
  int n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return n;
}

static void read_body_max(lua_State *L, int at, struct np_route *r) {
  int type = lua_getfield(L, at, "body_max");
  if (type == LUA_TNUMBER && lua_tonumber(L, -1) >= 0)
    r->body_max = (size_t)lua_tonumber(L, -1);
  else if (type == LUA_TSTRING && np_config_bytes(lua_tostring(L, -1), &r->body_max) == 0)
    r->body_max = r->body_max;
  else if (type != LUA_TNIL)
    luaL_error(L, "plugin:serve %s %s: body_max has to be a number of bytes or such as \"4MiB\"", r->method, r->pattern);
  lua_pop(L, 1);
}

static void read_route(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  c->routes = np_realloc(c->routes, (c->route_count + 1) * sizeof *c->routes);
  struct np_route *r = &c->routes[c->route_count++];
  *r = (struct np_route){.code = c, .method = take_name(L, at, "method")};
  char *pattern = take_name(L, at, "pattern");
  struct np_buf whole = {0};
  np_buf_adds(&whole, c->mount);
  np_buf_adds(&whole, pattern);
  free(pattern);
  r->pattern = whole.data;
  r->about = take_string(L, at, "about");
  char what[120];
  snprintf(what, sizeof what, "%s %s", r->method, r->pattern);
  r->query = take_schema(L, at, "query", what);
  r->path = take_schema(L, at, "path", what);
  r->body = take_schema(L, at, "body", what);
  lua_getfield(L, at, "body_whole");
  r->body_whole = lua_toboolean(L, -1);
  lua_getfield(L, at, "keep");
  r->keep = lua_toboolean(L, -1);
  lua_pop(L, 2);
  read_body_max(L, at, r);
  r->handler = take_int(L, at, "handler");
  r->auth = take_int(L, at, "auth");
  r->sealed = r->auth || np_schema_is_private(r->query) || np_schema_is_private(r->path) || np_schema_is_private(r->body);
}

static void read_on(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  struct np_error err;
  lua_getfield(L, at, "filter");
  struct np_filter *filter = np_filter_compile(L, -1, &err);
  if (!filter) luaL_error(L, "plugin:on: %s", err.text);
  c->ons = np_realloc(c->ons, (c->on_count + 1) * sizeof *c->ons);
  struct np_on *on = &c->ons[c->on_count++];
  *on = (struct np_on){.filter = filter};
  int same = 1;
  for (struct np_on *other = c->ons; other < on; other++)
    if (strcmp(np_filter_hash(other->filter), np_filter_hash(filter)) == 0) same++;
  snprintf(on->memory, sizeof on->memory, same > 1 ? "%s#%d" : "%s", np_filter_hash(filter), same);
  lua_pop(L, 1);
  c->ons[c->on_count - 1].handler = take_int(L, at, "handler");
}

static void read_job(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  c->jobs = np_realloc(c->jobs, (c->job_count + 1) * sizeof *c->jobs);
  struct np_job *j = &c->jobs[c->job_count++];
  *j = (struct np_job){.name = take_name(L, at, "name")};
  lua_getfield(L, at, "period");
  j->period = lua_tointeger(L, -1);
  lua_pop(L, 1);
  j->handler = take_int(L, at, "handler");
}

static void read_timer(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  c->timers = np_realloc(c->timers, (c->timer_count + 1) * sizeof *c->timers);
  struct np_timer_decl *t = &c->timers[c->timer_count++];
  *t = (struct np_timer_decl){.name = take_name(L, at, "name")};
  t->handler = take_int(L, at, "handler");
}

static void read_derived(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  c->derives = np_realloc(c->derives, (c->derive_count + 1) * sizeof *c->derives);
  c->derives[c->derive_count] = take_name(L, at, "metric");
  c->derive_count++;
}

static void read_command(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  struct np_error err;
  c->commands = np_realloc(c->commands, (c->command_count + 1) * sizeof *c->commands);
  struct np_command *command = &c->commands[c->command_count++];
  *command = (struct np_command){.name = take_name(L, at, "name"), .about = take_string(L, at, "about")};
  char what[120];
  snprintf(what, sizeof what, "plugin:command %.80s, args", command->name);
  lua_getfield(L, at, "args");
  struct np_schema **box = compile_schema(L, -1, what);
  command->args = *box;
  *box = NULL;
  np_schema_push(L, command->args);
  if (np_json_encode(L, -1, &err) < 0) luaL_error(L, "%s: %s", what, err.text);
  command->args_json = np_strdup(lua_tostring(L, -1));
  lua_settop(L, at);
  command->handler = take_int(L, at, "handler");
}

static void read_account(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  c->accounts = np_realloc(c->accounts, (c->account_count + 1) * sizeof *c->accounts);
  struct np_account_decl *a = &c->accounts[c->account_count++];
  *a = (struct np_account_decl){.name = take_name(L, at, "name"), .early = -1};
  if (lua_getfield(L, at, "early") != LUA_TNIL) a->early = lua_tointeger(L, -1);
  lua_pop(L, 1);
  a->handler = take_int(L, at, "handler");
}

static double take_number(lua_State *L, int table, const char *field) {
  lua_getfield(L, table, field);
  double n = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return n;
}

static void read_budget(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  c->budgets = np_realloc(c->budgets, (c->budget_count + 1) * sizeof *c->budgets);
  struct np_budget_decl *d = &c->budgets[c->budget_count++];
  *d = (struct np_budget_decl){.name = take_name(L, at, "name")};
  d->per_second = take_number(L, at, "per_second");
  d->per_minute = take_number(L, at, "per_minute");
  d->per_month = (int64_t)take_number(L, at, "per_month");
}

static void read_migration(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  c->migrations = np_realloc(c->migrations, (c->migration_count + 1) * sizeof *c->migrations);
  struct np_migration *m = &c->migrations[c->migration_count++];
  *m = (struct np_migration){.from = take_int(L, at, "from")};
  m->handler = take_int(L, at, "handler");
}

static void take_place(lua_State *L, int at, struct np_build *b) {
  lua_getfield(L, at, "place");
  snprintf(b->place, sizeof b->place, "%s", lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "");
  lua_pop(L, 1);
}

static size_t read_list(lua_State *L, int at, struct np_build *b, const char *field,
                        void (*read)(lua_State *, int, struct np_build *)) {
  lua_getfield(L, at, field);
  size_t n = lua_rawlen(L, -1);
  for (size_t i = 1; read && i <= n; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i);
    take_place(L, lua_gettop(L), b);
    read(L, lua_gettop(L), b);
    lua_pop(L, 1);
  }
  b->place[0] = 0;
  lua_pop(L, 1);
  return n;
}

int np_declare_terms(lua_State *L) {
  struct np_terms t = np_terms_default();
  struct np_error err;
  int failed = np_terms_read(L, 1, &t, &err);
  np_terms_free(&t);
  if (!failed) return 0;
  lua_pushstring(L, err.text);
  return 1;
}

/* The plugin's own terms, and over them what the entry in neap.lua says. A handler that was written for one message is given no more: it would say of all
 * of them what became of the first. */
static void read_terms(lua_State *L, int declared, bool several, struct np_build *b) {
  const struct np_order *order = b->order;
  struct np_error err;
  int top = lua_gettop(L);
  if (np_terms_read(L, declared, &b->code->terms, &err) < 0) luaL_error(L, "plugin:deliver: %s", err.text);
  if (!order->delivery) return;
  several |= b->code->terms.batch > 1;
  if (np_json_decode(L, order->delivery, strlen(order->delivery), &err) < 0 || np_terms_known(L, -1, &err) < 0 ||
      np_terms_read(L, -1, &b->code->terms, &err) < 0) {
    lua_pushfstring(L, "%s.delivery.%s", order->settings_at, err.text);
    lua_error(L);
  }
  if (b->code->terms.batch > 1 && !several) {
    lua_pushfstring(
        L, "%s.delivery.batch: %s takes one message at a time; a plugin whose handler takes more says so by several = true",
        order->settings_at, order->plugin);
    lua_error(L);
  }
  lua_settop(L, top);
}

#define NAMES 100

/* Of the names of a declaration. */
static const char *nearest(lua_State *L, int schema, const char *name) {
  const char *names[NAMES];
  size_t n = 0;
  for (lua_pushnil(L); n < NAMES && lua_next(L, schema); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING) names[n++] = lua_tostring(L, -2);
  return np_near(name, strlen(name), names, n);
}

static void read_deliver(lua_State *L, int at, struct np_build *b) {
  struct np_code *c = b->code;
  if (lua_getfield(L, at, "deliver") != LUA_TNIL) {
    int deliver = lua_gettop(L);
    take_place(L, deliver, b);
    lua_getfield(L, deliver, "options");
    struct np_schema **schema = compile_schema(L, -1, "plugin:deliver options");
    if (b->in->settings == LUA_NOREF) { /* it may also have taken settings by plugin:config: then these are `to` */
      check_settings(L, b, deliver + 1, *schema);
      const char *unknown = lua_tostring(L, -1);
      if (unknown) {
        const char *meant = nearest(L, deliver + 1, unknown);
        luaL_error(L, meant ? "%s: unknown setting \"%s\", did you mean \"%s\"?" : "%s: unknown setting \"%s\"",
                   b->order->settings_at ? b->order->settings_at : b->order->source.path, unknown, meant);
      }
      lua_pop(L, 2);
    }
    if (b->first) {
      c->options = *schema;
      *schema = NULL;
      lua_getfield(L, deliver, "terms");
      lua_getfield(L, deliver, "several");
      read_terms(L, lua_gettop(L) - 1, lua_toboolean(L, -1), b);
      lua_pop(L, 2);
      c->deliver = take_int(L, deliver, "handler");
    }
    b->place[0] = 0;
    lua_settop(L, deliver);
  } else if (b->order->delivery) {
    lua_pushfstring(L, "%s.delivery: %s delivers nothing", b->order->settings_at, b->order->plugin);
    lua_error(L);
  }
  lua_pop(L, 1);
}

static enum np_kind read_kind(lua_State *L, int at) {
  lua_getfield(L, at, "kind");
  const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  lua_pop(L, 1);
  return strcmp(name, "rule") == 0 ? NP_RULE : strcmp(name, "destination") == 0 ? NP_DESTINATION : NP_VENDOR;
}

static void refuse_stray_settings(lua_State *L, struct np_build *b) {
  if (b->in->settings != LUA_NOREF) return;
  const char *s = b->order->settings;
  if (s && strcmp(s, "{}") != 0) luaL_error(L, "%s: %s takes no settings", b->order->settings_at, b->order->plugin);
  lua_newtable(L);
  b->in->settings = luaL_ref(L, LUA_REGISTRYINDEX);
}

void np_declare_push_keys(lua_State *L, const struct np_code *code) {
  lua_createtable(L, (int)code->key_count, 0);
  for (size_t i = 0; i < code->key_count; i++) {
    lua_pushstring(L, code->keys[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "keys");
}

static void read_keys(lua_State *L, int at, struct np_code *c) {
  lua_getfield(L, at, "keys");
  for (lua_Integer i = 1; lua_rawgeti(L, -1, i) == LUA_TSTRING; i++, lua_pop(L, 1)) {
    c->keys = np_realloc(c->keys, (c->key_count + 1) * sizeof *c->keys);
    c->keys[c->key_count++] = np_strdup(lua_tostring(L, -1));
  }
  lua_pop(L, 2);
}

void np_declare_read(lua_State *L, struct np_build *b) {
  int at = lua_gettop(L);
  struct np_code *c = b->code;
  if (b->first) {
    c->kind = read_kind(L, at);
    c->limits = np_limits_default(c->kind);
    np_limits_lay(&c->limits, &b->order->limits);
    read_keys(L, at, c);
    read_list(L, at, b, "routes", read_route);
    read_list(L, at, b, "ons", read_on);
    read_list(L, at, b, "jobs", read_job);
    read_list(L, at, b, "timers", read_timer);
    read_list(L, at, b, "derives", read_derived);
    read_list(L, at, b, "commands", read_command);
    read_list(L, at, b, "accounts", read_account);
    read_list(L, at, b, "budgets", read_budget);
    read_list(L, at, b, "migrations", read_migration);
    c->refuse = take_int(L, at, "refuse");
  }
  read_deliver(L, at, b);
  refuse_stray_settings(L, b);
  size_t handlers = read_list(L, at, b, "handlers", NULL);
  if (b->first) c->handler_count = handlers;
  bool same =
      handlers == c->handler_count && read_list(L, at, b, "routes", NULL) == c->route_count &&
      read_list(L, at, b, "ons", NULL) == c->on_count && read_list(L, at, b, "jobs", NULL) == c->job_count &&
      read_list(L, at, b, "timers", NULL) == c->timer_count && read_list(L, at, b, "derives", NULL) == c->derive_count &&
      read_list(L, at, b, "commands", NULL) == c->command_count && read_list(L, at, b, "accounts", NULL) == c->account_count &&
      read_list(L, at, b, "budgets", NULL) == c->budget_count && read_list(L, at, b, "migrations", NULL) == c->migration_count;
  if (!same) luaL_error(L, "%s: registers something else each time it is loaded: that must not depend on chance or time", c->file);
  lua_getfield(L, at, "handlers");
  b->in->handlers = luaL_ref(L, LUA_REGISTRYINDEX);
}
