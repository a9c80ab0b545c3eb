/* Of many filters, those that a reading may fire: found by the literals that they ask for and by their limits, so that it costs what is found, not what there
 * is. Immutable once made: any thread. */
#ifndef NP_HOST_FILTER_INDEX_H
#define NP_HOST_FILTER_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/filter.h"

struct np_filter_index;

/* Filters are borrowed, and known by their place in the list from now on. */
struct np_filter_index *np_filter_index_new(const struct np_filter *const *filters, size_t n);
void np_filter_index_free(struct np_filter_index *x);
size_t np_filter_index_words(const struct np_filter_index *x); /* of the bits that it sets */
bool np_filter_index_wants_facts(const struct np_filter_index *x);
/* Sets the bit of each filter that np_filter_run may say yes to, or would let change what it remembers; all others are 0. facts: NULL where nothing is
 * known of the device. How many literals were looked up is the same for any number of filters. */
void np_filter_index_find(const struct np_filter_index *x, const struct np_reading *r, const struct np_facts *facts,
                          uint64_t *bits);

#endif
