/* A write set: operations in order, with their strings, in one arena. */
#include "store/writeset.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/real.h"

const char *const np_quality_names[3] = {"valid", "warmup", "invalid"};
const char *const np_trend_names[6] = {NULL, "flat", "rising_slowly", "falling_slowly", "rising_fast", "falling_fast"};
const char *const np_dead_reasons[3] = {"refused", "gave up", "expired"};

struct np_writeset *np_writeset_new(void) {
  struct np_writeset *ws = np_alloc(sizeof *ws);
  ws->last = &ws->first;
  ws->refs = 1;
  return ws;
}

void np_writeset_ref(struct np_writeset *ws) { __atomic_add_fetch(&ws->refs, 1, __ATOMIC_RELAXED); }

void np_writeset_unref(struct np_writeset *ws) {
  if (__atomic_sub_fetch(&ws->refs, 1, __ATOMIC_ACQ_REL)) return;
  np_arena_free(&ws->arena);
  free(ws);
}

struct np_op *np_writeset_add(struct np_writeset *ws, enum np_op_kind kind) {
  struct np_op *op = np_arena_alloc(&ws->arena, sizeof *op);
  *op = (struct np_op){.kind = kind};
  *ws->last = op;
  ws->last = &op->next;
  ws->count++;
  return op;
}

struct np_text np_writeset_text(struct np_writeset *ws, const char *s, size_t n) {
  if (!s) return (struct np_text){0};
  return (struct np_text){np_arena_copy(&ws->arena, s, n), n};
}

struct np_writeset_mark np_writeset_mark(const struct np_writeset *ws) {
  return (struct np_writeset_mark){ws->last, ws->count};
}

void np_writeset_undo(struct np_writeset *ws, struct np_writeset_mark mark) {
  ws->last = mark.last;
  *ws->last = NULL;
  ws->count = mark.count;
}

void np_value_add_json(struct np_buf *b, const struct np_value *v) {
  char text[NP_REAL_TEXT];
  switch (v->type) {
  case NP_NUMBER_INT: np_buf_addf(b, "%" PRId64, v->i); break;
  case NP_NUMBER_REAL: np_buf_add(b, text, np_real_text(text, v->d)); break;
  case NP_BOOL: np_buf_adds(b, v->i ? "true" : "false"); break;
  case NP_STRING: np_buf_add_json(b, v->s.ptr, v->s.len); break;
  }
}
