/* The rules of an epoch. */
#include "host/rules.h"

#include <stdlib.h>

#include "base/buf.h"
#include "host/lane.h"

struct np_rules *np_rules_new(const struct np_epoch *e) {
  struct np_rules *r = np_alloc(sizeof *r);
  size_t most = 0;
  for (size_t i = 0; i < e->slot_count; i++)
    if (e->slots[i].kind == NP_RULE && e->slots[i].code) most += e->slots[i].code->on_count;
  const struct np_filter **filters = np_alloc((most + 1) * sizeof *filters);
  r->ons = np_alloc((most + 1) * sizeof *r->ons);
  r->out_of_force = np_alloc((e->slot_count + 1) * sizeof *r->out_of_force);
  for (size_t i = 0; i < e->slot_count; i++) {
    const struct np_slot *slot = &e->slots[i];
    if (slot->kind != NP_RULE) continue;
    if (!slot->code) r->out_of_force[r->out_count++] = (uint32_t)i;
    for (size_t k = 0; slot->code && k < slot->code->on_count; k++) {
      filters[r->count] = slot->code->ons[k].filter;
      r->ons[r->count++] = (struct np_rule_on){(uint32_t)i, (uint32_t)k};
    }
  }
  r->index = np_filter_index_new(filters, r->count);
  free(filters);
  return r;
}

void np_rules_free(struct np_rules *r) {
  if (!r) return;
  np_filter_index_free(r->index);
  free(r->ons), free(r->out_of_force);
  free(r);
}
