/* Units: what is wanted of each, whether it has changed, and what came of building it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/deploy_parts.h"

char *np_unit_text(const char *format, ...) {
  char *text;
  va_list args;
  va_start(args, format);
  if (vasprintf(&text, format, args) < 0) abort();
  va_end(args);
  return text;
}

bool np_unit_same(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

void np_unit_set(char **at, const char *text) {
  char *copy = text ? np_strdup(text) : NULL;
  free(*at);
  *at = copy;
}

/* Where it is, or where it belongs. */
static size_t place_of(const struct np_deploy *d, const char *instance, bool *found) {
  size_t low = 0, high = d->unit_count;
  for (*found = false; low < high && !*found;) {
    size_t middle = (low + high) / 2;
    int order = strcmp(d->units[middle]->instance, instance);
    *found = order == 0;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return high;
}

struct np_unit *np_unit_find(struct np_deploy *d, const char *instance) {
  bool found;
  size_t at = place_of(d, instance, &found);
  return found ? d->units[at] : NULL;
}

static struct np_unit *add_unit(struct np_deploy *d, const char *instance) {
  bool found;
  size_t at = place_of(d, instance, &found);
  if (found) return d->units[at];
  struct np_unit *u = np_alloc(sizeof *u);
  u->instance = np_strdup(instance);
  u->last_number = d->host ? np_reader_last_number(d->host->reader, instance) : 0;
  np_unit_load_pin(d, u);
  d->units = np_realloc(d->units, (d->unit_count + 1) * sizeof *d->units);
  memmove(d->units + at + 1, d->units + at, (d->unit_count - at) * sizeof *d->units);
  d->units[at] = u;
  d->unit_count++;
  return u;
}

static struct np_unit *get_unit(struct np_deploy *d, const struct np_want *want) {
  struct np_unit *u = add_unit(d, want->instance);
  u->want = want;
  np_unit_set(&u->plugin, want->plugin);
  if (want->file) np_unit_set(&u->file, want->file->source.path);
  if (want->configured)
    u->kind = want->kind;
  else if (!u->code && want->file) /* as its folder says, until it says so itself */
    u->kind = strncmp(want->file->folder, "rules", 5) == 0           ? NP_RULE
              : strncmp(want->file->folder, "destinations", 12) == 0 ? NP_DESTINATION
                                                                     : NP_VENDOR;
  u->configured = want->configured;
  u->wanted = true;
  return u;
}

void np_unit_discard(struct np_deploy *d, struct np_unit *u) {
  np_built_discard(&u->built, d->lanes);
  np_unit_set(&u->print, NULL);
  np_unit_set(&u->bad, NULL);
  u->last_good = u->code && u->good && !*u->good; /* as what goes on is */
}

void np_unit_free(struct np_deploy *d, struct np_unit *u) {
  np_built_discard(&u->built, d->lanes);
  np_code_unref(u->code);
  free(u->instances);
  free(u->instance), free(u->plugin), free(u->good), free(u->bad), free(u->tried), free(u->error), free(u->file), free(u->print);
  free(u->cause), free(u->refused), free(u->pin_print), free(u->held), free(u->held_before);
  np_gate_free(u->gate);
  np_unit_filters_free(u);
  free(u);
}

static void same_reason(void *arg, const struct np_generation *g) {
  const char **error = arg;
  if (g->reason.ptr && strcmp(g->reason.ptr, *error) == 0) *error = NULL;
}

/* To be recorded, unless it was the last time too, as at each start with a broken file. */
static void note_refused(struct np_deploy *d, struct np_unit *u, const char *error) {
  const char *news = error;
  np_reader_generation(d->host->reader, u->instance, "bad", same_reason, &news, NULL);
  if (news) np_unit_set(&u->refused, error);
}

void np_unit_fail(struct np_deploy *d, struct np_unit *u, const char *error) {
  bool news = !np_unit_same(u->error, error);
  np_unit_set(&u->error, error);
  if (!news || !d->host) return;
  note_refused(d, u, error);
  char generation[16];
  snprintf(generation, sizeof generation, "%d", u->code ? u->code->number : 0);
  if (u->code)
    np_log(NP_ERROR, "not put in force; the generation before goes on", "plugin", u->instance, "generation", generation, "error",
           error, NULL);
  else
    np_log(NP_ERROR, u->kind == NP_RULE && u->configured ? "not in force; its readings are held" : "not in force", "plugin",
           u->instance, "error", error, NULL);
}

/* What is wanted. */

bool np_unit_is_listed(const struct np_config *c, const char *name, bool as_plugin) {
  for (size_t i = 0; i < c->entry_count; i++)
    if (strcmp(as_plugin ? c->entries[i].plugin : c->entries[i].instance, name) == 0) return true;
  return false;
}

static void add_listed(struct np_deploy *d, struct np_wants *w, bool rules) {
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
                                           .delivery = e->delivery,
                                           .limits = &e->limits,
                                           .shows = (const char *const *)e->shows,
                                           .show_count = e->show_count,
                                           .configured = true,
                                           .people = e->people,
                                           .kind = e->kind,
                                           .file = np_sources_find(&d->sources, false, e->plugin)};
  }
}

static void add_unlisted(struct np_deploy *d, struct np_wants *w, const struct np_map *listed, bool rules) {
  for (size_t i = 0; i < d->sources.count; i++) {
    const struct np_file *f = &d->sources.files[i];
    const char *name = f->source.name;
    if (f->library || np_map_get(listed, name, strlen(name))) continue;
    bool again = i && !f[-1].library && strcmp(f[-1].source.name, name) == 0; /* two files of one name: one unit, which says so */
    if (again || (strncmp(f->folder, "rules", 5) == 0) != rules) continue;
    w->list[w->count++] = (struct np_want){.instance = name,
                                           .plugin = name,
                                           .mount = "",
                                           .settings = "{}",
                                           .canonical = "{}",
                                           .at = f->source.path,
                                           .limits = &d->config->limits,
                                           .file = f};
  }
}

/* Rules last: by then it is known to what connections they may send. */
struct np_wants np_unit_wants(struct np_deploy *d) {
  const struct np_config *c = d->config;
  struct np_wants w = {np_alloc((c->entry_count + d->sources.count + 1) * sizeof *w.list), 0, 0};
  struct np_map listed = {0};
  for (size_t i = 0; i < c->entry_count; i++) {
    np_map_put(&listed, c->entries[i].plugin, strlen(c->entries[i].plugin), d);
    np_map_put(&listed, c->entries[i].instance, strlen(c->entries[i].instance), d);
  }
  for (int rules = 0; rules < 2; rules++) {
    w.rules = w.count;
    add_listed(d, &w, rules);
    bool only_listed = c->only_listed || (d->host && d->host->config->only_listed);
    if (!only_listed) add_unlisted(d, &w, &listed, rules);
  }
  np_map_free(&listed, NULL);
  return w;
}

/* What is not in force yet may deliver once it is: until then it holds what it is sent. */
static bool is_connection_that_delivers(const struct np_unit *u) {
  const struct np_code *code = u->built.code ? u->built.code : u->code;
  return code ? code->kind == NP_VENDOR && code->deliver : u->configured && u->kind == NP_VENDOR;
}

static bool delivers(void *arg, const char *instance) {
  const struct np_unit *u = np_unit_find(arg, instance);
  return u && is_connection_that_delivers(u);
}

void np_unit_note_names(struct np_deploy *d) {
  struct np_buf text = {0};
  for (size_t i = 0; i < d->config->entry_count; i++)
    if (d->config->entries[i].kind != NP_RULE) np_buf_addf(&text, "%s\n", d->config->entries[i].instance);
  for (size_t i = 0; i < d->sources.count; i++)
    if (!d->sources.files[i].library) np_buf_addf(&text, "%s/%s\n", d->sources.files[i].folder, d->sources.files[i].source.name);
  for (size_t i = 0; i < d->unit_count; i++)
    if (is_connection_that_delivers(d->units[i])) np_buf_addf(&text, "%s delivers\n", d->units[i]->instance);
  np_sha256_hex(np_buf_text(&text), text.len, d->names_hash);
  np_buf_free(&text);
}

static char *with_settings(const char *sources, const struct np_want *want, const char *error) {
  struct np_buf limits = {0};
  if (want->limits) np_limits_print(want->limits, &limits);
  char *print = np_unit_text("%s %s %s %s %s %d %d %s %s", sources, want->plugin, want->mount ? want->mount : "", want->canonical,
                             want->delivery ? want->delivery : "", want->configured, want->people, np_buf_text(&limits), error);
  np_buf_free(&limits);
  return print;
}

char *np_unit_fingerprint(const struct np_deploy *d, const struct np_code *code, const struct np_want *want) {
  char hash[65];
  struct np_buf text = {0};
  if (!code) {
    np_buf_adds(&text, d->sources.library_hash);
    np_buf_adds(&text, d->names_hash);
  }
  for (size_t i = 0; code && i < code->library_count; i++) {
    const struct np_file *f = np_sources_find(&d->sources, true, code->libraries[i]);
    if (f) np_buf_addf(&text, "%s %s %s\n", f->source.name, f->source.path, f->hash);
  }
  if (want->file) np_buf_adds(&text, want->file->hash);
  for (size_t i = 0; i < want->show_count; i++) np_buf_addf(&text, "\nshows %s", want->shows[i]);
  np_sha256_hex(np_buf_text(&text), text.len, hash);
  np_buf_free(&text);
  return with_settings(hash, want, want->file && want->file->error ? want->file->error : "");
}

char *np_unit_pinned_print(int number, const struct np_want *want) {
  char sources[32];
  snprintf(sources, sizeof sources, "generation %d", number);
  return with_settings(sources, want, "");
}

struct np_build_context np_unit_context(struct np_deploy *d) {
  return (struct np_build_context){.sources = &d->sources, .config = d->config, .lanes = d->lanes, .delivers = delivers, .arg = d};
}

struct last_good {
  struct np_deploy *d;
  struct np_unit *u;
  const struct np_want *want;
  int number;
  bool ok;
  struct np_error err;
};

static void build_last_good(void *arg, const struct np_generation *g) {
  struct last_good *l = arg;
  struct np_build_context context = np_unit_context(l->d);
  l->number = g->number;
  l->ok = np_build_stored(&context, l->want, g->source.ptr, g->source.len, &l->u->built, &l->err) == 0;
}

bool np_unit_fall_back(struct np_deploy *d, struct np_unit *u, const char *why) {
  struct last_good l = {.d = d, .u = u, .want = u->want};
  if (!d->host || np_reader_generation(d->host->reader, u->instance, "good", build_last_good, &l, NULL) != 1) return false;
  if (l.ok) l.ok = np_unit_check_state(d, u, &l.err) == 0;
  if (!l.ok) {
    np_built_discard(&u->built, d->lanes);
    if (!u->unconfigured)
      np_log(NP_ERROR, "nor can its last good generation be in force", "plugin", u->instance, "error", l.err.text, NULL);
    return false;
  }
  u->built.code->number = l.number;
  u->stored = true;
  u->last_good = true;
  np_unit_set(&u->print, "");
  char number[16];
  snprintf(number, sizeof number, "%d", l.number);
  np_log(NP_WARN, "runs on its last good generation", "plugin", u->instance, "generation", number, "error", why, NULL);
  return true;
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
static void number_it(struct np_deploy *d, struct np_unit *u) {
  struct recall r = {.hash = u->built.code->hash};
  if (d->host && (!u->code || u->last_good)) np_reader_generation(d->host->reader, u->instance, "good", same_sources, &r, NULL);
  u->stored = r.number != 0;
  u->built.code->number = r.number ? r.number : u->last_number + 1;
}

static void build_unit(struct np_deploy *d, struct np_unit *u, const struct np_want *want, struct np_deploy_change *change) {
  struct np_error err;
  struct np_build_context context = np_unit_context(d);
  if (np_build(&context, want, &u->built, &err) == 0 && np_unit_check_state(d, u, &err) == 0) {
    number_it(d, u);
    u->unconfigured = false;
    if (np_gate_let_in(d, u, want)) {
      u->print = np_unit_fingerprint(d, u->built.code, want);
      u->last_good = false;
      return;
    }
    np_built_discard(&u->built, d->lanes);
    np_unit_set(&u->error, NULL);
    change->waiting++;
    if (!u->code) np_gate_fall_back(d, u, "its file is at the gate");
    return;
  }
  np_gate_refused(u, u->built.stage, err.text);
  np_built_discard(&u->built, d->lanes);
  u->unconfigured = u->built.unconfigured;
  if (u->unconfigured && (!u->code || u->listed)) { /* it waits for a person's settings: no fault */
    np_unit_set(&u->error, err.text);
  } else {
    change->failed++;
    np_unit_fail(d, u, err.text);
  }
  if (!u->code && want->file) np_gate_fall_back(d, u, u->error);
}

/* neap.lua lists it no more, and it needs settings: it does not go on with those that it had. */
static void retire_unlisted(struct np_unit *u, const struct np_want *want) {
  if (u->unconfigured && u->listed && u->code && !u->built.code) u->wanted = false;
  if (u->built.code || want->configured) u->listed = want->configured;
}

void np_unit_look(struct np_deploy *d, const struct np_want *want, struct np_deploy_change *change) {
  struct np_unit *u = get_unit(d, want);
  int64_t now = np_mono_us() / 1000;
  if (want->file)
    u->gone_since = 0;
  else if (u->code && !u->gone_since)
    u->gone_since = now;
  if (!want->file && u->code && now - u->gone_since < NP_GONE_MS) { /* perhaps only between two writes */
    change->kept++;
    return;
  }
  if (np_unit_look_pinned(d, u, want, change)) {
    np_gate_pinned(u, want);
    retire_unlisted(u, want);
    return;
  }
  char *good = u->code ? np_unit_fingerprint(d, u->code, want) : NULL;
  free(u->tried);
  u->tried = np_unit_fingerprint(d, NULL, want);
  if (u->code && np_unit_same(good, u->good)) {
    if (u->error) np_log(NP_INFO, "the file is again what is in force", "plugin", u->instance, NULL);
    np_unit_set(&u->error, NULL);
    np_unit_set(&u->bad, NULL);
    np_gate_forget(u);
    u->clashed = false;
    change->kept++;
  } else if (np_unit_same(u->tried, u->bad) && !u->clashed && !np_gate_again(d, u, want)) {
    change->kept++;
  } else {
    u->clashed = false;
    build_unit(d, u, want, change);
    np_unit_set(&u->bad, u->built.code && !u->last_good ? NULL : u->tried);
    if (!want->file && u->code) u->wanted = false; /* its file is gone for good: retired, and held where it is listed */
  }
  free(good);
  retire_unlisted(u, want);
}
