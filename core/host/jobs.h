/* The jobs (`plugin:every`) of one lane. A job of an instance runs on the lane that its name's hash gives; never twice at once, also over a
 * reload; its last run is kept in the store (space "neap.jobs", key "INSTANCE/NAME", value "BEGAN DUE": ms, where DUE is 0 unless the handler said when it is to run again). Lane's thread. */
#ifndef NP_HOST_JOBS_H
#define NP_HOST_JOBS_H

#include "host/lane.h"

struct np_jobs *np_jobs_new(struct np_lane *lane);
void np_jobs_adopt(struct np_jobs *j); /* the lane has adopted a new epoch */
/* Has it run now, whenever it is due. False where this lane has no such job, or it is running. */
bool np_jobs_hurry(struct np_jobs *j, const char *instance, const char *name);
bool np_jobs_running(const struct np_jobs *j, const char *instance, const char *name);
void np_jobs_drain(struct np_jobs *j); /* starts nothing more */
void np_jobs_free(struct np_jobs *j);

#endif
