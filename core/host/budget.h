/* Budgets: how often a vendor may be asked, counted for all lanes together. A budget belongs to a connection and a name. */
#ifndef NP_HOST_BUDGET_H
#define NP_HOST_BUDGET_H

#include "host/broker.h"
#include "host/plugin.h"

/* core.budget(name) -> what plugin:budget returns. */
int np_budget_handle(lua_State *L);

void np_budgets_drain(struct np_lane *lane);                         /* without the lock */
void np_budgets_settle(struct np_broker *b, struct np_writeset *ws); /* with the lock: gives back what was not used */
/* ,"budgets":[…] of a connection: those by the month that its code declares. Main thread, without the lock. */
void np_budgets_describe(struct np_broker *b, const struct np_code *code, struct np_reader *reader, struct np_buf *out);
void np_budgets_free(struct np_broker *b);

#endif
