/* Which readings a rule's handler is for: matched in C, before Lua is entered.
 *
 * A filter is a table { metric =, device =, vendor =, connection =, unit =, place =, owner =, tag =, quality =, derived =, below =, above =, outside = { lo, hi },
 * margin =, changed = true, rate = { below =, above =, per = "1m" }, first =, hours = { "22:00", "06:00" }, weekdays = { "mon" }, zone = }. All that stand
 * must hold.
 *
 * - metric … tag, quality: a text, with `*` for any run of characters, or a list of such, of which any one. place, owner and tag are what is
 *   known of the device when the reading meets the filter; owner is the reference that its row has. One without a place or owner has "".
 * - derived: true takes what rules derived alone, false what vendors sent.
 * - below, above, outside: strict, numbers only; never rounded. With margin it fires on crossing, and again only after a reading that has come back
 *   by the margin, to the other side of the limit: `v >= below + margin`, `v <= above - margin`. Until it has fired (for the other fields do not let
 *   it yet) it stays ready. What goes from below a range to above it has come back on its way. Where nothing is remembered it is ready.
 *   The readings that count are those of the same device and metric that fit the fields of the first line. Late ones: what was measured before the
 *   reading that it last changed at is passed over, neither firing nor changing it; what lies behind that counts like any other.
 * - changed, rate: against the reading measured before it (for rate, at an earlier moment and in the same unit; both numbers) of the same device and
 *   metric that fits unit, connection and quality, among those that were stored before it. A late reading is compared with the one before it in time, and
 *   does not make later ones be looked at again. Without one before it, a reading has changed, and has no rate. A rate is per `per`, rounded to 12 digits.
 * - first: "ever", "day" (of the calendar, in zone) or a duration: of one device, the first reading that fits all the rest; then the first of a later
 *   day, or the first measured so long after the one that it fired at. What was measured before that one does not fire.
 * - hours, weekdays: of the clock and calendar in zone at the moment `at`, when it was measured. hours are from, included, to, excluded, also past
 *   midnight; or a list of such pairs. A night's second half belongs to the next day.
 *
 * What says that it was measured later than it was received counts for margin and first as measured when it was received.
 *
 * What is remembered is a function of the readings and of what was remembered before alone: nothing looks at a clock. */
#ifndef NP_HOST_FILTER_H
#define NP_HOST_FILTER_H

#include <stdbool.h>

#include <lua.h>

#include "base/buf.h"
#include "base/error.h"
#include "store/store.h"
#include "store/writeset.h"

struct np_filter; /* immutable once compiled */

/* NULL and err: "filter: unknown field \"metrik\", did you mean \"metric\"?". Raises only out of memory. */
struct np_filter *np_filter_compile(lua_State *L, int idx, struct np_error *err);
void np_filter_free(struct np_filter *f);
/* 16 hex digits that are the same for filters that say the same, in every run. */
const char *np_filter_hash(const struct np_filter *f);

/* What is known of a device. Borrowed. */
struct np_facts {
  struct np_text place, owner; /* absent or "" where it has none */
  const struct np_text *tags;
  size_t tag_count;
};

/* What a filter remembers: of each device and metric whether it has fired (margin), of each device when it last did (first). */
enum np_memory_kind { NP_MEMORY_MARGIN, NP_MEMORY_FIRST };
struct np_memory {
  char
      mark; /* margin: 'r' ready, 'l' fired below, 'h' fired above, 'i' fired inside of two limits; first: 'f' fired; 0: nothing is remembered */
  int64_t at; /* of the reading that made it so; when it was received, where it says that it is of a later moment */
};

/* What a filter may have to know besides the reading; asked only for what decides. A function that is NULL knows nothing of it; -1 and err: it cannot be
 * known now. */
struct np_filter_world {
  /* Of the reading's device; NULL in *facts where nothing is known. */
  int (*facts)(void *arg, const struct np_reading *r, const struct np_facts **facts, struct np_error *err);
  /* Readings of r's vendor, device and metric with at <= to that were stored before r, newest `at` first, until fn returns false. */
  int (*before)(void *arg, const struct np_reading *r, int64_t to, np_reading_fn *fn, void *fn_arg, struct np_error *err);
  int (*recall)(void *arg, const struct np_reading *r, enum np_memory_kind kind, struct np_memory *m, struct np_error *err);
  void (*keep)(void *arg, const struct np_reading *r, enum np_memory_kind kind, const struct np_memory *m);
  void *arg;
};

/* 1 where the filter fires, 0 where not, -1 and err where it cannot be known. What it remembers from now on has been given to world->keep. */
int np_filter_run(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *world, struct np_error *err);
/* The same without a world: only what the reading itself says, that is everything but place, owner, tag, margin, changed, rate and first. */
bool np_filter_match(const struct np_filter *f, const struct np_reading *r);

/* Whether it may ever take a reading of that metric that the rule derived: all that the rule's code does not fix is taken to fit. */
bool np_filter_may_take_derived(const struct np_filter *f, const char *metric, const char *rule);

/* What it needs a world for. */
enum {
  NP_FILTER_FACTS = 1,  /* place, owner or tag */
  NP_FILTER_PAST = 2,   /* changed or rate */
  NP_FILTER_MARGIN = 4, /* it remembers by device and metric */
  NP_FILTER_FIRST = 8,  /* it remembers by device */
};
unsigned np_filter_needs(const struct np_filter *f);

/* Why it fires or does not: each of its fields with a sentence, such as ("below", NP_WHY_NO, "4.1 is not below 3.9"). UNKNOWN: it depends on what the
 * world does not tell. Nothing is kept. The whole: NO where any is NO, else UNKNOWN where any is. */
enum np_why { NP_WHY_NO, NP_WHY_YES, NP_WHY_UNKNOWN };
typedef void np_why_fn(void *arg, const char *field, enum np_why why, const char *sentence);
enum np_why np_filter_why(const struct np_filter *f, const struct np_reading *r, const struct np_filter_world *world, np_why_fn *fn,
                          void *arg);

/* Shell-like matching with `*` alone; linear time. */
bool np_glob_match(const char *pattern, size_t pattern_len, const char *text, size_t len);

#endif
