/* neap check: the gate, without a host behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/client_show.h"
#include "host/gate_parts.h"
#include "io/serve_link.h"

struct check {
  const struct np_check_options *options; /* borrowed */
  struct np_deploy d;
  struct np_reader *reader; /* owned: of the store that it is checked against; NULL */
  int troubles;
};

static const char *state_of(const struct np_unit *u) {
  return u->error && !u->unconfigured ? "broken" : u->unconfigured ? "unconfigured" : "good";
}

struct in_force {
  const struct np_unit *u;
  bool same;
};

static void compare_text(void *arg, const struct np_generation *g) {
  struct in_force *f = arg;
  f->same = g->hash.ptr && strcmp(g->hash.ptr, f->u->built.code->hash) == 0;
}

/* Whether it is to be run over the store's readings; else why not. */
static bool wants_shadow(struct check *c, const struct np_unit *u, const struct np_check *check, const char **why) {
  struct in_force f = {.u = u};
  struct np_error err;
  char *settings = c->reader ? np_gate_settings(c->reader, u->instance) : NULL;
  bool settings_same = !settings || np_gate_settings_same(settings, u->want->canonical);
  free(settings);
  if (u->built.code->kind != NP_RULE)
    *why = "it is for rules";
  else if (!c->reader)
    *why = "--against a store runs it";
  else if (!check->shadow)
    *why = "check.shadow is 0";
  else if (np_reader_generation(c->reader, u->instance, "good", compare_text, &f, &err) != 1)
    *why = "there is no generation of it in the store";
  else if (f.same && settings_same)
    *why = "it is what is in force";
  else
    return true;
  return false;
}

/* The slow stages of what was built. The job that was run: its report is in it. */
static struct np_gate_job *pass(struct check *c, struct np_unit *u) {
  struct np_check check = np_config_check(c->d.config, u->instance);
  struct np_gate_job *job = np_alloc(sizeof *job);
  const char *why = NULL;
  bool shadow = wants_shadow(c, u, &check, &why);
  if (shadow) job->store = np_strdup(c->options->against);
  np_gate_prepare(&c->d, u->want, &check, c->reader, NULL, job);
  np_gate_set(u->gate, NP_STAGE_SPEC, NP_VERDICT_LEFT_OUT, check.spec ? "it has none" : "check.spec does not ask for it");
  np_gate_set(u->gate, NP_STAGE_SHADOW, shadow ? NP_VERDICT_RUNNING : NP_VERDICT_LEFT_OUT, why);
  np_gate_job_run(job);
  np_gate_judge(u->gate, job);
  if (!job->spec || job->spec_passed) return job;
  struct np_buf error = {0};
  np_buf_addf(&error, "%s: its spec failed: %s", u->file, u->gate->stages[NP_STAGE_SPEC].said);
  np_unit_set(&u->error, error.data);
  np_buf_free(&error);
  return job;
}

static void add_messages(struct np_buf *b, const struct np_shadow_report *r) {
  np_buf_adds(b, ",\"messages\":[");
  for (size_t i = 0; i < r->count; i++) {
    np_buf_adds(b, i ? ",{" : "{");
    np_shadow_change_json(&r->list[i], b);
    np_buf_addc(b, '}');
  }
  np_buf_addc(b, ']');
}

static void tell_json(const struct np_unit *u, const struct np_gate_job *job) {
  struct np_buf b = {0};
  np_buf_adds(&b, "{\"instance\":");
  np_buf_add_json(&b, u->instance, strlen(u->instance));
  np_buf_adds(&b, ",\"plugin\":");
  np_buf_add_json(&b, u->plugin, strlen(u->plugin));
  np_buf_addf(&b, ",\"state\":\"%s\"", state_of(u));
  if (u->error) {
    np_buf_adds(&b, ",\"error\":");
    np_buf_add_json(&b, u->error, strlen(u->error));
  }
  if (u->gate) {
    np_buf_addc(&b, ',');
    np_gate_json(u->gate, &b);
  }
  if (job && job->compared) add_messages(&b, &job->report);
  printf("%s}\n", b.data);
  np_buf_free(&b);
}

static void tell_messages(const struct np_shadow_report *r) {
  struct np_show *show = np_show_new("messages", false, false);
  struct np_error err;
  for (size_t i = 0; i < r->count; i++) {
    struct np_buf b = {0};
    np_buf_addc(&b, '{');
    np_shadow_change_json(&r->list[i], &b);
    np_buf_addc(&b, '}');
    if (np_show_line(show, b.data, b.len, &err) < 0) fprintf(stderr, "%s\n", err.text);
    np_buf_free(&b);
  }
  np_show_flush(show);
  np_show_free(show);
}

/* What its spec and its shadow run said, where there were any. */
static void tell_slow(const struct np_unit *u, const struct np_gate_job *job) {
  for (int i = NP_STAGE_SPEC; u->gate && i <= NP_STAGE_SHADOW; i++)
    if (u->gate->stages[i].verdict != NP_VERDICT_LEFT_OUT && u->gate->stages[i].said)
      printf("%s: %s: %s\n", u->instance, np_gate_stage_names[i], u->gate->stages[i].said);
  fflush(stdout);
  if (job && job->compared) tell_messages(&job->report);
}

/* What is wrong begins with the file; whose it is, is told where several entries may have that file. */
static void tell_error(const struct np_unit *u) {
  if (strcmp(u->instance, u->plugin) == 0)
    fprintf(stderr, "%s\n", u->error);
  else
    fprintf(stderr, "%s (%s)\n", u->error, u->instance);
}

static void look_at(struct check *c, struct np_unit *u) {
  struct np_gate_job *job = u->built.code && u->want && u->want->file ? pass(c, u) : NULL;
  bool broken = u->error && !u->unconfigured;
  if (broken) c->troubles++;
  if (c->options->json)
    tell_json(u, job);
  else
    tell_slow(u, job);
  if (broken && !c->options->json) tell_error(u);
  np_gate_job_free(job);
}

static int fail(const struct np_check_options *options, const struct np_error *err) {
  struct np_buf b = {0};
  np_buf_add_json(&b, err->text, strlen(err->text));
  if (options->json)
    printf("{\"error\":%s}\n", b.data);
  else
    fprintf(stderr, "%s\n", err->text);
  np_buf_free(&b);
  return 1;
}

/* What a host could not start with, or not as it is meant. Counted as troubles. */
static void look_at_host(struct check *c) {
  const struct np_config *config = c->options->config;
  struct np_error err;
  struct stat st;
  struct np_tls *tls = NULL;
  if (stat(config->plugins, &st) < 0) {
    np_fail(&err, "neap.lua: plugins: %s is not there", config->plugins);
    c->troubles += fail(c->options, &err);
  }
  if (config->certificate && !(tls = np_tls_new(config->certificate, config->key, &err))) c->troubles += fail(c->options, &err);
  np_tls_free(tls);
}

int np_deploy_check(const struct np_check_options *options) {
  struct check c = {.options = options, .d = {.config = options->config, .plugins = options->config->plugins, .lanes = 1}};
  struct np_deploy *d = &c.d;
  struct np_deploy_change change = {0};
  struct np_error err;
  if (np_deploy_read(d, &err) < 0) return fail(options, &err);
  if (options->against && !(c.reader = np_reader_open(options->against, &err))) {
    np_sources_free(&d->sources);
    return fail(options, &err);
  }
  look_at_host(&c);
  np_deploy_build(d, &change);
  np_deploy_circles(d, &change);
  np_routes_free(np_deploy_routes(d, &change));
  for (size_t i = 0; i < d->unit_count; i++) look_at(&c, d->units[i]);
  if (!c.troubles && !options->json) printf("%zu plugin%s, all good\n", d->unit_count, d->unit_count == 1 ? "" : "s");
  for (size_t i = 0; i < d->unit_count; i++) np_unit_free(d, d->units[i]);
  free(d->units);
  free(d->wants.list);
  np_sources_free(&d->sources);
  if (c.reader) np_reader_close(c.reader);
  return c.troubles;
}
