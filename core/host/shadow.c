/* Shadow runs. A run has a lane of its own, of which there is no more than what a rule's verbs look at. */
#include "host/shadow.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "host/host.h"
#include "host/rule.h"

#define PAGE 256
#define STATE_BYTES ((size_t)1 << 20) /* the write set is made anew when it has grown by so much */

struct armed {
  int64_t due;
  char *name, *key; /* owned */
};

struct acked { /* to be told from then on */
  struct acked *next;
  int64_t at;
  struct np_text id, record; /* in the arena */
};

struct np_shadow {
  struct np_instance *in; /* owned */
  struct np_host host;    /* its seal alone: owned, of a key that nobody knows */
  struct np_lane lane;
  struct np_shadow_heard heard;
  struct np_overlay overlay;
  struct np_writeset *ws; /* owned: what it has put so far */
  size_t clean;           /* bytes of ws when it was made */
  struct np_map timers;   /* name 0 key -> struct armed, owned */
  int64_t next_due;       /* none is due before */
  struct np_arena arena;  /* of: */
  struct acked *acks;
  int64_t next_ack;            /* none is to be told before */
  const atomic_bool *stops[2]; /* each may be NULL */
  int64_t stop_us;
};

static int seed(lua_State *L) {
  lua_getglobal(L, "math");
  lua_getfield(L, -1, "randomseed");
  lua_pushinteger(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

/* Two runs are compared: chance is to be the same in both. A rule that has put something else in its place has its own. */
static void seed_chance(struct np_instance *in) {
  lua_pushcfunction(in->L, seed);
  if (lua_pcall(in->L, 0, 0, 0) != LUA_OK) lua_pop(in->L, 1);
}

struct np_shadow *np_shadow_new(struct np_instance *in, struct np_epoch *to, struct np_reader *reader,
                                const struct np_shadow_heard *heard, struct np_error *err) {
  unsigned char key[NP_SEAL_KEY];
  struct np_shadow *s = np_alloc(sizeof *s);
  np_random(key, sizeof key);
  s->in = in;
  s->heard = *heard;
  s->host.seal = np_seal_new(key, err);
  s->lane.host = &s->host;
  s->lane.reader = reader;
  s->lane.epoch = to;
  s->overlay.past = true;
  s->ws = np_writeset_new();
  s->next_due = s->next_ack = INT64_MAX;
  in->lane = &s->lane;
  np_epoch_ref(to);
  if (s->host.seal) {
    seed_chance(in);
    return s;
  }
  np_shadow_free(s);
  return NULL;
}

static void free_armed(void *value) {
  struct armed *a = value;
  if (!a) return;
  free(a->name);
  free(a->key);
  free(a);
}

void np_shadow_free(struct np_shadow *s) {
  if (!s) return;
  np_instance_close(s->in);
  np_epoch_unref(s->lane.epoch);
  np_seal_free(s->host.seal);
  np_overlay_free(&s->overlay);
  np_writeset_unref(s->ws);
  np_map_free(&s->timers, free_armed);
  np_arena_free(&s->arena);
  np_facts_forget(&s->lane.facts);
  free(s);
}

/* What it did */

static void arm(struct np_shadow *s, const struct np_op *op) {
  char spot[1100]; /* a name of a declared timer is short; a longer one never fires */
  size_t name = op->as.arm.name.len, key = op->as.arm.key.len;
  if (name + key + 1 > sizeof spot) return;
  memcpy(spot, op->as.arm.name.ptr, name + 1);
  memcpy(spot + name + 1, op->as.arm.key.ptr, key);
  if (!op->as.arm.due) {
    free_armed(np_map_remove(&s->timers, spot, name + 1 + key));
    return;
  }
  struct armed *a = np_map_get(&s->timers, spot, name + 1 + key);
  if (!a) {
    a = np_alloc(sizeof *a);
    a->name = np_strndup(op->as.arm.name.ptr, name);
    a->key = np_strndup(op->as.arm.key.ptr, key);
    np_map_put(&s->timers, spot, name + 1 + key, a);
  }
  a->due = op->as.arm.due;
  if (a->due < s->next_due) s->next_due = a->due;
}

/* What has been told of and what is no longer there is left behind. */
static void tidy(struct np_shadow *s, int64_t now) {
  if (s->ws->arena.total < s->clean * 2 + STATE_BYTES) return;
  struct np_writeset *fresh = np_writeset_new();
  const struct np_map_entry *e;
  for (size_t i = 0; (e = np_map_next(&s->overlay.puts, &i));) {
    const struct np_op *op = e->value;
    if (!op->as.put.value.ptr || (op->as.put.expires && op->as.put.expires <= now)) continue;
    struct np_op *put = np_writeset_add(fresh, NP_OP_PUT);
    put->as.put.space = np_writeset_text(fresh, op->as.put.space.ptr, op->as.put.space.len);
    put->as.put.key = np_writeset_text(fresh, op->as.put.key.ptr, op->as.put.key.len);
    put->as.put.value = np_writeset_text(fresh, op->as.put.value.ptr, op->as.put.value.len);
    put->as.put.expires = op->as.put.expires;
  }
  np_overlay_rebuild(&s->overlay, fresh);
  np_writeset_unref(s->ws);
  s->ws = fresh;
  s->clean = fresh->arena.total;
}

static void take(struct np_shadow *s, const struct np_shadow_cause *cause, const struct np_op *op) {
  for (; op; op = op->next) {
    if (op->kind == NP_OP_SEND)
      s->heard.message(s->heard.arg, cause, &op->as.send);
    else if (op->kind == NP_OP_READING && s->heard.derived)
      s->heard.derived(s->heard.arg, cause, &op->as.reading);
    else if (op->kind == NP_OP_ARM)
      arm(s, op);
  }
  tidy(s, cause->at);
}

static void fail(struct np_shadow *s, const struct np_shadow_cause *cause, char *error) {
  s->heard.failed(s->heard.arg, cause, error);
  free(error);
}

/* Acknowledgements */

void np_shadow_acknowledge(struct np_shadow *s, struct np_text id, struct np_text record, int64_t at) {
  struct acked *a = np_arena_alloc(&s->arena, sizeof *a);
  *a = (struct acked){.next = s->acks,
                      .at = at,
                      .id = {np_arena_copy(&s->arena, id.ptr, id.len), id.len},
                      .record = {np_arena_copy(&s->arena, record.ptr, record.len), record.len}};
  s->acks = a;
  if (at < s->next_ack) s->next_ack = at;
}

static void put_ack(struct np_shadow *s, const struct acked *a) {
  struct np_buf key = {0};
  struct np_op *op = np_writeset_add(s->ws, NP_OP_PUT);
  op->as.put.space = np_writeset_text(s->ws, NP_SPACE_ACKS, strlen(NP_SPACE_ACKS));
  op->as.put.key = np_writeset_text(s->ws, a->id.ptr, a->id.len);
  op->as.put.value = np_writeset_text(s->ws, a->record.ptr, a->record.len);
  np_buf_add(&key, NP_SPACE_ACKS, sizeof NP_SPACE_ACKS); /* with its 0 */
  np_buf_add(&key, a->id.ptr, a->id.len);
  np_map_put(&s->overlay.puts, key.data, key.len, op);
  np_buf_free(&key);
}

/* Those that had been made by then are found where the rule looks for them. */
static void tell_acks(struct np_shadow *s, int64_t now) {
  if (now < s->next_ack) return;
  s->next_ack = INT64_MAX;
  for (struct acked **at = &s->acks, *a; (a = *at);) {
    if (a->at > now) {
      if (a->at < s->next_ack) s->next_ack = a->at;
      at = &a->next;
      continue;
    }
    put_ack(s, a);
    *at = a->next;
  }
}

/* Timers */

static struct armed *take_due(struct np_shadow *s, int64_t before) {
  const struct np_map_entry *e, *first = NULL;
  int64_t next = INT64_MAX;
  for (size_t i = 0; (e = np_map_next(&s->timers, &i));) {
    const struct armed *a = e->value, *f = first ? first->value : NULL;
    int order = !f || a->due < f->due ? -1 : a->due > f->due ? 1 : strcmp(a->key, f->key);
    if (order < 0 || (order == 0 && strcmp(a->name, f->name) < 0)) first = e;
  }
  if (first) next = ((struct armed *)first->value)->due;
  s->next_due = next;
  return first && next < before ? np_map_remove(&s->timers, first->key, first->len) : NULL;
}

static void fire(struct np_shadow *s, const struct armed *a) {
  const struct np_timer_decl *decl = np_rule_timer(s->in->code, a->name);
  struct np_shadow_cause cause = {.timer = a->name, .key = a->key, .at = a->due};
  struct np_rule_call c = {.timer = a->name, .key = a->key};
  struct np_writeset_mark mark;
  if (!decl) return;
  tell_acks(s, a->due);
  mark = np_writeset_mark(s->ws);
  np_rule_call(s->in, decl->handler, &s->overlay, s->ws, a->due, &c);
  if (c.ok) {
    take(s, &cause, *mark.last);
    return;
  }
  np_writeset_undo(s->ws, mark);
  np_overlay_rebuild(&s->overlay, s->ws);
  fail(s, &cause, c.error);
}

static bool is_over(const struct np_shadow *s) {
  for (int i = 0; i < 2; i++)
    if (s->stops[i] && atomic_load_explicit(s->stops[i], memory_order_relaxed)) return true;
  return s->stop_us && np_work_us() > s->stop_us;
}

/* Those that are due before then. False where the run was ended. */
static bool fire_before(struct np_shadow *s, int64_t before) {
  while (s->next_due < before) {
    if (is_over(s)) return false;
    struct armed *a = take_due(s, before);
    if (a) fire(s, a);
    free_armed(a);
  }
  return true;
}

static bool run_one(struct np_shadow *s, const struct np_reading *reading) {
  struct np_shadow_cause cause = {.reading = reading, .at = reading->received};
  char *error;
  if (!fire_before(s, reading->received) || is_over(s)) return false;
  s->overlay.newest = reading->seq;
  tell_acks(s, reading->received);
  struct np_writeset_mark mark = np_writeset_mark(s->ws);
  if (np_rule_reading(s->in, reading, &s->overlay, s->ws, &error))
    take(s, &cause, *mark.last);
  else
    fail(s, &cause, error);
  return true;
}

/* Readings: a page at a time is copied, so that the store is not kept from tidying while rules run. */

struct page {
  const struct np_shadow_span *span;
  struct np_writeset *ws;
  int64_t last;
  int n;
};

static bool take_reading(void *arg, const struct np_reading *r) {
  struct page *p = arg;
  const struct np_shadow_span *span = p->span;
  if (span->upto && r->seq > span->upto) return false;
  p->last = r->seq;
  p->n++;
  if (r->received < span->from || (span->to && r->received > span->to)) return true;
  if (span->filter && !np_filter_match(span->filter, r)) return true;
  struct np_op *op = np_writeset_add(p->ws, NP_OP_READING);
  op->as.reading = np_reading_copy(p->ws, r);
  return true;
}

static bool run_page(struct np_shadow *const *runs, size_t n, const struct page *p, struct np_shadow_covered *covered) {
  for (const struct np_op *op = p->ws->first; op; op = op->next) {
    const struct np_shadow_span *span = p->span;
    if (span->ready && !span->ready(span->arg, &op->as.reading)) return false;
    for (size_t i = 0; i < n; i++)
      if (!run_one(runs[i], &op->as.reading)) return false;
    covered->readings++;
    covered->seq = op->as.reading.seq;
    covered->at = op->as.reading.received;
    if (span->passed && !span->passed(span->arg, covered->seq)) return false;
  }
  return !p->n || !p->span->passed || p->span->passed(p->span->arg, p->last);
}

static int run_pages(struct np_shadow *const *runs, size_t n, const struct np_shadow_span *span, struct np_shadow_covered *covered,
                     struct np_error *err) {
  struct page p = {.span = span, .last = span->after, .n = PAGE};
  int result = 0;
  covered->whole = true;
  while (result == 0 && covered->whole && p.n == PAGE) {
    p.n = 0;
    p.ws = np_writeset_new();
    result = np_reader_scan(runs[0]->lane.reader, p.last, PAGE, take_reading, &p, err);
    if (result == 0) covered->whole = run_page(runs, n, &p, covered) && !is_over(runs[0]);
    np_writeset_unref(p.ws);
  }
  for (size_t i = 0; result == 0 && covered->whole && i < n; i++)
    covered->whole = !span->until || fire_before(runs[i], span->until + 1);
  return result;
}

int np_shadow_run(struct np_shadow *const *runs, size_t n, const struct np_shadow_span *span, struct np_shadow_covered *covered,
                  struct np_error *err) {
  int64_t end = span->work_us ? np_work_us() + span->work_us : 0;
  *covered = (struct np_shadow_covered){.seq = span->after};
  for (size_t i = 0; i < n; i++) {
    runs[i]->stops[0] = span->stop;
    runs[i]->stops[1] = span->full;
    runs[i]->stop_us = end;
  }
  np_log_hush(true);
  int result = run_pages(runs, n, span, covered, err);
  np_log_hush(false);
  return result;
}
