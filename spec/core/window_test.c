/* Windows, against numbers that were worked out by hand, and against sums made another way. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "host/window.h"

#define MINUTE 60000

static bool near(double a, double b) { return fabs(a - b) <= 1e-9 * (1 + fabs(b)); }

static void test_numbers(void) {
  /* at minutes 0, 1, 2, 4 */
  struct np_sample s[] = {{0, 2}, {MINUTE, 4}, {2 * MINUTE, 4}, {4 * MINUTE, 10}}, rising[4];
  struct np_window w = {.whole = true};
  np_window_make(&w, s, rising, 4, 5 * MINUTE);
  CHECK(w.count == 4 && w.sum == 20 && w.mean == 5 && w.min == 2 && w.max == 10 && w.whole);
  CHECK(near(w.stdev, sqrt((9 + 1 + 1 + 25) / 3.0)), "%f", w.stdev);
  CHECK(w.moves && near(w.rate, 2), "%f", w.rate);
  /* times less their mean: -1.75 -0.75 0.25 2.25, values: -3 -1 -1 5 */
  CHECK(near(w.slope, (5.25 + 0.75 - 0.25 + 11.25) / (3.0625 + 0.5625 + 0.0625 + 5.0625)), "%f", w.slope);
  CHECK(np_window_percentile(&w, 0) == 2 && np_window_percentile(&w, 50) == 4 && np_window_percentile(&w, 100) == 10);
  CHECK(near(np_window_percentile(&w, 90), 4 + 0.7 * 6), "%f", np_window_percentile(&w, 90));
  CHECK(np_window_within(&w, 4, 10) == 3 && np_window_within(&w, 4, 9.99) == 2 && np_window_within(&w, 11, 12) == 0);
}

/* What lies on a reading is that reading, to the last bit. */
static void test_percentiles(void) {
  struct np_sample s[101], rising[101];
  struct np_window w = {0};
  for (int n = 2; n <= 101; n++) {
    s[n - 1] = (struct np_sample){n * MINUTE, n - 1};
    s[0] = (struct np_sample){0, 0};
    np_window_make(&w, s, rising, (size_t)n, n * MINUTE);
    bool exact = true;
    for (int p = 0; p <= 100; p++)
      if (p * (n - 1) % 100 == 0) exact = exact && np_window_percentile(&w, p) == p * (n - 1) / 100;
    CHECK(exact, "of %d", n);
  }
}

static void test_time(void) {
  struct np_sample s[] = {{0, 2}, {MINUTE, 4}, {10 * MINUTE, 6}}, rising[3];
  struct np_window w = {0};
  int64_t within, all;
  np_window_make(&w, s, rising, 3, 12 * MINUTE);
  np_window_time(&w, 4, 6, 5 * MINUTE, &within, &all); /* 1 minute of 2, 5 (of 9) of 4, 2 of 6 */
  CHECK(within == 7 * MINUTE && all == 8 * MINUTE);
  np_window_time(&w, 2, 2, 60 * MINUTE, &within, &all);
  CHECK(within == MINUTE && all == 12 * MINUTE);
  np_window_make(&w, s, rising, 1, 0); /* what is measured at its end stands for nothing */
  np_window_time(&w, 0, 9, MINUTE, &within, &all);
  CHECK(within == 0 && all == 0);
}

static void test_few(void) {
  struct np_sample s[] = {{5, 3}, {5, 9}}, rising[2];
  struct np_window w = {.whole = true};
  np_window_make(&w, s, rising, 0, 9);
  CHECK(w.count == 0 && w.sum == 0 && !w.moves);
  np_window_make(&w, s, rising, 1, 9);
  CHECK(w.count == 1 && w.mean == 3 && w.stdev == 0 && !w.moves && np_window_percentile(&w, 75) == 3);
  np_window_make(&w, s, rising, 2, 9);
  CHECK(!w.moves && w.mean == 6 && np_window_percentile(&w, 50) == 6, "two of one moment do not move");
}

/* The slope of a straight line is its own, wherever in time it stands. */
static void test_line(void) {
  enum { N = 500 };
  struct np_sample s[N], rising[N];
  struct np_window w = {0};
  for (int i = 0; i < N; i++) s[i] = (struct np_sample){INT64_C(1772352000000) + i * INT64_C(300000), 100 - 0.25 * i};
  np_window_make(&w, s, rising, N, s[N - 1].at);
  CHECK(near(w.slope, -0.05) && near(w.rate, -0.05), "%.17g %.17g", w.slope, w.rate);
  for (int i = 1; i < N; i++)
    if (rising[i].value < rising[i - 1].value) CHECK(false, "not in order at %d", i);
  CHECK(near(np_window_percentile(&w, 50), 100 - 0.25 * 249.5));
}

int main(void) {
  test_numbers();
  test_percentiles();
  test_time();
  test_few();
  test_line();
  return check_end();
}
