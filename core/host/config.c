/* Reads neap.lua: its top level, the command line's flags over it, defaults under it, and all paths made absolute. */
#include "host/config.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "host/config_entry.h"
#include "host/config_lua.h"
#include "host/shipped.h"

#define LANES_MAX 64
#define TEXT_MAX ((size_t)4 << 20)

static const struct np_config_flags no_flags;

int np_config_bytes(const char *text, size_t *bytes) {
  static const struct {
    const char *name;
    int shift;
  } units[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
  size_t value = 0;
  const char *s = text;
  for (; *s >= '0' && *s <= '9'; s++) {
    if (value > ((size_t)1 << 40)) return -1;
    value = value * 10 + (size_t)(*s - '0');
  }
  if (s == text) return -1;
  while (*s == ' ') s++;
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(s, units[i].name) != 0) continue;
    if (value > ((size_t)1 << 50 >> units[i].shift)) return -1;
    *bytes = value << units[i].shift;
    return 0;
  }
  return -1;
}

/* Paths. */

/* "a/.." goes away only where a is no symbolic link: a folder that somebody swaps by its link stays one. */
static char *clean_path(const char *path) {
  struct np_buf b = {0};
  struct stat st;
  while (*path) {
    path += strspn(path, "/");
    size_t n = strcspn(path, "/");
    const char *last = b.len ? strrchr(b.data, '/') : NULL;
    if (n == 2 && memcmp(path, "..", 2) == 0 && !last) {
      /* the root's parent is the root */
    } else if (n == 2 && memcmp(path, "..", 2) == 0 && last && strcmp(last, "/..") != 0 &&
               !(lstat(b.data, &st) == 0 && S_ISLNK(st.st_mode))) {
      b.len = (size_t)(last - b.data);
      b.data[b.len] = 0;
    } else if (n && !(n == 1 && *path == '.')) {
      np_buf_addc(&b, '/');
      np_buf_add(&b, path, n);
    }
    path += n;
  }
  if (!b.len) np_buf_addc(&b, '/');
  return b.data;
}

static char *absolute(const char *folder, const char *path) {
  struct np_buf b = {0};
  if (path[0] != '/') np_buf_addf(&b, "%s/", folder);
  np_buf_adds(&b, path);
  char *clean = clean_path(b.data);
  np_buf_free(&b);
  return clean;
}

static void set(char **field, char *owned) {
  free(*field);
  *field = owned;
}

/* Where neap.lua is and what stands in it. */
struct source {
  char *cwd, *shown, *path, *folder; /* owned; path NULL where there is none, folder absolute */
  struct np_buf text;
};

static void source_free(struct source *s) {
  free(s->cwd);
  free(s->shown);
  free(s->path);
  free(s->folder);
  np_buf_free(&s->text);
}

static int read_text(struct source *s, bool needed, struct np_error *err) {
  int fd = open(s->path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT && !needed) {
    set(&s->path, NULL);
    return 0;
  }
  ssize_t n = -1;
  if (fd >= 0) {
    while ((n = read(fd, np_buf_reserve(&s->text, 65536), 65536)) > 0 && s->text.len <= TEXT_MAX) s->text.len += (size_t)n;
    int code = errno;
    close(fd);
    errno = n > 0 ? EFBIG : code;
  }
  return n == 0 ? 0 : np_fail(err, "%s: %s", s->shown, strerror(errno));
}

static int source_find(struct source *s, const char *path, struct np_error *err) {
  s->cwd = getcwd(NULL, 0);
  if (!s->cwd) return np_fail(err, "the working directory: %s", strerror(errno));
  struct stat st;
  bool folder = path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
  struct np_buf b = {0};
  np_buf_addf(&b, "%s%s", path ? path : "neap.lua", !folder ? "" : path[strlen(path) - 1] == '/' ? "neap.lua" : "/neap.lua");
  s->shown = b.data;
  s->path = absolute(s->cwd, s->shown);
  s->folder = np_strndup(s->path, (size_t)(strrchr(s->path, '/') - s->path));
  if (!*s->folder) set(&s->folder, np_strdup("/"));
  return read_text(s, path != NULL, err);
}

/* The top level. */

struct load {
  struct np_config *c;
  struct source source;
  struct np_buf scratch;
  const struct np_config_flags *flags;
};

static bool is_address(const char *s) {
  const char *colon = strrchr(s, ':');
  if (!colon || colon == s || (*s == '[') != (colon[-1] == ']')) return false;
  if (*s != '[' && strchr(s, ':') != colon) return false; /* an IPv6 address needs its brackets */
  size_t digits = strspn(colon + 1, "0123456789");
  return digits > 0 && digits <= 5 && !colon[1 + digits] && atoi(colon + 1) <= 65535;
}

static void read_file_name(const struct load *l, const struct np_table *t, const char *key, char **field) {
  const char *value;
  if (!np_table_string(t, key, "the path of a PEM file", &value)) return;
  set(field, absolute(l->source.folder, value));
  if (access(*field, R_OK) < 0) np_table_raise(t, key, "%s cannot be read: %s", *field, strerror(errno));
}

static void read_tls(const struct load *l, const struct np_table *top) {
  static const char *const known[] = {"certificate", "key"};
  struct np_table t;
  read_file_name(l, top, "trust", &l->c->ca_file);
  if (!np_table_table(top, "tls", &t)) return;
  np_table_known(&t, known, 2);
  read_file_name(l, &t, "certificate", &l->c->certificate);
  read_file_name(l, &t, "key", &l->c->key);
  if (!l->c->certificate || !l->c->key)
    np_table_raise(&t, l->c->key ? "certificate" : "key", "missing: TLS needs a certificate and its key");
}

/* For ever is spelt out: a 0 could as well be meant as "not at all". So is the unit: a 7 that is meant as days would remove all but the last seconds. */
static void read_age(const struct np_table *t, const char *key, int64_t *ms) {
  lua_getfield(t->L, t->at, key);
  bool forever = lua_type(t->L, -1) == LUA_TSTRING && strcmp(lua_tostring(t->L, -1), "forever") == 0;
  if (lua_type(t->L, -1) == LUA_TNUMBER)
    np_table_raise(t, key, "expected an age with its unit, such as \"7d\", or \"forever\", got %s", lua_tostring(t->L, -1));
  lua_pop(t->L, 1);
  if (forever)
    *ms = 0;
  else
    np_table_duration(t, key, 1, ms);
}

static void read_keep(struct np_config *c, const struct np_table *top) {
  static const char *const kinds[NP_KEPT_KINDS] = {"requests", "failed", "readings", "events", "delivered", "dead"};
  static const char *const bounds[] = {"age", "size"};
  struct np_table t, kind;
  if (!np_table_table(top, "keep", &t)) return;
  np_table_known(&t, kinds, NP_KEPT_KINDS);
  for (int i = 0; i < NP_KEPT_KINDS; i++) {
    lua_getfield(t.L, t.at, kinds[i]);
    bool table = lua_istable(t.L, -1);
    lua_pop(t.L, 1);
    if (!table) {
      read_age(&t, kinds[i], &c->keep[i].age);
      continue;
    }
    size_t size = 0;
    np_table_table(&t, kinds[i], &kind);
    np_table_known(&kind, bounds, i == NP_KEPT_FAILED ? 1 : 2); /* these count as requests */
    read_age(&kind, "age", &c->keep[i].age);
    if (np_table_bytes(&kind, "size", 1, (size_t)1 << 50, &size)) c->keep[i].size = (int64_t)size;
  }
}

static void read_timeouts(struct np_config *c, const struct np_table *top) {
  static const char *const known[] = {"head", "body", "write", "idle"};
  double *fields[] = {&c->head_timeout, &c->body_timeout, &c->write_timeout, &c->idle_timeout};
  struct np_table t;
  int64_t ms;
  if (!np_table_table(top, "timeouts", &t)) return;
  np_table_known(&t, known, 4);
  for (size_t i = 0; i < 4; i++)
    if (np_table_duration(&t, known[i], 1, &ms)) *fields[i] = (double)ms / 1000;
}

/* quarantine = { after = 5, within = "1m", hold = "1m", hold_most = "30m" }, or false. */
static void read_quarantine(struct np_config *c, const struct np_table *top) {
  static const char *const known[] = {"after", "within", "hold", "hold_most"};
  struct np_table t;
  lua_getfield(top->L, top->at, "quarantine");
  bool none = lua_isboolean(top->L, -1) && !lua_toboolean(top->L, -1);
  lua_pop(top->L, 1);
  if (none) c->quarantine_after = 0;
  if (none || !np_table_table(top, "quarantine", &t)) return;
  np_table_known(&t, known, 4);
  np_table_integer(&t, "after", 1, NP_QUARANTINE_AFTER_MOST, &c->quarantine_after);
  np_table_duration(&t, "within", 1, &c->quarantine_within);
  np_table_duration(&t, "hold", 1, &c->quarantine_hold);
  np_table_duration(&t, "hold_most", 1, &c->quarantine_most);
}

static void take_all(lua_State *L, void *arg) {
  static const char *const known[] = {"listen",      "store",     "plugins",      "lanes",    "tls",      "trust",
                                      "drain",       "probation", "deploy",       "settle",   "unlisted", "key",
                                      "keep",        "queue",     "body_max",     "timeouts", "limits",   "quarantine",
                                      "connections", "rules",     "destinations", "policy",   "check"};
  struct load *l = arg;
  struct np_config *c = l->c;
  struct np_table top = {.L = L, .at = 1};
  const char *s;
  int64_t n;
  np_table_known(&top, known, sizeof known / sizeof *known);
  if (np_table_string(&top, "listen", "an address such as \"127.0.0.1:8080\"", &s)) {
    if (!is_address(s)) np_table_raise(&top, "listen", "expected an address such as \"127.0.0.1:8080\" or \"[::1]:8080\"");
    set(&c->listen, np_strdup(s));
  }
  if (np_table_string(&top, "store", "a path", &s)) set(&c->store, absolute(l->source.folder, s));
  if (np_table_string(&top, "plugins", "the path of a folder", &s)) set(&c->plugins, absolute(l->source.folder, s));
  if (np_table_integer(&top, "lanes", 1, LANES_MAX, &n)) c->lanes = (int)n;
  if (np_table_duration(&top, "drain", 0, &n)) c->drain = (double)n / 1000;
  np_table_duration(&top, "probation", 0, &c->probation);
  if (np_table_string(&top, "deploy", "\"each\" or \"atomic\"", &s)) {
    c->atomic = strcmp(s, "atomic") == 0;
    if (!c->atomic && strcmp(s, "each") != 0) np_table_raise(&top, "deploy", "expected \"each\" or \"atomic\", got \"%s\"", s);
  }
  if (!np_table_duration(&top, "settle", 1, &c->settle)) c->settle = c->atomic ? 300 : 30;
  bool unlisted = true;
  if (np_table_boolean(&top, "unlisted", &unlisted)) c->only_listed = !unlisted;
  if (np_table_integer(&top, "queue", 1, 1000000, &n)) c->queue = (size_t)n;
  np_table_bytes(&top, "body_max", 1, (size_t)1 << 30, &c->body_max);
  if (np_table_string(&top, "key", "the path of the key file", &s)) set(&c->key_file, absolute(l->source.folder, s));
  read_tls(l, &top);
  read_keep(c, &top);
  read_timeouts(c, &top);
  np_config_limits(&top, &c->limits);
  np_config_read_check(&top, true, &c->check);
  read_quarantine(c, &top);
  np_config_entries(c, &top, l->source.shown, &l->scratch);
}

static int cores(void) {
  cpu_set_t set_of;
  int n = sched_getaffinity(0, sizeof set_of, &set_of) == 0 ? CPU_COUNT(&set_of) : 1;
  return n < 1 ? 1 : n > LANES_MAX ? LANES_MAX : n;
}

static void set_defaults(struct np_config *c, const struct source *s) {
  struct stat st;
  *c = (struct np_config){
      .lanes = cores(), .drain = 10, .probation = 5 * 60 * 1000, .settle = 30, .queue = 4096, .body_max = (size_t)4 << 20};
  c->check = (struct np_check){.shadow = 1000, .time = 10000};
  c->quarantine_after = 5;
  c->quarantine_within = c->quarantine_hold = 60000;
  c->quarantine_most = 30 * 60000;
  c->keep[NP_KEPT_REQUESTS].age = c->keep[NP_KEPT_DELIVERED].age = INT64_C(7) * 86400 * 1000;
  c->keep[NP_KEPT_FAILED].age = INT64_C(90) * 86400 * 1000;
  c->path = s->path ? np_strdup(s->path) : NULL;
  c->listen = np_strdup("127.0.0.1:8080");
  c->store = absolute(s->folder, "neap.db");
  c->plugins = absolute(s->folder, "plugins");
  if (stat(c->plugins, &st) < 0 || !S_ISDIR(st.st_mode)) set(&c->plugins, np_shipped_folder());
}

static int apply_flags(const struct load *l, struct np_error *err) {
  struct np_config *c = l->c;
  const struct np_config_flags *f = l->flags;
  if (f->listen && !is_address(f->listen))
    return np_fail(err, "--listen: expected an address such as 127.0.0.1:8080, got \"%s\"", f->listen);
  if (f->lanes < 0 || f->lanes > LANES_MAX) return np_fail(err, "--lanes: expected 1 to %d, got %d", LANES_MAX, f->lanes);
  if (f->listen) set(&c->listen, np_strdup(f->listen));
  if (f->store) set(&c->store, absolute(l->source.cwd, f->store));
  if (f->plugins) set(&c->plugins, absolute(l->source.cwd, f->plugins));
  if (f->lanes) c->lanes = f->lanes;
  if (c->key_file) return 0;
  struct np_buf b = {0};
  np_buf_addf(&b, "%s.key", c->store);
  c->key_file = b.data;
  return 0;
}

struct np_config *np_config_load(const char *path, const struct np_config_flags *flags, struct np_error *err) {
  struct load l = {.flags = flags ? flags : &no_flags};
  int status = source_find(&l.source, path, err);
  if (status == 0) {
    l.c = np_alloc(sizeof *l.c);
    set_defaults(l.c, &l.source);
    const struct np_config_run run = {.shown = l.source.shown,
                                      .folder = l.source.folder,
                                      .text = np_buf_text(&l.source.text),
                                      .len = l.source.text.len,
                                      .take = take_all,
                                      .arg = &l};
    if (l.source.path) status = np_config_run(&run, err);
  }
  if (status == 0) status = apply_flags(&l, err);
  if (status < 0) np_config_free(l.c);
  source_free(&l.source);
  np_buf_free(&l.scratch);
  return status < 0 ? NULL : l.c;
}

void np_config_free(struct np_config *c) {
  if (!c) return;
  for (size_t i = 0; i < c->entry_count; i++) {
    struct np_config_entry *e = &c->entries[i];
    free(e->instance);
    free(e->plugin);
    free(e->mount);
    free(e->settings);
    free(e->canonical);
    free(e->delivery);
    free(e->at);
    for (size_t k = 0; k < e->show_count; k++) free(e->shows[k]);
    free(e->shows);
  }
  free(c->entries);
  free(c->path);
  free(c->listen);
  free(c->store);
  free(c->plugins);
  free(c->certificate);
  free(c->key);
  free(c->key_file);
  free(c->ca_file);
  free(c);
}

struct np_check np_config_check(const struct np_config *c, const char *instance) {
  for (size_t i = 0; i < c->entry_count; i++)
    if (strcmp(c->entries[i].instance, instance) == 0) return c->entries[i].check;
  return c->check;
}

/* The store alone. */

struct store_load {
  const struct source *source;
  char *store; /* owned */
};

static void take_store(lua_State *L, void *arg) {
  struct store_load *l = arg;
  struct np_table top = {.L = L, .at = 1};
  const char *s;
  if (!np_table_string(&top, "store", "a path", &s)) return;
  if (strstr(s, NP_CONFIG_MISSING))
    np_table_raise(&top, "store", "it needs an environment variable or a file that is missing here");
  set(&l->store, absolute(l->source->folder, s));
}

char *np_config_store(const char *path, const struct np_config_flags *flags, struct np_error *err) {
  struct source s = {0};
  struct store_load l = {.source = &s};
  int status = 0;
  if (flags && flags->store) {
    s.cwd = getcwd(NULL, 0);
    if (s.cwd)
      l.store = absolute(s.cwd, flags->store);
    else
      status = np_fail(err, "the working directory: %s", strerror(errno));
  } else {
    status = source_find(&s, path, err);
    if (status == 0) l.store = absolute(s.folder, "neap.db");
    const struct np_config_run run = {.shown = s.shown,
                                      .folder = s.folder,
                                      .text = np_buf_text(&s.text),
                                      .len = s.text.len,
                                      .lenient = true,
                                      .take = take_store,
                                      .arg = &l};
    if (status == 0 && s.path) status = np_config_run(&run, err);
  }
  source_free(&s);
  if (status < 0) set(&l.store, NULL);
  return l.store;
}
