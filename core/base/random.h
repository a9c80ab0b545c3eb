/* Random bytes: the kernel's, or in a test what follows from its seed. Any thread. */
#ifndef NP_BASE_RANDOM_H
#define NP_BASE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void np_random(void *to, size_t n); /* the process ends where the kernel has none */
uint64_t np_random_number(void);    /* not 0: a start for a generator */

/* A test's: from now on all bytes follow from the seed, which is not 0; 0 is the kernel's again. Not while other threads run. */
void np_random_seed(uint64_t seed);
/* Fills where there is a seed; else false, and who asked has a source of its own. */
bool np_random_seeded(void *to, size_t n);

#endif
