/* The two clocks. Any thread. */
#ifndef NP_BASE_CLOCK_H
#define NP_BASE_CLOCK_H

#include <stdint.h>

int64_t np_now_ms(void);  /* ms since 1970-01-01 UTC */
int64_t np_mono_us(void); /* us on a clock that only goes forward */

#endif
