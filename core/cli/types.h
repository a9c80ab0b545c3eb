/* Definitions of what plugins can call, for editors: made of the source's comments (spec/tools/types.lua), compiled in. */
#ifndef NP_CLI_TYPES_H
#define NP_CLI_TYPES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Writes FOLDER/neap/plugin.lua and the rest; folders are made. What is there and does not begin as such a file does is not overwritten.
 * -1 and err. */
int np_types_write(const char *folder, struct np_error *err);

/* Writes a file. fresh: only where none is there, errno is EEXIST then. -1 and err. */
int np_cli_write(const char *path, const char *text, size_t len, bool fresh, struct np_error *err);
/* Says that it was written: "wrote PATH", or {"wrote":PATH}. */
void np_cli_wrote(const char *path, bool json);
/* Makes the folder, and those that it stands in, where they are not there. -1 and err. */
int np_cli_folder(const char *path, struct np_error *err);

#endif
