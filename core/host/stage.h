/* `neap sandbox VENDOR`: a host of its own for somebody who writes against a vendor's API, with invented data and credentials to begin with.
 * What there is to show is the vendor plugin's: its command "sandbox" is called with { url = … } once the host listens, and returns
 * { credentials = { … }, example = "curl …" }. */
#ifndef NP_HOST_STAGE_H
#define NP_HOST_STAGE_H

#include <stdbool.h>

struct np_stage {
  const char *vendor; /* NULL: those that have a sandbox are told */
  const char *listen, *store,
      *plugins; /* NULL: a free port, a new folder that is removed at the end, ./plugins or the installed ones */
  int lanes;    /* 0: one for each core */
  bool json;    /* one line of JSON on standard output: url, vendor, the credentials' members, example, store */
};

/* Runs until a signal says stop. The process's exit code: 0; 1 where it cannot be had; 2 where there is no such sandbox. */
int np_stage_run(const struct np_stage *s);

#endif
