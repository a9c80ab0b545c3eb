/* Write sets: order, marks, and the last reference. */
#include "store_sets.h"

static void keeps_order(void) {
  struct np_writeset *ws = np_writeset_new();
  CHECK(!ws->first && ws->count == 0 && ws->refs == 1);
  add_put(ws, "a", "1", 0);
  add_put(ws, "b", "2", 0);
  CHECK(ws->count == 2 && is(ws->first->as.put.key, "a") && is(ws->first->next->as.put.key, "b"));
  CHECK(!ws->first->next->next && ws->last == &ws->first->next->next);
  np_writeset_unref(ws);
}

static void takes_back(void) {
  struct np_writeset *ws = np_writeset_new();
  struct np_writeset_mark empty = np_writeset_mark(ws);
  add_put(ws, "a", "1", 0);
  struct np_writeset_mark one = np_writeset_mark(ws);
  add_put(ws, "b", "2", 0);
  add_put(ws, "c", "3", 0);
  np_writeset_undo(ws, one);
  CHECK(ws->count == 1 && !ws->first->next);
  add_put(ws, "d", "4", 0);
  CHECK(ws->count == 2 && is(ws->first->next->as.put.key, "d"));
  np_writeset_undo(ws, empty);
  CHECK(ws->count == 0 && !ws->first);
  add_put(ws, "e", "5", 0);
  CHECK(ws->count == 1 && is(ws->first->as.put.key, "e"));
  np_writeset_unref(ws);
}

static void texts(void) {
  struct np_writeset *ws = np_writeset_new();
  CHECK(!np_writeset_text(ws, NULL, 3).ptr);
  struct np_text t = np_writeset_text(ws, "a\0b", 3);
  CHECK(t.len == 3 && !memcmp(t.ptr, "a\0b", 4));
  CHECK(is(np_writeset_text(ws, "", 0), ""));
  np_writeset_ref(ws);
  np_writeset_unref(ws);
  CHECK(ws->refs == 1 && is(np_writeset_text(ws, "still there", 11), "still there"));
  np_writeset_unref(ws);
}

static void names(void) {
  CHECK(!strcmp(np_quality_names[NP_WARMUP], "warmup") && !strcmp(np_trend_names[NP_FALLING_FAST], "falling_fast"));
  CHECK(!np_trend_names[NP_TREND_NONE]);
}

int main(void) {
  keeps_order();
  takes_back();
  texts();
  names();
  return check_end();
}
