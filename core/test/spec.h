/* One spec file: a Lua state of its own, in the sandbox that plugins have, with the module neap.test and what busted's users know. */
#ifndef NP_TEST_SPEC_H
#define NP_TEST_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "host/sources.h"

struct np_test_result { /* borrowed during the call */
  const char *file;
  const char *name;  /* "low-glucose tells once" */
  int line;          /* of its `it`; 0 where the file itself does not load */
  const char *error; /* NULL: it passed */
  int64_t us;
};

struct np_spec_run {
  const struct np_sources *sources; /* borrowed */
  const char *plugins;              /* borrowed: the folder, for messages */
  const char *file;                 /* borrowed: as shown and opened */
  int seconds;                      /* real ones that a test may take; 0 is 20 */
  void (*told)(void *arg, const struct np_test_result *result);
  void *arg;
};

/* Runs all tests of the file. -1 and err where nothing could be run: no memory, no place for a store. */
int np_spec_run(const struct np_spec_run *run, struct np_error *err);

#endif
