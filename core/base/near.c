/* Optimal string alignment distance over short words. */
#include "base/near.h"

#include <string.h>

#define LONGEST 40

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t edits(const char *a, size_t na, const char *b, size_t nb) {
  size_t rows[3][LONGEST + 1];
  for (size_t j = 0; j <= nb; j++) rows[0][j] = j;
  for (size_t i = 1; i <= na; i++) {
    size_t *row = rows[i % 3];
    const size_t *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= nb; j++) {
      row[j] = least(least(up[j], row[j - 1]) + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = least(row[j], up2[j - 2] + 1);
    }
  }
  return rows[na % 3][nb];
}

const char *np_near(const char *given, size_t len, const char *const *words, size_t count) {
  const char *best = NULL;
  size_t distance = 3;
  if (len > LONGEST) return NULL;
  for (size_t i = 0; i < count; i++) {
    size_t n = strlen(words[i]);
    if (n > LONGEST) continue;
    size_t d = edits(given, len, words[i], n);
    if (d >= distance || d >= len || d >= n) continue;
    best = words[i];
    distance = d;
  }
  return best;
}
