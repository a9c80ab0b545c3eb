/* What the filter's files share: filter.c matches, filter_past.c looks at what came before, filter_compile.c reads Lua's tables, filter_why.c says why,
 * filter_index.c finds those that a reading may match. Private to them. */
#ifndef NP_HOST_FILTER_PARTS_H
#define NP_HOST_FILTER_PARTS_H

#include "base/arena.h"
#include "base/zone.h"
#include "host/filter.h"

/* The text fields, the one that tells most apart first: so are they matched. From PLACE on they are the device's. */
enum np_filter_field {
  NP_F_METRIC,
  NP_F_DEVICE,
  NP_F_VENDOR,
  NP_F_CONNECTION,
  NP_F_UNIT,
  NP_F_PLACE,
  NP_F_OWNER,
  NP_F_TAG,
  NP_F_TEXTS,
  NP_F_QUALITY = NP_F_TEXTS,
  NP_F_DERIVED,
  NP_F_BELOW,
  NP_F_ABOVE,
  NP_F_OUTSIDE,
  NP_F_MARGIN,
  NP_F_CHANGED,
  NP_F_RATE,
  NP_F_ZONE, /* before what is read by it */
  NP_F_FIRST,
  NP_F_HOURS,
  NP_F_WEEKDAYS,
  NP_F_COUNT
};
extern const char *const np_filter_fields[NP_F_COUNT];
extern const char *const np_weekdays[7]; /* "mon" first */

struct np_pattern {
  const char *text; /* in the arena */
  size_t len;
  bool star; /* it holds a `*` */
};

enum np_first { NP_FIRST_NOT, NP_FIRST_EVER, NP_FIRST_DAY, NP_FIRST_AFTER };
enum { NP_DAY_MINUTES = 1440 };

struct np_filter {
  struct np_arena arena;
  struct np_pattern *patterns[NP_F_TEXTS]; /* in the arena; NULL takes anything */
  size_t counts[NP_F_TEXTS];
  unsigned qualities;           /* bit of each np_quality that passes */
  bool qualified;               /* quality was given */
  bool derived_set, derived;    /* a rule derived it, or a vendor sent it */
  bool below_set, above_set;    /* both must hold */
  bool outside_set;             /* below or above: one of them */
  struct np_value below, above; /* of outside too: its lo and hi */
  bool margin_set;
  struct np_value margin, low_back,
      high_back; /* low_back: below + margin, from where on a low value has come back; high_back: above - margin */
  bool changed;
  bool rate_set, rate_below_set, rate_above_set;
  double rate_below, rate_above;
  int64_t per; /* ms */
  enum np_first first;
  int64_t first_ms; /* of NP_FIRST_AFTER */
  bool hours_set;
  unsigned char minutes[NP_DAY_MINUTES / 8];                  /* a bit for each minute of the day that is in hours */
  unsigned weekdays;                                          /* bits, Monday's lowest; 0: not given */
  const struct np_zone *zone;                                 /* NULL where not given */
  const char *zone_name, *hours_text, *first_text, *per_text; /* in the arena, as they were written */
  char hash[17];
};

/* Numbers of both kinds, without rounding an integer. NaN is neither. */
bool np_value_less(const struct np_value *a, const struct np_value *b);
static inline bool np_value_is_number(const struct np_value *v) { return v->type == NP_NUMBER_INT || v->type == NP_NUMBER_REAL; }
bool np_filter_takes(const struct np_filter *f, enum np_filter_field field, struct np_text text); /* one text field */
struct np_text np_filter_text(const struct np_reading *r, enum np_filter_field field);            /* METRIC to UNIT */
/* Whether it takes what rules derived, or what vendors sent, whichever it is. */
static inline bool np_filter_takes_depth(const struct np_filter *f, int depth) {
  return !f->derived_set || f->derived == (depth > 0);
}
bool np_filter_takes_facts(const struct np_filter *f, enum np_filter_field field,
                           const struct np_facts *facts); /* PLACE, OWNER, TAG */
/* Whether the value is inside what below, above and outside say: 'l' below, 'h' above, 'i' between two limits or where there are none; 0 where not. */
char np_filter_side(const struct np_filter *f, const struct np_value *v);
bool np_filter_is_back(const struct np_filter *f, const struct np_value *v, char side); /* come back by the margin from that side */
bool np_filter_clock(const struct np_filter *f, int64_t at);                            /* hours and weekdays */
/* What is remembered of a reading: a device whose clock is ahead must not have all that comes after it seem late. */
static inline int64_t np_filter_moment(const struct np_reading *r) { return r->at < r->received ? r->at : r->received; }
struct np_local {
  int64_t day;         /* since 1970-01-01 there */
  int minute, weekday; /* 0 is Monday */
};
struct np_local np_filter_local(const struct np_filter *f, int64_t at);

/* Each 1, 0, or -1 and err. */
int np_filter_changed(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *w, struct np_error *err);
/* 0 where there is nothing to compare with. */
int np_filter_rate(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *w, double *rate,
                   struct np_error *err);
bool np_filter_rate_fits(const struct np_filter *f, double rate);
bool np_filter_is_first(const struct np_filter *f, const struct np_reading *r, const struct np_memory *last);
double np_round_digits(double d, int digits); /* significant decimal digits */

#endif
