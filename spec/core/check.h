/* A test program in C: CHECK(...) counts, check_end() prints the closing line and gives the exit code. */
#ifndef NP_SPEC_CHECK_H
#define NP_SPEC_CHECK_H

#include <stdio.h>

static int check_passed, check_failed;

#define CHECK(condition, ...)                                                                                                      \
  do {                                                                                                                             \
    if (condition) {                                                                                                               \
      check_passed++;                                                                                                              \
    } else {                                                                                                                       \
      check_failed++;                                                                                                              \
      fprintf(stderr, "%s:%d: failed: %s:", __FILE__, __LINE__, #condition);                                                       \
      fprintf(stderr, " " __VA_ARGS__);                                                                                            \
      fputc('\n', stderr);                                                                                                         \
    }                                                                                                                              \
  } while (0)

static int check_end(void) {
  printf("%d passed, %d failed\n", check_passed, check_failed);
  return check_failed != 0;
}

#endif
