/* What a lane knows of the devices whose readings it routes: place, owner and tags, read from the store once and kept until a commit tells news of the device.
 * Lane's thread. */
#ifndef NP_HOST_FACTS_H
#define NP_HOST_FACTS_H

#include "base/map.h"
#include "host/filter.h"
#include "store/store.h"

struct np_facts_cache {  /* zero-initialised is empty */
  struct np_map devices; /* vendor 0 device -> what is known of it */
};

/* *facts is borrowed until the next call; NULL where the store knows no such device. -1 and err where it cannot be read. */
int np_facts_find(struct np_facts_cache *c, struct np_reader *reader, struct np_text vendor, struct np_text device,
                  const struct np_facts **facts, struct np_error *err);
void np_facts_news(struct np_facts_cache *c, struct np_text vendor,
                   struct np_text device);      /* a commit has changed what is known of it */
void np_facts_forget(struct np_facts_cache *c); /* all: news may have been missed */

#endif
