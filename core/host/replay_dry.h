/* `neap replay --dry-run`: rules as their files stand, run over readings of a store, against what was sent in truth. In a process of its own, at a low priority:
 * the store may be in use, and is not changed. */
#ifndef NP_HOST_REPLAY_DRY_H
#define NP_HOST_REPLAY_DRY_H

#include "host/config.h"

struct np_replay_dry {
  struct np_config *config;                          /* borrowed */
  const char *store;                                 /* borrowed */
  const char *rule;                                  /* borrowed; NULL: all */
  const char *device, *metric, *vendor, *connection; /* borrowed: patterns; NULL: any */
  int64_t from, to;                                  /* ms, when readings were received; to 0: until now */
  bool json;
};
/* Prints what differs, and returns the process's exit code: 0, or 1 where something could not be run. */
int np_replay_dry(const struct np_replay_dry *options);

#endif
