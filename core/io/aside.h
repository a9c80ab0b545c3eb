/* Work that may block, on a thread of its own: a disk that hangs or a name that is not found holds up the one who waits for it, and nobody else.
 * The loop and the thread share the job; who leaves last frees it. */
#ifndef NP_IO_ASIDE_H
#define NP_IO_ASIDE_H

#include <stdbool.h>

#include "base/error.h"

struct event_base;
struct np_aside;

struct np_aside_job {                     /* the first member of what is worked on; allocated by np_alloc */
  void (*work)(struct np_aside_job *job); /* on the thread; NULL: there is none, `done` comes at the loop's next turn, unfinished */
  void (*drop)(struct np_aside_job *job); /* frees it, on whichever side leaves last */
};

/* On the loop, later. finished: the work is over, and the job may be read; else `seconds` have passed, and it still goes on. */
typedef void np_aside_done(void *arg, struct np_aside_job *job, bool finished);

/* Takes the job, also where it fails: then NULL and err. */
struct np_aside *np_aside_start(struct event_base *base, struct np_aside_job *job, double seconds, np_aside_done *done, void *arg,
                                struct np_error *err);
void np_aside_cancel(struct np_aside *a); /* done will not be called; the thread goes on by itself */

#endif
