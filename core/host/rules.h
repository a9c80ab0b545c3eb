/* The rules of an epoch: all their filters under one index, made once and shared by all lanes. Immutable. */
#ifndef NP_HOST_RULES_H
#define NP_HOST_RULES_H

#include <stddef.h>
#include <stdint.h>

#include "host/filter_index.h"

struct np_epoch;

struct np_rule_on { /* one plugin:on of one rule */
  uint32_t slot, on;
};

struct np_rules {
  struct np_filter_index *index; /* owned: its filters are those of ons */
  struct np_rule_on *ons;        /* owned: by slot, then in the order of the file */
  size_t count;
  uint32_t *out_of_force; /* owned: slots of rules that are configured but not in force */
  size_t out_count;
};

struct np_rules *np_rules_new(const struct np_epoch *e);
void np_rules_free(struct np_rules *r);

#endif
