/* Deploy. One look at the files and the configuration makes one new epoch: units that are as they were keep their instances, the others are
 * built beside them. What fails keeps what it had; the rest goes on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "host/deploy_parts.h"
#include "host/unfinished.h"
#include "io/watch.h"

#define WHOLE_MS 30000 /* so long a set that is still being written is waited for */
#define SIGNS_MS 50    /* how often it is then looked whether it still is */
#define ADOPT_MS 200   /* until it is looked whether a lane that is in the middle of a call has taken the last change */

static void look_again(struct np_deploy *d, int ms) {
  struct timeval in = {ms / 1000, (ms % 1000) * 1000};
  if (d->again && !event_pending(d->again, EV_TIMEOUT, NULL)) event_add(d->again, &in);
}

static bool is_bare(const struct np_deploy *d) { return !d->sources.count && !d->emptied; }

static bool anything_new(const struct np_deploy *d) {
  if (d->bare != is_bare(d)) return true;
  for (size_t i = 0; i < d->unit_count; i++) {
    const struct np_unit *u = d->units[i];
    if (u->built.code || (!u->wanted && (u->code || !u->configured))) return true;
  }
  return false;
}

/* A folder that was not mounted yet at the start looks the same as one that nothing was ever put into. */
static bool note_bare(struct np_deploy *d) {
  if (is_bare(d) && !d->bare)
    np_log(NP_WARN, "there is no plugin at all: readings wait for rules to be there", "plugins", d->plugins, "do",
           "put plugins there, or mount them; if it is to be empty: neap reload --empty", NULL);
  return d->bare = is_bare(d);
}

int np_deploy_read(struct np_deploy *d, struct np_error *err) {
  struct np_sources fresh;
  if (np_sources_read(&fresh, d->plugins, err) < 0) return -1;
  np_sources_free(&d->sources);
  d->sources = fresh;
  return 0;
}

void np_deploy_build(struct np_deploy *d, struct np_deploy_change *change) {
  d->gone = false;
  free(d->wants.list);
  d->wants = np_unit_wants(d);
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    u->wanted = u->configured = false;
    u->want = NULL;
    free(u->held_before);
    u->held_before = u->held;
    u->held = NULL;
  }
  for (size_t i = 0; i < d->wants.count; i++) {
    if (i == 0 || i == d->wants.rules) np_unit_note_names(d);
    np_unit_look(d, &d->wants.list[i], change);
    struct np_unit *u = np_unit_find(d, d->wants.list[i].instance);
    if (u->gone_since && u->code && u->wanted) d->gone = true, change->gone++;
  }
  for (size_t i = 0; i < d->unit_count; i++) { /* no longer listed, or the file of one that never was is gone */
    struct np_unit *u = d->units[i];
    if (u->wanted || u->configured || !u->code || np_unit_is_listed(d->config, u->instance, false)) continue;
    if (np_sources_find(&d->sources, false, u->plugin)) continue;
    int64_t now = np_mono_us() / 1000;
    if (!u->gone_since) u->gone_since = now;
    if (now - u->gone_since < NP_GONE_MS)
      u->wanted = d->gone = true, change->gone++;
    else
      np_unit_set(&u->error, NULL); /* that was its text's, which is gone */
  }
  if (d->gone) look_again(d, NP_GONE_MS + 20);
}

/* The routes of what is to be in force: where something is held back, what stays may have a route that a newcomer wanted, or close a circle with it. */
static struct np_routes *routes_of_all(struct np_deploy *d, struct np_deploy_change *change) {
  for (;;) {
    np_deploy_circles(d, change);
    struct np_routes *routes = np_deploy_routes(d, change);
    if (!np_deploy_hold(d, change)) return routes;
    np_routes_free(routes);
  }
}

/* What is to be in force, with the routes of it, and in *ws what its migrations did. */
static struct np_routes *judge(struct np_deploy *d, struct np_writeset **ws, struct np_deploy_change *change) {
  for (;;) {
    struct np_routes *routes = routes_of_all(d, change);
    *ws = np_writeset_new();
    if (np_deploy_migrate(d, *ws, change)) return routes;
    np_deploy_thaw(d);
    np_writeset_unref(*ws);
    np_routes_free(routes);
  }
}

/* Settings that only a start can change. */
static void warn_of_restart(const struct np_config *was, const struct np_config *now) {
  const struct {
    const char *name, *a, *b;
  } fixed[] = {{"listen", was->listen, now->listen}, {"store", was->store, now->store}, {"plugins", was->plugins, now->plugins}};
  for (size_t i = 0; i < 3; i++)
    if (!np_unit_same(fixed[i].a, fixed[i].b))
      np_log(NP_WARN, "this setting takes effect at the next start", "setting", fixed[i].name, NULL);
  if (np_unit_same(was->store, now->store) && !np_unit_same(was->key_file, now->key_file))
    np_log(NP_WARN, "this setting takes effect at the next start", "setting", "key", NULL);
  if (memcmp(was->keep, now->keep, sizeof was->keep) != 0)
    np_log(NP_WARN, "this setting takes effect at the next start", "setting", "keep", NULL);
  if (was->lanes != now->lanes) np_log(NP_WARN, "this setting takes effect at the next start", "setting", "lanes", NULL);
}

static void read_config(struct np_deploy *d) {
  struct np_error err;
  const struct np_config *first = d->host->config;
  if (!first->path) return;
  struct np_config *c = np_config_load(first->path, NULL, &err);
  if (!c) {
    if (!np_unit_same(d->config_error, err.text))
      np_log(NP_ERROR, "the configuration as it stands is not put in force", "error", err.text, NULL);
    np_unit_set(&d->config_error, err.text);
    return;
  }
  if (d->config_error) np_log(NP_INFO, "the configuration is in order again", NULL);
  np_unit_set(&d->config_error, NULL);
  if (d->newest) warn_of_restart(d->newest, c);
  np_config_free(d->newest);
  d->config = d->newest = c;
  np_deploy_quarantine_rules(d);
  if (d->watch) np_watch_quiet(d->watch, (int)c->settle);
}

static int plugins_in_force(const struct np_deploy *d) {
  int n = 0;
  for (size_t i = 0; i < d->unit_count; i++) n += d->units[i]->code != NULL;
  return n;
}

/* All files gone at once are more often a mount that is not there than somebody's wish: an empty folder stands where it was mounted. The last plugin of the
 * same folder may be removed like any other. */
static int read_files(struct np_deploy *d, struct np_error *err) {
  struct np_sources fresh;
  struct stat st;
  if (stat(d->plugins, &st) < 0) return np_fail(err, "%s: %s", d->plugins, strerror(errno));
  if (np_sources_read(&fresh, d->plugins, err) < 0) return -1;
  int n = plugins_in_force(d);
  bool other = d->folder && (st.st_dev != d->folder_dev || st.st_ino != d->folder);
  if (!fresh.count && !d->emptied && (n > 1 || (n && other)))
    return np_fail(err, "%s: it is there, but empty: is something to be mounted there? If it is to be empty: neap reload --empty",
                   d->plugins);
  if (fresh.count) d->folder_dev = st.st_dev, d->folder = st.st_ino, d->emptied = false;
  np_sources_free(&d->sources);
  d->sources = fresh;
  return 0;
}

/* What the files and neap.lua say now. */
static bool read_all(struct np_deploy *d) {
  struct np_error err;
  int result = read_files(d, &err);
  if (result < 0 && !np_unit_same(d->unread, err.text))
    np_log(NP_ERROR, "cannot read the plugins; what is in force goes on", "error", err.text, NULL);
  else if (result == 0 && d->unread)
    np_log(NP_INFO, "the plugins can be read again", NULL);
  np_unit_set(&d->unread, result < 0 ? err.text : NULL);
  if (result == 0) read_config(d);
  np_deploy_tls_look(d);
  return result == 0;
}

enum reload {
  AT_ONCE, /* as all is now */
  PATIENT, /* where all has to be one epoch, a file that is perhaps gone, or only renamed, is waited for with the rest */
  AS_SEEN  /* as all was at the last look */
};

static struct np_deploy_change reload(struct np_deploy *d, enum reload how) {
  struct np_deploy_change change = {0};
  struct np_error err;
  if (!np_deploy_all_adopted(d)) { /* a lane is in a long call: it has not taken the last change yet */
    look_again(d, ADOPT_MS);
    return change;
  }
  if (how != AS_SEEN && !read_all(d)) {
    look_again(d, 1000);
    change.failed++;
    return change;
  }
  np_deploy_build(d, &change);
  if (how == PATIENT && d->config->atomic && d->gone) { /* it is looked again soon */
    np_deploy_discard(d);
    return change;
  }
  struct np_writeset *ws;
  struct np_routes *routes = judge(d, &ws, &change);
  if (!anything_new(d)) {
    np_routes_free(routes);
    if (np_deploy_record(d, ws, &err) < 0) np_log(NP_WARN, "cannot record what was not let in", "error", err.text, NULL);
    return change;
  }
  if (np_deploy_record(d, ws, &err) < 0) { /* a restart would not find it: what is in force goes on */
    np_log(NP_ERROR, "cannot record the new generations; what is in force goes on", "error", err.text, NULL);
    np_routes_free(routes);
    np_deploy_discard(d);
    np_deploy_thaw(d);
    look_again(d, 1000);
    change.failed++;
    return change;
  }
  np_deploy_migrated(d);
  struct np_epoch *e = np_deploy_epoch(d, routes);
  e->bare = note_bare(d);
  np_deploy_switch(d, e);
  np_deploy_thaw(d);
  np_deploy_settle(d, &change);
  np_epoch_unref(e);
  return change;
}

struct np_deploy_change np_deploy_reload(struct np_deploy *d, bool empty) {
  if (empty) d->emptied = true;
  return reload(d, AT_ONCE);
}

/* Files that are changed together are looked at together, however long they take to be written, within bounds. */
static bool waits_for_set(struct np_deploy *d) {
  int64_t now = np_mono_us() / 1000;
  struct np_buf sign = {0};
  bool waits = np_unfinished(d->plugins, WHOLE_MS, &sign);
  if (waits && !d->waits_since) {
    d->waits_since = now;
    np_log(NP_INFO, "a set of changes is still being written; it is looked at when it is whole", "sign", sign.data, NULL);
  } else if (waits && now - d->waits_since > WHOLE_MS) {
    np_log(NP_WARN, "a set of changes is still being written after 30 s; what is there now is taken", "sign", sign.data, NULL);
    waits = false;
  }
  if (!waits) d->waits_since = 0;
  np_buf_free(&sign);
  return waits;
}

void np_deploy_look(struct np_deploy *d) {
  if (waits_for_set(d))
    look_again(d, SIGNS_MS);
  else
    reload(d, PATIENT);
}

void np_deploy_decided(struct np_deploy *d) { reload(d, d->unread || waits_for_set(d) ? AS_SEEN : AT_ONCE); }

static void on_change(void *arg) { np_deploy_look(arg); }

static void on_again(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  np_deploy_look(arg);
}

struct np_deploy *np_deploy_new(struct np_host *host, struct np_error *err) {
  struct np_deploy *d = np_alloc(sizeof *d);
  d->host = host;
  d->config = host->config;
  d->plugins = host->config->plugins;
  if (host->config->path) d->newest = np_config_load(host->config->path, NULL, err); /* to compare with later */
  d->lanes = host->config->lanes;
  np_deploy_quarantine_rules(d);
  np_deploy_tls_begin(d);
  d->again = event_new(host->base, -1, 0, on_again, d);
  if (np_deploy_read(d, err) < 0) {
    np_deploy_free(d);
    return NULL;
  }
  return d;
}

struct np_epoch *np_deploy_first(struct np_deploy *d) {
  struct np_deploy_change change = {0};
  struct np_error err;
  np_deploy_build(d, &change);
  struct np_writeset *ws;
  struct np_routes *routes = judge(d, &ws, &change);
  if (np_deploy_record(d, ws, &err) == 0) {
    np_deploy_migrated(d);
  } else {
    np_log(NP_ERROR, "cannot record the generations in force", "error", err.text, NULL);
    if (np_deploy_not_migrated(d, err.text, &change)) {
      np_routes_free(routes);
      routes = routes_of_all(d, &change);
    }
  }
  struct np_epoch *e = np_deploy_epoch(d, routes);
  e->bare = note_bare(d);
  np_deploy_settle(d, &change);
  return e;
}

int np_deploy_watch(struct np_deploy *d, struct np_error *err) {
  d->watch = np_watch_new(d->host->base, (int)d->config->settle, on_change, d, err);
  if (!d->watch) return -1;
  np_watch_add(d->watch, d->plugins);
  if (d->config->path) np_watch_add(d->watch, d->config->path);
  if (d->host->config->certificate)
    np_watch_add(d->watch, d->host->config->certificate), np_watch_add(d->watch, d->host->config->key);
  np_deploy_watch_failures(d);
  look_again(d, 0); /* for what changed between the first look and the watch */
  return 0;
}

const char *np_deploy_config_error(const struct np_deploy *d) { return d->config_error; }
const char *np_deploy_unread(const struct np_deploy *d) { return d->unread; }

size_t np_deploy_count(const struct np_deploy *d) { return d->unit_count; }

struct np_status np_deploy_status(const struct np_deploy *d, size_t i) {
  const struct np_unit *u = d->units[i];
  struct np_status s = {.instance = u->instance,
                        .plugin = u->plugin,
                        .file = u->file,
                        .kind = u->kind,
                        .error = u->error ? u->error : u->held,
                        .since = u->since,
                        .gate = u->gate};
  s.state = u->code           ? (u->last_good ? "last good"
                                 : u->pinned  ? "rolled back"
                                              : "in force")
            : u->unconfigured ? "unconfigured"
                              : "held";
  if (!u->code) return s;
  int quarantine = atomic_load(&u->code->quarantine.state);
  if (quarantine != NP_FREE) s.state = quarantine == NP_QUARANTINE ? "quarantined" : "on trial";
  s.code = u->code;
  s.generation = u->code->number;
  s.hash = u->code->hash;
  s.memory_max = (int64_t)u->code->limits.memory;
  for (int k = 0; k < d->lanes; k++) {
    size_t n = atomic_load_explicit(&u->instances[k]->memory, memory_order_relaxed);
    s.memory += n;
    if (n > s.memory_most) s.memory_most = n;
  }
  return s;
}

bool np_status_is_destination(const struct np_status *s) { return s->kind == NP_DESTINATION || (s->code && s->code->deliver); }

bool np_deploy_is_destination(const struct np_deploy *d, const char *instance) {
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_status s = np_deploy_status(d, i);
    if (strcmp(s.instance, instance) == 0 && np_status_is_destination(&s)) return true;
  }
  return false;
}

void np_deploy_free(struct np_deploy *d) {
  if (!d) return;
  np_watch_free(d->watch);
  np_gates_free(d->gates);
  if (d->again) event_free(d->again);
  if (d->probation) event_free(d->probation);
  for (size_t i = 0; i < d->unit_count; i++) np_unit_free(d, d->units[i]);
  free(d->units);
  free(d->wants.list);
  np_sources_free(&d->sources);
  np_config_free(d->newest);
  free(d->config_error);
  free(d->unread);
  free(d->tls_error);
  free(d);
}
