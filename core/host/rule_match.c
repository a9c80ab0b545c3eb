/* Which of a rule's handlers a reading fires, with the store behind it. What filters remember is kept under keys of the space "filter:RULE", in the
 * transaction that takes the reading from its partition: nobody else writes there, so what is read needs no version. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "host/lane.h"
#include "host/rule.h"

/* Space, 0, key, as an overlay has it. The key is legible, and the lengths in it make it one of a kind. */
static void make_key(struct np_buf *b, const struct np_rule_world *w, const struct np_reading *r, enum np_memory_kind kind,
                     size_t *space) {
  np_buf_addf(b, "filter:%s", w->run->in->code->instance);
  *space = b->len;
  np_buf_addc(b, 0);
  np_buf_addf(b, "%s %zu:%s %zu:%s", w->on->memory, r->vendor.len, r->vendor.ptr, r->device.len, r->device.ptr);
  if (kind == NP_MEMORY_MARGIN) np_buf_addf(b, " %s", r->metric.ptr); /* first is of the device alone */
}

/* Of what was noted while this machine's clock was ahead, all that comes is later. */
static void read_memory(const char *text, struct np_memory *m) {
  *m = (struct np_memory){0};
  if (text[0] && text[1] == ' ') *m = (struct np_memory){.mark = text[0], .at = strtoll(text + 2, NULL, 10)};
  if (np_is_ahead(m->at)) m->at = 0;
}

static int recall(void *arg, const struct np_reading *r, enum np_memory_kind kind, struct np_memory *m, struct np_error *err) {
  struct np_rule_world *w = arg;
  struct np_buf key = {0}, value = {0};
  size_t space;
  int64_t version;
  int found = 0;
  make_key(&key, w, r, kind, &space);
  const struct np_op *op = np_map_get(&w->run->overlay->puts, key.data, key.len);
  if (op)
    np_buf_adds(&value, op->as.put.value.ptr);
  else if (!w->run->overlay->past)
    found = np_reader_get(w->run->in->lane->reader, key.data, key.data + space + 1, key.len - space - 1, r->received, &value,
                          &version, err);
  read_memory(np_buf_text(&value), m);
  np_buf_free(&key);
  np_buf_free(&value);
  return found < 0 ? -1 : 0;
}

static void keep(void *arg, const struct np_reading *r, enum np_memory_kind kind, const struct np_memory *m) {
  struct np_rule_world *w = arg;
  struct np_buf key = {0};
  char value[32];
  size_t space;
  make_key(&key, w, r, kind, &space);
  int n = snprintf(value, sizeof value, "%c %" PRId64, m->mark, m->at);
  struct np_op *op = np_writeset_add(w->run->ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(w->run->ws, key.data, space);
  op->as.put.key = np_writeset_text(w->run->ws, key.data + space + 1, key.len - space - 1);
  op->as.put.value = np_writeset_text(w->run->ws, value, (size_t)n);
  np_map_put(&w->run->overlay->puts, key.data, key.len, op);
  np_buf_free(&key);
}

static int facts(void *arg, const struct np_reading *r, const struct np_facts **out, struct np_error *err) {
  struct np_lane *lane = ((struct np_rule_world *)arg)->run->in->lane;
  return np_facts_find(&lane->facts, lane->reader, r->vendor, r->device, out, err);
}

static int before(void *arg, const struct np_reading *r, int64_t to, np_reading_fn *fn, void *fn_arg, struct np_error *err) {
  struct np_reader *reader = ((struct np_rule_world *)arg)->run->in->lane->reader;
  return np_reader_before(reader, r->vendor.ptr, r->device.ptr, r->metric.ptr, to, r->seq, fn, fn_arg, err);
}

void np_rule_world(struct np_rule_world *w, struct np_rule_run *run, const struct np_on *on) {
  *w = (struct np_rule_world){
      .world = {.facts = facts, .before = before, .recall = recall, .keep = keep, .arg = w}, .run = run, .on = on};
}

/* What a held entry says of the handler: 1, 0, or -1 where nothing. */
static int judged(const char *verdicts, const char *memory) {
  size_t len = strlen(memory);
  for (const char *at = verdicts; at && (at = strstr(at, memory)); at += len)
    if ((at == verdicts || at[-1] == ' ') && (at[len] == '+' || at[len] == '-')) return at[len] == '+';
  return -1;
}

static int match_one(struct np_rule_run *run, const struct np_on *on, struct np_error *err) {
  bool remembers = np_filter_needs(on->filter) & (NP_FILTER_MARGIN | NP_FILTER_FIRST);
  int yes = remembers && run->judged ? judged(run->judged, on->memory) : -1;
  if (yes < 0) {
    struct np_rule_world w;
    np_rule_world(&w, run, on);
    yes = np_filter_run(on->filter, run->reading, &w.world, err);
  }
  if (remembers && yes >= 0) np_buf_addf(&run->verdicts, "%s%c ", on->memory, yes ? '+' : '-');
  return yes;
}

int np_rule_match(struct np_rule_run *run, struct np_buf *fired, struct np_error *err) {
  const struct np_code *code = run->in->code;
  size_t n = run->ons ? run->on_count : code->on_count;
  for (size_t i = 0; i < n; i++) {
    uint32_t on = run->ons ? run->ons[i] : (uint32_t)i;
    int yes = match_one(run, &code->ons[on], err);
    if (yes < 0) return -1;
    if (yes) np_buf_add(fired, &on, sizeof on);
  }
  return 0;
}
