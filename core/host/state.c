/* What an instance keeps: its version, and migrations from one to the next. Main thread, but for the last two functions. */
#include "host/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "host/host.h"
#include "host/lane.h"
#include "host/ledger.h"
#include "host/task.h"

int np_state_read(struct np_reader *r, const char *instance, struct np_state *s, struct np_error *err) {
  struct np_buf value = {0};
  *s = (struct np_state){0};
  int found = np_reader_get(r, NP_STATE_SPACE, instance, strlen(instance), 0, &value, &s->row, err);
  if (found == 1) s->version = atoi(np_buf_text(&value));
  np_buf_free(&value);
  return found < 0 ? -1 : 0;
}

int np_code_version(const struct np_code *c) { return c->migration_count ? c->migrations[c->migration_count - 1].from + 1 : 1; }

int np_state_fits(const struct np_code *c, int version, struct np_error *err) {
  int own = np_code_version(c), first = c->migration_count ? c->migrations[0].from : 1;
  if (version > own)
    return np_fail(
        err,
        "%s: what %s keeps is at version %d, and this text knows it up to version %d: a migration cannot be undone by going "
        "back. Save a text that has plugin:migrate(%d, …), which may turn it into what it was",
        c->file, c->instance, version, own, version);
  if (version < first)
    return np_fail(
        err, "%s: what %s keeps is at version %d, and the first migration is from version %d: put plugin:migrate(%d, …) before it",
        c->file, c->instance, version, first, version);
  return 0;
}

void np_state_put(struct np_writeset *ws, const char *instance, int version) {
  char text[16];
  int n = snprintf(text, sizeof text, "%d", version);
  struct np_op *op = np_writeset_add(ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(ws, NP_STATE_SPACE, strlen(NP_STATE_SPACE));
  op->as.put.key = np_writeset_text(ws, instance, strlen(instance));
  op->as.put.value = np_writeset_text(ws, text, (size_t)n);
}

struct call {
  struct np_task task;
  char *error; /* owned */
  bool ended;
};

static void ended(struct np_task *t) {
  struct call *c = t->owner;
  c->ended = true;
  if (t->failed) c->error = np_strdup(t->error);
}

/* One migration. It cannot wait: it has ended when the function returns. */
static int run(struct np_instance *in, int handler, struct np_writeset *ws, struct np_overlay *overlay, char **error) {
  struct call c = {0};
  c.task = (struct np_task){.in = in,
                            .mode = NP_MIGRATING,
                            .ws = ws,
                            .overlay = overlay,
                            .handler = handler,
                            .where = "migrate",
                            .ended = ended,
                            .owner = &c};
  np_task_start(&c.task);
  *error = c.error;
  return c.error ? -1 : 0;
}

int np_state_migrate(struct np_host *host, struct np_reader *reader, struct np_instance *in, int version, struct np_writeset *ws,
                     struct np_error *err) {
  const struct np_code *c = in->code;
  struct np_lane here = {.host = host, .reader = reader}; /* what a call needs of one that does not wait */
  struct np_overlay overlay = {0};
  struct np_writeset_mark before = np_writeset_mark(ws);
  int result = 0;
  in->lane = &here;
  for (size_t i = 0; i < c->migration_count && result == 0; i++) {
    char *error;
    if (c->migrations[i].from < version) continue;
    result = run(in, c->migrations[i].handler, ws, &overlay, &error);
    if (result < 0) np_fail(err, "the migration from version %d: %s", c->migrations[i].from, error);
    free(error);
  }
  in->lane = NULL;
  np_overlay_free(&overlay);
  if (result == 0)
    np_state_put(ws, c->instance, np_code_version(c));
  else
    np_writeset_undo(ws, before);
  return result;
}

struct state_key {
  char bytes[300];
  size_t len;
};

static void name_key(const struct np_code *c, struct state_key *k) {
  int n = snprintf(k->bytes, sizeof k->bytes, NP_STATE_SPACE "%c%s", 0, c->instance);
  k->len = (size_t)n < sizeof k->bytes ? (size_t)n : sizeof k->bytes - 1;
}

bool np_state_seen(const struct np_code *c, const struct np_overlay *overlay) {
  struct state_key k;
  name_key(c, &k);
  return np_map_get(&overlay->seen, k.bytes, k.len) != NULL;
}

void np_state_see(const struct np_code *c, struct np_writeset *ws, struct np_overlay *overlay) {
  struct state_key k;
  name_key(c, &k);
  if (np_map_get(&overlay->seen, k.bytes, k.len)) return;
  struct np_op *op = np_writeset_add(ws, NP_OP_SEEN);
  op->as.seen.space = np_writeset_text(ws, NP_STATE_SPACE, strlen(NP_STATE_SPACE));
  op->as.seen.key = np_writeset_text(ws, c->instance, strlen(c->instance));
  op->as.seen.version = atomic_load_explicit(&c->state_row, memory_order_relaxed);
  np_map_put(&overlay->seen, k.bytes, k.len, op);
}

struct np_instance *np_state_successor(struct np_lane *lane, struct np_instance *in) {
  struct np_instance *now = np_lane_instance(lane, np_epoch_slot(lane->epoch, in->code->instance));
  if (!now || now == in) return in;
  return atomic_load_explicit(&now->code->state_row, memory_order_relaxed) ==
                 atomic_load_explicit(&in->code->state_row, memory_order_relaxed)
             ? in
             : now;
}

bool np_state_excuses(struct np_lane *lane, struct np_instance *in, const struct np_overlay *overlay) {
  return np_state_seen(in->code, overlay) && (np_state_is_migrating(lane) || np_state_successor(lane, in) != in);
}

bool np_state_is_migrating(const struct np_lane *lane) {
  return atomic_load_explicit(&lane->host->migrating, memory_order_acquire) != 0;
}
