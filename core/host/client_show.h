/* Answers of the admin socket, for people. Private to the client. */
#ifndef NP_HOST_CLIENT_SHOW_H
#define NP_HOST_CLIENT_SHOW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct np_show;

/* quiet: nothing is printed, summaries are counted only. */
struct np_show *np_show_new(const char *command, bool colour, bool quiet);
/* One line of the answer, without its newline. -1 and err where it is no JSON object, or is the host's own error. Tables are printed when flushed. */
int np_show_line(struct np_show *s, const char *line, size_t len, struct np_error *err);
void np_show_flush(struct np_show *s);
long np_show_failed(const struct np_show *s); /* what the summary counted as failed */
void np_show_free(struct np_show *s);

#endif
