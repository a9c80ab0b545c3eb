/* Times as text: RFC 3339 and what is near it, and patterns in the letters of Java and CLDR. Knows nothing of Lua.
 * Letters: yyyy MM dd HH mm ss SSS; XXX is Z or +08:00, XX Z or +0800, X Z, +08 or +0530. Text with letters stands in '…', '' is a quote,
 * and all else is itself. */
#ifndef NP_LIB_TIME_TEXT_H
#define NP_LIB_TIME_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/zone.h"

/* 0000-01-01 to 9999-12-31 UTC. */
#define NP_TIME_MIN (-62167219200000LL)
#define NP_TIME_MAX 253402300799999LL

struct np_time_fields {
  int year, month, day, hour, minute, second, ms;
  bool zoned;     /* the offset is known */
  int32_t offset; /* seconds ahead of UTC */
};

/* Says what is wrong with a pattern: -1 and err. A pattern to read with needs a year. */
int np_time_pattern_check(const char *pattern, size_t len, bool reads, struct np_error *err);
/* Reads text by a pattern that was checked, or (NULL) as RFC 3339 or one of its kin. 0, or -1 and err: "not a time: no day 31 in 2021-02". What has no
 * offset is a time in z, or where z is NULL none. */
int np_time_read(const char *text, size_t len, const char *pattern, size_t pattern_len, const struct np_zone *z, int64_t *ms,
                 struct np_error *err);
/* Whether the fields name a time that exists, and when it is: by their own offset, or in z. */
int np_time_join(const struct np_time_fields *f, const struct np_zone *z, int64_t *ms, struct np_error *err);
/* The fields there, with the offset of that moment. `whole`: the offset is cut to minutes (some had seconds before 1972) and the rest of
 * the fields fits it. */
struct np_time_fields np_time_split(int64_t ms, const struct np_zone *z, bool whole);
/* Appends the time by a pattern that was checked, or (NULL) as RFC 3339. ms is within two days of NP_TIME_MIN and NP_TIME_MAX; -1 where the
 * year is none of 0 to 9999 in z. */
int np_time_write(struct np_buf *out, int64_t ms, const char *pattern, size_t pattern_len, const struct np_zone *z);

#endif
