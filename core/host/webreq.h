/* A request on its way in: kept for the inbox, and as a plugin sees it. */
#ifndef NP_HOST_WEBREQ_H
#define NP_HOST_WEBREQ_H

#include <lua.h>

#include "host/answer.h"
#include "host/plugin.h"
#include "host/task.h"
#include "io/routes.h"
#include "io/serve.h"

/* Adds the request as it came to the set; what became of it is filled in later. */
struct np_op *np_webreq_keep(struct np_writeset *ws, const struct np_request *req, const struct np_code *code);
/* Pushes { method, path, target, params, query, headers, raw, remote, received, route }, params and query as text. May raise. headers and raw are
 * made when first asked for, and only before the request is answered. */
void np_webreq_push(lua_State *L, struct np_task *t, const struct np_route *route, const struct np_route_match *match,
                    const struct np_request *req);
/* Checks params and query of the table at the top, and adds the body: 0. Or, where one is not as declared, fills *refusal, leaves something on
 * the stack and returns -1. May raise. */
int np_webreq_check(lua_State *L, struct np_task *t, const struct np_route *route, const struct np_request *req,
                    struct np_refusal *refusal);

#endif
