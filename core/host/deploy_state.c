/* Migrations as a part of a switch. While they run nothing that their instances do commits: first each version's key is written anew, so that what
 * has seen it conflicts; then the migrations run, on state that stands still; what they did is committed with the generations that need it; then
 * the lanes switch. Handlers that conflicted run again once that is over. Where a migration fails, the generation before is given the key as it is
 * now, and goes on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "host/deploy_parts.h"
#include "host/gate.h"
#include "host/state.h"

static int read_state(struct np_deploy *d, const char *instance, struct np_state *s, struct np_error *err) {
  return np_state_read(d->host->reader, instance, s, err);
}

static void note_row(struct np_code *c, int64_t row) { atomic_store_explicit(&c->state_row, row, memory_order_relaxed); }

int np_unit_check_state(struct np_deploy *d, struct np_unit *u, struct np_error *err) {
  struct np_state s;
  if (!d->host) return 0;
  if (read_state(d, u->instance, &s, err) < 0) return -1;
  note_row(u->built.code, s.row);
  /* what was never in force has kept nothing: there is nothing to migrate */
  u->version = s.version ? s.version : u->last_number ? 1 : np_code_version(u->built.code);
  return np_state_fits(u->built.code, u->version, err);
}

static bool is_due(const struct np_unit *u) { return u->built.code && u->version < np_code_version(u->built.code); }

/* A new instance's version is noted, so that its first migration is known to be its first. */
static bool is_first(const struct np_unit *u) {
  return u->built.code && !u->last_number && np_code_version(u->built.code) > 1 &&
         !atomic_load_explicit(&u->built.code->state_row, memory_order_relaxed);
}

/* The lanes run, and may be in the middle of a call of what is to be migrated. */
static int freeze(struct np_deploy *d, struct np_error *err) {
  struct np_writeset *ws = np_writeset_new();
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    if (!is_due(u)) continue;
    np_state_put(ws, u->instance, u->version);
    u->frozen = true;
  }
  atomic_store_explicit(&d->host->migrating, 1, memory_order_release);
  if (np_keeper_apply(d->host->keeper, ws, err) != NP_COMMITTED) return -1;
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    struct np_state s;
    if (!is_due(u)) continue;
    if (read_state(d, u->instance, &s, err) < 0) return -1;
    note_row(u->built.code, s.row);
  }
  return 0;
}

static void fail(struct np_deploy *d, struct np_unit *u, const char *why, struct np_deploy_change *change) {
  char *error = np_unit_text("%s: %s", u->built.code->file, why);
  change->failed++;
  np_gate_refused(u, NP_STAGE_MIGRATION, why);
  np_unit_discard(d, u);
  np_unit_fail(d, u, error);
  np_unit_set(&u->bad, u->tried);
  free(error);
  if (!u->code && u->want) np_unit_fall_back(d, u, u->error);
}

bool np_deploy_migrate(struct np_deploy *d, struct np_writeset *ws, struct np_deploy_change *change) {
  struct np_error err;
  bool due = false, ok = true;
  for (size_t i = 0; i < d->unit_count; i++) due = due || is_due(d->units[i]);
  bool frozen = !due || !d->host->lanes || freeze(d, &err) == 0;
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    if (is_first(u)) np_state_put(ws, u->instance, u->version);
    if (!is_due(u) || (frozen && np_state_migrate(d->host, d->host->reader, u->built.spare, u->version, ws, &err) == 0)) continue;
    fail(d, u, err.text, change);
    ok = false;
    if (!frozen) np_unit_set(&u->bad, NULL); /* for the store's sake, not its own */
  }
  if (!frozen) event_add(d->again, &(struct timeval){.tv_sec = 1});
  return ok;
}

bool np_deploy_not_migrated(struct np_deploy *d, const char *why, struct np_deploy_change *change) {
  bool any = false;
  for (size_t i = 0; i < d->unit_count; i++) {
    if (!is_due(d->units[i])) continue;
    fail(d, d->units[i], why, change);
    any = true;
  }
  return any;
}

void np_deploy_migrated(struct np_deploy *d) {
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    struct np_state s;
    struct np_error err;
    if (!is_due(u) && !is_first(u)) continue;
    if (read_state(d, u->instance, &s, &err) < 0) {
      np_log(NP_ERROR, "cannot read the version of what a plugin keeps; its calls are held up", "plugin", u->instance, "error",
             err.text, NULL);
      continue;
    }
    char from[16], to[16];
    snprintf(from, sizeof from, "%d", u->version);
    snprintf(to, sizeof to, "%d", s.version);
    note_row(u->built.code, s.row);
    if (is_due(u)) np_log(NP_INFO, "what it keeps was migrated", "plugin", u->instance, "from", from, "to", to, NULL);
    u->version = s.version;
    u->frozen = false; /* the generation before never commits again */
  }
}

void np_deploy_thaw(struct np_deploy *d) {
  for (size_t i = 0; d->host && i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    struct np_state s;
    struct np_error err;
    if (!u->frozen) continue;
    if (u->code && read_state(d, u->instance, &s, &err) == 0) note_row(u->code, s.row);
    u->frozen = false;
  }
  if (d->host) atomic_store_explicit(&d->host->migrating, 0, memory_order_release);
}
