/* The three lists of neap.lua: connections, rules and destinations. Private to the configuration. */
#ifndef NP_HOST_CONFIG_ENTRY_H
#define NP_HOST_CONFIG_ENTRY_H

#include "base/buf.h"
#include "host/config.h"
#include "host/config_lua.h"

/* Reads them from the table into c->entries. Raises; what c has got by then is freed with it. scratch is the caller's to free. */
void np_config_entries(struct np_config *c, const struct np_table *top, const char *shown, struct np_buf *scratch);
/* Its `limits`, over what l has. Raises. */
void np_config_limits(const struct np_table *t, struct np_limits *l);

/* Reads `check` and, where it counts, `policy` over what *check says. Raises. */
void np_config_read_check(const struct np_table *t, bool policy, struct np_check *check);

#endif
