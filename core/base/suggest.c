/* Suggestions by the number of letters that differ, two that changed places counting as one. */
#include "base/suggest.h"

#include <string.h>

#define LONGEST 31

static int least(int a, int b) { return a < b ? a : b; }

static int edits(const char *a, size_t n, const char *b, size_t m) {
  int rows[LONGEST + 1][LONGEST + 1];
  for (size_t i = 0; i <= n; i++) rows[i][0] = (int)i;
  for (size_t j = 0; j <= m; j++) rows[0][j] = (int)j;
  for (size_t i = 1; i <= n; i++) {
    for (size_t j = 1; j <= m; j++) {
      int d = rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      d = least(d, least(rows[i - 1][j], rows[i][j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d = least(d, rows[i - 2][j - 2] + 1);
      rows[i][j] = d;
    }
  }
  return rows[n][m];
}

const char *np_suggest(const char *given, const char *const *words, size_t n) {
  const char *best = NULL;
  int best_distance = 3;
  size_t len = strlen(given);
  if (len == 0 || len > LONGEST) return NULL;
  for (size_t i = 0; i < n; i++) {
    size_t word_len = strlen(words[i]);
    if (word_len > LONGEST) continue;
    int distance = edits(given, len, words[i], word_len);
    if (len >= 3 && len < word_len && memcmp(given, words[i], len) == 0) distance = least(distance, 2);
    if (distance >= best_distance || (size_t)distance >= len) continue;
    best = words[i];
    best_distance = distance;
  }
  return best;
}
