/* Random bytes. */
#include "base/random.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t test; /* of the test's generator, splitmix64; 0: the kernel's bytes */

static uint64_t next(void) {
  uint64_t z = test += 0x9e3779b97f4a7c15u;
  if (!test) test = 1;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void np_random_seed(uint64_t seed) { test = seed; }

bool np_random_seeded(void *to, size_t n) {
  if (!test) return false;
  for (char *at = to; n;) {
    uint64_t bytes = next();
    size_t some = n < sizeof bytes ? n : sizeof bytes;
    memcpy(at, &bytes, some);
    at += some, n -= some;
  }
  return true;
}

void np_random(void *to, size_t n) {
  if (np_random_seeded(to, n)) return;
  for (char *at = to; n;) {
    ssize_t got = getrandom(at, n, 0);
    if (got <= 0) abort();
    at += got, n -= (size_t)got;
  }
}

uint64_t np_random_number(void) {
  uint64_t n;
  np_random(&n, sizeof n);
  return n ? n : 1;
}
