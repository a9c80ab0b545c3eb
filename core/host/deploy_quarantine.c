/* Quarantines of what is in force: written down, broken off for a trial when their time has come, ended by an operator; and taken back where a new
 * generation is in one and the generation before was not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "host/deploy_parts.h"

static struct np_text text_of(struct np_writeset *ws, const char *s) { return np_writeset_text(ws, s, s ? strlen(s) : 0); }

/* A row of its history. */
static void record(struct np_deploy *d, const struct np_unit *u, const char *verdict, const char *reason, const char *cause) {
  struct np_error err;
  struct np_writeset *ws = np_writeset_new();
  struct np_op *op = np_writeset_add(ws, NP_OP_GENERATION);
  op->as.generation.instance = text_of(ws, u->instance);
  op->as.generation.file = text_of(ws, u->code->file);
  op->as.generation.hash = text_of(ws, u->code->hash);
  op->as.generation.at = np_now_ms();
  op->as.generation.number = u->code->number;
  op->as.generation.verdict = text_of(ws, verdict);
  op->as.generation.reason = text_of(ws, reason);
  op->as.generation.cause = text_of(ws, cause);
  if (np_keeper_apply(d->host->keeper, ws, &err) != NP_COMMITTED)
    np_log(NP_ERROR, "a quarantine cannot be written down", "plugin", u->instance, "error", err.text, NULL);
}

static void tell_lanes(struct np_deploy *d) {
  for (int i = 0; i < d->host->lane_count; i++) {
    struct np_letter *letter = np_alloc(sizeof *letter);
    letter->kind = NP_LETTER_QUARANTINE;
    np_lane_send(d->host->lanes[i], letter);
  }
}

bool np_unit_look_quarantine(struct np_deploy *d, struct np_unit *u) {
  struct np_quarantine *q = &u->code->quarantine;
  if (q->state != NP_QUARANTINE) return false;
  pthread_mutex_lock(&q->lock);
  bool recorded = q->recorded;
  pthread_mutex_unlock(&q->lock);
  if (!recorded && u->before) return true;
  if (!recorded) {
    char *why = np_quarantine_text(u->code);
    record(d, u, "quarantined", why + strlen(NP_QUARANTINED), NULL);
    free(why);
    pthread_mutex_lock(&q->lock);
    q->recorded = true;
    pthread_mutex_unlock(&q->lock);
  }
  if (!d->host->quarantine.after) {
    struct np_error err;
    if (np_deploy_release(d, u->instance, "neap.lua: quarantine = false", &err) < 0)
      np_log(NP_ERROR, "a quarantine cannot be ended", "plugin", u->instance, "error", err.text, NULL);
    return false;
  }
  if (!np_quarantine_try(q)) return false;
  np_log(NP_WARN, "on trial after its quarantine", "plugin", u->instance, NULL);
  tell_lanes(d);
  return false;
}

int np_deploy_release(struct np_deploy *d, const char *instance, const char *cause, struct np_error *err) {
  struct np_unit *u = np_unit_find(d, instance);
  if (!u) return np_fail(err, "there is no plugin \"%s\": neap plugins lists them", instance);
  if (!u->code || !np_quarantine_release(&u->code->quarantine)) return np_fail(err, "%s is not in quarantine", instance);
  np_log(NP_INFO, "released from its quarantine", "plugin", instance, "cause", cause, NULL);
  record(d, u, "released", NULL, cause);
  tell_lanes(d);
  return u->code->number;
}

void np_deploy_quarantine_rules(struct np_deploy *d) {
  const struct np_config *c = d->config;
  struct np_quarantine_rules *rules = &d->host->quarantine;
  rules->within = c->quarantine_within;
  rules->hold = c->quarantine_hold;
  rules->hold_most = c->quarantine_most;
  rules->after = c->quarantine_after;
}
