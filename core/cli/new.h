/* neap new: a plugin and its spec, from the templates of core/new, which are compiled in. */
#ifndef NP_CLI_NEW_H
#define NP_CLI_NEW_H

#include "cli/line.h"

/* Gives the process's exit code: 0; 1 where nothing could be written; 2 where the words are wrong. */
int np_new(const struct np_line *l);

#endif
