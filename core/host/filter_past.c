/* What came before: whether a value has changed, how fast it changes, and whether it is the first. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/filter_parts.h"

struct look {
  const struct np_filter *f;
  const struct np_reading *now;
  bool found, same;
  double rate;
};

static bool same_text(struct np_text a, struct np_text b) { return a.len == b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0); }

/* Of the readings that this filter looks at; device, metric and vendor are the same anyway. */
static bool counts(const struct look *l, const struct np_reading *before) {
  const struct np_filter *f = l->f;
  if (f->qualified && !(f->qualities >> before->quality & 1)) return false;
  if (!np_filter_takes_depth(f, before->depth)) return false;
  return np_filter_takes(f, NP_F_CONNECTION, before->connection) && np_filter_takes(f, NP_F_UNIT, before->unit);
}

static bool same_value(const struct np_value *a, const struct np_value *b) {
  if (np_value_is_number(a) && np_value_is_number(b)) return !np_value_less(a, b) && !np_value_less(b, a);
  if (a->type != b->type) return false; /* true is not 1 */
  return a->type == NP_STRING ? same_text(a->s, b->s) : a->i == b->i;
}

static bool look_at_value(void *arg, const struct np_reading *before) {
  struct look *l = arg;
  if (!counts(l, before)) return true;
  l->found = true;
  l->same = same_value(&l->now->value, &before->value);
  return false;
}

int np_filter_changed(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *w,
                      struct np_error *err) {
  struct look l = {.f = f, .now = r};
  if (w->before && w->before(w->arg, r, r->at, look_at_value, &l, err) < 0) return -1;
  return !l.found || !l.same;
}

double np_round_digits(double d, int digits) {
  char text[40];
  snprintf(text, sizeof text, "%.*g", digits, d);
  return strtod(text, NULL);
}

/* The difference of integers is exact where it fits. */
static double difference(const struct np_value *a, const struct np_value *b) {
  int64_t d;
  if (a->type == NP_NUMBER_INT && b->type == NP_NUMBER_INT && !__builtin_sub_overflow(a->i, b->i, &d)) return (double)d;
  return (a->type == NP_NUMBER_INT ? (double)a->i : a->d) - (b->type == NP_NUMBER_INT ? (double)b->i : b->d);
}

static bool look_at_rate(void *arg, const struct np_reading *before) {
  struct look *l = arg;
  if (!counts(l, before) || !np_value_is_number(&before->value) || !same_text(before->unit, l->now->unit)) return true;
  l->found = true;
  double rate = difference(&l->now->value, &before->value) / (double)(l->now->at - before->at) * (double)l->f->per;
  l->rate = np_round_digits(rate, 12);
  return false;
}

int np_filter_rate(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *w, double *rate,
                   struct np_error *err) {
  struct look l = {.f = f, .now = r};
  if (!np_value_is_number(&r->value)) return 0;
  if (w->before && w->before(w->arg, r, r->at - 1, look_at_rate, &l, err) < 0) return -1;
  *rate = l.rate;
  return l.found;
}

bool np_filter_rate_fits(const struct np_filter *f, double rate) {
  return (!f->rate_below_set || rate < f->rate_below) && (!f->rate_above_set || rate > f->rate_above);
}

bool np_filter_is_first(const struct np_filter *f, const struct np_reading *r, const struct np_memory *last) {
  int64_t at = np_filter_moment(r);
  if (!last->mark) return true;
  switch (f->first) {
  case NP_FIRST_DAY: return np_filter_local(f, at).day > np_filter_local(f, last->at).day;
  case NP_FIRST_AFTER: return at >= last->at && at - last->at >= f->first_ms;
  default: return false;
  }
}
