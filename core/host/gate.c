/* The gate of one unit: what its newest text has passed, and whether it may go on. What is held at the gate is closed; once it may go on it is built again,
 * by the same look that would find a further change. */
#include "host/gate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "host/gate_parts.h"

static struct np_gate *gate_of(struct np_unit *u) {
  if (!u->gate) {
    u->gate = np_alloc(sizeof *u->gate);
    u->gate->instance = u->instance;
  }
  return u->gate;
}

void np_gate_set(struct np_gate *g, enum np_gate_stage stage, enum np_verdict verdict, const char *said) {
  g->stages[stage].verdict = verdict;
  np_unit_set(&g->stages[stage].said, said);
}

void np_gate_say_is(struct np_gate *g, const char *format, ...) {
  va_list args;
  char *text = NULL;
  va_start(args, format);
  if (format && vasprintf(&text, format, args) < 0) abort();
  va_end(args);
  free(g->says);
  g->says = text;
  free(g->why);
  g->why = text ? np_unit_text("%s: %s", g->instance, text) : NULL;
}

/* It begins with another text. */
static void begin(struct np_gate *g) {
  for (int i = 0; i < NP_STAGES; i++) np_gate_set(g, (enum np_gate_stage)i, NP_VERDICT_NONE, NULL);
  g->state = NP_GATE_OPEN;
  g->turn = 0;
  g->begun = g->approved = false;
  g->number = 0;
  np_unit_set(&g->print, NULL);
  np_unit_set(&g->own_print, NULL);
  np_unit_set(&g->spec_text, NULL);
  np_unit_set(&g->hash, NULL);
  np_unit_set(&g->settings, NULL);
  np_gate_say_is(g, NULL);
  np_code_unref(g->old);
  g->old = NULL;
}

void np_gate_free(struct np_gate *g) {
  if (!g) return;
  begin(g);
  free(g);
}

static void pass_until(struct np_gate *g, enum np_gate_stage stage) {
  for (int i = 0; i < (int)stage; i++)
    if (g->stages[i].verdict == NP_VERDICT_NONE) np_gate_set(g, (enum np_gate_stage)i, NP_VERDICT_PASSED, NULL);
}

void np_gate_refused(struct np_unit *u, enum np_gate_stage stage, const char *why) {
  struct np_gate *g = gate_of(u);
  if (stage < NP_STAGE_SPEC) begin(g);
  pass_until(g, stage);
  np_gate_set(g, stage, NP_VERDICT_FAILED, why);
  for (int i = (int)stage + 1; i < NP_STAGES; i++) np_gate_set(g, (enum np_gate_stage)i, NP_VERDICT_NONE, NULL);
  if (stage <= NP_STAGE_SHADOW || g->stages[NP_STAGE_SHADOW].verdict != NP_VERDICT_RUNNING) return;
  g->turn = 0; /* what it would change is of no concern now */
  np_gate_set(g, NP_STAGE_SHADOW, NP_VERDICT_NONE, NULL);
}

void np_gate_forget(struct np_unit *u) {
  struct np_gate *g = u->gate;
  if (!g || g->state == NP_GATE_OPEN || g->state == NP_GATE_LET) return;
  begin(g);
  pass_until(g, NP_STAGE_SPEC);
}

void np_gate_pinned(struct np_unit *u, const struct np_want *want) {
  np_gate_forget(u);
  if (u->built.code) np_unit_set(&gate_of(u)->settings, want->canonical);
}

static void ignore(void *arg, const struct np_generation *g) { (void)arg, (void)g; }

/* Whether a generation of it stands in the store that was good, other than this one. */
static bool has_another(struct np_deploy *d, const struct np_unit *u) {
  return np_reader_generation(d->host->reader, u->instance, "good", ignore, NULL, NULL) == 1;
}

struct waiting {
  const char *hash;
  int number;
};

static void note_waiting(void *arg, const struct np_generation *g) {
  struct waiting *w = arg;
  if (strcmp(g->verdict.ptr, "waiting") == 0 && g->hash.ptr && strcmp(g->hash.ptr, w->hash) == 0) w->number = g->number;
}

/* What waited before a restart keeps its number. */
static int number_of(struct np_deploy *d, const struct np_unit *u) {
  struct waiting w = {.hash = u->built.code->hash, .number = u->stored ? u->last_number + 1 : u->built.code->number};
  np_reader_generation(d->host->reader, u->instance, NULL, note_waiting, &w, NULL);
  return w.number;
}

/* Its settings, as they are kept. They are kept readable, without secrets: neap check reads them without the key. */

static int settings_key(char key[120], const char *instance) { return snprintf(key, 120, "%s settings", instance); }

char *np_gate_settings(struct np_reader *reader, const char *instance) {
  char key[120];
  struct np_buf value = {0};
  int64_t version;
  int n = settings_key(key, instance);
  if (np_reader_get(reader, NP_GATE_SPACE, key, (size_t)n, 0, &value, &version, NULL) == 1) return value.data;
  np_buf_free(&value);
  return NULL;
}

bool np_gate_settings_same(const char *kept, const char *canonical) {
  char *masked = np_mask_text(canonical, strlen(canonical));
  bool same = strcmp(kept, masked) == 0;
  free(masked);
  return same;
}

void np_gate_record(struct np_unit *u, struct np_writeset *ws) {
  char key[120];
  if (!u->built.code || u->built.code->kind != NP_RULE || !u->gate || !u->gate->settings) return;
  int n = settings_key(key, u->instance);
  char *masked = np_mask_text(u->gate->settings, strlen(u->gate->settings));
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, NP_GATE_SPACE, strlen(NP_GATE_SPACE));
  op->as.put.key = np_writeset_text(ws, key, (size_t)n);
  op->as.put.value = np_writeset_text(ws, masked, strlen(masked));
  free(masked);
}

/* The text that was in force goes on with the settings that it had. */
void np_gate_fall_back(struct np_deploy *d, struct np_unit *u, const char *why) {
  const struct np_want *now = u->want;
  struct np_want was = *now;
  bool keeps = d->host && (u->gate->hash || np_config_check(d->config, u->instance).hold);
  char *settings = keeps ? np_gate_settings(d->host->reader, u->instance) : NULL;
  if (settings) was.settings = was.canonical = settings;
  u->want = &was;
  np_unit_fall_back(d, u, why);
  u->want = now;
  free(settings);
}

static bool lets(const struct np_deploy *d, const struct np_unit *u) {
  const struct np_gate *g = u->gate;
  return g->state == NP_GATE_LET || (g->state == NP_GATE_WAITING && (g->approved || !np_config_check(d->config, u->instance).hold));
}

static bool is_about(const struct np_unit *u) { return np_unit_same(u->gate->print, u->tried); }

/* The same for what is built, whatever else has come or gone beside it. */
static bool is_about_built(const struct np_deploy *d, const struct np_unit *u, const struct np_want *want) {
  char *own = np_unit_fingerprint(d, u->built.code, want);
  bool same = np_unit_same(u->gate->own_print, own);
  free(own);
  return same;
}

/* What is still to be passed. False: nothing; what runs meanwhile only informs. */
static bool begin_slow(struct np_deploy *d, struct np_unit *u, const struct np_want *want) {
  struct np_gate *g = u->gate;
  struct np_check check = np_config_check(d->config, u->instance);
  bool new_here = !u->code && !has_another(d, u);
  bool starts = !u->code && !check.hold;
  bool shadow = u->built.code->kind == NP_RULE && check.shadow && !new_here && !starts;
  np_unit_set(&g->print, u->tried);
  g->own_print = np_unit_fingerprint(d, u->built.code, want);
  np_unit_set(&g->hash, u->built.code->hash);
  if (u->code) np_code_ref(g->old = u->code);
  if (check.spec) g->spec_text = np_gate_spec_hash(d, want);
  np_gate_set(g, NP_STAGE_SPEC, g->spec_text ? NP_VERDICT_RUNNING : NP_VERDICT_LEFT_OUT,
              !check.spec    ? "check.spec does not ask for it"
              : g->spec_text ? NULL
                             : "it has none");
  np_gate_set(g, NP_STAGE_SHADOW, shadow ? NP_VERDICT_RUNNING : NP_VERDICT_LEFT_OUT,
              shadow                           ? NULL
              : u->built.code->kind != NP_RULE ? "it is for rules"
              : new_here                       ? "there is no generation before it"
              : starts                         ? "the host has just started"
                                               : "check.shadow is 0");
  bool holds = g->spec_text || (shadow && check.hold);
  g->number = holds || !u->stored ? number_of(d, u) : u->built.code->number;
  if (!holds) u->built.code->number = g->number;
  if (holds) {
    g->state = NP_GATE_RUNNING;
    np_gate_say_is(g, g->spec_text ? "its spec is run" : "its shadow run is under way");
  }
  if (holds || (shadow && u->code)) np_gates_want(d, g);
  return holds;
}

/* A start goes on with what was in force, and so does a file that is again what it was. */
static bool is_as_before(struct np_deploy *d, const struct np_unit *u, const struct np_want *want) {
  if (!u->stored) return false;
  char *kept = u->built.code->kind == NP_RULE ? np_gate_settings(d->host->reader, u->instance) : NULL;
  bool same = !kept || np_gate_settings_same(kept, want->canonical);
  free(kept);
  return same;
}

static void pass_last(struct np_unit *u) {
  bool any = u->built.code->migration_count > 0;
  bool derives = u->built.code->derive_count > 0;
  np_gate_set(u->gate, NP_STAGE_CIRCLES, derives ? NP_VERDICT_PASSED : NP_VERDICT_LEFT_OUT, derives ? NULL : "it derives nothing");
  np_gate_set(u->gate, NP_STAGE_ROUTES, NP_VERDICT_PASSED, NULL);
  np_gate_set(u->gate, NP_STAGE_MIGRATION, any ? NP_VERDICT_PASSED : NP_VERDICT_LEFT_OUT, any ? NULL : "it has none");
}

bool np_gate_let_in(struct np_deploy *d, struct np_unit *u, const struct np_want *want) {
  struct np_gate *g = gate_of(u);
  if (lets(d, u) && is_about_built(d, u, want)) {
    g->state = NP_GATE_LET;
    np_gate_say_is(g, NULL);
    pass_last(u); /* or it is told of later in this look */
    if (g->number != u->built.code->number) u->stored = false;
    u->built.code->number = g->number;
    np_unit_set(&g->settings, want->canonical);
    return true;
  }
  begin(g);
  np_unit_set(&u->cause, NULL); /* what was approved was another text */
  pass_until(g, NP_STAGE_SPEC);
  if (d->host && !is_as_before(d, u, want) && begin_slow(d, u, want)) return false;
  np_unit_set(&g->settings, want->canonical);
  pass_last(u);
  return true;
}

static bool spec_has_changed(const struct np_deploy *d, const struct np_unit *u, const struct np_want *want) {
  char *now = np_config_check(d->config, u->instance).spec ? np_gate_spec_hash(d, want) : NULL;
  bool changed = (now || u->gate->spec_text) && !np_unit_same(now, u->gate->spec_text);
  free(now);
  return changed;
}

bool np_gate_again(const struct np_deploy *d, const struct np_unit *u, const struct np_want *want) {
  if (!u->gate || !want->file || !is_about(u)) return false;
  if (lets(d, u)) return true;
  return (u->gate->state == NP_GATE_REFUSED || u->gate->state == NP_GATE_RUNNING) && spec_has_changed(d, u, want);
}

const char *np_gate_holds(const struct np_unit *u) {
  return u->gate && (u->gate->state == NP_GATE_RUNNING || u->gate->state == NP_GATE_WAITING) ? u->gate->why : NULL;
}

int np_gate_number(const struct np_gate *g) { return g ? g->number : 0; }
bool np_gate_waits(const struct np_gate *g) { return g && g->state == NP_GATE_WAITING; }
const char *np_gate_says(const struct np_gate *g) { return g ? g->says : NULL; }

int np_deploy_approve(struct np_deploy *d, const char *instance, const char *cause, struct np_error *err) {
  struct np_unit *u = np_unit_find(d, instance);
  if (!u) return np_fail(err, "there is no plugin \"%s\": neap plugins lists them", instance);
  if (u->gate && u->gate->state == NP_GATE_RUNNING) return np_fail(err, "%s: %s: try again in a moment", instance, u->gate->says);
  if (!np_gate_waits(u->gate)) return np_fail(err, "%s: nothing waits to be approved", instance);
  if (!np_deploy_all_adopted(d)) return np_fail(err, "a lane is in the middle of a long call: try again in a moment");
  int number = u->gate->number;
  u->gate->approved = true;
  np_unit_set(&u->cause, cause);
  np_deploy_decided(d);
  u = np_unit_find(d, instance);
  if (u && u->code && u->code->number == number) return number;
  if (u && u->held) return np_fail(err, "%s: generation %d is approved, and still %s", instance, number, u->held);
  if (u && u->gate) {
    u->gate->approved = false;
    np_unit_set(&u->cause, NULL);
  }
  if (u && u->error) return np_fail(err, "%s", u->error);
  return np_fail(err, "%s: its file has just been changed: neap plugins shows what waits now", instance);
}
