/* Is somebody in the middle of changing the plugins? What tools leave while they write says so: git its index.lock, rsync its temporary files,
 * and for every other tool there is a file named .hold in the folder of plugins. */
#ifndef NP_HOST_UNFINISHED_H
#define NP_HOST_UNFINISHED_H

#include <stdbool.h>

#include "base/buf.h"

/* True, and what says so, where there is a sign of it below root (or of git, in a folder that root is in) that is younger than ms: what is
 * older was left behind. */
bool np_unfinished(const char *root, int ms, struct np_buf *sign);

#endif
