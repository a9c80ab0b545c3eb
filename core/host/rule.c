/* A rule's handlers on a reading, or one of its timers. */
#include "host/rule.h"

#include <string.h>

#include "base/buf.h"
#include "host/lane.h"
#include "host/state.h"

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
                             .timer = c->timer,
                             .key = c->key,
                             .handler = handler,
                             .push = c->reading ? push_reading : push_key,
                             .ended = call_ended,
                             .owner = c};
  np_task_start(&c->task);
}

/* Runs the handlers that fire; what filters remember stays in the set where one of them fails. */
static bool run_handlers(struct np_rule_run *run, const struct np_buf *fired) {
  struct np_writeset_mark before = np_writeset_mark(run->ws);
  for (size_t i = 0; i < fired->len; i += sizeof(uint32_t)) {
    uint32_t on;
    memcpy(&on, fired->data + i, sizeof on);
    struct np_rule_call c = {.reading = run->reading};
    np_rule_call(run->in, run->in->code->ons[on].handler, run->overlay, run->ws, run->reading->received, &c);
    if (c.ok) continue;
    bool seen = np_state_seen(run->in->code, run->overlay);
    np_writeset_undo(run->ws, before);
    np_overlay_rebuild(run->overlay, run->ws);
    if (seen) np_state_see(run->in->code, run->ws, run->overlay); /* that it has failed may be due to what was migrated meanwhile */
    run->error = c.error;
    return false;
  }
  return true;
}

bool np_rule_run(struct np_rule_run *run) {
  struct np_buf fired = {0};
  struct np_error err;
  struct np_writeset_mark before = np_writeset_mark(run->ws);
  bool ok = np_rule_match(run, &fired, &err) == 0;
  run->fired = fired.len / sizeof(uint32_t);
  if (!ok) {
    np_writeset_undo(run->ws, before);
    np_overlay_rebuild(run->overlay, run->ws);
    np_buf_clear(&run->verdicts);
    run->error = np_strdup(err.text);
  } else if (fired.len && np_quarantine_holds(run->in)) {
    run->kept_back = true;
    run->error = np_quarantine_text(run->in->code);
    ok = false;
  } else if (fired.len) {
    ok = run_handlers(run, &fired);
  }
  np_buf_free(&fired);
  return ok;
}

bool np_rule_reading(struct np_instance *in, const struct np_reading *reading, struct np_overlay *overlay, struct np_writeset *ws,
                     char **error) {
  struct np_rule_run run = {.in = in, .reading = reading, .overlay = overlay, .ws = ws};
  bool ok = np_rule_run(&run);
  np_buf_free(&run.verdicts);
  *error = run.error;
  return ok;
}

const struct np_timer_decl *np_rule_timer(const struct np_code *code, const char *name) {
  for (size_t i = 0; i < code->timer_count; i++)
    if (strcmp(code->timers[i].name, name) == 0) return &code->timers[i];
  return NULL;
}

static struct np_text copy_text(struct np_writeset *ws, struct np_text t) { return np_writeset_text(ws, t.ptr, t.len); }

struct np_reading np_reading_copy(struct np_writeset *ws, const struct np_reading *from) {
  struct np_reading r = *from;
  r.derivation = NULL;
  r.vendor = copy_text(ws, from->vendor), r.connection = copy_text(ws, from->connection), r.device = copy_text(ws, from->device);
  r.metric = copy_text(ws, from->metric), r.unit = copy_text(ws, from->unit), r.key = copy_text(ws, from->key);
  r.extra = copy_text(ws, from->extra);
  if (r.value.type == NP_STRING) r.value.s = copy_text(ws, from->value.s);
  return r;
}
