/* The gate of one unit: what its newest text has passed, and whether it may go on. What is held at the gate is closed; once it may go on it is built again,
 * by the same look that would find a further change. */
#include "host/gate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/gate_parts.h"

static struct np_gate *gate_of(struct np_unit *u) {
  if (!u->gate) u->gate = np_alloc(sizeof *u->gate);
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
}

/* It begins with another text. */
static void begin(struct np_gate *g) {
  for (int i = 0; i < NP_STAGES; i++) np_gate_set(g, (enum np_gate_stage)i, NP_VERDICT_NONE, NULL);
  g->state = NP_GATE_OPEN;
  g->turn = 0;
  g->begun = g->approved = false;
  g->number = 0;
  np_unit_set(&g->print, NULL);
  np_unit_set(&g->spec_text, NULL);
  np_unit_set(&g->hash, NULL);
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
}

void np_gate_forget(struct np_unit *u) {
  struct np_gate *g = u->gate;
  if (!g || g->state == NP_GATE_OPEN || g->state == NP_GATE_LET) return;
  begin(g);
  pass_until(g, NP_STAGE_SPEC);
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
  struct waiting w = {.hash = u->built.code->hash, .number = u->built.code->number};
  np_reader_generation(d->host->reader, u->instance, NULL, note_waiting, &w, NULL);
  return w.number;
}

static bool lets(const struct np_deploy *d, const struct np_unit *u) {
  const struct np_gate *g = u->gate;
  return g->state == NP_GATE_LET || (g->state == NP_GATE_WAITING && (g->approved || !np_config_check(d->config, u->instance).hold));
}

static bool is_about(const struct np_unit *u) { return np_unit_same(u->gate->print, u->tried); }

/* What is still to be passed. False: nothing; what runs meanwhile only informs. */
static bool begin_slow(struct np_deploy *d, struct np_unit *u, const struct np_want *want) {
  struct np_gate *g = u->gate;
  struct np_check check = np_config_check(d->config, u->instance);
  bool new_here = !u->code && !has_another(d, u);
  bool shadow = u->built.code->kind == NP_RULE && check.shadow && !new_here;
  np_unit_set(&g->print, u->tried);
  np_unit_set(&g->hash, u->built.code->hash);
  g->number = number_of(d, u);
  if (!u->stored) u->built.code->number = g->number;
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
                                               : "check.shadow is 0");
  bool holds = g->spec_text || (shadow && check.hold);
  if (holds) {
    g->state = NP_GATE_RUNNING;
    np_gate_say_is(g, g->spec_text ? "its spec is run" : "its shadow run is under way");
  }
  if (holds || (shadow && u->code)) np_gates_want(d, g);
  return holds;
}

bool np_gate_let_in(struct np_deploy *d, struct np_unit *u, const struct np_want *want) {
  struct np_gate *g = gate_of(u);
  if (is_about(u) && lets(d, u)) {
    g->state = NP_GATE_LET;
    np_gate_say_is(g, NULL);
    np_gate_set(g, NP_STAGE_ROUTES, NP_VERDICT_PASSED, NULL); /* or it is told of later in this look */
    if (!u->stored) u->built.code->number = g->number;
    return true;
  }
  begin(g);
  pass_until(g, NP_STAGE_SPEC);
  bool as_before = u->stored && !u->code; /* a start goes on with what was in force */
  if (d->host && !as_before && begin_slow(d, u, want)) return false;
  np_gate_set(g, NP_STAGE_ROUTES, NP_VERDICT_PASSED, NULL);
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

bool np_gate_holds(const struct np_unit *u) {
  return u->gate && (u->gate->state == NP_GATE_RUNNING || u->gate->state == NP_GATE_WAITING);
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
  np_deploy_reload(d);
  u = np_unit_find(d, instance);
  if (u && u->code && u->code->number == number) return number;
  if (u) {
    u->gate->approved = false;
    np_unit_set(&u->cause, NULL);
  }
  if (u && u->error) return np_fail(err, "%s", u->error);
  return np_fail(err, "%s: its file has just been changed: neap plugins shows what waits now", instance);
}
