/* A rule's handlers on a reading, or one of its timers. */
#include "host/rule.h"

#include <string.h>

#include "base/buf.h"
#include "host/lane.h"

static int push_reading(lua_State *L, struct np_task *t) {
  struct np_rule_call *c = t->owner;
  np_push_reading(L, c->reading);
  return 1;
}

static int push_key(lua_State *L, struct np_task *t) {
  struct np_rule_call *c = t->owner;
  lua_pushstring(L, c->key);
  return 1;
}

static void call_ended(struct np_task *t) {
  struct np_rule_call *c = t->owner;
  c->ok = !t->failed;
  if (t->failed) c->error = np_strdup(t->error);
}

void np_rule_call(struct np_instance *in, int handler, struct np_overlay *overlay, struct np_writeset *ws, int64_t now,
                  struct np_rule_call *c) {
  c->task = (struct np_task){.in = in,
                             .mode = c->reading ? NP_RULING : NP_TIMING,
                             .ws = ws,
                             .overlay = overlay,
                             .now = now,
                             .reading = c->reading,
                             .handler = handler,
                             .push = c->reading ? push_reading : push_key,
                             .ended = call_ended,
                             .owner = c};
  np_task_start(&c->task);
}

/* `changed`: differs from the reading of the same device and metric that was measured before it. */

struct before {
  const struct np_reading *now;
  bool found, same;
};

static bool note_value(void *arg, const struct np_reading *before) {
  struct before *s = arg;
  if (before->seq >= s->now->seq) return true; /* it came later: as things stood, it was not there */
  const struct np_value *a = &s->now->value, *b = &before->value;
  s->found = true;
  if (a->type == NP_STRING || b->type == NP_STRING)
    s->same = a->type == b->type && a->s.len == b->s.len && memcmp(a->s.ptr, b->s.ptr, a->s.len) == 0;
  else
    s->same = (a->type == NP_NUMBER_REAL ? a->d : (double)a->i) == (b->type == NP_NUMBER_REAL ? b->d : (double)b->i);
  return false;
}

static bool has_changed(struct np_reader *reader, const struct np_reading *reading) {
  struct before s = {.now = reading};
  struct np_error err;
  if (np_reader_history(reader, reading->vendor.ptr, reading->device.ptr, reading->metric.ptr, INT64_MIN, reading->at, 1000,
                        note_value, &s, &err) < 0)
    np_log(NP_ERROR, "cannot look for the reading before", "error", err.text, NULL);
  return !s.found || !s.same;
}

bool np_rule_reading(struct np_instance *in, const struct np_reading *reading, struct np_overlay *overlay, struct np_writeset *ws,
                     char **error) {
  const struct np_code *code = in->code;
  struct np_writeset_mark before = np_writeset_mark(ws);
  for (size_t i = 0; i < code->on_count; i++) {
    const struct np_filter *f = code->ons[i].filter;
    if (!np_filter_match(f, reading) || (np_filter_wants_change(f) && !has_changed(in->lane->reader, reading))) continue;
    struct np_rule_call c = {.reading = reading};
    np_rule_call(in, code->ons[i].handler, overlay, ws, reading->received, &c);
    if (c.ok) continue;
    np_writeset_undo(ws, before);
    np_overlay_rebuild(overlay, ws);
    *error = c.error;
    return false;
  }
  return true;
}

const struct np_timer_decl *np_rule_timer(const struct np_code *code, const char *name) {
  for (size_t i = 0; i < code->timer_count; i++)
    if (strcmp(code->timers[i].name, name) == 0) return &code->timers[i];
  return NULL;
}

static struct np_text copy_text(struct np_writeset *ws, struct np_text t) { return np_writeset_text(ws, t.ptr, t.len); }

struct np_reading np_reading_copy(struct np_writeset *ws, const struct np_reading *from) {
  struct np_reading r = *from;
  r.vendor = copy_text(ws, from->vendor), r.connection = copy_text(ws, from->connection), r.device = copy_text(ws, from->device);
  r.metric = copy_text(ws, from->metric), r.unit = copy_text(ws, from->unit), r.key = copy_text(ws, from->key);
  r.extra = copy_text(ws, from->extra);
  if (r.value.type == NP_STRING) r.value.s = copy_text(ws, from->value.s);
  return r;
}
