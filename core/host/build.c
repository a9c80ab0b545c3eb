/* Builds one unit. On the main thread, so that a slow or endless chunk costs no request anything. */
#include "host/build.h"

#include <stdlib.h>
#include <string.h>

#include "base/near.h"
#include "host/shipped.h"

#define BUNDLE_MAX 200

struct libraries {
  const struct np_build_context *context;
  const struct np_source *stored; /* instead of the files, where not NULL */
  int stored_count;
};

static int find_library(void *arg, const char *name, const struct np_source **found, struct np_error *err) {
  struct libraries *l = arg;
  for (int i = 1; i < l->stored_count; i++) {
    if (strcmp(l->stored[i].name, name) != 0) continue;
    *found = &l->stored[i];
    return 0;
  }
  const struct np_file *f = l->stored ? NULL : np_sources_find(l->context->sources, true, name);
  bool table = strncmp(name, NP_TABLE, strlen(NP_TABLE)) == 0;
  if (!f && table)
    return np_fail(err, "there is no %s.csv or %s.lua in plugins/tables", name + strlen(NP_TABLE), name + strlen(NP_TABLE));
  if (!f) {
    char *hint = np_shipped_hint(true, name);
    np_fail(err, "no library \"%s\" in plugins/lib%s", name, hint);
    free(hint);
    return -1;
  }
  if (f->error) return np_fail(err, "%s", f->error);
  *found = &f->source;
  return 0;
}

/* A destination is one that the configuration lists, a plugin in destinations/ that needs no settings, or a connection that delivers. */
static bool is_destination(void *arg, const char *name) {
  const struct np_build_context *c = ((struct libraries *)arg)->context;
  if (c->delivers(c->arg, name)) return true;
  for (size_t i = 0; i < c->config->entry_count; i++)
    if (c->config->entries[i].kind == NP_DESTINATION && strcmp(c->config->entries[i].instance, name) == 0) return true;
  const struct np_file *f = np_sources_find(c->sources, false, name);
  return f && strncmp(f->folder, "destinations", 12) == 0;
}

/* What readings come by is a connection, or a rule that may derive some: listed by the configuration, or a plugin that needs no settings. */
static bool gives_readings(const struct np_build_context *c, const char *name) {
  for (size_t i = 0; i < c->config->entry_count; i++)
    if (c->config->entries[i].kind != NP_DESTINATION && strcmp(c->config->entries[i].instance, name) == 0) return true;
  const struct np_file *f = np_sources_find(c->sources, false, name);
  return f && (strncmp(f->folder, "vendors", 7) == 0 || strncmp(f->folder, "rules", 5) == 0);
}

static int check_shows(const struct np_build_context *c, const struct np_want *want, struct np_error *err) {
  for (size_t i = 0; i < want->show_count; i++) {
    const char *name = want->shows[i];
    if (strcmp(name, "*") == 0 || gives_readings(c, name)) continue;
    const char **names = np_alloc((c->config->entry_count + 1) * sizeof *names);
    size_t n = 0;
    for (size_t k = 0; k < c->config->entry_count; k++)
      if (c->config->entries[k].kind != NP_DESTINATION) names[n++] = c->config->entries[k].instance;
    const char *near = np_near(name, strlen(name), names, n);
    free(names);
    return np_fail(err, "%s.shows: there is no connection \"%s\"%s%s%s", want->at, name, near ? ", did you mean \"" : "",
                   near ? near : "", near ? "\"?" : "");
  }
  return 0;
}

static int build(const struct np_build_context *context, const struct np_want *want, const struct np_source *own,
                 struct libraries *libraries, struct np_built *b, struct np_error *err) {
  struct np_order order = {.instance = want->instance,
                           .plugin = want->plugin,
                           .mount = want->mount,
                           .settings = want->settings,
                           .delivery = want->delivery,
                           .settings_at = want->at,
                           .configured = want->configured,
                           .people = want->people,
                           .shows = want->shows,
                           .show_count = want->show_count,
                           .source = *own,
                           .library = find_library,
                           .destination = is_destination,
                           .stage = &b->stage,
                           .arg = libraries};
  if (want->limits) order.limits = *want->limits;
  b->instances = np_alloc((size_t)context->lanes * sizeof *b->instances);
  for (int i = 0; i < context->lanes; i++) {
    struct np_code *code = b->code;
    b->instances[i] = np_instance_build(&order, &code, &b->unconfigured, err);
    if (!b->instances[i]) return -1;
    b->code = code;
  }
  if (b->code->migration_count) {
    struct np_code *code = b->code;
    b->spare = np_instance_build(&order, &code, &b->unconfigured, err);
    if (!b->spare) return -1;
  }
  static const char *const lists[] = {"connections", "rules", "destinations"};
  b->stage = NP_STAGE_CONFIGURATION;
  if (want->configured && b->code->kind != want->kind)
    return np_fail(err, "%s: %s is a %s, it belongs in %s", want->at, want->plugin, np_kind_names[b->code->kind],
                   lists[b->code->kind]);
  return 0;
}

/* The code's hash and bundle: of its own file and the libraries that it required. */
static void seal(struct np_built *b, const struct np_source *own, struct libraries *libraries) {
  struct np_buf bundle = {0};
  struct np_source first = *own;
  first.name = "";
  np_bundle_add(&bundle, &first);
  b->code->library_hashes = np_alloc((b->code->library_count + 1) * sizeof *b->code->library_hashes);
  for (size_t i = 0; i < b->code->library_count; i++) {
    const struct np_source *s = NULL;
    if (find_library(libraries, b->code->libraries[i], &s, NULL) < 0) continue;
    np_bundle_add(&bundle, s);
    np_sha256_hex(s->text, s->len, b->code->library_hashes[i]);
  }
  char hash[65];
  np_sha256_hex(bundle.data, bundle.len, hash);
  b->code->hash = np_strdup(hash);
  b->bundle = bundle.data;
  b->bundle_len = bundle.len;
}

void np_built_discard(struct np_built *b, int lanes) {
  for (int i = 0; b->instances && i < lanes; i++)
    if (b->instances[i]) np_instance_close(b->instances[i]);
  if (b->spare) np_instance_close(b->spare);
  free(b->instances);
  free(b->bundle);
  *b = (struct np_built){.unconfigured = b->unconfigured, .stage = b->stage};
}

static int finish(const struct np_build_context *context, const struct np_want *want, const struct np_source *own,
                  struct libraries *libraries, struct np_built *b, struct np_error *err) {
  *b = (struct np_built){.stage = NP_STAGE_CONFIGURATION};
  if (check_shows(context, want, err) < 0) return -1;
  if (build(context, want, own, libraries, b, err) < 0) {
    np_built_discard(b, context->lanes);
    return -1;
  }
  seal(b, own, libraries);
  return 0;
}

int np_build(const struct np_build_context *context, const struct np_want *want, struct np_built *b, struct np_error *err) {
  *b = (struct np_built){0};
  struct libraries libraries = {.context = context};
  if (!want->file) {
    char *hint = np_shipped_hint(false, want->plugin);
    const char *meant = np_sources_near(context->sources, want->plugin);
    if (*hint || !meant)
      np_fail(err, "%s: no plugin file %s.lua in %s%s", want->at, want->plugin, context->config->plugins, hint);
    else
      np_fail(err, "%s: no plugin file %s.lua in %s, did you mean \"%s\"?", want->at, want->plugin, context->config->plugins,
              meant);
    free(hint);
    return -1;
  }
  if (want->file->error) return np_fail(err, "%s", want->file->error);
  return finish(context, want, &want->file->source, &libraries, b, err);
}

int np_build_stored(const struct np_build_context *context, const struct np_want *want, const char *bundle, size_t len,
                    struct np_built *b, struct np_error *err) {
  struct np_source list[BUNDLE_MAX];
  *b = (struct np_built){0};
  int n = np_bundle_read(bundle, len, list, BUNDLE_MAX, err);
  if (n < 0) return -1;
  if (n == 0) return np_fail(err, "the stored generation is empty");
  struct libraries libraries = {.context = context, .stored = list, .stored_count = n};
  int result = finish(context, want, &list[0], &libraries, b, err);
  for (int i = 0; i < n; i++) np_source_free(&list[i]);
  return result;
}
