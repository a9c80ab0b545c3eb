/* The clocks. Any thread. */
#ifndef NP_BASE_CLOCK_H
#define NP_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

int64_t np_now_ms(void);  /* ms since 1970-01-01 UTC */
int64_t np_mono_us(void); /* us on a clock that only goes forward: for what waits */
int64_t np_work_us(void); /* the same, for how long work takes: a test's clock does not touch it */
/* Whether what was noted as the present, ms, is still to come by more than a minute: the clock that it was noted by was ahead, and has been set right since,
 * or is another machine's. */
bool np_is_ahead(int64_t ms);

/* A test's clock, of the whole process: np_now_ms and np_mono_us stand still and go on only when they are moved. 0 is the real one again. */
void np_clock_set(int64_t now_ms);
void np_clock_move(int64_t ms);

#endif
