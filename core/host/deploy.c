/* Deploy. One look at the files and the configuration makes one new epoch: units that are as they were keep their instances, the others are
 * built beside them. What fails keeps what it had; the rest goes on. */
#include "host/deploy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "host/build.h"
#include "host/sources.h"
#include "io/watch.h"

#define QUIET_MS 30  /* files have to rest so long before they are looked at */
#define ADOPT_MS 200 /* how long a switch waits for lanes that are in the middle of a call */
#define GONE_MS 400  /* a file has to be gone so long before its plugin is retired: some editors remove and write anew */

struct unit {
  char *instance, *plugin; /* owned */
  enum np_kind kind;       /* as listed or as built */
  bool configured, wanted;
  struct np_code *code;           /* a reference: in force; NULL where nothing is */
  struct np_instance **instances; /* owned array; the instances are the lanes' */
  char *good;                     /* owned: fingerprint of what is in force */
  char *tried;                    /* owned: fingerprint, with all libraries, of what was looked at last */
  char *bad;                      /* owned: the same of what failed last */
  char *error;                    /* owned: why */
  char *file;                     /* owned: as shown */
  bool last_good;                 /* in force is an older generation than the file */
  bool unconfigured;
  bool clashed; /* it failed for a route that another has: whatever changes there may free it */
  int64_t since, gone_since;
  int last_number;       /* newest generation in the store */
  struct np_built built; /* of this deploy, until it is in force */
  char *print;           /* owned: fingerprint of what built is */
  bool stored;           /* its generation is in the store already */
};

struct np_deploy {
  struct np_host *host;     /* NULL for `neap check` */
  struct np_config *config; /* borrowed: the host's, or newest */
  struct np_config *newest; /* owned: as neap.lua is now, without the command line's words; NULL before the first look */
  const char *plugins;      /* borrowed: the folder, as it was at the start */
  char *config_error;       /* owned: why neap.lua as it stands is not in force */
  struct np_sources sources;
  struct unit **units; /* owned, sorted by instance */
  size_t unit_count;
  struct np_watch *watch;
  struct event *again; /* looks once more after a while */
  int lanes;
  uint64_t epoch;
};

static char *print_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *print_of(const char *format, ...) {
  char *text;
  va_list args;
  va_start(args, format);
  if (vasprintf(&text, format, args) < 0) abort();
  va_end(args);
  return text;
}

static bool same(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

static void set(char **at, const char *text) {
  char *copy = text ? np_strdup(text) : NULL;
  free(*at);
  *at = copy;
}

/* Units. */

static int compare_units(const void *a, const void *b) {
  return strcmp((*(struct unit *const *)a)->instance, (*(struct unit *const *)b)->instance);
}

static struct unit *find_unit(struct np_deploy *d, const char *instance) {
  struct unit key = {.instance = (char *)instance}, *at = &key;
  struct unit **found = d->unit_count ? bsearch(&at, d->units, d->unit_count, sizeof *d->units, compare_units) : NULL;
  return found ? *found : NULL;
}

static int note_number(struct np_deploy *d, const char *instance);

static struct unit *get_unit(struct np_deploy *d, const struct np_want *want) {
  struct unit *u = find_unit(d, want->instance);
  if (!u) {
    u = np_alloc(sizeof *u);
    u->instance = np_strdup(want->instance);
    u->last_number = note_number(d, want->instance);
    d->units = np_realloc(d->units, (d->unit_count + 1) * sizeof *d->units);
    d->units[d->unit_count++] = u;
    qsort(d->units, d->unit_count, sizeof *d->units, compare_units);
  }
  set(&u->plugin, want->plugin);
  if (want->file) set(&u->file, want->file->source.path);
  if (want->configured) u->kind = want->kind;
  u->configured = want->configured;
  u->wanted = true;
  return u;
}

static void free_unit(struct np_deploy *d, struct unit *u) {
  np_built_discard(&u->built, d->lanes);
  np_code_unref(u->code);
  free(u->instances);
  free(u->instance), free(u->plugin), free(u->good), free(u->bad), free(u->tried), free(u->error), free(u->file), free(u->print);
  free(u);
}

static void take_number(void *arg, const struct np_generation *g) { *(int *)arg = g->number; }

static int note_number(struct np_deploy *d, const char *instance) {
  int number = 0;
  if (d->host) np_reader_generation(d->host->reader, instance, NULL, take_number, &number, NULL);
  return number;
}

static void fail_unit(struct np_deploy *d, struct unit *u, const char *error) {
  bool news = !same(u->error, error);
  set(&u->error, error);
  if (!news || !d->host) return;
  char generation[16];
  snprintf(generation, sizeof generation, "%d", u->code ? u->code->number : 0);
  if (u->code)
    np_log(NP_ERROR, "not put in force; the generation before goes on", "plugin", u->instance, "generation", generation, "error",
           error, NULL);
  else
    np_log(NP_ERROR, u->kind == NP_RULE ? "not in force; its readings are held" : "not in force", "plugin", u->instance, "error",
           error, NULL);
}

/* What is wanted. */

struct wants {
  struct np_want *list; /* owned */
  size_t count;
};

static bool is_listed(const struct np_config *c, const char *name, bool as_plugin) {
  for (size_t i = 0; i < c->entry_count; i++)
    if (strcmp(as_plugin ? c->entries[i].plugin : c->entries[i].instance, name) == 0) return true;
  return false;
}

static void add_listed(struct np_deploy *d, struct wants *w, bool rules) {
  const struct np_config *c = d->config;
  for (size_t i = 0; i < c->entry_count; i++) {
    const struct np_config_entry *e = &c->entries[i];
    if ((e->kind == NP_RULE) != rules) continue;
    w->list[w->count++] = (struct np_want){.instance = e->instance,
                                           .plugin = e->plugin,
                                           .mount = e->mount,
                                           .settings = e->settings,
                                           .canonical = e->canonical,
                                           .at = e->at,
                                           .limits = e->limits_set ? &e->limits : NULL,
                                           .shows = (const char *const *)e->shows,
                                           .show_count = e->show_count,
                                           .configured = true,
                                           .people = e->people,
                                           .kind = e->kind,
                                           .file = np_sources_find(&d->sources, false, e->plugin)};
  }
}

static void add_unlisted(struct np_deploy *d, struct wants *w, bool rules) {
  for (size_t i = 0; i < d->sources.count; i++) {
    const struct np_file *f = &d->sources.files[i];
    const char *name = f->source.name;
    if (f->library || is_listed(d->config, name, true) || is_listed(d->config, name, false)) continue;
    bool again = i && !f[-1].library && strcmp(f[-1].source.name, name) == 0; /* two files of one name: one unit, which says so */
    if (again || (strncmp(f->folder, "rules", 5) == 0) != rules) continue;
    w->list[w->count++] = (struct np_want){
        .instance = name, .plugin = name, .mount = "", .settings = "{}", .canonical = "{}", .at = f->source.path, .file = f};
  }
}

/* Rules last: by then it is known to what connections they may send. */
static struct wants find_wants(struct np_deploy *d) {
  struct wants w = {np_alloc((d->config->entry_count + d->sources.count + 1) * sizeof *w.list), 0};
  for (int rules = 0; rules < 2; rules++) {
    add_listed(d, &w, rules);
    add_unlisted(d, &w, rules);
  }
  return w;
}

/* What is not in force yet may deliver once it is: until then it holds what it is sent. */
static bool is_connection_that_delivers(const struct unit *u) {
  const struct np_code *code = u->built.code ? u->built.code : u->code;
  return code ? code->kind == NP_VENDOR && code->deliver : u->configured && u->kind == NP_VENDOR;
}

static bool delivers(void *arg, const char *instance) {
  const struct unit *u = find_unit(arg, instance);
  return u && is_connection_that_delivers(u);
}

/* The names that a rule may send to and a connection may show: what failed for want of one is built again when there is another. */
static void add_names(struct np_buf *text, const struct np_deploy *d) {
  for (size_t i = 0; i < d->config->entry_count; i++)
    if (d->config->entries[i].kind != NP_RULE) np_buf_addf(text, "%s\n", d->config->entries[i].instance);
  for (size_t i = 0; i < d->sources.count; i++)
    if (!d->sources.files[i].library) np_buf_addf(text, "%s/%s\n", d->sources.files[i].folder, d->sources.files[i].source.name);
  for (size_t i = 0; i < d->unit_count; i++)
    if (is_connection_that_delivers(d->units[i])) np_buf_addf(text, "%s delivers\n", d->units[i]->instance);
}

/* Two builds with one fingerprint would be the same. With the code that came of it, only the libraries that it requires count; without, all,
 * and all names of connections and destinations. */
static char *fingerprint(const struct np_deploy *d, const struct np_code *code, const struct np_want *want) {
  char hash[65];
  struct np_buf text = {0};
  if (!code) {
    np_buf_adds(&text, d->sources.library_hash);
    add_names(&text, d);
  }
  for (size_t i = 0; code && i < code->library_count; i++) {
    const struct np_file *f = np_sources_find(&d->sources, true, code->libraries[i]);
    if (f) np_bundle_add(&text, &f->source);
  }
  if (want->file) np_buf_add(&text, want->file->source.text, want->file->source.len);
  for (size_t i = 0; i < want->show_count; i++) np_buf_addf(&text, "\nshows %s", want->shows[i]);
  np_sha256_hex(np_buf_text(&text), text.len, hash);
  np_buf_free(&text);
  const struct np_limits none = {0}, *l = want->limits ? want->limits : &none;
  return print_of("%s %s %s %s %d %d %zu %lld %g %g %s", hash, want->plugin, want->mount ? want->mount : "", want->canonical,
                  want->configured, want->people, l->memory, (long long)l->instructions, l->running, l->total,
                  want->file && want->file->error ? want->file->error : "");
}

struct last_good {
  struct np_deploy *d;
  struct unit *u;
  const struct np_want *want;
  int number;
  bool ok;
};

static void build_last_good(void *arg, const struct np_generation *g) {
  struct last_good *l = arg;
  struct np_error err;
  struct np_build_context context = {
      .sources = &l->d->sources, .config = l->d->config, .lanes = l->d->lanes, .delivers = delivers, .arg = l->d};
  l->number = g->number;
  l->ok = np_build_stored(&context, l->want, g->source.ptr, g->source.len, &l->u->built, &err) == 0;
  if (!l->ok && !l->u->unconfigured)
    np_log(NP_ERROR, "nor does its last good generation build", "plugin", l->u->instance, "error", err.text, NULL);
}

/* At start, what comes up broken runs on its last good generation. */
static void fall_back(struct np_deploy *d, struct unit *u, const struct np_want *want) {
  struct last_good l = {.d = d, .u = u, .want = want};
  if (!d->host || np_reader_generation(d->host->reader, u->instance, "good", build_last_good, &l, NULL) != 1 || !l.ok) return;
  u->built.code->number = l.number;
  u->stored = true;
  u->last_good = true;
  u->print = np_strdup("");
  char number[16];
  snprintf(number, sizeof number, "%d", l.number);
  np_log(NP_WARN, "runs on its last good generation, for its file is broken", "plugin", u->instance, "generation", number, "error",
         u->error, NULL);
}

struct recall {
  const char *hash;
  int number;
};

static void same_sources(void *arg, const struct np_generation *g) {
  struct recall *r = arg;
  if (g->hash.ptr && strcmp(g->hash.ptr, r->hash) == 0) r->number = g->number;
}

/* A restart with the same sources goes on with the same generation. */
static void number_it(struct np_deploy *d, struct unit *u) {
  struct recall r = {.hash = u->built.code->hash};
  if (d->host && (!u->code || u->last_good)) np_reader_generation(d->host->reader, u->instance, "good", same_sources, &r, NULL);
  u->stored = r.number != 0;
  u->built.code->number = r.number ? r.number : u->last_number + 1;
}

static void build_unit(struct np_deploy *d, struct unit *u, const struct np_want *want, struct np_deploy_change *change) {
  struct np_error err;
  struct np_build_context context = {
      .sources = &d->sources, .config = d->config, .lanes = d->lanes, .delivers = delivers, .arg = d};
  if (np_build(&context, want, &u->built, &err) == 0) {
    u->print = fingerprint(d, u->built.code, want);
    number_it(d, u);
    u->last_good = u->unconfigured = false;
    return;
  }
  u->unconfigured = u->built.unconfigured;
  if (u->unconfigured && !u->code) { /* it waits for a person's settings: no fault */
    set(&u->error, err.text);
  } else {
    change->failed++;
    fail_unit(d, u, err.text);
  }
  if (!u->code && want->file) fall_back(d, u, want);
}

static void look_at(struct np_deploy *d, const struct np_want *want, struct np_deploy_change *change) {
  struct unit *u = get_unit(d, want);
  int64_t now = np_mono_us() / 1000;
  if (want->file)
    u->gone_since = 0;
  else if (u->code && !u->gone_since)
    u->gone_since = now;
  if (!want->file && u->code && now - u->gone_since < GONE_MS) { /* perhaps only between two writes */
    change->kept++;
    return;
  }
  char *good = u->code ? fingerprint(d, u->code, want) : NULL;
  free(u->tried);
  u->tried = fingerprint(d, NULL, want);
  if (u->code && same(good, u->good)) {
    if (u->error) np_log(NP_INFO, "the file is again what is in force", "plugin", u->instance, NULL);
    set(&u->error, NULL);
    set(&u->bad, NULL);
    u->clashed = false;
    change->kept++;
  } else if (same(u->tried, u->bad) && !u->clashed) {
    change->kept++;
  } else {
    u->clashed = false;
    build_unit(d, u, want, change);
    set(&u->bad, u->built.code && !u->last_good ? NULL : u->tried);
    if (!want->file && u->code) u->wanted = false; /* its file is gone for good: retired, and held where it is listed */
  }
  free(good);
}

/* The new epoch. */

static void add_slot(struct np_deploy *d, struct np_epoch *e, struct unit *u) {
  struct np_code *code = u->built.code ? u->built.code : u->code;
  struct np_instance **instances = u->built.code ? u->built.instances : u->instances;
  if (!code && !u->configured) return;
  struct np_slot *s = &e->slots[e->slot_count++];
  *s = (struct np_slot){.instance = np_strdup(u->instance), .kind = code ? code->kind : u->kind, .code = code};
  if (!code) {
    s->why_not = np_strdup(u->error ? u->error : "not in force");
    return;
  }
  np_code_ref(code);
  s->on_lane = np_alloc((size_t)d->lanes * sizeof *s->on_lane);
  memcpy(s->on_lane, instances, (size_t)d->lanes * sizeof *s->on_lane);
}

/* -1 where a route of code is taken: *clash is the route that has it. */
static int add_routes(struct np_routes *routes, struct np_code *code, struct np_route **clash, struct np_error *err) {
  for (size_t i = 0; i < code->route_count; i++) {
    void *other = NULL;
    if (np_routes_add(routes, code->routes[i].method, code->routes[i].pattern, &code->routes[i], &other, err) == 0) continue;
    *clash = other;
    if (other && *clash)
      np_fail(err, "%s: %s %s is served by %s already: give one of them a mount", code->file, code->routes[i].method,
              code->routes[i].pattern, (*clash)->code->instance);
    return -1;
  }
  return 0;
}

/* Routes of all units, what was in force before the new ones, so that it is the newcomer who is refused. Where one is, it is
 * undone, and all is added again. */
static struct np_routes *make_routes(struct np_deploy *d, struct np_deploy_change *change) {
  for (;;) {
    struct np_routes *routes = np_routes_new();
    struct unit *refused = NULL;
    struct np_error err;
    struct np_route *clash = NULL;
    for (int pass = 0; pass < 2 && !refused; pass++) {
      for (size_t i = 0; i < d->unit_count && !refused; i++) {
        struct unit *u = d->units[i];
        struct np_code *code = u->built.code ? u->built.code : u->code;
        if (!u->wanted || !code || (u->built.code != NULL) != (pass == 1)) continue;
        if (add_routes(routes, code, &clash, &err) < 0) refused = u;
      }
    }
    if (!refused) return routes;
    np_routes_free(routes);
    refused->clashed = true;
    fail_unit(d, refused, err.text);
    change->failed++;
    np_built_discard(&refused->built, d->lanes);
    set(&refused->print, NULL);
    set(&refused->bad, refused->tried);
    if (!refused->code) refused->wanted = refused->configured;
  }
}

static int record_generations(struct np_deploy *d, struct np_error *err) {
  struct np_writeset *ws = np_writeset_new();
  for (size_t i = 0; i < d->unit_count; i++) {
    struct unit *u = d->units[i];
    if (!u->built.code || u->stored) continue;
    const struct np_code *code = u->built.code;
    struct np_op *op = np_writeset_add(ws, NP_OP_GENERATION);
    op->as.generation.instance = np_writeset_text(ws, u->instance, strlen(u->instance));
    op->as.generation.file = np_writeset_text(ws, code->file, strlen(code->file));
    op->as.generation.hash = np_writeset_text(ws, code->hash, strlen(code->hash));
    op->as.generation.source = np_writeset_text(ws, u->built.bundle, u->built.bundle_len);
    op->as.generation.verdict = np_writeset_text(ws, "good", 4);
    op->as.generation.at = np_now_ms();
    op->as.generation.number = code->number;
  }
  if (!ws->first) {
    np_writeset_unref(ws);
    return 0;
  }
  return np_keeper_apply(d->host->keeper, ws, err) == NP_COMMITTED ? 0 : -1;
}

static struct np_epoch *make_epoch(struct np_deploy *d, struct np_routes *routes) {
  struct np_epoch *e = np_alloc(sizeof *e);
  e->refs = 1;
  e->number = ++d->epoch;
  e->routes = routes;
  e->slots = np_alloc((d->unit_count + 1) * sizeof *e->slots);
  for (size_t i = 0; i < d->unit_count; i++)
    if (d->units[i]->wanted || d->units[i]->configured) {
      struct unit *u = d->units[i];
      if (!u->wanted) { /* listed, but its file is gone */
        np_code_unref(u->code);
        free(u->instances);
        u->code = NULL, u->instances = NULL;
      }
      add_slot(d, e, u);
    }
  return e;
}

static bool all_adopted(const struct np_deploy *d) {
  for (int i = 0; i < d->lanes; i++)
    if (atomic_load_explicit(&d->host->lanes[i]->adopted, memory_order_acquire) < d->epoch) return false;
  return true;
}

/* All lanes switch between two events, at one epoch: it is staged on each, then the number is raised. */
static void switch_lanes(struct np_deploy *d, struct np_epoch *e) {
  struct np_host *host = d->host;
  for (int i = 0; i < d->lanes; i++) {
    np_epoch_ref(e);
    np_epoch_unref(atomic_exchange(&host->lanes[i]->staged, e));
  }
  atomic_store_explicit(&host->epoch, e->number, memory_order_release);
  for (int i = 0; i < d->lanes; i++) {
    struct np_letter *letter = np_alloc(sizeof *letter);
    letter->kind = NP_LETTER_EPOCH;
    np_lane_send(host->lanes[i], letter);
  }
  /* the next may be staged once all have taken this one; a lane in the middle of a long call takes it after that */
  for (int ms = 0; ms < ADOPT_MS && !all_adopted(d); ms++) usleep(1000);
}

static void log_in_force(const struct unit *u, int before) {
  char generation[16], was[16];
  snprintf(generation, sizeof generation, "%d", u->code->number);
  snprintf(was, sizeof was, "%d", before);
  np_log(NP_INFO, "in force", "plugin", u->instance, "generation", generation, "before", before ? was : NULL, "file", u->code->file,
         NULL);
}

/* What was built is in force: the units take it over. */
static void settle(struct np_deploy *d, struct np_deploy_change *change) {
  size_t kept = 0;
  for (size_t i = 0; i < d->unit_count; i++) {
    struct unit *u = d->units[i];
    if (u->built.code) {
      int before = u->code ? u->code->number : 0;
      np_code_unref(u->code);
      free(u->instances);
      u->code = u->built.code;
      np_code_ref(u->code);
      u->instances = u->built.instances;
      u->kind = u->code->kind;
      free(u->built.bundle);
      u->built = (struct np_built){0};
      free(u->good);
      u->good = u->print;
      u->print = NULL;
      u->since = np_now_ms();
      if (u->code->number > u->last_number) u->last_number = u->code->number;
      if (!u->last_good) {
        set(&u->error, NULL);
        change->loaded++;
        log_in_force(u, before);
      }
    }
    if (u->wanted || u->configured) {
      d->units[kept++] = u;
      continue;
    }
    np_log(NP_INFO, "retired: its file or its entry is gone", "plugin", u->instance, NULL);
    change->removed++;
    free_unit(d, u);
  }
  d->unit_count = kept;
}

static void discard_all(struct np_deploy *d) {
  for (size_t i = 0; i < d->unit_count; i++) {
    np_built_discard(&d->units[i]->built, d->lanes);
    set(&d->units[i]->print, NULL);
    set(&d->units[i]->bad, NULL);
  }
}

static void look_again(struct np_deploy *d, int ms) {
  struct timeval in = {ms / 1000, (ms % 1000) * 1000};
  if (d->again && !event_pending(d->again, EV_TIMEOUT, NULL)) event_add(d->again, &in);
}

static bool anything_new(const struct np_deploy *d) {
  for (size_t i = 0; i < d->unit_count; i++) {
    const struct unit *u = d->units[i];
    if (u->built.code || (!u->wanted && (u->code || !u->configured))) return true;
  }
  return false;
}

static int read_all(struct np_deploy *d, struct np_error *err) {
  struct np_sources fresh;
  if (np_sources_read(&fresh, d->plugins, err) < 0) return -1;
  np_sources_free(&d->sources);
  d->sources = fresh;
  return 0;
}

static void build_all(struct np_deploy *d, struct np_deploy_change *change) {
  struct wants wants = find_wants(d);
  for (size_t i = 0; i < d->unit_count; i++) d->units[i]->wanted = d->units[i]->configured = false;
  bool gone = false;
  for (size_t i = 0; i < wants.count; i++) {
    look_at(d, &wants.list[i], change);
    struct unit *u = find_unit(d, wants.list[i].instance);
    if (u->gone_since && u->code && u->wanted) gone = true;
  }
  for (size_t i = 0; i < d->unit_count; i++) { /* no longer listed, or the file of one that never was is gone */
    struct unit *u = d->units[i];
    if (u->wanted || u->configured || !u->code || is_listed(d->config, u->instance, false)) continue;
    if (np_sources_find(&d->sources, false, u->plugin)) continue;
    int64_t now = np_mono_us() / 1000;
    if (!u->gone_since) u->gone_since = now;
    if (now - u->gone_since < GONE_MS) u->wanted = gone = true;
  }
  if (gone) look_again(d, GONE_MS + 20);
  free(wants.list);
}

/* Settings that only a start can change. */
static void warn_of_restart(const struct np_config *was, const struct np_config *now) {
  const struct {
    const char *name, *a, *b;
  } fixed[] = {{"listen", was->listen, now->listen}, {"store", was->store, now->store}, {"plugins", was->plugins, now->plugins}};
  for (size_t i = 0; i < 3; i++)
    if (!same(fixed[i].a, fixed[i].b))
      np_log(NP_WARN, "this setting takes effect at the next start", "setting", fixed[i].name, NULL);
  if (same(was->store, now->store) && !same(was->key_file, now->key_file))
    np_log(NP_WARN, "this setting takes effect at the next start", "setting", "key", NULL);
  if (was->lanes != now->lanes) np_log(NP_WARN, "this setting takes effect at the next start", "setting", "lanes", NULL);
}

static void read_config(struct np_deploy *d) {
  struct np_error err;
  const struct np_config *first = d->host->config;
  if (!first->path) return;
  struct np_config *c = np_config_load(first->path, NULL, &err);
  if (!c) {
    if (!same(d->config_error, err.text))
      np_log(NP_ERROR, "the configuration as it stands is not put in force", "error", err.text, NULL);
    set(&d->config_error, err.text);
    return;
  }
  if (d->config_error) np_log(NP_INFO, "the configuration is in order again", NULL);
  set(&d->config_error, NULL);
  if (d->newest) warn_of_restart(d->newest, c);
  np_config_free(d->newest);
  d->config = d->newest = c;
}

struct np_deploy_change np_deploy_reload(struct np_deploy *d) {
  struct np_deploy_change change = {0};
  struct np_error err;
  if (!all_adopted(d)) { /* a lane is in a long call: it has not taken the last change yet */
    look_again(d, ADOPT_MS);
    return change;
  }
  read_config(d);
  if (read_all(d, &err) < 0) {
    np_log(NP_ERROR, "cannot read the plugins; what is in force goes on", "error", err.text, NULL);
    look_again(d, 1000);
    change.failed++;
    return change;
  }
  build_all(d, &change);
  struct np_routes *routes = make_routes(d, &change);
  if (!anything_new(d)) {
    np_routes_free(routes);
    return change;
  }
  if (record_generations(d, &err) < 0) { /* a restart would not find it: what is in force goes on */
    np_log(NP_ERROR, "cannot record the new generations; what is in force goes on", "error", err.text, NULL);
    np_routes_free(routes);
    discard_all(d);
    look_again(d, 1000);
    change.failed++;
    return change;
  }
  struct np_epoch *e = make_epoch(d, routes);
  switch_lanes(d, e);
  settle(d, &change);
  np_epoch_unref(e);
  return change;
}

static void on_change(void *arg) { np_deploy_reload(arg); }

static void on_again(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  np_deploy_reload(arg);
}

struct np_deploy *np_deploy_new(struct np_host *host, struct np_error *err) {
  struct np_deploy *d = np_alloc(sizeof *d);
  d->host = host;
  d->config = host->config;
  d->plugins = host->config->plugins;
  if (host->config->path) d->newest = np_config_load(host->config->path, NULL, err); /* to compare with later */
  d->lanes = host->config->lanes;
  d->again = event_new(host->base, -1, 0, on_again, d);
  if (read_all(d, err) < 0) {
    np_deploy_free(d);
    return NULL;
  }
  return d;
}

struct np_epoch *np_deploy_first(struct np_deploy *d) {
  struct np_deploy_change change = {0};
  struct np_error err;
  build_all(d, &change);
  struct np_routes *routes = make_routes(d, &change);
  if (record_generations(d, &err) < 0) np_log(NP_ERROR, "cannot record the generations in force", "error", err.text, NULL);
  struct np_epoch *e = make_epoch(d, routes);
  settle(d, &change);
  return e;
}

int np_deploy_watch(struct np_deploy *d, struct np_error *err) {
  d->watch = np_watch_new(d->host->base, QUIET_MS, on_change, d, err);
  if (!d->watch) return -1;
  np_watch_add(d->watch, d->plugins);
  if (d->config->path) np_watch_add(d->watch, d->config->path);
  look_again(d, 0); /* for what changed between the first look and the watch */
  return 0;
}

const char *np_deploy_config_error(const struct np_deploy *d) { return d->config_error; }

size_t np_deploy_count(const struct np_deploy *d) { return d->unit_count; }

struct np_status np_deploy_status(const struct np_deploy *d, size_t i) {
  const struct unit *u = d->units[i];
  struct np_status s = {
      .instance = u->instance, .plugin = u->plugin, .file = u->file, .kind = u->kind, .error = u->error, .since = u->since};
  s.state = u->code ? (u->last_good ? "last good" : "in force") : u->unconfigured ? "unconfigured" : "held";
  if (!u->code) return s;
  s.code = u->code;
  s.generation = u->code->number;
  s.hash = u->code->hash;
  s.memory_max = (int64_t)u->code->limits.memory;
  for (int k = 0; k < d->lanes; k++) s.memory += atomic_load_explicit(&u->instances[k]->memory, memory_order_relaxed);
  return s;
}

void np_deploy_free(struct np_deploy *d) {
  if (!d) return;
  np_watch_free(d->watch);
  if (d->again) event_free(d->again);
  for (size_t i = 0; i < d->unit_count; i++) free_unit(d, d->units[i]);
  free(d->units);
  np_sources_free(&d->sources);
  np_config_free(d->newest);
  free(d->config_error);
  free(d);
}

/* neap check */

static void report(const struct unit *u, const char *state, bool json) {
  struct np_buf b = {0};
  if (json) {
    np_buf_adds(&b, "{\"instance\":");
    np_buf_add_json(&b, u->instance, strlen(u->instance));
    np_buf_adds(&b, ",\"plugin\":");
    np_buf_add_json(&b, u->plugin, strlen(u->plugin));
    np_buf_addf(&b, ",\"state\":\"%s\"", state);
    if (u->error) {
      np_buf_adds(&b, ",\"error\":");
      np_buf_add_json(&b, u->error, strlen(u->error));
    }
    printf("%s}\n", b.data);
  } else if (u->error && !u->unconfigured) {
    fprintf(stderr, "%s\n", u->error);
  }
  np_buf_free(&b);
}

int np_deploy_check(struct np_config *config, bool json) {
  struct np_deploy d = {.config = config, .plugins = config->plugins, .lanes = 1};
  struct np_deploy_change change = {0};
  struct np_error err;
  if (read_all(&d, &err) < 0) {
    fprintf(stderr, "%s\n", err.text);
    return 1;
  }
  build_all(&d, &change);
  np_routes_free(make_routes(&d, &change));
  int troubles = 0;
  for (size_t i = 0; i < d.unit_count; i++) {
    struct unit *u = d.units[i];
    bool broken = u->error && !u->unconfigured;
    if (broken) troubles++;
    report(u, broken ? "broken" : u->unconfigured ? "unconfigured" : "good", json);
  }
  if (!troubles && !json) printf("%zu plugin%s, all good\n", d.unit_count, d.unit_count == 1 ? "" : "s");
  for (size_t i = 0; i < d.unit_count; i++) free_unit(&d, d.units[i]);
  free(d.units);
  np_sources_free(&d.sources);
  return troubles;
}
