/* Numbers over samples. Sums are made in order of time, so that the same samples give the same bits. */
#include "host/window.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
  const struct np_sample *x = a, *y = b;
  return x->value < y->value ? -1 : x->value > y->value ? 1 : x->at < y->at ? -1 : x->at > y->at;
}

static void find_spread(struct np_window *w) {
  double squares = 0;
  for (size_t i = 0; i < w->count; i++) squares += (w->samples[i].value - w->mean) * (w->samples[i].value - w->mean);
  w->stdev = w->count > 1 ? sqrt(squares / (double)(w->count - 1)) : 0;
}

/* Moments count from the first, in minutes: those since 1970 would take most of a double's digits. */
static void find_trend(struct np_window *w) {
  const struct np_sample *first = &w->samples[0], *last = &w->samples[w->count - 1];
  double times = 0, squares = 0, products = 0;
  w->moves = last->at > first->at;
  if (!w->moves) return;
  for (size_t i = 0; i < w->count; i++) times += (double)(w->samples[i].at - first->at) / 60000;
  double mean = times / (double)w->count;
  for (size_t i = 0; i < w->count; i++) {
    double t = (double)(w->samples[i].at - first->at) / 60000 - mean;
    squares += t * t;
    products += t * (w->samples[i].value - w->mean);
  }
  w->rate = (last->value - first->value) / ((double)(last->at - first->at) / 60000);
  w->slope = products / squares;
}

void np_window_make(struct np_window *w, const struct np_sample *samples, struct np_sample *rising, size_t n, int64_t end) {
  *w = (struct np_window){.count = n, .end = end, .whole = w->whole, .samples = samples, .rising = rising};
  if (!n) return;
  memcpy(rising, samples, n * sizeof *rising);
  qsort(rising, n, sizeof *rising, by_value);
  w->min = rising[0].value;
  w->max = rising[n - 1].value;
  for (size_t i = 0; i < n; i++) w->sum += samples[i].value;
  w->mean = w->sum / (double)n;
  find_spread(w);
  find_trend(w);
}

double np_window_percentile(const struct np_window *w, double p) {
  double place = p * (double)(w->count - 1) / 100; /* a hundredth of p would not be exact */
  size_t below = (size_t)place;
  double low = w->rising[below].value;
  if (below + 1 >= w->count) return low;
  return low + (place - (double)below) * (w->rising[below + 1].value - low);
}

size_t np_window_within(const struct np_window *w, double lo, double hi) {
  size_t n = 0;
  for (size_t i = 0; i < w->count; i++) n += w->samples[i].value >= lo && w->samples[i].value <= hi;
  return n;
}

void np_window_time(const struct np_window *w, double lo, double hi, int64_t gap, int64_t *within, int64_t *all) {
  *within = *all = 0;
  for (size_t i = 0; i < w->count; i++) {
    const struct np_sample *s = &w->samples[i];
    int64_t stands = (i + 1 < w->count ? s[1].at : w->end) - s->at;
    if (stands > gap) stands = gap;
    if (stands <= 0) continue;
    *all += stands;
    if (s->value >= lo && s->value <= hi) *within += stands;
  }
}
