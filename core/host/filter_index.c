/* The index. Each filter stands in one kind of bucket: that of its rarest literals (with its metric, where that is a literal too), so that a thousand
 * rules for a thousand devices, wards or owners are a look-up; and in it in the order of its limits, so that a thousand limits of one metric are a
 * walk over those that are passed. What remembers has to see what comes back as well: it stands there without its limits. What has no literal is
 * looked at one by one, but only at how its pattern begins. */
#include "host/filter_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "host/filter_parts.h"

#define PAIRS_MAX 10000 /* metrics times literals of one filter; past it the metric is left to the filter itself */

struct limit {
  struct np_value value;
  uint32_t filter;
};

struct bucket {
  uint32_t *always;            /* owned */
  struct limit *below, *above; /* owned: below from the highest on, above from the lowest on */
  size_t always_count, below_count, above_count;
};

/* A pattern of a filter without literals: how the text begins that it takes. */
struct prefix {
  uint32_t filter;
  unsigned char field, len;
  char text[8];
};

struct np_filter_index {
  size_t count;
  struct np_map buckets;   /* key of a field's literal -> struct bucket */
  struct prefix *prefixes; /* owned: of filters without a literal; they are tried one by one, so they lie side by side */
  size_t prefix_count;
  struct bucket rest;       /* filters with neither */
  bool used[NP_F_TEXTS][2]; /* whether there are buckets of this field, without and with a metric */
  uint64_t *others
      [2]; /* owned: bits of the filters that do not take what vendors sent, and what rules derived; NULL where there are none */
};

/* Keys: a letter for the field, the metric, 0, the literal. */

static void make_key(struct np_buf *b, enum np_filter_field field, struct np_text metric, struct np_text literal) {
  np_buf_clear(b);
  np_buf_addc(b, (char)('a' + 2 * (int)field + (metric.ptr != NULL)));
  if (metric.ptr) np_buf_add(b, metric.ptr, metric.len);
  np_buf_addc(b, 0);
  if (literal.len) np_buf_add(b, literal.ptr, literal.len);
}

static struct np_text literal_of(const struct np_pattern *p) { return (struct np_text){p->text, p->len}; }

static bool is_literal(const struct np_filter *f, enum np_filter_field field) {
  if (!f->patterns[field]) return false;
  for (size_t i = 0; i < f->counts[field]; i++)
    if (f->patterns[field][i].star) return false;
  return true;
}

/* Filling */

static void add_id(uint32_t **list, size_t *count, uint32_t id) {
  if (!(*count & (*count - 1))) *list = np_realloc(*list, (*count ? 2 * *count : 1) * sizeof **list);
  (*list)[(*count)++] = id;
}

static void add_limit(struct limit **list, size_t *count, const struct np_value *value, uint32_t id) {
  if (!(*count & (*count - 1))) *list = np_realloc(*list, (*count ? 2 * *count : 1) * sizeof **list);
  (*list)[(*count)++] = (struct limit){*value, id};
}

static void put(struct bucket *b, const struct np_filter *f, uint32_t id) {
  bool limited = !f->margin_set && (f->below_set || f->above_set || f->outside_set);
  if (!limited) add_id(&b->always, &b->always_count, id);
  if (limited && (f->below_set || f->outside_set)) add_limit(&b->below, &b->below_count, &f->below, id);
  if (limited && (f->outside_set || !f->below_set)) add_limit(&b->above, &b->above_count, &f->above, id);
}

static struct bucket *bucket_of(struct np_filter_index *x, const struct np_buf *key) {
  struct bucket *b = np_map_get(&x->buckets, key->data, key->len);
  if (b) return b;
  b = np_alloc(sizeof *b);
  np_map_put(&x->buckets, key->data, key->len, b);
  return b;
}

static void put_by(struct np_filter_index *x, const struct np_filter *f, uint32_t id, enum np_filter_field field) {
  static const struct np_text none;
  struct np_buf key = {0};
  bool metric = field != NP_F_METRIC && is_literal(f, NP_F_METRIC) && f->counts[NP_F_METRIC] * f->counts[field] <= PAIRS_MAX;
  x->used[field][metric] = true;
  for (size_t m = 0; m < (metric ? f->counts[NP_F_METRIC] : 1); m++)
    for (size_t i = 0; i < f->counts[field]; i++) {
      make_key(&key, field, metric ? literal_of(&f->patterns[NP_F_METRIC][m]) : none, literal_of(&f->patterns[field][i]));
      put(bucket_of(x, &key), f, id);
    }
  np_buf_free(&key);
}

static size_t prefix_length(const struct np_pattern *p) {
  const char *star = memchr(p->text, '*', p->len);
  size_t len = star ? (size_t)(star - p->text) : p->len;
  return len < sizeof((struct prefix *)0)->text ? len : sizeof((struct prefix *)0)->text;
}

/* False where no field of the reading has to begin with something. */
static bool put_by_prefix(struct np_filter_index *x, const struct np_filter *f, uint32_t id) {
  for (int field = NP_F_METRIC; field <= NP_F_UNIT; field++) {
    size_t shortest = f->patterns[field] ? SIZE_MAX : 0;
    for (size_t i = 0; i < f->counts[field] && shortest; i++) {
      size_t len = prefix_length(&f->patterns[field][i]);
      if (len < shortest) shortest = len;
    }
    if (!shortest) continue;
    for (size_t i = 0; i < f->counts[field]; i++) {
      const struct np_pattern *p = &f->patterns[field][i];
      struct prefix *to;
      if (!(x->prefix_count & (x->prefix_count - 1)))
        x->prefixes = np_realloc(x->prefixes, (x->prefix_count ? 2 * x->prefix_count : 1) * sizeof *x->prefixes);
      to = &x->prefixes[x->prefix_count++];
      *to = (struct prefix){.filter = id, .field = (unsigned char)field, .len = (unsigned char)prefix_length(p)};
      memcpy(to->text, p->text, to->len);
    }
    return true;
  }
  return false;
}

/* How many filters ask for a literal: counted as a pointer's value. */
static void count_literals(struct np_map *counts, const struct np_filter *f) {
  static const struct np_text none;
  struct np_buf key = {0};
  for (int field = NP_F_METRIC + 1; field < NP_F_TEXTS; field++)
    for (size_t i = 0; is_literal(f, field) && i < f->counts[field]; i++) {
      make_key(&key, field, none, literal_of(&f->patterns[field][i]));
      uintptr_t n = (uintptr_t)np_map_get(counts, key.data, key.len);
      np_map_put(counts, key.data, key.len, (void *)(n + 1));
    }
  np_buf_free(&key);
}

/* The field whose literals fewest filters ask for; METRIC where it has no other. */
static enum np_filter_field rarest(const struct np_map *counts, const struct np_filter *f) {
  static const struct np_text none;
  enum np_filter_field best = NP_F_METRIC;
  uintptr_t least = UINTPTR_MAX;
  struct np_buf key = {0};
  for (int field = NP_F_METRIC + 1; field < NP_F_TEXTS; field++) {
    uintptr_t most = 0;
    if (!is_literal(f, field)) continue;
    for (size_t i = 0; i < f->counts[field]; i++) {
      make_key(&key, field, none, literal_of(&f->patterns[field][i]));
      uintptr_t n = (uintptr_t)np_map_get(counts, key.data, key.len);
      if (n > most) most = n;
    }
    if (most < least) least = most, best = field;
  }
  np_buf_free(&key);
  return best;
}

static void note_derived(struct np_filter_index *x, const struct np_filter *f, uint32_t id) {
  for (int derived = 0; derived < 2; derived++) {
    if (np_filter_takes_depth(f, derived)) continue;
    uint64_t **bits = &x->others[derived];
    if (!*bits) *bits = np_alloc(np_filter_index_words(x) * sizeof **bits);
    (*bits)[id / 64] |= UINT64_C(1) << id % 64;
  }
}

static int higher_first(const void *a, const void *b) {
  const struct limit *x = a, *y = b;
  return np_value_less(&y->value, &x->value) ? -1 : np_value_less(&x->value, &y->value);
}

static int lower_first(const void *a, const void *b) { return higher_first(b, a); }

static void sort(struct bucket *b) {
  if (b->below_count) qsort(b->below, b->below_count, sizeof *b->below, higher_first);
  if (b->above_count) qsort(b->above, b->above_count, sizeof *b->above, lower_first);
}

struct np_filter_index *np_filter_index_new(const struct np_filter *const *filters, size_t n) {
  struct np_filter_index *x = np_alloc(sizeof *x);
  struct np_map counts = {0};
  struct np_map_entry *e;
  x->count = n;
  for (size_t i = 0; i < n; i++) count_literals(&counts, filters[i]);
  for (size_t i = 0; i < n; i++) {
    enum np_filter_field field = rarest(&counts, filters[i]);
    note_derived(x, filters[i], (uint32_t)i);
    if (is_literal(filters[i], field))
      put_by(x, filters[i], (uint32_t)i, field);
    else if (!put_by_prefix(x, filters[i], (uint32_t)i))
      put(&x->rest, filters[i], (uint32_t)i);
  }
  np_map_free(&counts, NULL);
  sort(&x->rest);
  for (size_t i = 0; (e = np_map_next(&x->buckets, &i));) sort(e->value);
  return x;
}

static void free_lists(struct bucket *b) { free(b->always), free(b->below), free(b->above); }

static void free_bucket(void *bucket) {
  free_lists(bucket);
  free(bucket);
}

void np_filter_index_free(struct np_filter_index *x) {
  if (!x) return;
  np_map_free(&x->buckets, free_bucket);
  free_lists(&x->rest);
  free(x->prefixes);
  free(x->others[0]), free(x->others[1]);
  free(x);
}

/* Finding */

size_t np_filter_index_words(const struct np_filter_index *x) { return (x->count + 63) / 64; }

bool np_filter_index_wants_facts(const struct np_filter_index *x) {
  for (int field = NP_F_PLACE; field <= NP_F_TAG; field++)
    if (x->used[field][0] || x->used[field][1]) return true;
  return false;
}

static void set(uint64_t *bits, uint32_t id) { bits[id / 64] |= UINT64_C(1) << id % 64; }

static void take(const struct bucket *b, const struct np_value *v, uint64_t *bits) {
  for (size_t i = 0; i < b->always_count; i++) set(bits, b->always[i]);
  if (!np_value_is_number(v)) return;
  for (size_t i = 0; i < b->below_count && np_value_less(v, &b->below[i].value); i++) set(bits, b->below[i].filter);
  for (size_t i = 0; i < b->above_count && np_value_less(&b->above[i].value, v); i++) set(bits, b->above[i].filter);
}

static void take_prefixes(const struct np_filter_index *x, const struct np_reading *r, uint64_t *bits) {
  struct np_text texts[NP_F_UNIT + 1];
  for (int field = NP_F_METRIC; field <= NP_F_UNIT; field++) texts[field] = np_filter_text(r, field);
  for (const struct prefix *p = x->prefixes, *end = p + x->prefix_count; p < end; p++)
    if (p->len <= texts[p->field].len && memcmp(p->text, texts[p->field].ptr, p->len) == 0) set(bits, p->filter);
}

struct finding {
  const struct np_filter_index *x;
  const struct np_reading *r;
  struct np_buf key; /* owned */
  uint64_t *bits;
};

static void look_up(struct finding *l, enum np_filter_field field, struct np_text literal) {
  static const struct np_text none;
  for (int metric = 0; metric < 2; metric++) {
    if (!l->x->used[field][metric]) continue;
    make_key(&l->key, field, metric ? l->r->metric : none, literal);
    const struct bucket *b = np_map_get(&l->x->buckets, l->key.data, l->key.len);
    if (b) take(b, &l->r->value, l->bits);
  }
}

void np_filter_index_find(const struct np_filter_index *x, const struct np_reading *r, const struct np_facts *facts,
                          uint64_t *bits) {
  struct finding l = {.x = x, .r = r, .bits = bits};
  static const struct np_facts nothing;
  if (!facts) facts = &nothing;
  memset(bits, 0, np_filter_index_words(x) * sizeof *bits);
  take(&x->rest, &r->value, bits);
  if (x->prefix_count) take_prefixes(x, r, bits);
  for (int field = NP_F_METRIC; field <= NP_F_UNIT; field++) look_up(&l, field, np_filter_text(r, field));
  look_up(&l, NP_F_PLACE, facts->place);
  look_up(&l, NP_F_OWNER, facts->owner);
  for (size_t i = 0; i < facts->tag_count; i++) look_up(&l, NP_F_TAG, facts->tags[i]);
  const uint64_t *others = x->others[r->depth > 0];
  for (size_t word = 0; others && word < np_filter_index_words(x); word++) bits[word] &= ~others[word];
  np_buf_free(&l.key);
}
