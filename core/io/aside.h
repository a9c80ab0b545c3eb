/* Work that may block or takes long, on threads beside the loops: a disk that hangs or a name that is not found holds up the one who waits for it, and nobody
 * else. The loop and the thread share the job; who leaves last frees it.
 *
 * Threads are made when they are needed, stay for a while for what comes next, and are of two kinds. What blocks is begun at once, on as many as it takes; what
 * is heavy, for it takes the processor and memory, on a few of low priority, in the order in which it came. */
#ifndef NP_IO_ASIDE_H
#define NP_IO_ASIDE_H

#include <stdbool.h>

#include "base/error.h"

struct event_base;
struct np_aside;

struct np_aside_job {                     /* the first member of what is worked on; allocated by np_alloc */
  void (*work)(struct np_aside_job *job); /* on the thread; NULL: there is none, `done` comes at the loop's next turn, unfinished */
  void (*drop)(struct np_aside_job *job); /* frees it, on whichever side leaves last */
  bool heavy;
};

/* On the loop, later. finished: the work is over, and the job may be read; else `seconds` have passed, and it still goes on, or waits for its turn. */
typedef void np_aside_done(void *arg, struct np_aside_job *job, bool finished);

/* Takes the job, also where it fails: then NULL and err. */
struct np_aside *np_aside_start(struct event_base *base, struct np_aside_job *job, double seconds, np_aside_done *done, void *arg,
                                struct np_error *err);
/* done will not be called. What is under way goes on by itself, what has not begun is not begun. */
void np_aside_cancel(struct np_aside *a);
/* Before the process ends, when no loop waits for anything any more: heavy work under way is waited for, for it must not run on while libraries are taken down. */
void np_aside_settle(void);

#endif
