/* What was built becomes an epoch: its routes, its record in the store, and the switch of all lanes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/deploy_parts.h"

#define ADOPT_MS 200 /* how long a switch waits for lanes that are in the middle of a call */

static void add_slot(struct np_deploy *d, struct np_epoch *e, struct np_unit *u) {
  struct np_code *code = u->built.code ? u->built.code : u->code;
  struct np_instance **instances = u->built.code ? u->built.instances : u->instances;
  if (!code && !u->configured) return;
  struct np_slot *s = &e->slots[e->slot_count++];
  *s = (struct np_slot){.instance = np_strdup(u->instance), .kind = code ? code->kind : u->kind, .code = code};
  if (!code) {
    s->why_not = np_strdup(u->error ? u->error : u->held ? u->held : "not in force");
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
struct np_routes *np_deploy_routes(struct np_deploy *d, struct np_deploy_change *change) {
  for (;;) {
    struct np_routes *routes = np_routes_new();
    struct np_unit *refused = NULL;
    struct np_error err;
    struct np_route *clash = NULL;
    for (int pass = 0; pass < 2 && !refused; pass++) {
      for (size_t i = 0; i < d->unit_count && !refused; i++) {
        struct np_unit *u = d->units[i];
        struct np_code *code = u->built.code ? u->built.code : u->code;
        if (!u->wanted || !code || (u->built.code != NULL) != (pass == 1)) continue;
        if (add_routes(routes, code, &clash, &err) < 0) refused = u;
      }
    }
    if (!refused) return routes;
    np_routes_free(routes);
    const struct np_unit *other = clash ? np_unit_find(d, clash->code->instance) : NULL;
    if (!other || !other->gone_since) { /* else it is free in a moment */
      np_unit_fail(d, refused, err.text);
      change->failed++;
    }
    refused->clashed = true;
    np_gate_refused(refused, NP_STAGE_ROUTES, err.text);
    np_unit_discard(d, refused);
    np_unit_set(&refused->bad, refused->tried);
    if (!refused->code) refused->wanted = refused->configured;
  }
}

static struct np_text text_of(struct np_writeset *ws, const char *s) { return np_writeset_text(ws, s, s ? strlen(s) : 0); }

/* What is to be in force; or, without code, what was not let in. */
static void record(struct np_writeset *ws, const struct np_unit *u, const struct np_code *code) {
  struct np_op *op = np_writeset_add(ws, NP_OP_GENERATION);
  op->as.generation.instance = text_of(ws, u->instance);
  op->as.generation.file = text_of(ws, code ? code->file : u->file);
  op->as.generation.at = np_now_ms();
  op->as.generation.verdict = text_of(ws, code ? "good" : "bad");
  if (!code) {
    op->as.generation.reason = text_of(ws, u->refused);
    return;
  }
  op->as.generation.hash = text_of(ws, code->hash);
  op->as.generation.source = np_writeset_text(ws, u->built.bundle, u->built.bundle_len);
  op->as.generation.number = code->number;
  bool same_sources = u->code && strcmp(u->code->hash, code->hash) == 0;
  op->as.generation.cause = text_of(ws, u->cause       ? u->cause
                                        : !u->code     ? "it was not in force"
                                        : same_sources ? "its settings changed"
                                                       : "its file or a library changed");
}

int np_deploy_record(struct np_deploy *d, struct np_writeset *ws, struct np_error *err) {
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    np_unit_record_pin(u, ws);
    np_gate_record(u, ws);
    if (u->refused) record(ws, u, NULL);
    if (u->built.code && !u->stored) record(ws, u, u->built.code);
  }
  if (!ws->first) {
    np_writeset_unref(ws);
    return 0;
  }
  if (np_keeper_apply(d->host->keeper, ws, err) != NP_COMMITTED) return -1;
  for (size_t i = 0; i < d->unit_count; i++) {
    d->units[i]->pin_changed = false;
    np_unit_set(&d->units[i]->refused, NULL);
  }
  return 0;
}

struct np_epoch *np_deploy_epoch(struct np_deploy *d, struct np_routes *routes) {
  struct np_epoch *e = np_alloc(sizeof *e);
  e->refs = 1;
  e->number = ++d->epoch;
  e->routes = routes;
  e->slots = np_alloc((d->unit_count + 1) * sizeof *e->slots);
  for (size_t i = 0; i < d->unit_count; i++)
    if (d->units[i]->wanted || d->units[i]->configured) {
      struct np_unit *u = d->units[i];
      if (!u->wanted) { /* listed, but its file is gone */
        np_code_unref(u->code);
        free(u->instances);
        u->code = NULL, u->instances = NULL;
      }
      add_slot(d, e, u);
    }
  e->rules = np_rules_new(e);
  return e;
}

bool np_deploy_all_adopted(const struct np_deploy *d) {
  for (int i = 0; i < d->lanes; i++)
    if (atomic_load_explicit(&d->host->lanes[i]->adopted, memory_order_acquire) < d->epoch) return false;
  return true;
}

/* All lanes switch between two events, at one epoch: it is staged on each, then the number is raised. */
void np_deploy_switch(struct np_deploy *d, struct np_epoch *e) {
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
  for (int ms = 0; ms < ADOPT_MS && !np_deploy_all_adopted(d); ms++) usleep(1000);
}

static void log_in_force(const struct np_unit *u, int before) {
  char generation[16], was[16];
  snprintf(generation, sizeof generation, "%d", u->code->number);
  snprintf(was, sizeof was, "%d", before);
  np_log(NP_INFO, "in force", "plugin", u->instance, "generation", generation, "before", before ? was : NULL, "file", u->code->file,
         NULL);
}

/* What waits for a destination that is gone goes on waiting, which somebody has to know. */
static void log_retired(struct np_deploy *d, const struct np_unit *u) {
  char waiting[24];
  int64_t n = np_reader_outbox_count(d->host->reader, u->instance, 'p');
  snprintf(waiting, sizeof waiting, "%lld", (long long)n);
  np_log(n > 0 ? NP_WARN : NP_INFO, "retired: its file or its entry is gone", "plugin", u->instance, "waiting",
         n > 0 ? waiting : NULL, NULL);
}

/* What was built is in force: the units take it over. */
void np_deploy_settle(struct np_deploy *d, struct np_deploy_change *change) {
  size_t kept = 0;
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    if (u->built.code) {
      struct np_code *old = u->code;
      int before = old ? old->number : 0;
      free(u->instances);
      u->code = u->built.code;
      np_code_ref(u->code);
      u->instances = u->built.instances;
      u->kind = u->code->kind;
      free(u->built.bundle);
      if (u->built.spare) np_instance_close(u->built.spare);
      u->built = (struct np_built){0};
      free(u->good);
      u->good = u->print;
      u->print = NULL;
      u->since = np_now_ms();
      if (u->code->number > u->last_number) u->last_number = u->code->number;
      np_unit_set(&u->cause, NULL);
      np_unit_watch(d, u, old);
      np_unit_filters_changed(u, old);
      np_code_unref(old);
      if (!u->last_good) {
        np_unit_set(&u->error, NULL);
        change->loaded++;
        log_in_force(u, before);
      }
    }
    if (u->wanted || u->configured) {
      d->units[kept++] = u;
      continue;
    }
    log_retired(d, u);
    change->removed++;
    np_unit_free(d, u);
  }
  d->unit_count = kept;
}

void np_deploy_discard(struct np_deploy *d) {
  for (size_t i = 0; i < d->unit_count; i++) np_unit_discard(d, d->units[i]);
}
