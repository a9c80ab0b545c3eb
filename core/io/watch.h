/* Tells when files under some paths have changed, in whatever way: written, renamed over, a folder or a symbolic link swapped,
 * checked out by git, on a file system that inotify does not see. It tells only that something may have changed: who asked
 * looks again and compares contents. inotify makes it prompt; a look at names, inodes, sizes and times every half second makes it sure.
 * All functions: the loop's thread only. */
#ifndef NP_IO_WATCH_H
#define NP_IO_WATCH_H

#include "base/error.h"

struct event_base;
struct np_watch;

/* changed is called once things have been quiet for quiet_ms, or at the latest 10 * quiet_ms after the first change. */
struct np_watch *np_watch_new(struct event_base *base, int quiet_ms, void (*changed)(void *arg), void *arg, struct np_error *err);
/* A file, or a folder with all that is below it (following symbolic links, at most 8 deep, hidden names and *~ left out).
 * It need not exist yet. Adding a path twice does nothing. */
void np_watch_add(struct np_watch *w, const char *path);
void np_watch_quiet(struct np_watch *w, int quiet_ms); /* from the next change on */
void np_watch_free(struct np_watch *w);

#endif
