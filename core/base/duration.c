/* Reads durations. */
#include "base/duration.h"

#include <string.h>

#define MAX_MS (100LL * 366 * 86400 * 1000)

static int64_t unit_ms(const char *s, size_t n) {
  static const struct {
    const char *name;
    int64_t ms;
  } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"w", 604800000}};
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (strlen(units[i].name) == n && memcmp(units[i].name, s, n) == 0) return units[i].ms;
  return 0;
}

int np_duration_parse(const char *s, size_t n, int64_t *ms) {
  const char *end = s + n;
  double total = 0;
  if (s == end) return -1;
  while (s < end) {
    double value = 0, scale = 1;
    const char *digits = s;
    for (; s < end && *s >= '0' && *s <= '9'; s++) value = value * 10 + (*s - '0');
    if (s == digits) return -1;
    if (s < end && *s == '.') {
      const char *fraction = ++s;
      for (; s < end && *s >= '0' && *s <= '9'; s++) value += (*s - '0') * (scale /= 10);
      if (s == fraction) return -1;
    }
    const char *name = s;
    while (s < end && *s >= 'a' && *s <= 'z') s++;
    int64_t unit = unit_ms(name, (size_t)(s - name));
    if (s == name && s == end && digits == end - n) unit = 1000; /* a bare number */
    if (!unit || value > 1e15) return -1;
    total += value * (double)unit;
  }
  if (total > (double)MAX_MS) return -1;
  *ms = (int64_t)(total + 0.5);
  return 0;
}
