/* The commands that take a store's content elsewhere. Each gives the process's exit code. */
#ifndef NP_CLI_KEEP_H
#define NP_CLI_KEEP_H

#include "cli/line.h"

int np_cli_backup(const struct np_line *l); /* a copy of the store in one file */
int np_cli_export(const struct np_line *l); /* readings to standard output, as NDJSON or CSV */

#endif
