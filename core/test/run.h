/* neap test: finds specs, runs them, tells. */
#ifndef NP_TEST_RUN_H
#define NP_TEST_RUN_H

#include <stdbool.h>
#include <stddef.h>

struct np_test_options {
  const char *const *words; /* plugins' names, or files; count 0: all specs of the plugins */
  size_t count;
  const char *plugins; /* the folder; NULL: found by the words, or ./plugins */
  int seconds;         /* that one test may take; 0 is 20 */
  bool json;           /* an object for each test, then a summary */
  bool watch;          /* again whenever a file changes, until it is ended */
};

/* The exit code: 0 all passed, 1 some did not, or there are none. Closes with "N passed, N failed" on standard output. */
int np_test(const struct np_test_options *options);

#endif
