/* Two shadow runs, compared. What led to a message or a derived reading (the reading, or the timer at its moment), whom it goes to or its metric, and about
 * which device tell which of the other run's it stands for; where there are several of that, those that are equal are paired first. */
#include "host/shadow_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/log.h"
#include "host/admin_line.h"
#include "host/canonical.h"

#define SAID_MOST 200000 /* of one run; with that many the comparison ends where it is */
#define SAID_BYTES ((size_t)64 << 20)

const char *const np_difference_names[NP_DIFFERENCES] = {"new", "gone", "different", "failing", "mended"};

struct said {
  const char *destination, *metric, *device, *timer, *key,
      *body; /* in the arena; with neither of the first two it raised, and body says what */
  int64_t reading, at;
  size_t order;
  bool again; /* by a replay: it stands for what was not sent, or was sent once already */
  bool paired;
};

struct side {
  struct np_arena arena;
  struct said *list; /* owned */
  size_t count;
  lua_State *L; /* borrowed: to bring bodies into one order of keys */
  atomic_bool *full;
};

static const char *copy(struct side *s, const char *text) { return text ? np_arena_copy(&s->arena, text, strlen(text)) : NULL; }

static struct said *add(struct side *s, const struct np_shadow_cause *cause) {
  if ((s->count & (s->count - 1)) == 0) s->list = np_realloc(s->list, (s->count ? s->count * 2 : 1) * sizeof *s->list);
  struct said *said = &s->list[s->count];
  *said = (struct said){.at = cause->at, .order = s->count++};
  if (cause->reading) {
    said->reading = cause->reading->seq;
    said->device = copy(s, cause->reading->device.ptr);
  } else {
    said->timer = copy(s, cause->timer);
    said->key = copy(s, cause->key);
    said->device = "";
  }
  if (s->count >= SAID_MOST || s->arena.total > SAID_BYTES) atomic_store(s->full, true);
  return said;
}

static bool has_raised(const struct said *s) { return !s->destination && !s->metric; }

/* With sorted keys, in the arena. */
static const char *in_order(struct side *s, const char *json, size_t len) {
  struct np_buf text = {0};
  bool ok = np_canonical_text(s->L, json, len, &text, NULL) == 0;
  const char *body = ok ? np_arena_copy(&s->arena, np_buf_text(&text), text.len) : np_arena_copy(&s->arena, json, len);
  np_buf_free(&text);
  return body;
}

static void on_message(void *arg, const struct np_shadow_cause *cause, const struct np_message *m) {
  struct side *s = arg;
  struct said *said = add(s, cause);
  said->body = in_order(s, m->body.ptr, m->body.len);
  said->destination = copy(s, m->destination.ptr);
  said->device = copy(s, m->device.ptr);
  said->again = m->replayed != 0;
}

/* What the rule has said of it; its key only where that is the rule's own, for the others follow from the rest. */
static void on_derived(void *arg, const struct np_shadow_cause *cause, const struct np_reading *r) {
  struct side *s = arg;
  struct said *said = add(s, cause);
  struct np_buf b = {0};
  const char *own = r->key.ptr ? strstr(r->key.ptr, ":=") : NULL;
  np_line_begin(&b);
  np_line_value(&b, &r->value);
  np_line_text(&b, "unit", r->unit.ptr);
  np_line_int(&b, "at", r->at);
  np_line_text(&b, "key", own ? own + 2 : NULL);
  if (r->interval) np_line_int(&b, "interval", r->interval);
  np_line_text(&b, "trend", np_trend_names[r->trend]);
  np_line_text(&b, "quality", np_quality_names[r->quality]);
  if (r->extra.len) np_buf_addf(&b, ",\"extra\":%s", r->extra.ptr);
  np_buf_addc(&b, '}');
  said->body = in_order(s, b.data, b.len);
  said->metric = copy(s, r->metric.ptr);
  said->device = copy(s, r->device.ptr);
  np_buf_free(&b);
}

static void on_failed(void *arg, const struct np_shadow_cause *cause, const char *error) {
  struct side *s = arg;
  struct said *said = add(s, cause);
  said->body = copy(s, error);
}

/* Comparing */

static int compare_texts(const char *a, const char *b) { return a && b ? strcmp(a, b) : (a != NULL) - (b != NULL); }
static int compare_numbers(int64_t a, int64_t b) { return (a > b) - (a < b); }

/* 0: one stands for the other, whatever their bodies are. */
static int compare(const struct said *a, const struct said *b) {
  int order = compare_numbers(a->reading, b->reading);
  if (!order) order = compare_numbers(a->at, b->at);
  if (!order) order = compare_texts(a->timer, b->timer);
  if (!order) order = compare_texts(a->key, b->key);
  if (!order) order = compare_texts(a->destination, b->destination);
  if (!order) order = compare_texts(a->metric, b->metric);
  return order ? order : compare_texts(a->device, b->device);
}

static int by_place(const void *a, const void *b) {
  const struct said *x = a, *y = b;
  int order = compare(x, y);
  return order ? order : (x->order > y->order) - (x->order < y->order);
}

/* What was beyond the last reading that both were run on, is left out. */
static void cut(struct side *s, const struct np_shadow_covered *c) {
  size_t kept = 0;
  for (size_t i = 0; i < s->count; i++) {
    const struct said *said = &s->list[i];
    if (!c->whole && (said->reading ? said->reading > c->seq : said->at > c->at)) continue;
    s->list[kept++] = *said;
  }
  s->count = kept;
  if (kept) qsort(s->list, kept, sizeof *s->list, by_place);
}

static char *owned(const char *text) { return text ? np_strdup(text) : NULL; }

static void note(struct np_shadow_report *r, const struct said *old, const struct said *fresh) {
  const struct said *one = fresh ? fresh : old;
  enum np_difference what = has_raised(one) ? (fresh ? NP_FAILING : NP_MENDED)
                            : old && fresh  ? NP_DIFFERENT
                            : fresh         ? NP_NEW
                                            : NP_LOST;
  if ((r->count & (r->count - 1)) == 0) r->list = np_realloc(r->list, (r->count ? r->count * 2 : 1) * sizeof *r->list);
  r->list[r->count++] = (struct np_shadow_change){.what = what,
                                                  .destination = owned(one->destination),
                                                  .metric = owned(one->metric),
                                                  .device = owned(one->device),
                                                  .timer = owned(one->timer),
                                                  .key = owned(one->key),
                                                  .reading = one->reading,
                                                  .at = one->at,
                                                  .before = old ? np_mask_text(old->body, strlen(old->body)) : NULL,
                                                  .after = fresh ? np_mask_text(fresh->body, strlen(fresh->body)) : NULL};
  r->counts[what]++;
}

static size_t same_place(const struct side *s, size_t from) {
  size_t n = from;
  while (n < s->count && compare(&s->list[n], &s->list[from]) == 0) n++;
  return n;
}

/* Two raised messages are one, whatever they say: lines move. */
static bool is_equal(const struct said *a, const struct said *b) { return has_raised(a) || strcmp(a->body, b->body) == 0; }

static void compare_place(struct np_shadow_report *r, struct said *old, size_t olds, struct said *fresh, size_t freshes) {
  for (size_t i = 0; i < olds; i++)
    for (size_t k = 0; k < freshes && !old[i].paired; k++)
      if (!fresh[k].paired && is_equal(&old[i], &fresh[k])) old[i].paired = fresh[k].paired = true;
  size_t k = 0;
  for (size_t i = 0; i < olds; i++) {
    if (old[i].paired) continue;
    while (k < freshes && fresh[k].paired) k++;
    if (k == freshes && old[i].again) continue;
    note(r, &old[i], k < freshes ? &fresh[k] : NULL);
    if (k < freshes) k++;
  }
  for (; k < freshes; k++)
    if (!fresh[k].paired) note(r, NULL, &fresh[k]);
}

static int by_device(const void *a, const void *b) {
  const struct np_shadow_change *x = a, *y = b;
  int order = strcmp(x->device, y->device);
  if (!order) order = compare_numbers(x->at, y->at);
  if (!order) order = compare_numbers(x->reading, y->reading);
  if (!order) order = compare_texts(x->destination, y->destination);
  if (!order) order = compare_texts(x->metric, y->metric);
  return order ? order : (int)x->what - (int)y->what;
}

static void compare_all(struct side *old, struct side *fresh, struct np_shadow_report *r) {
  cut(old, &r->covered);
  cut(fresh, &r->covered);
  for (size_t a = 0, b = 0; a < old->count || b < fresh->count;) {
    int order = a == old->count ? 1 : b == fresh->count ? -1 : compare(&old->list[a], &fresh->list[b]);
    size_t a_end = order <= 0 ? same_place(old, a) : a, b_end = order >= 0 ? same_place(fresh, b) : b;
    compare_place(r, old->list + a, a_end - a, fresh->list + b, b_end - b);
    a = a_end, b = b_end;
  }
  if (r->count) qsort(r->list, r->count, sizeof *r->list, by_device);
}

static int run_both(struct np_instance *instances[2], struct np_epoch *to, struct np_reader *reader,
                    const struct np_shadow_span *span, struct side sides[2], struct np_shadow_covered *covered,
                    struct np_error *err) {
  struct np_shadow *runs[2] = {NULL, NULL};
  int result = 0;
  for (int i = 0; i < 2; i++) {
    const struct np_shadow_heard heard = {on_message, on_derived, on_failed, &sides[i]};
    if (result < 0) {
      np_instance_close(instances[i]);
      continue;
    }
    runs[i] = np_shadow_new(instances[i], to, reader, &heard, err);
    if (!runs[i]) result = -1;
  }
  if (result == 0) result = np_shadow_run(runs, 2, span, covered, err);
  for (int i = 0; i < 2; i++) np_shadow_free(runs[i]);
  return result;
}

int np_shadow_compare(struct np_instance *old, struct np_instance *fresh, struct np_epoch *to, struct np_reader *reader,
                      const struct np_shadow_span *span, struct np_shadow_report *report, struct np_error *err) {
  struct np_instance *instances[2] = {old, fresh};
  struct side sides[2] = {{.full = NULL}, {.full = NULL}};
  atomic_bool full = false;
  *report = (struct np_shadow_report){.derives = old->code->derive_count || fresh->code->derive_count};
  lua_State *L = luaL_newstate();
  if (!L) abort(); /* out of memory */
  for (int i = 0; i < 2; i++) {
    sides[i].L = L;
    sides[i].full = &full;
  }
  struct np_shadow_span bounded = *span;
  bounded.full = &full;
  int result = run_both(instances, to, reader, &bounded, sides, &report->covered, err);
  if (result == 0) compare_all(&sides[0], &sides[1], report);
  for (int i = 0; i < 2; i++) {
    np_arena_free(&sides[i].arena);
    free(sides[i].list);
  }
  lua_close(L);
  return result;
}

/* Against what was sent in truth */

struct np_shadow_record {
  struct side side;
};

void np_shadow_sent(struct np_shadow_record *record, const struct np_reading *reading, const struct np_message *m) {
  const struct np_shadow_cause cause = {.reading = reading,
                                        .timer = "",
                                        .key = "",
                                        .at = reading    ? reading->received
                                              : m->about ? m->about
                                                         : m->created};
  on_message(&record->side, &cause, m);
}

void np_shadow_derived(struct np_shadow_record *record, const struct np_reading *cause, const struct np_derivation *d,
                       const struct np_reading *r) {
  const struct np_shadow_cause by = {.reading = cause,
                                     .timer = d->timer.ptr ? d->timer.ptr : "",
                                     .key = d->key.ptr ? d->key.ptr : "",
                                     .at = cause ? cause->received : r->received};
  on_derived(&record->side, &by, r);
}

static int64_t away(const struct said *a, const struct said *b) { return a->at < b->at ? b->at - a->at : a->at - b->at; }

/* A message on record does not say which timer it came from, and was made a little after that was due; a replay says the moment. */
static void place_timers(struct side *record, struct side *run) {
  for (size_t i = 0; i < record->count; i++) {
    struct said *sent = &record->list[i], *best = NULL;
    if (sent->reading || !sent->destination) continue;
    for (size_t k = 0; k < run->count; k++) {
      struct said *said = &run->list[k];
      if (said->reading || said->paired || !said->destination || (sent->again && said->at != sent->at)) continue;
      if (strcmp(said->destination, sent->destination) != 0 || strcmp(said->device, sent->device) != 0) continue;
      if (!best || away(said, sent) < away(best, sent)) best = said;
    }
    if (!best) continue;
    best->paired = true;
    sent->at = best->at;
    sent->timer = best->timer;
    sent->key = best->key;
  }
  for (size_t k = 0; k < run->count; k++) run->list[k].paired = false;
}

static int run_alone(struct np_instance *in, struct np_epoch *to, struct np_reader *reader, const struct np_shadow_span *span,
                     struct side *side, struct np_shadow_covered *covered, struct np_error *err) {
  const struct np_shadow_heard heard = {on_message, on_derived, on_failed, side};
  struct np_shadow *run = np_shadow_new(in, to, reader, &heard, err);
  if (!run) return -1;
  int result = np_shadow_run(&run, 1, span, covered, err);
  np_shadow_free(run);
  return result;
}

int np_shadow_against(struct np_instance *in, struct np_epoch *to, struct np_reader *reader, const struct np_shadow_span *span,
                      int (*sent)(void *arg, struct np_shadow_record *record, struct np_error *err), void *arg,
                      struct np_shadow_report *report, struct np_error *err) {
  atomic_bool full = false;
  lua_State *L = luaL_newstate();
  if (!L) abort(); /* out of memory */
  struct side run = {.L = L, .full = &full};
  struct np_shadow_record record = {.side = {.L = L, .full = &full}};
  struct np_shadow_span bounded = *span;
  *report = (struct np_shadow_report){.derives = in->code->derive_count > 0};
  bounded.full = &full;
  int result = run_alone(in, to, reader, &bounded, &run, &report->covered, err);
  if (result == 0) result = sent(arg, &record, err);
  if (result == 0) {
    place_timers(&record.side, &run);
    compare_all(&record.side, &run, report);
  }
  np_arena_free(&run.arena), np_arena_free(&record.side.arena);
  free(run.list), free(record.side.list);
  lua_close(L);
  return result;
}

void np_shadow_report_free(struct np_shadow_report *r) {
  for (size_t i = 0; i < r->count; i++) {
    struct np_shadow_change *c = &r->list[i];
    free(c->destination), free(c->metric), free(c->device), free(c->timer), free(c->key), free(c->before), free(c->after);
  }
  free(r->list);
  *r = (struct np_shadow_report){.wanted = 0};
}

bool np_shadow_differs(const struct np_shadow_report *r) { return r->count > 0; }

/* Telling */

void np_shadow_report_say(const struct np_shadow_report *r, struct np_buf *out) {
  bool any = false;
  for (int i = 0; i < NP_DIFFERENCES; i++) {
    if (!r->counts[i]) continue;
    np_buf_addf(out, "%s%d %s", any ? ", " : "", r->counts[i], np_difference_names[i]);
    any = true;
  }
  if (!any) np_buf_adds(out, r->derives ? "the same messages and readings" : "the same messages");
  if (r->covered.whole)
    np_buf_addf(out, ", over the last %lld reading%s", (long long)r->covered.readings, r->covered.readings == 1 ? "" : "s");
  else
    np_buf_addf(out, ", over %lld of the last %lld readings: the time for it was up", (long long)r->covered.readings,
                (long long)r->wanted);
}

static void add_text(struct np_buf *out, const char *name, const char *text) {
  if (!text) return;
  np_buf_addf(out, ",\"%s\":", name);
  np_buf_add_json(out, text, strlen(text));
}

static void add_body(struct np_buf *out, const char *name, const char *body, bool raised) {
  if (!body) return;
  np_buf_addf(out, ",\"%s\":", name);
  if (raised)
    np_buf_add_json(out, body, strlen(body));
  else
    np_buf_adds(out, body);
}

void np_shadow_change_json(const struct np_shadow_change *c, struct np_buf *out) {
  np_buf_addf(out, "\"change\":\"%s\"", np_difference_names[c->what]);
  add_text(out, "device", c->device);
  add_text(out, "destination", c->destination);
  add_text(out, "metric", c->metric);
  np_buf_addf(out, ",\"at\":%lld", (long long)c->at);
  if (c->reading) np_buf_addf(out, ",\"reading\":%lld", (long long)c->reading);
  add_text(out, "timer", c->timer);
  add_text(out, "key", c->key);
  bool raised = !c->destination && !c->metric;
  add_body(out, "before", c->before, raised);
  add_body(out, "after", c->after, raised);
}
