/* What a request would give now, compared with the readings that are stored: for a dry replay. Lane's thread. */
#ifndef NP_HOST_REPLAY_COMPARE_H
#define NP_HOST_REPLAY_COMPARE_H

#include "host/replay.h"
#include "store/store.h"

struct np_compare;
/* set: what its handler would commit; NULL or without readings: all that it had given are missing. NULL and err. */
struct np_compare *np_compare_new(struct np_reader *reader, int64_t request, struct np_writeset *set, struct np_error *err);
int np_compare_step(struct np_compare *c, struct np_error *err); /* a few readings: 1 there are more, 0 it is done, -1 and err */
/* Adds ,"readings":{counts},"changes":[the first ones that are not the same] to the line, and to the sums. */
void np_compare_tell(struct np_compare *c, struct np_buf *line, int64_t sums[NP_READINGS_KINDS]);
void np_compare_free(struct np_compare *c);

#endif
