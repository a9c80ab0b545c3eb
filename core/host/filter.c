/* Matching: what a reading itself says, and what is known of its device. */
#include <math.h>
#include <string.h>

#include "host/filter_parts.h"

bool np_glob_match(const char *pattern, size_t pattern_len, const char *text, size_t len) {
  const char *end = pattern + pattern_len, *star = memchr(pattern, '*', pattern_len);
  if (!star) return pattern_len == len && memcmp(pattern, text, len) == 0;
  size_t head = (size_t)(star - pattern);
  if (head > len || memcmp(pattern, text, head) != 0) return false;
  text += head, len -= head;
  for (pattern = star + 1;; pattern = star + 1) { /* the leftmost place for each piece leaves most to the rest */
    star = memchr(pattern, '*', (size_t)(end - pattern));
    if (!star) break;
    size_t piece = (size_t)(star - pattern);
    const char *at = piece ? memmem(text, len, pattern, piece) : text;
    if (!at) return false;
    len -= (size_t)(at - text) + piece;
    text = at + piece;
  }
  size_t tail = (size_t)(end - pattern);
  return tail <= len && memcmp(pattern, text + len - tail, tail) == 0;
}

/* Texts */

bool np_filter_takes(const struct np_filter *f, enum np_filter_field field, struct np_text text) {
  const struct np_pattern *p = f->patterns[field];
  if (!p) return true;
  const char *s = text.ptr ? text.ptr : "";
  for (size_t n = f->counts[field]; n; n--, p++) {
    if (p->star ? np_glob_match(p->text, p->len, s, text.len) : p->len == text.len && memcmp(p->text, s, p->len) == 0) return true;
  }
  return false;
}

struct np_text np_filter_text(const struct np_reading *r, enum np_filter_field field) {
  switch (field) {
  case NP_F_METRIC: return r->metric;
  case NP_F_DEVICE: return r->device;
  case NP_F_VENDOR: return r->vendor;
  case NP_F_CONNECTION: return r->connection;
  default: return r->unit;
  }
}

bool np_filter_takes_facts(const struct np_filter *f, enum np_filter_field field, const struct np_facts *facts) {
  static const struct np_facts nothing;
  if (!f->patterns[field]) return true;
  if (!facts) facts = &nothing;
  if (field == NP_F_PLACE) return np_filter_takes(f, field, facts->place);
  if (field == NP_F_OWNER) return np_filter_takes(f, field, facts->owner);
  for (size_t i = 0; i < facts->tag_count; i++)
    if (np_filter_takes(f, field, facts->tags[i])) return true;
  return false;
}

/* Numbers */

/* i < d and i > d without rounding i to a double. NaN is neither. */
static bool int_below(int64_t i, double d) { return d >= 0x1p63 || (d > -0x1p63 && i < (int64_t)ceil(d)); }
static bool int_above(int64_t i, double d) { return d < -0x1p63 || (d < 0x1p63 && i > (int64_t)floor(d)); }

bool np_value_less(const struct np_value *a, const struct np_value *b) {
  if (a->type == NP_NUMBER_INT) return b->type == NP_NUMBER_INT ? a->i < b->i : int_below(a->i, b->d);
  return b->type == NP_NUMBER_INT ? int_above(b->i, a->d) : a->d < b->d;
}

static bool at_least(const struct np_value *a, const struct np_value *b) {
  bool nan = (a->type == NP_NUMBER_REAL && isnan(a->d)) || (b->type == NP_NUMBER_REAL && isnan(b->d));
  return !nan && !np_value_less(a, b);
}

char np_filter_side(const struct np_filter *f, const struct np_value *v) {
  if (!f->below_set && !f->above_set && !f->outside_set) return 'i';
  if (!np_value_is_number(v)) return 0;
  bool below = (f->below_set || f->outside_set) && np_value_less(v, &f->below);
  bool above = (f->above_set || f->outside_set) && np_value_less(&f->above, v);
  if (f->outside_set) return below ? 'l' : above ? 'h' : 0;
  if (f->below_set && f->above_set) return below && above ? 'i' : 0;
  return below ? 'l' : above ? 'h' : 0;
}

bool np_filter_is_back(const struct np_filter *f, const struct np_value *v, char side) {
  if (!np_value_is_number(v)) return false;
  return (side != 'h' && (f->below_set || f->outside_set) && at_least(v, &f->low_back)) ||
         (side != 'l' && (f->above_set || f->outside_set) && at_least(&f->high_back, v));
}

/* Clock and calendar */

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

struct np_local np_filter_local(const struct np_filter *f, int64_t at) {
  int64_t utc = floor_div(at, 1000), local = utc + (f->zone ? np_zone_offset(f->zone, utc) : 0), day = floor_div(local, 86400);
  return (struct np_local){.day = day,
                           .minute = (int)((local - day * 86400) / 60),
                           .weekday = (int)(((day + 3) % 7 + 7) % 7)}; /* 1970 began on a Thursday */
}

bool np_filter_clock(const struct np_filter *f, int64_t at) {
  if (!f->hours_set && !f->weekdays) return true;
  struct np_local local = np_filter_local(f, at);
  if (f->weekdays && !(f->weekdays >> local.weekday & 1)) return false;
  return !f->hours_set || f->minutes[local.minute / 8] >> local.minute % 8 & 1;
}

/* What the texts and the quality say: whether the reading is of those that the filter looks at. */
static bool is_of_it(const struct np_filter *f, const struct np_reading *r) {
  if (!np_filter_takes(f, NP_F_METRIC, r->metric)) return false;
  if (f->qualified && !(f->qualities >> r->quality & 1)) return false;
  if (!np_filter_takes_depth(f, r->depth)) return false;
  for (int i = NP_F_METRIC + 1; i <= NP_F_UNIT; i++)
    if (f->patterns[i] && !np_filter_takes(f, i, np_filter_text(r, i))) return false;
  return true;
}

bool np_filter_match(const struct np_filter *f, const struct np_reading *r) {
  return is_of_it(f, r) && np_filter_side(f, &r->value) && np_filter_clock(f, r->at);
}

bool np_filter_may_take_derived(const struct np_filter *f, const char *metric, const char *rule) {
  return np_filter_takes_depth(f, 1) && np_filter_takes(f, NP_F_METRIC, (struct np_text){metric, strlen(metric)}) &&
         np_filter_takes(f, NP_F_CONNECTION, (struct np_text){rule, strlen(rule)});
}

/* The whole. */

static int fits_device(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *w,
                       struct np_error *err) {
  const struct np_facts *facts = NULL;
  if (!f->patterns[NP_F_PLACE] && !f->patterns[NP_F_OWNER] && !f->patterns[NP_F_TAG]) return 1;
  if (w->facts && w->facts(w->arg, r, &facts, err) < 0) return -1;
  for (int i = NP_F_PLACE; i <= NP_F_TAG; i++)
    if (!np_filter_takes_facts(f, i, facts)) return 0;
  return 1;
}

static int recall(const struct np_reading *r, const struct np_filter_world *w, enum np_memory_kind kind, struct np_memory *m,
                  struct np_error *err) {
  *m = (struct np_memory){0};
  return w->recall ? w->recall(w->arg, r, kind, m, err) : 0;
}

static void keep(const struct np_reading *r, const struct np_filter_world *w, enum np_memory_kind kind, char mark) {
  const struct np_memory m = {.mark = mark, .at = np_filter_moment(r)};
  if (w->keep) w->keep(w->arg, r, kind, &m);
}

/* Clock, first, changed and rate: what also has to hold where all else does. */
static int fires(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *w, struct np_error *err) {
  int yes = np_filter_clock(f, r->at);
  double rate;
  if (yes > 0 && f->first) {
    struct np_memory last;
    if (recall(r, w, NP_MEMORY_FIRST, &last, err) < 0) return -1;
    yes = np_filter_is_first(f, r, &last);
  }
  if (yes > 0 && f->changed) yes = np_filter_changed(f, r, w, err);
  if (yes > 0 && f->rate_set) {
    yes = np_filter_rate(f, r, w, &rate, err);
    if (yes > 0) yes = np_filter_rate_fits(f, rate);
  }
  if (yes > 0 && f->first) keep(r, w, NP_MEMORY_FIRST, 'f');
  return yes;
}

static int crosses(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *w, struct np_error *err) {
  char side = np_filter_side(f, &r->value);
  struct np_memory m;
  if (!side && !np_filter_is_back(f, &r->value, 'i')) return 0; /* between the limit and what counts as back: says nothing */
  if (recall(r, w, NP_MEMORY_MARGIN, &m, err) < 0) return -1;
  if (m.mark && np_filter_moment(r) < m.at) return 0;
  bool fired = m.mark && m.mark != 'r', back = fired && np_filter_is_back(f, &r->value, m.mark);
  int yes = side && (!fired || back) ? fires(f, r, w, err) : 0;
  if (yes > 0)
    keep(r, w, NP_MEMORY_MARGIN, side);
  else if (yes == 0 && back)
    keep(r, w, NP_MEMORY_MARGIN, 'r');
  return yes;
}

int np_filter_run(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *world,
                  struct np_error *err) {
  if (!is_of_it(f, r) || (!f->margin_set && (!np_filter_side(f, &r->value) || !np_filter_clock(f, r->at)))) return 0;
  int yes = fits_device(f, r, world, err);
  if (yes <= 0) return yes;
  return f->margin_set ? crosses(f, r, world, err) : fires(f, r, world, err);
}

unsigned np_filter_needs(const struct np_filter *f) {
  bool facts = f->patterns[NP_F_PLACE] || f->patterns[NP_F_OWNER] || f->patterns[NP_F_TAG];
  return (facts ? NP_FILTER_FACTS : 0) | (f->changed || f->rate_set ? NP_FILTER_PAST : 0) | (f->margin_set ? NP_FILTER_MARGIN : 0) |
         (f->first ? NP_FILTER_FIRST : 0);
}

const char *np_filter_hash(const struct np_filter *f) { return f->hash; }
