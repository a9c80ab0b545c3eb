/* `neap diff`: the files of two generations, compared by diff(1). */
#ifndef NP_HOST_CLIENT_DIFF_H
#define NP_HOST_CLIENT_DIFF_H

#include <stddef.h>

#include "base/error.h"

struct np_diff;
struct np_diff *np_diff_new(struct np_error *err); /* makes a folder for them. NULL and err where it cannot */
/* A line of the host's answer: a file, or the summary. -1 and err. */
int np_diff_line(struct np_diff *d, const char *line, size_t len, struct np_error *err);
/* Prints how they differ, in the unified form. 0 where they do not, 1 where they do, 2 and err where it cannot be told. */
int np_diff_show(struct np_diff *d, struct np_error *err);
void np_diff_free(struct np_diff *d); /* and removes its folder */

#endif
