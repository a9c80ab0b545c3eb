/* Durations as people write them: "15m", "1h30m", "250ms", "2d", "45s", "1w"; a bare number is seconds. */
#ifndef NP_BASE_DURATION_H
#define NP_BASE_DURATION_H

#include <stddef.h>
#include <stdint.h>

/* 0 and *ms (0 to 100 years), or -1 where s is no duration. */
int np_duration_parse(const char *s, size_t n, int64_t *ms);

#endif
