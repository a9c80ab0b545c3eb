/* Numbers over a stretch of one device's past: what plugin:window gives. Any thread; nothing here knows of Lua or the store. */
#ifndef NP_HOST_WINDOW_H
#define NP_HOST_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct np_sample {
  int64_t at; /* ms */
  double value;
};

struct np_window {
  size_t count;
  int64_t end;                              /* ms: up to when the newest may stand */
  bool whole;                               /* all values are integers that a double holds exactly */
  double sum, mean, min, max, stdev;        /* of nothing: 0; stdev is that of a sample, 0 for fewer than 2 */
  double rate, slope;                       /* for each minute: from the first to the last; of the line of least squares */
  bool moves;                               /* there are two moments, so rate and slope are something */
  const struct np_sample *samples, *rising; /* borrowed: in order of time; of value */
};
/* samples: n of them in order of time, kept by the caller; rising: room for as many, filled. Everything of *w is set but for whole. */
void np_window_make(struct np_window *w, const struct np_sample *samples, struct np_sample *rising, size_t n, int64_t end);
/* The value below which p of 100 are, between two of them on the line through both. Of at least one sample. */
double np_window_percentile(const struct np_window *w, double p);
/* How many have lo <= value <= hi. */
size_t np_window_within(const struct np_window *w, double lo, double hi);
/* ms for which a sample stands: until the next one, the last until the end, and none for longer than gap; of those within lo and hi, and of all. */
void np_window_time(const struct np_window *w, double lo, double hi, int64_t gap, int64_t *within, int64_t *all);

#endif
