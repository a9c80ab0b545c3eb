/* neap import: readings from a file into the store. */
#ifndef NP_CLI_IMPORT_H
#define NP_CLI_IMPORT_H

#include "cli/line.h"

int np_cli_import(const struct np_line *l); /* the process's exit code */

#endif
