/* Circles among rules: the shortest way from one back to it, step by step. */
#include "host/circle.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A metric that `from` derives and `to` may be run on; NULL. */
static const char *meets(const struct np_code *from, const struct np_code *to) {
  for (size_t i = 0; i < from->derive_count; i++)
    for (size_t k = 0; k < to->on_count; k++)
      if (np_filter_may_take_derived(to->ons[k].filter, from->derives[i], from->instance)) return from->derives[i];
  return NULL;
}

struct step {
  size_t from; /* the rule before it on the way; SIZE_MAX: not reached */
  const char *metric;
};

static void say(const struct np_code *const *rules, const struct step *steps, size_t start, struct np_buf *text) {
  size_t way[64], n = 0;
  bool same = true;
  for (size_t at = start; n < 64 && (n == 0 || at != start); at = steps[at].from) way[n++] = at;
  np_buf_addf(text, "what it derives comes back to it: %s", rules[start]->instance);
  for (size_t i = n; i-- > 0;) np_buf_addf(text, " -> %s", rules[way[i]]->instance);
  for (size_t i = 1; i < n; i++) same = same && strcmp(steps[way[i]].metric, steps[way[0]].metric) == 0;
  np_buf_adds(text, same ? ", by metric " : ", by metrics ");
  for (size_t i = n; i-- > 0;) {
    np_buf_addf(text, "\"%s\"", steps[way[i]].metric);
    if (same) break;
    np_buf_adds(text, i > 1 ? ", " : i == 1 ? " and " : "");
  }
  np_buf_adds(text,
              ": have one of them take less (derived = false in a filter takes only what vendors send), or derive a metric of "
              "its own");
}

bool np_circle_find(const struct np_code *const *rules, size_t n, size_t start, struct np_buf *text) {
  struct step *steps = np_alloc((n + 1) * sizeof *steps);
  size_t *queue = np_alloc((n + 1) * sizeof *queue), first = 0, last = 0;
  for (size_t i = 0; i < n; i++) steps[i].from = SIZE_MAX;
  queue[last++] = start;
  while (first < last && steps[start].from == SIZE_MAX) {
    size_t at = queue[first++];
    for (size_t i = 0; i < n && rules[at]->derive_count; i++) {
      if (steps[i].from != SIZE_MAX || !rules[i]->derive_count) continue;
      const char *metric = meets(rules[at], rules[i]);
      if (!metric) continue;
      steps[i] = (struct step){at, metric};
      queue[last++] = i;
    }
  }
  bool found = steps[start].from != SIZE_MAX;
  if (found) say(rules, steps, start, text);
  free(steps);
  free(queue);
  return found;
}
