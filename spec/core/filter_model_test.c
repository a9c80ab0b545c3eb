/* Filters against an oracle that is as simple as can be: it looks at everything again for each reading, counts in tenths and asks the C library for the clock.
 * Also: what the index leaves out says no and remembers nothing, and np_filter_why comes to the same as np_filter_run. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lauxlib.h>

#include "check.h"
#include "host/filter_index.h"

enum { FILTERS = 24, READINGS = 80, ROUNDS = 400, DEVICES = 4, METRICS = 3, TEXTS = 8 };

/* Millions of these would hide the other tests' numbers: a round counts as one. */
static bool round_good;
#define EXPECT(condition, ...)                                                                                                     \
  do {                                                                                                                             \
    if (!(condition)) {                                                                                                            \
      if (round_good) CHECK(condition, __VA_ARGS__);                                                                               \
      round_good = false;                                                                                                          \
    }                                                                                                                              \
  } while (0)

static uint64_t state = 20260302;
static unsigned below(unsigned n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(state >> 33) % n;
}
static bool chance(unsigned percent) { return below(100) < percent; }

/* What the texts of readings, devices and filters are drawn from. */
static const char *const pools[TEXTS][5] = {
    {"glucose", "ketone", "gluco", NULL},
    {"d-1", "d-2", "e-1", "x", NULL},
    {"acme", "bolt", NULL},
    {"ward-1", "ward-2", NULL},
    {"mmol/L", "mg/dL", "", NULL},
    {"icu-1", "icu-2", "hall", "", NULL},
    {"p_1", "p_2", "", NULL},
    {"icu", "vip", "night", "x", NULL},
};
static const char *const names[TEXTS] = {"metric", "device", "vendor", "connection", "unit", "place", "owner", "tag"};
static const char *const globs[TEXTS][3] = {
    {"gluco*", "*e", "*"}, {"d-*", "*-1", "*"},  {"*", "a*e", "b*"}, {"ward-*", "*2", "w*1*"},
    {"m*", "*/*", "*"},    {"icu-*", "*l", "*"}, {"p_*", "*1", "*"}, {"*i*", "v*", "*"},
};

struct spec {
  const char *texts[TEXTS][3];
  int counts[TEXTS];
  unsigned qualities;
  int derived; /* 0 not given, 1 false, 2 true */
  bool below_set, above_set, outside_set, margin_set, changed, rate_below_set, rate_above_set;
  int low, high, margin, rate_low, rate_high, per_minutes; /* tenths; of rates, tenths a period */
  int first;                                               /* 0 none, 1 ever, 2 day, else minutes */
  int hours[2], weekdays;
  const char *zone;
  struct np_filter *filter;
  char source[1500];
  /* the oracle's own memory */
  char fired[DEVICES][METRICS];
  int64_t since[DEVICES][METRICS], first_at[DEVICES];
  bool known[DEVICES][METRICS], first_known[DEVICES];
  /* the filter's, as a store would have it */
  struct np_memory margins[DEVICES][METRICS], firsts[DEVICES];
  bool kept;
};

struct seen {
  struct np_reading r;
  int device, metric, tenths; /* the value, where it is a number */
  bool number;
};

static struct spec specs[FILTERS];
static struct seen seen[READINGS];
static int seen_count;
static struct np_facts facts[DEVICES];
static struct np_text tags[DEVICES][4];

static struct np_text text(const char *s) { return (struct np_text){s, strlen(s)}; }

/* Random filters, as Lua's source. */

static void addf(struct spec *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void addf(struct spec *s, const char *format, ...) {
  size_t len = strlen(s->source);
  va_list args;
  va_start(args, format);
  vsnprintf(s->source + len, sizeof s->source - len, format, args);
  va_end(args);
}

static void draw_texts(struct spec *s, int field) {
  int n = 0, in_pool = 0;
  while (in_pool < 5 && pools[field][in_pool]) in_pool++;
  s->counts[field] = chance(70) ? 1 : 1 + (int)below(3);
  addf(s, "%s = {", names[field]);
  for (; n < s->counts[field]; n++) {
    s->texts[field][n] = chance(25) ? globs[field][below(3)] : pools[field][below((unsigned)in_pool)];
    addf(s, "'%s',", s->texts[field][n]);
  }
  addf(s, "}, ");
}

static void draw_limits(struct spec *s) {
  s->low = 30 + (int)below(20), s->high = s->low + (int)below(40);
  switch (below(5)) {
  case 0:
    s->below_set = true;
    addf(s, "below = %.1f, ", s->low / 10.0);
    break;
  case 1:
    s->above_set = true;
    addf(s, "above = %.1f, ", s->high / 10.0);
    break;
  case 2:
    s->outside_set = true;
    addf(s, "outside = { %.1f, %.1f }, ", s->low / 10.0, s->high / 10.0);
    break;
  case 3: /* a range: above its lower and below its upper limit */
    s->below_set = s->above_set = true;
    s->high = 30 + (int)below(20), s->low = s->high + 1 + (int)below(40);
    addf(s, "below = %.1f, above = %.1f, ", s->low / 10.0, s->high / 10.0);
    break;
  default: return;
  }
  if (!chance(50)) return;
  s->margin_set = true;
  s->margin = (int)below(12);
  if (s->outside_set && s->margin > s->high - s->low) s->margin = s->high - s->low;
  if (s->margin % 10 == 0)
    addf(s, "margin = %d, ", s->margin / 10);
  else
    addf(s, "margin = %.1f, ", s->margin / 10.0);
}

static void draw(struct spec *s) {
  memset(s, 0, sizeof *s);
  strcpy(s->source, "return { ");
  for (int i = 0; i < TEXTS; i++)
    if (chance(i == 0 ? 70 : 15)) draw_texts(s, i);
  if (chance(20)) {
    s->qualities = 1 + below(7);
    addf(s, "quality = {");
    for (int q = 0; q < 3; q++)
      if (s->qualities >> q & 1) addf(s, "'%s',", np_quality_names[q]);
    addf(s, "}, ");
  }
  if (chance(20)) {
    s->derived = 1 + (int)below(2);
    addf(s, "derived = %s, ", s->derived == 2 ? "true" : "false");
  }
  draw_limits(s);
  if (chance(15)) s->changed = true, addf(s, "changed = true, ");
  if (chance(15)) {
    s->rate_low = (int)below(20) - 10, s->rate_high = s->rate_low - 1 - (int)below(10);
    s->rate_below_set = chance(50), s->rate_above_set = !s->rate_below_set || chance(30);
    s->per_minutes = 1 + (int)below(3);
    addf(s, "rate = { per = '%dm', ", s->per_minutes);
    if (s->rate_below_set) addf(s, "below = %.1f, ", s->rate_low / 10.0);
    if (s->rate_above_set) addf(s, "above = %.1f, ", s->rate_high / 10.0);
    addf(s, "}, ");
  }
  static const char *const zones[] = {"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"};
  if (chance(25)) {
    s->first = (int)below(4) + 1;
    if (s->first == 3) s->first = 3 + (int)below(100);
    if (s->first == 4) s->first = 1500;
    addf(s, s->first == 1 ? "first = 'ever', " : s->first == 2 ? "first = 'day', " : "first = '%dm', ", s->first);
  }
  if (chance(15)) {
    do s->hours[0] = (int)below(1440), s->hours[1] = (int)below(1441);
    while (s->hours[0] == s->hours[1]);
    addf(s, "hours = { '%02d:%02d', '%02d:%02d' }, ", s->hours[0] / 60, s->hours[0] % 60, s->hours[1] / 60, s->hours[1] % 60);
  }
  if (chance(15)) {
    static const char *const days[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
    s->weekdays = 1 + (int)below(127);
    addf(s, "weekdays = {");
    for (int d = 0; d < 7; d++)
      if (s->weekdays >> d & 1) addf(s, "'%s',", days[d]);
    addf(s, "}, ");
  }
  if (s->first == 2 || s->hours[1] || s->hours[0] || s->weekdays) s->zone = zones[below(4)], addf(s, "zone = '%s' ", s->zone);
  addf(s, "}");
}

/* The oracle. */

static bool glob(const char *p, const char *t) {
  if (!*p) return !*t;
  if (*p == '*') return glob(p + 1, t) || (*t && glob(p, t + 1));
  return *p == *t && glob(p + 1, t + 1);
}

static bool takes(const struct spec *s, int field, struct np_text t) {
  for (int i = 0; i < s->counts[field]; i++)
    if (glob(s->texts[field][i], t.ptr ? t.ptr : "")) return true;
  return !s->counts[field];
}

static bool takes_tag(const struct spec *s, int device) {
  for (size_t i = 0; i < facts[device].tag_count; i++)
    if (takes(s, 7, facts[device].tags[i])) return true;
  return !s->counts[7];
}

static struct tm local(const struct spec *s, int64_t at) {
  struct tm tm;
  time_t t = (time_t)(at / 1000);
  setenv("TZ", s->zone ? s->zone : "UTC", 1);
  tzset();
  localtime_r(&t, &tm);
  return tm;
}

static bool in_hours(const struct spec *s, int64_t at) {
  if (!s->zone) return true;
  struct tm tm = local(s, at);
  int m = tm.tm_hour * 60 + tm.tm_min;
  if (s->weekdays && !(s->weekdays >> tm.tm_wday & 1)) return false;
  if (!s->hours[0] && !s->hours[1]) return true;
  return s->hours[0] < s->hours[1] ? m >= s->hours[0] && m < s->hours[1] : m >= s->hours[0] || m < s->hours[1];
}

/* 'l', 'h', 'i' or 0 */
static char side(const struct spec *s, const struct seen *v) {
  if (!s->below_set && !s->above_set && !s->outside_set) return 'i';
  if (!v->number) return 0;
  if (s->outside_set) return v->tenths < s->low ? 'l' : v->tenths > s->high ? 'h' : 0;
  if (s->below_set && s->above_set) return v->tenths < s->low && v->tenths > s->high ? 'i' : 0;
  if (s->below_set) return v->tenths < s->low ? 'l' : 0;
  return v->tenths > s->high ? 'h' : 0;
}

static bool back(const struct spec *s, const struct seen *v, char from) {
  bool up = v->tenths >= s->low + s->margin, down = v->tenths <= s->high - s->margin;
  return v->number && (from == 'l' ? up : from == 'h' ? down : up || down);
}

static bool same_series(const struct seen *a, const struct seen *b) {
  return a->device == b->device && a->metric == b->metric && strcmp(a->r.vendor.ptr, b->r.vendor.ptr) == 0;
}

/* The one measured before v that the filter looks at; NULL where none. Later `at` first, then later seq. */
static const struct seen *before(const struct spec *s, const struct seen *v, bool for_rate) {
  const struct seen *best = NULL;
  for (const struct seen *b = seen; b < v; b++) {
    if (!same_series(b, v) || b->r.at > v->r.at - for_rate) continue;
    if (s->derived && (s->derived == 2) != (b->r.depth > 0)) continue;
    if (!takes(s, 3, b->r.connection) || !takes(s, 4, b->r.unit) || (s->qualities && !(s->qualities >> b->r.quality & 1))) continue;
    if (for_rate && (!b->number || strcmp(b->r.unit.ptr, v->r.unit.ptr) != 0)) continue;
    if (!best || b->r.at >= best->r.at) best = b;
  }
  return best;
}

static bool has_changed(const struct spec *s, const struct seen *v) {
  const struct seen *b = before(s, v, false);
  if (!b || b->number != v->number) return true;
  return v->number ? v->tenths != b->tenths : strcmp(v->r.value.s.ptr, b->r.value.s.ptr) != 0;
}

static bool rate_fits(const struct spec *s, const struct seen *v) {
  const struct seen *b = v->number ? before(s, v, true) : NULL;
  if (!b) return false;
  int64_t rise = (int64_t)(v->tenths - b->tenths) * s->per_minutes * 60000, over = v->r.at - b->r.at;
  return (!s->rate_below_set || rise < s->rate_low * over) && (!s->rate_above_set || rise > s->rate_high * over);
}

/* What is of the future counts as measured when it came. */
static int64_t moment(const struct seen *v) { return v->r.at > v->r.received ? v->r.received : v->r.at; }

static bool is_first(const struct spec *s, const struct seen *v) {
  int64_t last = s->first_at[v->device];
  if (!s->first || !s->first_known[v->device]) return true;
  if (s->first == 1 || moment(v) < last) return false;
  if (s->first > 2) return moment(v) - last >= (int64_t)s->first * 60000;
  struct tm a = local(s, moment(v)), b = local(s, last);
  return a.tm_year != b.tm_year || a.tm_yday != b.tm_yday;
}

static bool oracle(struct spec *s, const struct seen *v) {
  const struct np_text texts[] = {
      v->r.metric, v->r.device, v->r.vendor, v->r.connection, v->r.unit, facts[v->device].place, facts[v->device].owner};
  for (int i = 0; i < 7; i++)
    if (!takes(s, i, texts[i])) return false;
  if (s->derived && (s->derived == 2) != (v->r.depth > 0)) return false;
  if (!takes_tag(s, v->device) || (s->qualities && !(s->qualities >> v->r.quality & 1))) return false;
  char now = side(s, v), *fired = &s->fired[v->device][v->metric];
  int64_t *since = &s->since[v->device][v->metric];
  bool *known = &s->known[v->device][v->metric];
  if (s->margin_set && *known && moment(v) < *since) return false;
  if (s->margin_set && *fired && back(s, v, *fired)) *fired = 0, *since = moment(v), *known = true;
  if (!now || (s->margin_set && *fired) || !in_hours(s, v->r.at) || !is_first(s, v)) return false;
  if ((s->changed && !has_changed(s, v)) || ((s->rate_below_set || s->rate_above_set) && !rate_fits(s, v))) return false;
  if (s->margin_set) *fired = now, *since = moment(v), *known = true;
  if (s->first) s->first_known[v->device] = true, s->first_at[v->device] = moment(v);
  return true;
}

/* The world of a filter. */

static const struct seen *seen_of(const struct np_reading *r) { return &seen[r->seq - 1]; }

static int tell_facts(void *arg, const struct np_reading *r, const struct np_facts **out, struct np_error *err) {
  (void)arg, (void)err;
  *out = &facts[seen_of(r)->device];
  return 0;
}

static int tell_before(void *arg, const struct np_reading *r, int64_t to, np_reading_fn *fn, void *fn_arg, struct np_error *err) {
  (void)arg, (void)err;
  const struct seen *v = seen_of(r), *list[READINGS];
  int n = 0;
  for (const struct seen *b = seen; b < v; b++) {
    if (!same_series(b, v) || b->r.at > to) continue;
    int i = n++;
    for (; i && list[i - 1]->r.at <= b->r.at; i--) list[i] = list[i - 1];
    list[i] = b;
  }
  for (int i = 0; i < n && fn(fn_arg, &list[i]->r); i++) {}
  return 0;
}

static struct np_memory *memory_of(struct spec *s, const struct np_reading *r, enum np_memory_kind kind) {
  const struct seen *v = seen_of(r);
  return kind == NP_MEMORY_MARGIN ? &s->margins[v->device][v->metric] : &s->firsts[v->device];
}

static int recall(void *arg, const struct np_reading *r, enum np_memory_kind kind, struct np_memory *m, struct np_error *err) {
  (void)err;
  *m = *memory_of(arg, r, kind);
  return 0;
}

static void keep(void *arg, const struct np_reading *r, enum np_memory_kind kind, const struct np_memory *m) {
  struct spec *s = arg;
  *memory_of(s, r, kind) = *m;
  s->kept = true;
}

/* Readings: mostly in order, some late or of the future, of few devices, around the limits. A device is of one vendor. */

static const char *pick(int field, unsigned n) { return pools[field][below(n)]; }

static void draw_reading(int64_t *clock) {
  static const char *const words[] = {"on", "off"};
  struct seen *v = &seen[seen_count++];
  *clock += (int64_t)below(3) == 0 ? (int64_t)below(40 * 3600) * 1000 : (int64_t)below(6) * 60000;
  *v = (struct seen){
      .device = (int)below(DEVICES), .metric = (int)below(METRICS), .number = chance(95), .tenths = 25 + (int)below(70)};
  int64_t at = chance(15) ? *clock - (int64_t)below(600) * 60000 : chance(5) ? *clock + (int64_t)below(6000) * 60000 : *clock;
  v->r = (struct np_reading){.seq = seen_count,
                             .metric = text(pools[0][v->metric]),
                             .device = text(pools[1][v->device]),
                             .vendor = text(pools[2][v->device % 2]),
                             .connection = text(pick(3, 2)),
                             .unit = text(chance(90) ? "mmol/L" : pick(4, 3)),
                             .quality = chance(85) ? NP_VALID : (enum np_quality)below(3),
                             .at = at,
                             .received = *clock,
                             .depth = chance(20) ? 1 + (int)below(3) : 0};
  if (!v->number)
    v->r.value = (struct np_value){.type = NP_STRING, .s = text(words[below(2)])};
  else if (v->tenths % 10 == 0)
    v->r.value = (struct np_value){.type = NP_NUMBER_INT, .i = v->tenths / 10};
  else
    v->r.value = (struct np_value){.type = NP_NUMBER_REAL,
                                   .d = strtod((char[]){(char)('0' + v->tenths / 10), '.', (char)('0' + v->tenths % 10), 0}, NULL)};
}

static void draw_facts(int device) {
  facts[device] = (struct np_facts){.place = text(pick(5, 4)), .owner = text(pick(6, 3)), .tags = tags[device]};
  while (chance(50) && facts[device].tag_count < 4) tags[device][facts[device].tag_count++] = text(pick(7, 4));
}

static void sentence(void *arg, const char *field, enum np_why why, const char *said) {
  (void)why;
  EXPECT(*field && *said, "%s: %s", (const char *)arg, field);
}

static void check_reading(const struct np_filter_index *index, const struct seen *v, int *yes) {
  uint64_t bits[(FILTERS + 63) / 64];
  np_filter_index_find(index, &v->r, &facts[v->device], bits);
  for (int i = 0; i < FILTERS; i++) {
    struct spec *s = &specs[i];
    struct np_filter_world w = {.facts = tell_facts, .before = tell_before, .recall = recall, .keep = keep, .arg = s};
    struct np_error err;
    s->kept = false;
    enum np_why why = np_filter_why(s->filter, &v->r, &w, sentence, s->source);
    EXPECT(!s->kept, "%s: asking why changes nothing", s->source);
    int fires = np_filter_run(s->filter, &v->r, &w, &err);
    bool expected = oracle(s, v);
    EXPECT(fires == expected, "%s\n  reading %d: %d, expected %d", s->source, (int)v->r.seq, fires, expected);
    EXPECT(why == (fires ? NP_WHY_YES : NP_WHY_NO), "%s\n  reading %d: why says %d", s->source, (int)v->r.seq, why);
    bool found = bits[i / 64] >> i % 64 & 1;
    EXPECT(found || (!fires && !s->kept), "%s\n  reading %d: the index leaves it out", s->source, (int)v->r.seq);
    *yes += fires;
  }
}

static void check_round(lua_State *L, int *yes) {
  const struct np_filter *filters[FILTERS];
  struct np_error err;
  round_good = true;
  int64_t clock = 1774000000000 + (int64_t)below(86400) * 1000; /* days before clocks change in Berlin */
  for (int i = 0; i < FILTERS; i++) {
    struct spec *s = &specs[i];
    draw(s);
    lua_settop(L, 0);
    EXPECT(luaL_dostring(L, s->source) == LUA_OK, "%s", s->source);
    s->filter = np_filter_compile(L, -1, &err);
    struct np_filter *again = np_filter_compile(L, -1, &err);
    EXPECT(s->filter && again, "%s: %s", s->source, err.text);
    if (!s->filter || !again) exit(check_end());
    EXPECT(strcmp(np_filter_hash(s->filter), np_filter_hash(again)) == 0, "%s", s->source);
    np_filter_free(again);
    filters[i] = s->filter;
  }
  struct np_filter_index *index = np_filter_index_new(filters, FILTERS);
  for (int d = 0; d < DEVICES; d++) draw_facts(d);
  seen_count = 0;
  for (int i = 0; i < READINGS; i++) {
    draw_reading(&clock);
    if (chance(5)) draw_facts((int)below(DEVICES));
    check_reading(index, &seen[i], yes);
  }
  if (round_good) check_passed++;
  np_filter_index_free(index);
  for (int i = 0; i < FILTERS; i++) np_filter_free(specs[i].filter);
}

int main(void) {
  lua_State *L = luaL_newstate();
  int yes = 0;
  for (int i = 0; i < ROUNDS; i++) check_round(L, &yes);
  CHECK(yes > 5000, "filters fire now and then: %d", yes);
  lua_close(L);
  return check_end();
}
