/* A request on its way in: kept for the inbox, and as a plugin sees it. */
#ifndef NP_HOST_WEBREQ_H
#define NP_HOST_WEBREQ_H

#include <lua.h>

#include "host/answer.h"
#include "host/plugin.h"
#include "host/task.h"
#include "io/routes.h"
#include "io/serve.h"
#include "store/seal.h"

/* Adds the request as it came to the set; what became of it is filled in later. Where the route says so, headers and body are sealed, and the target stands,
 * sealed, in the first line of the headers (a path or query may carry a token, or whose device it is): instead of it the route's pattern is kept. */
struct np_op *np_webreq_keep(struct np_writeset *ws, const struct np_request *req, const struct np_route *route,
                             struct np_seal *seal);
/* What headers and body of a NP_OP_REQUEST are sealed for; part is "headers" or "body". The context borrows from both. */
struct np_webreq_place {
  struct np_seal_context context;
  char which[64];
};
void np_webreq_place(struct np_webreq_place *p, const struct np_op *op, const char *part);
/* What a kept request was, opened where it was sealed. All are the caller's to free. -1 and err where a part does not open: it is NULL then. */
struct np_webreq_kept {
  char *target, *headers, *body; /* headers "Name: value\n"… */
  size_t body_len;
};
int np_webreq_open(struct np_webreq_kept *kept, struct np_seal *seal, const struct np_op *op, struct np_error *err);
void np_webreq_kept_free(struct np_webreq_kept *kept);
/* Pushes { method, path, target, params, query, headers, raw, remote, received, route }, params and query as text. May raise. headers and raw are
 * made when first asked for, and only before the request is answered. */
void np_webreq_push(lua_State *L, struct np_task *t, const struct np_route *route, const struct np_route_match *match,
                    const struct np_request *req);
/* Checks params and query of the table at the top, and adds the body: 0. Or, where one is not as declared, fills *refusal, leaves something on
 * the stack and returns -1. May raise. */
int np_webreq_check(lua_State *L, struct np_task *t, const struct np_route *route, const struct np_request *req,
                    struct np_refusal *refusal);

#endif
