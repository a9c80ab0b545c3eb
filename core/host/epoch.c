/* Epochs: what is in force, shared by all lanes and never changed. */
#include <stdlib.h>
#include <string.h>

#include "host/lane.h"

void np_epoch_ref(struct np_epoch *e) { __atomic_add_fetch(&e->refs, 1, __ATOMIC_RELAXED); }

void np_epoch_unref(struct np_epoch *e) {
  if (!e || __atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  for (size_t i = 0; i < e->slot_count; i++) {
    free(e->slots[i].instance);
    free(e->slots[i].on_lane);
    free(e->slots[i].why_not);
    np_code_unref(e->slots[i].code);
  }
  free(e->slots);
  np_routes_free(e->routes);
  np_rules_free(e->rules);
  free(e);
}

/* Slots are sorted by name. */
const struct np_slot *np_epoch_slot(const struct np_epoch *e, const char *instance) {
  size_t low = 0, high = e->slot_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    int order = strcmp(e->slots[middle].instance, instance);
    if (order == 0) return &e->slots[middle];
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

bool np_slot_takes_messages(const struct np_slot *slot) { return slot->code ? slot->code->deliver != 0 : slot->kind != NP_RULE; }
