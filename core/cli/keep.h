/* The commands that take a store's content elsewhere. Each gives the process's exit code. */
#ifndef NP_CLI_KEEP_H
#define NP_CLI_KEEP_H

#include <stdint.h>

#include "cli/line.h"

int np_cli_backup(const struct np_line *l); /* a copy of the store in one file */
/* An option that is a time, or how long ago that is: 24h. Left as it is where it was not given; -1 where it is none, which has been told then. */
int np_cli_time(const struct np_line *l, enum option o, int64_t *ms);
int np_cli_export(const struct np_line *l); /* readings to standard output, as NDJSON or CSV */

#endif
