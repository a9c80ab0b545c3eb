/* Going back: to an older generation by an operator's word, or by itself where a new one fails as the one before did not. Such a unit is pinned:
 * its file does not count until its text changes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "host/deploy_parts.h"

#define PINS "neap.pins" /* space of the store: instance -> "NUMBER HASH" */
#define LOOK_MS 500
#define LEAST 10 /* calls before it is judged */

static void own_print(const struct np_want *want, char hash[65]) {
  np_sha256_hex(want->file ? want->file->source.text : "", want->file ? want->file->source.len : 0, hash);
}

void np_unit_load_pin(struct np_deploy *d, struct np_unit *u) {
  struct np_buf value = {0};
  int64_t version;
  struct np_error err;
  char hash[65];
  if (!d->host || np_reader_get(d->host->reader, PINS, u->instance, strlen(u->instance), 0, &value, &version, &err) != 1) return;
  if (sscanf(np_buf_text(&value), "%d %64s", &u->pinned, hash) == 2)
    np_unit_set(&u->pin_print, hash);
  else
    u->pinned = 0;
  np_buf_free(&value);
}

void np_unit_record_pin(struct np_unit *u, struct np_writeset *ws) {
  const struct np_code *code = u->built.code ? u->built.code : u->code;
  if (!u->pin_changed || (u->pinned && (!code || code->number != u->pinned)))
    return; /* what cannot be in force is not to be tried at a start */
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, PINS, strlen(PINS));
  op->as.put.key = np_writeset_text(ws, u->instance, strlen(u->instance));
  if (!u->pinned) return;
  char text[100];
  int n = snprintf(text, sizeof text, "%d %s", u->pinned, u->pin_print);
  op->as.put.value = np_writeset_text(ws, text, (size_t)n);
}

struct found {
  struct np_deploy *d;
  struct np_unit *u;
  const struct np_want *want;
  int number, result; /* 1 built, -1 failed */
  int below;          /* in force: any good one with a smaller number, and another text */
  int same;           /* one that was passed over for its text */
  struct np_buf text; /* owned: of the one in force */
  struct np_error err;
};

static bool build_number(void *arg, const struct np_generation *g) {
  struct found *f = arg;
  if (g->number != f->number || strcmp(g->verdict.ptr, "good") != 0 || !g->source.ptr) return true;
  struct np_build_context context = np_unit_context(f->d);
  f->result = np_build_stored(&context, f->want, g->source.ptr, g->source.len, &f->u->built, &f->err) == 0 ? 1 : -1;
  return false;
}

bool np_unit_look_pinned(struct np_deploy *d, struct np_unit *u, const struct np_want *want, struct np_deploy_change *change) {
  char hash[65];
  if (!u->pinned || !want->file) return false;
  own_print(want, hash);
  if (!u->pin_print) { /* pinned just now */
    np_unit_set(&u->pin_print, hash);
    u->pin_changed = true;
  } else if (strcmp(hash, u->pin_print) != 0) {
    u->pinned = 0;
    u->pin_changed = true;
    return false;
  }
  char *print = np_unit_pinned_print(u->pinned, want);
  if (u->code && u->code->number == u->pinned && np_unit_same(print, u->good)) {
    change->kept++;
    free(print);
    return true;
  }
  struct found f = {.d = d, .u = u, .want = want, .number = u->pinned};
  if (np_reader_generations(d->host->reader, u->instance, INT64_MAX, INT32_MAX, build_number, &f, &f.err) == 0 && !f.result)
    np_fail(&f.err, "%s: generation %d is no longer kept", u->instance, u->pinned);
  if (f.result == 1 && np_unit_check_state(d, u, &f.err) == 0) {
    u->built.code->number = u->pinned;
    u->stored = !u->cause; /* a start goes on with it */
    u->last_good = u->unconfigured = false;
    u->print = print;
    return true;
  }
  free(print);
  np_built_discard(&u->built, d->lanes);
  u->unconfigured = u->built.unconfigured;
  if (u->unconfigured && u->listed) {
    np_unit_set(&u->error, f.err.text);
    return true;
  }
  change->failed++;
  np_unit_fail(d, u, f.err.text);
  return true;
}

static bool take_text(void *arg, const struct np_generation *g) {
  struct found *f = arg;
  if (g->number == f->below && g->source.ptr) np_buf_add(&f->text, g->source.ptr, g->source.len);
  return !f->text.len;
}

/* Settings are not a generation's but neap.lua's: to go back to the same text would change nothing, and seem to. */
static bool find_below(void *arg, const struct np_generation *g) {
  struct found *f = arg;
  if (strcmp(g->verdict.ptr, "good") != 0 || !g->source.ptr) return true;
  if (f->number ? g->number != f->number : g->number >= f->below) return true;
  if (f->text.len && g->source.len == f->text.len && memcmp(g->source.ptr, f->text.data, f->text.len) == 0) {
    if (!f->same) f->same = g->number;
    return true;
  }
  f->number = g->number;
  f->result = 1;
  return false;
}

int np_deploy_rollback(struct np_deploy *d, const char *instance, int number, const char *cause, struct np_error *err) {
  struct np_unit *u = np_unit_find(d, instance);
  if (!u) return np_fail(err, "there is no plugin \"%s\": neap plugins lists them", instance);
  if (!np_deploy_all_adopted(d)) return np_fail(err, "a lane is in the middle of a long call: try again in a moment");
  int now = u->code ? u->code->number : 0, was = u->pinned;
  if (number && number == now) return np_fail(err, "%s: generation %d is in force already", instance, number);
  struct found f = {.number = number, .below = now ? now : INT32_MAX};
  bool read = np_reader_generations(d->host->reader, instance, INT64_MAX, INT32_MAX, take_text, &f, err) >= 0 &&
              np_reader_generations(d->host->reader, instance, INT64_MAX, INT32_MAX, find_below, &f, err) >= 0;
  np_buf_free(&f.text);
  if (!read) return -1;
  if (!f.result && f.same)
    return np_fail(err, "%s: generations %d and %d have the same text and differ in their settings: change those in neap.lua",
                   instance, f.same, now);
  if (!f.result && number) return np_fail(err, "%s: there is no good generation %d: neap history %s", instance, number, instance);
  if (!f.result) return np_fail(err, "%s: there is no good generation before %d", instance, now);
  char *print = u->pin_print;
  u->pin_print = NULL;
  u->pinned = f.number;
  np_unit_set(&u->cause, cause);
  np_deploy_decided(d);
  u = np_unit_find(d, instance);
  if (u && u->code && u->code->number == f.number) {
    free(print);
    return f.number;
  }
  np_fail(err, "%s", u && u->error ? u->error : "it could not be put in force: the log says why");
  if (u) { /* as it was */
    free(u->pin_print);
    u->pin_print = print;
    u->pinned = was;
    u->pin_changed = false;
    np_unit_set(&u->cause, NULL);
    np_deploy_decided(d); /* it is in order */
  }
  return -1;
}

/* By itself. */

void np_unit_watch(struct np_deploy *d, struct np_unit *u, const struct np_code *before) {
  u->before = before && d->config->probation && u->code->number > before->number && !u->pinned ? before->number : 0;
  u->before_outcomes = before ? atomic_load_explicit(&before->outcomes, memory_order_relaxed) : 0;
  u->probation_end = np_mono_us() / 1000 + d->config->probation;
}

/* Failed calls of the last 20, of which *n there were. */
static int failed_of(uint64_t outcomes, int *n) {
  int calls = (int)(outcomes >> NP_OUTCOMES);
  *n = calls < NP_OUTCOMES ? calls : NP_OUTCOMES;
  return __builtin_popcountll(outcomes & ((UINT64_C(1) << *n) - 1));
}

static bool is_worse(const struct np_unit *u, char text[40]) {
  int n, before_n;
  int failed = failed_of(atomic_load_explicit(&u->code->outcomes, memory_order_relaxed), &n);
  int before = failed_of(u->before_outcomes, &before_n);
  snprintf(text, 40, "%d of its last %d calls failed", failed, n);
  return n >= LEAST && failed * 2 > n && before * 2 <= before_n;
}

static void take_back(struct np_deploy *d, struct np_unit *u, const char *failed) {
  char *instance = np_strdup(u->instance), from[16], to[16], cause[80];
  struct np_error err;
  snprintf(from, sizeof from, "%d", u->code->number);
  snprintf(to, sizeof to, "%d", u->before);
  snprintf(cause, sizeof cause, "taken back by itself: %s", failed);
  int number = u->before, failing = u->code->number;
  np_deploy_decided(d); /* a file that has just been saved is not the one that failed: it comes first */
  u = np_unit_find(d, instance);
  if (!u || !u->code || u->code->number != failing || !np_deploy_all_adopted(d)) {
    free(instance);
    return;
  }
  u->before = 0; /* tried once: over and over it would hold up all others */
  if (np_deploy_rollback(d, instance, number, cause, &err) < 0)
    np_log(NP_ERROR, "it fails where the generation before did not, and cannot be taken back", "plugin", instance, "generation",
           from, "error", err.text, NULL);
  else
    np_log(NP_ERROR, "taken back: it failed where the generation before did not", "plugin", instance, "generation", from, "to", to,
           "why", failed, NULL);
  free(instance);
}

static void on_probation(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  struct np_deploy *d = arg;
  int64_t now = np_mono_us() / 1000;
  char failed[40];
  for (size_t i = 0; i < d->unit_count; i++) {
    struct np_unit *u = d->units[i];
    if (!u->code) continue;
    np_unit_filters_sweep(d, u);
    bool held = np_unit_look_quarantine(d, u);
    if (!u->before) continue;
    bool worse = held || is_worse(u, failed);
    if (held) snprintf(failed, sizeof failed, "it went past its limits again and again");
    if (worse && np_deploy_all_adopted(d)) {
      take_back(d, u, failed);
      return; /* the list of units may be another now */
    }
    if (!worse && now > u->probation_end) u->before = 0;
  }
}

void np_deploy_watch_failures(struct np_deploy *d) {
  const struct timeval every = {0, LOOK_MS * 1000};
  d->probation = event_new(d->host->base, -1, EV_PERSIST, on_probation, d);
  if (d->probation) event_add(d->probation, &every);
}
