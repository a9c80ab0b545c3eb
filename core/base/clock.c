/* The clocks. */
#include "base/clock.h"

#include <stdatomic.h>
#include <time.h>

#define AHEAD_MS 60000
#define TEST_BEGINS_US 1000000000000 /* any moment */

static _Atomic int64_t test_now, test_mono; /* 0: the real ones count */

int64_t np_now_ms(void) {
  struct timespec t;
  int64_t test = atomic_load_explicit(&test_now, memory_order_relaxed);
  if (test) return test;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool np_is_ahead(int64_t ms) { return ms > np_now_ms() + AHEAD_MS; }

int64_t np_work_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t np_mono_us(void) {
  int64_t test = atomic_load_explicit(&test_mono, memory_order_relaxed);
  return test ? test : np_work_us();
}

void np_clock_set(int64_t now_ms) {
  atomic_store(&test_now, now_ms);
  atomic_store(&test_mono, now_ms ? TEST_BEGINS_US : 0);
}

void np_clock_move(int64_t ms) {
  atomic_fetch_add(&test_now, ms);
  atomic_fetch_add(&test_mono, ms * 1000);
}
