/* The gate's thread, and the jobs that it runs one after another: made here, run there, and told of here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "host/gate_parts.h"
#include "host/worker.h"

#define MESSAGES_MOST ((size_t)8 << 20) /* bytes of a report that are kept */
#define LOOK_MS 500
#define STAGES_KEPT_MS (INT64_C(365) * 86400000)

struct np_gates {
  struct np_deploy *d;      /* borrowed */
  struct np_worker *worker; /* owned: of jobs */
  atomic_bool stop;
  struct event *turn; /* owned */
  uint64_t last_turn;
  bool look;      /* what has passed is to be built */
  int64_t looked; /* ms */
};

/* Making a job */

char *np_gate_spec_hash(const struct np_deploy *d, const struct np_want *want) {
  char *path = want->file ? np_gate_spec_path(d->plugins, want->file) : NULL, hash[65];
  FILE *f = path ? fopen(path, "re") : NULL;
  struct np_buf text = {0};
  size_t n;
  free(path);
  if (!f) return NULL;
  while ((n = fread(np_buf_reserve(&text, 16384), 1, 16384, f)) > 0) text.len += n;
  fclose(f);
  np_sha256_hex(np_buf_text(&text), text.len, hash);
  np_buf_free(&text);
  return np_strdup(hash);
}

static bool any_name(void *arg, const char *name) {
  (void)arg, (void)name;
  return true;
}

/* Whom messages may be sent to once what is built now is in force. */
struct np_epoch *np_gate_epoch(const struct np_deploy *d) {
  struct np_epoch *e = np_alloc(sizeof *e);
  e->refs = 1;
  e->slots = np_alloc((d->unit_count + 1) * sizeof *e->slots);
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    struct np_code *code = u->built.code ? u->built.code : u->code;
    if (!u->wanted && !u->configured) continue;
    e->slots[e->slot_count++] =
        (struct np_slot){.instance = np_strdup(u->instance), .kind = code ? code->kind : u->kind, .code = code};
    if (code) np_code_ref(code);
  }
  return e;
}

struct np_instance *np_gate_take(struct np_built *b) {
  struct np_instance *in = b->instances[0];
  if (b->spare) np_instance_close(b->spare);
  free(b->instances);
  free(b->bundle);
  *b = (struct np_built){0};
  return in;
}

struct rebuild {
  struct np_deploy *d;
  const struct np_want *want;
  const struct np_code *code; /* NULL: the newest good one */
  const char *settings;       /* that it had then; NULL: not known */
  struct np_built *built;
  bool found;
  int status;
  struct np_error *err;
};

static bool rebuild(void *arg, const struct np_generation *g) {
  struct rebuild *o = arg;
  if (strcmp(g->verdict.ptr, "good") != 0 || !g->source.ptr || (o->code && g->number != o->code->number)) return true;
  const struct np_code *c = o->code;
  struct np_want want = *o->want;
  struct np_build_context context = np_unit_context(o->d);
  if (c) {
    want.plugin = c->plugin;
    want.settings = c->settings;
    want.limits = &c->limits;
  } else if (o->settings) {
    want.settings = o->settings;
  }
  if (c || o->settings) context.delivers = any_name; /* it was let in when it was */
  context.lanes = 1;
  o->found = true;
  o->status = np_build_stored(&context, &want, g->source.ptr, g->source.len, o->built, o->err);
  return false;
}

int np_gate_rebuild(struct np_deploy *d, const struct np_want *want, struct np_reader *reader, const struct np_code *code,
                    const char *settings, struct np_built *built, struct np_error *err) {
  struct rebuild o = {.d = d, .want = want, .code = code, .settings = settings, .built = built, .status = -1, .err = err};
  if (np_reader_generations(reader, want->instance, INT64_MAX, INT32_MAX, rebuild, &o, err) < 0) return -1;
  return o.found ? o.status : np_fail(err, "the generation in force is not in the store");
}

static void prepare_shadow(struct np_deploy *d, const struct np_want *want, struct np_reader *reader, const struct np_code *old,
                           struct np_gate_job *job) {
  struct np_build_context context = np_unit_context(d);
  struct np_built fresh, was;
  struct np_error err, why;
  context.lanes = 1;
  np_log_hush(true); /* what it says while it is loaded, it has said */
  if (np_build(&context, want, &fresh, &err) == 0) {
    job->hash = np_strdup(fresh.code->hash);
    job->file = np_strdup(fresh.code->file);
    job->bundle = fresh.bundle, fresh.bundle = NULL;
    job->bundle_len = fresh.bundle_len;
    job->fresh = np_gate_take(&fresh);
    char *settings = old ? NULL : np_gate_settings(reader, want->instance);
    if (np_gate_rebuild(d, want, reader, old, settings, &was, &why) == 0)
      job->old = np_gate_take(&was);
    else
      np_fail(&err, "the generation in force cannot be built for a comparison: %s", why.text);
    job->to = np_gate_epoch(d);
    free(settings);
  }
  if (!job->old) job->failed = np_strdup(err.text);
  np_log_hush(false);
}

void np_gate_prepare(struct np_deploy *d, const struct np_want *want, const struct np_check *check, struct np_reader *reader,
                     const struct np_code *old, struct np_gate_job *job) {
  job->instance = np_strdup(want->instance);
  job->time = check->time;
  if (check->spec && (job->spec = np_gate_spec_path(d->plugins, want->file))) job->plugins = np_strdup(d->plugins);
  if (!job->store) return;
  job->readings = check->shadow;
  prepare_shadow(d, want, reader, old, job);
}

/* What came of it */

void np_gate_judge(struct np_gate *g, const struct np_gate_job *job) {
  if (job->spec) {
    const char *slash = strrchr(job->spec, '/');
    struct np_buf said = {0};
    if (!job->spec_passed) np_buf_addf(&said, "%s: ", slash ? slash + 1 : job->spec);
    np_buf_adds(&said, job->spec_said ? job->spec_said : "");
    np_gate_set(g, NP_STAGE_SPEC, job->spec_passed ? NP_VERDICT_PASSED : NP_VERDICT_FAILED, said.data);
    np_buf_free(&said);
    if (!job->spec_passed && g->stages[NP_STAGE_SHADOW].verdict == NP_VERDICT_RUNNING)
      np_gate_set(g, NP_STAGE_SHADOW, NP_VERDICT_NONE, NULL);
    if (!job->spec_passed) return;
  }
  if (!job->store) return;
  struct np_buf said = {0};
  if (job->compared)
    np_shadow_report_say(&job->report, &said);
  else
    np_buf_adds(&said, job->failed);
  enum np_verdict verdict = !job->compared                    ? NP_VERDICT_FAILED
                            : np_shadow_differs(&job->report) ? NP_VERDICT_DIFFERS
                                                              : NP_VERDICT_PASSED;
  np_gate_set(g, NP_STAGE_SHADOW, verdict, said.data);
  np_buf_free(&said);
}

static struct np_text text_of(struct np_writeset *ws, const char *s) { return np_writeset_text(ws, s, s ? strlen(s) : 0); }

static void put(struct np_writeset *ws, const struct np_unit *u, const char *more, const struct np_buf *value, int64_t keep) {
  char key[160];
  snprintf(key, sizeof key, "%s %d%s", u->instance, u->gate->number, more);
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = text_of(ws, NP_GATE_SPACE);
  op->as.put.key = text_of(ws, key);
  op->as.put.value = np_writeset_text(ws, np_buf_text(value), value->len);
  op->as.put.expires = keep ? np_now_ms() + keep : 0;
}

static void put_messages(struct np_writeset *ws, const struct np_unit *u, const struct np_shadow_report *r, int64_t keep) {
  struct np_buf b = {0};
  size_t shown = 0;
  for (; shown < r->count && b.len < MESSAGES_MOST; shown++) {
    np_buf_addc(&b, '{');
    np_shadow_change_json(&r->list[shown], &b);
    np_buf_adds(&b, "}\n");
  }
  np_buf_addf(&b, "{\"summary\":{\"generation\":%d,\"changes\":%zu,\"shown\":%zu,\"readings\":%lld,\"wanted\":%lld",
              u->gate->number, r->count, shown, (long long)r->covered.readings, (long long)r->wanted);
  for (int i = 0; i < NP_DIFFERENCES; i++) np_buf_addf(&b, ",\"%s\":%d", np_difference_names[i], r->counts[i]);
  np_buf_adds(&b, r->derives ? ",\"derives\":true}}\n" : "}}\n");
  put(ws, u, " messages", &b, keep);
  np_buf_free(&b);
}

static void put_generation(struct np_writeset *ws, const struct np_unit *u, const struct np_gate_job *job) {
  struct np_op *op = np_writeset_add(ws, NP_OP_GENERATION);
  op->as.generation.instance = text_of(ws, u->instance);
  op->as.generation.file = text_of(ws, job->file ? job->file : u->file);
  op->as.generation.hash = text_of(ws, job->hash);
  op->as.generation.source = np_writeset_text(ws, job->bundle, job->bundle_len);
  op->as.generation.verdict = text_of(ws, "waiting");
  op->as.generation.reason = text_of(ws, u->gate->stages[NP_STAGE_SHADOW].said);
  op->as.generation.at = np_now_ms();
  op->as.generation.number = u->gate->number;
}

/* The report, durably: it is what an operator decides by. What waits stands in the history. */
static void keep(struct np_deploy *d, struct np_unit *u, const struct np_gate_job *job) {
  struct np_writeset *ws = np_writeset_new();
  struct np_buf stages = {0};
  struct np_error err;
  np_buf_addc(&stages, '{');
  np_gate_json(u->gate, &stages);
  np_buf_addc(&stages, '}');
  put(ws, u, "", &stages, STAGES_KEPT_MS);
  np_buf_free(&stages);
  if (job->compared) put_messages(ws, u, &job->report, d->config->keep[NP_KEPT_DELIVERED].age);
  bool known = u->gate->number <= u->last_number; /* it waited before the start */
  if (u->gate->state == NP_GATE_WAITING && !known && job->bundle) put_generation(ws, u, job);
  if (np_keeper_apply(d->host->keeper, ws, &err) != NP_COMMITTED)
    np_log(NP_ERROR, "cannot keep what the gate has found", "plugin", u->instance, "error", err.text, NULL);
  else if (u->gate->state == NP_GATE_WAITING && !known)
    u->last_number = u->gate->number;
}

static void tell_differs(const struct np_unit *u, const char *generation, bool derives) {
  const struct np_gate *g = u->gate;
  const char *said = g->stages[NP_STAGE_SHADOW].said;
  char cure[200];
  bool waits = g->state == NP_GATE_WAITING;
  snprintf(cure, sizeof cure, "neap diff %.64s --messages shows them%s%.64s%s", u->instance, waits ? "; neap approve " : "",
           waits ? u->instance : "", waits ? " puts it in force" : "");
  if (g->stages[NP_STAGE_SHADOW].verdict == NP_VERDICT_FAILED)
    np_log(NP_WARN,
           waits ? "it waits to be approved, for its messages could not be compared" : "its messages could not be compared",
           "plugin", u->instance, "generation", generation, "error", said, NULL);
  else if (waits)
    np_log(NP_WARN,
           derives ? "it waits to be approved, for its messages or derived readings would be others"
                   : "it waits to be approved, for its messages would be others",
           "plugin", u->instance, "generation", generation, "messages", said, "do", cure, NULL);
  else if (g->stages[NP_STAGE_SHADOW].verdict == NP_VERDICT_DIFFERS)
    np_log(NP_INFO, derives ? "its messages or derived readings are others" : "its messages are others", "plugin", u->instance,
           "generation", generation, "messages", said, "do", cure, NULL);
}

/* Lets it on, has it wait, or refuses it. */
static void conclude(struct np_deploy *d, struct np_unit *u, const struct np_gate_job *job) {
  struct np_gate *g = u->gate;
  char generation[16];
  bool held = g->state == NP_GATE_RUNNING; /* else it is in force, and this informs */
  np_gate_judge(g, job);
  g->turn = 0;
  g->begun = false;
  np_code_unref(g->old);
  g->old = NULL;
  enum np_verdict shadow = g->stages[NP_STAGE_SHADOW].verdict;
  bool differs = shadow == NP_VERDICT_DIFFERS || shadow == NP_VERDICT_FAILED;
  if (job->spec && !job->spec_passed) {
    g->state = NP_GATE_REFUSED;
    np_gate_say_is(g, NULL);
    struct np_buf why = {0};
    np_buf_addf(&why, "%s: its spec failed: %s", u->file ? u->file : u->instance, g->stages[NP_STAGE_SPEC].said);
    np_unit_fail(d, u, why.data);
    np_buf_free(&why);
  } else if (held && differs && np_config_check(d->config, u->instance).hold) {
    g->state = NP_GATE_WAITING;
    np_gate_say_is(g, "waiting for approval: %s", g->stages[NP_STAGE_SHADOW].said);
  } else if (held) {
    g->state = NP_GATE_LET;
  }
  keep(d, u, job);
  snprintf(generation, sizeof generation, "%d", g->number);
  tell_differs(u, generation, job->compared && job->report.derives);
}

/* The queue: units whose gate has a turn, lowest first. */

static struct np_gate_job *make_job(struct np_deploy *d, struct np_unit *u) {
  struct np_wants wants = np_unit_wants(d);
  struct np_gate_job *job = NULL;
  struct np_gate *g = u->gate;
  for (size_t i = 0; i < wants.count && !job; i++) {
    struct np_want *want = &wants.list[i];
    if (strcmp(want->instance, u->instance) != 0 || !want->file) continue;
    struct np_check check = np_config_check(d->config, u->instance);
    check.spec = g->stages[NP_STAGE_SPEC].verdict == NP_VERDICT_RUNNING;
    job = np_alloc(sizeof *job);
    job->turn = g->turn;
    job->stop = &d->gates->stop;
    if (g->stages[NP_STAGE_SHADOW].verdict == NP_VERDICT_RUNNING) job->store = np_strdup(d->host->config->store);
    np_gate_prepare(d, want, &check, d->host->reader, g->old ? g->old : u->code, job);
    if (!job->hash || np_unit_same(job->hash, g->hash)) continue;
    np_gate_job_free(job); /* it has changed since: another look finds that */
    job = NULL;
    break;
  }
  free(wants.list);
  return job;
}

static struct np_unit *whose_turn(const struct np_deploy *d) {
  struct np_unit *next = NULL;
  for (size_t i = 0; i < d->unit_count; i++) {
    const struct np_gate *g = d->units[i]->gate;
    if (g && g->turn && !g->begun && (!next || g->turn < next->gate->turn)) next = d->units[i];
  }
  return next;
}

static void on_turn(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_gates *all = arg;
  struct np_unit *u;
  while (!np_worker_job(all->worker) && (u = whose_turn(all->d))) {
    struct np_gate_job *job = make_job(all->d, u);
    u->gate->begun = true;
    if (!job || np_worker_give(all->worker, &job->node)) continue;
    np_log(NP_ERROR, "no thread to be had for the gate: what it holds stays held", "plugin", u->instance, NULL);
    np_gate_job_free(job);
  }
}

static void want_turn(struct np_gates *all) {
  const struct timeval now = {0, 0};
  event_add(all->turn, &now);
}

static void run(struct np_node *job) { np_gate_job_run((struct np_gate_job *)job); }

static void drop(struct np_node *job) { np_gate_job_free((struct np_gate_job *)job); }

static void done(void *arg, struct np_node *node) {
  struct np_gates *all = arg;
  struct np_deploy *d = all->d;
  struct np_gate_job *job = (struct np_gate_job *)node;
  struct np_unit *u = np_unit_find(d, job->instance);
  if (u && u->gate && u->gate->turn == job->turn) { /* else it has changed meanwhile */
    conclude(d, u, job);
    all->look |= u->gate->state != NP_GATE_OPEN; /* what waits may hold back a set */
  }
  np_gate_job_free(job);
  int64_t now = np_mono_us() / 1000;
  if (all->look && (!whose_turn(d) || now - all->looked > LOOK_MS)) { /* what passes together comes into force together */
    all->look = false;
    all->looked = now;
    np_deploy_look(d);
  }
  want_turn(all);
}

static const struct np_worker_kind kind = {"neap-gate", run, done, drop};

static struct np_gates *gates_new(struct np_deploy *d) {
  struct np_gates *all = np_alloc(sizeof *all);
  struct np_error err;
  all->d = d;
  all->worker = np_worker_new(d->host->base, &kind, all, &err);
  if (!all->worker) {
    np_log(NP_ERROR, "the gate cannot begin: what it holds stays held", "error", err.text, NULL);
    free(all);
    return NULL;
  }
  all->turn = event_new(d->host->base, -1, 0, on_turn, all);
  return all;
}

void np_gates_want(struct np_deploy *d, struct np_gate *g) {
  if (!d->gates) d->gates = gates_new(d);
  if (!d->gates) return;
  g->turn = ++d->gates->last_turn;
  g->begun = false;
  want_turn(d->gates);
}

void np_gates_free(struct np_gates *all) {
  if (!all) return;
  atomic_store(&all->stop, true);
  np_worker_free(all->worker);
  event_free(all->turn);
  free(all);
}
