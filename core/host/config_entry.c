/* Entries: a plugin, the name of its instance, where it is mounted, its limits and its settings. */
#include "host/config_entry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "host/canonical.h"
#include "lib/json.h"

#define NAME_MAX_BYTES 64

static const char *const list_names[] = {"connections", "rules", "destinations"};

struct reader {
  struct np_config *c;
  const char *shown;
  struct np_buf *scratch;
};

static bool is_name(const char *s) {
  size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
  return n > 0 && n <= NAME_MAX_BYTES && !s[n];
}

static void check_name(const struct np_table *t, const char *key, const char *name) {
  if (!is_name(name))
    np_table_raise(t, key, "expected a name of 1 to 64 letters, digits, \"_\", \".\" or \"-\", got \"%.80s\"", name);
}

static void check_mount(const struct np_table *t, const char *mount) {
  size_t n = strlen(mount);
  if (n == 0) return;
  if (mount[0] != '/' || mount[n - 1] == '/' || strstr(mount, "//") || n > 256 || strpbrk(mount, " \t\r\n?#%{}"))
    np_table_raise(t, "mount", "expected a path such as \"/hospital-b\", without a \"/\" at its end, got \"%.80s\"", mount);
}

void np_config_limits(const struct np_table *t, struct np_limits *l) {
  static const char *const known[] = {"memory", "instructions", "running",   "total", "coroutines", "calls",
                                      "emits",  "log",          "log_burst", "store", "http"};
  struct np_table limits;
  int64_t ms;
  if (!np_table_table(t, "limits", &limits)) return;
  np_table_known(&limits, known, sizeof known / sizeof *known);
  np_table_bytes(&limits, "memory", (size_t)1 << 18, (size_t)1 << 34, &l->memory);
  np_table_integer(&limits, "instructions", 1000, INT64_C(1000000000000), &l->instructions);
  if (np_table_duration(&limits, "running", 1, &ms)) l->running = (double)ms / 1000;
  if (np_table_duration(&limits, "total", 1, &ms)) l->total = (double)ms / 1000;
  np_table_integer(&limits, "coroutines", 1, 1000000, &l->coroutines);
  np_table_integer(&limits, "http", 1, 100000, &l->calls); /* as it was called when HTTP alone counted */
  np_table_integer(&limits, "calls", 1, 100000, &l->calls);
  np_table_integer(&limits, "emits", 1, 200000, &l->emits);
  np_table_integer(&limits, "log", 1, 1000000, &l->log);
  np_table_integer(&limits, "log_burst", 1, 1000000, &l->log_burst);
  np_table_bytes(&limits, "store", 1024, (size_t)1 << 40, &l->store);
  lua_pop(t->L, 1);
}

/* policy = "hold", check = { spec = true, shadow = 1000, time = "10s" }; shadow = 0 for none. */
void np_config_read_check(const struct np_table *t, bool policy, struct np_check *check) {
  static const char *const known[] = {"spec", "shadow", "time"};
  const char *word;
  struct np_table inner;
  if (np_table_table(t, "check", &inner)) {
    np_table_known(&inner, known, sizeof known / sizeof *known);
    np_table_boolean(&inner, "spec", &check->spec);
    np_table_integer(&inner, "shadow", 0, 10000000, &check->shadow);
    np_table_duration(&inner, "time", 100, &check->time);
    lua_pop(t->L, 1);
  }
  if (!policy) return;
  if (np_table_string(t, "policy", "\"inform\" or \"hold\"", &word)) {
    if (strcmp(word, "inform") != 0 && strcmp(word, "hold") != 0)
      np_table_raise(t, "policy", "expected \"inform\" or \"hold\", got \"%.80s\"", word);
    check->hold = strcmp(word, "hold") == 0;
  }
  if (check->hold && !check->shadow)
    np_table_raise(t, "policy",
                   "\"hold\" needs a shadow run, and check.shadow is 0: say policy = \"inform\", or how many readings");
}

/* shows = "ward-3", { "ward-3", "ward-4" } or "*". That the connections are there is looked at when it is built. */
static void add_shown(struct np_config_entry *e, const struct np_table *t, const char *key) {
  if (lua_type(t->L, -1) != LUA_TSTRING)
    np_table_raise(t, key, "expected the name of a connection, or \"*\" for all, got a %s", luaL_typename(t->L, -1));
  const char *name = lua_tostring(t->L, -1);
  if (strcmp(name, "*") != 0) check_name(t, key, name);
  e->shows = np_realloc(e->shows, (e->show_count + 1) * sizeof *e->shows);
  e->shows[e->show_count++] = np_strdup(name);
}

static void read_shows(struct np_config_entry *e, const struct np_table *t) {
  lua_State *L = t->L;
  if (e->kind != NP_VENDOR || lua_getfield(L, t->at, "shows") == LUA_TNIL) return;
  if (!lua_istable(L, -1)) {
    add_shown(e, t, "shows");
    return;
  }
  size_t n = lua_rawlen(L, -1), all = 0;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) all++;
  if (all != n) np_table_raise(t, "shows", "expected a list of connections, such as { \"ward-3\", \"ward-4\" }, or \"*\"");
  for (size_t i = 1; i <= n; i++) {
    char key[40];
    snprintf(key, sizeof key, "shows[%zu]", i);
    lua_rawgeti(L, -1, (lua_Integer)i);
    add_shown(e, t, key);
    lua_pop(L, 1);
  }
}

static bool is_reserved(enum np_kind kind, const char *key) {
  if (strcmp(key, "name") == 0 || strcmp(key, "limits") == 0 || strcmp(key, "check") == 0) return true;
  if (kind == NP_RULE && strcmp(key, "policy") == 0) return true;
  if (strcmp(key, "delivery") == 0) return kind != NP_RULE;
  return kind == NP_VENDOR && (strcmp(key, "mount") == 0 || strcmp(key, "people") == 0 || strcmp(key, "shows") == 0);
}

/* Pushes a table of what is neither reserved nor the plugin's name. */
static void push_settings(enum np_kind kind, const struct np_table *t) {
  lua_State *L = t->L;
  lua_newtable(L);
  int settings = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, t->at); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) {
      if (lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1) continue;
      char key[64];
      snprintf(key, sizeof key, "[%s]", luaL_tolstring(L, -2, NULL));
      np_table_raise(t, key, "unexpected: after the plugin's name, every setting has a name too");
    }
    if (is_reserved(kind, lua_tostring(L, -2))) continue;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, settings);
  }
}

static void read_settings(const struct reader *r, struct np_config_entry *e, const struct np_table *t) {
  lua_State *L = t->L;
  struct np_error err;
  size_t n;
  push_settings(e->kind, t);
  if (np_json_encode(L, -1, &err) < 0) np_table_raise(t, "", "%s", err.text);
  const char *json = lua_tolstring(L, -1, &n);
  e->settings = np_strndup(json, n);
  if (np_json_decode(L, json, n, &err) < 0) np_table_raise(t, "", "%s", err.text);
  np_buf_clear(r->scratch);
  np_canonical_add(L, r->scratch);
  e->canonical = np_strndup(r->scratch->data, r->scratch->len);
  lua_pop(L, 3);
}

/* What stands in it is looked at when the plugin is built. */
static void read_delivery(const struct reader *r, struct np_config_entry *e, const struct np_table *t) {
  struct np_table delivery;
  struct np_error err;
  size_t n;
  if (e->kind == NP_RULE || !np_table_table(t, "delivery", &delivery)) return;
  if (np_json_encode(t->L, delivery.at, &err) < 0) np_table_raise(t, "delivery", "%s", err.text);
  const char *json = lua_tolstring(t->L, -1, &n);
  if (np_json_decode(t->L, json, n, &err) < 0) np_table_raise(t, "delivery", "%s", err.text);
  np_buf_clear(r->scratch);
  np_canonical_add(t->L, r->scratch);
  e->delivery = np_strndup(r->scratch->data, r->scratch->len);
  lua_pop(t->L, 3);
}

static void check_unique(const struct reader *r, const struct np_config_entry *e, const struct np_table *t) {
  size_t prefix = strlen(r->shown) + 2;
  for (const struct np_config_entry *o = r->c->entries; o < e; o++)
    if (strcmp(o->instance, e->instance) == 0)
      np_table_raise(t, "", "the name \"%s\" is taken by %s: give one of the two another, with name = \"...\"", e->instance,
                     o->at + prefix);
}

/* Reads the entry whose table is at the top of the stack. key: its name in `destinations`, or NULL. */
static void read_entry(const struct reader *r, enum np_kind kind, struct np_table *t, const char *key) {
  struct np_config *c = r->c;
  lua_State *L = t->L;
  t->at = lua_gettop(L);
  if (!lua_istable(L, t->at))
    np_table_raise(t, "", "expected a table such as { \"%s\", name = \"...\" }, got a %s",
                   lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "plugin", luaL_typename(L, -1));
  c->entries = np_realloc(c->entries, (c->entry_count + 1) * sizeof *c->entries);
  struct np_config_entry *e = &c->entries[c->entry_count++];
  *e = (struct np_config_entry){.kind = kind};
  struct np_buf *at = r->scratch;
  np_buf_clear(at);
  np_buf_addf(at, "%s: %s", r->shown, t->name);
  e->at = np_strdup(at->data);

  if (lua_rawgeti(L, t->at, 1) != LUA_TSTRING)
    np_table_raise(t, "[1]", "expected the plugin's name, such as \"%s\", got a %s", "webhook", luaL_typename(L, -1));
  const char *plugin = lua_tostring(L, -1), *name = key ? key : plugin, *mount = "";
  check_name(t, "[1]", plugin);
  bool named = np_table_string(t, "name", "a name", &name);
  if (named && key && strcmp(name, key) != 0) np_table_raise(t, "name", "it is \"%s\" already, by its key", key);
  check_name(t, named ? "name" : "", name);
  if (kind == NP_VENDOR) {
    lua_getfield(L, t->at, "mount");
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING)
      np_table_raise(t, "mount", "expected a path such as \"/hospital-b\", got a %s", luaL_typename(L, -1));
    if (lua_isstring(L, -1)) check_mount(t, mount = lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  if (kind == NP_VENDOR) np_table_boolean(t, "people", &e->people);
  e->plugin = np_strdup(plugin);
  e->instance = np_strdup(name);
  e->mount = np_strdup(mount);
  check_unique(r, e, t);
  e->check = c->check;
  np_config_read_check(t, kind == NP_RULE, &e->check);
  e->limits = c->limits;
  np_config_limits(t, &e->limits);
  read_shows(e, t);
  read_delivery(r, e, t);
  read_settings(r, e, t);
  lua_settop(L, t->at - 1);
}

static void read_list(const struct reader *r, enum np_kind kind, const struct np_table *top) {
  lua_State *L = top->L;
  struct np_table list, t = {.L = L};
  const char *name = list_names[kind];
  if (!np_table_table(top, name, &list)) return;
  size_t n = lua_rawlen(L, list.at), keyed;
  struct np_canonical_key *keys = np_canonical_keys(L, list.at, &keyed);
  size_t all = 0;
  for (lua_pushnil(L); lua_next(L, list.at); lua_pop(L, 1)) all++;
  if (all != n + keyed) np_table_raise(&list, "", "expected a list without gaps");
  if (keyed && kind != NP_DESTINATION)
    np_table_raise(&list, keys[0].text, "expected a list: write { \"plugin\", name = \"%.64s\" } without a key", keys[0].text);
  for (size_t i = 1; i <= n; i++) {
    snprintf(t.name, sizeof t.name, "%s[%zu]", name, i);
    lua_rawgeti(L, list.at, (lua_Integer)i);
    read_entry(r, kind, &t, NULL);
  }
  for (size_t i = 0; i < keyed; i++) {
    snprintf(t.name, sizeof t.name, "%s.%.100s", name, keys[i].text);
    lua_pushlstring(L, keys[i].text, keys[i].len);
    lua_rawget(L, list.at);
    read_entry(r, kind, &t, keys[i].text);
  }
  lua_settop(L, list.at - 1);
}

void np_config_entries(struct np_config *c, const struct np_table *top, const char *shown, struct np_buf *scratch) {
  struct reader r = {.c = c, .shown = shown, .scratch = scratch};
  read_list(&r, NP_VENDOR, top);
  read_list(&r, NP_RULE, top);
  read_list(&r, NP_DESTINATION, top);
}
