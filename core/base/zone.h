/* Time zones: the IANA database as it is installed (TZif files, RFC 8536), and fixed offsets. A zone is read once, never changes and lives as
 * long as the process; np_zone_get takes a lock, all else is free of locks. Any thread. Also the calendar (Gregorian, also before 1582). */
#ifndef NP_BASE_ZONE_H
#define NP_BASE_ZONE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct np_zone;

/* The zone of a name such as "Asia/Shanghai", "UTC", "Z" or "+08:00"; NULL and err: "zone 'Asia/Nowhere': there is none of this name". Files come
 * from $TZDIR or /usr/share/zoneinfo, and a name cannot lead out of there. */
const struct np_zone *np_zone_get(const char *name, size_t len, struct np_error *err);
/* Seconds that local time is ahead of UTC at that moment (seconds since 1970 UTC). */
int32_t np_zone_offset(const struct np_zone *z, int64_t utc);
/* The moment at which clocks there show this local time, given in seconds as if it were UTC. As RFC 5545 reads it: a time that clocks skip
 * is read with the offset before the gap; of a time that comes twice the first is meant. */
int64_t np_zone_utc(const struct np_zone *z, int64_t local);

struct np_date {
  int64_t year;
  int month, day; /* from 1 */
};

/* Days since 1970-01-01, and back. */
int64_t np_days(int64_t year, int month, int day);
struct np_date np_date(int64_t days);
int np_month_days(int64_t year, int month);

#endif
